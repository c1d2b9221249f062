//! `kill -9` while objects are put.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use keyhole_tests::data::fresh_seed;
use keyhole_tests::sigv4::Signer;
use keyhole_tests::{CustomerKey, Node, Request};

const ROUNDS: u64 = 20;
const WRITERS: u64 = 4;
/// Names that each writer writes again and again.
const NAMES: u64 = 12;

/// The version of a name that a writer last had acknowledged, and the one that it had asked for when it ended.
#[derive(Clone, Copy, Default, Debug)]
struct Versions {
    acknowledged: Option<u64>,
    in_doubt: Option<u64>,
}

fn contents(name: &str, version: u64) -> Vec<u8> {
    let seed = name.bytes().fold(version, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let mut random = fastrand::Rng::with_seed(seed);
    let len = match random.u8(..4) {
        0 => random.usize(..512),
        1 => random.usize(..40_000),
        2 => random.usize(..300_000),
        _ => random.usize(..3 << 20),
    };
    let mut bytes = vec![0; len];
    random.fill(&mut bytes);
    bytes
}

fn request(method: &str, name: &str, key: &CustomerKey) -> Request {
    let request = Request::new(method, &format!("/crash/{name}"));
    // Every third name is in the clear.
    let is_plain = name.bytes().map(u32::from).sum::<u32>() % 3 == 0;
    if is_plain { request } else { request.headers(key.headers()) }
}

/// Puts objects until the node is gone.
fn write(
    to: SocketAddr,
    signer: &Signer,
    key: &CustomerKey,
    writer: u64,
    names: &mut BTreeMap<String, Versions>,
    next: &mut u64,
    stop: &AtomicBool,
) -> u64 {
    let mut acknowledged = 0;
    while !stop.load(Ordering::Relaxed) {
        *next += 1;
        let name = format!("w{writer}-{}", *next % NAMES);
        let versions = names.entry(name.clone()).or_default();
        versions.in_doubt = Some(*next);
        let put = request("PUT", &name, key).body(contents(&name, *next)).signed(to, signer);
        match put.try_send_unsigned(to) {
            Ok(reply) if reply.status == 200 => {
                *versions = Versions { acknowledged: Some(*next), in_doubt: None };
                acknowledged += 1;
            }
            Ok(reply) => panic!("{}", reply.text()),
            Err(_) => break,
        }
    }
    acknowledged
}

#[test]
fn acknowledged_objects_survive_kill_9_twenty_times() {
    let seed = fresh_seed();
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut node, key) = (Node::new(), CustomerKey::random());
    node.make_bucket("crash");
    let mut writers: Vec<(BTreeMap<String, Versions>, u64)> = vec![Default::default(); WRITERS as usize];
    let (mut total, mut half_done) = (0, 0);
    for round in 0..ROUNDS {
        let (to, signer, stop) = (node.address(), node.signer().clone(), AtomicBool::new(false));
        let delay = Duration::from_millis(150 + random.u64(..350));
        thread::scope(|scope| {
            let (signer, key, stop) = (&signer, &key, &stop);
            let threads: Vec<_> = (0..)
                .zip(&mut writers)
                .map(|(writer, (names, next))| scope.spawn(move || write(to, signer, key, writer, names, next, stop)))
                .collect();
            thread::sleep(delay);
            node.kill();
            stop.store(true, Ordering::Relaxed);
            for thread in threads {
                total += thread.join().expect("a writer");
            }
        });
        node.start();
        for (names, _) in &mut writers {
            for (name, versions) in names.iter_mut() {
                let reply = node.send(&request("GET", name, &key));
                let holds = |version: Option<u64>| match version {
                    Some(version) => reply.status == 200 && reply.body == contents(name, version),
                    None => reply.status == 404,
                };
                if versions.in_doubt.is_some() && holds(versions.in_doubt) {
                    // It became durable, and the reply was lost.
                    half_done += 1;
                    versions.acknowledged = versions.in_doubt;
                }
                assert!(
                    holds(versions.acknowledged),
                    "round {round}: {name} {versions:?}: {} with {} bytes",
                    reply.status,
                    reply.body.len()
                );
                versions.in_doubt = None;
            }
        }
    }
    println!("{total} acknowledged, {half_done} durable without a reply");
    assert!(total > ROUNDS, "only {total} objects were put");
}
