//! The disk of the simulation: [`Medium`] outlives processes, [`SimDisk`] is one worker's way to it.
//!
//! What it promises is what FORMAT.md, section 7, assumes, and nothing more:
//! - A sync makes durable what had completed when it was submitted. Anything else survives a crash or does not, each write for
//!   itself, each unit of it for itself, whatever the order.
//! - A durable write makes itself durable, and how long the file had become; nothing else.
//! - Of one page the later write wins: reads, and what survives, never go back behind what a sync has covered.
//! - The death of the process alone loses nothing that had completed, and makes nothing durable.
//! - A sync that fails loses what it covered, in part, when power fails; until then reads see it. Every other sync that covers
//!   it fails too. After that only a power failure ends the process: FORMAT.md, section 9, demands as much.
//! - Space that was allocated and not written reads as anything.

mod buffer;
mod damage;
mod faults;
mod layout;
mod medium;
mod pages;

use std::cell::{Ref, RefCell, RefMut};
use std::io;
use std::ops::Range;
use std::rc::Rc;

use keyhole_log::Disk;
use keyhole_log::limits::{BUFFER_LEN, PAGE};

pub use buffer::Buffer;
pub use damage::Affected;
pub use faults::{Crash, Faults, Lie, Survival};
pub(crate) use medium::Fuse;
pub use medium::Happened;

use crate::executor::Clock;
use crate::random::Random;
use medium::{State, What};

/// A medium: what is on it, what goes wrong with it.
pub struct Medium {
    state: RefCell<State>,
    clock: Rc<Clock>,
    pool: Rc<buffer::Pool>,
}

impl Medium {
    /// An empty one.
    pub fn new(clock: &Rc<Clock>, random: Random, faults: Faults) -> Rc<Self> {
        let state = RefCell::new(State::new(random, faults));
        Rc::new(Medium { state, clock: Rc::clone(clock), pool: Rc::default() })
    }

    fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    fn look(&self) -> Ref<'_, State> {
        self.state.borrow()
    }

    /// Whether the machine has stopped.
    pub fn is_dead(&self) -> bool {
        self.look().dead
    }

    /// What has happened so far.
    pub fn happened(&self) -> Happened {
        self.look().happened
    }

    /// Whether a write or a sync is under way.
    pub fn is_writing(&self) -> bool {
        let state = self.look();
        state.syncing > 0 || state.changes.values().any(|change| change.phase == medium::Phase::InFlight)
    }

    /// After so many events more the machine stops; `None`: it does not.
    pub fn stop_after(&self, events: Option<u64>) {
        let mut state = self.state();
        state.fuse = events.map_or(Fuse::Never, |events| Fuse::Event(state.happened.events + events));
    }

    /// Exchanges the faults; the result is what they were.
    pub fn set_faults(&self, faults: Faults) -> Faults {
        let mut state = self.state();
        // Where allocations do not fail there is space.
        state.no_space &= faults.full > 0;
        std::mem::replace(&mut state.faults, faults)
    }

    /// The machine stops here. Everything that used the medium has been dropped.
    pub fn crash(&self, how: Crash) {
        self.state().crash(how);
    }

    /// Damages what is on the medium, where power has failed. The result is what that affects.
    pub fn damage(&self, segment_len: u64) -> Affected {
        self.state().at_rest(|pages, random| damage::damage(pages, random, segment_len))
    }

    /// Whether only a power failure may end the process: something is in the cache that will never be on the disk.
    pub fn must_lose_power(&self) -> bool {
        let state = self.look();
        let lost = |phase| matches!(phase, medium::Phase::Failed | medium::Phase::Unsynced);
        state.happened.failed > 0 || state.changes.values().any(|change| lost(change.phase))
    }
}

/// One worker's way to the medium.
pub struct SimDisk {
    medium: Rc<Medium>,
}

impl SimDisk {
    /// To this medium.
    pub fn new(medium: &Rc<Medium>) -> Self {
        SimDisk { medium: Rc::clone(medium) }
    }

    /// Something begins, comes to its end, or is answered; the machine may stop here, for good.
    async fn event(&self) {
        if self.medium.state().event() {
            std::future::pending::<()>().await;
        }
    }

    async fn pause(&self) {
        let time = self.medium.state().duration();
        self.medium.clock.sleep(time).await;
        self.event().await;
    }

    /// A write, which comes to its end in this way.
    async fn write_as(
        &self,
        offset: u64,
        buf: Buffer,
        at: Range<usize>,
        done: fn(&mut State, u64),
    ) -> (io::Result<()>, Buffer) {
        check_alignment(offset, &at);
        self.event().await;
        let id = self.medium.state().submit(What::Write { offset, pages: pages::cut(&buf.as_ref()[at]) });
        self.pause().await;
        if self.fault(|faults| faults.write) {
            self.medium.state().fail(id);
            return (Err(self.failed("a write that failed")), buf);
        }
        done(&mut self.medium.state(), id);
        self.event().await;
        (Ok(()), buf)
    }

    /// Whether a fault happens that comes so often in 10,000 times.
    fn fault(&self, rate: impl FnOnce(&Faults) -> u64) -> bool {
        let mut state = self.medium.state();
        let rate = rate(&state.faults);
        state.random.rarely(rate)
    }

    fn failed(&self, what: &'static str) -> io::Error {
        let tick = self.medium.clock.tick();
        let mut state = self.medium.state();
        state.happened.failed += 1;
        state.happened.failed_at.get_or_insert(tick);
        io::Error::other(what)
    }
}

fn check_alignment(offset: u64, at: &Range<usize>) {
    let aligned = offset.is_multiple_of(PAGE as u64) && at.start.is_multiple_of(PAGE) && at.end.is_multiple_of(PAGE);
    assert!(aligned && !at.is_empty() && at.end <= BUFFER_LEN, "{offset} {at:?}");
}

impl Disk for SimDisk {
    type Buf = Buffer;

    fn buffer(&self) -> Buffer {
        self.medium.pool.take()
    }

    async fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        assert!(offset.is_multiple_of(PAGE as u64) && len.is_multiple_of(PAGE as u64), "{offset} {len}");
        self.event().await;
        self.medium.state().discard(offset, len);
        self.pause().await;
        Ok(())
    }

    async fn read(&self, offset: u64, mut buf: Buffer, at: Range<usize>) -> (io::Result<()>, Buffer) {
        check_alignment(offset, &at);
        self.event().await;
        self.pause().await;
        if self.fault(|faults| faults.read) {
            self.medium.state().happened.reads_failed += 1;
            return (Err(io::Error::other("a read that failed")), buf);
        }
        let state = self.medium.look();
        if offset + at.len() as u64 > state.current.len {
            return (Err(io::ErrorKind::UnexpectedEof.into()), buf);
        }
        state.current.read(offset, &mut buf.as_mut()[at]);
        drop(state);
        (Ok(()), buf)
    }

    async fn write(&self, offset: u64, buf: Buffer, at: Range<usize>) -> (io::Result<()>, Buffer) {
        self.write_as(offset, buf, at, State::write_done).await
    }

    async fn write_durable(&self, offset: u64, buf: Buffer, at: Range<usize>) -> (io::Result<()>, Buffer) {
        self.write_as(offset, buf, at, State::durable_write_done).await
    }

    async fn sync(&self) -> io::Result<()> {
        self.event().await;
        let covered = {
            let mut state = self.medium.state();
            state.syncing += 1;
            state.covered()
        };
        self.pause().await;
        let fault = self.fault(|faults| faults.sync);
        if !self.medium.state().sync_done(&covered, fault) {
            return Err(self.failed("a sync that failed"));
        }
        self.event().await;
        Ok(())
    }

    async fn len(&self) -> io::Result<u64> {
        Ok(self.medium.look().current.len)
    }

    async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        assert!(offset.is_multiple_of(PAGE as u64) && len.is_multiple_of(PAGE as u64), "{offset} {len}");
        self.event().await;
        let (full, space) = (self.fault(|faults| faults.full), self.fault(|faults| faults.space));
        {
            let mut state = self.medium.state();
            state.no_space = (state.no_space || full) && !space;
            if state.no_space && offset + len > state.current.len {
                state.happened.full += 1;
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let id = self.medium.state().submit(What::Grow { end: offset + len });
        self.pause().await;
        if self.fault(|faults| faults.allocate) {
            self.medium.state().fail(id);
            return Err(self.failed("an allocation that failed"));
        }
        self.medium.state().complete(id);
        self.event().await;
        Ok(())
    }
}
