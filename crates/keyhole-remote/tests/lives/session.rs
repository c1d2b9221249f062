//! An open store of a life.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use keyhole_log::limits::SEGMENT_LEN_MIN;
use keyhole_log::{Format, Log, OpenOptions, Store, create, maintenance, open, worker};
use keyhole_sim::disk::{Crash, SimDisk};
use keyhole_sim::executor::{Executor, Stop};

use crate::reads::SimReads;
use crate::tally::say;
use crate::world::World;

/// An open store and its tasks.
pub(crate) struct Session {
    pub(crate) executor: Executor,
    pub(crate) log: Log<SimDisk>,
    pub(crate) store: Arc<Store>,
    pub(crate) reads: Arc<SimReads>,
}

impl Session {
    /// Runs until the task has ended or the machine stops, and crashes.
    pub(crate) fn run_to_crash<T>(mut self, world: &World, task: &RefCell<Option<T>>) -> Result<(), String> {
        match self.executor.run(|| world.medium.is_dead(), || task.borrow().is_some()) {
            Stop::Done | Stop::Halted => {}
            stop => return Err(format!("{stop:?}")),
        }
        world.medium.stop_after(None);
        self.executor.kill()?;
        drop(self.log);
        let how = Crash::of(&mut world.random.borrow_mut());
        say(|| format!("crash: {how:?}, confirmed {}", world.progress.borrow().confirmed));
        world.medium.crash(how);
        Ok(())
    }
}

fn executor(world: &World) -> Executor {
    Executor::new(Rc::clone(&world.clock), world.random.borrow_mut().fork())
}

/// Runs one task to its end.
pub(crate) fn alone<T: 'static>(
    executor: &mut Executor,
    what: &str,
    task: impl Future<Output = T> + 'static,
) -> Result<T, String> {
    let result = executor.spawn(task);
    let stop = executor.run(|| false, || result.borrow().is_some());
    let taken = result.borrow_mut().take();
    taken.ok_or_else(|| format!("{what}: {stop:?}"))
}

/// Creates the store.
pub(crate) fn make(world: &World) -> Result<(), String> {
    let disk = SimDisk::new(&world.medium, &world.clock);
    let format = Format { store_id: world.store_id, capacity: 64 << 20, segment_len: SEGMENT_LEN_MIN, created_ms: 1 };
    let made = alone(&mut executor(world), "create", async move { create(&disk, &format).await })?;
    made.map_err(|error| format!("create: {error}"))
}

/// Opens the store, and starts its tasks.
pub(crate) fn start(world: &Rc<World>) -> Result<Session, String> {
    let mut executor = executor(world);
    let disk = SimDisk::new(&world.medium, &world.clock);
    let nonce = world.random.borrow_mut().number() as u32;
    let options = OpenOptions { durability: world.durability, workers: 1, nonce, ..OpenOptions::default() };
    let opened = alone(&mut executor, "open", async move { open(&disk, options).await })?;
    let (store, _) = opened.map_err(|error| format!("open: {error}"))?;
    say(|| format!("recovered through {}, settled {}", store.recovered_through(), store.settled()));
    store.track_removals(world.removals);
    let disk = || Rc::new(SimDisk::new(&world.medium, &world.clock));
    let (log, writer) = worker(Arc::clone(&store), disk());
    executor.spawn(writer.run());
    let (maintenance, writer) = maintenance(Arc::clone(&store), disk());
    executor.spawn(maintenance.run());
    executor.spawn(writer.run());
    let reads = SimReads::start(&mut executor, world.service.clone(), world.store_id);
    Ok(Session { executor, log, store, reads })
}
