//! Rules for bucket names and keys.

use std::net::Ipv4Addr;

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
        return Err(Error::new(ErrorCode::InvalidBucketName).with_field("BucketName", name));
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
