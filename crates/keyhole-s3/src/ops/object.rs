//! Object parameters in request headers: metadata, checksums, the source of a copy, read options.

use std::borrow::Cow;

use keyhole_core::head::{ChecksumAlgorithm, ChecksumType, Checksums, Field};
use percent_encoding::percent_decode_str;

use super::names::{check_bucket, check_key};
use super::version::VersionId;
use crate::checksum;
use crate::http::{RequestHead, is_token};
use crate::limits::USER_METADATA_MAX;
use crate::{Error, ErrorCode};

const USER_PREFIX: &str = "x-amz-meta-";

/// The metadata that a client sends with an object.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Metadata {
    /// The standard headers that are stored, in the order of [`Field::ALL`].
    pub fields: [Option<Vec<u8>>; 6],
    /// User metadata: lower-case names without `x-amz-meta-`, ascending and unique.
    pub user: Vec<(String, Vec<u8>)>,
}

/// Parses the metadata of a request that creates an object.
///
/// # Errors
/// `MetadataTooLarge`; `InvalidArgument` for values that cannot be returned in a header.
pub fn metadata(head: &RequestHead) -> Result<Metadata, Error> {
    let mut metadata = Metadata::default();
    for (place, field) in metadata.fields.iter_mut().zip(Field::ALL) {
        if let Some(value) = head.headers.get(field.header_name()) {
            let value = if field == Field::ContentEncoding { without_aws_chunked(value) } else { Some(value.to_vec()) };
            *place = value.map(checked).transpose()?;
        }
    }
    let mut total = 0;
    for (name, value) in head.headers.iter() {
        let Some(name) = name.strip_prefix(USER_PREFIX).filter(|name| !name.is_empty()) else { continue };
        // A header has such a name anyway; the field of a form can have any.
        if !is_token(name) {
            let message = "The name of a metadata entry has a character that no header name has (RFC 9110, token).";
            let shown = format!("{USER_PREFIX}{name}");
            return Err(Error::new(ErrorCode::InvalidArgument).with_message(message).with_field("ArgumentName", shown));
        }
        total += name.len() + value.len();
        let value = checked(value.to_vec())?;
        match metadata.user.binary_search_by(|(other, _)| other.as_str().cmp(name)) {
            // A repeated field is joined to a list (RFC 9110 §5.3).
            Ok(at) => metadata.user[at].1 = [&metadata.user[at].1[..], b",", &value].concat(),
            Err(at) => metadata.user.insert(at, (name.to_owned(), value)),
        }
    }
    if total > USER_METADATA_MAX {
        return Err(Error::new(ErrorCode::MetadataTooLarge)
            .with_field("Size", total.to_string())
            .with_field("MaxSizeAllowed", USER_METADATA_MAX.to_string()));
    }
    Ok(metadata)
}

/// Rejects metadata on the upload of a sealed object, whose sealed head has it. `Content-Type`
/// describes the sealed object file and is allowed.
///
/// # Errors
/// `InvalidRequest`, and the errors of [`metadata`].
pub fn refuse_metadata(head: &RequestHead) -> Result<(), Error> {
    let Metadata { fields, user } = metadata(head)?;
    let mut kept = Field::ALL.into_iter().zip(&fields).filter(|(field, _)| *field != Field::ContentType);
    if user.is_empty() && kept.all(|(_, value)| value.is_none()) {
        return Ok(());
    }
    let message =
        "The metadata of a sealed object is in its sealed head. Seal it with the object, and send no headers for it.";
    Err(Error::new(ErrorCode::InvalidRequest).with_message(message))
}

/// Removes `aws-chunked`, which describes the transfer, from a `Content-Encoding`.
fn without_aws_chunked(value: &[u8]) -> Option<Vec<u8>> {
    let codings: Vec<&[u8]> = value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"aws-chunked"))
        .collect();
    if codings.is_empty() { None } else { Some(codings.join(&b","[..])) }
}

fn checked(value: Vec<u8>) -> Result<Vec<u8>, Error> {
    if value.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
        return Err(Error::new(ErrorCode::InvalidArgument).with_message("A metadata header has a control character."));
    }
    Ok(value)
}

/// The source of a copy's metadata or tags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Directive {
    /// The copied object.
    Copy,
    /// The request.
    Replace,
}

/// Parses `x-amz-metadata-directive`.
///
/// # Errors
/// `InvalidArgument`.
pub fn metadata_directive(head: &RequestHead) -> Result<Directive, Error> {
    directive(head, "x-amz-metadata-directive", "Unknown metadata directive.")
}

pub(super) fn directive(head: &RequestHead, name: &'static str, unknown: &'static str) -> Result<Directive, Error> {
    match head.headers.get(name) {
        None | Some(b"COPY") => Ok(Directive::Copy),
        Some(b"REPLACE") => Ok(Directive::Replace),
        Some(other) => Err(Error::invalid_argument(name, String::from_utf8_lossy(other), unknown)),
    }
}

/// Parses the checksum that a CreateMultipartUpload declares. The default type is that of S3:
/// full-object for CRC64NVME, composite for the others.
///
/// # Errors
/// `InvalidRequest` for unknown names, and for types that the algorithm does not support.
pub fn declared_checksum(head: &RequestHead) -> Result<Option<(ChecksumAlgorithm, ChecksumType)>, Error> {
    let invalid = |message: &'static str| Error::new(ErrorCode::InvalidRequest).with_message(message);
    let kind = checksum::type_header(head)?;
    let Some(text) = head.headers.text("x-amz-checksum-algorithm") else {
        return match kind {
            None => Ok(None),
            Some(_) => Err(invalid(
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
            )),
        };
    };
    let algorithm = named_algorithm(text)?;
    let default_type = match algorithm {
        ChecksumAlgorithm::Crc64Nvme => ChecksumType::FullObject,
        _ => ChecksumType::Composite,
    };
    match kind.unwrap_or(default_type) {
        ChecksumType::FullObject if !checksum::combines(algorithm) => Err(invalid(
            "The FULL_OBJECT checksum type can be used with the CRC32, CRC32C and CRC64NVME checksum algorithms alone.",
        )),
        ChecksumType::Composite if algorithm == ChecksumAlgorithm::Crc64Nvme => {
            Err(invalid("The COMPOSITE checksum type cannot be used with the crc64nvme checksum algorithm."))
        }
        kind => Ok(Some((algorithm, kind))),
    }
}

/// Parses the checksum that a CopyObject asks for.
///
/// # Errors
/// `InvalidRequest` for unknown names.
pub fn copy_checksum(head: &RequestHead) -> Result<Option<ChecksumAlgorithm>, Error> {
    head.headers.text("x-amz-checksum-algorithm").map(named_algorithm).transpose()
}

fn named_algorithm(text: &str) -> Result<ChecksumAlgorithm, Error> {
    checksum::algorithm_of(text).ok_or_else(|| {
        Error::new(ErrorCode::InvalidRequest).with_message(format!(
            "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [{}]",
            checksum::algorithm_names()
        ))
    })
}

/// The source object of a copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CopySource {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// The version; `None`: the current one.
    pub version: Option<VersionId>,
}

impl CopySource {
    /// Parses `x-amz-copy-source`: `bucket/key`, percent-encoded, with an optional leading slash, and
    /// an optional `?versionId=`.
    pub(crate) fn parse(value: &[u8]) -> Result<CopySource, Error> {
        let text = std::str::from_utf8(value).unwrap_or_default();
        let wrong = || {
            let message = "Copy Source must mention the source bucket and key: sourcebucket/sourcekey";
            Error::invalid_argument("x-amz-copy-source", text, message)
        };
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let version = match query.strip_prefix("versionId=") {
            Some(id) => Some(VersionId::parse_argument("x-amz-copy-source", id)?),
            None if query.is_empty() => None,
            None => return Err(wrong()),
        };
        let path = percent_decode_str(path).decode_utf8().map_err(|_| wrong())?;
        let (bucket, key) = path.strip_prefix('/').unwrap_or(&path).split_once('/').ok_or_else(wrong)?;
        if key.is_empty() {
            return Err(wrong());
        }
        check_bucket(bucket)?;
        check_key(key)?;
        Ok(CopySource { bucket: bucket.to_owned(), key: key.to_owned(), version })
    }
}

/// Parses `x-amz-copy-source-range`: first and last byte.
pub(crate) fn copy_range(head: &RequestHead) -> Result<Option<(u64, u64)>, Error> {
    let Some(text) = head.headers.text("x-amz-copy-source-range") else { return Ok(None) };
    let range = text.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
    let range = range.and_then(|(first, last)| Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?)));
    match range {
        Some((first, last)) if first <= last => Ok(Some((first, last))),
        _ => Err(Error::invalid_argument(
            "x-amz-copy-source-range",
            text,
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the \
            zero-based offsets of the first and last bytes to copy",
        )),
    }
}

/// The options of a GET or HEAD.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReadOptions {
    /// Number of the part to read.
    pub part_number: Option<u16>,
    /// Whether to return checksums.
    pub checksum_mode: bool,
    /// Overrides of response headers, in the order of [`Field::ALL`].
    pub overrides: [Option<Vec<u8>>; 6],
}

/// Parses the options of a GET or HEAD.
///
/// # Errors
/// `InvalidArgument`; `InvalidRequest` for both a part and a range.
pub fn read_options(head: &RequestHead) -> Result<ReadOptions, Error> {
    let query = &head.query;
    let has_query = !query.is_empty();
    let mut options = ReadOptions {
        part_number: query.has("partNumber").then(|| query.part_number()).transpose()?,
        checksum_mode: head
            .headers
            .get("x-amz-checksum-mode")
            .is_some_and(|value| value.eq_ignore_ascii_case(b"enabled")),
        overrides: Default::default(),
    };
    for (place, field) in options.overrides.iter_mut().zip(Field::ALL).filter(|_| has_query) {
        let value = query.get(&format!("response-{}", field.header_name()));
        *place = value.map(|value| checked(value.as_bytes().to_vec())).transpose()?;
    }
    if options.part_number.is_some() && head.headers.get("range").is_some() {
        let message = "Cannot specify both Range header and partNumber query parameter";
        return Err(Error::new(ErrorCode::InvalidRequest).with_message(message));
    }
    Ok(options)
}

/// Returns the response headers for an object's metadata.
pub fn metadata_headers(metadata: &Metadata, options: &ReadOptions) -> Vec<(Cow<'static, str>, Vec<u8>)> {
    let mut headers = Vec::with_capacity(1 + metadata.user.len());
    for ((field, stored), wanted) in Field::ALL.into_iter().zip(&metadata.fields).zip(&options.overrides) {
        let by_default = (field == Field::ContentType).then(|| b"binary/octet-stream".to_vec());
        if let Some(value) = wanted.clone().or_else(|| stored.clone()).or(by_default) {
            headers.push((Cow::Borrowed(field.header_name()), value));
        }
    }
    for (name, value) in &metadata.user {
        headers.push((Cow::Owned(format!("{USER_PREFIX}{name}")), value.clone()));
    }
    headers
}

/// Returns the headers that a 304 repeats, because caches take the lifetime of their copy from them.
pub fn caching_headers(metadata: &Metadata, options: &ReadOptions) -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    const CACHING: [Field; 2] = [Field::CacheControl, Field::Expires];
    let fields = Field::ALL.into_iter().zip(&metadata.fields).zip(&options.overrides);
    fields.filter(|((field, _), _)| CACHING.contains(field)).filter_map(|((field, stored), wanted)| {
        Some((field.header_name(), wanted.as_ref().or(stored.as_ref())?.clone()))
    })
}

/// Returns the response headers for an object's checksums. Without the MD5, which S3 returns only
/// as the ETag.
pub fn checksum_headers(checksums: &Checksums) -> impl Iterator<Item = (&'static str, String)> {
    checksum::texts(checksums).map(|(algorithm, text)| (checksum::header_name(algorithm), text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::head;
    use crate::ops::{Operation, is_sealed_transfer};

    fn put(headers: &str) -> RequestHead {
        head(&format!("PUT /b/k HTTP/1.1{headers}"))
    }

    #[test]
    fn metadata_is_sorted_and_limited() {
        let got = metadata(&put(
            "\nContent-Type: text/plain\nContent-Encoding: aws-chunked, gzip\nX-Amz-Meta-B: 2\nx-amz-meta-a: 1\nx-amz-meta-b: 3",
        ))
        .unwrap();
        assert_eq!(got.fields[0].as_deref(), Some(&b"text/plain"[..]));
        assert_eq!(got.fields[3].as_deref(), Some(&b"gzip"[..]));
        assert_eq!(got.user, [("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2,3".to_vec())]);
        assert_eq!(metadata(&put("\nContent-Encoding: aws-chunked")).unwrap().fields[3], None);
        let long = |len: usize| metadata(&put(&format!("\nx-amz-meta-abc: {}", "v".repeat(len - 3))));
        assert!(long(USER_METADATA_MAX).is_ok());
        assert_eq!(long(USER_METADATA_MAX + 1).unwrap_err().code, ErrorCode::MetadataTooLarge);
    }

    #[test]
    fn sealed_transfers_are_recognised_on_object_operations() {
        let check =
            |operation, headers: &str| is_sealed_transfer(&put(headers), &operation).map_err(|error| error.code);
        for operation in [Operation::PutObject, Operation::GetObject, Operation::HeadObject] {
            assert_eq!(check(operation.clone(), ""), Ok(false));
            assert_eq!(check(operation.clone(), "\nX-Keyhole-Sealed: 1"), Ok(true));
            for bad in ["0", "", "11", "true"] {
                let header = format!("\nx-keyhole-sealed: {bad}");
                assert_eq!(check(operation.clone(), &header), Err(ErrorCode::InvalidArgument), "{bad}");
            }
        }
        assert_eq!(check(Operation::DeleteObject, "\nx-keyhole-sealed: 1"), Err(ErrorCode::InvalidRequest));
        assert_eq!(check(Operation::DeleteObject, ""), Ok(false));
        let metadata = |headers: &str| refuse_metadata(&put(headers)).map_err(|error| error.code);
        assert_eq!(metadata("\nContent-Type: application/vnd.keyhole.sealed\nContent-Encoding: aws-chunked"), Ok(()));
        for bad in ["x-amz-meta-a: 1", "Content-Encoding: gzip", "Cache-Control: no-store"] {
            assert_eq!(metadata(&format!("\n{bad}")), Err(ErrorCode::InvalidRequest), "{bad}");
        }
    }

    #[test]
    fn metadata_names_are_tokens() {
        let named = |name: &str| {
            let mut head = put("");
            head.headers.push(name, b"v");
            metadata(&head).map(|metadata| metadata.user.len()).map_err(|error| error.code)
        };
        assert_eq!(named("x-amz-meta-a!#$%&'*+-.^_`|~0"), Ok(1));
        for bad in ["a b", "a:b", "a\r\nb", "a(b)", "\u{e9}", "a/b", "a\"", "a\0"] {
            assert_eq!(named(&format!("x-amz-meta-{bad}")), Err(ErrorCode::InvalidArgument), "{bad:?}");
        }
    }

    #[test]
    fn copy_sources_are_parsed_or_rejected() {
        let check = |text: &str, expected: Result<(&str, &str), ErrorCode>| {
            let got = CopySource::parse(text.as_bytes()).map_err(|error| error.code);
            let got = got.as_ref().map(|source| (source.bucket.as_str(), source.key.as_str())).map_err(|code| *code);
            assert_eq!(got, expected, "{text}");
        };
        check("bucket/a/b%20c+d", Ok(("bucket", "a/b c+d")));
        check("/bucket/k%3Fv", Ok(("bucket", "k?v")));
        check("bucket%2Fk", Ok(("bucket", "k")));
        check("bucket/k?versionId=null", Ok(("bucket", "k")));
        check("bucket/k?versionId=3", Err(ErrorCode::InvalidArgument));
        check("bucket/k?versionId=", Err(ErrorCode::InvalidArgument));
        check("bucket/k?partNumber=1", Err(ErrorCode::InvalidArgument));
        let id = "00112233445566778899aabbccddeeff";
        for (version, expected) in [("", None), ("?", None), ("?versionId=null", Some(VersionId::Null))] {
            let source = CopySource::parse(format!("bucket/k{version}").as_bytes()).unwrap();
            assert_eq!(source.version, expected, "{version}");
        }
        let source = CopySource::parse(format!("/bucket/k?versionId={id}").as_bytes()).unwrap();
        assert_eq!((&source.key[..], source.version), ("k", VersionId::parse(id)));
        check("bucket", Err(ErrorCode::InvalidArgument));
        check("bucket/", Err(ErrorCode::InvalidArgument));
        check("B/k", Err(ErrorCode::InvalidBucketName));
        check("bucket/%ff", Err(ErrorCode::InvalidArgument));
    }

    #[test]
    fn declared_checksums_are_parsed_or_rejected() {
        let check = |headers: &str| declared_checksum(&put(headers)).map_err(|error| error.code);
        use ChecksumAlgorithm::*;
        use ChecksumType::*;
        assert_eq!(check(""), Ok(None));
        assert_eq!(check("\nx-amz-checksum-algorithm: CRC64NVME"), Ok(Some((Crc64Nvme, FullObject))));
        assert_eq!(check("\nx-amz-checksum-algorithm: crc32"), Ok(Some((Crc32, Composite))));
        assert_eq!(
            check("\nx-amz-checksum-algorithm: CRC32\nx-amz-checksum-type: FULL_OBJECT"),
            Ok(Some((Crc32, FullObject)))
        );
        for bad in [
            "\nx-amz-checksum-algorithm: CRC16",
            "\nx-amz-checksum-type: COMPOSITE",
            "\nx-amz-checksum-algorithm: SHA1\nx-amz-checksum-type: FULL_OBJECT",
            "\nx-amz-checksum-algorithm: CRC64NVME\nx-amz-checksum-type: COMPOSITE",
        ] {
            assert_eq!(check(bad), Err(ErrorCode::InvalidRequest), "{bad}");
        }
    }
}
