//! Evictions of objects and versions.

use keyhole_log::Error;
use keyhole_log::limits::INLINE_MAX;

use super::Client;
use crate::content::Content;
use crate::model::{BUCKETS, KEYS};

/// Candidates among which one is chosen.
const CANDIDATES: usize = 4;

impl Client {
    /// Evicts an object of a bucket without versioning, usually one that can be.
    pub(super) async fn evict(&mut self) {
        let (mut bucket, mut key) = self.name();
        if self.random.chance(80) {
            let found =
                self.log.eviction_candidates(CANDIDATES, u64::MAX, |bucket, _, _| BUCKETS.contains(&bucket)).await;
            if !found.is_empty() {
                let candidate = self.random.pick(&found);
                bucket = BUCKETS.into_iter().find(|name| *name == candidate.bucket).expect("a bucket of the workload");
                key = KEYS.into_iter().find(|name| *name == candidate.key).expect("a key of the workload");
            }
        }
        let Some((object, version)) = self.look(bucket, key).await else { return };
        let contents = self.world.model.borrow().versions[&version].contents();
        let number = object.seq;
        let is_evictable = object.sealed && !object.is_evicted;
        drop(object);
        self.evict_number((bucket, key), number, is_evictable, &contents).await;
    }

    /// Evicts a version of a bucket with versioning.
    pub(super) async fn evict_version(&mut self) {
        let Some(version) = self.any_version() else { return };
        let Some((object, content)) = self.look_version(version).await else { return };
        let (name, _) = self.id_of(version);
        let number = object.seq;
        let is_evictable = object.sealed && !object.is_evicted;
        drop(object);
        self.evict_number(name, number, is_evictable, &[content]).await;
    }

    async fn evict_number(
        &mut self,
        (bucket, key): (&'static str, &'static str),
        number: u64,
        is_evictable: bool,
        contents: &[Content],
    ) {
        let Some(&first) = contents.first() else { return };
        let op = self.world.model.borrow_mut().number();
        let since = self.since();
        self.world.model.borrow_mut().eviction(first).begin(op, true, since.tick);
        let log = self.log.clone();
        let answer = self.patiently(log.evict(bucket, key, number, op)).await;
        self.say(|| format!("evict {bucket}/{key}, number {number} with {contents:?}: {answer:?}"));
        let Some((answer, judged)) = self.known(answer, &since) else { return };
        let now = self.now();
        let mut model = self.world.model.borrow_mut();
        let durable = model.durable;
        let register = model.eviction(first);
        match answer {
            Ok(true) => {
                self.acknowledged(&since);
                let has_blocks = contents.iter().any(|content| content.len > INLINE_MAX as u64);
                assert!(is_evictable && has_blocks, "{bucket}/{key} cannot be evicted, and was");
                register.acknowledge(op, now, durable);
            }
            Ok(false) => register.refuse(op, now),
            Err(error) => {
                register.refuse(op, now);
                let legal = matches!(error, Error::Conflict | Error::NoSuchBucket) || judged.is_some();
                assert!(legal, "evict {bucket}/{key}: {error}");
            }
        }
    }
}
