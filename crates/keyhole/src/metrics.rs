//! Request counters: each worker counts in its own shard without a lock, and readers add them up.
//!
//! One thread writes a shard, others read it. All counters only grow, so a sum lies between the
//! values at the beginning and at the end of reading: no event is lost or counted twice.

mod bins;
mod found;
mod operations;

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use keyhole_node::{Exchange, Fault, FaultKind, Gauge, Load, Observer};
use keyhole_s3::ErrorCode;

pub(crate) use bins::{BINS, cumulative, quantile};
pub(crate) use found::FoundCounts;
pub(crate) use operations::{CLASSES, ELSE, OPERATIONS, STATUSES};

use bins::Bins;
use found::FoundObjects;
use operations::{class_of, operation_index, status_index};

/// The listener that a connection came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ListenerKind {
    Http,
    Https,
}

/// The counters of one worker, aligned to avoid false sharing between worker threads.
#[repr(align(128))]
struct Shard {
    requests: [[AtomicU64; STATUSES.len()]; OPERATIONS.len()],
    errors: [AtomicU64; ErrorCode::ALL.len()],
    received: AtomicU64,
    sent: AtomicU64,
    sse_c: AtomicU64,
    /// Requests that have begun and ended, of those with a known operation.
    began: AtomicU64,
    over: AtomicU64,
    durations: [Bins; CLASSES.len()],
    opened: [AtomicU64; 2],
    closed: [AtomicU64; 2],
    handshakes: AtomicU64,
    handshakes_failed: AtomicU64,
    /// The worker's last heartbeat, in ms since the node's start.
    beat_ms: AtomicU64,
    gauge: OnceLock<Gauge>,
}

impl Shard {
    fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Shard {
            requests: std::array::from_fn(|_| std::array::from_fn(|_| zero())),
            errors: std::array::from_fn(|_| zero()),
            received: zero(),
            sent: zero(),
            sse_c: zero(),
            began: zero(),
            over: zero(),
            durations: std::array::from_fn(|_| Bins::new()),
            opened: [zero(), zero()],
            closed: [zero(), zero()],
            handshakes: zero(),
            handshakes_failed: zero(),
            beat_ms: zero(),
            gauge: OnceLock::new(),
        }
    }
}

/// The shards of all workers.
pub(crate) struct Metrics {
    shards: Box<[Shard]>,
    /// Unreadable objects. Rare, so all workers share it.
    found: FoundObjects,
}

thread_local! {
    /// The shard of this thread.
    static SHARD: Cell<usize> = const { Cell::new(0) };
}

impl Metrics {
    pub(crate) fn new(workers: usize) -> Arc<Self> {
        let shards = (0..workers.max(1)).map(|_| Shard::new()).collect();
        Arc::new(Metrics { shards, found: FoundObjects::default() })
    }

    /// Counts an object that a read has found to be unreadable.
    pub(crate) fn add_found(&self, kind: FaultKind, bucket: &str, key: &str) {
        self.found.add(kind, bucket, key);
    }

    /// Returns the counts of unreadable objects that reads have found.
    pub(crate) fn found(&self) -> FoundCounts {
        self.found.counts()
    }

    fn shard(&self) -> &Shard {
        &self.shards[SHARD.get() % self.shards.len()]
    }
}

/// Counts each request in [`Metrics`].
pub(crate) struct Counting(pub(crate) Arc<Metrics>);

impl Observer for Counting {
    fn began(&self, _: &'static str) {
        add(&self.0.shard().began, 1);
    }

    fn finished(&self, exchange: &Exchange<'_>) {
        let shard = self.0.shard();
        let operation = operation_index(exchange.operation);
        add(&shard.requests[operation][status_index(exchange.status)], 1);
        if exchange.operation.is_some() {
            add(&shard.over, 1);
        }
        if let Some(code) = exchange.error {
            add(&shard.errors[code as usize], 1);
        }
        add(&shard.received, exchange.received);
        add(&shard.sent, exchange.sent);
        add(&shard.sse_c, exchange.sse_c.into());
        // The time until a client disconnects is no property of the node.
        if exchange.status != 0 {
            shard.durations[class_of(operation)].count(exchange.took);
        }
    }

    fn fault(&self, fault: &Fault<'_>) {
        self.0.add_found(fault.kind, fault.bucket.unwrap_or_default(), fault.key.unwrap_or_default());
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Relaxed);
}

/// One worker's access to its shard.
#[derive(Clone)]
pub(crate) struct Meter {
    metrics: Arc<Metrics>,
    worker: usize,
}

impl Meter {
    pub(crate) fn new(metrics: Arc<Metrics>, worker: usize) -> Self {
        Meter { metrics, worker }
    }

    /// Assigns the current thread's counters to this worker.
    pub(crate) fn enter(&self, gauge: Gauge) {
        SHARD.set(self.worker);
        let _ = self.mine().gauge.set(gauge); // Called once per worker.
    }

    /// Records a heartbeat of the worker.
    pub(crate) fn beat(&self, since_start: Duration) {
        let ms = u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX);
        self.mine().beat_ms.store(ms, Relaxed);
    }

    /// Counts a connection while the result lives.
    pub(crate) fn connection(&self, listener: ListenerKind) -> Connected {
        add(&self.mine().opened[listener as usize], 1);
        Connected { meter: self.clone(), listener }
    }

    pub(crate) fn handshake(&self, succeeded: bool) {
        let shard = self.mine();
        add(if succeeded { &shard.handshakes } else { &shard.handshakes_failed }, 1);
    }

    fn mine(&self) -> &Shard {
        &self.metrics.shards[self.worker]
    }
}

/// An open connection.
pub(crate) struct Connected {
    meter: Meter,
    listener: ListenerKind,
}

impl Drop for Connected {
    fn drop(&mut self) {
        add(&self.meter.mine().closed[self.listener as usize], 1);
    }
}

/// The counters of all workers, added up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Totals {
    /// Requests by operation and status, in the order of [`OPERATIONS`] and [`STATUSES`].
    pub(crate) requests: Vec<[u64; STATUSES.len()]>,
    /// In the order of [`ErrorCode::ALL`].
    pub(crate) errors: Vec<u64>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) sse_c: u64,
    /// In the order of [`CLASSES`].
    pub(crate) durations: Vec<Durations>,
    pub(crate) opened: [u64; 2],
    pub(crate) handshakes: u64,
    pub(crate) handshakes_failed: u64,
}

/// The durations of completed requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Durations {
    pub(crate) sum_ns: u64,
    pub(crate) bins: Vec<u64>,
}

/// The current state of one worker.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct WorkerState {
    /// Requests in flight.
    pub(crate) in_flight: u64,
    /// Open connections by listener.
    pub(crate) connections: [u64; 2],
    pub(crate) load: Load,
    /// The last heartbeat, since the node's start.
    pub(crate) beat: Duration,
    /// Whether the worker has started.
    pub(crate) started: bool,
}

impl Metrics {
    pub(crate) fn totals(&self) -> Totals {
        let sum = |of: &dyn Fn(&Shard) -> &AtomicU64| self.shards.iter().map(|shard| of(shard).load(Relaxed)).sum();
        let requests = (0..OPERATIONS.len())
            .map(|operation| std::array::from_fn(|status| sum(&|shard| &shard.requests[operation][status])))
            .collect();
        let durations = (0..CLASSES.len()).map(|class| {
            let of_class = self.shards.iter().map(|shard| &shard.durations[class]);
            let mut durations = Durations { sum_ns: 0, bins: vec![0; BINS] };
            of_class.for_each(|bins| bins.add_to(&mut durations.bins, &mut durations.sum_ns));
            durations
        });
        Totals {
            requests,
            errors: (0..ErrorCode::ALL.len()).map(|code| sum(&|shard| &shard.errors[code])).collect(),
            received: sum(&|shard| &shard.received),
            sent: sum(&|shard| &shard.sent),
            sse_c: sum(&|shard| &shard.sse_c),
            durations: durations.collect(),
            opened: std::array::from_fn(|listener| sum(&|shard| &shard.opened[listener])),
            handshakes: sum(&|shard| &shard.handshakes),
            handshakes_failed: sum(&|shard| &shard.handshakes_failed),
        }
    }

    pub(crate) fn workers(&self) -> Vec<WorkerState> {
        let state = |shard: &Shard| {
            // Read the ended ones first: what has ended has also begun.
            let difference = |ended: &AtomicU64, begun: &AtomicU64| {
                let ended = ended.load(Relaxed);
                begun.load(Relaxed).saturating_sub(ended)
            };
            WorkerState {
                in_flight: difference(&shard.over, &shard.began),
                connections: std::array::from_fn(|at| difference(&shard.closed[at], &shard.opened[at])),
                load: shard.gauge.get().map(Gauge::read).unwrap_or_default(),
                beat: Duration::from_millis(shard.beat_ms.load(Relaxed)),
                started: shard.gauge.get().is_some(),
            }
        };
        self.shards.iter().map(state).collect()
    }
}

impl Totals {
    /// Returns the count of requests with a status that passes the filter.
    pub(crate) fn with_status(&self, passes: impl Fn(u16) -> bool) -> u64 {
        let of_one = |counts: &[u64; STATUSES.len()]| {
            let counts = STATUSES.iter().zip(counts);
            counts.filter(|(status, _)| passes(**status)).map(|(_, count)| count).sum::<u64>()
        };
        self.requests.iter().map(of_one).sum()
    }

    /// Returns the bins of all classes, added up.
    pub(crate) fn all_bins(&self) -> Vec<u64> {
        let mut all = vec![0; BINS];
        for durations in &self.durations {
            all.iter_mut().zip(&durations.bins).for_each(|(all, bin)| *all += bin);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn exchange(operation: Option<&'static str>, status: u16) -> Exchange<'static> {
        Exchange {
            request_id: "1",
            peer: ([127, 0, 0, 1], 1).into(),
            client: [127, 0, 0, 1].into(),
            secure: true,
            method: "GET",
            resource: "/b/k",
            operation,
            claimed_operation: None,
            bucket: Some("b"),
            key: Some("k"),
            access_key: None,
            sse_c: false,
            is_unauthenticated: false,
            sealed_objects: &[],
            key_id: None,
            status,
            error: None,
            received: 0,
            sent: 0,
            took: Duration::from_millis(3),
        }
    }

    #[test]
    fn counters_of_threads_are_added() {
        let metrics = Metrics::new(4);
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let metrics = metrics.clone();
                scope.spawn(move || {
                    SHARD.set(worker);
                    let counting = Counting(metrics);
                    for _ in 0..1000 {
                        counting.began("PutObject");
                        let put = Exchange { received: 7, sse_c: true, ..exchange(Some("PutObject"), 200) };
                        counting.finished(&put);
                        let refused = Exchange { error: Some(ErrorCode::AccessDenied), ..exchange(None, 403) };
                        counting.finished(&refused);
                        counting.finished(&Exchange { sent: 3, ..exchange(Some("GetObject"), 0) });
                    }
                    counting.began("GetObject");
                });
            }
        });
        let totals = metrics.totals();
        let count = |operation: &str, status: u16| {
            let row = OPERATIONS.iter().position(|(name, _)| *name == operation).unwrap();
            totals.requests[row][STATUSES.iter().position(|other| *other == status).unwrap()]
        };
        assert_eq!((count("PutObject", 200), count("Unknown", 403), count("GetObject", 0)), (4000, 4000, 4000));
        assert_eq!(totals.with_status(|_| true), 12_000);
        assert_eq!((totals.received, totals.sent, totals.sse_c), (28_000, 12_000, 4000));
        assert_eq!(totals.errors[ErrorCode::AccessDenied as usize], 4000);
        assert_eq!(totals.errors.iter().sum::<u64>(), 4000);
        assert_eq!(totals.all_bins().iter().sum::<u64>(), 8000, "what was aborted has no duration");
        assert_eq!(totals.durations.iter().map(|class| class.sum_ns).sum::<u64>(), 8000 * 3_000_000);
    }

    #[test]
    fn open_connections_are_counted() {
        let metrics = Metrics::new(2);
        let meter = Meter::new(metrics.clone(), 1);
        let first = meter.connection(ListenerKind::Https);
        let second = meter.connection(ListenerKind::Https);
        let plain = meter.connection(ListenerKind::Http);
        drop(first);
        meter.beat(Duration::from_millis(1500));
        let workers = metrics.workers();
        assert_eq!((workers[0].connections, workers[1].connections), ([0, 0], [1, 1]));
        assert_eq!(workers[1].beat, Duration::from_millis(1500));
        drop((second, plain));
        assert_eq!(metrics.workers()[1].connections, [0, 0]);
        assert_eq!(metrics.totals().opened, [1, 2]);
    }
}
