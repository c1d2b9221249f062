//! HTML form uploads: signed by a policy, of any size, with SSE-C in fields.

use keyhole_tests::data::{base64, bytes, md5};
use keyhole_tests::form::{BOUNDARY, Form, now_ms};
use keyhole_tests::{CustomerKey, Launch, Node, Request, Response};

fn node() -> Node {
    let node = Launch::default().with_credential().arg("--threads=2").arg("--host-name=localhost").start();
    node.make_bucket("bucket");
    node
}

fn get(node: &Node, key: &str, customer_key: Option<&CustomerKey>) -> Response {
    let headers = customer_key.map(|key| key.headers().to_vec()).unwrap_or_default();
    node.send(&Request::new("GET", &format!("/bucket/{key}")).headers(headers))
}

#[track_caller]
fn assert_error(reply: &Response, status: u16, code: &str, words: &str) {
    assert_eq!((reply.status, reply.element("Code").as_deref()), (status, Some(code)), "{}", reply.text());
    assert!(reply.element("Message").unwrap().contains(words), "{}", reply.text());
}

#[test]
fn forms_of_all_sizes_store_objects() {
    let key = CustomerKey::random();
    for io in ["uring", "epoll"] {
        let node = Launch::default().with_credential().arg(format!("--io={io}")).arg("--threads=2").start();
        node.make_bucket("bucket");
        for len in [0, 1, 16_384, 65_536, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (5 << 20) + 77] {
            let body = bytes(len as u64, len);
            for customer_key in [None, Some(&key)] {
                let fields = customer_key.map(|key| key.headers().to_vec()).unwrap_or_default();
                let form = Form::new("user/${filename}", body.clone()).fields(fields).field("x-amz-meta-a", "b");
                let reply =
                    form.field("Content-Type", "text/plain").signed(node.signer(), now_ms()).send(&node).expect(204);
                let got = get(&node, "user/file.txt", customer_key).expect(200);
                assert!(got.body == body, "{len} bytes over {io}");
                assert_eq!(got.header("etag"), reply.header("etag"));
                if customer_key.is_none() {
                    assert_eq!(reply.header("etag"), Some(&format!("\"{}\"", hex::encode(md5(&body)))[..]));
                } else {
                    get(&node, "user/file.txt", None).expect(400);
                }
                let echoed = reply.header("x-amz-server-side-encryption-customer-key-md5").map(str::to_owned);
                assert_eq!(echoed, customer_key.map(CustomerKey::md5_base64));
                assert_eq!(reply.header("location"), Some("/bucket/user/file.txt"));
                assert_eq!(got.header("content-type"), Some("text/plain"));
                assert_eq!(got.header("x-amz-meta-a"), Some("b"));
            }
        }
        // Near-matches of the boundary, across the ends of blocks.
        let almost = format!("\r\n--{}", &BOUNDARY[..BOUNDARY.len() - 1]).into_bytes();
        let body: Vec<u8> = almost.into_iter().cycle().take((2 << 20) + 5).collect();
        Form::new("almost", body.clone()).signed(node.signer(), now_ms()).send(&node).expect(204);
        assert!(get(&node, "almost", None).expect(200).body == body);
    }
}

#[test]
fn form_fields_select_reply() {
    let node = node();
    let form =
        |name: &str, value: &str| Form::new("k é", "x").field(name, value).signed(node.signer(), now_ms()).send(&node);
    for (status, expected) in [("200", 200), ("201", 201), ("204", 204), ("202", 204)] {
        let reply = form("success_action_status", status).expect(expected);
        assert!(reply.header("etag").is_some() && reply.header("location") == Some("/bucket/k%20%C3%A9"));
        if status == "201" {
            assert_eq!(reply.element("Bucket").as_deref(), Some("bucket"));
            assert_eq!(reply.element("Key").as_deref(), Some("k é"));
            assert_eq!(reply.element("Location").as_deref(), Some("/bucket/k%20%C3%A9"));
            assert_eq!(reply.element("ETag").as_deref(), reply.header("etag"));
        }
    }
    let reply = form("success_action_redirect", "http://example.com/done?a=b").expect(303);
    let etag = hex::encode(md5(b"x"));
    let expected = format!("http://example.com/done?a=b&bucket=bucket&key=k%20%C3%A9&etag=%22{etag}%22");
    assert_eq!(reply.header("location"), Some(&expected[..]));
    form("success_action_redirect", "not a URL").expect(204);

    let tagging = "<Tagging><TagSet><Tag><Key>a</Key><Value>1</Value></Tag></TagSet></Tagging>";
    form("tagging", tagging).expect(204);
    assert_eq!(get(&node, "k é", None).header("x-amz-tagging-count"), Some("1"));
    // S3 would ignore a field with the name of the header: the node refuses it.
    assert_error(&form("x-amz-tagging", "a=1"), 501, "NotImplemented", "field tagging");
    assert_error(&form("x-amz-unheard-of", "1"), 501, "NotImplemented", "x-amz-unheard-of");
    let ignored = "x-ignore-x-amz-server-side-encryption-customer-key";
    Form::new("k é", "x")
        .free(ignored, "me")
        .field("x-amz-meta-a", "b")
        .signed(node.signer(), now_ms())
        .send(&node)
        .expect(204);
    let reply = get(&node, "k é", None).expect(200);
    assert_eq!((reply.header("x-amz-meta-a"), reply.header("x-amz-tagging-count")), (Some("b"), None));
    form("acl", "private").expect(204);
    assert_error(&form("acl", "public-read"), 501, "NotImplemented", "");
    // Virtual-hosted-style addressing.
    let form = Form::new("hosted", "x").signed(node.signer(), now_ms());
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    let request = Request::new("POST", "/").header("host", "bucket.localhost").header("content-type", kind);
    let reply = request.body(form.body()).send_unsigned(node.address()).expect(204);
    assert_eq!(reply.header("location"), Some("/hosted"));
    assert_eq!(get(&node, "hosted", None).expect(200).body, b"x");
    // A button after the file is ignored.
    let mut form = Form::new("late", "x").signed(node.signer(), now_ms());
    form.late.push(("submit".to_owned(), "Upload".to_owned()));
    form.send(&node).expect(204);
    assert_eq!(get(&node, "late", None).expect(200).body, b"x");
    // The checksum of the file, not of the form.
    let sum = base64(&crc32fast::hash(b"x").to_be_bytes());
    let form = |sum: &str| {
        Form::new("sum", "x").field("x-amz-checksum-crc32", sum).signed(node.signer(), now_ms()).send(&node)
    };
    assert_eq!(form(&sum).expect(204).header("x-amz-checksum-crc32"), Some(&sum[..]));
    assert_error(&form("AAAAAA=="), 400, "BadDigest", "CRC32");
}

#[test]
fn form_outside_its_policy_is_rejected() {
    let node = node();
    let denied = |form: Form, words: &str| {
        assert_error(&form.signed(node.signer(), now_ms()).send(&node), 403, "AccessDenied", words);
    };
    let new = || Form::new("never", "never stored");
    let mut over = new();
    over.expiration = "2020-01-01T00:00:00.000Z".to_owned();
    denied(over, "Invalid according to Policy: Policy expired.");
    denied(new().free("x-amz-meta-a", "b"), "Extra input fields: x-amz-meta-a");
    denied(new().condition("[\"eq\", \"$x-amz-meta-a\", \"c\"]").free("x-amz-meta-a", "b"), "Policy Condition failed");
    denied(new().condition("[\"eq\", \"$x-amz-meta-a\", \"c\"]"), "Policy Condition failed");
    denied(new().condition("[\"starts-with\", \"$key\", \"user/\"]"), "[\"starts-with\", \"$key\"]");
    denied(new().condition("{\"bucket\": \"other\"}"), "[\"eq\", \"$bucket\"]");
    let mut sized = new().condition("[\"content-length-range\", 0, 11]");
    assert_error(&sized.clone().signed(node.signer(), now_ms()).send(&node), 400, "EntityTooLarge", "");
    // It is rejected as too long before all of it has been received.
    sized.file = bytes(1, 3 << 20);
    assert_error(&sized.signed(node.signer(), now_ms()).send(&node), 400, "EntityTooLarge", "");
    let short = new().condition("[\"content-length-range\", 13, 100]");
    assert_error(&short.signed(node.signer(), now_ms()).send(&node), 400, "EntityTooSmall", "");
    let mut bad = new();
    bad.conditions = vec!["[\"content-length-range\", 0]".to_owned()];
    assert_error(&bad.signed(node.signer(), now_ms()).send(&node), 400, "InvalidPolicyDocument", "Invalid Condition");

    let signed = new().signed(node.signer(), now_ms());
    let changed = |name: &str, value: Option<&str>| {
        let mut form = signed.clone();
        form.fields.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        value.map_or(form.clone(), |value| form.free(name, value)).send(&node)
    };
    let signature = "0".repeat(64);
    assert_error(&changed("x-amz-signature", Some(&signature)), 403, "SignatureDoesNotMatch", "");
    assert_error(&changed("policy", Some(&base64(b"{}"))), 403, "SignatureDoesNotMatch", "");
    assert_error(&changed("x-amz-signature", None), 400, "InvalidArgument", "'x-amz-signature'");
    assert_error(&changed("policy", None), 400, "InvalidArgument", "'policy'");
    assert_error(&changed("key", None), 400, "InvalidArgument", "'key'");
    let stranger = "NOBODY/20260101/us-east-1/s3/aws4_request";
    assert_error(&changed("x-amz-credential", Some(stranger)), 400, "InvalidArgument", "x-amz-date");
    assert_error(&new().send(&node), 403, "AccessDenied", "");
    get(&node, "never", None).expect(404);
    let exact = new().condition("[\"content-length-range\", 12, 12]");
    exact.signed(node.signer(), now_ms()).send(&node).expect(204);
    assert_eq!(get(&node, "never", None).expect(200).body, b"never stored");
}

#[test]
fn malformed_form_stores_nothing() {
    let node = node();
    let form = Form::new("never", "never stored").signed(node.signer(), now_ms());
    let send = |request: Request| request.send_unsigned(node.address());
    let kind = |kind: &str| Request::new("POST", "/bucket").header("content-type", kind);
    assert_error(&send(kind("multipart/form-data").body(form.body())), 400, "MalformedPOSTRequest", "boundary");
    assert_error(
        &send(kind("multipart/form-data; boundary=x").body(form.body())),
        400,
        "MalformedPOSTRequest",
        "boundary",
    );
    assert_error(&node.send(&kind("text/plain").body("x")), 412, "PreconditionFailed", "");
    // A form is authenticated by its policy only.
    assert_error(&node.send(&form.request()), 400, "InvalidArgument", "Only one auth mechanism");
    let body = form.body();
    for len in [0, 10, 200, body.len() - BOUNDARY.len() - 20, body.len() - 10] {
        let reply = send(form.request().body(&body[..len]));
        assert_eq!((reply.status, reply.element("Code").as_deref()), (400, Some("IncompleteBody")), "{len}");
    }
    let big = Form::new("never", "x").field("x-amz-meta-a", &"v".repeat(21 * 1024)).signed(node.signer(), now_ms());
    assert_error(&big.send(&node), 400, "MaxPostPreDataLengthExceeded", "");
    let mut two = form.clone();
    two.late.push(("file".to_owned(), "another".to_owned()));
    assert_error(&two.send(&node), 400, "IncorrectNumberOfFilesInPostRequest", "");
    assert_error(&form.clone().free("KEY", "twice").send(&node), 400, "InvalidArgument", "twice");
    let absent = Form::new("never", "x").condition("[\"starts-with\", \"$bucket\", \"\"]");
    let absent = Form { conditions: absent.conditions[1..].to_vec(), ..absent }.signed(node.signer(), now_ms());
    let path = format!("multipart/form-data; boundary={BOUNDARY}");
    let request = Request::new("POST", "/absent-bucket").header("content-type", path).body(absent.body());
    assert_error(&send(request), 404, "NoSuchBucket", "");
    for query in ["acl", "website", "uploads"] {
        let reply = send(form.request().query(query, ""));
        assert_eq!(reply.status, 501, "{}", reply.text());
    }
    get(&node, "never", None).expect(404);
    let list = node.send(&Request::new("GET", "/bucket").query("list-type", "2")).expect(200);
    assert_eq!(list.element("KeyCount").as_deref(), Some("0"));
}

#[test]
fn customer_key_in_form_is_used_or_rejected() {
    let node = node();
    let key = CustomerKey::random();
    let new = || Form::new("never", "never stored");
    let headers = key.headers();
    // Any subset of the three fields.
    for left_out in 0..8 {
        let fields = (0..3).filter(|i| left_out >> i & 1 == 0).map(|i| headers[i].clone());
        let reply = new().fields(fields).signed(node.signer(), now_ms()).send(&node);
        match left_out {
            0 | 7 => assert_eq!(reply.status, 204, "{}", reply.text()),
            _ => assert_error(&reply, 400, "InvalidArgument", "must provide"),
        }
        assert!(!reply.text().contains(&key.base64()));
        if reply.status == 204 {
            node.send(&Request::new("DELETE", "/bucket/never")).expect(204);
        }
    }
    let fields = |changed: usize, name: &str, value: &str| {
        let mut fields = headers.clone();
        fields[changed] = (name.to_owned(), value.to_owned());
        new().fields(fields).signed(node.signer(), now_ms()).send(&node)
    };
    let name = |i: usize| headers[i].0.clone();
    assert_error(&fields(0, &name(0), "AES128"), 400, "InvalidEncryptionAlgorithmError", "AES256");
    assert_error(&fields(1, &name(1), "c2hvcnQ="), 400, "InvalidArgument", "");
    assert_error(&fields(2, &name(2), &CustomerKey::random().md5_base64()), 400, "InvalidArgument", "did not match");
    assert_error(&fields(1, &format!("{}s", name(1)), &key.base64()), 400, "InvalidArgument", "Unknown customer");
    let managed = new().field("x-amz-server-side-encryption", "AES256").signed(node.signer(), now_ms()).send(&node);
    assert_error(&managed, 501, "NotImplemented", "managed keys");
    assert_error(
        &new().field("x-keyhole-sealed", "1").signed(node.signer(), now_ms()).send(&node),
        400,
        "InvalidRequest",
        "PutObject",
    );
    // After the file, and outside the form.
    let mut late = new().signed(node.signer(), now_ms());
    late.late.extend(headers.clone());
    assert_error(&late.send(&node), 400, "InvalidArgument", "ahead of it");
    let beside = new().signed(node.signer(), now_ms()).request().headers(headers.clone()).send_unsigned(node.address());
    assert_error(&beside, 400, "InvalidRequest", "in fields");
    // A failed condition does not reveal the key in its message.
    let condition = format!("[\"eq\", \"${}\", \"{}\"]", name(1), base64(&[1; 32]));
    let reply = new().fields(headers.clone()).condition(&condition).signed(node.signer(), now_ms()).send(&node);
    assert_error(&reply, 403, "AccessDenied", "Policy Condition failed");
    assert!(!reply.text().contains(&key.base64()) && !reply.text().contains(&base64(&[1; 32])));
    get(&node, "never", None).expect(404);
    assert_eq!(node.occurrences_of(&key.0), Vec::<String>::new());
}
