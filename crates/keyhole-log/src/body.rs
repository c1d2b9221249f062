//! Newly written bodies.

use std::fmt;

use crate::draft::Payload;
use crate::geometry::run_bytes;
use crate::index::Effect;
use crate::limits::BLOCK_DATA;
use crate::pin::SegmentPin;
use crate::types::BodyId;
use crate::wire::payload::Run;
use crate::writer::PlacedBlock;

/// A body whose bytes are written but not yet named by a record. Using it in an object or a part
/// names it; dropping it discards the body.
pub struct NewBody {
    pub(crate) id: BodyId,
    pub(crate) len: u64,
    pub(crate) record: Payload,
    pub(crate) runs: Vec<Run>,
    /// Pin the segments of its blocks until a record names them.
    pub(crate) pins: Vec<SegmentPin>,
}

/// The record of a body, and the pins that keep its blocks until the record is durable.
pub(crate) struct NamedBody {
    pub(crate) payload: Payload,
    pub(crate) effect: Effect,
    pub(crate) pins: Vec<SegmentPin>,
}

impl NewBody {
    /// Returns its identity.
    pub fn id(&self) -> BodyId {
        self.id
    }

    /// Returns its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Returns whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn into_record(self) -> NamedBody {
        let NewBody { id, len, record, runs, pins } = self;
        NamedBody { payload: record, effect: Effect::Body { id, relocation: 0, len, runs }, pins }
    }
}

impl fmt::Debug for NewBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewBody").field("id", &self.id).field("len", &self.len).finish_non_exhaustive()
    }
}

/// Adds the next block of a body, which begins at `start` in the body, to its runs.
pub(crate) fn add_block(runs: &mut Vec<Run>, start: u64, placed: &PlacedBlock) {
    // Within a run, blocks end at each multiple of `BLOCK_DATA` and nowhere else.
    let first = runs.last().filter(|_| start.is_multiple_of(BLOCK_DATA as u64)).map(|run| start - u64::from(run.len));
    match (runs.last_mut(), first) {
        (Some(run), Some(first))
            if run.generation == placed.generation && run.offset + run_bytes(first, run) == placed.offset =>
        {
            run.len += placed.len;
        }
        _ => runs.push(Run { offset: placed.offset, generation: placed.generation, len: placed.len }),
    }
}
