//! Serves two requests on a node in memory: stores an object under a customer key, and reads it.
//!
//!     cargo run -p keyhole-node --example memory_node
//!
//! The platform of this node is a simulated disk, the portable AES engine and connections of bytes;
//! see `tests/tables/support`. The binary `keyhole` has the platform for Linux.

#[allow(dead_code, unused_imports)]
#[path = "../tests/tables/support/mod.rs"]
mod support;

use keyhole_tests::CustomerKey;
use keyhole_tests::http::object;

fn main() {
    let node = support::MemoryNode::new();
    let key = CustomerKey::random();

    let stored = node.send(&object("PUT", "greeting").headers(key.headers()).body("hello"));
    println!("PUT: {} {}", stored.status, stored.header("etag").unwrap_or("no ETag"));

    let read = node.send(&object("GET", "greeting").headers(key.headers()));
    println!("GET with the key: {} {}", read.status, read.text());

    let refused = node.send(&object("GET", "greeting"));
    println!("GET without the key: {} {}", refused.status, refused.element("Message").unwrap_or_default());
}
