//! All running servers, and the measurements in turns.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use keyhole_tests::{Certificate, CustomerKey};
use tempfile::TempDir;

use super::Options;
use super::bare::Bare;
use super::document::Versions;
use super::figures::{Sizes, Unit};
use super::flame::{self, Flames};
use super::floor::Disk;
use super::memory::Limit;
use super::nginx::Nginx;
use super::node::{Node, Setup};
use super::results::{Results, Sample};
use super::scenario::{
    self, CHUNKS, Counts, LARGE, LIMITED, MIB, Memory, Population, Reads, SIZES, SMALL, Scenario, Server,
};
use super::seaweedfs::SeaweedFs;
use crate::process::Usage;
use crate::wire::Connector;
use crate::work::{self, Objects, Operation, Run, Store};
use crate::{Error, Result};

const BUCKET: &str = "report";

/// Maximum number of objects whose requests are signed in advance.
const SAMPLE: usize = 65_536;

/// Connections that fill the stores.
const FILLING: usize = 64;

/// Idle time of a node before its memory at rest is measured.
const REST: Duration = Duration::from_secs(1);

/// Passes over the objects of a hot scenario before it is measured: the second one fills a cache that
/// admits data at their second use.
const PASSES: usize = 2;

/// Maximum duration of a pass.
const PASS_MAX: Duration = Duration::from_secs(20);

/// Time that the long downloads run before the requests beside them.
const AHEAD: Duration = Duration::from_millis(300);

/// The number of objects in the stores, and the space they need.
pub(super) struct Amounts {
    pub(super) counts: Counts,
    /// Capacity in bytes of a store with objects of all sizes.
    capacity: u64,
    /// Bytes of free space required.
    pub(super) room: u64,
}

impl Amounts {
    pub(super) fn new(is_quick: bool) -> Self {
        let counts = if is_quick {
            Counts { stored: 256 << 20, small: 10_000, least: 1000, most: 20_000, hot: 64 << 20 }
        } else {
            Counts { stored: 1 << 30, small: SAMPLE, least: 1000, most: 1_000_000, hot: 256 << 20 }
        };
        let (capacity, room) = if is_quick { (3 << 29, 6 << 30) } else { (6 << 30, 34 << 30) };
        Amounts { counts, capacity, room }
    }
}

/// A node, by the store that it serves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Host {
    Keyhole,
    Packaged,
    Baseline,
    /// The node with the fewest objects.
    Least,
    /// The node with the most objects.
    Most,
}

/// Returns the node of a scenario, unless it is for another server.
fn host(scenario: &Scenario) -> Option<Host> {
    match (scenario.server, scenario.population) {
        (Server::Keyhole | Server::KeyholeTls, Population::Usual) => Some(Host::Keyhole),
        (Server::Keyhole | Server::KeyholeTls, Population::Least) => Some(Host::Least),
        (Server::Keyhole | Server::KeyholeTls, Population::Most) => Some(Host::Most),
        (Server::Packaged, _) => Some(Host::Packaged),
        (Server::Baseline, _) => Some(Host::Baseline),
        (Server::Nginx | Server::NginxTls | Server::SeaweedFs | Server::Bare, _) => None,
    }
}

/// A node and the limit of its memory, which must outlive it.
struct Hosted {
    node: Node,
    limit: Option<Limit>,
}

/// All running servers.
pub(super) struct Rig {
    counts: Counts,
    nodes: BTreeMap<Host, Hosted>,
    nginx: Nginx,
    seaweedfs: Option<SeaweedFs>,
    /// Bare servers, by the length of replies.
    bare: BTreeMap<usize, Bare>,
    disk: Disk,
    certificate: Certificate,
    key_headers: Vec<(String, String)>,
    idle: u64,
    /// Peak resident size of the usual node in full memory, over its restarts.
    peak: u64,
    // Declared last, to be removed after all servers have ended.
    home: TempDir,
}

fn objects(scenario: &Scenario, count: usize) -> Objects {
    let prefix = match scenario.size {
        _ if scenario.is_plain => "plain/",
        SMALL => "small/",
        CHUNKS => "chunks/",
        MIB => "mib/",
        _ => "large/",
    };
    Objects { prefix: prefix.to_owned(), count, size: scenario.size }
}

impl Rig {
    /// Starts all servers with empty stores.
    pub(super) fn start(options: &Options, amounts: &Amounts) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("keyhole-report-").tempdir_in(&options.directory);
        let home = home.map_err(|error| Error::of(options.directory.display(), error))?;
        let certificate = Certificate::new();
        let at = |name: &str| home.path().join(name);
        let mut nodes = BTreeMap::new();
        let mut start = |host: Host, program: &Path, capacity: u64| -> Result<u32> {
            let data = at(&format!("{host:?}").to_lowercase());
            let setup = Setup { program: program.to_owned(), data, capacity, tls: None };
            let setup = if host == Host::Keyhole { setup.with_tls(&certificate) } else { setup };
            let node = Node::start(&setup, None)?;
            let pid = node.pid();
            nodes.insert(host, Hosted { node, limit: None });
            Ok(pid)
        };
        let pid = start(Host::Keyhole, &options.keyhole, amounts.capacity)?;
        thread::sleep(REST);
        let idle = Usage::of(pid)?.resident;
        if let Some(baseline) = &options.baseline {
            start(Host::Baseline, baseline, amounts.capacity)?;
        }
        if let Some(packaged) = &options.packaged {
            start(Host::Packaged, packaged, 2 << 30)?;
        }
        start(Host::Least, &options.keyhole, 2 << 30)?;
        // A small object takes less than 6 KiB, and the margin leaves room to overwrite them.
        start(Host::Most, &options.keyhole, amounts.counts.most as u64 * (6 << 10) + (2 << 30))?;
        let nginx = Nginx::start(&at("nginx"), &certificate)?;
        let seaweedfs = options.seaweedfs.as_deref().map(|program| SeaweedFs::start(program, &at("seaweedfs")));
        let bare = SIZES.into_iter().map(|size| Ok((size, Bare::start(size)?))).collect::<Result<_>>()?;
        Ok(Rig {
            counts: amounts.counts,
            nodes,
            nginx,
            seaweedfs: seaweedfs.transpose()?,
            bare,
            disk: Disk::new(home.path())?,
            certificate,
            key_headers: work::key_headers(&CustomerKey::random()),
            idle,
            peak: 0,
            home,
        })
    }

    /// Returns whether the server of a scenario runs.
    fn runs(&self, scenario: &Scenario) -> bool {
        match scenario.server {
            Server::SeaweedFs => self.seaweedfs.is_some(),
            _ => host(scenario).is_none_or(|host| self.nodes.contains_key(&host)),
        }
    }

    fn node(&self, host: Host) -> Result<&Node> {
        let hosted = self.nodes.get(&host).ok_or_else(|| Error::new(format!("no node {host:?}")))?;
        Ok(&hosted.node)
    }

    /// Returns the server of a scenario and its processes.
    fn target(&self, scenario: &Scenario) -> Result<(Store, Vec<u32>)> {
        let missing = || Error::of(scenario, "its server does not run");
        let (endpoint, processes) = match scenario.server {
            Server::Nginx => (self.nginx.endpoint().to_owned(), self.nginx.workers().to_vec()),
            Server::NginxTls => (self.nginx.tls_endpoint().to_owned(), self.nginx.workers().to_vec()),
            Server::SeaweedFs => {
                let server = self.seaweedfs.as_ref().ok_or_else(missing)?;
                (server.endpoint().to_owned(), vec![server.pid()])
            }
            Server::Bare => {
                let bare = self.bare.get(&scenario.size).ok_or_else(missing)?;
                (bare.endpoint(), vec![bare.pid()])
            }
            Server::Keyhole | Server::KeyholeTls | Server::Packaged | Server::Baseline => {
                let node = self.node(host(scenario).ok_or_else(missing)?)?;
                let endpoint = if scenario.server.is_tls() { node.tls_endpoint()? } else { node.endpoint() };
                (endpoint.to_owned(), vec![node.pid()])
            }
        };
        let connector = Connector::new(&endpoint, Some(&self.certificate.authority_path()))?;
        let is_s3 = scenario.server.is_keyhole() || scenario.server == Server::SeaweedFs;
        let is_sealed = is_s3 && !scenario.is_plain;
        let store = Store {
            connector: Arc::new(connector),
            signer: is_s3.then(Node::signer),
            bucket: BUCKET.to_owned(),
            key_headers: if is_sealed { self.key_headers.clone() } else { Vec::new() },
        };
        Ok((store, processes))
    }

    /// Puts all objects to be read later.
    pub(super) fn fill(&self) -> Result<()> {
        let of_size = |server: Server| SIZES.map(|size| Scenario::put(size).on(server).cold()).to_vec();
        let mut all = of_size(Server::Keyhole);
        all.extend(of_size(Server::Baseline));
        all.extend(of_size(Server::Nginx));
        let small = Scenario::put(SMALL);
        all.push(small.on(Server::Packaged));
        all.extend([Population::Least, Population::Most].map(|population| small.of(population)));
        all.push(small.on(Server::SeaweedFs));
        all.extend([MIB, LARGE].map(|size| Scenario::put(size).on(Server::SeaweedFs).cold()));
        for scenario in all.into_iter().filter(|scenario| self.runs(scenario)) {
            let count = self.counts.of(&scenario);
            eprintln!("filling: {scenario}, {count} objects");
            let (store, _) = self.target(&scenario)?;
            store.make_bucket()?;
            let filled = store.fill(&objects(&scenario, count), 0..count, FILLING);
            filled.map_err(|error| Error::of(scenario, error))?;
        }
        rustix::fs::sync();
        Ok(())
    }

    /// Measures all floors and scenarios in turns.
    pub(super) fn measure(&mut self, options: &Options, cores: usize) -> Result<Results> {
        let mut results = Results::default();
        for turn in 1..=options.turns {
            let turn = format!("turn {turn}/{}", options.turns);
            for floor in scenario::floors() {
                let cost = self.disk.measure(floor, cores, options.time / 5)?;
                let unit = if floor.is_by_gib() { Unit::GibPerSecond } else { Unit::PerSecond };
                eprintln!("{turn}: {}: {}", floor.name(), unit.text(cost.rate));
                results.add_floor(floor, cost);
            }
            for memory in [Memory::Full].into_iter().chain(LIMITED) {
                for server in [Server::Keyhole, Server::Baseline] {
                    self.restart(server, memory)?;
                    self.add(&scenario::reads(server, memory), options.time, &turn, &mut results)?;
                }
                if memory == Memory::Full {
                    let nginx = scenario::reads(Server::Nginx, memory);
                    self.add(&nginx, options.time, &turn, &mut results)?;
                    let whole = scenario::reads(Server::SeaweedFs, memory).into_iter().filter(|read| read.size >= MIB);
                    self.add(&whole.collect::<Vec<_>>(), options.time, &turn, &mut results)?;
                    self.add(&scenario::warm(), options.time, &turn, &mut results)?;
                }
            }
        }
        self.restart(Server::Keyhole, Memory::Full)?;
        Ok(results)
    }

    /// Measures scenarios whose servers run.
    fn add(&self, scenarios: &[Scenario], time: Duration, turn: &str, results: &mut Results) -> Result<()> {
        for scenario in scenarios.iter().filter(|scenario| self.runs(scenario)) {
            let sample = self.run(scenario, time)?;
            let mib = sample.bytes_per_s / MIB as f64;
            let cpu = sample.cpu_per_operation * 1e6;
            eprintln!(
                "{turn}: {scenario}: {:.0}/s, {mib:.0} MiB/s, {cpu:.1} us of CPU time each",
                sample.operations_per_s
            );
            results.add(*scenario, sample);
        }
        Ok(())
    }

    /// Restarts a server's usual node under another memory limit, with an empty page cache.
    fn restart(&mut self, server: Server, memory: Memory) -> Result<()> {
        let host = if server == Server::Baseline { Host::Baseline } else { Host::Keyhole };
        let Some(Hosted { node, limit }) = self.nodes.remove(&host) else { return Ok(()) };
        if host == Host::Keyhole && limit.is_none() {
            self.peak = self.peak.max(peak(&node)?);
        }
        let new = Limit::new(memory, self.home.path())?;
        let node = node.restart(new.as_ref())?;
        drop(limit);
        self.nodes.insert(host, Hosted { node, limit: new });
        Ok(())
    }

    fn evict(&self, scenario: &Scenario) -> Result<()> {
        match (scenario.server, host(scenario)) {
            (_, Some(host)) => self.node(host)?.evict(),
            (Server::SeaweedFs, None) => self.seaweedfs.as_ref().map_or(Ok(()), SeaweedFs::evict),
            (_, None) => self.nginx.evict(),
        }
    }

    /// Prepares and measures a scenario.
    fn run(&self, scenario: &Scenario, time: Duration) -> Result<Sample> {
        let failed = |error| Error::of(scenario, error);
        let (store, servers) = self.target(scenario)?;
        let objects = objects(scenario, self.counts.of(scenario));
        let is_get = scenario.operation == Operation::Get;
        let is_cold = is_get && scenario.reads == Reads::Cold;
        let run = Run {
            operation: scenario.operation,
            connections: scenario.connections,
            sample: SAMPLE,
            warmup: if is_cold { Duration::ZERO } else { time / 5 },
            time,
            once: is_cold,
            checked: scenario.server != Server::Bare,
            servers,
        };
        if is_cold {
            self.evict(scenario)?;
        } else if is_get && scenario.server != Server::Bare {
            let pass = Run { warmup: Duration::ZERO, time: PASS_MAX, once: true, servers: Vec::new(), ..run };
            (0..PASSES).try_for_each(|_| store.run(&objects, &pass).map(|_| ())).map_err(failed)?;
        }
        let measured = thread::scope(|scope| {
            let downloads = (scenario.beside > 0).then(|| scope.spawn(|| self.download(scenario, time)));
            if downloads.is_some() {
                thread::sleep(AHEAD);
            }
            let measured = store.run(&objects, &run);
            if let Some(downloads) = downloads {
                downloads.join().unwrap_or_else(|_| Err(Error::new("a thread has panicked")))?;
            }
            measured
        });
        let measured = measured.map_err(failed)?;
        if !is_get && matches!(scenario.server, Server::Nginx | Server::NginxTls | Server::SeaweedFs) {
            // Otherwise its cached writes would reach the disk during the next measurement.
            rustix::fs::sync();
        }
        Ok(Sample::new(&measured))
    }

    /// Downloads large objects from the server of a scenario for slightly longer than it is measured.
    fn download(&self, scenario: &Scenario, time: Duration) -> Result<()> {
        let large = Scenario { size: LARGE, connections: scenario.beside, ..*scenario };
        let (store, _) = self.target(&large)?;
        let run = Run {
            operation: Operation::Get,
            connections: large.connections,
            sample: SAMPLE,
            warmup: Duration::ZERO,
            time: AHEAD + time + time / 5 + Duration::from_millis(500),
            once: false,
            checked: false,
            servers: Vec::new(),
        };
        store.run(&objects(&large, self.counts.of(&large)), &run).map(|_| ())
    }

    /// Records a flame graph for each scenario of Keyhole on warm data.
    pub(super) fn record(&self, flames: &Flames) -> Result<()> {
        let is_recorded = |scenario: &Scenario| matches!(scenario.server, Server::Keyhole | Server::KeyholeTls);
        for scenario in scenario::warm().into_iter().filter(is_recorded) {
            eprintln!("flame graph: {scenario}");
            let Some(host) = host(&scenario) else { continue };
            let pid = self.node(host)?.pid();
            // Starting and stopping the recorder takes a moment.
            let time = flame::TIME + Duration::from_millis(1500);
            thread::scope(|scope| {
                let load = scope.spawn(move || self.run(&scenario, time));
                let recorded = flames.record(pid, scenario, self.home.path());
                load.join().unwrap_or_else(|_| Err(Error::new("a thread has panicked")))?;
                recorded
            })?;
        }
        Ok(())
    }

    /// Returns the sizes in memory.
    pub(super) fn sizes(&self) -> Result<Sizes> {
        let usual = self.node(Host::Keyhole)?;
        let most = self.node(Host::Most)?;
        let index_most = most.index_bytes()?;
        Ok(Sizes {
            idle: self.idle,
            peak: self.peak.max(peak(usual)?).saturating_sub(usual.index_bytes()?),
            peak_most: peak(most)?.saturating_sub(index_most),
            index_most,
            nginx: Usage::of_all(&self.nginx.pids())?.resident_peak,
            seaweed_fs: self
                .seaweedfs
                .as_ref()
                .map(|server| Usage::of(server.pid()))
                .transpose()?
                .map(|usage| usage.resident_peak),
            ..Sizes::default()
        })
    }

    /// Returns the versions of the servers that Keyhole is compared with.
    pub(super) fn versions(&self) -> Versions {
        Versions {
            nginx: self.nginx.version.clone(),
            seaweedfs: self.seaweedfs.as_ref().map(|server| server.version.clone()),
        }
    }

    /// Shuts all nodes down.
    pub(super) fn stop(self) -> Result<()> {
        self.nodes.into_values().try_for_each(|hosted| hosted.node.stop())
    }
}

fn peak(node: &Node) -> Result<u64> {
    Ok(Usage::of(node.pid())?.resident_peak)
}
