//! Operations: routing of requests, and their parameters.

mod attributes;
mod completion;
mod conditions;
mod host;
mod lifecycle;
mod object;
mod query;
mod route;
mod tags;

pub use attributes::AttributesQuery;
pub use completion::{Completion, DeclaredChecksum, all_checksums, checksum_of_part};
pub use conditions::{Conditions, Decision, WriteCondition, conditions, copy_conditions, range, write_condition};
pub use host::HostNames;
pub use lifecycle::{Due, Expiration, Lifecycle, Rule};
pub use object::{
    CopySource, Directive, Metadata, ReadOptions, SEALED_HEADER, checksum_headers, declared_checksum,
    is_sealed_transfer, metadata, metadata_directive, metadata_headers, no_metadata, read_options,
};
pub use query::{ListObjects, ListObjectsV2, ListUploads, UploadId};
pub(crate) use query::{encode_key, encode_token};
pub use route::{Operation, Target, check_bucket, check_key, route};
pub use tags::{Tags, copied_tags, tags};
