//! Grants in text form.

use keyhole_node::Grant;

/// Parses `BUCKET[/PREFIX]:RIGHT[,RIGHT...]`. A bucket that ends in `*` matches all buckets with
/// this prefix.
pub(crate) fn parse_grant(text: &str) -> Result<Grant, String> {
    let form = "expected BUCKET[/PREFIX]:RIGHT[,RIGHT...], such as photos/2026/:read,list or *:admin";
    let (place, rights) = text.rsplit_once(':').ok_or_else(|| format!("invalid grant {text:?}: {form}"))?;
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    check_bucket_pattern(bucket).map_err(|why| format!("{why}: {form}"))?;
    let rights = rights.split(',').map(str::parse).collect::<Result<_, _>>()?;
    Ok(Grant { bucket: bucket.to_owned(), prefix: prefix.to_owned(), rights })
}

/// Formats a grant in the syntax of [`parse_grant`].
pub(crate) fn format_grant(grant: &Grant) -> String {
    let Grant { bucket, prefix, rights } = grant;
    let rights = rights.iter().map(keyhole_node::Right::name).collect::<Vec<_>>().join(",");
    match prefix.is_empty() {
        true => format!("{bucket}:{rights}"),
        false => format!("{bucket}/{prefix}:{rights}"),
    }
}

/// Checks a bucket name, or a prefix of names followed by `*`.
pub(crate) fn check_bucket_pattern(bucket: &str) -> Result<(), String> {
    let name = bucket.strip_suffix('*').unwrap_or(bucket);
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    match !bucket.is_empty() && bucket.len() <= 63 && name.bytes().all(valid) {
        true => Ok(()),
        false => Err(format!("invalid bucket {bucket:?}: expected a bucket name, or the start of names followed by *")),
    }
}
