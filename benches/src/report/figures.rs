//! The figures of the report, each with its limit, value and floors.

use std::fmt;

use super::floor::Floor;
use super::scenario::{
    CONNECTIONS, Counts, LARGE, MIB, Results, SMALL, Scenario, Server, USUAL, operation_name, size_name,
};
use crate::work::Operation;

const GIB: f64 = (1u64 << 30) as f64;

/// Maximum cost of a small operation relative to its minimum.
const GROWTH_MAX: f64 = 1.3;

/// The limit of a figure.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Limit {
    pub(super) fn value(self) -> f64 {
        match self {
            Limit::AtMost(limit) | Limit::AtLeast(limit) => limit,
        }
    }

    fn holds(self, value: f64) -> bool {
        match self {
            Limit::AtMost(limit) => value <= limit,
            Limit::AtLeast(limit) => value >= limit,
        }
    }

    /// Returns by which fraction of the limit a value misses it.
    fn missed_by(self, value: f64) -> f64 {
        match self {
            Limit::AtMost(limit) => value / limit - 1.0,
            Limit::AtLeast(limit) => 1.0 - value / limit,
        }
    }
}

/// The unit of a figure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unit {
    /// Seconds of CPU time per GiB.
    SecondsPerGib,
    /// Microseconds. Values are in seconds.
    Microseconds,
    /// Operations per second.
    PerSecond,
    /// GiB per second.
    GibPerSecond,
    /// MiB. Values are in bytes.
    Mib,
    /// 10^6 bytes. Values are in bytes.
    Mb,
    /// Ratio of two figures.
    Ratio,
}

impl Unit {
    /// Formats a value without its unit.
    pub(super) fn number(self, value: f64) -> String {
        if !value.is_finite() {
            return "–".to_owned();
        }
        match self {
            Unit::SecondsPerGib => format!("{value:.3}"),
            Unit::Microseconds if value >= 100e-6 => thousands(value * 1e6),
            Unit::Microseconds => format!("{:.1}", value * 1e6),
            Unit::PerSecond => thousands(value),
            Unit::GibPerSecond | Unit::Ratio => format!("{value:.2}"),
            Unit::Mib => format!("{:.1}", value / f64::from(1 << 20)),
            Unit::Mb => format!("{:.1}", value / 1e6),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Unit::SecondsPerGib => "s/GiB",
            Unit::Microseconds => "us",
            Unit::PerSecond => "/s",
            Unit::GibPerSecond => "GiB/s",
            Unit::Mib => "MiB",
            Unit::Mb => "MB",
            Unit::Ratio => "",
        }
    }

    /// Formats a value with its unit.
    pub(super) fn text(self, value: f64) -> String {
        format!("{} {}", self.number(value), self.name()).trim_end().to_owned()
    }
}

/// Formats an integer with thousands separators.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The parts of a figure that network, encryption and disk take alone.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub(super) struct Floors {
    pub(super) network: Option<f64>,
    pub(super) encryption: Option<f64>,
    pub(super) disk: Option<f64>,
    /// The combination of the three.
    pub(super) together: Option<f64>,
}

impl Floors {
    /// Returns floors that add up.
    fn sum(network: f64, encryption: f64, disk: f64) -> Self {
        Floors {
            network: Some(network),
            encryption: Some(encryption),
            disk: Some(disk),
            together: Some(network + encryption + disk),
        }
    }
}

/// A figure of the report.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Figure {
    pub(super) what: String,
    pub(super) unit: Unit,
    pub(super) limit: Option<Limit>,
    pub(super) ours: f64,
    pub(super) floors: Floors,
    /// Fraction of the server's CPU time spent in the kernel, from 0 to 1.
    pub(super) kernel_share: Option<f64>,
    pub(super) nginx: Option<f64>,
    /// Why a missed limit counts as met.
    pub(super) excuse: Option<String>,
}

impl Figure {
    fn new(what: impl Into<String>, unit: Unit, limit: Limit, ours: f64) -> Self {
        Figure {
            what: what.into(),
            unit,
            limit: Some(limit),
            ours,
            floors: Floors::default(),
            kernel_share: None,
            nginx: None,
            excuse: None,
        }
    }

    /// Returns whether the limit is met, if there is one.
    pub(super) fn holds(&self) -> Option<bool> {
        self.limit.map(|limit| limit.holds(self.ours) || self.excuse.is_some())
    }

    pub(super) fn limit_text(&self) -> String {
        let text = |limit| format!("{} {}", self.limit_number(limit), self.unit.name());
        match self.limit {
            Some(Limit::AtMost(limit)) => format!("≤ {}", text(limit).trim_end()),
            Some(Limit::AtLeast(limit)) => format!("≥ {}", text(limit).trim_end()),
            None => String::new(),
        }
    }

    /// Formats a limit in the figure's unit, without trailing zeros.
    fn limit_number(&self, limit: f64) -> String {
        let text = self.unit.number(limit);
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    }

    pub(super) fn verdict(&self) -> String {
        match (self.limit, &self.excuse) {
            (None, _) => String::new(),
            (Some(_), _) if !self.ours.is_finite() => "not measured".to_owned(),
            (Some(limit), _) if limit.holds(self.ours) => "met".to_owned(),
            (Some(_), Some(excuse)) => format!("met: {excuse}"),
            (Some(limit), None) => format!("**missed by {:.0} %**", (limit.missed_by(self.ours) * 100.0).max(1.0)),
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = self.verdict().replace("**", "");
        write!(f, "{}: {} ({}), {verdict}", self.what, self.unit.text(self.ours), self.limit_text())
    }
}

/// Sizes of memory and program, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Resident size of a node just started with an empty store.
    pub(super) idle: u64,
    /// Peak resident size of the node that served everything.
    pub(super) peak: u64,
    /// Size of its index at the end.
    pub(super) index: u64,
    /// Sizes of the node with the most objects.
    pub(super) largest: Option<Largest>,
    /// Size of the stripped program; `None` without a program to strip it.
    pub(super) program: Option<u64>,
    pub(super) nginx_idle: u64,
    pub(super) nginx_peak: u64,
    pub(super) nginx_program: u64,
}

#[cfg(test)]
impl Sizes {
    /// Returns the sizes of a nearly empty node, for tests.
    pub(super) fn of_next_to_nothing() -> Self {
        Sizes {
            idle: 1,
            peak: 10,
            index: 1,
            largest: None,
            program: None,
            nginx_idle: 1,
            nginx_peak: 1,
            nginx_program: 1,
        }
    }
}

/// The node with the most objects.
#[derive(Clone, Copy, Debug)]
pub(super) struct Largest {
    pub(super) objects: usize,
    pub(super) peak: u64,
    pub(super) index: u64,
}

/// The measurements that all figures are computed from.
#[derive(Clone, Copy)]
pub(super) struct Figures<'r> {
    pub(super) results: &'r Results,
    pub(super) counts: &'r Counts,
    pub(super) sizes: Sizes,
    /// Number of cores.
    pub(super) cores: usize,
}

impl Figures<'_> {
    fn scenario(&self, server: Server, operation: Operation, size: usize, connections: usize) -> Scenario {
        self.counts.scenario(server, operation, size, connections)
    }

    /// Returns the CPU time of one operation (4 KiB) or of one GiB.
    pub(super) fn cpu(&self, scenario: Scenario) -> f64 {
        self.results.median(scenario, |sample| match scenario.size {
            SMALL => sample.cpu_per_operation,
            _ => sample.cpu_per_gib,
        })
    }

    /// Returns the floors of the CPU time.
    pub(super) fn cpu_floors(&self, scenario: Scenario) -> Floors {
        let network = Scenario { server: Server::Bare, objects: self.counts.of(scenario.size), ..scenario };
        let (encryption, disk) = floors_of(scenario);
        let cpu = |floor| self.results.floor(floor, |cost| cost.cpu);
        // TLS encrypts the opened data again, with the same cipher.
        let times = if scenario.server == Server::KeyholeTls { 2.0 } else { 1.0 };
        Floors::sum(self.cpu(network), times * cpu(encryption), cpu(disk))
    }

    /// Returns the CPU time of the server.
    pub(super) fn cpu_figures(&self) -> Vec<Figure> {
        use Operation::{Get, Put};
        let limits = [
            (Server::Keyhole, Get, MIB, 0.45),
            (Server::Keyhole, Get, LARGE, 0.45),
            (Server::Keyhole, Put, MIB, 0.45),
            (Server::Keyhole, Put, LARGE, 0.45),
            (Server::Keyhole, Get, SMALL, 20e-6),
            (Server::Keyhole, Put, SMALL, 30e-6),
            (Server::KeyholeTls, Get, MIB, 0.75),
            (Server::KeyholeTls, Put, MIB, 0.75),
        ];
        let figure = |(server, operation, size, limit)| {
            let scenario = self.scenario(server, operation, size, USUAL);
            let is_tls = server == Server::KeyholeTls;
            let over = if is_tls { " over TLS" } else { "" };
            let what = format!("{} {}{over}", operation_name(operation), size_name(size));
            let unit = if size == SMALL { Unit::Microseconds } else { Unit::SecondsPerGib };
            let nginx = Scenario { server: if is_tls { Server::NginxTls } else { Server::Nginx }, ..scenario };
            Figure {
                floors: self.cpu_floors(scenario),
                kernel_share: Some(self.results.median(scenario, |sample| sample.kernel_share)),
                nginx: Some(self.cpu(nginx)),
                ..Figure::new(what, unit, Limit::AtMost(limit), self.cpu(scenario))
            }
        };
        limits.into_iter().map(figure).collect()
    }

    /// Returns throughput and latency.
    pub(super) fn throughput_figures(&self) -> Vec<Figure> {
        use Operation::{Get, Put};
        let get = self.scenario(Server::Keyhole, Get, MIB, USUAL);
        let nginx = Scenario { server: Server::Nginx, ..get };
        let ratio = self.results.ratio(get, nginx, |sample| sample.operations_per_s);
        let mut figures = vec![
            Figure {
                nginx: Some(1.0),
                ..Figure::new("GET 1 MiB relative to nginx", Unit::Ratio, Limit::AtLeast(0.8), ratio)
            },
            self.rate(get, "GET 1 MiB", None),
        ];
        let put = self.scenario(Server::Keyhole, Put, MIB, USUAL);
        let mut figure = self.rate(put, "PUT 1 MiB", Some(1.2));
        figure.excuse = self.saturated(put);
        figures.push(figure);
        for (operation, limit) in [(Get, 30_000.0), (Put, 20_000.0)] {
            let what = format!("{} 4 KiB, 64 connections", operation_name(operation));
            let scenario = self.scenario(Server::Keyhole, operation, SMALL, 64);
            figures.push(self.rate(scenario, &what, Some(limit)));
        }
        for (operation, limit) in [(Get, 80e-6), (Put, 400e-6)] {
            let scenario = self.scenario(Server::Keyhole, operation, SMALL, 1);
            let p50 = |server| self.results.median(Scenario { server, ..scenario }, |sample| sample.p50);
            let what = format!("{} 4 KiB, 1 connection, median latency", operation_name(operation));
            let (encryption, disk) = floors_of(scenario);
            let each = |floor| self.results.floor(floor, |cost| cost.latency);
            figures.push(Figure {
                floors: Floors::sum(p50(Server::Bare), each(encryption), each(disk)),
                nginx: Some(p50(Server::Nginx)),
                ..Figure::new(what, Unit::Microseconds, Limit::AtMost(limit), p50(Server::Keyhole))
            });
        }
        figures
    }

    /// Returns the throughput in bytes of 1 MiB objects or in small operations. The combined floor
    /// assumes that the generator and a server without any cost but the floors share the cores, and
    /// that the disk keeps up.
    fn rate(&self, scenario: Scenario, what: &str, limit: Option<f64>) -> Figure {
        let is_small = scenario.size == SMALL;
        let rate = |server| {
            self.results.median(Scenario { server, ..scenario }, |sample| {
                if is_small { sample.operations_per_s } else { sample.bytes_per_s / GIB }
            })
        };
        let own = self.results.median(
            scenario,
            |sample| {
                if is_small { sample.own_per_operation } else { sample.own_per_gib }
            },
        );
        let (encryption, disk) = floors_of(scenario);
        let disk = self.results.floor(disk, |cost| cost.rate);
        let floor = self.cpu_floors(scenario).together.unwrap_or(f64::NAN);
        let floors = Floors {
            network: Some(rate(Server::Bare)),
            encryption: Some(self.results.floor(encryption, |cost| cost.rate)),
            disk: Some(disk),
            together: Some((self.cores as f64 / (own + floor)).min(disk)),
        };
        let unit = if is_small { Unit::PerSecond } else { Unit::GibPerSecond };
        let figure = Figure::new(what, unit, Limit::AtLeast(limit.unwrap_or(0.0)), rate(Server::Keyhole));
        Figure { limit: limit.map(Limit::AtLeast), floors, nginx: Some(rate(Server::Nginx)), ..figure }
    }

    /// Returns whether the generator is the bottleneck: all cores are busy, more than half of the
    /// time with the generator.
    fn saturated(&self, scenario: Scenario) -> Option<String> {
        let median = |figure: fn(&super::scenario::Sample) -> f64| self.results.median(scenario, figure);
        let server = median(|sample| sample.server_cores);
        let own = median(|sample| sample.own_cores);
        let is_full = median(|sample| sample.idle_cores) < 0.05 * self.cores as f64;
        (is_full && own > server)
            .then(|| format!("generator saturated: it uses {own:.2} cores, the node {server:.2}; no core is idle"))
    }

    /// Returns memory and program size.
    pub(super) fn size_figures(&self) -> Vec<Figure> {
        let sizes = &self.sizes;
        let peak_limit = f64::from(96 << 20);
        let mut figures = vec![
            Figure {
                nginx: Some(sizes.nginx_idle as f64),
                ..Figure::new(
                    "resident memory, idle, empty store",
                    Unit::Mib,
                    Limit::AtMost(f64::from(16 << 20)),
                    sizes.idle as f64,
                )
            },
            Figure {
                nginx: Some(sizes.nginx_peak as f64),
                ..Figure::new(
                    format!(
                        "peak resident memory of the run, without the index ({})",
                        Unit::Mib.text(sizes.index as f64)
                    ),
                    Unit::Mib,
                    Limit::AtMost(peak_limit),
                    sizes.peak.saturating_sub(sizes.index) as f64,
                )
            },
        ];
        if let Some(Largest { objects, peak, index }) = sizes.largest {
            figures.push(Figure::new(
                format!(
                    "peak resident memory with {} objects, without the index ({})",
                    thousands(objects as f64),
                    Unit::Mib.text(index as f64)
                ),
                Unit::Mib,
                Limit::AtMost(peak_limit),
                peak.saturating_sub(index) as f64,
            ));
        }
        figures.push(Figure {
            nginx: Some(sizes.nginx_program as f64),
            ..Figure::new(
                "the program, stripped",
                Unit::Mb,
                Limit::AtMost(12e6),
                sizes.program.map_or(f64::NAN, |bytes| bytes as f64),
            )
        });
        figures
    }

    /// Returns the growth of costs.
    pub(super) fn growth_figures(&self) -> Vec<Figure> {
        let mut figures = Vec::new();
        for operation in [Operation::Get, Operation::Put] {
            let of = |connections| self.scenario(Server::Keyhole, operation, SMALL, connections);
            let connections = CONNECTIONS.into_iter().filter(|connections| *connections >= USUAL);
            let name = operation_name(operation);
            figures.push(Figure::new(
                format!("{name} 4 KiB, 16 to 256 connections: maximum / minimum"),
                Unit::Ratio,
                Limit::AtMost(GROWTH_MAX),
                growth(connections.map(|connections| self.cpu(of(connections)))),
            ));
            let objects = self.counts.growing.iter().map(|&objects| Scenario { objects, ..of(USUAL) });
            let least = self.counts.growing.iter().min();
            let most = self.counts.growing.iter().max();
            let range = [least, most].map(|objects| thousands(objects.copied().unwrap_or(0) as f64)).join(" to ");
            figures.push(Figure::new(
                format!("{name} 4 KiB, {range} objects: maximum / minimum"),
                Unit::Ratio,
                Limit::AtMost(GROWTH_MAX),
                growth(objects.map(|scenario| self.cpu(scenario))),
            ));
        }
        figures
    }

    /// Returns all figures with a limit.
    pub(super) fn all(&self) -> Vec<Figure> {
        let groups = [self.cpu_figures(), self.throughput_figures(), self.size_figures(), self.growth_figures()];
        groups.concat().into_iter().filter(|figure| figure.limit.is_some()).collect()
    }
}

/// Returns the floors of encryption and disk for a load.
fn floors_of(scenario: Scenario) -> (Floor, Floor) {
    match (scenario.operation, scenario.size) {
        (Operation::Get, SMALL) => (Floor::OpenObject, Floor::ReadSmall),
        (Operation::Get, _) => (Floor::Open, Floor::ReadMib),
        (Operation::Put, SMALL) => (Floor::SealObject, Floor::commit(scenario.connections)),
        (Operation::Put, MIB) => (Floor::Seal, Floor::WriteMib),
        (Operation::Put, _) => (Floor::Seal, Floor::WriteLarge),
    }
}

/// Returns the maximum divided by the minimum; NaN if a value is missing.
fn growth(values: impl Iterator<Item = f64>) -> f64 {
    let mut least = f64::INFINITY;
    let mut most = f64::NEG_INFINITY;
    for value in values {
        if !value.is_finite() {
            return f64::NAN;
        }
        least = least.min(value);
        most = most.max(value);
    }
    if most > 0.0 && least > 0.0 { most / least } else { f64::NAN }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(limit: Limit, ours: f64) -> Figure {
        Figure::new("a", Unit::SecondsPerGib, limit, ours)
    }

    #[test]
    fn verdicts_follow_the_limits() {
        let check = |limit, ours, expected: &str, holds| {
            assert_eq!(
                (figure(limit, ours).verdict(), figure(limit, ours).holds()),
                (expected.to_owned(), Some(holds))
            );
        };
        check(Limit::AtMost(0.45), 0.45, "met", true);
        check(Limit::AtMost(0.4), 0.5, "**missed by 25 %**", false);
        check(Limit::AtLeast(0.8), 0.8, "met", true);
        check(Limit::AtLeast(0.8), 0.6, "**missed by 25 %**", false);
        check(Limit::AtMost(1.0), 1.001, "**missed by 1 %**", false);
        check(Limit::AtMost(1.0), f64::NAN, "not measured", false);
        let excused = Figure { excuse: Some("why".to_owned()), ..figure(Limit::AtLeast(2.0), 1.0) };
        assert_eq!((excused.verdict(), excused.holds()), ("met: why".to_owned(), Some(true)));
        assert_eq!(figure(Limit::AtMost(0.4), 0.5).to_string(), "a: 0.500 s/GiB (≤ 0.4 s/GiB), missed by 25 %");
    }

    #[test]
    fn values_have_units() {
        assert_eq!(Unit::Microseconds.text(19.26e-6), "19.3 us");
        assert_eq!(Unit::Microseconds.text(1234.5e-6), "1,234 us");
        assert_eq!(Unit::PerSecond.text(30_123.4), "30,123 /s");
        assert_eq!(Unit::PerSecond.number(123.0), "123");
        assert_eq!(Unit::PerSecond.number(1_234_567.0), "1,234,567");
        assert_eq!(Unit::Mib.text(f64::from(16 << 20)), "16.0 MiB");
        assert_eq!(Unit::Ratio.text(0.8), "0.80");
        assert_eq!(Unit::Ratio.text(f64::NAN), "–");
    }

    #[test]
    fn growth_is_maximum_over_minimum() {
        assert_eq!(growth([2.0, 1.0, 4.0].into_iter()), 4.0);
        assert!(growth([2.0, f64::NAN].into_iter()).is_nan() && growth([].into_iter()).is_nan());
    }

    #[test]
    fn unmeasured_figure_fails_its_limit() {
        let counts = Counts { small: 10, growing: vec![1, 10], mib: 1, large: 1 };
        let results = Results::default();
        let all = Figures { results: &results, counts: &counts, sizes: Sizes::of_next_to_nothing(), cores: 2 }.all();
        let held: Vec<_> =
            all.iter().filter(|figure| figure.holds() == Some(true)).map(|figure| &figure.what).collect();
        assert_eq!(held.len(), 2, "idle and peak alone: {held:?}");
        assert_eq!(all.len(), 8 + 6 + 3 + 4);
    }
}
