//! Object operations.

use super::versions::{Decision, NewVersion};
use super::{CommitRequest, Log, body_draft, draft, within};
use crate::disk::Disk;
use crate::error::{Damage, Error, LOST_OBJECT};
use crate::index::{Location, ObjectEntry, ObjectFacts, Outcome, Properties};
use crate::limits::{HEAD_MAX, KEY_MAX, OBJECT_TAGS_MAX};
use crate::object::{Content, FoundVersion, Object, PutObject};
use crate::pin::ObjectPin;
use crate::read::Located;
use crate::sabotage::{self, Sabotage};
use crate::types::{BodyId, Condition, ListObjects, Listing, Part};
use crate::version::{Deletion, Lock, Marker, StoredVersion, VersionId, Versioning};
use crate::wire::payload::{ObjectPut, RecordPayload};

impl<D: Disk> Log<D> {
    /// Stores an object: in place of the one of the same name, or, in a bucket with versioning, as its
    /// newest version.
    ///
    /// # Errors
    /// `NoSuchBucket`; `ConditionFailed`, `NoSuchKey`, and `Conflict` while another write of the
    /// name decides the condition; `Locked` if it would replace a locked version; `TooLarge`; for shared
    /// bytes, `Evicted`, and `Conflict` while their eviction is in flight; those of every write.
    pub async fn put_object(&self, put: PutObject) -> Result<(), Error> {
        self.put_version(put, Lock::default()).await.map(drop)
    }

    /// Stores an object like [`put_object`](Self::put_object), with a lock, and returns its version. If
    /// the lock has no retention, the version gets the default retention of its bucket.
    ///
    /// # Errors
    /// Those of [`put_object`](Self::put_object); `NotLockable` for a lock in a bucket without object
    /// lock; `InvalidRetention` if its end is not after the lock clock.
    pub async fn put_version(&self, put: PutObject, lock: Lock) -> Result<StoredVersion, Error> {
        self.store_object(put, false, NewVersion { lock, import: None }).await
    }

    /// Stores a version of another store, as the newest one of its name, with its id and its lock. The
    /// `null` version replaces the one of its name.
    ///
    /// # Errors
    /// Those of [`put_object`](Self::put_object); `VersionExists`; `InvalidBucketState` for an id in a
    /// bucket without versioning; `NotLockable` for a lock in a bucket without object lock.
    pub async fn import_version(&self, put: PutObject, version: VersionId, lock: Lock) -> Result<(), Error> {
        self.store_object(put, false, NewVersion { lock, import: Some(version) }).await.map(drop)
    }

    /// Replaces the tags of an object. The rest of it, including its time, is unchanged.
    ///
    /// # Errors
    /// `NoSuchBucket`; `Conflict` if the version is gone by now, or a write that concerns it is in
    /// flight; `TooLarge`; those of every write.
    pub async fn set_tags(&self, bucket: &str, key: &str, object: Object, tags: Vec<u8>) -> Result<(), Error> {
        let Object { size, time_ms, etag, sealed, seq, .. } = object;
        // A new record of an evicted object would share its bodies.
        if object.versioning != Versioning::Off || object.is_evicted {
            return self.tag_version(bucket, key, seq, time_ms, &tags).await;
        }
        let put = PutObject {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            head: object.head.clone(),
            content: Content::Shared(object),
            tags,
            sealed,
            etag,
            size,
            time_ms,
            condition: Condition::IfSame(seq),
        };
        match self.store_object(put, true, NewVersion::default()).await {
            Ok(_) => Ok(()),
            // It has been evicted since it was looked up.
            Err(Error::Evicted) => Err(Error::Conflict),
            Err(error) => Err(error),
        }
    }

    /// Stores an object. With `is_tagging` it replaces itself, so it does not
    /// count against the quota.
    async fn store_object(&self, put: PutObject, is_tagging: bool, new: NewVersion) -> Result<StoredVersion, Error> {
        let PutObject { bucket, key, content, head, tags, sealed, etag, size, time_ms, condition } = put;
        within(key.len(), KEY_MAX, "the key of an object")?;
        within(head.len(), HEAD_MAX, "the head of an object")?;
        within(tags.len(), OBJECT_TAGS_MAX, "the tags of an object")?;
        // A copy is not the object that the upload made.
        let completed = match &content {
            Content::Shared(object) if is_tagging => object.completed,
            _ => None,
        };
        let (new_body, parts, part_checksums, bound, source) = match content {
            Content::New(body, salt) => {
                let part = Part { number: 0, body: body.id(), size, salt, etag: etag.digest };
                (Some(body), vec![part], Vec::new(), false, None)
            }
            Content::Shared(object) => (None, object.parts, object.part_checksums, object.bound, Some(object.pin)),
        };
        let store = self.store();
        let ids = self.version_ids();
        let pinned: Vec<_> = if new_body.is_some() { Vec::new() } else { parts.iter().map(|part| part.body).collect() };
        let (bucket, body_seq, seq, decision) = {
            let mut state = self.lock_settled(&bucket, &key, &new).await;
            store.check_poison()?;
            let (id, home) = state.index.writable(&bucket)?;
            home.decide(&key, condition)?;
            state.index.check_shareable(&pinned)?;
            let decision = Decision::of(&state.index, home, &key, &new, time_ms, ids)?;
            // The tags of versions are records of their own.
            if is_tagging && decision.versioning != Versioning::Off {
                return Err(Error::Conflict);
            }
            let replaced = decision.replaced;
            if !is_tagging {
                let record = key.len() + head.len() + tags.len() + part_checksums.len();
                home.check_quota(size, record, |_| replaced)?;
            }
            if replaced.is_none() {
                state.index.admit_name(key.len())?;
            }
            if sabotage::is(Sabotage::ReserveLate) {
                drop(state);
                state = store.lock();
            }
            let body_seq = new_body.is_some().then(|| state.numbers.record());
            let seq = state.numbers.record();
            state.index.reserve_name(id, &key, seq, Outcome::Present(Properties { etag, size, time_ms }));
            state.index.reserve_import(id, decision.id);
            state.index.reserve_bytes(id, size);
            state.index.pin(&pinned);
            (id, body_seq, seq, decision)
        };
        drop(source);
        let key = key.as_str();
        let head = head.as_slice();
        let tags = &tags[..];
        let part_checksums = &part_checksums[..];
        let upload = None;
        let record = ObjectPut {
            bucket,
            upload,
            size,
            time_ms,
            etag,
            sealed,
            bound,
            key,
            head,
            parts,
            tags,
            part_checksums,
            completed,
            id: decision.id,
            lock: decision.lock,
        };
        let mut drafts = Vec::with_capacity(2);
        let mut holds = Vec::new();
        if let Some((body, seq)) = new_body.zip(body_seq) {
            let (body, pins) = body_draft(seq, body);
            drafts.push(body);
            holds = pins;
        }
        drafts.push(draft(seq, &RecordPayload::ObjectPut(record)));
        self.write(CommitRequest { drafts, pinned, holds, ..CommitRequest::default() }).await?;
        Ok(decision.stored(seq, ids))
    }

    /// Returns the object of this name, if there is one.
    ///
    /// # Errors
    /// `NoSuchBucket`; `Damaged`, `Io`.
    pub async fn object(&self, bucket: &str, key: &str) -> Result<Option<Object>, Error> {
        Ok(self.version(bucket, key, None).await?.into_object().map(|(object, _)| object))
    }

    /// Returns the length of the record of a version that is an object, of the current one if none is
    /// named, with the record of its tags; 0 if there is none. Answers from the index.
    pub fn version_record_len(&self, bucket: &str, key: &str, version: Option<VersionId>) -> usize {
        let state = self.store().lock();
        let Some((_, home)) = state.index.bucket(bucket) else { return 0 };
        let entry = match version {
            Some(version) => home.version_by_id(key, version, self.version_ids()),
            None => home.object(key),
        };
        entry.filter(|entry| !entry.is_marker()).map_or(0, |entry| home.record_len(entry))
    }

    /// Returns a version, the current one if none is named, without its body.
    ///
    /// # Errors
    /// Those of [`object`](Self::object).
    pub async fn version(&self, bucket: &str, key: &str, version: Option<VersionId>) -> Result<FoundVersion, Error> {
        self.version_within(bucket, key, version, usize::MAX).await
    }

    /// Returns a version like [`version`](Self::version), if its record and the record of its tags have at
    /// most `len_max` bytes. The memory that an object takes is proportional to them.
    ///
    /// # Errors
    /// Those of [`object`](Self::object).
    pub async fn version_within(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionId>,
        len_max: usize,
    ) -> Result<FoundVersion, Error> {
        self.find_version(bucket, key, Wanted::version(version), false, len_max).await
    }

    /// Returns a version like [`version_within`](Self::version_within), with the only body of an object if
    /// one read returned both, as is usual for short bodies.
    ///
    /// # Errors
    /// Those of [`object`](Self::object).
    pub async fn version_with_body(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionId>,
        len_max: usize,
    ) -> Result<FoundVersion, Error> {
        self.find_version(bucket, key, Wanted::version(version), true, len_max).await
    }

    pub(super) async fn find_version(
        &self,
        bucket: &str,
        key: &str,
        wanted: Wanted,
        with_body: bool,
        len_max: usize,
    ) -> Result<FoundVersion, Error> {
        let located = match self.locate(bucket, key, wanted, len_max)? {
            LocatedVersion::Absent => return Ok(FoundVersion::Absent),
            LocatedVersion::Marker(marker) => return Ok(FoundVersion::Marker(marker)),
            LocatedVersion::Long { len, size } => return Ok(FoundVersion::Long { len, size }),
            LocatedVersion::Object(located) => located,
        };
        let LocatedObject { at, pin, facts, ahead, known, tags } = located;
        let offset = at.at.offset();
        let seq = known.seq;
        let take = |payload: RecordPayload<'_>| object_of(payload, &facts, pin, known);
        let found = match ahead.filter(|_| with_body) {
            Some((body, body_at)) => self.record_with_body(at, seq, body, body_at, take).await,
            None => self.record(at, seq, take).await.map(|object| (object, None)),
        };
        let found = found.and_then(|(object, body)| {
            let object = sound(Ok(object), offset)?;
            // A body of another length is an error of its reading, which then looks it up.
            Ok((body.filter(|body| body.len == object.size), object))
        });
        let (body, mut object) = found.map_err(|error| named(error, bucket, key))?;
        if let Some((at, tags_seq)) = tags {
            let take = |payload: RecordPayload<'_>| match payload {
                RecordPayload::VersionTags { of, tags, .. } if of.version == seq => Some(tags.to_vec()),
                _ => None,
            };
            object.tags = self.record(at, tags_seq, take).await.map_err(|error| named(error, bucket, key))?;
        }
        Ok(FoundVersion::Object(object, body))
    }

    /// Returns the location of a version's record, and of its only body's record if that directly
    /// precedes it.
    fn locate(&self, bucket: &str, key: &str, wanted: Wanted, len_max: usize) -> Result<LocatedVersion, Error> {
        let mut state = self.store().lock();
        let (_, home) = state.index.bucket(bucket).ok_or(Error::NoSuchBucket)?;
        let entry = match wanted {
            Wanted::Current => home.object(key).or_else(|| home.versions(key).map(|name| name.newest())),
            Wanted::Id(id) => home.version_by_id(key, id, self.version_ids()),
            Wanted::Number(seq) => home.version(key, seq),
        };
        let Some(entry) = entry else { return Ok(LocatedVersion::Absent) };
        if entry.at == Location::LOST {
            return Err(named(Damage::error(LOST_OBJECT, 0), bucket, key));
        }
        let version = home.id_of(entry, self.version_ids());
        if entry.is_marker() {
            let is_latest = home.versions(key).is_some_and(|name| name.newest().seq == entry.seq);
            return Ok(LocatedVersion::Marker(Marker { version, time_ms: entry.time_ms(), is_latest }));
        }
        let len = home.record_len(entry);
        if len > len_max {
            return Ok(LocatedVersion::Long { len, size: entry.size });
        }
        let at = entry.at;
        let (versioning, _) = home.versioning();
        let is_evicted = home.is_evicted(entry.seq);
        let known = Known { seq: entry.seq, version, versioning, lock: home.lock_of(entry.seq), is_evicted };
        let facts = entry.facts();
        let bodies = entry.bodies.clone();
        let tags = home.tags_of(entry.seq);
        let ahead = match *bodies.as_slice() {
            [body] => state.index.body(body).filter(|of_body| of_body.is_ahead_of(at)).map(|of_body| (body, of_body)),
            _ => None,
        };
        let at = Located::new(self.store(), &mut state, at);
        let tags = tags.map(|tags| (Located::new(self.store(), &mut state, tags.at), tags.seq));
        let pin = ObjectPin::new(self.store(), &mut state, bodies);
        Ok(LocatedVersion::Object(LocatedObject { at, pin, facts, ahead, known, tags }))
    }

    /// Returns whether there is an object of this name and its head is sealed. Answers from the
    /// index, also for an object whose record is damaged.
    pub fn is_sealed(&self, bucket: &str, key: &str) -> bool {
        let state = self.store().lock();
        let entry = state.index.bucket(bucket).and_then(|(_, home)| home.object(key));
        entry.is_some_and(ObjectEntry::sealed)
    }

    /// Deletes an object, or puts a delete marker in a bucket with versioning. Returns `false` if there
    /// was nothing to delete.
    ///
    /// # Errors
    /// Those of [`delete_current`](Self::delete_current).
    pub async fn delete_object(
        &self,
        bucket: &str,
        key: &str,
        time_ms: u64,
        condition: Condition,
    ) -> Result<bool, Error> {
        Ok(self.delete_current(bucket, key, time_ms, condition).await? != Deletion::Removed(false))
    }

    /// Lists objects and common prefixes.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn list_objects(&self, bucket: &str, list: &ListObjects) -> Result<Listing, Error> {
        let state = self.store().lock();
        let (_, home) = state.index.bucket(bucket).ok_or(Error::NoSuchBucket)?;
        Ok(home.list(list))
    }
}

/// Which version of a name is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted {
    Current,
    Id(VersionId),
    Number(u64),
}

impl Wanted {
    /// The version of this id, or the current one.
    fn version(id: Option<VersionId>) -> Self {
        id.map_or(Wanted::Current, Wanted::Id)
    }
}

/// The result of looking up a version.
enum LocatedVersion {
    Absent,
    Marker(Marker),
    Object(LocatedObject),
    Long { len: usize, size: u64 },
}

/// What the index says of a version beside its entry.
struct Known {
    seq: u64,
    version: VersionId,
    versioning: Versioning,
    lock: Lock,
    is_evicted: bool,
}

/// A located object, about to be read.
struct LocatedObject {
    at: Located,
    known: Known,
    /// Its tags, if they have a record of their own.
    tags: Option<(Located, u64)>,
    pin: ObjectPin,
    /// What the index says of it, except for its bodies, which the pin holds.
    facts: ObjectFacts,
    /// Its only body, whose record directly precedes the object's.
    ahead: Option<(BodyId, Location)>,
}

/// Builds the object from its record, or says what the record contradicts: itself or the index.
fn object_of(
    payload: RecordPayload<'_>,
    facts: &ObjectFacts,
    pin: ObjectPin,
    known: Known,
) -> Option<Result<Object, &'static str>> {
    let RecordPayload::ObjectPut(put) = payload else { return None };
    let other = (!facts.are_of(pin.bodies(), &put)).then_some("an object that differs from the index");
    if let Some(what) = put.contradiction().or(other) {
        return Some(Err(what));
    }
    Some(Ok(Object {
        size: put.size,
        time_ms: put.time_ms,
        etag: put.etag,
        sealed: put.sealed,
        bound: put.bound,
        head: put.head.to_vec(),
        tags: put.tags.to_vec(),
        part_checksums: put.part_checksums.to_vec(),
        parts: put.parts,
        completed: put.completed,
        seq: known.seq,
        version: known.version,
        versioning: known.versioning,
        lock: known.lock,
        is_evicted: known.is_evicted,
        pin,
    }))
}

/// Maps a contradiction in the record at `offset` to damage.
fn sound(object: Result<Result<Object, &'static str>, Error>, offset: u64) -> Result<Object, Error> {
    object?.map_err(|what| Damage::error(what, offset))
}

/// Adds the bucket and key to a damage report.
pub(super) fn named(error: Error, bucket: &str, key: &str) -> Error {
    match error {
        Error::Damaged(damage) => Error::Damaged(Box::new(Damage::of(*damage, Some(bucket), Some(key)))),
        other => other,
    }
}
