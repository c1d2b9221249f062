//! Requests that two readers could read in two ways: the signature and the operation must agree.

use std::io::{Read, Write};

use keyhole_tests::data::bytes;
use keyhole_tests::http::{object, read_reply};
use keyhole_tests::sigv4::{amz_date, sha256_hex, signed_headers};
use keyhole_tests::{CustomerKey, Request, Response};

use crate::support::{BUCKET, MemoryNode, NOW_MS, address, assert_error, keyed};

/// A request whose signed and sent forms differ.
struct Raw<'r> {
    method: &'r str,
    /// Path and query as sent.
    target: &'r str,
    /// Path and query as signed.
    signed_target: &'r str,
    /// Further headers as signed, with lower-case names.
    signed: &'r [(&'r str, &'r str)],
    /// Further headers as sent.
    sent: &'r [(&'r str, &'r str)],
}

impl Raw<'_> {
    fn send(&self, node: &MemoryNode) -> Response {
        let date = amz_date(NOW_MS as i64);
        let payload = sha256_hex(b"");
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let base = [("host", &address().to_string()[..]), ("x-amz-date", &date), ("x-amz-content-sha256", &payload)];
        let signed: Vec<(String, String)> = base.iter().chain(self.signed).map(own).collect();
        let signer = node.signer();
        let (path, query) = self.signed_target.split_once('?').unwrap_or((self.signed_target, ""));
        let signature = signer.signature(self.method, path, query, &signed, &payload, &date);
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={},SignedHeaders={},Signature={signature}",
            signer.credential(&date),
            signed_headers(&signed)
        );
        let mut head = format!("{} {} HTTP/1.1\r\nauthorization: {authorization}\r\n", self.method, self.target);
        base.iter().chain(self.sent).for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        head += "connection: close\r\n\r\n";
        exchange(node, &head, self.method)
    }
}

fn exchange(node: &MemoryNode, head: &str, method: &str) -> Response {
    let mut connection = node.connect();
    connection.write_all(head.as_bytes()).unwrap();
    let mut body = Vec::new();
    let response = read_reply(&mut connection, method, |bytes| body.extend_from_slice(bytes)).unwrap();
    Response { body, ..response }
}

fn put_plain(node: &MemoryNode, key: &str) {
    node.send(&object("PUT", key).body("x")).expect(200);
}

fn list(node: &MemoryNode, sent: &str, signed: &str) -> Response {
    let target = format!("/{BUCKET}?prefix={sent}");
    let signed_target = format!("/{BUCKET}?prefix={signed}");
    Raw { method: "GET", target: &target, signed_target: &signed_target, signed: &[], sent: &[] }.send(node)
}

#[test]
fn plus_in_a_query_is_a_space_for_signature_and_operation() {
    let node = MemoryNode::new();
    put_plain(&node, "a b");
    put_plain(&node, "a+b");
    for (sent, signed, key) in
        [("a%20b", "a%20b", "a b"), ("a+b", "a%20b", "a b"), ("a%2Bb", "a%2Bb", "a+b"), ("a%2bb", "a%2Bb", "a+b")]
    {
        let response = list(&node, sent, signed).expect(200);
        assert_eq!(response.element("Key").as_deref(), Some(key), "{sent}");
    }
    for (sent, signed) in [("a+b", "a%2Bb"), ("a+b", "a+b"), ("a%2Bb", "a%20b"), ("a%20b", "a+b"), ("a%252Bb", "a%2Bb")]
    {
        assert_error(&list(&node, sent, signed), 403, "SignatureDoesNotMatch");
    }
}

#[test]
fn invalid_escapes_are_rejected_in_path_and_query() {
    let node = MemoryNode::new();
    for target in ["/bucket?prefix=%", "/bucket?prefix=%zz", "/bucket/a%2", "/bucket/%ff", "/bucket/%c0%af"] {
        let response = exchange(&node, &format!("GET {target} HTTP/1.1\r\nhost: h\r\n\r\n"), "GET");
        assert_error(&response, 400, "InvalidURI");
    }
}

#[test]
fn path_means_the_same_to_signature_and_operation() {
    let node = MemoryNode::new();
    put_plain(&node, "a+b/c~d");
    for sent in ["/bucket/a+b/c~d", "/bucket/a%2Bb%2fc%7ed", "/%62ucket/a%2bb/c~d"] {
        let raw = Raw { method: "GET", target: sent, signed_target: "/bucket/a%2Bb/c~d", signed: &[], sent: &[] };
        assert_eq!(raw.send(&node).expect(200).body, b"x", "{sent}");
    }
    for sent in ["/bucket/a%20b/c~d", "/bucket/a%252Bb/c~d", "/bucket//a+b/c~d", "/bucket/./a+b/c~d"] {
        let raw = Raw { method: "GET", target: sent, signed_target: "/bucket/a%2Bb/c~d", signed: &[], sent: &[] };
        assert_error(&raw.send(&node), 403, "SignatureDoesNotMatch");
    }
}

#[test]
fn repeated_parameters_are_rejected() {
    let node = MemoryNode::new();
    for query in ["prefix=a&prefix=b", "acl&acl", "partNumber=1&%70artNumber=2"] {
        let response = exchange(&node, &format!("GET /bucket?{query} HTTP/1.1\r\nhost: h\r\n\r\n"), "GET");
        assert_error(&response, 400, "InvalidArgument");
    }
    let once = node.send(&object("GET", "k").query("x-id", "GetObject"));
    assert_error(&once, 404, "NoSuchKey");
}

/// A comma joins the values of a repeated header in the canonical form.
#[test]
fn signed_header_split_at_a_comma_is_rejected() {
    let node = MemoryNode::new();
    put_plain(&node, "k");
    let check = |signed: (&str, &str), sent: &[(&str, &str)]| {
        Raw { method: "GET", target: "/bucket/k", signed_target: "/bucket/k", signed: &[signed], sent }.send(&node)
    };
    check(("if-match", "a,*"), &[("if-match", "a,*")]).expect(200);
    for (signed, first, second) in [
        (("if-match", "a,*"), "a", "*"),
        (("range", "bytes=0-0,2-2"), "bytes=0-0", "2-2"),
        (("x-amz-checksum-mode", "ENABLED,x"), "ENABLED", "x"),
        (("x-own", "a,b"), "a", "b"),
    ] {
        let response = check(signed, &[(signed.0, first), (signed.0, second)]);
        assert_error(&response, 400, "InvalidRequest");
    }
}

#[test]
fn signed_header_that_is_absent_is_rejected() {
    let node = MemoryNode::new();
    put_plain(&node, "k");
    let check = |name: &str, sent: &[(&str, &str)]| {
        Raw { method: "GET", target: "/bucket/k", signed_target: "/bucket/k", signed: &[(name, "")], sent }.send(&node)
    };
    for name in ["x-amz-acl", "if-match", "range", "x-keyhole-sealed"] {
        assert_error(&check(name, &[]), 403, "AccessDenied");
    }
    check("x-own", &[("x-own", "")]).expect(200);
}

#[test]
fn own_headers_must_be_signed_in_headers_and_presigned_urls() {
    let node = MemoryNode::new();
    let signer = node.signer();
    let key = CustomerKey::random();
    put_plain(&node, "k");
    for (name, value) in [("x-amz-meta-a", "1"), ("x-amz-new", ""), ("x-keyhole-sealed", "1")] {
        let raw =
            Raw { method: "GET", target: "/bucket/k", signed_target: "/bucket/k", signed: &[], sent: &[(name, value)] };
        assert_error(&raw.send(&node), 403, "AccessDenied");
        let url = object("GET", "k").dated(NOW_MS as i64).presigned(address(), &signer, 60);
        assert_error(&node.send_unsigned(&url.header(name, value)), 403, "AccessDenied");
    }
    let url = keyed("PUT", "sealed", &key).dated(NOW_MS as i64).presigned(address(), &signer, 60);
    node.send_unsigned(&url).expect(200);
    assert_error(&node.send_unsigned(&url.header("x-amz-acl", "private")), 403, "AccessDenied");
}

#[test]
fn repeated_single_headers_are_rejected() {
    let node = MemoryNode::new();
    let put = |request: Request| node.signed(&node.signer(), &request.body(bytes(1, 10)));
    for (name, value) in [
        ("content-type", "text/plain"),
        ("content-md5", "AAAAAAAAAAAAAAAAAAAAAA=="),
        ("x-amz-acl", "private"),
        ("authorization", "AWS4-HMAC-SHA256 a"),
        ("content-length", "10"),
        ("host", "h"),
    ] {
        let mut connection = node.connect();
        let head = put(object("PUT", "k").header("content-type", "a/b")).head(address());
        let head = head.replacen("\r\n", &format!("\r\n{name}: {value}\r\n{name}: {value}\r\n"), 1);
        connection.write_all(head.as_bytes()).unwrap();
        let response = read_reply(&mut connection, "PUT", |_| {}).unwrap();
        assert_eq!(response.status, 400, "{name}");
        let mut rest = Vec::new();
        connection.read_to_end(&mut rest).unwrap();
    }
    node.send(&object("GET", "k")).expect(404);
}

/// A repeated metadata header is one list for the signature and for the object.
#[test]
fn repeated_metadata_is_a_list_for_signature_and_object() {
    let node = MemoryNode::new();
    let put = Raw {
        method: "PUT",
        target: "/bucket/k",
        signed_target: "/bucket/k",
        signed: &[("x-amz-meta-a", "1,2"), ("content-length", "0")],
        sent: &[("content-length", "0"), ("x-amz-meta-a", "1"), ("x-amz-meta-a", "2")],
    };
    put.send(&node).expect(200);
    assert_eq!(node.send(&object("HEAD", "k")).expect(200).header("x-amz-meta-a"), Some("1,2"));
}
