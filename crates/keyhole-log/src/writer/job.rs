//! The entries of a writer's queue: blocks, and the records of a request.

use futures_channel::oneshot;

use crate::disk::Disk;
use crate::draft::Draft;
use crate::error::Error;
use crate::pin::SegmentPin;
use crate::store::Store;
use crate::types::BodyId;
use crate::wire::record;

/// A queue entry of the writer.
pub(crate) enum Job<D: Disk> {
    Block(BlockWrite<D>),
    Commit(Commit),
    Flush(oneshot::Sender<Result<(), Error>>),
}

/// A block to write.
pub(crate) struct BlockWrite<D: Disk> {
    pub(crate) buf: D::Buf,
    pub(crate) body: BodyId,
    pub(crate) index: u32,
    pub(crate) data_len: u32,
    pub(crate) tags: Vec<[u8; 16]>,
    /// Checksums of its first granules.
    pub(crate) crcs: Vec<u32>,
    /// Results of pieces cut off its front because the segment had no room for the whole block.
    pub(crate) ahead: Vec<oneshot::Receiver<Result<Vec<PlacedBlock>, Error>>>,
    pub(crate) done: oneshot::Sender<Result<Vec<PlacedBlock>, Error>>,
}

/// The location of a written block or piece of one. No record names it yet;
/// the pin keeps its segment.
#[derive(Debug)]
pub(crate) struct PlacedBlock {
    pub(crate) offset: u64,
    pub(crate) generation: u64,
    /// Bytes of data.
    pub(crate) len: u32,
    pub(crate) pin: SegmentPin,
}

/// The records of one request, written contiguously in one batch.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) drafts: Vec<Draft>,
    /// Bodies pinned until the commit is decided.
    pub(crate) pinned: Vec<BodyId>,
    /// Segments pinned until the commit is decided: they hold blocks that no record names yet. Must
    /// not be dropped under the lock.
    pub(crate) holds: Vec<SegmentPin>,
    /// Whether the commit only frees space, and may use the reserve for deletions.
    pub(crate) deletes: bool,
    /// Whether the commit may be answered before it is durable. Used by the cleaner, which syncs
    /// before it relies on its writes.
    pub(crate) relaxed: bool,
    /// Whether everything that was acknowledged before must be durable before the commit is written.
    pub(crate) syncs_before: bool,
    pub(crate) done: oneshot::Sender<Result<(), Error>>,
}

impl Commit {
    pub(crate) fn space(&self) -> usize {
        self.drafts.iter().map(|draft| record::space(draft.payload.len())).sum()
    }

    /// Fails a commit that will not be written, and releases its reservations.
    pub(crate) fn refuse(self, store: &Store, error: &Error) {
        let mut state = store.lock();
        for draft in &self.drafts {
            state.index.release(draft.seq, &draft.effect);
            // After a failed write the state of the disk is unknown: the watermark stays below it.
            if !store.poisoned() && !draft.moved() {
                state.numbers.give_up(draft.seq);
                state.numbers.settled(draft.seq);
            }
        }
        state.index.unpin(&self.pinned);
        drop(state);
        let _ = self.done.send(Err(error.clone())); // The receiver is gone if the request was dropped.
    }
}
