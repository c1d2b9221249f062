//! Contents of a checkpoint: *items*, packed into records of kind 11.

use super::Cursor;
use super::lock::{encode_lock, encode_versioning, parse_lock, parse_versioning};
use super::part::{PART_LEN, encode_part, parse_part};
use crate::limits::{
    BUCKET_MAX, BUCKET_TAGS_MAX, CORS_MAX, LIFECYCLE_MAX, POLICY_MAX, RUNS_MAX, SEGMENT_LEN_MIN, SEGMENTS_MAX,
    batch_max, checkpoint_record,
};
use crate::types::{BodyId, BucketSettings, Part};
use crate::version::{BucketLock, Lock, Versioning};

/// Kinds of items, as stored on disk.
mod tag {
    pub(super) const HOME: u8 = 1;
    pub(super) const BUCKET: u8 = 2;
    pub(super) const OBJECT: u8 = 3;
    pub(super) const UPLOAD: u8 = 4;
    pub(super) const PART: u8 = 5;
    pub(super) const BODY: u8 = 6;
    pub(super) const SEGMENT: u8 = 7;
    pub(super) const FLOOR: u8 = 8;
    pub(super) const PENDING: u8 = 9;
    pub(super) const POLICY: u8 = 10;
    pub(super) const LIFECYCLE: u8 = 11;
    pub(super) const CORS: u8 = 12;
    pub(super) const TAGS: u8 = 13;
    pub(super) const VERSIONING: u8 = 14;
    pub(super) const MARKER: u8 = 15;
    pub(super) const VERSION_ID: u8 = 16;
    pub(super) const VERSION_LOCK: u8 = 17;
    pub(super) const VERSION_TAGS: u8 = 18;
    pub(super) const LOCK_CLOCK: u8 = 19;
    pub(super) const VERSION_EVICTED: u8 = 20;
}

/// An entry of a checkpoint. Locations are raw: see [`Location`](crate::index::Location).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    /// Sets the bucket of the versions, uploads and floors that follow in this record.
    Home {
        bucket: u64,
    },
    Bucket {
        id: u64,
        at: u64,
        time_ms: u64,
        /// Location and sequence number of the settings' record; 0, 0 if there is none.
        settings_at: u64,
        settings_seq: u64,
        settings: BucketSettings,
        name: &'a str,
    },
    /// Policy of a preceding bucket item.
    Policy {
        bucket: u64,
        policy: &'a [u8],
    },
    /// Lifecycle of a preceding bucket item.
    Lifecycle {
        bucket: u64,
        lifecycle: &'a [u8],
    },
    /// CORS rules of a preceding bucket item.
    Cors {
        bucket: u64,
        cors: &'a [u8],
    },
    /// Tags of a preceding bucket item: in its settings, or, without settings, of its creation.
    Tags {
        bucket: u64,
        tags: &'a [u8],
    },
    /// Versioning of a preceding bucket item.
    Versioning {
        bucket: u64,
        versioning: Versioning,
        lock: Option<BucketLock>,
    },
    /// A version that is an object.
    Object {
        at: u64,
        seq: u64,
        size: u64,
        stamp: u64,
        digest: [u8; 16],
        bodies: Vec<BodyId>,
        key: &'a str,
    },
    /// A version that is a delete marker.
    Marker {
        at: u64,
        seq: u64,
        stamp: u64,
        key: &'a str,
    },
    /// The id of an imported version.
    VersionId {
        version: u64,
        id: [u8; 16],
    },
    /// The lock of a version. Location 0: the lock is in the version's own record.
    VersionLock {
        version: u64,
        at: u64,
        seq: u64,
        size: u64,
        lock: Lock,
    },
    /// The tags of a version that have a record of their own.
    VersionTags {
        version: u64,
        at: u64,
        seq: u64,
    },
    LockClock {
        time_ms: u64,
    },
    /// The eviction of a version, whose item precedes it.
    VersionEvicted {
        version: u64,
        at: u64,
        seq: u64,
        key: &'a str,
    },
    Upload {
        seq: u64,
        at: u64,
        id: [u8; 16],
        time_ms: u64,
        sealed: bool,
        declared: Option<(u8, u8)>,
        key: &'a str,
    },
    Part {
        upload: u64,
        at: u64,
        seq: u64,
        time_ms: u64,
        part: Part,
    },
    /// A body. `shares`: segment and pages of each.
    Body {
        id: BodyId,
        at: u64,
        shares: Vec<(u32, u32)>,
    },
    Segment(SegmentItem),
    /// A name with an in-flight write: writes with numbers below `applied` no longer count.
    Floor {
        applied: u64,
        key: &'a str,
    },
    /// A record with a number below the checkpoint's that the checkpoint does not cover.
    Pending {
        seq: u64,
    },
}

/// State of a segment when the checkpoint was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentItem {
    pub(crate) number: u32,
    pub(crate) use_: SegmentUse,
    /// Generation of the last use.
    pub(crate) generation: u64,
    /// Bytes written; 0: the contents are unknown from the start on.
    pub(crate) written: u32,
    /// Checksum of the last record before `written`, or of the header.
    pub(crate) prev: u32,
}

/// Use of a segment, as stored on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SegmentUse {
    Blank = 0,
    OpenMeta = 1,
    OpenBody = 2,
    ClosedMeta = 3,
    ClosedBody = 4,
    /// Left alone because of damage.
    Damaged = 5,
    /// Without live data, and waiting to be freed.
    Condemned = 6,
}

impl SegmentUse {
    fn parse(byte: u8) -> Option<Self> {
        use SegmentUse::{Blank, ClosedBody, ClosedMeta, Condemned, Damaged, OpenBody, OpenMeta};
        [Blank, OpenMeta, OpenBody, ClosedMeta, ClosedBody, Damaged, Condemned].into_iter().find(|u| *u as u8 == byte)
    }
}

impl SegmentItem {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.number.to_le_bytes());
        out.push(self.use_ as u8);
        out.extend(self.generation.to_le_bytes());
        out.extend(self.written.to_le_bytes());
        out.extend(self.prev.to_le_bytes());
    }

    /// Parses an item. No store has a segment beyond [`SEGMENTS_MAX`], whatever its capacity was.
    fn parse(c: &mut Cursor<'_>) -> Option<Self> {
        let number = c.u32().filter(|number| u64::from(*number) < SEGMENTS_MAX)?;
        let [use_] = c.array()?;
        let use_ = SegmentUse::parse(use_)?;
        Some(SegmentItem { number, use_, generation: c.u64()?, written: c.u32()?, prev: c.u32()? })
    }
}

/// Encodes a string with its length.
fn encode_str(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text.as_bytes());
}

impl<'a> Item<'a> {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Item::Home { bucket } => {
                out.push(tag::HOME);
                out.extend(bucket.to_le_bytes());
            }
            Item::Bucket { id, at, time_ms, settings_at, settings_seq, settings, name } => {
                out.push(tag::BUCKET);
                for word in [id, at, time_ms, settings_at, settings_seq] {
                    out.extend(word.to_le_bytes());
                }
                settings.encode(out);
                encode_str(name, out);
            }
            Item::Policy { bucket, policy: opaque } | Item::Lifecycle { bucket, lifecycle: opaque } => {
                out.push(if matches!(self, Item::Policy { .. }) { tag::POLICY } else { tag::LIFECYCLE });
                out.extend(bucket.to_le_bytes());
                out.extend((opaque.len() as u16).to_le_bytes());
                out.extend(*opaque);
            }
            Item::Cors { bucket, cors: opaque } | Item::Tags { bucket, tags: opaque } => {
                out.push(if matches!(self, Item::Cors { .. }) { tag::CORS } else { tag::TAGS });
                out.extend(bucket.to_le_bytes());
                out.extend((opaque.len() as u32).to_le_bytes());
                out.extend(*opaque);
            }
            Item::Object { at, seq, size, stamp, digest, bodies, key } => {
                out.push(tag::OBJECT);
                for word in [at, seq, size, stamp] {
                    out.extend(word.to_le_bytes());
                }
                out.extend(digest);
                encode_str(key, out);
                out.extend((bodies.len() as u16).to_le_bytes());
                for body in bodies {
                    out.extend(body.0.to_le_bytes());
                }
            }
            Item::Versioning { bucket, versioning, lock } => {
                out.push(tag::VERSIONING);
                out.extend(bucket.to_le_bytes());
                encode_versioning(*versioning, *lock, out);
            }
            Item::Marker { at, seq, stamp, key } => {
                out.push(tag::MARKER);
                for word in [at, seq, stamp] {
                    out.extend(word.to_le_bytes());
                }
                encode_str(key, out);
            }
            Item::VersionId { version, id } => {
                out.push(tag::VERSION_ID);
                out.extend(version.to_le_bytes());
                out.extend(id);
            }
            Item::VersionLock { version, at, seq, size, lock } => {
                out.push(tag::VERSION_LOCK);
                for word in [version, at, seq, size] {
                    out.extend(word.to_le_bytes());
                }
                encode_lock(lock, out);
            }
            Item::VersionTags { version, at, seq } => {
                out.push(tag::VERSION_TAGS);
                for word in [version, at, seq] {
                    out.extend(word.to_le_bytes());
                }
            }
            Item::LockClock { time_ms } => {
                out.push(tag::LOCK_CLOCK);
                out.extend(time_ms.to_le_bytes());
            }
            Item::VersionEvicted { version, at, seq, key } => {
                out.push(tag::VERSION_EVICTED);
                for word in [version, at, seq] {
                    out.extend(word.to_le_bytes());
                }
                encode_str(key, out);
            }
            Item::Upload { seq, at, id, time_ms, sealed, declared, key } => {
                let (algorithm, kind) = declared.unwrap_or((0, 0));
                out.push(tag::UPLOAD);
                out.extend(seq.to_le_bytes());
                out.extend(at.to_le_bytes());
                out.extend(id);
                out.extend(time_ms.to_le_bytes());
                out.extend([u8::from(*sealed), u8::from(declared.is_some()), algorithm, kind]);
                encode_str(key, out);
            }
            Item::Part { upload, at, seq, time_ms, part } => {
                out.push(tag::PART);
                for word in [upload, at, seq, time_ms] {
                    out.extend(word.to_le_bytes());
                }
                encode_part(part, out);
            }
            Item::Body { id, at, shares } => {
                out.push(tag::BODY);
                out.extend(id.0.to_le_bytes());
                out.extend(at.to_le_bytes());
                out.extend((shares.len() as u16).to_le_bytes());
                for (segment, pages) in shares {
                    out.extend(segment.to_le_bytes());
                    out.extend(pages.to_le_bytes());
                }
            }
            Item::Segment(segment) => {
                out.push(tag::SEGMENT);
                segment.encode(out);
            }
            Item::Floor { applied, key } => {
                out.push(tag::FLOOR);
                out.extend(applied.to_le_bytes());
                encode_str(key, out);
            }
            Item::Pending { seq } => {
                out.push(tag::PENDING);
                out.extend(seq.to_le_bytes());
            }
        }
    }

    fn parse_object(c: &mut Cursor<'a>) -> Option<Self> {
        let at = c.u64()?;
        let seq = c.u64()?;
        let size = c.u64()?;
        let stamp = c.u64()?;
        let digest = c.array()?;
        let len = c.u16()?;
        let key = c.str(len.into())?;
        let count = c.u16()?;
        let bodies = (0..count).map(|_| c.u64().map(BodyId)).collect::<Option<_>>()?;
        Some(Item::Object { at, seq, size, stamp, digest, bodies, key })
    }

    /// Parses an item that concerns versions.
    fn parse_version(tag: u8, c: &mut Cursor<'a>) -> Option<Self> {
        Some(match tag {
            tag::VERSIONING => {
                let bucket = c.u64()?;
                let (versioning, lock) = parse_versioning(c)?;
                Item::Versioning { bucket, versioning, lock }
            }
            tag::MARKER => {
                let at = c.u64()?;
                let seq = c.u64()?;
                let stamp = c.u64()?;
                let len = c.u16()?;
                Item::Marker { at, seq, stamp, key: c.str(len.into())? }
            }
            tag::VERSION_ID => Item::VersionId { version: c.u64()?, id: c.array()? },
            tag::VERSION_LOCK => {
                let version = c.u64()?;
                let at = c.u64()?;
                let seq = c.u64()?;
                let size = c.u64()?;
                Item::VersionLock { version, at, seq, size, lock: parse_lock(c)? }
            }
            tag::VERSION_TAGS => Item::VersionTags { version: c.u64()?, at: c.u64()?, seq: c.u64()? },
            tag::LOCK_CLOCK => Item::LockClock { time_ms: c.u64()? },
            tag::VERSION_EVICTED => {
                let version = c.u64()?;
                let at = c.u64()?;
                let seq = c.u64()?;
                let len = c.u16()?;
                Item::VersionEvicted { version, at, seq, key: c.str(len.into())? }
            }
            _ => return None,
        })
    }

    fn parse(c: &mut Cursor<'a>) -> Option<Self> {
        let [tag] = c.array()?;
        Some(match tag {
            tag::HOME => Item::Home { bucket: c.u64()? },
            tag::BUCKET => {
                let id = c.u64()?;
                let at = c.u64()?;
                let time_ms = c.u64()?;
                let settings_at = c.u64()?;
                let settings_seq = c.u64()?;
                let settings = BucketSettings::parse(c)?;
                let len = c.u16()?;
                Item::Bucket { id, at, time_ms, settings_at, settings_seq, settings, name: c.str(len.into())? }
            }
            tag::POLICY => {
                let bucket = c.u64()?;
                let len = c.u16()?;
                Item::Policy { bucket, policy: c.bytes(len.into())? }
            }
            tag::LIFECYCLE => {
                let bucket = c.u64()?;
                let len = c.u16()?;
                Item::Lifecycle { bucket, lifecycle: c.bytes(len.into())? }
            }
            tag::CORS => {
                let bucket = c.u64()?;
                let len = c.u32()?;
                Item::Cors { bucket, cors: c.bytes(len as usize)? }
            }
            tag::TAGS => {
                let bucket = c.u64()?;
                let len = c.u32()?;
                Item::Tags { bucket, tags: c.bytes(len as usize)? }
            }
            tag::OBJECT => Item::parse_object(c)?,
            tag::UPLOAD => {
                let seq = c.u64()?;
                let at = c.u64()?;
                let id = c.array()?;
                let time_ms = c.u64()?;
                let [sealed @ (0 | 1), declared @ (0 | 1), algorithm, kind] = c.array()? else { return None };
                let len = c.u16()?;
                let declared = (declared == 1).then_some((algorithm, kind));
                Item::Upload { seq, at, id, time_ms, sealed: sealed == 1, declared, key: c.str(len.into())? }
            }
            tag::PART => {
                let upload = c.u64()?;
                let at = c.u64()?;
                let seq = c.u64()?;
                let time_ms = c.u64()?;
                Item::Part { upload, at, seq, time_ms, part: parse_part(c)? }
            }
            tag::BODY => {
                let id = BodyId(c.u64()?);
                let at = c.u64()?;
                let count = c.u16()?;
                let shares = (0..count).map(|_| Some((c.u32()?, c.u32()?))).collect::<Option<_>>()?;
                Item::Body { id, at, shares }
            }
            tag::SEGMENT => Item::Segment(SegmentItem::parse(c)?),
            tag::FLOOR => {
                let applied = c.u64()?;
                let len = c.u16()?;
                Item::Floor { applied, key: c.str(len.into())? }
            }
            tag::PENDING => Item::Pending { seq: c.u64()? },
            tag::VERSIONING..=tag::VERSION_EVICTED => Item::parse_version(tag, c)?,
            _ => return None,
        })
    }
}

/// Even after a nearly full record, the longest items must fit: a bucket with all opaque settings,
/// an object of the most parts, and a body with a share for each run.
const _: () = {
    let opaque = 2 * (1 + 8 + 2) + POLICY_MAX + LIFECYCLE_MAX + 2 * (1 + 8 + 4) + CORS_MAX + BUCKET_TAGS_MAX;
    let bucket = 1 + 5 * 8 + 16 + 2 + BUCKET_MAX + opaque + (1 + 16) + 1 + 8;
    let object = 1 + 4 * 8 + 16 + 2 + crate::limits::KEY_MAX + 2 + crate::limits::PARTS_MAX * 8;
    let body = 1 + 16 + 2 + RUNS_MAX * 8;
    let part = 1 + 4 * 8 + PART_LEN;
    let longest = bucket + object + body + part;
    assert!(longest + crate::limits::CHECKPOINT_RECORD < crate::limits::RECORD_MAX);
    assert!(longest + checkpoint_record(SEGMENT_LEN_MIN) < batch_max(SEGMENT_LEN_MIN));
};

/// A record with items of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckpointItems<'a> {
    /// Identifies the checkpoint by its `until`.
    pub(crate) until: u64,
    /// Index among the records of the checkpoint.
    pub(crate) index: u32,
    pub(crate) items: &'a [u8],
}

impl<'a> CheckpointItems<'a> {
    /// Iterates over the items, with `None` in place of the first malformed one.
    pub(crate) fn items(&self) -> impl Iterator<Item = Option<Item<'a>>> {
        let mut rest = Some(Cursor(self.items));
        std::iter::from_fn(move || {
            let cursor = rest.as_mut().filter(|cursor| !cursor.0.is_empty())?;
            let item = Item::parse(cursor);
            if item.is_none() {
                rest = None;
            }
            Some(item)
        })
    }
}

/// The record that ends a checkpoint. The superblock points to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckpointEnd {
    /// The first number that the checkpoint does not cover.
    pub(crate) until: u64,
    /// Every record with a number up to this was durable when the checkpoint was
    /// begun, or did not exist.
    pub(crate) watermark: u64,
    /// Lower bound of the watermarks in records to replay.
    pub(crate) floor: u64,
    /// Raw locations of its other records, in order.
    pub(crate) item_records: Vec<u64>,
    /// META segments and their written offsets when this record was made. All of that is durable
    /// once the superblock points here.
    pub(crate) ends: Vec<(u32, u32)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_beyond_the_last_possible_one_is_malformed() {
        let parse = |number: u64| {
            let item =
                SegmentItem { number: number as u32, use_: SegmentUse::Blank, generation: 1, written: 0, prev: 0 };
            let mut items = Vec::new();
            Item::Segment(item).encode(&mut items);
            let record = CheckpointItems { until: 1, index: 0, items: &items };
            record.items().all(|item| item.is_some())
        };
        assert!(parse(SEGMENTS_MAX - 1) && !parse(SEGMENTS_MAX));
    }

    #[test]
    fn checkpoint_items_round_trip() {
        let part = Part { number: 7, body: BodyId(99), size: 5 << 20, salt: [3; 24], etag: [4; 16] };
        let settings = BucketSettings { quota: Some(5), ..BucketSettings::default() };
        let segment = SegmentItem { number: 3, use_: SegmentUse::OpenMeta, generation: 9, written: 8192, prev: 77 };
        let items = [
            Item::Bucket { id: 1, at: 2, time_ms: 3, settings_at: 4, settings_seq: 5, settings, name: "photos" },
            Item::Policy { bucket: 1, policy: b"policy" },
            Item::Lifecycle { bucket: 1, lifecycle: b"lifecycle" },
            Item::Cors { bucket: 1, cors: b"cors" },
            Item::Tags { bucket: 1, tags: b"tags" },
            Item::Home { bucket: 1 },
            Item::Object {
                at: 1,
                seq: 2,
                size: 3,
                stamp: 4,
                digest: [5; 16],
                bodies: vec![BodyId(6)],
                key: "a/\u{e9}",
            },
            Item::Object { at: 1, seq: 2, size: 3, stamp: 4, digest: [5; 16], bodies: vec![BodyId(6); 3], key: "" },
            Item::Upload { seq: 1, at: 2, id: [3; 16], time_ms: 4, sealed: true, declared: Some((1, 0)), key: "k" },
            Item::Part { upload: 1, at: 2, seq: 3, time_ms: 4, part },
            Item::Body { id: BodyId(1), at: 2, shares: vec![(3, 4), (5, 6)] },
            Item::Body { id: BodyId(1), at: 2, shares: vec![] },
            Item::Segment(segment),
            Item::Floor { applied: 5, key: "k" },
            Item::Pending { seq: 6 },
            Item::Versioning { bucket: 1, versioning: Versioning::Enabled, lock: Some(BucketLock::default()) },
            Item::Marker { at: 1, seq: 2, stamp: 3, key: "k" },
            Item::VersionId { version: 1, id: [2; 16] },
            Item::VersionLock { version: 1, at: 2, seq: 3, size: 4, lock: Lock { retention: None, hold: true } },
            Item::VersionTags { version: 1, at: 2, seq: 3 },
            Item::LockClock { time_ms: 1 },
            Item::VersionEvicted { version: 1, at: 2, seq: 3, key: "k" },
        ];
        let mut bytes = Vec::new();
        items.iter().for_each(|item| item.encode(&mut bytes));
        let record = CheckpointItems { until: 0, index: 0, items: &bytes };
        assert_eq!(record.items().collect::<Option<Vec<_>>>().unwrap(), items);
        for len in 0..bytes.len() {
            let record = CheckpointItems { items: &bytes[..len], ..record };
            let found: Vec<_> = record.items().collect();
            assert!(
                found.len() <= items.len() && found.iter().flatten().zip(&items).all(|(a, b)| a == b),
                "cut to {len}"
            );
        }
        for byte in [0, 21, 255] {
            let record = CheckpointItems { items: &[byte], ..record };
            assert_eq!(record.items().collect::<Vec<_>>(), [None]);
        }
    }
}
