//! Operations on uploads and their parts.

use super::objects::named;
use super::versions::{Decision, NewVersion, check_lock};
use super::{CommitRequest, Log, body_draft, draft, within};
use crate::disk::Disk;
use crate::error::Error;
use crate::index::{Bucket, Index, Outcome, Properties, Upload};
use crate::limits::{HEAD_MAX, KEY_MAX, OBJECT_TAGS_MAX, PART_CHECKSUM_MAX, PART_CHECKSUMS_MAX, PARTS_MAX};
use crate::object::PutPart;
use crate::read::Located;
use crate::types::{
    CompleteUpload, CreateUpload, ListUploads, Part, PartInfo, UploadHead, UploadIdentity, UploadListing, UploadRef,
};
use crate::version::{Lock, StoredVersion, VersionId};
use crate::wire::payload::{ObjectPut, PartPut, RecordPayload, UploadCreate};

impl<D: Disk> Log<D> {
    /// Creates an upload.
    ///
    /// # Errors
    /// `NoSuchBucket`; `Conflict` if the identity is taken; `TooLarge`; those of every write.
    pub async fn create_upload(&self, create: CreateUpload) -> Result<(), Error> {
        self.create_locked_upload(create, Lock::default()).await
    }

    /// Creates an upload with the lock of its future object, which
    /// [`upload_head`](Self::upload_head) returns.
    ///
    /// # Errors
    /// Those of [`create_upload`](Self::create_upload); `NotLockable` for a lock in a bucket without
    /// object lock; `InvalidRetention` if its end is not after the lock clock.
    pub async fn create_locked_upload(&self, create: CreateUpload, lock: Lock) -> Result<(), Error> {
        let CreateUpload { bucket, key, id, head, tags, sealed, time_ms, declared } = create;
        within(key.len(), KEY_MAX, "the key of an object")?;
        within(head.len(), HEAD_MAX, "the head of an upload")?;
        within(tags.len(), OBJECT_TAGS_MAX, "the tags of an upload")?;
        let store = self.store();
        let (bucket, seq) = {
            let mut state = store.lock();
            store.check_poison()?;
            let (bucket, home) = state.index.writable(&bucket)?;
            if home.has_upload_id(&id) {
                return Err(Error::Conflict);
            }
            check_lock(home, &lock, state.index.lock_clock_ms)?;
            home.check_quota(0, key.len() + head.len() + tags.len(), |_| None)?;
            state.index.admit_name(key.len())?;
            state.index.reserve_bytes(bucket, 0);
            (bucket, state.numbers.record())
        };
        let key = &key[..];
        let head = &head[..];
        let tags = &tags[..];
        let record = UploadCreate { bucket, id, time_ms, sealed, declared, key, head, tags, lock };
        self.write(CommitRequest::new(vec![draft(seq, &RecordPayload::UploadCreate(record))])).await
    }

    /// Returns the upload of this identity, if it exists and has this key.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn upload(&self, bucket: &str, key: &str, id: &[u8; 16]) -> Result<Option<UploadRef>, Error> {
        let state = self.store().lock();
        let (_, home) = state.index.bucket(bucket).ok_or(Error::NoSuchBucket)?;
        Ok(home.upload_by_id(key, id).map(|(seq, upload)| home.upload_ref(seq, upload)))
    }

    /// Returns whether the settings of its bucket have changed since an upload was created.
    pub fn is_set_since(&self, upload: &UploadRef) -> bool {
        let state = self.store().lock();
        state.index.bucket(&upload.bucket).is_some_and(|(_, home)| home.settings_seq() > upload.seq)
    }

    /// Returns the object head and tags that an upload was created with.
    ///
    /// # Errors
    /// `NoSuchUpload` if it has ended in the meantime; `Damaged`, `Io`.
    pub async fn upload_head(&self, upload: &UploadRef) -> Result<UploadHead, Error> {
        let located = {
            let mut state = self.store().lock();
            let at = find(&state.index, upload)?.2.at;
            Located::new(self.store(), &mut state, at)
        };
        let head = self.record(located, upload.seq, |payload| match payload {
            RecordPayload::UploadCreate(create) => {
                let lock = create.lock;
                Some(UploadHead { head: create.head.to_vec(), tags: create.tags.to_vec(), lock })
            }
            _ => None,
        });
        head.await.map_err(|error| named(error, &upload.bucket, &upload.key))
    }

    /// Stores a part. Earlier attempts at its number stay usable, except for one with the same ETag,
    /// and for the oldest of more than [`PART_ATTEMPTS_MAX`](crate::limits::PART_ATTEMPTS_MAX).
    ///
    /// # Errors
    /// `NoSuchUpload` if it has ended, also while the part was being stored; `Conflict`
    /// while it is being completed or aborted; `TooLarge` for a number over [`PARTS_MAX`] or
    /// 0; those of every write.
    pub async fn put_part(&self, put: PutPart) -> Result<(), Error> {
        let PutPart { upload, number, content, salt, etag, size, time_ms, checksums } = put;
        if number == 0 || usize::from(number) > PARTS_MAX {
            return Err(Error::TooLarge("the number of a part"));
        }
        within(checksums.len(), PART_CHECKSUM_MAX, "the description of a part")?;
        let store = self.store();
        let (bucket, body_seq, seq) = {
            let mut state = store.lock();
            store.check_poison()?;
            let (bucket, home, open) = find(&state.index, &upload)?;
            open.check_open()?;
            let replaced = open.replaced_charge(number, &etag);
            home.check_quota(size, checksums.len(), |_| replaced)?;
            if replaced.is_none() {
                state.index.admit_name(0)?;
            }
            state.index.reserve_bytes(bucket, size);
            (bucket, state.numbers.record(), state.numbers.record())
        };
        let part = Part { number, body: content.id(), size, salt, etag };
        let record = PartPut { bucket, upload: upload.seq, time_ms, part, checksums: &checksums };
        let (body, holds) = body_draft(body_seq, content);
        let drafts = vec![body, draft(seq, &RecordPayload::PartPut(record))];
        self.write(CommitRequest { drafts, holds, ..CommitRequest::default() }).await
    }

    /// Returns all kept attempts at the parts of an upload, ordered by number and then by age: an
    /// object may be completed from any of them.
    ///
    /// # Errors
    /// `NoSuchUpload` if it has ended in the meantime.
    pub fn part_attempts(&self, upload: &UploadRef) -> Result<Vec<PartInfo>, Error> {
        let state = self.store().lock();
        let (bucket, _, found) = find(&state.index, upload)?;
        Ok(found.attempts(UploadIdentity { bucket, upload: upload.seq }).map(|(_, part)| part).collect())
    }

    /// Calls `select` with all kept attempts at the parts of an upload, in the order of
    /// [`part_attempts`](Self::part_attempts), without collecting them. Must not block: runs under
    /// the lock of the store.
    ///
    /// # Errors
    /// `NoSuchUpload` if it has ended in the meantime.
    pub fn select_attempts<T>(
        &self,
        upload: &UploadRef,
        select: impl FnOnce(&mut dyn Iterator<Item = PartInfo>) -> T,
    ) -> Result<T, Error> {
        let state = self.store().lock();
        let (bucket, _, found) = find(&state.index, upload)?;
        Ok(select(&mut found.attempts(UploadIdentity { bucket, upload: upload.seq }).map(|(_, part)| part)))
    }

    /// Returns at most `limit` parts of an upload with a number above `after`: of each the current
    /// attempt.
    ///
    /// # Errors
    /// `NoSuchUpload` if it has ended in the meantime.
    pub fn parts(&self, upload: &UploadRef, after: u16, limit: usize) -> Result<Vec<PartInfo>, Error> {
        let state = self.store().lock();
        let (bucket, _, found) = find(&state.index, upload)?;
        Ok(found.parts(UploadIdentity { bucket, upload: upload.seq }, after).take(limit).collect())
    }

    /// Returns the checksums that a part was stored with.
    ///
    /// # Errors
    /// `PartChanged` if the part has been dropped or replaced; `Damaged`, `Io`.
    pub async fn part_checksums(&self, part: &PartInfo) -> Result<Vec<u8>, Error> {
        let located = {
            let mut state = self.store().lock();
            let upload = state.index.bucket_by_id(part.of.bucket).and_then(|home| home.upload(part.of.upload));
            let at = upload.and_then(|upload| upload.part_at(part.number, part.seq)).ok_or(Error::PartChanged)?;
            Located::new(self.store(), &mut state, at)
        };
        let checksums = self.record(located, part.seq, |payload| match payload {
            RecordPayload::PartPut(put) => Some(put.checksums.to_vec()),
            _ => None,
        });
        checksums.await
    }

    /// Completes an upload: stores the object and ends the upload atomically, with one record.
    ///
    /// # Errors
    /// `NoSuchUpload`; `PartChanged` if a part is not the current attempt at its number;
    /// `Conflict` while the upload is being completed or aborted; `ConditionFailed`,
    /// `NoSuchKey`, and `Conflict` while another write of the name decides the condition;
    /// `TooLarge`; those of every write.
    pub async fn complete_upload(&self, complete: CompleteUpload) -> Result<(), Error> {
        self.complete_version(complete, Lock::default()).await.map(drop)
    }

    /// Completes an upload like [`complete_upload`](Self::complete_upload), with a lock, and returns the
    /// version. If the lock has no retention, the version gets the default retention of its bucket.
    ///
    /// # Errors
    /// Those of [`complete_upload`](Self::complete_upload); `Locked` if it would replace a locked
    /// version; `NotLockable` for a lock in a bucket without object lock; `InvalidRetention` if its
    /// end is not after the lock clock.
    pub async fn complete_version(&self, complete: CompleteUpload, lock: Lock) -> Result<StoredVersion, Error> {
        self.complete(complete, NewVersion { lock, import: None }).await
    }

    /// Completes an upload to a version of another store, as
    /// [`import_version`](Self::import_version) stores one.
    ///
    /// # Errors
    /// Those of [`complete_upload`](Self::complete_upload) and [`import_version`](Self::import_version).
    pub async fn import_upload(&self, complete: CompleteUpload, version: VersionId, lock: Lock) -> Result<(), Error> {
        self.complete(complete, NewVersion { lock, import: Some(version) }).await.map(drop)
    }

    async fn complete(&self, complete: CompleteUpload, new: NewVersion) -> Result<StoredVersion, Error> {
        within(complete.head.len(), HEAD_MAX, "the head of an object")?;
        within(complete.tags.len(), OBJECT_TAGS_MAX, "the tags of an object")?;
        within(complete.part_checksums.len(), PART_CHECKSUMS_MAX, "the description of the parts of an object")?;
        within(complete.parts.len(), PARTS_MAX, "the parts of an object")?;
        let pinned: Vec<_> = complete.parts.iter().map(|part| part.body).collect();
        let store = self.store();
        let ids = self.version_ids();
        let (bucket, seq, decision) = {
            let mut state = self.lock_settled(&complete.upload.bucket, &complete.upload.key, &new).await;
            store.check_poison()?;
            let (bucket, home, upload) = find(&state.index, &complete.upload)?;
            upload.check_open()?;
            upload.check_parts(&complete)?;
            home.decide(&complete.upload.key, complete.condition)?;
            let decision = Decision::of(&state.index, home, &complete.upload.key, &new, complete.time_ms, ids)?;
            let seq = state.numbers.record();
            let CompleteUpload { etag, size, time_ms, .. } = complete;
            let outcome = Outcome::Present(Properties { etag, size, time_ms });
            state.index.reserve_name(bucket, &complete.upload.key, seq, outcome);
            state.index.reserve_import(bucket, decision.id);
            state.index.close_upload(bucket, complete.upload.seq);
            state.index.pin(&pinned);
            (bucket, seq, decision)
        };
        let CompleteUpload { upload, parts, head, tags, part_checksums, bound, etag, size, time_ms, condition: _ } =
            complete;
        let record = ObjectPut {
            bucket,
            upload: Some(upload.seq),
            size,
            time_ms,
            etag,
            sealed: upload.sealed,
            bound,
            key: &upload.key,
            head: &head,
            parts,
            tags: &tags,
            part_checksums: &part_checksums,
            completed: Some(upload.id),
            id: decision.id,
            lock: decision.lock,
        };
        let drafts = vec![draft(seq, &RecordPayload::ObjectPut(record))];
        self.write(CommitRequest { drafts, pinned, ..CommitRequest::default() }).await?;
        Ok(decision.stored(seq, ids))
    }

    /// Aborts an upload.
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchUpload`; `Conflict` while it is being completed or
    /// aborted; those of every write.
    pub async fn abort_upload(&self, bucket: &str, key: &str, id: &[u8; 16], time_ms: u64) -> Result<(), Error> {
        let store = self.store();
        let (seq, bucket, upload) = {
            let mut state = store.lock();
            store.check_poison()?;
            let (bucket, home) = state.index.writable(bucket)?;
            let (upload, open) = home.upload_by_id(key, id).ok_or(Error::NoSuchUpload)?;
            open.check_open()?;
            state.index.close_upload(bucket, upload);
            (state.numbers.record(), bucket, upload)
        };
        self.write(CommitRequest::deletion(draft(seq, &RecordPayload::UploadAbort { bucket, upload, time_ms }))).await
    }

    /// Lists uploads and common prefixes, ordered by key and then by creation.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn list_uploads(&self, bucket: &str, list: &ListUploads) -> Result<UploadListing, Error> {
        let state = self.store().lock();
        let (_, home) = state.index.bucket(bucket).ok_or(Error::NoSuchBucket)?;
        Ok(home.list_uploads(list))
    }
}

/// Resolves a reference to an upload that still exists.
fn find<'a>(index: &'a Index, upload: &UploadRef) -> Result<(u64, &'a Bucket, &'a Upload), Error> {
    let (bucket, home) = index.writable(&upload.bucket).map_err(|_| Error::NoSuchUpload)?;
    let found = home.upload(upload.seq).ok_or(Error::NoSuchUpload)?;
    Ok((bucket, home, found))
}
