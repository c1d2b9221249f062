//! The node's end of a transfer out of the store.

use std::io;

use keyhole_log::limits::LIST_MAX;
use keyhole_log::{
    BucketLock, BucketSettings, Disk, Error, FoundVersion, ListObjects, ListUploads, Listed, ListedUpload, Log,
    VersionId, VersionInfo, Versioning,
};
use keyhole_node::transfer::{Description, Export, ReadError};
use keyhole_node::{EvictedObjects, FaultKind};

use super::entry::{BucketEntry, ObjectEntry};
use super::manifest::{VERSION, VERSION_PLAIN};
use super::peer::Peer;
use super::protocol::{ExportAnswer, ExportMessage, FileEnd};
use super::versions::{MarkerEntry, Version};
use crate::control::{DamageReply, Scope};
use crate::metrics::Metrics;

/// The reason why an export ends before it is complete.
#[derive(thiserror::Error, Debug)]
enum Aborted {
    #[error(transparent)]
    Store(#[from] ReadError),
    #[error(
        "versioning or object lock of bucket {0} was enabled after the export had described it: run the command again"
    )]
    Outdated(String),
}

/// Sends everything in scope, ordered by bucket and key, bytewise.
pub(crate) async fn send<D: Disk>(
    log: &Log<D>,
    scope: &Scope,
    peer: &Peer,
    (metrics, evicted): (Option<&Metrics>, Option<&dyn EvictedObjects>),
) -> io::Result<()> {
    let buckets = log.buckets().into_iter().filter(|bucket| scope.has_bucket(&bucket.name));
    let buckets: Vec<_> = buckets.collect();
    let is_versioned = |name: &str| log.bucket_versioning(name).is_some_and(|(state, _)| state != Versioning::Off);
    let has_versions = buckets.iter().any(|bucket| is_versioned(&bucket.name));
    let version = if has_versions { VERSION } else { VERSION_PLAIN };
    peer.send(&ExportMessage::Store { id: hex::encode(log.store().store_id()), version }).await?;
    let mut uploads = 0;
    if let Some(wanted) = &scope.bucket
        && buckets.is_empty()
    {
        return peer.send(&ExportMessage::Failed { message: format!("no bucket {wanted}") }).await;
    }
    let mut described = Vec::new();
    for bucket in buckets {
        // The bucket may have been deleted meanwhile.
        let Some((settings, _)) = log.bucket_settings(&bucket.name) else { continue };
        let sending = Sending { log, bucket: &bucket.name, prefix: &scope.prefix, peer, metrics, evicted };
        if !has_versions && settings.versioning != Versioning::Off {
            return sending.fail(&Aborted::Outdated(bucket.name.clone())).await;
        }
        peer.send(&ExportMessage::Bucket(BucketEntry::new(bucket.name.clone(), bucket.time_ms, &settings))).await?;
        if let Err(error) = sending.contents(&settings).await? {
            return sending.fail(&error).await;
        }
        uploads += count_uploads(log, &bucket.name, &scope.prefix);
        described.push((bucket.name, settings.versioning, settings.lock));
    }
    for (bucket, versioning, lock) in &described {
        let sending = Sending { log, bucket, prefix: &scope.prefix, peer, metrics, evicted };
        if let Err(error) = sending.check(*versioning, *lock) {
            return sending.fail(&error).await;
        }
    }
    peer.send(&ExportMessage::End { uploads }).await
}

/// A bucket that is sent.
struct Sending<'s, D: Disk> {
    log: &'s Log<D>,
    bucket: &'s str,
    prefix: &'s str,
    peer: &'s Peer,
    metrics: Option<&'s Metrics>,
    evicted: Option<&'s dyn EvictedObjects>,
}

impl<D: Disk> Sending<'_, D> {
    async fn fail(&self, error: &Aborted) -> io::Result<()> {
        self.peer.send(&ExportMessage::Failed { message: error.to_string() }).await
    }

    /// Sends the contents of the bucket, whose line has these settings. The inner error ends the
    /// transfer.
    async fn contents(&self, settings: &BucketSettings) -> io::Result<Result<(), Aborted>> {
        if settings.versioning == Versioning::Off { self.objects().await } else { self.versions(settings).await }
    }

    /// Checks that the line of the bucket still admits everything in it.
    fn check(&self, versioning: Versioning, lock: Option<BucketLock>) -> Result<(), Aborted> {
        let Some((now, lock_now)) = self.log.bucket_versioning(self.bucket) else { return Ok(()) };
        let is_outdated =
            (versioning == Versioning::Off && now != Versioning::Off) || (lock.is_none() && lock_now.is_some());
        if is_outdated { Err(Aborted::Outdated(self.bucket.to_owned())) } else { Ok(()) }
    }

    /// Sends the objects of a bucket without versioning.
    async fn objects(&self) -> io::Result<Result<(), Aborted>> {
        let mut after = None;
        loop {
            if let Err(outdated) = self.check(Versioning::Off, None) {
                return Ok(Err(outdated));
            }
            let list = ListObjects { prefix: self.prefix.to_owned(), after, limit: LIST_MAX, ..ListObjects::default() };
            let Ok(listing) = self.log.list_objects(self.bucket, &list) else { return Ok(Ok(())) };
            for listed in &listing.entries {
                let Listed::Object { key, .. } = listed else { continue };
                if let Err(error) = self.object(key, None).await? {
                    return Ok(Err(error));
                }
            }
            after = match listing.entries.last() {
                Some(Listed::Object { key, .. }) if listing.truncated => Some(key.clone()),
                _ => return Ok(Ok(())),
            };
        }
    }

    /// Sends the versions and delete markers of a bucket, of each key the oldest first.
    async fn versions(&self, settings: &BucketSettings) -> io::Result<Result<(), Aborted>> {
        let mut after = (self.prefix.to_owned(), 0);
        loop {
            if let Err(outdated) = self.check(settings.versioning, settings.lock) {
                return Ok(Err(outdated));
            }
            let found = self.log.versions_in_order(self.bucket, Some((&after.0, after.1)), LIST_MAX);
            let Ok(found) = found else { return Ok(Ok(())) };
            let is_last = found.len() < LIST_MAX;
            for info in found {
                if !info.key.starts_with(self.prefix) {
                    return Ok(Ok(()));
                }
                if info.is_marker {
                    self.marker(&info).await?;
                } else if let Err(error) = self.object(&info.key, Some(&info)).await? {
                    return Ok(Err(error));
                }
                after = (info.key, info.seq);
            }
            if is_last {
                return Ok(Ok(()));
            }
        }
    }

    /// Sends a delete marker, if it still exists.
    async fn marker(&self, info: &VersionInfo) -> io::Result<()> {
        let now = self.log.version_info(self.bucket, &info.key, Some(info.version));
        if !now.is_ok_and(|now| now.is_some_and(|now| now.seq == info.seq)) {
            return Ok(());
        }
        let marker = MarkerEntry {
            bucket: self.bucket.to_owned(),
            key: info.key.clone(),
            version: Version(info.version),
            modified_ms: info.time_ms,
        };
        self.peer.send(&ExportMessage::Marker(marker)).await
    }

    /// Sends an object, or one of its versions, if it still exists; reports one that is damaged. The
    /// inner error ends the transfer.
    async fn object(&self, key: &str, version: Option<&VersionInfo>) -> io::Result<Result<(), Aborted>> {
        let Err(error) = self.readable_object(key, version).await? else { return Ok(Ok(())) };
        match damage(&error, self.bucket, key, version.map(|info| info.version), self.metrics) {
            Some(damage) => self.peer.send(&ExportMessage::Damaged(damage)).await?,
            None => return Ok(Err(error.into())),
        }
        Ok(Ok(()))
    }

    /// The inner error is of an object that was not described yet.
    async fn readable_object(&self, key: &str, version: Option<&VersionInfo>) -> io::Result<Result<(), ReadError>> {
        let log = &self.log.past_cache();
        let object = match version {
            None => log.object(self.bucket, key).await,
            Some(info) => {
                let found = log.version(self.bucket, key, Some(info.version)).await;
                let object = found.map(|found| FoundVersion::into_object(found).map(|(object, _)| object));
                // A `null` version that replaced this one comes later.
                object.map(|object| object.filter(|object| object.seq == info.seq))
            }
        };
        let object = match object {
            Ok(Some(object)) => object,
            Ok(None) | Err(Error::NoSuchBucket) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error.into())),
        };
        let described = Description::of(self.bucket, key, &object).and_then(|description| {
            let outgoing = Export::with_evicted(log, self.bucket, key, &object, self.evicted)?;
            let entry = ObjectEntry::new(&description, &object.head, outgoing.file_len())
                .map_err(|error| ReadError::Damaged(error.to_string()))?;
            Ok((entry, outgoing))
        });
        let (entry, outgoing) = match described {
            Ok(described) => described,
            Err(error) => return Ok(Err(error)),
        };
        self.peer.send(&ExportMessage::Object(Box::new(entry))).await?;
        match self.peer.message::<ExportAnswer>().await? {
            ExportAnswer::Skip => Ok(Ok(())),
            ExportAnswer::Send => self.file(key, version, outgoing).await.map(Ok),
        }
    }

    /// Sends the file of an object.
    async fn file(&self, key: &str, version: Option<&VersionInfo>, mut outgoing: Export<'_, D>) -> io::Result<()> {
        loop {
            match outgoing.next().await {
                Ok(Some((buf, at))) => {
                    self.peer.data(&buf.as_ref()[at]).await?;
                    // A short object may complete without waiting, so yield to other tasks.
                    tokio::task::yield_now().await;
                }
                Ok(None) => return self.peer.end(&FileEnd::Whole).await,
                Err(error) => {
                    let version = version.map(|info| info.version);
                    // Logs and counts it, if it is damage.
                    if damage(&error, self.bucket, key, version, self.metrics).is_none() {
                        tracing::error!(bucket = self.bucket, key, %error, "an object cannot be exported");
                    }
                    return self.peer.end(&FileEnd::Failed { what: error.to_string() }).await;
                }
            }
        }
    }
}

/// Returns the damage that an error reports, if any. Logs and counts it.
fn damage(
    error: &ReadError,
    bucket: &str,
    key: &str,
    version: Option<VersionId>,
    metrics: Option<&Metrics>,
) -> Option<DamageReply> {
    let (what, offset) = match error {
        ReadError::Log(Error::Damaged(damage)) => (damage.what.to_owned(), damage.offset),
        ReadError::Log(_) => return None,
        ReadError::Damaged(what) => (what.clone(), 0),
    };
    if let Some(metrics) = metrics {
        metrics.add_found(FaultKind::Damage, bucket, key);
    }
    let version = version.map(|version| version.to_string());
    tracing::error!(bucket, key, version, what, "an object cannot be exported");
    Some(DamageReply { what, offset, bucket: Some(bucket.to_owned()), key: Some(key.to_owned()), version })
}

/// Counts the multipart uploads in progress.
fn count_uploads<D: Disk>(log: &Log<D>, bucket: &str, prefix: &str) -> u64 {
    let mut count = 0;
    let mut after = None;
    loop {
        let list = ListUploads { prefix: prefix.to_owned(), after, limit: LIST_MAX, ..ListUploads::default() };
        let Ok(listing) = log.list_uploads(bucket, &list) else { return count };
        count += listing.entries.len() as u64;
        after = match listing.entries.last() {
            Some(ListedUpload::Upload(upload)) if listing.truncated => Some((upload.key.clone(), Some(upload.id))),
            _ => return count,
        };
    }
}
