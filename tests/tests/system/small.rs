//! Small media: the capacity available for objects, and the minimum size.

use keyhole_tests::{CustomerKey, Launch, Node, Request};

/// Minimum fraction of the capacity that objects can fill.
const SHARE_MIN: f64 = 0.75;

const SIZES: [usize; 3] = [100_000, 1 << 20, 3 << 20];

fn start(capacity_mib: u64) -> Node {
    // As many threads as a small appliance has processors.
    let launch = Launch::default().with_credential().arg("--threads=2");
    let node = launch.capacity(Some(&format!("{capacity_mib}MiB"))).start();
    node.make_bucket("bucket");
    node
}

fn request(method: &str, number: usize) -> Request {
    Request::new(method, &format!("/bucket/object-{number:06}"))
}

/// Stores objects until one is refused, deletes them, and returns their fraction of the capacity.
fn share(node: &Node, capacity_mib: u64, len: usize) -> f64 {
    let key = CustomerKey::random();
    let body = keyhole_tests::data::bytes(1, len);
    let mut stored = 0;
    loop {
        let put = node.send(&request("PUT", stored).headers(key.headers()).body(body.clone()));
        match put.status {
            200 => stored += 1,
            507 => break,
            other => panic!("PUT {stored}: {other}"),
        }
    }
    for number in 0..stored {
        assert_eq!(node.send(&request("DELETE", number)).status, 204, "deletion {number} of {stored}");
    }
    (stored * len) as f64 / (capacity_mib << 20) as f64
}

fn check(capacities_mib: &[u64]) {
    let mut table = vec!["| capacity | 100 kB | 1 MiB | 3 MiB |".to_owned()];
    let mut minimum = f64::MAX;
    for &capacity_mib in capacities_mib {
        let node = start(capacity_mib);
        let mut line = format!("| {capacity_mib} MiB |");
        for len in SIZES {
            let share = share(&node, capacity_mib, len);
            line += &format!(" {share:.3} |");
            minimum = minimum.min(share);
        }
        table.push(line);
    }
    let table = table.join("\n");
    println!("{table}");
    assert!(minimum >= SHARE_MIN, "{table}");
}

#[test]
fn objects_fill_three_quarters_of_64_mib() {
    check(&[64]);
}

#[test]
#[ignore = "gigabytes; tests/run --long runs it"]
fn objects_fill_three_quarters_of_small_media() {
    check(&[64, 128, 256, 512]);
}

#[test]
fn too_small_capacity_is_refused_with_minimum() {
    let data = tempfile::tempdir().unwrap();
    let refuse = |capacity: &str| {
        let launch = Launch::default().with_credential().arg("--threads=2");
        launch.capacity(Some(capacity)).refused_start(&data.path().join("data")).1
    };
    let minimum = minimum_capacity();
    let message = refuse("7MiB");
    assert!(message.contains("too little") && message.contains(&minimum.to_string()), "{message}");
    // The minimum is enough for one of two threads, and all objects can be deleted.
    let node = start(minimum >> 20);
    share(&node, minimum >> 20, 100_000);
    assert!(node.log().contains("is enough for 1 of 2 threads"), "{}", node.log());
}

/// Returns the minimum capacity: one MiB, and fourteen segments of 512 KiB: FORMAT.md, section 4,
/// "Space".
fn minimum_capacity() -> u64 {
    (1 << 20) + 14 * (512 << 10)
}
