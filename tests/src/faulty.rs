//! A file system with the faults of worn, full and remote media, for the duration of a test.
//!
//! [`FaultyFs::mount`] mounts a FUSE file system that passes every call through to a backing
//! directory. It runs on threads of the test process, and the test can change its faults at any
//! time:
//!
//! | method | effect |
//! |---|---|
//! | [`fail_reads`](FaultyFs::fail_reads) | reads of a byte range fail with `EIO`, until a write covers it |
//! | [`fail_writes`](FaultyFs::fail_writes) | writes to a byte range fail with `EIO`, and later syncs succeed |
//! | [`fail_syncs`](FaultyFs::fail_syncs) | every sync fails with `EIO` |
//! | [`set_read_only`](FaultyFs::set_read_only) | every change fails with `EROFS`, as after `remount,ro` |
//! | [`set_budget`](FaultyFs::set_budget) | writes and allocations beyond a limit fail with `ENOSPC` |
//! | [`set_space`](FaultyFs::set_space) | selects the space guarantees: see [`Space`] |
//! | [`heal`](FaultyFs::heal) | removes all faults |
//!
//! Files are named by the last component of their path. [`FaultyFs::backing`] is the same directory
//! without faults. Files bypass the page cache (`FOPEN_DIRECT_IO`): each read and write of the
//! program under test arrives here, with or without `O_DIRECT`, split by the kernel at about 1 MiB.

mod calls;
mod inodes;

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fuser::{BackgroundSession, Config, MountOption};
use tempfile::TempDir;

use self::calls::Calls;

/// Unit of allocation.
pub(crate) const PAGE: u64 = 4096;

/// Number of threads that serve calls.
const THREADS: usize = 4;

/// Timeout of an unmount: the kernel first closes the files of a killed process.
const UNMOUNT_TIMEOUT: Duration = Duration::from_secs(10);

/// Space guarantees of the file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Space {
    /// `fallocate` is not supported, as on NFS and most FUSE file systems. Overwrites of written
    /// pages need no space.
    #[default]
    Unsupported,
    /// `fallocate` reserves the space of later writes, and punches holes, as on ext4.
    Reserved,
    /// `fallocate` succeeds but guarantees nothing: each write needs free pages, even an overwrite,
    /// as on btrfs.
    CopyOnWrite,
}

/// Calls that failed with an injected fault, since the mount.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FaultCounts {
    /// Reads with `EIO`.
    pub reads: u64,
    /// Writes and syncs with `EIO`.
    pub writes: u64,
    /// Calls with `EROFS`.
    pub read_only: u64,
    /// Calls with `ENOSPC`.
    pub full: u64,
}

/// A byte range of the file of this name.
struct Region {
    file: String,
    bytes: Range<u64>,
}

impl Region {
    fn touches(&self, file: &str, bytes: &Range<u64>) -> bool {
        self.file == file && self.bytes.start < bytes.end && bytes.start < self.bytes.end
    }

    fn is_within(&self, file: &str, bytes: &Range<u64>) -> bool {
        self.file == file && bytes.start <= self.bytes.start && self.bytes.end <= bytes.end
    }
}

/// The faults and their state.
#[derive(Default)]
pub(crate) struct Faults {
    bad_reads: Vec<Region>,
    bad_writes: Vec<Region>,
    /// Whether syncs fail, as after the loss of an acknowledged write, until the faults are
    /// removed.
    has_lost_writes: bool,
    is_read_only: bool,
    space: Space,
    budget: Option<u64>,
    /// Allocated pages by inode and index.
    pages: HashSet<(u64, u64)>,
    injected: FaultCounts,
}

/// An injected failure.
pub(crate) type Outcome = Result<(), fuser::Errno>;

impl Faults {
    /// Decides the outcome of a read.
    pub(crate) fn read(&mut self, file: &str, bytes: &Range<u64>) -> Outcome {
        if self.bad_reads.iter().any(|region| region.touches(file, bytes)) {
            self.injected.reads += 1;
            return Err(fuser::Errno::EIO);
        }
        Ok(())
    }

    /// Decides the outcome of a write, and takes its space.
    pub(crate) fn write(&mut self, inode: u64, file: &str, bytes: &Range<u64>) -> Outcome {
        self.change()?;
        if self.bad_writes.iter().any(|region| region.touches(file, bytes)) {
            self.injected.writes += 1;
            // The writer sees the error. A write past the page cache leaves no error for later
            // syncs.
            return Err(fuser::Errno::EIO);
        }
        let is_copied = self.space == Space::CopyOnWrite;
        self.reserve(inode, bytes, is_copied)?;
        // A medium remaps a bad sector when it is written.
        self.bad_reads.retain(|region| !region.is_within(file, bytes));
        Ok(())
    }

    /// Decides the outcome of a sync.
    pub(crate) fn sync(&mut self) -> Outcome {
        if self.has_lost_writes {
            self.injected.writes += 1;
            return Err(fuser::Errno::EIO);
        }
        Ok(())
    }

    /// Decides the outcome of a change of any kind.
    pub(crate) fn change(&mut self) -> Outcome {
        if self.is_read_only {
            self.injected.read_only += 1;
            return Err(fuser::Errno::EROFS);
        }
        Ok(())
    }

    /// Takes the space of a range; with `is_copied`, its existing pages do not count.
    fn reserve(&mut self, inode: u64, bytes: &Range<u64>, is_copied: bool) -> Outcome {
        let pages = || bytes.start / PAGE..bytes.end.div_ceil(PAGE);
        let missing = pages().filter(|page| is_copied || !self.pages.contains(&(inode, *page))).count();
        if self.budget.is_some_and(|budget| self.used() + missing as u64 * PAGE > budget) && missing > 0 {
            self.injected.full += 1;
            return Err(fuser::Errno::ENOSPC);
        }
        self.pages.extend(pages().map(|page| (inode, page)));
        Ok(())
    }

    /// Decides the outcome of an allocation, and takes its space if the file system guarantees it.
    pub(crate) fn allocate(&mut self, inode: u64, bytes: &Range<u64>) -> Outcome {
        self.change()?;
        match self.space {
            Space::Unsupported => Err(fuser::Errno::EOPNOTSUPP),
            Space::Reserved => self.reserve(inode, bytes, false),
            Space::CopyOnWrite => Ok(()),
        }
    }

    /// Decides the outcome of punching a hole, and frees its space.
    pub(crate) fn punch(&mut self, inode: u64, bytes: &Range<u64>) -> Outcome {
        self.change()?;
        if self.space == Space::Unsupported {
            return Err(fuser::Errno::EOPNOTSUPP);
        }
        let whole = bytes.start.div_ceil(PAGE)..bytes.end / PAGE;
        self.pages.retain(|(owner, page)| *owner != inode || !whole.contains(page));
        Ok(())
    }

    /// Frees the space of an inode from a length on.
    pub(crate) fn free_from(&mut self, inode: u64, from: u64) {
        let first = from.div_ceil(PAGE);
        self.pages.retain(|(owner, page)| *owner != inode || *page < first);
    }

    /// Returns the number of bytes in allocated pages.
    pub(crate) fn used(&self) -> u64 {
        self.pages.len() as u64 * PAGE
    }

    /// Returns the limit in bytes, if there is one.
    pub(crate) fn budget(&self) -> Option<u64> {
        self.budget
    }
}

/// Faults shared by the calls and the test.
#[derive(Clone, Default)]
pub(crate) struct SharedFaults(Arc<Mutex<Faults>>);

impl SharedFaults {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Faults> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A mounted file system, unmounted on drop. Processes that use it must have exited by then.
pub struct FaultyFs {
    session: Option<BackgroundSession>,
    faults: SharedFaults,
    home: TempDir,
}

impl FaultyFs {
    /// Mounts a file system over an empty directory, or returns the reason why the system refuses
    /// it.
    pub fn mount() -> Result<Self, String> {
        let home = tempfile::Builder::new().prefix("keyhole-faulty-").tempdir().expect("a temporary directory");
        let mut faulty = FaultyFs { session: None, faults: SharedFaults::default(), home };
        for directory in [faulty.backing(), faulty.point()] {
            std::fs::create_dir(directory).expect("a directory");
        }
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("keyhole-faulty".to_owned())];
        config.n_threads = Some(THREADS);
        config.clone_fd = true;
        let calls = Calls::new(faulty.backing(), faulty.faults.clone());
        let session = fuser::spawn_mount(calls, faulty.point(), &config).map_err(|error| format!("FUSE: {error}"))?;
        faulty.session = Some(session);
        Ok(faulty)
    }

    /// Returns the mount point.
    pub fn point(&self) -> PathBuf {
        self.home.path().join("mount")
    }

    /// Returns the backing directory, which has no faults.
    pub fn backing(&self) -> PathBuf {
        self.home.path().join("backing")
    }

    /// Returns a directory outside the mount, for files that must not fail.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Fails reads of a file that touch these bytes.
    pub fn fail_reads(&self, file: &str, bytes: Range<u64>) {
        self.faults.lock().bad_reads.push(Region { file: file.to_owned(), bytes });
    }

    /// Fails writes to a file that touch these bytes.
    pub fn fail_writes(&self, file: &str, bytes: Range<u64>) {
        self.faults.lock().bad_writes.push(Region { file: file.to_owned(), bytes });
    }

    /// Fails every sync, as if a write had been lost.
    pub fn fail_syncs(&self) {
        self.faults.lock().has_lost_writes = true;
    }

    /// Lets syncs succeed again although a write was lost, as after a restart of the machine.
    pub fn forget_lost_writes(&self) {
        self.faults.lock().has_lost_writes = false;
    }

    /// Makes the file system read-only, or writable again.
    pub fn set_read_only(&self, is_read_only: bool) {
        self.faults.lock().is_read_only = is_read_only;
    }

    /// Limits the total bytes of all files.
    pub fn set_budget(&self, budget: Option<u64>) {
        self.faults.lock().budget = budget;
    }

    /// Sets the limit to the current usage, so that no page is free.
    pub fn fill(&self) {
        let mut faults = self.faults.lock();
        faults.budget = Some(faults.used());
    }

    /// Selects the behaviour of `fallocate`.
    pub fn set_space(&self, space: Space) {
        self.faults.lock().space = space;
    }

    /// Returns the total bytes of all files.
    pub fn used(&self) -> u64 {
        self.faults.lock().used()
    }

    /// Returns the number of injected failures so far.
    pub fn injected(&self) -> FaultCounts {
        self.faults.lock().injected
    }

    /// Removes all faults. The used space and the space guarantees stay.
    pub fn heal(&self) {
        let mut faults = self.faults.lock();
        let space = faults.space;
        let pages = std::mem::take(&mut faults.pages);
        let injected = faults.injected;
        *faults = Faults { space, pages, injected, ..Faults::default() };
    }
}

impl Drop for FaultyFs {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        let begun = Instant::now();
        while let Err(error) = unmount(&self.point()) {
            if begun.elapsed() > UNMOUNT_TIMEOUT {
                eprintln!("cannot unmount {}: {error}", self.point().display());
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = session.join();
    }
}

/// Unmounts with `fusermount`, which unprivileged users may run.
fn unmount(point: &Path) -> io::Result<()> {
    let output = std::process::Command::new("fusermount").arg("-u").arg(point).output()?;
    if output.status.success() {
        Ok(())
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

#[cfg(test)]
mod tests;
