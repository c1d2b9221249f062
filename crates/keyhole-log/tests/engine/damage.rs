//! Damage is reported, never returned as data, and never silently dropped.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use keyhole_log::limits::{PAGE, SEGMENTS_START};
use keyhole_log::{Condition, Error, Log};
use keyhole_sim::disk::{Medium, SimDisk};
use keyhole_sim::random::Random;

use crate::support::store::{CAPACITY, SEGMENT_LEN, Store, bytes, format, options, put, read};
use crate::support::{LOST, TORN, new_medium, word};

/// Objects of the sample: key, seed, length.
const OBJECTS: [(&str, u64, usize); 5] =
    [("small", 1, 100), ("inline", 2, 40_000), ("empty", 3, 0), ("large", 4, 1_200_000), ("medium", 5, 90_000)];

/// Creates a store of two workers, shut down in order or crashed. Returns its medium and contents.
fn sample(orderly: bool) -> (Arc<Medium>, Vec<u8>) {
    let medium = new_medium(1);
    format(&medium, CAPACITY).unwrap();
    let mut store = Store::open(&medium, 2);
    let logs = store.logs.clone();
    store.run(async {
        logs[0].create_bucket("bucket", 1).await.unwrap();
        for (i, (key, seed, len)) in OBJECTS.into_iter().enumerate() {
            put(&logs[i % 2], key, seed, len).await.unwrap();
        }
        put(&logs[0], "gone", 9, 50).await.unwrap();
        logs[1].delete_object("bucket", "gone", 1, Condition::None).await.unwrap();
    });
    drop(logs);
    if orderly {
        store.close();
    } else {
        drop(store);
    }
    medium.crash(LOST);
    let good = medium.content();
    (medium, good)
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Good,
    Damaged,
    Absent,
}

async fn look(log: &Log<SimDisk>, key: &str, seed: u64, len: usize) -> Found {
    let object = match log.object("bucket", key).await {
        Ok(Some(object)) => object,
        Ok(None) | Err(Error::NoSuchBucket) => return Found::Absent,
        Err(Error::Damaged(damage)) => {
            assert_eq!((damage.bucket.as_deref(), damage.key.as_deref()), (Some("bucket"), Some(key)));
            return Found::Damaged;
        }
        Err(error) => panic!("{error}"),
    };
    match read(log, &object).await {
        Ok(data) => {
            assert!(data == bytes(seed, len), "{key}: wrong bytes for good ones");
            Found::Good
        }
        Err(Error::Damaged(_)) => Found::Damaged,
        Err(error) => panic!("{error}"),
    }
}

/// Opens the damaged store and reads everything. Nothing may be wrong or missing without a report.
/// Returns whether there was a report.
fn check(medium: &Arc<Medium>, what: &str) -> bool {
    let mut store = match Store::open_with(medium, options(2)) {
        Ok(store) => store,
        Err(Error::Damaged(_)) => return true,
        Err(error) => panic!("{what}: {error}"),
    };
    let mut said = !store.recovery.damaged.is_empty() || store.recovery.mended;
    let log = store.log();
    let told = said;
    store.run(async {
        for (key, seed, len) in OBJECTS {
            match look(&log, key, seed, len).await {
                Found::Good => {}
                Found::Damaged => said = true,
                Found::Absent => assert!(told, "{what}: {key} is missing, and nothing was said"),
            }
        }
        let gone = log.object("bucket", "gone").await;
        assert!(told || matches!(gone, Ok(None)), "{what}: a deleted object is back, and nothing was said");
    });
    said
}

/// Returns the pages in use of the two META segments.
fn pages_of_records(good: &[u8]) -> Vec<usize> {
    let mut pages = Vec::new();
    for segment in (SEGMENTS_START as usize..good.len()).step_by(SEGMENT_LEN as usize) {
        let records = good[segment..].starts_with(b"keyhseg\n") && good[segment + 8] == 1;
        for page in (segment..segment + SEGMENT_LEN as usize).step_by(PAGE).skip(1) {
            if records && good[page..page + PAGE].iter().any(|&byte| byte != 0) {
                pages.push(page);
            }
        }
    }
    pages
}

#[test]
fn flipped_byte_of_record_is_reported() {
    let (medium, good) = sample(true);
    let pages = pages_of_records(&good);
    assert!(pages.len() > 10, "{}", pages.len());
    let last = pages.last().copied().unwrap_or_default();
    let mut random = Random::new(3);
    let mut noticed = 0;
    for &page in &pages {
        // Bytes in the header and some of the rest. The marks at the end of
        // each segment hold no data.
        for at in (0..80).step_by(7).chain((0..4).map(|_| random.below(PAGE as u64) as usize)) {
            if good[page + at] == 0 && at >= 80 {
                continue; // Possibly padding.
            }
            medium.set_content(&good);
            medium.edit(|bytes| bytes[page + at] ^= 0x20);
            if check(&medium, &format!("byte {at} of page {page}")) {
                noticed += 1;
            } else {
                let mark = good[page + 12] == 10;
                assert!(mark || page == last, "byte {at} of page {page}: nothing was said");
            }
        }
    }
    assert!(noticed > 100, "{noticed}");
}

#[test]
fn flipped_bytes_anywhere_never_return_wrong_bytes() {
    let (medium, good) = sample(false);
    let seed = 17;
    println!("seed {seed}");
    let mut random = Random::new(seed);
    for _ in 0..150 {
        let at = random.below(good.len() as u64) as usize;
        medium.set_content(&good);
        medium.edit(|bytes| bytes[at] ^= 1 << random.below(8));
        check(&medium, &format!("byte {at}"));
    }
    // Every segment header.
    for segment in (SEGMENTS_START as usize..good.len()).step_by(SEGMENT_LEN as usize) {
        medium.set_content(&good);
        medium.edit(|bytes| bytes[segment + 33] ^= 1);
        assert!(check(&medium, &format!("header at {segment}")), "a header in use");
        // It has been repaired, so the second recovery reports nothing.
        medium.crash(LOST);
        assert!(!check(&medium, &format!("header at {segment}, again")));
        medium.crash(LOST);
    }
}

#[test]
fn lost_pages_are_reported() {
    let (medium, good) = sample(true);
    let pages = pages_of_records(&good);
    for &page in &pages {
        if good[page + 12] == 10 && good[page..].starts_with(b"khR1") {
            continue; // A mark at the end.
        }
        medium.set_content(&good);
        medium.edit(|bytes| bytes[page..page + PAGE].fill(0));
        assert!(check(&medium, &format!("page {page}")), "page {page} was lost, and nothing was said");
    }
}

/// Another worker's later record has the durable hint for the very end of a segment.
#[test]
fn loss_at_segment_end_is_reported_by_durable_hint_of_another_worker() {
    let (medium, mut store) = Store::fresh(1, 2);
    let logs = store.logs.clone();
    store.run(async {
        logs[0].create_bucket("bucket", 1).await.unwrap();
        put(&logs[0], "first", 1, 100).await.unwrap();
        put(&logs[1], "second", 2, 100).await.unwrap();
    });
    drop((logs, store));
    medium.crash(LOST);
    let good = medium.content();
    let start = SEGMENTS_START as usize;
    let put_page = start + 2 * PAGE;
    assert!(good[put_page..].starts_with(b"khR1"), "the first worker's second batch");
    for flipped in [false, true] {
        medium.set_content(&good);
        if flipped {
            medium.edit(|bytes| bytes[put_page + 300] ^= 1);
        } else {
            medium.edit(|bytes| bytes[put_page..put_page + PAGE].fill(0));
        }
        // It stays reported across any number of recoveries.
        for _ in 0..3 {
            let mut store = Store::open(&medium, 2);
            assert_eq!(store.recovery.damaged.len(), 1, "{:?}", store.recovery);
            assert_eq!(store.recovery.damaged[0].offset as usize / PAGE, put_page / PAGE);
            let log = store.log();
            store.run(async {
                // If the name can still be read, the object stays listed.
                let expected = if flipped { Found::Damaged } else { Found::Absent };
                assert_eq!(look(&log, "first", 1, 100).await, expected);
                assert_eq!(look(&log, "second", 2, 100).await, Found::Good);
                put(&log, "third", 3, 100).await.unwrap();
            });
            drop((log, store));
            medium.crash(LOST);
        }
    }
}

/// A write torn within a header may leave the number of a record that was cut. That number was used
/// before, so the watermark of others may be higher. Only an untorn header counts as a claim to
/// have been durable.
#[test]
fn number_of_cut_record_claims_nothing() {
    let (medium, mut store) = Store::fresh(1, 2);
    let logs = store.logs.clone();
    store.run(async {
        logs[0].create_bucket("bucket", 1).await.unwrap();
        put(&logs[0], "first", 1, 100).await.unwrap();
        for key in ["second", "third", "fourth"] {
            put(&logs[1], key, 2, 100).await.unwrap();
        }
    });
    drop((logs, store));
    medium.crash(LOST);
    let mut image = medium.content();
    let mut last = SEGMENTS_START as usize + 2 * PAGE;
    let end = SEGMENTS_START as usize + 3 * PAGE;
    let newest = SEGMENTS_START as usize + SEGMENT_LEN as usize + 3 * PAGE;
    // The last record of its batch.
    while image[last + 13] & 2 == 0 {
        last += (word(&image, last + 8) as u32).next_multiple_of(8) as usize;
    }
    assert!(image[last..].starts_with(b"khR1") && image[end..end + PAGE].iter().all(|&byte| byte == 0));
    assert!(image[newest..].starts_with(b"khR1") && word(&image, newest + 56) > word(&image, last + 48) + 1);
    // The next record without its payload, like the one that was cut.
    let number = word(&image, last + 48);
    let crc = image[last + 4..last + 8].to_vec();
    image.copy_within(last..last + 80, end);
    image[end + 64..end + 68].copy_from_slice(&crc);
    image[end + 40..end + 48].copy_from_slice(&(end as u64).to_le_bytes());
    for (given, left, claims) in [(1, 1, true), (1000, 1, false), (1000, 1000, false)] {
        image[end + 48..end + 56].copy_from_slice(&(number + given).to_le_bytes());
        let mut check = crc32fast::Hasher::new();
        for range in [8..14, 16..56, 64..68] {
            check.update(&image[end + range.start..end + range.end]);
        }
        image[end + 14..end + 16].copy_from_slice(&(check.finalize() as u16).max(1).to_le_bytes());
        image[end + 48..end + 56].copy_from_slice(&(number + left).to_le_bytes());
        medium.set_content(&image);
        let store = Store::open(&medium, 2);
        let damaged = &store.recovery.damaged;
        assert_eq!(damaged.len(), usize::from(claims), "given {given}, left {left}: {damaged:?}");
        assert!(damaged.iter().all(|damage| damage.offset == end as u64), "{damaged:?}");
        drop(store);
        medium.crash(LOST);
        // The remains are gone: no later torn write can expose them.
        let mark = end + if claims { 0 } else { 12 };
        assert!(claims || medium.content()[mark] == 10, "a mark at the end");
    }
}

/// A single worker has no hint from others: each of its segments has one for the previous segment,
/// and the newest for itself.
#[test]
fn lost_end_of_segment_is_reported() {
    const COUNT: u64 = 100;
    let (medium, mut store) = Store::fresh(1, 1);
    let log = store.log();
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        for seed in 0..COUNT {
            put(&log, &format!("key-{seed}"), seed, 60_000).await.unwrap();
        }
    });
    drop(log);
    store.close();
    medium.crash(LOST);
    let good = medium.content();
    let segment_len = SEGMENT_LEN as usize;
    let segments: Vec<usize> = (SEGMENTS_START as usize..good.len()).step_by(segment_len).collect();
    assert!(segments.len() >= 3, "{}", segments.len());
    let opens_with = |what: &str, range: std::ops::Range<usize>| {
        medium.set_content(&good);
        medium.edit(|bytes| bytes[range].fill(0));
        let mut store = Store::open(&medium, 1);
        let said = !store.recovery.damaged.is_empty();
        let log = store.log();
        let absent = store.run(async {
            let mut absent = 0;
            for seed in 0..COUNT {
                match look(&log, &format!("key-{seed}"), seed, 60_000).await {
                    Found::Good => {}
                    // Half of its records may be there.
                    Found::Damaged | Found::Absent => absent += 1,
                }
            }
            absent
        });
        assert!(said, "{what}: {absent} objects are missing, and nothing was said");
        // Earlier bytes are not overwritten: they may become readable again.
        store.run(async {
            // The bucket's own record may be among the lost ones.
            let _ = log.create_bucket("bucket", 1).await;
            put(&log, "later", 1, 60_000).await.unwrap();
        });
        drop((log, store));
        medium.crash(LOST);
    };
    for &segment in &segments {
        let used = (segment..segment + segment_len).rev().find(|at| good[*at] != 0).unwrap_or(segment);
        let used = used.next_multiple_of(PAGE);
        opens_with("the header and the first batches", segment..segment + 40 * PAGE);
        if segment != segments[segments.len() - 1] {
            opens_with("the last batches and the end", used - 20 * PAGE..used);
            opens_with("all of it", segment..segment + segment_len);
        }
    }
}

/// When both superblock copies change, a bad copy is written first, so that the good one survives.
#[test]
fn change_of_capacity_keeps_one_valid_superblock() {
    for bad in [0, 512 << 10] {
        let (medium, _) = sample(true);
        let good = medium.content();
        // The medium stops at each operation in turn.
        for stop in 1..40 {
            medium.set_content(&good);
            medium.edit(|bytes| bytes[bad..bad + 512].fill(0xee));
            medium.stop_after_changes(Some(stop));
            let mut pool = futures_executor::LocalPool::new();
            let disk = SimDisk::in_turns(&medium);
            let options = keyhole_log::OpenOptions { capacity: Some(CAPACITY * 2), ..options(2) };
            let opened = Rc::new(Cell::new(false));
            let done = opened.clone();
            let opening = async move { done.set(keyhole_log::open(&disk, options).await.is_ok()) };
            futures_util::task::LocalSpawnExt::spawn_local(&pool.spawner(), opening).unwrap();
            pool.run_until_stalled();
            drop(pool);
            medium.crash(TORN);
            let store = Store::open_with(&medium, super::support::store::options(2));
            assert!(store.is_ok(), "copy at {bad} was bad, stopped at {stop}: {:?}", store.err());
            drop(store);
            medium.crash(LOST);
            if opened.get() {
                break;
            }
        }
    }
}

#[test]
fn damaged_object_record_is_reported_by_name() {
    let (medium, good) = sample(true);
    // The object record of the small one: it contains the key, after the body's record.
    let at = good.windows(5).position(|bytes| bytes == b"small").expect("its key is in its record");
    medium.edit(|bytes| bytes[at + 6] ^= 1); // In its head.
    let store = Store::open(&medium, 2);
    let [damage] = &store.recovery.damaged[..] else { panic!("{:?}", store.recovery) };
    assert_eq!((damage.bucket.as_deref(), damage.key.as_deref()), (Some("bucket"), Some("small")));
    assert!(damage.to_string().contains("\"small\""), "{damage}");
}

#[test]
fn truncated_file_reports_lost_objects() {
    let (medium, good) = sample(true);
    let mut said = 0;
    for len in (SEGMENTS_START as usize + PAGE..good.len()).step_by(300_001) {
        let mut cut = good.clone();
        cut.truncate(len);
        medium.set_content(&cut);
        said += u32::from(check(&medium, &format!("cut to {len}")));
    }
    assert!(said > 10, "{said}");
}
