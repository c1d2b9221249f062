//! Versions of objects: what is current, what is noncurrent, and what survives.

use std::rc::Rc;
use std::sync::Arc;

use futures_executor::LocalPool;

use keyhole_log::{
    BucketSettings, CheckOptions, Condition, Content, DeletedVersion, Deletion, Durability, Error, Expired,
    FoundVersion, ListVersions, ListedVersion, Lock, Log, OpenOptions, PutObject, StoredVersion, VersionId,
    VersionInfo, Versioning, check,
};
use keyhole_sim::disk::{Medium, SimDisk};

use crate::support::store::{CAPACITY, Store, bytes, etag, format, get, keys, options, put, read, write_body};
use crate::support::{CRASHES, LOST, TORN, find, new_medium};

pub(crate) async fn set_versioning(log: &Log<SimDisk>, versioning: Versioning) -> Result<(), Error> {
    let change = |settings: &mut BucketSettings| {
        settings.versioning = versioning;
        Ok::<_, Error>(())
    };
    log.change_bucket("bucket", 1, change).await
}

/// Returns an object whose bytes derive from `seed`.
pub(crate) async fn object_of(log: &Log<SimDisk>, key: &str, seed: u64, len: usize) -> Result<PutObject, Error> {
    let body = write_body(log, &bytes(seed, len), seed.is_multiple_of(2)).await?;
    Ok(PutObject {
        bucket: "bucket".into(),
        key: key.into(),
        content: Content::New(body, [9; 24]),
        head: format!("head of {seed}").into_bytes(),
        tags: Vec::new(),
        sealed: seed.is_multiple_of(2),
        etag: etag(seed),
        size: len as u64,
        time_ms: seed,
        condition: Condition::None,
    })
}

pub(crate) async fn put_version(log: &Log<SimDisk>, key: &str, seed: u64, len: usize) -> Result<VersionId, Error> {
    let put = object_of(log, key, seed, len).await?;
    log.put_version(put, Lock::default()).await.map(|stored| stored.version)
}

/// Returns the seed of a version after verifying its contents. `None`: it is absent or a marker.
pub(crate) async fn get_version(log: &Log<SimDisk>, key: &str, version: VersionId) -> Option<u64> {
    let found = log.version_with_body("bucket", key, Some(version), usize::MAX).await.unwrap();
    let (object, _) = found.into_object()?;
    assert_eq!(object.version, version);
    let seed = u64::from_le_bytes(object.etag.digest[..8].try_into().unwrap());
    assert_eq!(read(log, &object).await.unwrap(), bytes(seed, object.size as usize), "{key} {version}");
    assert_eq!(object.head, format!("head of {seed}").into_bytes());
    Some(seed)
}

/// Lists all versions in pages of this length.
pub(crate) fn versions(log: &Log<SimDisk>, limit: usize) -> Vec<VersionInfo> {
    let mut list = ListVersions { limit, ..ListVersions::default() };
    let mut found = Vec::new();
    loop {
        let listing = log.list_versions("bucket", &list).unwrap();
        assert!(listing.entries.len() <= limit);
        found.extend(listing.entries.into_iter().map(|entry| match entry {
            ListedVersion::Version(info) => info,
            ListedVersion::Prefix(prefix) => panic!("{prefix}, without a delimiter"),
        }));
        match listing.next {
            Some(next) => list.after = Some(next),
            None => return found,
        }
    }
}

/// Lists the versions: key, time, whether it is a marker, whether it is current.
pub(crate) fn summary(log: &Log<SimDisk>) -> Vec<(String, u64, bool, bool)> {
    let all = versions(log, 1000);
    for limit in 1..5 {
        assert_eq!(versions(log, limit), all, "in pages of {limit}");
    }
    let mut in_order = log.versions_in_order("bucket", None, 1000).unwrap();
    in_order.reverse();
    in_order.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(in_order, all);
    for info in &all {
        let numbered = |key: &str, number| log.version_numbered("bucket", key, number).unwrap();
        assert_eq!(numbered(&info.key, info.seq), Some(info.clone()));
        assert_eq!((numbered(&info.key, u64::MAX), numbered("absent", info.seq)), (None, None));
    }
    all.into_iter().map(|info| (info.key, info.time_ms, info.is_marker, info.is_latest)).collect()
}

/// Creates a maintained store with a bucket in which versioning is enabled.
pub(crate) fn versioned() -> (Arc<Medium>, Store) {
    let (medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    store.run(async { set_versioning(&log, Versioning::Enabled).await.unwrap() });
    (medium, store)
}

/// Checks a store after an orderly shutdown, after a crash, after two checkpoints, after cleaning,
/// and without checkpoints, and finds no damage.
pub(crate) fn everywhere(medium: &Arc<Medium>, store: Store, look: impl AsyncFn(&Log<SimDisk>)) {
    let mut store = store;
    let log = store.log();
    store.run(look(&log));
    drop(log);
    drop(store);
    medium.crash(LOST);
    for round in 0..3 {
        let mut store = Store::maintained(medium, options(1)).unwrap();
        assert_eq!(store.recovery.damaged, [], "round {round}");
        let log = store.log();
        store.run(async {
            look(&log).await;
            match round {
                0 => log.checkpoint().await.unwrap(),
                1 => drop(log.compact().await.unwrap()),
                _ => {}
            }
            look(&log).await;
        });
        assert_eq!(log.store().recount(), [], "round {round}");
        drop(log);
        if round == 1 {
            store.close();
        } else {
            drop(store);
            medium.crash(TORN);
        }
    }
    let report =
        LocalPool::new().run_until(check(Rc::new(SimDisk::in_turns(medium)), CheckOptions::default())).unwrap();
    assert_eq!(report.findings, []);
    let mut store = Store::open(medium, 1);
    let log = store.log();
    store.run(look(&log));
    let mut scrub = Default::default();
    store.run(async {
        while let Some(next) = {
            let step = log.scrub(scrub).await.unwrap();
            assert_eq!(step.findings, []);
            step.next
        } {
            scrub = next;
        }
    });
}

fn row(key: &str, time_ms: u64, is_marker: bool, is_latest: bool) -> (String, u64, bool, bool) {
    (key.to_owned(), time_ms, is_marker, is_latest)
}

#[test]
fn versions_are_read_by_id_and_listed_newest_first() {
    let (medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    let ids = store.run(async {
        put(&log, "k", 1, 100).await.unwrap();
        put(&log, "j", 9, 100).await.unwrap();
        set_versioning(&log, Versioning::Enabled).await.unwrap();
        let second = put_version(&log, "k", 2, 70_000).await.unwrap();
        let third = put_version(&log, "k", 3, 1_200_000).await.unwrap();
        let deleted = log.delete_current("bucket", "k", 4, Condition::None).await.unwrap();
        let Deletion::Marker(marker) = deleted else { panic!("{deleted:?}") };
        let fifth = put_version(&log, "k", 5, 10).await.unwrap();
        let other = log.delete_current("bucket", "none", 6, Condition::None).await.unwrap();
        assert!(matches!(other, Deletion::Marker(VersionId::Id(_))), "{other:?}");
        [second, third, marker, fifth]
    });
    drop(log);
    everywhere(&medium, store, async |log| {
        let [second, third, marker, fifth] = ids;
        assert_eq!(
            summary(log),
            [
                row("j", 9, false, true),
                row("k", 5, false, true),
                row("k", 4, true, false),
                row("k", 3, false, false),
                row("k", 2, false, false),
                row("k", 1, false, false),
                row("none", 6, true, true),
            ]
        );
        assert_eq!((get(log, "k").await, keys(log)), (Some(5), vec!["j".to_owned(), "k".to_owned()]));
        for (version, seed) in [(second, 2), (third, 3), (fifth, 5), (VersionId::Null, 1)] {
            assert_eq!(get_version(log, "k", version).await, Some(seed));
        }
        let found = log.version("bucket", "k", Some(marker)).await.unwrap();
        assert!(matches!(found, FoundVersion::Marker(marker) if !marker.is_latest && marker.time_ms == 4));
        let found = log.version("bucket", "none", None).await.unwrap();
        assert!(matches!(found, FoundVersion::Marker(marker) if marker.is_latest), "{found:?}");
        for version in [VersionId::Id([1; 16]), second] {
            let found = log.version("bucket", "j", Some(version)).await.unwrap();
            assert!(matches!(found, FoundVersion::Absent), "{version}: {found:?}");
        }
        let usage = log.store().usage();
        assert_eq!((usage.objects, usage.noncurrent, usage.markers), (2, 3, 2));
        assert_eq!(usage.noncurrent_bytes, 100 + 70_000 + 1_200_000);
    });
}

#[test]
fn deletion_of_versions_uncovers_older_ones() {
    let (medium, mut store) = versioned();
    let log = store.log();
    store.run(async {
        let first = put_version(&log, "k", 1, 100).await.unwrap();
        let second = put_version(&log, "k", 2, 80_000).await.unwrap();
        log.delete_object("bucket", "k", 3, Condition::None).await.unwrap();
        let marker = versions(&log, 10)[0].version;
        let fourth = put_version(&log, "k", 4, 100).await.unwrap();
        let delete = async |version| log.delete_version("bucket", "k", version, 9, false).await.unwrap();
        let was = |existed, was_marker| DeletedVersion { existed, was_marker };
        assert_eq!(delete(fourth).await, was(true, false));
        assert_eq!(get(&log, "k").await, None, "the marker is on top");
        assert_eq!(delete(fourth).await, was(false, false));
        assert_eq!(delete(marker).await, was(true, true));
        assert_eq!(get(&log, "k").await, Some(2));
        assert_eq!(delete(first).await, was(true, false));
        assert_eq!(delete(VersionId::Null).await, was(false, false));
        assert!(matches!(log.delete_bucket("bucket", 1).await, Err(Error::BucketNotEmpty)));
        let _ = second;
    });
    drop(log);
    everywhere(&medium, store, async |log| {
        assert_eq!(summary(log), [row("k", 2, false, true)]);
        assert_eq!(get(log, "k").await, Some(2));
    });
}

#[test]
fn suspended_bucket_replaces_only_the_null_version() {
    let (medium, mut store) = Store::fresh_maintained();
    let log = store.log();
    store.run(async {
        put(&log, "k", 1, 100).await.unwrap();
        set_versioning(&log, Versioning::Enabled).await.unwrap();
        put(&log, "k", 2, 100).await.unwrap();
        set_versioning(&log, Versioning::Suspended).await.unwrap();
        let stored = log.put_version(object_of(&log, "k", 3, 100).await.unwrap(), Lock::default()).await.unwrap();
        assert_eq!(stored, StoredVersion { version: VersionId::Null, versioning: Versioning::Suspended });
        assert_eq!(summary(&log), [row("k", 3, false, true), row("k", 2, false, false)]);
        set_versioning(&log, Versioning::Enabled).await.unwrap();
        put(&log, "k", 4, 100).await.unwrap();
        set_versioning(&log, Versioning::Suspended).await.unwrap();
        let deletion = log.delete_current("bucket", "k", 5, Condition::None).await.unwrap();
        assert_eq!(deletion, Deletion::Marker(VersionId::Null));
        let back = set_versioning(&log, Versioning::Off).await;
        assert!(matches!(back, Err(Error::InvalidBucketState(_))), "{back:?}");
    });
    drop(log);
    everywhere(&medium, store, async |log| {
        assert_eq!(summary(log), [row("k", 5, true, true), row("k", 4, false, false), row("k", 2, false, false)]);
        assert_eq!(get(log, "k").await, None);
    });
}

#[test]
fn conditions_look_at_the_current_version() {
    let (_medium, mut store) = versioned();
    let log = store.log();
    store.run(async {
        let put_if = async |seed, condition| {
            let put = PutObject { condition, ..object_of(&log, "k", seed, 10).await.unwrap() };
            log.put_version(put, Lock::default()).await
        };
        put_if(1, Condition::IfAbsent).await.unwrap();
        assert!(matches!(put_if(2, Condition::IfAbsent).await, Err(Error::ConditionFailed)));
        log.delete_object("bucket", "k", 3, Condition::None).await.unwrap();
        put_if(4, Condition::IfAbsent).await.unwrap();
        let is_one = Condition::IfMatch(etag(1).into());
        assert!(matches!(put_if(5, is_one).await, Err(Error::ConditionFailed)), "noncurrent");
        put_if(6, Condition::IfMatch(etag(4).into())).await.unwrap();
        assert_eq!(versions(&log, 10).len(), 4);
        // A deletion in flight leaves open which version is current.
        let current = versions(&log, 1)[0].version;
        let (deleted, conditional) = futures_util::join!(
            log.delete_version("bucket", "k", current, 1, false),
            put_if(7, Condition::IfMatch(etag(4).into()))
        );
        assert!(deleted.unwrap().existed);
        assert!(matches!(conditional, Err(Error::Conflict) | Ok(_)), "{conditional:?}");
    });
}

#[test]
fn tags_of_a_version_change_in_place() {
    let (medium, mut store) = versioned();
    let log = store.log();
    let first = store.run(async {
        let first = put_version(&log, "k", 1, 100).await.unwrap();
        put_version(&log, "k", 2, 100).await.unwrap();
        for tags in [b"old".to_vec(), b"new".to_vec()] {
            let (object, _) = log.version("bucket", "k", Some(first)).await.unwrap().into_object().unwrap();
            log.set_tags("bucket", "k", object, tags).await.unwrap();
        }
        first
    });
    drop(log);
    everywhere(&medium, store, async |log| {
        assert_eq!(summary(log), [row("k", 2, false, true), row("k", 1, false, false)]);
        let (object, _) = log.version("bucket", "k", Some(first)).await.unwrap().into_object().unwrap();
        assert_eq!((object.tags, object.head), (b"new".to_vec(), b"head of 1".to_vec()));
        assert_eq!(log.object("bucket", "k").await.unwrap().unwrap().tags, b"");
    });
}

#[test]
fn copies_share_bodies_beyond_the_death_of_their_source() {
    let (medium, mut store) = versioned();
    let log = store.log();
    let copy = store.run(async {
        let source = put_version(&log, "k", 2, 1_500_000).await.unwrap();
        let object = log.object("bucket", "k").await.unwrap().unwrap();
        let put =
            PutObject { time_ms: 7, content: Content::Shared(object), ..object_of(&log, "k", 2, 0).await.unwrap() };
        let put = PutObject { size: 1_500_000, ..put };
        let copy = log.put_version(put, Lock::default()).await.unwrap().version;
        assert!(log.delete_version("bucket", "k", source, 8, false).await.unwrap().existed);
        assert_eq!(log.store().usage().bodies, 1);
        copy
    });
    drop(log);
    everywhere(&medium, store, async |log| {
        assert_eq!(get_version(log, "k", copy).await, Some(2));
        assert_eq!(summary(log), [row("k", 7, false, true)]);
    });
}

#[test]
fn imported_versions_keep_their_ids() {
    let (medium, mut store) = versioned();
    let log = store.log();
    let foreign = VersionId::Id([0xcd; 16]);
    let foreign_marker = VersionId::Id([0xce; 16]);
    store.run(async {
        put_version(&log, "k", 1, 100).await.unwrap();
        log.import_version(object_of(&log, "k", 2, 100).await.unwrap(), foreign, Lock::default()).await.unwrap();
        log.import_version(object_of(&log, "k", 3, 100).await.unwrap(), VersionId::Null, Lock::default())
            .await
            .unwrap();
        log.import_marker("bucket", "k", foreign_marker, 4).await.unwrap();
        for version in [foreign, foreign_marker] {
            let put = object_of(&log, "k", 9, 100).await.unwrap();
            let again = log.import_version(put, version, Lock::default()).await;
            assert!(matches!(again, Err(Error::VersionExists)), "{again:?}");
        }
        let own = versions(&log, 10).last().unwrap().version;
        let again = log.import_marker("bucket", "k", own, 9).await;
        assert!(matches!(again, Err(Error::VersionExists)), "{again:?}");
    });
    drop(log);
    everywhere(&medium, store, async |log| {
        assert_eq!(
            summary(log),
            [row("k", 4, true, true), row("k", 3, false, false), row("k", 2, false, false), row("k", 1, false, false)]
        );
        assert_eq!((versions(log, 10)[2].version, versions(log, 10)[0].version), (foreign, foreign_marker));
        assert_eq!(get_version(log, "k", foreign).await, Some(2));
        assert_eq!(get_version(log, "k", VersionId::Null).await, Some(3));
    });
}

#[test]
fn quota_counts_every_version() {
    let (_medium, mut store) = versioned();
    let log = store.log();
    store.run(async {
        let quota = |settings: &mut BucketSettings| {
            settings.quota = Some(250_000);
            Ok::<_, Error>(())
        };
        log.change_bucket("bucket", 1, quota).await.unwrap();
        let first = put_version(&log, "k", 1, 100_000).await.unwrap();
        put_version(&log, "k", 2, 100_000).await.unwrap();
        assert!(matches!(put_version(&log, "k", 3, 100_000).await, Err(Error::QuotaExceeded)));
        // A marker is stored all the same, but frees nothing.
        log.delete_object("bucket", "k", 4, Condition::None).await.unwrap();
        assert!(matches!(put_version(&log, "k", 5, 100_000).await, Err(Error::QuotaExceeded)));
        log.delete_version("bucket", "k", first, 6, false).await.unwrap();
        put_version(&log, "k", 7, 100_000).await.unwrap();
        let usage = &log.store().bucket_usage(1).0[0];
        assert_eq!((usage.objects, usage.noncurrent, usage.markers, usage.noncurrent_bytes), (1, 1, 1, 100_000));
        assert_eq!(usage.bytes, 200_000);
    });
}

#[test]
fn names_beyond_the_index_limit_are_refused_as_versions_too() {
    let medium = new_medium(1);
    format(&medium, CAPACITY).unwrap();
    let index_limits = keyhole_log::IndexLimits { objects: Some(3), ..Default::default() };
    let mut store = Store::maintained(&medium, OpenOptions { index_limits, ..options(1) }).unwrap();
    let log = store.log();
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        set_versioning(&log, Versioning::Enabled).await.unwrap();
        for seed in 1..4 {
            put_version(&log, "k", seed, 10).await.unwrap();
        }
        assert!(matches!(put_version(&log, "k", 4, 10).await, Err(Error::IndexFull)));
        let marker = log.delete_current("bucket", "k", 5, Condition::None).await;
        assert!(matches!(marker, Err(Error::IndexFull)), "{marker:?}");
    });
}

#[test]
fn expiry_puts_markers_and_deletes_noncurrent_versions() {
    let (_medium, mut store) = versioned();
    let log = store.log();
    store.run(async {
        for seed in 1..6 {
            put_version(&log, "k", 10 * seed, 100).await.unwrap();
        }
        put_version(&log, "other", 15, 100).await.unwrap();
        let all = |_: &BucketSettings| Some(|key: &str, time_ms: u64, _: u64| key == "k" && time_ms <= 50);
        assert_eq!(log.expire_by(60, all).await.unwrap(), 1);
        assert_eq!(keys(&log), ["other"]);
        // Noncurrent since before 40, except for the newest two.
        let rule = |_: &BucketSettings| {
            Some(|version: &keyhole_log::NoncurrentVersion<'_>| version.since_ms < 45 && version.newer >= 2)
        };
        assert_eq!(log.expire_noncurrent_by(70, rule).await.unwrap(), 3);
        let left: Vec<_> = versions(&log, 10).into_iter().filter(|v| v.key == "k").map(|v| v.time_ms).collect();
        assert_eq!(left, [60, 50, 40]);
        let lone = |_: &BucketSettings| Some(|_: &str, _: u64| true);
        assert_eq!(log.expire_markers_by(80, lone).await.unwrap(), 0, "the marker hides versions");
        let every = |_: &BucketSettings| Some(|_: &keyhole_log::NoncurrentVersion<'_>| true);
        let mut gone = Vec::new();
        let report = |expired: &Expired<'_>| gone.push((expired.bucket.to_owned(), expired.key.to_owned()));
        assert_eq!(log.expire_noncurrent_reporting(80, every, report).await.unwrap(), 2);
        let report = |expired: &Expired<'_>| gone.push((expired.bucket.to_owned(), expired.key.to_owned()));
        assert_eq!(log.expire_markers_reporting(80, lone, report).await.unwrap(), 1);
        assert_eq!(gone, vec![("bucket".to_owned(), "k".to_owned()); 3], "each deleted version is reported");
        assert_eq!(summary(&log), [row("other", 15, false, true)]);
    });
}

#[test]
fn ring_mode_drops_the_oldest_versions_first() {
    let medium = new_medium(1);
    format(&medium, CAPACITY).unwrap();
    let mut store = Store::maintained(&medium, OpenOptions { ring: true, ..options(1) }).unwrap();
    let log = store.log();
    store.run(async {
        log.create_bucket("bucket", 1).await.unwrap();
        set_versioning(&log, Versioning::Enabled).await.unwrap();
        for seed in 1..120 {
            put_version(&log, &format!("k{}", seed % 3), seed, 1_000_000).await.unwrap();
        }
        let mut times: Vec<_> = versions(&log, 1000).into_iter().map(|version| version.time_ms).collect();
        times.sort_unstable();
        assert!(times.len() > 20 && times.len() < 70, "{}", times.len());
        assert!(times.windows(2).all(|pair| pair[1] == pair[0] + 1) && times.last() == Some(&119), "{times:?}");
    });
}

/// The steps of a script. Each is acknowledged or not; the rest is not begun.
async fn step(log: &Log<SimDisk>, n: u64) -> Result<(), Error> {
    let all = || versions(log, 100);
    match n {
        0 => log.create_bucket("bucket", 1).await.map(drop),
        1 => put(log, "k", 1, 100).await,
        2 => set_versioning(log, Versioning::Enabled).await,
        3 => put(log, "k", 3, 70_000).await,
        4 => log.delete_object("bucket", "k", 4, Condition::None).await.map(drop),
        5 => put(log, "k", 5, 100).await,
        6 => log.delete_version("bucket", "k", all()[2].version, 6, false).await.map(drop),
        7 => set_versioning(log, Versioning::Suspended).await,
        8 => put(log, "k", 8, 100).await,
        9 => log.delete_version("bucket", "k", all()[0].version, 9, false).await.map(drop),
        10 => log.checkpoint().await,
        11 => log.delete_version("bucket", "k", all()[0].version, 11, false).await.map(drop),
        _ => log.checkpoint().await,
    }
}

/// The versions after each step, by their times.
fn after(steps: u64) -> &'static [u64] {
    match steps {
        0 | 1 => &[],
        2 | 3 => &[1],
        4 => &[3, 1],
        5 => &[4, 3, 1],
        6 => &[5, 4, 3, 1],
        7 | 8 => &[5, 4, 1],
        9 => &[8, 5, 4],
        10 | 11 => &[5, 4],
        _ => &[4],
    }
}

/// The process or the machine ends at any write: of the step in flight all is there or nothing, and
/// every acknowledged step is there.
#[test]
fn power_failure_at_any_write_leaves_a_step_whole_or_absent() {
    for (n, crash) in CRASHES.into_iter().enumerate() {
        for durability in [Durability::Always, Durability::Deferred] {
            // Every write is the last one before one of the crashes.
            let mut stop = n as u64;
            loop {
                let medium = new_medium(stop + 1);
                format(&medium, CAPACITY).unwrap();
                let opened = OpenOptions { durability, ..options(1) };
                let mut store = Store::maintained(&medium, opened).unwrap();
                medium.stop_after_changes(Some(stop));
                let log = store.log();
                let done = Rc::new(std::cell::Cell::new(0));
                let count = Rc::clone(&done);
                store.spawn(async move {
                    for n in 0..13 {
                        step(&log, n).await.unwrap();
                        count.set(n + 1);
                    }
                });
                store.run_until_stalled();
                let done = done.get();
                drop(store);
                medium.crash(crash);
                let mut store = Store::maintained(&medium, options(1)).unwrap();
                assert_eq!(store.recovery.damaged, [], "stop after {stop}, {crash:?}");
                let log = store.log();
                let found: Vec<u64> = match log.bucket("bucket") {
                    Some(_) => summary(&log).into_iter().map(|(_, time_ms, ..)| time_ms).collect(),
                    None => Vec::new(),
                };
                let is_lossy = durability == Durability::Deferred;
                let least = if is_lossy { 0 } else { done };
                let legal = (least..=done + 1).any(|steps| found == after(steps));
                assert!(legal, "stop after {stop}, {crash:?}, {durability:?}: {found:?} after {done} steps");
                store.run(async {
                    for info in versions_if_there(&log) {
                        if !info.is_marker {
                            assert_eq!(get_version(&log, "k", info.version).await, Some(info.time_ms));
                        }
                    }
                });
                assert_eq!(log.store().recount(), []);
                drop(log);
                if done == 13 {
                    break;
                }
                stop += CRASHES.len() as u64;
            }
            assert!(stop > 30, "{stop}");
        }
    }
}

fn versions_if_there(log: &Log<SimDisk>) -> Vec<VersionInfo> {
    if log.bucket("bucket").is_some() { versions(log, 100) } else { Vec::new() }
}

/// The damage of one version concerns neither the others nor the order.
#[test]
fn damaged_version_is_reported_and_the_others_stay() {
    for is_orderly in [true, false] {
        let (medium, mut store) = versioned();
        let log = store.log();
        let ids = store.run(async {
            let mut ids = Vec::new();
            for seed in 1..4 {
                ids.push(put_version(&log, "k", seed, 100).await.unwrap());
            }
            // Proves the records before it.
            log.create_bucket("other", 1).await.unwrap();
            ids
        });
        drop(log);
        if is_orderly {
            store.close();
        } else {
            drop(store);
            medium.crash(LOST);
        }
        let at = find(&medium, b"head of 2").unwrap();
        medium.flip(at, 1);
        let mut store = Store::maintained(&medium, options(1)).unwrap();
        // After an orderly shutdown, only a reader meets the damage.
        let named = store.recovery.damaged.iter().filter(|damage| damage.key.as_deref() == Some("k")).count();
        assert_eq!(named, usize::from(!is_orderly), "{:?}", store.recovery.damaged);
        let log = store.log();
        store.run(async {
            assert_eq!(get_version(&log, "k", ids[0]).await, Some(1));
            assert_eq!((get_version(&log, "k", ids[2]).await, get(&log, "k").await), (Some(3), Some(3)));
            let found = log.version("bucket", "k", Some(ids[1])).await;
            if is_orderly {
                let Err(Error::Damaged(damage)) = found else { panic!("{found:?}") };
                assert_eq!((damage.bucket.as_deref(), damage.key.as_deref()), (Some("bucket"), Some("k")));
                assert!(log.version_info("bucket", "k", Some(ids[1])).unwrap().is_some_and(|info| info.time_ms == 2));
                assert!(log.delete_version("bucket", "k", ids[1], 9, false).await.unwrap().existed);
            } else {
                assert!(matches!(found, Ok(FoundVersion::Absent)), "{found:?}");
            }
            assert_eq!(summary(&log), [row("k", 3, false, true), row("k", 1, false, false)]);
        });
        assert_eq!(log.store().recount(), []);
    }
}

#[test]
fn versions_return_without_checkpoints() {
    let (medium, mut store) = versioned();
    let log = store.log();
    let ids = store.run(async {
        let mut ids = Vec::new();
        for seed in 1..8 {
            ids.push(put_version(&log, "k", seed, 40_000).await.unwrap());
        }
        log.set_hold("bucket", "k", Some(ids[0]), true, 1).await.unwrap_err();
        log.checkpoint().await.unwrap();
        log.checkpoint().await.unwrap();
        ids
    });
    drop(log);
    store.close();
    medium.edit(|bytes| {
        // The end records of both checkpoints.
        for copy in [64, 72] {
            let raw = u64::from_le_bytes(bytes[copy..copy + 8].try_into().unwrap());
            let at = (raw >> 17) as usize * 8;
            bytes[at + 90] ^= 1;
        }
    });
    let mut store = Store::open_with(&medium, OpenOptions { rebuild: true, ..options(1) }).unwrap();
    let log = store.log();
    store.run(async {
        for (id, seed) in ids.into_iter().zip(1..) {
            assert_eq!(get_version(&log, "k", id).await, Some(seed));
        }
        assert_eq!(versions(&log, 100).len(), 7);
    });
}
