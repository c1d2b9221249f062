//! The place of an imported version among those of its name.
//!
//! An import stores versions as the newest ones of their name, so it can only continue a history: the
//! newest version in the store must be the one that precedes the imported one in the export.

use keyhole_log::{Condition, Disk, Error, FoundVersion, Lock, Log, Object, Retention, VersionId, VersionInfo};
use keyhole_node::Services;
use keyhole_node::transfer::Description;
use keyhole_s3::ops::Tags;
use tokio::time::{Instant, sleep};

use super::entry::{ObjectEntry, identity};
use super::protocol::{Existing, ImportOutcome};
use super::versions::MarkerEntry;
use crate::control::{CHANGE_AGAIN, CHANGE_PATIENCE};
use crate::env::System;

/// The history of one name, as far as an import has restored it.
#[derive(Default)]
pub(super) struct History {
    bucket: String,
    key: String,
    /// The number of the version that is being stored, and its id.
    storing: Option<(u64, VersionId)>,
    /// The last version that was found or stored, and its sequence number in the store.
    last: Option<(VersionId, u64)>,
    /// Whether the store could not store a version.
    has_gap: bool,
}

impl History {
    /// Turns to a name. Returns the number of an earlier version of it that is still being stored.
    pub(super) fn turn_to(&mut self, bucket: &str, key: &str) -> Option<u64> {
        if self.bucket != bucket || self.key != key {
            *self = History { bucket: bucket.to_owned(), key: key.to_owned(), ..History::default() };
        }
        self.storing.map(|(number, _)| number)
    }

    /// Notes that a version of the name is being stored.
    pub(super) fn begin(&mut self, number: u64, version: VersionId) {
        self.storing = Some((number, version));
    }

    /// Notes the outcome of the version with this number, if it is of the name.
    pub(super) fn end(&mut self, number: u64, is_stored: bool) {
        if let Some((_, version)) = self.storing.take_if(|(storing, _)| *storing == number) {
            if is_stored {
                // Nothing that was there before is newer.
                self.last = Some((version, u64::MAX));
            } else {
                self.has_gap = true;
            }
        }
    }

    /// Notes that the store cannot store a version of the name.
    pub(super) fn set_gap(&mut self) {
        self.has_gap = true;
    }

    /// Notes a version that the store has. Returns whether it is newer than the versions before it.
    fn find(&mut self, found: &VersionInfo) -> bool {
        let last = self.last.map_or(0, |(_, seq)| seq);
        self.last = Some((found.version, found.seq.max(last)));
        found.seq > last
    }

    /// Returns whether a version that the store lacks gets its place if it becomes the newest one.
    fn is_next(&self, newest: Option<&VersionInfo>) -> bool {
        let last = self.last.map(|(version, _)| version);
        newest.is_none_or(|newest| Some(newest.version) == last)
    }
}

/// A version that is offered.
#[derive(Clone, Copy)]
pub(super) enum Offered<'o> {
    Object(&'o ObjectEntry, &'o Description),
    Marker(&'o MarkerEntry),
}

impl Offered<'_> {
    fn name(&self) -> (&str, &str) {
        match self {
            Offered::Object(entry, _) => (&entry.bucket, &entry.key),
            Offered::Marker(entry) => (&entry.bucket, &entry.key),
        }
    }
}

/// Decides whether a version is wanted, and the condition of its commit. Strengthens the lock of an
/// equal version.
pub(super) async fn decide<D: Disk>(
    log: &Log<D>,
    offered: Offered<'_>,
    version: VersionId,
    existing: Existing,
    history: &mut History,
) -> Result<Condition, ImportOutcome> {
    let (bucket, key) = offered.name();
    if history.has_gap {
        return Err(refused("an earlier version of the key was not stored"));
    }
    let found = log.version_info(bucket, key, Some(version)).map_err(refused)?;
    let Some(found) = found else {
        let newest = log.version_info(bucket, key, None).map_err(refused)?;
        let is_next = history.is_next(newest.as_ref());
        return if is_next { Ok(while_newest(newest.as_ref())) } else { Err(behind(existing)) };
    };
    let is_in_order = history.find(&found);
    let is_equal = match offered {
        Offered::Marker(marker) => found.is_marker && found.time_ms == marker.modified_ms,
        Offered::Object(entry, description) => {
            !found.is_marker && settle_equal(log, entry, description, version, existing).await.map_err(refused)?
        }
    };
    match existing {
        _ if is_equal && is_in_order => Err(ImportOutcome::Equal {}),
        _ if is_equal => Err(refused("the store has the versions of the key in another order")),
        Existing::Fail | Existing::Skip => Err(ImportOutcome::Other {}),
        Existing::Replace if version != VersionId::Null => {
            Err(refused("the store has another version of this id, and an import replaces none"))
        }
        Existing::Replace if found.lock.keeps(log.store().lock_clock_ms(), false) => Err(refused(Error::Locked)),
        Existing::Replace if found.is_latest => Ok(while_newest(Some(&found))),
        Existing::Replace => Err(behind(existing)),
    }
}

fn refused(reason: impl std::fmt::Display) -> ImportOutcome {
    ImportOutcome::Refused { message: reason.to_string() }
}

fn behind(existing: Existing) -> ImportOutcome {
    match existing {
        Existing::Replace => refused("the store has newer versions of the key, and an import replaces none"),
        Existing::Fail | Existing::Skip => ImportOutcome::Behind {},
    }
}

/// Returns the condition that this is still the newest version of its name.
fn while_newest(newest: Option<&VersionInfo>) -> Condition {
    match newest {
        Some(newest) if !newest.is_marker => Condition::IfSame(newest.seq),
        _ => Condition::IfAbsent,
    }
}

/// Returns whether the store has a version with the same contents and tags, after strengthening its
/// lock. Other tags are replaced, if `existing` says so.
async fn settle_equal<D: Disk>(
    log: &Log<D>,
    entry: &ObjectEntry,
    description: &Description,
    version: VersionId,
    existing: Existing,
) -> Result<bool, Error> {
    let Description { bucket, key, lock, tags, .. } = description;
    let object = match log.version(bucket, key, Some(version)).await.map(FoundVersion::into_object) {
        Ok(Some((object, _))) => object,
        Ok(None) | Err(Error::Damaged(_)) => return Ok(false),
        Err(error) => return Err(error),
    };
    if !has_contents(&object, entry) {
        return Ok(false);
    }
    strengthen(log, description, version, object.lock, *lock).await?;
    if has_tags(&object, entry) {
        return Ok(true);
    }
    if existing == Existing::Replace {
        log.set_tags(bucket, key, object, tags.to_bytes()).await?;
        return Ok(true);
    }
    Ok(false)
}

/// Returns whether an object has the contents that an entry describes.
pub(super) fn has_contents(object: &Object, entry: &ObjectEntry) -> bool {
    let Ok(description) = Description::of(&entry.bucket, &entry.key, object) else { return false };
    let version = entry.version.map(|version| version.0);
    identity(&Description { version, ..description }, &object.head) == entry.file.id
}

/// Returns whether an object has the tags that an entry describes.
pub(super) fn has_tags(object: &Object, entry: &ObjectEntry) -> bool {
    let Some(tags) = Tags::from_bytes(&object.tags) else { return false };
    tags.iter().eq(entry.tags.iter().map(|(key, value)| (&key[..], &value[..])))
}

/// Adds to a lock in the store what the lock of an export has beyond it.
async fn strengthen<D: Disk>(
    log: &Log<D>,
    Description { bucket, key, .. }: &Description,
    version: VersionId,
    old: Lock,
    wanted: Lock,
) -> Result<(), Error> {
    let now_ms = System.now_ms();
    let begun = Instant::now();
    loop {
        let changed = async {
            if let Some(longer) = longer_retention(old, wanted, log.store().lock_clock_ms()) {
                log.set_retention(bucket, key, Some(version), Some(longer), false, now_ms).await?;
            }
            if wanted.hold && !old.hold {
                log.set_hold(bucket, key, Some(version), true, now_ms).await?;
            }
            Ok(())
        };
        match changed.await {
            Err(Error::Conflict) if begun.elapsed() < CHANGE_PATIENCE => sleep(CHANGE_AGAIN).await,
            // Its retention has become stronger meanwhile.
            Err(Error::Locked) => return Ok(()),
            changed => return changed,
        }
    }
}

/// Returns the retention of `wanted`, if it is in force and `old` admits it in its place.
fn longer_retention(old: Lock, wanted: Lock, clock_ms: u64) -> Option<Retention> {
    let wanted = wanted.retention.filter(|wanted| wanted.until_ms > clock_ms && old.retention != Some(*wanted))?;
    old.with_retention(Some(wanted), false, clock_ms).is_ok().then_some(wanted)
}

#[cfg(test)]
mod tests {
    use keyhole_log::{Etag, RetentionMode};

    use super::*;
    use RetentionMode::{Compliance, Governance};

    fn info(version: VersionId, seq: u64) -> VersionInfo {
        VersionInfo {
            key: "k".to_owned(),
            version,
            is_latest: false,
            is_marker: false,
            size: 0,
            etag: Etag { digest: [0; 16], parts: 0 },
            sealed: false,
            time_ms: 0,
            lock: Lock::default(),
            seq,
            is_evicted: false,
        }
    }

    #[test]
    fn retention_is_only_strengthened() {
        let lock = |mode, until_ms| Lock { retention: Some(Retention { mode, until_ms }), ..Lock::default() };
        let clock = 100;
        for (old, wanted, is_set) in [
            (Lock::default(), lock(Governance, 101), true),
            (Lock::default(), lock(Governance, 100), false),
            (Lock::default(), Lock::default(), false),
            (lock(Governance, 110), Lock::default(), false),
            (lock(Governance, 110), lock(Governance, 110), false),
            (lock(Governance, 110), lock(Governance, 109), false),
            (lock(Governance, 110), lock(Governance, 111), true),
            (lock(Governance, 110), lock(Compliance, 110), true),
            (lock(Governance, 110), lock(Compliance, 109), false),
            (lock(Compliance, 110), lock(Governance, 200), false),
            (lock(Compliance, 110), lock(Compliance, 111), true),
            (lock(Compliance, 100), lock(Governance, 101), true),
            (lock(Compliance, 99), lock(Compliance, 99), false),
        ] {
            let wanted_retention = wanted.retention.filter(|_| is_set);
            assert_eq!(longer_retention(old, wanted, clock), wanted_retention, "{old:?} {wanted:?}");
        }
    }

    #[test]
    fn history_continues_only_behind_its_last_version() {
        let [a, b, c] = [1, 2, 3].map(|id| VersionId::Id([id; 16]));
        let mut history = History::default();
        assert_eq!(history.turn_to("b", "k"), None);
        assert!(history.is_next(None), "the store has none");
        assert!(!history.is_next(Some(&info(a, 5))));
        assert!(history.find(&info(a, 5)));
        assert!(history.is_next(Some(&info(a, 5))) && !history.is_next(Some(&info(b, 6))));
        assert!(!history.find(&info(c, 4)), "it is older than the first");
        history.begin(7, b);
        assert_eq!(history.turn_to("b", "k"), Some(7));
        history.end(6, false);
        assert_eq!(history.turn_to("b", "k"), Some(7), "another object");
        history.end(7, true);
        assert_eq!(history.turn_to("b", "k"), None);
        assert!(history.is_next(Some(&info(b, 9))) && !history.has_gap);
        history.begin(8, c);
        history.end(8, false);
        assert!(history.has_gap);
        history.turn_to("b", "other");
        assert!(!history.has_gap && !history.is_next(Some(&info(b, 9))));
    }
}
