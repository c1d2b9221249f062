//! The user metadata of remote objects.

use base64ct::{Base64, Encoding};
use keyhole_log::VersionInfo;

use crate::limits::ENTRY_FIELD_MAX;
use crate::service::Fields;

/// The version of this format.
const FORMAT: &str = "1";

/// Names of the fields. Services return them in lower case.
mod name {
    pub(super) const FORMAT: &str = "keyhole-format";
    pub(super) const STORE: &str = "keyhole-store";
    pub(super) const KIND: &str = "keyhole-kind";
    pub(super) const NUMBER: &str = "keyhole-number";
    pub(super) const KEY: &str = "keyhole-key";
    pub(super) const SIZE: &str = "keyhole-size";
    pub(super) const ETAG: &str = "keyhole-etag";
    pub(super) const MODIFIED: &str = "keyhole-modified-ms";
    pub(super) const ENTRY: &str = "keyhole-entry";
    pub(super) const ENTRY_LEN: &str = "keyhole-entry-length";
}

/// The kind of a remote object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The store that the remote belongs to.
    Root,
    /// The settings of a bucket.
    Bucket,
    /// An object: a sealed object file, or the bytes of a plaintext object.
    Object,
    /// A delete marker.
    Marker,
    /// The description of an object.
    Entry,
}

impl Kind {
    const ALL: [(Kind, &'static str); 5] = [
        (Kind::Root, "remote"),
        (Kind::Bucket, "bucket"),
        (Kind::Object, "object"),
        (Kind::Marker, "marker"),
        (Kind::Entry, "entry"),
    ];

    fn text(self) -> &'static str {
        Kind::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, text)| text)
    }
}

/// Where the description of an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryPlace {
    /// In the metadata.
    Here(Vec<u8>),
    /// In an object of its own, of this length in bytes.
    Beside(u64),
}

/// The metadata of a remote object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectFields {
    /// Identity of the store that wrote it.
    pub store: [u8; 16],
    /// Kind of the object.
    pub kind: Kind,
    /// Its number in that store: orders the versions of a key. 0 for objects of other kinds.
    pub number: u64,
    /// The number of its last change, including that of its tags and lock.
    pub change: u64,
    /// The key, if the name is a digest.
    pub key: Option<String>,
    /// The description.
    pub entry: Option<EntryPlace>,
}

impl ObjectFields {
    /// Returns the metadata of an object that belongs to no version.
    pub fn plain(store: [u8; 16], kind: Kind, number: u64) -> Self {
        ObjectFields { store, kind, number, change: number, key: None, entry: None }
    }

    /// Returns whether it is the metadata of the object with this number in this store.
    pub fn is_object(&self, store: [u8; 16], number: u64) -> bool {
        self.kind == Kind::Object && self.store == store && self.number == number
    }

    /// Encodes the metadata, and the properties of a version for other programs.
    pub fn encode(&self, version: Option<&VersionInfo>) -> Fields {
        let mut fields = Fields::new();
        let mut set = |name: &str, value: String| drop(fields.insert(name.to_owned(), value));
        set(name::FORMAT, FORMAT.to_owned());
        set(name::STORE, hex::encode(self.store));
        set(name::KIND, self.kind.text().to_owned());
        set(name::NUMBER, format!("{} {}", self.number, self.change));
        if let Some(key) = &self.key {
            set(name::KEY, Base64::encode_string(key.as_bytes()));
        }
        if let Some(VersionInfo { size, etag, time_ms, .. }) = version.filter(|_| self.kind == Kind::Object) {
            set(name::SIZE, size.to_string());
            set(name::ETAG, etag.to_string());
            set(name::MODIFIED, time_ms.to_string());
        }
        match &self.entry {
            Some(EntryPlace::Here(entry)) => set(name::ENTRY, Base64::encode_string(entry)),
            Some(EntryPlace::Beside(len)) => set(name::ENTRY_LEN, len.to_string()),
            None => {}
        }
        fields
    }

    /// Decodes metadata. `None`: the object is not of a remote, or of a newer format.
    pub fn decode(fields: &Fields) -> Option<Self> {
        let text = |name: &str| fields.get(name).map(String::as_str);
        if text(name::FORMAT)? != FORMAT {
            return None;
        }
        let mut store = [0; 16];
        hex::decode_to_slice(text(name::STORE)?, &mut store).ok()?;
        let kind = text(name::KIND)?;
        let (kind, _) = *Kind::ALL.iter().find(|(_, text)| *text == kind)?;
        let (number, change) = text(name::NUMBER)?.split_once(' ')?;
        let key = match text(name::KEY) {
            Some(key) => Some(String::from_utf8(Base64::decode_vec(key).ok()?).ok()?),
            None => None,
        };
        let entry = match (text(name::ENTRY), text(name::ENTRY_LEN)) {
            (Some(entry), None) => Some(EntryPlace::Here(Base64::decode_vec(entry).ok()?)),
            (None, Some(len)) => Some(EntryPlace::Beside(len.parse().ok()?)),
            (None, None) => None,
            (Some(_), Some(_)) => return None,
        };
        Some(ObjectFields { store, kind, number: number.parse().ok()?, change: change.parse().ok()?, key, entry })
    }
}

/// Returns the place of a description, by its length.
pub fn place_of(entry: &[u8]) -> EntryPlace {
    if Base64::encoded_len(entry) <= ENTRY_FIELD_MAX {
        EntryPlace::Here(entry.to_vec())
    } else {
        EntryPlace::Beside(entry.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use keyhole_log::{Etag, Lock, VersionId};

    use super::*;

    fn version() -> VersionInfo {
        VersionInfo {
            key: "k".to_owned(),
            version: VersionId::Null,
            is_latest: true,
            is_marker: false,
            size: u64::MAX,
            etag: Etag { digest: [0xff; 16], parts: 10_000 },
            sealed: true,
            time_ms: 253_402_300_799_999,
            lock: Lock::default(),
            seq: u64::MAX,
            is_evicted: false,
        }
    }

    #[test]
    fn fields_round_trip() {
        let base = ObjectFields { change: 9, ..ObjectFields::plain([7; 16], Kind::Object, 8) };
        for entry in [None, Some(EntryPlace::Here(b"{}".to_vec())), Some(EntryPlace::Beside(5))] {
            for (kind, _) in Kind::ALL {
                for key in [None, Some("a/\u{e9}\n".to_owned())] {
                    let fields = ObjectFields { kind, key, entry: entry.clone(), ..base.clone() };
                    assert_eq!(ObjectFields::decode(&fields.encode(Some(&version()))), Some(fields));
                }
            }
        }
    }

    #[test]
    fn foreign_and_newer_metadata_is_refused() {
        let fields = ObjectFields::plain([7; 16], Kind::Marker, 8).encode(None);
        assert!(ObjectFields::decode(&fields).is_some() && ObjectFields::decode(&Fields::new()).is_none());
        for name in fields.keys() {
            let mut without = fields.clone();
            without.remove(name);
            assert_eq!(ObjectFields::decode(&without), None, "without {name}");
            let mut other = fields.clone();
            other.insert(name.clone(), "2".to_owned());
            assert_eq!(ObjectFields::decode(&other), None, "with another {name}");
        }
        let mut both = fields;
        both.insert(name::ENTRY.to_owned(), String::new());
        both.insert(name::ENTRY_LEN.to_owned(), "1".to_owned());
        assert_eq!(ObjectFields::decode(&both), None);
    }

    /// Amazon S3 counts the bytes of all names and values.
    #[test]
    fn longest_metadata_stays_below_2_kib() {
        let len = |fields: &Fields| {
            fields.iter().map(|(name, value)| "x-amz-meta-".len() + name.len() + value.len()).sum::<usize>()
        };
        let longest = vec![b'e'; ENTRY_FIELD_MAX / 4 * 3];
        let here = place_of(&longest);
        assert!(matches!(here, EntryPlace::Here(_)));
        let beside = place_of(&[&longest[..], b"e"].concat());
        assert!(matches!(beside, EntryPlace::Beside(_)));
        let base = ObjectFields { change: u64::MAX, ..ObjectFields::plain([7; 16], Kind::Object, u64::MAX) };
        let short = ObjectFields { entry: Some(here), ..base.clone() };
        assert!(len(&short.encode(Some(&version()))) <= 2048);
        // The description of a key of the greatest length is never in the metadata.
        let long = ObjectFields { key: Some("k".repeat(1024)), entry: Some(beside), ..base };
        assert!(len(&long.encode(Some(&version()))) <= 2048);
    }
}
