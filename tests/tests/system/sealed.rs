//! Sealed transfer: client-sealed objects, and sealed objects returned as stored.

use std::fs;

use keyhole_tests::command::{Directory, expect_failure, expect_success};
use keyhole_tests::data::{self, bytes};
use keyhole_tests::{CustomerKey, Launch, Node, Request, Response};
use serde_json::Value;

const SEALED: (&str, &str) = ("x-keyhole-sealed", "1");
const NOT_AUTHENTIC: &str = "The sealed object does not authenticate.";

fn node() -> Node {
    let node = Launch::default().with_credential().arg("--threads=2").start();
    node.make_bucket("edge");
    node
}

fn request(method: &str, key: &str) -> Request {
    Request::new(method, &format!("/edge/{key}"))
}

fn sealed(method: &str, key: &str) -> Request {
    request(method, key).header(SEALED.0, SEALED.1)
}

fn keyed(method: &str, name: &str, key: &CustomerKey) -> Request {
    request(method, name).headers(key.headers())
}

fn vectors() -> Vec<Value> {
    let path = keyhole_tests::top().join("crates/keyhole-core/tests/vectors");
    let cases: Value = serde_json::from_slice(&fs::read(path.join("files.json")).unwrap()).unwrap();
    cases.as_array().unwrap().clone()
}

fn vector(case: &Value) -> (Vec<u8>, CustomerKey) {
    let path = keyhole_tests::top().join("crates/keyhole-core/tests/vectors");
    let file = fs::read(path.join(case["file"].as_str().unwrap())).unwrap();
    let key = hex::decode(case["customer_key"].as_str().unwrap()).unwrap();
    (file, CustomerKey(key.try_into().unwrap()))
}

/// Checks for an error with this message.
#[track_caller]
fn assert_error(reply: &Response, status: u16, code: &str, words: &str) {
    assert_eq!((reply.status, reply.element("Code").as_deref()), (status, Some(code)), "{}", reply.text());
    assert!(reply.text().contains(words), "{}", reply.text());
}

fn read_key(path: &str) -> CustomerKey {
    CustomerKey(fs::read(path).unwrap().try_into().unwrap())
}

#[test]
fn client_sealed_object_is_read_with_its_key() {
    let node = node();
    let directory = Directory::new();
    let path = directory.key("key");
    let other = CustomerKey::random();
    let key = read_key(&path);
    // Sizes around thresholds: chunk, inline, block, several blocks.
    for len in [0, 1, 16_383, 16_384, 65_536, 65_537, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (3 << 20) + 77] {
        let plaintext = bytes(len as u64, len);
        let name = format!("reading-{len}");
        let seal = ["seal", "--key", &path, "--bucket", "edge", "--name", &name, "--content-type", "text/x"];
        let file = expect_success(&[&seal[..], &["--meta", "colour=blue"]].concat(), &plaintext);
        let put = sealed("PUT", &name).header("content-type", "application/vnd.keyhole.sealed").body(file.clone());
        let put = node.send(&put).expect(200);
        let etag = put.header("etag").unwrap();
        assert_eq!((etag.len(), put.header(SEALED.0)), (34, Some("1")));

        let got = node.send(&keyed("GET", &name, &key)).expect(200);
        assert!(got.is_complete && got.body == plaintext, "{len}");
        for (header, value) in [("content-type", "text/x"), ("x-amz-meta-colour", "blue"), ("etag", etag)] {
            assert_eq!(got.header(header), Some(value), "{len}");
        }
        let head = node.send(&keyed("HEAD", &name, &key)).expect(200);
        assert_eq!(head.header("content-length"), Some(&len.to_string()[..]));
        node.send(&keyed("GET", &name, &other)).expect(403);
        node.send(&request("GET", &name)).expect(400);
        if len > 2 {
            let range = keyed("GET", &name, &key).header("range", format!("bytes={}-", len / 2));
            assert!(node.send(&range).expect(206).body == plaintext[len / 2..]);
        }
        // A copy with another name and key is sealed for those.
        let copy = keyed("PUT", "copy", &other).headers(key.copy_source_headers());
        node.send(&copy.header("x-amz-copy-source", format!("edge/{name}"))).expect(200);
        assert!(node.send(&keyed("GET", "copy", &other)).expect(200).body == plaintext, "{len}");

        // The sealed file is returned unchanged.
        let got = node.send(&sealed("GET", &name)).expect(200);
        assert!(got.is_complete && got.body == file, "{len}");
        assert_eq!(got.header("content-type"), Some("application/vnd.keyhole.sealed"));
        let head = node.send(&sealed("HEAD", &name)).expect(200);
        assert_eq!(head.header("content-length"), Some(&file.len().to_string()[..]));
        ranges(&node, &name, &file, len as u64);
        let listed = node.send(&Request::new("GET", "/edge").query("prefix", &name)).expect(200);
        assert_eq!(listed.element("Size"), Some(len.to_string()), "listings show the plaintext length");
    }
}

/// Checks ranges of a sealed file: around its ends, around chunk boundaries, and at random.
fn ranges(node: &Node, name: &str, file: &[u8], seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let chunk = file.len() - file.len() % 16_400;
    let mut pairs =
        vec![(0, 0), (0, file.len() - 1), (file.len() - 1, file.len() - 1), (chunk.saturating_sub(30), chunk + 5)];
    pairs.extend((0..12).map(|_| {
        let first = random.usize(..file.len());
        (first, first + random.usize(..=file.len() - first))
    }));
    for (first, last) in pairs {
        let got = node.send(&sealed("GET", name).header("range", format!("bytes={first}-{last}"))).expect(206);
        let last = last.min(file.len() - 1);
        assert_eq!(got.header("content-range"), Some(&format!("bytes {first}-{last}/{}", file.len())[..]));
        assert!(got.body == file[first..=last], "{first}-{last} of {}", file.len());
    }
    let past = sealed("GET", name).header("range", format!("bytes={}-", file.len()));
    assert_error(&node.send(&past), 416, "InvalidRange", "");
}

#[test]
fn vectors_are_stored_and_read() {
    let node = node();
    let directory = Directory::new();
    for case in vectors() {
        let (file, key) = vector(&case);
        let name = case["key"].as_str().unwrap();
        let put = node.send(&sealed("PUT", name).body(file.clone())).expect(200);
        assert_eq!(put.header("etag"), Some(&format!("\"{}\"", case["etag"].as_str().unwrap())[..]));
        let got = node.send(&keyed("GET", name, &key));
        if case["bound"] == false {
            // A client-sealed object in parts must list them: verification needs the key.
            assert_error(&got, 400, "InvalidRequest", NOT_AUTHENTIC);
            node.send(&keyed("HEAD", name, &key)).expect(400);
            continue;
        }
        let got = got.expect(200);
        assert_eq!(keyhole_tests::sigv4::sha256_hex(&got.body), case["plaintext_sha256"].as_str().unwrap(), "{name}");
        // The returned file can be opened, and put again.
        let out = node.send(&sealed("GET", name)).expect(200);
        let path = directory.path("key");
        fs::write(&path, key.0).unwrap();
        let opened = expect_success(&["open", "--key", &path, "--bucket", "edge", "--name", name], &out.body);
        assert!(opened == got.body);
        node.send(&sealed("PUT", name).body(out.body)).expect(200);
        assert!(node.send(&keyed("GET", name, &key)).expect(200).body == got.body);
    }
    let uploads = node.send(&Request::new("GET", "/edge").query("uploads", "")).expect(200).text();
    assert!(!uploads.contains("<Upload>"), "{uploads}");
}

#[test]
fn node_sealed_object_is_returned_as_sealed_file() {
    let node = node();
    let directory = Directory::new();
    let path = directory.key("key");
    let key = read_key(&path);
    let open = ["open", "--key", &path, "--bucket", "edge", "--name", "o"];
    let plaintext = bytes(5, 2_500_000);
    node.send(&keyed("PUT", "o", &key).header("x-amz-meta-a", "b").body(plaintext.clone())).expect(200);
    let file = node.send(&sealed("GET", "o")).expect(200).body;
    assert!(expect_success(&open, &file) == plaintext);
    assert!(!data::contains(&file, &plaintext[..64]));

    let parts = [bytes(6, 5 << 20), bytes(7, 100)];
    for with_key in [true, false] {
        let id = node.send(&keyed("POST", "o", &key).query("uploads", "")).expect(200).element("UploadId").unwrap();
        let mut document = String::new();
        for (part, number) in parts.iter().zip(1..) {
            let put = keyed("PUT", "o", &key).query("partNumber", &format!("{number}")).query("uploadId", &id);
            let etag = node.send(&put.body(part.clone())).expect(200).header("etag").unwrap().to_owned();
            document += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
        }
        let document = format!("<CompleteMultipartUpload>{document}</CompleteMultipartUpload>");
        let complete = if with_key { keyed("POST", "o", &key) } else { request("POST", "o") };
        node.send(&complete.query("uploadId", &id).body(document)).expect(200);
        let file = node.send(&sealed("GET", "o")).expect(200).body;
        let open = if with_key { open.to_vec() } else { [&open[..], &["--allow-unbound"]].concat() };
        assert!(expect_success(&open, &file) == parts.concat());
        assert!(node.send(&keyed("GET", "o", &key)).expect(200).body == parts.concat());
    }

    node.send(&request("PUT", "plain").body("x")).expect(200);
    assert_error(&node.send(&sealed("GET", "plain")), 400, "InvalidRequest", "not sealed");
    assert_error(&node.send(&sealed("GET", "absent")), 404, "NoSuchKey", "");
    let etag = node.send(&sealed("HEAD", "o")).expect(200).header("etag").unwrap().to_owned();
    node.send(&sealed("GET", "o").header("if-none-match", etag.clone())).expect(304);
    node.send(&sealed("GET", "o").header("if-match", etag)).expect(200);
    node.send(&sealed("GET", "o").header("if-match", "\"0123456789abcdef0123456789abcdef\"")).expect(412);
}

#[test]
fn invalid_sealed_transfer_is_refused() {
    let node = node();
    let directory = Directory::new();
    let path = directory.key("key");
    let key = read_key(&path);
    let seal = |bucket: &str, name: &str| {
        expect_success(&["seal", "--key", &path, "--bucket", bucket, "--name", name], &bytes(9, 40_000))
    };
    let file = seal("edge", "o");
    let put = |body: Vec<u8>| sealed("PUT", "o").body(body);
    let invalid = |request: Request, words: &str| assert_error(&node.send(&request), 400, "InvalidRequest", words);
    invalid(put(file.clone()).headers(key.headers()), "without the key");
    invalid(put(file.clone()).header("x-amz-meta-a", "b"), "sealed head");
    invalid(put(file.clone()).header("content-encoding", "gzip"), "sealed head");
    invalid(put(seal("edge", "p")), "another bucket or key");
    invalid(put(seal("other", "o")), "another bucket or key");
    invalid(put(Vec::new()), "malformed");
    invalid(put(b"KEYHOLE2".to_vec()), "missing magic bytes");
    // A byte less or more, anywhere.
    for cut in [0, 1, 7, 20, 100, 180, 200, file.len() - 16_401, file.len() - 17, file.len() - 1] {
        invalid(put(file[..cut].to_vec()), "malformed");
    }
    invalid(put([&file[..], b"x"].concat()), "differs from the declared length");
    // The number of bodies, and an entry for each.
    let table = 8 + 2 + 4 + 2 + 1 + 4 + usize::from(u16::from_be_bytes([file[19], file[20]]));
    let with = |at: usize, bytes: &[u8]| [&file[..at], bytes, &file[at + bytes.len()..]].concat();
    for (at, bytes, words) in [
        (table, &0u32.to_be_bytes()[..], "expected 1 to 10,000"),
        (table, &10_001u32.to_be_bytes()[..], "expected 1 to 10,000"),
        (table, &2u32.to_be_bytes()[..], "malformed"),
        (table + 4, &10_001u32.to_be_bytes()[..], "part numbers"),
        (table + 8, &71u64.to_be_bytes()[..], "invalid length"),
        (table + 8, &u64::MAX.to_be_bytes()[..], "malformed"),
        (table + 16, &100u32.to_be_bytes()[..], "part info"),
        (17, &71u32.to_be_bytes()[..], "sealed head"),
    ] {
        invalid(put(with(at, bytes)), words);
    }
    for value in ["0", "2", "", "true", "1, 1"] {
        let request = request("PUT", "o").header(SEALED.0, value).body(file.clone());
        assert_error(&node.send(&request), 400, "InvalidArgument", "the value 1");
        assert_error(
            &node.send(&self::request("GET", "o").header(SEALED.0, value)),
            400,
            "InvalidArgument",
            "the value 1",
        );
    }
    // Unsigned.
    let mut unsigned = request("PUT", "o").body(file.clone()).signed(node.address(), node.signer());
    unsigned = unsigned.header(SEALED.0, SEALED.1);
    assert_error(&unsigned.send_unsigned(node.address()), 403, "AccessDenied", "not signed");
    // On operations that do not accept it.
    let copy = sealed("PUT", "p").header("x-amz-copy-source", "edge/o");
    invalid(copy, "PutObject, GetObject and HeadObject");
    invalid(sealed("POST", "o").query("uploads", ""), "PutObject, GetObject and HeadObject");
    invalid(sealed("DELETE", "o"), "PutObject, GetObject and HeadObject");
    assert_error(&node.send(&request("GET", "o")), 404, "NoSuchKey", "");

    node.send(&put(file.clone()).header("if-none-match", "*")).expect(200);
    node.send(&put(file.clone()).header("if-none-match", "*")).expect(412);
    invalid(sealed("GET", "o").query("partNumber", "1"), "whole sealed object file");
    invalid(sealed("GET", "o").headers(key.headers()), "without the key");
    // The digest applies to the transmitted bytes.
    let sum = sealed("PUT", "o").header("content-md5", data::base64(&[0; 16])).body(file);
    assert_error(&node.send(&sum), 400, "BadDigest", "");
    assert!(node.send(&keyed("GET", "o", &key)).expect(200).body == bytes(9, 40_000));
}

#[test]
fn damaged_sealed_object_fails_at_first_read() {
    let node = node();
    let directory = Directory::new();
    let path = directory.key("key");
    let key = read_key(&path);
    let plaintext = bytes(11, (1 << 20) + 40_000);
    let file = expect_success(&["seal", "--key", &path, "--bucket", "edge", "--name", "o"], &plaintext);
    let seed = data::fresh_seed();
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let head_at = 21;
    let head_len = usize::from(u16::from_be_bytes([file[19], file[20]]));
    let body_at = head_at + head_len + 4 + 16;
    let flipped = |at: usize| {
        let mut file = file.clone();
        file[at] ^= 1 << (at % 8);
        file
    };
    // The object head does not open without the right key, and this key is wrong for it.
    for _ in 0..6 {
        node.send(&sealed("PUT", "o").body(flipped(head_at + random.usize(..head_len)))).expect(200);
        node.send(&keyed("GET", "o", &key)).expect(403);
        node.send(&keyed("HEAD", "o", &key)).expect(403);
    }
    // The body: data before the damage may have been sent, and then the reply is aborted.
    for at in
        (0..20).map(|_| body_at + random.usize(..file.len() - body_at)).chain([body_at, body_at + 24, file.len() - 1])
    {
        node.send(&sealed("PUT", "o").body(flipped(at))).expect(200);
        let got = node.send(&keyed("GET", "o", &key));
        match got.status {
            400 => assert_error(&got, 400, "InvalidRequest", NOT_AUTHENTIC),
            _ => assert!(!got.is_complete && plaintext.starts_with(&got.body), "{at}: {}", got.status),
        }
    }
    check_changed_parts(&node);
    check_invalid_heads(&node, &key);
}

/// Reads fail if a part is dropped, duplicated or exchanged.
fn check_changed_parts(node: &Node) {
    let case = vectors().into_iter().find(|case| case["key"] == "multi").unwrap();
    let (file, key) = vector(&case);
    let head_len = u32::from_be_bytes(file[21..25].try_into().unwrap()) as usize;
    let table = 25 + head_len;
    let count = u32::from_be_bytes(file[table..table + 4].try_into().unwrap()) as usize;
    let number = |at: usize, len: usize| file[at..at + len].iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
    let entries: Vec<(usize, usize, usize)> = (0..count)
        .map(|i| table + 4 + 16 * i)
        .map(|at| (number(at, 4), number(at + 4, 8), number(at + 12, 4)))
        .collect();
    let mut bodies = Vec::new();
    let mut at = table + 4 + 16 * count + entries.iter().map(|entry| entry.2).sum::<usize>();
    for entry in &entries {
        bodies.push(&file[at..at + entry.1]);
        at += entry.1;
    }
    let built = |parts: &[(usize, &[u8])]| {
        let mut built = file[..table].to_vec();
        built.extend((parts.len() as u32).to_be_bytes());
        for (number, body) in parts {
            built.extend((*number as u32).to_be_bytes());
            built.extend((body.len() as u64).to_be_bytes());
            built.extend([0; 4]);
        }
        parts.iter().for_each(|(_, body)| built.extend(*body));
        built
    };
    let [a, b, c] = [0, 1, 2].map(|i| (entries[i].0, bodies[i]));
    node.send(&sealed("PUT", "multi").body(built(&[a, b, c]))).expect(200);
    assert_eq!(node.send(&keyed("GET", "multi", &key)).expect(200).body.len(), 36_388);
    for parts in
        [&[a, b][..], &[b, c], &[a], &[a, (b.0, c.1), (c.0, b.1)], &[a, b, (c.0 + 1, c.1)], &[a, b, c, (9, a.1)]]
    {
        node.send(&sealed("PUT", "multi").body(built(parts))).expect(200);
        assert_error(&node.send(&keyed("GET", "multi", &key)), 400, "InvalidRequest", NOT_AUTHENTIC);
        node.send(&keyed("HEAD", "multi", &key)).expect(400);
        // Copies are refused too.
        let copy = keyed("PUT", "copy", &key).headers(key.copy_source_headers());
        node.send(&copy.header("x-amz-copy-source", "edge/multi")).expect(400);
    }
    // The maximum number of parts, and one more, each of them empty.
    let empty = [0; 72];
    let many = |count: usize| (1..=count).map(|number| (number, &empty[..])).collect::<Vec<_>>();
    node.send(&sealed("PUT", "multi").body(built(&many(10_000)))).expect(200);
    assert_error(&node.send(&keyed("GET", "multi", &key)), 400, "InvalidRequest", NOT_AUTHENTIC);
    assert_error(&node.send(&sealed("PUT", "multi").body(built(&many(10_001)))), 400, "InvalidRequest", "10,000");
}

/// Reads fail if an object head has the right key and name but invalid content: values that would
/// split the response head, lengths that differ from the body's, and bytes that are not a head.
fn check_invalid_heads(node: &Node, key: &CustomerKey) {
    let chunked = |key: &[u8], context: &[u8], bytes: &[u8]| {
        let key = hex::encode(key);
        let context = hex::encode(context);
        expect_success(&["chunked", "seal", "--key-hex", &key, "--context-hex", &context], bytes)
    };
    let named = |text: &str| [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat();
    let data_key = [7; 32];
    let body = chunked(&data_key, &[&b"keyhole.body.v1"[..], &[0; 4]].concat(), b"hello");
    let file = |head: &[u8]| {
        let context = [b"keyhole.head.v1".to_vec(), named("edge"), named("o")].concat();
        let head = chunked(&key.0, &context, head);
        let mut file = [b"KEYHOLE1".to_vec(), named("edge"), named("o")].concat();
        file.extend((head.len() as u32).to_be_bytes());
        file.extend(head);
        file.extend(1u32.to_be_bytes());
        file.extend([0; 4]);
        file.extend((body.len() as u64).to_be_bytes());
        file.extend([0; 4]);
        [file, body.clone()].concat()
    };
    // {0: 1, 1: DK, 2: 5}, and additional entries.
    let head = |entries: u8, len: u8, more: &[u8]| {
        [&[0xa0 | entries, 0x00, 0x01, 0x01, 0x58, 0x20][..], &data_key, &[0x02, len], more].concat()
    };
    let bytes = |key: u8, text: &str| [&[key, 0x40 | text.len() as u8][..], text.as_bytes()].concat();
    let user = |name: &str, value: &str| {
        [
            &[0x09, 0x81, 0x82, 0x60 | name.len() as u8][..],
            name.as_bytes(),
            &[0x40 | value.len() as u8],
            value.as_bytes(),
        ]
        .concat()
    };
    node.send(&sealed("PUT", "o").body(file(&head(5, 5, &[bytes(3, "text/x"), user("a", "b")].concat())))).expect(200);
    let got = node.send(&keyed("GET", "o", key)).expect(200);
    assert_eq!((got.body.as_slice(), got.header("x-amz-meta-a")), (&b"hello"[..], Some("b")));
    for (what, head) in [
        ("a value that splits", head(4, 5, &bytes(3, "a\r\nx-evil: 1"))),
        ("metadata that splits", head(4, 5, &user("a", "b\r\nx-evil: 1"))),
        ("a name that splits", head(4, 5, &user("a: b\r\nc", "d"))),
        ("another length", head(3, 6, b"")),
        ("an unknown entry", head(4, 5, &[0x17, 0x00])),
        ("a manifest of no parts", head(4, 5, &[&[0x0b, 0x58, 0x20][..], &[1; 32]].concat())),
        ("no map", b"hello".to_vec()),
        ("nothing", Vec::new()),
    ] {
        node.send(&sealed("PUT", "o").body(file(&head))).expect(200);
        let got = node.send(&keyed("GET", "o", key));
        assert_error(&got, 400, "InvalidRequest", NOT_AUTHENTIC);
        assert!(got.header("x-evil").is_none(), "{what}");
        let head = node.send(&keyed("HEAD", "o", key)).expect(400);
        assert!(head.header("x-evil").is_none() && head.header("content-type").is_none_or(|it| !it.contains('\r')));
    }
    expect_failure(2, &["chunked", "seal", "--key-hex", "00"], b"");
}
