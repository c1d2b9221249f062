//! Operations: routing of requests, and their parameters.

mod allowed;
mod attributes;
mod completion;
mod conditions;
mod cors;
mod encoding;
mod hoisted;
mod host;
mod lifecycle;
mod names;
mod object;
mod object_lock;
mod query;
mod route;
mod sealed;
mod tags;
mod version;

pub(crate) use allowed::check_form_headers;
pub use allowed::check_headers;
pub use attributes::AttributesQuery;
pub use completion::{Completion, DeclaredChecksum, checksum_of_part, require_part_checksums};
pub use conditions::{
    Conditions, Decision, Required, WriteCondition, conditions, copy_conditions, delete_condition, range,
    write_condition,
};
pub use cors::{CORS_VARY, Cors, CorsMethod, CorsRequest, CorsRule, cors_not_allowed, cors_not_enabled};
pub use hoisted::hoist;
pub use host::HostNames;
pub use lifecycle::{Due, Expiration, FilterForm, Lifecycle, Noncurrent, Rule};
pub use names::{check_bucket, check_key};
pub use object::{
    CopySource, Directive, Metadata, ReadOptions, caching_headers, checksum_headers, copy_checksum, declared_checksum,
    metadata, metadata_directive, metadata_headers, read_options, refuse_metadata,
};
pub use object_lock::{
    DefaultRetention, DigestedBody, RequestedLock, Retention, RetentionMode, RetentionPeriod, bypass_governance,
    bypass_without_lock, enables_object_lock, lock_headers, missing_lock_configuration, past_retention,
    protected_by_lock, requested_lock, require_digest,
};
pub(crate) use object_lock::{hold_name, parse_hold};
pub use query::{ListBuckets, ListObjects, ListObjectsV2, ListUploads, ListVersions, UploadId};
pub(crate) use query::{encode_key, encode_token};
pub use route::{Operation, Target, route, target};
pub use sealed::{BINDING_HEADER, SEALED_HEADER, check_binding_header, is_sealed_transfer, requires_binding};
pub use tags::{Tags, copied_tags, tags};
pub use version::{VersionId, Versioning, is_delete_marker, no_such_version, under_delete_marker};
