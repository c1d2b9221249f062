//! Observability: metrics, health, the status page and `keyhole status` agree with each other and
//! with the load.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use keyhole_tests::data::{bytes, fresh_seed};
use keyhole_tests::device::skipped;
use keyhole_tests::http::object;
use keyhole_tests::{Certificate, CustomerKey, Launch, Node, Request, Response, target_dir, top};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use socket2::SockRef;

use crate::operate::{damage, exits_with};

/// Timeout of an expected change.
const TIMEOUT: Duration = Duration::from_secs(30);

const DEFAULT_PART: usize = 5 << 20;

fn launch() -> Launch {
    Launch::default().with_credential().arg("--threads=2").arg("--admin-listen=127.0.0.1:0")
}

/// Sends a request to the admin listener.
fn admin_get(to: SocketAddr, path: &str) -> Response {
    Request::new("GET", path).send_unsigned(to)
}

fn text_of(node: &Node, path: &str) -> String {
    admin_get(node.admin_address(), path).expect(200).text()
}

fn status_of(node: &Node) -> Value {
    serde_json::from_str(&text_of(node, "/status.json")).unwrap()
}

/// Waits until a condition holds.
#[track_caller]
fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !is_true() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns the samples of a metrics text by name and labels, parsed by Prometheus' own parser.
fn parsed(text: &str, format: &str) -> BTreeMap<(String, String), f64> {
    let mut reader = Command::new(target_dir().join("venv/bin/python3"))
        .arg(top().join("tests/tools/read-metrics.py"))
        .arg(format)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the Python environment of tests/run");
    reader.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = reader.wait_with_output().unwrap();
    assert!(output.status.success(), "the metrics are not well-formed");
    let lines = String::from_utf8(output.stdout).unwrap();
    let samples = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let entries = samples.map(|sample| {
        let value = sample[2].as_f64().unwrap();
        ((sample[0].as_str().unwrap().to_owned(), sample[1].to_string()), value)
    });
    entries.collect()
}

/// The expected counts of a node's requests.
#[derive(Default)]
struct ExpectedCounts {
    /// By operation and status.
    requests: BTreeMap<(String, String), u64>,
    errors: BTreeMap<String, u64>,
    received: u64,
    sent: u64,
    sse_c: u64,
}

impl ExpectedCounts {
    /// Records a request: the length of its body, whether it transfers sealed bytes, and the reply.
    fn record(&mut self, operation: &str, received: usize, sealed: bool, reply: &Response) {
        *self.requests.entry((operation.to_owned(), reply.status.to_string())).or_default() += 1;
        self.received += received as u64;
        self.sent += reply.body.len() as u64;
        self.sse_c += u64::from(sealed);
        if let Some(code) = reply.element("Code").filter(|_| reply.status >= 400) {
            *self.errors.entry(code).or_default() += 1;
        }
    }

    fn total(&self) -> u64 {
        self.requests.values().sum()
    }

    /// Returns the number of requests of an operation.
    fn of(&self, operation: &str) -> u64 {
        self.requests.iter().filter(|((name, _), _)| name == operation).map(|(_, count)| count).sum()
    }
}

/// Runs a load of known size: with SSE-C and without, in parts, and with errors.
fn load(node: &Node) -> ExpectedCounts {
    let mut expected = ExpectedCounts::default();
    let key = CustomerKey::random();
    let wrong = CustomerKey::random();
    let mut send = |operation: &str, sealed: bool, request: &Request, len: usize| {
        let reply = node.send(request);
        expected.record(operation, len, sealed, &reply);
        reply
    };
    send("CreateBucket", false, &Request::new("PUT", "/bucket"), 0).expect(200);
    send("CreateBucket", false, &Request::new("PUT", "/another"), 0).expect(200);
    for n in 0..25usize {
        let body = bytes(n as u64, 1000 * n * n + n);
        let put = object("PUT", &format!("sealed/{n}")).headers(key.headers()).body(body.clone());
        send("PutObject", true, &put, body.len()).expect(200);
        for _ in 0..2 {
            let get = object("GET", &format!("sealed/{n}")).headers(key.headers());
            assert_eq!(send("GetObject", true, &get, 0).expect(200).body, body);
        }
    }
    for n in 0..5usize {
        let body = bytes(n as u64, 10_000);
        send("PutObject", false, &object("PUT", &format!("plain/{n}")).body(body), 10_000).expect(200);
        let range = object("GET", &format!("plain/{n}")).header("range", "bytes=100-199");
        assert_eq!(send("GetObject", false, &range, 0).expect(206).body.len(), 100);
        send("HeadObject", false, &object("HEAD", &format!("plain/{n}")), 0).expect(200);
    }
    let create = object("POST", "parts").query("uploads", "").headers(key.headers());
    let id = send("CreateMultipartUpload", true, &create, 0).expect(200).element("UploadId").unwrap();
    let mut document = "<CompleteMultipartUpload>".to_owned();
    for (number, len) in [(1, DEFAULT_PART), (2, 1234)] {
        let part = object("PUT", "parts").query("partNumber", &number.to_string()).query("uploadId", &id);
        let reply = send("UploadPart", true, &part.headers(key.headers()).body(bytes(7, len)), len).expect(200);
        let etag = reply.header("etag").unwrap().to_owned();
        document += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
    }
    document += "</CompleteMultipartUpload>";
    let complete = object("POST", "parts").query("uploadId", &id).headers(key.headers()).body(document.clone());
    send("CompleteMultipartUpload", true, &complete, document.len()).expect(200);
    for _ in 0..7 {
        send("GetObject", false, &object("GET", "absent"), 0).expect(404);
    }
    for _ in 0..3 {
        send("GetObject", true, &object("GET", "sealed/1").headers(wrong.headers()), 0).expect(403);
    }
    send("DeleteObject", false, &object("DELETE", "plain/0"), 0).expect(204);
    send("ListObjectsV2", false, &Request::new("GET", "/bucket").query("list-type", "2"), 0).expect(200);
    send("ListBuckets", false, &Request::new("GET", "/"), 0).expect(200);
    send("DeleteBucket", false, &Request::new("DELETE", "/bucket"), 0).expect(409);
    let reply = object("GET", "plain/1").skewed(-3_600_000).send(node.address(), node.signer()).expect(403);
    expected.record("Unknown", 0, false, &reply);
    expected
}

/// Compares all output of the node with the tally.
fn assert_outputs_match(node: &Node, expected: &ExpectedCounts) {
    // The node counts a request after its reply has been sent.
    wait_until("all requests are counted", || status_of(node)["requests"]["total"] == expected.total());
    let status = status_of(node);
    let requests = &status["requests"];
    for (name, count) in
        [("received", expected.received), ("sent", expected.sent), ("sse_c", expected.sse_c), ("in_flight", 0)]
    {
        assert_eq!(requests[name], count, "{name}");
    }
    assert_eq!(requests["errors"], json!(expected.errors));
    let mut by_code = BTreeMap::new();
    for row in requests["operations"].as_array().unwrap() {
        let operation = row["operation"].as_str().unwrap();
        assert_eq!(row["total"], expected.of(operation), "{operation}");
        for (code, count) in row["by_code"].as_object().unwrap() {
            by_code.insert((operation.to_owned(), code.clone()), count.as_u64().unwrap());
        }
    }
    assert_eq!(by_code, expected.requests);

    assert_metrics_match(node, expected, &status);

    // The terminal output agrees, except for values that change while the node is idle.
    let data = node.data().to_str().unwrap();
    let of_command: Value = serde_json::from_str(&exits_with(0, &["status", data, "--json"]).0).unwrap();
    for part in ["requests", "store", "buckets", "damage", "limits", "node", "conditions"] {
        assert_eq!(of_command[part], status[part], "{part}");
    }
    let (terminal, _) = exits_with(0, &["status", data]);
    let page = text_of(node, "/");
    for operation in expected.requests.keys().map(|(operation, _)| operation) {
        let count = expected.of(operation);
        let row =
            format!("<th scope=\"row\">{operation}</th><td><data value=\"{count}\">{}</data></td>", with_commas(count));
        assert!(page.contains(&row), "{row} in {page}");
        let line = terminal.lines().find(|line| line.trim_start().starts_with(operation)).unwrap();
        assert!(line.split_whitespace().nth(1) == Some(&with_commas(count)), "{line}");
    }
    for (code, count) in &expected.errors {
        let row = format!("<th scope=\"row\">{code}</th><td><data value=\"{count}\">{count}</data></td>");
        assert!(page.contains(&row), "{row} in {page}");
    }
    for count in [expected.total(), expected.sse_c, expected.received, expected.sent] {
        assert!(page.contains(&format!("<data value=\"{count}\">")), "{count} in {page}");
    }
}

fn assert_metrics_match(node: &Node, expected: &ExpectedCounts, status: &Value) {
    let plain = text_of(node, "/metrics");
    let open =
        Request::new("GET", "/metrics").header("accept", "application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1");
    let open = open.send_unsigned(node.admin_address()).expect(200);
    assert!(open.header("content-type").unwrap().starts_with("application/openmetrics-text; version=1.0.0"));
    for samples in [parsed(&plain, "text"), parsed(&open.text(), "openmetrics")] {
        let value = |name: &str, labels: &Value| samples[&(name.to_owned(), labels.to_string())];
        let mut counted = BTreeMap::new();
        for ((_, labels), count) in samples.iter().filter(|((name, _), _)| name == "keyhole_requests_total") {
            let labels: Value = serde_json::from_str(labels).unwrap();
            let label = |name: &str| labels[name].as_str().unwrap().to_owned();
            counted.insert((label("operation"), label("code")), *count as u64);
        }
        assert_eq!(counted, expected.requests);
        let errors = samples.iter().filter(|((name, _), count)| name == "keyhole_errors_total" && **count > 0.0);
        let errors: BTreeMap<String, u64> = errors
            .map(|((_, labels), count)| {
                let labels: Value = serde_json::from_str(labels).unwrap();
                (labels["code"].as_str().unwrap().to_owned(), *count as u64)
            })
            .collect();
        assert_eq!(errors, expected.errors);
        let none = json!({});
        for (name, count) in [
            ("keyhole_received_bytes_total", expected.received),
            ("keyhole_sent_bytes_total", expected.sent),
            ("keyhole_sse_c_requests_total", expected.sse_c),
            ("keyhole_requests_in_flight", 0),
            ("keyhole_ready", 1),
        ] {
            assert_eq!(value(name, &none), count as f64, "{name}");
        }
        for name in ["objects", "buckets", "uploads"] {
            assert_eq!(value(&format!("keyhole_{name}"), &none), status["store"][name].as_f64().unwrap(), "{name}");
        }
        for bucket in status["buckets"].as_array().unwrap() {
            let labels = json!({"bucket": bucket["bucket"]});
            assert_eq!(value("keyhole_bucket_bytes", &labels), bucket["bytes"].as_f64().unwrap());
        }
        let answered = expected.requests.iter().filter(|((_, code), _)| code != "aborted").map(|(_, count)| count);
        let durations = samples.iter().filter(|((name, _), _)| name == "keyhole_request_duration_seconds_count");
        assert_eq!(durations.map(|(_, count)| count).sum::<f64>(), answered.sum::<u64>() as f64);
        let puts = value("keyhole_request_duration_seconds_bucket", &json!({"class": "put", "le": "+Inf"}));
        let aborted = expected.requests.get(&("PutObject".to_owned(), "aborted".to_owned())).copied().unwrap_or(0);
        assert_eq!(puts, (expected.of("PutObject") - aborted) as f64);
    }
}

fn with_commas(count: u64) -> String {
    let digits = count.to_string();
    let groups: Vec<&[u8]> = digits.as_bytes().rchunks(3).rev().collect();
    groups.iter().map(|group| std::str::from_utf8(group).unwrap()).collect::<Vec<_>>().join(",")
}

#[test]
fn status_outputs_match_known_load() {
    for io in ["uring", "epoll"] {
        let node = launch().arg(format!("--io={io}")).start();
        let expected = load(&node);
        assert_outputs_match(&node, &expected);
        let status = status_of(&node);
        let stored = (0..25u64).map(|n| 1000 * n * n + n).sum::<u64>() + 4 * 10_000 + DEFAULT_PART as u64 + 1234;
        // Each object counts 1 KiB for its record.
        let charged = stored + (25 + 4 + 1) * 1024;
        let bucket = |name: &str, objects: u64, bytes: u64, charged: u64| {
            json!({
                "bucket": name, "objects": objects, "noncurrent": 0, "markers": 0, "uploads": 0, "bytes": bytes,
                "charged": charged, "quota": null,
            })
        };
        let buckets = json!([bucket("another", 0, 0, 0), bucket("bucket", 25 + 4 + 1, stored, charged)]);
        assert_eq!(status["buckets"], buckets);
        assert_eq!(status["connections"]["http_accepted"], expected.total());
        let written = &status["store"]["written"];
        assert!(
            written["appended"].as_u64().unwrap() > stored && written["blocks"].as_u64() > written["records"].as_u64()
        );
        let batches: u64 =
            status["store"]["batches"].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum();
        assert!(batches >= 35, "{batches} batches");
    }
}

#[test]
fn aborted_requests_are_counted() {
    let node = launch().start();
    let mut expected = ExpectedCounts::default();
    let reply = node.send(&Request::new("PUT", "/bucket"));
    expected.record("CreateBucket", 0, false, &reply);
    let body = bytes(1, 32 << 20);
    let reply = node.send(&object("PUT", "long").body(body.clone()));
    expected.record("PutObject", body.len(), false, &reply);
    // Resets: the number of bytes sent until then is unknown here.
    let reset = |head: String, body: &[u8], read: usize| {
        let mut tcp = TcpStream::connect(node.address()).unwrap();
        tcp.write_all(head.as_bytes()).unwrap();
        tcp.write_all(body).unwrap();
        tcp.read_exact(&mut vec![0; read]).unwrap();
        wait_until("the request is in flight", || status_of(&node)["requests"]["in_flight"] == 1);
        let status = status_of(&node);
        assert_eq!(status["connections"]["http"], 1);
        SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).unwrap();
    };
    for _ in 0..3 {
        let get = object("GET", "long").signed(node.address(), node.signer());
        reset(get.head(node.address()), &[], 100_000);
        *expected.requests.entry(("GetObject".to_owned(), "aborted".to_owned())).or_default() += 1;
        wait_until("the request is counted", || status_of(&node)["requests"]["total"] == expected.total());
    }
    for _ in 0..2 {
        let put = object("PUT", "cut").body(body.clone()).payload("UNSIGNED-PAYLOAD");
        let put = put.signed(node.address(), node.signer());
        reset(put.head(node.address()), &body[..3 << 20], 0);
        *expected.requests.entry(("PutObject".to_owned(), "aborted".to_owned())).or_default() += 1;
        wait_until("the request is counted", || status_of(&node)["requests"]["total"] == expected.total());
    }
    let requests = status_of(&node)["requests"].clone();
    (expected.received, expected.sent) = (requests["received"].as_u64().unwrap(), requests["sent"].as_u64().unwrap());
    assert!(expected.received >= 32 << 20 && expected.received <= (32 << 20) + 2 * (3 << 20), "{}", expected.received);
    assert!(expected.sent < 3 * (32 << 20), "{}", expected.sent);
    assert_eq!((&requests["aborted"], &requests["errors"]), (&json!(5), &json!({})));
    assert_outputs_match(&node, &expected);
    wait_until("connections are closed", || status_of(&node)["connections"]["http"] == 0);
}

#[test]
fn tls_connections_are_counted() {
    let certificate = Certificate::new();
    let node = certificate.launch("127.0.0.1:0").arg("--admin-listen=127.0.0.1:0").start();
    let client = certificate.client(rustls::ALL_VERSIONS, &["http/1.1"]);
    for _ in 0..3 {
        keyhole_tests::tls::send(&Request::new("GET", "/"), node.tls_address(), node.signer(), &client).expect(200);
    }
    for _ in 0..2 {
        let mut tcp = TcpStream::connect(node.tls_address()).unwrap();
        tcp.write_all(b"this is not a handshake\r\n\r\n").unwrap();
        let _ = tcp.read_to_end(&mut Vec::new());
    }
    let connections = || status_of(&node)["connections"].clone();
    wait_until("TLS connections are closed", || connections()["https"] == 0);
    let counts = ["https_accepted", "handshakes", "handshakes_failed", "http_accepted"];
    assert_eq!(counts.map(|name| connections()[name].as_u64().unwrap()), [5, 3, 2, 0]);
}

/// Returns a port that was free a moment ago.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn health_follows_start_and_shutdown() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path().join("data");
    fs::create_dir(&data).unwrap();
    // Another process locks the data for a moment: the node waits, as for its recovery.
    let lock = File::open(&data).unwrap();
    lock.lock().unwrap();
    let admin = free_address();
    let health = |path: &str| {
        let reply = Request::new("GET", path).try_send_unsigned(admin).ok()?;
        Some((reply.status, reply.text()))
    };
    let launch = Launch::default().with_credential().arg("--threads=2").arg(format!("--admin-listen={admin}"));
    let node = std::thread::scope(|scope| {
        let starting = scope.spawn(|| launch.start_in(&data));
        wait_until("readiness reports the start", || {
            health("/health/ready").is_some_and(|(status, text)| status == 503 && text.starts_with("starting: "))
        });
        assert_eq!(health("/health/live"), Some((200, "live\n".to_owned())));
        let status: Value = serde_json::from_str(&health("/status.json").unwrap().1).unwrap();
        assert_eq!(
            (&status["phase"], &status["ready"], &status["store"]),
            (&json!("starting"), &json!(false), &Value::Null)
        );
        assert!(health("/").unwrap().1.contains("Starting"));
        assert!(!health("/metrics").unwrap().1.contains("keyhole_store_capacity_bytes"));
        lock.unlock().unwrap();
        starting.join().unwrap()
    });
    assert_eq!(health("/health/ready"), Some((200, "ready\n".to_owned())));
    node.make_bucket("bucket");
    // A body in flight delays the shutdown.
    let body = bytes(1, 1000);
    let put = object("PUT", "slow").body(body.clone()).signed(node.address(), node.signer());
    let mut tcp = TcpStream::connect(node.address()).unwrap();
    tcp.write_all(put.head(node.address()).as_bytes()).unwrap();
    tcp.write_all(&body[..500]).unwrap();
    wait_until("the request is in flight", || {
        health("/status.json").is_some_and(|(_, text)| text.contains("\"in_flight\":1"))
    });
    kill_process(Pid::from_raw(node.pid() as i32).unwrap(), Signal::TERM).unwrap();
    wait_until("readiness reports the shutdown", || {
        health("/health/ready").is_some_and(|(status, text)| status == 503 && text.starts_with("draining: "))
    });
    assert_eq!(health("/health/live").map(|(status, _)| status), Some(200));
    assert!(health("/").unwrap().1.contains("Shutting down"));
    tcp.write_all(&body[500..]).unwrap();
    keyhole_tests::http::read_reply(&mut tcp, "PUT", |_| {}).unwrap().expect(200);
    wait_until("the node has exited", || health("/health/live").is_none());
}

/// Builds a library that injects faults, and the directory that controls it.
fn build_fault_library() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let library = directory.path().join("fault_injection.so");
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(top().join("tests/tools/fault_injection.c"));
    assert!(compile.status().unwrap().success());
    (directory, library)
}

/// Injects the fault of this name.
fn inject(directory: &Path, name: &str) {
    fs::write(directory.join(name), "").unwrap();
}

#[test]
fn stalled_worker_is_reported_by_others() {
    let (directory, library) = build_fault_library();
    let launch = launch().arg("--io=epoll").env("LD_PRELOAD", &library).env("FAULT_DIRECTORY", directory.path());
    let node = launch.start();
    let ready = || admin_get(node.admin_address(), "/health/ready");
    assert_eq!(ready().status, 200);
    inject(directory.path(), "stuck");
    wait_until("readiness reports the stalled worker", || ready().status == 503);
    assert!(ready().text().starts_with("worker-stuck: Worker 0 has stalled for "), "{}", ready().text());
    let begun = Instant::now();
    let page = text_of(&node, "/");
    assert!(
        page.contains("Stuck")
            && text_of(&node, "/metrics").contains("keyhole_condition{condition=\"worker-stuck\"} 1")
    );
    assert!(begun.elapsed() < Duration::from_secs(2), "other workers answer immediately");
    assert_eq!(admin_get(node.admin_address(), "/health/live").status, 200, "a stalled worker does not fail liveness");
    fs::remove_file(directory.path().join("stuck")).unwrap();
    wait_until("the worker has recovered", || ready().status == 200);
}

#[test]
fn failed_disk_is_reported() {
    let (directory, library) = build_fault_library();
    let launch = launch().arg("--io=epoll").env("LD_PRELOAD", &library).env("FAULT_DIRECTORY", directory.path());
    let node = launch.start();
    node.make_bucket("bucket");
    inject(directory.path(), "sync");
    // Long enough to need a sync. If a sync of the maintenance fails first, the PUT is refused.
    let lost = node.send(&object("PUT", "lost").body(bytes(1, 2 << 20))).status;
    assert!([500, 503].contains(&lost), "{lost}");
    let ready = admin_get(node.admin_address(), "/health/ready");
    assert_eq!((ready.status, &ready.text()[..10]), (503, "poisoned: "));
    assert!(text_of(&node, "/").contains("Refuses writes"));
    let (stdout, stderr) = exits_with(1, &["status", node.data().to_str().unwrap()]);
    assert!(
        stdout.contains("not ready") && stdout.contains("! poisoned: A sync failed: Input/output error"),
        "{stdout}"
    );
    assert!(stderr.contains("poisoned"), "{stderr}");
    assert_eq!(node.send(&Request::new("GET", "/bucket")).status, 200, "reads continue");
    let refused = node.send(&object("PUT", "refused").body("x")).expect(503);
    assert_eq!(refused.element("Code").as_deref(), Some("ServiceUnavailable"));
}

/// Damage that a client's read has found is in the log, the metrics and the status alike.
#[test]
fn damage_found_by_reads_is_reported() {
    let mut node = launch().start();
    node.make_bucket("bucket");
    let hurt = bytes(fresh_seed(), 3 << 20);
    node.send(&object("PUT", "hurt").body(hurt.clone())).expect(200);
    assert!(node.stop().success());
    damage(&node.data().join("objects.keyhole"), &hurt);
    node.start();
    assert_eq!(status_of(&node)["damage"]["reads"], 0);
    for _ in 0..2 {
        // The damage shows after the reply has begun.
        let get = object("GET", "hurt").signed(node.address(), node.signer());
        let cut = get.try_send_unsigned(node.address());
        assert!(cut.map_or(true, |reply| reply.body.len() < hurt.len()));
    }
    wait_until("the damage is counted", || status_of(&node)["damage"]["reads"] == 1);
    let status = status_of(&node);
    assert_eq!(status["conditions"][0]["name"], "damage", "{status}");
    assert!(text_of(&node, "/metrics").contains("keyhole_damage_total{found_by=\"read\"} 1"));
    exits_with(4, &["status", node.data().to_str().unwrap()]);
    assert!(node.log().contains("damage: ") && node.log().contains("key=\"hurt\""), "{}", node.log());
}

#[test]
fn full_store_and_clock_behind_are_reported() {
    let home = tempfile::tempdir().unwrap();
    let clock = home.path().join("clock.so");
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-o"]).arg(&clock).arg(top().join("tests/tools/clock.c"));
    assert!(compile.status().unwrap().success());
    let data = home.path().join("data");
    let small = || launch().capacity(Some("64MiB"));
    let mut node = small().env("LD_PRELOAD", &clock).env("CLOCK_AHEAD_S", "7200").start_in(&data);
    node.send(&Request::new("PUT", "/bucket").skewed(7_200_000)).expect(200);
    node.send(&object("PUT", "later").skewed(7_200_000).body("x")).expect(200);
    assert!(node.stop().success());

    let mut node = small().start_in(&data);
    wait_until("the clock has been checked", || status_of(&node)["clock"]["behind_ms"].is_u64());
    let status = status_of(&node);
    let behind = status["clock"]["behind_ms"].as_u64().unwrap();
    assert!((7_000_000..=7_200_000).contains(&behind) && status["clock"]["bucket"] == "bucket", "{behind}");
    assert!(status["ready"] == true && text_of(&node, "/").contains("Clock behind"));
    let body = bytes(1, 1 << 20);
    let full = (0..200).any(|n| node.send(&object("PUT", &format!("fill/{n}")).body(body.clone())).status == 507);
    assert!(full, "200 MiB do not fit into 64 MiB");
    let status = status_of(&node);
    let names: Vec<&str> =
        status["conditions"].as_array().unwrap().iter().map(|condition| condition["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["full", "clock-behind"]);
    let (_, stderr) = exits_with(1, &["status", data.to_str().unwrap(), "--json"]);
    assert!(stderr.contains("full, clock-behind"), "{stderr}");
    assert!(node.log().contains("the clock is behind a stored timestamp"));
    assert!(node.stop().success());
    let (_, stderr) = exits_with(1, &["status", data.to_str().unwrap()]);
    assert!(stderr.contains("no node serves") && stderr.contains("keyhole stat"), "{stderr}");
}

#[test]
fn invalid_admin_requests_are_refused() {
    let node = launch().start();
    let admin = node.admin_address();
    for (method, host, status) in [
        ("GET", "localhost:1", 200),
        ("GET", "attacker.example", 421),
        ("POST", "localhost", 405),
        ("DELETE", "localhost", 405),
    ] {
        let reply = Request::new(method, "/status.json").header("host", host).send_unsigned(admin);
        assert_eq!(reply.status, status, "{method} {host}");
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("connection"), Some("close"));
    }
    assert_eq!(admin_get(admin, "/bucket").status, 404, "the admin listener does not serve S3");
    let with = |headers: usize, len: usize| {
        let names = (0..headers).map(|n| format!("x-{n}"));
        let request = Request::new("GET", "/health/live").headers(names.map(|name| (name, "v".repeat(len))));
        request.try_send_unsigned(admin).map(|reply| reply.status).ok()
    };
    // The request has three more header lines.
    assert_eq!((with(61, 1), with(62, 1)), (Some(200), Some(431)));
    assert_eq!(with(1, 15 << 10), Some(200));
    assert!(matches!(with(1, 17 << 10), Some(431) | None));
    // Of silent connections beyond the limit the oldest are closed, and others are served at once.
    let mut quiet: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(admin).unwrap()).collect();
    assert_eq!(admin_get(admin, "/health/live").status, 200);
    for (index, connection) in quiet.iter_mut().enumerate() {
        connection.set_read_timeout(Some(Duration::from_millis(if index < 8 { 5000 } else { 10 }))).unwrap();
        let is_closed = matches!(connection.read(&mut [0]), Ok(0));
        assert!(index >= 8 || is_closed, "connection {index} of 40 is one of the oldest");
    }
    drop(quiet);
    // Without the option the node has no admin listener.
    let without = Launch::default().with_credential().start();
    assert!(!without.log().contains("status page"));
    exits_with(0, &["status", without.data().to_str().unwrap()]);
}

#[test]
fn shown_buckets_are_limited() {
    let node = launch().start();
    for n in 0..103 {
        node.make_bucket(&format!("bucket-{n:03}"));
    }
    let status = status_of(&node);
    assert_eq!((status["buckets"].as_array().unwrap().len(), &status["buckets_left_out"]), (100, &json!(3)));
    let metrics = text_of(&node, "/metrics");
    assert_eq!(metrics.matches("keyhole_bucket_bytes{").count(), 100);
    assert!(metrics.contains("keyhole_buckets_left_out 3\n") && metrics.contains("keyhole_buckets 103\n"));
    assert!(text_of(&node, "/").contains("there are 3 more"));
    // All of it fits into a reply of the control socket.
    exits_with(0, &["status", node.data().to_str().unwrap(), "--json"]);
}

/// A measuring script that replaces the page's own, since the page's policy would forbid another
/// one.
const MEASURE: &str = r#"<script>
function rgb(text) { return text.match(/[\d.]+/g).map(Number); }
function light(color) {
  const [r, g, b] = rgb(color).map(value => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function contrast(a, b) { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); }
addEventListener("load", () => {
  const style = selector => getComputedStyle(document.querySelector(selector));
  const card = style(".card").backgroundColor;
  const texts = ["th", "td", "thead th", ".axis", ".notes", ".key .unit", "h2", ".key.one", ".key.two", ".key.three", ".key.four", ".state"];
  const measured = {
    inner: innerWidth, scroll: document.documentElement.scrollWidth, ground: light(style("body").backgroundColor),
    least: Math.min(...texts.map(selector => contrast(style(selector).color, card))),
    cut: [...document.querySelectorAll(".card")].filter(card => card.scrollWidth > card.clientWidth).length,
    lines: document.querySelectorAll("path.line").length, figures: document.querySelectorAll("figure").length,
  };
  parent.postMessage(JSON.stringify(measured), "*");
});
</script>"#;

/// A frame of the requested width: a window has a minimum width.
const FRAME: &str = r#"<!doctype html><meta name="color-scheme" content="light dark"><title></title>
<script>addEventListener("message", event => document.title = event.data);</script>
<iframe src="page.html" width="WIDTH" height="900" style="border: 0"></iframe>"#;

/// Runs headless Chromium and returns standard output and standard error.
fn chromium(directory: &Path, arguments: &[&str]) -> (String, String) {
    let mut command = Command::new("chromium");
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"]);
    command.arg(format!("--user-data-dir={}", directory.join("chromium").display())).args(arguments);
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn status_page_renders_in_chromium() {
    if Command::new("chromium").arg("--version").output().is_err() {
        return skipped("status_page_renders_in_chromium", "chromium is not installed");
    }
    let node = launch().start();
    let directory = tempfile::tempdir().unwrap();
    let long = "a-bucket-whose-name-has-as-many-letters-as-there-may-be-in-it.x";
    node.make_bucket(long);
    for n in 0..4u64 {
        for _ in 0..10 {
            node.send(&Request::new("PUT", &format!("/{long}/{n}")).body(bytes(n, 100_000))).expect(200);
            node.send(&Request::new("GET", &format!("/{long}/{n}"))).expect(200);
            node.send(&Request::new("GET", &format!("/{long}/absent"))).expect(404);
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    let style = format!("<style>{}</style>", text_of(&node, "/status.css"));
    let page = text_of(&node, "/")
        .replace("<link rel=\"stylesheet\" href=\"/status.css\">", &style)
        .replace("<script src=\"/status.js\" defer></script>", MEASURE);
    fs::write(directory.path().join("page.html"), page).unwrap();
    let frame = directory.path().join("frame.html");
    let url = format!("file://{}", frame.display());
    for width in [400, 1400] {
        fs::write(&frame, FRAME.replace("WIDTH", &width.to_string())).unwrap();
        let mut luminances = Vec::new();
        for scheme in [1, 0] {
            let settings = format!("--blink-settings=preferredColorScheme={scheme}");
            let (dom, _) = chromium(
                directory.path(),
                &[&settings, "--window-size=1500,1000", "--virtual-time-budget=500", "--dump-dom", &url],
            );
            let title = dom.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>")).unwrap().0;
            let measured: Value = serde_json::from_str(title).unwrap_or_else(|_| panic!("{title}"));
            println!("{width} pixels, scheme {scheme}: {measured}");
            assert_eq!(
                (&measured["inner"], &measured["figures"], &measured["cut"]),
                (&json!(width), &json!(4), &json!(0))
            );
            assert!(measured["scroll"].as_u64() <= Some(width), "the page is too wide: {measured}");
            assert!(measured["least"].as_f64().unwrap() >= 4.5, "the contrast is too low: {measured}");
            assert!(measured["lines"].as_u64() >= Some(6), "{measured}");
            luminances.push(measured["ground"].as_f64().unwrap());
        }
        assert!(luminances[0] > 0.8 && luminances[1] < 0.05, "light and dark: {luminances:?}");
    }
    // By itself, with its own policy: nothing is blocked, and the script refreshes the page.
    let url = format!("http://{}/", node.admin_address());
    let shot = directory.path().join("shot.png");
    let budget = "--virtual-time-budget=5000";
    let (dom, stderr) = chromium(directory.path(), &[budget, "--dump-dom", &url]);
    assert!(!stderr.contains("Content Security Policy") && !stderr.contains("Uncaught"), "{stderr}");
    assert!(dom.contains("Renewed every 2 s.") && dom.contains(long), "{dom}");
    chromium(directory.path(), &[&format!("--screenshot={}", shot.display()), "--window-size=1400,1000", &url]);
    assert!(fs::read(&shot).unwrap().starts_with(b"\x89PNG"));
}
