//! Credentials without the rights of versions destroy none, and a node without versions has none.

use keyhole_node::{OwnPolicy, Right};
use keyhole_tests::Request;
use keyhole_tests::http::object;

use super::fixture::{KINDS, World, content, delete_objects, set_state};
use crate::support::{MemoryNode, assert_error};

#[test]
fn credentials_without_delete_version_destroy_nothing() {
    for kind in KINDS {
        let world = World::new(Some("Enabled"), kind);
        let ids = [1, 2].map(|n| world.put_version(n));
        let rights = [Right::Read, Right::Write, Right::List, Right::Delete, Right::Lock];
        let stolen = world.node.add_grants("stolen", &[("bucket", "", &rights)]);
        let send = |request: Request| world.node.send_as(&stolen, &request);
        let delete = |id: &str| object("DELETE", "o").query("versionId", id);
        for id in [&ids[0][..], &ids[1], "null", "00112233445566778899aabbccddeeff"] {
            assert_error(&send(delete(id)), 403, "AccessDenied");
            let entry = format!("<Object><Key>o</Key><VersionId>{id}</VersionId></Object>");
            let response = send(delete_objects("bucket", &entry)).expect(200).text();
            assert!(response.contains("<Code>AccessDenied</Code>"), "{response}");
        }
        // Overwritten, copied onto itself with another key, and deleted.
        send(world.keyed(object("PUT", "o"), 3).body("ransom")).expect(200);
        let copy =
            object("PUT", "o").header("x-amz-copy-source", "bucket/o").header("x-amz-metadata-directive", "REPLACE");
        send(world.source_keyed(world.keyed(copy, 4), 3)).expect(200);
        send(object("DELETE", "o")).expect(204);
        for request in [
            set_state("Suspended"),
            Request::new("DELETE", "/bucket"),
            Request::new("PUT", "/bucket").query("lifecycle", "").body("<LifecycleConfiguration/>"),
        ] {
            assert_error(&send(request), 403, "AccessDenied");
        }
        for (id, n) in ids.iter().zip([1, 2]) {
            world.assert_reads(&object("GET", "o").query("versionId", id), n);
        }
        // The right alone suffices for a version, and for nothing else.
        let cleaner = world.node.add_grants("cleaner", &[("bucket", "", &[Right::DeleteVersion])]);
        assert_error(&world.node.send_as(&cleaner, &object("DELETE", "o")), 403, "AccessDenied");
        world.node.send_as(&cleaner, &delete(&ids[0])).expect(204);
        assert!(!world.ids().contains(&ids[0]));
    }
}

#[test]
fn version_is_not_found_only_for_callers_that_may_list() {
    let world = World::new(Some("Enabled"), KINDS[0]);
    world.put(1);
    let marker = world.delete(None).header("x-amz-version-id").expect("an id").to_owned();
    let reader = world.node.add_grants("reader", &[("bucket", "", &[Right::Read])]);
    for (version, status) in [(None, 403), (Some("00112233445566778899aabbccddeeff"), 403), (Some(&marker[..]), 405)] {
        let get = super::fixture::named(object("GET", "o"), version);
        let response = world.node.send_as(&reader, &get);
        assert_eq!(response.status, status, "{version:?}");
        assert_eq!(response.header("x-amz-delete-marker").is_some(), status == 405, "{version:?}");
    }
}

#[test]
fn unsigned_request_reads_no_named_version() {
    let world = World::new(Some("Enabled"), KINDS[0]);
    world.node.set_policy(OwnPolicy { anonymous_read: Some(true), ..OwnPolicy::default() });
    let id = world.put_version(1);
    assert_eq!(world.node.send_unsigned(&object("GET", "o")).expect(200).body, content(1));
    for id in [&id[..], "null"] {
        assert_error(&world.node.send_unsigned(&object("GET", "o").query("versionId", id)), 403, "AccessDenied");
    }
}

#[test]
fn deletion_of_the_null_version_without_versioning_needs_the_right_to_delete() {
    let node = MemoryNode::new();
    let client = node.add_grants("client", &[("bucket", "", &[Right::Delete])]);
    node.send(&object("PUT", "o").body(content(1))).expect(200);
    node.send_as(&client, &object("DELETE", "o").query("versionId", "null")).expect(204);
    assert_error(&node.send(&object("GET", "o")), 404, "NoSuchKey");
}

#[test]
fn node_without_versions_refuses_to_enable_them() {
    let node = MemoryNode::without_versions();
    let lock = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>";
    for request in [
        set_state("Enabled"),
        set_state("Suspended"),
        super::fixture::with_document(Request::new("PUT", "/bucket").query("object-lock", ""), lock),
        Request::new("PUT", "/new").header("x-amz-bucket-object-lock-enabled", "true"),
    ] {
        assert_error(&node.send(&request), 501, "NotImplemented");
    }
    let list = node.send(&Request::new("GET", "/")).expect(200).text();
    assert!(list.contains("bucket") && !list.contains("new"), "{list}");
}
