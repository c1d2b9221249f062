//! Lifecycle rules in a bucket with versioning, and locks that they respect.

use keyhole_node::Pass;
use keyhole_tests::Request;
use keyhole_tests::http::object;

use super::fixture::{KINDS, World, with_document};
use crate::support::{NOW_MS, assert_error};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn rules(rules: &str) -> Request {
    let rule = format!("<Rule><ID>r</ID><Filter/><Status>Enabled</Status>{rules}</Rule>");
    let document = format!("<LifecycleConfiguration>{rule}</LifecycleConfiguration>");
    with_document(Request::new("PUT", "/bucket").query("lifecycle", ""), &document)
}

#[track_caller]
fn assert_expires(world: &World, at_ms: u64, expected: (u64, u64, u64)) {
    let (objects, noncurrent, markers) = expected;
    assert_eq!(world.node.expire_at(at_ms), Pass::Done { objects, noncurrent, markers, uploads: 0 });
}

#[test]
fn expired_object_gets_a_marker_and_its_version_stays() {
    for kind in KINDS {
        for state in ["Enabled", "Suspended"] {
            let world = World::new(Some("Enabled"), kind);
            let first = world.put_version(1);
            world.set(state);
            world.node.send(&rules("<Expiration><Days>1</Days></Expiration>")).expect(200);
            let head = world.node.send(&world.keyed(object("HEAD", "o"), 1)).expect(200);
            assert!(head.header("x-amz-expiration").is_some());
            let named = world.node.send(&world.keyed(object("HEAD", "o").query("versionId", &first), 1)).expect(200);
            assert_eq!(named.header("x-amz-expiration"), None);
            assert_expires(&world, NOW_MS + DAY_MS, (1, 0, 0));
            let get = world.node.send(&world.keyed(object("GET", "o"), 1));
            assert_error(&get, 404, "NoSuchKey");
            assert_eq!(get.header("x-amz-delete-marker"), Some("true"));
            world.assert_reads(&object("GET", "o").query("versionId", &first), 1);
            assert_eq!(world.ids().len(), 2, "{kind:?} {state}");
            // Nothing more to do.
            assert_expires(&world, NOW_MS + DAY_MS, (0, 0, 0));
        }
    }
}

#[test]
fn noncurrent_versions_expire_by_days_and_number() {
    for kind in KINDS {
        let world = World::new(Some("Enabled"), kind);
        let ids: Vec<_> = (1..=4).map(|n| world.put_version(n)).collect();
        let expiration = "<NoncurrentVersionExpiration><NoncurrentDays>2</NoncurrentDays>\
            <NewerNoncurrentVersions>1</NewerNoncurrentVersions></NoncurrentVersionExpiration>";
        world.node.send(&rules(expiration)).expect(200);
        assert_expires(&world, NOW_MS + 2 * DAY_MS - 1, (0, 0, 0));
        assert_expires(&world, NOW_MS + 2 * DAY_MS, (0, 2, 0));
        assert_eq!(world.ids(), [&ids[3][..], &ids[2]]);
        world.assert_reads(&object("GET", "o"), 4);
    }
}

#[test]
fn lone_delete_marker_is_removed() {
    let world = World::new(Some("Enabled"), KINDS[0]);
    let first = world.put_version(1);
    world.delete(None).expect(204);
    let markers = "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>";
    world.node.send(&rules(markers)).expect(200);
    assert_expires(&world, NOW_MS, (0, 0, 0));
    world.delete(Some(&first)).expect(204);
    assert_expires(&world, NOW_MS, (0, 0, 1));
    assert!(world.ids().is_empty());
    // In one pass: the last noncurrent version, and the marker above it.
    world.put(1);
    world.delete(None).expect(204);
    let both = "<NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration>";
    world.node.send(&rules(&format!("{markers}{both}"))).expect(200);
    assert_expires(&world, NOW_MS + DAY_MS, (0, 1, 1));
    assert!(world.ids().is_empty());
}

#[test]
fn locked_version_outlives_every_rule_and_the_wall_clock() {
    for kind in KINDS {
        let world = World::new(Some("Enabled"), kind);
        let lock = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>\
            <Mode>COMPLIANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>";
        let lock = with_document(Request::new("PUT", "/bucket").query("object-lock", ""), lock);
        world.node.send(&lock).expect(200);
        let put = |n: u8| {
            let put = super::locks::put(&world, n).with_path("/bucket/o");
            world.node.send(&put).expect(200).header("x-amz-version-id").expect("an id").to_owned()
        };
        let ids = [put(1), put(2)];
        let all = "<Expiration><Days>1</Days></Expiration><NoncurrentVersionExpiration>\
            <NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration>";
        world.node.send(&rules(all)).expect(200);
        // A wall clock that is ten years ahead puts a marker, and deletes nothing.
        let later_ms = NOW_MS + 10 * 365 * DAY_MS;
        assert_expires(&world, later_ms, (1, 0, 0));
        for (id, n) in ids.iter().zip([1, 2]) {
            world.assert_reads(&object("GET", "o").query("versionId", id), n);
        }
        world.node.log.store().advance_lock_clock(NOW_MS + DAY_MS);
        assert_expires(&world, later_ms + 2 * DAY_MS, (0, 2, 1));
        assert!(world.ids().is_empty());
    }
}
