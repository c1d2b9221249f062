//! Errors of object heads.

use core::fmt;

use crate::NotAuthentic;

/// Error encoding or decoding an object head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum HeadError {
    /// The object head exceeds the maximum length or the output buffer.
    TooLong,
    /// The input ends within an item.
    Truncated,
    /// Data follows the map.
    Trailing,
    /// An item's type does not match its key.
    Type,
    /// A byte string's length does not match its key.
    Length,
    /// A number is not in its shortest form, a length is indefinite, or a list that must be omitted
    /// is empty.
    NotDeterministic,
    /// Keys or names are not in ascending order, or repeated.
    Order,
    /// Unknown key, algorithm or type.
    Unknown,
    /// Unsupported version.
    Version,
    /// A value contains a control character, or a metadata name is not a lower-case token.
    Text,
    /// A sealed head lacks the data key, or an unsealed head contains one.
    DataKey,
    /// The bucket or key name exceeds S3's limit.
    Name,
    /// The head of an upload has entries that only an object's head has.
    Kind,
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HeadError::TooLong => "longer than the maximum head length",
            HeadError::Truncated => "ends in the middle of an item",
            HeadError::Trailing => "trailing bytes after the map",
            HeadError::Type => "an item has the wrong type",
            HeadError::Length => "a byte string has the wrong length",
            HeadError::NotDeterministic => "not in the deterministic encoding",
            HeadError::Order => "keys or names out of order",
            HeadError::Unknown => "an unknown key",
            HeadError::Version => "an unknown version",
            HeadError::Text => "a value that is invalid in a header",
            HeadError::DataKey => "the data key is missing or out of place",
            HeadError::Name => "bucket or key name is too long",
            HeadError::Kind => "the head of an upload has an entry of an object's head",
        })
    }
}

impl core::error::Error for HeadError {}

/// Error opening a sealed head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// Another key or other names, or altered data.
    NotAuthentic,
    /// The object head authenticates, but its plaintext is not a valid object head.
    Malformed(HeadError),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::NotAuthentic => NotAuthentic.fmt(f),
            OpenError::Malformed(error) => write!(f, "malformed: {error}"),
        }
    }
}

impl core::error::Error for OpenError {}

impl From<NotAuthentic> for OpenError {
    fn from(_: NotAuthentic) -> Self {
        OpenError::NotAuthentic
    }
}

impl From<HeadError> for OpenError {
    fn from(error: HeadError) -> Self {
        OpenError::Malformed(error)
    }
}
