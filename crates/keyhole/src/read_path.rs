//! The choice between reads through the page cache and direct reads past it, for all workers.
//!
//! Bytes that are in the cache are read from it. Others are read directly at their first access, and
//! through the cache, which then keeps them, if their block was accessed before within about as many
//! accesses as the cache has room for blocks. So a pass over many objects evicts nothing, and an
//! object that is read repeatedly comes from the cache.
//!
//! `cachestat` tells whether bytes are in the cache without reading them. A non-blocking read would
//! start to read them into the cache. Kernels before 6.5 have no such call; the frequency alone
//! decides there.

#[cfg(test)]
mod coherence;
mod sketch;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use keyhole_log::Access;
use keyhole_log::limits::{BLOCK_DATA, PAGE};
use serde::{Deserialize, Serialize};

use crate::memory;
use sketch::Sketch;

/// Longest read of records that always goes through the page cache. The cache is cheaper for a few
/// pages, and the kernel evicts pages first that were accessed only once.
pub(crate) const SMALL_READ_MAX: usize = 16 * 1024;

/// Shards of the counters; each thread has its own while there are no more threads.
const SHARDS: usize = 16;

/// The choice and the counters of one store.
pub(crate) struct ReadPath {
    sketch: Mutex<Sketch>,
    /// The kernel has `cachestat`.
    has_cachestat: AtomicBool,
    shards: [Shard; SHARDS],
    next_shard: AtomicU64,
}

/// Counters of a thread, aligned to avoid false sharing.
#[repr(align(128))]
#[derive(Default)]
struct Shard {
    reads: [AtomicU64; 2],
    bytes: [AtomicU64; 2],
}

/// Counts of reads of the object file.
#[derive(Serialize, Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct ReadCounts {
    pub(crate) cached: u64,
    pub(crate) cached_bytes: u64,
    pub(crate) direct: u64,
    pub(crate) direct_bytes: u64,
}

impl ReadPath {
    /// Returns the choice for the memory that this process may use.
    pub(crate) fn new() -> Arc<Self> {
        ReadPath::with_memory(memory::available())
    }

    fn with_memory(bytes: u64) -> Arc<Self> {
        // The cache has the memory that processes leave to it: about half.
        let blocks = (bytes / 2 / BLOCK_DATA as u64).clamp(16, sketch::WINDOW_MAX.into());
        Arc::new(ReadPath {
            sketch: Mutex::new(Sketch::new(blocks as u32)),
            has_cachestat: AtomicBool::new(true),
            shards: Default::default(),
            next_shard: AtomicU64::new(0),
        })
    }

    /// Chooses how to read `range` of `file`, which is in the block or record at `block`, and counts
    /// the access.
    pub(crate) fn choose(&self, file: &File, block: u64, range: Range<u64>) -> Access {
        let seen = self.sketch.lock().unwrap_or_else(PoisonError::into_inner).touch(block / PAGE as u64);
        if seen > 0 || self.is_cached(file, range) { Access::Cached } else { Access::Direct }
    }

    /// Returns whether all of a range is known to be in the page cache.
    fn is_cached(&self, file: &File, range: Range<u64>) -> bool {
        if !self.has_cachestat.load(Relaxed) {
            return false;
        }
        match cached_pages(file, &range) {
            Ok(pages) => pages >= (range.end - range.start).div_ceil(PAGE as u64),
            Err(error) => {
                tracing::debug!(%error, "cannot ask for the content of the page cache");
                self.has_cachestat.store(false, Relaxed);
                false
            }
        }
    }

    /// Returns the counts of all threads.
    pub(crate) fn counts(&self) -> ReadCounts {
        let sum = |of: &dyn Fn(&Shard) -> &AtomicU64| self.shards.iter().map(|shard| of(shard).load(Relaxed)).sum();
        ReadCounts {
            cached: sum(&|shard| &shard.reads[Access::Cached as usize]),
            cached_bytes: sum(&|shard| &shard.bytes[Access::Cached as usize]),
            direct: sum(&|shard| &shard.reads[Access::Direct as usize]),
            direct_bytes: sum(&|shard| &shard.bytes[Access::Direct as usize]),
        }
    }
}

/// One thread's counters.
#[derive(Clone)]
pub(crate) struct ReadMeter {
    path: Arc<ReadPath>,
    shard: usize,
}

impl ReadMeter {
    pub(crate) fn new(path: Arc<ReadPath>) -> Self {
        let shard = path.next_shard.fetch_add(1, Relaxed) as usize % SHARDS;
        ReadMeter { path, shard }
    }

    /// Counts a read.
    pub(crate) fn count(&self, access: Access, len: usize) {
        let shard = &self.path.shards[self.shard];
        shard.reads[access as usize].fetch_add(1, Relaxed);
        shard.bytes[access as usize].fetch_add(len as u64, Relaxed);
    }
}

/// Number of the `cachestat` system call, on all architectures.
const CACHESTAT: libc::c_long = 451;

/// `struct cachestat_range`.
#[repr(C)]
struct CacheRange {
    offset: u64,
    len: u64,
}

/// `struct cachestat`.
#[repr(C)]
#[derive(Default)]
struct CacheStat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Returns how many pages of a range are in the page cache.
fn cached_pages(file: &File, range: &Range<u64>) -> io::Result<u64> {
    let asked = CacheRange { offset: range.start, len: range.end - range.start };
    let mut found = CacheStat::default();
    // SAFETY: the call reads one `cachestat_range` and writes one `cachestat`, both of which outlive
    // it, and the descriptor is open as long as `file`.
    let result = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), &raw const asked, &raw mut found, 0) };
    if result == 0 { Ok(found.cached) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn first_access_is_direct_and_second_is_cached() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 30).unwrap();
        let path = ReadPath::with_memory(64 << 20);
        let block = BLOCK_DATA as u64;
        let access = |at: u64| path.choose(&file, at * block, at * block..(at + 1) * block);
        assert_eq!(access(0), Access::Direct);
        assert_eq!(access(0), Access::Cached);
        // A pass over many blocks makes it forget, and chooses the cache for none of them but by a
        // collision.
        let cached = (1..1000).filter(|at| access(*at) == Access::Cached).count();
        assert!(cached <= 2, "{cached}");
        assert_eq!(access(0), Access::Direct);
    }

    #[test]
    fn bytes_in_page_cache_are_read_from_it() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 8 * PAGE], 0).unwrap();
        if cached_pages(&file, &(0..1)).is_err() {
            return;
        }
        let path = ReadPath::with_memory(64 << 20);
        let end = 8 * PAGE as u64;
        assert_eq!(path.choose(&file, 0, 0..end), Access::Cached);
        // A range that is cached in part is not.
        file.set_len(2 * end).unwrap();
        assert_eq!(path.choose(&file, PAGE as u64, PAGE as u64..end + PAGE as u64), Access::Direct);
    }

    #[test]
    fn missing_cachestat_leaves_choice_to_frequency() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; PAGE], 0).unwrap();
        let path = ReadPath::with_memory(64 << 20);
        path.has_cachestat.store(false, Relaxed);
        let access = || path.choose(&file, 0, 0..PAGE as u64);
        assert_eq!([access(), access()], [Access::Direct, Access::Cached]);
    }

    #[test]
    fn reads_of_all_threads_are_counted() {
        let path = ReadPath::with_memory(0);
        for len in 1..=2 * SHARDS {
            let meter = ReadMeter::new(path.clone());
            meter.count(Access::Direct, len);
            meter.count(Access::Cached, 1);
        }
        let count = 2 * SHARDS as u64;
        let expected =
            ReadCounts { cached: count, cached_bytes: count, direct: count, direct_bytes: count * (count + 1) / 2 };
        assert_eq!(path.counts(), expected);
    }
}
