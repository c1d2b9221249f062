//! Collects the state of the node that its status is made of.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use keyhole_log::Store;
use keyhole_node::Services;

use super::history::{History, Samples};
use super::model::{NodeFacts, Scrub};
use crate::env::System;
use crate::lock_clock::LockClockFigures;
use crate::metrics::Metrics;
use crate::read_path::ReadPath;
use crate::remote::Reports;
use crate::store::Presence;

/// Sampling interval of the history.
pub(crate) const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// Time without a heartbeat after which a worker is reported as stalled; heartbeats are sent every
/// second.
pub(crate) const STUCK: Duration = Duration::from_secs(5);

/// Time without a heartbeat after which the node counts as dead: only a restart helps.
pub(crate) const DEAD: Duration = Duration::from_secs(30);

/// The stage of the node's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Phase {
    /// The store is being opened.
    Starting,
    Serving,
    /// No further requests are accepted.
    Draining,
}

/// Collects the status of the node.
pub(crate) struct Monitor {
    pub(super) facts: NodeFacts,
    started: Instant,
    pub(super) started_ms: u64,
    phase: AtomicU8,
    metrics: Arc<Metrics>,
    pub(super) store: OnceLock<Arc<Store>>,
    presence: OnceLock<Presence>,
    pub(super) read_path: OnceLock<Arc<ReadPath>>,
    pub(super) remotes: Arc<Reports>,
    /// Damaged places found by recovery.
    pub(super) damaged_at_start: AtomicU64,
    reported: Mutex<ReportedState>,
    history: Mutex<History>,
}

/// State reported by other parts of the node.
#[derive(Clone, Default)]
pub(super) struct ReportedState {
    /// The time, in ms since 1970, and the bucket of an object stored later than the clock's time.
    pub(super) behind: Option<(u64, String)>,
    pub(super) lock_clock: LockClockFigures,
    pub(super) scrubs: Scrub,
    /// The reason if the object file is no longer in place.
    pub(super) absence: Option<String>,
}

impl Monitor {
    pub(crate) fn new(facts: NodeFacts) -> Arc<Self> {
        let metrics = Metrics::new(facts.workers);
        let history = Mutex::new(History::new(Instant::now(), &metrics.totals()));
        Arc::new(Monitor {
            facts,
            started: Instant::now(),
            started_ms: System.now_ms(),
            phase: AtomicU8::new(Phase::Starting as u8),
            metrics,
            store: OnceLock::new(),
            presence: OnceLock::new(),
            read_path: OnceLock::new(),
            remotes: Arc::default(),
            damaged_at_start: AtomicU64::new(0),
            reported: Mutex::default(),
            history,
        })
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Returns the time since the node started.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn phase(&self) -> Phase {
        let now = self.phase.load(Ordering::Relaxed);
        let phases = [Phase::Starting, Phase::Serving, Phase::Draining];
        phases.into_iter().find(|phase| *phase as u8 == now).expect("one of them was stored")
    }

    /// Records that the store is open.
    pub(crate) fn set_store(&self, store: Arc<Store>, damaged: usize) {
        self.damaged_at_start.store(damaged as u64, Ordering::Relaxed);
        let _ = self.store.set(store); // Called once.
    }

    /// Records where the object file was opened.
    pub(crate) fn set_presence(&self, presence: Presence) {
        let _ = self.presence.set(presence); // Called once.
    }

    /// Records where the reads of the store are counted.
    pub(crate) fn set_read_path(&self, read_path: Arc<ReadPath>) {
        let _ = self.read_path.set(read_path); // Called once.
    }

    /// Returns where remotes report their state.
    pub(crate) fn remotes(&self) -> &Arc<Reports> {
        &self.remotes
    }

    pub(crate) fn presence(&self) -> Option<Presence> {
        self.presence.get().cloned()
    }

    /// Records why the object file is no longer in place, or `None` if it is.
    pub(crate) fn set_absence(&self, absence: Option<String>) {
        self.reported().absence = absence;
    }

    /// Enters a phase; earlier phases are ignored.
    pub(crate) fn enter_phase(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::Relaxed);
    }

    /// Records whether the clock is behind a stored time, and the bucket of that object.
    pub(crate) fn set_clock_behind(&self, behind: Option<(u64, String)>) {
        self.reported().behind = behind;
    }

    /// Records the time of the lock clock.
    pub(crate) fn set_lock_clock(&self, figures: LockClockFigures) {
        self.reported().lock_clock = figures;
    }

    /// Adds bytes verified by a scrub, and damaged places that it has found.
    pub(crate) fn add_scrubbed(&self, bytes: u64, damaged: u64) {
        let scrubs = &mut self.reported().scrubs;
        scrubs.bytes += bytes;
        scrubs.damaged += damaged;
    }

    /// Records the end of a scrub and the count of damaged places that it has found.
    pub(crate) fn end_scrub(&self, damaged: u64) {
        let scrubs = &mut self.reported().scrubs;
        scrubs.completed += 1;
        scrubs.last_ended_ms = Some(System.now_ms());
        scrubs.last_damaged = damaged;
    }

    /// Adds a sample to the history. Called every [`SAMPLE_EVERY`].
    pub(crate) fn sample(&self) {
        let totals = self.metrics.totals();
        self.history().sample(Instant::now(), &totals);
    }

    /// Returns the samples of the last seconds and minutes.
    pub(crate) fn samples(&self) -> Samples {
        self.history().samples()
    }

    pub(super) fn reported(&self) -> MutexGuard<'_, ReportedState> {
        self.reported.lock().expect("no holder panics")
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("no holder panics")
    }
}
