//! The fixed clock and the seeded random generator of the tests.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use keyhole_node::Services;
use keyhole_sim::executor::Clock;
use keyhole_sim::random::Random;

use super::NOW_MS;

/// A wall clock that stands still, timers in virtual time, and seeded random bytes.
pub(crate) struct FixedHost {
    now_ms: u64,
    clock: Rc<Clock>,
    began: Instant,
    random: RefCell<Random>,
}

impl FixedHost {
    pub(crate) fn new(clock: Rc<Clock>, random: Random) -> Self {
        Self::at(NOW_MS, clock, random)
    }

    /// Creates a host whose wall clock shows this time.
    pub(crate) fn at(now_ms: u64, clock: Rc<Clock>, random: Random) -> Self {
        FixedHost { now_ms, clock, began: Instant::now(), random: RefCell::new(random) }
    }
}

impl Services for FixedHost {
    fn now_ms(&self) -> u64 {
        self.now_ms
    }

    fn instant(&self) -> Instant {
        self.began + Duration::from_millis(self.clock.now())
    }

    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()>>> {
        let clock = self.clock.clone();
        let time_ms = u64::try_from(time.as_millis()).expect("a short time");
        Box::pin(async move { clock.sleep(time_ms).await })
    }

    fn random(&self, bytes: &mut [u8]) {
        let mut random = self.random.borrow_mut();
        bytes.iter_mut().for_each(|byte| *byte = random.below(256) as u8);
    }
}
