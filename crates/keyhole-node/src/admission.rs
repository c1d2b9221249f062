//! Admission control: each worker has a fixed share of memory. Requests wait for theirs, up to a
//! limit, and are then told to slow down.
//!
//! Long bodies take whole blocks, one at a time, and other long transfers the pages of their pieces.
//! Short bodies, which the log stores in their records, take pages from a separate pool, so neither
//! kind waits for the other. One block is left to reads and one to writes, so these do not wait for
//! each other either.
//!
//! # Order
//! Memory that becomes free goes to the client (access key, or address of an unsigned client) that
//! holds the least, and among its requests to the shortest. Every [`OLDEST_EVERY`]th grant goes to
//! the request that has waited longest, and from [`RIGHT_OF_WAY_S`] on that request precedes all
//! others, so none starves.
//!
//! # Slow peers
//! While requests wait, those that hold memory and wait for their peers have to move bytes at a
//! minimum rate, which rises until memory becomes free. A request below it is ended, the slowest of
//! the client that holds the most first.
//!
//! # Invariants
//! - No request waits for memory of a pool while it holds some of that pool, so none can deadlock.
//!   A request with memory of both pools reserves that of the short bodies first.

mod queue;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use keyhole_log::limits::{BLOCK_DATA, INLINE_MAX, PAGE};
use tokio::sync::oneshot;

use crate::failure::{Result, slow_down};
use crate::limits::{
    BLOCK_PAGES, BLOCKS_MIN, BLOCKS_PER_WORKER, COPY_PAGES, LISTING_PAGES, PAGES_MIN, PAGES_PER_WORKER, RELIEF_STEP_MS,
    RIGHT_OF_WAY_S, STRIDE, WAIT_MAX_S, WAITERS_PER_WORKER,
};
use crate::link::Link;
use queue::Queue;

/// Memory limits of one worker's requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// Blocks for long bodies, from [`BLOCKS_MIN`] to [`BLOCKS_PER_WORKER`].
    pub blocks: usize,
    /// Pages for short bodies, from [`PAGES_MIN`] to [`PAGES_PER_WORKER`].
    pub pages: usize,
}

impl Share {
    /// The smallest share that admits every request eventually.
    pub const MIN: Share = Share { blocks: BLOCKS_MIN, pages: PAGES_MIN };
    /// The largest useful share.
    pub const MAX: Share = Share { blocks: BLOCKS_PER_WORKER, pages: PAGES_PER_WORKER };
}

/// A pool of memory, and for long transfers the direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pool {
    /// Short bodies, documents and forms.
    Short,
    /// Long bodies and documents being received or copied.
    LongWrites,
    /// Long bodies and listings being sent.
    LongReads,
}

/// Memory that a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Claim {
    pool: Pool,
    pages: usize,
    /// Length of the whole body, of which this may be a piece.
    len: u64,
}

/// The memory of a stored object, of its list of parts, and of what is done with them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ObjectClaim {
    pub(crate) pages: usize,
    /// Length of the bytes that are sent or copied.
    pub(crate) len: u64,
    /// A body or a record is written.
    pub(crate) is_write: bool,
}

/// The memory pools of one worker.
pub(crate) struct Admission {
    queue: RefCell<Queue>,
    counters: Arc<Counters>,
}

/// The use of the pools, readable from any thread.
struct Counters {
    share: Share,
    /// Pages of long bodies in use.
    long: AtomicUsize,
    /// Pages of short bodies in use.
    short: AtomicUsize,
    /// Requests that wait for either.
    waiters: AtomicUsize,
}

/// A handle for reading the memory use of a worker.
pub struct Gauge(Arc<Counters>);

/// The memory use of a worker.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Load {
    /// Blocks in use, of those of its [`Share`]; a block in part counts as one.
    pub blocks: usize,
    /// Pages in use, of those of its [`Share`].
    pub pages: usize,
    /// Requests that wait for memory, at most [`WAITERS_PER_WORKER`].
    pub waiters: usize,
}

impl Gauge {
    /// Reads the current values.
    pub fn read(&self) -> Load {
        let Counters { share, long, short, waiters } = &*self.0;
        Load {
            blocks: long.load(Ordering::Relaxed).div_ceil(BLOCK_PAGES).min(share.blocks),
            pages: short.load(Ordering::Relaxed).min(share.pages),
            waiters: waiters.load(Ordering::Relaxed),
        }
    }
}

/// Memory reserved by a request, until dropped.
pub(crate) struct Admitted<'a> {
    admission: &'a Admission,
    id: u64,
    claim: Claim,
    link: Rc<Link>,
}

impl<'a> Admitted<'a> {
    /// Splits off a part of the reservation.
    pub(crate) fn split(&mut self, pages: usize) -> Admitted<'a> {
        self.claim.pages -= pages;
        let claim = Claim { pages, ..self.claim };
        let id = self.admission.queue.borrow_mut().split(self.id, claim);
        Admitted { admission: self.admission, id, claim, link: self.link.clone() }
    }

    /// Reserves as much again, if it is free and no request waits for it.
    pub(crate) fn another(&self) -> Option<Self> {
        self.admission.try_claim(self.claim, &self.link)
    }

    /// Reserves a whole block beside this, if others keep enough memory.
    pub(crate) fn block(&self) -> Option<Self> {
        let claim = Claim { pages: BLOCK_PAGES, ..self.claim };
        let has_spare =
            claim.pool == Pool::LongReads && self.admission.queue.borrow().has_spare(claim, self.link.client.get());
        has_spare.then(|| self.admission.try_claim(claim, &self.link)).flatten()
    }

    /// Corrects the reservation to `len` bytes, also beyond what is free: they exist already.
    pub(crate) fn set_len(&mut self, len: usize) {
        self.claim.pages = len.div_ceil(PAGE);
        self.admission.queue.borrow_mut().resize(self.id, self.claim.pages);
        self.admission.settle();
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.admission.queue.borrow_mut().leave(self.id);
        self.admission.settle();
    }
}

impl Admission {
    pub(crate) fn new(share: Share) -> Self {
        assert!(share.blocks >= BLOCKS_MIN && share.pages >= PAGES_MIN, "no request may wait for ever: {share:?}");
        let counters =
            Counters { share, long: AtomicUsize::new(0), short: AtomicUsize::new(0), waiters: AtomicUsize::new(0) };
        Admission { queue: RefCell::new(Queue::new(share)), counters: Arc::new(counters) }
    }

    pub(crate) fn gauge(&self) -> Gauge {
        Gauge(self.counters.clone())
    }

    /// Returns whether less than half of the memory for bodies of this length is free.
    pub(crate) fn is_scarce(&self, len: u64) -> bool {
        self.queue.borrow().is_scarce(pool_for(len, Pool::LongWrites))
    }

    /// Reserves memory for the record of a body of `len` bytes, at most [`INLINE_MAX`].
    pub(crate) async fn record(&self, len: u64, link: &Rc<Link>) -> Result<Admitted<'_>> {
        self.claim(Claim { pool: Pool::Short, pages: pages_of_record(len), len }, link).await
    }

    /// Reserves memory for a form's fields.
    pub(crate) async fn form(&self, fields_max: usize, link: &Rc<Link>) -> Result<Admitted<'_>> {
        let len = fields_max as u64;
        self.claim(Claim { pool: Pool::Short, pages: fields_max.div_ceil(PAGE), len }, link).await
    }

    /// Reserves `bytes` of memory for a document of `len` bytes and for all that is made of it.
    pub(crate) async fn document(&self, len: u64, bytes: usize, link: &Rc<Link>) -> Result<Admitted<'_>> {
        let pool = pool_for(bytes as u64, Pool::LongWrites);
        let pages = bytes.div_ceil(PAGE);
        self.claim(Claim { pool, pages: 1 + pages.min(BLOCKS_MIN.saturating_sub(1) * BLOCK_PAGES - 1), len }, link)
            .await
    }

    /// Reserves memory for the first piece of `len` bytes that are sent in pieces of `piece_len`.
    pub(crate) async fn read(&self, len: u64, piece_len: usize, link: &Rc<Link>) -> Result<Admitted<'_>> {
        let pool = pool_for(len, Pool::LongReads);
        let pages = if pool == Pool::Short { pages_of_record(len) } else { piece_len.div_ceil(PAGE) };
        self.claim(Claim { pool, pages, len }, link).await
    }

    /// Reserves memory for a page of a listing. [`Admitted::set_len`] corrects it.
    pub(crate) async fn listing(&self, link: &Rc<Link>) -> Result<Admitted<'_>> {
        self.claim(Claim { pool: Pool::LongReads, pages: LISTING_PAGES, len: 0 }, link).await
    }

    /// Reserves memory for a stored object. The request must hold no memory of long bodies, and wait
    /// for none afterwards.
    pub(crate) async fn object(&self, object: ObjectClaim, link: &Rc<Link>) -> Result<Admitted<'_>> {
        let ObjectClaim { pages, len, is_write } = object;
        let pool = if is_write { Pool::LongWrites } else { Pool::LongReads };
        self.claim(Claim { pool, pages, len }, link).await
    }

    /// Reserves memory for one block of a body of `len` bytes, without waiting.
    pub(crate) fn try_block(&self, block: BlockClaim, link: &Rc<Link>) -> Option<Admitted<'_>> {
        self.try_claim(block.claim(), link)
    }

    /// Reserves memory for one block of a body.
    pub(crate) async fn block(&self, block: BlockClaim, link: &Rc<Link>) -> Result<Admitted<'_>> {
        self.claim(block.claim(), link).await
    }

    /// Refuses one of the waiting requests. Returns whether there was one.
    pub(crate) fn shed(&self) -> bool {
        let is_shed = self.queue.borrow_mut().shed();
        self.count();
        is_shed
    }

    fn try_claim(&self, claim: Claim, link: &Rc<Link>) -> Option<Admitted<'_>> {
        let id = self.queue.borrow_mut().take(claim, link)?;
        self.count();
        Some(Admitted { admission: self, id, claim, link: link.clone() })
    }

    /// Waits until the memory is free, for at most [`WAIT_MAX_S`].
    async fn claim(&self, claim: Claim, link: &Rc<Link>) -> Result<Admitted<'_>> {
        if let Some(admitted) = self.try_claim(claim, link) {
            return Ok(admitted);
        }
        if self.queue.borrow().waiting() == WAITERS_PER_WORKER {
            return Err(slow_down());
        }
        let (granted, mut grant) = oneshot::channel();
        let id = self.queue.borrow_mut().wait(claim, link, granted);
        // Leaves the queue if this future is dropped.
        let admitted = Admitted { admission: self, id, claim, link: link.clone() };
        self.settle();
        let mut waited = Duration::ZERO;
        while waited < Duration::from_secs(WAIT_MAX_S) {
            self.relieve(claim.pool, waited);
            let step = Duration::from_millis(RELIEF_STEP_MS).min(Duration::from_secs(WAIT_MAX_S) - waited);
            if let Some(granted) = link.host.timeout(step, &mut grant).await {
                return granted.map(|()| admitted).map_err(|_| slow_down());
            }
            waited += step;
            if waited >= Duration::from_secs(RIGHT_OF_WAY_S) {
                self.queue.borrow_mut().set_right_of_way(id);
                self.settle();
            }
        }
        Err(slow_down())
    }

    /// Grants free memory to those that wait for it.
    fn settle(&self) {
        while let Some(granted) = self.queue.borrow_mut().grant_next() {
            // A request that has left in the meantime releases its memory itself.
            let _ = granted.send(());
        }
        self.count();
    }

    /// Ends requests that are too slow for one that has waited this long.
    fn relieve(&self, pool: Pool, waited: Duration) {
        let slow = self.queue.borrow_mut().too_slow(pool, waited);
        for link in slow {
            tracing::debug!("a request is ended: it is too slow while others wait for memory");
            link.interrupt();
        }
    }

    fn count(&self) {
        let queue = self.queue.borrow();
        self.counters.long.store(queue.used_long(), Ordering::Relaxed);
        self.counters.short.store(queue.used_short(), Ordering::Relaxed);
        self.counters.waiters.store(queue.waiting(), Ordering::Relaxed);
    }
}

/// A block of a body, to reserve memory for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockClaim {
    /// Length of the block.
    pub(crate) block_len: usize,
    /// Length of the whole body, as far as it is known.
    pub(crate) body_len: u64,
    /// The body is read from a stored object, piece by piece.
    pub(crate) is_copy: bool,
}

impl BlockClaim {
    fn claim(self) -> Claim {
        let pages = keyhole_log::limits::buffer_len(self.block_len.min(BLOCK_DATA)) / PAGE;
        let pages = pages + if self.is_copy { COPY_PAGES } else { 0 };
        Claim { pool: Pool::LongWrites, pages, len: self.body_len }
    }
}

/// Returns the pool for so many bytes.
fn pool_for(len: u64, long: Pool) -> Pool {
    if len <= INLINE_MAX as u64 { Pool::Short } else { long }
}

/// Returns the pages of a record with a body of `len` bytes: its own, and one for the metadata.
fn pages_of_record(len: u64) -> usize {
    1 + (len as usize).div_ceil(PAGE)
}

const _: () = assert!(STRIDE / PAGE <= BLOCK_PAGES);
