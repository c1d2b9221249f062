//! Comparison of the names in a remote with the store.

use futures_util::{StreamExt, TryStreamExt, stream};
use keyhole_log::{Disk, VersionId};

use crate::env::Env;
use crate::failure::Failure;
use crate::fields::ObjectFields;
use crate::limits::IN_FLIGHT_MAX;
use crate::names::{RemoteName, parse_name};
use crate::service::Service;
use crate::shipper::Shipper;

impl<D: Disk, S: Service, E: Env> Shipper<D, S, E> {
    /// Deletes the objects that this store has put into the remote and no longer has. Objects of other
    /// programs and of other stores stay, and so do those that no longer belong to the remote.
    pub(crate) async fn compare(&self) -> Result<(), Failure> {
        let mut token: Option<String> = None;
        loop {
            let page = self.service.list("", token.as_deref()).await?;
            let unwanted = page.objects.iter().filter(|object| self.may_be_unwanted(&object.name));
            let deletions = stream::iter(unwanted).map(|object| self.delete_unwanted(&object.name));
            deletions.buffer_unordered(IN_FLIGHT_MAX).try_collect::<()>().await?;
            token = page.next;
            if token.is_none() {
                return Ok(());
            }
        }
    }

    fn may_be_unwanted(&self, name: &str) -> bool {
        match parse_name(name) {
            None => false,
            Some(RemoteName::Long { .. }) => true,
            Some(RemoteName::Entry(of)) if matches!(*of, RemoteName::Long { .. }) => true,
            Some(parsed) => !self.is_wanted(&parsed),
        }
    }

    /// Returns whether the store has the object of a name that is not a digest, or the name does not
    /// belong to the remote.
    fn is_wanted(&self, name: &RemoteName) -> bool {
        match name {
            RemoteName::Bucket { bucket } => !self.env.has_bucket(bucket) || self.log.bucket(bucket).is_some(),
            RemoteName::Object { bucket, key } => self.is_wanted_version(bucket, key, None),
            RemoteName::Version { bucket, key, version } => self.is_wanted_version(bucket, key, Some(*version)),
            RemoteName::Entry(of) => self.is_wanted(of),
            RemoteName::Long { .. } => true,
        }
    }

    fn is_wanted_version(&self, bucket: &str, key: &str, version: Option<VersionId>) -> bool {
        if !self.env.has_key(bucket, key) {
            return true;
        }
        let Ok(Some(info)) = self.log.version_info(bucket, key, Some(version.unwrap_or(VersionId::Null))) else {
            return false;
        };
        let is_shipped = info.is_marker || info.sealed || self.options.ships_plaintext;
        match version {
            // A `null` version has one name as an object and another one as a marker.
            None => !info.is_marker && is_shipped,
            Some(VersionId::Null) => info.is_marker,
            Some(_) => is_shipped,
        }
    }

    /// Deletes an object, if this store has written it and does not have it.
    async fn delete_unwanted(&self, name: &str) -> Result<(), Failure> {
        let Some(head) = self.service.head(name).await? else { return Ok(()) };
        let Some(fields) = ObjectFields::decode(&head.fields) else { return Ok(()) };
        if fields.store != self.store() {
            return Ok(());
        }
        let owner = match parse_name(name) {
            Some(RemoteName::Entry(of)) if matches!(*of, RemoteName::Long { .. }) => {
                name.replacen("/.entries/", "/", 1)
            }
            _ => name.to_owned(),
        };
        if self.names.is_long(&owner) {
            let Some(key) = &fields.key else { return Ok(()) };
            let bucket = owner.split('/').next().unwrap_or_default();
            if !self.env.has_key(bucket, key) || self.has_long(bucket, key, fields.number, &owner) {
                return Ok(());
            }
        }
        self.await_durable_index().await?;
        self.service.delete(name).await?;
        self.report.borrow_mut().deleted += 1;
        Ok(())
    }

    /// Returns whether the version with this number, or the `null` version, of a key has this name.
    fn has_long(&self, bucket: &str, key: &str, number: u64, name: &str) -> bool {
        let after = (key, number.saturating_sub(1));
        let numbered = self.log.versions_in_order(bucket, Some(after), 1).unwrap_or_default();
        let null = self.log.version_info(bucket, key, Some(VersionId::Null)).unwrap_or_default();
        numbered.into_iter().filter(|info| info.key == key).chain(null).any(|info| {
            let is_object = info.version == VersionId::Null && !info.is_marker;
            let version = (!is_object).then_some(info.version);
            self.names.object(bucket, key, version) == name && self.is_wanted_version(bucket, key, version)
        })
    }
}
