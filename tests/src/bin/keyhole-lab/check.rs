//! Comparison of a store after a power failure with what was acknowledged.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use keyhole_tests::data::bytes;
use keyhole_tests::http::element;
use keyhole_tests::node::binary;
use keyhole_tests::{Node, Request};

use crate::workload::{BUCKET, Key, Version};

/// Runs `keyhole check` on a store, which must find nothing.
pub(crate) fn check_store(data: &Path) -> Result<(), String> {
    let output = Command::new(binary()).arg("check").arg(data).output().map_err(|error| error.to_string())?;
    let said = [output.stdout, output.stderr].concat();
    let said = || String::from_utf8_lossy(&said).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("keyhole check: {}: {}", output.status, said())) }
}

/// A version in a listing.
struct Listed {
    id: String,
    /// `None`: a delete marker.
    len: Option<usize>,
}

/// Lists all versions, by key, newest first. An error describes an answer that is not a listing.
fn list(node: &Node) -> Result<BTreeMap<String, Vec<Listed>>, String> {
    let request = Request::new("GET", &format!("/{BUCKET}")).query("versions", "").query("max-keys", "1000");
    let reply = node.send(&request);
    let text = reply.text();
    if reply.status != 200 {
        return Err(format!("the list of all versions: {} {text}", reply.status));
    }
    assert!(text.contains("<IsTruncated>false</IsTruncated>"), "more than one page of versions");
    let mut found = BTreeMap::<String, Vec<Listed>>::new();
    for item in text.split("<Key>").skip(1) {
        let key = item.split_once('<').map_or(item, |(key, _)| key);
        let id = element(item, "VersionId").expect("a version has an id");
        let len = element(item, "Size").map(|len| len.parse().expect("a size is a number"));
        found.entry(key.to_owned()).or_default().push(Listed { id, len });
    }
    Ok(found)
}

/// Returns the keys whose versions are in no state that a power failure may leave.
pub(crate) fn compare(node: &Node, keys: &[Key], is_marked: impl Fn(u64) -> bool) -> Vec<String> {
    let mut found = match list(node) {
        Ok(found) => found,
        Err(error) => return vec![error],
    };
    let mut wrong = Vec::new();
    for key in keys {
        let listed = found.remove(&key.name).unwrap_or_default();
        let mut differences = Vec::new();
        for (versions, mark) in key.legal(&is_marked) {
            match compare_versions(node, key, &listed, versions) {
                Ok(()) => {
                    differences.clear();
                    break;
                }
                Err(difference) => differences.push(format!("not the state of mark {mark}: {difference}")),
            }
        }
        if !differences.is_empty() {
            wrong.push(format!("{}: {}", key.name, differences.join("; ")));
        }
    }
    wrong.extend(found.into_keys().map(|key| format!("{key}: never written")));
    wrong
}

/// Compares the versions of a key and their contents with a state, and returns the first difference.
fn compare_versions(node: &Node, key: &Key, listed: &[Listed], versions: &[Version]) -> Result<(), String> {
    let expected: Vec<Option<usize>> = versions.iter().map(Version::len).collect();
    let found: Vec<Option<usize>> = listed.iter().map(|version| version.len).collect();
    if found != expected {
        return Err(format!("lengths {found:?} in place of {expected:?}"));
    }
    for (listed, version) in listed.iter().zip(versions) {
        let Version::Content { seed, len } = *version else { continue };
        let request = key.request("GET").query("versionId", &listed.id).headers(key.headers());
        let reply = node.send(&request);
        if reply.status != 200 {
            return Err(format!("{} for version {}: {}", reply.status, listed.id, reply.text()));
        }
        let expected = bytes(seed, len);
        if reply.body != expected {
            let first = reply.body.iter().zip(&expected).position(|(found, expected)| found != expected);
            return Err(format!(
                "version {}: {} of {len} bytes, first wrong one: {first:?}",
                listed.id,
                reply.body.len()
            ));
        }
    }
    Ok(())
}
