//! SSE-C headers over real sockets: one flow of each kind. The tables of all operations and rules are
//! in `crates/keyhole-node/tests/tables/sse_c.rs`.

use keyhole_tests::device::skipped;
use keyhole_tests::http::{connect_from, object, outer_address};
use keyhole_tests::{CustomerKey, Launch, Node, Request, Response};

const SECURE: &str = "must be made over a secure connection.";

#[track_caller]
fn assert_error(response: &Response, status: u16, code: &str, words: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.element("Code").as_deref(), Some(code), "{}", response.text());
    assert!(response.element("Message").is_some_and(|message| message.contains(words)), "{}", response.text());
}

fn node() -> (Node, CustomerKey) {
    let node = Launch::default().with_credential().start();
    node.make_bucket("bucket");
    let key = CustomerKey::random();
    node.send(&object("PUT", "sealed").headers(key.headers()).body("sealed")).expect(200);
    (node, key)
}

#[test]
fn invalid_sse_c_headers_are_rejected() {
    let (node, key) = node();
    let incomplete = || key.headers().into_iter().take(2);
    let write = node.send(&object("PUT", "new").headers(incomplete()).body("never stored"));
    assert_error(&write, 400, "InvalidArgument", "the client calculated MD5 of the secret key");
    assert!(!write.text().contains(&key.base64()));
    let read = node.send(&object("GET", "sealed").headers(incomplete()));
    assert_error(&read, 400, "InvalidArgument", "the client calculated MD5 of the secret key");
    let wrong = node.send(&object("GET", "sealed").headers(CustomerKey::random().headers()));
    assert_error(&wrong, 403, "AccessDenied", "must provide the correct secret key");
    node.send(&object("GET", "new")).expect(404);
    assert_eq!(node.send(&object("GET", "sealed").headers(key.headers())).expect(200).text(), "sealed");
}

/// Over plain HTTP from another machine, keys are refused; requests without a key are served.
#[test]
fn keys_over_insecure_connection_are_rejected() {
    let Some(from) = outer_address() else {
        return skipped("keys_over_insecure_connection_are_rejected", "this machine has only a loopback address");
    };
    let (node, key) = node();
    let send = |request: Request| {
        let to = node.address();
        let request = request.signed(to, node.signer());
        let mut connection = connect_from(from, to).expect("a connection from another address");
        request.exchange(&mut connection, &request.head(to)).expect("a response")
    };
    let put = object("PUT", "new").body("never stored");
    assert_error(&send(put.headers(key.headers())), 400, "InvalidRequest", SECURE);
    assert_error(&send(object("GET", "sealed").headers(key.headers())), 400, "InvalidRequest", SECURE);
    send(object("PUT", "plain").body("plain")).expect(200);
    assert_eq!(send(object("GET", "plain")).expect(200).text(), "plain");
    node.send(&object("GET", "new")).expect(404);
}
