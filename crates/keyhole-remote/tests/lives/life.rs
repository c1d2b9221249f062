//! One life: a store that is written, killed and reopened while its remote is kept up to date, and in the
//! end restored from it.

use std::rc::Rc;
use std::sync::Arc;

use keyhole_log::reader;
use keyhole_remote::Shipper;
use keyhole_sim::disk::SimDisk;

use crate::end::finish;
use crate::operations::use_store;
use crate::restore::restore;
use crate::service::SimService;
use crate::session::{Session, make, start};
use crate::tally::Tally;
use crate::world::{SimEnv, World};

/// Sessions of a life: all but the last end with a crash.
const SESSIONS_MAX: u64 = 5;

pub(crate) type SimShipper = Shipper<SimDisk, SimService, SimEnv>;

/// Runs the life of a seed.
///
/// # Errors
/// The first difference, or the event that stopped the life.
pub(crate) fn life(seed: u64) -> Result<Tally, String> {
    let world = Rc::new(World::new(seed));
    let mut tally = Tally::default();
    make(&world)?;
    let sessions = world.below(SESSIONS_MAX);
    for _ in 0..sessions {
        let mut session = start(&world)?;
        let fuse = world.below(600);
        world.medium.stop_after(Some(fuse));
        let used =
            session.executor.spawn(use_store(Rc::clone(&world), session.log.clone(), Arc::clone(&session.reads)));
        ship(&mut session, &world);
        session.run_to_crash(&world, &used)?;
        tally.crashes += 1;
    }
    let contents = finish(&world, &mut tally)?;
    restore(&world, &contents, &mut tally)?;
    let bucket = world.service.bucket.borrow();
    Ok(Tally { outages: bucket.outages, lost: bucket.lost, stale_reads: bucket.stale_reads, ..tally })
}

pub(crate) fn shipper(session: &Session, world: &Rc<World>) -> SimShipper {
    let disk = Rc::new(SimDisk::new(&world.medium, &world.clock));
    let env = SimEnv { world: Rc::clone(world), log: session.log.clone(), reads: Arc::clone(&session.reads) };
    let log = reader(Arc::clone(&session.store), disk);
    let progress = world.progress.borrow().clone();
    Shipper::new(log, world.service.clone(), env, world.options.clone(), progress)
}

fn ship(session: &mut Session, world: &Rc<World>) {
    let shipper = shipper(session, world);
    session.executor.spawn(shipper.run());
}
