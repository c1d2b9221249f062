//! Application of the records of versions: objects and markers with others of their name, their
//! deletion, locks and tags.

use super::Index;
use super::attributes::{LockEntry, TagsEntry};
use super::bucket::Bucket;
use super::effect::{PutMarker, VersionOf};
use super::entry::{Bodies, Key, ObjectEntry, Stamp};
use super::location::Location;
use super::quota_charge;
use super::removals::Removal;
use crate::error::Error;
use crate::sabotage::{self, Sabotage};
use crate::version::Lock;

impl Index {
    /// Adds a version, or its record again. A `null` version replaces the older one of its name.
    pub(super) fn put_version(
        &mut self,
        bucket: u64,
        key: &Key,
        entry: ObjectEntry,
        imported: Option<[u8; 16]>,
        lock: Lock,
    ) {
        let Some(home) = self.buckets.get_mut(&bucket) else { return };
        let seq = entry.seq;
        if entry.is_null() {
            let is_old = home.null_version(&key.0).is_some_and(|newer| newer.seq > seq);
            if is_old || !home.take_null(seq, key) {
                return;
            }
        }
        let size = entry.size;
        self.add_version(bucket, &key.0, entry);
        let Some(home) = self.buckets.get_mut(&bucket) else { return };
        if let Some(id) = imported {
            home.attributes.set_id(seq, id);
        }
        // A lock that was set since has a higher number.
        if !lock.is_none() && home.attributes.locks.get(&seq).is_none_or(|newer| newer.seq <= seq) {
            let lock = self.recovered_lock(lock);
            self.set_lock(bucket, seq, LockEntry { at: Location::LOST, seq, size, lock });
        }
    }

    pub(super) fn put_marker(&mut self, seq: u64, at: Location, marker: &PutMarker) -> Result<(), Error> {
        if !self.buckets.contains_key(&marker.bucket) {
            return Err(Error::NoSuchBucket);
        }
        let stamp = Stamp::new(marker.time_ms, 0, false).of_version(marker.id.is_null());
        let entry = ObjectEntry { at, seq, size: 0, stamp, digest: [0; 16], bodies: Bodies::Marker };
        self.put_version(marker.bucket, &marker.key, entry, marker.id.imported(), Lock::default());
        Ok(())
    }

    /// Adds a version to a name, in place of the same one, and of an older `null` version if it is one.
    pub(super) fn add_version(&mut self, bucket: u64, key: &str, entry: ObjectEntry) {
        let Some(home) = self.buckets.get(&bucket) else { return };
        let seq = entry.seq;
        let null = if entry.is_null() { home.null_version(key) } else { None };
        let is_overwrite = !entry.is_marker() && null.is_some_and(|null| !null.is_marker());
        let null = null.map(|null| null.seq);
        // New references first: both may have the same body.
        self.add_refs(entry.bodies.as_slice());
        self.take_version(bucket, key, seq, Removal::Reapplied);
        if let Some(null) = null.filter(|&null| null != seq) {
            self.take_version(bucket, key, null, if is_overwrite { Removal::Overwritten } else { Removal::Deleted });
        }
        self.add_new_version(bucket, key, entry);
    }

    /// Adds a version that the name does not have. Its bodies are referred to already.
    fn add_new_version(&mut self, bucket: u64, key: &str, entry: ObjectEntry) {
        let Some(home) = self.buckets.get_mut(&bucket) else { return };
        self.live.add(entry.at);
        self.newest_ms = self.newest_ms.max(entry.time_ms());
        home.bytes = home.bytes.wrapping_add(entry.size);
        home.charged = home.charged.wrapping_add(quota_charge(entry.size, entry.at));
        let before = home.counts();
        home.insert_version(key, entry);
        let after = home.counts();
        self.count(before, after);
    }

    /// Adds a version from a checkpoint. The versions of a name come in order.
    pub(super) fn add_loaded(&mut self, bucket: u64, key: &str, entry: ObjectEntry) {
        let Some(home) = self.buckets.get_mut(&bucket) else { return };
        let place = home.objects.find(key.as_bytes());
        match place {
            Err(place) if home.history.is_empty() && !entry.is_marker() => {
                home.bytes = home.bytes.wrapping_add(entry.size);
                home.charged = home.charged.wrapping_add(quota_charge(entry.size, entry.at));
                self.newest_ms = self.newest_ms.max(entry.time_ms());
                self.live.add(entry.at);
                self.totals.objects += 1;
                let bodies = entry.bodies.clone();
                home.objects.insert_at(place, key, entry);
                self.add_refs(bodies.as_slice());
            }
            // Newer than all versions of its name, so none is replaced. A `null` version may have replaced
            // another one while the checkpoint was being written, and both are in it.
            Ok(place) if home.objects.at(place).seq < entry.seq && !entry.is_null() => {
                self.add_refs(entry.bodies.as_slice());
                self.add_new_version(bucket, key, entry);
            }
            _ => self.add_version(bucket, key, entry),
        }
    }

    /// Removes a version, if it exists. The attributes of one whose record is reapplied stay.
    pub(super) fn take_version(&mut self, bucket: u64, key: &str, seq: u64, removal: Removal) {
        let is_again = removal == Removal::Reapplied;
        let Some(home) = self.buckets.get_mut(&bucket) else { return };
        let before = home.counts();
        let Some(old) = home.remove_version(key, seq) else { return };
        let after = home.counts();
        self.count(before, after);
        if sabotage::is(Sabotage::FreeNoncurrent) && !is_again && !old.is_marker() {
            self.free_next(bucket, key);
        }
        if removal == Removal::Deleted {
            self.note_removal(bucket, key, &old);
        }
        self.forget_version(bucket, &old, is_again);
    }

    /// Ends the references of a removed version. `is_again`: what belongs to it stays.
    pub(super) fn forget_version(&mut self, bucket: u64, old: &ObjectEntry, is_again: bool) {
        if let Some(home) = self.buckets.get_mut(&bucket) {
            home.bytes = home.bytes.wrapping_sub(old.size);
            home.charged = home.charged.wrapping_sub(quota_charge(old.size, old.at));
            if !is_again && !home.attributes.is_empty() {
                let forgotten = home.attributes.forget(old.seq);
                forgotten.records.into_iter().flatten().for_each(|at| self.live.sub(at));
                self.totals.own_holds -= u64::from(forgotten.has_own_hold);
                if forgotten.was_evicted {
                    self.totals.evicted -= 1;
                    self.totals.evicted_bytes -= old.size;
                }
            }
        }
        self.live.sub(old.at);
        self.drop_refs(old.bodies.as_slice());
    }

    /// Deletes the `null` version of a name.
    pub(super) fn delete_null(&mut self, seq: u64, bucket: u64, key: &Key) {
        let Some(home) = self.buckets.get_mut(&bucket) else { return };
        let place = home.objects.find(key.0.as_bytes());
        let current = place.ok().map(|place| home.objects.at(place));
        if home.is_plain(current) {
            if current.is_none_or(|current| current.seq <= seq) && home.take_null(seq, key) {
                let Ok(place) = place else { return };
                let old = home.objects.remove_at(place);
                self.totals.objects -= 1;
                self.note_removal(bucket, &key.0, &old);
                self.forget_version(bucket, &old, false);
            }
            return;
        }
        let null = home.null_version(&key.0).map(|null| null.seq);
        if null.is_none_or(|null| null <= seq)
            && home.take_null(seq, key)
            && let Some(null) = null
        {
            self.take_version(bucket, &key.0, null, Removal::Deleted);
        }
    }

    pub(super) fn lock_version(&mut self, seq: u64, at: Location, of: &VersionOf, lock: Lock) {
        let Some(home) = self.buckets.get(&of.bucket) else { return };
        let Some(size) = home.version(&of.key.0, of.version).map(|entry| entry.size) else { return };
        let lock = self.recovered_lock(lock);
        self.set_lock(of.bucket, of.version, LockEntry { at, seq, size, lock });
    }

    /// Sets the lock of a version, unless a newer record did.
    pub(super) fn set_lock(&mut self, bucket: u64, version: u64, entry: LockEntry) {
        let Some(home) = self.buckets.get_mut(&bucket) else { return };
        if home.attributes.locks.get(&version).is_some_and(|newer| newer.seq > entry.seq) {
            return;
        }
        self.live.add(entry.at);
        self.totals.own_holds += u64::from(entry.has_own_hold());
        if let Some(old) = home.attributes.locks.insert(version, entry) {
            self.live.sub(old.at);
            self.totals.own_holds -= u64::from(old.has_own_hold());
        }
    }

    pub(super) fn tag_version(&mut self, seq: u64, at: Location, of: &VersionOf) {
        if self.buckets.get(&of.bucket).is_some_and(|home| home.version(&of.key.0, of.version).is_some()) {
            self.set_tags(of.bucket, of.version, TagsEntry { at, seq });
        }
    }

    /// Sets the tags record of a version, unless there is a newer one.
    pub(super) fn set_tags(&mut self, bucket: u64, version: u64, entry: TagsEntry) {
        let Some(home) = self.buckets.get_mut(&bucket) else { return };
        if home.attributes.tags.get(&version).is_some_and(|newer| newer.seq > entry.seq) {
            return;
        }
        self.live.add(entry.at);
        if let Some(old) = home.attributes.tags.insert(version, entry) {
            self.live.sub(old.at);
        }
    }

    /// Returns a lock as it is. With the sabotage, a hold that is replayed is forgotten.
    pub(super) fn recovered_lock(&self, lock: Lock) -> Lock {
        let forgets = self.replaying.is_some() && sabotage::is(Sabotage::ForgetHolds);
        Lock { hold: lock.hold && !forgets, ..lock }
    }

    /// Updates the totals by the change of a bucket.
    fn count(&mut self, before: Counts, after: Counts) {
        let totals = &mut self.totals;
        for (total, before, after) in [
            (&mut totals.objects, before.objects, after.objects),
            (&mut totals.noncurrent, before.noncurrent, after.noncurrent),
            (&mut totals.markers, before.markers, after.markers),
        ] {
            *total = *total + after - before;
        }
    }

    /// Frees the bodies of a name's newest version, as a sabotage.
    fn free_next(&mut self, bucket: u64, key: &str) {
        let newest =
            self.buckets.get(&bucket).and_then(|home| home.versions(key)).map(|name| name.newest().bodies.clone());
        for &id in newest.iter().flat_map(Bodies::as_slice) {
            if let Some(body) = self.bodies.get_mut(&id) {
                body.refs = 1;
            }
            self.drop_refs(&[id]);
            self.add_refs(&[id]);
        }
    }
}

/// Numbers of versions in a bucket.
#[derive(Debug, Clone, Copy)]
struct Counts {
    objects: u64,
    noncurrent: u64,
    markers: u64,
}

impl Bucket {
    fn counts(&self) -> Counts {
        Counts { objects: self.objects.len() as u64, noncurrent: self.history.objects, markers: self.history.markers }
    }

    /// Returns the location of the record of this number, if it is the record of the version's lock.
    pub(super) fn lock_record(&self, version: u64, seq: u64) -> Option<Location> {
        self.attributes.locks.get(&version).filter(|entry| entry.seq == seq).map(|entry| entry.at)
    }

    pub(super) fn lock_place(&mut self, version: u64, seq: u64) -> Option<&mut Location> {
        self.attributes.locks.get_mut(&version).filter(|entry| entry.seq == seq).map(|entry| &mut entry.at)
    }

    /// Returns the location of the record of this number, if it is the record of the version's tags.
    pub(super) fn tags_record(&self, version: u64, seq: u64) -> Option<Location> {
        self.attributes.tags.get(&version).filter(|entry| entry.seq == seq).map(|entry| entry.at)
    }

    /// Returns the location of the record of this number, if it is the record of the version's eviction.
    pub(super) fn eviction_record(&self, version: u64, seq: u64) -> Option<Location> {
        self.attributes.evictions.get(&version).filter(|entry| entry.seq == seq).map(|entry| entry.at)
    }

    pub(super) fn eviction_place(&mut self, version: u64, seq: u64) -> Option<&mut Location> {
        self.attributes.evictions.get_mut(&version).filter(|entry| entry.seq == seq).map(|entry| &mut entry.at)
    }

    pub(super) fn tags_place(&mut self, version: u64, seq: u64) -> Option<&mut Location> {
        self.attributes.tags.get_mut(&version).filter(|entry| entry.seq == seq).map(|entry| &mut entry.at)
    }
}
