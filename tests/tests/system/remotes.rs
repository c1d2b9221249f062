//! Remotes: shipping to other S3 services, and rebuilding stores from them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use keyhole_tests::command::{Directory, expect_success, run};
use keyhole_tests::node::{ACCESS_KEY, SECRET_KEY};
use keyhole_tests::{Launch, Node, Request, Response};
use serde_json::Value;

mod cluster;
mod long;
mod page;
mod restore;
mod secrets;
mod settings;
mod trouble;
mod verify;

/// Timeout of a state that a remote must reach.
const PATIENCE: Duration = Duration::from_secs(120);

/// Time for which a remote must owe nothing: longer than its interval between looks at the store.
const QUIET: Duration = Duration::from_millis(2200);

/// A credentials file in its own directory.
struct Credentials {
    directory: Directory,
    path: String,
}

impl Credentials {
    /// Replaces the contents of the file.
    fn write(&self, key_id: &str, secret_key: &str) {
        let text = format!("[default]\naws_access_key_id = {key_id}\naws_secret_access_key = {secret_key}\n");
        fs::write(&self.path, text).unwrap();
        fs::set_permissions(&self.path, Permissions::from_mode(0o600)).unwrap();
    }
}

fn credentials(key_id: &str, secret_key: &str) -> Credentials {
    let directory = Directory::new();
    let path = directory.path("credentials");
    let credentials = Credentials { directory, path };
    credentials.write(key_id, secret_key);
    credentials
}

fn valid_credentials() -> Credentials {
    credentials(ACCESS_KEY, SECRET_KEY)
}

/// A bucket and a prefix of a service that nodes ship to.
struct Remote {
    url: String,
    bucket: String,
    prefix: String,
    credentials: Credentials,
    ca: Option<String>,
}

impl Remote {
    /// Returns the prefix `site/1` of `bucket`.
    fn new(url: &str) -> Self {
        Remote {
            url: url.to_owned(),
            bucket: "bucket".to_owned(),
            prefix: "site/1".to_owned(),
            credentials: valid_credentials(),
            ca: None,
        }
    }

    /// Returns the options of the service.
    fn service(&self) -> Vec<&str> {
        let mut options = vec!["--url", &self.url, "--bucket", &self.bucket, "--prefix", &self.prefix];
        options.extend(["--credentials", &self.credentials.path]);
        self.ca.iter().for_each(|ca| options.extend(["--ca", ca]));
        options
    }

    /// Returns the arguments that add the remote `vault` for all buckets.
    fn adding<'a>(&'a self, data: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let all = ["--source", "*", "--mode", "mirror"];
        [&["remote", "add", data, "vault"][..], &self.service(), &all, more].concat()
    }

    /// Adds the remote `vault` to a node.
    #[track_caller]
    fn add(&self, node: &Node, more: &[&str]) {
        expect_success(&self.adding(text(node.data()), more), b"");
    }

    /// Returns the arguments that restore from the remote.
    fn restoring<'a>(&'a self, data: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
        [&["remote", "restore", text(data)][..], &self.service(), more].concat()
    }

    /// Restores from the remote with all settings. Returns the figures and standard error.
    #[track_caller]
    fn restore(&self, data: &Path, code: i32, more: &[&str]) -> (Value, String) {
        let arguments = self.restoring(data, &[&["--settings", "all", "--json"], more].concat());
        figures(&run(&arguments, b""), code)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Returns the JSON and standard error of a command that must end with this exit code.
#[track_caller]
fn figures(output: &Output, code: i32) -> (Value, String) {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{}{stderr}", String::from_utf8_lossy(&output.stdout));
    (serde_json::from_slice(&output.stdout).unwrap_or_default(), stderr)
}

/// Returns the status of the only remote of a node; null without remotes.
#[track_caller]
fn status(node: &Node) -> Value {
    let output = expect_success(&["remote", "status", text(node.data()), "--json"], b"");
    serde_json::from_slice::<Value>(&output).unwrap()[0].clone()
}

/// Waits until the status of the only remote satisfies a condition, and returns it.
#[track_caller]
fn wait_for(node: &Node, condition: &str, is_met: impl Fn(&Value) -> bool) -> Value {
    wait_within(PATIENCE, node, condition, is_met)
}

#[track_caller]
fn wait_within(patience: Duration, node: &Node, condition: &str, is_met: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + patience;
    loop {
        let status = status(node);
        if is_met(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "the remote is not {condition}: {status}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[track_caller]
fn wait_for_state(node: &Node, state: &str) -> Value {
    wait_for(node, state, |status| status["state"] == state)
}

/// Waits until the remote has everything.
#[track_caller]
fn wait_until_shipped(node: &Node) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = wait_for_state(node, "idle");
        thread::sleep(QUIET);
        let after = status(node);
        if before == after && after["owed"] == 0 {
            return after;
        }
        assert!(Instant::now() < deadline, "the remote does not get idle: {before} {after}");
    }
}

/// Compares the remote with the store, with this exit code. Returns the figures and standard error.
#[track_caller]
fn verify(node: &Node, code: i32) -> (Value, String) {
    figures(&run(&["remote", "verify", text(node.data()), "vault", "--content", "--json"], b""), code)
}

/// Returns the names and lengths of all objects in a bucket of a service with this prefix.
fn listed(send: impl Fn(&Request) -> Response, bucket: &str, prefix: &str) -> Vec<(String, u64)> {
    let mut objects: Vec<(String, u64)> = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let mut request = Request::new("GET", &format!("/{bucket}")).query("list-type", "2").query("prefix", prefix);
        if let Some(token) = &token {
            request = request.query("continuation-token", token);
        }
        let page = send(&request).expect(200);
        let field = |item: &str, name: &str| {
            let (_, rest) = item.split_once(&format!("<{name}>")).expect("a field of an object");
            rest.split('<').next().unwrap_or_default().replace("&amp;", "&")
        };
        let text = page.text();
        let items = text.split("<Contents>").skip(1);
        objects.extend(items.map(|item| (field(item, "Key"), field(item, "Size").parse().unwrap())));
        token = page.element("NextContinuationToken");
        if token.is_none() {
            return objects;
        }
    }
}

/// Returns the names that a node has in its role as a service, below the prefix of a remote.
fn names_in(service: &Node, remote: &Remote) -> Vec<String> {
    let prefix = format!("{}/", remote.prefix);
    let objects = listed(|request| service.send(request), &remote.bucket, &prefix);
    objects.into_iter().map(|(name, _)| name[prefix.len()..].to_owned()).collect()
}

/// Returns options for a node with a status page.
fn launch() -> Launch {
    Launch::default().with_credential().arg("--threads=2").arg("--admin-listen=127.0.0.1:0")
}

/// Returns the metrics of a node.
fn metrics(node: &Node) -> String {
    Request::new("GET", "/metrics").send_unsigned(node.admin_address()).expect(200).text()
}

/// Returns the names of the conditions of a node.
fn conditions(node: &Node) -> Vec<String> {
    let output = run(&["status", text(node.data()), "--json"], b"");
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    let conditions = status["conditions"].as_array().unwrap();
    conditions.iter().map(|condition| condition["name"].as_str().unwrap().to_owned()).collect()
}

/// Returns an address for a node that keeps it when it restarts.
fn free_address() -> String {
    format!("127.0.0.1:{}", keyhole_tests::port::free_port())
}
