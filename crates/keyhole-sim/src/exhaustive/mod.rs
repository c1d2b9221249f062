//! Exhaustive small cases: every short sequence of a few operations, with a crash at each I/O and
//! every choice of the unsynced changes, and with a failure of each I/O.
//!
//! Lives find faults that need many operations; here no case of a small scope depends on a seed.
//! The model and the audits are those of lives.
//!
//! - [`crashes`]: power fails at each event of the disk. The store is opened again from each choice
//!   of the unsynced changes ([`Survivors`]), audited, written to, and opened once more.
//! - [`failures`]: each I/O fails, once or together with all later ones. An operation whose write
//!   or sync failed must not be acknowledged, and nothing acknowledged may be lost.
//!
//! # Invariants
//! - A case follows from its scope, sequence, number and survivors alone.
//! - The same cases run each time, in the same order.

mod machine;
mod scopes;
mod survivors;

use std::fmt;

pub use scopes::Scope;

use crate::disk::{Crash, Survival, Survivors};
use crate::life::{Life, Setup, with_setup};
use machine::Interruption;
use scopes::Script;

/// Numbers of cases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sequences of operations.
    pub sequences: u64,
    /// Runs of a sequence in which the machine stopped or an I/O failed.
    pub interruptions: u64,
    /// Crashes, each with its own choice of surviving changes.
    pub crashes: u64,
    /// The highest number of unsynced changes at a crash.
    pub unsynced_max: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.sequences += other.sequences;
        self.interruptions += other.interruptions;
        self.crashes += other.crashes;
        self.unsynced_max = self.unsynced_max.max(other.unsynced_max);
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { sequences, interruptions, crashes, unsynced_max } = self;
        write!(f, "{sequences} sequences, {interruptions} interruptions, {crashes} crashes, ")?;
        write!(f, "up to {unsynced_max} unsynced changes")
    }
}

/// Stops every sequence of the scope at each event and fails power with every choice of the
/// unsynced changes.
///
/// # Errors
/// A description of the first case that fails.
pub fn crashes(scope: &Scope, setup: Setup) -> Result<Counts, String> {
    let run = Run::new(scope, setup)?;
    run.each(|run, script, counts| {
        for event in 1.. {
            let is_stopped = run.interrupted(script, Interruption::Stop(event), counts)?;
            if !is_stopped {
                return Ok(());
            }
        }
        unreachable!("a sequence ends")
    })
}

/// Fails each I/O of every sequence of the scope, once and together with all later ones.
///
/// # Errors
/// A description of the first case that fails.
pub fn failures(scope: &Scope, setup: Setup) -> Result<Counts, String> {
    let run = Run::new(scope, setup)?;
    run.each(|run, script, counts| {
        for count in [1, u64::MAX] {
            for at in 0.. {
                let has_failed = run.interrupted(script, Interruption::Failure(at, count), counts)?;
                if !has_failed {
                    break;
                }
            }
        }
        Ok(())
    })
}

/// The cases of one scope.
struct Run<'a> {
    scope: &'a Scope,
    setup: Setup,
    /// The life that each case continues, before its opening.
    base: Life,
}

impl<'a> Run<'a> {
    fn new(scope: &'a Scope, setup: Setup) -> Result<Self, String> {
        // The store is prepared by a sound engine, so that a defect fails a case.
        let base = with_setup(Setup::default(), || machine::prepared(scope));
        let base = base.map_err(|error| format!("{scope}: {error}"))?;
        Ok(Run { scope, setup, base })
    }

    /// Calls `case` with every sequence.
    fn each(&self, case: impl Fn(&Self, &Script, &mut Counts) -> Result<(), String>) -> Result<Counts, String> {
        let mut counts = Counts::default();
        for script in self.scope.scripts() {
            counts.sequences += 1;
            case(self, &script, &mut counts)?;
        }
        Ok(counts)
    }

    /// Runs one sequence with an interruption, and then every crash. Returns whether the
    /// interruption took place.
    fn interrupted(&self, script: &Script, how: Interruption, counts: &mut Counts) -> Result<bool, String> {
        let ran = with_setup(self.setup, || {
            let mut life = self.base.fork(false);
            let is_interrupted = life.interrupted(script, how)?;
            Ok((life, is_interrupted))
        });
        let (life, is_interrupted) = ran.map_err(|error| self.failed(script, how, None, &error))?;
        counts.interruptions += u64::from(is_interrupted);
        counts.unsynced_max = counts.unsynced_max.max(life.world.medium.unsynced());
        for crash in crashes_of(&life, how) {
            counts.crashes += 1;
            with_setup(self.setup, || life.fork(false).recovered(crash))
                .map_err(|error| self.failed(script, how, Some(crash), &error))?;
        }
        Ok(is_interrupted)
    }

    /// Describes a failed case, and repeats it with its events if the setup has a trace.
    fn failed(&self, script: &Script, how: Interruption, crash: Option<Crash>, error: &str) -> String {
        if self.setup.trace {
            // Its error is the one that is described.
            let _ = with_setup(self.setup, || {
                let mut life = self.base.fork(true);
                life.interrupted(script, how)?;
                crash.map_or(Ok(()), |crash| life.recovered(crash))
            });
        }
        let crash = match crash {
            None => String::new(),
            Some(Crash::Power(Survival::Chosen(survivors))) => format!("; survivors: {survivors}"),
            Some(other) => format!("; {other:?}"),
        };
        format!("{}: {script}; {how}{crash}: {error}", self.scope)
    }
}

/// Returns the crashes after an interruption.
fn crashes_of(life: &Life, how: Interruption) -> Vec<Crash> {
    let medium = &life.world.medium;
    match how {
        Interruption::Stop(_) => {
            let survivors = survivors::all(medium.unsynced()).into_iter();
            survivors.map(|survivors: Survivors| Crash::Power(Survival::Chosen(survivors))).collect()
        }
        Interruption::Failure(..) => {
            let process = (!medium.must_lose_power()).then_some(Crash::Process);
            let power = [Survival::Nothing, Survival::Everything].map(Crash::Power);
            process.into_iter().chain(power).collect()
        }
    }
}
