//! The account of how the node is, as of one moment.

use std::collections::BTreeMap;

use keyhole_s3::ErrorCode;
use serde::{Deserialize, Serialize};

use super::machine::ProcessStatus;
use crate::control::{CleanerReply, WrittenReply};
use crate::memory::Budget;

/// Buckets that are shown one by one, the first ones by name.
pub(crate) const BUCKETS_MAX: usize = 100;

/// The bounds of the histograms of durations, in seconds. All of them are bounds of [bins](crate::metrics), so what is counted
/// below them is exact.
pub(crate) const BOUNDS_S: [f64; 19] = [
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 60.0,
];

/// How the node is. Lengths are bytes; counts are since the node's start.
#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Debug)]
pub(crate) struct Status {
    /// `starting`, `serving` or `draining`.
    pub(crate) phase: String,
    /// It takes requests, and can do what they ask for.
    pub(crate) ready: bool,
    /// It need not be restarted.
    pub(crate) live: bool,
    /// What is not as it should be.
    pub(crate) conditions: Vec<Condition>,
    pub(crate) node: Facts,
    pub(crate) uptime_s: f64,
    /// In ms since 1970.
    pub(crate) started_ms: u64,
    pub(crate) now: Now,
    pub(crate) requests: Requests,
    pub(crate) connections: Connections,
    pub(crate) workers: Vec<WorkerStatus>,
    /// The bounds of what one worker's requests may hold.
    pub(crate) limits: Limits,
    /// Absent while it is being opened.
    pub(crate) store: Option<StoreStatus>,
    pub(crate) buckets: Vec<BucketStatus>,
    /// Buckets that are not among these.
    pub(crate) buckets_left_out: u64,
    pub(crate) damage: Damages,
    pub(crate) clock: Clock,
    pub(crate) process: ProcessStatus,
}

/// What the node is.
#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Facts {
    pub(crate) version: String,
    /// Of AES-256-GCM: `accelerated` or `portable`.
    pub(crate) engine: String,
    /// `uring` or `epoll`.
    pub(crate) io: String,
    /// When a write is made durable, as `serve --sync` has it.
    pub(crate) sync: String,
    pub(crate) workers: usize,
    /// What it may take, and what for.
    pub(crate) memory: Budget,
}

/// Something that is not as it should be.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Condition {
    /// One of a few words, for programs.
    pub(crate) name: String,
    pub(crate) severity: Severity,
    /// A sentence or two, for people.
    pub(crate) text: String,
}

#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Severity {
    /// It passes by itself.
    Note,
    /// It serves, and somebody should look.
    Warning,
    /// It does not serve as it should.
    Fault,
}

/// The last seconds.
#[derive(Serialize, Deserialize, Clone, Copy, Default, PartialEq, Debug)]
pub(crate) struct Now {
    /// How many seconds this is about.
    pub(crate) span_s: f64,
    pub(crate) requests_per_s: f64,
    pub(crate) received_per_s: f64,
    pub(crate) sent_per_s: f64,
    /// Replies with a status from 400 to 499, and above.
    pub(crate) client_errors_per_s: f64,
    pub(crate) server_errors_per_s: f64,
    /// Quantiles of how long answers took, if there were any.
    pub(crate) p50_s: Option<f64>,
    pub(crate) p99_s: Option<f64>,
}

/// Requests that are over.
#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Debug)]
pub(crate) struct Requests {
    pub(crate) total: u64,
    /// Those without a whole reply: the connection was gone, or had to be aborted.
    pub(crate) aborted: u64,
    /// Those that are not over.
    pub(crate) in_flight: u64,
    /// Those about sealed bytes.
    pub(crate) sse_c: u64,
    /// Payload bytes.
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// Those of each operation, if there were any.
    pub(crate) operations: Vec<OperationStatus>,
    /// Errors by their code in S3, if there were any.
    pub(crate) errors: BTreeMap<String, u64>,
    /// How long those took that were answered, by class of operation.
    pub(crate) durations: Vec<DurationStatus>,
}

#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct OperationStatus {
    pub(crate) operation: String,
    pub(crate) total: u64,
    /// By status; `aborted`: there was none.
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
    /// How many took no longer than each of [`BOUNDS_S`].
    pub(crate) cumulative: Vec<u64>,
}

#[derive(Serialize, Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Connections {
    /// Open now.
    pub(crate) http: u64,
    pub(crate) https: u64,
    /// Ever accepted.
    pub(crate) http_accepted: u64,
    pub(crate) https_accepted: u64,
    pub(crate) handshakes: u64,
    pub(crate) handshakes_failed: u64,
}

#[derive(Serialize, Deserialize, Clone, Copy, Default, PartialEq, Debug)]
pub(crate) struct WorkerStatus {
    /// Seconds since it last said that it moves, which it does every second.
    pub(crate) quiet_s: f64,
    pub(crate) in_flight: u64,
    pub(crate) connections: u64,
    /// Memory that its requests hold: blocks of 1 MiB, pages of 4 KiB.
    pub(crate) blocks: u64,
    pub(crate) pages: u64,
    /// Requests that wait for memory.
    pub(crate) waiters: u64,
}

/// What one worker's requests may hold, and how many may wait.
#[derive(Serialize, Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Limits {
    pub(crate) blocks: u64,
    pub(crate) pages: u64,
    pub(crate) waiters: u64,
}

#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Debug)]
pub(crate) struct StoreStatus {
    pub(crate) capacity: u64,
    pub(crate) allocated: u64,
    pub(crate) reserved: u64,
    pub(crate) live: u64,
    /// What `live` may come to.
    pub(crate) live_max: u64,
    pub(crate) dead: u64,
    pub(crate) buckets: u64,
    pub(crate) objects: u64,
    pub(crate) uploads: u64,
    pub(crate) bodies: u64,
    /// Memory of the index.
    pub(crate) index: u64,
    pub(crate) written: WrittenReply,
    /// Batches with up to 1, 2, 4, ..., 512 commits.
    pub(crate) batches: Vec<u64>,
    pub(crate) syncs: u64,
    /// Batches whose write made them durable by itself.
    pub(crate) durable_writes: u64,
    pub(crate) cleaner: CleanerReply,
    pub(crate) segments_discarded: u64,
    /// By state.
    pub(crate) segments: SegmentsStatus,
    /// The oldest objects go when it is full.
    pub(crate) ring: bool,
    pub(crate) full: bool,
    pub(crate) poisoned: bool,
    /// What has failed then: the operation, where, and the error.
    #[serde(default)]
    pub(crate) failed_write: Option<String>,
    /// Why it takes no writes, if it is read-only.
    #[serde(default)]
    pub(crate) read_only: Option<String>,
}

#[derive(Serialize, Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct SegmentsStatus {
    pub(crate) blank: u64,
    pub(crate) open: u64,
    pub(crate) closed: u64,
    pub(crate) condemned: u64,
    pub(crate) damaged: u64,
}

#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct BucketStatus {
    pub(crate) bucket: String,
    pub(crate) objects: u64,
    pub(crate) uploads: u64,
    /// Plaintext bytes of its objects and of the parts of its uploads.
    pub(crate) bytes: u64,
    pub(crate) quota: Option<u64>,
}

#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Damages {
    /// Places where recovery has found damage.
    pub(crate) at_start: u64,
    /// Objects and uploads that the cleaner has found damaged.
    pub(crate) cleaner: u64,
    pub(crate) scrubs: Scrub,
}

/// What scrubs have verified since the start.
#[derive(Serialize, Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Scrub {
    pub(crate) completed: u64,
    pub(crate) bytes: u64,
    /// Places where they have found damage.
    pub(crate) damaged: u64,
    /// When the last one came to its end, in ms since 1970, and what it had found.
    pub(crate) last_ended_ms: Option<u64>,
    pub(crate) last_damaged: u64,
}

#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Clock {
    /// In ms since 1970, both.
    pub(crate) now_ms: u64,
    pub(crate) newest_ms: u64,
    /// How far the clock is behind what was stored, where it is by more than a minute, and in which bucket that is.
    pub(crate) behind_ms: Option<u64>,
    pub(crate) bucket: Option<String>,
}

impl Status {
    /// What keeps it from being ready.
    pub(crate) fn reasons(&self) -> impl Iterator<Item = &Condition> {
        self.conditions.iter().filter(|condition| {
            let is_unready = UNREADY.contains(&&condition.name[..]);
            // Where the operator wants it so it does what it is to do.
            is_unready || (condition.name == "read-only" && condition.severity == Severity::Fault)
        })
    }

    pub(crate) fn error_count(&self, code: ErrorCode) -> u64 {
        self.requests.errors.get(code.code()).copied().unwrap_or(0)
    }
}

impl OperationStatus {
    /// Those whose status begins with one of these digits.
    pub(crate) fn with_code(&self, first: &[char]) -> u64 {
        let of_kind = self.by_code.iter().filter(|(code, _)| code.starts_with(first));
        of_kind.map(|(_, count)| count).sum()
    }
}

/// The conditions in which the node is not ready; and one more, as far as it is a fault.
const UNREADY: [&str; 5] = ["starting", "draining", "poisoned", "store-absent", "worker-stuck"];
