//! Query parameters.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::version::VersionId;
use crate::limits::{BUCKETS_PAGE_MAX, PAGE_MAX, PART_NUMBER_MAX};
use crate::query::Query;
use crate::{Error, ErrorCode};

/// The id of a multipart upload: 32 hex digits in requests and responses.
pub type UploadId = [u8; 16];

/// Characters encoded under `encoding-type=url`.
const KEY_ENCODED: AsciiSet =
    NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/').remove(b'*');

/// Encodes a key for a document; percent-encoded if the client asked for it.
pub(crate) fn encode_key(key: &str, url: bool) -> String {
    if url { utf8_percent_encode(key, &KEY_ENCODED).to_string() } else { key.to_owned() }
}

/// Encodes a continuation token: the last entry of the previous page in hexadecimal, which is valid
/// in any header and query.
pub(crate) fn encode_token(last: &str) -> String {
    hex::encode(last)
}

fn decode_token(token: &str) -> Result<String, Error> {
    let bytes = hex::decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    bytes.ok_or_else(|| {
        Error::invalid_argument("continuation-token", token, "The continuation token provided is incorrect")
    })
}

/// Parameters of ListBuckets.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListBuckets {
    /// Prefix of the listed names.
    pub prefix: Option<String>,
    /// The last bucket of the previous page, from the continuation token.
    pub after: Option<String>,
    /// The maximum number of buckets. `None`: all of them, as without paging.
    pub max: Option<usize>,
    /// The region of the listed buckets.
    pub region: Option<String>,
}

/// Parameters of ListObjectVersions.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListVersions {
    /// Prefix of the listed keys.
    pub prefix: String,
    /// Keys with this delimiter after the prefix are grouped into common prefixes.
    pub delimiter: Option<String>,
    /// The entry after which the page starts.
    pub key_marker: Option<String>,
    /// The version of `key_marker` after which the page starts; without it, the page starts after
    /// all of them.
    pub version_marker: Option<VersionId>,
    /// The maximum number of entries.
    pub max_keys: usize,
    /// `encoding-type=url`
    pub encoding_url: bool,
}

/// Parameters of ListObjects.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListObjects {
    /// Prefix of the listed keys.
    pub prefix: String,
    /// Keys with this delimiter after the prefix are grouped into common prefixes.
    pub delimiter: Option<String>,
    /// The entry after which the page starts.
    pub marker: Option<String>,
    /// The maximum number of entries.
    pub max_keys: usize,
    /// `encoding-type=url`
    pub encoding_url: bool,
}

/// Parameters of ListObjectsV2.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListObjectsV2 {
    /// Prefix of the listed keys.
    pub prefix: String,
    /// Keys with this delimiter after the prefix are grouped into common prefixes.
    pub delimiter: Option<String>,
    /// The last entry of the previous page, from the continuation token.
    pub continuation: Option<String>,
    /// The key after which the listing starts.
    pub start_after: Option<String>,
    /// The maximum number of entries.
    pub max_keys: usize,
    /// Whether to return the owner of each object.
    pub fetch_owner: bool,
    /// `encoding-type=url`
    pub encoding_url: bool,
}

/// Parameters of ListMultipartUploads.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListUploads {
    /// Prefix of the listed keys.
    pub prefix: String,
    /// Keys with this delimiter after the prefix are grouped into common prefixes.
    pub delimiter: Option<String>,
    /// The key after which the page starts; with `upload_id_marker`, also lists later uploads of
    /// this key.
    pub key_marker: Option<String>,
    /// See `key_marker`; ignored without it.
    pub upload_id_marker: Option<UploadId>,
    /// The maximum number of entries.
    pub max_uploads: usize,
    /// `encoding-type=url`
    pub encoding_url: bool,
}

/// The parameters of operations.
impl Query {
    fn owned(&self, name: &str) -> Option<String> {
        self.get(name).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    fn page(&self, name: &'static str) -> Result<usize, Error> {
        page(name, self.get(name))
    }

    fn encoding_url(&self) -> Result<bool, Error> {
        match self.get("encoding-type") {
            None | Some("") => Ok(false),
            Some("url") => Ok(true),
            Some(other) => {
                Err(Error::invalid_argument("encoding-type", other, "Invalid Encoding Method specified in Request"))
            }
        }
    }

    pub(crate) fn list_objects(&self) -> Result<ListObjects, Error> {
        Ok(ListObjects {
            prefix: self.owned("prefix").unwrap_or_default(),
            delimiter: self.owned("delimiter"),
            marker: self.owned("marker"),
            max_keys: self.page("max-keys")?,
            encoding_url: self.encoding_url()?,
        })
    }

    pub(crate) fn list_objects_v2(&self) -> Result<ListObjectsV2, Error> {
        Ok(ListObjectsV2 {
            prefix: self.owned("prefix").unwrap_or_default(),
            delimiter: self.owned("delimiter"),
            continuation: self.get("continuation-token").map(decode_token).transpose()?,
            start_after: self.owned("start-after"),
            max_keys: self.page("max-keys")?,
            fetch_owner: self.get("fetch-owner") == Some("true"),
            encoding_url: self.encoding_url()?,
        })
    }

    pub(crate) fn list_buckets(&self) -> Result<ListBuckets, Error> {
        let token = self.get("continuation-token").filter(|token| !token.is_empty());
        let max = self.get("max-buckets").filter(|max| !max.is_empty());
        let max = max.map(|text| {
            let max = text.parse().ok().filter(|max| (1..=BUCKETS_PAGE_MAX).contains(max));
            max.ok_or_else(|| {
                let message = format!("Argument max-buckets must be an integer between 1 and {BUCKETS_PAGE_MAX}.");
                Error::invalid_argument("max-buckets", text, message)
            })
        });
        let after = token.map(decode_token).transpose()?;
        let max = max.transpose()?.or(after.as_ref().map(|_| BUCKETS_PAGE_MAX));
        Ok(ListBuckets { prefix: self.owned("prefix"), after, max, region: self.owned("bucket-region") })
    }

    pub(crate) fn list_versions(&self) -> Result<ListVersions, Error> {
        let key_marker = self.owned("key-marker");
        let marker = self.owned("version-id-marker");
        if let (None, Some(text)) = (&key_marker, &marker) {
            let message = "A version-id marker cannot be specified without a key marker.";
            return Err(Error::invalid_argument("version-id-marker", text, message));
        }
        let version_marker = marker.map(|text| VersionId::parse_argument("version-id-marker", &text)).transpose()?;
        Ok(ListVersions {
            prefix: self.owned("prefix").unwrap_or_default(),
            delimiter: self.owned("delimiter"),
            key_marker,
            version_marker,
            max_keys: self.page("max-keys")?,
            encoding_url: self.encoding_url()?,
        })
    }

    pub(crate) fn list_uploads(&self) -> Result<ListUploads, Error> {
        let marker = self.owned("upload-id-marker");
        let key_marker = self.owned("key-marker");
        let upload_id_marker = match (&key_marker, marker) {
            (Some(_), Some(text)) => Some(
                parse_upload_id(&text)
                    .ok_or_else(|| Error::invalid_argument("upload-id-marker", text, "Invalid uploadId marker"))?,
            ),
            _ => None,
        };
        Ok(ListUploads {
            prefix: self.owned("prefix").unwrap_or_default(),
            delimiter: self.owned("delimiter"),
            key_marker,
            upload_id_marker,
            max_uploads: self.page("max-uploads")?,
            encoding_url: self.encoding_url()?,
        })
    }

    pub(crate) fn upload_id(&self) -> Result<UploadId, Error> {
        self.get("uploadId").and_then(parse_upload_id).ok_or_else(|| Error::new(ErrorCode::NoSuchUpload))
    }

    pub(crate) fn part_number(&self) -> Result<u16, Error> {
        let text = self.get("partNumber").unwrap_or_default();
        text.parse().ok().filter(|number| (1..=PART_NUMBER_MAX).contains(number)).ok_or_else(|| {
            Error::invalid_argument("partNumber", text, "Part number must be an integer between 1 and 10000, inclusive")
        })
    }

    pub(crate) fn part_marker(&self) -> Result<u16, Error> {
        part_marker("part-number-marker", self.get("part-number-marker"))
    }

    pub(crate) fn max_parts(&self) -> Result<usize, Error> {
        self.page("max-parts")
    }
}

/// Parses the maximum number of entries.
pub(super) fn page(name: &'static str, text: Option<&str>) -> Result<usize, Error> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(PAGE_MAX) };
    match text.parse::<u32>() {
        Ok(number) if number <= i32::MAX as u32 => Ok((number as usize).min(PAGE_MAX)),
        _ => Err(Error::invalid_argument(name, text, format!("{name} must be a number from 0 to 2147483647."))),
    }
}

/// Parses the part number after which a page starts.
pub(super) fn part_marker(name: &'static str, text: Option<&str>) -> Result<u16, Error> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(0) };
    text.parse::<u32>()
        .map(|marker| marker.min(u32::from(u16::MAX)) as u16)
        .map_err(|_| Error::invalid_argument(name, text, format!("{name} must be a number.")))
}

fn parse_upload_id(text: &str) -> Option<UploadId> {
    let mut id = [0; 16];
    hex::decode_to_slice(text, &mut id).ok()?;
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_parameters_are_parsed_or_rejected() {
        let query = Query::parse("prefix=a%2Fb+c&delimiter=%2F&max-keys=5000&encoding-type=url&marker=").unwrap();
        let expected = ListObjects {
            prefix: "a/b c".to_owned(),
            delimiter: Some("/".to_owned()),
            marker: None,
            max_keys: PAGE_MAX,
            encoding_url: true,
        };
        assert_eq!(query.list_objects().unwrap(), expected);
        let token = encode_token("ké/");
        let query = Query::parse(&format!("list-type=2&continuation-token={token}&max-keys=0")).unwrap();
        let list = query.list_objects_v2().unwrap();
        assert_eq!((list.continuation.as_deref(), list.max_keys), (Some("ké/"), 0));
        for bad in ["max-keys=-1", "max-keys=a", "max-keys=2147483648", "encoding-type=x", "continuation-token=zz"] {
            let error = Query::parse(bad).unwrap().list_objects_v2().unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{bad}");
        }
    }

    #[test]
    fn bucket_list_parameters_are_parsed_or_rejected() {
        let parse = |query: &str| Query::parse(query).unwrap().list_buckets().map_err(|error| error.code);
        assert_eq!(parse("prefix=&max-buckets=&continuation-token=&bucket-region="), Ok(ListBuckets::default()));
        let token = encode_token("photos");
        let expected = ListBuckets {
            prefix: Some("p".to_owned()),
            after: Some("photos".to_owned()),
            max: Some(BUCKETS_PAGE_MAX),
            region: Some("eu-1".to_owned()),
        };
        assert_eq!(parse(&format!("prefix=p&continuation-token={token}&bucket-region=eu-1")), Ok(expected));
        for (max, expected) in
            [("1", Some(1)), ("10000", Some(10_000)), ("0", None), ("10001", None), ("-1", None), ("x", None)]
        {
            let got = parse(&format!("max-buckets={max}"));
            assert_eq!(got.map(|list| list.max), expected.map(Some).ok_or(ErrorCode::InvalidArgument), "{max}");
        }
        assert_eq!(parse("continuation-token=zz"), Err(ErrorCode::InvalidArgument));
    }

    #[test]
    fn version_list_parameters_are_parsed_or_rejected() {
        let parse = |query: &str| Query::parse(query).unwrap().list_versions().map_err(|error| error.code);
        let list = parse("versions&prefix=a&delimiter=%2F&key-marker=a%2Fb&version-id-marker=null&max-keys=2").unwrap();
        let expected = ListVersions {
            prefix: "a".to_owned(),
            delimiter: Some("/".to_owned()),
            key_marker: Some("a/b".to_owned()),
            version_marker: Some(VersionId::Null),
            max_keys: 2,
            encoding_url: false,
        };
        assert_eq!(list, expected);
        assert_eq!(parse("key-marker=&version-id-marker=").unwrap().max_keys, PAGE_MAX);
        let id = "00112233445566778899aabbccddeeff";
        let list = parse(&format!("key-marker=a&version-id-marker={id}")).unwrap();
        assert_eq!(list.version_marker, VersionId::parse(id));
        for bad in ["version-id-marker=null", "key-marker=a&version-id-marker=x", "max-keys=-1", "encoding-type=x"] {
            assert_eq!(parse(bad), Err(ErrorCode::InvalidArgument), "{bad}");
        }
    }

    #[test]
    fn part_numbers_are_accepted_within_bounds() {
        for (text, expected) in
            [("1", Some(1)), ("10000", Some(10_000)), ("0", None), ("10001", None), ("", None), ("x", None)]
        {
            let query = Query::parse(&format!("partNumber={text}")).unwrap();
            assert_eq!(query.part_number().ok(), expected, "{text}");
        }
    }
}
