//! Requests that must be refused, over real sockets: one flow of each kind. The tables of all rules
//! are in `crates/keyhole-node/tests/tables/errors.rs`.

use keyhole_tests::{CustomerKey, Launch, Node, Request, Response};

#[track_caller]
fn assert_error(response: &Response, status: u16, code: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    assert!(response.header("x-amz-request-id").is_some());
    assert_eq!(response.header("content-type"), Some("application/xml"), "{response:?}");
    assert_eq!(response.element("Code").as_deref(), Some(code), "{}", response.text());
    assert_eq!(response.element("RequestId").as_deref(), response.header("x-amz-request-id"));
}

#[test]
fn refused_requests_get_code_and_request_id() {
    let node = Node::new();
    let key = CustomerKey::random();
    node.make_bucket("errors");
    node.send(&Request::new("PUT", "/errors/sealed").headers(key.headers()).body("sealed")).expect(200);
    let get = |path: &str| Request::new("GET", path);
    let other_key = get("/errors/sealed").headers(CustomerKey::random().headers());
    assert_error(&node.send(&other_key), 403, "AccessDenied");
    assert_error(&node.send(&get("/errors/sealed")), 400, "InvalidRequest");
    assert_error(&node.send(&get("/errors/absent")), 404, "NoSuchKey");
    assert_error(&node.send(&get("/errors").query("website", "")), 501, "NotImplemented");
    assert_error(&get("/errors/sealed").send_unsigned(node.address()), 403, "AccessDenied");
    let mut signer = node.signer().clone();
    signer.secret_key = "another-secret-than-that".to_owned();
    assert_error(&get("/errors/sealed").send(node.address(), &signer), 403, "SignatureDoesNotMatch");
    assert_error(&node.send(&get("/errors/sealed").skewed(-16 * 60_000)), 403, "RequestTimeTooSkewed");
}

#[test]
fn requests_for_other_region_are_rejected() {
    let node = Launch::default().with_credential().arg("--region=eu-edge-1").start();
    let mut signer = node.signer().clone();
    let list = Request::new("GET", "/");
    let refused = list.send(node.address(), &signer);
    assert_eq!(refused.status, 400);
    assert!(refused.element("Message").unwrap().contains("eu-edge-1"), "{}", refused.text());
    signer.region = "eu-edge-1".to_owned();
    list.send(node.address(), &signer).expect(200);
}
