//! The feed of removed versions.

use keyhole_log::{
    BucketSettings, Condition, Durability, Log, NoncurrentVersion, OpenOptions, Removals, Removed, VersionId,
    Versioning,
};
use keyhole_sim::disk::SimDisk;

use crate::history::{object_of, put_version, set_versioning, versioned};
use crate::support::store::{CAPACITY, Store, format, get, options, put};
use crate::support::{LOST, new_medium};

/// Takes the removals: key and number.
fn take(log: &Log<SimDisk>) -> Vec<(Option<String>, VersionId, u64)> {
    let Removals { removed, is_complete } = log.store().take_removals();
    assert!(is_complete);
    removed
        .into_iter()
        .map(|removed| {
            assert_eq!(removed.bucket, "bucket");
            (removed.key, removed.version, removed.number)
        })
        .collect()
}

/// Returns the number of a version.
fn number(log: &Log<SimDisk>, key: &str, version: VersionId) -> u64 {
    log.version_info("bucket", key, Some(version)).unwrap().expect("it exists").seq
}

fn row(key: &str, version: VersionId, number: u64) -> (Option<String>, VersionId, u64) {
    (Some(key.to_owned()), version, number)
}

#[test]
fn removals_are_tracked_only_while_turned_on() {
    let (_medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    let off = Removals { removed: vec![], is_complete: false };
    let put_and_delete = async |key: &str| {
        put(&log, key, 1, 10).await.unwrap();
        log.delete_object("bucket", key, 2, Condition::None).await.unwrap();
    };
    store.run(async {
        put_and_delete("a").await;
        assert_eq!(log.store().take_removals(), off);
        log.store().track_removals(9);
        put_and_delete("b").await;
        let removed = take(&log);
        assert_eq!(removed.iter().map(|(key, ..)| key.as_deref()).collect::<Vec<_>>(), [Some("b")]);
        assert_eq!(take(&log), [], "taken");
        put_and_delete("c").await;
        log.store().track_removals(0);
        assert_eq!(log.store().take_removals(), off);
        put_and_delete("d").await;
        log.store().track_removals(9);
        assert_eq!(take(&log), []);
    });
}

#[test]
fn removal_in_bucket_without_versioning_is_reported_for_deletion_only() {
    let (_medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    log.store().track_removals(9);
    store.run(async {
        put(&log, "k", 1, 10).await.unwrap();
        put(&log, "k", 2, 10).await.unwrap();
        let object = log.object("bucket", "k").await.unwrap().unwrap();
        log.set_tags("bucket", "k", object, b"tags".to_vec()).await.unwrap();
        assert_eq!(take(&log), [], "overwrites");
        let of_k = number(&log, "k", VersionId::Null);
        log.delete_object("bucket", "k", 3, Condition::None).await.unwrap();
        assert_eq!(take(&log), [row("k", VersionId::Null, of_k)]);
        log.delete_object("bucket", "k", 4, Condition::None).await.unwrap();
        assert_eq!(take(&log), [], "nothing was deleted");
        put(&log, "old", 5, 10).await.unwrap();
        let of_old = number(&log, "old", VersionId::Null);
        let settings = BucketSettings { expire_ms: Some(10), ..BucketSettings::default() };
        log.set_bucket("bucket", settings, 6).await.unwrap();
        assert_eq!(log.expire(100).await.unwrap(), 1);
        assert_eq!(take(&log), [row("old", VersionId::Null, of_old)]);
    });
}

#[test]
fn removal_of_version_is_reported_with_id_and_number() {
    let (_medium, mut store) = versioned();
    let log = store.log();
    log.store().track_removals(9);
    store.run(async {
        let imported = VersionId::Id([7; 16]);
        log.import_version(object_of(&log, "k", 1, 10).await.unwrap(), imported, Default::default()).await.unwrap();
        let own = put_version(&log, "k", 2, 10).await.unwrap();
        log.delete_object("bucket", "k", 3, Condition::None).await.unwrap();
        assert_eq!(take(&log), [], "the marker removes nothing");
        let marker = log.version_info("bucket", "k", None).unwrap().unwrap();
        let of_imported = number(&log, "k", imported);
        let of_own = number(&log, "k", own);
        log.delete_version("bucket", "k", marker.version, 4, false).await.unwrap();
        log.delete_version("bucket", "k", imported, 5, false).await.unwrap();
        assert_eq!(take(&log), [row("k", marker.version, marker.seq), row("k", imported, of_imported)]);
        put_version(&log, "k", 6, 10).await.unwrap();
        let every = |_: &BucketSettings| Some(|_: &NoncurrentVersion<'_>| true);
        assert_eq!(log.expire_noncurrent_by(9, every).await.unwrap(), 1);
        assert_eq!(take(&log), [row("k", own, of_own)]);
    });
}

#[test]
fn null_version_replaced_by_marker_or_reverse_is_reported() {
    let (_medium, mut store) = versioned();
    let log = store.log();
    store.run(async {
        set_versioning(&log, Versioning::Suspended).await.unwrap();
        log.store().track_removals(9);
        for key in ["k", "with another"] {
            if key == "with another" {
                set_versioning(&log, Versioning::Enabled).await.unwrap();
                put_version(&log, key, 1, 10).await.unwrap();
                set_versioning(&log, Versioning::Suspended).await.unwrap();
            }
            put(&log, key, 2, 10).await.unwrap();
            put(&log, key, 3, 10).await.unwrap();
            assert_eq!(take(&log), [], "an object replaced by an object");
            for seed in [4, 6] {
                let object = number(&log, key, VersionId::Null);
                log.delete_object("bucket", key, seed, Condition::None).await.unwrap();
                assert_eq!(take(&log), [row(key, VersionId::Null, object)]);
                let marker = number(&log, key, VersionId::Null);
                put(&log, key, seed + 1, 10).await.unwrap();
                assert_eq!(take(&log), [row(key, VersionId::Null, marker)]);
            }
        }
    });
}

#[test]
fn deleted_bucket_is_reported_after_its_versions() {
    let (_medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    log.store().track_removals(9);
    store.run(async {
        put(&log, "k", 1, 10).await.unwrap();
        let object = number(&log, "k", VersionId::Null);
        log.set_bucket("bucket", BucketSettings::default(), 2).await.unwrap();
        let bucket = log.changes(0, 9, |_, _| false, |_| true).await.found[0].number;
        log.delete_object("bucket", "k", 3, Condition::None).await.unwrap();
        log.delete_bucket("bucket", 4).await.unwrap();
        log.create_bucket("bucket", 5).await.unwrap();
        assert_eq!(take(&log), [row("k", VersionId::Null, object), (None, VersionId::Null, bucket)]);
        assert!(log.changes(0, 9, |_, _| false, |_| true).await.found[0].number > bucket);
    });
}

#[test]
fn overflow_drops_waiting_removals_and_is_reported_once() {
    let (_medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    log.store().track_removals(3);
    store.run(async {
        let remove = async |n: u64| {
            put(&log, &format!("k{n}"), n, 10).await.unwrap();
            log.delete_object("bucket", &format!("k{n}"), n, Condition::None).await.unwrap();
        };
        for n in 0..3 {
            remove(n).await;
        }
        assert_eq!(take(&log).len(), 3, "as many as the limit");
        for n in 0..4 {
            remove(n).await;
        }
        assert_eq!(log.store().take_removals(), Removals { removed: vec![], is_complete: false });
        remove(5).await;
        assert_eq!(take(&log).len(), 1);
        for n in 0..5 {
            remove(n).await;
        }
        let Removals { removed, is_complete } = log.store().take_removals();
        let keys: Vec<_> = removed.iter().map(|Removed { key, .. }| key.as_deref()).collect();
        assert_eq!((keys, is_complete), (vec![Some("k4")], false), "those after the overflow are kept");
        assert_eq!(take(&log), []);
    });
}

#[test]
fn relocation_by_the_cleaner_is_not_reported() {
    let (medium, mut store) = versioned();
    let log = store.log();
    store.run(async {
        for seed in 0..40 {
            put_version(&log, &format!("k{}", seed % 8), seed, 200_000).await.unwrap();
        }
        set_versioning(&log, Versioning::Suspended).await.unwrap();
        for n in 0..8 {
            log.delete_object("bucket", &format!("k{n}"), 50, Condition::None).await.unwrap();
        }
        let every = |_: &BucketSettings| Some(|version: &NoncurrentVersion<'_>| version.newer > 1);
        assert_eq!(log.expire_noncurrent_by(60, every).await.unwrap(), 24);
    });
    drop(log);
    store.close();
    medium.crash(LOST);
    let mut store = Store::maintained(&medium, options(1)).unwrap();
    let log = store.log();
    log.store().track_removals(1000);
    store.run(async {
        let before = log.changes(0, 99, |_, _| true, |_| true).await;
        assert_eq!(before.versions, 24);
        let compacted = log.compact().await.unwrap();
        assert!(compacted.bytes_moved > 1_000_000, "{compacted:?}");
        assert_eq!(take(&log), []);
        let after = log.changes(0, 99, |_, _| true, |_| true).await;
        assert_eq!(after.found, before.found);
    });
}

#[test]
fn versions_dropped_by_ring_mode_are_reported() {
    let medium = new_medium(1);
    format(&medium, CAPACITY).unwrap();
    let mut store = Store::maintained(&medium, OpenOptions { ring: true, ..options(1) }).unwrap();
    let log = store.log();
    log.store().track_removals(1000);
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        for seed in 0..120 {
            put(&log, &format!("k{seed:03}"), seed, 1_000_000).await.unwrap();
        }
        let removed: Vec<String> = take(&log).into_iter().filter_map(|(key, ..)| key).collect();
        let first = (0..removed.len()).map(|seed| format!("k{seed:03}"));
        let mut sorted = removed.clone();
        sorted.sort_unstable();
        assert!(removed.len() > 40 && first.eq(sorted), "{removed:?}");
        assert_eq!(log.changes(0, 0, |_, _| true, |_| true).await.versions, 120 - removed.len() as u64);
    });
}

#[test]
fn deferred_removal_is_reported_once_it_is_durable() {
    let medium = new_medium(1);
    format(&medium, CAPACITY).unwrap();
    let deferred = OpenOptions { durability: Durability::Deferred, ..options(1) };
    let mut store = Store::open_with(&medium, deferred).unwrap();
    let log = store.log();
    log.store().track_removals(9);
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        put(&log, "a", 1, 10).await.unwrap();
        put(&log, "b", 2, 10).await.unwrap();
        log.delete_object("bucket", "a", 3, Condition::None).await.unwrap();
        assert_eq!(get(&log, "a").await, None);
        assert_eq!(take(&log), []);
        log.flush().await.unwrap();
        log.delete_object("bucket", "b", 4, Condition::None).await.unwrap();
        assert_eq!(take(&log).into_iter().map(|(key, ..)| key).collect::<Vec<_>>(), [Some("a".to_owned())]);
        log.flush().await.unwrap();
        assert_eq!(take(&log).len(), 1);
    });
}

#[test]
fn replay_at_opening_is_not_reported() {
    let (medium, mut store) = versioned();
    let log = store.log();
    store.run(async {
        let old = put_version(&log, "k", 1, 10).await.unwrap();
        put_version(&log, "k", 2, 10).await.unwrap();
        log.delete_version("bucket", "k", old, 3, false).await.unwrap();
    });
    drop((log, store));
    medium.crash(LOST);
    let store = Store::open(&medium, 1);
    store.log().store().track_removals(9);
    assert_eq!(take(&store.log()), []);
}
