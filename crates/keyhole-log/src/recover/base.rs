//! The starting point of recovery: the newest readable checkpoint, or an empty state.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::disk::{Access, Disk};
use crate::error::{Damage, Error};
use crate::index::{Index, Loader, Location};
use crate::limits::SEGMENTS_START;
use crate::read::read_record_if;
use crate::wire::checkpoint::{CheckpointEnd, SegmentItem, SegmentUse};
use crate::wire::payload::RecordPayload;
use crate::wire::record::Record;
use crate::wire::segment::Header;
use crate::wire::superblock::Superblock;

/// The header of each segment and its checksum; `None` if it does not verify.
pub(super) type Headers = Vec<Option<(Header, u32)>>;

/// A checkpoint to recover from. Without one the whole file is replayed.
#[derive(Debug, Default)]
pub(super) struct Base {
    /// Whether there is a checkpoint.
    pub(super) exists: bool,
    /// Whether a newer checkpoint was completed and cannot be read.
    pub(super) is_previous: bool,
    /// Records with lower numbers are in the index, except pending ones.
    pub(super) until: u64,
    pub(super) pending: BTreeSet<u64>,
    /// Every record with a number up to this was durable or does not exist.
    pub(super) watermark: u64,
    /// Lower bound of the watermarks in records to replay.
    pub(super) floor: u64,
    pub(super) segments: BTreeMap<u32, SegmentItem>,
    /// META segments and the offset below which each was durable.
    pub(super) ends: Vec<(u32, u32)>,
    pub(super) index: Index,
    /// Records of checkpoints that do not verify.
    pub(super) bad: Vec<Location>,
}

impl Base {
    /// Returns whether the index already covers the record of this number, unless it is outdated.
    pub(super) fn covers(&self, seq: u64) -> bool {
        seq < self.until && !self.pending.contains(&seq)
    }

    /// Returns the checkpoint's item for a segment. `None` also if the segment was just being
    /// begun, which counts as unknown.
    pub(super) fn known(&self, number: u32) -> Option<&SegmentItem> {
        let known =
            |item: &&SegmentItem| item.written > 0 || matches!(item.use_, SegmentUse::Blank | SegmentUse::Damaged);
        self.segments.get(&number).filter(known)
    }

    /// Returns the highest generation of leftover bytes from earlier uses of a segment.
    pub(super) fn stale(&self, number: u32) -> u64 {
        match (self.known(number), self.segments.get(&number)) {
            (Some(item), _) => item.generation,
            // Known only: it was being begun with this generation.
            (None, begun) => begun.map_or(0, |item| item.generation.saturating_sub(1)),
        }
    }

    /// Returns the lowest generation of a segment that was begun since the checkpoint, or that was being
    /// begun then.
    pub(super) fn fresh(&self, number: u32) -> u64 {
        // A checkpoint that was changed on purpose has any generation.
        if self.exists { self.stale(number).saturating_add(1) } else { 0 }
    }

    /// Returns the offset below which a segment was durable when the checkpoint was written.
    pub(super) fn durable(&self, number: u32) -> u32 {
        self.ends.iter().filter(|(segment, _)| *segment == number).map(|(_, written)| *written).max().unwrap_or(0)
    }
}

/// Loads the newest readable checkpoint. Reports unreadable ones.
///
/// # Errors
/// `Damaged` if there are checkpoints and none can be read, unless `rebuild` is set; `Io`.
pub(super) async fn load<D: Disk>(
    disk: &D,
    superblock: &Superblock,
    headers: &Headers,
    rebuild: bool,
    damage: &mut Vec<Damage>,
) -> Result<Base, Error> {
    let reader = CheckpointReader { disk, superblock, headers, bad: RefCell::default() };
    let ends = superblock.checkpoints.map(Location::from_raw);
    let mut base = None;
    for (i, &at) in ends.iter().enumerate().filter(|(_, at)| **at != Location::LOST) {
        match reader.load(at).await {
            Ok(loaded) => {
                base = Some((i, loaded));
                break;
            }
            Err(Error::Damaged(found)) => damage.push(Damage::mendable("a checkpoint", found.offset)),
            Err(error) => return Err(error),
        }
    }
    let Some((newest, (mut base, records))) = base else {
        if ends[0] == Location::LOST || rebuild {
            let index = Index::replay(superblock.segment_len);
            return Ok(Base { index, bad: reader.bad.into_inner(), ..Base::default() });
        }
        return Err(Damage::error("every checkpoint (keyhole check --repair makes a new one)", ends[0].offset()));
    };
    base.is_previous = newest > 0;
    base.index.keep_checkpoint(records);
    // The previous checkpoint is kept as well, if it is readable.
    if let Some(&at) = ends.get(newest + 1).filter(|at| **at != Location::LOST) {
        match reader.end(at).await {
            Ok((end, _)) => base.index.keep_checkpoint(locations(&end, at)),
            Err(Error::Damaged(found)) => damage.push(Damage::mendable("a checkpoint", found.offset)),
            Err(error) => return Err(error),
        }
    }
    base.bad = reader.bad.into_inner();
    Ok(base)
}

/// Returns whether every record of the checkpoint that ends at a location verifies.
pub(super) async fn verifies<D: Disk>(
    disk: &D,
    superblock: &Superblock,
    headers: &BTreeMap<u32, Header>,
    at: Location,
) -> Result<bool, Error> {
    let count = headers.keys().next_back().map_or(0, |last| last + 1);
    // Header checksums are not used.
    let headers = (0..count).map(|number| headers.get(&number).map(|header| (header.clone(), 0))).collect();
    let reader = CheckpointReader { disk, superblock, headers: &headers, bad: RefCell::default() };
    match reader.load(at).await {
        Ok(_) => Ok(true),
        Err(Error::Damaged(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns the locations of all records of a checkpoint.
fn locations(end: &CheckpointEnd, at: Location) -> Vec<Location> {
    end.item_records.iter().map(|&record| Location::from_raw(record)).chain([at]).collect()
}

/// Reads the records of checkpoints.
pub(super) struct CheckpointReader<'a, D> {
    pub(super) disk: &'a D,
    pub(super) superblock: &'a Superblock,
    pub(super) headers: &'a Headers,
    /// Records that did not verify.
    pub(super) bad: RefCell<Vec<Location>>,
}

impl<D: Disk> CheckpointReader<'_, D> {
    /// Reads a record of a checkpoint and extracts a value from it.
    async fn record<T>(
        &self,
        at: Location,
        take: impl FnOnce(u64, RecordPayload<'_>) -> Option<T>,
    ) -> Result<T, Error> {
        let damaged = || {
            self.bad.borrow_mut().push(at);
            Damage::error("a checkpoint", at.offset())
        };
        let start = at.offset().checked_sub(SEGMENTS_START).ok_or_else(damaged)?;
        let number = (start / self.superblock.segment_len) as usize;
        let header = self.headers.get(number).and_then(Option::as_ref);
        // If the segment header cannot be read, the record alone must suffice.
        let known = header.map(|(header, _)| header.generation);
        let wanted = |record: &Record<'_>| known.is_none_or(|known| known == record.header.generation);
        let found = read_record_if(self.disk, Access::Cached, &self.superblock.store, at, wanted, |record| {
            let seq = record.header.seq;
            RecordPayload::parse(record.header.kind, record.payload).and_then(|payload| take(seq, payload))
        });
        match found.await {
            Ok(found) => found.ok_or_else(damaged),
            Err(Error::Damaged(_)) => Err(damaged()),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn end(&self, at: Location) -> Result<(CheckpointEnd, u64), Error> {
        self.record(at, |seq, payload| match payload {
            RecordPayload::Checkpoint(end) => Some((end, seq)),
            _ => None,
        })
        .await
    }

    async fn load(&self, at: Location) -> Result<(Base, Vec<Location>), Error> {
        let (end, _) = self.end(at).await?;
        let mut loader = Loader::new(self.superblock.segment_len);
        for (index, &record) in (0u32..).zip(&end.item_records) {
            let loaded = self.record(Location::from_raw(record), |_, payload| match payload {
                RecordPayload::CheckpointItems(record) if record.until == end.until && record.index == index => {
                    loader.load(&record)
                }
                _ => None,
            });
            loaded.await?;
        }
        loader.finish();
        let records = locations(&end, at);
        let CheckpointEnd { until, watermark, floor, ends, .. } = end;
        let segments = loader.segments.into_iter().map(|segment| (segment.number, segment)).collect();
        let index = loader.index;
        let pending = loader.pending;
        let base = Base { exists: true, until, pending, watermark, floor, segments, ends, index, ..Base::default() };
        Ok((base, records))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greatest_generation_is_followed_by_no_other() {
        for (exists, generation, fresh) in
            [(true, 9, 10), (true, u64::MAX - 1, u64::MAX), (true, u64::MAX, u64::MAX), (false, 9, 0)]
        {
            let item = SegmentItem { number: 3, use_: SegmentUse::Blank, generation, written: 0, prev: 0 };
            let base = Base { exists, segments: BTreeMap::from([(3, item)]), ..Base::default() };
            assert_eq!(base.fresh(3), fresh);
        }
    }

    #[test]
    fn segment_being_begun_at_checkpoint_is_not_stale() {
        use SegmentUse::{Blank, Condemned, Damaged, OpenBody, OpenMeta};
        for (use_, written, known, stale) in [
            (Blank, 0, true, 9),
            (Damaged, 0, true, 9),
            (Condemned, 4096, true, 9),
            (OpenMeta, 4096, true, 9),
            (OpenMeta, 0, false, 8),
            (OpenBody, 0, false, 8),
        ] {
            let item = SegmentItem { number: 3, use_, generation: 9, written, prev: 0 };
            let base = Base { segments: BTreeMap::from([(3, item)]), ..Base::default() };
            assert_eq!((base.known(3).is_some(), base.stale(3)), (known, stale), "{use_:?} {written}");
            assert_eq!((base.known(4).is_some(), base.stale(4)), (false, 0));
        }
    }
}
