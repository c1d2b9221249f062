//! Changes of the superblock while the store is open: checkpoints, and the changes to the versions of
//! the format that have versions of objects and evicted ones.

use std::sync::Arc;

use futures_channel::oneshot;

use super::context::Context;
use crate::disk::Disk;
use crate::draft::Draft;
use crate::error::Error;
use crate::limits::{PAGE, SUPERBLOCK_AT};
use crate::store::Store;
use crate::wire::superblock::Superblock;

/// The exclusive right to change the superblock, held while it is being changed.
pub(crate) struct SuperblockTurn(Arc<Store>);

impl Drop for SuperblockTurn {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.superblock_copies.is_taken = false;
        for waiting in state.superblock_copies.waiting.drain(..) {
            let _ = waiting.send(()); // The receiver may be gone.
        }
    }
}

impl<D: Disk> Context<D> {
    /// Waits for the right to change the superblock.
    pub(crate) async fn superblock_turn(&self) -> SuperblockTurn {
        loop {
            let waiting = {
                let mut state = self.store.lock();
                let copies = &mut state.superblock_copies;
                if !copies.is_taken {
                    copies.is_taken = true;
                    return SuperblockTurn(Arc::clone(&self.store));
                }
                let (sender, receiver) = oneshot::channel();
                copies.waiting.push(sender);
                receiver
            };
            let _ = waiting.await;
        }
    }

    /// Writes and syncs one copy, then the other, so that one of them is valid at any time. Starts
    /// with the copy whose last write failed, if any.
    pub(crate) async fn write_superblock(&self, superblock: &Superblock, _turn: &SuperblockTurn) -> Result<(), Error> {
        let first = {
            let mut state = self.store.lock();
            // A failed write may still have reached the disk, so the next one gets a higher epoch.
            state.superblock.epoch = superblock.epoch;
            state.superblock_copies.suspect
        };
        for copy in [first, 1 - first] {
            self.store.lock().superblock_copies.suspect = copy;
            let mut buf = self.disk.buffer_with_len(PAGE);
            superblock.emit(D::slice(&mut buf, 0..PAGE));
            self.write(SUPERBLOCK_AT[copy], buf, PAGE).await?;
            self.sync().await?;
            self.store.lock().counters.written.other += PAGE as u64;
        }
        let mut state = self.store.lock();
        state.superblock_copies.suspect = 0;
        state.superblock = superblock.clone();
        Ok(())
    }

    /// Makes sure that programs which do not know these records reject the file, before any of them
    /// is written.
    pub(super) async fn require_version(&self, drafts: impl Iterator<Item = &Draft>) -> Result<(), Error> {
        let Some(version) = drafts.into_iter().map(Draft::format_version).max() else { return Ok(()) };
        if self.store.lock().superblock.version >= version {
            return Ok(());
        }
        let turn = self.superblock_turn().await;
        let changed = {
            let state = self.store.lock();
            let old = &state.superblock;
            if old.version >= version {
                return Ok(());
            }
            Superblock { version, epoch: old.epoch + 1, ..old.clone() }
        };
        self.write_superblock(&changed, &turn).await
    }
}
