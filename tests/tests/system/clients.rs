//! Real clients with their own flows (`tests/tools/clients/`): the results are the tables in
//! CLIENTS.md.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use keyhole_tests::device::skipped;
use keyhole_tests::{Certificate, Node, Request, aws, target_dir, top};

/// Features that each client's flows report exactly once, and their names in the table.
const FEATURES: [(&str, &str); 15] = [
    ("buckets", "make, list, delete buckets"),
    ("objects", "put, get, head, delete objects"),
    ("multipart upload", "upload in parts"),
    ("SSE-C objects", "with a customer key: put, get, head"),
    ("SSE-C multipart upload", "with a customer key: upload in parts"),
    ("wrong SSE-C key", "a wrong customer key is refused"),
    ("range", "ranges"),
    ("copy", "copy within the node"),
    ("copy with another SSE-C key", "copy to another customer key"),
    ("list in pages", "list by prefix, in pages"),
    ("delete many", "delete more than 1,000"),
    ("presigned URL", "presigned URLs"),
    ("tags", "tags of objects"),
    ("checksums", "checksums (`x-amz-checksum-*`)"),
    ("sync", "synchronise a directory"),
];

/// Features of versions and object lock, like [`FEATURES`].
const VERSION_FEATURES: [(&str, &str); 8] = [
    ("versions", "enable versioning, list and read versions"),
    ("SSE-C versions", "versions with a customer key each"),
    ("delete markers", "remove delete markers"),
    ("deletion of a version", "delete versions"),
    ("retention", "retention"),
    ("legal hold", "legal holds"),
    ("default retention", "default retention of a bucket"),
    ("backups", "backups that survive an attacker"),
];

/// More objects than fit in a page of a listing or in a deletion request.
const MANY_COUNT: usize = 1_050;

/// The client that needs FUSE.
const S3FS: &str = "s3fs";

/// The line before the table of [`FEATURES`] in CLIENTS.md.
const RESULTS: &str = "<!-- results of tests/tests/system/clients.rs -->\n\n";

/// The line before the table of [`VERSION_FEATURES`].
const VERSION_RESULTS: &str = "<!-- results of tests/tests/system/clients.rs, versions -->\n\n";

/// The line after a table.
const END: &str = "<!-- end -->\n";

/// The result of each feature: a cell of the table.
type FeatureResults = BTreeMap<String, String>;

/// A client and the command that runs its flows.
struct ClientProgram {
    name: &'static str,
    line: Vec<PathBuf>,
    /// The program under test, if it is not a library.
    program: Option<PathBuf>,
    is_over_tls: bool,
}

/// Returns a client whose flows are a Python program.
fn script(name: &'static str, file: &str) -> ClientProgram {
    ClientProgram { name, line: vec![venv("python3"), flows_dir().join(file)], program: None, is_over_tls: true }
}

/// Returns a program that is driven by flows in Python.
fn program(name: &'static str, file: &str, program: PathBuf) -> ClientProgram {
    ClientProgram { program: Some(program), ..script(name, file) }
}

/// Returns the clients with flows of [`FEATURES`].
fn clients() -> Vec<ClientProgram> {
    let client = |name, line, is_over_tls| ClientProgram { name, line, program: None, is_over_tls };
    // Built without TLS.
    let rust = |name, file| client(name, vec![target_dir().join("clients-rust/debug").join(file)], false);
    vec![
        program("AWS CLI 1", "awscli_flows.py", aws::program("KEYHOLE_AWSCLI_1")),
        program("AWS CLI 2", "awscli_flows.py", aws::program("KEYHOLE_AWSCLI_2")),
        client("aws-sdk-js", vec![node_js(), flows_dir().join("js/aws_sdk_js.js")], true),
        rust("aws-sdk-rust", "aws_sdk_s3"),
        ClientProgram { is_over_tls: false, ..script("boto3", "boto3_flows.py") },
        script("boto3", "boto3_flows.py"),
        script("minio-py", "minio_flows.py"),
        rust("object_store", "object_store"),
        program("rclone", "rclone_flows.py", "/usr/bin/rclone".into()),
        program("s3cmd", "s3cmd_flows.py", venv("s3cmd")),
        program(S3FS, "s3fs_flows.py", "/usr/bin/s3fs".into()),
    ]
}

/// Returns the clients with flows of [`VERSION_FEATURES`].
fn version_clients() -> Vec<ClientProgram> {
    vec![
        program("AWS CLI 2", "awscli_versions.py", aws::program("KEYHOLE_AWSCLI_2")),
        script("boto3", "boto3_versions.py"),
        script("minio-py", "minio_versions.py"),
        program("rclone", "rclone_versions.py", venv("rclone")),
        program("restic", "restic_versions.py", "/usr/bin/restic".into()),
        // It does not trust other certificates.
        ClientProgram { is_over_tls: false, ..program("s5cmd", "s5cmd_versions.py", venv("s5cmd")) },
    ]
}

/// Returns the Node.js installed for the flows, in the version of Debian 12.
fn node_js() -> PathBuf {
    let cpu = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    target_dir().join(format!("clients-js/node_modules/node-linux-{cpu}/bin/node"))
}

fn flows_dir() -> PathBuf {
    top().join("tests/tools/clients")
}

/// Returns a program of the Python environment that `tests/run` creates.
fn venv(program: &str) -> PathBuf {
    target_dir().join("venv/bin").join(program)
}

/// Creates a bucket with many objects below a prefix, and one elsewhere.
fn make_many(node: &Node, bucket: &str) {
    const THREADS: usize = 8;
    node.make_bucket(bucket);
    node.send(&Request::new("PUT", &format!("/{bucket}/one")).body("1")).expect(200);
    thread::scope(|scope| {
        for first in 0..THREADS {
            scope.spawn(move || {
                for n in (first..MANY_COUNT).step_by(THREADS) {
                    node.send(&Request::new("PUT", &format!("/{bucket}/many/{n:04}")).body("many")).expect(200);
                }
            });
        }
    });
}

/// Runs a client's flows of these features and returns their results. `many`: the name of a bucket with
/// many objects, if the flows need one.
fn flows(
    client: &ClientProgram,
    features: &[(&str, &str)],
    node: &Node,
    trusted: &Path,
    bucket: &str,
    many: Option<&str>,
) -> FeatureResults {
    let home = tempfile::tempdir().unwrap();
    for file in client.line.iter().chain(&client.program) {
        assert!(file.exists(), "{} is missing: tests/run installs it", file.display());
    }
    let signer = node.signer();
    let mut command = Command::new(&client.line[0]);
    // Proxies and CAs in this machine's environment do not apply to the node.
    command.args(&client.line[1..]).env_clear().env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("NODE_PATH", target_dir().join("clients-js/node_modules"));
    command.env("PATH", "/usr/bin:/bin").env("HOME", home.path()).env("TMPDIR", home.path()).env("LANG", "C.UTF-8");
    command.env("AWS_ACCESS_KEY_ID", &signer.access_key).env("AWS_SECRET_ACCESS_KEY", &signer.secret_key);
    command.env("AWS_DEFAULT_REGION", &signer.region).env("AWS_EC2_METADATA_DISABLED", "true");
    command.env("BUCKET", bucket);
    if let Some(many) = many {
        make_many(node, many);
        command.env("MANY", many).env("MANY_COUNT", MANY_COUNT.to_string());
    }
    if client.is_over_tls {
        command.env("ENDPOINT", format!("https://{}", node.tls_address()));
        command.env("CA_BUNDLE", trusted).env("NODE_EXTRA_CA_CERTS", trusted);
    } else {
        command.env("ENDPOINT", node.endpoint());
    }
    if let Some(program) = &client.program {
        command.env("PROGRAM", program);
    }
    let output = command.output().expect("flows run");
    let printed = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}:\n{printed}{error}", client.name);

    let mut results = FeatureResults::new();
    for line in printed.lines() {
        let (outcome, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (feature, note) = rest.split_once(": ").unwrap_or((rest, ""));
        let cell = match (outcome, note) {
            ("ok", "") => "yes".to_owned(),
            ("ok", note) => format!("yes ({note})"),
            ("unsupported", "") => "–".to_owned(),
            ("unsupported", note) => format!("– ({note})"),
            _ => panic!("{}: {line}", client.name),
        };
        assert!(features.iter().any(|(name, _)| *name == feature), "{}: {line}", client.name);
        assert!(results.insert(feature.to_owned(), cell).is_none(), "{}: {line}, twice", client.name);
    }
    assert_eq!(results.len(), features.len(), "{}:\n{printed}", client.name);
    results
}

/// Returns the current column of a client in the table.
fn column(table: &str, client: &str) -> FeatureResults {
    let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = table.lines().filter(|line| line.starts_with('|')).map(cells).collect();
    let at = rows[0].iter().position(|cell| cell == client).expect("the client is in the table");
    FEATURES.iter().zip(&rows[2..]).map(|((feature, _), row)| ((*feature).to_owned(), row[at].clone())).collect()
}

/// Returns the reason why FUSE is unavailable, if it is.
fn without_fuse() -> Option<String> {
    let device = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    device.err().map(|error| format!("/dev/fuse: {error}"))
}

/// Formats the table of results, ordered by client name.
fn table(features: &[(&str, &str)], results: &BTreeMap<&str, FeatureResults>) -> String {
    let row = |first: &str, cells: Vec<&str>| format!("| {first} | {} |\n", cells.join(" | "));
    let mut table = row("", results.keys().copied().collect()) + "|---" + &"|---".repeat(results.len()) + "|\n";
    for (feature, name) in features {
        table += &row(name, results.values().map(|results| &results[*feature][..]).collect());
    }
    table + "\n"
}

/// CLIENTS.md, divided at one of its tables.
struct Page {
    before: String,
    table: String,
    after: String,
}

impl Page {
    fn path() -> PathBuf {
        top().join("crates/keyhole/docs/CLIENTS.md")
    }

    /// `marker`: the line before the table.
    fn read(marker: &str) -> Self {
        let page = fs::read_to_string(Page::path()).unwrap();
        let (before, rest) = page.split_once(marker).expect("the table begins");
        let (table, after) = rest.split_once(END).expect("the table ends");
        let before = [before, marker].concat();
        Page { before, table: table.to_owned(), after: [END, after].concat() }
    }

    /// Compares the table with the results, or replaces it.
    fn check(self, new: &str) {
        if std::env::var_os("KEYHOLE_UPDATE").is_some() {
            fs::write(Page::path(), [&self.before, new, &self.after].concat()).unwrap();
        } else {
            assert!(self.table == new, "KEYHOLE_UPDATE=1 writes the table of CLIENTS.md, now\n{new}");
        }
    }
}

/// Runs the flows of these clients against one node, and returns their results. `has_many`: the flows
/// need a bucket with many objects.
fn run(clients: &[ClientProgram], features: &[(&str, &str)], has_many: bool) -> BTreeMap<&'static str, FeatureResults> {
    let certificate = Certificate::new();
    let node = certificate.launch("127.0.0.1:0").arg("--log=warn").start();
    let trusted = certificate.authority_path();
    let mut results: BTreeMap<&str, FeatureResults> = BTreeMap::new();
    thread::scope(|scope| {
        let node = &node;
        let trusted = &trusted;
        let start = |(id, client)| {
            let bucket = format!("flows-{id}");
            let many = has_many.then(|| format!("many-{id}"));
            (client, scope.spawn(move || flows(client, features, node, trusted, &bucket, many.as_deref())))
        };
        let running: Vec<(&ClientProgram, _)> = clients.iter().enumerate().map(start).collect();
        for (client, run) in running {
            let Ok(new) = run.join() else { panic!("{} failed", client.name) };
            // Results over HTTP and HTTPS must agree.
            let known = results.entry(client.name).or_insert_with(|| new.clone());
            assert_eq!(*known, new, "{}", client.name);
        }
    });
    results
}

#[test]
fn client_results_match_table_in_docs() {
    let mut clients = clients();
    let fuse_error = without_fuse();
    if let Some(reason) = &fuse_error {
        skipped(S3FS, reason);
        clients.retain(|client| client.name != S3FS);
    }
    let mut results = run(&clients, &FEATURES, true);
    let page = Page::read(RESULTS);
    if fuse_error.is_some() {
        results.insert(S3FS, column(&page.table, S3FS));
    }
    page.check(&table(&FEATURES, &results));
}

#[test]
fn client_results_with_versions_match_table_in_docs() {
    let results = run(&version_clients(), &VERSION_FEATURES, false);
    Page::read(VERSION_RESULTS).check(&table(&VERSION_FEATURES, &results));
}
