//! The segment table: the state of every segment, and allocation by purpose.
//!
//! A segment is *blank* until it is begun, then *open*, then *closed*. A closed segment without
//! live data is *condemned*: it becomes blank once no kept checkpoint refers to it and no reader
//! has it pinned.

mod reserve;
mod segment;
mod space;

use std::collections::BTreeSet;

pub(crate) use segment::{Purpose, Segment, Use};
pub(crate) use space::{Ask, Step};

use crate::limits::{
    CLEAN_AHEAD, CLEAN_BATCH, LIVE_MAX, PAGE, SEGMENTS_FIXED, SEGMENTS_PER_WORKER, SEGMENTS_START, WORKERS_MAX,
};
use crate::wire::checkpoint::{SegmentItem, SegmentUse};
use crate::wire::segment::Kind;
use reserve::Reserve;
use segment::Growth;

/// The table of segments.
#[derive(Debug)]
pub(crate) struct Segments {
    pub(crate) len: u64,
    pub(crate) capacity: u64,
    pub(crate) table: Vec<Segment>,
    blank: BTreeSet<u32>,
    pub(crate) workers: u64,
    pub(crate) reserve: Reserve,
    /// Workers that have no META segment yet. One segment is reserved for each.
    pub(crate) without_meta: u64,
    /// Checkpoints begun since the log was opened.
    pub(crate) checkpoints: u64,
    /// Segments condemned minus segments begun by the maintenance: the cleaner's net gain, whatever
    /// other writers allocate.
    pub(crate) progress: i64,
    growth: Growth,
    /// Blank segments being allocated, filled or discarded. They become available again shortly.
    withdrawn: u32,
    /// Whether a write failed for lack of space and the file system has provided none since. Blocks
    /// everything that grows the store.
    is_unwritable: bool,
    /// Whether META segments are filled before use.
    fills: bool,
}

impl Segments {
    pub(crate) fn new(len: u64, capacity: u64, table: Vec<Segment>, workers: u64) -> Self {
        let blank = table.iter().zip(0..).filter(|(s, _)| s.used == Use::Blank).map(|(_, number)| number).collect();
        let reserve = Reserve::of(Segments::most(len, capacity), workers, 0, len);
        Segments {
            len,
            capacity,
            table,
            blank,
            workers,
            reserve,
            without_meta: workers,
            checkpoints: 0,
            progress: 0,
            growth: Growth::Open,
            withdrawn: 0,
            is_unwritable: false,
            fills: false,
        }
    }

    /// Returns the limit on live bytes above which only deletions are accepted.
    pub(crate) fn live_max(&self) -> u64 {
        let most = Segments::most(self.len, self.capacity);
        most.saturating_sub(self.reserve.total()) * self.len / 100 * LIVE_MAX
    }

    /// Returns the number of segments that fit into a capacity.
    pub(crate) fn most(len: u64, capacity: u64) -> u64 {
        capacity.saturating_sub(SEGMENTS_START) / len
    }

    /// Returns the number of workers, at least one, with which a capacity can still reclaim all
    /// deleted space.
    pub(crate) fn workers_max(len: u64, capacity: u64) -> usize {
        let rest = Segments::most(len, capacity).saturating_sub(SEGMENTS_FIXED);
        usize::try_from(rest / SEGMENTS_PER_WORKER).unwrap_or(usize::MAX).clamp(1, WORKERS_MAX)
    }

    /// Adapts the reserve to the size of a checkpoint.
    pub(crate) fn set_checkpoint_len(&mut self, bytes: u64) {
        self.reserve = Reserve::of(Segments::most(self.len, self.capacity), self.workers, bytes, self.len);
    }

    pub(crate) fn start(&self, number: u32) -> u64 {
        SEGMENTS_START + u64::from(number) * self.len
    }

    /// Returns the segment that contains an offset, if there is one.
    pub(crate) fn number(&self, offset: u64) -> Option<u32> {
        let number = offset.checked_sub(SEGMENTS_START)? / self.len;
        ((number as usize) < self.table.len()).then_some(number as u32)
    }

    /// Returns the generation of the segment that contains an offset.
    pub(crate) fn generation(&self, offset: u64) -> Option<u64> {
        let segment = &self.table[self.number(offset)? as usize];
        segment.in_use().then_some(segment.generation)
    }

    /// Returns the length of the file, including segments that are taken but not yet allocated.
    pub(crate) fn allocated(&self) -> u64 {
        SEGMENTS_START + self.table.len() as u64 * self.len
    }

    /// Returns the number of blank segments that are allocated.
    fn ready(&self) -> u64 {
        self.blank.iter().filter(|&&number| self.table[number as usize].allocated).count() as u64
    }

    /// Returns the number of segments that can still be begun.
    pub(crate) fn free(&self) -> u64 {
        if self.is_growth_blocked() {
            return self.ready();
        }
        let growth = Segments::most(self.len, self.capacity).saturating_sub(self.table.len() as u64);
        growth + self.blank.len() as u64
    }

    /// Returns the unreserved segments that are or will become available. Segments that wait to be
    /// freed count as free, and those that the maintenance is filling count towards its reserve. If
    /// the file system is full, capacity is not the limiting resource.
    fn gained(&self) -> u64 {
        let reserved =
            if self.is_growth_blocked() { self.reserve.blank() } else { self.reserve.unfilled() } + self.without_meta;
        let free = self.free();
        if free >= reserved + CLEAN_AHEAD {
            // Avoids counting the table when the answer does not depend on it.
            return free - reserved;
        }
        let filled =
            self.table.iter().filter(|segment| segment.cleaner && matches!(segment.used, Use::Open(_))).count() as u64;
        (free + self.waiting() + filled).saturating_sub(reserved)
    }

    /// Returns the unreserved segments that can be begun before one must be freed.
    pub(crate) fn at_hand(&self) -> u64 {
        self.free().saturating_sub(self.reserve.deletions + self.reserve.least + self.without_meta)
    }

    /// Returns the unreserved segments that can be begun now.
    pub(crate) fn spare(&self) -> u64 {
        self.gained().min(self.at_hand())
    }

    /// Returns the maximum number of segments cleaned between two checkpoints. Two such batches may
    /// wait to be freed.
    pub(crate) fn batch(&self) -> usize {
        let Reserve { cleaner, waiting, least, .. } = self.reserve;
        CLEAN_BATCH.max(((waiting + cleaner - least) / 2) as usize)
    }

    /// Returns whether an unreserved segment can be begun.
    pub(crate) fn has_spare(&self) -> bool {
        !self.is_unwritable && self.spare() > 0
    }

    /// Takes a blank segment, or extends the file by one.
    pub(crate) fn take(&mut self, purpose: Purpose, generation: u64) -> Option<u32> {
        let (kind, allowed) = match purpose {
            Purpose::Body => (Kind::Body, self.has_spare()),
            Purpose::Meta { first: false } => (Kind::Meta, self.has_spare()),
            Purpose::Meta { first: true } => (Kind::Meta, self.free() > 0),
            // The cleaner's use of its reserve must not stop deletions: without them it may have
            // nothing to gain.
            Purpose::Deletions => (Kind::Meta, self.free() > self.reserve.checkpoints),
            // If segments wait only for checkpoints, a checkpoint may use the last segment: it
            // frees more, also for deletions.
            Purpose::Clean(Kind::Meta) => {
                (Kind::Meta, self.free() > self.reserve.deletions || (self.free() > 0 && self.waiting() > 0))
            }
            Purpose::Clean(kind) => (kind, self.free() > self.reserve.deletions),
        };
        if !allowed {
            return None;
        }
        let reserved = !matches!(purpose, Purpose::Body | Purpose::Meta { .. });
        let number = self.pop_blank(reserved, kind)?;
        let cleaner = matches!(purpose, Purpose::Clean(_));
        self.progress -= i64::from(cleaner);
        let segment = &mut self.table[number as usize];
        let Segment { generation: before, allocated, filled, .. } = *segment;
        *segment = Segment { used: Use::Open(kind), generation, before, cleaner, allocated, filled, ..Segment::BLANK };
        Some(number)
    }

    /// Pops a blank segment, preferring an allocated one, which is faster and easier on the medium.
    /// Allocated segments are left to the reserve if there are others. While growth is blocked only
    /// allocated ones are returned. Records prefer filled segments, blocks the others.
    fn pop_blank(&mut self, reserved: bool, kind: Kind) -> Option<u32> {
        let blocked = self.is_growth_blocked();
        let ready = reserved || blocked || self.ready() > self.reserve.blank();
        let blank = self.blank.iter().copied().filter(|&number| self.table[number as usize].allocated == ready);
        let first = blank.min_by_key(|&number| (self.is_filled(number) != (kind == Kind::Meta), number));
        let number = match (first, self.blank.first().copied()) {
            (Some(number), _) => number,
            (None, _) if blocked => return None,
            (None, _) if (self.table.len() as u64) < Segments::most(self.len, self.capacity) => {
                self.table.push(Segment::BLANK);
                return Some((self.table.len() - 1) as u32);
            }
            (None, any) => any?,
        };
        self.blank.remove(&number);
        Some(number)
    }

    pub(crate) fn close(&mut self, number: u32) {
        let segment = &mut self.table[number as usize];
        if let Use::Open(kind) = segment.used {
            segment.used = Use::Closed(kind);
        }
    }

    pub(crate) fn condemn(&mut self, number: u32) {
        self.table[number as usize].used = Use::Condemned(self.checkpoints);
        self.progress += 1;
    }

    /// Returns the number of segments that wait to be freed.
    pub(crate) fn condemned(&self) -> u64 {
        self.table.iter().filter(|segment| matches!(segment.used, Use::Condemned(_))).count() as u64
    }

    /// Returns how many of them wait only for checkpoints.
    pub(crate) fn waiting(&self) -> u64 {
        let waits = |segment: &&Segment| matches!(segment.used, Use::Condemned(_)) && segment.pins == 0;
        self.table.iter().filter(waits).count() as u64
    }

    /// Returns the number of segments condemned since the newest checkpoint was begun.
    pub(crate) fn fresh(&self) -> usize {
        self.table.iter().filter(|segment| segment.used == Use::Condemned(self.checkpoints)).count()
    }

    /// Frees the condemned segments that no checkpoint from `oldest` on (counted
    /// since the opening) refers to.
    pub(crate) fn free_condemned(&mut self, oldest: u64) -> Vec<u32> {
        let freed: Vec<u32> = (0..)
            .zip(&self.table)
            .filter(|(_, s)| matches!(s.used, Use::Condemned(begun) if begun < oldest) && s.pins == 0)
            .map(|(number, _)| number)
            .collect();
        for &number in &freed {
            // The generation is kept, so that leftover bytes of it are never taken for valid.
            let Segment { generation, allocated, filled, written, .. } = self.table[number as usize];
            let filled = filled.max(written);
            self.table[number as usize] = Segment { generation, allocated, filled, ..Segment::BLANK };
            self.blank.insert(number);
        }
        freed
    }

    /// Returns the table's items for a checkpoint.
    pub(crate) fn items(&self) -> impl Iterator<Item = SegmentItem> {
        self.table.iter().zip(0..).map(|(segment, number)| {
            let use_ = match segment.used {
                Use::Blank => SegmentUse::Blank,
                Use::Open(Kind::Meta) => SegmentUse::OpenMeta,
                Use::Open(Kind::Body) => SegmentUse::OpenBody,
                Use::Closed(Kind::Meta) => SegmentUse::ClosedMeta,
                Use::Closed(Kind::Body) => SegmentUse::ClosedBody,
                Use::Condemned(_) => SegmentUse::Condemned,
                Use::Damaged => SegmentUse::Damaged,
            };
            let Segment { generation, written, settled, prev, .. } = *segment;
            // Records that are written but not applied must be replayed.
            let written = if segment.used == Use::Open(Kind::Meta) { settled } else { written };
            SegmentItem { number, use_, generation, written, prev }
        })
    }

    /// Returns the end offset of the possibly live bytes of a segment.
    pub(crate) fn written(&self, number: u32) -> u64 {
        self.start(number) + u64::from(self.table[number as usize].written.max(PAGE as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = 2 << 20;

    #[test]
    fn full_store_keeps_reserve_for_deletions_and_cleaner() {
        // 24 segments, two workers: three reserved for deletions, one for their checkpoints, four
        // for the cleaner, one for cleaned segments, two for the first records; one is slack.
        let mut segments = Segments::new(LEN, SEGMENTS_START + 24 * LEN, Vec::new(), 2);
        let bodies = (0..30).filter(|_| segments.take(Purpose::Body, 1).is_some()).count();
        assert_eq!((bodies, segments.live_max()), (13, 14 * LEN / 100 * 99));
        assert_eq!(segments.take(Purpose::Meta { first: false }, 1), None);
        assert_eq!(segments.take(Purpose::Meta { first: true }, 1), Some(13));
        segments.without_meta -= 1;
        assert_eq!(segments.take(Purpose::Deletions, 1), Some(14));
        segments.give_back(14);
        assert_eq!(segments.allocated(), SEGMENTS_START + 14 * LEN);
        let cleaner = (0..30).filter(|_| segments.take(Purpose::Clean(Kind::Meta), 1).is_some()).count();
        assert_eq!(cleaner, 6, "all but what is for deletions");
        assert_eq!((segments.generation(segments.start(4) + 5), segments.generation(0)), (Some(1), None));
        segments.condemn(3);
        assert_eq!(segments.take(Purpose::Clean(Kind::Body), 1), None);
        assert!(segments.take(Purpose::Clean(Kind::Meta), 1).is_some(), "a checkpoint frees what waits for it");
    }

    #[test]
    fn condemned_segments_count_towards_the_reserve() {
        let mut segments = Segments::new(LEN, SEGMENTS_START + 48 * LEN, Vec::new(), 1);
        segments.without_meta = 0;
        assert_eq!((segments.reserve.total(), segments.batch()), (3 + 4 + 2 + 2, CLEAN_BATCH));
        let mut taken = 0;
        while segments.take(Purpose::Body, 1).is_some() {
            taken += 1;
        }
        assert_eq!((taken, segments.spare()), (39, 0));
        assert!(segments.take(Purpose::Clean(Kind::Body), 2).is_some());
        assert_eq!(
            (segments.free(), segments.spare()),
            (8, 0),
            "what the cleaner fills is among what is reserved for it"
        );
        for number in 0..3 {
            segments.close(number);
            segments.condemn(number);
        }
        assert_eq!((segments.spare(), segments.progress, segments.fresh()), (3, 2, 3));
        segments.table[0].pins = 1;
        assert_eq!(segments.spare(), 2, "one that is read is not free soon");
        segments.table[0].pins = 0;
        for number in 3..10 {
            segments.close(number);
            segments.condemn(number);
        }
        // However many wait: three for deletions, and two with which the cleaner can go on.
        assert_eq!(segments.spare(), 3);
        let more = (0..30).filter(|_| segments.take(Purpose::Body, 3).is_some()).count();
        assert_eq!((more, segments.free()), (3, 5));
    }

    #[test]
    fn condemned_segment_is_freed_after_two_checkpoints() {
        let mut segments = Segments::new(LEN, SEGMENTS_START + 24 * LEN, Vec::new(), 1);
        for generation in 1..=3 {
            let number = segments.take(Purpose::Body, generation).unwrap();
            segments.table[number as usize].allocated = true;
        }
        segments.close(1);
        segments.condemn(1);
        segments.checkpoints = 1;
        assert_eq!(segments.free_condemned(0), [], "the oldest checkpoint was begun before");
        segments.table[1].pins = 1;
        assert_eq!(segments.free_condemned(1), [], "somebody reads it");
        segments.table[1].pins = 0;
        assert_eq!(segments.free_condemned(1), [1]);
        assert_eq!(segments.generation(segments.start(1)), None);
        assert_eq!(segments.take(Purpose::Body, 8), Some(3), "it is kept for those it is reserved for");
        assert_eq!(segments.take(Purpose::Deletions, 9), Some(1), "it is used again");
        assert_eq!(segments.table[1].generation, 9);
    }
}
