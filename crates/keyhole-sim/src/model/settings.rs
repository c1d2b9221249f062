//! Bucket settings, quotas, and objects that the store drops by itself.

use keyhole_log::BucketSettings;
use keyhole_log::limits::{QUOTA_SHARE, RECORD_MAX};

use super::{Model, Register, Version, WrittenVersion};

/// Returns the minimum and maximum size over the versions, which may be empty.
fn bounds<'a>(versions: impl Iterator<Item = Option<u64>>, size: impl Fn(u64) -> u64 + 'a) -> (u64, u64) {
    let sizes = versions.map(|version| version.map_or(0, &size));
    let (least, most) = sizes.fold((u64::MAX, 0), |(least, most), size| (least.min(size), most + size));
    (if least == u64::MAX { 0 } else { least }, most)
}

impl Model {
    /// Returns the register of a bucket's settings.
    pub fn set(&mut self, bucket: &'static str) -> &mut Register<BucketSettings> {
        self.settings.get_mut(bucket).expect("buckets are those of the workload")
    }

    /// Returns the minimum and maximum number of bytes, at least [`QUOTA_SHARE`] and at most
    /// [`RECORD_MAX`] for each record, that a bucket may have had since; writes in
    /// flight count towards the maximum. `but`: a key, or an upload and a part, that does not count
    /// towards the minimum.
    pub fn bytes(&self, bucket: &str, since: u64, but: (&str, Option<(u64, u16)>)) -> (u64, u64) {
        let mut least = 0;
        let mut most = 0;
        for ((_, key), register) in self.keys.iter().filter(|((of, _), _)| *of == bucket) {
            let versions = &self.versions;
            let size = |id: u64| versions.get(&id).map_or(0, Version::size);
            least +=
                if *key == but.0 { 0 } else { bounds(register.values(since).copied(), |id| size(id) + QUOTA_SHARE).0 };
            most += bounds(register.values(since).copied(), |id| size(id) + RECORD_MAX as u64).1;
        }
        for (id, upload) in self.uploads.iter().filter(|(_, upload)| upload.bucket == bucket) {
            for (number, part) in &upload.parts {
                let size = |id: u64| self.pieces[&id].content.len;
                let counts = but.1 != Some((*id, *number)) && upload.exists.values(since).all(|there| *there);
                let least_of = bounds(part.values(since).copied(), |id| size(id) + QUOTA_SHARE).0;
                least += if counts { least_of } else { 0 };
                // Earlier attempts may still be kept.
                most += upload.attempts[number].iter().map(|id| size(*id) + RECORD_MAX as u64).sum::<u64>();
            }
            least += if upload.exists.values(since).all(|there| *there) { QUOTA_SHARE } else { 0 };
            most += RECORD_MAX as u64;
        }
        (least, most)
    }

    /// Returns whether a write that began at `since` may have exceeded the quota of a bucket.
    pub fn may_exceed(&self, bucket: &str, since: u64) -> bool {
        let most = self.bytes(bucket, since, ("", None)).1;
        self.settings[bucket].values(since).any(|settings| settings.quota.is_some_and(|quota| most > quota))
    }

    /// Returns whether the quota may have had room for `size` bytes.
    pub fn may_have_room(&self, bucket: &str, since: u64, size: u64, but: (&str, Option<(u64, u16)>)) -> bool {
        let least = self.bytes(bucket, since, but).0 + size + QUOTA_SHARE;
        self.settings[bucket].values(since).any(|settings| settings.quota.is_none_or(|quota| least <= quota))
    }

    /// Begins the deletion of everything that has expired.
    pub fn begin_expiry(&mut self, op: u64, now: u64) {
        self.keys.values_mut().for_each(|register| register.begin(op, None, now));
    }

    /// Ends an expiry: if `done`, everything that had expired at `time` is gone, and everything
    /// else is still there.
    pub fn end_expiry(&mut self, op: u64, time: u64, (since, now): (u64, u64), done: bool) {
        // An expiry leaves out objects whose eviction is in flight.
        let done = done && !self.is_evicting(since);
        let time_of = |id: u64| id + self.clock.range(..=id).next_back().map_or(0, |(_, ahead)| *ahead);
        for ((bucket, _), register) in &mut self.keys {
            let ages: Vec<_> = self.settings[bucket].values(since).map(|settings| settings.expire_ms).collect();
            let due = |id: u64, age: &Option<u64>| age.is_some_and(|age| time_of(id) + age <= time);
            let may_be_due = |id: &Option<u64>| id.is_some_and(|id| ages.iter().any(|age| due(id, age)));
            let must_be_due = |id: &Option<u64>| id.is_none_or(|id| ages.iter().all(|age| due(id, age)));
            let none = !register.values(since).any(may_be_due);
            if none || register.is_newer(since, op, |id| id.is_some() && !may_be_due(id)) {
                register.refuse(op, now);
            } else if done && !register.is_busy(since, op) && register.values(since).all(must_be_due) {
                register.acknowledge(op, now, self.durable);
            } else {
                register.settle(op, now);
            }
        }
    }

    /// Records that a missing object of a ring was dropped: that is possible at any time.
    pub fn vanish(&mut self, bucket: &'static str, key: &'static str, since: u64, now: u64) {
        if self.ring && !self.key(bucket, key).may_be(since, Option::is_none) {
            let op = self.number();
            let durable = self.durable;
            let register = self.key(bucket, key);
            register.begin(op, None, since);
            register.acknowledge(op, now, durable);
        }
    }

    /// Records that a missing upload of a ring was dropped.
    pub fn vanish_upload(&mut self, id: u64, since: u64, now: u64) {
        let op = self.number();
        let durable = self.durable;
        let Some(upload) = self.uploads.get_mut(&id).filter(|_| self.ring) else { return };
        if !upload.exists.may_be(since, |there| !there) {
            upload.exists.begin(op, false, since);
            upload.exists.acknowledge(op, now, durable);
        }
    }

    /// Records that a missing version of a ring was dropped, which is possible unless it is locked.
    pub fn vanish_version(&mut self, version: u64, since: u64, now: u64) {
        let clock_ms = self.history.clock.now_ms;
        let written = self.history.written.get(&version).filter(|_| self.ring);
        let is_free = |written: &WrittenVersion| written.may_be_free(since, clock_ms, false);
        if written.is_some_and(|written| !written.exists.may_be(since, |there| !there) && is_free(written)) {
            let op = self.number();
            let durable = self.durable;
            let exists = &mut self.history.written.get_mut(&version).expect("it was written").exists;
            exists.begin(op, false, since);
            exists.acknowledge(op, now, durable);
        }
    }

    /// Returns the newest object, if it is certain.
    pub fn newest(&self) -> Option<(&'static str, &'static str)> {
        let latest = self.keys.iter().filter_map(|(name, register)| {
            let (began, value) = register.latest()?;
            value.map(|_| (began, *name))
        });
        let (began, name) = latest.max()?;
        let others = self.keys.iter().filter(|(other, _)| **other != name);
        others.map(|(_, register)| register.last_end()).all(|end| end < began).then_some(name)
    }
}
