//! Decision about tails: records that nothing proves durable.
//!
//! Such a record may never have been acknowledged, and the data it refers to may be missing:
//! without a sync in between, the device may have written the record and lost the blocks. So
//! the blocks of its bodies are verified, and the items it refers to must exist. Otherwise
//! the sync that would have acknowledged its batch did not complete, and the segment is cut
//! at the start of the batch.
//!
//! Only unproven records are read here, and of them only references to other batches are kept.
//! These are few, since a body is usually in the batch of its object.

use std::collections::BTreeMap;

use super::again::{Again, BatchStart, Reread, Rereader};
use super::base::Base;
use super::scan::Scanned;
use super::segment::{Scan, Suspect};
use crate::disk::Disk;
use crate::error::{Damage, Error, UNREADABLE};
use crate::geometry::blocks;
use crate::index::{Effect, Location, PutMarker};
use crate::limits::{CHUNKS_MAX, PAGE};
use crate::read::read_verified;
use crate::types::BodyId;
use crate::wire::align_up;
use crate::wire::payload::Run;
use crate::wire::superblock::Superblock;

/// The cut of each segment.
type Cuts = BTreeMap<u32, BatchStart>;

/// Cuts the segments with invalid tails.
pub(super) async fn cut<D: Disk>(
    disk: &D,
    superblock: &Superblock,
    store: &mut Scanned,
    base: &Base,
) -> Result<(), Error> {
    let mut cuts = Cuts::new();
    let mut references = References::default();
    let mut damaged = Vec::new();
    let mut suspects = Vec::new();
    for scan in &store.scans {
        let first = scan.spans.partition_point(|span| span.end <= scan.proven);
        let spans = &scan.spans[first..];
        let mut reader = Rereader::new(disk, &superblock.store, store.file_len, scan.end, spans);
        while let Some(again) = reader.next().await? {
            let record = match again {
                Again::Record(record) => record,
                Again::Damaged(damage) => {
                    damaged.push((scan.number, damage));
                    continue;
                }
            };
            if let Effect::Body { id, runs, .. } = &record.effect
                && !store.proves(scan, &record)
                && let Some(loss) = unsound(disk, superblock, store, *id, runs).await?
            {
                // A torn write is expected here; an unreadable sector is not.
                if let Loss::Block(damage) = loss
                    && damage.what == UNREADABLE
                {
                    let name = reader.name_of(*id, record.batch).await?;
                    suspects.push(Suspect { damage, name, stored: None });
                }
                cuts.insert(scan.number, record.batch);
                break; // The rest of this segment is cut with it.
            }
            references.collect(scan.number, &record, store.proves(scan, &record), base);
        }
    }
    for (number, damage) in damaged {
        store.note_damage(number, damage);
    }
    if store.may_cut_orphans(&base.bad) && !references.first.is_empty() {
        let sources = references.sources(disk, superblock, store).await?;
        references.cut_orphans(&sources, &mut cuts);
    }
    store.suspects.extend(suspects);
    for scan in &mut store.scans {
        if let Some(cut) = cuts.get(&scan.number) {
            scan.cut_at(cut.at, cut.prev);
        }
    }
    Ok(())
}

impl Scanned {
    /// Returns whether a record of this segment is proven durable.
    pub(super) fn proves(&self, scan: &Scan, record: &Reread) -> bool {
        (record.seq <= self.watermark && !record.moved) || record.at.offset() < scan.proven
    }

    /// Returns whether a reference to a missing item means that the item was never durable. If
    /// there is damage elsewhere, it may have taken the item; then the object is damaged rather
    /// than cut. `bad`: records of damaged checkpoints, to which nothing refers.
    fn may_cut_orphans(&self, bad: &[Location]) -> bool {
        let is_whole = |scan: &Scan| !scan.damaged || self.lacks_checkpoints_alone(scan, bad);
        self.damage.is_empty() && self.scans.iter().all(is_whole)
    }

    /// Returns whether the unreadable parts of a segment are only records of damaged checkpoints,
    /// one to a batch.
    fn lacks_checkpoints_alone(&self, scan: &Scan, bad: &[Location]) -> bool {
        let within = |suspect: &&Suspect| (scan.start..scan.end).contains(&suspect.damage.offset);
        let is_checkpoint = |suspect: &Suspect| {
            let next = scan.spans.iter().map(|span| span.start).find(|&start| start > suspect.damage.offset);
            let is_all = |at: &Location, next| next <= align_up(at.offset() + u64::from(at.len()), PAGE as u64);
            bad.iter().any(|at| at.offset() == suspect.damage.offset && next.is_some_and(|next| is_all(at, next)))
        };
        let mut missing = self.suspects.iter().filter(within).peekable();
        !scan.lost && missing.peek().is_some() && missing.all(is_checkpoint)
    }

    /// Records that a record no longer verifies.
    pub(super) fn note_damage(&mut self, number: u32, damage: Damage) {
        if let Some(scan) = self.scans.iter_mut().find(|scan| scan.number == number) {
            scan.damaged = true;
        }
        if !self.damage.contains(&damage) {
            self.damage.push(damage);
        }
    }
}

/// The missing part of a body.
enum Loss {
    /// The header of a segment with blocks of it: the one on disk belongs to an earlier use, or to
    /// an attempt without space, and recovery relies on it.
    Header,
    /// The first block that does not verify.
    Block(Damage),
}

/// Verifies the segment headers and the blocks of a body.
async fn unsound<D: Disk>(
    disk: &D,
    superblock: &Superblock,
    store: &Scanned,
    body: BodyId,
    runs: &[Run],
) -> Result<Option<Loss>, Error> {
    if runs.is_empty() {
        return Ok(None);
    }
    if runs.iter().any(|run| store.has_older_header(run)) {
        return Ok(Some(Loss::Header));
    }
    let mut buf = disk.buffer();
    for id in blocks(body, runs) {
        let (result, back) = read_verified(disk, &superblock.store, &id, &(0..CHUNKS_MAX), buf).await;
        buf = back;
        match result {
            Ok(_) => {}
            Err(Error::Damaged(damage)) => return Ok(Some(Loss::Block(*damage))),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// References from unproven records to items that the checkpoint lacks and
/// another batch may have created.
#[derive(Debug, Default)]
struct References {
    /// The first reference in each segment to each identity (bucket, upload or body), with sequence
    /// number and batch. If it survives, so do later ones; if it is cut, they are cut with it.
    first: BTreeMap<(u32, u64), (u64, BatchStart)>,
    /// Bodies of the current batch.
    batch: BatchStart,
    bodies: Vec<BodyId>,
}

/// A record that creates an item: the identity of the item, and the record's sequence number,
/// segment and offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Source {
    id: u64,
    seq: u64,
    segment: u32,
    offset: u64,
}

impl References {
    /// Adds the references of the next record of a segment.
    fn collect(&mut self, segment: u32, record: &Reread, proven: bool, base: &Base) {
        if self.batch != record.batch {
            self.batch = record.batch;
            self.bodies.clear();
        }
        if let Effect::Body { id, .. } = record.effect {
            self.bodies.push(id);
        }
        // A moved record depends on nothing new: if it is outdated, it has no effect.
        if proven || record.moved {
            return;
        }
        // Buckets and uploads with lower numbers existed when the checkpoint was begun, or were
        // gone. Bodies get their numbers long before their records, so this does not hold for them.
        let since = |id: u64| (id >= base.until).then_some(id);
        let unknown = |body: &&BodyId| {
            !self.bodies.contains(body) && base.index.body(**body).is_none_or(|at| at == Location::LOST)
        };
        let (home, bodies): (_, &[BodyId]) = match &record.effect {
            Effect::Put(put) => (since(put.bucket), put.bodies.as_slice()),
            Effect::CreateUpload { bucket, .. }
            | Effect::SetBucket { bucket, .. }
            | Effect::Marker(PutMarker { bucket, .. }) => (since(*bucket), &[]),
            Effect::PutPart { upload, part, .. } => (since(*upload), std::slice::from_ref(&part.body)),
            // These create or delete an item, or have no reference. A missing target
            // of a deletion is harmless.
            Effect::CreateBucket { .. }
            | Effect::Body { .. }
            | Effect::DeleteBucket { .. }
            | Effect::Delete { .. }
            // Nor does one of a version that is missing.
            | Effect::DeleteVersion(_)
            | Effect::LockVersion { .. }
            | Effect::TagVersion(_)
            | Effect::EvictVersion(_)
            | Effect::LockClock { .. }
            | Effect::AbortUpload { .. }
            | Effect::Moved(_)
            | Effect::Checkpoint
            | Effect::Nothing => (None, &[]),
        };
        for id in home.into_iter().chain(bodies.iter().filter(unknown).map(|body| body.0)) {
            self.first.entry((segment, id)).or_insert((record.seq, record.batch));
        }
    }

    /// Finds every record that creates a referenced item.
    async fn sources<D: Disk>(&self, disk: &D, superblock: &Superblock, store: &Scanned) -> Result<Vec<Source>, Error> {
        let mut wanted: Vec<u64> = self.first.keys().map(|&(_, id)| id).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let is_wanted = |id: u64| wanted.binary_search(&id).is_ok();
        let mut sources = Vec::new();
        for scan in &store.scans {
            let segment = scan.number;
            let created = scan.created.iter().filter(|(id, _)| is_wanted(*id));
            sources.extend(created.map(|&(id, offset)| Source { id, seq: id, segment, offset }));
        }
        wanted.retain(|&id| sources.iter().all(|source| source.id != id));
        if wanted.is_empty() {
            return Ok(sources);
        }
        let is_wanted = |id: u64| wanted.binary_search(&id).is_ok();
        for scan in &store.scans {
            let mut reader = Rereader::new(disk, &superblock.store, store.file_len, scan.end, &scan.spans);
            // A record that does not verify creates nothing; replay reports it.
            while let Some(again) = reader.next().await? {
                if let Again::Record(Reread { seq, at, effect: Effect::Body { id: BodyId(id), .. }, .. }) = again
                    && is_wanted(id)
                {
                    sources.push(Source { id, seq, segment: scan.number, offset: at.offset() });
                }
            }
        }
        Ok(sources)
    }

    /// Cuts every batch with a reference to an item that no earlier record creates,
    /// until there is none left.
    fn cut_orphans(&self, sources: &[Source], cuts: &mut Cuts) {
        let is_cut = |cuts: &Cuts, segment, offset| cuts.get(&segment).is_some_and(|cut: &BatchStart| offset >= cut.at);
        let mut by_id: BTreeMap<u64, Vec<&Source>> = BTreeMap::new();
        for source in sources {
            by_id.entry(source.id).or_default().push(source);
        }
        loop {
            let mut changed = false;
            for (&(segment, id), &(seq, batch)) in &self.first {
                let is_made = by_id.get(&id).is_some_and(|sources| {
                    sources.iter().any(|source| source.seq < seq && !is_cut(cuts, source.segment, source.offset))
                });
                if !is_made && !is_cut(cuts, segment, batch.at) {
                    cuts.insert(segment, batch);
                    changed = true;
                }
            }
            if !changed {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{Bodies, Index, Put};
    use crate::types::Etag;
    use crate::version::Lock;
    use crate::wire::payload::RecordedId;

    const SEGMENT: u32 = 7;

    fn record(seq: u64, batch: u64, effect: Effect) -> Reread {
        let at = Location::new(crate::limits::SEGMENTS_START + batch + seq * 8, 8);
        let batch = BatchStart { at: crate::limits::SEGMENTS_START + batch, prev: 0 };
        Reread { seq, at, len: 8, moved: false, batch, effect }
    }

    fn put(bucket: u64, body: u64) -> Effect {
        let key = "k".into();
        let upload = None;
        let etag = Etag { digest: [0; 16], parts: 0 };
        Effect::Put(Put {
            bucket,
            key,
            size: 0,
            time_ms: 0,
            etag,
            sealed: false,
            bodies: Bodies::One(BodyId(body)),
            upload,
            id: RecordedId::Null,
            lock: Lock::default(),
        })
    }

    fn body(id: u64) -> Effect {
        Effect::Body { id: BodyId(id), relocation: 0, len: 0, runs: Vec::new() }
    }

    fn base(until: u64) -> Base {
        Base { until, index: Index::replay(crate::limits::SEGMENT_LEN), ..Base::default() }
    }

    /// Returns the references of these unproven records.
    fn references(base: &Base, records: &[Reread]) -> Vec<u64> {
        let mut references = References::default();
        records.iter().for_each(|record| references.collect(SEGMENT, record, false, base));
        references.first.keys().map(|&(_, id)| id).collect()
    }

    #[test]
    fn references_to_checkpoint_and_own_batch_are_left_out() {
        let base = base(5);
        assert_eq!(
            references(&base, &[record(9, 0, put(1, 2))]),
            [2],
            "the checkpoint covers the bucket, not the body"
        );
        assert_eq!(references(&base, &[record(9, 0, put(6, 2))]), [2, 6]);
        assert_eq!(references(&base, &[record(8, 0, body(2)), record(9, 0, put(1, 2))]), []);
        assert_eq!(references(&base, &[record(8, 0, body(2)), record(9, 4096, put(1, 2))]), [2], "of another batch");
        assert_eq!(references(&base, &[record(10, 0, Effect::DeleteBucket { bucket: 77 })]), []);
        let moved = Reread { moved: true, ..record(9, 0, put(6, 2)) };
        assert_eq!(references(&base, &[moved]), []);
    }

    #[test]
    fn orphans_are_cut_with_their_dependents() {
        let batch = |at| BatchStart { at, prev: 0 };
        let source = |id, seq, segment, offset| Source { id, seq, segment, offset };
        // Segment 1 refers to the missing 100 and creates 50 after it. Segment 2 refers to 50 and
        // creates 60. Segment 3 refers to 60, and before that to 70, which exists.
        let first = BTreeMap::from([
            ((1, 100), (10, batch(4096))),
            ((2, 50), (12, batch(8192))),
            ((3, 60), (14, batch(12288))),
            ((3, 70), (13, batch(4096))),
        ]);
        let references = References { first, ..References::default() };
        let sources = [source(50, 11, 1, 4200), source(60, 13, 2, 8300), source(70, 9, 4, 4096)];
        let mut cuts = Cuts::new();
        references.cut_orphans(&sources, &mut cuts);
        assert_eq!(cuts, Cuts::from([(1, batch(4096)), (2, batch(8192)), (3, batch(12288))]));
        // A source with a higher number comes too late.
        let references = References { first: BTreeMap::from([((1, 50), (10, batch(4096)))]), ..References::default() };
        for (seq, expected) in [(9, 0), (11, 1)] {
            let mut cuts = Cuts::new();
            references.cut_orphans(&[source(50, seq, 2, 4096)], &mut cuts);
            assert_eq!(cuts.len(), expected, "{seq}");
        }
    }
}
