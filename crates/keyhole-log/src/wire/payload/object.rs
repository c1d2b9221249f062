//! The records of objects, uploads and parts.

use super::super::Cursor;
use super::super::lock::{encode_lock, parse_lock};
use super::super::part::{encode_part, parse_part};
use super::version::{IMPORTED, RecordedId, VERSION};
use crate::types::{Etag, Part};
use crate::version::Lock;

const SEALED: u8 = 1;
const DECLARED: u8 = 2;
const BOUND: u8 = 4;
const TAGS: u8 = 8;
const PART_CHECKSUMS: u8 = 16;
const COMPLETED: u8 = 32;
const LOCKED: u8 = 128;
// An object uses every flag, so that none is unknown.
const _: () = assert!((SEALED | BOUND | TAGS | PART_CHECKSUMS | COMPLETED | VERSION | IMPORTED | LOCKED) == u8::MAX);
/// Flag of an upload with a lock.
const UPLOAD_LOCKED: u8 = 16;

/// An object, and the upload that it completes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObjectPut<'a> {
    pub(crate) bucket: u64,
    /// The upload that this completes.
    pub(crate) upload: Option<u64>,
    pub(crate) size: u64,
    pub(crate) time_ms: u64,
    pub(crate) etag: Etag,
    pub(crate) sealed: bool,
    /// Whether the object head must list the parts.
    pub(crate) bound: bool,
    pub(crate) key: &'a str,
    pub(crate) head: &'a [u8],
    pub(crate) parts: Vec<Part>,
    pub(crate) tags: &'a [u8],
    /// Part checksums.
    pub(crate) part_checksums: &'a [u8],
    /// The id of the upload that was completed to this object.
    pub(crate) completed: Option<[u8; 16]>,
    pub(crate) id: RecordedId,
    pub(crate) lock: Lock,
}

/// A created upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UploadCreate<'a> {
    pub(crate) bucket: u64,
    pub(crate) id: [u8; 16],
    pub(crate) time_ms: u64,
    pub(crate) sealed: bool,
    pub(crate) declared: Option<(u8, u8)>,
    pub(crate) key: &'a str,
    pub(crate) head: &'a [u8],
    pub(crate) tags: &'a [u8],
    /// The lock of the future object.
    pub(crate) lock: Lock,
}

/// A part of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartPut<'a> {
    pub(crate) bucket: u64,
    pub(crate) upload: u64,
    pub(crate) time_ms: u64,
    pub(crate) part: Part,
    pub(crate) checksums: &'a [u8],
}

impl<'a> ObjectPut<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bucket.to_le_bytes());
        out.extend_from_slice(&self.upload.unwrap_or(0).to_le_bytes());
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.time_ms.to_le_bytes());
        out.extend_from_slice(&self.etag.digest);
        out.extend_from_slice(&self.etag.parts.to_le_bytes());
        let flag = |flag, is: bool| if is { flag } else { 0 };
        let tags = !self.tags.is_empty();
        let part_checksums = !self.part_checksums.is_empty();
        let opaque =
            flag(TAGS, tags) | flag(PART_CHECKSUMS, part_checksums) | flag(COMPLETED, self.completed.is_some());
        let opaque = opaque | self.id.flags() | flag(LOCKED, !self.lock.is_none());
        out.extend_from_slice(&[flag(SEALED, self.sealed) | flag(BOUND, self.bound) | opaque, 0]);
        out.extend_from_slice(&(self.key.len() as u16).to_le_bytes());
        out.extend_from_slice(&(self.parts.len() as u16).to_le_bytes());
        out.extend_from_slice(&(self.head.len() as u32).to_le_bytes());
        out.extend(self.key.as_bytes());
        out.extend(self.head);
        for part in &self.parts {
            encode_part(part, out);
        }
        if tags {
            encode_tags(self.tags, out);
        }
        if part_checksums {
            out.extend_from_slice(&(self.part_checksums.len() as u32).to_le_bytes());
            out.extend_from_slice(self.part_checksums);
        }
        if let Some(id) = &self.completed {
            out.extend_from_slice(id);
        }
        self.id.encode(out);
        if !self.lock.is_none() {
            encode_lock(&self.lock, out);
        }
    }

    pub(super) fn parse(c: &mut Cursor<'a>) -> Option<Self> {
        let bucket = c.u64()?;
        let upload = c.u64()?;
        let size = c.u64()?;
        let time_ms = c.u64()?;
        let etag = Etag { digest: c.array()?, parts: c.u16()? };
        let [flags, 0] = c.array()? else { return None };
        let sealed = flags & SEALED != 0;
        let bound = flags & BOUND != 0;
        let key_len = c.u16()?;
        let count = c.u16()?;
        let head_len = c.u32()?;
        let key = c.str(key_len.into())?;
        let head = c.bytes(head_len as usize)?;
        let parts = (0..count).map(|_| parse_part(c)).collect::<Option<_>>()?;
        let tags = parse_tags(flags, c)?;
        let part_checksums = match flags & PART_CHECKSUMS {
            0 => &[],
            _ => c.u32().filter(|len| *len > 0).and_then(|len| c.bytes(len as usize))?,
        };
        let completed = match flags & COMPLETED {
            0 => None,
            _ => Some(c.array()?),
        };
        let id = RecordedId::parse(flags, c)?;
        let lock = parse_flagged_lock(flags & LOCKED, c)?;
        Some(ObjectPut {
            bucket,
            upload: (upload != 0).then_some(upload),
            size,
            time_ms,
            etag,
            sealed,
            bound,
            key,
            head,
            parts,
            tags,
            part_checksums,
            completed,
            id,
            lock,
        })
    }
}

impl ObjectPut<'_> {
    /// Returns the contradiction in the record, if there is one: its size must be the sum of its parts.
    pub(crate) fn contradiction(&self) -> Option<&'static str> {
        let size = self.parts.iter().try_fold(0u64, |size, part| size.checked_add(part.size));
        (size != Some(self.size)).then_some("an object whose size is not that of its parts")
    }
}

impl<'a> UploadCreate<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let (algorithm, kind) = self.declared.unwrap_or((0, 0));
        let flags = if self.sealed { SEALED } else { 0 }
            | if self.declared.is_some() { DECLARED } else { 0 }
            | if self.tags.is_empty() { 0 } else { TAGS }
            | if self.lock.is_none() { 0 } else { UPLOAD_LOCKED };
        out.extend(self.bucket.to_le_bytes());
        out.extend(self.id);
        out.extend(self.time_ms.to_le_bytes());
        out.extend([flags, algorithm, kind, 0]);
        out.extend((self.key.len() as u16).to_le_bytes());
        out.extend((self.head.len() as u32).to_le_bytes());
        out.extend(self.key.as_bytes());
        out.extend(self.head);
        if !self.tags.is_empty() {
            encode_tags(self.tags, out);
        }
        if !self.lock.is_none() {
            encode_lock(&self.lock, out);
        }
    }

    pub(super) fn parse(c: &mut Cursor<'a>) -> Option<Self> {
        let bucket = c.u64()?;
        let id = c.array()?;
        let time_ms = c.u64()?;
        let [flags, algorithm, kind, 0] = c.array()? else { return None };
        if flags & !(SEALED | DECLARED | TAGS | UPLOAD_LOCKED) != 0 {
            return None;
        }
        let key_len = c.u16()?;
        let head_len = c.u32()?;
        let key = c.str(key_len.into())?;
        let head = c.bytes(head_len as usize)?;
        let declared = (flags & DECLARED != 0).then_some((algorithm, kind));
        let tags = parse_tags(flags, c)?;
        let lock = parse_flagged_lock(flags & UPLOAD_LOCKED, c)?;
        Some(UploadCreate { bucket, id, time_ms, sealed: flags & SEALED != 0, declared, key, head, tags, lock })
    }
}

impl<'a> PartPut<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.bucket.to_le_bytes());
        out.extend(self.upload.to_le_bytes());
        out.extend(self.time_ms.to_le_bytes());
        encode_part(&self.part, out);
        out.extend((self.checksums.len() as u16).to_le_bytes());
        out.extend(self.checksums);
    }

    pub(super) fn parse(c: &mut Cursor<'a>) -> Option<Self> {
        let bucket = c.u64()?;
        let upload = c.u64()?;
        let time_ms = c.u64()?;
        let part = parse_part(c)?;
        let len = c.u16()?;
        Some(PartPut { bucket, upload, time_ms, part, checksums: c.bytes(len.into())? })
    }
}

fn encode_tags(tags: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(tags.len() as u16).to_le_bytes());
    out.extend_from_slice(tags);
}

/// Parses a lock. It is present if flagged, and then not empty.
fn parse_flagged_lock(flag: u8, c: &mut Cursor<'_>) -> Option<Lock> {
    match flag {
        0 => Some(Lock::default()),
        _ => parse_lock(c).filter(|lock| !lock.is_none()),
    }
}

/// Parses tags. They are present if flagged, and then not empty.
fn parse_tags<'a>(flags: u8, c: &mut Cursor<'a>) -> Option<&'a [u8]> {
    match flags & TAGS {
        0 => Some(&[]),
        _ => c.u16().filter(|len| *len > 0).and_then(|len| c.bytes(len.into())),
    }
}
