//! Crashes: the end of a process, and power failures.

use keyhole_log::limits::PAGE;

use super::faults::{Crash, Survival};
use super::medium::{Change, ChangeKind, Fuse, MediumState, Phase};

impl MediumState {
    /// Stops the machine. All users of the medium must have been dropped.
    pub(super) fn crash(&mut self, how: Crash) {
        match how {
            Crash::Process => self.end_process(),
            Crash::Power(survival) => self.fail_power(survival),
        }
        self.dead = false;
        self.fuse = Fuse::Never;
        self.syncing = 0;
        self.counters.failed = 0;
        self.counters.failed_at = None;
    }

    /// Completes or loses each operation in flight.
    fn end_process(&mut self) {
        let in_flight = |change: &&Change| change.phase == Phase::InFlight;
        let in_flight: Vec<u64> =
            self.changes.iter().filter(|(_, change)| in_flight(change)).map(|(&id, _)| id).collect();
        for id in in_flight {
            match self.random.below(3) {
                0 => {
                    self.changes.remove(&id);
                }
                1 => self.complete(id),
                _ => self.complete_in_part(id),
            }
        }
    }

    fn fail_power(&mut self, survival: Survival) {
        let changes = std::mem::take(&mut self.changes);
        let count = changes.len() as u64;
        let unit = self.faults.tear;
        let mut latest = 0;
        // Determine the file length first: writes past its end are lost.
        for (i, (&id, Change { kind, phase })) in (0..).zip(&changes) {
            let ChangeKind::Grow { from, end } = kind else { continue };
            let survives = match survival {
                Survival::Nothing => false,
                Survival::Everything => true,
                Survival::Chosen(survivors) => survivors.has_whole(i),
                _ => self.random.chance(50),
            };
            // An unanswered allocation may have extended the file only part of the way.
            let half = self.faults.half_grown && *phase == Phase::InFlight && self.random.chance(30);
            let pages = end.saturating_sub(self.current.len) / PAGE as u64;
            let end = if half { *end - self.random.below(pages + 1) * PAGE as u64 } else { *end };
            if survives {
                self.durable.grow(end, &self.garbage);
                self.space.harden_allocation(&self.faults, *from, end.max(*from));
                latest = id;
            }
        }
        for (i, (&id, Change { kind, .. })) in (0..).zip(&changes) {
            let ChangeKind::Write { offset, pages } = kind else { continue };
            let percent = match survival {
                Survival::Nothing => 0,
                Survival::Everything => 100,
                Survival::Writes => 100 * self.random.below(2),
                Survival::Parts => 10 + self.random.below(90),
                Survival::Mixed => *self.random.pick(&[0, 0, 50, 97, 100, 100]),
                Survival::Latest if i + 3 >= count => 100,
                Survival::Latest => 100 * self.random.below(2) * self.random.below(2),
                Survival::Chosen(survivors) if survivors.has_whole(i) => 100,
                Survival::Chosen(survivors) => 50 * u64::from(survivors.has_any(i)),
            };
            if percent > 0 {
                latest = latest.max(id);
                self.space.harden(*offset, (pages.len() * PAGE) as u64);
            }
            match percent {
                0 => {}
                100 => self.durable.put(*offset, pages),
                _ => {
                    let random = &mut self.random;
                    let units = pages.len() * PAGE / unit;
                    let mut next = 0..units;
                    let chosen = || match (survival, next.next()) {
                        (Survival::Chosen(survivors), Some(unit)) => survivors.has_unit(i, unit, units),
                        _ => random.chance(percent),
                    };
                    self.durable.put_torn(*offset, pages, unit, chosen);
                }
            }
        }
        // File systems keep the order of metadata changes: an earlier allocation survives with any
        // later one.
        for Change { kind, phase } in changes.range(..latest).map(|(_, change)| change) {
            if let (ChangeKind::Grow { from, end }, Phase::Completed) = (kind, phase) {
                self.space.harden_allocation(&self.faults, *from, *end);
            }
        }
        self.space.fail_power(self.durable.len);
        self.current = self.durable.clone();
    }
}
