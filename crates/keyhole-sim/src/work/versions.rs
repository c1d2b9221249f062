//! Versions, delete markers, locks and the lock clock.

use keyhole_log::{
    BucketSettings, Condition, Content as From, DeletedVersion, Deletion, Error, FoundVersion, ListVersions,
    ListedVersion, Lock, Object, PutObject, Retention, RetentionMode, VersionId, VersionInfo, Versioning,
};

use super::{Answer, Client, Since, World};
use crate::content::Content;
use crate::model::{VERSION_KEYS, VERSIONED, admits, digest, etag, object_head, tags};

/// Maximum time by which the lock clock advances at once. Operations count the wall clock.
const CLOCK_STEP: u64 = 60;

/// The time of all records of buckets: a record that a power failure undid is written again with the same
/// time and payload, and only its number differs.
const CREATED_MS: u64 = 1;

/// A time of the wall clock that is far ahead.
const FAR_AHEAD: u64 = 1 << 40;

type Name = (&'static str, &'static str);

impl Client {
    /// Performs an operation on versions.
    pub(super) async fn step_versions(&mut self) {
        let bucket = *self.random.pick::<&'static str>(&VERSIONED);
        let name = (bucket, *self.random.pick::<&'static str>(&VERSION_KEYS));
        self.log.disk().note_operation();
        if self.log.bucket(bucket).is_none() {
            return self.create_versioned(bucket).await;
        }
        match self.random.below(100) {
            0..=29 => self.put_version(name).await,
            30..=34 => self.copy_version(name).await,
            35..=44 => self.delete_to_marker(name).await,
            45..=62 => self.delete_version().await,
            63..=67 => self.set_hold().await,
            68..=72 => self.set_retention().await,
            73..=77 => self.advance_lock_clock().await,
            78..=80 => self.tag_version().await,
            81..=83 => self.toggle_versioning().await,
            84..=90 => self.get_version().await,
            91..=94 => self.evict_version().await,
            _ => list_all(&self.world, &self.log, bucket),
        }
    }

    /// Creates a bucket with versioning. Its name is never deleted.
    pub(super) async fn create_versioned(&mut self, bucket: &'static str) {
        let since = self.since();
        let log = self.log.clone();
        let answer = if bucket == VERSIONED[0] {
            self.patiently(log.create_locked_bucket(bucket, CREATED_MS, &[])).await
        } else {
            self.patiently(log.create_bucket(bucket, CREATED_MS)).await
        };
        self.say(|| format!("create bucket {bucket}: {answer:?}"));
        if let Some(Err(error)) = answer {
            assert!(self.judge(&error, &since).is_some() || matches!(error, Error::Conflict), "{bucket}: {error}");
        }
    }

    /// Enables or suspends versioning.
    async fn toggle_versioning(&mut self) {
        let versioning = *self.random.pick(&[Versioning::Enabled, Versioning::Enabled, Versioning::Suspended]);
        self.set_versioning(versioning).await;
    }

    pub(super) async fn set_versioning(&mut self, versioning: Versioning) {
        let bucket = VERSIONED[1];
        let since = self.since();
        let log = self.log.clone();
        let change = move |settings: &mut BucketSettings| {
            settings.versioning = versioning;
            Ok::<_, Error>(())
        };
        let answer = self.patiently(log.change_bucket(bucket, CREATED_MS, change)).await;
        self.say(|| format!("versioning of {bucket} = {versioning:?}: {answer:?}"));
        if let Some(Err(error)) = answer {
            let legal = matches!(error, Error::Conflict | Error::NoSuchBucket);
            assert!(self.judge(&error, &since).is_some() || legal, "versioning: {error}");
        }
    }

    fn lock(&mut self, bucket: &'static str) -> Lock {
        if bucket != VERSIONED[0] || self.random.chance(40) {
            return Lock::default();
        }
        Lock { retention: self.retention(), hold: self.random.chance(30) }
    }

    fn retention(&mut self) -> Option<Retention> {
        let mode = *self.random.pick(&[RetentionMode::Governance, RetentionMode::Compliance]);
        let now_ms = self.world.model.borrow().history.clock.now_ms;
        self.random.chance(70).then(|| Retention { mode, until_ms: now_ms + 1 + self.random.below(3 * CLOCK_STEP) })
    }

    async fn put_version(&mut self, name: Name) {
        let content = self.content();
        self.put_version_of(name, content).await;
    }

    pub(super) async fn put_version_of(&mut self, name: Name, content: Content) {
        let Some(body) = self.body(content).await else { return };
        let salt = [content.id as u8; 24];
        self.store_version(name, content, From::New(body, salt)).await;
    }

    /// Stores a version that shares the body of another one.
    async fn copy_version(&mut self, name: Name) {
        let Some(source) = self.any_version() else { return };
        let Some((object, content)) = self.look_version(source).await else { return };
        self.store_version(name, content, From::Shared(object)).await;
    }

    async fn store_version(&mut self, name: Name, content: Content, from: From) {
        let op = self.world.model.borrow_mut().number();
        let lock = self.lock(name.0);
        let put = PutObject {
            bucket: name.0.into(),
            key: name.1.into(),
            content: from,
            head: object_head(op),
            tags: tags(op),
            sealed: op.is_multiple_of(2),
            etag: etag(op, 0),
            size: content.len,
            time_ms: op,
            condition: Condition::None,
        };
        let since = self.since();
        self.world.model.borrow_mut().history.begin(op, name, Some(content), lock, since.tick);
        let log = self.log.clone();
        let answer = self.patiently(log.put_version(put, lock)).await;
        self.say(|| format!("put version {name:?} = {op} with {lock:?}: {answer:?}"));
        match answer {
            None => {}
            Some(Ok(stored)) => {
                self.acknowledged(&since);
                self.stored(op, stored.version);
            }
            Some(Err(error)) => self.not_stored(op, lock, &since, &error),
        }
    }

    fn stored(&self, op: u64, id: VersionId) {
        let now = self.now();
        let mut model = self.world.model.borrow_mut();
        let durable = model.durable;
        model.history.stored(op, id, now, durable);
    }

    /// Judges a failed write of a version.
    fn not_stored(&self, op: u64, lock: Lock, since: &Since, error: &Error) {
        let judged = self.judge(error, since);
        if judged == Some(Answer::Unknown) {
            return;
        }
        let now = self.now();
        let mut model = self.world.model.borrow_mut();
        model.history.refused(op, now);
        let clock_ms = model.history.clock.now_ms;
        let is_evicting = model.is_evicting(since.tick);
        let shared = model.history.written.get(&op).and_then(|written| written.content);
        let shares_evicted = model.may_be_evicted(shared.as_slice(), since.tick);
        let legal = match error {
            Error::NoSuchBucket => true,
            Error::InvalidRetention => lock.retention.is_some_and(|retention| retention.until_ms <= clock_ms),
            // A change of the `null` version is in doubt, which can last.
            Error::Conflict => is_evicting || self.world.medium.counters().writes_full > 0,
            Error::Evicted => shares_evicted,
            _ => judged.is_some(),
        };
        assert!(legal, "version {op}: {error}");
    }

    /// Deletes an object without naming a version.
    pub(super) async fn delete_to_marker(&mut self, name: Name) {
        let op = self.world.model.borrow_mut().number();
        let since = self.since();
        self.world.model.borrow_mut().history.begin(op, name, None, Lock::default(), since.tick);
        let log = self.log.clone();
        let answer = self.patiently(log.delete_current(name.0, name.1, op, Condition::None)).await;
        self.say(|| format!("delete {name:?} = {op}: {answer:?}"));
        match answer {
            None => {}
            Some(Ok(Deletion::Marker(id))) => {
                self.acknowledged(&since);
                self.stored(op, id);
            }
            Some(Ok(Deletion::Removed(removed))) => {
                assert!(name.0 != VERSIONED[0], "{name:?}: deleted without a marker");
                let now = self.now();
                let mut model = self.world.model.borrow_mut();
                let durable = model.durable;
                model.history.written.get_mut(&op).expect("it has begun").exists.refuse(op, now);
                model.history.end_replacing(op, now, durable, removed);
            }
            Some(Err(error)) => self.not_stored(op, Lock::default(), &since, &error),
        }
    }

    /// Returns a version whose id is known and that may exist.
    pub(super) fn any_version(&mut self) -> Option<u64> {
        let model = self.world.model.borrow();
        let mut known = model.history.candidates();
        known.retain(|version| matches!(model.history.written[version].id, Some(VersionId::Id(_))));
        drop(model);
        // Rather a late one: earlier ones are often gone.
        let late = known.split_off(known.len().saturating_sub(8));
        (!late.is_empty()).then(|| *self.random.pick(&late))
    }

    pub(super) fn id_of(&self, version: u64) -> (Name, VersionId) {
        let model = self.world.model.borrow();
        let written = &model.history.written[&version];
        (written.name, written.id.expect("the id is known"))
    }

    async fn delete_version(&mut self) {
        let Some(version) = self.any_version() else { return };
        self.delete_known_version(version).await;
    }

    /// Deletes a version whose id is known.
    pub(super) async fn delete_known_version(&mut self, version: u64) {
        let (name, id) = self.id_of(version);
        let bypass = self.random.chance(20);
        let op = self.world.model.borrow_mut().number();
        let since = self.since();
        let clock_ms = {
            let mut model = self.world.model.borrow_mut();
            model.history.written.get_mut(&version).expect("it is known").exists.begin(op, false, since.tick);
            model.history.clock.now_ms
        };
        // The wall clock ends no retention.
        let time_ms = if self.random.chance(30) { FAR_AHEAD } else { op };
        let log = self.log.clone();
        let answer = self.patiently(log.delete_version(name.0, name.1, id, time_ms, bypass)).await;
        self.say(|| format!("delete version {version} of {name:?}: {answer:?}"));
        let Some((answer, judged)) = self.known(answer, &since) else { return };
        let now = self.now();
        let mut model = self.world.model.borrow_mut();
        let durable = model.durable;
        let latest_ms = model.history.clock.now_ms;
        if matches!(answer, Ok(DeletedVersion { existed: false, .. })) {
            model.history.written.get_mut(&version).expect("it is known").exists.refuse(op, now);
            model.vanish_version(version, since.tick, now);
        }
        let written = model.history.written.get_mut(&version).expect("it is known");
        match answer {
            Ok(DeletedVersion { existed: true, was_marker }) => {
                self.acknowledged(&since);
                assert_eq!(was_marker, written.content.is_none(), "version {version}");
                let free = written.may_be_free(since.tick, latest_ms, bypass);
                assert!(free, "version {version} was locked, and is deleted: {written:?} at {clock_ms}");
                assert!(written.exists.observe(since.tick, now, durable, op, |there| *there), "version {version}");
                written.exists.acknowledge(op, now, durable);
            }
            Ok(DeletedVersion { existed: false, .. }) => {
                let gone = written.exists.observe(since.tick, now, durable, 0, |there| !there);
                assert!(gone, "version {version} is lost: {written:?}");
            }
            Err(error) => {
                written.exists.refuse(op, now);
                let legal = match error {
                    Error::Locked => written.may_be_locked(since.tick, clock_ms, bypass),
                    Error::Conflict | Error::NoSuchBucket => true,
                    _ => judged.is_some(),
                };
                assert!(legal, "version {version}: {error}: {written:?} at {clock_ms}");
            }
        }
    }

    async fn set_hold(&mut self) {
        let Some(version) = self.any_version() else { return };
        let (name, id) = self.id_of(version);
        let hold = self.random.chance(50);
        let op = self.world.model.borrow_mut().number();
        let since = self.since();
        {
            let mut model = self.world.model.borrow_mut();
            model.history.written.get_mut(&version).expect("it is known").hold.begin(op, hold, since.tick);
        }
        let log = self.log.clone();
        let answer = self.patiently(log.set_hold(name.0, name.1, Some(id), hold, op)).await;
        self.say(|| format!("hold of version {version} = {hold}: {answer:?}"));
        let Some((answer, judged)) = self.known(answer, &since) else { return };
        let now = self.now();
        let mut model = self.world.model.borrow_mut();
        let durable = model.durable;
        let written = model.history.written.get_mut(&version).expect("it is known");
        match answer {
            Ok(_) => {
                self.acknowledged(&since);
                written.hold.acknowledge(op, now, durable);
            }
            Err(error) => {
                written.hold.refuse(op, now);
                assert!(judged.is_some() || is_refusal(&error, name), "hold of version {version}: {error}");
            }
        }
    }

    async fn set_retention(&mut self) {
        let Some(version) = self.any_version() else { return };
        let (name, id) = self.id_of(version);
        let new = self.retention();
        let bypass = self.random.chance(20);
        let op = self.world.model.borrow_mut().number();
        let since = self.since();
        let clock_ms = {
            let mut model = self.world.model.borrow_mut();
            model.history.written.get_mut(&version).expect("it is known").retention.begin(op, new, since.tick);
            model.history.clock.now_ms
        };
        let log = self.log.clone();
        let answer = self.patiently(log.set_retention(name.0, name.1, Some(id), new, bypass, op)).await;
        self.say(|| format!("retention of version {version} = {new:?}: {answer:?}"));
        let Some((answer, judged)) = self.known(answer, &since) else { return };
        let now = self.now();
        let mut model = self.world.model.borrow_mut();
        let durable = model.durable;
        let latest_ms = model.history.clock.now_ms;
        let written = model.history.written.get_mut(&version).expect("it is known");
        let others = |written: &crate::model::WrittenVersion, of: &dyn Fn(Option<Retention>) -> bool| {
            written.retention.may_be(since.tick, |old| of(*old))
        };
        match answer {
            Ok(_) => {
                self.acknowledged(&since);
                let admitted = others(written, &|old| admits(old, new, bypass, latest_ms));
                assert!(admitted, "version {version} now has {new:?}: {written:?}");
                written.retention.acknowledge(op, now, durable);
            }
            Err(error) => {
                written.retention.refuse(op, now);
                let legal = match error {
                    Error::Locked => others(written, &|old| !admits(old, new, bypass, clock_ms)),
                    Error::InvalidRetention => new.is_some_and(|new| new.until_ms <= latest_ms),
                    _ => judged.is_some() || is_refusal(&error, name),
                };
                assert!(legal, "retention of version {version}: {error}");
            }
        }
    }

    async fn advance_lock_clock(&mut self) {
        let step = self.random.below(CLOCK_STEP);
        let (value_ms, since) = {
            let since = self.since();
            let mut model = self.world.model.borrow_mut();
            model.history.clock.now_ms += step;
            (model.history.clock.now_ms, since)
        };
        self.log.store().advance_lock_clock(value_ms);
        self.say(|| format!("the lock clock is {value_ms}"));
        assert_eq!(self.log.store().lock_clock_ms(), value_ms, "the lock clock");
        let log = self.log.clone();
        let Some(answer) = self.patiently(log.save_lock_clock()).await else { return };
        match answer {
            Ok(()) => {
                self.acknowledged(&since);
                let now = self.now();
                let mut model = self.world.model.borrow_mut();
                let durable = model.durable;
                model.history.clock.saved(value_ms, now, durable);
            }
            Err(error) => assert!(self.judge(&error, &since).is_some(), "the lock clock: {error}"),
        }
    }

    async fn tag_version(&mut self) {
        let Some(version) = self.any_version() else { return };
        let Some((object, _)) = self.look_version(version).await else { return };
        if object.versioning == Versioning::Off {
            return;
        }
        let (name, _) = self.id_of(version);
        let op = self.world.model.borrow_mut().number();
        self.world.model.borrow_mut().history.written.get_mut(&version).expect("it is known").tags.push(op);
        let since = self.since();
        let log = self.log.clone();
        let answer = self.patiently(log.set_tags(name.0, name.1, object, tags(op))).await;
        self.say(|| format!("tags of version {version} = {op}: {answer:?}"));
        if let Some(Err(error)) = answer {
            let legal = matches!(error, Error::Conflict | Error::NoSuchBucket);
            assert!(self.judge(&error, &since).is_some() || legal, "tags of version {version}: {error}");
        }
    }

    async fn get_version(&mut self) {
        if let Some(version) = self.any_version()
            && let Some((object, content)) = self.look_version(version).await
        {
            let tick = self.now();
            let is_evicting = self.world.model.borrow().may_be_evicted(&[content], tick);
            self.check_held(&object, &[content], is_evicting).await;
        }
    }

    /// Looks up a version and compares its properties.
    pub(super) async fn look_version(&mut self, version: u64) -> Option<(Object, Content)> {
        let (name, id) = self.id_of(version);
        let since = self.since();
        let log = self.log.clone();
        let answer = self.patiently(log.version(name.0, name.1, Some(id))).await?;
        let now = self.now();
        let mut model = self.world.model.borrow_mut();
        let durable = model.durable;
        if matches!(answer, Ok(FoundVersion::Absent) | Err(Error::NoSuchBucket)) {
            model.vanish_version(version, since.tick, now);
        }
        let written = model.history.written.get_mut(&version).expect("it is known");
        let (there, found) = match answer {
            Ok(FoundVersion::Long { .. }) => unreachable!("there is no limit"),
            Ok(FoundVersion::Absent) | Err(Error::NoSuchBucket) => (false, None),
            Ok(FoundVersion::Marker(marker)) => {
                assert!(written.content.is_none() && marker.time_ms == version, "version {version}: {marker:?}");
                (true, None)
            }
            Ok(FoundVersion::Object(object, _)) => {
                check_object(written, version, &object);
                let hold = written.hold.may_be(since.tick, |hold| *hold == object.lock.hold);
                let retention = written.retention.may_be(since.tick, |of| *of == object.lock.retention);
                assert!(hold && retention, "version {version} has {:?}: {written:?}", object.lock);
                (true, Some(object))
            }
            Err(Error::Damaged(damage)) if self.world.rot.borrow().versions.contains(&version) => {
                assert_eq!((damage.bucket.as_deref(), damage.key.as_deref()), (Some(name.0), Some(name.1)));
                return None;
            }
            Err(error) => {
                self.judge_read(&error, &since, "a version");
                return None;
            }
        };
        let legal = written.exists.observe(since.tick, now, durable, 0, |other| *other == there);
        assert!(legal, "version {version}: {there}, may be {:?}", written.exists.legal(false));
        let content = written.content;
        if let Some((object, content)) = found.as_ref().zip(content) {
            model.observe_eviction(&[content], object.is_evicted, since.tick, now);
        }
        found.zip(content)
    }

    /// Deletes all versions, whatever their locks.
    pub(super) async fn purge_versions(&mut self) {
        let far_ms = {
            let mut model = self.world.model.borrow_mut();
            model.history.clock.now_ms += FAR_AHEAD;
            model.history.clock.now_ms
        };
        self.log.store().advance_lock_clock(far_ms);
        for bucket in VERSIONED {
            if self.log.bucket(bucket).is_none() {
                continue;
            }
            for info in list(&self.log, bucket) {
                if info.lock.hold {
                    let set = self.log.set_hold(bucket, &info.key, Some(info.version), false, 1).await;
                    assert!(set.is_ok(), "{info:?}: {set:?}");
                }
                let deleted = self.log.delete_version(bucket, &info.key, info.version, 1, false).await;
                assert!(deleted.is_ok_and(|deleted| deleted.existed), "{info:?}");
                let now = self.now();
                let mut model = self.world.model.borrow_mut();
                let op = model.number();
                let durable = model.durable;
                let written = model.history.written.get_mut(&info.time_ms).expect("it was written");
                written.exists.begin(op, false, now);
                written.exists.acknowledge(op, now, durable);
            }
            self.log.delete_bucket(bucket, 1).await.expect("it is empty");
        }
    }
}

/// Returns whether an error refuses a change of a version's lock.
fn is_refusal(error: &Error, name: Name) -> bool {
    match error {
        Error::NotLockable => name.0 != VERSIONED[0],
        // A version that is gone, or that a deletion is about to take.
        Error::NoSuchVersion | Error::NoSuchBucket | Error::Conflict | Error::IsMarker => true,
        _ => false,
    }
}

/// Compares an object with the version that was written.
pub(super) fn check_object(written: &crate::model::WrittenVersion, version: u64, object: &Object) {
    let Some(content) = written.content else { panic!("the marker {version} is an object: {object:?}") };
    let found = (object.size, object.time_ms, object.sealed, object.etag);
    assert_eq!(found, (content.len, version, version.is_multiple_of(2), etag(version, 0)), "version {version}");
    assert!(object.head == object_head(version), "the object head of version {version}");
    assert!(written.tags.iter().any(|of| object.tags == tags(*of)), "the tags of version {version}");
}

/// Lists all versions of a bucket, which exists.
pub(super) fn list(log: &keyhole_log::Log<crate::disk::SimDisk>, bucket: &str) -> Vec<VersionInfo> {
    let mut list = ListVersions { limit: 7, ..ListVersions::default() };
    let mut found = Vec::new();
    loop {
        let listing = log.list_versions(bucket, &list).expect("the bucket is there");
        found.extend(listing.entries.into_iter().map(|entry| match entry {
            ListedVersion::Version(info) => info,
            ListedVersion::Prefix(prefix) => panic!("{prefix} without a delimiter"),
        }));
        match listing.next {
            Some(next) => list.after = Some(next),
            None => return found,
        }
    }
}

/// Lists all versions of a bucket and compares them with the model.
fn list_all(world: &World, log: &keyhole_log::Log<crate::disk::SimDisk>, bucket: &'static str) {
    let now = world.clock.tick();
    let mut model = world.model.borrow_mut();
    let durable = model.durable;
    let listed = list(log, bucket);
    check_order(&mut model, &listed);
    let of_bucket = model.history.written.iter().filter(|(_, written)| written.name.0 == bucket);
    let of_bucket: Vec<u64> = of_bucket.map(|(version, _)| *version).collect();
    for version in of_bucket {
        let there = listed.iter().any(|info| info.time_ms == version);
        if !there {
            model.vanish_version(version, now, now);
        }
        let written = model.history.written.get_mut(&version).expect("it was written");
        let legal = written.exists.observe(now, now, durable, 0, |other| *other == there);
        assert!(legal, "version {version} is listed: {there}: {written:?}");
    }
}

/// Checks that versions are listed in order, with the ids that they have, and which is current.
pub(super) fn check_order(model: &mut crate::model::Model, listed: &[VersionInfo]) {
    for (at, info) in listed.iter().enumerate() {
        let before = at.checked_sub(1).map(|at| &listed[at]).filter(|before| before.key == info.key);
        assert_eq!(info.is_latest, before.is_none(), "{listed:?}");
        if let Some(newer) = before {
            let wrong = newer.seq <= info.seq || model.history.is_older(info.time_ms, newer.time_ms);
            assert!(!wrong, "{info:?} is listed behind {newer:?}");
        }
        let id = model.history.written.get(&info.time_ms);
        let Some(written) = id else { panic!("a version that was never written: {info:?}") };
        assert_eq!((info.is_marker, info.key.as_str()), (written.content.is_none(), written.name.1), "{info:?}");
        if !info.is_marker {
            assert_eq!(info.etag.digest, digest(info.time_ms), "{info:?}");
        }
        model.history.recognise(info.time_ms, info.version);
        let nulls = listed.iter().filter(|other| other.key == info.key && other.version == VersionId::Null).count();
        assert!(nulls <= 1, "{nulls} null versions of {}", info.key);
    }
}
