//! Routing: from method, path and query to an operation.

use super::names::{check_bucket, check_key};
use super::object::copy_range;
use super::query::{ListBuckets, ListObjects, ListObjectsV2, ListUploads, ListVersions, UploadId};
use super::version::VersionId;
use super::{AttributesQuery, CopySource, HostNames};
use crate::form::is_form;
use crate::http::RequestHead;
use crate::query::Query;
use crate::{Error, ErrorCode};

/// The bucket and key of a request: path-style `/bucket/key`, or virtual-hosted-style `/key` with
/// the bucket in the host name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// The bucket.
    pub bucket: Option<String>,
    /// The key; only with a bucket.
    pub key: Option<String>,
    /// The version (`versionId`); only with a key.
    pub version: Option<VersionId>,
}

/// An operation with its parameters.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // Named as in the S3 API.
pub enum Operation {
    /// A CORS preflight request. It is answered without credentials, so that [`route`] never returns
    /// it.
    Preflight,
    ListBuckets(ListBuckets),
    CreateBucket,
    HeadBucket,
    DeleteBucket,
    GetBucketLocation,
    GetBucketVersioning,
    PutBucketVersioning,
    GetBucketAcl,
    GetObjectLockConfiguration,
    PutObjectLockConfiguration,
    PutBucketEncryption,
    GetBucketEncryption,
    DeleteBucketEncryption,
    PutBucketLifecycle,
    GetBucketLifecycle,
    DeleteBucketLifecycle,
    PutBucketCors,
    GetBucketCors,
    DeleteBucketCors,
    PutBucketTagging,
    GetBucketTagging,
    DeleteBucketTagging,
    ListObjects(ListObjects),
    ListObjectsV2(ListObjectsV2),
    ListObjectVersions(ListVersions),
    ListMultipartUploads(ListUploads),
    DeleteObjects,
    PostObject,
    PutObject,
    CopyObject(CopySource),
    GetObject,
    HeadObject,
    DeleteObject,
    GetObjectTagging,
    PutObjectTagging,
    DeleteObjectTagging,
    GetObjectAcl,
    GetObjectRetention,
    PutObjectRetention,
    GetObjectLegalHold,
    PutObjectLegalHold,
    GetObjectAttributes(AttributesQuery),
    CreateMultipartUpload,
    UploadPart {
        upload_id: UploadId,
        number: u16,
    },
    UploadPartCopy {
        upload_id: UploadId,
        number: u16,
        source: CopySource,
        range: Option<(u64, u64)>,
    },
    CompleteMultipartUpload {
        upload_id: UploadId,
    },
    AbortMultipartUpload {
        upload_id: UploadId,
    },
    ListParts {
        upload_id: UploadId,
        marker: u16,
        max: usize,
    },
}

impl Operation {
    /// Returns the S3 name of the operation.
    pub fn name(&self) -> &'static str {
        match self {
            Operation::Preflight => "Preflight",
            Operation::ListBuckets(_) => "ListBuckets",
            Operation::CreateBucket => "CreateBucket",
            Operation::HeadBucket => "HeadBucket",
            Operation::DeleteBucket => "DeleteBucket",
            Operation::GetBucketLocation => "GetBucketLocation",
            Operation::GetBucketVersioning => "GetBucketVersioning",
            Operation::PutBucketVersioning => "PutBucketVersioning",
            Operation::GetBucketAcl => "GetBucketAcl",
            Operation::GetObjectLockConfiguration => "GetObjectLockConfiguration",
            Operation::PutObjectLockConfiguration => "PutObjectLockConfiguration",
            Operation::PutBucketEncryption => "PutBucketEncryption",
            Operation::GetBucketEncryption => "GetBucketEncryption",
            Operation::DeleteBucketEncryption => "DeleteBucketEncryption",
            Operation::PutBucketLifecycle => "PutBucketLifecycleConfiguration",
            Operation::GetBucketLifecycle => "GetBucketLifecycleConfiguration",
            Operation::DeleteBucketLifecycle => "DeleteBucketLifecycle",
            Operation::PutBucketCors => "PutBucketCors",
            Operation::GetBucketCors => "GetBucketCors",
            Operation::DeleteBucketCors => "DeleteBucketCors",
            Operation::PutBucketTagging => "PutBucketTagging",
            Operation::GetBucketTagging => "GetBucketTagging",
            Operation::DeleteBucketTagging => "DeleteBucketTagging",
            Operation::ListObjects(_) => "ListObjects",
            Operation::ListObjectsV2(_) => "ListObjectsV2",
            Operation::ListObjectVersions(_) => "ListObjectVersions",
            Operation::ListMultipartUploads(_) => "ListMultipartUploads",
            Operation::DeleteObjects => "DeleteObjects",
            Operation::PostObject => "PostObject",
            Operation::PutObject => "PutObject",
            Operation::CopyObject(_) => "CopyObject",
            Operation::GetObject => "GetObject",
            Operation::HeadObject => "HeadObject",
            Operation::DeleteObject => "DeleteObject",
            Operation::GetObjectTagging => "GetObjectTagging",
            Operation::PutObjectTagging => "PutObjectTagging",
            Operation::DeleteObjectTagging => "DeleteObjectTagging",
            Operation::GetObjectAcl => "GetObjectAcl",
            Operation::GetObjectRetention => "GetObjectRetention",
            Operation::PutObjectRetention => "PutObjectRetention",
            Operation::GetObjectLegalHold => "GetObjectLegalHold",
            Operation::PutObjectLegalHold => "PutObjectLegalHold",
            Operation::GetObjectAttributes(_) => "GetObjectAttributes",
            Operation::CreateMultipartUpload => "CreateMultipartUpload",
            Operation::UploadPart { .. } => "UploadPart",
            Operation::UploadPartCopy { .. } => "UploadPartCopy",
            Operation::CompleteMultipartUpload { .. } => "CompleteMultipartUpload",
            Operation::AbortMultipartUpload { .. } => "AbortMultipartUpload",
            Operation::ListParts { .. } => "ListParts",
        }
    }

    /// Returns whether the operation is about a version of an object, which `versionId` can name.
    fn takes_version(&self) -> bool {
        use Operation as Op;
        matches!(
            self,
            Op::GetObject
                | Op::HeadObject
                | Op::DeleteObject
                | Op::GetObjectTagging
                | Op::PutObjectTagging
                | Op::DeleteObjectTagging
                | Op::GetObjectAcl
                | Op::GetObjectAttributes(_)
                | Op::GetObjectRetention
                | Op::PutObjectRetention
                | Op::GetObjectLegalHold
                | Op::PutObjectLegalHold
        )
    }
}

/// Determines the operation of a request.
///
/// # Errors
/// `NotImplemented` for operations that this node lacks, `MethodNotAllowed`, the errors for invalid
/// names and parameters, and `MissingContentLength` if the operation requires a body.
pub fn route(head: &RequestHead, hosts: &HostNames) -> Result<(Target, Operation), Error> {
    let mut target = target(head, hosts)?;
    let query = &head.query;
    let operation = match (&target.bucket, &target.key) {
        (None, _) => service(head, query)?,
        (Some(_), None) => bucket(head, query)?,
        (Some(_), Some(_)) => object(head, query)?,
    };
    use Operation as Op;
    target.version = query.version_id()?;
    if let Some(id) = target.version
        && !operation.takes_version()
    {
        let message = "This operation does not accept a version-id.";
        return Err(Error::invalid_argument("versionId", id.to_string(), message));
    }
    let has_body = matches!(
        operation,
        Op::PutObject
            | Op::UploadPart { .. }
            | Op::PutObjectTagging
            | Op::PutObjectRetention
            | Op::PutObjectLegalHold
            | Op::PostObject
    );
    if has_body && head.content_length.is_none() && !head.is_chunked {
        return Err(Error::new(ErrorCode::MissingContentLength));
    }
    Ok((target, operation))
}

/// Determines the bucket and the key of a request.
///
/// # Errors
/// The errors for invalid names.
pub fn target(head: &RequestHead, hosts: &HostNames) -> Result<Target, Error> {
    let of_host = hosts.bucket(head);
    let path = head.decoded_path();
    let path = path.strip_prefix('/').unwrap_or(path);
    let (bucket, key) = match &of_host {
        Some(bucket) => (&bucket[..], path),
        None if path.is_empty() => return Ok(Target { bucket: None, key: None, version: None }),
        None => path.split_once('/').unwrap_or((path, "")),
    };
    check_bucket(bucket)?;
    if key.is_empty() {
        return Ok(Target { bucket: Some(bucket.to_owned()), key: None, version: None });
    }
    check_key(key)?;
    Ok(Target { bucket: Some(bucket.to_owned()), key: Some(key.to_owned()), version: None })
}

/// Returns the subresource or parameter that selects the operation. Rejects those that S3 supports
/// and this node does not; ignores those that only modify an operation and those that S3 does not
/// know.
fn subresource(query: &Query) -> Result<Option<&str>, Error> {
    const KNOWN: [&str; 17] = [
        "location",
        "versioning",
        "acl",
        "uploads",
        "uploadId",
        "delete",
        "list-type",
        "tagging",
        "attributes",
        "partNumber",
        "encryption",
        "lifecycle",
        "cors",
        "versions",
        "object-lock",
        "retention",
        "legal-hold",
    ];
    // The other subresources and parameters of S3 that select an operation.
    const MISSING: [&str; 27] = [
        "abac",
        "accelerate",
        "analytics",
        "annotation",
        "intelligent-tiering",
        "inventory",
        "logging",
        "metadataAnnotationTable",
        "metadataConfiguration",
        "metadataInventoryTable",
        "metadataJournalTable",
        "metadataTable",
        "metrics",
        "notification",
        "ownershipControls",
        "policy",
        "policyStatus",
        "publicAccessBlock",
        "renameObject",
        "replication",
        "requestPayment",
        "restore",
        "select",
        "select-type",
        "session",
        "torrent",
        "website",
    ];
    let mut found = None;
    for name in query.names() {
        if MISSING.contains(&name) {
            return Err(Error::new(ErrorCode::NotImplemented)
                .with_message(format!("The parameter {name:?} implies functionality that is not implemented.")));
        }
        // S3 ignores unknown parameters; those that are headers are applied before the routing.
        if !KNOWN.contains(&name) {
            continue;
        }
        // A part is addressed by its number and an upload id, which selects the operation.
        found = match (found, name) {
            (None, name) => Some(name),
            (Some("partNumber"), "uploadId") | (Some("uploadId"), "partNumber") => Some("uploadId"),
            (Some(other), name) => {
                let message = format!("Conflicting query string parameters: {other}, {name}");
                return Err(Error::invalid_argument("ResourceType", other, message));
            }
        };
    }
    Ok(found)
}

fn not_implemented() -> Error {
    Error::new(ErrorCode::NotImplemented)
}

fn not_allowed() -> Error {
    Error::new(ErrorCode::MethodNotAllowed)
}

fn service(head: &RequestHead, query: &Query) -> Result<Operation, Error> {
    match (head.method.as_str(), subresource(query)?) {
        ("GET", None) => Ok(Operation::ListBuckets(query.list_buckets()?)),
        (_, None) => Err(not_allowed()),
        _ => Err(not_implemented()),
    }
}

fn bucket(head: &RequestHead, query: &Query) -> Result<Operation, Error> {
    Ok(match (head.method.as_str(), subresource(query)?) {
        ("PUT", None) => Operation::CreateBucket,
        ("HEAD", None) => Operation::HeadBucket,
        ("DELETE", None) => Operation::DeleteBucket,
        ("GET", None) => Operation::ListObjects(query.list_objects()?),
        ("GET", Some("list-type")) if query.get("list-type") == Some("2") => {
            Operation::ListObjectsV2(query.list_objects_v2()?)
        }
        ("GET", Some("location")) => Operation::GetBucketLocation,
        ("GET", Some("versioning")) => Operation::GetBucketVersioning,
        ("PUT", Some("versioning")) => Operation::PutBucketVersioning,
        ("GET", Some("object-lock")) => Operation::GetObjectLockConfiguration,
        ("PUT", Some("object-lock")) => Operation::PutObjectLockConfiguration,
        ("GET", Some("acl")) => Operation::GetBucketAcl,
        ("PUT", Some("encryption")) => Operation::PutBucketEncryption,
        ("GET", Some("encryption")) => Operation::GetBucketEncryption,
        ("DELETE", Some("encryption")) => Operation::DeleteBucketEncryption,
        ("PUT", Some("lifecycle")) => Operation::PutBucketLifecycle,
        ("GET", Some("lifecycle")) => Operation::GetBucketLifecycle,
        ("DELETE", Some("lifecycle")) => Operation::DeleteBucketLifecycle,
        ("PUT", Some("cors")) => Operation::PutBucketCors,
        ("GET", Some("cors")) => Operation::GetBucketCors,
        ("DELETE", Some("cors")) => Operation::DeleteBucketCors,
        ("PUT", Some("tagging")) => Operation::PutBucketTagging,
        ("GET", Some("tagging")) => Operation::GetBucketTagging,
        ("DELETE", Some("tagging")) => Operation::DeleteBucketTagging,
        ("GET", Some("versions")) => Operation::ListObjectVersions(query.list_versions()?),
        ("GET", Some("uploads")) => Operation::ListMultipartUploads(query.list_uploads()?),
        ("POST", Some("delete")) => Operation::DeleteObjects,
        ("POST", None) if is_form(head) => Operation::PostObject,
        ("POST", None) => {
            return Err(Error::new(ErrorCode::PreconditionFailed)
                .with_field("Condition", "Bucket POST must be of the enclosure-type multipart/form-data"));
        }
        (_, None) => return Err(not_allowed()),
        _ => return Err(not_implemented()),
    })
}

fn object(head: &RequestHead, query: &Query) -> Result<Operation, Error> {
    let copies = head.headers.get("x-amz-copy-source").map(CopySource::parse).transpose();
    Ok(match (head.method.as_str(), subresource(query)?) {
        ("PUT", None) => match copies? {
            None => Operation::PutObject,
            Some(source) => Operation::CopyObject(source),
        },
        ("GET", None | Some("partNumber")) => Operation::GetObject,
        ("HEAD", None | Some("partNumber")) => Operation::HeadObject,
        ("DELETE", None) => Operation::DeleteObject,
        ("GET", Some("tagging")) => Operation::GetObjectTagging,
        ("PUT", Some("tagging")) => Operation::PutObjectTagging,
        ("DELETE", Some("tagging")) => Operation::DeleteObjectTagging,
        ("GET", Some("acl")) => Operation::GetObjectAcl,
        ("GET", Some("retention")) => Operation::GetObjectRetention,
        ("PUT", Some("retention")) => Operation::PutObjectRetention,
        ("GET", Some("legal-hold")) => Operation::GetObjectLegalHold,
        ("PUT", Some("legal-hold")) => Operation::PutObjectLegalHold,
        ("GET", Some("attributes")) => Operation::GetObjectAttributes(AttributesQuery::parse(head)?),
        ("POST", Some("uploads")) => Operation::CreateMultipartUpload,
        ("PUT", Some("uploadId")) => {
            let upload_id = query.upload_id()?;
            let number = query.part_number()?;
            match copies? {
                None => Operation::UploadPart { upload_id, number },
                Some(source) => Operation::UploadPartCopy { upload_id, number, source, range: copy_range(head)? },
            }
        }
        ("POST", Some("uploadId")) => Operation::CompleteMultipartUpload { upload_id: query.upload_id()? },
        ("DELETE", Some("uploadId")) => Operation::AbortMultipartUpload { upload_id: query.upload_id()? },
        ("GET", Some("uploadId")) => Operation::ListParts {
            upload_id: query.upload_id()?,
            marker: query.part_marker()?,
            max: query.max_parts()?,
        },
        (_, None) => return Err(not_allowed()),
        _ => return Err(not_implemented()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::head;
    use crate::limits::KEY_MAX;

    fn check(line: &str, expected: Result<&str, ErrorCode>) {
        let head = head(&format!("{line} HTTP/1.1\nHost: s3.example\nContent-Length: 0"));
        let got = route(&head, &HostNames::default()).map_err(|error| error.code);
        let name = got.as_ref().map(|(_, operation)| format!("{operation:?}")).map_err(|code| *code);
        match (&name, expected) {
            (Ok(name), Ok(expected)) => assert!(name.starts_with(expected), "{line}: {name}"),
            (Err(code), Err(expected)) => assert_eq!(*code, expected, "{line}"),
            _ => panic!("{line}: {name:?}"),
        }
    }

    #[test]
    fn requests_are_routed_to_operations() {
        let id = "00112233445566778899aabbccddeeff";
        check("GET /", Ok("ListBuckets"));
        check("PUT /bucket", Ok("CreateBucket"));
        check("PUT /bucket/", Ok("CreateBucket"));
        check("HEAD /bucket", Ok("HeadBucket"));
        check("DELETE /bucket", Ok("DeleteBucket"));
        check("GET /bucket?location", Ok("GetBucketLocation"));
        check("GET /bucket?versioning", Ok("GetBucketVersioning"));
        check("GET /bucket?acl", Ok("GetBucketAcl"));
        check("PUT /bucket?encryption", Ok("PutBucketEncryption"));
        check("GET /bucket?encryption", Ok("GetBucketEncryption"));
        check("DELETE /bucket?encryption", Ok("DeleteBucketEncryption"));
        check("PUT /bucket?lifecycle", Ok("PutBucketLifecycle"));
        check("GET /bucket?lifecycle", Ok("GetBucketLifecycle"));
        check("DELETE /bucket?lifecycle", Ok("DeleteBucketLifecycle"));
        for (name, of) in [("cors", "BucketCors"), ("tagging", "BucketTagging")] {
            for (method, verb) in [("PUT", "Put"), ("GET", "Get"), ("DELETE", "Delete")] {
                check(&format!("{method} /bucket?{name}"), Ok(&format!("{verb}{of}")));
            }
        }
        check("GET /bucket?versions&prefix=a", Ok("ListObjectVersions("));
        check("PUT /bucket?versioning", Ok("PutBucketVersioning"));
        for (method, verb) in [("PUT", "Put"), ("GET", "Get")] {
            check(&format!("{method} /bucket?object-lock"), Ok(&format!("{verb}ObjectLockConfiguration")));
            check(&format!("{method} /bucket/k?retention"), Ok(&format!("{verb}ObjectRetention")));
            check(&format!("{method} /bucket/k?legal-hold&versionId=null"), Ok(&format!("{verb}ObjectLegalHold")));
        }
        check("GET /bucket/k?encryption", Err(ErrorCode::NotImplemented));
        check("GET /bucket?prefix=a", Ok("ListObjects("));
        check("GET /bucket?list-type=2&prefix=a", Ok("ListObjectsV2("));
        check("GET /bucket?uploads", Ok("ListMultipartUploads"));
        check("POST /bucket?delete", Ok("DeleteObjects"));
        check("PUT /bucket/k?x-id=PutObject", Ok("PutObject"));
        check("GET /?x", Ok("ListBuckets"));
        check("PUT /bucket/k?x-user=me&customer_id=42", Ok("PutObject"));
        check("GET /bucket?list-type=2&metadata=true&Policy=1", Ok("ListObjectsV2("));
        check("GET /bucket/k?prefix=a&max-keys=1", Ok("GetObject"));
        check("PUT /bucket/k\nx-amz-copy-source: bucket/l\nA: b".split('\n').next().unwrap(), Ok("PutObject"));
        check("GET /bucket/k", Ok("GetObject"));
        check("GET /bucket/k?partNumber=2", Ok("GetObject"));
        check("GET /bucket/k?response-content-type=a", Ok("GetObject"));
        check("GET /bucket/k?versionId=null", Ok("GetObject"));
        check("HEAD /bucket/k", Ok("HeadObject"));
        check("DELETE /bucket/k", Ok("DeleteObject"));
        check("GET /bucket/k?tagging", Ok("GetObjectTagging"));
        check("PUT /bucket/k?tagging", Ok("PutObjectTagging"));
        check("DELETE /bucket/k?tagging", Ok("DeleteObjectTagging"));
        check("GET /bucket/k?acl", Ok("GetObjectAcl"));
        check("GET /bucket/k?attributes", Err(ErrorCode::InvalidArgument));
        check("POST /bucket/k?uploads", Ok("CreateMultipartUpload"));
        check(&format!("PUT /bucket/k?partNumber=3&uploadId={id}"), Ok("UploadPart {"));
        check(&format!("PUT /bucket/k?uploadId={id}&partNumber=3"), Ok("UploadPart {"));
        check(&format!("POST /bucket/k?uploadId={id}"), Ok("CompleteMultipartUpload"));
        check(&format!("DELETE /bucket/k?uploadId={id}"), Ok("AbortMultipartUpload"));
        check(&format!("GET /bucket/k?uploadId={id}"), Ok("ListParts"));
    }

    #[test]
    fn unsupported_operations_are_not_implemented() {
        for line in [
            "PUT /bucket?policy",
            "GET /bucket/k?lifecycle",
            "POST /bucket?lifecycle",
            "PUT /bucket?acl",
            "GET /bucket/k?versions",
            "GET /bucket/k?cors",
            "POST /bucket?cors",
            "DELETE /bucket?versioning",
            "DELETE /bucket?object-lock",
            "DELETE /bucket/k?retention",
            "GET /bucket/k?object-lock",
            "GET /bucket?retention",
            "POST /bucket?tagging",
            "POST /bucket/k?tagging",
            "PUT /bucket/k?acl",
            "POST /bucket/k?select",
            "GET /bucket/k?torrent",
            "GET /?location",
            "PUT /bucket/k?attributes",
            "GET /bucket?attributes",
            "GET /bucket?list-type=3",
            "PUT /bucket/k?partNumber=1",
            "PUT /bucket/k?policy&x=1",
        ] {
            check(line, Err(ErrorCode::NotImplemented));
        }
        for line in ["GET /bucket/k?acl&tagging", "GET /bucket?location&uploads", "PUT /bucket/k?tagging&partNumber=1"]
        {
            check(line, Err(ErrorCode::InvalidArgument));
        }
        check("POST /bucket", Err(ErrorCode::PreconditionFailed));
        for line in ["POST /", "PATCH /bucket", "POST /bucket/k", "PATCH /bucket/k"] {
            check(line, Err(ErrorCode::MethodNotAllowed));
        }
    }

    #[test]
    fn version_is_named_where_the_operation_is_about_one() {
        let id = "00112233445566778899aabbccddeeff";
        for line in [
            "GET /bucket/k?",
            "HEAD /bucket/k?",
            "DELETE /bucket/k?",
            "GET /bucket/k?partNumber=1&",
            "GET /bucket/k?tagging&",
            "PUT /bucket/k?tagging&",
            "DELETE /bucket/k?tagging&",
            "GET /bucket/k?acl&",
            "PUT /bucket/k?retention&",
            "GET /bucket/k?legal-hold&",
        ] {
            let version = |value: &str| {
                let head = head(&format!("{line}versionId={value} HTTP/1.1\nHost: h\nContent-Length: 0"));
                route(&head, &HostNames::default()).map(|(target, _)| target.version).map_err(|error| error.code)
            };
            assert_eq!(version(id), Ok(VersionId::parse(id)), "{line}");
            assert_eq!(version("null"), Ok(Some(VersionId::Null)), "{line}");
            for bad in ["", "1", "Null"] {
                assert_eq!(version(bad), Err(ErrorCode::InvalidArgument), "{line} {bad}");
            }
        }
        let upload = format!("PUT /bucket/k?partNumber=1&uploadId={id}&");
        for line in ["PUT /bucket/k?", "POST /bucket/k?uploads&", &upload, "GET /bucket?", "PUT /bucket?", "GET /?"] {
            for value in [id, "null", "1"] {
                check(&format!("{line}versionId={value}"), Err(ErrorCode::InvalidArgument));
            }
        }
    }

    #[test]
    fn bucket_names_and_keys_are_checked() {
        for bad in ["ab", "Bucket", "-ab", "ab-", "a..b", "a.-b", "1.2.3.4", "a_b", "é00", &"a".repeat(64)] {
            assert!(check_bucket(bad).is_err(), "{bad}");
        }
        for good in ["abc", "a-b", "a.b.c", "123", &"a".repeat(63)] {
            assert!(check_bucket(good).is_ok(), "{good}");
        }
        check(&format!("GET /bucket/{}", "k".repeat(KEY_MAX)), Ok("GetObject"));
        check(&format!("GET /bucket/{}", "k".repeat(KEY_MAX + 1)), Err(ErrorCode::KeyTooLongError));
        check("GET /bucket/k?uploadId=xyz", Err(ErrorCode::NoSuchUpload));
    }

    #[test]
    fn keys_are_decoded_once() {
        let (target, _) = route(&head("GET /bucket//a%2Fb%2520+c/ HTTP/1.1"), &HostNames::default()).unwrap();
        assert_eq!(target.key.as_deref(), Some("/a/b%20+c/"));
    }

    #[test]
    fn operations_with_a_body_require_a_length() {
        let id = "00112233445566778899aabbccddeeff";
        let code = |line: &str, more: &str| {
            let head = head(&format!("{line} HTTP/1.1\nHost: bucket.s3.example{more}"));
            let hosts = HostNames::new(["s3.example".to_owned()]);
            route(&head, &hosts).map(|_| ()).map_err(|error| error.code)
        };
        let part = format!("PUT /k?partNumber=1&uploadId={id}");
        for line in ["PUT /k", "PUT /k?tagging", &part] {
            assert_eq!(code(line, ""), Err(ErrorCode::MissingContentLength), "{line}");
            assert_eq!(code(line, "\nContent-Length: 1"), Ok(()), "{line}");
        }
        for line in ["PUT /", "GET /k", "POST /k?uploads", "DELETE /k"] {
            assert_eq!(code(line, ""), Ok(()), "{line}");
        }
        assert_eq!(code("PUT /k", "\nx-amz-copy-source: bucket/k"), Ok(()));
    }

    #[test]
    fn bucket_is_read_from_the_host_name() {
        let hosts = HostNames::new(["S3.example".to_owned(), "eu.s3.example".to_owned(), "localhost".to_owned()]);
        let check = |host: &str, path: &str, expected: Result<(Option<&str>, Option<&str>), ErrorCode>| {
            let got = route(&head(&format!("GET {path} HTTP/1.1\nHost: {host}")), &hosts);
            let got = got.map(|(target, _)| (target.bucket, target.key)).map_err(|error| error.code);
            let got = got.as_ref().map(|(bucket, key)| (bucket.as_deref(), key.as_deref())).map_err(|code| *code);
            assert_eq!(got, expected, "{host} {path}");
        };
        check("s3.example", "/bucket/k", Ok((Some("bucket"), Some("k"))));
        check("s3.example:9000", "/", Ok((None, None)));
        check("bucket.s3.example", "/", Ok((Some("bucket"), None)));
        check("bucket.s3.example", "/a/b", Ok((Some("bucket"), Some("a/b"))));
        check("bucket.s3.example", "//a", Ok((Some("bucket"), Some("/a"))));
        check("BUCKET.S3.Example.:9000", "/k", Ok((Some("bucket"), Some("k"))));
        check("a.b.c.s3.example", "/k", Ok((Some("a.b.c"), Some("k"))));
        check("bucket.eu.s3.example", "/k", Ok((Some("bucket"), Some("k"))));
        check("eu.s3.example", "/bucket/k", Ok((Some("bucket"), Some("k"))));
        check("bucket.localhost:9000", "/k", Ok((Some("bucket"), Some("k"))));
        check("127.0.0.1:9000", "/bucket/k", Ok((Some("bucket"), Some("k"))));
        check("[::1]:9000", "/bucket/k", Ok((Some("bucket"), Some("k"))));
        check("buckets3.example", "/bucket/k", Ok((Some("bucket"), Some("k"))));
        check("a_b.s3.example", "/k", Err(ErrorCode::InvalidBucketName));
        check(".s3.example", "/k", Err(ErrorCode::InvalidBucketName));
    }
}
