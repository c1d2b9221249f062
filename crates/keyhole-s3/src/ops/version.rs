//! Versions of objects: their ids in requests and responses, and the versioning state of a bucket.

use std::fmt;

use crate::http::RequestHead;
use crate::limits::VERSION_ID_LEN;
use crate::query::Query;
use crate::time::http_date;
use crate::{Error, ErrorCode};

/// The id of a version: `null` for one that was stored without versioning, otherwise 32 hex digits.
///
/// ```
/// use keyhole_s3::ops::VersionId;
///
/// let id = VersionId::parse("000102030405060708090a0b0c0d0e0f").expect("an id");
/// assert_eq!((id.to_string().len(), VersionId::parse("null")), (32, Some(VersionId::Null)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum VersionId {
    /// The version that a name has outside of versioning.
    Null,
    /// A version that was stored with versioning.
    Id([u8; 16]),
}

impl VersionId {
    /// Parses the text of an id. Returns `None` for any other text than the one that
    /// [`Display`](fmt::Display) writes.
    pub fn parse(text: &str) -> Option<VersionId> {
        if text == "null" {
            return Some(VersionId::Null);
        }
        let is_canonical = text.len() == VERSION_ID_LEN && !text.bytes().any(|byte| byte.is_ascii_uppercase());
        let mut id = [0; VERSION_ID_LEN / 2];
        hex::decode_to_slice(text, &mut id).ok().filter(|()| is_canonical)?;
        Some(VersionId::Id(id))
    }

    /// Parses the value of a parameter.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub(super) fn parse_argument(name: &'static str, text: &str) -> Result<VersionId, Error> {
        VersionId::parse(text).ok_or_else(|| Error::invalid_argument(name, text, "Invalid version id specified"))
    }
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VersionId::Null => f.write_str("null"),
            VersionId::Id(id) => id.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

impl Query {
    /// Parses `versionId`.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub fn version_id(&self) -> Result<Option<VersionId>, Error> {
        match self.get("versionId") {
            None => Ok(None),
            Some("") => Err(Error::invalid_argument("versionId", "", "Version id cannot be the empty string")),
            Some(text) => VersionId::parse_argument("versionId", text).map(Some),
        }
    }
}

/// The versioning state of a bucket that has had versioning configured. A bucket never returns to
/// the state before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Versioning {
    /// Each write stores a new version.
    Enabled,
    /// Each write replaces the version `null`.
    Suspended,
}

impl Versioning {
    /// Returns the name in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Versioning::Enabled => "Enabled",
            Versioning::Suspended => "Suspended",
        }
    }
}

/// Returns the error for an id that no version has.
pub fn no_such_version(key: &str, id: VersionId) -> Error {
    Error::new(ErrorCode::NoSuchVersion).with_field("Key", key).with_field("VersionId", id.to_string())
}

/// Returns the error for an operation on a delete marker that a client has named, which can only be
/// deleted.
pub fn is_delete_marker(head: &RequestHead, id: VersionId, time_ms: u64) -> Error {
    under_delete_marker(Error::new(ErrorCode::MethodNotAllowed), id)
        .with_field("Method", &head.method)
        .with_field("ResourceType", "DeleteMarker")
        .with_header("Allow", "DELETE")
        .with_header("Last-Modified", http_date(time_ms))
}

/// Adds the headers that name the delete marker that an error is about.
pub fn under_delete_marker(error: Error, id: VersionId) -> Error {
    error.with_header("x-amz-delete-marker", "true").with_header("x-amz-version-id", id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::head;

    const ID: &str = "00112233445566778899aabbccddeeff";

    #[test]
    fn version_ids_are_parsed_only_as_written() {
        let id = VersionId::parse(ID).unwrap();
        assert!(matches!(id, VersionId::Id([0x00, 0x11, .., 0xff])));
        for text in [ID, "null"] {
            assert_eq!(VersionId::parse(text).unwrap().to_string(), text);
        }
        let long = format!("{ID}00");
        for bad in ["", "Null", "NULL", "0", &ID[1..], &long, &ID.to_uppercase(), &ID.replace('0', "g"), " null"] {
            assert_eq!(VersionId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn version_parameter_is_parsed_or_rejected() {
        let parse = |query: &str| Query::parse(query).unwrap().version_id().map_err(|error| error.message);
        assert_eq!(parse("prefix=a"), Ok(None));
        assert_eq!(parse("versionId=null"), Ok(Some(VersionId::Null)));
        assert_eq!(parse(&format!("versionId={ID}")), Ok(VersionId::parse(ID)));
        for (bad, message) in [("", "Version id cannot be the empty string"), ("3", "Invalid version id specified")] {
            assert_eq!(parse(&format!("versionId={bad}")), Err(message.into()), "{bad}");
        }
    }

    #[test]
    fn error_of_delete_marker_names_marker_and_method() {
        let error = is_delete_marker(&head("HEAD /b/k HTTP/1.1"), VersionId::parse(ID).unwrap(), 0);
        assert_eq!(error.code.status(), 405);
        assert_eq!(error.fields, [("Method", "HEAD".to_owned()), ("ResourceType", "DeleteMarker".to_owned())]);
        let expected = [
            ("x-amz-delete-marker", "true"),
            ("x-amz-version-id", ID),
            ("Allow", "DELETE"),
            ("Last-Modified", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ];
        assert_eq!(error.headers, expected.map(|(name, value)| (name, value.to_owned())));
    }
}
