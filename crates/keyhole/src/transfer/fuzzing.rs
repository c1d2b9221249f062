//! Fuzz targets for the manifest of an export.

#[cfg(test)]
#[path = "../../../keyhole-core/fuzz/src/replay.rs"]
mod replay;

use super::entry::{FileName, ObjectEntry};
use super::manifest::{Line, Lines, ManifestItem, check, is_piece};

/// Decodes a line whose checksum is right; the input lacks it. What is accepted must survive
/// encoding and decoding.
pub(crate) fn manifest_line(data: &[u8]) {
    let said = data.strip_suffix(b"}").unwrap_or(data);
    let whole = [said, format!(",\"check\":\"{}\"}}", check(said)).as_bytes()].concat();
    let Ok(line) = Line::decode(&whole) else { return };
    let encoded = line.encode();
    let again = Line::decode(encoded.strip_suffix(b"\n").expect("a line"));
    assert_eq!(again.ok().as_ref(), Some(&line));
    match &line {
        Line::Bucket(bucket) => {
            let _ = bucket.settings();
        }
        Line::Object(object) => object_entry(object),
        Line::Marker(marker) => {
            let _ = (marker.check(), marker.name());
        }
        Line::Export(_) | Line::Digest(_) | Line::Failed(_) | Line::End(_) => {}
    }
}

/// Reads the description of an object. Its own file must have a name that an export can contain.
fn object_entry(object: &ObjectEntry) {
    let name = object.file.to_string();
    assert_eq!(FileName::parse(&name).as_ref(), Some(&object.file), "{name}");
    let _ = object.name();
    let Ok(description) = object.description() else { return };
    assert_eq!(description.version.is_some(), object.version.is_some());
    assert_eq!(description.lock.is_none(), object.lock.is_none(), "a lock is never lost");
}

/// Reads a piece of a manifest to its end.
pub(crate) fn manifest(data: &[u8]) {
    let mut lines = Lines::new(data);
    let mut count = 0;
    while let ManifestItem::Line(_) | ManifestItem::Bad(_) = lines.next().expect("memory is readable") {
        count += 1;
    }
    assert!(count <= data.len());
    let _ = std::str::from_utf8(data).map(|path| (is_piece(path), FileName::parse(path)));
}

#[cfg(test)]
mod tests {
    use super::replay::replay;

    #[test]
    fn manifest_line_corpus_passes() {
        replay("manifest_line", super::manifest_line);
    }

    #[test]
    fn manifest_corpus_passes() {
        replay("manifest", super::manifest);
    }
}
