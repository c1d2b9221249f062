//! The headers and form fields that carry meaning, by operation.
//!
//! # Invariants
//! - A header of S3 (`x-amz-*`), of this node (`x-keyhole-*`), or of a condition is either read by
//!   the operation, listed here as without effect, or refused before the operation starts.
//! - A misspelt SSE-C header is refused on every operation.
//!
//! To support a header, add one line to [`ALLOWED`]. The page `S3.md` lists those without effect; a
//! test compares the two.

use super::{BINDING_HEADER, Operation, SEALED_HEADER};
use crate::http::{Headers, RequestHead};
use crate::limits::NAME_ECHO_MAX;
use crate::{Error, ErrorCode, checksum, sse, xml};

/// The prefix of the headers of S3.
const S3_PREFIX: &str = "x-amz-";

/// The prefix of the headers of this node.
const OWN_PREFIX: &str = "x-keyhole-";

/// The prefix of user metadata.
const METADATA_PREFIX: &str = "x-amz-meta-";

/// Standard headers that change what a request means: an operation reads them, or they are refused.
const CONDITIONS: [&str; 5] =
    ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "content-range"];

/// The operations that read the customer key of an object.
const KEYED: &str = "PutObject PostObject CopyObject CreateMultipartUpload UploadPart UploadPartCopy \
    CompleteMultipartUpload ListParts GetObject HeadObject GetObjectAttributes";

/// The operations that read the customer key of a copy's source, or of the object that is
/// overwritten.
const KEYED_SOURCE: &str =
    "PutObject PostObject CopyObject CreateMultipartUpload UploadPart UploadPartCopy CompleteMultipartUpload";

/// The operations that refuse encryption with managed keys themselves, in S3's order of checks.
const MANAGED: &str = "PutObject PostObject CopyObject CreateMultipartUpload UploadPart UploadPartCopy \
    CompleteMultipartUpload ListParts";

/// The operations that evaluate conditions.
const CONDITIONAL: &str = "GetObject HeadObject PutObject PostObject CopyObject CompleteMultipartUpload DeleteObject";

/// The operations with a source.
const COPIES: &str = "CopyObject UploadPartCopy";

/// The operations that can lock the version that they store.
const LOCKED: &str = "PutObject PostObject CopyObject CreateMultipartUpload";

/// Every operation; of PostObject, whose fields are checked as headers, only by name.
const EVERY: &str = "*";

/// The operations with the method GET or HEAD.
const READS: &str = "GET";

/// The treatment of an allowed header.
enum Rule {
    /// The operation reads it.
    Taken,
    /// The header may have these values, which ask for the node's fixed behaviour. Others are
    /// refused with this code.
    Only(&'static [&'static str], ErrorCode),
    /// The header names the owner that the bucket must have.
    Owner,
    /// The header has no effect.
    NoEffect,
}

use Rule::{NoEffect, Only, Owner, Taken};

const MISSING: ErrorCode = ErrorCode::NotImplemented;

/// Header, operations, treatment. The first line that fits applies. The checksum headers of
/// [`checksum::ALGORITHMS`] and `x-amz-meta-*` are allowed in addition.
const ALLOWED: &[(&str, &str, Rule)] = &[
    // The transfer and its signature.
    ("x-amz-date", "* PostObject", Taken),
    ("x-amz-content-sha256", EVERY, Taken),
    ("x-amz-decoded-content-length", EVERY, Taken),
    ("x-amz-trailer", EVERY, Taken),
    ("x-amz-algorithm", "PostObject", Taken),
    ("x-amz-credential", "PostObject", Taken),
    ("x-amz-signature", "PostObject", Taken),
    ("x-amz-security-token", EVERY, NoEffect),
    ("x-amz-user-agent", EVERY, NoEffect),
    ("x-amz-request-id", EVERY, NoEffect),
    ("x-amz-id-2", EVERY, NoEffect),
    ("x-amz-cf-id", EVERY, NoEffect),
    // Buckets and accounts.
    ("x-amz-acl", "* PostObject", Only(&["private", "bucket-owner-full-control"], MISSING)),
    ("x-amz-request-payer", EVERY, Only(&["requester"], ErrorCode::InvalidArgument)),
    ("x-amz-expected-bucket-owner", EVERY, Owner),
    ("x-amz-source-expected-bucket-owner", COPIES, Owner),
    ("x-amz-bucket-object-lock-enabled", "CreateBucket", Taken),
    ("x-amz-object-ownership", "CreateBucket", Only(&["BucketOwnerEnforced"], MISSING)),
    ("x-amz-bucket-namespace", "CreateBucket", Only(&["global"], MISSING)),
    ("x-amz-bypass-governance-retention", "DeleteObject DeleteObjects PutObjectRetention", Taken),
    (
        "x-amz-optional-object-attributes",
        "ListObjects ListObjectsV2 ListObjectVersions",
        Only(&["RestoreStatus"], ErrorCode::InvalidArgument),
    ),
    (
        "x-amz-transition-default-minimum-object-size",
        "PutBucketLifecycleConfiguration",
        Only(&["all_storage_classes_128K", "varies_by_storage_class"], ErrorCode::InvalidArgument),
    ),
    // Objects.
    ("x-amz-storage-class", "* PostObject", Only(&["STANDARD"], ErrorCode::InvalidStorageClass)),
    ("x-amz-tagging", "PutObject CopyObject CreateMultipartUpload", Taken),
    ("x-amz-object-lock-mode", LOCKED, Taken),
    ("x-amz-object-lock-retain-until-date", LOCKED, Taken),
    ("x-amz-object-lock-legal-hold", LOCKED, Taken),
    ("x-amz-object-attributes", "GetObjectAttributes", Taken),
    ("x-amz-max-parts", "GetObjectAttributes", Taken),
    ("x-amz-part-number-marker", "GetObjectAttributes", Taken),
    ("x-amz-mp-object-size", "CompleteMultipartUpload", Taken),
    ("x-amz-copy-source", COPIES, Taken),
    ("x-amz-copy-source-range", "UploadPartCopy", Taken),
    ("x-amz-metadata-directive", "CopyObject", Taken),
    ("x-amz-tagging-directive", "CopyObject", Taken),
    // Checksums.
    ("x-amz-checksum-mode", "GetObject HeadObject", Taken),
    ("x-amz-checksum-algorithm", "CreateMultipartUpload CopyObject", Taken),
    ("x-amz-checksum-type", "CreateMultipartUpload CompleteMultipartUpload", Taken),
    ("x-amz-sdk-checksum-algorithm", "* PostObject", Taken),
    // Conditions.
    ("x-amz-copy-source-if-match", COPIES, Taken),
    ("x-amz-copy-source-if-none-match", COPIES, Taken),
    ("x-amz-copy-source-if-modified-since", COPIES, Taken),
    ("x-amz-copy-source-if-unmodified-since", COPIES, Taken),
    ("x-amz-if-match-last-modified-time", "DeleteObject", Taken),
    ("x-amz-if-match-size", "DeleteObject", Taken),
    ("if-match", CONDITIONAL, Taken),
    ("if-none-match", CONDITIONAL, Taken),
    ("if-modified-since", CONDITIONAL, Taken),
    ("if-unmodified-since", CONDITIONAL, Taken),
    ("if-none-match", READS, NoEffect),
    ("if-modified-since", READS, NoEffect),
    ("content-range", READS, NoEffect),
    // Encryption.
    ("x-amz-server-side-encryption-customer-algorithm", KEYED, Taken),
    ("x-amz-server-side-encryption-customer-key", KEYED, Taken),
    ("x-amz-server-side-encryption-customer-key-md5", KEYED, Taken),
    ("x-amz-server-side-encryption-customer-algorithm", EVERY, NoEffect),
    ("x-amz-server-side-encryption-customer-key", EVERY, NoEffect),
    ("x-amz-server-side-encryption-customer-key-md5", EVERY, NoEffect),
    ("x-amz-copy-source-server-side-encryption-customer-algorithm", KEYED_SOURCE, Taken),
    ("x-amz-copy-source-server-side-encryption-customer-key", KEYED_SOURCE, Taken),
    ("x-amz-copy-source-server-side-encryption-customer-key-md5", KEYED_SOURCE, Taken),
    ("x-amz-server-side-encryption", MANAGED, Taken),
    ("x-amz-server-side-encryption-aws-kms-key-id", MANAGED, Taken),
    ("x-amz-server-side-encryption-context", MANAGED, Taken),
    ("x-amz-server-side-encryption-bucket-key-enabled", MANAGED, Taken),
    // Sealed transfers and bindings, whose parsers check the operation.
    (SEALED_HEADER, "* PostObject", Taken),
    (BINDING_HEADER, "* PostObject", Taken),
];

/// Checks that the operation reads every header that carries meaning; of PostObject, every field.
///
/// # Errors
/// `NotImplemented` for headers that the operation lacks or S3 does not define; `InvalidArgument`
/// for misspelt SSE-C headers and for those of a copy without a source, `InvalidStorageClass`;
/// `AccessDenied` for another owner.
pub fn check_headers(head: &RequestHead, operation: &Operation) -> Result<(), Error> {
    let is_read = matches!(&head.method[..], "GET" | "HEAD");
    check_each(&head.headers, operation.name(), is_read)
}

fn check_each(headers: &Headers, operation: &str, is_read: bool) -> Result<(), Error> {
    for (name, value) in headers.iter() {
        let fits = |(allowed, on, _): &&(&'static str, &str, Rule)| *allowed == name && has(on, operation, is_read);
        // All lines are about names with a meaning.
        let line = if has_meaning(name) { ALLOWED.iter().find(fits) } else { None };
        match line {
            Some((allowed, _, rule)) => rule.check(allowed, value)?,
            None if is_checksum(name) || name.starts_with(METADATA_PREFIX) => {}
            // The operation itself refuses a misspelt key, behind the bucket's policy as S3 does.
            None if sse::refuse_misspelt(name).is_err() && has(KEYED, operation, is_read) => {}
            None => {
                sse::refuse_misspelt(name)?;
                if has_meaning(name) {
                    return Err(refusal(name));
                }
            }
        }
    }
    Ok(())
}

/// Checks the headers of a form's request: the fields of the form say how to store the file.
///
/// # Errors
/// `InvalidRequest`.
pub(crate) fn check_form_headers(headers: &Headers) -> Result<(), Error> {
    let is_misplaced = |name: &&str| (has_meaning(name) && !is_telemetry(name)) || sse::refuse_misspelt(name).is_err();
    match headers.iter().map(|(name, _)| name).find(is_misplaced) {
        None => Ok(()),
        Some(name) => Err(Error::new(ErrorCode::InvalidRequest)
            .with_message("A form says in fields how to store the file, not in headers or in its query.")
            .with_field("Header", echo(name))),
    }
}

/// Returns whether a header has no effect on any operation.
pub(super) fn is_telemetry(name: &str) -> bool {
    ALLOWED.iter().any(|(allowed, on, rule)| *allowed == name && *on == EVERY && matches!(rule, NoEffect))
        && !name.contains("server-side-encryption")
}

/// Returns whether a list of operations has this one.
fn has(on: &str, operation: &str, is_read: bool) -> bool {
    const SPACE: fn(&u8) -> bool = |byte| *byte == b' ';
    on.as_bytes().split(SPACE).any(|word| match word {
        word if word == EVERY.as_bytes() => operation != "PostObject",
        word if word == READS.as_bytes() => is_read,
        word => word == operation.as_bytes(),
    })
}

fn is_checksum(name: &str) -> bool {
    name.starts_with(checksum::PREFIX) && checksum::ALGORITHMS.into_iter().any(|it| checksum::header_name(it) == name)
}

/// Returns whether a header must not be ignored.
fn has_meaning(name: &str) -> bool {
    name.starts_with(S3_PREFIX) || name.starts_with(OWN_PREFIX) || CONDITIONS.contains(&name)
}

impl Rule {
    fn check(&self, name: &'static str, value: &[u8]) -> Result<(), Error> {
        match self {
            Taken | NoEffect => Ok(()),
            Only(values, _) if values.iter().any(|allowed| allowed.as_bytes() == value) => Ok(()),
            Only(values, code) => {
                let message = format!("This node has {name} with the value {} alone.", values.join(" or "));
                Err(Error::new(*code).with_message(message).with_field("Header", name))
            }
            Owner if value == xml::OWNER.as_bytes() => Ok(()),
            Owner => Err(Error::new(ErrorCode::AccessDenied)),
        }
    }
}

/// Returns the error for a header that the operation does not read.
fn refusal(name: &str) -> Error {
    let (code, message) = match name {
        "x-amz-tagging" => {
            (MISSING, "Tags come in x-amz-tagging when an object is created, of a form in its field tagging.")
        }
        name if name.starts_with("x-amz-copy-source") => {
            (ErrorCode::InvalidArgument, "You can only specify a copy source header for copy requests.")
        }
        name if name.starts_with("x-amz-server-side-encryption") => {
            (ErrorCode::InvalidArgument, "x-amz-server-side-encryption header is not supported for this operation.")
        }
        _ => {
            let message = format!(
                "A header you provided implies functionality that is not implemented: {}. Leave it out.",
                echo(name)
            );
            return Error::new(MISSING).with_message(message).with_field("Header", echo(name));
        }
    };
    Error::new(code).with_message(message).with_field("Header", echo(name))
}

/// Shortens a name for an error.
pub(super) fn echo(name: &str) -> String {
    name.chars().take(NAME_ECHO_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::head;
    use crate::ops::{HostNames, route};

    fn check(line: &str, headers: &str) -> Result<(), ErrorCode> {
        let head = head(&format!("{line} HTTP/1.1\nHost: h\nContent-Length: 0\n{headers}"));
        let operation = route(&head, &HostNames::default()).expect("a request").1;
        check_headers(&head, &operation).map_err(|error| error.code)
    }

    const PUT: &str = "PUT /bucket/k";
    const GET: &str = "GET /bucket/k";
    const DELETE: &str = "DELETE /bucket/k";
    const PART: &str = "PUT /bucket/k?partNumber=1&uploadId=00112233445566778899aabbccddeeff";
    const CREATE: &str = "PUT /bucket";
    const LIST: &str = "GET /bucket?list-type=2";
    const TAGGING: &str = "PUT /bucket/k?tagging";

    #[test]
    fn headers_are_allowed_where_they_have_a_meaning() {
        for (line, headers) in [
            (PUT, "x-amz-acl: private\nx-amz-storage-class: STANDARD\nx-amz-tagging: a=b\nif-none-match: *"),
            (PUT, "x-amz-meta-a: b\nx-amz-checksum-crc32: AAAAAA==\nx-amz-sdk-checksum-algorithm: CRC32"),
            (PUT, "x-amz-acl: bucket-owner-full-control\nx-amz-expected-bucket-owner: keyhole"),
            (PUT, "amz-sdk-request: attempt=1\nx-forwarded-for: 192.0.2.1\nrange: bytes=0-1\nx-user: me"),
            (GET, "x-amz-checksum-mode: ENABLED\nx-amz-request-payer: requester\nif-match: a"),
            (GET, "x-amz-user-agent: a\nx-amz-cf-id: b\nx-amz-id-2: c\nx-amz-security-token: d"),
            (LIST, "if-none-match: a\nx-amz-optional-object-attributes: RestoreStatus"),
            (DELETE, "x-amz-server-side-encryption-customer-key: a\nx-amz-bypass-governance-retention: true"),
            (CREATE, "x-amz-bucket-object-lock-enabled: false\nx-amz-object-ownership: BucketOwnerEnforced"),
            (PART, "x-amz-checksum-sha256: a\ncontent-type: text/plain"),
            (PUT, "x-amz-object-lock-mode: GOVERNANCE\nx-amz-object-lock-legal-hold: OFF"),
            (CREATE, "x-amz-bucket-object-lock-enabled: true"),
        ] {
            assert_eq!(check(line, headers), Ok(()), "{line} {headers}");
        }
    }

    #[test]
    fn headers_are_refused_where_they_would_be_ignored() {
        use ErrorCode as C;
        for (line, header, code) in [
            (PUT, "x-amz-acl: public-read", C::NotImplemented),
            (PUT, "x-amz-acl:", C::NotImplemented),
            (PUT, "x-amz-grant-read: x", C::NotImplemented),
            (PUT, "x-amz-website-redirect-location: /a", C::NotImplemented),
            (PUT, "x-amz-object-lock-event-hold: ON", C::NotImplemented),
            (PUT, "x-amz-bypass-governance-retention: true", C::NotImplemented),
            (PART, "x-amz-object-lock-mode: GOVERNANCE", C::NotImplemented),
            (GET, "x-amz-object-lock-legal-hold: OFF", C::NotImplemented),
            (PUT, "x-amz-storage-class: GLACIER", C::InvalidStorageClass),
            (PUT, "x-amz-write-offset-bytes: 11", C::NotImplemented),
            (PUT, "x-amz-checksum-sha256x: a", C::NotImplemented),
            (PUT, "x-amz-metadata-directive: COPY", C::NotImplemented),
            (PUT, "x-amz-copy-source-if-match: a", C::InvalidArgument),
            (PUT, "x-amz-expected-bucket-owner: 111122223333", C::AccessDenied),
            (PUT, "x-amz-unheard-of: 1", C::NotImplemented),
            (PUT, "content-range: bytes 0-1/2", C::NotImplemented),
            (PUT, "x-keyhole-seal: 1", C::NotImplemented),
            (TAGGING, "x-amz-sse-customer-key: a", C::InvalidArgument),
            (DELETE, "x_amz_server_side_encryption_customer_key: a", C::InvalidArgument),
            (CREATE, "sse-customer-key: a", C::InvalidArgument),
            (GET, "x-amz-request-payer: me", C::InvalidArgument),
            (GET, "x-amz-tagging: a=b", C::NotImplemented),
            (GET, "x-amz-server-side-encryption: AES256", C::InvalidArgument),
            (PART, "x-amz-tagging: a=b", C::NotImplemented),
            (PART, "if-none-match: *", C::NotImplemented),
            (TAGGING, "if-match: a", C::NotImplemented),
            (LIST, "if-match: a", C::NotImplemented),
            (DELETE, "x-amz-mfa: 1", C::NotImplemented),
            (DELETE, "x-amz-copy-source: b/k", C::InvalidArgument),
            (CREATE, "x-amz-acl: public-read", C::NotImplemented),
            (PUT, "x-amz-bucket-object-lock-enabled: true", C::NotImplemented),
            (CREATE, "x-amz-object-ownership: ObjectWriter", C::NotImplemented),
        ] {
            assert_eq!(check(line, header), Err(code), "{line} {header}");
        }
        let long = head(&format!("GET / HTTP/1.1\nx-amz-{}: 1", "a-".repeat(NAME_ECHO_MAX)));
        let error = check_headers(&long, &Operation::HeadBucket).unwrap_err();
        assert!(error.fields.iter().all(|(_, value)| value.len() == NAME_ECHO_MAX), "{error:?}");
    }

    #[test]
    fn operations_of_the_table_exist() {
        let names = concat!(include_str!("route.rs"), "=> \"ListObjectVersions\"");
        for (header, on, _) in ALLOWED {
            assert!(has_meaning(header), "{header} is looked up");
            for word in on.split_ascii_whitespace().filter(|word| !matches!(*word, EVERY | READS)) {
                assert!(names.contains(&format!("=> \"{word}\"")), "{header}: {word}");
            }
        }
    }
}
