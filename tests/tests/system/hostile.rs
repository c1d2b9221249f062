//! Hostile clients on a node with little memory: an honest client is served, health checks are
//! answered, and memory stays within its bound.

use std::time::Duration;

use keyhole_tests::Launch;
use keyhole_tests::hostile::{HostileFigures, HostileOptions, run_hostile};

/// Limit of the resident memory of a node with `--memory 64MiB`.
const RESIDENT_MAX_KIB: u64 = 96 << 10;

/// Runs a load on a node with a budget of 64 MiB, prints its figures, and checks what does not
/// depend on time.
fn check_load(options: &HostileOptions, io: &str) -> HostileFigures {
    let launch = Launch::default().with_credential().capacity(Some("16GiB")).arg("--threads=2").arg("--memory=64MiB");
    let launch = launch.arg("--sync=interval:100").arg("--admin-listen=127.0.0.1:0").arg(format!("--io={io}"));
    let node = launch.start();
    node.make_bucket("bucket");
    let figures = run_hostile(&node, options);
    println!("--io {io}, {options:?}:\n{}", figures.lines());
    assert!(figures.loaded.count() > 0 && figures.health.count() > 0);
    assert_eq!(figures.idle.failed, [""; 0], "without the load");
    assert_eq!(figures.loaded.failed, [""; 0], "beside the load");
    assert_eq!(figures.health.failed, [""; 0], "health");
    assert!(figures.peak_kib <= RESIDENT_MAX_KIB, "resident at most {} KiB", figures.peak_kib);
    assert!(figures.opened >= 3 * options.connections as u64);
    figures
}

#[test]
fn honest_client_is_served_beside_hostile_ones() {
    for io in ["uring", "epoll"] {
        check_load(&HostileOptions { connections: 100, keys: 500, time: Duration::from_secs(8) }, io);
    }
}

#[test]
#[ignore = "1,500 connections and 100,000 objects for two minutes; tests/run --long runs it"]
fn honest_client_is_served_beside_many_hostile_ones() {
    for io in ["uring", "epoll"] {
        check_load(&HostileOptions { connections: 500, keys: 100_000, time: Duration::from_secs(60) }, io);
    }
}
