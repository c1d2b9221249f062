//! The counter of the store: sequence numbers of records, identities of bodies,
//! generations of segments.

use std::collections::VecDeque;

use crate::types::BodyId;

/// Flag of a record that is not durable.
const OUTSTANDING: u8 = 1;
/// Flag of a record that is not applied to the index.
const PENDING: u8 = 2;

/// Allocates numbers and tracks the records that are not durable yet.
#[derive(Debug)]
pub(crate) struct Numbers {
    next: u64,
    /// Flags of the latest numbers. The first is of an in-flight record.
    recent: VecDeque<u8>,
    /// Written records that the next sync makes durable.
    written: Vec<u64>,
    /// Upper bound of the watermark, if set.
    bound: Option<u64>,
}

impl Numbers {
    pub(crate) fn new(next: u64) -> Self {
        Numbers { next, recent: VecDeque::new(), written: Vec::new(), bound: None }
    }

    /// Holds the watermark at or below `bound`. `None` removes the bound.
    pub(crate) fn set_bound(&mut self, bound: Option<u64>) {
        self.bound = bound;
    }

    fn take(&mut self, flags: u8) -> u64 {
        let number = self.next;
        // 2^64 is out of reach: 2^40 numbers per recovery, 2^24 recoveries.
        self.next += 1;
        if flags != 0 || !self.recent.is_empty() {
            self.recent.push_back(flags);
        }
        number
    }

    /// Returns the first number in `recent`.
    fn first(&self) -> u64 {
        self.next - self.recent.len() as u64
    }

    fn clear(&mut self, seq: u64, flag: u8) {
        // A relocated record has an older number, or none of the flags.
        let Some(at) = seq.checked_sub(self.first()) else { return };
        if let Some(flags) = self.recent.get_mut(at as usize) {
            *flags &= !flag;
        }
        while self.recent.front() == Some(&0) {
            self.recent.pop_front();
        }
    }

    pub(crate) fn record(&mut self) -> u64 {
        self.take(OUTSTANDING | PENDING)
    }

    /// Returns the relocation sequence of a move of blocks.
    pub(crate) fn relocation(&mut self) -> u64 {
        self.take(0)
    }

    pub(crate) fn body(&mut self) -> BodyId {
        BodyId(self.take(0))
    }

    pub(crate) fn generation(&mut self) -> u64 {
        self.take(0)
    }

    /// Returns the next number.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Marks the record as applied, or as one that will never be.
    pub(crate) fn settled(&mut self, seq: u64) {
        self.clear(seq, PENDING);
    }

    /// Returns the numbers of records that are not yet applied.
    pub(crate) fn pending(&self) -> impl Iterator<Item = u64> {
        (self.first()..).zip(&self.recent).filter(|(_, flags)| *flags & PENDING != 0).map(|(seq, _)| seq)
    }

    /// Returns the highest number such that every record up to it is durable and applied, or will
    /// never exist.
    pub(crate) fn settled_through(&self) -> u64 {
        // The first number in `recent` has a flag.
        let known = self.first() - 1;
        self.bound.map_or(known, |bound| known.min(bound))
    }

    /// Returns whether a record is durable.
    pub(crate) fn is_durable(&self, seq: u64) -> bool {
        let at = seq.checked_sub(self.first()).and_then(|at| self.recent.get(at as usize));
        at.is_none_or(|flags| flags & OUTSTANDING == 0)
    }

    /// Marks the record as one that will never be written.
    pub(crate) fn give_up(&mut self, seq: u64) {
        self.clear(seq, OUTSTANDING);
    }

    pub(crate) fn written(&mut self, seqs: impl Iterator<Item = u64>) {
        self.written.extend(seqs);
    }

    /// Returns the records that a sync which starts now makes durable.
    pub(crate) fn begin_sync(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.written)
    }

    pub(crate) fn durable(&mut self, seqs: impl IntoIterator<Item = u64>) {
        for seq in seqs {
            self.clear(seq, OUTSTANDING);
        }
    }

    /// Returns the watermark: every record with a number up to it is durable or does not exist.
    pub(crate) fn watermark(&self) -> u64 {
        let oldest = self.recent.iter().position(|flags| flags & OUTSTANDING != 0).unwrap_or(self.recent.len());
        let known = self.first() + oldest as u64 - 1;
        self.bound.map_or(known, |bound| known.min(bound))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watermark_with_bound_stays_until_bound_is_removed() {
        let mut numbers = Numbers::new(100);
        numbers.set_bound(Some(7));
        let seq = numbers.record();
        numbers.durable([seq]);
        assert_eq!(numbers.watermark(), 7);
        numbers.set_bound(None);
        assert_eq!(numbers.watermark(), seq);
    }

    #[test]
    fn settled_number_stays_below_oldest_record_undurable_or_unapplied() {
        let mut numbers = Numbers::new(100);
        assert_eq!(numbers.settled_through(), 99);
        let durable = numbers.record();
        let _ = numbers.body();
        let applied = numbers.record();
        let last = numbers.generation();
        numbers.durable([durable]);
        numbers.settled(applied);
        assert_eq!(numbers.settled_through(), durable - 1, "one is not applied");
        assert!(numbers.is_durable(durable) && !numbers.is_durable(applied) && numbers.is_durable(3));
        numbers.settled(durable);
        assert_eq!(numbers.settled_through(), applied - 1, "one is not durable");
        numbers.durable([applied]);
        assert_eq!(numbers.settled_through(), last);
        numbers.set_bound(Some(7));
        assert_eq!(numbers.settled_through(), 7);
    }

    #[test]
    fn watermark_stays_below_oldest_undurable_record() {
        let mut numbers = Numbers::new(100);
        assert_eq!(numbers.watermark(), 99);
        let a = numbers.record();
        let _ = numbers.body();
        let b = numbers.record();
        let c = numbers.record();
        numbers.written([b, c].into_iter());
        let sync = numbers.begin_sync();
        assert_eq!(numbers.watermark(), a - 1);
        numbers.durable(sync);
        assert_eq!(numbers.watermark(), a - 1, "an older one is not even written");
        numbers.give_up(a);
        assert_eq!(numbers.watermark(), c);
        assert!(numbers.pending().eq([a, b, c]), "durable is not in effect");
        numbers.settled(b);
        assert!(numbers.pending().eq([a, c]));
        numbers.settled(a);
        numbers.settled(c);
        assert!(numbers.recent.is_empty() && numbers.pending().next().is_none());
        let d = numbers.generation();
        numbers.durable([a, 3]);
        assert_eq!((numbers.watermark(), numbers.next()), (d, d + 1), "what was written again");
    }
}
