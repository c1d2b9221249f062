//! Disk access of a writer, and what it remembers between batches.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use futures_channel::oneshot;

use super::job::Commit;
use crate::disk::{Disk, is_full};
use crate::draft::Draft;
use crate::error::{Error, FailedWrite};
use crate::sabotage::{self, Sabotage};
use crate::store::Store;

/// Segments tried in turn while writes fail for lack of space: for a batch, and for the
/// header of a new segment.
pub(super) const WRITE_ATTEMPTS: u32 = 2;

/// A torn batch: its write failed for lack of space and may be partly on disk. A record of the log
/// itself is written over its start.
pub(super) struct Torn {
    /// The record: it ends the segment. For the maintenance it is a mark, and the segment goes on.
    pub(super) own: Draft,
    /// Commits answered as in doubt. If the machine crashes before the end record is durable, they
    /// may come back. Until then nothing may be acknowledged that does not depend on them.
    pub(super) refused: Vec<Commit>,
}

/// Disk access of a writer.
pub(crate) struct Context<D: Disk> {
    pub(crate) store: Arc<Store>,
    pub(crate) disk: Rc<D>,
    pub(super) worker: usize,
    /// Whether this is the maintenance's writer: of checkpoints and of records the cleaner moves.
    pub(crate) maintains: bool,
    /// Number of batches: selects the worker whose durable end the next batch states.
    pub(super) turn: Cell<usize>,
    /// Whether anything was written after the last record that proves durability.
    pub(super) dirty: Cell<bool>,
    /// The buffer of the last batch, reused for the next. It holds a copy of what is on disk and is
    /// wiped when the writer ends: wiping it per batch would cost as much as filling it.
    pub(super) spare: Cell<Option<D::Buf>>,
    /// The torn batch, if any: the open segment must be ended there before any other write.
    pub(super) torn: Cell<Option<Torn>>,
}

impl<D: Disk> Context<D> {
    pub(crate) fn new(store: Arc<Store>, disk: Rc<D>, worker: usize, maintains: bool) -> Self {
        let turn = Cell::new(0);
        let dirty = Cell::new(false);
        let spare = Cell::new(None);
        let torn = Cell::new(None);
        Context { store, disk, worker, maintains, turn, dirty, spare, torn }
    }

    /// Writes the front of a buffer. A failure poisons the log, since the state of the range is
    /// unknown from then on. Lack of space is `Full` instead: the range may be partly written, and
    /// its former contents must not be relied on.
    pub(crate) async fn write(&self, offset: u64, buf: D::Buf, len: usize) -> Result<(), Error> {
        self.dirty.set(true);
        let (result, _) = self.disk.write(offset, buf, 0..len).await;
        self.full_or_poison(result, offset)
    }

    /// Maps a failed write at `offset` to `Full` if space is lacking. Any other
    /// failure poisons the log.
    pub(crate) fn full_or_poison(&self, result: std::io::Result<()>, offset: u64) -> Result<(), Error> {
        match result {
            Err(error) if is_full(&error) => {
                self.store.lock().segments.write_failed();
                Err(Error::Full)
            }
            result => self.poison_on(result, "a write", Some(offset)),
        }
    }

    pub(crate) fn poison_on(
        &self,
        result: std::io::Result<()>,
        what: &'static str,
        at: Option<u64>,
    ) -> Result<(), Error> {
        result.map_err(|error| {
            self.store.poison(FailedWrite::new(what, at, &error));
            error.into()
        })
    }

    /// Makes durable what all workers have written so far.
    pub(crate) async fn sync(&self) -> Result<(), Error> {
        let noted = (!sabotage::is(Sabotage::NoteLate)).then(|| self.store.lock().begin_sync());
        let result = if sabotage::is(Sabotage::SkipSync) { Ok(()) } else { self.disk.sync().await };
        self.poison_on(result, "a sync", None)?;
        // A sync that overlaps a failed write proves nothing about that write.
        self.store.check_poison()?;
        let mut state = self.store.lock();
        state.counters.syncs.syncs += 1;
        let syncing = noted.unwrap_or_else(|| state.begin_sync());
        state.end_sync(&syncing);
        Ok(())
    }

    /// Returns a receiver that is notified when there may be space again.
    pub(crate) fn expected_space(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.store.lock().torn.push(sender);
        receiver
    }

    /// Returns whether the open segment must be ended before any other write.
    pub(crate) fn is_torn(&self) -> bool {
        let torn = self.torn.take();
        let is_torn = torn.is_some();
        self.torn.set(torn);
        is_torn
    }
}
