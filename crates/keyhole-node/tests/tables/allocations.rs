//! The numbers of allocations of small requests. They include those of the simulated disk and of the
//! connection in memory.

use std::io::Write;

use allocation_counter::measure;
use keyhole_tests::http::{object, read_reply};
use keyhole_tests::{CustomerKey, Request};

use crate::support::{MemoryNode, address, keyed};

/// The most allocations of one GET of a sealed object of 4 KiB.
const GET_SEALED_MAX: u64 = 39;

/// The most allocations of one GET of a plain object of 4 KiB.
const GET_PLAIN_MAX: u64 = 31;

/// The most allocations of one PUT of a sealed object of 4 KiB.
const PUT_SEALED_MAX: u64 = 48;

/// The most allocations of one PUT of a plain object of 4 KiB.
const PUT_PLAIN_MAX: u64 = 44;

/// A limit that is further away than this from the number of allocations is to be lowered.
const SLACK: u64 = 4;

/// Returns the least number of allocations of a request on a connection that has had some.
fn allocations(node: &MemoryNode, method: &str, request: Request, body: &[u8]) -> u64 {
    let request = node.signed(&node.signer(), &request.body(body));
    let bytes = [request.keep_alive_head(address()).as_bytes(), body].concat();
    let mut connection = node.connect();
    let mut round = || {
        connection.write_all(&bytes).expect("a connection in memory");
        let counted = measure(|| node.run_until_blocked()).count_total;
        assert_eq!(read_reply(&mut connection, method, |_| {}).expect("a response").status, 200);
        counted
    };
    (0..4).map(|_| round()).min().expect("several rounds")
}

#[test]
fn small_requests_allocate_within_their_limits() {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    let content = vec![b'a'; 4096];
    let mut beyond = Vec::new();
    for (kind, put_max, get_max) in
        [("sealed", PUT_SEALED_MAX, GET_SEALED_MAX), ("plain", PUT_PLAIN_MAX, GET_PLAIN_MAX)]
    {
        for (method, body, max) in [("PUT", &content[..], put_max), ("GET", &content[..0], get_max)] {
            let request = if kind == "sealed" { keyed(method, kind, &key) } else { object(method, kind) };
            let counted = allocations(&node, method, request, body);
            let within = max.saturating_sub(SLACK)..=max;
            if !within.contains(&counted) {
                beyond.push(format!("{method} {kind}: {counted} allocations, not {within:?}"));
            }
        }
    }
    assert!(beyond.is_empty(), "{beyond:#?}");
}
