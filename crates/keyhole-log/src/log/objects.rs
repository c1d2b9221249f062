//! Object operations.

use super::{Body, CommitRequest, Log, body_draft, draft, within};
use crate::disk::Disk;
use crate::error::{Damage, Error, LOST_OBJECT};
use crate::index::{Location, ObjectEntry, ObjectFacts, Outcome, Properties, quota_charge};
use crate::limits::{HEAD_MAX, KEY_MAX, OBJECT_TAGS_MAX};
use crate::object::{Content, Lookup, Object, PutObject};
use crate::pin::Pin;
use crate::read::Located;
use crate::sabotage::{self, Sabotage};
use crate::types::{BodyId, Condition, ListObjects, Listing, Part};
use crate::wire::payload::{ObjectPut, RecordPayload};

impl<D: Disk> Log<D> {
    /// Stores an object, replacing the one of the same name.
    ///
    /// # Errors
    /// `NoSuchBucket`; `ConditionFailed`, `NoSuchKey`, and `Conflict` while another write of the
    /// name decides the condition; `TooLarge`; those of every write.
    pub async fn put_object(&self, put: PutObject) -> Result<(), Error> {
        self.store_object(put, false).await
    }

    /// Replaces the tags of an object. The rest of it, including its time, is unchanged.
    ///
    /// # Errors
    /// `NoSuchBucket`; `Conflict` if the name has another object by now, or another write of the
    /// name is in flight; `TooLarge`; those of every write.
    pub async fn set_tags(&self, bucket: &str, key: &str, object: Object, tags: Vec<u8>) -> Result<(), Error> {
        let Object { size, time_ms, etag, sealed, seq, .. } = object;
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
        self.store_object(put, true).await
    }

    /// Stores an object. With `is_tagging` it replaces itself, so it does not
    /// count against the quota.
    async fn store_object(&self, put: PutObject, is_tagging: bool) -> Result<(), Error> {
        let PutObject { bucket, key, content, head, tags, sealed, etag, size, time_ms, condition } = put;
        within(key.len(), KEY_MAX, "the key of an object")?;
        within(head.len(), HEAD_MAX, "the head of an object")?;
        within(tags.len(), OBJECT_TAGS_MAX, "the tags of an object")?;
        // A copy is not the object that the upload made.
        let completed = match &content {
            Content::Shared(object) if is_tagging => object.completed,
            _ => None,
        };
        let (new, parts, part_checksums, bound, source) = match content {
            Content::New(body, salt) => {
                let part = Part { number: 0, body: body.id(), size, salt, etag: etag.digest };
                (Some(body), vec![part], Vec::new(), false, None)
            }
            Content::Shared(object) => (None, object.parts, object.part_checksums, object.bound, Some(object.pin)),
        };
        let store = self.store();
        let pinned: Vec<_> = if new.is_some() { Vec::new() } else { parts.iter().map(|part| part.body).collect() };
        let (bucket, body_seq, seq) = {
            let mut state = store.lock();
            store.check_poison()?;
            let (id, home) = state.index.writable(&bucket)?;
            home.decide(&key, condition)?;
            let replaced = home.object(&key).map(|old| quota_charge(old.size, old.at));
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
            let body_seq = new.is_some().then(|| state.numbers.record());
            let seq = state.numbers.record();
            state.index.reserve_name(id, &key, seq, Outcome::Present(Properties { etag, size, time_ms }));
            state.index.reserve_bytes(id, size);
            state.index.pin(&pinned);
            (id, body_seq, seq)
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
        };
        let mut drafts = Vec::with_capacity(2);
        let mut holds = Vec::new();
        if let Some((body, seq)) = new.zip(body_seq) {
            let (body, pins) = body_draft(seq, body);
            drafts.push(body);
            holds = pins;
        }
        drafts.push(draft(seq, &RecordPayload::ObjectPut(record)));
        self.write(CommitRequest { drafts, pinned, holds, ..CommitRequest::default() }).await
    }

    /// Returns the object of this name, if there is one.
    ///
    /// # Errors
    /// `NoSuchBucket`; `Damaged`, `Io`.
    pub async fn object(&self, bucket: &str, key: &str) -> Result<Option<Object>, Error> {
        Ok(match self.object_within(bucket, key, usize::MAX).await? {
            Lookup::Found(object) => Some(object),
            Lookup::Absent | Lookup::Long { .. } => None,
        })
    }

    /// Returns the object of this name if its record has at most `len_max` bytes. The memory that
    /// the object takes is proportional to them.
    ///
    /// # Errors
    /// Those of [`object`](Self::object).
    pub async fn object_within(&self, bucket: &str, key: &str, len_max: usize) -> Result<Lookup<Object>, Error> {
        let located = match self.locate_object(bucket, key, len_max)? {
            Lookup::Found(located) => located,
            Lookup::Absent => return Ok(Lookup::Absent),
            Lookup::Long { len, size } => return Ok(Lookup::Long { len, size }),
        };
        let LocatedObject { at, seq, pin, facts, .. } = located;
        let offset = at.at.offset();
        let object = self.record(at, seq, |payload| object_of(payload, &facts, pin, seq)).await;
        sound(object, offset).map(Lookup::Found).map_err(|error| named(error, bucket, key))
    }

    /// Returns the object of this name like [`object_within`](Self::object_within), with its only
    /// body if one read returned both, as is usual for short bodies.
    ///
    /// # Errors
    /// Those of [`object`](Self::object).
    pub async fn object_with_body(
        &self,
        bucket: &str,
        key: &str,
        len_max: usize,
    ) -> Result<Lookup<(Object, Option<Body>)>, Error> {
        let located = match self.locate_object(bucket, key, len_max)? {
            Lookup::Found(located) => located,
            Lookup::Absent => return Ok(Lookup::Absent),
            Lookup::Long { len, size } => return Ok(Lookup::Long { len, size }),
        };
        let LocatedObject { at, seq, pin, facts, ahead } = located;
        let offset = at.at.offset();
        let take = |payload: RecordPayload<'_>| object_of(payload, &facts, pin, seq);
        let found = match ahead {
            Some((body, body_at)) => self.record_with_body(at, seq, body, body_at, take).await,
            None => self.record(at, seq, take).await.map(|object| (object, None)),
        };
        let found = found.and_then(|(object, body)| {
            let object = sound(Ok(object), offset)?;
            // A body of another length is an error of its reading, which then looks it up.
            Ok((body.filter(|body| body.len == object.size), object))
        });
        found.map(|(body, object)| Lookup::Found((object, body))).map_err(|error| named(error, bucket, key))
    }

    /// Returns the length of an object's record in bytes; 0 if there is no object of this name.
    /// Answers from the index.
    pub fn object_record_len(&self, bucket: &str, key: &str) -> usize {
        let state = self.store().lock();
        let entry = state.index.bucket(bucket).and_then(|(_, home)| home.object(key));
        entry.map_or(0, |entry| entry.at.len() as usize)
    }

    /// Returns the location of an object's record, and of its only body's record if
    /// that directly precedes it.
    fn locate_object(&self, bucket: &str, key: &str, len_max: usize) -> Result<Lookup<LocatedObject>, Error> {
        let mut state = self.store().lock();
        let (_, home) = state.index.bucket(bucket).ok_or(Error::NoSuchBucket)?;
        let Some(entry) = home.object(key) else { return Ok(Lookup::Absent) };
        if entry.at == Location::LOST {
            return Err(named(Damage::error(LOST_OBJECT, 0), bucket, key));
        }
        let at = entry.at;
        if at.len() as usize > len_max {
            return Ok(Lookup::Long { len: at.len() as usize, size: entry.size });
        }
        let seq = entry.seq;
        let facts = entry.facts();
        let bodies = entry.bodies.clone();
        let ahead = match *bodies.as_slice() {
            [body] => state.index.body(body).filter(|of_body| of_body.is_ahead_of(at)).map(|of_body| (body, of_body)),
            _ => None,
        };
        let at = Located::new(self.store(), &mut state, at);
        let pin = Pin::new(self.store(), &mut state, bodies);
        Ok(Lookup::Found(LocatedObject { at, seq, pin, facts, ahead }))
    }

    /// Returns whether there is an object of this name and its head is sealed. Answers from the
    /// index, also for an object whose record is damaged.
    pub fn is_sealed(&self, bucket: &str, key: &str) -> bool {
        let state = self.store().lock();
        let entry = state.index.bucket(bucket).and_then(|(_, home)| home.object(key));
        entry.is_some_and(ObjectEntry::sealed)
    }

    /// Deletes an object. Returns `false` if there was none.
    ///
    /// # Errors
    /// `NoSuchBucket`; `ConditionFailed`, `NoSuchKey`, and `Conflict` while another write of the
    /// name decides the condition; those of every write.
    pub async fn delete_object(
        &self,
        bucket: &str,
        key: &str,
        time_ms: u64,
        condition: Condition,
    ) -> Result<bool, Error> {
        self.delete_object_of(bucket, key, time_ms, condition, None).await
    }

    /// Deletes an object like [`delete_object`](Self::delete_object). With `only`, deletes it only
    /// if it has this sequence number.
    ///
    /// # Errors
    /// Those of [`delete_object`](Self::delete_object). With `only`, also `Conflict` while any
    /// write of the name is in flight, because the deletion would hit that object instead.
    pub(crate) async fn delete_object_of(
        &self,
        bucket: &str,
        key: &str,
        time_ms: u64,
        condition: Condition,
        only: Option<u64>,
    ) -> Result<bool, Error> {
        let store = self.store();
        let (bucket, seq) = {
            let mut state = store.lock();
            store.check_poison()?;
            let (id, home) = state.index.writable(bucket)?;
            home.decide(key, condition)?;
            if only.is_some() && home.is_pending(key) {
                return Err(Error::Conflict);
            }
            let other = |entry: &ObjectEntry| only.is_some_and(|seq| seq != entry.seq);
            if home.is_absent(key) || home.object(key).is_some_and(other) {
                return Ok(false);
            }
            let seq = state.numbers.record();
            state.index.reserve_name(id, key, seq, Outcome::Absent);
            (id, seq)
        };
        self.write(CommitRequest::deletion(draft(seq, &RecordPayload::Tombstone { bucket, time_ms, key }))).await?;
        Ok(true)
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

/// A located object, about to be read.
struct LocatedObject {
    at: Located,
    seq: u64,
    pin: Pin,
    /// What the index says of it, except for its bodies, which the pin holds.
    facts: ObjectFacts,
    /// Its only body, whose record directly precedes the object's.
    ahead: Option<(BodyId, Location)>,
}

/// Builds the object from its record, or says what the record contradicts: itself or the index.
fn object_of(
    payload: RecordPayload<'_>,
    facts: &ObjectFacts,
    pin: Pin,
    seq: u64,
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
        seq,
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
