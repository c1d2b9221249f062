//! Expiry of noncurrent versions and of delete markers.

use super::{Expired, Log};
use crate::disk::Disk;
use crate::error::Error;
use crate::index::{Bucket, Name};
use crate::limits::EXPIRE_BATCH;
use crate::state::Due;
use crate::types::BucketSettings;
use crate::version_list::NoncurrentVersion;
use crate::yielding::yield_once;

impl<D: Disk> Log<D> {
    /// Deletes the noncurrent versions that are due, for good, and returns their number. Locked ones
    /// stay. For each bucket, `rules` turns the settings into a predicate, or `None` to skip the bucket.
    /// Both run under the lock, for [`EXPIRE_BATCH`] versions per lock acquisition, and the rest of the
    /// versions of a name.
    ///
    /// # Errors
    /// Those of every write. Versions deleted before the error stay deleted.
    pub async fn expire_noncurrent_by<R>(
        &self,
        now_ms: u64,
        rules: impl Fn(&BucketSettings) -> Option<R>,
    ) -> Result<u64, Error>
    where
        R: Fn(&NoncurrentVersion<'_>) -> bool,
    {
        self.expire_noncurrent_reporting(now_ms, rules, |_| {}).await
    }

    /// Deletes the noncurrent versions that are due like
    /// [`expire_noncurrent_by`](Self::expire_noncurrent_by), and calls `gone` for each deleted one.
    ///
    /// # Errors
    /// Those of every write.
    pub async fn expire_noncurrent_reporting<R>(
        &self,
        now_ms: u64,
        rules: impl Fn(&BucketSettings) -> Option<R>,
        gone: impl FnMut(&Expired<'_>),
    ) -> Result<u64, Error>
    where
        R: Fn(&NoncurrentVersion<'_>) -> bool,
    {
        let find = |home: &Bucket, name: &Name<'_>, is_due: &R, due: &mut Vec<Due>| {
            let mut seen = 1;
            let mut newer = name.newest();
            while let Some(entry) = name.below(newer.seq) {
                let version = NoncurrentVersion {
                    key: name.key,
                    size: entry.size,
                    time_ms: entry.time_ms(),
                    is_marker: entry.is_marker(),
                    since_ms: newer.time_ms(),
                    newer: seen - 1,
                };
                if is_due(&version) {
                    due.push(due_version(home, name, entry.seq));
                }
                seen += 1;
                newer = entry;
            }
            seen as usize
        };
        self.expire_names(now_ms, rules, find, gone).await
    }

    /// Deletes the delete markers that are the only versions of their names and that are due, and
    /// returns their number. `rules` as in [`expire_noncurrent_by`](Self::expire_noncurrent_by), with a
    /// predicate on key and storage time.
    ///
    /// # Errors
    /// Those of every write.
    pub async fn expire_markers_by<R>(
        &self,
        now_ms: u64,
        rules: impl Fn(&BucketSettings) -> Option<R>,
    ) -> Result<u64, Error>
    where
        R: Fn(&str, u64) -> bool,
    {
        self.expire_markers_reporting(now_ms, rules, |_| {}).await
    }

    /// Deletes the delete markers that are due like [`expire_markers_by`](Self::expire_markers_by), and
    /// calls `gone` for each deleted one.
    ///
    /// # Errors
    /// Those of every write.
    pub async fn expire_markers_reporting<R>(
        &self,
        now_ms: u64,
        rules: impl Fn(&BucketSettings) -> Option<R>,
        gone: impl FnMut(&Expired<'_>),
    ) -> Result<u64, Error>
    where
        R: Fn(&str, u64) -> bool,
    {
        let find = |home: &Bucket, name: &Name<'_>, is_due: &R, due: &mut Vec<Due>| {
            let newest = name.newest();
            if newest.is_marker() && name.is_single() && is_due(name.key, newest.time_ms()) {
                due.push(due_version(home, name, newest.seq));
            }
            1
        };
        self.expire_names(now_ms, rules, find, gone).await
    }

    /// Deletes the versions that `find` adds for each name. It returns the number of versions seen.
    async fn expire_names<R>(
        &self,
        now_ms: u64,
        rules: impl Fn(&BucketSettings) -> Option<R>,
        find: impl Fn(&Bucket, &Name<'_>, &R, &mut Vec<Due>) -> usize,
        mut gone: impl FnMut(&Expired<'_>),
    ) -> Result<u64, Error> {
        let mut expired = 0;
        for bucket in self.buckets() {
            let mut from = Some(String::new());
            while let Some(key) = from {
                let (due, next) = self.due_versions(&bucket.name, &key, &rules, &find);
                expired += self.drop_versions(&due, now_ms, &mut gone).await?;
                from = next;
                yield_once().await;
            }
        }
        Ok(expired)
    }

    /// Returns the due versions of the next names of a bucket, and the key to continue from.
    fn due_versions<R>(
        &self,
        bucket: &str,
        from: &str,
        rules: &impl Fn(&BucketSettings) -> Option<R>,
        find: &impl Fn(&Bucket, &Name<'_>, &R, &mut Vec<Due>) -> usize,
    ) -> (Vec<Due>, Option<String>) {
        let mut due = Vec::new();
        let state = self.store().lock();
        let Some((_, home)) = state.index.bucket(bucket) else { return (due, None) };
        let Some(is_due) = rules(&home.settings()) else { return (due, None) };
        let mut seen = 0;
        for name in home.names_from(from.as_bytes()) {
            if seen >= EXPIRE_BATCH {
                return (due, Some(name.key.to_owned()));
            }
            seen += find(home, &name, &is_due, &mut due);
        }
        (due, None)
    }
}

fn due_version(home: &Bucket, name: &Name<'_>, seq: u64) -> Due {
    let sealed = home.version(name.key, seq).is_some_and(|entry| entry.sealed());
    Due { seq, bucket: home.name().to_owned(), key: name.key.to_owned(), upload: None, sealed }
}
