//! Operations on versions: their deletion, locks and tags, and decisions about new ones.

use super::{CommitRequest, Log, draft, within};
use crate::disk::Disk;
use crate::error::Error;
use crate::index::{Bucket, Index, ObjectEntry, Outcome, quota_charge};
use crate::limits::{KEY_MAX, OBJECT_TAGS_MAX};
use crate::sabotage::{self, Sabotage};
use crate::types::Condition;
use crate::version::{
    BucketLock, DeletedVersion, Deletion, Lock, Retention, StoredVersion, VersionId, VersionIds, Versioning,
};
use crate::version_list::{ListVersions, VersionInfo, VersionListing};
use crate::wire::payload::{MarkerPut, NamedVersion, RecordPayload, RecordedId};

/// How a new version is to be stored.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NewVersion {
    pub(super) lock: Lock,
    /// The id that it has in the store that it comes from.
    pub(super) import: Option<VersionId>,
}

/// The decision about a new version, an object or a marker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decision {
    pub(super) id: RecordedId,
    pub(super) lock: Lock,
    pub(super) versioning: Versioning,
    /// Bytes that the replaced version counts towards the quota.
    pub(super) replaced: Option<u64>,
}

impl Decision {
    /// Decides how a new version of a name is recorded, by the state of its bucket.
    pub(super) fn of(
        index: &Index,
        home: &Bucket,
        key: &str,
        new: &NewVersion,
        time_ms: u64,
        ids: VersionIds,
    ) -> Result<Self, Error> {
        let (versioning, _) = home.versioning();
        let id = match (new.import, versioning) {
            (None, Versioning::Enabled) => RecordedId::Own,
            (None | Some(VersionId::Null), _) => RecordedId::Null,
            (Some(VersionId::Id(_)), Versioning::Off) => {
                return Err(Error::InvalidBucketState("versions can only be imported into a bucket with versioning"));
            }
            (Some(VersionId::Id(id)), _) => {
                let exists = home.version_by_id(key, VersionId::Id(id), ids).is_some();
                if exists || home.has_imported(&id) {
                    return Err(Error::VersionExists);
                }
                RecordedId::Imported(id)
            }
        };
        let lock = decide_lock(home, new, index.lock_clock_ms, time_ms)?;
        let replaced = if id.is_null() { replaced_null(index, home, key)? } else { None };
        Ok(Decision { id, lock, versioning, replaced })
    }

    /// Returns the version that was stored with this sequence number.
    pub(super) fn stored(&self, seq: u64, ids: VersionIds) -> StoredVersion {
        let version = match self.id {
            RecordedId::Null => VersionId::Null,
            RecordedId::Own => VersionId::Id(ids.id(seq)),
            RecordedId::Imported(id) => VersionId::Id(id),
        };
        StoredVersion { version, versioning: self.versioning }
    }
}

/// Checks that objects of this bucket can be stored with a lock.
pub(super) fn check_lock(home: &Bucket, lock: &Lock, clock_ms: u64) -> Result<(), Error> {
    if !lock.is_none() && home.versioning().1.is_none() {
        return Err(Error::NotLockable);
    }
    if lock.retention.is_some_and(|retention| retention.until_ms <= clock_ms) {
        return Err(Error::InvalidRetention);
    }
    Ok(())
}

/// Returns the lock of a new version.
fn decide_lock(home: &Bucket, new: &NewVersion, clock_ms: u64, time_ms: u64) -> Result<Lock, Error> {
    if new.import.is_some() {
        // A retention that has ended is as good as none.
        check_lock(home, &new.lock, 0)?;
        return Ok(new.lock);
    }
    check_lock(home, &new.lock, clock_ms)?;
    let default = home.versioning().1.and_then(|of_bucket| of_bucket.default).map(|default| {
        // A wall clock that runs behind must not shorten it.
        Retention { mode: default.mode, until_ms: time_ms.max(clock_ms).saturating_add(default.period.ms()) }
    });
    Ok(Lock { retention: new.lock.retention.or(default), ..new.lock })
}

/// Returns the bytes that the `null` version of a name counts towards the quota, unless it must not
/// be replaced.
fn replaced_null(index: &Index, home: &Bucket, key: &str) -> Result<Option<u64>, Error> {
    let Some(null) = home.null_version(key) else { return Ok(None) };
    if home.lock_of(null.seq).keeps(index.lock_clock_ms, false) {
        return Err(Error::Locked);
    }
    if home.is_claimed(null.seq) {
        return Err(Error::Conflict);
    }
    Ok(Some(quota_charge(null.size, null.at)))
}

/// Checks that nothing that concerns this version is in flight.
pub(super) fn check_unclaimed(home: &Bucket, key: &str, entry: &ObjectEntry) -> Result<(), Error> {
    let is_busy = home.is_claimed(entry.seq) || (entry.is_null() && home.is_pending(key));
    if is_busy { Err(Error::Conflict) } else { Ok(()) }
}

/// Returns the object that is this version of a name; `None` for the current one.
fn object_version<'a>(
    home: &'a Bucket,
    key: &str,
    version: Option<VersionId>,
    ids: VersionIds,
) -> Result<&'a ObjectEntry, Error> {
    let entry = match version {
        Some(version) => home.version_by_id(key, version, ids).ok_or(Error::NoSuchVersion)?,
        None => match home.object(key) {
            Some(entry) => entry,
            None if home.versions(key).is_some() => return Err(Error::IsMarker),
            None => return Err(Error::NoSuchKey),
        },
    };
    if entry.is_marker() { Err(Error::IsMarker) } else { Ok(entry) }
}

/// A deletion whose name is reserved.
enum BegunDeletion {
    /// There is nothing to delete.
    Nothing,
    Tombstone(u64, u64),
    Marker(u64, u64, RecordedId),
}

impl<D: Disk> Log<D> {
    pub(super) fn version_ids(&self) -> VersionIds {
        VersionIds::of(&self.store().id)
    }

    /// Deletes an object as a client does that names no version: in a bucket with versioning, a delete
    /// marker becomes the current version.
    ///
    /// # Errors
    /// `NoSuchBucket`; `ConditionFailed`, `NoSuchKey`, and `Conflict` while another write of the
    /// name decides the condition; `Locked` if the marker would replace a locked `null` version; those
    /// of every write.
    pub async fn delete_current(
        &self,
        bucket: &str,
        key: &str,
        time_ms: u64,
        condition: Condition,
    ) -> Result<Deletion, Error> {
        self.delete_current_of(bucket, key, time_ms, condition, None).await
    }

    /// Deletes an object like [`delete_current`](Self::delete_current). With `only`, deletes it only if
    /// it has this sequence number.
    ///
    /// # Errors
    /// Those of [`delete_current`](Self::delete_current). With `only`, also `Conflict` while any
    /// write of the name is in flight, because the deletion would hit that object instead.
    pub(super) async fn delete_current_of(
        &self,
        bucket: &str,
        key: &str,
        time_ms: u64,
        condition: Condition,
        only: Option<u64>,
    ) -> Result<Deletion, Error> {
        let ids = self.version_ids();
        let (begun, versioning) = self.begin_deletion(bucket, key, condition, only).await?;
        match begun {
            BegunDeletion::Nothing => Ok(Deletion::Removed(false)),
            BegunDeletion::Tombstone(bucket, seq) => {
                let tombstone = draft(seq, &RecordPayload::Tombstone { bucket, time_ms, key });
                self.write(CommitRequest::deletion(tombstone)).await?;
                Ok(Deletion::Removed(true))
            }
            BegunDeletion::Marker(bucket, seq, id) => {
                let marker = draft(seq, &RecordPayload::MarkerPut(MarkerPut { bucket, time_ms, id, key }));
                self.write(CommitRequest::new(vec![marker])).await?;
                let is_null = versioning == Versioning::Suspended;
                Ok(Deletion::Marker(if is_null { VersionId::Null } else { VersionId::Id(ids.id(seq)) }))
            }
        }
    }

    async fn begin_deletion(
        &self,
        bucket: &str,
        key: &str,
        condition: Condition,
        only: Option<u64>,
    ) -> Result<(BegunDeletion, Versioning), Error> {
        let store = self.store();
        let mut state = match only {
            // The maintenance must not wait for a write, which may wait for the space that it frees.
            Some(_) => store.lock(),
            None => self.lock_settled(bucket, key, &NewVersion::default()).await,
        };
        store.check_poison()?;
        let (id, home) = state.index.writable(bucket)?;
        home.decide(key, condition)?;
        if only.is_some() && home.is_pending(key) {
            return Err(Error::Conflict);
        }
        let (versioning, _) = home.versioning();
        let other = |entry: &ObjectEntry| only.is_some_and(|seq| seq != entry.seq);
        let is_other = only.is_some() && home.object(key).is_none_or(other);
        let is_plain = versioning == Versioning::Off;
        if is_plain && home.is_null_claimed(key) {
            return Err(Error::Conflict);
        }
        if is_other || (is_plain && home.is_absent(key)) {
            return Ok((BegunDeletion::Nothing, versioning));
        }
        let is_null = versioning != Versioning::Enabled;
        // Only in a bucket with versioning can a version be locked.
        let replaced = if is_null && !is_plain { replaced_null(&state.index, home, key)? } else { None };
        if !is_plain {
            within(key.len(), KEY_MAX, "the key of an object")?;
            if replaced.is_none() {
                state.index.admit_name(key.len())?;
            }
        }
        let seq = state.numbers.record();
        state.index.reserve_name(id, key, seq, Outcome::Absent);
        if is_plain {
            return Ok((BegunDeletion::Tombstone(id, seq), versioning));
        }
        state.index.reserve_bytes(id, 0);
        let recorded = if is_null { RecordedId::Null } else { RecordedId::Own };
        Ok((BegunDeletion::Marker(id, seq, recorded), versioning))
    }

    /// Deletes one version for good. `bypass`: a retention of mode governance does not count.
    ///
    /// # Errors
    /// `NoSuchBucket`; `Locked`; `Conflict` while a deletion of the version, or a change of its lock or
    /// tags, is in flight; those of every write.
    pub async fn delete_version(
        &self,
        bucket: &str,
        key: &str,
        version: VersionId,
        time_ms: u64,
        bypass: bool,
    ) -> Result<DeletedVersion, Error> {
        let is_plain = self.store().lock().index.writable(bucket)?.1.versioning().0 == Versioning::Off;
        // Under deferred syncing a power failure can lose the settings of a bucket and keep versions of
        // it, which can then be deleted by their ids.
        if is_plain && version == VersionId::Null {
            // If versioning was enabled meanwhile, this puts a marker, which destroys nothing.
            let deletion = self.delete_current(bucket, key, time_ms, Condition::None).await?;
            return Ok(DeletedVersion { existed: deletion == Deletion::Removed(true), was_marker: false });
        }
        let ids = self.version_ids();
        let find = |home: &Bucket| home.version_by_id(key, version, ids).map(|entry| entry.seq);
        self.delete_found(bucket, key, time_ms, bypass, find).await
    }

    /// Deletes the version with this sequence number for good, if it exists.
    ///
    /// # Errors
    /// Those of [`delete_version`](Self::delete_version).
    pub(super) async fn delete_number(&self, bucket: &str, key: &str, seq: u64, time_ms: u64) -> Result<bool, Error> {
        let deleted = self.delete_found(bucket, key, time_ms, false, |_| Some(seq)).await?;
        Ok(deleted.existed)
    }

    async fn delete_found(
        &self,
        bucket: &str,
        key: &str,
        time_ms: u64,
        bypass: bool,
        find: impl FnOnce(&Bucket) -> Option<u64>,
    ) -> Result<DeletedVersion, Error> {
        let store = self.store();
        let (id, version, seq, was_marker) = {
            let mut state = store.lock();
            store.check_poison()?;
            let (id, home) = state.index.writable(bucket)?;
            let found = find(home).and_then(|seq| home.version(key, seq));
            let Some(entry) = found else { return Ok(DeletedVersion::default()) };
            let clock_ms = if sabotage::is(Sabotage::BelieveWallClock) { time_ms } else { state.index.lock_clock_ms };
            if home.lock_of(entry.seq).keeps(clock_ms, bypass) {
                return Err(Error::Locked);
            }
            if home.is_claimed(entry.seq) {
                return Err(Error::Conflict);
            }
            let version = entry.seq;
            let was_marker = entry.is_marker();
            let seq = state.numbers.record();
            state.index.reserve_name(id, key, seq, Outcome::Undecided);
            state.index.reserve_version(id, version);
            (id, version, seq, was_marker)
        };
        let of = NamedVersion { bucket: id, version, key };
        self.write(CommitRequest::deletion(draft(seq, &RecordPayload::VersionDelete { of, time_ms }))).await?;
        Ok(DeletedVersion { existed: true, was_marker })
    }

    /// Sets the retention of a version, of the current one if none is named, and returns its id.
    /// `bypass`: a retention of mode governance can be shortened and removed.
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchKey`, `NoSuchVersion`, `IsMarker`, `NotLockable`; `InvalidRetention` if its
    /// end is not after the lock clock; `Locked` if the version has a retention that does not admit it;
    /// `Conflict` while a change of the version is in flight; those of every write.
    pub async fn set_retention(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionId>,
        retention: Option<Retention>,
        bypass: bool,
        time_ms: u64,
    ) -> Result<VersionId, Error> {
        let change = |old: Lock, clock_ms| old.with_retention(retention, bypass, clock_ms);
        self.change_lock(bucket, key, version, time_ms, change).await
    }

    /// Sets or removes the legal hold of a version, of the current one if none is named, and returns
    /// its id.
    ///
    /// # Errors
    /// Those of [`set_retention`](Self::set_retention), except for `InvalidRetention` and `Locked`. The
    /// removal of a hold is accepted by a full store.
    pub async fn set_hold(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionId>,
        hold: bool,
        time_ms: u64,
    ) -> Result<VersionId, Error> {
        self.change_lock(bucket, key, version, time_ms, |old, _| Ok(Lock { hold, ..old })).await
    }

    async fn change_lock(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionId>,
        time_ms: u64,
        change: impl FnOnce(Lock, u64) -> Result<Lock, Error>,
    ) -> Result<VersionId, Error> {
        let ids = self.version_ids();
        let store = self.store();
        let (of, seq, lock, name, ends_hold) = {
            let mut state = store.lock();
            store.check_poison()?;
            let (bucket, home) = state.index.writable(bucket)?;
            if home.versioning().1.is_none() {
                return Err(Error::NotLockable);
            }
            let entry = object_version(home, key, version, ids)?;
            check_unclaimed(home, key, entry)?;
            let old = home.lock_of(entry.seq);
            let lock = change(old, state.index.lock_clock_ms)?;
            let name = home.id_of(entry, ids);
            if lock == old {
                return Ok(name);
            }
            let version = entry.seq;
            if !home.has_lock(version) {
                state.index.admit_name(0)?;
            }
            state.index.reserve_version(bucket, version);
            let of = NamedVersion { bucket, version, key };
            (of, state.numbers.record(), lock, name, old.hold && !lock.hold)
        };
        let record = draft(seq, &RecordPayload::VersionLock { of, time_ms, lock });
        // Like a deletion, the end of a hold needs no space beyond what the version has taken.
        let request = if ends_hold { CommitRequest::deletion(record) } else { CommitRequest::new(vec![record]) };
        self.write(request).await?;
        Ok(name)
    }

    /// Replaces the tags of a version of a bucket with versioning, or of an evicted one.
    pub(super) async fn tag_version(
        &self,
        bucket: &str,
        key: &str,
        version: u64,
        time_ms: u64,
        tags: &[u8],
    ) -> Result<(), Error> {
        within(tags.len(), OBJECT_TAGS_MAX, "the tags of an object")?;
        let store = self.store();
        let (of, seq) = {
            let mut state = store.lock();
            store.check_poison()?;
            let (bucket, home) = state.index.writable(bucket)?;
            let entry = home.version(key, version).ok_or(Error::Conflict)?;
            check_unclaimed(home, key, entry)?;
            if home.tags_of(version).is_none() {
                state.index.admit_name(0)?;
            }
            state.index.reserve_version(bucket, version);
            (NamedVersion { bucket, version, key }, state.numbers.record())
        };
        self.write(CommitRequest::new(vec![draft(seq, &RecordPayload::VersionTags { of, time_ms, tags })])).await
    }

    /// Stores a delete marker of another store, as the newest version of its name.
    ///
    /// # Errors
    /// `NoSuchBucket`; `VersionExists`; `InvalidBucketState` for an id in a bucket without versioning;
    /// `Locked`, `TooLarge`; those of every write.
    pub async fn import_marker(&self, bucket: &str, key: &str, version: VersionId, time_ms: u64) -> Result<(), Error> {
        within(key.len(), KEY_MAX, "the key of an object")?;
        let ids = self.version_ids();
        let store = self.store();
        let new = NewVersion { import: Some(version), ..NewVersion::default() };
        let (bucket, seq, id) = {
            let mut state = self.lock_settled(bucket, key, &new).await;
            store.check_poison()?;
            let (bucket, home) = state.index.writable(bucket)?;
            if home.versioning().0 == Versioning::Off {
                return Err(Error::InvalidBucketState("markers can only be imported into a bucket with versioning"));
            }
            let decision = Decision::of(&state.index, home, key, &new, time_ms, ids)?;
            if decision.replaced.is_none() {
                state.index.admit_name(key.len())?;
            }
            let seq = state.numbers.record();
            state.index.reserve_name(bucket, key, seq, Outcome::Absent);
            state.index.reserve_import(bucket, decision.id);
            state.index.reserve_bytes(bucket, 0);
            (bucket, seq, decision.id)
        };
        let marker = MarkerPut { bucket, time_ms, id, key };
        self.write(CommitRequest::new(vec![draft(seq, &RecordPayload::MarkerPut(marker))])).await
    }

    /// Returns the id and the lock of a version, of the current one if none is named.
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchKey`, `NoSuchVersion`, `IsMarker`.
    pub fn lock_of(&self, bucket: &str, key: &str, version: Option<VersionId>) -> Result<(VersionId, Lock), Error> {
        let ids = self.version_ids();
        let state = self.store().lock();
        let (_, home) = state.index.bucket(bucket).ok_or(Error::NoSuchBucket)?;
        let entry = object_version(home, key, version, ids)?;
        Ok((home.id_of(entry, ids), home.lock_of(entry.seq)))
    }

    /// Returns the index entry of a version, of the current one if none is named: an object or a
    /// delete marker, also one whose record is damaged. `None`: there is none.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn version_info(
        &self,
        bucket: &str,
        key: &str,
        version: Option<VersionId>,
    ) -> Result<Option<VersionInfo>, Error> {
        let ids = self.version_ids();
        let state = self.store().lock();
        let (_, home) = state.index.bucket(bucket).ok_or(Error::NoSuchBucket)?;
        let Some(name) = home.versions(key) else { return Ok(None) };
        let entry = match version {
            Some(version) => home.version_by_id(key, version, ids),
            None => Some(name.newest()),
        };
        Ok(entry.map(|entry| home.version_info(&name, entry, ids)))
    }

    /// Lists versions and common prefixes, the newest version of a key first.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn list_versions(&self, bucket: &str, list: &ListVersions) -> Result<VersionListing, Error> {
        let ids = self.version_ids();
        let state = self.store().lock();
        let (_, home) = state.index.bucket(bucket).ok_or(Error::NoSuchBucket)?;
        Ok(home.list_versions(list, ids))
    }

    /// Returns the version of a key with this sequence number, or `None` if the key has no such version.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn version_numbered(&self, bucket: &str, key: &str, number: u64) -> Result<Option<VersionInfo>, Error> {
        let ids = self.version_ids();
        let state = self.store().lock();
        let (_, home) = state.index.bucket(bucket).ok_or(Error::NoSuchBucket)?;
        let found = home.versions(key).zip(home.version(key, number));
        Ok(found.map(|(name, entry)| home.version_info(&name, entry, ids)))
    }

    /// Returns at most `limit` versions after this key and sequence number, in the order of keys, and
    /// of each key the oldest first: the order in which they can be imported.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    pub fn versions_in_order(
        &self,
        bucket: &str,
        after: Option<(&str, u64)>,
        limit: usize,
    ) -> Result<Vec<VersionInfo>, Error> {
        let ids = self.version_ids();
        let state = self.store().lock();
        let (_, home) = state.index.bucket(bucket).ok_or(Error::NoSuchBucket)?;
        let (key, seq) = after.unwrap_or(("", 0));
        let names = home.names_from(key.as_bytes());
        let versions = names.flat_map(|name| {
            let from = if name.key == key { seq } else { 0 };
            let mut at = from;
            std::iter::from_fn(move || {
                let entry = name.above(at)?;
                at = entry.seq;
                Some((name, entry))
            })
        });
        Ok(versions.take(limit).map(|(name, entry)| home.version_info(&name, entry, ids)).collect())
    }

    /// Returns the versioning state and the object lock of a bucket, if it exists.
    pub fn bucket_versioning(&self, bucket: &str) -> Option<(Versioning, Option<BucketLock>)> {
        self.store().lock().index.bucket(bucket).map(|(_, home)| home.versioning())
    }

    /// Starts the lock clock at this time, durably, unless it has a time already. Must precede the object
    /// lock of the first bucket: otherwise a restart could start the clock at another time.
    ///
    /// # Errors
    /// Those of every write.
    pub async fn start_lock_clock(&self, now_ms: u64) -> Result<(), Error> {
        let store = self.store();
        if store.lock_clock_ms() == 0 {
            store.advance_lock_clock(now_ms);
            self.save_lock_clock().await?;
        }
        Ok(())
    }

    /// Makes the lock clock durable, as it is at the moment.
    ///
    /// # Errors
    /// Those of every write.
    pub async fn save_lock_clock(&self) -> Result<(), Error> {
        let store = self.store();
        let (seq, time_ms) = {
            let mut state = store.lock();
            store.check_poison()?;
            (state.numbers.record(), state.index.lock_clock_ms)
        };
        self.write(CommitRequest::new(vec![draft(seq, &RecordPayload::LockClock { time_ms })])).await
    }
}
