//! Secrets that must not be stored or logged.

use keyhole_tests::data::{base64, md5};
use keyhole_tests::{CustomerKey, Launch, Request};

const PATTERN: &[u8; 64] = b"the pattern: sixty-four bytes that stand nowhere else, 012345678";
const PLAIN: &[u8; 64] = b"the plain object: sixty-four bytes that everybody may read here.";
const METADATA: &str = "a-value-of-user-metadata-that-is-secret";

/// Stores the pattern in every possible way, with valid and invalid keys, at the most verbose log
/// level.
#[test]
fn secrets_are_absent_from_files_and_logs() {
    let mut node = Launch::default().with_credential().capacity(Some("128MiB")).arg("--log=trace").start();
    let key = CustomerKey::random();
    let other = CustomerKey::random();
    node.make_bucket("secrets");
    let sealed = |method: &str, path: &str| {
        Request::new(method, path).headers(key.headers()).header("x-amz-meta-secret", METADATA)
    };
    let many = PATTERN.repeat(40_000);
    node.send(&sealed("PUT", "/secrets/small").body(PATTERN)).expect(200);
    node.send(&sealed("PUT", "/secrets/large").body(many)).expect(200);
    let upload = node.send(&sealed("POST", "/secrets/parts").query("uploads", "")).expect(200);
    let id = upload.element("UploadId").unwrap();
    let part = Request::new("PUT", "/secrets/parts").query("partNumber", "1").query("uploadId", &id);
    let etag = node.send(&part.headers(key.headers()).body(PATTERN)).expect(200);
    let complete = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{}</ETag></Part></CompleteMultipartUpload>",
        etag.header("etag").unwrap()
    );
    let request = Request::new("POST", "/secrets/parts").query("uploadId", &id).headers(key.headers());
    node.send(&request.body(complete)).expect(200);
    let copy = Request::new("PUT", "/secrets/copy").header("x-amz-copy-source", "/secrets/small");
    node.send(&copy.headers(key.copy_source_headers()).headers(other.headers())).expect(200);
    for name in ["small", "large", "parts"] {
        let path = format!("/secrets/{name}");
        let got = node.send(&Request::new("GET", &path).headers(key.headers())).expect(200);
        assert!(got.body.starts_with(PATTERN));
        assert_eq!(got.header("x-amz-meta-secret"), Some(METADATA));
        node.send(&Request::new("GET", &path).headers(other.headers())).expect(403);
        node.send(&Request::new("GET", &path)).expect(400);
    }
    // A key encoded twice, a mistake with its own log message, and one of the wrong length.
    let twice = CustomerKey::random();
    let encoded = base64(twice.base64().as_bytes());
    let mut headers = twice.headers();
    headers[1].1 = encoded;
    node.send(&Request::new("PUT", "/secrets/twice").headers(headers).body("x")).expect(400);
    node.send(&Request::new("PUT", "/secrets/plain").body(PLAIN)).expect(200);
    assert!(node.stop().success());

    for secret in [&PATTERN[..], METADATA.as_bytes(), &key.0, &other.0, &twice.0] {
        assert_eq!(node.occurrences_of(secret), [""; 0]);
    }
    for key in [&key, &other] {
        assert_eq!(node.occurrences_of(&md5(&key.0)), [""; 0], "the key's MD5");
    }
    // Validates the search.
    assert!(
        node.occurrences_of(PLAIN)
            .iter()
            .any(|place| place.starts_with("raw in") && place.ends_with("objects.keyhole"))
    );
}
