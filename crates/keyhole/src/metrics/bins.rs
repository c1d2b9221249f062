//! Histogram of durations: each decade from 10 us to 100 s has 90 bins of equal width. A bin is at
//! most a tenth of its values wide, and all round bounds are bounds of bins.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bound of the first bin, in ns.
const FIRST_NS: u64 = 10_000;

/// From 10 us to 100 s.
const DECADES: usize = 7;

/// Bins per decade.
const PER_DECADE: usize = 90;

/// One bin below the decades, their own, and one above.
pub(crate) const BINS: usize = 1 + DECADES * PER_DECADE + 1;

/// The count of durations in each bin, and their sum.
pub(super) struct Bins {
    counts: [AtomicU64; BINS],
    sum_ns: AtomicU64,
}

impl Bins {
    pub(super) fn new() -> Self {
        Bins { counts: std::array::from_fn(|_| AtomicU64::new(0)), sum_ns: AtomicU64::new(0) }
    }

    pub(super) fn count(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bin(ns)].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(ns, Relaxed);
    }

    pub(super) fn add_to(&self, counts: &mut [u64], sum_ns: &mut u64) {
        counts.iter_mut().zip(&self.counts).for_each(|(sum, count)| *sum += count.load(Relaxed));
        *sum_ns += self.sum_ns.load(Relaxed);
    }
}

/// Returns the bin of a duration: the first whose upper bound is not exceeded.
fn bin(ns: u64) -> usize {
    if ns <= FIRST_NS {
        return 0;
    }
    let mut unit = FIRST_NS / 10;
    let mut first = 1;
    while first < BINS - 1 {
        if ns <= 100 * unit {
            return first + ((ns - 1) / unit) as usize - 10;
        }
        unit *= 10;
        first += PER_DECADE;
    }
    BINS - 1
}

/// Returns the upper bound of a bin in ns; `None` for the last one.
fn upper(bin: usize) -> Option<u64> {
    match bin {
        0 => Some(FIRST_NS),
        _ if bin < BINS - 1 => {
            let decade = (bin - 1) / PER_DECADE;
            let step = (bin - 1) % PER_DECADE;
            Some(FIRST_NS / 10 * 10u64.pow(decade as u32) * (step as u64 + 11))
        }
        _ => None,
    }
}

/// Returns the count of durations up to `bound`, which must be a bound of a bin.
pub(crate) fn cumulative(counts: &[u64], bound: Duration) -> u64 {
    let bound_ns = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
    let within = (0..BINS).take_while(|&bin| upper(bin).is_some_and(|upper| upper <= bound_ns));
    within.map(|bin| counts[bin]).sum()
}

/// Returns the `q`-quantile in seconds, within 5 %; `None` without durations. Values above 100 s
/// are reported as 100 s.
pub(crate) fn quantile(counts: &[u64], q: f64) -> Option<f64> {
    let all: u64 = counts.iter().sum();
    if all == 0 {
        return None;
    }
    let rank = ((q * all as f64).ceil() as u64).clamp(1, all);
    let mut before = 0;
    let mut lower_ns = 0;
    for (bin, &count) in counts.iter().enumerate() {
        let upper_ns = upper(bin).unwrap_or(lower_ns);
        if before + count >= rank {
            let part = ((rank - before) as f64 - 0.5) / count as f64;
            return Some((lower_ns as f64 + part * (upper_ns - lower_ns) as f64) / 1e9);
        }
        before += count;
        lower_ns = upper_ns;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_belong_to_lower_bin() {
        assert_eq!((bin(0), bin(10_000), bin(10_001), bin(11_000), bin(11_001)), (0, 0, 1, 1, 2));
        assert_eq!((bin(100_000), bin(100_001), bin(110_000)), (90, 91, 91));
        assert_eq!((bin(100_000_000_000), bin(100_000_000_001), bin(u64::MAX)), (BINS - 2, BINS - 1, BINS - 1));
        for bin_at in 0..BINS - 1 {
            let upper_ns = upper(bin_at).unwrap();
            assert_eq!((bin(upper_ns), bin(upper_ns + 1)), (bin_at, bin_at + 1));
        }
        assert_eq!(upper(BINS - 1), None);
    }

    #[test]
    fn bins_are_at_most_a_tenth_wide() {
        for bin in 1..BINS - 1 {
            let lower = upper(bin - 1).unwrap();
            let upper = upper(bin).unwrap();
            assert!((upper - lower) * 10 <= lower, "{lower} to {upper}");
        }
    }

    fn counted(durations: impl IntoIterator<Item = Duration>) -> Vec<u64> {
        let bins = Bins::new();
        let mut counts = vec![0; BINS];
        let mut sum = 0;
        durations.into_iter().for_each(|took| bins.count(took));
        bins.add_to(&mut counts, &mut sum);
        counts
    }

    #[test]
    fn quantiles_are_within_five_percent() {
        let none = counted([]);
        assert_eq!(quantile(&none, 0.5), None);
        let one = counted([Duration::from_millis(3)]);
        for q in [0.0, 0.5, 1.0] {
            let value = quantile(&one, q).unwrap();
            assert!((value - 0.003).abs() <= 0.003 / 20.0 + 1e-12, "{value}");
        }
        // 1 to 10,000 in units of 100 us.
        let many = counted((1..=10_000).map(|step| Duration::from_micros(100 * step)));
        for (q, exact) in [(0.5, 0.5), (0.9, 0.9), (0.99, 0.99), (0.999, 0.999)] {
            let value = quantile(&many, q).unwrap();
            assert!((value - exact).abs() < exact / 100.0, "{value} for {exact}");
        }
        let long = counted([Duration::from_secs(1), Duration::from_secs(3600)]);
        assert_eq!(quantile(&long, 0.99), Some(100.0));
    }

    #[test]
    fn cumulative_counts_are_exact_at_bounds() {
        let counts = counted([
            Duration::from_micros(100),
            Duration::from_nanos(100_001),
            Duration::from_secs(60),
            Duration::from_nanos(60_000_000_001),
            Duration::from_secs(1000),
        ]);
        let within = |bound| cumulative(&counts, bound);
        assert_eq!(within(Duration::from_micros(100)), 1);
        assert_eq!(within(Duration::from_micros(200)), 2);
        assert_eq!(within(Duration::from_secs(60)), 3);
        assert_eq!(within(Duration::from_secs(100)), 4);
    }
}
