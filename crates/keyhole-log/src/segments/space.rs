//! Allocation of segments, and probing of a full file system.
//!
//! A segment is allocated before it is begun and stays allocated through every use. While the
//! file system is full, *growth is blocked*: only allocated segments are used. A segment is
//! *filled* when all of it has been written since its allocation; overwriting it then changes
//! no file system metadata.

use std::cmp::Reverse;

use super::Segments;
use super::segment::{Growth, Segment, Use};
use crate::disk::{Extent, coverage};
use crate::limits::SPACE_ASK_AFTER;
use crate::wire::segment::Kind;

/// Outcome of [`ask_again`](Segments::ask_again).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// The last probe was too recent.
    NotYet,
    /// Probe with this segment, which is withdrawn. [`provided`](Segments::provided) or
    /// [`denied`](Segments::denied) must follow.
    About(u32),
    /// All segments are allocated; only a write can show whether they are writable.
    AllThere,
}

/// A step of preparing a segment for records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Allocate its space.
    Allocate(u32),
    /// Fill it from here on.
    Fill { number: u32, from: u32 },
}

impl Segments {
    /// Returns whether only allocated segments can be begun.
    pub(crate) fn is_growth_blocked(&self) -> bool {
        self.growth != Growth::Open
    }

    /// Blocks growth: the file system is full.
    pub(crate) fn block_growth(&mut self) {
        self.growth = Growth::Blocked { refused: 0, due: false };
    }

    /// Notes that a write failed for lack of space, despite the allocation.
    pub(crate) fn write_failed(&mut self) {
        self.is_unwritable = true;
        self.block_growth();
    }

    /// Returns whether a write has failed for lack of space since the file
    /// system last provided some.
    pub(crate) fn is_unwritable(&self) -> bool {
        self.is_unwritable
    }

    /// Returns a taken segment whose first page may or may not have been written: it is blank, and
    /// its contents belong to its last use. `is_written`: its space is allocated all the same.
    pub(crate) fn abandon(&mut self, number: u32, is_written: bool) {
        let segment = &mut self.table[number as usize];
        self.progress += i64::from(segment.cleaner);
        let Segment { generation, allocated, filled, .. } = *segment;
        *segment = Segment { generation, allocated: allocated && is_written, filled, ..Segment::BLANK };
        self.blank.insert(number);
    }

    /// Marks a withdrawn segment as unallocated, because it could not be written.
    pub(crate) fn not_filled(&mut self, number: u32) {
        self.table[number as usize].allocated = false;
        self.restore(number);
    }

    /// Returns whether a segment is withdrawn, in which case writers without one wait for it.
    pub(crate) fn has_withdrawn(&self) -> bool {
        self.withdrawn > 0
    }

    /// Makes a withdrawn segment available again.
    fn restore(&mut self, number: u32) {
        self.withdrawn -= 1;
        self.blank.insert(number);
    }

    /// Allows the next request that needs space to probe the file system.
    pub(crate) fn expect_space(&mut self) {
        if let Growth::Blocked { due, .. } = &mut self.growth {
            *due = true;
        }
    }

    /// Counts a request about to be refused while growth is blocked, and
    /// returns whether a probe is due.
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

    /// Withdraws the next segment to allocate in advance, until the reserve is allocated.
    pub(crate) fn next_reserve(&mut self) -> Option<u32> {
        let enough = self.is_growth_blocked() || self.ready() >= self.reserve.blank();
        if enough { None } else { self.withdraw_unallocated() }
    }

    /// Withdraws a blank unallocated segment, or one new at the end of the file, so
    /// that it cannot be begun.
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

    /// Returns whether all of the segment has been written since its allocation.
    pub(super) fn is_filled(&self, number: u32) -> bool {
        u64::from(self.table[number as usize].filled) >= self.len
    }

    /// Records which segments are allocated: by the file system's extents, or else those in use.
    /// `fills`: META segments are to be filled before use.
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
                // Segments at the end of the file may never have been used.
                if !allocated {
                    break;
                }
                self.table.push(Segment::BLANK);
                self.blank.insert(number);
            }
            let segment = &mut self.table[number as usize];
            segment.allocated = allocated;
            segment.filled = written as u32;
        }
    }

    /// Returns whether META segments are filled before use.
    pub(crate) fn fills(&self) -> bool {
        self.fills
    }

    /// Returns whether more segments should be filled: one for records of any kind, and those
    /// reserved for deletions.
    pub(crate) fn is_unprepared(&self) -> bool {
        let is_ready = |&&number: &&u32| self.table[number as usize].allocated && self.is_filled(number);
        self.fills && self.blank.iter().filter(is_ready).count() as u64 <= self.reserve.deletions
    }

    /// Returns the next step towards an allocated and filled segment for records. The segment is
    /// withdrawn until the step is done.
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

    /// Records that a withdrawn segment has been filled up to `until`.
    pub(crate) fn filled(&mut self, number: u32, until: u32) {
        let segment = &mut self.table[number as usize];
        segment.filled = segment.filled.max(until);
        self.restore(number);
    }

    /// Records that a withdrawn segment has been allocated.
    pub(crate) fn provided(&mut self, number: u32) {
        self.table[number as usize].allocated = true;
        self.restore(number);
        self.grows_again();
    }

    fn grows_again(&mut self) {
        self.growth = Growth::Open;
        self.is_unwritable = false;
    }

    /// Returns a withdrawn or taken segment as blank, because the file system has no space for it.
    pub(crate) fn denied(&mut self, number: u32) {
        self.block_growth();
        if self.table[number as usize].used == Use::Blank {
            self.withdrawn -= 1;
        }
        self.give_back(number);
    }

    /// Returns a segment into which nothing has been written.
    pub(super) fn give_back(&mut self, number: u32) {
        let segment = &mut self.table[number as usize];
        if segment.used != Use::Blank {
            self.progress += i64::from(segment.cleaner);
            let Segment { before: generation, allocated, filled, .. } = *segment;
            *segment = Segment { generation, allocated, filled, ..Segment::BLANK };
        }
        self.blank.insert(number);
        // Keeps segments allocated for the reserve, which would otherwise go to any writer next
        // time, and withdrawn segments, whose step is still in flight.
        let useless = |last: &Segment| last.used == Use::Blank && last.generation == 0 && !last.allocated;
        while self.table.last().is_some_and(useless) && self.blank.remove(&(self.table.len() as u32 - 1)) {
            self.table.pop();
        }
    }

    /// Returns a blank segment to discard, if there are more than the reserve and a
    /// margin. Keeps as many filled segments as there are META segments in use, because
    /// they will be reused for records.
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

    /// Withdraws a blank segment, so that it cannot be begun.
    pub(crate) fn withdraw(&mut self, number: u32) {
        self.withdrawn += 1;
        self.blank.remove(&number);
    }

    /// Records that a withdrawn segment could not be discarded.
    pub(crate) fn not_discarded(&mut self, number: u32) {
        self.restore(number);
    }

    /// Records that a withdrawn segment has been discarded.
    pub(crate) fn discarded(&mut self, number: u32) {
        let segment = &mut self.table[number as usize];
        segment.allocated = false;
        segment.filled = 0;
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
    fn reserve_stays_allocated_on_full_file_system() {
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
    fn blocked_growth_takes_only_allocated_segments() {
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
        let deletions = Purpose::Deletions;
        let cleaner = Purpose::Clean(Kind::Meta);
        let taken = [deletions, cleaner, cleaner, deletions, deletions, deletions].map(|by| segments.take(by, 20));
        let expected = [Some(0), Some(1), None, Some(2), Some(3), None];
        assert_eq!(
            taken, expected,
            "three are kept for deletions, one of them for their checkpoint, and none is without space"
        );
        assert!((0..4).all(|number| segments.table[number].allocated), "a use keeps the space");
    }

    #[test]
    fn full_file_system_is_probed_after_refusals_or_when_space_is_expected() {
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
