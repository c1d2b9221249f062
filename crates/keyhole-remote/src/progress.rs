//! The progress of a remote, and its state for the operator.

use serde::{Deserialize, Serialize};

/// The state of a remote that survives a restart. Without it, every object is compared again.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// The remote has confirmed every change with a number up to this, except for `exceptions`.
    pub confirmed: u64,
    /// Versions that the remote does not accept, or that cannot be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exceptions: Vec<Exception>,
}

/// A version that is not in the remote although its number is confirmed.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// The version id: `null` or 32 hex digits.
    pub version: String,
    /// The reason.
    pub why: String,
}

/// A snapshot of a remote for the operator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The current activity.
    pub phase: Phase,
    /// Versions that the remote lacks.
    pub owed: u64,
    /// Their plaintext bytes.
    pub owed_bytes: u64,
    /// Time of storage of the oldest of them, in ms since 1970.
    pub oldest_ms: Option<u64>,
    /// Time of the last confirmation, in ms since 1970.
    pub confirmed_ms: Option<u64>,
    /// Objects stored in the remote since the start.
    pub shipped: u64,
    /// Bytes sent since the start.
    pub shipped_bytes: u64,
    /// Objects deleted from the remote since the start.
    pub deleted: u64,
    /// Versions evicted from the store since the start.
    pub evicted: u64,
    /// Failed requests since the start.
    pub failures: u64,
    /// Versions that the remote does not accept.
    pub exceptions: Vec<Exception>,
}

/// The activity of a remote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Phase {
    /// It has not begun.
    #[default]
    Starting,
    /// It compares the names in the remote with those in the store.
    Comparing,
    /// It ships changes.
    Shipping,
    /// Nothing is owed.
    Idle,
    /// It waits for its window of time.
    Waiting,
    /// It has failed and waits to try again.
    Failing {
        /// The reason.
        why: String,
        /// Time of the next attempt, in ms since 1970.
        retry_ms: u64,
    },
}
