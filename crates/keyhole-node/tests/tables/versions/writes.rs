//! The rows of writes: PUT, POST, copy and completion.

use keyhole_tests::Request;
use keyhole_tests::http::object;

use super::fixture::{KINDS, STATES, World, is_id, set_state};
use crate::support::assert_error;

#[test]
fn write_replaces_or_adds_a_version() {
    for kind in KINDS {
        for state in STATES {
            let ways = World::new(None, kind).each_write().len();
            for way in 0..ways {
                let world = World::new(state, kind);
                let (name, write) = world.each_write().remove(way);
                let what = format!("{kind:?} {state:?} {name}");
                let ids: Vec<_> = (1..=2)
                    .map(|n| {
                        let response = write(n);
                        assert!(response.status < 300, "{what}: {}", response.text());
                        response.header("x-amz-version-id").map(str::to_owned)
                    })
                    .collect();
                match state {
                    None => assert_eq!((&ids[..], world.ids()), (&[None, None][..], vec!["null".to_owned()]), "{what}"),
                    Some("Enabled") => {
                        let ids: Vec<_> = ids.into_iter().flatten().rev().collect();
                        assert!(ids.iter().all(|id| is_id(id)) && ids[0] != ids[1], "{what}: {ids:?}");
                        assert_eq!(world.ids(), ids, "{what}");
                        world.assert_reads(&object("GET", "o").query("versionId", &ids[1]), 1);
                    }
                    Some(_) => {
                        let null = Some("null".to_owned());
                        assert_eq!((ids, world.ids()), (vec![null.clone(), null], vec!["null".to_owned()]), "{what}");
                    }
                }
                world.assert_reads(&object("GET", "o"), 2);
            }
        }
    }
}

#[test]
fn states_follow_each_other_and_versions_stay() {
    for kind in KINDS {
        let world = World::new(None, kind);
        let state = || world.node.send(&Request::new("GET", "/bucket").query("versioning", "")).expect(200);
        assert_eq!(state().element("Status"), None);
        world.put(1);
        world.set("Enabled");
        assert_eq!(state().element("Status").as_deref(), Some("Enabled"));
        let second = world.put_version(2);
        world.set("Suspended");
        assert_eq!(state().element("Status").as_deref(), Some("Suspended"));
        assert_eq!(world.ids(), [&second[..], "null"]);
        // Replaces the version from before versioning, and is now the newest.
        assert_eq!(world.put_version(3), "null");
        assert_eq!(world.ids(), ["null", &second[..]]);
        world.set("Enabled");
        let fourth = world.put_version(4);
        assert_eq!(world.ids(), [&fourth[..], "null", &second[..]]);
        for (id, n) in [(&second[..], 2), ("null", 3), (&fourth[..], 4)] {
            world.assert_reads(&object("GET", "o").query("versionId", id), n);
        }
        let listed = world.node.send(&Request::new("GET", "/bucket").query("list-type", "2")).expect(200).text();
        assert_eq!(listed.matches("<Contents>").count(), 1, "current versions only: {listed}");
    }
}

#[test]
fn versioning_documents_are_refused_without_effect() {
    let world = World::new(None, KINDS[0]);
    let put = |document: &str| world.node.send(&Request::new("PUT", "/bucket").query("versioning", "").body(document));
    for (inner, status, code) in [
        ("<Status>Disabled</Status>", 400, "MalformedXML"),
        ("", 400, "IllegalVersioningConfigurationException"),
        ("<Status>Enabled</Status><MfaDelete>Enabled</MfaDelete>", 501, "NotImplemented"),
    ] {
        let response = put(&format!("<VersioningConfiguration>{inner}</VersioningConfiguration>"));
        assert_error(&response, status, code);
    }
    assert_eq!(world.put(1).header("x-amz-version-id"), None);
    let missing = set_state("Enabled").with_path("/missing");
    assert_error(&world.node.send(&missing), 404, "NoSuchBucket");
}

#[test]
fn conditions_are_about_the_current_version() {
    for kind in KINDS {
        for state in ["Enabled", "Suspended"] {
            let world = World::new(Some(state), kind);
            let put = |n: u8, name: &str, value: &str| {
                world.node.send(&world.keyed(object("PUT", "o").header(name, value), n).body("x"))
            };
            let first = world.put(1).header("etag").expect("an ETag").to_owned();
            assert_error(&put(2, "if-none-match", "*"), 412, "PreconditionFailed");
            let second = world.put(2).header("etag").expect("an ETag").to_owned();
            assert_error(&put(3, "if-match", &first), 412, "PreconditionFailed");
            put(3, "if-match", &second).expect(200);
            // Under a delete marker there is no object.
            world.delete(None).expect(204);
            assert_error(&put(4, "if-match", "*"), 404, "NoSuchKey");
            put(4, "if-none-match", "*").expect(200);
        }
    }
}
