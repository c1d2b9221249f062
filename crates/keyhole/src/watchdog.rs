//! The service manager's watchdog: it is notified only while every worker's event loop runs.
//!
//! Each worker has a [`Heartbeat`] that a timer of its event loop beats, so that it stops with the
//! loop: in a blocking call, a lock, or an endless loop. The watchdog thread checks all of them
//! twice per watchdog period and sends `WATCHDOG=1` if none has stopped. A notification lasts one
//! period; then the manager kills and restarts the process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::service;

/// Beats per watchdog period: four between two checks, so that one late beat is tolerated.
const BEATS_PER_PERIOD: u32 = 8;

/// Counter value of a worker that has shut down.
const AT_REST: u64 = u64::MAX;

/// The heartbeat of a worker's thread.
#[derive(Default)]
pub(crate) struct Heartbeat {
    beats: AtomicU64,
    /// `None` without a watchdog.
    every: Option<Duration>,
}

impl Heartbeat {
    /// Beats without end, if there is a watchdog.
    pub(crate) async fn beat(&self) {
        let Some(every) = self.every else { return };
        loop {
            self.beats.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(every).await;
        }
    }

    /// Marks the worker as shut down in order; it is no longer checked.
    pub(crate) fn rest(&self) {
        self.beats.store(AT_REST, Ordering::Relaxed);
    }
}

/// The manager's watchdog, if it has one for this process.
pub(crate) struct Watchdog {
    period: Option<Duration>,
    heartbeats: Vec<Arc<Heartbeat>>,
}

impl Watchdog {
    /// Reads the watchdog period from the environment.
    pub(crate) fn from_manager() -> Self {
        Watchdog { period: sd_notify::watchdog_enabled().filter(|period| !period.is_zero()), heartbeats: Vec::new() }
    }

    /// Returns the heartbeat of one more worker.
    pub(crate) fn heartbeat(&mut self) -> Arc<Heartbeat> {
        let every = self.period.map(|period| period / BEATS_PER_PERIOD);
        let heartbeat = Arc::new(Heartbeat { every, ..Heartbeat::default() });
        self.heartbeats.push(heartbeat.clone());
        heartbeat
    }

    /// Starts the checking thread, if there is a watchdog.
    pub(crate) fn watch(self) -> io::Result<()> {
        let Some(period) = self.period else { return Ok(()) };
        let mut detector = StallDetector::new(self.heartbeats);
        let check_regularly = move || {
            loop {
                match detector.find_stalled() {
                    None => service::tell(&[NotifyState::Watchdog]),
                    Some(worker) => tracing::error!(worker, "worker stalled: withholding the watchdog notification"),
                }
                thread::sleep(period / 2);
            }
        };
        thread::Builder::new().name("watchdog".to_owned()).spawn(check_regularly).map(drop)
    }
}

/// The counters at the last check.
struct StallDetector {
    heartbeats: Vec<Arc<Heartbeat>>,
    seen: Vec<u64>,
}

impl StallDetector {
    fn new(heartbeats: Vec<Arc<Heartbeat>>) -> Self {
        let seen = heartbeats.iter().map(|heartbeat| heartbeat.beats.load(Ordering::Relaxed).wrapping_sub(1)).collect();
        StallDetector { heartbeats, seen }
    }

    /// Returns a worker that has stalled since the last check, if any.
    fn find_stalled(&mut self) -> Option<usize> {
        let mut stalled = None;
        for (worker, (heartbeat, seen)) in self.heartbeats.iter().zip(&mut self.seen).enumerate() {
            let now = heartbeat.beats.load(Ordering::Relaxed);
            if std::mem::replace(seen, now) == now && now != AT_REST {
                stalled = stalled.or(Some(worker));
            }
        }
        stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalled_worker_is_detected() {
        let heartbeats: Vec<Arc<Heartbeat>> = (0..3).map(|_| Arc::default()).collect();
        let beat = |worker: usize| {
            heartbeats[worker].beats.fetch_add(1, Ordering::Relaxed);
        };
        let mut detector = StallDetector::new(heartbeats.clone());
        assert_eq!(detector.find_stalled(), None, "at the first look nothing has been missed");
        (0..3).for_each(beat);
        assert_eq!(detector.find_stalled(), None);
        [0, 2].into_iter().for_each(beat);
        assert_eq!(detector.find_stalled(), Some(1));
        assert_eq!(detector.find_stalled(), Some(0), "nor do the others go on");
        (0..3).for_each(beat);
        assert_eq!(detector.find_stalled(), None, "they do again");
        heartbeats[1].rest();
        [0, 2].into_iter().for_each(beat);
        assert_eq!(detector.find_stalled(), None);
        [0, 2].into_iter().for_each(beat);
        assert_eq!(detector.find_stalled(), None, "an ended worker is not reported");
    }

    #[tokio::test]
    async fn heartbeat_needs_watchdog() {
        Heartbeat::default().beat().await;
        let heartbeat = Heartbeat { every: Some(Duration::from_millis(1)), ..Heartbeat::default() };
        let beating = tokio::time::timeout(Duration::from_millis(200), heartbeat.beat());
        assert!(beating.await.is_err());
        assert!(heartbeat.beats.load(Ordering::Relaxed) > 3);
    }
}
