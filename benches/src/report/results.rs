//! The samples of all turns, and their medians.

use std::collections::BTreeMap;

use super::floor::{Cost, Floor};
use super::scenario::Scenario;
use crate::work::Measured;

const GIB: f64 = (1u64 << 30) as f64;

/// The measurement of one turn.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Sample {
    pub(super) operations_per_s: f64,
    /// Bytes of bodies per second, including those of operations that did not end within the turn.
    pub(super) bytes_per_s: f64,
    /// Seconds of the server's CPU time.
    pub(super) cpu_per_operation: f64,
    pub(super) cpu_per_gib: f64,
    /// Fraction of the server's CPU time spent in the kernel, from 0 to 1.
    pub(super) kernel_share: f64,
    /// Median latency in seconds.
    pub(super) p50: f64,
    /// 99th percentile of the latency in seconds.
    pub(super) p99: f64,
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
            kernel_share: server.kernel_share(),
            p50: latency(0.5),
            p99: latency(0.99),
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
    use super::super::scenario::{MIB, SMALL, Server};
    use super::*;

    #[test]
    fn medians_of_samples_are_computed() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![7.0]), 7.0);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn ratios_compare_the_same_turn() {
        let one = Scenario::get(MIB);
        let other = one.on(Server::Nginx);
        let mut results = Results::default();
        for (ours, theirs) in [(10.0, 10.0), (1.0, 2.0), (9.0, 10.0)] {
            results.add(one, Sample { operations_per_s: ours, ..Sample::default() });
            results.add(other, Sample { operations_per_s: theirs, ..Sample::default() });
        }
        assert_eq!(results.ratio(one, other, |sample| sample.operations_per_s), 0.9);
        assert_eq!(results.median(one, |sample| sample.operations_per_s), 9.0);
        assert!(results.ratio(one, Scenario::get(SMALL), |sample| sample.operations_per_s).is_nan());
    }
}
