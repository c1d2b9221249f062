//! Tests with a service of scripted responses.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::{Receiver, Sender, channel};

use base64ct::{Base64, Encoding};
use keyhole_remote::ContentError;
use sha2::{Digest, Sha256};

use super::super::config::tests::config;
use super::super::limits::{PART_LEN, RESPONSE_MAX};
use super::*;

/// A request that the service received.
struct Received {
    /// Method and target, as in `GET /backup/a?b`.
    line: String,
    /// The lines of the headers, in lower case up to the colon.
    headers: Vec<String>,
    body: Vec<u8>,
}

impl Received {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Reads a request, or returns `None` at the end of the connection.
fn receive(connection: &mut BufReader<TcpStream>) -> Option<Received> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        lines.push(line.to_owned());
    }
    let line = lines.remove(0).strip_suffix(" HTTP/1.1").unwrap().to_owned();
    let mut received = Received { line, headers: lines, body: Vec::new() };
    let len = received.header("content-length").map_or(0, |len| len.parse().unwrap());
    received.body = vec![0; len];
    connection.read_exact(&mut received.body).unwrap();
    Some(received)
}

/// A service on this machine.
struct TestService {
    client: S3Client,
    received: Receiver<Received>,
    runtime: tokio::runtime::Runtime,
    config: RemoteConfig,
    _home: tempfile::TempDir,
}

/// Starts a service. `answer` returns the bytes to send for a request, given as its method and
/// target. A connection is closed after `close`.
fn service(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> TestService {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, received): (Sender<Received>, _) = channel();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let answer = answer.clone();
            let sender = sender.clone();
            std::thread::spawn(move || {
                let mut connection = BufReader::new(connection.unwrap());
                while let Some(request) = receive(&mut connection) {
                    let bytes = answer(&request.line);
                    let _ = sender.send(request);
                    let is_last = bytes.contains("connection: close") || !bytes.starts_with("HTTP/1.1 ");
                    if connection.get_mut().write_all(bytes.as_bytes()).is_err() || is_last {
                        return;
                    }
                }
            });
        }
    });
    let home = tempfile::tempdir().unwrap();
    let credentials = home.path().join("credentials");
    std::fs::write(&credentials, "[default]\naws_access_key_id=AKIA\naws_secret_access_key=secret\n").unwrap();
    std::fs::set_permissions(&credentials, std::fs::Permissions::from_mode(0o600)).unwrap();
    let config = RemoteConfig { url, prefix: "p".to_owned(), credentials: Some(credentials), ..config("a") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(async { S3Client::new(&config) }).unwrap();
    TestService { client, received, runtime, config, _home: home }
}

impl TestService {
    fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Returns the method and target of all requests so far.
    fn lines(&self) -> Vec<String> {
        self.received.try_iter().map(|request| request.line).collect()
    }
}

fn response(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

fn error(status: &str, code: &str) -> String {
    response(status, "", &format!("<Error><Code>{code}</Code><Message>why</Message></Error>"))
}

fn ok(headers: &str, body: &str) -> String {
    response("200 OK", headers, body)
}

const EMPTY_LIST: &str = "<ListBucketResult><Name>backup</Name><IsTruncated>false</IsTruncated></ListBucketResult>";

fn refused(code: &str) -> ServiceError {
    ServiceError::Refused { code: code.to_owned(), message: "why".to_owned() }
}

/// A content in chunks of limited length, whose total may be wrong.
struct TestContent {
    left: usize,
    chunk: usize,
    total: u64,
}

fn content(len: usize) -> TestContent {
    TestContent { left: len, chunk: 1 << 20, total: len as u64 }
}

impl Content for TestContent {
    fn total_len(&self) -> u64 {
        self.total
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>, ContentError> {
        let len = self.left.min(self.chunk);
        self.left -= len;
        Ok((len > 0).then(|| vec![b'x'; len]))
    }
}

async fn body(mut download: S3Download) -> Result<Vec<u8>, ServiceError> {
    let mut bytes = Vec::new();
    while let Some(some) = download.next().await? {
        bytes.extend(some);
    }
    Ok(bytes)
}

#[test]
fn missing_object_differs_from_missing_bucket() {
    for (on_get, on_list, expected) in [
        (error("404 Not Found", "NoSuchKey"), ok("", EMPTY_LIST), Ok(None)),
        (error("404 Not Found", "NoSuchBucket"), String::new(), Err(refused("NoSuchBucket"))),
        (response("404 Not Found", "", ""), ok("", EMPTY_LIST), Ok(None)),
        (response("404 Not Found", "", ""), error("404 Not Found", "NoSuchBucket"), Err(refused("NoSuchBucket"))),
    ] {
        let service = service(move |line| if line.contains("list-type=") { on_list.clone() } else { on_get.clone() });
        let got = service.run(service.client.get("a", None));
        assert_eq!(got.map(|found| found.map(|(head, _)| head)), expected);
    }
    // A response to HEAD has no body, so the bucket is listed.
    let missing = |line: &str| match line.split(' ').next() {
        Some("HEAD") => response("404 Not Found", "", ""),
        _ => error("404 Not Found", "NoSuchBucket"),
    };
    let without_bucket = service(missing);
    assert_eq!(without_bucket.run(without_bucket.client.head("a")), Err(refused("NoSuchBucket")));
    let with_bucket =
        service(|line| if line.starts_with("HEAD") { response("404 Not Found", "", "") } else { ok("", EMPTY_LIST) });
    for _ in 0..2 {
        assert_eq!(with_bucket.run(with_bucket.client.head("a")), Ok(None));
    }
    assert_eq!(with_bucket.run(with_bucket.client.delete("a")), Ok(()));
    let lines = with_bucket.lines();
    assert_eq!(lines.len(), 4, "the bucket is listed once: {lines:?}");
    assert_eq!(lines[0], "HEAD /backup/p/a");
    assert!(lines[1].starts_with("GET /backup?list-type=2&prefix=p%2F&max-keys=1"), "{lines:?}");
}

#[test]
fn refusals_are_not_repeated() {
    for (status, code) in [
        ("403 Forbidden", "AccessDenied"),
        ("403 Forbidden", "SignatureDoesNotMatch"),
        ("400 Bad Request", "InvalidArgument"),
        ("401 Unauthorized", "Unauthorized"),
        ("405 Method Not Allowed", "MethodNotAllowed"),
        ("507 Insufficient Storage", "InsufficientStorage"),
        ("301 Moved Permanently", "PermanentRedirect"),
    ] {
        let service = service(move |_| error(status, code));
        assert_eq!(service.run(service.client.get("a", None)).map(drop), Err(refused(code)));
        assert_eq!(service.run(service.client.list("", None)), Err(refused(code)));
        assert_eq!(service.run(service.client.put("a", &Fields::new(), content(3))), Err(refused(code)));
        assert_eq!(service.run(service.client.delete("a")), Err(refused(code)));
        assert_eq!(service.lines().len(), 4, "{status}");
    }
}

#[test]
fn unavailable_service_is_asked_a_few_times() {
    let overloaded = service(|_| error("503 Slow Down", "SlowDown"));
    let expected = ServiceError::Unavailable("SlowDown: why".to_owned());
    assert_eq!(overloaded.run(overloaded.client.put("a", &Fields::new(), content(3))), Err(expected));
    assert_eq!(overloaded.lines().len(), 1 + RETRIES_MAX);

    for garbage in ["", "no HTTP at all\r\n\r\n", "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 9\r\n\r\nx"]
    {
        let service = service(move |_| garbage.to_owned());
        let result = service.run(service.client.list("", None));
        assert!(matches!(result, Err(ServiceError::Unavailable(_))), "{garbage:?}: {result:?}");
    }
    let html = service(|_| ok("", "<html>Log in to this network</html>"));
    let result = html.run(html.client.list("", None));
    assert_eq!(result, Err(ServiceError::Unavailable("invalid answer: no listing".to_owned())));
    let result = html.run(html.client.put("a", &Fields::new(), content(3)));
    assert!(matches!(result, Err(ServiceError::Unavailable(_))), "no ETag confirms it: {result:?}");
}

#[test]
fn truncated_listing_must_continue() {
    let body = "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>";
    let service = service(move |_| ok("", body));
    let expected = "invalid answer: a truncated listing without a continuation token".to_owned();
    assert_eq!(service.run(service.client.list("", None)), Err(ServiceError::Unavailable(expected)));
}

#[test]
fn closed_port_is_unavailable() {
    let mut service = service(|_| String::new());
    // Another test could listen on a free port that the system chooses.
    let url = "http://127.0.0.1:1".to_owned();
    service.client = S3Client::new(&RemoteConfig { url, ..service.config.clone() }).unwrap();
    let result = service.run(service.client.head("a"));
    let Err(ServiceError::Unavailable(message)) = result else { panic!("{result:?}") };
    assert!(message.starts_with("cannot connect: "), "{message}");
}

#[test]
fn long_answers_are_not_held_in_memory() {
    let endless = format!("<ListBucketResult>{}", " ".repeat(RESPONSE_MAX));
    let service = service(move |_| ok("", &endless));
    let result = service.run(service.client.list("", None));
    let Err(ServiceError::Unavailable(message)) = result else { panic!("{result:?}") };
    assert!(message.contains("longer than"), "{message}");
}

#[test]
fn head_and_range_are_read() {
    let headers = "last-modified: Mon, 30 Nov 2026 12:00:00 GMT\r\nx-amz-meta-Seq: 7\r\netag: \"e\"\r\n";
    let service = service(move |line| match line.split_once(' ').unwrap() {
        ("HEAD", _) => ok(headers, "").replace("content-length: 0", "content-length: 10"),
        (_, "/backup/p/part") => {
            response("206 Partial Content", &format!("{headers}content-range: bytes 2-4/10\r\n"), "cde")
        }
        _ => ok(headers, "abcdefghij"),
    });
    let head = Head { len: 10, fields: Fields::from([("seq".to_owned(), "7".to_owned())]) };
    assert_eq!(service.run(service.client.head("a")), Ok(Some(head.clone())));
    let all = |name, range| {
        let (found, download) = service.run(service.client.get(name, range)).unwrap().unwrap();
        assert_eq!(found, head);
        service.run(body(download)).unwrap()
    };
    assert_eq!(all("a", None), b"abcdefghij");
    assert_eq!(all("part", Some(2..5)), b"cde");
    assert_eq!(all("a", Some(5..5)), b"");
    let requests: Vec<_> = service.received.try_iter().collect();
    assert_eq!(requests[2].header("range"), Some("bytes=2-4"));
    let result = service.run(service.client.get("a", Some(2..5))).map(drop);
    assert!(matches!(result, Err(ServiceError::Unavailable(_))), "the whole body instead of a range: {result:?}");
}

#[test]
fn short_body_is_an_error() {
    let headers = "last-modified: Mon, 30 Nov 2026 12:00:00 GMT\r\nconnection: close\r\n";
    let service = service(move |_| ok(headers, "abc").replace("content-length: 3", "content-length: 10"));
    let (_, download) = service.run(service.client.get("a", None)).unwrap().unwrap();
    let result = service.run(body(download));
    assert!(matches!(result, Err(ServiceError::Unavailable(_))), "{result:?}");
}

#[test]
fn short_content_goes_up_in_one_checked_request() {
    let service = service(|_| ok("etag: \"e\"\r\n", ""));
    let fields = Fields::from([("seq".to_owned(), "7".to_owned())]);
    for len in [0, 1, PART_LEN as usize] {
        service.run(service.client.put("b/k y", &fields, content(len))).unwrap();
        let request = service.received.try_recv().unwrap();
        assert_eq!(request.line, "PUT /backup/p/b/k%20y");
        assert_eq!(request.body, vec![b'x'; len]);
        assert_eq!(request.header("x-amz-meta-seq"), Some("7"));
        let digest = Sha256::digest(&request.body);
        assert_eq!(request.header("x-amz-content-sha256"), Some(&hex::encode(digest)[..]));
        assert_eq!(request.header("x-amz-checksum-sha256"), Some(&Base64::encode_string(&digest)[..]));
        assert!(service.received.try_recv().is_err(), "one request");
    }
}

/// Answers as a service with multipart uploads; the last part is refused if `is_full`.
fn multipart(is_full: bool) -> TestService {
    service(move |line| match line.split_once(' ').unwrap() {
        ("POST", target) if target.contains("uploads=") => ok("", "<R><UploadId>u1</UploadId></R>"),
        ("POST", _) => ok("", "<CompleteMultipartUploadResult><ETag>\"e\"</ETag></CompleteMultipartUploadResult>"),
        ("PUT", target) if is_full && target.contains("partNumber=2") => error("507 Insufficient Storage", "Full"),
        ("DELETE", _) => response("204 No Content", "", ""),
        _ => ok("etag: \"e\"\r\n", ""),
    })
}

#[test]
fn long_content_goes_up_in_parts() {
    let service = multipart(false);
    let len = PART_LEN as usize + 3;
    service.run(service.client.put("k", &Fields::new(), content(len))).unwrap();
    let requests: Vec<_> = service.received.try_iter().collect();
    let sent: Vec<_> = requests.iter().map(|request| (&request.line[..], request.body.len())).collect();
    assert_eq!(sent[0].0, "POST /backup/p/k?uploads=");
    assert_eq!(sent[1], ("PUT /backup/p/k?partNumber=1&uploadId=u1", PART_LEN as usize));
    assert_eq!(sent[2], ("PUT /backup/p/k?partNumber=2&uploadId=u1", 3));
    assert_eq!(sent[3].0, "POST /backup/p/k?uploadId=u1");
    assert_eq!(sent.len(), 4);
    assert!(requests[1].header("x-amz-checksum-sha256").is_some());
}

#[test]
fn failed_upload_in_parts_is_aborted() {
    let len = PART_LEN as usize + 3;
    let full = multipart(true);
    assert_eq!(full.run(full.client.put("k", &Fields::new(), content(len))), Err(refused("Full")));
    assert_eq!(full.lines().last().unwrap(), "DELETE /backup/p/k?uploadId=u1");

    for (left, total) in [(len - 1, len), (len + 1, len), (3 * len, len)] {
        let service = multipart(false);
        let wrong = TestContent { left, total: total as u64, ..content(0) };
        let result = service.run(service.client.put("k", &Fields::new(), wrong));
        assert!(matches!(result, Err(ServiceError::Content(_))), "{result:?}");
        let lines = service.lines();
        assert_eq!(lines.last().unwrap(), "DELETE /backup/p/k?uploadId=u1", "{lines:?}");
        assert!(!lines.iter().any(|line| line == "POST /backup/p/k?uploadId=u1"), "{lines:?}");
    }
}

#[test]
fn short_content_of_wrong_length_is_not_sent() {
    for (left, total) in [(2, 3), (4, 3), (1, 0), (0, 1)] {
        let service = multipart(false);
        let wrong = TestContent { left, total, chunk: 1 };
        let result = service.run(service.client.put("k", &Fields::new(), wrong));
        assert!(matches!(result, Err(ServiceError::Content(_))), "{result:?}");
        assert!(service.lines().is_empty());
    }
}

#[test]
fn listing_continues_with_token_and_is_limited_to_names_asked_for() {
    let entry = |key: &str| {
        let time = "2026-11-30T12:00:00.000Z";
        format!("<Contents><Key>{key}</Key><Size>3</Size><LastModified>{time}</LastModified></Contents>")
    };
    let keys = ["p/b/2", "p/b/10", "p/b/1", "p/", "p/c", "q"].map(entry).concat();
    let directories = "<CommonPrefixes><Prefix>p/b/</Prefix></CommonPrefixes>";
    let page = move |token: &str| format!("<ListBucketResult>{keys}{directories}{token}</ListBucketResult>");
    let last = page("");
    let first = page("<NextContinuationToken>t</NextContinuationToken>");
    let service = service(move |line| {
        let is_last = line.contains("continuation-token=") && !line.contains("none");
        ok("", if is_last { &last } else { &first })
    });
    let names = |listing: Listing| listing.objects.into_iter().map(|object| object.name).collect::<Vec<_>>();
    let listing = service.run(service.client.list("b/", None)).unwrap();
    assert_eq!((listing.next.as_deref(), &listing.objects[2]), (Some("t"), &Listed { name: "b/1".to_owned(), len: 3 }));
    assert_eq!(names(listing), ["b/2", "b/10", "b/1"]);
    let listing = service.run(service.client.list("b/", Some("t"))).unwrap();
    assert_eq!(listing.next, None);
    let lines = service.lines();
    assert_eq!(lines[1], "GET /backup?continuation-token=t&list-type=2&prefix=p%2Fb%2F&max-keys=1000");
    let result = service.run(service.client.list("none/", Some("t")));
    assert!(matches!(result, Err(ServiceError::Unavailable(_))), "the same page again: {result:?}");
    let found = service.run(service.client.directories()).unwrap();
    assert_eq!(Vec::from_iter(found), ["b"]);
    let lines = service.lines();
    assert!(lines[1].contains("delimiter=%2F") && lines[2].contains("continuation-token=t"), "{lines:?}");
}

#[test]
fn invalid_names_and_metadata_are_refused() {
    let service = service(|_| ok("", ""));
    for name in ["", "a/", "/a", "a//b", "a/../b", ".", "a\nb"] {
        let result = service.run(service.client.head(name));
        assert!(matches!(result, Err(ServiceError::Refused { .. })), "{name:?}");
    }
    for (name, value) in [("", "a"), ("Upper", "a"), ("a b", "a"), ("a", "\u{e9}"), ("a", "b\r\nc: d")] {
        let fields = Fields::from([(name.to_owned(), value.to_owned())]);
        let result = service.run(service.client.put("a", &fields, content(1)));
        assert!(matches!(result, Err(ServiceError::Refused { .. })), "{name:?} {value:?}");
    }
    assert!(service.lines().is_empty());
}
