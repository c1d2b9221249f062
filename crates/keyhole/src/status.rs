//! How the node is: one account of it, from which the status page, the metrics and `keyhole status` are all made, so that they
//! cannot disagree.
//!
//! A [`Monitor`] is there from before the store is opened until the process ends. Whoever asks it waits for nothing but a
//! lock that nobody holds across I/O.

mod account;
mod history;
mod machine;
mod report;
pub(crate) mod say;

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use keyhole_log::Shared;
use keyhole_node::Env;

use crate::env::System;
use crate::metrics::Metrics;
use crate::store::Presence;

#[cfg(test)]
pub(crate) use account::tests::sample_status;
pub(crate) use history::{History, LATELY, MINUTES, SECONDS, Sample};
pub(crate) use report::{BOUNDS_S, Condition, Facts, Severity, Status, StoreStatus};

use report::Scrub;

/// How often the history takes a sample.
pub(crate) const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// A worker says every second that it moves. One that has not for so long is said not to.
pub(crate) const STUCK: Duration = Duration::from_secs(5);

/// After so long the node is not to be called alive any more: nothing but a restart helps.
pub(crate) const DEAD: Duration = Duration::from_secs(30);

/// Where the node is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Phase {
    /// The store is being opened.
    Starting,
    Serving,
    /// No further requests are taken.
    Draining,
}

/// Watches the node.
pub(crate) struct Monitor {
    facts: Facts,
    started: Instant,
    started_ms: u64,
    phase: AtomicU8,
    metrics: Arc<Metrics>,
    store: OnceLock<Arc<Shared>>,
    presence: OnceLock<Presence>,
    /// Places where recovery has found damage.
    damaged_at_start: AtomicU64,
    told: Mutex<Told>,
    history: Mutex<History>,
}

/// What others have told the monitor.
#[derive(Clone, Default)]
struct Told {
    /// A time later than the clock's at which something was stored, in ms since 1970, and the bucket that it is in.
    behind: Option<(u64, String)>,
    scrubs: Scrub,
    /// Why the object file is not where it was opened.
    absence: Option<String>,
}

impl Monitor {
    pub(crate) fn new(facts: Facts) -> Arc<Self> {
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
            damaged_at_start: AtomicU64::new(0),
            told: Mutex::default(),
            history,
        })
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// How long the node has been there.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn phase(&self) -> Phase {
        let now = self.phase.load(Ordering::Relaxed);
        let phases = [Phase::Starting, Phase::Serving, Phase::Draining];
        phases.into_iter().find(|phase| *phase as u8 == now).expect("one of them was stored")
    }

    /// The store is open.
    pub(crate) fn opened(&self, shared: Arc<Shared>, damaged: usize) {
        self.damaged_at_start.store(damaged as u64, Ordering::Relaxed);
        let _ = self.store.set(shared); // It is opened once.
    }

    /// Where the object file was opened.
    pub(crate) fn watches(&self, presence: Presence) {
        let _ = self.presence.set(presence); // It is opened once.
    }

    pub(crate) fn presence(&self) -> Option<Presence> {
        self.presence.get().cloned()
    }

    /// Why the object file is not where it was opened, if it is not.
    pub(crate) fn object_file_is_absent(&self, absence: Option<String>) {
        self.told().absence = absence;
    }

    /// The node is in another phase of its life; it never goes back.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::Relaxed);
    }

    /// Whether the clock is behind something that was stored, and where that is.
    pub(crate) fn clock_is_behind(&self, behind: Option<(u64, String)>) {
        self.told().behind = behind;
    }

    /// A scrub has verified so many bytes more, and found damage in so many places.
    pub(crate) fn scrubbed(&self, bytes: u64, damaged: u64) {
        let scrubs = &mut self.told().scrubs;
        scrubs.bytes += bytes;
        scrubs.damaged += damaged;
    }

    /// A scrub has come to its end, having found damage in so many places.
    pub(crate) fn scrub_ended(&self, damaged: u64) {
        let scrubs = &mut self.told().scrubs;
        scrubs.completed += 1;
        (scrubs.last_ended_ms, scrubs.last_damaged) = (Some(System.now_ms()), damaged);
    }

    /// Takes a sample for the history. To be called every [`SAMPLE_EVERY`].
    pub(crate) fn sample(&self) {
        let totals = self.metrics.totals();
        self.history().sample(Instant::now(), &totals);
    }

    /// What there is to be drawn: the samples of the last seconds and minutes.
    pub(crate) fn samples(&self) -> (Vec<Sample>, Vec<Sample>) {
        self.history().samples()
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("nobody panics while it is held")
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("nobody panics while it is held")
    }
}
