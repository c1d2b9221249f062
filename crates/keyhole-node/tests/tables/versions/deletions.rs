//! The rows of deletions: DELETE with and without a version, DeleteObjects and DeleteBucket.

use keyhole_tests::Request;
use keyhole_tests::http::object;

use super::fixture::{KINDS, STATES, World, content, is_id};
use crate::support::assert_error;

#[test]
fn deletion_without_a_version_removes_or_puts_a_marker() {
    for kind in KINDS {
        for state in STATES {
            let world = World::new(state, kind);
            let first = world.put(1).header("x-amz-version-id").map(str::to_owned);
            let what = format!("{kind:?} {state:?}");
            // Of an object, of nothing or a marker, and of a name that never was.
            for (round, name) in ["o", "o", "never"].into_iter().enumerate() {
                let response = world.node.send(&object("DELETE", name)).expect(204);
                let marker = response.header("x-amz-version-id").map(str::to_owned);
                assert_eq!(response.header("x-amz-delete-marker"), state.map(|_| "true"), "{what}");
                match state {
                    None => assert_eq!(marker, None, "{what}"),
                    Some("Enabled") => assert!(marker.is_some_and(|id| is_id(&id)), "{what}"),
                    Some(_) => assert_eq!(marker.as_deref(), Some("null"), "{what}"),
                }
                if name == "o" {
                    let markers = match state {
                        None => 0,
                        Some("Enabled") => round + 1,
                        Some(_) => 1,
                    };
                    let ids = world.ids();
                    assert_eq!(ids.iter().filter(|id| id.starts_with('(')).count(), markers, "{what}: {ids:?}");
                    let is_kept = state == Some("Enabled");
                    assert_eq!(ids.iter().any(|id| Some(id) == first.as_ref()), is_kept, "{what}: {ids:?}");
                }
            }
            assert_error(&world.node.send(&world.keyed(object("GET", "o"), 1)), 404, "NoSuchKey");
        }
    }
}

#[test]
fn suspended_deletion_keeps_the_versions_with_ids() {
    for kind in KINDS {
        let world = World::new(Some("Enabled"), kind);
        let first = world.put_version(1);
        world.set("Suspended");
        world.put(2);
        world.delete(None).expect(204);
        assert_eq!(world.ids(), ["(null)", &first[..]]);
        world.assert_reads(&object("GET", "o").query("versionId", &first), 1);
        // A write replaces the marker.
        world.put(3);
        assert_eq!(world.ids(), ["null", &first[..]]);
    }
}

#[test]
fn deletion_of_a_version_removes_exactly_that() {
    for kind in KINDS {
        for state in ["Enabled", "Suspended"] {
            let world = World::new(Some("Enabled"), kind);
            let ids = [1, 2, 3].map(|n| world.put_version(n));
            let marker = world.delete(None).header("x-amz-version-id").expect("an id").to_owned();
            world.set(state);
            let deleted = world.delete(Some(&ids[1])).expect(204);
            assert_eq!(deleted.header("x-amz-version-id"), Some(&ids[1][..]));
            assert_eq!(deleted.header("x-amz-delete-marker"), None);
            assert_eq!(world.ids(), [&format!("({marker})")[..], &ids[2], &ids[0]]);
            let get = object("GET", "o").query("versionId", &ids[1]);
            assert_error(&world.node.send(&world.keyed(get, 2)), 404, "NoSuchVersion");
            // Again, and of an unknown one: nothing to do.
            world.delete(Some(&ids[1])).expect(204);
            world.delete(Some("00112233445566778899aabbccddeeff")).expect(204);
            // Without the marker, the newest version is the current one.
            let deleted = world.delete(Some(&marker)).expect(204);
            assert_eq!(deleted.header("x-amz-delete-marker"), Some("true"));
            assert_eq!(deleted.header("x-amz-version-id"), Some(&marker[..]));
            world.assert_reads(&object("GET", "o"), 3);
            world.delete(Some(&ids[2])).expect(204);
            world.assert_reads(&object("GET", "o"), 1);
            world.delete(Some(&ids[0])).expect(204);
            assert!(world.ids().is_empty());
            assert_error(&world.delete(Some("1")), 400, "InvalidArgument");
        }
    }
}

#[test]
fn null_version_is_deleted_in_each_state() {
    for kind in KINDS {
        for state in STATES {
            let world = World::new(None, kind);
            world.put(1);
            if let Some(state) = state {
                world.set(state);
            }
            let deleted = world.delete(Some("null")).expect(204);
            assert_eq!(deleted.header("x-amz-version-id"), state.map(|_| "null"), "{kind:?} {state:?}");
            assert!(world.ids().is_empty(), "{kind:?} {state:?}");
        }
    }
}

#[test]
fn deletion_of_a_version_has_no_condition() {
    let world = World::new(Some("Enabled"), KINDS[0]);
    let first = world.put_version(1);
    let delete = object("DELETE", "o").query("versionId", &first).header("if-match", "*");
    assert_error(&world.node.send(&delete), 501, "NotImplemented");
    let entry = format!("<Object><Key>o</Key><VersionId>{first}</VersionId><ETag>*</ETag></Object>");
    assert!(world.delete_objects(&entry).text().contains("<Code>NotImplemented</Code>"));
    assert_eq!(world.ids(), [first]);
}

#[test]
fn each_entry_of_a_deletion_has_its_version() {
    for kind in KINDS {
        let world = World::new(Some("Enabled"), kind);
        let first = world.put_version(1);
        let second = world.put_version(2);
        let entry = |key: &str, version: &str| {
            let version = if version.is_empty() { String::new() } else { format!("<VersionId>{version}</VersionId>") };
            format!("<Object><Key>{key}</Key>{version}</Object>")
        };
        // Markers, also for a name that never was.
        let response = world.delete_objects(&[entry("o", ""), entry("never", "")].concat()).text();
        assert_eq!(
            response.matches("<DeleteMarker>true</DeleteMarker><DeleteMarkerVersionId>").count(),
            2,
            "{response}"
        );
        assert!(!response.contains("<VersionId>"), "{response}");
        let marker = world.ids()[0].trim_matches(['(', ')']).to_owned();
        assert!(response.contains(&marker), "{response}");
        // A version, a marker, a malformed and an unknown id.
        let unknown = "00112233445566778899aabbccddeeff";
        let all = [entry("o", &first), entry("o", &marker), entry("o", "1"), entry("o", unknown)].concat();
        let response = world.delete_objects(&all).text();
        for expected in [
            format!("<Deleted><Key>o</Key><VersionId>{first}</VersionId></Deleted>"),
            format!(
                "<Deleted><Key>o</Key><VersionId>{marker}</VersionId><DeleteMarker>true</DeleteMarker>\
                <DeleteMarkerVersionId>{marker}</DeleteMarkerVersionId></Deleted>"
            ),
            "<Error><Key>o</Key><VersionId>1</VersionId><Code>NoSuchVersion</Code>".to_owned(),
            format!("<Deleted><Key>o</Key><VersionId>{unknown}</VersionId></Deleted>"),
        ] {
            assert!(response.contains(&expected), "{expected}\n{response}");
        }
        assert_eq!(world.ids(), [second]);
        world.assert_reads(&object("GET", "o"), 2);
    }
}

#[test]
fn entries_about_one_version_are_all_deleted() {
    let world = World::new(Some("Enabled"), KINDS[0]);
    let ids = [1, 2].map(|n| world.put_version(n));
    let entry = |id: &str| format!("<Object><Key>o</Key><VersionId>{id}</VersionId></Object>");
    let all = [entry(&ids[0]), entry(&ids[0]), entry(&ids[1])].concat();
    let response = world.delete_objects(&all).text();
    assert_eq!(response.matches("<Deleted>").count(), 3, "{response}");
    assert!(world.ids().is_empty());
}

#[test]
fn bucket_with_versions_or_markers_is_not_empty() {
    for kind in KINDS {
        let world = World::new(Some("Enabled"), kind);
        let delete = || world.node.send(&Request::new("DELETE", "/bucket"));
        let first = world.put_version(1);
        let marker = world.delete(None).header("x-amz-version-id").expect("an id").to_owned();
        assert_error(&delete(), 409, "BucketNotEmpty");
        world.delete(Some(&first)).expect(204);
        assert_error(&delete(), 409, "BucketNotEmpty");
        world.delete(Some(&marker)).expect(204);
        delete().expect(204);
    }
}

#[test]
fn write_over_a_marker_shows_the_object_again() {
    for kind in KINDS {
        for state in ["Enabled", "Suspended"] {
            let world = World::new(Some(state), kind);
            world.put(1);
            world.delete(None).expect(204);
            world.put(2);
            let get = world.assert_reads(&object("GET", "o"), 2);
            assert_eq!((&get.body, get.header("x-amz-delete-marker")), (&content(2), None));
        }
    }
}
