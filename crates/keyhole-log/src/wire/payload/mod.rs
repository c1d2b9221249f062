//! Payloads of records: one struct per kind, with its `encode` and the shared
//! [`RecordPayload::parse`].

mod body;
pub(crate) mod kind;
mod object;
mod settings;
mod version;

pub(crate) use body::{BodyRecord, Bytes, Run};
pub(crate) use object::{ObjectPut, PartPut, UploadCreate};
pub(crate) use version::{MarkerPut, NamedVersion, RecordedId};

use super::Cursor;
use super::checkpoint::{CheckpointEnd, CheckpointItems};
use super::lock::LOCK_LEN;
use super::part::PART_LEN;
use crate::limits::{
    BATCH_MAX, BUCKET_MAX, BUCKET_TAGS_MAX, CHUNK_TAGS_MAX, HEAD_MAX, INLINE_MAX, KEY_MAX, OBJECT_TAGS_MAX,
    PART_CHECKSUM_MAX, PART_CHECKSUMS_MAX, PARTS_MAX, PREFIX_MAX, RECORD_MAX, RUNS_MAX, SEGMENT_LEN_MIN, TAG_LEN,
    batch_max,
};
use crate::types::BucketSettings;
use crate::version::Lock;
use body::RUN_LEN;

/// The longest body record has the most runs; the longest other record is an object of the most
/// parts. A body shares a batch with its object only, and each record is read into one buffer.
const BODY_RECORD_MAX: usize = {
    let blocks = RUNS_MAX * RUN_LEN;
    let inline = INLINE_MAX + CHUNK_TAGS_MAX * TAG_LEN;
    crate::wire::record::HEADER_LEN + 32 + PREFIX_MAX + if blocks > inline { blocks } else { inline }
};
const OBJECT_OF_A_BODY_MAX: usize =
    crate::wire::record::HEADER_LEN + 64 + KEY_MAX + HEAD_MAX + PART_LEN + 2 + OBJECT_TAGS_MAX + VERSION_LEN;
const UPLOAD_ID_LEN: usize = 16;
/// The id and the lock of a version.
const VERSION_LEN: usize = 16 + LOCK_LEN;
/// Length of the longest record that removes a legal hold, with padding.
pub(crate) const HOLD_REMOVAL_LEN: usize =
    (crate::wire::record::HEADER_LEN + 8 + 8 + 8 + LOCK_LEN + 2 + KEY_MAX).next_multiple_of(8);
const OBJECT_RECORD_MAX: usize =
    OBJECT_OF_A_BODY_MAX + (PARTS_MAX - 1) * PART_LEN + 4 + PART_CHECKSUMS_MAX + UPLOAD_ID_LEN;
const _: () = {
    assert!(BODY_RECORD_MAX <= RECORD_MAX && OBJECT_RECORD_MAX <= RECORD_MAX && RECORD_MAX + 8 <= BATCH_MAX);
    assert!(BODY_RECORD_MAX + OBJECT_OF_A_BODY_MAX + 16 <= BATCH_MAX && OBJECT_TAGS_MAX <= u16::MAX as usize);
    assert!(PART_CHECKSUM_MAX <= u16::MAX as usize && KEY_MAX <= u16::MAX as usize && BUCKET_MAX <= u16::MAX as usize);
    // This also holds in the shortest segment.
    assert!(BODY_RECORD_MAX + OBJECT_OF_A_BODY_MAX + 16 <= batch_max(SEGMENT_LEN_MIN));
};

/// The payload of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RecordPayload<'a> {
    /// The sequence number of this record is the bucket's identity.
    BucketCreate {
        time_ms: u64,
        name: &'a str,
        /// Opaque; empty: none.
        tags: &'a [u8],
    },
    BucketDelete {
        bucket: u64,
        time_ms: u64,
    },
    Body(BodyRecord<'a>),
    ObjectPut(ObjectPut<'a>),
    Tombstone {
        bucket: u64,
        time_ms: u64,
        key: &'a str,
    },
    /// The sequence number of this record is the upload's identity within the log.
    UploadCreate(UploadCreate<'a>),
    PartPut(PartPut<'a>),
    UploadAbort {
        bucket: u64,
        upload: u64,
        time_ms: u64,
    },
    SegmentEnd,
    Mark,
    CheckpointItems(CheckpointItems<'a>),
    Checkpoint(CheckpointEnd),
    BucketSettings {
        bucket: u64,
        time_ms: u64,
        settings: BucketSettings,
    },
    MarkerPut(MarkerPut<'a>),
    VersionDelete {
        of: NamedVersion<'a>,
        time_ms: u64,
    },
    VersionLock {
        of: NamedVersion<'a>,
        time_ms: u64,
        lock: Lock,
    },
    VersionTags {
        of: NamedVersion<'a>,
        time_ms: u64,
        tags: &'a [u8],
    },
    LockClock {
        time_ms: u64,
    },
    VersionEvicted {
        of: NamedVersion<'a>,
        time_ms: u64,
    },
}

impl<'a> RecordPayload<'a> {
    pub(crate) fn kind(&self) -> u8 {
        match self {
            RecordPayload::BucketCreate { tags: [], .. } => kind::BUCKET_CREATE,
            RecordPayload::BucketCreate { .. } => kind::BUCKET_CREATE_TAGGED,
            RecordPayload::BucketDelete { .. } => kind::BUCKET_DELETE,
            RecordPayload::Body(_) => kind::BODY,
            RecordPayload::ObjectPut(_) => kind::OBJECT_PUT,
            RecordPayload::Tombstone { .. } => kind::TOMBSTONE,
            RecordPayload::UploadCreate(_) => kind::UPLOAD_CREATE,
            RecordPayload::PartPut(_) => kind::PART_PUT,
            RecordPayload::UploadAbort { .. } => kind::UPLOAD_ABORT,
            RecordPayload::SegmentEnd => kind::SEGMENT_END,
            RecordPayload::Mark => kind::MARK,
            RecordPayload::CheckpointItems(_) => kind::CHECKPOINT_ITEMS,
            RecordPayload::Checkpoint(_) => kind::CHECKPOINT,
            RecordPayload::BucketSettings { settings, .. } => settings::kind(settings),
            RecordPayload::MarkerPut(_) => kind::MARKER_PUT,
            RecordPayload::VersionDelete { .. } => kind::VERSION_DELETE,
            RecordPayload::VersionLock { .. } => kind::VERSION_LOCK,
            RecordPayload::VersionTags { .. } => kind::VERSION_TAGS,
            RecordPayload::LockClock { .. } => kind::LOCK_CLOCK,
            RecordPayload::VersionEvicted { .. } => kind::VERSION_EVICTED,
        }
    }

    /// Returns an upper estimate of the encoded length for frequent kinds, so that
    /// their bytes are copied once.
    fn size_hint(&self) -> usize {
        match self {
            RecordPayload::Body(body) => {
                let bytes = match &body.bytes {
                    Bytes::Inline { tags, data } => tags.as_flattened().len() + data.len(),
                    Bytes::Blocks(runs) => runs.len() * RUN_LEN,
                };
                32 + body.prefix.len() + bytes
            }
            RecordPayload::ObjectPut(put) => {
                let opaque = put.head.len() + put.tags.len() + put.part_checksums.len();
                114 + put.key.len() + opaque + put.parts.len() * PART_LEN
            }
            RecordPayload::Tombstone { key, .. } => 18 + key.len(),
            RecordPayload::CheckpointItems(record) => 16 + record.items.len(),
            _ => 0,
        }
    }

    /// Encodes the payload. The caller has checked the lengths against the limits.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.size_hint());
        match self {
            RecordPayload::BucketCreate { time_ms, name, tags } => {
                out.extend(time_ms.to_le_bytes());
                out.extend((name.len() as u16).to_le_bytes());
                out.extend(name.as_bytes());
                if !tags.is_empty() {
                    out.extend((tags.len() as u32).to_le_bytes());
                    out.extend(*tags);
                }
            }
            RecordPayload::BucketDelete { bucket, time_ms } => {
                out.extend(bucket.to_le_bytes());
                out.extend(time_ms.to_le_bytes());
            }
            RecordPayload::Body(body) => body.encode(&mut out),
            RecordPayload::ObjectPut(put) => put.encode(&mut out),
            RecordPayload::Tombstone { bucket, time_ms, key } => {
                out.extend(bucket.to_le_bytes());
                out.extend(time_ms.to_le_bytes());
                out.extend((key.len() as u16).to_le_bytes());
                out.extend(key.as_bytes());
            }
            RecordPayload::UploadCreate(create) => create.encode(&mut out),
            RecordPayload::PartPut(put) => put.encode(&mut out),
            RecordPayload::UploadAbort { bucket, upload, time_ms } => {
                out.extend(bucket.to_le_bytes());
                out.extend(upload.to_le_bytes());
                out.extend(time_ms.to_le_bytes());
            }
            RecordPayload::SegmentEnd | RecordPayload::Mark => {}
            RecordPayload::CheckpointItems(record) => {
                out.extend(record.until.to_le_bytes());
                out.extend(record.index.to_le_bytes());
                out.extend([0; 4]);
                out.extend(record.items);
            }
            RecordPayload::Checkpoint(end) => {
                out.extend(end.until.to_le_bytes());
                out.extend(end.watermark.to_le_bytes());
                out.extend(end.floor.to_le_bytes());
                out.extend((end.item_records.len() as u32).to_le_bytes());
                out.extend((end.ends.len() as u32).to_le_bytes());
                out.extend(end.item_records.iter().flat_map(|record| record.to_le_bytes()));
                for (segment, written) in &end.ends {
                    out.extend(segment.to_le_bytes());
                    out.extend(written.to_le_bytes());
                }
            }
            RecordPayload::BucketSettings { bucket, time_ms, settings } => {
                out.extend(bucket.to_le_bytes());
                out.extend(time_ms.to_le_bytes());
                settings::encode(settings, &mut out);
            }
            RecordPayload::MarkerPut(marker) => marker.encode(&mut out),
            RecordPayload::VersionDelete { of, time_ms } | RecordPayload::VersionEvicted { of, time_ms } => {
                version::encode_tombstone(of, *time_ms, &mut out);
            }
            RecordPayload::VersionLock { of, time_ms, lock } => version::encode_locked(of, *time_ms, lock, &mut out),
            RecordPayload::VersionTags { of, time_ms, tags } => version::encode_tagged(of, *time_ms, tags, &mut out),
            RecordPayload::LockClock { time_ms } => out.extend(time_ms.to_le_bytes()),
        }
        out
    }

    /// Parses a payload of this kind. `None`: malformed.
    pub(crate) fn parse(kind: u8, bytes: &'a [u8]) -> Option<Self> {
        let mut c = Cursor(bytes);
        let payload = match kind {
            kind::BUCKET_CREATE => {
                let time_ms = c.u64()?;
                let len = c.u16()?;
                RecordPayload::BucketCreate { time_ms, name: c.str(len.into())?, tags: &[] }
            }
            kind::BUCKET_CREATE_TAGGED => {
                let time_ms = c.u64()?;
                let len = c.u16()?;
                let name = c.str(len.into())?;
                let len = c.u32().map(|len| len as usize).filter(|len| (1..=BUCKET_TAGS_MAX).contains(len))?;
                RecordPayload::BucketCreate { time_ms, name, tags: c.bytes(len)? }
            }
            kind::BUCKET_DELETE => RecordPayload::BucketDelete { bucket: c.u64()?, time_ms: c.u64()? },
            kind::BODY => RecordPayload::Body(BodyRecord::parse(&mut c)?),
            kind::OBJECT_PUT => RecordPayload::ObjectPut(ObjectPut::parse(&mut c)?),
            kind::TOMBSTONE => {
                let bucket = c.u64()?;
                let time_ms = c.u64()?;
                let len = c.u16()?;
                RecordPayload::Tombstone { bucket, time_ms, key: c.str(len.into())? }
            }
            kind::UPLOAD_CREATE => RecordPayload::UploadCreate(UploadCreate::parse(&mut c)?),
            kind::PART_PUT => RecordPayload::PartPut(PartPut::parse(&mut c)?),
            kind::UPLOAD_ABORT => RecordPayload::UploadAbort { bucket: c.u64()?, upload: c.u64()?, time_ms: c.u64()? },
            kind::SEGMENT_END => RecordPayload::SegmentEnd,
            kind::MARK => RecordPayload::Mark,
            kind::CHECKPOINT_ITEMS => {
                let until = c.u64()?;
                let index = c.u32()?;
                let [0, 0, 0, 0] = c.array()? else { return None };
                RecordPayload::CheckpointItems(CheckpointItems { until, index, items: std::mem::take(&mut c.0) })
            }
            kind::CHECKPOINT => {
                let until = c.u64()?;
                let watermark = c.u64()?;
                let floor = c.u64()?;
                let item_records = c.u32()?;
                let ends = c.u32()?;
                let item_records = (0..item_records).map(|_| c.u64()).collect::<Option<_>>()?;
                let ends = (0..ends).map(|_| Some((c.u32()?, c.u32()?))).collect::<Option<_>>()?;
                RecordPayload::Checkpoint(CheckpointEnd { until, watermark, floor, item_records, ends })
            }
            kind::BUCKET_SETTINGS..=kind::BUCKET_DOCUMENTS | kind::BUCKET_VERSIONING => {
                let bucket = c.u64()?;
                let time_ms = c.u64()?;
                RecordPayload::BucketSettings { bucket, time_ms, settings: settings::parse(kind, &mut c)? }
            }
            kind::MARKER_PUT => RecordPayload::MarkerPut(MarkerPut::parse(&mut c)?),
            kind::VERSION_DELETE => {
                let (of, time_ms) = version::parse_tombstone(&mut c)?;
                RecordPayload::VersionDelete { of, time_ms }
            }
            kind::VERSION_LOCK => {
                let (of, time_ms, lock) = version::parse_locked(&mut c)?;
                RecordPayload::VersionLock { of, time_ms, lock }
            }
            kind::VERSION_TAGS => {
                let (of, time_ms, tags) = version::parse_tagged(&mut c)?;
                RecordPayload::VersionTags { of, time_ms, tags }
            }
            kind::LOCK_CLOCK => RecordPayload::LockClock { time_ms: c.u64()? },
            kind::VERSION_EVICTED => {
                let (of, time_ms) = version::parse_tombstone(&mut c)?;
                RecordPayload::VersionEvicted { of, time_ms }
            }
            _ => return None,
        };
        c.end()?;
        Some(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{CAPACITY_MAX, CHUNK_LEN, PAGE};
    use crate::types::{BodyId, Etag, Part};

    fn check(payload: &RecordPayload<'_>) {
        let bytes = payload.encode();
        assert_eq!(RecordPayload::parse(payload.kind(), &bytes).as_ref(), Some(payload));
        for len in 0..bytes.len() {
            assert_eq!(RecordPayload::parse(payload.kind(), &bytes[..len]), None, "{payload:?} cut to {len}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(RecordPayload::parse(payload.kind(), &longer), None, "{payload:?} with a byte more");
    }

    #[test]
    fn payload_of_every_kind_round_trips_and_rejects_other_lengths() {
        let part = Part { number: 7, body: BodyId(99), size: 5 << 20, salt: [3; 24], etag: [4; 16] };
        let etag = Etag { digest: [8; 16], parts: 2 };
        check(&RecordPayload::BucketCreate { time_ms: 5, name: "photos", tags: b"" });
        check(&RecordPayload::BucketCreate { time_ms: 5, name: "photos", tags: b"tags" });
        check(&RecordPayload::BucketDelete { bucket: 1, time_ms: 6 });
        check(&RecordPayload::Tombstone { bucket: 1, time_ms: 7, key: "a/\u{e9}" });
        check(&RecordPayload::UploadAbort { bucket: 1, upload: 2, time_ms: 3 });
        check(&RecordPayload::SegmentEnd);
        check(&RecordPayload::Mark);
        let inline = Bytes::Inline { tags: &[[1; 16], [2; 16]], data: b"hello" };
        check(&RecordPayload::Body(BodyRecord {
            id: BodyId(4),
            relocation: 0,
            len: 5,
            prefix: &[9; 56],
            bytes: inline,
        }));
        let runs =
            vec![Run { offset: 1 << 21, generation: 3, len: 2 << 20 }, Run { offset: 1 << 30, generation: 8, len: 1 }];
        check(&RecordPayload::Body(BodyRecord {
            id: BodyId(4),
            relocation: 77,
            len: (2 << 20) + 1,
            prefix: b"",
            bytes: Bytes::Blocks(runs),
        }));
        let hold = Lock { retention: None, hold: true };
        let of = NamedVersion { bucket: 1, version: 2, key: "a/\u{e9}" };
        check(&RecordPayload::VersionDelete { of, time_ms: 3 });
        check(&RecordPayload::VersionLock { of, time_ms: 3, lock: hold });
        check(&RecordPayload::VersionTags { of, time_ms: 3, tags: b"tags" });
        check(&RecordPayload::VersionTags { of, time_ms: 3, tags: b"" });
        check(&RecordPayload::LockClock { time_ms: 3 });
        check(&RecordPayload::VersionEvicted { of, time_ms: 3 });
        for id in [RecordedId::Null, RecordedId::Own, RecordedId::Imported([7; 16])] {
            check(&RecordPayload::MarkerPut(MarkerPut { bucket: 1, time_ms: 2, id, key: "k" }));
        }
        for (upload, sealed, bound) in [(None, true, false), (Some(12), true, true), (Some(12), false, false)] {
            let parts = vec![part.clone(), part.clone()];
            let key = "k";
            let head = &b"head"[..];
            let tags = if sealed { &b"tags"[..] } else { b"" };
            let part_checksums = if bound { &b"part_checksums"[..] } else { b"" };
            check(&RecordPayload::ObjectPut(ObjectPut {
                bucket: 1,
                upload,
                size: 9,
                time_ms: 8,
                etag,
                sealed,
                bound,
                key,
                head,
                parts,
                tags,
                part_checksums,
                completed: upload.map(|_| [9; 16]),
                id: if sealed { RecordedId::Imported([5; 16]) } else { RecordedId::Own },
                lock: if bound { hold } else { Lock::default() },
            }));
        }
        for declared in [None, Some((2, 1))] {
            let tags = if declared.is_some() { &b"tags"[..] } else { b"" };
            let id = [6; 16];
            let lock = if declared.is_some() { hold } else { Lock::default() };
            let key = "k";
            let head = &b"h"[..];
            let create = UploadCreate { bucket: 1, id, time_ms: 1, sealed: false, declared, key, head, tags, lock };
            check(&RecordPayload::UploadCreate(create));
        }
        let end = CheckpointEnd {
            until: 5,
            watermark: 4,
            floor: 3,
            item_records: vec![1, 2, 3],
            ends: vec![(1, 4096), (2, 8192)],
        };
        check(&RecordPayload::Checkpoint(end));
        check(&RecordPayload::PartPut(PartPut { bucket: 1, upload: 2, time_ms: 3, part, checksums: b"checksums" }));
    }

    #[test]
    fn runs_of_version_2_are_parsed_to_byte_lengths() {
        let body = |len: u64, blocks: &[u32]| {
            let runs = blocks.iter().map(|&len| Run { offset: 1 << 21, generation: 3, len }).collect();
            let bytes = Bytes::Blocks(runs);
            let mut encoded =
                RecordPayload::Body(BodyRecord { id: BodyId(4), relocation: 0, len, prefix: b"", bytes }).encode();
            encoded[16] = 1; // Runs of whole blocks.
            let Some(RecordPayload::Body(body)) = RecordPayload::parse(kind::BODY, &encoded) else { return None };
            let Bytes::Blocks(runs) = body.bytes else { return None };
            Some(runs.iter().map(|run| run.len).collect::<Vec<_>>())
        };
        assert_eq!(body((2 << 20) + 1, &[2, 1]), Some(vec![2 << 20, 1]));
        assert_eq!(body(3 << 20, &[1, 2]), Some(vec![1 << 20, 2 << 20]));
        for (len, blocks) in [(2 << 20, &[1][..]), (2 << 20, &[3]), (2 << 20, &[2, 0]), (0, &[1]), (1, &[1, 1])] {
            assert_eq!(body(len, blocks), None, "{len} {blocks:?}");
        }
    }

    #[test]
    fn body_record_with_more_runs_than_the_limit_is_rejected() {
        let parsed = |count: usize| {
            let run = |at: usize| Run { offset: (at * PAGE) as u64, generation: 1, len: CHUNK_LEN as u32 };
            let bytes = Bytes::Blocks((0..count).map(run).collect());
            let len = (count * CHUNK_LEN) as u64;
            let body = RecordPayload::Body(BodyRecord { id: BodyId(1), relocation: 0, len, prefix: b"", bytes });
            RecordPayload::parse(kind::BODY, &body.encode()).is_some()
        };
        assert!(parsed(RUNS_MAX) && !parsed(RUNS_MAX + 1));
    }

    #[test]
    fn malformed_payload_is_rejected() {
        assert_eq!(RecordPayload::parse(0, b""), None);
        assert_eq!(RecordPayload::parse(24, b""), None);
        // Runs of a two-block body that are too short, too long or empty, or
        // that end within a chunk.
        for lens in [&[1 << 20][..], &[3 << 20], &[2 << 20, 0], &[100, (2 << 20) - 100], &[0, 2 << 20]] {
            let runs = lens.iter().map(|&len| Run { offset: 0, generation: 0, len }).collect();
            let bytes = Bytes::Blocks(runs);
            let body =
                RecordPayload::Body(BodyRecord { id: BodyId(1), relocation: 0, len: 2 << 20, prefix: b"", bytes });
            assert_eq!(RecordPayload::parse(kind::BODY, &body.encode()), None, "{lens:?}");
        }
        // Runs of blocks that are not on pages, or past the largest file.
        for offset in [1, PAGE as u64 - 1, PAGE as u64 + 1, CAPACITY_MAX, u64::MAX - PAGE as u64 + 1] {
            let bytes = Bytes::Blocks(vec![Run { offset, generation: 1, len: 1 }]);
            let mut body =
                RecordPayload::Body(BodyRecord { id: BodyId(1), relocation: 0, len: 1, prefix: b"", bytes }).encode();
            for form in [1, 2] {
                body[16] = form;
                assert_eq!(RecordPayload::parse(kind::BODY, &body), None, "{offset}, form {form}");
            }
        }
        // A name that is not UTF-8.
        let mut bytes = RecordPayload::BucketCreate { time_ms: 0, name: "ab", tags: b"" }.encode();
        *bytes.last_mut().unwrap() = 0xff;
        assert_eq!(RecordPayload::parse(kind::BUCKET_CREATE, &bytes), None);
    }
}
