//! Ranges, `If-Range` and 304 (RFC 9110 §13.1.5, §14 and §15.4.5), on plain and on sealed objects.

use keyhole_tests::http::object;
use keyhole_tests::{CustomerKey, Request};

use crate::support::{MemoryNode, assert_error, first_part, keyed};

const SAME: &str = "Thu, 01 Jan 2026 00:00:00 GMT";
const BEFORE: &str = "Wed, 31 Dec 2025 23:59:59 GMT";

/// Requests of a plain and of a sealed object.
fn kinds(method: &str, key: &CustomerKey) -> [Request; 2] {
    [object(method, "plain"), keyed(method, "sealed", key)]
}

#[test]
fn range_of_another_version_becomes_the_whole_object() {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    for (put, get) in kinds("PUT", &key).into_iter().zip(kinds("GET", &key)) {
        let old = node.send(&put.clone().body("AAAAAAAAAA")).expect(200).header("etag").unwrap().to_owned();
        let resume =
            |validator: &str| node.send(&get.clone().header("range", "bytes=5-").header("if-range", validator));
        assert_eq!(resume(&old).expect(206).text(), "AAAAA");
        node.send(&put.body("BBBBBBBBBB")).expect(200);
        let new = node.send(&get).expect(200).header("etag").unwrap().to_owned();
        for (validator, expected) in [
            (&new[..], 206),
            (new.trim_matches('"'), 206),
            (SAME, 206),
            (&old, 200),
            (BEFORE, 200),
            (&format!("W/{new}"), 200),
            ("*", 200),
            ("nonsense", 200),
        ] {
            let response = resume(validator).expect(expected);
            assert_eq!(response.text(), if expected == 206 { "BBBBB" } else { "BBBBBBBBBB" }, "{validator}");
            assert_eq!(response.header("content-range").is_some(), expected == 206, "{validator}");
        }
        // A range behind the end of another version is no error.
        let behind = get.clone().header("range", "bytes=99-");
        assert_eq!(node.send(&behind.clone().header("if-range", old)).expect(200).text(), "BBBBBBBBBB");
        node.send(&behind.header("if-range", new)).expect(416);
    }
}

#[test]
fn sealed_object_file_follows_if_range() {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    let etag = node.send(&keyed("PUT", "o", &key).body("body")).expect(200).header("etag").unwrap().to_owned();
    let file = object("GET", "o").header("x-keyhole-sealed", "1");
    let whole = node.send(&file).expect(200).body;
    let range = file.header("range", "bytes=5-");
    assert_eq!(node.send(&range.clone().header("if-range", etag)).expect(206).body, whole[5..]);
    assert_eq!(node.send(&range.header("if-range", "\"other\"")).expect(200).body, whole);
}

#[test]
fn suffix_of_empty_object_is_the_whole_object() {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    for (put, get) in kinds("PUT", &key).into_iter().zip(kinds("GET", &key)) {
        node.send(&put).expect(200);
        let response = node.send(&get.clone().header("range", "bytes=-5")).expect(200);
        assert_eq!((response.body.len(), response.header("content-range")), (0, None));
        for unsatisfiable in ["bytes=0-", "bytes=0-0", "bytes=-0"] {
            assert_error(&node.send(&get.clone().header("range", unsatisfiable)), 416, "InvalidRange");
        }
    }
}

#[test]
fn not_modified_repeats_the_lifetime() {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    let expires = "Thu, 01 Dec 2037 16:00:00 GMT";
    for (put, get) in kinds("PUT", &key).into_iter().zip(kinds("GET", &key)) {
        let put = put.header("cache-control", "max-age=600").header("expires", expires).body("x");
        let etag = node.send(&put.header("content-type", "text/x")).expect(200).header("etag").unwrap().to_owned();
        let get = get.header("if-none-match", etag.clone());
        let response = node.send(&get).expect(304);
        assert_eq!(response.header("etag"), Some(&etag[..]));
        assert_eq!(response.header("cache-control"), Some("max-age=600"));
        assert_eq!(response.header("expires"), Some(expires));
        assert_eq!(response.header("last-modified"), Some(SAME));
        // Headers that describe the content are left out, as RFC 9110 recommends.
        assert_eq!((response.header("content-type"), response.header("content-length")), (None, None));
        let response = node.send(&get.query("response-cache-control", "no-store")).expect(304);
        assert_eq!(response.header("cache-control"), Some("no-store"));
    }
}

#[test]
fn part_copy_past_the_end_names_the_size() {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    node.send(&object("PUT", "plain").body("12345")).expect(200);
    node.send(&keyed("PUT", "sealed", &key).body("12345")).expect(200);
    node.send(&object("PUT", "empty")).expect(200);
    let id = node.create_upload(object("POST", "o"));
    let copy = |source: &str, range: &str| {
        let part = first_part(object("PUT", "o"), &id).header("x-amz-copy-source", format!("bucket/{source}"));
        let part = part.header("x-amz-copy-source-range", range);
        node.send(&if source == "sealed" { part.headers(key.copy_source_headers()) } else { part })
    };
    for source in ["plain", "sealed"] {
        for range in ["bytes=0-5", "bytes=5-5", "bytes=9-10"] {
            let response = copy(source, range);
            assert_error(&response, 400, "InvalidArgument");
            let message = response.element("Message").unwrap();
            assert_eq!(message, "Range specified is not valid for source object of size: 5", "{range}");
        }
        copy(source, "bytes=0-4").expect(200);
    }
    assert_error(&copy("empty", "bytes=0-0"), 400, "InvalidArgument");
}
