//! An audit of the whole store while it is otherwise idle.

use std::collections::{BTreeMap, BTreeSet};

use keyhole_log::{BucketSettings, Error, ListObjects, ListUploads, Listed, ListedUpload, Listing, Log, Object};

use super::World;
use super::audit_versions::audit_versions;
use super::findings::{Audit, AuditFindings, is_damage, take};
use super::settings::created_tags;
use crate::content::{self, Content};
use crate::disk::SimDisk;
use crate::model::{
    BUCKETS, KEYS, Model, Register, VERSIONED, etag, number, object_head, opaque, tags, upload_id, upload_number,
};
use crate::random::Random;

/// Compares the whole store with the model and adopts the findings. Panics at anything impossible.
pub async fn audit(log: Log<SimDisk>, world: std::rc::Rc<World>, how: Audit, mut random: Random) {
    if how == Audit::Quiet {
        let now = world.clock.tick();
        world.model.borrow_mut().quiesce(now);
    } else {
        world.model.borrow_mut().crashed();
    }
    let mismatches = log.store().recount();
    assert!(mismatches.is_empty(), "{how:?}: live bytes: {mismatches:?}");
    let mut found = AuditFindings::default();
    audit_buckets(&log, &world, how, &mut found);
    audit_uploads(&log, &world, how, &mut found).await;
    let newest = world.model.borrow().newest().filter(|_| how == Audit::Quiet && world.plan.ring);
    audit_objects(&log, &world, how, &mut found).await;
    if let Some((bucket, key)) = newest {
        let there = found.objects.get(bucket).is_some_and(|objects| objects.contains_key(key));
        let any = found.objects.values().any(|objects| !objects.is_empty());
        assert!(there || !any, "{bucket}/{key} is the newest of all, and has gone ahead of others");
    }
    let versions = audit_versions(&log, &world, how, &mut found).await;
    if world.plan.ring {
        return; // Objects may disappear during the audit.
    }
    let model = world.model.borrow();
    for bucket in found.objects.keys() {
        let counted = log.bucket_settings(bucket).map(|(_, bytes)| bytes);
        assert_eq!(counted, Some(found.bytes.get(bucket).copied().unwrap_or(0)), "bytes of {bucket}: counted, found");
        check_listings(&log, bucket, &found, &model, &mut random);
    }
    let usage = log.store().usage();
    let objects: usize = found.objects.values().map(BTreeMap::len).sum();
    let counted = (usage.buckets, usage.objects, usage.uploads, usage.bodies);
    let there = (found.objects.len(), objects, found.uploads.len(), found.contents.len());
    let objects = there.1 as u64 + versions.objects;
    let there = (there.0 as u64 + versions.buckets, objects, there.2 as u64, there.3 as u64);
    assert_eq!((usage.noncurrent, usage.markers), (versions.noncurrent, versions.markers), "{how:?}: versions");
    for bucket in VERSIONED.into_iter().filter(|bucket| log.bucket(bucket).is_some()) {
        let counted = log.bucket_settings(bucket).map(|(_, bytes)| bytes);
        assert_eq!(counted, Some(found.bytes.get(bucket).copied().unwrap_or(0)), "bytes of {bucket}");
    }
    let mut evicted = (0, 0);
    for bucket in log.buckets() {
        let all = log.versions_in_order(&bucket.name, None, usize::MAX).expect("the bucket is there");
        for info in all.iter().filter(|info| info.is_evicted) {
            evicted = (evicted.0 + 1, evicted.1 + info.size);
        }
    }
    assert_eq!((usage.evicted, usage.evicted_bytes), evicted, "{how:?}: evicted versions: counted, found");
    assert_eq!(counted, there, "{how:?}: buckets, objects, uploads and bodies: counted, found");
    assert!(usage.allocated <= usage.capacity && usage.live <= usage.allocated, "{usage:?}");
}

fn audit_buckets(log: &Log<SimDisk>, world: &World, how: Audit, found: &mut AuditFindings) {
    let now = world.clock.tick();
    let mut model = world.model.borrow_mut();
    let durable = model.durable;
    let buckets = log.buckets();
    for (name, register) in &mut model.buckets {
        let there = log.bucket(name).map(|bucket| bucket.time_ms);
        assert_eq!(buckets.iter().find(|bucket| bucket.name == *name).map(|bucket| bucket.time_ms), there);
        take(how, now, durable, register, there, || format!("bucket {name}"));
        if there.is_some() {
            found.objects.insert(*name, BTreeMap::new());
        }
    }
    for (name, register) in &mut model.settings {
        // Settings of a missing bucket do not apply to its successor of the same name.
        match log.bucket_settings(name) {
            Some((there, _)) => {
                let created = log.bucket(name).map(|bucket| created_tags(bucket.time_ms)).unwrap_or_default();
                let created = BucketSettings { tags: created.into(), ..BucketSettings::default() };
                // The model knows settings that were never set as the default.
                let unset = BucketSettings::default();
                assert!(there == created || there != unset, "the tags of {name} are lost");
                let there = if there == created { unset } else { there };
                take(how, now, durable, register, there, || format!("settings of {name}"));
            }
            None if how != Audit::Quiet => *register = Register::new(BucketSettings::default()),
            None => {}
        }
    }
    let others = buckets.iter().filter(|bucket| !VERSIONED.contains(&bucket.name.as_str())).count();
    assert_eq!(others, found.objects.len(), "{buckets:?}");
}

async fn audit_uploads(log: &Log<SimDisk>, world: &World, how: Audit, found: &mut AuditFindings) {
    let uploads: Vec<u64> = world.model.borrow().uploads.keys().copied().collect();
    for id in uploads {
        let (bucket, key) = {
            let model = world.model.borrow();
            (model.uploads[&id].bucket, model.uploads[&id].key)
        };
        let reference = match log.upload(bucket, key, &upload_id(id)) {
            Ok(reference) => reference,
            Err(Error::NoSuchBucket) if !found.objects.contains_key(bucket) => None,
            Err(error) => panic!("upload {id}: {error}"),
        };
        {
            let now = world.clock.tick();
            let mut model = world.model.borrow_mut();
            let durable = model.durable;
            if model.ring && reference.is_none() {
                model.vanish_upload(id, now, now);
            } else {
                completed_if_gone(&mut model, id, reference.is_some(), how, now);
            }
            let upload = model.uploads.get_mut(&id).expect("it is in the model");
            take(how, now, durable, &mut upload.exists, reference.is_some(), || format!("upload {id}"));
            if reference.is_none() {
                if how != Audit::Quiet {
                    model.uploads.remove(&id);
                }
                continue;
            }
        }
        let Some(reference) = reference else { continue };
        found.uploads.insert(id);
        let declared = id.is_multiple_of(3).then_some((3, 1));
        let said = (reference.sealed, reference.time_ms, reference.declared);
        let time = world.model.borrow().time(id);
        assert_eq!(said, (id.is_multiple_of(2), time, declared), "upload {id}");
        let what = log.upload_head(&reference).await;
        if has_gone(log, &world.model.borrow(), id) {
            vanished(&mut world.model.borrow_mut(), world.clock.tick(), how, id);
            continue;
        }
        assert!(
            what.as_ref().is_ok_and(|with| with.head == object_head(id) && with.tags == tags(id)),
            "object head of upload {id}: {:?}",
            what.err()
        );
        let parts = log.parts(&reference, 0, 100).expect("the upload is there");
        let attempts = log.part_attempts(&reference).expect("the upload is there");
        for info in &attempts {
            let (part, piece) = world.model.borrow().recognise_part(info);
            let what = log.part_checksums(info).await;
            let bytes = content::check(log, &info.part, piece.content).await;
            if has_gone(log, &world.model.borrow(), id) {
                break;
            }
            let expected = opaque(part, keyhole_log::limits::PART_CHECKSUM_MAX);
            assert!(what.as_ref().is_ok_and(|bytes| *bytes == expected), "info of part {part}: {:?}", what.err());
            let rotten = bytes.as_ref().is_err_and(|error| is_damage(world, how, error, &[piece.content]));
            assert!(bytes.is_ok() || rotten, "bytes of part {part}: {:?}", bytes.err());
            found.contents.insert(piece.content.id);
            // If power failure undid the completion of the upload, it undid the eviction of the object as well.
            if how != Audit::Quiet {
                world.model.borrow_mut().evictions.remove(&piece.content.id);
            }
            *found.bytes.entry(bucket).or_default() += piece.content.len;
        }
        let now = world.clock.tick();
        let mut model = world.model.borrow_mut();
        if has_gone(log, &model, id) {
            vanished(&mut model, now, how, id);
            continue;
        }
        let durable = model.durable;
        for (at, register) in &mut model.uploads.get_mut(&id).expect("it is in the model").parts {
            let there = parts.iter().find(|info| info.number == *at).map(|info| number(&info.etag));
            take(how, now, durable, register, there, || format!("part {at} of upload {id}"));
        }
    }
}

/// Returns whether a ring dropped an upload during the audit.
fn has_gone(log: &Log<SimDisk>, model: &Model, id: u64) -> bool {
    let upload = &model.uploads[&id];
    model.ring && log.upload(upload.bucket, upload.key, &upload_id(id)).is_ok_and(|found| found.is_none())
}

/// Records that a ring dropped an upload.
fn vanished(model: &mut Model, now: u64, how: Audit, id: u64) {
    model.vanish_upload(id, now, now);
    if how != Audit::Quiet {
        model.uploads.remove(&id);
    }
}

/// Infers a completion from a missing upload that cannot have ended otherwise: its object was then
/// written as well.
fn completed_if_gone(model: &mut Model, id: u64, there: bool, how: Audit, now: u64) {
    let Audit::Opened { power } = how else { return };
    let upload = &model.uploads[&id];
    if there {
        return;
    }
    let causes = upload.exists.causes(power, |there| !there);
    let [cause] = causes[..] else { return };
    if upload.completions.iter().any(|(op, _)| *op == cause) {
        let bucket = upload.bucket;
        let key = upload.key;
        model.key(bucket, key).acknowledge(cause, now, true);
    }
}

/// Compares whether an object is evicted with the model.
pub(super) fn audit_eviction(world: &World, how: Audit, object: &Object, contents: &[Content]) {
    let now = world.clock.tick();
    let mut model = world.model.borrow_mut();
    let durable = model.durable;
    let Some(&first) = contents.first() else { return };
    take(how, now, durable, model.eviction(first), object.is_evicted, || format!("eviction of {first:?}"));
}

/// Reads all bytes of an object, or finds none if it is evicted.
pub(super) async fn check_bytes(log: &Log<SimDisk>, object: &Object, contents: &[Content]) -> Result<(), Error> {
    if object.is_evicted {
        content::check_evicted(log, object).await;
        return Ok(());
    }
    content::check_all(log, object, contents).await
}

async fn audit_objects(log: &Log<SimDisk>, world: &World, how: Audit, found: &mut AuditFindings) {
    for (bucket, key) in BUCKETS.iter().flat_map(|bucket| KEYS.iter().map(move |key| (*bucket, *key))) {
        let object = match log.object(bucket, key).await {
            Ok(object) => object,
            Err(Error::NoSuchBucket) if !found.objects.contains_key(bucket) => None,
            Err(Error::Damaged(damage)) => {
                audit_unreadable(log, world, how, found, (bucket, key), &damage);
                continue;
            }
            Err(error) => panic!("{how:?}: {bucket}/{key}: {error}"),
        };
        let mut version = None;
        if let Some(object) = &object {
            let (id, contents, upload) = {
                let model = world.model.borrow();
                let (id, version) = model.recognise(object);
                // One record completes the upload and creates the object, but a change of tags is
                // another record: with deferred syncs, power may have left only that one.
                let alone = model.durable || version.tags.len() == 1;
                (id, version.contents(), version.upload.filter(|_| alone))
            };
            audit_eviction(world, how, object, &contents);
            let bytes = check_bytes(log, object, &contents).await;
            let rotten = bytes.as_ref().is_err_and(|error| is_damage(world, how, error, &contents));
            assert!(bytes.is_ok() || rotten, "{how:?}: bytes of {bucket}/{key}: {:?}", bytes.err());
            found.contents.extend(contents.iter().map(|content| content.id));
            *found.bytes.entry(bucket).or_default() += object.size;
            found.objects.get_mut(bucket).expect("its bucket is there").insert(key, id);
            assert!(upload.is_none_or(|upload| !found.uploads.contains(&upload)), "{bucket}/{key}, and its upload");
            version = Some(id);
        }
        let now = world.clock.tick();
        let mut model = world.model.borrow_mut();
        let durable = model.durable;
        if version.is_none() && model.ring && how != Audit::Quiet && !durable {
            // The ring may have dropped it since the opening, and another power failure can undo that.
            let op = model.number();
            model.key(bucket, key).drop_undurably(op, now);
            continue;
        }
        if version.is_none() && model.ring {
            match how {
                Audit::Quiet => model.vanish(bucket, key, now, now),
                Audit::Opened { .. } => *model.key(bucket, key) = Register::new(None),
            }
        }
        take(how, now, durable, model.key(bucket, key), version, || format!("{bucket}/{key}"));
    }
}

/// Audits an object whose record is unreadable: it is still listed, and all its other properties
/// are known.
fn audit_unreadable(
    log: &Log<SimDisk>,
    world: &World,
    how: Audit,
    found: &mut AuditFindings,
    (bucket, key): (&'static str, &'static str),
    damage: &keyhole_log::Damage,
) {
    let list = ListObjects { prefix: key.to_owned(), limit: 1, ..ListObjects::default() };
    let listing = log.list_objects(bucket, &list).expect("its bucket is there");
    let listed = listing.entries.first().and_then(|entry| match entry {
        Listed::Object { key: listed, etag, .. } if listed == key => Some(number(&etag.digest)),
        _ => None,
    });
    let Some(id) = listed else { panic!("{how:?}: {bucket}/{key}: {damage}, and it is not listed") };
    assert!(world.rot.borrow().versions.contains(&id), "{how:?}: {bucket}/{key} = {id}: {damage}");
    let now = world.clock.tick();
    let mut model = world.model.borrow_mut();
    let size = model.versions[&id].size();
    let contents = model.versions[&id].contents();
    let durable = model.durable;
    found.contents.extend(contents.iter().map(|content| content.id));
    *found.bytes.entry(bucket).or_default() += size;
    found.objects.get_mut(bucket).expect("its bucket is there").insert(key, id);
    take(how, now, durable, model.key(bucket, key), Some(id), || format!("{bucket}/{key}"));
}

/// Computes a listing naively, key by key.
fn listing(of: &BTreeMap<&'static str, u64>, model: &Model, list: &ListObjects) -> Listing {
    // The common prefix of a key, if it has one.
    let common = |key: &str| {
        let with = list.delimiter.as_deref().filter(|with| !with.is_empty())?;
        let at = key.strip_prefix(list.prefix.as_str())?.find(with)?;
        Some(key[..list.prefix.len() + at + with.len()].to_owned())
    };
    let is_before = |key: &str| {
        let Some(after) = list.after.as_deref() else { return false };
        key <= after || (common(after).as_deref() == Some(after) && key.starts_with(after))
    };
    let mut entries: Vec<Listed> = Vec::new();
    for (key, id) in of.iter().filter(|(key, _)| key.starts_with(&list.prefix) && !is_before(key)) {
        let entry = match common(key) {
            Some(prefix) => Listed::Prefix(prefix),
            None => {
                let version = &model.versions[id];
                let size = version.size();
                let etag = etag(*id, version.parts);
                let sealed = version.sealed;
                Listed::Object { key: (*key).to_owned(), size, time_ms: model.time(*id), etag, sealed }
            }
        };
        if entries.last() != Some(&entry) {
            entries.push(entry);
        }
    }
    let truncated = entries.len() > list.limit;
    entries.truncate(list.limit);
    Listing { entries, truncated }
}

fn check_listings(log: &Log<SimDisk>, bucket: &str, found: &AuditFindings, model: &Model, random: &mut Random) {
    for _ in 0..6 {
        let list = ListObjects {
            prefix: random.pick(&["", "", "a", "a/", "b/", "x"]).to_string(),
            delimiter: random.pick(&[None, Some("/"), Some("b"), Some("")]).map(str::to_owned),
            after: random
                .pick(&[None, None, Some("a/"), Some("a/b"), Some("b/"), Some("b"), Some("ä")])
                .map(str::to_owned),
            limit: *random.pick(&[1, 2, 3, 100]),
        };
        let expected = listing(&found.objects[bucket], model, &list);
        assert_eq!(log.list_objects(bucket, &list).ok(), Some(expected), "{list:?}");
    }
    let list = ListUploads { limit: 1000, ..ListUploads::default() };
    let listed = log.list_uploads(bucket, &list).expect("the bucket is there");
    let listed: BTreeSet<u64> = listed
        .entries
        .iter()
        .map(|entry| match entry {
            ListedUpload::Upload(upload) => upload_number(&upload.id),
            ListedUpload::Prefix(prefix) => panic!("{prefix} without a delimiter"),
        })
        .collect();
    let there = found.uploads.iter().copied().filter(|id| model.uploads[id].bucket == bucket).collect();
    assert_eq!(listed, there, "uploads of {bucket}");
}
