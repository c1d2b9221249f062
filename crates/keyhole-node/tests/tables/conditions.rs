//! Conditional requests (RFC 9110 §13; "Conditional requests" in the S3 guide).

use keyhole_tests::http::object;
use keyhole_tests::{CustomerKey, Request};

use crate::support::{MemoryNode, completion, first_part, keyed};

const BEFORE: &str = "Wed, 31 Dec 2025 23:59:59 GMT";
/// The time of the object.
const SAME: &str = "Thu, 01 Jan 2026 00:00:00 GMT";
const OTHER: &str = "\"0123456789abcdef0123456789abcdef\"";

/// A node with an object of each kind, and their ETags.
fn fixture() -> (MemoryNode, Vec<(Request, String)>) {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    let mut objects = Vec::new();
    for request in [object("PUT", "plain"), keyed("PUT", "sealed", &key)] {
        let etag = node.send(&request.body("body")).expect(200).header("etag").unwrap().to_owned();
        objects.push(etag);
    }
    let reads = [object("GET", "plain"), keyed("GET", "sealed", &key)];
    (node, reads.into_iter().zip(objects).collect())
}

#[test]
fn reads_follow_conditions_in_their_order() {
    let (node, objects) = fixture();
    for (get, etag) in objects {
        let list = format!("{OTHER}, {etag}");
        for (conditions, expected) in [
            (&[("if-match", &etag[..])][..], 200),
            (&[("if-match", "*")], 200),
            (&[("if-match", &list)], 200),
            (&[("if-match", OTHER)], 412),
            (&[("if-none-match", &etag)], 304),
            (&[("if-none-match", "*")], 304),
            (&[("if-none-match", &list)], 304),
            (&[("if-none-match", OTHER)], 200),
            (&[("if-modified-since", SAME)], 304),
            (&[("if-modified-since", BEFORE)], 200),
            (&[("if-unmodified-since", SAME)], 200),
            (&[("if-unmodified-since", BEFORE)], 412),
            // An ETag takes precedence over a date.
            (&[("if-match", &etag), ("if-unmodified-since", BEFORE)], 200),
            (&[("if-none-match", &etag), ("if-modified-since", BEFORE)], 304),
            (&[("if-none-match", OTHER), ("if-modified-since", SAME)], 200),
            (&[("if-modified-since", "not a date")], 200),
        ] {
            let response = node.send(&get.clone().headers(conditions.iter().copied()));
            assert_eq!(response.status, expected, "{conditions:?}: {}", response.text());
            if expected == 304 {
                assert_eq!(response.header("etag"), Some(&etag[..]), "{conditions:?}");
                assert!(response.body.is_empty(), "{conditions:?}");
            }
        }
    }
}

#[test]
fn writes_follow_conditions() {
    let (node, objects) = fixture();
    let etag = &objects[0].1;
    let put = |name: &str| object("PUT", name).body("body");
    for (request, expected) in [
        (put("plain").header("if-none-match", "*"), 412),
        (put("plain").header("if-match", OTHER), 412),
        (put("plain").header("if-match", "\"0\""), 412),
        (put("absent").header("if-match", etag), 404),
        (put("absent-bucket").header("if-match", etag), 404),
        (put("plain").header("if-match", etag), 200),
        (put("new").header("if-none-match", "*"), 200),
        (put("new").header("if-none-match", "*"), 412),
        (object("PUT", "new").header("x-amz-copy-source", "bucket/plain").header("if-none-match", "*"), 412),
        (object("PUT", "copy").header("x-amz-copy-source", "bucket/plain").header("if-none-match", "*"), 200),
        (object("DELETE", "new").header("if-match", OTHER), 412),
        (object("DELETE", "new").header("if-match", etag), 204),
    ] {
        let response = node.send(&request);
        assert_eq!(response.status, expected, "{}: {}", request.target(), response.text());
    }
}

#[test]
fn copies_follow_conditions_on_their_source() {
    let (node, objects) = fixture();
    let etag = &objects[0].1;
    for (name, value, expected) in [
        ("if-match", &etag[..], 200),
        ("if-match", OTHER, 412),
        ("if-none-match", OTHER, 200),
        ("if-none-match", etag, 412),
        ("if-modified-since", BEFORE, 200),
        ("if-modified-since", SAME, 412),
        ("if-unmodified-since", SAME, 200),
        ("if-unmodified-since", BEFORE, 412),
    ] {
        let copy = object("PUT", "copy").header("x-amz-copy-source", "bucket/plain");
        let response = node.send(&copy.header(format!("x-amz-copy-source-{name}"), value));
        assert_eq!(response.status, expected, "{name}: {value}: {}", response.text());
    }
}

#[test]
fn completion_follows_its_condition() {
    let node = MemoryNode::new();
    let id = node.create_upload(object("POST", "o"));
    let part = node.send(&first_part(object("PUT", "o"), &id).body("part")).expect(200);
    let complete = completion("o", &id, part.header("etag").unwrap());
    node.send(&object("PUT", "o").body("first")).expect(200);
    node.send(&complete.clone().header("if-none-match", "*")).expect(412);
    node.send(&object("DELETE", "o")).expect(204);
    node.send(&complete.header("if-none-match", "*")).expect(200);
    assert_eq!(node.send(&object("GET", "o")).expect(200).text(), "part");
}
