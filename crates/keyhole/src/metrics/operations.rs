//! The dimensions of request counters: operation, class of operation, status of the reply.

/// All operations with their class, an index into [`CLASSES`]. The most frequent ones come first,
/// since the search is linear; the last two are for unnamed and unknown operations.
pub(crate) const OPERATIONS: [(&str, usize); 51] = [
    ("GetObject", GET),
    ("PutObject", PUT),
    ("HeadObject", HEAD),
    ("UploadPart", PART),
    ("DeleteObject", DELETE),
    ("ListObjectsV2", LIST),
    ("CreateMultipartUpload", OTHER),
    ("CompleteMultipartUpload", OTHER),
    ("CopyObject", COPY),
    ("UploadPartCopy", COPY),
    ("DeleteObjects", DELETE),
    ("HeadBucket", HEAD),
    ("ListBuckets", LIST),
    ("ListObjects", LIST),
    ("ListParts", LIST),
    ("ListMultipartUploads", LIST),
    ("ListObjectVersions", LIST),
    ("Preflight", OTHER),
    ("AbortMultipartUpload", OTHER),
    ("PostObject", PUT),
    ("GetObjectAttributes", HEAD),
    ("GetObjectTagging", OTHER),
    ("PutObjectTagging", OTHER),
    ("DeleteObjectTagging", OTHER),
    ("GetObjectAcl", OTHER),
    ("CreateBucket", OTHER),
    ("DeleteBucket", OTHER),
    ("GetBucketLocation", OTHER),
    ("GetBucketVersioning", OTHER),
    ("GetBucketAcl", OTHER),
    ("PutBucketEncryption", OTHER),
    ("GetBucketEncryption", OTHER),
    ("DeleteBucketEncryption", OTHER),
    ("PutBucketLifecycleConfiguration", OTHER),
    ("GetBucketLifecycleConfiguration", OTHER),
    ("DeleteBucketLifecycle", OTHER),
    ("PutBucketCors", OTHER),
    ("GetBucketCors", OTHER),
    ("DeleteBucketCors", OTHER),
    ("PutBucketTagging", OTHER),
    ("GetBucketTagging", OTHER),
    ("DeleteBucketTagging", OTHER),
    ("PutBucketVersioning", OTHER),
    ("GetObjectRetention", OTHER),
    ("PutObjectRetention", OTHER),
    ("GetObjectLegalHold", OTHER),
    ("PutObjectLegalHold", OTHER),
    ("GetObjectLockConfiguration", OTHER),
    ("PutObjectLockConfiguration", OTHER),
    ("Other", OTHER),
    ("Unknown", OTHER),
];

/// Classes of operations with similar durations for a given length.
pub(crate) const CLASSES: [&str; 8] = ["get", "put", "part", "copy", "head", "list", "delete", "other"];

const GET: usize = 0;
const PUT: usize = 1;
const PART: usize = 2;
const COPY: usize = 3;
const HEAD: usize = 4;
const LIST: usize = 5;
const DELETE: usize = 6;
const OTHER: usize = 7;

/// Rows for an operation that is missing in the table, and for a request that is not understood.
const NAMELESS: usize = OPERATIONS.len() - 2;
const UNKNOWN: usize = OPERATIONS.len() - 1;

/// The statuses of replies. 0 is an aborted connection without a reply; the last one stands for all
/// others.
pub(crate) const STATUSES: [u16; 20] =
    [0, 200, 201, 204, 206, 303, 304, 400, 403, 404, 405, 409, 411, 412, 416, 500, 501, 503, 507, ELSE];

/// A value that is not a status.
pub(crate) const ELSE: u16 = u16::MAX;

pub(super) fn operation_index(name: Option<&'static str>) -> usize {
    match name {
        Some(name) => OPERATIONS.iter().position(|(known, _)| *known == name).unwrap_or(NAMELESS),
        None => UNKNOWN,
    }
}

pub(super) fn class_of(operation: usize) -> usize {
    OPERATIONS[operation].1
}

pub(super) fn status_index(status: u16) -> usize {
    STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len() - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use keyhole_s3::ErrorCode;

    use super::*;

    #[test]
    fn every_operation_has_a_row() {
        let source = include_str!("../../../keyhole-s3/src/ops/route.rs");
        let (_, names) = source.split_once("fn name(&self)").unwrap();
        let (names, _) = names.split_once("\n}").unwrap();
        let names: BTreeSet<&str> =
            names.split('"').skip(1).step_by(2).filter(|name| name.starts_with(char::is_uppercase)).collect();
        let rows: BTreeSet<&str> = OPERATIONS[..NAMELESS].iter().map(|(name, _)| *name).collect();
        assert_eq!(names, rows);
        assert_eq!(operation_index(Some("GetObject")), 0);
        assert_eq!(OPERATIONS[operation_index(Some("New"))].0, "Other");
        assert_eq!(OPERATIONS[operation_index(None)].0, "Unknown");
    }

    #[test]
    fn every_error_has_a_status_of_the_list() {
        for code in ErrorCode::ALL {
            assert_eq!(STATUSES[status_index(code.status())], code.status(), "{code:?}");
            assert_eq!(ErrorCode::ALL[*code as usize], *code, "its place in the list is its number");
        }
        assert_eq!(STATUSES[status_index(418)], ELSE);
        assert!(CLASSES[class_of(0)] == "get" && CLASSES[class_of(UNKNOWN)] == "other");
    }
}
