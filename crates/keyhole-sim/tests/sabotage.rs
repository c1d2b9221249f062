//! Deliberate defects of the engine are detected. `cargo test --release -p keyhole-sim --features
//! sabotage`
#![cfg(feature = "sabotage")]

use keyhole_log::Sabotage;
use keyhole_sim::exhaustive::{Scope, crashes};
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

#[test]
fn evictions_of_shared_bodies_are_detected() {
    check(Sabotage::EvictShared, None);
}

#[test]
fn forgotten_evictions_are_detected() {
    check(Sabotage::ForgetEvictions, None);
}

/// Checks that a defect fails some exhaustive case of a scope.
fn check_exhaustively(sabotage: Sabotage, scope: &Scope) {
    let setup = Setup { sabotage: Some(sabotage), ..Setup::default() };
    let caught = crashes(scope, setup);
    println!("{sabotage:?}: {caught:?}");
    assert!(caught.is_err(), "{sabotage:?} goes unnoticed: {caught:?}");
}

#[test]
fn skipped_syncs_fail_an_exhaustive_case() {
    check_exhaustively(Sabotage::SkipSync, &Scope::objects());
    check_exhaustively(Sabotage::SkipSync, &Scope::objects().deferred(1));
}

#[test]
fn ignored_checksums_fail_an_exhaustive_case() {
    check_exhaustively(Sabotage::IgnoreCrc, &Scope::objects());
}

#[test]
fn early_acknowledgements_fail_an_exhaustive_case() {
    check_exhaustively(Sabotage::AcknowledgeEarly, &Scope::objects());
}

#[test]
fn trusted_durable_writes_fail_an_exhaustive_case() {
    check_exhaustively(Sabotage::TrustWrites, &Scope::objects());
}

#[test]
fn forgotten_deletions_fail_an_exhaustive_case() {
    check_exhaustively(Sabotage::DropTombstoneEarly, &Scope::cleaned());
}

#[test]
fn markers_that_count_as_objects_fail_an_exhaustive_case() {
    check_exhaustively(Sabotage::ShowMarkers, &Scope::versions());
}

#[test]
fn freed_bodies_of_noncurrent_versions_fail_an_exhaustive_case() {
    check_exhaustively(Sabotage::FreeNoncurrent, &Scope::versions());
}
