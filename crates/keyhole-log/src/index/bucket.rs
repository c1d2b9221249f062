//! A bucket: its objects, uploads, settings and in-flight writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::attributes::Attributes;
use super::entry::{Key, ObjectEntry, Properties};
use super::history::History;
use super::location::Location;
use super::uploads::{Upload, Uploads};
use crate::key_map::KeyMap;
use crate::types::{BucketInfo, BucketSettings, BucketUsage, UploadRef};
use crate::version::{BucketLock, Versioning};

/// The outcome of a write for its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Absent,
    Present(Properties),
    /// A version is deleted: the outcome depends on the others.
    Undecided,
}

/// In-flight writes of a name.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Sequence number and outcome of each write.
    pub(super) writes: Vec<(u64, Outcome)>,
    /// The highest sequence number applied in the meantime, including deletions.
    pub(super) applied: u64,
}

/// The settings of a bucket and the location of their record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) at: Location,
    pub(super) seq: u64,
    pub(super) settings: BucketSettings,
}

/// A bucket.
#[derive(Debug)]
pub(crate) struct Bucket {
    pub(super) name: Box<str>,
    pub(super) time_ms: u64,
    pub(super) at: Location,
    /// Tags in the record of its creation; they hold until its settings are set.
    pub(super) created_tags: Arc<[u8]>,
    pub(super) settings: Option<Settings>,
    /// Number of in-flight changes of its settings.
    pub(super) settings_pending: u32,
    /// Whether one of them changes its versioning or object lock.
    pub(super) versioning_pending: bool,
    /// Whether its deletion is in flight.
    pub(super) deleting: bool,
    /// The current versions that are objects. The other versions are in `history`.
    pub(super) objects: KeyMap<ObjectEntry>,
    pub(super) history: History,
    pub(super) attributes: Attributes,
    pub(super) pending: BTreeMap<Key, Pending>,
    pub(super) uploads: Uploads,
    /// Plaintext bytes of its versions, and of the parts of its uploads.
    pub(super) bytes: u64,
    /// Bytes that count towards the quota: `bytes`, and the records.
    pub(super) charged: u64,
    /// Bytes of in-flight writes that count towards the quota.
    pub(super) reserved: u64,
}

impl Bucket {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn info(&self) -> BucketInfo {
        BucketInfo { name: self.name.to_string(), time_ms: self.time_ms }
    }

    pub(super) fn usage(&self) -> BucketUsage {
        BucketUsage {
            name: self.name.to_string(),
            objects: self.objects.len() as u64,
            noncurrent: self.history.objects,
            markers: self.history.markers,
            noncurrent_bytes: self.history.bytes,
            uploads: self.uploads.len() as u64,
            bytes: self.bytes,
            charged: self.charged,
            quota: self.settings.as_ref().and_then(|settings| settings.settings.quota),
        }
    }

    pub(crate) fn settings(&self) -> BucketSettings {
        match &self.settings {
            Some(settings) => settings.settings.clone(),
            None => BucketSettings { tags: self.created_tags.clone(), ..BucketSettings::default() },
        }
    }

    /// Returns the versioning state and the object lock.
    pub(crate) fn versioning(&self) -> (Versioning, Option<BucketLock>) {
        let set = self.settings.as_ref().map(|set| (set.settings.versioning, set.settings.lock));
        set.unwrap_or_default()
    }

    pub(crate) fn lifecycle(&self) -> Option<Arc<[u8]>> {
        self.settings.as_ref().map(|settings| settings.settings.lifecycle.clone()).filter(|bytes| !bytes.is_empty())
    }

    pub(crate) fn cors(&self) -> Option<Arc<[u8]>> {
        self.settings.as_ref().map(|settings| settings.settings.cors.clone()).filter(|bytes| !bytes.is_empty())
    }

    /// Returns the bytes of the opaque settings.
    pub(super) fn opaque_len(&self) -> usize {
        let set = self.settings.as_ref().map_or(0, |Settings { settings, .. }| {
            settings.policy.len() + settings.lifecycle.len() + settings.cors.len() + settings.tags.len()
        });
        self.created_tags.len() + set
    }

    /// Returns the sequence number of the settings; 0 if they were never set.
    pub(crate) fn settings_seq(&self) -> u64 {
        self.settings.as_ref().map_or(0, |settings| settings.seq)
    }

    pub(crate) fn object(&self, key: &str) -> Option<&ObjectEntry> {
        self.objects.get(key.as_bytes())
    }

    /// Iterates over the objects from a key on, in order.
    pub(crate) fn objects_from(&self, key: &str) -> impl Iterator<Item = (&str, &ObjectEntry)> {
        self.objects.from(key.as_bytes())
    }

    /// Iterates over the uploads from a sequence number on, in order.
    pub(crate) fn uploads_from(&self, seq: u64) -> impl Iterator<Item = (u64, &Upload)> {
        self.uploads.from(seq)
    }

    /// Iterates over the open uploads from this one on, each with the number of its newest part,
    /// which gives its age, and its bytes.
    pub(crate) fn abandoned_from(&self, seq: u64) -> impl Iterator<Item = (u64, &Upload, u64, u64)> {
        self.uploads_from(seq).filter(|(_, upload)| !upload.closing).map(|(seq, upload)| {
            let newest = upload.parts.iter().map(|part| part.seq).max().unwrap_or(seq);
            let parts = upload.parts.iter().map(|part| u64::from(part.at.len()) + part.part.size);
            (seq, upload, newest, u64::from(upload.at.len()) + parts.sum::<u64>())
        })
    }

    pub(crate) fn last_key(&self) -> Option<&str> {
        self.objects.last_key()
    }

    /// Returns the plaintext bytes of its objects and of the parts of its uploads.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the upload of this identity, if it has this key.
    pub(crate) fn upload_by_id(&self, key: &str, id: &[u8; 16]) -> Option<(u64, &Upload)> {
        let seq = self.uploads.seq_of_id(id)?;
        let upload = self.uploads.get(seq)?;
        (*upload.key == *key).then_some((seq, upload))
    }

    pub(crate) fn upload(&self, seq: u64) -> Option<&Upload> {
        self.uploads.get(seq)
    }

    pub(crate) fn upload_ref(&self, seq: u64, upload: &Upload) -> UploadRef {
        UploadRef {
            bucket: self.name.to_string(),
            key: upload.key.to_string(),
            id: upload.id,
            sealed: upload.sealed,
            time_ms: upload.time_ms,
            declared: upload.declared,
            seq,
        }
    }

    pub(super) fn new(name: Box<str>, time_ms: u64, at: Location) -> Self {
        Bucket {
            name,
            time_ms,
            at,
            created_tags: Arc::default(),
            settings: None,
            settings_pending: 0,
            versioning_pending: false,
            deleting: false,
            objects: Default::default(),
            history: Default::default(),
            attributes: Default::default(),
            pending: Default::default(),
            uploads: Default::default(),
            bytes: 0,
            charged: 0,
            reserved: 0,
        }
    }
}
