//! The clock that retention is compared with.
//!
//! A wall clock that is set ahead would end retention early, so retention is not compared with it. The
//! lock clock advances with a clock that cannot be set and that counts suspended time
//! (`CLOCK_BOOTTIME`). It follows the wall clock by leaps of at most a limit, for the time that a node
//! was off and for corrections; the operator must accept a larger leap.
//!
//! # Invariants
//! - The lock clock never goes backwards.
//! - Without the operator it gains on the boot clock at most the limit once, and afterwards as much
//!   time as the boot clock has counted, whatever the wall clock shows: many small leaps end
//!   no retention either.

/// One reading of both clocks of a system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockReading {
    /// The wall clock, in ms since 1970.
    pub wall_ms: u64,
    /// The time since the system booted, in ms, including the time for which it was suspended.
    pub boot_ms: u64,
}

/// The state of the lock clock. The caller passes the readings of the clocks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockClock {
    /// The time at the last reading, in ms since 1970.
    now_ms: u64,
    /// The boot clock of the last reading.
    boot_ms: u64,
    /// The longest leap.
    leap_max_ms: u64,
    /// The longest leap at the moment; grows with the boot clock.
    allowance_ms: u64,
    /// The leap that the last reading asked for and that was refused; 0: none.
    refused_ms: u64,
}

impl LockClock {
    /// Starts the clock at the last durable time, or at the wall clock if there is none (`None`).
    pub fn new(saved_ms: Option<u64>, leap_max_ms: u64, reading: ClockReading) -> Self {
        let mut clock = LockClock {
            now_ms: saved_ms.unwrap_or(reading.wall_ms),
            boot_ms: reading.boot_ms,
            leap_max_ms,
            allowance_ms: leap_max_ms,
            refused_ms: 0,
        };
        clock.advance(reading);
        clock
    }

    /// Advances the clock to a reading. Returns its time.
    pub fn advance(&mut self, reading: ClockReading) -> u64 {
        let elapsed_ms = self.count(reading);
        self.allowance_ms = self.allowance_ms.saturating_add(elapsed_ms).min(self.leap_max_ms);
        let leap_ms = reading.wall_ms.saturating_sub(self.now_ms);
        if leap_ms <= self.allowance_ms {
            self.allowance_ms -= leap_ms;
            self.now_ms += leap_ms;
            self.refused_ms = 0;
        } else {
            self.refused_ms = leap_ms;
        }
        self.now_ms
    }

    /// Advances the clock to a reading, by a leap of any length, because the operator accepts the wall
    /// clock. Returns its time.
    pub fn accept(&mut self, reading: ClockReading) -> u64 {
        self.count(reading);
        self.now_ms = self.now_ms.max(reading.wall_ms);
        self.allowance_ms = self.leap_max_ms;
        self.refused_ms = 0;
        self.now_ms
    }

    /// Adds the time that the boot clock has counted since the last reading, and returns it.
    fn count(&mut self, reading: ClockReading) -> u64 {
        let elapsed_ms = reading.boot_ms.saturating_sub(self.boot_ms);
        self.boot_ms = self.boot_ms.max(reading.boot_ms);
        self.now_ms = self.now_ms.saturating_add(elapsed_ms);
        elapsed_ms
    }

    /// Returns the time of the last reading, in ms since 1970.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Returns by how much the wall clock was ahead at the last reading, if the clock did not follow
    /// it.
    pub fn refused_leap_ms(&self) -> Option<u64> {
        (self.refused_ms > 0).then_some(self.refused_ms)
    }
}

#[cfg(test)]
mod tests {
    use keyhole_sim::random::Random;

    use super::*;
    use crate::limits::LOCK_CLOCK_LEAP_MS;

    const HOUR_MS: u64 = 60 * 60 * 1000;
    const DAY_MS: u64 = 24 * HOUR_MS;
    const YEAR_MS: u64 = 365 * DAY_MS;
    /// 2026-11-23T00:00:00Z
    const START_MS: u64 = 1_795_392_000_000;

    fn at(wall_ms: u64, boot_ms: u64) -> ClockReading {
        ClockReading { wall_ms, boot_ms }
    }

    fn started() -> LockClock {
        LockClock::new(Some(START_MS), LOCK_CLOCK_LEAP_MS, at(START_MS, 0))
    }

    #[test]
    fn clock_follows_an_honest_wall_clock() {
        let mut clock = started();
        for second in 1..1000 {
            let ms = second * 1000;
            // Corrections of the wall clock in both directions.
            let wall_ms = START_MS + ms + second % 7;
            assert!(clock.advance(at(wall_ms, ms)) >= START_MS + ms);
            assert!(clock.now_ms() <= START_MS + ms + 6 && clock.refused_leap_ms().is_none(), "{second}");
        }
    }

    #[test]
    fn leap_is_believed_up_to_the_limit() {
        for (leap_ms, is_believed) in [
            (1, true),
            (LOCK_CLOCK_LEAP_MS, true),
            (LOCK_CLOCK_LEAP_MS + 1, false),
            (10 * YEAR_MS, false),
            (u64::MAX - START_MS, false),
        ] {
            let mut running = started();
            running.advance(at(START_MS + leap_ms, 0));
            let restarted = LockClock::new(Some(START_MS), LOCK_CLOCK_LEAP_MS, at(START_MS + leap_ms, 7));
            for clock in [running, restarted] {
                let expected = if is_believed { START_MS + leap_ms } else { START_MS };
                assert_eq!(clock.now_ms(), expected, "{leap_ms}");
                assert_eq!(clock.refused_leap_ms(), (!is_believed).then_some(leap_ms), "{leap_ms}");
            }
        }
    }

    #[test]
    fn refused_leap_is_never_believed_without_the_operator() {
        let mut clock = started();
        let ahead_ms = 10 * YEAR_MS;
        for day in 0..400 {
            let ms = day * DAY_MS;
            assert_eq!(clock.advance(at(START_MS + ahead_ms + ms, ms)), START_MS + ms, "{day}");
            assert_eq!(clock.refused_leap_ms(), Some(ahead_ms));
        }
        // The wall clock is set right again.
        assert_eq!(clock.advance(at(START_MS + 400 * DAY_MS, 400 * DAY_MS)), START_MS + 400 * DAY_MS);
        assert_eq!(clock.refused_leap_ms(), None);
    }

    #[test]
    fn operator_accepts_a_leap() {
        let mut clock = started();
        clock.advance(at(START_MS + YEAR_MS, 0));
        assert_eq!(clock.accept(at(START_MS + YEAR_MS, 5)), START_MS + YEAR_MS);
        assert_eq!((clock.now_ms(), clock.refused_leap_ms()), (START_MS + YEAR_MS, None));
        // Not backwards, even if the operator accepts an earlier time.
        assert_eq!(clock.accept(at(START_MS, 6)), START_MS + YEAR_MS + 1);
        assert_eq!(clock.advance(at(START_MS + YEAR_MS + DAY_MS, 6)), START_MS + YEAR_MS + DAY_MS);
    }

    #[test]
    fn clock_never_goes_backwards() {
        let mut clock = started();
        assert_eq!(clock.advance(at(0, 1000)), START_MS + 1000);
        assert_eq!(clock.advance(at(START_MS - YEAR_MS, 2000)), START_MS + 2000);
        // A boot clock that went back counts nothing until it is ahead again.
        assert_eq!(clock.advance(at(0, 0)), START_MS + 2000);
        assert_eq!(clock.advance(at(0, 2001)), START_MS + 2001);
        // At a start with a wall clock that is behind, the durable time counts.
        assert_eq!(LockClock::new(Some(START_MS), LOCK_CLOCK_LEAP_MS, at(0, 9)).now_ms(), START_MS);
        assert_eq!(LockClock::new(Some(u64::MAX), LOCK_CLOCK_LEAP_MS, at(0, 9)).advance(at(0, 10)), u64::MAX);
    }

    #[test]
    fn first_start_takes_the_wall_clock() {
        let clock = LockClock::new(None, LOCK_CLOCK_LEAP_MS, at(START_MS, 77));
        assert_eq!((clock.now_ms(), clock.refused_leap_ms()), (START_MS, None));
    }

    #[test]
    fn node_that_is_off_for_half_of_each_day_keeps_its_time() {
        let mut saved_ms = START_MS;
        for day in 1..100 {
            let morning_ms = START_MS + day * DAY_MS;
            let mut clock = LockClock::new(Some(saved_ms), LOCK_CLOCK_LEAP_MS, at(morning_ms, 0));
            assert_eq!(clock.now_ms(), morning_ms);
            saved_ms = clock.advance(at(morning_ms + DAY_MS / 2, DAY_MS / 2));
        }
    }

    #[test]
    fn many_leaps_gain_no_more_than_the_limit_and_the_time_that_passed() {
        let mut clock = started();
        let mut wall_ms = START_MS;
        for minute in 1..=24 * 60 {
            wall_ms += 60_000 + LOCK_CLOCK_LEAP_MS - 1;
            clock.advance(at(wall_ms, minute * 60_000));
        }
        assert!(clock.now_ms() <= START_MS + DAY_MS + LOCK_CLOCK_LEAP_MS + DAY_MS);
        assert!(clock.refused_leap_ms().is_some());
    }

    #[test]
    fn random_readings_keep_the_invariants() {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x10c4_u64);
        println!("SEED={seed}");
        let mut random = Random::new(seed);
        for _ in 0..500 {
            let mut clock = started();
            let mut boot_ms = 0;
            let mut before_ms = clock.now_ms();
            for _ in 0..100 {
                let step_ms = random.below(2 * HOUR_MS);
                boot_ms += step_ms;
                let wall_ms = match random.below(4) {
                    0 => random.below(4 * START_MS),
                    1 => clock.now_ms() + random.below(2 * LOCK_CLOCK_LEAP_MS),
                    2 => clock.now_ms().saturating_sub(random.below(YEAR_MS)),
                    _ => START_MS + boot_ms,
                };
                let now_ms = clock.advance(at(wall_ms, boot_ms));
                assert!(now_ms >= before_ms + step_ms, "time that passed counts");
                assert!(now_ms <= START_MS + 2 * boot_ms + LOCK_CLOCK_LEAP_MS, "{now_ms} after {boot_ms}");
                if clock.refused_leap_ms().is_none() {
                    assert!(now_ms >= wall_ms, "it follows the wall clock unless it refuses to");
                }
                before_ms = now_ms;
            }
        }
    }
}
