//! Loss of both superblock copies: `check` rebuilds them from segment headers and checkpoints.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use futures_executor::LocalPool;
use futures_util::task::LocalSpawnExt;

use keyhole_log::limits::{PAGE, SEGMENTS_START};
use keyhole_log::{CheckOptions, CheckReport, Condition, Error, Format, OpenOptions, Verdict, check, create};
use keyhole_sim::disk::{Medium, SimDisk};

use crate::support::store::{SEGMENT_LEN, Store, get, options, put};
use crate::support::{LOST, TORN, new_medium, word};

const COPIES: [usize; 2] = [0, 512 << 10];
const SEGMENTS: u64 = 20;

/// Objects of the sample: key, seed, length.
const OBJECTS: [(&str, u64, usize); 7] = [
    ("small", 1, 100),
    ("inline", 2, 40_000),
    ("empty", 3, 0),
    ("large", 4, 1_200_000),
    ("medium", 5, 90_000),
    ("after", 6, 70_000),
    ("newest", 7, 3_000),
];

/// The fault of both copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Zeros,
    Garbage,
    /// Only the checksum is wrong.
    Flipped,
    /// Unreadable until they are written.
    Unreadable,
}

const FAULTS: [Fault; 4] = [Fault::Zeros, Fault::Garbage, Fault::Flipped, Fault::Unreadable];

fn capacity(segment_len: u64) -> u64 {
    SEGMENTS_START + SEGMENTS * segment_len
}

/// Creates a store over the medium's contents, with this many checkpoints, and
/// ends without another one.
fn fill(medium: &Arc<Medium>, id: u8, segment_len: u64, checkpoints: usize) {
    let format = Format { store_id: [id; 16], capacity: capacity(segment_len), segment_len, created_ms: 1 };
    LocalPool::new().run_until(create(&SimDisk::in_turns(medium), &format)).unwrap();
    let mut store = Store::maintained(medium, options(2)).unwrap();
    let logs = store.logs.clone();
    store.run(async {
        logs[0].create_bucket("bucket", 1).await.unwrap();
        put(&logs[0], "gone", 50, 70_000).await.unwrap();
        for (i, (key, seed, len)) in OBJECTS.into_iter().enumerate() {
            put(&logs[i % 2], key, seed + 100, 66_000).await.unwrap();
            put(&logs[i % 2], key, seed, len).await.unwrap();
            if i == 3 {
                logs[1].delete_object("bucket", "gone", 1, Condition::None).await.unwrap();
            }
            if i >= 4 && i < 4 + checkpoints {
                logs[0].checkpoint().await.unwrap();
            }
        }
    });
    drop((logs, store));
    medium.crash(LOST);
}

fn image(segment_len: u64, checkpoints: usize) -> Vec<u8> {
    let medium = new_medium(31);
    fill(&medium, 0x5a, segment_len, checkpoints);
    medium.content()
}

fn lay(medium: &Arc<Medium>, image: &[u8], fault: Fault) {
    medium.set_content(image);
    medium.mend();
    medium.update_faults(|faults| faults.heals = true);
    for copy in COPIES {
        match fault {
            Fault::Zeros => medium.edit(|bytes| bytes[copy..copy + PAGE].fill(0)),
            Fault::Garbage => medium.edit(|bytes| bytes[copy..copy + PAGE].fill(0x3c)),
            Fault::Flipped => medium.edit(|bytes| bytes[copy + 33] ^= 1),
            Fault::Unreadable => medium.add_unreadable(&[copy as u64]),
        }
    }
}

fn check_with(medium: &Arc<Medium>, repair: bool) -> Result<CheckReport, Error> {
    LocalPool::new()
        .run_until(check(Rc::new(SimDisk::in_turns(medium)), CheckOptions { repair, ..CheckOptions::default() }))
}

/// Checks that every object is there, that deleted ones are not, and that
/// another one can be stored.
fn assert_whole(medium: &Arc<Medium>, capacity: u64, what: &str) {
    let opened = Store::maintained(medium, OpenOptions { capacity: Some(capacity), ..options(1) });
    let mut store = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(store.recovery.damaged, [], "{what}");
    let log = store.log();
    store.run(async {
        for (key, seed, _) in OBJECTS {
            assert_eq!(get(&log, key).await, Some(seed), "{what}: {key}");
        }
        assert_eq!(get(&log, "gone").await, None, "{what}");
        put(&log, "one more", 9, 100_000).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        log.checkpoint().await.unwrap();
    });
    drop(log);
    store.close();
    medium.crash(LOST);
}

/// Takes a store without superblocks through check, repair and recovery. Returns the report of the
/// check without repair.
fn assert_rebuilt(medium: &Arc<Medium>, segment_len: u64, what: &str) -> CheckReport {
    let before = medium.counters().changes;
    let refused = Store::open_with(medium, options(1)).err().unwrap_or_else(|| panic!("{what}: it opens"));
    assert!(matches!(&refused, Error::Damaged(_)) && refused.to_string().contains("--repair"), "{what}: {refused}");
    let found = check_with(medium, false).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(medium.counters().changes, before, "{what}: a check alone writes nothing");
    let first = &found.findings[0];
    assert_eq!((first.damage.offset, first.verdict), (0, Verdict::Repairable), "{what}: {:?}", found.findings);
    assert!(first.damage.what.starts_with("both superblocks (rebuilt"), "{what}: {first:?}");
    assert_eq!((found.buckets, found.objects), (1, OBJECTS.len() as u64), "{what}");
    let repaired = check_with(medium, true).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!((&repaired.findings, repaired.repaired), (&found.findings, found.findings.len() as u64), "{what}");
    assert_eq!(check_with(medium, false).unwrap().findings, [], "{what}");
    medium.crash(LOST);
    let copies = COPIES.map(|copy| medium.content()[copy..copy + PAGE].to_vec());
    assert!(copies[0] == copies[1], "{what}: both copies are written");
    assert_eq!(word(&copies[0], 40), segment_len, "{what}");
    assert_eq!(word(&copies[0], 48), medium.content().len() as u64, "{what}");
    assert_whole(medium, capacity(segment_len), what);
    found
}

#[test]
fn lost_superblocks_are_rebuilt_with_and_without_checkpoints() {
    for segment_len in [SEGMENT_LEN, 2 * SEGMENT_LEN] {
        for checkpoints in [0, 1, 2, 3] {
            let image = image(segment_len, checkpoints);
            for fault in FAULTS {
                let what = format!("{fault:?}, {checkpoints} checkpoints, segments of {segment_len}");
                let medium = new_medium(32);
                lay(&medium, &image, fault);
                let report = assert_rebuilt(&medium, segment_len, &what);
                assert_eq!(report.findings.len(), 1, "{what}: {:?}", report.findings);
                let says = report.findings[0].damage.what;
                assert_eq!(says.contains("may come back"), checkpoints == 0, "{what}: {says}");
            }
        }
    }
}

#[test]
fn rebuilt_superblock_names_an_older_checkpoint_where_the_newest_is_damaged() {
    let image = image(SEGMENT_LEN, 3);
    let newest = (word(&image, 64) >> 17) as usize * 8;
    // The location of its first record of items is in its end record.
    let chunk = (word(&image, newest + 80 + 32) >> 17) as usize * 8;
    for at in [newest, chunk] {
        let medium = new_medium(33);
        let mut image = image.clone();
        image[at + 100] ^= 1;
        lay(&medium, &image, Fault::Zeros);
        let report = assert_rebuilt(&medium, SEGMENT_LEN, &format!("damage at {at:#x}"));
        assert!(report.findings[0].damage.what.contains("newest checkpoint"), "{:?}", report.findings);
    }
}

/// Segments not begun yet hold headers of an earlier store on the medium.
#[test]
fn headers_of_older_store_are_ignored_by_rebuild() {
    for (before, now) in [(1, 1), (1, 2), (2, 1)].map(|(before, now)| (before * SEGMENT_LEN, now * SEGMENT_LEN)) {
        let medium = new_medium(34);
        fill(&medium, 1, before, 2);
        let mut store = Store::maintained(&medium, options(1)).unwrap();
        let log = store.log();
        store.run(async {
            for i in 0..20 {
                let stored = put(&log, &format!("before {i}"), i, 1 << 20).await;
                assert!(stored.is_ok() || i > 8, "{stored:?}");
            }
        });
        drop((log, store));
        medium.crash(LOST);
        fill(&medium, 2, now, 2);
        let image = medium.content();
        let stores = (SEGMENTS_START as usize..image.len()).step_by(SEGMENT_LEN as usize);
        let stores = stores.filter(|&at| image[at..].starts_with(b"keyhseg\n")).map(|at| image[at + 16]);
        let stores: Vec<_> = stores.collect();
        let count = |id| stores.iter().filter(|&&store| store == id).count();
        assert!(count(1) > 2 && count(2) > 2, "{stores:?}");
        lay(&medium, &image, Fault::Garbage);
        let what = format!("segments of {before} before, of {now} now: {stores:?}");
        check_with(&medium, true).unwrap_or_else(|error| panic!("{what}: {error}"));
        medium.crash(LOST);
        let superblock = medium.content()[..PAGE].to_vec();
        assert_eq!((superblock[16], word(&superblock, 40)), (2, now), "{what}");
        assert_whole(&medium, capacity(2 * SEGMENT_LEN), &what);
    }
}

#[test]
fn repair_refuses_foreign_files_and_other_versions() {
    let good = image(SEGMENT_LEN, 1);
    let headers = (SEGMENTS_START as usize..good.len()).step_by(SEGMENT_LEN as usize);
    let mut headless = good.clone();
    // A header that does not verify does not count.
    headers.for_each(|at| headless[at + 20] ^= 1);
    for image in [vec![b'x'; 8 << 20], vec![0; 8 << 20], headless] {
        let medium = new_medium(35);
        lay(&medium, &image, Fault::Zeros);
        for repair in [false, true] {
            let refused = check_with(&medium, repair).unwrap_err();
            assert!(matches!(refused, Error::Foreign(_)), "{refused}");
        }
        assert_eq!(medium.counters().changes, 0);
    }
    // A valid copy of another version decides, as do two copies that name the same other version.
    for both in [false, true] {
        let medium = new_medium(36);
        lay(&medium, &good, Fault::Flipped);
        medium.crash(LOST);
        medium.edit(|image| {
            image[8] = 6;
            if both {
                image[COPIES[1] + 8] = 6;
            } else {
                let mut crc = crc32fast::Hasher::new();
                crc.update(&image[..12]);
                crc.update(&image[16..PAGE]);
                image[12..16].copy_from_slice(&crc.finalize().to_le_bytes());
            }
        });
        let refused = check_with(&medium, true).unwrap_err();
        assert!(matches!(refused, Error::UnsupportedVersion { found: 6, .. }), "{refused}");
        assert_eq!(medium.counters().changes, 0);
    }
}

/// One unwritable copy is reported; the other suffices.
#[test]
fn rebuilt_superblock_with_a_dead_copy_opens() {
    let image = image(SEGMENT_LEN, 0);
    for copy in COPIES {
        let medium = new_medium(37);
        lay(&medium, &image, Fault::Zeros);
        medium.add_unwritable(copy as u64..(copy + PAGE) as u64);
        let mut store = Store::open_with(&medium, OpenOptions { rebuild: true, ..options(1) }).unwrap();
        assert_eq!(store.recovery.read_only, None);
        let said = store.recovery.damaged.iter().any(|damage| damage.offset == copy as u64 && damage.repairable);
        assert!(said, "{:?}", store.recovery);
        let log = store.log();
        store.run(async { assert_eq!(get(&log, "large").await, Some(4)) });
        drop((log, store));
        medium.crash(LOST);
        assert_eq!(Store::open(&medium, 1).recovery.objects, OBJECTS.len() as u64);
    }
}

/// A power failure at each operation of a repair: the next repair or recovery finds everything.
#[test]
fn interrupted_repair_can_be_repeated() {
    let image = image(SEGMENT_LEN, 2);
    let medium = new_medium(38);
    for stop in 0..200 {
        lay(&medium, &image, Fault::Zeros);
        medium.stop_after_changes(Some(stop));
        let done = Rc::new(RefCell::new(false));
        let mut pool = LocalPool::new();
        let disk = Rc::new(SimDisk::in_turns(&medium));
        let flag = Rc::clone(&done);
        let repair = async move {
            check(disk, CheckOptions { repair: true, ..CheckOptions::default() }).await.unwrap();
            *flag.borrow_mut() = true;
        };
        pool.spawner().spawn_local(repair).unwrap();
        pool.run_until_stalled();
        drop(pool);
        medium.crash(TORN);
        let what = format!("stopped after {stop}");
        check_with(&medium, true).unwrap_or_else(|error| panic!("{what}: {error}"));
        medium.crash(LOST);
        assert_whole(&medium, capacity(SEGMENT_LEN), &what);
        if *done.borrow() {
            assert!(stop > 4, "{stop}");
            return;
        }
    }
    panic!("the repair never ends");
}
