//! Objects: put, read, copy, delete, list.

use keyhole_log::{Condition, Content as From, Error, ListObjects, Listed, NewBody, Object, PutObject};

use super::{Answer, Client, HELD_MAX, Since, holds};
use crate::content::{self, Content};
use crate::model::{KEYS, Piece, Version, digest, etag, number, object_head, tags};

impl Client {
    pub(super) async fn put(&mut self, bucket: &'static str, key: &'static str) {
        let content = self.content();
        self.put_content(bucket, key, content).await;
    }

    pub(super) async fn put_content(&mut self, bucket: &'static str, key: &'static str, content: Content) {
        let Some(body) = self.body(content).await else { return };
        self.put_body(bucket, key, content, body).await;
    }

    /// Stores an object whose body has been written.
    pub(super) async fn put_body(&mut self, bucket: &'static str, key: &'static str, content: Content, body: NewBody) {
        let id = self.world.model.borrow_mut().number();
        let piece = Piece { number: 0, content, etag: digest(id), salt: [id as u8; 24] };
        let name = (bucket, key);
        let sealed = id.is_multiple_of(2);
        let pieces = vec![piece];
        let version = Version { name, pieces, sealed, upload: None, parts: 0, tags: vec![id], part_checksums: None };
        self.store(bucket, key, id, version, From::New(body, [id as u8; 24])).await;
    }

    /// Writes a body; `None`: it was abandoned or refused.
    pub(super) async fn body(&mut self, content: Content) -> Option<NewBody> {
        let since = self.since();
        let log = self.log.clone();
        match self.patiently(content::write(&log, content)).await? {
            Ok(body) => {
                if content.len > keyhole_log::limits::INLINE_MAX as u64 {
                    self.acknowledged(&since);
                }
                Some(body)
            }
            Err(error) => {
                self.say(|| format!("{content:?}: {error}"));
                assert!(self.judge(&error, &since).is_some(), "a body: {error}");
                None
            }
        }
    }

    pub(super) async fn copy(&mut self, bucket: &'static str, key: &'static str) {
        let (from_bucket, from_key) = self.name();
        let Some((object, version)) = self.look(from_bucket, from_key).await else { return };
        let version = self.world.model.borrow().versions[&version].clone();
        let id = self.world.model.borrow_mut().number();
        let version = Version { name: (bucket, key), upload: None, tags: vec![id], ..version };
        self.store(bucket, key, id, version, From::Shared(object)).await;
    }

    /// Replaces the tags of an object. Its version stays the same.
    pub(super) async fn retag(&mut self, bucket: &'static str, key: &'static str) {
        let before = self.since();
        let Some((object, version)) = self.look(bucket, key).await else { return };
        let id = self.world.model.borrow_mut().number();
        let since = self.since();
        let condition = Condition::IfMatch(object.etag.into());
        {
            let mut model = self.world.model.borrow_mut();
            model.versions.get_mut(&version).expect("it was found").tags.push(id);
            model.key(bucket, key).begin(id, Some(version), since.tick);
        }
        let log = self.log.clone();
        let answer = self.patiently(log.set_tags(bucket, key, object, tags(id))).await;
        self.say(|| format!("retag {bucket}/{key} = {version} by {id}: {answer:?}"));
        match answer {
            None => {}
            Some(Ok(())) => {
                self.acknowledged(&since);
                self.written(bucket, key, id, condition, &since);
            }
            Some(Err(error)) => self.not_written(bucket, key, id, condition, &before, &error),
        }
    }

    /// Stores an object whose bodies have been written.
    async fn store(&mut self, bucket: &'static str, key: &'static str, id: u64, version: Version, content: From) {
        let condition = self.condition(bucket, key);
        let put = PutObject {
            bucket: bucket.into(),
            key: key.into(),
            content,
            head: object_head(id),
            tags: tags(id),
            sealed: version.sealed,
            etag: etag(id, version.parts),
            size: version.size(),
            time_ms: self.time(id),
            condition,
        };
        let since = self.since();
        let size = version.size();
        {
            let mut model = self.world.model.borrow_mut();
            model.versions.insert(id, version);
            model.key(bucket, key).begin(id, Some(id), since.tick);
        }
        let log = self.log.clone();
        let answer = self.patiently(log.put_object(put)).await;
        self.say(|| format!("put {bucket}/{key} = {id} if {condition:?}: {answer:?}"));
        match answer {
            None => {}
            Some(Ok(())) => {
                self.acknowledged(&since);
                let room = self.world.model.borrow().may_have_room(bucket, since.tick, size, (key, None));
                assert!(room, "{bucket}: there is no room for {key} by its quota");
                self.written(bucket, key, id, condition, &since);
            }
            Some(Err(error)) => self.not_written(bucket, key, id, condition, &since, &error),
        }
    }

    /// Records an acknowledged write of a name.
    pub(super) fn written(
        &self,
        bucket: &'static str,
        key: &'static str,
        op: u64,
        condition: Condition,
        since: &Since,
    ) {
        let now = self.now();
        let mut model = self.world.model.borrow_mut();
        let durable = model.durable;
        if condition != Condition::None && holds(condition, None) {
            model.vanish(bucket, key, since.tick, now);
        }
        let register = model.key(bucket, key);
        if condition != Condition::None {
            let seen = register.observe(since.tick, now, durable, op, |value| holds(condition, *value));
            assert!(seen, "{bucket}/{key} written, but {condition:?} cannot have held: {:?}", register.legal(false));
        }
        register.acknowledge(op, now, durable);
    }

    /// Judges a failed write of a name.
    pub(super) fn not_written(
        &self,
        bucket: &'static str,
        key: &'static str,
        op: u64,
        condition: Condition,
        since: &Since,
        error: &Error,
    ) {
        let answer = self.judge(error, since);
        let now = self.now();
        let mut model = self.world.model.borrow_mut();
        let durable = model.durable;
        if answer == Some(Answer::Unknown) {
            return;
        }
        let lacks = model.may_lack_bucket(bucket, since.tick);
        let exceeds = model.may_exceed(bucket, since.tick);
        // In a ring the oldest objects may be on their way out.
        let busy = model.key(bucket, key).is_busy(since.tick, op) || model.ring;
        model.key(bucket, key).refuse(op, now);
        let evicting = model.is_evicting(since.tick);
        let shared = model.versions.get(&op).map(Version::contents).unwrap_or_default();
        let shares_evicted = model.may_be_evicted(&shared, since.tick);
        // A change of the tags of an evicted object excludes every other one, also while it is in doubt.
        let values = model.key(bucket, key).legal(false);
        let mut present = values.iter().flatten().filter_map(|value| model.versions.get(value));
        let excludes = busy && present.any(|version| model.may_be_evicted(&version.contents(), since.tick));
        // A ring may have dropped the object, and a write in flight is refused for either state.
        let may_be_dropped = model.ring && !holds(condition, None);
        let register = model.key(bucket, key);
        match error {
            Error::Full => {}
            Error::QuotaExceeded => assert!(exceeds, "{bucket}: there is room for {key} by its quota"),
            Error::NoSuchBucket => assert!(lacks, "{bucket} is there"),
            // An eviction excludes other changes, and a copy.
            Error::Conflict if evicting => {}
            Error::Evicted => assert!(shares_evicted, "{bucket}/{key} shares no evicted body"),
            Error::Conflict if excludes => {}
            Error::Conflict => assert!(busy && condition != Condition::None, "nothing else writes {bucket}/{key}"),
            Error::ConditionFailed | Error::NoSuchKey if may_be_dropped => {}
            Error::ConditionFailed | Error::NoSuchKey => {
                let seen = register.observe(since.tick, now, durable, 0, |value| !holds(condition, *value));
                assert!(seen, "{bucket}/{key}: {error}, but {condition:?} must hold: {:?}", register.legal(false));
            }
            error => panic!("{bucket}/{key}: {error}"),
        }
    }

    pub(super) async fn delete(&mut self, bucket: &'static str, key: &'static str) {
        let condition = match self.condition(bucket, key) {
            Condition::IfAbsent => Condition::None,
            other => other,
        };
        self.delete_if(bucket, key, condition).await;
    }

    pub(super) async fn delete_if(&mut self, bucket: &'static str, key: &'static str, condition: Condition) {
        let (id, time) = self.number();
        let since = self.since();
        self.world.model.borrow_mut().key(bucket, key).begin(id, None, since.tick);
        let log = self.log.clone();
        let answer = self.patiently(log.delete_object(bucket, key, time, condition)).await;
        self.say(|| format!("delete {bucket}/{key} = {id} if {condition:?}: {answer:?}"));
        match answer {
            None => {}
            Some(Ok(true)) => {
                self.acknowledged(&since);
                self.written(bucket, key, id, condition, &since);
            }
            Some(Ok(false)) => {
                let now = self.now();
                let mut model = self.world.model.borrow_mut();
                let durable = model.durable;
                model.key(bucket, key).refuse(id, now);
                model.vanish(bucket, key, since.tick, now);
                let register = model.key(bucket, key);
                let seen = register.observe(since.tick, now, durable, 0, Option::is_none);
                assert!(seen, "nothing to delete, but {bucket}/{key} is there: {:?}", register.legal(false));
            }
            Some(Err(error)) => self.not_written(bucket, key, id, condition, &since, &error),
        }
    }

    /// Looks up an object and compares its properties.
    pub(super) async fn look(&mut self, bucket: &'static str, key: &'static str) -> Option<(Object, u64)> {
        let since = self.since();
        let log = self.log.clone();
        let answer = self.patiently(log.object(bucket, key)).await?;
        let now = self.now();
        self.say(|| format!("get {bucket}/{key}: {:?}", answer.as_ref().map(|o| o.as_ref().map(|o| o.time_ms))));
        let mut model = self.world.model.borrow_mut();
        let durable = model.durable;
        match answer {
            Ok(object) => {
                let found = object.as_ref().map(|object| {
                    let (found, version) = model.recognise(object);
                    let contents = version.contents();
                    model.observe_eviction(&contents, object.is_evicted, since.tick, now);
                    found
                });
                if found.is_none() {
                    model.vanish(bucket, key, since.tick, now);
                }
                let register = model.key(bucket, key);
                let seen = register.observe(since.tick, now, durable, 0, |value| *value == found);
                assert!(seen, "{bucket}/{key} is {found:?}, may be {:?}", register.legal(false));
                object.zip(found)
            }
            Err(Error::NoSuchBucket) => {
                let seen = model.bucket(bucket).observe(since.tick, now, durable, 0, Option::is_none);
                assert!(seen, "bucket {bucket} is there");
                None
            }
            Err(Error::Damaged(damage)) if !self.world.rot.borrow().versions.is_empty() => {
                let rot = self.world.rot.borrow();
                let may_be = |value: &Option<u64>| value.is_some_and(|id| rot.versions.contains(&id));
                let seen = model.key(bucket, key).observe(since.tick, now, durable, 0, may_be);
                let name = (damage.bucket.as_deref(), damage.key.as_deref());
                assert!(seen && name == (Some(bucket), Some(key)), "{bucket}/{key}: {damage}");
                None
            }
            Err(error) => {
                self.judge_read(&error, &since, "an object");
                None
            }
        }
    }

    pub(super) async fn get(&mut self, bucket: &'static str, key: &'static str) {
        let Some((object, version)) = self.look(bucket, key).await else { return };
        let contents = self.world.model.borrow().versions[&version].contents();
        let tick = self.now();
        let is_evicting = self.world.model.borrow().may_be_evicted(&contents, tick);
        self.check_held(&object, &contents, is_evicting).await;
        if self.held.len() < HELD_MAX && !self.world.plan.ring && !is_evicting && self.random.chance(30) {
            self.held.push((object, contents));
        }
    }

    /// Reads all bytes of a held object. `is_evicting`: it is or may become evicted.
    pub(super) async fn check_held(&mut self, object: &Object, contents: &[Content], is_evicting: bool) {
        let since = self.since();
        let log = self.log.clone();
        if object.is_evicted {
            return content::check_evicted(&log, object).await;
        }
        if let Some(Err(error)) = self.patiently(content::check_all(&log, object, contents)).await
            && !self.world.is_rotten(&error, contents)
            && !(is_evicting && matches!(error, Error::Evicted))
        {
            self.judge_read(&error, &since, "the bytes of an object");
        }
    }

    pub(super) fn list(&mut self, bucket: &'static str) {
        let prefix = self.random.pick(&["", "a", "a/", "b", "x"]).to_string();
        let list = ListObjects { prefix: prefix.clone(), limit: 100, ..ListObjects::default() };
        let answer = self.log.list_objects(bucket, &list);
        let now = self.now();
        let mut model = self.world.model.borrow_mut();
        let durable = model.durable;
        let Ok(listing) = answer else {
            assert!(model.bucket(bucket).observe(now, now, durable, 0, Option::is_none), "bucket {bucket} is there");
            return;
        };
        for key in KEYS.into_iter().filter(|key| key.starts_with(&prefix)) {
            let found = listing.entries.iter().find_map(|entry| match entry {
                Listed::Object { key: listed, etag, .. } if listed == key => Some(number(&etag.digest)),
                _ => None,
            });
            if found.is_none() {
                model.vanish(bucket, key, now, now);
            }
            let register = model.key(bucket, key);
            let seen = register.observe(now, now, durable, 0, |value| *value == found);
            assert!(seen, "{bucket}/{key} is listed as {found:?}, may be {:?}", register.legal(false));
        }
    }
}
