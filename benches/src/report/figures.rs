//! The figures of the report: costs, their floors, and the limits.

use std::fmt;

use super::limits::{Limit, Measure, Promise, promises};
use super::results::{Results, Sample};
use super::scenario::{Counts, Scenario, Server};

const GIB: f64 = (1u64 << 30) as f64;

/// The unit of a figure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unit {
    /// Seconds of CPU time per GiB.
    SecondsPerGib,
    /// Microseconds. Values are in seconds.
    Microseconds,
    /// Milliseconds. Values are in seconds.
    Milliseconds,
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
            Unit::Milliseconds => format!("{:.1}", value * 1e3),
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
            Unit::Milliseconds => "ms",
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

/// The cost of a load and of the work that network, encryption and disk do alone.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Floors {
    pub(super) network: f64,
    pub(super) encryption: f64,
    pub(super) disk: f64,
}

impl Floors {
    pub(super) fn sum(&self) -> f64 {
        self.network + self.encryption + self.disk
    }
}

/// A limit and the value that it was measured with.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Figure {
    pub(super) promise: Promise,
    pub(super) unit: Unit,
    pub(super) value: f64,
    /// The two figures that a ratio compares.
    pub(super) compared: Option<(Unit, f64, f64)>,
}

impl Figure {
    /// Returns whether the limit is met. A figure that was not measured does not meet it.
    pub(super) fn holds(&self) -> bool {
        self.promise.limit.holds(self.value)
    }

    pub(super) fn verdict(&self) -> String {
        if !self.value.is_finite() {
            return "not measured".to_owned();
        }
        if self.holds() {
            return "met".to_owned();
        }
        format!("missed by {:.0} %", (self.promise.limit.missed_by(self.value) * 100.0).max(1.0))
    }

    pub(super) fn limit_text(&self) -> String {
        let (sign, limit) = match self.promise.limit {
            Limit::AtMost(limit) => ("≤", limit),
            Limit::AtLeast(limit) => ("≥", limit),
        };
        let number = self.unit.number(limit);
        let number = if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { &number };
        format!("{sign} {number} {}", self.unit.name()).trim_end().to_owned()
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figure { promise, unit, value, .. } = self;
        write!(f, "{}: {} {}", promise.name, promise.measure.describe(), unit.text(*value))?;
        write!(f, " ({}), {}", self.limit_text(), self.verdict())
    }
}

/// Sizes of memory and programs, in bytes.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Sizes {
    /// Resident size of a node just started with an empty store.
    pub(super) idle: u64,
    /// Peak resident size of the node that served everything, without its index.
    pub(super) peak: u64,
    /// Peak resident size of the node with the most objects, without its index.
    pub(super) peak_most: u64,
    /// Size of the index of the node with the most objects.
    pub(super) index_most: u64,
    /// Sizes of the stripped programs; `None` without a program, or a program to strip it.
    pub(super) program: Option<u64>,
    pub(super) packaged: Option<u64>,
    /// Peak resident sizes of the other servers.
    pub(super) nginx: u64,
    pub(super) seaweed_fs: Option<u64>,
}

/// The measurements that all figures are computed from.
#[derive(Clone, Copy)]
pub(super) struct Figures<'r> {
    pub(super) results: &'r Results,
    pub(super) counts: &'r Counts,
    pub(super) sizes: Sizes,
}

impl Figures<'_> {
    /// Returns the unit of a scenario's CPU time.
    pub(super) fn unit(scenario: Scenario) -> Unit {
        if scenario.is_by_operation() { Unit::Microseconds } else { Unit::SecondsPerGib }
    }

    /// Returns the CPU time of one operation or of one GiB.
    pub(super) fn cpu(&self, scenario: Scenario) -> f64 {
        self.results.median(scenario, cpu_of(scenario))
    }

    /// Returns bytes per second in GiB.
    pub(super) fn gib_per_s(&self, scenario: Scenario) -> f64 {
        self.results.median(scenario, |sample| sample.bytes_per_s) / GIB
    }

    /// Returns the floors of the CPU time.
    pub(super) fn floors(&self, scenario: Scenario) -> Floors {
        let (encryption, disk) = scenario.floors();
        let cpu = |floor| self.results.floor(floor, |cost| cost.cpu);
        // TLS encrypts the opened data again, with the same cipher.
        let times = if scenario.server.is_tls() { 2.0 } else { 1.0 };
        Floors { network: self.cpu(scenario.network()), encryption: times * cpu(encryption), disk: cpu(disk) }
    }

    /// Returns all limits with their figures.
    pub(super) fn all(&self) -> Vec<Figure> {
        promises().into_iter().map(|promise| self.figure(promise)).collect()
    }

    fn figure(&self, promise: Promise) -> Figure {
        let ratio = |unit, value, one, other| Figure {
            promise: promise.clone(),
            unit: Unit::Ratio,
            value,
            compared: Some((unit, one, other)),
        };
        let size = |unit, bytes: Option<u64>| {
            let value = bytes.map_or(f64::NAN, |bytes| bytes as f64);
            Figure { promise: promise.clone(), unit, value, compared: None }
        };
        match promise.measure {
            Measure::Floors(scenario) => {
                let cpu = self.cpu(scenario);
                let floors = self.floors(scenario).sum();
                ratio(Figures::unit(scenario), cpu / floors, cpu, floors)
            }
            Measure::Cpu(one, other) => {
                let value = self.results.ratio(one, other, cpu_of(one));
                ratio(Figures::unit(one), value, self.cpu(one), self.cpu(other))
            }
            Measure::Throughput(one, other) => {
                let value = self.results.ratio(one, other, |sample| sample.bytes_per_s);
                ratio(Unit::GibPerSecond, value, self.gib_per_s(one), self.gib_per_s(other))
            }
            Measure::P99(one, other) => {
                let p99 = |scenario| self.results.median(scenario, |sample| sample.p99);
                let value = self.results.ratio(one, other, |sample| sample.p99);
                ratio(Unit::Milliseconds, value, p99(one), p99(other))
            }
            Measure::Idle => size(Unit::Mib, Some(self.sizes.idle)),
            Measure::Peak => size(Unit::Mib, Some(self.sizes.peak)),
            Measure::PeakOfMost => size(Unit::Mib, Some(self.sizes.peak_most)),
            Measure::Program => size(Unit::Mb, self.sizes.program),
            Measure::PackagedProgram => size(Unit::Mb, self.sizes.packaged),
        }
    }

    /// Returns whether anything was measured on this server.
    pub(super) fn has(&self, server: Server) -> bool {
        self.results.samples().any(|(scenario, _)| scenario.server == server)
    }
}

/// Returns the CPU time of a sample in the unit of its scenario.
fn cpu_of(scenario: Scenario) -> fn(&Sample) -> f64 {
    if scenario.is_by_operation() { |sample| sample.cpu_per_operation } else { |sample| sample.cpu_per_gib }
}

#[cfg(test)]
mod tests {
    use super::super::floor::Cost;
    use super::super::scenario::{MIB, floors};
    use super::*;

    const COUNTS: Counts = Counts { stored: 1 << 30, small: 10, least: 1, most: 100, hot: 1 << 20 };

    fn figure(limit: Limit, value: f64) -> Figure {
        let promise = Promise { name: "a".to_owned(), measure: Measure::Idle, limit };
        Figure { promise, unit: Unit::Ratio, value, compared: None }
    }

    #[test]
    fn verdicts_follow_the_limits() {
        let check = |limit, value, expected: &str, holds| {
            let figure = figure(limit, value);
            assert_eq!((figure.verdict(), figure.holds()), (expected.to_owned(), holds));
        };
        check(Limit::AtMost(1.35), 1.35, "met", true);
        check(Limit::AtMost(1.6), 2.0, "missed by 25 %", false);
        check(Limit::AtLeast(0.8), 0.8, "met", true);
        check(Limit::AtLeast(0.8), 0.6, "missed by 25 %", false);
        check(Limit::AtMost(1.0), 1.001, "missed by 1 %", false);
        check(Limit::AtMost(1.0), f64::NAN, "not measured", false);
        assert_eq!(figure(Limit::AtMost(1.5), 0.0).limit_text(), "≤ 1.5");
    }

    #[test]
    fn values_have_units() {
        assert_eq!(Unit::Microseconds.text(19.26e-6), "19.3 us");
        assert_eq!(Unit::Microseconds.text(1234.5e-6), "1,234 us");
        assert_eq!(Unit::PerSecond.text(30_123.4), "30,123 /s");
        assert_eq!(Unit::PerSecond.number(1_234_567.0), "1,234,567");
        assert_eq!(Unit::Mib.text(f64::from(16 << 20)), "16.0 MiB");
        assert_eq!(Unit::Ratio.text(f64::NAN), "–");
    }

    #[test]
    fn ratio_to_the_floors_sums_them() {
        let mut results = Results::default();
        let cost = |cpu| Cost { cpu, rate: 1.0 };
        floors().into_iter().for_each(|floor| results.add_floor(floor, cost(0.1)));
        let sample = |cpu_per_gib| Sample { cpu_per_gib, ..Sample::default() };
        let get = Scenario::get(MIB).cold();
        results.add(get, sample(0.6));
        results.add(get.network(), sample(0.1));
        let figures = Figures { results: &results, counts: &COUNTS, sizes: Sizes::default() };
        let of = |name: &str| figures.all().into_iter().find(|figure| figure.promise.name == name).unwrap();
        let cold = of("get-1mib-cold");
        assert!((cold.value - 2.0).abs() < 1e-9, "{cold:?}");
        assert!(!cold.holds() && cold.to_string().contains("missed by 48 %"), "{cold}");
        let tls = get.on(Server::KeyholeTls);
        assert!((figures.floors(tls).encryption - 0.2).abs() < 1e-9, "encrypted twice");
        assert_eq!(of("get-64mib-cold").verdict(), "not measured");
        assert!(of("idle-memory").holds() && figures.has(Server::Bare) && !figures.has(Server::Nginx));
    }
}
