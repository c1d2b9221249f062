//! CompleteMultipartUpload sent again, and parts sent again, for plain and for sealed uploads.

use std::io::Write;

use keyhole_log::Condition;
use keyhole_log::limits::CHUNK_LEN;
use keyhole_node::limits::PART_MIN;
use keyhole_node::transfer::Export;
use keyhole_tests::data::bytes;
use keyhole_tests::http::{object, read_reply};
use keyhole_tests::{CustomerKey, Request, Response};

use crate::support::{BUCKET, MemoryNode, NOW_MS, address, assert_error, completion, keyed};

type Headers = Vec<(String, String)>;

/// The headers of a plain and of a sealed upload.
fn kinds() -> [Headers; 2] {
    [Vec::new(), CustomerKey::random().headers().to_vec()]
}

/// Sends a part and returns its ETag.
fn part(node: &MemoryNode, headers: &Headers, id: &str, number: u16, body: impl Into<Vec<u8>>) -> String {
    let part = object("PUT", "o").query("partNumber", &number.to_string()).query("uploadId", id);
    let response = node.send(&part.headers(headers.clone()).body(body)).expect(200);
    response.header("etag").unwrap().to_owned()
}

fn complete(id: &str, parts: &[(u16, &str)]) -> Request {
    let part =
        |(number, etag): &(u16, &str)| format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
    let parts: String = parts.iter().map(part).collect();
    let document = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    object("POST", "o").query("uploadId", id).body(document)
}

fn etag(response: &Response) -> String {
    response.element("ETag").unwrap()
}

fn tag(node: &MemoryNode) {
    let document = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>";
    node.send(&object("PUT", "o").query("tagging", "").body(document)).expect(200);
}

#[test]
fn completion_sent_again_succeeds_while_its_object_stands() {
    for headers in kinds() {
        let node = MemoryNode::new();
        let id = node.create_upload(object("POST", "o").headers(headers.clone()));
        let first = part(&node, &headers, &id, 1, bytes(1, 5 << 20));
        let second = part(&node, &headers, &id, 2, "second");
        let whole = complete(&id, &[(1, &first), (2, &second)]);
        let done = node.send(&whole).expect(200);
        // The condition held then.
        for again in [whole.clone(), whole.clone().header("if-none-match", "*"), whole.clone().headers(headers.clone())]
        {
            let again = node.send(&again).expect(200);
            assert_eq!((etag(&again), again.element("Location")), (etag(&done), done.element("Location")));
        }
        tag(&node);
        assert_eq!(etag(&node.send(&whole).expect(200)), etag(&done), "after new tags");
        for other in [
            complete(&id, &[(1, &first)]),
            complete(&id, &[(1, &second), (2, &first)]),
            complete(&id, &[(1, &first), (3, &second)]),
            complete(&id, &[(1, &first), (2, "\"0123456789abcdef0123456789abcdef\"")]),
        ] {
            assert_error(&node.send(&other), 400, "InvalidPart");
        }
        let size = whole.clone().header("x-amz-mp-object-size", "1");
        assert_error(&node.send(&size), 400, "InvalidRequest");
        assert_error(&node.send(&complete(&"0".repeat(32), &[(1, &first)])), 404, "NoSuchUpload");

        node.send(&object("PUT", "o").body("another")).expect(200);
        assert_error(&node.send(&whole), 404, "NoSuchUpload");
        assert_eq!(node.send(&object("GET", "o")).expect(200).text(), "another");
        node.send(&object("DELETE", "o")).expect(204);
        assert_error(&node.send(&whole), 404, "NoSuchUpload");
    }
}

#[test]
fn completion_sent_again_returns_its_checksums() {
    for headers in kinds() {
        let node = MemoryNode::new();
        let create = object("POST", "o").headers(headers.clone()).header("x-amz-checksum-algorithm", "CRC32");
        let id = node.create_upload(create.header("x-amz-checksum-type", "FULL_OBJECT"));
        let only = part(&node, &headers, &id, 1, "123456789");
        let whole = complete(&id, &[(1, &only)]).headers(headers.clone());
        for _ in 0..2 {
            let done = node.send(&whole.clone().header("x-amz-checksum-crc32", "y/Q5Jg==")).expect(200);
            assert_eq!(done.element("ChecksumCRC32").as_deref(), Some("y/Q5Jg=="));
            assert_eq!(done.element("ChecksumType").as_deref(), Some("FULL_OBJECT"));
        }
        assert_error(&node.send(&whole.header("x-amz-checksum-crc32", "AAAAAA==")), 400, "BadDigest");
    }
}

#[test]
fn copies_are_not_the_completed_object() {
    let node = MemoryNode::new();
    let id = node.create_upload(object("POST", "o"));
    let only = part(&node, &Vec::new(), &id, 1, "part");
    let whole = completion("o", &id, &only);
    node.send(&whole).expect(200);
    let copy = |to: &str, from: &str| {
        let copy = object("PUT", to).header("x-amz-copy-source", format!("bucket/{from}"));
        node.send(&copy.header("x-amz-metadata-directive", "REPLACE")).expect(200);
    };
    copy("copy", "o");
    assert_error(&node.send(&completion("copy", &id, &only)), 404, "NoSuchUpload");
    copy("o", "o");
    assert_error(&node.send(&whole), 404, "NoSuchUpload");
}

#[test]
fn wrong_key_of_repeated_completion_is_refused() {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    let headers = key.headers().to_vec();
    let id = node.create_upload(object("POST", "o").headers(headers.clone()));
    let only = part(&node, &headers, &id, 1, "part");
    let whole = complete(&id, &[(1, &only)]);
    node.send(&whole.clone().headers(headers)).expect(200);
    node.send(&whole).expect(200);
    let other = node.send(&whole.headers(CustomerKey::random().headers()));
    assert_error(&other, 400, "InvalidRequest");
    assert_eq!(node.send(&keyed("GET", "o", &key)).expect(200).text(), "part");
}

#[test]
fn part_of_an_earlier_attempt_is_used_by_its_etag() {
    for headers in kinds() {
        for chosen in 0..3 {
            let node = MemoryNode::new();
            let id = node.create_upload(object("POST", "o").headers(headers.clone()));
            let bodies = ["first", "second try", "the third"];
            let etags = bodies.map(|body| part(&node, &headers, &id, 1, body));
            // The list has the newest attempt alone.
            let list = node.send(&object("GET", "o").query("uploadId", &id).headers(headers.clone())).expect(200);
            assert_eq!(list.text().matches("<Part>").count(), 1, "{}", list.text());
            assert_eq!(etag(&list), etags[2]);
            let whole = complete(&id, &[(1, &etags[chosen])]);
            let done = node.send(&whole.clone().headers(headers.clone())).expect(200);
            assert_eq!(etag(&node.send(&whole).expect(200)), etag(&done), "again");
            let got = node.send(&object("GET", "o").headers(headers.clone())).expect(200);
            assert_eq!(got.text(), bodies[chosen]);
        }
    }
}

#[test]
fn oldest_of_too_many_attempts_is_dropped() {
    for headers in kinds() {
        let node = MemoryNode::new();
        let id = node.create_upload(object("POST", "o").headers(headers.clone()));
        let etags: Vec<_> = (0..5).map(|attempt| part(&node, &headers, &id, 1, format!("attempt {attempt}"))).collect();
        assert_error(&node.send(&complete(&id, &[(1, &etags[0])])), 400, "InvalidPart");
        node.send(&complete(&id, &[(1, &etags[1])])).expect(200);
        assert_eq!(node.send(&object("GET", "o").headers(headers)).expect(200).text(), "attempt 1");
    }
}

#[test]
fn checksums_belong_to_their_attempt() {
    for headers in kinds() {
        let node = MemoryNode::new();
        let create = object("POST", "o").headers(headers.clone()).header("x-amz-checksum-algorithm", "CRC32");
        let id = node.create_upload(create.header("x-amz-checksum-type", "FULL_OBJECT"));
        let first = part(&node, &headers, &id, 1, "123456789");
        part(&node, &headers, &id, 1, "another try");
        let done = node.send(&complete(&id, &[(1, &first)]).headers(headers)).expect(200);
        assert_eq!(done.element("ChecksumCRC32").as_deref(), Some("y/Q5Jg=="));
    }
}

/// Uploads an object in three parts, two of them of several blocks.
fn store_in_parts(node: &MemoryNode, headers: &Headers) {
    let id = node.create_upload(object("POST", "o").headers(headers.clone()));
    let etags = [PART_MIN as usize, PART_MIN as usize, 7].map(|len| bytes(len as u64, len));
    let etags: Vec<String> =
        etags.into_iter().zip(1..).map(|(body, number)| part(node, headers, &id, number, body)).collect();
    let chosen: Vec<(u16, &str)> = (1..).zip(etags.iter().map(String::as_str)).collect();
    node.send(&complete(&id, &chosen)).expect(200);
}

/// A response goes on with the parts of the object that it began with, also as a sealed object file.
#[test]
fn response_survives_the_deletion_of_its_object() {
    for headers in kinds() {
        let read = object("GET", "o").headers(headers.clone());
        let file = object("GET", "o").header("x-keyhole-sealed", "1");
        for get in if headers.is_empty() { vec![read] } else { vec![read, file] } {
            for end in [object("DELETE", "o"), object("PUT", "o").body("another")] {
                let node = MemoryNode::new();
                store_in_parts(&node, &headers);
                let expected = node.send(&get).expect(200).body;
                let mut connection = node.connect();
                connection.limit(CHUNK_LEN);
                let get = node.signed(&node.signer(), &get);
                connection.write_all(get.head(address()).as_bytes()).unwrap();
                let mut received = Vec::new();
                let mut is_first = true;
                let response = read_reply(&mut connection, "GET", |bytes| {
                    received.extend_from_slice(bytes);
                    if std::mem::take(&mut is_first) {
                        node.send(&end);
                    }
                });
                assert_eq!(response.expect("the whole response").status, 200);
                assert!(received == expected, "{} of {} bytes", received.len(), expected.len());
            }
        }
    }
}

#[test]
fn export_survives_the_deletion_of_its_object() {
    for headers in kinds() {
        let node = MemoryNode::new();
        store_in_parts(&node, &headers);
        let log = node.log.clone();
        let (len, expected) = node.run(async move {
            let object = log.object(BUCKET, "o").await.unwrap().unwrap();
            let mut export = Export::new(&log, BUCKET, "o", &object).unwrap();
            drop(object);
            assert!(log.delete_object(BUCKET, "o", NOW_MS, Condition::None).await.unwrap());
            let mut len = 0;
            while let Some((_, at)) = export.next().await.unwrap() {
                len += at.len() as u64;
            }
            (len, export.file_len())
        });
        assert_eq!(len, expected);
    }
}
