//! Application of durable records to the index, both new and replayed ones.
//!
//! A record may be applied twice: the cleaner moves live records, with their sequence numbers,
//! before it frees their segment. So every effect is idempotent: of existing items only the
//! location changes.

use std::sync::Arc;

use super::Index;
use super::bucket::{Bucket, Settings};
use super::effect::{Effect, Put, PutMarker};
use super::entry::{Bodies, BodyEntry, ObjectEntry, Stamp};
use super::location::{Location, Shares};
use super::quota_charge;
use super::removals::Removal;
use super::uploads::{PartEntry, Upload};
use crate::error::Error;
use crate::types::{BodyId, BucketSettings, Part, UploadIdentity};

impl Index {
    /// Applies a durable record. An error is for the request that wrote it: its target is gone.
    pub(crate) fn apply(&mut self, seq: u64, at: Location, effect: &Effect) -> Result<(), Error> {
        if let Some(removals) = &mut self.removals {
            removals.begin_record(seq);
        }
        match effect {
            Effect::CreateBucket { name, time_ms, tags } => {
                if !self.relocate(seq, at, effect) {
                    let of_name = self.names.get(name).copied();
                    // The deletion of an older one was lost: it was not durable, or is damaged.
                    if let Some(old) = of_name.filter(|&old| old < seq) {
                        self.delete_bucket(old);
                    }
                    // If the checkpoint has a newer one, the deletion of this one will be replayed.
                    if of_name.is_none_or(|other| other < seq) {
                        self.names.insert(name.clone(), seq);
                    }
                    self.live.add(at);
                    let bucket = Bucket { created_tags: tags.clone(), ..Bucket::new(name.clone(), *time_ms, at) };
                    self.buckets.insert(seq, bucket);
                }
                Ok(())
            }
            Effect::DeleteBucket { bucket } => {
                self.delete_bucket(*bucket);
                Ok(())
            }
            Effect::SetBucket { bucket, settings } => self.set_bucket(seq, at, *bucket, settings),
            Effect::Body { id, runs, .. } => {
                let shares = Shares::of(runs, self.live.segment_len());
                self.add_body(*id, at, shares);
                Ok(())
            }
            Effect::Put(put) => self.put(seq, at, put),
            Effect::Delete { bucket, key } => {
                self.delete_null(seq, *bucket, key);
                Ok(())
            }
            Effect::Marker(marker) => self.put_marker(seq, at, marker),
            Effect::DeleteVersion(of) => {
                self.take_version(of.bucket, &of.key.0, of.version, Removal::Deleted);
                Ok(())
            }
            Effect::LockVersion { of, lock } => {
                self.lock_version(seq, at, of, *lock);
                Ok(())
            }
            Effect::TagVersion(of) => {
                self.tag_version(seq, at, of);
                Ok(())
            }
            Effect::EvictVersion(of) => {
                self.evict_version(seq, at, of);
                Ok(())
            }
            Effect::LockClock { time_ms } => {
                self.saved_lock_clock(*time_ms);
                Ok(())
            }
            Effect::CreateUpload { bucket, key, id, time_ms, sealed, declared } => {
                if self.relocate(seq, at, effect) {
                    return Ok(());
                }
                let key = key.0.as_ref().into();
                let id = *id;
                let time_ms = *time_ms;
                let sealed = *sealed;
                let declared = *declared;
                let parts = Default::default();
                self.add_upload(*bucket, seq, Upload { at, key, id, time_ms, sealed, declared, parts, closing: false })
            }
            Effect::PutPart { bucket, upload, time_ms, part } => {
                self.put_part(seq, at, UploadIdentity { bucket: *bucket, upload: *upload }, *time_ms, part)
            }
            Effect::AbortUpload { bucket, upload } => {
                self.remove_upload(*bucket, *upload);
                Ok(())
            }
            Effect::Moved(effect) => {
                self.relocate(seq, at, effect);
                Ok(())
            }
            Effect::Checkpoint => {
                self.live.add(at);
                self.building.push(at);
                Ok(())
            }
            Effect::Nothing => Ok(()),
        }
    }

    /// Moves an item to a new location if its record is still current. Returns `false` if the
    /// record is dead.
    pub(crate) fn relocate(&mut self, seq: u64, at: Location, effect: &Effect) -> bool {
        let place = match effect {
            Effect::Body { id, runs, .. } => {
                let there = self.body(*id).is_some_and(|at| at != Location::EVICTED);
                if there {
                    let shares = Shares::of(runs, self.live.segment_len());
                    self.add_body(*id, at, shares);
                }
                return there;
            }
            Effect::CreateBucket { .. } => self.buckets.get_mut(&seq).map(|bucket| &mut bucket.at),
            Effect::SetBucket { bucket, .. } => {
                let settings = self.buckets.get_mut(bucket).and_then(|home| home.settings.as_mut());
                settings.filter(|settings| settings.seq == seq).map(|settings| &mut settings.at)
            }
            Effect::Put(put) => {
                let entry = self.buckets.get_mut(&put.bucket).and_then(|home| home.version_mut(&put.key.0, seq));
                // Only the name of a lost object is in the index: its record
                // alone does not restore it.
                entry.filter(|entry| entry.at != Location::LOST).map(|entry| &mut entry.at)
            }
            Effect::Marker(marker) => {
                let entry = self.buckets.get_mut(&marker.bucket).and_then(|home| home.version_mut(&marker.key.0, seq));
                entry.filter(|entry| entry.is_marker()).map(|entry| &mut entry.at)
            }
            Effect::LockVersion { of, .. } => {
                self.buckets.get_mut(&of.bucket).and_then(|home| home.lock_place(of.version, seq))
            }
            Effect::TagVersion(of) => {
                self.buckets.get_mut(&of.bucket).and_then(|home| home.tags_place(of.version, seq))
            }
            Effect::EvictVersion(of) => {
                self.buckets.get_mut(&of.bucket).and_then(|home| home.eviction_place(of.version, seq))
            }
            Effect::CreateUpload { bucket, .. } => {
                self.buckets.get_mut(bucket).and_then(|home| home.uploads.place_mut(seq))
            }
            Effect::PutPart { bucket, upload, part, .. } => {
                let upload = self.buckets.get_mut(bucket).and_then(|home| home.uploads.get_mut(*upload));
                upload.and_then(|upload| upload.parts.get_mut(part.number, seq)).map(|entry| &mut entry.at)
            }
            Effect::Moved(effect) => return self.relocate(seq, at, effect),
            Effect::DeleteBucket { .. }
            | Effect::Delete { .. }
            | Effect::DeleteVersion(_)
            | Effect::LockClock { .. }
            | Effect::AbortUpload { .. }
            | Effect::Checkpoint
            | Effect::Nothing => None,
        };
        let Some(place) = place else { return false };
        let old = std::mem::replace(place, at);
        self.live.sub(old);
        self.live.add(at);
        self.recharge(effect, old, at);
        true
    }

    /// Corrects the bytes that count towards the quota for a record that has moved.
    fn recharge(&mut self, effect: &Effect, old: Location, at: Location) {
        let (Effect::Put(Put { bucket, .. })
        | Effect::Marker(PutMarker { bucket, .. })
        | Effect::CreateUpload { bucket, .. }
        | Effect::PutPart { bucket, .. }) = effect
        else {
            return;
        };
        if let Some(home) = self.buckets.get_mut(bucket) {
            home.charged = home.charged + quota_charge(0, at) - quota_charge(0, old);
        }
    }

    /// Returns the location of this record according to the index, if it is live.
    pub(crate) fn location(&self, seq: u64, effect: &Effect) -> Option<Location> {
        match effect {
            Effect::Body { id, .. } => self.body(*id),
            Effect::CreateBucket { .. } => self.buckets.get(&seq).map(|bucket| bucket.at),
            Effect::SetBucket { bucket, .. } => {
                let settings = self.buckets.get(bucket)?.settings.as_ref()?;
                (settings.seq == seq).then_some(settings.at)
            }
            Effect::Put(put) => self.buckets.get(&put.bucket)?.version(&put.key.0, seq).map(|entry| entry.at),
            Effect::Marker(marker) => {
                let entry = self.buckets.get(&marker.bucket)?.version(&marker.key.0, seq)?;
                entry.is_marker().then_some(entry.at)
            }
            Effect::LockVersion { of, .. } => self.buckets.get(&of.bucket)?.lock_record(of.version, seq),
            Effect::TagVersion(of) => self.buckets.get(&of.bucket)?.tags_record(of.version, seq),
            Effect::EvictVersion(of) => self.buckets.get(&of.bucket)?.eviction_record(of.version, seq),
            Effect::CreateUpload { bucket, .. } => self.buckets.get(bucket)?.uploads.get(seq).map(|upload| upload.at),
            Effect::PutPart { bucket, upload, part, .. } => {
                self.buckets.get(bucket)?.uploads.get(*upload)?.part_at(part.number, seq)
            }
            Effect::Moved(effect) => self.location(seq, effect),
            Effect::DeleteBucket { .. }
            | Effect::Delete { .. }
            | Effect::DeleteVersion(_)
            | Effect::LockClock { .. }
            | Effect::AbortUpload { .. }
            | Effect::Checkpoint
            | Effect::Nothing => None,
        }
    }

    pub(super) fn add_body(&mut self, id: BodyId, at: Location, shares: Shares) {
        if self.body(id) == Some(Location::EVICTED) {
            return; // The record is older than the eviction, or a copy of it.
        }
        self.live.add(at);
        self.live.add_shares(&shares);
        self.totals.shares += shares.allocated() as u64;
        match self.bodies.find(&id) {
            // The body was referenced before its record appeared, or the record was moved:
            // references stay.
            Ok(place) => {
                let body = self.bodies.at_mut(place);
                let old = std::mem::replace(&mut body.at, at);
                let old_shares = std::mem::replace(&mut body.shares, shares);
                self.totals.shares -= old_shares.allocated() as u64;
                self.live.sub(old);
                self.live.sub_shares(&old_shares);
            }
            Err(place) => self.bodies.insert_at(place, id, BodyEntry { at, shares, refs: 0 }),
        }
    }

    fn set_bucket(&mut self, seq: u64, at: Location, bucket: u64, settings: &BucketSettings) -> Result<(), Error> {
        let home = self.buckets.get_mut(&bucket).ok_or(Error::NoSuchBucket)?;
        if home.settings.as_ref().is_some_and(|newer| newer.seq > seq) {
            return Ok(());
        }
        home.created_tags = Arc::default();
        let old = home.settings.replace(Settings { at, seq, settings: settings.clone() });
        self.live.add(at);
        if let Some(old) = old {
            self.live.sub(old.at);
        }
        Ok(())
    }

    fn put(&mut self, seq: u64, at: Location, put: &Put) -> Result<(), Error> {
        let home = self.buckets.get_mut(&put.bucket).ok_or(Error::NoSuchBucket)?;
        let stamp = Stamp::new(put.time_ms, put.etag.parts, put.sealed).of_version(put.id.is_null());
        let entry = ObjectEntry { at, seq, size: put.size, stamp, digest: put.etag.digest, bodies: put.bodies.clone() };
        let place = home.objects.find(put.key.0.as_bytes());
        let current = place.ok().map(|place| home.objects.at(place));
        if !put.id.is_null() || !put.lock.is_none() || !home.is_plain(current) {
            self.put_version(put.bucket, &put.key, entry, put.id.imported(), put.lock);
        } else if current.is_none_or(|current| current.seq <= seq) && home.take_null(seq, &put.key) {
            self.newest_ms = self.newest_ms.max(put.time_ms);
            home.bytes = home.bytes.wrapping_add(put.size);
            home.charged = home.charged.wrapping_add(quota_charge(put.size, at));
            let old = match place {
                Ok(place) => Some(std::mem::replace(home.objects.at_mut(place), entry)),
                Err(place) => {
                    home.objects.insert_at(place, &put.key.0, entry);
                    self.totals.objects += 1;
                    None
                }
            };
            self.live.add(at);
            // New references first: both objects may have the same body.
            self.add_refs(put.bodies.as_slice());
            if let Some(old) = old {
                self.forget_version(put.bucket, &old, old.seq == seq);
            }
        }
        if let Some(upload) = put.upload {
            self.remove_upload(put.bucket, upload);
        }
        Ok(())
    }

    /// Adds the name of an object whose record cannot be read, unless the name has a version.
    pub(crate) fn add_lost(&mut self, bucket: u64, key: &str, seq: u64) {
        if self.buckets.get(&bucket).is_some_and(|home| home.versions(key).is_none()) {
            // Its storage time is unknown. It must not expire at once.
            let stamp = Stamp::new(self.newest_ms, 0, false);
            let bodies = Bodies::from_vec(Vec::new());
            let entry = ObjectEntry { at: Location::LOST, seq, size: 0, stamp, digest: [0; 16], bodies };
            self.add_version(bucket, key, entry);
        }
    }

    pub(super) fn add_upload(&mut self, bucket: u64, seq: u64, upload: Upload) -> Result<(), Error> {
        let home = self.buckets.get_mut(&bucket).ok_or(Error::NoSuchBucket)?;
        self.totals.uploads += 1;
        self.newest_ms = self.newest_ms.max(upload.time_ms);
        self.live.add(upload.at);
        home.charged += quota_charge(0, upload.at);
        home.uploads.insert(seq, upload);
        Ok(())
    }

    pub(super) fn put_part(
        &mut self,
        seq: u64,
        at: Location,
        of: UploadIdentity,
        time_ms: u64,
        part: &Part,
    ) -> Result<(), Error> {
        // Deleting a bucket deletes its uploads.
        let home = self.buckets.get_mut(&of.bucket).ok_or(Error::NoSuchUpload)?;
        let upload = home.uploads.get_mut(of.upload).ok_or(Error::NoSuchUpload)?;
        let body = part.body;
        let old = upload.parts.insert(PartEntry { at, seq, time_ms, part: part.clone() });
        home.bytes = home.bytes.wrapping_add(part.size);
        home.charged = home.charged.wrapping_add(quota_charge(part.size, at));
        self.newest_ms = self.newest_ms.max(time_ms);
        self.live.add(at);
        self.add_refs(&[body]);
        if let Some(old) = old {
            self.forget_part(of.bucket, &old);
        }
        Ok(())
    }

    fn forget_part(&mut self, bucket: u64, old: &PartEntry) {
        if let Some(home) = self.buckets.get_mut(&bucket) {
            home.bytes = home.bytes.wrapping_sub(old.part.size);
            home.charged = home.charged.wrapping_sub(quota_charge(old.part.size, old.at));
        }
        self.live.sub(old.at);
        self.drop_refs(&[old.part.body]);
    }

    fn remove_upload(&mut self, bucket: u64, seq: u64) {
        let Some(home) = self.buckets.get_mut(&bucket) else { return };
        let Some(upload) = home.uploads.remove(seq) else { return };
        home.charged -= quota_charge(0, upload.at);
        self.totals.uploads -= 1;
        self.live.sub(upload.at);
        for part in upload.parts.iter() {
            self.forget_part(bucket, part);
        }
    }

    /// Deletes a bucket with its uploads. Its objects have been deleted before.
    fn delete_bucket(&mut self, id: u64) {
        let uploads: Vec<u64> =
            self.buckets.get(&id).into_iter().flat_map(|bucket| bucket.uploads.iter().map(|(seq, _)| seq)).collect();
        for upload in uploads {
            self.remove_upload(id, upload);
        }
        // Versions remain only if the records that deleted them are lost.
        let versions: Vec<(String, u64)> = self.buckets.get(&id).map_or_else(Vec::new, |bucket| {
            let names = bucket.names_from(b"");
            names.flat_map(|name| name.oldest_first().map(move |entry| (name.key.to_owned(), entry.seq))).collect()
        });
        for (key, version) in versions {
            self.take_version(id, &key, version, Removal::Deleted);
        }
        if let Some(bucket) = self.buckets.remove(&id) {
            self.note_bucket_removal(&bucket.name, bucket.newest_record(id));
            self.live.sub(bucket.at);
            if let Some(settings) = bucket.settings {
                self.live.sub(settings.at);
            }
            // When applied twice, a new bucket may have the name.
            if self.names.get(&bucket.name) == Some(&id) {
                self.names.remove(&bucket.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::entry::Key;
    use crate::limits::SEGMENTS_START;
    use crate::types::Etag;
    use crate::version::Lock;
    use crate::wire::payload::RecordedId;

    fn place(page: u64) -> Location {
        Location::new(SEGMENTS_START + page * 4096, 64)
    }

    /// The cleaner may move a record while a newer one replaces it, and two workers' batches may be
    /// applied in any order. The newer record must win.
    #[test]
    fn older_record_applied_late_does_not_replace_newer_one() {
        let bucket = 1;
        let upload = 2;
        let mut index = Index::replay(1 << 20);
        let create = Effect::CreateBucket { name: "b".into(), time_ms: 0, tags: Arc::default() };
        index.apply(bucket, place(0), &create).unwrap();
        let key = || Key("k".into());
        let create =
            Effect::CreateUpload { bucket, key: key(), id: [7; 16], time_ms: 0, sealed: false, declared: None };
        index.apply(upload, place(1), &create).unwrap();
        let etag = Etag { digest: [0; 16], parts: 0 };
        let bodies = || Bodies::from_vec(Vec::new());
        let id = RecordedId::Null;
        let lock = Lock::default();
        let put = Put {
            bucket,
            key: key(),
            size: 0,
            time_ms: 0,
            etag,
            sealed: false,
            bodies: bodies(),
            upload: None,
            id,
            lock,
        };
        let body = BodyId(3);
        index.add_body(body, place(2), Shares::of(&[], 1 << 20));
        let part = Part { number: 1, body, size: 0, salt: [0; 24], etag: etag.digest };
        let effects = [
            Effect::SetBucket { bucket, settings: BucketSettings::default() },
            Effect::Put(put),
            Effect::PutPart { bucket, upload, time_ms: 0, part },
        ];
        for (n, effect) in (1..).zip(effects) {
            let old = 10 * n;
            let new = 10 * n + 1;
            index.apply(old, place(old), &effect).unwrap();
            index.apply(new, place(new), &effect).unwrap();
            index.apply(old, place(100 + old), &Effect::Moved(Box::new(effect.clone()))).unwrap();
            assert_eq!(index.location(new, &effect), Some(place(new)), "{effect:?}");
            let _ = index.apply(old, place(200 + old), &effect); // A replaced part is an error.
            assert_eq!(index.location(new, &effect), Some(place(new)), "{effect:?}");
            assert_eq!(index.location(old, &effect), None, "{effect:?}");
            index.apply(new, place(100 + new), &Effect::Moved(Box::new(effect.clone()))).unwrap();
            assert_eq!(index.location(new, &effect), Some(place(100 + new)), "{effect:?}");
        }
    }
}
