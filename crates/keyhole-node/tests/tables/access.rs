//! Authorization: the rights of access keys, and anonymous reads.

use keyhole_node::{OwnPolicy, Right};
use keyhole_tests::data::{base64, md5};
use keyhole_tests::http::object;
use keyhole_tests::{CustomerKey, Request, Response};

use crate::support::{MemoryNode, assert_error};

#[track_caller]
fn assert_denied(response: &Response) {
    assert_error(response, 403, "AccessDenied");
}

/// Returns a request for each operation, with the rights that it requires.
fn operations(key: &str) -> Vec<(&'static [Right], Request)> {
    let customer_key = CustomerKey::random();
    let of_bucket = |method: &str| Request::new(method, "/bucket");
    let copied = object("PUT", key).header("x-amz-copy-source", "bucket/in/there");
    let read = &[Right::Read][..];
    let write = &[Right::Write][..];
    let list = &[Right::List][..];
    let lock = &[Right::Lock][..];
    vec![
        (read, object("GET", key)),
        (read, object("HEAD", key)),
        (read, object("GET", key).query("tagging", "")),
        (read, object("GET", key).query("acl", "")),
        (read, object("GET", key).query("retention", "")),
        (read, object("GET", key).query("legal-hold", "").query("versionId", "null")),
        (lock, object("PUT", key).query("retention", "").body("<Retention/>")),
        (lock, object("PUT", key).query("legal-hold", "").body("<LegalHold/>")),
        (read, object("GET", key).query("attributes", "").header("x-amz-object-attributes", "ETag")),
        (write, object("PUT", key).body("x")),
        (write, object("PUT", key).headers(customer_key.headers()).body("x")),
        (write, object("POST", key).query("uploads", "")),
        (write, object("PUT", key).query("tagging", "").body("<Tagging><TagSet/></Tagging>")),
        (write, object("DELETE", key).query("tagging", "")),
        (&[Right::Write, Right::Read], copied),
        (list, of_bucket("GET").query("prefix", key)),
        (list, of_bucket("GET").query("prefix", key).query("list-type", "2")),
        (list, of_bucket("GET").query("prefix", key).query("uploads", "")),
        (list, of_bucket("GET").query("acl", "")),
        (list, of_bucket("GET").query("prefix", key).query("versions", "")),
        (&[Right::ReadSealed], object("GET", key).header("x-keyhole-sealed", "1")),
        (&[Right::ReadSealed], object("HEAD", key).header("x-keyhole-sealed", "1")),
        (&[Right::WriteSealed], object("PUT", key).header("x-keyhole-sealed", "1").body("x")),
        (&[Right::Delete], object("DELETE", key)),
    ]
}

#[test]
fn operation_without_its_right_is_denied() {
    let node = MemoryNode::new();
    let put = || drop(node.send(&object("PUT", "in/there").body("there")).expect(200));
    put();
    for right in Right::ALL.into_iter().filter(|right| *right != Right::Admin) {
        let signer = node.add_grants(right.name(), &[("buck*", "in/", &[right])]);
        for (required, request) in operations("in/there") {
            put();
            let response = node.send_as(&signer, &request);
            if required == [right] {
                assert_ne!(response.status, 403, "{right:?}: {} {}", request.target(), response.text());
            } else {
                assert_denied(&response);
            }
        }
        put();
        // Another prefix, and the bucket as a whole.
        operations("out/there").into_iter().chain(operations("in")).for_each(|(_, request)| {
            if !request.target().contains("acl") || request.target().contains("there") {
                assert_denied(&node.send_as(&signer, &request));
            }
        });
        for (method, path) in [("GET", "/bucket"), ("PUT", "/bucket-2"), ("DELETE", "/bucket"), ("GET", "/other")] {
            assert_denied(&node.send_as(&signer, &Request::new(method, path)));
        }
        // A client may check that its bucket exists.
        node.send_as(&signer, &Request::new("HEAD", "/bucket")).expect(200);
        node.send_as(&signer, &Request::new("GET", "/bucket").query("location", "")).expect(200);
    }
    let both = node.add_grants("both", &[("bucket", "in/", &[Right::Read]), ("bucket", "in/", &[Right::Write])]);
    let copy = |source: &str| object("PUT", "in/copy").header("x-amz-copy-source", source);
    node.send_as(&both, &copy("bucket/in/there")).expect(200);
    assert_denied(&node.send_as(&both, &copy("bucket/out")));
}

#[test]
fn admin_of_some_buckets_creates_and_deletes_them() {
    let node = MemoryNode::new();
    node.make_bucket("cam-1");
    let admin = node.add_grants("cameras", &[("cam-*", "", &[Right::Admin])]);
    let send = |method: &str, path: &str| node.send_as(&admin, &Request::new(method, path));
    send("PUT", "/cam-2").expect(200);
    assert_denied(&send("PUT", "/other"));
    assert_denied(&send("DELETE", "/bucket"));
    let listed = send("GET", "/").expect(200).text();
    assert!(listed.contains("cam-1") && listed.contains("cam-2") && !listed.contains("<Name>bucket"), "{listed}");
    send("DELETE", "/cam-2").expect(204);
    send("PUT", "/cam-1/o").expect(200);
    send("GET", "/cam-1/o").expect(200);
}

/// Each entry of a multi-object deletion is authorised separately; absence is revealed only to
/// clients with the list right.
#[test]
fn keys_outside_grants_are_neither_deleted_nor_revealed() {
    let node = MemoryNode::new();
    for key in ["in/a", "out/a"] {
        node.send(&object("PUT", key).body("x")).expect(200);
    }
    let some = node.add_grants("some", &[("bucket", "in/", &[Right::Delete, Right::Read])]);
    let document = "<Delete><Object><Key>in/a</Key></Object><Object><Key>out/a</Key></Object></Delete>";
    let md5 = base64(&md5(document.as_bytes()));
    let delete = Request::new("POST", "/bucket").query("delete", "").header("content-md5", md5).body(document);
    let deleted = node.send_as(&some, &delete).expect(200).text();
    assert!(deleted.contains("<Deleted><Key>in/a</Key>") && deleted.contains("<Code>AccessDenied</Code>"), "{deleted}");
    node.send(&object("GET", "out/a")).expect(200);
    assert_denied(&node.send_as(&some, &object("GET", "in/none")));
    assert_denied(&node.send_as(&some, &object("HEAD", "in/none")));
    let lister = node.add_grants("lister", &[("bucket", "", &[Right::List, Right::Read])]);
    assert_error(&node.send_as(&lister, &object("GET", "in/none")), 404, "NoSuchKey");
}

#[test]
fn anonymous_reads_follow_bucket_setting() {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    let set = |anonymous_read| {
        node.set_policy(OwnPolicy { anonymous_read: Some(anonymous_read), ..OwnPolicy::default() });
    };
    node.send(&object("PUT", "plain").body("plain")).expect(200);
    node.send(&object("PUT", "sealed").headers(key.headers()).body("sealed")).expect(200);
    let anonymous = |request: Request| node.send_unsigned(&request);
    assert_denied(&anonymous(object("GET", "plain")));
    set(true);
    assert_eq!(anonymous(object("GET", "plain")).expect(200).text(), "plain");
    anonymous(object("HEAD", "plain")).expect(200);
    for name in ["content-type", "content-disposition", "cache-control", "content-language", "expires"] {
        let chosen = |method: &str| object(method, "plain").query(&format!("response-{name}"), "x");
        assert_error(&anonymous(chosen("GET")), 400, "InvalidRequest");
        assert_error(&anonymous(chosen("HEAD")), 400, "InvalidRequest");
        assert_eq!(node.send(&chosen("GET")).expect(200).header(name), Some("x"));
    }
    assert_eq!(anonymous(object("GET", "plain").header("range", "bytes=1-2")).expect(206).text(), "la");
    // A customer key is still required.
    assert_eq!(anonymous(object("GET", "sealed").headers(key.headers())).expect(200).text(), "sealed");
    assert_eq!(anonymous(object("GET", "sealed")).status, 400);
    assert_denied(&anonymous(object("GET", "sealed").headers(CustomerKey::random().headers())));
    for request in [
        object("GET", "none"),
        object("GET", "plain").query("tagging", ""),
        object("GET", "sealed").header("x-keyhole-sealed", "1"),
        object("PUT", "plain").body("x"),
        object("DELETE", "plain"),
        object("POST", "plain").query("uploads", ""),
        Request::new("GET", "/bucket"),
        Request::new("GET", "/bucket").query("list-type", "2"),
        Request::new("GET", "/"),
        Request::new("GET", "/none/o"),
        Request::new("GET", "/UPPER/o"),
    ] {
        assert_denied(&anonymous(request));
    }
    set(false);
    assert_denied(&anonymous(object("GET", "plain")));
}
