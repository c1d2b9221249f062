//! Virtual-hosted-style addressing.

use keyhole_tests::{CustomerKey, Launch, Request};

#[test]
fn virtual_hosted_requests_reach_their_buckets() {
    let node =
        Launch::default().with_credential().arg("--host-name=s3.example.com").arg("--host-name=localhost").start();
    let key = CustomerKey::random();
    let at = |method: &str, host: &str, path: &str| Request::new(method, path).header("host", host);
    node.send(&at("PUT", "photos.s3.example.com", "/")).expect(200);
    let put = at("PUT", "photos.s3.example.com:9000", "/a/b c").headers(key.headers()).body("sealed");
    node.send(&put).expect(200);
    for (host, path) in [
        ("photos.s3.example.com", "/a/b c"),
        ("Photos.S3.example.com.", "/a/b c"),
        ("photos.localhost:9000", "/a/b c"),
        ("s3.example.com", "/photos/a/b c"),
        ("another.example.com", "/photos/a/b c"),
        ("127.0.0.1", "/photos/a/b c"),
    ] {
        let got = node.send(&at("GET", host, path).headers(key.headers())).expect(200);
        assert_eq!(got.body, b"sealed", "{host}");
    }
    let listed = node.send(&at("GET", "photos.localhost", "/").query("list-type", "2")).expect(200).text();
    assert!(listed.contains("<Name>photos</Name>") && listed.contains("<Key>a/b c</Key>"), "{listed}");
    let buckets = node.send(&at("GET", "s3.example.com", "/")).expect(200).text();
    assert!(buckets.contains("<ListAllMyBucketsResult"), "{buckets}");

    // The path is signed as sent: without the bucket.
    let get = at("GET", "photos.localhost", "/a/b c").headers(key.headers()).signed(node.address(), node.signer());
    let head = get.head(node.address());
    assert!(head.starts_with("GET /a/b%20c HTTP/1.1\r\n"), "{head}");

    let absent = node.send(&at("GET", "absent.localhost", "/k"));
    assert_eq!((absent.status, absent.element("Code").as_deref()), (404, Some("NoSuchBucket")));
    let invalid = node.send(&at("GET", "a_b.localhost", "/k"));
    assert_eq!((invalid.status, invalid.element("Code").as_deref()), (400, Some("InvalidBucketName")));
    // The signature covers the host: another bucket needs another signature.
    let moved = at("GET", "photos.localhost", "/k").signed(node.address(), node.signer());
    let moved = moved.head(node.address()).replace("host: photos.localhost", "host: secret.localhost");
    let reply = keyhole_tests::http::exchange(node.address(), moved.as_bytes());
    assert_eq!((reply.status, reply.element("Code").as_deref()), (403, Some("SignatureDoesNotMatch")));
    let two = at("GET", "photos.localhost", "/k").signed(node.address(), node.signer());
    let two = two.head(node.address()).replace("connection: close", "host: photos.localhost\r\nconnection: close");
    assert_eq!(keyhole_tests::http::exchange(node.address(), two.as_bytes()).status, 400);
    node.send(&at("DELETE", "photos.localhost", "/a/b c")).expect(204);
    node.send(&at("DELETE", "photos.localhost", "/")).expect(204);
}
