//! Retention, legal holds, their clock, and the version of the format that has them.

use std::sync::Arc;

use keyhole_log::limits::SUPERBLOCK_AT;
use keyhole_log::{
    BucketLock, BucketSettings, Condition, CreateUpload, DefaultRetention, Deletion, Error, Lock, Log,
    NoncurrentVersion, OpenOptions, Retention, RetentionMode, RetentionPeriod, VersionId, Versioning,
};
use keyhole_sim::disk::{Medium, SimDisk};

use crate::history::{everywhere, get_version, object_of, put_version, set_versioning, versions};
use crate::support::store::{CAPACITY, Store, format, keys, options, put};
use crate::support::{CRASHES, LOST, new_medium};

fn retention(mode: RetentionMode, until_ms: u64) -> Option<Retention> {
    Some(Retention { mode, until_ms })
}

fn compliance(until_ms: u64) -> Lock {
    Lock { retention: retention(RetentionMode::Compliance, until_ms), hold: false }
}

const HOLD: Lock = Lock { retention: None, hold: true };

async fn put_locked(log: &Log<SimDisk>, key: &str, seed: u64, lock: Lock) -> Result<VersionId, Error> {
    log.put_version(object_of(log, key, seed, 100).await?, lock).await.map(|stored| stored.version)
}

/// Creates a maintained store with a bucket that has object lock.
fn locked() -> (Arc<Medium>, Store) {
    let medium = new_medium(1);
    format(&medium, CAPACITY).unwrap();
    let mut store = Store::maintained(&medium, options(1)).unwrap();
    let log = store.log();
    store.run(async { assert!(log.create_locked_bucket("bucket", 1, b"tags").await.unwrap()) });
    (medium, store)
}

fn superblock_versions(medium: &Arc<Medium>) -> [u8; 2] {
    let bytes = medium.content();
    SUPERBLOCK_AT.map(|at| bytes[at as usize + 8])
}

#[test]
fn locked_version_outlives_every_request() {
    let (medium, mut store) = locked();
    let log = store.log();
    log.store().advance_lock_clock(1000);
    let [kept, held] = store.run(async {
        let kept = put_locked(&log, "k", 1, compliance(2000)).await.unwrap();
        let held = put_locked(&log, "k", 2, HOLD).await.unwrap();
        put_version(&log, "k", 3, 10).await.unwrap();
        log.delete_object("bucket", "k", 4, Condition::None).await.unwrap();
        // The time of the request is that of the wall clock, which counts for nothing.
        for version in [kept, held] {
            let deleted = log.delete_version("bucket", "k", version, u64::MAX, true).await;
            assert!(matches!(deleted, Err(Error::Locked)), "{deleted:?}");
        }
        let every = |_: &BucketSettings| Some(|_: &NoncurrentVersion<'_>| true);
        assert_eq!(log.expire_noncurrent_by(u64::MAX, every).await.unwrap(), 1, "the one without a lock");
        let shorter = retention(RetentionMode::Compliance, 1999);
        for (retention, bypass) in [(None, true), (shorter, true), (retention(RetentionMode::Governance, 9000), true)] {
            let set = log.set_retention("bucket", "k", Some(kept), retention, bypass, 1).await;
            assert!(matches!(set, Err(Error::Locked)), "{retention:?}: {set:?}");
        }
        assert!(matches!(log.delete_bucket("bucket", 1).await, Err(Error::BucketNotEmpty)));
        let suspended = set_versioning(&log, Versioning::Suspended).await;
        assert!(matches!(suspended, Err(Error::InvalidBucketState(_))), "{suspended:?}");
        let without = |settings: &mut BucketSettings| {
            settings.lock = None;
            Ok::<_, Error>(())
        };
        let unlocked = log.change_bucket("bucket", 1, without).await;
        assert!(matches!(unlocked, Err(Error::InvalidBucketState(_))), "{unlocked:?}");
        log.set_retention("bucket", "k", Some(kept), retention(RetentionMode::Compliance, 3000), false, 1)
            .await
            .unwrap();
        [kept, held]
    });
    drop(log);
    everywhere(&medium, store, async |log| {
        assert_eq!(log.lock_of("bucket", "k", Some(kept)).unwrap(), (kept, compliance(3000)));
        assert_eq!(log.lock_of("bucket", "k", Some(held)).unwrap(), (held, HOLD));
        assert_eq!((get_version(log, "k", kept).await, get_version(log, "k", held).await), (Some(1), Some(2)));
        assert_eq!(log.store().usage().locked_bytes, 200);
        assert_eq!(log.bucket_settings("bucket").unwrap().0.tags[..], *b"tags");
    });
    let mut store = Store::maintained(&medium, options(1)).unwrap();
    let log = store.log();
    store.run(async {
        log.store().advance_lock_clock(3000);
        assert!(log.delete_version("bucket", "k", kept, 0, false).await.unwrap().existed);
        log.set_hold("bucket", "k", Some(held), false, 1).await.unwrap();
        assert!(log.delete_version("bucket", "k", held, 0, false).await.unwrap().existed);
        assert_eq!(log.store().usage().locked_bytes, 0);
    });
    drop(log);
    everywhere(&medium, store, async |log| {
        assert_eq!(versions(log, 10).len(), 1, "the marker");
    });
}

#[test]
fn governance_yields_to_bypass_only() {
    let (_medium, mut store) = locked();
    let log = store.log();
    store.run(async {
        let lock = Lock { retention: retention(RetentionMode::Governance, 500), hold: false };
        let version = put_locked(&log, "k", 1, lock).await.unwrap();
        let deleted = log.delete_version("bucket", "k", version, 9, false).await;
        assert!(matches!(deleted, Err(Error::Locked)), "{deleted:?}");
        assert!(matches!(log.set_retention("bucket", "k", None, None, false, 1).await, Err(Error::Locked)));
        log.set_hold("bucket", "k", None, true, 1).await.unwrap();
        assert!(matches!(log.delete_version("bucket", "k", version, 9, true).await, Err(Error::Locked)), "a hold");
        log.set_hold("bucket", "k", None, false, 1).await.unwrap();
        assert!(log.delete_version("bucket", "k", version, 9, true).await.unwrap().existed);
    });
}

#[test]
fn lock_requests_that_make_no_sense_are_refused() {
    let (_medium, mut store) = locked();
    let log = store.log();
    store.run(async {
        log.store().advance_lock_clock(100);
        let put = put_locked(&log, "k", 1, compliance(100)).await;
        assert!(matches!(put, Err(Error::InvalidRetention)), "{put:?}");
        let set = |version| log.set_hold("bucket", "k", version, true, 1);
        assert!(matches!(set(None).await, Err(Error::NoSuchKey)));
        assert!(matches!(set(Some(VersionId::Null)).await, Err(Error::NoSuchVersion)));
        log.delete_object("bucket", "k", 1, Condition::None).await.unwrap();
        let marker = versions(&log, 1)[0].version;
        assert!(matches!(set(None).await, Err(Error::IsMarker)));
        assert!(matches!(set(Some(marker)).await, Err(Error::IsMarker)));
        log.create_bucket("plain", 1).await.unwrap();
        let mut put = object_of(&log, "k", 1, 100).await.unwrap();
        put.bucket = "plain".into();
        assert!(matches!(log.put_version(put, HOLD).await, Err(Error::NotLockable)));
        let create = CreateUpload {
            bucket: "plain".into(),
            key: "k".into(),
            id: [1; 16],
            head: vec![],
            tags: vec![],
            sealed: false,
            time_ms: 1,
            declared: None,
        };
        assert!(matches!(log.create_locked_upload(create.clone(), HOLD).await, Err(Error::NotLockable)));
        log.create_locked_upload(CreateUpload { bucket: "bucket".into(), ..create }, HOLD).await.unwrap();
        let upload = log.upload("bucket", "k", &[1; 16]).unwrap().unwrap();
        assert_eq!(log.upload_head(&upload).await.unwrap().lock, HOLD);
    });
}

#[test]
fn default_retention_counts_from_the_later_clock() {
    let (_medium, mut store) = locked();
    let log = store.log();
    store.run(async {
        let set = |period| {
            let default = Some(DefaultRetention { mode: RetentionMode::Compliance, period });
            let change = move |settings: &mut BucketSettings| {
                settings.lock = Some(BucketLock { default });
                Ok::<_, Error>(())
            };
            log.change_bucket("bucket", 1, change)
        };
        assert!(matches!(set(RetentionPeriod::Days(0)).await, Err(Error::InvalidBucketState(_))));
        set(RetentionPeriod::Days(1)).await.unwrap();
        let day = RetentionPeriod::Days(1).ms();
        for (clock, time, from) in [(0, 50, 50), (70, 50, 70)] {
            log.store().advance_lock_clock(clock);
            put_locked(&log, "k", time, Lock::default()).await.unwrap();
            let (_, lock) = log.lock_of("bucket", "k", None).unwrap();
            assert_eq!(lock, compliance(from + day));
        }
        // A retention of its own takes its place; a hold comes on top.
        put_locked(&log, "k", 5, compliance(90)).await.unwrap();
        assert_eq!(log.lock_of("bucket", "k", None).unwrap().1, compliance(90));
        put_locked(&log, "k", 5, HOLD).await.unwrap();
        assert_eq!(log.lock_of("bucket", "k", None).unwrap().1, Lock { hold: true, ..compliance(70 + day) });
    });
}

/// Enables versioning and object lock.
async fn enable_lock(log: &Log<SimDisk>) {
    let change = |settings: &mut BucketSettings| {
        settings.versioning = Versioning::Enabled;
        settings.lock = Some(BucketLock::default());
        Ok::<_, Error>(())
    };
    log.change_bucket("bucket", 1, change).await.unwrap();
}

#[test]
fn locked_null_version_is_not_replaced() {
    let (medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    store.run(async {
        put(&log, "k", 1, 100).await.unwrap();
        enable_lock(&log).await;
        assert_eq!(log.set_hold("bucket", "k", None, true, 1).await.unwrap(), VersionId::Null);
        let put = object_of(&log, "k", 2, 100).await.unwrap();
        let imported = log.import_version(put, VersionId::Null, Lock::default()).await;
        assert!(matches!(imported, Err(Error::Locked)), "{imported:?}");
        assert!(matches!(log.import_marker("bucket", "k", VersionId::Null, 3).await, Err(Error::Locked)));
        let deleted = log.delete_version("bucket", "k", VersionId::Null, 1, true).await;
        assert!(matches!(deleted, Err(Error::Locked)), "{deleted:?}");
        put_version(&log, "k", 4, 10).await.unwrap();
    });
    drop(log);
    everywhere(&medium, store, async |log| assert_eq!(get_version(log, "k", VersionId::Null).await, Some(1)));
}

/// Changes of one version exclude each other, so that none is decided by a state that another ends.
#[test]
fn changes_of_a_version_in_flight_conflict() {
    let (_medium, mut store) = locked();
    let log = store.log();
    store.run(async {
        let version = put_locked(&log, "k", 1, Lock::default()).await.unwrap();
        let (deleted, hold) = futures_util::join!(
            log.delete_version("bucket", "k", version, 1, false),
            log.set_hold("bucket", "k", Some(version), true, 1)
        );
        assert!(deleted.unwrap().existed && matches!(hold, Err(Error::Conflict)));
        let version = put_locked(&log, "k", 2, Lock::default()).await.unwrap();
        let (hold, deleted) = futures_util::join!(
            log.set_hold("bucket", "k", Some(version), true, 1),
            log.delete_version("bucket", "k", version, 1, false)
        );
        assert!(hold.is_ok() && matches!(deleted, Err(Error::Conflict)));
        let (first, second) = futures_util::join!(
            log.set_retention("bucket", "k", None, retention(RetentionMode::Compliance, 900), false, 1),
            log.set_retention("bucket", "k", None, retention(RetentionMode::Compliance, 800), false, 1)
        );
        assert!(first.is_ok() && matches!(second, Err(Error::Conflict)));
        assert_eq!(log.lock_of("bucket", "k", None).unwrap().1, Lock { hold: true, ..compliance(900) });
        let off = set_versioning(&log, Versioning::Enabled);
        let quota = |settings: &mut BucketSettings| {
            settings.quota = Some(1 << 40);
            Ok::<_, Error>(())
        };
        off.await.unwrap();
        log.change_bucket("bucket", 1, quota).await.unwrap();
    });
}

/// A request without a condition that replaces a `null` version waits for a change of that version.
#[test]
fn replacement_of_null_version_waits_for_changes_in_flight() {
    let (medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    store.run(async {
        put(&log, "k", 1, 100).await.unwrap();
        set_versioning(&log, Versioning::Suspended).await.unwrap();
        let replacing = object_of(&log, "k", 2, 100).await.unwrap();
        let (deleted, stored) = futures_util::join!(
            log.delete_version("bucket", "k", VersionId::Null, 1, false),
            log.put_version(replacing, Lock::default())
        );
        assert!(deleted.unwrap().existed);
        assert_eq!(stored.unwrap().version, VersionId::Null);
        assert_eq!(get_version(&log, "k", VersionId::Null).await, Some(2));

        let object = log.object("bucket", "k").await.unwrap().unwrap();
        let replacing = object_of(&log, "k", 3, 100).await.unwrap();
        let (tagged, stored) = futures_util::join!(
            log.set_tags("bucket", "k", object, b"tags".to_vec()),
            log.put_version(replacing, Lock::default())
        );
        tagged.unwrap();
        assert_eq!(stored.unwrap().version, VersionId::Null);

        let object = log.object("bucket", "k").await.unwrap().unwrap();
        let (tagged, deleted) = futures_util::join!(
            log.set_tags("bucket", "k", object, b"tags".to_vec()),
            log.delete_current("bucket", "k", 4, Condition::None)
        );
        tagged.unwrap();
        assert_eq!(deleted.unwrap(), Deletion::Marker(VersionId::Null));

        let (deleted, imported) = futures_util::join!(
            log.delete_version("bucket", "k", VersionId::Null, 1, false),
            log.import_marker("bucket", "k", VersionId::Null, 5)
        );
        assert!(deleted.unwrap().was_marker);
        imported.unwrap();
    });
    drop(log);
    everywhere(&medium, store, async |log| {
        let listed = versions(log, 10);
        assert!(listed.len() == 1 && listed[0].is_marker && listed[0].time_ms == 5, "{listed:?}");
    });
}

/// A hold that is set first keeps the `null` version, also from a request that has waited for it.
#[test]
fn replacement_of_null_version_is_refused_after_a_hold_in_flight() {
    let (_medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    store.run(async {
        put(&log, "k", 1, 100).await.unwrap();
        enable_lock(&log).await;
        let replacing = object_of(&log, "k", 2, 100).await.unwrap();
        let (held, imported) = futures_util::join!(
            log.set_hold("bucket", "k", Some(VersionId::Null), true, 1),
            log.import_version(replacing, VersionId::Null, Lock::default())
        );
        held.unwrap();
        assert!(matches!(imported, Err(Error::Locked)), "{imported:?}");
        assert_eq!(get_version(&log, "k", VersionId::Null).await, Some(1));
    });
}

#[test]
fn ring_mode_refuses_writes_rather_than_drop_locked_versions() {
    let medium = new_medium(1);
    format(&medium, CAPACITY).unwrap();
    let mut store = Store::maintained(&medium, OpenOptions { ring: true, ..options(1) }).unwrap();
    let log = store.log();
    store.run(async {
        log.create_locked_bucket("bucket", 1, b"").await.unwrap();
        let mut kept = Vec::new();
        let error = loop {
            let seed = kept.len() as u64 + 1;
            let put = object_of(&log, &format!("k{seed}"), seed, 1_000_000).await;
            let stored = match put {
                Ok(put) => log.put_version(put, HOLD).await,
                Err(error) => Err(error),
            };
            match stored {
                Ok(stored) => kept.push((seed, stored.version)),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Full), "{error}");
        assert!(kept.len() > 20);
        for (seed, version) in kept {
            assert_eq!(get_version(&log, &format!("k{seed}"), version).await, Some(seed));
        }
    });
}

/// Fills a store with held versions of this size, and returns them.
async fn fill_with_held(log: &Log<SimDisk>, len: usize) -> Vec<(String, VersionId)> {
    log.create_locked_bucket("bucket", 1, b"").await.unwrap();
    let mut kept = Vec::new();
    loop {
        let key = format!("k{:07}", kept.len());
        let put = match object_of(log, &key, kept.len() as u64 + 1, len).await {
            Ok(put) => log.put_version(put, HOLD).await,
            Err(error) => Err(error),
        };
        match put {
            Ok(stored) => kept.push((key, stored.version)),
            Err(error) => {
                assert!(matches!(error, Error::Full), "{error}");
                return kept;
            }
        }
    }
}

#[test]
fn full_store_of_held_versions_can_be_emptied() {
    for len in [1_000_000, 20_000, 100] {
        let medium = new_medium(1);
        format(&medium, CAPACITY).unwrap();
        let mut store = Store::maintained(&medium, options(1)).unwrap();
        let log = store.log();
        store.run(async {
            let kept = fill_with_held(&log, len).await;
            // All holds first: their records stay live until the versions are deleted.
            for (key, version) in &kept {
                let removed = log.set_hold("bucket", key, Some(*version), false, 1).await;
                assert!(removed.is_ok(), "{len} bytes, {key} of {}: {removed:?}", kept.len());
            }
            for (key, version) in &kept {
                assert!(log.delete_version("bucket", key, *version, 1, false).await.unwrap().existed);
            }
            assert_eq!(log.store().recount(), []);
            put_version(&log, "new", 1, 1_000_000).await.unwrap();
        });
    }
}

#[test]
fn lock_clock_never_goes_back_below_what_was_saved() {
    for crash in CRASHES {
        let (medium, mut store) = locked();
        let log = store.log();
        store.run(async {
            log.store().advance_lock_clock(500);
            log.save_lock_clock().await.unwrap();
            log.store().advance_lock_clock(400);
            assert_eq!(log.store().lock_clock_ms(), 500);
            log.store().advance_lock_clock(900);
        });
        drop(log);
        drop(store);
        medium.crash(crash);
        let mut store = Store::maintained(&medium, options(1)).unwrap();
        let log = store.log();
        assert_eq!(log.store().lock_clock_ms(), 500);
        // The records of the clock are dead; checkpoints have its value.
        store.run(async {
            log.store().advance_lock_clock(700);
            log.save_lock_clock().await.unwrap();
            for _ in 0..3 {
                log.checkpoint().await.unwrap();
            }
            log.compact().await.unwrap();
        });
        drop(log);
        drop(store);
        medium.crash(LOST);
        let store = Store::maintained(&medium, options(1)).unwrap();
        assert_eq!(store.log().store().lock_clock_ms(), 700);
    }
}

/// An opening finds the same lock clock from either checkpoint, saved or not.
#[test]
fn lock_clock_does_not_depend_on_the_checkpoint() {
    for is_saved in [false, true] {
        let (medium, mut store) = locked();
        let log = store.log();
        store.run(async {
            log.checkpoint().await.unwrap();
            log.store().advance_lock_clock(5000);
            if is_saved {
                log.save_lock_clock().await.unwrap();
            }
            log.checkpoint().await.unwrap();
        });
        drop((log, store));
        medium.crash(LOST);
        let found = || Store::open(&medium, 1).log().store().lock_clock_ms();
        let saved = if is_saved { 5000 } else { 0 };
        assert_eq!(found(), saved);
        medium.crash(LOST);
        assert!(medium.spoil_checkpoint());
        assert_eq!(found(), saved, "from the checkpoint before");
    }
}

#[test]
fn store_becomes_version_4_with_its_first_version() {
    let (medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    store.run(async {
        put(&log, "k", 1, 100).await.unwrap();
        log.checkpoint().await.unwrap();
        assert_eq!(superblock_versions(&medium), [3, 3]);
        log.store().advance_lock_clock(5);
        log.checkpoint().await.unwrap();
        assert_eq!(superblock_versions(&medium), [3, 3], "a checkpoint changes nothing");
        set_versioning(&log, Versioning::Enabled).await.unwrap();
        assert_eq!(superblock_versions(&medium), [4, 4]);
        log.save_lock_clock().await.unwrap();
        log.checkpoint().await.unwrap();
        assert_eq!(superblock_versions(&medium), [4, 4]);
    });
    drop(log);
    store.close();
    let mut store = Store::open(&medium, 1);
    assert_eq!(store.recovery.upgraded_from, None);
    let log = store.log();
    store.run(async { assert_eq!((keys(&log).len(), log.store().lock_clock_ms()), (1, 5)) });
}

/// No record that version 3 does not know is durable before both copies have version 4.
#[test]
fn power_failure_while_the_version_is_raised_leaves_a_readable_store() {
    for crash in CRASHES {
        for stop in 0..12 {
            let (medium, mut store) = Store::fresh_maintained();
            let log = store.log();
            store.run(put(&log, "k", 1, 100)).unwrap();
            medium.stop_after_changes(Some(stop));
            let done = std::rc::Rc::new(std::cell::Cell::new(false));
            let is_done = std::rc::Rc::clone(&done);
            store.spawn(async move {
                // The maintenance writes the superblock at the same time.
                let (set, _) = futures_util::join!(set_versioning(&log, Versioning::Enabled), log.checkpoint());
                set.unwrap();
                is_done.set(true);
            });
            store.run_until_stalled();
            drop(store);
            medium.crash(crash);
            let before = superblock_versions(&medium);
            let mut store = Store::maintained(&medium, options(1)).unwrap();
            assert_eq!(store.recovery.damaged, [], "stop after {stop}, {crash:?}");
            let log = store.log();
            let (versioning, _) = log.bucket_versioning("bucket").unwrap();
            assert!(versioning == Versioning::Enabled || !done.get(), "stop after {stop}, {crash:?}");
            assert!(versioning == Versioning::Off || before == [4, 4], "stop after {stop}, {crash:?}: {before:?}");
            store.run(async {
                assert_eq!(keys(&log), ["k"]);
                set_versioning(&log, Versioning::Enabled).await.unwrap();
                put_version(&log, "k", 2, 10).await.unwrap();
                assert_eq!(versions(&log, 10).len(), 2);
            });
            assert_eq!(superblock_versions(&medium), [4, 4]);
        }
    }
}

#[test]
fn version_is_raised_once_by_concurrent_writers() {
    let (medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    store.run(async {
        log.create_bucket("other", 1).await.unwrap();
        let enable = |settings: &mut BucketSettings| {
            settings.versioning = Versioning::Enabled;
            Ok::<_, Error>(())
        };
        let (one, other, checkpoint) = futures_util::join!(
            log.change_bucket("bucket", 1, enable),
            log.change_bucket("other", 1, enable),
            log.checkpoint()
        );
        one.and(other).and(checkpoint).unwrap();
    });
    assert_eq!(superblock_versions(&medium), [4, 4]);
}
