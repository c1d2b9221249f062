//! SSE-C headers on every operation that accepts them: invalid ones are rejected, and none is
//! ignored.

use keyhole_tests::data::{base64, bytes, fresh_seed, md5};
use keyhole_tests::form::Form;
use keyhole_tests::http::object;
use keyhole_tests::{CustomerKey, Request, Response};

use crate::support::{MemoryNode, first_part, keyed};

const OBJECT: &str = "x-amz-server-side-encryption-customer-";
const SOURCE: &str = "x-amz-copy-source-server-side-encryption-customer-";
const MANAGED: &str = "x-amz-server-side-encryption";

const INVALID_ALGORITHM: &str = "The Encryption request you specified is not valid. Supported value: AES256.";
const NEEDS_ALGORITHM: &str =
    "Requests specifying Server Side Encryption with Customer provided keys must provide a valid encryption algorithm.";
const NEEDS_KEY: &str =
    "Requests specifying Server Side Encryption with Customer provided keys must provide an appropriate secret key.";
const NEEDS_MD5: &str = "Requests specifying Server Side Encryption with Customer provided keys must provide the client \
                         calculated MD5 of the secret key.";
const INVALID_KEY: &str = "The secret key was invalid for the specified algorithm.";
const WRONG_MD5: &str = "The calculated MD5 hash of the key did not match the hash that was provided.";
const MANAGED_AND_CUSTOMER: &str =
    "Server Side Encryption with Customer provided key is incompatible with the encryption method specified";
const MANAGED_UNSUPPORTED: &str =
    "Server-side encryption with managed keys is not supported. Use customer-provided keys (SSE-C).";
const NEEDS_PARAMETERS: &str = "The object was stored using a form of Server Side Encryption. The correct parameters must be \
                         provided to retrieve the object.";
const WRONG_KEY: &str =
    "Requests specifying Server Side Encryption with Customer provided keys must provide the correct secret key.";
const NOT_APPLICABLE: &str = "The encryption parameters are not applicable to this object.";
const INSECURE: &str =
    "Requests specifying Server Side Encryption with Customer provided keys must be made over a secure connection.";
const PART_NEEDS_KEY: &str = "The multipart upload initiate requested encryption. Subsequent part requests must include the \
                         appropriate encryption parameters.";
const PART_WRONG_KEY: &str = "The provided encryption parameters did not match the ones used originally.";

type Headers = Vec<(String, String)>;

/// A bucket with a sealed object, a plain one, and an upload of each kind.
struct Fixture {
    node: MemoryNode,
    key: CustomerKey,
    sealed_upload: String,
    plain_upload: String,
}

/// The expected status, code and message.
type ExpectedError = (u16, &'static str, &'static str);

fn fixture() -> Fixture {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    node.send(&object("PUT", "sealed").headers(key.headers()).body("sealed")).expect(200);
    node.send(&object("PUT", "plain").body("plain")).expect(200);
    let sealed_upload = node.create_upload(object("POST", "parts").headers(key.headers()));
    let plain_upload = node.create_upload(object("POST", "parts"));
    Fixture { node, key, sealed_upload, plain_upload }
}

impl Fixture {
    fn send(&self, request: Request) -> Response {
        self.node.send(&request)
    }

    fn part(&self, upload: &str) -> Request {
        first_part(object("PUT", "parts"), upload)
    }

    /// Runs an operation that stores data with a key, with these headers.
    fn write(&self, operation: &str, headers: &[(String, String)]) -> Response {
        let from_plain = |request: Request| request.header("x-amz-copy-source", "/bucket/plain");
        let request = match operation {
            "PutObject" => object("PUT", "new").body("never stored"),
            "PostObject" => {
                return self.node.send_form(Form::new("new", "never stored").fields(headers.iter().cloned()));
            }
            "CopyObject" => from_plain(object("PUT", "new")),
            "CreateMultipartUpload" => object("POST", "new").query("uploads", ""),
            "UploadPart" => self.part(&self.sealed_upload).body("never stored"),
            "UploadPartCopy" => from_plain(self.part(&self.sealed_upload)),
            other => panic!("{other}"),
        };
        self.send(request.headers(headers.to_vec()))
    }

    /// Runs an operation that reads an object with a key; `headers` takes the prefix of the header
    /// names.
    fn read(&self, operation: &str, name: &str, headers: impl Fn(&str) -> Headers) -> Response {
        let source = |request: Request| request.header("x-amz-copy-source", format!("/bucket/{name}"));
        let request = match operation {
            "GetObject" => object("GET", name).headers(headers(OBJECT)),
            "GetObject, a range" => object("GET", name).header("range", "bytes=1-2").headers(headers(OBJECT)),
            "HeadObject" => object("HEAD", name).headers(headers(OBJECT)),
            "GetObjectAttributes" => {
                let attributes = object("GET", name).query("attributes", "");
                attributes.header("x-amz-object-attributes", "ETag,ObjectSize").headers(headers(OBJECT))
            }
            "CopyObject" => source(object("PUT", "new")).headers(headers(SOURCE)),
            "CopyObject, to itself" => {
                let copy = source(object("PUT", name)).header("x-amz-metadata-directive", "REPLACE");
                copy.headers(headers(SOURCE))
            }
            "UploadPartCopy" => source(self.part(&self.plain_upload)).headers(headers(SOURCE)),
            other => panic!("{other}"),
        };
        self.send(request)
    }

    /// Checks that the bucket has only its original content.
    fn assert_nothing_stored(&self) {
        for upload in [&self.sealed_upload, &self.plain_upload] {
            let parts = self.node.send(&object("GET", "parts").query("uploadId", upload)).expect(200).text();
            assert!(!parts.contains("<Part>"), "{parts}");
        }
        self.node.send(&object("GET", "new")).expect(404);
        let uploads = self.node.send(&Request::new("GET", "/bucket").query("uploads", "")).expect(200).text();
        assert_eq!(uploads.matches("<Upload>").count(), 2, "{uploads}");
    }
}

const WRITES: [&str; 6] =
    ["PutObject", "PostObject", "CopyObject", "CreateMultipartUpload", "UploadPart", "UploadPartCopy"];
const READS: [&str; 7] = [
    "GetObject",
    "GetObject, a range",
    "HeadObject",
    "GetObjectAttributes",
    "CopyObject",
    "CopyObject, to itself",
    "UploadPartCopy",
];

#[track_caller]
fn check(what: &str, reply: &Response, (status, code, message): ExpectedError) {
    assert_eq!(reply.status, status, "{what}: {}", reply.text());
    assert!(reply.header("x-amz-request-id").is_some(), "{what}");
    if what.starts_with("HeadObject") {
        assert!(reply.body.is_empty(), "{what}");
        return;
    }
    assert_eq!(reply.element("Code").as_deref(), Some(code), "{what}: {}", reply.text());
    assert_eq!(reply.element("Message").as_deref(), Some(message), "{what}: {}", reply.text());
    assert_eq!(reply.element("RequestId").as_deref(), reply.header("x-amz-request-id"), "{what}");
    assert!(reply.element("Resource").is_some(), "{what}: {}", reply.text());
    if code == "InvalidArgument" || code == "InvalidEncryptionAlgorithmError" {
        assert_eq!(reply.element("ArgumentName").as_deref(), Some(MANAGED), "{what}: {}", reply.text());
    }
}

fn named(prefix: &str, pairs: &[(&str, &str)]) -> Headers {
    pairs.iter().map(|(name, value)| (format!("{prefix}{name}"), (*value).to_owned())).collect()
}

#[test]
fn writes_with_invalid_sse_c_headers_are_rejected() {
    let fixture = fixture();
    let key = fixture.key.base64();
    let md5_of_key = fixture.key.md5_base64();
    let short = &fixture.key.0[..31];
    let md5_of_short = base64(&md5(short));
    let short = base64(short);
    let other = CustomerKey::random().md5_base64();
    let whole = [("algorithm", "AES256"), ("key", &key), ("key-md5", &md5_of_key)];
    let with_managed = |headers: Headers, value: &str| {
        let mut headers = headers;
        headers.push((MANAGED.to_owned(), value.to_owned()));
        headers
    };
    let sse_c_headers = |pairs: &[(&str, &str)]| named(OBJECT, pairs);
    let argument = |message| (400, "InvalidArgument", message);
    let cases: Vec<(&str, Headers, ExpectedError)> = vec![
        (
            "managed encryption beside a key",
            with_managed(sse_c_headers(&whole), "AES256"),
            argument(MANAGED_AND_CUSTOMER),
        ),
        (
            "managed encryption beside a key",
            with_managed(sse_c_headers(&whole), "aws:kms"),
            argument(MANAGED_AND_CUSTOMER),
        ),
        (
            "managed encryption and a missing key",
            with_managed(sse_c_headers(&whole[..1]), "aws:kms"),
            argument(MANAGED_AND_CUSTOMER),
        ),
        (
            "unsupported algorithm",
            sse_c_headers(&[("algorithm", "AES128"), whole[1], whole[2]]),
            (400, "InvalidEncryptionAlgorithmError", INVALID_ALGORITHM),
        ),
        (
            "unsupported algorithm and wrong MD5",
            sse_c_headers(&[("algorithm", "aes256"), whole[1], ("key-md5", &other)]),
            (400, "InvalidEncryptionAlgorithmError", INVALID_ALGORITHM),
        ),
        ("missing algorithm", sse_c_headers(&whole[1..]), argument(NEEDS_ALGORITHM)),
        ("missing key", sse_c_headers(&[whole[0], whole[2]]), argument(NEEDS_KEY)),
        ("only the algorithm", sse_c_headers(&whole[..1]), argument(NEEDS_KEY)),
        ("only the MD5", sse_c_headers(&whole[2..]), argument(NEEDS_KEY)),
        (
            "key too short",
            sse_c_headers(&[whole[0], ("key", &short), ("key-md5", &md5_of_short)]),
            argument(INVALID_KEY),
        ),
        ("key not in base64", sse_c_headers(&[whole[0], ("key", "not base64!"), whole[2]]), argument(INVALID_KEY)),
        ("missing MD5", sse_c_headers(&whole[..2]), argument(NEEDS_MD5)),
        ("missing MD5 and algorithm", sse_c_headers(&whole[1..2]), argument(NEEDS_MD5)),
        ("wrong MD5", sse_c_headers(&[whole[0], whole[1], ("key-md5", &other)]), argument(WRONG_MD5)),
        ("managed encryption", with_managed(Vec::new(), "aws:kms"), (501, "NotImplemented", MANAGED_UNSUPPORTED)),
        ("managed encryption", with_managed(Vec::new(), "AES256"), (501, "NotImplemented", MANAGED_UNSUPPORTED)),
    ];
    for operation in WRITES {
        for (case, headers, expected) in &cases {
            let reply = fixture.write(operation, headers);
            check(&format!("{operation}, {case}"), &reply, *expected);
            let text = reply.text();
            assert!(!text.contains(&key) && !text.contains(&md5_of_key), "{operation}, {case}: {text}");
            let value = headers.iter().find(|(name, _)| name == MANAGED).map(|(_, value)| value.clone());
            if *expected == argument(MANAGED_AND_CUSTOMER) {
                assert_eq!(reply.element("ArgumentValue"), value, "{operation}, {case}");
            }
        }
    }
    fixture.assert_nothing_stored();
    for operation in ["UploadPart", "PutObject"] {
        let reply = fixture.write(operation, &sse_c_headers(&whole)).expect(200);
        assert_eq!(reply.header("x-amz-server-side-encryption-customer-key-md5"), Some(&md5_of_key[..]));
        assert!(reply.headers.iter().all(|(_, value)| *value != key));
    }
}

#[test]
fn reads_with_invalid_sse_c_headers_are_rejected() {
    let fixture = fixture();
    let key = fixture.key.base64();
    let md5_of_key = fixture.key.md5_base64();
    let wrong = CustomerKey::random();
    let md5_of_wrong = wrong.md5_base64();
    let wrong = wrong.base64();
    let short = &fixture.key.0[..31];
    let md5_of_short = base64(&md5(short));
    let short = base64(short);
    let whole = [("algorithm", "AES256"), ("key", &key[..]), ("key-md5", &md5_of_key[..])];
    let argument = |message| (400, "InvalidArgument", message);
    let plain = (400, "InvalidRequest", NOT_APPLICABLE);
    let absent = (404, "NoSuchKey", "The specified key does not exist.");
    type Pairs<'a> = Vec<(&'a str, &'a str)>;
    let cases: Vec<(&str, &str, Pairs<'_>, ExpectedError)> = vec![
        ("sealed object without a key", "sealed", vec![], (400, "InvalidRequest", NEEDS_PARAMETERS)),
        (
            "wrong key",
            "sealed",
            vec![whole[0], ("key", &wrong), ("key-md5", &md5_of_wrong)],
            (403, "AccessDenied", WRONG_KEY),
        ),
        (
            "key of invalid length",
            "sealed",
            vec![whole[0], ("key", &short), ("key-md5", &md5_of_short)],
            (403, "AccessDenied", WRONG_KEY),
        ),
        ("plaintext object with a key", "plain", whole.to_vec(), plain),
        ("plaintext object with one header", "plain", whole[..1].to_vec(), plain),
        ("plaintext object with one header", "plain", whole[1..2].to_vec(), plain),
        ("plaintext object with one header", "plain", whole[2..].to_vec(), plain),
        (
            "unsupported algorithm",
            "sealed",
            vec![("algorithm", "AES128"), whole[1], whole[2]],
            (400, "InvalidEncryptionAlgorithmError", INVALID_ALGORITHM),
        ),
        ("missing algorithm", "sealed", whole[1..].to_vec(), argument(NEEDS_ALGORITHM)),
        ("missing key", "sealed", vec![whole[0], whole[2]], argument(NEEDS_KEY)),
        ("missing MD5", "sealed", whole[..2].to_vec(), argument(NEEDS_MD5)),
        ("wrong MD5", "sealed", vec![whole[0], whole[1], ("key-md5", &md5_of_wrong)], argument(WRONG_MD5)),
        ("absent object", "absent", whole.to_vec(), absent),
        ("absent object and missing MD5", "absent", whole[..2].to_vec(), absent),
    ];
    for operation in READS {
        for (case, name, pairs, expected) in &cases {
            let reply = fixture.read(operation, name, |prefix| named(prefix, pairs));
            check(&format!("{operation}, {case}"), &reply, *expected);
            assert!(!reply.text().contains(&key), "{operation}, {case}");
        }
    }
    fixture.assert_nothing_stored();
    // With the right key these requests succeed.
    for (operation, status) in [("GetObject, a range", 206), ("HeadObject", 200), ("GetObjectAttributes", 200)] {
        fixture.read(operation, "sealed", |prefix| named(prefix, &whole)).expect(status);
    }
}

/// On an insecure connection, this error takes precedence over all other errors of a key and over
/// the lookup of the object.
#[test]
fn keys_over_insecure_connection_are_rejected() {
    let fixture = fixture();
    fixture.node.set_secure(false);
    let key = fixture.key.base64();
    let md5_of_key = fixture.key.md5_base64();
    let whole = [("algorithm", "AES256"), ("key", &key[..]), ("key-md5", &md5_of_key[..])];
    let expected = (400, "InvalidRequest", INSECURE);
    for pairs in [&whole[..], &whole[..1], &whole[1..2], &whole[2..], &[("algorithm", "AES128")]] {
        let mut managed = named(OBJECT, pairs);
        managed.push((MANAGED.to_owned(), "aws:kms".to_owned()));
        for operation in WRITES {
            check(operation, &fixture.write(operation, &named(OBJECT, pairs)), expected);
            check(operation, &fixture.write(operation, &managed), expected);
        }
        for operation in READS {
            for name in ["sealed", "plain", "absent"] {
                check(operation, &fixture.read(operation, name, |prefix| named(prefix, pairs)), expected);
            }
        }
        let upload = |method: &str| {
            let request = object(method, "parts").query("uploadId", &fixture.sealed_upload);
            fixture.send(request.headers(named(OBJECT, pairs)))
        };
        check("ListParts", &upload("GET"), expected);
        check("CompleteMultipartUpload", &upload("POST"), expected);
    }
    fixture.assert_nothing_stored();
    // Requests without a key are served from there as well.
    fixture.read("GetObject", "plain", |_| Vec::new()).expect(200);
    check(
        "GetObject without a key",
        &fixture.read("GetObject", "sealed", |_| Vec::new()),
        (400, "InvalidRequest", NEEDS_PARAMETERS),
    );
}

#[test]
fn parts_without_key_of_upload_are_rejected() {
    let fixture = fixture();
    let sse_c_headers = fixture.key.headers();
    let wrong = CustomerKey::random().headers();
    let needs_key = (400, "InvalidRequest", PART_NEEDS_KEY);
    let other_key = (400, "InvalidRequest", PART_WRONG_KEY);
    let sealed = &fixture.sealed_upload;
    let plain = &fixture.plain_upload;
    for copies in [false, true] {
        let part = |upload: &str, headers: &[(String, String)]| {
            let part = fixture.part(upload).headers(headers.to_vec());
            let request =
                if copies { part.header("x-amz-copy-source", "/bucket/plain") } else { part.body("never stored") };
            fixture.node.send(&request)
        };
        let name = if copies { "UploadPartCopy" } else { "UploadPart" };
        check(&format!("{name} to a sealed upload without a key"), &part(sealed, &[]), needs_key);
        check(&format!("{name} to a plaintext upload with a key"), &part(plain, &sse_c_headers), needs_key);
        check(&format!("{name} with another key"), &part(sealed, &wrong), other_key);
    }
    fixture.assert_nothing_stored();

    // An upload with checksums can be completed, and its parts listed, only with the key.
    let create = object("POST", "sums").query("uploads", "").header("x-amz-checksum-algorithm", "CRC32");
    let id = fixture.node.send(&create.headers(sse_c_headers.clone())).expect(200).element("UploadId").unwrap();
    let sum = &base64(&crc32fast::hash(b"part").to_be_bytes());
    let part = object("PUT", "sums").query("partNumber", "1").query("uploadId", &id).body("part");
    let part = fixture.node.send(&part.header("x-amz-checksum-crc32", sum).headers(sse_c_headers.clone())).expect(200);
    let etag = part.header("etag").unwrap();
    let document = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag>\
        <ChecksumCRC32>{sum}</ChecksumCRC32></Part></CompleteMultipartUpload>"
    );
    let list = || object("GET", "sums").query("uploadId", &id);
    let complete = || object("POST", "sums").query("uploadId", &id).body(document.clone());
    let needs = (400, "InvalidArgument", NEEDS_KEY);
    check("ListParts without a key", &fixture.node.send(&list()), needs);
    check("CompleteMultipartUpload without a key", &fixture.node.send(&complete()), needs);
    check("ListParts with another key", &fixture.node.send(&list().headers(wrong.clone())), other_key);
    check("CompleteMultipartUpload with another key", &fixture.node.send(&complete().headers(wrong)), other_key);
    fixture.node.send(&object("GET", "sums").headers(sse_c_headers.clone())).expect(404);
    let listed = fixture.node.send(&list().headers(sse_c_headers.clone())).expect(200);
    let elements = ["ChecksumAlgorithm", "ChecksumType", "ChecksumCRC32"].map(|name| listed.element(name));
    assert_eq!(elements, ["CRC32", "COMPOSITE", sum].map(|value| Some(value.to_owned())), "{}", listed.text());
    fixture.node.send(&complete().headers(sse_c_headers.clone())).expect(200);
    assert_eq!(fixture.node.send(&object("GET", "sums").headers(sse_c_headers)).expect(200).body, b"part");
}

/// Misspells a header name: one character too many, missing, or changed.
fn misspell(random: &mut fastrand::Rng, name: &str) -> String {
    let mut letters: Vec<char> = name.chars().collect();
    let at = random.usize(..letters.len());
    match random.u8(..4) {
        0 => drop(letters.remove(at)),
        1 => letters.insert(at, random.lowercase()),
        2 => letters[at] = if letters[at] == 'q' { 'z' } else { 'q' },
        _ => letters.swap(at.max(1) - 1, at.max(1)),
    }
    letters.into_iter().collect()
}

#[test]
fn random_sse_c_headers_are_used_or_rejected() {
    let seed = fresh_seed();
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let fixture = fixture();
    let node = &fixture.node;
    let whole: Headers = fixture.key.headers().to_vec();
    let source: Headers = fixture.key.copy_source_headers().to_vec();
    let mut stored = 0;
    let mut refused = 0;
    for turn in 0..600 {
        let name = format!("turn-{turn}");
        // A subset of the SSE-C headers, some of them repeated, some misspelt, some of a copy
        // source.
        let mut headers = Headers::new();
        for (own, of_source) in whole.iter().zip(&source) {
            match random.u8(..12) {
                0..=4 => headers.push(own.clone()),
                5 => headers.extend([own.clone(), own.clone()]),
                6 | 7 => headers.push((misspell(&mut random, &own.0), own.1.clone())),
                8 => headers.push(of_source.clone()),
                9 => headers.push((own.0.to_uppercase(), own.1.clone())),
                _ => {}
            }
        }
        random.shuffle(&mut headers);
        let lower: Vec<String> = headers.iter().map(|(name, _)| name.to_lowercase()).collect();
        let asks_well = lower.len() == 3 && whole.iter().all(|(name, _)| lower.contains(name));
        let is_bare = headers.is_empty();
        let operation = random.u8(..3);
        let request = match operation {
            0 => object("PUT", &name).body("secret"),
            1 => object("PUT", &name).header("x-amz-copy-source", "/bucket/plain"),
            _ => object("POST", &name).query("uploads", ""),
        };
        let reply = node.send(&request.headers(headers.clone()));
        let context = format!("seed {seed}, turn {turn}, operation {operation}, {headers:?}: {}", reply.text());
        assert_eq!(reply.status == 200, asks_well || is_bare, "{context}");
        if reply.status == 200 {
            stored += 1;
        } else {
            assert!((400..500).contains(&reply.status), "{context}");
            refused += 1;
        }
        let echoed = reply.header("x-amz-server-side-encryption-customer-algorithm");
        assert_eq!(echoed.is_some(), asks_well, "{context}");
        match operation {
            // Sealed if correctly requested, and otherwise not stored.
            0 | 1 => {
                let status = if is_bare {
                    200
                } else if asks_well {
                    400
                } else {
                    404
                };
                assert_eq!(node.send(&object("GET", &name)).status, status, "{context}");
                if asks_well {
                    node.send(&object("GET", &name).headers(whole.clone())).expect(200);
                }
            }
            _ if reply.status == 200 => {
                let id = reply.element("UploadId").unwrap();
                let part = |request: Request| {
                    let part = request.query("partNumber", "1").query("uploadId", &id).body("secret");
                    node.send(&part).status
                };
                assert_eq!(part(object("PUT", &name)), if is_bare { 200 } else { 400 }, "{context}");
                assert_eq!(part(object("PUT", &name).headers(whole.clone())), if is_bare { 400 } else { 200 });
            }
            _ => {}
        }
    }
    assert!(stored > 10 && refused > 300, "{stored} stored, {refused} refused");
}

#[test]
fn sealed_file_of_several_blocks_is_stored_as_it_is() {
    let node = MemoryNode::new();
    let key = CustomerKey::random();
    for len in [(1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 19] {
        let body = bytes(len as u64, len);
        node.send(&keyed("PUT", "o", &key).body(body.clone())).expect(200);
        let file = node.send(&object("GET", "o").header("x-keyhole-sealed", "1")).expect(200).body;
        node.send(&object("DELETE", "o")).expect(204);
        node.send(&object("PUT", "o").header("x-keyhole-sealed", "1").body(file)).expect(200);
        assert!(node.send(&keyed("GET", "o", &key)).expect(200).body == body, "{len} bytes");
    }
}
