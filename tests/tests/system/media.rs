//! Faulty media: bad sectors, full file systems of each kind, failed writes, read-only media, lost
//! files.
//!
//! The faulty file system needs `/dev/fuse` and `fusermount`; file systems in files need root and
//! loop devices. Without them these tests report that they are skipped.

mod full;
mod lost;
mod readonly;
mod sectors;
mod writes;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use keyhole_tests::data::bytes;
use keyhole_tests::device::skipped;
use keyhole_tests::faulty::FaultyFs;
use keyhole_tests::http::object;
use keyhole_tests::mounted::{Kind, MountedFs};
use keyhole_tests::{Launch, Node, Request, Response};

/// Error codes, as seen by clients.
mod code {
    /// A GET of an object whose data or record are unreadable.
    pub(super) const DAMAGED: &str = "ObjectDamaged";
    /// A change refused after a failed write, or because the store is read-only.
    pub(super) const UNAVAILABLE: &str = "ServiceUnavailable";
}

/// Objects by key.
type Objects = BTreeMap<String, Vec<u8>>;

/// Mounts a file system, or reports that the test is skipped and returns `None`.
fn mounted(test: &str, kind: Kind, len: u64) -> Option<MountedFs> {
    MountedFs::new(kind, len).map_err(|reason| skipped(&format!("{test} on {}", kind.name()), &reason)).ok()
}

/// Mounts the faulty file system, or reports that the test is skipped and returns `None`.
fn faulty(test: &str) -> Option<FaultyFs> {
    FaultyFs::mount().map_err(|reason| skipped(test, &reason)).ok()
}

fn launch() -> Launch {
    Launch::default().with_credential().arg("--threads=1")
}

fn data_in(directory: &Path) -> PathBuf {
    directory.join("data")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Puts an object and records it.
fn put(node: &Node, objects: &mut Objects, key: &str, len: usize) {
    let body = bytes(u64::from(crc32fast::hash(key.as_bytes())), len);
    node.send(&object("PUT", key).body(body.clone())).expect(200);
    objects.insert(key.to_owned(), body);
}

/// Puts an object, which must succeed, and deletes it.
fn assert_put_works(node: &Node) {
    let mut objects = Objects::new();
    put(node, &mut objects, "probe/long", 1_500_000);
    put(node, &mut objects, "probe/short", 500);
    assert_eq!(unreadable(node, &objects), BTreeMap::new());
    for key in objects.keys() {
        node.send(&object("DELETE", key)).expect(204);
    }
}

/// Returns the objects that could not be read, with status and error code.
fn unreadable(node: &Node, objects: &Objects) -> BTreeMap<String, (u16, String)> {
    let mut found = BTreeMap::new();
    for (key, body) in objects {
        let reply = node.send(&object("GET", key));
        if reply.status == 200 && !reply.is_complete {
            // The head was sent before the fault occurred: the connection ends early.
            assert!(body.starts_with(&reply.body), "{key}: wrong bytes");
            found.insert(key.clone(), (200, "cut".to_owned()));
        } else if reply.status == 200 {
            assert!(reply.body == *body, "{key}: wrong bytes");
        } else {
            found.insert(key.clone(), (reply.status, reply.element("Code").unwrap_or_default()));
        }
    }
    found
}

/// Returns the keys in a listing of the bucket.
fn listed(node: &Node) -> Vec<String> {
    let reply = node.send(&Request::new("GET", "/bucket").query("list-type", "2")).expect(200);
    let text = reply.text();
    let keys = text.split("<Key>").skip(1).filter_map(|rest| rest.split('<').next());
    keys.map(str::to_owned).collect()
}

/// Copies a data directory, except its socket.
fn copy_data(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a kind").is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
        }
    }
}

#[track_caller]
fn assert_unavailable(reply: &Response) {
    assert_eq!((reply.status, reply.element("Code").as_deref()), (503, Some(code::UNAVAILABLE)), "{}", reply.text());
}
