//! A mirror that follows a busy store by its changes and removals.

use std::cell::Cell;
use std::collections::BTreeMap;

use futures_util::future::join3;

use keyhole_log::{
    BucketSettings, Changed, Changes, Condition, Error, Lock, Log, PutObject, Removed, VersionId, Versioning,
};
use keyhole_sim::disk::SimDisk;
use keyhole_sim::random::Random;

use crate::history::object_of;
use crate::support::new_medium;
use crate::support::store::{CAPACITY, Store, format, options};

const BUCKETS: [&str; 3] = ["plain", "versioned", "locked"];

/// The numbers of the changes of versions and buckets, each with the number of the item itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Mirror {
    versions: BTreeMap<(String, String, VersionId), (u64, u64)>,
    buckets: BTreeMap<String, u64>,
}

impl Mirror {
    fn add(&mut self, changes: Changes) {
        for change in changes.found {
            match change.what {
                Changed::Bucket => drop(self.buckets.insert(change.bucket, change.number)),
                Changed::Version(info) => {
                    self.versions.insert((change.bucket, info.key, info.version), (change.number, info.seq));
                }
            }
        }
    }

    fn remove(&mut self, removed: Removed) {
        let Removed { bucket, key, version, number } = removed;
        let Some(key) = key else {
            if self.buckets.get(&bucket).is_some_and(|known| *known <= number) {
                self.buckets.remove(&bucket);
            }
            return;
        };
        let name = (bucket, key, version);
        if self.versions.get(&name).is_some_and(|(_, seq)| *seq <= number) {
            self.versions.remove(&name);
        }
    }
}

/// Performs a random write. Returns its error.
async fn write(log: &Log<SimDisk>, random: &mut Random, step: u64) -> Result<(), Error> {
    let bucket = BUCKETS[random.below(3) as usize];
    let key = format!("k{}", random.below(4));
    let all = log.versions_in_order(bucket, None, 100).unwrap_or_default();
    let some = all.get(random.below(all.len().max(1) as u64) as usize);
    match (random.below(16), some) {
        (0, _) if bucket == "locked" => log.create_locked_bucket(bucket, step, b"").await.map(drop),
        (0, _) => log.create_bucket(bucket, step).await.map(drop),
        (1, _) => {
            let change = |settings: &mut BucketSettings| {
                settings.quota = Some((1 << 40) + step);
                if bucket == "versioned" {
                    let is_enabled = settings.versioning == Versioning::Enabled;
                    settings.versioning = if is_enabled { Versioning::Suspended } else { Versioning::Enabled };
                }
                Ok::<_, Error>(())
            };
            log.change_bucket(bucket, step, change).await
        }
        (2..=3, Some(info)) => {
            log.set_hold(bucket, &info.key, Some(info.version), step.is_multiple_of(2), step).await.map(drop)
        }
        (4..=5, Some(info)) => {
            let found = log.version(bucket, &info.key, Some(info.version)).await?;
            let Some((object, _)) = found.into_object() else { return Ok(()) };
            log.set_tags(bucket, &info.key, object, step.to_le_bytes().to_vec()).await
        }
        (6..=9, Some(info)) => log.delete_version(bucket, &info.key, info.version, step, true).await.map(drop),
        (10, _) => log.delete_object(bucket, &key, step, Condition::None).await.map(drop),
        (11, _) => log.delete_bucket(bucket, step).await,
        _ => {
            let object = object_of(log, &key, step, 50).await?;
            log.put_version(PutObject { bucket: bucket.into(), ..object }, Lock::default()).await.map(drop)
        }
    }
}

fn check_refusal(error: &Error) {
    let is_expected = matches!(
        error,
        Error::Conflict
            | Error::Locked
            | Error::NoSuchBucket
            | Error::BucketNotEmpty
            | Error::NoSuchVersion
            | Error::NoSuchKey
            | Error::IsMarker
            | Error::NotLockable
    );
    assert!(is_expected, "{error}");
}

/// The mirror has exactly the versions and buckets that remain, each with its latest number.
#[test]
fn mirror_of_changes_and_removals_equals_the_store() {
    let mut remaining = 0;
    for seed in 0..20 {
        println!("seed {seed}");
        let medium = new_medium(seed);
        medium.update_faults(|faults| faults.slowness = 3);
        format(&medium, CAPACITY).unwrap();
        let mut store = Store::maintained(&medium, options(2)).unwrap();
        let logs = store.logs.clone();
        let log = &logs[0];
        log.store().track_removals(10_000);
        let writing = Cell::new(2);
        let newest = Cell::new(u64::MAX);
        let work = async |log: &Log<SimDisk>, seed: u64| {
            let mut random = Random::new(seed);
            for step in 0..150 {
                if let Err(error) = write(log, &mut random, step).await {
                    check_refusal(&error);
                }
            }
            writing.set(writing.get() - 1);
            if writing.get() == 0 {
                log.create_bucket("last", 1).await.unwrap();
                let object = object_of(log, "k", 1, 10).await.unwrap();
                log.put_object(PutObject { bucket: "last".into(), ..object }).await.unwrap();
                let last = log.version_info("last", "k", None).unwrap();
                newest.set(last.map_or(u64::MAX, |info| info.seq));
            }
        };
        let follow = async {
            let mut random = Random::new(seed);
            let mut mirror = Mirror::default();
            let mut after = 0;
            let mut passes = 0;
            loop {
                // A checkpoint that is being written holds the settled number back.
                let is_last = writing.get() == 0 && log.store().settled() >= newest.get();
                let limit = 1 + random.below(6) as usize;
                let changes = log.changes(after, limit, |_, _| true, |_| true).await;
                assert!(changes.found.len() <= limit && changes.found.iter().all(|change| change.number > after));
                let end = if changes.has_more { changes.found[limit - 1].number } else { changes.settled };
                after = after.max(end);
                let is_end = is_last && !changes.has_more;
                mirror.add(changes);
                let removals = log.store().take_removals();
                assert!(removals.is_complete);
                removals.removed.into_iter().for_each(|removed| mirror.remove(removed));
                passes += 1;
                if is_end {
                    assert!(passes > 20, "{passes}");
                    return mirror;
                }
                keyhole_sim::executor::Turn::once().await;
            }
        };
        let (mirror, (), ()) = store.run(join3(follow, work(&logs[0], 2 * seed), work(&logs[1], 2 * seed + 1)));
        let mut expected = Mirror::default();
        expected.add(store.run(log.changes(0, usize::MAX, |_, _| true, |_| true)));
        assert_eq!(mirror, expected);
        // The full pass itself has every version.
        let listed = log.buckets().into_iter().flat_map(|bucket| {
            let versions = log.versions_in_order(&bucket.name, None, usize::MAX).unwrap();
            versions.into_iter().map(move |info| ((bucket.name.clone(), info.key, info.version), info.seq))
        });
        let listed: BTreeMap<_, _> = listed.collect();
        remaining += listed.len();
        let found = expected.versions.iter().map(|(name, (number, seq))| {
            assert!(number >= seq);
            (name.clone(), *seq)
        });
        assert!(listed.into_iter().eq(found));
        assert!(log.buckets().iter().map(|bucket| &bucket.name).eq(expected.buckets.keys()));
    }
    assert!(remaining > 100, "{remaining}");
}
