//! File contents that FORMAT.md requires although recovery rarely depends on them.

use std::sync::Arc;

use keyhole_log::limits::{NUMBER_JUMP, PAGE, SEGMENTS_START, SUPERBLOCK_AT};
use keyhole_log::{Condition, Log};
use keyhole_sim::disk::{Medium, SimDisk};

use crate::support::store::{SEGMENT_LEN, Store, get, put};
use crate::support::{LOST, word};

/// Kinds of records.
const SEGMENT_END: u8 = 9;
const CHUNK: u8 = 11;
const CHECKPOINT: u8 = 12;

/// The header of a record.
#[derive(Debug, Clone, Copy)]
struct Header {
    at: u64,
    kind: u8,
    seq: u64,
    /// A segment and its durable offset; 0 if there is no statement.
    hint: (u32, u32),
    /// The first number of the payload.
    first: u64,
}

impl Header {
    fn segment(&self) -> u64 {
        (self.at - SEGMENTS_START) / SEGMENT_LEN
    }
}

fn half(image: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(image[at..at + 4].try_into().unwrap())
}

/// Returns all records in the file, in file order.
fn records(medium: &Arc<Medium>) -> Vec<Header> {
    let image = &medium.content();
    let places = (SEGMENTS_START as usize..image.len().saturating_sub(88)).step_by(8);
    let here = |at: &usize| image[*at..].starts_with(b"khR1") && word(image, at + 40) == *at as u64;
    let header = |at: usize| Header {
        at: at as u64,
        kind: image[at + 12],
        seq: word(image, at + 48),
        hint: (half(image, at + 72), half(image, at + 76)),
        first: word(image, at + 80),
    };
    places.filter(here).map(header).collect()
}

/// Stores small objects until records go to another segment.
async fn fill_segment(log: &Log<SimDisk>) {
    for seed in 0..SEGMENT_LEN / 60_000 + 4 {
        put(log, &format!("k{}", seed % 4), seed, 60_000).await.unwrap();
    }
}

#[test]
fn ended_segment_has_end_record_and_durable_hint() {
    let (medium, mut store) = Store::fresh(1, 1);
    let log = store.log();
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        fill_segment(&log).await;
    });
    let records = records(&medium);
    let first = records[0].segment();
    let end = records.iter().rfind(|record| record.segment() == first).unwrap();
    assert_eq!(end.kind, SEGMENT_END, "{end:?}");
    let next = records.iter().find(|record| record.segment() != first).unwrap();
    let until = end.at - SEGMENTS_START - first * SEGMENT_LEN + PAGE as u64;
    assert_eq!(next.hint, (first as u32, until as u32), "{next:?} behind {end:?}");
}

#[test]
fn checkpoint_does_not_cover_its_own_records() {
    let (medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    store.run(async {
        put(&log, "k", 2, 100).await.unwrap();
        log.checkpoint().await.unwrap();
    });
    let own: Vec<Header> =
        records(&medium).into_iter().filter(|record| matches!(record.kind, CHUNK | CHECKPOINT)).collect();
    assert!(own.len() >= 2);
    // Each begins with the number up to which the checkpoint covers everything.
    assert!(own.iter().all(|record| record.seq >= record.first), "{own:?}");
}

#[test]
fn checkpoint_raises_epoch_and_names_its_predecessor() {
    let (medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    let fields = || {
        let image = medium.content();
        let [first, second] = SUPERBLOCK_AT.map(|at| [32, 64, 72].map(|field| word(&image, at as usize + field)));
        assert_eq!(first, second, "epoch and checkpoints of both copies");
        first
    };
    let [mut epoch, mut newest, _] = fields();
    for seed in 0..4 {
        store.run(async {
            put(&log, "k", seed, 100).await.unwrap();
            log.checkpoint().await.unwrap();
        });
        let [now, named, before] = fields();
        assert!(now > epoch && named != newest, "epoch {epoch}, then {now}");
        assert_eq!(before, newest, "the checkpoint before");
        epoch = now;
        newest = named;
    }
}

/// A number that was allocated and lost may appear in the remains of a torn write.
#[test]
fn opening_continues_above_all_numbers_possibly_allocated() {
    let (medium, mut store) = Store::fresh(1, 1);
    let log = store.log();
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        put(&log, "k", 2, 100).await.unwrap();
    });
    drop((log, store));
    medium.crash(LOST);
    let before = records(&medium).iter().map(|record| record.seq).max().unwrap();
    let mut store = Store::open(&medium, 1);
    let log = store.log();
    store.run(async { put(&log, "k", 4, 100).await.unwrap() });
    let after = records(&medium).iter().map(|record| record.seq).filter(|&seq| seq > before).min().unwrap();
    assert!(after >= before + NUMBER_JUMP, "{before}, then {after}");
}

/// With only one checkpoint, recovery without it relies on the records alone, so
/// all of them must remain.
#[test]
fn segments_are_not_freed_before_second_checkpoint() {
    let (_, mut store) = Store::fresh_maintained();
    let log = store.log();
    store.run(async {
        // The first segment holds the bucket; the second will be dead.
        fill_segment(&log).await;
        fill_segment(&log).await;
        for key in 0..4 {
            log.delete_object("bucket", &format!("k{key}"), 1, Condition::None).await.unwrap();
        }
        put(&log, "last", 2, 100).await.unwrap();
    });
    let freed = |store: &mut Store| {
        store.run(async { log.checkpoint().await.unwrap() });
        log.store().stats().cleaner.segments_freed
    };
    assert_eq!(log.store().stats().cleaner.checkpoints, 0, "the test goes by the checkpoints that it asks for");
    assert_eq!(freed(&mut store), 0, "after one checkpoint");
    // The segment was dead when the first checkpoint was begun.
    let later: Vec<u64> = (0..3).map(|_| freed(&mut store)).collect();
    assert!(later[2] > 0, "{later:?}");
    assert_eq!(store.run(get(&log, "last")), Some(2));
}
