//! Creation, opening through faults and crashes, and audits of the store.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use keyhole_log::limits::SEGMENTS_START;
use keyhole_log::{Durability, Error, Recovery, Store, create, maintenance, open, worker};

use super::{Life, Session};
use crate::disk::{Crash, Faults, Survival};
use crate::executor::{Executor, Stop};
use crate::plan::Opening;
use crate::work::{Audit, audit};

/// Attempts to open the file on a faulty medium before the faults are removed.
const ATTEMPTS_MAX: u64 = 5;

impl Life {
    pub(crate) fn executor(&mut self) -> Executor {
        Executor::new(Rc::clone(&self.world.clock), self.random.fork())
    }

    /// Runs a single task to its end; `None`: the machine stopped.
    pub(crate) fn alone<T: 'static>(
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
            Stop::Stalled => Err(format!("{what} never ends")),
            Stop::Panicked(panic) => Err(format!("{what}: {panic}")),
        }
    }

    /// Creates the file without faults: users repeat a failed creation.
    pub(crate) fn make(&mut self) -> Result<(), String> {
        let faults = self.world.medium.set_faults(Faults::none());
        let disk = self.world.disk();
        let format = self.world.plan.format();
        let mut executor = self.executor();
        let made = self.alone(&mut executor, "create", async move { create(&disk, &format).await })?;
        executor.kill()?;
        self.world.medium.set_faults(faults);
        match made {
            Some(Ok(())) => Ok(()),
            other => Err(format!("create: {other:?}")),
        }
    }

    /// Crashes the machine or the process.
    pub(super) fn crash(&mut self, may_be_process: bool) {
        let how = Crash::of(&mut self.random);
        let how = if how == Crash::Process && (!may_be_process || self.world.medium.must_lose_power()) {
            Crash::power(&mut self.random, &[Survival::Nothing, Survival::Mixed, Survival::Writes])
        } else {
            how
        };
        self.world.say(|| format!("crash: {how:?}"));
        self.power |= how != Crash::Process;
        self.world.medium.crash(how);
        self.world.medium.end_read_only();
        if how != Crash::Process {
            self.hurt();
        }
    }

    /// Damages the medium while it is not in use.
    fn hurt(&mut self) {
        let plan = &self.world.plan;
        let medium = &self.world.medium;
        medium.check_checkpoints(self.tally.checkpoints);
        // A bad sector may hold a name whose only other copy is in the newest checkpoint.
        let is_known_twice = self.world.rot.borrow().pages.is_empty();
        if plan.spoils && self.random.chance(30) && is_known_twice && medium.spoil_checkpoint() {
            self.world.say(|| "the newest checkpoint is damaged".to_owned());
            self.hurt = true;
        }
        if plan.rots
            && self.random.chance(30)
            && let Some(rot) = medium.rot(plan.segment_len)
        {
            self.world.say(|| format!("a sector becomes bad: {rot:?}"));
            self.world.rot.borrow_mut().add(rot);
            self.hurt = true;
        }
        if plan.wears && !self.ending && self.random.chance(30) {
            let at = medium.wear();
            self.world.say(|| format!("unwritable: {at:?}"));
        }
    }

    /// Opens the file, through crashes and faults of the medium.
    pub(super) fn open(&mut self) -> Result<Session, String> {
        let mut attempt = 0;
        let mut opening = self.world.plan.next_opening(&mut self.random);
        let (executor, store, recovery) = loop {
            attempt += 1;
            let quiet = attempt > ATTEMPTS_MAX;
            if attempt > 2 * ATTEMPTS_MAX {
                return Err("the file cannot be opened any more".to_owned());
            }
            let faults = quiet.then(|| self.world.medium.set_faults(Faults::none()));
            let armed = !quiet && self.random.chance(25);
            let events = *self.random.pick(&[5, 30, 80]);
            let stop = armed.then(|| self.random.below(events));
            self.world.medium.stop_after(stop);
            let before = self.world.medium.counters();
            let disk = self.world.disk();
            let options = opening.options(self.world.plan.ring, self.random.number() as u32);
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
                Some(Ok((store, recovery))) if recovery.read_only.is_none() => {
                    // The engine continues past places that it could not write.
                    self.world.medium.forgive_writes();
                    break (executor, store, recovery);
                }
                Some(Ok((_, recovery))) => {
                    let after = self.world.medium.counters();
                    if after.failed == 0 && after.full == before.full {
                        executor.forget();
                        return Err(format!("read-only without a reason: {:?}", recovery.read_only));
                    }
                    self.world.say(|| format!("open: read-only: {:?}", recovery.read_only));
                }
                Some(Err(error)) => {
                    let after = self.world.medium.counters();
                    let failed = after.reads_failed > before.reads_failed || after.failed > 0;
                    let legal = match &error {
                        Error::Io(_) => failed,
                        Error::Full => after.full > before.full,
                        // More is in use than the requested capacity, or the capacity is too small
                        // for the number of workers.
                        Error::Capacity(_) => opening != self.world.plan.opening(),
                        _ => false,
                    };
                    if !legal {
                        executor.forget();
                        return Err(format!("open: {error}"));
                    }
                    self.world.say(|| format!("open: {error}"));
                    if matches!(error, Error::Capacity(_)) {
                        opening = self.world.plan.opening();
                    }
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
        self.opened(opening, &store);
        self.judge(&recovery)?;
        let mut session = self.start(executor, store);
        let how = Audit::Opened { power: self.power };
        self.audit(&mut session, how).map_err(|error| format!("{error}, after {recovery:?}"))?;
        self.power = false;
        Ok(session)
    }

    /// Opens the file once, without an audit. `None`: the machine has stopped, or the file is
    /// refused or read-only because an operation was chosen to fail.
    pub(crate) fn open_once(&mut self) -> Result<Option<Session>, String> {
        let opening = self.world.plan.opening();
        let disk = self.world.disk();
        let options = opening.options(self.world.plan.ring, self.random.number() as u32);
        let mut executor = self.executor();
        let answer = self.alone(&mut executor, "open", async move { open(&disk, options).await });
        let has_failed = self.world.medium.counters().chosen_failures > 0;
        match answer {
            Ok(Some(Ok((store, recovery)))) if recovery.read_only.is_none() => {
                self.world.say(|| format!("open: {recovery:?}"));
                self.opened(opening, &store);
                // An opening may report a failed read as damage.
                if !has_failed {
                    self.judge(&recovery)?;
                }
                Ok(Some(self.start(executor, store)))
            }
            Ok(None) => executor.kill().map(|()| None),
            Ok(Some(Ok(_) | Err(Error::Io(_) | Error::Damaged(_)))) if has_failed => executor.kill().map(|()| None),
            other => {
                executor.forget();
                Err(format!("open: {:?}", other?))
            }
        }
    }

    /// Records the options of the opening.
    fn opened(&mut self, mut opening: Opening, store: &Store) {
        opening.workers = store.workers();
        opening.segments = (store.usage().capacity - SEGMENTS_START) / self.world.plan.segment_len;
        self.world.opening.set(opening);
        self.world.model.borrow_mut().durable = opening.durability == Durability::Always;
        self.world.say(|| format!("{opening:?}"));
    }

    /// Starts the tasks of an open file.
    pub(super) fn start(&self, mut executor: Executor, store: Arc<Store>) -> Session {
        let writers = Rc::new(Cell::new(0));
        let mut logs = Vec::new();
        let mut spawn = |task: LocalBoxFuture<'static, ()>| {
            writers.set(writers.get() + 1);
            let writers = Rc::clone(&writers);
            executor.spawn(async move {
                task.await;
                writers.set(writers.get() - 1);
            });
        };
        for _ in 0..self.world.opening.get().workers {
            let (log, writer) = worker(Arc::clone(&store), Rc::new(self.world.disk()));
            spawn(Box::pin(writer.run()));
            logs.push(log);
        }
        if self.world.plan.maintained {
            let disk = Rc::new(self.world.disk());
            let (maintenance, writer) = maintenance(Arc::clone(&store), disk);
            spawn(Box::pin(maintenance.run()));
            spawn(Box::pin(writer.run()));
        }
        Session { executor, store, logs, writers }
    }

    fn judge(&mut self, recovery: &Recovery) -> Result<(), String> {
        if !recovery.damaged.is_empty() && !self.hurt {
            return Err(format!("damage, but nothing was damaged: {:?}", recovery.damaged));
        }
        // The second page of a cut batch stays behind the mark and is reported again at each
        // opening. So does that of a batch that failed for lack of space.
        let was_full = self.world.medium.counters().writes_full > 0;
        self.cut |= (recovery.cut > 0 && !self.orderly) || self.hurt || was_full;
        if self.orderly && recovery.cut > 0 && !self.cut {
            return Err(format!("{} segments cut after an orderly end", recovery.cut));
        }
        Ok(())
    }

    /// Audits everything, without faults.
    pub(crate) fn audit(&mut self, session: &mut Session, how: Audit) -> Result<(), String> {
        let faults = self.world.medium.set_faults(Faults { slowness: 1, ..Faults::none() });
        let task = audit(session.logs[0].clone(), Rc::clone(&self.world), how, self.random.fork());
        let looked = self.alone(&mut session.executor, "audit", task);
        self.world.medium.set_faults(faults);
        looked.map(|_| ())
    }
}
