//! `keyhole-report`: all end-to-end figures with their limits, floors and the figures of nginx.
//!
//! All servers run at the same time and are measured in turns, since figures from different minutes
//! on a shared machine are not comparable. Bare programs measure the floors in the same turns. All
//! data are in a temporary directory.

// The engine and the buffer are modules of the binary, which has no library.
#[path = "../../crates/keyhole/src/engine/accelerated.rs"]
#[allow(unsafe_code)]
mod accelerated;
mod bare;
#[path = "../../crates/keyhole/src/commands/bench/bytes.rs"]
mod bytes;
mod document;
mod figures;
mod flame;
mod floor;
mod machine;
mod nginx;
mod node;
mod plot;
mod scenario;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytesize::ByteSize;
use keyhole_tests::{Certificate, CustomerKey};
use tempfile::TempDir;

use self::bare::Bare;
use self::document::Subject;
use self::figures::{Figures, Largest, Sizes, Unit};
use self::flame::Flames;
use self::floor::Disk;
use self::machine::Machine;
use self::nginx::Nginx;
use self::node::Node;
use self::scenario::{Counts, LARGE, MIB, Results, SMALL, Sample, Scenario, Server};
use crate::process::Usage;
use crate::wire::Connector;
use crate::work::{self, Objects, Operation, Run, Store};
use crate::{Error, Result};

pub use self::bare::{COMMAND as BARE_COMMAND, serve as serve_bare};

const BUCKET: &str = "report";

/// Maximum number of objects whose requests are signed in advance.
const SAMPLE: usize = 65_536;

/// Connections that fill the stores.
const FILLING: usize = 64;

/// Idle time of a node before its memory at rest is measured.
const REST: Duration = Duration::from_secs(1);

/// Options of the report.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program to measure.
    pub keyhole: PathBuf,
    /// Where to create the temporary directory for all data.
    pub directory: PathBuf,
    /// The page to write; plots are written to the same directory.
    pub results: PathBuf,
    /// The file with the hand-written remarks on the figures.
    pub remarks: PathBuf,
    /// Number of turns, of which the medians are reported.
    pub turns: usize,
    /// Duration of each measurement in a turn.
    pub time: Duration,
    /// Whether to run briefly on small stores, as a functional check.
    pub is_quick: bool,
    /// Where to write flame graphs, if at all.
    pub flame: Option<PathBuf>,
}

/// The number of objects in the stores, and the space they need.
struct Amounts {
    counts: Counts,
    /// Capacity in bytes of the node of most scenarios.
    capacity: u64,
    /// Bytes of free space required.
    room: u64,
}

impl Amounts {
    fn new(is_quick: bool) -> Self {
        let growing: &[usize] = if is_quick { &[1000, 10_000] } else { &[1000, 10_000, 100_000, 1_000_000] };
        let (mib, large) = if is_quick { (64, 4) } else { (256, 16) };
        let counts = Counts { small: 10_000, growing: growing.to_vec(), mib, large };
        let (capacity, room) = if is_quick { (4 << 30, 8 << 30) } else { (8 << 30, 24 << 30) };
        Amounts { counts, capacity, room }
    }
}

/// All running servers.
struct Rig {
    node: Node,
    /// Nodes with other numbers of small objects.
    nodes: BTreeMap<usize, Node>,
    nginx: Nginx,
    /// Bare servers, by the length of replies.
    bare: BTreeMap<usize, Bare>,
    disk: Disk,
    certificate: Certificate,
    key_headers: Vec<(String, String)>,
    idle: Usage,
    nginx_idle: Usage,
    // Declared last, to be removed after all servers have ended.
    home: TempDir,
}

/// Measures everything, writes the page and its plots, and prints the missed limits.
///
/// # Errors
/// A server cannot be started, does not answer, or answers with wrong bytes, or there is not enough
/// space.
pub fn run(options: &Options) -> Result<()> {
    let amounts = Amounts::new(options.is_quick);
    check_room(&options.directory, amounts.room)?;
    let remarks = read_remarks(options)?;
    let machine = Machine::here(&options.directory)?;
    let flames = options.flame.as_deref().map(Flames::new).transpose()?;
    let program = stripped(options)?;
    let rig = Rig::start(options, &amounts)?;
    rig.fill(&amounts.counts)?;
    let results = rig.measure(options, &amounts.counts, machine.cores)?;
    if let Some(flames) = flames {
        rig.record(&flames, &amounts.counts)?;
    }
    let sizes = rig.sizes(program, &amounts.counts)?;
    let nginx_version = rig.nginx.version.clone();
    rig.stop()?;

    let figures = Figures { results: &results, counts: &amounts.counts, sizes, cores: machine.cores };
    let subject = Subject {
        machine: &machine,
        nginx_version: &nginx_version,
        turns: options.turns,
        seconds: options.time.as_secs_f64(),
        is_quick: options.is_quick,
    };
    let page = document::page(&subject, &figures, &remarks);
    document::write(&page, &document::plots(&subject, &figures), &options.results)?;
    let all = figures.all();
    all.iter().for_each(|figure| println!("{figure}"));
    let missed = all.iter().filter(|figure| figure.holds() != Some(true)).count();
    println!("{missed} of {} limits missed; written to {}", all.len(), options.results.display());
    Ok(())
}

/// Inserts the current remarks into the existing page, without measuring.
///
/// # Errors
/// The page does not exist, or was not written by this program.
pub fn renew_remarks(options: &Options) -> Result<()> {
    let failed = |error| Error::of(options.results.display(), error);
    let page = fs::read_to_string(&options.results).map_err(failed)?;
    let page = document::with_remarks(&page, &read_remarks(options)?)?;
    fs::write(&options.results, page).map_err(failed)
}

fn read_remarks(options: &Options) -> Result<String> {
    fs::read_to_string(&options.remarks).map_err(|error| Error::of(options.remarks.display(), error))
}

fn check_room(directory: &Path, room: u64) -> Result<()> {
    let failed = |error| Error::of(directory.display(), error);
    let system = rustix::fs::statvfs(directory).map_err(|error| failed(std::io::Error::from(error)))?;
    let free = system.f_bavail * system.f_frsize;
    if free < room {
        let free = ByteSize(free).display().iec();
        let room = ByteSize(room).display().iec();
        let what = format!("not enough space: {free} free, {room} needed; choose another --directory");
        return Err(Error::of(directory.display(), what));
    }
    Ok(())
}

/// Returns the size of the program without symbols; `None` without a program to strip it.
fn stripped(options: &Options) -> Result<Option<u64>> {
    let directory = tempfile::tempdir_in(&options.directory)?;
    let copy = directory.path().join("keyhole");
    match Command::new("strip").arg("-o").arg(&copy).arg(&options.keyhole).status() {
        Ok(status) if status.success() => Ok(Some(fs::metadata(&copy)?.len())),
        Ok(status) => Err(Error::new(format!("strip failed: {status}"))),
        Err(error) => {
            eprintln!("keyhole-report: cannot run strip: {error}; install binutils to measure the program");
            Ok(None)
        }
    }
}

fn objects(size: usize, count: usize) -> Objects {
    let prefix = match size {
        SMALL => "small/",
        MIB => "mib/",
        _ => "large/",
    };
    Objects { prefix: prefix.to_owned(), count, size }
}

impl Rig {
    fn start(options: &Options, amounts: &Amounts) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("keyhole-report-").tempdir_in(&options.directory);
        let home = home.map_err(|error| Error::of(options.directory.display(), error))?;
        let certificate = Certificate::new();
        let at = |name: &str| home.path().join(name);
        let node = Node::start(&options.keyhole, &at("node"), amounts.capacity, Some(&certificate))?;
        let nginx = Nginx::start(&at("nginx"), &certificate)?;
        thread::sleep(REST);
        let idle = Usage::of(node.pid())?;
        let nginx_idle = Usage::of_all(&nginx.pids())?;
        let others = amounts.counts.growing.iter().filter(|objects| **objects != amounts.counts.small);
        let other = |objects: &usize| {
            // A small object takes less than 6 KiB, and the margin leaves room to overwrite them.
            let capacity = *objects as u64 * (6 << 10) + (2 << 30);
            Ok((*objects, Node::start(&options.keyhole, &at(&format!("node-{objects}")), capacity, None)?))
        };
        let nodes = others.map(other).collect::<Result<_>>()?;
        let bare = [SMALL, MIB, LARGE].into_iter().map(|size| Ok((size, Bare::start(size)?))).collect::<Result<_>>()?;
        let disk = Disk::new(home.path())?;
        let key_headers = work::key_headers(&CustomerKey::random());
        Ok(Rig { node, nodes, nginx, bare, disk, certificate, key_headers, idle, nginx_idle, home })
    }

    /// Returns the node with this many small objects.
    fn node(&self, objects: usize) -> &Node {
        self.nodes.get(&objects).unwrap_or(&self.node)
    }

    /// Returns the server of a scenario and its processes.
    fn target(&self, scenario: Scenario) -> Result<(Store, Vec<u32>)> {
        let node = if scenario.size == SMALL { self.node(scenario.objects) } else { &self.node };
        let (endpoint, processes) = match scenario.server {
            Server::Keyhole => (node.endpoint().to_owned(), vec![node.pid()]),
            Server::KeyholeTls => (node.tls_endpoint()?.to_owned(), vec![node.pid()]),
            Server::Nginx => (self.nginx.endpoint().to_owned(), self.nginx.workers().to_vec()),
            Server::NginxTls => (self.nginx.tls_endpoint().to_owned(), self.nginx.workers().to_vec()),
            Server::Bare => {
                let bare =
                    self.bare.get(&scenario.size).ok_or_else(|| Error::new("no bare server for this object size"))?;
                (bare.endpoint(), vec![bare.pid()])
            }
        };
        let connector = Connector::new(&endpoint, Some(&self.certificate.authority_path()))?;
        let is_keyhole = scenario.server.is_keyhole();
        let store = Store {
            connector: Arc::new(connector),
            signer: is_keyhole.then(Node::signer),
            bucket: BUCKET.to_owned(),
            key_headers: if is_keyhole { self.key_headers.clone() } else { Vec::new() },
        };
        Ok((store, processes))
    }

    /// Puts all objects to be read later.
    fn fill(&self, counts: &Counts) -> Result<()> {
        let fill = |server, size: usize, count| -> Result<()> {
            let scenario = Scenario { objects: count, ..counts.scenario(server, Operation::Put, size, FILLING) };
            eprintln!("filling: {scenario}");
            let (store, _) = self.target(scenario)?;
            store.make_bucket()?;
            store.fill(&objects(size, count), 0..count, FILLING).map_err(|error| Error::of(scenario, error))
        };
        for server in [Server::Keyhole, Server::Nginx] {
            for size in [SMALL, MIB, LARGE] {
                fill(server, size, counts.of(size))?;
            }
        }
        for &objects in self.nodes.keys() {
            fill(Server::Keyhole, SMALL, objects)?;
        }
        rustix::fs::sync();
        Ok(())
    }

    fn measure(&self, options: &Options, counts: &Counts, cores: usize) -> Result<Results> {
        let mut results = Results::default();
        let scenarios = counts.scenarios();
        let floors = scenario::floors();
        for turn in 1..=options.turns {
            for &floor in &floors {
                let cost = self.disk.measure(floor, cores, options.time / 5)?;
                let unit = if floor.is_by_gib() { Unit::GibPerSecond } else { Unit::PerSecond };
                eprintln!("turn {turn}/{}: {}: {}", options.turns, floor.name(), unit.text(cost.rate));
                results.add_floor(floor, cost);
            }
            for &scenario in &scenarios {
                let sample = self.run(scenario, options.time)?;
                eprintln!(
                    "turn {turn}/{}: {scenario}: {:.0}/s, {:.1} us of CPU time each",
                    options.turns,
                    sample.operations_per_s,
                    sample.cpu_per_operation * 1e6
                );
                results.add(scenario, sample);
            }
        }
        Ok(results)
    }

    fn run(&self, scenario: Scenario, time: Duration) -> Result<Sample> {
        let (store, servers) = self.target(scenario)?;
        let run = Run {
            operation: scenario.operation,
            connections: scenario.connections,
            sample: SAMPLE,
            warmup: time / 5,
            time,
            checked: scenario.server != Server::Bare,
            servers,
        };
        let measured = store.run(&objects(scenario.size, scenario.objects), &run);
        let measured = measured.map_err(|error| Error::of(scenario, error))?;
        if scenario.operation == Operation::Put && matches!(scenario.server, Server::Nginx | Server::NginxTls) {
            // Otherwise its cached writes would reach the disk during the next measurement.
            rustix::fs::sync();
        }
        Ok(Sample::new(&measured))
    }

    /// Records a flame graph for each scenario of Keyhole.
    fn record(&self, flames: &Flames, counts: &Counts) -> Result<()> {
        for scenario in counts.scenarios().into_iter().filter(|scenario| scenario.server.is_keyhole()) {
            eprintln!("flame graph: {scenario}");
            let node = if scenario.size == SMALL { self.node(scenario.objects) } else { &self.node };
            // Starting and stopping the recorder takes a moment.
            let time = flame::TIME + Duration::from_millis(1500);
            thread::scope(|scope| {
                let load = scope.spawn(move || self.run(scenario, time));
                let recorded = flames.record(node.pid(), scenario, self.home.path());
                load.join().unwrap_or_else(|_| Err(Error::new("a thread has panicked")))?;
                recorded
            })?;
        }
        Ok(())
    }

    fn sizes(&self, program: Option<u64>, counts: &Counts) -> Result<Sizes> {
        let largest = match self.nodes.last_key_value() {
            Some((objects, node)) if *objects > counts.small => Some(Largest {
                objects: *objects,
                peak: Usage::of(node.pid())?.resident_peak,
                index: node.index_bytes()?,
            }),
            _ => None,
        };
        Ok(Sizes {
            idle: self.idle.resident,
            peak: Usage::of(self.node.pid())?.resident_peak,
            index: self.node.index_bytes()?,
            largest,
            program,
            nginx_idle: self.nginx_idle.resident,
            nginx_peak: Usage::of_all(&self.nginx.pids())?.resident_peak,
            nginx_program: self.nginx.program_len,
        })
    }

    fn stop(self) -> Result<()> {
        self.node.stop()?;
        self.nodes.into_values().try_for_each(Node::stop)
    }
}
