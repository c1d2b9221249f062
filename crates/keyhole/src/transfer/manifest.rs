//! The manifest of an export: JSON lines, each with its own checksum.

use std::io::{self, BufRead, Read};

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use super::entry::{BucketEntry, FileName, ObjectEntry, Sha256};
use super::invalid::LineError;
use super::versions::MarkerEntry;

/// The versions of the format: without and with versions of objects.
pub(crate) const VERSION_PLAIN: u32 = 1;
pub(crate) const VERSION: u32 = 2;

/// Limit of a line in bytes, line feed included. A plaintext object of 10,000 parts with a SHA-256
/// each takes 1.6 MiB.
pub(crate) const LINE_MAX: usize = 4 << 20;

/// The directory of the manifest.
pub(crate) const MANIFEST: &str = "manifest";

/// The suffix of its pieces' names.
pub(crate) const PIECE: &str = ".jsonl";

/// The separator between a line's content and its checksum, and the checksum's length.
const CHECK: &str = ",\"check\":\"";
const CHECK_LEN: usize = 32;
const CHECK_END: &str = "\"}";

/// Returns the name of a piece of the manifest, relative to the top of an export.
pub(crate) fn piece(number: u64) -> String {
    format!("{MANIFEST}/{number:08}{PIECE}")
}

/// Returns whether this is the name of a piece.
pub(crate) fn is_piece(path: &str) -> bool {
    let name = path.strip_prefix(MANIFEST).and_then(|rest| rest.strip_prefix('/'));
    let digits = name.and_then(|name| name.strip_suffix(PIECE));
    digits.is_some_and(|digits| digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// One line.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(tag = "line", rename_all = "kebab-case")]
pub(crate) enum Line {
    /// The header: the first line of every piece.
    Export(Export),
    /// A bucket, followed by its objects.
    Bucket(BucketEntry),
    /// An object.
    Object(Box<ObjectEntry>),
    /// A delete marker.
    Marker(MarkerEntry),
    /// The digest of an object's file, if the object's own line has none.
    Digest(FileDigest),
    /// Marks the file of such an object as invalid, because it could not be read to its end.
    Failed(Failed),
    /// The end of a complete export.
    End(End),
}

/// The header.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Export {
    pub(crate) version: u32,
}

/// The digest of a file.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileDigest {
    pub(crate) file: FileName,
    pub(crate) sha256: Sha256,
}

/// A file that is invalid.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Failed {
    pub(crate) file: FileName,
    pub(crate) what: String,
}

/// The content of an export.
#[derive(Serialize, Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct End {
    pub(crate) buckets: u64,
    pub(crate) objects: u64,
    /// Bytes of the objects' files.
    pub(crate) bytes: u64,
    /// Damaged objects, which the export does not contain.
    pub(crate) damaged: u64,
    /// Delete markers.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) markers: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Line {
    /// Returns the first line of a piece of an export of this version.
    pub(crate) fn first(version: u32) -> Self {
        Line::Export(Export { version })
    }

    /// Returns the first version of the format that has such a line.
    fn version(&self) -> u32 {
        let has_versions = match self {
            Line::Export(Export { version }) => return *version,
            Line::Bucket(bucket) => bucket.versioning.is_some() || bucket.object_lock.is_some(),
            Line::Object(object) => object.version.is_some() || object.lock.is_some(),
            Line::Marker(_) => true,
            Line::Digest(_) | Line::Failed(_) => false,
            Line::End(end) => end.markers > 0,
        };
        if has_versions { VERSION } else { VERSION_PLAIN }
    }

    /// Encodes the line, line feed included.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut text = serde_json::to_string(self).expect("what a line is made of can be written");
        // The checksum goes before the closing brace of the object.
        text.pop();
        let check = check(text.as_bytes());
        text.push_str(CHECK);
        text.push_str(&check);
        text.push_str(CHECK_END);
        text.push('\n');
        text.into_bytes()
    }

    /// Decodes a line without its line feed.
    ///
    /// # Errors
    /// The line is damaged, or of another version.
    pub(crate) fn decode(line: &[u8]) -> Result<Self, LineError> {
        let rest = line.strip_suffix(CHECK_END.as_bytes()).ok_or(LineError::Damaged)?;
        let (rest, found) = rest.split_at_checked(rest.len().saturating_sub(CHECK_LEN)).ok_or(LineError::Damaged)?;
        let said = rest.strip_suffix(CHECK.as_bytes()).ok_or(LineError::Damaged)?;
        if check(said).as_bytes() != found {
            return Err(LineError::Damaged);
        }
        let whole = [said, b"}"].concat();
        match serde_json::from_slice(&whole)? {
            Line::Export(Export { version }) if !(VERSION_PLAIN..=VERSION).contains(&version) => {
                Err(LineError::Version { found: version, expected: VERSION })
            }
            line => Ok(line),
        }
    }
}

/// Returns the checksum of a line: the first half of its SHA-256, in hex.
pub(super) fn check(said: &[u8]) -> String {
    hex::encode(&digest::digest(&digest::SHA256, said).as_ref()[..CHECK_LEN / 2])
}

/// An item read from a piece.
#[derive(Debug)]
pub(crate) enum ManifestItem {
    /// A line.
    Line(Line),
    /// An invalid line, and the reason.
    Bad(String),
    /// The last line without a line feed: it was being written.
    Torn,
    /// The end of the piece.
    End,
}

/// Reads the lines of a piece.
pub(crate) struct Lines<R> {
    input: R,
    line: Vec<u8>,
    number: u64,
    /// The version that the piece declares, once its first line was read.
    version: Option<u32>,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(input: R) -> Self {
        Lines { input, line: Vec::new(), number: 0, version: None }
    }

    /// Reads the next line.
    ///
    /// # Errors
    /// An error of the input.
    pub(crate) fn next(&mut self) -> io::Result<ManifestItem> {
        self.line.clear();
        self.number += 1;
        (&mut self.input).take(LINE_MAX as u64).read_until(b'\n', &mut self.line)?;
        let number = self.number;
        let Some(line) = self.line.strip_suffix(b"\n") else {
            return Ok(match self.line.len() {
                0 => ManifestItem::End,
                LINE_MAX if self.skip()? => ManifestItem::Bad(format!("line {number} is too long")),
                _ => ManifestItem::Torn,
            });
        };
        let decoded = Line::decode(line).and_then(|line| self.admit(line));
        Ok(match decoded {
            Ok(line) => ManifestItem::Line(line),
            Err(what) => ManifestItem::Bad(format!("line {number}: {what}")),
        })
    }

    /// Refuses a line that the declared version does not have.
    fn admit(&mut self, line: Line) -> Result<Line, LineError> {
        if let Line::Export(Export { version }) = line {
            self.version = Some(version);
        }
        match (line.version(), self.version) {
            (found, Some(expected)) if found > expected => Err(LineError::NewerContent { found, expected }),
            _ => Ok(line),
        }
    }

    /// Skips the rest of a line; returns whether it had an end.
    fn skip(&mut self) -> io::Result<bool> {
        loop {
            let there = self.input.fill_buf()?;
            let end = there.iter().position(|byte| *byte == b'\n');
            let len = end.map_or(there.len(), |end| end + 1);
            let is_end = there.is_empty();
            self.input.consume(len);
            if end.is_some() || is_end {
                return Ok(end.is_some());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use keyhole_log::{
        BucketLock, BucketSettings, DefaultRetention, Lock, Retention, RetentionMode, RetentionPeriod, VersionId,
        Versioning,
    };
    use keyhole_node::transfer::Description;

    use super::super::entry::tests::description;
    use super::super::versions::Version;
    use super::*;

    fn first_line() -> Line {
        Line::first(VERSION_PLAIN)
    }

    /// Returns lines that only version 2 has.
    fn versioned_lines() -> Vec<Line> {
        let default = DefaultRetention { mode: RetentionMode::Governance, period: RetentionPeriod::Years(2) };
        let lock = Some(BucketLock { default: Some(default) });
        let settings = BucketSettings { versioning: Versioning::Enabled, lock, ..BucketSettings::default() };
        let suspended = BucketSettings { versioning: Versioning::Suspended, ..BucketSettings::default() };
        let retention = Some(Retention { mode: RetentionMode::Compliance, until_ms: 9 });
        let id = VersionId::Id([0xab; 16]);
        let lock = Lock { retention, hold: true };
        let of_id = Description { version: Some(id), lock, ..description("k", &[]) };
        let of_null = Description { version: Some(VersionId::Null), ..description("k", &[5 << 20, 1]) };
        let object = |of: &Description| Line::Object(Box::new(ObjectEntry::new(of, &of.head, of.size).unwrap()));
        vec![
            Line::Bucket(BucketEntry::new("bucket".to_owned(), 1, &settings)),
            object(&of_null),
            object(&of_id),
            Line::Marker(MarkerEntry {
                bucket: "bucket".to_owned(),
                key: "k".to_owned(),
                version: Version(VersionId::Id([7; 16])),
                modified_ms: 8,
            }),
            Line::Bucket(BucketEntry::new("suspended".to_owned(), 1, &suspended)),
            Line::End(End { buckets: 2, objects: 2, bytes: 3, damaged: 0, markers: 1 }),
        ]
    }

    fn lines() -> Vec<Line> {
        let entry = |key: &str, sizes: &[u64]| {
            let description = description(key, sizes);
            ObjectEntry::new(&description, &description.head, description.size).unwrap()
        };
        let whole = entry("a \"key\"\n", &[]);
        let sha256 = Sha256([5; 32]);
        vec![
            first_line(),
            Line::Bucket(BucketEntry::new("bucket".to_owned(), 1, &Default::default())),
            Line::Object(Box::new(ObjectEntry { sha256: Some(sha256), ..whole.clone() })),
            Line::Object(Box::new(entry("parts", &[5 << 20, 7]))),
            Line::Digest(FileDigest { file: whole.file, sha256 }),
            Line::Failed(Failed { file: whole.file, what: "a block that does not verify".to_owned() }),
            Line::End(End { buckets: 1, objects: 2, bytes: 3, damaged: 5, markers: 0 }),
        ]
    }

    /// Returns the lines of a piece, the count of invalid ones, and whether it is torn.
    fn read(bytes: &[u8]) -> (Vec<Line>, usize, bool) {
        let mut lines = Lines::new(bytes);
        let mut good = Vec::new();
        let mut bad = 0;
        loop {
            match lines.next().unwrap() {
                ManifestItem::Line(line) => good.push(line),
                ManifestItem::Bad(_) => bad += 1,
                ManifestItem::Torn => return (good, bad, true),
                ManifestItem::End => return (good, bad, false),
            }
        }
    }

    #[test]
    fn lines_round_trip() {
        let bytes: Vec<u8> = lines().iter().flat_map(Line::encode).collect();
        assert_eq!(read(&bytes), (lines(), 0, false));
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let json: serde_json::Value = serde_json::from_slice(line).unwrap();
            assert_eq!(json["check"].as_str().unwrap().len(), CHECK_LEN, "it is JSON with its check");
        }
    }

    #[test]
    fn longest_line_is_within_limit() {
        let parts = vec![5u64 << 30; keyhole_log::limits::PARTS_MAX - 1];
        let mut description = description(&"\u{1}".repeat(1024), &parts);
        let mut sums = keyhole_core::head::Checksums::default();
        sums.set(keyhole_core::head::ChecksumAlgorithm::Sha256, &[255; 32]).unwrap();
        let mut info = vec![0; 100];
        let len = keyhole_core::head::Head { checksums: sums, ..Default::default() }.encode(&mut info).unwrap();
        info.truncate(len);
        description.parts.iter_mut().for_each(|part| part.checksums = Some(info.clone()));
        let entry = ObjectEntry::new(&description, &description.head, description.size).unwrap();
        let line = Line::Object(Box::new(entry)).encode();
        assert!(line.len() > 1 << 20 && line.len() <= LINE_MAX / 2, "{}", line.len());
    }

    #[test]
    fn line_length_is_bounded() {
        let first = first_line().encode();
        let long = |len: usize| [&first[..], &vec![b'x'; len], b"\n", &first].concat();
        assert_eq!(read(&long(LINE_MAX - 1)), (vec![first_line(); 2], 1, false));
        assert_eq!(read(&long(LINE_MAX)), (vec![first_line(); 2], 1, false));
        assert_eq!(read(&long(3 * LINE_MAX)), (vec![first_line(); 2], 1, false));
        assert_eq!(read(&long(LINE_MAX)[..first.len() + LINE_MAX]), (vec![first_line()], 0, true));
    }

    #[test]
    fn other_version_is_rejected() {
        for other in [0, VERSION + 1] {
            let line = Line::first(other).encode();
            let said = Line::decode(line.strip_suffix(b"\n").unwrap()).unwrap_err().to_string();
            assert!(said.contains(&format!("version {other}")) && said.contains("versions 1 to 2"), "{said}");
        }
    }

    #[test]
    fn lines_of_version_2_round_trip() {
        let lines = [vec![Line::first(VERSION)], lines()[1..].to_vec(), versioned_lines()].concat();
        let bytes: Vec<u8> = lines.iter().flat_map(Line::encode).collect();
        assert_eq!(read(&bytes), (lines, 0, false));
    }

    #[test]
    fn version_1_has_no_versions() {
        for line in versioned_lines() {
            let piece = [first_line().encode(), line.encode()].concat();
            assert_eq!(read(&piece), (vec![first_line()], 1, false), "{line:?}");
            assert_eq!(read(&line.encode()), (vec![line], 0, false), "its first line may be damaged");
        }
    }

    #[test]
    fn marker_with_contents_is_rejected() {
        let marker = r#"{"line":"marker","bucket":"b","key":"k","version":"null","modified_ms":1"#;
        let decode = |said: &str| {
            let line = format!("{said},\"check\":\"{}\"}}", check(said.as_bytes()));
            Line::decode(line.as_bytes())
        };
        assert!(matches!(decode(marker), Ok(Line::Marker(_))));
        for more in [r#""size":5"#, r#""file":"objects/x""#, r#""lock":{"hold":true}"#] {
            let said = decode(&format!("{marker},{more}")).unwrap_err().to_string();
            assert!(said.contains("unknown field"), "{said}");
        }
    }

    #[test]
    fn piece_names_have_digits_and_suffix() {
        assert!(is_piece(&piece(1)) && is_piece(&piece(123_456_789)));
        for bad in ["manifest/1.jsonl", "manifest/../00000001.jsonl", "manifest/00000001.partial", "00000001.jsonl", ""]
        {
            assert!(!is_piece(bad), "{bad}");
        }
    }

    /// A manifest with any damage is read to its end, and yields no line that was not written.
    #[test]
    fn damaged_lines_are_rejected() {
        let mut seed = [0; 8];
        crate::env::random(&mut seed);
        for seed in [1, 2, 3, u64::from_le_bytes(seed)] {
            println!("seed {seed}");
            let mut random = fastrand::Rng::with_seed(seed);
            let mut written = [lines(), versioned_lines()].concat();
            written[0] = Line::first(VERSION);
            let whole: Vec<u8> = written.iter().flat_map(Line::encode).collect();
            for _ in 0..2000 {
                let mut bytes = whole.clone();
                for _ in 0..random.usize(1..4) {
                    mutate(&mut bytes, &mut random);
                }
                let (good, bad, torn) = read(&bytes);
                assert!(good.iter().all(|line| written.contains(line)), "seed {seed}");
                assert!(bytes == whole || bad > 0 || torn || good != written, "seed {seed}");
            }
        }
    }

    fn mutate(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
        if bytes.is_empty() {
            return;
        }
        let at = random.usize(..bytes.len());
        let len = random.usize(1..40).min(bytes.len() - at);
        match random.u8(..6) {
            0 => bytes[at] ^= 1 << random.u8(..8),
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(at..at + len)),
            3 => {
                let some = bytes[at..at + len].to_vec();
                let to = random.usize(..bytes.len());
                bytes.splice(to..to, some);
            }
            4 => bytes[at..at + len].iter_mut().for_each(|byte| *byte = random.u8(..)),
            _ => bytes.insert(at, *b"\n{}\"\\,\0\xff".get(random.usize(..8)).unwrap()),
        }
    }
}
