//! The end of a life without faults: the remote must be equal to the store.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use keyhole_log::{BucketInfo, Log, VersionId, VersionInfo};
use keyhole_remote::limits::COMPARE_AGAIN_MS;
use keyhole_remote::{EntryPlace, Names, ObjectFields, entry_name};
use keyhole_sim::disk::SimDisk;
use keyhole_sim::executor::Clock;

use crate::life::{SimShipper, shipper};
use crate::operations::use_store;
use crate::reads::{SimReads, read};
use crate::service::{REFUSED, STALE_MAX_MS};
use crate::session::{alone, start};
use crate::tally::Tally;
use crate::world::World;

/// Buckets and versions, by their names in a remote.
pub(crate) type Contents = BTreeMap<String, Held>;

/// A version or a bucket of a store.
pub(crate) struct Held {
    /// The number of a version in its store.
    pub(crate) number: Option<u64>,
    pub(crate) bytes: Vec<u8>,
    /// Everything else that a restored store must have.
    pub(crate) about: String,
}

/// Ships without faults until nothing is owed, and compares the remote with the store.
/// Returns their contents.
pub(crate) fn finish(world: &Rc<World>, tally: &mut Tally) -> Result<Contents, String> {
    let mut session = start(world)?;
    world.service.heal();
    world.is_healed.set(true);
    let mut shipper = shipper(&session, world);
    // The second time, the comparisons after the start are over.
    for _ in 0..2 {
        let used = use_store(Rc::clone(world), session.log.clone(), Arc::clone(&session.reads));
        let used = session.executor.spawn(used);
        let caught_up = catch_up(shipper, used, Rc::clone(&world.clock));
        shipper = alone(&mut session.executor, "shipping", caught_up)??;
    }
    // Reads are not stale any more afterwards.
    let clock = Rc::clone(&world.clock);
    alone(&mut session.executor, "wait", async move { clock.sleep(STALE_MAX_MS).await })?;
    let (log, reads) = (session.log.clone(), Arc::clone(&session.reads));
    let contents = alone(&mut session.executor, "read", contents(log, reads, Rc::clone(world)))?;
    tally.versions = contents.len() as u64;
    tally.evicted = world.evicted.get();
    (tally.read, tally.unread) = (world.read.get(), world.unread.get());
    tally.deleted = world.report.borrow().deleted;
    compare(world, &contents)?;
    session.executor.kill()?;
    Ok(contents)
}

/// Ships until the store is not used any more, nothing is owed and no comparison is due.
pub(crate) async fn catch_up(
    mut shipper: SimShipper,
    used: Rc<RefCell<Option<()>>>,
    clock: Rc<Clock>,
) -> Result<SimShipper, String> {
    let mut waited = false;
    loop {
        let was_used = used.borrow().is_some();
        match shipper.round().await {
            Ok(true) if waited => return Ok(shipper),
            Ok(true) if was_used => {
                clock.sleep(COMPARE_AGAIN_MS).await;
                waited = true;
            }
            Ok(true) => clock.sleep(500).await,
            Ok(false) => {}
            Err(failure) => return Err(failure.to_string()),
        }
    }
}

/// Returns everything in a store, except for the key that services refuse.
pub(crate) async fn contents(log: Log<SimDisk>, reads: Arc<SimReads>, world: Rc<World>) -> Contents {
    let names = Names::new(0);
    let mut contents = Contents::new();
    for BucketInfo { name: bucket, time_ms } in log.buckets() {
        let versions = log.versions_in_order(&bucket, None, 1000).unwrap();
        let mut places = BTreeMap::<String, usize>::new();
        for info in versions.into_iter().filter(|info| info.key != REFUSED) {
            let place = places.entry(info.key.clone()).or_default();
            *place += 1;
            let about = VersionInfo { seq: 0, is_evicted: false, ..info.clone() };
            let mut about = format!("version {place}: {about:?}");
            let is_plain = info.version == VersionId::Null && !info.is_marker;
            let name = names.object(&bucket, &info.key, (!is_plain).then_some(info.version));
            let mut bytes = Vec::new();
            if !info.is_marker {
                let found = log.version(&bucket, &info.key, Some(info.version)).await.unwrap();
                let (object, _) = found.into_object().unwrap();
                about = format!("{about} {:?} {:?}", object.head, object.tags);
                bytes = read(&log, &reads, &bucket, &info.key, &object).await.unwrap();
                let file = info.is_evicted.then(|| world.files.borrow()[&info.etag.digest].clone());
                assert!(file.is_none_or(|file| file == bytes), "{name} is evicted and has other bytes");
            }
            let held = Held { number: Some(info.seq), bytes, about };
            assert!(contents.insert(name.clone(), held).is_none(), "{name}");
        }
        let (settings, _) = log.bucket_settings(&bucket).unwrap();
        let about = format!("created {time_ms}, {settings:?}");
        contents.insert(names.bucket(&bucket), Held { number: None, bytes: Vec::new(), about });
    }
    contents
}

/// Compares the remote with the contents of a store.
pub(crate) fn compare(world: &World, expected: &Contents) -> Result<(), String> {
    let bucket = world.service.bucket.borrow();
    for (name, Held { number, bytes, .. }) in expected {
        let Some((fields, stored)) = bucket.objects.get(name) else {
            return Err(format!("{name} is not in the remote"));
        };
        let fields = ObjectFields::decode(fields).ok_or_else(|| format!("{name} has no metadata"))?;
        if let Some(number) = number
            && (fields.number != *number || stored != bytes)
        {
            return Err(format!("{name} is version {} in the remote and {number} in the store", fields.number));
        }
        if matches!(fields.entry, Some(EntryPlace::Beside(_))) && !bucket.objects.contains_key(&entry_name(name)) {
            return Err(format!("{name} has no description in the remote"));
        }
    }
    for name in bucket.objects.keys().filter(|name| name.contains('/') && !expected.contains_key(*name)) {
        let of = name.replacen("/.entries/", "/", 1);
        if entry_name(&of) != *name || !expected.contains_key(&of) {
            return Err(format!("{name} is in the remote and not in the store"));
        }
    }
    Ok(())
}
