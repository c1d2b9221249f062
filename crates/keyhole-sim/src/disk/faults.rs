//! What goes wrong with a medium, and how often.

use super::space::FileSystem;
use crate::random::Random;

/// Bytes of a write that survive, or do not, together; each life has one of these. FORMAT.md assumes no size.
const TEARS: [usize; 5] = [8, 64, 512, 512, 4096];

/// File systems of lives: the plain ones more often.
const FILE_SYSTEMS: [FileSystem; 6] = {
    use FileSystem::{Btrfs, Ext4, NoExtents, Xfs};
    [Ext4, Ext4, Xfs, Xfs, Btrfs, NoExtents]
};

/// Operations for which a neighbour leaves a file system as it is, at most; each life has one of these.
const NEIGHBOURS: [u64; 4] = [20, 100, 400, 2000];

/// Rates of faults in 10,000 operations, and what the medium is like.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Virtual time that an operation takes at most; now and then it takes fifty times as long.
    pub slowness: u64,
    /// A read fails; the next one of the same bytes does not.
    pub read: u64,
    /// A write fails: what it covered is unknown until something else is written there.
    pub write: u64,
    /// A sync fails: what it covered is lost in part, at the latest when power fails.
    pub sync: u64,
    /// An allocation fails, not for want of space.
    pub allocate: u64,
    /// How the file system gives space.
    pub file_system: FileSystem,
    /// Operations for which others leave the file system full, or not full, at most. 0: there is always space.
    pub neighbour: u64,
    /// Others take what becomes free in a full file system at once.
    pub greedy: bool,
    /// The file system can make holes in a file: then space that was given back may not be had again.
    pub holes: bool,
    /// An allocation that was not answered, or that failed for want of space, may make the file longer by any number of pages.
    pub half_grown: bool,
    /// A write heals pages that could not be read, as flash does that has spare blocks.
    pub heals: bool,
    /// Space that was never written is not zero.
    pub dirty: bool,
    /// What the disk says and does not do, which no engine withstands: to see that the simulation finds it.
    pub lie: Option<Lie>,
    /// Bytes that survive of a write, or do not, together: a power of two.
    pub tear: usize,
}

impl Faults {
    /// None: for what is not to be disturbed.
    pub fn none() -> Self {
        Faults { tear: 512, heals: true, ..Faults::default() }
    }

    /// Those of a life.
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
        // A medium that takes a write to a bad sector and cannot read it back loses what was acknowledged: nothing withstands that.
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

/// What a disk may claim to have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// A sync that was done.
    Sync,
    /// Every hundredth write.
    Write,
    /// A sync that was done for half of what it covered.
    PartOfSync,
}

/// How the machine stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process dies: what it has written stays in the cache, and is still not durable.
    Process,
    /// Power fails: of what was not synced some survives.
    Power(Survival),
}

/// What survives of the writes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// Nothing.
    Nothing,
    /// Everything.
    Everything,
    /// Of each write everything or nothing.
    Writes,
    /// Of each write any part.
    Parts,
    /// Each write: whole, not at all, or in part.
    Mixed,
    /// The later writes rather than the earlier ones.
    Latest,
}

impl Crash {
    /// By the seed.
    pub fn of(random: &mut Random) -> Self {
        use Survival::{Everything, Latest, Mixed, Nothing, Parts, Writes};
        if random.chance(25) {
            return Crash::Process;
        }
        Crash::power(random, &[Nothing, Everything, Writes, Writes, Parts, Mixed, Mixed, Latest])
    }

    /// Power fails, by the seed.
    pub fn power(random: &mut Random, survivals: &[Survival]) -> Self {
        Crash::Power(*random.pick(survivals))
    }
}
