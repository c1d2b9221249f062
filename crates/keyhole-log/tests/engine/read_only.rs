//! Read-only logs: by request, or because the medium cannot be written.

use std::sync::Arc;

use keyhole_log::limits::{PAGE, SEGMENTS_START, SUPERBLOCK_AT};
use keyhole_log::{Condition, CreateUpload, Error, Log, OpenOptions, ScrubCursor};
use keyhole_sim::disk::{ALWAYS, Crash, Medium, SimDisk};

use crate::support::store::{SEGMENT_LEN, Store, get, options, put, read};
use crate::support::{CRASHES, LOST};

const WHY: &str = "a test asked for it";

fn reading() -> OpenOptions {
    OpenOptions { read_only: Some(WHY.into()), ..options(2) }
}

/// Creates a store with inline and block-stored objects and crashes it.
fn crashed(how: Crash, seed: u64) -> Arc<Medium> {
    let (medium, mut store) = Store::fresh(seed, 2);
    let log = store.logs[0].clone();
    let other = store.logs[1].clone();
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        for i in 0..20 {
            let log = if i % 2 == 0 { &log } else { &other };
            put(log, &format!("k{i}"), i, if i % 3 == 0 { 150_000 } else { 3000 }).await.unwrap();
        }
        // Not acknowledged: it may survive or not.
        medium.update_faults(|faults| faults.sync = ALWAYS);
        let _ = put(&log, "last", 77, 150_000).await;
    });
    drop((log, other, store));
    medium.crash(how);
    medium.update_faults(|faults| faults.sync = 0);
    if how == Crash::Process {
        // Linux keeps what a sync failed to write in its cache: another program reads and rewrites it.
        medium.edit(|_| ());
    }
    medium
}

async fn check_reads(log: &Log<SimDisk>) {
    for i in 0..20 {
        assert_eq!(get(log, &format!("k{i}")).await, Some(i));
    }
    assert!(matches!(get(log, "last").await, None | Some(77)));
    let mut cursor = Some(ScrubCursor::default());
    while let Some(at) = cursor {
        let step = log.scrub(at).await.unwrap();
        assert_eq!(step.findings, []);
        cursor = step.next;
    }
    log.flush().await.unwrap();
}

async fn check_refusals(log: &Log<SimDisk>, why: &str) {
    let is_refused = |result: Result<(), Error>| match result {
        Err(Error::ReadOnly(given)) => assert!(given.contains(why), "{given}"),
        other => panic!("{other:?}"),
    };
    is_refused(put(log, "new", 1, 100).await);
    is_refused(put(log, "new", 1, 200_000).await);
    is_refused(log.delete_object("bucket", "k0", 1, Condition::None).await.map(drop));
    is_refused(log.create_bucket("another", 1).await.map(drop));
    is_refused(log.delete_bucket("bucket", 1).await);
    is_refused(log.create_upload(upload()).await.map(drop));
    is_refused(log.checkpoint().await);
    is_refused(log.compact().await.map(drop));
}

fn upload() -> CreateUpload {
    CreateUpload {
        bucket: "bucket".to_owned(),
        key: "u".to_owned(),
        id: [7; 16],
        head: Vec::new(),
        tags: Vec::new(),
        sealed: false,
        declared: None,
        time_ms: 1,
    }
}

#[test]
fn read_only_log_serves_reads_and_writes_nothing() {
    for (how, seed) in CRASHES.into_iter().zip(1..) {
        let medium = crashed(how, seed);
        let before = medium.content();
        let changes = medium.counters().changes;
        let mut store = Store::maintained(&medium, reading()).unwrap();
        assert_eq!(store.recovery.read_only.as_deref(), Some(WHY));
        assert!(store.recovery.damaged.is_empty());
        let log = store.log();
        store.run(async {
            check_reads(&log).await;
            check_refusals(&log, WHY).await;
            assert_eq!(log.expire(u64::MAX).await.ok(), Some(0), "no bucket has a rule");
        });
        let stats = log.store().summary();
        assert_eq!((stats.read_only.as_deref(), stats.poisoned), (Some(WHY), false));
        assert!(stats.usage.objects >= 20);
        drop(log);
        store.close();
        assert_eq!(medium.counters().changes, changes, "{how:?}");
        assert!(medium.content() == before);
        // Nothing was made final: the log opens as if it had not been opened before.
        let mut store = Store::open(&medium, 2);
        let log = store.log();
        store.run(check_reads(&log));
    }
}

#[test]
fn log_on_read_only_medium_is_opened_read_only() {
    for (how, seed) in CRASHES.into_iter().zip(1..) {
        let medium = crashed(how, seed);
        medium.turn_read_only_after(0);
        let mut store = Store::maintained(&medium, options(2)).unwrap();
        let why = store.recovery.read_only.clone().unwrap();
        assert!(why.contains("a write of the opening failed"), "{why}");
        let log = store.log();
        store.run(async {
            check_reads(&log).await;
            check_refusals(&log, &why).await;
        });
        drop(log);
        store.close();
        medium.end_read_only();
        assert_eq!(Store::open(&medium, 2).recovery.read_only, None);
    }
}

#[test]
fn unmendable_superblock_copy_leaves_log_readable() {
    let medium = crashed(LOST, 3);
    medium.edit(|bytes| bytes[SUPERBLOCK_AT[1] as usize + 20] ^= 1);
    medium.add_unwritable(SUPERBLOCK_AT[1]..SUPERBLOCK_AT[1] + PAGE as u64);
    let mut store = Store::open(&medium, 2);
    assert!(store.recovery.read_only.is_some() && !store.recovery.mended);
    let log = store.log();
    store.run(check_reads(&log));
}

#[test]
fn shrunken_medium_is_read_up_to_its_end() {
    let (medium, store) = Store::fresh(5, 1);
    store.close();
    let mut store = Store::maintained(&medium, options(1)).unwrap();
    let log = store.log();
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        // From here on the maintenance has its segment for checkpoints.
        log.checkpoint().await.unwrap();
        for i in 0..20 {
            put(&log, &format!("k{i}"), i, 300_000).await.unwrap();
        }
    });
    drop(log);
    store.close();
    medium.crash(LOST);
    // Losing preallocated space is harmless; of the rest, the last BODY segment is lost.
    let len = medium.content().len() as u64;
    let used = medium.content().iter().rposition(|byte| *byte != 0).unwrap() as u64;
    let short = SEGMENTS_START + (used - SEGMENTS_START) / SEGMENT_LEN * SEGMENT_LEN;
    assert!(short >= SEGMENTS_START + 3 * SEGMENT_LEN && short < len, "{short}");
    medium.edit(|bytes| bytes.truncate(short as usize));
    medium.set_size(short);
    let mut store = Store::open(&medium, 1);
    let why = store.recovery.read_only.clone().unwrap();
    assert!(why.contains("there is no space"), "{why}");
    let named: Vec<String> = store.recovery.damaged.iter().filter_map(|damage| damage.key.clone()).collect();
    let log = store.log();
    store.run(async {
        for i in 0..20 {
            let key = format!("k{i}");
            let object = log.object("bucket", &key).await;
            let is_read = match object {
                Ok(Some(object)) => read(&log, &object).await.is_ok(),
                Ok(None) => panic!("{key} is still known"),
                Err(_) => false,
            };
            assert_eq!(is_read, !named.contains(&key), "{key} of {named:?}");
        }
        assert!(matches!(put(&log, "new", 1, 100).await, Err(Error::ReadOnly(_))));
    });
    assert!(!named.is_empty() && named.len() < 20, "{named:?}");
    // With space available the log opens for writing again.
    medium.set_size(u64::MAX);
    drop((log, store));
    assert_eq!(Store::open(&medium, 1).recovery.read_only, None);
}

#[test]
fn failed_write_is_kept_with_its_offset() {
    let (medium, mut store) = Store::fresh(1, 1);
    let log = store.log();
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        put(&log, "a", 1, 100).await.unwrap();
        assert_eq!(log.store().failed_write(), None);
        medium.add_unwritable(SEGMENTS_START..u64::MAX);
        assert!(matches!(put(&log, "b", 2, 100).await, Err(Error::Io(_))));
        medium.end_wear();
        medium.update_faults(|faults| faults.sync = ALWAYS);
        assert!(matches!(put(&log, "c", 3, 200_000).await, Err(Error::Poisoned)));
    });
    let failed = log.store().failed_write().unwrap();
    assert_eq!(failed.what, "a write");
    assert!(failed.offset.is_some_and(|offset| offset > SEGMENTS_START && offset < SEGMENTS_START + SEGMENT_LEN));
    assert!(failed.to_string().contains("at offset") && failed.to_string().contains("Input/output error"), "{failed}");
    assert_eq!(log.store().summary().failed_write, Some(failed));
}
