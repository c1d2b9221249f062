//! Tiering: a store that holds more than its capacity, because a remote has the rest.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use keyhole_tests::command::{Directory, expect_failure, expect_success};
use keyhole_tests::data::bytes;
use keyhole_tests::node::{ACCESS_KEY, SECRET_KEY};
use keyhole_tests::{CustomerKey, Launch, Node, Request};
use serde_json::Value;

/// Length of most objects.
const LEN: usize = 8 << 20;

/// Timeout for shipping and evicting.
const PATIENCE: Duration = Duration::from_secs(120);

/// A small node whose remote is another node.
struct Tiered {
    node: Node,
    service: Node,
    key: CustomerKey,
    _directory: Directory,
}

fn start(capacity: &str) -> Tiered {
    let service = Node::with_bucket();
    let node = Launch::default().with_credential().capacity(Some(capacity)).start();
    node.make_bucket("tiered");
    let directory = Directory::new();
    let credentials = directory.path("credentials");
    let text = format!("[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n");
    fs::write(&credentials, text).unwrap();
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o600)).unwrap();
    let url = service.endpoint();
    let place = ["--url", &url, "--bucket", "bucket", "--prefix", "box", "--credentials", &credentials];
    let add = ["remote", "add", data(&node), "vault", "--source", "*", "--mode", "tier"];
    expect_success(&[&add[..], &place].concat(), b"");
    Tiered { node, service, key: CustomerKey::random(), _directory: directory }
}

fn data(node: &Node) -> &str {
    node.data().to_str().unwrap()
}

impl Tiered {
    fn request(&self, method: &str, name: &str) -> Request {
        Request::new(method, &format!("/tiered/{name}")).headers(self.key.headers())
    }

    /// Stores an object; a full store makes room meanwhile.
    fn put(&self, name: &str, body: &[u8]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let response = self.node.send(&self.request("PUT", name).body(body));
            if response.status == 200 {
                return;
            }
            assert!(response.status == 503 && response.header("retry-after").is_some(), "{}", response.text());
            assert!(Instant::now() < deadline, "the store makes no room: {}", response.text());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn stat(&self) -> Value {
        serde_json::from_slice(&expect_success(&["stat", data(&self.node), "--json"], b"")).unwrap()
    }

    fn remote(&self) -> Value {
        let all: Value =
            serde_json::from_slice(&expect_success(&["remote", "status", data(&self.node), "--json"], b"")).unwrap();
        all[0].clone()
    }

    /// Waits until nothing is owed and the store is below the level at which it evicts.
    fn settle(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let remote = self.remote();
            let stat = self.stat();
            let number = |field: &str| stat[field].as_u64().unwrap();
            let is_full = number("live") > number("capacity") / 100 * 70;
            if remote["state"] == "idle" && remote["owed"] == 0 && !is_full {
                return;
            }
            assert!(Instant::now() < deadline, "{remote} {stat}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Returns the name of an object that is evicted: the oldest ones are first.
    fn is_evicted(&self, name: &str) -> bool {
        let path = format!("/bucket/box/tiered/{name}");
        // The node reads an evicted object from the service only.
        let before = self.service_log().matches(&path).count();
        self.node.send(&self.request("GET", name).header("range", "bytes=0-0")).expect(206);
        self.service_log().matches(&path).count() > before
    }

    fn service_log(&self) -> String {
        self.service.log()
    }
}

fn content(index: usize) -> Vec<u8> {
    bytes(index as u64, LEN + index)
}

#[test]
fn small_store_serves_more_than_its_capacity() {
    let mut tiered = start("256MiB");
    let count = 40;
    for index in 0..count {
        tiered.put(&index.to_string(), &content(index));
    }
    tiered.settle();
    let evicted = tiered.stat()["evicted"].as_u64().unwrap();
    assert!((10..count as u64).contains(&evicted), "{evicted}");
    let check = |tiered: &Tiered| {
        for index in 0..count {
            let content = content(index);
            let name = index.to_string();
            assert!(tiered.node.send(&tiered.request("GET", &name)).expect(200).body == content, "{name}");
            for (start, end) in [(0, 1), (100_000, 5_000_000), (LEN - 1, LEN)] {
                let range = tiered.request("GET", &name).header("range", format!("bytes={start}-{}", end - 1));
                assert!(tiered.node.send(&range).expect(206).body == content[start..end], "{name}");
            }
        }
    };
    check(&tiered);
    expect_success(&["remote", "verify", data(&tiered.node), "vault"], b"");
    tiered.node.kill();
    tiered.node.start();
    check(&tiered);
    // An export is complete, although the store does not have the bytes.
    let directory = Directory::new();
    let export = directory.path("export");
    expect_success(&["export", data(&tiered.node), &export], b"");
    expect_success(&["verify", &export], b"");
    assert!(files(Path::new(&export)) > count, "a file of each object, and the manifest");
    // The bytes would be lost.
    let (_, stderr) = expect_failure(1, &["remote", "remove", data(&tiered.node), "vault"], b"");
    assert!(stderr.contains("only in remotes"), "{stderr}");
    tiered.node.stop();
    expect_success(&["check", data(&tiered.node)], b"");
}

fn files(path: &Path) -> usize {
    keyhole_tests::data::files_below(path).len()
}

#[test]
fn remote_that_is_away_delays_evicted_objects_only() {
    let mut tiered = start("256MiB");
    for index in 0..30 {
        tiered.put(&index.to_string(), &content(index));
    }
    tiered.put("tiny", b"tiny");
    tiered.settle();
    tiered.service.kill();
    let oldest = tiered.node.send(&tiered.request("GET", "0")).expect(503);
    assert!(oldest.header("retry-after").is_some() && oldest.text().contains("SlowDown"), "{}", oldest.text());
    tiered.node.send(&tiered.request("HEAD", "0")).expect(200);
    assert!(tiered.node.send(&tiered.request("GET", "29")).expect(200).body == content(29));
    assert_eq!(tiered.node.send(&tiered.request("GET", "tiny")).expect(200).body, b"tiny");
    let listing = tiered.node.send(&Request::new("GET", "/tiered").query("list-type", "2")).expect(200).text();
    assert!(listing.contains("<KeyCount>31</KeyCount>"), "{listing}");
    tiered.put("later", b"later");
    tiered.node.send(&Request::new("DELETE", "/tiered/1")).expect(204);
}

#[test]
fn altered_file_in_the_remote_is_refused_and_named() {
    let tiered = start("256MiB");
    for index in 0..30 {
        tiered.put(&index.to_string(), &content(index));
    }
    tiered.settle();
    assert!(tiered.is_evicted("0") || tiered.stat()["evicted"].as_u64() > Some(2));
    // The bytes of one object and the metadata of another.
    let name = |index: usize| Request::new("GET", &format!("/bucket/box/tiered/{index}"));
    let other = tiered.service.send(&name(1)).expect(200);
    let fields = other.headers.iter().filter(|(name, _)| name.starts_with("x-amz-meta-")).cloned();
    let fields: Vec<(String, String)> = fields.collect();
    let mut body = tiered.service.send(&name(0)).expect(200).body;
    let put = |index: usize, fields: Vec<(String, String)>, body: Vec<u8>| {
        let request = Request::new("PUT", &format!("/bucket/box/tiered/{index}")).headers(fields);
        tiered.service.send(&request.body(body)).expect(200);
    };
    let own = tiered.service.send(&name(0)).expect(200);
    let own: Vec<_> = own.headers.into_iter().filter(|(name, _)| name.starts_with("x-amz-meta-")).collect();
    put(0, fields, body.clone());
    let refused = tiered.node.send(&tiered.request("GET", "0")).expect(400);
    assert!(refused.text().contains("does not authenticate"), "{}", refused.text());
    assert!(
        tiered.node.log().contains("box/tiered/0") || tiered.node.log().contains("tiered/0"),
        "{}",
        tiered.node.log()
    );
    // A byte in the middle: the connection ends before it.
    let middle = body.len() / 2;
    body[middle] ^= 1;
    put(0, own, body);
    let request = tiered.request("GET", "0").signed(tiered.node.address(), tiered.node.signer());
    let response = request.try_send_unsigned(tiered.node.address());
    let is_refused = response.as_ref().is_err() || response.as_ref().is_ok_and(|response| !response.is_complete);
    assert!(is_refused, "{response:?}");
    let range = |start: usize| tiered.request("GET", "0").header("range", format!("bytes={start}-{}", start + 999));
    assert!(tiered.node.send(&range(0)).expect(206).body == content(0)[..1000], "undamaged chunks are served");
}

/// Five times the capacity, in larger objects.
#[test]
#[ignore = "stores gigabytes; tests/run --long runs it"]
fn store_of_a_gigabyte_holds_five() {
    let tiered = start("1GiB");
    let len = 40 << 20;
    let count = 128;
    let content = |index: usize| bytes(index as u64, len);
    let begun = Instant::now();
    for index in 0..count {
        tiered.put(&index.to_string(), &content(index));
    }
    tiered.settle();
    let evicted = tiered.stat()["evicted_bytes"].as_u64().unwrap();
    println!("stored {} GiB in {:?}, {} MiB evicted", (count * len) >> 30, begun.elapsed(), evicted >> 20);
    assert!(evicted >= 4 << 30, "{evicted}");
    let begun = Instant::now();
    for index in 0..count {
        let name = index.to_string();
        let content = content(index);
        assert!(tiered.node.send(&tiered.request("GET", &name)).expect(200).body == content, "{name}");
        let start = (index * 314_159) % (len - 100_000);
        let range = tiered.request("GET", &name).header("range", format!("bytes={start}-{}", start + 99_999));
        assert!(tiered.node.send(&range).expect(206).body == content[start..start + 100_000], "{name}");
    }
    println!("read in {:?}", begun.elapsed());
}
