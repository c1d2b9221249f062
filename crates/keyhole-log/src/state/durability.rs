//! Durability: what a sync covers, and the durable ends of writers.

use super::State;
use crate::open::WriterEnd;
use crate::wire::record::DurableHint;

/// The records and offsets that a sync makes durable on success.
pub(crate) struct Syncing {
    seqs: Vec<u64>,
    ends: Vec<WriterEnd>,
}

impl State {
    /// Returns a durable hint: a segment of a worker other than `me`, and its durable offset.
    /// `turn` rotates through the workers.
    pub(crate) fn durable_hint(&self, me: usize, turn: usize) -> DurableHint {
        let others = self.ends.len() - 1;
        let other = |nth: usize| self.ends[(me + 1 + (turn + nth) % others) % self.ends.len()];
        let known = (0..others).map(other).find(|end| end.durable > 0);
        known.map_or_else(DurableHint::default, |end| DurableHint { segment: end.segment, until: end.durable })
    }

    /// Snapshots what a sync covers. Call right before submitting the sync: every write it counts
    /// has completed.
    pub(crate) fn begin_sync(&mut self) -> Syncing {
        Syncing { seqs: self.numbers.begin_sync(), ends: self.ends.clone() }
    }

    pub(crate) fn end_sync(&mut self, syncing: &Syncing) {
        self.numbers.durable(syncing.seqs.iter().copied());
        for (end, then) in self.ends.iter_mut().zip(&syncing.ends) {
            if end.segment == then.segment {
                end.durable = end.durable.max(then.written);
            }
        }
    }
}
