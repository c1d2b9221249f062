//! The writer: one task per worker, which owns every write into that worker's segments.
//!
//! Requests queue buffers and records, and wait. Dropping a request does not cancel its
//! queued writes: they complete or fail as if it were still waiting. The queue itself
//! is unbounded; its contents are bounded by what requests may hold:
//! [`BLOCKS_IN_FLIGHT`](crate::limits::BLOCKS_IN_FLIGHT) buffers per body, and one
//! group of records per request.
//!
//! Blocks are written as they arrive. Records are written in batches: while one batch is in
//! flight, arriving records are collected for the next, so that one sync serves all waiting
//! requests (group commit).

mod append;
mod batch;
mod begin;
mod blocks;
mod commit;
mod context;
mod job;
mod roll;
mod superblock;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use futures_channel::{mpsc, oneshot};
use futures_util::future::{Fuse, FusedFuture, FutureExt, LocalBoxFuture};
use futures_util::select_biased;
use futures_util::stream::{FusedStream, FuturesUnordered, StreamExt};

pub(crate) use context::Context;
pub(crate) use job::{BlockWrite, Commit, Job, PlacedBlock};

use crate::disk::Disk;
use crate::error::{Error, FailedWrite};
use crate::geometry::split_at;
use crate::limits::{CHUNK_LEN, buffer_len};
use crate::open::{OpenBody, OpenMeta, Slot};
use crate::pin::SegmentPin;
use crate::store::Store;
use crate::wire::block;
use crate::yielding::yield_once;
use batch::Batch;
use blocks::{begin_body, write_block};

/// Owns every write of one worker. Does nothing until [`run`](Self::run) is polled.
pub struct Writer<D: Disk> {
    context: Rc<Context<D>>,
    queue: mpsc::UnboundedReceiver<Job<D>>,
    meta: Option<OpenMeta>,
    body: Option<OpenBody>,
    /// Blocks that wait for a new segment.
    blocks: VecDeque<BlockWrite<D>>,
    /// Records for the next batch.
    records: VecDeque<Commit>,
    /// Waiting flushes, each with the number of commits queued before it.
    flushes: VecDeque<(u64, oneshot::Sender<Result<(), Error>>)>,
    /// Number of commits queued so far.
    commits: u64,
    guard: Guard,
}

/// Poisons the log if the writer is dropped early: the outcome of its writes is then unknown.
struct Guard {
    store: Arc<Store>,
    /// Whether this is a worker's writer, not the maintenance's.
    works: bool,
    ended: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.ended {
            let dropped = std::io::Error::other("dropped before it ended");
            self.store.poison(FailedWrite::new("a writer", None, &dropped));
        }
        if self.works {
            let mut state = self.store.lock();
            state.maintenance.writers -= 1;
            state.wake_maintenance();
        }
    }
}

type Writes = FuturesUnordered<LocalBoxFuture<'static, ()>>;
type Beginning = Fuse<LocalBoxFuture<'static, Result<Option<OpenBody>, Error>>>;
type Committing = Fuse<LocalBoxFuture<'static, Option<OpenMeta>>>;

impl<D: Disk> Writer<D> {
    pub(crate) fn new(
        store: Arc<Store>,
        disk: Rc<D>,
        slot: Slot,
        maintains: bool,
        queue: mpsc::UnboundedReceiver<Job<D>>,
    ) -> Self {
        Writer {
            guard: Guard { store: Arc::clone(&store), works: !maintains, ended: false },
            context: Rc::new(Context::new(store, disk, slot.worker, maintains)),
            queue,
            meta: slot.meta,
            body: slot.body,
            blocks: VecDeque::new(),
            records: VecDeque::new(),
            flushes: VecDeque::new(),
            commits: 0,
        }
    }

    /// Runs until every [`Log`](crate::Log) of this worker has been dropped and
    /// everything is written and synced. The caller polls it on the worker's thread and
    /// drops it only when the process ends.
    pub async fn run(mut self) {
        let mut writes: Writes = FuturesUnordered::new();
        let mut beginning: Beginning = Fuse::terminated();
        let mut committing: Committing = Fuse::terminated();
        let mut space: Fuse<oneshot::Receiver<()>> = Fuse::terminated();
        let mut open = true;
        loop {
            while open && let Ok(job) = self.queue.try_recv() {
                self.accept(job);
            }
            open &= !self.queue.is_terminated();
            self.start_blocks(&mut writes, &mut beginning);
            self.start_commit(&mut committing);
            if committing.is_terminated() && space.is_terminated() && self.context.is_torn() {
                space = self.context.expected_space().fuse();
            }
            let idle = writes.is_empty() && beginning.is_terminated() && committing.is_terminated();
            if idle && !open {
                break;
            }
            select_biased! {
                meta = committing => {
                    self.meta = meta;
                    // Just-acknowledged tasks join the next batch. Otherwise two groups of requests
                    // would alternate, each waiting for the other's sync.
                    yield_once().await;
                }
                begun = beginning => self.begun(begun),
                // Ends the torn segment even without new requests: names stay reserved until then.
                _ = space => if committing.is_terminated() {
                    committing = self.commit(Batch::default());
                },
                () = writes.select_next_some() => {}
                job = self.queue.next() => match job {
                    Some(job) => self.accept(job),
                    None => open = false,
                },
                complete => open = false,
            }
        }
        if !self.context.store.poisoned() {
            append::close(&self.context, self.meta.take()).await;
        }
        self.guard.ended = true;
    }

    fn accept(&mut self, job: Job<D>) {
        match job {
            Job::Block(block) => self.blocks.push_back(block),
            Job::Commit(commit) => {
                self.commits += 1;
                self.records.push_back(commit);
            }
            Job::Flush(done) => self.flushes.push_back((self.commits, done)),
        }
    }

    /// Starts writing the blocks that fit into the open segment, or begins a segment for them.
    fn start_blocks(&mut self, writes: &mut Writes, beginning: &mut Beginning) {
        while let Some(block) = self.blocks.pop_front() {
            if let Err(error) = self.context.store.check_poison() {
                let _ = block.done.send(Err(error)); // The receiver is gone if the request was dropped.
                continue;
            }
            if !beginning.is_terminated() {
                self.blocks.push_front(block);
                return;
            }
            let len = block::stored_len(block.data_len as usize) as u64;
            // After a write failed for lack of space, the next waits until the
            // file system has space again.
            let is_writable = self.context.maintains || !self.context.store.lock().segments.is_unwritable();
            let room = self.body.as_ref().filter(|_| is_writable).map_or(0, |body| body.end - body.at);
            let block = if room >= len {
                block
            } else if let Some(data_len) = split_at(room, self.context.store.segment_len) {
                let (front, rest) = self.split(block, data_len);
                self.blocks.push_front(rest);
                front
            } else {
                self.blocks.push_front(block);
                *beginning = begin_body(Rc::clone(&self.context)).boxed_local().fuse();
                return;
            };
            let Some(body) = &mut self.body else { unreachable!("a segment with room is open") };
            let pin = SegmentPin::new(&self.context.store, &mut self.context.store.lock(), body.number);
            let placed = PlacedBlock { offset: body.at, generation: body.generation, len: block.data_len, pin };
            body.at += block::stored_len(block.data_len as usize) as u64;
            writes.push(write_block(Rc::clone(&self.context), block, placed).boxed_local());
        }
    }

    /// Cuts a block in two: `data_len` bytes of whole chunks, and the rest, which answers for both.
    fn split(&self, block: BlockWrite<D>, data_len: usize) -> (BlockWrite<D>, BlockWrite<D>) {
        let BlockWrite { buf, body, index, data_len: whole, mut tags, mut crcs, mut ahead, done } = block;
        let rest_len = whole as usize - data_len;
        let chunks = data_len / CHUNK_LEN;
        let mut rest = self.context.disk.buffer_with_len(buffer_len(rest_len));
        D::slice(&mut rest, 0..rest_len).copy_from_slice(&buf.as_ref()[data_len..whole as usize]);
        let rest_tags = tags.split_off(chunks.min(tags.len()));
        let rest_crcs = crcs.split_off(chunks.min(crcs.len()));
        let (placed, answer) = oneshot::channel();
        ahead.push(answer);
        let front_len = data_len as u32;
        let front = BlockWrite { buf, body, index, data_len: front_len, tags, crcs, ahead: Vec::new(), done: placed };
        let tags = rest_tags;
        let crcs = rest_crcs;
        let data_len = rest_len as u32;
        (front, BlockWrite { buf: rest, body, index, data_len, tags, crcs, ahead, done })
    }

    /// Enters a new segment of blocks. If it could not be begun, fails the blocks that wait for it.
    fn begun(&mut self, begun: Result<Option<OpenBody>, Error>) {
        let error = match begun {
            Ok(Some(body)) => {
                if let Some(full) = self.body.replace(body) {
                    self.context.store.lock().close_segment(full.number, self.context.maintains);
                }
                return;
            }
            Ok(None) => Error::Full,
            Err(error) => error,
        };
        for block in self.blocks.drain(..) {
            let _ = block.done.send(Err(error.clone())); // The receiver is gone if the request was dropped.
        }
    }

    fn start_commit(&mut self, committing: &mut Committing) {
        if !committing.is_terminated() || (self.records.is_empty() && self.flushes.is_empty()) {
            return;
        }
        let limit = match &self.meta {
            Some(meta) => meta.room(),
            None => 0,
        };
        let mut batch = Batch::take(&mut self.records, limit, self.context.store.segment_len);
        // A flush covers everything queued before it, and does not wait for anything queued later.
        let taken = self.commits - self.records.len() as u64;
        let covered = self.flushes.partition_point(|(ahead, _)| *ahead <= taken);
        batch.flushes.extend(self.flushes.drain(..covered).map(|(_, done)| done));
        *committing = self.commit(batch);
    }

    fn commit(&mut self, batch: Batch) -> Committing {
        commit::commit(Rc::clone(&self.context), self.meta.take(), batch).boxed_local().fuse()
    }
}
