//! The audit of versions, delete markers, locks and the lock clock.

use std::collections::BTreeMap;

use keyhole_log::{Error, FoundVersion, Log, VersionInfo};

use super::World;
use super::audit::{audit_eviction, check_bytes};
use super::findings::{Audit, AuditFindings, is_damage, take};
use super::versions::{check_object, check_order, list};
use crate::disk::SimDisk;
use crate::model::{Register, VERSIONED};

/// Numbers of the versions found.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct VersionCounts {
    pub(super) buckets: u64,
    pub(super) objects: u64,
    pub(super) noncurrent: u64,
    pub(super) markers: u64,
}

/// Compares all versions with the model and adopts the findings.
pub(super) async fn audit_versions(
    log: &Log<SimDisk>,
    world: &World,
    how: Audit,
    found: &mut AuditFindings,
) -> VersionCounts {
    // A ring may have dropped versions by a clock that was higher than the one found now.
    let clock_ms = world.model.borrow().history.clock.now_ms;
    if how != Audit::Quiet {
        world.model.borrow_mut().history.clock.opened(log.store().lock_clock_ms());
    }
    let mut counts = VersionCounts::default();
    let mut all = BTreeMap::new();
    for bucket in VERSIONED.into_iter().filter(|bucket| log.bucket(bucket).is_some()) {
        counts.buckets += 1;
        let listed = list(log, bucket);
        check_order(&mut world.model.borrow_mut(), &listed);
        for info in listed {
            counts.markers += u64::from(info.is_marker);
            counts.objects += u64::from(!info.is_marker && info.is_latest);
            counts.noncurrent += u64::from(!info.is_marker && !info.is_latest);
            let current = log.object(bucket, &info.key).await;
            if info.is_latest && !world.plan.ring {
                let current = current.as_ref().map(|object| object.as_ref().map(|object| object.time_ms));
                let expected = (!info.is_marker).then_some(info.time_ms);
                let fits =
                    current.as_ref().is_ok_and(|found| *found == expected) || matches!(current, Err(Error::Damaged(_)));
                assert!(fits, "{how:?}: {info:?} is current, found {current:?}");
            }
            all.insert(info.time_ms, (bucket, info));
        }
    }
    for (bucket, info) in all.values() {
        audit_contents(log, world, how, found, bucket, info).await;
    }
    let now = world.clock.tick();
    let mut model = world.model.borrow_mut();
    let durable = model.durable;
    let is_ring = model.ring;
    let versions: Vec<u64> = model.history.written.keys().copied().collect();
    for version in versions {
        let info = all.get(&version).map(|(_, info)| info);
        if info.is_none() && how == Audit::Quiet {
            model.vanish_version(version, now, now);
        }
        let op = if is_ring && !durable { model.number() } else { 0 };
        let written = model.history.written.get_mut(&version).expect("it was written");
        if let Audit::Opened { power } = how
            && info.is_none()
            && is_ring
            && written.may_survive_free(power, clock_ms)
        {
            if !durable {
                written.exists.drop_undurably(op, now);
                continue;
            }
            written.exists = Register::new(false);
        }
        take(how, now, durable, &mut written.exists, info.is_some(), || format!("version {version}"));
        let Some(info) = info else { continue };
        take(how, now, durable, &mut written.hold, info.lock.hold, || format!("hold of version {version}"));
        let retention = info.lock.retention;
        take(how, now, durable, &mut written.retention, retention, || format!("retention of version {version}"));
    }
    counts
}

/// Reads a version and all its bytes.
async fn audit_contents(
    log: &Log<SimDisk>,
    world: &World,
    how: Audit,
    found: &mut AuditFindings,
    bucket: &'static str,
    info: &VersionInfo,
) {
    let version = info.time_ms;
    let contents = world.model.borrow().history.written[&version].content.map(|content| [content]);
    if let Some([content]) = contents {
        found.contents.insert(content.id);
        *found.bytes.entry(bucket).or_default() += content.len;
    }
    match log.version(bucket, &info.key, Some(info.version)).await {
        Ok(FoundVersion::Object(object, _)) => {
            check_object(&world.model.borrow().history.written[&version], version, &object);
            let contents = contents.expect("it is an object");
            assert_eq!(object.is_evicted, info.is_evicted, "{info:?}");
            audit_eviction(world, how, &object, &contents);
            let bytes = check_bytes(log, &object, &contents).await;
            let rotten = bytes.as_ref().is_err_and(|error| is_damage(world, how, error, &contents));
            assert!(bytes.is_ok() || rotten, "{how:?}: bytes of version {version}: {:?}", bytes.err());
        }
        Ok(FoundVersion::Marker(marker)) => {
            assert_eq!(marker.time_ms, version, "{info:?}");
            // A ring may have dropped the newer versions since they were listed.
            let is_latest = info.is_latest || (world.plan.ring && marker.is_latest);
            assert_eq!(marker.is_latest, is_latest, "{info:?}");
        }
        Ok(FoundVersion::Long { .. }) => unreachable!("there is no limit"),
        // A ring drops versions at any time.
        Ok(FoundVersion::Absent) => assert!(world.plan.ring, "{how:?}: {info:?} is listed, and absent"),
        Err(Error::Damaged(damage)) => {
            assert!(world.rot.borrow().versions.contains(&version), "{how:?}: {info:?}: {damage}");
        }
        Err(error) => panic!("{how:?}: {info:?}: {error}"),
    }
}

/// Reads every version of a damaged store: what can be read must be right.
pub(super) async fn audit_damaged_versions(log: &Log<SimDisk>, world: &World) {
    for bucket in VERSIONED.into_iter().filter(|bucket| log.bucket(bucket).is_some()) {
        for info in list(log, bucket) {
            let found = log.version(bucket, &info.key, Some(info.version)).await;
            let object = match found {
                Ok(FoundVersion::Object(object, _)) => object,
                Ok(FoundVersion::Marker(_)) | Err(Error::Damaged(_)) => continue,
                other => panic!("{info:?}: {other:?}"),
            };
            let content = {
                let model = world.model.borrow();
                let Some(written) = model.history.written.get(&object.time_ms) else {
                    panic!("a version that was never written: {object:?}");
                };
                check_object(written, object.time_ms, &object);
                assert_eq!(written.name, (bucket, info.key.as_str()), "the object of another name");
                written.content.expect("it is an object")
            };
            if let Err(error) = check_bytes(log, &object, &[content]).await {
                assert!(matches!(error, Error::Damaged(_)), "{info:?}: {error}");
            }
        }
    }
}
