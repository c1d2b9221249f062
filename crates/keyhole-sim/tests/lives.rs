//! Lives that must succeed, and their dependence on the seed alone.

use keyhole_sim::disk::Lie;
use keyhole_sim::{Setup, caught, life};

/// Lives in `cargo test`, unless `KEYHOLE_LIVES` overrides it.
const LIVES: u64 = if cfg!(debug_assertions) { 100 } else { 300 };

/// Failures after which no new life is started.
const FAILURES_MAX: usize = 10;

/// Lives that are run twice.
const TWICE: u64 = 10;

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[test]
fn many_lives_end_without_violation() {
    let wanted = std::env::var("KEYHOLE_LIVES").ok().and_then(|lives| lives.parse().ok());
    let seeds = match std::env::var("KEYHOLE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => keyhole_sim::seeds(wanted.unwrap_or(LIVES)),
    };
    let summary = keyhole_sim::lives(&seeds, threads(), Setup::default(), FAILURES_MAX);
    println!("{summary}");
    assert!(summary.failures.is_empty(), "{:#?}", summary.failures);
    assert!(seeds.len() < 100 || summary.tally.crashes > 2 * seeds.len() as u64, "lives without crashes show nothing");
}

#[test]
fn life_is_reproduced_by_its_seed() {
    for seed in 1..=TWICE {
        let setup = Setup::default();
        assert_eq!(life(seed, setup), life(seed, setup), "life {seed}");
    }
}

/// Lives within which a fault must be detected.
const CAUGHT_WITHIN: u64 = 100;

#[test]
fn lying_disk_is_detected() {
    for lie in [Lie::Sync, Lie::PartOfSync, Lie::Write] {
        let caught = caught(1..=CAUGHT_WITHIN, Setup { lie: Some(lie), ..Setup::default() });
        println!("{lie:?}: {caught:?}");
        assert!(caught.is_some(), "{lie:?} goes unnoticed");
    }
}
