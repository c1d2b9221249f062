//! The in-memory index of buckets, objects, uploads and bodies.
//!
//! It shows only durable items (written ones under deferred syncing). In-flight writes are
//! *reservations*: they hold their sequence number and, for objects, their name. Sequence numbers
//! decide rather than the order of arrival: of two writes of a name the higher number wins,
//! whichever becomes durable first. [`Bucket::pending`] remembers a deletion as long as an older
//! write of the name is in flight.
//!
//! Bodies are reference-counted. A body is dropped when it has neither references nor pins.
//!
//! An object takes an [`ObjectEntry`] and a [`BodyEntry`], whose sizes are asserted, and its name in
//! a [`KeyMap`](crate::key_map::KeyMap).

mod admit;
mod apply;
mod apply_version;
mod attributes;
mod bucket;
mod capture;
mod effect;
mod entry;
mod evict;
mod history;
mod list;
mod location;
mod recount;
mod removals;
mod reserve;
mod room;
mod uploads;
mod versions;

use std::collections::{BTreeMap, BTreeSet};

pub(crate) use bucket::{Bucket, Outcome};
pub(crate) use capture::{Capture, Loader};
pub(crate) use effect::{Effect, PutMarker};
#[cfg(test)]
pub(crate) use effect::{Put, VersionOf};
#[cfg(test)]
pub(crate) use entry::Key;
pub(crate) use entry::{Bodies, BodyEntry, ObjectEntry, ObjectFacts, Properties};
pub(crate) use location::{Live, Location, Shares};
pub use recount::LiveMismatch;
pub use removals::{Removals, Removed};
pub use room::IndexLimits;
pub(crate) use room::quota_charge;
pub(crate) use uploads::Upload;
pub(crate) use versions::Name;

use crate::limits::CHECKPOINTS_KEPT;
use crate::sorted::{Place, SortedMap};
use crate::types::{BodyId, BucketInfo, BucketUsage, PartInfo, UploadIdentity};

/// A checkpoint that recovery can start from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Its number since the log was opened, from 1; 0 if it is older.
    pub(crate) begun: u64,
    /// Its records. The superblock points to the last one.
    pub(crate) records: Vec<Location>,
}

/// The index: buckets, objects, uploads and bodies.
#[derive(Debug, Default)]
pub(crate) struct Index {
    buckets: BTreeMap<u64, Bucket>,
    names: BTreeMap<Box<str>, u64>,
    /// Names of buckets whose creation is in flight.
    creating: BTreeSet<Box<str>>,
    bodies: SortedMap<BodyId, BodyEntry>,
    pins: BTreeMap<BodyId, Pins>,
    /// Set during replay.
    replaying: Option<Replaying>,
    pub(crate) totals: Totals,
    /// Latest time of any object, part or upload since the log was opened, including deleted ones.
    pub(crate) newest_ms: u64,
    pub(crate) live: Live,
    /// The time that retention is compared with, in ms since 1970. It never goes back.
    pub(crate) lock_clock_ms: u64,
    /// The highest lock clock in a record or a checkpoint: the one that checkpoints have, so that it does not
    /// depend on the checkpoint that an opening starts from.
    pub(crate) saved_lock_clock_ms: u64,
    /// The checkpoints that the superblock points to, newest first.
    pub(crate) checkpoints: Vec<Checkpoint>,
    /// Records of the checkpoint being written.
    pub(crate) building: Vec<Location>,
    claims: reserve::Claims,
    /// Set while removals are tracked.
    removals: Option<Box<removals::RemovalLog>>,
    limits: IndexLimits,
    measured: room::Measured,
}

/// The pins of a body.
#[derive(Debug, Default)]
struct Pins {
    count: u32,
    /// Whether the body lost its last reference, or had none, while it was pinned. Otherwise it need
    /// not be looked up when the last pin goes.
    is_unused: bool,
}

/// Retention of unreferenced bodies during replay, since a later record may refer to them.
#[derive(Debug)]
enum Replaying {
    /// Every body is kept.
    KeepAll,
    /// Sorted bodies that records refer to without directly following them. Others are dropped with
    /// their last reference, so that data overwritten since the checkpoint takes no memory.
    Keep(Vec<u64>),
}

impl Replaying {
    fn keeps(&self, id: BodyId) -> bool {
        match self {
            Replaying::KeepAll => true,
            Replaying::Keep(bodies) => bodies.binary_search(&id.0).is_ok(),
        }
    }
}

/// Totals kept up to date.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Current objects.
    pub(crate) objects: u64,
    /// Noncurrent versions that are objects.
    pub(crate) noncurrent: u64,
    pub(crate) markers: u64,
    /// Versions with a legal hold in their own record.
    pub(crate) own_holds: u64,
    /// Evicted versions, and their plaintext bytes.
    pub(crate) evicted: u64,
    pub(crate) evicted_bytes: u64,
    pub(crate) uploads: u64,
    /// Bytes allocated outside the entries of bodies.
    pub(crate) shares: u64,
}

impl Index {
    /// Creates an index for replaying records in the order of their sequence numbers.
    /// [`replayed`](Self::replayed) ends the replay.
    pub(crate) fn replay(segment_len: u64) -> Self {
        Index { replaying: Some(Replaying::KeepAll), live: Live::new(segment_len), ..Index::default() }
    }

    /// Drops unreferenced bodies during replay, except these.
    pub(crate) fn forget_unused_but(&mut self, mut bodies: Vec<u64>) {
        bodies.sort_unstable();
        bodies.dedup();
        self.replaying = Some(Replaying::Keep(bodies));
    }

    pub(crate) fn replayed(&mut self) {
        self.replaying = None;
        let unused: Vec<BodyId> = self.bodies.iter().filter(|(_, body)| body.refs == 0).map(|(&id, _)| id).collect();
        for id in unused {
            self.collect(id);
        }
        // Floors from the checkpoint: the in-flight writes have all been
        // replayed, or never will be.
        for bucket in self.buckets.values_mut() {
            bucket.pending.clear();
            // Of versions that were deleted, or whose records are lost.
            for stray in bucket.forget_strays() {
                stray.records.into_iter().flatten().for_each(|at| self.live.sub(at));
                self.totals.own_holds -= u64::from(stray.has_own_hold);
            }
        }
    }

    pub(crate) fn bucket_count(&self) -> u64 {
        self.buckets.len() as u64
    }

    pub(crate) fn body_count(&self) -> u64 {
        self.bodies.len() as u64
    }

    /// Returns the bucket of this name and its identity.
    pub(crate) fn bucket(&self, name: &str) -> Option<(u64, &Bucket)> {
        let &id = self.names.get(name)?;
        Some((id, self.buckets.get(&id)?))
    }

    pub(crate) fn bucket_by_id(&self, id: u64) -> Option<&Bucket> {
        self.buckets.get(&id)
    }

    /// Returns the first bucket with an identity at or above `id`.
    pub(crate) fn next_bucket(&self, id: u64) -> Option<(u64, &Bucket)> {
        self.buckets.range(id..).next().map(|(&id, bucket)| (id, bucket))
    }

    /// Iterates over the buckets by name.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = BucketInfo> {
        self.names.values().filter_map(|id| self.buckets.get(id)).map(Bucket::info)
    }

    /// Iterates over the usage of each bucket by name.
    pub(crate) fn bucket_usage(&self) -> impl Iterator<Item = BucketUsage> {
        self.names.values().filter_map(|id| self.buckets.get(id)).map(Bucket::usage)
    }

    /// Returns the location of a body's record.
    pub(crate) fn body(&self, id: BodyId) -> Option<Location> {
        self.bodies.get(&id).map(|body| body.at)
    }

    pub(crate) fn body_entry(&self, id: BodyId) -> Option<&BodyEntry> {
        self.bodies.get(&id)
    }

    /// Iterates over the bodies from `id` on.
    pub(crate) fn bodies_from(&self, id: BodyId) -> impl Iterator<Item = (BodyId, &BodyEntry)> {
        self.bodies.from(&id).map(|(&id, body)| (id, body))
    }

    /// Returns whether a body is referenced but has no record.
    pub(crate) fn is_lost(&self, id: BodyId) -> bool {
        self.body(id) == Some(Location::LOST)
    }

    /// Returns whether the record of any object, or of any referenced body, is lost.
    pub(crate) fn has_lost(&self) -> bool {
        let lost = |at| at == Location::LOST;
        self.bodies.iter().any(|(_, body)| lost(body.at)) || self.objects().any(|(.., entry)| lost(entry.at))
    }

    /// Iterates over all versions, delete markers included: bucket, key, entry.
    pub(crate) fn versions(&self) -> impl Iterator<Item = (&str, &str, &ObjectEntry)> {
        self.buckets.values().flat_map(|bucket| {
            let names = bucket.names_from(b"");
            names.flat_map(move |name| name.oldest_first().map(move |entry| (&*bucket.name, name.key, entry)))
        })
    }

    /// Iterates over all versions that are objects: bucket, key, entry.
    pub(crate) fn objects(&self) -> impl Iterator<Item = (&str, &str, &ObjectEntry)> {
        self.versions().filter(|(.., entry)| !entry.is_marker())
    }

    /// Iterates over the records of locks and tags of versions: bucket, sequence number, location.
    pub(crate) fn attribute_records(&self) -> impl Iterator<Item = (&str, u64, Location)> {
        self.buckets
            .values()
            .flat_map(|bucket| bucket.attribute_records().map(move |(seq, at)| (&*bucket.name, seq, at)))
    }

    /// Iterates over all buckets: sequence number, name and record, and number
    /// and record of the settings.
    pub(crate) fn bucket_records(&self) -> impl Iterator<Item = (u64, &str, Location, Option<(u64, Location)>)> {
        self.buckets.iter().map(|(&seq, bucket)| {
            let settings = bucket.settings.as_ref().map(|settings| (settings.seq, settings.at));
            (seq, &*bucket.name, bucket.at, settings)
        })
    }

    /// Iterates over all uploads: bucket, sequence number, upload.
    pub(crate) fn uploads(&self) -> impl Iterator<Item = (&str, u64, &Upload)> {
        let buckets = self.buckets.values();
        buckets.flat_map(|bucket| bucket.uploads.iter().map(|(seq, upload)| (&*bucket.name, seq, upload)))
    }

    /// Iterates over all kept attempts at parts of uploads: bucket, key, record, part.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (&str, &str, Location, PartInfo)> {
        self.buckets.iter().flat_map(|(&id, bucket)| {
            bucket.uploads.iter().flat_map(move |(seq, upload)| {
                let attempts = upload.attempts(UploadIdentity { bucket: id, upload: seq });
                attempts.map(|(at, part)| (&*bucket.name, upload.key(), at, part))
            })
        })
    }

    /// Returns the plaintext bytes of noncurrent versions.
    pub(crate) fn noncurrent_bytes(&self) -> u64 {
        self.buckets.values().map(|bucket| bucket.history.bytes).sum()
    }

    /// Takes over a saved lock clock.
    pub(super) fn saved_lock_clock(&mut self, time_ms: u64) {
        self.saved_lock_clock_ms = self.saved_lock_clock_ms.max(time_ms);
        self.lock_clock_ms = self.lock_clock_ms.max(time_ms);
    }

    /// Adds up the plaintext bytes of the versions that are locked now, for at most `limit` locks from this
    /// bucket and version on. Returns the sum, and the bucket and version to continue with.
    pub(crate) fn locked_bytes(&self, from: (u64, u64), limit: usize) -> (u64, Option<(u64, u64)>) {
        let mut locks = self.buckets.range(from.0..).flat_map(|(&id, bucket)| {
            let first = if id == from.0 { from.1 } else { 0 };
            bucket.locked_bytes(first, self.lock_clock_ms).map(move |(version, bytes)| ((id, version), bytes))
        });
        let sum = locks.by_ref().take(limit).map(|(_, bytes)| bytes).sum();
        (sum, locks.next().map(|(at, _)| at))
    }

    /// Returns the memory used by the index in bytes, including keys.
    pub(crate) fn allocated(&self) -> u64 {
        let of = |home: &Bucket| home.objects.allocated() + home.history.allocated() + home.attributes.allocated();
        let objects: usize = self.buckets.values().map(of).sum();
        let tables = objects + self.bodies.allocated() + self.live.allocated();
        let checkpoints = self.checkpoints.iter().map(|checkpoint| checkpoint.records.capacity() * 8).sum::<usize>();
        let uploads: usize = self.buckets.values().map(|bucket| bucket.uploads.allocated()).sum();
        let settings: usize = self.buckets.values().map(Bucket::opaque_len).sum();
        self.totals.shares + (tables + checkpoints + uploads + settings) as u64
    }

    /// Pins bodies until they are unpinned as often. They are referenced, or pinned already.
    pub(crate) fn pin(&mut self, bodies: &[BodyId]) {
        for &id in bodies {
            self.pins.entry(id).or_default().count += 1;
        }
    }

    pub(crate) fn unpin(&mut self, bodies: &[BodyId]) {
        for &id in bodies {
            let Some(pins) = self.pins.get_mut(&id) else { unreachable!("a pinned body has a pin count") };
            pins.count -= 1;
            if pins.count == 0 {
                let is_unused = pins.is_unused;
                self.pins.remove(&id);
                if is_unused {
                    self.collect(id);
                }
            }
        }
    }

    #[cfg(feature = "shuttle")]
    pub(crate) fn pin_count(&self) -> u64 {
        self.pins.values().map(|pins| u64::from(pins.count)).sum()
    }

    fn add_refs(&mut self, bodies: &[BodyId]) {
        for id in bodies {
            match self.bodies.get_mut(id) {
                Some(body) => body.refs += 1,
                None => {
                    let lost = BodyEntry { at: Location::LOST, shares: Shares::None, refs: 1 };
                    self.bodies.insert(*id, lost);
                }
            }
        }
    }

    fn drop_refs(&mut self, bodies: &[BodyId]) {
        for &id in bodies {
            let Ok(place) = self.bodies.find(&id) else { unreachable!("a referenced body is in the index") };
            self.bodies.at_mut(place).refs -= 1;
            self.collect_at(id, place);
        }
    }

    /// Drops a body without references and pins.
    pub(crate) fn collect(&mut self, id: BodyId) {
        if let Ok(place) = self.bodies.find(&id) {
            self.collect_at(id, place);
        }
    }

    fn collect_at(&mut self, id: BodyId, place: Place) {
        let is_kept = self.replaying.as_ref().is_some_and(|replaying| replaying.keeps(id));
        if self.bodies.at(place).refs > 0 || is_kept {
            return;
        }
        if let Some(pins) = self.pins.get_mut(&id) {
            pins.is_unused = true;
            return;
        }
        let body = self.bodies.remove_at(place);
        self.totals.shares -= body.shares.allocated() as u64;
        self.live.sub(body.at);
        self.live.sub_shares(&body.shares);
    }

    /// Makes the checkpoint being written the newest. One of the older ones is kept.
    pub(crate) fn checkpoint_done(&mut self, begun: u64) {
        let records = std::mem::take(&mut self.building);
        self.checkpoints.insert(0, Checkpoint { begun, records });
        for old in self.checkpoints.split_off(CHECKPOINTS_KEPT.min(self.checkpoints.len())) {
            self.forget_checkpoint(&old);
        }
    }

    /// Abandons the checkpoint being written.
    pub(crate) fn checkpoint_failed(&mut self) {
        let records = std::mem::take(&mut self.building);
        self.forget_checkpoint(&Checkpoint { begun: 0, records });
    }

    /// Adds a checkpoint that the superblock points to, during recovery.
    pub(crate) fn keep_checkpoint(&mut self, records: Vec<Location>) {
        records.iter().for_each(|&at| self.live.add(at));
        self.checkpoints.push(Checkpoint { begun: 0, records });
    }

    fn forget_checkpoint(&mut self, old: &Checkpoint) {
        for &at in &old.records {
            self.live.sub(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::location::Share;
    use crate::limits::SEGMENTS_START;

    #[test]
    fn heap_bytes_of_shares_are_counted_in_totals() {
        let mut index = Index { live: Live::new(1 << 20), ..Index::default() };
        let share = |segment| Share { segment, pages: 1 };
        let recount = |index: &Index| index.bodies.iter().map(|(_, body)| body.shares.allocated() as u64).sum::<u64>();
        let shares = [vec![], vec![share(1)], vec![share(1), share(2)], vec![share(1), share(2), share(3)]];
        for (id, shares) in (0..4).zip(&shares) {
            index.add_body(BodyId(id), Location::new(SEGMENTS_START, 64), Shares::from_vec(shares.clone()));
        }
        assert!(index.totals.shares > 0);
        assert_eq!(index.totals.shares, recount(&index));
        // Moved records.
        for (id, shares) in (0..4).zip(shares.iter().rev()) {
            index.add_body(BodyId(id), Location::new(SEGMENTS_START + 4096, 64), Shares::from_vec(shares.clone()));
            assert_eq!(index.totals.shares, recount(&index));
        }
        for id in 0..4 {
            index.collect(BodyId(id));
            assert_eq!(index.totals.shares, recount(&index));
        }
        assert_eq!((index.totals.shares, index.body_count()), (0, 0));
    }
}
