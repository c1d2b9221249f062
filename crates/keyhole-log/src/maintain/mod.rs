//! The maintenance: checkpoints, and the cleaner. One task for each log, with a writer of its own.
//!
//! It sleeps until somebody wants something of it: a segment, when there are few left; a checkpoint, when much has been written
//! since the last one; or the end. It works in small steps (one buffer read, one batch written), so that requests on the same
//! thread and disk come between, and it holds the lock for one step at a time.
//!
//! Cleaning a segment is to move what is live in it and then to *condemn* it. A condemned segment is freed when no checkpoint
//! that could still be recovered from knows of anything in it: as two are kept, that is when two have been completed. So under
//! pressure the steps are: clean some segments, checkpoint, clean some more, checkpoint, which frees the first ones, and so on.
//! Nobody waits for that as long as there are others: what waits to be freed is counted on.

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
use crate::commit::Context;
use crate::disk::{Disk, is_full};
use crate::error::{Error, FailedWrite};
use crate::limits::{CHECKPOINT_AFTER_MAX, CHECKPOINT_AFTER_MIN, CLEAN_AHEAD, CLEAN_IDLE_MAX, CLEAN_IN_VAIN_MAX};
use crate::log::start;
use crate::segments::Step;
use crate::shared::{Shared, State};
use crate::writer::Writer;

/// What [`compact`](crate::Log::compact) has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Segments that became blank.
    pub segments_freed: u64,
    /// Bytes of live records and blocks that were moved.
    pub bytes_moved: u64,
}

/// What is asked of the maintenance, and who waits for it.
#[derive(Debug)]
pub(crate) enum Wish {
    Checkpoint(oneshot::Sender<Result<(), Error>>),
    Compact(oneshot::Sender<Result<Compacted, Error>>),
}

/// The maintenance of a log. It does nothing until [`run`](Self::run) is polled.
pub struct Maintenance<D: Disk> {
    log: Log<D>,
    shared: Arc<Shared>,
    /// For what does not go through the writer: superblocks.
    context: Context<D>,
    /// Generations below this are from before the log was opened.
    opened: u64,
    /// Segments in which something could not be moved, until the next checkpoint.
    unmovable: BTreeSet<u32>,
    /// Segments in which something could not be read: they are put aside until the log is closed.
    damaged: BTreeSet<u32>,
    /// The superblock copy whose last write failed for want of space; without such a failure the first.
    suspect: usize,
    running: Running,
}

/// Says that the maintenance runs, until it is dropped.
struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.maintenance.running = false;
        state.maintenance.wishes.clear();
        state.wake_space();
    }
}

/// Prepares the maintenance of a log: the task, and the writer that it writes through. Both are polled by the caller, on one
/// thread, until they end. Without it no checkpoints are written and no space is ever used again.
///
/// # Panics
/// If it is called twice.
pub fn maintenance<D: Disk>(shared: Arc<Shared>, disk: Rc<D>) -> (Maintenance<D>, Writer<D>) {
    let (slot, opened) = {
        let mut state = shared.lock();
        state.maintenance.running = true;
        (state.maintenance.slot.take(), state.numbers.next())
    };
    let Some(slot) = slot else { panic!("a log has one maintenance") };
    let worker = slot.worker;
    let (log, writer) = start(Arc::clone(&shared), Rc::clone(&disk), slot, true);
    let context = Context::new(Arc::clone(&shared), disk, worker, true);
    let (unmovable, damaged) = Default::default();
    let running = Running(Arc::clone(&shared));
    (Maintenance { log, shared, context, opened, unmovable, damaged, suspect: 0, running }, writer)
}

/// What there is to do.
enum Task {
    Wish(Wish),
    /// Segments are short.
    Clean,
    Checkpoint,
    /// A segment for records is made ready.
    Prepare(Step),
    /// Nothing is left to be asked for: the workers have ended.
    End,
}

impl<D: Disk> Maintenance<D> {
    /// Works until every worker's [`Log`](crate::Log) has been dropped and its writer has ended; then writes a last checkpoint.
    /// After a failed write it does nothing more.
    pub async fn run(mut self) {
        if self.shared.read_only().is_none() {
            let _ = self.context.allocate_reserve().await; // A failure has poisoned the log.
        }
        while let Some(task) = self.next().await {
            let hopes = self.shared.lock().maintenance.hopes;
            let result = match task {
                Task::Wish(Wish::Checkpoint(done)) => {
                    let result = self.checkpoint().await;
                    let _ = done.send(result.clone()); // Nobody may wait.
                    result
                }
                Task::Wish(Wish::Compact(done)) => {
                    let result = self.compact().await;
                    let _ = done.send(result.clone());
                    result.map(drop)
                }
                Task::Clean => self.make_space().await,
                Task::Checkpoint => self.checkpoint().await,
                Task::Prepare(step) => self.context.prepare(step).await,
                Task::End => {
                    if self.shared.lock().is_changed() {
                        let _ = self.checkpoint().await;
                    }
                    break;
                }
            };
            if let Err(error) = result {
                self.failed(&error, hopes);
            }
        }
        drop(self.running);
    }

    /// The next thing to do; `None`: nothing can be done any more.
    async fn next(&self) -> Option<Task> {
        loop {
            let asleep = {
                let mut state = self.shared.lock();
                if self.shared.check_poison().is_err() {
                    state.wake_space();
                    return None;
                }
                if let Some(wish) = state.maintenance.wishes.pop_front() {
                    return Some(Task::Wish(wish));
                }
                if state.is_short() && !state.maintenance.stuck {
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
            // An error means that another waker took its place, which there is none of.
            let _ = asleep.await;
        }
    }

    /// What could not be done now may be possible when something has been deleted.
    fn failed(&self, error: &Error, hopes: u64) {
        let mut state = self.shared.lock();
        // Neither is an error of the system better a moment later.
        if matches!(error, Error::Full | Error::Io(_)) {
            state.maintenance.give_up(hopes);
            // It would be tried again at once.
            state.maintenance.since_checkpoint = 0;
        }
        state.wake_space();
    }

    /// Cleans until there are segments to spare, or nothing is to be gained.
    async fn make_space(&mut self) -> Result<(), Error> {
        let (mut in_vain, mut idle) = (0, 0);
        let mut progress = self.shared.lock().segments.progress;
        while self.shared.lock().is_short() {
            // Readers may have gone meanwhile.
            self.free();
            let hopes = self.shared.lock().maintenance.hopes;
            let cleaned =
                self.clean(|state| in_vain >= CLEAN_IN_VAIN_MAX || !state.is_short() || state.is_freeing_due()).await?;
            let due = {
                let mut state = self.shared.lock();
                state.condemn_dead();
                state.is_freeing_due() || (cleaned == 0 && state.segments.waiting() > 0)
            };
            if due {
                self.checkpoint().await?;
            }
            let (now, waits, short) = {
                let mut state = self.shared.lock();
                state.condemn_dead();
                (state.segments.progress, state.segments.waiting() > 0, state.is_short())
            };
            if now > progress || !short {
                (progress, in_vain, idle) = (now.max(progress), 0, 0);
                continue;
            }
            // A gain of less than a segment shows after some more; and what waits is free after two checkpoints, even where they make
            // as much wait as they take. What that frees may be what cleaning needs.
            in_vain += cleaned;
            idle = if cleaned > 0 { 0 } else { idle + 1 };
            if cleaned > 0 || ((due || waits) && idle < CLEAN_IDLE_MAX) {
                continue;
            }
            if !self.drop_oldest().await? {
                let mut state = self.shared.lock();
                // What was deleted meanwhile was not seen.
                state.maintenance.give_up(hopes);
                if state.maintenance.stuck {
                    break;
                }
            }
            (in_vain, idle) = (0, 0);
        }
        self.shared.lock().wake_space();
        self.discard().await
    }

    /// In ring mode: makes dead what is oldest.
    async fn drop_oldest(&self) -> Result<bool, Error> {
        let (ring, bytes) = {
            let state = self.shared.lock();
            (state.maintenance.ring, CLEAN_AHEAD * state.segments.len)
        };
        Ok(ring && self.log.drop_oldest(bytes).await? > 0)
    }

    /// Runs the cleaner to its end.
    async fn compact(&mut self) -> Result<Compacted, Error> {
        let before = self.shared.lock().counters.cleaner;
        loop {
            let cleaned = self.clean(|_| false).await?;
            let waits = {
                let mut state = self.shared.lock();
                state.condemn_dead();
                state.segments.condemned()
            };
            if cleaned == 0 && waits == 0 {
                break;
            }
            self.checkpoint().await?;
            self.checkpoint().await?;
            // What is left is held by readers, and freed when they have gone.
            if cleaned == 0 && self.shared.lock().segments.condemned() >= waits {
                break;
            }
        }
        self.discard().await?;
        let after = self.shared.lock().counters.cleaner;
        Ok(Compacted {
            segments_freed: after.segments_freed - before.segments_freed,
            bytes_moved: after.bytes_moved - before.bytes_moved,
        })
    }

    /// Frees condemned segments that no checkpoint that is kept knows anything in.
    fn free(&self) {
        let mut state = self.shared.lock();
        let kept = &state.index.checkpoints;
        // While there is but one checkpoint, opening without it would be opening without any.
        let full = kept.len() == crate::limits::CHECKPOINTS_KEPT;
        let oldest = if full { kept.last().map_or(0, |checkpoint| checkpoint.begun) } else { 0 };
        let freed = state.segments.free_condemned(oldest).len() as u64;
        state.counters.cleaner.segments_freed += freed;
        if freed > 0 {
            state.wake_space();
        }
    }

    /// Gives back the space of blank segments that are more than will soon be needed.
    async fn discard(&self) -> Result<(), Error> {
        loop {
            let (number, start, len) = {
                let mut state = self.shared.lock();
                let Some(number) = state.segments.discardable() else { return Ok(()) };
                // Nobody begins it meanwhile.
                state.segments.withdraw(number);
                (number, state.segments.start(number), state.segments.len)
            };
            let result = self.context.disk.discard(start, len).await;
            let mut state = self.shared.lock();
            state.wake_space();
            match result {
                Ok(()) => {
                    state.segments.discarded(number);
                    state.counters.cleaner.segments_discarded += 1;
                }
                // Its space stays, for the next that needs some.
                Err(error) if error.kind() == ErrorKind::Unsupported || is_full(&error) => {
                    state.segments.not_discarded(number);
                    return Ok(());
                }
                Err(error) => {
                    // Whatever is there now is taken for nothing; but the disk does not do what it should.
                    state.segments.discarded(number);
                    drop(state);
                    self.shared.poison(FailedWrite::new("a discard", Some(start), &error));
                    return Err(error.into());
                }
            }
        }
    }

    fn set_cleaning(&self, cleaning: bool) {
        self.shared.cleaning.store(cleaning, Ordering::Relaxed);
    }
}

impl State {
    /// Whether somebody waits for a segment, or will soon have to.
    fn is_short(&self) -> bool {
        !self.maintenance.space.is_empty() || self.segments.spare() < CLEAN_AHEAD
    }

    /// Whether it is time for a checkpoint, so that what was cleaned is freed: enough has been, or others can have no segment before.
    fn is_freeing_due(&self) -> bool {
        let segments = &self.segments;
        segments.fresh() >= segments.batch() || (segments.at_hand() == 0 && segments.waiting() > 0)
    }

    fn is_checkpoint_due(&self) -> bool {
        let after = (4 * self.maintenance.checkpoint_len).clamp(CHECKPOINT_AFTER_MIN, CHECKPOINT_AFTER_MAX);
        // In a small file there are few segments: a checkpoint comes more often, for what it takes is a small part of it.
        let after = after.min((self.segments.capacity / 8).max(self.segments.len));
        self.maintenance.since_checkpoint > after || (self.maintenance.unsettled > 0 && self.is_changed())
    }

    /// Whether anything has been written since the newest checkpoint.
    fn is_changed(&self) -> bool {
        self.maintenance.since_checkpoint > 0
    }

    pub(crate) fn wake_maintenance_if_short(&mut self) {
        if (self.segments.spare() < CLEAN_AHEAD && !self.maintenance.stuck) || self.segments.is_unprepared() {
            self.wake_maintenance();
        }
    }

    pub(crate) fn wake_maintenance_if_due(&mut self) {
        if self.is_checkpoint_due() || (!self.maintenance.stuck && self.segments.spare() < CLEAN_AHEAD) {
            self.wake_maintenance();
        }
    }
}
