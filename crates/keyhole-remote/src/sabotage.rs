//! Deliberate defects, to test that the simulation detects them.

#[cfg(feature = "sabotage")]
use std::cell::Cell;

/// A deliberate defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Changes are confirmed before the service has answered.
    ConfirmBeforeReply,
    /// A removal is not shipped.
    ForgetDeletion,
    /// A change counts as confirmed although the service has refused it.
    IgnoreFailure,
    /// The remote is not compared with the store after a restart.
    SkipComparison,
    /// Versions are evicted that the remote does not have.
    EvictUnconfirmed,
    /// Removals that the store could not report are not looked for.
    IgnoreOverflow,
    /// The remote is not compared a second time.
    CompareOnce,
    /// A change is confirmed when its object is removed from the store, although a power failure can undo
    /// the removal.
    ConfirmGone,
    /// The versions of a key in a remote are read in the order of their names.
    ReadInNameOrder,
    /// The file of an evicted version is read without a look at its number.
    ReadAnyVersion,
}

#[cfg(feature = "sabotage")]
thread_local! {
    static ACTIVE: Cell<Option<Sabotage>> = const { Cell::new(None) };
}

/// Sets the defect of this thread.
#[cfg(feature = "sabotage")]
pub fn sabotage(sabotage: Option<Sabotage>) {
    ACTIVE.set(sabotage);
}

/// Returns whether this defect is set.
#[cfg(feature = "sabotage")]
pub(crate) fn is(sabotage: Sabotage) -> bool {
    ACTIVE.get() == Some(sabotage)
}

#[cfg(not(feature = "sabotage"))]
pub(crate) fn is(_: Sabotage) -> bool {
    false
}
