//! Replay: applies records to the index in the order of their sequence numbers.
//!
//! Records are in number order within a segment, so replay merges the segments while reading them.
//! A segment is read from the moment its first number is due, and no more segments are read at a
//! time than there were writers. Only moved records are out of order. One that the checkpoint
//! covers merely updates the location of the item with its number, which may happen at any time.
//! The others were kept by the first reading.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::again::{Again, BatchStart, Reread, Rereader};
use super::base::Base;
use super::scan::Scanned;
use super::segment::{MovedRecord, Scan};
use crate::disk::{Access, Disk};
use crate::error::{Damage, Error, LOST_OBJECT};
use crate::index::{Effect, Index, Location};
use crate::read::read_record_if;
use crate::types::BodyId;
use crate::wire::payload::RecordPayload;
use crate::wire::superblock::Superblock;

/// The highest sequence number of a record that stores or deletes an object, by
/// bucket (identity) and key.
pub(super) type Newest = BTreeMap<(u64, String), u64>;

/// Result of the replay.
pub(super) struct Replayed {
    pub(super) index: Index,
    /// Number of records applied.
    pub(super) records: u64,
    /// Locations and lengths of the records, if requested.
    pub(super) extents: Vec<(u64, u32)>,
    /// References to missing items.
    pub(super) damaged: Vec<Damage>,
    /// Whether any record is neither the log's own nor a checkpoint's.
    pub(super) is_changed: bool,
    /// Newest numbers of the names in damaged records; 0 if no record of the name counts.
    pub(super) newest: Newest,
}

/// Builds the index from the checkpoint and the records that count.
pub(super) async fn replay<D: Disk>(
    disk: &D,
    superblock: &Superblock,
    base: &mut Base,
    store: &mut Scanned,
    extents: bool,
) -> Result<Replayed, Error> {
    let mut index = std::mem::take(&mut base.index);
    index.forget_unused_but(store.scans.iter_mut().flat_map(|scan| std::mem::take(&mut scan.shared)).collect());
    let newest = store.suspects.iter().filter_map(|suspect| suspect.name.clone()).map(|name| (name, 0)).collect();
    let replayed = Replayed { index, records: 0, extents: Vec::new(), damaged: Vec::new(), newest, is_changed: false };
    let scans = std::mem::take(&mut store.scans);
    store.begin_bodies(base);
    let mut replay =
        Replay { base, store, with_extents: extents, relocations: BTreeMap::new(), broken: Vec::new(), replayed };
    let merged = replay.merge(disk, superblock, &scans).await;
    let Replay { broken, mut replayed, .. } = replay;
    store.scans = scans;
    merged?;
    for (number, damage) in broken {
        store.note_damage(number, damage);
    }
    store.trim();
    replayed.index.replayed();
    replayed.name_lost(&store.bad_bodies);
    Ok(replayed)
}

struct Replay<'a> {
    base: &'a Base,
    store: &'a mut Scanned,
    with_extents: bool,
    /// Latest relocation number of each body whose blocks were moved.
    relocations: BTreeMap<BodyId, u64>,
    /// Records that no longer verify, and their segments.
    broken: Vec<(u32, Damage)>,
    replayed: Replayed,
}

/// A segment being read, and its next record that was not moved.
struct Source<'a, D: Disk> {
    scan: &'a Scan,
    reader: Option<Rereader<'a, D>>,
    next: Option<Reread>,
}

impl Replay<'_> {
    async fn merge<D: Disk>(&mut self, disk: &D, superblock: &Superblock, scans: &[Scan]) -> Result<(), Error> {
        let mut moved: Vec<(MovedRecord, &Scan)> =
            scans.iter().flat_map(|scan| scan.moved.iter().map(move |&record| (record, scan))).collect();
        moved.sort_by_key(|(record, _)| (record.seq, record.relocation));
        let mut moved = moved.into_iter().peekable();
        let mut sources: Vec<Source<'_, D>> =
            scans.iter().map(|scan| Source { scan, reader: None, next: None }).collect();
        let first = scans.iter().enumerate().filter(|(_, scan)| !scan.spans.is_empty());
        let mut queue: BinaryHeap<_> = first.map(|(i, scan)| Reverse((scan.first.unwrap_or(0), i))).collect();
        while let Some(Reverse((seq, i))) = queue.pop() {
            while let Some((record, scan)) = moved.next_if(|(record, _)| record.seq < seq) {
                self.moved(disk, superblock, &record, scan).await?;
            }
            let source = &mut sources[i];
            if let Some(record) = source.next.take() {
                self.take(source.scan, record);
            }
            let scan = source.scan;
            let file_len = self.store.file_len;
            let reader = source
                .reader
                .get_or_insert_with(|| Rereader::new(disk, &superblock.store, file_len, scan.end, &scan.spans));
            match self.advance(scan, reader).await? {
                Some(record) => {
                    queue.push(Reverse((record.seq.max(seq), i)));
                    source.next = Some(record);
                }
                None => source.reader = None,
            }
        }
        for (record, scan) in moved {
            self.moved(disk, superblock, &record, scan).await?;
        }
        Ok(())
    }

    /// Advances to the next record of a segment that was not moved.
    async fn advance<D: Disk>(&mut self, scan: &Scan, reader: &mut Rereader<'_, D>) -> Result<Option<Reread>, Error> {
        while let Some(again) = reader.next().await? {
            match again {
                Again::Damaged(damage) => self.broken.push((scan.number, damage)),
                Again::Record(record) if !record.moved => return Ok(Some(record)),
                Again::Record(record) if self.base.covers(record.seq) => self.take(scan, record),
                // Kept by the first reading, and applied in its turn.
                Again::Record(_) => {}
            }
        }
        Ok(None)
    }

    /// Applies a moved record that the checkpoint does not cover.
    async fn moved<D: Disk>(
        &mut self,
        disk: &D,
        superblock: &Superblock,
        moved: &MovedRecord,
        scan: &Scan,
    ) -> Result<(), Error> {
        let wanted = |record: &crate::wire::record::Record<'_>| record.header.seq == moved.seq;
        let found = read_record_if(disk, Access::Cached, &superblock.store, moved.at, wanted, |record| {
            let effect = Effect::of(&RecordPayload::parse(record.header.kind, record.payload)?);
            let seq = moved.seq;
            let at = moved.at;
            let len = record.len;
            let batch = BatchStart::default();
            Some(Reread { seq, at, len, moved: true, batch, effect })
        });
        match found.await {
            Ok(Some(record)) => self.take(scan, record),
            Ok(None) | Err(Error::Damaged(_)) => {
                let damage = Damage::new("a record that does not verify", moved.at.offset());
                self.broken.push((scan.number, damage));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Applies a record.
    fn take(&mut self, scan: &Scan, record: Reread) {
        self.replayed.records += 1;
        if self.with_extents {
            self.replayed.extents.push((record.at.offset(), record.len));
        }
        if let Effect::Body { id, relocation, runs, .. } = &record.effect
            && !runs.is_empty()
        {
            let proven = self.store.proves(scan, &record);
            self.store.body(*id, runs, proven);
            if record.moved {
                let last = self.relocations.entry(*id).or_insert(*relocation);
                *last = (*last).max(*relocation);
            }
            if self.relocations.get(id).is_some_and(|last| last > relocation) {
                return;
            }
        }
        self.replayed.is_changed |= !matches!(record.effect, Effect::Nothing | Effect::Checkpoint);
        self.replayed.note_newest(&record);
        let Replayed { index, damaged, .. } = &mut self.replayed;
        if self.base.covers(record.seq) {
            // Moved since, or outdated: at most its location changes.
            index.relocate(record.seq, record.at, &record.effect);
            return;
        }
        if index.apply(record.seq, record.at, &record.effect).is_err() {
            damaged.extend(missing(index, self.base.until, record.at, &record.effect));
        }
        // If the record had no effect, nothing refers to its bodies.
        match &record.effect {
            Effect::Put(put) => put.bodies.as_slice().iter().for_each(|&body| index.collect(body)),
            Effect::PutPart { part, .. } => index.collect(part.body),
            _ => {}
        }
    }
}

/// Returns the damage of a record that refers to a missing item, unless the item was deleted before
/// the checkpoint and is therefore not in it.
fn missing(index: &Index, until: u64, at: Location, effect: &Effect) -> Option<Damage> {
    let (of, what, key) = match effect {
        Effect::Put(put) => (put.bucket, "an object in a bucket whose record is lost", Some(&*put.key.0)),
        Effect::Marker(marker) => {
            (marker.bucket, "a delete marker in a bucket whose record is lost", Some(&*marker.key.0))
        }
        Effect::CreateUpload { bucket, key, .. } => {
            (*bucket, "an upload in a bucket whose record is lost", Some(&*key.0))
        }
        Effect::SetBucket { bucket, .. } => (*bucket, "the settings of a bucket whose record is lost", None),
        Effect::PutPart { bucket, upload, .. } => {
            let of = if index.bucket_by_id(*bucket).is_some() { upload } else { bucket };
            (*of, "a part of an upload whose record is lost", None)
        }
        _ => (u64::MAX, "a record with inconsistent contents", None),
    };
    (of >= until).then(|| Damage::new(what, at.offset()).of(None, key))
}

impl Replayed {
    /// Updates the newest number of a name that a damaged record has too.
    fn note_newest(&mut self, record: &Reread) {
        if self.newest.is_empty() {
            return;
        }
        let (bucket, key) = match &record.effect {
            Effect::Put(put) => (put.bucket, &put.key),
            Effect::Delete { bucket, key } => (*bucket, key),
            Effect::Marker(marker) => (marker.bucket, &marker.key),
            Effect::DeleteVersion(of) => (of.bucket, &of.key),
            _ => return,
        };
        // The deletion of a version concerns no newer one.
        let seq = if let Effect::DeleteVersion(of) = &record.effect { of.version } else { record.seq };
        if let Some(newest) = self.newest.get_mut(&(bucket, key.0.to_string())) {
            *newest = seq.max(*newest);
        }
    }

    /// Reports objects whose bodies are missing.
    fn name_lost(&mut self, bad_bodies: &BTreeMap<BodyId, Damage>) {
        let index = &self.index;
        if bad_bodies.is_empty() && !index.has_lost() {
            return;
        }
        for (bucket, key, entry) in index.objects() {
            if entry.at == Location::LOST {
                self.damaged.push(Damage::new(LOST_OBJECT, 0).of(Some(bucket), Some(key)));
            }
            for id in entry.bodies.as_slice() {
                let lost = || Damage::new("an object whose body's record is lost", entry.at.offset());
                if index.body(*id) == Some(Location::EVICTED) {
                    continue; // Its blocks may be gone.
                }
                let bad = bad_bodies.get(id).cloned().or_else(|| index.is_lost(*id).then(lost));
                self.damaged.extend(bad.map(|damage| damage.of(Some(bucket), Some(key))));
            }
        }
    }
}
