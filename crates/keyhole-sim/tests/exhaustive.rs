//! Exhaustive small cases. `KEYHOLE_SEQUENCE_LENGTH=4` tests sequences of up to four operations
//! instead of three.

use std::time::Instant;

use keyhole_sim::Setup;
use keyhole_sim::exhaustive::{Counts, Scope, crashes, failures};

/// Runs all cases of a scope and prints their numbers.
fn check(what: &str, scope: &Scope, run: fn(&Scope, Setup) -> Result<Counts, String>) {
    let begun = Instant::now();
    let wanted = std::env::var("KEYHOLE_SEQUENCE_LENGTH").ok().and_then(|length| length.parse().ok());
    let scope = &wanted.map_or_else(|| scope.clone(), |length| scope.clone().with_length(length));
    match run(scope, Setup { trace: true, ..Setup::default() }) {
        Ok(counts) => println!("{what}, {scope}: {counts}, in {:.1} s", begun.elapsed().as_secs_f64()),
        Err(error) => panic!("{what}, {error}"),
    }
}

#[test]
fn durable_objects_survive_every_crash() {
    check("crashes", &Scope::objects(), crashes);
}

#[test]
fn flushed_objects_survive_every_crash() {
    for flush_after in 1..=3 {
        check("crashes", &Scope::objects().deferred(flush_after), crashes);
    }
}

#[test]
fn durable_versions_survive_every_crash() {
    check("crashes", &Scope::versions(), crashes);
    check("crashes", &Scope::suspended(), crashes);
}

#[test]
fn failed_operations_are_reported() {
    check("failures", &Scope::objects().with_reads(), failures);
    check("failures", &Scope::objects().with_reads().deferred(2), failures);
    check("failures", &Scope::versions(), failures);
}

#[test]
fn cleaned_objects_survive_every_crash() {
    check("crashes", &Scope::cleaned(), crashes);
}

#[test]
fn failed_cleaning_loses_nothing() {
    check("failures", &Scope::cleaned(), failures);
}
