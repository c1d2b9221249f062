//! Measures a node on file systems filled up by others, on ext4, XFS and btrfs:
//! `keyhole-full-file-systems [--seconds N] [--only ext4|xfs|btrfs]`.
//!
//! A paced load of PUT, GET and DELETE runs twice. In the reference run, the store has reached its
//! own capacity: the node refuses some requests and serves others. In the full run of N seconds
//! (600), another program has filled the file system. The program fails if an answer is wrong or
//! takes longer than a second, if the full run takes more than 1.2 times the CPU time of the
//! reference, if the idle node is busy, or if PUTs do not resume without a restart once there is
//! space.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use keyhole_tests::data::fresh_seed;
use keyhole_tests::device::skipped;
use keyhole_tests::http::object;
use keyhole_tests::load::{Ballast, INSUFFICIENT_STORAGE, Load, LoadOptions, Tally};
use keyhole_tests::mounted::{Kind, MountedFs};
use keyhole_tests::node::binary;
use keyhole_tests::{Launch, Node};

const MIB: u64 = 1 << 20;

/// Size of the file systems. XFS needs at least 300 MiB.
const FILE_SYSTEM_LEN: u64 = 512 * MIB;

/// Less than the clients store, so that the store also fills up by itself.
const CAPACITY: &str = "64MiB";

const CLIENTS: usize = 4;

/// Interval between the requests of a client.
const PACE: Duration = Duration::from_millis(40);

/// Duration of the run on a full file system.
const SECONDS: u64 = 600;

const USAGE: &str = "usage: keyhole-full-file-systems [--seconds N] [--only ext4|xfs|btrfs]";

/// Maximum duration of the reference run.
const REFERENCE_MAX: Duration = Duration::from_secs(120);

/// Maximum latency of an answer.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Maximum ratio of the CPU times of the full run and the reference.
const RATIO_MAX: f64 = 1.2;

/// Duration of the idle phase, and the maximum CPU usage of the node in it.
const IDLE: Duration = Duration::from_secs(10);
const IDLE_MAX: f64 = 0.05;

/// Maximum delay until PUTs work again.
const NOTICED_MAX: Duration = Duration::from_secs(10);

/// The tally of a run, and the average number of CPUs that the node used.
struct Run {
    tally: Tally,
    cpus: f64,
}

fn run(node: &Node, load: &mut Load, time: Duration) -> Run {
    let begun = Instant::now();
    let before = node.processor_time();
    let tally = load.run(node, LoadOptions { time, pace: Some(PACE), answer_max: ANSWER_MAX, mix: (60, 25) });
    let cpus = (node.processor_time() - before).as_secs_f64() / begun.elapsed().as_secs_f64();
    Run { tally, cpus }
}

/// Prints the result of a run and returns whether it is acceptable.
fn report(kind: Kind, phase: &str, run: &Run) -> bool {
    println!("{}: {phase}: {:.4} CPUs; {}", kind.name(), run.cpus, run.tally.line());
    run.tally.wrong.iter().for_each(|wrong| println!("{}: {phase}: {wrong}", kind.name()));
    run.tally.wrong_count == 0
}

fn compact(node: &Node) -> bool {
    Command::new(binary()).arg("compact").arg(node.data()).output().is_ok_and(|output| output.status.success())
}

/// Returns how long PUTs were refused after space became available; `None` if they still are.
fn until_puts_work(node: &Node) -> Option<Duration> {
    let begun = Instant::now();
    while begun.elapsed() < NOTICED_MAX {
        if node.send(&object("PUT", "back").body(vec![7; 1_500_000])).status == 200 {
            return Some(begun.elapsed());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    None
}

/// Runs all phases on one file system and returns whether all limits were met.
fn measure(kind: Kind, mounted: &MountedFs, time: Duration) -> bool {
    let launch = Launch::default().with_credential().capacity(Some(CAPACITY)).arg("--threads=2").arg("--log=warn");
    let node = launch.start_in(&mounted.point().join("data"));
    node.make_bucket("bucket");
    let pid = node.pid();
    let mut load = Load::new(CLIENTS, fresh_seed());
    // Fill the store to its capacity.
    run(&node, &mut load, REFERENCE_MAX.min(time) / 4);
    let reference = run(&node, &mut load, REFERENCE_MAX.min(time));
    let mut is_good = report(kind, "full by its capacity", &reference);
    is_good &= load.delete_all(&node, ANSWER_MAX).wrong_count == 0 && compact(&node);

    let filler = mounted.fill();
    println!("{}: {} B free", kind.name(), mounted.free());
    // Segments that the store keeps are available to the load only, not to others.
    let (_, tally) = Ballast::put(&node, ANSWER_MAX);
    println!("{}: until a PUT is refused for lack of space: {}", kind.name(), tally.line());
    is_good &= tally.wrong_count == 0;
    let full = run(&node, &mut load, time);
    is_good &= report(kind, "full by others", &full);
    let refused = full.tally.of("PUT", INSUFFICIENT_STORAGE);
    let ratio = full.cpus / reference.cpus;
    println!("{}: {ratio:.2} times the reference, at most {RATIO_MAX}; {refused} PUTs refused", kind.name());
    is_good &= ratio <= RATIO_MAX && refused > 0;

    let before = node.processor_time();
    std::thread::sleep(IDLE);
    let idle = (node.processor_time() - before).as_secs_f64() / IDLE.as_secs_f64();
    println!("{}: {idle:.4} CPUs while idle, at most {IDLE_MAX}", kind.name());
    is_good &= idle <= IDLE_MAX;

    filler.remove();
    let noticed = until_puts_work(&node);
    println!("{}: time until PUTs were accepted again: {noticed:?}", kind.name());
    let verified = load.verify(&node, ANSWER_MAX);
    println!("{}: at the end: {}", kind.name(), verified.line());
    is_good && noticed.is_some() && verified.wrong_count == 0 && node.pid() == pid
}

/// Returns the duration of the full run and the file systems, or an error in the arguments.
fn arguments() -> Result<(Duration, Vec<Kind>), String> {
    let mut seconds = SECONDS;
    let mut kinds = vec![Kind::Ext4, Kind::Xfs, Kind::Btrfs];
    let mut arguments = std::env::args().skip(1);
    while let Some(option) = arguments.next() {
        let value = arguments.next().ok_or(USAGE)?;
        match option.as_str() {
            "--seconds" => seconds = value.parse().map_err(|error| format!("--seconds {value}: {error}"))?,
            "--only" => kinds.retain(|kind| kind.name().eq_ignore_ascii_case(&value)),
            _ => return Err(USAGE.to_owned()),
        }
    }
    if kinds.is_empty() { Err(USAGE.to_owned()) } else { Ok((Duration::from_secs(seconds), kinds)) }
}

fn main() -> ExitCode {
    let (time, kinds) = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let mut is_good = true;
    for kind in kinds {
        match MountedFs::new(kind, FILE_SYSTEM_LEN) {
            Ok(mounted) => is_good &= measure(kind, &mounted, time),
            Err(reason) => skipped(&format!("a full {}", kind.name()), &reason),
        }
    }
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
