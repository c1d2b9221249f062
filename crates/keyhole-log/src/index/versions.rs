//! The versions of the names of a bucket.
//!
//! A name's current version, if it is an object, is in [`Bucket::objects`]; every other version, and
//! every delete marker, is in [`Bucket::history`]. So a name without other versions costs what an
//! object costs, and a listing of objects meets nothing else. [`Bucket::insert_version`] and
//! [`Bucket::remove_version`] keep it so, in whatever order records take effect: a version has its
//! place by its sequence number.

use super::attributes::{EvictEntry, Forgotten, TagsEntry};
use super::bucket::Bucket;
use super::entry::{Key, ObjectEntry};
use super::history::Versions;
use super::location::Location;
use crate::sabotage::{self, Sabotage};
use crate::version::{Lock, VersionId, VersionIds};
use crate::version_list::VersionInfo;

/// All versions of a name: at least one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Name<'a> {
    pub(crate) key: &'a str,
    current: Option<&'a ObjectEntry>,
    others: Option<&'a Versions>,
}

impl<'a> Name<'a> {
    pub(crate) fn newest(&self) -> &'a ObjectEntry {
        let newest = self.current.or_else(|| self.others.map(Versions::newest));
        newest.expect("a name has a version")
    }

    /// Returns the newest version with a number below `seq`.
    pub(crate) fn below(&self, seq: u64) -> Option<&'a ObjectEntry> {
        let current = self.current.filter(|entry| entry.seq < seq);
        current.or_else(|| self.others.and_then(|others| others.below(seq)))
    }

    /// Returns the oldest version with a number above `seq`.
    pub(crate) fn above(&self, seq: u64) -> Option<&'a ObjectEntry> {
        let other = self.others.and_then(|others| others.above(seq));
        other.or_else(|| self.current.filter(|entry| entry.seq > seq))
    }

    /// Iterates over the versions, oldest first.
    pub(crate) fn oldest_first(&self) -> impl Iterator<Item = &'a ObjectEntry> + use<'a> {
        self.others.into_iter().flat_map(Versions::iter).chain(self.current)
    }

    /// Iterates over the versions with numbers from `seq` on, oldest first.
    pub(crate) fn oldest_first_from(&self, seq: u64) -> impl Iterator<Item = &'a ObjectEntry> + use<'a> {
        let others = self.others.into_iter().flat_map(move |others| others.from(seq));
        others.chain(self.current.filter(|entry| entry.seq >= seq))
    }

    /// Returns whether the name has a single version.
    pub(crate) fn is_single(&self) -> bool {
        self.oldest_first().nth(1).is_none()
    }
}

impl Bucket {
    /// Returns the versions of a name. `None`: it has none.
    pub(crate) fn versions<'a>(&'a self, key: &'a str) -> Option<Name<'a>> {
        let name = Name { key, current: self.object(key), others: self.history.get(key) };
        (name.current.is_some() || name.others.is_some()).then_some(name)
    }

    /// Iterates over the names with versions, in order.
    pub(crate) fn names_from<'a>(&'a self, key: &[u8]) -> impl Iterator<Item = Name<'a>> + use<'a> {
        let mut objects = self.objects.from(key).peekable();
        let mut others = self.history.from(key).peekable();
        std::iter::from_fn(move || {
            let key = match (objects.peek(), others.peek()) {
                (Some((a, _)), Some((b, _))) => std::cmp::min(*a, *b),
                (Some((key, _)), None) | (None, Some((key, _))) => *key,
                (None, None) => return None,
            };
            let current = objects.next_if(|(other, _)| *other == key).map(|(_, entry)| entry);
            let others = others.next_if(|(other, _)| *other == key).map(|(_, versions)| versions);
            Some(Name { key, current, others })
        })
    }

    /// Returns the version of this number.
    pub(crate) fn version(&self, key: &str, seq: u64) -> Option<&ObjectEntry> {
        let current = self.object(key).filter(|entry| entry.seq == seq);
        current.or_else(|| self.history.get(key)?.get(seq))
    }

    pub(super) fn version_mut(&mut self, key: &str, seq: u64) -> Option<&mut ObjectEntry> {
        let current = self.objects.get_mut(key.as_bytes()).filter(|entry| entry.seq == seq);
        current.or_else(|| self.history.get_mut(key, seq))
    }

    /// Returns the `null` version of a name.
    pub(crate) fn null_version(&self, key: &str) -> Option<&ObjectEntry> {
        let current = self.object(key).filter(|entry| entry.is_null());
        current.or_else(|| self.history.get(key)?.iter().find(|entry| entry.is_null()))
    }

    /// Adds a version that the name does not have.
    pub(super) fn insert_version(&mut self, key: &str, entry: ObjectEntry) {
        let is_marker = entry.is_marker() && !sabotage::is(Sabotage::ShowMarkers);
        match self.objects.find(key.as_bytes()) {
            Ok(place) if self.objects.at(place).seq > entry.seq => self.history.add(key, entry),
            Ok(place) if is_marker => {
                let old = self.objects.remove_at(place);
                self.history.add(key, old);
                self.history.add(key, entry);
            }
            Ok(place) => {
                let old = std::mem::replace(self.objects.at_mut(place), entry);
                self.history.add(key, old);
            }
            Err(place) => {
                let is_newest = self.history.newest(key).is_none_or(|newest| newest.seq < entry.seq);
                if is_newest && !is_marker {
                    self.objects.insert_at(place, key, entry);
                } else {
                    self.history.add(key, entry);
                }
            }
        }
    }

    /// Removes a version. The next older one becomes current if this was the newest.
    pub(super) fn remove_version(&mut self, key: &str, seq: u64) -> Option<ObjectEntry> {
        let removed = match self.objects.find(key.as_bytes()) {
            Ok(place) if self.objects.at(place).seq == seq => self.objects.remove_at(place),
            Ok(_) => return self.history.remove(key, seq),
            Err(_) => self.history.remove(key, seq)?,
        };
        let newest = self.history.newest(key).filter(|newest| !newest.is_marker()).map(|newest| newest.seq);
        if let Some(current) = newest.and_then(|newest| self.history.remove(key, newest)) {
            self.objects.insert(key, current);
        }
        Some(removed)
    }

    /// Returns whether a name has no version beside a `null` object.
    pub(super) fn is_plain(&self, current: Option<&ObjectEntry>) -> bool {
        self.history.is_empty() && current.is_none_or(ObjectEntry::is_null)
    }

    /// Returns whether a write of a `null` version counts, or a newer one has already been applied.
    pub(super) fn take_null(&mut self, seq: u64, key: &Key) -> bool {
        match self.pending.get_mut(key) {
            Some(pending) if pending.applied > seq && !sabotage::is(Sabotage::ForgetDeletions) => false,
            Some(pending) => {
                pending.applied = seq;
                true
            }
            None => true,
        }
    }

    /// Forgets the attributes of versions that do not exist.
    pub(super) fn forget_strays(&mut self) -> Vec<Forgotten> {
        if self.attributes.is_empty() {
            return Vec::new();
        }
        let mut existing: Vec<u64> =
            self.names_from(b"").flat_map(|name| name.oldest_first().map(|entry| entry.seq)).collect();
        existing.sort_unstable();
        self.attributes.keep_only(|version| existing.binary_search(&version).is_ok())
    }

    /// Iterates over the records of its versions' locks and tags: sequence number, location.
    pub(super) fn attribute_records(&self) -> impl Iterator<Item = (u64, Location)> {
        let locks = self.attributes.locks.iter().map(|(_, entry)| (entry.seq, entry.at));
        locks.chain(self.attributes.tags.iter().map(|(_, entry)| (entry.seq, entry.at)))
    }

    /// Returns the lock of a version.
    pub(crate) fn lock_of(&self, version: u64) -> Lock {
        if self.attributes.locks.len() == 0 {
            return Lock::default();
        }
        self.attributes.locks.get(&version).map(|entry| entry.lock).unwrap_or_default()
    }

    /// Returns whether a version has had a lock.
    pub(crate) fn has_lock(&self, version: u64) -> bool {
        self.attributes.locks.contains_key(&version)
    }

    /// Returns the tags record of a version.
    pub(crate) fn tags_of(&self, version: u64) -> Option<TagsEntry> {
        if self.attributes.tags.len() == 0 { None } else { self.attributes.tags.get(&version).copied() }
    }

    /// Returns the number of the newest record about the bucket with this identity: of its creation or of
    /// its settings.
    pub(crate) fn newest_record(&self, id: u64) -> u64 {
        id.max(self.settings_seq())
    }

    /// Returns the number of the newest record about a version: its own, or that of its lock or tags.
    pub(crate) fn newest_record_of(&self, version: u64) -> u64 {
        if self.attributes.is_empty() {
            return version;
        }
        let lock = self.attributes.locks.get(&version).map_or(0, |entry| entry.seq);
        let tags = self.attributes.tags.get(&version).map_or(0, |entry| entry.seq);
        version.max(lock).max(tags)
    }

    /// Returns whether a version is evicted.
    pub(crate) fn is_evicted(&self, version: u64) -> bool {
        self.eviction_of(version).is_some()
    }

    /// Returns the eviction of a version.
    pub(super) fn eviction_of(&self, version: u64) -> Option<EvictEntry> {
        if self.attributes.evictions.len() == 0 { None } else { self.attributes.evictions.get(&version).copied() }
    }

    /// Returns the length of the record of a version, with the record of its tags.
    pub(crate) fn record_len(&self, entry: &ObjectEntry) -> usize {
        let of_tags = self.tags_of(entry.seq).map_or(0, |tags| tags.at.len());
        (entry.at.len() + of_tags) as usize
    }

    /// Returns the id of a version of this store.
    pub(crate) fn id_of(&self, entry: &ObjectEntry, ids: VersionIds) -> VersionId {
        if entry.is_null() {
            return VersionId::Null;
        }
        let imported = if self.attributes.ids.len() == 0 { None } else { self.attributes.ids.get(&entry.seq) };
        VersionId::Id(imported.copied().unwrap_or_else(|| ids.id(entry.seq)))
    }

    /// Returns the version of a name that has this id.
    pub(crate) fn version_by_id(&self, key: &str, id: VersionId, ids: VersionIds) -> Option<&ObjectEntry> {
        let id = match id {
            VersionId::Null => return self.null_version(key),
            VersionId::Id(id) => id,
        };
        let imported = self.attributes.by_id.get(&id).and_then(|&seq| self.version(key, seq));
        imported.or_else(|| {
            let own = self.version(key, ids.seq(&id)?)?;
            (!own.is_null() && !self.attributes.ids.contains_key(&own.seq)).then_some(own)
        })
    }

    /// Returns the public description of a version.
    pub(crate) fn version_info(&self, name: &Name<'_>, entry: &ObjectEntry, ids: VersionIds) -> VersionInfo {
        VersionInfo {
            key: name.key.to_owned(),
            version: self.id_of(entry, ids),
            is_latest: name.newest().seq == entry.seq,
            is_marker: entry.is_marker(),
            size: entry.size,
            etag: entry.etag(),
            sealed: entry.sealed(),
            time_ms: entry.time_ms(),
            lock: self.lock_of(entry.seq),
            seq: entry.seq,
            is_evicted: self.is_evicted(entry.seq),
        }
    }

    /// Returns whether a deletion or an eviction of this version, or a change of its lock or tags, is in
    /// flight.
    pub(crate) fn is_claimed(&self, version: u64) -> bool {
        self.attributes.claims.contains(&version)
    }

    /// Returns whether a deletion or an eviction of the `null` version of this name, or a change of its
    /// lock or tags, is in flight.
    pub(crate) fn is_null_claimed(&self, key: &str) -> bool {
        self.null_version(key).is_some_and(|null| self.is_claimed(null.seq))
    }

    /// Returns `false` if the version is claimed already.
    pub(super) fn claim(&mut self, version: u64) -> bool {
        self.attributes.claims.insert(version)
    }

    /// Returns `false` if the version is not claimed.
    pub(super) fn unclaim(&mut self, version: u64) -> bool {
        self.attributes.claims.remove(&version)
    }

    /// Returns whether a version has this imported id, or its import is in flight.
    pub(crate) fn has_imported(&self, id: &[u8; 16]) -> bool {
        self.attributes.by_id.contains_key(id) || self.attributes.importing.contains(id)
    }

    pub(super) fn set_importing(&mut self, id: [u8; 16], is_importing: bool) {
        if is_importing {
            self.attributes.importing.insert(id);
        } else {
            self.attributes.importing.remove(&id);
        }
    }

    /// Iterates over the versions with locks from `first` on, with their plaintext bytes; 0 of those that
    /// are not locked at this time of the lock clock.
    pub(super) fn locked_bytes(&self, first: u64, clock_ms: u64) -> impl Iterator<Item = (u64, u64)> {
        let locks = self.attributes.locks.from(&first);
        locks.map(move |(&version, entry)| (version, if entry.lock.keeps(clock_ms, false) { entry.size } else { 0 }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::index::Index;
    use crate::index::attributes::LockEntry;
    use crate::index::entry::{Bodies, Stamp};
    use crate::version::RetentionMode::Compliance;
    use crate::version::{Lock, Retention};

    fn entry(seq: u64, is_marker: bool) -> ObjectEntry {
        let bodies = if is_marker { Bodies::Marker } else { Bodies::from_vec(Vec::new()) };
        let stamp = Stamp::new(seq, 0, false).of_version(false);
        ObjectEntry { at: Location::LOST, seq, size: seq, stamp, digest: [0; 16], bodies }
    }

    /// In whatever order versions come and go, the newest one is current if it is an object.
    #[test]
    fn current_version_is_the_newest_in_any_order() {
        let mut random = fastrand::Rng::with_seed(5);
        let keys = ["a", "b", "c"];
        let mut bucket = Bucket::new("b".into(), 0, Location::LOST);
        let mut model = BTreeMap::<(&str, u64), bool>::new();
        for _ in 0..20_000 {
            let key = keys[random.usize(..3)];
            let seq = random.u64(1..12);
            let is_marker = random.bool();
            if model.remove(&(key, seq)).is_some() {
                assert_eq!(bucket.remove_version(key, seq).map(|entry| entry.seq), Some(seq));
            } else {
                assert!(bucket.remove_version(key, seq).is_none());
                model.insert((key, seq), is_marker);
                bucket.insert_version(key, entry(seq, is_marker));
            }
            let of = |key| model.range((key, 0)..=(key, u64::MAX));
            for key in keys {
                let newest = of(key).next_back();
                let current = newest.filter(|(_, is_marker)| !**is_marker).map(|((_, seq), _)| *seq);
                assert_eq!(bucket.object(key).map(|entry| entry.seq), current);
                let name = bucket.versions(key);
                assert_eq!(name.is_some(), newest.is_some());
                let Some(name) = name else { continue };
                assert!(name.oldest_first().map(|entry| entry.seq).eq(of(key).map(|((_, seq), _)| *seq)));
                assert_eq!((name.newest().seq, name.is_single()), (newest.unwrap().0.1, of(key).count() == 1));
                let below = model.range((key, 0)..(key, seq)).next_back().map(|((_, seq), _)| *seq);
                assert_eq!(name.below(seq).map(|entry| entry.seq), below);
                let from = model.range((key, seq)..=(key, u64::MAX)).map(|((_, seq), _)| *seq);
                assert!(name.oldest_first_from(seq).map(|entry| entry.seq).eq(from));
                let above = model.range((key, seq + 1)..=(key, u64::MAX)).next().map(|((_, seq), _)| *seq);
                assert_eq!(name.above(seq).map(|entry| entry.seq), above);
            }
            let mut names: Vec<&str> = model.keys().map(|(key, _)| *key).collect();
            names.dedup();
            assert!(bucket.names_from(b"").map(|name| name.key).eq(names));
        }
    }

    #[test]
    fn version_is_found_by_its_own_or_its_imported_id() {
        let mut bucket = Bucket::new("b".into(), 0, Location::LOST);
        let ids = VersionIds::of(&[9; 16]);
        for seq in [3, 5] {
            bucket.insert_version("k", entry(seq, false));
        }
        // Imported again into the store that it was exported from.
        let old = ids.id(3);
        bucket.attributes.set_id(5, old);
        let found = |id| bucket.version_by_id("k", VersionId::Id(id), ids).map(|entry| entry.seq);
        assert_eq!((found(old), found(ids.id(5)), found([1; 16])), (Some(5), None, None));
        assert!(bucket.version_by_id("k", VersionId::Null, ids).is_none());
        assert_eq!(bucket.id_of(&entry(5, false), ids), VersionId::Id(old));
        bucket.attributes.forget(5);
        let found = |id| bucket.version_by_id("k", VersionId::Id(id), ids).map(|entry| entry.seq);
        assert_eq!((found(old), found(ids.id(5))), (Some(3), Some(5)));
    }

    #[test]
    fn locked_bytes_are_added_up_in_batches() {
        let mut index = Index { lock_clock_ms: 1000, ..Index::default() };
        let retained = |until_ms| Lock { retention: Some(Retention { mode: Compliance, until_ms }), hold: false };
        let locks = [Lock { retention: None, hold: true }, retained(1001), retained(1000)];
        for (id, count) in [(1, 7), (2, 0), (5, 3), (6, 6)] {
            let mut bucket = Bucket::new("b".into(), 0, Location::LOST);
            for version in 10..10 + count {
                let lock = locks[version as usize % 3];
                let entry = LockEntry { at: Location::LOST, seq: version, size: 1 << (version - 10), lock };
                bucket.attributes.locks.insert(version, entry);
            }
            index.buckets.insert(id, bucket);
        }
        // The versions 10, 12, 13, 15 and 16; 10 and 12; 10, 12, 13 and 15.
        let expected = 0b110_1101 + 0b101 + 0b10_1101;
        for limit in 1..20 {
            let (mut sum, mut next, mut batches) = (0, Some((0, 0)), 0);
            while let Some(from) = next {
                let (bytes, rest) = index.locked_bytes(from, limit);
                (sum, next, batches) = (sum + bytes, rest, batches + 1);
            }
            assert_eq!((sum, batches), (expected, 16_usize.div_ceil(limit)), "in batches of {limit}");
        }
    }
}
