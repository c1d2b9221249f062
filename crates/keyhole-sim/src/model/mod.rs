//! The model of a store: the possible contents of every name, given all answered and unanswered
//! operations.

mod register;
mod settings;
mod versions;

use std::collections::{BTreeMap, BTreeSet};

use keyhole_log::limits::{HEAD_MAX, OBJECT_TAGS_MAX};
use keyhole_log::{BucketSettings, Etag, Object, PartInfo};

pub use register::Register;
pub use versions::{VERSION_KEYS, VERSIONED, Versions, WrittenVersion, admits};

use crate::content::Content;

/// Buckets of the workload.
pub const BUCKETS: [&str; 2] = ["bucket", "other"];

/// Keys of the workload: some are prefixes of others, with keys that sort in between.
pub const KEYS: [&str; 10] = ["a", "a/", "a/b", "a/b/c", "a0", "b/b", "b/c", "c", "ä/ö", "z"];

/// One body of an object or of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Part number; 0 for an object that was not uploaded in parts.
    pub number: u16,
    /// The bytes.
    pub content: Content,
    /// The ETag, which names the creating operation.
    pub etag: [u8; 16],
    /// Opaque salt.
    pub salt: [u8; 24],
}

/// A version of an object. Its number is its time and its ETag.
#[derive(Debug, Clone)]
pub struct Version {
    /// The bucket and key that it was written to.
    pub name: (&'static str, &'static str),
    /// Its bodies.
    pub pieces: Vec<Piece>,
    /// Whether its object head is sealed.
    pub sealed: bool,
    /// The upload that it completes.
    pub upload: Option<u64>,
    /// The number of parts that it was uploaded in.
    pub parts: u16,
    /// The numbers of the tags that it may have: the initial ones, and those of every attempted
    /// change.
    pub tags: Vec<u64>,
    /// The number of the completion that set its part checksums.
    pub part_checksums: Option<u64>,
}

impl Version {
    /// Returns the total length of all bodies.
    pub fn size(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.content.len).sum()
    }

    /// Returns the contents of its bodies.
    pub fn contents(&self) -> Vec<Content> {
        self.pieces.iter().map(|piece| piece.content).collect()
    }
}

/// An upload.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The bucket.
    pub bucket: &'static str,
    /// The key.
    pub key: &'static str,
    /// Whether it exists.
    pub exists: Register<bool>,
    /// The number of the piece of each part.
    pub parts: BTreeMap<u16, Register<Option<u64>>>,
    /// The pieces of all attempts at each part.
    pub attempts: BTreeMap<u16, Vec<u64>>,
    /// Its completion: the operation and the version.
    pub completions: Vec<(u64, u64)>,
}

/// The possible states of a store.
#[derive(Clone)]
pub struct Model {
    /// Whether acknowledged writes are durable.
    pub durable: bool,
    numbers: u64,
    /// Offsets of the clock, by the operation number from which each applies.
    clock: BTreeMap<u64, u64>,
    /// The creation time of each bucket, if it exists.
    pub buckets: BTreeMap<&'static str, Register<Option<u64>>>,
    /// The settings of each bucket.
    pub settings: BTreeMap<&'static str, Register<BucketSettings>>,
    /// Whether the store may drop objects by itself.
    pub ring: bool,
    /// The version of each object.
    pub keys: BTreeMap<(&'static str, &'static str), Register<Option<u64>>>,
    /// Uploads, by the number that their identity is made of.
    pub uploads: BTreeMap<u64, Upload>,
    /// All versions ever written.
    pub versions: BTreeMap<u64, Version>,
    /// Versions in buckets with versioning.
    pub history: Versions,
    /// Whether the bodies of an object are evicted, by the number of its first one.
    pub evictions: BTreeMap<u64, Register<bool>>,
    /// All parts ever written.
    pub pieces: BTreeMap<u64, Piece>,
    /// Bucket deletions in flight.
    deleting: BTreeSet<(u64, &'static str)>,
}

/// Returns the identity of an upload.
pub fn upload_id(number: u64) -> [u8; 16] {
    digest(number ^ 0x5555)
}

/// Returns the number that the identity of an upload is made of.
pub fn upload_number(id: &[u8; 16]) -> u64 {
    number(id) ^ 0x5555
}

/// Returns a digest that encodes a number.
pub fn digest(number: u64) -> [u8; 16] {
    let mut digest = [0xee; 16];
    digest[..8].copy_from_slice(&number.to_le_bytes());
    digest
}

/// Returns the number that a digest encodes.
pub fn number(digest: &[u8; 16]) -> u64 {
    u64::from_le_bytes(digest[..8].try_into().expect("eight bytes"))
}

/// Returns opaque bytes of some length for object heads and descriptions, derived from a number.
pub fn opaque(number: u64, most: usize) -> Vec<u8> {
    let len = if number.is_multiple_of(29) { most } else { number as usize % 300 % (most + 1) };
    let mut bytes = vec![number as u8; len];
    bytes.iter_mut().zip(number.to_le_bytes()).for_each(|(byte, with)| *byte = with);
    bytes
}

/// Returns the object head of a version.
pub fn object_head(version: u64) -> Vec<u8> {
    opaque(version, HEAD_MAX)
}

/// Returns the tags with this number.
pub fn tags(number: u64) -> Vec<u8> {
    opaque(number + 1, OBJECT_TAGS_MAX)
}

/// Returns the part checksums of the completion with this number.
pub fn part_checksums(number: u64) -> Vec<u8> {
    opaque(number + 2, 20_000)
}

impl Model {
    /// Creates the model of an empty store.
    pub fn new() -> Self {
        let names = BUCKETS.iter().flat_map(|bucket| KEYS.iter().map(|key| (*bucket, *key)));
        Model {
            durable: true,
            numbers: 1,
            clock: BTreeMap::from([(0, 0)]),
            buckets: BUCKETS.iter().map(|name| (*name, Register::new(None))).collect(),
            settings: BUCKETS.iter().map(|name| (*name, Register::new(BucketSettings::default()))).collect(),
            ring: false,
            keys: names.map(|name| (name, Register::new(None))).collect(),
            uploads: BTreeMap::new(),
            versions: BTreeMap::new(),
            history: Versions::default(),
            evictions: BTreeMap::new(),
            pieces: BTreeMap::new(),
            deleting: BTreeSet::new(),
        }
    }

    /// Returns a new number.
    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Sets the offset of the clock from now on.
    pub fn set_clock(&mut self, to: u64) {
        self.clock.insert(self.numbers + 1, to);
    }

    /// Returns the time of the operation with this number, by the clock at that moment.
    pub fn time(&self, number: u64) -> u64 {
        let ahead = self.clock.range(..=number).next_back().map_or(0, |(_, ahead)| *ahead);
        number + ahead
    }

    /// Returns the register of an object.
    pub fn key(&mut self, bucket: &'static str, key: &'static str) -> &mut Register<Option<u64>> {
        self.keys.get_mut(&(bucket, key)).expect("names are those of the workload")
    }

    /// Returns the register of the eviction of an object with this first body.
    pub fn eviction(&mut self, first: Content) -> &mut Register<bool> {
        self.evictions.entry(first.id).or_insert_with(|| Register::new(false))
    }

    /// Returns whether an object with these bodies may have been evicted at some time since.
    pub fn may_be_evicted(&self, contents: &[Content], since: u64) -> bool {
        let register = contents.first().and_then(|first| self.evictions.get(&first.id));
        register.is_some_and(|register| register.may_be(since, |is_evicted| *is_evicted))
    }

    /// Returns whether any eviction was in flight at some time since.
    pub fn is_evicting(&self, since: u64) -> bool {
        self.evictions.values().any(|register| register.is_busy(since, 0))
    }

    /// Records whether an object with these bodies was found evicted. Panics if that is impossible.
    pub fn observe_eviction(&mut self, contents: &[Content], is_evicted: bool, since: u64, now: u64) {
        let durable = self.durable;
        let Some(&first) = contents.first() else {
            assert!(!is_evicted, "an object without bodies is evicted");
            return;
        };
        let register = self.eviction(first);
        let seen = register.observe(since, now, durable, 0, |value| *value == is_evicted);
        assert!(seen, "{first:?}: evicted: {is_evicted}, may be {:?}", register.legal(false));
    }

    /// Returns the register of a bucket.
    pub fn bucket(&mut self, bucket: &'static str) -> &mut Register<Option<u64>> {
        self.buckets.get_mut(bucket).expect("buckets are those of the workload")
    }

    /// Begins the creation of an upload.
    pub fn begin_upload(&mut self, op: u64, upload: u64, bucket: &'static str, key: &'static str, now: u64) {
        let mut exists = Register::new(false);
        exists.begin(op, true, now);
        // A deletion of its bucket may take the upload along.
        for (deletion, _) in self.deleting.iter().filter(|(_, of)| *of == bucket) {
            exists.begin(*deletion, false, now);
        }
        let parts = BTreeMap::new();
        let attempts = BTreeMap::new();
        self.uploads.insert(upload, Upload { bucket, key, exists, parts, attempts, completions: Vec::new() });
    }

    /// Begins the deletion of a bucket and its uploads.
    pub fn begin_bucket_deletion(&mut self, op: u64, bucket: &'static str, now: u64) {
        self.bucket(bucket).begin(op, None, now);
        self.set(bucket).begin(op, BucketSettings::default(), now);
        self.deleting.insert((op, bucket));
        for upload in self.uploads.values_mut().filter(|upload| upload.bucket == bucket) {
            upload.exists.begin(op, false, now);
        }
    }

    /// Ends the deletion of a bucket: it was done, or refused without effect.
    pub fn end_bucket_deletion(&mut self, op: u64, bucket: &'static str, now: u64, done: bool) {
        let durable = self.durable;
        self.deleting.remove(&(op, bucket));
        let exists =
            self.uploads.values_mut().filter(|upload| upload.bucket == bucket).map(|upload| &mut upload.exists);
        if done {
            self.buckets.values_mut().for_each(|register| register.acknowledge(op, now, durable));
            self.settings.values_mut().for_each(|register| register.acknowledge(op, now, durable));
            exists.for_each(|register| register.acknowledge(op, now, durable));
        } else {
            self.buckets.values_mut().for_each(|register| register.refuse(op, now));
            self.settings.values_mut().for_each(|register| register.refuse(op, now));
            exists.for_each(|register| register.refuse(op, now));
        }
    }

    /// Returns whether a write may fail because the bucket is missing.
    pub fn may_lack_bucket(&mut self, bucket: &'static str, since: u64) -> bool {
        let register = self.bucket(bucket);
        register.may_be(since, Option::is_none) || register.is_busy(since, 0)
    }

    /// Records the answer to a flush that began at `began`.
    pub fn flushed(&mut self, began: u64, now: u64) {
        self.buckets.values_mut().for_each(|register| register.flushed(began, now));
        self.settings.values_mut().for_each(|register| register.flushed(began, now));
        self.keys.values_mut().for_each(|register| register.flushed(began, now));
        self.history.flushed(began, now);
        self.evictions.values_mut().for_each(|register| register.flushed(began, now));
        for upload in self.uploads.values_mut() {
            upload.exists.flushed(began, now);
            upload.parts.values_mut().for_each(|register| register.flushed(began, now));
        }
    }

    /// Records that all operations have ended.
    pub fn quiesce(&mut self, now: u64) {
        self.buckets.values_mut().for_each(|register| register.quiesce(now));
        self.settings.values_mut().for_each(|register| register.quiesce(now));
        self.keys.values_mut().for_each(|register| register.quiesce(now));
        self.history.quiesce(now);
        self.evictions.values_mut().for_each(|register| register.quiesce(now));
        for upload in self.uploads.values_mut() {
            upload.exists.quiesce(now);
            upload.parts.values_mut().for_each(|register| register.quiesce(now));
        }
    }

    /// Discards the operations in flight of the old process after a crash.
    pub fn crashed(&mut self) {
        self.deleting.clear();
        self.history.crashed();
    }

    /// Returns the version that an object claims to be, after comparing all its properties.
    pub fn recognise(&self, object: &Object) -> (u64, &Version) {
        let id = number(&object.etag.digest);
        let Some(version) = self.versions.get(&id) else { panic!("an object that was never written: {object:?}") };
        assert_eq!(
            (object.size, object.time_ms, object.sealed),
            (version.size(), self.time(id), version.sealed),
            "of {object:?}"
        );
        assert_eq!(object.etag, etag(id, version.parts), "of {object:?}");
        assert!(object.head == object_head(id), "the object head of version {id}");
        assert!(version.tags.iter().any(|of| object.tags == tags(*of)), "the tags of version {id}");
        assert!(
            object.part_checksums == version.part_checksums.map(part_checksums).unwrap_or_default(),
            "the part_checksums of version {id}"
        );
        assert_eq!(object.completed, version.upload.map(upload_id), "the upload of version {id}");
        assert_eq!(object.parts.len(), version.pieces.len(), "bodies of version {id}");
        for (part, piece) in object.parts.iter().zip(&version.pieces) {
            let found = (part.number, part.size, part.etag, part.salt);
            assert_eq!(found, (piece.number, piece.content.len, piece.etag, piece.salt), "a part of version {id}");
        }
        (id, version)
    }

    /// Returns the piece that a part of an upload claims to be, after comparing all its properties.
    pub fn recognise_part(&self, info: &PartInfo) -> (u64, Piece) {
        let id = number(&info.etag);
        let Some(piece) = self.pieces.get(&id) else { panic!("a part that was never written: {info:?}") };
        let found = (info.number, info.size, info.time_ms, info.etag, info.part.salt);
        assert_eq!(found, (piece.number, piece.content.len, self.time(id), piece.etag, piece.salt), "part {id}");
        (id, *piece)
    }
}

impl Default for Model {
    fn default() -> Self {
        Model::new()
    }
}

/// Returns the ETag of a version.
pub fn etag(version: u64, parts: u16) -> Etag {
    Etag { digest: digest(version), parts }
}
