//! Limits of the index and of buckets: new names are refused, everything else goes on.

use std::sync::Arc;

use keyhole_log::limits::QUOTA_SHARE;
use keyhole_log::{
    BucketSettings, Condition, CreateUpload, Error, IndexLimits, ListUploads, ListedUpload, Log, OpenOptions, PutPart,
};
use keyhole_sim::disk::{Medium, SimDisk};

use crate::support::store::{CAPACITY, Store, format, get, options, put, write_body};
use crate::support::{LOST, new_medium};

fn limited(limits: IndexLimits) -> OpenOptions {
    OpenOptions { index_limits: limits, ..options(1) }
}

fn open(limits: IndexLimits) -> (Arc<Medium>, Store) {
    let medium = new_medium(21);
    format(&medium, CAPACITY).unwrap();
    let mut store = Store::maintained(&medium, limited(limits)).unwrap();
    let log = store.log();
    store.run(async { log.create_bucket("bucket", 1).await.unwrap() });
    drop(log);
    (medium, store)
}

async fn create(log: &Log<SimDisk>, id: u8) -> Result<(), Error> {
    let create = CreateUpload {
        bucket: "bucket".into(),
        key: format!("upload-{id}"),
        id: [id; 16],
        head: Vec::new(),
        tags: Vec::new(),
        sealed: false,
        time_ms: 1,
        declared: None,
    };
    log.create_upload(create).await
}

async fn part(log: &Log<SimDisk>, id: u8, number: u16, len: usize) -> Result<(), Error> {
    let list = ListUploads { prefix: format!("upload-{id}"), limit: 1, ..ListUploads::default() };
    let listing = log.list_uploads("bucket", &list).unwrap();
    let [ListedUpload::Upload(upload)] = &listing.entries[..] else { panic!("one upload of this key") };
    let content = write_body(log, &vec![1; len], false).await?;
    let upload = upload.clone();
    let size = len as u64;
    let checksums = Vec::new();
    log.put_part(PutPart { upload, number, content, salt: [0; 24], etag: [1; 16], size, time_ms: 1, checksums }).await
}

/// Puts objects until one is refused. Returns their number.
async fn fill(log: &Log<SimDisk>) -> usize {
    for count in 0.. {
        match put(log, &format!("object-{count:05}"), count, 10).await {
            Ok(()) => {}
            Err(Error::IndexFull) => return count as usize,
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("the index is limited")
}

#[test]
fn new_names_beyond_index_memory_are_refused() {
    const MAX: u64 = 256 << 10;
    let limits = IndexLimits { bytes: Some(MAX), objects: None };
    let (medium, mut store) = open(limits);
    let log = store.log();
    let count = store.run(fill(&log));
    let taken = log.store().stats().index_bytes;
    // The last name may have grown a table by a step.
    assert!(taken <= MAX + 4096 && taken > MAX * 9 / 10, "{taken} bytes of index");
    store.run(async {
        // Overwrites, reads and deletions go on.
        put(&log, "object-00001", 7, 20).await.unwrap();
        assert_eq!(get(&log, "object-00001").await, Some(7));
        assert!(matches!(create(&log, 1).await, Err(Error::IndexFull)));
        assert!(matches!(log.create_bucket("another", 1).await, Err(Error::IndexFull)));
        assert!(!log.create_bucket("bucket", 1).await.unwrap());
        for n in 0..count / 2 {
            assert!(log.delete_object("bucket", &format!("object-{n:05}"), 1, Condition::None).await.unwrap());
        }
        // The space of deleted objects is used again.
        create(&log, 2).await.unwrap();
        put(&log, "new", 1, 10).await.unwrap();
    });
    drop(log);
    drop(store);
    // Opening does not fail although the index is larger than a new limit.
    medium.crash(LOST);
    let smaller = IndexLimits { bytes: Some(taken / 8), objects: None };
    let mut store = Store::maintained(&medium, limited(smaller)).unwrap();
    let log = store.log();
    store.run(async {
        assert!(matches!(put(&log, "newer", 1, 10).await, Err(Error::IndexFull)));
        put(&log, "new", 2, 10).await.unwrap();
        assert_eq!(get(&log, "new").await, Some(2));
    });
}

#[test]
fn index_takes_no_more_memory_after_restart() {
    const MAX: u64 = 256 << 10;
    let limits = IndexLimits { bytes: Some(MAX), objects: None };
    let (medium, mut store) = open(limits);
    let log = store.log();
    store.run(fill(&log));
    let before = log.store().stats().index_bytes;
    drop(log);
    drop(store);
    medium.crash(LOST);
    let store = Store::maintained(&medium, limited(limits)).unwrap();
    let after = store.log().store().stats().index_bytes;
    assert!(after <= before, "{after} bytes of index after a restart, {before} before");
}

#[test]
fn objects_and_uploads_beyond_their_number_are_refused() {
    let (_medium, mut store) = open(IndexLimits { bytes: None, objects: Some(3) });
    let log = store.log();
    store.run(async {
        put(&log, "a", 1, 10).await.unwrap();
        put(&log, "b", 1, 0).await.unwrap();
        create(&log, 1).await.unwrap();
        assert!(matches!(put(&log, "c", 1, 0).await, Err(Error::IndexFull)));
        assert!(matches!(create(&log, 2).await, Err(Error::IndexFull)));
        put(&log, "a", 2, 20).await.unwrap();
        log.delete_object("bucket", "b", 1, Condition::None).await.unwrap();
        put(&log, "c", 1, 0).await.unwrap();
        assert!(matches!(put(&log, "b", 1, 0).await, Err(Error::IndexFull)));
    });
}

#[test]
fn empty_objects_uploads_and_parts_count_towards_quota() {
    let (_medium, mut store) = open(IndexLimits::default());
    let log = store.log();
    store.run(async {
        let settings = BucketSettings { quota: Some(4 * QUOTA_SHARE), ..BucketSettings::default() };
        log.set_bucket("bucket", settings, 1).await.unwrap();
        put(&log, "a", 1, 0).await.unwrap();
        create(&log, 1).await.unwrap();
        part(&log, 1, 1, 0).await.unwrap();
        part(&log, 1, 2, 0).await.unwrap();
        for refused in [put(&log, "b", 1, 0).await, create(&log, 2).await, part(&log, 1, 3, 0).await] {
            assert!(matches!(refused, Err(Error::QuotaExceeded)), "{refused:?}");
        }
        // What replaces something counts with the difference.
        put(&log, "a", 2, 0).await.unwrap();
        part(&log, 1, 2, 0).await.unwrap();
        log.abort_upload("bucket", "upload-1", &[1; 16], 1).await.unwrap();
        assert_eq!(log.store().bucket_usage(1).0[0].charged, QUOTA_SHARE);
        put(&log, "b", 1, 3 * QUOTA_SHARE as usize - QUOTA_SHARE as usize).await.unwrap();
        assert!(matches!(put(&log, "c", 1, 0).await, Err(Error::QuotaExceeded)));
    });
}

/// A record that is longer than its share counts as it is, also after the cleaner has moved it.
#[test]
fn long_records_count_towards_quota() {
    let (_medium, mut store) = open(IndexLimits::default());
    let log = store.log();
    store.run(async {
        put(&log, "a", 1, 0).await.unwrap();
        let object = log.object("bucket", "a").await.unwrap().unwrap();
        let tags = vec![7; 8 * QUOTA_SHARE as usize];
        log.set_tags("bucket", "a", object, tags).await.unwrap();
        let charged = log.store().bucket_usage(1).0[0].charged;
        assert!((8 * QUOTA_SHARE..9 * QUOTA_SHARE).contains(&charged), "{charged}");
        log.compact().await.unwrap();
        assert_eq!(log.store().bucket_usage(1).0[0].charged, charged);
        log.delete_object("bucket", "a", 1, Condition::None).await.unwrap();
        assert_eq!(log.store().bucket_usage(1).0[0].charged, 0);
    });
}
