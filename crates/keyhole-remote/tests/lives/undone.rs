//! Deletions that a power failure undoes after the shipper has seen them.

use std::rc::Rc;
use std::sync::Arc;

use keyhole_log::{Durability, Error, Log, Versioning};
use keyhole_sim::disk::{Crash, SimDisk, Survival};

use crate::end::{catch_up, compare, contents};
use crate::life::{SimShipper, shipper};
use crate::operations::put_sealed;
use crate::session::{alone, make, start};
use crate::world::World;

const BUCKET: &str = "versions";
const KEY: &str = "a";

/// Longest time from the begin of a round to the deletion, in virtual ms.
const DELETION_MS: u64 = 200;

/// Deletes a version while an earlier one of its key is shipped, and lets power fail after the round.
/// Returns whether that undid the deletion.
///
/// # Errors
/// The first difference between the store and the remote in the end.
pub(crate) fn undone_deletion(seed: u64) -> Result<bool, String> {
    let mut world = World::new(seed);
    world.durability = Durability::Deferred;
    world.options.evicts = None;
    world.service.heal();
    let world = Rc::new(world);
    make(&world)?;
    let mut session = start(&world)?;
    let filled = fill(Rc::clone(&world), session.log.clone());
    alone(&mut session.executor, "fill", filled)?.map_err(|error| error.to_string())?;
    let deleted = session.executor.spawn(delete_newest(Rc::clone(&world), session.log.clone()));
    let mut shipper: SimShipper = shipper(&session, &world);
    alone(&mut session.executor, "a round", async move { shipper.round().await })?
        .map_err(|failure| failure.to_string())?;
    let was_deleted = deleted.borrow().is_some();
    session.executor.kill()?;
    drop(session.log);
    world.medium.crash(Crash::Power(Survival::Nothing));

    let mut session = start(&world)?;
    let count = session.log.versions_in_order(BUCKET, None, 10).map_err(|error| error.to_string())?.len();
    let shipper = crate::life::shipper(&session, &world);
    let unused = session.executor.spawn(async {});
    alone(&mut session.executor, "shipping", catch_up(shipper, unused, Rc::clone(&world.clock)))??;
    let contents = contents(session.log.clone(), Arc::clone(&session.reads), Rc::clone(&world));
    let contents = alone(&mut session.executor, "read", contents)?;
    compare(&world, &contents)?;
    session.executor.kill()?;
    Ok(was_deleted && count == 2)
}

async fn fill(world: Rc<World>, log: Log<SimDisk>) -> Result<(), Error> {
    log.create_bucket(BUCKET, 1).await?;
    let enable = |settings: &mut keyhole_log::BucketSettings| {
        settings.versioning = Versioning::Enabled;
        Ok::<(), Error>(())
    };
    log.change_bucket(BUCKET, 1, enable).await?;
    for _ in 0..2 {
        put_sealed(&world, &log, BUCKET, KEY, 100, 1).await?;
    }
    log.flush().await
}

async fn delete_newest(world: Rc<World>, log: Log<SimDisk>) {
    let delay = world.below(DELETION_MS);
    world.clock.sleep(delay).await;
    let newest = log.version_info(BUCKET, KEY, None).unwrap().unwrap();
    log.delete_version(BUCKET, KEY, newest.version, 2, false).await.unwrap();
}
