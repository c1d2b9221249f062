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
//! An object takes an [`ObjectEntry`] and a [`BodyEntry`], whose sizes are asserted, and its key.

mod capture;
mod effect;
mod list;
mod location;
mod recount;
mod reserve;
mod uploads;

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) use capture::{Capture, Loader};
pub(crate) use effect::Effect;
#[cfg(test)]
pub(crate) use effect::Put;
pub(crate) use location::{Live, Location, Share, Shares};
pub use recount::LiveMismatch;
pub(crate) use reserve::Outcome;
use uploads::{Parts, Uploads};

use crate::limits::CHECKPOINTS_KEPT;
use crate::sorted::{Place, SortedMap};
use crate::types::{BodyId, BucketInfo, BucketSettings, BucketUsage, Etag, Part, PartInfo, UploadRef};

/// An object key, ordered by its bytes and searchable by bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(pub(crate) Box<str>);

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl From<&str> for Key {
    fn from(key: &str) -> Self {
        Key(key.into())
    }
}

/// The bodies of an object, usually one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bodies {
    One(BodyId),
    // A thin pointer keeps the common variants small.
    #[allow(clippy::box_collection)]
    Many(Box<Vec<BodyId>>),
}

impl Bodies {
    pub(crate) fn of(parts: &[Part]) -> Self {
        match parts {
            [one] => Bodies::One(one.body),
            _ => Bodies::from_vec(parts.iter().map(|part| part.body).collect()),
        }
    }

    pub(crate) fn from_vec(bodies: Vec<BodyId>) -> Self {
        match bodies[..] {
            [one] => Bodies::One(one),
            _ => Bodies::Many(Box::new(bodies)),
        }
    }

    pub(crate) fn as_slice(&self) -> &[BodyId] {
        match self {
            Bodies::One(one) => std::slice::from_ref(one),
            Bodies::Many(many) => many,
        }
    }
}

/// Storage time, number of ETag parts, and sealed flag of an object, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp(u64);

impl Stamp {
    const TIME_BITS: u32 = 48;
    const PARTS_BITS: u32 = 15;
    const TIME_MAX: u64 = (1 << Self::TIME_BITS) - 1;

    /// Packs the fields. Times after the year 10,000 are clamped to it.
    fn new(time_ms: u64, parts: u16, sealed: bool) -> Self {
        debug_assert!(parts < 1 << Self::PARTS_BITS);
        let flags = u64::from(parts) << 1 | u64::from(sealed);
        Stamp(time_ms.min(Self::TIME_MAX) | flags << Self::TIME_BITS)
    }

    fn time_ms(self) -> u64 {
        self.0 & Self::TIME_MAX
    }

    fn parts(self) -> u16 {
        (self.0 >> (Self::TIME_BITS + 1)) as u16
    }

    fn sealed(self) -> bool {
        self.0 >> Self::TIME_BITS & 1 == 1
    }
}

/// An object.
#[derive(Debug, Clone)]
pub(crate) struct ObjectEntry {
    pub(crate) at: Location,
    pub(crate) seq: u64,
    pub(crate) size: u64,
    stamp: Stamp,
    digest: [u8; 16],
    pub(crate) bodies: Bodies,
}

const _: () = assert!(size_of::<(Key, ObjectEntry)>() == 80 && size_of::<(BodyId, BodyEntry)>() == 40);

impl ObjectEntry {
    pub(crate) fn time_ms(&self) -> u64 {
        self.stamp.time_ms()
    }

    pub(crate) fn etag(&self) -> Etag {
        Etag { digest: self.digest, parts: self.stamp.parts() }
    }

    pub(crate) fn sealed(&self) -> bool {
        self.stamp.sealed()
    }
}

/// A part of an upload.
#[derive(Debug)]
struct PartEntry {
    at: Location,
    seq: u64,
    time_ms: u64,
    part: Part,
}

/// An upload.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) at: Location,
    key: Arc<str>,
    id: [u8; 16],
    time_ms: u64,
    sealed: bool,
    declared: Option<(u8, u8)>,
    parts: Parts,
    /// Whether its completion or abortion is in flight.
    closing: bool,
}

#[derive(Debug)]
pub(crate) struct BodyEntry {
    pub(crate) at: Location,
    /// The segments of its blocks; empty for an inline body.
    pub(crate) shares: Shares,
    refs: u32,
}

/// In-flight writes of a name.
#[derive(Debug, Default)]
struct Pending {
    /// Sequence number and outcome of each write.
    writes: Vec<(u64, Outcome)>,
    /// The highest sequence number applied in the meantime, including deletions.
    applied: u64,
}

/// The settings of a bucket and the location of their record.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Settings {
    at: Location,
    seq: u64,
    settings: BucketSettings,
}

/// A bucket.
#[derive(Debug)]
pub(crate) struct Bucket {
    name: Box<str>,
    time_ms: u64,
    at: Location,
    settings: Option<Settings>,
    /// Number of in-flight changes of its settings.
    settings_pending: u32,
    /// Whether its deletion is in flight.
    deleting: bool,
    objects: SortedMap<Key, ObjectEntry>,
    pending: BTreeMap<Key, Pending>,
    uploads: Uploads,
    /// Plaintext bytes of its objects, and of the parts of its uploads.
    bytes: u64,
    /// Plaintext bytes of in-flight writes.
    reserved: u64,
}

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
    pins: BTreeMap<BodyId, u32>,
    /// Set during replay.
    replaying: Option<Replaying>,
    pub(crate) totals: Totals,
    /// Latest time of any object, part or upload since the log was opened, including deleted ones.
    pub(crate) newest_ms: u64,
    pub(crate) live: Live,
    /// The checkpoints that the superblock points to, newest first.
    pub(crate) checkpoints: Vec<Checkpoint>,
    /// Records of the checkpoint being written.
    pub(crate) building: Vec<Location>,
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
    pub(crate) objects: u64,
    pub(crate) uploads: u64,
    /// Bytes of object keys.
    pub(crate) keys: u64,
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

    /// Iterates over all objects: bucket, key, entry.
    pub(crate) fn objects(&self) -> impl Iterator<Item = (&str, &str, &ObjectEntry)> {
        let buckets = self.buckets.values();
        buckets.flat_map(|bucket| bucket.objects.iter().map(|(key, entry)| (&*bucket.name, &*key.0, entry)))
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

    /// Iterates over all parts of uploads: bucket, key, record, part.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (&str, &str, Location, PartInfo)> {
        self.buckets.iter().flat_map(|(&id, bucket)| {
            bucket.uploads.iter().flat_map(move |(seq, upload)| {
                let places = upload.parts.iter().map(|entry| entry.at);
                places.zip(upload.parts((id, seq), 0)).map(|(at, part)| (&*bucket.name, upload.key(), at, part))
            })
        })
    }

    /// Returns the memory used by the index in bytes, including keys.
    pub(crate) fn allocated(&self) -> u64 {
        let objects: usize = self.buckets.values().map(|bucket| bucket.objects.allocated()).sum();
        let tables = objects + self.bodies.allocated() + self.live.allocated();
        let checkpoints = self.checkpoints.iter().map(|checkpoint| checkpoint.records.capacity() * 8).sum::<usize>();
        let uploads: usize = self.buckets.values().map(|bucket| bucket.uploads.allocated()).sum();
        let settings = self.buckets.values().filter_map(|bucket| bucket.settings.as_ref()).map(|set| &set.settings);
        let settings: usize = settings.map(|settings| settings.policy.len() + settings.lifecycle.len()).sum();
        self.totals.keys + self.totals.shares + (tables + checkpoints + uploads + settings) as u64
    }

    /// Pins bodies until they are unpinned as often.
    pub(crate) fn pin(&mut self, bodies: &[BodyId]) {
        for &id in bodies {
            *self.pins.entry(id).or_insert(0) += 1;
        }
    }

    pub(crate) fn unpin(&mut self, bodies: &[BodyId]) {
        for &id in bodies {
            let Some(pins) = self.pins.get_mut(&id) else { unreachable!("a pinned body has a pin count") };
            *pins -= 1;
            if *pins == 0 {
                self.pins.remove(&id);
                self.collect(id);
            }
        }
    }

    #[cfg(feature = "shuttle")]
    pub(crate) fn pin_count(&self) -> u64 {
        self.pins.values().copied().map(u64::from).sum()
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
        if self.bodies.at(place).refs > 0 || is_kept || self.pins.contains_key(&id) {
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

impl Bucket {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn info(&self) -> BucketInfo {
        BucketInfo { name: self.name.to_string(), time_ms: self.time_ms }
    }

    fn usage(&self) -> BucketUsage {
        BucketUsage {
            name: self.name.to_string(),
            objects: self.objects.len() as u64,
            uploads: self.uploads.len() as u64,
            bytes: self.bytes,
            quota: self.settings.as_ref().and_then(|settings| settings.settings.quota),
        }
    }

    pub(crate) fn settings(&self) -> BucketSettings {
        self.settings.as_ref().map(|settings| settings.settings.clone()).unwrap_or_default()
    }

    pub(crate) fn lifecycle(&self) -> Option<Arc<[u8]>> {
        self.settings.as_ref().map(|settings| settings.settings.lifecycle.clone()).filter(|bytes| !bytes.is_empty())
    }

    /// Returns the sequence number of the settings; 0 if they were never set.
    pub(crate) fn settings_seq(&self) -> u64 {
        self.settings.as_ref().map_or(0, |settings| settings.seq)
    }

    pub(crate) fn object(&self, key: &str) -> Option<&ObjectEntry> {
        self.objects.get(key.as_bytes())
    }

    /// Iterates over the objects from a key on, in order.
    pub(crate) fn objects_from(&self, key: &str) -> impl Iterator<Item = (&str, &ObjectEntry)> {
        self.objects.from(key.as_bytes()).map(|(key, entry)| (&*key.0, entry))
    }

    /// Iterates over the uploads from a sequence number on, in order.
    pub(crate) fn uploads_from(&self, seq: u64) -> impl Iterator<Item = (u64, &Upload)> {
        self.uploads.from(seq)
    }

    /// Iterates over the open uploads from this one on, each with the number of its newest part,
    /// which gives its age, and its bytes.
    pub(crate) fn abandoned_from(&self, seq: u64) -> impl Iterator<Item = (u64, &Upload, u64, u64)> {
        self.uploads_from(seq).filter(|(_, upload)| !upload.closing).map(|(seq, upload)| {
            let newest = upload.parts.iter().map(|part| part.seq).max().unwrap_or(seq);
            let parts = upload.parts.iter().map(|part| u64::from(part.at.len()) + part.part.size);
            (seq, upload, newest, u64::from(upload.at.len()) + parts.sum::<u64>())
        })
    }

    pub(crate) fn last_key(&self) -> Option<&str> {
        self.objects.last_key().map(|key| &*key.0)
    }

    /// Returns the plaintext bytes of its objects and of the parts of its uploads.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the upload of this identity, if it has this key.
    pub(crate) fn upload_by_id(&self, key: &str, id: &[u8; 16]) -> Option<(u64, &Upload)> {
        let seq = self.uploads.seq_of_id(id)?;
        let upload = self.uploads.get(seq)?;
        (*upload.key == *key).then_some((seq, upload))
    }

    pub(crate) fn upload(&self, seq: u64) -> Option<&Upload> {
        self.uploads.get(seq)
    }

    pub(crate) fn upload_ref(&self, seq: u64, upload: &Upload) -> UploadRef {
        UploadRef {
            bucket: self.name.to_string(),
            key: upload.key.to_string(),
            id: upload.id,
            sealed: upload.sealed,
            time_ms: upload.time_ms,
            declared: upload.declared,
            seq,
        }
    }
}

impl Upload {
    /// Iterates over the parts after number `after`, in order. `of` holds the identities of the
    /// bucket and of this upload.
    pub(crate) fn parts(&self, of: (u64, u64), after: u16) -> impl Iterator<Item = PartInfo> {
        let parts = after.checked_add(1).map(|next| self.parts.from(next));
        parts.into_iter().flatten().map(move |entry| PartInfo {
            number: entry.part.number,
            size: entry.part.size,
            etag: entry.part.etag,
            time_ms: entry.time_ms,
            part: entry.part.clone(),
            of,
            seq: entry.seq,
        })
    }

    /// Returns the current location of part `number`, if it still has this sequence number.
    pub(crate) fn part_at(&self, number: u16, seq: u64) -> Option<Location> {
        self.parts.get(number).filter(|entry| entry.seq == seq).map(|entry| entry.at)
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn time_ms(&self) -> u64 {
        self.time_ms
    }

    pub(crate) fn id(&self) -> [u8; 16] {
        self.id
    }

    /// Returns the plaintext bytes of the part with this number.
    pub(crate) fn part_size(&self, number: u16) -> Option<u64> {
        self.parts.get(number).map(|entry| entry.part.size)
    }

    /// Returns whether this is the current attempt at its number.
    fn has(&self, part: &Part) -> bool {
        self.parts.get(part.number).is_some_and(|entry| entry.part == *part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[test]
    fn stamp_of_extreme_values_round_trips() {
        for (time, parts, sealed) in [(0, 0, false), (1_700_000_000_000, 10_000, true), ((1 << 48) - 1, 1, false)] {
            let stamp = Stamp::new(time, parts, sealed);
            assert_eq!((stamp.time_ms(), stamp.parts(), stamp.sealed()), (time, parts, sealed));
        }
        assert_eq!(Stamp::new(u64::MAX, 0, true).time_ms(), (1 << 48) - 1);
    }
}
