//! The blocks that bodies are received, encrypted, written and read in.
//!
//! Each is aligned to a page (off alignment a receive costs about twice as much) and left out of core dumps. Long blocks are
//! mapped several at a time, in huge pages where the system has them: to look up and hold on to 257 small pages for each write
//! is most of what a write past the page cache costs. A dropped block is wiped as far as it was written to, unless all of that is ciphertext, and kept for the next
//! request, up to a bound.

use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::slice;
use std::sync::{Arc, Mutex, PoisonError};

use keyhole_log::limits::{BUFFER_LEN, INLINE_MAX, PAGE};
use keyhole_node::Share;

use crate::memory::LOG_BLOCKS;

/// Blocks that a pool keeps when they are not in use, unless it was made to keep fewer: what a worker's requests may hold
/// together, and some for the log's own batches.
const KEPT_MAX: usize = Share::MAX.blocks + LOG_BLOCKS;

/// Bytes of a short block: a body that is kept in its record, and what else the record has, with the pages that it begins and
/// ends in.
const SHORT_LEN: usize = 2 * INLINE_MAX;

/// Where one worker's blocks come from and go back to.
#[derive(Clone)]
pub(crate) struct Pool {
    /// Bytes of each block.
    len: usize,
    /// How many it keeps.
    kept_max: usize,
    kept: Arc<Mutex<Kept>>,
}

/// What a pool has that is not in use.
#[derive(Default)]
struct Kept {
    blocks: Vec<Mapping>,
    /// Slabs that were mapped.
    slabs: usize,
}

/// Blocks for the bodies of one worker, long and short ones.
#[derive(Clone)]
pub(crate) struct Pools {
    long: Pool,
    short: Pool,
}

impl Default for Pools {
    fn default() -> Self {
        Pools::new(Share::MAX)
    }
}

impl Pools {
    /// For a worker whose requests may hold so much.
    pub(crate) fn new(share: Share) -> Self {
        // As many as the pages would fill.
        let short = (share.pages * PAGE / INLINE_MAX).min(KEPT_MAX);
        Pools { long: Pool::keeping(BUFFER_LEN, share.blocks + LOG_BLOCKS), short: Pool::keeping(SHORT_LEN, short) }
    }

    /// A block of at least this length.
    pub(crate) fn take(&self, len: usize) -> Block {
        if len <= SHORT_LEN { self.short.take() } else { self.long.take() }
    }
}

impl Default for Pool {
    /// One for the blocks of bodies, of `BUFFER_LEN` bytes.
    fn default() -> Self {
        Pool::of(BUFFER_LEN)
    }
}

impl Pool {
    /// One for blocks of this many bytes.
    pub(crate) fn of(len: usize) -> Self {
        Pool::keeping(len, KEPT_MAX)
    }

    fn keeping(len: usize, kept_max: usize) -> Self {
        Pool { len, kept_max, kept: Arc::default() }
    }

    /// A block. No plaintext and no key is in it; there may be ciphertext.
    pub(crate) fn take(&self) -> Block {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // Slabs as long as all of their blocks will be wanted, but for one; the others by themselves: nothing is taken in vain.
        if kept.blocks.is_empty() && self.len == BUFFER_LEN && kept.slabs < (self.kept_max + 1) / SLAB_BLOCKS {
            kept.slabs += 1;
            kept.blocks.extend(Mapping::several(self.len));
        }
        let mapping = kept.blocks.pop().unwrap_or_else(|| {
            Mapping::new(self.len).expect("memory for a block: requests and connections are admitted by their number")
        });
        drop(kept);
        Block { mapping: Some(mapping), used: 0, is_enciphered: false, pool: self.clone() }
    }
}

/// Bytes of a huge page.
const HUGE_PAGE: usize = 2 << 20;

/// Bytes that are mapped for long blocks at a time. Seven of them fit, and little is left over.
const SLAB_LEN: usize = 4 * HUGE_PAGE;

/// Blocks in it.
const SLAB_BLOCKS: usize = SLAB_LEN / BUFFER_LEN;

/// The memory of one block.
struct Mapping {
    address: NonNull<u8>,
    /// What it is a part of.
    pages: Arc<Pages>,
}

/// So many bytes of memory, mapped.
struct Pages {
    address: NonNull<u8>,
    len: usize,
}

// SAFETY: it is plain memory that belongs to whoever owns the value.
unsafe impl Send for Pages {}
// SAFETY: nothing is done with it by reference.
unsafe impl Sync for Pages {}
// SAFETY: a mapping is plain memory that belongs to whoever owns the value: no two are of the same part of their pages.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Its memory is given back only with that of other blocks.
    fn is_part(&self) -> bool {
        self.pages.len >= SLAB_LEN
    }

    /// One block of this length, by itself.
    fn new(len: usize) -> io::Result<Self> {
        let pages = Pages::new(len)?;
        Ok(Mapping { address: pages.address, pages: Arc::new(pages) })
    }

    /// As many blocks of this length as fit into a slab; none where there is no memory for one.
    fn several(len: usize) -> Vec<Self> {
        // One huge page more, to begin at one.
        let Ok(pages) = Pages::new(SLAB_LEN + HUGE_PAGE) else { return Vec::new() };
        let skipped = pages.address.as_ptr().align_offset(HUGE_PAGE);
        let pages = Arc::new(pages);
        // SAFETY: within the mapping, as it is longer than the slab by a huge page.
        let start = unsafe { pages.address.add(skipped) };
        // SAFETY: the range has just been mapped. Where the advice is refused small pages do.
        unsafe { libc::madvise(start.as_ptr().cast(), SLAB_LEN, libc::MADV_HUGEPAGE) };
        // SAFETY: within the slab, one behind the other.
        let part = |i: usize| unsafe { start.add(i * len) };
        (0..SLAB_LEN / len).map(|i| Mapping { address: part(i), pages: pages.clone() }).collect()
    }
}

impl Pages {
    fn new(len: usize) -> io::Result<Self> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that exists.
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
        // SAFETY: the range has just been mapped. Where the advice is refused, core dumps are off all the same.
        unsafe { libc::madvise(address, len, libc::MADV_DONTDUMP) };
        let address = NonNull::new(address.cast()).ok_or_else(|| io::Error::other("a mapping at address zero"))?;
        Ok(Pages { address, len })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new` and is unmapped once; the owners of its parts are gone.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.len) };
    }
}

/// One block: initialised bytes, as many as its pool's blocks have, aligned to a page.
pub(crate) struct Block {
    /// `None` only while it is dropped.
    mapping: Option<Mapping>,
    /// Nothing from here on is to be wiped: nobody has had it to write to.
    used: usize,
    /// Nothing in it is to be wiped.
    is_enciphered: bool,
    pool: Pool,
}

impl Block {
    fn address(&self) -> *mut u8 {
        self.mapping.as_ref().expect("a live block has its memory").address.as_ptr()
    }

    fn len(&self) -> usize {
        self.pool.len
    }

    /// A part of it to write to. Most of what is stored is short: to wipe all of a block for it would cost more than to store it.
    pub(crate) fn part(&mut self, at: Range<usize>) -> &mut [u8] {
        self.used = self.used.max(at.end.min(self.len()));
        // SAFETY: as in `as_ref`; `&mut self` makes it exclusive.
        let all = unsafe { slice::from_raw_parts_mut(self.address(), self.len()) };
        &mut all[at]
    }

    /// All that is in it is ciphertext, now that it is handed on to be written.
    pub(crate) fn enciphered(&mut self) {
        self.is_enciphered = true;
    }

    /// The kernel is about to write up to `end`, and may still do so when nobody waits for it any more. The result is for
    /// [`received`](Self::received).
    pub(crate) fn receive(&mut self, end: usize) -> usize {
        let before = self.used;
        self.used = before.max(end.min(self.len()));
        before
    }

    /// It has written no further than `end`, and writes no more.
    pub(crate) fn received(&mut self, before: usize, end: usize) {
        self.used = before.max(end.min(self.len()));
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the mapping has `len` bytes, zeroed by the kernel, and lives as long as `self`.
        unsafe { slice::from_raw_parts(self.address(), self.len()) }
    }
}

impl AsMut<[u8]> for Block {
    fn as_mut(&mut self) -> &mut [u8] {
        self.part(0..self.len())
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // The memory stays reachable through the pool, so this is no dead store.
        if !self.is_enciphered {
            self.part(0..self.used).fill(0);
        }
        let mut kept = self.pool.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.blocks.len() < self.pool.kept_max {
            kept.blocks.extend(self.mapping.take());
        } else if self.mapping.as_ref().is_some_and(Mapping::is_part) {
            // A part of a slab gives nothing back: one goes that does, if there is any.
            if let Some(single) = kept.blocks.iter_mut().find(|kept| !kept.is_part()) {
                self.mapping = self.mapping.take().map(|part| std::mem::replace(single, part));
            }
        }
    }
}

// SAFETY: the memory stays where it is when the block moves, and all of it is initialised.
unsafe impl tokio_uring::buf::IoBuf for Block {
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
unsafe impl tokio_uring::buf::IoBufMut for Block {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.address()
    }

    // Who reads into it says so beforehand.
    unsafe fn set_init(&mut self, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_zeroed_and_wiped_when_they_come_back() {
        let pool = Pool::default();
        let mut block = pool.take();
        let address = block.address();
        assert_eq!((address as usize % 4096, block.as_ref().len()), (0, BUFFER_LEN));
        block.as_mut().fill(0xab);
        drop(block);
        let block = pool.take();
        assert_eq!(block.address(), address, "the block is used again");
        assert!(block.as_ref().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn whatever_was_written_is_wiped() {
        let pool = Pool::default();
        let used: [fn(&mut Block); 5] = [
            |block| block.part(5..9).fill(1),
            |block| block.as_mut()[BUFFER_LEN - 1] = 1,
            |block| {
                // The kernel, of a read that nobody waits for.
                block.receive(7000);
                // SAFETY: within the block.
                unsafe { block.address().add(6999).write(1) };
            },
            |block| {
                block.part(0..10).fill(1);
                let before = block.receive(7000);
                // SAFETY: within the block.
                unsafe { block.address().add(99).write(1) };
                block.received(before, 100);
            },
            |block| {
                let before = block.receive(7000);
                block.received(before, 0);
            },
        ];
        for use_it in used {
            let mut block = pool.take();
            use_it(&mut block);
            drop(block);
            assert!(pool.take().as_ref().iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn ciphertext_is_left() {
        let pool = Pool::default();
        let mut block = pool.take();
        block.part(5..9).fill(1);
        block.enciphered();
        drop(block);
        let mut block = pool.take();
        assert_eq!(block.as_ref()[5..9], [1; 4]);
        block.part(5..9).fill(2);
        drop(block);
        assert_eq!(pool.take().as_ref()[5..9], [0; 4], "it was not said of what is in it now");
    }

    #[test]
    fn blocks_of_another_length() {
        let pool = Pool::of(8192);
        let mut block = pool.take();
        block.as_mut().fill(1);
        assert_eq!(block.as_ref(), [1; 8192]);
        drop(block);
        assert_eq!(pool.take().as_ref(), [0; 8192]);
    }

    #[test]
    fn blocks_do_not_overlap() {
        let pool = Pool::default();
        let mut blocks: Vec<Block> = (0..2 * SLAB_LEN / BUFFER_LEN + 1).map(|_| pool.take()).collect();
        blocks.sort_by_key(|block| block.address());
        for pair in blocks.windows(2) {
            assert!(pair[0].address() as usize + BUFFER_LEN <= pair[1].address() as usize);
        }
        // The last of them outlives its pool.
        let mut last = blocks.pop().unwrap();
        drop((blocks, pool));
        last.as_mut().fill(1);
    }

    #[test]
    fn a_pool_keeps_a_bounded_number() {
        let pool = Pool::default();
        let blocks: Vec<Block> = (0..KEPT_MAX + 3).map(|_| pool.take()).collect();
        drop(blocks);
        assert_eq!(pool.kept.lock().unwrap().blocks.len(), KEPT_MAX);
    }

    /// Blocks of a slab, and others, that a pool has after so many were in use.
    fn kept_after(share: Share, in_use: usize) -> (usize, usize) {
        let pools = Pools::new(share);
        let blocks: Vec<Block> = (0..in_use).map(|_| pools.take(BUFFER_LEN)).collect();
        drop(blocks);
        let kept = pools.long.kept.lock().unwrap();
        let parts = kept.blocks.iter().filter(|block| block.is_part()).count();
        (parts, kept.blocks.len() - parts)
    }

    #[test]
    fn slabs_are_no_more_than_a_share() {
        assert_eq!(kept_after(Share::MAX, KEPT_MAX), (3 * SLAB_BLOCKS - 1, 0));
        assert_eq!(kept_after(Share::MAX, 1), (SLAB_BLOCKS, 0));
        // Eleven blocks: one slab, and four by themselves.
        assert_eq!(kept_after(Share::MIN, 11), (SLAB_BLOCKS, 4));
        // What was there beyond that for a moment, and it is not a part of the slab that is given up.
        assert_eq!(kept_after(Share::MIN, 30), (SLAB_BLOCKS, 4));
    }
}
