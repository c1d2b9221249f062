//! Compact locations of records and blocks.

use crate::geometry::{run_bytes, with_starts};
use crate::limits::{PAGE, READ_TOGETHER_MAX, RECORD_MAX, SEGMENTS_MAX, SEGMENTS_START};
use crate::wire::payload::Run;
use crate::wire::record::ALIGN;

/// Bits of a location for the length, in units of [`ALIGN`].
const LEN_BITS: u32 = 17;
const _: () = assert!(RECORD_MAX as u64 / ALIGN < 1 << LEN_BITS);

/// Location of a record: its offset in the file, and its length rounded up to the record alignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location(u64);

impl Location {
    /// Location of a referenced body without a record, or of a lost object.
    pub(crate) const LOST: Location = Location(0);

    /// Location of an evicted body, whose bytes another store has. No record begins at offset 0.
    pub(crate) const EVICTED: Location = Location(1);

    /// Creates a location. `offset` must be aligned and below
    /// [`CAPACITY_MAX`](crate::limits::CAPACITY_MAX).
    pub(crate) const fn new(offset: u64, len: u32) -> Self {
        Location((offset / ALIGN) << LEN_BITS | (len as u64).div_ceil(ALIGN))
    }

    pub(crate) const fn from_raw(raw: u64) -> Self {
        Location(raw)
    }

    /// Returns whether this is a place in the file.
    pub(crate) fn is_in_file(self) -> bool {
        self != Location::LOST && self != Location::EVICTED
    }

    /// Returns the encoding used in checkpoints.
    pub(crate) const fn raw(self) -> u64 {
        self.0
    }

    pub(crate) const fn offset(self) -> u64 {
        (self.0 >> LEN_BITS) * ALIGN
    }

    /// Returns whether the record at `other` directly follows this one, and both fit into one read.
    pub(crate) const fn is_ahead_of(self, other: Location) -> bool {
        self.offset() + self.len() as u64 == other.offset() && self.len() + other.len() <= READ_TOGETHER_MAX
    }

    /// Returns the length of header, payload and padding.
    pub(crate) const fn len(self) -> u32 {
        (self.0 & ((1 << LEN_BITS) - 1)) as u32 * ALIGN as u32
    }
}

/// The pages that a body's blocks take in one segment, including footers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) segment: u32,
    pub(crate) pages: u32,
}

/// The segments of a body's blocks. Most bodies have one, or none if they are inline.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Shares {
    #[default]
    None,
    One(Share),
    // A thin pointer keeps the common variants small.
    #[allow(clippy::box_collection)]
    Many(Box<Vec<Share>>),
}

impl Shares {
    pub(crate) fn of(runs: &[Run], segment_len: u64) -> Self {
        if runs.is_empty() {
            return Shares::None;
        }
        let mut shares: Vec<Share> = Vec::with_capacity(1);
        for (start, run) in with_starts(runs) {
            let segment = (run.offset.saturating_sub(SEGMENTS_START) / segment_len) as u32;
            let pages = (run_bytes(start, run) / PAGE as u64) as u32;
            match shares.iter_mut().find(|share| share.segment == segment) {
                Some(share) => share.pages = share.pages.saturating_add(pages),
                None => shares.push(Share { segment, pages }),
            }
        }
        Shares::from_vec(shares)
    }

    pub(crate) fn from_vec(shares: Vec<Share>) -> Self {
        match shares[..] {
            [] => Shares::None,
            [one] => Shares::One(one),
            _ => Shares::Many(Box::new(shares)),
        }
    }

    pub(crate) fn as_slice(&self) -> &[Share] {
        match self {
            Shares::None => &[],
            Shares::One(one) => std::slice::from_ref(one),
            Shares::Many(many) => many,
        }
    }

    /// Returns the bytes allocated outside the entry.
    pub(crate) fn allocated(&self) -> usize {
        match self {
            Shares::None | Shares::One(_) => 0,
            Shares::Many(many) => size_of::<Vec<Share>>() + many.capacity() * size_of::<Share>(),
        }
    }
}

/// Live bytes by segment.
#[derive(Debug, Default)]
pub(crate) struct Live {
    segment_len: u64,
    segments: Vec<u64>,
    /// Live bytes of records.
    pub(crate) meta: u64,
    /// Live bytes of blocks.
    pub(crate) body: u64,
}

impl Live {
    pub(crate) fn new(segment_len: u64) -> Self {
        Live { segment_len, ..Live::default() }
    }

    pub(crate) fn segment_len(&self) -> u64 {
        self.segment_len
    }

    /// Returns the number of segments with counters.
    pub(crate) fn segment_count(&self) -> u32 {
        self.segments.len() as u32
    }

    pub(crate) fn of(&self, segment: u32) -> u64 {
        self.segments.get(segment as usize).copied().unwrap_or(0)
    }

    pub(crate) fn total(&self) -> u64 {
        self.meta + self.body
    }

    pub(crate) fn allocated(&self) -> usize {
        self.segments.capacity() * size_of::<u64>()
    }

    /// Returns the counter of a segment. No store has a segment beyond [`SEGMENTS_MAX`]: a record that
    /// refers to one is invalid, and what it refers to is not counted.
    fn slot(&mut self, segment: usize) -> Option<&mut u64> {
        if segment >= self.segments.len() && segment < SEGMENTS_MAX as usize {
            self.segments.resize(segment + 1, 0);
        }
        self.segments.get_mut(segment)
    }

    fn slot_of(&mut self, at: Location) -> Option<&mut u64> {
        if !at.is_in_file() {
            return None;
        }
        let segment = at.offset().checked_sub(SEGMENTS_START)? / self.segment_len;
        self.slot(usize::try_from(segment).ok()?)
    }

    pub(crate) fn add(&mut self, at: Location) {
        if let Some(slot) = self.slot_of(at) {
            *slot += u64::from(at.len());
            self.meta += u64::from(at.len());
        }
    }

    pub(crate) fn sub(&mut self, at: Location) {
        if let Some(slot) = self.slot_of(at) {
            *slot -= u64::from(at.len());
            self.meta -= u64::from(at.len());
        }
    }

    pub(crate) fn add_shares(&mut self, shares: &Shares) {
        for share in shares.as_slice() {
            let bytes = u64::from(share.pages) * PAGE as u64;
            if let Some(slot) = self.slot(share.segment as usize) {
                *slot += bytes;
                self.body += bytes;
            }
        }
    }

    pub(crate) fn sub_shares(&mut self, shares: &Shares) {
        for share in shares.as_slice() {
            let bytes = u64::from(share.pages) * PAGE as u64;
            if let Some(slot) = self.slot(share.segment as usize) {
                *slot -= bytes;
                self.body -= bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{BUFFER_LEN, CAPACITY_MAX};

    #[test]
    fn location_of_extreme_offset_and_length_round_trips() {
        for (offset, len) in [(SEGMENTS_START, 80), (CAPACITY_MAX - 8, RECORD_MAX as u32), (1 << 33, 81)] {
            let at = Location::new(offset, len);
            assert_eq!((at.offset(), at.len()), (offset, len.next_multiple_of(8)));
            assert_eq!(Location::from_raw(at.raw()), at);
        }
    }

    #[test]
    fn body_in_three_runs_has_one_share_per_segment() {
        let segment_len = 64 << 20;
        let run = |segment: u64, len| Run { offset: SEGMENTS_START + segment * segment_len, generation: 1, len };
        let shares = Shares::of(&[run(3, 2 << 20), run(7, 1 << 20), run(3, (2 << 20) - 100)], segment_len);
        let block = (BUFFER_LEN / PAGE) as u32;
        let three = Share { segment: 3, pages: 4 * block };
        assert_eq!(shares.as_slice(), [three, Share { segment: 7, pages: block }]);
        let mut live = Live::new(segment_len);
        live.add_shares(&shares);
        live.add(Location::new(SEGMENTS_START + 7 * segment_len, 90));
        assert_eq!((live.of(7), live.meta), (BUFFER_LEN as u64 + 96, 96));
        live.sub_shares(&shares);
        assert_eq!((live.of(3), live.of(7), live.of(100), live.body), (0, 96, 0, 0));
    }
}
