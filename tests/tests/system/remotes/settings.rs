//! Remotes as the operator manages them, with a second node as the S3 service.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use keyhole_tests::command::{Directory, expect_failure, expect_success};
use keyhole_tests::node::{ACCESS_KEY, SECRET_KEY};
use keyhole_tests::tls::Certificate;
use keyhole_tests::{Launch, Node};
use serde_json::{Value, json};

use super::{Credentials, credentials, valid_credentials};

/// Returns the arguments that add a remote to a store.
fn add<'a>(data: &'a str, name: &'a str, url: &'a str, credentials: &'a Credentials) -> Vec<&'a str> {
    let place = ["remote", "add", data, name, "--url", url, "--bucket", "bucket", "--credentials", &credentials.path];
    [&place[..], &["--source", "photos/2026/*", "--source", "films", "--mode", "mirror"]].concat()
}

fn list(data: &str) -> Value {
    serde_json::from_slice(&expect_success(&["remote", "list", data, "--json"], b"")).unwrap()
}

/// Fails unless the command refuses, and its message has these words.
#[track_caller]
fn expect_refusal(code: i32, arguments: &[&str], words: &[&str]) {
    let (_, stderr) = expect_failure(code, arguments, b"");
    assert!(words.iter().all(|word| stderr.contains(word)), "{words:?}: {stderr}");
    assert!(!stderr.contains(SECRET_KEY), "{stderr}");
}

#[test]
fn remote_is_added_listed_paused_and_removed() {
    let service = Node::with_bucket();
    let url = service.endpoint();
    let credentials = valid_credentials();
    let mut node = Node::new();
    let data = node.data().to_str().unwrap().to_owned();
    // With a running node, and again without one.
    for is_running in [true, false] {
        let mut reloads = 0;
        let mut expect_reload = |node: &Node| {
            reloads += 1;
            if is_running {
                node.wait_for_log("reloaded the remotes", reloads);
            }
        };
        if !is_running {
            node.stop();
        }
        let limits = ["--prefix", "site-1/", "--region", "us-east-1", "--rate", "10MB/s", "--window", "22:00-06:00"];
        expect_success(&[&add(&data, "first", &url, &credentials)[..], &limits].concat(), b"");
        expect_reload(&node);
        let listed = list(&data);
        let expected = json!([{
            "name": "first", "url": url, "bucket": "bucket", "prefix": "site-1", "region": "us-east-1",
            "credentials": credentials.path, "source": ["photos/2026/*", "films"], "mode": "mirror",
            "plaintext": "skip", "rate": 10_000_000, "window": "22:00-06:00",
        }]);
        assert_eq!(listed, expected);
        let table = String::from_utf8(expect_success(&["remote", "list", &data], b"")).unwrap();
        for word in ["first", &url, "bucket/site-1", "photos/2026/*", "films", "/s", "22:00-06:00 UTC", "active"] {
            assert!(table.contains(word), "{word}: {table}");
        }
        let file = node.data().join("remotes.json");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

        expect_success(&["remote", "pause", &data, "first"], b"");
        expect_reload(&node);
        assert_eq!(list(&data)[0]["paused"], true);
        expect_success(&["remote", "resume", &data, "first"], b"");
        expect_reload(&node);
        assert_eq!(list(&data)[0].get("paused"), None);

        let second = [&add(&data, "second", &url, &credentials)[..], &["--prefix", "site-1/a"]].concat();
        expect_refusal(1, &second, &["`first` and `second`", "--prefix"]);
        expect_refusal(1, &add(&data, "first", "https://other.example", &credentials), &["duplicate remote `first`"]);
        expect_refusal(1, &["remote", "pause", &data, "other"], &["no remote `other`: expected one of first"]);
        expect_success(&["remote", "remove", &data, "first"], b"");
        expect_reload(&node);
        assert_eq!(list(&data), json!([]));
        expect_refusal(1, &["remote", "remove", &data, "first"], &["no remote `first`: the store has no remotes"]);
    }
}

#[test]
fn connection_is_checked_before_remote_is_added() {
    let service = Node::with_bucket();
    let url = service.endpoint();
    let mut node = Node::new();
    node.stop();
    let data = node.data().to_str().unwrap().to_owned();
    let valid = valid_credentials();
    let wrong_secret = credentials(ACCESS_KEY, "another-secret-for-tests");
    expect_refusal(1, &add(&data, "a", &url, &wrong_secret), &["SignatureDoesNotMatch", &url, "--no-check"]);
    let unknown = credentials("UNKNOWNKEY", SECRET_KEY);
    expect_refusal(1, &add(&data, "a", &url, &unknown), &["InvalidAccessKeyId"]);
    let elsewhere = [&add(&data, "a", &url, &valid)[..], &["--region", "eu-west-1"]].concat();
    expect_refusal(1, &elsewhere, &["AuthorizationHeaderMalformed", "us-east-1"]);
    let mut no_bucket = add(&data, "a", &url, &valid);
    no_bucket[7] = "absent";
    expect_refusal(1, &no_bucket, &["NoSuchBucket", "`absent`"]);
    let absent = Credentials { path: valid.directory.path("absent"), directory: Directory::new() };
    expect_refusal(1, &add(&data, "a", &url, &absent), &["cannot read the credentials file", &absent.path]);
    let wrong_tls = url.replace("http://", "https://");
    expect_refusal(1, &add(&data, "a", &wrong_tls, &valid), &["cannot connect"]);
    fs::set_permissions(&valid.path, Permissions::from_mode(0o644)).unwrap();
    expect_refusal(1, &add(&data, "a", &url, &valid), &["mode 644", "chmod 600"]);
    assert_eq!(list(&data), json!([]));

    drop(service);
    fs::set_permissions(&valid.path, Permissions::from_mode(0o600)).unwrap();
    expect_refusal(1, &add(&data, "a", &url, &valid), &["cannot connect", &url]);
    expect_success(&[&add(&data, "a", &url, &valid)[..], &["--no-check"]].concat(), b"");
    assert_eq!(list(&data)[0]["name"], "a");
}

#[test]
fn service_with_tls_must_be_trusted() {
    let certificate = Certificate::new();
    let service = certificate.launch("127.0.0.1:0").start();
    service.make_bucket("bucket");
    let url = format!("https://{}", service.tls_address());
    let node = Node::new();
    let data = node.data().to_str().unwrap();
    let credentials = valid_credentials();
    let add_with = |ca: &str| [&add(data, "a", &url, &credentials)[..], &["--ca", ca]].concat().join("\n");
    let right = certificate.authority_path().to_str().unwrap().to_owned();
    let other = Certificate::new();
    let wrong = add_with(other.authority_path().to_str().unwrap());
    expect_refusal(1, &wrong.lines().collect::<Vec<_>>(), &["certificate", "--ca"]);
    let key = add_with(certificate.key_path().to_str().unwrap());
    expect_refusal(1, &key.lines().collect::<Vec<_>>(), &["no certificate in"]);
    expect_success(&add_with(&right).lines().collect::<Vec<_>>(), b"");
    assert_eq!(list(data)[0]["ca"], right);
}

#[test]
fn invalid_options_are_refused() {
    let mut node = Node::new();
    node.stop();
    let data = node.data().to_str().unwrap();
    let credentials = valid_credentials();
    let valid = add(data, "a", "https://s3.example", &credentials);
    for (option, value, words) in [
        ("--prefix", "a//b", "invalid prefix"),
        ("--region", "a b", "invalid region"),
        ("--source", "a*b", "invalid source"),
        ("--rate", "0", "expected a rate"),
        ("--window", "22:00", "invalid window"),
        ("--plaintext", "maybe", "possible values"),
    ] {
        expect_refusal(2, &[&valid[..], &[option, value]].concat(), &[words]);
    }
    expect_refusal(2, &add(data, "A", "https://s3.example", &credentials), &["invalid name `A`"]);
    expect_refusal(2, &add(data, "a", "https://s3.example/path", &credentials), &["invalid URL"]);
    expect_refusal(2, &add(data, "a", "http://s3.example", &credentials), &["not encrypted", "--insecure-http"]);
    let insecure = add(data, "a", "http://s3.example", &credentials);
    expect_success(&[&insecure[..], &["--insecure-http", "--no-check"]].concat(), b"");
    let missing = Directory::new().path("missing");
    expect_refusal(1, &["remote", "list", &missing], &[&missing]);
}

#[test]
fn node_keeps_remotes_if_file_is_invalid() {
    let mut node = Node::new();
    let data = node.data().to_owned();
    let file = data.join("remotes.json");
    fs::write(&file, "{\"remotes\": []}").unwrap();
    node.reload();
    node.wait_for_log("reloaded the remotes remotes=0", 1);
    fs::write(&file, "{\"remotes\": [").unwrap();
    node.reload();
    node.wait_for_log("cannot reload the remotes", 1);
    node.stop();
    let (code, output) = Launch::default().with_credential().refused_start(&data);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("invalid remotes file") && output.contains("remotes.json"), "{output}");
}
