//! The snapshot with which a checkpoint begins.

use super::State;
use crate::wire::checkpoint::Item;
use crate::wire::superblock::VERSION_VERSIONED;

/// The snapshot taken under one lock acquisition.
pub(crate) struct BegunCheckpoint {
    pub(crate) until: u64,
    pub(crate) watermark: u64,
    pub(crate) floor: u64,
    /// Number of the checkpoint since the opening.
    pub(crate) begun: u64,
    /// The first items: segments, pending records, floors.
    pub(crate) front: Vec<Vec<u8>>,
}

impl State {
    pub(crate) fn begin_checkpoint(&mut self) -> BegunCheckpoint {
        self.condemn_dead();
        self.segments.checkpoints += 1;
        self.maintenance.since_checkpoint = 0;
        let most = self.index.checkpoint_record();
        let mut front = vec![Vec::new()];
        let pending = self.numbers.pending().map(|seq| Item::Pending { seq });
        let time_ms = self.index.saved_lock_clock_ms;
        let clock =
            (time_ms > 0 && self.superblock.version >= VERSION_VERSIONED).then_some(Item::LockClock { time_ms });
        for item in self.segments.items().map(Item::Segment).chain(pending).chain(clock) {
            if front.last().is_some_and(|items: &Vec<u8>| items.len() >= most) {
                front.push(Vec::new());
            }
            if let Some(items) = front.last_mut() {
                item.encode(items);
            }
        }
        front.append(&mut self.index.capture_floors());
        let until = self.numbers.next();
        let watermark = self.numbers.watermark();
        let floor = self.ends.iter().map(|end| end.in_flight).min().unwrap_or(watermark).min(watermark);
        BegunCheckpoint { until, watermark, floor, begun: self.segments.checkpoints, front }
    }
}
