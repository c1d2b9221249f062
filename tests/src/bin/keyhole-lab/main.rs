//! Power failures under a kernel of its own, run in the guest of `tests/lab/boot`:
//! `keyhole-lab --workload small|large|versions --file-system ext4|xfs|f2fs|raw [--seconds N] [--seed N]
//! [--expect-loss]`.
//!
//! Runs a workload on a device whose writes the device mapper logs, with a mark after each acknowledgement.
//! Then lets power fail at flushes, between them and after acknowledgements: replays the log onto a copy of the
//! device, mounts it, compares the store with the marks, and checks it. Without `--seconds`, at every one;
//! otherwise at as many as there is time for. With `--expect-loss`, the program under test is a defective one, and at least one
//! acknowledged operation must be lost.

mod check;
mod log_writes;
mod mapper;
mod replay;
mod workload;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use fastrand::Rng;
use keyhole_tests::data::fresh_seed;
use keyhole_tests::device::run;
use keyhole_tests::{Launch, Node};

use check::{check_store, compare};
use log_writes::WriteLog;
use mapper::{Marker, Target};
use replay::{Moment, Replay};
use workload::{Key, READY, Workload};

const USAGE: &str = "usage: keyhole-lab --workload small|large|versions --file-system ext4|xfs|f2fs|raw \
                     [--seconds N] [--seed N] [--expect-loss]";

/// The devices of the guest: the log, the device under test, its copy, and the changes of a snapshot.
const LOG: &str = "/dev/vda";
const DEVICE: &str = "/dev/vdb";
const COPY: &str = "/dev/vdc";
const CHANGES: &str = "/dev/vdd";

/// Where the file system is mounted.
const MOUNT_POINT: &str = "/mnt";

const SECTOR: u64 = 512;

/// By default, F2FS may write the new addresses of blocks before the blocks: if power fails during an fsync, it
/// damages what an earlier fsync made durable.
const F2FS_OPTIONS: &str = "fsync_mode=strict";

/// The unit of F2FS, which relies on the device to write it whole: its node blocks have no checksum, and those of
/// the last fsync are found by their last bytes.
const F2FS_BLOCK: usize = 4096;

/// Bytes of a store on a device without a file system: so few that the large bodies make it clean.
const RAW_LEN: u64 = 64 << 20;

/// Capacity of a store in a file system, for the same reason.
const CAPACITY: &str = "64MiB";

/// Number of violations after which the run ends.
const VIOLATIONS_MAX: usize = 3;

/// The arguments.
struct Options {
    workload: (&'static str, Workload),
    /// `None`: the store is on the device itself.
    file_system: Option<String>,
    time: Option<Duration>,
    seed: u64,
    expects_loss: bool,
}

fn options() -> Result<Options, String> {
    let (mut workload, mut file_system, mut time) = (None, None, None);
    let (mut seed, mut expects_loss) = (fresh_seed(), false);
    let mut arguments = std::env::args().skip(1);
    while let Some(option) = arguments.next() {
        if option == "--expect-loss" {
            expects_loss = true;
            continue;
        }
        let value = arguments.next().ok_or(USAGE)?;
        let number = || value.parse::<u64>().map_err(|error| format!("invalid {option} `{value}`: {error}"));
        match option.as_str() {
            "--workload" => workload = Workload::ALL.into_iter().find(|(name, _)| *name == value),
            "--file-system" => file_system = Some(value),
            "--seconds" => time = Some(Duration::from_secs(number()?)),
            "--seed" => seed = number()?,
            _ => return Err(USAGE.to_owned()),
        }
    }
    let (Some(workload), Some(file_system)) = (workload, file_system) else { return Err(USAGE.to_owned()) };
    let file_system = Some(file_system).filter(|name| name != "raw");
    Ok(Options { workload, file_system, time, seed, expects_loss })
}

impl Options {
    fn launch(&self) -> Launch {
        let launch = Launch::default().with_credential().arg("--threads=2");
        match self.file_system {
            Some(_) => launch.capacity(Some(CAPACITY)),
            None => launch.capacity(None).env("XDG_STATE_HOME", "/tmp"),
        }
    }

    /// Mounts the file system on a device, and returns the path of the store.
    fn mount(&self, device: &Path) -> Result<PathBuf, String> {
        let path = device.to_str().expect("a path of ASCII");
        match &self.file_system {
            Some(name) => {
                let options = if name == "f2fs" { F2FS_OPTIONS } else { "defaults" };
                run("mount", ["-t", name, "-o", options, path, MOUNT_POINT])?;
                Ok(Path::new(MOUNT_POINT).join("data"))
            }
            None => Ok(device.to_owned()),
        }
    }

    fn unmount(&self) -> Result<(), String> {
        if self.file_system.is_some() { run("umount", [MOUNT_POINT]).map(drop) } else { Ok(()) }
    }

    /// Runs the workload on the logged device, and returns the states of the keys.
    fn record(&self, sectors: u64) -> Result<Vec<Key>, String> {
        let logged = Target::new("logged", &format!("0 {sectors} log-writes {DEVICE} {LOG}"))?;
        let data = self.mount(logged.path())?;
        let marker = Marker::new(&logged).map_err(|error| error.to_string())?;
        let launch = self.launch();
        let node = match self.file_system {
            Some(_) => launch.start_in(&data),
            None => {
                let mut node = launch.arg("--format").start_in(&data);
                node.set_launch(self.launch());
                node
            }
        };
        let keys = workload::run(self.workload.1, self.seed, &marker, node);
        self.unmount()?;
        logged.remove()?;
        Ok(keys)
    }

    /// Opens the store on a device after a power failure, and returns the violations.
    fn examine(&self, device: &Path, keys: &[Key], replay: &Replay) -> Result<(), String> {
        let is_ready = replay.is_marked(READY);
        if !is_ready && self.file_system.is_none() {
            return Ok(()); // The device may not be formatted yet.
        }
        let data = self.mount(device)?;
        let examined = catch_unwind(AssertUnwindSafe(|| {
            let mut node: Node = self.launch().start_in(&data);
            let wrong = if is_ready { compare(&node, keys, |mark| replay.is_marked(mark)) } else { Vec::new() };
            node.kill();
            if !wrong.is_empty() {
                return Err(format!("{}\n{}", wrong.join("\n"), node.log()));
            }
            // Before the opening, a copy of the superblock may be outdated.
            check_store(&data)
        }));
        self.unmount()?;
        examined.unwrap_or_else(|panic| {
            Err(panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "the node does not start".to_owned()))
        })
    }
}

/// The power failures of a run.
struct Failures<'f> {
    options: &'f Options,
    keys: &'f [Key],
    replay: Replay,
    random: Rng,
    sectors: u64,
    examined: usize,
    violations: Vec<String>,
}

impl Failures<'_> {
    /// Lets power fail at a moment: once between the barriers, if writes may be lost, and once at the barrier.
    fn fail_at(&mut self, moment: Moment) -> Result<(), String> {
        let io = |error: std::io::Error| format!("replay of the log: {error}");
        self.replay.advance(moment.first).map_err(io)?;
        self.replay.note_marks(moment);
        if self.replay.has_unflushed(moment) {
            let snapshot = self.snapshot()?;
            self.replay.apply_some(moment, snapshot.path(), &mut self.random).map_err(io)?;
            self.examine(snapshot, &format!("before entry {}", moment.barrier))?;
        }
        self.replay.advance(moment.barrier + 1).map_err(io)?;
        let snapshot = self.snapshot()?;
        self.examine(snapshot, &format!("after entry {}", moment.barrier))
    }

    /// Returns a device with the contents of the copy, whose changes are dropped with it.
    fn snapshot(&self) -> Result<Target, String> {
        Target::new("failed", &format!("0 {} snapshot {COPY} {CHANGES} N 16", self.sectors))
    }

    fn examine(&mut self, snapshot: Target, place: &str) -> Result<(), String> {
        self.examined += 1;
        if let Err(violation) = self.options.examine(snapshot.path(), self.keys, &self.replay) {
            self.violations.push(format!("{place}: {violation}"));
        }
        snapshot.remove()
    }

    /// Lets power fail at all moments, or at as many as there is time for.
    fn run(&mut self, moments: &[Moment]) -> Result<(), String> {
        let begun = Instant::now();
        let mut at = 0;
        let mut count = 0;
        let enough = if self.options.expects_loss { 1 } else { VIOLATIONS_MAX };
        while at < moments.len() && self.violations.len() < enough {
            self.fail_at(moments[at])?;
            count += 1;
            let Some(time) = self.options.time else {
                at += 1;
                continue;
            };
            let Some(left) = time.checked_sub(begun.elapsed()) else { break };
            let each = begun.elapsed() / count;
            // The rest in equal steps, each with a random offset.
            let affordable = (left.as_secs_f64() / each.as_secs_f64()).max(1.0);
            let step = ((moments.len() - at) as f64 / affordable).ceil().max(1.0) as usize;
            at += self.random.usize(1..=2 * step - 1);
        }
        Ok(())
    }
}

fn lab(options: &Options) -> Result<bool, String> {
    let sectors = match options.file_system {
        Some(_) => fs::read_to_string(format!("/sys/block/{}/size", DEVICE.trim_start_matches("/dev/")))
            .map_err(|error| error.to_string())?
            .trim()
            .parse()
            .expect("a number of sectors"),
        None => RAW_LEN / SECTOR,
    };
    let begun = Instant::now();
    let keys = options.record(sectors)?;
    let recorded = begun.elapsed();
    let log = WriteLog::open(Path::new(LOG)).map_err(|error| format!("{LOG}: {error}"))?;
    let entries = log.entries.len();
    let operations: usize = keys.iter().map(|key| key.states.len() - 1).sum();
    let is_f2fs = options.file_system.as_deref() == Some("f2fs");
    let atomic_len = if is_f2fs { F2FS_BLOCK } else { SECTOR as usize };
    let replay = Replay::new(log, Path::new(COPY), atomic_len).map_err(|error| format!("{COPY}: {error}"))?;
    let moments = replay.moments();
    let random = Rng::with_seed(options.seed ^ 1);
    let mut failures = Failures { options, keys: &keys, replay, random, sectors, examined: 0, violations: Vec::new() };
    failures.run(&moments)?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let (name, _) = options.workload;
    println!(
        "Linux {}, {}, workload {name}, seed {}: {operations} operations acknowledged in {recorded:.0?}; {entries} \
         entries with {} flushes and acknowledgements; {} power failures in {:.0?}, {} with a violation",
        kernel.trim(),
        options.file_system.as_deref().unwrap_or("raw"),
        options.seed,
        moments.len(),
        failures.examined,
        begun.elapsed() - recorded,
        failures.violations.len()
    );
    for violation in &failures.violations {
        println!("{violation}");
    }
    Ok(failures.violations.is_empty() != options.expects_loss && failures.examined > 0)
}

fn main() -> ExitCode {
    match options().and_then(|options| lab(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("keyhole-lab: {error}");
            ExitCode::from(2)
        }
    }
}
