//! Unwritable ranges of the medium during recovery. Recovery does without writes there, and cut
//! tails stay cut, with a crash after each step.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use futures_executor::LocalPool;
use futures_util::task::LocalSpawnExt;

use keyhole_log::limits::{PAGE, SEGMENTS_START, SUPERBLOCK_AT};
use keyhole_log::{Error, Log, Recovery, SegmentKind, SegmentState, maintenance, open, worker};
use keyhole_sim::disk::{ALWAYS, Crash, Medium, SimDisk};

use crate::support::store::{SEGMENT_LEN, Store, get, options, put};
use crate::support::{CRASHES, LOST, TORN, word};

const BAD: u64 = PAGE as u64;

/// Possible values of each key: the seed acknowledged last, and those of unacknowledged writes.
type Model = Rc<RefCell<BTreeMap<String, Vec<Option<u64>>>>>;

/// A medium with an unwritable range, after a first run.
struct Case {
    medium: Arc<Medium>,
    model: Model,
}

/// Returns the end offset of the fullest open segment of a kind.
fn end_of(log: &Log<SimDisk>, kind: SegmentKind) -> u64 {
    let stats = log.store().stats();
    let open = stats.segments.iter().filter(|s| s.kind == kind && s.state == SegmentState::Open);
    let fullest = open.max_by_key(|segment| segment.written).expect("it has been written to");
    SEGMENTS_START + u64::from(fullest.number) * SEGMENT_LEN + fullest.written
}

/// Stores ten objects and fails to overwrite one. `mark` then sets the unwritable ranges.
fn failed(seed: u64, how: Crash, len: usize, mark: impl Fn(&Log<SimDisk>, &Medium)) -> Case {
    let (medium, store) = Store::fresh(seed, 1);
    store.close();
    let mut store = Store::maintained(&medium, options(1)).unwrap();
    let log = store.log();
    let model = Model::default();
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        log.checkpoint().await.unwrap();
        for i in 0..10 {
            put(&log, &format!("k{i}"), i, if i % 2 == 0 { 1000 } else { 100_000 }).await.unwrap();
            model.borrow_mut().insert(format!("k{i}"), vec![Some(i)]);
        }
        mark(&log, &medium);
        if put(&log, "k0", 50, len).await.is_err() {
            model.borrow_mut().insert("k0".to_owned(), vec![Some(0), Some(50)]);
        } else {
            model.borrow_mut().insert("k0".to_owned(), vec![Some(50)]);
        }
    });
    drop((log, store));
    medium.crash(how);
    medium.update_faults(|faults| faults.sync = 0);
    Case { medium, model }
}

/// Opens the log, stores objects and closes it, as far as the medium permits.
fn live(case: &Case, first: u64, stop: Option<u64>) -> (Option<Recovery>, bool) {
    let medium = Arc::clone(&case.medium);
    medium.stop_after_changes(stop);
    let found = Rc::new(RefCell::new(None));
    let done = Rc::new(RefCell::new(false));
    let life = {
        let found = found.clone();
        let done = done.clone();
        let model = case.model.clone();
        async move {
            let disk = Rc::new(SimDisk::in_turns(&medium));
            let (store, recovery) = open(&*disk, options(1)).await.unwrap();
            *found.borrow_mut() = Some(recovery);
            let (log, writer) = worker(store.clone(), disk.clone());
            let (keeper, keepers) = maintenance(store, disk);
            let client = async move {
                for i in 0..6 {
                    let key = format!("k{}", 3 + i);
                    let seed = first + i;
                    model.borrow_mut().get_mut(&key).unwrap().push(Some(seed));
                    put(&log, &key, seed, if i % 2 == 0 { 2000 } else { 120_000 }).await.unwrap();
                    model.borrow_mut().insert(key, vec![Some(seed)]);
                }
            };
            futures_util::join!(client, writer.run(), keepers.run(), keeper.run());
            *done.borrow_mut() = true;
        }
    };
    let mut pool = LocalPool::new();
    pool.spawner().spawn_local(life).unwrap();
    pool.run_until_stalled();
    drop(pool);
    let is_done = *done.borrow();
    (found.borrow_mut().take(), is_done)
}

/// Opens the log with one worker and checks all values.
#[track_caller]
fn check(case: &Case, of: &str) {
    let mut store = Store::open(&case.medium, 1);
    assert_eq!(store.recovery.damaged, [], "{of}");
    assert_eq!(store.recovery.read_only, None, "{of}");
    let log = store.log();
    let model = case.model.borrow().clone();
    store.run(async {
        for (key, may_be) in &model {
            let is = get(&log, key).await;
            assert!(may_be.contains(&is), "{of}: {key} is {is:?}, may be {may_be:?}");
        }
    });
}

/// Opens a log with unwritable ranges twice, with a crash after each step of the
/// first and of the second run.
fn check_every_crash(make: impl Fn(Crash, u64) -> Case) {
    for (how, seed) in [LOST, TORN].into_iter().zip(1..) {
        for after in [LOST, TORN] {
            let mut stop = 0;
            loop {
                let case = make(how, seed);
                let of = format!("{how:?}, then {after:?} after {stop} steps");
                let (recovery, is_done) = live(&case, 100, Some(stop));
                if let Some(recovery) = recovery {
                    assert_eq!((recovery.damaged, recovery.read_only), (vec![], None), "{of}");
                }
                case.medium.crash(after);
                let (recovery, is_done_again) = live(&case, 200, None);
                assert!(recovery.is_some_and(|recovery| recovery.damaged.is_empty()) && is_done_again, "{of}");
                case.medium.crash(LOST);
                check(&case, &of);
                if is_done {
                    break;
                }
                stop += 7;
            }
        }
    }
}

/// The failed batch may be on disk or not; if it is, the mark goes elsewhere.
#[test]
fn unwritable_segment_end_is_skipped() {
    check_every_crash(|how, seed| {
        failed(seed, how, 1000, |log, medium| {
            let at = end_of(log, SegmentKind::Meta);
            medium.add_unwritable(at..at + BAD);
        })
    });
}

/// A whole batch with missing blocks: it must be cut, and the cut cannot be written.
fn uncut(how: Crash, seed: u64) -> Case {
    let meta = RefCell::new(0);
    let body = RefCell::new(0);
    let case = failed(seed, Crash::Process, 100_000, |log, medium| {
        *meta.borrow_mut() = end_of(log, SegmentKind::Meta);
        *body.borrow_mut() = end_of(log, SegmentKind::Body);
        medium.update_faults(|faults| faults.sync = ALWAYS);
    });
    let meta = *meta.borrow();
    let body = *body.borrow();
    // The block was never durable; how much of it is torn depends on the kind of crash.
    let len = if how == LOST { 60_000 } else { 512 };
    case.medium.edit(|bytes| bytes[body as usize + 4096..][..len].fill(0x11));
    case.medium.add_unwritable(meta..meta + BAD);
    case.model.borrow_mut().insert("k0".to_owned(), vec![Some(0)]);
    case
}

#[test]
fn tail_with_unwritable_cut_stays_cut() {
    let case = uncut(LOST, 1);
    let mut store = Store::open(&case.medium, 1);
    assert_eq!((store.recovery.cut, &store.recovery.read_only), (1, &None));
    let log = store.log();
    assert_eq!(store.run(get(&log, "k0")), Some(0));
    drop((log, store));
    case.medium.crash(LOST);
    check_every_crash(uncut);
}

/// After the second run both checkpoints were begun after the cut, so the
/// older one suffices as well.
#[test]
fn older_checkpoint_covers_the_cut() {
    let case = uncut(LOST, 2);
    let (_, is_done) = live(&case, 100, None);
    assert!(is_done);
    case.medium.crash(LOST);
    let newest = (word(&case.medium.content(), SUPERBLOCK_AT[0] as usize + 64) >> 17) * 8;
    case.medium.edit(|bytes| bytes[newest as usize + 90] ^= 1);
    let mut store = Store::open(&case.medium, 1);
    assert!(store.recovery.damaged.iter().all(|damage| damage.repairable), "{:?}", store.recovery.damaged);
    let log = store.log();
    let model = case.model.borrow().clone();
    store.run(async {
        for (key, may_be) in &model {
            assert!(may_be.contains(&get(&log, key).await), "{key}");
        }
    });
}

/// The first batch of a segment with a lost header must be cleared, but cannot be.
#[test]
fn unclearable_leftover_is_left_alone() {
    for after in CRASHES {
        let mut stop = 0;
        loop {
            let (medium, mut store) = Store::fresh(3, 1);
            let log = store.log();
            medium.update_faults(|faults| faults.sync = ALWAYS);
            assert!(store.run(log.create_bucket("bucket", 1)).is_err());
            drop((log, store));
            medium.crash(Crash::Process);
            medium.update_faults(|faults| faults.sync = 0);
            let start = SEGMENTS_START as usize;
            assert!(medium.content()[start..start + PAGE].iter().any(|byte| *byte != 0));
            medium.edit(|bytes| bytes[start..start + PAGE].fill(0));
            let first = SEGMENTS_START + BAD;
            medium.add_unwritable(first..first + BAD);
            medium.stop_after_changes(Some(stop));
            let is_done = make_bucket(&medium);
            // The attempt to clear the page may have succeeded in part. Then it looks writable, and
            // a later write fails.
            let lives = (0..4).position(|life| {
                // After a failed write only the process restarts; there is no
                // power failure each time.
                medium.crash(if life == 0 { after } else { Crash::Process });
                make_bucket(&medium)
            });
            assert!(lives.is_some(), "{after:?}, {stop}");
            medium.crash(LOST);
            let store = Store::open(&medium, 1);
            assert_eq!(store.recovery.damaged, [], "{after:?}, {stop}");
            assert!(store.log().bucket("bucket").is_some());
            if is_done {
                break;
            }
            stop += 1;
        }
    }
}

/// Opens the log, creates a bucket and closes the log. Returns whether all of this succeeded
/// without a failed write.
fn make_bucket(medium: &Arc<Medium>) -> bool {
    let medium = Arc::clone(medium);
    let done = Rc::new(RefCell::new(false));
    let is_done = done.clone();
    let life = async move {
        let disk = Rc::new(SimDisk::in_turns(&medium));
        let (store, recovery) = open(&*disk, options(1)).await.unwrap();
        assert_eq!((recovery.damaged, recovery.read_only), (vec![], None));
        let (log, writer) = worker(store.clone(), disk.clone());
        let (keeper, keepers) = maintenance(store, disk);
        let client = async move {
            log.create_bucket("bucket", 1).await?;
            put(&log, "a", 1, 100_000).await
        };
        let (result, ..) = futures_util::join!(client, writer.run(), keepers.run(), keeper.run());
        assert!(matches!(result, Ok(()) | Err(Error::Io(_))), "{result:?}");
        *done.borrow_mut() = result.is_ok();
    };
    let mut pool = LocalPool::new();
    pool.spawner().spawn_local(life).unwrap();
    pool.run_until_stalled();
    drop(pool);
    is_done.take()
}

/// No blocks are appended where the last run failed to write some.
#[test]
fn block_segment_with_unwritable_range_is_not_resumed() {
    check_every_crash(|how, seed| {
        failed(seed, how, 200_000, |log, medium| {
            let at = end_of(log, SegmentKind::Body);
            medium.add_unwritable(at..at + BAD);
        })
    });
}

#[test]
fn medium_without_writable_page_is_opened_read_only() {
    for first in [0, SEGMENTS_START] {
        let case = failed(4, LOST, 1000, |_, medium| medium.update_faults(|faults| faults.sync = ALWAYS));
        let bad = [SUPERBLOCK_AT[1]..SUPERBLOCK_AT[1] + BAD, first..u64::MAX];
        bad.into_iter().for_each(|bad| case.medium.add_unwritable(bad));
        let mut store = Store::maintained(&case.medium, options(1)).unwrap();
        assert!(store.recovery.read_only.as_ref().is_some_and(|why| why.contains("Input/output error")));
        let log = store.log();
        store.run(async {
            assert_eq!(get(&log, "k1").await, Some(1));
            assert!(matches!(put(&log, "k1", 7, 10).await, Err(Error::ReadOnly(_))));
        });
    }
}
