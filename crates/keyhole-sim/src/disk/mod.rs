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
//! - A file system has the space that others leave ([`FileSystem`]). An operation without space fails at once with `StorageFull`,
//!   changes nothing that was acknowledged, and may succeed later. A write that fails so has written any part of itself.
//! - A bad place fails each time with `EIO`: reads until it is written again if the medium heals, writes for good. A medium that
//!   has become read-only answers everything that changes it with `EROFS`, and reads as before.

mod buffer;
mod damage;
mod faults;
mod layout;
mod medium;
mod pages;
mod rot;
mod space;
mod spots;

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::io;
use std::ops::Range;
use std::rc::Rc;

use keyhole_log::Disk;
use keyhole_log::limits::{BUFFER_LEN, CHECKPOINTS_KEPT, PAGE, SUPERBLOCK_AT};

pub use buffer::Buffer;
pub use damage::Affected;
pub use faults::{Crash, Faults, Lie, Survival};
pub(crate) use medium::Fuse;
pub use medium::Happened;
pub use rot::Rot;
pub use space::FileSystem;

use crate::executor::Clock;
use crate::random::Random;
use medium::{State, What};
use spots::{EIO, EROFS};

/// Operations of one disk that fail for want of space in a row, while nothing is changed through it: so many, and so many more
/// for each operation that clients begin meanwhile. An operation asks for space once again, for its body and for its record.
const REFUSED_MAX: u64 = 20;
const REFUSED_EACH_MAX: u64 = 6;

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

    /// Whether the file system was full at some time since, after an operation had failed for that.
    pub fn was_short_since(&self, then: &Happened) -> bool {
        let state = self.look();
        state.happened.full > then.full || state.space.is_short_since(then.neighbour)
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

    /// Exchanges the faults; the result is what they were. Bad places stay.
    pub fn set_faults(&self, faults: Faults) -> Faults {
        std::mem::replace(&mut self.state().faults, faults)
    }

    /// Makes the pages at these offsets unreadable.
    pub fn add_unreadable(&self, pages: &[u64]) {
        let mut state = self.state();
        pages.iter().for_each(|at| state.spots.add_unreadable(*at));
    }

    /// Makes the pages at these offsets unwritable.
    pub fn add_unwritable(&self, pages: &[u64]) {
        let mut state = self.state();
        pages.iter().for_each(|at| state.spots.add_unwritable(*at));
    }

    /// Offsets of the pages that cannot be read.
    pub fn unreadable(&self) -> Vec<u64> {
        self.look().spots.unreadable()
    }

    /// After so many events more the medium takes no writes.
    pub fn turn_read_only_after(&self, events: u64) {
        let mut state = self.state();
        state.spots.read_only_at = Some(state.happened.events + events);
    }

    /// Whether the medium takes no writes any more.
    pub fn is_read_only(&self) -> bool {
        self.look().is_read_only()
    }

    /// A page cannot be written any more: where something has been written, or right behind. The result is its offset.
    pub fn wear(&self) -> Option<u64> {
        let at = self.state().at_rest(rot::wear)?;
        self.add_unwritable(&[at]);
        Some(at)
    }

    /// All places can be written again.
    pub fn end_wear(&self) {
        self.state().spots.end_wear();
    }

    /// The medium takes writes again.
    pub fn end_read_only(&self) {
        self.state().spots.read_only_at = None;
    }

    /// Forgets the writes that have failed so far: whoever was told goes on without them.
    pub fn forgive_writes(&self) {
        let mut state = self.state();
        (state.happened.failed, state.happened.failed_at) = (0, None);
    }

    /// Puts sound cells in place of all bad ones: what they held can be read again, and everything can be written.
    pub fn mend(&self) {
        self.state().spots.clear();
    }

    /// The machine stops here. Everything that used the medium has been dropped.
    pub fn crash(&self, how: Crash) {
        self.state().crash(how);
    }

    /// Damages what is on the medium, where power has failed. The result is what that affects.
    pub fn damage(&self, segment_len: u64) -> Affected {
        self.state().at_rest(|pages, random| damage::damage(pages, random, segment_len))
    }

    /// A page cannot be read any more, where power has failed. The result is what that affects.
    pub fn rot(&self, segment_len: u64) -> Option<Rot> {
        if self.is_spoiled() {
            return None;
        }
        let rot = self.state().at_rest(|pages, random| rot::rot(pages, random, segment_len))?;
        // One copy of the superblock has to be good.
        if SUPERBLOCK_AT.iter().any(|copy| rot.pages.contains(copy)) && !self.has_two_superblocks() {
            return None;
        }
        self.add_unreadable(&rot.pages);
        Some(rot)
    }

    /// Whether both copies of the superblock can be read and say the same.
    fn has_two_superblocks(&self) -> bool {
        let mut state = self.state();
        let readable = SUPERBLOCK_AT.iter().all(|copy| !state.spots.is_unreadable(*copy, PAGE as u64));
        let [first, second] = SUPERBLOCK_AT;
        readable && state.at_rest(|pages, _| pages.bytes(first, PAGE) == pages.bytes(second, PAGE))
    }

    /// Panics if not all is there that the checkpoints refer to, where power has failed; `made`: checkpoints that were completed.
    pub fn check_checkpoints(&self, made: u64) {
        if self.is_spoiled() {
            return;
        }
        let there = self.state().at_rest(|pages, _| {
            layout::check_checkpoints(pages);
            layout::pointers(pages).iter().filter(|pointer| **pointer != 0).count() as u64
        });
        assert!(there >= made.min(CHECKPOINTS_KEPT as u64), "{there} checkpoints, after {made}");
    }

    /// Damages the newest of two checkpoints, where power has failed; false: there are not two.
    pub fn spoil_checkpoint(&self) -> bool {
        if self.is_spoiled() {
            return false;
        }
        let mut state = self.state();
        let spoiled = state.at_rest(rot::spoil_checkpoint);
        state.spoiled.extend(spoiled);
        spoiled.is_some()
    }

    /// Whether the superblock points to a checkpoint that was damaged.
    pub fn is_spoiled(&self) -> bool {
        let mut state = self.state();
        let pointers = state.at_rest(|pages, _| layout::pointers(pages));
        pointers.iter().any(|pointer| state.spoiled.contains(pointer))
    }

    /// Whether only a power failure may end the process: something is in the cache that will never be on the disk.
    pub fn must_lose_power(&self) -> bool {
        let state = self.look();
        let lost = |phase| matches!(phase, medium::Phase::Failed | medium::Phase::Unsynced);
        state.happened.failed > 0 || state.changes.values().any(|change| lost(change.phase))
    }
}

/// One worker's way to the medium, or that of the maintenance.
pub struct SimDisk {
    medium: Rc<Medium>,
    /// Operations of clients that there were when something was last changed through this disk.
    operations_then: Cell<u64>,
    /// Operations without space since.
    refused: Cell<u64>,
}

impl SimDisk {
    /// To this medium.
    pub fn new(medium: &Rc<Medium>) -> Self {
        let (operations_then, refused) = (Cell::new(0), Cell::new(0));
        SimDisk { medium: Rc::clone(medium), operations_then, refused }
    }

    /// A client begins an operation. Each lets all workers ask for space again.
    pub fn note_operation(&self) {
        self.medium.state().operations += 1;
    }

    fn operations(&self) -> u64 {
        self.medium.look().operations
    }

    /// There was no space for an operation. An engine that only asks again would do so for ever.
    fn refuse(&self) {
        self.refused.set(self.refused.get() + 1);
        let operations = self.operations() - self.operations_then.get();
        let refused = self.refused.get();
        assert!(
            refused <= REFUSED_MAX + REFUSED_EACH_MAX * operations,
            "livelock: {refused} times without space in a row, for {operations} operations of clients"
        );
    }

    /// Something was changed.
    fn succeeded(&self) {
        self.refused.set(0);
        self.operations_then.set(self.operations());
    }

    /// Something begins, comes to its end, or is answered; the machine may stop here, for good.
    async fn event(&self) {
        if self.medium.state().event() {
            std::future::pending::<()>().await;
        }
    }

    /// An operation takes its time, and comes to its end.
    async fn pause(&self) {
        self.wait().await;
        self.medium.state().step();
    }

    async fn wait(&self) {
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
        let len = at.len() as u64;
        self.event().await;
        let id = self.medium.state().submit(What::Write { offset, pages: pages::cut(&buf.as_ref()[at]) });
        self.wait().await;
        if let Some(error) = self.refusal_of_write(offset, len) {
            let mut state = self.medium.state();
            state.keep_unwritable(id);
            state.fail(id);
            return (Err(error), buf);
        }
        {
            let mut state = self.medium.state();
            if !state.has_space(offset, len) {
                // Nothing has failed for good: what is there of it counts as written, until something else is written there.
                state.complete_in_part(id);
                drop(state);
                self.refuse();
                return (Err(io::ErrorKind::StorageFull.into()), buf);
            }
            done(&mut state, id);
            state.written(offset, len);
            state.step();
        }
        self.succeeded();
        self.event().await;
        (Ok(()), buf)
    }

    /// The error of a write, if it fails.
    fn refusal_of_write(&self, offset: u64, len: u64) -> Option<io::Error> {
        if self.fault(|faults| faults.write) {
            return Some(self.failed(io::Error::other("a write that failed")));
        }
        if let Some(error) = self.refusal() {
            return Some(error);
        }
        if self.medium.look().spots.is_unwritable(offset, len) {
            return Some(self.failed(io::Error::from_raw_os_error(EIO)));
        }
        None
    }

    /// The error of everything that changes a medium that takes no writes.
    fn refusal(&self) -> Option<io::Error> {
        self.medium.is_read_only().then(|| self.failed(io::Error::from_raw_os_error(EROFS)))
    }

    /// Whether a fault happens that comes so often in 10,000 times.
    fn fault(&self, rate: impl FnOnce(&Faults) -> u64) -> bool {
        let mut state = self.medium.state();
        let rate = rate(&state.faults);
        state.random.rarely(rate)
    }

    /// Notes that something has failed for good.
    fn failed(&self, error: io::Error) -> io::Error {
        let tick = self.medium.clock.tick();
        let mut state = self.medium.state();
        state.happened.failed += 1;
        state.happened.failed_at.get_or_insert(tick);
        error
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
        if let Some(error) = self.refusal() {
            return Err(error);
        }
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
        if self.medium.look().spots.is_unreadable(offset, at.len() as u64) {
            self.medium.state().happened.reads_failed += 1;
            return (Err(io::Error::from_raw_os_error(EIO)), buf);
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
        let (fault, read_only) = (self.fault(|faults| faults.sync), self.medium.is_read_only() && !covered.is_empty());
        if !self.medium.state().sync_done(&covered, fault || read_only) {
            let error =
                if read_only { io::Error::from_raw_os_error(EROFS) } else { io::Error::other("a sync that failed") };
            return Err(self.failed(error));
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
        if let Some(error) = self.refusal() {
            return Err(error);
        }
        let (id, full) = self.medium.state().submit_allocation(offset, len);
        // Without a step of the neighbour if it fails: to repeat it at once does not bring space.
        if full {
            self.wait().await;
        } else {
            self.pause().await;
        }
        if self.fault(|faults| faults.allocate) {
            id.into_iter().for_each(|id| self.medium.state().fail(id));
            return Err(self.failed(io::Error::other("an allocation that failed")));
        }
        id.into_iter().for_each(|id| self.medium.state().complete(id));
        self.event().await;
        if full {
            self.refuse();
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.succeeded();
        Ok(())
    }
}
