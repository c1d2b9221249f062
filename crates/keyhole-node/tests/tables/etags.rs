//! ETags of plaintext objects that are stored at the same time.

use std::io::Write;

use keyhole_log::limits::{BLOCK_DATA, INLINE_MAX};
use keyhole_node::limits::{MD5_SLICE, RECEIVE_MAX};
use keyhole_tests::Request;
use keyhole_tests::data::{base64, bytes, md5};
use keyhole_tests::http::{object, read_reply};

use crate::support::{Connection, MemoryNode, address, assert_error};

const LENS: [usize; 6] =
    [INLINE_MAX, INLINE_MAX + 1, MD5_SLICE + 77, RECEIVE_MAX + 63, BLOCK_DATA + 1, BLOCK_DATA + RECEIVE_MAX];

/// A PUT whose body is sent piece by piece.
struct Put<'n> {
    connection: Connection<'n>,
    body: Vec<u8>,
    sent: usize,
}

impl<'n> Put<'n> {
    fn begin(node: &'n MemoryNode, request: &Request, body: Vec<u8>) -> Self {
        let request = node.signed(&node.signer(), &request.clone().body(body.clone()));
        let mut connection = node.connect();
        connection.write_all(request.head(address()).as_bytes()).unwrap();
        Put { connection, body, sent: 0 }
    }

    fn send(&mut self, len: usize) {
        let end = self.body.len().min(self.sent + len);
        self.connection.write_all(&self.body[self.sent..end]).unwrap();
        self.sent = end;
    }

    fn is_sent(&self) -> bool {
        self.sent == self.body.len()
    }

    /// Asserts that the PUT succeeds with the MD5 of its body as ETag.
    fn finish(mut self) {
        self.send(usize::MAX / 2);
        let reply = read_reply(&mut self.connection, "PUT", |_| {}).unwrap().expect(200);
        assert_eq!(reply.header("etag"), Some(&etag(&self.body)[..]), "{} bytes", self.body.len());
    }
}

fn etag(body: &[u8]) -> String {
    format!("\"{}\"", hex::encode(md5(body)))
}

/// Begins a PUT of each length.
fn begin_all<'n>(node: &'n MemoryNode) -> Vec<Put<'n>> {
    let put = |len: usize| Put::begin(node, &object("PUT", &format!("{len}")), bytes(len as u64, len));
    LENS.map(put).into()
}

#[test]
fn puts_at_once_have_right_etags() {
    for piece in [10_007, MD5_SLICE, RECEIVE_MAX, usize::MAX / 2] {
        let node = MemoryNode::new();
        let mut puts = begin_all(&node);
        while puts.iter().any(|put| !put.is_sent()) {
            puts.iter_mut().for_each(|put| put.send(piece));
            node.run_until_blocked();
        }
        puts.into_iter().for_each(Put::finish);
        for len in LENS {
            let body = bytes(len as u64, len);
            let reply = node.send(&object("GET", &format!("{len}"))).expect(200);
            assert_eq!(reply.header("etag"), Some(&etag(&body)[..]));
            assert!(reply.body == body, "{len}");
        }
    }
}

#[test]
fn stalled_put_delays_no_other() {
    let node = MemoryNode::new();
    let mut stalled = Put::begin(&node, &object("PUT", "stalled"), bytes(1, BLOCK_DATA));
    stalled.send(RECEIVE_MAX + 1);
    node.run_until_blocked();
    begin_all(&node).into_iter().for_each(Put::finish);
    stalled.finish();
}

#[test]
fn put_ended_in_mid_body_leaves_the_others_right() {
    let node = MemoryNode::new();
    let mut ended = Put::begin(&node, &object("PUT", "ended"), bytes(1, BLOCK_DATA));
    let mut puts = begin_all(&node);
    puts.iter_mut().chain([&mut ended]).for_each(|put| put.send(MD5_SLICE + 1));
    node.run_until_blocked();
    puts.iter_mut().chain([&mut ended]).for_each(|put| put.send(MD5_SLICE + 1));
    ended.connection.shut_down();
    puts.into_iter().for_each(Put::finish);
    assert_error(&node.send(&object("GET", "ended")), 404, "NoSuchKey");
}

#[test]
fn wrong_md5_is_refused_beside_right_ones() {
    let node = MemoryNode::new();
    for header in ["Content-MD5", "x-amz-checksum-md5"] {
        let body = bytes(1, RECEIVE_MAX + 1);
        let declared = |name, body: &[u8]| object("PUT", name).header(header, base64(&md5(body)));
        let mut wrong = Put::begin(&node, &declared("wrong", b"another body"), body.clone());
        let right = Put::begin(&node, &declared("right", &body), body);
        let mut puts = begin_all(&node);
        puts.iter_mut().chain([&mut wrong]).for_each(|put| put.send(usize::MAX / 2));
        right.finish();
        let reply = read_reply(&mut wrong.connection, "PUT", |_| {}).unwrap();
        assert_error(&reply, 400, "BadDigest");
        puts.into_iter().for_each(Put::finish);
    }
}
