//! The scenarios: one kind of load on one server, with the state of its data and its memory.

use std::fmt;

use bytesize::ByteSize;

use super::floor::Floor;
use crate::work::Operation;

/// Size of a small object.
pub(super) const SMALL: usize = 4 << 10;
/// Size of an object of a few chunks.
pub(super) const CHUNKS: usize = 64 << 10;
/// Size of a medium object.
pub(super) const MIB: usize = 1 << 20;
/// Size of a large object.
pub(super) const LARGE: usize = 64 << 20;

/// Sizes whose cold reads are measured.
pub(super) const SIZES: [usize; 4] = [SMALL, CHUNKS, MIB, LARGE];

/// Default number of connections, each with one request in flight.
pub(super) const USUAL: usize = 16;

/// Default number of connections for large objects.
pub(super) const FEW: usize = 4;

/// Connections under which small operations are measured as well.
pub(super) const MANY: usize = 64;

/// Long downloads beside which the latency of small requests is measured.
pub(super) const DOWNLOADS: usize = 16;

/// The server of a scenario.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Server {
    /// The program of a plain release build.
    Keyhole,
    KeyholeTls,
    /// The program with profile-guided optimisation, as in the packages.
    Packaged,
    /// An earlier program, to compare with.
    Baseline,
    Nginx,
    NginxTls,
    SeaweedFs,
    /// The network alone.
    Bare,
}

impl Server {
    pub(super) fn name(self) -> &'static str {
        match self {
            Server::Keyhole => "Keyhole",
            Server::KeyholeTls => "Keyhole over TLS",
            Server::Packaged => "Keyhole packaged",
            Server::Baseline => "the baseline",
            Server::Nginx => "nginx",
            Server::NginxTls => "nginx over TLS",
            Server::SeaweedFs => "SeaweedFS",
            Server::Bare => "the network alone",
        }
    }

    pub(super) fn is_keyhole(self) -> bool {
        matches!(self, Server::Keyhole | Server::KeyholeTls | Server::Packaged | Server::Baseline)
    }

    pub(super) fn is_tls(self) -> bool {
        matches!(self, Server::KeyholeTls | Server::NginxTls)
    }
}

/// Where the data of a GET are when it arrives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Reads {
    /// Each object is read once, after a restart and with nothing of the store in the page cache.
    Cold,
    /// A few objects are read again and again, after two passes over all of them.
    Hot,
}

/// The memory of the server, page cache included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Memory {
    Full,
    /// A limit in MiB.
    Mib(u64),
}

/// The memory limits under which reads are measured.
pub(super) const LIMITED: [Memory; 2] = [Memory::Mib(128), Memory::Mib(64)];

impl Memory {
    pub(super) fn name(self) -> String {
        match self {
            Memory::Full => "full memory".to_owned(),
            Memory::Mib(limit) => format!("{limit} MiB of memory"),
        }
    }
}

/// The number of small objects in the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Population {
    /// A store of its own with a thousand.
    Least,
    Usual,
    /// A store of its own with a million.
    Most,
}

/// One kind of load on one server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Scenario {
    pub(super) server: Server,
    pub(super) operation: Operation,
    /// Size of each object in bytes.
    pub(super) size: usize,
    pub(super) connections: usize,
    pub(super) reads: Reads,
    pub(super) memory: Memory,
    /// Whether objects are stored without a customer key.
    pub(super) is_plain: bool,
    /// Number of long downloads at the same time.
    pub(super) beside: usize,
    pub(super) population: Population,
}

impl Scenario {
    const fn new(operation: Operation, size: usize) -> Self {
        Scenario {
            server: Server::Keyhole,
            operation,
            size,
            connections: if size == LARGE { FEW } else { USUAL },
            reads: Reads::Hot,
            memory: Memory::Full,
            is_plain: false,
            beside: 0,
            population: Population::Usual,
        }
    }

    /// Returns hot GETs from Keyhole in full memory.
    pub(super) const fn get(size: usize) -> Self {
        Scenario::new(Operation::Get, size)
    }

    /// Returns PUTs to Keyhole in full memory.
    pub(super) const fn put(size: usize) -> Self {
        Scenario::new(Operation::Put, size)
    }

    pub(super) const fn cold(self) -> Self {
        Scenario { reads: Reads::Cold, ..self }
    }

    pub(super) const fn on(self, server: Server) -> Self {
        Scenario { server, ..self }
    }

    pub(super) const fn within(self, memory: Memory) -> Self {
        Scenario { memory, ..self }
    }

    pub(super) const fn over(self, connections: usize) -> Self {
        Scenario { connections, ..self }
    }

    pub(super) const fn plain(self) -> Self {
        Scenario { is_plain: true, ..self }
    }

    pub(super) const fn beside(self, downloads: usize) -> Self {
        Scenario { beside: downloads, ..self }
    }

    pub(super) const fn of(self, population: Population) -> Self {
        Scenario { population, ..self }
    }

    /// Returns whether costs are given per operation; otherwise they are per GiB.
    pub(super) fn is_by_operation(&self) -> bool {
        self.size < MIB
    }

    /// Returns the load without its server: operation, size, and what differs from the default.
    pub(super) fn load(&self) -> String {
        let mut text = format!("{} {}", operation_name(self.operation), size_name(self.size));
        if self.operation == Operation::Get {
            text.push_str(if self.reads == Reads::Cold { ", cold" } else { ", hot" });
        }
        if self.is_plain {
            text.push_str(", plain");
        }
        if self.memory != Memory::Full {
            text.push_str(&format!(", {}", self.memory.name()));
        }
        if self.connections != Scenario::new(self.operation, self.size).connections {
            text.push_str(&format!(", {} connections", self.connections));
        }
        if self.beside > 0 {
            text.push_str(&format!(", beside {} long downloads", self.beside));
        }
        match self.population {
            Population::Least => text.push_str(", fewest objects"),
            Population::Usual => {}
            Population::Most => text.push_str(", most objects"),
        }
        text
    }

    /// Returns the load of the network alone that its floors include.
    pub(super) fn network(&self) -> Self {
        let load = Scenario::new(self.operation, self.size);
        load.over(self.connections).on(Server::Bare)
    }

    /// Returns its floors of encryption and disk.
    pub(super) fn floors(&self) -> (Floor, Floor) {
        let is_cold = self.reads == Reads::Cold;
        match (self.operation, self.size) {
            (Operation::Get, SMALL) => {
                (Floor::OpenObject, if is_cold { Floor::ReadDirect(SMALL) } else { Floor::ReadCached(SMALL) })
            }
            (Operation::Get, CHUNKS) => {
                (Floor::OpenChunks, if is_cold { Floor::ReadDirect(CHUNKS) } else { Floor::ReadCached(CHUNKS) })
            }
            (Operation::Get, _) => (Floor::Open, if is_cold { Floor::ReadDirect(MIB) } else { Floor::ReadCached(MIB) }),
            (Operation::Put, SMALL) => (Floor::SealObject, Floor::commit(self.connections)),
            (Operation::Put, CHUNKS) => (Floor::SealChunks, Floor::WriteChunks),
            (Operation::Put, MIB) => (Floor::Seal, Floor::WriteMib),
            (Operation::Put, _) => (Floor::Seal, Floor::WriteLarge),
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.server.name(), self.load())
    }
}

pub(super) fn operation_name(operation: Operation) -> &'static str {
    match operation {
        Operation::Get => "GET",
        Operation::Put => "PUT",
    }
}

pub(super) fn size_name(size: usize) -> String {
    ByteSize(size as u64).display().iec().to_string().replace(".0 ", " ")
}

/// Number of objects of each size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    /// Bytes of objects of each size from 64 KiB in a store, all of which cold reads request once.
    pub(super) stored: usize,
    /// Objects of 4 KiB in the usual store.
    pub(super) small: usize,
    /// Objects of 4 KiB in the smallest and the largest store.
    pub(super) least: usize,
    pub(super) most: usize,
    /// Bytes of objects that hot reads and PUTs use in full memory.
    pub(super) hot: usize,
}

/// Objects of 4 KiB that hot reads and PUTs use.
const HOT_SMALL: usize = 10_000;

impl Counts {
    /// Returns the number of objects in the store.
    pub(super) fn stored(&self, size: usize) -> usize {
        if size == SMALL { self.small } else { (self.stored / size).max(FEW) }
    }

    /// Returns the number of objects that a scenario uses. Hot objects take a quarter of a limited
    /// memory at most.
    pub(super) fn of(&self, scenario: &Scenario) -> usize {
        let hot = match (scenario.population, scenario.memory) {
            (Population::Least, _) => return self.least,
            (Population::Most, _) => return self.most,
            (Population::Usual, _) if scenario.reads == Reads::Cold => return self.stored(scenario.size),
            (Population::Usual, Memory::Full) if scenario.size == SMALL => return HOT_SMALL.min(self.small),
            (Population::Usual, Memory::Full) => self.hot,
            (Population::Usual, Memory::Mib(limit)) => (limit as usize) << 18,
        };
        (hot / scenario.size).clamp(1, self.stored(scenario.size))
    }
}

/// The reads of one server after a restart in some memory: the cold ones first.
pub(super) fn reads(server: Server, memory: Memory) -> Vec<Scenario> {
    let on = |scenario: Scenario| scenario.on(server).within(memory);
    let cold = SIZES.map(|size| on(Scenario::get(size).cold()));
    let hot = [CHUNKS, MIB, LARGE].map(|size| on(Scenario::get(size)));
    // In full memory hot reads of all servers are measured next to each other.
    cold.into_iter().chain(hot.into_iter().filter(|_| memory != Memory::Full)).collect()
}

/// The loads in full memory on warm servers, with those to be compared next to each other.
pub(super) fn warm() -> Vec<Scenario> {
    use Server::{Bare, Baseline, Keyhole, KeyholeTls, Nginx, NginxTls, Packaged, SeaweedFs};
    let mut all = Vec::new();
    let mut add = |load: Scenario, servers: &[Server]| all.extend(servers.iter().map(|server| load.on(*server)));
    for load in [Scenario::get(SMALL), Scenario::put(SMALL)] {
        add(load, &[Keyhole, Packaged, Baseline, Bare, Nginx, SeaweedFs]);
        add(load.over(MANY), &[Keyhole, Packaged, Baseline, Bare]);
        add(load.of(Population::Least), &[Keyhole]);
        add(load.of(Population::Most), &[Keyhole]);
    }
    for load in [Scenario::get(CHUNKS), Scenario::put(CHUNKS)] {
        add(load, &[Keyhole, Baseline, Bare, Nginx]);
    }
    for size in [MIB, LARGE] {
        add(Scenario::get(size), &[Keyhole, Baseline, Bare, Nginx]);
        add(Scenario::put(size), &[Keyhole, Baseline, Bare, Nginx, SeaweedFs]);
    }
    for load in [Scenario::get(MIB), Scenario::put(MIB)] {
        add(load, &[KeyholeTls, NginxTls]);
    }
    add(Scenario::put(MIB).plain().over(8), &[Keyhole, Baseline]);
    add(Scenario::get(SMALL).beside(DOWNLOADS), &[Keyhole, Baseline]);
    all
}

/// Returns the floors of encryption and disk that figures are compared with.
pub(super) fn floors() -> Vec<Floor> {
    let mut all = vec![Floor::Seal, Floor::Open, Floor::SealChunks, Floor::OpenChunks];
    all.extend([Floor::SealObject, Floor::OpenObject]);
    all.extend([SMALL, CHUNKS, MIB].map(Floor::ReadCached));
    all.extend([SMALL, CHUNKS, MIB].map(Floor::ReadDirect));
    all.extend([Floor::WriteChunks, Floor::WriteMib, Floor::WriteLarge]);
    all.extend([USUAL, MANY].map(Floor::commit));
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn scenarios_are_unique_within_a_turn() {
        let mut all = warm();
        for memory in [Memory::Full].into_iter().chain(LIMITED) {
            all.extend(reads(Server::Keyhole, memory));
        }
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        let floors = floors();
        assert_eq!(floors.iter().collect::<BTreeSet<_>>().len(), floors.len());
        for scenario in all {
            let (encryption, disk) = scenario.floors();
            assert!(floors.contains(&encryption), "{scenario}: {encryption:?}");
            assert!(floors.contains(&disk) || scenario.connections == 8, "{scenario}: {disk:?}");
        }
    }

    #[test]
    fn scenario_names_state_reads_and_memory() {
        let scenario = Scenario::get(MIB).cold().within(Memory::Mib(64));
        assert_eq!(scenario.to_string(), "Keyhole: GET 1 MiB, cold, 64 MiB of memory");
        assert_eq!(Scenario::put(MIB).plain().over(8).load(), "PUT 1 MiB, plain, 8 connections");
        assert_eq!(Scenario::get(LARGE).load(), "GET 64 MiB, hot");
    }

    #[test]
    fn hot_objects_take_a_quarter_of_a_limited_memory() {
        let counts = Counts { stored: 1 << 30, small: 65_536, least: 1000, most: 1_000_000, hot: 256 << 20 };
        let of = |scenario: Scenario| counts.of(&scenario);
        assert_eq!(of(Scenario::get(MIB)), 256);
        assert_eq!(of(Scenario::get(MIB).within(Memory::Mib(128))), 32);
        assert_eq!(of(Scenario::get(LARGE).within(Memory::Mib(128))), 1);
        assert_eq!(of(Scenario::get(LARGE).cold()), 16);
        assert_eq!(of(Scenario::get(SMALL).cold()), 65_536);
        assert_eq!(of(Scenario::get(SMALL)), HOT_SMALL);
        assert_eq!(of(Scenario::get(SMALL).of(Population::Most)), 1_000_000);
    }
}
