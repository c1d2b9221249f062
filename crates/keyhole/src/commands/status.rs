//! `keyhole status`: shows the status of a node in the terminal, from the same snapshot as the
//! status page and the metrics.

use std::io::{self, IsTerminal};
use std::thread::sleep;
use std::time::Duration;

use comfy_table::Table;

use super::operate::{print, size, unexpected};
use super::stat::table;
use super::{CommandError, Result};
use crate::cli::Target;
use crate::cli::store::StatusOptions;
use crate::control::{self, Reply, Request};
use crate::status::format::{count, duration_or_dash, moment, rate, share, span, throughput};
use crate::status::{RemoteStatus, Status};
use crate::store::StoreLocation;

pub(crate) fn run(options: &StatusOptions) -> Result<()> {
    loop {
        let status = ask(&options.target)?;
        let text = if !options.json {
            text(&status)
        } else if options.watch.is_some() {
            serde_json::to_string(&status)?
        } else {
            serde_json::to_string_pretty(&status)?
        };
        let Some(seconds) = options.watch else {
            print(&format!("{text}\n"));
            return verdict(&status);
        };
        // Start from the top of a cleared screen on a terminal.
        let clear = if !options.json && io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
        print(&format!("{clear}{text}\n"));
        sleep(Duration::from_secs(seconds));
    }
}

/// Asks the node that serves a store for its status.
pub(super) fn ask(target: &Target) -> Result<Status> {
    let location = StoreLocation::find(&target.data, target.state.as_deref())?;
    match control::ask(&location.socket(), &Request::Status {}, &mut |_| {})? {
        Some(Reply::Status(status)) => Ok(*status),
        Some(Reply::Failed { message }) => Err(CommandError::Other(message)),
        Some(_) => Err(unexpected()),
        None => Err(CommandError::Other(format!(
            "no node serves {0}; use `keyhole stat {0}` for the store alone",
            target.data.display()
        ))),
    }
}

/// Succeeds if there are no conditions.
fn verdict(status: &Status) -> Result<()> {
    let names: Vec<&str> = status.conditions.iter().map(|condition| &condition.name[..]).collect();
    match names[..] {
        [] => Ok(()),
        _ if names.contains(&"damage") => Err(CommandError::Damaged(format!("unhealthy: {}", names.join(", ")))),
        _ => Err(CommandError::Other(format!("unhealthy: {}", names.join(", ")))),
    }
}

fn text(status: &Status) -> String {
    let node = &status.node;
    let mut text = format!(
        "keyhole {}, {}, up {}: {}, AES-256-GCM {}, sync {}\n",
        node.version,
        if status.ready { "ready" } else { "not ready" },
        span(status.uptime_s),
        node.io,
        node.engine,
        node.sync
    );
    for condition in &status.conditions {
        text += &format!("! {}: {}\n", condition.name, condition.text);
    }
    let mut tables = vec![now(status), requests(status)];
    let answered = status.requests.durations.iter().any(|row| row.count > 0);
    tables.extend(answered.then(|| latencies(status)));
    tables.extend((!status.requests.errors.is_empty()).then(|| errors(status)));
    tables.extend(store(status));
    tables.extend((!status.buckets.is_empty()).then(|| buckets(status)));
    tables.extend((!status.remotes.is_empty()).then(|| remotes(&status.remotes)));
    tables.push(workers(status));
    tables.push(process(status));
    let tables: Vec<String> = tables.iter().map(|table| format!("\n{table}\n")).collect();
    text + tables.concat().trim_end()
}

fn now(status: &Status) -> Table {
    let now = &status.now;
    let mut table = table(&["last 10 seconds", ""], 1);
    let per_second = |number: f64| format!("{} /s", rate(number));
    table.add_row(["requests", &per_second(now.requests_per_s)]);
    table.add_row(["payload in", &throughput(now.received_per_s).to_string()]);
    table.add_row(["payload out", &throughput(now.sent_per_s).to_string()]);
    let latency = format!("{}, {}", duration_or_dash(now.p50_s), duration_or_dash(now.p99_s));
    table.add_row(["latency, p50 and p99", &latency]);
    table.add_row(["errors, 4xx", &per_second(now.client_errors_per_s)]);
    table.add_row(["errors, 5xx", &per_second(now.server_errors_per_s)]);
    table
}

fn requests(status: &Status) -> Table {
    let requests = &status.requests;
    let mut table = table(&["requests since start", "all", "done", "4xx", "5xx", "aborted"], 1);
    for row in &requests.operations {
        let aborted = row.by_code.get("aborted").copied().unwrap_or(0);
        let figures = [row.total, row.with_code(&['2', '3']), row.with_code(&['4']), row.with_code(&['5']), aborted];
        table.add_row([row.operation.clone()].into_iter().chain(figures.map(count)));
    }
    for (name, figure) in [
        ("all", count(requests.total)),
        ("with SSE-C", count(requests.sse_c)),
        ("in flight", count(requests.in_flight)),
        ("payload in", size(requests.received)),
        ("payload out", size(requests.sent)),
    ] {
        table.add_row([name, &figure]);
    }
    table
}

fn latencies(status: &Status) -> Table {
    let mut table = table(&["latency since start", "answers", "p50", "p90", "p99"], 1);
    for row in status.requests.durations.iter().filter(|row| row.count > 0) {
        let figures = [row.p50_s, row.p90_s, row.p99_s].map(duration_or_dash);
        table.add_row([row.class.clone(), count(row.count)].into_iter().chain(figures));
    }
    table
}

fn errors(status: &Status) -> Table {
    let mut table = table(&["errors by code", ""], 1);
    for (code, number) in &status.requests.errors {
        table.add_row([code, &count(*number)]);
    }
    table
}

fn store(status: &Status) -> Option<Table> {
    let store = status.store.as_ref()?;
    let written = &store.figures.written;
    let cleaner = &store.figures.cleaner;
    let mut table = table(&["store", "", ""], 1);
    for (name, bytes) in [("live", store.figures.live), ("dead", store.figures.dead), ("reserved", store.reserved)] {
        table.add_row([name, &size(bytes), &share(bytes, store.figures.capacity)]);
    }
    table.add_row(["capacity", &size(store.figures.capacity), if store.ring { "ring" } else { "" }]);
    let noncurrent = size(store.figures.noncurrent_bytes);
    for (name, number, bytes) in [
        ("buckets", store.figures.buckets, ""),
        ("objects", store.figures.objects, ""),
        ("noncurrent versions", store.figures.noncurrent, &noncurrent),
        ("delete markers", store.figures.markers, ""),
        ("uploads", store.figures.uploads, ""),
    ] {
        table.add_row([name, &count(number), bytes]);
    }
    table.add_row(["plaintext of locked versions", &size(store.figures.locked_bytes), ""]);
    if store.figures.evicted > 0 {
        table.add_row(["evicted versions", &count(store.figures.evicted), &size(store.figures.evicted_bytes)]);
    }
    if let Some(ms) = status.clock.lock_ms {
        table.add_row(["lock clock", &moment(ms), ""]);
    }
    let amplification = written.amplification.map_or_else(|| "–".to_owned(), |factor| format!("{factor:.2} times"));
    table.add_row(["index memory", &size(store.figures.index), ""]);
    table.add_row(["written since start", &size(written.total), &amplification]);
    table.add_row(["syncs, durable writes", &count(store.syncs), &count(store.durable_writes)]);
    table.add_row(["moved by the cleaner", &size(cleaner.bytes_moved), &share(written.moved, written.total)]);
    table.add_row(["segments freed", &count(cleaner.segments_freed), ""]);
    Some(table)
}

fn buckets(status: &Status) -> Table {
    let mut table = table(&["bucket", "objects", "noncurrent", "markers", "bytes", "quota", ""], 1);
    for bucket in &status.buckets {
        let quota = bucket.quota.map_or_else(|| "–".to_owned(), size);
        let used = bucket.quota.map(|quota| share(bucket.charged, quota)).unwrap_or_default();
        let [objects, noncurrent, markers] = [bucket.objects, bucket.noncurrent, bucket.markers].map(count);
        table.add_row([bucket.bucket.clone(), objects, noncurrent, markers, size(bucket.bytes), quota, used]);
    }
    if status.buckets_left_out > 0 {
        table.add_row([format!("and {} more", count(status.buckets_left_out))]);
    }
    table
}

/// Shows remotes.
pub(super) fn remotes(remotes: &[RemoteStatus]) -> Table {
    let mut table = table(&["remote", "state", "owed", "bytes", "oldest", "confirmed", "shipped", "failures"], 2);
    for remote in remotes {
        let time = |ms: Option<u64>| ms.map_or_else(|| "–".to_owned(), moment);
        let [owed, shipped, failures] = [remote.owed, remote.shipped, remote.failures].map(count);
        table.add_row([
            remote.remote.clone(),
            remote.state.clone(),
            owed,
            size(remote.owed_bytes),
            time(remote.oldest_ms),
            time(remote.confirmed_ms),
            shipped,
            failures,
        ]);
    }
    table
}

fn workers(status: &Status) -> Table {
    let limits = &status.limits;
    let mut table = table(&["worker", "heartbeat", "connections", "in flight", "blocks", "pages", "waiting"], 1);
    for (number, worker) in status.workers.iter().enumerate() {
        table.add_row([
            number.to_string(),
            format!("{:.1} s ago", worker.quiet_s),
            count(worker.connections),
            count(worker.in_flight),
            format!("{} / {}", worker.blocks, limits.blocks),
            format!("{} / {}", count(worker.pages), count(limits.pages)),
            format!("{} / {}", count(worker.waiters), count(limits.waiters)),
        ]);
    }
    table
}

fn process(status: &Status) -> Table {
    let process = &status.process;
    let connections = &status.connections;
    let damage = &status.damage;
    let mut table = table(&["node", ""], 1);
    for (name, figure) in [
        ("connections, HTTP and HTTPS", format!("{}, {}", count(connections.http), count(connections.https))),
        ("resident memory", format!("{} of {}", size(process.resident), size(status.node.memory.memory))),
        ("buffer limit", size(status.node.memory.buffers)),
        ("CPU time", span(process.cpu_s)),
        ("file descriptors", count(process.open_fds)),
        ("damaged places", count(damage.places())),
        ("objects that do not authenticate", count(damage.not_authentic)),
    ] {
        table.add_row([name, &figure]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::sample_status;

    #[test]
    fn text_shows_all_sections() {
        let text = text(&sample_status());
        for part in [
            "! full: The store is full",
            "GetObject",
            "9,007,199,254,741,000",
            "SlowDown",
            "a-bucket",
            "120.6 KiB",
            "and 9 more",
            "1,024",
            "vault",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn conditions_decide_exit_code() {
        let mut status = sample_status();
        assert!(matches!(verdict(&status), Err(CommandError::Damaged(text)) if text.contains("damage, full")));
        status.conditions.retain(|condition| condition.name == "full");
        assert!(matches!(verdict(&status), Err(CommandError::Other(_))));
        status.conditions.clear();
        assert!(verdict(&status).is_ok());
    }
}
