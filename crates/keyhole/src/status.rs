//! The status of the node: one snapshot, from which the status page, the metrics and `keyhole
//! status` are derived, so that they cannot disagree.
//!
//! A [`Monitor`] exists from before the store is opened until the process ends. Its readers wait
//! only for locks that are never held across I/O.

mod conditions;
pub(crate) mod format;
mod history;
mod machine;
mod model;
mod monitor;
mod remote;
mod snapshot;
mod store;

pub(crate) use history::{LATELY, MINUTES, SECONDS, Sample, Samples};
pub(crate) use model::{BOUNDS_S, Condition, NodeFacts, Severity, Status};
pub(crate) use monitor::{Monitor, Phase, SAMPLE_EVERY};
pub(crate) use remote::RemoteStatus;
#[cfg(test)]
pub(crate) use snapshot::tests::sample_status;
pub(crate) use store::{StoreFigures, StoreStatus};
