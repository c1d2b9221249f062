//! One worker's handle to the medium, and the operations of a disk.

use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use keyhole_log::limits::{BUFFER_LEN, PAGE};
use keyhole_log::{Access, Disk, Extent};

use super::bad_pages::{EIO, EROFS};
use super::buffer::Buffer;
use super::faults::Faults;
use super::medium::ChangeKind;
use super::{Medium, pages};
use crate::executor::{Clock, Turn};

/// Consecutive failures for lack of space allowed per disk without a successful change, plus as
/// many for each operation that clients begin meanwhile. An operation asks for space twice: for its
/// body and for its record.
const REFUSED_MAX: u64 = 20;
const REFUSED_EACH_MAX: u64 = 6;

/// The handle of one worker, or of the maintenance, to the medium.
pub struct SimDisk {
    medium: Arc<Medium>,
    /// The clock that operations take time of. Without one they take turns of the executor.
    clock: Option<Rc<Clock>>,
    /// Syncs and durable writes of this handle wait until this is false.
    pub hold_syncs: Rc<Cell<bool>>,
    /// Number of client operations at the last change through this disk.
    operations_then: Cell<u64>,
    /// Operations without space since then.
    refused: Cell<u64>,
}

impl SimDisk {
    /// Creates a handle whose operations take virtual time.
    pub fn new(medium: &Arc<Medium>, clock: &Rc<Clock>) -> Self {
        SimDisk { clock: Some(Rc::clone(clock)), ..SimDisk::in_turns(medium) }
    }

    /// Creates a handle whose operations let other tasks run: for any executor.
    pub fn in_turns(medium: &Arc<Medium>) -> Self {
        SimDisk {
            medium: Arc::clone(medium),
            clock: None,
            hold_syncs: Rc::default(),
            operations_then: Cell::new(0),
            refused: Cell::new(0),
        }
    }

    /// Counts a client operation. Each allows all workers to ask for space again.
    pub fn note_operation(&self) {
        self.medium.state().operations += 1;
    }

    fn operations(&self) -> u64 {
        self.medium.state().operations
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
        match &self.clock {
            Some(clock) => clock.sleep(time).await,
            None => {
                for _ in 0..time {
                    Turn::once().await;
                }
            }
        }
        self.event().await;
    }

    /// Waits while this handle's syncs are held.
    async fn hold_sync(&self) {
        while self.hold_syncs.get() {
            Turn::once().await;
        }
    }

    /// Writes, and makes the write durable if that is asked for.
    async fn write_as(&self, offset: u64, buf: Buffer, at: Range<usize>, is_durable: bool) -> (io::Result<()>, Buffer) {
        check_alignment(offset, &at);
        let len = at.len() as u64;
        self.event().await;
        let id = {
            let mut state = self.medium.state();
            state.begin_change();
            state.submit(ChangeKind::Write { offset, pages: pages::cut(&buf.as_ref()[at]) })
        };
        self.wait().await;
        if let Some(error) = self.refusal_of_write(offset, len) {
            let mut state = self.medium.state();
            state.keep_unwritable(id);
            state.fail(id);
            return (Err(error), buf);
        }
        let is_lost = is_durable && self.fault(|faults| faults.sync);
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
            if is_durable && !is_lost {
                state.durable_write_done(id);
            } else {
                state.write_done(id);
            }
            state.written(offset, len);
            state.step();
            if is_lost {
                state.lose(&[id]);
            }
        }
        if is_lost {
            return (Err(self.failed(io::Error::other("a durable write that failed"))), buf);
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
        if self.medium.state().bad_pages.is_unwritable(offset, len) {
            return Some(self.failed(io::Error::from_raw_os_error(EIO)));
        }
        None
    }

    /// Returns the error of every change of a read-only medium.
    fn refusal(&self) -> Option<io::Error> {
        self.medium.is_read_only().then(|| self.failed(io::Error::from_raw_os_error(EROFS)))
    }

    /// Decides whether a fault with this rate per 10,000, or the chosen failure, occurs.
    fn fault(&self, rate: impl FnOnce(&Faults) -> u64) -> bool {
        let mut state = self.medium.state();
        if state.is_chosen_to_fail() {
            return true;
        }
        let rate = rate(&state.faults);
        state.random.rarely(rate)
    }

    /// Records a permanent failure.
    fn failed(&self, error: io::Error) -> io::Error {
        let tick = self.clock.as_ref().map_or(0, |clock| clock.tick());
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
        self.medium.pool.take(BUFFER_LEN)
    }

    fn buffer_with_len(&self, len: usize) -> Buffer {
        self.medium.pool.take(len)
    }

    async fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        assert!(offset.is_multiple_of(PAGE as u64) && len.is_multiple_of(PAGE as u64), "{offset} {len}");
        self.event().await;
        self.medium.state().begin_change();
        if let Some(error) = self.refusal() {
            return Err(error);
        }
        if self.fault(|_| 0) {
            return Err(self.failed(io::Error::other("a discard that failed")));
        }
        self.medium.state().discard(offset, len);
        self.pause().await;
        Ok(())
    }

    async fn read(&self, offset: u64, mut buf: Buffer, at: Range<usize>) -> (io::Result<()>, Buffer) {
        check_alignment(offset, &at);
        self.event().await;
        self.pause().await;
        let is_unlucky = self.fault(|faults| faults.read);
        let mut state = self.medium.state();
        state.counters.reads += 1;
        let failure = if is_unlucky {
            Some(io::Error::other("a read that failed"))
        } else {
            state.bad_pages.read(offset, at.len() as u64).map(io::Error::from_raw_os_error)
        };
        if let Some(error) = failure {
            state.counters.reads_failed += 1;
            // A failed read leaves arbitrary bytes.
            buf.as_mut()[at].fill(0x5e);
            return (Err(error), buf);
        }
        if offset + at.len() as u64 > state.current.len {
            return (Err(io::ErrorKind::UnexpectedEof.into()), buf);
        }
        let bytes = &mut buf.as_mut()[at];
        state.current.read(offset, bytes);
        state.bad_pages.fade(offset, bytes);
        drop(state);
        (Ok(()), buf)
    }

    async fn read_direct(&self, offset: u64, buf: Buffer, at: Range<usize>) -> (io::Result<()>, Buffer) {
        self.medium.state().counters.reads_direct += 1;
        self.read(offset, buf, at).await
    }

    /// Chooses by the place, so that both choices occur.
    fn choose_access(&self, block: u64, _: Range<u64>) -> Access {
        if (block / PAGE as u64).is_multiple_of(2) { Access::Direct } else { Access::Cached }
    }

    async fn write(&self, offset: u64, buf: Buffer, at: Range<usize>) -> (io::Result<()>, Buffer) {
        self.write_as(offset, buf, at, false).await
    }

    async fn write_durable(&self, offset: u64, buf: Buffer, at: Range<usize>) -> (io::Result<()>, Buffer) {
        self.medium.state().counters.syncs += 1;
        self.hold_sync().await;
        self.write_as(offset, buf, at, true).await
    }

    async fn sync(&self) -> io::Result<()> {
        self.event().await;
        let covered = {
            let mut state = self.medium.state();
            state.begin_change();
            state.counters.syncs += 1;
            state.syncing += 1;
            state.covered()
        };
        self.hold_sync().await;
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
        Ok(self.medium.state().current.len)
    }

    async fn extents(&self) -> io::Result<Option<Vec<Extent>>> {
        let state = self.medium.state();
        Ok(state.faults.extents.then(|| state.space.extents(state.current.len)))
    }

    async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        // A file that was cut may end anywhere.
        self.event().await;
        self.medium.state().begin_change();
        self.medium.state().counters.allocations += 1;
        if let Some(error) = self.refusal() {
            return Err(error);
        }
        while self.medium.state().faults.hold_allocations {
            Turn::once().await;
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
