//! The rows of reads: of the current version, of a named one, and of delete markers.

use keyhole_tests::http::object;
use keyhole_tests::{Request, Response};

use super::fixture::{KINDS, STATES, World, content, named, with_document};
use crate::support::assert_error;

/// An id that no version has.
const UNKNOWN: &str = "00112233445566778899aabbccddeeff";

/// Asserts that a response is about a delete marker with this id.
#[track_caller]
fn assert_marker(response: &Response, id: &str) {
    assert_eq!(response.header("x-amz-delete-marker"), Some("true"));
    assert_eq!(response.header("x-amz-version-id"), Some(id));
}

#[test]
fn current_version_is_read_and_named() {
    for kind in KINDS {
        for state in STATES {
            let world = World::new(state, kind);
            world.put(1);
            let id = world.put(2).header("x-amz-version-id").map(str::to_owned);
            let get = world.assert_reads(&object("GET", "o"), 2);
            let head = world.node.send(&world.keyed(object("HEAD", "o"), 2)).expect(200);
            for response in [get, head] {
                assert_eq!(response.header("x-amz-version-id"), id.as_deref(), "{kind:?} {state:?}");
                assert_eq!(response.header("x-amz-delete-marker"), None);
            }
            let etag = world.node.send(&world.keyed(object("HEAD", "o"), 2)).header("etag").unwrap().to_owned();
            let same = world.node.send(&world.keyed(object("GET", "o").header("if-none-match", etag), 2)).expect(304);
            assert_eq!(same.header("x-amz-version-id"), id.as_deref());
        }
    }
}

#[test]
fn current_delete_marker_hides_the_object() {
    for kind in KINDS {
        for state in ["Enabled", "Suspended"] {
            let world = World::new(Some(state), kind);
            let first = world.put_version(1);
            let marker = world.delete(None).expect(204).header("x-amz-version-id").expect("an id").to_owned();
            for method in ["GET", "HEAD"] {
                let response = world.node.send(&world.keyed(object(method, "o"), 1));
                assert_error(&response, 404, "NoSuchKey");
                assert_marker(&response, &marker);
            }
            assert_error(&world.node.send(&object("GET", "o").query("acl", "")), 404, "NoSuchKey");
            if state == "Enabled" {
                world.assert_reads(&object("GET", "o").query("versionId", &first), 1);
            }
        }
    }
}

#[test]
fn named_version_is_read_or_refused() {
    for kind in KINDS {
        for state in STATES {
            let world = World::new(state, kind);
            let first = world.put(1).header("x-amz-version-id").unwrap_or("null").to_owned();
            if state == Some("Enabled") {
                world.put(2);
            }
            for method in ["GET", "HEAD"] {
                let read = |id: &str| world.node.send(&world.keyed(object(method, "o").query("versionId", id), 1));
                let response = read(&first).expect(200);
                assert_eq!(response.header("x-amz-version-id"), state.map(|_| &first[..]), "{kind:?} {state:?}");
                assert!(method == "HEAD" || response.body == content(1));
                assert_error(&read(UNKNOWN), 404, "NoSuchVersion");
                for malformed in ["1", "Null", &UNKNOWN.to_uppercase(), ""] {
                    assert_error(&read(malformed), 400, "InvalidArgument");
                }
                let missing = world.node.send(&object(method, "missing").query("versionId", &first));
                assert_error(&missing, 404, "NoSuchVersion");
            }
            let malformed = world.node.send(&object("GET", "o").query("versionId", "1"));
            assert_eq!(malformed.element("Message").as_deref(), Some("Invalid version id specified"));
            let unknown = world.node.send(&world.keyed(object("GET", "o").query("versionId", UNKNOWN), 1));
            assert_eq!(unknown.element("VersionId").as_deref(), Some(UNKNOWN));
        }
    }
}

#[test]
fn named_delete_marker_can_only_be_deleted() {
    for kind in KINDS {
        for state in ["Enabled", "Suspended"] {
            let world = World::new(Some(state), kind);
            world.put(1);
            let marker = world.delete(None).header("x-amz-version-id").expect("an id").to_owned();
            for current in [true, false] {
                if !current && state == "Enabled" {
                    world.put(2);
                }
                for method in ["GET", "HEAD"] {
                    let response = world.node.send(&world.keyed(object(method, "o").query("versionId", &marker), 1));
                    assert_error(&response, 405, "MethodNotAllowed");
                    assert_marker(&response, &marker);
                    assert_eq!(response.header("allow"), Some("DELETE"));
                    assert_eq!(response.header("last-modified"), Some("Thu, 01 Jan 2026 00:00:00 GMT"));
                    assert!(method == "HEAD" || response.element("ResourceType").as_deref() == Some("DeleteMarker"));
                }
            }
        }
    }
}

#[test]
fn tags_attributes_and_acl_are_those_of_the_named_version() {
    let tags = |value: u8| format!("<Tagging><TagSet><Tag><Key>n</Key><Value>{value}</Value></Tag></TagSet></Tagging>");
    for kind in KINDS {
        let world = World::new(Some("Enabled"), kind);
        let ids = [1, 2].map(|n| world.put_version(n));
        let send = |request: Request| world.node.send(&request);
        for (id, n) in ids.iter().zip([1, 2]) {
            let of_version = |method: &str, name: &str| object(method, "o").query(name, "").query("versionId", id);
            let put = send(with_document(of_version("PUT", "tagging"), &tags(n))).expect(200);
            assert_eq!(put.header("x-amz-version-id"), Some(&id[..]));
            let attributes = of_version("GET", "attributes").header("x-amz-object-attributes", "ObjectSize,ETag");
            let attributes = send(world.keyed(attributes, n)).expect(200);
            assert_eq!(attributes.header("x-amz-version-id"), Some(&id[..]));
            send(of_version("GET", "acl")).expect(200);
        }
        for (id, n) in ids.iter().zip([1, 2]) {
            let get = object("GET", "o").query("tagging", "").query("versionId", id);
            let got = send(get).expect(200);
            assert_eq!(got.element("Value"), Some(n.to_string()), "{kind:?}");
            assert_eq!(got.header("x-amz-version-id"), Some(&id[..]));
            world.assert_reads(&object("GET", "o").query("versionId", id), n);
        }
        // Without a version, of the current one.
        assert_eq!(send(object("GET", "o").query("tagging", "")).element("Value").as_deref(), Some("2"));
        send(object("DELETE", "o").query("tagging", "").query("versionId", &ids[0])).expect(204);
        let get = object("GET", "o").query("tagging", "").query("versionId", &ids[0]);
        assert_eq!(send(get).element("Value"), None);
        assert_eq!(world.ids(), [&ids[1][..], &ids[0]], "tags make no version");
        world.delete(None).expect(204);
        for request in [
            object("GET", "o").query("tagging", ""),
            with_document(object("PUT", "o").query("tagging", ""), &tags(3)),
            object("DELETE", "o").query("tagging", ""),
        ] {
            assert_error(&send(request), 405, "MethodNotAllowed");
        }
        let unknown = object("GET", "o").query("tagging", "").query("versionId", UNKNOWN);
        assert_error(&send(unknown), 404, "NoSuchVersion");
    }
}

#[test]
fn copy_is_of_the_named_version() {
    for kind in KINDS {
        for state in STATES {
            let world = World::new(state, kind);
            let first = world.put(1).header("x-amz-version-id").unwrap_or("null").to_owned();
            if state == Some("Enabled") {
                world.put(2);
            }
            let copy = |source: &str, to: &str| {
                let copy = object("PUT", to).header("x-amz-copy-source", source);
                world.node.send(&world.source_keyed(world.keyed(copy, 3), 1))
            };
            let copied = copy(&format!("bucket/o?versionId={first}"), "copy").expect(200);
            assert_eq!(copied.header("x-amz-copy-source-version-id"), state.map(|_| &first[..]), "{kind:?} {state:?}");
            assert_eq!(world.node.send(&world.keyed(object("GET", "copy"), 3)).expect(200).body, content(1));
            assert_error(&copy(&format!("bucket/o?versionId={UNKNOWN}"), "copy"), 404, "NoSuchVersion");
            assert_error(&copy("bucket/o?versionId=1", "copy"), 400, "InvalidArgument");
            // A part, too.
            let id = world.node.create_upload(world.keyed(object("POST", "large"), 3));
            let part = object("PUT", "large").query("partNumber", "1").query("uploadId", &id);
            let part = part.header("x-amz-copy-source", format!("bucket/o?versionId={first}"));
            let part = world.node.send(&world.source_keyed(world.keyed(part, 3), 1)).expect(200);
            assert_eq!(part.header("x-amz-copy-source-version-id"), state.map(|_| &first[..]));
            if state.is_some() {
                let marker = world.delete(None).header("x-amz-version-id").expect("an id").to_owned();
                assert_error(&copy(&format!("bucket/o?versionId={marker}"), "copy"), 400, "InvalidRequest");
                assert_error(&copy("bucket/o", "copy"), 404, "NoSuchKey");
            }
        }
    }
}

#[test]
fn older_version_is_restored_by_a_copy_onto_itself() {
    for kind in KINDS {
        let world = World::new(Some("Enabled"), kind);
        let first = world.put_version(1);
        world.put(2);
        let copy = object("PUT", "o").header("x-amz-copy-source", format!("bucket/o?versionId={first}"));
        let restored = world.node.send(&world.source_keyed(world.keyed(copy, 1), 1)).expect(200);
        let third = restored.header("x-amz-version-id").expect("an id").to_owned();
        world.assert_reads(&object("GET", "o"), 1);
        assert_eq!((world.ids().len(), &world.ids()[0]), (3, &third));
    }
}

#[test]
fn version_keeps_its_key_when_the_current_one_gets_another() {
    let world = World::new(Some("Enabled"), super::fixture::Kind::Sealed);
    let first = world.put_version(1);
    let rekey = object("PUT", "o").header("x-amz-copy-source", "bucket/o");
    world.node.send(&world.source_keyed(world.keyed(rekey, 2), 1)).expect(200);
    let get = |version: Option<&str>, n: u8| world.node.send(&world.keyed(named(object("GET", "o"), version), n));
    assert_eq!(get(None, 2).expect(200).body, content(1));
    assert_eq!(get(Some(&first), 1).expect(200).body, content(1));
    assert_eq!((get(None, 1).status, get(Some(&first), 2).status), (403, 403));
}
