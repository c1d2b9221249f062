//! Expiry of objects and uploads: by age, or to make room.

use std::cell::Cell;

use super::Log;
use crate::disk::Disk;
use crate::error::Error;
use crate::limits::EXPIRE_BATCH;
use crate::state::{Due, Oldest, OldestCursor};
use crate::types::{BucketInfo, BucketSettings, Condition};
use crate::version::{Deletion, Versioning};
use crate::yielding::yield_once;

/// An object or a version that was deleted, or an upload that was aborted, because it was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The key.
    pub key: &'a str,
    /// Whether its head is sealed.
    pub sealed: bool,
}

impl<D: Disk> Log<D> {
    /// Deletes expired objects, stored longer ago than
    /// [`expire_ms`](crate::BucketSettings::expire_ms) of their bucket, and returns their number.
    /// An object with a time after `now_ms`, from a clock that ran ahead, is kept.
    ///
    /// # Errors
    /// Those of every write. Objects deleted before the error stay deleted.
    pub async fn expire(&self, now_ms: u64) -> Result<u64, Error> {
        let rules = |settings: &BucketSettings| {
            let expire_ms = settings.expire_ms?;
            Some(move |_: &str, time_ms: u64, _: u64| time_ms.saturating_add(expire_ms) <= now_ms)
        };
        self.expire_by(now_ms, rules).await
    }

    /// Deletes the objects that are due and returns their number; in a bucket with versioning, delete
    /// markers become the current versions. For each bucket, `rules` turns
    /// the settings into a predicate on key, storage time and plaintext bytes, or `None` to skip the
    /// bucket. Both run under the lock, for at most [`EXPIRE_BATCH`] objects per lock acquisition.
    ///
    /// # Errors
    /// Those of every write. Objects deleted before the error stay deleted.
    pub async fn expire_by<R>(&self, now_ms: u64, rules: impl Fn(&BucketSettings) -> Option<R>) -> Result<u64, Error>
    where
        R: Fn(&str, u64, u64) -> bool,
    {
        self.expire_reporting(now_ms, rules, |_| {}).await
    }

    /// Deletes the objects that are due like [`expire_by`](Self::expire_by), and calls `gone` for
    /// each deleted one.
    ///
    /// # Errors
    /// Those of every write.
    pub async fn expire_reporting<R>(
        &self,
        now_ms: u64,
        rules: impl Fn(&BucketSettings) -> Option<R>,
        mut gone: impl FnMut(&Expired<'_>),
    ) -> Result<u64, Error>
    where
        R: Fn(&str, u64, u64) -> bool,
    {
        let mut expired = 0;
        for bucket in self.buckets() {
            let mut from = String::new();
            while let Some((due, next)) = self.due(&bucket.name, &from, &rules) {
                expired += self.drop_objects(&due, now_ms, &mut gone).await?;
                from = next;
                yield_once().await;
            }
        }
        Ok(expired)
    }

    /// Aborts the uploads that are due, judged by key and creation time. Otherwise like
    /// [`expire_by`](Self::expire_by).
    ///
    /// # Errors
    /// Those of every write.
    pub async fn abort_by<R>(&self, now_ms: u64, rules: impl Fn(&BucketSettings) -> Option<R>) -> Result<u64, Error>
    where
        R: Fn(&str, u64) -> bool,
    {
        self.abort_reporting(now_ms, rules, |_| {}).await
    }

    /// Aborts the uploads that are due like [`abort_by`](Self::abort_by), and calls `gone` for each
    /// aborted one.
    ///
    /// # Errors
    /// Those of every write.
    pub async fn abort_reporting<R>(
        &self,
        now_ms: u64,
        rules: impl Fn(&BucketSettings) -> Option<R>,
        mut gone: impl FnMut(&Expired<'_>),
    ) -> Result<u64, Error>
    where
        R: Fn(&str, u64) -> bool,
    {
        let mut aborted = 0;
        for BucketInfo { name, .. } in self.buckets() {
            let mut from = 0;
            while let Some((due, next)) = self.due_uploads(&name, from, &rules) {
                aborted += self.drop_uploads(&due, now_ms, &mut gone).await?;
                from = next;
                yield_once().await;
            }
        }
        Ok(aborted)
    }

    /// Returns the latest time of any object or upload, and its bucket, among the buckets whose
    /// settings satisfy `concerns`. `None`: there is no time later than 1970.
    pub async fn newest(&self, concerns: impl Fn(&BucketSettings) -> bool) -> Option<(u64, String)> {
        let newest = Cell::new(0);
        let mut found = None;
        let see = |time_ms: u64| {
            newest.set(newest.get().max(time_ms));
            false
        };
        let objects =
            |settings: &BucketSettings| concerns(settings).then_some(|_: &str, time_ms: u64, _: u64| see(time_ms));
        let uploads = |settings: &BucketSettings| concerns(settings).then_some(|_: &str, time_ms: u64| see(time_ms));
        for BucketInfo { name, .. } in self.buckets() {
            let so_far = newest.get();
            let mut from = String::new();
            while let Some((_, next)) = self.due(&name, &from, &objects) {
                from = next;
                yield_once().await;
            }
            let mut from = 0;
            while let Some((_, next)) = self.due_uploads(&name, from, &uploads) {
                from = next;
                yield_once().await;
            }
            if newest.get() > so_far {
                found = Some((newest.get(), name));
            }
        }
        found
    }

    /// Returns the due objects among the next keys of a bucket, and the key to continue from.
    /// `None` at the end.
    fn due<R: Fn(&str, u64, u64) -> bool>(
        &self,
        bucket: &str,
        from: &str,
        rules: &impl Fn(&BucketSettings) -> Option<R>,
    ) -> Option<(Vec<Due>, String)> {
        let state = self.store().lock();
        let (_, home) = state.index.bucket(bucket)?;
        let is_due = rules(&home.settings())?;
        let mut due = Vec::new();
        let mut seen = 0;
        for (key, entry) in home.objects_from(from) {
            if seen == EXPIRE_BATCH {
                return Some((due, key.to_owned()));
            }
            seen += 1;
            if is_due(key, entry.time_ms(), entry.size) {
                let sealed = entry.sealed();
                due.push(Due { seq: entry.seq, bucket: bucket.to_owned(), key: key.to_owned(), upload: None, sealed });
            }
        }
        // Continues after the last key with a name that sorts behind it, so that the
        // next call ends the scan.
        (seen > 0).then(|| (due, format!("{}\0", home.last_key().unwrap_or_default())))
    }

    /// Returns the due uploads, like [`due`](Self::due).
    fn due_uploads<R: Fn(&str, u64) -> bool>(
        &self,
        bucket: &str,
        from: u64,
        rules: &impl Fn(&BucketSettings) -> Option<R>,
    ) -> Option<(Vec<Due>, u64)> {
        let state = self.store().lock();
        let (_, home) = state.index.bucket(bucket)?;
        let is_due = rules(&home.settings())?;
        let mut due = Vec::new();
        let mut last = None;
        for (seq, upload) in home.uploads_from(from).take(EXPIRE_BATCH) {
            last = Some(seq);
            if is_due(upload.key(), upload.time_ms()) {
                let (bucket, key) = (bucket.to_owned(), upload.key().to_owned());
                due.push(Due { seq, bucket, key, upload: Some(upload.id()), sealed: upload.is_sealed() });
            }
        }
        last.map(|last| (due, last + 1))
    }

    /// Deletes current objects. In a bucket with versioning, delete markers become current.
    async fn drop_objects(&self, due: &[Due], now_ms: u64, gone: &mut impl FnMut(&Expired<'_>)) -> Result<u64, Error> {
        drop_each(due, gone, async |due| self.drop_object(due, now_ms).await).await
    }

    async fn drop_object(&self, Due { seq, bucket, key, .. }: &Due, now_ms: u64) -> Result<bool, Error> {
        let deletion = self.delete_current_of(bucket, key, now_ms, Condition::None, Some(*seq)).await?;
        Ok(deletion != Deletion::Removed(false))
    }

    /// Deletes versions for good. Locked ones stay.
    pub(super) async fn drop_versions(
        &self,
        due: &[Due],
        now_ms: u64,
        gone: &mut impl FnMut(&Expired<'_>),
    ) -> Result<u64, Error> {
        let delete = async |due: &Due| {
            let is_plain = self.bucket_versioning(&due.bucket).is_some_and(|(state, _)| state == Versioning::Off);
            if is_plain {
                return self.drop_object(due, now_ms).await;
            }
            self.delete_number(&due.bucket, &due.key, due.seq, now_ms).await
        };
        drop_each(due, gone, delete).await
    }

    /// Aborts uploads.
    async fn drop_uploads(&self, due: &[Due], now_ms: u64, gone: &mut impl FnMut(&Expired<'_>)) -> Result<u64, Error> {
        let abort = async |due: &Due| {
            let Some(id) = &due.upload else { return Ok(false) };
            self.abort_upload(&due.bucket, &due.key, id, now_ms).await.map(|()| true)
        };
        drop_each(due, gone, abort).await
    }

    /// Deletes the oldest versions and open uploads until their sizes add up to `bytes`, and returns
    /// their number; 0 if there are none. An upload is as old as its newest part, so an active one
    /// outlives an abandoned one.
    pub(crate) async fn drop_oldest(&self, bytes: u64) -> Result<u64, Error> {
        let mut oldest = Oldest::default();
        let mut from = Some(OldestCursor::default());
        while let Some(cursor) = from {
            from = self.store().lock().oldest(cursor, bytes, &mut oldest);
        }
        let mut dropped = 0;
        let due = oldest.heap.into_iter().map(|(_, _, due)| due);
        let (uploads, objects): (Vec<Due>, Vec<Due>) = due.partition(|due| due.upload.is_some());
        for batch in uploads.chunks(EXPIRE_BATCH) {
            dropped += self.drop_uploads(batch, 0, &mut |_| {}).await?;
        }
        for batch in objects.chunks(EXPIRE_BATCH) {
            dropped += self.drop_versions(batch, 0, &mut |_| {}).await?;
        }
        Ok(dropped)
    }
}

/// Deletes or aborts what is due, concurrently, so that the records share batches. `delete` returns
/// whether there was anything. Returns the number of those dropped.
async fn drop_each(
    due: &[Due],
    gone: &mut impl FnMut(&Expired<'_>),
    delete: impl AsyncFn(&Due) -> Result<bool, Error>,
) -> Result<u64, Error> {
    let outcomes = futures_util::future::join_all(due.iter().map(|due| delete(due))).await;
    let mut dropped = 0;
    let mut failed = None;
    for (Due { bucket, key, sealed, .. }, outcome) in due.iter().zip(outcomes) {
        match outcome {
            Ok(false) => {}
            Ok(true) => {
                dropped += 1;
                gone(&Expired { bucket, key, sealed: *sealed });
            }
            // It or its bucket is gone, or another write that concerns it is in flight: it is no longer
            // due. Or it has been locked, or would replace a locked version.
            Err(Error::NoSuchBucket | Error::NoSuchUpload | Error::Conflict | Error::Locked) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(dropped), Err)
}
