//! The scenarios and their samples.

use std::collections::BTreeMap;
use std::fmt;

use bytesize::ByteSize;

use super::floor::{Cost, Floor};
use crate::work::{Measured, Operation};

/// Size of a small object.
pub(super) const SMALL: usize = 4 << 10;
/// Size of a medium object.
pub(super) const MIB: usize = 1 << 20;
/// Size of a large object.
pub(super) const LARGE: usize = 64 << 20;

const GIB: f64 = (1u64 << 30) as f64;

/// Numbers of connections, each with one request in flight.
pub(super) const CONNECTIONS: [usize; 5] = [1, 4, 16, 64, 256];

/// Default number of connections.
pub(super) const USUAL: usize = 16;

/// The server of a scenario.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Server {
    Keyhole,
    KeyholeTls,
    Nginx,
    NginxTls,
    /// The network alone.
    Bare,
}

impl Server {
    pub(super) fn is_keyhole(self) -> bool {
        matches!(self, Server::Keyhole | Server::KeyholeTls)
    }
}

/// One kind of load on one server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Scenario {
    pub(super) server: Server,
    pub(super) operation: Operation,
    /// Size of each object in bytes.
    pub(super) size: usize,
    pub(super) connections: usize,
    /// Number of objects of this size.
    pub(super) objects: usize,
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = match self.server {
            Server::Keyhole => "Keyhole",
            Server::KeyholeTls => "Keyhole over TLS",
            Server::Nginx => "nginx",
            Server::NginxTls => "nginx over TLS",
            Server::Bare => "the network alone",
        };
        let operation = operation_name(self.operation);
        let plural = if self.connections == 1 { "" } else { "s" };
        let size = size_name(self.size);
        write!(f, "{server}: {operation} {size}, {} connection{plural}, {} objects", self.connections, self.objects)
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
#[derive(Clone, Debug)]
pub(super) struct Counts {
    /// Default number of objects of 4 KiB.
    pub(super) small: usize,
    /// Other numbers of objects of 4 KiB, each in a store of its own.
    pub(super) growing: Vec<usize>,
    pub(super) mib: usize,
    pub(super) large: usize,
}

impl Counts {
    pub(super) fn of(&self, size: usize) -> usize {
        match size {
            SMALL => self.small,
            MIB => self.mib,
            _ => self.large,
        }
    }

    /// Returns a load with the default number of objects.
    pub(super) fn scenario(&self, server: Server, operation: Operation, size: usize, connections: usize) -> Scenario {
        Scenario { server, operation, size, connections, objects: self.of(size) }
    }

    /// Returns all scenarios in the order of a turn, with those to be compared next to each other.
    pub(super) fn scenarios(&self) -> Vec<Scenario> {
        let mut all = Vec::new();
        for operation in [Operation::Get, Operation::Put] {
            for connections in CONNECTIONS {
                for server in [Server::Keyhole, Server::Nginx, Server::Bare] {
                    all.push(self.scenario(server, operation, SMALL, connections));
                }
            }
            for size in [MIB, LARGE] {
                for server in [Server::Keyhole, Server::Nginx, Server::Bare] {
                    all.push(self.scenario(server, operation, size, USUAL));
                }
            }
            for server in [Server::KeyholeTls, Server::NginxTls] {
                all.push(self.scenario(server, operation, MIB, USUAL));
            }
            for &objects in self.growing.iter().filter(|objects| **objects != self.small) {
                all.push(Scenario { objects, ..self.scenario(Server::Keyhole, operation, SMALL, USUAL) });
            }
        }
        all
    }
}

/// Returns the floors of encryption and disk that figures are compared with.
pub(super) fn floors() -> Vec<Floor> {
    let mut all = vec![Floor::Seal, Floor::Open, Floor::SealAlone, Floor::OpenAlone];
    all.extend([Floor::SealObject, Floor::OpenObject]);
    all.extend([Floor::ReadSmall, Floor::ReadMib, Floor::ReadDirect, Floor::WriteMib, Floor::WriteLarge]);
    all.extend(CONNECTIONS.map(Floor::commit));
    all
}

/// The measurement of one turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) operations_per_s: f64,
    /// Bytes of bodies per second, including those of operations that did not end within the turn.
    pub(super) bytes_per_s: f64,
    /// Seconds of the server's CPU time.
    pub(super) cpu_per_operation: f64,
    pub(super) cpu_per_gib: f64,
    /// Seconds of the generator's CPU time.
    pub(super) own_per_operation: f64,
    pub(super) own_per_gib: f64,
    /// Fraction of the server's CPU time spent in the kernel, from 0 to 1.
    pub(super) kernel_share: f64,
    /// Median latency in seconds.
    pub(super) p50: f64,
    /// 99th percentile of the latency in seconds.
    pub(super) p99: f64,
    /// Average number of cores used by the server.
    pub(super) server_cores: f64,
    /// Average number of cores used by the generator.
    pub(super) own_cores: f64,
    /// Average number of idle cores.
    pub(super) idle_cores: f64,
    /// Average number of cores used by others: kernel threads and other processes.
    pub(super) other_cores: f64,
    /// Number of SlowDown answers.
    pub(super) slow_down: u64,
}

impl Sample {
    pub(super) fn new(measured: &Measured) -> Self {
        let seconds = measured.time.as_secs_f64();
        let per = |what: f64, of: f64| if of > 0.0 { what / of } else { f64::NAN };
        let operations = measured.operations as f64;
        let gib = measured.bytes as f64 / GIB;
        let server = measured.server.unwrap_or_default();
        let cpu = server.cpu.as_secs_f64();
        let own = measured.own.cpu.as_secs_f64();
        let latency = |quantile: f64| measured.latencies.value_at_quantile(quantile) as f64 / 1e9;
        Sample {
            operations_per_s: operations / seconds,
            bytes_per_s: measured.bytes as f64 / seconds,
            cpu_per_operation: per(cpu, operations),
            cpu_per_gib: per(cpu, gib),
            own_per_operation: per(own, operations),
            own_per_gib: per(own, gib),
            kernel_share: server.kernel_share(),
            p50: latency(0.5),
            p99: latency(0.99),
            server_cores: cpu / seconds,
            own_cores: own / seconds,
            idle_cores: measured.cores.idle.as_secs_f64() / seconds,
            other_cores: ((measured.cores.busy.as_secs_f64() - cpu - own) / seconds).max(0.0),
            slow_down: measured.slow_down,
        }
    }
}

/// The measurements of all turns.
#[derive(Default, Debug)]
pub(super) struct Results {
    samples: BTreeMap<Scenario, Vec<Sample>>,
    costs: BTreeMap<Floor, Vec<Cost>>,
}

impl Results {
    pub(super) fn add(&mut self, scenario: Scenario, sample: Sample) {
        self.samples.entry(scenario).or_default().push(sample);
    }

    pub(super) fn add_floor(&mut self, floor: Floor, cost: Cost) {
        self.costs.entry(floor).or_default().push(cost);
    }

    /// Returns the median of a figure over the turns; NaN without a measurement.
    pub(super) fn median(&self, scenario: Scenario, figure: impl Fn(&Sample) -> f64) -> f64 {
        median(self.samples.get(&scenario).into_iter().flatten().map(figure).collect())
    }

    /// Returns the median ratio of two scenarios' figures in the same turn.
    pub(super) fn ratio(&self, one: Scenario, other: Scenario, figure: impl Fn(&Sample) -> f64) -> f64 {
        let of = |scenario| self.samples.get(&scenario).into_iter().flatten();
        median(of(one).zip(of(other)).map(|(one, other)| figure(one) / figure(other)).collect())
    }

    /// Returns the median of a floor's figure.
    pub(super) fn floor(&self, floor: Floor, figure: impl Fn(&Cost) -> f64) -> f64 {
        median(self.costs.get(&floor).into_iter().flatten().map(figure).collect())
    }

    /// Returns all samples with their scenarios.
    pub(super) fn samples(&self) -> impl Iterator<Item = (&Scenario, &Sample)> {
        self.samples.iter().flat_map(|(scenario, samples)| samples.iter().map(move |sample| (scenario, sample)))
    }
}

/// Returns the median; the mean of the middle two for an even number of values, NaN for none.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.get(middle) {
        None => f64::NAN,
        Some(value) if values.len() % 2 == 1 => *value,
        Some(value) => (values[middle - 1] + value) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const COUNTS: fn() -> Counts =
        || Counts { small: 10_000, growing: vec![1000, 10_000, 100_000], mib: 256, large: 16 };

    fn sample(operations_per_s: f64) -> Sample {
        Sample {
            operations_per_s,
            bytes_per_s: 0.0,
            cpu_per_operation: 0.0,
            cpu_per_gib: 0.0,
            own_per_operation: 0.0,
            own_per_gib: 0.0,
            kernel_share: 0.0,
            p50: 0.0,
            p99: 0.0,
            server_cores: 0.0,
            own_cores: 0.0,
            idle_cores: 0.0,
            other_cores: 0.0,
            slow_down: 0,
        }
    }

    #[test]
    fn medians_of_samples_are_computed() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![7.0]), 7.0);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn scenarios_are_unique_within_a_turn() {
        let all = COUNTS().scenarios();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        assert_eq!(all.iter().filter(|scenario| scenario.objects == 1000).count(), 2);
        let floors = floors();
        assert_eq!(floors.iter().collect::<BTreeSet<_>>().len(), floors.len());
    }

    #[test]
    fn ratios_compare_the_same_turn() {
        let one = COUNTS().scenario(Server::Keyhole, Operation::Get, MIB, USUAL);
        let other = Scenario { server: Server::Nginx, ..one };
        let mut results = Results::default();
        for (ours, theirs) in [(10.0, 10.0), (1.0, 2.0), (9.0, 10.0)] {
            results.add(one, sample(ours));
            results.add(other, sample(theirs));
        }
        assert_eq!(results.ratio(one, other, |sample| sample.operations_per_s), 0.9);
        assert_eq!(results.median(one, |sample| sample.operations_per_s), 9.0);
        assert!(results.ratio(one, Scenario { size: SMALL, ..other }, |sample| sample.operations_per_s).is_nan());
    }

    #[test]
    fn scenario_names_are_readable() {
        let scenario = COUNTS().scenario(Server::KeyholeTls, Operation::Put, MIB, 1);
        assert_eq!(scenario.to_string(), "Keyhole over TLS: PUT 1 MiB, 1 connection, 256 objects");
        assert_eq!([SMALL, LARGE].map(size_name), ["4 KiB", "64 MiB"]);
    }
}
