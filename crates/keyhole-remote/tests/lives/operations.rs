//! The clients of a store.

use std::io::{self, Cursor};
use std::rc::Rc;
use std::sync::Arc;

use keyhole_core::body;
use keyhole_core::chunked::message_len;
use keyhole_core::file::{BodyEntry, Preface};
use keyhole_core::head::Head;
use keyhole_core::limits::SALT_LEN;
use keyhole_log::{Condition, Content, Disk, Error, Etag, Log, PutObject, VersionInfo, Versioning};
use keyhole_node::transfer::{Description, Import, ImportSource};
use keyhole_sim::disk::SimDisk;

use crate::reads::{SimReads, read};
use crate::service::REFUSED;
use crate::tally::say;
use crate::world::World;

/// Operations of a session.
const OPERATIONS_MAX: u64 = 40;

/// Longest pause between two operations in virtual ms.
const PAUSES_MS: [u64; 4] = [1, 30, 1_000, 30_000];

const BUCKETS: [&str; 2] = ["plain", "versions"];
const KEYS: [&str; 6] = ["a", "a/b", "dir//x", REFUSED, ".version/k", LONG];

/// A key whose name in the remote is a digest.
const LONG: &str = match str::from_utf8(&[b'k'; 300]) {
    Ok(key) => key,
    Err(_) => unreachable!(),
};

/// Writes and deletes at random.
pub(crate) async fn use_store(world: Rc<World>, log: Log<SimDisk>, reads: Arc<SimReads>) {
    let pause = *world.random.borrow_mut().pick(&PAUSES_MS);
    let operations = world.below(OPERATIONS_MAX);
    for number in 0..operations {
        let delay = world.below(pause);
        world.clock.sleep(delay).await;
        let now_ms = 1_000_000 + world.clock.now();
        let bucket = *world.random.borrow_mut().pick(&BUCKETS);
        let key = *world.random.borrow_mut().pick(&KEYS);
        let done = match world.below(12) {
            0..=4 => put(&world, &log, bucket, key, now_ms).await,
            5 | 6 => log.delete_current(bucket, key, now_ms, Condition::None).await.map(drop),
            7 => delete_version(&world, &log, bucket, key, now_ms).await,
            8 => tag(&log, bucket, key, number).await,
            9 | 10 => read_evicted(&world, &log, &reads, bucket, key).await,
            _ => set_up(&world, &log, bucket, now_ms).await,
        };
        say(|| format!("{} {bucket}/{key}: {done:?}", world.clock.now()));
        let is_expected = matches!(
            done,
            Ok(())
                | Err(Error::NoSuchBucket
                    | Error::NoSuchKey
                    | Error::Conflict
                    | Error::BucketNotEmpty
                    | Error::NoSuchVersion)
        );
        assert!(is_expected, "{done:?}");
    }
    // The shipper may catch up, in part.
    let rest = *world.random.borrow_mut().pick(&[1, 1_000, 100_000]);
    world.clock.sleep(rest).await;
}

async fn put(world: &World, log: &Log<SimDisk>, bucket: &str, key: &str, time_ms: u64) -> Result<(), Error> {
    let len = *world.random.borrow_mut().pick(&[0, 1, 100, 70_000, 1_500_000]);
    if world.chance(50) {
        return put_sealed(world, log, bucket, key, len as u64, time_ms).await;
    }
    let mut writer = log.body_writer();
    let mut left = len;
    let body = loop {
        let mut buf = log.disk().buffer();
        let some = left.min(keyhole_log::limits::BLOCK_DATA);
        let byte = world.random.borrow_mut().number() as u8;
        buf.as_mut()[..some].fill(byte);
        left -= some;
        if left == 0 {
            break writer.finish(Some((buf, some, &[])), &[]).await?;
        }
        writer.push(buf, &[]).await?;
    };
    let digest = world.random.borrow_mut().number().to_le_bytes();
    let digest = [digest, digest].concat().try_into().unwrap();
    log.put_object(PutObject {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        content: Content::New(body, [0; 24]),
        head: plain_head(),
        tags: Vec::new(),
        sealed: false,
        etag: Etag { digest, parts: 0 },
        size: len as u64,
        time_ms,
        condition: Condition::None,
    })
    .await
}

/// Returns the object head of a plaintext object.
fn plain_head() -> Vec<u8> {
    let mut bytes = vec![0; 64];
    let len = Head::default().encode(&mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}

/// Stores a sealed object file, whose bytes need not authenticate.
pub(crate) async fn put_sealed(
    world: &World,
    log: &Log<SimDisk>,
    bucket: &str,
    key: &str,
    size: u64,
    time_ms: u64,
) -> Result<(), Error> {
    let sealed_head = world.random.borrow_mut().number().to_le_bytes().repeat(20);
    let preface = Preface { bucket, key, sealed_head: &sealed_head, bodies: 1 };
    let mut file = vec![0; preface.encoded_len()];
    preface.encode(&mut file).unwrap();
    let message_len = message_len(size).unwrap();
    file.extend(BodyEntry { part_number: 0, message_len, info_len: 0 }.encode());
    let message = file.len();
    file.resize(message + message_len as usize, world.random.borrow_mut().number() as u8);
    let mut salt = [0; SALT_LEN];
    salt[..8].copy_from_slice(&world.random.borrow_mut().number().to_le_bytes());
    file[message..message + SALT_LEN].copy_from_slice(&salt);
    let etag = Etag { digest: body::etag(&salt), parts: 0 };
    let description = Description {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        sealed: true,
        bound: false,
        size,
        time_ms,
        etag,
        tags: Default::default(),
        version: None,
        lock: Default::default(),
        head: Vec::new(),
        parts: Vec::new(),
    };
    let mut id = [0; 16];
    id[..8].copy_from_slice(&world.random.borrow_mut().number().to_le_bytes());
    let file_len = file.len() as u64;
    world.files.borrow_mut().insert(etag.digest, file.clone());
    let mut source = FileSource(Cursor::new(file));
    let received = Import::receive(log, &description, (id, time_ms), Condition::None, file_len, &mut source).await;
    received.unwrap_or_else(|error| panic!("{error:?}")).commit(log).await
}

/// A file in memory.
struct FileSource(Cursor<Vec<u8>>);

impl ImportSource for FileSource {
    async fn fill(&mut self, to: &mut [u8]) -> io::Result<usize> {
        io::Read::read(&mut self.0, to)
    }
}

async fn delete_version(world: &World, log: &Log<SimDisk>, bucket: &str, key: &str, now_ms: u64) -> Result<(), Error> {
    let versions = log.versions_in_order(bucket, Some((key, 0)), 20)?;
    let versions: Vec<VersionInfo> = versions.into_iter().filter(|info| info.key == key).collect();
    if versions.is_empty() {
        return Ok(());
    }
    // The newest one may be about to be shipped.
    let newest = versions.last().filter(|_| world.chance(50));
    let version = newest.map_or_else(|| world.random.borrow_mut().pick(&versions).version, |info| info.version);
    log.delete_version(bucket, key, version, now_ms, false).await.map(drop)
}

/// Reads a version of a key whose bytes are in the remote. A read fails or returns the right bytes.
pub(crate) async fn read_evicted(
    world: &World,
    log: &Log<SimDisk>,
    reads: &SimReads,
    bucket: &str,
    key: &str,
) -> Result<(), Error> {
    let mut versions = log.versions_in_order(bucket, Some((key, 0)), 20)?;
    versions.retain(|info| info.key == key && info.is_evicted);
    if versions.is_empty() {
        return Ok(());
    }
    let version = world.random.borrow_mut().pick(&versions).version;
    let Some((object, _)) = log.version(bucket, key, Some(version)).await?.into_object() else { return Ok(()) };
    if !object.is_evicted {
        // It was replaced.
        return Ok(());
    }
    match read(log, reads, bucket, key, &object).await {
        Ok(bytes) => {
            assert!(bytes == world.files.borrow()[&object.etag.digest], "{bucket}/{key} {version} has other bytes");
            world.read.update(|count| count + 1);
        }
        Err(why) => {
            say(|| format!("{bucket}/{key} {version} cannot be read: {why}"));
            world.unread.update(|count| count + 1);
        }
    }
    Ok(())
}

async fn tag(log: &Log<SimDisk>, bucket: &str, key: &str, number: u64) -> Result<(), Error> {
    let Some(object) = log.object(bucket, key).await? else { return Ok(()) };
    let mut tags = keyhole_s3::ops::Tags::default();
    tags.push("number".to_owned(), number.to_string()).unwrap();
    log.set_tags(bucket, key, object, tags.to_bytes()).await
}

/// Creates a bucket, deletes it, or changes its versioning.
async fn set_up(world: &World, log: &Log<SimDisk>, bucket: &str, now_ms: u64) -> Result<(), Error> {
    if world.chance(20) {
        say(|| format!("delete bucket {bucket}"));
        return log.delete_bucket(bucket, now_ms).await;
    }
    let is_new = log.create_bucket(bucket, now_ms).await?;
    say(|| format!("create {bucket}: {is_new}"));
    if bucket == "plain" {
        return Ok(());
    }
    let versioning = if world.chance(60) { Versioning::Enabled } else { Versioning::Suspended };
    log.change_bucket::<Error>(bucket, now_ms, |settings| {
        settings.versioning = versioning;
        Ok(())
    })
    .await
}
