//! The MD5s of the plaintext bodies that a worker stores at the same time, computed side by side.
//!
//! A body lends its buffer to the lanes and takes it back when its bytes are hashed. Meanwhile the
//! worker takes turns: first the other connections run whose bytes have arrived, then one slice of
//! each lent buffer is hashed. A body that sends slowly is not there at a turn and delays nobody.

use std::cell::{Cell, RefCell};
use std::ops::Range;

use keyhole_md5::{Md5, update_all};

use crate::host::Host;
use crate::limits::{MD5_EXPECTANT_SLICES, MD5_SLICE};

/// The buffers of a worker that are to be hashed.
pub(crate) struct EtagLanes<B> {
    /// Number of bodies that are being received.
    bodies: Cell<usize>,
    /// Slices of lone bodies before no other body is expected.
    expectant: Cell<usize>,
    jobs: RefCell<Vec<Job<B>>>,
    /// The number of the next job.
    next: Cell<u64>,
    /// Number of slices so far.
    slices: Cell<u64>,
}

/// A lent buffer.
struct Job<B> {
    number: u64,
    md5: Md5,
    buf: B,
    /// The bytes that are not hashed yet.
    rest: Range<usize>,
}

impl<B> Default for EtagLanes<B> {
    fn default() -> Self {
        EtagLanes {
            bodies: Cell::new(0),
            expectant: Cell::new(0),
            jobs: RefCell::default(),
            next: Cell::new(0),
            slices: Cell::new(0),
        }
    }
}

impl<B: AsRef<[u8]>> EtagLanes<B> {
    /// Begins the MD5 of a body.
    pub(crate) fn begin<'n>(&'n self, host: &'n Host) -> BodyMd5<'n, B> {
        self.bodies.set(self.bodies.get() + 1);
        if self.bodies.get() > 1 {
            self.expectant.set(MD5_EXPECTANT_SLICES);
        }
        BodyMd5 { lanes: self, host, md5: Md5::new() }
    }

    /// Returns whether other bodies are being received, or were a moment ago.
    fn expects_others(&self) -> bool {
        self.bodies.get() > 1 || self.expectant.get() > 0
    }

    /// Hashes a slice of each lent buffer.
    fn advance(&self) {
        self.slices.set(self.slices.get() + 1);
        let mut jobs = self.jobs.borrow_mut();
        if self.bodies.get() == 1 {
            self.expectant.set(self.expectant.get().saturating_sub(1));
        }
        let slices = jobs.iter_mut().filter(|job| !job.rest.is_empty()).map(|job| {
            let end = job.rest.end.min(job.rest.start + MD5_SLICE);
            let slice = &job.buf.as_ref()[job.rest.start..end];
            job.rest.start = end;
            (&mut job.md5, slice)
        });
        update_all(&mut slices.collect::<Vec<_>>());
    }

    fn lend(&self, md5: Md5, buf: B, rest: Range<usize>) -> Lent<'_, B> {
        let number = self.next.get();
        self.next.set(number + 1);
        self.jobs.borrow_mut().push(Job { number, md5, buf, rest });
        Lent { lanes: self, number }
    }
}

/// A buffer that the lanes have. Takes it back on drop: the request has ended.
struct Lent<'n, B> {
    lanes: &'n EtagLanes<B>,
    number: u64,
}

impl<B> Lent<'_, B> {
    /// Takes the buffer back if all its bytes are hashed.
    fn take_if_hashed(&self) -> Option<Job<B>> {
        let mut jobs = self.lanes.jobs.borrow_mut();
        let at = jobs.iter().position(|job| job.number == self.number && job.rest.is_empty())?;
        Some(jobs.swap_remove(at))
    }
}

impl<B> Drop for Lent<'_, B> {
    fn drop(&mut self) {
        self.lanes.jobs.borrow_mut().retain(|job| job.number != self.number);
    }
}

/// The MD5 of a body.
pub(crate) struct BodyMd5<'n, B> {
    lanes: &'n EtagLanes<B>,
    host: &'n Host,
    md5: Md5,
}

impl<B: AsRef<[u8]>> BodyMd5<'_, B> {
    /// Adds the bytes `buf[at]`, together with those of other bodies that have arrived.
    pub(crate) async fn update(&mut self, buf: B, at: Range<usize>) -> B {
        if !self.lanes.expects_others() {
            self.md5.update(&buf.as_ref()[at]);
            return buf;
        }
        let lent = self.lanes.lend(std::mem::take(&mut self.md5), buf, at);
        loop {
            let slices = self.lanes.slices.get();
            self.host.turn().await;
            // One of the waiting bodies hashes for all.
            if self.lanes.slices.get() == slices {
                self.lanes.advance();
            }
            if let Some(job) = lent.take_if_hashed() {
                self.md5 = job.md5;
                return job.buf;
            }
        }
    }

    /// Returns the MD5 of all bytes.
    pub(crate) fn finish(mut self) -> [u8; 16] {
        std::mem::take(&mut self.md5).finish()
    }
}

impl<B> Drop for BodyMd5<'_, B> {
    fn drop(&mut self) {
        self.lanes.bodies.set(self.lanes.bodies.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::time::{Duration, Instant};

    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use futures_util::poll;
    use keyhole_s3::body::{Digester, Wanted};

    use super::*;
    use crate::host::Services;

    struct Turning;

    impl Services for Turning {
        fn now_ms(&self) -> u64 {
            0
        }

        fn instant(&self) -> Instant {
            unreachable!("hashing takes no time")
        }

        fn sleep(&self, _time: Duration) -> Pin<Box<dyn Future<Output = ()>>> {
            unreachable!("hashing waits for no time")
        }

        fn random(&self, _bytes: &mut [u8]) {
            unreachable!("hashing uses no random bytes")
        }
    }

    fn bytes(len: usize) -> Vec<u8> {
        let mut rng = fastrand::Rng::with_seed(len as u64);
        std::iter::repeat_with(|| rng.u8(..)).take(len).collect()
    }

    fn expected(bytes: &[u8]) -> Option<[u8; 16]> {
        let mut digester = Digester::undeclared(Wanted::Md5, None);
        digester.update(bytes);
        digester.finish().unwrap().md5
    }

    #[tokio::test]
    async fn bodies_at_once_get_their_buffers_and_digests() {
        let lanes = EtagLanes::default();
        let host = Host::new(Turning);
        let bodies = [1, 1000, MD5_SLICE, MD5_SLICE + 1, 5 * MD5_SLICE + 3].map(|len| {
            let mut md5 = lanes.begin(&host);
            async move {
                let whole = bytes(len);
                let buf = md5.update(whole.clone(), 0..len / 3).await;
                let buf = md5.update(buf, len / 3..len).await;
                assert!(buf == whole);
                assert_eq!(Some(md5.finish()), expected(&whole), "{len}");
            }
        });
        join_all(bodies).await;
        assert_eq!((lanes.bodies.get(), lanes.jobs.borrow().len()), (0, 0));
    }

    #[test]
    fn lone_body_is_hashed_without_a_turn() {
        let lanes = EtagLanes::default();
        let host = Host::new(Turning);
        let mut md5 = lanes.begin(&host);
        assert!(md5.update(bytes(9), 0..9).now_or_never().is_some());
        assert_eq!((Some(md5.finish()), lanes.slices.get()), (expected(&bytes(9)), 0));
    }

    #[tokio::test]
    async fn dropped_body_takes_its_buffer_back() {
        let lanes = EtagLanes::default();
        let host = Host::new(Turning);
        let whole = bytes(3 * MD5_SLICE);
        let mut left = lanes.begin(&host);
        let mut right = lanes.begin(&host);
        let mut leaving = Box::pin(left.update(whole.clone(), 0..whole.len()));
        let mut staying = Box::pin(right.update(whole.clone(), 0..whole.len()));
        for _ in 0..2 {
            assert!(poll!(leaving.as_mut()).is_pending());
            assert!(poll!(staying.as_mut()).is_pending());
        }
        assert_eq!(lanes.jobs.borrow().len(), 2);
        drop(leaving);
        drop(left);
        assert_eq!((lanes.bodies.get(), lanes.jobs.borrow().len()), (1, 1));
        assert!(staying.await == whole);
        assert_eq!(Some(right.finish()), expected(&whole));
    }
}
