//! Which segments there are, what they are used for, and who may have another one.
//!
//! A segment is *blank* until it is begun, then *open*, then *closed*. A closed one of which nothing is of use any more is
//! *condemned*: it becomes blank again as soon as no checkpoint that is kept knows of anything in it, and nobody reads it.

mod space;

use std::collections::BTreeSet;

use crate::limits::{
    CLEAN_AHEAD, CLEAN_BATCH, CLEAN_RESERVE, CLEAN_SLACK, LIVE_MAX, PAGE, SEGMENTS_FIXED, SEGMENTS_PER_WORKER,
    SEGMENTS_START,
};
use crate::limits::{CLEAN_SMALL_LESS, CLEAN_SMALL_MIN, CLEAN_SMALL_SHARE, WORKERS_MAX};
use crate::wire::checkpoint::{SegmentItem, SegmentUse};
use crate::wire::segment::Kind;
use space::Growth;
pub(crate) use space::{Ask, Step};

/// What a segment is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Nothing: it can be begun.
    Blank,
    /// It is being appended to.
    Open(Kind),
    /// Nothing more is appended.
    Closed(Kind),
    /// Nothing in it is of use. When that was found, so many checkpoints had been begun.
    Condemned(u64),
    /// Something that could not be read is in it: left alone.
    Damaged,
}

/// One segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) used: Use,
    /// Of its present or last use.
    pub(crate) generation: u64,
    /// Of the use before, while it is being begun; 0: it is one more at the end of the file.
    pub(crate) before: u64,
    /// How far it is written, header included; 0 if that is not known.
    pub(crate) written: u32,
    /// Of records: how far they have taken effect, and the checksum of the last one of them, or of the header.
    pub(crate) settled: u32,
    pub(crate) prev: u32,
    /// Reads and writes under way, and blocks that no record names yet. As long as there are any it is not freed.
    pub(crate) pins: u32,
    /// The file system has given its space, and has not got it back. Every use of the segment keeps this.
    pub(crate) allocated: bool,
    /// Bytes from its beginning that have been written since its space was given, by whatever use.
    pub(crate) filled: u32,
    /// The maintenance has begun it.
    pub(crate) cleaner: bool,
}

impl Segment {
    pub(crate) const BLANK: Segment = Segment {
        used: Use::Blank,
        generation: 0,
        before: 0,
        written: 0,
        settled: 0,
        prev: 0,
        pins: 0,
        allocated: false,
        filled: 0,
        cleaner: false,
    };

    /// Whether the bytes in it are those of its generation.
    pub(crate) fn in_use(&self) -> bool {
        self.used != Use::Blank && self.used != Use::Damaged
    }
}

/// Who asks for a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Blocks of bodies.
    Body,
    /// Records of any kind; `first`: the worker has no segment for records yet.
    Meta { first: bool },
    /// Records that delete: they may have what is reserved for them.
    Deletions,
    /// What the cleaner moves, and checkpoints: they may have what is reserved for them.
    Clean(Kind),
}

impl Purpose {
    /// Whether what is live grows with it. A worker's first segment for records is for any of them.
    pub(crate) fn grows(self) -> bool {
        matches!(self, Purpose::Body | Purpose::Meta { first: false })
    }
}

/// Segments that are kept for something when everything else is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reserve {
    /// For deletions.
    pub(crate) deletions: u64,
    /// For the cleaner and for checkpoints.
    pub(crate) cleaner: u64,
    /// For what was cleaned and waits to be freed: blank, or condemned.
    pub(crate) waiting: u64,
    /// For nothing that is live: what is dead may be there.
    pub(crate) slack: u64,
    /// What of the cleaner's must be left when others go on: with it a segment can be moved, and the checkpoints be written that
    /// free it.
    least: u64,
    /// What of the deletions' is for the checkpoints that free what they have made dead.
    checkpoints: u64,
}

impl Reserve {
    /// Of a store with so many segments at most. A checkpoint may take `checkpoint` bytes.
    fn of(most: u64, workers: u64, checkpoint: u64, len: u64) -> Self {
        // Checkpoints free what deletions have made dead: while two more are written, those before them are still there.
        let checkpoints = (checkpoint * 9 / 2).div_ceil(len).max(1).min(most / 4);
        // One more than workers: that of a worker is full of tombstones, and is freed after it has begun another.
        let deletions = (workers + 1).min(most / 4) + checkpoints;
        // A segment of each kind that is being filled, and one more of each, so that cleaning goes on while what was cleaned
        // waits for its checkpoint. Two checkpoints, and what they leave unused at the ends of segments.
        let cleaner = (4 + (checkpoint * 9 / 4).div_ceil(len)).min(most / 4);
        let least = (2 + (checkpoint * 5 / 2).div_ceil(len)).min(cleaner);
        let (waiting, slack) = (Reserve::share(most, CLEAN_RESERVE), Reserve::share(most, CLEAN_SLACK));
        Reserve { deletions, cleaner, waiting, slack, least, checkpoints }
    }

    /// One of so many segments; where there are less than 240 less than that, as what is kept in any case is much of them.
    fn share(most: u64, one_of: u64) -> u64 {
        let small = (most / CLEAN_SMALL_SHARE).saturating_sub(CLEAN_SMALL_LESS).max(CLEAN_SMALL_MIN);
        (most / one_of).min(small)
    }

    /// Of which the space is taken in advance.
    fn blank(self) -> u64 {
        self.deletions + self.cleaner
    }

    /// Which is blank or waits to be freed.
    fn unfilled(self) -> u64 {
        self.blank() + self.waiting
    }

    pub(crate) fn total(self) -> u64 {
        self.unfilled() + self.slack
    }
}

/// The table of segments.
#[derive(Debug)]
pub(crate) struct Segments {
    pub(crate) len: u64,
    pub(crate) capacity: u64,
    pub(crate) table: Vec<Segment>,
    blank: BTreeSet<u32>,
    pub(crate) workers: u64,
    pub(crate) reserve: Reserve,
    /// Workers that have no segment for records yet. One is kept for each.
    pub(crate) without_meta: u64,
    /// Checkpoints that have been begun since the log was opened.
    pub(crate) checkpoints: u64,
    /// Segments that were condemned less those that the maintenance has begun: what it gains, whatever others take meanwhile.
    pub(crate) progress: i64,
    growth: Growth,
    /// Blank segments that are being allocated, filled or discarded: they can be begun again in a moment.
    withdrawn: u32,
    /// A write has failed for want of space, and the file system has not given any since: nothing that grows the store goes on.
    is_unwritable: bool,
    /// Segments for records are written once before they are used.
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

    /// Bytes that may be live before others than deletions are refused.
    pub(crate) fn live_max(&self) -> u64 {
        let most = Segments::most(self.len, self.capacity);
        most.saturating_sub(self.reserve.total()) * self.len / 100 * LIVE_MAX
    }

    /// Segments that a capacity has room for.
    pub(crate) fn most(len: u64, capacity: u64) -> u64 {
        capacity.saturating_sub(SEGMENTS_START) / len
    }

    /// Workers that a capacity has room for, so that all that was deleted becomes space again; at least one.
    pub(crate) fn workers_max(len: u64, capacity: u64) -> usize {
        let rest = Segments::most(len, capacity).saturating_sub(SEGMENTS_FIXED);
        usize::try_from(rest / SEGMENTS_PER_WORKER).unwrap_or(usize::MAX).clamp(1, WORKERS_MAX)
    }

    /// What is reserved follows the size of a checkpoint.
    pub(crate) fn set_checkpoint_len(&mut self, bytes: u64) {
        self.reserve = Reserve::of(Segments::most(self.len, self.capacity), self.workers, bytes, self.len);
    }

    pub(crate) fn start(&self, number: u32) -> u64 {
        SEGMENTS_START + u64::from(number) * self.len
    }

    /// The segment that an offset is in, if there is one.
    pub(crate) fn number(&self, offset: u64) -> Option<u32> {
        let number = offset.checked_sub(SEGMENTS_START)? / self.len;
        ((number as usize) < self.table.len()).then_some(number as u32)
    }

    /// The generation of the segment that an offset is in.
    pub(crate) fn generation(&self, offset: u64) -> Option<u64> {
        let segment = &self.table[self.number(offset)? as usize];
        segment.in_use().then_some(segment.generation)
    }

    /// Bytes that the file has, or will have as soon as what was taken is allocated.
    pub(crate) fn allocated(&self) -> u64 {
        SEGMENTS_START + self.table.len() as u64 * self.len
    }

    /// Blank segments whose space is there.
    fn ready(&self) -> u64 {
        self.blank.iter().filter(|&&number| self.table[number as usize].allocated).count() as u64
    }

    /// Segments that could still be begun.
    pub(crate) fn free(&self) -> u64 {
        if self.is_growth_blocked() {
            return self.ready();
        }
        let growth = Segments::most(self.len, self.capacity).saturating_sub(self.table.len() as u64);
        growth + self.blank.len() as u64
    }

    /// Segments that could still be begun for anything, sooner or later: those that wait to be freed are as good as free, and those
    /// that the maintenance fills are among what is reserved for it. Where the file system is full it is not the capacity that has
    /// to be divided.
    fn gained(&self) -> u64 {
        let reserved =
            if self.is_growth_blocked() { self.reserve.blank() } else { self.reserve.unfilled() } + self.without_meta;
        let free = self.free();
        if free >= reserved + CLEAN_AHEAD {
            // That is enough to know, and there may be many to count.
            return free - reserved;
        }
        let filled =
            self.table.iter().filter(|segment| segment.cleaner && matches!(segment.used, Use::Open(_))).count() as u64;
        (free + self.waiting() + filled).saturating_sub(reserved)
    }

    /// Segments that could be begun for anything before one must be freed.
    pub(crate) fn at_hand(&self) -> u64 {
        self.free().saturating_sub(self.reserve.deletions + self.reserve.least + self.without_meta)
    }

    /// Segments that could be begun for anything now.
    pub(crate) fn spare(&self) -> u64 {
        self.gained().min(self.at_hand())
    }

    /// Segments that are cleaned between two checkpoints, at most: two such batches wait to be freed.
    pub(crate) fn batch(&self) -> usize {
        let Reserve { cleaner, waiting, least, .. } = self.reserve;
        CLEAN_BATCH.max(((waiting + cleaner - least) / 2) as usize)
    }

    /// Whether a segment could be begun for anything.
    pub(crate) fn has_spare(&self) -> bool {
        !self.is_unwritable && self.spare() > 0
    }

    /// Gives out a segment: the lowest blank one, or one more at the end.
    pub(crate) fn take(&mut self, purpose: Purpose, generation: u64) -> Option<u32> {
        let (kind, allowed) = match purpose {
            Purpose::Body => (Kind::Body, self.has_spare()),
            Purpose::Meta { first: false } => (Kind::Meta, self.has_spare()),
            Purpose::Meta { first: true } => (Kind::Meta, self.free() > 0),
            // What the cleaner has used of its reserve must not stop deletions: without them it may have nothing to gain.
            Purpose::Deletions => (Kind::Meta, self.free() > self.reserve.checkpoints),
            // Where segments wait only for checkpoints, a checkpoint is worth the last one: more come of it, for deletions too.
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

    /// One whose space is there already, which is quicker and costs the medium less; but what is reserved is kept for those
    /// who may have it, as far as there are others. While growth is blocked the space is there of all that are given out.
    /// Records go where all has been written before, blocks elsewhere, as far as there is a choice.
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

    /// Segments that wait to be freed.
    pub(crate) fn condemned(&self) -> u64 {
        self.table.iter().filter(|segment| matches!(segment.used, Use::Condemned(_))).count() as u64
    }

    /// How many of them wait only for checkpoints.
    pub(crate) fn waiting(&self) -> u64 {
        let waits = |segment: &&Segment| matches!(segment.used, Use::Condemned(_)) && segment.pins == 0;
        self.table.iter().filter(waits).count() as u64
    }

    /// How many have been condemned since the newest checkpoint was begun.
    pub(crate) fn fresh(&self) -> usize {
        self.table.iter().filter(|segment| segment.used == Use::Condemned(self.checkpoints)).count()
    }

    /// Makes condemned segments blank that no checkpoint from the `oldest` on (counted from the opening) knows anything in.
    pub(crate) fn free_condemned(&mut self, oldest: u64) -> Vec<u32> {
        let freed: Vec<u32> = (0..)
            .zip(&self.table)
            .filter(|(_, s)| matches!(s.used, Use::Condemned(begun) if begun < oldest) && s.pins == 0)
            .map(|(number, _)| number)
            .collect();
        for &number in &freed {
            // The generation stays: what is left of it must not be taken for anything.
            let Segment { generation, allocated, filled, written, .. } = self.table[number as usize];
            let filled = filled.max(written);
            self.table[number as usize] = Segment { generation, allocated, filled, ..Segment::BLANK };
            self.blank.insert(number);
        }
        freed
    }

    /// For the checkpoint.
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
            // What has been written and has not taken effect is to be replayed.
            let written = if segment.used == Use::Open(Kind::Meta) { settled } else { written };
            SegmentItem { number, use_, generation, written, prev }
        })
    }

    /// Where the bytes of a segment end that may be of use.
    pub(crate) fn written(&self, number: u32) -> u64 {
        self.start(number) + u64::from(self.table[number as usize].written.max(PAGE as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = 2 << 20;

    #[test]
    fn reserve_and_growth() {
        // 24 segments, two workers: three are reserved for deletions, one for their
        // checkpoints, four for the cleaner, one for what waits to be freed, and two
        // kept for the first records. One more is slack.
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
    fn what_waits_to_be_freed_is_as_good_as_free_as_far_as_it_is_reserved() {
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
        // However many wait: the deletions' three, and two with which the cleaner can go on.
        assert_eq!(segments.spare(), 3);
        let more = (0..30).filter(|_| segments.take(Purpose::Body, 3).is_some()).count();
        assert_eq!((more, segments.free()), (3, 5));
    }

    #[test]
    fn the_condemned_are_freed_when_two_checkpoints_have_passed() {
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
