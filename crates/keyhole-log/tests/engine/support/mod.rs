//! An in-memory disk that can be slow, fail, fill up, and lose unsynced writes.

pub(crate) mod store;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::rc::Rc;

use keyhole_log::limits::{BUFFER_LEN, PAGE, SEGMENTS_START};
use keyhole_log::{Disk, Extent};

use crate::common::check_alignment;
pub(crate) use crate::common::{Buf, Turn};

/// Error number of an I/O error.
const EIO: i32 = 5;

/// Devices write whole sectors.
const SECTOR: usize = 512;

/// A seeded generator.
#[derive(Debug, Clone)]
pub(crate) struct Random(fastrand::Rng);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(fastrand::Rng::with_seed(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// Returns a number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0.u64(..n)
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// The medium, which outlives disks.
pub(crate) struct Medium {
    /// Contents that survive a crash.
    durable: Vec<u8>,
    /// Contents that reads return.
    current: Vec<u8>,
    /// Writes not covered by a sync, in order.
    unsynced: BTreeMap<u64, Write>,
    next_write: u64,
    random: Random,
    /// Maximum polls per operation.
    pub(crate) slowness: u64,
    /// Bytes of the file system, including those taken by others.
    pub(crate) space: u64,
    /// Bytes taken by others.
    pub(crate) others: u64,
    pub(crate) file_system: FileSystem,
    /// Allocated pages of the file.
    backed: BTreeSet<u64>,
    /// Allocated pages that have been written.
    written: BTreeSet<u64>,
    /// Whether the file system reports allocated pages.
    pub(crate) knows_extents: bool,
    /// Number of writes into space not written since its allocation.
    pub(crate) first_writes: u64,
    /// Number of allocations requested.
    pub(crate) allocations: u64,
    /// More allocations than this are a livelock.
    pub(crate) allocations_max: u64,
    /// Allocations wait until this is false.
    pub(crate) hold_allocations: bool,
    pub(crate) fail_writes: bool,
    pub(crate) fail_syncs: bool,
    /// Every write, sync, allocation and discard fails, as on a read-only medium.
    pub(crate) read_only: bool,
    /// Writes that touch one of these ranges fail, also after a crash.
    pub(crate) unwritable: Vec<Range<u64>>,
    /// Number of writes, syncs, allocations and discards requested.
    pub(crate) changes: u64,
    /// After this many changing operations none completes.
    pub(crate) stop_after: Option<u64>,
    pub(crate) operations: u64,
    pub(crate) syncs: u64,
    /// Offsets of pages that cannot be read (EIO), even after a write.
    pub(crate) unreadable: BTreeSet<u64>,
    /// Whether unreadable pages become readable once written.
    pub(crate) heals: bool,
    /// Error number of a failing read.
    pub(crate) read_error: i32,
    /// Number of further reads that fail although the medium is intact.
    pub(crate) failing_reads: u64,
    /// Number of reads requested.
    pub(crate) reads: u64,
}

/// The file system's treatment of allocated space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileSystem {
    /// Allocation takes only the missing space.
    Ext4,
    /// Allocation needs free space for its whole length, even if the range is allocated.
    Xfs,
    /// Allocation only extends the file; a first write needs space (ext2, NFS).
    Thin,
    /// Each write needs free space, even over written data (btrfs).
    CopyOnWrite,
}

struct Write {
    offset: u64,
    bytes: Vec<u8>,
    completed: bool,
}

/// The fate of unsynced writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    /// The process dies: they stay in the page cache.
    Process,
    /// All of them are lost.
    Lost,
    /// Each of them survives or not.
    Some,
    /// Each sector of each of them survives or not.
    Torn,
}

/// Returns the 64-bit number at an offset of an image.
pub(crate) fn word(image: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(image[at..at + 8].try_into().unwrap())
}

pub(crate) const CRASHES: [Crash; 4] = [Crash::Process, Crash::Lost, Crash::Some, Crash::Torn];

impl Medium {
    pub(crate) fn new(seed: u64) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Medium {
            durable: Vec::new(),
            current: Vec::new(),
            unsynced: BTreeMap::new(),
            next_write: 0,
            random: Random::new(seed),
            slowness: 0,
            space: u64::MAX,
            others: 0,
            file_system: FileSystem::Ext4,
            backed: BTreeSet::new(),
            written: BTreeSet::new(),
            knows_extents: true,
            first_writes: 0,
            allocations: 0,
            allocations_max: u64::MAX,
            hold_allocations: false,
            fail_writes: false,
            fail_syncs: false,
            read_only: false,
            unwritable: Vec::new(),
            changes: 0,
            stop_after: None,
            operations: 0,
            syncs: 0,
            unreadable: BTreeSet::new(),
            heals: false,
            read_error: EIO,
            failing_reads: 0,
            reads: 0,
        }))
    }

    /// Crashes the machine. All users of the medium must have been dropped.
    pub(crate) fn crash(&mut self, how: Crash) {
        for write in std::mem::take(&mut self.unsynced).into_values() {
            let whole = match how {
                Crash::Process => write.completed || self.random.chance(50),
                Crash::Lost => false,
                Crash::Some => self.random.chance(50),
                Crash::Torn => true,
            };
            if !whole {
                continue;
            }
            for (i, sector) in write.bytes.chunks(SECTOR).enumerate() {
                if how != Crash::Torn || self.random.chance(70) {
                    let at = write.offset as usize + i * SECTOR;
                    self.durable[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        self.current = self.durable.clone();
        self.stop_after = None;
        self.fail_writes = false;
        self.fail_syncs = false;
    }

    /// Borrows the contents for inspection and damage. The store must be closed.
    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        assert!(self.unsynced.is_empty(), "crash it first");
        self.current = Vec::new();
        &mut self.durable
    }

    /// Returns the contents that reads see.
    pub(crate) fn written(&self) -> &[u8] {
        &self.current
    }

    /// Changes one byte that reads see.
    pub(crate) fn flip(&mut self, at: u64, mask: u8) {
        self.current[at as usize] ^= mask;
    }

    /// Returns the offset of these bytes in the contents that reads see.
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<u64> {
        self.current.windows(bytes.len()).position(|window| window == bytes).map(|at| at as u64)
    }

    /// Must be called after changes through [`bytes`](Self::bytes).
    pub(crate) fn reload(&mut self) {
        self.current = self.durable.clone();
        self.backed = pages(0, self.durable.len() as u64).collect();
        self.written = self.backed.clone();
    }

    /// Lets others take all remaining space.
    pub(crate) fn fill_by_others(&mut self) {
        self.others = self.space.saturating_sub(self.taken());
    }

    /// Removes the space of all segments that were never begun, as a sparse copy of the file does.
    pub(crate) fn drop_unused_space(&mut self, segment_len: u64) {
        let len = self.current.len() as u64;
        for start in (SEGMENTS_START..len).step_by(segment_len as usize) {
            if !self.current[start as usize..].starts_with(b"keyhseg\n") {
                for page in pages(start, segment_len) {
                    self.backed.remove(&page);
                    self.written.remove(&page);
                }
            }
        }
    }

    fn taken(&self) -> u64 {
        self.backed.len() as u64 * PAGE as u64
    }

    fn free(&self) -> u64 {
        self.space.saturating_sub(self.taken()).saturating_sub(self.others)
    }

    /// Returns whether a write fails as a whole.
    fn is_full_for(&self, len: usize) -> bool {
        self.file_system == FileSystem::CopyOnWrite && self.free() < len as u64
    }

    /// Returns how many of `len` bytes from `offset` on the file system has space for.
    fn room(&mut self, offset: u64, len: usize) -> usize {
        match self.file_system {
            FileSystem::Ext4 | FileSystem::Xfs => {
                let backed = pages(offset, len as u64).all(|page| self.backed.contains(&page));
                assert!(backed, "a write into a hole at {offset}");
                len
            }
            FileSystem::Thin => {
                let mut room = 0;
                for page in pages(offset, len as u64) {
                    if !self.backed.contains(&page) && self.free() < PAGE as u64 {
                        break;
                    }
                    self.backed.insert(page);
                    room += PAGE;
                }
                room
            }
            FileSystem::CopyOnWrite if self.free() < len as u64 => {
                self.random.below((len / PAGE) as u64 + 1) as usize * PAGE
            }
            FileSystem::CopyOnWrite => {
                self.backed.extend(pages(offset, len as u64));
                len
            }
        }
    }

    /// Counts a changing operation. Fails if the medium cannot be changed.
    fn change(&mut self) -> io::Result<()> {
        self.changes += 1;
        if self.read_only { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
    }

    /// Returns whether a write to this range fails.
    fn is_unwritable(&self, at: &Range<u64>) -> bool {
        self.unwritable.iter().any(|bad| bad.start < at.end && at.start < bad.end)
    }

    fn stopped(&mut self) -> bool {
        self.operations += 1;
        self.stop_after.is_some_and(|limit| self.operations > limit)
    }
}

fn pages(offset: u64, len: u64) -> Range<u64> {
    offset / PAGE as u64..(offset + len).div_ceil(PAGE as u64)
}

/// The disk of one worker.
pub(crate) struct MemDisk {
    pub(crate) medium: Rc<RefCell<Medium>>,
    /// Syncs of this worker wait until this is false.
    pub(crate) hold_syncs: Rc<Cell<bool>>,
}

impl MemDisk {
    pub(crate) fn new(medium: &Rc<RefCell<Medium>>) -> Self {
        MemDisk { medium: Rc::clone(medium), hold_syncs: Rc::default() }
    }

    async fn pause(&self) {
        let turns = {
            let mut medium = self.medium.borrow_mut();
            let slowness = medium.slowness;
            if slowness == 0 { 0 } else { medium.random.below(slowness + 1) }
        };
        for _ in 0..turns {
            Turn::once().await;
        }
    }
}

impl Disk for MemDisk {
    type Buf = Buf;

    fn buffer(&self) -> Buf {
        Buf::new(BUFFER_LEN)
    }

    fn buffer_with_len(&self, len: usize) -> Buf {
        Buf::new(len)
    }

    async fn read(&self, offset: u64, mut buf: Buf, at: Range<usize>) -> (io::Result<()>, Buf) {
        check_alignment(offset, &at);
        self.pause().await;
        let mut medium = self.medium.borrow_mut();
        medium.reads += 1;
        let fails = medium.failing_reads > 0;
        medium.failing_reads -= u64::from(fails);
        if fails || medium.unreadable.range(offset..offset + at.len() as u64).next().is_some() {
            // A failed read leaves arbitrary bytes in the buffer.
            buf.as_mut()[at].fill(0x5e);
            return (Err(io::Error::from_raw_os_error(medium.read_error)), buf);
        }
        let from = offset as usize;
        let result = match medium.current.get(from..from + at.len()) {
            Some(bytes) => {
                buf.as_mut()[at].copy_from_slice(bytes);
                Ok(())
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        (result, buf)
    }

    async fn write(&self, offset: u64, buf: Buf, at: Range<usize>) -> (io::Result<()>, Buf) {
        check_alignment(offset, &at);
        if let Err(error) = self.medium.borrow_mut().change() {
            return (Err(error), buf);
        }
        let room = self.medium.borrow_mut().room(offset, at.len());
        let is_full = self.medium.borrow().is_full_for(at.len());
        if room < at.len() || is_full {
            self.pause().await;
            // Written up to where the space ended.
            let mut medium = self.medium.borrow_mut();
            medium.operations += 1;
            let from = offset as usize;
            let bytes = &buf.as_ref()[at.start..at.start + room];
            medium.current[from..from + room].copy_from_slice(bytes);
            medium.durable[from..from + room].copy_from_slice(bytes);
            return (Err(io::ErrorKind::StorageFull.into()), buf);
        }
        let stopped = self.medium.borrow_mut().stopped();
        let number = {
            let mut medium = self.medium.borrow_mut();
            let number = medium.next_write;
            medium.next_write += 1;
            let bytes = buf.as_ref()[at.clone()].to_vec();
            assert!(offset as usize + bytes.len() <= medium.durable.len(), "a write into space that was not allocated");
            medium.unsynced.insert(number, Write { offset, bytes, completed: false });
            number
        };
        if stopped {
            std::future::pending::<()>().await;
        }
        self.pause().await;
        let mut medium = self.medium.borrow_mut();
        let is_first = pages(offset, at.len() as u64).any(|page| !medium.written.contains(&page));
        medium.first_writes += u64::from(is_first);
        medium.written.extend(pages(offset, at.len() as u64));
        if medium.fail_writes || medium.is_unwritable(&(offset..offset + at.len() as u64)) {
            return (Err(io::Error::other("write failed")), buf);
        }
        let from = offset as usize;
        if medium.heals {
            let end = offset + at.len() as u64;
            medium.unreadable.retain(|page| !(offset..end).contains(page));
        }
        medium.current[from..from + at.len()].copy_from_slice(&buf.as_ref()[at]);
        if let Some(write) = medium.unsynced.get_mut(&number) {
            write.completed = true;
        }
        drop(medium);
        (Ok(()), buf)
    }

    async fn sync(&self) -> io::Result<()> {
        self.medium.borrow_mut().change()?;
        let covered: Vec<u64> = {
            let mut medium = self.medium.borrow_mut();
            medium.syncs += 1;
            if medium.stopped() {
                Vec::new()
            } else {
                medium.unsynced.iter().filter(|(_, write)| write.completed).map(|(&number, _)| number).collect()
            }
        };
        let limit = self.medium.borrow().stop_after;
        if limit.is_some_and(|limit| self.medium.borrow().operations > limit) {
            std::future::pending::<()>().await;
        }
        while self.hold_syncs.get() {
            Turn::once().await;
        }
        self.pause().await;
        let mut medium = self.medium.borrow_mut();
        if medium.fail_syncs {
            return Err(io::Error::other("sync failed"));
        }
        for number in covered {
            if let Some(write) = medium.unsynced.remove(&number) {
                let at = write.offset as usize;
                medium.durable[at..at + write.bytes.len()].copy_from_slice(&write.bytes);
            }
        }
        Ok(())
    }

    async fn len(&self) -> io::Result<u64> {
        Ok(self.medium.borrow().current.len() as u64)
    }

    async fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.medium.borrow_mut().change()?;
        self.pause().await;
        let mut medium = self.medium.borrow_mut();
        assert!(offset as usize + len as usize <= medium.durable.len(), "a discard of space that was not allocated");
        assert!(
            !medium.unsynced.values().any(|w| w.offset < offset + len && offset < w.offset + w.bytes.len() as u64),
            "a discard of what was just written"
        );
        for page in pages(offset, len) {
            medium.backed.remove(&page);
            medium.written.remove(&page);
        }
        // Afterwards the range reads as anything: the old contents half of the time, or garbage.
        if medium.random.chance(50) {
            let range = offset as usize..(offset + len) as usize;
            medium.current[range.clone()].fill(0x5c);
            medium.durable[range].fill(0x5c);
        }
        Ok(())
    }

    async fn extents(&self) -> io::Result<Option<Vec<Extent>>> {
        let medium = self.medium.borrow();
        let extent = |&page: &u64| Extent {
            offset: page * PAGE as u64,
            len: PAGE as u64,
            written: medium.written.contains(&page),
        };
        Ok(medium.knows_extents.then(|| medium.backed.iter().map(extent).collect()))
    }

    async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.medium.borrow_mut().change()?;
        while self.medium.borrow().hold_allocations {
            Turn::once().await;
        }
        self.pause().await;
        let mut medium = self.medium.borrow_mut();
        medium.allocations += 1;
        assert!(medium.allocations <= medium.allocations_max, "the file system is asked for space for ever");
        let missing = pages(offset, len).filter(|page| !medium.backed.contains(page)).count() as u64 * PAGE as u64;
        let needed = match medium.file_system {
            FileSystem::Ext4 => missing,
            FileSystem::Xfs => len,
            FileSystem::Thin | FileSystem::CopyOnWrite => 0,
        };
        if needed > medium.free() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if needed > 0 {
            medium.backed.extend(pages(offset, len));
        }
        let end = medium.current.len().max((offset + len) as usize);
        medium.current.resize(end, 0);
        medium.durable.resize(end, 0);
        Ok(())
    }
}
