//! Evictions: the bytes of a version are gone, and everything else of it stays.

use std::rc::Rc;
use std::sync::Arc;

use futures_executor::LocalPool;

use keyhole_log::limits::{SEGMENT_LEN_MIN, SUPERBLOCK_AT};
use keyhole_log::{
    CheckOptions, Condition, Durability, Error, Format, Lock, Log, Object, OpenOptions, VersionId, Versioning, check,
    create,
};
use keyhole_sim::disk::{Medium, SimDisk};

use crate::history::{everywhere, object_of, put_version, set_versioning, versioned, versions};
use crate::support::store::{CAPACITY, Store, bytes, copy_of, etag, format, get, options, put, read};
use crate::support::{CRASHES, LOST, SOME, new_medium};
use crate::uploads;

const LEN: usize = 1_200_000;

fn superblock_versions(medium: &Arc<Medium>) -> [u8; 2] {
    let bytes = medium.content();
    SUPERBLOCK_AT.map(|at| bytes[at as usize + 8])
}

async fn object(log: &Log<SimDisk>, key: &str, version: Option<VersionId>) -> Object {
    let found = log.version("bucket", key, version).await.unwrap().into_object();
    found.unwrap_or_else(|| panic!("{key} is there")).0
}

async fn number(log: &Log<SimDisk>, key: &str) -> u64 {
    object(log, key, None).await.seq
}

async fn evict(log: &Log<SimDisk>, key: &str) -> Result<bool, Error> {
    log.evict("bucket", key, number(log, key).await, 7).await
}

/// Checks that a version is evicted, and that its properties are those of the object of `seed`.
async fn check_evicted(log: &Log<SimDisk>, key: &str, version: Option<VersionId>, seed: u64) -> Object {
    let object = object(log, key, version).await;
    assert!(object.is_evicted, "{key}");
    let found = (object.size, object.etag, object.head.clone());
    assert_eq!(found, (LEN as u64, etag(seed), format!("head of {seed}").into_bytes()));
    for part in &object.parts {
        let body = log.body(part).await;
        assert!(matches!(body, Err(Error::Evicted)), "{key}: {body:?}");
    }
    let with_body = log.version_with_body("bucket", key, version, usize::MAX).await.unwrap();
    assert!(with_body.into_object().unwrap().1.is_none());
    object
}

fn evicted_totals(log: &Log<SimDisk>) -> (u64, u64) {
    let usage = log.store().usage();
    (usage.evicted, usage.evicted_bytes)
}

#[test]
fn evicted_objects_stay_evicted_everywhere() {
    let (medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    store.run(async {
        put(&log, "k", 2, LEN).await.unwrap();
        put(&log, "before", 4, LEN).await.unwrap();
        put(&log, "kept", 6, LEN).await.unwrap();
        assert!(evict(&log, "before").await.unwrap());
        log.checkpoint().await.unwrap();
        assert_eq!(superblock_versions(&medium), [5, 5]);
        assert!(evict(&log, "k").await.unwrap());
        assert!(!evict(&log, "k").await.unwrap(), "evicted already");
    });
    drop(log);
    everywhere(&medium, store, async |log| {
        check_evicted(log, "k", None, 2).await;
        check_evicted(log, "before", None, 4).await;
        assert_eq!(get(log, "kept").await, Some(6));
        assert_eq!(evicted_totals(log), (2, 2 * LEN as u64));
        assert_eq!(log.store().usage().bodies, 3);
        let listed: Vec<bool> = versions(log, 10).iter().map(|info| info.is_evicted).collect();
        assert_eq!(listed, [true, true, false]);
    });
    let report =
        LocalPool::new().run_until(check(Rc::new(SimDisk::in_turns(&medium)), CheckOptions::default())).unwrap();
    assert_eq!((&report.findings[..], report.objects, report.evicted), (&[][..], 3, 2));
}

/// Stores, evicts, cleans and crashes in such a way that eviction records and stale records of bodies lie
/// everywhere.
#[test]
fn evictions_survive_damaged_checkpoints_and_a_rebuild() {
    let (medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    store.run(async {
        for seed in 0..12 {
            put(&log, &format!("k{seed:02}"), 2 * seed, LEN).await.unwrap();
        }
        for seed in (0..12).step_by(2) {
            assert!(evict(&log, &format!("k{seed:02}")).await.unwrap());
        }
        log.compact().await.unwrap();
        log.checkpoint().await.unwrap();
        assert!(evict(&log, "k01").await.unwrap());
        log.checkpoint().await.unwrap();
        assert!(evict(&log, "k03").await.unwrap());
    });
    drop(log);
    drop(store);
    medium.crash(LOST);
    let look = async |log: &Log<SimDisk>| {
        for seed in 0..12u64 {
            let key = format!("k{seed:02}");
            if seed % 2 == 0 || seed < 4 {
                check_evicted(log, &key, None, 2 * seed).await;
            } else {
                assert_eq!(get(log, &key).await, Some(2 * seed));
            }
        }
        assert_eq!(evicted_totals(log), (8, 8 * LEN as u64));
        assert_eq!(log.store().recount(), []);
    };
    let whole = medium.content();
    let end = |at: usize| (u64::from_le_bytes(whole[at..at + 8].try_into().unwrap()) >> 17) as usize * 8;
    let reopened = |damaged: &[usize]| {
        let medium = new_medium(3);
        medium.set_content(&whole);
        for &at in damaged {
            let end = end(at);
            medium.edit(|bytes| bytes[end + 90] ^= 1);
        }
        medium
    };
    for damaged in [&[][..], &[64], &[64, 72]] {
        let medium = reopened(damaged);
        let options = OpenOptions { rebuild: damaged.len() == 2, ..options(1) };
        let mut store = Store::maintained(&medium, options).unwrap();
        let others = store.recovery.damaged.iter().filter(|damage| damage.what != "a checkpoint");
        assert_eq!(others.count(), 0, "{:?}", store.recovery);
        let log = store.log();
        store.run(async {
            look(&log).await;
            log.checkpoint().await.unwrap();
            log.compact().await.unwrap();
        });
        drop(log);
        store.close();
        let mut store = Store::open(&medium, 1);
        assert_eq!(store.recovery.damaged, [], "{damaged:?}");
        let log = store.log();
        store.run(look(&log));
    }
}

#[test]
fn space_of_evicted_bodies_is_reclaimed() {
    let (_medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    store.run(async {
        for seed in 0..16 {
            put(&log, &format!("k{seed}"), 2 * seed, LEN).await.unwrap();
        }
        let before = log.store().usage();
        for seed in 0..16 {
            assert!(evict(&log, &format!("k{seed}")).await.unwrap());
        }
        let after = log.store().usage();
        assert!(before.live - after.live > 16 * LEN as u64, "{before:?} {after:?}");
        log.compact().await.unwrap();
        log.checkpoint().await.unwrap();
        log.checkpoint().await.unwrap();
        let in_use = |store: &keyhole_log::Store| {
            let counts = store.stats().segment_counts;
            counts.open + counts.closed + counts.condemned
        };
        assert!(in_use(log.store()) < 8, "{:?}", log.store().stats().segment_counts);
        for seed in 0..16 {
            put(&log, &format!("new{seed}"), 2 * seed, LEN).await.unwrap();
        }
    });
}

#[test]
fn evicted_object_is_overwritten_deleted_and_tagged() {
    let (medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    store.run(async {
        for (key, seed) in [("overwritten", 2), ("deleted", 4), ("tagged", 6)] {
            put(&log, key, seed, LEN).await.unwrap();
            assert!(evict(&log, key).await.unwrap());
        }
        assert_eq!(evicted_totals(&log), (3, 3 * LEN as u64));
        put(&log, "overwritten", 8, LEN).await.unwrap();
        assert!(log.delete_object("bucket", "deleted", 9, Condition::None).await.unwrap());
        let tagged = object(&log, "tagged", None).await;
        let seq = tagged.seq;
        log.set_tags("bucket", "tagged", tagged, b"new".to_vec()).await.unwrap();
        assert_eq!(number(&log, "tagged").await, seq, "it is still the same record");
    });
    drop(log);
    everywhere(&medium, store, async |log| {
        assert_eq!(get(log, "overwritten").await, Some(8));
        assert!(log.object("bucket", "deleted").await.unwrap().is_none());
        assert_eq!(check_evicted(log, "tagged", None, 6).await.tags, b"new");
        assert_eq!(evicted_totals(log), (1, LEN as u64));
    });
    let mut store = Store::maintained(&medium, options(1)).unwrap();
    let log = store.log();
    store.run(async {
        let tagged = object(&log, "tagged", None).await;
        log.set_tags("bucket", "tagged", tagged, Vec::new()).await.unwrap();
        assert_eq!(check_evicted(&log, "tagged", None, 6).await.tags, b"");
        put(&log, "tagged", 10, LEN).await.unwrap();
        assert_eq!((get(&log, "tagged").await, evicted_totals(&log)), (Some(10), (0, 0)));
        assert!(log.delete_object("bucket", "tagged", 1, Condition::None).await.unwrap());
        assert!(log.delete_object("bucket", "overwritten", 1, Condition::None).await.unwrap());
        assert!(log.delete_bucket("bucket", 1).await.is_ok());
        assert_eq!((log.store().usage().bodies, log.store().recount()), (0, vec![]));
    });
}

#[test]
fn evicted_versions_keep_their_locks_and_are_deleted_one_by_one() {
    let medium = new_medium(1);
    format(&medium, CAPACITY).unwrap();
    let mut store = Store::maintained(&medium, options(1)).unwrap();
    let log = store.log();
    let [old, new] = store.run(async {
        assert!(log.create_locked_bucket("bucket", 1, b"").await.unwrap());
        let hold = Lock { retention: None, hold: true };
        let old = log.put_version(object_of(&log, "k", 2, LEN).await.unwrap(), hold).await.unwrap().version;
        let new = put_version(&log, "k", 4, LEN).await.unwrap();
        for version in [old, new] {
            let number = object(&log, "k", Some(version)).await.seq;
            assert!(log.evict("bucket", "k", number, 1).await.unwrap());
        }
        assert!(matches!(log.delete_version("bucket", "k", old, 1, true).await, Err(Error::Locked)));
        log.set_hold("bucket", "k", Some(new), true, 1).await.unwrap();
        let tagged = object(&log, "k", Some(new)).await;
        log.set_tags("bucket", "k", tagged, b"tags".to_vec()).await.unwrap();
        [old, new]
    });
    drop(log);
    everywhere(&medium, store, async |log| {
        assert!(check_evicted(log, "k", Some(old), 2).await.lock.hold);
        let object = check_evicted(log, "k", None, 4).await;
        assert_eq!((object.version, object.lock.hold, &object.tags[..]), (new, true, &b"tags"[..]));
    });
    let mut store = Store::maintained(&medium, options(1)).unwrap();
    let log = store.log();
    store.run(async {
        for (version, left) in [(old, 1), (new, 0)] {
            log.set_hold("bucket", "k", Some(version), false, 1).await.unwrap();
            assert!(log.delete_version("bucket", "k", version, 1, false).await.unwrap().existed);
            assert_eq!(evicted_totals(&log).0, left);
        }
        assert_eq!((log.store().usage().bodies, log.store().recount()), (0, vec![]));
    });
}

#[test]
fn versions_without_gain_are_not_evicted() {
    let (_medium, mut store) = versioned();
    let log = store.log();
    store.run(async {
        put(&log, "inline", 2, 60_000).await.unwrap();
        put(&log, "plain", 3, LEN).await.unwrap();
        put(&log, "shared", 4, LEN).await.unwrap();
        for key in ["inline", "plain"] {
            assert!(!evict(&log, key).await.unwrap(), "{key}");
        }
        let copy = copy_of(object(&log, "shared", None).await, "copy");
        log.put_object(copy).await.unwrap();
        assert!(!evict(&log, "shared").await.unwrap() && !evict(&log, "copy").await.unwrap());
        log.delete_version("bucket", "copy", object(&log, "copy", None).await.version, 1, false).await.unwrap();
        let shared = number(&log, "shared").await;
        assert!(!log.evict("bucket", "other", shared, 1).await.unwrap(), "another key");
        assert!(!log.evict("bucket", "shared", shared + 1, 1).await.unwrap(), "another number");
        assert!(matches!(log.evict("other", "shared", shared, 1).await, Err(Error::NoSuchBucket)));
        log.delete_object("bucket", "gone", 1, Condition::None).await.unwrap();
        let marker = versions(&log, 10).iter().find(|info| info.key == "gone").unwrap().seq;
        assert!(!log.evict("bucket", "gone", marker, 1).await.unwrap(), "a delete marker");
        assert!(evict(&log, "shared").await.unwrap());
        assert_eq!(evicted_totals(&log), (1, LEN as u64));
    });
}

/// The deletion or the overwrite that leaves a body to one object only is durable before its eviction: else
/// power failure could return the other object, whose bytes were evicted with those of the first.
#[test]
fn power_failure_returns_no_object_that_shares_an_evicted_body() {
    let deferred = || OpenOptions { durability: Durability::Deferred, ..options(2) };
    for seed in 0..16 {
        for overwrites in [false, true] {
            let medium = new_medium(seed);
            format(&medium, CAPACITY).unwrap();
            let mut store = Store::open_with(&medium, deferred()).unwrap();
            let logs = store.logs.clone();
            store.run(async {
                logs[0].create_bucket("bucket", 1).await.unwrap();
                // The first eviction changes the format of the file.
                put(&logs[0], "first", 6, LEN).await.unwrap();
                assert!(evict(&logs[0], "first").await.unwrap());
                put(&logs[0], "k", 2, LEN).await.unwrap();
                let copy = copy_of(object(&logs[0], "k", None).await, "copy");
                logs[0].put_object(copy).await.unwrap();
                logs[0].flush().await.unwrap();
                if overwrites {
                    put(&logs[0], "copy", 4, 10).await.unwrap();
                } else {
                    assert!(logs[0].delete_object("bucket", "copy", 3, Condition::None).await.unwrap());
                }
                assert!(evict(&logs[1], "k").await.unwrap());
            });
            drop((logs, store));
            medium.crash(SOME);
            let mut store = Store::open_with(&medium, deferred()).unwrap();
            let log = store.log();
            store.run(async {
                let is_evicted = object(&log, "k", None).await.is_evicted;
                let copy = log.object("bucket", "copy").await.unwrap();
                let is_shared = copy.is_some_and(|copy| copy.size == LEN as u64);
                assert!(!(is_evicted && is_shared), "seed {seed}, overwrites: {overwrites}");
                for (key, is_here) in [("k", !is_evicted), ("copy", is_shared)] {
                    if is_here {
                        assert_eq!(get(&log, key).await, Some(2), "{key}");
                    }
                }
            });
        }
    }
}

#[test]
fn readers_and_copies_exclude_eviction() {
    let (_medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    store.run(async {
        put(&log, "k", 2, LEN).await.unwrap();
        let held = object(&log, "k", None).await;
        let refused = log.evict("bucket", "k", held.seq, 1).await;
        assert!(matches!(refused, Err(Error::Conflict)), "{refused:?}");
        assert_eq!(read(&log, &held).await.unwrap(), bytes(2, LEN));
        let seq = held.seq;
        drop(held);
        // A pin that is taken while the eviction is in flight does not keep the bytes, but an opened body
        // does. A copy is refused.
        let evicting = log.evict("bucket", "k", seq, 1);
        let racing = async {
            let object = object(&log, "k", None).await;
            let body = log.body(&object.parts[0]).await;
            let copied = log.put_object(copy_of(object.clone(), "copy")).await;
            let again = log.evict("bucket", "k", seq, 1).await;
            (object, body, copied, again)
        };
        let (evicted, (object, body, copied, again)) = futures_util::join!(evicting, racing);
        assert!(evicted.unwrap());
        assert!(matches!(copied, Err(Error::Conflict | Error::Evicted)), "{copied:?}");
        assert!(matches!(again, Err(Error::Conflict) | Ok(false)), "{again:?}");
        if let Ok(body) = body {
            assert!(log.read_block(&body, 0, 0..64, keyhole_log::Disk::buffer(&**log.disk())).await.0.is_ok());
        }
        let copied = log.put_object(copy_of(object, "copy")).await;
        assert!(matches!(copied, Err(Error::Evicted)), "{copied:?}");
        check_evicted(&log, "k", None, 2).await;
    });
}

/// An object whose tags are replaced, or which is overwritten or deleted, while its eviction is in flight.
#[test]
fn concurrent_changes_and_eviction_leave_one_state() {
    for change in 0..3 {
        let (medium, mut store) = Store::fresh_maintained();
        let log = store.log();
        store.run(async {
            put(&log, "k", 2, LEN).await.unwrap();
            let found = object(&log, "k", None).await;
            let seq = found.seq;
            let pinned = found.clone();
            drop(found);
            let changing = async {
                match change {
                    0 => log.set_tags("bucket", "k", pinned, b"t".to_vec()).await,
                    1 => {
                        drop(pinned);
                        put(&log, "k", 4, LEN).await
                    }
                    _ => {
                        drop(pinned);
                        log.delete_object("bucket", "k", 1, Condition::None).await.map(drop)
                    }
                }
            };
            let (changed, evicted) = futures_util::join!(changing, log.evict("bucket", "k", seq, 1));
            changed.unwrap();
            assert!(matches!(evicted, Ok(_) | Err(Error::Conflict)), "{evicted:?}");
            assert_eq!(log.store().recount(), []);
        });
        drop(log);
        everywhere(&medium, store, async |log| {
            let found = log.object("bucket", "k").await.unwrap();
            assert_eq!(found.is_some(), change < 2);
            if let Some(object) = found.filter(|object| !object.is_evicted) {
                assert_eq!(read(log, &object).await.unwrap().len(), LEN);
            }
        });
    }
}

#[test]
fn object_of_parts_is_evicted_as_a_whole() {
    let (medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    store.run(async {
        let upload = uploads::create(&log, "k", 1).await.unwrap();
        for (number, len) in [(1, LEN), (2, 70_000), (3, 10)] {
            uploads::part(&log, &upload, number, &bytes(2, len)).await.unwrap();
        }
        let parts = uploads::parts(&log, &upload);
        uploads::complete(&log, &upload, parts, 2).await.unwrap();
        assert!(evict(&log, "k").await.unwrap());
    });
    drop(log);
    everywhere(&medium, store, async |log| {
        let object = object(log, "k", None).await;
        assert!(object.is_evicted && object.parts.len() == 3);
        for part in &object.parts {
            assert!(matches!(log.body(part).await, Err(Error::Evicted)));
        }
        assert_eq!(evicted_totals(log), (1, LEN as u64 + 70_010));
    });
}

#[test]
fn full_store_evicts_and_takes_new_objects() {
    for (len, workers) in [(70_000, 1), (100_000, 2), (1 << 20, 1)] {
        let medium = new_medium(1);
        let format = Format { store_id: [1; 16], capacity: 64 << 20, segment_len: SEGMENT_LEN_MIN, created_ms: 0 };
        LocalPool::new().run_until(create(&SimDisk::in_turns(&medium), &format)).unwrap();
        let mut store = Store::maintained(&medium, options(workers)).unwrap();
        let logs = store.logs.clone();
        store.run(async {
            logs[0].create_bucket("bucket", 1).await.unwrap();
            let mut all = 0;
            let mut first = 0;
            for round in 0..4 {
                let before = all;
                loop {
                    let log = &logs[all as usize % workers];
                    match put(log, &format!("k{all}"), 2 * all, len).await {
                        Ok(()) => all += 1,
                        Err(Error::Full) => break,
                        Err(error) => panic!("{error}"),
                    }
                }
                let stored = all - before;
                first = if round == 0 { stored } else { first };
                // Records of evicted versions take a share.
                assert!(stored > first * 8 / 10, "{stored} of {first} objects of {len} in round {round}");
                for key in before..all {
                    let log = &logs[key as usize % workers];
                    let evicted = evict(log, &format!("k{key}")).await;
                    assert!(evicted.unwrap_or_else(|error| panic!("{key} of {all}: {error}")), "{key}");
                }
                assert_eq!(evicted_totals(&logs[0]), (all, all * len as u64));
            }
        });
        assert_eq!(store.log().store().recount(), []);
    }
}

#[test]
fn candidates_are_the_oldest_evictable_versions() {
    let medium = new_medium(1);
    format(&medium, CAPACITY).unwrap();
    let mut store = Store::maintained(&medium, options(1)).unwrap();
    let log = store.log();
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        for (key, seed, len) in [("z", 2, LEN), ("inline", 4, 10), ("plain", 5, LEN), ("a", 6, 70_000), ("m", 8, LEN)] {
            put(&log, key, seed, len).await.unwrap();
        }
        log.create_locked_bucket("locked", 1, b"").await.unwrap();
        let mut held = object_of(&log, "held", 10, LEN).await.unwrap();
        held.bucket = "locked".into();
        log.put_version(held, Lock { retention: None, hold: true }).await.unwrap();
        let keys = async |limit, through, unwanted: &str| -> Vec<String> {
            let found = log.eviction_candidates(limit, through, |_, key, _| key != unwanted).await;
            assert!(found.is_sorted_by_key(|candidate| candidate.number));
            found.into_iter().map(|candidate| candidate.key).collect()
        };
        assert_eq!(keys(10, u64::MAX, "").await, ["z", "a", "m"]);
        assert_eq!(keys(2, u64::MAX, "").await, ["z", "a"]);
        assert_eq!(keys(10, u64::MAX, "z").await, ["a", "m"]);
        assert_eq!(keys(10, number(&log, "a").await, "").await, ["z", "a"]);
        assert!(keys(0, u64::MAX, "").await.is_empty());
        let found = log.eviction_candidates(1, u64::MAX, |_, _, _| true).await;
        assert_eq!((&*found[0].bucket, found[0].size), ("bucket", LEN as u64));
        assert!(log.evict(&found[0].bucket, &found[0].key, found[0].number, 1).await.unwrap());
        assert_eq!(keys(10, u64::MAX, "").await, ["a", "m"]);
        log.set_hold("locked", "held", None, false, 1).await.unwrap();
        assert_eq!(keys(10, u64::MAX, "").await, ["a", "m", "held"]);
    });
}

#[test]
fn crash_at_every_write_of_an_eviction_leaves_one_of_two_states() {
    for crash in CRASHES {
        for stop in 0..14 {
            let (medium, mut store) = Store::fresh_maintained();
            let log = store.log();
            let seq = store.run(async {
                put(&log, "k", 2, LEN).await.unwrap();
                number(&log, "k").await
            });
            medium.stop_after_changes(Some(stop));
            let done = Rc::new(std::cell::Cell::new(false));
            let is_done = Rc::clone(&done);
            store.spawn(async move {
                let evicted = log.evict("bucket", "k", seq, 1).await;
                is_done.set(evicted.unwrap());
                let _ = log.checkpoint().await;
            });
            store.run_until_stalled();
            drop(store);
            medium.crash(crash);
            let before = superblock_versions(&medium);
            let mut store = Store::maintained(&medium, options(1)).unwrap();
            assert_eq!(store.recovery.damaged, [], "stop after {stop}, {crash:?}");
            let log = store.log();
            store.run(async {
                let found = object(&log, "k", None).await;
                assert!(found.is_evicted || !done.get(), "stop after {stop}, {crash:?}");
                assert!(!found.is_evicted || before == [5, 5], "stop after {stop}, {crash:?}: {before:?}");
                if found.is_evicted {
                    check_evicted(&log, "k", None, 2).await;
                } else {
                    drop(found);
                    assert_eq!(get(&log, "k").await, Some(2));
                    assert!(evict(&log, "k").await.unwrap());
                }
                assert_eq!(log.store().recount(), []);
            });
        }
    }
}

#[test]
fn versioning_enabled_later_keeps_evicted_null_version() {
    let (medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    store.run(async {
        put(&log, "k", 2, LEN).await.unwrap();
        assert!(evict(&log, "k").await.unwrap());
        set_versioning(&log, Versioning::Enabled).await.unwrap();
        put_version(&log, "k", 4, LEN).await.unwrap();
    });
    drop(log);
    everywhere(&medium, store, async |log| {
        assert_eq!(get(log, "k").await, Some(4));
        check_evicted(log, "k", Some(VersionId::Null), 2).await;
        assert_eq!(evicted_totals(log), (1, LEN as u64));
    });
}
