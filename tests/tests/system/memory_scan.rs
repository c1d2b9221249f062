//! Secrets in the memory of the node: after each kind of request and refusal, no key of a client and
//! no plaintext of a sealed object is left in it.

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use keyhole_tests::data::{base64, md5};
use keyhole_tests::form::{Form, now_ms};
use keyhole_tests::http::{object, read_reply};
use keyhole_tests::scan::{Needle, occurrences};
use keyhole_tests::{CustomerKey, Launch, Node, Request, Response};

/// Pauses in which the node ends what it did for a request, after the client has its response.
const PAUSES: usize = 20;
const PAUSE: Duration = Duration::from_millis(50);

const KEY_HEADER: &str = "x-amz-server-side-encryption-customer-key";

/// One kind of request with its own secrets.
struct Case<'n> {
    node: &'n Node,
    key: CustomerKey,
    other: CustomerKey,
    pattern: [u8; 48],
    /// Connections that stay open while the memory is searched.
    open: Vec<TcpStream>,
}

impl Case<'_> {
    fn body(&self, len: usize) -> Vec<u8> {
        self.pattern.iter().copied().cycle().take(len).collect()
    }

    fn keyed(&self, method: &str, name: &str) -> Request {
        object(method, name).headers(self.key.headers())
    }

    /// Sends a signed request and keeps the connection, as SDKs do.
    fn send(&mut self, request: Request) -> Response {
        let request = request.signed(self.node.address(), self.node.signer());
        self.send_unsigned(&request)
    }

    fn send_unsigned(&mut self, request: &Request) -> Response {
        let mut tcp = self.connect();
        let response = request.exchange(&mut tcp, &request.keep_alive_head(self.node.address())).expect("a response");
        self.check_echo(&response);
        self.open.push(tcp);
        response
    }

    fn connect(&self) -> TcpStream {
        let tcp = TcpStream::connect(self.node.address()).expect("the node listens");
        tcp.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        tcp
    }

    /// Sends bytes and ends the sending side; returns the response if there is one.
    fn send_raw(&mut self, bytes: &[u8]) -> Option<Response> {
        let mut tcp = self.connect();
        tcp.write_all(bytes).expect("a connection");
        tcp.shutdown(Shutdown::Write).expect("a connection");
        let mut body = Vec::new();
        let response = read_reply(&mut tcp, "GET", |bytes| body.extend_from_slice(bytes)).ok()?;
        let response = Response { body, ..response };
        self.check_echo(&response);
        self.open.push(tcp);
        Some(response)
    }

    /// Sends a head that is refused, and a body after the response: the node must discard it without
    /// ever having it in its memory. The connection stays open.
    fn refuse_before_body(&mut self, head: &[u8], len: usize) {
        let mut tcp = self.connect();
        tcp.write_all(head).expect("a connection");
        let response = read_reply(&mut tcp, "GET", |_| ()).expect("a response");
        assert!(response.status >= 400, "{}", response.status);
        tcp.write_all(&self.body(len)).expect("the node discards what follows");
        self.open.push(tcp);
        for _ in 0..PAUSES / 4 {
            thread::sleep(PAUSE);
            // Without root's rights, the caller skips the test.
            let found = occurrences(self.node.pid(), &Needle::plaintext(&self.pattern)).unwrap_or_default();
            assert_eq!(found, [""; 0], "after a refusal with status {}", response.status);
        }
    }

    /// Returns a signed head with a changed line end: the head of a keyed PUT of `len` bytes.
    fn head(&self, len: usize) -> String {
        let put = self.keyed("PUT", "raw").body(self.body(len));
        put.signed(self.node.address(), self.node.signer()).head(self.node.address())
    }

    /// A response may hold the plaintext, but no key.
    fn check_echo(&self, response: &Response) {
        let text = format!("{:?} {}", response.headers, response.text());
        for key in [&self.key, &self.other] {
            for (encoding, bytes) in keyhole_tests::data::encodings(&key.0) {
                let found = memchr::memmem::find(text.as_bytes(), &bytes[..16]).is_some();
                assert!(!found, "the response has the key in {encoding}: {text}");
            }
        }
    }
}

type Run = fn(&mut Case<'_>);

const REQUESTS: [(&str, Run); 11] = [
    ("small put and get", |case| put_and_get(case, 1000)),
    ("put and get of several blocks", |case| put_and_get(case, (3 << 20) + 77)),
    ("range and head", |case| {
        case.send(case.keyed("PUT", "o").body(case.body(300_000))).expect(200);
        let got = case.send(case.keyed("GET", "o").header("range", "bytes=48-143")).expect(206);
        assert_eq!(got.body, case.body(96));
        case.send(case.keyed("HEAD", "o")).expect(200);
        case.send(case.keyed("GET", "o").query("attributes", "").header("x-amz-object-attributes", "ObjectSize"))
            .expect(200);
    }),
    ("metadata", |case| {
        let text = String::from_utf8(case.pattern.to_vec()).unwrap();
        case.send(case.keyed("PUT", "o").header("x-amz-meta-a", &text).body("x")).expect(200);
        assert_eq!(case.send(case.keyed("GET", "o")).expect(200).header("x-amz-meta-a"), Some(&text[..]));
    }),
    ("copy under another key", |case| {
        case.send(case.keyed("PUT", "o").body(case.body(200_000))).expect(200);
        let copy = object("PUT", "copy").header("x-amz-copy-source", "/bucket/o");
        case.send(copy.headers(case.key.copy_source_headers()).headers(case.other.headers())).expect(200);
    }),
    ("multipart upload", |case| {
        let id = case.send(case.keyed("POST", "m").query("uploads", "")).expect(200).element("UploadId").unwrap();
        let part = case.keyed("PUT", "m").query("partNumber", "1").query("uploadId", &id).body(case.body(100_000));
        let etag = case.send(part).expect(200).header("etag").unwrap().to_owned();
        case.send(case.keyed("GET", "m").query("uploadId", &id)).expect(200);
        let part = format!("<Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>");
        let document = format!("<CompleteMultipartUpload>{part}</CompleteMultipartUpload>");
        case.send(case.keyed("POST", "m").query("uploadId", &id).body(document)).expect(200);
        case.send(case.keyed("GET", "m")).expect(200);
    }),
    ("form", |case| {
        let form = Form::new("form", case.body(90_000)).fields(case.key.headers());
        let request = form.signed(case.node.signer(), now_ms()).request();
        case.send_unsigned(&request).expect(204);
    }),
    ("sealed transfer", |case| {
        case.send(case.keyed("PUT", "o").body(case.body(100_000))).expect(200);
        let file = case.send(object("GET", "o").header("x-keyhole-sealed", "1")).expect(200).body;
        case.send(object("PUT", "o").header("x-keyhole-sealed", "1").body(file)).expect(200);
        assert_eq!(case.send(case.keyed("GET", "o")).expect(200).body, case.body(100_000));
    }),
    ("signed chunks", |case| {
        let mut body = format!("{:x}\r\n", 1000).into_bytes();
        body.extend(case.body(1000));
        body.extend(b"\r\n0\r\nx-amz-checksum-crc32:");
        body.extend(base64(&crc32fast::hash(&case.body(1000)).to_be_bytes()).into_bytes());
        body.extend(b"\r\n\r\n");
        let put = case.keyed("PUT", "chunks").header("x-amz-decoded-content-length", "1000");
        let put = put.header("content-encoding", "aws-chunked").header("x-amz-trailer", "x-amz-checksum-crc32");
        case.send(put.payload("STREAMING-UNSIGNED-PAYLOAD-TRAILER").body(body)).expect(200);
    }),
    ("presigned URL", |case| {
        let put = case.keyed("PUT", "url").body(case.body(1000));
        let request = put.presigned(case.node.address(), case.node.signer(), 60);
        case.send_unsigned(&request).expect(200);
    }),
    ("pipelined requests", |case| {
        let head = case.head(1000).replace("connection: close\r\n", "");
        let bytes = [head.as_bytes(), &case.body(1000), head.as_bytes(), &case.body(1000)].concat();
        case.send_raw(&bytes).unwrap().expect(200);
    }),
];

const REFUSALS: [(&str, Run); 20] = [
    ("wrong key", |case| {
        case.send(case.keyed("PUT", "o").body(case.body(1000))).expect(200);
        case.send(object("GET", "o").headers(case.other.headers())).expect(403);
        case.send(object("GET", "o")).expect(400);
    }),
    ("wrong MD5 of the key", |case| {
        let mut headers = case.key.headers();
        headers[2].1 = base64(&md5(b"another"));
        case.send(object("PUT", "o").headers(headers).body(case.body(1000))).expect(400);
    }),
    ("key that is encoded twice", |case| {
        let mut headers = case.key.headers();
        headers[1].1 = base64(headers[1].1.as_bytes());
        case.send(object("PUT", "o").headers(headers).body(case.body(1000))).expect(400);
    }),
    ("key in the place of the algorithm", |case| {
        let mut headers = case.key.headers();
        headers[0].1 = case.key.base64();
        case.send(object("PUT", "o").headers(headers).body(case.body(1000))).expect(400);
    }),
    ("key in other headers", |case| {
        let names = [
            "x-amz-server-side-encryption",
            "x-amz-server-side-encryption-customer-kye",
            "x-amz-server-side-encryption-aws-kms-key-id",
            "x-amz-acl",
            "x-amz-copy-source",
            "x-amz-checksum-crc32",
            "content-md5",
            "x-amz-storage-class",
            "if-none-match",
        ];
        for name in names {
            for value in [case.key.base64(), hex::encode(case.key.0), hex::encode_upper(case.key.0)] {
                let refused = case.send(object("PUT", "o").header(name, value).body(case.body(1000)));
                assert!(refused.status >= 400, "{name}");
            }
        }
    }),
    ("key in the payload hash", |case| {
        case.send(object("PUT", "o").payload(&hex::encode(case.key.0)).body(case.body(1000))).expect(400);
        case.send(object("PUT", "o").payload(&case.key.base64()).body(case.body(1000))).expect(400);
    }),
    ("key in the query", |case| {
        let put = object("PUT", "o").query(KEY_HEADER, &case.key.base64()).body(case.body(1000));
        assert!(case.send(put).status >= 400);
        let list =
            Request::new("GET", "/bucket").query("list-type", "2").query("continuation-token", &case.key.base64());
        case.send(list).expect(400);
    }),
    ("key in a form's field", |case| {
        let form = Form::new("form", case.body(1000)).field("x-amz-server-side-encryption", &case.key.base64());
        let request = form.signed(case.node.signer(), now_ms()).request();
        assert!(case.send_unsigned(&request).status >= 400);
    }),
    ("key in the Authorization header", |case| {
        let put = case.keyed("PUT", "o").header("authorization", format!("AWS4-HMAC-SHA256 {}", case.key.base64()));
        assert!(case.send_unsigned(&put.body(case.body(1000))).status >= 400);
    }),
    ("unsigned request", |case| {
        case.send_unsigned(&case.keyed("PUT", "o").body(case.body(300_000))).expect(403);
    }),
    ("wrong signature", |case| {
        let put = case.keyed("PUT", "o").body(case.body(1000)).signed(case.node.address(), case.node.signer());
        case.send_unsigned(&put.header("x-amz-meta-late", "1")).expect(403);
    }),
    ("bucket that is missing", |case| {
        let put = Request::new("PUT", "/missing/o").headers(case.key.headers()).body(case.body(300_000));
        case.send(put).expect(404);
    }),
    ("malformed head", |case| {
        let head = case.head(0).replace("connection: close", "connection close");
        case.send_raw(head.as_bytes()).unwrap().expect(400);
    }),
    ("head that is too long", |case| {
        let head = case.head(0).replace("connection: close", &format!("x-long: {}", "a".repeat(16 << 10)));
        case.send_raw(head.as_bytes()).unwrap().expect(400);
    }),
    ("head that is cut", |case| {
        let head = case.head(0);
        for cut in [head.len() / 2, head.len() - 2] {
            let mut tcp = case.connect();
            for piece in head.as_bytes()[..cut].chunks(200) {
                tcp.write_all(piece).unwrap();
                thread::sleep(Duration::from_millis(5));
            }
        }
    }),
    ("body that is cut", |case| {
        for sent in [100, 100_000] {
            let head = case.head(200_000);
            let mut tcp = case.connect();
            tcp.write_all(&[head.as_bytes(), &case.body(sent)].concat()).unwrap();
            thread::sleep(Duration::from_millis(50));
        }
        let head = case.head(200_000);
        case.send_raw(&[head.as_bytes(), &case.body(150_000)].concat()).unwrap().expect(400);
    }),
    ("body that follows its refusal", |case| {
        for len in [1000, 300_000] {
            let head = case.head(len).replace("x-amz-content-sha256", "x-amz-content-sha255");
            case.refuse_before_body(head.as_bytes(), len);
        }
    }),
    ("body that follows a malformed head", |case| {
        let head = case.head(1000).replace("connection: close", "connection close");
        case.refuse_before_body(head.as_bytes(), 1000);
    }),
    ("body with another digest", |case| {
        let put = case.keyed("PUT", "o").header("content-md5", base64(&md5(b"another"))).body(case.body(200_000));
        case.send(put).expect(400);
    }),
    ("repeated key header", |case| {
        let head =
            case.head(1000).replacen(KEY_HEADER, &format!("{KEY_HEADER}: {}\r\n{KEY_HEADER}", case.key.base64()), 1);
        case.send_raw(&[head.as_bytes(), &case.body(1000)].concat()).unwrap().expect(400);
    }),
];

fn put_and_get(case: &mut Case<'_>, len: usize) {
    case.send(case.keyed("PUT", "o").body(case.body(len))).expect(200);
    assert!(case.send(case.keyed("GET", "o")).expect(200).body == case.body(len));
}

/// Runs one kind of request and returns the places that its secrets are left in.
fn leftovers(node: &Node, run: Run) -> std::io::Result<Vec<String>> {
    let mut pattern = *b"plaintext 0123456789abcdef: of no other request.";
    pattern[10..26].copy_from_slice(hex::encode(&CustomerKey::random().0[..8]).as_bytes());
    let mut case = Case { node, key: CustomerKey::random(), other: CustomerKey::random(), pattern, open: Vec::new() };
    run(&mut case);
    let mut needles = Needle::plaintext(&case.pattern);
    needles.extend(Needle::key("the key", &case.key.0));
    needles.extend(Needle::key("the other key", &case.other.0));
    let mut found = Vec::new();
    for _ in 0..PAUSES {
        thread::sleep(PAUSE);
        found = occurrences(node.pid(), &needles)?;
        if found.is_empty() {
            break;
        }
    }
    Ok(found)
}

#[test]
fn memory_has_no_secrets_of_the_last_request() {
    for io in ["uring", "epoll"] {
        let node = Launch::default().with_credential().arg("--threads=1").arg(format!("--io={io}")).start();
        node.make_bucket("bucket");
        let mut failures = Vec::new();
        for (name, run) in REQUESTS.into_iter().chain(REFUSALS) {
            match leftovers(&node, run) {
                Ok(places) if places.is_empty() => {}
                Ok(places) => {
                    eprintln!("{name}: {}", places.join("; "));
                    failures.push(name);
                }
                // The node is not dumpable, so only root may look.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    eprintln!("skipped: reading the memory of the node needs root ({error})");
                    return;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(failures, [""; 0], "with {io}");
    }
}

/// Shows that the search finds what is in the memory: the secret key, which the node needs to verify
/// signatures, and a key while its request is being received.
#[test]
fn search_finds_secrets_in_use() {
    let node = Launch::default().with_credential().arg("--threads=1").start();
    node.make_bucket("bucket");
    let secret = Needle { name: "secret key".to_owned(), bytes: node.signer().secret_key.clone().into_bytes() };
    let key = CustomerKey::random();
    let mut tcp = TcpStream::connect(node.address()).unwrap();
    tcp.write_all(format!("GET /bucket/o HTTP/1.1\r\n{KEY_HEADER}: {}\r\n", key.base64()).as_bytes()).unwrap();
    thread::sleep(PAUSE * 4);
    for needles in [vec![secret], Needle::key("key", &key.0)] {
        match occurrences(node.pid(), &needles) {
            Ok(places) => assert!(!places.is_empty()),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return,
            Err(error) => panic!("{error}"),
        }
    }
}
