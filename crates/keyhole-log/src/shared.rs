//! What the workers of a log share.
//!
//! One mutex guards it all, and is never held across an await: index, counter, table of segments, and what is known to be
//! durable. Everything else belongs to one worker.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_channel::oneshot;

use crate::error::{Damage, Error, FailedWrite};
use crate::index::{Bodies, Effect, Index, LiveMismatch, Location};
use crate::limits::PAGE;
use crate::locks::{AtomicBool, AtomicU32, Mutex, MutexGuard};
use crate::maintain::Wish;
use crate::numbers::Numbers;
use crate::segments::{Segments, Use};
use crate::stats::{Counters, Stats};
use crate::types::BucketUsage;
use crate::wire::StoreId;
use crate::wire::record::Durable;
use crate::wire::superblock::Superblock;

/// When a write is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// When it is durable: a power failure loses nothing that was acknowledged.
    Always,
    /// When it is written. A power failure loses what was acknowledged after the last [`flush`](crate::Log::flush); the death
    /// of the process alone loses nothing. After a crash every object is still whole or absent.
    Deferred,
}

/// How much of the file is used, and by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Bytes that the file may have at most.
    pub capacity: u64,
    /// Bytes that it has.
    pub allocated: u64,
    /// Bytes that only deletions, the cleaner and checkpoints may use.
    pub reserved: u64,
    /// Buckets.
    pub buckets: u64,
    /// Objects.
    pub objects: u64,
    /// Uploads that are neither completed nor aborted.
    pub uploads: u64,
    /// Bodies, those of parts included.
    pub bodies: u64,
    /// Bytes of records and blocks that are referred to, footers and headers included.
    pub live: u64,
    /// Bytes written that nothing refers to any more, or yet.
    pub dead: u64,
    /// Bytes of records and blocks that may be referred to at most, give or take what was under way when that was reached.
    pub live_max: u64,
}

/// What the log is doing at a moment. For tests that want to know where a crash fell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    /// A batch of records is on its way.
    pub committing: bool,
    /// A checkpoint is being written.
    pub checkpointing: bool,
    /// Live records or blocks are being moved.
    pub cleaning: bool,
    /// Writes that were answered with [`Error::InDoubt`] are not decided yet.
    pub in_doubt: bool,
}

/// Index, counter and segments of one open log. Made by [`open`](crate::open()), handed to each [`worker`](crate::worker()).
pub struct Shared {
    pub(crate) store: StoreId,
    pub(crate) sync: Sync,
    pub(crate) segment_len: u64,
    state: Mutex<State>,
    /// Why nothing is written, if the log is open for reading alone.
    read_only: Option<Arc<str>>,
    poisoned: AtomicBool,
    committing: AtomicU32,
    pub(crate) checkpointing: AtomicBool,
    pub(crate) cleaning: AtomicBool,
    /// Writers with writes in doubt.
    in_doubt: AtomicU32,
}

/// What the mutex guards.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) index: Index,
    pub(crate) numbers: Numbers,
    pub(crate) segments: Segments,
    /// Of each writer's open segment for records; the last one is the maintenance's.
    pub(crate) ends: Vec<End>,
    /// What each worker that has not started yet goes on with.
    pub(crate) slots: VecDeque<Slot>,
    pub(crate) superblock: Superblock,
    pub(crate) counters: Counters,
    pub(crate) maintenance: MaintenanceState,
    /// What has poisoned the log.
    pub(crate) failed_write: Option<FailedWrite>,
    /// Writers that have to end a segment and lack the space for it: they try again when space is expected.
    pub(crate) in_doubt: Vec<oneshot::Sender<()>>,
}

/// What the maintenance and everybody else say to each other.
#[derive(Debug, Default)]
pub(crate) struct MaintenanceState {
    /// It has been started, and has not ended.
    pub(crate) running: bool,
    /// It found nothing to be gained, and nothing has been deleted or overwritten since.
    pub(crate) stuck: bool,
    /// How often something was deleted or overwritten, or a reader went: what was no use may be of use since.
    pub(crate) hopes: u64,
    /// Those who wait for a segment.
    pub(crate) space: Vec<oneshot::Sender<()>>,
    pub(crate) wishes: VecDeque<Wish>,
    /// It sleeps until this is sent to.
    pub(crate) asleep: Option<oneshot::Sender<()>>,
    /// Bytes of records since the newest checkpoint was begun.
    pub(crate) since_checkpoint: u64,
    /// Checkpoints to be written before the cuts of the opening are final, and watermarks may rise.
    pub(crate) unsettled: usize,
    /// Bytes of the newest checkpoint.
    pub(crate) checkpoint_len: u64,
    /// Objects are dropped, the oldest first, when there is no other way to make room.
    pub(crate) ring: bool,
    /// What it goes on with when it is started.
    pub(crate) slot: Option<Slot>,
    /// Damage that it has found and nobody has [taken](Shared::take_findings) yet.
    pub(crate) findings: Vec<Damage>,
    /// Workers' logs that exist, and writers that have not ended.
    pub(crate) logs: usize,
    pub(crate) writers: usize,
}

/// How far a writer's open segment for records has been written, and how far it is durable. Offsets within the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) segment: u32,
    pub(crate) written: u32,
    pub(crate) durable: u32,
    /// The watermark in a batch that has not taken effect yet; none: `u64::MAX`.
    pub(crate) in_flight: u64,
}

impl End {
    /// Of a writer that has no segment for records.
    pub(crate) const NONE: End = End { segment: 0, written: 0, durable: 0, in_flight: u64::MAX };

    /// How far a segment is known to be durable: 0 of another than this.
    pub(crate) fn durable_in(&self, segment: u32) -> u32 {
        if self.segment == segment { self.durable } else { 0 }
    }
}

/// Open segments that recovery found for a worker.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) worker: usize,
    pub(crate) meta: Option<OpenMeta>,
    pub(crate) body: Option<OpenBody>,
}

/// A segment that records are appended to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenMeta {
    pub(crate) number: u32,
    pub(crate) generation: u64,
    /// Where in the file the segment begins and ends.
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Where the next batch goes.
    pub(crate) at: u64,
    /// Checksum of the last record, or of the segment's header.
    pub(crate) prev: u32,
    /// It was given out for deletions.
    pub(crate) reserve: bool,
}

/// A segment that blocks are appended to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenBody {
    pub(crate) number: u32,
    pub(crate) generation: u64,
    /// Where the next block goes.
    pub(crate) at: u64,
    /// Where in the file the segment ends.
    pub(crate) end: u64,
}

/// What a sync makes durable when it succeeds.
pub(crate) struct Syncing {
    seqs: Vec<u64>,
    ends: Vec<End>,
}

impl MaintenanceState {
    /// There may be something to be gained again.
    pub(crate) fn hope(&mut self) {
        self.stuck = false;
        self.hopes += 1;
    }

    /// Nothing is to be gained, unless something has changed since there were so many `hopes`.
    pub(crate) fn give_up(&mut self, hopes: u64) {
        self.stuck = self.hopes == hopes;
    }
}

impl Shared {
    pub(crate) fn new(store: StoreId, sync: Sync, read_only: Option<Arc<str>>, state: State) -> Self {
        Shared {
            store,
            sync,
            segment_len: state.segments.len,
            state: Mutex::new(state),
            read_only,
            poisoned: AtomicBool::new(false),
            committing: AtomicU32::new(0),
            checkpointing: AtomicBool::new(false),
            cleaning: AtomicBool::new(false),
            in_doubt: AtomicU32::new(0),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it changes the state")
    }

    /// How much of the file is used, and by what.
    pub fn usage(&self) -> Usage {
        self.lock().usage()
    }

    /// Workers that it is open for: those that were wanted, or as many as the capacity has room for.
    pub fn workers(&self) -> usize {
        self.lock().segments.workers as usize
    }

    /// What tells this object file from every other: random, given when it was made.
    pub fn store_id(&self) -> [u8; 16] {
        self.store
    }

    /// Everything that is counted. Takes some time with many segments: not for every request.
    pub fn stats(&self) -> Stats {
        let state = self.lock();
        let segments = state.segment_stats();
        Stats { segments, ..state.summary(self.poisoned(), self.read_only.clone()) }
    }

    /// The same without a list of segments.
    pub fn summary(&self) -> Stats {
        self.lock().summary(self.poisoned(), self.read_only.clone())
    }

    /// Damage that the maintenance has found since this was last called, each object once. At most
    /// [`FINDINGS_MAX`](crate::limits::FINDINGS_MAX) are kept; [`CleanerStats::damaged`](crate::CleanerStats::damaged) counts all.
    pub fn take_findings(&self) -> Vec<Damage> {
        std::mem::take(&mut self.lock().maintenance.findings)
    }

    /// The same as [`Stats::newest_ms`].
    pub fn newest_ms(&self) -> u64 {
        self.lock().index.newest_ms
    }

    /// What the first buckets by name hold, at most `limit` of them, and how many there are besides.
    pub fn bucket_usage(&self, limit: usize) -> (Vec<BucketUsage>, u64) {
        let state = self.lock();
        let buckets: Vec<BucketUsage> = state.index.bucket_usage().take(limit).collect();
        let more = state.index.bucket_count() - buckets.len() as u64;
        (buckets, more)
    }

    /// Lets the next request that needs space ask the file system again, if it had none. To be called once a second or so, as the
    /// log has no clock; without it one of [`SPACE_ASK_AFTER`](crate::limits::SPACE_ASK_AFTER) refused requests asks.
    pub fn expect_space(&self) {
        let mut state = self.lock();
        state.segments.expect_space();
        for writer in state.in_doubt.drain(..) {
            let _ = writer.send(()); // It may have gone.
        }
    }

    /// Counts the bytes that are referred to anew: the segments for which that differs from what is kept up to date. For tests:
    /// it takes as long as a checkpoint, under the lock.
    #[doc(hidden)]
    pub fn recount(&self) -> Vec<LiveMismatch> {
        self.lock().index.recount()
    }

    /// Pins on bodies, and on segments, that are held now.
    #[cfg(feature = "shuttle")]
    pub fn pins(&self) -> (u64, u64) {
        let state = self.lock();
        let segments = state.segments.table.iter().map(|segment| u64::from(segment.pins)).sum();
        (state.index.pin_count(), segments)
    }

    /// What the log is doing now.
    pub fn activity(&self) -> Activity {
        Activity {
            committing: self.committing.load(Ordering::Relaxed) > 0,
            checkpointing: self.checkpointing.load(Ordering::Relaxed),
            cleaning: self.cleaning.load(Ordering::Relaxed),
            in_doubt: self.in_doubt.load(Ordering::Relaxed) > 0,
        }
    }

    /// A writer has answered [`Error::InDoubt`], or has decided those writes since.
    pub(crate) fn set_in_doubt(&self, is_in_doubt: bool) {
        match is_in_doubt {
            true => self.in_doubt.fetch_add(1, Ordering::Relaxed),
            false => self.in_doubt.fetch_sub(1, Ordering::Relaxed),
        };
    }

    pub(crate) fn begin_commit(&self) {
        self.committing.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end_commit(&self) {
        self.committing.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether a write or a sync has failed, so that nothing more is written.
    pub fn poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// Why the log is open for reading alone, if it is.
    pub fn read_only(&self) -> Option<&Arc<str>> {
        self.read_only.as_ref()
    }

    /// The write that has poisoned the log, if one has.
    pub fn failed_write(&self) -> Option<FailedWrite> {
        if self.poisoned() { self.lock().failed_write.clone() } else { None }
    }

    /// Refuses every write from now on. The lock is not held. Of several failures the first is kept: it is the cause.
    pub(crate) fn poison(&self, failed: FailedWrite) {
        self.poisoned.store(true, Ordering::Release);
        let mut state = self.lock();
        state.failed_write.get_or_insert(failed);
        state.wake_space();
        state.wake_maintenance();
    }

    /// Whether writes are possible.
    pub(crate) fn check_poison(&self) -> Result<(), Error> {
        match &self.read_only {
            Some(why) => Err(Error::ReadOnly(Arc::clone(why))),
            None if self.poisoned() => Err(Error::Poisoned),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("sync", &self.sync).field("poisoned", &self.poisoned()).finish_non_exhaustive()
    }
}

impl State {
    pub(crate) fn usage(&self) -> Usage {
        let (totals, live) = (self.index.totals, self.index.live.total());
        let in_use = self.segments.table.iter().filter(|segment| segment.in_use());
        let used: u64 = in_use.map(|segment| u64::from(segment.written).saturating_sub(PAGE as u64)).sum();
        Usage {
            capacity: self.segments.capacity,
            allocated: self.segments.allocated(),
            reserved: self.segments.reserve.total() * self.segments.len,
            buckets: self.index.bucket_count(),
            objects: totals.objects,
            uploads: totals.uploads,
            bodies: self.index.body_count(),
            live,
            dead: used.saturating_sub(live),
            live_max: self.segments.live_max(),
        }
    }

    /// Whether as much is live as there may be. Then there is nothing to be gained for those who store something, whatever is
    /// cleaned. In a ring what is oldest is dropped instead.
    pub(crate) fn is_full(&self) -> bool {
        !self.maintenance.ring && self.index.live.total() >= self.segments.live_max()
    }

    /// Whether what is new is refused until something is deleted.
    pub(crate) fn refuses(&self) -> bool {
        let stuck = self.maintenance.stuck && !self.maintenance.ring;
        self.is_full() || stuck && !self.segments.has_spare()
    }

    /// Whether records of any kind may go on.
    pub(crate) fn has_spare(&self) -> bool {
        !self.is_full() && self.segments.has_spare()
    }

    /// A segment whose records are known to be durable up to some offset, of a worker other than `me`: each time another one.
    pub(crate) fn witness(&self, me: usize, turn: usize) -> Durable {
        let others = self.ends.len() - 1;
        let other = |nth: usize| self.ends[(me + 1 + (turn + nth) % others) % self.ends.len()];
        let known = (0..others).map(other).find(|end| end.durable > 0);
        known.map_or_else(Durable::default, |end| Durable { segment: end.segment, until: end.durable })
    }

    /// To be called when the sync is about to be submitted: every write that counts has completed.
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

    /// Takes in a durable record and ends its reservation.
    pub(crate) fn apply(&mut self, seq: u64, at: Location, effect: &Effect) -> Result<(), Error> {
        let live = self.index.live.total();
        // In this order: the reservation is what remembers a newer deletion of the name.
        let result = self.index.apply(seq, at, effect);
        self.index.release(seq, effect);
        if !matches!(effect, Effect::Moved(_)) {
            self.numbers.settled(seq);
        }
        // In a ring also what is added makes room possible: it can be dropped.
        let ring = self.maintenance.ring;
        if ring || self.index.live.total() < live || matches!(effect, Effect::Delete { .. }) {
            self.maintenance.hope();
        }
        result
    }

    /// Nothing more is appended to a segment: from now on something may be gained by cleaning it, unless the maintenance itself
    /// has filled it.
    pub(crate) fn close_segment(&mut self, number: u32, by_maintenance: bool) {
        self.segments.close(number);
        if !by_maintenance {
            self.maintenance.hope();
            self.wake_maintenance_if_short();
        }
    }

    /// Keeps a segment from being freed. To be undone by [`unpin_segment`](Self::unpin_segment).
    pub(crate) fn pin_segment(&mut self, number: u32) {
        self.segments.table[number as usize].pins += 1;
    }

    pub(crate) fn unpin_segment(&mut self, number: u32) {
        let segment = &mut self.segments.table[number as usize];
        segment.pins -= 1;
        let unused = segment.pins == 0 && matches!(segment.used, Use::Condemned(_) | Use::Closed(_));
        if unused && self.index.live.of(number) == 0 {
            self.maintenance.hope();
            self.wake_maintenance_if_short();
        }
    }

    pub(crate) fn wake_maintenance(&mut self) {
        if let Some(asleep) = self.maintenance.asleep.take() {
            let _ = asleep.send(()); // It may have gone.
        }
    }

    /// Lets those who wait for a segment look again.
    pub(crate) fn wake_space(&mut self) {
        for waiting in self.maintenance.space.drain(..) {
            let _ = waiting.send(()); // It may have gone.
        }
    }
}

/// Keeps the bodies of an object readable as long as it is held.
#[derive(Clone)]
pub(crate) struct Pin {
    _held: Arc<Held>,
}

struct Held {
    shared: Arc<Shared>,
    bodies: Bodies,
}

impl Pin {
    /// `state` is the locked state of `shared`.
    pub(crate) fn new(shared: &Arc<Shared>, state: &mut State, bodies: Bodies) -> Self {
        state.index.pin(bodies.as_slice());
        Pin { _held: Arc::new(Held { shared: Arc::clone(shared), bodies }) }
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.lock().index.unpin(self.bodies.as_slice());
    }
}

/// Keeps a segment from being freed as long as it is held. It must not be dropped while the state is locked.
pub(crate) struct SegmentPin {
    shared: Arc<Shared>,
    number: u32,
}

impl SegmentPin {
    /// `state` is the locked state of `shared`.
    pub(crate) fn new(shared: &Arc<Shared>, state: &mut State, number: u32) -> Self {
        state.pin_segment(number);
        SegmentPin { shared: Arc::clone(shared), number }
    }

    /// The segment's.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

impl fmt::Debug for SegmentPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentPin({})", self.number)
    }
}

impl Drop for SegmentPin {
    fn drop(&mut self) {
        self.shared.lock().unpin_segment(self.number);
    }
}

impl Slot {
    pub(crate) fn end(&self) -> End {
        match &self.meta {
            Some(meta) => {
                let durable = (meta.at - meta.start) as u32;
                End { segment: meta.number, written: durable, durable, in_flight: u64::MAX }
            }
            None => End::NONE,
        }
    }
}
