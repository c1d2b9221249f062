//! Fuzz targets for all that is parsed from a listing or from the metadata of a remote object.

use keyhole_log::VersionId;
use keyhole_remote::limits::{COMPONENT_MAX, NAME_MAX};
use keyhole_remote::{Fields, Names, ObjectFields, RemoteName, entry_name, parse_name};

/// Parses the input as a name. Names the input as a key, and parses that name.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(parsed) = parse_name(text) {
        check_parsed(text, &parsed);
    }
    let prefix_len = data.len() % 500;
    for version in [None, Some(VersionId::Null), Some(VersionId::Id([data.len() as u8; 16]))] {
        check_named(text, version, prefix_len);
    }
}

/// Checks that a parsed name is the only one of its object.
fn check_parsed(text: &str, parsed: &RemoteName) {
    let names = Names::new(0);
    let name = match parsed {
        RemoteName::Bucket { bucket } => names.bucket(bucket),
        RemoteName::Object { bucket, key } => names.object(bucket, key, None),
        RemoteName::Version { bucket, key, version } => names.object(bucket, key, Some(*version)),
        RemoteName::Long { .. } => return assert!(names.is_long(text)),
        RemoteName::Entry(of) => {
            assert!(!matches!(**of, RemoteName::Bucket { .. } | RemoteName::Entry(_)));
            return;
        }
    };
    // A name that is too long parses, although no remote has it.
    assert!(name == text || names.is_long(&name), "{text:?} is {name:?}");
}

/// Checks that the name of a key is one that services accept, and parses back to the key.
fn check_named(key: &str, version: Option<VersionId>, prefix_len: usize) {
    let names = Names::new(prefix_len);
    let name = names.object("bucket", key, version);
    let is_legal = |part: &str| !matches!(part, "" | "." | "..") && part.len() <= COMPONENT_MAX;
    assert!(name.split('/').all(is_legal) && !name.contains(|char: char| char.is_ascii_control()), "{name:?}");
    let entry = entry_name(&name);
    assert!(prefix_len + 1 + entry.len() <= NAME_MAX, "{entry:?}");
    let Some(parsed) = parse_name(&name) else { panic!("{name:?} does not parse") };
    let bucket = "bucket".to_owned();
    let key = key.to_owned();
    match &parsed {
        RemoteName::Long { .. } => assert!(names.is_long(&name)),
        parsed => {
            let expected = match version {
                None => RemoteName::Object { bucket, key },
                Some(version) => RemoteName::Version { bucket, key, version },
            };
            assert_eq!(*parsed, expected, "{name:?}");
        }
    }
    assert_eq!(parse_name(&entry), Some(RemoteName::Entry(Box::new(parsed))), "{entry:?}");
}

/// Decodes the lines `NAME=VALUE` of the input as metadata.
pub fn fields(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let fields: Fields = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let Some(decoded) = ObjectFields::decode(&fields) else { return };
    let encoded = decoded.encode(None);
    let is_text = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    assert!(encoded.iter().all(|(name, value)| is_text(name) && is_text(value)), "{encoded:?}");
    assert_eq!(ObjectFields::decode(&encoded), Some(decoded));
}
