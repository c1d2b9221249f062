//! Names of remote objects.
//!
//! ```text
//! .keyhole                          the store that the remote belongs to
//! BUCKET/.bucket                    settings of a bucket
//! BUCKET/KEY                        an object without a version id
//! BUCKET/.version/KEY/VERSION       a version with an id, or a delete marker
//! BUCKET/.long/DIGEST               either of them, if that name would be too long
//! BUCKET/.entries/REST              a description that is too long for metadata; REST is the name of
//!                                   its object after the bucket
//! ```
//! A name is that of the object wherever a service can have it. Components that some service refuses or
//! changes are escaped: an empty one as `%`, `.` as `%2E`, `..` as `%2E%2E`, control characters and `%`
//! as `%` and two hex digits. The dot of a first component that is one of the names above is escaped.
//! So is the last dot of `.uploads`, and of a component that ends in `.versions`: SeaweedFS keeps parts
//! and versions of its own in such directories, and does not list them.

use std::fmt::Write;

use keyhole_log::VersionId;
use sha2::{Digest, Sha256};

use crate::limits::{COMPONENT_MAX, NAME_MAX};

/// The name of the object that says which store a remote belongs to.
pub const ROOT: &str = ".keyhole";

const BUCKET: &str = ".bucket";
const VERSIONS: &str = ".version";
const LONG: &str = ".long";
const ENTRIES: &str = ".entries";

/// The first components below a bucket that no key has unescaped.
const RESERVED: [&str; 4] = [BUCKET, VERSIONS, LONG, ENTRIES];

/// Directories that SeaweedFS does not list: one name, and one end of names.
const UNLISTED: &str = ".uploads";
const UNLISTED_END: &str = ".versions";

/// Length of the digest of a long name in hex digits.
const DIGEST_LEN: usize = 64;

/// An object of a remote.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RemoteName {
    /// The settings of a bucket.
    Bucket {
        /// The bucket.
        bucket: String,
    },
    /// The object of a bucket without versioning, or the `null` version if it is an object.
    Object {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
    },
    /// A version with an id, or a delete marker.
    Version {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
        /// The version; `Null` for a marker that is the `null` version.
        version: VersionId,
    },
    /// One of the two, under a digest of its name.
    Long {
        /// The bucket.
        bucket: String,
        /// The digest in hex.
        digest: String,
    },
    /// The description of another object.
    Entry(Box<RemoteName>),
}

/// The names of one remote.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// Longest name below the prefix.
    max: usize,
}

impl Names {
    /// Creates the names of a remote whose prefix has this length.
    pub fn new(prefix_len: usize) -> Self {
        // A slash after the prefix, and room for the name of the description.
        let above = if prefix_len == 0 { 0 } else { prefix_len + 1 };
        Names { max: NAME_MAX.saturating_sub(above + ENTRIES.len() + 1) }
    }

    /// Returns the name of a bucket's settings.
    pub fn bucket(&self, bucket: &str) -> String {
        format!("{bucket}/{BUCKET}")
    }

    /// Returns the name of an object: `version` is `None` for one without a version id.
    pub fn object(&self, bucket: &str, key: &str, version: Option<VersionId>) -> String {
        let mut rest = String::new();
        match version {
            None => escape(key, &mut rest),
            Some(version) => {
                let _ = write!(rest, "{VERSIONS}/");
                escape_components(key, &mut rest);
                let _ = write!(rest, "/{version}");
            }
        }
        let is_long = bucket.len() + 1 + rest.len() > self.max
            || rest.split('/').any(|component| component.len() > COMPONENT_MAX);
        if !is_long {
            return format!("{bucket}/{rest}");
        }
        let mut name = format!("{bucket}/{LONG}/");
        for byte in Sha256::digest(rest.as_bytes()) {
            let _ = write!(name, "{byte:02x}");
        }
        name
    }

    /// Returns the name of a version that is an object, not a marker.
    pub fn stored_version(&self, bucket: &str, key: &str, version: VersionId) -> String {
        self.object(bucket, key, Some(version).filter(|id| *id != VersionId::Null))
    }

    /// Returns whether this is the digest of the name of such an object.
    pub fn is_long(&self, name: &str) -> bool {
        name.split_once('/').is_some_and(|(_, rest)| rest.split_once('/').is_some_and(|(first, _)| first == LONG))
    }
}

/// Returns the name of the description of the object with this name.
pub fn entry_name(name: &str) -> String {
    let (bucket, rest) = name.split_once('/').unwrap_or((name, ""));
    format!("{bucket}/{ENTRIES}/{rest}")
}

/// Parses a name. `None`: no object of a remote has it.
pub fn parse_name(name: &str) -> Option<RemoteName> {
    let (bucket, rest) = name.split_once('/')?;
    if bucket.is_empty() || bucket.starts_with('.') {
        return None;
    }
    let bucket = bucket.to_owned();
    match rest.split_once('/') {
        None if rest == BUCKET => Some(RemoteName::Bucket { bucket }),
        Some((VERSIONS, rest)) => {
            let (key, version) = rest.rsplit_once('/')?;
            let parsed: VersionId = version.parse().ok()?;
            let key = unescape(key, escape_components)?;
            (parsed.to_string() == version).then_some(RemoteName::Version { bucket, key, version: parsed })
        }
        Some((LONG, digest)) => {
            let is_digest =
                digest.len() == DIGEST_LEN && digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            is_digest.then(|| RemoteName::Long { bucket, digest: digest.to_owned() })
        }
        Some((ENTRIES, rest)) => match parse_name(&format!("{bucket}/{rest}"))? {
            RemoteName::Bucket { .. } | RemoteName::Entry(_) => None,
            of => Some(RemoteName::Entry(Box::new(of))),
        },
        _ => {
            let key = unescape(rest, escape)?;
            Some(RemoteName::Object { bucket, key })
        }
    }
}

/// Escapes a key whose first component must not be a reserved one.
fn escape(key: &str, out: &mut String) {
    let first = key.split('/').next().unwrap_or_default();
    if RESERVED.contains(&first) {
        let (_, rest) = key.split_at(1);
        out.push_str("%2E");
        escape_components(rest, out);
    } else {
        escape_components(key, out);
    }
}

fn escape_components(key: &str, out: &mut String) {
    for (index, component) in key.split('/').enumerate() {
        if index > 0 {
            out.push('/');
        }
        match component {
            "" => out.push('%'),
            "." => out.push_str("%2E"),
            ".." => out.push_str("%2E%2E"),
            _ => {
                let is_unlisted = component == UNLISTED || component.ends_with(UNLISTED_END);
                let dot = component.rfind('.').filter(|_| is_unlisted);
                for (at, char) in component.char_indices() {
                    if char == '%' || char.is_ascii_control() || dot == Some(at) {
                        let _ = write!(out, "%{:02X}", u32::from(char));
                    } else {
                        out.push(char);
                    }
                }
            }
        }
    }
}

/// Reverses an escape. `None`: no key has this name.
fn unescape(rest: &str, escape: fn(&str, &mut String)) -> Option<String> {
    let mut key = String::with_capacity(rest.len());
    for (index, component) in rest.split('/').enumerate() {
        if index > 0 {
            key.push('/');
        }
        if component == "%" {
            continue;
        }
        let mut pieces = component.split('%');
        key.push_str(pieces.next()?);
        for piece in pieces {
            let code = u8::from_str_radix(piece.get(..2)?, 16).ok().filter(u8::is_ascii)?;
            key.push(char::from(code));
            key.push_str(&piece[2..]);
        }
    }
    // A key has one name.
    let mut again = String::with_capacity(rest.len());
    escape(&key, &mut again);
    (again == rest).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(prefix_len: usize) -> Names {
        Names::new(prefix_len)
    }

    #[test]
    fn ordinary_key_is_its_own_name() {
        for key in ["a", "photos/2026/cat.jpg", "a b", "\u{e9}\u{1F511}", "a.b/..c/.d", "x/.version/y", ".hidden"] {
            assert_eq!(names(0).object("b", key, None), format!("b/{key}"));
        }
    }

    #[test]
    fn every_key_has_one_legal_name_that_parses_back() {
        let keys = [
            "a",
            "/",
            "//",
            "a//b",
            "a/",
            "/a",
            ".",
            "..",
            "a/../b",
            "./.",
            "%",
            "%2E",
            "100%",
            "a%/b",
            "\n",
            "a\u{7f}",
            ".bucket",
            ".version/a/null",
            ".versions/a",
            "a.versions/b",
            ".uploads",
            "a/.uploads/b",
            ".long/x",
            ".entries",
            ".entries/a",
            ".bucket/",
            "%2Eversion/a",
            ".keyhole",
        ];
        let mut seen = std::collections::HashSet::new();
        for key in keys {
            for version in [None, Some(VersionId::Null), Some(VersionId::Id([0xab; 16]))] {
                let name = names(0).object("b", key, version);
                let is_legal = name.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
                assert!(is_legal && !name.chars().any(|c| c.is_ascii_control()), "{name:?}");
                assert!(seen.insert(name.clone()), "{name}");
                let bucket = "b".to_owned();
                let key = key.to_owned();
                let expected = match version {
                    None => RemoteName::Object { bucket, key },
                    Some(version) => RemoteName::Version { bucket, key, version },
                };
                assert_eq!(parse_name(&name).as_ref(), Some(&expected), "{name}");
                assert_eq!(parse_name(&entry_name(&name)), Some(RemoteName::Entry(Box::new(expected))), "{name}");
            }
        }
        assert_eq!(parse_name(&names(0).bucket("b")), Some(RemoteName::Bucket { bucket: "b".to_owned() }));
    }

    #[test]
    fn long_name_is_replaced_by_its_digest() {
        let names = names(10);
        let max = NAME_MAX - 11 - ENTRIES.len() - 1;
        let segments = |len: usize| {
            let mut key = "k".repeat(len);
            (1..len).step_by(90).for_each(|at| key.replace_range(at..=at, "/"));
            key
        };
        let fits = names.object("b", &segments(max - 2), None);
        assert_eq!(fits.len(), max);
        let long = names.object("b", &segments(max - 1), None);
        assert!(!names.is_long(&fits) && names.is_long(&long), "{long}");
        assert!(matches!(parse_name(&long), Some(RemoteName::Long { digest, .. }) if digest.len() == DIGEST_LEN));
        assert!(
            matches!(parse_name(&entry_name(&long)), Some(RemoteName::Entry(of)) if matches!(*of, RemoteName::Long { .. }))
        );
        assert!(!names.is_long(&names.object("b", &"c".repeat(COMPONENT_MAX), None)));
        assert!(names.is_long(&names.object("b", &"c".repeat(COMPONENT_MAX + 1), None)));
    }

    #[test]
    fn names_of_other_programs_are_not_parsed() {
        for name in [
            ROOT,
            "b",
            "b/",
            "/a",
            ".b/a",
            "b//a",
            "b/a//c",
            "b/./a",
            "b/%zz",
            "b/%2",
            "b/%41",
            "b/%2e",
            "b/a\n",
            "b/.version/a",
            "b/.version/null",
            "b/.version/a/x",
            "b/.version/a/NULL",
            "b/a.versions/b",
            "b/.uploads/a",
            "b/.long/ab",
            "b/.entries/.bucket",
            "b/.entries/.entries/a",
            "b/.bucket/a",
            "b/.long",
        ] {
            assert_eq!(parse_name(name), None, "{name:?}");
        }
    }
}
