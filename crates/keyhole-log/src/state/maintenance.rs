//! Decisions about when the maintenance has work.

use super::State;
use crate::limits::{CHECKPOINT_AFTER_MAX, CHECKPOINT_AFTER_MIN, CLEAN_AHEAD};

impl State {
    /// Returns whether a writer waits for a segment, or soon will.
    pub(crate) fn is_short(&self) -> bool {
        !self.maintenance.space.is_empty() || self.segments.spare() < CLEAN_AHEAD
    }

    /// Returns whether a checkpoint is due to free cleaned segments: enough of them wait, or
    /// writers cannot get a segment before.
    pub(crate) fn is_freeing_due(&self) -> bool {
        let segments = &self.segments;
        segments.fresh() >= segments.batch() || (segments.at_hand() == 0 && segments.waiting() > 0)
    }

    pub(crate) fn is_checkpoint_due(&self) -> bool {
        let after = (4 * self.maintenance.checkpoint_len).clamp(CHECKPOINT_AFTER_MIN, CHECKPOINT_AFTER_MAX);
        // A small file has few segments, and its checkpoints are cheap, so they are more frequent.
        let after = after.min((self.segments.capacity / 8).max(self.segments.len));
        self.maintenance.since_checkpoint > after || (self.maintenance.unsettled > 0 && self.is_changed())
    }

    /// Whether anything has been written since the newest checkpoint.
    pub(crate) fn is_changed(&self) -> bool {
        self.maintenance.since_checkpoint > 0
    }

    pub(crate) fn wake_maintenance(&mut self) {
        if let Some(asleep) = self.maintenance.asleep.take() {
            let _ = asleep.send(()); // The receiver may be gone.
        }
    }

    pub(crate) fn wake_maintenance_if_short(&mut self) {
        if (self.segments.spare() < CLEAN_AHEAD && !self.maintenance.is_stalled) || self.segments.is_unprepared() {
            self.wake_maintenance();
        }
    }

    pub(crate) fn wake_maintenance_if_due(&mut self) {
        if self.is_checkpoint_due() || (!self.maintenance.is_stalled && self.segments.spare() < CLEAN_AHEAD) {
            self.wake_maintenance();
        }
    }
}
