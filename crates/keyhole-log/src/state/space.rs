//! Space: whether writes are accepted, waiting for segments, and pins of segments.

use futures_channel::oneshot;

use super::State;
use crate::segments::Use;
use crate::wire::payload::HOLD_REMOVAL_LEN;

impl State {
    /// Returns whether the limit on live bytes is reached. Cleaning then gains nothing for writes
    /// that add data. In ring mode the oldest objects are dropped instead. The records that remove legal
    /// holds count in advance: a store full of held versions could not be emptied otherwise.
    pub(crate) fn is_full(&self) -> bool {
        let promised = self.index.totals.own_holds * HOLD_REMOVAL_LEN as u64;
        !self.maintenance.ring && self.index.live.total() + promised >= self.segments.live_max()
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

    /// Waits for a segment that is being prepared. `None`: there is none.
    pub(crate) fn wait_for_withdrawn(&mut self) -> Option<oneshot::Receiver<()>> {
        if !self.segments.has_withdrawn() {
            return None;
        }
        Some(self.wait_in_line())
    }

    /// Waits until a segment is free or until none can be freed. `None`: none can be freed.
    pub(crate) fn wait_for_space(&mut self) -> Option<oneshot::Receiver<()>> {
        if !self.maintenance.running || self.maintenance.is_stalled {
            return None;
        }
        self.wake_maintenance();
        Some(self.wait_in_line())
    }

    pub(crate) fn wait_in_line(&mut self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.maintenance.space.push(sender);
        receiver
    }

    /// Wakes the writers that wait for a segment.
    pub(crate) fn wake_space(&mut self) {
        for waiting in self.maintenance.space.drain(..) {
            let _ = waiting.send(()); // The receiver may be gone.
        }
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
}
