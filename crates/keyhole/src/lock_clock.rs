//! The lock clock of a running node: it follows the clocks of the system, and is made durable.
//!
//! It starts with the first bucket that has object lock, so that a node without locks shows none.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use keyhole_log::{Disk, Error, Log};
use keyhole_node::{ClockReading, LockClock, Services};
use rustix::time::{ClockId, clock_gettime};

use crate::env::System;

/// Time after which an advanced clock is made durable. The rest counts as a leap after a restart.
const SAVE_EVERY_MS: u64 = 60 * 60 * 1000;

/// The lock clock, shared by the task that advances it and the operator's command.
pub(crate) struct NodeLockClock {
    leap_max: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    clock: Option<LockClock>,
    /// The durable time, in ms since 1970.
    saved_ms: u64,
}

/// The displayed figures of the lock clock.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct LockClockFigures {
    /// Its time, in ms since 1970.
    pub(crate) now_ms: Option<u64>,
    /// By how much the wall clock is ahead, if it is not followed.
    pub(crate) refused_ms: Option<u64>,
}

/// Reads the clocks of the system.
fn reading() -> ClockReading {
    let boot = clock_gettime(ClockId::Boottime);
    let ms = u64::try_from(boot.tv_sec).unwrap_or(0).saturating_mul(1000);
    let boot_ms = ms.saturating_add(u64::try_from(boot.tv_nsec).unwrap_or(0) / 1_000_000);
    ClockReading { wall_ms: System.now_ms(), boot_ms }
}

impl NodeLockClock {
    pub(crate) fn new(leap_max: Duration) -> Self {
        NodeLockClock { leap_max, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// Advances the clock, and makes it durable from time to time.
    ///
    /// # Errors
    /// Those of every write.
    pub(crate) async fn advance<D: Disk>(&self, log: &Log<D>) -> Result<LockClockFigures, Error> {
        self.change(log, LockClock::advance, SAVE_EVERY_MS).await
    }

    /// Sets the clock to the wall clock, unless that is behind, and makes it durable.
    ///
    /// # Errors
    /// Those of every write.
    pub(crate) async fn accept<D: Disk>(&self, log: &Log<D>) -> Result<LockClockFigures, Error> {
        self.change(log, LockClock::accept, 0).await
    }

    async fn change<D: Disk>(
        &self,
        log: &Log<D>,
        change: impl FnOnce(&mut LockClock, ClockReading) -> u64,
        save_after_ms: u64,
    ) -> Result<LockClockFigures, Error> {
        let store = log.store();
        let durable_ms = store.lock_clock_ms();
        if durable_ms == 0 && !has_lock(log) {
            return Ok(LockClockFigures::default());
        }
        let reading = reading();
        let (figures, now_ms, is_due) = {
            let mut state = self.state();
            let leap_max_ms = u64::try_from(self.leap_max.as_millis()).unwrap_or(u64::MAX);
            if state.clock.is_none() {
                state.saved_ms = durable_ms;
            }
            let saved = (durable_ms > 0).then_some(durable_ms);
            let clock = state.clock.get_or_insert_with(|| LockClock::new(saved, leap_max_ms, reading));
            let now_ms = change(clock, reading);
            let figures = LockClockFigures { now_ms: Some(now_ms), refused_ms: clock.refused_leap_ms() };
            (figures, now_ms, now_ms.saturating_sub(state.saved_ms) >= save_after_ms)
        };
        store.advance_lock_clock(now_ms);
        if is_due {
            log.save_lock_clock().await?;
            self.state().saved_ms = now_ms;
        }
        Ok(figures)
    }
}

/// Returns whether any bucket has object lock.
fn has_lock<D: Disk>(log: &Log<D>) -> bool {
    let has_lock = |name: &str| log.bucket_versioning(name).is_some_and(|(_, lock)| lock.is_some());
    log.buckets().iter().any(|bucket| has_lock(&bucket.name))
}
