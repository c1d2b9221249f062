//! Full and failing disks, and foreign files.

use std::rc::Rc;
use std::sync::Arc;

use futures_executor::LocalPool;

use keyhole_log::limits::{SEGMENT_LEN_MAX, SEGMENT_LEN_MIN, SEGMENTS_START, WORKERS_MAX, capacity_min};
use keyhole_log::{Condition, Durability, Error, Format, OpenOptions, create, open};
use keyhole_sim::disk::{ALWAYS, Medium, SimDisk};

use crate::support::store::{CAPACITY, SEGMENT_LEN, Store, format, get, options, put};
use crate::support::{LOST, new_medium};

fn capacity(segments: u64) -> u64 {
    SEGMENTS_START + segments * SEGMENT_LEN
}

/// Fills the store, and checks that all other operations still work.
fn check_full(medium: &Arc<Medium>, mut store: Store, len: usize) {
    let log = store.log();
    let stored = store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        let mut stored = 0;
        loop {
            match put(&log, &format!("k{stored}"), stored, len).await {
                Ok(()) => stored += 1,
                Err(Error::Full) => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(stored > 5, "{stored}");
        assert!(matches!(put(&log, "another", 1, len).await, Err(Error::Full)), "still");
        for seed in 0..stored {
            assert_eq!(get(&log, &format!("k{seed}")).await, Some(seed));
        }
        assert_eq!(get(&log, "another").await, None);
        stored
    });
    let usage = log.store().usage();
    assert!(usage.allocated <= usage.capacity && !log.store().poisoned());
    drop(log);
    store.close();
    medium.crash(LOST);
    let mut store = Store::open(medium, 1);
    let log = store.log();
    assert_eq!((store.recovery.objects, store.recovery.damaged.len()), (stored, 0));
    let again = log.store().usage();
    assert_eq!((again.live, again.bodies, again.allocated), (usage.live, usage.bodies, usage.allocated));
    store.run(async {
        for seed in 0..stored {
            assert_eq!(get(&log, &format!("k{seed}")).await, Some(seed));
        }
    });
}

#[test]
fn put_at_capacity_is_refused_as_full() {
    for len in [60_000, 1 << 20, 3_000_000] {
        let medium = new_medium(1);
        format(&medium, capacity(24)).unwrap();
        let store = Store::open(&medium, 1);
        check_full(&medium, store, len);
    }
}

#[test]
fn put_on_full_file_system_is_refused_as_full() {
    for len in [60_000, 1 << 20] {
        let medium = new_medium(1);
        medium.set_size(capacity(10) + 4096);
        format(&medium, capacity(100)).unwrap();
        let store = Store::open(&medium, 1);
        check_full(&medium, store, len);
    }
}

#[test]
fn deletion_succeeds_on_full_disk() {
    let medium = new_medium(1);
    format(&medium, capacity(16)).unwrap();
    let mut store = Store::open(&medium, 1);
    let log = store.log();
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        let mut stored = 0;
        while put(&log, &format!("k{stored}"), stored, 30_000).await.is_ok() {
            stored += 1;
        }
        assert!(stored > 500);
        // One page each: more than the rest of the last segment, which was too short for an object
        // of eight pages.
        for i in 0..300 {
            assert!(
                log.delete_object("bucket", &format!("k{i}"), 1, Condition::None).await.unwrap(),
                "{i} of {stored}"
            );
        }
        // Objects cannot use the reserve for deletions.
        assert!(matches!(put(&log, "k", 1, 5).await, Err(Error::Full)));
    });
}

#[test]
fn failed_write_or_sync_poisons_the_log() {
    for sync in [false, true] {
        for len in [100, 200_000] {
            let (medium, mut store) = Store::fresh(1, 2);
            let log = store.logs[0].clone();
            let other = store.logs[1].clone();
            store.run(async {
                log.create_bucket("bucket", 1).await.unwrap();
                put(&log, "k", 1, len).await.unwrap();
                medium.update_faults(|faults| faults.sync = if sync { ALWAYS } else { 0 });
                medium.update_faults(|faults| faults.write = if sync { 0 } else { ALWAYS });
                assert!(matches!(put(&log, "k", 2, len).await, Err(Error::Io(_))));
                medium.update_faults(|faults| faults.sync = 0);
                medium.update_faults(|faults| faults.write = 0);
                // From here on no worker can write; reads go on.
                assert!(matches!(put(&log, "k", 3, len).await, Err(Error::Poisoned)));
                assert!(matches!(put(&other, "x", 3, len).await, Err(Error::Poisoned)));
                assert!(matches!(other.delete_object("bucket", "k", 1, Condition::None).await, Err(Error::Poisoned)));
                assert!(matches!(other.create_bucket("b", 1).await, Err(Error::Poisoned)));
                assert!(log.store().poisoned());
                assert_eq!(get(&other, "k").await, Some(1));
            });
            drop((log, other));
            store.close();
            medium.crash(LOST);
            let mut store = Store::open(&medium, 2);
            let log = store.log();
            assert!(store.recovery.damaged.is_empty());
            store.run(async {
                assert_eq!(get(&log, "k").await, Some(1));
                put(&log, "k", 4, len).await.unwrap();
                assert_eq!(get(&log, "k").await, Some(4));
            });
        }
    }
}

#[test]
fn flush_under_deferred_durability_syncs_once() {
    let (medium, store) = Store::fresh(1, 1);
    store.close();
    let deferred = OpenOptions { durability: Durability::Deferred, ..options(1) };
    let mut store = Store::open_with(&medium, deferred.clone()).unwrap();
    let log = store.log();
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        put(&log, "a", 1, 100_000).await.unwrap();
        let before = medium.counters().syncs;
        log.flush().await.unwrap();
        assert_eq!(medium.counters().syncs, before + 1);
        put(&log, "b", 2, 100_000).await.unwrap();
        put(&log, "a", 3, 100).await.unwrap();
        assert_eq!(medium.counters().syncs, before + 1);
    });
    // After a power failure, flushed writes are there.
    drop((log, store));
    medium.crash(LOST);
    let mut store = Store::open_with(&medium, deferred).unwrap();
    let log = store.log();
    store.run(async {
        assert_eq!((get(&log, "a").await, get(&log, "b").await), (Some(1), None));
        // Many concurrent flushes share a few syncs.
        put(&log, "b", 4, 100).await.unwrap();
    });
    drop(log);
    store.close();
    medium.crash(LOST);
    let mut store = Store::open(&medium, 1);
    let log = store.log();
    store.run(async {
        assert_eq!(get(&log, "b").await, Some(4), "an orderly end is durable");
        let before = medium.counters().syncs;
        let keys: Vec<String> = (0..50).map(|i| format!("k{i}")).collect();
        let puts = keys.iter().zip(0..).map(|(key, seed)| put(&log, key, seed, 1000));
        assert!(futures_util::future::join_all(puts).await.into_iter().all(|result| result.is_ok()));
        let syncs = medium.counters().syncs - before;
        assert!(syncs <= 4, "{syncs} syncs for 50 objects at once");
    });
}

#[test]
fn capacity_bounds_segments_and_workers() {
    let refused = |result: Result<(), Error>| matches!(result, Err(Error::Capacity(_)));
    let try_format = |capacity, segment_len| {
        let format = Format { store_id: [1; 16], capacity, segment_len, created_ms: 0 };
        LocalPool::new().run_until(create(&SimDisk::in_turns(&new_medium(1)), &format))
    };
    for segment_len in [SEGMENT_LEN_MIN, SEGMENT_LEN] {
        let least = capacity_min(segment_len, 1);
        assert_eq!(least, SEGMENTS_START + 14 * segment_len);
        assert!(try_format(least, segment_len).is_ok());
        let refusal = try_format(least - 1, segment_len).unwrap_err();
        assert!(refusal.to_string().contains(&least.to_string()), "it names the least capacity: {refusal}");
    }
    assert!(refused(try_format(1 << 40, SEGMENT_LEN_MIN / 2)));
    assert!(refused(try_format(1 << 40, SEGMENT_LEN_MIN + 4096)));
    assert!(refused(try_format(1 << 40, SEGMENT_LEN_MAX * 2)));
    assert!(try_format(1 << 40, SEGMENT_LEN_MAX).is_ok());
    assert!(refused(try_format(1 << 46, SEGMENT_LEN_MIN)), "too many segments");

    let medium = new_medium(1);
    format(&medium, capacity(18)).unwrap();
    let open = |workers, capacity| {
        let options = OpenOptions { capacity, ..options(workers) };
        let opened = LocalPool::new().run_until(open(&SimDisk::in_turns(&medium), options));
        opened.map(|(store, _)| store.workers())
    };
    let is_refused = |opened: Result<usize, Error>| matches!(opened, Err(Error::Capacity(_)));
    assert!(is_refused(open(0, None)));
    assert!(is_refused(open(WORKERS_MAX + 1, None)));
    // With more than two workers the cleaner might have no room.
    assert_eq!(open(2, None).unwrap(), 2);
    assert_eq!(open(WORKERS_MAX, None).unwrap(), 2);
    assert_eq!(open(WORKERS_MAX, Some(capacity(22))).unwrap(), 3);
    assert!(is_refused(open(1, Some(capacity(14) - 1))));
    assert_eq!(open(4, Some(capacity(14))).unwrap(), 1);
    open(3, Some(capacity(32))).unwrap();
    let mut store = Store::open(&medium, 3);
    let log = store.log();
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        for key in ["a", "b", "c", "d", "e", "f", "g", "h", "i"] {
            put(&log, key, 2, 3 << 20).await.unwrap();
        }
    });
    drop(log);
    store.close();
    assert!(is_refused(open(1, Some(capacity(14)))), "more is in use");
    open(1, Some(capacity(18))).unwrap();
}

#[test]
fn open_of_foreign_file_is_refused() {
    let check = |bytes: Vec<u8>| {
        let medium = new_medium(1);
        medium.set_content(&bytes);
        LocalPool::new().run_until(open(&SimDisk::in_turns(&medium), options(1))).expect_err("refused")
    };
    assert!(matches!(check(Vec::new()), Error::Foreign(_)));
    assert!(matches!(check(vec![b'x'; 100]), Error::Foreign(_)));
    assert!(matches!(check(vec![0; 2 << 20]), Error::Foreign(_)));
    assert!(matches!(check(vec![b'x'; 2 << 20]), Error::Foreign(_)));

    let medium = new_medium(1);
    format(&medium, CAPACITY).unwrap();
    let good = medium.content();
    for found in [0u8, 1, 6] {
        let mut other = good.clone();
        other[8] = found;
        other[(512 << 10) + 8] = found;
        let error = check(other);
        assert!(
            matches!(error, Error::UnsupportedVersion { found: f, supported: 5 } if f == u32::from(found)),
            "{error}"
        );
        assert!(error.to_string().contains("release"), "it says what to do: {error}");
    }
    let mut both = good.clone();
    both[40] = 0xff;
    both[(512 << 10) + 40] = 0xff;
    assert!(matches!(check(both), Error::Damaged(_)));

    // One bad copy is reported and repaired.
    for copy in [0, 512 << 10] {
        for at in [0, 8, 20, 3000] {
            let medium = new_medium(1);
            medium.set_content(&good);
            medium.edit(|bytes| bytes[copy + at] ^= 1);
            let store = Store::open(&medium, 1);
            assert!(store.recovery.mended && store.recovery.damaged.is_empty());
            store.close();
            assert!(medium.content() == good, "mended");
        }
    }
}

#[test]
#[should_panic(expected = "more workers than the log was opened for")]
fn worker_over_the_opened_count_panics() {
    let (medium, store) = Store::fresh(1, 1);
    drop(keyhole_log::worker(store.log().store().clone(), Rc::new(SimDisk::in_turns(&medium))));
}
