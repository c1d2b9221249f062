//! Whole requests over connections: bodies of all lengths, several requests on a connection, and
//! clients that break off.

use std::io::{Read, Write};

use keyhole_tests::CustomerKey;
use keyhole_tests::data::bytes;
use keyhole_tests::http::{object, read_reply};

use crate::support::{End, MemoryNode, address, keyed};

#[test]
fn bodies_around_chunks_and_blocks_round_trip() {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    for len in [0, 1, 16_383, 16_384, 16_385, 65_537, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (3 << 20) + 77] {
        let body = bytes(len as u64, len);
        node.send(&keyed("PUT", "sealed", &key).body(body.clone())).expect(200);
        node.send(&object("PUT", "plain").body(body.clone())).expect(200);
        assert!(node.send(&keyed("GET", "sealed", &key)).expect(200).body == body, "{len} bytes, sealed");
        assert!(node.send(&object("GET", "plain")).expect(200).body == body, "{len} bytes");
        if len > 0 {
            let range = format!("bytes={}-", len - 1);
            let last = node.send(&keyed("GET", "sealed", &key).header("range", range)).expect(206);
            assert_eq!(last.body, body[len - 1..], "the last of {len} bytes");
        }
    }
}

#[test]
fn connection_serves_requests_in_order() {
    let node = MemoryNode::new();
    let mut connection = node.connect();
    for i in 0..3 {
        let put = node.signed(&node.signer(), &object("PUT", &format!("k{i}")).body("x"));
        let response = put.exchange(&mut connection, &put.keep_alive_head(address())).unwrap();
        assert_eq!(response.expect(200).header("connection"), None);
        assert_eq!(node.last_event(), (200, Some("PutObject")));
    }
    assert_eq!(connection.shut_down(), End::Closed);
}

#[test]
fn request_without_its_whole_body_stores_nothing() {
    let node = MemoryNode::new();
    for len in [0, 5, 99] {
        let put = node.signed(&node.signer(), &object("PUT", "o").body(bytes(1, 100)));
        let mut connection = node.connect();
        connection.write_all(put.head(address()).as_bytes()).unwrap();
        connection.write_all(&bytes(1, 100)[..len]).unwrap();
        assert_eq!(connection.shut_down(), End::Closed);
        let response = read_reply(&mut connection, "PUT", |_| {}).unwrap();
        assert_eq!(response.status, 400, "after {len} of 100 bytes");
        assert_eq!(node.last_event(), (400, Some("PutObject")));
        node.send(&object("GET", "o")).expect(404);
    }
}

#[test]
fn malformed_head_is_answered_and_ends_the_connection() {
    let node = MemoryNode::new();
    let mut connection = node.connect();
    connection.write_all(b"GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n").unwrap();
    let response = read_reply(&mut connection, "GET", |_| {}).unwrap();
    assert_eq!((response.status, response.header("connection")), (400, Some("close")));
    let mut rest = Vec::new();
    connection.read_to_end(&mut rest).unwrap();
    assert_eq!(node.last_event(), (400, None));
}

#[test]
fn host_is_required_since_http_1_1() {
    let node = MemoryNode::new();
    for (head, status, persistence) in [
        ("GET / HTTP/1.1\r\n\r\n", 400, Some("close")),
        ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 400, Some("close")),
        ("PUT /bucket/o HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 400, Some("close")),
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", 403, None),
        ("GET / HTTP/1.0\r\n\r\n", 403, Some("close")),
        ("GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n", 403, Some("keep-alive")),
        ("OPTIONS / HTTP/1.0\r\n\r\n", 400, Some("close")),
    ] {
        let mut connection = node.connect();
        connection.write_all(head.as_bytes()).unwrap();
        let response = read_reply(&mut connection, "GET", |_| {}).unwrap();
        assert_eq!((response.status, response.header("connection")), (status, persistence), "{head}");
        assert!(
            response.header("content-length").is_some() && response.header("transfer-encoding").is_none(),
            "{head}"
        );
        let is_open = persistence != Some("close");
        if is_open {
            connection.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
            assert_eq!(read_reply(&mut connection, "GET", |_| {}).unwrap().status, 403, "{head}");
        }
        assert_eq!(connection.shut_down(), End::Closed, "{head}");
    }
}

#[test]
fn http_1_0_client_gets_no_interim_response() {
    let node = MemoryNode::new();
    let put = node.signed(&node.signer(), &object("PUT", "o").header("expect", "100-continue").body("body"));
    for (version, interim) in [("HTTP/1.1", true), ("HTTP/1.0", false)] {
        let mut connection = node.connect();
        let head = put.head(address()).replace("HTTP/1.1", version);
        connection.write_all(head.as_bytes()).unwrap();
        if !interim {
            connection.write_all(b"body").unwrap();
        }
        let mut first = [0; 12];
        connection.read_exact(&mut first).unwrap();
        assert_eq!(&first, if interim { b"HTTP/1.1 100" } else { b"HTTP/1.1 200" }, "{version}");
    }
}
