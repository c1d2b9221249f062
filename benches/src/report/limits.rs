//! The limits, each with its name: the one table of them. Limits are ratios to figures of the same run,
//! since machines differ; only sizes are absolute.

use super::scenario::{CHUNKS, DOWNLOADS, LARGE, MANY, MIB, Memory, Population, SMALL, Scenario, Server};

/// The limit of a figure.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Limit {
    pub(super) fn holds(self, value: f64) -> bool {
        match self {
            Limit::AtMost(limit) => value <= limit,
            Limit::AtLeast(limit) => value >= limit,
        }
    }

    /// Returns by which fraction of the limit a value misses it.
    pub(super) fn missed_by(self, value: f64) -> f64 {
        match self {
            Limit::AtMost(limit) => value / limit - 1.0,
            Limit::AtLeast(limit) => 1.0 - value / limit,
        }
    }
}

/// The figure that a limit is for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Measure {
    /// CPU time relative to the sum of the floors.
    Floors(Scenario),
    /// CPU time relative to that of another scenario.
    Cpu(Scenario, Scenario),
    /// Throughput relative to that of another scenario.
    Throughput(Scenario, Scenario),
    /// 99th percentile of the latency relative to that of another scenario.
    P99(Scenario, Scenario),
    /// Resident memory of an idle node.
    Idle,
    /// Peak resident memory of the run, without the index.
    Peak,
    /// Peak resident memory with the most objects, without the index.
    PeakOfMost,
    /// Size of the stripped program.
    Program,
    /// Size of the stripped program with profile-guided optimisation.
    PackagedProgram,
}

impl Measure {
    /// Describes the figure.
    pub(super) fn describe(&self) -> String {
        let to = |figure: &str, one: &Scenario, other: &Scenario| {
            let one_name = if one.server == Server::Keyhole { one.load() } else { one.to_string() };
            let other_name = if one.server != other.server && one.on(other.server) == *other {
                other.server.name().to_owned()
            } else {
                other.to_string()
            };
            format!("{figure} of {one_name} / {other_name}")
        };
        match self {
            Measure::Floors(scenario) if scenario.server == Server::Keyhole => {
                format!("CPU of {} / floors", scenario.load())
            }
            Measure::Floors(scenario) => format!("CPU of {scenario} / floors"),
            Measure::Cpu(one, other) => to("CPU", one, other),
            Measure::Throughput(one, other) => to("throughput", one, other),
            Measure::P99(one, other) => to("p99", one, other),
            Measure::Idle => "resident memory, idle, empty store".to_owned(),
            Measure::Peak => "peak resident memory of the run, without the index".to_owned(),
            Measure::PeakOfMost => "peak resident memory with the most objects, without the index".to_owned(),
            Measure::Program => "the program, stripped".to_owned(),
            Measure::PackagedProgram => "the packaged program, stripped".to_owned(),
        }
    }
}

/// A named limit.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Promise {
    pub(super) name: String,
    pub(super) measure: Measure,
    pub(super) limit: Limit,
}

const MIB_AS_BYTES: f64 = (1 << 20) as f64;

/// Returns all limits.
pub(super) fn promises() -> Vec<Promise> {
    use Measure::{Cpu, Floors, Idle, P99, PackagedProgram, Peak, PeakOfMost, Program, Throughput};
    use Server::{Baseline, Keyhole, KeyholeTls, NginxTls, Packaged, SeaweedFs};
    let mut all = Vec::new();
    let mut add = |name: &str, measure, limit| all.push(Promise { name: name.to_owned(), measure, limit });
    let (get, put) = (Scenario::get, Scenario::put);
    let most = Limit::AtMost;
    let small_memory = Memory::Mib(128);

    // Reads of whole objects.
    for (name, size) in [("1mib", MIB), ("64mib", LARGE)] {
        add(&format!("get-{name}-cold"), Floors(get(size).cold()), most(1.35));
        add(&format!("get-{name}-hot"), Floors(get(size)), most(1.5));
        for (reads, load) in [("cold", get(size).cold()), ("hot", get(size))] {
            add(&format!("get-{name}-{reads}-in-128mib"), Cpu(load.within(small_memory), load), most(1.1));
        }
    }
    add("get-64mib-cold-throughput", Throughput(get(LARGE).cold(), get(LARGE)), Limit::AtLeast(0.9));
    add("get-64kib-cold", Floors(get(CHUNKS).cold()), most(1.7));

    // Writes of whole objects.
    add("put-1mib", Floors(put(MIB)), most(1.35));
    add("put-64mib", Floors(put(LARGE)), most(1.25));

    // Small operations, for the packaged and for the plain program.
    for (suffix, server) in [("packaged", Packaged), ("plain-build", Keyhole)] {
        add(&format!("get-4kib-{suffix}"), Floors(get(SMALL).on(server)), most(1.55));
        add(&format!("put-4kib-16-{suffix}"), Floors(put(SMALL).on(server)), most(2.0));
        add(&format!("put-4kib-64-{suffix}"), Floors(put(SMALL).over(MANY).on(server)), most(1.7));
    }
    let few = get(SMALL).of(Population::Least);
    add("get-4kib-many-objects", Cpu(get(SMALL).of(Population::Most), few), most(1.35));

    // TLS.
    for (name, load) in [("get", get(MIB)), ("put", put(MIB))] {
        add(&format!("{name}-1mib-tls"), Floors(load.on(KeyholeTls)), most(1.45));
        add(&format!("{name}-1mib-tls-nginx"), Cpu(load.on(KeyholeTls), load.on(NginxTls)), most(1.0));
    }

    // Objects without customer keys, relative to an earlier program.
    let plain = put(MIB).plain().over(8);
    add("put-1mib-plain-baseline", Cpu(plain, plain.on(Baseline)), most(0.5));

    // SeaweedFS, which does the same work.
    for (name, load) in
        [("get-4kib", get(SMALL)), ("put-4kib", put(SMALL)), ("put-1mib", put(MIB)), ("put-64mib", put(LARGE))]
    {
        add(&format!("{name}-seaweedfs"), Cpu(load, load.on(SeaweedFs)), most(0.1));
    }
    for (name, size) in [("1mib", MIB), ("64mib", LARGE)] {
        let load = get(size).cold();
        add(&format!("get-{name}-cold-seaweedfs"), Cpu(load, load.on(SeaweedFs)), most(0.4));
    }

    // Sizes.
    add("idle-memory", Idle, most(12.0 * MIB_AS_BYTES));
    add("peak-memory", Peak, most(80.0 * MIB_AS_BYTES));
    add("peak-memory-many-objects", PeakOfMost, most(80.0 * MIB_AS_BYTES));
    add("program-size", Program, most(12e6));
    add("program-size-packaged", PackagedProgram, most(12e6));

    // Latency of small requests beside large ones, relative to an earlier program.
    let beside = get(SMALL).beside(DOWNLOADS);
    add("p99-beside-downloads-baseline", P99(beside, beside.on(Baseline)), most(1.5));
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::scenario::{LIMITED, reads, warm};
    use super::*;

    #[test]
    fn names_are_unique_and_descriptions_too() {
        let all = promises();
        let names: BTreeSet<&str> = all.iter().map(|promise| &promise.name[..]).collect();
        assert_eq!(names.len(), all.len());
        let texts: BTreeSet<String> = all.iter().map(|promise| promise.measure.describe()).collect();
        assert_eq!(texts.len(), all.len());
    }

    #[test]
    fn limits_compare_measured_scenarios() {
        let mut measured: BTreeSet<Scenario> = warm().into_iter().collect();
        for server in [Server::Keyhole, Server::SeaweedFs] {
            for memory in [Memory::Full].into_iter().chain(LIMITED) {
                measured.extend(reads(server, memory));
            }
        }
        for promise in promises() {
            let scenarios = match promise.measure {
                Measure::Floors(scenario) => vec![scenario, scenario.network()],
                Measure::Cpu(one, other) | Measure::Throughput(one, other) | Measure::P99(one, other) => {
                    vec![one, other]
                }
                _ => Vec::new(),
            };
            scenarios.iter().for_each(|scenario| assert!(measured.contains(scenario), "{}: {scenario}", promise.name));
        }
    }

    #[test]
    fn descriptions_name_both_sides() {
        let all = promises();
        let of = |name: &str| all.iter().find(|promise| promise.name == name).unwrap().measure.describe();
        assert_eq!(of("get-1mib-cold"), "CPU of GET 1 MiB, cold / floors");
        assert_eq!(of("put-1mib-seaweedfs"), "CPU of PUT 1 MiB / SeaweedFS");
        assert_eq!(of("get-1mib-tls-nginx"), "CPU of Keyhole over TLS: GET 1 MiB, hot / nginx over TLS");
        assert_eq!(of("put-4kib-64-packaged"), "CPU of Keyhole packaged: PUT 4 KiB, 64 connections / floors");
    }
}
