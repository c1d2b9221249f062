//! Listings of versions.

use crate::types::Etag;
use crate::version::{Lock, VersionId};

/// Parameters of a listing of versions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListVersions {
    /// Lists only keys with this prefix.
    pub prefix: String,
    /// Groups keys that contain this after the prefix into a common prefix ending with it.
    pub delimiter: Option<String>,
    /// Starts after this version. Without an id, starts after every version of this key or, for a
    /// common prefix, after everything under it. The key of an unknown version is listed again.
    pub after: Option<(String, Option<VersionId>)>,
    /// Maximum number of entries, versions and common prefixes together. Capped at
    /// [`LIST_MAX`](crate::limits::LIST_MAX).
    pub limit: usize,
}

/// One page of a listing of versions, in the binary order of keys, the newest version of a key first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionListing {
    /// Versions and common prefixes.
    pub entries: Vec<ListedVersion>,
    /// The position that the next page starts after. `None`: there are no more entries. Its id names
    /// a place, which for an imported version is not the id of that version.
    pub next: Option<(String, Option<VersionId>)>,
}

/// One entry of a listing of versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListedVersion {
    /// A version.
    Version(VersionInfo),
    /// A common prefix, including the delimiter.
    Prefix(String),
}

/// A version, an object or a delete marker, as the index has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionInfo {
    /// Key of the object.
    pub key: String,
    /// Its id.
    pub version: VersionId,
    /// Whether it is the current version.
    pub is_latest: bool,
    /// Whether it is a delete marker: then size and ETag mean nothing.
    pub is_marker: bool,
    /// Plaintext bytes.
    pub size: u64,
    /// The ETag.
    pub etag: Etag,
    /// Whether its object head is sealed.
    pub sealed: bool,
    /// Time of storage, in ms since 1970.
    pub time_ms: u64,
    /// Its retention and legal hold.
    pub lock: Lock,
    /// Its sequence number, which gives its place among the versions of its key.
    pub seq: u64,
    /// Whether its bytes are evicted: another store has them.
    pub is_evicted: bool,
}

/// A noncurrent version, for rules of expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoncurrentVersion<'a> {
    /// Key of the object.
    pub key: &'a str,
    /// Plaintext bytes.
    pub size: u64,
    /// Time of storage, in ms since 1970.
    pub time_ms: u64,
    /// Whether it is a delete marker.
    pub is_marker: bool,
    /// Time at which it became noncurrent: the storage time of the next newer version.
    pub since_ms: u64,
    /// Number of noncurrent versions of the key that are newer.
    pub newer: u64,
}
