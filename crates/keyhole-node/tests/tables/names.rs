//! No name of S3's published model is ignored in silence: on each operation of the node, a header,
//! a query parameter, a form field or an XML element either has its effect, or is refused before
//! anything changes, or is listed in the page `S3.md` with the reason why it has none.

mod model;
mod requests;

use std::collections::BTreeSet;

use keyhole_tests::Request;
use keyhole_tests::data::{base64, md5};
use keyhole_tests::http::object;

use self::model::{Row, all_names, names, rows};
use self::requests::{Outcome, World, operations};
use crate::support::{MemoryNode, NOW_MS, State, address};

/// Names that S3 does not know, and their treatment: parameters are ignored, all others refused.
const UNKNOWN: [&str; 2] = ["x-amz-unheard-of", "x-amz-checksum-sha256x"];

/// Returns values of a header that S3 accepts and that ask for something.
fn header_values(name: &str) -> Vec<String> {
    let text = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
    let other_key = [7; 32];
    match name {
        "content-md5" => vec![base64(&md5(b"another body"))],
        "content-length" => text(&["3"]),
        "if-match" | "x-amz-copy-source-if-match" => text(&["\"0123456789abcdef0123456789abcdef\""]),
        "if-none-match" => text(&["*", "\"0123456789abcdef0123456789abcdef\""]),
        "x-amz-copy-source-if-none-match" => text(&["*"]),
        name if name.ends_with("if-modified-since") => text(&["Tue, 01 Jan 2030 00:00:00 GMT"]),
        name if name.ends_with("if-unmodified-since") => text(&["Tue, 01 Jan 2019 00:00:00 GMT"]),
        "range" => text(&["bytes=1-2"]),
        "expires" | "x-amz-object-lock-retain-until-date" => text(&["Tue, 01 Jan 2030 00:00:00 GMT"]),
        "x-amz-acl" => text(&["public-read"]),
        "x-amz-storage-class" => text(&["GLACIER"]),
        "x-amz-expected-bucket-owner" | "x-amz-source-expected-bucket-owner" => text(&["111122223333"]),
        "x-amz-server-side-encryption-customer-algorithm" => text(&["AES256"]),
        "x-amz-copy-source-server-side-encryption-customer-algorithm" => text(&["AES256"]),
        name if name.ends_with("customer-key") => vec![base64(&other_key)],
        name if name.ends_with("customer-key-md5") => vec![base64(&md5(&other_key))],
        "x-amz-server-side-encryption" => text(&["AES256", "aws:kms"]),
        "x-amz-tagging" => text(&["t=1"]),
        "x-amz-metadata-directive" | "x-amz-tagging-directive" => text(&["REPLACE"]),
        "x-amz-copy-source" => text(&["bucket/absent"]),
        "x-amz-copy-source-range" => text(&["bytes=0-0"]),
        "x-amz-checksum-mode" => text(&["ENABLED"]),
        "x-amz-checksum-algorithm" | "x-amz-sdk-checksum-algorithm" => text(&["SHA256"]),
        "x-amz-checksum-type" => text(&["COMPOSITE"]),
        "x-amz-checksum-crc64nvme" | "x-amz-checksum-xxhash64" | "x-amz-checksum-xxhash3" => vec![base64(&[1; 8])],
        "x-amz-checksum-crc32" | "x-amz-checksum-crc32c" => vec![base64(&[1; 4])],
        "x-amz-checksum-sha1" => vec![base64(&[1; 20])],
        "x-amz-checksum-sha256" => vec![base64(&[1; 32])],
        "x-amz-checksum-sha512" => vec![base64(&[1; 64])],
        "x-amz-checksum-md5" | "x-amz-checksum-xxhash128" => vec![base64(&[1; 16])],
        "x-amz-mp-object-size" | "x-amz-if-match-size" => text(&["999"]),
        "x-amz-if-match-last-modified-time" | "x-amz-if-match-initiated-time" => {
            text(&["Tue, 01 Jan 2019 00:00:00 GMT"])
        }
        "x-amz-object-attributes" => text(&["ObjectSize"]),
        "x-amz-max-parts" => text(&["0"]),
        "x-amz-object-ownership" => text(&["ObjectWriter"]),
        "x-amz-optional-object-attributes" => text(&["Other"]),
        "x-amz-request-payer" => text(&["other"]),
        "x-amz-transition-default-minimum-object-size" => text(&["other"]),
        "x-amz-bucket-object-lock-enabled" | "x-amz-bypass-governance-retention" => text(&["true"]),
        "content-encoding" => text(&["gzip"]),
        // A family of names.
        "x-amz-meta-" => text(&["metadata"]),
        _ => text(&["1"]),
    }
}

fn parameter_values(name: &str) -> Vec<String> {
    let values: &[&str] = match name {
        "delimiter" => &["/"],
        "encoding-type" => &["url"],
        "fetch-owner" => &["true"],
        "list-type" => &["2"],
        "max-keys" | "max-parts" | "max-uploads" | "max-buckets" => &["0"],
        "partNumber" | "part-number-marker" => &["1", "2"],
        "uploadId" | "upload-id-marker" => &["00112233445566778899aabbccddeeff"],
        "versionId" => &["3"],
        "continuation-token" => &["7a7a"],
        name if name.starts_with("response-") => &["text/x"],
        _ => &["zz"],
    };
    values.iter().map(|value| (*value).to_owned()).collect()
}

/// Tries names on an operation.
struct Prober<'n> {
    node: &'n MemoryNode,
    operation: &'static str,
    world: World<'n>,
    state: State,
    baseline: Outcome,
    worlds: usize,
}

impl<'n> Prober<'n> {
    fn new(node: &'n MemoryNode, operation: &'static str) -> Self {
        let first = World::new(node, 0, operation);
        let (baseline, _) = first.exchange(&Self::plain(node, &first, operation));
        assert!(baseline.status < 300, "{operation}: {baseline:?}");
        let world = World::new(node, 1, operation);
        let state = world.state();
        Prober { node, operation, world, state, baseline, worlds: 2 }
    }

    /// Returns the signed request without any further name.
    fn plain(node: &MemoryNode, world: &World<'_>, operation: &str) -> Request {
        match operation {
            "PostObject" => world.form_request(world.form()),
            operation => node.signed(&node.signer(), &world.request(operation)),
        }
    }

    /// Sends a changed request. Returns its outcome; one that is refused must have changed nothing.
    #[track_caller]
    fn probe(&mut self, what: &str, change: impl FnOnce(&World<'_>, &MemoryNode) -> Request) -> Outcome {
        let (outcome, state) = self.world.exchange(&change(&self.world, self.node));
        if state == self.state {
            return outcome;
        }
        assert!(outcome.status < 400, "{} {what}: refused, and changed: {outcome:?}", self.operation);
        self.world = World::new(self.node, self.worlds, self.operation);
        self.worlds += 1;
        self.state = self.world.state();
        outcome
    }

    fn with_header(&mut self, name: &str, value: &str) -> Outcome {
        let operation = self.operation;
        let name = if name.ends_with('-') { format!("{name}name") } else { name.to_owned() };
        self.probe(&format!("{name}: {value}"), |world, node| match operation {
            "PostObject" => world.form_request(world.form().field(&name, value)),
            _ => node.signed(&node.signer(), &world.request(operation).header(name.clone(), value)),
        })
    }

    fn with_parameter(&mut self, name: &str, value: &str) -> Outcome {
        let operation = self.operation;
        self.probe(&format!("?{name}={value}"), |world, node| {
            node.signed(&node.signer(), &world.request(operation).query(name, value))
        })
    }

    fn with_element(&mut self, path: &str) -> Outcome {
        let operation = self.operation;
        self.probe(path, |world, node| {
            let document = insert(&world.document(operation).expect("a document"), path);
            node.signed(&node.signer(), &world.request_with(operation, Some(document)))
        })
    }
}

/// Adds an element to a document, within those of its path that are there.
fn insert(document: &str, path: &str) -> String {
    let names: Vec<&str> = path.split('/').collect();
    let known = names[..names.len() - 1].iter().take_while(|name| document.contains(&format!("</{name}>"))).count();
    let end = format!("</{}>", names[known - 1]);
    let value = if path.ends_with("/Quiet") { "true" } else { "1" };
    let inner = names[known..].iter().rev().fold(value.to_owned(), |inner, name| format!("<{name}>{inner}</{name}>"));
    document.replacen(&end, &format!("{inner}{end}"), 1)
}

/// The names that were seen without effect on an operation.
#[derive(Default)]
struct Silent(BTreeSet<(&'static str, String, &'static str)>);

impl Silent {
    fn add(&mut self, kind: &'static str, name: &str, operation: &'static str) {
        self.0.insert((kind, name.to_owned(), operation));
    }

    /// Checks that the page has a row for each name without effect, and that each row of these
    /// kinds is true.
    fn check(&self, kinds: &[&str]) {
        let rows = rows();
        let of_kinds = || self.0.iter().filter(|(kind, ..)| kinds.contains(kind));
        let is_listed =
            |kind: &str, name: &str, operation: &str| rows.iter().any(|row| row.covers(kind, name, operation));
        let missing: Vec<_> = of_kinds().filter(|(kind, name, operation)| !is_listed(kind, name, operation)).collect();
        assert!(missing.is_empty(), "ignored, and not in the page: {missing:#?}");
        let is_true = |row: &&Row| of_kinds().any(|(kind, name, operation)| row.covers(kind, name, operation));
        let stale: Vec<_> =
            rows.iter().filter(|row| kinds.contains(&row.kind) && row.values.is_empty() && !is_true(row)).collect();
        assert!(stale.is_empty(), "in the page, and not ignored: {stale:#?}");
    }
}

fn headers() -> BTreeSet<&'static str> {
    let all = all_names("header");
    let sent_by_clients =
        ["content-range", "x-amz-cf-id", "x-amz-id-2", "x-amz-request-id", "x-amz-security-token", "x-amz-user-agent"];
    all.into_iter().chain(UNKNOWN).chain(sent_by_clients).collect()
}

#[test]
fn no_header_of_the_model_is_ignored_in_silence() {
    let mut silent = Silent::default();
    for operation in operations() {
        let node = MemoryNode::new();
        let mut prober = Prober::new(&node, operation);
        for name in headers() {
            let given = prober.world.request(operation).has_header(name);
            if given || name == "content-length" {
                continue;
            }
            let values = header_values(name);
            if values.iter().all(|value| prober.with_header(name, value) == prober.baseline) {
                silent.add("header", name, operation);
            }
        }
    }
    silent.check(&["header"]);
}

#[test]
fn no_field_of_a_form_is_ignored_in_silence() {
    let node = MemoryNode::new();
    let mut prober = Prober::new(&node, "PostObject");
    let mut silent = Silent::default();
    let fields = ["acl", "submit", "x-ignore-", "success_action_status", "redirect", "tagging", "content-range"];
    for name in all_names("header").into_iter().chain(UNKNOWN).chain(fields) {
        let values = match name {
            "acl" => vec!["public-read".to_owned()],
            "success_action_status" => vec!["201".to_owned()],
            "redirect" => vec!["http://127.0.0.1/".to_owned()],
            name => header_values(name),
        };
        if values.iter().all(|value| prober.with_header(name, value) == prober.baseline) {
            silent.add("field", name, "PostObject");
        }
    }
    silent.check(&["field"]);
}

#[test]
fn form_has_its_headers_in_fields() {
    let node = MemoryNode::new();
    let mut prober = Prober::new(&node, "PostObject");
    let rows = rows();
    let is_telemetry = |name: &str| rows.iter().any(|row| row.place == "everywhere" && row.covers("header", name, ""));
    for name in headers().into_iter().filter(|name| name.starts_with("x-amz-") || name.starts_with("if-")) {
        let value = &header_values(name)[0];
        let outcome = prober.probe(name, |world, _| world.form_request(world.form()).header(name, value.clone()));
        if is_telemetry(name) {
            assert_eq!(outcome, prober.baseline, "{name}");
            continue;
        }
        assert_eq!(outcome.status, 400, "{name}: {outcome:?}");
        let outcome = prober.probe(name, |world, _| world.form_request(world.form()).query(name, value));
        let is_ignored = outcome == prober.baseline && !name.starts_with("x-amz-");
        assert!(outcome.status == 400 || is_ignored, "?{name}: {outcome:?}");
    }
}

#[test]
fn no_parameter_of_the_model_is_ignored_in_silence() {
    let mut silent = Silent::default();
    let known: BTreeSet<&str> = all_names("parameter").into_iter().chain(all_names("subresource")).collect();
    for operation in operations() {
        let node = MemoryNode::new();
        let mut prober = Prober::new(&node, operation);
        for name in &known {
            if prober.world.request(operation).has_query(name) {
                continue;
            }
            if parameter_values(name).iter().all(|value| prober.with_parameter(name, value) == prober.baseline) {
                silent.add("parameter", name, operation);
            }
        }
        for name in ["x-user", "metadata", "customer_id", "X-Amz-User-Agent", "Policy"] {
            assert_eq!(prober.with_parameter(name, "1"), prober.baseline, "{operation} ?{name}");
        }
        let unheard_of = prober.with_parameter("x-amz-unheard-of", "1");
        assert_eq!(unheard_of.status, 501, "{operation}: a header in the query");
    }
    silent.check(&["parameter"]);
}

#[test]
fn no_element_of_the_model_is_ignored_in_silence() {
    let mut silent = Silent::default();
    for operation in operations() {
        let node = MemoryNode::new();
        let mut prober = Prober::new(&node, operation);
        let Some(document) = prober.world.document(operation) else { continue };
        let root = document[1..document.find('>').expect("an element")].to_owned();
        let of_model = names(operation, "element").into_iter().filter(|path| path.contains('/'));
        for path in of_model.map(|path| format!("{root}/{}", path.split_once('/').expect("a root").1)) {
            if prober.with_element(&path) == prober.baseline {
                silent.add("element", &path, operation);
            }
        }
        let unknown = prober.with_element(&format!("{root}/Unheard"));
        assert_eq!(unknown.status, 400, "{operation}: {unknown:?}");
    }
    silent.check(&["element"]);
}

#[test]
fn values_without_effect_are_those_of_the_page() {
    for row in rows().into_iter().filter(|row| !row.values.is_empty()) {
        let all = operations().into_iter().chain(["PostObject"]);
        let mut places = all.filter(|operation| {
            row.is_on(row.name, operation) && (*operation == "PostObject") == (row.kind == "field")
        });
        let operation = places.next().expect("an operation");
        let node = MemoryNode::new();
        let mut prober = Prober::new(&node, operation);
        for value in &row.values {
            let outcome = match row.kind {
                "parameter" => prober.with_parameter(row.name, value),
                _ => prober.with_header(row.name, value),
            };
            assert_eq!(outcome, prober.baseline, "{row:?}: {value}");
        }
    }
}

#[test]
fn misspelt_customer_key_is_rejected_on_every_operation() {
    for operation in operations().into_iter().chain(["PostObject"]) {
        let node = MemoryNode::new();
        let mut prober = Prober::new(&node, operation);
        for name in [
            "x-amz-sse-customer-key",
            "x_amz_server_side_encryption_customer_key",
            "x-amz-server-side_encryption-customer-algorithm",
            "amz-server-side-encryption-customer-key",
            "server-side-encryption-customer-algorithm",
            "x-amz-server-side-encryption-customer-keys",
            "x-amz-server-side-encryption-customer-key-sha256",
            "x-amz-sever-side-encryption-customer-key-md5",
        ] {
            let outcome = prober.with_header(name, &base64(&[7; 32]));
            assert_eq!(outcome.status, 400, "{operation} {name}: {outcome:?}");
            if operation != "PostObject" {
                let outcome = prober.with_parameter(name, &base64(&[7; 32]));
                assert_eq!(outcome.status, 400, "{operation} ?{name}: {outcome:?}");
            }
        }
    }
}

#[test]
fn presigned_upload_has_the_standard_headers_of_its_query() {
    let node = MemoryNode::new();
    let presigned = |request: Request| request.dated(NOW_MS as i64).presigned(address(), &node.signer(), 60);
    let put = object("PUT", "o").query("Cache-Control", "no-store").query("x-amz-meta-who", "me");
    let put = put.query("X-Amz-Acl", "private").query("x-amz-storage-class", "STANDARD").query("Content-Type", "a/b");
    node.send_unsigned(&presigned(put.clone()).header("content-type", "a/b").body("x")).expect(200);
    let head = node.send(&object("HEAD", "o")).expect(200);
    for (name, value) in [("cache-control", "no-store"), ("x-amz-meta-who", "me"), ("content-type", "a/b")] {
        assert_eq!(head.header(name), Some(value), "{name}");
    }
    for refused in [
        presigned(put.clone()).header("content-type", "a/c").body("y"),
        presigned(put.clone().query("x-amz-meta-Who", "you")).body("y"),
        presigned(put.clone().query("Content-MD5", &base64(&md5(b"x")))).body("y"),
        presigned(put.query("x-amz-checksum-crc32", "jNwWgw==")).body("y"),
    ] {
        assert_eq!(node.send_unsigned(&refused).status, 400, "{}", refused.target());
    }
    assert_eq!(node.send(&object("GET", "o")).expect(200).text(), "x");
}

#[test]
fn headers_in_a_presigned_query_act_as_headers() {
    // Read from headers alone, or added by an SDK to every URL.
    let is_left_out = |name: &str| {
        name.contains("server-side-encryption-customer")
            || name.starts_with("x-amz-fwd-")
            || !name.starts_with("x-amz-")
            || name == "x-amz-sdk-checksum-algorithm"
    };
    for operation in ["PutObject", "CopyObject", "CreateMultipartUpload", "UploadPart", "GetObject", "DeleteObject"] {
        let node = MemoryNode::new();
        let mut prober = Prober::new(&node, operation);
        for name in headers().into_iter().filter(|name| !is_left_out(name)) {
            let name = if name.ends_with('-') { format!("{name}name") } else { name.to_owned() };
            for value in header_values(&name) {
                if prober.world.request(operation).has_header(&name) {
                    continue;
                }
                let presigned = |world: &World<'_>, node: &MemoryNode, in_query: bool| {
                    let request = world.request(operation).dated(NOW_MS as i64);
                    let request = if in_query {
                        request.query(&name, &value)
                    } else {
                        request.header(name.clone(), value.clone())
                    };
                    request.presigned(address(), &node.signer(), 60)
                };
                let as_header = prober.probe(&name, |world, node| presigned(world, node, false));
                let as_parameter = prober.probe(&name, |world, node| presigned(world, node, true));
                assert_eq!(as_parameter, as_header, "{operation} {name}: {value}");
            }
        }
    }
}
