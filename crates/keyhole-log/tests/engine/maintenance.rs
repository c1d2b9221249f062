//! Checkpoints and the segment cleaner.

use std::collections::BTreeMap;
use std::sync::Arc;

use keyhole_log::limits::{BLOCK_DATA, LIFECYCLE_MAX, QUOTA_SHARE, SEGMENTS_START};
use keyhole_log::{BucketSettings, Condition, Error, Log, OpenOptions, SegmentState};
use keyhole_sim::disk::{Medium, SimDisk};
use keyhole_sim::random::Random;

use crate::support::store::{CAPACITY, SEGMENT_LEN, Store, format, get, keys, options, put};
use crate::support::{LOST, new_medium};

fn fresh(seed: u64, segments: u64, options: OpenOptions) -> (Arc<Medium>, Store) {
    let medium = new_medium(seed);
    format(&medium, SEGMENTS_START + segments * SEGMENT_LEN).unwrap();
    let mut store = Store::maintained(&medium, options).unwrap();
    let log = store.log();
    store.run(async { log.create_bucket("bucket", 1).await.unwrap() });
    drop(log);
    (medium, store)
}

/// Compares the contents of the store with the model.
fn check(store: &mut Store, model: &BTreeMap<String, u64>) {
    let log = store.log();
    assert_eq!(keys(&log), model.keys().cloned().collect::<Vec<_>>());
    store.run(async {
        for (key, seed) in model {
            assert_eq!(get(&log, key).await, Some(*seed), "{key}");
        }
    });
}

#[test]
fn recovery_starts_from_newest_checkpoint() {
    for crash in [false, true] {
        let (medium, mut store) = fresh(1, 31, options(2));
        let mut model = BTreeMap::new();
        let log = store.log();
        store.run(async {
            for i in 0..50u64 {
                put(&log, &format!("k{i:03}"), i, (i as usize % 7) * 30_000).await.unwrap();
                model.insert(format!("k{i:03}"), i);
            }
            log.checkpoint().await.unwrap();
            for i in (0..50u64).step_by(3) {
                assert!(log.delete_object("bucket", &format!("k{i:03}"), 1, Condition::None).await.unwrap());
                model.remove(&format!("k{i:03}"));
            }
            put(&log, "k001", 99, 70_000).await.unwrap();
            model.insert("k001".into(), 99);
        });
        let before = log.store().usage();
        drop(log);
        if crash {
            drop(store);
        } else {
            store.close();
        }
        medium.crash(LOST);
        let mut store = Store::open(&medium, 1);
        assert!(store.recovery.damaged.is_empty(), "{:?}", store.recovery);
        // Only records after the checkpoint are replayed; an orderly shutdown writes one more.
        let records = store.recovery.records;
        assert!(if crash { (18..40).contains(&records) } else { records < 10 }, "{records}");
        check(&mut store, &model);
        let usage = store.log().store().usage();
        assert_eq!((usage.objects, usage.bodies, usage.buckets), (before.objects, before.bodies, before.buckets));
    }
}

/// Overwrites many times in a store with 80 % live data: space is reclaimed, nothing is lost, and
/// write amplification stays bounded.
#[test]
fn deleted_space_is_reclaimed() {
    for (len, count) in [(60_000usize, 560u64), (BLOCK_DATA - 5000, 16), (300_000, 90)] {
        println!("{count} objects of {len} bytes");
        let (medium, mut store) = fresh(3, 31, options(1));
        let mut model = BTreeMap::new();
        let mut random = Random::new(9);
        let log = store.log();
        for round in 0..4u64 {
            store.run(async {
                for step in 0..count {
                    let key = if round == 0 { step } else { random.below(count) };
                    let seed = round * count + step;
                    put(&log, &format!("k{key:03}"), seed, len).await.unwrap();
                    model.insert(format!("k{key:03}"), seed);
                }
            });
            check(&mut store, &model);
        }
        let stats = log.store().stats();
        assert!(stats.cleaner.segments_freed > 10, "{:?}", stats.cleaner);
        assert!(stats.usage.allocated <= stats.usage.capacity);
        drop((log, store));
        medium.crash(LOST);
        let mut store = Store::maintained(&medium, options(2)).unwrap();
        assert!(store.recovery.damaged.is_empty(), "{:?}", store.recovery);
        check(&mut store, &model);
        store.close();
        let mut store = Store::open(&medium, 1);
        assert!(store.recovery.damaged.is_empty(), "{:?}", store.recovery);
        check(&mut store, &model);
    }
}

/// Fills the store, deletes a random half of it, and fills it again.
#[test]
fn full_store_is_emptied_and_filled_again() {
    for len in [60_000usize, 400_000] {
        let (_medium, mut store) = fresh(4, 31, options(1));
        let mut model = BTreeMap::new();
        let mut random = Random::new(5);
        let mut next = 0u64;
        let mut first = 0;
        let log = store.log();
        for round in 0..5 {
            store.run(async {
                loop {
                    let key = format!("k{next:05}");
                    match put(&log, &key, next, len).await {
                        Ok(()) => model.insert(key, next),
                        Err(Error::Full) => break,
                        Err(error) => panic!("{error}"),
                    };
                    next += 1;
                }
            });
            let stats = log.store().summary();
            assert!(stats.full && !stats.ring && !stats.poisoned && stats.segments.is_empty(), "{stats:?}");
            assert!(stats.usage.live >= stats.usage.live_max / 10 * 9, "{:?}", stats.usage);
            if round == 0 {
                first = model.len();
            }
            assert!(model.len() * 100 >= first * 85, "round {round}: {} of {first}", model.len());
            check(&mut store, &model);
            store.run(async {
                let names: Vec<String> = model.keys().cloned().collect();
                for name in names {
                    if random.chance(50) {
                        assert!(log.delete_object("bucket", &name, 1, Condition::None).await.unwrap());
                        model.remove(&name);
                    }
                }
            });
        }
    }
}

#[test]
fn compaction_discards_freed_space() {
    let (medium, mut store) = fresh(5, 31, options(1));
    let log = store.log();
    let mut model = BTreeMap::new();
    store.run(async {
        for i in 0..400u64 {
            put(&log, &format!("k{i:03}"), i, 60_000).await.unwrap();
        }
        for i in 0..400u64 {
            if i % 10 == 0 {
                model.insert(format!("k{i:03}"), i);
            } else {
                log.delete_object("bucket", &format!("k{i:03}"), 1, Condition::None).await.unwrap();
            }
        }
        let compacted = log.compact().await.unwrap();
        assert!(compacted.segments_freed >= 8 && compacted.bytes_moved >= 30 * 60_000, "{compacted:?}");
    });
    let stats = log.store().stats();
    let closed = stats.segments.iter().filter(|segment| segment.state == SegmentState::Closed).count();
    assert!(closed <= 3, "{:?}", stats.segments);
    let counts = stats.segment_counts;
    let all = counts.blank + counts.open + counts.closed + counts.condemned + counts.damaged;
    assert_eq!((counts.closed, all), (closed as u64, stats.segments.len() as u64), "{counts:?}");
    assert!(!stats.full && stats.syncs.syncs > 0 && stats.syncs.durable_writes > 0, "{:?}", stats.syncs);
    assert!(stats.cleaner.segments_discarded > 0, "{:?}", stats.cleaner);
    check(&mut store, &model);
    drop((log, store));
    medium.crash(LOST);
    check(&mut Store::open(&medium, 1), &model);
}

/// Readers go on undisturbed while segments are moved and freed.
#[test]
fn readers_keep_their_data_while_segments_are_cleaned() {
    use crate::support::store::{bytes, read};
    let (_medium, mut store) = fresh(6, 31, options(1));
    let log = store.log();
    store.run(async {
        put(&log, "held", 2, 3 << 20).await.unwrap();
        let held = log.object("bucket", "held").await.unwrap().unwrap();
        let body = log.body(&held.parts[0]).await.unwrap();
        put(&log, "held", 4, 100).await.unwrap();
        for i in 0..60u64 {
            put(&log, &format!("k{}", i % 5), i, 1 << 20).await.unwrap();
        }
        log.compact().await.unwrap();
        let (tags, buf) = log.read_block(&body, 1, 0..64, keyhole_log::Disk::buffer(log.disk().as_ref())).await;
        tags.unwrap();
        assert_eq!(buf.as_ref()[..BLOCK_DATA], bytes(2, 3 << 20)[BLOCK_DATA..2 * BLOCK_DATA]);
        assert_eq!(read(&log, &held).await.unwrap(), bytes(2, 3 << 20));
    });
}

/// Returns the offset of the end record that a field of the superblock points to: units of 8 bytes
/// above 17 bits of length.
fn checkpoint_end(medium: &Arc<Medium>, at: usize) -> usize {
    let raw = u64::from_le_bytes(medium.content()[at..at + 8].try_into().unwrap());
    (raw >> 17) as usize * 8
}

/// With the newest checkpoint damaged, recovery uses the previous one and reports the damage.
#[test]
fn damaged_checkpoint_is_replaced_by_the_previous_one() {
    let (medium, mut store) = fresh(7, 31, options(1));
    let log = store.log();
    let mut model = BTreeMap::new();
    store.run(async {
        for i in 0..20u64 {
            put(&log, &format!("k{i:03}"), i, 1000).await.unwrap();
            model.insert(format!("k{i:03}"), i);
            if i % 5 == 4 {
                log.checkpoint().await.unwrap();
            }
        }
        log.delete_object("bucket", "k003", 1, Condition::None).await.unwrap();
        model.remove("k003");
    });
    drop((log, store));
    medium.crash(LOST);
    let newest = checkpoint_end(&medium, 64);
    let before = checkpoint_end(&medium, 72);
    assert!(newest > before && before > 0);
    medium.edit(|bytes| bytes[newest + 90] ^= 1);
    let mut store = Store::maintained(&medium, options(1)).unwrap();
    assert!(store.recovery.damaged.iter().any(|damage| damage.what == "a checkpoint"), "{:?}", store.recovery);
    check(&mut store, &model);
    let log = store.log();
    store.run(async { log.checkpoint().await.unwrap() });
    drop(log);
    store.close();
    let mut store = Store::open(&medium, 1);
    assert!(store.recovery.damaged.is_empty(), "{:?}", store.recovery);
    check(&mut store, &model);
    drop(store);

    // With both damaged, opening fails unless a rebuild is requested.
    medium.crash(LOST);
    for at in [64, 72] {
        let end = checkpoint_end(&medium, at);
        medium.edit(|bytes| bytes[end + 90] ^= 1);
    }
    let refused = Store::open_with(&medium, options(1)).err().unwrap();
    assert!(matches!(&refused, Error::Damaged(_)) && refused.to_string().contains("--repair"), "{refused}");
    let mut store = Store::open_with(&medium, OpenOptions { rebuild: true, ..options(1) }).unwrap();
    check(&mut store, &model);
}

/// Segments that were freed by a checkpoint that is damaged now are blank, not condemned again: the
/// next checkpoints may need them.
#[test]
fn damaged_checkpoint_leaves_freed_segments_blank() {
    let count = |log: &Log<SimDisk>, state| log.store().stats().segments.iter().filter(|s| s.state == state).count();
    let (medium, mut store) = fresh(7, 31, options(1));
    let log = store.log();
    let mut model = BTreeMap::new();
    store.run(async {
        for i in 0..8u64 {
            put(&log, &format!("k{i:03}"), i, 700_000).await.unwrap();
        }
        for i in 0..7u64 {
            assert!(log.delete_object("bucket", &format!("k{i:03}"), 1, Condition::None).await.unwrap());
        }
        model.insert("k007".into(), 7);
        log.compact().await.unwrap();
    });
    let blank = count(&log, SegmentState::Blank);
    assert!(blank > 3 && count(&log, SegmentState::Condemned) == 0, "{blank} blank segments");
    drop((log, store));
    medium.crash(LOST);
    let newest = checkpoint_end(&medium, 64);
    medium.edit(|bytes| bytes[newest + 90] ^= 1);
    let mut store = Store::open(&medium, 1);
    assert!(store.recovery.damaged.iter().any(|damage| damage.what == "a checkpoint"), "{:?}", store.recovery);
    let log = store.log();
    assert_eq!((count(&log, SegmentState::Blank), count(&log, SegmentState::Condemned)), (blank, 0));
    drop(log);
    check(&mut store, &model);
}

#[test]
fn put_over_quota_is_refused() {
    let (medium, mut store) = fresh(8, 31, options(1));
    let log = store.log();
    store.run(async {
        let quota = |quota| BucketSettings { quota, ..BucketSettings::default() };
        // Two objects, each with its share.
        let max = 10_000 + 2 * QUOTA_SHARE;
        log.set_bucket("bucket", quota(Some(max)), 1).await.unwrap();
        put(&log, "a", 2, 6000).await.unwrap();
        assert!(matches!(put(&log, "b", 2, 4001).await, Err(Error::QuotaExceeded)));
        put(&log, "b", 2, 4000).await.unwrap();
        assert!(matches!(put(&log, "c", 2, 1).await, Err(Error::QuotaExceeded)));
        assert!(matches!(put(&log, "c", 2, 0).await, Err(Error::QuotaExceeded)), "an empty object counts");
        put(&log, "a", 4, 6000).await.unwrap();
        log.delete_object("bucket", "b", 1, Condition::None).await.unwrap();
        put(&log, "d", 2, 4000).await.unwrap();
        assert_eq!(log.bucket_settings("bucket"), Some((quota(Some(max)), 10_000)));
        log.create_bucket("another", 1).await.unwrap();
        let (buckets, more) = log.store().bucket_usage(10);
        let shown: Vec<_> = buckets.iter().map(|bucket| (&bucket.name[..], bucket.bytes, bucket.quota)).collect();
        assert_eq!((&shown[..], more), (&[("another", 0, None), ("bucket", 10_000, Some(max))][..], 0));
        assert_eq!(buckets.iter().map(|bucket| bucket.charged).collect::<Vec<_>>(), [0, max]);
        assert_eq!((log.store().bucket_usage(1).1, log.store().bucket_usage(0)), (1, (Vec::new(), 2)));
        log.checkpoint().await.unwrap();
    });
    drop((log, store));
    medium.crash(LOST);
    let mut store = Store::maintained(&medium, options(1)).unwrap();
    let log = store.log();
    store.run(async {
        assert!(matches!(put(&log, "e", 2, 1).await, Err(Error::QuotaExceeded)));
        log.set_bucket("bucket", BucketSettings::default(), 1).await.unwrap();
        put(&log, "e", 2, 100_000).await.unwrap();
        assert!(matches!(log.set_bucket("none", BucketSettings::default(), 1).await, Err(Error::NoSuchBucket)));
    });
}

/// Two concurrent changes: none is lost, and one gets a conflict.
#[test]
fn concurrent_change_of_settings_is_a_conflict() {
    let (_medium, mut store) = fresh(12, 31, options(1));
    let log = store.log();
    store.run(async {
        let quota = log.change_bucket("bucket", 1, |settings| {
            settings.quota = Some(10_000);
            Ok::<(), Error>(())
        });
        let policy = || {
            log.change_bucket("bucket", 1, |settings| {
                settings.policy = b"policy".to_vec();
                Ok::<(), Error>(())
            })
        };
        let (quota, conflict) = futures_util::future::join(quota, policy()).await;
        quota.unwrap();
        assert!(matches!(conflict, Err(Error::Conflict)), "{conflict:?}");
        policy().await.unwrap();
        let both = BucketSettings { quota: Some(10_000), policy: b"policy".to_vec(), ..BucketSettings::default() };
        assert_eq!(log.bucket_settings("bucket").unwrap().0, both);
        // A refused change has no effect and blocks no other.
        let refused = log.change_bucket("bucket", 1, |settings| {
            settings.quota = None;
            Err(Error::Full)
        });
        assert!(matches!(refused.await, Err(Error::Full)));
        let long = log.change_bucket("bucket", 1, |settings| {
            settings.policy = vec![0; keyhole_log::limits::POLICY_MAX + 1];
            Ok::<(), Error>(())
        });
        assert!(matches!(long.await, Err(Error::TooLarge(_))));
        assert!(matches!(log.change_bucket("none", 1, |_| Ok::<(), Error>(())).await, Err(Error::NoSuchBucket)));
        assert_eq!(log.bucket_settings("bucket").unwrap().0, both);
        policy().await.unwrap();
        // Replacing all settings does not conflict.
        let set = log.set_bucket("bucket", BucketSettings::default(), 1);
        let (set, other) = futures_util::future::join(set, log.set_bucket("bucket", both.clone(), 1)).await;
        assert!(set.is_ok() && other.is_ok() && log.bucket_settings("bucket").unwrap().0 == both);
        policy().await.unwrap();
    });
}

/// The seed of an object is its time.
#[test]
fn expired_objects_are_deleted() {
    let (_medium, mut store) = fresh(9, 31, options(1));
    let log = store.log();
    store.run(async {
        for i in 0..2500u64 {
            put(&log, &format!("k{i:04}"), i, 10).await.unwrap();
        }
        assert_eq!(log.expire(u64::MAX).await.unwrap(), 0, "nothing is set");
        log.set_bucket("bucket", BucketSettings { expire_ms: Some(500), ..BucketSettings::default() }, 1)
            .await
            .unwrap();
        assert_eq!(log.expire(499).await.unwrap(), 0);
        assert_eq!(log.expire(500).await.unwrap(), 1);
        assert_eq!(log.expire(2000).await.unwrap(), 1500);
        assert_eq!(keys(&log).first().unwrap(), "k1501");
        assert_eq!(log.expire(9000).await.unwrap(), 999);
        assert!(keys(&log).is_empty());
    });
}

/// Expiry by rules on prefix and time, which are opaque to the log. The seed
/// of an object is its time.
#[test]
fn objects_and_uploads_due_by_rules_are_deleted() {
    let (medium, mut store) = fresh(13, 31, options(1));
    let log = store.log();
    let lifecycle: Arc<[u8]> = vec![7; LIFECYCLE_MAX].into();
    let rules = |settings: &BucketSettings| {
        let prefix = if settings.lifecycle.is_empty() { None } else { Some("old/") };
        prefix.map(|prefix| move |key: &str, time_ms: u64| key.starts_with(prefix) && time_ms < 2000)
    };
    let object_rules = |settings: &BucketSettings| {
        rules(settings).map(|rule| move |key: &str, time_ms: u64, _: u64| rule(key, time_ms))
    };
    store.run(async {
        log.create_bucket("other", 1).await.unwrap();
        for i in 0..2500u64 {
            put(&log, &format!("old/{i:04}"), i, 10).await.unwrap();
            put(&log, &format!("{}/{i}", if i % 2 == 0 { "new" } else { "older" }), i, 10).await.unwrap();
        }
        let create = |key: &str, n: u64| keyhole_log::CreateUpload {
            bucket: "bucket".to_owned(),
            key: key.to_owned(),
            id: u128::from(n).to_le_bytes(),
            head: Vec::new(),
            tags: Vec::new(),
            sealed: false,
            time_ms: n,
            declared: None,
        };
        for i in 0..1200 {
            log.create_upload(create("old/upload", 1000 + i)).await.unwrap();
        }
        log.create_upload(create("new/upload", 1)).await.unwrap();
        assert_eq!((log.expire_by(9, object_rules).await.unwrap(), log.abort_by(9, rules).await.unwrap()), (0, 0));
        assert_eq!(log.newest(|settings| !settings.lifecycle.is_empty()).await, None);
        let set = |lifecycle: Arc<[u8]>| {
            log.change_bucket("bucket", 1, |settings| {
                settings.lifecycle = lifecycle;
                Ok::<(), Error>(())
            })
        };
        assert!(matches!(set(vec![7; LIFECYCLE_MAX + 1].into()).await, Err(Error::TooLarge(_))));
        set(lifecycle.clone()).await.unwrap();
        log.checkpoint().await.unwrap();
    });
    drop((log, store));
    medium.crash(LOST);
    let mut store = Store::maintained(&medium, options(1)).unwrap();
    let log = store.log();
    store.run(async {
        assert_eq!(log.bucket_settings("bucket").unwrap().0.lifecycle, lifecycle);
        let newest = log.newest(|settings| !settings.lifecycle.is_empty()).await;
        assert_eq!(newest, Some((2499, "bucket".to_owned())));
        assert_eq!(
            (log.expire_by(9, object_rules).await.unwrap(), log.abort_by(9, rules).await.unwrap()),
            (2000, 1000)
        );
        assert_eq!((log.expire_by(9, object_rules).await.unwrap(), log.abort_by(9, rules).await.unwrap()), (0, 0));
        let left = keys(&log);
        assert!(left.len() == 3000 && left.iter().filter(|key| key.starts_with("old/")).min().unwrap() == "old/2000");
        for (key, count) in [("old/upload", 200), ("new/upload", 1)] {
            let list = keyhole_log::ListUploads { prefix: key.to_owned(), limit: 1000, ..Default::default() };
            assert_eq!(log.list_uploads("bucket", &list).unwrap().entries.len(), count, "{key}");
        }
    });
}

/// In ring mode the store is never full: the oldest objects are dropped.
#[test]
fn ring_drops_the_oldest_objects() {
    for len in [50_000, 900_000] {
        let (_medium, mut store) = fresh(10, 31, OpenOptions { ring: true, ..options(1) });
        let log = store.log();
        store.run(async {
            let count = 300_000_000 / len as u64;
            for i in 0..count {
                put(&log, &format!("k{i:05}"), i, len).await.unwrap();
            }
            let left = keys(&log);
            // The newest objects remain, without a gap.
            assert_eq!(left.last(), Some(&format!("k{:05}", count - 1)));
            let first: u64 = left[0][1..].parse().unwrap();
            assert_eq!(left.len() as u64, count - first, "{} to {}", left[0], count - 1);
            assert!(left.len() as u64 * len as u64 > CAPACITY / 3, "{} of {len}", left.len());
            for key in &left {
                assert!(get(&log, key).await.is_some());
            }
        });
    }
}
