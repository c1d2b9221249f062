//! A store on a medium, opened, used and closed in one thread.

use std::rc::Rc;
use std::sync::Arc;

use futures_executor::LocalPool;
use futures_util::task::LocalSpawnExt;

use keyhole_log::limits::{BLOCK_DATA, CHUNK_LEN, PAGE};
use keyhole_log::{
    Condition, Content, Disk, Error, Etag, Format, ListObjects, Listed, Log, NewBody, Object, OpenOptions, PutObject,
    Recovery, create, open, worker,
};
use keyhole_sim::disk::{Medium, SimDisk};
use keyhole_sim::random::Random;

use super::new_medium;

pub(crate) const CAPACITY: u64 = 64 << 20;

/// Segment length of most tests: short enough that blocks are cut at segment ends.
pub(crate) const SEGMENT_LEN: u64 = 2 << 20;

/// An open store and its workers.
pub(crate) struct Store {
    pub(crate) pool: LocalPool,
    pub(crate) logs: Vec<Log<SimDisk>>,
    pub(crate) recovery: Recovery,
}

pub(crate) fn format(medium: &Arc<Medium>, capacity: u64) -> Result<(), Error> {
    let disk = SimDisk::in_turns(medium);
    let format = Format { store_id: [0x5a; 16], capacity, segment_len: SEGMENT_LEN, created_ms: 1 };
    LocalPool::new().run_until(create(&disk, &format))
}

pub(crate) fn options(workers: usize) -> OpenOptions {
    OpenOptions { workers, ..OpenOptions::default() }
}

impl Store {
    /// Creates a store.
    pub(crate) fn fresh(seed: u64, workers: usize) -> (Arc<Medium>, Store) {
        let medium = new_medium(seed);
        format(&medium, CAPACITY).unwrap();
        let store = Store::open(&medium, workers);
        (medium, store)
    }

    /// Creates a maintained store with a bucket.
    pub(crate) fn fresh_maintained() -> (Arc<Medium>, Store) {
        let medium = new_medium(1);
        format(&medium, CAPACITY).unwrap();
        let mut store = Store::maintained(&medium, options(1)).unwrap();
        let log = store.log();
        store.run(async { log.create_bucket("bucket", 1).await.unwrap() });
        (medium, store)
    }

    pub(crate) fn open(medium: &Arc<Medium>, workers: usize) -> Store {
        Store::open_with(medium, options(workers)).unwrap()
    }

    /// Opens a store with the maintenance running.
    pub(crate) fn maintained(medium: &Arc<Medium>, options: OpenOptions) -> Result<Store, Error> {
        let store = Store::open_with(medium, options)?;
        let (maintenance, writer) =
            keyhole_log::maintenance(store.logs[0].store().clone(), Rc::new(SimDisk::in_turns(medium)));
        store.spawn(writer.run());
        store.spawn(maintenance.run());
        Ok(store)
    }

    pub(crate) fn open_with(medium: &Arc<Medium>, options: OpenOptions) -> Result<Store, Error> {
        let mut pool = LocalPool::new();
        let disk = SimDisk::in_turns(medium);
        let workers = options.workers;
        let (store, recovery) = pool.run_until(open(&disk, options))?;
        let mut logs = Vec::new();
        for _ in 0..workers {
            let (log, writer) = worker(store.clone(), Rc::new(SimDisk::in_turns(medium)));
            pool.spawner().spawn_local(writer.run()).unwrap();
            logs.push(log);
        }
        Ok(Store { pool, logs, recovery })
    }

    pub(crate) fn log(&self) -> Log<SimDisk> {
        self.logs[0].clone()
    }

    /// Spawns a background task.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.pool.spawner().spawn_local(future).unwrap();
    }

    /// Runs until no task makes progress: all are done, or wait for a stopped disk.
    pub(crate) fn run_until_stalled(&mut self) {
        self.pool.run_until_stalled();
    }

    /// Runs a future to completion, along with the background tasks.
    pub(crate) fn run<T>(&mut self, future: impl Future<Output = T>) -> T {
        self.pool.run_until(future)
    }

    /// Shuts down in order.
    pub(crate) fn close(mut self) {
        self.logs.clear();
        self.pool.run();
    }
}

/// Returns deterministic bytes for a seed. No two pages are equal, for any seeds.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let page: Vec<u8> = (0..PAGE / 8).flat_map(|_| random.number().to_le_bytes()).collect();
    let mut out = Vec::with_capacity(len + PAGE);
    while out.len() < len {
        let at = out.len();
        out.extend_from_slice(&page);
        out[at..at + 8].copy_from_slice(&(at as u64).to_le_bytes());
    }
    out.truncate(len);
    out
}

/// Returns a tag as in a sealed body: one per chunk, and one more if the last chunk is full.
pub(crate) fn tag(chunk: u64) -> [u8; 16] {
    let mut tag = [0x77; 16];
    tag[..8].copy_from_slice(&chunk.to_le_bytes());
    tag
}

pub(crate) async fn write_body(log: &Log<SimDisk>, data: &[u8], sealed: bool) -> Result<NewBody, Error> {
    let mut writer = log.body_writer();
    let blocks = data.len().div_ceil(BLOCK_DATA).max(1);
    for index in 0..blocks {
        let part = &data[index * BLOCK_DATA..data.len().min((index + 1) * BLOCK_DATA)];
        let last = index + 1 == blocks;
        let chunks = if last { part.len() / CHUNK_LEN + 1 } else { part.len() / CHUNK_LEN };
        let first = (index * BLOCK_DATA / CHUNK_LEN) as u64;
        let tags: Vec<_> =
            if sealed { (0..chunks as u64).map(|chunk| tag(first + chunk)).collect() } else { Vec::new() };
        let mut buf = log.disk().buffer();
        buf.as_mut()[..part.len()].copy_from_slice(part);
        if last {
            return writer.finish(Some((buf, part.len(), &tags)), b"prefix").await;
        }
        writer.push(buf, &tags).await?;
    }
    unreachable!("a body has a last block")
}

pub(crate) fn etag(seed: u64) -> Etag {
    let mut digest = [0; 16];
    digest[..8].copy_from_slice(&seed.to_le_bytes());
    Etag { digest, parts: 0 }
}

/// Stores an object with bytes and an ETag derived from `seed`.
pub(crate) async fn put(log: &Log<SimDisk>, key: &str, seed: u64, len: usize) -> Result<(), Error> {
    put_if(log, key, seed, len, Condition::None).await
}

pub(crate) async fn put_if(
    log: &Log<SimDisk>,
    key: &str,
    seed: u64,
    len: usize,
    condition: Condition,
) -> Result<(), Error> {
    log.disk().note_operation();
    let body = write_body(log, &bytes(seed, len), seed.is_multiple_of(2)).await?;
    let put = PutObject {
        bucket: "bucket".into(),
        key: key.into(),
        content: Content::New(body, [9; 24]),
        head: format!("head of {seed}").into_bytes(),
        tags: Vec::new(),
        sealed: seed.is_multiple_of(2),
        etag: etag(seed),
        size: len as u64,
        time_ms: seed,
        condition,
    };
    log.put_object(put).await
}

/// Reads all bytes of an object in order, block by block, and checks every tag.
pub(crate) async fn read(log: &Log<SimDisk>, object: &Object) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    for part in &object.parts {
        let body = log.body(part).await?;
        assert_eq!(body.prefix, b"prefix");
        for index in 0..body.blocks() {
            let len = body.block_len(index);
            let chunks = len / CHUNK_LEN + 1;
            let (tags, buf) = log.read_block(&body, index, 0..chunks, log.disk().buffer()).await;
            let tags = tags?;
            for chunk in 0..chunks {
                if let Some(found) = tags.get(chunk) {
                    assert_eq!(*found, tag((index as usize * BLOCK_DATA / CHUNK_LEN + chunk) as u64));
                }
            }
            out.extend(&buf.as_ref()[..len]);
        }
    }
    Ok(out)
}

/// Returns the seed of the object of this name, after verifying its contents.
pub(crate) async fn get(log: &Log<SimDisk>, key: &str) -> Option<u64> {
    let object = log.object("bucket", key).await.unwrap()?;
    let seed = u64::from_le_bytes(object.etag.digest[..8].try_into().unwrap());
    assert_eq!(read(log, &object).await.unwrap(), bytes(seed, object.size as usize), "{key}");
    assert_eq!(object.head, format!("head of {seed}").into_bytes());
    assert_eq!(object.sealed, seed.is_multiple_of(2));
    Some(seed)
}

/// Lists all keys of the bucket, in pages of three.
pub(crate) fn keys(log: &Log<SimDisk>) -> Vec<String> {
    let mut list = ListObjects { limit: 3, ..ListObjects::default() };
    let mut keys = Vec::new();
    loop {
        let listing = log.list_objects("bucket", &list).unwrap();
        for entry in &listing.entries {
            let Listed::Object { key, .. } = entry else { panic!("no delimiter, no prefixes") };
            keys.push(key.clone());
        }
        if !listing.truncated {
            return keys;
        }
        list.after = keys.last().cloned();
    }
}

/// Returns the request for a copy of an object that shares its bodies.
pub(crate) fn copy_of(object: Object, key: &str) -> PutObject {
    PutObject {
        bucket: "bucket".into(),
        key: key.into(),
        head: object.head.clone(),
        tags: Vec::new(),
        sealed: object.sealed,
        etag: object.etag,
        size: object.size,
        time_ms: 9,
        condition: Condition::None,
        content: Content::Shared(object),
    }
}
