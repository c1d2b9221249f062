//! The buffers that bodies are received, encrypted, written and read in.
//!
//! Each is page-aligned (an unaligned receive costs about twice as much) and excluded from core
//! dumps. Long buffers are mapped several at a time, in huge pages if the system has them: pinning
//! 257 small pages per write is most of the cost of a direct write. A dropped buffer is wiped as
//! far as it was written, unless all of that is ciphertext, and kept for the next request, up to a
//! limit. A worker that has taken no long buffer for a moment returns their memory to the system.

use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::slice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keyhole_log::limits::{BUFFER_LEN, INLINE_MAX, PAGE};
use keyhole_node::Share;
use tokio::sync::Notify;

use crate::memory::LOG_BUFFERS;

/// Default limit of unused buffers that a pool keeps: the most that a worker's requests may hold
/// together, and some for the log's own batches.
const KEPT_MAX: usize = Share::MAX.blocks + LOG_BUFFERS;

/// Length of a short buffer: a body that is stored inside its record, the rest of the record, and
/// the partial pages at both ends.
const SHORT_LEN: usize = 2 * INLINE_MAX;

/// Length of a tiny buffer: the record of a body of a page or two, and the partial pages at both ends.
const TINY_LEN: usize = 4 * PAGE;

/// Time without a request for a long buffer after which the memory of unused ones is released.
const IDLE: Duration = Duration::from_millis(250);

/// A pool of buffers of one worker.
#[derive(Clone)]
pub(crate) struct Pool {
    /// Length of each buffer in bytes.
    len: usize,
    /// Limit of unused buffers that are kept.
    kept_max: usize,
    kept: Arc<Mutex<UnusedBuffers>>,
}

/// The unused buffers of a pool.
#[derive(Default)]
struct UnusedBuffers {
    buffers: Vec<Mapping>,
    /// Slabs mapped so far.
    slabs: usize,
    /// A buffer was taken since the last check whether the pool is idle.
    was_taken: bool,
    /// Notified when `was_taken` is set.
    taken: Arc<Notify>,
}

/// Long, short and tiny buffers for the bodies of one worker.
#[derive(Clone)]
pub(crate) struct Pools {
    long: Pool,
    short: Pool,
    tiny: Pool,
}

impl Default for Pools {
    fn default() -> Self {
        Pools::new(Share::MAX)
    }
}

impl Pools {
    /// Returns the pools of a worker whose requests may hold `share`.
    pub(crate) fn new(share: Share) -> Self {
        // As many short buffers as the pages of the share can fill.
        let short = (share.pages * PAGE / INLINE_MAX).min(KEPT_MAX);
        // Half of the share: mapping and unmapping a buffer takes 3 % of the time of a tiny request.
        let tiny = share.pages * PAGE / TINY_LEN / 2;
        Pools {
            long: Pool::keeping(BUFFER_LEN, share.blocks + LOG_BUFFERS),
            short: Pool::keeping(SHORT_LEN, short),
            tiny: Pool::keeping(TINY_LEN, tiny),
        }
    }

    /// Takes a buffer of at least this length.
    pub(crate) fn take(&self, len: usize) -> Buffer {
        if len <= TINY_LEN {
            self.tiny.take()
        } else if len <= SHORT_LEN {
            self.short.take()
        } else {
            self.long.take()
        }
    }

    /// Returns the memory of unused long buffers to the system whenever none was taken for a while,
    /// without end. Their addresses stay mapped, so that taking one again cannot fail.
    pub(crate) async fn release_when_idle(self) {
        let taken = self.long.unused().taken.clone();
        loop {
            taken.notified().await;
            while std::mem::take(&mut self.long.unused().was_taken) {
                tokio::time::sleep(IDLE).await;
            }
            self.long.release_unused();
        }
    }
}

impl Default for Pool {
    /// Returns a pool of buffers of `BUFFER_LEN` bytes, for the blocks of bodies.
    fn default() -> Self {
        Pool::with_len(BUFFER_LEN)
    }
}

impl Pool {
    /// Returns a pool of buffers of `len` bytes.
    pub(crate) fn with_len(len: usize) -> Self {
        Pool::keeping(len, KEPT_MAX)
    }

    fn keeping(len: usize, kept_max: usize) -> Self {
        Pool { len, kept_max, kept: Arc::default() }
    }

    /// Takes a buffer. It contains no plaintext and no key, but may contain ciphertext.
    pub(crate) fn take(&self) -> Buffer {
        let mut kept = self.unused();
        if !std::mem::replace(&mut kept.was_taken, true) {
            kept.taken.notify_one();
        }
        // Map slabs while all but one of their buffers can be kept, then single buffers, so that no
        // memory is wasted.
        if kept.buffers.is_empty() && self.len == BUFFER_LEN && kept.slabs < (self.kept_max + 1) / SLAB_BUFFERS {
            kept.slabs += 1;
            kept.buffers.extend(Mapping::several(self.len));
        }
        let mapping = kept.buffers.pop().unwrap_or_else(|| {
            Mapping::new(self.len).expect("memory for a buffer: requests and connections are admitted by their number")
        });
        drop(kept);
        Buffer { mapping: Some(mapping), used: 0, wiped: 0, is_ciphertext: false, pool: self.clone() }
    }

    /// Returns the memory of unused buffers to the system. A slab is released as a whole: releasing
    /// a part would split the huge pages of the buffers in use beside it.
    fn release_unused(&self) {
        let kept = self.unused();
        for Mapping { pages, .. } in &kept.buffers {
            let unused = kept.buffers.iter().filter(|other| Arc::ptr_eq(&other.pages, pages)).count();
            if unused == Arc::strong_count(pages) {
                // SAFETY: the range is mapped, and all buffers in it are unused: the pool is locked.
                // Released memory reads as zeros.
                unsafe { libc::madvise(pages.address.as_ptr().cast(), pages.len, libc::MADV_DONTNEED) };
            }
        }
    }

    fn unused(&self) -> MutexGuard<'_, UnusedBuffers> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Length of a huge page in bytes.
const HUGE_PAGE: usize = 2 << 20;

/// Length of a slab in bytes. Seven long buffers fit, and little is left over.
const SLAB_LEN: usize = 4 * HUGE_PAGE;

/// Long buffers per slab.
const SLAB_BUFFERS: usize = SLAB_LEN / BUFFER_LEN;

/// The memory of one buffer.
struct Mapping {
    address: NonNull<u8>,
    /// The mapping that it is a part of.
    pages: Arc<Pages>,
}

/// A memory mapping.
struct Pages {
    address: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is plain memory that the owner of the value owns.
unsafe impl Send for Pages {}
// SAFETY: no operation on a shared reference accesses the memory.
unsafe impl Sync for Pages {}
// SAFETY: a mapping is plain memory of its owner: no two values cover the same part of their pages.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Returns whether the memory belongs to a slab, which is unmapped only as a whole.
    fn is_part(&self) -> bool {
        self.pages.len >= SLAB_LEN
    }

    /// Maps one buffer of this length by itself.
    fn new(len: usize) -> io::Result<Self> {
        let pages = Pages::new(len)?;
        Ok(Mapping { address: pages.address, pages: Arc::new(pages) })
    }

    /// Maps a slab and returns the buffers of this length in it; none if no memory is available.
    fn several(len: usize) -> Vec<Self> {
        // One extra huge page, for alignment.
        let Ok(pages) = Pages::new(SLAB_LEN + HUGE_PAGE) else { return Vec::new() };
        let skipped = pages.address.as_ptr().align_offset(HUGE_PAGE);
        let pages = Arc::new(pages);
        // SAFETY: within the mapping, which is longer than the slab by a huge page.
        let start = unsafe { pages.address.add(skipped) };
        // SAFETY: the range has just been mapped. If the advice is refused, small pages suffice.
        unsafe { libc::madvise(start.as_ptr().cast(), SLAB_LEN, libc::MADV_HUGEPAGE) };
        // SAFETY: within the slab; the parts do not overlap.
        let part = |i: usize| unsafe { start.add(i * len) };
        (0..SLAB_LEN / len).map(|i| Mapping { address: part(i), pages: pages.clone() }).collect()
    }
}

impl Pages {
    fn new(len: usize) -> io::Result<Self> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice affects no existing
        // memory.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the range has just been mapped. If the advice is refused, core dumps are still
        // disabled for the process.
        unsafe { libc::madvise(address, len, libc::MADV_DONTDUMP) };
        let address = NonNull::new(address.cast()).ok_or_else(|| io::Error::other("a mapping at address zero"))?;
        Ok(Pages { address, len })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new` and is unmapped once; no part of it has an owner
        // any more.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.len) };
    }
}

/// A page-aligned buffer of initialised bytes, as long as all buffers of its pool.
pub(crate) struct Buffer {
    /// `None` only during drop.
    mapping: Option<Mapping>,
    /// End of the range that was written to; only bytes before it need wiping.
    used: usize,
    /// Everything before this has been wiped since it was written to.
    wiped: usize,
    /// The buffer contains only ciphertext and needs no wiping.
    is_ciphertext: bool,
    pool: Pool,
}

impl Buffer {
    fn address(&self) -> *mut u8 {
        self.mapping.as_ref().expect("a live buffer has its memory").address.as_ptr()
    }

    fn len(&self) -> usize {
        self.pool.len
    }

    /// Returns a range for writing. Only the ranges handed out are wiped later: most stored bodies
    /// are short, and wiping a whole buffer would cost more than storing them.
    pub(crate) fn slice_mut(&mut self, at: Range<usize>) -> &mut [u8] {
        self.used = self.used.max(at.end.min(self.len()));
        self.wiped = self.wiped.min(at.start);
        // SAFETY: as in `as_ref`; `&mut self` makes it exclusive.
        let all = unsafe { slice::from_raw_parts_mut(self.address(), self.len()) };
        &mut all[at]
    }

    /// Wipes a range. If nothing before it needs wiping, it is not wiped again on drop.
    pub(crate) fn wipe(&mut self, at: Range<usize>) {
        let wiped = self.wiped;
        self.slice_mut(at.clone()).fill(0);
        self.wiped = if at.start <= wiped { wiped.max(at.end) } else { wiped };
    }

    /// Marks the content as ciphertext, which needs no wiping.
    pub(crate) fn mark_ciphertext(&mut self) {
        self.is_ciphertext = true;
    }

    /// Prepares for a kernel write up to `end`, which may continue after its future was dropped.
    /// Pass the result to [`received`](Self::received).
    pub(crate) fn receive(&mut self, end: usize) -> usize {
        let before = self.used;
        self.used = before.max(end.min(self.len()));
        // It may begin anywhere.
        self.wiped = 0;
        before
    }

    /// Ends a kernel write that has reached no further than `end`.
    pub(crate) fn received(&mut self, before: usize, end: usize) {
        self.used = before.max(end.min(self.len()));
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the mapping has `len` bytes, zeroed by the kernel, and lives as long as `self`.
        unsafe { slice::from_raw_parts(self.address(), self.len()) }
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self.slice_mut(0..self.len())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // The memory stays reachable through the pool, so the compiler cannot remove this store.
        if !self.is_ciphertext {
            self.slice_mut(self.wiped.min(self.used)..self.used).fill(0);
        }
        let mut kept = self.pool.unused();
        if kept.buffers.len() < self.pool.kept_max {
            kept.buffers.extend(self.mapping.take());
        } else if self.mapping.as_ref().is_some_and(Mapping::is_part) {
            // A part of a slab frees no memory when dropped: drop a single buffer instead, if the
            // pool has one.
            if let Some(single) = kept.buffers.iter_mut().find(|kept| !kept.is_part()) {
                self.mapping = self.mapping.take().map(|part| std::mem::replace(single, part));
            }
        }
    }
}

// SAFETY: the memory stays in place when the buffer moves, and all of it is initialised.
unsafe impl tokio_uring::buf::IoBuf for Buffer {
    fn stable_ptr(&self) -> *const u8 {
        self.address()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }

    fn bytes_total(&self) -> usize {
        self.len()
    }
}

// SAFETY: as above.
unsafe impl tokio_uring::buf::IoBufMut for Buffer {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.address()
    }

    // Readers call `receive` before they read into the buffer.
    unsafe fn set_init(&mut self, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a buffer of ciphertext, which is not wiped.
    fn ciphertext(pool: &Pool) -> Buffer {
        let mut buffer = pool.take();
        buffer.as_mut().fill(7);
        buffer.mark_ciphertext();
        buffer
    }

    #[test]
    fn slab_is_released_when_all_its_buffers_are_unused() {
        let pool = Pool::default();
        let first = ciphertext(&pool);
        let second = ciphertext(&pool);
        drop(second);
        pool.release_unused();
        let second = pool.take();
        assert_eq!(second.as_ref()[0], 7, "the first buffer of the slab is in use");
        drop((first, second));
        pool.release_unused();
        assert!(pool.take().as_ref().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn unused_buffers_are_released_once_none_is_taken() {
        let pools = Pools::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let released = async |takes: u32| {
                for _ in 0..takes {
                    drop(ciphertext(&pools.long));
                    tokio::time::sleep(IDLE / 2).await;
                }
                let buffer = pools.long.take();
                buffer.as_ref()[0] == 0
            };
            tokio::select! {
                () = pools.clone().release_when_idle() => unreachable!("it has no end"),
                () = async {
                    assert!(!released(4).await, "buffers were in use");
                    tokio::time::sleep(3 * IDLE).await;
                    assert_eq!(pools.long.take().as_ref()[0], 0);
                } => {}
            }
        });
    }

    #[test]
    fn shortest_sufficient_pool_serves_a_length() {
        let pools = Pools::default();
        let lens = [1, TINY_LEN, TINY_LEN + 1, SHORT_LEN, SHORT_LEN + 1, BUFFER_LEN];
        let served = [TINY_LEN, TINY_LEN, SHORT_LEN, SHORT_LEN, BUFFER_LEN, BUFFER_LEN];
        assert_eq!(lens.map(|len| pools.take(len).as_ref().len()), served);
    }

    #[test]
    fn buffers_are_aligned_and_wiped_on_return() {
        let pool = Pool::default();
        let mut buffer = pool.take();
        let address = buffer.address();
        assert_eq!((address as usize % 4096, buffer.as_ref().len()), (0, BUFFER_LEN));
        buffer.as_mut().fill(0xab);
        drop(buffer);
        let buffer = pool.take();
        assert_eq!(buffer.address(), address, "the buffer is used again");
        assert!(buffer.as_ref().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn written_ranges_are_wiped_on_return() {
        let pool = Pool::default();
        let used: [fn(&mut Buffer); 5] = [
            |buffer| buffer.slice_mut(5..9).fill(1),
            |buffer| buffer.as_mut()[BUFFER_LEN - 1] = 1,
            |buffer| {
                // A kernel read whose future was dropped.
                buffer.receive(7000);
                // SAFETY: within the buffer.
                unsafe { buffer.address().add(6999).write(1) };
            },
            |buffer| {
                buffer.slice_mut(0..10).fill(1);
                let before = buffer.receive(7000);
                // SAFETY: within the buffer.
                unsafe { buffer.address().add(99).write(1) };
                buffer.received(before, 100);
            },
            |buffer| {
                let before = buffer.receive(7000);
                buffer.received(before, 0);
            },
        ];
        for use_it in used {
            let mut buffer = pool.take();
            use_it(&mut buffer);
            drop(buffer);
            assert!(pool.take().as_ref().iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn ranges_written_after_wiping_are_wiped_on_return() {
        let pool = Pool::default();
        let used: [fn(&mut Buffer); 4] = [
            |buffer| {
                buffer.wipe(0..5000);
                buffer.wipe(5000..8000);
                assert_eq!(buffer.wiped, 8000);
            },
            |buffer| {
                buffer.wipe(0..8000);
                buffer.slice_mut(100..200).fill(2);
            },
            |buffer| {
                // Bytes before the range are not wiped yet.
                buffer.wipe(6000..7000);
                assert_eq!(buffer.wiped, 0);
            },
            |buffer| {
                buffer.wipe(0..8000);
                buffer.receive(7000);
                // SAFETY: within the buffer.
                unsafe { buffer.address().add(6999).write(1) };
            },
        ];
        for use_it in used {
            let mut buffer = pool.take();
            buffer.slice_mut(0..9000).fill(1);
            use_it(&mut buffer);
            drop(buffer);
            assert!(pool.take().as_ref().iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn ciphertext_is_not_wiped() {
        let pool = Pool::default();
        let mut buffer = pool.take();
        buffer.slice_mut(5..9).fill(1);
        buffer.mark_ciphertext();
        drop(buffer);
        let mut buffer = pool.take();
        assert_eq!(buffer.as_ref()[5..9], [1; 4]);
        buffer.slice_mut(5..9).fill(2);
        drop(buffer);
        assert_eq!(pool.take().as_ref()[5..9], [0; 4], "it was not said of what is in it now");
    }

    #[test]
    fn pool_has_buffers_of_its_length() {
        let pool = Pool::with_len(8192);
        let mut buffer = pool.take();
        buffer.as_mut().fill(1);
        assert_eq!(buffer.as_ref(), [1; 8192]);
        drop(buffer);
        assert_eq!(pool.take().as_ref(), [0; 8192]);
    }

    #[test]
    fn buffers_do_not_overlap() {
        let pool = Pool::default();
        let mut buffers: Vec<Buffer> = (0..2 * SLAB_LEN / BUFFER_LEN + 1).map(|_| pool.take()).collect();
        buffers.sort_by_key(|buffer| buffer.address());
        for pair in buffers.windows(2) {
            assert!(pair[0].address() as usize + BUFFER_LEN <= pair[1].address() as usize);
        }
        // The last buffer outlives its pool.
        let mut last = buffers.pop().unwrap();
        drop((buffers, pool));
        last.as_mut().fill(1);
    }

    #[test]
    fn pool_keeps_bounded_number() {
        let pool = Pool::default();
        let buffers: Vec<Buffer> = (0..KEPT_MAX + 3).map(|_| pool.take()).collect();
        drop(buffers);
        assert_eq!(pool.kept.lock().unwrap().buffers.len(), KEPT_MAX);
    }

    /// Returns how many slab buffers and single buffers a pool keeps after `in_use` were in use.
    fn kept_after(share: Share, in_use: usize) -> (usize, usize) {
        let pools = Pools::new(share);
        let buffers: Vec<Buffer> = (0..in_use).map(|_| pools.take(BUFFER_LEN)).collect();
        drop(buffers);
        let kept = pools.long.kept.lock().unwrap();
        let parts = kept.buffers.iter().filter(|buffer| buffer.is_part()).count();
        (parts, kept.buffers.len() - parts)
    }

    #[test]
    fn slabs_fit_the_share() {
        assert_eq!(kept_after(Share::MAX, KEPT_MAX), (3 * SLAB_BUFFERS - 1, 0));
        assert_eq!(kept_after(Share::MAX, 1), (SLAB_BUFFERS, 0));
        // Eleven buffers: one slab and four single ones.
        assert_eq!(kept_after(Share::MIN, 11), (SLAB_BUFFERS, 4));
        // The excess is freed, and it consists of single buffers, not of the slab's.
        assert_eq!(kept_after(Share::MIN, 30), (SLAB_BUFFERS, 4));
    }
}
