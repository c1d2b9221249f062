//! Events for the audit log and the metrics: requests about sealed objects, refused signatures, and
//! unreadable objects.

use keyhole_node::{FaultKind, Right, SealedObject};
use keyhole_s3::ErrorCode;
use keyhole_tests::data::{base64, bytes, md5};
use keyhole_tests::form::Form;
use keyhole_tests::http::object;
use keyhole_tests::sigv4::Signer;
use keyhole_tests::{CustomerKey, Request};

use crate::support::{AuditEvent, BUCKET, MemoryNode, completion, first_part, keyed};

const TAGGING: &str = "<Tagging><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tagging>";

/// Asserts whether the last request is told to the audit log, and of which object.
#[track_caller]
fn assert_told(node: &MemoryNode, operation: &str, key: &str) -> AuditEvent {
    let event = node.last_audit();
    assert!(event.is_sealed, "{event:?}");
    assert_eq!((event.operation, event.key.as_deref()), (Some(operation), Some(key)));
    event
}

/// A node with a sealed and a plaintext object.
fn node_with_objects(key: &CustomerKey) -> MemoryNode {
    let node = MemoryNode::new();
    node.send(&keyed("PUT", "sealed", key).body("secret")).expect(200);
    node.send(&object("PUT", "plain").body("plain")).expect(200);
    node
}

#[test]
fn requests_without_key_about_sealed_objects_are_told() {
    let key = CustomerKey::random();
    let node = node_with_objects(&key);
    let copy = |to: &str, from: &str| object("PUT", to).header("x-amz-copy-source", format!("{BUCKET}/{from}"));
    // In this order: the last ones replace and delete the object.
    for (operation, request, status) in [
        ("GetObject", object("GET", "sealed"), 400),
        ("HeadObject", object("HEAD", "sealed"), 400),
        ("PutObjectTagging", object("PUT", "sealed").query("tagging", "").body(TAGGING), 200),
        ("GetObjectTagging", object("GET", "sealed").query("tagging", ""), 200),
        ("DeleteObjectTagging", object("DELETE", "sealed").query("tagging", ""), 204),
        ("GetObjectAcl", object("GET", "sealed").query("acl", ""), 200),
        ("CreateMultipartUpload", object("POST", "sealed").query("uploads", ""), 200),
        ("CopyObject", copy("sealed", "plain"), 200),
    ] {
        let status_seen = node.send(&request).status;
        assert_eq!(status_seen, status, "{operation}");
        assert_told(&node, operation, "sealed");
    }
    node.send(&object("DELETE", "sealed")).expect(204);
    assert!(!node.last_audit().is_sealed, "the copy is a plaintext object");
    node.send(&keyed("PUT", "sealed", &key).body("secret")).expect(200);
    node.send(&copy("elsewhere", "sealed")).expect(400);
    assert_told(&node, "CopyObject", "elsewhere");
    node.send(&object("PUT", "sealed").body("over it")).expect(200);
    assert_told(&node, "PutObject", "sealed");
    node.send(&object("GET", "sealed")).expect(200);
    assert!(!node.last_audit().is_sealed);
    node.send(&keyed("PUT", "sealed", &key).body("secret")).expect(200);
    node.send_form(Form::new("sealed", "from a form"));
    assert_told(&node, "PostObject", "sealed");
    node.send(&keyed("PUT", "sealed", &key).body("secret")).expect(200);
    node.send(&object("DELETE", "sealed")).expect(204);
    assert_told(&node, "DeleteObject", "sealed");

    for request in [object("GET", "plain"), object("PUT", "plain").body("x"), object("DELETE", "none")] {
        node.send(&request);
        assert!(!node.last_audit().is_sealed, "{:?}", node.last_audit());
    }
}

#[test]
fn requests_without_key_about_sealed_uploads_are_told() {
    let key = CustomerKey::random();
    let node = node_with_objects(&key);
    let id = node.create_upload(keyed("POST", "parts", &key));
    let part = node.send(&first_part(keyed("PUT", "parts", &key), &id).body("part")).expect(200);
    node.send(&first_part(object("PUT", "parts"), &id).body("part")).expect(400);
    assert_told(&node, "UploadPart", "parts");
    node.send(&object("GET", "parts").query("uploadId", &id)).expect(200);
    assert_told(&node, "ListParts", "parts");
    node.send(&completion("parts", &id, part.header("etag").unwrap())).expect(200);
    assert_told(&node, "CompleteMultipartUpload", "parts");
    let id = node.create_upload(keyed("POST", "other", &key));
    node.send(&object("DELETE", "other").query("uploadId", &id)).expect(204);
    assert_told(&node, "AbortMultipartUpload", "other");
    let id = node.create_upload(object("POST", "plain"));
    node.send(&object("DELETE", "plain").query("uploadId", &id)).expect(204);
    assert!(!node.last_audit().is_sealed);
}

#[test]
fn each_sealed_object_of_a_deletion_is_told() {
    let key = CustomerKey::random();
    let node = node_with_objects(&key);
    node.send(&keyed("PUT", "kept", &key).body("secret")).expect(200);
    let rights: &[Right] = &[Right::Delete];
    let some = node.add_grants("SOME", &[(BUCKET, "sealed", rights), (BUCKET, "plain", rights)]);
    let names = ["sealed", "plain", "kept", "none"].map(|key| format!("<Object><Key>{key}</Key></Object>")).concat();
    let document = format!("<Delete>{names}</Delete>");
    let md5 = base64(&md5(document.as_bytes()));
    let delete = Request::new("POST", &format!("/{BUCKET}")).query("delete", "").header("content-md5", md5);
    node.send_as(&some, &delete.body(document)).expect(200);
    let event = node.last_audit();
    let of = |key: &str, error| SealedObject { key: key.to_owned(), error };
    let expected = [of("sealed", None), of("kept", Some(ErrorCode::AccessDenied))];
    assert!(event.is_sealed);
    assert_eq!((event.operation, &event.sealed_objects[..]), (Some("DeleteObjects"), &expected[..]));
}

#[test]
fn refused_signatures_are_told() {
    let key = CustomerKey::random();
    let node = node_with_objects(&key);
    let wrong = Signer { secret_key: "another secret".to_owned(), ..node.signer() };
    let unknown = Signer { access_key: "NOBODY".to_owned(), ..node.signer() };
    for (signer, code) in [(&wrong, ErrorCode::SignatureDoesNotMatch), (&unknown, ErrorCode::InvalidAccessKeyId)] {
        for (request, is_sealed) in [
            (object("DELETE", "sealed"), true),
            (object("GET", "plain"), false),
            (keyed("PUT", "new", &key).body("x"), true),
        ] {
            node.send_as(signer, &request).expect(403);
            let event = node.last_audit();
            assert!(event.is_unauthenticated && event.error == Some(code), "{event:?}");
            assert_eq!(event.is_sealed, is_sealed, "{event:?}");
            assert!(event.operation.is_some() && event.key.is_some(), "{event:?}");
        }
    }
    node.send_unsigned(&Form::new("sealed", "x").signed(&wrong, crate::support::NOW_MS as i64).request()).expect(403);
    let event = assert_told(&node, "PostObject", "sealed");
    assert!(event.is_unauthenticated);

    // Neither a valid signature nor none is a refused one.
    node.send_unsigned(&object("GET", "sealed")).expect(403);
    let event = assert_told(&node, "GetObject", "sealed");
    assert!(!event.is_unauthenticated, "{event:?}");
    node.send(&object("GET", "plain")).expect(200);
    assert!(!node.last_audit().is_unauthenticated);
}

/// The bytes of a client-sealed object are not those that its tags cover.
#[test]
fn object_that_does_not_authenticate_is_told_once_for_each_read() {
    let key = CustomerKey::random();
    let node = MemoryNode::new();
    for (name, len) in [("short", 100), ("long", 900_000)] {
        node.send(&keyed("PUT", name, &key).body(bytes(1, len))).expect(200);
        let mut file = node.send(&object("GET", name).header("x-keyhole-sealed", "1")).expect(200).body;
        let at = file.len() - 20;
        file[at] ^= 1;
        node.send(&object("PUT", name).header("x-keyhole-sealed", "1").body(file)).expect(200);
    }
    node.send(&keyed("GET", "short", &key)).expect(400);
    assert_eq!(node.faults(), [(FaultKind::NotAuthentic, Some("short".to_owned()))]);
    // The fault is in the second step of the body, after the response has begun.
    let get = node.signed(&node.signer(), &keyed("GET", "long", &key));
    let mut connection = node.connect();
    let cut = get.exchange(&mut connection, &get.head(crate::support::address()));
    assert!(cut.map_or(true, |response| response.body.len() < 900_000));
    assert_eq!(node.faults().last(), Some(&(FaultKind::NotAuthentic, Some("long".to_owned()))));
    let event = assert_told(&node, "GetObject", "long");
    assert_eq!((event.status, event.error), (0, Some(ErrorCode::InvalidRequest)));
    // A copy names the object that it reads.
    let copy = object("PUT", "copy").header("x-amz-copy-source", format!("{BUCKET}/short"));
    node.send(&copy.headers(key.copy_source_headers())).expect(400);
    assert_eq!(node.faults().last(), Some(&(FaultKind::NotAuthentic, Some("short".to_owned()))));
    assert_eq!(node.faults().len(), 3);
}
