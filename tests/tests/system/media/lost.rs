//! A lost store: the next start reports it, and does not create an empty one instead.

use std::fs;
use std::path::Path;

use keyhole_tests::Launch;
use keyhole_tests::http::object;
use keyhole_tests::mounted::Kind;
use keyhole_tests::object_file::FILE;

use super::{Objects, assert_put_works, data_in, launch, mounted, put, unreadable};

const CAPACITY: &str = "64MiB";

#[track_caller]
fn assert_start_refused(launch: &Launch, data: &Path) {
    let (code, message) = launch.refused_start(data);
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains(FILE) || message.contains("store"), "{message}");
}

#[test]
fn removed_object_file_is_noticed_at_start() {
    let home = tempfile::tempdir().unwrap();
    let data = data_in(home.path());
    let start = || launch().capacity(Some(CAPACITY));
    let mut node = start().start_in(&data);
    node.make_bucket("bucket");
    let mut objects = Objects::new();
    put(&node, &mut objects, "kept", 100_000);
    assert!(node.stop().success());
    let file = data.join(FILE);
    let elsewhere = home.path().join("elsewhere");
    fs::rename(&file, &elsewhere).unwrap();
    assert_start_refused(&start(), &data);
    assert!(!file.exists(), "no empty store is created");
    fs::rename(&elsewhere, &file).unwrap();
    node.start();
    assert_eq!(unreadable(&node, &objects), [].into());
    assert_put_works(&node);
}

/// Another store's file in its place is rejected.
#[test]
fn object_file_of_another_store_is_noticed_at_start() {
    let home = tempfile::tempdir().unwrap();
    let start = || launch().capacity(Some(CAPACITY));
    let paths = ["one", "other"].map(|name| home.path().join(name));
    for data in &paths {
        assert!(start().start_in(data).stop().success());
    }
    fs::copy(paths[1].join(FILE), paths[0].join(FILE)).unwrap();
    assert_start_refused(&start(), &paths[0]);
}

/// The data directory is on a separate disk: without the disk, the state still knows that there is
/// a store.
#[test]
fn unmounted_disk_is_noticed_at_start() {
    let Some(mut mounted) = mounted("an unmounted disk", Kind::Ext4, 256 << 20) else { return };
    let data = mounted.point();
    let state = mounted.home().join("state");
    let start = || launch().capacity(Some(CAPACITY)).arg("--state").arg(&state);
    let mut node = start().start_in(&data);
    node.make_bucket("bucket");
    let mut objects = Objects::new();
    put(&node, &mut objects, "kept", 100_000);
    assert!(node.stop().success());
    mounted.unmount().unwrap();
    assert_start_refused(&start(), &data);
    assert!(!data.join(FILE).exists(), "no empty store is created below the mount point");
    mounted.mount().unwrap();
    node.start();
    assert_eq!(unreadable(&node, &objects), [].into());
    node.send(&object("DELETE", "kept")).expect(204);
}
