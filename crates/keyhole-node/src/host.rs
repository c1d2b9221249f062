//! The node's access to clocks and random bytes.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};

use crate::secret::wipe_stack;

/// The clocks, the timer and the random generator of a system.
pub trait Services {
    /// Returns the milliseconds since 1970-01-01T00:00:00Z.
    fn now_ms(&self) -> u64;

    /// Returns the time of a monotonic clock, for measuring durations.
    fn instant(&self) -> Instant;

    /// Returns a future that is ready after this time.
    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()>>>;

    /// Returns a future that is ready once the other tasks have run whose events have arrived. The
    /// default lets the tasks run that are already woken.
    fn turn(&self) -> Pin<Box<dyn Future<Output = ()>>> {
        let mut is_over = false;
        Box::pin(poll_fn(move |context| {
            if std::mem::replace(&mut is_over, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }))
    }

    /// Fills `bytes` from a cryptographic generator.
    fn random(&self, bytes: &mut [u8]);

    /// Wipes the stack below the tasks of the node, at once or before the thread next waits. The
    /// node calls this after each request that may have carried a key.
    fn wipe_stack(&self) {
        wipe_stack();
    }
}

/// The [`Services`] of a node. Cloning shares them.
#[derive(Clone)]
pub struct Host(Rc<dyn Services>);

impl Host {
    /// Wraps the services of a system.
    pub fn new(services: impl Services + 'static) -> Self {
        Host(Rc::new(services))
    }

    /// Returns the milliseconds since 1970-01-01T00:00:00Z.
    pub fn now_ms(&self) -> u64 {
        self.0.now_ms()
    }

    /// Returns the time of a monotonic clock, for measuring durations.
    pub fn instant(&self) -> Instant {
        self.0.instant()
    }

    /// Waits until the other tasks have run whose events have arrived.
    pub(crate) async fn turn(&self) {
        self.0.turn().await;
    }

    /// Wipes the stack below the tasks of the node, at once or before the thread next waits.
    pub(crate) fn wipe_stack(&self) {
        self.0.wipe_stack();
    }

    /// Runs a future for at most this time. Returns `None` on timeout.
    pub(crate) async fn timeout<T>(&self, time: Duration, future: impl Future<Output = T>) -> Option<T> {
        match select(pin!(future), self.0.sleep(time)).await {
            Either::Left((output, _)) => Some(output),
            Either::Right(((), _)) => None,
        }
    }

    /// Fills `bytes` from the cryptographic generator.
    pub fn random(&self, bytes: &mut [u8]) {
        self.0.random(bytes);
    }

    /// Returns `N` random bytes.
    pub fn random_array<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.random(&mut bytes);
        bytes
    }
}
