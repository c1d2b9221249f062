//! Events of lives.

/// Events of a life.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) crashes: u64,
    pub(crate) versions: u64,
    pub(crate) outages: u64,
    pub(crate) lost: u64,
    pub(crate) deleted: u64,
    pub(crate) evicted: u64,
    /// Evicted objects that were read, and those that could not be.
    pub(crate) read: u64,
    pub(crate) unread: u64,
    pub(crate) stale_reads: u64,
    /// Versions that were restored, and runs of a restore that ended early.
    pub(crate) restored: u64,
    pub(crate) interrupted: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Tally) {
        self.crashes += other.crashes;
        self.versions += other.versions;
        self.outages += other.outages;
        self.lost += other.lost;
        self.deleted += other.deleted;
        self.evicted += other.evicted;
        self.read += other.read;
        self.unread += other.unread;
        self.stale_reads += other.stale_reads;
        self.restored += other.restored;
        self.interrupted += other.interrupted;
    }
}

/// Prints an event of a life that is repeated.
pub(crate) fn say(event: impl FnOnce() -> String) {
    if std::env::var_os("KEYHOLE_SEED").is_some() {
        println!("{}", event());
    }
}
