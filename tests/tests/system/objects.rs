//! Buckets and objects from a client's view, with both kinds of I/O.

use keyhole_tests::data::{base64, bytes, md5};
use keyhole_tests::http::object;
use keyhole_tests::{CustomerKey, Launch, Node, Request, Response};

fn over_each_io(check: impl Fn(&Node)) {
    for io in ["uring", "epoll"] {
        println!("--io {io}");
        let node = Launch::default().with_credential().arg(format!("--io={io}")).arg("--threads=2").start();
        node.make_bucket("bucket");
        check(&node);
    }
}

#[test]
fn object_is_read_whole_and_in_ranges() {
    let key = CustomerKey::random();
    // Sizes around thresholds: inline, chunk, block, several blocks.
    let lens = [0, 1, 16_383, 16_384, 16_385, 65_536, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (3 << 20) + 77];
    let bodies: Vec<Vec<u8>> = lens.iter().map(|len| bytes(1, *len)).collect();
    over_each_io(|node| {
        for body in &bodies {
            for headers in [Vec::new(), key.headers().to_vec()] {
                let put = node.send(&object("PUT", "o").headers(headers.clone()).body(body.clone())).expect(200);
                let etag = put.header("etag").unwrap().to_owned();
                if headers.is_empty() {
                    assert_eq!(etag, format!("\"{}\"", hex::encode(md5(body))));
                }
                let get = || object("GET", "o").headers(headers.clone());
                let got = node.send(&get()).expect(200);
                assert!(got.is_complete && got.body == *body, "{} bytes", body.len());
                assert_eq!(got.header("etag"), Some(&etag[..]));
                let echoed = got.header("x-amz-server-side-encryption-customer-key-md5").map(str::to_owned);
                assert_eq!(echoed, (!headers.is_empty()).then(|| key.md5_base64()));
                assert!(got.header("x-amz-server-side-encryption-customer-key").is_none());
                let head = node.send(&object("HEAD", "o").headers(headers.clone())).expect(200);
                assert_eq!(head.header("content-length"), Some(&body.len().to_string()[..]));
                ranges(node, &get, body);
            }
        }
    });
}

/// Checks ranges around the ends of chunks and blocks.
fn ranges(node: &Node, get: &impl Fn() -> Request, body: &[u8]) {
    let len = body.len();
    for (first, last) in [(0, 0), (0, 16_383), (16_383, 16_384), (16_384, 40_000), (1 << 20, (1 << 20) + 5)] {
        let got = node.send(&get().header("range", format!("bytes={first}-{last}")));
        if first >= len {
            assert_eq!((got.status, got.element("Code").as_deref()), (416, Some("InvalidRange")));
            continue;
        }
        let last = last.min(len - 1);
        assert_eq!(got.status, 206);
        assert_eq!(got.header("content-range"), Some(&format!("bytes {first}-{last}/{len}")[..]));
        assert!(got.body == body[first..=last], "{first}-{last} of {len}");
    }
    if len > 0 {
        let suffix = node.send(&get().header("range", "bytes=-7")).expect(206);
        assert!(suffix.body == body[len.saturating_sub(7)..]);
        let rest = node.send(&get().header("range", format!("bytes={}-", len / 2))).expect(206);
        assert!(rest.body == body[len / 2..]);
    }
    let malformed = node.send(&get().header("range", "lines=1-2")).expect(200);
    assert_eq!(malformed.body.len(), len);
}

#[test]
fn headers_and_metadata_are_returned() {
    let key = CustomerKey::random();
    let given = [
        ("content-type", "text/plain; charset=utf-8"),
        ("cache-control", "max-age=60"),
        ("content-disposition", "attachment; filename=\"a b.txt\""),
        ("content-encoding", "gzip"),
        ("content-language", "en"),
        ("expires", "Wed, 21 Oct 2099 07:28:00 GMT"),
        ("x-amz-meta-colour", "blue"),
        ("x-amz-meta-empty", ""),
    ];
    over_each_io(|node| {
        for headers in [Vec::new(), key.headers().to_vec()] {
            node.send(&object("PUT", "o").headers(given).headers(headers.clone()).body("x")).expect(200);
            for method in ["GET", "HEAD"] {
                let got = node.send(&object(method, "o").headers(headers.clone())).expect(200);
                for (name, value) in given {
                    assert_eq!(got.header(name), Some(value), "{method}");
                }
                assert!(got.header("last-modified").is_some_and(|date| date.ends_with(" GMT")));
            }
        }
    });
}

#[test]
fn conditional_requests_follow_etag_and_date() {
    over_each_io(|node| {
        let put = || object("PUT", "o").body("one");
        let etag = node.send(&put().header("if-none-match", "*")).expect(200).header("etag").unwrap().to_owned();
        node.send(&put().header("if-none-match", "*")).expect(412);
        node.send(&put().header("if-match", "\"0\"")).expect(412);
        node.send(&object("PUT", "absent").header("if-match", &etag).body("x")).expect(404);
        node.send(&object("GET", "o").header("if-none-match", &etag)).expect(304);
        node.send(&object("GET", "o").header("if-match", &etag)).expect(200);
        node.send(&object("GET", "o").header("if-match", "\"0\"")).expect(412);
        let modified = node.send(&object("HEAD", "o")).expect(200).header("last-modified").unwrap().to_owned();
        node.send(&object("GET", "o").header("if-modified-since", &modified)).expect(304);
        node.send(&object("GET", "o").header("if-unmodified-since", &modified)).expect(200);
        node.send(&put().header("if-match", &etag)).expect(200);
    });
}

#[test]
fn listing_in_pages_returns_all_keys() {
    over_each_io(|node| {
        let names = ["a", "b/1", "b/2", "b/c/3", "d e+f&g", "z", "ä/ö"];
        for name in names {
            node.send(&object("PUT", name).body("x")).expect(200);
        }
        let all = |request: Request| -> Vec<String> {
            let text = node.send(&request).expect(200).text();
            let between = |text: &str| text.split("</Key>").next().unwrap().replace("&amp;", "&");
            text.split("<Key>").skip(1).map(between).collect()
        };
        let list = || Request::new("GET", "/bucket");
        assert_eq!(all(list().query("list-type", "2")), names);
        assert_eq!(all(list()), names);
        assert_eq!(all(list().query("list-type", "2").query("prefix", "b/").query("delimiter", "/")), ["b/1", "b/2"]);
        let after = all(list().query("list-type", "2").query("start-after", "b/2"));
        assert_eq!(after, ["b/c/3", "d e+f&g", "z", "ä/ö"]);
        let rolled = node.send(&list().query("list-type", "2").query("delimiter", "/")).expect(200).text();
        assert!(rolled.contains("<Prefix>b/</Prefix>") && rolled.contains("<Prefix>ä/</Prefix>"), "{rolled}");

        let mut token = None::<String>;
        let mut seen = Vec::new();
        loop {
            let mut page = list().query("list-type", "2").query("max-keys", "2");
            if let Some(token) = &token {
                page = page.query("continuation-token", token);
            }
            let reply = node.send(&page).expect(200);
            seen.extend(all(page));
            token = reply.element("NextContinuationToken");
            assert_eq!(reply.element("IsTruncated").as_deref(), Some(if token.is_some() { "true" } else { "false" }));
            if token.is_none() {
                break;
            }
        }
        assert_eq!(seen, names);

        let document = "<Delete><Object><Key>a</Key></Object><Object><Key>absent</Key></Object></Delete>";
        let delete = Request::new("POST", "/bucket")
            .query("delete", "")
            .header("content-md5", base64(&md5(document.as_bytes())));
        let reply = node.send(&delete.body(document)).expect(200).text();
        assert_eq!(reply.matches("<Deleted>").count(), 2, "{reply}");
        node.send(&object("GET", "a")).expect(404);
        node.send(&object("DELETE", "z")).expect(204);
        node.send(&object("DELETE", "z")).expect(204);
    });
}

fn create_upload(node: &Node, name: &str, headers: &[(String, String)]) -> String {
    let create = object("POST", name).query("uploads", "").headers(headers.to_vec());
    node.send(&create).expect(200).element("UploadId").unwrap()
}

fn upload_part(node: &Node, id: &str, number: usize, part: Request) -> Response {
    node.send(&part.query("partNumber", &number.to_string()).query("uploadId", id))
}

fn complete(node: &Node, name: &str, id: &str, parts: &[(usize, String)], headers: &[(String, String)]) -> Response {
    let parts: String = parts
        .iter()
        .map(|(number, etag)| format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"))
        .collect();
    let document = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    node.send(&object("POST", name).query("uploadId", id).headers(headers.to_vec()).body(document))
}

#[test]
fn multipart_upload_assembles_its_parts() {
    let key = CustomerKey::random();
    let bodies = [bytes(2, 5 << 20), bytes(3, (5 << 20) + 1), bytes(4, 70_000)];
    over_each_io(|node| {
        for headers in [Vec::new(), key.headers().to_vec()] {
            let id = create_upload(node, "o", &headers);
            let mut parts = Vec::new();
            // Out of order, with one part sent twice.
            for index in [2, 0, 1, 1] {
                let part = object("PUT", "o").headers(headers.clone()).body(bodies[index].clone());
                let reply = upload_part(node, &id, index + 1, part).expect(200);
                let echoed = reply.header("x-amz-server-side-encryption-customer-algorithm");
                assert_eq!(echoed, (!headers.is_empty()).then_some("AES256"));
                parts.retain(|(number, _)| *number != index + 1);
                parts.push((index + 1, reply.header("etag").unwrap().to_owned()));
            }
            parts.sort();
            node.send(&object("GET", "o").headers(headers.clone())).expect(404);
            let listed = node.send(&object("GET", "o").query("uploadId", &id)).expect(200).text();
            assert_eq!(listed.matches("<PartNumber>").count(), 3, "{listed}");
            let uploads = node.send(&Request::new("GET", "/bucket").query("uploads", "")).expect(200).text();
            assert!(uploads.contains(&id));

            let refused = |parts: &[(usize, String)], code: &str| {
                let reply = complete(node, "o", &id, parts, &[]);
                assert_eq!(reply.element("Code").as_deref(), Some(code), "{}", reply.text());
            };
            refused(&[(1, "\"0123456789abcdef0123456789abcdef\"".to_owned())], "InvalidPart");
            refused(&[(9, parts[0].1.clone())], "InvalidPart");
            refused(&[parts[1].clone(), parts[0].clone()], "InvalidPartOrder");

            let done = complete(node, "o", &id, &parts, &[]).expect(200);
            let binary: Vec<u8> =
                parts.iter().flat_map(|(_, etag)| hex::decode(etag.trim_matches('"')).unwrap()).collect();
            let etag = format!("\"{}-3\"", hex::encode(md5(&binary)));
            assert_eq!(done.element("ETag"), Some(etag.clone()));
            let got = node.send(&object("GET", "o").headers(headers.clone())).expect(200);
            assert_eq!(got.header("etag"), Some(&etag[..]));
            assert!(got.body == bodies.concat());
            let across = format!("bytes={}-{}", (5 << 20) - 10, (5 << 20) + 10);
            let got = node.send(&object("GET", "o").headers(headers.clone()).header("range", across)).expect(206);
            assert!(got.body == bodies.concat()[(5 << 20) - 10..=(5 << 20) + 10]);
            node.send(&object("DELETE", "o")).expect(204);
        }
        let id = create_upload(node, "o", &key.headers());
        let bare = upload_part(node, &id, 1, object("PUT", "o").body("x"));
        assert_eq!((bare.status, bare.element("Code").as_deref()), (400, Some("InvalidRequest")));
        let other = object("PUT", "o").headers(CustomerKey::random().headers()).body("x");
        let other = upload_part(node, &id, 1, other);
        let message = "The provided encryption parameters did not match the ones used originally.";
        assert_eq!((other.status, other.element("Message").as_deref()), (400, Some(message)));
        for (number, status) in [(0, 400), (1, 200), (10_000, 200), (10_001, 400)] {
            upload_part(node, &id, number, object("PUT", "o").headers(key.headers()).body("x")).expect(status);
        }
        let small = upload_part(node, &id, 1, object("PUT", "o").headers(key.headers()).body("small"));
        let last = upload_part(node, &id, 2, object("PUT", "o").headers(key.headers()).body("last"));
        let parts = [small, last].map(|reply| reply.header("etag").unwrap().to_owned());
        let parts = [(1, parts[0].clone()), (2, parts[1].clone())];
        let reply = complete(node, "o", &id, &parts, &[]);
        assert_eq!((reply.status, reply.element("Code").as_deref()), (400, Some("EntityTooSmall")));
        node.send(&object("DELETE", "o").query("uploadId", &id)).expect(204);
        let gone = upload_part(node, &id, 1, object("PUT", "o").headers(key.headers()).body("x"));
        assert_eq!((gone.status, gone.element("Code").as_deref()), (404, Some("NoSuchUpload")));
    });
}

#[test]
fn copies_between_keys_keep_data_and_metadata() {
    let body = bytes(3, 2_500_000);
    let key = CustomerKey::random();
    let other = CustomerKey::random();
    over_each_io(|node| {
        let sealed = object("PUT", "sealed").headers(key.headers()).header("x-amz-meta-a", "1").body(body.clone());
        let etag = node.send(&sealed).expect(200).header("etag").unwrap().to_owned();
        let plain = object("PUT", "plain").header("x-amz-meta-a", "1").body(body.clone());
        let md5 = node.send(&plain).expect(200).header("etag").unwrap().to_owned();
        let copy = |to: &str, from: &str| object("PUT", to).header("x-amz-copy-source", format!("/bucket/{from}"));
        let get = |name: &str, key: Option<&CustomerKey>| {
            let headers = key.map(|key| key.headers().to_vec()).unwrap_or_default();
            node.send(&object("GET", name).headers(headers)).expect(200)
        };

        node.send(&copy("x", "sealed")).expect(400);
        node.send(&copy("x", "sealed").headers(other.copy_source_headers())).expect(403);
        node.send(&copy("x", "plain").headers(key.copy_source_headers())).expect(400);
        // A copy-source key without a copy source is rejected: it may have been meant for the
        // object.
        for put in [object("PUT", "x"), object("PUT", "x").header("x-keyhole-sealed", "1")] {
            node.send(&put.headers(key.copy_source_headers()).body("x")).expect(400);
        }
        node.send(&object("POST", "x").query("uploads", "").headers(key.copy_source_headers())).expect(400);
        node.send(&object("GET", "x")).expect(404);
        // A new key keeps the ETag.
        let rekeyed = copy("rekeyed", "sealed").headers(key.copy_source_headers()).headers(other.headers());
        assert_eq!(node.send(&rekeyed).expect(200).element("ETag"), Some(etag.clone()));
        let got = get("rekeyed", Some(&other));
        assert!(got.body == body && got.header("etag") == Some(&etag[..]) && got.header("x-amz-meta-a") == Some("1"));
        node.send(&object("GET", "rekeyed").headers(key.headers())).expect(403);
        // Onto itself, with other metadata.
        let replaced = copy("rekeyed", "rekeyed").headers(other.copy_source_headers()).headers(key.headers());
        let replaced = replaced.header("x-amz-metadata-directive", "REPLACE").header("x-amz-meta-b", "2");
        node.send(&replaced).expect(200);
        let got = get("rekeyed", Some(&key));
        assert!(got.body == body && got.header("x-amz-meta-a").is_none() && got.header("x-amz-meta-b") == Some("2"));
        // Sealed to plain, plain to sealed, plain to plain.
        node.send(&copy("opened", "sealed").headers(key.copy_source_headers())).expect(200);
        let got = get("opened", None);
        assert!(got.body == body && got.header("etag") == Some(&md5[..]));
        node.send(&copy("closed", "plain").headers(key.headers())).expect(200);
        assert!(get("closed", Some(&key)).body == body);
        node.send(&copy("again", "plain")).expect(200);
        assert_eq!(get("again", None).header("etag"), Some(&md5[..]));

        // A part from a range of another object.
        let id = create_upload(node, "pieced", &other.headers());
        let piece = copy("pieced", "sealed").headers(key.copy_source_headers()).headers(other.headers());
        let piece = piece.header("x-amz-copy-source-range", "bytes=1000-2000999");
        let reply = upload_part(node, &id, 1, piece).expect(200);
        complete(node, "pieced", &id, &[(1, reply.element("ETag").unwrap())], &[]).expect(200);
        assert!(get("pieced", Some(&other)).body == body[1000..2_001_000]);
        // The sources can be deleted; the copies stay.
        node.send(&object("DELETE", "sealed")).expect(204);
        assert!(get("rekeyed", Some(&key)).body == body);
    });
}

#[test]
fn body_checksums_and_trailers_are_verified() {
    let key = CustomerKey::random();
    over_each_io(|node| {
        // CRC-32 of "123456789" is cbf43926.
        let crc = base64(&[0xcb, 0xf4, 0x39, 0x26]);
        let put = || object("PUT", "o").headers(key.headers()).body("123456789");
        node.send(&put().header("x-amz-checksum-crc32", &crc)).expect(200);
        let got = node.send(&object("GET", "o").headers(key.headers()).header("x-amz-checksum-mode", "ENABLED"));
        assert_eq!(got.header("x-amz-checksum-crc32"), Some(&crc[..]));
        let bad = node.send(&put().header("x-amz-checksum-crc32", base64(&[0; 4])));
        assert_eq!((bad.status, bad.element("Code").as_deref()), (400, Some("BadDigest")));
        let bad = node.send(&put().header("content-md5", base64(&[0; 16])));
        assert_eq!((bad.status, bad.element("Code").as_deref()), (400, Some("BadDigest")));
        node.send(&put().header("content-md5", base64(&md5(b"123456789")))).expect(200);

        let trailer = |crc: &str| {
            object("PUT", "t")
                .headers(key.headers())
                .payload("STREAMING-UNSIGNED-PAYLOAD-TRAILER")
                .header("content-encoding", "aws-chunked")
                .header("x-amz-trailer", "x-amz-checksum-crc32")
                .header("x-amz-decoded-content-length", "9")
                .body(format!("4\r\n1234\r\n5\r\n56789\r\n0\r\nx-amz-checksum-crc32:{crc}\r\n\r\n"))
        };
        let bad = node.send(&trailer(&base64(&[0; 4])));
        assert_eq!((bad.status, bad.element("Code").as_deref()), (400, Some("BadDigest")));
        node.send(&object("GET", "t").headers(key.headers())).expect(404);
        node.send(&trailer(&crc)).expect(200);
        let got = node.send(&object("GET", "t").headers(key.headers())).expect(200);
        assert_eq!(got.body, b"123456789");
        assert_eq!(got.header("content-encoding"), None);
    });
}

#[test]
fn restart_recovers_objects_and_uploads() {
    let body = bytes(4, 1_500_000);
    let key = CustomerKey::random();
    let mut node = Node::new();
    node.make_bucket("bucket");
    node.make_bucket("empty");
    node.send(&object("PUT", "sealed").headers(key.headers()).body(body.clone())).expect(200);
    node.send(&object("PUT", "plain").body("plain")).expect(200);
    node.send(&object("PUT", "gone").body("gone")).expect(200);
    node.send(&object("DELETE", "gone")).expect(204);
    let id = create_upload(&node, "pending", &key.headers());
    let part = object("PUT", "pending").headers(key.headers()).body("part");
    let etag = upload_part(&node, &id, 1, part).expect(200).header("etag").unwrap().to_owned();
    for crash in [true, false] {
        if crash {
            node.kill();
        } else {
            assert!(node.stop().success());
        }
        node.start();
        assert!(node.send(&object("GET", "sealed").headers(key.headers())).expect(200).body == body);
        assert_eq!(node.send(&object("GET", "plain")).expect(200).body, b"plain");
        node.send(&object("GET", "gone")).expect(404);
        node.send(&Request::new("HEAD", "/empty")).expect(200);
    }
    complete(&node, "pending", &id, &[(1, etag)], &[]).expect(200);
    assert_eq!(node.send(&object("GET", "pending").headers(key.headers())).expect(200).body, b"part");
}

#[test]
fn presigned_urls_are_verified() {
    let key = CustomerKey::random();
    let node = Launch::default().with_credential().start();
    node.make_bucket("bucket");
    let address = node.address();
    let signer = node.signer();
    let presigned = |request: Request| request.presigned(address, signer, 60);
    // A presigned URL allows any body, and any header without an `x-amz-` prefix.
    let put = presigned(object("PUT", "o")).header("content-type", "text/x").body("plain");
    put.send_unsigned(address).expect(200);
    let got = presigned(object("GET", "o")).send_unsigned(address).expect(200);
    assert_eq!((got.text().as_str(), got.header("content-type")), ("plain", Some("text/x")));
    let overridden = presigned(object("GET", "o").query("response-content-type", "text/y"));
    assert_eq!(overridden.send_unsigned(address).expect(200).header("content-type"), Some("text/y"));
    // As created by the SDK for JavaScript, with the checksum of an empty body.
    let by_sdk = object("PUT", "o").query("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD");
    let by_sdk = by_sdk.query("x-amz-checksum-crc32", "AAAAAA==").query("x-amz-sdk-checksum-algorithm", "CRC32");
    presigned(by_sdk).header("content-type", "text/x").body("plain").send_unsigned(address).expect(200);
    let by_sdk = object("GET", "o").query("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD");
    let got = presigned(by_sdk.query("x-amz-checksum-mode", "ENABLED")).send_unsigned(address).expect(200);
    assert_eq!(got.text(), "plain");
    // With a customer key, whose headers are signed but not in the URL.
    let sealed = presigned(object("PUT", "s").headers(key.headers())).body("sealed");
    sealed.send_unsigned(address).expect(200);
    let got = presigned(object("GET", "s").headers(key.headers())).send_unsigned(address).expect(200);
    assert_eq!(got.text(), "sealed");

    let code = |request: Request| {
        let reply = request.send_unsigned(address);
        (reply.status, reply.element("Code").unwrap_or_default())
    };
    let refused = |request: Request, status, expected: &str| assert_eq!(code(request), (status, expected.to_owned()));
    refused(presigned(object("GET", "s")).headers(key.headers()), 403, "AccessDenied");
    let [_, (name, value), _] = key.headers();
    refused(presigned(object("GET", "s").query(&name, &value)), 400, "InvalidRequest");
    refused(presigned(object("GET", "s").query(&name.to_uppercase(), &value)), 400, "InvalidRequest");
    let summed = presigned(object("PUT", "o").query("x-amz-checksum-crc32", "NSRBwg=="));
    refused(summed.body("plain"), 400, "BadDigest");
    refused(presigned(object("GET", "o").skewed(-61_000)), 403, "AccessDenied");
    refused(object("GET", "o").presigned(address, signer, 604_801), 400, "AuthorizationQueryParametersError");
    object("GET", "o").presigned(address, signer, 604_800).send_unsigned(address).expect(200);
    refused(presigned(object("GET", "o")).query("partNumber", "1"), 403, "SignatureDoesNotMatch");
    refused(presigned(object("GET", "o")).signed(address, signer), 400, "InvalidArgument");
    assert_eq!(node.send(&object("GET", "o")).expect(200).text(), "plain");
    let log = node.log();
    assert!(!log.contains(&value) && !log.contains("X-Amz-Signature="), "keys and signatures are not logged");
}
