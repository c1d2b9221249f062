//! The service manager's watchdog: it hears from the node only while every worker's thread goes round.
//!
//! Each worker has a [`Heart`] that beats by a timer of its event loop, so that it stands still where the loop does: in a call
//! that blocks, in a lock, in an endless loop. The watchdog's thread looks at all of them twice in each period of the manager's,
//! and says `WATCHDOG=1` if none stands still. What was said last is good for one period; the manager then ends the process, and
//! starts it anew.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::service;

/// Beats within one period of the manager's: four between two looks, so that one that is late does not count.
const BEATS_PER_PERIOD: u32 = 8;

/// The count of a heart whose worker has done all it had to.
const AT_REST: u64 = u64::MAX;

/// Beats while a worker's thread goes round.
#[derive(Default)]
pub(crate) struct Heart {
    beats: AtomicU64,
    /// `None` where no watchdog looks.
    every: Option<Duration>,
}

impl Heart {
    /// Beats for ever, where a watchdog looks.
    pub(crate) async fn beat(&self) {
        let Some(every) = self.every else { return };
        loop {
            self.beats.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(every).await;
        }
    }

    /// The worker has ended in good order, and is missed no more.
    pub(crate) fn rest(&self) {
        self.beats.store(AT_REST, Ordering::Relaxed);
    }
}

/// The manager's watchdog, if it has one for this process.
pub(crate) struct Watchdog {
    period: Option<Duration>,
    hearts: Vec<Arc<Heart>>,
}

impl Watchdog {
    /// As the environment has it.
    pub(crate) fn of_manager() -> Self {
        Watchdog { period: sd_notify::watchdog_enabled().filter(|period| !period.is_zero()), hearts: Vec::new() }
    }

    /// A heart for one more worker.
    pub(crate) fn heart(&mut self) -> Arc<Heart> {
        let every = self.period.map(|period| period / BEATS_PER_PERIOD);
        let heart = Arc::new(Heart { every, ..Heart::default() });
        self.hearts.push(heart.clone());
        heart
    }

    /// Looks for ever, on a thread of its own, where there is a manager who wants to know.
    pub(crate) fn watch(self) -> io::Result<()> {
        let Some(period) = self.period else { return Ok(()) };
        let mut look = Look::new(self.hearts);
        let look_regularly = move || {
            loop {
                match look.standing() {
                    None => service::tell(&[NotifyState::Watchdog]),
                    Some(worker) => tracing::error!(worker, "worker stalled: withholding the watchdog notification"),
                }
                thread::sleep(period / 2);
            }
        };
        thread::Builder::new().name("watchdog".to_owned()).spawn(look_regularly).map(drop)
    }
}

/// What was seen of each heart when it was looked at last.
struct Look {
    hearts: Vec<Arc<Heart>>,
    seen: Vec<u64>,
}

impl Look {
    fn new(hearts: Vec<Arc<Heart>>) -> Self {
        let seen = hearts.iter().map(|heart| heart.beats.load(Ordering::Relaxed).wrapping_sub(1)).collect();
        Look { hearts, seen }
    }

    /// Which worker stands still since the last look, if one does.
    fn standing(&mut self) -> Option<usize> {
        let mut standing = None;
        for (worker, (heart, seen)) in self.hearts.iter().zip(&mut self.seen).enumerate() {
            let now = heart.beats.load(Ordering::Relaxed);
            if std::mem::replace(seen, now) == now && now != AT_REST {
                standing = standing.or(Some(worker));
            }
        }
        standing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_stands_still_is_noticed() {
        let hearts: Vec<Arc<Heart>> = (0..3).map(|_| Arc::default()).collect();
        let beat = |worker: usize| {
            hearts[worker].beats.fetch_add(1, Ordering::Relaxed);
        };
        let mut look = Look::new(hearts.clone());
        assert_eq!(look.standing(), None, "at the first look nothing has been missed");
        (0..3).for_each(beat);
        assert_eq!(look.standing(), None);
        [0, 2].into_iter().for_each(beat);
        assert_eq!(look.standing(), Some(1));
        assert_eq!(look.standing(), Some(0), "nor do the others go on");
        (0..3).for_each(beat);
        assert_eq!(look.standing(), None, "they do again");
        hearts[1].rest();
        [0, 2].into_iter().for_each(beat);
        assert_eq!(look.standing(), None);
        [0, 2].into_iter().for_each(beat);
        assert_eq!(look.standing(), None, "who has ended is not missed");
    }

    #[tokio::test]
    async fn a_heart_beats_only_for_a_watchdog() {
        Heart::default().beat().await;
        let heart = Heart { every: Some(Duration::from_millis(1)), ..Heart::default() };
        let beating = tokio::time::timeout(Duration::from_millis(200), heart.beat());
        assert!(beating.await.is_err());
        assert!(heart.beats.load(Ordering::Relaxed) > 3);
    }
}
