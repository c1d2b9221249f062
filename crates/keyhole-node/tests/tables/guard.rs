//! The rekeying guard: overwriting an object under another customer key requires the old key too.

use std::io::{Read, Write};

use keyhole_node::OwnPolicy;
use keyhole_tests::form::Form;
use keyhole_tests::http::{object, read_reply};
use keyhole_tests::{CustomerKey, Request};

use crate::support::{MemoryNode, address, assert_denied, assert_error, completion, first_part, keyed};

fn guarded_policy() -> OwnPolicy {
    OwnPolicy { forbids_rekeying: Some(true), ..OwnPolicy::default() }
}

fn copy(request: Request, source: &str) -> Request {
    request.header("x-amz-copy-source", format!("bucket/{source}"))
}

#[test]
fn overwrite_with_another_key_requires_old_key() {
    let node = MemoryNode::new();
    let old = CustomerKey::random();
    let new = CustomerKey::random();
    node.send(&keyed("PUT", "o", &old).body("first")).expect(200);
    node.send(&object("PUT", "plain").body("plain")).expect(200);
    node.send(&keyed("PUT", "other", &new).body("other")).expect(200);
    node.set_policy(guarded_policy());
    let over = |name: &str| keyed("PUT", name, &new).body("second");
    let etag = node.send(&keyed("HEAD", "o", &old)).header("etag").unwrap().to_owned();
    for request in [
        over("o"),
        over("o").header("if-match", etag),
        over("plain"),
        over("o").headers(new.copy_source_headers()),
        keyed("POST", "o", &new).query("uploads", ""),
        copy(keyed("PUT", "o", &new), "other").headers(new.copy_source_headers()),
    ] {
        assert_denied(&node.send(&request), "forbids to overwrite");
    }
    let other_etag = over("o").header("if-match", "\"0123456789abcdef0123456789abcdef\"");
    assert_error(&node.send(&other_etag), 412, "PreconditionFailed");
    assert_error(&node.send(&over("o").header("if-none-match", "*")), 412, "PreconditionFailed");
    let sealed = object("PUT", "o").header("x-keyhole-sealed", "1").body("x");
    assert_denied(&node.send(&sealed), "cannot be checked");
    assert_eq!(node.send(&keyed("GET", "o", &old)).expect(200).text(), "first");

    // With the current key, or with both keys; new objects, and plaintext ones.
    node.send(&keyed("PUT", "o", &old).body("again")).expect(200);
    node.send(&over("o").headers(old.copy_source_headers())).expect(200);
    assert_eq!(node.send(&keyed("GET", "o", &new)).expect(200).text(), "second");
    node.send(&over("fresh")).expect(200);
    node.send(&object("PUT", "plain").body("plainer")).expect(200);
    // A copy onto itself, to change the key.
    node.send(&copy(keyed("PUT", "o", &old), "o").headers(new.copy_source_headers())).expect(200);
    assert_eq!(node.send(&keyed("GET", "o", &old)).expect(200).text(), "second");
}

/// Every way to replace a sealed object by a plaintext one requires its key.
#[test]
fn plaintext_over_sealed_object_requires_its_key() {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    let other = CustomerKey::random();
    node.send(&keyed("PUT", "o", &key).body("sealed")).expect(200);
    node.send(&object("PUT", "plain").body("plain")).expect(200);
    node.set_policy(guarded_policy());
    let etag = node.send(&keyed("HEAD", "o", &key)).header("etag").unwrap().to_owned();
    let put = || object("PUT", "o").body("plaintext");
    for request in [
        put(),
        put().header("if-match", etag),
        put().headers(other.copy_source_headers()),
        object("POST", "o").query("uploads", ""),
        copy(object("PUT", "o"), "plain"),
    ] {
        assert_denied(&node.send(&request), "forbids to overwrite");
    }
    let form = Form::new("o", "plaintext");
    assert_denied(&node.send_form(form), "forbids to overwrite");
    assert_eq!(node.send(&keyed("GET", "o", &key)).expect(200).text(), "sealed");

    // With its key; and tags and deletions, which store no other bytes.
    node.send(&put().headers(key.copy_source_headers())).expect(200);
    assert_eq!(node.send(&object("GET", "o")).expect(200).text(), "plaintext");
    node.send(&put()).expect(200);
    node.send(&keyed("PUT", "deleted", &key).body("sealed")).expect(200);
    node.send(&object("DELETE", "deleted").query("tagging", "")).expect(204);
    node.send(&object("DELETE", "deleted")).expect(204);
    node.send(&object("PUT", "deleted").body("plaintext")).expect(200);
    // A copy onto itself, out of the key.
    node.send(&keyed("PUT", "out", &key).body("sealed")).expect(200);
    assert_denied(&node.send(&copy(object("PUT", "out"), "plain")), "forbids to overwrite");
    node.send(&copy(object("PUT", "out"), "out").headers(key.copy_source_headers())).expect(200);
    assert_eq!(node.send(&object("GET", "out")).expect(200).text(), "sealed");
    // A key that no object needs may be one to write with.
    for name in ["fresh", "plain"] {
        let stray = object("PUT", name).headers(key.copy_source_headers()).body("x");
        assert_error(&node.send(&stray), 400, "InvalidRequest");
    }
    let id = node.create_upload(object("POST", "fresh"));
    let stray = first_part(object("PUT", "fresh"), &id).headers(key.copy_source_headers()).body("x");
    assert_error(&node.send(&stray), 400, "InvalidRequest");
}

/// The plaintext upload began before the sealed object existed.
#[test]
fn plaintext_completion_over_sealed_object_requires_its_key() {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    node.set_policy(guarded_policy());
    let id = node.create_upload(object("POST", "late"));
    let part = node.send(&first_part(object("PUT", "late"), &id).body("part")).expect(200);
    node.send(&keyed("PUT", "late", &key).body("sealed")).expect(200);
    let complete = completion("late", &id, part.header("etag").unwrap());
    assert_denied(&node.send(&complete), "forbids to overwrite");
    assert_eq!(node.send(&keyed("GET", "late", &key)).expect(200).text(), "sealed");
    node.send(&complete.headers(key.copy_source_headers())).expect(200);
    assert_eq!(node.send(&object("GET", "late")).expect(200).text(), "part");
}

/// The upload began before its object existed.
#[test]
fn completion_over_object_with_another_key_requires_old_key() {
    let node = MemoryNode::new();
    let old = CustomerKey::random();
    let new = CustomerKey::random();
    node.set_policy(guarded_policy());
    let id = node.create_upload(keyed("POST", "late", &new));
    let part = node.send(&first_part(keyed("PUT", "late", &new), &id).body("part")).expect(200);
    node.send(&keyed("PUT", "late", &old).body("first")).expect(200);
    let complete = completion("late", &id, part.header("etag").unwrap());
    let with_key = complete.clone().headers(new.headers());
    assert_denied(&node.send(&with_key), "forbids to overwrite");
    assert_denied(&node.send(&complete), "forbids to overwrite");
    node.send(&with_key.headers(old.copy_source_headers())).expect(200);
    assert_eq!(node.send(&keyed("GET", "late", &new)).expect(200).text(), "part");
}

/// The required key is that of the object when the overwrite begins.
#[test]
fn overwrite_after_concurrent_rekey_conflicts() {
    const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    let node = MemoryNode::new();
    let old = CustomerKey::random();
    let new = CustomerKey::random();
    node.send(&keyed("PUT", "o", &old).body("first")).expect(200);
    node.set_policy(guarded_policy());
    let put = keyed("PUT", "o", &old).header("expect", "100-continue").body("late");
    let put = node.signed(&node.signer(), &put);
    let mut connection = node.connect();
    connection.write_all(put.head(address()).as_bytes()).unwrap();
    let mut accepted = [0; CONTINUE.len()];
    connection.read_exact(&mut accepted).unwrap();
    assert_eq!(accepted, CONTINUE);
    // The object gets another key and keeps its ETag.
    node.send(&copy(keyed("PUT", "o", &new), "o").headers(old.copy_source_headers())).expect(200);
    connection.write_all(b"late").unwrap();
    assert_eq!(read_reply(&mut connection, "PUT", |_| {}).unwrap().status, 409);
    assert_eq!(node.send(&keyed("GET", "o", &new)).expect(200).text(), "first");
}
