//! Listings of the service, in the form that the S3 library can read.

use object_store::path::Path;

/// Removes the objects and directories whose names the library rejects, such as `a//b`: it would
/// reject the whole listing. Other programs may use such names, and remotes do not.
pub(super) fn without_invalid_names(listing: &str) -> String {
    let objects = without(listing, "Contents", "Key");
    without(&objects, "CommonPrefixes", "Prefix")
}

/// Removes the elements `item` whose element `field` is an invalid name.
fn without(listing: &str, item: &str, field: &str) -> String {
    let open = format!("<{item}>");
    let close = format!("</{item}>");
    let mut kept = String::with_capacity(listing.len());
    let mut rest = listing;
    while let Some(start) = rest.find(&open)
        && let Some(len) = rest[start..].find(&close)
    {
        let end = start + len + close.len();
        let (before, element) = rest[..end].split_at(start);
        kept.push_str(before);
        if has_valid_name(element, field) {
            kept.push_str(element);
        }
        rest = &rest[end..];
    }
    kept + rest
}

fn has_valid_name(element: &str, field: &str) -> bool {
    let name = element.split_once(&format!("<{field}>")).and_then(|(_, rest)| rest.split_once("</"));
    // The library reports other errors.
    name.is_none_or(|(name, _)| Path::parse(unescape(name)).is_ok())
}

/// Replaces references to characters.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let (reference, behind) = after.split_once(';').unwrap_or((after, ""));
        out.extend(character(reference));
        rest = behind;
    }
    out + rest
}

fn character(reference: &str) -> Option<char> {
    match reference {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = reference.strip_prefix('#')?;
            let code = match number.strip_prefix('x') {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_invalid_names_are_removed() {
        let object = |key: &str| format!("<Contents><Size>1</Size><Key>{key}</Key></Contents>");
        let directory = |prefix: &str| format!("<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>");
        let valid = ["p/a", "p/a &amp; b", "p/&#233;", "p/dir/", "p/a..b"];
        for invalid in ["p//a", "p/a//", "p/./a", "p/&#46;./a", "p/a&#xA;b", "p&#x2f;&#x2f;a"] {
            let with = |names: &[&str]| {
                let items: String = names.iter().map(|name| object(name) + &directory(name)).collect();
                format!("<ListBucketResult><Prefix>p//</Prefix>{items}</ListBucketResult>")
            };
            assert_eq!(without_invalid_names(&with(&[&valid[..], &[invalid]].concat())), with(&valid), "{invalid}");
            assert_eq!(without_invalid_names(&with(&[&[invalid], &valid[..]].concat())), with(&valid), "{invalid}");
        }
        for odd in
            ["", "<Contents>", "<Contents></Contents>", "<Contents><Key>a//b", "&", "<Contents><Key>&x</Contents>"]
        {
            assert_eq!(without_invalid_names(odd), odd);
        }
    }
}
