//! The disk of the simulation: [`Medium`] outlives processes, [`SimDisk`] is one worker's handle to
//! it.
//!
//! It guarantees what FORMAT.md, section 7, assumes, and nothing more:
//! - A sync makes durable the operations that had completed when it was submitted. Anything else
//!   survives a crash or does not, independently for each write and for each unit of a write, in
//!   any order.
//! - A durable write makes itself and the current file length durable, and nothing else.
//! - For each page the later write wins: reads and surviving content never revert to a state from
//!   before a completed sync.
//! - A process crash loses no completed operation and makes none durable.
//! - A failed sync partly loses what it covered at the next power failure; until then reads see it.
//!   Every other sync that covers it fails too. Afterwards only a power failure ends the process,
//!   as FORMAT.md, section 9, requires.
//! - Space that was allocated and not written has arbitrary content.
//! - A file system has the space that its neighbours leave ([`FileSystem`]). An operation without
//!   space fails at once with `StorageFull`, changes no acknowledged data, and may succeed later. A
//!   write that fails this way may be partly done.
//! - A permanently bad place fails with `EIO`: reads until it is rewritten if the medium heals,
//!   writes always. A read-only medium answers every change with `EROFS` and still serves reads.

mod bad_pages;
mod buffer;
mod damage;
mod faults;
mod layout;
mod medium;
mod pages;
mod rot;
mod space;

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::io;
use std::ops::Range;
use std::rc::Rc;

use keyhole_log::Disk;
use keyhole_log::limits::{BUFFER_LEN, CHECKPOINTS_KEPT, PAGE, SUPERBLOCK_AT};

pub use buffer::Buffer;
pub use damage::Affected;
pub use faults::{Crash, Faults, FileSystem, Lie, Survival};
pub use medium::DiskCounters;
pub(crate) use medium::Fuse;
pub use rot::Rot;

use crate::executor::Clock;
use crate::random::Random;
use bad_pages::{EIO, EROFS};
use medium::{ChangeKind, MediumState};

/// Consecutive failures for lack of space allowed per disk without a successful change, plus as
/// many for each operation that clients begin meanwhile. An operation asks for space twice: for its
/// body and for its record.
const REFUSED_MAX: u64 = 20;
const REFUSED_EACH_MAX: u64 = 6;

/// A medium with its content and its faults.
pub struct Medium {
    state: RefCell<MediumState>,
    clock: Rc<Clock>,
    pool: Rc<buffer::Pool>,
}

impl Medium {
    /// Creates an empty medium.
    pub fn new(clock: &Rc<Clock>, random: Random, faults: Faults) -> Rc<Self> {
        let state = RefCell::new(MediumState::new(random, faults));
        Rc::new(Medium { state, clock: Rc::clone(clock), pool: Rc::default() })
    }

    fn state(&self) -> RefMut<'_, MediumState> {
        self.state.borrow_mut()
    }

    fn look(&self) -> Ref<'_, MediumState> {
        self.state.borrow()
    }

    /// Returns whether the machine has stopped.
    pub fn is_dead(&self) -> bool {
        self.look().dead
    }

    /// Returns the counters of past events.
    pub fn counters(&self) -> DiskCounters {
        self.look().counters
    }

    /// Returns whether the file system was full at some time since `then`, after an operation had
    /// failed for that reason.
    pub fn was_short_since(&self, then: &DiskCounters) -> bool {
        let state = self.look();
        state.counters.full > then.full || state.space.is_short_since(then.neighbour)
    }

    /// Returns whether a write or sync is in flight.
    pub fn is_writing(&self) -> bool {
        let state = self.look();
        state.syncing > 0 || state.changes.values().any(|change| change.phase == medium::Phase::InFlight)
    }

    /// Stops the machine after this many more events; `None` disables the stop.
    pub fn stop_after(&self, events: Option<u64>) {
        let mut state = self.state();
        state.fuse = events.map_or(Fuse::Never, |events| Fuse::Event(state.counters.events + events));
    }

    /// Replaces the fault settings and returns the old ones. Bad places remain.
    pub fn set_faults(&self, faults: Faults) -> Faults {
        std::mem::replace(&mut self.state().faults, faults)
    }

    /// Makes the pages at these offsets unreadable.
    pub fn add_unreadable(&self, pages: &[u64]) {
        let mut state = self.state();
        pages.iter().for_each(|at| state.bad_pages.add_unreadable(*at));
    }

    /// Makes the pages at these offsets unwritable.
    pub fn add_unwritable(&self, pages: &[u64]) {
        let mut state = self.state();
        pages.iter().for_each(|at| state.bad_pages.add_unwritable(*at));
    }

    /// Returns the offsets of the unreadable pages.
    pub fn unreadable(&self) -> Vec<u64> {
        self.look().bad_pages.unreadable()
    }

    /// Makes the medium read-only after this many more events.
    pub fn turn_read_only_after(&self, events: u64) {
        let mut state = self.state();
        state.bad_pages.read_only_at = Some(state.counters.events + events);
    }

    /// Returns whether the medium is read-only.
    pub fn is_read_only(&self) -> bool {
        self.look().is_read_only()
    }

    /// Makes a written page, or the page behind one, unwritable and returns its offset.
    pub fn wear(&self) -> Option<u64> {
        let at = self.state().at_rest(rot::wear)?;
        self.add_unwritable(&[at]);
        Some(at)
    }

    /// Makes all places writable again.
    pub fn end_wear(&self) {
        self.state().bad_pages.end_wear();
    }

    /// Ends the read-only state.
    pub fn end_read_only(&self) {
        self.state().bad_pages.read_only_at = None;
    }

    /// Forgets the writes that have failed so far: the engine was informed and continues without
    /// them.
    pub fn forgive_writes(&self) {
        let mut state = self.state();
        state.counters.failed = 0;
        state.counters.failed_at = None;
    }

    /// Repairs all bad places: their content becomes readable again, and everything is writable.
    pub fn mend(&self) {
        self.state().bad_pages.clear();
    }

    /// Returns the content of the medium, as reads see it.
    pub fn content(&self) -> Vec<u8> {
        let state = self.look();
        state.current.bytes(0, state.current.len as usize)
    }

    /// Replaces the content of a medium that nothing has been written to.
    pub fn set_content(&self, content: &[u8]) {
        self.state().at_rest(|pages, _| {
            pages.grow(content.len() as u64, &[]);
            for (page, at) in content.chunks_exact(PAGE).zip((0..).step_by(PAGE)) {
                if page.iter().any(|byte| *byte != 0) {
                    pages.put(at, &pages::cut(page));
                }
            }
        });
    }

    /// Stops the machine. All users of the medium must have been dropped.
    pub fn crash(&self, how: Crash) {
        self.state().crash(how);
    }

    /// Damages the medium after a power failure and returns what is affected.
    pub fn damage(&self, segment_len: u64) -> Affected {
        self.state().at_rest(|pages, random| damage::damage(pages, random, segment_len))
    }

    /// Makes a page unreadable after a power failure and returns what is affected.
    pub fn rot(&self, segment_len: u64) -> Option<Rot> {
        if self.is_spoiled() {
            return None;
        }
        let rot = self.state().at_rest(|pages, random| rot::rot(pages, random, segment_len))?;
        // One copy of the superblock must stay intact.
        if SUPERBLOCK_AT.iter().any(|copy| rot.pages.contains(copy)) && !self.has_two_superblocks() {
            return None;
        }
        self.add_unreadable(&rot.pages);
        Some(rot)
    }

    /// Returns whether both copies of the superblock are readable and equal.
    fn has_two_superblocks(&self) -> bool {
        let mut state = self.state();
        let readable = SUPERBLOCK_AT.iter().all(|copy| !state.bad_pages.is_unreadable(*copy, PAGE as u64));
        let [first, second] = SUPERBLOCK_AT;
        readable && state.at_rest(|pages, _| pages.bytes(first, PAGE) == pages.bytes(second, PAGE))
    }

    /// Panics if a record that the checkpoints refer to is missing after a power failure; `made` is
    /// the number of checkpoints that were completed.
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

    /// Damages the newest of two checkpoints after a power failure. Returns false if there are not
    /// two.
    pub fn spoil_checkpoint(&self) -> bool {
        if self.is_spoiled() {
            return false;
        }
        let mut state = self.state();
        let spoiled = state.at_rest(rot::spoil_checkpoint);
        state.spoiled.extend(spoiled);
        spoiled.is_some()
    }

    /// Returns whether the superblock points to a damaged checkpoint.
    pub fn is_spoiled(&self) -> bool {
        let mut state = self.state();
        let pointers = state.at_rest(|pages, _| layout::pointers(pages));
        pointers.iter().any(|pointer| state.spoiled.contains(pointer))
    }

    /// Returns whether only a power failure may end the process: the cache holds changes that can
    /// never become durable.
    pub fn must_lose_power(&self) -> bool {
        let state = self.look();
        let lost = |phase| matches!(phase, medium::Phase::Failed | medium::Phase::Unsynced);
        state.counters.failed > 0 || state.changes.values().any(|change| lost(change.phase))
    }
}

/// The handle of one worker, or of the maintenance, to the medium.
pub struct SimDisk {
    medium: Rc<Medium>,
    /// Number of client operations at the last change through this disk.
    operations_then: Cell<u64>,
    /// Operations without space since then.
    refused: Cell<u64>,
}

impl SimDisk {
    /// Creates a handle to this medium.
    pub fn new(medium: &Rc<Medium>) -> Self {
        let operations_then = Cell::new(0);
        let refused = Cell::new(0);
        SimDisk { medium: Rc::clone(medium), operations_then, refused }
    }

    /// Counts a client operation. Each allows all workers to ask for space again.
    pub fn note_operation(&self) {
        self.medium.state().operations += 1;
    }

    fn operations(&self) -> u64 {
        self.medium.look().operations
    }

    /// Counts an operation without space. Panics at an engine that only repeats the request, since
    /// it would never stop.
    fn refuse(&self) {
        self.refused.set(self.refused.get() + 1);
        let operations = self.operations() - self.operations_then.get();
        let refused = self.refused.get();
        assert!(
            refused <= REFUSED_MAX + REFUSED_EACH_MAX * operations,
            "livelock: {refused} times without space in a row, for {operations} operations of clients"
        );
    }

    /// Records a successful change.
    fn succeeded(&self) {
        self.refused.set(0);
        self.operations_then.set(self.operations());
    }

    /// Counts a beginning, completion or answer. The machine may stop here, and then this never
    /// returns.
    async fn event(&self) {
        if self.medium.state().event() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits for the duration of an operation and completes it.
    async fn pause(&self) {
        self.wait().await;
        self.medium.state().step();
    }

    async fn wait(&self) {
        let time = self.medium.state().duration();
        self.medium.clock.sleep(time).await;
        self.event().await;
    }

    /// Writes, and completes the write in the given way.
    async fn write_as(
        &self,
        offset: u64,
        buf: Buffer,
        at: Range<usize>,
        done: fn(&mut MediumState, u64),
    ) -> (io::Result<()>, Buffer) {
        check_alignment(offset, &at);
        let len = at.len() as u64;
        self.event().await;
        let id = self.medium.state().submit(ChangeKind::Write { offset, pages: pages::cut(&buf.as_ref()[at]) });
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
                // The failure is temporary: the partial content counts as written until it is
                // overwritten.
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

    /// Returns the error of a write, if it is to fail.
    fn refusal_of_write(&self, offset: u64, len: u64) -> Option<io::Error> {
        if self.fault(|faults| faults.write) {
            return Some(self.failed(io::Error::other("a write that failed")));
        }
        if let Some(error) = self.refusal() {
            return Some(error);
        }
        if self.medium.look().bad_pages.is_unwritable(offset, len) {
            return Some(self.failed(io::Error::from_raw_os_error(EIO)));
        }
        None
    }

    /// Returns the error of every change of a read-only medium.
    fn refusal(&self) -> Option<io::Error> {
        self.medium.is_read_only().then(|| self.failed(io::Error::from_raw_os_error(EROFS)))
    }

    /// Decides whether a fault with this rate per 10,000 occurs.
    fn fault(&self, rate: impl FnOnce(&Faults) -> u64) -> bool {
        let mut state = self.medium.state();
        let rate = rate(&state.faults);
        state.random.rarely(rate)
    }

    /// Records a permanent failure.
    fn failed(&self, error: io::Error) -> io::Error {
        let tick = self.medium.clock.tick();
        let mut state = self.medium.state();
        state.counters.failed += 1;
        state.counters.failed_at.get_or_insert(tick);
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
            self.medium.state().counters.reads_failed += 1;
            return (Err(io::Error::other("a read that failed")), buf);
        }
        if self.medium.look().bad_pages.is_unreadable(offset, at.len() as u64) {
            self.medium.state().counters.reads_failed += 1;
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
        self.write_as(offset, buf, at, MediumState::write_done).await
    }

    async fn write_durable(&self, offset: u64, buf: Buffer, at: Range<usize>) -> (io::Result<()>, Buffer) {
        self.write_as(offset, buf, at, MediumState::durable_write_done).await
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
        let read_only = self.medium.is_read_only() && !covered.is_empty();
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
        // A failed attempt does not advance the neighbour: an immediate repetition must not free
        // space.
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
            // Counted when it is answered: others wait for the answer.
            self.medium.state().counters.full += 1;
            self.refuse();
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.succeeded();
        Ok(())
    }
}
