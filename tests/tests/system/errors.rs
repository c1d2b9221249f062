//! Requests that must be refused, over real sockets. The tables of all rules are in
//! `crates/keyhole-node/tests/tables/errors.rs`.

use keyhole_tests::{CustomerKey, Launch, Node, Request, Response};

const WRONG_KEY: &str =
    "Requests specifying Server Side Encryption with Customer provided keys must provide the correct secret key.";
const NEEDS_KEY: &str = "The object was stored using a form of Server Side Encryption. The correct parameters must be \
                         provided to retrieve the object.";
const WRONG_MD5: &str = "The calculated MD5 hash of the key did not match the hash that was provided.";

/// A node and a bucket with one SSE-C object and one plain one.
struct Fixture {
    node: Node,
    key: CustomerKey,
}

fn fixture() -> Fixture {
    let node = Node::new();
    let key = CustomerKey::random();
    node.make_bucket("errors");
    node.send(&Request::new("PUT", "/errors/sealed").headers(key.headers()).body("sealed")).expect(200);
    node.send(&Request::new("PUT", "/errors/plain").body("plain")).expect(200);
    Fixture { node, key }
}

#[track_caller]
fn check(response: &Response, status: u16, code: &str, message: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    assert!(response.header("x-amz-request-id").is_some());
    assert_eq!(response.header("content-type"), Some("application/xml"), "{response:?}");
    assert_eq!(response.element("Code").as_deref(), Some(code), "{}", response.text());
    assert_eq!(response.element("Message").as_deref(), Some(message), "{}", response.text());
    assert_eq!(response.element("RequestId").as_deref(), response.header("x-amz-request-id"));
    assert!(response.element("Resource").is_some(), "{}", response.text());
}

#[test]
fn reads_without_right_key_are_rejected() {
    let Fixture { node, key } = fixture();
    let other = CustomerKey::random();
    let get = |path: &str| Request::new("GET", path);
    let sealed = "/errors/sealed";
    check(&node.send(&get(sealed).headers(other.headers())), 403, "AccessDenied", WRONG_KEY);
    check(&node.send(&get(sealed)), 400, "InvalidRequest", NEEDS_KEY);
    let mut mismatched = key.headers();
    mismatched[2].1 = other.md5_base64();
    check(&node.send(&get(sealed).headers(mismatched)), 400, "InvalidArgument", WRONG_MD5);
    let message = "The encryption parameters are not applicable to this object.";
    check(&node.send(&get("/errors/plain").headers(key.headers())), 400, "InvalidRequest", message);
    for (request, status) in [
        (Request::new("HEAD", sealed), 400),
        (Request::new("HEAD", sealed).headers(other.headers()), 403),
        (Request::new("HEAD", sealed).headers(key.headers()), 200),
        (Request::new("HEAD", "/errors/plain").headers(key.headers()), 400),
    ] {
        let response = node.send(&request);
        assert_eq!((response.status, response.body.len()), (status, 0));
    }
    assert_eq!(node.send(&get(sealed).headers(key.headers())).expect(200).body, b"sealed");
}

#[test]
fn requests_for_other_region_are_rejected() {
    let node = Launch::default().with_credential().arg("--region=eu-edge-1").start();
    let mut signer = node.signer().clone();
    let list = Request::new("GET", "/");
    let refused = list.send(node.address(), &signer);
    assert_eq!(refused.status, 400);
    assert!(refused.element("Message").unwrap().contains("eu-edge-1"), "{}", refused.text());
    signer.region = "eu-edge-1".to_owned();
    list.send(node.address(), &signer).expect(200);
}

#[test]
fn absent_resources_and_unsupported_operations_are_rejected() {
    let Fixture { node, .. } = fixture();
    for (method, path, query, status, code) in [
        ("GET", "/errors/absent", "", 404, "NoSuchKey"),
        ("GET", "/absent-bucket/key", "", 404, "NoSuchBucket"),
        ("PUT", "/absent-bucket/key", "", 404, "NoSuchBucket"),
        ("DELETE", "/errors", "", 409, "BucketNotEmpty"),
        ("PUT", "/NotABucket", "", 400, "InvalidBucketName"),
        ("GET", "/errors", "website", 501, "NotImplemented"),
        ("PUT", "/errors", "acl", 501, "NotImplemented"),
        ("GET", "/errors/plain", "torrent", 501, "NotImplemented"),
        ("POST", "/errors/plain", "restore", 501, "NotImplemented"),
    ] {
        let mut request = Request::new(method, path);
        if !query.is_empty() {
            request = request.query(query, "");
        }
        let response = node.send(&request);
        assert_eq!((response.status, response.element("Code").as_deref()), (status, Some(code)), "{method} {path}");
    }
    let long = |len: usize| Request::new("PUT", &format!("/errors/{}", "k".repeat(len))).body("x");
    node.send(&long(1024)).expect(200);
    let refused = node.send(&long(1025));
    assert_eq!((refused.status, refused.element("Code").as_deref()), (400, Some("KeyTooLongError")));
    let metadata = |len: usize| Request::new("PUT", "/errors/meta").header("x-amz-meta-a", "v".repeat(len)).body("x");
    node.send(&metadata(2047)).expect(200);
    let refused = node.send(&metadata(2048));
    assert_eq!((refused.status, refused.element("Code").as_deref()), (400, Some("MetadataTooLarge")));
}
