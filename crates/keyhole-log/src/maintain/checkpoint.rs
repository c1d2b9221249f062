//! Writing of checkpoints.
//!
//! 1. Under the lock, takes a snapshot: the sequence number that bounds the checkpoint, the pending
//!    records below it (numbered but not applied), the written length of every segment, and the
//!    floors of the names that those records are about.
//! 2. Captures the index piece by piece, each under its own lock acquisition.
//! 3. Writes a record that lists the pieces, and makes everything durable.
//! 4. Points the superblock to it.

use std::sync::atomic::Ordering;

use super::Maintenance;
use crate::disk::Disk;
use crate::draft::Draft;
use crate::error::Error;
use crate::index::{Capture, Effect};
use crate::limits::{PAGE, checkpoint_record, checkpoint_records_max};
use crate::log::CommitRequest;
use crate::state::{BegunCheckpoint, State};
use crate::wire::checkpoint::{CheckpointEnd, CheckpointItems};
use crate::wire::payload::RecordPayload;
use crate::wire::superblock::Superblock;

impl<D: Disk> Maintenance<D> {
    /// Writes a checkpoint, and frees the segments that waited for it. Writes more than one if the
    /// tails cut by recovery are not final before.
    pub(super) async fn checkpoint(&mut self) -> Result<(), Error> {
        loop {
            self.checkpoint_once().await?;
            let mut state = self.store.lock();
            let State { maintenance, numbers, .. } = &mut *state;
            match maintenance.unsettled {
                0 => return Ok(()),
                1 => {
                    maintenance.unsettled = 0;
                    numbers.set_bound(None);
                    return Ok(());
                }
                _ => maintenance.unsettled -= 1,
            }
        }
    }

    async fn checkpoint_once(&mut self) -> Result<(), Error> {
        self.store.check_poison()?;
        self.store.checkpointing.store(true, Ordering::Relaxed);
        let result = self.write_checkpoint().await;
        self.store.checkpointing.store(false, Ordering::Relaxed);
        if result.is_err() {
            self.store.lock().index.checkpoint_failed();
        }
        result?;
        self.unmovable.clear();
        self.free();
        Ok(())
    }

    async fn write_checkpoint(&mut self) -> Result<(), Error> {
        let BegunCheckpoint { until, watermark, floor, begun, front } = self.store.lock().begin_checkpoint();
        let mut index = 0;
        for items in front {
            self.write_items(until, index, &items).await?;
            index += 1;
        }
        let mut capture = Capture::default();
        while capture != Capture::Done {
            let mut items = Vec::with_capacity(checkpoint_record(self.store.segment_len) + PAGE);
            capture = self.store.lock().index.capture(capture, &mut items);
            if !items.is_empty() {
                self.write_items(until, index, &items).await?;
                index += 1;
            }
        }
        let end = {
            let state = self.store.lock();
            CheckpointEnd {
                until,
                watermark,
                floor,
                item_records: state.index.building.iter().map(|at| at.raw()).collect(),
                ends: state.ends.iter().filter(|end| end.written > 0).map(|end| (end.segment, end.written)).collect(),
            }
        };
        self.write_record(&RecordPayload::Checkpoint(end)).await?;
        self.log.flush().await?;
        let turn = self.context.superblock_turn().await;
        let superblock = {
            let state = self.store.lock();
            let newest = state.index.building.last().map_or(0, |at| at.raw());
            // Not the superblock's pointer: that checkpoint may have proved
            // unreadable during recovery.
            let before = state.index.checkpoints.first().and_then(|before| before.records.last());
            let before = before.map_or(0, |at| at.raw());
            let old = &state.superblock;
            Superblock { epoch: old.epoch + 1, checkpoints: [newest, before], ..old.clone() }
        };
        self.context.write_superblock(&superblock, &turn).await?;
        let mut state = self.store.lock();
        let len = state.index.building.iter().map(|at| u64::from(at.len())).sum();
        state.index.checkpoint_done(begun);
        state.maintenance.checkpoint_len = len;
        state.segments.set_checkpoint_len(len);
        state.counters.cleaner.checkpoints += 1;
        Ok(())
    }

    async fn write_items(&self, until: u64, index: u32, items: &[u8]) -> Result<(), Error> {
        if index as usize >= checkpoint_records_max(self.store.segment_len) {
            return Err(Error::TooLarge("the index, for a checkpoint"));
        }
        self.write_record(&RecordPayload::CheckpointItems(CheckpointItems { until, index, items })).await
    }

    async fn write_record(&self, payload: &RecordPayload<'_>) -> Result<(), Error> {
        let seq = self.store.lock().numbers.record();
        let draft = Draft { seq, kind: payload.kind(), payload: payload.encode().into(), effect: Effect::Checkpoint };
        self.log.write(CommitRequest { drafts: vec![draft], relaxed: true, ..CommitRequest::default() }).await
    }
}
