//! Application of written records to the state.

use super::State;
use crate::draft::Draft;
use crate::error::Error;
use crate::index::{Effect, Location};
use crate::open::OpenMeta;
use crate::wire::payload::kind;

impl State {
    /// Applies a durable record to the index and ends its reservation.
    pub(crate) fn apply(&mut self, seq: u64, at: Location, effect: &Effect) -> Result<(), Error> {
        let live = self.index.live.total();
        // The order matters: the reservation remembers a newer deletion of the name.
        let result = self.index.apply(seq, at, effect);
        self.index.release(seq, effect);
        if !matches!(effect, Effect::Moved(_)) {
            self.numbers.settled(seq);
        }
        // In ring mode new data can make room as well, because it can be dropped.
        let ring = self.maintenance.ring;
        if ring || self.index.live.total() < live || matches!(effect, Effect::Delete { .. } | Effect::DeleteVersion(_))
        {
            self.maintenance.mark_progress();
        }
        result
    }

    pub(crate) fn count_record(&mut self, draft: &Draft, bytes: u64) {
        if !matches!(draft.kind, kind::CHECKPOINT_ITEMS | kind::CHECKPOINT | kind::SEGMENT_END | kind::MARK) {
            self.maintenance.since_checkpoint += bytes;
        }
        let written = &mut self.counters.written;
        match (&draft.effect, draft.kind) {
            (Effect::Moved(_), _) => {
                written.moved += bytes;
                self.counters.cleaner.bytes_moved += bytes;
            }
            (_, kind::CHECKPOINT_ITEMS | kind::CHECKPOINT) => written.checkpoints += bytes,
            (_, kind::SEGMENT_END | kind::MARK) => written.other += bytes,
            (effect, _) => {
                written.records += bytes;
                if let Effect::Body { len, runs, .. } = effect
                    && runs.is_empty()
                {
                    written.appended += len;
                }
            }
        }
    }

    /// Marks all records of the segment so far as applied.
    pub(crate) fn settle(&mut self, worker: usize, meta: &OpenMeta) {
        self.ends[worker].in_flight = u64::MAX;
        let segment = &mut self.segments.table[meta.number as usize];
        segment.settled = (meta.at - meta.start) as u32;
        segment.prev = meta.prev;
    }
}
