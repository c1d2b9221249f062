//! The maintenance: checkpoints and the segment cleaner. One task per log, with its own writer.
//!
//! It sleeps until there is work: a segment, when few are left; a checkpoint, when enough has been
//! written since the last one; or the end. It works in small steps (one buffer read, one batch
//! written), so that requests on the same thread and disk interleave, and holds the lock for one
//! step at a time.
//!
//! Cleaning a segment moves its live data and then *condemns* it. A condemned segment is freed when
//! no checkpoint that recovery could start from refers to it. Two checkpoints are kept, so that is
//! after two have been completed. Under pressure the sequence is: clean some segments, checkpoint,
//! clean some more, checkpoint, which frees the first ones, and so on. Writers do not wait for this
//! while other segments are available: segments that wait to be freed count as space.

mod aside;
mod checkpoint;
mod clean;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_channel::oneshot;

use crate::Log;
use crate::disk::{Disk, is_full};
use crate::error::{Error, FailedWrite};
use crate::limits::{CLEAN_AHEAD, CLEAN_IDLE_MAX, CLEAN_IN_VAIN_MAX};
use crate::log::start;
use crate::segments::Step;
use crate::state::{Compacted, MaintenanceRequest};
use crate::store::Store;
use crate::writer::{Context, Writer};

/// The maintenance of a log. Does nothing until [`run`](Self::run) is polled.
pub struct Maintenance<D: Disk> {
    log: Log<D>,
    store: Arc<Store>,
    /// Disk access for writes that bypass the writer: superblocks.
    context: Context<D>,
    /// Generations below this are from before the log was opened.
    opened: u64,
    /// Segments in which something could not be moved, until the next checkpoint.
    unmovable: BTreeSet<u32>,
    /// Segments with unreadable data, set aside until the log is closed.
    damaged: BTreeSet<u32>,
    running: Running,
}

/// Marks the maintenance as running until dropped.
struct Running(Arc<Store>);

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.maintenance.running = false;
        state.maintenance.requests.clear();
        state.wake_space();
    }
}

/// Creates the maintenance task of a log and its writer. The caller polls both on one thread until
/// they end. Without the maintenance no checkpoints are written and no space is reclaimed.
///
/// # Panics
/// Panics if called twice.
pub fn maintenance<D: Disk>(store: Arc<Store>, disk: Rc<D>) -> (Maintenance<D>, Writer<D>) {
    let (slot, opened) = {
        let mut state = store.lock();
        state.maintenance.running = true;
        (state.maintenance.slot.take(), state.numbers.next())
    };
    let Some(slot) = slot else { panic!("the maintenance of a log is started once") };
    let worker = slot.worker;
    let (log, writer) = start(Arc::clone(&store), Rc::clone(&disk), slot, true);
    let context = Context::new(Arc::clone(&store), disk, worker, true);
    let (unmovable, damaged) = Default::default();
    let running = Running(Arc::clone(&store));
    (Maintenance { log, store, context, opened, unmovable, damaged, running }, writer)
}

/// The next task of the maintenance.
enum Task {
    Request(MaintenanceRequest),
    /// Free segments are short.
    Clean,
    Checkpoint,
    /// Prepare a segment for records.
    Prepare(Step),
    /// The workers have ended, and there are no more requests.
    End,
}

impl<D: Disk> Maintenance<D> {
    /// Runs until every worker's [`Log`](crate::Log) has been dropped and its writer has ended,
    /// then writes a last checkpoint. Does nothing more after a failed write.
    pub async fn run(mut self) {
        if self.store.read_only().is_none() {
            let _ = self.context.allocate_reserve().await; // A failure has poisoned the log.
        }
        while let Some(task) = self.next().await {
            let seen = self.store.lock().maintenance.progress_counter;
            let result = match task {
                Task::Request(MaintenanceRequest::Checkpoint(done)) => {
                    let result = self.checkpoint().await;
                    let _ = done.send(result.clone()); // The receiver is gone if the request was dropped.
                    result
                }
                Task::Request(MaintenanceRequest::Compact(done)) => {
                    let result = self.compact().await;
                    let _ = done.send(result.clone());
                    result.map(drop)
                }
                Task::Clean => self.make_space().await,
                Task::Checkpoint => self.checkpoint().await,
                Task::Prepare(step) => self.context.prepare(step).await,
                Task::End => {
                    if self.store.lock().is_changed() {
                        let _ = self.checkpoint().await;
                    }
                    break;
                }
            };
            if let Err(error) = result {
                self.failed(&error, seen);
            }
        }
        drop(self.running);
    }

    /// Waits for the next task. `None`: the log accepts no more writes.
    async fn next(&self) -> Option<Task> {
        loop {
            let asleep = {
                let mut state = self.store.lock();
                if self.store.check_poison().is_err() {
                    state.wake_space();
                    return None;
                }
                if let Some(request) = state.maintenance.requests.pop_front() {
                    return Some(Task::Request(request));
                }
                if state.is_short() && !state.maintenance.is_stalled {
                    return Some(Task::Clean);
                }
                state.wake_space();
                if state.is_checkpoint_due() {
                    return Some(Task::Checkpoint);
                }
                if state.maintenance.logs == 0 && state.maintenance.writers == 0 {
                    return Some(Task::End);
                }
                if let Some(step) = state.segments.next_step() {
                    return Some(Task::Prepare(step));
                }
                let (sender, receiver) = oneshot::channel();
                state.maintenance.asleep = Some(sender);
                receiver
            };
            // An error would mean that another waker replaced it; there is only one.
            let _ = asleep.await;
        }
    }

    /// Handles a failed task: it may succeed after a deletion.
    fn failed(&self, error: &Error, seen: u64) {
        let mut state = self.store.lock();
        // An I/O error of the system does not pass within a moment either.
        if matches!(error, Error::Full | Error::Io(_)) {
            state.maintenance.mark_stalled(seen);
            // Prevents an immediate retry.
            state.maintenance.since_checkpoint = 0;
        }
        state.wake_space();
    }

    /// Cleans until there are spare segments or there is nothing to gain.
    async fn make_space(&mut self) -> Result<(), Error> {
        let mut in_vain = 0;
        let mut idle = 0;
        let mut progress = self.store.lock().segments.progress;
        while self.store.lock().is_short() {
            // Readers may have released pins.
            self.free();
            let seen = self.store.lock().maintenance.progress_counter;
            let cleaned =
                self.clean(|state| in_vain >= CLEAN_IN_VAIN_MAX || !state.is_short() || state.is_freeing_due()).await?;
            let due = {
                let mut state = self.store.lock();
                state.condemn_dead();
                state.is_freeing_due() || (cleaned == 0 && state.segments.waiting() > 0)
            };
            if due {
                self.checkpoint().await?;
            }
            let (now, waits, short) = {
                let mut state = self.store.lock();
                state.condemn_dead();
                (state.segments.progress, state.segments.waiting() > 0, state.is_short())
            };
            if now > progress || !short {
                progress = now.max(progress);
                in_vain = 0;
                idle = 0;
                continue;
            }
            // Gains of less than a segment add up. Waiting segments are free after two
            // checkpoints, even if those make as many wait as they take, and cleaning may
            // need exactly those segments.
            in_vain += cleaned;
            idle = if cleaned > 0 { 0 } else { idle + 1 };
            if cleaned > 0 || ((due || waits) && idle < CLEAN_IDLE_MAX) {
                continue;
            }
            if !self.drop_oldest().await? {
                let mut state = self.store.lock();
                // Deletions in the meantime were not seen.
                state.maintenance.mark_stalled(seen);
                if state.maintenance.is_stalled {
                    break;
                }
            }
            in_vain = 0;
            idle = 0;
        }
        self.store.lock().wake_space();
        self.discard().await
    }

    /// In ring mode, deletes the oldest objects.
    async fn drop_oldest(&self) -> Result<bool, Error> {
        let (ring, bytes) = {
            let state = self.store.lock();
            (state.maintenance.ring, CLEAN_AHEAD * state.segments.len)
        };
        Ok(ring && self.log.drop_oldest(bytes).await? > 0)
    }

    /// Runs the cleaner until it gains nothing.
    async fn compact(&mut self) -> Result<Compacted, Error> {
        let before = self.store.lock().counters.cleaner;
        loop {
            let cleaned = self.clean(|_| false).await?;
            let waits = {
                let mut state = self.store.lock();
                state.condemn_dead();
                state.segments.condemned()
            };
            if cleaned == 0 && waits == 0 {
                break;
            }
            self.checkpoint().await?;
            self.checkpoint().await?;
            // The rest is pinned by readers, and freed when they are done.
            if cleaned == 0 && self.store.lock().segments.condemned() >= waits {
                break;
            }
        }
        self.discard().await?;
        let after = self.store.lock().counters.cleaner;
        Ok(Compacted {
            segments_freed: after.segments_freed - before.segments_freed,
            bytes_moved: after.bytes_moved - before.bytes_moved,
        })
    }

    /// Frees condemned segments that no kept checkpoint refers to.
    fn free(&self) {
        let mut state = self.store.lock();
        let kept = &state.index.checkpoints;
        // With only one checkpoint, recovery without it would have none to start from.
        let full = kept.len() == crate::limits::CHECKPOINTS_KEPT;
        let oldest = if full { kept.last().map_or(0, |checkpoint| checkpoint.begun) } else { 0 };
        let freed = state.segments.free_condemned(oldest).len() as u64;
        state.counters.cleaner.segments_freed += freed;
        if freed > 0 {
            state.wake_space();
        }
    }

    /// Discards blank segments beyond those needed soon.
    async fn discard(&self) -> Result<(), Error> {
        loop {
            let (number, start, len) = {
                let mut state = self.store.lock();
                let Some(number) = state.segments.discardable() else { return Ok(()) };
                // Withdrawn, so that it cannot be begun in the meantime.
                state.segments.withdraw(number);
                (number, state.segments.start(number), state.segments.len)
            };
            let result = self.context.disk.discard(start, len).await;
            let mut state = self.store.lock();
            state.wake_space();
            match result {
                Ok(()) => {
                    state.segments.discarded(number);
                    state.counters.cleaner.segments_discarded += 1;
                }
                // Its space stays allocated for later use.
                Err(error) if error.kind() == ErrorKind::Unsupported || is_full(&error) => {
                    state.segments.not_discarded(number);
                    return Ok(());
                }
                Err(error) => {
                    // The contents are never read, whatever they are; but the disk has
                    // malfunctioned.
                    state.segments.discarded(number);
                    drop(state);
                    self.store.poison(FailedWrite::new("a discard", Some(start), &error));
                    return Err(error.into());
                }
            }
        }
    }

    fn set_cleaning(&self, cleaning: bool) {
        self.store.cleaning.store(cleaning, Ordering::Relaxed);
    }
}
