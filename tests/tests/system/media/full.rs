//! File systems filled by others: every request is answered, DELETE always works, and no restart is
//! needed.

use std::time::{Duration, Instant};

use keyhole_tests::Node;
use keyhole_tests::data::fresh_seed;
use keyhole_tests::faulty::Space;
use keyhole_tests::http::object;
use keyhole_tests::load::{Ballast, INSUFFICIENT_STORAGE, Load, LoadOptions, Tally};
use keyhole_tests::mounted::Kind;

use super::{Objects, assert_put_works, data_in, faulty, launch, mounted, put, text, unreadable};
use crate::operate::exits_with;

const MIB: u64 = 1 << 20;

/// Size of the file systems: XFS has a minimum.
const FILE_SYSTEM_LEN: u64 = 320 * MIB;

/// Capacity of the stores.
const CAPACITY: &str = "160MiB";

/// Status of a write that could be neither finished nor rolled back for lack of space.
const IN_DOUBT: u16 = 503;

const CLIENTS: usize = 3;

/// Maximum latency on a machine that is busy with other tests. A node that retries in vain never
/// answers.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// Maximum delay until a node notices free space.
const NOTICED_MAX: Duration = Duration::from_secs(20);

/// Consecutive puts that show that the space was noticed: more than fit into a segment opened
/// earlier.
const PUTS_ACCEPTED: usize = 8;

/// Delay after which a node has been told to probe for space, which it is once a second. Puts may
/// be refused until then, even after some were accepted: those used segments that were free.
const PROBED_MAX: Duration = Duration::from_secs(3);

const MIXED: LoadOptions =
    LoadOptions { time: Duration::from_secs(2), pace: None, answer_max: ANSWER_MAX, mix: (55, 25) };

#[track_caller]
fn assert_no_wrong_answers(what: &str, tally: &Tally) {
    println!("{what}: {}", tally.line());
    assert!(tally.wrong.is_empty(), "{what}: {}: {:#?}", tally.line(), tally.wrong);
}

/// Checks that short and long puts in turn resume without a restart, after a limited delay.
fn wait_for_puts(what: &str, node: &Node) {
    let begun = Instant::now();
    let mut accepted = 0;
    while accepted < PUTS_ACCEPTED || begun.elapsed() < PROBED_MAX {
        let len = if accepted % 2 == 0 { 1_500_000 } else { 20_000 };
        let key = format!("back/{}", accepted % PUTS_ACCEPTED);
        let status = node.send(&object("PUT", &key).body(vec![7; len])).status;
        if status == 200 {
            accepted += 1;
            continue;
        }
        assert_eq!(status, INSUFFICIENT_STORAGE, "{what}");
        accepted = 0;
        assert!(begun.elapsed() < NOTICED_MAX, "{what}: puts are refused {NOTICED_MAX:?} after space became available");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_put_works(node);
}

/// Runs the load before, during and after a lack of space; `fill` takes the space, and `remove`
/// frees it.
fn filled_by_others<N>(what: &str, node: &mut Node, fill: impl FnOnce() -> N, remove: impl FnOnce(N)) {
    node.make_bucket("bucket");
    let mut load = Load::new(CLIENTS, fresh_seed());
    let begin = LoadOptions { time: Duration::from_secs(1), ..MIXED };
    assert_no_wrong_answers(&format!("{what}, with space"), &load.run(node, begin));
    // The store returns the space of emptied segments, and the filler takes it.
    assert_no_wrong_answers(&format!("{what}, emptied"), &load.delete_all(node, ANSWER_MAX));
    exits_with(0, &["compact", text(node.data())]);

    let filler = fill();
    let (ballast, tally) = Ballast::put(node, ANSWER_MAX);
    assert_no_wrong_answers(&format!("{what}, nearly full"), &tally);
    let tally = load.run(node, MIXED);
    assert_no_wrong_answers(&format!("{what}, full"), &tally);
    assert!(tally.count() > 20, "{what}: {}", tally.line());

    // The node restarts on the full file system, and all objects can be read and deleted.
    node.kill();
    node.start();
    assert_no_wrong_answers(&format!("{what}, started full"), &load.verify(node, ANSWER_MAX));
    assert_no_wrong_answers(&format!("{what}, deleted full"), &load.delete_all(node, ANSWER_MAX));
    assert_no_wrong_answers(&format!("{what}, ballast deleted full"), &ballast.delete(node, ANSWER_MAX));
    let tally = load.run(node, MIXED);
    assert_no_wrong_answers(&format!("{what}, full again"), &tally);

    remove(filler);
    wait_for_puts(what, node);
    assert_no_wrong_answers(&format!("{what}, with space again"), &load.verify(node, ANSWER_MAX));
    assert!(node.stop().success(), "{what}");
}

fn check_kind(kind: Kind) {
    let what = kind.name();
    let Some(mounted) = mounted("filled by others", kind, FILE_SYSTEM_LEN) else { return };
    let mut node = launch().capacity(Some(CAPACITY)).start_in(&data_in(&mounted.point()));
    filled_by_others(what, &mut node, || mounted.fill(), keyhole_tests::mounted::FillerFile::remove);
}

#[test]
fn ext4_filled_by_others_answers_every_request() {
    check_kind(Kind::Ext4);
}

#[test]
fn ext4_without_extents_filled_by_others_answers_every_request() {
    check_kind(Kind::Ext4WithoutExtents);
}

#[test]
fn xfs_filled_by_others_answers_every_request() {
    check_kind(Kind::Xfs);
}

#[test]
fn btrfs_filled_by_others_answers_every_request() {
    check_kind(Kind::Btrfs);
}

#[test]
fn tmpfs_filled_by_others_answers_every_request() {
    check_kind(Kind::Tmpfs);
}

/// Without `fallocate`, as on NFS.
#[test]
fn remote_file_system_filled_by_others_answers_every_request() {
    for io in ["uring", "epoll"] {
        let Some(faulty) = faulty("a remote file system filled by others") else { return };
        faulty.set_space(Space::Unsupported);
        let start = launch().capacity(Some(CAPACITY)).arg(format!("--io={io}"));
        let mut node = start.start_in(&data_in(&faulty.point()));
        let what = format!("no fallocate, over {io}");
        filled_by_others(&what, &mut node, || faulty.fill(), |()| faulty.set_budget(None));
    }
}

/// Without a free page, each deletion succeeds where overwrites need no space. With copy on write,
/// it may fail with an error: the node continues, restarts, and deletes once there is space.
#[test]
fn delete_on_full_file_system_is_answered() {
    for space in [Space::Unsupported, Space::Reserved, Space::CopyOnWrite] {
        let Some(faulty) = faulty("deletions on a full file system") else { return };
        faulty.set_space(space);
        let mut node = launch().capacity(Some(CAPACITY)).start_in(&data_in(&faulty.point()));
        node.make_bucket("bucket");
        let mut objects = Objects::new();
        for n in 0..30 {
            put(&node, &mut objects, &format!("long/{n:02}"), 1_500_000);
            put(&node, &mut objects, &format!("short/{n:02}"), 30_000);
        }
        faulty.fill();
        let mut deleted = Objects::new();
        for key in objects.keys().filter(|key| !key.ends_with('7')).cloned().collect::<Vec<_>>() {
            let reply = node.send(&object("DELETE", &key));
            if space == Space::CopyOnWrite && reply.status == INSUFFICIENT_STORAGE {
                continue;
            }
            if space == Space::CopyOnWrite && reply.status == IN_DOUBT {
                // A restart may carry the deletion out.
                assert!(reply.text().contains("outcome"), "{}", reply.text());
                objects.remove(&key);
                continue;
            }
            assert_eq!(reply.status, 204, "{space:?}: {key}: {}", reply.text());
            deleted.insert(key.clone(), objects.remove(&key).unwrap());
        }
        node.kill();
        node.start();
        assert_eq!(unreadable(&node, &objects), [].into(), "{space:?}");
        for (status, _) in unreadable(&node, &deleted).values() {
            assert_eq!(*status, 404, "{space:?}: a deleted object came back");
        }
        faulty.set_budget(None);
        if space == Space::CopyOnWrite {
            // The start itself may lack space for its writes; then it must be repeated.
            node.kill();
            node.start();
        }
        wait_for_puts(&format!("{space:?}"), &node);
        for key in objects.keys() {
            node.send(&object("DELETE", key)).expect(204);
        }
    }
}
