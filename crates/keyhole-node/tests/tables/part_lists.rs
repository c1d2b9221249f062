//! The memory of requests on objects and uploads with many parts, and on many objects at once. All
//! requests together hold no more than the shares of blocks and pages, and answer.

use std::io::Write;

use allocation_counter::measure;
use futures_util::future::join_all;
use keyhole_core::body::MultipartEtag;
use keyhole_core::head::Head;
use keyhole_log::limits::{BUFFER_LEN, PAGE, PARTS_MAX};
use keyhole_log::{CompleteUpload, Condition, CreateUpload, Disk, Etag, PutPart};
use keyhole_node::limits::PART_MIN;
use keyhole_node::{OwnPolicy, Share};
use keyhole_tests::Request;
use keyhole_tests::http::{object, read_reply};

use crate::support::{BUCKET, MemoryNode, NOW_MS, address};

/// Concurrent requests: without a bound they hold several times the shares.
const REQUESTS: usize = 24;

/// Bytes that a connection holds beside the shares: those that the budget reckons with, and the
/// buffers of both ends of the connection in memory.
const CONNECTION_LEN: usize = 2 * 32 * 1024;

/// Bytes of the log's own buffers of a worker.
const LOG_LEN: usize = 4 * BUFFER_LEN;

/// Bytes of the record of an object with [`PARTS_MAX`] parts on the medium, which is in memory too.
const RECORD_LEN: usize = 704 * 1024;

/// Returns the bytes that the node may hold for so many requests, with those that each writes to the
/// medium.
fn bytes_max(requests: usize, written: usize) -> u64 {
    let shares = Share::MIN.blocks * BUFFER_LEN + Share::MIN.pages * PAGE;
    (shares + LOG_LEN + requests * (CONNECTION_LEN + written)) as u64
}

/// Stores an upload with so many parts, each of one byte, although its record says `size`. Only the
/// log takes such parts. Returns the upload's id.
fn store_upload(node: &MemoryNode, key: &str, parts: usize, size: u64) -> [u8; 16] {
    let log = node.log.clone();
    let mut id = [0; 16];
    id[..key.len()].copy_from_slice(key.as_bytes());
    let key = key.to_owned();
    node.run(async move {
        let mut head = vec![0; 64];
        let len = Head::default().encode(&mut head).unwrap();
        head.truncate(len);
        let bucket = BUCKET.to_owned();
        let tags = Vec::new();
        let (sealed, declared, time_ms) = (false, None, NOW_MS);
        let create = CreateUpload { bucket, key: key.clone(), id, head, tags, sealed, time_ms, declared };
        log.create_upload(create).await.unwrap();
        let upload = log.upload(BUCKET, &key, &id).unwrap().unwrap();
        let put = async |number: usize| {
            let last = log.disk().buffer_with_len(PAGE);
            let content = log.body_writer().finish(Some((last, 1, &[])), &[]).await.unwrap();
            let part = PutPart {
                upload: upload.clone(),
                number: number as u16,
                content,
                salt: [0; 24],
                etag: etag(number),
                size,
                time_ms: NOW_MS,
                checksums: Vec::new(),
            };
            log.put_part(part).await.unwrap();
        };
        for first in (1..=parts).step_by(500) {
            join_all((first..=parts.min(first + 499)).map(&put)).await;
        }
    });
    id
}

/// Returns the ETag of a part.
fn etag(number: usize) -> [u8; 16] {
    (number as u128).to_le_bytes()
}

/// Stores an object with so many parts of one byte.
fn store_object(node: &MemoryNode, key: &str, parts: usize) {
    let id = store_upload(node, key, parts, 1);
    let log = node.log.clone();
    let key = key.to_owned();
    node.run(async move {
        let upload = log.upload(BUCKET, &key, &id).unwrap().unwrap();
        let mut digest = MultipartEtag::new();
        (1..=parts).for_each(|number| digest.update(&etag(number)));
        let stored = log.parts(&upload, 0, PARTS_MAX).unwrap().into_iter().map(|part| part.part).collect();
        let head = log.upload_head(&upload).await.unwrap().head;
        let complete = CompleteUpload {
            upload,
            parts: stored,
            head,
            tags: Vec::new(),
            part_checksums: Vec::new(),
            bound: false,
            etag: Etag { digest: digest.finish(), parts: parts as u16 },
            size: parts as u64,
            time_ms: NOW_MS,
            condition: Condition::None,
        };
        log.complete_upload(complete).await.unwrap();
    });
}

/// Returns the request to complete an upload from so many parts.
fn completion(key: &str, id: &[u8; 16], parts: usize) -> Request {
    let part = |number: usize| {
        format!("<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag></Part>", hex::encode(etag(number)))
    };
    let parts: String = (1..=parts).map(part).collect();
    let document = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    object("POST", key).query("uploadId", &hex::encode(id)).body(document)
}

/// Sends requests at once, each over its own connection. Checks the most memory that the node and its
/// clients held meanwhile, and that each response has one of the statuses; the first of them at least
/// once.
#[track_caller]
fn check(node: &MemoryNode, what: &str, requests: &[Request], written: usize, statuses: &[u16]) {
    // Checkpoints of the objects that were stored for the test.
    node.run_until_blocked();
    let mut connections: Vec<_> = requests
        .iter()
        .map(|request| {
            let signed = node.signed(&node.signer(), request);
            let mut connection = node.connect();
            connection.write_all(&signed.to_bytes(address())).unwrap();
            (connection, request)
        })
        .collect();
    let held = measure(|| node.run_until_blocked()).bytes_max;
    let max = bytes_max(requests.len(), written);
    println!("{what}: {} KiB held for {} requests, at most {}", held >> 10, requests.len(), max >> 10);
    let mut served = 0;
    for (connection, request) in &mut connections {
        let response = read_reply(connection, request.method(), |_| {}).unwrap();
        assert!(statuses.contains(&response.status), "{what}: {}", response.status);
        served += usize::from(response.status == statuses[0]);
    }
    assert!(served > 0, "{what}");
    assert!(held <= max, "{what}: {held} bytes held, at most {max}");
}

#[test]
fn requests_on_objects_with_many_parts_hold_bounded_memory() {
    let node = MemoryNode::new();
    store_object(&node, "many", PARTS_MAX);
    let source = || object("PUT", "copy").header("x-amz-copy-source", format!("{BUCKET}/many"));
    let tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>";
    let attributes = "ETag,Checksum,ObjectParts,ObjectSize";
    let part_copy = |id: &str| source().query("partNumber", "1").query("uploadId", id);
    let upload = node.create_upload(object("POST", "copy"));
    for (what, request, written, statuses) in [
        ("GET", object("GET", "many"), 0, &[200][..]),
        ("GET of a range", object("GET", "many").header("range", "bytes=5000-5009"), 0, &[206]),
        ("GET of a part", object("GET", "many").query("partNumber", "9999"), 0, &[206]),
        ("HEAD", object("HEAD", "many"), 0, &[200]),
        (
            "attributes",
            object("GET", "many").query("attributes", "").header("x-amz-object-attributes", attributes),
            0,
            &[200],
        ),
        ("ACL", object("GET", "many").query("acl", ""), 0, &[200]),
        ("tags", object("GET", "many").query("tagging", ""), 0, &[200]),
        ("CopyObject", source(), RECORD_LEN, &[200]),
        ("UploadPartCopy", part_copy(&upload), 4 * PAGE, &[200]),
        ("PutObjectTagging", object("PUT", "many").query("tagging", "").body(tags), RECORD_LEN, &[200, 409]),
        ("DeleteObjectTagging", object("DELETE", "many").query("tagging", ""), RECORD_LEN, &[204, 409]),
    ] {
        check(&node, what, &vec![request; REQUESTS], written, statuses);
    }
    // The guard reads the object that is overwritten.
    node.set_policy(OwnPolicy { forbids_rekeying: Some(true), ..OwnPolicy::default() });
    check(&node, "guarded PUT", &vec![object("PUT", "many").body("x"); REQUESTS], 4 * PAGE, &[200, 409, 412]);
}

/// Requests that name a version reserve memory for its record, not for that of the current one.
#[test]
fn requests_on_a_version_with_many_parts_hold_bounded_memory() {
    let node = MemoryNode::new();
    let enabled = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    node.send(&Request::new("PUT", "/bucket").query("versioning", "").body(enabled)).expect(200);
    store_object(&node, "many", PARTS_MAX);
    let head = node.send(&object("HEAD", "many")).expect(200);
    let id = head.header("x-amz-version-id").expect("an id").to_owned();
    node.send(&object("PUT", "many").body("x")).expect(200);
    let of_version = |method: &str| object(method, "many").query("versionId", &id);
    let source = || object("PUT", "copy").header("x-amz-copy-source", format!("{BUCKET}/many?versionId={id}"));
    let tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>";
    let attributes = "ETag,Checksum,ObjectParts,ObjectSize";
    let upload = node.create_upload(object("POST", "copy"));
    for (what, request, written, statuses) in [
        ("GET", of_version("GET"), 0, &[200][..]),
        ("HEAD", of_version("HEAD"), 0, &[200]),
        (
            "attributes",
            of_version("GET").query("attributes", "").header("x-amz-object-attributes", attributes),
            0,
            &[200],
        ),
        ("ACL", of_version("GET").query("acl", ""), 0, &[200]),
        ("tags", of_version("GET").query("tagging", ""), 0, &[200]),
        ("CopyObject", source(), RECORD_LEN, &[200]),
        ("UploadPartCopy", source().query("partNumber", "1").query("uploadId", &upload), 4 * PAGE, &[200]),
        ("PutObjectTagging", of_version("PUT").query("tagging", "").body(tags), 4 * PAGE, &[200, 409]),
        ("DeleteObjectTagging", of_version("DELETE").query("tagging", ""), 4 * PAGE, &[204, 409]),
        ("DELETE", of_version("DELETE"), 4 * PAGE, &[204, 409]),
    ] {
        check(&node, what, &vec![request; REQUESTS], written, statuses);
    }
}

#[test]
fn completions_of_many_parts_hold_bounded_memory() {
    const PARTS: usize = 2_000;
    let node = MemoryNode::new();
    let names: Vec<String> = (0..10).map(|number| format!("{number}")).collect();
    let uploads: Vec<_> = names.iter().map(|name| store_upload(&node, name, PARTS, PART_MIN)).collect();
    let requests: Vec<_> = names.iter().zip(&uploads).map(|(name, id)| completion(name, id, PARTS)).collect();
    check(&node, "CompleteMultipartUpload", &requests, RECORD_LEN / 5, &[200]);
    check(&node, "CompleteMultipartUpload again", &requests, 0, &[200]);
    let shorter: Vec<_> = names.iter().zip(&uploads).map(|(name, id)| completion(name, id, 1)).collect();
    check(&node, "CompleteMultipartUpload of other parts", &shorter, 0, &[400]);
}

#[test]
fn listings_of_many_parts_hold_bounded_memory() {
    let node = MemoryNode::new();
    let id = hex::encode(store_upload(&node, "many", 1_000, 1));
    check(&node, "ListParts", &vec![object("GET", "many").query("uploadId", &id); REQUESTS], 0, &[200]);
}

#[test]
fn deletions_of_many_objects_hold_bounded_memory() {
    let node = MemoryNode::new();
    let short: String = (0..1_000).map(|number| format!("<Object><Key>{number}</Key></Object>")).collect();
    let request = Request::new("POST", "/bucket").query("delete", "").body(format!("<Delete>{short}</Delete>"));
    check(&node, "DeleteObjects", &vec![request; REQUESTS], 0, &[200]);
}
