//! What few versions have: an imported id, a lock, tags in a record of their own, an eviction, changes
//! in flight.

use std::collections::BTreeSet;

use super::location::Location;
use crate::sorted::SortedMap;
use crate::version::Lock;

/// The lock of a version.
#[derive(Debug, Clone)]
pub(super) struct LockEntry {
    /// Location of its record; [`Location::LOST`] if it is in the version's own record.
    pub(super) at: Location,
    /// Sequence number of its record.
    pub(super) seq: u64,
    /// Plaintext bytes of the version.
    pub(super) size: u64,
    pub(super) lock: Lock,
}

impl LockEntry {
    /// Returns whether the removal of a legal hold takes a record that replaces none.
    pub(super) fn has_own_hold(&self) -> bool {
        self.lock.hold && self.at == Location::LOST
    }
}

/// What a version had that is forgotten.
pub(super) struct Forgotten {
    /// Locations of its records.
    pub(super) records: [Option<Location>; 3],
    /// Whether it had a legal hold in its own record.
    pub(super) has_own_hold: bool,
    pub(super) was_evicted: bool,
}

/// The tags of a version that have a record of their own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TagsEntry {
    pub(crate) at: Location,
    pub(crate) seq: u64,
}

/// The eviction of a version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EvictEntry {
    pub(crate) at: Location,
    pub(crate) seq: u64,
}

/// What few versions have, by the version's sequence number.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    /// Ids of imported versions, and the reverse.
    pub(super) ids: SortedMap<u64, [u8; 16]>,
    pub(super) by_id: SortedMap<[u8; 16], u64>,
    pub(super) locks: SortedMap<u64, LockEntry>,
    pub(super) tags: SortedMap<u64, TagsEntry>,
    pub(super) evictions: SortedMap<u64, EvictEntry>,
    /// Versions with an in-flight deletion or eviction, or change of their lock or tags.
    pub(super) claims: BTreeSet<u64>,
    /// Ids of versions whose import is in flight.
    pub(super) importing: BTreeSet<[u8; 16]>,
}

impl Attributes {
    pub(super) fn set_id(&mut self, version: u64, id: [u8; 16]) {
        self.ids.insert(version, id);
        self.by_id.insert(id, version);
    }

    /// Forgets a version.
    pub(super) fn forget(&mut self, version: u64) -> Forgotten {
        if let Some(id) = self.ids.remove(&version)
            && self.by_id.get(&id) == Some(&version)
        {
            self.by_id.remove(&id);
        }
        let lock = self.locks.remove(&version);
        let tags = self.tags.remove(&version).map(|entry| entry.at);
        let has_own_hold = lock.as_ref().is_some_and(LockEntry::has_own_hold);
        let eviction = self.evictions.remove(&version).map(|entry| entry.at);
        let was_evicted = eviction.is_some();
        Forgotten { records: [lock.map(|entry| entry.at), tags, eviction], has_own_hold, was_evicted }
    }

    /// Forgets the versions that do not exist. Evictions are only added to versions that exist.
    pub(super) fn keep_only(&mut self, existing: impl Fn(u64) -> bool) -> Vec<Forgotten> {
        let versions = self.ids.iter().map(|(version, _)| *version);
        let versions = versions.chain(self.locks.iter().map(|(version, _)| *version));
        let mut gone: Vec<u64> = versions.chain(self.tags.iter().map(|(version, _)| *version)).collect();
        gone.retain(|&version| !existing(version));
        gone.into_iter().map(|version| self.forget(version)).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.len() + self.locks.len() + self.tags.len() + self.evictions.len() == 0
    }

    /// Counts the versions that have a legal hold in their own record.
    pub(super) fn count_own_holds(&self) -> u64 {
        self.locks.iter().filter(|(_, entry)| entry.has_own_hold()).count() as u64
    }

    /// Locations of records that belong to versions.
    pub(super) fn places(&self) -> impl Iterator<Item = Location> {
        let locks = self.locks.iter().map(|(_, entry)| entry.at);
        let tags = self.tags.iter().map(|(_, entry)| entry.at);
        locks.chain(tags).chain(self.evictions.iter().map(|(_, entry)| entry.at))
    }

    pub(super) fn allocated(&self) -> usize {
        let ids = self.ids.allocated() + self.by_id.allocated();
        ids + self.locks.allocated() + self.tags.allocated() + self.evictions.allocated()
    }
}
