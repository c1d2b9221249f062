//! Media that have become read-only: reads, exports and reports still work.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use keyhole_tests::device::LoopDevice;
use keyhole_tests::http::object;
use keyhole_tests::mounted::Kind;
use keyhole_tests::node::binary;
use keyhole_tests::{Launch, Node};

use super::{Objects, assert_put_works, assert_unavailable, data_in, faulty, launch, mounted, put, text, unreadable};

const CAPACITY: &str = "64MiB";

fn fill(node: &Node) -> Objects {
    node.make_bucket("bucket");
    let mut objects = Objects::new();
    for n in 0..4 {
        put(node, &mut objects, &format!("short/{n}"), 20_000);
        put(node, &mut objects, &format!("long/{n}"), 1_500_000);
    }
    objects
}

/// Checks that reads are served, changes are refused with 503, and commands work.
fn assert_serves_only_reads(what: &str, node: &Node, objects: &Objects, home: &Path) {
    assert_eq!(unreadable(node, objects), BTreeMap::new(), "{what}");
    assert_unavailable(&node.send(&object("PUT", "new").body("new")));
    assert_unavailable(&node.send(&object("DELETE", "short/0")));
    assert_eq!(unreadable(node, objects), BTreeMap::new(), "{what}");
    assert_commands_work(what, node.data(), home);
}

/// Checks `stat` and `export`, with or without a node.
fn assert_commands_work(what: &str, data: &Path, home: &Path) {
    let target = home.join("export");
    let _ = std::fs::remove_dir_all(&target);
    for arguments in [&["stat", text(data)][..], &["export", text(data), text(&target)]] {
        let output = Command::new(binary()).args(arguments).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{what}: {arguments:?}: {message}");
    }
}

#[test]
fn medium_turned_read_only_is_served_and_recovers() {
    for io in ["uring", "epoll"] {
        let Some(faulty) = faulty("a medium that turns read-only") else { return };
        let start = || launch().capacity(Some(CAPACITY)).arg(format!("--io={io}"));
        let mut node = start().start_in(&data_in(&faulty.point()));
        let objects = fill(&node);
        faulty.set_read_only(true);
        let first = node.send(&object("PUT", "first").body("refused"));
        assert!(first.status >= 500, "{io}: {}", first.status);
        assert_serves_only_reads(&format!("{io}, running"), &node, &objects, faulty.home());
        node.kill();
        assert_commands_work(&format!("{io}, stopped"), &data_in(&faulty.point()), faulty.home());
        node.start();
        assert!(node.log().contains("read-only"), "{io}: {}", node.log());
        assert_serves_only_reads(&format!("{io}, started"), &node, &objects, faulty.home());
        node.kill();
        faulty.set_read_only(false);
        node.start();
        assert_eq!(unreadable(&node, &objects), BTreeMap::new(), "{io}");
        assert_put_works(&node);
    }
}

#[test]
fn file_system_remounted_read_only_is_served() {
    for kind in [Kind::Ext4, Kind::Xfs, Kind::Btrfs] {
        let what = kind.name();
        let Some(mut mounted) = mounted("remounted read-only", kind, 320 << 20) else { return };
        let data = data_in(&mounted.point());
        let mut node = launch().capacity(Some(CAPACITY)).start_in(&data);
        let objects = fill(&node);
        node.kill();
        mounted.remount_read_only().unwrap();
        assert_commands_work(what, &data, mounted.home());
        node.start();
        assert_serves_only_reads(what, &node, &objects, mounted.home());
        node.kill();
        mounted.unmount().unwrap();
        mounted.mount().unwrap();
        node.start();
        assert_eq!(unreadable(&node, &objects), BTreeMap::new(), "{what}");
        assert_put_works(&node);
    }
}

/// The option alone makes a store on a healthy medium read-only.
#[test]
fn read_only_option_refuses_changes_and_writes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let data = data_in(home.path());
    let mut node = launch().capacity(Some(CAPACITY)).start_in(&data);
    let objects = fill(&node);
    node.kill();
    let file = data.join(keyhole_tests::object_file::FILE);
    let before = std::fs::read(&file).unwrap();
    node.set_launch(launch().capacity(None).arg("--read-only"));
    node.start();
    assert_serves_only_reads("--read-only", &node, &objects, home.path());
    assert!(node.stop().success());
    assert!(std::fs::read(&file).unwrap() == before, "the object file is unchanged");
    node.set_launch(launch().capacity(None));
    node.start();
    assert_put_works(&node);
}

/// A device whose write protection ends with the test: the kernel keeps it even after the backing
/// file is gone.
struct ReadOnlyDevice(LoopDevice);

impl ReadOnlyDevice {
    fn set(&self, option: &str) {
        assert!(Command::new("blockdev").arg(option).arg(self.0.path()).status().unwrap().success());
    }
}

impl Drop for ReadOnlyDevice {
    fn drop(&mut self) {
        self.set("--setrw");
    }
}

#[test]
fn device_set_read_only_is_served() {
    let home = tempfile::tempdir().unwrap();
    let image = home.path().join("image");
    std::fs::File::create(&image).and_then(|file| file.set_len(128 << 20)).unwrap();
    let device = match LoopDevice::attach(&image) {
        Ok(device) => ReadOnlyDevice(device),
        Err(reason) => return keyhole_tests::device::skipped("a read-only device", &reason),
    };
    let state = home.path().join("state");
    let start = || Launch::default().capacity(None).with_credential().arg("--threads=1").arg("--state").arg(&state);
    let mut node = start().arg("--format").start_in(device.0.path());
    let objects = fill(&node);
    node.kill();
    device.set("--setro");
    node.set_launch(start());
    node.start();
    assert_eq!(unreadable(&node, &objects), BTreeMap::new());
    assert_unavailable(&node.send(&object("PUT", "new").body("new")));
    node.kill();
    device.set("--setrw");
    node.start();
    assert_put_works(&node);
    drop(node);
}
