//! One life of a store: it is created, used, crashed, reopened and audited until its operations are
//! done.

mod ending;
mod opening;
mod tally;

use std::cell::{Cell, RefCell};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;

use keyhole_log::{Durability, Log, Store};

pub use tally::Tally;

use crate::disk::{Lie, Medium, SimDisk};
use crate::executor::{Clock, Executor, Stop};
use crate::model::Model;
use crate::plan::{Focus, Plan};
use crate::random::Random;
use crate::work::{Audit, Client, World};

/// Minimum number of crashes in a life, unless it is full of faults.
const CRASHES_MIN: u64 = 2;

/// Maximum number of sessions in a life.
const SESSIONS_MAX: u64 = 24;

/// Percentage of sessions that are to crash during a checkpoint or cleaning, if there is one.
const AIMED: u64 = 50;

/// Disk events between the beginning of that and the crash.
const AIMED_WITHIN: [u64; 4] = [3, 15, 50, 150];

/// An open file and its tasks.
pub(crate) struct Session {
    pub(crate) executor: Executor,
    store: Arc<Store>,
    pub(crate) logs: Vec<Log<SimDisk>>,
    /// Number of running writers.
    writers: Rc<Cell<usize>>,
}

impl Session {
    /// Drops all tasks where they stand, as the death of the process does.
    pub(crate) fn kill(self) -> Result<(), String> {
        let Session { executor, logs, .. } = self;
        let result = executor.kill();
        drop(logs);
        result
    }

    /// Leaks the session after a panic.
    pub(crate) fn forget(self) {
        self.executor.forget();
        std::mem::forget(self.logs);
    }
}

/// The state of a life.
pub(crate) struct Life {
    pub(crate) random: Random,
    pub(crate) world: Rc<World>,
    tally: Tally,
    /// Whether power has failed since the last audit.
    pub(crate) power: bool,
    /// Whether the last process shut down orderly.
    orderly: bool,
    /// Whether recovery has cut a segment.
    cut: bool,
    /// Whether the newest checkpoint was damaged or a sector became bad.
    hurt: bool,
    /// Whether no more places become unwritable.
    ending: bool,
}

/// Settings and sabotage of a life.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setup {
    /// Whether to print events.
    pub trace: bool,
    /// Operations that the disk falsely acknowledges.
    pub lie: Option<Lie>,
    /// The focus of the life.
    pub focus: Option<Focus>,
    /// The defect that is built into the engine.
    #[cfg(feature = "sabotage")]
    pub sabotage: Option<keyhole_log::Sabotage>,
}

/// Runs the life of a seed.
///
/// # Errors
/// A description of the failure.
pub fn life(seed: u64, setup: Setup) -> Result<Tally, String> {
    with_setup(setup, || live(seed, setup))
}

/// Runs a part of the simulation with the defect of the setup; a panic becomes an error.
pub(crate) fn with_setup<T>(setup: Setup, run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    crate::panics::keep();
    #[cfg(feature = "sabotage")]
    keyhole_log::sabotage(setup.sabotage);
    // The checks between processes panic as well.
    let result = std::panic::catch_unwind(AssertUnwindSafe(run));
    #[cfg(feature = "sabotage")]
    keyhole_log::sabotage(None);
    #[cfg(not(feature = "sabotage"))]
    let _ = setup;
    crate::panics::release();
    result.unwrap_or_else(|_| Err(crate::panics::taken()))
}

fn live(seed: u64, setup: Setup) -> Result<Tally, String> {
    let mut random = Random::new(seed);
    let mut plan = Plan::of(&mut random);
    plan.faults.lie = setup.lie;
    if let Some(focus) = setup.focus {
        plan.focus(focus, &mut random);
    }
    let clock = Rc::new(Clock::default());
    let medium = Medium::new(random.fork(), plan.faults.clone());
    let mut model = Model::new();
    model.durable = plan.durability == Durability::Always;
    model.ring = plan.ring;
    let world = Rc::new(World::new(clock, medium, model, plan, setup.trace));
    world.say(|| format!("{:?}", world.plan));
    let mut life = Life::new(random, world);
    life.make()?;
    for _ in 0..SESSIONS_MAX {
        life.session()?;
        if life.world.operations.get() >= life.world.plan.operations_min && life.tally.crashes >= CRASHES_MIN {
            break;
        }
    }
    life.last()?;
    life.tally.operations = life.world.operations.get();
    life.tally.events = life.world.medium.counters().events;
    life.tally.trace = life.random.number() ^ life.world.clock.tick() ^ life.world.clock.now();
    Ok(life.tally)
}

impl Life {
    /// Creates a life that has not begun.
    pub(crate) fn new(random: Random, world: Rc<World>) -> Self {
        let tally = Tally { lives: 1, ..Tally::default() };
        Life { random, world, tally, power: false, orderly: false, cut: false, hurt: false, ending: false }
    }

    /// Returns a copy with a medium and a model of its own. No process may have the store open.
    pub(crate) fn fork(&self, trace: bool) -> Self {
        let world = Rc::new(self.world.fork(trace));
        Life { random: self.random.clone(), world, ..*self }
    }

    /// Opens the store, works until the machine stops or everything is done, and ends.
    fn session(&mut self) -> Result<(), String> {
        let mut session = self.open()?;
        match self.work(&mut session) {
            Ok(()) => self.end(session),
            Err(error) => {
                session.forget();
                Err(error)
            }
        }
    }

    fn work(&mut self, session: &mut Session) -> Result<(), String> {
        self.orderly = false;
        let armed = self.random.chance(90);
        if self.world.plan.read_only && self.random.chance(30) {
            let within = self.world.plan.crash_within;
            self.world.medium.turn_read_only_after(self.random.below(within));
        }
        let within = self.world.plan.crash_within;
        let stop = armed.then(|| self.random.below(within));
        self.world.medium.stop_after(stop);
        let plan = &self.world.plan;
        let clients: Vec<_> = (0..plan.clients)
            .map(|name| {
                let log = session.logs[name as usize % session.logs.len()].clone();
                let client = Client::new(name, log, &self.world, self.random.fork());
                session.executor.spawn(client.run(1 + self.random.below(plan.operations)))
            })
            .collect();
        let aim = self.random.chance(AIMED).then(|| {
            let within = *self.random.pick(&AIMED_WITHIN);
            (self.random.chance(60), self.random.below(within))
        });
        let medium = &self.world.medium;
        let aim = Cell::new(aim);
        let store = &session.store;
        let world = &self.world;
        let livelock = RefCell::new(None);
        let halted = || {
            let now = store.activity();
            if let Some((cleaning, events)) = aim.get()
                && ((cleaning && now.cleaning) || (!cleaning && now.checkpointing))
            {
                medium.stop_after(Some(events));
                aim.set(None);
            }
            let mut livelock = livelock.borrow_mut();
            *livelock = world.watch.livelock(world.work());
            medium.is_dead() || livelock.is_some()
        };
        let done = || clients.iter().all(|client| client.borrow().is_some());
        let stop = session.executor.run(halted, done);
        self.world.watch.clear();
        if let Some(livelock) = livelock.take() {
            return Err(livelock);
        }
        match stop {
            Stop::Done => {}
            Stop::Halted => return Ok(()),
            Stop::Stalled => return Err("clients never end".to_owned()),
            Stop::Panicked(panic) => return Err(panic),
        }
        // Let abandoned requests finish.
        match session.executor.run(|| medium.is_dead(), || false) {
            Stop::Halted => return Ok(()),
            Stop::Panicked(panic) => return Err(panic),
            Stop::Done | Stop::Stalled => {}
        }
        // Data in doubt may reappear after a power failure.
        let is_decided = !session.store.poisoned() && !session.store.activity().in_doubt;
        if self.random.chance(50) && is_decided {
            medium.stop_after(None);
            self.audit(session, Audit::Quiet)?;
        }
        Ok(())
    }

    /// Ends the process: orderly, or because the machine stopped.
    pub(crate) fn end(&mut self, session: Session) -> Result<(), String> {
        let Session { mut executor, store, logs, writers } = session;
        if !self.world.medium.is_dead() {
            drop(logs);
            let medium = &self.world.medium;
            match executor.run(|| medium.is_dead(), || writers.get() == 0) {
                Stop::Done if store.poisoned() => self.tally.failures += 1,
                Stop::Done if store.activity().in_doubt => {}
                Stop::Done => {
                    self.orderly = true;
                    self.tally.orderly += 1;
                    let now = self.world.clock.tick();
                    let mut model = self.world.model.borrow_mut();
                    model.quiesce(now);
                    let now = self.world.clock.tick();
                    model.flushed(now, now);
                }
                Stop::Halted => {}
                Stop::Stalled => return Err("writers do not come to their end".to_owned()),
                Stop::Panicked(panic) => {
                    executor.forget();
                    return Err(panic);
                }
            }
        }
        let done = store.stats().cleaner;
        self.tally.checkpoints += done.checkpoints;
        self.tally.cleaned += done.segments_cleaned;
        self.tally.freed += done.segments_freed;
        self.tally.discarded += done.segments_discarded;
        if self.world.medium.is_dead() {
            self.tally.crashes += 1;
            let activity = store.activity();
            self.tally.in_commit += u64::from(activity.committing);
            self.tally.in_checkpoint += u64::from(activity.checkpointing);
            self.tally.in_cleaning += u64::from(activity.cleaning);
        }
        executor.kill()?;
        self.crash(true);
        Ok(())
    }
}
