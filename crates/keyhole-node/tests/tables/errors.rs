//! Requests that must be refused, with the status, code and message that S3 clients expect.

use keyhole_tests::data::{base64, md5};
use keyhole_tests::{CustomerKey, Request, Response};

use crate::support::MemoryNode;

const WRONG_KEY: &str =
    "Requests specifying Server Side Encryption with Customer provided keys must provide the correct secret key.";
const NEEDS_KEY: &str = "The object was stored using a form of Server Side Encryption. The correct parameters must be \
                         provided to retrieve the object.";
const WRONG_MD5: &str = "The calculated MD5 hash of the key did not match the hash that was provided.";
const NO_KMS: &str = "Server-side encryption with managed keys is not supported. Use customer-provided keys (SSE-C).";

const PREFIX: &str = "x-amz-server-side-encryption-customer-";

/// A node and a bucket with one SSE-C object and one plain one.
struct Fixture {
    node: MemoryNode,
    key: CustomerKey,
}

fn fixture() -> Fixture {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    node.make_bucket("errors");
    node.send(&Request::new("PUT", "/errors/sealed").headers(key.headers()).body("sealed")).expect(200);
    node.send(&Request::new("PUT", "/errors/plain").body("plain")).expect(200);
    Fixture { node, key }
}

#[track_caller]
fn check(response: &Response, status: u16, code: &str, message: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    assert!(response.header("x-amz-request-id").is_some());
    assert_eq!(response.header("content-type"), Some("application/xml"), "{response:?}");
    assert_eq!(response.element("Code").as_deref(), Some(code), "{}", response.text());
    assert_eq!(response.element("Message").as_deref(), Some(message), "{}", response.text());
    assert_eq!(response.element("RequestId").as_deref(), response.header("x-amz-request-id"));
    assert!(response.element("Resource").is_some(), "{}", response.text());
}

#[test]
fn reads_without_right_key_are_rejected() {
    let Fixture { node, key } = fixture();
    let other = CustomerKey::random();
    let get = |path: &str| Request::new("GET", path);
    let sealed = "/errors/sealed";
    check(&node.send(&get(sealed).headers(other.headers())), 403, "AccessDenied", WRONG_KEY);
    check(&node.send(&get(sealed)), 400, "InvalidRequest", NEEDS_KEY);
    let mut mismatched = key.headers();
    mismatched[2].1 = other.md5_base64();
    check(&node.send(&get(sealed).headers(mismatched)), 400, "InvalidArgument", WRONG_MD5);
    let message = "The encryption parameters are not applicable to this object.";
    check(&node.send(&get("/errors/plain").headers(key.headers())), 400, "InvalidRequest", message);
    for (request, status) in [
        (Request::new("HEAD", sealed), 400),
        (Request::new("HEAD", sealed).headers(other.headers()), 403),
        (Request::new("HEAD", sealed).headers(key.headers()), 200),
        (Request::new("HEAD", "/errors/plain").headers(key.headers()), 400),
    ] {
        let response = node.send(&request);
        assert_eq!((response.status, response.body.len()), (status, 0));
    }
    assert_eq!(node.send(&get(sealed).headers(key.headers())).expect(200).body, b"sealed");
}

#[test]
fn writes_with_incomplete_or_wrong_sse_c_headers_are_rejected() {
    let Fixture { node, key } = fixture();
    let algorithm = "AES256";
    let key_text = key.base64();
    let key_md5 = key.md5_base64();
    let base = "Requests specifying Server Side Encryption with Customer provided keys must provide ";
    let needs_algorithm = format!("{base}a valid encryption algorithm.");
    let needs_key = format!("{base}an appropriate secret key.");
    let needs_md5 = format!("{base}the client calculated MD5 of the secret key.");
    let short = CustomerKey::random();
    let short_text = base64(&short.0[..31]);
    let short_md5 = base64(&md5(&short.0[..31]));
    let bad_key = "The secret key was invalid for the specified algorithm.";
    let bad_algorithm = "The Encryption request you specified is not valid. Supported value: AES256.";
    // The request headers, and the expected code and message.
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);
    let cases: [Case<'_>; 8] = [
        (&[("key", &key_text), ("key-md5", &key_md5)], "InvalidArgument", &needs_algorithm),
        (&[("algorithm", algorithm), ("key-md5", &key_md5)], "InvalidArgument", &needs_key),
        (&[("algorithm", algorithm), ("key", &key_text)], "InvalidArgument", &needs_md5),
        (&[("algorithm", algorithm)], "InvalidArgument", &needs_key),
        (
            &[("algorithm", "AES128"), ("key", &key_text), ("key-md5", &key_md5)],
            "InvalidEncryptionAlgorithmError",
            bad_algorithm,
        ),
        (&[("algorithm", algorithm), ("key", &key_text), ("key-md5", &short_md5)], "InvalidArgument", WRONG_MD5),
        (&[("algorithm", algorithm), ("key", &short_text), ("key-md5", &short_md5)], "InvalidArgument", bad_key),
        (&[("algorithm", algorithm), ("key", "not base64!"), ("key-md5", &key_md5)], "InvalidArgument", bad_key),
    ];
    for (headers, code, message) in cases {
        let headers = headers.iter().map(|(name, value)| (format!("{PREFIX}{name}"), (*value).to_owned()));
        let request = Request::new("PUT", "/errors/new").headers(headers).body("never stored");
        let response = node.send(&request);
        check(&response, 400, code, message);
        assert_eq!(response.element("ArgumentName").as_deref(), Some("x-amz-server-side-encryption"));
        assert!(!response.text().contains(&key_text) && !response.text().contains(&key_md5));
    }
    node.send(&Request::new("GET", "/errors/new")).expect(404);
}

#[test]
fn writes_with_managed_keys_are_rejected() {
    let Fixture { node, key } = fixture();
    let name = "x-amz-server-side-encryption";
    for value in ["aws:kms", "AES256"] {
        let request = Request::new("PUT", "/errors/new").header(name, value).body("never stored");
        check(&node.send(&request), 501, "NotImplemented", NO_KMS);
    }
    let both = Request::new("PUT", "/errors/new").header(name, "AES256").headers(key.headers()).body("never stored");
    let response = node.send(&both);
    let message =
        "Server Side Encryption with Customer provided key is incompatible with the encryption method specified";
    check(&response, 400, "InvalidArgument", message);
    assert_eq!(response.element("ArgumentValue").as_deref(), Some("AES256"));
    node.send(&Request::new("GET", "/errors/new")).expect(404);
}

#[test]
fn requests_with_missing_or_wrong_signature_are_rejected() {
    let Fixture { node, key } = fixture();
    let get = || Request::new("GET", "/errors/plain");
    let message = |response: &Response| response.element("Message").unwrap_or_default();

    check(&node.send_unsigned(&get()), 403, "AccessDenied", "Access Denied");
    let mut signer = node.signer();
    signer.secret_key = "another-secret-than-that".to_owned();
    let wrong = node.send_as(&signer, &get());
    let text = "The request signature that we calculated does not match the signature that you provided. Check your \
                secret access key and signing method.";
    check(&wrong, 403, "SignatureDoesNotMatch", text);
    // Elements that would echo the key are omitted if the request has one.
    let with_key = node.send_as(&signer, &get().headers(key.headers()));
    check(&with_key, 403, "SignatureDoesNotMatch", text);
    assert!(!with_key.text().contains(&key.base64()) && with_key.element("CanonicalRequest").is_none());

    let mut signer = node.signer();
    signer.access_key = "NOBODY".to_owned();
    let unknown = node.send_as(&signer, &get());
    assert_eq!((unknown.status, unknown.element("Code").as_deref()), (403, Some("InvalidAccessKeyId")));

    let mut signer = node.signer();
    signer.region = "eu-west-3".to_owned();
    let region = node.send_as(&signer, &get());
    assert_eq!((region.status, region.element("Code").as_deref()), (400, Some("AuthorizationHeaderMalformed")));
    assert!(message(&region).contains("us-east-1"), "{}", message(&region));
    assert_eq!(region.element("Region").as_deref(), Some("us-east-1"));

    for minutes in [-16, 16] {
        let skewed = node.send(&get().skewed(minutes * 60_000));
        assert_eq!((skewed.status, skewed.element("Code").as_deref()), (403, Some("RequestTimeTooSkewed")));
    }
    for minutes in [-14, 14] {
        node.send(&get().skewed(minutes * 60_000)).expect(200);
    }

    // A header added after signing.
    let added = node.send_unsigned(&node.signed(&node.signer(), &get()).headers(key.headers()));
    let text = "There were headers present in the request which were not signed";
    assert_eq!((added.status, added.element("Code").as_deref()), (403, Some("AccessDenied")));
    assert!(message(&added).contains(text), "{}", message(&added));

    // A body that differs from the signed one.
    let put = Request::new("PUT", "/errors/new").body("what was signed");
    let swapped = node.send_unsigned(&node.signed(&node.signer(), &put).body("what was sent.."));
    assert_eq!((swapped.status, swapped.element("Code").as_deref()), (400, Some("XAmzContentSHA256Mismatch")));
    node.send(&Request::new("GET", "/errors/new")).expect(404);
}

#[test]
fn absent_resources_and_unsupported_operations_are_rejected() {
    let Fixture { node, .. } = fixture();
    for (method, path, query, status, code) in [
        ("GET", "/errors/absent", "", 404, "NoSuchKey"),
        ("GET", "/absent-bucket/key", "", 404, "NoSuchBucket"),
        ("PUT", "/absent-bucket/key", "", 404, "NoSuchBucket"),
        ("DELETE", "/errors", "", 409, "BucketNotEmpty"),
        ("PUT", "/NotABucket", "", 400, "InvalidBucketName"),
        ("GET", "/errors", "website", 501, "NotImplemented"),
        ("PUT", "/errors", "acl", 501, "NotImplemented"),
        ("GET", "/errors/plain", "torrent", 501, "NotImplemented"),
        ("POST", "/errors/plain", "restore", 501, "NotImplemented"),
    ] {
        let mut request = Request::new(method, path);
        if !query.is_empty() {
            request = request.query(query, "");
        }
        let response = node.send(&request);
        assert_eq!((response.status, response.element("Code").as_deref()), (status, Some(code)), "{method} {path}");
    }
    let long = |len: usize| Request::new("PUT", &format!("/errors/{}", "k".repeat(len))).body("x");
    node.send(&long(1024)).expect(200);
    let refused = node.send(&long(1025));
    assert_eq!((refused.status, refused.element("Code").as_deref()), (400, Some("KeyTooLongError")));
    let metadata = |len: usize| Request::new("PUT", "/errors/meta").header("x-amz-meta-a", "v".repeat(len)).body("x");
    node.send(&metadata(2047)).expect(200);
    let refused = node.send(&metadata(2048));
    assert_eq!((refused.status, refused.element("Code").as_deref()), (400, Some("MetadataTooLarge")));
}
