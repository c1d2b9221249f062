//! The index: what is where, in memory.
//!
//! It shows only what is durable (written, when syncing is deferred). Writes on their way are *reservations*: they hold their
//! sequence number and, for objects, their name. Sequence numbers decide, not the order of arrival: of two writes of a name
//! the higher number wins, whichever becomes durable first, and [`Bucket::pending`] remembers a deletion for as long as an
//! older write of the name may still arrive.
//!
//! Bodies are counted by who refers to them. A body goes when nobody refers to it and nobody holds a pin on it.

mod effect;
mod list;
mod reserve;

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) use effect::Effect;
#[cfg(test)]
pub(crate) use effect::Put;
pub(crate) use reserve::Outcome;

use crate::types::{BodyId, BucketInfo, Etag, Part, PartInfo, UploadRef};

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) offset: u64,
    /// Header and payload. 0: the record is lost, as recovery found.
    pub(crate) len: u32,
}

impl Location {
    /// Of a body that an object refers to, but whose record is nowhere.
    pub(crate) const LOST: Location = Location { offset: 0, len: 0 };
}

/// An object's key, ordered by its bytes, and so that it can be searched for by bytes.
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

/// The bodies of an object. Most have one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bodies {
    One(BodyId),
    Many(Box<[BodyId]>),
}

impl Bodies {
    pub(crate) fn of(parts: &[Part]) -> Self {
        match parts {
            [one] => Bodies::One(one.body),
            many => Bodies::Many(many.iter().map(|part| part.body).collect()),
        }
    }

    pub(crate) fn as_slice(&self) -> &[BodyId] {
        match self {
            Bodies::One(one) => std::slice::from_ref(one),
            Bodies::Many(many) => many,
        }
    }
}

/// An object.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) at: Location,
    pub(crate) seq: u64,
    pub(crate) size: u64,
    pub(crate) time_ms: u64,
    pub(crate) etag: Etag,
    pub(crate) sealed: bool,
    pub(crate) bodies: Bodies,
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
    key: Key,
    id: [u8; 16],
    time_ms: u64,
    sealed: bool,
    declared: Option<(u8, u8)>,
    parts: BTreeMap<u16, PartEntry>,
    /// Its completion or abortion is on its way.
    closing: bool,
}

#[derive(Debug)]
struct BodyEntry {
    at: Location,
    refs: u32,
    /// Bytes of its blocks on disk, footers included; 0 for a body inside its record.
    stored: u64,
}

/// Writes of a name that are on their way.
#[derive(Debug, Default)]
struct Pending {
    /// Sequence number and outcome of each.
    writes: Vec<(u64, Outcome)>,
    /// The highest sequence number that took effect meanwhile, deletions included.
    applied: u64,
}

/// A bucket.
#[derive(Debug)]
pub(crate) struct Bucket {
    name: Box<str>,
    time_ms: u64,
    at: Location,
    /// Its deletion is on its way.
    deleting: bool,
    objects: BTreeMap<Key, Entry>,
    pending: BTreeMap<Key, Pending>,
    uploads: BTreeMap<u64, Upload>,
    uploads_by_key: BTreeMap<Key, BTreeSet<u64>>,
    uploads_by_id: BTreeMap<[u8; 16], u64>,
}

/// Buckets, objects, uploads and bodies.
#[derive(Debug, Default)]
pub(crate) struct Index {
    buckets: BTreeMap<u64, Bucket>,
    names: BTreeMap<Box<str>, u64>,
    /// Names of buckets whose creation is on its way.
    creating: BTreeSet<Box<str>>,
    bodies: BTreeMap<BodyId, BodyEntry>,
    pins: BTreeMap<BodyId, u32>,
    /// Records are being replayed: a body that nobody refers to may still be referred to.
    replaying: bool,
    pub(crate) totals: Totals,
}

/// Counts kept up to date.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) objects: u64,
    pub(crate) uploads: u64,
    /// Bytes of the records that the index refers to.
    pub(crate) live_meta: u64,
    /// Bytes of the blocks of the bodies that the index refers to.
    pub(crate) live_body: u64,
}

impl Index {
    /// An index to replay records into, in the order of their sequence numbers; [`replayed`](Self::replayed) ends it.
    pub(crate) fn replay() -> Self {
        Index { replaying: true, ..Index::default() }
    }

    pub(crate) fn replayed(&mut self) {
        self.replaying = false;
        let unused: Vec<BodyId> = self.bodies.iter().filter(|(_, body)| body.refs == 0).map(|(&id, _)| id).collect();
        for id in unused {
            self.collect(id);
        }
    }

    pub(crate) fn bucket_count(&self) -> u64 {
        self.buckets.len() as u64
    }

    pub(crate) fn body_count(&self) -> u64 {
        self.bodies.len() as u64
    }

    /// The bucket of this name and its identity.
    pub(crate) fn bucket(&self, name: &str) -> Option<(u64, &Bucket)> {
        let &id = self.names.get(name)?;
        Some((id, self.buckets.get(&id)?))
    }

    pub(crate) fn bucket_by_id(&self, id: u64) -> Option<&Bucket> {
        self.buckets.get(&id)
    }

    /// By name.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = BucketInfo> {
        self.names.values().filter_map(|id| self.buckets.get(id)).map(Bucket::info)
    }

    /// Where a body's record is.
    pub(crate) fn body(&self, id: BodyId) -> Option<Location> {
        self.bodies.get(&id).map(|body| body.at)
    }

    /// Whether a body is referred to, but its record is nowhere.
    pub(crate) fn is_lost(&self, id: BodyId) -> bool {
        self.body(id) == Some(Location::LOST)
    }

    /// Every object: bucket, key, entry.
    pub(crate) fn objects(&self) -> impl Iterator<Item = (&str, &str, &Entry)> {
        let buckets = self.buckets.values();
        buckets.flat_map(|bucket| bucket.objects.iter().map(|(key, entry)| (&*bucket.name, &*key.0, entry)))
    }

    /// Keeps bodies from going, until they are unpinned as often.
    pub(crate) fn pin(&mut self, bodies: &[BodyId]) {
        for &id in bodies {
            *self.pins.entry(id).or_insert(0) += 1;
        }
    }

    pub(crate) fn unpin(&mut self, bodies: &[BodyId]) {
        for &id in bodies {
            let Some(pins) = self.pins.get_mut(&id) else { unreachable!("a body unpinned more often than pinned") };
            *pins -= 1;
            if *pins == 0 {
                self.pins.remove(&id);
                self.collect(id);
            }
        }
    }

    fn add_refs(&mut self, bodies: &[BodyId]) {
        for &id in bodies {
            let lost = BodyEntry { at: Location::LOST, refs: 0, stored: 0 };
            self.bodies.entry(id).or_insert(lost).refs += 1;
        }
    }

    fn drop_refs(&mut self, bodies: &[BodyId]) {
        for &id in bodies {
            let Some(body) = self.bodies.get_mut(&id) else { unreachable!("a body referred to is in the index") };
            body.refs -= 1;
            self.collect(id);
        }
    }

    /// Forgets a body that nobody refers to or holds.
    pub(crate) fn collect(&mut self, id: BodyId) {
        let unused = self.bodies.get(&id).is_some_and(|body| body.refs == 0);
        if !unused || self.replaying || self.pins.contains_key(&id) {
            return;
        }
        if let Some(body) = self.bodies.remove(&id) {
            self.totals.live_meta -= u64::from(body.at.len);
            self.totals.live_body -= body.stored;
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

    pub(crate) fn object(&self, key: &str) -> Option<&Entry> {
        self.objects.get(key.as_bytes())
    }

    /// The upload of this identity, if it is one of this key.
    pub(crate) fn upload_by_id(&self, key: &str, id: &[u8; 16]) -> Option<(u64, &Upload)> {
        let &seq = self.uploads_by_id.get(id)?;
        let upload = self.uploads.get(&seq)?;
        (*upload.key.0 == *key).then_some((seq, upload))
    }

    pub(crate) fn upload(&self, seq: u64) -> Option<&Upload> {
        self.uploads.get(&seq)
    }

    pub(crate) fn upload_ref(&self, seq: u64, upload: &Upload) -> UploadRef {
        UploadRef {
            bucket: self.name.to_string(),
            key: upload.key.0.to_string(),
            id: upload.id,
            sealed: upload.sealed,
            time_ms: upload.time_ms,
            declared: upload.declared,
            seq,
        }
    }
}

impl Upload {
    /// The parts after number `after`, in order.
    pub(crate) fn parts(&self, after: u16) -> impl Iterator<Item = PartInfo> {
        let range = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        self.parts.range(range).map(|(&number, entry)| PartInfo {
            number,
            size: entry.part.size,
            etag: entry.part.etag,
            time_ms: entry.time_ms,
            part: entry.part.clone(),
            at: entry.at,
            seq: entry.seq,
        })
    }

    /// Whether this is the current attempt at its number.
    fn has(&self, part: &Part) -> bool {
        self.parts.get(&part.number).is_some_and(|entry| entry.part == *part)
    }
}
