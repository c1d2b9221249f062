//! The open store, which the workers of a log share.
//!
//! One mutex guards the index, the counter, the segment table and the durability state. It is never
//! held across an await. Everything else belongs to one worker.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::{Damage, Error, FailedWrite};
use crate::index::{LiveMismatch, Removals};
use crate::limits::LOCKS_BATCH;
use crate::locks::{AtomicBool, AtomicU32, Mutex, MutexGuard};
use crate::state::State;
use crate::stats::{Stats, Usage};
use crate::types::BucketUsage;
use crate::version::VersionIds;
use crate::wire::StoreId;

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
    recovered_through: u64,
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

impl Store {
    pub(crate) fn new(id: StoreId, durability: Durability, read_only: Option<Arc<str>>, state: State) -> Self {
        Store {
            id,
            durability,
            segment_len: state.segments.len,
            recovered_through: state.numbers.next() - 1,
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
        let locked_bytes = self.locked_bytes();
        self.lock().usage(locked_bytes)
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
        let locked_bytes = self.locked_bytes();
        let state = self.lock();
        let segments = state.segment_stats();
        Stats { segments, ..state.summary(locked_bytes, self.poisoned(), self.read_only.clone()) }
    }

    /// Returns the statistics without the list of segments.
    pub fn summary(&self) -> Stats {
        let locked_bytes = self.locked_bytes();
        self.lock().summary(locked_bytes, self.poisoned(), self.read_only.clone())
    }

    /// Returns the plaintext bytes of the versions that are locked now.
    fn locked_bytes(&self) -> u64 {
        let mut sum = 0;
        let mut next = Some((0, 0));
        while let Some(from) = next {
            let (bytes, rest) = self.lock().index.locked_bytes(from, LOCKS_BATCH);
            sum += bytes;
            next = rest;
        }
        sum
    }

    /// Returns the damage found by the maintenance since the last call, each object once. At most
    /// [`FINDINGS_MAX`](crate::limits::FINDINGS_MAX) are kept;
    /// [`CleanerStats::damaged`](crate::CleanerStats::damaged) counts all.
    pub fn take_findings(&self) -> Vec<Damage> {
        std::mem::take(&mut self.lock().maintenance.findings)
    }

    /// Returns the highest number such that every record up to it is durable and applied to the index, or
    /// will never exist. It never decreases while the store is open. In-flight writes hold it back, and a
    /// checkpoint may until it is complete.
    pub fn settled(&self) -> u64 {
        self.lock().numbers.settled_through()
    }

    /// Returns the number that [`settled`](Self::settled) must reach before the index as it is now is
    /// durable. Until then, a power failure can undo a deletion or an overwrite that is visible. Above
    /// `settled` only under [`Durability::Deferred`].
    pub fn stable_at(&self) -> u64 {
        let state = self.lock();
        match self.durability {
            Durability::Always => state.numbers.settled_through(),
            // Any record so far may be in the index.
            Durability::Deferred => state.numbers.next() - 1,
        }
    }

    /// Returns the highest number that could have been in use before this opening. The records of
    /// requests of this opening have higher numbers.
    pub fn recovered_through(&self) -> u64 {
        self.recovered_through
    }

    /// Records the removals of versions and buckets from now on, for
    /// [`take_removals`](Self::take_removals): at most `limit`, beyond which all that wait are dropped.
    /// 0 turns it off, as it is at first.
    pub fn track_removals(&self, limit: usize) {
        self.lock().index.track_removals(limit, VersionIds::of(&self.id));
    }

    /// Returns the removals since the last call whose records are durable, in the order of their
    /// application. Turned on by [`track_removals`](Self::track_removals).
    pub fn take_removals(&self) -> Removals {
        let mut state = self.lock();
        let State { index, numbers, .. } = &mut *state;
        index.take_removals(|record| numbers.is_durable(record))
    }

    /// Returns the version of the format of the file. It rises with the first version of an object, and
    /// with the first eviction.
    pub fn format_version(&self) -> u32 {
        self.lock().superblock.version
    }

    /// Returns the lock clock: the time that retention is compared with, in ms since 1970. 0 if it was
    /// never advanced.
    pub fn lock_clock_ms(&self) -> u64 {
        self.lock().index.lock_clock_ms
    }

    /// Advances the lock clock, which never goes back. [`save_lock_clock`](crate::Log::save_lock_clock)
    /// makes it durable.
    pub fn advance_lock_clock(&self, to_ms: u64) {
        let mut state = self.lock();
        state.index.lock_clock_ms = state.index.lock_clock_ms.max(to_ms);
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
            in_doubt: self.has_writes_in_doubt(),
        }
    }

    /// Counts a writer that has answered [`Error::InDoubt`], or that has
    /// decided those writes since. Call without holding the lock.
    pub(crate) fn set_in_doubt(&self, is_in_doubt: bool) {
        if is_in_doubt {
            self.in_doubt.fetch_add(1, Ordering::Relaxed);
            self.lock().index.wake_claims();
        } else {
            self.in_doubt.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Returns whether writes that were answered with [`Error::InDoubt`] are not decided yet.
    pub(crate) fn has_writes_in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::Relaxed) > 0
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
        state.index.wake_claims();
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
