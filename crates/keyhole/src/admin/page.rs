//! The status page: made whole by the node, so that it works without JavaScript. Its own script only puts a new one in its place.
//!
//! This is about what is shown; how it looks is in `templates/`. Every figure has its exact value beside what is shown of it, in a
//! `data` element.

use askama::Template;
use hyper::StatusCode;

use super::plot::{self, Plot, Series};
use super::{Reply, failed, typed};
use crate::status::say::{count, duration, duration_or_dash, joined, rate, share, size, span, throughput};
use crate::status::{LATELY, MINUTES, Monitor, OperationStatus, SECONDS, Sample, Severity, Status, StoreStatus};

pub(super) const STYLE: &str = include_str!("../../templates/status.css");
pub(super) const SCRIPT: &str = include_str!("../../templates/status.js");
pub(super) const ICON: &str = include_str!("../../templates/icon.svg");

/// The page as it is now.
pub(super) fn render(monitor: &Monitor) -> Reply {
    let (seconds, minutes) = monitor.samples();
    match Page::new(&monitor.status(), &seconds, &minutes).render() {
        Ok(html) => typed("text/html; charset=utf-8", html.into()),
        Err(error) => {
            let mut reply = failed(&error);
            *reply.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            reply
        }
    }
}

#[derive(Template)]
#[template(path = "status.html")]
struct Page {
    state: State,
    version: String,
    facts: String,
    uptime: Datum,
    now: String,
    conditions: Vec<Shown>,
    figures: Vec<Figure>,
    space: Option<Space>,
    tables: Vec<Table>,
}

/// What the node is, in a word or two.
struct State {
    class: &'static str,
    text: &'static str,
}

struct Shown {
    class: &'static str,
    text: String,
}

/// What is shown, and the exact value.
struct Datum {
    text: String,
    value: String,
}

/// Numbers of the present, and how they came about.
struct Figure {
    title: &'static str,
    keys: Vec<Key>,
    notes: Vec<Note>,
    plots: [Plot; 2],
}

/// The present value of a line in the plots.
struct Key {
    class: &'static str,
    name: &'static str,
    number: String,
    unit: &'static str,
}

struct Note {
    name: &'static str,
    datum: Datum,
}

/// The bar of what the space is used for.
struct Space {
    label: String,
    parts: Vec<SpacePart>,
}

struct SpacePart {
    class: &'static str,
    name: &'static str,
    /// Where it begins and how long it is, in thousandths of the whole.
    x: f64,
    width: f64,
    datum: Datum,
    share: String,
}

struct Table {
    title: &'static str,
    /// It needs a wide place.
    wide: bool,
    head: Vec<&'static str>,
    rows: Vec<Row>,
    /// What is said in place of rows, where there are none.
    none: &'static str,
    note: String,
}

/// A name and its figures.
struct Row {
    name: String,
    cells: Vec<Datum>,
}

impl Datum {
    fn new(text: impl Into<String>, value: impl ToString) -> Self {
        Datum { text: text.into(), value: value.to_string() }
    }

    fn count(number: u64) -> Self {
        Datum::new(count(number), number)
    }

    fn size(bytes: u64) -> Self {
        Datum::new(size(bytes), bytes)
    }

    /// Where there is no value, nor anything to be said.
    fn dash() -> Self {
        Datum::new("–", "")
    }

    fn seconds(seconds: Option<f64>) -> Self {
        Datum::new(duration_or_dash(seconds), seconds.map(|seconds| seconds.to_string()).unwrap_or_default())
    }
}

impl Row {
    fn new(name: impl Into<String>, cells: impl IntoIterator<Item = Datum>) -> Self {
        Row { name: name.into(), cells: cells.into_iter().collect() }
    }
}

impl Page {
    fn new(status: &Status, seconds: &[Sample], minutes: &[Sample]) -> Self {
        let node = &status.node;
        let mut tables = vec![operations(status), latencies(status), errors(status)];
        if let Some(store) = &status.store {
            tables.extend([written(store), commits(store), contents(store), cleaner(store), buckets(status)]);
        }
        tables.extend([workers(status), process(status)]);
        Page {
            state: state(status),
            version: node.version.clone(),
            facts: format!("{} · AES-256-GCM {} · sync {}", node.io, node.engine, node.sync),
            uptime: Datum::new(span(status.uptime_s), status.uptime_s.floor()),
            now: moment(status.clock.now_ms),
            conditions: status.conditions.iter().map(shown).collect(),
            figures: figures(status, seconds, minutes),
            space: status.store.as_ref().map(space),
            tables,
        }
    }
}

/// A time to the second, such as 2026-11-26 10:46:04 UTC.
fn moment(ms: u64) -> String {
    let iso = keyhole_s3::time::iso8601(ms);
    let (date, time) = iso.split_once('T').unwrap_or((&iso, ""));
    let (time, _) = time.split_once('.').unwrap_or((time, ""));
    format!("{date} {time} UTC")
}

/// The most important of what there is to be said.
fn state(status: &Status) -> State {
    const STATES: [(&str, &str, &str); 7] = [
        ("starting", "note", "Starting"),
        ("draining", "note", "Ending"),
        ("poisoned", "fault", "Refuses writes"),
        ("worker-stuck", "fault", "Stuck"),
        ("full", "fault", "Full"),
        ("damage", "fault", "Damaged"),
        ("clock-behind", "warning", "Clock behind"),
    ];
    let is_so = |name: &str| status.conditions.iter().any(|condition| condition.name == name);
    let found = STATES.iter().find(|(name, ..)| is_so(name));
    let (class, text) = found.map_or(("good", "Serving"), |(_, class, text)| (*class, *text));
    State { class, text }
}

fn shown(condition: &crate::status::Condition) -> Shown {
    let class = match condition.severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Fault => "fault",
    };
    Shown { class, text: condition.text.clone() }
}

fn figures(status: &Status, seconds: &[Sample], minutes: &[Sample]) -> Vec<Figure> {
    let (now, requests) = (&status.now, &status.requests);
    let plots =
        |what: &str, lines: &[(&'static str, &dyn Fn(&Sample) -> Option<f64>)], least, say: &dyn Fn(f64) -> String| {
            let draw = |samples: &[Sample], from, slots| {
                let series = lines.iter().map(|(class, of)| Series { class, values: samples.iter().map(of).collect() });
                plot::draw(what, from, slots, &series.collect::<Vec<_>>(), least, say)
            };
            [draw(seconds, "2 min ago", SECONDS), draw(minutes, "2 h ago", MINUTES)]
        };
    let key = |class, name, (number, unit): (String, &'static str)| Key { class, name, number, unit };
    let note = |name, datum| Note { name, datum };
    let per_second = |value: f64| format!("{}\u{a0}/s", rate(value).trim_end_matches(".0"));
    let latency = |seconds: Option<f64>| seconds.map_or_else(|| ("–".to_owned(), ""), duration);
    let with_status = |first: char| {
        let codes = requests.operations.iter().flat_map(|row| &row.by_code);
        codes.filter(|(code, _)| code.starts_with(first)).map(|(_, count)| count).sum()
    };
    vec![
        Figure {
            title: "Requests",
            keys: vec![key("one", "", (rate(now.requests_per_s), "/s"))],
            notes: vec![
                note("since the start", Datum::count(requests.total)),
                note("with SSE-C", Datum::count(requests.sse_c)),
                note("in flight", Datum::count(requests.in_flight)),
            ],
            plots: plots("Requests", &[("one", &|at| Some(at.per_second(at.requests)))], 1.0, &per_second),
        },
        Figure {
            title: "Payload",
            keys: vec![key("one", "in", throughput(now.received_per_s)), key("two", "out", throughput(now.sent_per_s))],
            notes: vec![
                note("in since the start", Datum::size(requests.received)),
                note("out", Datum::size(requests.sent)),
            ],
            plots: plots(
                "Payload",
                &[("one", &|at| Some(at.per_second(at.received))), ("two", &|at| Some(at.per_second(at.sent)))],
                1000.0,
                &|value| joined(throughput(value)),
            ),
        },
        Figure {
            title: "Latency",
            keys: vec![key("one", "p50", latency(now.p50_s)), key("two", "p99", latency(now.p99_s))],
            notes: vec![note("answers since the start", Datum::count(requests.total - requests.aborted))],
            plots: plots("Latency", &[("one", &|at| at.p50_s), ("two", &|at| at.p99_s)], 0.000_1, &|value| {
                joined(duration(value))
            }),
        },
        Figure {
            title: "Errors",
            keys: vec![
                key("three", "4xx", (rate(now.client_errors_per_s), "/s")),
                key("four", "5xx", (rate(now.server_errors_per_s), "/s")),
            ],
            notes: vec![
                note("4xx since the start", Datum::count(with_status('4'))),
                note("5xx", Datum::count(with_status('5'))),
                note("aborted", Datum::count(requests.aborted)),
            ],
            plots: plots(
                "Errors",
                &[
                    ("three", &|at| Some(at.per_second(at.client_errors))),
                    ("four", &|at| Some(at.per_second(at.server_errors))),
                ],
                1.0,
                &per_second,
            ),
        },
    ]
}

fn space(store: &StoreStatus) -> Space {
    let free = store.capacity.saturating_sub(store.live + store.dead + store.reserved);
    let all = [
        ("live", "live", store.live),
        ("dead", "dead, to be cleaned", store.dead),
        ("free", "free", free),
        ("reserved", "reserved", store.reserved),
    ];
    // What is reserved may be in use while the store is full.
    let whole = all.iter().map(|(.., bytes)| bytes).sum::<u64>().max(1);
    let mut x = 0.0;
    let parts = all.into_iter().map(|(class, name, bytes)| {
        let width = 1000.0 * bytes as f64 / whole as f64;
        let part = SpacePart { class, name, x, width, datum: Datum::size(bytes), share: share(bytes, whole) };
        x += width;
        part
    });
    let parts: Vec<SpacePart> = parts.collect();
    let label = format!("{} of {} live", size(store.live), size(store.capacity));
    Space { label, parts }
}

fn table(title: &'static str, head: &[&'static str], rows: Vec<Row>, none: &'static str) -> Table {
    Table { title, wide: false, head: head.to_vec(), rows, none, note: String::new() }
}

fn operations(status: &Status) -> Table {
    let sum = |row: &OperationStatus, first: &[char]| {
        let of_kind = row.by_code.iter().filter(|(code, _)| code.starts_with(first));
        of_kind.map(|(_, count)| count).sum::<u64>()
    };
    let rows = status.requests.operations.iter().map(|row| {
        let aborted = row.by_code.get("aborted").copied().unwrap_or(0);
        let (done, client, server) = (sum(row, &['2', '3']), sum(row, &['4']), sum(row, &['5']));
        Row::new(&row.operation, [row.total, done, client, server, aborted].map(Datum::count))
    });
    let head = ["Operation", "Requests", "Done", "4xx", "5xx", "Aborted"];
    let mut table = table("Operations", &head, rows.collect(), "There were no requests yet.");
    table.wide = true;
    table
}

fn latencies(status: &Status) -> Table {
    let rows = status.requests.durations.iter().filter(|row| row.count > 0).map(|row| {
        let figures = [row.p50_s, row.p90_s, row.p99_s].map(Datum::seconds);
        Row::new(&row.class, [Datum::count(row.count)].into_iter().chain(figures))
    });
    let head = ["Class", "Answers", "p50", "p90", "p99"];
    table("Latency since the start", &head, rows.collect(), "Nothing was answered yet.")
}

fn errors(status: &Status) -> Table {
    let mut errors: Vec<(&String, &u64)> = status.requests.errors.iter().collect();
    errors.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let rows = errors.into_iter().map(|(code, count)| Row::new(code, [Datum::count(*count)]));
    table("Errors by code", &["Code", "Replies"], rows.collect(), "There were none.")
}

fn written(store: &StoreStatus) -> Table {
    let written = &store.written;
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
    table.note = format!("Since the start, for {} of bodies. Write amplification: {factor}.", size(written.appended));
    table
}

fn commits(store: &StoreStatus) -> Table {
    let all = store.batches.iter().sum();
    let last = store.batches.len().saturating_sub(1);
    let rows = store.batches.iter().enumerate().filter(|(_, count)| **count > 0).map(|(power, count)| {
        let (least, most) = ((1u64 << power) / 2 + 1, 1u64 << power);
        let name = match power {
            0 | 1 => most.to_string(),
            _ if power == last => format!("more than {}", most / 2),
            _ => format!("{least} to {most}"),
        };
        Row::new(name, [Datum::count(*count), Datum::new(share(*count, all), count)])
    });
    let head = ["Commits in a batch", "Batches", "Share"];
    let mut table = table("Group commit", &head, rows.collect(), "Nothing was written yet.");
    table.note = format!("{} syncs, {} durable writes.", count(store.syncs), count(store.durable_writes));
    table
}

fn contents(store: &StoreStatus) -> Table {
    let counts = [
        ("buckets", store.buckets),
        ("objects", store.objects),
        ("uploads under way", store.uploads),
        ("bodies", store.bodies),
    ];
    let sizes = [("memory of the index", store.index), ("capacity", store.capacity), ("allocated", store.allocated)];
    let rows = counts.map(|(name, count)| Row::new(name, [Datum::count(count)]));
    let sizes = sizes.map(|(name, bytes)| Row::new(name, [Datum::size(bytes)]));
    let mut table = table("Store", &["", ""], rows.into_iter().chain(sizes).collect(), "");
    if store.ring {
        "A ring: when it is full, the oldest objects go.".clone_into(&mut table.note);
    }
    table
}

fn cleaner(store: &StoreStatus) -> Table {
    let (cleaner, segments) = (&store.cleaner, &store.segments);
    let rows = [
        ("segments cleaned", cleaner.segments_cleaned),
        ("segments freed", cleaner.segments_freed),
        ("segments given back", store.segments_discarded),
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
        let used = bucket.quota.map_or_else(Datum::dash, |quota| Datum::new(share(bucket.bytes, quota), bucket.bytes));
        Row::new(&bucket.bucket, [Datum::count(bucket.objects), Datum::size(bucket.bytes), quota, used])
    });
    let head = ["Bucket", "Objects", "Bytes", "Quota", "Used"];
    let mut table = table("Buckets", &head, rows.collect(), "There are none yet.");
    table.wide = true;
    if status.buckets_left_out > 0 {
        table.note = format!("The first ones by name; there are {} more.", count(status.buckets_left_out));
    }
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
    let head = ["Worker", "Moved", "In flight", "Blocks", "Pages", "Waiting"];
    let mut table = table("Workers", &head, rows.collect(), "");
    table.wide = true;
    "Blocks of 1 MiB and pages of 4 KiB that requests hold, and requests that wait for them."
        .clone_into(&mut table.note);
    table
}

fn process(status: &Status) -> Table {
    let (process, connections, damage) = (&status.process, &status.connections, &status.damage);
    let scrubbed = damage
        .scrubs
        .last_ended_ms
        .map_or_else(|| Datum::new("none since the start", ""), |ended_ms| Datum::new(moment(ended_ms), ended_ms));
    let rows = vec![
        Row::new("connections, HTTP", [Datum::count(connections.http)]),
        Row::new("connections, HTTPS", [Datum::count(connections.https)]),
        Row::new("TLS handshakes", [Datum::count(connections.handshakes)]),
        Row::new("TLS handshakes that failed", [Datum::count(connections.handshakes_failed)]),
        Row::new("resident memory", [Datum::size(process.resident)]),
        Row::new("the most there was", [Datum::size(process.resident_peak)]),
        Row::new("time of processors", [Datum::new(span(process.cpu_s), process.cpu_s)]),
        Row::new("file descriptors", [Datum::count(process.open_fds)]),
        Row::new("last scrub", [scrubbed]),
        Row::new("places with damage", [Datum::count(damage.at_start + damage.scrubs.damaged)]),
    ];
    table("Node", &["", ""], rows, "")
}

const _: () = assert!(LATELY == 10, "the page says so");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::sample_status;

    fn html(status: &Status) -> String {
        let sample = Sample { span_s: 1.0, requests: 5, received: 1_000_000, p50_s: Some(0.001), ..Sample::default() };
        Page::new(status, &[sample; 3], &[sample]).render().unwrap()
    }

    #[test]
    fn figures_have_their_exact_values() {
        let text = html(&sample_status());
        for part in [
            "<data value=\"9007199254741000\">9,007,199,254,741,000</data>",
            "<data value=\"18446744073709551615\">16.0 EiB</data>",
            "<data value=\"123456\">120.6 KiB</data>",
            "there are 9 more",
            "Full",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn what_comes_from_elsewhere_is_escaped() {
        let mut status = sample_status();
        status.buckets[0].bucket = "<script>alert(1)</script>".to_owned();
        status.node.version = "\"><i>".to_owned();
        status.requests.operations[0].operation = "a&b".to_owned();
        let text = html(&status);
        assert!(!text.contains("<script>alert") && !text.contains("<i>") && !text.contains("a&b"), "{text}");
        assert!(text.contains("&#60;script&#62;alert(1)") && text.contains("&#60;Delete&#62;"));
    }

    /// What the policy of the page lets through: no style or script inside it, nothing from elsewhere.
    #[test]
    fn the_page_needs_nothing_but_its_own_files() {
        let text = html(&sample_status());
        assert!(
            !text.contains("style=") && !text.contains("<style") && !text.contains("onclick") && !text.contains("://")
        );
        assert_eq!(
            (text.matches("<script").count(), text.matches("<script src=\"/status.js\" defer>").count()),
            (1, 1)
        );
        for file in [STYLE, SCRIPT] {
            assert!(!file.contains("://") && !file.contains("@import") && !file.contains("url("));
        }
    }

    #[test]
    fn moments() {
        assert_eq!(moment(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(moment(1_795_689_964_449), "2026-11-26 10:46:04 UTC");
    }

    #[test]
    fn every_state_has_a_name() {
        let mut status = sample_status();
        for (name, text) in [
            ("starting", "Starting"),
            ("draining", "Ending"),
            ("poisoned", "Refuses writes"),
            ("worker-stuck", "Stuck"),
            ("full", "Full"),
            ("damage", "Damaged"),
            ("clock-behind", "Clock behind"),
        ] {
            let mut condition = status.conditions[0].clone();
            condition.name = name.to_owned();
            status.conditions = vec![condition];
            assert_eq!(state(&status).text, text);
        }
        status.conditions.clear();
        assert_eq!((state(&status).class, state(&status).text), ("good", "Serving"));
    }

    #[test]
    fn a_node_that_has_done_nothing_has_a_page() {
        let monitor = Monitor::new(crate::status::Facts { workers: 1, ..crate::status::Facts::default() });
        let text = Page::new(&monitor.status(), &[], &[]).render().unwrap();
        assert!(text.contains("Starting") && text.contains("There were no requests yet."));
        let reply = render(&monitor);
        assert_eq!(reply.status(), 200);
    }
}
