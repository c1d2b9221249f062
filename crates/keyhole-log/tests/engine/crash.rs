//! Crashes: acknowledged writes survive, others are whole or absent, and
//! deleted data stays deleted.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use keyhole_log::limits::{PAGE, SEGMENTS_START};
use keyhole_log::{CompleteUpload, Condition, CreateUpload, Durability, Error, Log, OpenOptions, PutObject, PutPart};
use keyhole_sim::disk::{Crash, Medium, SimDisk};
use keyhole_sim::random::Random;

use crate::support::store::{
    CAPACITY, SEGMENT_LEN, Store, bytes, copy_of, etag, format, get, keys, options, put, write_body,
};
use crate::support::{CRASHES, LOST, TORN, new_medium};

/// Value of a key: the seed of an object, or absent.
type Value = Option<u64>;

/// The known state of each key. Each key has one writer at a time.
#[derive(Debug, Default)]
struct Model {
    acknowledged: BTreeMap<String, Value>,
    on_its_way: BTreeMap<String, Value>,
    next_seed: u64,
}

type SharedModel = Rc<RefCell<Model>>;

impl Model {
    fn begin(&mut self, key: &str, value: Value) {
        assert!(self.on_its_way.insert(key.into(), value).is_none());
    }

    /// Errors can only be failed conditions here: any other would be a crash,
    /// which answers no client.
    fn end(&mut self, key: &str, done: bool) {
        let value = self.on_its_way.remove(key).expect("it has begun");
        if done {
            self.acknowledged.insert(key.into(), value);
        }
    }

    fn now(&self, key: &str) -> Value {
        self.acknowledged.get(key).copied().flatten()
    }

    fn seed(&mut self) -> u64 {
        self.next_seed += 1;
        self.next_seed
    }
}

async fn copy(log: &Log<SimDisk>, from: &str, to: &str, seed: u64) -> Result<(), Error> {
    let Some(source) = log.object("bucket", from).await? else { return Err(Error::NoSuchKey) };
    let put = PutObject { tags: source.tags.clone(), time_ms: seed, ..copy_of(source, to) };
    log.put_object(put).await
}

/// Stores an object in parts. Another upload is left open or aborted.
async fn multipart(log: &Log<SimDisk>, key: &str, seed: u64, len: usize) -> Result<(), Error> {
    let mut id = [1; 16];
    id[..8].copy_from_slice(&seed.to_le_bytes());
    let bucket = "bucket".to_owned();
    let sealed = seed.is_multiple_of(2);
    let head = vec![1; 10];
    let tags = vec![2; 10];
    let declared = None;
    let create = CreateUpload { bucket, key: key.into(), id, head, tags, sealed, time_ms: seed, declared };
    log.create_upload(create.clone()).await?;
    id[15] = 2;
    log.create_upload(CreateUpload { id, ..create.clone() }).await?;
    let upload = log.upload("bucket", key, &create.id)?.expect("just created");
    let data = bytes(seed, len);
    for (number, part) in (1..).zip(data.chunks(len.div_ceil(2).max(1))) {
        let content = write_body(log, part, sealed).await?;
        let upload = upload.clone();
        let size = part.len() as u64;
        log.put_part(PutPart {
            upload,
            number,
            content,
            salt: [1; 24],
            etag: [2; 16],
            size,
            time_ms: 1,
            checksums: vec![],
        })
        .await?;
    }
    if seed.is_multiple_of(3) {
        log.abort_upload("bucket", key, &id, 1).await?;
    }
    let parts = log.parts(&upload, 0, 10)?.into_iter().map(|part| part.part).collect();
    let head = format!("head of {seed}").into_bytes();
    let etag = etag(seed);
    let size = len as u64;
    let condition = Condition::None;
    let tags = vec![3; 10];
    let part_checksums = vec![4; 10];
    let bound = true;
    let time_ms = seed;
    let complete = CompleteUpload { upload, parts, head, tags, part_checksums, bound, etag, size, time_ms, condition };
    log.complete_upload(complete).await
}

/// A client that writes its own keys and copies those of others.
async fn client(log: Log<SimDisk>, name: u64, model: SharedModel, mut random: Random, steps: u64) {
    for _ in 0..steps {
        let key = format!("{name}/{}", random.below(3));
        let len = match random.below(4) {
            0 => random.below(3000),
            1 => random.below(64 << 10),
            2 => (64 << 10) + random.below(100_000),
            _ => random.below(2_200_000),
        } as usize;
        let seed = model.borrow_mut().seed();
        match random.below(8) {
            0 | 1 => {
                model.borrow_mut().begin(&key, None);
                let there = model.borrow().now(&key).is_some();
                assert_eq!(log.delete_object("bucket", &key, seed, Condition::None).await.unwrap(), there);
                model.borrow_mut().end(&key, true);
            }
            2 => {
                let from = format!("{name}/{}", random.below(3));
                let value = model.borrow().now(&from);
                model.borrow_mut().begin(&key, value);
                let result = copy(&log, &from, &key, seed).await;
                assert_eq!(result.is_ok(), value.is_some(), "{result:?}");
                model.borrow_mut().end(&key, result.is_ok());
            }
            3 => {
                model.borrow_mut().begin(&key, Some(seed));
                multipart(&log, &key, seed, len.max(1)).await.unwrap();
                model.borrow_mut().end(&key, true);
            }
            _ => {
                model.borrow_mut().begin(&key, Some(seed));
                put(&log, &key, seed, len).await.unwrap();
                model.borrow_mut().end(&key, true);
            }
        }
    }
}

/// Verifies everything after a crash, and takes the found state as acknowledged.
fn check(store: &mut Store, model: &SharedModel) {
    assert!(store.recovery.damaged.is_empty(), "{:?}", store.recovery);
    let log = store.log();
    let mut model = model.borrow_mut();
    let mut names: Vec<String> = model.acknowledged.keys().chain(model.on_its_way.keys()).cloned().collect();
    names.sort();
    names.dedup();
    let mut listed = Vec::new();
    for key in names {
        let found = if log.bucket("bucket").is_some() { store.run(get(&log, &key)) } else { None };
        let legal = [Some(model.now(&key)), model.on_its_way.get(&key).copied()];
        assert!(legal.contains(&Some(found)), "{key} is {found:?}, legal is {legal:?}");
        if found.is_some() {
            listed.push(key.clone());
        }
        model.acknowledged.insert(key, found);
    }
    if log.bucket("bucket").is_some() {
        assert_eq!(keys(&log), listed);
    }
    model.on_its_way.clear();
}

/// Opens the store, lets clients write until the disk stops or they finish, crashes it, reopens it
/// and verifies it. Returns the number of changes of the medium.
fn life(
    medium: &Arc<Medium>,
    model: &SharedModel,
    random: &mut Random,
    steps: u64,
    stop: Option<u64>,
    how: Crash,
) -> u64 {
    let workers = 1 + random.below(3) as usize;
    let mut store = if random.chance(70) {
        Store::maintained(medium, options(workers)).unwrap()
    } else {
        Store::open(medium, workers)
    };
    check(&mut store, model);
    let before = medium.counters().changes;
    medium.stop_after_changes(stop);
    let first = store.log();
    let bucket = first.clone();
    let ready = Rc::new(std::cell::Cell::new(bucket.bucket("bucket").is_some()));
    let created = Rc::clone(&ready);
    if !ready.get() {
        store.spawn(async move {
            bucket.create_bucket("bucket", 1).await.unwrap();
            created.set(true);
        });
        store.run_until_stalled();
    }
    if ready.get() {
        for name in 0..4 {
            let log = store.logs[name as usize % workers].clone();
            store.spawn(client(log, name, Rc::clone(model), Random::new(random.number()), steps));
        }
        store.run_until_stalled();
    }
    drop((store, first));
    medium.crash(how);
    medium.counters().changes - before
}

#[test]
fn crash_at_every_operation_loses_no_acknowledged_write() {
    for how in CRASHES {
        // Repeats the same run, stopped one operation later each time, followed by a second run.
        let mut stop = 0;
        loop {
            println!("{how:?} after {stop} operations");
            let medium = new_medium(stop);
            medium.update_faults(|faults| faults.slowness = 2);
            format(&medium, CAPACITY).unwrap();
            let model = SharedModel::default();
            let mut random = Random::new(7);
            let operations = life(&medium, &model, &mut random, 6, Some(stop), how);
            life(&medium, &model, &mut random, 2, Some(stop / 2), how);
            check(&mut Store::open(&medium, 2), &model);
            if operations <= stop {
                break;
            }
            stop += 1 + stop / 12;
        }
    }
}

#[test]
fn many_crashes_in_a_row_lose_no_acknowledged_write() {
    let fresh =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
    let seeds = (1..=30).chain(std::env::var("KEYHOLE_SEED").ok().and_then(|seed| seed.parse().ok())).chain([fresh]);
    for seed in seeds {
        println!("seed {seed} (set KEYHOLE_SEED to repeat it)");
        let medium = new_medium(seed);
        let mut random = Random::new(seed);
        medium.update_faults(|faults| faults.slowness = random.below(6));
        format(&medium, 256 << 20).unwrap();
        let model = SharedModel::default();
        for _ in 0..5 {
            let how = CRASHES[random.below(4) as usize];
            let stop = random.chance(80).then(|| random.below(150));
            life(&medium, &model, &mut random, 5, stop, how);
        }
        let mut store = Store::open(&medium, 1);
        check(&mut store, &model);
        store.close();
        let mut store = Store::open(&medium, 1);
        assert_eq!(store.recovery.cut, 0, "after an orderly end");
        check(&mut store, &model);
    }
}

/// A batch is torn, the segment is resumed, and another crash follows: the remains of the torn
/// batch after the new records must not reappear.
#[test]
fn torn_batch_does_not_come_back() {
    for seed in 0..40 {
        println!("seed {seed}");
        let (medium, mut store) = Store::fresh(seed, 1);
        let log = store.log();
        store.run(async { log.create_bucket("bucket", 1).await.unwrap() });
        // One batch of many records, large and small; no sync completes.
        medium.stop_after_changes(Some(0));
        for i in 0..12 {
            let log = log.clone();
            store.spawn(async move { put(&log, &format!("torn {i}"), i, 3000 * (i as usize % 4)).await.unwrap() });
        }
        store.run_until_stalled();
        drop((log, store));
        medium.crash(TORN);

        let mut store = Store::open(&medium, 1);
        let log = store.log();
        let before = keys(&log);
        assert!(before.is_empty() || before.len() == 12, "a batch counts as a whole");
        let how_many = seed % 4;
        store.run(async {
            for i in 0..how_many {
                put(&log, &format!("new {i}"), i, 1000).await.unwrap();
            }
            for key in &before {
                assert!(log.delete_object("bucket", key, 1, Condition::None).await.unwrap());
            }
        });
        drop((log, store));
        medium.crash(LOST);
        let store = Store::open(&medium, 1);
        let log = store.log();
        assert_eq!(keys(&log), (0..how_many).map(|i| format!("new {i}")).collect::<Vec<_>>());
        assert!(store.recovery.damaged.is_empty());
    }
}

/// Deferred syncs lose unflushed writes, but never half of one.
#[test]
fn crash_under_deferred_durability_loses_whole_objects_only() {
    let deferred = || OpenOptions { durability: Durability::Deferred, ..options(2) };
    for seed in 0..30 {
        println!("seed {seed}");
        let medium = new_medium(seed);
        medium.update_faults(|faults| faults.slowness = 3);
        format(&medium, CAPACITY).unwrap();
        let mut flushed = BTreeMap::<String, u64>::new();
        for round in 0..3u64 {
            let mut store = Store::open_with(&medium, deferred()).unwrap();
            assert!(store.recovery.damaged.is_empty(), "{:?}", store.recovery);
            let logs = store.logs.clone();
            store.run(async {
                if !logs[0].create_bucket("bucket", 1).await.unwrap() {
                    for (key, value) in &flushed {
                        let found = get(&logs[0], key).await;
                        assert!(found >= Some(*value), "{key} is {found:?}, was {value}");
                    }
                }
                // Values only grow, so a found value may be newer but not older.
                for step in 0..12 {
                    let key = format!("k{}", step % 5);
                    let value = round * 100 + step + 1;
                    let log = &logs[step as usize % 2];
                    if step == 6 {
                        logs[1].flush().await.unwrap();
                        for key in keys(log) {
                            let value = get(log, &key).await.unwrap();
                            flushed.insert(key, value);
                        }
                    }
                    put(log, &key, value, 30_000 * (value as usize % 5)).await.unwrap();
                }
            });
            drop((logs, store));
            medium.crash(CRASHES[(seed + round) as usize % 4]);
        }
    }
}

/// A batch that a power failure has cut off from the one before stays lost, even if the same record is
/// written again in the place of that one.
#[test]
fn repeated_first_record_is_not_followed_by_a_lost_one() {
    let medium = new_medium(1);
    format(&medium, CAPACITY).unwrap();
    let create = |nonce: u32, names: &'static [&'static str]| {
        let deferred = OpenOptions { durability: Durability::Deferred, nonce, ..options(1) };
        let mut store = Store::open_with(&medium, deferred).unwrap();
        let log = store.log();
        let found: Vec<String> = log.buckets().into_iter().map(|bucket| bucket.name).collect();
        store.run(async {
            for name in names {
                log.create_bucket(name, 1).await.unwrap();
            }
        });
        found
    };
    // With its full length, each opening uses the same segments of an empty file.
    medium.edit(|content| content.resize(CAPACITY as usize, 0));
    assert!(create(1, &["first", "second"]).is_empty());
    medium.edit(|content| {
        // Of the header of the segment and the two batches, the second batch survives.
        let is_second = |page: &[u8]| page.windows(6).any(|bytes| bytes == b"second");
        let second = content.chunks(PAGE).position(is_second).expect("it was written") * PAGE;
        assert_eq!((second as u64 - SEGMENTS_START) % SEGMENT_LEN, 2 * PAGE as u64, "behind header and first batch");
        content[second - 2 * PAGE..second].fill(0);
    });
    assert!(create(2, &["first"]).is_empty());
    assert_eq!(create(3, &[]), ["first"]);
}
