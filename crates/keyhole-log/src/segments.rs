//! Which segments there are, and who may have another one.

use std::collections::BTreeSet;

use crate::limits::SEGMENTS_START;
use crate::wire::segment::Kind;

/// What a segment is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Nothing: it can be begun.
    Blank,
    /// In use, with this generation.
    Used(Kind, u64),
    /// Something that could not be read is in it: left alone.
    Damaged,
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
}

/// The table of segments.
#[derive(Debug)]
pub(crate) struct Segments {
    pub(crate) len: u64,
    pub(crate) capacity: u64,
    table: Vec<Use>,
    blank: BTreeSet<u32>,
    /// Segments kept for deletions when everything else is full.
    reserve: u64,
    /// Workers that have no segment for records yet. One is kept for each.
    pub(crate) without_meta: u64,
}

impl Segments {
    pub(crate) fn new(len: u64, capacity: u64, table: Vec<Use>, workers: u64) -> Self {
        let blank = table.iter().zip(0..).filter(|(used, _)| **used == Use::Blank).map(|(_, number)| number).collect();
        let most = Segments::most(len, capacity);
        Segments { len, capacity, table, blank, reserve: workers.min(most / 8), without_meta: workers }
    }

    /// Segments that a capacity has room for.
    pub(crate) fn most(len: u64, capacity: u64) -> u64 {
        capacity.saturating_sub(SEGMENTS_START) / len
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
        match self.table[self.number(offset)? as usize] {
            Use::Used(_, generation) => Some(generation),
            Use::Blank | Use::Damaged => None,
        }
    }

    /// Bytes that the file has, or will have as soon as what was taken is allocated.
    pub(crate) fn allocated(&self) -> u64 {
        SEGMENTS_START + self.table.len() as u64 * self.len
    }

    /// A stub of what another branch has.
    pub(crate) fn stats(&self) -> Vec<crate::SegmentStat> {
        use crate::{SegmentKind, SegmentState};
        let stat = |(used, number): (&Use, u32)| {
            let (kind, state, generation) = match *used {
                Use::Blank => (SegmentKind::Blank, SegmentState::Blank, 0),
                Use::Used(Kind::Meta, generation) => (SegmentKind::Meta, SegmentState::Closed, generation),
                Use::Used(Kind::Body, generation) => (SegmentKind::Body, SegmentState::Closed, generation),
                Use::Damaged => (SegmentKind::Blank, SegmentState::Damaged, 0),
            };
            crate::SegmentStat { number, kind, state, generation, written: 0, live: 0 }
        };
        self.table.iter().zip(0..).map(stat).collect()
    }

    fn free(&self) -> u64 {
        let growth = Segments::most(self.len, self.capacity).saturating_sub(self.table.len() as u64);
        growth + self.blank.len() as u64
    }

    /// Whether records of any kind may go on.
    pub(crate) fn has_spare(&self) -> bool {
        self.free() > self.reserve + self.without_meta
    }

    /// Gives out a segment: the lowest blank one, or one more at the end.
    pub(crate) fn take(&mut self, purpose: Purpose, generation: u64) -> Option<u32> {
        let (kind, allowed) = match purpose {
            Purpose::Body => (Kind::Body, self.has_spare()),
            Purpose::Meta { first: false } => (Kind::Meta, self.has_spare()),
            Purpose::Meta { first: true } | Purpose::Deletions => (Kind::Meta, self.free() > 0),
        };
        if !allowed {
            return None;
        }
        let number = match self.blank.pop_first() {
            Some(number) => number,
            None => {
                self.table.push(Use::Blank);
                (self.table.len() - 1) as u32
            }
        };
        self.table[number as usize] = Use::Used(kind, generation);
        Some(number)
    }

    /// Takes back a segment that could not be allocated.
    pub(crate) fn give_back(&mut self, number: u32) {
        self.table[number as usize] = Use::Blank;
        self.blank.insert(number);
        while self.table.last() == Some(&Use::Blank) {
            self.table.pop();
            self.blank.remove(&(self.table.len() as u32));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = 2 << 20;

    #[test]
    fn reserve_and_growth() {
        // 16 segments, two workers: two are reserved, and two kept for the first records.
        let mut segments = Segments::new(LEN, SEGMENTS_START + 16 * LEN, Vec::new(), 2);
        let bodies = (0..20).filter(|_| segments.take(Purpose::Body, 1).is_some()).count();
        assert_eq!(bodies, 12);
        assert_eq!(segments.take(Purpose::Meta { first: false }, 1), None);
        assert_eq!(segments.take(Purpose::Meta { first: true }, 1), Some(12));
        segments.without_meta -= 1;
        assert_eq!(segments.take(Purpose::Deletions, 1), Some(13));
        segments.give_back(13);
        assert_eq!(segments.allocated(), SEGMENTS_START + 13 * LEN);
        segments.give_back(4);
        assert_eq!(segments.allocated(), SEGMENTS_START + 13 * LEN);
        assert_eq!(segments.take(Purpose::Body, 2), Some(4), "a blank one first");
        assert_eq!((segments.generation(segments.start(4) + 5), segments.generation(0)), (Some(2), None));
    }
}
