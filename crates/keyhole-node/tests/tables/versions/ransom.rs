//! Ransomware with the credentials of an administrator: in a bucket with a default retention of mode
//! COMPLIANCE, every version stays readable with its own key.

use keyhole_tests::Request;
use keyhole_tests::data::{base64, md5};

use super::fixture::{KINDS, World, content, delete_objects, set_state, with_document};
use super::locks::put;
use crate::support::{NOW_MS, completion, first_part};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn on_object(method: &str) -> Request {
    Request::new(method, "/locked/o")
}

fn on_bucket(method: &str, name: &str, document: &str) -> Request {
    with_document(Request::new(method, "/locked").query(name, ""), document)
}

/// Stores two versions and returns their ids.
fn victim(world: &World) -> [String; 2] {
    let lock = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>\
        <Mode>COMPLIANCE</Mode><Days>30</Days></DefaultRetention></Rule></ObjectLockConfiguration>";
    world.node.send(&on_bucket("PUT", "object-lock", lock)).expect(200);
    [1, 2].map(|n| world.node.send(&put(world, n)).expect(200).header("x-amz-version-id").expect("an id").to_owned())
}

#[track_caller]
fn assert_readable(world: &World, ids: &[String; 2], after: &str) {
    for (id, n) in ids.iter().zip([1, 2]) {
        let get = world.node.send(&world.keyed(on_object("GET").query("versionId", id), n));
        assert_eq!((get.status, get.body), (200, content(n)), "{after}");
    }
}

/// Returns the attacks: what they are, and their requests.
fn attacks(world: &World, ids: &[String; 2]) -> Vec<(&'static str, Vec<Request>)> {
    let bypass = |request: Request| request.header("x-amz-bypass-governance-retention", "true");
    let body = b"ransom".to_vec();
    let digest = base64(&md5(&body));
    let overwrite = on_object("PUT").header("content-md5", &digest).body(body);
    let other_key = keyhole_tests::CustomerKey([99; 32]);
    let rekey = on_object("PUT").header("x-amz-copy-source", format!("locked/o?versionId={}", ids[1]));
    let rekey = world.source_keyed(rekey.headers(other_key.headers()), 2);
    let entries: String =
        ids.iter().map(|id| format!("<Object><Key>o</Key><VersionId>{id}</VersionId></Object>")).collect();
    let retention = |mode: &str, until: &str| {
        format!("<Retention><Mode>{mode}</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>")
    };
    let shorten = |document: &str| {
        let requests = ids
            .iter()
            .map(|id| with_document(on_object("PUT").query("retention", ""), document).query("versionId", id));
        requests.map(bypass).collect::<Vec<_>>()
    };
    let lifecycle = "<LifecycleConfiguration><Rule><Filter/><Status>Enabled</Status><Expiration><Days>1</Days></Expiration>\
        <NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration></Rule>\
        </LifecycleConfiguration>";
    let unlock = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>";
    let hold = "<LegalHold><Status>OFF</Status></LegalHold>";
    vec![
        ("copy onto itself with another key", vec![rekey]),
        ("overwrite with plaintext", vec![overwrite.clone()]),
        ("overwrite under another key", vec![overwrite.headers(other_key.headers())]),
        ("delete", vec![on_object("DELETE"), bypass(on_object("DELETE"))]),
        ("delete of every version", ids.iter().map(|id| bypass(on_object("DELETE").query("versionId", id))).collect()),
        ("DeleteObjects", vec![bypass(delete_objects("locked", &entries))]),
        ("shorter retention", shorten(&retention("COMPLIANCE", "2026-01-01T00:00:01Z"))),
        ("weaker retention", shorten(&retention("GOVERNANCE", "2030-01-01T00:00:00Z"))),
        ("no retention", shorten("<Retention/>")),
        (
            "no hold",
            ids.iter()
                .map(|id| with_document(on_object("PUT").query("legal-hold", ""), hold).query("versionId", id))
                .collect(),
        ),
        ("no default retention", vec![on_bucket("PUT", "object-lock", unlock)]),
        ("suspended versioning", vec![set_state("Suspended").with_path("/locked"), on_object("DELETE")]),
        ("lifecycle rule of a day", vec![on_bucket("PUT", "lifecycle", lifecycle)]),
        ("deletion of the bucket", vec![Request::new("DELETE", "/locked")]),
    ]
}

#[test]
fn locked_versions_survive_every_attack() {
    for kind in KINDS {
        let world = World::with_lock(kind);
        let ids = victim(&world);
        for (attack, requests) in attacks(&world, &ids) {
            for request in requests {
                world.node.send(&request);
                assert_readable(&world, &ids, attack);
            }
        }
        // An upload over it, completed and aborted.
        let upload = || world.node.create_upload(on_object("POST"));
        let id = upload();
        let part = first_part(on_object("PUT"), &id).header("content-md5", base64(&md5(b"ransom"))).body("ransom");
        let etag = world.node.send(&part).expect(200).header("etag").expect("an ETag").to_owned();
        world.node.send(&completion("o", &id, &etag).with_path("/locked/o")).expect(200);
        world.node.send(&on_object("DELETE").query("uploadId", &upload())).expect(204);
        assert_readable(&world, &ids, "uploads");
        // The rule of a day, with a wall clock that is ten years ahead.
        for ahead_ms in [2 * DAY_MS, 3650 * DAY_MS] {
            world.node.expire_at(NOW_MS + ahead_ms);
            assert_readable(&world, &ids, "expiry");
        }
        // After a restart.
        let restarted = crate::support::MemoryNode::open(&world.node.content()).expect("a store");
        let world = World { node: restarted, kind };
        for id in &ids {
            assert_eq!(world.node.send(&on_object("DELETE").query("versionId", id)).status, 403);
        }
        assert_readable(&world, &ids, "a restart");
    }
}
