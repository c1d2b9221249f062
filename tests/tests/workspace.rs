//! Workspace rules that can be checked automatically: dependencies between crates, and the files in
//! the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use keyhole_tests::top;
use serde_json::Value;

/// For each crate of the workspace, the workspace crates that it may depend on.
const MAY_DEPEND_ON: [(&str, &[&str]); 10] = [
    ("keyhole-core", &[]),
    ("keyhole-log", &[]),
    ("keyhole-md5", &[]),
    ("keyhole-s3", &["keyhole-core"]),
    ("keyhole-node", &["keyhole-core", "keyhole-log", "keyhole-md5", "keyhole-s3"]),
    ("keyhole-remote", &["keyhole-log", "keyhole-node"]),
    ("keyhole", &["keyhole-core", "keyhole-log", "keyhole-node", "keyhole-remote", "keyhole-s3"]),
    ("keyhole-sim", &["keyhole-log"]),
    ("keyhole-tests", &[]),
    ("keyhole-benches", &["keyhole-core", "keyhole-log", "keyhole-md5", "keyhole-s3", "keyhole-tests"]),
];

/// Crates with clocks, randomness, sockets, files or a runtime: forbidden for crates without I/O.
const EFFECTS: [&str; 14] = [
    "async-std",
    "chrono",
    "getrandom",
    "io-uring",
    "libc",
    "mio",
    "nix",
    "rand",
    "rustix",
    "smol",
    "socket2",
    "time",
    "tokio",
    "tokio-uring",
];

/// Allowed names in the root directory.
const TOP: [&str; 18] = [
    ".cargo",
    ".ci",
    ".github",
    ".gitignore",
    ".rustfmt.toml",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "SECURITY.md",
    "benches",
    "crates",
    "firmware",
    "tests",
    ".config",
];

const FILE_LEN_MAX: u64 = 1 << 20;

/// Returns Cargo's metadata of the workspace.
fn metadata() -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let arguments = ["metadata", "--format-version=1", "--locked"];
    let output = Command::new(cargo).args(arguments).current_dir(top()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Returns the paths of all project files relative to the root, except those in `.gitignore`.
fn files() -> Vec<String> {
    let ignored = fs::read_to_string(top().join(".gitignore")).unwrap();
    let ignored: Vec<&str> = ignored.lines().map(|line| line.trim_matches('/')).chain([".git"]).collect();
    let mut files = Vec::new();
    let mut open = vec![String::new()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(top().join(&directory)).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            let path = if directory.is_empty() { name.clone() } else { format!("{directory}/{name}") };
            if ignored.contains(&&name[..]) || ignored.contains(&&path[..]) {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                open.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files
}

/// Returns the files with this ending and their contents.
fn texts(end: &str) -> Vec<(String, String)> {
    let named = files().into_iter().filter(|file| file.ends_with(end));
    named.map(|file| (file.clone(), fs::read_to_string(top().join(file)).unwrap())).collect()
}

/// Normal and build dependencies in the workspace graph, by package ID.
struct Graph {
    names: BTreeMap<String, String>,
    edges: BTreeMap<String, Vec<String>>,
}

fn graph() -> Graph {
    let metadata = metadata();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let list = |value: &Value| value.as_array().unwrap().clone();
    let names =
        list(&metadata["packages"]).iter().map(|package| (text(&package["id"]), text(&package["name"]))).collect();
    let is_used = |dependency: &Value| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev");
    let edges = list(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| {
            let used = list(&node["deps"]);
            (text(&node["id"]), used.iter().filter(|dep| is_used(dep)).map(|dep| text(&dep["pkg"])).collect())
        })
        .collect();
    Graph { names, edges }
}

impl Graph {
    fn id(&self, name: &str) -> &str {
        self.names.iter().find(|(_, other)| *other == name).map(|(id, _)| id).unwrap_or_else(|| panic!("no {name}"))
    }

    fn direct(&self, name: &str) -> BTreeSet<&str> {
        self.edges[self.id(name)].iter().map(|id| &self.names[id][..]).collect()
    }

    fn all(&self, name: &str) -> BTreeSet<&str> {
        let mut seen = BTreeSet::new();
        let mut open = vec![self.id(name)];
        while let Some(id) = open.pop() {
            for next in &self.edges[id] {
                if seen.insert(&next[..]) {
                    open.push(next);
                }
            }
        }
        seen.into_iter().map(|id| &self.names[id][..]).collect()
    }
}

#[test]
fn crate_dependencies_point_one_way() {
    let graph = graph();
    let ours: BTreeSet<&str> = MAY_DEPEND_ON.iter().map(|(name, _)| *name).collect();
    for (name, allowed) in MAY_DEPEND_ON {
        for dependency in graph.direct(name).intersection(&ours) {
            assert!(allowed.contains(dependency), "{name} depends on {dependency}");
        }
    }
}

#[test]
fn tokio_uring_is_only_in_binary() {
    let graph = graph();
    for (name, _) in MAY_DEPEND_ON.iter().filter(|(name, _)| *name != "keyhole") {
        assert!(!graph.all(name).contains("tokio-uring"), "{name}");
    }
    assert!(graph.direct("keyhole").contains("tokio-uring"));
    let allowed =
        ["crates/keyhole/src/uring.rs", "crates/keyhole/src/uring/", "crates/keyhole/src/buffer.rs", "tests/"];
    for (file, _) in texts(".rs").iter().filter(|(_, text)| text.contains("tokio_uring")) {
        assert!(allowed.iter().any(|prefix| file.starts_with(prefix)), "{file}");
    }
}

#[test]
fn logic_crates_do_no_io() {
    let graph = graph();
    for name in ["keyhole-core", "keyhole-md5", "keyhole-s3", "keyhole-log", "keyhole-node", "keyhole-remote"] {
        // The node uses tokio's semaphore. Other crates of the workspace enable the rest of tokio.
        let is_node = name == "keyhole-node";
        let has_node = is_node || name == "keyhole-remote";
        for effect in EFFECTS {
            let is_direct = graph.direct(name).contains(effect) && !(is_node && effect == "tokio");
            // Only cpufeatures may use libc, to detect CPU features on some targets.
            let is_indirect = !has_node && graph.all(name).contains(effect) && effect != "libc";
            assert!(!is_direct && !is_indirect, "{name} depends on {effect}");
        }
        let effects = [
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "std::fs",
            "std::thread",
            "SystemTime",
            "Instant::now",
            "tokio::time",
            "tokio::net",
            "tokio::fs",
        ];
        let path = format!("crates/{name}/src/");
        // A file of this name is the module that is otherwise in line.
        let is_code = |file: &str| file.starts_with(&path) && !file.ends_with("/tests.rs");
        for (file, text) in texts(".rs").iter().filter(|(file, _)| is_code(file)) {
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            for pattern in effects {
                assert!(!code.contains(pattern), "{file} uses {pattern}");
            }
        }
    }
}

/// Clippy's `incompatible_msrv` checks the standard library; this checks the dependencies.
#[test]
fn dependencies_support_the_minimum_rust_version() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let version = |package: &Value| -> Option<Vec<u32>> {
        let text = package["rust_version"].as_str()?;
        Some(text.split('.').take(2).map(|number| number.parse().unwrap()).collect())
    };
    let ours = packages.iter().find(|package| package["name"] == "keyhole").and_then(version);
    let ours = ours.expect("keyhole declares a minimum Rust version");
    for package in packages {
        assert!(version(package).is_none_or(|other| other <= ours), "{} needs {:?}", package["name"], version(package));
    }
}

#[test]
fn unsafe_code_outside_binary_and_md5_lanes_is_forbidden() {
    for name in ["keyhole-core", "keyhole-s3", "keyhole-log", "keyhole-node", "keyhole-remote"] {
        let root = fs::read_to_string(top().join(format!("crates/{name}/src/lib.rs"))).unwrap();
        assert!(root.contains("#![forbid(unsafe_code)]"), "{name}");
    }
    let core = fs::read_to_string(top().join("crates/keyhole-core/src/lib.rs")).unwrap();
    assert!(core.contains("#![no_std]") && !core.contains("extern crate alloc"));
}

#[test]
fn tree_has_expected_layout() {
    for file in files() {
        let first = file.split('/').next().unwrap();
        assert!(TOP.contains(&first), "{file}: unexpected name in the root directory");
        let len = fs::metadata(top().join(&file)).unwrap().len();
        assert!(len <= FILE_LEN_MAX, "{file} has {len} bytes");
    }
}

/// Links between pages of the project resolve.
#[test]
fn links_between_pages_resolve() {
    for (file, text) in texts(".md") {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            let target = top().join(&file).parent().unwrap().join(path);
            assert!(target.exists(), "{file} links to {link}");
        }
    }
}
