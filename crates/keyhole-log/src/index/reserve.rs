//! Reservations: admission of a write before it is written.

use std::collections::BTreeMap;

use futures_channel::oneshot;

use super::Index;
use super::bucket::{Bucket, Outcome};
use super::effect::{Effect, VersionOf};
use super::entry::{Key, Properties};
use super::location::Location;
use super::uploads::Upload;
use crate::Error;
use crate::limits::QUOTA_SHARE;
use crate::types::{BodyId, BucketSettings, CompleteUpload, Condition};
use crate::version::{BucketLock, Versioning};
use crate::wire::payload::RecordedId;

/// Claims on versions, of all buckets.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Number of claims.
    held: usize,
    /// The first body of each version whose eviction is in flight, by the number of the eviction.
    evicting: BTreeMap<u64, BodyId>,
    /// Tasks that wait for the end of a claim.
    waiting: Vec<oneshot::Sender<()>>,
}

impl Index {
    /// Returns the bucket for a write into it.
    pub(crate) fn writable(&self, name: &str) -> Result<(u64, &Bucket), Error> {
        self.bucket(name).filter(|(_, bucket)| !bucket.deleting).ok_or(Error::NoSuchBucket)
    }

    /// Reserves the name of a new bucket. Returns `false` if the bucket exists.
    pub(crate) fn reserve_bucket(&mut self, name: &str) -> Result<bool, Error> {
        if let Some((_, bucket)) = self.bucket(name) {
            return if bucket.deleting { Err(Error::Conflict) } else { Ok(false) };
        }
        if self.creating.insert(name.into()) { Ok(true) } else { Err(Error::Conflict) }
    }

    /// Closes an empty bucket to further writes, and returns its identity.
    pub(crate) fn reserve_bucket_deletion(&mut self, name: &str) -> Result<u64, Error> {
        let (id, bucket) = self.bucket(name).ok_or(Error::NoSuchBucket)?;
        if bucket.deleting {
            return Err(Error::Conflict);
        }
        if !bucket.objects.is_empty()
            || !bucket.history.is_empty()
            || bucket.pending.values().any(|name| !name.writes.is_empty())
        {
            return Err(Error::BucketNotEmpty);
        }
        if let Some(bucket) = self.buckets.get_mut(&id) {
            bucket.deleting = true;
        }
        Ok(id)
    }

    /// Reserves a name for a write.
    pub(crate) fn reserve_name(&mut self, bucket: u64, key: &str, seq: u64, outcome: Outcome) {
        if let Some(home) = self.buckets.get_mut(&bucket) {
            home.pending.entry(key.into()).or_default().writes.push((seq, outcome));
        }
    }

    /// Counts an in-flight change of a bucket's settings.
    pub(crate) fn reserve_settings(&mut self, bucket: u64, changes_versioning: bool) {
        if let Some(home) = self.buckets.get_mut(&bucket) {
            home.settings_pending += 1;
            home.versioning_pending |= changes_versioning;
        }
    }

    /// Counts the bytes of an in-flight object, part or upload towards the quota of its bucket.
    pub(crate) fn reserve_bytes(&mut self, bucket: u64, bytes: u64) {
        if let Some(home) = self.buckets.get_mut(&bucket) {
            home.reserved += bytes + QUOTA_SHARE;
        }
    }

    fn release_bytes(&mut self, bucket: u64, bytes: u64) {
        if let Some(home) = self.buckets.get_mut(&bucket) {
            home.reserved -= bytes;
        }
    }

    /// Closes an upload to further parts.
    pub(crate) fn close_upload(&mut self, bucket: u64, upload: u64) {
        self.set_closing(bucket, upload, true);
    }

    fn set_closing(&mut self, bucket: u64, upload: u64, closing: bool) {
        if let Some(upload) = self.buckets.get_mut(&bucket).and_then(|home| home.uploads.get_mut(upload)) {
            upload.closing = closing;
        }
    }

    /// Ends the reservation of a write, whether or not it was applied.
    pub(crate) fn release(&mut self, seq: u64, effect: &Effect) {
        match effect {
            Effect::CreateBucket { name, .. } => {
                self.creating.remove(name);
            }
            Effect::DeleteBucket { bucket } => {
                if let Some(bucket) = self.buckets.get_mut(bucket) {
                    bucket.deleting = false;
                }
            }
            Effect::Put(put) => {
                self.release_name(put.bucket, &put.key, seq);
                self.release_import(put.bucket, put.id);
                match put.upload {
                    // The bytes of its parts are already counted.
                    Some(upload) => self.set_closing(put.bucket, upload, false),
                    None => self.release_bytes(put.bucket, put.size + QUOTA_SHARE),
                }
            }
            Effect::Delete { bucket, key } => self.release_name(*bucket, key, seq),
            Effect::Marker(marker) => {
                self.release_name(marker.bucket, &marker.key, seq);
                self.release_import(marker.bucket, marker.id);
                self.release_bytes(marker.bucket, QUOTA_SHARE);
            }
            Effect::DeleteVersion(of) => {
                self.release_name(of.bucket, &of.key, seq);
                self.release_version(of);
            }
            Effect::LockVersion { of, .. } | Effect::TagVersion(of) => self.release_version(of),
            Effect::EvictVersion(of) => {
                self.claims.evicting.remove(&seq);
                self.release_version(of);
            }
            Effect::AbortUpload { bucket, upload } => self.set_closing(*bucket, *upload, false),
            Effect::PutPart { bucket, part, .. } => self.release_bytes(*bucket, part.size + QUOTA_SHARE),
            Effect::CreateUpload { bucket, .. } => self.release_bytes(*bucket, QUOTA_SHARE),
            Effect::SetBucket { bucket, .. } => {
                if let Some(home) = self.buckets.get_mut(bucket) {
                    // A bucket that is created with settings did not exist when they were reserved.
                    home.settings_pending = home.settings_pending.saturating_sub(1);
                    // A change of the versioning excludes any other.
                    home.versioning_pending &= home.settings_pending > 0;
                }
            }
            Effect::Body { .. }
            | Effect::Moved(_)
            | Effect::LockClock { .. }
            | Effect::Checkpoint
            | Effect::Nothing => {}
        }
    }

    /// Reserves the id of a version that is imported.
    pub(crate) fn reserve_import(&mut self, bucket: u64, id: RecordedId) {
        if let (Some(home), Some(id)) = (self.buckets.get_mut(&bucket), id.imported()) {
            home.set_importing(id, true);
        }
    }

    fn release_import(&mut self, bucket: u64, id: RecordedId) {
        if let Some(id) = id.imported()
            && let Some(home) = self.buckets.get_mut(&bucket)
        {
            home.set_importing(id, false);
        }
    }

    /// Reserves a version for its deletion or eviction, or for a change of its lock or tags.
    pub(crate) fn reserve_version(&mut self, bucket: u64, version: u64) {
        if let Some(home) = self.buckets.get_mut(&bucket)
            && home.claim(version)
        {
            self.claims.held += 1;
        }
    }

    /// Reserves a version and its bodies for its eviction by this record. `first`: the first body.
    pub(crate) fn reserve_eviction(&mut self, bucket: u64, version: u64, first: BodyId, seq: u64) {
        self.reserve_version(bucket, version);
        self.claims.evicting.insert(seq, first);
    }

    /// Checks that these bodies of an object can be shared: they are here, and will stay. As only whole
    /// objects share bodies, and evicted ones share none, an eviction has all of them or none.
    pub(crate) fn check_shareable(&self, bodies: &[BodyId]) -> Result<(), Error> {
        if bodies.iter().any(|&body| self.body(body) == Some(Location::EVICTED)) {
            return Err(Error::Evicted);
        }
        let is_evicting = self.claims.evicting.values().any(|first| bodies.first() == Some(first));
        if is_evicting { Err(Error::Conflict) } else { Ok(()) }
    }

    /// Returns whether any version is reserved.
    pub(crate) fn has_claims(&self) -> bool {
        self.claims.held > 0
    }

    /// Returns a receiver that is told when a reservation of a version has ended.
    pub(crate) fn await_claim(&mut self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.claims.waiting.push(sender);
        receiver
    }

    /// Wakes the tasks that wait for the end of a reservation of a version.
    pub(crate) fn wake_claims(&mut self) {
        for waiting in self.claims.waiting.drain(..) {
            let _ = waiting.send(()); // The receiver may be gone.
        }
    }

    fn release_version(&mut self, of: &VersionOf) {
        if let Some(home) = self.buckets.get_mut(&of.bucket)
            && home.unclaim(of.version)
        {
            self.claims.held -= 1;
        }
        self.wake_claims();
    }

    fn release_name(&mut self, bucket: u64, key: &Key, seq: u64) {
        let Some(home) = self.buckets.get_mut(&bucket) else { return };
        // Usually this is the only write.
        let Some((key, mut pending)) = home.pending.remove_entry(key) else { return };
        pending.writes.retain(|&(write, _)| write != seq);
        if !pending.writes.is_empty() {
            home.pending.insert(key, pending);
        }
    }
}

impl Bucket {
    /// Decides the condition of a write. Any in-flight write of the name may turn out to precede
    /// this one, so the condition is decided only if the result is the same after each of them.
    pub(crate) fn decide(&self, key: &str, condition: Condition) -> Result<(), Error> {
        match condition {
            Condition::None => return Ok(()),
            Condition::IfSame(seq) => {
                let is_same = self.object(key).is_some_and(|entry| entry.seq == seq) && !self.is_pending(key);
                return if is_same { Ok(()) } else { Err(Error::Conflict) };
            }
            Condition::IfAbsent | Condition::IfMatch(_) => {}
        }
        let now = self.object(key).map_or(Outcome::Absent, |entry| Outcome::Present(entry.properties()));
        let pending = self.pending.get(key.as_bytes()).into_iter().flat_map(|pending| &pending.writes);
        let mut outcomes = std::iter::once(now).chain(pending.map(|&(_, outcome)| outcome));
        if outcomes.clone().any(|outcome| outcome == Outcome::Undecided) {
            return Err(Error::Conflict);
        }
        let first = outcomes.next().and_then(|outcome| refusal(condition, outcome));
        if outcomes.any(|outcome| refusal(condition, outcome).is_some() != first.is_some()) {
            return Err(Error::Conflict);
        }
        // Of several reasons, that of the state which reads show.
        first.map_or(Ok(()), Err)
    }

    /// Checks that the quota admits `bytes` and a record of `record` bytes more, minus what
    /// `in_place_of` returns for the replaced object or part.
    pub(crate) fn check_quota(
        &self,
        bytes: u64,
        record: usize,
        in_place_of: impl FnOnce(&Self) -> Option<u64>,
    ) -> Result<(), Error> {
        let Some(quota) = self.settings.as_ref().and_then(|settings| settings.settings.quota) else { return Ok(()) };
        let more = bytes.saturating_add(QUOTA_SHARE.max(record as u64));
        let held = self.charged.saturating_add(self.reserved).saturating_add(more);
        let then = held.saturating_sub(in_place_of(self).unwrap_or(0));
        if then > quota { Err(Error::QuotaExceeded) } else { Ok(()) }
    }

    /// Checks that the versioning state and the object lock may be changed to those of these settings.
    /// Returns whether they are changed.
    pub(crate) fn check_versioning(&self, settings: &BucketSettings) -> Result<bool, Error> {
        let old = self.versioning();
        let new = (settings.versioning, settings.lock);
        let is_changed = old != new;
        if self.versioning_pending || (is_changed && self.settings_pending > 0) {
            return Err(Error::Conflict);
        }
        let why = match (old, new) {
            ((Versioning::Enabled | Versioning::Suspended, _), (Versioning::Off, _)) => {
                "versioning can be suspended, but not turned off"
            }
            ((_, Some(_)), (Versioning::Suspended, _)) => "versioning cannot be suspended in a bucket with object lock",
            ((_, Some(_)), (_, None)) => "object lock cannot be turned off",
            (_, (Versioning::Off | Versioning::Suspended, Some(_))) => "object lock requires versioning",
            (_, (_, Some(BucketLock { default: Some(default) }))) if !default.period.is_valid() => {
                "a default retention lasts 1 to 36500 days or 1 to 100 years"
            }
            _ => return Ok(is_changed),
        };
        Err(Error::InvalidBucketState(why))
    }

    /// Returns whether the name has neither an object nor an in-flight write.
    pub(crate) fn is_absent(&self, key: &str) -> bool {
        !self.objects.contains_key(key.as_bytes()) && !self.pending.contains_key(key.as_bytes())
    }

    /// Returns whether a write of this name is in flight.
    pub(crate) fn is_pending(&self, key: &str) -> bool {
        self.pending.get(key.as_bytes()).is_some_and(|pending| !pending.writes.is_empty())
    }

    /// Returns whether a change of its settings is in flight.
    pub(crate) fn is_being_set(&self) -> bool {
        self.settings_pending > 0
    }

    /// Returns whether an upload of this identity exists, whatever its key.
    pub(crate) fn has_upload_id(&self, id: &[u8; 16]) -> bool {
        self.uploads.seq_of_id(id).is_some()
    }
}

fn refusal(condition: Condition, outcome: Outcome) -> Option<Error> {
    match (condition, outcome) {
        (Condition::None, _) | (Condition::IfAbsent, Outcome::Absent) => None,
        (Condition::IfAbsent, Outcome::Present(_)) => Some(Error::ConditionFailed),
        (Condition::IfMatch(wanted), Outcome::Absent) => (!wanted.or_absent).then_some(Error::NoSuchKey),
        (Condition::IfMatch(wanted), Outcome::Present(Properties { etag, size, time_ms })) => {
            (!wanted.admits(etag, size, time_ms)).then_some(Error::ConditionFailed)
        }
        // Unreachable for outcomes, which have no sequence number: `decide` handles this condition.
        (Condition::IfSame(_), _) | (_, Outcome::Undecided) => Some(Error::Conflict),
    }
}

impl Upload {
    /// Checks that an upload accepts a part, a completion or an abortion.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        if self.closing { Err(Error::Conflict) } else { Ok(()) }
    }

    pub(crate) fn check_parts(&self, complete: &CompleteUpload) -> Result<(), Error> {
        if complete.parts.iter().all(|part| self.has(part)) { Ok(()) } else { Err(Error::PartChanged) }
    }
}
