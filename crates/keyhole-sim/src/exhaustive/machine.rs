//! One machine of an exhaustive case: it is prepared, interrupted, and opened again.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::scopes::{PROBE, Scope, Script};
use crate::disk::{Crash, Faults, Medium, Survival};
use crate::executor::{Clock, Stop};
use crate::life::{Life, Session};
use crate::model::{BUCKETS, Model};
use crate::plan::Plan;
use crate::random::Random;
use crate::work::{Audit, Client, Operation, World};

/// The seed of the order of tasks.
const SEED: u64 = 1;

/// The interruption of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interruption {
    /// The machine stops at this event of the disk, counted from 1.
    Stop(u64),
    /// This I/O fails, counted from 0; the number is that of consecutive failures.
    Failure(u64, u64),
}

impl fmt::Display for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Interruption::Stop(event) => write!(f, "stop at event {event}"),
            Interruption::Failure(at, 1) => write!(f, "failure of I/O {at}"),
            Interruption::Failure(at, _) => write!(f, "failure of all I/O from {at} on"),
        }
    }
}

/// Creates the store of a scope and performs the operations before each sequence.
pub(super) fn prepared(scope: &Scope) -> Result<Life, String> {
    let mut random = Random::new(SEED);
    let plan = Plan::scripted(scope.durability, scope.is_maintained);
    let medium = Medium::new(random.fork(), Faults::none());
    let mut model = Model::new();
    model.durable = scope.is_durable();
    let world = Rc::new(World::new(Rc::new(Clock::default()), medium, model, plan, false));
    let mut life = Life::new(random, world);
    life.make()?;
    let mut session = life.open_once()?.ok_or("a new store is refused")?;
    match life.performed(&mut session, &scope.before) {
        Ok(()) => {}
        Err(error) => {
            session.forget();
            return Err(error);
        }
    }
    session.kill()?;
    life.crashed(Crash::Power(Survival::Nothing));
    let session = life.audited()?;
    session.kill()?;
    Ok(life)
}

impl Life {
    /// Performs operations until all tasks are idle or the machine stops.
    fn performed(&mut self, session: &mut Session, script: &[Operation]) -> Result<(), String> {
        let medium = &self.world.medium;
        let client = Client::new(0, session.logs[0].clone(), &self.world, self.random.fork());
        let done = session.executor.spawn(client.perform(script.to_vec()));
        match session.executor.run(|| medium.is_dead(), || false) {
            Stop::Panicked(panic) => Err(panic),
            Stop::Stalled if done.borrow().is_none() => Err("an operation never ends".to_owned()),
            Stop::Done | Stop::Halted | Stop::Stalled => Ok(()),
        }
    }

    /// Opens the store and performs a sequence whose last operation, or the opening, is
    /// interrupted. Returns whether the interruption took place.
    pub(super) fn interrupted(&mut self, script: &Script, how: Interruption) -> Result<bool, String> {
        let medium = Arc::clone(&self.world.medium);
        let arm = || match how {
            Interruption::Stop(event) => medium.stop_after(Some(event)),
            Interruption::Failure(at, count) => medium.fail_after(at, count),
        };
        if script.last.is_empty() {
            arm();
        }
        if let Some(mut session) = self.open_once()? {
            let performed = self.performed(&mut session, &script.before).and_then(|()| {
                if !script.last.is_empty() {
                    arm();
                }
                self.performed(&mut session, &script.last)
            });
            if let Err(error) = performed {
                session.forget();
                return Err(error);
            }
            session.kill()?;
        }
        let has_failed = medium.counters().chosen_failures > 0;
        medium.end_failures();
        Ok(medium.is_dead() || has_failed)
    }

    fn crashed(&mut self, how: Crash) {
        self.world.say(|| format!("crash: {how:?}"));
        self.world.medium.crash(how);
        self.power = how != Crash::Process;
        if self.power {
            self.world.medium.check_checkpoints(0);
        }
    }

    /// Opens the store and audits all of it.
    fn audited(&mut self) -> Result<Session, String> {
        let mut session = self.open_once()?.ok_or("the store is refused")?;
        let how = Audit::Opened { power: self.power };
        match self.audit(&mut session, how) {
            Ok(()) => Ok(session),
            Err(error) => {
                session.forget();
                Err(error)
            }
        }
    }

    /// Crashes, audits what recovery has found, stores one more object, and audits the store after
    /// another power failure.
    pub(super) fn recovered(mut self, how: Crash) -> Result<(), String> {
        self.crashed(how);
        let mut session = self.audited()?;
        let stored = self.performed(&mut session, &[PROBE, Operation::Flush]).and_then(|()| {
            let mut model = self.world.model.borrow_mut();
            let Operation::Put(key, _) = PROBE else { unreachable!("the probe is a write") };
            let is_stored = matches!(model.key(BUCKETS[0], key).latest(), Some((_, Some(_))));
            if is_stored { Ok(()) } else { Err("the store accepts no more writes".to_owned()) }
        });
        if let Err(error) = stored {
            session.forget();
            return Err(error);
        }
        session.kill()?;
        self.crashed(Crash::Power(Survival::Nothing));
        self.audited()?.kill()
    }
}
