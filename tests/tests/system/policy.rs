//! Customer key policies of a bucket, set by its operator or through S3. The tables of all writes are
//! in `crates/keyhole-node/tests/tables/policy.rs` and `guard.rs`.

use std::sync::atomic::{AtomicBool, Ordering};

use keyhole_tests::command::{Directory, expect_failure, expect_success};
use keyhole_tests::http::object;
use keyhole_tests::{CustomerKey, Launch, Node, Request, Response};

fn keyed(method: &str, name: &str, key: &CustomerKey) -> Request {
    object(method, name).headers(key.headers())
}

fn node() -> Node {
    let node = Launch::default().with_credential().capacity(Some("256MiB")).start();
    node.make_bucket("bucket");
    node
}

fn set(node: &Node, options: &[&str]) -> String {
    let data = node.data().to_str().unwrap().to_owned();
    String::from_utf8(expect_success(&[&["bucket", "set", &data, "bucket"], options].concat(), b"")).unwrap()
}

#[track_caller]
fn assert_denied(reply: &Response, words: &str) {
    assert_eq!((reply.status, reply.element("Code").as_deref()), (403, Some("AccessDenied")), "{}", reply.text());
    assert!(reply.text().contains(words), "{}", reply.text());
}

#[test]
fn sse_c_setting_takes_effect_and_survives_restart() {
    let mut node = node();
    let key = CustomerKey::random();
    assert!(set(&node, &["--sse-c", "forbid"]).contains("sse-c: forbid\n"));
    assert_denied(&node.send(&keyed("PUT", "o", &key).body("x")), "has blocked");
    node.send(&object("PUT", "o").body("x")).expect(200);
    node.kill();
    node.start();
    assert_denied(&node.send(&keyed("PUT", "o", &key).body("x")), "has blocked");
    set(&node, &["--sse-c", "require"]);
    assert_denied(&node.send(&object("PUT", "o").body("x")), "requires customer-provided keys");
    node.send(&keyed("PUT", "o", &key).body("x")).expect(200);
    set(&node, &["--sse-c", "allow"]);
    node.send(&object("PUT", "o").body("x")).expect(200);
    node.send(&keyed("PUT", "o", &key).body("x")).expect(200);
}

#[test]
fn writes_with_unpinned_key_are_denied() {
    let node = node();
    let directory = Directory::new();
    let path = directory.key("key");
    let other = CustomerKey::random();
    let key = CustomerKey(std::fs::read(&path).unwrap().try_into().unwrap());
    let id = |bucket: &str| String::from_utf8(expect_success(&["key", "id", &path, "--bucket", bucket], b"")).unwrap();
    let id_here = id("bucket").trim().to_owned();
    assert!(id_here.len() == 32 && id("other").trim() != id_here);
    let shown = set(&node, &["--pin", &id_here, "--pin", &"0".repeat(32)]);
    assert!(shown.contains(&format!("pin: {id_here}, {}\n", "0".repeat(32))), "{shown}");
    let pinned = |request: Request| {
        let reply = node.send(&request);
        assert_denied(&reply, "other customer-provided keys");
        assert!(!reply.text().contains(&id_here), "the reply names no key");
    };
    pinned(keyed("PUT", "o", &other).body("x"));
    pinned(keyed("POST", "o", &other).query("uploads", ""));
    node.send(&keyed("PUT", "o", &key).body("x")).expect(200);
    node.send(&object("PUT", "plain").body("x")).expect(200);
    pinned(keyed("PUT", "copy", &other).header("x-amz-copy-source", "bucket/plain"));
    let sealed = expect_success(&["seal", "--key", &path, "--bucket", "bucket", "--name", "o"], b"sealed");
    let put = object("PUT", "o").header("x-keyhole-sealed", "1").body(sealed);
    assert_denied(&node.send(&put), "cannot be checked");

    let data = node.data().to_str().unwrap();
    let wrong =
        |options: &[&str], code| expect_failure(code, &[&["bucket", "set", data, "bucket"], options].concat(), b"").1;
    assert!(wrong(&["--pin", "xyz"], 1).contains("32 hex digits"));
    assert!(wrong(&["--pin", "none", "--pin", &id_here], 2).contains("cannot be combined"));
    assert!(wrong(&[], 2).contains("--sse-c"));
    let many: Vec<String> = (0..65).map(|i| format!("{i:032x}")).collect();
    let pins = |count: usize| many[..count].iter().flat_map(|id| ["--pin", id]).collect::<Vec<_>>();
    assert!(wrong(&pins(65), 1).contains("at most 64"));
    set(&node, &pins(64));
    set(&node, &["--pin", "none"]);
    node.send(&keyed("PUT", "o", &other).body("x")).expect(200);
    node.send(&put).expect(200);
}

#[test]
fn overwrite_with_another_key_requires_old_key() {
    let node = node();
    let old = CustomerKey::random();
    let new = CustomerKey::random();
    node.send(&keyed("PUT", "o", &old).body("first")).expect(200);
    set(&node, &["--rekey-by-overwrite", "forbid"]);
    let over = keyed("PUT", "o", &new).body("second");
    assert_denied(&node.send(&over), "forbids to overwrite");
    assert_eq!(node.send(&keyed("GET", "o", &old)).expect(200).text(), "first");
    node.send(&over.headers(old.copy_source_headers())).expect(200);
    assert_eq!(node.send(&keyed("GET", "o", &new)).expect(200).text(), "second");
}

/// Stops the threads of a test on drop: a failed test would otherwise wait for them.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Concurrent changes through S3 and by the operator.
#[test]
fn concurrent_bucket_changes_are_all_kept() {
    let node = node();
    let document = |kind: &str| {
        format!(
            "<ServerSideEncryptionConfiguration><Rule><BlockedEncryptionTypes><EncryptionType>{kind}</EncryptionType>\
            </BlockedEncryptionTypes></Rule></ServerSideEncryptionConfiguration>"
        )
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop_on_drop = StopOnDrop(&stop);
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let put = Request::new("PUT", "/bucket").query("encryption", "").body(document("SSE-C"));
                    let reply = node.send(&put);
                    if reply.status != 200 {
                        assert_eq!(
                            (reply.status, reply.element("Code").as_deref()),
                            (409, Some("OperationAborted")),
                            "{}",
                            reply.text()
                        );
                    }
                }
            });
        }
        let mut lost = Vec::new();
        for i in 1..40 {
            let quota = format!("{i}GiB");
            set(&node, &["--quota", &quota]);
            let shown = set(&node, &["--rekey-by-overwrite", if i % 2 == 0 { "forbid" } else { "allow" }]);
            if !shown.contains(&format!("quota: {i}.0 GiB")) {
                lost.push(shown);
            }
        }
        drop(stop_on_drop);
        assert!(lost.is_empty(), "{lost:?}");
    });
}

#[test]
fn blocked_encryption_types_map_to_sse_c_setting() {
    let node = node();
    let key = CustomerKey::random();
    let encryption = |method: &str| Request::new(method, "/bucket").query("encryption", "");
    let rule = |kind: &str| {
        format!(
            "<ServerSideEncryptionConfiguration><Rule><BlockedEncryptionTypes><EncryptionType>{kind}</EncryptionType>\
            </BlockedEncryptionTypes></Rule></ServerSideEncryptionConfiguration>"
        )
    };
    let code = |request: Request| {
        let reply = node.send(&request);
        (reply.status, reply.element("Code").unwrap_or_default())
    };
    let none = (404, "ServerSideEncryptionConfigurationNotFoundError".to_owned());
    assert_eq!(code(encryption("GET")), none);
    node.send(&encryption("PUT").body(rule("SSE-C"))).expect(200);
    assert_eq!(node.send(&encryption("GET")).expect(200).element("EncryptionType").as_deref(), Some("SSE-C"));
    assert_denied(&node.send(&keyed("PUT", "o", &key).body("x")), "has blocked");
    let data = node.data().to_str().unwrap();
    let shown = String::from_utf8(expect_success(&["bucket", "get", data, "bucket", "--json"], b"")).unwrap();
    assert!(shown.contains("\"sse_c\": \"forbid\""), "{shown}");
    node.send(&encryption("PUT").body(rule("NONE"))).expect(200);
    node.send(&keyed("PUT", "o", &key).body("x")).expect(200);
    assert_eq!(code(encryption("GET")), none);
    node.send(&encryption("PUT").body(rule("SSE-C"))).expect(200);
    node.send(&encryption("DELETE")).expect(204);
    node.send(&encryption("DELETE")).expect(204);
    node.send(&keyed("PUT", "o", &key).body("x")).expect(200);

    assert_eq!(code(encryption("PUT").body(rule("AES256"))), (400, "MalformedXML".to_owned()));
    let by_default = "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>aws:kms\
        </SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>";
    assert_eq!(code(encryption("PUT").body(by_default)), (501, "NotImplemented".to_owned()));
    let absent = |method: &str| Request::new(method, "/absent").query("encryption", "");
    assert_eq!(code(absent("GET")), (404, "NoSuchBucket".to_owned()));
    assert_eq!(code(absent("PUT").body(rule("SSE-C"))), (404, "NoSuchBucket".to_owned()));
    set(&node, &["--sse-c", "require"]);
    assert_eq!(code(encryption("PUT").body(rule("SSE-C"))), (400, "InvalidRequest".to_owned()));
}
