//! Services that fail, refuse or change, and the options that limit what is shipped.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use keyhole_tests::command::expect_success;
use keyhole_tests::data::bytes;
use keyhole_tests::node::{ACCESS_KEY, SECRET_KEY};
use keyhole_tests::{Node, Request};
use serde_json::json;

use super::{
    QUIET, Remote, conditions, free_address, launch, metrics, names_in, text, verify, wait_for, wait_for_state,
    wait_until_shipped,
};
use crate::operate::damage;

/// A node with a bucket `data`, and a second one as the service.
fn pair() -> (Node, Remote, Node) {
    let service = launch().listen(&free_address()).start();
    service.make_bucket("bucket");
    let remote = Remote::new(&service.endpoint());
    let node = launch().start();
    node.make_bucket("data");
    (service, remote, node)
}

fn put(node: &Node, name: &str) {
    node.send(&Request::new("PUT", &format!("/data/{name}")).body(name)).expect(200);
}

fn delete(node: &Node, name: &str) {
    node.send(&Request::new("DELETE", &format!("/data/{name}"))).expect(204);
}

fn remote_command(node: &Node, command: &str) {
    expect_success(&["remote", command, text(node.data()), "vault"], b"");
}

/// Waits until the remote is failing, and checks the reason and everything that shows it.
#[track_caller]
fn expect_failing(node: &Node, why: &str) {
    let failing = wait_for(node, "failing", |status| {
        status["state"] == "failing" && status["failure"].as_str().is_some_and(|failure| failure.contains(why))
    });
    assert!(failing["retry_ms"].is_u64(), "{failing}");
    assert!(conditions(node).contains(&"remote-failing".to_owned()), "{:?}", conditions(node));
    let shown = metrics(node);
    assert!(shown.contains("keyhole_remote_up{remote=\"vault\"} 0\n"), "{shown}");
    assert!(shown.contains("keyhole_condition{condition=\"remote-failing\"} 1\n"), "{shown}");
}

/// Waits until everything is shipped, and checks that nothing is wrong.
#[track_caller]
fn expect_recovery(node: &Node) {
    wait_until_shipped(node);
    assert_eq!(conditions(node), [""; 0]);
    assert!(metrics(node).contains("keyhole_remote_up{remote=\"vault\"} 1\n"));
    verify(node, 0);
}

#[test]
fn service_that_is_down_delays_no_request() {
    let (mut service, remote, mut node) = pair();
    remote.add(&node, &["--plaintext", "allow"]);
    put(&node, "before");
    wait_until_shipped(&node);
    service.kill();
    put(&node, "meanwhile");
    expect_failing(&node, "cannot connect");
    let begun = std::time::Instant::now();
    for number in 0..200 {
        put(&node, &format!("more-{number}"));
        node.send(&Request::new("GET", &format!("/data/more-{number}"))).expect(200);
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    delete(&node, "before");
    // The node also starts without the service.
    node.kill();
    node.start();
    expect_failing(&node, "cannot connect");
    service.start();
    expect_recovery(&node);
    assert!(!names_in(&service, &remote).contains(&"data/before".to_owned()));
    assert_eq!(node.log().matches("a remote accepts objects again").count(), 1, "{}", node.log());
}

#[test]
fn changed_credentials_are_reloaded() {
    let (_service, remote, mut node) = pair();
    remote.add(&node, &["--plaintext", "allow"]);
    put(&node, "first");
    wait_until_shipped(&node);
    remote.credentials.write(ACCESS_KEY, "another-secret-for-tests");
    node.kill();
    node.start();
    expect_failing(&node, "SignatureDoesNotMatch");
    put(&node, "second");
    std::fs::remove_file(&remote.credentials.path).unwrap();
    node.reload();
    expect_failing(&node, "credentials file");
    remote.credentials.write(ACCESS_KEY, SECRET_KEY);
    node.reload();
    expect_recovery(&node);
    assert!(!node.log().contains(SECRET_KEY) && !node.log().contains("another-secret"));
}

#[test]
fn deleted_bucket_is_filled_again() {
    let (service, remote, node) = pair();
    remote.add(&node, &["--plaintext", "allow"]);
    ["a", "b"].iter().for_each(|name| put(&node, name));
    wait_until_shipped(&node);
    for name in names_in(&service, &remote) {
        service.send(&Request::new("DELETE", &format!("/bucket/{}/{name}", remote.prefix))).expect(204);
    }
    service.send(&Request::new("DELETE", "/bucket")).expect(204);
    put(&node, "c");
    expect_failing(&node, "NoSuchBucket");
    service.make_bucket("bucket");
    expect_recovery(&node);
}

#[test]
fn prefix_of_another_store_is_refused_or_taken_over() {
    let (service, remote, node) = pair();
    let other = launch().start();
    other.make_bucket("data");
    ["shared", "of-the-other"].iter().for_each(|name| put(&other, name));
    remote.add(&other, &["--plaintext", "allow"]);
    wait_until_shipped(&other);
    put(&node, "shared");
    put(&node, "own");
    remote.add(&node, &["--plaintext", "allow"]);
    expect_failing(&node, "--take-over");
    verify(&other, 0);
    remote_command(&node, "remove");
    remote.add(&node, &["--plaintext", "allow", "--take-over"]);
    expect_recovery(&node);
    // Objects that only the other store has stay, until it is certain that they are not needed.
    let mut names = names_in(&service, &remote);
    names.sort();
    assert_eq!(names, [".keyhole", "data/.bucket", "data/of-the-other", "data/own", "data/shared"]);
    // The other node notices at its next change.
    put(&other, "more");
    expect_failing(&other, "--take-over");
    assert!(!names_in(&service, &remote).contains(&"data/more".to_owned()));
    verify(&node, 0);
}

#[test]
fn paused_and_removed_remotes_receive_nothing() {
    let (service, remote, node) = pair();
    remote.add(&node, &["--plaintext", "allow"]);
    put(&node, "first");
    put(&node, "deleted");
    wait_until_shipped(&node);
    remote_command(&node, "pause");
    wait_for_state(&node, "paused");
    assert!(!metrics(&node).contains("keyhole_remote_up{"), "absent while it is paused");
    put(&node, "second");
    delete(&node, "deleted");
    thread::sleep(QUIET);
    let names = names_in(&service, &remote);
    assert!(!names.contains(&"data/second".to_owned()) && names.contains(&"data/deleted".to_owned()), "{names:?}");
    remote_command(&node, "resume");
    expect_recovery(&node);

    remote_command(&node, "remove");
    wait_for(&node, "removed", |status| status.is_null());
    put(&node, "third");
    thread::sleep(QUIET);
    assert!(!names_in(&service, &remote).contains(&"data/third".to_owned()));
    let files = std::fs::read_dir(node.data()).unwrap().map(|entry| entry.unwrap().file_name());
    let files: Vec<String> = files.map(|name| name.to_string_lossy().into_owned()).collect();
    assert!(!files.iter().any(|name| name.contains("vault")), "its progress is removed: {files:?}");
    // Added again, it receives what it lacks.
    remote.add(&node, &["--plaintext", "allow"]);
    expect_recovery(&node);
}

#[test]
fn deleted_objects_are_kept_on_request() {
    let (service, remote, mut node) = pair();
    remote.add(&node, &["--plaintext", "allow", "--keep-deleted"]);
    ["kept", "overwritten", "kept-after-restart"].iter().for_each(|name| put(&node, name));
    wait_until_shipped(&node);
    delete(&node, "kept");
    wait_until_shipped(&node);
    node.kill();
    node.start();
    delete(&node, "kept-after-restart");
    node.send(&Request::new("PUT", "/data/overwritten").body("new")).expect(200);
    let shipped = wait_until_shipped(&node);
    assert_eq!(shipped["deleted"], 0, "{shipped}");
    let names = names_in(&service, &remote);
    for name in ["kept", "kept-after-restart", "overwritten"] {
        assert!(names.contains(&format!("data/{name}")), "{names:?}");
    }
    let overwritten = service.send(&Request::new("GET", "/bucket/site/1/data/overwritten")).expect(200);
    assert_eq!(overwritten.text(), "new");
}

#[test]
fn sources_and_plaintext_limit_the_objects() {
    let (service, remote, node) = pair();
    ["other", "data-2"].iter().for_each(|bucket| node.make_bucket(bucket));
    for path in ["/data/2026/a", "/data/2025/a", "/other/a", "/data-2/a"] {
        node.send(&Request::new("PUT", path).headers(keyhole_tests::CustomerKey([7; 32]).headers()).body("x"))
            .expect(200);
        node.send(&Request::new("PUT", &format!("{path}-plain")).body("x")).expect(200);
    }
    let service_options = remote.service();
    let sources = ["--source", "data/2026/*", "--source", "other", "--mode", "mirror"];
    let adding = [&["remote", "add", text(node.data()), "vault"][..], &service_options, &sources].concat();
    expect_success(&adding, b"");
    expect_recovery(&node);
    let mut names = names_in(&service, &remote);
    names.sort();
    assert_eq!(names, [".keyhole", "data/.bucket", "data/2026/a", "other/.bucket", "other/a"]);
}

#[test]
fn remote_waits_outside_its_window() {
    let (service, remote, node) = pair();
    let hour = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 3600 % 24;
    let window = |from: u64, to: u64| format!("{:02}:00-{:02}:00", (hour + from) % 24, (hour + to) % 24);
    remote.add(&node, &["--plaintext", "allow", "--window", &window(2, 5)]);
    put(&node, "first");
    wait_for_state(&node, "waiting");
    thread::sleep(QUIET);
    wait_for_state(&node, "waiting");
    assert_eq!(names_in(&service, &remote), [""; 0]);
    assert_eq!(conditions(&node), [""; 0], "waiting is not a problem");
    remote_command(&node, "remove");
    remote.add(&node, &["--plaintext", "allow", "--window", &window(0, 3)]);
    expect_recovery(&node);
}

#[test]
fn rate_limits_the_bytes_per_second() {
    let (_service, remote, node) = pair();
    for number in 0..12 {
        node.send(&Request::new("PUT", &format!("/data/{number}")).body(bytes(number, 500_000))).expect(200);
    }
    let begun = std::time::Instant::now();
    remote.add(&node, &["--plaintext", "allow", "--rate", "1MB/s"]);
    wait_until_shipped(&node);
    let took = begun.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(20)).contains(&took), "6 MB at 1 MB/s took {took:?}");
}

#[test]
fn refused_and_damaged_objects_become_exceptions() {
    let (service, remote, node) = pair();
    let body = bytes(1, 1 << 20);
    node.send(&Request::new("PUT", "/data/damaged").body(body.clone())).expect(200);
    put(&node, "intact");
    damage(&node.data().join("objects.keyhole"), &body);
    remote.add(&node, &["--plaintext", "allow"]);
    let shipped = wait_until_shipped(&node);
    let exceptions = &shipped["exceptions"];
    assert_eq!(exceptions.as_array().unwrap().len(), 1, "{exceptions}");
    assert_eq!((&exceptions[0]["bucket"], &exceptions[0]["key"]), (&"data".into(), &"damaged".into()), "{exceptions}");
    assert!(conditions(&node).contains(&"remote-incomplete".to_owned()), "{:?}", conditions(&node));
    assert!(metrics(&node).contains("keyhole_remote_exceptions{remote=\"vault\"} 1\n"));
    let shown = String::from_utf8(expect_success(&["remote", "status", text(node.data())], b"")).unwrap();
    assert!(shown.contains("! vault: not shipped: data/damaged"), "{shown}");
    delete(&node, "damaged");
    remote_command(&node, "pause");
    remote_command(&node, "resume");
    let shipped = wait_until_shipped(&node);
    assert_eq!(shipped["exceptions"], json!([]));

    // The service refuses all objects that have no customer key.
    expect_success(&["bucket", "set", text(service.data()), "bucket", "--sse-c", "require"], b"");
    put(&node, "refused");
    expect_failing(&node, "AccessDenied");
    expect_success(&["bucket", "set", text(service.data()), "bucket", "--sse-c", "allow"], b"");
    expect_recovery(&node);
}
