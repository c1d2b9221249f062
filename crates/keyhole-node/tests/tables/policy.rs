//! Customer key policies of a bucket.

use keyhole_core::key_id;
use keyhole_node::{OwnPolicy, SseC};
use keyhole_tests::http::object;
use keyhole_tests::{CustomerKey, Request};

use crate::support::{BUCKET, MemoryNode, assert_denied, assert_error, completion, first_part, keyed};

fn sse_c(sse_c: SseC) -> OwnPolicy {
    OwnPolicy { sse_c: Some(sse_c), ..OwnPolicy::default() }
}

fn pins(keys: &[&CustomerKey]) -> OwnPolicy {
    let id = |key: &&CustomerKey| key_id(&keyhole_core::CustomerKey::new(key.0), BUCKET);
    OwnPolicy { pins: keys.iter().map(id).collect(), ..OwnPolicy::default() }
}

fn copy(request: Request, source: &str) -> Request {
    request.header("x-amz-copy-source", format!("bucket/{source}"))
}

/// A node with a sealed and a plaintext object, and an open upload of each kind.
struct Fixture {
    node: MemoryNode,
    key: CustomerKey,
    sealed_upload: String,
    plain_upload: String,
}

fn fixture() -> Fixture {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    node.send(&keyed("PUT", "sealed", &key).body("sealed")).expect(200);
    node.send(&object("PUT", "plain").body("plain")).expect(200);
    let sealed_upload = node.create_upload(keyed("POST", "s", &key));
    let plain_upload = node.create_upload(object("POST", "u"));
    Fixture { node, key, sealed_upload, plain_upload }
}

#[test]
fn forbidden_customer_keys_are_denied_on_every_write() {
    let Fixture { node, key, sealed_upload, .. } = fixture();
    node.set_policy(sse_c(SseC::Forbid));
    let managed = [("x-amz-server-side-encryption", "aws:kms")];
    for request in [
        keyed("PUT", "o", &key).body("x"),
        keyed("POST", "o", &key).query("uploads", ""),
        first_part(keyed("PUT", "s", &key), &sealed_upload).body("part"),
        copy(keyed("PUT", "o", &key), "plain"),
        object("PUT", "o").header("x-keyhole-sealed", "1").body("x"),
        // Takes precedence over errors in the headers themselves.
        object("PUT", "o").header("x-amz-server-side-encryption-customer-key", "no key").body("x"),
        object("PUT", "o").header("x-amz-server-side-encryption-customer-kye", "x").body("x"),
        keyed("PUT", "o", &key).headers(managed).body("x"),
    ] {
        assert_denied(&node.send(&request), "has blocked uploads with customer-provided keys");
    }
    node.send(&object("GET", "o")).expect(404);
    node.send(&object("PUT", "o").body("x")).expect(200);
    assert_eq!(node.send(&keyed("GET", "sealed", &key)).expect(200).text(), "sealed");
    node.send(&copy(object("PUT", "o"), "sealed").headers(key.copy_source_headers())).expect(200);
}

#[test]
fn writes_without_required_customer_key_are_denied() {
    let Fixture { node, key, sealed_upload, plain_upload } = fixture();
    node.set_policy(sse_c(SseC::Require));
    for request in [
        object("PUT", "o").body("x"),
        object("POST", "o").query("uploads", ""),
        first_part(object("PUT", "u"), &plain_upload).body("part"),
        copy(object("PUT", "o"), "plain"),
        object("PUT", "o").header("x-amz-server-side-encryption", "AES256").body("x"),
    ] {
        assert_denied(&node.send(&request), "requires customer-provided keys");
    }
    node.send(&object("GET", "o")).expect(404);
    node.send(&keyed("PUT", "o", &key).body("x")).expect(200);
    node.send(&first_part(keyed("PUT", "s", &key), &sealed_upload).body("part")).expect(200);
    node.send(&object("DELETE", "plain")).expect(204);

    node.set_policy(sse_c(SseC::Allow));
    node.send(&object("PUT", "o").body("x")).expect(200);
    node.send(&keyed("PUT", "o", &key).body("x")).expect(200);
}

#[test]
fn writes_with_unpinned_key_are_denied() {
    let Fixture { node, key, .. } = fixture();
    let other = CustomerKey::random();
    node.set_policy(pins(&[&key]));
    for request in [
        keyed("PUT", "o", &other).body("x"),
        keyed("POST", "o", &other).query("uploads", ""),
        copy(keyed("PUT", "o", &other), "plain"),
    ] {
        assert_denied(&node.send(&request), "other customer-provided keys");
    }
    let sealed = object("PUT", "o").header("x-keyhole-sealed", "1").body("x");
    assert_denied(&node.send(&sealed), "cannot be checked");
    node.send(&keyed("PUT", "o", &key).body("x")).expect(200);
    node.send(&object("PUT", "plain").body("x")).expect(200);
    node.set_policy(OwnPolicy::default());
    node.send(&keyed("PUT", "o", &other).body("x")).expect(200);
}

/// The pins are set between the last part and the completion.
#[test]
fn completion_with_unpinned_key_is_denied() {
    let Fixture { node, key, .. } = fixture();
    let other = CustomerKey::random();
    let upload = |name: &str, key: &CustomerKey| {
        let id = node.create_upload(keyed("POST", name, key));
        let part = node.send(&first_part(keyed("PUT", name, key), &id).body("part")).expect(200);
        completion(name, &id, part.header("etag").unwrap())
    };
    let pinned = upload("a", &key);
    let unpinned = upload("b", &other);
    node.set_policy(pins(&[&key]));
    assert_denied(&node.send(&unpinned.clone().headers(other.headers())), "other customer-provided keys");
    for complete in [&pinned, &unpinned] {
        assert_denied(&node.send(complete), "Bring the key of the upload");
    }
    assert_error(&node.send(&keyed("GET", "b", &other)), 404, "NoSuchKey");
    node.send(&pinned.headers(key.headers())).expect(200);
    // The pins still hold, but the key was already checked when the upload began.
    node.send(&upload("c", &key)).expect(200);
    assert_eq!(node.send(&keyed("GET", "c", &key)).expect(200).text(), "part");
    node.set_policy(OwnPolicy::default());
    node.send(&unpinned).expect(200);
}

#[test]
fn blocked_encryption_types_map_to_sse_c_setting() {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    let encryption = |method: &str| Request::new(method, "/bucket").query("encryption", "");
    let rule = |kind: &str| {
        format!(
            "<ServerSideEncryptionConfiguration><Rule><BlockedEncryptionTypes><EncryptionType>{kind}</EncryptionType>\
            </BlockedEncryptionTypes></Rule></ServerSideEncryptionConfiguration>"
        )
    };
    let absent = "ServerSideEncryptionConfigurationNotFoundError";
    assert_error(&node.send(&encryption("GET")), 404, absent);
    node.send(&encryption("PUT").body(rule("SSE-C"))).expect(200);
    assert_eq!(node.send(&encryption("GET")).expect(200).element("EncryptionType").as_deref(), Some("SSE-C"));
    assert_denied(&node.send(&keyed("PUT", "o", &key).body("x")), "has blocked");
    node.send(&encryption("PUT").body(rule("NONE"))).expect(200);
    node.send(&keyed("PUT", "o", &key).body("x")).expect(200);
    assert_error(&node.send(&encryption("GET")), 404, absent);
    node.send(&encryption("PUT").body(rule("SSE-C"))).expect(200);
    node.send(&encryption("DELETE")).expect(204);
    node.send(&encryption("DELETE")).expect(204);
    node.send(&keyed("PUT", "o", &key).body("x")).expect(200);

    assert_error(&node.send(&encryption("PUT").body(rule("AES256"))), 400, "MalformedXML");
    let by_default = "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>aws:kms\
        </SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>";
    assert_error(&node.send(&encryption("PUT").body(by_default)), 501, "NotImplemented");
    let absent = |method: &str| Request::new(method, "/absent").query("encryption", "");
    assert_error(&node.send(&absent("GET")), 404, "NoSuchBucket");
    assert_error(&node.send(&absent("PUT").body(rule("SSE-C"))), 404, "NoSuchBucket");
    node.set_policy(sse_c(SseC::Require));
    assert_error(&node.send(&encryption("PUT").body(rule("SSE-C"))), 400, "InvalidRequest");
}
