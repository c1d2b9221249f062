//! The open store, which the workers of a log share.
//!
//! One mutex guards the index, the counter, the segment table and the durability state. It is never
//! held across an await. Everything else belongs to one worker.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_channel::oneshot;

use crate::error::{Damage, Error, FailedWrite};
use crate::index::{Effect, Index, LiveMismatch, Location};
use crate::limits::PAGE;
use crate::locks::{AtomicBool, AtomicU32, Mutex, MutexGuard};
use crate::maintain::MaintenanceRequest;
use crate::numbers::Numbers;
use crate::segments::{Segments, Use};
use crate::stats::{Counters, Stats};
use crate::types::BucketUsage;
use crate::wire::StoreId;
use crate::wire::record::DurableHint;
use crate::wire::superblock::Superblock;

/// The point at which a write is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Once it is durable: a power failure loses no acknowledged write.
    Always,
    /// Once it is written. A power failure loses writes acknowledged after the last
    /// [`flush`](crate::Log::flush); a process crash loses none. After either, every object is
    /// whole or absent.
    Deferred,
}

/// Space usage of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Maximum length of the file in bytes.
    pub capacity: u64,
    /// Current length of the file in bytes.
    pub allocated: u64,
    /// Bytes reserved for deletions, the cleaner and checkpoints.
    pub reserved: u64,
    /// Number of buckets.
    pub buckets: u64,
    /// Number of objects.
    pub objects: u64,
    /// Number of uploads that are neither completed nor aborted.
    pub uploads: u64,
    /// Number of bodies, including those of parts.
    pub bodies: u64,
    /// Live bytes of records and blocks, including headers and footers.
    pub live: u64,
    /// Bytes written that are not live: no longer or not yet referenced.
    pub dead: u64,
    /// Limit on live bytes. In-flight writes may exceed it slightly.
    pub live_max: u64,
}

/// The log's current activities. For tests that need to know where a crash occurred.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    /// A batch of records is in flight.
    pub committing: bool,
    /// A checkpoint is being written.
    pub checkpointing: bool,
    /// Live records or blocks are being moved.
    pub cleaning: bool,
    /// Writes answered with [`Error::InDoubt`] are not decided yet.
    pub in_doubt: bool,
}

/// An open store. Created by [`open`](crate::open()), passed to each
/// [`worker`](crate::worker()).
pub struct Store {
    pub(crate) id: StoreId,
    pub(crate) durability: Durability,
    pub(crate) segment_len: u64,
    state: Mutex<State>,
    /// The reason, if the log is read-only.
    read_only: Option<Arc<str>>,
    poisoned: AtomicBool,
    committing: AtomicU32,
    pub(crate) checkpointing: AtomicBool,
    pub(crate) cleaning: AtomicBool,
    /// Number of writers with writes in doubt.
    in_doubt: AtomicU32,
}

/// The state guarded by the mutex.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) index: Index,
    pub(crate) numbers: Numbers,
    pub(crate) segments: Segments,
    /// The open META segment of each writer. The last is the maintenance's.
    pub(crate) ends: Vec<End>,
    /// The open segments for workers that have not started yet.
    pub(crate) slots: VecDeque<Slot>,
    pub(crate) superblock: Superblock,
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

/// Written and durable offsets within a writer's open META segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) segment: u32,
    pub(crate) written: u32,
    pub(crate) durable: u32,
    /// Watermark of the batch that is not yet applied; `u64::MAX` if there is none.
    pub(crate) in_flight: u64,
}

impl End {
    /// The value for a writer without a META segment.
    pub(crate) const NONE: End = End { segment: 0, written: 0, durable: 0, in_flight: u64::MAX };

    /// Returns the durable offset if this is `segment`, else 0.
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

/// An open META segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenMeta {
    pub(crate) number: u32,
    pub(crate) generation: u64,
    /// Offsets in the file where the segment starts and ends.
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Offset of the next batch.
    pub(crate) at: u64,
    /// Checksum of the last record, or of the segment's header.
    pub(crate) prev: u32,
    /// Whether it was taken from the reserve for deletions.
    pub(crate) reserve: bool,
}

/// An open BODY segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenBody {
    pub(crate) number: u32,
    pub(crate) generation: u64,
    /// Offset of the next block.
    pub(crate) at: u64,
    /// Offset in the file where the segment ends.
    pub(crate) end: u64,
}

/// The records and offsets that a sync makes durable on success.
pub(crate) struct Syncing {
    seqs: Vec<u64>,
    ends: Vec<End>,
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

impl Store {
    pub(crate) fn new(id: StoreId, durability: Durability, read_only: Option<Arc<str>>, state: State) -> Self {
        Store {
            id,
            durability,
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
        self.state.lock().expect("the lock of the state is never poisoned")
    }

    /// Returns the space usage of the file.
    pub fn usage(&self) -> Usage {
        self.lock().usage()
    }

    /// Returns the number of workers the log is open for: as requested, or as
    /// many as the capacity allows.
    pub fn workers(&self) -> usize {
        self.lock().segments.workers as usize
    }

    /// Returns the random identity of the store, assigned at creation.
    pub fn store_id(&self) -> [u8; 16] {
        self.id
    }

    /// Returns all statistics. Slow with many segments: not for every request.
    pub fn stats(&self) -> Stats {
        let state = self.lock();
        let segments = state.segment_stats();
        Stats { segments, ..state.summary(self.poisoned(), self.read_only.clone()) }
    }

    /// Returns the statistics without the list of segments.
    pub fn summary(&self) -> Stats {
        self.lock().summary(self.poisoned(), self.read_only.clone())
    }

    /// Returns the damage found by the maintenance since the last call, each object once. At most
    /// [`FINDINGS_MAX`](crate::limits::FINDINGS_MAX) are kept;
    /// [`CleanerStats::damaged`](crate::CleanerStats::damaged) counts all.
    pub fn take_findings(&self) -> Vec<Damage> {
        std::mem::take(&mut self.lock().maintenance.findings)
    }

    /// Returns [`Stats::newest_ms`].
    pub fn newest_ms(&self) -> u64 {
        self.lock().index.newest_ms
    }

    /// Returns the usage of the first `limit` buckets by name, and the number of further buckets.
    pub fn bucket_usage(&self, limit: usize) -> (Vec<BucketUsage>, u64) {
        let state = self.lock();
        let buckets: Vec<BucketUsage> = state.index.bucket_usage().take(limit).collect();
        let more = state.index.bucket_count() - buckets.len() as u64;
        (buckets, more)
    }

    /// Allows the next request that needs space to probe a file system that was full. Call this
    /// about once a second, since the log has no clock. Otherwise one in
    /// [`SPACE_ASK_AFTER`](crate::limits::SPACE_ASK_AFTER) refused requests probes.
    pub fn expect_space(&self) {
        let mut state = self.lock();
        state.segments.expect_space();
        for writer in state.torn.drain(..) {
            let _ = writer.send(()); // The receiver may be gone.
        }
    }

    /// Recounts the live bytes and returns the segments for which they differ from the counters.
    /// For tests: takes as long as a checkpoint, under the lock.
    #[doc(hidden)]
    pub fn recount(&self) -> Vec<LiveMismatch> {
        self.lock().index.recount()
    }

    /// Returns the number of pins held on bodies and on segments.
    #[cfg(feature = "shuttle")]
    pub fn pins(&self) -> (u64, u64) {
        let state = self.lock();
        let segments = state.segments.table.iter().map(|segment| u64::from(segment.pins)).sum();
        (state.index.pin_count(), segments)
    }

    /// Returns the log's current activities.
    pub fn activity(&self) -> Activity {
        Activity {
            committing: self.committing.load(Ordering::Relaxed) > 0,
            checkpointing: self.checkpointing.load(Ordering::Relaxed),
            cleaning: self.cleaning.load(Ordering::Relaxed),
            in_doubt: self.in_doubt.load(Ordering::Relaxed) > 0,
        }
    }

    /// Counts a writer that has answered [`Error::InDoubt`], or that has
    /// decided those writes since.
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

    /// Returns whether a write or a sync has failed. A poisoned log accepts no writes.
    pub fn poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// Returns the reason if the log is read-only.
    pub fn read_only(&self) -> Option<&Arc<str>> {
        self.read_only.as_ref()
    }

    /// Returns the failure that poisoned the log, if any.
    pub fn failed_write(&self) -> Option<FailedWrite> {
        if self.poisoned() { self.lock().failed_write.clone() } else { None }
    }

    /// Refuses every write from now on. Call without holding the lock. The first of several
    /// failures is kept, as the cause.
    pub(crate) fn poison(&self, failed: FailedWrite) {
        self.poisoned.store(true, Ordering::Release);
        let mut state = self.lock();
        state.failed_write.get_or_insert(failed);
        state.wake_space();
        state.wake_maintenance();
    }

    /// Fails unless the log accepts writes.
    pub(crate) fn check_poison(&self) -> Result<(), Error> {
        match &self.read_only {
            Some(why) => Err(Error::ReadOnly(Arc::clone(why))),
            None if self.poisoned() => Err(Error::Poisoned),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("durability", &self.durability)
            .field("poisoned", &self.poisoned())
            .finish_non_exhaustive()
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

    /// Returns whether the limit on live bytes is reached. Cleaning then gains nothing for writes
    /// that add data. In ring mode the oldest objects are dropped instead.
    pub(crate) fn is_full(&self) -> bool {
        !self.maintenance.ring && self.index.live.total() >= self.segments.live_max()
    }

    /// Returns whether writes that add data are refused until something is deleted.
    pub(crate) fn refuses(&self) -> bool {
        let stalled = self.maintenance.is_stalled && !self.maintenance.ring;
        self.is_full() || stalled && !self.segments.has_spare()
    }

    /// Returns whether records of any kind are accepted.
    pub(crate) fn has_spare(&self) -> bool {
        !self.is_full() && self.segments.has_spare()
    }

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
        if ring || self.index.live.total() < live || matches!(effect, Effect::Delete { .. }) {
            self.maintenance.mark_progress();
        }
        result
    }

    /// Closes a segment. Cleaning it may gain space from now on, unless the maintenance filled it.
    pub(crate) fn close_segment(&mut self, number: u32, by_maintenance: bool) {
        self.segments.close(number);
        if !by_maintenance {
            self.maintenance.mark_progress();
            self.wake_maintenance_if_short();
        }
    }

    /// Pins a segment, so that it is not freed, until [`unpin_segment`](Self::unpin_segment).
    pub(crate) fn pin_segment(&mut self, number: u32) {
        self.segments.table[number as usize].pins += 1;
    }

    pub(crate) fn unpin_segment(&mut self, number: u32) {
        let segment = &mut self.segments.table[number as usize];
        segment.pins -= 1;
        let unused = segment.pins == 0 && matches!(segment.used, Use::Condemned(_) | Use::Closed(_));
        if unused && self.index.live.of(number) == 0 {
            self.maintenance.mark_progress();
            self.wake_maintenance_if_short();
        }
    }

    pub(crate) fn wake_maintenance(&mut self) {
        if let Some(asleep) = self.maintenance.asleep.take() {
            let _ = asleep.send(()); // The receiver may be gone.
        }
    }

    /// Wakes the writers that wait for a segment.
    pub(crate) fn wake_space(&mut self) {
        for waiting in self.maintenance.space.drain(..) {
            let _ = waiting.send(()); // The receiver may be gone.
        }
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
