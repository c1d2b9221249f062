//! What the workers of a log share.
//!
//! One mutex guards it all, and is never held across an await: index, counter, table of segments, and what is known to be
//! durable. Everything else belongs to one worker.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::Error;
use crate::index::{Bodies, Effect, Index, Location};
use crate::numbers::Numbers;
use crate::segments::Segments;
use crate::wire::StoreId;
use crate::wire::record::Durable;

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
}

/// Index, counter and segments of one open log. Made by [`open`](crate::open()), handed to each [`worker`](crate::worker()).
pub struct Shared {
    pub(crate) store: StoreId,
    pub(crate) sync: Sync,
    state: Mutex<State>,
    poisoned: AtomicBool,
}

/// What the mutex guards.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) index: Index,
    pub(crate) numbers: Numbers,
    pub(crate) segments: Segments,
    /// Of each worker's open segment for records.
    pub(crate) ends: Vec<End>,
    /// What each worker that has not started yet goes on with.
    pub(crate) slots: std::vec::IntoIter<Slot>,
    /// Bytes of batches and blocks in all segments.
    pub(crate) used: u64,
}

/// How far a worker's open segment for records has been written, and how far it is durable. Offsets within the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) segment: u32,
    pub(crate) written: u32,
    pub(crate) durable: u32,
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
    pub(crate) generation: u64,
    /// Where the next block goes.
    pub(crate) at: u64,
    /// Where in the file the segment ends.
    pub(crate) end: u64,
}

/// What a sync makes durable when it succeeds.
pub(crate) struct Syncing {
    seqs: std::collections::BTreeSet<u64>,
    ends: Vec<End>,
}

impl Shared {
    pub(crate) fn new(store: StoreId, sync: Sync, state: State) -> Self {
        Shared { store, sync, state: Mutex::new(state), poisoned: AtomicBool::new(false) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it changes the state")
    }

    /// How much of the file is used, and by what.
    pub fn usage(&self) -> Usage {
        let state = self.lock();
        let totals = state.index.totals;
        let live = totals.live_meta + totals.live_body;
        Usage {
            capacity: state.segments.capacity,
            allocated: state.segments.allocated(),
            buckets: state.index.bucket_count(),
            objects: totals.objects,
            uploads: totals.uploads,
            bodies: state.index.body_count(),
            live,
            dead: state.used.saturating_sub(live),
        }
    }

    /// Whether a write or a sync has failed, so that nothing more is written.
    pub fn poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    pub(crate) fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }

    pub(crate) fn check_poison(&self) -> Result<(), Error> {
        if self.poisoned() { Err(Error::Poisoned) } else { Ok(()) }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("sync", &self.sync).field("poisoned", &self.poisoned()).finish_non_exhaustive()
    }
}

impl State {
    /// A segment whose records are known to be durable up to some offset, of a worker other than `me`: each time another one.
    pub(crate) fn witness(&self, me: usize, turn: usize) -> Durable {
        let others = self.ends.len() - 1;
        if others == 0 {
            return Durable::default();
        }
        let end = self.ends[(me + 1 + turn % others) % self.ends.len()];
        Durable { segment: end.segment, until: end.durable }
    }

    /// To be called when the sync is about to be submitted: every write that counts has completed.
    pub(crate) fn begin_sync(&mut self) -> Syncing {
        Syncing { seqs: self.numbers.begin_sync(), ends: self.ends.clone() }
    }

    pub(crate) fn end_sync(&mut self, syncing: &Syncing) {
        self.numbers.durable(&syncing.seqs);
        for (end, then) in self.ends.iter_mut().zip(&syncing.ends) {
            if end.segment == then.segment {
                end.durable = end.durable.max(then.written);
            }
        }
    }

    /// Takes in a durable record and ends its reservation.
    pub(crate) fn apply(&mut self, seq: u64, at: Location, effect: &Effect) -> Result<(), Error> {
        // In this order: the reservation is what remembers a newer deletion of the name.
        let result = self.index.apply(seq, at, effect);
        self.index.release(seq, effect);
        result
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

impl Slot {
    pub(crate) fn end(&self) -> End {
        match &self.meta {
            Some(meta) => {
                let durable = (meta.at - meta.start) as u32;
                End { segment: meta.number, written: durable, durable }
            }
            None => End { segment: 0, written: 0, durable: 0 },
        }
    }
}
