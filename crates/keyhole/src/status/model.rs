//! The status snapshot of the node.

use std::collections::BTreeMap;

use keyhole_s3::ErrorCode;
use serde::{Deserialize, Serialize};

use super::machine::ProcessStatus;
use super::remote::RemoteStatus;
use super::store::{BucketStatus, StoreStatus};
use crate::memory::Budget;

/// Limit of buckets that are listed, in the order of their names.
pub(crate) const BUCKETS_MAX: usize = 100;

/// Bounds of the duration histograms, in seconds. All are bounds of [bins](crate::metrics), so the
/// counts below them are exact.
pub(crate) const BOUNDS_S: [f64; 19] = [
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 60.0,
];

/// The status of the node. Lengths are in bytes; counters start with the node.
#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Debug)]
pub(crate) struct Status {
    /// `starting`, `serving` or `draining`.
    pub(crate) phase: String,
    /// Whether the node accepts requests and can serve them.
    pub(crate) ready: bool,
    /// Whether the node can continue without a restart.
    pub(crate) live: bool,
    /// Conditions that need attention.
    pub(crate) conditions: Vec<Condition>,
    pub(crate) node: NodeFacts,
    pub(crate) uptime_s: f64,
    /// In ms since 1970.
    pub(crate) started_ms: u64,
    pub(crate) now: Now,
    pub(crate) requests: Requests,
    pub(crate) connections: ConnectionFigures,
    pub(crate) workers: Vec<WorkerStatus>,
    /// Limits of one worker's requests.
    pub(crate) limits: Limits,
    /// Absent while the store is being opened.
    pub(crate) store: Option<StoreStatus>,
    pub(crate) buckets: Vec<BucketStatus>,
    /// Buckets beyond those listed.
    pub(crate) buckets_left_out: u64,
    #[serde(default)]
    pub(crate) remotes: Vec<RemoteStatus>,
    pub(crate) damage: Damages,
    pub(crate) clock: Clock,
    pub(crate) process: ProcessStatus,
}

/// Constant facts about the node.
#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct NodeFacts {
    pub(crate) version: String,
    /// The engine of AES-256-GCM: `accelerated` or `portable`.
    pub(crate) engine: String,
    /// `uring` or `epoll`.
    pub(crate) io: String,
    /// The durability mode, as in `serve --sync`.
    pub(crate) sync: String,
    pub(crate) workers: usize,
    /// The memory budget.
    pub(crate) memory: Budget,
}

/// A condition that needs attention.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Condition {
    /// A fixed name, for programs.
    pub(crate) name: String,
    pub(crate) severity: Severity,
    /// One or two sentences, for people.
    pub(crate) text: String,
}

#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Severity {
    /// It passes by itself.
    Note,
    /// The node serves, but an operator should look.
    Warning,
    /// The node does not serve as it should.
    Fault,
}

/// The last seconds.
#[derive(Serialize, Deserialize, Clone, Copy, Default, PartialEq, Debug)]
pub(crate) struct Now {
    /// Length of the span in seconds.
    pub(crate) span_s: f64,
    pub(crate) requests_per_s: f64,
    pub(crate) received_per_s: f64,
    pub(crate) sent_per_s: f64,
    /// Replies with a status of 400 to 499, and of 500 or more.
    pub(crate) client_errors_per_s: f64,
    pub(crate) server_errors_per_s: f64,
    /// Latency quantiles, if there were replies.
    pub(crate) p50_s: Option<f64>,
    pub(crate) p99_s: Option<f64>,
}

/// Counters of completed requests.
#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Debug)]
pub(crate) struct Requests {
    pub(crate) total: u64,
    /// Requests without a complete reply: the connection was lost or had to be aborted.
    pub(crate) aborted: u64,
    /// Requests that have not ended.
    pub(crate) in_flight: u64,
    /// Requests about sealed bytes.
    pub(crate) sse_c: u64,
    /// Payload bytes.
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// Counts by operation, if not zero.
    pub(crate) operations: Vec<OperationStatus>,
    /// Counts of errors by S3 code, if not zero.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Durations of completed requests, by class of operation.
    pub(crate) durations: Vec<DurationStatus>,
}

#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct OperationStatus {
    pub(crate) operation: String,
    pub(crate) total: u64,
    /// By status; `aborted` means no reply.
    pub(crate) by_code: BTreeMap<String, u64>,
}

#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Debug)]
pub(crate) struct DurationStatus {
    pub(crate) class: String,
    pub(crate) count: u64,
    pub(crate) sum_s: f64,
    pub(crate) p50_s: Option<f64>,
    pub(crate) p90_s: Option<f64>,
    pub(crate) p99_s: Option<f64>,
    /// Counts of requests that took no longer than each of [`BOUNDS_S`].
    pub(crate) cumulative: Vec<u64>,
}

#[derive(Serialize, Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct ConnectionFigures {
    /// Currently open.
    pub(crate) http: u64,
    pub(crate) https: u64,
    /// Accepted in total.
    pub(crate) http_accepted: u64,
    pub(crate) https_accepted: u64,
    pub(crate) handshakes: u64,
    pub(crate) handshakes_failed: u64,
}

#[derive(Serialize, Deserialize, Clone, Copy, Default, PartialEq, Debug)]
pub(crate) struct WorkerStatus {
    /// Seconds since the worker's last heartbeat; heartbeats are sent every second.
    pub(crate) quiet_s: f64,
    pub(crate) in_flight: u64,
    pub(crate) connections: u64,
    /// Memory held by its requests: blocks of 1 MiB, pages of 4 KiB.
    pub(crate) blocks: u64,
    pub(crate) pages: u64,
    /// Requests that wait for memory.
    pub(crate) waiters: u64,
}

/// Limits of the memory of one worker's requests, and of its queue.
#[derive(Serialize, Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Limits {
    pub(crate) blocks: u64,
    pub(crate) pages: u64,
    pub(crate) waiters: u64,
}

#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Damages {
    /// Damaged places found by recovery.
    pub(crate) at_start: u64,
    /// Damaged objects and uploads found by the cleaner.
    pub(crate) cleaner: u64,
    /// Damaged objects found by reads.
    #[serde(default)]
    pub(crate) reads: u64,
    /// Objects found by reads whose undamaged bytes do not authenticate under their key.
    #[serde(default)]
    pub(crate) not_authentic: u64,
    pub(crate) scrubs: Scrub,
}

impl Damages {
    /// Returns the count of damaged places, whoever found them.
    pub(crate) fn places(&self) -> u64 {
        self.at_start + self.cleaner + self.reads + self.scrubs.damaged
    }
}

/// The results of scrubs since the start.
#[derive(Serialize, Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Scrub {
    pub(crate) completed: u64,
    pub(crate) bytes: u64,
    /// Damaged places found.
    pub(crate) damaged: u64,
    /// When the last scrub ended, in ms since 1970, and its findings.
    pub(crate) last_ended_ms: Option<u64>,
    pub(crate) last_damaged: u64,
}

#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Clock {
    /// Both in ms since 1970.
    pub(crate) now_ms: u64,
    pub(crate) newest_ms: u64,
    /// The clock's delay behind a stored time, if more than a minute, and that object's bucket.
    pub(crate) behind_ms: Option<u64>,
    pub(crate) bucket: Option<String>,
    /// The lock clock, in ms since 1970, and by how much the clock is ahead of it if it is not
    /// followed.
    #[serde(default)]
    pub(crate) lock_ms: Option<u64>,
    #[serde(default)]
    pub(crate) lock_refused_ms: Option<u64>,
}

impl Status {
    /// Returns the status without object keys, for readers without a credential. The metrics and the
    /// conditions count the exceptions of remotes.
    pub(crate) fn without_keys(mut self) -> Self {
        self.remotes.iter_mut().for_each(|remote| remote.exceptions.clear());
        self
    }

    /// Returns the conditions that make the node unready.
    pub(crate) fn reasons(&self) -> impl Iterator<Item = &Condition> {
        self.conditions.iter().filter(|condition| {
            let is_unready = UNREADY.contains(&&condition.name[..]);
            // A node that was started read-only is ready.
            is_unready || (condition.name == "read-only" && condition.severity == Severity::Fault)
        })
    }

    pub(crate) fn error_count(&self, code: ErrorCode) -> u64 {
        self.requests.errors.get(code.code()).copied().unwrap_or(0)
    }
}

impl OperationStatus {
    /// Returns the count of requests whose status begins with one of these digits.
    pub(crate) fn with_code(&self, first: &[char]) -> u64 {
        let of_kind = self.by_code.iter().filter(|(code, _)| code.starts_with(first));
        of_kind.map(|(_, count)| count).sum()
    }
}

/// The conditions in which the node is not ready; `read-only` is one as well if it is a fault.
const UNREADY: [&str; 5] = ["starting", "draining", "poisoned", "store-absent", "worker-stuck"];
