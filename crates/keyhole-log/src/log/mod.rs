//! The operations of the log, as a worker sees them.
//!
//! A write operation decides its condition and reserves its name under the lock, then queues its
//! records and waits. There is no await between reserving and queueing, so a worker's records are
//! queued in the order of their sequence numbers.

mod body_writer;
mod buckets;
mod changes;
mod evict;
mod expire;
mod expire_versions;
mod objects;
mod read;
mod scrub;
mod settle;
mod uploads;
mod versions;

use std::rc::Rc;
use std::sync::Arc;

use futures_channel::{mpsc, oneshot};

pub use body_writer::{BodyWriter, LastBlock};
pub use expire::Expired;
pub use read::{Body, ChunkTags, OpenBlock};
pub use scrub::{ScrubCursor, ScrubStep};

use crate::disk::{Access, Disk};
use crate::draft::Draft;
use crate::error::Error;
use crate::index::Effect;
use crate::limits::batch_max;
use crate::open::Slot;
use crate::pin::SegmentPin;
use crate::state::MaintenanceRequest;
use crate::store::Store;
use crate::types::BodyId;
use crate::wire::pages;
use crate::wire::payload::{RecordPayload, kind};
use crate::writer::{Commit, Job, Writer};

/// A worker's handle of the log. Clones belong to the same worker.
///
/// Operations that read a record ([`object`](Self::object), [`body`](Self::body),
/// [`upload_head`](Self::upload_head), [`part_checksums`](Self::part_checksums)) hold one
/// buffer of the disk while they run.
///
/// ```
/// use keyhole_log::{Disk, Error, Log};
///
/// async fn size<D: Disk>(log: &Log<D>, bucket: &str, key: &str) -> Result<Option<u64>, Error> {
///     Ok(log.object(bucket, key).await?.map(|object| object.size))
/// }
/// ```
pub struct Log<D: Disk> {
    inner: Rc<Inner<D>>,
    /// How records are read.
    records: Access,
}

struct Inner<D: Disk> {
    store: Arc<Store>,
    disk: Rc<D>,
    queue: mpsc::UnboundedSender<Job<D>>,
    /// Whether this is a worker's handle, not a reader's or the maintenance's.
    works: bool,
}

impl<D: Disk> Drop for Inner<D> {
    fn drop(&mut self) {
        if self.works {
            let mut state = self.store.lock();
            state.maintenance.logs -= 1;
            state.wake_maintenance();
        }
    }
}

impl<D: Disk> Clone for Log<D> {
    fn clone(&self) -> Self {
        Log { inner: Rc::clone(&self.inner), records: self.records }
    }
}

/// Starts the next worker. Returns its log and its writer, which the caller
/// polls on the same thread.
///
/// # Panics
/// Panics if called more often than [`OpenOptions::workers`](crate::OpenOptions::workers) allows.
pub fn worker<D: Disk>(store: Arc<Store>, disk: Rc<D>) -> (Log<D>, Writer<D>) {
    let slot = store.lock().slots.pop_front();
    let Some(slot) = slot else { panic!("more workers than the log was opened for") };
    start(store, disk, slot, false)
}

/// Creates a read-only handle of an open store, for another thread. It takes no worker's place. A write
/// that would be accepted fails with [`Error::Closed`], as [`flush`](Log::flush) does; the
/// [maintenance](crate::maintenance) still serves [`checkpoint`](Log::checkpoint) and
/// [`compact`](Log::compact).
///
/// The maintenance does not wait for readers, which change nothing that the last checkpoint captures.
/// A reader that outlives it can still read: after its end no space is reused.
pub fn reader<D: Disk>(store: Arc<Store>, disk: Rc<D>) -> Log<D> {
    // Without a receiver, every job is refused.
    let (queue, _) = mpsc::unbounded();
    Log { inner: Rc::new(Inner { store, disk, queue, works: false }), records: Access::Cached }
}

/// Creates a writer and its log.
pub(crate) fn start<D: Disk>(store: Arc<Store>, disk: Rc<D>, slot: Slot, maintains: bool) -> (Log<D>, Writer<D>) {
    {
        let mut state = store.lock();
        state.maintenance.logs += usize::from(!maintains);
        state.maintenance.writers += usize::from(!maintains);
    }
    let (sender, queue) = mpsc::unbounded();
    let writer = Writer::new(Arc::clone(&store), Rc::clone(&disk), slot, maintains, queue);
    let inner = Rc::new(Inner { store, disk, queue: sender, works: !maintains });
    (Log { inner, records: Access::Cached }, writer)
}

/// The records of one request, before they are queued.
#[derive(Default)]
pub(crate) struct CommitRequest {
    pub(crate) drafts: Vec<Draft>,
    pub(crate) pinned: Vec<BodyId>,
    pub(crate) holds: Vec<SegmentPin>,
    pub(crate) deletes: bool,
    /// Whether the request may be answered before it is durable.
    pub(crate) relaxed: bool,
    /// Whether the index as it is now must be durable before the request is written.
    pub(crate) syncs_before: bool,
}

impl CommitRequest {
    pub(crate) fn new(drafts: Vec<Draft>) -> Self {
        CommitRequest { drafts, ..CommitRequest::default() }
    }

    /// Creates a request that only frees space.
    pub(crate) fn deletion(draft: Draft) -> Self {
        CommitRequest { drafts: vec![draft], deletes: true, ..CommitRequest::default() }
    }
}

pub(crate) fn draft(seq: u64, payload: &RecordPayload<'_>) -> Draft {
    Draft { seq, kind: payload.kind(), payload: payload.encode().into(), effect: Effect::of(payload) }
}

/// Returns the record of a newly written body, and the pins that keep its blocks
/// until the record is durable.
fn body_draft(seq: u64, body: crate::body::NewBody) -> (Draft, Vec<SegmentPin>) {
    let crate::body::NamedBody { payload, effect, pins } = body.into_record();
    (Draft { seq, kind: kind::BODY, payload, effect }, pins)
}

fn within(len: usize, limit: usize, what: &'static str) -> Result<(), Error> {
    if len <= limit { Ok(()) } else { Err(Error::TooLarge(what)) }
}

impl<D: Disk> Log<D> {
    /// Returns the disk of this worker.
    pub fn disk(&self) -> &Rc<D> {
        &self.inner.disk
    }

    /// Returns a handle that reads past the page cache, for passes over many objects: they must not
    /// evict what requests read.
    pub fn past_cache(&self) -> Self {
        Log { inner: Rc::clone(&self.inner), records: Access::Direct }
    }

    /// Returns the open store, which the workers share.
    pub fn store(&self) -> &Arc<Store> {
        &self.inner.store
    }

    /// Makes everything durable that any worker has acknowledged so far. Only needed under
    /// [`Durability::Deferred`](crate::Durability::Deferred).
    ///
    /// # Errors
    /// `Io`, `Poisoned`, `Closed`.
    pub async fn flush(&self) -> Result<(), Error> {
        if self.store().read_only().is_some() {
            return Ok(()); // Nothing was acknowledged.
        }
        let (done, answer) = oneshot::channel();
        self.submit(Job::Flush(done)).map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Writes a checkpoint, so that the next recovery is fast. Requires the
    /// [maintenance](crate::maintenance).
    ///
    /// # Errors
    /// `Closed` if there is no maintenance; `Full`, `Io`, `Poisoned`.
    pub async fn checkpoint(&self) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        self.request_maintenance(MaintenanceRequest::Checkpoint(done))?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Runs the cleaner until cleaning no segment would gain anything. Requires the
    /// [maintenance](crate::maintenance).
    ///
    /// # Errors
    /// `Closed` if there is no maintenance; `Full`, `Io`, `Poisoned`.
    pub async fn compact(&self) -> Result<crate::Compacted, Error> {
        let (done, answer) = oneshot::channel();
        self.request_maintenance(MaintenanceRequest::Compact(done))?;
        answer.await.map_err(|_| Error::Closed)?
    }

    fn request_maintenance(&self, request: MaintenanceRequest) -> Result<(), Error> {
        let mut state = self.store().lock();
        self.store().check_poison()?;
        if !state.maintenance.running {
            return Err(Error::Closed);
        }
        state.maintenance.requests.push_back(request);
        state.wake_maintenance();
        Ok(())
    }

    /// Queues a job at the writer. Returns it if the writer has ended.
    pub(crate) fn submit(&self, job: Job<D>) -> Result<(), Job<D>> {
        self.inner.queue.unbounded_send(job).map_err(mpsc::TrySendError::into_inner)
    }

    /// Queues a request whose names are reserved. The writer owns the reservation from here on and
    /// ends it even if the returned future is dropped.
    pub(crate) fn write(&self, request: CommitRequest) -> impl Future<Output = Result<(), Error>> + use<D> {
        let (done, answer) = oneshot::channel();
        let CommitRequest { drafts, pinned, holds, deletes, relaxed, syncs_before } = request;
        let commit = Commit { drafts, pinned, holds, deletes, relaxed, syncs_before, done };
        // A batch cannot be longer than the room in a segment.
        if pages(commit.space()) > batch_max(self.inner.store.segment_len) {
            let what = "a write, for the segment length of this store";
            commit.refuse(&self.inner.store, &Error::TooLarge(what));
        } else if let Err(Job::Commit(commit)) = self.submit(Job::Commit(commit)) {
            commit.refuse(&self.inner.store, &Error::Closed);
        }
        async move { answer.await.map_err(|_| Error::Closed)? }
    }
}
