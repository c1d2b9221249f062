//! Objects.

use super::{Body, Located, Log, Request, body_draft, draft, within};
use crate::disk::Disk;
use crate::error::{Damage, Error, LOST_OBJECT};
use crate::index::{Entry, Location, Outcome};
use crate::limits::{HEAD_MAX, KEY_MAX, LABELS_MAX};
use crate::sabotage::{self, Sabotage};
use crate::shared::Pin;
use crate::types::{BodyId, Condition, Content, ListObjects, Listing, Object, Part, PutObject};
use crate::wire::payload::{ObjectPut, Payload};

impl<D: Disk> Log<D> {
    /// Stores an object, in place of the one that has its name.
    ///
    /// # Errors
    /// `NoSuchBucket`; `ConditionFailed`, `NoSuchKey`, and `Conflict` while another write of the name decides the condition;
    /// `TooLarge`; those of every write.
    pub async fn put_object(&self, put: PutObject) -> Result<(), Error> {
        self.store_object(put, false).await
    }

    /// Gives an object other labels. All else of it stays, its time too.
    ///
    /// # Errors
    /// `NoSuchBucket`; `Conflict` if its name is another object's by now, or another write of the name is on its way;
    /// `TooLarge`; those of every write.
    pub async fn set_labels(&self, bucket: &str, key: &str, object: Object, labels: Vec<u8>) -> Result<(), Error> {
        let Object { size, time_ms, etag, sealed, seq, .. } = object;
        let put = PutObject {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            head: object.head.clone(),
            content: Content::Shared(object),
            labels,
            sealed,
            etag,
            size,
            time_ms,
            condition: Condition::IfSame(seq),
        };
        self.store_object(put, true).await
    }

    /// Stores an object; `relabels`: in place of itself, so that it takes up not a byte more.
    async fn store_object(&self, put: PutObject, relabels: bool) -> Result<(), Error> {
        let PutObject { bucket, key, content, head, labels, sealed, etag, size, time_ms, condition } = put;
        within(key.len(), KEY_MAX, "the key of an object")?;
        within(head.len(), HEAD_MAX, "the head of an object")?;
        within(labels.len(), LABELS_MAX, "the tags of an object")?;
        let (new, parts, infos, bound, source) = match content {
            Content::New(body, salt) => {
                let part = Part { number: 0, body: body.id(), size, salt, etag: etag.digest };
                (Some(body), vec![part], Vec::new(), false, None)
            }
            Content::Shared(object) => (None, object.parts, object.infos, object.bound, Some(object.pin)),
        };
        let shared = self.shared();
        let pinned: Vec<_> = if new.is_some() { Vec::new() } else { parts.iter().map(|part| part.body).collect() };
        let (bucket, body_seq, seq) = {
            let mut state = shared.lock();
            shared.check_poison()?;
            let (id, home) = state.index.writable(&bucket)?;
            home.decide(&key, condition)?;
            if !relabels {
                home.check_quota(size, |home| home.object(&key).map(|old| old.size))?;
            }
            if sabotage::is(Sabotage::ReserveLate) {
                drop(state);
                state = shared.lock();
            }
            let body_seq = new.is_some().then(|| state.numbers.record());
            let seq = state.numbers.record();
            state.index.reserve_name(id, &key, seq, Outcome::Present(etag));
            state.index.reserve_bytes(id, size);
            state.index.pin(&pinned);
            (id, body_seq, seq)
        };
        drop(source);
        let (key, head) = (key.as_str(), head.as_slice());
        let (labels, infos, upload) = (&labels[..], &infos[..], None);
        let record = ObjectPut { bucket, upload, size, time_ms, etag, sealed, bound, key, head, parts, labels, infos };
        let (mut drafts, mut holds) = (Vec::with_capacity(2), Vec::new());
        if let Some((body, seq)) = new.zip(body_seq) {
            let (body, pins) = body_draft(seq, body);
            drafts.push(body);
            holds = pins;
        }
        drafts.push(draft(seq, &Payload::ObjectPut(record)));
        self.write(Request { drafts, pinned, holds, ..Request::default() }).await
    }

    /// The object of this name, if there is one.
    ///
    /// # Errors
    /// `NoSuchBucket`; `Damaged`, `Io`.
    pub async fn object(&self, bucket: &str, key: &str) -> Result<Option<Object>, Error> {
        let Some(located) = self.locate_object(bucket, key)? else { return Ok(None) };
        let LocatedObject { at, seq, pin, .. } = located;
        let object = self.record(at, seq, |payload| object_of(payload, seq, pin)).await;
        object.map(Some).map_err(|error| named(error, bucket, key))
    }

    /// The same, and its only body, if that was read along with it: as a rule it is when it is short.
    ///
    /// # Errors
    /// Those of the other.
    pub async fn object_with_body(&self, bucket: &str, key: &str) -> Result<Option<(Object, Option<Body>)>, Error> {
        let Some(located) = self.locate_object(bucket, key)? else { return Ok(None) };
        let LocatedObject { at, seq, pin, ahead } = located;
        let take = |payload: Payload<'_>| object_of(payload, seq, pin);
        let found = match ahead {
            Some(ahead) => self.record_with_body(at, seq, ahead, take).await,
            None => self.record(at, seq, take).await.map(|object| (object, None)),
        };
        found.map(Some).map_err(|error| named(error, bucket, key))
    }

    /// Where the record of an object is, and that of its only body where it stands right ahead.
    fn locate_object(&self, bucket: &str, key: &str) -> Result<Option<LocatedObject>, Error> {
        let mut state = self.shared().lock();
        let (_, home) = state.index.bucket(bucket).ok_or(Error::NoSuchBucket)?;
        let Some(entry) = home.object(key) else { return Ok(None) };
        if entry.at == Location::LOST {
            return Err(named(Damage::error(LOST_OBJECT, 0), bucket, key));
        }
        let (at, seq, bodies) = (entry.at, entry.seq, entry.bodies.clone());
        let ahead = match *bodies.as_slice() {
            [body] => state.index.body(body).filter(|of_body| of_body.is_ahead_of(at)).map(|of_body| (body, of_body)),
            _ => None,
        };
        let (at, pin) = (Located::new(self.shared(), &mut state, at), Pin::new(self.shared(), &mut state, bodies));
        Ok(Some(LocatedObject { at, seq, pin, ahead }))
    }

    /// Deletes an object; `false`: there was none.
    ///
    /// # Errors
    /// `NoSuchBucket`; `ConditionFailed`, `NoSuchKey`, and `Conflict` while another write of the name decides the condition;
    /// those of every write.
    pub async fn delete_object(
        &self,
        bucket: &str,
        key: &str,
        time_ms: u64,
        condition: Condition,
    ) -> Result<bool, Error> {
        self.delete_object_of(bucket, key, time_ms, condition, None).await
    }

    /// The same; if `only` is given, of the object with this sequence number and of no other.
    ///
    /// # Errors
    /// Those of the other; also `Conflict` while any write of the name is on its way: it would be deleted instead.
    pub(crate) async fn delete_object_of(
        &self,
        bucket: &str,
        key: &str,
        time_ms: u64,
        condition: Condition,
        only: Option<u64>,
    ) -> Result<bool, Error> {
        let shared = self.shared();
        let (bucket, seq) = {
            let mut state = shared.lock();
            shared.check_poison()?;
            let (id, home) = state.index.writable(bucket)?;
            home.decide(key, condition)?;
            if only.is_some() && home.is_pending(key) {
                return Err(Error::Conflict);
            }
            let other = |entry: &Entry| only.is_some_and(|seq| seq != entry.seq);
            if home.is_absent(key) || home.object(key).is_some_and(other) {
                return Ok(false);
            }
            let seq = state.numbers.record();
            state.index.reserve_name(id, key, seq, Outcome::Absent);
            (id, seq)
        };
        self.write(Request::deletion(draft(seq, &Payload::Tombstone { bucket, time_ms, key }))).await?;
        Ok(true)
    }

    /// Lists objects and common prefixes.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn list_objects(&self, bucket: &str, list: &ListObjects) -> Result<Listing, Error> {
        let state = self.shared().lock();
        let (_, home) = state.index.bucket(bucket).ok_or(Error::NoSuchBucket)?;
        Ok(home.list(list))
    }
}

/// An object that is going to be read.
struct LocatedObject {
    at: Located,
    seq: u64,
    pin: Pin,
    /// Its only body, whose record stands right ahead.
    ahead: Option<(BodyId, Location)>,
}

/// The object that its record has.
fn object_of(payload: Payload<'_>, seq: u64, pin: Pin) -> Option<Object> {
    let Payload::ObjectPut(put) = payload else { return None };
    Some(Object {
        size: put.size,
        time_ms: put.time_ms,
        etag: put.etag,
        sealed: put.sealed,
        bound: put.bound,
        head: put.head.to_vec(),
        labels: put.labels.to_vec(),
        infos: put.infos.to_vec(),
        parts: put.parts,
        seq,
        pin,
    })
}

/// Says whose record it is that is damaged.
pub(super) fn named(error: Error, bucket: &str, key: &str) -> Error {
    match error {
        Error::Damaged(damage) => Error::Damaged(Box::new(Damage::of(*damage, Some(bucket), Some(key)))),
        other => other,
    }
}
