//! Changes after a number, as a replica of the store derives what it lacks.

use std::cell::RefCell;

use futures_executor::LocalPool;
use futures_util::future::join;
use futures_util::task::LocalSpawnExt;

use keyhole_log::{
    BucketSettings, Change, Changed, Changes, Condition, Durability, Log, OpenOptions, VersionId, Versioning, open,
    worker,
};
use keyhole_sim::disk::SimDisk;
use keyhole_sim::executor::Turn;

use crate::history::{object_of, put_version, set_versioning, versioned, versions};
use crate::support::store::{CAPACITY, Store, format, get, options, put};
use crate::support::{LOST, new_medium};

/// Returns the changes of versions after a number.
async fn versions_after(log: &Log<SimDisk>, after: u64, limit: usize) -> Changes {
    log.changes(after, limit, |_, _| true, |_| false).await
}

/// Returns the key and the time of each changed version.
fn rows(changes: &Changes) -> Vec<(&str, u64)> {
    assert!(changes.found.windows(2).all(|pair| pair[0].number < pair[1].number), "{:?}", changes.found);
    let rows = changes.found.iter().filter_map(|change| match &change.what {
        Changed::Version(info) => Some((info.key.as_str(), info.time_ms)),
        Changed::Bucket => None,
    });
    rows.collect()
}

#[test]
fn changes_with_limit_are_the_lowest_in_order() {
    let (_medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    store.run(async {
        for (seed, key) in [(1, "d"), (2, "b"), (3, "e"), (4, "a"), (5, "c")] {
            put(&log, key, seed, 100 * seed as usize).await.unwrap();
        }
        let first = versions_after(&log, 0, 2).await;
        assert_eq!(rows(&first), [("d", 1), ("b", 2)]);
        assert!(first.has_more);
        assert_eq!((first.versions, first.bytes, first.oldest_ms), (5, 1500, Some(1)));
        assert_eq!((first.settled, first.stable_at), (log.store().settled(), first.settled));
        let second = versions_after(&log, first.found[1].number, 3).await;
        assert_eq!(rows(&second), [("e", 3), ("a", 4), ("c", 5)]);
        assert_eq!((second.has_more, second.versions, second.bytes, second.oldest_ms), (false, 3, 1200, Some(3)));
        let rest = versions_after(&log, second.found[2].number, 3).await;
        assert_eq!(rest, Changes { settled: rest.settled, stable_at: rest.settled, ..Changes::default() });
        let counted = versions_after(&log, 0, 0).await;
        assert_eq!((counted.found.len(), counted.has_more, counted.versions), (0, true, 5));
        let some = log.changes(0, 9, |bucket, key| bucket == "bucket" && key > "c", |_| false).await;
        assert_eq!((rows(&some), some.versions), (vec![("d", 1), ("e", 3)], 2));
    });
}

#[test]
fn replaced_and_deleted_versions_are_no_changes() {
    let (_medium, mut store) = versioned();
    let log = store.log();
    store.run(async {
        let old = put_version(&log, "a", 1, 10).await.unwrap();
        put_version(&log, "a", 2, 10).await.unwrap();
        put_version(&log, "b", 3, 10).await.unwrap();
        log.delete_object("bucket", "b", 4, Condition::None).await.unwrap();
        let all = versions_after(&log, 0, 9).await;
        assert_eq!(rows(&all), [("a", 1), ("a", 2), ("b", 3), ("b", 4)]);
        let Changed::Version(marker) = &all.found[3].what else { panic!("a version") };
        assert!(marker.is_marker && marker.is_latest);
        log.delete_version("bucket", "a", old, 5, false).await.unwrap();
        set_versioning(&log, Versioning::Suspended).await.unwrap();
        put_version(&log, "c", 6, 10).await.unwrap();
        put_version(&log, "c", 7, 10).await.unwrap();
        assert_eq!(rows(&versions_after(&log, 0, 9).await), [("a", 2), ("b", 3), ("b", 4), ("c", 7)]);
    });
}

#[test]
fn in_flight_write_holds_later_changes_back() {
    let medium = new_medium(1);
    format(&medium, CAPACITY).unwrap();
    let mut pool = LocalPool::new();
    let disk = SimDisk::in_turns(&medium);
    let (shared, _) = pool.run_until(open(&disk, options(2))).unwrap();
    let hold = disk.hold_syncs.clone();
    let (slow, writer) = worker(shared.clone(), disk.into());
    pool.spawner().spawn_local(writer.run()).unwrap();
    let (fast, writer) = worker(shared, SimDisk::in_turns(&medium).into());
    pool.spawner().spawn_local(writer.run()).unwrap();
    pool.run_until(async {
        fast.create_bucket("bucket", 1).await.unwrap();
        put(&fast, "before", 1, 10).await.unwrap();
        let settled = fast.store().settled();
        hold.set(true);
        let later = async {
            for _ in 0..100 {
                Turn::once().await;
            }
            put(&fast, "later", 3, 10).await.unwrap();
            assert_eq!(get(&fast, "later").await, Some(3));
            let changes = versions_after(&fast, 0, 9).await;
            assert_eq!((rows(&changes), changes.settled), (vec![("before", 1)], fast.store().settled()));
            // The numbers of bodies and of segments count as settled.
            assert!(changes.settled >= settled);
            hold.set(false);
            changes.settled
        };
        let (first, settled) = join(put(&slow, "slow", 2, 10), later).await;
        first.unwrap();
        let changes = versions_after(&fast, settled, 9).await;
        assert_eq!(rows(&changes), [("slow", 2), ("later", 3)]);
        assert_eq!(changes.settled, changes.found[1].number);
    });
}

#[test]
fn lock_and_tags_raise_the_number_of_a_version() {
    let medium = new_medium(1);
    format(&medium, CAPACITY).unwrap();
    let mut store = Store::maintained(&medium, options(1)).unwrap();
    let log = store.log();
    let numbers = store.run(async {
        log.create_locked_bucket("bucket", 1, b"").await.unwrap();
        let held = put_version(&log, "held", 1, 10).await.unwrap();
        let tagged = put_version(&log, "tagged", 2, 10).await.unwrap();
        put_version(&log, "other", 3, 10).await.unwrap();
        let before = versions_after(&log, 0, 9).await;
        assert_eq!(rows(&before), [("held", 1), ("tagged", 2), ("other", 3)]);
        log.set_hold("bucket", "held", Some(held), true, 4).await.unwrap();
        let after_hold = versions_after(&log, 0, 9).await;
        assert_eq!(rows(&after_hold), [("tagged", 2), ("other", 3), ("held", 1)]);
        let object = log.version("bucket", "tagged", Some(tagged)).await.unwrap().into_object().unwrap().0;
        log.set_tags("bucket", "tagged", object, b"tags".to_vec()).await.unwrap();
        let after_tags = versions_after(&log, before.settled, 9).await;
        assert_eq!(rows(&after_tags), [("held", 1), ("tagged", 2)]);
        let Changed::Version(info) = &after_tags.found[0].what else { panic!("a version") };
        assert!(info.lock.hold && info.seq == before.found[0].number && after_tags.found[0].number > before.settled);
        log.set_hold("bucket", "held", Some(held), false, 5).await.unwrap();
        let all = versions_after(&log, 0, 9).await;
        assert_eq!(rows(&all), [("other", 3), ("tagged", 2), ("held", 1)]);
        all.found
    });
    drop(log);
    store.close();
    let mut store = Store::open(&medium, 1);
    let log = store.log();
    assert_eq!(store.run(versions_after(&log, 0, 9)).found, numbers, "from a checkpoint");
}

#[test]
fn buckets_change_by_creation_and_settings() {
    let (_medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    let names = |changes: &Changes| changes.found.iter().map(|change| change.bucket.clone()).collect::<Vec<_>>();
    store.run(async {
        log.create_bucket("other", 1).await.unwrap();
        put(&log, "k", 1, 10).await.unwrap();
        let all = log.changes(0, 9, |_, _| true, |_| true).await;
        assert_eq!(names(&all), ["bucket", "other", "bucket"]);
        let kinds = all.found.iter().map(|change| change.what == Changed::Bucket);
        assert!(kinds.eq([true, true, false]));
        assert_eq!(all.versions, 1, "buckets do not count");
        let limited = log.changes(0, 1, |_, _| false, |_| true).await;
        assert_eq!((names(&limited), limited.has_more, limited.versions), (vec!["bucket".into()], true, 0));
        assert_eq!(names(&log.changes(0, 9, |_, _| false, |name| name == "other").await), ["other"]);
        log.set_bucket("bucket", BucketSettings { quota: Some(1 << 30), ..BucketSettings::default() }, 2)
            .await
            .unwrap();
        let set = log.changes(all.settled, 9, |_, _| true, |_| true).await;
        assert_eq!((names(&set), set.has_more), (vec!["bucket".into()], false));
        // Of a bucket that was created again, nothing from before is left.
        log.delete_bucket("other", 3).await.unwrap();
        assert_eq!(names(&log.changes(0, 9, |_, _| false, |_| true).await), ["bucket"]);
        log.create_bucket("other", 4).await.unwrap();
        let again = log.changes(set.settled, 9, |_, _| true, |_| true).await;
        assert_eq!(names(&again), ["other"]);
    });
}

#[test]
fn changes_survive_restarts_with_lower_numbers_than_new_ones() {
    let (medium, mut store) = versioned();
    let log = store.log();
    let before = store.run(async {
        for seed in 1..6 {
            put_version(&log, &format!("k{}", seed % 2), seed, 10).await.unwrap();
        }
        log.changes(0, 99, |_, _| true, |_| true).await
    });
    drop((log, store));
    medium.crash(LOST);
    for round in 0..2 {
        let mut store = Store::maintained(&medium, options(1)).unwrap();
        let log = store.log();
        store.run(async {
            let recovered = log.store().recovered_through();
            assert!(recovered >= before.settled, "round {round}");
            assert!(log.store().settled() >= recovered);
            let again = log.changes(0, 99, |_, _| true, |_| true).await;
            assert_eq!(again.found[..before.found.len()], before.found, "round {round}");
            assert_eq!(log.changes(recovered, 9, |_, _| true, |_| true).await.found, []);
            put_version(&log, "new", 10 + round, 10).await.unwrap();
            assert_eq!(rows(&versions_after(&log, recovered, 9).await), [("new", 10 + round)]);
        });
        drop(log);
        store.close();
    }
}

/// A power failure can bring back a version that a pass did not see.
#[test]
fn deferred_overwrite_makes_result_unstable_until_flush() {
    let medium = new_medium(1);
    format(&medium, CAPACITY).unwrap();
    let deferred = || OpenOptions { durability: Durability::Deferred, ..options(1) };
    let mut store = Store::open_with(&medium, deferred()).unwrap();
    let log = store.log();
    let (hidden, settled) = store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        put(&log, "k", 1, 10).await.unwrap();
        assert_eq!(rows(&versions_after(&log, 0, 9).await), [], "nothing is durable");
        log.flush().await.unwrap();
        let durable = versions_after(&log, 0, 9).await;
        assert_eq!(rows(&durable), [("k", 1)]);
        assert!(durable.stable_at <= log.store().settled());
        put(&log, "k", 2, 10).await.unwrap();
        let changes = versions_after(&log, 0, 9).await;
        assert_eq!(rows(&changes), []);
        assert!(changes.settled >= durable.found[0].number && changes.stable_at > log.store().settled());
        (durable.found, changes.settled)
    });
    drop((log, store));
    medium.crash(LOST);
    let mut store = Store::open_with(&medium, deferred()).unwrap();
    let log = store.log();
    store.run(async {
        assert_eq!(versions_after(&log, 0, 9).await.found, hidden);
        assert_eq!(versions_after(&log, settled, 9).await.found, [], "a watermark stored too early");
        put(&log, "k", 3, 10).await.unwrap();
        let changes = versions_after(&log, 0, 9).await;
        log.flush().await.unwrap();
        assert!(changes.stable_at <= log.store().settled());
    });
}

/// With small limits, current versions become noncurrent and versions are deleted during the pass.
#[test]
fn change_during_pass_hides_no_other_change() {
    let (_medium, mut store) = versioned();
    let log = store.log();
    store.run(async {
        let mut ids = Vec::new();
        for seed in 0..40 {
            ids.push(put_version(&log, &format!("k{:02}", seed / 2), seed, 10).await.unwrap());
        }
        let all = versions_after(&log, 0, 99).await;
        let writes = async {
            for n in [5, 9, 12, 19] {
                put_version(&log, &format!("k{n:02}"), 100, 10).await.unwrap();
                log.delete_version("bucket", &format!("k{n:02}"), ids[2 * n], 101, false).await.unwrap();
            }
        };
        let (pass, ()) = join(versions_after(&log, 0, 99), writes).await;
        assert_eq!(pass.settled, all.settled, "taken at the beginning");
        let remaining: Vec<u64> = versions(&log, 100).into_iter().map(|info| info.seq).collect();
        let expected = all.found.iter().filter(|change| remaining.contains(&change.number));
        for change in expected {
            assert!(pass.found.iter().any(|found| found.number == change.number), "{change:?}");
        }
        assert!(pass.found.iter().all(|change| all.found.iter().any(|known| known.number == change.number)));
    });
}

/// The predicates run only for changes in the range.
#[test]
fn predicate_is_not_called_out_of_range() {
    let (_medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    store.run(async {
        put(&log, "a", 1, 10).await.unwrap();
        put(&log, "b", 2, 10).await.unwrap();
        let first = versions_after(&log, 0, 1).await.found[0].number;
        let called = RefCell::new(Vec::new());
        let concerns = |_: &str, key: &str| {
            called.borrow_mut().push(key.to_owned());
            true
        };
        log.changes(first, 9, concerns, |_| false).await;
        assert_eq!(called.into_inner(), ["b"]);
    });
}

#[test]
fn imported_version_is_a_change_with_its_id() {
    let (_medium, mut store) = versioned();
    let log = store.log();
    store.run(async {
        let id = VersionId::Id([7; 16]);
        let object = object_of(&log, "k", 1, 10).await.unwrap();
        log.import_version(object, id, Default::default()).await.unwrap();
        let changes = versions_after(&log, 0, 9).await;
        let [Change { what: Changed::Version(info), .. }] = &changes.found[..] else { panic!("{changes:?}") };
        assert_eq!(info.version, id);
    });
}
