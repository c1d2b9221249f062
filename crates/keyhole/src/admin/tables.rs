//! The tables of the status page.

use super::view::{Datum, Row, Table};
use crate::status::format::{count, moment, share, size, span};
use crate::status::{Status, StoreStatus};

/// Returns all tables in the order of the page.
pub(super) fn tables(status: &Status) -> Vec<Table> {
    let mut tables = vec![operations(status), latencies(status), errors(status)];
    if let Some(store) = &status.store {
        tables.extend([written(store), commits(store), contents(status, store), cleaner(store), buckets(status)]);
    }
    if !status.remotes.is_empty() {
        tables.push(remotes(status));
    }
    tables.extend([workers(status), process(status)]);
    tables
}

fn table(title: &'static str, head: &[&'static str], rows: Vec<Row>, none: &'static str) -> Table {
    Table { title, wide: false, head: head.to_vec(), rows, none, note: String::new() }
}

fn operations(status: &Status) -> Table {
    let rows = status.requests.operations.iter().map(|row| {
        let aborted = row.by_code.get("aborted").copied().unwrap_or(0);
        let done = row.with_code(&['2', '3']);
        let client = row.with_code(&['4']);
        let server = row.with_code(&['5']);
        Row::new(&row.operation, [row.total, done, client, server, aborted].map(Datum::count))
    });
    let head = ["Operation", "Requests", "Done", "4xx", "5xx", "Aborted"];
    let mut table = table("Operations", &head, rows.collect(), "No requests yet.");
    table.wide = true;
    table
}

fn latencies(status: &Status) -> Table {
    let rows = status.requests.durations.iter().filter(|row| row.count > 0).map(|row| {
        let figures = [row.p50_s, row.p90_s, row.p99_s].map(Datum::seconds);
        Row::new(&row.class, [Datum::count(row.count)].into_iter().chain(figures))
    });
    let head = ["Class", "Answers", "p50", "p90", "p99"];
    table("Latency since start", &head, rows.collect(), "No responses yet.")
}

fn errors(status: &Status) -> Table {
    let mut errors: Vec<(&String, &u64)> = status.requests.errors.iter().collect();
    errors.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let rows = errors.into_iter().map(|(code, count)| Row::new(code, [Datum::count(*count)]));
    table("Errors by code", &["Code", "Replies"], rows.collect(), "No errors.")
}

fn written(store: &StoreStatus) -> Table {
    let written = &store.figures.written;
    let rows = [
        ("records", written.records),
        ("blocks", written.blocks),
        ("moved by the cleaner", written.moved),
        ("checkpoints", written.checkpoints),
        ("other", written.other),
        ("all", written.total),
    ];
    let rows =
        rows.map(|(name, bytes)| Row::new(name, [Datum::size(bytes), Datum::new(share(bytes, written.total), bytes)]));
    let mut table = table("Wear", &["Written", "Bytes", "Share"], rows.into(), "");
    let factor = written.amplification.map_or_else(|| "–".to_owned(), |factor| format!("{factor:.2}"));
    table.note = format!("Since start, for {} of body data. Write amplification: {factor}.", size(written.appended));
    table
}

fn commits(store: &StoreStatus) -> Table {
    let all = store.figures.batches.iter().sum();
    let last = store.figures.batches.len().saturating_sub(1);
    let rows = store.figures.batches.iter().enumerate().filter(|(_, count)| **count > 0).map(|(power, count)| {
        let least = (1u64 << power) / 2 + 1;
        let most = 1u64 << power;
        let name = match power {
            0 | 1 => most.to_string(),
            _ if power == last => format!("more than {}", most / 2),
            _ => format!("{least} to {most}"),
        };
        Row::new(name, [Datum::count(*count), Datum::new(share(*count, all), count)])
    });
    let head = ["Commits per batch", "Batches", "Share"];
    let mut table = table("Group commit", &head, rows.collect(), "No writes yet.");
    table.note = format!("{} syncs, {} durable writes.", count(store.syncs), count(store.durable_writes));
    table
}

fn contents(status: &Status, store: &StoreStatus) -> Table {
    let counts = [
        ("buckets", store.figures.buckets),
        ("objects", store.figures.objects),
        ("noncurrent versions", store.figures.noncurrent),
        ("delete markers", store.figures.markers),
        ("evicted versions", store.figures.evicted),
        ("uploads in progress", store.figures.uploads),
        ("bodies", store.figures.bodies),
    ];
    let sizes = [
        ("plaintext of noncurrent versions", store.figures.noncurrent_bytes),
        ("plaintext of locked versions", store.figures.locked_bytes),
        ("plaintext of evicted versions", store.figures.evicted_bytes),
        ("index memory", store.figures.index),
        ("capacity", store.figures.capacity),
        ("allocated", store.figures.allocated),
    ];
    let rows = counts.map(|(name, count)| Row::new(name, [Datum::count(count)]));
    let sizes = sizes.map(|(name, bytes)| Row::new(name, [Datum::size(bytes)]));
    let lock_clock =
        status.clock.lock_ms.map_or_else(|| Datum::new("no object lock", ""), |ms| Datum::new(moment(ms), ms));
    let lock_clock = Row::new("lock clock", [lock_clock]);
    let mut table = table("Store", &["", ""], rows.into_iter().chain(sizes).chain([lock_clock]).collect(), "");
    if store.ring {
        "Ring: when the store is full, the oldest objects are deleted.".clone_into(&mut table.note);
    }
    table
}

fn cleaner(store: &StoreStatus) -> Table {
    let cleaner = &store.figures.cleaner;
    let segments = &store.segments;
    let rows = [
        ("segments cleaned", cleaner.segments_cleaned),
        ("segments freed", cleaner.segments_freed),
        ("segments discarded", store.segments_discarded),
        ("checkpoints", cleaner.checkpoints),
        ("segments blank", segments.blank),
        ("segments open", segments.open),
        ("segments closed", segments.closed),
        ("segments condemned", segments.condemned),
        ("segments damaged", segments.damaged),
    ];
    let rows = rows.map(|(name, count)| Row::new(name, [Datum::count(count)]));
    let moved = Row::new("bytes moved", [Datum::size(cleaner.bytes_moved)]);
    table("Cleaner and segments", &["", ""], rows.into_iter().chain([moved]).collect(), "")
}

fn buckets(status: &Status) -> Table {
    let rows = status.buckets.iter().map(|bucket| {
        let quota = bucket.quota.map_or_else(Datum::dash, Datum::size);
        let used =
            bucket.quota.map_or_else(Datum::dash, |quota| Datum::new(share(bucket.charged, quota), bucket.charged));
        Row::new(&bucket.bucket, [Datum::count(bucket.objects), Datum::size(bucket.bytes), quota, used])
    });
    let head = ["Bucket", "Objects", "Bytes", "Quota", "Used"];
    let mut table = table("Buckets", &head, rows.collect(), "No buckets yet.");
    table.wide = true;
    if status.buckets_left_out > 0 {
        table.note = format!("The first buckets by name; there are {} more.", count(status.buckets_left_out));
    }
    table
}

fn remotes(status: &Status) -> Table {
    let time = |ms: Option<u64>| ms.map_or_else(Datum::dash, |ms| Datum::new(moment(ms), ms));
    let rows = status.remotes.iter().map(|remote| {
        Row::new(
            &remote.remote,
            [
                Datum::new(&remote.state, &remote.state),
                Datum::count(remote.owed),
                Datum::size(remote.owed_bytes),
                time(remote.oldest_ms),
                time(remote.confirmed_ms),
                Datum::count(remote.shipped),
                Datum::count(remote.failures),
            ],
        )
    });
    let head = ["Remote", "State", "Owed", "Bytes", "Oldest", "Confirmed", "Shipped", "Failures"];
    let mut table = table("Remotes", &head, rows.collect(), "");
    table.wide = true;
    "Owed are the versions that the remote lacks.".clone_into(&mut table.note);
    table
}

fn workers(status: &Status) -> Table {
    let limits = &status.limits;
    let of = |number: u64, limit: u64| Datum::new(format!("{} / {}", count(number), count(limit)), number);
    let rows = status.workers.iter().enumerate().map(|(number, worker)| {
        let quiet = Datum::new(format!("{:.1}\u{a0}s ago", worker.quiet_s), worker.quiet_s);
        Row::new(
            number.to_string(),
            [
                quiet,
                Datum::count(worker.in_flight),
                of(worker.blocks, limits.blocks),
                of(worker.pages, limits.pages),
                of(worker.waiters, limits.waiters),
            ],
        )
    });
    let head = ["Worker", "Heartbeat", "In flight", "Blocks", "Pages", "Waiting"];
    let mut table = table("Workers", &head, rows.collect(), "");
    table.wide = true;
    "Blocks of 1 MiB and pages of 4 KiB held by requests, and requests waiting for them.".clone_into(&mut table.note);
    table
}

fn process(status: &Status) -> Table {
    let process = &status.process;
    let connections = &status.connections;
    let damage = &status.damage;
    let scrubbed = damage
        .scrubs
        .last_ended_ms
        .map_or_else(|| Datum::new("none since start", ""), |ended_ms| Datum::new(moment(ended_ms), ended_ms));
    let rows = vec![
        Row::new("connections, HTTP", [Datum::count(connections.http)]),
        Row::new("connections, HTTPS", [Datum::count(connections.https)]),
        Row::new("TLS handshakes", [Datum::count(connections.handshakes)]),
        Row::new("failed TLS handshakes", [Datum::count(connections.handshakes_failed)]),
        Row::new("resident memory", [Datum::size(process.resident)]),
        Row::new("peak resident memory", [Datum::size(process.resident_peak)]),
        Row::new("memory budget", [Datum::size(status.node.memory.memory)]),
        Row::new("buffer limit", [Datum::size(status.node.memory.buffers)]),
        Row::new("CPU time", [Datum::new(span(process.cpu_s), process.cpu_s)]),
        Row::new("file descriptors", [Datum::count(process.open_fds)]),
        Row::new("last scrub", [scrubbed]),
        Row::new("damaged places", [Datum::count(damage.places())]),
        Row::new("objects that do not authenticate", [Datum::count(damage.not_authentic)]),
    ];
    table("Node", &["", ""], rows, "")
}
