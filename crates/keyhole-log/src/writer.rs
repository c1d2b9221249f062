//! The writer: one task for each worker, which owns every write into that worker's segments.
//!
//! Requests hand over buffers and records through a queue, and wait. A request that is given up changes nothing: what it has
//! handed over is written, or fails, as if it were still there. The queue itself has no bound; what may stand in it is bounded
//! by what requests may hold: [`BLOCKS_IN_FLIGHT`](crate::limits::BLOCKS_IN_FLIGHT) buffers for each body, one group of records
//! for each request.
//!
//! Blocks are written as they come. Records are written in batches: while one batch is on its way, what arrives is collected
//! for the next one, so that one sync serves every request that waits (group commit).

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use futures_channel::{mpsc, oneshot};
use futures_util::future::{Fuse, FusedFuture, FutureExt, LocalBoxFuture};
use futures_util::select_biased;
use futures_util::stream::{FusedStream, FuturesUnordered, StreamExt};

use crate::body::split_at;
use crate::commit::{self, Batch, Commit, Context};
use crate::disk::Disk;
use crate::error::{Error, FailedWrite};
use crate::limits::{CHUNK_LEN, buffer_len};
use crate::segments::Purpose;
use crate::shared::{OpenBody, OpenMeta, SegmentPin, Shared, Slot};
use crate::types::BodyId;
use crate::wire::block::{self, Identity};
use crate::wire::segment::Kind;

/// What requests hand over.
pub(crate) enum Job<D: Disk> {
    Block(Block<D>),
    Commit(Commit),
    Flush(oneshot::Sender<Result<(), Error>>),
}

/// A block to be written.
pub(crate) struct Block<D: Disk> {
    pub(crate) buf: D::Buf,
    pub(crate) body: BodyId,
    pub(crate) index: u32,
    pub(crate) data_len: u32,
    pub(crate) tags: Vec<[u8; 16]>,
    /// Checksums of its first granules.
    pub(crate) crcs: Vec<u32>,
    /// Pieces that were cut off its front, as the room at the end of a segment was too short for all of it.
    pub(crate) ahead: Vec<oneshot::Receiver<Result<Vec<Placed>, Error>>>,
    pub(crate) done: oneshot::Sender<Result<Vec<Placed>, Error>>,
}

/// Where a block, or a piece of one, has been written. No record names it yet: the pin keeps its segment.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) offset: u64,
    pub(crate) generation: u64,
    /// Bytes of data.
    pub(crate) len: u32,
    pub(crate) pin: SegmentPin,
}

/// Owns every write of one worker. It does nothing until [`run`](Self::run) is polled.
pub struct Writer<D: Disk> {
    context: Rc<Context<D>>,
    queue: mpsc::UnboundedReceiver<Job<D>>,
    meta: Option<OpenMeta>,
    body: Option<OpenBody>,
    /// Blocks that wait for a segment to be begun.
    blocks: VecDeque<Block<D>>,
    /// Records for the next batch, and who waits for a sync.
    records: VecDeque<Commit>,
    /// Each with how many commits had been handed over ahead of it.
    flushes: VecDeque<(u64, oneshot::Sender<Result<(), Error>>)>,
    /// Commits that were handed over so far.
    commits: u64,
    guard: Guard,
}

/// Poisons the log if the writer is dropped before its end: what becomes of its writes is then unknown.
struct Guard {
    shared: Arc<Shared>,
    /// It is a worker's, not the maintenance's.
    works: bool,
    ended: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.ended {
            let dropped = std::io::Error::other("it was dropped before its end");
            self.shared.poison(FailedWrite::new("a writer", None, &dropped));
        }
        if self.works {
            let mut state = self.shared.lock();
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
        shared: Arc<Shared>,
        disk: Rc<D>,
        slot: Slot,
        maintains: bool,
        queue: mpsc::UnboundedReceiver<Job<D>>,
    ) -> Self {
        Writer {
            guard: Guard { shared: Arc::clone(&shared), works: !maintains, ended: false },
            context: Rc::new(Context::new(shared, disk, slot.worker, maintains)),
            queue,
            meta: slot.meta,
            body: slot.body,
            blocks: VecDeque::new(),
            records: VecDeque::new(),
            flushes: VecDeque::new(),
            commits: 0,
        }
    }

    /// Writes until every [`Log`](crate::Log) of this worker has been dropped and everything is written and synced. The caller
    /// keeps polling it on the worker's thread, and drops it only when the process ends.
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
                    // Tasks that were just acknowledged join the next batch. Otherwise two groups of requests would take turns, and
                    // each would wait for the other's sync.
                    others_first().await;
                }
                begun = beginning => self.begun(begun),
                // Nobody may come who needs the segment ended, and names stay reserved until then.
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
        if !self.context.shared.poisoned() {
            commit::close(&self.context, self.meta.take()).await;
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

    /// Starts writing the blocks that there is room for, or begins a segment for them.
    fn start_blocks(&mut self, writes: &mut Writes, beginning: &mut Beginning) {
        while let Some(block) = self.blocks.pop_front() {
            if let Err(error) = self.context.shared.check_poison() {
                let _ = block.done.send(Err(error)); // The receiver is gone if the request was dropped.
                continue;
            }
            if !beginning.is_terminated() {
                self.blocks.push_front(block);
                return;
            }
            let len = block::stored_len(block.data_len as usize) as u64;
            // Where a write has failed for want of space the next one waits until the file system has given some.
            let is_writable = self.context.maintains || !self.context.shared.lock().segments.is_unwritable();
            let room = self.body.as_ref().filter(|_| is_writable).map_or(0, |body| body.end - body.at);
            let block = if room >= len {
                block
            } else if let Some(data_len) = split_at(room, self.context.shared.segment_len) {
                let (front, rest) = self.split(block, data_len);
                self.blocks.push_front(rest);
                front
            } else {
                self.blocks.push_front(block);
                *beginning = begin_body(Rc::clone(&self.context)).boxed_local().fuse();
                return;
            };
            let Some(body) = &mut self.body else { unreachable!("there is room in it") };
            let pin = SegmentPin::new(&self.context.shared, &mut self.context.shared.lock(), body.number);
            let placed = Placed { offset: body.at, generation: body.generation, len: block.data_len, pin };
            body.at += block::stored_len(block.data_len as usize) as u64;
            writes.push(write_block(Rc::clone(&self.context), block, placed).boxed_local());
        }
    }

    /// Cuts a block in two: the first `data_len` bytes, whole chunks, and the rest, which gives the answer for both.
    fn split(&self, block: Block<D>, data_len: usize) -> (Block<D>, Block<D>) {
        let Block { buf, body, index, data_len: whole, mut tags, mut crcs, mut ahead, done } = block;
        let (rest_len, chunks) = (whole as usize - data_len, data_len / CHUNK_LEN);
        let mut rest = self.context.disk.buffer_of(buffer_len(rest_len));
        D::part(&mut rest, 0..rest_len).copy_from_slice(&buf.as_ref()[data_len..whole as usize]);
        let rest_tags = tags.split_off(chunks.min(tags.len()));
        let rest_crcs = crcs.split_off(chunks.min(crcs.len()));
        let (placed, answer) = oneshot::channel();
        ahead.push(answer);
        let front_len = data_len as u32;
        let front = Block { buf, body, index, data_len: front_len, tags, crcs, ahead: Vec::new(), done: placed };
        let (tags, crcs, data_len) = (rest_tags, rest_crcs, rest_len as u32);
        (front, Block { buf: rest, body, index, data_len, tags, crcs, ahead, done })
    }

    /// A segment for blocks has been begun, or could not be: then the blocks that wait for it fail.
    fn begun(&mut self, begun: Result<Option<OpenBody>, Error>) {
        let error = match begun {
            Ok(Some(body)) => {
                if let Some(full) = self.body.replace(body) {
                    self.context.shared.lock().close_segment(full.number, self.context.maintains);
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
        let mut batch = Batch::take(&mut self.records, limit, self.context.shared.segment_len);
        // A flush covers everything that was handed over ahead of it, and waits for nothing that came later.
        let taken = self.commits - self.records.len() as u64;
        let covered = self.flushes.partition_point(|(ahead, _)| *ahead <= taken);
        batch.flushes.extend(self.flushes.drain(..covered).map(|(_, done)| done));
        *committing = self.commit(batch);
    }

    fn commit(&mut self, batch: Batch) -> Committing {
        commit::commit(Rc::clone(&self.context), self.meta.take(), batch).boxed_local().fuse()
    }
}

/// Lets the other tasks of this thread run once.
pub(crate) async fn others_first() {
    let mut again = true;
    std::future::poll_fn(|cx| {
        if std::mem::take(&mut again) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}

async fn write_block<D: Disk>(context: Rc<Context<D>>, block: Block<D>, placed: Placed) {
    let Block { mut buf, body, index, data_len, tags, crcs, ahead, done } = block;
    let Placed { offset, generation, .. } = placed;
    let id = Identity { generation, offset, body: body.0, index, data_len };
    let len = block::stored_len(data_len as usize);
    block::emit(&id, &context.shared.store, &tags, &crcs, D::part(&mut buf, 0..len));
    let result = context.write(offset, buf, len).await;
    {
        let mut state = context.shared.lock();
        let written = &mut state.counters.written;
        if context.maintains {
            written.moved += len as u64;
            state.counters.cleaner.bytes_moved += len as u64;
        } else {
            written.blocks += len as u64;
            written.appended += u64::from(data_len);
        }
        if let Some(number) = state.segments.number(offset) {
            let end = (offset + len as u64 - state.segments.start(number)) as u32;
            let segment = &mut state.segments.table[number as usize];
            segment.written = segment.written.max(end);
        }
    }
    let result = match result {
        Ok(()) => with_pieces(ahead, placed).await,
        Err(error) => Err(error),
    };
    // The request may have been given up. Then the pins go here.
    let _ = done.send(result);
}

/// A block that has been written, behind the pieces that were cut off its front.
async fn with_pieces(
    ahead: Vec<oneshot::Receiver<Result<Vec<Placed>, Error>>>,
    last: Placed,
) -> Result<Vec<Placed>, Error> {
    let mut placed = Vec::with_capacity(ahead.len() + 1);
    for piece in ahead {
        placed.append(&mut piece.await.map_err(|_| Error::Closed)??);
    }
    placed.push(last);
    Ok(placed)
}

/// `None`: the store is full.
async fn begin_body<D: Disk>(context: Rc<Context<D>>) -> Result<Option<OpenBody>, Error> {
    let purpose = if context.maintains { Purpose::Clean(Kind::Body) } else { Purpose::Body };
    let begun = context.begin(Kind::Body, purpose).await?;
    Ok(begun.map(|begun| OpenBody { number: begun.number, generation: begun.generation, at: begun.at, end: begun.end }))
}
