//! The deliberate defects of a build with the feature `skip-sync`. The tests of power failures must
//! detect them.

pub(crate) use hook::{break_worker, skips_syncs};

#[cfg(feature = "skip-sync")]
mod hook {
    use std::sync::LazyLock;

    /// Whether only the syncs of bodies are left out: `KEYHOLE_SKIP_SYNC=bodies`.
    static BODIES_ONLY: LazyLock<bool> =
        LazyLock::new(|| std::env::var_os("KEYHOLE_SKIP_SYNC").is_some_and(|what| what == "bodies"));

    /// Returns whether syncs report success without being made.
    pub(crate) fn skips_syncs() -> bool {
        !*BODIES_ONLY
    }

    /// Breaks the log on the thread of a worker: a durable record counts as the sync of its body.
    pub(crate) fn break_worker() {
        if *BODIES_ONLY {
            keyhole_log::sabotage(Some(keyhole_log::Sabotage::TrustWrites));
        }
    }
}

#[cfg(not(feature = "skip-sync"))]
mod hook {
    pub(crate) const fn skips_syncs() -> bool {
        false
    }

    pub(crate) const fn break_worker() {}
}
