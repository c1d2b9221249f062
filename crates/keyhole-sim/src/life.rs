//! One life of a store: it is made, used, crashed, opened, looked at, and used again, until its operations are done.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use keyhole_log::{Error, Log, Recovery, Shared, Sync, create, maintenance, open, worker};

use futures_util::future::LocalBoxFuture;

use crate::disk::{Crash, Faults, Lie, Medium, SimDisk, Survival};
use crate::executor::{Clock, Executor, Stop};
use crate::model::Model;
use crate::plan::Plan;
use crate::random::Random;
use crate::work::{Audit, Client, World, audit, audit_damaged};

/// Operations and crashes that a life has at least, unless it is full of faults.
const OPERATIONS_MIN: u64 = 200;
const CRASHES_MIN: u64 = 2;

/// Times that a life is opened to be used, at most.
const SESSIONS_MAX: u64 = 24;

/// Attempts to open a file on a medium that fails, before the faults are taken away.
const ATTEMPTS_MAX: u64 = 5;

/// What lives have come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Lives.
    pub lives: u64,
    /// Operations of clients.
    pub operations: u64,
    /// Events of disks.
    pub events: u64,
    /// Times that a file was opened.
    pub openings: u64,
    /// Crashes.
    pub crashes: u64,
    /// Crashes while the file was opened.
    pub in_recovery: u64,
    /// Crashes while something was written.
    pub in_commit: u64,
    /// Crashes while a checkpoint was made.
    pub in_checkpoint: u64,
    /// Crashes while segments were cleaned.
    pub in_cleaning: u64,
    /// Processes that ended because the disk had failed.
    pub failures: u64,
    /// Processes that ended in order.
    pub orderly: u64,
    /// Lives at whose end something was damaged.
    pub damaged: u64,
    /// A number that follows from everything that happened: the same seed gives the same.
    pub trace: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.lives += other.lives;
        self.operations += other.operations;
        self.events += other.events;
        self.openings += other.openings;
        self.crashes += other.crashes;
        self.in_recovery += other.in_recovery;
        self.in_commit += other.in_commit;
        self.in_checkpoint += other.in_checkpoint;
        self.in_cleaning += other.in_cleaning;
        self.failures += other.failures;
        self.orderly += other.orderly;
        self.damaged += other.damaged;
        self.trace = self.trace.wrapping_mul(31).wrapping_add(other.trace);
    }
}

/// A file that is open, and what works with it.
struct Session {
    executor: Executor,
    shared: Arc<Shared>,
    logs: Vec<Log<SimDisk>>,
    /// Writers that have not come to their end.
    writers: Rc<Cell<usize>>,
}

/// One life.
struct Life {
    random: Random,
    world: Rc<World>,
    tally: Tally,
    /// Power has failed since everything was last looked at.
    power: bool,
    /// The last process has ended in order.
    orderly: bool,
    /// A segment has been cut.
    cut: bool,
    setup: Setup,
}

/// What is changed in a life, to see that it is noticed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setup {
    /// Whether to print what happens.
    pub trace: bool,
    /// What the disk does not do.
    pub lie: Option<Lie>,
    /// Done with the engine each time that it is open: the place to sabotage it.
    pub opened: Option<fn(&Shared)>,
}

/// Lives the life of a seed.
///
/// # Errors
/// What went wrong.
pub fn life(seed: u64, setup: Setup) -> Result<Tally, String> {
    crate::panics::keep();
    let mut random = Random::new(seed);
    let mut plan = Plan::of(&mut random);
    plan.faults.lie = setup.lie;
    let clock = Rc::new(Clock::default());
    let medium = Medium::new(&clock, random.fork(), plan.faults.clone());
    let mut model = Model::new();
    model.durable = plan.sync == Sync::Always;
    let model = RefCell::new(model);
    let world = Rc::new(World { clock, medium, model, plan, operations: Cell::new(0), trace: setup.trace });
    world.say(|| format!("{:?}", world.plan));
    let tally = Tally { lives: 1, ..Tally::default() };
    let mut life = Life { random, world, tally, power: false, orderly: false, cut: false, setup };
    life.make()?;
    for _ in 0..SESSIONS_MAX {
        life.session()?;
        if life.world.operations.get() >= OPERATIONS_MIN && life.tally.crashes >= CRASHES_MIN {
            break;
        }
    }
    life.last()?;
    life.tally.operations = life.world.operations.get();
    life.tally.events = life.world.medium.happened().events;
    life.tally.trace = life.random.number() ^ life.world.clock.tick() ^ life.world.clock.now();
    Ok(life.tally)
}

impl Life {
    fn executor(&mut self) -> Executor {
        Executor::new(Rc::clone(&self.world.clock), self.random.fork())
    }

    /// Runs a task by itself to its end; `None`: the machine stopped.
    fn alone<T: 'static>(
        &mut self,
        executor: &mut Executor,
        what: &str,
        task: impl Future<Output = T> + 'static,
    ) -> Result<Option<T>, String> {
        let result = executor.spawn(task);
        let medium = &self.world.medium;
        match executor.run(|| medium.is_dead(), || result.borrow().is_some()) {
            Stop::Done => Ok(result.borrow_mut().take()),
            Stop::Halted => Ok(None),
            Stop::Stalled => Err(format!("{what} waits for ever")),
            Stop::Panicked(panic) => Err(format!("{what}: {panic}")),
        }
    }

    /// Makes the file, without faults: whoever makes one starts anew if it fails.
    fn make(&mut self) -> Result<(), String> {
        let faults = self.world.medium.set_faults(Faults::none());
        let (disk, format) = (SimDisk::new(&self.world.medium), self.world.plan.format());
        let mut executor = self.executor();
        let made = self.alone(&mut executor, "create", async move { create(&disk, &format).await })?;
        executor.kill()?;
        self.world.medium.set_faults(faults);
        match made {
            Some(Ok(())) => Ok(()),
            other => Err(format!("create: {other:?}")),
        }
    }

    /// The machine stops, or the process does.
    fn crash(&mut self, may_be_process: bool) {
        let how = Crash::of(&mut self.random);
        let how = if how == Crash::Process && (!may_be_process || self.world.medium.must_lose_power()) {
            Crash::power(&mut self.random, &[Survival::Nothing, Survival::Mixed, Survival::Writes])
        } else {
            how
        };
        self.world.say(|| format!("crash: {how:?}"));
        self.power |= how != Crash::Process;
        self.world.medium.crash(how);
    }

    /// Opens the file, through crashes and failures of the medium.
    fn open(&mut self) -> Result<Session, String> {
        let mut attempt = 0;
        let (executor, shared, recovery) = loop {
            attempt += 1;
            let quiet = attempt > ATTEMPTS_MAX;
            let faults = quiet.then(|| self.world.medium.set_faults(Faults::none()));
            let armed = !quiet && self.random.chance(25);
            let events = *self.random.pick(&[5, 30, 80]);
            let stop = armed.then(|| self.random.below(events));
            self.world.medium.stop_after(stop);
            let before = self.world.medium.happened();
            let (disk, options) = (SimDisk::new(&self.world.medium), self.world.plan.options());
            let mut executor = self.executor();
            let answer = self.alone(&mut executor, "open", async move { open(&disk, options).await });
            self.world.medium.stop_after(None);
            if let Some(faults) = faults {
                self.world.medium.set_faults(faults);
            }
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => {
                    executor.forget();
                    return Err(error);
                }
            };
            self.tally.openings += 1;
            match answer {
                Some(Ok((shared, recovery))) => break (executor, shared, recovery),
                Some(Err(error)) => {
                    let after = self.world.medium.happened();
                    let failed = after.reads_failed > before.reads_failed || after.failed > 0;
                    let legal = match &error {
                        Error::Io(_) => failed,
                        Error::Full => after.full > before.full,
                        _ => false,
                    };
                    if !legal {
                        executor.forget();
                        return Err(format!("open: {error}"));
                    }
                    self.world.say(|| format!("open: {error}"));
                }
                None => {
                    self.tally.crashes += 1;
                    self.tally.in_recovery += 1;
                }
            }
            executor.kill()?;
            self.crash(true);
            self.orderly = false;
        };
        self.world.say(|| format!("open: {recovery:?}"));
        self.judge(&recovery)?;
        if let Some(opened) = self.setup.opened {
            opened(&shared);
        }
        let (writers, mut executor, mut logs) = (Rc::new(Cell::new(0)), executor, Vec::new());
        for _ in 0..self.world.plan.workers {
            let (log, writer) = worker(Arc::clone(&shared), Rc::new(SimDisk::new(&self.world.medium)));
            writers.set(writers.get() + 1);
            let writers = Rc::clone(&writers);
            executor.spawn(async move {
                writer.run().await;
                writers.set(writers.get() - 1);
            });
            logs.push(log);
        }
        if self.world.plan.maintained {
            let (maintenance, writer) = maintenance(Arc::clone(&shared), Rc::new(SimDisk::new(&self.world.medium)));
            for task in [Box::pin(maintenance.run()) as LocalBoxFuture<'static, ()>, Box::pin(writer.run())] {
                writers.set(writers.get() + 1);
                let writers = Rc::clone(&writers);
                executor.spawn(async move {
                    task.await;
                    writers.set(writers.get() - 1);
                });
            }
        }
        let mut session = Session { executor, shared, logs, writers };
        let how = Audit::Opened { power: self.power };
        self.audit(&mut session, how).map_err(|error| format!("{error}, after {recovery:?}"))?;
        self.power = false;
        Ok(session)
    }

    fn judge(&mut self, recovery: &Recovery) -> Result<(), String> {
        if !recovery.damaged.is_empty() {
            return Err(format!("damage, but nothing was damaged: {:?}", recovery.damaged));
        }
        // The second page of a batch that was cut stays behind the mark, and is reported once more at each opening.
        self.cut |= recovery.cut > 0 && !self.orderly;
        if self.orderly && recovery.cut > 0 && !self.cut {
            return Err(format!("{} segments cut after an orderly end", recovery.cut));
        }
        Ok(())
    }

    /// Looks at everything, without faults.
    fn audit(&mut self, session: &mut Session, how: Audit) -> Result<(), String> {
        let faults = self.world.medium.set_faults(Faults { slowness: 1, ..Faults::none() });
        let task = audit(session.logs[0].clone(), Rc::clone(&self.world), how, self.random.fork());
        let looked = self.alone(&mut session.executor, "audit", task);
        self.world.medium.set_faults(faults);
        looked.map(|_| ())
    }

    /// Opens, works until the machine stops or all is done, and ends.
    fn session(&mut self) -> Result<(), String> {
        let mut session = self.open()?;
        match self.work(&mut session) {
            Ok(()) => self.end(session),
            Err(error) => {
                let Session { executor, logs, .. } = session;
                executor.forget();
                std::mem::forget(logs);
                Err(error)
            }
        }
    }

    fn work(&mut self, session: &mut Session) -> Result<(), String> {
        self.orderly = false;
        let armed = self.random.chance(90);
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
        let medium = &self.world.medium;
        let done = || clients.iter().all(|client| client.borrow().is_some());
        match session.executor.run(|| medium.is_dead(), done) {
            Stop::Done => {}
            Stop::Halted => return Ok(()),
            Stop::Stalled => return Err("clients wait for ever".to_owned()),
            Stop::Panicked(panic) => return Err(panic),
        }
        // What was given up goes on.
        match session.executor.run(|| medium.is_dead(), || false) {
            Stop::Halted => return Ok(()),
            Stop::Panicked(panic) => return Err(panic),
            Stop::Done | Stop::Stalled => {}
        }
        if self.random.chance(50) && !session.shared.poisoned() {
            medium.stop_after(None);
            self.audit(session, Audit::Quiet)?;
        }
        Ok(())
    }

    /// The process ends: in order, or because the machine stopped.
    fn end(&mut self, session: Session) -> Result<(), String> {
        let Session { mut executor, shared, logs, writers } = session;
        if !self.world.medium.is_dead() {
            drop(logs);
            let medium = &self.world.medium;
            match executor.run(|| medium.is_dead(), || writers.get() == 0) {
                Stop::Done if shared.poisoned() => self.tally.failures += 1,
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
        if self.world.medium.is_dead() {
            self.tally.crashes += 1;
            let activity = shared.activity();
            self.tally.in_commit += u64::from(activity.committing);
            self.tally.in_checkpoint += u64::from(activity.checkpointing);
            self.tally.in_cleaning += u64::from(activity.cleaning);
        }
        executor.kill()?;
        self.crash(true);
        Ok(())
    }

    /// Opens once more, ends in order, and opens again: everything must be as it was.
    fn last(&mut self) -> Result<(), String> {
        self.world.medium.set_faults(Faults::none());
        for _ in 0..2 {
            let session = self.open()?;
            self.end(session)?;
        }
        if self.world.plan.damage { self.damaged() } else { Ok(()) }
    }

    /// Something on the medium is damaged; the file is opened all the same, and again.
    fn damaged(&mut self) -> Result<(), String> {
        self.world.medium.crash(Crash::Power(Survival::Nothing));
        let affected = self.world.medium.damage(self.world.plan.segment_len);
        self.world.say(|| format!("damage: {affected:?}"));
        self.tally.damaged += 1;
        let (disk, options) = (SimDisk::new(&self.world.medium), self.world.plan.options());
        let mut executor = self.executor();
        let opened = self.alone(&mut executor, "open", async move { open(&disk, options).await })?;
        let (shared, recovery) = match opened {
            Some(Ok(opened)) => opened,
            other => return Err(format!("after {affected:?}: {other:?}")),
        };
        self.world.say(|| format!("open: {recovery:?}"));
        let disk = Rc::new(SimDisk::new(&self.world.medium));
        let (log, _writer) = worker(shared, disk);
        let task = audit_damaged(log, Rc::clone(&self.world), affected, recovery);
        let looked = self.alone(&mut executor, "audit of what is damaged", task);
        if looked.is_err() {
            executor.forget();
            return looked.map(|_| ());
        }
        executor.kill()
    }
}
