//! Each field of each structure is changed, with checksums made right.

use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};

use keyhole_tests::data::fresh_seed;
use keyhole_tests::object_file::tamper::{Field, Tamper};

use super::fixture::{self, Stored};
use super::reads::{deviations, scrubbed};
use crate::support::{MemoryNode, check};

/// Changes tried in one run of the tests, of about 7000; `KEYHOLE_TAMPER` sets a count or `all`.
const SAMPLE: usize = 60;

/// A change of a field.
struct Change<'t> {
    field: &'t Field,
    value: Vec<u8>,
}

/// Returns the changes of each field: other values, and the values of two other objects.
fn changes(fields: &[Field]) -> Vec<Change<'_>> {
    let mut changes = Vec::new();
    for field in fields {
        let is_alike = |other: &&Field| {
            other.name == field.name && other.value.len() == field.value.len() && other.value != field.value
        };
        let swapped = fields.iter().filter(is_alike).take(2).map(|other| other.value.clone());
        let values = field.others().into_iter().chain(swapped);
        changes.extend(values.map(|value| Change { field, value }));
    }
    changes
}

/// Opens the changed store and reads the objects that the change concerns.
fn attempt(change: &Change<'_>, content: &[u8], stored: &[Stored]) -> Vec<String> {
    // The store may be refused as a whole.
    let Ok(node) = MemoryNode::open(content) else { return Vec::new() };
    // After a panic its tasks must not be dropped.
    let node = ManuallyDrop::new(node);
    // Copies share bodies.
    let concerned = |object: &&Stored| match &change.field.key {
        Some(key) => object.key == *key || (*key == "single" && object.key == "copied"),
        None => ["single", "blocks", "unbound"].contains(&object.key),
    };
    let mut found = Vec::new();
    for object in stored.iter().filter(concerned) {
        let deviations = deviations(&node, object);
        // The bytes of plaintext objects are not authenticated.
        if object.is_sealed {
            found.extend(deviations.into_iter().map(|what| format!("{}: {what}", object.key)));
        }
    }
    scrubbed(&node);
    drop(ManuallyDrop::into_inner(node));
    found
}

/// Tries changes of a store and returns those that had an effect that they must not have.
fn faults(content: Vec<u8>, stored: &[Stored]) -> Vec<String> {
    let tamper = Tamper::new(content);
    let fields = tamper.fields();
    let mut changes = changes(&fields);
    let seed = fresh_seed();
    println!("seed {seed}, {} changes of {} fields", changes.len(), fields.len());
    let wanted = std::env::var("KEYHOLE_TAMPER").ok();
    if wanted.as_deref() != Some("all") {
        fastrand::Rng::with_seed(seed).shuffle(&mut changes);
        changes.truncate(wanted.map_or(SAMPLE, |count| count.parse().expect("`all` or a count")));
    }
    let mut faults = Vec::new();
    for change in &changes {
        let content = tamper.with(&[(change.field, &change.value)]);
        let Field { name, key, value, .. } = change.field;
        let what = format!("{name} of {key:?}: {} to {}", short(value), short(&change.value));
        match catch_unwind(AssertUnwindSafe(|| attempt(change, &content, stored))) {
            Ok(found) if found.is_empty() => {}
            Ok(found) => faults.push(format!("{what}: {found:?}")),
            Err(panic) => {
                let message = panic.downcast_ref::<String>().cloned();
                let message = message.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                faults.push(format!("{what}: panic: {}", message.unwrap_or_default()));
            }
        }
    }
    faults
}

fn short(value: &[u8]) -> String {
    hex::encode(&value[..value.len().min(12)])
}

#[test]
fn changed_fields_never_change_sealed_bytes() {
    let (node, stored) = fixture::store();
    for object in &stored {
        assert_eq!(deviations(&node, object), [""; 0], "{}", object.key);
    }
    let (node, stored) = fixture::store();
    let faults = faults(node.content(), &stored);
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn changed_fields_of_a_checkpoint_never_change_sealed_bytes() {
    let (node, stored) = fixture::store();
    let log = node.log.clone();
    node.run(async move { log.checkpoint().await.unwrap() });
    let faults = faults(node.content(), &stored);
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// A contradiction between the sizes of an object, its parts, its bodies and the index is found
/// without the key.
#[test]
fn changed_sizes_are_found_by_scrub_and_check() {
    let (node, stored) = fixture::store();
    let content = node.content();
    assert_eq!(check(&content).unwrap().findings, []);
    let tamper = Tamper::new(content);
    for object in &stored {
        for (name, count) in [("object size", 1), ("object part size", object.parts.len())] {
            let mut fields = tamper.all_fields(object.key, name);
            // The newest of several objects of the name.
            fields.drain(..fields.len() - count);
            for field in fields {
                let size = field.number().unwrap();
                for other in [size.wrapping_sub(1), size + 1_000_000, u64::MAX] {
                    let content = tamper.with(&[(&field, &other.to_le_bytes())]);
                    let what = format!("{name} of {}: {size} to {other}", object.key);
                    let node = MemoryNode::open(&content).unwrap();
                    assert!(scrubbed(&node).iter().any(|key| key == object.key), "{what}");
                    let found = check(&content).unwrap().findings;
                    assert!(found.iter().any(|finding| finding.damage.key.as_deref() == Some(object.key)), "{what}");
                    node.send(&object.request("GET")).expect(500);
                    node.send(&object.request("HEAD")).expect(500);
                }
            }
        }
    }
}
