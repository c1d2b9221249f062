//! Changes of versions and buckets, in the order of their numbers.

use crate::version_list::VersionInfo;

/// A version or the settings of a bucket that changed after a given number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The highest of the sequence numbers of a version, of its lock and of its tags; of a bucket, the
    /// higher of those of its creation and of its settings.
    pub number: u64,
    /// The bucket.
    pub bucket: String,
    /// The subject of the change.
    pub what: Changed,
}

/// The subject of a [`Change`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// The bucket was created or its settings were set.
    Bucket,
    /// The version was stored, or its lock or tags were set.
    Version(VersionInfo),
}

/// The changes within a range of numbers. Created by [`Log::changes`](crate::Log::changes).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// The changes with the lowest numbers, ascending.
    pub found: Vec<Change>,
    /// The end of the range: [`Store::settled`](crate::Store::settled) at the beginning of the pass. It
    /// can be below the start.
    pub settled: u64,
    /// Whether there are changes in the range beyond the limit.
    pub has_more: bool,
    /// All changed versions in the range, including those beyond the limit.
    pub versions: u64,
    /// Their plaintext bytes.
    pub bytes: u64,
    /// Storage time of the oldest of them, in ms since 1970.
    pub oldest_ms: Option<u64>,
    /// The number that [`Store::settled`](crate::Store::settled) must reach before a watermark derived
    /// from this result is stored. Until then a power failure can undo a deletion or an overwrite that
    /// hid a version of the range. Above `settled` only under
    /// [`Durability::Deferred`](crate::Durability::Deferred).
    pub stable_at: u64,
}
