//! What a record does to the index once it is durable; the same for a fresh record and for one that is replayed.

use super::{Bodies, BodyEntry, Bucket, Entry, Index, Key, Location, PartEntry, Upload};
use crate::Error;
use crate::body::stored_len;
use crate::types::{BodyId, Etag, Part};
use crate::wire::payload::{Bytes, Payload};

/// A record, as far as the index is concerned.
#[derive(Debug, Clone)]
pub(crate) enum Effect {
    CreateBucket {
        name: Box<str>,
        time_ms: u64,
    },
    DeleteBucket {
        bucket: u64,
    },
    Body {
        id: BodyId,
        stored: u64,
    },
    Put(Put),
    Delete {
        bucket: u64,
        key: Key,
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
    /// Of the log's own housekeeping.
    Nothing,
}

/// An object put.
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
}

impl Effect {
    pub(crate) fn of(payload: &Payload<'_>) -> Self {
        match payload {
            Payload::BucketCreate { time_ms, name } => Effect::CreateBucket { name: (*name).into(), time_ms: *time_ms },
            Payload::BucketDelete { bucket, .. } => Effect::DeleteBucket { bucket: *bucket },
            Payload::Body(body) => {
                let stored = match body.bytes {
                    Bytes::Inline { .. } => 0,
                    Bytes::Blocks(_) => stored_len(body.len),
                };
                Effect::Body { id: body.id, stored }
            }
            Payload::ObjectPut(put) => Effect::Put(Put {
                bucket: put.bucket,
                key: put.key.into(),
                size: put.size,
                time_ms: put.time_ms,
                etag: put.etag,
                sealed: put.sealed,
                bodies: Bodies::of(&put.parts),
                upload: put.upload,
            }),
            Payload::Tombstone { bucket, key, .. } => Effect::Delete { bucket: *bucket, key: (*key).into() },
            Payload::UploadCreate(create) => Effect::CreateUpload {
                bucket: create.bucket,
                key: create.key.into(),
                id: create.id,
                time_ms: create.time_ms,
                sealed: create.sealed,
                declared: create.declared,
            },
            Payload::PartPut(put) => {
                Effect::PutPart { bucket: put.bucket, upload: put.upload, time_ms: put.time_ms, part: put.part.clone() }
            }
            Payload::UploadAbort { bucket, upload, .. } => Effect::AbortUpload { bucket: *bucket, upload: *upload },
            Payload::SegmentEnd | Payload::Mark => Effect::Nothing,
        }
    }
}

impl Index {
    /// Takes a durable record in. An error is one for the request that wrote it: what it was for has gone meanwhile.
    pub(crate) fn apply(&mut self, seq: u64, at: Location, effect: &Effect) -> Result<(), Error> {
        match effect {
            Effect::CreateBucket { name, time_ms } => {
                self.totals.live_meta += u64::from(at.len);
                self.names.insert(name.clone(), seq);
                self.buckets.insert(seq, Bucket::new(name.clone(), *time_ms, at));
                Ok(())
            }
            Effect::DeleteBucket { bucket } => {
                self.delete_bucket(*bucket);
                Ok(())
            }
            Effect::Body { id, stored } => {
                self.add_body(*id, at, *stored);
                Ok(())
            }
            Effect::Put(put) => self.put(seq, at, put),
            Effect::Delete { bucket, key } => {
                self.delete(seq, *bucket, key);
                Ok(())
            }
            Effect::CreateUpload { bucket, key, id, time_ms, sealed, declared } => {
                let home = self.buckets.get_mut(bucket).ok_or(Error::NoSuchBucket)?;
                home.uploads_by_key.entry(key.clone()).or_default().insert(seq);
                home.uploads_by_id.insert(*id, seq);
                let (key, id, time_ms, sealed, declared) = (key.clone(), *id, *time_ms, *sealed, *declared);
                let parts = Default::default();
                home.uploads.insert(seq, Upload { at, key, id, time_ms, sealed, declared, parts, closing: false });
                self.totals.uploads += 1;
                self.totals.live_meta += u64::from(at.len);
                Ok(())
            }
            Effect::PutPart { bucket, upload, time_ms, part } => {
                self.put_part(seq, at, (*bucket, *upload), *time_ms, part)
            }
            Effect::AbortUpload { bucket, upload } => {
                self.remove_upload(*bucket, *upload);
                Ok(())
            }
            Effect::Nothing => Ok(()),
        }
    }

    fn add_body(&mut self, id: BodyId, at: Location, stored: u64) {
        // A body that was referred to before its record turned up keeps its references.
        let refs = self.bodies.get(&id).map_or(0, |body| body.refs);
        let old = self.bodies.insert(id, BodyEntry { at, refs, stored });
        if old.is_none_or(|old| old.at == Location::LOST) {
            self.totals.live_meta += u64::from(at.len);
            self.totals.live_body += stored;
        }
    }

    fn put(&mut self, seq: u64, at: Location, put: &Put) -> Result<(), Error> {
        let home = self.buckets.get_mut(&put.bucket).ok_or(Error::NoSuchBucket)?;
        if home.take_effect(seq, &put.key) {
            let Put { size, time_ms, etag, sealed, .. } = *put;
            let entry = Entry { at, seq, size, time_ms, etag, sealed, bodies: put.bodies.clone() };
            let old = home.objects.insert(put.key.clone(), entry);
            self.totals.objects += 1;
            self.totals.live_meta += u64::from(at.len);
            // New references first: the same body may be in both.
            self.add_refs(put.bodies.as_slice());
            self.forget_object(old);
        }
        if let Some(upload) = put.upload {
            self.remove_upload(put.bucket, upload);
        }
        Ok(())
    }

    fn delete(&mut self, seq: u64, bucket: u64, key: &Key) {
        let Some(home) = self.buckets.get_mut(&bucket) else { return };
        if home.take_effect(seq, key) {
            let old = home.objects.remove(key);
            self.forget_object(old);
        }
    }

    fn forget_object(&mut self, old: Option<Entry>) {
        let Some(old) = old else { return };
        self.totals.objects -= 1;
        self.totals.live_meta -= u64::from(old.at.len);
        self.drop_refs(old.bodies.as_slice());
    }

    fn put_part(&mut self, seq: u64, at: Location, of: (u64, u64), time_ms: u64, part: &Part) -> Result<(), Error> {
        let home = self.buckets.get_mut(&of.0).ok_or(Error::NoSuchBucket)?;
        let upload = home.uploads.get_mut(&of.1).ok_or(Error::NoSuchUpload)?;
        if upload.parts.get(&part.number).is_some_and(|newer| newer.seq > seq) {
            return Ok(());
        }
        let body = part.body;
        let old = upload.parts.insert(part.number, PartEntry { at, seq, time_ms, part: part.clone() });
        self.totals.live_meta += u64::from(at.len);
        self.add_refs(&[body]);
        if let Some(old) = old {
            self.forget_part(&old);
        }
        Ok(())
    }

    fn forget_part(&mut self, old: &PartEntry) {
        self.totals.live_meta -= u64::from(old.at.len);
        self.drop_refs(&[old.part.body]);
    }

    fn remove_upload(&mut self, bucket: u64, seq: u64) {
        let Some(home) = self.buckets.get_mut(&bucket) else { return };
        let Some(upload) = home.uploads.remove(&seq) else { return };
        home.uploads_by_id.remove(&upload.id);
        if let Some(of_key) = home.uploads_by_key.get_mut(&upload.key) {
            of_key.remove(&seq);
            if of_key.is_empty() {
                home.uploads_by_key.remove(&upload.key);
            }
        }
        self.totals.uploads -= 1;
        self.totals.live_meta -= u64::from(upload.at.len);
        for part in upload.parts.values() {
            self.forget_part(part);
        }
    }

    /// A bucket that is deleted has no objects; its uploads go with it.
    fn delete_bucket(&mut self, id: u64) {
        let uploads: Vec<u64> =
            self.buckets.get(&id).into_iter().flat_map(|bucket| bucket.uploads.keys().copied()).collect();
        for upload in uploads {
            self.remove_upload(id, upload);
        }
        if let Some(bucket) = self.buckets.remove(&id) {
            self.totals.live_meta -= u64::from(bucket.at.len);
            self.names.remove(&bucket.name);
            // Objects are here only if the records that deleted them are lost.
            for object in bucket.objects.into_values() {
                self.forget_object(Some(object));
            }
        }
    }
}

impl Bucket {
    fn new(name: Box<str>, time_ms: u64, at: Location) -> Self {
        Bucket {
            name,
            time_ms,
            at,
            deleting: false,
            objects: Default::default(),
            pending: Default::default(),
            uploads: Default::default(),
            uploads_by_key: Default::default(),
            uploads_by_id: Default::default(),
        }
    }

    /// Whether a write of a name still counts, or a newer one has taken effect already.
    fn take_effect(&mut self, seq: u64, key: &Key) -> bool {
        if self.objects.get(key).is_some_and(|newer| newer.seq > seq) {
            return false;
        }
        match self.pending.get_mut(key) {
            Some(pending) if pending.applied > seq => false,
            Some(pending) => {
                pending.applied = seq;
                true
            }
            None => true,
        }
    }
}
