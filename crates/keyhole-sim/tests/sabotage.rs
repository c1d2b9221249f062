//! Deliberate defects of the engine are detected. `cargo test --release -p keyhole-sim --features
//! sabotage`
#![cfg(feature = "sabotage")]

use keyhole_log::Sabotage;
use keyhole_sim::{Focus, Setup, caught};

/// Lives within which a defect must be detected.
const CAUGHT_WITHIN: u64 = 100;

fn check(sabotage: Sabotage, focus: Option<Focus>) {
    let setup = Setup { focus, ..Setup::default() };
    let caught = caught(1..=CAUGHT_WITHIN, Setup { sabotage: Some(sabotage), ..setup });
    println!("{sabotage:?}: {caught:?}");
    let Some(failure) = caught else { panic!("{sabotage:?} goes unnoticed") };
    // The life must succeed without the defect.
    let sound = keyhole_sim::life(failure.seed, setup);
    assert!(sound.is_ok(), "life {} without {sabotage:?}: {sound:?}", failure.seed);
}

#[test]
fn syncs_that_are_skipped() {
    check(Sabotage::SkipSync, None);
}

#[test]
fn checksums_that_are_not_compared() {
    check(Sabotage::IgnoreCrc, Some(Focus::Damage));
}

#[test]
fn identities_that_are_not_compared() {
    check(Sabotage::IgnoreGeneration, Some(Focus::Reuse));
}

#[test]
fn deletions_that_are_forgotten() {
    check(Sabotage::DropTombstoneEarly, Some(Focus::Cleaning));
}

#[test]
fn durable_writes_that_are_trusted_for_others() {
    check(Sabotage::TrustWrites, None);
}

#[test]
fn acknowledgements_that_come_early() {
    check(Sabotage::AcknowledgeEarly, None);
}
