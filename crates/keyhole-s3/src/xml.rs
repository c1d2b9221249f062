//! XML documents of S3 requests and responses, with quick-xml.

mod bucket;
mod cors;
mod error;
mod lifecycle;
mod object_lock;
mod read;
mod versions;
mod walk;
mod write;

pub use bucket::{CreateBucketRequest, list_buckets, parse_bucket_tagging, parse_create_bucket};
pub use cors::{cors, parse_cors};
pub use lifecycle::{lifecycle, parse_lifecycle};
pub use object_lock::{
    legal_hold, no_object_lock, object_lock, parse_legal_hold, parse_object_lock, parse_retention, retention,
};
pub use read::{
    CompletedPart, DeleteRequest, NamedChecksums, ObjectToDelete, parse_bucket_encryption, parse_complete,
    parse_delete, parse_tagging,
};
pub use versions::{VersionContent, VersionEntry, list_versions, parse_versioning, versioning};
pub(crate) use write::OWNER;
pub use write::{
    Attributes, Bucket, Deleted, Document, ListEntry, ObjectParts, PartEntry, PartList, PartsPage, UploadEntry, acl,
    bucket_encryption, complete_result, copy_object_result, copy_part_result, delete_result, initiate_upload,
    list_objects_v1, list_objects_v2, list_parts, list_uploads, location, object_attributes, post_result, tagging,
};
