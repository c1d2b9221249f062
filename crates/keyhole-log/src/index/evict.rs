//! Evictions: versions whose bodies are gone from this store, because another one has them.

use super::Index;
use super::attributes::EvictEntry;
use super::bucket::Bucket;
use super::effect::VersionOf;
use super::entry::{Bodies, ObjectEntry};
use super::location::Location;
use crate::sabotage::{self, Sabotage};
use crate::types::BodyId;

impl Index {
    /// Returns whether the bodies of a version of this bucket can be evicted, and at least one has blocks.
    pub(crate) fn is_evictable(&self, home: &Bucket, entry: &ObjectEntry) -> bool {
        if entry.is_marker() || !entry.sealed() || !entry.at.is_in_file() || home.is_evicted(entry.seq) {
            return false;
        }
        let mut has_blocks = false;
        entry.bodies.as_slice().iter().all(|id| {
            let Some(body) = self.bodies.get(id) else { return false };
            has_blocks |= !body.shares.as_slice().is_empty();
            body.at.is_in_file() && (body.refs == 1 || sabotage::is(Sabotage::EvictShared))
        }) && has_blocks
    }

    /// Returns whether any of these bodies is pinned.
    pub(crate) fn is_pinned(&self, bodies: &[BodyId]) -> bool {
        bodies.iter().any(|body| self.pins.contains_key(body))
    }

    /// Iterates over the evictions: bucket, version, entry.
    pub(crate) fn evictions(&self) -> impl Iterator<Item = (&str, u64, EvictEntry)> {
        self.buckets.values().flat_map(|bucket| {
            bucket.attributes.evictions.iter().map(move |(&version, &entry)| (&*bucket.name, version, entry))
        })
    }

    /// Counts the evicted versions and their plaintext bytes.
    pub(super) fn count_evicted(&self) -> (u64, u64) {
        let versions = self.buckets.values().flat_map(|bucket| {
            let entries = bucket.names_from(b"").flat_map(|name| name.oldest_first());
            entries.filter(|entry| bucket.is_evicted(entry.seq)).map(|entry| entry.size)
        });
        versions.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size))
    }

    pub(super) fn evict_version(&mut self, seq: u64, at: Location, of: &VersionOf) {
        if sabotage::is(Sabotage::ForgetEvictions) && self.replaying.is_some() {
            return;
        }
        self.set_eviction(of.bucket, &of.key.0, of.version, EvictEntry { at, seq });
    }

    /// Evicts a version, if it exists and has no newer record of its eviction.
    pub(super) fn set_eviction(&mut self, bucket: u64, key: &str, version: u64, eviction: EvictEntry) {
        let Some(home) = self.buckets.get_mut(&bucket) else { return };
        let Some(entry) = home.version(key, version).filter(|entry| !entry.is_marker()) else { return };
        let bodies = entry.bodies.clone();
        let size = entry.size;
        if home.eviction_of(version).is_some_and(|newer| newer.seq > eviction.seq) {
            return;
        }
        self.live.add(eviction.at);
        match home.attributes.evictions.insert(version, eviction) {
            Some(old) => self.live.sub(old.at),
            None => {
                self.totals.evicted += 1;
                self.totals.evicted_bytes += size;
            }
        }
        self.evict_bodies(&bodies);
    }

    /// Gives up the records and blocks of bodies. Their references stay.
    fn evict_bodies(&mut self, bodies: &Bodies) {
        for id in bodies.as_slice() {
            let Some(body) = self.bodies.get_mut(id) else { continue };
            let at = std::mem::replace(&mut body.at, Location::EVICTED);
            let shares = std::mem::take(&mut body.shares);
            self.totals.shares -= shares.allocated() as u64;
            self.live.sub(at);
            self.live.sub_shares(&shares);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Outcome;
    use crate::index::effect::{Effect, Put};
    use crate::index::location::{Share, Shares};
    use crate::limits::SEGMENTS_START;
    use crate::types::Etag;
    use crate::version::Lock;
    use crate::wire::payload::{RecordedId, Run};

    const SEGMENT_LEN: u64 = 1 << 20;
    const BUCKET: u64 = 1;
    const BODY: BodyId = BodyId(2);
    const VERSION: u64 = 4;

    fn place(page: u64) -> Location {
        Location::new(SEGMENTS_START + page * 4096, 128)
    }

    fn body() -> Effect {
        let runs = vec![Run { offset: SEGMENTS_START + 3 * SEGMENT_LEN + 4096, generation: 1, len: 100_000 }];
        Effect::Body { id: BODY, relocation: 0, len: 100_000, runs }
    }

    fn put() -> Effect {
        Effect::Put(Put {
            bucket: BUCKET,
            key: "k".into(),
            size: 100_000,
            time_ms: 1,
            etag: Etag { digest: [1; 16], parts: 0 },
            sealed: true,
            bodies: Bodies::One(BODY),
            upload: None,
            id: RecordedId::Null,
            lock: Lock::default(),
        })
    }

    fn eviction() -> Effect {
        Effect::EvictVersion(VersionOf { bucket: BUCKET, key: "k".into(), version: VERSION })
    }

    /// Returns an index of one evicted object.
    fn evicted() -> Index {
        let mut index = Index::replay(SEGMENT_LEN);
        let create = Effect::CreateBucket { name: "b".into(), time_ms: 0, tags: Default::default() };
        for (seq, effect) in [(BUCKET, create), (3, body()), (VERSION, put())] {
            index.apply(seq, place(seq), &effect).unwrap();
        }
        index.replayed();
        let before = index.live.total();
        let home = &index.buckets[&BUCKET];
        assert!(index.is_evictable(home, home.version("k", VERSION).unwrap()));
        index.apply(5, place(5), &eviction()).unwrap();
        // 25 pages of data and a footer; the records of the body and of the eviction are equally long.
        assert_eq!(before - index.live.total(), 26 * 4096);
        index
    }

    fn check(index: &Index, is_evicted: bool) {
        assert_eq!(index.recount(), []);
        assert_eq!(index.body(BODY), is_evicted.then_some(Location::EVICTED));
        let totals = (index.totals.evicted, index.totals.evicted_bytes, index.live.body);
        assert_eq!(totals, if is_evicted { (1, 100_000, 0) } else { (0, 0, 0) });
        assert_eq!(index.evictions().count(), usize::from(is_evicted));
    }

    #[test]
    fn copies_of_body_record_do_not_restore_evicted_body() {
        let mut index = evicted();
        check(&index, true);
        index.apply(3, place(9), &body()).unwrap();
        index.apply(3, place(10), &Effect::Moved(Box::new(body()))).unwrap();
        assert!(!index.relocate(3, place(11), &body()));
        check(&index, true);
        // A repeated or moved record of the eviction.
        index.apply(5, place(12), &eviction()).unwrap();
        index.apply(5, place(13), &Effect::Moved(Box::new(eviction()))).unwrap();
        assert_eq!(index.location(5, &eviction()), Some(place(13)));
        check(&index, true);
        // The record of the object once more.
        index.apply(VERSION, place(14), &put()).unwrap();
        check(&index, true);
        let home = &index.buckets[&BUCKET];
        assert!(!index.is_evictable(home, home.version("k", VERSION).unwrap()));
    }

    #[test]
    fn eviction_ends_with_its_version() {
        let mut index = evicted();
        index.apply(6, place(6), &Effect::Delete { bucket: BUCKET, key: "k".into() }).unwrap();
        check(&index, false);
        index.apply(5, place(7), &eviction()).unwrap();
        check(&index, false);
        let mut index = evicted();
        let Effect::Put(new) = put() else { unreachable!() };
        let new = Effect::Put(Put { bodies: Bodies::from_vec(Vec::new()), ..new });
        index.apply(6, place(6), &new).unwrap();
        check(&index, false);
        let mut index = evicted();
        index.apply(6, place(6), &Effect::DeleteBucket { bucket: BUCKET }).unwrap();
        check(&index, false);
    }

    #[test]
    fn eviction_survives_its_checkpoint() {
        let index = evicted();
        let again = index.captured();
        check(&again, true);
        assert_eq!(again.totals, index.totals);
        assert_eq!(again.location(5, &eviction()), Some(place(5)));
    }

    #[test]
    fn shared_inline_lost_and_plain_bodies_are_not_evictable() {
        let evictable = |index: &Index| {
            let home = &index.buckets[&BUCKET];
            index.is_evictable(home, home.version("k", VERSION).unwrap())
        };
        let with = |body: Option<Shares>, sealed: bool| {
            let mut index = Index::replay(SEGMENT_LEN);
            let create = Effect::CreateBucket { name: "b".into(), time_ms: 0, tags: Default::default() };
            index.apply(BUCKET, place(1), &create).unwrap();
            if let Some(shares) = body {
                index.add_body(BODY, place(3), shares);
            }
            let Effect::Put(put) = put() else { unreachable!() };
            index.apply(VERSION, place(4), &Effect::Put(Put { sealed, ..put })).unwrap();
            index
        };
        let blocks = || Some(Shares::from_vec(vec![Share { segment: 3, pages: 2 }]));
        assert!(evictable(&with(blocks(), true)));
        assert!(!evictable(&with(blocks(), false)), "a plain object");
        assert!(!evictable(&with(Some(Shares::None), true)), "an inline body");
        assert!(!evictable(&with(None, true)), "a lost body");
        let mut shared = with(blocks(), true);
        let Effect::Put(copy) = put() else { unreachable!() };
        shared.apply(9, place(9), &Effect::Put(Put { key: "copy".into(), ..copy })).unwrap();
        assert!(!evictable(&shared), "a shared body");
        shared.apply(10, place(10), &Effect::Delete { bucket: BUCKET, key: "copy".into() }).unwrap();
        assert!(evictable(&shared));
    }

    #[test]
    fn bodies_in_eviction_are_not_shared() {
        let mut index = evicted();
        assert!(matches!(index.check_shareable(&[BODY]), Err(crate::Error::Evicted)));
        index.reserve_name(BUCKET, "other", 8, Outcome::Absent);
        index.reserve_eviction(BUCKET, 77, BodyId(70), 8);
        assert!(matches!(index.check_shareable(&[BodyId(70), BodyId(71)]), Err(crate::Error::Conflict)));
        assert!(index.check_shareable(&[BodyId(72)]).is_ok() && index.has_claims());
        index.release(8, &Effect::EvictVersion(VersionOf { bucket: BUCKET, key: "other".into(), version: 77 }));
        assert!(index.check_shareable(&[BodyId(70)]).is_ok() && !index.has_claims());
    }
}
