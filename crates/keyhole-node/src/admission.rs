//! Admission control: each worker has a fixed share of memory. Requests wait for theirs, up to a
//! limit, and are then told to slow down.
//!
//! Long bodies take whole blocks. Short bodies, which the log stores in their records, take pages
//! from a separate pool, so neither kind waits for the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use keyhole_log::limits::{BLOCK_DATA, INLINE_MAX, PAGE};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::failure::{Result, slow_down};
use crate::host::Host;
use crate::limits::{
    BLOCKS_MIN, BLOCKS_PER_COPY, BLOCKS_PER_DOWNLOAD, BLOCKS_PER_UPLOAD, BLOCKS_PER_WORKER, PAGES_MIN,
    PAGES_PER_WORKER, WAIT_MAX_S, WAITERS_PER_WORKER,
};

/// Memory limits of one worker's requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// Blocks for long bodies, from [`BLOCKS_MIN`] to [`BLOCKS_PER_WORKER`].
    pub blocks: usize,
    /// Pages for short bodies, from [`PAGES_MIN`] to [`PAGES_PER_WORKER`].
    pub pages: usize,
}

impl Share {
    /// The smallest share that admits every request eventually.
    pub const MIN: Share = Share { blocks: BLOCKS_MIN, pages: PAGES_MIN };
    /// The largest useful share.
    pub const MAX: Share = Share { blocks: BLOCKS_PER_WORKER, pages: PAGES_PER_WORKER };
}

/// The memory pools of one worker.
pub(crate) struct Admission {
    share: Share,
    /// Free blocks for long bodies.
    blocks: Semaphore,
    /// Free pages for short bodies.
    pages: Semaphore,
    /// Requests that wait for either.
    waiters: AtomicUsize,
}

/// A handle for reading the memory use of a worker.
pub struct Gauge(Arc<Admission>);

/// The memory use of a worker.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Load {
    /// Blocks in use, of those of its [`Share`].
    pub blocks: usize,
    /// Pages in use, of those of its [`Share`].
    pub pages: usize,
    /// Requests that wait for memory, at most [`WAITERS_PER_WORKER`].
    pub waiters: usize,
}

impl Gauge {
    pub(crate) fn new(admission: Arc<Admission>) -> Self {
        Gauge(admission)
    }

    /// Reads the current values.
    pub fn read(&self) -> Load {
        let Admission { share, blocks, pages, waiters } = &*self.0;
        Load {
            blocks: share.blocks - blocks.available_permits(),
            pages: share.pages - pages.available_permits(),
            // A request that is turned away is counted for a moment.
            waiters: waiters.load(Ordering::Relaxed).min(WAITERS_PER_WORKER),
        }
    }
}

/// Memory reserved by a request, until dropped.
pub(crate) struct Admitted<'a> {
    _permit: SemaphorePermit<'a>,
    is_short: bool,
}

impl<'a> Admitted<'a> {
    /// Releases the reservation of a long body, which is written. A short body keeps it: the body
    /// is part of a record that is still to be written.
    pub(crate) fn written(self) -> Option<Self> {
        self.is_short.then_some(self)
    }
}

impl Admission {
    pub(crate) fn new(share: Share) -> Self {
        assert!(share.blocks >= BLOCKS_MIN && share.pages >= PAGES_MIN, "no request may wait for ever: {share:?}");
        Admission {
            share,
            blocks: Semaphore::new(share.blocks),
            pages: Semaphore::new(share.pages),
            waiters: AtomicUsize::new(0),
        }
    }

    /// Returns whether less than half of the memory for bodies of this length is free.
    pub(crate) fn is_scarce(&self, len: u64) -> bool {
        if len <= INLINE_MAX as u64 {
            self.pages.available_permits() < self.share.pages / 2
        } else {
            self.blocks.available_permits() < self.share.blocks / 2
        }
    }

    /// Reserves memory to receive a body of at most `len` bytes.
    pub(crate) async fn body(&self, len: u64, host: &Host) -> Result<Admitted<'_>> {
        self.admit(len, blocks(len).min(BLOCKS_PER_UPLOAD), host).await
    }

    /// Reserves memory to send `len` bytes of an object, which is read in fractions of a block.
    pub(crate) async fn read(&self, len: u64, host: &Host) -> Result<Admitted<'_>> {
        self.admit(len, 1, host).await
    }

    /// Reserves memory to send `len` bytes of a sealed object file, which is read in whole blocks.
    pub(crate) async fn read_sealed(&self, len: u64, host: &Host) -> Result<Admitted<'_>> {
        self.admit(len, BLOCKS_PER_DOWNLOAD, host).await
    }

    /// Reserves memory to copy a body of `len` bytes.
    pub(crate) async fn copy(&self, len: u64, host: &Host) -> Result<Admitted<'_>> {
        // Both the source and the destination.
        self.admit(len.saturating_mul(2), BLOCKS_PER_COPY, host).await
    }

    /// Waits until the memory is free, in order of arrival, for at most [`WAIT_MAX_S`]. Acquires
    /// all of it at once, so that no two requests can deadlock.
    async fn admit(&self, len: u64, blocks: usize, host: &Host) -> Result<Admitted<'_>> {
        let is_short = len <= INLINE_MAX as u64;
        let (semaphore, count) =
            if is_short { (&self.pages, 1 + (len as usize).div_ceil(PAGE)) } else { (&self.blocks, blocks) };
        let count = u32::try_from(count).expect("a request takes little memory");
        if let Ok(permit) = semaphore.try_acquire_many(count) {
            return Ok(Admitted { _permit: permit, is_short });
        }
        let waiting = Waiting::new(&self.waiters)?;
        let wait_max = Duration::from_secs(WAIT_MAX_S);
        let permit = host.timeout(wait_max, semaphore.acquire_many(count)).await.ok_or_else(slow_down)?;
        let permit = permit.map_err(|_| slow_down())?;
        drop(waiting);
        Ok(Admitted { _permit: permit, is_short })
    }
}

/// Returns the number of blocks of a body.
fn blocks(len: u64) -> usize {
    usize::try_from(len.div_ceil(BLOCK_DATA as u64)).unwrap_or(usize::MAX).max(1)
}

/// Counts a waiter; uncounts it on drop, also when the wait is cancelled.
struct Waiting<'w>(&'w AtomicUsize);

impl<'w> Waiting<'w> {
    /// Adds a waiter, unless there are too many.
    fn new(waiters: &'w AtomicUsize) -> Result<Self> {
        let waiting = Waiting(waiters);
        if waiters.fetch_add(1, Ordering::Relaxed) < WAITERS_PER_WORKER { Ok(waiting) } else { Err(slow_down()) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures_util::FutureExt;
    use keyhole_s3::ErrorCode;
    use tokio::time::Instant;

    use super::*;
    use crate::failure::Failure;
    use crate::host::Services;

    const SHORT: u64 = INLINE_MAX as u64;

    /// Returns a host with the timer of the test's runtime.
    fn host() -> &'static Host {
        struct Timer;
        impl Services for Timer {
            fn now_ms(&self) -> u64 {
                0
            }

            fn instant(&self) -> std::time::Instant {
                Instant::now().into()
            }

            fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()>>> {
                Box::pin(tokio::time::sleep(time))
            }

            fn random(&self, _bytes: &mut [u8]) {
                unreachable!("admission uses no random bytes")
            }
        }
        Box::leak(Box::new(Host::new(Timer)))
    }

    fn now<T>(admitted: impl Future<Output = Result<T>>) -> Option<Result<T>> {
        admitted.now_or_never()
    }

    #[tokio::test]
    async fn long_bodies_leave_memory_to_short_ones() {
        let admission = Admission::new(Share::MAX);
        let long: Vec<_> =
            std::iter::from_fn(|| now(admission.body(1 << 30, host())).map(|long| long.unwrap_or_else(|_| panic!())))
                .collect();
        assert_eq!(long.len(), BLOCKS_PER_WORKER / BLOCKS_PER_UPLOAD);
        assert_eq!(now(admission.read_sealed(SHORT + 1, host())).is_some(), BLOCKS_PER_WORKER % BLOCKS_PER_UPLOAD >= 2);
        assert!(now(admission.body(SHORT, host())).is_some() && now(admission.read(SHORT, host())).is_some());
    }

    #[tokio::test]
    async fn body_reserves_as_many_blocks_as_it_has() {
        let admission = Admission::new(Share::MAX);
        let one = SHORT + 1;
        let held: Vec<_> = std::iter::from_fn(|| now(admission.body(one, host()))).collect();
        assert_eq!(held.len(), BLOCKS_PER_WORKER);
        drop(held);
        let held: Vec<_> = std::iter::from_fn(|| now(admission.body(BLOCK_DATA as u64 + 1, host()))).collect();
        assert_eq!(held.len(), BLOCKS_PER_WORKER / 2);
    }

    #[tokio::test]
    async fn short_bodies_are_bounded_by_their_bytes() {
        let admission = Admission::new(Share::MAX);
        let held: Vec<_> = std::iter::from_fn(|| now(admission.body(SHORT, host()))).collect();
        assert_eq!(held.len(), PAGES_PER_WORKER / (1 + INLINE_MAX / PAGE));
        drop(held);
        let held: Vec<_> = std::iter::from_fn(|| now(admission.body(0, host()))).collect();
        assert_eq!(held.len(), PAGES_PER_WORKER);
    }

    #[test]
    fn short_body_keeps_its_reservation_when_written() {
        let admission = Admission::new(Share::MAX);
        let Some(Ok(short)) = now(admission.body(1, host())) else { panic!("there is room") };
        let held = short.written();
        assert!(held.is_some());
        assert_eq!(admission.pages.available_permits(), PAGES_PER_WORKER - 2);
        let Some(Ok(long)) = now(admission.body(SHORT + 1, host())) else { panic!("there is room") };
        assert!(long.written().is_none());
        assert_eq!(admission.blocks.available_permits(), BLOCKS_PER_WORKER);
    }

    #[test]
    fn smallest_share_admits_every_request() {
        let admission = Admission::new(Share::MIN);
        let long = 1 << 40;
        assert!(now(admission.body(long, host())).is_some());
        assert!(now(admission.copy(long, host())).is_some());
        assert!(now(admission.read(long, host())).is_some() && now(admission.read_sealed(long, host())).is_some());
        assert!(now(admission.body(SHORT, host())).is_some() && now(admission.copy(SHORT / 2, host())).is_some());
        let gauge = Gauge::new(Arc::new(Admission::new(Share { blocks: 9, pages: 200 })));
        let held = now(gauge.0.copy(long, host()));
        assert_eq!(gauge.read(), Load { blocks: BLOCKS_PER_COPY, pages: 0, waiters: 0 });
        assert!(held.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn wait_for_memory_times_out() {
        let admission = Arc::new(Admission::new(Share::MIN));
        let gauge = Gauge::new(admission.clone());
        let begun = Instant::now();
        let held = admission.copy(1 << 30, host()).await;
        let waited = admission.body(1 << 30, host()).await;
        assert_eq!(begun.elapsed().as_secs(), WAIT_MAX_S);
        let Err(Failure::Reply(error)) = waited else { panic!("there is no room") };
        assert_eq!(error.code, ErrorCode::SlowDown);
        assert_eq!(gauge.read().waiters, 0);
        // A request that is admitted in time succeeds.
        let release = async {
            tokio::time::sleep(Duration::from_millis(WAIT_MAX_S * 1000 - 1)).await;
            drop(held);
        };
        let (admitted, ()) = tokio::join!(admission.body(1 << 30, host()), release);
        assert!(admitted.is_ok());
    }

    #[tokio::test]
    async fn requests_beyond_waiters_limit_are_refused() {
        let admission = Arc::new(Admission::new(Share::MAX));
        let gauge = Gauge::new(admission.clone());
        assert_eq!(gauge.read(), Load::default());
        let _held: Vec<_> = std::iter::from_fn(|| now(admission.body(SHORT + 1, host()))).collect();
        let mut waiting: Vec<_> =
            (0..WAITERS_PER_WORKER).map(|_| Box::pin(admission.body(SHORT + 1, host()))).collect();
        assert!(waiting.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
        assert!(matches!(now(admission.body(SHORT + 1, host())), Some(Err(_))));
        let short = now(admission.body(1, host()));
        assert_eq!(gauge.read(), Load { blocks: BLOCKS_PER_WORKER, pages: 2, waiters: WAITERS_PER_WORKER });
        drop(short);
        waiting.pop();
        assert_eq!(gauge.read(), Load { blocks: BLOCKS_PER_WORKER, pages: 0, waiters: WAITERS_PER_WORKER - 1 });
        assert!(now(admission.body(SHORT + 1, host())).is_none(), "one waits no longer");
    }
}
