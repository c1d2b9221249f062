//! Limits of remotes.

/// Limit of remotes of a node.
pub(crate) const REMOTES_MAX: usize = 16;

/// Limit of a remote's name in bytes.
pub(super) const NAME_MAX: usize = 32;

/// Limit of a service's URL in bytes.
pub(super) const URL_MAX: usize = 300;

/// Limits of a bucket's name in bytes.
pub(super) const BUCKET_MIN: usize = 3;
pub(super) const BUCKET_MAX: usize = 63;

/// Limit of a remote's prefix in bytes. The service limits prefix, bucket and key to 1,024 bytes in
/// total.
pub(super) const PREFIX_MAX: usize = 256;

/// Limit of a region's name in bytes.
pub(super) const REGION_MAX: usize = 64;

/// Limit of source patterns of a remote: each object is matched against them.
pub(super) const SOURCES_MAX: usize = 64;

/// Limit of the key prefix of a source pattern, which is that of an object key.
pub(super) const KEY_PREFIX_MAX: usize = 1024;

/// Limit of the length of the file of remotes.
pub(super) const FILE_MAX: u64 = 4 << 20;

/// Limit of the length of a credentials file.
pub(super) const CREDENTIALS_MAX: u64 = 64 << 10;

/// Limit of a key ID, secret key or session token in bytes.
pub(super) const CREDENTIAL_MAX: usize = 4096;

/// Limit of the length of a file of authorities.
pub(super) const CA_MAX: u64 = 4 << 20;

/// Limit of a content that goes up in one request, and least length of the parts of a longer one.
pub(super) const PART_LEN: u64 = 5 << 20;

/// Limit of a part's length, since a part is held in memory.
pub(super) const PART_LEN_MAX: u64 = 12 << 20;

/// Limit of parts of an upload, which S3 sets.
pub(super) const PARTS_MAX: u64 = 10_000;

/// Limit of objects in a page of a listing, which S3 sets.
pub(super) const PAGE_MAX: usize = 1000;

/// Limit of a response that is held in memory: a page of names of 1,024 bytes, each escaped.
pub(super) const RESPONSE_MAX: usize = 6 << 20;

/// Limit of an error response: more of it is not read.
pub(super) const ERROR_MAX: usize = 64 << 10;

/// Limit of the explanation of an error in characters: more of it is not shown.
pub(super) const MESSAGE_MAX: usize = 300;
