//! Versions and object lock: one flow of each kind on the binary, and ransomware against it. The tables
//! of all requests are in `crates/keyhole-node/tests/tables/versions`.

use std::process::Command;

use jiff::Timestamp;
use keyhole_tests::command::expect_success;
use keyhole_tests::data::{base64, md5};
use keyhole_tests::{CustomerKey, Launch, Node, Request, Response, top};

const DAY_S: i64 = 24 * 60 * 60;

fn launch() -> Launch {
    Launch::default().with_credential().arg("--threads=2")
}

fn request(method: &str, path: &str) -> Request {
    Request::new(method, path)
}

fn with_document(request: Request, document: &str) -> Request {
    request.header("content-md5", base64(&md5(document.as_bytes()))).body(document)
}

fn versioning(state: &str) -> Request {
    let document = format!("<VersioningConfiguration><Status>{state}</Status></VersioningConfiguration>");
    with_document(request("PUT", "/bucket").query("versioning", ""), &document)
}

/// Returns an upload with its digest.
fn put(path: &str, body: &str) -> Request {
    request("PUT", path).header("content-md5", base64(&md5(body.as_bytes()))).body(body)
}

fn id_of(response: &Response) -> String {
    response.header("x-amz-version-id").expect("a version id").to_owned()
}

/// Returns the ids of the versions of a bucket in the order of the listing; delete markers in
/// parentheses.
fn listed(node: &Node, bucket: &str) -> Vec<String> {
    let listing = node.send(&request("GET", &format!("/{bucket}")).query("versions", "")).expect(200).text();
    let listing = listing.replace("<DeleteMarker>", "<Version>(");
    let id = |item: &str| {
        let id = item.split("<VersionId>").nth(1).and_then(|rest| rest.split('<').next()).expect("an id").to_owned();
        if item.starts_with('(') { format!("({id})") } else { id }
    };
    listing.split("<Version>").skip(1).map(id).collect()
}

#[track_caller]
fn assert_error(reply: &Response, status: u16, code: &str) {
    assert_eq!((reply.status, reply.element("Code").as_deref()), (status, Some(code)), "{}", reply.text());
}

/// Returns the time after so many days as a date of object lock.
fn in_days(days: i64) -> String {
    Timestamp::from_second(Timestamp::now().as_second() + days * DAY_S).unwrap().to_string()
}

fn retention(version: &str, mode: &str, days: i64) -> Request {
    let until = in_days(days);
    let document = format!("<Retention><Mode>{mode}</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>");
    with_document(request("PUT", "/vault/o").query("retention", "").query("versionId", version), &document)
}

fn default_retention(mode: &str, days: u32) -> Request {
    let document = format!(
        "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>{mode}\
        </Mode><Days>{days}</Days></DefaultRetention></Rule></ObjectLockConfiguration>"
    );
    with_document(request("PUT", "/vault").query("object-lock", ""), &document)
}

/// Starts a node with a bucket `vault` that has object lock.
fn vault() -> Node {
    let node = launch().start();
    node.send(&request("PUT", "/vault").header("x-amz-bucket-object-lock-enabled", "true")).expect(200);
    node
}

/// Compiles the library that sets the wall clock ahead of nodes.
pub(crate) fn clock_library(directory: &std::path::Path) -> std::path::PathBuf {
    let library = directory.join("clock.so");
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(top().join("tests/tools/clock.c"));
    assert!(compile.status().unwrap().success());
    library
}

#[test]
fn versions_survive_restarts_and_are_deleted_one_by_one() {
    let mut node = Node::with_bucket();
    let data = node.data().to_str().unwrap().to_owned();
    let keys = [CustomerKey::random(), CustomerKey::random()];
    node.send(&put("/bucket/o", "before")).expect(200);
    node.send(&versioning("Enabled")).expect(200);
    let sealed =
        |n: usize| id_of(&node.send(&put("/bucket/o", &format!("version {n}")).headers(keys[n].headers())).expect(200));
    let ids = [sealed(0), sealed(1)];
    let marker = node.send(&request("DELETE", "/bucket/o")).expect(204);
    assert_eq!(marker.header("x-amz-delete-marker"), Some("true"));
    let marker = id_of(&marker);
    let all = [format!("({marker})"), ids[1].clone(), ids[0].clone(), "null".to_owned()];
    let check = |node: &Node| {
        assert_eq!(listed(node, "bucket"), all);
        let gone = node.send(&request("GET", "/bucket/o"));
        assert_error(&gone, 404, "NoSuchKey");
        assert_eq!(id_of(&gone), marker);
        for (n, id) in ids.iter().enumerate() {
            let get = request("GET", "/bucket/o").query("versionId", id).headers(keys[n].headers());
            assert_eq!(node.send(&get).expect(200).text(), format!("version {n}"));
        }
        let get = request("GET", "/bucket/o").query("versionId", "null");
        assert_eq!(node.send(&get).expect(200).text(), "before");
    };
    check(&node);
    // From the log, and from a checkpoint.
    node.kill();
    node.start();
    check(&node);
    assert!(node.stop().success());
    node.start();
    check(&node);
    let shown = String::from_utf8(expect_success(&["bucket", "get", &data, "bucket"], b"")).unwrap();
    assert!(shown.contains("versioning: enabled\nobject-lock: none\n"), "{shown}");
    assert_error(&node.send(&request("DELETE", "/bucket")), 409, "BucketNotEmpty");
    for id in [&marker, &ids[1], &ids[0], "null"] {
        node.send(&request("DELETE", "/bucket/o").query("versionId", id)).expect(204);
    }
    assert!(listed(&node, "bucket").is_empty());
    node.send(&request("DELETE", "/bucket")).expect(204);
}

#[test]
fn suspended_versioning_replaces_the_null_version_alone() {
    let mut node = Node::with_bucket();
    node.send(&versioning("Enabled")).expect(200);
    let first = id_of(&node.send(&put("/bucket/o", "1")).expect(200));
    node.send(&versioning("Suspended")).expect(200);
    for body in ["2", "3"] {
        assert_eq!(id_of(&node.send(&put("/bucket/o", body)).expect(200)), "null");
    }
    assert_eq!(listed(&node, "bucket"), ["null", &first[..]]);
    assert_eq!(node.send(&request("GET", "/bucket/o")).expect(200).text(), "3");
    node.send(&request("DELETE", "/bucket/o")).expect(204);
    node.kill();
    node.start();
    assert_eq!(listed(&node, "bucket"), ["(null)", &first[..]]);
    let get = request("GET", "/bucket/o").query("versionId", &first);
    assert_eq!(node.send(&get).expect(200).text(), "1");
}

#[test]
fn retention_and_holds_survive_a_restart() {
    let mut node = vault();
    let put_o = |node: &Node, body: &str| id_of(&node.send(&put("/vault/o", body)).expect(200));
    let delete = |version: &str| request("DELETE", "/vault/o").query("versionId", version);
    let bypass = |version: &str| delete(version).header("x-amz-bypass-governance-retention", "true");
    let [governed, held, by_default] = {
        let governed = put_o(&node, "governed");
        node.send(&retention(&governed, "GOVERNANCE", 2)).expect(200);
        let held = put_o(&node, "held");
        let hold = with_document(
            request("PUT", "/vault/o").query("legal-hold", "").query("versionId", &held),
            "<LegalHold><Status>ON</Status></LegalHold>",
        );
        node.send(&hold).expect(200);
        node.send(&default_retention("COMPLIANCE", 1)).expect(200);
        [governed, held, put_o(&node, "by default")]
    };
    node.kill();
    node.start();
    for id in [&governed, &held, &by_default] {
        assert_error(&node.send(&delete(id)), 403, "AccessDenied");
    }
    for id in [&held, &by_default] {
        assert_error(&node.send(&bypass(id)), 403, "AccessDenied");
    }
    let get = request("GET", "/vault/o").query("retention", "").query("versionId", &by_default);
    assert_eq!(node.send(&get).expect(200).element("Mode").as_deref(), Some("COMPLIANCE"));
    node.send(&retention(&by_default, "COMPLIANCE", 3)).expect(200);
    assert_error(&node.send(&retention(&by_default, "COMPLIANCE", 2)), 403, "AccessDenied");
    node.send(&bypass(&governed)).expect(204);
    let off = with_document(
        request("PUT", "/vault/o").query("legal-hold", "").query("versionId", &held),
        "<LegalHold><Status>OFF</Status></LegalHold>",
    );
    node.send(&off).expect(200);
    node.send(&delete(&held)).expect(204);
    assert_eq!(listed(&node, "vault"), [by_default]);
    let data = node.data().to_str().unwrap();
    let shown = String::from_utf8(expect_success(&["bucket", "get", data, "vault"], b"")).unwrap();
    assert!(shown.contains("versioning: enabled\nobject-lock: compliance 1 days\n"), "{shown}");
}

#[test]
fn noncurrent_versions_and_lone_markers_expire() {
    let directory = tempfile::tempdir().unwrap();
    let audit = directory.path().join("audit.log");
    let library = clock_library(directory.path());
    let audited = |launch: Launch| launch.arg("--audit-log").arg(&audit);
    let mut node = audited(launch()).start();
    node.make_bucket("bucket");
    node.send(&versioning("Enabled")).expect(200);
    let key = CustomerKey::random();
    node.send(&put("/bucket/o", "old").headers(key.headers())).expect(200);
    let current = id_of(&node.send(&put("/bucket/o", "current")).expect(200));
    node.send(&put("/bucket/gone", "x")).expect(200);
    node.send(&request("DELETE", "/bucket/gone")).expect(204);
    let rules = "<LifecycleConfiguration><Rule><Filter/><Status>Enabled</Status><NoncurrentVersionExpiration>\
        <NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration><Expiration><ExpiredObjectDeleteMarker>true\
        </ExpiredObjectDeleteMarker></Expiration></Rule></LifecycleConfiguration>";
    node.send(&with_document(request("PUT", "/bucket").query("lifecycle", ""), rules)).expect(200);
    node.kill();
    // Two days later a day and the following midnight have passed.
    let ahead = (2 * DAY_S).to_string();
    node.set_launch(audited(launch().env("LD_PRELOAD", &library).env("CLOCK_AHEAD_S", ahead)));
    node.start();
    node.wait_for_log("deleted expired objects and uploads objects=0 uploads=0 noncurrent=2 markers=1", 1);
    node.kill();
    node.set_launch(launch());
    node.start();
    assert_eq!(listed(&node, "bucket"), [current]);
    let lines = std::fs::read_to_string(&audit).unwrap();
    let of_versions: Vec<&str> = lines.lines().filter(|line| line.contains("VersionExpiration")).collect();
    assert!(of_versions.len() == 1 && of_versions[0].contains("\"key\":\"o\""), "{of_versions:?}");
}

/// The stolen credentials are those of an administrator.
#[test]
fn ransomware_destroys_no_locked_version() {
    let directory = tempfile::tempdir().unwrap();
    let library = clock_library(directory.path());
    let mut node = vault();
    let keys = [CustomerKey::random(), CustomerKey::random()];
    let other = CustomerKey::random();
    node.send(&default_retention("COMPLIANCE", 30)).expect(200);
    let stored =
        |n: usize| id_of(&node.send(&put("/vault/o", &format!("version {n}")).headers(keys[n].headers())).expect(200));
    let ids = [stored(0), stored(1)];
    let assert_readable = |node: &Node, after: &str| {
        for (n, id) in ids.iter().enumerate() {
            let get = node.send(&request("GET", "/vault/o").query("versionId", id).headers(keys[n].headers()));
            assert_eq!((get.status, get.text()), (200, format!("version {n}")), "{after}");
        }
    };
    let entries: String =
        ids.iter().map(|id| format!("<Object><Key>o</Key><VersionId>{id}</VersionId></Object>")).collect();
    let lifecycle = "<LifecycleConfiguration><Rule><Filter/><Status>Enabled</Status><Expiration><Days>1</Days></Expiration>\
        <NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration></Rule>\
        </LifecycleConfiguration>";
    let copy = request("PUT", "/vault/o").header("x-amz-copy-source", "vault/o");
    let copy = copy.headers(keys[1].copy_source_headers()).headers(other.headers());
    let unlocked = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>";
    let delete = |id: &String| {
        let delete = request("DELETE", "/vault/o").query("versionId", id);
        delete.header("x-amz-bypass-governance-retention", "true")
    };
    let attacks = [
        ("copy onto itself with another key", copy, 200),
        ("overwrite", put("/vault/o", "ransom"), 200),
        ("delete", request("DELETE", "/vault/o"), 204),
        ("delete of the first version", delete(&ids[0]), 403),
        ("delete of the second version", delete(&ids[1]), 403),
        (
            "DeleteObjects",
            with_document(request("POST", "/vault").query("delete", ""), &format!("<Delete>{entries}</Delete>")),
            200,
        ),
        ("shorter retention", retention(&ids[0], "COMPLIANCE", 1), 403),
        ("no default", with_document(request("PUT", "/vault").query("object-lock", ""), unlocked), 200),
        ("an object without a lock", put("/vault/unlocked", "x"), 200),
        ("suspension", versioning("Suspended").with_path("/vault"), 409),
        ("rule of a day", with_document(request("PUT", "/vault").query("lifecycle", ""), lifecycle), 200),
        ("deletion of the bucket", request("DELETE", "/vault"), 409),
    ];
    for (attack, request, status) in attacks {
        let reply = node.send(&request);
        assert_eq!(reply.status, status, "{attack}: {}", reply.text());
        assert_readable(&node, attack);
    }
    // An upload over it.
    let upload = node.send(&request("POST", "/vault/o").query("uploads", "")).expect(200).element("UploadId").unwrap();
    let part = put("/vault/o", "ransom").query("uploadId", &upload).query("partNumber", "1");
    let etag = node.send(&part).expect(200).header("etag").unwrap().to_owned();
    let part = format!("<Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>");
    let document = format!("<CompleteMultipartUpload>{part}</CompleteMultipartUpload>");
    node.send(&request("POST", "/vault/o").query("uploadId", &upload).body(document)).expect(200);
    assert_readable(&node, "an upload in parts");
    node.kill();
    let ahead = (3650 * DAY_S).to_string();
    let clock = directory.path().join("ahead");
    std::fs::write(&clock, "0").unwrap();
    node.set_launch(launch().env("LD_PRELOAD", &library).env("CLOCK_AHEAD_FILE", &clock));
    node.start();
    assert_readable(&node, "a restart");
    // The clock is set ten years ahead while the node runs.
    std::fs::write(&clock, &ahead).unwrap();
    node.wait_for_log("the wall clock leapt ahead", 1);
    std::fs::write(&clock, "0").unwrap();
    assert_readable(&node, "a leap of the clock");
    for id in &ids {
        assert_error(&node.send(&delete(id)), 403, "AccessDenied");
    }
    node.kill();
    // It is ten years ahead after a restart. Expiry believes it, and retention does not.
    node.set_launch(launch().env("LD_PRELOAD", &library).env("CLOCK_AHEAD_S", ahead));
    node.start();
    node.wait_for_log("the wall clock leapt ahead", 2);
    node.wait_for_log("deleted expired objects and uploads objects=2", 1);
    let data = node.data().to_str().unwrap().to_owned();
    let status = keyhole_tests::command::run(&["status", &data, "--json"], b"");
    assert!(String::from_utf8_lossy(&status.stdout).contains("lock-clock"), "{status:?}");
    node.kill();
    node.set_launch(launch());
    node.start();
    assert_readable(&node, "a clock that was ahead");
    for id in &ids {
        assert_error(&node.send(&delete(id)), 403, "AccessDenied");
    }
    assert_readable(&node, "the last attempt");
    // Now the operator accepts the clock, which is right again: nothing ends.
    let accepted = String::from_utf8(expect_success(&["clock", "accept", &data], b"")).unwrap();
    assert!(accepted.starts_with("the lock clock is at "), "{accepted}");
    assert_error(&node.send(&delete(&ids[0])), 403, "AccessDenied");
}

/// An attacker fills the store. Without `--ring` it refuses writes, with it unlocked objects go.
#[test]
fn full_store_keeps_locked_versions() {
    const KEPT: usize = 8;
    const LEN: usize = 1 << 20;
    for is_ring in [false, true] {
        let launch = launch().capacity(Some("64MiB"));
        let node = if is_ring { launch.arg("--ring") } else { launch }.start();
        node.make_bucket("bucket");
        node.send(&request("PUT", "/vault").header("x-amz-bucket-object-lock-enabled", "true")).expect(200);
        node.send(&default_retention("COMPLIANCE", 30)).expect(200);
        let body = |n: usize| keyhole_tests::data::bytes(n as u64, LEN);
        let key = CustomerKey::random();
        let stored: Vec<String> = (0..KEPT)
            .map(|n| {
                let body = body(n);
                let put = request("PUT", "/vault/o").header("content-md5", base64(&md5(&body))).headers(key.headers());
                id_of(&node.send(&put.body(body)).expect(200))
            })
            .collect();
        let is_accepted = |n: usize| match node.send(&request("PUT", &format!("/bucket/{n}")).body(body(n))).status {
            200 => true,
            507 => false,
            other => panic!("PUT {n}: {other}"),
        };
        // More than twice the capacity.
        let accepted = (0..150).take_while(|n| is_accepted(*n)).count();
        if is_ring {
            assert_eq!(accepted, 150, "the ring makes room");
            assert_eq!(node.send(&request("HEAD", "/bucket/0")).status, 404, "the oldest object has gone");
        } else {
            assert!((20..64).contains(&accepted), "{accepted}");
            for id in &stored {
                let delete = request("DELETE", "/vault/o").query("versionId", id);
                assert_error(&node.send(&delete), 403, "AccessDenied");
            }
        }
        for (n, id) in stored.iter().enumerate() {
            let get = node.send(&request("GET", "/vault/o").query("versionId", id).headers(key.headers())).expect(200);
            assert!(get.body == body(n), "version {n}, ring {is_ring}");
        }
    }
}

/// In a bucket with versions and without locks, only the right `delete-version` destroys anything.
#[test]
fn credentials_without_delete_version_destroy_nothing() {
    let node = launch().start();
    node.make_bucket("bucket");
    node.send(&versioning("Enabled")).expect(200);
    let keys = [CustomerKey::random(), CustomerKey::random()];
    let stored =
        |n: usize| id_of(&node.send(&put("/bucket/o", &format!("version {n}")).headers(keys[n].headers())).expect(200));
    let ids = [stored(0), stored(1)];
    let thief = crate::access::with_grants(&node, &["bucket:read,write,list,delete,read-sealed,write-sealed"]);
    let entries: String =
        ids.iter().map(|id| format!("<Object><Key>o</Key><VersionId>{id}</VersionId></Object>")).collect();
    let lifecycle = "<LifecycleConfiguration><Rule><Filter/><Status>Enabled</Status><NoncurrentVersionExpiration>\
        <NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration></Rule></LifecycleConfiguration>";
    let attacks = [
        ("overwrite", put("/bucket/o", "ransom"), 200),
        ("delete", request("DELETE", "/bucket/o"), 204),
        ("delete of the first version", request("DELETE", "/bucket/o").query("versionId", &ids[0]), 403),
        ("delete of the second version", request("DELETE", "/bucket/o").query("versionId", &ids[1]), 403),
        (
            "DeleteObjects",
            with_document(request("POST", "/bucket").query("delete", ""), &format!("<Delete>{entries}</Delete>")),
            200,
        ),
        ("suspension", versioning("Suspended"), 403),
        ("rule of a day", with_document(request("PUT", "/bucket").query("lifecycle", ""), lifecycle), 403),
        ("deletion of the bucket", request("DELETE", "/bucket"), 403),
    ];
    for (attack, attempt, status) in attacks {
        let reply = attempt.send(node.address(), &thief);
        assert_eq!(reply.status, status, "{attack}: {}", reply.text());
        for (n, id) in ids.iter().enumerate() {
            let get = request("GET", "/bucket/o").query("versionId", id).headers(keys[n].headers());
            assert_eq!(node.send(&get).expect(200).text(), format!("version {n}"), "{attack}");
        }
    }
    let cleaner = crate::access::with_grants(&node, &["bucket:delete-version"]);
    request("DELETE", "/bucket/o").query("versionId", &ids[0]).send(node.address(), &cleaner).expect(204);
    assert_error(&node.send(&request("GET", "/bucket/o").query("versionId", &ids[0])), 404, "NoSuchVersion");
}
