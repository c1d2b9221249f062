//! Rules for bucket names and keys.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use crate::echo::beginning;
use crate::limits::KEY_MAX;
use crate::{Error, ErrorCode};

/// Checks a bucket's name (AWS, "General purpose bucket naming rules").
///
/// # Errors
/// `InvalidBucketName`.
pub fn check_bucket(name: &str) -> Result<(), Error> {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let valid = (3..=63).contains(&name.len()) && name.split('.').all(label) && name.parse::<Ipv4Addr>().is_err();
    if !valid {
        // A key in base64 that is sent as the source of a copy can have a slash, which splits it.
        let is_like_bucket = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'));
        let shown = if is_like_bucket { Cow::Borrowed(name) } else { beginning(name) };
        return Err(Error::new(ErrorCode::InvalidBucketName).with_echo("BucketName", shown));
    }
    Ok(())
}

/// Checks the length of a key.
///
/// # Errors
/// `KeyTooLongError`.
pub fn check_key(key: &str) -> Result<(), Error> {
    if key.len() > KEY_MAX {
        return Err(Error::new(ErrorCode::KeyTooLongError)
            .with_field("Size", key.len().to_string())
            .with_field("MaxSizeAllowed", KEY_MAX.to_string()));
    }
    Ok(())
}
