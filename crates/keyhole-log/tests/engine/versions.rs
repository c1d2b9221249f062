//! Stores created by older versions of the format.

use std::rc::Rc;
use std::sync::Arc;

use futures_executor::LocalPool;

use keyhole_log::limits::SUPERBLOCK_AT;
use keyhole_log::{CheckOptions, Condition, Disk, Error, Log, UploadRef, check};
use keyhole_sim::disk::{Medium, SimDisk};

use crate::support::store::{Store, get, options, put, read};
use crate::support::{LOST, SOME, new_medium};

/// The medium of a store of the last version 2 build after a power failure: 40 MiB in segments of 2
/// MiB. Run-length encoded: `0`, a length and the repeated byte, or `1`, a length and the bytes.
const VERSION_2: &[u8] = include_bytes!("fixtures/version-2.rle");

/// Its objects: name, repeated byte, and length.
const OBJECTS: [(&str, u8, usize); 5] = [
    ("inline", 1, 60_000),
    ("one", 2, 100_000),
    ("two", 3, (1 << 20) + 300_000),
    ("three", 4, 3 << 20),
    // Stored after the checkpoint.
    ("after", 6, (2 << 20) + 17),
];

fn expand(mut packed: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let [form, a, b, c, d, rest @ ..] = packed {
        let len = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
        let taken = match form {
            0 => {
                bytes.resize(bytes.len() + len, rest[0]);
                1
            }
            _ => {
                bytes.extend(&rest[..len]);
                len
            }
        };
        packed = &rest[taken..];
    }
    bytes
}

fn version_2() -> Arc<Medium> {
    let medium = new_medium(1);
    medium.set_content(&expand(VERSION_2));
    medium
}

fn versions(medium: &Arc<Medium>) -> [u8; 2] {
    let bytes = medium.content();
    SUPERBLOCK_AT.map(|at| bytes[at as usize + 8])
}

async fn check_all(log: &Log<SimDisk>) {
    for (key, value, len) in OBJECTS {
        let object = log.object("bucket", key).await.unwrap().unwrap();
        assert_eq!(read(log, &object).await.unwrap(), vec![value; len], "{key}");
    }
    let upload: UploadRef = log.upload("bucket", "upload", &[7; 16]).unwrap().unwrap();
    let parts = log.parts(&upload, 0, 10).unwrap();
    assert_eq!(parts.len(), 1);
    let body = log.body(&parts[0].part).await.unwrap();
    for index in 0..2 {
        let (tags, buf) = log.read_block(&body, index, 0..65, log.disk().buffer()).await;
        tags.unwrap();
        assert!(buf.as_ref()[..1 << 20].iter().all(|byte| *byte == 5));
    }
}

#[test]
fn store_of_version_2_is_upgraded_to_version_3() {
    let medium = version_2();
    assert_eq!(versions(&medium), [2, 2]);
    let mut store = Store::maintained(&medium, options(1)).unwrap();
    assert_eq!((store.recovery.upgraded_from, &store.recovery.damaged[..]), (Some(2), &[][..]));
    let log = store.log();
    store.run(async {
        check_all(&log).await;
        // New objects are stored beside the old ones; in the end everything is moved.
        for i in 0..5 {
            put(&log, &format!("new{i}"), i, 1_500_000).await.unwrap();
        }
        for i in 0..4 {
            log.delete_object("bucket", &format!("new{i}"), 1, Condition::None).await.unwrap();
        }
        let moved = log.compact().await.unwrap();
        assert!(moved.bytes_moved > 100_000, "{moved:?}");
        check_all(&log).await;
        assert_eq!(get(&log, "new4").await, Some(4));
    });
    drop(log);
    store.close();
    medium.crash(LOST);
    assert_eq!(versions(&medium), [3, 3]);
    let mut store = Store::open(&medium, 1);
    assert_eq!((store.recovery.upgraded_from, store.recovery.damaged.len()), (None, 0));
    let log = store.log();
    store.run(check_all(&log));
    drop(log);
    store.close();
    let report =
        LocalPool::new().run_until(check(Rc::new(SimDisk::in_turns(&medium)), CheckOptions::default())).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[test]
fn check_leaves_version_2_unchanged() {
    let medium = version_2();
    let before = medium.content();
    let report =
        LocalPool::new().run_until(check(Rc::new(SimDisk::in_turns(&medium)), CheckOptions::default())).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!((report.objects, report.uploads), (5, 1));
    assert!(medium.content() == before);
}

#[test]
fn upgrade_interrupted_at_any_write_opens_again() {
    // The sync during recovery, the marks, and the two superblock copies.
    for stop in 0..12 {
        let medium = version_2();
        let before = medium.counters().changes;
        medium.stop_after_changes(Some(stop));
        {
            let disk = SimDisk::in_turns(&medium);
            let mut pool = LocalPool::new();
            let opening = keyhole_log::open(&disk, options(1));
            let mut opening = std::pin::pin!(opening);
            let done = pool.run_until(futures_util::future::poll_fn(|cx| {
                std::task::Poll::Ready(opening.as_mut().poll(cx).is_ready())
            }));
            let stopped = medium.counters().changes - before > stop;
            assert_eq!(done, !stopped, "stop after {stop}");
        }
        medium.crash(SOME);
        let versions = versions(&medium);
        let store = Store::open_with(&medium, options(1));
        let mut store = store.unwrap_or_else(|error| panic!("stop after {stop}, {versions:?}: {error}"));
        // Of two copies with different versions, the one with the higher epoch and version decides.
        assert_eq!(store.recovery.upgraded_from.is_some(), versions == [2, 2], "stop after {stop}: {versions:?}");
        assert!(store.recovery.damaged.is_empty());
        let log = store.log();
        store.run(check_all(&log));
        drop(log);
        store.close();
        assert_eq!(self::versions(&medium), [3, 3]);
    }
}

#[test]
fn newer_version_is_refused_by_one_copy_alone() {
    let medium = version_2();
    medium.edit(|bytes| {
        let mut page = bytes[..4096].to_vec();
        page[8] = 6;
        let crc = crc_of(&page);
        page[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes[SUPERBLOCK_AT[1] as usize..][..4096].copy_from_slice(&page);
    });
    let error = Store::open_with(&medium, options(1)).err().expect("refused");
    assert!(matches!(error, Error::UnsupportedVersion { found: 6, supported: 5 }), "{error}");
}

/// Computes the checksum of a superblock (FORMAT.md, section 1): the page without its CRC field.
fn crc_of(page: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in page[..12].iter().chain(&page[16..]) {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}
