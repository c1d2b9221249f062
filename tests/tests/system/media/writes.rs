//! Failed writes: the running node still serves reads and answers changes with 503, and a restart
//! continues in a new segment.

use std::collections::BTreeMap;
use std::process::Command;

use keyhole_tests::Node;
use keyhole_tests::faulty::FaultyFs;
use keyhole_tests::http::object;
use keyhole_tests::node::binary;
use keyhole_tests::object_file::{FILE, Layout, PAGE, SegmentKind};

use super::{Objects, assert_put_works, assert_unavailable, data_in, faulty, launch, put, text, unreadable};

const CAPACITY: &str = "64MiB";

/// Maximum number of restarts to get past a bad range.
const RESTARTS_MAX: usize = 3;

/// Starts a node with some objects on the faulty file system.
fn filled(faulty: &FaultyFs, io: &str) -> (Node, Objects) {
    let start = launch().capacity(Some(CAPACITY)).arg(format!("--io={io}"));
    let node = start.start_in(&data_in(&faulty.point()));
    node.make_bucket("bucket");
    let mut objects = Objects::new();
    for n in 0..6 {
        put(&node, &mut objects, &format!("short/{n}"), 20_000);
        put(&node, &mut objects, &format!("long/{n}"), 1_500_000);
    }
    (node, objects)
}

/// Checks the state after a failed write: reads still work, and changes are refused with a reason.
fn assert_serves_only_reads(node: &Node, objects: &Objects) {
    for len in [300, 1_500_000] {
        assert_unavailable(&node.send(&object("PUT", "refused").body(vec![1; len])));
    }
    assert_unavailable(&node.send(&object("DELETE", "short/0")));
    assert_eq!(unreadable(node, objects), BTreeMap::new());
    assert_eq!(node.send(&object("GET", "refused")).status, 404);
    let stat = Command::new(binary()).args(["stat", text(node.data())]).output().unwrap();
    assert!(stat.status.success(), "stat: {}", String::from_utf8_lossy(&stat.stderr));
}

fn assert_export_works(node: &Node, faulty: &FaultyFs) {
    let target = faulty.home().join("export");
    let export = Command::new(binary()).args(["export", text(node.data()), text(&target)]).output().unwrap();
    assert!(export.status.success(), "export: {}", String::from_utf8_lossy(&export.stderr));
    std::fs::remove_dir_all(target).unwrap();
}

#[test]
fn failed_writes_keep_reads_and_restart_recovers() {
    for io in ["uring", "epoll"] {
        let Some(faulty) = faulty("failed writes") else { return };
        let (mut node, objects) = filled(&faulty, io);
        faulty.fail_writes(FILE, 0..u64::MAX);
        // The request that hits the fault may be answered like any later one.
        let first = node.send(&object("PUT", "first").body("lost"));
        assert!(first.status >= 500, "{io}: {}", first.status);
        assert_serves_only_reads(&node, &objects);
        assert_export_works(&node, &faulty);
        assert!(faulty.injected().writes > 0);
        node.kill();
        faulty.heal();
        node.start();
        assert_eq!(unreadable(&node, &objects), BTreeMap::new(), "{io}");
        assert_put_works(&node);
    }
}

/// A bad range at the next write position is permanent: after a restart the node writes elsewhere.
#[test]
fn bad_range_at_tail_is_avoided_after_restart() {
    for (kind, len) in [(SegmentKind::Records, 300), (SegmentKind::Blocks, 100_000)] {
        let Some(faulty) = faulty("a bad range at the tail") else { return };
        let (mut node, mut kept) = filled(&faulty, "uring");
        // The unwritten rest of the newest segment of this kind, and nothing beyond it.
        let bad = tail(&Layout::read(&data_in(&faulty.backing()).join(FILE)), kind);
        faulty.fail_writes(FILE, bad);
        let mut failed = 0;
        for n in 0..4 {
            let key = format!("tail/{n}");
            let body = vec![n; len];
            match node.send(&object("PUT", &key).body(body.clone())).status {
                200 => drop(kept.insert(key, body)),
                status => {
                    assert!(status >= 500, "{kind:?}: {status}");
                    failed += 1;
                }
            }
        }
        assert!(failed > 0 && faulty.injected().writes > 0, "{kind:?}: no write reached the bad range");
        assert_eq!(unreadable(&node, &kept), BTreeMap::new(), "{kind:?}");
        let is_writable = (0..RESTARTS_MAX).any(|_| accepts_puts_after_restart(&mut node, &kept, &faulty, len));
        assert!(is_writable, "{kind:?}: restarts do not get past the bad range: {}", node.log());
        assert_put_works(&node);
    }
}

/// Restarts the node as a reboot does: the range stays bad. Returns whether the node accepts
/// changes again; it serves reads in either case.
fn accepts_puts_after_restart(node: &mut Node, kept: &Objects, faulty: &FaultyFs, len: usize) -> bool {
    node.kill();
    faulty.forget_lost_writes();
    node.start();
    assert_eq!(unreadable(node, kept), BTreeMap::new(), "after a restart");
    let reply = node.send(&object("PUT", "again").body(vec![9; len]));
    if reply.status != 200 {
        assert_unavailable(&reply);
        assert_export_works(node, faulty);
    }
    reply.status == 200
}

/// Returns the range from the last written page of the newest segment of a kind to the end of the
/// segment.
fn tail(layout: &Layout, kind: SegmentKind) -> std::ops::Range<u64> {
    let segment = layout
        .segments
        .iter()
        .filter(|segment| segment.kind == kind && !segment.is_ended)
        .max_by_key(|segment| segment.generation());
    let start = segment.expect("an open segment").start;
    let end = start + layout.segment_len();
    let written = layout.written_pages().into_iter().filter(|page| (start..end).contains(page)).max();
    written.expect("a header") + PAGE..end
}

#[test]
fn failed_sync_keeps_reads_and_restart_recovers() {
    let Some(faulty) = faulty("a failed sync") else { return };
    let (mut node, objects) = filled(&faulty, "uring");
    faulty.fail_syncs();
    let first = node.send(&object("PUT", "first").body("lost"));
    assert!(first.status >= 500, "{}", first.status);
    assert_serves_only_reads(&node, &objects);
    node.kill();
    faulty.heal();
    node.start();
    assert_eq!(unreadable(&node, &objects), BTreeMap::new());
    assert_put_works(&node);
}
