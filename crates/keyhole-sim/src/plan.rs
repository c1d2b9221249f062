//! What a life is like, by its seed.

use keyhole_log::limits::{SEGMENT_LEN_MIN, SEGMENTS_START};
use keyhole_log::{Format, OpenOptions, Sync};

use crate::disk::Faults;
use crate::random::Random;

/// What a life is like.
#[derive(Debug, Clone)]
pub struct Plan {
    /// When writes are acknowledged.
    pub sync: Sync,
    /// Workers.
    pub workers: usize,
    /// Clients, which share the workers.
    pub clients: u64,
    /// Operations of each client between two crashes, at most.
    pub operations: u64,
    /// Segments that the capacity has room for.
    pub segments: u64,
    /// Bytes of a segment.
    pub segment_len: u64,
    /// Longest body.
    pub body_max: u64,
    /// Requests of 100 that are given up after a while.
    pub impatience: u64,
    /// What goes wrong.
    pub faults: Faults,
    /// Events of the disk until a crash, at most.
    pub crash_within: u64,
    /// Whether there are checkpoints and a cleaner.
    pub maintained: bool,
    /// Whether something on the medium is damaged at the end of this life.
    pub damage: bool,
}

impl Plan {
    /// That of a seed.
    pub fn of(random: &mut Random) -> Self {
        let workers = 1 + random.below(3) as usize;
        Plan {
            sync: if random.chance(25) { Sync::Deferred } else { Sync::Always },
            workers,
            clients: 1 + random.below(5),
            operations: 30 + random.below(60),
            segments: 2 * workers as u64 + 2 + random.below(20),
            segment_len: SEGMENT_LEN_MIN,
            body_max: *random.pick(&[300_000, 1 << 20, (1 << 20) + 5000, 2_200_000]),
            impatience: *random.pick(&[0, 0, 5, 20]),
            faults: Faults::of(random),
            crash_within: *random.pick(&[30, 80, 160, 320]),
            maintained: random.chance(85),
            damage: random.chance(25),
        }
    }

    /// How the file is made.
    pub fn format(&self) -> Format {
        let capacity = SEGMENTS_START + self.segments * self.segment_len;
        Format { store_id: [0x5a; 16], capacity, segment_len: self.segment_len, created_ms: 1 }
    }

    /// How the file is opened.
    pub fn options(&self) -> OpenOptions {
        OpenOptions { sync: self.sync, workers: self.workers, capacity: None, ring: false, rebuild: false }
    }
}
