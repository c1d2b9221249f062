//! The store's one counter: sequence numbers of records, identities of bodies, generations of segments.

use std::collections::BTreeSet;

use crate::types::BodyId;

/// Gives out numbers, and knows which records are not durable yet.
#[derive(Debug)]
pub(crate) struct Numbers {
    next: u64,
    /// Sequence numbers of records that are not durable.
    outstanding: BTreeSet<u64>,
    /// Those of them that are written, so that the next sync makes them durable.
    written: BTreeSet<u64>,
    /// Sequence numbers of records that have not taken effect in the index.
    pending: BTreeSet<u64>,
}

impl Numbers {
    pub(crate) fn new(next: u64) -> Self {
        Numbers { next, outstanding: BTreeSet::new(), written: BTreeSet::new(), pending: BTreeSet::new() }
    }

    fn take(&mut self) -> u64 {
        let number = self.next;
        // 2^64 is out of reach: 2^40 numbers at a start, 2^24 starts.
        self.next += 1;
        number
    }

    pub(crate) fn record(&mut self) -> u64 {
        let seq = self.take();
        self.outstanding.insert(seq);
        self.pending.insert(seq);
        seq
    }

    /// A number for where the blocks of a body are now.
    pub(crate) fn placed(&mut self) -> u64 {
        self.take()
    }

    pub(crate) fn body(&mut self) -> BodyId {
        BodyId(self.take())
    }

    pub(crate) fn generation(&mut self) -> u64 {
        self.take()
    }

    /// The next number.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The record of this number has taken effect, or never will.
    pub(crate) fn settled(&mut self, seq: u64) {
        self.pending.remove(&seq);
    }

    /// Numbers of records that have not taken effect yet.
    pub(crate) fn pending(&self) -> impl Iterator<Item = u64> {
        self.pending.iter().copied()
    }

    /// The record of this number will never be written.
    pub(crate) fn give_up(&mut self, seq: u64) {
        self.outstanding.remove(&seq);
    }

    pub(crate) fn written(&mut self, seqs: impl Iterator<Item = u64>) {
        self.written.extend(seqs);
    }

    /// What a sync that begins now makes durable.
    pub(crate) fn begin_sync(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut self.written)
    }

    pub(crate) fn durable(&mut self, seqs: &BTreeSet<u64>) {
        for seq in seqs {
            // A record that is written again has none outstanding.
            self.outstanding.remove(seq);
        }
    }

    /// Every record with a number up to this is durable, or does not exist.
    pub(crate) fn watermark(&self) -> u64 {
        self.outstanding.first().map_or(self.next, |&oldest| oldest) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watermark_waits_for_the_oldest() {
        let mut numbers = Numbers::new(100);
        assert_eq!(numbers.watermark(), 99);
        let (a, _, b, c) = (numbers.record(), numbers.body(), numbers.record(), numbers.record());
        numbers.written([b, c].into_iter());
        let sync = numbers.begin_sync();
        assert_eq!(numbers.watermark(), a - 1);
        numbers.durable(&sync);
        assert_eq!(numbers.watermark(), a - 1, "an older one is not even written");
        numbers.give_up(a);
        assert_eq!(numbers.watermark(), c);
    }
}
