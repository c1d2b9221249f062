//! The audit after damage: returned data are correct, wrong data are reported, and unaffected data
//! are present.

use std::rc::Rc;

use keyhole_log::{Error, Log, Recovery};

use super::World;
use super::audit_versions::audit_damaged_versions;
use crate::content::{self, Content};
use crate::disk::{Affected, SimDisk};
use crate::model::{BUCKETS, KEYS, upload_id};

/// Audits everything. Panics at anything impossible.
pub async fn audit_damaged(log: Log<SimDisk>, world: Rc<World>, affected: Affected, recovery: Recovery) {
    let mut lost = Vec::new();
    // If one checkpoint is unreadable, the previous one serves as well.
    let said = recovery.damaged.iter().any(|damage| damage.what == "a checkpoint");
    assert!(said || affected.rebuilt || !affected.checkpoint, "a checkpoint: not reported; {affected:?} {recovery:?}");
    for bucket in BUCKETS {
        let found = log.bucket(bucket).map(|bucket| bucket.time_ms);
        let hit = affected.everything || affected.buckets.contains(bucket) || affected.rebuilt;
        let legal = world.model.borrow_mut().bucket(bucket).may_survive(true, |value| *value == found);
        assert!(legal || hit, "bucket {bucket} is {found:?}; {affected:?} {recovery:?}");
        if !legal {
            lost.push(bucket.to_owned());
        }
        for key in KEYS {
            if !look(&log, &world, &affected, (bucket, key), hit).await {
                lost.push(format!("{bucket}/{key}"));
            }
        }
    }
    let uploads = world.model.borrow().uploads.keys().copied().collect::<Vec<_>>();
    let any = affected.uploads || affected.everything || affected.rebuilt;
    for id in uploads.into_iter().filter(|_| !any) {
        let model = world.model.borrow();
        let upload = &model.uploads[&id];
        if affected.buckets.contains(upload.bucket) {
            continue;
        }
        let there = log.upload(upload.bucket, upload.key, &upload_id(id)).is_ok_and(|found| found.is_some());
        assert!(upload.exists.may_survive(true, |value| *value == there), "upload {id}: {there}; {affected:?}");
    }
    audit_damaged_versions(&log, &world).await;
    assert!(lost.is_empty() || !recovery.damaged.is_empty(), "{lost:?} lost without a word; {affected:?}");
}

/// Audits one object; returns false if it has changed.
async fn look(
    log: &Log<SimDisk>,
    world: &World,
    affected: &Affected,
    (bucket, key): (&'static str, &'static str),
    hit: bool,
) -> bool {
    let hit = hit || affected.keys.contains(key);
    let object = match log.object(bucket, key).await {
        Ok(object) => object,
        Err(Error::NoSuchBucket) => None,
        Err(error) => {
            let Error::Damaged(damage) = &error else { panic!("{bucket}/{key}: {error}") };
            let name = (damage.bucket.as_deref(), damage.key.as_deref());
            assert!(hit && name == (Some(bucket), Some(key)), "{bucket}/{key}: {error}; {affected:?}");
            return true;
        }
    };
    let found = object.as_ref().map(|object| world.model.borrow().recognise(object).0);
    let legal = world.model.borrow_mut().key(bucket, key).may_survive(true, |value| *value == found);
    assert!(legal || hit, "{bucket}/{key} is {found:?}; {affected:?}");
    if let Some((object, id)) = object.zip(found) {
        let version = world.model.borrow().versions[&id].clone();
        // No damage may attach another name's object.
        assert_eq!(version.name, (bucket, key), "the object of another name");
        let is_evicted = object.is_evicted;
        let contents = version.contents();
        let may_be = {
            let mut model = world.model.borrow_mut();
            let first = contents.first().copied();
            first.is_none_or(|first| model.eviction(first).may_survive(true, |of| *of == is_evicted))
        };
        let lacks_eviction = affected.evictions.contains(key);
        assert!(may_be || hit || !legal || lacks_eviction, "{bucket}/{key}: evicted: {is_evicted}; {affected:?}");
        if is_evicted {
            content::check_evicted(log, &object).await;
            return legal;
        }
        for (part, piece) in object.parts.iter().zip(&version.pieces) {
            check(log, affected, part, piece.content, legal && !lacks_eviction).await;
        }
    }
    legal
}

/// Checks that the bytes of a body are correct or reported as damaged. `current`: the body belongs
/// to an object that must exist.
async fn check(log: &Log<SimDisk>, affected: &Affected, part: &keyhole_log::Part, content: Content, current: bool) {
    if let Err(error) = content::check(log, part, content).await {
        let hit = affected.contents.contains(&content.id) || affected.rebuilt || !current;
        assert!(matches!(error, Error::Damaged(_)) && hit, "{content:?}: {error}; {affected:?}");
    }
}
