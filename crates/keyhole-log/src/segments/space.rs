//! Which segments have their space, and when the file system is asked for more.
//!
//! The space of a segment is taken before it is begun, and stays with it through every use. While the file system has none, *growth is
//! blocked*: only segments whose space is there are given out. A segment is *filled* when all of it has been written since its space was
//! taken: then writing over it changes no metadata of the file system.

use std::cmp::Reverse;

use super::{Segment, Segments, Use};
use crate::disk::{Extent, coverage};
use crate::limits::SPACE_ASK_AFTER;
use crate::wire::segment::Kind;

/// Whether segments may be begun whose space the file system has yet to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Growth {
    /// Yes: the file system has given all that it was asked for.
    Open,
    /// No: it had no space when it was last asked. `refused` requests have been refused since; `due`: it may be asked again
    /// without regard to that.
    Blocked { refused: u32, due: bool },
    /// No: somebody is asking again.
    Asking,
}

/// Whether the file system is to be asked for space again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// It has been asked a short while ago.
    NotYet,
    /// About this segment, which is withdrawn; then [`provided`](Segments::provided) or [`denied`](Segments::denied) follows.
    About(u32),
    /// The space of all segments is there: whether it can be written to is seen by writing.
    AllThere,
}

/// A step of making a segment ready for records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Its space is taken.
    Allocate(u32),
    /// It is written from here on.
    Fill { number: u32, from: u32 },
}

impl Segments {
    /// Whether only segments whose space is there can be begun.
    pub(crate) fn is_growth_blocked(&self) -> bool {
        self.growth != Growth::Open
    }

    /// The file system has no space.
    pub(crate) fn block_growth(&mut self) {
        self.growth = Growth::Blocked { refused: 0, due: false };
    }

    /// A write has failed for want of space: what an allocation promised is not so.
    pub(crate) fn write_failed(&mut self) {
        self.is_unwritable = true;
        self.block_growth();
    }

    /// Whether a write has failed for want of space since the file system last gave some.
    pub(crate) fn is_unwritable(&self) -> bool {
        self.is_unwritable
    }

    /// The first page of a segment that was taken may have been written or not: it is blank, and what stands there is of its
    /// last use. `is_written`: its space is there all the same.
    pub(crate) fn abandon(&mut self, number: u32, is_written: bool) {
        let segment = &mut self.table[number as usize];
        self.progress += i64::from(segment.cleaner);
        let Segment { generation, allocated, filled, .. } = *segment;
        *segment = Segment { generation, allocated: allocated && is_written, filled, ..Segment::BLANK };
        self.blank.insert(number);
    }

    /// A withdrawn segment could not be written: its space is not there.
    pub(crate) fn not_filled(&mut self, number: u32) {
        self.table[number as usize].allocated = false;
        self.restore(number);
    }

    /// Whether a segment is withdrawn: whoever finds no other one waits for it.
    pub(crate) fn has_withdrawn(&self) -> bool {
        self.withdrawn > 0
    }

    /// A withdrawn segment can be begun again.
    fn restore(&mut self, number: u32) {
        self.withdrawn -= 1;
        self.blank.insert(number);
    }

    /// The file system may have space again: it is asked by the next request that needs some.
    pub(crate) fn expect_space(&mut self) {
        if let Growth::Blocked { due, .. } = &mut self.growth {
            *due = true;
        }
    }

    /// Counts a request that is to be refused while growth is blocked, and says whether the file system may be asked again.
    pub(crate) fn ask_again(&mut self) -> Ask {
        let Growth::Blocked { refused, due } = &mut self.growth else { return Ask::NotYet };
        *refused += 1;
        if !*due && *refused < SPACE_ASK_AFTER {
            return Ask::NotYet;
        }
        match self.withdraw_unallocated() {
            Some(number) => {
                self.growth = Growth::Asking;
                Ask::About(number)
            }
            None => {
                self.grows_again();
                Ask::AllThere
            }
        }
    }

    /// Withdraws the next segment whose space is to be taken in advance, until as many are ready as are reserved.
    pub(crate) fn next_reserve(&mut self) -> Option<u32> {
        let enough = self.is_growth_blocked() || self.ready() >= self.reserve.blank();
        if enough { None } else { self.withdraw_unallocated() }
    }

    /// A blank segment whose space is not there, or one more at the end of the file. Nobody begins it meanwhile.
    fn withdraw_unallocated(&mut self) -> Option<u32> {
        let unallocated = self.blank.iter().copied().find(|&number| !self.table[number as usize].allocated);
        let number = match unallocated {
            Some(number) => number,
            None if self.table.len() as u64 >= Segments::most(self.len, self.capacity) => return None,
            None => {
                self.table.push(Segment::BLANK);
                (self.table.len() - 1) as u32
            }
        };
        self.withdraw(number);
        Some(number)
    }

    /// All of the segment has been written since its space was given.
    pub(super) fn is_filled(&self, number: u32) -> bool {
        u64::from(self.table[number as usize].filled) >= self.len
    }

    /// Notes of which segments the space is there: as the file system says, or else of those that are in use. `fills`: segments
    /// for records are to be written once before they are used.
    pub(crate) fn set_space(&mut self, extents: Option<&[Extent]>, fills: bool) {
        self.fills = fills;
        let Some(extents) = extents else {
            for segment in self.table.iter_mut().filter(|segment| segment.used != Use::Blank) {
                segment.allocated = true;
            }
            return;
        };
        let most = Segments::most(self.len, self.capacity);
        for number in 0..most as u32 {
            let start = self.start(number);
            let (allocated, written) = coverage(extents, start..start + self.len);
            if number as usize == self.table.len() {
                // At the end of the file there may be some that have never been used.
                if !allocated {
                    break;
                }
                self.table.push(Segment::BLANK);
                self.blank.insert(number);
            }
            let segment = &mut self.table[number as usize];
            (segment.allocated, segment.filled) = (allocated, written as u32);
        }
    }

    /// Whether segments for records are written once before they are used.
    pub(crate) fn fills(&self) -> bool {
        self.fills
    }

    /// Whether more segments are to be filled: there is to be one for records of any kind, and those that are reserved for records
    /// that delete.
    pub(crate) fn is_unprepared(&self) -> bool {
        let is_ready = |&&number: &&u32| self.table[number as usize].allocated && self.is_filled(number);
        self.fills && self.blank.iter().filter(is_ready).count() as u64 <= self.reserve.deletions
    }

    /// The next step to have a segment ready that records can go to, with its space there and all of it written before. The
    /// segment is withdrawn until the step is done.
    pub(crate) fn next_step(&mut self) -> Option<Step> {
        if !self.fills || self.is_unwritable {
            return None;
        }
        let grows = self.ready() <= self.reserve.blank() && self.has_spare() && !self.is_growth_blocked();
        if grows && let Some(number) = self.withdraw_unallocated() {
            return Some(Step::Allocate(number));
        }
        if !self.is_unprepared() {
            return None;
        }
        let is_ready = |&number: &u32| self.table[number as usize].allocated && !self.is_filled(number);
        let ready = self.blank.iter().copied().filter(is_ready);
        let number = ready.min_by_key(|&number| (Reverse(self.table[number as usize].filled), number))?;
        self.withdraw(number);
        Some(Step::Fill { number, from: self.table[number as usize].filled })
    }

    /// A withdrawn segment has been written up to here.
    pub(crate) fn filled(&mut self, number: u32, until: u32) {
        let segment = &mut self.table[number as usize];
        segment.filled = segment.filled.max(until);
        self.restore(number);
    }

    /// The space of a withdrawn segment is there.
    pub(crate) fn provided(&mut self, number: u32) {
        self.table[number as usize].allocated = true;
        self.restore(number);
        self.grows_again();
    }

    fn grows_again(&mut self) {
        self.growth = Growth::Open;
        self.is_unwritable = false;
    }

    /// There is no space for a segment that was withdrawn or taken: it is blank again.
    pub(crate) fn denied(&mut self, number: u32) {
        self.block_growth();
        if self.table[number as usize].used == Use::Blank {
            self.withdrawn -= 1;
        }
        self.give_back(number);
    }

    /// Takes back a segment of which nothing has been written.
    pub(super) fn give_back(&mut self, number: u32) {
        let segment = &mut self.table[number as usize];
        if segment.used != Use::Blank {
            self.progress += i64::from(segment.cleaner);
            let Segment { before: generation, allocated, filled, .. } = *segment;
            *segment = Segment { generation, allocated, filled, ..Segment::BLANK };
        }
        self.blank.insert(number);
        // But not what was allocated for the reserve, which would be given to anybody next time; and one that has been withdrawn
        // is still to be heard of.
        let useless = |last: &Segment| last.used == Use::Blank && last.generation == 0 && !last.allocated;
        while self.table.last().is_some_and(useless) && self.blank.remove(&(self.table.len() as u32 - 1)) {
            self.table.pop();
        }
    }

    /// A blank segment whose space could be given back: one that is more than is reserved, and some for those who come. Those that
    /// records can go to are kept as long as they are no more than have records in them now: made once, they are used again.
    pub(crate) fn discardable(&self) -> Option<u32> {
        let kept = self.reserve.blank() as usize + 2;
        let allocated = self.blank.iter().copied().filter(|&number| self.table[number as usize].allocated);
        let (filled, others): (Vec<u32>, Vec<u32>) =
            allocated.partition(|&number| self.fills && self.is_filled(number));
        let has_records = |segment: &&Segment| matches!(segment.used, Use::Open(Kind::Meta) | Use::Closed(Kind::Meta));
        let filled_kept = kept.max(self.table.iter().filter(has_records).count());
        if filled.len() > filled_kept {
            return filled.last().copied();
        }
        others.get(kept.saturating_sub(filled.len())..)?.last().copied()
    }

    /// Takes a blank segment out, so that nobody begins it.
    pub(crate) fn withdraw(&mut self, number: u32) {
        self.withdrawn += 1;
        self.blank.remove(&number);
    }

    /// The space of a withdrawn segment could not be given back.
    pub(crate) fn not_discarded(&mut self, number: u32) {
        self.restore(number);
    }

    /// The space of a withdrawn segment has been given back.
    pub(crate) fn discarded(&mut self, number: u32) {
        let segment = &mut self.table[number as usize];
        (segment.allocated, segment.filled) = (false, 0);
        self.restore(number);
        self.expect_space();
    }
}

#[cfg(test)]
mod tests {
    use super::super::Purpose;
    use super::*;
    use crate::limits::SEGMENTS_START;

    const LEN: u64 = 2 << 20;

    #[test]
    fn the_reserve_outlives_a_full_file_system() {
        let mut segments = Segments::new(LEN, SEGMENTS_START + 24 * LEN, Vec::new(), 1);
        while let Some(number) = segments.next_reserve() {
            segments.provided(number);
        }
        assert_eq!(segments.ready(), 7);
        let number = segments.take(Purpose::Body, 1).unwrap();
        segments.denied(number);
        assert_eq!((segments.ready(), segments.take(Purpose::Body, 2)), (7, None));
        assert_eq!(segments.take(Purpose::Deletions, 3), Some(0));
    }

    #[test]
    fn blocked_growth_gives_out_only_segments_whose_space_is_there() {
        let mut segments = Segments::new(LEN, SEGMENTS_START + 24 * LEN, Vec::new(), 1);
        segments.without_meta = 0;
        for generation in 0..10 {
            let number = segments.take(Purpose::Body, generation).unwrap();
            segments.table[number as usize].allocated = true;
            segments.close(number);
            segments.condemn(number);
        }
        segments.checkpoints = 1;
        assert_eq!(segments.free_condemned(1).len(), 10);
        for number in 5..10 {
            segments.withdraw(number);
            segments.discarded(number);
        }
        segments.block_growth();
        assert_eq!((segments.ready(), segments.free()), (5, 5));
        let (deletions, cleaner) = (Purpose::Deletions, Purpose::Clean(Kind::Meta));
        let taken = [deletions, cleaner, cleaner, deletions, deletions, deletions].map(|by| segments.take(by, 20));
        let expected = [Some(0), Some(1), None, Some(2), Some(3), None];
        assert_eq!(
            taken, expected,
            "three are kept for deletions, one of them for their checkpoint, and none is without space"
        );
        assert!((0..4).all(|number| segments.table[number].allocated), "a use keeps the space");
    }

    #[test]
    fn file_system_is_asked_again_after_so_many_refusals_or_when_space_is_expected() {
        let mut segments = Segments::new(LEN, SEGMENTS_START + 24 * LEN, Vec::new(), 1);
        assert_eq!(segments.ask_again(), Ask::NotYet, "it has not refused anything");
        segments.block_growth();
        for _ in 1..SPACE_ASK_AFTER {
            assert_eq!(segments.ask_again(), Ask::NotYet);
        }
        assert_eq!(segments.ask_again(), Ask::About(0));
        assert_eq!(segments.ask_again(), Ask::NotYet, "one asks for all");
        assert!(segments.is_growth_blocked());
        segments.denied(0);
        assert_eq!((segments.ask_again(), segments.table.len()), (Ask::NotYet, 0));
        segments.expect_space();
        assert_eq!(segments.ask_again(), Ask::About(0));
        segments.provided(0);
        assert_eq!((segments.is_growth_blocked(), segments.ready()), (false, 1));
    }
}
