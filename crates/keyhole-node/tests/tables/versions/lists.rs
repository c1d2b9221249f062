//! ListObjectVersions: order, pages in the middle of a key, and its parameters.

use keyhole_tests::Request;
use keyhole_tests::http::object;

use super::fixture::{Entry, KINDS, Kind, World, entries, named};
use crate::support::assert_error;

fn list(world: &World, parameters: &[(&str, &str)]) -> String {
    let mut request = Request::new("GET", "/bucket").query("versions", "");
    for (name, value) in parameters {
        request = request.query(name, value);
    }
    world.node.send(&request).expect(200).text()
}

fn element(document: &str, name: &str) -> Option<String> {
    let rest = document.split_once(&format!("<{name}>"))?.1;
    Some(rest.split_once("</").expect("its end").0.to_owned())
}

/// Creates three keys with two versions and a marker each; of `b`, the marker is the oldest.
fn three_keys(kind: Kind) -> World {
    let world = World::new(Some("Enabled"), kind);
    for key in ["a", "b", "dir/c"] {
        let put = |n| drop(world.node.send(&world.keyed(object("PUT", key), n).body("x")).expect(200));
        let delete = || drop(world.node.send(&object("DELETE", key)).expect(204));
        match key {
            "b" => {
                delete();
                put(1);
                put(2);
            }
            _ => {
                put(1);
                put(2);
                delete();
            }
        }
    }
    world
}

#[test]
fn versions_are_listed_newest_first_within_a_key() {
    for kind in KINDS {
        let world = three_keys(kind);
        let listed: Vec<_> =
            world.versions().into_iter().map(|entry| (entry.key, entry.is_marker, entry.is_latest)).collect();
        let expected = [
            ("a", true, true),
            ("a", false, false),
            ("a", false, false),
            ("b", false, true),
            ("b", false, false),
            ("b", true, false),
            ("dir/c", true, true),
            ("dir/c", false, false),
            ("dir/c", false, false),
        ];
        assert_eq!(listed, expected.map(|(key, is_marker, is_latest)| (key.to_owned(), is_marker, is_latest)));
        for list_type in ["1", "2"] {
            let current = Request::new("GET", "/bucket");
            let current = if list_type == "2" { current.query("list-type", "2") } else { current };
            let current = world.node.send(&current).expect(200).text();
            assert!(current.contains("<Key>b</Key>") && current.matches("<Contents>").count() == 1, "{current}");
        }
    }
}

#[test]
fn pages_resume_in_the_middle_of_a_key() {
    let world = three_keys(Kind::Plain);
    let all = world.versions();
    for max in 1..=10 {
        let mut found: Vec<Entry> = Vec::new();
        let mut marker: Option<(String, Option<String>)> = None;
        loop {
            let max = max.to_string();
            let mut parameters = vec![("max-keys", &max[..])];
            if let Some((key, version)) = &marker {
                parameters.push(("key-marker", key));
                parameters.extend(version.as_deref().map(|id| ("version-id-marker", id)));
            }
            let page = list(&world, &parameters);
            found.extend(entries(&page));
            match element(&page, "NextKeyMarker") {
                None => break assert_eq!(element(&page, "IsTruncated").as_deref(), Some("false")),
                Some(key) => marker = Some((key, element(&page, "NextVersionIdMarker"))),
            }
        }
        assert_eq!(found, all, "{max} a page");
    }
    // A key without a version: after all versions of the key.
    let behind = entries(&list(&world, &[("key-marker", "a")]));
    assert_eq!(behind, all[3..]);
    // The marker may have been deleted in the meantime.
    let first = &all[1];
    world.node.send(&named(object("DELETE", "a"), Some(&first.id))).expect(204);
    let behind = entries(&list(&world, &[("key-marker", "a"), ("version-id-marker", &first.id)]));
    assert_eq!(behind, all[2..]);
}

#[test]
fn prefix_delimiter_and_encoding_apply_to_versions() {
    let world = three_keys(Kind::Plain);
    assert_eq!(entries(&list(&world, &[("prefix", "dir/")])).len(), 3);
    let grouped = list(&world, &[("delimiter", "/")]);
    assert!(grouped.contains("<CommonPrefixes><Prefix>dir/</Prefix></CommonPrefixes>"), "{grouped}");
    assert_eq!(entries(&grouped).len(), 6);
    let page = list(&world, &[("delimiter", "/"), ("key-marker", "b"), ("max-keys", "1")]);
    assert!(page.contains("<Prefix>dir/</Prefix>") && entries(&page).is_empty(), "{page}");
    world.node.send(&object("PUT", "é +").body("x")).expect(200);
    let encoded = list(&world, &[("prefix", "é"), ("encoding-type", "url")]);
    assert!(encoded.contains("<Key>%C3%A9%20%2B</Key>"), "{encoded}");
    let none = list(&world, &[("max-keys", "0")]);
    assert!(entries(&none).is_empty() && none.contains("<IsTruncated>false</IsTruncated>"), "{none}");
}

#[test]
fn invalid_markers_are_refused() {
    let world = three_keys(Kind::Plain);
    let id = world.versions()[0].id.clone();
    for (parameters, message) in [
        (&[("version-id-marker", &id[..])][..], "A version-id marker cannot be specified without a key marker."),
        (&[("key-marker", "a"), ("version-id-marker", "1")], "Invalid version id specified"),
    ] {
        let mut request = Request::new("GET", "/bucket").query("versions", "");
        for (name, value) in parameters {
            request = request.query(name, value);
        }
        let response = world.node.send(&request);
        assert_error(&response, 400, "InvalidArgument");
        assert_eq!(response.element("Message").as_deref(), Some(message));
    }
}
