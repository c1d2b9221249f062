//! The removals of versions and buckets, in the order of their application.

use std::collections::VecDeque;

use super::Index;
use super::entry::ObjectEntry;
use crate::version::{VersionId, VersionIds};

/// The reason for which a version leaves the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removal {
    /// Its record is applied again, so it comes back at once.
    Reapplied,
    /// A `null` object replaces it, and it is one as well.
    Overwritten,
    /// Any other reason.
    Deleted,
}

/// A version or a bucket that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The bucket.
    pub bucket: String,
    /// The key. `None`: the bucket itself was deleted.
    pub key: Option<String>,
    /// The id of the version; `Null` for a bucket.
    pub version: VersionId,
    /// The sequence number of the version; of a bucket, the number of its last
    /// [`Change`](crate::Change). An item of this name with a higher number is a later one. One with a
    /// lower number is gone as well: a `null` object that this version replaced.
    pub number: u64,
}

/// Removals of versions, objects or delete markers, and of buckets. A `null` object that another one
/// replaces is not among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removals {
    /// The removals, in the order of their application.
    pub removed: Vec<Removed>,
    /// Whether these are all since the last call. If not, the caller compares its copy with the index,
    /// under [`Durability::Deferred`](crate::Durability::Deferred) after a flush. `false` also while
    /// removals are not tracked.
    pub is_complete: bool,
}

/// The removals that wait to be taken.
#[derive(Debug)]
pub(super) struct RemovalLog {
    ids: VersionIds,
    limit: usize,
    /// Each with the number of the record that is its cause.
    waiting: VecDeque<(u64, Removed)>,
    /// Whether none has been dropped.
    is_complete: bool,
    /// Number of the record that is being applied.
    record: u64,
}

impl RemovalLog {
    pub(super) fn begin_record(&mut self, seq: u64) {
        self.record = seq;
    }

    fn push(&mut self, removed: Removed) {
        self.waiting.push_back((self.record, removed));
        self.enforce_limit();
    }

    fn enforce_limit(&mut self) {
        if self.waiting.len() > self.limit {
            self.waiting = VecDeque::new();
            self.is_complete = false;
        }
    }

    fn take(&mut self, is_durable: impl Fn(u64) -> bool) -> Removals {
        let ready = self.waiting.iter().take_while(|(record, _)| is_durable(*record)).count();
        let removed = self.waiting.drain(..ready).map(|(_, removed)| removed).collect();
        Removals { removed, is_complete: std::mem::replace(&mut self.is_complete, true) }
    }
}

impl Index {
    /// Tracks at most `limit` removals; with 0, none.
    pub(crate) fn track_removals(&mut self, limit: usize, ids: VersionIds) {
        if limit == 0 {
            self.removals = None;
            return;
        }
        let new = || Box::new(RemovalLog { ids, limit, waiting: VecDeque::new(), is_complete: true, record: 0 });
        let log = self.removals.get_or_insert_with(new);
        log.limit = limit;
        log.enforce_limit();
    }

    /// Returns the removals before the first whose record is not durable.
    pub(crate) fn take_removals(&mut self, is_durable: impl Fn(u64) -> bool) -> Removals {
        let none = Removals { removed: Vec::new(), is_complete: false };
        self.removals.as_mut().map_or(none, |log| log.take(is_durable))
    }

    /// Tracks the removal of a version. Its attributes are still there.
    pub(super) fn note_removal(&mut self, bucket: u64, key: &str, old: &ObjectEntry) {
        let Some(log) = &mut self.removals else { return };
        let Some(home) = self.buckets.get(&bucket) else { return };
        let version = home.id_of(old, log.ids);
        log.push(Removed { bucket: home.name().to_owned(), key: Some(key.to_owned()), version, number: old.seq });
    }

    /// Tracks the removal of a bucket.
    pub(super) fn note_bucket_removal(&mut self, name: &str, number: u64) {
        if let Some(log) = &mut self.removals {
            log.push(Removed { bucket: name.to_owned(), key: None, version: VersionId::Null, number });
        }
    }
}
