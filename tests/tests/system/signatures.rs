//! Requests that differ from the signed ones, and truncated requests: none of their content is
//! stored.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use keyhole_tests::data::bytes;
use keyhole_tests::{CustomerKey, Node, Request};

fn get(node: &Node, key: &CustomerKey) -> Vec<u8> {
    node.send(&Request::new("GET", "/bucket/object").headers(key.headers())).expect(200).body
}

/// Creates a node with a sealed object, and a request that would replace it.
fn fixture() -> (Node, CustomerKey, Request) {
    let node = Node::new();
    let key = CustomerKey::random();
    node.make_bucket("bucket");
    let put = || Request::new("PUT", "/bucket/object").headers(key.headers());
    node.send(&put().body("what is there")).expect(200);
    let request = put().header("x-amz-meta-name", "value").header("content-type", "text/plain").body("what comes");
    (node, key, request)
}

/// Sends the head with one byte changed at each place, and the body; none is accepted.
fn assert_changed_bytes_rejected(node: &Node, request: &Request, head: &str, places: impl Iterator<Item = usize>) {
    let mut count = 0;
    for at in places {
        let mut bytes = head.as_bytes().to_vec();
        bytes[at] ^= 1;
        let Ok(other) = String::from_utf8(bytes) else { continue };
        let mut tcp = TcpStream::connect(node.address()).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // It may be refused so early that the rest cannot be sent.
        match request.exchange(&mut tcp, &other) {
            Ok(reply) => assert!((400..=501).contains(&reply.status), "byte {at}: {}: {other:?}", reply.status),
            Err(error) => panic!("byte {at}: {error}: {other:?}"),
        }
        count += 1;
    }
    assert!(count > 300, "{count} places");
}

#[test]
fn request_with_changed_signed_byte_is_rejected() {
    let (node, key, request) = fixture();
    let signed = request.signed(node.address(), node.signer());
    let head = signed.head(node.address());
    // From the method to the end of the target, and then all headers but `connection`, which is
    // unsigned.
    let target = head.find(" HTTP/1.1").unwrap();
    let from = head.find("\r\n").unwrap() + 2;
    let to = head.find("connection: close").unwrap();
    assert_changed_bytes_rejected(&node, &signed, &head, (0..target).chain(from..to));
    assert_eq!(get(&node, &key), b"what is there");

    // Any byte of the body, too.
    let mut tcp = TcpStream::connect(node.address()).unwrap();
    for at in 0.."what comes".len() {
        let mut body = b"what comes".to_vec();
        body[at] ^= 1;
        let reply = signed.clone().body(body).send_unsigned(node.address());
        assert_eq!(reply.element("Code").as_deref(), Some("XAmzContentSHA256Mismatch"), "{}", reply.text());
    }
    assert_eq!(get(&node, &key), b"what is there");
    signed.exchange(&mut tcp, &head).unwrap().expect(200);
    assert_eq!(get(&node, &key), b"what comes");
}

#[test]
fn presigned_url_with_changed_byte_is_rejected() {
    let (node, key, _) = fixture();
    let put = Request::new("PUT", "/bucket/object").headers(key.headers()).query("x-id", "PutObject");
    let presigned = put.body("what comes").presigned(node.address(), node.signer(), 600);
    let head = presigned.head(node.address());
    let target = head.find(" HTTP/1.1").unwrap();
    // A changed lifetime invalidates the signature.
    assert_changed_bytes_rejected(&node, &presigned, &head, 0..target);
    assert_eq!(get(&node, &key), b"what is there");
    presigned.send_unsigned(node.address()).expect(200);
    assert_eq!(get(&node, &key), b"what comes");
}

#[test]
fn truncated_put_leaves_old_object() {
    let (node, key, request) = fixture();
    // A body longer than a block, so that part of it has been written when it is truncated.
    let body = bytes(7, (1 << 20) + 70_000);
    let signed = request.body(body.clone()).signed(node.address(), node.signer());
    let whole = [signed.head(node.address()).into_bytes(), body.clone()].concat();
    let head = whole.len() - body.len();
    let cuts = [0, 1, 20, head / 2, head - 2, head - 1, head, head + 1, head + 65_536, head + (1 << 20)];
    for cut in cuts.into_iter().chain([head + (1 << 20) + 1, whole.len() - 1]) {
        for half in [false, true] {
            let mut tcp = TcpStream::connect(node.address()).unwrap();
            tcp.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            tcp.write_all(&whole[..cut]).unwrap();
            if half {
                // A readable reply must not be a success.
                tcp.shutdown(Shutdown::Write).unwrap();
                let mut reply = Vec::new();
                let _ = tcp.read_to_end(&mut reply); // It may be reset.
                assert!(!reply.starts_with(b"HTTP/1.1 2"), "cut at {cut}: {}", String::from_utf8_lossy(&reply));
            }
        }
        assert_eq!(get(&node, &key), b"what is there", "cut at {cut}");
    }
    signed.send_unsigned(node.address()).expect(200);
    assert!(get(&node, &key) == body);
}
