//! The latest reports of all remotes, for the status.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use keyhole_remote::{Phase, Report};

/// The reports by remote. A paused remote has none.
#[derive(Default)]
pub(crate) struct Reports {
    reports: Mutex<BTreeMap<String, Option<Report>>>,
    /// The remotes of mode tier that are not paused.
    tiers: Mutex<Vec<String>>,
}

impl Reports {
    /// Replaces the report of a remote.
    pub(super) fn set(&self, remote: &str, report: &Report) {
        self.lock().insert(remote.to_owned(), Some(report.clone()));
    }

    /// Records that a remote is paused.
    pub(super) fn set_paused(&self, remote: &str) {
        self.lock().insert(remote.to_owned(), None);
    }

    pub(super) fn remove(&self, remote: &str) {
        self.lock().remove(remote);
    }

    /// Sets the remotes of mode tier that are not paused.
    pub(super) fn set_tiers(&self, tiers: Vec<String>) {
        *self.tiers.lock().expect("no holder panics") = tiers;
    }

    /// Returns whether a remote of mode tier accepts objects.
    pub(super) fn is_tiering(&self) -> bool {
        let failing = self.failing();
        self.tiers.lock().expect("no holder panics").iter().any(|tier| !failing.contains(tier))
    }

    /// Returns the remotes that are failing.
    pub(super) fn failing(&self) -> Vec<String> {
        let is_failing = |report: &Option<Report>| {
            report.as_ref().is_some_and(|report| matches!(report.phase, Phase::Failing { .. }))
        };
        self.lock().iter().filter(|(_, report)| is_failing(report)).map(|(name, _)| name.clone()).collect()
    }

    /// Returns the reports, sorted by remote.
    pub(crate) fn all(&self) -> Vec<(String, Option<Report>)> {
        self.lock().iter().map(|(name, report)| (name.clone(), report.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Option<Report>>> {
        self.reports.lock().expect("no holder panics")
    }
}
