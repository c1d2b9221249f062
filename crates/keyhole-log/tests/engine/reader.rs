//! Handles of an open store that only read.

use std::rc::Rc;

use keyhole_log::{BucketSettings, CheckOptions, Condition, Error, VersionId, check, reader};
use keyhole_sim::disk::SimDisk;

use crate::support::store::{Store, get, keys, options, put, write_body};
use crate::support::{LOST, new_medium};

#[test]
fn reader_reads_and_refuses_every_write() {
    let (medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    let reader = reader(log.store().clone(), Rc::new(SimDisk::in_turns(&medium)));
    store.run(async {
        put(&log, "small", 1, 100).await.unwrap();
        put(&log, "large", 2, 3_000_000).await.unwrap();
        assert_eq!((get(&reader, "small").await, get(&reader, "large").await), (Some(1), Some(2)));
        assert_eq!(keys(&reader), ["large", "small"]);
        let settled = log.store().settled();
        let closed = [
            put(&reader, "small", 3, 100).await.err(),
            write_body(&reader, &[0; 3_000_000], false).await.err(),
            reader.create_bucket("other", 1).await.err(),
            reader.set_bucket("bucket", BucketSettings::default(), 1).await.err(),
            reader.delete_object("bucket", "small", 1, Condition::None).await.err(),
            reader.delete_version("bucket", "small", VersionId::Null, 1, false).await.err(),
            reader.expire_by(1, |_| Some(|_: &str, _: u64, _: u64| true)).await.err(),
            reader.save_lock_clock().await.err(),
            reader.flush().await.err(),
        ];
        assert!(closed.iter().all(|error| matches!(error, Some(Error::Closed))), "{closed:?}");
        assert!(log.store().settled() > settled, "refused records hold nothing back");
        // Nothing stays reserved.
        put(&log, "small", 4, 100).await.unwrap();
        assert_eq!(get(&reader, "small").await, Some(4));
        assert!(log.create_bucket("other", 1).await.unwrap());
        assert!(log.delete_object("bucket", "large", 1, Condition::None).await.unwrap());
        assert_eq!(reader.changes(0, 9, |_, _| true, |_| false).await.versions, 1);
    });
    drop((log, reader));
    store.close();
}

#[test]
fn maintenance_ends_while_reader_still_reads() {
    let (medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    let open = log.store().clone();
    let reader = reader(open.clone(), Rc::new(SimDisk::in_turns(&medium)));
    store.run(async {
        put(&log, "k", 1, 3_000_000).await.unwrap();
        put(&log, "gone", 2, 3_000_000).await.unwrap();
    });
    let gone = store.run(reader.object("bucket", "gone")).unwrap().unwrap();
    store.run(log.delete_object("bucket", "gone", 1, Condition::None)).unwrap();
    let checkpoints = open.summary().cleaner.checkpoints;
    drop(log);
    store.logs.clear();
    store.run_until_stalled();
    assert_eq!(open.summary().cleaner.checkpoints, checkpoints + 1, "the last checkpoint did not wait");
    store.run(async {
        assert_eq!(get(&reader, "k").await, Some(1));
        assert_eq!(crate::support::store::read(&reader, &gone).await.unwrap().len(), 3_000_000);
        assert!(matches!(put(&reader, "k", 3, 10).await, Err(Error::Closed)));
        assert!(matches!(reader.checkpoint().await, Err(Error::Closed)));
    });
    drop((gone, reader, store, open));
    medium.crash(LOST);
    let report = futures_executor::LocalPool::new()
        .run_until(check(Rc::new(SimDisk::in_turns(&medium)), CheckOptions::default()))
        .unwrap();
    assert_eq!(report.findings, []);
    let mut store = Store::open(&medium, 1);
    let log = store.log();
    assert_eq!(store.run(get(&log, "k")), Some(1));
    assert_eq!(log.store().usage().bodies, 1);
}

#[test]
fn reader_takes_no_place_of_a_worker() {
    let medium = new_medium(1);
    crate::support::store::format(&medium, crate::support::store::CAPACITY).unwrap();
    let mut pool = futures_executor::LocalPool::new();
    let (store, _) = pool.run_until(keyhole_log::open(&SimDisk::in_turns(&medium), options(1))).unwrap();
    let reader = reader(store.clone(), Rc::new(SimDisk::in_turns(&medium)));
    let (log, writer) = keyhole_log::worker(store, Rc::new(SimDisk::in_turns(&medium)));
    drop(log);
    // Does not wait for the reader, and poisons nothing.
    pool.run_until(writer.run());
    assert!(!reader.store().poisoned());
}
