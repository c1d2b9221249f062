//! Lives that must go well, and that they follow from their seeds.

/// Lives in `cargo test`, unless `KEYHOLE_LIVES` says otherwise.
const LIVES: u64 = 300;

/// Lives that are lived twice.
const TWICE: u64 = 10;

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[test]
fn many_lives() {
    let wanted = std::env::var("KEYHOLE_LIVES").ok().and_then(|lives| lives.parse().ok());
    let seeds = match std::env::var("KEYHOLE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => keyhole_sim::seeds(wanted.unwrap_or(LIVES)),
    };
    let summary = keyhole_sim::lives(&seeds, threads());
    println!("{summary}");
    assert!(summary.failures.is_empty(), "{:#?}", summary.failures);
    assert!(seeds.len() < 100 || summary.tally.crashes > 2 * seeds.len() as u64, "lives without crashes show nothing");
}

#[test]
fn a_life_follows_from_its_seed() {
    for seed in 1..=TWICE {
        assert_eq!(keyhole_sim::life(seed, false), keyhole_sim::life(seed, false), "life {seed}");
    }
}
