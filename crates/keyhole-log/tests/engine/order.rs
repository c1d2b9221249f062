//! Records of two workers that become durable in another order than their sequence numbers.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use futures_executor::LocalPool;
use futures_util::future::{Either, select};
use futures_util::task::LocalSpawnExt;

use keyhole_log::{Condition, Error, Expected, Log, open, worker};
use keyhole_sim::disk::{Crash, Medium, SimDisk};
use keyhole_sim::executor::Turn;

use crate::support::store::{CAPACITY, etag, format, get, options, put, put_if};
use crate::support::{LOST, new_medium};

/// Two workers. Worker 0's syncs can be held.
struct Two {
    medium: Arc<Medium>,
    pool: LocalPool,
    slow: Log<SimDisk>,
    fast: Log<SimDisk>,
    hold: Rc<Cell<bool>>,
}

fn two() -> Two {
    let medium = new_medium(1);
    format(&medium, CAPACITY).unwrap();
    let mut pool = LocalPool::new();
    let (store, _) = pool.run_until(open(&SimDisk::in_turns(&medium), options(2))).unwrap();
    let disk = SimDisk::in_turns(&medium);
    let hold = Rc::clone(&disk.hold_syncs);
    let (slow, writer) = worker(store.clone(), Rc::new(disk));
    pool.spawner().spawn_local(writer.run()).unwrap();
    let (fast, writer) = worker(store, Rc::new(SimDisk::in_turns(&medium)));
    pool.spawner().spawn_local(writer.run()).unwrap();
    pool.run_until(async { fast.create_bucket("bucket", 1).await.unwrap() });
    Two { medium, pool, slow, fast, hold }
}

/// Starts `first`, runs `later` to completion, and then lets `first` continue.
async fn overtake<A, B>(hold: &Cell<bool>, first: impl Future<Output = A>, later: impl Future<Output = B>) -> (A, B) {
    hold.set(true);
    let first = std::pin::pin!(first);
    let begun_later = std::pin::pin!(async {
        for _ in 0..100 {
            Turn::once().await;
        }
        later.await
    });
    match select(first, begun_later).await {
        Either::Left(_) => panic!("its sync is held up"),
        Either::Right((later, first)) => {
            hold.set(false);
            (first.await, later)
        }
    }
}

fn check_after_reopening(two: Two, expected: Option<u64>) {
    let Two { medium, pool, slow, fast, .. } = two;
    drop((slow, fast, pool));
    for how in [LOST, Crash::Process] {
        medium.crash(how);
        let mut store = crate::support::store::Store::open(&medium, 2);
        let log = store.log();
        assert!(store.recovery.damaged.is_empty(), "{:?}", store.recovery);
        assert_eq!(store.run(get(&log, "k")), expected);
        drop(log);
    }
}

#[test]
fn older_put_does_not_override_newer_one() {
    let mut two = two();
    let slow = two.slow.clone();
    let fast = two.fast.clone();
    two.pool.run_until(async {
        let (first, later) = overtake(&two.hold, put(&slow, "k", 1, 100), async {
            put(&fast, "k", 2, 200).await.unwrap();
            get(&fast, "k").await
        })
        .await;
        first.unwrap();
        assert_eq!(later, Some(2));
        assert_eq!(get(&fast, "k").await, Some(2));
        assert_eq!(fast.store().usage().bodies, 1, "the older body is of no use");
    });
    drop((slow, fast));
    check_after_reopening(two, Some(2));
}

#[test]
fn older_put_does_not_restore_deleted_object() {
    let mut two = two();
    let slow = two.slow.clone();
    let fast = two.fast.clone();
    two.pool.run_until(async {
        let (first, later) =
            overtake(&two.hold, put(&slow, "k", 1, 100), fast.delete_object("bucket", "k", 5, Condition::None)).await;
        first.unwrap();
        assert!(later.unwrap());
        assert_eq!(get(&fast, "k").await, None);
        assert_eq!(fast.store().usage().bodies, 0);
    });
    drop((slow, fast));
    check_after_reopening(two, None);
}

#[test]
fn condition_that_depends_on_write_in_flight_is_a_conflict() {
    let mut two = two();
    let slow = two.slow.clone();
    let fast = two.fast.clone();
    two.pool.run_until(async {
        // Absent now, but a write is in flight: undecided.
        let absent = put_if(&fast, "k", 2, 10, Condition::IfAbsent);
        let (first, later) = overtake(&two.hold, put(&slow, "k", 1, 10), absent).await;
        first.unwrap();
        assert!(matches!(later, Err(Error::Conflict)));
        // Present now, and overwritten by the write in flight: present either way.
        let absent = put_if(&fast, "k", 2, 10, Condition::IfAbsent);
        let (first, later) = overtake(&two.hold, put(&slow, "k", 3, 10), absent).await;
        first.unwrap();
        assert!(matches!(later, Err(Error::ConditionFailed)));
        // The ETag matches now, but may change: undecided.
        let matching = put_if(&fast, "k", 2, 10, Condition::IfMatch(etag(3).into()));
        let (first, later) = overtake(&two.hold, put(&slow, "k", 4, 10), matching).await;
        first.unwrap();
        assert!(matches!(later, Err(Error::Conflict)));
        // The size matches now, but may change: undecided.
        let size = Expected { size: Some(10), ..Expected::default() };
        let matching = put_if(&fast, "k", 4, 10, Condition::IfMatch(size));
        let (first, later) = overtake(&two.hold, put(&slow, "k", 4, 11), matching).await;
        first.unwrap();
        assert!(matches!(later, Err(Error::Conflict)));
        // Neither of the two has this size.
        let size = Expected { size: Some(12), ..Expected::default() };
        let matching = put_if(&fast, "k", 4, 10, Condition::IfMatch(size));
        let (first, later) = overtake(&two.hold, put(&slow, "k", 4, 10), matching).await;
        first.unwrap();
        assert!(matches!(later, Err(Error::ConditionFailed)));
        // A deletion is in flight: undecided.
        let absent = put_if(&fast, "k", 5, 10, Condition::IfAbsent);
        let (first, later) = overtake(&two.hold, slow.delete_object("bucket", "k", 1, Condition::None), absent).await;
        assert!(first.unwrap());
        assert!(matches!(later, Err(Error::Conflict)));
        assert_eq!(get(&fast, "k").await, None);
        // Refused now and after the write in flight, for different reasons: that of the visible state counts.
        let matching = put_if(&fast, "k", 7, 10, Condition::IfMatch(etag(6).into()));
        let (first, later) = overtake(&two.hold, put(&slow, "k", 8, 10), matching).await;
        first.unwrap();
        assert!(matches!(later, Err(Error::NoSuchKey)));
        let matching = put_if(&fast, "k", 7, 10, Condition::IfMatch(etag(6).into()));
        let (first, later) = overtake(&two.hold, slow.delete_object("bucket", "k", 1, Condition::None), matching).await;
        assert!(first.unwrap());
        assert!(matches!(later, Err(Error::ConditionFailed)));
    });
    drop((slow, fast));
    check_after_reopening(two, None);
}

#[test]
fn bucket_with_write_in_flight_is_not_deleted() {
    let mut two = two();
    let slow = two.slow.clone();
    let fast = two.fast.clone();
    two.pool.run_until(async {
        let (first, later) = overtake(&two.hold, put(&slow, "k", 1, 10), fast.delete_bucket("bucket", 1)).await;
        first.unwrap();
        assert!(matches!(later, Err(Error::BucketNotEmpty)));
        assert!(fast.delete_object("bucket", "k", 1, Condition::None).await.unwrap());
        let (first, later) = overtake(&two.hold, slow.delete_bucket("bucket", 1), async {
            let put = put(&fast, "k", 2, 10).await;
            (put, fast.create_bucket("bucket", 1).await)
        })
        .await;
        first.unwrap();
        assert!(matches!(later, (Err(Error::NoSuchBucket), Err(Error::Conflict))));
        let (first, later) =
            overtake(&two.hold, slow.create_bucket("bucket", 1), fast.create_bucket("bucket", 1)).await;
        assert!(first.unwrap());
        assert!(matches!(later, Err(Error::Conflict)));
        put(&fast, "k", 3, 10).await.unwrap();
    });
    drop((slow, fast));
    check_after_reopening(two, Some(3));
}

#[test]
fn dropped_request_still_takes_effect() {
    let mut two = two();
    let slow = two.slow.clone();
    let fast = two.fast.clone();
    two.pool.run_until(async {
        two.hold.set(true);
        {
            let given_up = std::pin::pin!(put(&slow, "k", 1, 3 << 20));
            let waiting = std::pin::pin!(async {
                for _ in 0..100 {
                    Turn::once().await;
                }
            });
            assert!(matches!(select(given_up, waiting).await, Either::Right(_)));
        }
        two.hold.set(false);
        for _ in 0..100 {
            Turn::once().await;
        }
        assert_eq!(get(&fast, "k").await, Some(1));
    });
    drop((slow, fast));
    check_after_reopening(two, Some(1));
}
