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
fn skipped_syncs_are_detected() {
    check(Sabotage::SkipSync, None);
}

#[test]
fn ignored_checksums_are_detected() {
    check(Sabotage::IgnoreCrc, Some(Focus::Damage));
}

#[test]
fn ignored_identities_are_detected() {
    check(Sabotage::IgnoreGeneration, Some(Focus::Reuse));
}

#[test]
fn forgotten_deletions_are_detected() {
    check(Sabotage::DropTombstoneEarly, Some(Focus::Cleaning));
}

#[test]
fn trusted_durable_writes_are_detected() {
    check(Sabotage::TrustWrites, None);
}

#[test]
fn forgotten_holds_are_detected() {
    check(Sabotage::ForgetHolds, Some(Focus::Versions));
}

#[test]
fn markers_that_count_as_objects_are_detected() {
    check(Sabotage::ShowMarkers, Some(Focus::Versions));
}

#[test]
fn freed_bodies_of_noncurrent_versions_are_detected() {
    check(Sabotage::FreeNoncurrent, Some(Focus::Versions));
}

#[test]
fn trusted_wall_clock_is_detected() {
    check(Sabotage::BelieveWallClock, Some(Focus::Versions));
}

#[test]
fn early_acknowledgements_are_detected() {
    check(Sabotage::AcknowledgeEarly, None);
}
