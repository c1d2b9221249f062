//! Unreadable sectors. In turn, each page of a small store is unreadable, for good or until
//! it is written, or returns garbage. The store opens, serves everything else, reports the
//! loss by name, and goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use futures_executor::LocalPool;

use keyhole_log::limits::{PAGE, SEGMENTS_START};
use keyhole_log::{
    CheckOptions, CheckReport, CleanerStats, Condition, Content, CreateUpload, Damage, Error, Log, PutObject, PutPart,
    check,
};
use keyhole_sim::disk::{Medium, SimDisk};

use crate::support::store::{SEGMENT_LEN, Store, bytes, etag, format, options, read, write_body};
use crate::support::{EIO, LOST, find, new_medium, word};

type Name = (String, String);

/// The fault of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It returns other bytes than were written.
    Garbage,
    /// It cannot be read until it is written: the drive remaps the sector.
    Unreadable,
    /// It can never be read again, although writes to it succeed.
    Dead,
}

async fn put(log: &Log<SimDisk>, bucket: &str, key: &str, seed: u64, len: usize) -> Result<(), Error> {
    let content = Content::New(write_body(log, &bytes(seed, len), false).await?, [9; 24]);
    let head = format!("head of {seed}").into_bytes();
    let tags = Vec::new();
    let sealed = false;
    let bucket = bucket.into();
    let key = key.into();
    let etag = etag(seed);
    let size = len as u64;
    let time_ms = seed;
    let condition = Condition::None;
    log.put_object(PutObject { bucket, key, content, head, tags, sealed, etag, size, time_ms, condition }).await
}

/// Objects of the sample: bucket, key, seed, length.
const OBJECTS: [(&str, &str, u64, usize); 12] = [
    ("photos", "inline", 1, 9_000),
    ("photos", "block", 2, 90_000),
    ("films", "empty", 3, 0),
    ("films", "block", 4, 70_000),
    ("films", "small", 5, 100),
    ("photos", "together-0", 6, 700),
    ("photos", "together-1", 7, 700),
    ("photos", "together-2", 8, 700),
    ("films", "newer", 9, 300),
    ("films", "newer block", 10, 66_000),
    ("photos", "newest", 11, 5_000),
    ("photos", "newest block", 12, 80_000),
];

/// Creates a store with two buckets and two checkpoints. Objects and an upload date from before the
/// older checkpoint, between both, and after the newer one. It has open and closed segments, and
/// ends without a checkpoint.
fn sample() -> Vec<u8> {
    let medium = new_medium(21);
    format(&medium, SEGMENTS_START + 18 * SEGMENT_LEN).unwrap();
    let mut store = Store::maintained(&medium, options(2)).unwrap();
    let logs = store.logs.clone();
    store.run(async {
        for bucket in ["photos", "films"] {
            logs[0].create_bucket(bucket, 1).await.unwrap();
        }
        for (i, (bucket, key, seed, len)) in OBJECTS.into_iter().take(5).enumerate() {
            put(&logs[i % 2], bucket, key, seed + 100, len).await.unwrap();
            put(&logs[i % 2], bucket, key, seed, len).await.unwrap();
        }
        let id = [7; 16];
        let bucket = "photos";
        let key = "upload";
        let head = vec![1; 30];
        let tags = Vec::new();
        let sealed = false;
        let time_ms = 1;
        let declared = None;
        let create_key = key.to_owned();
        let create = CreateUpload { bucket: bucket.into(), key: create_key, id, head, tags, sealed, time_ms, declared };
        logs[1].create_upload(create).await.unwrap();
        let upload = logs[1].upload(bucket, key, &id).unwrap().unwrap();
        let content = write_body(&logs[1], &bytes(5, 67_000), false).await.unwrap();
        let number = 3;
        let salt = [0; 24];
        let etag = [9; 16];
        let size = 67_000;
        let checksums = vec![4; 20];
        logs[1].put_part(PutPart { upload, number, content, salt, etag, size, time_ms, checksums }).await.unwrap();
        logs[0].checkpoint().await.unwrap();
        let together = OBJECTS[5..8].iter().map(|&(bucket, key, seed, len)| put(&logs[0], bucket, key, seed, len));
        assert!(futures_util::future::join_all(together).await.into_iter().all(|done| done.is_ok()));
        put(&logs[1], "films", "gone", 50, 100).await.unwrap();
        for (bucket, key, seed, len) in &OBJECTS[8..10] {
            put(&logs[1], bucket, key, *seed, *len).await.unwrap();
        }
        logs[1].delete_object("films", "gone", 1, Condition::None).await.unwrap();
    });
    drop(logs);
    store.close();
    medium.crash(LOST);
    let mut store = Store::maintained(&medium, options(1)).unwrap();
    let log = store.log();
    store.run(async {
        put(&log, "photos", "newest", 60, 200).await.unwrap();
        for (bucket, key, seed, len) in &OBJECTS[10..] {
            put(&log, bucket, key, *seed, *len).await.unwrap();
        }
        put(&log, "films", "last", 70, 100).await.unwrap();
        log.delete_object("films", "last", 1, Condition::None).await.unwrap();
    });
    drop((log, store));
    medium.crash(LOST);
    medium.content()
}

fn half(image: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes(image[at..at + 2].try_into().unwrap()))
}

/// Returns the locations of each current object: its records and its blocks.
fn places(image: &[u8]) -> BTreeMap<Name, Vec<Range<usize>>> {
    let mut bodies = BTreeMap::new();
    let mut objects = BTreeMap::new();
    let mut names = BTreeMap::new();
    for at in (SEGMENTS_START as usize..image.len() - 80).step_by(8) {
        if !image[at..].starts_with(b"khR1") || word(image, at + 40) != at as u64 {
            continue;
        }
        let len = word(image, at + 8) as u32 as usize;
        let seq = word(image, at + 48);
        let payload = at + 80;
        let record = at..at + len;
        match image[at + 12] {
            1 => {
                let name = &image[payload + 10..payload + 10 + half(image, payload + 8)];
                names.insert(seq, String::from_utf8(name.to_vec()).unwrap());
            }
            3 => {
                let id = word(image, payload);
                let mut ranges = vec![record];
                if image[payload + 16] != 0 {
                    // The runs of the body, each of one block here.
                    let runs = payload + 32 + usize::from(image[payload + 17]);
                    let count = word(image, payload + 20) as u32 as usize;
                    ranges.extend(image[runs..runs + 20 * count].chunks(20).map(|run| {
                        let block = word(run, 0) as usize;
                        let len = u32::from_le_bytes(run[16..].try_into().unwrap());
                        block..block + (len as usize).next_multiple_of(PAGE) + PAGE
                    }));
                }
                bodies.insert(id, ranges);
            }
            4 => {
                let key_len = half(image, payload + 52);
                let key = String::from_utf8(image[payload + 60..payload + 60 + key_len].to_vec()).unwrap();
                let head_len = word(image, payload + 56) as u32 as usize;
                let body = word(image, payload + 60 + key_len + head_len + 2);
                let newest = objects.entry((word(image, payload), key)).or_insert((seq, record.clone(), body));
                if newest.0 <= seq {
                    *newest = (seq, record, body);
                }
            }
            _ => {}
        }
    }
    let named = objects.into_iter().map(|((bucket, key), (_, record, body))| {
        let ranges = bodies[&body].iter().cloned().chain([record]).collect();
        ((names[&bucket].clone(), key), ranges)
    });
    named.collect()
}

fn check_with(medium: &Arc<Medium>, repair: bool) -> Result<CheckReport, Error> {
    LocalPool::new()
        .run_until(check(Rc::new(SimDisk::in_turns(medium)), CheckOptions { repair, ..CheckOptions::default() }))
}

/// Reads every object. Returns the damaged ones with their damage.
async fn look(log: &Log<SimDisk>, expected: &[(&str, &str, u64, usize)]) -> BTreeMap<Name, Option<Damage>> {
    let mut lost = BTreeMap::new();
    for &(bucket, key, seed, len) in expected {
        let found = match log.object(bucket, key).await {
            Ok(Some(object)) if object.etag == etag(seed) => read(log, &object).await.map(Some),
            Ok(_) => Ok(None),
            Err(error) => Err(error),
        };
        let name = (bucket.to_owned(), key.to_owned());
        match found {
            Ok(Some(data)) => assert!(data == bytes(seed, len), "{bucket}/{key}: wrong bytes"),
            Ok(None) => drop(lost.insert(name, None)),
            Err(Error::Damaged(damage)) => drop(lost.insert(name, Some(*damage))),
            Err(error) => panic!("{bucket}/{key}: {error}"),
        }
    }
    lost
}

async fn scrub(log: &Log<SimDisk>) -> BTreeSet<Name> {
    let mut cursor = Some(Default::default());
    let mut found = BTreeSet::new();
    while let Some(at) = cursor {
        let step = log.scrub(at).await.unwrap();
        let names = step.findings.into_iter().map(|damage| (damage.bucket.unwrap(), damage.key.unwrap()));
        found.extend(names);
        cursor = step.next;
    }
    found
}

fn lay(medium: &Arc<Medium>, image: &[u8], page: usize, fault: Fault) {
    medium.set_content(image);
    medium.mend();
    medium.update_faults(|faults| faults.heals = fault == Fault::Unreadable);
    match fault {
        Fault::Garbage => medium.edit(|bytes| bytes[page..page + PAGE].fill(0x3c)),
        Fault::Unreadable | Fault::Dead => medium.add_unreadable(&[page as u64]),
    }
}

/// Runs a store with one bad page through a full cycle. Returns the lost objects.
fn live(
    medium: &Arc<Medium>,
    image: &[u8],
    page: usize,
    fault: Fault,
    touched: &BTreeMap<&Name, &Vec<Range<usize>>>,
) -> BTreeSet<Name> {
    let what = format!("{fault:?} at {page:#x}");
    lay(medium, image, page, fault);
    let report = check_with(medium, false).unwrap_or_else(|error| panic!("{what}: check: {error}"));
    let mut store = Store::maintained(medium, options(1)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let damaged = store.recovery.damaged.clone();
    let log = store.log();
    let lost = store.run(look(&log, &OBJECTS));
    let scrubbed = store.run(scrub(&log));
    let names: BTreeSet<Name> = lost.keys().cloned().collect();
    let beyond = names.iter().any(|name| !touched.contains_key(name));
    assert!(!beyond, "{what}: {names:?} lost, only {touched:?} is there; {damaged:?}");
    let is_of = |damage: &Damage, name: &Name| {
        damage.bucket.as_deref() == Some(&name.0) && damage.key.as_deref() == Some(&name.1)
    };
    // If the whole record is unreadable, only its location can be reported.
    let unnamed = |damage: &Damage| {
        let offset = damage.offset as usize;
        let mut ranges = touched.values().copied().flatten();
        damage.key.is_none() && (offset / PAGE == page / PAGE || ranges.any(|range| range.contains(&offset)))
    };
    for (name, said) in &lost {
        // A reader knows the name it asked for.
        let found = said.is_some() || damaged.iter().any(|damage| is_of(damage, name) || unnamed(damage));
        // Unproven records that do not verify are cut, as after a torn write.
        let last = fault == Fault::Garbage && report.tails.iter().any(|tail| tail.contains(&(page as u64)));
        assert!(found || last, "{what}: {name:?} is lost without a word: {damaged:?}");
        assert_eq!(said.is_some(), scrubbed.contains(name), "{what}: {name:?} and {scrubbed:?}");
        let findings = report.findings.iter().map(|finding| &finding.damage);
        let checked = findings.clone().any(|damage| is_of(damage, name)) || findings.clone().any(unnamed);
        assert!(checked || last, "{what}: {name:?} is not named by the check: {:?}", report.findings);
    }
    // Operation goes on: lost objects are written again or deleted.
    let again = names.iter().next().cloned();
    store.run(async {
        put(&log, "films", "after", 80, 70_000).await.unwrap_or_else(|error| panic!("{what}: put: {error}"));
        put(&log, "films", "and after", 81, 70_000).await.unwrap();
        assert!(log.delete_object("films", "after", 1, Condition::None).await.unwrap(), "{what}");
        for (i, (bucket, key)) in names.iter().enumerate() {
            if i == 0 {
                put(&log, bucket, key, 90, 70_000).await.unwrap();
            } else {
                let _ = log.delete_object(bucket, key, 1, Condition::None).await.unwrap();
            }
        }
        log.checkpoint().await.unwrap_or_else(|error| panic!("{what}: checkpoint: {error}"));
        log.compact().await.unwrap_or_else(|error| panic!("{what}: compact: {error}"));
        put(&log, "films", "small", 5, 100).await.unwrap();
    });
    drop(log);
    store.close();
    medium.crash(LOST);
    let mut store = Store::maintained(medium, options(1)).unwrap_or_else(|error| panic!("{what}: again: {error}"));
    let log = store.log();
    let mut expected: Vec<_> = OBJECTS.to_vec();
    expected.retain(|(bucket, key, ..)| !names.contains(&((*bucket).into(), (*key).into())));
    expected.push(("films", "and after", 81, 70_000));
    if let Some((bucket, key)) = &again {
        let seed = if (&**bucket, &**key) == ("films", "small") { (5, 100) } else { (90, 70_000) };
        expected.push((bucket, key, seed.0, seed.1));
    }
    let lost = store.run(look(&log, &expected));
    // Data moved or written to a dead sector is lost too, but never silently.
    let allowed = |said: &Option<Damage>| fault == Fault::Dead && said.is_some();
    assert!(lost.values().all(allowed), "{what}, opened again: {lost:?}; {:?}", store.recovery.damaged);
    store.run(async {
        assert!(log.object("films", "after").await.unwrap().is_none(), "{what}: a deleted object is back");
    });
    drop(log);
    store.close();
    medium.crash(LOST);
    names
}

/// Returns the pages to try: all nonzero ones, each end of a segment, and
/// every fiftieth of the rest.
fn pages(medium: &Arc<Medium>, image: &[u8]) -> Vec<usize> {
    lay(medium, image, PAGE, Fault::Dead); // The gap between the superblocks is unused.
    let report = check_with(medium, false).unwrap();
    assert_eq!(report.findings, []);
    let is_free = |page: usize| {
        let start = page as u64;
        let end = (page + PAGE) as u64;
        report.free.iter().any(|free| free.start <= start && end <= free.end)
    };
    let all = (0..image.len()).step_by(PAGE);
    let tried = all.enumerate().filter(|&(i, page)| {
        let near = page >= PAGE && !is_free(page - PAGE);
        !is_free(page) || near || i.is_multiple_of(50) || page as u64 % SEGMENT_LEN == SEGMENTS_START
    });
    tried.map(|(_, page)| page).collect()
}

#[test]
fn bad_page_costs_only_its_own_contents() {
    let image = sample();
    let places = places(&image);
    for (bucket, key, ..) in OBJECTS {
        assert!(places.contains_key(&(bucket.to_owned(), key.to_owned())), "{bucket}/{key}");
    }
    let medium = new_medium(22);
    let pages = pages(&medium, &image);
    assert!(pages.len() > 150, "{}", pages.len());
    let mut lost = 0;
    let mut worse = Vec::new();
    for &page in &pages {
        let touches = |ranges: &[Range<usize>]| ranges.iter().any(|at| at.start < page + PAGE && page < at.end);
        let touched: BTreeMap<&Name, &Vec<Range<usize>>> =
            places.iter().filter(|(_, ranges)| touches(ranges)).collect();
        let garbage = live(&medium, &image, page, Fault::Garbage, &touched);
        for fault in [Fault::Unreadable, Fault::Dead] {
            let unreadable = live(&medium, &image, page, fault, &touched);
            lost += unreadable.len();
            if !unreadable.is_subset(&garbage) {
                worse.push((page, fault, unreadable));
            }
        }
    }
    assert!(worse.is_empty(), "unreadable is worse than wrong: {worse:?}");
    println!("{} pages, {lost} objects lost", pages.len());
    assert!(lost > 100, "{lost}");
}

/// A transient error is not damage: data that the second or third attempt returns is complete.
#[test]
fn read_that_fails_three_times_is_retried_without_loss() {
    let image = sample();
    let medium = new_medium(23);
    for failing in [1, 3] {
        lay(&medium, &image, PAGE, Fault::Dead);
        medium.fail_reads(failing, EIO);
        let mut store = Store::maintained(&medium, options(1)).unwrap();
        assert_eq!((store.recovery.damaged.len(), store.recovery.mended), (0, false));
        let log = store.log();
        medium.fail_reads(failing, EIO);
        assert_eq!(store.run(look(&log, &OBJECTS)), BTreeMap::new());
        drop(log);
        store.close();
        medium.crash(LOST);
    }
    lay(&medium, &image, PAGE, Fault::Dead);
    medium.fail_reads(keyhole_log::limits::READ_ATTEMPTS as u64, EIO);
    let store = Store::maintained(&medium, options(1)).unwrap();
    assert!(store.recovery.mended, "a copy of the superblock that could not be read is written anew");
}

/// A superblock copy or header that can be neither read nor written is reported, and does not
/// prevent opening.
#[test]
fn failed_mend_is_reported() {
    let image = sample();
    let medium = new_medium(24);
    let superblocks = [0, 512 << 10];
    let headers = (SEGMENTS_START as usize..image.len()).step_by(SEGMENT_LEN as usize);
    let headers = headers.filter(|&at| image[at..].starts_with(b"keyhseg\n"));
    for page in superblocks.into_iter().chain(headers) {
        lay(&medium, &image, page, Fault::Dead);
        medium.add_unwritable(page as u64..(page + PAGE) as u64);
        let mut store = Store::open(&medium, 1);
        let said = store.recovery.damaged.iter().any(|damage| damage.offset == page as u64 && damage.repairable);
        assert!(said, "{page:#x}: {:?}", store.recovery);
        let log = store.log();
        assert_eq!(store.run(look(&log, &OBJECTS)), BTreeMap::new(), "{page:#x}");
        drop((log, store));
        medium.end_wear();
        medium.crash(LOST);
    }
}

/// A dead region costs a bounded number of reads during recovery.
#[test]
fn dead_region_is_read_page_by_page_a_bounded_number_of_times() {
    use keyhole_log::limits::{BUFFER_LEN, READ_ATTEMPTS, REREAD_PAGES_MAX};
    let image = sample();
    let medium = new_medium(25);
    lay(&medium, &image, PAGE, Fault::Dead);
    Store::open(&medium, 1);
    medium.crash(LOST);
    let sound = medium.counters().reads;
    let start = SEGMENTS_START as usize + SEGMENT_LEN as usize / 2;
    let pages = BUFFER_LEN / PAGE;
    lay(&medium, &image, PAGE, Fault::Dead);
    let dead = (0..pages).map(|page| (start + page * PAGE) as u64);
    medium.add_unreadable(&dead.filter(|page| *page < image.len() as u64).collect::<Vec<_>>());
    let before = medium.counters().reads;
    Store::open(&medium, 1);
    let reads = (medium.counters().reads - before) as usize;
    let most = sound as usize + 4 * (pages + REREAD_PAGES_MAX * READ_ATTEMPTS + READ_ATTEMPTS);
    assert!(reads <= most, "{reads} reads, {most} at most");
}

/// A failed read with another cause than the medium ends the operation and proves
/// nothing about the bytes.
#[test]
fn opening_fails_on_error_that_is_not_of_the_medium() {
    let image = sample();
    let medium = new_medium(26);
    lay(&medium, &image, PAGE, Fault::Dead);
    medium.fail_reads(1, 12); // ENOMEM
    assert!(matches!(Store::open_with(&medium, options(1)), Err(Error::Io(_))));
}

/// Overwrites objects many times beside cold ones. Returns the cleaner's statistics and findings.
/// `bad`: a sector of one cold object is unreadable.
fn under_pressure(len: usize, bad: bool) -> (CleanerStats, Vec<Damage>) {
    let medium = new_medium(27);
    let capacity = SEGMENTS_START + 24 * SEGMENT_LEN;
    format(&medium, capacity).unwrap();
    let mut store = Store::maintained(&medium, options(1)).unwrap();
    let log = store.log();
    // Spread over most of the file, so that only cleaning provides space.
    let cold = 8 * 200_000 / len as u64;
    let hot = 20;
    let rounds = 4 * capacity as usize / (hot * len);
    store.run(async {
        log.create_bucket("hot", 1).await.unwrap();
        for i in 0..cold {
            put(&log, "hot", &format!("cold {i}"), 1000 + i, len).await.unwrap();
            for key in 0..hot {
                put(&log, "hot", &format!("{key}"), 1, len).await.unwrap();
            }
            // Before anything has been moved: later, cold objects are segregated.
            if bad && i == 3 {
                let page = bytes(1003, len)[8..PAGE].to_vec();
                let at = find(&medium, &page).unwrap();
                medium.add_unreadable(&[at / PAGE as u64 * PAGE as u64]);
            }
        }
    });
    store.run(async {
        for round in 0..rounds {
            for key in 0..hot {
                let done = put(&log, "hot", &format!("{key}"), round as u64, len).await;
                done.unwrap_or_else(|error| panic!("round {round} of {rounds}: {error}"));
            }
        }
    });
    let names: Vec<String> = (0..cold).map(|i| format!("cold {i}")).collect();
    let expected: Vec<_> = names.iter().zip(1000..).map(|(key, seed)| ("hot", &**key, seed, len)).collect();
    let lost = store.run(look(&log, &expected));
    assert_eq!(lost.len(), usize::from(bad), "{lost:?}");
    let stats = log.store().stats();
    let findings = log.store().take_findings();
    assert_eq!(log.store().take_findings(), []);
    assert!(!stats.poisoned && !stats.full);
    (stats.cleaner, findings)
}

/// A cold object has a bad sector, in a block or in a record: its segment is set aside, the object
/// is reported once, and cleaning goes on at its usual cost.
#[test]
fn cleaning_continues_beside_bad_sector() {
    for len in [200_000, 40_000] {
        let (sound, none) = under_pressure(len, false);
        assert_eq!((none.as_slice(), sound.damaged, sound.segments_set_aside), (&[][..], 0, 0));
        let (stats, findings) = under_pressure(len, true);
        let named: Vec<_> = findings.iter().map(|damage| damage.key.as_deref()).collect();
        assert_eq!(named, [Some("cold 3")], "{findings:?}");
        assert_eq!((stats.damaged, stats.segments_set_aside), (1, 1));
        assert!(stats.checkpoints <= 2 * sound.checkpoints + 4, "{stats:?}, without the bad sector {sound:?}");
        // One segment in 24 less is available, so cleaned segments are fuller.
        assert!(stats.bytes_moved <= 4 * sound.bytes_moved + (4 << 20), "{stats:?}, without the bad sector {sound:?}");
        println!("{len}: {stats:?}, without the bad sector {sound:?}");
    }
}

/// A lost object whose name is known stays listed as damaged, through checkpoints and recoveries,
/// until it is overwritten or deleted.
#[test]
fn lost_object_stays_listed_until_it_is_overwritten_or_deleted() {
    let image = sample();
    let medium = new_medium(28);
    for overwritten in [true, false] {
        lay(&medium, &image, PAGE, Fault::Dead);
        let at = find(&medium, b"head of 12").unwrap();
        medium.edit(|bytes| bytes[at as usize] ^= 1);
        let name = ("photos".to_owned(), "newest block".to_owned());
        for opening in 0..3 {
            let report = check_with(&medium, false).unwrap();
            let found = report.findings.iter().filter(|finding| finding.damage.key.as_deref() == Some(&name.1));
            assert_eq!(found.count(), 1, "opening {opening}: {:?}", report.findings);
            let mut store = Store::maintained(&medium, options(1)).unwrap();
            let named: Vec<_> = store.recovery.damaged.iter().filter_map(|damage| damage.key.as_deref()).collect();
            assert_eq!(named, ["newest block"], "opening {opening}");
            let log = store.log();
            let lost = store.run(look(&log, &OBJECTS));
            let [(lost, Some(damage))] = &lost.into_iter().collect::<Vec<_>>()[..] else { panic!("one is lost") };
            assert_eq!(
                (lost, damage.bucket.as_deref(), damage.key.as_deref()),
                (&name, Some("photos"), Some("newest block"))
            );
            assert_eq!(store.run(scrub(&log)), BTreeSet::from([name.clone()]));
            let list = keyhole_log::ListObjects { prefix: name.1.clone(), limit: 10, ..Default::default() };
            assert_eq!(log.list_objects(&name.0, &list).unwrap().entries.len(), 1);
            store.run(log.checkpoint()).unwrap();
            drop(log);
            store.close();
            medium.crash(LOST);
        }
        let mut store = Store::maintained(&medium, options(1)).unwrap();
        let log = store.log();
        store.run(async {
            if overwritten {
                put(&log, &name.0, &name.1, 12, 80_000).await.unwrap();
                assert_eq!(look(&log, &OBJECTS).await, BTreeMap::new());
            } else {
                assert!(log.delete_object(&name.0, &name.1, 1, Condition::None).await.unwrap());
                assert!(log.object(&name.0, &name.1).await.unwrap().is_none());
            }
            log.checkpoint().await.unwrap();
        });
        drop(log);
        store.close();
        medium.crash(LOST);
        assert_eq!(check_with(&medium, false).unwrap().findings, []);
    }
}

/// Blocks that a lost record may name are not overwritten: the record may become readable again.
#[test]
fn object_is_whole_once_its_record_is_readable_again() {
    let medium = new_medium(1);
    format(&medium, SEGMENTS_START + 18 * SEGMENT_LEN).unwrap();
    let mut store = Store::open(&medium, 1);
    let log = store.log();
    store.run(async {
        log.create_bucket("films", 1).await.unwrap();
        put(&log, "films", "first", 1, 70_000).await.unwrap();
        put(&log, "films", "lost", 2, 90_000).await.unwrap();
        put(&log, "films", "later", 3, 100).await.unwrap();
    });
    drop((log, store));
    medium.crash(LOST);
    let record = places(&medium.content())[&("films".into(), "lost".into())].last().unwrap().start;
    medium.add_unreadable(&[(record / PAGE * PAGE) as u64]);
    let mut store = Store::open(&medium, 1);
    let log = store.log();
    store.run(async {
        assert!(log.object("films", "lost").await.unwrap().is_none(), "its record cannot be read");
        put(&log, "films", "new", 4, 90_000).await.unwrap();
        put(&log, "films", "newer", 5, 90_000).await.unwrap();
    });
    drop((log, store));
    medium.crash(LOST);
    medium.mend();
    let mut store = Store::open(&medium, 1);
    let expected = [
        ("films", "first", 1, 70_000),
        ("films", "lost", 2, 90_000),
        ("films", "later", 3, 100),
        ("films", "new", 4, 90_000),
        ("films", "newer", 5, 90_000),
    ];
    let log = store.log();
    assert_eq!(store.run(look(&log, &expected)), BTreeMap::new());
}
