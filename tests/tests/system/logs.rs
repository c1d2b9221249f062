//! Request logs and the audit log.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use keyhole_tests::command::{Directory, expect_success};
use keyhole_tests::data::{base64, md5};
use keyhole_tests::http::object;
use keyhole_tests::node::ACCESS_KEY;
use keyhole_tests::sigv4::Signer;
use keyhole_tests::{CustomerKey, Launch, Request};
use serde_json::Value;

#[test]
fn requests_with_customer_keys_are_audited() {
    let directory = Directory::new();
    let audit = directory.path("audit.log");
    let key_file = directory.key("key");
    let mut node = Launch::default().with_credential().arg("--audit-log").arg(&audit).start();
    node.make_bucket("bucket");
    let key = CustomerKey(fs::read(&key_file).unwrap().try_into().unwrap());
    let id =
        |bucket: &str| String::from_utf8(expect_success(&["key", "id", &key_file, "--bucket", bucket], b"")).unwrap();
    let wrong = CustomerKey::random();
    let keyed = |method: &str, key: &CustomerKey| object(method, "a \"key\"\u{e9}").headers(key.headers());
    let put = node.send(&keyed("PUT", &key).body("twelve bytes")).expect(200);
    let get = node.send(&keyed("GET", &key)).expect(200);
    let head = node.send(&keyed("HEAD", &key)).expect(200);
    let refused = node.send(&keyed("GET", &wrong)).expect(403);
    let sealed = node.send(&object("GET", "a \"key\"\u{e9}").header("x-keyhole-sealed", "1")).expect(200);
    let create = node.send(&keyed("POST", &key).query("uploads", "")).expect(200);
    let upload = create.element("UploadId").unwrap();
    let part = keyed("PUT", &key).query("partNumber", "1").query("uploadId", &upload).body("a part");
    let part = node.send(&part).expect(200);
    let sent = (refused.body.len() as u64, sealed.body.len() as u64, create.body.len() as u64);
    let ids = [&put, &get, &head, &refused, &sealed, &create, &part]
        .map(|reply| reply.header("x-amz-request-id").unwrap().to_owned());
    // Requests without a customer key.
    node.send(&object("PUT", "plain").body("x")).expect(200);
    node.send(&object("GET", "plain")).expect(200);
    node.send(&Request::new("GET", "/bucket")).expect(200);
    assert!(node.stop().success());

    assert_eq!(fs::metadata(&audit).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&audit).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // A request is logged once its reply is in flight: the next one may be logged first.
    lines.sort_by_key(|line| ids.iter().position(|id| line["request_id"] == id.as_str()));
    let of = |line: &Value, name: &str| line[name].as_str().unwrap_or("-").to_owned();
    let entries: Vec<_> = lines
        .iter()
        .map(|line| (of(line, "operation"), of(line, "result"), line["received"].as_u64(), line["sent"].as_u64()))
        .collect();
    let expected = [
        ("PutObject", "ok", 12, 0),
        ("GetObject", "ok", 0, 12),
        ("HeadObject", "ok", 0, 0),
        ("GetObject", "AccessDenied", 0, sent.0),
        ("GetObject", "ok", 0, sent.1),
        ("CreateMultipartUpload", "ok", 0, sent.2),
        ("UploadPart", "ok", 6, 0),
    ];
    let expected = expected.map(|(operation, result, received, sent)| {
        (operation.to_owned(), result.to_owned(), Some(received), Some(sent))
    });
    assert_eq!(entries, expected);
    for (index, line) in lines.iter().enumerate() {
        assert_eq!((of(line, "bucket"), of(line, "key")), ("bucket".to_owned(), "a \"key\"\u{e9}".to_owned()));
        assert_eq!(of(line, "access_key"), ACCESS_KEY);
        assert!(of(line, "client") == "127.0.0.1" && of(line, "time").ends_with('Z'));
        match index {
            3 => assert!(of(line, "key_id").len() == 32 && of(line, "key_id") != id("bucket").trim()),
            4 => assert_eq!(line["key_id"], Value::Null, "the request had no key"),
            _ => assert_eq!(of(line, "key_id"), id("bucket").trim()),
        }
    }
    assert_eq!(lines.iter().map(|line| of(line, "request_id")).collect::<Vec<_>>(), ids);
    for (name, value) in
        key.headers().into_iter().chain(wrong.headers()).filter(|(name, _)| !name.ends_with("algorithm"))
    {
        assert!(!text.contains(&value), "{name} is in the audit log");
    }
    for secret in [key.0, wrong.0] {
        assert!(!text.contains(&hex::encode(secret)));
    }
}

/// The object decides whether a request is audited, not the headers of the request.
#[test]
fn requests_without_customer_keys_about_sealed_objects_are_audited() {
    let directory = Directory::new();
    let audit = directory.path("audit.log");
    let mut node = Launch::default().with_credential().arg("--audit-log").arg(&audit).start();
    node.make_bucket("bucket");
    let key = CustomerKey::random();
    for name in ["one", "two", "three"] {
        node.send(&object("PUT", name).headers(key.headers()).body("x")).expect(200);
    }
    let tags = "<Tagging><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tagging>";
    node.send(&object("PUT", "one").query("tagging", "").body(tags)).expect(200);
    node.send(&object("PUT", "one").body("plaintext")).expect(200);
    node.send(&object("DELETE", "two")).expect(204);
    let document = "<Delete><Object><Key>three</Key></Object><Object><Key>none</Key></Object></Delete>";
    let md5 = base64(&md5(document.as_bytes()));
    let delete = Request::new("POST", "/bucket").query("delete", "").header("content-md5", md5).body(document);
    node.send(&delete).expect(200);
    let stranger = Signer { secret_key: "not its secret".to_owned(), ..node.signer().clone() };
    object("GET", "plain").send(node.address(), &stranger).expect(403);
    // Neither is about a sealed object.
    node.send(&object("GET", "one")).expect(200);
    node.send(&object("DELETE", "one")).expect(204);
    assert!(node.stop().success());
    let text = fs::read_to_string(&audit).unwrap();
    let of = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        ["operation", "key", "result"].map(|name| line[name].as_str().unwrap_or("-").to_owned()).join(" ")
    };
    // A request is logged once its reply is in flight: the next one may be logged first.
    let mut lines: Vec<String> = text.lines().skip(3).map(of).collect();
    lines.sort();
    let expected = [
        "DeleteObject two ok",
        "DeleteObjects - ok",
        "DeleteObjects three ok",
        "GetObject plain SignatureDoesNotMatch",
        "PutObject one ok",
        "PutObjectTagging one ok",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn requests_are_logged_as_json() {
    let launch = Launch::default().with_credential().arg("--log=debug").arg("--log-format=json");
    let mut node = launch.start();
    node.make_bucket("bucket");
    let put = node.send(&object("PUT", "o").body("some bytes")).expect(200);
    let missing = node.send(&object("GET", "none")).expect(404);
    assert!(node.stop().success());
    let lines: Vec<Value> = node.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let all = node.log().lines().filter(|line| line.starts_with('{')).count();
    assert!(lines.len() == all && all > 5, "every line is JSON");
    let line_of = |id: &str| lines.iter().find(|line| line["request_id"] == id).cloned().unwrap();
    let line = line_of(put.header("x-amz-request-id").unwrap());
    assert_eq!(
        (&line["operation"], &line["status"], &line["received"]),
        (&"PutObject".into(), &200.into(), &10.into())
    );
    assert!(line["took_us"].as_u64().is_some() && line["level"] == "DEBUG" && line["access_key"] == ACCESS_KEY);
    let line = line_of(missing.header("x-amz-request-id").unwrap());
    assert_eq!((&line["error"], &line["status"]), (&"NoSuchKey".into(), &404.into()));
}

#[test]
fn start_with_unusable_audit_log_is_refused() {
    let directory = Directory::new();
    let launch = Launch::default().with_credential().arg("--audit-log").arg("/no/such/directory/audit.log");
    let (code, message) = launch.refused_start(directory.home());
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("/no/such/directory/audit.log"), "{message}");
}

/// SIGHUP reopens the audit log and reloads the access keys.
#[test]
fn sighup_reopens_audit_log_and_reloads_access_keys() {
    let directory = Directory::new();
    let moved = directory.path("audit.log.1");
    let audit = directory.path("audit.log");
    let mut node = Launch::default().arg("--audit-log").arg(&audit).start();
    node.make_bucket("bucket");
    let key = CustomerKey::random();
    let put = || node.send(&object("PUT", "o").headers(key.headers()).body("x"));
    put().expect(200);
    while fs::read_to_string(&audit).unwrap().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    fs::rename(&audit, &moved).unwrap();
    let file = node.data().join("credentials.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("*:admin", "*:list")).unwrap();
    node.reload();
    let begun = Instant::now();
    while put().status != 403 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", node.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(node.stop().success());
    let before = fs::read_to_string(&moved).unwrap();
    let after = fs::read_to_string(&audit).unwrap();
    assert!(before.lines().count() >= 1 && before.starts_with("{\"time\""), "{before}");
    assert!(before.lines().chain(after.lines()).all(|line| line.contains("PutObject")), "{after}");
}
