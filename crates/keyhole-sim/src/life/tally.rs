//! Statistics of lives.

/// Totals over lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Lives.
    pub lives: u64,
    /// Operations of clients.
    pub operations: u64,
    /// Events of disks.
    pub events: u64,
    /// Openings of a file.
    pub openings: u64,
    /// Crashes.
    pub crashes: u64,
    /// Crashes during an opening.
    pub in_recovery: u64,
    /// Crashes during a write.
    pub in_commit: u64,
    /// Crashes during a checkpoint.
    pub in_checkpoint: u64,
    /// Crashes during cleaning.
    pub in_cleaning: u64,
    /// Completed checkpoints.
    pub checkpoints: u64,
    /// Cleaned segments.
    pub cleaned: u64,
    /// Segments that became blank.
    pub freed: u64,
    /// Segments whose space was returned to the file system.
    pub discarded: u64,
    /// Processes that ended because of a disk failure.
    pub failures: u64,
    /// Orderly shutdowns.
    pub orderly: u64,
    /// Lives that ended with damage.
    pub damaged: u64,
    /// Lives among them without a readable checkpoint.
    pub rebuilt: u64,
    /// A hash of all events: equal seeds give equal traces.
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
