//! Deciding about the tails: records that nothing proves to have been durable.
//!
//! Such a record was perhaps never acknowledged, and what it refers to may not be there: the device may have written the record
//! and lost the blocks, which no sync had separated. So the blocks of its bodies are verified, and what it names must exist. If
//! not, its batch was not acknowledged, for the sync that would have made it so did not complete: the segment is cut at the
//! beginning of the batch.
//!
//! Only what is not proven is read here, and of it only references to other batches are kept: they are few, as a body stands in
//! the batch of its object.

use std::collections::BTreeMap;

use super::again::{Again, BatchStart, Reread, Rereader};
use super::base::Base;
use super::scan::{Scan, Store, Suspect};
use crate::body::blocks;
use crate::disk::Disk;
use crate::error::{Damage, Error, UNREADABLE};
use crate::index::{Effect, Location};
use crate::limits::{CHUNKS_MAX, PAGE};
use crate::log::read_verified;
use crate::types::BodyId;
use crate::wire::align_up;
use crate::wire::payload::Run;
use crate::wire::superblock::Superblock;

/// Where segments are cut.
type Cuts = BTreeMap<u32, BatchStart>;

/// Cuts the segments where they have to be.
pub(super) async fn cut<D: Disk>(
    disk: &D,
    superblock: &Superblock,
    store: &mut Store,
    base: &Base,
) -> Result<(), Error> {
    let (mut cuts, mut references, mut damaged) = (Cuts::new(), References::default(), Vec::new());
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
                // A torn write is no news, but a sector that cannot be read is.
                if let Loss::Block(damage) = loss
                    && damage.what == UNREADABLE
                {
                    let name = reader.name_of(*id, record.batch).await?;
                    suspects.push(Suspect { damage, name, stored: None });
                }
                cuts.insert(scan.number, record.batch);
                break; // What follows in this segment goes with it.
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

impl Store {
    /// Whether a record of this segment is proven to have been durable.
    pub(super) fn proves(&self, scan: &Scan, record: &Reread) -> bool {
        (record.seq <= self.watermark && !record.moved) || record.at.offset() < scan.proven
    }

    /// Whether a record that nothing made refers to what was never durable. Elsewhere damage may have taken what made it: then the
    /// object is damaged, and not cut. `bad`: records of damaged checkpoints; nothing refers to these.
    fn may_cut_orphans(&self, bad: &[Location]) -> bool {
        let is_whole = |scan: &Scan| !scan.damaged || self.lacks_checkpoints_alone(scan, bad);
        self.damage.is_empty() && self.scans.iter().all(is_whole)
    }

    /// Whether all that cannot be read of a segment is records of damaged checkpoints, one to a batch.
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

    /// Notes that a record which had verified does not any more.
    pub(super) fn note_damage(&mut self, number: u32, damage: Damage) {
        if let Some(scan) = self.scans.iter_mut().find(|scan| scan.number == number) {
            scan.damaged = true;
        }
        if !self.damage.contains(&damage) {
            self.damage.push(damage);
        }
    }
}

/// What of a body is not there.
enum Loss {
    /// The header of a segment with blocks of it. What stands there is of an earlier use, or of an attempt for which there was no
    /// space, and the opening goes by that.
    Header,
    /// The first block that does not verify.
    Block(Damage),
}

/// Verifies the headers that the blocks of a body are under, and the blocks.
async fn unsound<D: Disk>(
    disk: &D,
    superblock: &Superblock,
    store: &Store,
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

/// References of records that are not proven to what the checkpoint does not know and another batch may have made.
#[derive(Debug, Default)]
struct References {
    /// The first reference in each segment to each identity (of a bucket, an upload or a body): sequence number and batch. If
    /// that one is not to be cut none is, and cutting it cuts the others.
    first: BTreeMap<(u32, u64), (u64, BatchStart)>,
    /// Bodies of the batch that is being read.
    batch: BatchStart,
    bodies: Vec<BodyId>,
}

/// A record that makes something: its identity, and the record's sequence number, segment and offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Source {
    id: u64,
    seq: u64,
    segment: u32,
    offset: u64,
}

impl References {
    /// Takes in the next record of a segment.
    fn collect(&mut self, segment: u32, record: &Reread, proven: bool, base: &Base) {
        if self.batch != record.batch {
            self.batch = record.batch;
            self.bodies.clear();
        }
        if let Effect::Body { id, .. } = record.effect {
            self.bodies.push(id);
        }
        // What the cleaner has written again builds on nothing new: if it is out of date it has no effect.
        if proven || record.moved {
            return;
        }
        // Buckets and uploads of lower numbers were there when the checkpoint was begun, or had gone. Bodies are not told by that:
        // they have their numbers long before they have records.
        let since = |id: u64| (id >= base.until).then_some(id);
        let unknown = |body: &&BodyId| {
            !self.bodies.contains(body) && base.index.body(**body).is_none_or(|at| at == Location::LOST)
        };
        let (home, bodies): (_, &[BodyId]) = match &record.effect {
            Effect::Put(put) => (since(put.bucket), put.bodies.as_slice()),
            Effect::CreateUpload { bucket, .. } | Effect::SetBucket { bucket, .. } => (since(*bucket), &[]),
            Effect::PutPart { upload, part, .. } => (since(*upload), std::slice::from_ref(&part.body)),
            // These make something, take it away, or say nothing: if what they take away is not there, all the better.
            Effect::CreateBucket { .. }
            | Effect::Body { .. }
            | Effect::DeleteBucket { .. }
            | Effect::Delete { .. }
            | Effect::AbortUpload { .. }
            | Effect::Moved(_)
            | Effect::Checkpoint
            | Effect::Nothing => (None, &[]),
        };
        for id in home.into_iter().chain(bodies.iter().filter(unknown).map(|body| body.0)) {
            self.first.entry((segment, id)).or_insert((record.seq, record.batch));
        }
    }

    /// Everything that makes what is referred to.
    async fn sources<D: Disk>(&self, disk: &D, superblock: &Superblock, store: &Store) -> Result<Vec<Source>, Error> {
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
            // What does not verify makes nothing; it is reported when the records take effect.
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

    /// Cuts every batch with a reference to what no record ahead of it makes, until there is none.
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

    const SEGMENT: u32 = 7;

    fn record(seq: u64, batch: u64, effect: Effect) -> Reread {
        let at = Location::new(crate::limits::SEGMENTS_START + batch + seq * 8, 8);
        let batch = BatchStart { at: crate::limits::SEGMENTS_START + batch, prev: 0 };
        Reread { seq, at, len: 8, moved: false, batch, effect }
    }

    fn put(bucket: u64, body: u64) -> Effect {
        let (key, upload, etag) = ("k".into(), None, Etag { digest: [0; 16], parts: 0 });
        Effect::Put(Put {
            bucket,
            key,
            size: 0,
            time_ms: 0,
            etag,
            sealed: false,
            bodies: Bodies::One(BodyId(body)),
            upload,
        })
    }

    fn body(id: u64) -> Effect {
        Effect::Body { id: BodyId(id), placed: 0, len: 0, runs: Vec::new() }
    }

    fn base(until: u64) -> Base {
        Base { until, index: Index::replay(crate::limits::SEGMENT_LEN), ..Base::default() }
    }

    /// What is referred to by these records, none of which is proven.
    fn references(base: &Base, records: &[Reread]) -> Vec<u64> {
        let mut references = References::default();
        records.iter().for_each(|record| references.collect(SEGMENT, record, false, base));
        references.first.keys().map(|&(_, id)| id).collect()
    }

    #[test]
    fn references_leave_out_the_checkpoint_and_the_own_batch() {
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
    fn orphans_are_cut_with_all_that_builds_on_them() {
        let batch = |at| BatchStart { at, prev: 0 };
        let source = |id, seq, segment, offset| Source { id, seq, segment, offset };
        // Segment 1 refers to 100, which is nowhere, and makes 50 behind it; segment 2 refers to 50, and makes 60; segment 3 refers
        // to 60, and ahead of that to 70, which is there.
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
