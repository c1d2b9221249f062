//! Expiry of objects, by rules with prefixes, days and dates.

use std::process::Command;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use keyhole_tests::aws::CLIS;
use keyhole_tests::command::expect_success;
use keyhole_tests::{Aws, CustomerKey, Launch, Node, Request, Response, top};

const DAY_S: i64 = 24 * 60 * 60;

fn launch() -> Launch {
    Launch::default().with_credential().arg("--threads=2")
}

fn node() -> Node {
    Node::with_bucket()
}

fn request(method: &str, key: &str) -> Request {
    Request::new(method, &format!("/bucket/{key}"))
}

fn lifecycle(method: &str) -> Request {
    Request::new(method, "/bucket").query("lifecycle", "")
}

fn rule(id: &str, prefix: &str, status: &str, actions: &str) -> String {
    format!("<Rule><ID>{id}</ID><Filter><Prefix>{prefix}</Prefix></Filter><Status>{status}</Status>{actions}</Rule>")
}

fn days(days: u32) -> String {
    format!("<Expiration><Days>{days}</Days></Expiration>")
}

fn date(date: &str) -> String {
    format!("<Expiration><Date>{date}</Date></Expiration>")
}

fn abort(days: u32) -> String {
    let days = format!("<DaysAfterInitiation>{days}</DaysAfterInitiation>");
    format!("<AbortIncompleteMultipartUpload>{days}</AbortIncompleteMultipartUpload>")
}

fn put(rules: &[String]) -> Request {
    lifecycle("PUT").body(format!("<LifecycleConfiguration>{}</LifecycleConfiguration>", rules.concat()))
}

/// Returns the text of these elements.
fn elements(text: &str, name: &str) -> Vec<String> {
    let begin = format!("<{name}>");
    let end = format!("</{name}>");
    text.split(&begin).skip(1).map(|rest| rest.split(&end).next().unwrap().to_owned()).collect()
}

fn keys(node: &Node) -> Vec<String> {
    elements(&node.send(&Request::new("GET", "/bucket").query("list-type", "2")).expect(200).text(), "Key")
}

/// Returns the keys of incomplete uploads.
fn uploads(node: &Node) -> Vec<String> {
    elements(&node.send(&Request::new("GET", "/bucket").query("uploads", "")).expect(200).text(), "Key")
}

#[track_caller]
fn assert_error(reply: &Response, status: u16, code: &str, words: &str) {
    assert_eq!((reply.status, reply.element("Code").as_deref()), (status, Some(code)), "{}", reply.text());
    assert!(reply.element("Message").unwrap().contains(words), "{}", reply.text());
}

/// Returns midnight after this many days, in header format.
fn midnight(days: i64) -> String {
    let then = (Timestamp::now().as_second() + 1 + days * DAY_S + DAY_S - 1) / DAY_S * DAY_S;
    Timestamp::from_second(then).unwrap().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[test]
fn lifecycle_rules_are_put_read_and_deleted() {
    let mut node = node();
    assert_error(&node.send(&lifecycle("GET")), 404, "NoSuchLifecycleConfiguration", "");
    node.send(&lifecycle("DELETE")).expect(204);
    let data = node.data().to_str().unwrap().to_owned();
    let set = |option: &[&str]| {
        String::from_utf8(expect_success(&[&["bucket", "set", &data, "bucket"], option].concat(), b"")).unwrap()
    };
    set(&["--quota", "1GiB", "--rekey-by-overwrite", "forbid"]);
    let rules = [
        rule("first", "a&amp;b/", "Enabled", &days(30)),
        rule("second", "", "Disabled", &(date("2026-01-01T00:00:00Z") + &abort(7))),
    ];
    node.send(&put(&rules)).expect(200);
    let expected = "<Rule><ID>first</ID><Filter><Prefix>a&amp;b/</Prefix></Filter><Status>Enabled</Status><Expiration>\
        <Days>30</Days></Expiration></Rule><Rule><ID>second</ID><Filter><Prefix></Prefix></Filter><Status>Disabled</Status>\
        <Expiration><Date>2026-01-01T00:00:00.000Z</Date></Expiration><AbortIncompleteMultipartUpload>\
        <DaysAfterInitiation>7</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule></LifecycleConfiguration>";
    let check = |node: &Node| {
        let text = node.send(&lifecycle("GET")).expect(200).text();
        assert!(text.ends_with(expected), "{text}");
    };
    check(&node);
    // The rules and other settings persist, in the log and in a checkpoint.
    node.kill();
    node.start();
    check(&node);
    assert!(node.stop().success());
    node.start();
    check(&node);
    let shown = set(&["--sse-c", "require"]);
    assert!(shown.contains("quota: 1.0 GiB") && shown.contains("rekey-by-overwrite: forbid"), "{shown}");
    assert!(shown.contains("lifecycle-rules: 2\ncors-rules: 0\ntags: none\n"), "{shown}");
    check(&node);
    let cors = "<CORSConfiguration><CORSRule><AllowedOrigin>https://a.example</AllowedOrigin><AllowedMethod>GET\
        </AllowedMethod></CORSRule></CORSConfiguration>";
    node.send(&Request::new("PUT", "/bucket").query("cors", "").body(cors)).expect(200);
    let tags = "<Tagging><TagSet><Tag><Key>team</Key><Value>edge</Value></Tag></TagSet></Tagging>";
    node.send(&Request::new("PUT", "/bucket").query("tagging", "").body(tags)).expect(204);
    let shown = String::from_utf8(expect_success(&["bucket", "get", &data, "bucket"], b"")).unwrap();
    assert!(shown.contains("cors-rules: 1 (GET from https://a.example)\ntags: team=edge\n"), "{shown}");
    let encryption = Request::new("DELETE", "/bucket").query("encryption", "");
    node.send(&encryption).expect(204);
    check(&node);
    // A refused request changes nothing.
    assert_error(&node.send(&put(&[])), 400, "MalformedXML", "");
    check(&node);
    node.send(&lifecycle("DELETE")).expect(204);
    assert_error(&node.send(&lifecycle("GET")), 404, "NoSuchLifecycleConfiguration", "");
    let shown = set(&["--quota", "none"]);
    assert!(shown.contains("lifecycle-rules: 0\n") && shown.contains("sse-c: require\n"), "{shown}");
    for method in ["GET", "PUT", "DELETE"] {
        let absent = Request::new(method, "/absent").query("lifecycle", "");
        assert_error(&node.send(&absent), 404, "NoSuchBucket", "");
    }
    // Rules are deleted with their bucket.
    node.send(&put(&rules)).expect(200);
    node.send(&Request::new("DELETE", "/bucket")).expect(204);
    node.make_bucket("bucket");
    assert_error(&node.send(&lifecycle("GET")), 404, "NoSuchLifecycleConfiguration", "");
    node.kill();
    node.start();
    assert_error(&node.send(&lifecycle("GET")), 404, "NoSuchLifecycleConfiguration", "");
}

#[test]
fn unsupported_rule_is_rejected_with_advice() {
    let node = node();
    let check = |rule: String, status: u16, code: &str, words: &str| {
        assert_error(&node.send(&put(&[rule])), status, code, words);
    };
    let of = |actions: &str| rule("r", "", "Enabled", actions);
    check(of(""), 400, "InvalidRequest", "At least one action");
    check(of(&days(0)), 400, "InvalidArgument", "positive integer");
    check(of(&abort(0)), 400, "InvalidArgument", "positive integer");
    check(of(&date("2026-01-01T10:00:00Z")), 400, "InvalidArgument", "midnight");
    check(
        of("<Transition><Days>1</Days><StorageClass>GLACIER</StorageClass></Transition>"),
        501,
        "NotImplemented",
        "Leave",
    );
    let tag = "<Rule><Filter><Tag><Key>a</Key><Value>b</Value></Tag></Filter><Status>Enabled</Status><Expiration><Days>1</Days>\
        </Expiration></Rule>";
    check(tag.to_owned(), 501, "NotImplemented", "not by tags");
    // S3's maximum number of rules, within the length limit of bucket settings.
    let many = |count: usize, prefix: &str| {
        let rules: Vec<String> = (0..count).map(|i| rule(&i.to_string(), prefix, "Enabled", &days(1))).collect();
        node.send(&put(&rules))
    };
    many(1000, "p/").expect(200);
    assert_error(&many(1001, "p/"), 400, "InvalidRequest", "1000 rules");
    assert_error(&many(40, &"p".repeat(1024)), 400, "InvalidRequest", "fewer rules");
    assert_eq!(node.send(&lifecycle("GET")).expect(200).text().matches("<Rule>").count(), 1000);
}

#[test]
fn only_expired_objects_are_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let audit = directory.path().join("audit.log");
    let mut node = launch().arg("--audit-log").arg(&audit).start();
    node.make_bucket("bucket");
    let key = CustomerKey::random();
    node.make_bucket("other");
    node.send(&Request::new("PUT", "/other/tmp/stays").body("x")).expect(200);
    let gone = ["tmp/plain", "tmp/sealed", "tmp/parts", "tmp/é"];
    let stays = ["a", "tmp", "old/tmp/a", "later/a", "off/a", "days/a"];
    for name in gone.iter().chain(&stays) {
        match *name {
            "tmp/sealed" => node.send(&request("PUT", name).headers(key.headers()).body(vec![7; 200_000])).expect(200),
            "tmp/parts" => {
                let id =
                    node.send(&request("POST", name).query("uploads", "")).expect(200).element("UploadId").unwrap();
                let part = request("PUT", name).query("partNumber", "1").query("uploadId", &id).body("part");
                let etag = node.send(&part).expect(200).header("etag").unwrap().to_owned();
                let part = format!("<Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>");
                let document = format!("<CompleteMultipartUpload>{part}</CompleteMultipartUpload>");
                node.send(&request("POST", name).query("uploadId", &id).body(document)).expect(200)
            }
            _ => node.send(&request("PUT", name).body(*name)).expect(200),
        };
    }
    node.send(&request("POST", "tmp/upload").query("uploads", "")).expect(200);
    node.send(&put(&[
        rule("past", "tmp/", "Enabled", &(date("2020-01-01T00:00:00Z") + &abort(1))),
        rule("future", "later/", "Enabled", &date("2099-01-01T00:00:00Z")),
        rule("off", "off/", "Disabled", &date("2020-01-01T00:00:00Z")),
        rule("days", "days/", "Enabled", &days(1)),
    ]))
    .expect(200);
    assert_eq!(keys(&node).len(), gone.len() + stays.len());
    // A node checks at startup, and then once a minute.
    node.kill();
    node.start();
    let deadline = Instant::now() + Duration::from_secs(60);
    while keys(&node).iter().any(|key| gone.contains(&&key[..])) {
        assert!(Instant::now() < deadline, "{:?}", keys(&node));
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut expected = stays.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(keys(&node), expected);
    assert_eq!(uploads(&node), ["tmp/upload"], "an upload is kept for its first day");
    node.send(&Request::new("GET", "/other/tmp/stays")).expect(200);
    for name in gone {
        assert_eq!(node.send(&request("GET", name)).status, 404, "{name}");
    }
    assert!(node.log().contains("deleted expired objects and uploads"));
    // The audit log is about sealed objects. Its lines are written at once.
    let lines: Vec<serde_json::Value> = std::fs::read_to_string(&audit)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &serde_json::Value| line["operation"] == "Expiration")
        .collect();
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(
        (&line["bucket"], &line["key"], &line["result"]),
        (&"bucket".into(), &"tmp/sealed".into(), &"ok".into())
    );
    assert!(line["request_id"].is_null() && line["client"].is_null());
    // The rule persists, and the expiry of a new object is announced.
    let reply = node.send(&request("PUT", "tmp/new").body("x")).expect(200);
    let expiry = "expiry-date=\"Wed, 01 Jan 2020 00:00:00 GMT\", rule-id=\"past\"";
    assert_eq!(reply.header("x-amz-expiration"), Some(expiry));
    node.send(&lifecycle("DELETE")).expect(204);
    node.kill();
    node.start();
    std::thread::sleep(Duration::from_secs(1));
    expected.push("tmp/new".to_owned());
    expected.sort();
    assert_eq!(keys(&node), expected, "without rules no object expires");
}

#[test]
fn objects_expire_by_days_unless_clock_is_behind() {
    let mut node = node();
    let directory = tempfile::tempdir().unwrap();
    let moved = directory.path().join("clock.so");
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-o"]).arg(&moved).arg(top().join("tests/tools/clock.c"));
    assert!(compile.status().unwrap().success());
    let ahead = |days: i64| launch().env("LD_PRELOAD", &moved).env("CLOCK_AHEAD_S", (days * DAY_S).to_string());
    for name in ["tmp/a", "past/a", "a"] {
        node.send(&request("PUT", name).body(name)).expect(200);
    }
    for name in ["tmp/upload", "upload"] {
        node.send(&request("POST", name).query("uploads", "")).expect(200);
    }
    node.send(&put(&[
        rule("days", "tmp/", "Enabled", &(days(1) + &abort(1))),
        rule("past", "past/", "Enabled", &date("2020-01-01T00:00:00Z")),
        rule("later", "", "Enabled", &(days(3) + &abort(3))),
    ]))
    .expect(200);
    node.kill();
    // A clock behind a stored timestamp expires nothing, since one of the two is wrong.
    node.set_launch(ahead(-1));
    node.start();
    node.wait_for_log("the clock is behind a stored timestamp", 1);
    assert!(node.log().contains("bucket=\"bucket\""), "{}", node.log());
    node.kill();
    assert!(!node.log().contains("deleted expired objects and uploads"), "{}", node.log());
    // Two days later a day and the following midnight have passed.
    node.set_launch(ahead(2));
    node.start();
    node.wait_for_log("deleted expired objects and uploads objects=2 uploads=1", 1);
    node.kill();
    node.set_launch(launch());
    node.start();
    assert_eq!((keys(&node), uploads(&node)), (vec!["a".to_owned()], vec!["upload".to_owned()]));
}

#[test]
fn replies_announce_expiry_of_object() {
    let node = node();
    let key = CustomerKey::random();
    node.send(&request("PUT", "a/before").body("x")).expect(200);
    node.send(&put(&[
        rule("all, in time", "", "Enabled", &(days(30) + &abort(7))),
        rule("soon", "a/", "Enabled", &days(2)),
    ]))
    .expect(200);
    // Midnight may pass between the request and the comparison.
    let assert_expires = |reply: &Response, days: i64, rule: &str| {
        let expiration = reply.header("x-amz-expiration").unwrap_or_default().to_owned();
        let expected = [-1, 0].map(|more| format!("expiry-date=\"{}\", rule-id=\"{rule}\"", midnight(days + more)));
        assert!(
            expiration == expected[1] || expiration == expected[0] && !expiration.is_empty(),
            "{expiration}, not {expected:?}"
        );
    };
    for (name, days, rule) in [("a/o", 2, "soon"), ("o", 30, "all%2C%20in%20time")] {
        for headers in [Vec::new(), key.headers().to_vec()] {
            assert_expires(
                &node.send(&request("PUT", name).headers(headers.clone()).body("x")).expect(200),
                days,
                rule,
            );
            assert_expires(&node.send(&request("GET", name).headers(headers.clone())).expect(200), days, rule);
            assert_expires(&node.send(&request("HEAD", name).headers(headers)).expect(200), days, rule);
        }
        for method in ["GET", "HEAD"] {
            assert_expires(&node.send(&request(method, name).header("x-keyhole-sealed", "1")).expect(200), days, rule);
        }
        let copy = request("PUT", &format!("{name}-copy")).header("x-amz-copy-source", format!("bucket/{name}"));
        assert_expires(&node.send(&copy.headers(key.copy_source_headers())).expect(200), days, rule);
        let created = node.send(&request("POST", name).query("uploads", "")).expect(200);
        let id = created.element("UploadId").unwrap();
        let listed = node.send(&request("GET", name).query("uploadId", &id)).expect(200);
        for reply in [&created, &listed] {
            let date = reply.header("x-amz-abort-date").unwrap();
            assert!([midnight(6), midnight(7)].iter().any(|midnight| midnight == date), "{date}");
            assert_eq!(reply.header("x-amz-abort-rule-id"), Some("all%2C%20in%20time"));
        }
        let part = request("PUT", name).query("partNumber", "1").query("uploadId", &id).body("part");
        let etag = node.send(&part).expect(200).header("etag").unwrap().to_owned();
        let part = format!("<Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>");
        let document = format!("<CompleteMultipartUpload>{part}</CompleteMultipartUpload>");
        assert_expires(
            &node.send(&request("POST", name).query("uploadId", &id).body(document)).expect(200),
            days,
            rule,
        );
    }
    assert_expires(&node.send(&request("GET", "a/before")).expect(200), 2, "soon");
    node.send(&lifecycle("DELETE")).expect(204);
    for name in ["a/before", "o"] {
        let reply = node.send(&request("GET", name)).expect(200);
        assert_eq!(reply.header("x-amz-expiration"), None);
    }
}

#[test]
fn aws_cli_sets_and_reads_rules() {
    let node = node();
    let directory = tempfile::tempdir().unwrap();
    let configuration = r#"{"Rules": [
        {"ID": "logs", "Filter": {"Prefix": "logs/"}, "Status": "Enabled", "Expiration": {"Days": 30}},
        {"ID": "all", "Filter": {}, "Status": "Disabled", "Expiration": {"Date": "2026-01-01T00:00:00Z"},
         "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}]}"#;
    std::fs::write(directory.path().join("rules.json"), configuration).unwrap();
    for cli in CLIS {
        let aws = Aws::new(cli, &node, directory.path());
        aws.shell(
            "aws s3api put-bucket-lifecycle-configuration --bucket bucket --lifecycle-configuration file://rules.json",
        );
        let text = aws.shell("aws s3api get-bucket-lifecycle-configuration --bucket bucket --output json");
        let got: serde_json::Value = serde_json::from_str(&text).unwrap();
        let rules = &got["Rules"];
        assert_eq!((&rules[0]["ID"], &rules[0]["Filter"]["Prefix"]), (&"logs".into(), &"logs/".into()), "{text}");
        assert_eq!((&rules[0]["Status"], &rules[0]["Expiration"]["Days"]), (&"Enabled".into(), &30.into()));
        assert!(rules[1]["Expiration"]["Date"].as_str().unwrap().starts_with("2026-01-01T00:00:00"), "{text}");
        assert_eq!(rules[1]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"], 7);
        let head =
            "echo x > o; aws s3api put-object --bucket bucket --key logs/o --body o --query Expiration --output text";
        assert!(aws.shell(head).contains("rule-id=\"logs\""));
        aws.shell("aws s3api delete-bucket-lifecycle --bucket bucket");
        let message = aws.shell_error("aws s3api get-bucket-lifecycle-configuration --bucket bucket");
        assert!(message.contains("NoSuchLifecycleConfiguration"), "{message}");
    }
}
