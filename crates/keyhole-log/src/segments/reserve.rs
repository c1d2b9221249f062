//! Segments held in reserve for deletions, the cleaner and checkpoints.

use crate::limits::{CLEAN_RESERVE, CLEAN_SLACK, CLEAN_SMALL_LESS, CLEAN_SMALL_MIN, CLEAN_SMALL_SHARE};

/// Numbers of segments held in reserve when the rest of the store is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reserve {
    /// Reserve for deletions.
    pub(crate) deletions: u64,
    /// Reserve for the cleaner and for checkpoints.
    pub(crate) cleaner: u64,
    /// Reserve for cleaned segments until they are freed: blank or condemned.
    pub(crate) waiting: u64,
    /// Slack that may hold dead bytes, but no live ones.
    pub(crate) slack: u64,
    /// Part of the cleaner's reserve that others must leave: enough to move a segment and to write
    /// the checkpoints that free it.
    pub(super) least: u64,
    /// Part of the deletions' reserve for the checkpoints that free what they delete.
    pub(super) checkpoints: u64,
}

impl Reserve {
    /// Computes the reserve for a store of at most `most` segments. A checkpoint may take
    /// `checkpoint` bytes.
    pub(super) fn of(most: u64, workers: u64, checkpoint: u64, len: u64) -> Self {
        // The checkpoints that free deleted space: while two more are written,
        // the previous ones remain.
        let checkpoints = (checkpoint * 9 / 2).div_ceil(len).max(1).min(most / 4);
        // One more than the workers: a segment full of tombstones is freed only after its worker
        // has begun another.
        let deletions = (workers + 1).min(most / 4) + checkpoints;
        // One segment of each kind being filled, and one more of each so that cleaning continues
        // while cleaned segments wait for a checkpoint. Then two checkpoints, with the space they
        // waste at the ends of segments.
        let cleaner = (4 + (checkpoint * 9 / 4).div_ceil(len)).min(most / 4);
        let least = (2 + (checkpoint * 5 / 2).div_ceil(len)).min(cleaner);
        let waiting = Reserve::share(most, CLEAN_RESERVE);
        let slack = Reserve::share(most, CLEAN_SLACK);
        Reserve { deletions, cleaner, waiting, slack, least, checkpoints }
    }

    /// Returns one of `one_of` segments; less in stores of under 240 segments, where the fixed
    /// reserves are a large share.
    fn share(most: u64, one_of: u64) -> u64 {
        let small = (most / CLEAN_SMALL_SHARE).saturating_sub(CLEAN_SMALL_LESS).max(CLEAN_SMALL_MIN);
        (most / one_of).min(small)
    }

    /// Returns the segments to keep blank and allocated.
    pub(super) fn blank(self) -> u64 {
        self.deletions + self.cleaner
    }

    /// Returns the segments to keep blank or waiting to be freed.
    pub(super) fn unfilled(self) -> u64 {
        self.blank() + self.waiting
    }

    pub(crate) fn total(self) -> u64 {
        self.unfilled() + self.slack
    }
}
