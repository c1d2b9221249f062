//! Checksums of multipart uploads: those required with a part, those computed, and those of the
//! completion.

use keyhole_tests::data::{base64, bytes};
use keyhole_tests::http::object;
use keyhole_tests::{CustomerKey, Node, Request, Response};

const CRC32: &str = "x-amz-checksum-crc32";

fn crc32(bytes: &[u8]) -> String {
    base64(&crc32fast::hash(bytes).to_be_bytes())
}

#[track_caller]
fn assert_error(reply: &Response, code: &str, words: &str) {
    assert_eq!((reply.status, reply.element("Code").as_deref()), (400, Some(code)), "{}", reply.text());
    assert!(reply.element("Message").unwrap().contains(words), "{}", reply.text());
}

/// An upload in progress.
struct Upload<'n> {
    node: &'n Node,
    id: String,
    headers: Vec<(String, String)>,
}

impl<'n> Upload<'n> {
    fn new(node: &'n Node, headers: &[(String, String)], declared: &[(&str, &str)]) -> Self {
        let mut create = object("POST", "o").query("uploads", "").headers(headers.to_vec());
        for (name, value) in declared {
            create = create.header(*name, *value);
        }
        let id = node.send(&create).expect(200).element("UploadId").unwrap();
        Upload { node, id, headers: headers.to_vec() }
    }

    fn request(&self, method: &str) -> Request {
        object(method, "o").query("uploadId", &self.id).headers(self.headers.clone())
    }

    fn part(&self, number: u16, body: &[u8], checksum: Option<(&str, &str)>) -> Response {
        let part = self.request("PUT").query("partNumber", &number.to_string()).body(body.to_vec());
        self.node.send(&checksum.map_or(part.clone(), |(name, value)| part.header(name, value)))
    }

    fn complete(&self, parts: &[String], headers: &[(&str, &str)]) -> Response {
        let parts = parts.concat();
        let document = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
        let mut complete = self.request("POST").body(document);
        for (name, value) in headers {
            complete = complete.header(*name, *value);
        }
        self.node.send(&complete)
    }

    fn list(&self) -> String {
        self.node.send(&self.request("GET")).expect(200).text()
    }
}

/// Formats an element of a completion, with an optional checksum.
fn named(number: u16, etag: &str, checksum: Option<&str>) -> String {
    let checksum = checksum.map_or(String::new(), |sum| format!("<ChecksumCRC32>{sum}</ChecksumCRC32>"));
    format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag>{checksum}</Part>")
}

fn etag(reply: &Response) -> String {
    reply.header("etag").unwrap().to_owned()
}

#[test]
fn part_checksums_combine_into_object_checksum() {
    let node = Node::with_bucket();
    let key = CustomerKey::random();
    for headers in [Vec::new(), key.headers().to_vec()] {
        let upload = Upload::new(&node, &headers, &[("x-amz-checksum-algorithm", "CRC32")]);
        let expected = "expected checksum Type: crc32, actual checksum Type: ";
        assert_error(&upload.part(1, b"part", None), "InvalidRequest", &format!("{expected}null"));
        let sha = base64(&[0; 32]);
        let other = upload.part(1, b"part", Some(("x-amz-checksum-sha256", &sha)));
        assert_error(&other, "InvalidRequest", &format!("{expected}sha256"));
        assert_error(&upload.part(1, b"part", Some((CRC32, &crc32(b"other")))), "BadDigest", "CRC32");
        assert!(!upload.list().contains("<Part>"), "{}", upload.list());

        let sum = crc32(b"part");
        let tag = etag(&upload.part(1, b"part", Some((CRC32, &sum))).expect(200));
        let missing = "It was missing for part 1 in the request.";
        assert_error(&upload.complete(&[named(1, &tag, None)], &[]), "InvalidRequest", missing);
        let parts = [named(1, &tag, Some(&sum))];
        let whole = base64(&crc32fast::hash(&crc32fast::hash(b"part").to_be_bytes()).to_be_bytes());
        for wrong in [&sum[..], &format!("{whole}-2")] {
            assert_error(&upload.complete(&parts, &[(CRC32, wrong)]), "BadDigest", "CRC32");
        }
        let kind = ("x-amz-checksum-type", "FULL_OBJECT");
        assert_error(&upload.complete(&parts, &[kind]), "BadDigest", "COMPOSITE");
        let kind = ("x-amz-checksum-type", "COMPOSITE");
        let done = upload.complete(&parts, &[(CRC32, &format!("{whole}-1")), kind]).expect(200);
        assert_eq!(done.element("ChecksumCRC32"), Some(format!("{whole}-1")));
    }
}

#[test]
fn missing_part_checksums_are_computed() {
    let node = Node::with_bucket();
    let key = CustomerKey::random();
    let first = bytes(1, 5 << 20);
    let source = bytes(2, 3000);
    node.send(&object("PUT", "source").body(source.clone())).expect(200);
    let second = &source[100..2100];
    let whole = [&first[..], second].concat();
    for headers in [Vec::new(), key.headers().to_vec()] {
        let declared = [("x-amz-checksum-algorithm", "CRC32"), ("x-amz-checksum-type", "FULL_OBJECT")];
        let upload = Upload::new(&node, &headers, &declared);
        let sha = base64(&[0; 32]);
        assert_error(&upload.part(1, b"x", Some(("x-amz-checksum-sha256", &sha))), "InvalidRequest", "crc32");
        let one = upload.part(1, &first, None).expect(200);
        assert_eq!(one.header(CRC32), Some(&crc32(&first)[..]));
        let copy = upload.request("PUT").query("partNumber", "2").header("x-amz-copy-source", "/bucket/source");
        let two = node.send(&copy.header("x-amz-copy-source-range", "bytes=100-2099")).expect(200);
        assert_eq!(two.element("ChecksumCRC32"), Some(crc32(second)));
        assert_eq!(upload.list().matches("<ChecksumCRC32>").count(), 2, "{}", upload.list());

        let parts = [named(1, &etag(&one), None), named(2, &two.element("ETag").unwrap(), None)];
        let sum = crc32(&whole);
        let size = whole.len().to_string();
        assert_error(&upload.complete(&parts, &[(CRC32, &crc32(b"other"))]), "BadDigest", "CRC32");
        assert_error(&upload.complete(&parts, &[(CRC32, &format!("{sum}-2"))]), "BadDigest", "CRC32");
        assert_error(&upload.complete(&parts, &[("x-amz-checksum-sha256", &sha)]), "InvalidRequest", "sha256");
        assert_error(&upload.complete(&parts, &[("x-amz-mp-object-size", "1")]), "InvalidRequest", &size);
        let correct = [(CRC32, &sum[..]), ("x-amz-mp-object-size", &size), ("x-amz-checksum-type", "FULL_OBJECT")];
        assert_eq!(upload.complete(&parts, &correct).expect(200).element("ChecksumCRC32"), Some(sum.clone()));
        let get = object("GET", "o").headers(headers).header("x-amz-checksum-mode", "ENABLED");
        let got = node.send(&get).expect(200);
        assert_eq!(got.header(CRC32), Some(&sum[..]));
        assert!(got.body == whole);
    }
}

/// An upload without a declaration: the completion is verified with the checksums sent with the
/// parts.
#[test]
fn completion_with_unverified_checksum_is_rejected() {
    let node = Node::with_bucket();
    let key = CustomerKey::random();
    let body = b"the only part";
    let sum = crc32(body);
    for headers in [Vec::new(), key.headers().to_vec()] {
        let upload = Upload::new(&node, &headers, &[]);
        let parts = [named(1, &etag(&upload.part(1, body, Some((CRC32, &sum))).expect(200)), None)];
        assert_error(&upload.complete(&parts, &[(CRC32, &crc32(b"other"))]), "BadDigest", "CRC32");
        assert_error(&upload.complete(&parts, &[("x-amz-checksum-sha1", &base64(&[0; 20]))]), "InvalidRequest", "sha1");
        if !headers.is_empty() {
            // The checksums of the parts are unreadable without the key.
            let blind = Upload { node: &node, id: upload.id.clone(), headers: Vec::new() };
            assert_error(&blind.complete(&parts, &[(CRC32, &sum)]), "InvalidRequest", "expected checksum Type: null");
        }
        let done = upload.complete(&parts, &[(CRC32, &sum)]).expect(200);
        assert_eq!(done.element("ChecksumCRC32"), Some(sum.clone()));
        let upload = Upload::new(&node, &headers, &[]);
        let parts = [named(1, &etag(&upload.part(1, body, None).expect(200)), None)];
        assert_error(&upload.complete(&parts, &[(CRC32, &sum)]), "InvalidRequest", "actual checksum Type: crc32");
        upload.complete(&parts, &[]).expect(200);
    }
}
