//! The findings of an audit, and their comparison with the model.

use std::collections::{BTreeMap, BTreeSet};

use keyhole_log::Error;

use super::World;
use crate::content::Content;
use crate::model::Register;

/// The moment of an audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audit {
    /// In a running process without operations in flight.
    Quiet,
    /// After opening: the findings become the state of the model. `power`: power has failed since
    /// the last audit.
    Opened {
        /// Whether power has failed.
        power: bool,
    },
}

/// The findings.
#[derive(Default)]
pub(super) struct AuditFindings {
    /// The version of each object found, by bucket.
    pub(super) objects: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    pub(super) uploads: BTreeSet<u64>,
    /// Bytes of the objects and parts of each bucket.
    pub(super) bytes: BTreeMap<&'static str, u64>,
    pub(super) contents: BTreeSet<u64>,
}

/// Adopts a finding as the state of the model, or panics if it is impossible.
pub(super) fn take<V: Clone + PartialEq + std::fmt::Debug>(
    how: Audit,
    now: u64,
    durable: bool,
    register: &mut Register<V>,
    value: V,
    what: impl FnOnce() -> String,
) {
    let (legal, power) = match how {
        Audit::Quiet => (register.observe(now, now, durable, 0, |other| *other == value), false),
        Audit::Opened { power } => (register.may_survive(power, |other| *other == value), power),
    };
    assert!(legal, "{how:?}: {} is {value:?}, may be {:?}", what(), register.legal(power));
    if how != Audit::Quiet {
        *register = Register::new(value);
    }
}

/// Returns whether bodies are damaged in the way an error reports.
pub(super) fn is_damage(world: &World, how: Audit, error: &Error, contents: &[Content]) -> bool {
    world.is_rotten(error, contents) || world.is_orphan(how == Audit::Opened { power: true }, error, contents)
}
