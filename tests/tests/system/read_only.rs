//! Read-only stores, by option, because of the medium, or after a failed write; and missing object
//! files.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use keyhole_tests::data::{bytes, files_below};
use keyhole_tests::device::{EmptyDevice, LoopDevice, Volume, skipped};
use keyhole_tests::{CustomerKey, Launch, Node, Request};
use serde_json::Value;

use crate::operate::{exits_with, json};

/// Timeout of an expected change: the node checks every five seconds.
const TIMEOUT: Duration = Duration::from_secs(30);

const CAPACITY: &str = "128MiB";

fn launch(io: &str) -> Launch {
    let launch = Launch::default().with_credential().capacity(Some(CAPACITY));
    launch.arg("--threads=2").arg("--admin-listen=127.0.0.1:0").arg(format!("--io={io}"))
}

/// Returns the body of an object, either inline or in blocks.
fn body_of(i: u64) -> Vec<u8> {
    bytes(i, if i.is_multiple_of(2) { 3000 } else { 700_000 })
}

fn fill(node: &Node, objects: u64) {
    node.make_bucket("bucket");
    for i in 0..objects {
        node.send(&Request::new("PUT", &format!("/bucket/{i}")).body(body_of(i))).expect(200);
    }
}

#[track_caller]
fn assert_reads_work(node: &Node, objects: u64) {
    for i in 0..objects {
        let got = node.send(&Request::new("GET", &format!("/bucket/{i}"))).expect(200);
        assert!(got.body == body_of(i), "{i}");
    }
    let listing = node.send(&Request::new("GET", "/bucket").query("list-type", "2")).expect(200).text();
    assert!(listing.contains(&format!("<KeyCount>{objects}</KeyCount>")), "{listing}");
}

/// Checks that every write is answered with 503 and the reason.
#[track_caller]
fn assert_writes_refused(node: &Node, reason: &str) {
    let key = CustomerKey::random();
    for request in [
        Request::new("PUT", "/bucket/new").body(bytes(1, 100)),
        Request::new("PUT", "/bucket/new").body(bytes(1, 3 << 20)),
        Request::new("PUT", "/bucket/new").headers(key.headers()).body(bytes(1, 300_000)),
        Request::new("DELETE", "/bucket/0"),
        Request::new("PUT", "/another"),
        Request::new("DELETE", "/bucket"),
        Request::new("POST", "/bucket/upload").query("uploads", ""),
    ] {
        let reply = node.send(&request).expect(503);
        assert_eq!(reply.element("Code").as_deref(), Some("ServiceUnavailable"), "{}", reply.text());
        assert!(reply.header("retry-after").is_some());
        let message = reply.element("Message").unwrap();
        assert!(message.contains(reason), "{reason} in {message}");
    }
}

fn admin_get(node: &Node, path: &str) -> keyhole_tests::Response {
    Request::new("GET", path).send_unsigned(node.admin_address())
}

fn condition(node: &Node, name: &str) -> Option<String> {
    let status: Value = serde_json::from_str(&admin_get(node, "/status.json").expect(200).text()).unwrap();
    let all = status["conditions"].as_array().unwrap();
    let found = all.iter().find(|condition| condition["name"] == name)?;
    Some(found["text"].as_str().unwrap().to_owned())
}

#[track_caller]
fn wait_for_condition(node: &Node, name: &str) -> String {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(text) = condition(node, name) {
            return text;
        }
        assert!(Instant::now() < deadline, "condition {name} is not reported in time");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Checks that status, page, metrics and health agree.
#[track_caller]
fn assert_condition_reported(node: &Node, name: &str, reason: &str, ready: u16) {
    let text = condition(node, name).unwrap_or_else(|| panic!("condition {name} is not reported"));
    assert!(text.contains(reason), "{reason} in {text}");
    let health = admin_get(node, "/health/ready");
    assert_eq!(health.status, ready, "{}", health.text());
    assert_eq!(health.text().contains(name), ready == 503);
    let metrics = admin_get(node, "/metrics").expect(200).text();
    assert!(metrics.contains(&format!("keyhole_condition{{condition=\"{name}\"}} 1")), "{metrics}");
    assert!(admin_get(node, "/").expect(200).text().contains(reason), "the page shows the reason");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs a program that must succeed.
#[track_caller]
fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Returns the content of a directory, except sockets and locks.
fn contents(data: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = files_below(data);
    files.sort();
    files
}

#[test]
fn read_only_node_serves_reads_and_refuses_writes() {
    for io in ["uring", "epoll"] {
        let mut node = launch(io).start();
        fill(&node, 12);
        node.kill();
        let before = contents(node.data());
        node.set_launch(launch(io).arg("--read-only"));
        node.start();
        assert_reads_work(&node, 12);
        assert_writes_refused(&node, "the node was started with --read-only");
        assert_condition_reported(&node, "read-only", "the node was started with --read-only", 200);
        assert!(node.log().contains("start it without --read-only to write"));
        let data = text(node.data());
        let (_, message) = exits_with(1, &["status", data]);
        assert!(message.contains("read-only"), "{message}");
        assert_eq!(json(&["stat", data, "--json"])["objects"], 12);
        exits_with(0, &["scrub", data]);
        let (_, message) = exits_with(1, &["compact", data]);
        assert!(message.contains("read-only"), "{message}");
        let to = tempfile::tempdir().unwrap();
        exits_with(0, &["export", data, text(&to.path().join("export"))]);
        exits_with(0, &["verify", text(&to.path().join("export"))]);
        assert!(node.stop().success());
        assert!(contents(node.data()) == before, "the data directory is unchanged");
        node.set_launch(launch(io));
        node.start();
        assert_reads_work(&node, 12);
        node.send(&Request::new("PUT", "/bucket/0").body(body_of(0))).expect(200);
    }
}

#[test]
fn read_only_from_file_or_environment_creates_no_credential() {
    let mut node = launch("auto").start();
    fill(&node, 1);
    assert!(node.stop().success());
    node.set_launch(launch("auto").env("KEYHOLE_READ_ONLY", "true"));
    node.start();
    assert_writes_refused(&node, "--read-only");
    assert!(node.stop().success());
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("keyhole.toml");
    fs::write(&config, "read-only = true\n").unwrap();
    node.set_launch(launch("auto").arg("--config").arg(&config));
    node.start();
    assert_writes_refused(&node, "--read-only");
    assert!(node.stop().success());
    let (code, message) = Launch::default().capacity(None).arg("--read-only").refused_start(node.data());
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("KEYHOLE_ACCESS_KEY") && message.contains("--state DIR"), "{message}");
    assert!(!node.data().join("credentials.toml").exists());
    // The store does not exist.
    let (code, message) = launch("auto").arg("--read-only").refused_start(&home.path().join("absent"));
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("no store in") && !home.path().join("absent").exists(), "{message}");
}

#[test]
fn read_only_mount_is_served_read_only() {
    const TEST: &str = "read_only_mount_is_served_read_only";
    for (io, stops_cleanly) in [("uring", false), ("epoll", true)] {
        let volume = match Volume::new(256 << 20) {
            Ok(volume) => volume,
            Err(reason) => return skipped(TEST, &reason),
        };
        let data = volume.point().join("data");
        let mut node = launch(io).start_in(&data);
        fill(&node, 12);
        if stops_cleanly {
            assert!(node.stop().success());
        } else {
            node.kill();
        }
        run("mount", &["-o", "remount,ro", text(&volume.point())]);
        node.start();
        assert_reads_work(&node, 12);
        assert_writes_refused(&node, "mounted read-only");
        assert_condition_reported(&node, "read-only", "mounted read-only", 503);
        assert!(node.log().contains("repair the medium"));
        // A read-only mount has no control socket: commands read the store beside the node.
        assert_eq!(json(&["stat", text(&data), "--json"])["objects"], 12);
        let to = tempfile::tempdir().unwrap();
        exits_with(0, &["export", text(&data), text(&to.path().join("export"))]);
        exits_with(0, &["check", text(&data)]);
        assert!(node.stop().success());
        assert_eq!(json(&["stat", text(&data), "--json"])["objects"], 12);
        run("mount", &["-o", "remount,rw", text(&volume.point())]);
        node.start();
        assert_reads_work(&node, 12);
        node.send(&Request::new("PUT", "/bucket/0").body(body_of(0))).expect(200);
        assert!(node.stop().success());
    }
}

#[test]
fn failed_write_is_503_and_read_only_device_is_served_after_restart() {
    const TEST: &str = "failed_write_is_503_and_read_only_device_is_served_after_restart";
    for io in ["uring", "epoll"] {
        let device = match EmptyDevice::new(128 << 20) {
            Ok(device) => device,
            Err(reason) => return skipped(TEST, &reason),
        };
        let launch = || launch(io).capacity(None).arg("--state").arg(device.home().join("state"));
        let mut node = launch().arg("--format").start_in(device.path());
        fill(&node, 12);
        run("blockdev", &["--setro", text(device.path())]);
        // The outcome of the failed write is unknown; from then on writes are refused.
        node.send(&Request::new("PUT", "/bucket/lost").body(bytes(1, 100))).expect(500);
        assert_writes_refused(&node, "since a write to its disk failed");
        assert_reads_work(&node, 12);
        let condition_text = wait_for_condition(&node, "poisoned");
        assert!(condition_text.contains("at offset") && condition_text.contains("failed:"), "{condition_text}");
        assert_condition_reported(&node, "poisoned", "refuses writes", 503);
        let state = device.home().join("state");
        let state = text(&state);
        assert_eq!(json(&["stat", text(device.path()), "--state", state, "--json"])["objects"], 12);
        let to = tempfile::tempdir().unwrap();
        exits_with(0, &["export", text(device.path()), text(&to.path().join("export")), "--state", state]);
        node.stop();
        node.set_launch(launch());
        node.start();
        assert_reads_work(&node, 12);
        assert_writes_refused(&node, "the device is read-only");
        assert_condition_reported(&node, "read-only", "the device is read-only", 503);
        assert_eq!(json(&["stat", text(device.path()), "--state", state, "--json"])["objects"], 12);
        assert!(node.stop().success());
        run("blockdev", &["--setrw", text(device.path())]);
        node.start();
        node.send(&Request::new("PUT", "/bucket/12").body(body_of(12))).expect(200);
        assert_reads_work(&node, 13);
        assert!(node.stop().success());
    }
}

/// A device that has shrunk: the remaining data are served, and the lost objects are named.
#[test]
fn shrunk_device_serves_remaining_objects() {
    const TEST: &str = "shrunk_device_serves_remaining_objects";
    let home = tempfile::tempdir().unwrap();
    let image = home.path().join("image");
    File::create(&image).unwrap().set_len(128 << 20).unwrap();
    let device = match LoopDevice::attach(&image) {
        Ok(device) => device,
        Err(reason) => return skipped(TEST, &reason),
    };
    let state = home.path().join("state");
    let launch = || launch("auto").capacity(None).arg("--state").arg(&state);
    let mut node = launch().arg("--format").start_in(device.path());
    fill(&node, 4);
    exits_with(0, &["compact", text(device.path()), "--state", text(&state)]);
    for i in 4..60 {
        node.send(&Request::new("PUT", &format!("/bucket/{i}")).body(body_of(i))).expect(200);
    }
    assert!(node.stop().success());
    drop((node, device));
    OpenOptions::new().write(true).open(&image).unwrap().set_len(20 << 20).unwrap();
    let device = LoopDevice::attach(&image).unwrap();
    let node = launch().start_in(device.path());
    let read = (0..60).filter(|i| {
        let reply = node.send(&Request::new("GET", &format!("/bucket/{i}")));
        assert!(matches!(reply.status, 200 | 500), "{}", reply.text());
        reply.status == 200 && reply.body == body_of(*i)
    });
    let read: Vec<u64> = read.collect();
    assert!(read.len() >= 4 && read.len() < 60, "{read:?}");
    assert_writes_refused(&node, "there is no space to extend it");
    let export = |to: &str| {
        let to = home.path().join(to);
        let (_, message) = exits_with(4, &["export", text(device.path()), text(&to), "--state", text(&state)]);
        for i in 0..60 {
            let is_named = message.contains(&format!("bucket/{i}:"));
            assert_eq!(is_named, !read.contains(&i), "{i}: {message}");
        }
    };
    export("by-socket");
    assert_eq!(json(&["stat", text(device.path()), "--state", text(&state), "--json"])["objects"], 60);
    drop(node);
    export("offline");
    assert_eq!(json(&["stat", text(device.path()), "--state", text(&state), "--json"])["objects"], 60);
}

#[test]
fn start_with_missing_object_file_is_refused() {
    let mut node = launch("auto").start();
    fill(&node, 2);
    assert!(node.stop().success());
    let data = node.data().to_owned();
    let file = data.join("objects.keyhole");
    let aside = data.join("aside");
    fs::rename(&file, &aside).unwrap();
    let refused = |parts: &[&str]| {
        let (code, message) = launch("auto").refused_start(&data);
        assert_eq!(code, Some(1), "{message}");
        parts.iter().for_each(|part| assert!(message.contains(part), "{part} in {message}"));
    };
    refused(&["objects.keyhole is missing", "store.toml", "mount the disk"]);
    assert!(!file.exists());
    for command in ["stat", "check"] {
        let (_, message) = exits_with(1, &[command, text(&data)]);
        assert!(message.contains("mount the disk"), "{message}");
    }
    // Another store in its place.
    let mut other = launch("auto").start();
    assert!(other.stop().success());
    fs::copy(other.data().join("objects.keyhole"), &file).unwrap();
    refused(&["names store", "right disk", "remove"]);
    exits_with(0, &["stat", text(&data)]);
    fs::rename(&aside, &file).unwrap();
    node.start();
    assert_reads_work(&node, 2);
    assert!(node.stop().success());
    // A store of an earlier version.
    fs::remove_file(data.join("store.toml")).unwrap();
    node.start();
    assert!(data.join("store.toml").exists());
}

#[test]
fn object_file_removed_at_run_time_is_reported() {
    let mut node = launch("auto").start();
    fill(&node, 4);
    let file = node.data().join("objects.keyhole");
    let aside = node.data().join("aside");
    fs::rename(&file, &aside).unwrap();
    let message = wait_for_condition(&node, "store-absent");
    assert!(message.contains("objects.keyhole is gone") && message.contains("Export the store"), "{message}");
    assert_eq!(admin_get(&node, "/health/ready").status, 503);
    assert!(node.log().contains("objects.keyhole is gone"));
    assert_reads_work(&node, 4);
    let to = tempfile::tempdir().unwrap();
    exits_with(0, &["export", text(node.data()), text(&to.path().join("export"))]);
    fs::rename(&aside, &file).unwrap();
    let deadline = Instant::now() + TIMEOUT;
    while condition(&node, "store-absent").is_some() {
        assert!(Instant::now() < deadline, "the condition does not end in time");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(node.stop().success());
}
