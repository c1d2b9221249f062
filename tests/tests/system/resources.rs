//! What the node takes of the machine, and how it moves bytes.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use keyhole_tests::{CustomerKey, Launch, Node, Request, top};
use sha2::{Digest, Sha256};

const MIB: u64 = 1 << 20;
const RESIDENT_MAX_KIB: u64 = 96 << 10;

/// Bytes that are made as they are read, with their hash.
struct Made {
    left: u64,
    state: u64,
    hash: Sha256,
}

impl Made {
    fn new(len: u64) -> Self {
        Made { left: len, state: 1, hash: Sha256::new() }
    }
}

impl Read for &mut Made {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let len = usize::try_from(self.left.min(buf.len() as u64)).expect("a length");
        for word in buf[..len].chunks_mut(8) {
            self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            word.copy_from_slice(&self.state.to_le_bytes()[..word.len()]);
        }
        self.hash.update(&buf[..len]);
        self.left -= len as u64;
        Ok(len)
    }
}

/// Puts and gets one SSE-C object of this length.
fn there_and_back(node: &Node, len: u64) {
    let key = CustomerKey::random();
    let mut made = Made::new(len);
    let put = Request::new("PUT", "/big/object").headers(key.headers());
    put.send_stream(node.address(), node.signer(), len, &mut made).expect(200);
    let mut got = Sha256::new();
    let get = Request::new("GET", "/big/object").headers(key.headers());
    let reply = get.receive_stream(node.address(), node.signer(), |bytes| got.update(bytes)).expect(200);
    assert!(reply.is_complete);
    assert_eq!(got.finalize(), made.hash.finalize());
}

/// The longest allocation on the heap, and all of them together, while an object of this length is put and got.
fn heap_of(library: &Path, len: u64) -> (u64, u64) {
    let directory = tempfile::tempdir().unwrap();
    let told = directory.path().join("told");
    let mut node = Launch::default().with_credential().env("LD_PRELOAD", library).env("ALLOCATIONS", &told).start();
    node.make_bucket("big");
    // What is taken once, whatever the length.
    there_and_back(&node, 2 * MIB);
    fs::write(&told, "").unwrap();
    there_and_back(&node, len);
    assert!(node.stop().success());
    let told = fs::read_to_string(told).unwrap();
    let (longest, sum) = told.trim().split_once(' ').expect("two numbers");
    (longest.parse().unwrap(), sum.parse().unwrap())
}

#[test]
fn no_allocation_grows_with_the_object() {
    let directory = tempfile::tempdir().unwrap();
    let library = directory.path().join("allocations.so");
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).arg(top().join("tests/tools/allocations.c"));
    assert!(compile.status().unwrap().success());
    let lengths = [4 * MIB, 64 * MIB, 512 * MIB];
    let heap = lengths.map(|len| heap_of(&library, len));
    for (len, (longest, sum)) in lengths.iter().zip(heap) {
        println!("{} MiB there and back: the longest allocation {longest} B, all together {sum} B", len / MIB);
    }
    // Where a body's blocks are is noted for each segment of 64 MiB that it has some in.
    let [short, _, long] = heap.map(|(longest, _)| longest);
    assert!(long <= short + 64 * 512 / 64, "{long} B, and {short} B for a short one");
    // Nothing of the payload is copied to the heap: all that is taken for a MiB is a small part of it.
    let for_each_mib = (heap[2].1 - heap[0].1) / ((lengths[2] - lengths[0]) / MIB);
    assert!(for_each_mib < MIB / 16, "{for_each_mib} B on the heap for each MiB");
}

#[test]
fn memory_does_not_grow_with_the_object() {
    for io in ["uring", "epoll"] {
        let node = Launch::default().with_credential().arg(format!("--io={io}")).start();
        node.make_bucket("big");
        there_and_back(&node, 1024 * MIB);
        let peak = node.peak_resident_kib();
        println!("--io {io}: resident at most {} MiB for a PUT and a GET of 1 GiB", peak >> 10);
        assert!(peak < RESIDENT_MAX_KIB, "{peak} KiB");
    }
}

/// The system calls that move bytes by themselves.
const MOVERS: &str = "read,write,pread64,pwrite64,readv,writev,preadv,pwritev,preadv2,pwritev2,recvfrom,recvmsg,recvmmsg,\
                      sendto,sendmsg,sendmmsg,sendfile,splice,tee,vmsplice,copy_file_range,io_uring_enter";

/// The system calls in the output of `strace -f -ttt`, each with when it began, in seconds since 1970. A line is
/// `PID TIME CALL(FD<what it is>, ...) = RESULT`; where another thread's call was told meanwhile, it is cut in two, as in
/// `PID TIME CALL(FD<what it is>, <unfinished ...>` and `PID TIME <... CALL resumed>...) = RESULT`.
fn traced_calls(text: &str) -> Vec<(f64, String)> {
    let mut unfinished = HashMap::new();
    let mut calls = Vec::new();
    for line in text.lines() {
        let Some((pid, timed)) = line.split_once(' ') else { continue };
        let Some((time, call)) = timed.trim_start().split_once(' ') else { continue };
        if let Some(begin) = call.strip_suffix("<unfinished ...>") {
            unfinished.insert(pid, (time, begin.trim_end()));
            continue;
        }
        let resumed = call.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>"));
        let (time, call) = match resumed {
            Some((_, end)) => {
                let Some((time, begin)) = unfinished.remove(pid) else { continue };
                (time, format!("{begin} {}", end.trim_start()))
            }
            None => (time, call.to_owned()),
        };
        calls.push((time.parse().expect("a time"), call));
    }
    // What a node did not finish before it ended was begun nevertheless.
    let left = unfinished.into_values().map(|(time, begin)| (time.parse().expect("a time"), begin.to_owned()));
    calls.extend(left);
    calls
}

#[test]
fn calls_cut_in_two_are_joined() {
    let text = "7 1.5 preadv2(18</d/objects.keyhole>,  <unfinished ...>\n8 1.6 read(3<x>, \"\", 4) = 4\n\
                7 1.7 <... preadv2 resumed>[{iov_len=9}], 1, 0, RWF_NOWAIT) = 9\n8 1.8 read(3<x>,  <unfinished ...>\n";
    let joined = "preadv2(18</d/objects.keyhole>, [{iov_len=9}], 1, 0, RWF_NOWAIT) = 9".to_owned();
    let expected = [(1.6, "read(3<x>, \"\", 4) = 4".to_owned()), (1.5, joined), (1.8, "read(3<x>,".to_owned())];
    assert_eq!(traced_calls(text), expected);
}

#[test]
fn the_payload_of_a_long_object_is_moved_by_the_ring_alone() {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    let strace = ["strace", "-D", "-f", "-yy", "-ttt", "-s", "0", "-o", trace.to_str().unwrap()];
    let launch = Launch::default().under(strace).under(["-e", &format!("trace={MOVERS}"), "--"]);
    let mut node = launch.with_credential().arg("--io=uring").arg("--log=warn").start();
    node.make_bucket("big");
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    there_and_back(&node, 64 * MIB);
    node.stop();

    let text = fs::read_to_string(&trace).unwrap();
    let mut calls: BTreeMap<String, u32> = BTreeMap::new();
    let mut looked_up = 0;
    for (time, call) in traced_calls(&text) {
        let Some((name, arguments)) = call.split_once('(') else { continue };
        if time < begun {
            continue;
        }
        *calls.entry(name.to_owned()).or_default() += 1;
        let moves = name != "io_uring_enter";
        let what = arguments.split(',').next().unwrap_or_default();
        // Records and footers are looked for in the page cache without waiting.
        if name == "preadv2" && arguments.contains("RWF_NOWAIT") && !what.contains("TCP") {
            let result = call.rsplit(" = ").next().and_then(|result| result.split(' ').next());
            looked_up += result.and_then(|result| result.parse::<u64>().ok()).unwrap_or(0);
            continue;
        }
        assert!(!(moves && (what.contains("TCP") || what.contains("keyhole"))), "{call}");
    }
    println!("system calls of a PUT and a GET of 64 MiB: {calls:?}; {looked_up} B were looked up in the page cache");
    assert!(looked_up < 64 * (4 << 10) + (64 << 10), "more than 64 footers and a few records: {looked_up} B");
    assert!(calls.get("io_uring_enter").is_some_and(|count| *count > 64), "{calls:?}");
}
