//! The offline check: it detects every wrong byte and names its owner.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use futures_executor::LocalPool;

use keyhole_log::limits::SEGMENTS_START;
use keyhole_log::{CheckOptions, CheckReport, Condition, CreateUpload, Error, PutPart, Verdict, check};
use keyhole_sim::disk::{Medium, SimDisk};
use keyhole_sim::random::Random;

use crate::support::store::{SEGMENT_LEN, Store, bytes, format, get, options, put, read, write_body};
use crate::support::{LOST, new_medium};

fn check_with(medium: &Arc<Medium>, repair: bool) -> Result<CheckReport, Error> {
    let disk = Rc::new(SimDisk::in_turns(medium));
    LocalPool::new().run_until(check(disk, CheckOptions { repair, ..CheckOptions::default() }))
}

/// A file that contains everything: small and large objects, plain and sealed, overwritten and
/// deleted ones, an upload with parts, records from before and after a checkpoint, and segments
/// that were cleaned and reused.
fn sample(segments: u64, large: u64) -> Arc<Medium> {
    let medium = new_medium(11);
    format(&medium, SEGMENTS_START + segments * SEGMENT_LEN).unwrap();
    let mut store = Store::maintained(&medium, options(2)).unwrap();
    let logs = store.logs.clone();
    store.run(async {
        logs[0].create_bucket("bucket", 1).await.unwrap();
        for i in 0..large {
            put(&logs[i as usize % 2], &format!("large {i}"), i, 900_000 + 300_000 * (i as usize % 4)).await.unwrap();
        }
        for i in 0..600u64 {
            put(&logs[0], &format!("small {}", i % 60), i, (i as usize * 997) % 64_000).await.unwrap();
        }
        logs[0].compact().await.unwrap();
        let id = [7; 16];
        let create = CreateUpload {
            bucket: "bucket".into(),
            key: "upload".into(),
            id,
            head: vec![1; 30],
            tags: Vec::new(),
            sealed: false,
            time_ms: 1,
            declared: None,
        };
        logs[1].create_upload(create).await.unwrap();
        let upload = logs[1].upload("bucket", "upload", &id).unwrap().unwrap();
        let content = write_body(&logs[1], &bytes(5, 200_000), false).await.unwrap();
        let number = 3;
        let salt = [0; 24];
        let etag = [9; 16];
        let size = 200_000;
        let time_ms = 1;
        let checksums = vec![4; 20];
        logs[1].put_part(PutPart { upload, number, content, salt, etag, size, time_ms, checksums }).await.unwrap();
        logs[0].checkpoint().await.unwrap();
        put(&logs[1], "late", 3, 5000).await.unwrap();
        logs[0].delete_object("bucket", "small 7", 1, Condition::None).await.unwrap();
        put(&logs[0], "late and large", 4, 1 << 20).await.unwrap();
    });
    drop(logs);
    store.close();
    medium.crash(LOST);
    medium
}

#[test]
fn check_of_sound_file_has_no_findings() {
    let medium = sample(31, 6);
    let report = check_with(&medium, false).unwrap();
    assert_eq!(report.findings, []);
    assert_eq!((report.buckets, report.uploads, report.objects), (1, 1, 59 + 6 + 2));
    assert!(report.records > 2 * 60 && report.blocks > 6 && report.verified > 6 << 20, "{report:?}");
    // The check wrote nothing, and its result does not change after recovery.
    let again = check_with(&medium, true).unwrap();
    assert_eq!(again, report);
    Store::maintained(&medium, options(1)).unwrap().close();
    assert_eq!(check_with(&medium, false).unwrap().findings, []);
}

/// Flips single bytes of a 64 MiB file. The check reports the damage, or the byte is in a free
/// range. Reads never return wrong bytes.
#[test]
fn check_names_every_flipped_byte_or_lists_it_as_free() {
    let medium = sample(31, 12);
    let seed =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
    let seed = std::env::var("KEYHOLE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(seed);
    println!("seed {seed} (set KEYHOLE_SEED to repeat it)");
    let mut random = Random::new(seed);
    let len = medium.content().len() as u64;
    assert!(len >= 40 << 20, "{len}");
    let mut free = 0;
    let mut named = 0;
    for _ in 0..2000 {
        let at = random.below(len);
        let flip = 1 << random.below(8);
        medium.flip(at, flip);
        let report = match check_with(&medium, false) {
            Ok(report) => report,
            Err(error) => panic!("byte {at}: {error}"),
        };
        let within = |ranges: &[std::ops::Range<u64>]| ranges.iter().any(|range| range.contains(&at));
        if report.findings.is_empty() {
            assert!(within(&report.free) || within(&report.tails), "byte {at} is neither named nor free");
            free += 1;
        } else {
            assert!(!within(&report.free), "byte {at} is free, and yet: {:?}", report.findings);
            named += 1;
        }
        medium.flip(at, flip);
    }
    println!("{named} named, {free} in free space");
    assert!(named > 200 && free > 100, "{named} {free}");
}

/// Damage is reported by name; repairable damage is repaired, and the rest stays.
#[test]
fn check_reports_damage_with_name_and_verdict() {
    let medium = sample(31, 6);
    let good = medium.content();
    let find = |pattern: &[u8], from: usize| {
        let at = good[from..].windows(pattern.len()).position(|window| window == pattern);
        from + at.expect("it is there")
    };
    // A page of a large object's data, which differs from all other pages.
    let data = find(&bytes(2, 300_000)[8..4096], 0);
    // A superblock, the newest checkpoint, and the header of its segment.
    let raw = u64::from_le_bytes(good[64..72].try_into().unwrap());
    let checkpoint = (raw >> 17) as usize * 8;
    let start = SEGMENTS_START as usize;
    let segment_len = SEGMENT_LEN as usize;
    let header = start + (checkpoint - start) / segment_len * segment_len;
    assert_eq!(good[header..header + 8], *b"keyhseg\n");
    for (at, what, key, verdict) in [
        (data, "a block that does not verify", Some("large 2"), Verdict::Lost),
        (header + 20, "the header of a segment", None, Verdict::Repairable),
        (300, "a copy of the superblock", None, Verdict::Repairable),
        ((512 << 10) + 300, "a copy of the superblock", None, Verdict::Repairable),
        (checkpoint + 100, "a checkpoint", None, Verdict::Repairable),
    ] {
        medium.set_content(&good);
        medium.edit(|bytes| bytes[at] ^= 4);
        let report = check_with(&medium, false).unwrap();
        let finding = report.findings.iter().find(|finding| finding.damage.what == what);
        let finding = finding.unwrap_or_else(|| panic!("{what}: {:?}", report.findings));
        assert_eq!((finding.damage.key.as_deref(), finding.verdict), (key, verdict), "{finding:?}");
        let repaired = check_with(&medium, true).unwrap();
        assert_eq!(repaired.findings, report.findings);
        let left = check_with(&medium, false).unwrap().findings;
        match verdict {
            Verdict::Repairable => {
                assert_eq!((left.len(), repaired.repaired), (0, repaired.findings.len() as u64), "{what}");
            }
            Verdict::Lost => assert_eq!((&left, repaired.repaired), (&report.findings, 0)),
        }
        // Everything else is unchanged.
        let mut store = Store::maintained(&medium, options(2)).unwrap();
        let log = store.log();
        store.run(async {
            for i in (0..6u64).filter(|i| verdict != Verdict::Lost || *i != 2) {
                assert_eq!(get(&log, &format!("large {i}")).await, Some(i));
            }
            if verdict == Verdict::Lost {
                let object = log.object("bucket", "large 2").await.unwrap().unwrap();
                assert!(matches!(read(&log, &object).await, Err(Error::Damaged(_))));
            }
            assert_eq!(get(&log, "late").await, Some(3));
            assert_eq!(get(&log, "small 7").await, None);
        });
        drop(log);
        store.close();
        medium.crash(LOST);
    }
}

/// With both checkpoints damaged, the repair rebuilds the contents.
#[test]
fn store_without_checkpoints_is_rebuilt_by_repair() {
    let medium = sample(31, 4);
    for at in [64usize, 72] {
        let raw = u64::from_le_bytes(medium.content()[at..at + 8].try_into().unwrap());
        medium.edit(|bytes| bytes[(raw >> 17) as usize * 8 + 90] ^= 1);
    }
    assert!(Store::open_with(&medium, options(1)).is_err());
    let report = check_with(&medium, true).unwrap();
    let checkpoints = report.findings.iter().filter(|finding| finding.damage.what == "a checkpoint").count();
    assert_eq!((checkpoints, report.repaired), (2, report.findings.len() as u64), "{:?}", report.findings);
    assert_eq!(check_with(&medium, false).unwrap().findings, []);
    let mut store = Store::open(&medium, 1);
    let log = store.log();
    store.run(async {
        for i in 0..4u64 {
            assert_eq!(get(&log, &format!("large {i}")).await, Some(i));
        }
        for i in (0..60u64).filter(|i| *i != 7) {
            assert_eq!(get(&log, &format!("small {i}")).await, Some(540 + i));
        }
    });
}

/// An online scrub finds the same damage, and none in an intact store.
#[test]
fn scrub_reports_damaged_objects() {
    let medium = sample(31, 6);
    let good = medium.content();
    let page = bytes(2, 300_000)[8..4096].to_vec();
    let data = good.windows(page.len()).position(|window| window == page).expect("it is there");
    medium.edit(|bytes| bytes[data] ^= 1);
    let mut store = Store::maintained(&medium, options(1)).unwrap();
    let log = store.log();
    let found = store.run(async {
        let mut cursor = Some(Default::default());
        let mut found = BTreeSet::new();
        let mut steps = 0;
        while let Some(at) = cursor {
            let step = log.scrub(at).await.unwrap();
            found.extend(step.findings.into_iter().filter_map(|damage| damage.key));
            cursor = step.next;
            steps += 1;
        }
        assert_eq!(steps, 59 + 6 + 2 + 1);
        found
    });
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["large 2"]);
}
