//! Kinds of records, as stored on disk.

pub(crate) const BUCKET_CREATE: u8 = 1;
pub(crate) const BUCKET_DELETE: u8 = 2;
pub(crate) const BODY: u8 = 3;
pub(crate) const OBJECT_PUT: u8 = 4;
pub(crate) const TOMBSTONE: u8 = 5;
pub(crate) const UPLOAD_CREATE: u8 = 6;
pub(crate) const PART_PUT: u8 = 7;
pub(crate) const UPLOAD_ABORT: u8 = 8;
/// Nothing follows in this segment. No payload.
pub(crate) const SEGMENT_END: u8 = 9;
/// Carries only its header, which states how far the segment is durable. No payload.
pub(crate) const MARK: u8 = 10;
/// Items of a checkpoint.
pub(crate) const CHECKPOINT_ITEMS: u8 = 11;
/// End of a checkpoint.
pub(crate) const CHECKPOINT: u8 = 12;
/// Settings without a policy.
pub(crate) const BUCKET_SETTINGS: u8 = 13;
/// Settings with a policy.
pub(crate) const BUCKET_POLICY: u8 = 14;
/// Settings with a lifecycle, with or without a policy.
pub(crate) const BUCKET_LIFECYCLE: u8 = 15;
/// Settings with CORS rules or tags, and everything else.
pub(crate) const BUCKET_DOCUMENTS: u8 = 16;
/// Creation of a bucket with tags.
pub(crate) const BUCKET_CREATE_TAGGED: u8 = 17;
/// Settings with versioning, and everything else.
pub(crate) const BUCKET_VERSIONING: u8 = 18;
pub(crate) const MARKER_PUT: u8 = 19;
/// Deletion of one version.
pub(crate) const VERSION_DELETE: u8 = 20;
pub(crate) const VERSION_LOCK: u8 = 21;
pub(crate) const VERSION_TAGS: u8 = 22;
pub(crate) const LOCK_CLOCK: u8 = 23;
/// Removal of a version's bodies, which another store has.
pub(crate) const VERSION_EVICTED: u8 = 24;
