//! Conditions of DeleteObject and of the entries of DeleteObjects, on plain and on sealed objects.

use keyhole_tests::data::{base64, md5};
use keyhole_tests::http::object;
use keyhole_tests::{CustomerKey, Request, Response};

use crate::support::{MemoryNode, NOW_MS, assert_error, keyed};

/// The time of every object, and other times.
const SAME: &str = "Thu, 01 Jan 2026 00:00:00 GMT";
const LATER: &str = "Thu, 01 Jan 2026 00:00:01 GMT";
const OTHER: &str = "\"0123456789abcdef0123456789abcdef\"";

/// Stores a plain and a sealed object of four bytes. Returns their names and ETags.
fn objects(node: &MemoryNode) -> Vec<(&'static str, String)> {
    let key = CustomerKey::random();
    let puts = [("plain", object("PUT", "plain")), ("sealed", keyed("PUT", "sealed", &key))];
    let put =
        |(name, put): (_, Request)| (name, node.send(&put.body("body")).expect(200).header("etag").unwrap().into());
    puts.into_iter().map(put).collect()
}

fn is_there(node: &MemoryNode, name: &str) -> bool {
    let list = Request::new("GET", "/bucket").query("list-type", "2").query("prefix", name);
    node.send(&list).expect(200).text().contains("<Key>")
}

fn delete_objects(node: &MemoryNode, entries: &str) -> Response {
    let document = format!("<Delete>{entries}</Delete>");
    let digest = base64(&md5(document.as_bytes()));
    node.send(&Request::new("POST", "/bucket").query("delete", "").header("content-md5", digest).body(document))
}

#[test]
fn deletion_follows_its_conditions() {
    for (conditions, status) in [
        (&[("if-match", "ETAG")][..], 204),
        (&[("if-match", "*")], 204),
        (&[("if-match", OTHER)], 412),
        (&[("if-match", "\"no ETag\"")], 412),
        (&[("x-amz-if-match-size", "4")], 204),
        (&[("x-amz-if-match-size", "5")], 412),
        (&[("x-amz-if-match-size", "-4")], 400),
        (&[("x-amz-if-match-last-modified-time", SAME)], 204),
        (&[("x-amz-if-match-last-modified-time", LATER)], 412),
        (&[("x-amz-if-match-last-modified-time", "soon")], 400),
        (&[("if-match", "ETAG"), ("x-amz-if-match-size", "4"), ("x-amz-if-match-last-modified-time", SAME)], 204),
        (&[("if-match", "ETAG"), ("x-amz-if-match-size", "5")], 412),
        (&[("if-match", OTHER), ("x-amz-if-match-size", "4")], 412),
        (&[("if-none-match", "*")], 501),
        (&[("if-match", "\"a\", \"b\"")], 501),
    ] {
        let node = MemoryNode::new();
        for (name, etag) in objects(&node) {
            let headers = conditions.iter().map(|(header, value)| (*header, value.replace("ETAG", &etag)));
            let response = node.send(&object("DELETE", name).headers(headers));
            assert_eq!(response.status, status, "{name}, {conditions:?}: {}", response.text());
            assert_eq!(is_there(&node, name), status != 204, "{name}, {conditions:?}");
        }
    }
}

#[test]
fn conditional_deletion_of_missing_object_is_not_found() {
    let node = MemoryNode::new();
    for value in ["*", OTHER, "\"badetag\""] {
        assert_error(&node.send(&object("DELETE", "none").header("if-match", value)), 404, "NoSuchKey");
    }
    // A condition on the size or the time alone holds.
    node.send(&object("DELETE", "none").header("x-amz-if-match-size", "4")).expect(204);
    node.send(&object("DELETE", "none").header("x-amz-if-match-last-modified-time", SAME)).expect(204);
    node.send(&object("DELETE", "none")).expect(204);
}

#[test]
fn put_with_if_match_of_any_object_requires_one() {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    for put in [object("PUT", "o"), keyed("PUT", "o", &key)] {
        let put = put.body("body").header("if-match", "*");
        assert_error(&node.send(&put), 404, "NoSuchKey");
        node.send(&object("PUT", "o").body("first")).expect(200);
        node.send(&put).expect(200);
        node.send(&object("DELETE", "o")).expect(204);
    }
    let size = object("PUT", "o").header("x-amz-if-match-size", "4");
    assert_error(&node.send(&size), 501, "NotImplemented");
}

#[test]
fn entries_of_delete_objects_follow_their_conditions() {
    for (condition, code) in [
        ("<ETag>ETAG</ETag>".to_owned(), None),
        ("<ETag>*</ETag>".to_owned(), None),
        (format!("<ETag>{OTHER}</ETag>"), Some("PreconditionFailed")),
        ("<ETag></ETag>".to_owned(), Some("PreconditionFailed")),
        ("<Size>4</Size>".to_owned(), None),
        ("<Size>0</Size>".to_owned(), Some("PreconditionFailed")),
        (format!("<LastModifiedTime>{SAME}</LastModifiedTime>"), None),
        ("<LastModifiedTime>2026-01-01T00:00:00.000Z</LastModifiedTime>".to_owned(), None),
        (format!("<LastModifiedTime>{LATER}</LastModifiedTime>"), Some("PreconditionFailed")),
        ("<ETag>ETAG</ETag><Size>5</Size>".to_owned(), Some("PreconditionFailed")),
        ("<VersionId>null</VersionId><ETag>ETAG</ETag>".to_owned(), None),
        ("<VersionId>3HL4kqtJlcpXroDTDmJ</VersionId>".to_owned(), Some("NoSuchVersion")),
    ] {
        let node = MemoryNode::new();
        for (name, etag) in objects(&node) {
            node.send(&object("PUT", "other").body("other")).expect(200);
            let condition = condition.replace("ETAG", &etag.replace('"', "&quot;"));
            let entry = format!("<Object><Key>{name}</Key>{condition}</Object>");
            let response = delete_objects(&node, &format!("{entry}<Object><Key>other</Key></Object>")).expect(200);
            let text = response.text();
            assert_eq!(response.element("Code").as_deref(), code, "{condition}: {text}");
            assert_eq!(text.contains(&format!("<Deleted><Key>{name}</Key>")), code.is_none(), "{condition}: {text}");
            assert_eq!(is_there(&node, name), code.is_some(), "{condition}");
            // The others are deleted.
            assert!(text.contains("<Deleted><Key>other</Key>") && !is_there(&node, "other"), "{text}");
        }
    }
}

#[test]
fn conditional_entry_without_object_is_an_error() {
    let node = MemoryNode::new();
    let entry = |key: &str, condition: &str| format!("<Object><Key>{key}</Key>{condition}</Object>");
    let entries = [entry("a", "<ETag>*</ETag>"), entry("b", "<Size>1</Size>"), entry("c", "")].concat();
    let text = delete_objects(&node, &entries).expect(200).text();
    assert!(text.contains("<Error><Key>a</Key><Code>NoSuchKey</Code>"), "{text}");
    assert!(text.contains("<Deleted><Key>b</Key>") && text.contains("<Deleted><Key>c</Key>"), "{text}");
}

#[test]
fn unknown_element_deletes_nothing() {
    let node = MemoryNode::new();
    objects(&node);
    for bad in
        ["<Object><Key>plain</Key><Etag>x</Etag></Object>", "<Object><Key>plain</Key></Object><Bypass>true</Bypass>"]
    {
        assert_error(&delete_objects(&node, bad), 400, "MalformedXML");
        assert!(is_there(&node, "plain"), "{bad}");
    }
    assert_eq!(NOW_MS % 1000, 0, "the dates of this file name the node's time");
}
