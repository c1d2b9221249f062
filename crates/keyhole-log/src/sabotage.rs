//! Test hooks that break the engine on purpose, so that tests can show that they would notice. Without the feature
//! `sabotage` there is nothing of it in the program.

/// One way to break the engine.
// Exported with the feature.
#[cfg_attr(not(feature = "sabotage"), allow(unreachable_pub, dead_code))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "sabotage"), expect(unreachable_pub))]
pub enum Sabotage {
    /// Syncs report success without being made.
    SkipSync,
    /// Checksums of records and blocks are not compared.
    IgnoreCrc,
    /// What identifies a record or a block (generation of its segment, offset, and which block of which body) is not compared.
    IgnoreGeneration,
    /// A segment of which nothing is of use is used again at once, not after the checkpoints that make its records useless:
    /// deletions in it are forgotten while they are still needed.
    DropTombstoneEarly,
    /// A write is acknowledged before what lies ahead of it is durable.
    AcknowledgeEarly,
    /// A durable write is taken to make durable what lies ahead of it, too.
    TrustWrites,
    /// What a sync covers is noted when it has completed, in place of before.
    NoteLate,
    /// The lock is let go between the decision of a condition and the reservation of the name.
    ReserveLate,
    /// A deletion does not outlive its own arrival in the index, although older writes of the name are on their way.
    ForgetDeletions,
}

#[cfg(feature = "sabotage")]
mod hook {
    use super::Sabotage;
    use std::cell::Cell;

    thread_local! {
        static MODE: Cell<Option<Sabotage>> = const { Cell::new(None) };
    }

    /// Breaks the engine in this way, on this thread, until told otherwise.
    pub fn sabotage(mode: Option<Sabotage>) {
        MODE.set(mode);
    }

    pub(crate) fn is(mode: Sabotage) -> bool {
        MODE.get() == Some(mode)
    }
}

#[cfg(not(feature = "sabotage"))]
mod hook {
    use super::Sabotage;

    pub(crate) const fn is(_: Sabotage) -> bool {
        false
    }
}

pub(crate) use hook::is;
#[cfg(feature = "sabotage")]
pub use hook::sabotage;
