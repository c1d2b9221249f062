//! A node with a small memory budget.

use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::Instant;

use keyhole_tests::cgroup::MemoryGroup;
use keyhole_tests::device::skipped;
use keyhole_tests::{CustomerKey, Launch, Node, Request, target_dir, top};

const MIB: u64 = 1 << 20;

/// Memory limit of the node, page cache of its files included.
const LIMIT: u64 = 64 * MIB;

/// Puts `count` small objects over a few connections.
fn put_small(node: &Node, count: usize) {
    const CONNECTIONS: usize = 16;
    thread::scope(|scope| {
        for first in 0..CONNECTIONS {
            scope.spawn(move || {
                let mut connection = TcpStream::connect(node.address()).unwrap();
                connection.set_nodelay(true).unwrap();
                for n in (first..count).step_by(CONNECTIONS) {
                    let put = Request::new("PUT", &format!("/bucket/small/{n:06}")).body(n.to_string());
                    let put = put.signed(node.address(), node.signer());
                    put.exchange(&mut connection, &put.keep_alive_head(node.address())).unwrap().expect(200);
                }
            });
        }
    });
}

/// Runs concurrent clients that put and get one object of this length each, and returns their
/// output.
fn run_clients(node: &Node, clients: usize, len: u64) -> String {
    let python = target_dir().join("venv/bin/python3");
    assert!(python.exists(), "{} is missing: tests/run installs it", python.display());
    let mut command = Command::new(python);
    command
        .arg(top().join("tests/tools/concurrent-clients.py"))
        .arg("bucket")
        .args([clients.to_string(), len.to_string()]);
    command.env_clear().env("PYTHONDONTWRITEBYTECODE", "1").env("PATH", "/usr/bin:/bin");
    command.env("AWS_ACCESS_KEY_ID", &node.signer().access_key).env("AWS_SECRET_ACCESS_KEY", &node.signer().secret_key);
    command.env("AWS_DEFAULT_REGION", &node.signer().region).env("AWS_EC2_METADATA_DISABLED", "true");
    command.env("AWS_CONFIG_FILE", "/dev/null").env("ENDPOINT", node.endpoint());
    let output = command.output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    assert!(output.status.success(), "{printed}");
    printed
}

/// Returns the swap usage of the process.
fn swapped_kib(node: &Node) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSwap:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Fills the index, runs the clients concurrently and restarts the node, all within 64 MiB.
fn check_clients(test: &str, objects: usize, clients: usize, len: u64, io: &str) {
    let group = match MemoryGroup::new(LIMIT) {
        Ok(group) => group,
        Err(reason) => return skipped(test, &reason),
    };
    let launch = Launch::default().under(group.command()).with_credential().capacity(Some("16GiB"));
    let mut node = launch.arg("--threads=2").arg("--sync=interval:100").arg(format!("--io={io}")).start();
    assert!(group.contains(node.pid()), "the node is not in the group");
    assert!(node.log().contains("memory 64.0 MiB, of which 24.0 MiB for buffers; workers 2, each with 7 blocks"));
    node.make_bucket("bucket");
    let begun = Instant::now();
    put_small(&node, objects);
    let resident = node.peak_resident_kib() >> 10;
    println!("--io {io}: {objects} objects in {:.1} s, resident at most {resident} MiB", begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    let printed = run_clients(&node, clients, len);
    let peak = (node.peak_resident_kib() >> 10, group.peak() / MIB);
    println!(
        "{clients} clients with {} MiB each, up and down in {:.1} s:\n{printed}resident at most {} MiB, with page cache {} MiB",
        len / MIB,
        begun.elapsed().as_secs_f64(),
        peak.0,
        peak.1
    );
    assert!(group.peak() <= LIMIT);
    assert_eq!((group.killed(), swapped_kib(&node)), (0, 0));
    assert!(node.stop().success());
    node.start();
    assert_eq!((group.killed(), group.contains(node.pid())), (0, true));
    let last = format!("/bucket/small/{:06}", objects - 1);
    assert_eq!(node.send(&Request::new("GET", &last)).expect(200).text(), (objects - 1).to_string());
    println!("started again: resident at most {} MiB", node.peak_resident_kib() >> 10);
}

#[test]
fn concurrent_clients_stay_within_memory_limit() {
    for io in ["uring", "epoll"] {
        check_clients("concurrent clients within the memory limit", 10_000, 16, 8 * MIB, io);
    }
}

#[test]
#[ignore = "4 GiB up and down; tests/run --long runs it"]
fn many_concurrent_clients_stay_within_memory_limit() {
    check_clients("many concurrent clients within the memory limit", 100_000, 64, 64 * MIB, "auto");
}

/// Repeats many puts since the last checkpoint (two records each), SIGKILL and a restart, within
/// 64 MiB. Recovery must stay within this limit.
fn check_restarts(test: &str, objects: usize, puts_of_each: usize, rounds: usize) {
    let group = match MemoryGroup::new(LIMIT) {
        Ok(group) => group,
        Err(reason) => return skipped(test, &reason),
    };
    let launch = Launch::default().under(group.command()).with_credential().capacity(Some("16GiB"));
    let mut node = launch.arg("--threads=2").arg("--sync=interval:100").start();
    assert!(group.contains(node.pid()), "the node is not in the group");
    node.make_bucket("bucket");
    let mut peaks = Vec::new();
    for round in 1..=rounds {
        for _ in 0..puts_of_each {
            put_small(&node, objects);
        }
        let running = node.peak_resident_kib() >> 10;
        node.kill();
        let begun = Instant::now();
        node.start();
        let started = node.peak_resident_kib() >> 10;
        println!(
            "{round}: resident {running} MiB running, {started} MiB at a start of {} ms",
            begun.elapsed().as_millis()
        );
        assert_eq!((group.killed(), swapped_kib(&node)), (0, 0), "round {round}");
        peaks.extend([running, started]);
        for n in [0, objects / 2, objects - 1] {
            let got = node.send(&Request::new("GET", &format!("/bucket/small/{n:06}"))).expect(200);
            assert_eq!(got.text(), n.to_string());
        }
    }
    let recovered = node.log();
    let recovered: Vec<_> = recovered.split_whitespace().filter(|word| word.starts_with("records=")).collect();
    println!("{recovered:?}");
    let most = peaks.iter().max().copied().unwrap_or(0);
    assert!(most <= LIMIT / MIB, "resident {most} MiB, of {} MiB", LIMIT / MIB);
}

#[test]
fn start_after_kill_stays_within_memory_limit() {
    check_restarts("start after kill within the memory limit", 2_000, 3, 2);
}

/// Returns the number of records that the last opening replayed, from the log.
fn replayed_records(node: &Node) -> u64 {
    let log = node.log();
    let opened = log.lines().rfind(|line| line.contains("opened")).expect("a log line about the opened store");
    let records =
        opened.split_whitespace().find_map(|field| field.strip_prefix("records=")).expect("a number of records");
    records.parse().expect("a number")
}

#[test]
#[ignore = "250,000 objects and 20 starts; tests/run --long runs it"]
fn start_with_long_replay_stays_within_memory_limit() {
    const OBJECTS: usize = 100_000;
    const RECORDS: u64 = 300_000;
    const STARTS: usize = 20;
    let group = match MemoryGroup::new(LIMIT) {
        Ok(group) => group,
        Err(reason) => return skipped("start with a long replay within the memory limit", &reason),
    };
    let launch = Launch::default().under(group.command()).with_credential().capacity(Some("16GiB"));
    let mut node = launch.arg("--threads=2").arg("--memory=64MiB").arg("--sync=interval:100").start();
    node.make_bucket("bucket");
    put_small(&node, OBJECTS);
    // An orderly shutdown writes a checkpoint. Each later object has a body record and an object
    // record.
    assert!(node.stop().success());
    node.start();
    put_small(&node, OBJECTS);
    put_small(&node, RECORDS as usize / 2 - OBJECTS);
    for start in 1..=STARTS {
        node.kill();
        let begun = Instant::now();
        node.start();
        let seconds = begun.elapsed().as_secs_f64();
        let resident = node.peak_resident_kib() << 10;
        println!(
            "start {start}: {} records replayed in {seconds:.2} s, resident at most {:.1} MiB",
            replayed_records(&node),
            resident as f64 / MIB as f64
        );
        assert!(replayed_records(&node) >= RECORDS, "a checkpoint was written: {}", replayed_records(&node));
        assert!(group.contains(node.pid()), "the node is not in the group");
        assert!(resident <= LIMIT, "{resident} bytes");
        assert_eq!((group.killed(), swapped_kib(&node)), (0, 0));
        let last = format!("/bucket/small/{:06}", OBJECTS - 1);
        assert_eq!(node.send(&Request::new("GET", &last)).expect(200).text(), (OBJECTS - 1).to_string());
    }
    println!("with page cache at most {:.1} MiB", group.peak() as f64 / MIB as f64);
    assert!(group.peak() <= LIMIT);
}

/// An upload that stops sending neither keeps memory from other requests nor makes them wait.
#[test]
fn stalled_upload_keeps_no_memory_from_others() {
    let node = Launch::default().with_credential().arg("--threads=2").arg("--memory=40MiB").start();
    assert!(node.log().contains("is enough for 1 of 2 threads"), "{}", node.log());
    node.make_bucket("bucket");
    let address = node.address();
    let signer = node.signer();
    // As many as there are blocks, each of which has sent a part of one.
    let holder = Request::new("PUT", "/bucket/held").payload("UNSIGNED-PAYLOAD").header("content-length", "6291456");
    let holder = holder.signed(address, signer);
    let mut held = Vec::new();
    for _ in 0..7 {
        let mut tcp = TcpStream::connect(address).unwrap();
        std::io::Write::write_all(&mut tcp, holder.head(address).as_bytes()).unwrap();
        std::io::Write::write_all(&mut tcp, &[1; 100_000]).unwrap();
        held.push(tcp);
    }
    thread::sleep(std::time::Duration::from_millis(500));

    let begun = Instant::now();
    for (name, len) in [("long", 5 << 20), ("short", 5)] {
        let put = Request::new("PUT", &format!("/bucket/{name}")).headers(CustomerKey::random().headers());
        node.send(&put.body(vec![1; len])).expect(200);
    }
    println!("stored beside stalled uploads in {:.1?}", begun.elapsed());
    drop(held);
}

#[test]
fn start_with_too_little_memory_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let (code, message) = Launch::default().arg("--memory=39MiB").refused_start(&data.path().join("data"));
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("--memory is too small: expected at least 40.0 MiB"), "{message}");
}
