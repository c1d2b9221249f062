//! Concurrency tests under seeded schedules. The engine itself runs on several threads over one
//! in-memory disk, with shuttle's locks and atomics. A thread may be preempted at each lock and at
//! each step of the disk; a deadlock is a failure as well.
//!
//! `cargo test -p keyhole-log --features sabotage,shuttle --test threads`; `KEYHOLE_SEED=n` repeats
//! one schedule, and `KEYHOLE_SCHEDULES=n` runs more of them.

mod disk;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use futures_channel::oneshot;
use futures_util::future::{join, join_all, join4};
use shuttle::future::block_on;
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::RandomScheduler;
use shuttle::thread;

use keyhole_log::limits::SEGMENTS_START;
use keyhole_log::{
    Condition, Content, Disk, Error, Etag, Format, ListObjects, Listed, Log, OpenOptions, PutObject, Sabotage, Store,
    create, maintenance, open, sabotage, worker,
};
use keyhole_sim::disk::{Faults, Medium};
use keyhole_sim::random::Random;

use disk::{Records, ThreadDisk};

/// Number of schedules within which a mistake must be detected.
const CAUGHT_WITHIN: u64 = 200;

const WORKERS: usize = 3;

/// Maximum turns of most operations of the disk.
const TURNS_MAX: u64 = 3;

const SEGMENT_LEN: u64 = 2 << 20;
const CAPACITY: u64 = SEGMENTS_START + 24 * SEGMENT_LEN;

thread_local! {
    // All shuttle threads of a test share one system thread, so thread-locals are per test.
    /// The first violation.
    static WRONG: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Number of winners in [`race`].
    static WINNERS: Cell<usize> = const { Cell::new(0) };
}

/// Records a violation. A panic would unwind through state held by other threads.
fn hold(holds: bool, what: impl FnOnce() -> String) {
    if !holds {
        WRONG.with_borrow_mut(|wrong| {
            wrong.get_or_insert_with(what);
        });
    }
}

/// The work of one thread, and its number.
type Work = fn(usize, Log<ThreadDisk>, Arc<Records>) -> futures_util::future::LocalBoxFuture<'static, ()>;

fn options() -> OpenOptions {
    OpenOptions { workers: WORKERS, ..OpenOptions::default() }
}

/// Returns bytes that identify a version.
fn bytes(version: u64, len: usize) -> Vec<u8> {
    version.to_le_bytes().into_iter().cycle().take(len).collect()
}

async fn put(log: &Log<ThreadDisk>, key: &str, version: u64, len: usize, condition: Condition) -> Result<(), Error> {
    let mut buf = log.disk().buffer();
    buf.as_mut()[..len].copy_from_slice(&bytes(version, len));
    let body = log.body_writer().finish(Some((buf, len, &[])), b"").await?;
    let mut digest = [0; 16];
    digest[..8].copy_from_slice(&version.to_le_bytes());
    let put = PutObject {
        bucket: "b".into(),
        key: key.into(),
        content: Content::New(body, [0; 24]),
        head: Vec::new(),
        tags: Vec::new(),
        sealed: false,
        etag: Etag { digest, parts: 0 },
        size: len as u64,
        time_ms: 1,
        condition,
    };
    log.put_object(put).await
}

/// Reads an object completely, and returns its version and number. The index must
/// show only durable objects.
async fn get(log: &Log<ThreadDisk>, records: &Records, key: &str) -> Option<(u64, u64)> {
    let object = log.object("b", key).await.unwrap()?;
    hold(records.is_durable(object.seq), || format!("the index shows {key:?} ahead of its time"));
    let version = u64::from_le_bytes(object.etag.digest[..8].try_into().unwrap());
    let body = log.body(&object.parts[0]).await.unwrap();
    let (tags, buf) = log.read_block(&body, 0, 0..64, log.disk().buffer()).await;
    tags.unwrap();
    let len = object.size as usize;
    hold(buf.as_ref()[..len] == bytes(version, len), || format!("{key:?} has other bytes"));
    Some((version, object.seq))
}

/// Checks that the names and numbers of all objects are as expected.
async fn hold_everything(log: &Log<ThreadDisk>, records: &Records, when: &str) {
    let list = ListObjects { limit: 1000, ..ListObjects::default() };
    let mut found = BTreeMap::new();
    for entry in log.list_objects("b", &list).unwrap().entries {
        let Listed::Object { key, .. } = entry else { unreachable!("there is no delimiter") };
        let seq = get(log, records, &key).await.map(|(_, seq)| seq);
        found.extend(seq.map(|seq| (key, seq)));
    }
    let wanted = records.objects();
    hold(found == wanted, || format!("{when} there are {found:?}, and there should be {wanted:?}"));
}

async fn opened(disk: &ThreadDisk) -> Arc<Store> {
    let (store, recovery) = open(disk, options()).await.unwrap();
    hold(recovery.damaged.is_empty(), || format!("{:?}", recovery.damaged));
    store
}

/// Runs a store on several threads from creation to shutdown, and verifies its
/// contents after reopening it.
fn life(work: Work) {
    let faults = Faults { slowness: TURNS_MAX, ..Faults::none() };
    let medium = Medium::new(Random::new(thread_rng().r#gen()), faults);
    let records = Arc::<Records>::default();
    let disk = || Rc::new(ThreadDisk::new(&medium, &records));
    let format = Format { store_id: [7; 16], capacity: CAPACITY, segment_len: SEGMENT_LEN, created_ms: 1 };
    block_on(create(&*disk(), &format)).unwrap();
    let store = block_on(opened(&disk()));
    let (ends, mut others): (Vec<_>, Vec<_>) = (1..WORKERS).map(|_| oneshot::channel()).unzip();
    let mut begins = Vec::new();
    let threads: Vec<_> = (1..WORKERS)
        .zip(ends)
        .map(|(number, end)| {
            let (begin, begun) = oneshot::channel();
            begins.push(begin);
            let store = Arc::clone(&store);
            let medium = Arc::clone(&medium);
            let records = Arc::clone(&records);
            thread::spawn(move || {
                let (log, writer) = worker(store, Rc::new(ThreadDisk::new(&medium, &records)));
                let clients = async move {
                    begun.await.unwrap();
                    work(number, log, records).await;
                    end.send(()).unwrap();
                };
                block_on(join(clients, writer.run()));
            })
        })
        .collect();
    let (log, writer) = worker(Arc::clone(&store), disk());
    let (maintenance, its_writer) = maintenance(Arc::clone(&store), disk());
    let clients = async {
        log.create_bucket("b", 1).await.unwrap();
        begins.into_iter().for_each(|begin| begin.send(()).unwrap());
        work(0, log.clone(), Arc::clone(&records)).await;
        for other in &mut others {
            other.await.unwrap();
        }
        hold_everything(&log, &records, "at the end").await;
        drop(log);
    };
    block_on(join4(clients, writer.run(), maintenance.run(), its_writer.run()));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let pins = store.pins();
    hold(pins == (0, 0), || format!("{pins:?} pins that nobody holds"));
    drop(store);

    let store = block_on(opened(&disk()));
    let (log, writer) = worker(store, disk());
    let clients = async move { hold_everything(&log, &records, "after the opening").await };
    block_on(join(clients, writer.run()));
}

/// All threads try to be first.
fn race(
    number: usize,
    log: Log<ThreadDisk>,
    records: Arc<Records>,
) -> futures_util::future::LocalBoxFuture<'static, ()> {
    const RACERS: usize = 32;
    Box::pin(async move {
        if number == 0 {
            WINNERS.set(0);
        }
        let racers = (number..RACERS).step_by(WORKERS).map(|racer| {
            let log = log.clone();
            async move { (racer, put(&log, "one", racer as u64, 100, Condition::IfAbsent).await) }
        });
        let mut seen = false;
        for (racer, outcome) in join_all(racers).await {
            match outcome {
                Ok(()) => {
                    let winners = WINNERS.replace(WINNERS.get() + 1);
                    let there = get(&log, &records, "one").await;
                    hold(winners == 0, || "there are two winners".into());
                    hold(there.is_some_and(|(version, _)| version == racer as u64), || {
                        format!("{racer} won: {there:?}")
                    });
                }
                Err(Error::ConditionFailed) => seen = true,
                Err(Error::Conflict) => {}
                Err(error) => panic!("{error}"),
            }
        }
        let there = get(&log, &records, "one").await;
        hold(!seen || there.is_some(), || "somebody was ahead, but nobody is there".into());
    })
}

/// Each thread has a key of its own, and all write a few shared ones, while checkpoints are written
/// and segments cleaned.
fn churn(
    number: usize,
    log: Log<ThreadDisk>,
    records: Arc<Records>,
) -> futures_util::future::LocalBoxFuture<'static, ()> {
    const CLIENTS: usize = 3;
    const OPERATIONS: u64 = 8;
    Box::pin(async move {
        let clients = (0..CLIENTS).map(|client| {
            let log = log.clone();
            let records = Arc::clone(&records);
            async move {
                let own = format!("{number}-{client}");
                for operation in 0..OPERATIONS {
                    let version = (number * CLIENTS + client) as u64 * OPERATIONS + operation + 1;
                    let len = if thread_rng().gen_bool(0.3) { 300_000 } else { 1000 };
                    let shared = ["x", "y"][thread_rng().gen_range(0..2)];
                    match thread_rng().gen_range(0..6) {
                        0 => {
                            log.delete_object("b", &own, 1, Condition::None).await.unwrap();
                            let there = get(&log, &records, &own).await;
                            hold(there.is_none(), || format!("{own:?} was deleted: {there:?}"));
                        }
                        1 | 2 => {
                            put(&log, &own, version, len, Condition::None).await.unwrap();
                            let there = get(&log, &records, &own).await.map(|(version, _)| version);
                            hold(there == Some(version), || format!("{own:?} is {there:?} after {version}"));
                        }
                        3 => {
                            log.delete_object("b", shared, 1, Condition::None).await.unwrap();
                        }
                        4 => put(&log, shared, version, len, Condition::None).await.unwrap(),
                        _ => {
                            get(&log, &records, shared).await;
                        }
                    }
                }
            }
        });
        let upkeep = async {
            match number {
                0 => log.checkpoint().await.unwrap(),
                1 => drop(log.compact().await.unwrap()),
                _ => {}
            }
        };
        join(join_all(clients), upkeep).await;
    })
}

/// Runs one schedule by its seed. Returns the violation, if any.
fn scheduled(seed: u64, work: Work, mode: Option<Sabotage>) -> Result<(), String> {
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 20;
    config.silence_warnings = true; // Of atomic orderings: these are only flags.
    config.failure_persistence = shuttle::FailurePersistence::None;
    let runner = shuttle::Runner::new(RandomScheduler::new_from_seed(seed, 1), config);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        runner.run(move || {
            sabotage(mode);
            life(work);
        });
    }));
    sabotage(None);
    let wrong = WRONG.take();
    outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })?;
    wrong.map_or(Ok(()), Err)
}

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Half of the schedules are fixed, half are new in each run.
fn seeds(schedules: u64) -> Vec<u64> {
    if let Some(seed) = number_of("KEYHOLE_SEED") {
        return vec![seed];
    }
    let schedules = number_of("KEYHOLE_SCHEDULES").unwrap_or(schedules);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let fresh = now.map_or(1, |now| now.as_nanos() as u64) % 1_000_000_000 * 1_000_000;
    println!("{schedules} schedules: seeds 1 to {}, and from {fresh} on", schedules / 2);
    (1..=schedules / 2).chain(fresh..fresh + schedules.div_ceil(2)).collect()
}

fn holds(schedules: u64, work: Work) {
    for seed in seeds(schedules) {
        if let Err(what) = scheduled(seed, work, None) {
            panic!("schedule {seed}: {what}\n    repeat it with KEYHOLE_SEED={seed}");
        }
    }
}

#[test]
fn concurrent_first_writes_have_one_winner() {
    holds(200, race);
}

#[test]
fn threads_lose_no_acknowledged_write() {
    holds(30, churn);
}

/// Verifies the tests themselves: each of these mistakes is detected.
#[test]
fn sabotaged_engine_is_detected() {
    for (mode, work) in [
        (Sabotage::NoteLate, churn as Work),
        (Sabotage::ReserveLate, race),
        (Sabotage::ForgetDeletions, churn),
        (Sabotage::SkipSync, race),
    ] {
        let found =
            (1..=CAUGHT_WITHIN).find_map(|seed| scheduled(seed, work, Some(mode)).err().map(|what| (seed, what)));
        println!("{mode:?}: {found:?}");
        assert!(found.is_some(), "{mode:?} goes unnoticed");
    }
}
