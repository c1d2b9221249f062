//! What a life is like, by its seed.

use keyhole_log::limits::{INLINE_MAX, SEGMENT_LEN_MIN, SEGMENTS_FIXED, SEGMENTS_PER_WORKER, SEGMENTS_START};
use keyhole_log::{Format, OpenOptions, Sync};

use crate::disk::Faults;
use crate::random::Random;

/// Lives of 100 whose store is small and nearly full, and that are rings.
const UNDER_PRESSURE: u64 = 35;
const RINGS: u64 = 6;

/// Segments that a store with so many workers needs, so that there is room to clean in.
const fn room_to_clean(workers: usize) -> u64 {
    SEGMENTS_FIXED + SEGMENTS_PER_WORKER * workers as u64
}

/// Bytes of a segment: blocks are cut at its end.
const SEGMENT_LEN: u64 = 2 << 20;

/// Lives of 100 whose segments are as short as can be, and four times as many.
const SHORT_SEGMENTS: u64 = 30;

/// What bodies are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bodies {
    /// Most of them short, some long: up to this.
    Mixed(u64),
    /// Most of them have blocks: they fill the store.
    Medium(u64),
    /// All have this length.
    Same(u64),
}

impl Bodies {
    /// The longest.
    pub fn most(self) -> u64 {
        match self {
            Bodies::Mixed(most) => most.max(INLINE_MAX as u64 + 200_000),
            Bodies::Medium(most) => INLINE_MAX as u64 + most,
            Bodies::Same(len) => len,
        }
    }

    /// The length of the next one.
    pub fn pick(self, random: &mut Random) -> u64 {
        let inline = INLINE_MAX as u64;
        match (self, random.below(100)) {
            (Bodies::Same(len), _) => len,
            (_, 0..=4) => 0,
            (Bodies::Medium(_), 5..=14) => random.below(4000),
            (Bodies::Medium(most), _) => inline + random.below(most),
            (_, 5..=54) => random.below(4000),
            (_, 55..=74) => random.below(inline + 1),
            (_, 75..=79) => inline + random.below(2),
            (_, 80..=93) => inline + random.below(200_000),
            (Bodies::Mixed(most), _) => random.below(most),
        }
    }
}

/// What lives are to be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Focus {
    /// Something on the medium is damaged in the end.
    Damage,
    /// Power failures in a store that is cleaned all the time.
    Cleaning,
    /// The same, where one block fits in the place of another.
    Reuse,
}

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
    /// Operations of a life, at least.
    pub operations_min: u64,
    /// Segments that the capacity has room for.
    pub segments: u64,
    /// Bytes of a segment.
    pub segment_len: u64,
    /// What bodies are like.
    pub bodies: Bodies,
    /// Requests of 100 that are given up after a while.
    pub impatience: u64,
    /// What goes wrong.
    pub faults: Faults,
    /// Events of the disk until a crash, at most.
    pub crash_within: u64,
    /// Whether there are checkpoints and a cleaner.
    pub maintained: bool,
    /// Whether the oldest objects are dropped when there is no other way to make room.
    pub ring: bool,
    /// Whether buckets have quotas and their objects expire.
    pub settings: bool,
    /// Whether something on the medium is damaged at the end of this life.
    pub damage: bool,
    /// Whether everything is deleted at the end of this life, and the store filled again.
    pub emptied: bool,
}

impl Plan {
    /// That of a seed.
    pub fn of(random: &mut Random) -> Self {
        let workers = 1 + random.below(3) as usize;
        let mut plan = Plan {
            sync: if random.chance(25) { Sync::Deferred } else { Sync::Always },
            workers,
            clients: 1 + random.below(5),
            operations: 30 + random.below(60),
            operations_min: 200,
            segments: room_to_clean(workers) + random.below(14),
            segment_len: SEGMENT_LEN,
            bodies: Bodies::Mixed(*random.pick(&[300_000, 1 << 20, (1 << 20) + 5000, 2_200_000])),
            impatience: *random.pick(&[0, 0, 5, 20]),
            faults: Faults::of(random),
            crash_within: *random.pick(&[30, 80, 160, 320]),
            maintained: random.chance(85),
            ring: false,
            settings: random.chance(30),
            damage: random.chance(25),
            emptied: random.chance(20),
        };
        if random.chance(UNDER_PRESSURE) {
            plan.press(random);
        } else if random.chance(RINGS) {
            plan.press(random);
            // What is on its way is not to be dropped: there has to be room for it.
            plan.segments += 2 * plan.clients + 4;
            (plan.ring, plan.settings, plan.damage, plan.emptied) = (true, false, false, false);
        }
        if random.chance(SHORT_SEGMENTS) {
            plan.segments *= SEGMENT_LEN / SEGMENT_LEN_MIN;
            plan.segment_len = SEGMENT_LEN_MIN;
        }
        plan
    }

    /// A store that is small and nearly full.
    fn press(&mut self, random: &mut Random) {
        self.maintained = true;
        self.segments = room_to_clean(self.workers) + random.below(5);
        self.operations = 80 + random.below(120);
        self.operations_min = 500;
        self.bodies = Bodies::Medium(*random.pick(&[200_000, 500_000, 900_000]));
        self.crash_within = *random.pick(&[160, 500, 1500, 4000]);
    }

    /// Makes it a life that is about something.
    pub fn focus(&mut self, focus: Focus, random: &mut Random) {
        match focus {
            Focus::Damage => self.damage = true,
            Focus::Cleaning => self.press(random),
            Focus::Reuse => {
                self.press(random);
                self.bodies = Bodies::Same(INLINE_MAX as u64 + 100_000);
            }
        }
    }

    /// Whether there is room to clean in: then space that nobody uses can always be used again.
    pub fn has_room_to_clean(&self) -> bool {
        self.maintained && self.segments >= room_to_clean(self.workers)
    }

    /// How the file is made.
    pub fn format(&self) -> Format {
        let capacity = SEGMENTS_START + self.segments * self.segment_len;
        Format { store_id: [0x5a; 16], capacity, segment_len: self.segment_len, created_ms: 1 }
    }

    /// How the file is opened.
    pub fn options(&self) -> OpenOptions {
        OpenOptions { sync: self.sync, workers: self.workers, capacity: None, ring: self.ring, rebuild: false }
    }
}
