//! Limits of what one request can make the node hold, and of what slow requests keep from others.

use std::io::Write;

use keyhole_node::OwnPolicy;
use keyhole_node::limits::{
    BLOCKS_MIN, COMPLETE_DOCUMENT_MAX, DELETE_DOCUMENT_MAX, DOCUMENT_MAX, LIFECYCLE_DOCUMENT_MAX, UNWANTED_BODY_MAX,
    WARM_LEN,
};
use keyhole_tests::Request;
use keyhole_tests::data::bytes;
use keyhole_tests::http::{object, read_reply};

use crate::support::{Connection, MemoryNode, address, assert_error};

/// Pads a document with white space to this length.
fn padded(document: &str, len: u64) -> Vec<u8> {
    let mut padded = document.as_bytes().to_vec();
    padded.resize(usize::try_from(len).unwrap(), b'\n');
    padded
}

#[test]
fn documents_are_accepted_up_to_the_limit_of_their_operation() {
    let node = MemoryNode::new();
    node.send(&object("PUT", "o").body("x")).expect(200);
    let id = node.create_upload(object("POST", "upload"));
    let bucket = |method: &str, query: &str| Request::new(method, "/bucket").query(query, "");
    let rule = "<Rule><ID>a</ID><Filter/><Status>Enabled</Status><Expiration><Days>1</Days></Expiration></Rule>";
    let lifecycle = format!("<LifecycleConfiguration>{rule}</LifecycleConfiguration>");
    let complete = object("POST", "upload").query("uploadId", &id);
    let part =
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>e</ETag></Part></CompleteMultipartUpload>";
    let encryption = "<ServerSideEncryptionConfiguration><Rule><BlockedEncryptionTypes><EncryptionType>NONE\
        </EncryptionType></BlockedEncryptionTypes></Rule></ServerSideEncryptionConfiguration>";
    for (request, document, max, status) in [
        (bucket("POST", "delete"), "<Delete><Object><Key>absent</Key></Object></Delete>", DELETE_DOCUMENT_MAX, 200),
        // The part does not exist, which is found after the document has been read.
        (complete, part, COMPLETE_DOCUMENT_MAX, 400),
        (bucket("PUT", "lifecycle"), &lifecycle, LIFECYCLE_DOCUMENT_MAX, 200),
        (object("PUT", "o").query("tagging", ""), "<Tagging><TagSet></TagSet></Tagging>", DOCUMENT_MAX, 200),
        (bucket("PUT", "encryption"), encryption, DOCUMENT_MAX, 200),
    ] {
        let send = |len| node.send(&request.clone().body(padded(document, len)));
        let longest = send(max);
        assert_eq!(longest.status, status, "{}: {}", request.target(), longest.text());
        assert_ne!(longest.element("Code").as_deref(), Some("EntityTooLarge"), "{}", request.target());
        assert_error(&send(max + 1), 400, "EntityTooLarge");
    }
}

#[test]
fn unwanted_body_is_verified_and_discarded_up_to_its_limit() {
    let node = MemoryNode::new();
    node.send(&object("PUT", "o").body("x")).expect(200);
    let max = usize::try_from(UNWANTED_BODY_MAX).unwrap();
    for request in [object("GET", "o"), object("HEAD", "o"), Request::new("GET", "/bucket"), Request::new("GET", "/")] {
        node.send(&request.clone().body(bytes(1, max))).expect(200);
        let too_long = node.send(&request.clone().body(bytes(1, max + 1)));
        assert_eq!(too_long.status, 400, "{}", request.target());
        let other = request.clone().payload(&"0".repeat(64)).body("not what was signed");
        assert_eq!(node.send(&other).status, 400, "{}", request.target());
    }
    // A second request follows on the same connection.
    let mut connection = node.connect();
    for _ in 0..2 {
        let get = node.signed(&node.signer(), &object("GET", "o").body(bytes(2, 100_000)));
        let response = get.exchange(&mut connection, &get.keep_alive_head(address())).unwrap();
        assert_eq!(response.expect(200).text(), "x");
    }
}

#[test]
fn unsigned_request_is_rejected_before_its_body() {
    let node = MemoryNode::new();
    for (method, target) in [
        ("GET", "/"),
        ("GET", "/bucket/o"),
        ("PUT", "/bucket/o"),
        ("POST", "/bucket?delete"),
        ("PUT", "/bucket?lifecycle"),
        ("PUT", "/bucket/o?tagging"),
        ("POST", "/bucket/o?uploadId=00000000000000000000000000000000"),
    ] {
        let mut connection = node.connect();
        let head = format!("{method} {target} HTTP/1.1\r\nhost: h\r\ncontent-length: 1000000\r\n\r\n");
        connection.write_all(head.as_bytes()).unwrap();
        // The node answers although no byte of the body arrives.
        let response = read_reply(&mut connection, method, |_| {}).unwrap();
        assert_eq!(response.status, 403, "{method} {target}");
    }
}

#[test]
fn unsigned_read_of_public_object_may_have_a_body() {
    let node = MemoryNode::new();
    node.send(&object("PUT", "o").body("x")).expect(200);
    node.set_policy(OwnPolicy { anonymous_read: Some(true), ..OwnPolicy::default() });
    let max = usize::try_from(UNWANTED_BODY_MAX).unwrap();
    assert_eq!(node.send_unsigned(&object("GET", "o").body(bytes(1, max))).expect(200).text(), "x");
    assert_eq!(node.send_unsigned(&object("GET", "o").body(bytes(1, max + 1))).status, 400);
}

/// Begins uploads of 10 MiB that stop after `sent` bytes of their bodies.
fn begin_uploads<'n>(node: &'n MemoryNode, count: usize, sent: usize) -> Vec<Connection<'n>> {
    let begin = |index: usize| {
        let put = object("PUT", &format!("slow-{index}")).header("content-length", (10 << 20).to_string());
        let put = node.signed(&node.signer(), &put.payload("UNSIGNED-PAYLOAD"));
        let mut connection = node.connect();
        connection.write_all(put.head(address()).as_bytes()).unwrap();
        connection.write_all(&bytes(1, sent)).unwrap();
        connection
    };
    (0..count).map(begin).collect()
}

#[test]
fn stalled_uploads_do_not_keep_others_from_memory() {
    // Some hold the memory of a block, others have not sent enough to get one.
    for sent in [0, 300, WARM_LEN as usize, 200_000] {
        let node = MemoryNode::new();
        let slow = begin_uploads(&node, 5 * BLOCKS_MIN, sent);
        for len in [100, 70_000, 1 << 20, 3 << 20] {
            let body = bytes(2, len);
            node.send(&object("PUT", "honest").body(body.clone())).expect(200);
            assert!(node.send(&object("GET", "honest")).expect(200).body == body, "{len} bytes, {sent} sent");
            node.send(&Request::new("GET", "/bucket")).expect(200);
        }
        drop(slow);
    }
}

#[test]
fn upload_that_is_ended_for_others_is_told_to_slow_down() {
    let node = MemoryNode::new();
    // They hold all blocks that uploads may hold.
    let mut slow = begin_uploads(&node, BLOCKS_MIN - 1, 200_000);
    node.run_until_blocked();
    node.send(&object("PUT", "honest").body(bytes(2, 1 << 20))).expect(200);
    let mut ended = 0;
    for connection in &mut slow {
        let mut body = Vec::new();
        connection.end();
        let response = read_reply(connection, "PUT", |bytes| body.extend_from_slice(bytes)).unwrap();
        let text = String::from_utf8_lossy(&body);
        if response.status == 503 {
            assert!(text.contains("<Code>SlowDown</Code>") && text.contains("too slowly"), "{text}");
            ended += 1;
        } else {
            assert_eq!(response.status, 400, "{text}");
        }
    }
    assert_eq!(ended, 1, "of {}", slow.len());
}
