//! Builds the status from the counters of workers and log and from the monitor's state.

use std::sync::atomic::Ordering;
use std::time::Duration;

use keyhole_node::limits::WAITERS_PER_WORKER;
use keyhole_node::{Load, Services};
use keyhole_s3::ErrorCode;

use super::conditions::ConditionInputs;
use super::history::Sample;
use super::machine::ProcessStatus;
use super::model::{
    BOUNDS_S, BUCKETS_MAX, Clock, ConnectionFigures, Damages, DurationStatus, Limits, Now, OperationStatus, Requests,
    Status, WorkerStatus,
};
use super::monitor::{DEAD, Monitor, Phase, ReportedState};
use super::remote::RemoteStatus;
use super::store::{BucketStatus, StoreStatus};
use crate::env::System;
use crate::metrics::{
    CLASSES, Durations, ELSE, FoundCounts, OPERATIONS, STATUSES, Totals, WorkerState, cumulative, quantile,
};

impl Monitor {
    /// Returns the current status of the node.
    pub(crate) fn status(&self) -> Status {
        let stats = self.store.get().map(|shared| shared.summary());
        let (buckets, buckets_left_out) =
            self.store.get().map(|shared| shared.bucket_usage(BUCKETS_MAX)).unwrap_or_default();
        let totals = self.metrics().totals();
        let workers = self.metrics().workers();
        let reported = self.reported().clone();
        let uptime = self.uptime();
        let quiet: Vec<Duration> = workers.iter().map(|worker| uptime.saturating_sub(worker.beat)).collect();
        let newest_ms = stats.as_ref().map_or(0, |stats| stats.newest_ms);
        let clock = clock(&reported, System.now_ms(), newest_ms);
        let damaged_at_start = self.damaged_at_start.load(Ordering::Relaxed);
        let cleaner = stats.as_ref().map_or(0, |stats| stats.cleaner.damaged);
        let FoundCounts { damaged: reads, not_authentic } = self.metrics().found();
        let damage = Damages { at_start: damaged_at_start, cleaner, reads, not_authentic, scrubs: reported.scrubs };
        let remotes = self.remotes.all().into_iter().map(|(name, report)| RemoteStatus::new(name, report));
        let remotes: Vec<RemoteStatus> = remotes.collect();
        let inputs = ConditionInputs {
            phase: self.phase(),
            stats: stats.as_ref(),
            quiet: &quiet,
            damaged: damage.places(),
            clock: &clock,
            absence: reported.absence.as_deref(),
            remotes: &remotes,
        };
        let conditions = inputs.conditions();
        let reads = self.read_path.get().map(|path| path.counts()).unwrap_or_default();
        let mut status = Status {
            phase: format!("{:?}", inputs.phase).to_lowercase(),
            live: inputs.phase != Phase::Serving || quiet.iter().all(|quiet| *quiet < DEAD),
            conditions,
            node: self.facts.clone(),
            uptime_s: uptime.as_secs_f64(),
            started_ms: self.started_ms,
            now: now(&self.history().lately()),
            requests: requests(&totals, &workers),
            connections: connections(&totals, &workers),
            workers: workers.iter().zip(&quiet).map(|(worker, quiet)| worker_status(worker, *quiet)).collect(),
            limits: Limits {
                blocks: self.facts.memory.blocks as u64,
                pages: self.facts.memory.pages as u64,
                waiters: WAITERS_PER_WORKER as u64,
            },
            buckets: buckets.into_iter().map(BucketStatus::from).collect(),
            buckets_left_out,
            remotes,
            damage,
            clock,
            process: ProcessStatus::read(),
            store: stats.as_ref().map(|stats| StoreStatus { reads, ..StoreStatus::from(stats) }),
            ready: false,
        };
        let ready = status.reasons().next().is_none();
        status.ready = ready;
        status
    }
}

fn clock(reported: &ReportedState, now_ms: u64, newest_ms: u64) -> Clock {
    let behind = reported.behind.as_ref().filter(|(stored_ms, _)| *stored_ms > now_ms);
    Clock {
        now_ms,
        newest_ms,
        behind_ms: behind.map(|(stored_ms, _)| stored_ms - now_ms),
        bucket: behind.map(|(_, bucket)| bucket.clone()),
        lock_ms: reported.lock_clock.now_ms,
        lock_refused_ms: reported.lock_clock.refused_ms,
    }
}

fn now(sample: &Sample) -> Now {
    Now {
        span_s: sample.span_s,
        requests_per_s: sample.per_second(sample.requests),
        received_per_s: sample.per_second(sample.received),
        sent_per_s: sample.per_second(sample.sent),
        client_errors_per_s: sample.per_second(sample.client_errors),
        server_errors_per_s: sample.per_second(sample.server_errors),
        p50_s: sample.p50_s,
        p99_s: sample.p99_s,
    }
}

/// Returns the label of a status in request counts.
fn code_name(status: u16) -> String {
    match status {
        0 => "aborted".to_owned(),
        ELSE => "other".to_owned(),
        status => status.to_string(),
    }
}

fn requests(totals: &Totals, workers: &[WorkerState]) -> Requests {
    let rows = OPERATIONS.iter().zip(&totals.requests).map(|((name, _), counts)| {
        let by_code = STATUSES.iter().zip(counts).filter(|(_, count)| **count > 0);
        OperationStatus {
            operation: (*name).to_owned(),
            total: counts.iter().sum(),
            by_code: by_code.map(|(status, count)| (code_name(*status), *count)).collect(),
        }
    });
    let errors = ErrorCode::ALL.iter().zip(&totals.errors).filter(|(_, count)| **count > 0);
    Requests {
        total: totals.with_status(|_| true),
        aborted: totals.with_status(|status| status == 0),
        in_flight: workers.iter().map(|worker| worker.in_flight).sum(),
        sse_c: totals.sse_c,
        received: totals.received,
        sent: totals.sent,
        operations: rows.filter(|row| row.total > 0).collect(),
        errors: errors.map(|(code, count)| (code.code().to_owned(), *count)).collect(),
        durations: CLASSES.iter().zip(&totals.durations).map(|(class, of_class)| duration(class, of_class)).collect(),
    }
}

fn duration(class: &str, Durations { sum_ns, bins }: &Durations) -> DurationStatus {
    DurationStatus {
        class: class.to_owned(),
        count: bins.iter().sum(),
        sum_s: *sum_ns as f64 / 1e9,
        p50_s: quantile(bins, 0.5),
        p90_s: quantile(bins, 0.9),
        p99_s: quantile(bins, 0.99),
        cumulative: BOUNDS_S.iter().map(|bound| cumulative(bins, Duration::from_secs_f64(*bound))).collect(),
    }
}

fn connections(totals: &Totals, workers: &[WorkerState]) -> ConnectionFigures {
    let open = |listener: usize| workers.iter().map(|worker| worker.connections[listener]).sum();
    ConnectionFigures {
        http: open(0),
        https: open(1),
        http_accepted: totals.opened[0],
        https_accepted: totals.opened[1],
        handshakes: totals.handshakes,
        handshakes_failed: totals.handshakes_failed,
    }
}

fn worker_status(worker: &WorkerState, quiet: Duration) -> WorkerStatus {
    let Load { blocks, pages, waiters } = worker.load;
    WorkerStatus {
        quiet_s: if worker.started { quiet.as_secs_f64() } else { 0.0 },
        in_flight: worker.in_flight,
        connections: worker.connections.iter().sum(),
        blocks: blocks as u64,
        pages: pages as u64,
        waiters: waiters as u64,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use keyhole_node::FaultKind;

    use super::super::model::{Condition, NodeFacts, Severity};
    use super::super::store::StoreFigures;
    use super::*;
    use crate::lock_clock::LockClockFigures;

    /// Returns a status in which every field is set.
    pub(crate) fn sample_status() -> Status {
        let monitor = monitor(2);
        monitor.enter_phase(Phase::Serving);
        monitor.add_scrubbed(100, 2);
        let mut status = monitor.status();
        let by_code = |codes: &[(&str, u64)]| codes.iter().map(|(code, count)| ((*code).to_owned(), *count)).collect();
        let operation = |name: &str, total, codes: &[(&str, u64)]| OperationStatus {
            operation: name.to_owned(),
            total,
            by_code: by_code(codes),
        };
        // More digits than an f64 represents.
        let gets = (1 << 53) + 1;
        status.requests.operations = vec![
            operation("GetObject", gets + 1, &[("200", gets), ("404", 1)]),
            operation("PutObject", 6, &[("503", 4), ("aborted", 2)]),
        ];
        status.requests.total = gets + 7;
        status.requests.aborted = 2;
        status.requests.received = u64::MAX;
        status.requests.sent = 5;
        status.requests.errors = by_code(&[("SlowDown", 4)]);
        let cumulative = BOUNDS_S.iter().map(|bound| if *bound < 0.001 { 0 } else { 3 }).collect();
        let p50_s = Some(0.001);
        let p90_s = Some(70.0);
        let p99_s = Some(100.0);
        let durations = &mut status.requests.durations;
        durations[0] =
            DurationStatus { class: "get".to_owned(), count: 7, sum_s: 300.5, p50_s, p90_s, p99_s, cumulative };
        let bucket = |name: String, quota| BucketStatus {
            bucket: name,
            objects: 3,
            noncurrent: 2,
            markers: 1,
            uploads: 1,
            bytes: 123_456,
            charged: 130_000,
            quota,
        };
        status.buckets = vec![bucket("a-bucket".to_owned(), None), bucket("b".repeat(63), Some(200_000))];
        status.buckets_left_out = 9;
        let exception = keyhole_remote::Exception {
            bucket: "a-bucket".to_owned(),
            key: "private".to_owned(),
            version: "null".to_owned(),
            why: "KeyTooLongError".to_owned(),
        };
        status.remotes = vec![RemoteStatus {
            remote: "vault".to_owned(),
            state: "failing".to_owned(),
            failure: Some("AccessDenied: <denied>".to_owned()),
            retry_ms: Some(2),
            owed: 7,
            owed_bytes: 4096,
            oldest_ms: Some(1),
            confirmed_ms: Some(3),
            shipped: 11,
            exceptions: vec![exception],
            ..RemoteStatus::default()
        }];
        let batches = vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
        let figures = StoreFigures { capacity: 10 << 30, live: 8 << 30, dead: 1 << 30, batches, ..Default::default() };
        status.store = Some(StoreStatus { figures, live_max: 8 << 30, full: true, ..StoreStatus::default() });
        let text = "The store is full: new data is refused. <Delete> \"objects\".".to_owned();
        status.conditions.push(Condition { name: "full".to_owned(), severity: Severity::Fault, text });
        status
    }

    fn monitor(workers: usize) -> std::sync::Arc<Monitor> {
        Monitor::new(NodeFacts { version: "0".to_owned(), workers, ..NodeFacts::default() })
    }

    fn names(status: &Status) -> Vec<&str> {
        status.conditions.iter().map(|condition| &condition.name[..]).collect()
    }

    #[test]
    fn public_status_has_no_object_keys() {
        let json = |status: &Status| serde_json::to_string(status).unwrap();
        assert!(json(&sample_status()).contains("private"));
        assert!(!json(&sample_status().without_keys()).contains("private"));
    }

    #[test]
    fn phase_decides_readiness() {
        let monitor = monitor(2);
        let status = monitor.status();
        assert_eq!(
            (&status.phase[..], status.ready, status.live, names(&status)),
            ("starting", false, true, vec!["starting"])
        );
        assert!(status.store.is_none());
        monitor.enter_phase(Phase::Serving);
        let status = monitor.status();
        assert_eq!((&status.phase[..], status.ready, status.live, names(&status)), ("serving", true, true, vec![]));
        monitor.enter_phase(Phase::Draining);
        monitor.enter_phase(Phase::Serving);
        let status = monitor.status();
        assert_eq!((&status.phase[..], status.ready, status.live), ("draining", false, true));
    }

    #[test]
    fn damage_and_clock_are_conditions() {
        let monitor = monitor(1);
        monitor.enter_phase(Phase::Serving);
        monitor.add_scrubbed(100, 2);
        monitor.end_scrub(2);
        let later = System.now_ms() + 90_000;
        monitor.set_clock_behind(Some((later, "edge".to_owned())));
        let status = monitor.status();
        assert_eq!(names(&status), ["damage", "clock-behind"]);
        assert!(status.ready, "it serves all the same");
        assert!(status.conditions[0].text.contains("2 places") && status.conditions[1].text.contains("bucket edge"));
        assert!(status.clock.behind_ms.is_some_and(|ms| (80_000..=90_000).contains(&ms)));
        // The clock was corrected.
        monitor.set_clock_behind(Some((later - 200_000, "edge".to_owned())));
        assert_eq!(names(&monitor.status()), ["damage"]);
        let now_ms = Some(1000);
        monitor.set_lock_clock(LockClockFigures { now_ms, refused_ms: Some(90_000) });
        let status = monitor.status();
        assert_eq!(names(&status), ["damage", "lock-clock"]);
        assert!(status.ready && status.conditions[1].text.contains("90 s ahead"));
        monitor.set_lock_clock(LockClockFigures { now_ms, refused_ms: None });
        assert_eq!(names(&monitor.status()), ["damage"]);
        assert_eq!(monitor.status().clock.lock_ms, now_ms);
    }

    #[test]
    fn damage_found_by_reads_is_in_all_views() {
        let monitor = monitor(1);
        monitor.enter_phase(Phase::Serving);
        for kind in [FaultKind::Damage, FaultKind::NotAuthentic, FaultKind::Internal] {
            (0..2).for_each(|_| monitor.metrics().add_found(kind, "bucket", "key"));
        }
        let status = monitor.status();
        let damage = &status.damage;
        assert_eq!((damage.reads, damage.not_authentic, damage.places()), (1, 1, 1));
        assert_eq!(names(&status), ["damage"]);
        assert!(status.conditions[0].text.contains("1 place"));
    }

    #[test]
    fn absent_object_file_makes_the_node_unready() {
        let monitor = monitor(1);
        monitor.enter_phase(Phase::Serving);
        monitor.set_absence(Some("/d/objects.keyhole is gone".to_owned()));
        let status = monitor.status();
        assert_eq!((names(&status), status.ready), (vec!["store-absent"], false));
        assert!(status.conditions[0].text.contains("/d/objects.keyhole is gone"));
        monitor.set_absence(None);
        assert!(monitor.status().ready);
    }

    #[test]
    fn status_round_trips_as_json() {
        for status in [monitor(1).status(), sample_status()] {
            let text = serde_json::to_string(&status).unwrap();
            assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
        }
    }
}
