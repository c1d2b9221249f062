//! The effect of a record on the index.

use std::sync::Arc;

use super::entry::{Bodies, Key};
use crate::types::{BodyId, BucketSettings, Etag, Part};
use crate::version::Lock;
use crate::wire::payload::{Bytes, NamedVersion, RecordPayload, RecordedId, Run};

/// The effect of a record on the index.
#[derive(Debug, Clone)]
pub(crate) enum Effect {
    CreateBucket {
        name: Box<str>,
        time_ms: u64,
        tags: Arc<[u8]>,
    },
    DeleteBucket {
        bucket: u64,
    },
    SetBucket {
        bucket: u64,
        settings: BucketSettings,
    },
    Body {
        id: BodyId,
        /// Orders the records of one body: the highest has the current location of its blocks.
        relocation: u64,
        len: u64,
        /// Empty for an inline body.
        runs: Vec<Run>,
    },
    Put(Put),
    /// Deletes the `null` version.
    Delete {
        bucket: u64,
        key: Key,
    },
    Marker(PutMarker),
    DeleteVersion(VersionOf),
    LockVersion {
        of: VersionOf,
        lock: Lock,
    },
    TagVersion(VersionOf),
    EvictVersion(VersionOf),
    LockClock {
        time_ms: u64,
    },
    CreateUpload {
        bucket: u64,
        key: Key,
        id: [u8; 16],
        time_ms: u64,
        sealed: bool,
        declared: Option<(u8, u8)>,
    },
    PutPart {
        bucket: u64,
        upload: u64,
        time_ms: u64,
        part: Part,
    },
    AbortUpload {
        bucket: u64,
        upload: u64,
    },
    /// The same record at another location.
    Moved(Box<Effect>),
    /// Part of the checkpoint being written.
    Checkpoint,
    /// A record of the log itself.
    Nothing,
}

/// An object to store.
#[derive(Debug, Clone)]
pub(crate) struct Put {
    pub(crate) bucket: u64,
    pub(crate) key: Key,
    pub(crate) size: u64,
    pub(crate) time_ms: u64,
    pub(crate) etag: Etag,
    pub(crate) sealed: bool,
    pub(crate) bodies: Bodies,
    /// The upload that it completes.
    pub(crate) upload: Option<u64>,
    pub(crate) id: RecordedId,
    pub(crate) lock: Lock,
}

/// A delete marker to store.
#[derive(Debug, Clone)]
pub(crate) struct PutMarker {
    pub(crate) bucket: u64,
    pub(crate) key: Key,
    pub(crate) time_ms: u64,
    pub(crate) id: RecordedId,
}

/// A version of a name, by its sequence number.
#[derive(Debug, Clone)]
pub(crate) struct VersionOf {
    pub(crate) bucket: u64,
    pub(crate) key: Key,
    pub(crate) version: u64,
}

impl From<&NamedVersion<'_>> for VersionOf {
    fn from(of: &NamedVersion<'_>) -> Self {
        VersionOf { bucket: of.bucket, key: of.key.into(), version: of.version }
    }
}

impl Effect {
    pub(crate) fn of(payload: &RecordPayload<'_>) -> Self {
        match payload {
            RecordPayload::BucketCreate { time_ms, name, tags } => {
                Effect::CreateBucket { name: (*name).into(), time_ms: *time_ms, tags: (*tags).into() }
            }
            RecordPayload::BucketDelete { bucket, .. } => Effect::DeleteBucket { bucket: *bucket },
            RecordPayload::BucketSettings { bucket, settings, .. } => {
                Effect::SetBucket { bucket: *bucket, settings: settings.clone() }
            }
            RecordPayload::Body(body) => {
                let runs = match &body.bytes {
                    Bytes::Inline { .. } => Vec::new(),
                    Bytes::Blocks(runs) => runs.clone(),
                };
                Effect::Body { id: body.id, relocation: body.relocation, len: body.len, runs }
            }
            RecordPayload::ObjectPut(put) => Effect::Put(Put {
                bucket: put.bucket,
                key: put.key.into(),
                size: put.size,
                time_ms: put.time_ms,
                etag: put.etag,
                sealed: put.sealed,
                bodies: Bodies::of(&put.parts),
                upload: put.upload,
                id: put.id,
                lock: put.lock,
            }),
            RecordPayload::MarkerPut(marker) => Effect::Marker(PutMarker {
                bucket: marker.bucket,
                key: marker.key.into(),
                time_ms: marker.time_ms,
                id: marker.id,
            }),
            RecordPayload::VersionDelete { of, .. } => Effect::DeleteVersion(of.into()),
            RecordPayload::VersionLock { of, lock, .. } => Effect::LockVersion { of: of.into(), lock: *lock },
            RecordPayload::VersionTags { of, .. } => Effect::TagVersion(of.into()),
            RecordPayload::VersionEvicted { of, .. } => Effect::EvictVersion(of.into()),
            RecordPayload::LockClock { time_ms } => Effect::LockClock { time_ms: *time_ms },
            RecordPayload::Tombstone { bucket, key, .. } => Effect::Delete { bucket: *bucket, key: (*key).into() },
            RecordPayload::UploadCreate(create) => Effect::CreateUpload {
                bucket: create.bucket,
                key: create.key.into(),
                id: create.id,
                time_ms: create.time_ms,
                sealed: create.sealed,
                declared: create.declared,
            },
            RecordPayload::PartPut(put) => {
                Effect::PutPart { bucket: put.bucket, upload: put.upload, time_ms: put.time_ms, part: put.part.clone() }
            }
            RecordPayload::UploadAbort { bucket, upload, .. } => {
                Effect::AbortUpload { bucket: *bucket, upload: *upload }
            }
            RecordPayload::CheckpointItems(_)
            | RecordPayload::Checkpoint(_)
            | RecordPayload::SegmentEnd
            | RecordPayload::Mark => Effect::Nothing,
        }
    }
}
