//! Test hooks that break the engine on purpose, so that tests can prove that they detect it.
//! Compiled out without the feature `sabotage`.

/// A way to break the engine.
// Exported only with the feature.
#[cfg_attr(not(feature = "sabotage"), allow(unreachable_pub, dead_code))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "sabotage"), expect(unreachable_pub))]
pub enum Sabotage {
    /// Syncs report success without taking place.
    SkipSync,
    /// Checksums of records and blocks are not verified.
    IgnoreCrc,
    /// Identities of records and blocks (segment generation, offset, body and block
    /// index) are not verified.
    IgnoreGeneration,
    /// A dead segment is reused at once, instead of after the checkpoints that cover its records:
    /// its tombstones are lost while they are still needed.
    DropTombstoneEarly,
    /// A write is acknowledged before the bytes that precede it are durable.
    AcknowledgeEarly,
    /// A durable write counts as making the bytes that precede it durable.
    TrustWrites,
    /// The coverage of a sync is noted when it completes instead of when it starts.
    NoteLate,
    /// The lock is released between the decision of a condition and the reservation of the name.
    ReserveLate,
    /// A legal hold is forgotten at recovery.
    ForgetHolds,
    /// A delete marker counts as an object.
    ShowMarkers,
    /// The deletion of a current version frees the bodies of the next older one as well.
    FreeNoncurrent,
    /// The bodies of a version are evicted although another object shares them.
    EvictShared,
    /// An eviction is forgotten at recovery.
    ForgetEvictions,
    /// Retention is compared with the time of the request instead of the lock clock.
    BelieveWallClock,
    /// A deletion is forgotten once applied to the index, while older writes
    /// of the name are in flight.
    ForgetDeletions,
}

#[cfg(feature = "sabotage")]
mod hook {
    use super::Sabotage;
    use std::cell::Cell;

    thread_local! {
        static MODE: Cell<Option<Sabotage>> = const { Cell::new(None) };
    }

    /// Breaks the engine in this way on the current thread, until called again.
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
