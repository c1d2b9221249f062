//! Small media: usable capacity, deleting everything from a full store, and refilling it.

use std::sync::Arc;

use futures_executor::LocalPool;

use keyhole_log::limits::{SEGMENT_LEN_MIN, capacity_min};
use keyhole_log::{Condition, CreateUpload, Error, Format, Log, OpenOptions, PutPart, create};
use keyhole_sim::disk::{Crash, Medium, SimDisk};

use crate::support::store::{Store, bytes, options, put, write_body};
use crate::support::{SOME, new_medium};

/// A store as created by `keyhole serve`.
struct Small {
    medium: Arc<Medium>,
    store: Store,
    workers: usize,
    /// Whether the store is killed and reopened between two phases.
    kills: bool,
    len: usize,
}

impl Small {
    fn new(capacity: u64, segment_len: u64, workers: usize, len: usize, kills: bool) -> Self {
        let medium = new_medium(1);
        let format = Format { store_id: [1; 16], capacity, segment_len, created_ms: 0 };
        LocalPool::new().run_until(create(&SimDisk::in_turns(&medium), &format)).unwrap();
        let mut store = Store::maintained(&medium, options(workers)).unwrap();
        let log = store.log();
        store.run(log.create_bucket("bucket", 1)).unwrap();
        Small { medium, store, workers, kills, len }
    }

    fn kill(&mut self) {
        if self.kills {
            self.medium.stop_after_changes(Some(0));
            let empty = Store::open_with(&Small::blank(), options(1)).unwrap();
            drop(std::mem::replace(&mut self.store, empty));
            self.medium.crash(SOME);
            self.store = Store::maintained(&self.medium, options(self.workers)).unwrap();
            assert!(self.store.recovery.damaged.is_empty(), "{:?}", self.store.recovery);
        }
    }

    /// Creates a placeholder medium while the store is being killed.
    fn blank() -> Arc<Medium> {
        let medium = new_medium(1);
        crate::support::store::format(&medium, 32 << 20).unwrap();
        medium
    }

    /// Stores objects, alternating between workers, until the store is full. Returns their number.
    fn fill(&mut self) -> u64 {
        let logs = self.store.logs.clone();
        let len = self.len;
        self.store.run(async {
            for seed in 0u64.. {
                let log = &logs[seed as usize % logs.len()];
                match put(log, &format!("k{seed}"), seed, len).await {
                    Ok(()) => {}
                    Err(Error::Full) => return seed,
                    Err(error) => panic!("{error}"),
                }
            }
            unreachable!("it is full some time")
        })
    }

    /// Deletes the objects one by one. No deletion may be refused.
    fn delete(&mut self, count: u64) {
        let logs = self.store.logs.clone();
        self.store.run(async {
            for seed in 0..count {
                let log = &logs[seed as usize % logs.len()];
                let deleted = log.delete_object("bucket", &format!("k{seed}"), 1, Condition::None).await;
                assert!(deleted.unwrap_or_else(|error| panic!("deletion {seed} of {count}: {error}")), "{seed}");
            }
        });
    }
}

/// Returns the share of the capacity that objects of this length fill. Checks that all of them can
/// be deleted, and at least `again` percent of them stored again.
fn share(capacity: u64, segment_len: u64, workers: usize, len: usize, kills: bool, again: u64) -> f64 {
    let mut small = Small::new(capacity, segment_len, workers, len, kills);
    let first = small.fill();
    let mut filled = first;
    for _ in 0..2 {
        small.kill();
        small.delete(filled);
        assert_eq!(small.store.logs[0].store().usage().objects, 0);
        small.kill();
        filled = small.fill();
        let what = format!("{first}, then {filled} objects of {len} in {capacity} with {workers} workers");
        assert!(filled > 0 && (filled + 1) * 100 >= first * again, "{what}");
    }
    (first.min(filled) * len as u64) as f64 / capacity as f64
}

#[test]
fn store_of_64_mib_holds_three_quarters_of_objects() {
    for (capacity, segment_len) in [(64 << 20, SEGMENT_LEN_MIN), (80 << 20, SEGMENT_LEN_MIN), (130 << 20, 1 << 20)] {
        for len in [100_000, 1 << 20, 3 << 20] {
            let share = share(capacity, segment_len, 2, len, len == 100_000, 93);
            println!("{} MiB, objects of {len}: {share:.3}", capacity >> 20);
            assert!(share >= 0.75, "{share:.3} of {capacity} with objects of {len}");
        }
    }
}

/// Checks the minimum capacity, and slightly larger ones.
fn check_least(objects: &[(u64, usize)]) {
    for workers in [1, 2, 4] {
        for &(more, len) in objects {
            let capacity = capacity_min(SEGMENT_LEN_MIN, workers) + more * SEGMENT_LEN_MIN;
            // Here a partly filled segment is a large share of the space for objects.
            let share = share(capacity, SEGMENT_LEN_MIN, workers, len, more % 2 == 1 || len == 100_000, 40);
            println!("{workers} workers, {capacity} bytes, objects of {len}: {share:.3}");
        }
    }
}

#[test]
fn least_capacity_full_of_blocks_can_be_emptied_and_filled_again() {
    check_least(&[(0, 100_000), (0, 1 << 20), (9, 100_000)]);
}

#[test]
fn least_capacity_full_of_inline_bodies_can_be_emptied_and_filled_again() {
    check_least(&[(0, 60_000), (1, 60_000)]);
}

#[test]
fn least_capacity_full_of_tiny_objects_can_be_emptied_and_filled_again() {
    check_least(&[(0, 200), (5, 200)]);
}

async fn create_upload(log: &Log<SimDisk>, key: &str, id: u8) {
    let bucket = "bucket".into();
    let key = key.into();
    let id = [id; 16];
    let head = vec![1; 30];
    let tags = Vec::new();
    let sealed = true;
    let time_ms = 1;
    let declared = None;
    log.create_upload(CreateUpload { bucket, key, id, head, tags, sealed, time_ms, declared }).await.unwrap();
}

async fn put_part(log: &Log<SimDisk>, key: &str, id: u8, number: u16, len: usize) -> Result<(), Error> {
    let upload = log.upload("bucket", key, &[id; 16])?.ok_or(Error::NoSuchUpload)?;
    let content = write_body(log, &bytes(id.into(), len), true).await?;
    let salt = [5; 24];
    let etag = [6; 16];
    let size = len as u64;
    let time_ms = 7;
    let checksums = Vec::new();
    log.put_part(PutPart { upload, number, content, salt, etag, size, time_ms, checksums }).await
}

/// Half of the ring is abandoned uploads. They are dropped when they are the oldest, while writes
/// continue for five times the capacity. An active upload is not dropped.
#[test]
fn ring_drops_abandoned_uploads() {
    let capacity = 40 << 20;
    let medium = new_medium(1);
    let format = Format { store_id: [1; 16], capacity, segment_len: SEGMENT_LEN_MIN, created_ms: 0 };
    LocalPool::new().run_until(create(&SimDisk::in_turns(&medium), &format)).unwrap();
    let ring = OpenOptions { ring: true, ..options(2) };
    let mut store = Store::maintained(&medium, ring.clone()).unwrap();
    let log = store.log();
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        for id in 0..5 {
            create_upload(&log, "abandoned", id).await;
            for number in 1..=4 {
                put_part(&log, "abandoned", id, number, 1 << 20).await.unwrap();
            }
        }
        create_upload(&log, "alive", 77).await;
        assert_eq!(log.store().usage().uploads, 6);
    });
    drop(log);
    drop(store);
    medium.crash(Crash::Process);
    let mut store = Store::maintained(&medium, ring).unwrap();
    let logs = store.logs.clone();
    store.run(async {
        let len = 300_000;
        for i in 0..5 * capacity / len {
            let log = &logs[i as usize % 2];
            put(log, &format!("k{i:05}"), i, len as usize).await.unwrap_or_else(|error| panic!("object {i}: {error}"));
            if i % 20 == 0 {
                put_part(log, "alive", 77, 1, 200_000).await.unwrap_or_else(|error| panic!("part {i}: {error}"));
            }
        }
        let usage = logs[0].store().usage();
        assert_eq!(usage.uploads, 1, "those that were abandoned have gone");
        assert!(logs[0].upload("bucket", "alive", &[77; 16]).unwrap().is_some());
        assert!(usage.objects * len * 2 > capacity, "and their space is of use: {usage:?}");
    });
}
