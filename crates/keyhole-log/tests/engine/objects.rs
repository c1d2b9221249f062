//! Buckets and objects, without failures.

use keyhole_log::limits::{BLOCK_DATA, BLOCKS_IN_FLIGHT, CHUNK_LEN, INLINE_MAX};
use keyhole_log::limits::{HEAD_MAX, KEY_MAX, OBJECT_TAGS_MAX, PREFIX_MAX};
use keyhole_log::{Condition, Content, Disk, Error, Expected, ExpectedEtag, ListObjects, Listed, PutObject};

use crate::support::LOST;
use crate::support::store::{Store, bytes, copy_of, etag, get, keys, put, put_if, read, tag, write_body};

#[test]
fn bucket_is_created_once_and_deleted_when_empty() {
    let (medium, mut store) = Store::fresh(1, 1);
    let log = store.log();
    store.run(async {
        assert!(log.create_bucket("b", 10).await.unwrap());
        assert!(!log.create_bucket("b", 11).await.unwrap());
        assert!(log.create_bucket("a", 12).await.unwrap());
        let names: Vec<_> = log.buckets().into_iter().map(|bucket| (bucket.name, bucket.time_ms)).collect();
        assert_eq!(names, [("a".to_owned(), 12), ("b".to_owned(), 10)]);
        assert!(matches!(log.delete_bucket("c", 1).await, Err(Error::NoSuchBucket)));
        log.delete_bucket("a", 13).await.unwrap();
        assert_eq!(log.bucket("a"), None);
        assert!(matches!(log.object("a", "k").await, Err(Error::NoSuchBucket)));
        assert!(matches!(log.create_bucket(&"x".repeat(64), 1).await, Err(Error::TooLarge(_))));
    });
    drop(log);
    store.close();
    let store = Store::open(&medium, 1);
    assert_eq!(store.log().buckets().len(), 1);
    assert_eq!(store.recovery.cut, 0);
}

#[test]
fn bodies_of_every_size_survive_reopening() {
    let lens = [
        0,
        1,
        CHUNK_LEN - 1,
        CHUNK_LEN,
        INLINE_MAX,
        INLINE_MAX + 1,
        5 * CHUNK_LEN,
        BLOCK_DATA - 1,
        BLOCK_DATA,
        BLOCK_DATA + 1,
        (BLOCKS_IN_FLIGHT + 2) * BLOCK_DATA,
        (BLOCKS_IN_FLIGHT + 2) * BLOCK_DATA + 12345,
    ];
    let (medium, mut store) = Store::fresh(2, 1);
    medium.update_faults(|faults| faults.slowness = 3);
    let log = store.log();
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        for (seed, len) in lens.into_iter().enumerate() {
            put(&log, &format!("key {seed}"), seed as u64, len).await.unwrap();
            assert_eq!(get(&log, &format!("key {seed}")).await, Some(seed as u64));
        }
    });
    let usage = log.store().usage();
    assert_eq!((usage.objects, usage.bodies, usage.buckets), (lens.len() as u64, lens.len() as u64, 1));
    drop(log);
    store.close();
    for workers in [1, 3] {
        let mut store = Store::open(&medium, workers);
        let log = store.log();
        assert_eq!((store.recovery.objects, store.recovery.cut), (lens.len() as u64, 0));
        assert!(store.recovery.damaged.is_empty());
        store.run(async {
            for seed in 0..lens.len() {
                assert_eq!(get(&log, &format!("key {seed}")).await, Some(seed as u64));
            }
        });
        assert_eq!(log.store().usage().live, usage.live);
        drop(log);
        store.close();
    }
}

#[test]
fn block_is_read_by_any_range_of_chunks() {
    let (_, mut store) = Store::fresh(3, 1);
    let log = store.log();
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        let len = BLOCK_DATA + 3 * CHUNK_LEN;
        put(&log, "k", 4, len).await.unwrap();
        let object = log.object("bucket", "k").await.unwrap().unwrap();
        let body = log.body(&object.parts[0]).await.unwrap();
        let data = bytes(4, len);
        for (index, chunks) in
            [(0, 0..1), (0, 5..7), (0, 63..64), (0, 60..64), (1, 0..1), (1, 2..4), (1, 3..4), (1, 0..0)]
        {
            let (tags, buf) = log.read_block(&body, index, chunks.clone(), log.disk().buffer()).await;
            let tags = tags.unwrap();
            let block = &data[index as usize * BLOCK_DATA..];
            for chunk in chunks.clone() {
                let span = (chunk * CHUNK_LEN).min(body.block_len(index))
                    ..((chunk + 1) * CHUNK_LEN).min(body.block_len(index));
                assert_eq!(buf.as_ref()[span.clone()], block[span], "block {index} chunk {chunk}");
                let wanted = tag(index * 64 + chunk as u64);
                assert_eq!(tags.get(chunk), Some(&wanted), "block {index} chunk {chunk}");
            }
            assert_eq!(tags.get(chunks.end), None);
        }
    });
}

#[test]
fn held_object_stays_readable_after_overwrite_and_delete() {
    let (_, mut store) = Store::fresh(4, 1);
    let log = store.log();
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        put(&log, "k", 1, 100_000).await.unwrap();
        let old = log.object("bucket", "k").await.unwrap().unwrap();
        put(&log, "k", 2, 200_000).await.unwrap();
        assert_eq!(get(&log, "k").await, Some(2));
        assert!(matches!(log.delete_bucket("bucket", 1).await, Err(Error::BucketNotEmpty)));
        assert!(log.delete_object("bucket", "k", 5, Condition::None).await.unwrap());
        assert!(!log.delete_object("bucket", "k", 5, Condition::None).await.unwrap());
        assert_eq!(get(&log, "k").await, None);
        // A held object stays readable; once it is dropped, its body is gone.
        assert_eq!(read(&log, &old).await.unwrap(), bytes(1, 100_000));
        assert_eq!(log.store().usage().bodies, 1);
        let part = old.parts[0].clone();
        drop(old);
        assert_eq!(log.store().usage().bodies, 0);
        assert!(matches!(log.body(&part).await, Err(Error::PartChanged)));
        log.delete_bucket("bucket", 1).await.unwrap();
        let usage = log.store().usage();
        assert_eq!((usage.live, usage.objects), (0, 0));
        assert!(usage.dead > 300_000);
    });
}

#[test]
fn copied_object_shares_its_bodies() {
    let (medium, mut store) = Store::fresh(5, 1);
    let log = store.log();
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        put(&log, "a", 7, 3 << 20).await.unwrap();
        let before = log.store().usage();
        let source = log.object("bucket", "a").await.unwrap().unwrap();
        let copy = PutObject { tags: b"of the copy".to_vec(), ..copy_of(source, "b") };
        log.put_object(copy).await.unwrap();
        let after = log.store().usage();
        assert_eq!(after.bodies, before.bodies);
        assert!(after.live - before.live < 1000, "a copy costs a record");
        assert!(log.delete_object("bucket", "a", 5, Condition::None).await.unwrap());
        assert_eq!(get(&log, "b").await, Some(7));
    });
    drop(log);
    store.close();
    let mut store = Store::open(&medium, 1);
    let log = store.log();
    store.run(async {
        assert_eq!(get(&log, "b").await, Some(7));
        assert!(log.delete_object("bucket", "b", 5, Condition::None).await.unwrap());
        assert_eq!(log.store().usage().bodies, 0);
    });
}

#[test]
fn put_and_delete_honour_their_conditions() {
    let (_, mut store) = Store::fresh(6, 1);
    let log = store.log();
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        let is = |seed| Condition::IfMatch(etag(seed).into());
        assert!(matches!(put_if(&log, "k", 1, 10, is(1)).await, Err(Error::NoSuchKey)));
        put_if(&log, "k", 1, 10, Condition::IfAbsent).await.unwrap();
        assert!(matches!(put_if(&log, "k", 2, 10, Condition::IfAbsent).await, Err(Error::ConditionFailed)));
        assert!(matches!(put_if(&log, "k", 2, 10, is(2)).await, Err(Error::ConditionFailed)));
        put_if(&log, "k", 2, 10, is(1)).await.unwrap();
        assert!(matches!(log.delete_object("bucket", "k", 1, is(1)).await, Err(Error::ConditionFailed)));
        // An object with the same ETag, such as a copy, does not match.
        let seq = log.object("bucket", "k").await.unwrap().unwrap().seq;
        let same = Condition::IfSame(seq);
        put_if(&log, "k", 2, 10, same).await.unwrap();
        assert!(matches!(put_if(&log, "k", 2, 10, same).await, Err(Error::Conflict)));
        assert!(matches!(put_if(&log, "absent", 2, 10, same).await, Err(Error::Conflict)));
        assert!(log.delete_object("bucket", "k", 1, is(2)).await.unwrap());
        assert!(matches!(log.delete_object("bucket", "k", 1, is(2)).await, Err(Error::NoSuchKey)));
    });
}

#[test]
fn conditions_on_size_and_time_are_decided_with_the_etag() {
    let (_, mut store) = Store::fresh(8, 1);
    let log = store.log();
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        let any = Expected::default();
        assert!(matches!(put_if(&log, "k", 1, 10, Condition::IfMatch(any)).await, Err(Error::NoSuchKey)));
        put(&log, "k", 1, 10).await.unwrap();
        let time_ms = log.object("bucket", "k").await.unwrap().unwrap().time_ms;
        let is = Expected { size: Some(10), time_ms: Some((time_ms, time_ms)), ..etag(1).into() };
        for wrong in [
            Expected { size: Some(11), ..is },
            Expected { time_ms: Some((time_ms + 1, u64::MAX)), ..is },
            Expected { time_ms: Some((0, time_ms - 1)), ..is },
            Expected { etag: ExpectedEtag::Exactly(etag(2)), ..is },
            Expected { etag: ExpectedEtag::Unknown, ..any },
            Expected { size: Some(9), or_absent: true, ..any },
        ] {
            let deleted = log.delete_object("bucket", "k", 5, Condition::IfMatch(wrong)).await;
            assert!(matches!(deleted, Err(Error::ConditionFailed)), "{wrong:?}");
        }
        put_if(&log, "k", 1, 10, Condition::IfMatch(any)).await.unwrap();
        assert!(log.delete_object("bucket", "k", 5, Condition::IfMatch(is)).await.unwrap());
        assert!(matches!(log.delete_object("bucket", "k", 5, Condition::IfMatch(is)).await, Err(Error::NoSuchKey)));
        let or_absent = Condition::IfMatch(Expected { or_absent: true, ..is });
        assert!(!log.delete_object("bucket", "k", 5, or_absent).await.unwrap());
    });
}

#[test]
fn listing_pages_through_keys_and_common_prefixes() {
    let (_, mut store) = Store::fresh(7, 1);
    let log = store.log();
    let all = ["a", "a/b", "a/c/d", "a0", "b/", "b/x", "b/y/z", "c", "\u{e9}/1", "\u{10ffff}/1"];
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        for (seed, key) in all.into_iter().enumerate() {
            put(&log, key, seed as u64, 5).await.unwrap();
        }
    });
    assert_eq!(keys(&log), all);
    let check = |prefix: &str, delimiter: Option<&str>, after: Option<&str>, expected: &[&str]| {
        // The result is independent of the page size.
        for limit in [1, 2, 100] {
            let mut list = ListObjects {
                prefix: prefix.into(),
                delimiter: delimiter.map(Into::into),
                after: after.map(Into::into),
                limit,
            };
            let mut out = Vec::new();
            loop {
                let listing = log.list_objects("bucket", &list).unwrap();
                assert!(listing.entries.len() <= limit);
                out.extend(listing.entries.iter().map(|entry| match entry {
                    Listed::Object { key, .. } => key.clone(),
                    Listed::Prefix(prefix) => format!("[{prefix}]"),
                }));
                if !listing.truncated {
                    break;
                }
                list.after = out.last().map(|last| last.trim_matches(['[', ']']).to_owned());
            }
            assert_eq!(out, expected, "{prefix:?} {delimiter:?} {after:?} by {limit}");
        }
    };
    check("", Some("/"), None, &["a", "[a/]", "a0", "[b/]", "c", "[\u{e9}/]", "[\u{10ffff}/]"]);
    check("a", Some("/"), None, &["a", "[a/]", "a0"]);
    check("a/", Some("/"), None, &["a/b", "[a/c/]"]);
    check("b/", Some("/"), None, &["b/", "b/x", "[b/y/]"]);
    check("", Some("/"), Some("a/"), &["a0", "[b/]", "c", "[\u{e9}/]", "[\u{10ffff}/]"]);
    check("", None, Some("a/"), &["a/b", "a/c/d", "a0", "b/", "b/x", "b/y/z", "c", "\u{e9}/1", "\u{10ffff}/1"]);
    check("", Some("/"), Some("a/b"), &["[a/]", "a0", "[b/]", "c", "[\u{e9}/]", "[\u{10ffff}/]"]);
    check("b", None, Some("a"), &["b/", "b/x", "b/y/z"]);
    check("zz", Some("/"), None, &[]);
    check("a", None, Some("b"), &[]);
    let nothing = log.list_objects("bucket", &ListObjects::default()).unwrap();
    assert!(nothing.entries.is_empty() && !nothing.truncated, "a limit of 0");
}

#[test]
fn values_at_their_limits_are_accepted_and_above_refused() {
    let (_, mut store) = Store::fresh(8, 1);
    let log = store.log();
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        put(&log, &"k".repeat(KEY_MAX), 1, 5).await.unwrap();
        assert!(matches!(put(&log, &"k".repeat(KEY_MAX + 1), 1, 5).await, Err(Error::TooLarge(_))));
        for (head, tags, fits) in [
            (HEAD_MAX, OBJECT_TAGS_MAX, true),
            (HEAD_MAX + 1, OBJECT_TAGS_MAX, false),
            (HEAD_MAX, OBJECT_TAGS_MAX + 1, false),
        ] {
            let content = Content::New(write_body(&log, b"x", false).await.unwrap(), [0; 24]);
            let put = PutObject {
                bucket: "bucket".into(),
                key: "k".into(),
                content,
                head: vec![7; head],
                tags: vec![8; tags],
                sealed: false,
                etag: etag(1),
                size: 1,
                time_ms: 1,
                condition: Condition::None,
            };
            assert_eq!(log.put_object(put).await.is_ok(), fits);
        }
        let object = log.object("bucket", "k").await.unwrap().unwrap();
        assert!(object.head == [7; HEAD_MAX] && object.tags == [8; OBJECT_TAGS_MAX]);
        for (len, fits) in [(PREFIX_MAX, true), (PREFIX_MAX + 1, false)] {
            assert_eq!(log.body_writer().finish(None, &vec![1; len]).await.is_ok(), fits);
        }
    });
}

#[test]
fn set_tags_changes_only_the_tags() {
    let (medium, mut store) = Store::fresh(6, 1);
    let log = store.log();
    let (sized, seq) = store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        put(&log, "k", 7, 3 << 20).await.unwrap();
        let old = log.object("bucket", "k").await.unwrap().unwrap();
        assert!(old.tags.is_empty());
        let before = log.store().usage();
        log.set_tags("bucket", "k", old.clone(), vec![5; 40]).await.unwrap();
        let after = log.store().usage();
        assert_eq!((after.bodies, after.objects), (before.bodies, before.objects));
        // The name has another record now.
        let late = log.set_tags("bucket", "k", old.clone(), vec![6]).await;
        assert!(matches!(late, Err(Error::Conflict)), "{late:?}");
        let new = log.object("bucket", "k").await.unwrap().unwrap();
        assert!(new.seq > old.seq && new.tags == [5; 40]);
        assert_eq!((new.time_ms, new.etag, &new.head, &new.parts), (old.time_ms, old.etag, &old.head, &old.parts));
        assert!(matches!(
            log.set_tags("bucket", "k", new.clone(), vec![0; OBJECT_TAGS_MAX + 1]).await,
            Err(Error::TooLarge(_))
        ));
        assert!(log.delete_object("bucket", "k", 5, Condition::None).await.unwrap());
        assert!(matches!(log.set_tags("bucket", "k", new, vec![6]).await, Err(Error::Conflict)));
        put(&log, "k", 8, 70_000).await.unwrap();
        let object = log.object("bucket", "k").await.unwrap().unwrap();
        let size = object.size;
        let seq = object.seq;
        log.set_tags("bucket", "k", object, b"kept".to_vec()).await.unwrap();
        (size, seq)
    });
    drop(log);
    store.close();
    let mut store = Store::open(&medium, 1);
    let log = store.log();
    store.run(async {
        let object = log.object("bucket", "k").await.unwrap().unwrap();
        assert!(object.tags == b"kept" && object.size == sized && object.seq > seq);
        assert_eq!(get(&log, "k").await, Some(8));
    });
}

/// A body that crosses from one segment into the next: a block is cut there.
#[test]
fn block_at_segment_end_is_split() {
    let (medium, mut store) = Store::fresh(1, 1);
    let log = store.log();
    let data = bytes(2, 5 << 20);
    let spans = [0..64usize, 0..1, 63..64, 20..40, 5..64, 0..59];
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        put(&log, "k", 2, data.len()).await.unwrap();
        // Five blocks with footers, and one footer per cut, in two and a half segments.
        let used = log.store().usage();
        assert!(used.live > (5 << 20) + 7 * 4096 && used.live < (5 << 20) + 9 * 4096, "{used:?}");
        let object = log.object("bucket", "k").await.unwrap().unwrap();
        let body = log.body(&object.parts[0]).await.unwrap();
        assert_eq!(body.blocks(), 5);
        for index in 0..5 {
            let block = &data[index as usize * BLOCK_DATA..][..BLOCK_DATA];
            for span in spans.clone() {
                let at = span.start * CHUNK_LEN..span.end * CHUNK_LEN;
                let (tags, buf) = log.read_block(&body, index, span.clone(), log.disk().buffer()).await;
                let tags = tags.unwrap();
                assert!(buf.as_ref()[at.clone()] == block[at.clone()], "{index} {span:?}");
                let mut open = log.open_block(&body, index).unwrap();
                let (pieces, buf) = log.read_piece(&body, &mut open, span.clone(), true, log.disk().buffer()).await;
                assert_eq!(pieces.unwrap(), tags);
                assert!(buf.as_ref()[..at.len()] == block[at], "{index} {span:?}");
                for chunk in span {
                    assert_eq!(*tags.get(chunk).unwrap(), tag(index * 64 + chunk as u64));
                }
            }
        }
    });
    drop(log);
    drop(store);
    medium.crash(LOST);
    let mut store = Store::open(&medium, 1);
    assert!(store.recovery.damaged.is_empty(), "{:?}", store.recovery);
    let log = store.log();
    assert_eq!(store.run(get(&log, "k")), Some(2));
}
