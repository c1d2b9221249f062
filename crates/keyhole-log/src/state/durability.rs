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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segments::{Segment, Use};
    use crate::wire::segment::Kind;

    /// A writer that began a segment and waits for its first batch to be written still has the end of
    /// the segment before. Once that one is condemned, it can be used again before the batch is there.
    #[test]
    fn condemned_segment_is_named_by_no_hint() {
        let mut state = State::empty();
        let ended = DurableHint { segment: 0, until: 8192 };
        let busy = WriterEnd { segment: 0, written: 8192, durable: 8192, in_flight: 7, ended: Some(ended) };
        state.ends = vec![busy, WriterEnd { segment: 1, written: 4096, durable: 4096, ..WriterEnd::NONE }];
        state.segments.table = vec![Segment { used: Use::Closed(Kind::Meta), ..Segment::BLANK }; 2];
        state.segments.table[1].used = Use::Open(Kind::Meta);
        assert_eq!(state.durable_hint(1, 0), ended);
        let syncing = state.begin_sync();
        state.condemn_dead();
        assert_eq!(state.segments.condemned(), 1);
        // A sync that began before does not bring it back.
        state.end_sync(&syncing);
        assert_eq!(state.durable_hint(1, 0), DurableHint::default());
        assert_eq!(state.ends[0], WriterEnd { in_flight: 7, ..WriterEnd::NONE });
        assert_eq!(state.durable_hint(0, 0), DurableHint { segment: 1, until: 4096 });
    }
}
