//! GetObjectAttributes, and the checksums of objects in parts.

use keyhole_tests::data::{base64, bytes};
use keyhole_tests::http::object;
use keyhole_tests::{CustomerKey, Node, Request, Response};

fn attributes(key: &str, names: &str) -> Request {
    object("GET", key).query("attributes", "").header("x-amz-object-attributes", names)
}

const ALL: &str = "ETag,Checksum,ObjectParts,StorageClass,ObjectSize";

fn crc32(bytes: &[u8]) -> [u8; 4] {
    crc32fast::hash(bytes).to_be_bytes()
}

#[track_caller]
fn assert_error(reply: &Response, status: u16, code: &str) {
    assert_eq!((reply.status, reply.element("Code").as_deref()), (status, Some(code)), "{}", reply.text());
}

#[test]
fn attributes_of_object_match_its_put() {
    let node = Node::with_bucket();
    let key = CustomerKey::random();
    let other = CustomerKey::random();
    let body = bytes(1, 70_000);
    for (name, headers) in [("plain", Vec::new()), ("sealed", key.headers().to_vec())] {
        let sum = base64(&crc32(&body));
        let put = object("PUT", name).headers(headers.clone()).header("x-amz-checksum-crc32", &sum);
        let put = node.send(&put.body(body.clone())).expect(200);
        let got = node.send(&attributes(name, ALL).headers(headers.clone())).expect(200);
        assert_eq!(got.element("ETag"), put.header("etag").map(|etag| etag.trim_matches('"').to_owned()));
        assert_eq!(got.element("ChecksumCRC32"), Some(sum));
        assert_eq!(got.element("ChecksumType").as_deref(), Some("FULL_OBJECT"));
        assert_eq!(got.element("StorageClass").as_deref(), Some("STANDARD"));
        assert_eq!(got.element("ObjectSize").as_deref(), Some("70000"));
        assert_eq!(got.element("ObjectParts"), None);
        assert!(got.header("last-modified").is_some());
        assert!(got.headers.iter().all(|(name, _)| !name.contains("server-side-encryption")), "{got:?}");
        let only = node.send(&attributes(name, "ObjectSize").headers(headers)).expect(200);
        assert_eq!((only.element("ObjectSize").as_deref(), only.element("ETag")), (Some("70000"), None));
    }
    let get = |name: &str, headers: [(String, String); 3]| node.send(&attributes(name, ALL).headers(headers));
    assert_error(&node.send(&attributes("sealed", ALL)), 400, "InvalidRequest");
    assert_error(&get("sealed", other.headers()), 403, "AccessDenied");
    assert_error(&get("plain", key.headers()), 400, "InvalidRequest");
    assert_error(&get("absent", key.headers()), 404, "NoSuchKey");
    assert_error(&node.send(&attributes("plain", "Etag")), 400, "InvalidArgument");
    assert_error(&node.send(&object("GET", "plain").query("attributes", "")), 400, "InvalidArgument");
    assert_error(&node.send(&attributes("plain", ALL).header("x-amz-max-parts", "x")), 400, "InvalidArgument");
}

/// Uploads an object in three parts with gaps in their numbers, and returns the checksum
/// declaration of the upload.
fn upload_in_parts(
    node: &Node,
    name: &str,
    headers: &[(String, String)],
    kind: Option<&str>,
) -> (Vec<Vec<u8>>, Response) {
    let bodies = vec![bytes(2, 5 << 20), bytes(3, (5 << 20) + 1), bytes(4, 70_000)];
    let mut create = object("POST", name).query("uploads", "").headers(headers.to_vec());
    if let Some(kind) = kind {
        create = create.header("x-amz-checksum-algorithm", "CRC32").header("x-amz-checksum-type", kind);
    }
    let id = node.send(&create).expect(200).element("UploadId").unwrap();
    let mut document = String::from("<CompleteMultipartUpload>");
    for (number, body) in [2, 4, 7].into_iter().zip(&bodies) {
        let mut part = object("PUT", name).query("partNumber", &number.to_string()).query("uploadId", &id);
        let sum = base64(&crc32(body));
        part = part.headers(headers.to_vec()).header("x-amz-checksum-crc32", &sum);
        let etag = node.send(&part.body(body.clone())).expect(200).header("etag").unwrap().to_owned();
        let sum = format!("<ChecksumCRC32>{sum}</ChecksumCRC32>");
        document += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag>{sum}</Part>");
    }
    document += "</CompleteMultipartUpload>";
    let complete = object("POST", name).query("uploadId", &id).headers(headers.to_vec()).body(document);
    (bodies, node.send(&complete).expect(200))
}

#[test]
fn attributes_of_multipart_object_list_its_parts() {
    let node = Node::with_bucket();
    let key = CustomerKey::random();
    let other = CustomerKey::random();
    for (name, headers) in [("plain", Vec::new()), ("sealed", key.headers().to_vec())] {
        let (bodies, done) = upload_in_parts(&node, name, &headers, Some("COMPOSITE"));
        let sums: Vec<[u8; 4]> = bodies.iter().map(|body| crc32(body)).collect();
        let composite = base64(&crc32(&sums.concat()));
        // Headers and the completion include the number of parts; attributes do not.
        assert_eq!(done.element("ChecksumCRC32"), Some(format!("{composite}-3")));
        assert_eq!(done.element("ChecksumType").as_deref(), Some("COMPOSITE"));
        let read = |name: &str, headers: &[(String, String)], part: Option<&str>| {
            let get = object("GET", name).headers(headers.to_vec()).header("x-amz-checksum-mode", "ENABLED");
            node.send(&part.map_or(get.clone(), |part| get.query("partNumber", part)))
        };
        let whole = read(name, &headers, None).expect(200);
        assert_eq!(whole.header("x-amz-checksum-crc32"), Some(&format!("{composite}-3")[..]));
        assert_eq!(whole.header("x-amz-checksum-type"), Some("COMPOSITE"));
        assert!(whole.body == bodies.concat());
        let second = read(name, &headers, Some("2")).expect(206);
        assert_eq!(second.header("x-amz-checksum-crc32"), Some(&base64(&sums[1])[..]));
        assert_eq!(second.header("x-amz-mp-parts-count"), Some("3"));
        assert!(second.body == bodies[1]);
        assert_error(&read(name, &headers, Some("4")), 416, "InvalidPartNumber");

        let check = |name: &str, headers: &[(String, String)]| {
            let got = node.send(&attributes(name, ALL).headers(headers.to_vec())).expect(200);
            assert_eq!(got.element("Checksum").unwrap(), {
                format!("<ChecksumCRC32>{composite}</ChecksumCRC32><ChecksumType>COMPOSITE</ChecksumType>")
            });
            let parts: String = (1..)
                .zip(bodies.iter().zip(&sums))
                .map(|(number, (body, sum))| {
                    format!(
                        "<Part><PartNumber>{number}</PartNumber><Size>{}</Size><ChecksumCRC32>{}</ChecksumCRC32></Part>",
                        body.len(),
                        base64(sum)
                    )
                })
                .collect();
            let expected = "<PartNumberMarker>0</PartNumberMarker><NextPartNumberMarker>3</NextPartNumberMarker>\
                <MaxParts>1000</MaxParts><IsTruncated>false</IsTruncated>";
            assert_eq!(got.element("ObjectParts").unwrap(), format!("{expected}{parts}<PartsCount>3</PartsCount>"));
        };
        check(name, &headers);
        let page = attributes(name, "ObjectParts").headers(headers.clone()).header("x-amz-max-parts", "1");
        let page = node.send(&page.header("x-amz-part-number-marker", "1")).expect(200);
        assert_eq!(page.text().matches("<Part>").count(), 1);
        assert_eq!(page.element("PartNumber").as_deref(), Some("2"));
        assert_eq!(page.element("IsTruncated").as_deref(), Some("true"));
        assert_eq!(page.element("NextPartNumberMarker").as_deref(), Some("2"));

        // A copy with another key shares the bodies with their checksums; a change of tags keeps
        // them.
        let mut copy = object("PUT", "copy").header("x-amz-copy-source", format!("/bucket/{name}"));
        let mut of_copy = Vec::new();
        if !headers.is_empty() {
            copy = copy.headers(key.copy_source_headers()).headers(other.headers());
            of_copy = other.headers().to_vec();
        }
        node.send(&copy).expect(200);
        let tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>";
        node.send(&object("PUT", "copy").query("tagging", "").body(tags)).expect(200);
        check("copy", &of_copy);
    }
    // A copy from sealed to plain merges the parts and drops their checksum.
    let copy = object("PUT", "opened").header("x-amz-copy-source", "/bucket/sealed");
    node.send(&copy.headers(key.copy_source_headers())).expect(200);
    let got = node.send(&attributes("opened", ALL)).expect(200);
    assert_eq!((got.element("Checksum"), got.element("ObjectParts")), (None, None));
}

#[test]
fn parts_without_checksums_are_only_counted() {
    let node = Node::with_bucket();
    let key = CustomerKey::random();
    for headers in [Vec::new(), key.headers().to_vec()] {
        for kind in [None, Some("FULL_OBJECT")] {
            let (bodies, _) = upload_in_parts(&node, "o", &headers, kind);
            let got = node.send(&attributes("o", ALL).headers(headers.clone())).expect(200);
            assert_eq!(got.element("ObjectParts").as_deref(), Some("<PartsCount>3</PartsCount>"));
            let whole = kind.map(|kind| {
                let sum = base64(&crc32(&bodies.concat()));
                format!("<ChecksumCRC32>{sum}</ChecksumCRC32><ChecksumType>{kind}</ChecksumType>")
            });
            assert_eq!(got.element("Checksum"), whole);
        }
    }
}
