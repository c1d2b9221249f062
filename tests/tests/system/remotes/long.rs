//! The rebuild of a large store.

use std::thread;
use std::time::{Duration, Instant};

use keyhole_tests::command::run;
use keyhole_tests::data::{bytes, fresh_seed};
use keyhole_tests::{CustomerKey, Node, Request};

use super::{Remote, launch, wait_within};
use crate::transfer::versions::set_versioning;
use crate::transfer::{assert_same_stream, kill_after, spawn};

/// Objects of a bucket without versions.
const OBJECTS: usize = 60_000;
/// Keys of a bucket with versions, and the versions of each.
const KEYS: usize = 10_000;
const VERSIONS: usize = 4;
const CLIENTS: usize = 8;

/// Timeout of shipping everything.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// Calls `each` for all numbers below `count`, with several clients.
fn in_parallel(count: usize, each: impl Fn(usize) + Sync) {
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let each = &each;
            scope.spawn(move || (client..count).step_by(CLIENTS).for_each(each));
        }
    });
}

fn fill(node: &Node) {
    let key = CustomerKey::random();
    ["objects", "history"].iter().for_each(|bucket| node.make_bucket(bucket));
    set_versioning(node, "history", "Enabled");
    let put = |path: String, seed: usize| {
        let put = Request::new("PUT", &path).headers(key.headers()).header("x-amz-meta-n", seed.to_string());
        node.send(&put.body(bytes(seed as u64, seed % 1500))).expect(200);
    };
    in_parallel(OBJECTS, |number| put(format!("/objects/{}/{number}", number % 100), number));
    in_parallel(KEYS, |number| {
        let path = format!("/history/{}/{number}", number % 100);
        (0..VERSIONS).for_each(|version| put(path.clone(), number * VERSIONS + version));
        if number % 10 == 0 {
            node.send(&Request::new("DELETE", &path)).expect(204);
        }
    });
}

#[test]
#[ignore = "100,000 objects and versions; tests/run --long runs it"]
fn large_store_is_rebuilt_after_kills() {
    let seed = fresh_seed();
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let service = Node::with_bucket();
    let remote = Remote::new(&service.endpoint());
    let node = launch().start();
    let begun = Instant::now();
    fill(&node);
    println!("stored after {:?}", begun.elapsed());
    let begun = Instant::now();
    remote.add(&node, &[]);
    let shipped = wait_within(PATIENCE, &node, "idle", |status| status["state"] == "idle" && status["shipped"] != 0);
    let all = OBJECTS + KEYS * VERSIONS + KEYS / 10;
    let per_second = all as f64 / begun.elapsed().as_secs_f64();
    println!("shipped {all} in {:?}, {per_second:.0} per second: {shipped}", begun.elapsed());

    let other = launch().start();
    let arguments = remote.restoring(other.data(), &["--settings", "all", "--json"]);
    for _ in 0..3 {
        assert!(!kill_after(spawn(&arguments), random.u64(1000..10_000)), "seed {seed}: it was not killed");
    }
    let begun = Instant::now();
    let output = run(&arguments, b"");
    let (figures, _) = super::figures(&output, 0);
    let per_second = all as f64 / begun.elapsed().as_secs_f64();
    println!("restored {all} in {:?} after 3 kills, {per_second:.0} per second: {figures}", begun.elapsed());
    let found = ["stored", "equal", "markers"].map(|figure| figures[figure].as_u64().unwrap());
    assert_eq!(found.iter().sum::<u64>(), all as u64);
    assert_same_stream(&node, &other);
    let (again, _) = remote.restore(other.data(), 0, &[]);
    assert_eq!(again["equal"], all as u64, "{again}");
}
