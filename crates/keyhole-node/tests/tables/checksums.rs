//! The checksum algorithms of current SDKs: verified, stored and returned, for plain and sealed
//! objects.

use keyhole_tests::data::base64;
use keyhole_tests::http::object;
use keyhole_tests::{CustomerKey, Request};

use crate::support::{MemoryNode, assert_error, first_part};

const BODY: &str = "123456789";
const CRC32: &str = "y/Q5Jg==";

/// An algorithm, the digest of [`BODY`], and the digest of that digest: the composite checksum of an
/// object of one part. Computed with Python's hashlib and the reference implementation of xxHash.
const ALGORITHMS: [(&str, &str, &str); 5] = [
    (
        "SHA512",
        "2eZ2LdHI6vbWGzxhkvxAjU1tXxF20MKRabwk5xw/J0rSf81YEbMT1oH35V7ALXPUmclUVba1u1A6z1dPuo/+hQ==",
        "BAhVESR8pFuv/S2pHMrDSxjHVgcYCwozEda98ahLvKJ8ll4B1SyOb7caBgdNEU6tpyb0mS26scvZwucvSD0i8A==",
    ),
    ("MD5", "JfnnlDI7RTiF9RgfG2JNCw==", "WSfF1k2UpXhvkAA6om0BWQ=="),
    ("XXHASH64", "jLhB20DmroM=", "aIYCMYPSWcc="),
    ("XXHASH3", "ctyxi2ehff8=", "ksPmtVIgSbU="),
    ("XXHASH128", "MxGUd+3l3NXpcWQnaB1YYA==", "qhtapxAN/tUuBHXli2H9nQ=="),
];

fn header(algorithm: &str) -> String {
    format!("x-amz-checksum-{}", algorithm.to_ascii_lowercase())
}

type Headers = Vec<(String, String)>;

/// The headers of a plain and of a sealed object.
fn kinds() -> [Headers; 2] {
    [Vec::new(), CustomerKey::random().headers().to_vec()]
}

fn read(method: &str, headers: &Headers) -> Request {
    object(method, "o").headers(headers.clone()).header("x-amz-checksum-mode", "ENABLED")
}

/// Returns a streamed body with this trailer.
fn streamed(put: Request, name: &str, value: &str) -> Request {
    let body = format!("{:x}\r\n{BODY}\r\n0\r\n{name}:{value}\r\n\r\n", BODY.len());
    put.header("x-amz-trailer", name)
        .header("x-amz-decoded-content-length", BODY.len().to_string())
        .header("content-encoding", "aws-chunked")
        .payload("STREAMING-UNSIGNED-PAYLOAD-TRAILER")
        .body(body)
}

#[test]
fn checksums_are_verified_stored_and_returned() {
    let node = MemoryNode::new();
    for headers in kinds() {
        let put = || object("PUT", "o").headers(headers.clone());
        for (algorithm, digest, other) in ALGORITHMS {
            let name = header(algorithm);
            for put in [put().body(BODY).header(&*name, digest), streamed(put(), &name, digest)] {
                node.send(&object("DELETE", "o")).expect(204);
                let response = node.send(&put).expect(200);
                assert_eq!(response.header(&name), Some(digest));
                for method in ["GET", "HEAD"] {
                    let response = node.send(&read(method, &headers)).expect(200);
                    assert_eq!(response.header(&name), Some(digest), "{method}");
                    assert_eq!(response.header("x-amz-checksum-type"), Some("FULL_OBJECT"), "{method}");
                }
                let attributes = object("GET", "o").query("attributes", "").headers(headers.clone());
                let attributes = node.send(&attributes.header("x-amz-object-attributes", "Checksum")).expect(200);
                assert_eq!(attributes.element(&format!("Checksum{algorithm}")).as_deref(), Some(digest));
            }
            node.send(&object("DELETE", "o")).expect(204);
            for put in [put().body(BODY).header(&*name, other), streamed(put(), &name, other)] {
                assert_error(&node.send(&put), 400, "BadDigest");
            }
            assert_error(&node.send(&put().body(BODY).header(&*name, "AAAA")), 400, "InvalidRequest");
            node.send(&read("GET", &headers)).expect(404);
        }
        let unknown = put().body(BODY).header("x-amz-checksum-sha256x", "AAAA");
        assert_error(&node.send(&unknown), 501, "NotImplemented");
    }
}

#[test]
fn content_md5_is_no_checksum_of_the_object() {
    let node = MemoryNode::new();
    let digest = ALGORITHMS[1].1;
    node.send(&object("PUT", "o").body(BODY).header("content-md5", digest)).expect(200);
    assert_eq!(node.send(&read("GET", &Vec::new())).expect(200).header("x-amz-checksum-md5"), None);
    let both = object("PUT", "o").body(BODY).header("content-md5", digest).header("x-amz-checksum-md5", digest);
    node.send(&both).expect(200);
    assert_eq!(node.send(&read("GET", &Vec::new())).expect(200).header("x-amz-checksum-md5"), Some(digest));
}

#[test]
fn announced_algorithm_requires_its_checksum() {
    let node = MemoryNode::new();
    let put = |announced: &str| object("PUT", "o").body(BODY).header("x-amz-sdk-checksum-algorithm", announced);
    let xxhash = ALGORITHMS[3].1;
    for refused in [
        put("CRC32"),
        put("XXHASH3"),
        put("SHA256").header("x-amz-checksum-crc32", CRC32),
        put("CRC32").header("x-amz-checksum-xxhash3", xxhash),
        put("CRC32").header("content-md5", ALGORITHMS[1].1),
        put("CRC16"),
        streamed(put("SHA1"), "x-amz-checksum-crc32", CRC32),
    ] {
        assert_error(&node.send(&refused), 400, "InvalidRequest");
        node.send(&object("GET", "o")).expect(404);
    }
    for accepted in [
        put("CRC32").header("x-amz-checksum-crc32", CRC32),
        put("crc32").header("x-amz-checksum-crc32", CRC32),
        put("XXHASH3").header("x-amz-checksum-xxhash3", xxhash),
        streamed(put("CRC32"), "x-amz-checksum-crc32", CRC32),
    ] {
        node.send(&accepted).expect(200);
        node.send(&object("DELETE", "o")).expect(204);
    }
    // A part, and a document.
    let id = node.create_upload(object("POST", "o"));
    let part = first_part(put("CRC32"), &id);
    assert_error(&node.send(&part), 400, "InvalidRequest");
    node.send(&part.header("x-amz-checksum-crc32", CRC32)).expect(200);
    let delete = Request::new("POST", "/bucket").query("delete", "").header("x-amz-sdk-checksum-algorithm", "CRC32");
    let delete = delete.body("<Delete><Object><Key>o</Key></Object></Delete>");
    assert_error(&node.send(&delete), 400, "InvalidRequest");
}

#[test]
fn checksum_in_header_and_trailer_is_verified_in_both() {
    let node = MemoryNode::new();
    let wrong = "AAAAAA==";
    for headers in kinds() {
        let put = |header: &str, trailer: &str| {
            let put = object("PUT", "o").headers(headers.clone()).header("x-amz-checksum-crc32", header);
            node.send(&streamed(put, "x-amz-checksum-crc32", trailer))
        };
        assert_error(&put(wrong, CRC32), 400, "BadDigest");
        assert_error(&put(CRC32, wrong), 400, "BadDigest");
        node.send(&read("GET", &headers)).expect(404);
        assert_eq!(put(CRC32, CRC32).expect(200).header("x-amz-checksum-crc32"), Some(CRC32));
        let other = object("PUT", "o").headers(headers.clone()).header("x-amz-checksum-sha1", base64(&[0; 20]));
        assert_error(&node.send(&streamed(other, "x-amz-checksum-crc32", CRC32)), 400, "InvalidRequest");
        node.send(&object("DELETE", "o")).expect(204);
    }
}

#[test]
fn multipart_checksums_are_composite() {
    let node = MemoryNode::new();
    for headers in kinds() {
        for (algorithm, digest, composite) in ALGORITHMS {
            let name = header(algorithm);
            let create = object("POST", "o").headers(headers.clone()).header("x-amz-checksum-algorithm", algorithm);
            let full = create.clone().query("uploads", "").header("x-amz-checksum-type", "FULL_OBJECT");
            assert_error(&node.send(&full), 400, "InvalidRequest");
            let id = node.create_upload(create);
            let part = first_part(object("PUT", "o"), &id).headers(headers.clone()).body(BODY);
            assert_error(&node.send(&part), 400, "InvalidRequest");
            assert_error(&node.send(&part.clone().header(&*name, composite)), 400, "BadDigest");
            let part = node.send(&part.header(&*name, digest)).expect(200);
            assert_eq!(part.header(&name), Some(digest));
            let listed = node.send(&object("GET", "o").headers(headers.clone()).query("uploadId", &id)).expect(200);
            let element = format!("Checksum{algorithm}");
            assert_eq!(listed.element(&element).as_deref(), Some(digest), "{}", listed.text());

            let complete = |digest: &str| {
                let etag = part.header("etag").unwrap();
                let named = format!("<PartNumber>1</PartNumber><ETag>{etag}</ETag><{element}>{digest}</{element}>");
                let document = format!("<CompleteMultipartUpload><Part>{named}</Part></CompleteMultipartUpload>");
                object("POST", "o").headers(headers.clone()).query("uploadId", &id).body(document)
            };
            assert_error(&node.send(&complete(composite)), 400, "InvalidPart");
            let done = node.send(&complete(digest)).expect(200);
            assert_eq!(done.element(&element), Some(format!("{composite}-1")));
            assert_eq!(done.element("ChecksumType").as_deref(), Some("COMPOSITE"));
            let got = node.send(&read("GET", &headers)).expect(200);
            assert_eq!(got.header(&name), Some(&format!("{composite}-1")[..]));
            let first = node.send(&read("GET", &headers).query("partNumber", "1")).expect(206);
            assert_eq!(first.header(&name), Some(digest));
        }
    }
}

#[test]
fn copy_computes_the_requested_checksum() {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    let plain = Vec::new();
    let sealed = key.headers().to_vec();
    for (from, to) in [(&plain, &plain), (&sealed, &sealed), (&plain, &sealed), (&sealed, &plain)] {
        node.send(&object("PUT", "source").headers(from.clone()).body(BODY).header("x-amz-checksum-crc32", CRC32))
            .expect(200);
        let source = if from.is_empty() { Vec::new() } else { key.copy_source_headers().to_vec() };
        let copy = object("PUT", "o").header("x-amz-copy-source", "bucket/source").headers(source).headers(to.clone());
        // Without a wish, the checksum of the source.
        let response = node.send(&copy).expect(200);
        assert_eq!(response.element("ChecksumCRC32").as_deref(), Some(CRC32), "{}", response.text());
        for (algorithm, digest, _) in ALGORITHMS.into_iter().chain([("CRC32", CRC32, "")]) {
            let response = node.send(&copy.clone().header("x-amz-checksum-algorithm", algorithm)).expect(200);
            assert_eq!(response.element(&format!("Checksum{algorithm}")).as_deref(), Some(digest));
            assert_eq!(response.element("ChecksumType").as_deref(), Some("FULL_OBJECT"));
            let got = node.send(&read("GET", to)).expect(200);
            assert_eq!((got.header(&header(algorithm)), got.text()), (Some(digest), BODY.to_owned()));
            assert_eq!(got.headers.iter().filter(|(name, _)| name.starts_with("x-amz-checksum-")).count(), 2);
        }
        assert_error(&node.send(&copy.header("x-amz-checksum-algorithm", "CRC16")), 400, "InvalidRequest");
    }
}

#[test]
fn copy_of_multipart_object_gets_a_checksum_of_the_whole() {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    for (headers, source) in [(Vec::new(), Vec::new()), (key.headers().to_vec(), key.copy_source_headers().to_vec())] {
        let create = object("POST", "o").headers(headers.clone()).header("x-amz-checksum-algorithm", "XXHASH3");
        let id = node.create_upload(create);
        let part = first_part(object("PUT", "o"), &id).headers(headers.clone()).body(BODY);
        let part = node.send(&part.header("x-amz-checksum-xxhash3", ALGORITHMS[3].1)).expect(200);
        let etag = part.header("etag").unwrap();
        let named = format!(
            "<PartNumber>1</PartNumber><ETag>{etag}</ETag><ChecksumXXHASH3>{}</ChecksumXXHASH3>",
            ALGORITHMS[3].1
        );
        let document = format!("<CompleteMultipartUpload><Part>{named}</Part></CompleteMultipartUpload>");
        let complete = object("POST", "o").headers(headers.clone()).query("uploadId", &id).body(document);
        node.send(&complete).expect(200);
        // Onto itself: the checksum is what changes.
        let copy = object("PUT", "o").header("x-amz-copy-source", "bucket/o").headers(headers.clone()).headers(source);
        let (algorithm, digest, _) = ALGORITHMS[0];
        let copied = node.send(&copy.header("x-amz-checksum-algorithm", algorithm)).expect(200);
        assert_eq!(copied.element("ChecksumSHA512").as_deref(), Some(digest));
        let got = node.send(&read("GET", &headers)).expect(200);
        assert_eq!(got.header("x-amz-checksum-sha512"), Some(digest));
        assert_eq!(
            (got.header("x-amz-checksum-type"), got.header("x-amz-checksum-xxhash3")),
            (Some("FULL_OBJECT"), None)
        );
    }
}
