//! Multipart uploads.

use keyhole_log::limits::{PART_ATTEMPTS_MAX, PARTS_MAX, QUOTA_SHARE};
use keyhole_log::{
    BucketSettings, CompleteUpload, Condition, CreateUpload, Disk, Error, ListUploads, ListedUpload, Lock, Log, Part,
    PutPart, SegmentState, UploadRef, VersionId, Versioning,
};
use keyhole_sim::disk::SimDisk;

use crate::history::{everywhere, set_versioning, versioned, versions};
use crate::support::LOST;
use crate::support::store::{Store, bytes, copy_of, etag, get, put, write_body};

pub(crate) async fn create(log: &Log<SimDisk>, key: &str, id: u8) -> Result<UploadRef, Error> {
    let create = CreateUpload {
        bucket: "bucket".into(),
        key: key.into(),
        id: [id; 16],
        head: vec![id; 30],
        tags: vec![id; 3],
        sealed: true,
        time_ms: u64::from(id),
        declared: Some((2, 1)),
    };
    log.create_upload(create).await?;
    Ok(log.upload("bucket", key, &[id; 16])?.expect("just created"))
}

pub(crate) async fn part(log: &Log<SimDisk>, upload: &UploadRef, number: u16, data: &[u8]) -> Result<(), Error> {
    attempt(log, upload, number, data, number as u8).await
}

/// Stores an attempt at a part, with an ETag of its own.
async fn attempt(log: &Log<SimDisk>, upload: &UploadRef, number: u16, data: &[u8], etag: u8) -> Result<(), Error> {
    let content = write_body(log, data, true).await?;
    let upload = upload.clone();
    let etag = [etag; 16];
    let size = data.len() as u64;
    let checksums = format!("checksums of {number}").into_bytes();
    log.put_part(PutPart { upload, number, content, salt: [5; 24], etag, size, time_ms: 7, checksums }).await
}

pub(crate) fn parts(log: &Log<SimDisk>, upload: &UploadRef) -> Vec<Part> {
    log.parts(upload, 0, PARTS_MAX).unwrap().into_iter().map(|part| part.part).collect()
}

pub(crate) async fn complete(log: &Log<SimDisk>, upload: &UploadRef, parts: Vec<Part>, seed: u64) -> Result<(), Error> {
    log.complete_upload(completion(upload, parts, seed)).await
}

fn completion(upload: &UploadRef, parts: Vec<Part>, seed: u64) -> CompleteUpload {
    CompleteUpload {
        upload: upload.clone(),
        size: parts.iter().map(|part| part.size).sum(),
        parts,
        head: format!("head of {seed}").into_bytes(),
        tags: format!("tags of {seed}").into_bytes(),
        part_checksums: format!("part_checksums of {seed}").into_bytes(),
        bound: seed % 2 == 1,
        etag: etag(seed),
        time_ms: 9,
        condition: Condition::None,
    }
}

#[test]
fn imported_upload_keeps_its_version_id() {
    let (medium, mut store) = versioned();
    let log = store.log();
    let ids = [VersionId::Id([0xcd; 16]), VersionId::Null];
    store.run(async {
        for (version, number) in ids.into_iter().zip(1..) {
            let upload = create(&log, "k", number).await.unwrap();
            part(&log, &upload, 1, &bytes(2 * u64::from(number), 70_000)).await.unwrap();
            let complete = completion(&upload, parts(&log, &upload), 1);
            log.import_upload(complete, version, Lock::default()).await.unwrap();
        }
        let upload = create(&log, "k", 3).await.unwrap();
        let again = log.import_upload(completion(&upload, Vec::new(), 1), ids[0], Lock::default()).await;
        assert!(matches!(again, Err(Error::VersionExists)), "{again:?}");
        log.abort_upload("bucket", "k", &[3; 16], 9).await.unwrap();
    });
    drop(log);
    everywhere(&medium, store, async |log| {
        assert_eq!(versions(log, 10).iter().map(|info| info.version).collect::<Vec<_>>(), [ids[1], ids[0]]);
        for (version, number) in ids.into_iter().zip(1..) {
            let (object, _) = log.version("bucket", "k", Some(version)).await.unwrap().into_object().unwrap();
            assert_eq!(crate::support::store::read(log, &object).await.unwrap(), bytes(2 * number, 70_000));
        }
    });
}

#[test]
fn upload_is_not_imported_with_an_id_without_versioning() {
    let (_medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    store.run(async {
        let upload = create(&log, "k", 1).await.unwrap();
        part(&log, &upload, 1, &bytes(2, 100)).await.unwrap();
        let complete = || completion(&upload, parts(&log, &upload), 1);
        let id = VersionId::Id([1; 16]);
        let refused = log.import_upload(complete(), id, Lock::default()).await;
        assert!(matches!(refused, Err(Error::InvalidBucketState(_))), "{refused:?}");
        set_versioning(&log, Versioning::Suspended).await.unwrap();
        log.import_upload(complete(), id, Lock::default()).await.unwrap();
        assert_eq!(versions(&log, 10)[0].version, id);
    });
}

/// Segments in which little is live are cleaned of all kinds of records.
#[test]
fn compaction_moves_uploads_and_their_parts() {
    const PARTS: u16 = 20;
    let (medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    let body = |number: u16| bytes(2 * u64::from(number), 60_000);
    store.run(async {
        let upload = create(&log, "k", 1).await.unwrap();
        for number in 1..=PARTS {
            part(&log, &upload, number, &body(number)).await.unwrap();
            for seed in 0..9 {
                put(&log, "overwritten", seed, 60_000).await.unwrap();
            }
        }
        log.compact().await.unwrap();
    });
    let stats = log.store().stats();
    let closed = stats.segments.iter().filter(|segment| segment.state == SegmentState::Closed).count();
    assert!(closed <= 3, "{:?}", stats.segments);
    drop((log, store));
    medium.crash(LOST);
    let mut store = Store::open(&medium, 1);
    let log = store.log();
    store.run(async {
        let upload = log.upload("bucket", "k", &[1; 16]).unwrap().unwrap();
        let parts = parts(&log, &upload);
        assert_eq!(parts.len(), usize::from(PARTS));
        for part in parts {
            let number = part.number;
            let read = log.body(&part).await.unwrap();
            let (tags, buf) = log.read_block(&read, 0, 0..4, log.disk().buffer()).await;
            tags.unwrap();
            assert_eq!(buf.as_ref()[..60_000], body(number), "part {number}");
        }
    });
}

/// Returns the first byte of the ETag of each kept attempt.
fn attempts(log: &Log<SimDisk>, upload: &UploadRef) -> Vec<(u16, u8)> {
    log.part_attempts(upload).unwrap().into_iter().map(|part| (part.number, part.etag[0])).collect()
}

/// A retry may overtake its first try, so that the client knows an earlier attempt than the last.
#[test]
fn resent_parts_stay_usable_until_the_upload_ends() {
    let (medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    let body = |etag: u8| bytes(u64::from(etag), 70_000);
    store.run(async {
        let upload = create(&log, "k", 1).await.unwrap();
        for etag in 1..=PART_ATTEMPTS_MAX as u8 + 2 {
            attempt(&log, &upload, 1, &body(etag), etag).await.unwrap();
            put(&log, "overwritten", u64::from(etag), 70_000).await.unwrap();
        }
        attempt(&log, &upload, 2, b"last", 9).await.unwrap();
        // The same ETag takes the place of its attempt.
        attempt(&log, &upload, 1, &body(4), 4).await.unwrap();
        assert_eq!(attempts(&log, &upload), [(1, 3), (1, 5), (1, 6), (1, 4), (2, 9)]);
        assert_eq!(parts(&log, &upload).iter().map(|part| part.etag[0]).collect::<Vec<_>>(), [4, 9]);
        let (buckets, _) = log.store().bucket_usage(1);
        assert_eq!(buckets[0].bytes, 4 * 70_000 + 4 + 70_000, "all attempts and an object");
        log.compact().await.unwrap();
        assert_eq!(attempts(&log, &upload).len(), 5);
    });
    drop((log, store));
    medium.crash(LOST);

    let mut store = Store::open(&medium, 1);
    let log = store.log();
    store.run(async {
        let upload = log.upload("bucket", "k", &[1; 16]).unwrap().unwrap();
        let kept = log.part_attempts(&upload).unwrap();
        assert_eq!(attempts(&log, &upload), [(1, 3), (1, 5), (1, 6), (1, 4), (2, 9)]);
        for part in &kept[..4] {
            assert_eq!(log.part_checksums(part).await.unwrap(), b"checksums of 1");
            let read = log.body(&part.part).await.unwrap();
            let (tags, buf) = log.read_block(&read, 0, 0..5, log.disk().buffer()).await;
            tags.unwrap();
            assert_eq!(buf.as_ref()[..70_000], body(part.etag[0]));
        }
        complete(&log, &upload, vec![kept[0].part.clone(), kept[4].part.clone()], 3).await.unwrap();
        let object = log.object("bucket", "k").await.unwrap().unwrap();
        assert_eq!(object.parts.iter().map(|part| part.etag[0]).collect::<Vec<_>>(), [3, 9]);
        assert_eq!(log.store().usage().bodies, 3, "the other attempts are gone");
        let (buckets, _) = log.store().bucket_usage(1);
        assert_eq!(buckets[0].bytes, 2 * 70_000 + 4);
    });
}

#[test]
fn quota_counts_kept_attempts() {
    let (_, mut store) = Store::fresh(12, 1);
    let log = store.log();
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        let change = |settings: &mut BucketSettings| {
            // The upload and two attempts.
            settings.quota = Some(25 + 3 * QUOTA_SHARE);
            Ok::<(), Error>(())
        };
        log.change_bucket("bucket", 1, change).await.unwrap();
        let upload = create(&log, "k", 1).await.unwrap();
        attempt(&log, &upload, 1, &[1; 10], 1).await.unwrap();
        attempt(&log, &upload, 1, &[2; 10], 2).await.unwrap();
        assert!(matches!(attempt(&log, &upload, 1, &[3; 10], 3).await, Err(Error::QuotaExceeded)));
        // The same bytes again take no more room.
        attempt(&log, &upload, 1, &[1; 10], 1).await.unwrap();
        attempt(&log, &upload, 1, &[2; 15], 2).await.unwrap();
        assert!(matches!(attempt(&log, &upload, 1, &[2; 16], 2).await, Err(Error::QuotaExceeded)));
        log.abort_upload("bucket", "k", &[1; 16], 2).await.unwrap();
        assert_eq!((log.store().bucket_usage(1).0[0].bytes, log.store().usage().bodies), (0, 0));
    });
}

#[test]
fn object_names_the_upload_that_it_was_completed_from() {
    let (medium, mut store) = Store::fresh(13, 1);
    let log = store.log();
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        let upload = create(&log, "k", 7).await.unwrap();
        part(&log, &upload, 1, b"part").await.unwrap();
        complete(&log, &upload, parts(&log, &upload), 2).await.unwrap();
        let object = log.object("bucket", "k").await.unwrap().unwrap();
        assert_eq!(object.completed, Some([7; 16]));
        log.set_tags("bucket", "k", object, vec![1]).await.unwrap();
    });
    drop(log);
    store.close();
    let mut store = Store::open(&medium, 1);
    let log = store.log();
    store.run(async {
        let object = log.object("bucket", "k").await.unwrap().unwrap();
        assert_eq!((object.completed, &object.tags[..]), (Some([7; 16]), &[1][..]), "after new tags");
        log.put_object(copy_of(object.clone(), "copy")).await.unwrap();
        assert_eq!(log.object("bucket", "copy").await.unwrap().unwrap().completed, None);
        log.put_object(copy_of(object, "k")).await.unwrap();
        assert_eq!(log.object("bucket", "k").await.unwrap().unwrap().completed, None, "a copy onto itself");
    });
}

#[test]
fn completed_upload_becomes_an_object() {
    let (medium, mut store) = Store::fresh(1, 1);
    let log = store.log();
    let data = bytes(2, 3_000_000);
    let upload = store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        let upload = create(&log, "k", 1).await.unwrap();
        assert!(upload.sealed && upload.declared == Some((2, 1)) && upload.time_ms == 1);
        let with = log.upload_head(&upload).await.unwrap();
        assert!(with.head == [1; 30] && with.tags == [1; 3]);
        part(&log, &upload, 2, b"a first attempt").await.unwrap();
        part(&log, &upload, 2, &data[2_000_000..]).await.unwrap();
        part(&log, &upload, 1, &data[..2_000_000]).await.unwrap();
        assert_eq!(log.store().usage().bodies, 2, "the first attempt is gone");
        let (buckets, _) = log.store().bucket_usage(1);
        assert_eq!((buckets[0].objects, buckets[0].uploads, buckets[0].bytes), (0, 1, 3_000_000));
        assert_eq!(log.store().newest_ms(), 7, "a part's");
        upload
    });
    drop(log);
    store.close();

    let mut store = Store::open(&medium, 2);
    assert_eq!(store.recovery.uploads, 1);
    let log = store.log();
    store.run(async {
        let upload = log.upload("bucket", "k", &upload.id).unwrap().unwrap();
        let part_checksums = log.parts(&upload, 0, 10).unwrap();
        assert_eq!(
            part_checksums.iter().map(|part| (part.number, part.size)).collect::<Vec<_>>(),
            [(1, 2_000_000), (2, 1_000_000)]
        );
        assert_eq!(log.parts(&upload, 1, 10).unwrap().len(), 1);
        assert_eq!(log.parts(&upload, 0, 1).unwrap().len(), 1);
        assert_eq!(log.part_checksums(&part_checksums[1]).await.unwrap(), b"checksums of 2");
        let mut stale = parts(&log, &upload);
        part(&log, &upload, 2, &data[2_000_000..]).await.unwrap();
        assert!(matches!(complete(&log, &upload, stale.clone(), 2).await, Err(Error::PartChanged)));
        stale[1] = parts(&log, &upload)[1].clone();
        complete(&log, &upload, stale, 2).await.unwrap();
        assert_eq!(get(&log, "k").await, Some(2));
        let object = log.object("bucket", "k").await.unwrap().unwrap();
        assert_eq!(object.parts.iter().map(|part| part.number).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(log.upload("bucket", "k", &upload.id).unwrap(), None);
        assert!(matches!(part(&log, &upload, 3, b"late").await, Err(Error::NoSuchUpload)));
        assert!(matches!(complete(&log, &upload, Vec::new(), 2).await, Err(Error::NoSuchUpload)));
        assert!(matches!(log.parts(&upload, 0, 1), Err(Error::NoSuchUpload)));
    });
    drop(log);
    store.close();
    let mut store = Store::open(&medium, 1);
    assert_eq!((store.recovery.uploads, store.recovery.objects), (0, 1));
    let log = store.log();
    assert_eq!(store.run(get(&log, "k")), Some(2));
}

#[test]
fn upload_of_the_most_parts_is_completed_and_recovered() {
    let (medium, mut store) = Store::fresh(2, 1);
    let log = store.log();
    let data = bytes(4, PARTS_MAX);
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        let upload = create(&log, "k", 1).await.unwrap();
        assert!(matches!(part(&log, &upload, 0, b"").await, Err(Error::TooLarge(_))));
        assert!(matches!(part(&log, &upload, PARTS_MAX as u16 + 1, b"").await, Err(Error::TooLarge(_))));
        let attempts = data.chunks(1).zip(1u16..).map(|(byte, number)| part(&log, &upload, number, byte));
        for result in futures_util::future::join_all(attempts).await {
            result.unwrap();
        }
        complete(&log, &upload, parts(&log, &upload), 4).await.unwrap();
    });
    drop(log);
    store.close();
    let mut store = Store::open(&medium, 1);
    let log = store.log();
    assert_eq!(store.run(get(&log, "k")), Some(4));
    assert_eq!(log.store().usage().bodies, PARTS_MAX as u64);
}

#[test]
fn aborted_upload_is_no_longer_listed() {
    let (medium, mut store) = Store::fresh(3, 1);
    let log = store.log();
    let list = |log: &Log<SimDisk>, list: &ListUploads| {
        let listing = log.list_uploads("bucket", list).unwrap();
        let entries = listing.entries.into_iter().map(|entry| match entry {
            ListedUpload::Upload(upload) => format!("{} {}", upload.key, upload.id[0]),
            ListedUpload::Prefix(prefix) => prefix,
        });
        (entries.collect::<Vec<_>>(), listing.truncated)
    };
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        for (key, id) in [("b", 9), ("a/1", 1), ("b", 3), ("a/2", 2), ("c", 4)] {
            let upload = create(&log, key, id).await.unwrap();
            part(&log, &upload, 1, b"part").await.unwrap();
        }
        assert!(matches!(create(&log, "x", 4).await, Err(Error::Conflict)), "an identity that is taken");
        let all = ListUploads { limit: 10, ..ListUploads::default() };
        assert_eq!(list(&log, &all), (["a/1 1", "a/2 2", "b 9", "b 3", "c 4"].map(String::from).to_vec(), false));
        let rolled = ListUploads { delimiter: Some("/".into()), limit: 2, ..ListUploads::default() };
        assert_eq!(list(&log, &rolled), (["a/", "b 9"].map(String::from).to_vec(), true));
        let next = ListUploads { after: Some(("b".into(), Some([9; 16]))), ..rolled.clone() };
        assert_eq!(list(&log, &next), (["b 3", "c 4"].map(String::from).to_vec(), false));
        let next = ListUploads { after: Some(("b".into(), None)), ..rolled.clone() };
        assert_eq!(list(&log, &next), (["c 4"].map(String::from).to_vec(), false));
        let next = ListUploads { after: Some(("a/".into(), None)), ..rolled };
        assert_eq!(list(&log, &next).0[0], "b 9");

        assert!(matches!(log.abort_upload("bucket", "c", &[9; 16], 1).await, Err(Error::NoSuchUpload)), "another key");
        log.abort_upload("bucket", "b", &[9; 16], 1).await.unwrap();
        assert!(matches!(log.abort_upload("bucket", "b", &[9; 16], 1).await, Err(Error::NoSuchUpload)));
        assert_eq!((log.store().usage().uploads, log.store().usage().bodies), (4, 4));
        // Deleting a bucket deletes its uploads; objects prevent it.
        put(&log, "k", 1, 5).await.unwrap();
        assert!(matches!(log.delete_bucket("bucket", 1).await, Err(Error::BucketNotEmpty)));
        log.delete_object("bucket", "k", 1, Condition::None).await.unwrap();
        log.delete_bucket("bucket", 1).await.unwrap();
        assert_eq!((log.store().usage().uploads, log.store().usage().bodies), (0, 0));
    });
    drop(log);
    store.close();
    let store = Store::open(&medium, 1);
    assert_eq!((store.recovery.uploads, store.log().store().usage().live), (0, 0));
}
