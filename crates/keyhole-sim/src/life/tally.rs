//! What lives have come to, in numbers.

/// What lives have come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Lives.
    pub lives: u64,
    /// Operations of clients.
    pub operations: u64,
    /// Events of disks.
    pub events: u64,
    /// Times that a file was opened.
    pub openings: u64,
    /// Crashes.
    pub crashes: u64,
    /// Crashes while the file was opened.
    pub in_recovery: u64,
    /// Crashes while something was written.
    pub in_commit: u64,
    /// Crashes while a checkpoint was made.
    pub in_checkpoint: u64,
    /// Crashes while segments were cleaned.
    pub in_cleaning: u64,
    /// Checkpoints that were completed.
    pub checkpoints: u64,
    /// Segments that were cleaned.
    pub cleaned: u64,
    /// Segments that became blank.
    pub freed: u64,
    /// Segments whose space was given back.
    pub discarded: u64,
    /// Processes that ended because the disk had failed.
    pub failures: u64,
    /// Processes that ended in order.
    pub orderly: u64,
    /// Lives at whose end something was damaged.
    pub damaged: u64,
    /// Those of them of which no checkpoint could be read.
    pub rebuilt: u64,
    /// A number that follows from everything that happened: the same seed gives the same.
    pub trace: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.lives += other.lives;
        self.operations += other.operations;
        self.events += other.events;
        self.openings += other.openings;
        self.crashes += other.crashes;
        self.in_recovery += other.in_recovery;
        self.in_commit += other.in_commit;
        self.in_checkpoint += other.in_checkpoint;
        self.in_cleaning += other.in_cleaning;
        self.checkpoints += other.checkpoints;
        self.cleaned += other.cleaned;
        self.freed += other.freed;
        self.discarded += other.discarded;
        self.failures += other.failures;
        self.orderly += other.orderly;
        self.damaged += other.damaged;
        self.rebuilt += other.rebuilt;
        self.trace = self.trace.wrapping_mul(31).wrapping_add(other.trace);
    }
}
