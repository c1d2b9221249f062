//! Startup times of the real binary after a kill and a clean stop, without the object file in the
//! page cache.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use keyhole_log::Durability;
use keyhole_log::limits::{CHECKPOINT_AFTER_MAX, CHECKPOINT_AFTER_MIN};

use super::super::operate::ask;
use super::super::{CommandError, Result};
use super::directory::ScratchDirectory;
use super::node::Node;
use super::report::{DiskReport, Limit, median, percentile_99};
use super::rig::{self, BUCKET, Engine, StoreKind, failed, in_parallel};
use crate::cli::Target;
use crate::control::{Reply, Request};
use crate::status::StoreFigures;

/// Starts of each kind, of which the median is reported.
const STARTS: usize = 3;
const SMALL: usize = 1024;
const LARGE: usize = 64 << 20;
/// The object that is requested first.
const FIRST: &str = "first";

pub(super) fn run(directory: &ScratchDirectory, objects: usize, large: u64, report: &mut DiskReport) -> Result<()> {
    let data = directory.path("small");
    let capacity = (objects as u64 * (6 << 10)).max(4 << 30);
    let empty = begin(&data, capacity)?;
    let [killed, stopped] = start(&data, objects, SMALL, capacity, report, &format!("{objects} objects of 1 KiB"))?;
    let limit = |seconds| Some(Limit::AtMost(seconds));
    report.add(format!("{objects} objects of 1 KiB: ready after SIGKILL"), killed.seconds, "s", limit(5.0));
    report.add(format!("{objects} objects of 1 KiB: ready after a clean stop"), stopped.seconds, "s", limit(2.0));
    for (after, seen) in [("SIGKILL", &killed), ("a clean stop", &stopped)] {
        let stat = &seen.stat;
        let keys = objects * key(0).len();
        let each = |bytes: u64| bytes.saturating_sub(keys as u64) as f64 / stat.objects as f64;
        let what = format!("{objects} objects of 1 KiB, after {after}");
        let limit = Some(Limit::AtMost(160.0));
        report.add(format!("{what}: index besides the key"), each(stat.index), "B/object", limit);
        let resident = seen.resident.saturating_sub(empty);
        report.add(format!("{what}: resident memory besides the key"), each(resident), "B/object", limit);
    }
    list(&data, objects, report)?;
    directory.remove("small")?;

    let data = directory.path("large");
    let objects = (large / LARGE as u64) as usize;
    let capacity = large / 2 * 3 + (1 << 30);
    begin(&data, capacity)?;
    let what = format!("{:.1} GiB in objects of 64 MiB", (objects * LARGE) as f64 / (1u64 << 30) as f64);
    let [killed, stopped] = start(&data, objects, LARGE, capacity, report, &what)?;
    report.add(format!("{what}: ready after SIGKILL"), killed.seconds, "s", limit(1.0));
    report.add(format!("{what}: ready after a clean stop"), stopped.seconds, "s", limit(1.0));
    directory.remove("large")
}

/// Creates a store with one object over HTTP; returns the resident memory of its node.
fn begin(data: &Path, capacity: u64) -> Result<u64> {
    let node = Node::start(data, &["--capacity", &capacity.to_string()])?;
    for (path, body) in [(format!("/{BUCKET}"), &b""[..]), (format!("/{BUCKET}/{FIRST}"), b"first")] {
        match node.request("PUT", &path, body)? {
            200 => {}
            status => return Err(CommandError::Other(format!("the node answers PUT {path} with {status}"))),
        }
    }
    node.stop()?;
    let node = Node::start(data, &[])?;
    node.first_get(FIRST)?;
    let resident = node.resident()?;
    node.stop()?;
    Ok(resident)
}

/// The observations of one kind of start.
struct Seen {
    seconds: f64,
    resident: u64,
    stat: StoreFigures,
}

/// Fills the store, kills the filling process, and measures starts after SIGKILL and after a clean
/// stop.
fn start(
    data: &Path,
    objects: usize,
    len: usize,
    capacity: u64,
    report: &mut DiskReport,
    what: &str,
) -> Result<[Seen; 2]> {
    fill_and_kill(data, objects, len, capacity, report, what)?;
    let killed = observe(data, Node::kill)?;
    // The last node was killed as well: run one that stops cleanly.
    Node::start(data, &[])?.stop()?;
    let stopped = observe(data, Node::stop)?;
    Ok([killed, stopped])
}

fn observe(data: &Path, end: impl Fn(Node) -> Result<()>) -> Result<Seen> {
    let mut seconds = Vec::new();
    let mut seen = None;
    for _ in 0..STARTS {
        drop_cache(&data.join("objects.keyhole"))?;
        let node = Node::start(data, &[])?;
        seconds.push(node.first_get(FIRST)?);
        let resident = node.resident()?;
        let target = Target { data: data.to_owned(), state: None };
        let Reply::Stat(stat) = ask(&target, Request::Stat { segments: false }, |_| {})? else {
            return Err(super::super::operate::unexpected());
        };
        seen = Some((resident, stat));
        end(node)?;
    }
    let (resident, stat) = seen.ok_or_else(|| CommandError::Other("no node was started".to_owned()))?;
    Ok(Seen { seconds: median(seconds), resident, stat })
}

/// Lists all objects page by page, and then with a delimiter that rolls up all but one of them.
fn list(data: &Path, objects: usize, report: &mut DiskReport) -> Result<()> {
    const PAGE: usize = 1000;
    const ROLLED_UP: usize = 100;
    let node = Node::start(data, &[])?;
    let limit = Some(Limit::AtMost(20.0));
    let mut pages = Vec::new();
    let mut listed = 0;
    for page in 0..objects.div_ceil(PAGE) {
        let after = if page > 0 { key(page * PAGE - 1).replace('/', "%2F") } else { String::new() };
        let (seconds, reply) =
            node.list(&format!("list-type=2&max-keys={PAGE}&prefix=bench%2F&start-after={after}"))?;
        listed += reply.matches("<Key>").count();
        pages.push(seconds * 1e3);
    }
    if listed != objects {
        return Err(CommandError::Other(format!("{listed} of {objects} objects were listed")));
    }
    let mut rolled_up = Vec::new();
    for _ in 0..ROLLED_UP {
        let (seconds, reply) = node.list("delimiter=%2F&list-type=2")?;
        if !reply.contains("<KeyCount>2</KeyCount>") {
            return Err(CommandError::Other("a listing by a delimiter is another one".to_owned()));
        }
        rolled_up.push(seconds * 1e3);
    }
    node.stop()?;
    let what = format!("{objects} objects listed");
    report.add(format!("{what}: a page of {PAGE}, median"), median(pages.clone()), "ms", None);
    report.add(format!("{what}: a page of {PAGE}, 99th percentile"), percentile_99(pages), "ms", limit);
    report.add(format!("{what}: by a delimiter, 99th percentile"), percentile_99(rolled_up), "ms", limit);
    Ok(())
}

/// Evicts the file from the page cache, as after a reboot.
fn drop_cache(path: &Path) -> Result<()> {
    let failed = |error| CommandError::io(path.display(), error);
    let file = File::open(path).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    // SAFETY: the call takes only numbers, and the descriptor is open.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    Ok(())
}

/// Has another process fill the store through the engine, and kills it just before a checkpoint.
fn fill_and_kill(
    data: &Path,
    objects: usize,
    len: usize,
    capacity: u64,
    report: &mut DiskReport,
    what: &str,
) -> Result<()> {
    let failed = |error| CommandError::io("cannot start another process", error);
    let mut child = Command::new(std::env::current_exe().map_err(failed)?)
        .arg("bench-disk")
        .arg(data)
        .arg("--populate")
        .arg(format!("{objects}:{len}:{capacity}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let out = child.stdout.take().expect("it is piped");
    let line = BufReader::new(out).lines().next().and_then(|line| line.ok());
    child.kill().and_then(|()| child.wait()).map_err(failed)?;
    let replayed = line.and_then(|line| line.strip_prefix("filled ").and_then(|rest| rest.parse::<u64>().ok()));
    let replayed =
        replayed.ok_or_else(|| CommandError::Other("the store could not be filled; see above".to_owned()))?;
    report.add(format!("{what}: records since the last checkpoint"), replayed as f64 / f64::from(1 << 20), "MiB", None);
    Ok(())
}

fn key(index: usize) -> String {
    format!("bench/object-{index:012}")
}

/// Runs in the other process and never returns.
pub(super) fn populate(data: &Path, what: &str) -> Result<()> {
    let numbers: Vec<u64> = what.split(':').filter_map(|number| number.parse().ok()).collect();
    let [objects, len, capacity] = numbers[..] else {
        return Err(CommandError::Usage("give N:BYTES:CAPACITY".to_owned()));
    };
    let kind = StoreKind { capacity, durability: Durability::Deferred };
    rig::with_engine(data, kind, async |log| {
        let at_once = if len > 1 << 20 { 2 } else { 64 };
        let objects = objects as usize;
        let len = len as usize;
        let since = Since::default();
        since.observe(log);
        put_all(log, at_once, objects, len, since.clone(), false).await?;
        if len <= SMALL {
            put_all(log, at_once, usize::MAX, len, since.clone(), true).await?;
        }
        log.flush().await.map_err(|error| failed(&error))?;
        println!("filled {}", since.records(log));
        loop {
            thread::sleep(Duration::from_secs(3600));
        }
    })
}

/// Stores up to `count` objects in sequence; with `until_due`, overwrites the existing ones in turn
/// until a checkpoint is nearly due.
async fn put_all(log: &Engine, at_once: usize, count: usize, len: usize, since: Since, until_due: bool) -> Result<()> {
    let objects = log.store().usage().objects.max(1) as usize;
    let log = log.clone();
    let put = move |index: usize| {
        let log = log.clone();
        let since = since.clone();
        async move {
            if index.is_multiple_of(4096) {
                since.observe(&log);
                if until_due && since.is_nearly_due(&log) {
                    return Ok(false);
                }
            }
            let index = if until_due { index % objects.saturating_sub(1).max(1) } else { index };
            rig::put(&log, key(index), len).await.map(|()| true).map_err(|error| failed(&error))
        }
    };
    in_parallel(at_once, count, put).await.map(drop)
}

/// Bytes written since the last checkpoint.
#[derive(Clone, Default)]
struct Since(std::rc::Rc<std::cell::Cell<Seed>>);

#[derive(Clone, Copy, Default)]
struct Seed {
    checkpoints: u64,
    checkpoint_bytes: u64,
    last_len: u64,
    records: u64,
}

impl Since {
    fn observe(&self, log: &Engine) {
        let stats = log.store().stats();
        let seed = self.0.get();
        let checkpoints = stats.cleaner.checkpoints;
        let bytes = stats.written.checkpoints;
        if checkpoints > seed.checkpoints {
            let last_len = (bytes - seed.checkpoint_bytes) / (checkpoints - seed.checkpoints);
            let records = stats.written.records;
            self.0.set(Seed { checkpoints, checkpoint_bytes: bytes, last_len, records });
        }
    }

    fn records(&self, log: &Engine) -> u64 {
        log.store().stats().written.records - self.0.get().records
    }

    fn is_nearly_due(&self, log: &Engine) -> bool {
        let stats = log.store().stats();
        let seed = self.0.get();
        let after = (4 * seed.last_len).clamp(CHECKPOINT_AFTER_MIN, CHECKPOINT_AFTER_MAX);
        let after = after.min(stats.usage.capacity / 8);
        seed.checkpoints > 0 && self.records(log) > after / 10 * 9
    }
}
