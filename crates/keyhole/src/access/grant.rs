//! Grants in text form.

use std::fmt;

use keyhole_node::{Grant, Right};

use super::error::{GrantError, PatternError};

/// Parses `BUCKET[/PREFIX]:RIGHT[,RIGHT...]`. A bucket that ends in `*` matches all buckets with
/// this prefix.
pub(crate) fn parse_grant(text: &str) -> Result<Grant, GrantError> {
    let (place, rights) = text.rsplit_once(':').ok_or_else(|| GrantError::Form(text.to_owned()))?;
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    check_bucket_pattern(bucket).map_err(GrantError::Bucket)?;
    let unknown = |error: &dyn fmt::Display| GrantError::Right(error.to_string());
    let right = |text: &str| text.parse::<Right>().map_err(|error| unknown(&error));
    let rights = rights.split(',').map(right).collect::<Result<_, _>>()?;
    Ok(Grant { bucket: bucket.to_owned(), prefix: prefix.to_owned(), rights })
}

/// Formats a grant in the syntax of [`parse_grant`].
pub(crate) fn format_grant(grant: &Grant) -> String {
    let Grant { bucket, prefix, rights } = grant;
    let rights = rights.iter().map(Right::name).collect::<Vec<_>>().join(",");
    if prefix.is_empty() { format!("{bucket}:{rights}") } else { format!("{bucket}/{prefix}:{rights}") }
}

/// Checks a bucket name, or a prefix of names followed by `*`.
pub(crate) fn check_bucket_pattern(bucket: &str) -> Result<(), PatternError> {
    let name = bucket.strip_suffix('*').unwrap_or(bucket);
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    if !bucket.is_empty() && bucket.len() <= 63 && name.bytes().all(valid) {
        Ok(())
    } else {
        Err(PatternError(bucket.to_owned()))
    }
}
