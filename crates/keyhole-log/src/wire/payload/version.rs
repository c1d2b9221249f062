//! The records of delete markers, and of what belongs to a version: its deletion, lock and tags.

use super::super::Cursor;
use super::super::lock::{encode_lock, parse_lock};
use crate::version::Lock;

/// Flag of a version that keeps the id it had in another store.
pub(super) const IMPORTED: u8 = 2;
/// Flag of a version that is not the `null` version.
pub(super) const VERSION: u8 = 64;

/// The id of a version, as its record has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum RecordedId {
    /// The `null` version.
    #[default]
    Null,
    /// An id derived from the sequence number.
    Own,
    /// The id that it had in another store.
    Imported([u8; 16]),
}

impl RecordedId {
    pub(super) fn flags(self) -> u8 {
        match self {
            RecordedId::Null => 0,
            RecordedId::Own => VERSION,
            RecordedId::Imported(_) => VERSION | IMPORTED,
        }
    }

    /// Encodes the id behind the other fields of the record.
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        if let RecordedId::Imported(id) = self {
            out.extend_from_slice(&id);
        }
    }

    /// Parses the id that these flags announce.
    pub(super) fn parse(flags: u8, c: &mut Cursor<'_>) -> Option<Self> {
        match (flags & VERSION != 0, flags & IMPORTED != 0) {
            (false, false) => Some(RecordedId::Null),
            (true, false) => Some(RecordedId::Own),
            (true, true) => c.array().map(RecordedId::Imported),
            (false, true) => None,
        }
    }

    /// Returns whether this is the `null` version.
    pub(crate) fn is_null(self) -> bool {
        self == RecordedId::Null
    }

    /// Returns the id that it had in another store.
    pub(crate) fn imported(self) -> Option<[u8; 16]> {
        match self {
            RecordedId::Imported(id) => Some(id),
            RecordedId::Null | RecordedId::Own => None,
        }
    }
}

/// A version of a name, by its sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NamedVersion<'a> {
    pub(crate) bucket: u64,
    pub(crate) version: u64,
    pub(crate) key: &'a str,
}

/// A delete marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MarkerPut<'a> {
    pub(crate) bucket: u64,
    pub(crate) time_ms: u64,
    pub(crate) id: RecordedId,
    pub(crate) key: &'a str,
}

impl<'a> MarkerPut<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.bucket.to_le_bytes());
        out.extend(self.time_ms.to_le_bytes());
        out.extend([self.id.flags(), 0]);
        encode_key(self.key, out);
        self.id.encode(out);
    }

    pub(super) fn parse(c: &mut Cursor<'a>) -> Option<Self> {
        let bucket = c.u64()?;
        let time_ms = c.u64()?;
        let [flags, 0] = c.array()? else { return None };
        if flags & !(IMPORTED | VERSION) != 0 {
            return None;
        }
        let key = parse_key(c)?;
        Some(MarkerPut { bucket, time_ms, key, id: RecordedId::parse(flags, c)? })
    }
}

pub(super) fn encode_tombstone(of: &NamedVersion<'_>, time_ms: u64, out: &mut Vec<u8>) {
    encode_head(of, time_ms, out);
    encode_key(of.key, out);
}

pub(super) fn parse_tombstone<'a>(c: &mut Cursor<'a>) -> Option<(NamedVersion<'a>, u64)> {
    let (bucket, time_ms, version) = parse_head(c)?;
    Some((NamedVersion { bucket, version, key: parse_key(c)? }, time_ms))
}

pub(super) fn encode_locked(of: &NamedVersion<'_>, time_ms: u64, lock: &Lock, out: &mut Vec<u8>) {
    encode_head(of, time_ms, out);
    encode_lock(lock, out);
    encode_key(of.key, out);
}

pub(super) fn parse_locked<'a>(c: &mut Cursor<'a>) -> Option<(NamedVersion<'a>, u64, Lock)> {
    let (bucket, time_ms, version) = parse_head(c)?;
    let lock = parse_lock(c)?;
    Some((NamedVersion { bucket, version, key: parse_key(c)? }, time_ms, lock))
}

pub(super) fn encode_tagged(of: &NamedVersion<'_>, time_ms: u64, tags: &[u8], out: &mut Vec<u8>) {
    encode_tombstone(of, time_ms, out);
    out.extend((tags.len() as u16).to_le_bytes());
    out.extend(tags);
}

pub(super) fn parse_tagged<'a>(c: &mut Cursor<'a>) -> Option<(NamedVersion<'a>, u64, &'a [u8])> {
    let (of, time_ms) = parse_tombstone(c)?;
    let len = c.u16()?;
    Some((of, time_ms, c.bytes(len.into())?))
}

fn encode_head(of: &NamedVersion<'_>, time_ms: u64, out: &mut Vec<u8>) {
    for word in [of.bucket, time_ms, of.version] {
        out.extend(word.to_le_bytes());
    }
}

fn parse_head(c: &mut Cursor<'_>) -> Option<(u64, u64, u64)> {
    Some((c.u64()?, c.u64()?, c.u64()?))
}

fn encode_key(key: &str, out: &mut Vec<u8>) {
    out.extend((key.len() as u16).to_le_bytes());
    out.extend(key.as_bytes());
}

fn parse_key<'a>(c: &mut Cursor<'a>) -> Option<&'a str> {
    let len = c.u16()?;
    c.str(len.into())
}
