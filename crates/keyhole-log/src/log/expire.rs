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

/// An upload that is due.
struct DueUpload {
    key: String,
    id: [u8; 16],
    sealed: bool,
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
                expired += self.drop_all(due, now_ms, &mut gone).await?;
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
                let uploads = due.iter().map(|upload| (&*name, &*upload.key, &upload.id, upload.sealed));
                aborted += self.abort_all(uploads, now_ms, &mut gone).await?;
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

    /// Returns the due uploads (key and identity), like [`due`](Self::due).
    fn due_uploads<R: Fn(&str, u64) -> bool>(
        &self,
        bucket: &str,
        from: u64,
        rules: &impl Fn(&BucketSettings) -> Option<R>,
    ) -> Option<(Vec<DueUpload>, u64)> {
        let state = self.store().lock();
        let (_, home) = state.index.bucket(bucket)?;
        let is_due = rules(&home.settings())?;
        let mut due = Vec::new();
        let mut last = None;
        for (seq, upload) in home.uploads_from(from).take(EXPIRE_BATCH) {
            last = Some(seq);
            if is_due(upload.key(), upload.time_ms()) {
                due.push(DueUpload { key: upload.key().to_owned(), id: upload.id(), sealed: upload.is_sealed() });
            }
        }
        last.map(|last| (due, last + 1))
    }

    /// Deletes objects concurrently, so that they share batches, and returns the number deleted.
    async fn drop_all(&self, due: Vec<Due>, now_ms: u64, gone: &mut impl FnMut(&Expired<'_>)) -> Result<u64, Error> {
        let deletions = due.iter().map(|Due { seq, bucket, key, .. }| {
            self.delete_current_of(bucket, key, now_ms, Condition::None, Some(*seq))
        });
        let mut dropped = 0;
        let mut failed = None;
        for (Due { bucket, key, sealed, .. }, outcome) in
            due.iter().zip(futures_util::future::join_all(deletions).await)
        {
            match outcome {
                Ok(Deletion::Removed(false)) => {}
                Ok(Deletion::Removed(true) | Deletion::Marker(_)) => {
                    dropped += 1;
                    gone(&Expired { bucket, key, sealed: *sealed });
                }
                // The bucket is gone, or another write of the name is in flight: the
                // object is no longer due. Or it would replace a locked version.
                Err(Error::NoSuchBucket | Error::Conflict | Error::Locked) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(dropped), Err)
    }

    /// Deletes versions for good, concurrently, so that they share batches, and returns the number
    /// deleted. Locked ones stay.
    pub(super) async fn drop_versions(
        &self,
        due: Vec<Due>,
        now_ms: u64,
        gone: &mut impl FnMut(&Expired<'_>),
    ) -> Result<u64, Error> {
        let deletions = due.iter().map(async |Due { seq, bucket, key, .. }| {
            let is_plain = self.bucket_versioning(bucket).is_some_and(|(state, _)| state == Versioning::Off);
            if is_plain {
                let deletion = self.delete_current_of(bucket, key, now_ms, Condition::None, Some(*seq)).await?;
                return Ok(deletion != Deletion::Removed(false));
            }
            self.delete_number(bucket, key, *seq, now_ms).await
        });
        let mut dropped = 0;
        let mut failed = None;
        for (Due { bucket, key, sealed, .. }, outcome) in
            due.iter().zip(futures_util::future::join_all(deletions).await)
        {
            match outcome {
                Ok(false) => {}
                Ok(true) => {
                    dropped += 1;
                    gone(&Expired { bucket, key, sealed: *sealed });
                }
                // The bucket is gone, a change of the version is in flight, or it has been locked.
                Err(Error::NoSuchBucket | Error::Conflict | Error::Locked) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(dropped), Err)
    }

    /// Aborts uploads concurrently, so that they share batches, and returns the number aborted.
    async fn abort_all<'a>(
        &self,
        due: impl Iterator<Item = (&'a str, &'a str, &'a [u8; 16], bool)> + Clone,
        now_ms: u64,
        gone: &mut impl FnMut(&Expired<'_>),
    ) -> Result<u64, Error> {
        let abortions = due.clone().map(|(bucket, key, id, _)| self.abort_upload(bucket, key, id, now_ms));
        let mut aborted = 0;
        let mut failed = None;
        for ((bucket, key, _, sealed), outcome) in due.zip(futures_util::future::join_all(abortions).await) {
            match outcome {
                Ok(()) => {
                    aborted += 1;
                    gone(&Expired { bucket, key, sealed });
                }
                // The upload is gone, or its completion is in flight.
                Err(Error::NoSuchBucket | Error::NoSuchUpload | Error::Conflict) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(aborted), Err)
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
            let uploads =
                batch.iter().filter_map(|due| Some((&*due.bucket, &*due.key, due.upload.as_ref()?, due.sealed)));
            dropped += self.abort_all(uploads, 0, &mut |_| {}).await?;
        }
        let mut objects = objects.into_iter().peekable();
        while objects.peek().is_some() {
            dropped += self.drop_versions(objects.by_ref().take(EXPIRE_BATCH).collect(), 0, &mut |_| {}).await?;
        }
        Ok(dropped)
    }
}
