//! The state of an open store, guarded by one mutex.
//!
//! The lock is never held across an await. Each file of this module has the operations on the state
//! for one purpose.

mod apply;
mod changes;
mod checkpoint;
mod cleaning;
mod durability;
mod evictable;
mod findings;
mod maintenance;
mod oldest;
mod space;
mod statistics;
mod superblock;

use std::collections::VecDeque;

use futures_channel::oneshot;

pub(crate) use changes::{ChangeCollector, ChangeCursor};
pub(crate) use checkpoint::BegunCheckpoint;
pub(crate) use cleaning::{Candidate, move_commit};
pub use evictable::EvictionCandidate;
pub(crate) use evictable::{EvictionSearch, Evictions};
pub(crate) use findings::{SearchPosition, UnreadData};
pub(crate) use oldest::{Due, Oldest, OldestCursor};

use crate::error::{Damage, Error, FailedWrite};
use crate::index::Index;
use crate::numbers::Numbers;
use crate::open::{Slot, WriterEnd};
use crate::segments::Segments;
use crate::stats::Counters;
use crate::wire::superblock::Superblock;

/// The state guarded by the mutex.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) index: Index,
    pub(crate) numbers: Numbers,
    pub(crate) segments: Segments,
    /// The open META segment of each writer. The last is the maintenance's.
    pub(crate) ends: Vec<WriterEnd>,
    /// The open segments for workers that have not started yet.
    pub(crate) slots: VecDeque<Slot>,
    pub(crate) superblock: Superblock,
    pub(crate) superblock_copies: superblock::SuperblockCopies,
    pub(crate) counters: Counters,
    pub(crate) maintenance: MaintenanceState,
    /// The failure that poisoned the log.
    pub(crate) failed_write: Option<FailedWrite>,
    /// Writers that must end a torn segment and lack the space. They retry when space is expected.
    pub(crate) torn: Vec<oneshot::Sender<()>>,
}

/// State of the communication between the maintenance and the workers.
#[derive(Debug, Default)]
pub(crate) struct MaintenanceState {
    /// Whether the maintenance has started and not ended.
    pub(crate) running: bool,
    /// Whether the cleaner found nothing to gain, and no space has become dead since.
    pub(crate) is_stalled: bool,
    /// Counts deletions, overwrites and released pins, after which cleaning may gain space
    /// again.
    pub(crate) progress_counter: u64,
    /// Writers that wait for a segment.
    pub(crate) space: Vec<oneshot::Sender<()>>,
    pub(crate) requests: VecDeque<MaintenanceRequest>,
    /// Wakes the maintenance, if it is asleep.
    pub(crate) asleep: Option<oneshot::Sender<()>>,
    /// Bytes of records written since the newest checkpoint was begun.
    pub(crate) since_checkpoint: u64,
    /// Checkpoints still to be written before the tails cut by recovery are final
    /// and watermarks may rise.
    pub(crate) unsettled: usize,
    /// Bytes of the newest checkpoint.
    pub(crate) checkpoint_len: u64,
    /// Ring mode: the oldest objects are dropped when there is no other way to make room.
    pub(crate) ring: bool,
    /// The open segments it starts with.
    pub(crate) slot: Option<Slot>,
    /// Damage found by the maintenance and not yet [taken](Store::take_findings).
    pub(crate) findings: Vec<Damage>,
    /// Number of existing worker logs, and of writers that have not ended.
    pub(crate) logs: usize,
    pub(crate) writers: usize,
}

/// A request to the maintenance, with the sender that answers it.
#[derive(Debug)]
pub(crate) enum MaintenanceRequest {
    Checkpoint(oneshot::Sender<Result<(), Error>>),
    Compact(oneshot::Sender<Result<Compacted, Error>>),
}

/// Result of [`compact`](crate::Log::compact).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Segments that became blank.
    pub segments_freed: u64,
    /// Bytes of live records and blocks moved.
    pub bytes_moved: u64,
}

impl MaintenanceState {
    /// Marks that cleaning may gain space again.
    pub(crate) fn mark_progress(&mut self) {
        self.is_stalled = false;
        self.progress_counter += 1;
    }

    /// Marks that there is nothing to gain, unless the progress counter is no longer `seen`.
    pub(crate) fn mark_stalled(&mut self, seen: u64) {
        self.is_stalled = self.progress_counter == seen;
    }
}

#[cfg(test)]
impl State {
    /// Returns the state of a store without segments.
    pub(crate) fn empty() -> State {
        const LEN: u64 = 2 << 20;
        let capacity = crate::limits::SEGMENTS_START + 24 * LEN;
        State {
            index: Index::replay(LEN),
            numbers: Numbers::new(1),
            segments: Segments::new(LEN, capacity, Vec::new(), 1),
            ends: Vec::new(),
            slots: Default::default(),
            superblock: Superblock {
                version: crate::wire::superblock::VERSION,
                store: [1; 16],
                epoch: 1,
                segment_len: LEN,
                capacity,
                created_ms: 0,
                checkpoints: [0; 2],
            },
            superblock_copies: Default::default(),
            counters: Default::default(),
            maintenance: Default::default(),
            failed_write: None,
            torn: Vec::new(),
        }
    }
}
