//! Export and import of versions, delete markers and locks.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use keyhole_tests::data::{base64, bytes, files_below, fresh_seed, md5};
use keyhole_tests::node::binary;
use keyhole_tests::sigv4::sha256_hex;
use keyhole_tests::{CustomerKey, Node, Request, Response};
use serde_json::Value;

use super::{
    Object, PART, assert_same, assert_same_stream, import_stream, kill_after, launch, node, spawn, stopped_node,
    stream, text, upload_in_parts,
};
use crate::operate::exits_with;
use crate::versions::clock_library;

/// The stream that the release before versions wrote, of a store with three objects.
const VERSION_1: &[u8] = include_bytes!("version-1.tar");

/// A version of an object, with the headers to read it.
pub(crate) struct Version {
    bucket: &'static str,
    key: &'static str,
    id: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Version {
    fn path(&self) -> String {
        format!("/{}/{}", self.bucket, self.key)
    }

    fn request(&self, method: &str) -> Request {
        Request::new(method, &self.path()).query("versionId", &self.id)
    }
}

const BUCKETS: [&str; 4] = ["history", "paused", "plain", "vault"];

fn id_of(response: &Response) -> String {
    response.header("x-amz-version-id").unwrap_or("null").to_owned()
}

pub(crate) fn document(method: &str, path: &str, body: &str) -> Request {
    Request::new(method, path).header("content-md5", base64(&md5(body.as_bytes()))).body(body)
}

pub(crate) fn set_versioning(node: &Node, bucket: &str, state: &str) {
    let body = format!("<VersioningConfiguration><Status>{state}</Status></VersioningConfiguration>");
    node.send(&document("PUT", &format!("/{bucket}"), &body).query("versioning", "")).expect(200);
}

/// Returns the time after so many days as a date of object lock.
pub(crate) fn in_days(days: i64) -> String {
    Timestamp::from_second(Timestamp::now().as_second() + days * 24 * 60 * 60).unwrap().to_string()
}

fn retention(version: &Version, mode: &str, until: &str) -> Request {
    let body = format!("<Retention><Mode>{mode}</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>");
    document("PUT", &version.path(), &body).query("retention", "").query("versionId", &version.id)
}

fn hold(version: &Version, status: &str) -> Request {
    let body = format!("<LegalHold><Status>{status}</Status></LegalHold>");
    document("PUT", &version.path(), &body).query("legal-hold", "").query("versionId", &version.id)
}

/// Stores a version and returns it.
fn put(
    node: &Node,
    bucket: &'static str,
    key: &'static str,
    customer_key: Option<&CustomerKey>,
    body: Vec<u8>,
    more: &[(&str, &str)],
) -> Version {
    let headers = customer_key.map(|key| key.headers().to_vec()).unwrap_or_default();
    let put = Request::new("PUT", &format!("/{bucket}/{key}")).headers(headers.clone()).headers(more.to_vec());
    let id = id_of(&node.send(&put.header("content-md5", base64(&md5(&body))).body(body.clone())).expect(200));
    Version { bucket, key, id, headers, body }
}

fn delete(node: &Node, bucket: &str, key: &str) -> String {
    id_of(&node.send(&Request::new("DELETE", &format!("/{bucket}/{key}"))).expect(204))
}

/// Fills a node with versions of every kind, and returns those that are objects.
pub(crate) fn fill(node: &Node) -> Vec<Version> {
    let keys: Vec<CustomerKey> = (0..4).map(|_| CustomerKey::random()).collect();
    let mut all = Vec::new();
    ["history", "paused", "plain"].iter().for_each(|bucket| node.make_bucket(bucket));
    let mut put = |bucket, key, customer_key, body, more: &[(&str, &str)]| {
        let version = put(node, bucket, key, customer_key, body, more);
        all.push(version);
    };
    // The `null` version, versions under keys of their own, a large one, markers on top and between.
    put("history", "o", None, b"before".to_vec(), &[("x-amz-tagging", "a=1")]);
    put("paused", "o", None, b"before".to_vec(), &[]);
    put("plain", "o", Some(&keys[0]), bytes(1, 70_000), &[]);
    ["history", "paused"].iter().for_each(|bucket| set_versioning(node, bucket, "Enabled"));
    put("history", "o", Some(&keys[0]), bytes(2, 20_000), &[("x-amz-meta-n", "2")]);
    put("history", "o", Some(&keys[1]), bytes(3, 3_000_000), &[("content-type", "text/plain")]);
    delete(node, "history", "o");
    put("history", "o", None, bytes(4, 200_000), &[]);
    put("history", "o", Some(&keys[2]), Vec::new(), &[("x-amz-tagging", "z=2&b=")]);
    put("history", "gone", Some(&keys[3]), bytes(5, 100), &[]);
    delete(node, "history", "gone");
    delete(node, "history", "only a marker");
    put("paused", "o", Some(&keys[1]), bytes(6, 50), &[]);
    put("paused", "replaced", None, bytes(7, 60), &[]);
    set_versioning(node, "paused", "Suspended");
    put("paused", "replaced", None, bytes(8, 70), &[]);
    delete(node, "paused", "o");
    put("paused", "z", None, bytes(9, 80), &[]);
    // The `null` version of before was replaced by the marker.
    all.retain(|version| (version.bucket, &version.id[..], &version.body[..]) != ("paused", "null", b"before"));
    let headers = keys[3].headers().to_vec();
    let mut object = Object { bucket: "history", key: "parts".to_owned(), headers, parts: 2, body: Vec::new() };
    for sizes in [&[PART, 5][..], &[PART + 9, 70_000]] {
        object.body = upload_in_parts(node, &object, sizes, Some("COMPOSITE"), true);
        let id = id_of(&node.send(&object.request("HEAD")).expect(200));
        let (headers, body) = (object.headers.clone(), object.body.clone());
        all.push(Version { bucket: "history", key: "parts", id, headers, body });
    }
    fill_vault(node, &keys, &mut all);
    all
}

/// Fills a bucket with object lock.
fn fill_vault(node: &Node, keys: &[CustomerKey], all: &mut Vec<Version>) {
    node.send(&Request::new("PUT", "/vault").header("x-amz-bucket-object-lock-enabled", "true")).expect(200);
    let first = all.len();
    all.push(put(node, "vault", "compliance", Some(&keys[0]), bytes(10, 500), &[]));
    all.push(put(node, "vault", "governance", Some(&keys[1]), bytes(11, 500), &[]));
    all.push(put(node, "vault", "held", None, bytes(12, 500), &[]));
    all.push(put(node, "vault", "held", Some(&keys[2]), bytes(13, 90_000), &[]));
    node.send(&retention(&all[first], "COMPLIANCE", &in_days(30))).expect(200);
    node.send(&retention(&all[first + 1], "GOVERNANCE", &in_days(40))).expect(200);
    node.send(&hold(&all[first + 2], "ON")).expect(200);
    node.send(&retention(&all[first + 3], "GOVERNANCE", &in_days(2))).expect(200);
    node.send(&hold(&all[first + 3], "ON")).expect(200);
    let default = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>\
        <Mode>COMPLIANCE</Mode><Days>3</Days></DefaultRetention></Rule></ObjectLockConfiguration>";
    node.send(&document("PUT", "/vault", default).query("object-lock", "")).expect(200);
    all.push(put(node, "vault", "default", Some(&keys[3]), bytes(14, 600), &[]));
    delete(node, "vault", "compliance");
}

/// Returns what a node says of its versions, after checking that each opens with its key.
fn observe(node: &Node, versions: &[Version]) -> Vec<(String, Vec<u8>)> {
    let mut seen = Vec::new();
    let mut see = |name: String, request: &Request| {
        let reply = node.send(request);
        let passing = ["date", "x-amz-request-id", "x-amz-id-2", "connection", "content-length"];
        let headers = reply.headers.iter().filter(|(name, _)| !passing.contains(&&name[..]));
        let mut shown: Vec<String> = headers.map(|(name, value)| format!("{name}: {value}")).collect();
        shown.sort();
        let body = if reply.status < 400 { reply.body.clone() } else { reply.element("Code").unwrap().into() };
        seen.push((format!("{name}: {} {}", reply.status, shown.join("; ")), body));
    };
    for bucket in BUCKETS {
        let path = format!("/{bucket}");
        see(format!("versions of {bucket}"), &Request::new("GET", &path).query("versions", ""));
        see(format!("objects of {bucket}"), &Request::new("GET", &path).query("list-type", "2"));
        see(format!("versioning of {bucket}"), &Request::new("GET", &path).query("versioning", ""));
        see(format!("object lock of {bucket}"), &Request::new("GET", &path).query("object-lock", ""));
        see(format!("rules of {bucket}"), &Request::new("GET", &path).query("lifecycle", ""));
    }
    for version in versions {
        let name = |what: &str| format!("{what} {} {}", version.path(), version.id);
        let read = version.request("GET").headers(version.headers.clone()).header("x-amz-checksum-mode", "ENABLED");
        let reply = node.send(&read).expect(200);
        assert!(reply.body == version.body, "{}", name("GET"));
        see(name("GET"), &read);
        see(name("GET without a key"), &version.request("GET"));
        for what in ["tagging", "retention", "legal-hold"] {
            see(name(what), &version.request("GET").query(what, ""));
        }
    }
    see("a marker".to_owned(), &Request::new("GET", "/history/gone"));
    seen
}

fn figures(stdout: &str) -> Value {
    serde_json::from_str(stdout).unwrap()
}

#[test]
fn versions_and_locks_are_copied_through_directory_and_pipe() {
    let a = node();
    let versions = fill(&a);
    let rules = "<LifecycleConfiguration><Rule><ID>old</ID><Filter/><Status>Enabled</Status><NoncurrentVersionExpiration>\
        <NoncurrentDays>300</NoncurrentDays></NoncurrentVersionExpiration></Rule></LifecycleConfiguration>";
    a.send(&Request::new("PUT", "/history").query("lifecycle", "").body(rules)).expect(200);
    let before = observe(&a, &versions);
    let directory = tempfile::tempdir().unwrap();
    let export = directory.path().join("export");
    exits_with(0, &["export", text(a.data()), text(&export)]);
    exits_with(0, &["verify", text(&export)]);
    let manifest = fs::read_to_string(export.join("manifest/00000001.jsonl")).unwrap();
    assert!(manifest.starts_with(r#"{"line":"export","version":2,"#), "{manifest}");
    assert_eq!(files_below(&export.join("objects")).len(), versions.len(), "markers have no files");
    let b = node();
    let c = node();
    exits_with(0, &["import", text(b.data()), text(&export), "--settings", "all"]);
    let piped = stream(a.data(), &[]);
    keyhole_tests::command::expect_success(&["verify", "-"], &piped);
    let (code, _, stderr) = import_stream(c.data(), &piped, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    for copy in [&b, &c] {
        assert_same(&before, &observe(copy, &versions));
        assert_same_stream(&a, copy);
        // Again, in the other form: nothing changes.
        let (code, stdout, stderr) = import_stream(copy.data(), &piped, &["--json"]);
        assert_eq!(code, Some(0), "{stderr}");
        let again = figures(&stdout);
        let all = versions.len() as u64 + 5;
        assert_eq!((&again["stored"], &again["markers"], &again["equal"]), (&0.into(), &0.into(), &all.into()));
        exits_with(0, &["import", text(copy.data()), text(&export), "--settings", "all", "--existing", "replace"]);
        assert_same(&before, &observe(copy, &versions));
        for version in versions.iter().filter(|version| version.bucket == "vault") {
            let refused = copy.send(&version.request("DELETE"));
            assert_eq!(refused.status, 403, "{} {}: {}", version.key, version.id, refused.text());
        }
    }
    // The default settings protect, too.
    let d = node();
    let (_, stderr) = exits_with(1, &["import", text(d.data()), text(&export)]);
    assert!(stderr.contains("lifecycle rules") && !stderr.contains("not stored"), "{stderr}");
    let (_, _) = exits_with(0, &["import", text(d.data()), text(&export), "--settings", "safe"]);
    let without_rules = |seen: Vec<(String, Vec<u8>)>| -> Vec<_> {
        seen.into_iter().filter(|(name, _)| !name.starts_with("rules of history")).collect()
    };
    let seen = without_rules(observe(&d, &versions));
    assert_same(&without_rules(before), &seen);
}

/// An incremental export and import: locks and tags change without a new file, and are only
/// strengthened; new versions follow.
#[test]
fn repeated_export_and_import_continue_histories() {
    let a = node();
    let mut versions = fill(&a);
    let directory = tempfile::tempdir().unwrap();
    let export = directory.path().join("export");
    exits_with(0, &["export", text(a.data()), text(&export)]);
    let b = node();
    exits_with(0, &["import", text(b.data()), text(&export), "--settings", "all"]);
    let find = |versions: &[Version], key: &str| {
        versions.iter().position(|version| version.bucket == "vault" && version.key == key).unwrap()
    };
    // Here the lock becomes longer, there another one does.
    let compliance = find(&versions, "compliance");
    let governance = find(&versions, "governance");
    let until = in_days(50);
    a.send(&retention(&versions[compliance], "COMPLIANCE", &until)).expect(200);
    let stricter = retention(&versions[governance], "COMPLIANCE", &until);
    b.send(&stricter.header("x-amz-bypass-governance-retention", "true")).expect(200);
    a.send(&hold(&versions[governance], "ON")).expect(200);
    let held = find(&versions, "held");
    a.send(&hold(&versions[held], "OFF")).expect(200);
    let tags = "<Tagging><TagSet><Tag><Key>later</Key><Value>1</Value></Tag></TagSet></Tagging>";
    let tagging = |version: &Version| version.request("PUT").query("tagging", "").body(tags);
    a.send(&tagging(&versions[0])).expect(200);
    versions.push(put(&a, "history", "o", None, bytes(20, 300), &[]));
    delete(&a, "history", "parts");
    let output = exits_with(0, &["export", text(a.data()), text(&export), "--json"]).0;
    let unchanged = figures(&output)["unchanged"].as_u64().unwrap();
    assert_eq!(unchanged as usize, versions.len() - 1, "only the new version has a new file");
    exits_with(0, &["verify", text(&export)]);
    let (stdout, stderr) = exits_with(1, &["import", text(b.data()), text(&export), "--settings", "all", "--json"]);
    let kept = format!("kept: history/o (version {})", versions[0].id);
    assert!(stderr.contains(&kept), "{stderr}");
    let imported = figures(&stdout);
    assert_eq!((&imported["stored"], &imported["markers"], &imported["kept"]), (&1.into(), &1.into(), &1.into()));
    exits_with(0, &["import", text(b.data()), text(&export), "--settings", "all", "--existing", "replace"]);
    let value = |node: &Node, version: &Version, what: &str, element: &str| {
        node.send(&version.request("GET").query(what, "")).expect(200).element(element)
    };
    let mode = |node: &Node, at: usize| value(node, &versions[at], "retention", "Mode").unwrap();
    let end = |node: &Node, at: usize| value(node, &versions[at], "retention", "RetainUntilDate").unwrap();
    assert_eq!(end(&b, compliance), end(&a, compliance));
    assert_eq!((mode(&b, governance).as_str(), mode(&a, governance).as_str()), ("COMPLIANCE", "GOVERNANCE"));
    assert_eq!(value(&b, &versions[governance], "legal-hold", "Status").as_deref(), Some("ON"));
    assert_eq!(value(&b, &versions[held], "legal-hold", "Status").as_deref(), Some("ON"), "no hold is removed");
    assert_eq!(value(&b, &versions[0], "tagging", "Key").as_deref(), Some("later"));
    for bucket in BUCKETS {
        let list = Request::new("GET", &format!("/{bucket}")).query("versions", "");
        assert_eq!(b.send(&list).expect(200).text(), a.send(&list).expect(200).text());
    }
    // What the copy has on top stays, and versions that it lacks do not go on top of it.
    let own = put(&b, "history", "o", None, b"own".to_vec(), &[]);
    let deleted = &versions[3];
    assert_eq!((deleted.bucket, deleted.key), ("history", "o"));
    b.send(&deleted.request("DELETE")).expect(204);
    let (_, stderr) = exits_with(1, &["import", text(b.data()), text(&export), "--settings", "all"]);
    let behind = format!("kept: history/o (version {}): the store has newer versions", deleted.id);
    assert!(stderr.contains(&behind), "{stderr}");
    exits_with(0, &["import", text(b.data()), text(&export), "--settings", "all", "--existing", "skip"]);
    let (_, stderr) =
        exits_with(1, &["import", text(b.data()), text(&export), "--settings", "all", "--existing", "replace"]);
    assert!(stderr.contains(&format!("not stored: history/o (version {})", deleted.id)), "{stderr}");
    assert_eq!(b.send(&Request::new("GET", "/history/o")).expect(200).body, b"own");
    assert_eq!(id_of(&b.send(&Request::new("HEAD", "/history/o"))), own.id);
}

/// Imports of many versions are killed, with and without a node; the order of versions survives.
#[test]
fn killed_import_of_versions_resumes() {
    let seed = fresh_seed();
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let a = node();
    let mut versions = fill(&a);
    for n in 0..150 {
        let key = ["many", "more"][n % 2];
        if n % 7 == 6 {
            delete(&a, "history", key);
        } else {
            versions.push(put(&a, "history", key, None, bytes(n as u64, 5_000), &[]));
        }
    }
    let before = observe(&a, &versions);
    let directory = tempfile::tempdir().unwrap();
    let export = directory.path().join("export");
    let arguments = ["export", text(a.data()), text(&export), "--rate", "30MB/s"];
    let mut kills = 0;
    while !kill_after(spawn(&arguments), random.u64(20..300 + 200 * kills)) {
        kills += 1;
        assert!(kills < 50, "seed {seed}: no progress");
    }
    println!("{kills} exports were killed");
    exits_with(0, &["export", text(a.data()), text(&export)]);
    exits_with(0, &["verify", text(&export)]);
    for running in [true, false] {
        let mut b = if running { node() } else { stopped_node() };
        let data = b.data().to_owned();
        let arguments = ["import", text(&data), text(&export), "--rate", "30MB/s", "--settings", "all"];
        let mut kills = 0;
        while !kill_after(spawn(&arguments), random.u64(20..300 + 200 * kills)) {
            kills += 1;
            assert!(kills < 50, "seed {seed}: no progress");
            if running && kills == 2 {
                b.kill();
                b.start();
            }
        }
        println!("{kills} imports were killed");
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            // A node may still be busy with the killed commands.
            let output = keyhole_tests::command::run(&arguments, b"");
            if output.status.success() {
                break;
            }
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(Instant::now() < deadline, "seed {seed}: {stderr}");
            std::thread::sleep(Duration::from_millis(100));
        }
        if !running {
            b.start();
        }
        assert_same(&before, &observe(&b, &versions));
    }
}

/// A bucket of another origin gets no versioning without consent, and then none of the versions.
#[test]
fn versions_are_not_imported_into_another_bucket_without_versioning() {
    let a = node();
    fill(&a);
    let piped = stream(a.data(), &[]);
    let b = node();
    b.make_bucket("vault");
    b.send(&Request::new("PUT", "/vault/held").body("own")).expect(200);
    for existing in ["fail", "skip"] {
        let (code, _, stderr) = import_stream(b.data(), &piped, &["--existing", existing]);
        let line = "not imported: the versions in bucket vault, which exists and lacks versioning with object lock";
        assert!(code == Some(1) && stderr.contains(line), "{stderr}");
        assert_eq!(b.send(&Request::new("GET", "/vault/held")).expect(200).body, b"own");
        let list = b.send(&Request::new("GET", "/vault").query("versions", "")).expect(200).text();
        assert_eq!(list.matches("<Version>").count(), 1, "{list}");
    }
    let (code, stdout, stderr) = import_stream(b.data(), &piped, &["--existing", "replace", "--json"]);
    // The `null` version is older than the versions of the export.
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    assert_eq!(stderr.matches("not stored: vault/held").count(), 2, "{stderr}");
    assert_eq!(b.send(&Request::new("GET", "/vault").query("versioning", "")).element("Status").unwrap(), "Enabled");
    assert_eq!(b.send(&Request::new("GET", "/vault/held")).expect(200).body, b"own");
    b.send(&Request::new("HEAD", "/vault/default")).expect(400);
}

/// A damaged version is left out and reported with its id, as are versions with damaged files.
#[test]
fn damaged_versions_are_left_out_by_name() {
    let mut a = node();
    a.make_bucket("care");
    set_versioning(&a, "care", "Enabled");
    let hurt = bytes(fresh_seed(), 3 << 20);
    let versions: Vec<Version> = [bytes(1, 100), hurt.clone(), bytes(2, 50)]
        .into_iter()
        .map(|body| put(&a, "care", "o", None, body, &[]))
        .collect();
    delete(&a, "care", "o");
    assert!(a.stop().success());
    crate::operate::damage(&a.data().join("objects.keyhole"), &hurt);
    let directory = tempfile::tempdir().unwrap();
    let export = directory.path().join("export");
    let (_, stderr) = exits_with(4, &["export", text(a.data()), text(&export)]);
    let name = format!("care/o (version {})", versions[1].id);
    assert!(stderr.contains(&format!("left out: {name}: damaged")), "{stderr}");
    let output = Command::new(binary()).args(["export", text(a.data()), "-"]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    let b = node();
    let c = node();
    exits_with(3, &["import", text(b.data()), text(&export)]);
    let (code, _, stderr) = import_stream(c.data(), &output.stdout, &[]);
    assert!(code == Some(3) && stderr.contains(&format!("{name}: could not be exported")), "{stderr}");
    for copy in [&b, &c] {
        copy.send(&Request::new("GET", "/care/o")).expect(404);
        for (at, status) in [(0, 200), (1, 404), (2, 200)] {
            assert_eq!(copy.send(&versions[at].request("GET")).status, status, "{at}");
        }
    }
    // A file of the export is damaged: the other versions are stored.
    let d = node();
    let (file, _) =
        files_below(&export.join("objects")).into_iter().find(|(_, content)| *content == versions[0].body).unwrap();
    fs::write(&file, bytes(3, 100)).unwrap();
    let (_, stderr) = exits_with(3, &["import", text(d.data()), text(&export)]);
    assert!(stderr.contains(&format!("damaged: care/o (version {})", versions[0].id)), "{stderr}");
    d.send(&versions[0].request("GET")).expect(404);
    assert_eq!(d.send(&versions[2].request("GET")).expect(200).body, versions[2].body);
}

/// A run that describes a bucket fails if the bucket is given versioning or object lock meanwhile.
#[test]
fn versioning_enabled_during_export_fails_it() {
    let a = node();
    for bucket in ["first", "second"] {
        a.make_bucket(bucket);
        a.send(&Request::new("PUT", &format!("/{bucket}/1")).body(bytes(1, 10 << 20))).expect(200);
    }
    let locking = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>";
    let changes: [(&str, &dyn Fn()); 3] = [
        ("second", &|| set_versioning(&a, "second", "Enabled")),
        ("first", &|| set_versioning(&a, "first", "Enabled")),
        ("first", &|| drop(a.send(&document("PUT", "/first", locking).query("object-lock", "")).expect(200))),
    ];
    for (bucket, change) in changes {
        let mut export = Command::new(binary());
        export.args(["export", text(a.data()), "-"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = export.spawn().unwrap();
        // The first object is being sent, and waits for its reader.
        let mut out = child.stdout.take().unwrap();
        out.read_exact(&mut [0; 512]).unwrap();
        change();
        std::io::copy(&mut out, &mut std::io::sink()).unwrap();
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let why = format!("bucket {bucket} was enabled after the export had described it: run the command again");
        assert!(output.status.code() == Some(1) && stderr.contains(&why), "{bucket}: {stderr}");
    }
    let b = node();
    let (code, _, stderr) = import_stream(b.data(), &stream(a.data(), &[]), &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_same_stream(&a, &b);
}

#[test]
fn filtered_export_has_the_versions_of_one_prefix() {
    let a = node();
    let versions = fill(&a);
    let b = node();
    let only = stream(a.data(), &["--bucket", "history", "--prefix", "o"]);
    let (code, stdout, stderr) = import_stream(b.data(), &only, &["--json"]);
    assert_eq!(code, Some(0), "{stderr}");
    let c = node();
    let (code, _, stderr) = import_stream(c.data(), &stream(a.data(), &[]), &["--bucket", "history", "--prefix", "o"]);
    assert_eq!(code, Some(0), "{stderr}");
    let in_scope = |version: &&Version| version.bucket == "history" && version.key == "o";
    let imported = figures(&stdout);
    assert_eq!(imported["stored"], versions.iter().filter(in_scope).count());
    // Between the versions, and of another key.
    assert_eq!(imported["markers"], 2);
    assert_same_stream(&b, &c);
    let list = b.send(&Request::new("GET", "/history").query("versions", "")).expect(200).text();
    assert!(!list.contains("gone") && list.contains("only a marker"), "{list}");
}

/// A `null` version that is locked stays; one that is not locked is replaced if the operator says so.
#[test]
fn locked_null_version_is_not_replaced() {
    let fill = |body: &str| {
        let node = node();
        node.make_bucket("late");
        let version = put(&node, "late", "o", None, body.into(), &[]);
        set_versioning(&node, "late", "Enabled");
        let lock = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>";
        node.send(&document("PUT", "/late", lock).query("object-lock", "")).expect(200);
        (node, version)
    };
    let (a, _) = fill("theirs");
    let (b, own) = fill("own");
    b.send(&hold(&own, "ON")).expect(200);
    let piped = stream(a.data(), &[]);
    for (existing, line) in [
        ("fail", "kept: late/o (version null) exists with different contents"),
        ("replace", "not stored: late/o (version null): the version is locked"),
    ] {
        let (code, _, stderr) = import_stream(b.data(), &piped, &["--existing", existing]);
        assert!(code == Some(1) && stderr.contains(line), "{stderr}");
        assert_eq!(b.send(&own.request("GET")).expect(200).body, b"own");
    }
    b.send(&hold(&own, "OFF")).expect(200);
    let (code, _, stderr) = import_stream(b.data(), &piped, &["--existing", "skip"]);
    assert_eq!((code, b.send(&own.request("GET")).expect(200).body), (Some(0), b"own".to_vec()), "{stderr}");
    let (code, _, stderr) = import_stream(b.data(), &piped, &["--existing", "replace"]);
    assert_eq!((code, b.send(&own.request("GET")).expect(200).body), (Some(0), b"theirs".to_vec()), "{stderr}");
    // Below a newer version it cannot be replaced, since the new one would be on top.
    let (c, own) = fill("own");
    put(&c, "late", "o", None, b"newer".to_vec(), &[]);
    let (code, _, stderr) = import_stream(c.data(), &piped, &["--existing", "replace"]);
    let line = "not stored: late/o (version null): the store has newer versions of the key";
    assert!(code == Some(1) && stderr.contains(line), "{stderr}");
    assert_eq!(c.send(&own.request("GET")).expect(200).body, b"own");
}

/// A restart after an import cannot end a retention with a wall clock that is ahead.
#[test]
fn import_of_locks_starts_the_lock_clock() {
    let a = node();
    a.send(&Request::new("PUT", "/vault").header("x-amz-bucket-object-lock-enabled", "true")).expect(200);
    let version = put(&a, "vault", "o", None, bytes(1, 100), &[]);
    a.send(&retention(&version, "COMPLIANCE", &in_days(30))).expect(200);
    let mut b = stopped_node();
    let (code, _, stderr) = import_stream(b.data(), &stream(a.data(), &[]), &[]);
    assert_eq!(code, Some(0), "{stderr}");
    let directory = tempfile::tempdir().unwrap();
    let library = clock_library(directory.path());
    let ahead = (3650 * 24 * 60 * 60).to_string();
    b.set_launch(launch().env("LD_PRELOAD", &library).env("CLOCK_AHEAD_S", ahead));
    b.start();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !b.log().contains("the wall clock leapt ahead") {
        assert!(Instant::now() < deadline, "{}", b.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    b.kill();
    b.set_launch(launch());
    b.start();
    let refused = b.send(&version.request("DELETE"));
    assert!(refused.status == 403 && refused.text().contains("object lock"), "{}", refused.text());
}

/// Writes a line with its check value.
fn checked(line: &str) -> String {
    let said = line.strip_suffix('}').unwrap();
    format!("{said},\"check\":\"{}\"}}\n", &sha256_hex(said.as_bytes())[..32])
}

/// Returns the line without its check value.
fn unchecked(line: &str) -> String {
    format!("{}}}", &line[..line.rfind(",\"check\"").unwrap()])
}

/// Replaces the line of the manifest that contains `part`.
fn replace_line(export: &Path, part: &str, lines: &[String]) -> String {
    let path = export.join("manifest/00000001.jsonl");
    let manifest = fs::read_to_string(&path).unwrap();
    let (before, rest) =
        manifest.split_once('\n').map(|(first, _)| first.len() + 1).map(|at| manifest.split_at(at)).unwrap();
    let old = rest.lines().find(|line| line.contains(part)).expect(part);
    let new: String = lines.iter().map(|line| checked(line)).collect();
    fs::write(&path, format!("{before}{}", rest.replacen(&format!("{old}\n"), &new, 1))).unwrap();
    manifest
}

#[test]
fn invalid_lines_about_versions_are_refused() {
    let a = node();
    let versions = fill(&a);
    let directory = tempfile::tempdir().unwrap();
    let export = directory.path().join("export");
    exits_with(0, &["export", text(a.data()), text(&export)]);
    let manifest = fs::read_to_string(export.join("manifest/00000001.jsonl")).unwrap();
    let version = versions.iter().find(|version| (version.bucket, version.key) == ("history", "gone")).unwrap();
    let part = format!(r#""version":"{}""#, version.id);
    let line = manifest.lines().find(|line| line.contains(&part)).unwrap();
    let line = unchecked(line);
    let marker =
        manifest.lines().find(|line| line.contains(r#""line":"marker""#) && line.contains("\"gone\"")).unwrap();
    let marker_part = &marker[marker.find(r#""key""#).unwrap()..marker.find(",\"modified_ms\"").unwrap()];
    let marker = unchecked(marker);
    let other = |to: &str| line.replace(&part, to);
    let cases = [
        (vec![other(r#""version":"ABCDEFABCDEFABCDEFABCDEFABCDEFAB""#)], "invalid version id"),
        (vec![other(r#""version":"""#)], "invalid version id"),
        (vec![other(r#""key2":"x""#)], "unknown field"),
        (vec![other(&format!(r#"{part},"lock":{{"mode":"COMPLIANCE","until_ms":9}}"#))], "without object lock"),
        (vec![other(&format!(r#"{part},"lock":{{"mode":"SOFT","until_ms":9}}"#))], "SOFT"),
        (vec![line.replace(&format!(",{part}"), "")], "without a version id"),
        (vec![line.clone(), line.clone()], "a version of this id already"),
        (vec![line.replace(r#""key":"gone""#, r#""key":"a""#), line.clone()], ""),
        (vec![line.replace(r#""key":"gone""#, r#""key":"z""#)], "out of order"),
        (vec![line.replace("\"modified_ms\":1", "\"modified_ms\":9991")], "the year 9999"),
    ];
    let bad = |part: &str, lines: &[String], message: &str| {
        let whole = replace_line(&export, part, lines);
        let b = node();
        let verified = keyhole_tests::command::run(&["verify", text(&export)], b"");
        let imported =
            keyhole_tests::command::run(&["import", text(b.data()), text(&export), "--settings", "all"], b"");
        for output in [&verified, &imported] {
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(matches!(output.status.code(), Some(1 | 3)), "{message}: {stderr}");
            assert!(stderr.contains(message), "{message}: {stderr}");
        }
        fs::write(export.join("manifest/00000001.jsonl"), whole).unwrap();
        b
    };
    for (lines, message) in cases {
        let b = bad(&part, &lines, message);
        let stored = b.send(&version.request("GET").headers(version.headers.clone())).status;
        assert_eq!(stored, if lines.contains(&line) { 200 } else { 404 }, "{message}");
        let locked = b.send(&version.request("GET").query("retention", ""));
        assert_ne!(locked.status, 200, "{message}");
    }
    let with = |more: &str| format!("{},{more}}}", marker.strip_suffix('}').unwrap());
    for (line, message) in [
        (with(r#""size":5"#), "unknown field"),
        (with(r#""sha256":"00""#), "unknown field"),
        (marker.replace("\"modified_ms\":1", "\"modified_ms\":9991"), "the year 9999"),
    ] {
        let b = bad(marker_part, &[line], message);
        b.send(&Request::new("GET", "/history/gone").headers(version.headers.clone())).expect(200);
    }
    // In an export of version 1 there are no versions.
    let path = export.join("manifest/00000001.jsonl");
    let (_, rest) = manifest.split_once('\n').unwrap();
    fs::write(&path, checked(r#"{"line":"export","version":1}"#) + rest).unwrap();
    let (_, stderr) = exits_with(3, &["verify", text(&export)]);
    assert!(stderr.contains("content of version 2 in an export of version 1"), "{stderr}");
    fs::write(&path, checked(r#"{"line":"export","version":3}"#) + rest).unwrap();
    let (_, stderr) = exits_with(3, &["verify", text(&export)]);
    assert!(stderr.contains("unsupported export version 3"), "{stderr}");
}

/// The stream of an earlier release is imported, and a store without versions is exported as it was.
#[test]
fn version_1_stream_is_read_and_written_as_before() {
    keyhole_tests::command::expect_success(&["verify", "-"], VERSION_1);
    let a = node();
    let (code, _, stderr) = import_stream(a.data(), VERSION_1, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    let key = CustomerKey(*b"0123456789abcdef0123456789abcdef");
    let sealed = Request::new("GET", "/first/sealed").headers(key.headers());
    let note = Request::new("GET", "/first/dir/note.txt");
    for request in [&sealed, &note] {
        assert_eq!(a.send(request).expect(200).body, b"hello, world");
    }
    assert!(stream(a.data(), &[]) == VERSION_1, "another stream");
    let (code, stdout, stderr) = import_stream(a.data(), VERSION_1, &["--json"]);
    assert_eq!((code, &figures(&stdout)["equal"]), (Some(0), &3.into()), "{stderr}");
    // Into a bucket with versioning, and from a directory that becomes one of version 2.
    let directory = tempfile::tempdir().unwrap();
    let export = directory.path().join("export");
    exits_with(0, &["export", text(a.data()), text(&export)]);
    set_versioning(&a, "first", "Enabled");
    let (code, stdout, stderr) = import_stream(a.data(), VERSION_1, &["--json"]);
    assert_eq!((code, &figures(&stdout)["equal"]), (Some(0), &3.into()), "{stderr}");
    let output = exits_with(0, &["export", text(a.data()), text(&export), "--json"]).0;
    assert_eq!(figures(&output)["unchanged"], 3, "files of `null` versions keep their names");
    exits_with(0, &["verify", text(&export)]);
    let state = fs::read_to_string(export.join("keyhole-export.json")).unwrap();
    assert!(state.contains("\"version\":2"), "{state}");
    fs::write(export.join("keyhole-export.json"), state.replace("\"version\":2", "\"version\":3")).unwrap();
    let (_, stderr) = exits_with(1, &["export", text(a.data()), text(&export)]);
    assert!(stderr.contains("has an export of version 3, but this program writes versions 1 to 2"), "{stderr}");
    fs::write(export.join("keyhole-export.json"), state).unwrap();
    assert!(stream(a.data(), &["--bucket", "second"]).starts_with(&VERSION_1[..100]));
    let second = stream(a.data(), &["--bucket", "second"]);
    assert!(String::from_utf8_lossy(&second).contains(r#"{"line":"export","version":1,"#));
    let b = node();
    exits_with(0, &["import", text(b.data()), text(&export)]);
    assert_same_stream(&a, &b);
}
