//! Export and import: the copy on another node is identical, on every route and after any number of
//! interruptions. No key is needed, and exports contain none.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use keyhole_tests::command::Directory;
use keyhole_tests::data::{base64, bytes, contains, encodings, files_below, fresh_seed};
use keyhole_tests::node::binary;
use keyhole_tests::{CustomerKey, Launch, Node, Request};
use serde_json::Value;

use crate::operate::{exits_with, json};

pub(crate) mod versions;

const ALL: &str = "ETag,Checksum,ObjectParts,StorageClass,ObjectSize";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// An object of a node, with the headers to read it.
pub(crate) struct Object {
    bucket: &'static str,
    key: String,
    headers: Vec<(String, String)>,
    parts: usize,
    body: Vec<u8>,
}

/// The content of a filled node.
pub(crate) struct Content {
    objects: Vec<Object>,
    keys: Vec<CustomerKey>,
    buckets: [&'static str; 3],
}

impl Object {
    fn request(&self, method: &str) -> Request {
        Request::new(method, &format!("/{}/{}", self.bucket, self.key)).headers(self.headers.clone())
    }

    fn bare(&self, method: &str) -> Request {
        Request::new(method, &format!("/{}/{}", self.bucket, self.key))
    }

    fn is_sealed(&self) -> bool {
        !self.headers.is_empty()
    }
}

/// Uploads an object in parts with gaps in their numbers; with or without the key in the
/// completion.
fn upload_in_parts(
    node: &Node,
    object: &Object,
    sizes: &[usize],
    kind: Option<&str>,
    is_completed_with_key: bool,
) -> Vec<u8> {
    let mut create = object.request("POST").query("uploads", "").header("x-amz-meta-Made", "in parts");
    if let Some(kind) = kind {
        create = create.header("x-amz-checksum-algorithm", "CRC32").header("x-amz-checksum-type", kind);
    }
    let id = node.send(&create).expect(200).element("UploadId").unwrap();
    let mut document = String::from("<CompleteMultipartUpload>");
    let mut whole = Vec::new();
    for (place, size) in sizes.iter().enumerate() {
        let number = 2 + 3 * place;
        let body = bytes(place as u64 + 77, *size);
        let sum = base64(&crc32fast::hash(&body).to_be_bytes());
        let part = object.request("PUT").query("partNumber", &number.to_string()).query("uploadId", &id);
        let part = if kind.is_some() { part.header("x-amz-checksum-crc32", &sum) } else { part };
        let etag = node.send(&part.body(body.clone())).expect(200).header("etag").unwrap().to_owned();
        let sum = if kind.is_some() { format!("<ChecksumCRC32>{sum}</ChecksumCRC32>") } else { String::new() };
        document += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag>{sum}</Part>");
        whole.extend_from_slice(&body);
    }
    document += "</CompleteMultipartUpload>";
    let complete = if is_completed_with_key { object.request("POST") } else { object.bare("POST") };
    node.send(&complete.query("uploadId", &id).body(document)).expect(200);
    whole
}

const PART: usize = 5 << 20;

/// Keys that would be harmful as file names.
const HARMFUL_KEYS: [&str; 9] = [
    "../../../../tmp/evil",
    "a/../b",
    "a//b/",
    ".",
    "..",
    "new\nline \"quoted\"",
    "ключ 🔑",
    "-rf",
    "objects/ab/x.sealed",
];

/// Returns bytes that are unique to a name and length.
fn body_of(key: &str, len: usize) -> Vec<u8> {
    bytes(u64::from(crc32fast::hash(key.as_bytes())) << 32 | len as u64, len)
}

/// Fills a node with all kinds of content.
pub(crate) fn fill(node: &Node) -> Content {
    let buckets = ["first", "second", "void"];
    buckets.iter().for_each(|bucket| node.make_bucket(bucket));
    let keys = vec![CustomerKey::random(), CustomerKey::random()];
    let mut objects = Vec::new();
    let long = "k".repeat(1024);
    let mut put = |bucket, key: &str, customer_key: Option<&CustomerKey>, len: usize, extra: &[(&str, &str)]| {
        let headers = customer_key.map(|key| key.headers().to_vec()).unwrap_or_default();
        let object = Object { bucket, key: key.to_owned(), headers, parts: 0, body: body_of(key, len) };
        node.send(&object.request("PUT").headers(extra.to_vec()).body(object.body.clone())).expect(200);
        objects.push(object);
    };
    for (kind, key) in [("plain", None), ("sealed", Some(&keys[0]))] {
        for len in [0, 1, 16_384, 65_536, 65_537, 1 << 20, (1 << 20) + 1, 3_000_000] {
            put("first", &format!("{kind}/{len}"), key, len, &[]);
        }
        for (place, name) in HARMFUL_KEYS.into_iter().chain([&long[2..]]).enumerate() {
            put("second", &format!("{}{name}", &kind[..2]), key, 100 + place, &[]);
        }
        let described = [
            ("content-type", "text/plain; charset=utf-8"),
            ("cache-control", "no-store"),
            ("content-disposition", "attachment"),
            ("content-encoding", "identity"),
            ("content-language", "de"),
            ("expires", "Wed, 21 Oct 2065 07:28:00 GMT"),
            ("x-amz-meta-colour", "blue and \"green\""),
            ("x-amz-meta-a", "1"),
            ("x-amz-tagging", "z=last&a=first&empty="),
        ];
        put("first", &format!("{kind}/described"), key, 70_000, &described);
        let name = format!("{kind}/with-a-sum");
        let sum = base64(&crc32fast::hash(&body_of(&name, 50_000)).to_be_bytes());
        put("first", &name, key, 50_000, &[("x-amz-checksum-crc32", &sum)]);
    }
    put("first", "sealed/other-key", Some(&keys[1]), 200_000, &[]);
    let mut more = |key: &str, customer_key: Option<&CustomerKey>, sizes: &[usize], kind, with_key| {
        let headers = customer_key.map(|key| key.headers().to_vec()).unwrap_or_default();
        let mut object =
            Object { bucket: "second", key: key.to_owned(), headers, parts: sizes.len(), body: Vec::new() };
        object.body = upload_in_parts(node, &object, sizes, kind, with_key);
        objects.push(object);
    };
    for (name, key) in [("plain", None), ("sealed", Some(&keys[0]))] {
        more(&format!("parts/{name}"), key, &[PART, PART + 1, 70_000], None, true);
        more(&format!("parts/{name}-composite"), key, &[PART, 1], Some("COMPOSITE"), true);
        more(&format!("parts/{name}-full"), key, &[PART, 12_345], Some("FULL_OBJECT"), true);
        more(&format!("parts/{name}-one"), key, &[5], Some("COMPOSITE"), true);
    }
    more("parts/unbound", Some(&keys[1]), &[PART, 9], None, false);
    objects.push(put_client_sealed(node, &keys[0]));
    // A copy with another key shares its bodies; its tags are set later.
    let copy = Object {
        bucket: "first",
        key: "copy".to_owned(),
        headers: keys[1].headers().to_vec(),
        parts: 3,
        body: Vec::new(),
    };
    let request = copy.request("PUT").header("x-amz-copy-source", "/second/parts/sealed");
    node.send(&request.headers(keys[0].copy_source_headers())).expect(200);
    let body = objects.iter().find(|object| object.key == "parts/sealed").unwrap().body.clone();
    objects.push(Object { body, ..copy });
    let tagging = "<Tagging><TagSet><Tag><Key>later</Key><Value>é</Value></Tag></TagSet></Tagging>";
    node.send(&Request::new("PUT", "/first/sealed/1").query("tagging", "").body(tagging)).expect(200);
    // An upload in progress is not exported.
    node.send(&Request::new("POST", "/second/under-way").query("uploads", "")).expect(200);
    let rules = "<LifecycleConfiguration><Rule><ID>gone</ID><Filter><Prefix>parts/</Prefix></Filter><Status>Enabled</Status>\
        <Expiration><Days>300</Days></Expiration></Rule></LifecycleConfiguration>";
    node.send(&Request::new("PUT", "/second").query("lifecycle", "").body(rules)).expect(200);
    let pin = "00112233445566778899aabbccddeeff";
    let set = [
        "--quota",
        "1KiB",
        "--expire-days",
        "400",
        "--sse-c",
        "require",
        "--pin",
        pin,
        "--rekey-by-overwrite",
        "forbid",
    ];
    exits_with(0, &[&["bucket", "set", text(node.data()), "first"][..], &set].concat());
    Content { objects, keys, buckets }
}

/// Puts a client-sealed object.
fn put_client_sealed(node: &Node, customer_key: &CustomerKey) -> Object {
    let directory = Directory::new();
    let path = directory.path("key");
    fs::write(&path, customer_key.0).unwrap();
    let body = bytes(5, 123_456);
    let key = "by a client".to_owned();
    let headers = customer_key.headers().to_vec();
    let names = ["--bucket", "second", "--name", &key, "--meta", "by=client"];
    let seal = [&["seal", "--key", &path][..], &names].concat();
    let sealed = keyhole_tests::command::expect_success(&seal, &body);
    let object = Object { bucket: "second", key, headers, parts: 0, body };
    node.send(&object.bare("PUT").header("x-keyhole-sealed", "1").body(sealed)).expect(200);
    object
}

/// Returns the replies to all reads of the content.
fn observe(node: &Node, filled: &Content) -> Vec<(String, Vec<u8>)> {
    let mut seen = Vec::new();
    let mut see = |name: String, request: &Request| {
        let reply = node.send(request);
        let passing = ["date", "x-amz-request-id", "x-amz-id-2", "connection"];
        let headers = reply.headers.iter().filter(|(name, _)| !passing.contains(&&name[..]));
        let mut shown: Vec<String> = headers.map(|(name, value)| format!("{name}: {value}")).collect();
        shown.sort();
        // An error contains its request ID.
        let body = if reply.status < 400 {
            reply.body.clone()
        } else {
            reply.element("Code").into_iter().collect::<String>().into_bytes()
        };
        seen.push((format!("{name}: {} {}", reply.status, shown.join("; ")), body));
    };
    see("buckets".to_owned(), &Request::new("GET", "/"));
    for bucket in filled.buckets {
        let path = format!("/{bucket}");
        see(
            format!("list {bucket}"),
            &Request::new("GET", &path).query("list-type", "2").query("encoding-type", "url"),
        );
        see(format!("rules {bucket}"), &Request::new("GET", &path).query("lifecycle", ""));
        see(format!("encryption {bucket}"), &Request::new("GET", &path).query("encryption", ""));
    }
    for object in &filled.objects {
        let name = |what: &str| format!("{what} {}/{}", object.bucket, object.key);
        let checked = |method| object.request(method).header("x-amz-checksum-mode", "ENABLED");
        see(name("HEAD"), &checked("HEAD"));
        see(name("GET"), &checked("GET"));
        see(name("without the key"), &object.bare("GET"));
        see(name("tags"), &object.bare("GET").query("tagging", ""));
        see(name("attributes"), &object.request("GET").query("attributes", "").header("x-amz-object-attributes", ALL));
        for part in 1..=object.parts + 1 {
            see(name(&format!("part {part}")), &checked("HEAD").query("partNumber", &part.to_string()));
        }
        if object.is_sealed() {
            see(name("sealed"), &object.bare("GET").header("x-keyhole-sealed", "1"));
        }
    }
    seen
}

#[track_caller]
pub(crate) fn assert_same(one: &[(String, Vec<u8>)], other: &[(String, Vec<u8>)]) {
    assert_eq!(one.len(), other.len());
    for ((name, body), (other_name, other_body)) in one.iter().zip(other) {
        assert_eq!(name, other_name);
        assert!(body == other_body, "{name}: {}", String::from_utf8_lossy(&other_body[..other_body.len().min(2000)]));
    }
}

/// Returns the replies to all reads of the content and the bucket settings, after checking that
/// objects equal their sources.
pub(crate) fn verify_and_observe(node: &Node, filled: &Content) -> Vec<(String, Vec<u8>)> {
    for object in &filled.objects {
        let got = node.send(&object.request("GET")).expect(200);
        assert!(got.body == object.body, "{}/{}", object.bucket, object.key);
    }
    let mut seen = observe(node, filled);
    for bucket in filled.buckets {
        let settings = json(&["bucket", "get", text(node.data()), bucket, "--json"]);
        let mut settings = settings.as_object().unwrap().clone();
        // The size includes uploads in progress, which are not exported.
        settings.remove("bytes");
        seen.push((format!("settings {bucket}"), Value::Object(settings).to_string().into_bytes()));
    }
    seen
}

/// Returns an export as a stream.
#[track_caller]
pub(crate) fn stream(data: &Path, more: &[&str]) -> Vec<u8> {
    let output = Command::new(binary()).args(["export", text(data), "-"]).args(more).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Checks that the exports of both nodes are identical.
#[track_caller]
pub(crate) fn assert_same_stream(a: &Node, b: &Node) {
    let a = stream(a.data(), &[]);
    let b = stream(b.data(), &[]);
    if a != b {
        let at = a.iter().zip(&b).position(|(a, b)| a != b).unwrap_or(a.len().min(b.len()));
        let near =
            |all: &[u8]| String::from_utf8_lossy(&all[at.saturating_sub(300)..all.len().min(at + 100)]).into_owned();
        panic!("{} and {} bytes differ at {at}:\n{}\nand\n{}", a.len(), b.len(), near(&a), near(&b));
    }
}

/// Imports a stream, and returns exit code, standard output and standard error.
fn import_stream(data: &Path, stream: &[u8], more: &[&str]) -> (Option<i32>, String, String) {
    let arguments = [&["import", text(data), "-", "--settings", "all"], more].concat();
    let output = keyhole_tests::command::run(&arguments, stream);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn launch() -> Launch {
    Launch::default().with_credential().arg("--threads=2")
}

fn node() -> Node {
    launch().start()
}

/// Creates an empty store without a running node.
pub(crate) fn stopped_node() -> Node {
    let mut node = node();
    assert!(node.stop().success());
    node
}

/// Checks that an export contains no key and no plaintext of sealed objects.
fn assert_no_secret(filled: &Content, export: &[(PathBuf, Vec<u8>)]) {
    let mut secrets: Vec<Vec<u8>> = filled.keys.iter().map(|key| key.0.to_vec()).collect();
    let digests = filled.keys.iter().map(|key| keyhole_tests::data::md5(&key.0).to_vec());
    secrets.extend(digests);
    let sealed = filled.objects.iter().filter(|object| object.is_sealed() && object.body.len() > 64);
    // Bytes shared with a plaintext object may occur.
    let plain: Vec<_> = filled.objects.iter().filter(|object| !object.is_sealed()).collect();
    secrets.extend(
        sealed
            .map(|object| object.body[object.body.len() / 2..][..32].to_vec())
            .filter(|some| plain.iter().all(|object| !contains(&object.body, some))),
    );
    assert!(secrets.len() > filled.keys.len() * 2 + 5);
    let encoded: Vec<(String, Vec<u8>)> = secrets.iter().flat_map(|secret| encodings(secret)).collect();
    // A single pass for all of them, by their first two bytes.
    let mut beginning = vec![Vec::new(); 1 << 16];
    for (place, (_, bytes)) in encoded.iter().enumerate() {
        beginning[usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))].push(place);
    }
    let mut found_marker = false;
    for (path, content) in export {
        for (at, pair) in content.windows(2).enumerate() {
            for place in &beginning[usize::from(u16::from_be_bytes([pair[0], pair[1]]))] {
                let (encoding, bytes) = &encoded[*place];
                assert!(!content[at..].starts_with(bytes), "{encoding} in {}", path.display());
            }
        }
        let is_sealed = path.extension().is_some_and(|extension| extension == "sealed");
        let has_metadata = contains(content, b"in parts");
        assert!(!is_sealed || !has_metadata, "metadata in {}", path.display());
        found_marker |= has_metadata;
    }
    assert!(found_marker, "the manifest has the metadata of plaintext objects");
}

#[test]
fn export_through_pipe_copies_node() {
    let a = node();
    let b = node();
    let filled = fill(&a);
    let mut export = Command::new(binary());
    export.args(["export", text(a.data()), "-"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut export = export.spawn().unwrap();
    let pipe = export.stdout.take().unwrap();
    let import = Command::new(binary())
        .args(["import", text(b.data()), "-", "--json", "--settings", "all"])
        .stdin(pipe)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&import.stderr).into_owned();
    assert!(import.status.success(), "{stderr}");
    let mut export_stderr = String::new();
    export.stderr.take().unwrap().read_to_string(&mut export_stderr).unwrap();
    assert!(export.wait().unwrap().success(), "{export_stderr}");
    assert!(
        export_stderr.contains("3 buckets") && export_stderr.contains("1 upload in progress left out"),
        "{export_stderr}"
    );
    let figures: Value = serde_json::from_slice(&import.stdout).unwrap();
    assert_eq!((&figures["stored"], &figures["complete"]), (&filled.objects.len().into(), &true.into()), "{figures}");

    assert_same(&verify_and_observe(&a, &filled), &verify_and_observe(&b, &filled));
    assert_same_stream(&a, &b);
    assert_no_secret(&filled, &[("the stream".into(), stream(a.data(), &[]))]);
}

#[test]
fn export_through_directory_copies_running_and_stopped_nodes() {
    let mut a = node();
    let mut b = stopped_node();
    let filled = fill(&a);
    let before = verify_and_observe(&a, &filled);
    let directory = tempfile::tempdir().unwrap();
    let running = directory.path().join("running");
    let alone = directory.path().join("alone");
    exits_with(0, &["export", text(a.data()), text(&running)]);
    assert!(a.stop().success());
    let figures = json(&["export", text(a.data()), text(&alone), "--json"]);
    assert_eq!((&figures["uploads"], &figures["damaged"]), (&1.into(), &0.into()), "{figures}");
    let tree = |path: &Path| {
        let files = files_below(path).into_iter();
        let mut files: Vec<_> =
            files.map(|(file, content)| (file.strip_prefix(path).unwrap().to_owned(), content)).collect();
        files.sort();
        files
    };
    assert!(tree(&running) == tree(&alone), "running and stopped nodes export the same files");
    assert_no_secret(&filled, &files_below(&alone));
    let figures = json(&["verify", text(&alone), "--json"]);
    assert_eq!((&figures["objects"], &figures["complete"]), (&filled.objects.len().into(), &true.into()), "{figures}");
    exits_with(0, &["import", text(b.data()), text(&alone), "--settings", "all"]);
    b.start();
    assert_same(&before, &verify_and_observe(&b, &filled));
    assert!(b.stop().success());
    let sound = json(&["check", text(b.data()), "--json"]);
    assert_eq!((&sound["sound"], &sound["uploads"]), (&true.into(), &0.into()));

    // The stream is the same tree as an archive: unpacked, it can be imported too.
    let archive = directory.path().join("archive.tar");
    fs::write(&archive, stream(a.data(), &[])).unwrap();
    let unpacked = directory.path().join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    let status = Command::new("tar").args(["-xf", text(&archive), "-C", text(&unpacked)]).status().unwrap();
    assert!(status.success());
    exits_with(0, &["verify", text(&unpacked)]);
    let mut c = stopped_node();
    exits_with(0, &["import", text(c.data()), text(&unpacked), "--settings", "all"]);
    c.start();
    assert_same(&before, &verify_and_observe(&c, &filled));
}

/// A sealed object's file can be opened with its key, and a plaintext object's file is its content.
#[test]
fn exported_files_open_without_node() {
    let a = node();
    let filled = fill(&a);
    let directory = Directory::new();
    let export = directory.path("export");
    exits_with(0, &["export", text(a.data()), &export]);
    let manifest = fs::read_to_string(Path::new(&export).join("manifest/00000001.jsonl")).unwrap();
    let lines: Vec<Value> = manifest.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let entries: Vec<&Value> = lines.iter().filter(|line| line["line"] == "object").collect();
    assert_eq!(entries.len(), filled.objects.len());
    let order = |entry: &&Value| (entry["bucket"].to_string(), entry["key"].as_str().unwrap().to_owned());
    assert!(entries.is_sorted_by_key(order), "by bucket and key");
    for object in &filled.objects {
        let entry =
            entries.iter().find(|entry| entry["bucket"] == object.bucket && entry["key"] == object.key).unwrap();
        let file = Path::new(&export).join(entry["file"].as_str().unwrap());
        let content = fs::read(&file).unwrap();
        assert_eq!(entry["sha256"], keyhole_tests::sigv4::sha256_hex(&content), "{entry}");
        if object.is_sealed() {
            let key = filled.keys.iter().find(|key| object.headers == key.headers()).unwrap();
            fs::write(directory.path("key"), key.0).unwrap();
            let open = ["open", "--allow-unbound", "--key", &directory.path("key"), text(&file)];
            assert!(keyhole_tests::command::expect_success(&open, b"") == object.body, "{entry}");
        } else {
            assert!(content == object.body, "{entry}");
        }
    }
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(Path::new(&export)), 0o700);
    assert!(files_below(Path::new(&export)).iter().all(|(file, _)| mode(file) == 0o600));
}

#[test]
fn repeated_import_keeps_existing_objects() {
    let a = node();
    let b = node();
    let filled = fill(&a);
    let directory = tempfile::tempdir().unwrap();
    let export = directory.path().join("export");
    exits_with(0, &["export", text(a.data()), text(&export)]);
    let import =
        |more: &[&str]| [&["import", text(b.data()), text(&export), "--settings", "all"], more].concat().join("\0");
    let split = |arguments: String| arguments.split('\0').map(str::to_owned).collect::<Vec<_>>();
    let run = |code, more: &[&str]| {
        let arguments = split(import(more));
        exits_with(code, &arguments.iter().map(|argument| &argument[..]).collect::<Vec<_>>())
    };
    run(0, &[]);
    let figures: Value = serde_json::from_str(&run(0, &["--json"]).0).unwrap();
    assert_eq!((&figures["stored"], &figures["equal"]), (&0.into(), &filled.objects.len().into()), "{figures}");

    // Replace one object, change the tags of another, and change settings.
    exits_with(0, &["bucket", "set", text(b.data()), "first", "--sse-c", "allow", "--quota", "none", "--pin", "none"]);
    exits_with(0, &["bucket", "set", text(b.data()), "first", "--rekey-by-overwrite", "allow"]);
    b.send(&Request::new("PUT", "/first/plain/1").body("other")).expect(200);
    b.send(&Request::new("DELETE", "/first/sealed/described").query("tagging", "")).expect(204);
    let (_, stderr) = run(1, &[]);
    for part in
        ["first/plain/1 exists", "first/sealed/described exists", "bucket first has different settings", "--existing"]
    {
        assert!(stderr.contains(part), "{part} in {stderr}");
    }
    let (_, stderr) = run(0, &["--existing", "skip"]);
    assert!(!stderr.contains("plain/1"), "{stderr}");
    assert_eq!(b.send(&Request::new("GET", "/first/plain/1")).expect(200).body, b"other");
    let figures: Value = serde_json::from_str(&run(0, &["--existing", "replace", "--json"]).0).unwrap();
    assert_eq!((&figures["stored"], &figures["kept"]), (&2.into(), &0.into()), "{figures}");
    assert_same(&verify_and_observe(&a, &filled), &verify_and_observe(&b, &filled));
}

#[test]
fn repeated_export_updates_directory() {
    let a = node();
    a.make_bucket("bucket");
    let put =
        |key: &str, len: usize| a.send(&Request::new("PUT", &format!("/bucket/{key}")).body(bytes(1, len))).expect(200);
    ["stays", "goes", "changes", "is tagged"].iter().for_each(|key| drop(put(key, 100_000)));
    let directory = tempfile::tempdir().unwrap();
    let export = directory.path().join("export");
    let run = || json(&["export", text(a.data()), text(&export), "--json"]);
    assert_eq!((&run()["objects"], &run()["unchanged"]), (&4.into(), &4.into()));
    a.send(&Request::new("DELETE", "/bucket/goes")).expect(204);
    put("changes", 100_001);
    put("comes", 5);
    let tagging = "<Tagging><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tagging>";
    a.send(&Request::new("PUT", "/bucket/is tagged").query("tagging", "").body(tagging)).expect(200);
    fs::write(export.join("objects/notes.txt"), "mine").unwrap();
    let figures = run();
    assert_eq!((&figures["objects"], &figures["unchanged"]), (&4.into(), &2.into()), "{figures}");
    let files: Vec<_> = files_below(&export).into_iter().map(|(path, _)| path).collect();
    let with = |end: &str| files.iter().filter(|file| text(file).ends_with(end)).count();
    assert_eq!((with(".plain"), with(".jsonl"), with(".partial"), files.len()), (4, 1, 0, 7), "{files:?}");
    let b = node();
    exits_with(0, &["import", text(b.data()), text(&export), "--settings", "all"]);
    assert_same_stream(&a, &b);

    // A lost or truncated file is exported again.
    let lost = files.iter().filter(|file| text(file).ends_with(".plain")).collect::<Vec<_>>();
    fs::remove_file(lost[0]).unwrap();
    fs::write(lost[1], "cut short").unwrap();
    exits_with(3, &["verify", text(&export)]);
    assert_eq!(run()["unchanged"], 2);
    exits_with(0, &["verify", text(&export)]);

    // A directory holds one export and nothing else.
    let refused = |data: &Path, to: &Path, more: &[&str], part: &str| {
        let (_, stderr) = exits_with(1, &[&["export", text(data), text(to)], more].concat());
        assert!(stderr.contains(part), "{stderr}");
    };
    refused(a.data(), &export, &["--bucket", "bucket"], "another --bucket or --prefix");
    refused(b.data(), &export, &[], "another store");
    refused(a.data(), directory.path(), &[], "not from an export");
    refused(a.data(), &directory.path().join("c"), &["--bucket", "absent"], "no bucket absent");
    exits_with(0, &["verify", text(&export)]);
}

/// Settings of an existing bucket stay, and no setting opens a bucket or deletes objects without
/// consent.
#[test]
fn import_changes_no_settings_without_consent() {
    let a = node();
    let b = node();
    let c = stopped_node();
    a.make_bucket("open");
    a.send(&Request::new("PUT", "/open/o").body("x")).expect(200);
    let set = |node: &Node, more: &[&str]| {
        exits_with(0, &[&["bucket", "set", text(node.data()), "open"][..], more].concat());
    };
    set(&a, &["--anonymous-read", "allow", "--expire-days", "1", "--quota", "1GiB", "--sse-c", "allow"]);
    let directory = tempfile::tempdir().unwrap();
    let export = directory.path().join("export");
    exits_with(0, &["export", text(a.data()), text(&export)]);
    let settings = |node: &Node| json(&["bucket", "get", text(node.data()), "open", "--json"]);
    let figures = |value: &Value| ["anonymous_read", "expire_days", "quota", "sse_c"].map(|name| value[name].clone());

    // A bucket that exists, with default settings.
    b.make_bucket("open");
    let before = settings(&b);
    let (_, stderr) = exits_with(1, &["import", text(b.data()), text(&export)]);
    assert!(stderr.contains("anonymous reads") && stderr.contains("--settings all"), "{stderr}");
    assert_eq!(figures(&settings(&b)), figures(&before));
    let (_, stderr) = exits_with(1, &["import", text(b.data()), text(&export), "--settings", "all"]);
    assert!(stderr.contains("bucket open has different settings"), "{stderr}");
    exits_with(0, &["import", text(b.data()), text(&export), "--settings", "all", "--existing", "skip"]);
    exits_with(0, &["import", text(b.data()), text(&export), "--settings", "safe", "--existing", "replace"]);
    assert_eq!(figures(&settings(&b)), figures(&before));
    assert_eq!(Request::new("GET", "/open/o").send_unsigned(b.address()).status, 403);
    b.send(&Request::new("GET", "/open/o")).expect(200);
    exits_with(0, &["import", text(b.data()), text(&export), "--settings", "all", "--existing", "replace"]);
    assert_eq!(figures(&settings(&b)), figures(&settings(&a)));

    // A bucket that the import makes, without a node.
    exits_with(1, &["import", text(c.data()), text(&export)]);
    let made = settings(&c);
    assert_eq!(figures(&made), figures(&before));
    exits_with(0, &["import", text(c.data()), text(&export), "--settings", "safe"]);
    // It is another's by now, but for its creation time.
    let (_, stderr) = exits_with(1, &["import", text(c.data()), text(&export), "--settings", "all"]);
    assert!(stderr.contains("different settings"), "{stderr}");
}

/// Below the directory of an export, links are not followed, and nothing waits for a FIFO.
#[test]
fn links_and_fifos_in_an_export_are_refused() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let a = node();
    let b = node();
    a.make_bucket("bucket");
    for key in ["one", "two", "three"] {
        a.send(&Request::new("PUT", &format!("/bucket/{key}")).body(key)).expect(200);
    }
    let directory = tempfile::tempdir().unwrap();
    let export = directory.path().join("export");
    exits_with(0, &["export", text(a.data()), text(&export)]);
    let outside = directory.path().join("outside");
    let make_fifo = |path: &Path| mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let mut replaced = 0;
    for (file, content) in files_below(&export.join("objects")) {
        match &content[..] {
            b"one" => {
                // The same bytes behind a link are not those of the export.
                fs::rename(&file, &outside).unwrap();
                std::os::unix::fs::symlink(&outside, &file).unwrap();
            }
            b"two" => {
                fs::remove_file(&file).unwrap();
                make_fifo(&file);
            }
            _ => continue,
        }
        replaced += 1;
    }
    assert_eq!(replaced, 2);
    for command in [&["verify", text(&export)][..], &["import", text(b.data()), text(&export)]] {
        let (_, stderr) = exits_with(3, command);
        for part in ["bucket/one: ", "symbolic link", "bucket/two: ", "FIFO"] {
            assert!(stderr.contains(part), "{part} in {stderr}");
        }
    }
    b.send(&Request::new("GET", "/bucket/three")).expect(200);
    b.send(&Request::new("GET", "/bucket/one")).expect(404);

    // A directory of objects, and one of the manifest, elsewhere.
    for name in ["objects", "manifest"] {
        let moved = directory.path().join(name);
        fs::rename(export.join(name), &moved).unwrap();
        std::os::unix::fs::symlink(&moved, export.join(name)).unwrap();
        let before = files_below(&moved).len();
        for (code, command) in [
            (Some(if name == "objects" { 3 } else { 1 }), &["verify", text(&export)][..]),
            (Some(1), &["export", text(a.data()), text(&export)]),
        ] {
            let output = keyhole_tests::command::run(command, b"");
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), code, "{command:?}: {stderr}");
            assert!(stderr.contains("symbolic link"), "{command:?}: {stderr}");
        }
        assert_eq!(files_below(&moved).len(), before, "nothing is written behind a link");
        fs::remove_file(export.join(name)).unwrap();
        fs::rename(&moved, export.join(name)).unwrap();
    }

    // The whole export, or the store, is a FIFO.
    let fifo = directory.path().join("fifo");
    make_fifo(&fifo);
    exits_with(2, &["verify", text(&fifo)]);
    exits_with(2, &["import", text(b.data()), text(&fifo)]);
    for command in [&["check", text(&fifo)][..], &["export", text(&fifo), text(&directory.path().join("to"))]] {
        exits_with(1, command);
    }
}

#[test]
fn filtered_export_and_import_copy_one_prefix() {
    let a = node();
    let b = node();
    let c = node();
    let filled = fill(&a);
    let directory = tempfile::tempdir().unwrap();
    let export = directory.path().join("export");
    exits_with(0, &["export", text(a.data()), text(&export), "--bucket", "second", "--prefix", "parts/"]);
    exits_with(0, &["import", text(b.data()), text(&export), "--settings", "all"]);
    let whole = stream(a.data(), &[]);
    let (code, _, stderr) = import_stream(c.data(), &whole, &["--bucket", "second", "--prefix", "parts/"]);
    assert_eq!(code, Some(0), "{stderr}");
    for node in [&b, &c] {
        let buckets = node.send(&Request::new("GET", "/")).expect(200).text();
        assert!(buckets.contains("second") && !buckets.contains("first"), "{buckets}");
        for object in filled.objects.iter().filter(|object| object.bucket == "second") {
            let reply = node.send(&object.request("GET"));
            let is_in = object.key.starts_with("parts/");
            assert_eq!(reply.status, if is_in { 200 } else { 404 }, "{}", object.key);
            assert!(!is_in || reply.body == object.body, "{}", object.key);
        }
    }
    assert_same_stream(&b, &c);
}

/// Damages files of an export: the damage is reported by name, and damaged data are not stored.
#[test]
fn damaged_export_is_reported_by_name() {
    let a = node();
    let filled = fill(&a);
    let directory = tempfile::tempdir().unwrap();
    let export = directory.path().join("export");
    exits_with(0, &["export", text(a.data()), text(&export)]);
    let manifest = fs::read_to_string(export.join("manifest/00000001.jsonl")).unwrap();
    for kind in ["parts/sealed-full", "parts/plain", "sealed/3000000", "plain/1", "by a client"] {
        let line = manifest.lines().find(|line| line.contains(&format!("{kind}\""))).unwrap();
        let entry: Value = serde_json::from_str(line).unwrap();
        let file = export.join(entry["file"].as_str().unwrap());
        let whole = fs::read(&file).unwrap();
        let name = format!("{}/{kind}", entry["bucket"].as_str().unwrap());
        let mut flipped = whole.clone();
        let middle = whole.len() / 2;
        flipped[middle] ^= 4;
        let b = node();
        let cases = [
            ("has another SHA-256", flipped),
            ("truncated", whole[..middle].to_vec()),
            ("too long", [&whole[..], b"x"].concat()),
        ];
        for (what, content) in cases {
            fs::write(&file, content).unwrap();
            let (_, stderr) = exits_with(3, &["verify", text(&export)]);
            assert!(stderr.contains(&format!("damaged: {name}: ")) && stderr.contains(what), "{stderr}");
            let (_, stderr) = exits_with(3, &["import", text(b.data()), text(&export), "--json", "--settings", "all"]);
            assert!(stderr.contains(&format!("damaged: {name}: ")) && stderr.contains(what), "{stderr}");
            assert_eq!(stderr.matches("keyhole: damaged: ").count(), 1, "{stderr}");
            b.send(&Request::new("HEAD", &format!("/{name}"))).expect(404);
        }
        fs::remove_file(&file).unwrap();
        let (_, stderr) = exits_with(3, &["import", text(b.data()), text(&export), "--settings", "all"]);
        assert!(stderr.contains(&format!("damaged: {name}: ")), "{stderr}");
        // The repaired object is imported; the others were before.
        fs::write(&file, &whole).unwrap();
        let figures = json(&["import", text(b.data()), text(&export), "--json", "--settings", "all"]);
        assert_eq!(
            (&figures["stored"], &figures["equal"]),
            (&1.into(), &(filled.objects.len() - 1).into()),
            "{figures}"
        );
        assert_same_stream(&a, &b);
        let uploads = b.send(&Request::new("GET", "/second").query("uploads", "")).expect(200).text();
        assert!(!uploads.contains("<Upload>"), "{uploads}");
    }
    // Damage a line of the manifest.
    fs::write(export.join("manifest/00000001.jsonl"), manifest.replacen("parts/unbound", "parts/unbounD", 1)).unwrap();
    let b = node();
    let (_, stderr) = exits_with(3, &["import", text(b.data()), text(&export), "--settings", "all"]);
    assert!(stderr.contains("manifest/00000001.jsonl: line"), "{stderr}");
    b.send(&Request::new("HEAD", "/second/parts/unbounD")).expect(404);
}

#[test]
fn import_of_damaged_stream_stores_no_wrong_data() {
    let a = node();
    a.make_bucket("bucket");
    for (key, len) in [("long", 2_000_000), ("short", 1000), ("long too", 300_000)] {
        a.send(&Request::new("PUT", &format!("/bucket/{key}")).body(bytes(len as u64, len))).expect(200);
    }
    let whole = stream(a.data(), &[]);
    let seed = fresh_seed();
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let b = node();
    let mut at_least_one_survived = false;
    for round in 0..60 {
        let mut damaged = whole.clone();
        match round % 3 {
            0 => damaged.truncate(random.usize(..whole.len())),
            1 => {
                let at = random.usize(..whole.len());
                damaged[at] ^= 1 << random.u8(..8);
            }
            _ => {
                let at = random.usize(..whole.len() / 512) * 512;
                damaged.drain(at..(at + 512).min(whole.len()));
            }
        }
        let (code, _, stderr) = import_stream(b.data(), &damaged, &[]);
        // Padding and bytes after the end have no meaning.
        assert!(matches!(code, Some(0 | 3)), "seed {seed}, round {round}: {code:?} {stderr}");
        for (key, len) in [("long", 2_000_000), ("short", 1000), ("long too", 300_000)] {
            let got = b.send(&Request::new("GET", &format!("/bucket/{key}")));
            assert!(got.status == 404 || got.body == bytes(len as u64, len), "seed {seed}, round {round}: {key}");
            at_least_one_survived |= got.status == 200;
            if got.status == 200 {
                b.send(&Request::new("DELETE", &format!("/bucket/{key}"))).expect(204);
            }
        }
    }
    assert!(at_least_one_survived);
    for invalid in [&b""[..], b"no stream", &[0; 1024]] {
        let (code, _, stderr) = import_stream(b.data(), invalid, &[]);
        assert_eq!(code, Some(3), "{stderr}");
    }
    // Failed imports leave the bucket in place.
    assert!(b.send(&Request::new("HEAD", "/bucket")).status == 200);
}

pub(crate) fn spawn(arguments: &[&str]) -> Child {
    let mut command = Command::new(binary());
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Kills a command after some time, and returns whether it had already ended.
pub(crate) fn kill_after(mut child: Child, ms: u64) -> bool {
    let deadline = Instant::now() + Duration::from_millis(ms);
    while Instant::now() < deadline {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    false
}

/// Kills exports and imports at random moments, with and without a node: progress is kept, and the
/// result is complete.
#[test]
fn killed_export_and_import_resume() {
    let seed = fresh_seed();
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut a = node();
    let filled = fill(&a);
    let before = verify_and_observe(&a, &filled);
    for running in [true, false] {
        if !running {
            assert!(a.stop().success());
        }
        let directory = tempfile::tempdir().unwrap();
        let export = directory.path().join("export");
        // Slow enough to be killed midway.
        let arguments = ["export", text(a.data()), text(&export), "--rate", "60MB/s"];
        let mut kills = 0;
        let mut kept = 0;
        // Increasing times, to make progress on any machine.
        while !kill_after(spawn(&arguments), random.u64(50..500 + 200 * kills)) {
            kills += 1;
            assert!(kills < 50, "seed {seed}: no progress");
            if export.join("manifest").exists() {
                let figures = keyhole_tests::command::run(&["verify", text(&export), "--json"], b"");
                // With its manifest it is complete: only the end of the process is missing.
                let is_complete = export.join("manifest/00000001.jsonl").exists();
                let code = if is_complete { 0 } else { 3 };
                assert_eq!(figures.status.code(), Some(code), "seed {seed}: an incomplete export is reported");
                let stderr = String::from_utf8_lossy(&figures.stderr).into_owned();
                assert!(!stderr.contains("damaged:"), "seed {seed}: a partial export is damaged: {stderr}");
                if let Ok(figures) = serde_json::from_slice::<Value>(&figures.stdout) {
                    let objects = figures["objects"].as_u64().unwrap();
                    assert!(objects >= kept, "seed {seed}: {objects} after {kept}");
                    kept = objects;
                }
            }
        }
        println!("{kills} exports were killed");
        exits_with(0, &["export", text(a.data()), text(&export)]);
        exits_with(0, &["verify", text(&export)]);
        let names = files_below(&export).len();
        assert_eq!(names, filled.objects.len() + 2, "temporary files are removed");

        let mut b = if running { node() } else { stopped_node() };
        let data = b.data().to_owned();
        let arguments = ["import", text(&data), text(&export), "--rate", "60MB/s", "--settings", "all"];
        let mut kills = 0;
        while !kill_after(spawn(&arguments), random.u64(50..500 + 200 * kills)) {
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
            let output = keyhole_tests::command::run(
                &["import", text(b.data()), text(&export), "--json", "--settings", "all"],
                b"",
            );
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
        assert_same(&before, &verify_and_observe(&b, &filled));
        let uploads = b.send(&Request::new("GET", "/second").query("uploads", "")).expect(200).text();
        assert!(!uploads.contains("<Upload>"), "{uploads}");
    }
}

/// A damaged object is left out and reported by name; the others are exported, in either form.
#[test]
fn damaged_object_is_left_out_of_export() {
    let mut a = node();
    a.make_bucket("care");
    let hurt = bytes(fresh_seed(), 3 << 20);
    for (key, body) in [("1", bytes(1, 2 << 20)), ("2-hurt", hurt.clone()), ("3", bytes(3, 100))] {
        a.send(&Request::new("PUT", &format!("/care/{key}")).body(body)).expect(200);
    }
    assert!(a.stop().success());
    crate::operate::damage(&a.data().join("objects.keyhole"), &hurt);
    let directory = tempfile::tempdir().unwrap();
    let export = directory.path().join("export");
    let (stdout, stderr) = exits_with(4, &["export", text(a.data()), text(&export)]);
    assert!(
        stderr.contains("left out: care/2-hurt: damaged") && stdout.contains("1 damaged and left out"),
        "{stdout}{stderr}"
    );
    let output = Command::new(binary()).args(["export", text(a.data()), "-"]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    let b = node();
    let c = node();
    let (_, stderr) = exits_with(3, &["import", text(b.data()), text(&export), "--settings", "all"]);
    assert!(stderr.contains("lacks 1 object"), "{stderr}");
    let (code, _, stderr) = import_stream(c.data(), &output.stdout, &[]);
    assert!(code == Some(3) && stderr.contains("care/2-hurt: could not be exported"), "{stderr}");
    for node in [&b, &c] {
        for (key, status) in [("1", 200), ("2-hurt", 404), ("3", 200)] {
            assert_eq!(node.send(&Request::new("HEAD", &format!("/care/{key}"))).status, status, "{key}");
        }
    }
    exits_with(3, &["verify", text(&export)]);
}

/// During transfers a node serves its clients, uses little memory, and limits their number.
#[test]
fn concurrent_transfers_are_limited() {
    let a = node();
    let b = node();
    a.make_bucket("bucket");
    let body = bytes(1, 40 << 20);
    for key in ["1", "2"] {
        a.send(&Request::new("PUT", &format!("/bucket/{key}")).body(body.clone())).expect(200);
    }
    let peak_a = a.peak_resident_kib();
    let peak_b = b.peak_resident_kib();
    // Two transfers without a reader: the node waits for them without blocking others.
    let stuck: Vec<Child> = (0..2)
        .map(|_| {
            let mut export = Command::new(binary());
            let mut child = export.args(["export", text(a.data()), "-"]).stdout(Stdio::piped()).spawn().unwrap();
            child.stdout.as_mut().unwrap().read_exact(&mut [0; 512]).unwrap();
            child
        })
        .collect();
    let (_, refused) = exits_with(1, &["export", text(a.data()), "-"]);
    assert!(refused.contains("try again later"), "{refused}");
    let begun = Instant::now();
    for _ in 0..50 {
        a.send(&Request::new("HEAD", "/bucket/1")).expect(200);
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    for mut child in stuck {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    let exported = loop {
        let output = Command::new(binary()).args(["export", text(a.data()), "-"]).output().unwrap();
        if output.status.success() {
            break output.stdout;
        }
        assert!(Instant::now() < deadline, "the slots are not freed in time");
        std::thread::sleep(Duration::from_millis(50));
    };
    let (code, _, stderr) = import_stream(b.data(), &exported, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    for (node, before) in [(&a, peak_a), (&b, peak_b)] {
        let grown = node.peak_resident_kib() - before;
        assert!(grown < 24 << 10, "{grown} KiB more for objects of 40 MiB");
    }
}

/// Input on the socket is validated like that of any client.
#[test]
fn invalid_import_frames_are_refused() {
    use std::os::unix::net::UnixStream;
    let a = node();
    let socket = a.data().join("control.sock");
    let frame = |message: &str| [&[1u8][..], &(message.len() as u32).to_be_bytes(), message.as_bytes()].concat();
    let ready = |line: &str| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        let mut reply = [0; 18];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"{\"reply\":\"ready\"}\n");
        stream
    };
    let bucket = r#"{"offers":"bucket","bucket":{"bucket":"../up","created_ms":1},"is_last":false,"existing":"fail"}"#;
    let object = |what: &str, value: &str| {
        let mut entry: Value = serde_json::from_str(
            r#"{"bucket":"bucket","key":"k","file":"","length":1,"sealed":false,"size":1,"modified_ms":1,
                "etag":"00000000000000000000000000000000","plain":{}}"#,
        )
        .unwrap();
        entry["file"] = format!("objects/00/{}.plain", "0".repeat(64)).into();
        entry[what] = serde_json::from_str(value).unwrap();
        format!(r#"{{"offers":"object","entry":{entry},"number":1,"existing":"fail"}}"#)
    };
    a.make_bucket("bucket");
    let marker = |bucket: &str, key: &str, time: &str| {
        let entry = format!(r#""bucket":"{bucket}","key":"{key}","version":"null","modified_ms":{time}"#);
        format!(r#"{{"offers":"marker","entry":{{{entry}}},"number":1,"existing":"fail"}}"#)
    };
    let refused = [
        bucket.to_owned(),
        bucket.replace("\"created_ms\"", "\"object_lock\":{},\"created_ms\"").replace("../up", "bucket2"),
        object("lock", "{\"hold\":true}"),
        marker("..", "k", "1"),
        marker("bucket", "", "1"),
        marker("bucket", "k", "253402300800000"),
        marker("missing", "k", "1"),
        object("key", "\"\""),
        object("bucket", "\"../x\""),
        object("size", "2"),
        object("etag", "\"x\""),
        object("bound", "true"),
        object("sealed", "true"),
        object("tags", "[[\"\",\"\"]]"),
        object("plain", "{\"headers\":{\"x-evil\":\"1\"}}"),
        object("plain", "{\"metadata\":{\"a\":\"b\\r\\nc: d\"}}"),
    ];
    let mut stream = ready("{\"request\":\"import\"}\n");
    for offer in &refused {
        stream.write_all(&frame(offer)).unwrap();
        let mut head = [0; 5];
        stream.read_exact(&mut head).unwrap();
        let mut reply = vec![0; u32::from_be_bytes(head[1..].try_into().unwrap()) as usize];
        stream.read_exact(&mut reply).unwrap();
        let reply = String::from_utf8(reply).unwrap();
        assert!(reply.contains("refused"), "{offer}: {reply}");
    }
    // An invalid or unexpected frame ends the connection.
    let ends_it = [&b"\xff\xff\xff\xff\xff"[..], &frame("{}"), &[2, 0, 0, 0, 1, 0], &[1, 0xff, 0, 0, 0]];
    for bytes in ends_it {
        let mut stream = ready("{\"request\":\"import\"}\n");
        stream.write_all(bytes).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{rest:?}");
    }
    a.send(&Request::new("HEAD", "/bucket/k")).expect(404);
}

#[test]
fn transfer_commands_with_wrong_arguments_fail() {
    let a = node();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "a diary").unwrap();
    exits_with(2, &["export", text(a.data())]);
    exits_with(2, &["import", text(a.data())]);
    exits_with(2, &["import", text(a.data()), text(&file)]);
    exits_with(2, &["import", text(a.data()), text(directory.path()), "--existing", "maybe"]);
    let (_, stderr) = exits_with(1, &["import", text(a.data()), text(&directory.path().join("absent"))]);
    assert!(stderr.contains("cannot read"), "{stderr}");
    let (_, stderr) = exits_with(3, &["import", text(a.data()), text(directory.path())]);
    assert!(stderr.contains("no export"), "{stderr}");
    let (_, stderr) =
        exits_with(1, &["export", text(&directory.path().join("nowhere")), text(&directory.path().join("to"))]);
    assert!(stderr.contains("no store in"), "{stderr}");
    assert_eq!(fs::read(&file).unwrap(), b"a diary");
}
