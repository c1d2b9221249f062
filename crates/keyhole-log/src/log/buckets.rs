//! Bucket operations.

use std::sync::Arc;

use super::{CommitRequest, Log, draft, within};
use crate::disk::Disk;
use crate::error::Error;
use crate::index::Bucket;
use crate::limits::{BUCKET_MAX, BUCKET_TAGS_MAX, CORS_MAX, LIFECYCLE_MAX, POLICY_MAX};
use crate::types::{BucketInfo, BucketSettings};
use crate::version::{BucketLock, Versioning};
use crate::wire::payload::RecordPayload;

impl<D: Disk> Log<D> {
    /// Creates a bucket. Returns `false` if it existed. The caller has validated the name.
    ///
    /// # Errors
    /// `Conflict` while the creation or deletion of a bucket of this name is in flight; those of
    /// every write: `TooLarge`, `Full`, `Io`, `Poisoned`, `Closed`.
    pub async fn create_bucket(&self, name: &str, time_ms: u64) -> Result<bool, Error> {
        self.create_tagged_bucket(name, time_ms, &[]).await
    }

    /// Creates a bucket with these [`tags`](BucketSettings::tags) in one record, so that it never
    /// exists without them. Leaves an existing bucket as it is and returns `false`.
    ///
    /// # Errors
    /// Those of [`create_bucket`](Self::create_bucket); `TooLarge` also for tags over
    /// [`BUCKET_TAGS_MAX`].
    pub async fn create_tagged_bucket(&self, name: &str, time_ms: u64, tags: &[u8]) -> Result<bool, Error> {
        within(name.len(), BUCKET_MAX, "the name of a bucket")?;
        within(tags.len(), BUCKET_TAGS_MAX, "the tags of a bucket")?;
        let Some(seq) = self.begin_bucket(name)? else { return Ok(false) };
        let create = draft(seq, &RecordPayload::BucketCreate { time_ms, name, tags });
        self.write(CommitRequest::new(vec![create])).await?;
        Ok(true)
    }

    /// Creates a bucket like [`create_tagged_bucket`](Self::create_tagged_bucket), with versioning and
    /// object lock enabled from the beginning.
    ///
    /// # Errors
    /// Those of [`create_tagged_bucket`](Self::create_tagged_bucket).
    pub async fn create_locked_bucket(&self, name: &str, time_ms: u64, tags: &[u8]) -> Result<bool, Error> {
        within(name.len(), BUCKET_MAX, "the name of a bucket")?;
        within(tags.len(), BUCKET_TAGS_MAX, "the tags of a bucket")?;
        let Some(bucket) = self.begin_bucket(name)? else { return Ok(false) };
        let seq = self.store().lock().numbers.record();
        let create = draft(bucket, &RecordPayload::BucketCreate { time_ms, name, tags: &[] });
        let settings = BucketSettings {
            tags: tags.into(),
            versioning: Versioning::Enabled,
            lock: Some(BucketLock::default()),
            ..BucketSettings::default()
        };
        // Both records are in one batch, so that the bucket never exists without its lock.
        let set = draft(seq, &RecordPayload::BucketSettings { bucket, time_ms, settings });
        self.write(CommitRequest::new(vec![create, set])).await?;
        Ok(true)
    }

    /// Reserves the name of a new bucket, and returns its number. `None`: the bucket exists.
    fn begin_bucket(&self, name: &str) -> Result<Option<u64>, Error> {
        let store = self.store();
        let seq = {
            let mut state = store.lock();
            store.check_poison()?;
            if state.index.bucket(name).is_none() {
                state.index.admit_name(name.len())?;
            }
            if !state.index.reserve_bucket(name)? {
                return Ok(None);
            }
            state.numbers.record()
        };
        Ok(Some(seq))
    }

    /// Deletes a bucket that has no objects, together with its open uploads.
    ///
    /// # Errors
    /// `NoSuchBucket`; `BucketNotEmpty`, also while a write of an object into it is in flight;
    /// `Conflict` while it is being deleted; those of every write.
    pub async fn delete_bucket(&self, name: &str, time_ms: u64) -> Result<(), Error> {
        let store = self.store();
        let (seq, bucket) = {
            let mut state = store.lock();
            store.check_poison()?;
            let bucket = state.index.reserve_bucket_deletion(name)?;
            (state.numbers.record(), bucket)
        };
        self.write(CommitRequest::deletion(draft(seq, &RecordPayload::BucketDelete { bucket, time_ms }))).await
    }

    /// Replaces the settings of a bucket.
    ///
    /// # Errors
    /// `NoSuchBucket`; `TooLarge` for a policy over [`POLICY_MAX`], a lifecycle over
    /// [`LIFECYCLE_MAX`], CORS rules over [`CORS_MAX`] or tags over [`BUCKET_TAGS_MAX`];
    /// `InvalidBucketState` if versioning would be turned off, or the object lock would be removed or
    /// be without versioning; `Conflict` while a change of the versioning or of the object lock is in
    /// flight, or if this is one and any change is; those of every write.
    pub async fn set_bucket(&self, bucket: &str, settings: BucketSettings, time_ms: u64) -> Result<(), Error> {
        self.settle(bucket, time_ms, |_| Ok(settings)).await
    }

    /// Changes the settings of a bucket atomically: `change` gets the current settings and returns
    /// the new ones. It runs under the lock.
    ///
    /// # Errors
    /// The error of `change`, and the settings stay as they are; `Conflict` while another change of
    /// the settings is in flight; those of [`set_bucket`](Self::set_bucket).
    pub async fn change_bucket<E: From<Error>>(
        &self,
        bucket: &str,
        time_ms: u64,
        change: impl FnOnce(&mut BucketSettings) -> Result<(), E>,
    ) -> Result<(), E> {
        let changed = |home: &Bucket| {
            if home.is_being_set() {
                return Err(Error::Conflict.into());
            }
            let mut settings = home.settings();
            change(&mut settings)?;
            Ok(settings)
        };
        self.settle(bucket, time_ms, changed).await
    }

    async fn settle<E: From<Error>>(
        &self,
        bucket: &str,
        time_ms: u64,
        decide: impl FnOnce(&Bucket) -> Result<BucketSettings, E>,
    ) -> Result<(), E> {
        let store = self.store();
        let (seq, bucket, settings) = {
            let mut state = store.lock();
            store.check_poison()?;
            let (bucket, home) = state.index.writable(bucket)?;
            let settings = decide(home)?;
            let changes_versioning = home.check_versioning(&settings)?;
            within(settings.policy.len(), POLICY_MAX, "the policy of a bucket")?;
            within(settings.lifecycle.len(), LIFECYCLE_MAX, "the lifecycle of a bucket")?;
            within(settings.cors.len(), CORS_MAX, "the CORS rules of a bucket")?;
            within(settings.tags.len(), BUCKET_TAGS_MAX, "the tags of a bucket")?;
            state.index.reserve_settings(bucket, changes_versioning);
            (state.numbers.record(), bucket, settings)
        };
        let set = draft(seq, &RecordPayload::BucketSettings { bucket, time_ms, settings });
        Ok(self.write(CommitRequest::new(vec![set])).await?)
    }

    /// Returns the settings of a bucket and the plaintext bytes that count against its quota.
    /// `None`: the bucket does not exist.
    pub fn bucket_settings(&self, bucket: &str) -> Option<(BucketSettings, u64)> {
        let state = self.store().lock();
        state.index.bucket(bucket).map(|(_, bucket)| (bucket.settings(), bucket.bytes()))
    }

    /// Returns the lifecycle in the settings of a bucket, if it has one.
    pub fn bucket_lifecycle(&self, bucket: &str) -> Option<Arc<[u8]>> {
        let state = self.store().lock();
        state.index.bucket(bucket).and_then(|(_, bucket)| bucket.lifecycle())
    }

    /// Returns the CORS rules in the settings of a bucket, if it has any.
    pub fn bucket_cors(&self, bucket: &str) -> Option<Arc<[u8]>> {
        let state = self.store().lock();
        state.index.bucket(bucket).and_then(|(_, bucket)| bucket.cors())
    }

    /// Returns a bucket, if it exists.
    pub fn bucket(&self, name: &str) -> Option<BucketInfo> {
        self.store().lock().index.bucket(name).map(|(_, bucket)| bucket.info())
    }

    /// Returns all buckets, ordered by name.
    pub fn buckets(&self) -> Vec<BucketInfo> {
        self.store().lock().index.buckets().collect()
    }
}
