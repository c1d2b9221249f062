//! Faults of a medium and their rates.

use crate::random::Random;

/// Units in which a write is torn, in bytes; one is chosen per life. FORMAT.md assumes no size.
const TEARS: [usize; 5] = [8, 64, 512, 512, 4096];

/// How a file system allocates space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FileSystem {
    /// An allocation takes space where the file has none, and guarantees later writes.
    #[default]
    Ext4,
    /// Like `Ext4`, but an allocation needs free space for its whole range, even where the file
    /// already has space.
    Xfs,
    /// Copy on write: an allocation guarantees nothing, and a write may fail for lack of space.
    Btrfs,
    /// No preallocation (ext2, ext3, FUSE, NFS): the file only becomes longer. A write into a hole
    /// takes space or fails.
    NoExtents,
}

/// File systems of lives, weighted towards the plain ones.
const FILE_SYSTEMS: [FileSystem; 6] = {
    use FileSystem::{Btrfs, Ext4, NoExtents, Xfs};
    [Ext4, Ext4, Xfs, Xfs, Btrfs, NoExtents]
};

/// Maximum number of operations between two changes by a neighbour; one is chosen per life.
const NEIGHBOURS: [u64; 4] = [20, 100, 400, 2000];

/// The rate of a fault that every operation has.
pub const ALWAYS: u64 = 10_000;

/// Fault rates per 10,000 operations and properties of the medium.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Maximum virtual duration of an operation; a rare one takes fifty times as long.
    pub slowness: u64,
    /// A read fails; a repetition succeeds.
    pub read: u64,
    /// A write fails: its range has unknown content until the next write there.
    pub write: u64,
    /// A sync or the sync of a durable write fails: what it covered is partly lost, at the latest at a
    /// power failure.
    pub sync: u64,
    /// An allocation fails with an error other than lack of space.
    pub allocate: u64,
    /// How the file system allocates space.
    pub file_system: FileSystem,
    /// Maximum number of operations between two changes by a neighbour that fills and frees the
    /// file system. 0: there is always space.
    pub neighbour: u64,
    /// Whether neighbours immediately take space that becomes free in a full file system.
    pub greedy: bool,
    /// Whether the file system can punch holes: returned space may then be lost to neighbours.
    pub holes: bool,
    /// Whether the file system reports which pages have space and which were written. A write into a
    /// hole of a file system that promises space is then a mistake of the engine.
    pub extents: bool,
    /// Whether allocations wait.
    pub hold_allocations: bool,
    /// Whether an unanswered allocation, or one that failed for lack of space, may extend the file
    /// by any number of pages.
    pub half_grown: bool,
    /// Whether a write repairs unreadable pages, as flash with spare blocks does.
    pub heals: bool,
    /// Whether space that was never written has arbitrary content.
    pub dirty: bool,
    /// An operation that the disk acknowledges without doing it. No engine survives that: it tests
    /// the simulation.
    pub lie: Option<Lie>,
    /// Unit in which a write is torn, in bytes: a power of two.
    pub tear: usize,
}

impl Faults {
    /// Returns settings without faults.
    pub fn none() -> Self {
        Faults { tear: 512, heals: true, ..Faults::default() }
    }

    /// Chooses the faults of a life.
    pub fn of(random: &mut Random) -> Self {
        let mut sometimes = |percent, rate| if random.chance(percent) { rate } else { 0 };
        let mut faults = Faults {
            read: sometimes(25, 30),
            write: sometimes(12, 40),
            sync: sometimes(12, 100),
            allocate: sometimes(5, 500),
            neighbour: sometimes(20, 1),
            ..Faults::none()
        };
        faults.neighbour *= *random.pick(&NEIGHBOURS);
        // A medium that accepts a write to a bad sector and cannot read it back loses acknowledged
        // data, which no engine survives.
        faults.heals = true;
        faults.file_system = *random.pick(&FILE_SYSTEMS);
        faults.holes = random.chance(70);
        faults.greedy = random.chance(50);
        faults.slowness = *random.pick(&[0, 1, 3, 10, 100]);
        faults.dirty = random.chance(30);
        faults.tear = *random.pick(&TEARS);
        faults.half_grown = random.chance(50);
        faults
    }
}

/// Operations that a disk falsely acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Syncs.
    Sync,
    /// Every hundredth write.
    Write,
    /// Half of the changes that a sync covers.
    PartOfSync,
}

/// How the machine stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process dies: completed writes stay in the cache and are still not durable.
    Process,
    /// Power fails: some of the unsynced writes survive.
    Power(Survival),
}

/// The unsynced writes that survive a power failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// Nothing.
    Nothing,
    /// Everything.
    Everything,
    /// Each write survives entirely or not at all.
    Writes,
    /// Any part of each write.
    Parts,
    /// Each write survives entirely, in part or not at all.
    Mixed,
    /// Later writes more probably than earlier ones.
    Latest,
    /// Exactly these changes.
    Chosen(Survivors),
}

/// A choice of the unsynced changes, by their numbers in the order of submission: bit `n` of each
/// field stands for change `n`. Allocations have no parts and survive only as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Survivors {
    /// Changes that survive as a whole.
    pub whole: u64,
    /// Writes of which the first half survives.
    pub beginnings: u64,
    /// Writes of which the second half survives.
    pub ends: u64,
}

impl Survivors {
    /// Returns whether a change survives as a whole.
    pub(super) fn has_whole(&self, change: u64) -> bool {
        is_set(self.whole, change)
    }

    /// Returns whether any part of a change survives.
    pub(super) fn has_any(&self, change: u64) -> bool {
        is_set(self.whole | self.beginnings | self.ends, change)
    }

    /// Returns whether one of the `units` of a write survives.
    pub(super) fn has_unit(&self, change: u64, unit: usize, units: usize) -> bool {
        let half = if unit < units / 2 { self.beginnings } else { self.ends };
        is_set(self.whole | half, change)
    }
}

impl std::fmt::Display for Survivors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "whole {:#b}, beginnings {:#b}, ends {:#b}", self.whole, self.beginnings, self.ends)
    }
}

/// Returns whether bit `n` is set.
fn is_set(bits: u64, n: u64) -> bool {
    n < u64::from(u64::BITS) && bits & 1 << n != 0
}

impl Crash {
    /// Chooses a kind of crash.
    pub fn of(random: &mut Random) -> Self {
        use Survival::{Everything, Latest, Mixed, Nothing, Parts, Writes};
        if random.chance(25) {
            return Crash::Process;
        }
        Crash::power(random, &[Nothing, Everything, Writes, Writes, Parts, Mixed, Mixed, Latest])
    }

    /// Chooses a kind of power failure.
    pub fn power(random: &mut Random, survivals: &[Survival]) -> Self {
        Crash::Power(*random.pick(survivals))
    }
}
