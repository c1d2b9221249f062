//! Remotes in the status.

use keyhole_remote::{Exception, Phase, Report};
use serde::{Deserialize, Serialize};

/// A remote. Lengths are in bytes; counters start with the node.
#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct RemoteStatus {
    pub(crate) remote: String,
    /// `starting`, `comparing`, `shipping`, `idle`, `waiting`, `failing` or `paused`.
    pub(crate) state: String,
    /// The reason, while it is failing.
    pub(crate) failure: Option<String>,
    /// Time of the next attempt, in ms since 1970, while it is failing.
    pub(crate) retry_ms: Option<u64>,
    /// Versions that the remote lacks, and their plaintext bytes.
    pub(crate) owed: u64,
    pub(crate) owed_bytes: u64,
    /// Time of storage of the oldest of them, in ms since 1970.
    pub(crate) oldest_ms: Option<u64>,
    /// Time of the last confirmation, in ms since 1970.
    pub(crate) confirmed_ms: Option<u64>,
    pub(crate) shipped: u64,
    pub(crate) shipped_bytes: u64,
    pub(crate) deleted: u64,
    /// Versions evicted from the store.
    #[serde(default)]
    pub(crate) evicted: u64,
    pub(crate) failures: u64,
    /// Versions that the remote does not accept, or that cannot be read.
    pub(crate) exceptions: Vec<Exception>,
}

impl RemoteStatus {
    /// Creates the status of a remote from its report; one that is paused has none.
    pub(super) fn new(remote: String, report: Option<Report>) -> Self {
        let Some(report) = report else {
            return RemoteStatus { remote, state: "paused".to_owned(), ..RemoteStatus::default() };
        };
        let mut failure = None;
        let mut retry = None;
        let state = match report.phase {
            Phase::Starting => "starting",
            Phase::Comparing => "comparing",
            Phase::Shipping => "shipping",
            Phase::Idle => "idle",
            Phase::Waiting => "waiting",
            Phase::Failing { why, retry_ms } => {
                failure = Some(why);
                retry = Some(retry_ms);
                "failing"
            }
        };
        RemoteStatus {
            remote,
            state: state.to_owned(),
            failure,
            retry_ms: retry,
            owed: report.owed,
            owed_bytes: report.owed_bytes,
            oldest_ms: report.oldest_ms,
            confirmed_ms: report.confirmed_ms,
            shipped: report.shipped,
            shipped_bytes: report.shipped_bytes,
            deleted: report.deleted,
            evicted: report.evicted,
            failures: report.failures,
            exceptions: report.exceptions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_follows_the_phase() {
        let status = |phase| RemoteStatus::new("box".to_owned(), Some(Report { phase, owed: 3, ..Report::default() }));
        assert_eq!(status(Phase::Idle).state, "idle");
        let failing = status(Phase::Failing { why: "AccessDenied".to_owned(), retry_ms: 9 });
        assert_eq!(
            (&failing.state[..], failing.failure.as_deref(), failing.retry_ms),
            ("failing", Some("AccessDenied"), Some(9))
        );
        let paused = RemoteStatus::new("box".to_owned(), None);
        assert_eq!((&paused.state[..], paused.owed), ("paused", 0));
    }
}
