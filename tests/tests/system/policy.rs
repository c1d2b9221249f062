//! Customer key policies of a bucket, set by its operator or through S3.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keyhole_tests::command::{Directory, expect_failure, expect_success};
use keyhole_tests::http::object;
use keyhole_tests::http::read_reply;
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

fn create_upload(node: &Node, request: Request) -> String {
    node.send(&request.query("uploads", "")).expect(200).element("UploadId").unwrap()
}

#[test]
fn sse_c_setting_blocks_or_requires_customer_keys() {
    let mut node = node();
    let key = CustomerKey::random();
    let (plain_id, sealed_id) =
        (create_upload(&node, object("POST", "u")), create_upload(&node, keyed("POST", "s", &key)));
    node.send(&keyed("PUT", "sealed", &key).body("sealed")).expect(200);
    node.send(&object("PUT", "plain").body("plain")).expect(200);
    let part = |request: Request, id: &str| request.query("partNumber", "1").query("uploadId", id).body("part");
    let copy = |request: Request, source: &str| request.header("x-amz-copy-source", format!("bucket/{source}"));

    assert!(set(&node, &["--sse-c", "forbid"]).contains("sse-c: forbid\n"));
    let blocked =
        |request: Request| assert_denied(&node.send(&request), "has blocked uploads with customer-provided keys");
    blocked(keyed("PUT", "o", &key).body("x"));
    blocked(keyed("POST", "o", &key).query("uploads", ""));
    blocked(part(keyed("PUT", "s", &key), &sealed_id));
    blocked(copy(keyed("PUT", "o", &key), "plain"));
    blocked(object("PUT", "o").header("x-keyhole-sealed", "1").body("x"));
    // Takes precedence over errors in the headers themselves.
    blocked(object("PUT", "o").header("x-amz-server-side-encryption-customer-key", "no key").body("x"));
    blocked(object("PUT", "o").header("x-amz-server-side-encryption-customer-kye", "x").body("x"));
    let managed = [("x-amz-server-side-encryption", "aws:kms")];
    blocked(keyed("PUT", "o", &key).headers(managed).body("x"));
    node.send(&object("PUT", "o").body("x")).expect(200);
    assert_eq!(node.send(&keyed("GET", "sealed", &key)).expect(200).text(), "sealed", "existing objects stay readable");
    let plain = copy(object("PUT", "o"), "sealed").headers(key.copy_source_headers());
    node.send(&plain).expect(200);

    // The setting survives a restart.
    node.kill();
    node.start();
    assert_denied(&node.send(&keyed("PUT", "o", &key).body("x")), "has blocked");

    set(&node, &["--sse-c", "require"]);
    let required = |request: Request| assert_denied(&node.send(&request), "requires customer-provided keys");
    required(object("PUT", "o").body("x"));
    required(object("POST", "o").query("uploads", ""));
    required(part(object("PUT", "u"), &plain_id));
    required(copy(object("PUT", "o"), "plain"));
    required(object("PUT", "o").header("x-amz-server-side-encryption", "AES256").body("x"));
    node.send(&keyed("PUT", "o", &key).body("x")).expect(200);
    node.send(&part(keyed("PUT", "s", &key), &sealed_id)).expect(200);
    node.send(&object("DELETE", "plain")).expect(204);

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

/// A pin set between the last part and the completion.
#[test]
fn completion_with_unpinned_key_is_denied() {
    let node = node();
    let directory = Directory::new();
    let path = directory.key("key");
    let other = CustomerKey::random();
    let key = CustomerKey(std::fs::read(&path).unwrap().try_into().unwrap());
    let id = String::from_utf8(expect_success(&["key", "id", &path, "--bucket", "bucket"], b"")).unwrap();
    // Returns the completion of an upload with one part, without the key.
    let upload = |name: &str, key: &CustomerKey| {
        let id = create_upload(&node, keyed("POST", name, key));
        let part = keyed("PUT", name, key).query("partNumber", "1").query("uploadId", &id).body("part");
        let etag = node.send(&part).expect(200).header("etag").unwrap().to_owned();
        let part = format!("<Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>");
        let document = format!("<CompleteMultipartUpload>{part}</CompleteMultipartUpload>");
        object("POST", name).query("uploadId", &id).body(document)
    };
    let before = [("a", &key), ("b", &other)].map(|(name, key)| upload(name, key));
    set(&node, &["--pin", id.trim()]);
    assert_denied(&node.send(&before[1].clone().headers(other.headers())), "other customer-provided keys");
    for complete in &before {
        assert_denied(&node.send(complete), "Bring the key of the upload");
    }
    assert_eq!(node.send(&keyed("GET", "b", &other)).status, 404);
    node.send(&before[0].clone().headers(key.headers())).expect(200);
    // The pins still hold, but the key was already checked when the upload began.
    node.send(&upload("c", &key)).expect(200);
    assert_eq!(node.send(&keyed("GET", "c", &key)).expect(200).text(), "part");
    set(&node, &["--pin", "none"]);
    node.send(&before[1]).expect(200);
}

#[test]
fn overwrite_with_another_key_requires_old_key() {
    let node = node();
    let old = CustomerKey::random();
    let new = CustomerKey::random();
    node.send(&keyed("PUT", "o", &old).body("first")).expect(200);
    node.send(&object("PUT", "plain").body("plain")).expect(200);
    node.send(&keyed("PUT", "other", &new).body("other")).expect(200);
    set(&node, &["--rekey-by-overwrite", "forbid"]);
    let guarded = |request: Request| assert_denied(&node.send(&request), "forbids to overwrite");
    let over = |name: &str| keyed("PUT", name, &new).body("second");
    guarded(over("o"));
    guarded(over("o").header("if-match", node.send(&keyed("HEAD", "o", &old)).header("etag").unwrap()));
    guarded(over("plain"));
    guarded(over("o").headers(new.copy_source_headers()));
    guarded(keyed("POST", "o", &new).query("uploads", ""));
    guarded(keyed("PUT", "o", &new).header("x-amz-copy-source", "bucket/other").headers(new.copy_source_headers()));
    let stranger = over("o").header("if-match", "\"0123456789abcdef0123456789abcdef\"");
    assert_eq!(node.send(&stranger).status, 412);
    assert_eq!(node.send(&over("o").header("if-none-match", "*")).status, 412);
    assert_denied(&node.send(&object("PUT", "o").header("x-keyhole-sealed", "1").body("x")), "cannot be checked");
    assert_eq!(node.send(&keyed("GET", "o", &old)).expect(200).text(), "first");

    // With the current key, or with both keys; new objects, and plaintext ones.
    node.send(&keyed("PUT", "o", &old).body("again")).expect(200);
    node.send(&over("o").headers(old.copy_source_headers())).expect(200);
    assert_eq!(node.send(&keyed("GET", "o", &new)).expect(200).text(), "second");
    node.send(&over("fresh")).expect(200);
    node.send(&object("PUT", "plain").body("plainer")).expect(200);
    // A copy onto itself, to change the key.
    let rekey = keyed("PUT", "o", &old).header("x-amz-copy-source", "bucket/o").headers(new.copy_source_headers());
    node.send(&rekey).expect(200);
    assert_eq!(node.send(&keyed("GET", "o", &old)).expect(200).text(), "second");

    // An upload that began before its object existed.
    let id = create_upload(&node, keyed("POST", "late", &new));
    let part = keyed("PUT", "late", &new).query("partNumber", "1").query("uploadId", &id).body("part");
    let etag = node.send(&part).expect(200).header("etag").unwrap().to_owned();
    node.send(&keyed("PUT", "late", &old).body("first")).expect(200);
    let document = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
    );
    let complete = |request: Request| request.query("uploadId", &id).body(document.clone());
    guarded(complete(keyed("POST", "late", &new)));
    guarded(complete(object("POST", "late")));
    node.send(&complete(keyed("POST", "late", &new).headers(old.copy_source_headers()))).expect(200);
    assert_eq!(node.send(&keyed("GET", "late", &new)).expect(200).text(), "part");
}

#[test]
fn overwrite_after_concurrent_rekey_conflicts() {
    const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    let node = node();
    let old = CustomerKey::random();
    let new = CustomerKey::random();
    node.send(&keyed("PUT", "o", &old).body("first")).expect(200);
    set(&node, &["--rekey-by-overwrite", "forbid"]);
    // The required key is that of the object when the upload begins.
    let put = keyed("PUT", "o", &old).header("expect", "100-continue").body("late");
    let put = put.signed(node.address(), node.signer());
    let mut tcp = TcpStream::connect(node.address()).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    tcp.write_all(put.head(node.address()).as_bytes()).unwrap();
    let mut accepted = [0; CONTINUE.len()];
    tcp.read_exact(&mut accepted).unwrap();
    assert_eq!(accepted, CONTINUE);
    // The object gets another key and keeps its ETag.
    let rekey = keyed("PUT", "o", &new).header("x-amz-copy-source", "bucket/o").headers(old.copy_source_headers());
    node.send(&rekey).expect(200);
    tcp.write_all(b"late").unwrap();
    assert_eq!(read_reply(&mut tcp, "PUT", |_| {}).unwrap().status, 409);
    assert_eq!(node.send(&keyed("GET", "o", &new)).expect(200).text(), "first");
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
