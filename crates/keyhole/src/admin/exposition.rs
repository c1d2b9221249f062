//! The metrics for Prometheus: OpenMetrics 1.0 if requested, otherwise the text format 0.0.4.

use std::fmt::Error;

use keyhole_s3::ErrorCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabel, EncodeLabelSet, LabelSetEncoder, NoLabelSet,
    prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::status::{BOUNDS_S, RemoteStatus, Status, StoreStatus};

/// The `Content-Type` of OpenMetrics.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Returns content type and text for an `Accept` header.
pub(super) fn encode(status: &Status, accept: &str) -> Result<(&'static str, String), Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exposed(status.clone())));
    let mut text = String::new();
    if accept.to_ascii_lowercase().contains("application/openmetrics-text") {
        text::encode(&mut text, &registry)?;
        Ok((OPENMETRICS, text))
    } else {
        prometheus_text::encode(&mut text, &registry)?;
        Ok((prometheus_text::CONTENT_TYPE, text))
    }
}

#[derive(Debug)]
struct Exposed(Status);

/// Labels of a sample.
struct Labels<'a>(&'a [(&'a str, &'a str)]);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        for label in self.0 {
            label.encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

/// A value of a counter or gauge.
trait Value: EncodeCounterValue + EncodeGaugeValue {}
impl Value for u64 {}
impl Value for f64 {}

/// Writes metric families with a common prefix.
struct Writer<'e, 'a>(&'e mut DescriptorEncoder<'a>);

impl Writer<'_, '_> {
    fn counters<'l, V: Value>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        samples: impl IntoIterator<Item = (&'l [(&'l str, &'l str)], V)>,
    ) -> Result<(), Error> {
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        for (labels, value) in samples {
            let none = None::<&prometheus_client::metrics::exemplar::Exemplar<NoLabelSet, u64>>;
            family.encode_family(&Labels(labels))?.encode_counter(&value, none)?;
        }
        Ok(())
    }

    fn counter<V: Value>(&mut self, name: &str, help: &str, unit: Option<Unit>, value: V) -> Result<(), Error> {
        self.counters(name, help, unit, [(&[][..], value)])
    }

    fn gauges<'l, V: Value>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        samples: impl IntoIterator<Item = (&'l [(&'l str, &'l str)], V)>,
    ) -> Result<(), Error> {
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        for (labels, value) in samples {
            family.encode_family(&Labels(labels))?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn gauge<V: Value>(&mut self, name: &str, help: &str, unit: Option<Unit>, value: V) -> Result<(), Error> {
        self.gauges(name, help, unit, [(&[][..], value)])
    }
}

impl Collector for Exposed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let status = &self.0;
        let mut out = Writer(&mut encoder);
        node(status, &mut out)?;
        requests(status, &mut out)?;
        durations(status, &mut out)?;
        connections(status, &mut out)?;
        workers(status, &mut out)?;
        if let Some(store) = &status.store {
            space(store, &mut out)?;
            writes(store, &mut out)?;
            reads(store, &mut out)?;
            buckets(status, &mut out)?;
        }
        remotes(status, &mut out)?;
        damage(status, &mut out)?;
        process(status, &mut out)
    }
}

fn node(status: &Status, out: &mut Writer<'_, '_>) -> Result<(), Error> {
    let facts = &status.node;
    let labels = [("version", &facts.version[..]), ("engine", &facts.engine), ("io", &facts.io), ("sync", &facts.sync)];
    let mut build =
        out.0.encode_descriptor("keyhole_build", "Version and setup of the node", None, MetricType::Info)?;
    build.encode_info(&Labels(&labels))?;
    out.gauge("keyhole_ready", "1 if the node is ready to serve requests, otherwise 0", None, u64::from(status.ready))?;
    let help = "1 if the condition holds, otherwise 0, by condition";
    let conditions: Vec<_> = CONDITIONS.iter().map(|name| [("condition", *name)]).collect();
    let is_so = |name: &str| u64::from(status.conditions.iter().any(|condition| condition.name == name));
    out.gauges("keyhole_condition", help, None, conditions.iter().map(|labels| (&labels[..], is_so(labels[0].1))))?;
    let behind = status.clock.behind_ms.unwrap_or(0) as f64 / 1e3;
    let help = "Seconds by which the clock is behind a stored timestamp; 0 if less than a minute";
    out.gauge("keyhole_clock_behind", help, Some(Unit::Seconds), behind)?;
    let seconds = |ms: Option<u64>| ms.unwrap_or(0) as f64 / 1e3;
    let help = "Time of the lock clock since 1970; 0 if no bucket has object lock";
    out.gauge("keyhole_lock_clock", help, Some(Unit::Seconds), seconds(status.clock.lock_ms))?;
    let help = "Seconds by which the clock is ahead of the lock clock, which does not follow it; 0 if it does";
    out.gauge("keyhole_lock_clock_refused", help, Some(Unit::Seconds), seconds(status.clock.lock_refused_ms))
}

fn remotes(status: &Status, out: &mut Writer<'_, '_>) -> Result<(), Error> {
    let labels: Vec<_> = status.remotes.iter().map(|remote| [("remote", &remote.remote[..])]).collect();
    let of = |value: fn(&RemoteStatus) -> u64| {
        labels.iter().zip(&status.remotes).map(move |(labels, remote)| (&labels[..], value(remote)))
    };
    let help = "1 if the remote accepts objects, otherwise 0; absent while it is paused";
    let active = labels.iter().zip(&status.remotes).filter(|(_, remote)| remote.state != "paused");
    let up = active.map(|(labels, remote)| (&labels[..], u64::from(remote.failure.is_none())));
    out.gauges("keyhole_remote_up", help, None, up)?;
    out.gauges("keyhole_remote_owed_objects", "Versions that the remote lacks", None, of(|remote| remote.owed))?;
    let help = "Plaintext bytes of the versions that the remote lacks";
    out.gauges("keyhole_remote_owed", help, Some(Unit::Bytes), of(|remote| remote.owed_bytes))?;
    let now_ms = status.clock.now_ms;
    let ages = labels.iter().zip(&status.remotes).map(|(labels, remote)| {
        (&labels[..], remote.oldest_ms.map_or(0, |oldest_ms| now_ms.saturating_sub(oldest_ms)) as f64 / 1e3)
    });
    out.gauges("keyhole_remote_lag", "Age of the oldest version that the remote lacks", Some(Unit::Seconds), ages)?;
    let confirmed = labels
        .iter()
        .zip(&status.remotes)
        .map(|(labels, remote)| (&labels[..], remote.confirmed_ms.unwrap_or(0) as f64 / 1e3));
    let help = "Time of the last confirmation since 1970; 0 if there is none since the start";
    out.gauges("keyhole_remote_last_confirmation", help, Some(Unit::Seconds), confirmed)?;
    let help = "Versions that the remote does not accept, or that cannot be read";
    out.gauges("keyhole_remote_exceptions", help, None, of(|remote| remote.exceptions.len() as u64))?;
    out.counters("keyhole_remote_shipped_objects", "Objects stored in the remote", None, of(|remote| remote.shipped))?;
    let help = "Bytes sent to the remote";
    out.counters("keyhole_remote_shipped", help, Some(Unit::Bytes), of(|remote| remote.shipped_bytes))?;
    out.counters(
        "keyhole_remote_deleted_objects",
        "Objects deleted from the remote",
        None,
        of(|remote| remote.deleted),
    )?;
    out.counters(
        "keyhole_remote_evicted_objects",
        "Versions evicted from the store",
        None,
        of(|remote| remote.evicted),
    )?;
    out.counters("keyhole_remote_failures", "Failed attempts to ship to the remote", None, of(|remote| remote.failures))
}

/// The names of all conditions.
const CONDITIONS: [&str; 12] = [
    "starting",
    "draining",
    "poisoned",
    "read-only",
    "store-absent",
    "worker-stuck",
    "damage",
    "full",
    "clock-behind",
    "lock-clock",
    "remote-failing",
    "remote-incomplete",
];

fn requests(status: &Status, out: &mut Writer<'_, '_>) -> Result<(), Error> {
    let requests = &status.requests;
    let by_code: Vec<_> = requests
        .operations
        .iter()
        .flat_map(|row| {
            row.by_code.iter().map(|(code, count)| ([("operation", &row.operation[..]), ("code", &code[..])], *count))
        })
        .collect();
    let help = "Finished requests, by operation and response status; aborted: no complete response was sent";
    out.counters("keyhole_requests", help, None, by_code.iter().map(|(labels, count)| (&labels[..], *count)))?;
    let errors: Vec<_> =
        ErrorCode::ALL.iter().map(|code| ([("code", code.code())], status.error_count(*code))).collect();
    let help = "Error responses, by S3 error code; SlowDown: the memory budget was exhausted";
    out.counters("keyhole_errors", help, None, errors.iter().map(|(labels, count)| (&labels[..], *count)))?;
    let help = "Requests with a customer key or for sealed bytes";
    out.counter("keyhole_sse_c_requests", help, None, requests.sse_c)?;
    let help = "Payload bytes received in request bodies, without framing";
    out.counter("keyhole_received", help, Some(Unit::Bytes), requests.received)?;
    let help = "Payload bytes sent in response bodies";
    out.counter("keyhole_sent", help, Some(Unit::Bytes), requests.sent)?;
    out.gauge("keyhole_requests_in_flight", "Requests in flight", None, requests.in_flight)
}

fn durations(status: &Status, out: &mut Writer<'_, '_>) -> Result<(), Error> {
    let help = "Duration of answered requests in seconds, from the parsed request head to the end of the response";
    let unit = Unit::Seconds;
    let mut family = out.0.encode_descriptor("keyhole_request_duration", help, Some(&unit), MetricType::Histogram)?;
    for row in &status.requests.durations {
        // Each bucket counts what exceeds the previous bound.
        let mut before = 0;
        let mut buckets: Vec<(f64, u64)> = Vec::with_capacity(BOUNDS_S.len() + 1);
        for (bound, within) in BOUNDS_S.iter().zip(&row.cumulative) {
            buckets.push((*bound, within - before));
            before = *within;
        }
        buckets.push((f64::INFINITY, row.count - before));
        let labels = [("class", &row.class[..])];
        let labels = Labels(&labels);
        let mut sample = family.encode_family(&labels)?;
        sample.encode_histogram::<NoLabelSet>(row.sum_s, row.count, &buckets, None)?;
    }
    Ok(())
}

fn connections(status: &Status, out: &mut Writer<'_, '_>) -> Result<(), Error> {
    let connections = &status.connections;
    let http = [("listener", "http")];
    let https = [("listener", "https")];
    let open = [(&http[..], connections.http), (&https[..], connections.https)];
    out.gauges("keyhole_connections", "Open connections, by listener", None, open)?;
    let accepted = [(&http[..], connections.http_accepted), (&https[..], connections.https_accepted)];
    out.counters("keyhole_connections_accepted", "Accepted connections, by listener", None, accepted)?;
    let succeeded = [("result", "succeeded")];
    let failed = [("result", "failed")];
    let handshakes = [(&succeeded[..], connections.handshakes), (&failed[..], connections.handshakes_failed)];
    out.counters("keyhole_tls_handshakes", "TLS handshakes, by result", None, handshakes)
}

fn workers(status: &Status, out: &mut Writer<'_, '_>) -> Result<(), Error> {
    let workers = &status.workers;
    let names: Vec<String> = (0..workers.len()).map(|worker| worker.to_string()).collect();
    let labels: Vec<_> = names.iter().map(|name| [("worker", &name[..])]).collect();
    let quiet = labels.iter().zip(workers).map(|(labels, worker)| (&labels[..], worker.quiet_s));
    let help = "Seconds since the last heartbeat of a worker; one is due every second";
    out.gauges("keyhole_worker_quiet", help, Some(Unit::Seconds), quiet)?;
    for (name, help, of) in [
        ("keyhole_blocks_in_use", "Blocks of 1 MiB held by requests, by worker", 0),
        ("keyhole_pages_in_use", "Pages of 4 KiB held by requests, by worker", 1),
        ("keyhole_admission_waiters", "Requests waiting for memory, by worker", 2),
    ] {
        let samples = labels.iter().zip(workers);
        let value = |at: usize| [workers[at].blocks, workers[at].pages, workers[at].waiters][of];
        out.gauges(name, help, None, samples.enumerate().map(|(at, (labels, _))| (&labels[..], value(at))))?;
    }
    let limits = &status.limits;
    out.gauge("keyhole_blocks_limit", "Limit of 1 MiB blocks held by one worker's requests", None, limits.blocks)?;
    out.gauge("keyhole_pages_limit", "Limit of 4 KiB pages held by one worker's requests", None, limits.pages)?;
    let help = "Limit of requests of one worker waiting for memory; more are refused with SlowDown";
    out.gauge("keyhole_admission_waiters_limit", help, None, limits.waiters)
}

fn space(store: &StoreStatus, out: &mut Writer<'_, '_>) -> Result<(), Error> {
    for (name, help, bytes) in [
        ("keyhole_store_capacity", "Capacity of the store in bytes", store.figures.capacity),
        ("keyhole_store_allocated", "Bytes of the file or device allocated to the store", store.figures.allocated),
        ("keyhole_store_reserved", "Bytes reserved for deletions, the cleaner and checkpoints", store.reserved),
        ("keyhole_store_live", "Bytes of live (referenced) records and blocks", store.figures.live),
        ("keyhole_store_live_limit", "Limit of the bytes of live records and blocks", store.live_max),
        (
            "keyhole_store_dead",
            "Bytes of written records and blocks without a reference, to be reclaimed",
            store.figures.dead,
        ),
        ("keyhole_index_memory", "Memory of the index in bytes", store.figures.index),
        ("keyhole_noncurrent", "Plaintext bytes of noncurrent versions", store.figures.noncurrent_bytes),
        ("keyhole_locked", "Plaintext bytes of versions that are locked", store.figures.locked_bytes),
        ("keyhole_evicted", "Plaintext bytes of versions that only a remote has", store.figures.evicted_bytes),
    ] {
        out.gauge(name, help, Some(Unit::Bytes), bytes)?;
    }
    for (name, help, count) in [
        ("keyhole_buckets", "Buckets", store.figures.buckets),
        ("keyhole_objects", "Objects", store.figures.objects),
        ("keyhole_noncurrent_versions", "Noncurrent versions of objects", store.figures.noncurrent),
        ("keyhole_delete_markers", "Delete markers", store.figures.markers),
        ("keyhole_evicted_versions", "Versions whose bytes only a remote has", store.figures.evicted),
        ("keyhole_uploads", "Multipart uploads in progress", store.figures.uploads),
        ("keyhole_bodies", "Bodies in the index, including those of parts", store.figures.bodies),
    ] {
        out.gauge(name, help, None, count)?;
    }
    let segments = &store.segments;
    let states = [
        ([("state", "blank")], segments.blank),
        ([("state", "open")], segments.open),
        ([("state", "closed")], segments.closed),
        ([("state", "condemned")], segments.condemned),
        ([("state", "damaged")], segments.damaged),
    ];
    let samples = states.iter().map(|(labels, count)| (&labels[..], *count));
    out.gauges("keyhole_segments", "Segments of the store, by state", None, samples)
}

fn writes(store: &StoreStatus, out: &mut Writer<'_, '_>) -> Result<(), Error> {
    let written = &store.figures.written;
    let kinds = [
        ([("kind", "records")], written.records),
        ([("kind", "blocks")], written.blocks),
        ([("kind", "moved")], written.moved),
        ([("kind", "checkpoints")], written.checkpoints),
        ([("kind", "other")], written.other),
    ];
    let samples = kinds.iter().map(|(labels, bytes)| (&labels[..], *bytes));
    out.counters("keyhole_written", "Bytes written to the medium, by kind", Some(Unit::Bytes), samples)?;
    let help = "Body bytes that requests appended to the store";
    out.counter("keyhole_appended", help, Some(Unit::Bytes), written.appended)?;
    let help = "Bytes written per body byte appended by requests since the start, including padding and footers";
    out.gauge("keyhole_write_amplification_ratio", help, None, written.amplification.unwrap_or(1.0))?;
    let sizes: Vec<String> = (0..store.figures.batches.len()).map(|power| (1u64 << power).to_string()).collect();
    let labels: Vec<_> = sizes.iter().map(|size| [("commits", &size[..])]).collect();
    let samples = labels.iter().zip(&store.figures.batches).map(|(labels, count)| (&labels[..], *count));
    let help = "Batches of records, by commits per batch: at most the label and more than half of it";
    out.counters("keyhole_batches", help, None, samples)?;
    let cleaner = &store.figures.cleaner;
    for (name, help, count) in [
        ("keyhole_syncs", "Syncs of the medium", store.syncs),
        ("keyhole_durable_writes", "Batches made durable by their own write, without a sync", store.durable_writes),
        ("keyhole_checkpoints", "Completed checkpoints", cleaner.checkpoints),
        ("keyhole_cleaner_segments_cleaned", "Cleaned segments: live bytes moved", cleaner.segments_cleaned),
        ("keyhole_cleaner_segments_freed", "Freed segments: now blank", cleaner.segments_freed),
        ("keyhole_cleaner_segments_discarded", "Discarded segments: space returned", store.segments_discarded),
    ] {
        out.counter(name, help, None, count)?;
    }
    let help = "Live bytes moved by the cleaner";
    out.counter("keyhole_cleaner_moved", help, Some(Unit::Bytes), cleaner.bytes_moved)
}

fn reads(store: &StoreStatus, out: &mut Writer<'_, '_>) -> Result<(), Error> {
    let reads = &store.reads;
    let cached = [("path", "cached")];
    let direct = [("path", "direct")];
    let help = "Reads of the medium, through the page cache or past it";
    out.counters("keyhole_reads", help, None, [(&cached[..], reads.cached), (&direct[..], reads.direct)])?;
    let help = "Bytes read from the medium, through the page cache or past it";
    let samples = [(&cached[..], reads.cached_bytes), (&direct[..], reads.direct_bytes)];
    out.counters("keyhole_read", help, Some(Unit::Bytes), samples)
}

fn buckets(status: &Status, out: &mut Writer<'_, '_>) -> Result<(), Error> {
    let labels: Vec<_> = status.buckets.iter().map(|bucket| [("bucket", &bucket.bucket[..])]).collect();
    let all = || labels.iter().map(|labels| &labels[..]).zip(&status.buckets);
    out.gauges("keyhole_bucket_objects", "Objects, by bucket", None, all().map(|(at, bucket)| (at, bucket.objects)))?;
    let help = "Plaintext bytes of objects and of parts of uploads, by bucket";
    out.gauges("keyhole_bucket", help, Some(Unit::Bytes), all().map(|(at, bucket)| (at, bucket.bytes)))?;
    let quotas = all().filter_map(|(at, bucket)| bucket.quota.map(|quota| (at, quota)));
    out.gauges("keyhole_bucket_quota", "Quota in bytes, by bucket with a quota", Some(Unit::Bytes), quotas)?;
    let help = "Buckets omitted from the per-bucket metrics because there are too many";
    out.gauge("keyhole_buckets_left_out", help, None, status.buckets_left_out)
}

fn damage(status: &Status, out: &mut Writer<'_, '_>) -> Result<(), Error> {
    let damage = &status.damage;
    let places = [
        ([("found_by", "start")], damage.at_start),
        ([("found_by", "cleaner")], damage.cleaner),
        ([("found_by", "read")], damage.reads),
        ([("found_by", "scrub")], damage.scrubs.damaged),
    ];
    let samples = places.iter().map(|(labels, count)| (&labels[..], *count));
    out.counters("keyhole_damage", "Damaged places found, by detector", None, samples)?;
    let help = "Objects found by reads whose undamaged bytes do not authenticate under their key";
    out.counter("keyhole_not_authentic_objects", help, None, damage.not_authentic)?;
    out.counter("keyhole_scrubs", "Completed scrubs", None, damage.scrubs.completed)?;
    let help = "Bytes verified by scrubs";
    out.counter("keyhole_scrubbed", help, Some(Unit::Bytes), damage.scrubs.bytes)?;
    let help = "Unix time in seconds of the end of the last scrub; 0 if none has completed since the start";
    let ended = damage.scrubs.last_ended_ms.unwrap_or(0) as f64 / 1e3;
    out.gauge("keyhole_scrub_last_end_timestamp", help, Some(Unit::Seconds), ended)
}

/// Process metrics under their conventional names.
fn process(status: &Status, out: &mut Writer<'_, '_>) -> Result<(), Error> {
    let process = &status.process;
    out.gauge("process_resident_memory", "Resident memory in bytes", Some(Unit::Bytes), process.resident)?;
    let help = "Peak of the resident memory in bytes";
    out.gauge("process_resident_memory_peak", help, Some(Unit::Bytes), process.resident_peak)?;
    let help = "Memory budget of the node in bytes";
    out.gauge("keyhole_memory_limit", help, Some(Unit::Bytes), status.node.memory.memory)?;
    let help = "Limit of the buffer memory of all workers in bytes";
    out.gauge("keyhole_buffers_limit", help, Some(Unit::Bytes), status.node.memory.buffers)?;
    out.gauge("process_open_fds", "Open file descriptors", None, process.open_fds)?;
    out.gauge("process_max_fds", "Limit of open file descriptors", None, process.max_fds)?;
    out.counter("process_cpu", "CPU time in seconds", Some(Unit::Seconds), process.cpu_s)?;
    let started = status.started_ms as f64 / 1e3;
    out.gauge("process_start_time", "Unix time in seconds of the start of the node", Some(Unit::Seconds), started)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::status::sample_status;

    /// Help and type of each family, by name.
    type Families = BTreeMap<String, (String, String)>;

    /// Parses a text into its families and its samples: name and line.
    fn read(text: &str) -> (Families, Vec<(String, String)>) {
        let mut families = Families::new();
        let mut samples = Vec::new();
        for line in text.lines() {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match words[..] {
                ["#", "HELP", name, help] => families.entry(name.to_owned()).or_default().0 = help.to_owned(),
                ["#", "TYPE", name, kind] => families.entry(name.to_owned()).or_default().1 = kind.to_owned(),
                ["#", ..] => {}
                _ => {
                    let name = line.split(['{', ' ']).next().unwrap();
                    samples.push((name.to_owned(), line.to_owned()));
                }
            }
        }
        (families, samples)
    }

    #[test]
    fn names_follow_the_conventions() {
        let (content_type, text) = encode(&sample_status(), "application/openmetrics-text; version=1.0.0").unwrap();
        assert!(content_type.starts_with("application/openmetrics-text") && text.ends_with("# EOF\n"));
        let (families, samples) = read(&text);
        assert!(families.len() > 50 && samples.len() > 100);
        for (name, (help, kind)) in &families {
            assert!(name.starts_with("keyhole_") || name.starts_with("process_"), "{name}");
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'),
                "{name}"
            );
            assert!(help.len() > 5 && !help.ends_with('.'), "{name}: {help}");
            assert!(["counter", "gauge", "histogram", "info"].contains(&&kind[..]), "{name}: {kind}");
            let not_base = ["_ms", "_milliseconds", "_kib", "_percent", "_total_total", "_bytes_bytes"];
            assert!(!not_base.iter().any(|unit| name.contains(unit)), "{name}");
            assert!(kind != "gauge" || !name.ends_with("_total"), "{name} does not only grow");
        }
        let mut seen = BTreeSet::new();
        for (name, line) in &samples {
            let suffixes = ["_total", "_bucket", "_sum", "_count", "_info", ""];
            let family = suffixes.iter().find_map(|suffix| families.get_key_value(name.strip_suffix(suffix)?));
            let (family, (_, kind)) = family.unwrap_or_else(|| panic!("{name} is of no family"));
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} of {family}");
            assert!(seen.insert(line.rsplit_once(' ').unwrap().0.to_owned()), "twice: {line}");
        }
    }

    #[test]
    fn formats_have_equal_samples() {
        let status = sample_status();
        let (_, open) = encode(&status, "application/openmetrics-text").unwrap();
        let (content_type, plain) = encode(&status, "text/plain;version=0.0.4;q=0.5, */*;q=0.1").unwrap();
        assert!(content_type.starts_with("text/plain; version=0.0.4"), "{content_type}");
        // The formats write bounds differently.
        let values = |text: &str| -> BTreeSet<String> {
            let samples = read(text).1.into_iter();
            samples.filter(|(name, _)| !name.ends_with("_bucket")).map(|(_, line)| line).collect()
        };
        assert_eq!(values(&open), values(&plain));
        let buckets = |text: &str| read(text).1.iter().filter(|(name, _)| name.ends_with("_bucket")).count();
        assert_eq!(buckets(&open), buckets(&plain));
    }

    #[test]
    fn counters_are_exposed_exactly() {
        let mut status = sample_status();
        status.damage.reads = 3;
        status.damage.not_authentic = 5;
        let (_, text) = encode(&status, "").unwrap();
        for line in [
            "keyhole_requests_total{operation=\"GetObject\",code=\"200\"} 9007199254740993",
            "keyhole_requests_total{operation=\"PutObject\",code=\"aborted\"} 2",
            "keyhole_errors_total{code=\"SlowDown\"} 4",
            "keyhole_errors_total{code=\"NoSuchKey\"} 0",
            "keyhole_received_bytes_total 18446744073709551615",
            "keyhole_request_duration_seconds_bucket{class=\"get\",le=\"0.001\"} 3",
            "keyhole_request_duration_seconds_bucket{class=\"get\",le=\"+Inf\"} 7",
            "keyhole_request_duration_seconds_count{class=\"get\"} 7",
            "keyhole_damage_total{found_by=\"read\"} 3",
            "keyhole_not_authentic_objects_total 5",
            "keyhole_condition{condition=\"full\"} 1",
            "keyhole_condition{condition=\"poisoned\"} 0",
            "keyhole_bucket_bytes{bucket=\"a-bucket\"} 123456",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in {text}");
        }
    }

    #[test]
    fn every_metric_is_in_the_manual() {
        let manual = include_str!("../../docs/OPERATIONS.md");
        let (_, text) = encode(&sample_status(), "").unwrap();
        for name in read(&text).0.keys() {
            assert!(manual.contains(&format!("`{name}`")), "{name} is not in OPERATIONS.md");
        }
    }
}
