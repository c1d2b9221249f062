//! Values of requests in errors: enough to find them, and never a key.

use keyhole_tests::http::object;
use keyhole_tests::{CustomerKey, Request, Response};

use crate::support::{MemoryNode, assert_error};

/// Asserts that neither the document nor a header of a response has a key.
#[track_caller]
fn assert_no_key(response: &Response, key: &CustomerKey) {
    let text = format!("{:?} {}", response.headers, response.text());
    for encoding in [key.base64(), hex::encode(key.0), hex::encode_upper(key.0)] {
        assert!(!text.contains(&encoding[..16]), "{text}");
    }
}

#[test]
fn key_under_another_name_is_not_in_the_error() {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    let mut algorithm = key.headers();
    algorithm[0].1 = key.base64();
    assert_no_key(&node.send(&object("PUT", "k").headers(algorithm)), &key);
    for name in [
        "x-amz-server-side-encryption",
        "x-amz-server-side-encryption-context",
        "x-amz-server-side-encryption-customer-kye",
        "x-amz-copy-source",
        "x-amz-metadata-directive",
        "x-amz-checksum-sha256",
        "x-amz-decoded-content-length",
        "x-keyhole-sealed",
        "content-md5",
        "if-none-match",
    ] {
        for value in [key.base64(), hex::encode(key.0), hex::encode_upper(key.0)] {
            let response = node.send(&object("PUT", "k").header(name, value));
            assert_no_key(&response, &key);
        }
    }
    // A slash in base64 splits the source of a copy into short parts.
    let response = node.send(&object("PUT", "k").header("x-amz-copy-source", "Frq2Jm3UxVyLgTFFFbZU5/k"));
    assert_error(&response, 400, "InvalidBucketName");
    assert_eq!(response.element("BucketName").as_deref(), Some("Frq2Jm3U..."));
    for (name, value) in [("continuation-token", key.base64()), ("encoding-type", hex::encode(key.0))] {
        let list = Request::new("GET", "/bucket").query("list-type", "2").query(name, &value);
        let response = node.send(&list);
        assert_error(&response, 400, "InvalidArgument");
        assert_no_key(&response, &key);
    }
}

#[test]
fn short_values_are_echoed_whole() {
    let node = MemoryNode::new();
    let list = |value: &str| node.send(&Request::new("GET", "/bucket").query("max-keys", value));
    for (value, echoed) in [("x".repeat(31), "x".repeat(31)), ("x".repeat(32), "x".repeat(8) + "...")] {
        let response = list(&value);
        assert_error(&response, 400, "InvalidArgument");
        assert_eq!(response.element("ArgumentValue"), Some(echoed));
    }
}
