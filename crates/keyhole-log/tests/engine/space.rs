//! File systems filled by others, and those where allocation guarantees too little.

use std::sync::Arc;

use keyhole_log::limits::{FILL_BATCH_MAX, FILL_STEP, PAGE, SEGMENTS_START, SPACE_ASK_AFTER};
use keyhole_log::{Condition, Error, Log};
use keyhole_sim::disk::{FileSystem, Medium, SimDisk};
use keyhole_sim::executor::Turn;
use keyhole_sim::random::Random;

use crate::support::store::{CAPACITY, SEGMENT_LEN, Store, format, get, options, put};
use crate::support::{CRASHES, LOST, drop_unused_space, new_medium};

const SEGMENTS: u64 = 40;

/// Maximum changes of the medium per refused request.
const CHANGES_PER_REFUSAL: u64 = 2;

/// Creates a maintained store that its capacity does not limit.
fn fresh(file_system: FileSystem, space: u64) -> (Arc<Medium>, Store) {
    let medium = new_medium(1);
    medium.update_faults(|faults| faults.file_system = file_system);
    medium.set_size(space);
    format(&medium, SEGMENTS_START + SEGMENTS * SEGMENT_LEN).unwrap();
    let mut store = Store::maintained(&medium, options(1)).unwrap();
    let log = store.log();
    store.run(async { log.create_bucket("bucket", 1).await.unwrap() });
    drop(log);
    (medium, store)
}

/// Stores objects until the store is full. Returns their number.
async fn fill(log: &Log<SimDisk>, len: usize) -> u64 {
    let mut stored = 0;
    loop {
        match put(log, &format!("k{stored}"), stored, len).await {
            Ok(()) => stored += 1,
            Err(Error::Full | Error::InDoubt) => return stored,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn delete(log: &Log<SimDisk>, keys: std::ops::Range<u64>) {
    for key in keys {
        let deleted = log.delete_object("bucket", &format!("k{key}"), 1, Condition::None).await;
        assert!(deleted.unwrap(), "k{key}");
    }
}

/// Fills the file system by others while blank segments of the store are discarded.
fn filled_by_others() -> (Arc<Medium>, Store) {
    let (medium, mut store) = fresh(FileSystem::Ext4, u64::MAX);
    let log = store.log();
    store.run(async {
        for key in 0..25 {
            put(&log, &format!("k{key}"), key, 1 << 20).await.unwrap();
        }
        delete(&log, 5..25).await;
        log.compact().await.unwrap();
    });
    let stats = log.store().stats();
    assert!(stats.cleaner.segments_discarded > 3, "{:?}", stats.cleaner);
    medium.set_size(SEGMENTS_START + SEGMENTS * SEGMENT_LEN);
    medium.fill_by_others();
    (medium, store)
}

#[test]
fn put_on_file_system_filled_by_others_is_refused_at_bounded_cost() {
    let (medium, mut store) = filled_by_others();
    let log = store.log();
    store.run(async {
        fill(&log, 100_000).await;
        let work = || medium.counters().changes;
        let before = work();
        for seed in 0..500 {
            assert!(matches!(put(&log, "k1", seed, 100_000).await, Err(Error::Full)));
        }
        let operations = work() - before;
        assert!(operations <= 500 * CHANGES_PER_REFUSAL, "{operations} operations for 500 refusals");
        assert_eq!(get(&log, "k1").await, Some(1));
        delete(&log, 0..1).await;
        assert!(!log.store().poisoned());
    });
}

#[test]
fn put_succeeds_without_restart_when_space_comes_back() {
    for is_told in [false, true] {
        let (medium, mut store) = filled_by_others();
        let log = store.log();
        store.run(async {
            fill(&log, 100_000).await;
            medium.release_by_others();
            if is_told {
                log.store().expect_space();
            }
            let attempts = if is_told { 1 } else { SPACE_ASK_AFTER };
            let mut refused = 0;
            while put(&log, "k1", 1001, 100_000).await.is_err() {
                refused += 1;
                assert!(refused < attempts, "refused {refused} times though there is space");
            }
            assert_eq!(get(&log, "k1").await, Some(1001));
            assert!(fill(&log, 100_000).await > 0);
        });
    }
}

#[test]
fn waiting_requests_share_one_space_probe() {
    let (medium, mut store) = filled_by_others();
    let log = store.log();
    store.run(async {
        fill(&log, 100_000).await;
        log.store().expect_space();
        let before = medium.counters().allocations;
        let keys: Vec<String> = (0..50).map(|i| format!("n{i}")).collect();
        let puts = keys.iter().zip(0..).map(|(key, seed)| put(&log, key, seed, 100_000));
        let results = futures_util::future::join_all(puts).await;
        assert!(results.into_iter().all(|result| matches!(result, Err(Error::Full))));
        assert_eq!(medium.counters().allocations - before, 1);
    });
}

/// Without a reserve, a checkpoint gets its segment from a probe that another request has begun.
#[test]
fn checkpoint_waits_for_space_probe_in_flight() {
    let (medium, mut store) = fresh(FileSystem::Ext4, u64::MAX);
    let log = store.log();
    store.run(async { put(&log, "k", 1, 100).await.unwrap() });
    drop(log);
    store.close();
    drop_unused_space(&medium, SEGMENT_LEN);
    medium.set_size(SEGMENTS_START + SEGMENTS * SEGMENT_LEN);
    medium.fill_by_others();
    let mut store = Store::maintained(&medium, options(1)).unwrap();
    let log = store.log();
    store.run(async {
        let mut written = 0;
        while log.checkpoint().await.is_ok() {
            written += 1;
            assert!(written < 1000, "checkpoints are written without space");
        }
        medium.release_by_others();
        log.store().expect_space();
        medium.update_faults(|faults| faults.hold_allocations = true);
        let release = async {
            for _ in 0..1000 {
                Turn::once().await;
            }
            medium.update_faults(|faults| faults.hold_allocations = false);
        };
        let put = put(&log, "k", 2, 1 << 20);
        let checkpoint = async {
            for _ in 0..100 {
                Turn::once().await;
            }
            log.checkpoint().await
        };
        let (put, checkpoint, ()) = futures_util::join!(put, checkpoint, release);
        put.unwrap();
        checkpoint.unwrap();
        assert_eq!(get(&log, "k").await, Some(2));
    });
}

/// On a full XFS, allocating an allocated range fails.
#[test]
fn store_on_full_xfs_is_usable_again_when_its_objects_are_deleted() {
    for restart in [false, true] {
        let space = SEGMENTS_START + 20 * SEGMENT_LEN;
        let (medium, mut store) = fresh(FileSystem::Xfs, space);
        let mut log = store.log();
        let stored = store.run(async {
            let stored = fill(&log, 300_000).await;
            medium.fill_by_others();
            delete(&log, 0..stored).await;
            stored
        });
        assert!(stored > 50, "{stored}");
        if restart {
            drop(log);
            store.close();
            medium.crash(LOST);
            store = Store::maintained(&medium, options(1)).unwrap();
            log = store.log();
        }
        store.run(async {
            for round in 0..4 {
                for key in 0..stored / 2 {
                    put(&log, &format!("k{key}"), round * 1000 + key, 300_000).await.unwrap();
                }
            }
            assert_eq!(get(&log, "k0").await, Some(3000));
        });
    }
}

/// Expected state of a key: the last acknowledged value, and those in doubt since,
/// which a crash may restore.
#[derive(Clone, Debug, Default)]
struct Expected {
    acknowledged: Option<u64>,
    in_doubt: Vec<Option<u64>>,
}

/// Random writes and deletes while others fill and free the file system.
struct Life<'a> {
    medium: &'a Arc<Medium>,
    random: &'a mut Random,
    expected: &'a mut [Expected],
    refusals: u64,
    doubts: u64,
}

impl Life<'_> {
    async fn step(&mut self, log: &Log<SimDisk>, seed: u64) {
        match self.random.below(40) {
            0 => self.medium.fill_by_others(),
            1..3 => self.medium.release_by_others(),
            3 => assert!(matches!(log.checkpoint().await, Ok(()) | Err(Error::Full))),
            4 => log.store().expect_space(),
            _ => {}
        }
        let key = self.random.below(self.expected.len() as u64) as usize;
        let name = format!("k{key}");
        let written = !self.random.chance(30);
        let result = if written {
            let lens = [100, 5000, 70_000, 300_000];
            put(log, &name, seed, lens[self.random.below(4) as usize]).await.map(|()| true)
        } else {
            log.delete_object("bucket", &name, seed, Condition::None).await
        };
        let value = written.then_some(seed);
        match result {
            // Deleting an absent object writes no record.
            Ok(false) => assert_eq!(self.expected[key].acknowledged, None, "{name}"),
            Ok(true) => {
                self.expected[key].acknowledged = value;
                self.expected.iter_mut().for_each(|expected| expected.in_doubt.clear());
            }
            Err(Error::Full) => {
                self.refusals += 1;
            }
            Err(Error::InDoubt) => {
                self.doubts += 1;
                self.expected[key].in_doubt.push(value);
            }
            Err(error) => panic!("{name}: {error}"),
        }
        assert_eq!(get(log, &name).await, self.expected[key].acknowledged, "{name}");
    }
}

/// A write that fails for lack of space is refused without effect: the log is not poisoned, and
/// acknowledged writes hold.
#[test]
fn write_without_space_is_refused_and_poisons_nothing() {
    let mut refusals = 0;
    let mut doubts = 0;
    for (seed, file_system) in (0..12).flat_map(|seed| [(seed, FileSystem::NoExtents), (seed, FileSystem::Btrfs)]) {
        let space = SEGMENTS_START + SEGMENTS * SEGMENT_LEN;
        let (medium, mut store) = fresh(file_system, space);
        let mut random = Random::new(seed + 1);
        let mut expected = vec![Expected::default(); 20];
        for opening in 0..4 {
            let log = store.log();
            let mut life =
                Life { medium: &medium, random: &mut random, expected: &mut expected, refusals: 0, doubts: 0 };
            store.run(async {
                for step in 0..150 {
                    life.step(&log, opening * 1000 + step).await;
                }
            });
            refusals += life.refusals;
            doubts += life.doubts;
            assert!(!log.store().poisoned(), "{file_system:?} {seed}");
            drop(log);
            if random.chance(50) {
                store.close();
            } else {
                drop(store);
            }
            let crash = CRASHES[random.below(4) as usize];
            medium.crash(crash);
            medium.release_by_others();
            store = Store::maintained(&medium, options(1)).unwrap();
            assert_eq!(store.recovery.damaged, [], "{file_system:?} {seed} {crash:?}");
            let log = store.log();
            for (key, expected) in expected.iter_mut().enumerate() {
                let found = store.run(get(&log, &format!("k{key}")));
                let may_be = found == expected.acknowledged || expected.in_doubt.contains(&found);
                assert!(may_be, "{file_system:?} {seed} {crash:?}: k{key} is {found:?} of {expected:?}");
                *expected = Expected { acknowledged: found, in_doubt: Vec::new() };
            }
        }
    }
    assert!(refusals > 150 && doubts > 0, "{refusals} refused, {doubts} in doubt");
}

/// Writes in doubt are decided once there is space, even without new writes:
/// their names are free again.
#[test]
fn write_in_doubt_is_decided_when_space_is_expected() {
    let (medium, mut store) = fresh(FileSystem::Btrfs, SEGMENTS_START + SEGMENTS * SEGMENT_LEN);
    let log = store.log();
    let seed = store.run(async {
        fill(&log, 300_000).await;
        let mut seed = 0;
        // Writes fail at random, until one fails that cannot be revoked either.
        loop {
            medium.fill_by_others();
            log.store().expect_space();
            seed += 1;
            assert!(seed < 10_000, "no write was in doubt");
            match put(&log, &format!("n{seed}"), seed, 100).await {
                Err(Error::InDoubt) => break seed,
                Ok(()) | Err(Error::Full) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
    assert!(log.store().activity().in_doubt);
    medium.release_by_others();
    log.store().expect_space();
    store.run_until_stalled();
    assert!(!log.store().activity().in_doubt, "nothing decides it");
    assert_eq!(store.run(get(&log, &format!("n{seed}"))), None);
}

/// Deletions have space in already written segments, wherever writes fail.
#[test]
fn delete_succeeds_on_full_file_system_whose_allocations_promise_nothing() {
    let (medium, mut store) = fresh(FileSystem::NoExtents, SEGMENTS_START + 12 * SEGMENT_LEN);
    let log = store.log();
    store.run(async {
        let stored = fill(&log, 300_000).await;
        assert!(stored > 20, "{stored}");
        medium.fill_by_others();
        delete(&log, 0..stored).await;
        assert!(!log.store().poisoned());
    });
    drop(log);
    store.close();
    medium.crash(LOST);
    let store = Store::maintained(&medium, options(1)).unwrap();
    assert_eq!((store.recovery.objects, store.recovery.damaged.len()), (0, 0));
}

/// Filling a META segment is a one-time cost: its batches then overwrite written space.
#[test]
fn durable_put_is_one_write_into_written_space() {
    let (medium, mut store) = fresh(FileSystem::Ext4, u64::MAX);
    let log = store.log();
    store.run(async {
        for seed in 0..600 {
            put(&log, "k", seed, 4096).await.unwrap();
        }
        let before = log.store().stats();
        let first_writes = medium.counters().first_writes;
        let syncs = medium.counters().syncs;
        for seed in 600..1600 {
            put(&log, "k", seed, 4096).await.unwrap();
        }
        let after = log.store().stats();
        assert_eq!(after.written.records - before.written.records, 1000 * 8192, "two pages each");
        let first_writes = medium.counters().first_writes - first_writes;
        assert!(first_writes < 20, "{first_writes} writes changed metadata of the file system");
        let syncs = medium.counters().syncs - syncs;
        assert!(syncs < 1000 + 40, "{syncs} syncs");
    });
}

/// A batch of at most `FILL_BATCH_MAX` overwrites space that was filled in steps of `FILL_STEP`; a
/// longer one is written without filling ahead.
#[test]
fn batch_over_the_fill_limit_is_written_without_filling_ahead() {
    let first_writes = |len: usize| {
        let medium = new_medium(1);
        format(&medium, CAPACITY).unwrap();
        let mut store = Store::open(&medium, 1);
        let log = store.log();
        store.run(async {
            log.create_bucket("bucket", 1).await.unwrap();
            let other = log.store().stats().written.other;
            assert_eq!(other, (PAGE + FILL_STEP) as u64, "a header, and the first step");
            let before = medium.counters().first_writes;
            for seed in 0..100 {
                put(&log, "k", 2 * seed, len).await.unwrap();
            }
            medium.counters().first_writes - before
        })
    };
    // The records of a body and of its object take less than a page beside the bytes.
    let filled = first_writes(FILL_BATCH_MAX - PAGE);
    let not_filled = first_writes(FILL_BATCH_MAX);
    assert!(filled <= 12 && not_filled >= 40, "{filled} {not_filled} writes into space not written before");
}
