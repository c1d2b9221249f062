//! The simulated disk of all tests in memory: [`Medium`] outlives processes, [`SimDisk`] is one
//! worker's handle to it. The simulation chooses the faults of a medium by its seed; the tests of the
//! engine and of the node set them one by one.
//!
//! It guarantees what FORMAT.md, section 7, assumes, and nothing more:
//! - A sync makes durable the operations that had completed when it was submitted. Anything else
//!   survives a crash or does not, independently for each write and for each unit of a write, in
//!   any order.
//! - A durable write makes itself and the current file length durable, and nothing else.
//! - For each page the later write wins: reads and surviving content never revert to a state from
//!   before a completed sync.
//! - A process crash loses no completed operation and makes none durable.
//! - A failed sync partly loses what it covered at the next power failure; until then reads see it,
//!   as Linux keeps pages that it failed to write in its cache. Every other sync that covers it
//!   fails too, in each process. Linux reports the error only once per open file and then takes the
//!   pages for clean, which FORMAT.md, section 7, excludes: after a failed sync only a power failure
//!   ends a process of the simulation, as section 9 requires.
//! - Space that was allocated and not written has arbitrary content.
//! - A file system has the space that its neighbours leave ([`FileSystem`]). An operation without
//!   space fails at once with `StorageFull`, changes no acknowledged data, and may succeed later. A
//!   write that fails this way may be partly done.
//! - An allocation that no sync covers may be lost in a power failure, unless a later change survives;
//!   the file is then as short as before.
//! - A permanently bad place fails with `EIO`: reads until it is rewritten if the medium heals,
//!   writes always. A read-only medium answers every change with `EROFS` and still serves reads.

mod bad_pages;
mod buffer;
mod damage;
mod faults;
mod handle;
mod layout;
mod medium;
mod pages;
mod power;
mod rot;
mod space;

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyhole_log::limits::{CHECKPOINTS_KEPT, PAGE, SUPERBLOCK_AT};

pub use buffer::Buffer;
pub use damage::Affected;
pub use faults::{ALWAYS, Crash, Faults, FileSystem, Lie, Survival, Survivors};
pub use handle::SimDisk;
pub use medium::DiskCounters;
pub(crate) use medium::Fuse;
pub use rot::Rot;

use crate::random::Random;
use medium::MediumState;

/// A medium with its content and its faults. Disks of several threads may share it.
pub struct Medium {
    state: Mutex<MediumState>,
    pool: Arc<buffer::Pool>,
}

impl Medium {
    /// Creates an empty medium.
    pub fn new(random: Random, faults: Faults) -> Arc<Self> {
        Arc::new(Medium { state: Mutex::new(MediumState::new(random, faults)), pool: Arc::default() })
    }

    /// Returns a copy with the same content, faults and unsynced changes. It shares the pool of
    /// buffers.
    pub fn fork(&self) -> Arc<Self> {
        Arc::new(Medium { state: Mutex::new(self.state().clone()), pool: Arc::clone(&self.pool) })
    }

    fn state(&self) -> MutexGuard<'_, MediumState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the machine has stopped.
    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// Returns the counters of past events.
    pub fn counters(&self) -> DiskCounters {
        self.state().counters
    }

    /// Returns whether the file system was full at some time since `then`, after an operation had
    /// failed for that reason.
    pub fn was_short_since(&self, then: &DiskCounters) -> bool {
        let state = self.state();
        state.counters.full > then.full || state.space.is_short_since(then.neighbour)
    }

    /// Returns whether a write or sync is in flight.
    pub fn is_writing(&self) -> bool {
        let state = self.state();
        state.syncing > 0 || state.changes.values().any(|change| change.phase == medium::Phase::InFlight)
    }

    /// Stops the machine after this many more events; `None` disables the stop.
    pub fn stop_after(&self, events: Option<u64>) {
        let mut state = self.state();
        state.fuse = events.map_or(Fuse::Never, |events| Fuse::Event(state.counters.events + events));
    }

    /// Stops the machine at the first change after this many more; `None` disables the stop. That
    /// change is in flight then.
    pub fn stop_after_changes(&self, changes: Option<u64>) {
        let mut state = self.state();
        state.fuse = changes.map_or(Fuse::Never, |changes| Fuse::Change(state.counters.changes + changes));
    }

    /// Returns the number of changes that no sync has made durable: those that [`Survivors`] choose
    /// from.
    pub fn unsynced(&self) -> usize {
        self.state().changes.len()
    }

    /// Makes `count` operations fail, after this many more that succeed. A durable write counts as
    /// a write and a sync.
    pub fn fail_after(&self, operations: u64, count: u64) {
        let mut state = self.state();
        state.counters.chosen_failures = 0;
        state.failure = Some(operations..operations.saturating_add(count));
    }

    /// Ends the failures of [`fail_after`](Self::fail_after) and forgets their number.
    pub fn end_failures(&self) {
        let mut state = self.state();
        state.counters.chosen_failures = 0;
        state.failure = None;
    }

    /// Modifies the fault settings.
    pub fn update_faults(&self, update: impl FnOnce(&mut Faults)) {
        update(&mut self.state().faults);
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

    /// Makes a range unwritable.
    pub fn add_unwritable(&self, range: Range<u64>) {
        self.state().bad_pages.unwritable.push(range);
    }

    /// Makes the next `count` reads fail with this error number, although the medium is intact.
    pub fn fail_reads(&self, count: u64, errno: i32) {
        self.state().bad_pages.failing_reads = (count, errno);
    }

    /// Makes the page at this offset return garbage from its second read on.
    pub fn fade(&self, page: u64) {
        self.state().bad_pages.fading = Some((page, false));
    }

    /// Inverts these bits of a byte.
    pub fn flip(&self, at: u64, mask: u8) {
        self.state().flip(at, mask);
    }

    /// Limits the file system to this many bytes, all of them free except those of the file.
    pub fn set_size(&self, bytes: u64) {
        let mut state = self.state();
        state.space.size = Some(bytes / PAGE as u64);
        state.space.release();
    }

    /// Lets others take all free space of a limited file system.
    pub fn fill_by_others(&self) {
        self.state().space.fill();
    }

    /// Frees the space that others have taken.
    pub fn release_by_others(&self) {
        self.state().space.release();
    }

    /// Discards a range, as a sparse copy of the file does.
    pub fn punch(&self, offset: u64, len: u64) {
        self.state().discard(offset, len);
    }

    /// Returns the offsets of the unreadable pages.
    pub fn unreadable(&self) -> Vec<u64> {
        self.state().bad_pages.unreadable()
    }

    /// Makes the medium read-only after this many more events.
    pub fn turn_read_only_after(&self, events: u64) {
        let mut state = self.state();
        state.bad_pages.read_only_at = Some(state.counters.events + events);
    }

    /// Returns whether the medium is read-only.
    pub fn is_read_only(&self) -> bool {
        self.state().is_read_only()
    }

    /// Makes a written page, or the page behind one, unwritable and returns its offset.
    pub fn wear(&self) -> Option<u64> {
        let at = self.state().at_rest(rot::wear)?;
        self.add_unwritable(at..at + PAGE as u64);
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
        let state = self.state();
        state.current.bytes(0, state.current.len as usize)
    }

    /// Replaces the content by that of a file that was written completely and synced.
    pub fn set_content(&self, content: &[u8]) {
        self.state().set_content(content);
    }

    /// Modifies the content like [`set_content`](Self::set_content).
    pub fn edit<T>(&self, edit: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let mut content = self.content();
        let result = edit(&mut content);
        self.set_content(&content);
        result
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
        let state = self.state();
        let lost = |phase| matches!(phase, medium::Phase::Failed | medium::Phase::Unsynced);
        state.counters.failed > 0 || state.changes.values().any(|change| lost(change.phase))
    }
}
