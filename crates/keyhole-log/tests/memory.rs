//! Heap usage of the engine, measured by a counting allocator: during recovery,
//! and for long-lived uploads.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use futures_executor::LocalPool;
use futures_util::future::join_all;
use futures_util::task::LocalSpawnExt;
use keyhole_log::limits::{BUFFER_LEN, SEGMENT_LEN_MIN};
use keyhole_log::{
    Condition, Content, CreateUpload, Disk, Durability, Etag, Format, ListUploads, ListedUpload, Log, NewBody,
    OpenOptions, PutObject, PutPart, Recovery, Store, create, estimate_index, maintenance, open, worker,
};
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// The allocator counts all threads, so only one test runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Maximum bytes per replayed record, excluding the resulting index.
const PER_RECORD: usize = 64;

/// Maximum fixed bytes of a recovery: a few buffers, and the segments being read.
const PER_OPENING: usize = 3 * BUFFER_LEN;

/// Maximum bytes per further record, once the buffers dominate: records overwritten since the
/// checkpoint take no memory.
const PER_RECORD_MORE: usize = 8;

/// Maximum bytes of an upload with one part in the index, including its key.
const PER_UPLOAD: usize = 400;

/// Concurrent requests.
const AT_ONCE: usize = 64;

/// A file, whose bytes are not on the heap.
#[derive(Clone)]
struct FileDisk(Rc<File>);

struct Buf(Vec<u8>);

impl AsRef<[u8]> for Buf {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl AsMut<[u8]> for Buf {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Disk for FileDisk {
    type Buf = Buf;

    fn buffer(&self) -> Buf {
        Buf(vec![0; BUFFER_LEN])
    }

    fn buffer_with_len(&self, len: usize) -> Buf {
        Buf(vec![0; len])
    }

    async fn read(&self, offset: u64, mut buf: Buf, at: Range<usize>) -> (io::Result<()>, Buf) {
        (self.0.read_exact_at(&mut buf.0[at], offset), buf)
    }

    async fn write(&self, offset: u64, buf: Buf, at: Range<usize>) -> (io::Result<()>, Buf) {
        (self.0.write_all_at(&buf.0[at], offset), buf)
    }

    /// The file outlives every store of this process, so nothing is lost without a sync.
    async fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    async fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    async fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.set_len(self.0.metadata()?.len().max(offset + len))
    }
}

/// An open store. Its worker and maintenance run during [`run`](RunningStore::run).
struct RunningStore {
    pool: LocalPool,
    log: Log<FileDisk>,
    recovery: Recovery,
}

fn new_disk(segment_len: u64) -> FileDisk {
    let disk = FileDisk(Rc::new(tempfile::tempfile().unwrap()));
    let format = Format { store_id: [7; 16], capacity: 4 << 30, segment_len, created_ms: 1 };
    LocalPool::new().run_until(create(&disk, &format)).unwrap();
    disk
}

fn open_store(disk: &FileDisk) -> (Arc<Store>, Recovery) {
    let options = OpenOptions { durability: Durability::Deferred, ..OpenOptions::default() };
    LocalPool::new().run_until(open(disk, options)).unwrap()
}

impl RunningStore {
    fn open(disk: &FileDisk) -> RunningStore {
        let (store, recovery) = open_store(disk);
        let pool = LocalPool::new();
        let (log, writer) = worker(Arc::clone(&store), Rc::new(disk.clone()));
        let (maintenance, its_writer) = maintenance(store, Rc::new(disk.clone()));
        let spawner = pool.spawner();
        spawner.spawn_local(async move { writer.run().await }).unwrap();
        spawner.spawn_local(async move { its_writer.run().await }).unwrap();
        spawner.spawn_local(async move { maintenance.run().await }).unwrap();
        RunningStore { pool, log, recovery }
    }

    fn run<T>(&mut self, future: impl Future<Output = T>) -> T {
        self.pool.run_until(future)
    }

    /// Runs `act` for each of these numbers, many at a time.
    fn each<F: Future<Output = ()>>(&mut self, numbers: Range<usize>, act: impl Fn(Log<FileDisk>, usize) -> F) {
        for first in numbers.clone().step_by(AT_ONCE) {
            let some = (first..numbers.end.min(first + AT_ONCE)).map(|n| act(self.log.clone(), n));
            self.pool.run_until(join_all(some));
        }
    }
}

async fn body(log: &Log<FileDisk>, n: usize) -> NewBody {
    let writer = log.body_writer();
    let mut buf = log.disk().buffer_with_len(4096);
    buf.0[..8].copy_from_slice(&n.to_le_bytes());
    writer.finish(Some((buf, 100, &[])), b"").await.unwrap()
}

async fn put(log: Log<FileDisk>, key: usize, n: usize) {
    let content = Content::New(body(&log, n).await, [0; 24]);
    let put = PutObject {
        bucket: "bucket".into(),
        key: format!("object-{key:08}"),
        content,
        head: vec![5; 60],
        tags: Vec::new(),
        sealed: false,
        etag: Etag { digest: [1; 16], parts: 0 },
        size: 100,
        time_ms: n as u64,
        condition: Condition::None,
    };
    log.put_object(put).await.unwrap();
}

/// Opens the store as after a crash. Returns the peak heap usage beyond what remains.
fn transient(disk: &FileDisk) -> (usize, Recovery) {
    HEAP.reset_peak_usage();
    let opened = open_store(disk);
    let taken = HEAP.peak_usage() - HEAP.current_usage();
    (taken, opened.1)
}

#[test]
fn opening_after_crash_takes_little_more_than_the_index() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    const OBJECTS: usize = 10_000;
    // Two per overwritten object: a body and an object.
    const RECORDS: usize = 30_000;
    let disk = new_disk(SEGMENT_LEN_MIN);
    let mut store = RunningStore::open(&disk);
    store.run(store.log.clone().create_bucket("bucket", 1)).unwrap();
    store.each(0..OBJECTS, |log, n| put(log, n, n));
    let estimate = |disk: &FileDisk| LocalPool::new().run_until(estimate_index(disk)).unwrap();
    assert_eq!(estimate(&disk), None, "there is no checkpoint");
    store.run(store.log.clone().checkpoint()).unwrap();
    let estimated = estimate(&disk).unwrap();
    let taken = store.log.store().stats().index_bytes;
    println!("{estimated} bytes of index estimated, {taken} taken");
    assert!(estimated.abs_diff(taken) <= taken / 5, "{estimated} bytes of index estimated, {taken} taken");
    let mut peaks = Vec::new();
    for round in 0..4 {
        store.each(0..RECORDS / 4, |log, n| put(log, (n * 7 + round) % OBJECTS, n));
        drop(store);
        let (taken, recovery) = transient(&disk);
        let records = recovery.records as usize;
        assert!(records >= RECORDS / 2 * (round + 1) && recovery.damaged.is_empty(), "{recovery:?}");
        assert_eq!(recovery.objects, OBJECTS as u64);
        println!("{records} records since the checkpoint: {taken} bytes beside the index");
        assert!(taken <= PER_OPENING + PER_RECORD * records, "{taken} bytes for {records} records");
        peaks.push((records, taken));
        store = RunningStore::open(&disk);
        assert_eq!(store.recovery.objects, OBJECTS as u64);
    }
    for pair in peaks[1..].windows(2) {
        let (fewer, less) = pair[0];
        let (more, taken) = pair[1];
        let each = taken.saturating_sub(less) / (more - fewer);
        assert!(each <= PER_RECORD_MORE, "{each} bytes for each record more: {peaks:?}");
    }
}

async fn upload(log: Log<FileDisk>, n: usize) {
    let mut id = [0; 16];
    // Identities are random, so they arrive unordered.
    id[..8].copy_from_slice(&(n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    let bucket = "bucket".to_owned();
    let key = format!("backup/2026-11-29/volume-{n:08}.tar");
    let head = vec![5; 60];
    let tags = Vec::new();
    let declared = None;
    let create = CreateUpload { bucket, key: key.clone(), id, head, tags, sealed: false, time_ms: 1, declared };
    log.create_upload(create).await.unwrap();
    let list = ListUploads { prefix: key, limit: 1, ..ListUploads::default() };
    let listing = log.list_uploads("bucket", &list).unwrap();
    let [ListedUpload::Upload(upload)] = &listing.entries[..] else { panic!("one upload of this key") };
    let content = body(&log, n).await;
    let salt = [0; 24];
    let etag = [1; 16];
    let upload = upload.clone();
    let checksums = Vec::new();
    log.put_part(PutPart { upload, number: 1, content, salt, etag, size: 100, time_ms: 1, checksums }).await.unwrap();
}

#[test]
fn abandoned_upload_is_small_and_its_memory_is_reported() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    const UPLOADS: usize = 10_000;
    let disk = new_disk(SEGMENT_LEN_MIN);
    let mut store = RunningStore::open(&disk);
    store.run(store.log.clone().create_bucket("bucket", 1)).unwrap();
    // As inserted, and as recovered.
    let before = HEAP.current_usage();
    let told_before = store.log.store().stats().index_bytes as usize;
    store.each(0..UPLOADS, upload);
    let engine = Arc::clone(store.log.store());
    let came = (HEAP.current_usage() - before, engine.stats().index_bytes as usize - told_before);
    drop((store, engine));
    let before = HEAP.current_usage();
    let (engine, recovery) = open_store(&disk);
    assert_eq!((recovery.uploads, recovery.damaged.len()), (UPLOADS as u64, 0));
    let opened = (HEAP.current_usage() - before, engine.stats().index_bytes as usize);
    for (how, (taken, told)) in [("as they came", came), ("opened", opened)] {
        println!("{how}: {} bytes an upload, {} told", taken / UPLOADS, told / UPLOADS);
        assert!(taken <= PER_UPLOAD * UPLOADS, "{how}: {taken} bytes");
        assert!(taken.abs_diff(told) <= taken / 5, "{how}: {taken} bytes are taken, {told} are told");
    }
}
