//! The node's end of a transfer out of the store.

use std::io;

use keyhole_log::limits::LIST_MAX;
use keyhole_log::{
    Disk, Error, ListObjects, ListUploads, ListVersions, Listed, ListedUpload, ListedVersion, Log, Versioning,
};
use keyhole_node::FaultKind;
use keyhole_node::transfer::{Description, Export, ReadError};

use super::entry::{BucketEntry, ObjectEntry};
use super::peer::Peer;
use super::protocol::{ExportAnswer, ExportMessage, FileEnd};
use crate::control::{DamageReply, Scope};
use crate::metrics::Metrics;

/// Sends everything in scope, ordered by bucket and key, bytewise.
pub(crate) async fn send<D: Disk>(
    log: &Log<D>,
    scope: &Scope,
    peer: &Peer,
    metrics: Option<&Metrics>,
) -> io::Result<()> {
    peer.send(&ExportMessage::Store { id: hex::encode(log.store().store_id()) }).await?;
    let mut uploads = 0;
    let mut versions = 0;
    let buckets = log.buckets().into_iter().filter(|bucket| scope.has_bucket(&bucket.name));
    let buckets: Vec<_> = buckets.collect();
    if let Some(wanted) = &scope.bucket
        && buckets.is_empty()
    {
        return peer.send(&ExportMessage::Failed { message: format!("no bucket {wanted}") }).await;
    }
    for bucket in buckets {
        // The bucket may have been deleted meanwhile.
        let Some((settings, _)) = log.bucket_settings(&bucket.name) else { continue };
        peer.send(&ExportMessage::Bucket(BucketEntry::new(bucket.name.clone(), bucket.time_ms, &settings))).await?;
        if let Err(error) = send_objects(log, &bucket.name, &scope.prefix, peer, metrics).await? {
            return peer.send(&ExportMessage::Failed { message: error.to_string() }).await;
        }
        uploads += count_uploads(log, &bucket.name, &scope.prefix);
        if settings.versioning != Versioning::Off {
            versions += count_versions(log, &bucket.name, &scope.prefix).await;
        }
    }
    peer.send(&ExportMessage::End { uploads, versions }).await
}

/// Sends the objects of a bucket. The inner error is of the store and ends the transfer.
async fn send_objects<D: Disk>(
    log: &Log<D>,
    bucket: &str,
    prefix: &str,
    peer: &Peer,
    metrics: Option<&Metrics>,
) -> io::Result<Result<(), ReadError>> {
    let mut after = None;
    loop {
        let list = ListObjects { prefix: prefix.to_owned(), after, limit: LIST_MAX, ..ListObjects::default() };
        let Ok(listing) = log.list_objects(bucket, &list) else { return Ok(Ok(())) };
        for listed in &listing.entries {
            let Listed::Object { key, .. } = listed else { continue };
            if let Err(error) = send_object(log, bucket, key, peer, metrics).await? {
                match damage(&error, bucket, key, metrics) {
                    Some(damage) => peer.send(&ExportMessage::Damaged(damage)).await?,
                    None => return Ok(Err(error)),
                }
            }
        }
        after = match listing.entries.last() {
            Some(Listed::Object { key, .. }) if listing.truncated => Some(key.clone()),
            _ => return Ok(Ok(())),
        };
    }
}

/// Sends one object if it still exists. The inner error is of an object that was not described yet.
async fn send_object<D: Disk>(
    log: &Log<D>,
    bucket: &str,
    key: &str,
    peer: &Peer,
    metrics: Option<&Metrics>,
) -> io::Result<Result<(), ReadError>> {
    let log = &log.past_cache();
    let object = match log.object(bucket, key).await {
        Ok(Some(object)) => object,
        Ok(None) | Err(Error::NoSuchBucket) => return Ok(Ok(())),
        Err(error) => return Ok(Err(error.into())),
    };
    let described = Description::of(bucket, key, &object).and_then(|description| {
        let outgoing = Export::new(log, bucket, key, &object)?;
        let entry = ObjectEntry::new(&description, &object.head, outgoing.file_len())
            .map_err(|error| ReadError::Damaged(error.to_string()))?;
        Ok((entry, outgoing))
    });
    let (entry, mut outgoing) = match described {
        Ok(described) => described,
        Err(error) => return Ok(Err(error)),
    };
    peer.send(&ExportMessage::Object(Box::new(entry))).await?;
    match peer.message::<ExportAnswer>().await? {
        ExportAnswer::Skip => return Ok(Ok(())),
        ExportAnswer::Send => {}
    }
    loop {
        match outgoing.next().await {
            Ok(Some((buf, at))) => {
                peer.data(&buf.as_ref()[at]).await?;
                // A short object may complete without waiting, so yield to other tasks.
                tokio::task::yield_now().await;
            }
            Ok(None) => {
                peer.end(&FileEnd::Whole).await?;
                return Ok(Ok(()));
            }
            Err(error) => {
                // Logs and counts it, if it is damage.
                if damage(&error, bucket, key, metrics).is_none() {
                    tracing::error!(bucket, key, %error, "an object cannot be exported");
                }
                peer.end(&FileEnd::Failed { what: error.to_string() }).await?;
                return Ok(Ok(()));
            }
        }
    }
}

/// Returns the damage that an error reports, if any. Logs and counts it.
fn damage(error: &ReadError, bucket: &str, key: &str, metrics: Option<&Metrics>) -> Option<DamageReply> {
    let (what, offset) = match error {
        ReadError::Log(Error::Damaged(damage)) => (damage.what.to_owned(), damage.offset),
        ReadError::Log(_) => return None,
        ReadError::Damaged(what) => (what.clone(), 0),
    };
    if let Some(metrics) = metrics {
        metrics.add_found(FaultKind::Damage, bucket, key);
    }
    tracing::error!(bucket, key, what, "an object cannot be exported");
    Some(DamageReply { what, offset, bucket: Some(bucket.to_owned()), key: Some(key.to_owned()) })
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

/// Counts the noncurrent versions and the delete markers.
async fn count_versions<D: Disk>(log: &Log<D>, bucket: &str, prefix: &str) -> u64 {
    let mut count = 0;
    let mut after = None;
    loop {
        let list = ListVersions { prefix: prefix.to_owned(), after, limit: LIST_MAX, ..ListVersions::default() };
        let Ok(listing) = log.list_versions(bucket, &list) else { return count };
        let is_left_out = |entry: &&ListedVersion| match entry {
            ListedVersion::Version(version) => version.is_marker || !version.is_latest,
            ListedVersion::Prefix(_) => false,
        };
        count += listing.entries.iter().filter(is_left_out).count() as u64;
        after = listing.next;
        if after.is_none() {
            return count;
        }
        tokio::task::yield_now().await;
    }
}
