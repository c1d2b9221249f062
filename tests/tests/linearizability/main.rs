//! Histories of concurrent clients on the real binary, which is killed and restarted: for each key, they
//! must be linearizable.
//!
//! `KEYHOLE_LINEARIZABILITY_SECONDS` sets the length of each of the histories, which run at once.

mod client;
mod model;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use keyhole_tests::data::fresh_seed;
use keyhole_tests::linearizability::{Call, check};
use keyhole_tests::{Launch, Request};

use client::{Calls, Client, Defect, History, Key};
use model::{Operation, Plain, Versions};

/// Histories at once.
const HISTORIES: u64 = 5;

/// Default length of a history in seconds.
const SECONDS: u64 = 10;

/// Length of a history with a deliberate defect in seconds.
const DEFECTIVE_SECONDS: u64 = 4;

/// Clients of a node.
const CLIENTS: usize = 6;

/// Starts of the node after which the clients turn to other keys.
const STARTS_PER_KEY: u64 = 2;

/// Longest time from a start of the node to its end in ms.
const START_MS: u64 = 2000;

/// Calls of a history, without which it proves little.
const CALLS_MIN: usize = 100;

/// Calls before a violation that a report shows.
const REPORTED: usize = 40;

#[derive(Debug, Default)]
struct Tally {
    starts: u64,
    calls: usize,
    /// Calls that were checked: fewer if too many orders are possible.
    checked: usize,
    in_doubt: usize,
}

/// Returns the keys that clients use after this number of starts.
fn keys(start: u64) -> Vec<Key> {
    let era = start / STARTS_PER_KEY;
    let key = |(is_versioned, is_sealed): (bool, bool)| {
        let kind = if is_sealed { "sealed" } else { "plain" };
        Key { name: format!("{kind}-{era:05}"), is_sealed, is_versioned }
    };
    [(false, false), (false, true), (true, false), (true, true)].map(key).to_vec()
}

/// Runs one history.
///
/// # Errors
/// The first key whose operations are not linearizable.
fn history(seed: u64, length: Duration, defect: Option<Defect>) -> Result<Tally, String> {
    let mut random = Rng::with_seed(seed);
    let mut node = Launch::default().with_credential().start();
    node.make_bucket("bucket");
    node.make_bucket("versions");
    let enabled = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    node.send(&Request::new("PUT", "/versions").query("versioning", "").body(enabled)).expect(200);
    let history = History::new(defect);
    let mut by_key = HashMap::<Key, Vec<Call<Operation>>>::new();
    let mut tally = Tally::default();
    let begun = Instant::now();
    while begun.elapsed() < length {
        let keys = keys(tally.starts);
        let is_ending = AtomicBool::new(false);
        let calls: Calls = thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    let client = Client {
                        history: &history,
                        to: node.address(),
                        signer: node.signer().clone(),
                        keys: &keys,
                        is_ending: &is_ending,
                        random: random.fork(),
                        calls: Vec::new(),
                    };
                    scope.spawn(move || client.run())
                })
                .collect();
            thread::sleep(Duration::from_millis(random.u64(100..START_MS)));
            is_ending.store(true, Ordering::SeqCst);
            if random.u8(..4) == 0 {
                node.stop();
            } else {
                node.kill();
            }
            clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
        });
        let gone = history.now();
        tally.starts += 1;
        tally.calls += calls.len();
        for (key, mut call) in calls {
            tally.in_doubt += usize::from(!call.is_certain);
            call.ended = call.ended.min(gone);
            by_key.entry(key).or_default().push(call);
        }
        let io = if random.u8(..4) == 0 { "--io=epoll" } else { "--io=auto" };
        node.set_launch(Launch::default().with_credential().arg(io));
        node.start();
    }
    for (key, calls) in by_key {
        let checked =
            if key.is_versioned { check::<Versions>(Vec::new(), &calls) } else { check::<Plain>(None, &calls) };
        tally.checked += checked.map_err(|index| report(&key, calls, index))?;
    }
    Ok(tally)
}

/// Describes the calls that returned before a violation.
fn report(key: &Key, mut calls: Vec<Call<Operation>>, index: usize) -> String {
    let ended = calls[index].ended;
    calls.retain(|call| call.begun <= ended);
    calls.sort_by_key(|call| call.ended);
    let last: Vec<String> = calls.iter().rev().take(REPORTED).rev().map(|call| format!("{call:?}")).collect();
    format!("{key:?}: no order of these operations explains the one that ended at {ended}:\n{}", last.join("\n"))
}

#[test]
fn operations_on_each_key_are_linearizable() {
    let seconds = std::env::var("KEYHOLE_LINEARIZABILITY_SECONDS").map_or(SECONDS, |value| value.parse().unwrap());
    let seed = fresh_seed();
    println!("seed {seed}");
    let length = Duration::from_secs(seconds);
    thread::scope(|scope| {
        let histories: Vec<_> =
            (0..HISTORIES).map(|index| scope.spawn(move || history(seed.wrapping_add(index), length, None))).collect();
        for running in histories {
            let tally = running.join().expect("a history").unwrap_or_else(|violation| panic!("{violation}"));
            println!("{tally:?}");
            let is_checked = tally.checked > CALLS_MIN && tally.checked >= tally.calls / 2;
            assert!(tally.starts > 1 && tally.in_doubt > 0 && is_checked, "{tally:?}");
        }
    });
}

#[test]
fn stale_reads_are_detected() {
    assert_detected(Defect::StaleReads);
}

#[test]
fn lost_updates_are_detected() {
    assert_detected(Defect::LostUpdates);
}

fn assert_detected(defect: Defect) {
    let detected = history(fresh_seed(), Duration::from_secs(DEFECTIVE_SECONDS), Some(defect));
    println!("{detected:?}");
    assert!(detected.is_err(), "{defect:?}");
}
