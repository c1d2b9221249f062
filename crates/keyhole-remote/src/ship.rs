//! Shipping of one change.

use keyhole_log::{BucketInfo, Change, Changed, Disk, Error, FoundVersion, Object, Removed, VersionId, VersionInfo};
use keyhole_node::transfer::{Description, Export};

use crate::env::Env;
use crate::failure::{Failure, ItemFailure};
use crate::fields::{EntryPlace, Kind, ObjectFields, place_of};
use crate::names::entry_name;
use crate::pace::Pace;
use crate::progress::Exception;
use crate::sabotage::{self, Sabotage};
use crate::service::{Content, ContentError, Download, Service};
use crate::shipper::Shipper;

/// The result of shipping a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shipped {
    /// The service has stored the object.
    Stored,
    /// The remote had it already.
    Equal,
    /// The store no longer has it, or has a newer change of it.
    Gone,
}

/// Bytes in memory.
pub(crate) struct Bytes(Option<Vec<u8>>, u64);

impl Bytes {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let len = bytes.len() as u64;
        Bytes((len > 0).then_some(bytes), len)
    }
}

impl Content for Bytes {
    fn total_len(&self) -> u64 {
        self.1
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>, ContentError> {
        Ok(self.0.take())
    }
}

/// The file of a stored object.
struct File<'s, D: Disk, E> {
    export: Export<'s, D>,
    pace: &'s Pace,
    env: &'s E,
    sent: &'s dyn Fn(usize),
}

impl<D: Disk, E: Env> Content for File<'_, D, E> {
    fn total_len(&self) -> u64 {
        self.export.file_len()
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>, ContentError> {
        let next = self.export.next().await.map_err(|error| ContentError(error.to_string()))?;
        let Some((buf, at)) = next else { return Ok(None) };
        let bytes = buf.as_ref()[at].to_vec();
        drop(buf);
        self.pace.admit(self.env, bytes.len()).await;
        (self.sent)(bytes.len());
        Ok(Some(bytes))
    }
}

/// The bytes of an object of the service itself.
struct Downloaded<T> {
    download: T,
    len: u64,
}

impl<T: Download> Content for Downloaded<T> {
    fn total_len(&self) -> u64 {
        self.len
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>, ContentError> {
        self.download.next().await.map_err(|error| ContentError(error.to_string()))
    }
}

impl<D: Disk, S: Service, E: Env> Shipper<D, S, E> {
    /// Ships a change, if it is still the newest one of its version or bucket. The remote is asked first for
    /// changes up to `probe_through`, which it may have already.
    pub(crate) async fn ship(&self, change: &Change, probe_through: u64) -> Result<Shipped, ItemFailure> {
        let Change { number, bucket, what } = change;
        match what {
            Changed::Bucket => self.ship_bucket(bucket, *number).await,
            Changed::Version(info) if info.is_marker => self.ship_marker(bucket, info, *number, probe_through).await,
            Changed::Version(info) => self.ship_object(bucket, info, *number, probe_through).await,
        }
    }

    async fn ship_bucket(&self, bucket: &str, number: u64) -> Result<Shipped, ItemFailure> {
        let Some(info) = self.log.bucket(bucket) else { return self.gone().await };
        let Some((settings, _)) = self.log.bucket_settings(bucket) else { return self.gone().await };
        let BucketInfo { name, .. } = &info;
        let line = self.env.describe_bucket(&info, &settings);
        let fields = ObjectFields::plain(self.store(), Kind::Bucket, number);
        self.service.put(&self.names.bucket(name), &fields.encode(None), Bytes::new(line)).await?;
        Ok(Shipped::Stored)
    }

    async fn ship_marker(
        &self,
        bucket: &str,
        info: &VersionInfo,
        change: u64,
        probe_through: u64,
    ) -> Result<Shipped, ItemFailure> {
        if !self.is_current(bucket, info) {
            return self.gone().await;
        }
        let name = self.names.object(bucket, &info.key, Some(info.version));
        let entry = self.env.describe_marker(bucket, info);
        let fields = self.fields(&name, Kind::Marker, info, change, &entry);
        if self.has(&name, &fields, 0, probe_through).await? {
            return Ok(Shipped::Equal);
        }
        self.put_entry(&name, &fields, entry).await?;
        self.service.put(&name, &fields.encode(Some(info)), Bytes::new(Vec::new())).await?;
        Ok(Shipped::Stored)
    }

    async fn ship_object(
        &self,
        bucket: &str,
        info: &VersionInfo,
        change: u64,
        probe_through: u64,
    ) -> Result<Shipped, ItemFailure> {
        let name = self.names.stored_version(bucket, &info.key, info.version);
        if !info.sealed && !self.options.ships_plaintext {
            // The object that it replaced may have been sealed.
            if info.version == VersionId::Null
                && self.is_compared
                && !self.options.keep_deleted
                && self.is_current(bucket, info)
            {
                self.service.delete(&name).await?;
            }
            return Ok(Shipped::Gone);
        }
        let Some(object) = self.find(bucket, info).await? else { return self.gone().await };
        let description = Description::of(bucket, &info.key, &object)?;
        let export = Export::new(&self.log, bucket, &info.key, &object)?;
        let file_len = export.file_len();
        if object.is_evicted {
            return self
                .describe_evicted(&name, info, change, (&description, &object.head, file_len), probe_through)
                .await;
        }
        let entry = self.env.describe(&description, &object.head, file_len).map_err(ItemFailure::Exception)?;
        let fields = self.fields(&name, Kind::Object, info, change, &entry);
        if self.has(&name, &fields, file_len, probe_through).await? {
            return Ok(Shipped::Equal);
        }
        self.put_entry(&name, &fields, entry).await?;
        let sent = |len: usize| self.report.borrow_mut().shipped_bytes += len as u64;
        let file = File { export, pace: &self.pace, env: &self.env, sent: &sent };
        self.service.put(&name, &fields.encode(Some(info)), file).await?;
        Ok(Shipped::Stored)
    }

    /// Replaces the description of an evicted object, whose tags or lock have changed. A service can
    /// replace metadata only with the bytes, which come from the service itself.
    async fn describe_evicted(
        &self,
        name: &str,
        info: &VersionInfo,
        change: u64,
        (description, head, file_len): (&Description, &[u8], u64),
        probe_through: u64,
    ) -> Result<Shipped, ItemFailure> {
        let entry = self.env.describe(description, head, file_len).map_err(ItemFailure::Exception)?;
        let fields = self.fields(name, Kind::Object, info, change, &entry);
        if self.has(name, &fields, file_len, probe_through).await? {
            return Ok(Shipped::Equal);
        }
        let lost = || ItemFailure::Exception("its bytes are evicted, and the remote has lost them".to_owned());
        let (found, download) = self.service.get(name, None).await?.ok_or_else(lost)?;
        let stored = ObjectFields::decode(&found.fields).filter(|stored| stored.number == info.seq);
        if found.len != file_len || stored.is_none_or(|stored| stored.store != self.store()) {
            return Err(lost());
        }
        self.put_entry(name, &fields, entry).await?;
        self.service.put(name, &fields.encode(Some(info)), Downloaded { download, len: file_len }).await?;
        Ok(Shipped::Stored)
    }

    /// Reads the version, if it still exists.
    async fn find(&self, bucket: &str, info: &VersionInfo) -> Result<Option<Object>, ItemFailure> {
        let found = match self.log.version(bucket, &info.key, Some(info.version)).await {
            Err(Error::NoSuchBucket) => return Ok(None),
            found => found?,
        };
        // A `null` version that replaced this one is another change.
        Ok(FoundVersion::into_object(found).map(|(object, _)| object).filter(|object| object.seq == info.seq))
    }

    /// Confirms a change without an object, once a power failure cannot undo its removal from the store.
    async fn gone(&self) -> Result<Shipped, ItemFailure> {
        if !sabotage::is(Sabotage::ConfirmGone) {
            self.await_durable_index().await.map_err(ItemFailure::Whole)?;
        }
        Ok(Shipped::Gone)
    }

    /// Returns whether the store still has this version.
    fn is_current(&self, bucket: &str, info: &VersionInfo) -> bool {
        let now = self.log.version_info(bucket, &info.key, Some(info.version));
        now.is_ok_and(|now| now.is_some_and(|now| now.seq == info.seq))
    }

    fn fields(&self, name: &str, kind: Kind, info: &VersionInfo, change: u64, entry: &[u8]) -> ObjectFields {
        let is_long = self.names.is_long(name);
        let entry = if is_long { EntryPlace::Beside(entry.len() as u64) } else { place_of(entry) };
        let key = is_long.then(|| info.key.clone());
        ObjectFields { store: self.store(), kind, number: info.seq, change, key, entry: Some(entry) }
    }

    /// Stores a description that is too long for the metadata.
    async fn put_entry(&self, name: &str, fields: &ObjectFields, entry: Vec<u8>) -> Result<(), ItemFailure> {
        if !matches!(fields.entry, Some(EntryPlace::Beside(_))) {
            return Ok(());
        }
        let own = ObjectFields { kind: Kind::Entry, entry: None, ..fields.clone() };
        Ok(self.service.put(&entry_name(name), &own.encode(None), Bytes::new(entry)).await?)
    }

    /// Returns whether the remote has the object already.
    async fn has(&self, name: &str, fields: &ObjectFields, len: u64, probe_through: u64) -> Result<bool, ItemFailure> {
        if fields.change > probe_through {
            return Ok(false);
        }
        let Some(head) = self.service.head(name).await? else { return Ok(false) };
        Ok(head.len == len && ObjectFields::decode(&head.fields).as_ref() == Some(fields))
    }

    /// Deletes what a removed version or bucket has left in the remote.
    pub(crate) async fn ship_removal(&self, removed: &Removed) -> Result<(), Failure> {
        let Removed { bucket, key, version, .. } = removed;
        let Some(key) = key else {
            if self.log.bucket(bucket).is_none() && self.env.has_bucket(bucket) {
                self.await_durable_index().await?;
                self.service.delete(&self.names.bucket(bucket)).await?;
            }
            return Ok(());
        };
        if !self.env.has_key(bucket, key) {
            return Ok(());
        }
        let now = self.log.version_info(bucket, key, Some(*version)).unwrap_or_default();
        self.await_durable_index().await?;
        let object = self.names.object(bucket, key, None);
        let other = self.names.object(bucket, key, Some(*version));
        match (version, now) {
            (VersionId::Id(_), None) => self.delete(&other).await,
            (VersionId::Id(_), Some(_)) => Ok(()),
            // The `null` version may be an object or a marker, under different names.
            (VersionId::Null, Some(now)) if now.is_marker => self.delete(&object).await,
            (VersionId::Null, Some(_)) => self.delete(&other).await,
            (VersionId::Null, None) => {
                self.delete(&object).await?;
                self.delete(&other).await
            }
        }
    }

    /// Deletes an object and its description.
    async fn delete(&self, name: &str) -> Result<(), Failure> {
        self.service.delete(name).await?;
        self.service.delete(&entry_name(name)).await?;
        self.report.borrow_mut().deleted += 1;
        Ok(())
    }

    /// Ships a version that the remote did not accept before, if it still exists.
    pub(crate) async fn retry(&self, exception: &Exception) -> Result<(), ItemFailure> {
        let Exception { bucket, key, version, .. } = exception;
        let Ok(version) = version.parse::<VersionId>() else { return Ok(()) };
        let found = self.log.version_info(bucket, key, Some(version));
        self.await_durable_index().await.map_err(ItemFailure::Whole)?;
        let Ok(Some(info)) = found else { return Ok(()) };
        // The last change of the version is not known. Its description may differ from that in the remote,
        // which is not asked.
        let number = self.log.store().settled().max(info.seq);
        let change = Change { number, bucket: bucket.clone(), what: Changed::Version(info) };
        self.ship(&change, 0).await.map(drop)
    }

    pub(crate) fn store(&self) -> [u8; 16] {
        self.log.store().store_id()
    }
}

impl Exception {
    pub(crate) fn is_same_version(&self, other: &Exception) -> bool {
        (&self.bucket, &self.key, &self.version) == (&other.bucket, &other.key, &other.version)
    }
}
