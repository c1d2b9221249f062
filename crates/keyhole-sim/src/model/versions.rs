//! Versions of objects, delete markers, locks and the lock clock.
//!
//! Whether a version exists, its hold and its retention are each a register of their own: what a
//! version is does not depend on the others, except that a write of a `null` version removes the
//! others of its name.

use std::collections::BTreeMap;

use keyhole_log::{Lock, Retention, RetentionMode, VersionId};

use super::Register;
use crate::content::Content;

/// The bucket with object lock, and the one whose versioning is suspended at times.
pub const VERSIONED: [&str; 2] = ["locked", "suspended"];

/// Keys of versioned objects.
pub const VERSION_KEYS: [&str; 3] = ["v", "v/a", "w"];

/// A version that was written, by the number of its operation, which is its time and its ETag.
#[derive(Debug, Clone)]
pub struct WrittenVersion {
    /// Its bucket and key.
    pub name: (&'static str, &'static str),
    /// The bytes; `None`: a delete marker.
    pub content: Option<Content>,
    /// Its id, once it is known.
    pub id: Option<VersionId>,
    /// The time of the beginning of its operation, and that of the answer.
    pub began: u64,
    /// The time of the answer, if the version was acknowledged.
    pub ended: Option<u64>,
    /// Whether it exists.
    pub exists: Register<bool>,
    /// Whether it has a legal hold.
    pub hold: Register<bool>,
    /// Its retention.
    pub retention: Register<Option<Retention>>,
    /// The numbers of the tags that it may have.
    pub tags: Vec<u64>,
}

impl WrittenVersion {
    /// Returns whether it may be the `null` version.
    fn may_be_null(&self) -> bool {
        self.id.is_none_or(|id| id == VersionId::Null)
    }

    fn registers(
        &mut self,
        mut each: impl FnMut(&mut Register<bool>),
        with: impl FnOnce(&mut Register<Option<Retention>>),
    ) {
        each(&mut self.exists);
        each(&mut self.hold);
        with(&mut self.retention);
    }

    /// Returns whether it may have been free of locks at some time since, by a clock.
    pub fn may_be_free(&self, since: u64, clock_ms: u64, bypass: bool) -> bool {
        let has_ended = |retention: &Option<Retention>| has_ended(*retention, clock_ms, bypass);
        self.hold.may_be(since, |hold| !hold) && self.retention.may_be(since, has_ended)
    }

    /// Returns whether it may be free of locks after a crash, by a clock; `power`: power has failed.
    pub fn may_survive_free(&self, power: bool, clock_ms: u64) -> bool {
        let has_ended = |retention: &Option<Retention>| has_ended(*retention, clock_ms, false);
        self.hold.may_survive(power, |hold| !hold) && self.retention.may_survive(power, has_ended)
    }

    /// Returns whether it may have been locked at some time since, by a clock.
    pub fn may_be_locked(&self, since: u64, clock_ms: u64, bypass: bool) -> bool {
        let keeps = |retention: &Option<Retention>| !has_ended(*retention, clock_ms, bypass);
        self.hold.may_be(since, |hold| *hold) || self.retention.may_be(since, keeps)
    }
}

/// Returns whether a retention, if any, no longer locks a version, by a clock.
fn has_ended(retention: Option<Retention>, clock_ms: u64, bypass: bool) -> bool {
    !Lock { retention, hold: false }.keeps(clock_ms, bypass)
}

/// Returns whether a retention admits another one.
pub fn admits(old: Option<Retention>, new: Option<Retention>, bypass: bool, clock_ms: u64) -> bool {
    let Some(old) = old.filter(|old| old.until_ms > clock_ms) else { return true };
    let is_longer = new.is_some_and(|new| new.until_ms >= old.until_ms);
    match old.mode {
        RetentionMode::Governance => bypass || is_longer,
        RetentionMode::Compliance => is_longer && new.is_some_and(|new| new.mode == RetentionMode::Compliance),
    }
}

/// The lock clock.
#[derive(Debug, Clone, Default)]
pub struct LockClock {
    /// Its value.
    pub now_ms: u64,
    /// The highest value that is durable.
    pub saved_ms: u64,
    /// Saved values that a flush makes durable, with the times of their answers.
    written: Vec<(u64, u64)>,
}

impl LockClock {
    /// Records that a value was saved.
    pub fn saved(&mut self, value_ms: u64, now: u64, durable: bool) {
        if durable {
            self.saved_ms = self.saved_ms.max(value_ms);
        } else {
            self.written.push((now, value_ms));
        }
    }

    fn flushed(&mut self, began: u64) {
        for (_, value_ms) in self.written.extract_if(.., |(at, _)| *at < began) {
            self.saved_ms = self.saved_ms.max(value_ms);
        }
    }

    /// Adopts the value found at an opening. Panics if it is impossible.
    pub fn opened(&mut self, found_ms: u64) {
        let least = self.saved_ms;
        assert!(found_ms >= least, "the lock clock has gone back from {least} to {found_ms}");
        assert!(found_ms <= self.now_ms, "the lock clock is {found_ms}, and was never beyond {}", self.now_ms);
        *self = LockClock { now_ms: found_ms, saved_ms: found_ms, written: Vec::new() };
    }
}

/// All versions ever written, and the lock clock.
#[derive(Debug, Clone, Default)]
pub struct Versions {
    /// The versions, by the numbers of their operations.
    pub written: BTreeMap<u64, WrittenVersion>,
    /// The lock clock.
    pub clock: LockClock,
    /// Writes in flight that may replace the `null` version of a name.
    replacing: Vec<(u64, (&'static str, &'static str))>,
}

impl Versions {
    /// Begins to write a version, which may replace the `null` version of its name.
    pub fn begin(
        &mut self,
        op: u64,
        name: (&'static str, &'static str),
        content: Option<Content>,
        lock: Lock,
        now: u64,
    ) {
        self.begin_replacing(op, name, now);
        let mut exists = Register::new(false);
        exists.begin(op, true, now);
        for (other, _) in self.replacing.iter().filter(|(other, of)| *of == name && *other != op) {
            exists.begin(*other, false, now);
        }
        let hold = Register::new(lock.hold);
        let retention = Register::new(lock.retention);
        let version = WrittenVersion {
            name,
            content,
            id: None,
            began: now,
            ended: None,
            exists,
            hold,
            retention,
            tags: vec![op],
        };
        self.written.insert(op, version);
    }

    /// Begins a removal of the `null` version of a name.
    pub fn begin_replacing(&mut self, op: u64, name: (&'static str, &'static str), now: u64) {
        // In the bucket with object lock, no version is the `null` version.
        if name.0 == VERSIONED[0] {
            return;
        }
        self.replacing.push((op, name));
        for version in self.written.values_mut().filter(|version| version.name == name && version.may_be_null()) {
            version.exists.begin(op, false, now);
        }
    }

    /// Ends a write that may replace the `null` version: `replaced` if it did.
    pub fn end_replacing(&mut self, op: u64, now: u64, durable: bool, replaced: bool) {
        self.replacing.retain(|(other, _)| *other != op);
        for (_, version) in self.written.iter_mut().filter(|(number, _)| **number != op) {
            match (replaced, version.id) {
                (true, Some(VersionId::Null)) => version.exists.acknowledge(op, now, durable),
                // Perhaps it was another.
                (true, None) => version.exists.settle(op, now),
                (true, Some(VersionId::Id(_))) | (false, _) => version.exists.refuse(op, now),
            }
        }
    }

    /// Records the answer to a write of a version.
    pub fn stored(&mut self, op: u64, id: VersionId, now: u64, durable: bool) {
        let version = self.written.get_mut(&op).expect("it has begun");
        version.id = Some(id);
        version.ended = Some(now);
        version.exists.acknowledge(op, now, durable);
        self.end_replacing(op, now, durable, id == VersionId::Null);
    }

    /// Records that a write of a version was refused.
    pub fn refused(&mut self, op: u64, now: u64) {
        if let Some(version) = self.written.get_mut(&op) {
            version.exists.refuse(op, now);
        }
        self.end_replacing(op, now, false, false);
    }

    /// Records the id that a version was found with.
    pub fn recognise(&mut self, op: u64, id: VersionId) {
        let version = self.written.get_mut(&op).unwrap_or_else(|| panic!("version {op} was never written"));
        assert!(version.id.is_none_or(|known| known == id), "version {op} is {id}, was {:?}", version.id);
        version.id = Some(id);
    }

    /// Records the answer to a flush that began at `began`.
    pub fn flushed(&mut self, began: u64, now: u64) {
        for version in self.written.values_mut() {
            version.registers(|register| register.flushed(began, now), |register| register.flushed(began, now));
        }
        self.clock.flushed(began);
    }

    /// Records that all operations have ended.
    pub fn quiesce(&mut self, now: u64) {
        self.replacing.clear();
        for version in self.written.values_mut() {
            version.registers(|register| register.quiesce(now), |register| register.quiesce(now));
        }
    }

    /// Discards the operations in flight of the old process after a crash.
    pub fn crashed(&mut self) {
        self.replacing.clear();
    }

    /// Returns whether the second of two versions certainly is older than the first.
    pub fn is_older(&self, newer: u64, older: u64) -> bool {
        let began = self.written[&newer].began;
        self.written[&older].ended.is_some_and(|ended| ended < began)
    }

    /// Returns the versions that may exist.
    pub fn candidates(&self) -> Vec<u64> {
        let may_exist = |version: &&u64| self.written[*version].exists.may_survive(true, |there| *there);
        self.written.keys().filter(may_exist).copied().collect()
    }
}
