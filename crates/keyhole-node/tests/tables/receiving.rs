//! Bodies that arrive in pieces of any length.

use std::io::Write;

use keyhole_log::limits::{BLOCK_DATA, CHUNK_LEN, INLINE_MAX};
use keyhole_node::limits::RECEIVE_MAX;
use keyhole_tests::CustomerKey;
use keyhole_tests::data::bytes;
use keyhole_tests::http::{object, read_reply};

use crate::support::{MemoryNode, address, keyed};

#[test]
fn body_in_pieces_is_stored_whole() {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    for len in [
        CHUNK_LEN,
        INLINE_MAX,
        INLINE_MAX + 1,
        RECEIVE_MAX - 1,
        RECEIVE_MAX + 1,
        BLOCK_DATA,
        BLOCK_DATA + CHUNK_LEN + 1,
    ] {
        let body = bytes(len as u64, len);
        for piece in [CHUNK_LEN - 1, CHUNK_LEN + 1, RECEIVE_MAX, 2 * RECEIVE_MAX + 1] {
            for kind in ["sealed", "plain"] {
                let request = |method| if kind == "sealed" { keyed(method, kind, &key) } else { object(method, kind) };
                let put = node.signed(&node.signer(), &request("PUT").body(body.clone()));
                let mut connection = node.connect();
                connection.write_all(put.head(address()).as_bytes()).unwrap();
                for piece in body.chunks(piece) {
                    connection.write_all(piece).unwrap();
                    // The node takes the piece before the next one arrives.
                    node.run_until_blocked();
                }
                assert_eq!(read_reply(&mut connection, "PUT", |_| {}).unwrap().status, 200, "{len} in {piece}");
                assert!(node.send(&request("GET")).expect(200).body == body, "{kind}: {len} in {piece}");
            }
        }
    }
}
