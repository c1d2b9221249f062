//! The parameters of a life, derived from its seed.

use keyhole_log::limits::{INLINE_MAX, SEGMENT_LEN_MIN, SEGMENTS_FIXED, SEGMENTS_PER_WORKER, SEGMENTS_START};
use keyhole_log::{Durability, Format, IndexLimits, OpenOptions};

use crate::disk::{Faults, FileSystem};
use crate::random::Random;

/// Percentage of lives with a small and nearly full store, and of lives with a ring.
const UNDER_PRESSURE: u64 = 35;
const RINGS: u64 = 6;

/// Returns the number of segments that a store with this many workers needs to have room for
/// cleaning.
const fn room_to_clean(workers: usize) -> u64 {
    SEGMENTS_FIXED + SEGMENTS_PER_WORKER * workers as u64
}

/// Bytes of a segment: blocks are cut at its end.
const SEGMENT_LEN: u64 = 2 << 20;

/// Percentage of lives with minimum-length segments, four times as many.
const SHORT_SEGMENTS: u64 = 30;

/// Maximum number of workers of an opening.
const WORKERS_MOST: u64 = 3;

/// Distribution of body lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bodies {
    /// Mostly short, with some long ones up to this length.
    Mixed(u64),
    /// Mostly long enough for blocks, to fill the store; up to this length.
    Medium(u64),
    /// All of this length.
    Same(u64),
}

impl Bodies {
    /// Returns the maximum length.
    pub fn most(self) -> u64 {
        match self {
            Bodies::Mixed(most) => most.max(INLINE_MAX as u64 + 200_000),
            Bodies::Medium(most) => INLINE_MAX as u64 + most,
            Bodies::Same(len) => len,
        }
    }

    /// Picks the length of the next body.
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

/// The focus of lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Focus {
    /// Damage of the medium at the end.
    Damage,
    /// Power failures in a store that is cleaned all the time.
    Cleaning,
    /// Like `Cleaning`, with blocks of equal length, so that each fits in the place of another.
    Reuse,
    /// Bad sectors.
    BadSectors,
    /// Unwritable places.
    Unwritable,
    /// Neighbours that fill a file system of this kind and free it again.
    Space(FileSystem),
    /// Versions and locks.
    Versions,
}

/// The parameters of a life.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Durability of acknowledged writes.
    pub durability: Durability,
    /// Number of workers.
    pub workers: usize,
    /// Number of clients, which share the workers.
    pub clients: u64,
    /// Maximum number of operations of each client between two crashes.
    pub operations: u64,
    /// Minimum number of operations of a life.
    pub operations_min: u64,
    /// Capacity in segments.
    pub segments: u64,
    /// Bytes of a segment.
    pub segment_len: u64,
    /// Distribution of body lengths.
    pub bodies: Bodies,
    /// Percentage of requests that are abandoned after a while.
    pub impatience: u64,
    /// Faults of the medium.
    pub faults: Faults,
    /// Maximum number of disk events until a crash.
    pub crash_within: u64,
    /// Whether there are checkpoints and a cleaner.
    pub maintained: bool,
    /// Whether the oldest objects are dropped when there is no other way to free space.
    pub ring: bool,
    /// Whether buckets have quotas and expiring objects.
    pub settings: bool,
    /// Whether the newest checkpoint is damaged occasionally.
    pub spoils: bool,
    /// Whether sectors become bad that hold nothing, or old bodies and objects.
    pub rots: bool,
    /// Whether places become unwritable.
    pub wears: bool,
    /// Whether the medium occasionally becomes read-only for the rest of a session.
    pub read_only: bool,
    /// Whether the medium is damaged at the end of this life.
    pub damage: bool,
    /// Whether workers, durability and capacity change between openings.
    pub varies: bool,
    /// Whether the clock passed to the log jumps.
    pub clock_jumps: bool,
    /// Whether everything is deleted at the end of this life and the store filled again.
    pub emptied: bool,
    /// Percentage of operations on versions and locks.
    pub versions: u64,
    /// Whether some writes have conditions.
    pub conditions: bool,
}

impl Plan {
    /// Chooses the parameters of a life.
    pub fn of(random: &mut Random) -> Self {
        let workers = 1 + random.below(3) as usize;
        let mut plan = Plan {
            durability: if random.chance(25) { Durability::Deferred } else { Durability::Always },
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
            spoils: random.chance(15),
            rots: random.chance(20),
            wears: random.chance(5),
            read_only: random.chance(10),
            varies: random.chance(40),
            clock_jumps: random.chance(30),
            emptied: random.chance(20),
            versions: *random.pick(&[0, 0, 20, 50]),
            conditions: true,
        };
        if random.chance(UNDER_PRESSURE) {
            plan.press(random);
        } else if random.chance(RINGS) {
            plan.press(random);
            // Bodies in flight must not be dropped, so they need room of their own.
            plan.segments += 2 * plan.clients + 4;
            plan.ring = true;
            plan.settings = false;
            plan.damage = false;
            plan.emptied = false;
        }
        if random.chance(SHORT_SEGMENTS) {
            plan.segments *= SEGMENT_LEN / SEGMENT_LEN_MIN;
            plan.segment_len = SEGMENT_LEN_MIN;
        }
        plan
    }

    /// Returns the parameters of a life of one client on a sound medium, whose operations come from
    /// a script.
    pub fn scripted(durability: Durability, maintained: bool) -> Self {
        Plan {
            durability,
            workers: 1,
            clients: 1,
            operations: 0,
            operations_min: 0,
            segments: room_to_clean(1),
            segment_len: SEGMENT_LEN_MIN,
            bodies: Bodies::Same(0),
            impatience: 0,
            faults: Faults::none(),
            crash_within: 0,
            maintained,
            ring: false,
            settings: false,
            spoils: false,
            rots: false,
            wears: false,
            read_only: false,
            damage: false,
            varies: false,
            clock_jumps: false,
            emptied: false,
            versions: 0,
            conditions: false,
        }
    }

    /// Makes the store small and nearly full.
    fn press(&mut self, random: &mut Random) {
        self.maintained = true;
        self.segments = room_to_clean(self.workers) + random.below(5);
        self.operations = 80 + random.below(120);
        self.operations_min = 500;
        self.bodies = Bodies::Medium(*random.pick(&[200_000, 500_000, 900_000]));
        self.crash_within = *random.pick(&[160, 500, 1500, 4000]);
    }

    /// Sets the focus of the life.
    pub fn focus(&mut self, focus: Focus, random: &mut Random) {
        match focus {
            Focus::Damage => self.damage = true,
            Focus::Cleaning => self.press(random),
            Focus::Reuse => {
                self.press(random);
                self.bodies = Bodies::Same(INLINE_MAX as u64 + 100_000);
            }
            Focus::BadSectors => {
                self.rots = true;
                self.damage = true;
                if random.chance(60) {
                    self.press(random);
                }
                // A ring drops objects, which the audit of damage does not expect.
                self.damage &= !self.ring;
            }
            Focus::Unwritable => self.wears = true,
            Focus::Versions => self.versions = 80,
            Focus::Space(file_system) => {
                let neighbour = *random.pick(&[20, 100, 400, 2000]);
                let greedy = random.chance(70);
                self.faults = Faults { file_system, neighbour, greedy, holes: true, ..self.faults.clone() };
                if random.chance(60) {
                    self.press(random);
                }
            }
        }
    }

    /// Returns the options for the creation of the file.
    pub fn format(&self) -> Format {
        let capacity = SEGMENTS_START + self.segments * self.segment_len;
        Format { store_id: [0x5a; 16], capacity, segment_len: self.segment_len, created_ms: 1 }
    }

    /// Returns the options for an opening as planned.
    pub fn opening(&self) -> Opening {
        Opening { durability: self.durability, workers: self.workers, capacity: None, segments: self.segments }
    }

    /// Returns the options of the next opening: workers, durability and capacity may vary. The
    /// capacity is never below the planned one.
    pub fn next_opening(&self, random: &mut Random) -> Opening {
        let mut opening = self.opening();
        if !self.varies {
            return opening;
        }
        if random.chance(50) {
            opening.workers = 1 + random.below(WORKERS_MOST) as usize;
        }
        if random.chance(30) {
            opening.durability = *random.pick(&[Durability::Always, Durability::Deferred]);
        }
        if random.chance(30) {
            opening.capacity = Some(SEGMENTS_START + (self.segments + random.below(6)) * self.segment_len);
        }
        opening
    }
}

/// Options of an opening, which may differ each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// Durability of acknowledged writes.
    pub durability: Durability,
    /// Number of workers.
    pub workers: usize,
    /// The requested capacity.
    pub capacity: Option<u64>,
    /// Capacity of the file in segments.
    pub segments: u64,
}

impl Opening {
    /// Returns the options for the log.
    pub fn options(&self, ring: bool, nonce: u32) -> OpenOptions {
        let rebuild = false;
        let read_only = None;
        OpenOptions {
            durability: self.durability,
            workers: self.workers,
            capacity: self.capacity,
            ring,
            index_limits: IndexLimits::default(),
            nonce,
            rebuild,
            read_only,
        }
    }

    /// Returns whether there is room for cleaning, so that unused space can always be reclaimed.
    pub fn has_room_to_clean(&self) -> bool {
        self.segments >= room_to_clean(self.workers)
    }
}
