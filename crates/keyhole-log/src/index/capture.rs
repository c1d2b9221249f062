//! Conversion of the index to items of a checkpoint, and back.
//!
//! A checkpoint is *fuzzy*: it is captured piece by piece while requests change the index. Every
//! change since its start is in a record with a higher number, or in one that the checkpoint lists
//! as pending, and is replayed over it.

use std::collections::BTreeSet;

use super::Index;
use super::attributes::{Attributes, EvictEntry, LockEntry, TagsEntry};
use super::bucket::{Bucket, Pending, Settings};
use super::entry::{Bodies, Key, ObjectEntry, Stamp};
use super::location::{Location, Share, Shares};
use super::uploads::Upload;
use crate::limits::checkpoint_record;
use crate::types::{BodyId, UploadIdentity};
use crate::version::Versioning;
use crate::wire::checkpoint::{CheckpointItems, Item, SegmentItem};

/// Progress of the capture of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Capture {
    /// A bucket (by identity, or the next existing one), and its versions after this key and number.
    Versions {
        bucket: u64,
        after: Option<(Key, u64)>,
    },
    /// The ids, locks or tags of that bucket's versions from this one on.
    Attributes {
        bucket: u64,
        kind: AttributeKind,
        version: u64,
    },
    /// The uploads of that bucket from this one on, and the attempts at their parts after this
    /// number and sequence number.
    Uploads {
        bucket: u64,
        upload: u64,
        part: Option<(u16, u64)>,
    },
    Bodies {
        from: BodyId,
    },
    Done,
}

/// What belongs to versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttributeKind {
    Ids,
    Locks,
    Tags,
}

impl Default for Capture {
    fn default() -> Self {
        Capture::Versions { bucket: 0, after: None }
    }
}

impl Index {
    /// Captures floors: names with an in-flight write, and the highest number of a write of their `null`
    /// versions applied since. Must
    /// run at the moment the checkpoint begins. Each result is for one record.
    pub(crate) fn capture_floors(&self) -> Vec<Vec<u8>> {
        let most = self.checkpoint_record();
        let mut records = Vec::<Vec<u8>>::new();
        for (&bucket, home) in &self.buckets {
            let mut has_home = false;
            for (key, pending) in home.pending.iter().filter(|(_, pending)| pending.applied > 0) {
                if records.last().is_none_or(|record| record.len() >= most) {
                    records.push(Vec::new());
                    has_home = false;
                }
                let Some(out) = records.last_mut() else { continue };
                if !has_home {
                    Item::Home { bucket }.encode(out);
                    has_home = true;
                }
                Item::Floor { applied: pending.applied, key: &key.0 }.encode(out);
            }
        }
        records
    }

    /// Returns the bytes of items at which a record of a checkpoint is full.
    pub(crate) fn checkpoint_record(&self) -> usize {
        checkpoint_record(self.live.segment_len())
    }

    /// Captures the next items until `out` is full.
    pub(crate) fn capture(&self, capture: Capture, out: &mut Vec<u8>) -> Capture {
        let mut capture = capture;
        while out.len() < self.checkpoint_record() && capture != Capture::Done {
            capture = match capture {
                Capture::Versions { bucket, after } => self.capture_versions(bucket, after, out),
                Capture::Attributes { bucket, kind, version } => self.capture_attributes(bucket, kind, version, out),
                Capture::Uploads { bucket, upload, part } => self.capture_uploads(bucket, upload, part, out),
                Capture::Bodies { from } => self.capture_bodies(from, out),
                Capture::Done => Capture::Done,
            };
        }
        capture
    }

    fn capture_versions(&self, bucket: u64, after: Option<(Key, u64)>, out: &mut Vec<u8>) -> Capture {
        let Some((&id, home)) = self.buckets.range(bucket..).next() else {
            return Capture::Bodies { from: BodyId(0) };
        };
        // If the bucket has been deleted, this is another one, to be captured from its start.
        let after = after.filter(|_| id == bucket);
        if after.is_none() {
            home.capture(id, out);
        }
        Item::Home { bucket: id }.encode(out);
        let from = after.as_ref().map_or("", |(key, _)| &key.0);
        for name in home.names_from(from.as_bytes()) {
            // Oldest first: a version that becomes current or noncurrent keeps its place.
            let mut seq = after.as_ref().filter(|(key, _)| *key.0 == *name.key).map_or(0, |(_, seq)| *seq);
            while let Some(entry) = name.above(seq) {
                entry.item(name.key).encode(out);
                // Together with the version, so that a checkpoint has both or the record is replayed.
                if let Some(EvictEntry { at, seq: of_record }) = home.eviction_of(entry.seq) {
                    let (version, key) = (entry.seq, name.key);
                    Item::VersionEvicted { version, at: at.raw(), seq: of_record, key }.encode(out);
                }
                seq = entry.seq;
                if out.len() >= self.checkpoint_record() {
                    return Capture::Versions { bucket: id, after: Some((name.key.into(), seq)) };
                }
            }
        }
        Capture::Attributes { bucket: id, kind: AttributeKind::Ids, version: 0 }
    }

    fn capture_attributes(&self, bucket: u64, kind: AttributeKind, version: u64, out: &mut Vec<u8>) -> Capture {
        let uploads = Capture::Uploads { bucket, upload: 0, part: None };
        let Some(home) = self.buckets.get(&bucket).filter(|home| !home.attributes.is_empty()) else { return uploads };
        Item::Home { bucket }.encode(out);
        for (version, item) in home.attributes.items(kind, version) {
            if out.len() >= self.checkpoint_record() {
                return Capture::Attributes { bucket, kind, version };
            }
            item.encode(out);
        }
        let next = |kind| Capture::Attributes { bucket, kind, version: 0 };
        match kind {
            AttributeKind::Ids => next(AttributeKind::Locks),
            AttributeKind::Locks => next(AttributeKind::Tags),
            AttributeKind::Tags => uploads,
        }
    }

    fn capture_uploads(&self, bucket: u64, upload: u64, part: Option<(u16, u64)>, out: &mut Vec<u8>) -> Capture {
        let next = Capture::Versions { bucket: bucket + 1, after: None };
        let Some(home) = self.buckets.get(&bucket) else { return next };
        let Some((seq, found)) = home.uploads.from(upload).next() else { return next };
        let part = part.filter(|_| seq == upload);
        Item::Home { bucket }.encode(out);
        if part.is_none() {
            found.item(seq).encode(out);
        }
        let (number, attempt) = part.unwrap_or((0, 0));
        for entry in found.parts.after(number, attempt) {
            let part = entry.part.clone();
            let item = Item::Part { upload: seq, at: entry.at.raw(), seq: entry.seq, time_ms: entry.time_ms, part };
            item.encode(out);
            if out.len() >= self.checkpoint_record() {
                return Capture::Uploads { bucket, upload: seq, part: Some((entry.part.number, entry.seq)) };
            }
        }
        Capture::Uploads { bucket, upload: seq + 1, part: None }
    }

    fn capture_bodies(&self, from: BodyId, out: &mut Vec<u8>) -> Capture {
        for (id, body) in self.bodies_from(from) {
            if out.len() >= self.checkpoint_record() {
                return Capture::Bodies { from: id };
            }
            if body.at.is_in_file() {
                let shares = body.shares.as_slice().iter().map(|share| (share.segment, share.pages)).collect();
                Item::Body { id, at: body.at.raw(), shares }.encode(out);
            }
        }
        Capture::Done
    }
}

impl Bucket {
    fn capture(&self, id: u64, out: &mut Vec<u8>) {
        let (settings_at, settings_seq) = self.settings.as_ref().map_or((0, 0), |s| (s.at.raw(), s.seq));
        let at = self.at.raw();
        let time_ms = self.time_ms;
        let settings = self.settings();
        let name = &*self.name;
        let policy = settings.policy.clone();
        let lifecycle = settings.lifecycle.clone();
        let cors = settings.cors.clone();
        let tags = settings.tags.clone();
        Item::Bucket { id, at, time_ms, settings_at, settings_seq, settings, name }.encode(out);
        if let (versioning @ (Versioning::Enabled | Versioning::Suspended), lock) = self.versioning() {
            Item::Versioning { bucket: id, versioning, lock }.encode(out);
        }
        if !policy.is_empty() {
            Item::Policy { bucket: id, policy: &policy }.encode(out);
        }
        if !lifecycle.is_empty() {
            Item::Lifecycle { bucket: id, lifecycle: &lifecycle }.encode(out);
        }
        if !cors.is_empty() {
            Item::Cors { bucket: id, cors: &cors }.encode(out);
        }
        if !tags.is_empty() {
            Item::Tags { bucket: id, tags: &tags }.encode(out);
        }
    }
}

impl ObjectEntry {
    fn item<'a>(&self, key: &'a str) -> Item<'a> {
        if self.is_marker() {
            return Item::Marker { at: self.at.raw(), seq: self.seq, stamp: self.stamp.0, key };
        }
        Item::Object {
            at: self.at.raw(),
            seq: self.seq,
            size: self.size,
            stamp: self.stamp.0,
            digest: self.digest,
            bodies: self.bodies.as_slice().to_vec(),
            key,
        }
    }
}

impl Attributes {
    /// Returns the items of this kind, each with its version, from a version on.
    fn items(&self, kind: AttributeKind, version: u64) -> Box<dyn Iterator<Item = (u64, Item<'static>)> + '_> {
        match kind {
            AttributeKind::Ids => {
                let ids = self.ids.from(&version);
                Box::new(ids.map(|(&version, &id)| (version, Item::VersionId { version, id })))
            }
            AttributeKind::Locks => Box::new(self.locks.from(&version).map(|(&version, entry)| {
                let LockEntry { at, seq, size, lock } = *entry;
                (version, Item::VersionLock { version, at: at.raw(), seq, size, lock })
            })),
            AttributeKind::Tags => {
                Box::new(self.tags.from(&version).map(|(&version, entry)| {
                    (version, Item::VersionTags { version, at: entry.at.raw(), seq: entry.seq })
                }))
            }
        }
    }
}

impl Upload {
    fn item(&self, seq: u64) -> Item<'_> {
        Item::Upload {
            seq,
            at: self.at.raw(),
            id: self.id,
            time_ms: self.time_ms,
            sealed: self.sealed,
            declared: self.declared,
            key: &self.key,
        }
    }
}

/// Rebuilds a captured index.
#[derive(Debug)]
pub(crate) struct Loader {
    pub(crate) index: Index,
    pub(crate) segments: Vec<SegmentItem>,
    /// Numbers below the checkpoint's own whose records it does not cover.
    pub(crate) pending: BTreeSet<u64>,
    /// Floors: bucket, key, number. They precede the buckets.
    floors: Vec<(u64, Key, u64)>,
    home: u64,
}

impl Loader {
    pub(crate) fn new(segment_len: u64) -> Self {
        let segments = Vec::new();
        let pending = BTreeSet::new();
        let floors = Vec::new();
        Loader { index: Index::replay(segment_len), segments, pending, floors, home: 0 }
    }

    /// Completes the index after the last record.
    pub(crate) fn finish(&mut self) {
        for (bucket, key, applied) in std::mem::take(&mut self.floors) {
            if let Some(home) = self.index.buckets.get_mut(&bucket) {
                home.pending.insert(key, Pending { writes: Vec::new(), applied });
            }
        }
    }

    /// Loads the items of one record. `None`: malformed.
    pub(crate) fn load(&mut self, record: &CheckpointItems<'_>) -> Option<()> {
        for item in record.items() {
            self.take(item?);
        }
        Some(())
    }

    fn take(&mut self, item: Item<'_>) {
        let index = &mut self.index;
        match item {
            Item::Home { bucket } => self.home = bucket,
            Item::Bucket { id, at, time_ms, settings_at, settings_seq, settings, name } => {
                let at = Location::from_raw(at);
                let mut bucket = Bucket::new(name.into(), time_ms, at);
                index.live.add(at);
                if settings_seq != 0 {
                    let at = Location::from_raw(settings_at);
                    index.live.add(at);
                    bucket.settings = Some(Settings { at, seq: settings_seq, settings });
                }
                index.names.insert(name.into(), id);
                index.buckets.insert(id, bucket);
            }
            Item::Policy { bucket, policy } => {
                if let Some(settings) = index.buckets.get_mut(&bucket).and_then(|home| home.settings.as_mut()) {
                    settings.settings.policy = policy.to_vec();
                }
            }
            Item::Lifecycle { bucket, lifecycle } => {
                if let Some(settings) = index.buckets.get_mut(&bucket).and_then(|home| home.settings.as_mut()) {
                    settings.settings.lifecycle = lifecycle.into();
                }
            }
            Item::Cors { bucket, cors } => {
                if let Some(settings) = index.buckets.get_mut(&bucket).and_then(|home| home.settings.as_mut()) {
                    settings.settings.cors = cors.into();
                }
            }
            Item::Tags { bucket, tags } => {
                if let Some(home) = index.buckets.get_mut(&bucket) {
                    let place = home.settings.as_mut().map_or(&mut home.created_tags, |set| &mut set.settings.tags);
                    *place = tags.into();
                }
            }
            Item::Object { at, seq, size, stamp, digest, bodies, key } => {
                let at = Location::from_raw(at);
                let bodies = Bodies::from_vec(bodies);
                let entry = ObjectEntry { at, seq, size, stamp: Stamp(stamp), digest, bodies };
                index.add_loaded(self.home, key, entry);
            }
            Item::Marker { at, seq, stamp, key } => {
                let at = Location::from_raw(at);
                let bodies = Bodies::Marker;
                let entry = ObjectEntry { at, seq, size: 0, stamp: Stamp(stamp), digest: [0; 16], bodies };
                index.add_loaded(self.home, key, entry);
            }
            Item::VersionId { version, id } => {
                if let Some(home) = index.buckets.get_mut(&self.home) {
                    home.attributes.set_id(version, id);
                }
            }
            Item::VersionLock { version, at, seq, size, lock } => {
                let lock = index.recovered_lock(lock);
                index.set_lock(self.home, version, LockEntry { at: Location::from_raw(at), seq, size, lock });
            }
            Item::VersionTags { version, at, seq } => {
                index.set_tags(self.home, version, TagsEntry { at: Location::from_raw(at), seq });
            }
            Item::VersionEvicted { version, at, seq, key } => {
                index.set_eviction(self.home, key, version, EvictEntry { at: Location::from_raw(at), seq });
            }
            Item::LockClock { time_ms } => index.saved_lock_clock(time_ms),
            Item::Versioning { bucket, versioning, lock } => {
                if let Some(set) = index.buckets.get_mut(&bucket).and_then(|home| home.settings.as_mut()) {
                    set.settings.versioning = versioning;
                    set.settings.lock = lock;
                }
            }
            Item::Upload { seq, at, id, time_ms, sealed, declared, key } => {
                let at = Location::from_raw(at);
                let parts = Default::default();
                let upload = Upload { at, key: key.into(), id, time_ms, sealed, declared, parts, closing: false };
                // Its bucket exists: both were captured under one lock acquisition.
                let _ = index.add_upload(self.home, seq, upload);
            }
            Item::Part { upload, at, seq, time_ms, part } => {
                // Fails if the upload ended while its parts were being captured;
                // the parts are dropped too.
                let _ = index.put_part(
                    seq,
                    Location::from_raw(at),
                    UploadIdentity { bucket: self.home, upload },
                    time_ms,
                    &part,
                );
            }
            Item::Body { id, at, shares } => {
                let shares = shares.into_iter().map(|(segment, pages)| Share { segment, pages }).collect();
                index.add_body(id, Location::from_raw(at), Shares::from_vec(shares));
            }
            Item::Segment(segment) => self.segments.push(segment),
            Item::Floor { applied, key } => self.floors.push((self.home, key.into(), applied)),
            Item::Pending { seq } => {
                self.pending.insert(seq);
            }
        }
    }
}

#[cfg(test)]
impl Index {
    /// Captures the index in a checkpoint and loads it again.
    pub(super) fn captured(&self) -> Index {
        let mut loader = Loader::new(self.live.segment_len());
        let mut capture = Capture::default();
        while capture != Capture::Done {
            let mut items = Vec::new();
            capture = self.capture(capture, &mut items);
            loader.load(&CheckpointItems { until: 1, index: 0, items: &items }).unwrap();
        }
        loader.finish();
        loader.index.replayed();
        loader.index
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::index::effect::{Effect, Put};
    use crate::limits::{LIST_MAX, SEGMENTS_START};
    use crate::types::{Etag, ListObjects};
    use crate::version::{Lock, VersionIds};
    use crate::version_list::ListVersions;
    use crate::wire::payload::RecordedId;

    const SEGMENT_LEN: u64 = 64 << 20;

    /// Returns an index of a bucket with these names, each with so many versions.
    fn filled(names: u64, versions: u64) -> Index {
        let mut index = Index::replay(SEGMENT_LEN);
        let place = |seq: u64| Location::new(SEGMENTS_START + seq * 512, 400);
        let create = Effect::CreateBucket { name: "b".into(), time_ms: 0, tags: Default::default() };
        index.apply(1, place(1), &create).unwrap();
        let mut seq = 1;
        for _ in 0..versions {
            for name in 0..names {
                seq += 2;
                let put = Put {
                    bucket: 1,
                    key: (&*format!("photos/2026/{:07}", name * 7_368_787 % names)).into(),
                    size: 1000,
                    time_ms: seq,
                    etag: Etag { digest: [7; 16], parts: 0 },
                    sealed: false,
                    bodies: Bodies::One(BodyId(seq)),
                    upload: None,
                    id: if versions == 1 { RecordedId::Null } else { RecordedId::Own },
                    lock: Lock::default(),
                };
                index.add_body(BodyId(seq), place(seq), Shares::None);
                index.apply(seq + 1, place(seq + 1), &Effect::Put(put)).unwrap();
            }
        }
        index.replayed();
        index
    }

    #[test]
    fn captured_versions_are_loaded_as_they_were() {
        for (names, versions) in [(40, 1), (7, 9), (1, 200)] {
            let index = filled(names, versions);
            let again = index.captured();
            assert_eq!(again.totals, index.totals);
            let all = |index: &Index| -> Vec<(String, u64)> {
                index.versions().map(|(_, key, entry)| (key.to_owned(), entry.seq)).collect()
            };
            assert_eq!(all(&again), all(&index));
            assert_eq!((again.recount(), again.buckets[&1].bytes), (vec![], index.buckets[&1].bytes));
        }
    }

    /// `KEYHOLE_VERSIONED_OBJECTS` sets the number of current objects.
    #[test]
    #[ignore = "measures, and takes a minute"]
    fn cost_of_versions_as_ratios() {
        let wanted = std::env::var("KEYHOLE_VERSIONED_OBJECTS").ok();
        let objects = wanted.map_or(50_000, |count| count.parse().expect("a number"));
        let plain = filled(11 * objects, 1);
        let versioned = filled(objects, 11);
        let load = |index: &Index| {
            let begun = Instant::now();
            drop(index.captured());
            begun.elapsed().as_secs_f64()
        };
        let alone = filled(objects, 1);
        let list = |index: &Index| {
            let begun = Instant::now();
            let mut list = ListObjects { limit: LIST_MAX, ..ListObjects::default() };
            while let Some(crate::types::Listed::Object { key, .. }) = index.buckets[&1].list(&list).entries.last() {
                list.after = Some(key.clone());
            }
            begun.elapsed().as_secs_f64()
        };
        let mut loads = Vec::new();
        let mut lists = Vec::new();
        for _ in 0..7 {
            loads.push(load(&versioned) / load(&plain));
            lists.push(list(&versioned) / list(&alone));
        }
        loads.sort_by(f64::total_cmp);
        lists.sort_by(f64::total_cmp);
        let bytes = versioned.allocated() as f64 / plain.allocated() as f64;
        println!("load {:.2}, listing of objects {:.2}, memory {bytes:.2}", loads[3], lists[3]);
        let deep = filled(1, 100_000);
        let ids = VersionIds::of(&[1; 16]);
        let mut list = ListVersions { limit: LIST_MAX, ..ListVersions::default() };
        let mut pages = Vec::new();
        loop {
            let begun = Instant::now();
            let page = deep.buckets[&1].list_versions(&list, ids);
            pages.push(begun.elapsed());
            match page.next {
                Some(next) => list.after = Some(next),
                None => break,
            }
        }
        pages.sort();
        println!("pages of 100,000 versions: median {:?}, longest {:?}", pages[pages.len() / 2], pages.last());
    }
}
