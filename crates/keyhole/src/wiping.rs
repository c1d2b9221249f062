//! The allocator of the process: wipes memory when it is freed.
//!
//! Request heads, futures, the buffers of TLS records and everything else that lives on the heap may
//! have held a customer key or plaintext, also in places that only a library knows. Types that own
//! secrets wipe themselves as well: they do not rely on this allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;

/// Length in bytes from which a reallocation is left to the system, which moves whole pages instead
/// of copying. Longer than any buffer for a request head, a TLS record or a piece of a body.
const MOVED_MIN: usize = 1 << 20;

/// The system's allocator, with freed memory wiped.
pub(crate) struct WipingAllocator;

// SAFETY: every call is passed on to the system's allocator with its own arguments; wiping writes to
// memory that the caller gives up.
unsafe impl GlobalAlloc for WipingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those of the inner allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` is a live allocation of this layout, which its owner gives up.
        unsafe { wipe(ptr, layout.size()) };
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) };
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if layout.size() >= MOVED_MIN {
            // SAFETY: as above.
            return unsafe { System.realloc(ptr, layout, new_size) };
        }
        // SAFETY: the caller guarantees that the new size is valid for this alignment.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: the new size is not zero, which the caller guarantees.
        let new = unsafe { self.alloc(new_layout) };
        if !new.is_null() {
            let len = layout.size().min(new_size);
            // SAFETY: both are live allocations of at least this length, and they do not overlap.
            unsafe { new.copy_from_nonoverlapping(ptr, len) };
            // SAFETY: `ptr` is live, and the caller uses the new allocation from now on.
            unsafe { self.dealloc(ptr, layout) };
        }
        new
    }
}

/// Writes zeros that the compiler keeps even if the memory is freed next.
///
/// # Safety
/// `ptr` is valid for writes of `len` bytes.
unsafe fn wipe(ptr: *mut u8, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { ptr.write_bytes(0, len) };
    black_box(ptr);
}

/// That freed memory is wiped is shown from outside, by the memory scan of the system tests.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wiped_memory_is_zero() {
        let mut bytes = *b"a key";
        // SAFETY: the array is live and as long.
        unsafe { wipe(bytes.as_mut_ptr(), bytes.len()) };
        assert_eq!(bytes, [0; 5]);
    }

    #[test]
    fn reallocated_memory_keeps_its_bytes() {
        for (len, grown) in [(1, 100), (100, 1), (MOVED_MIN - 1, MOVED_MIN + 1), (MOVED_MIN, 3 * MOVED_MIN)] {
            let layout = Layout::from_size_align(len, 1).unwrap();
            let kept = len.min(grown);
            // SAFETY: the layouts are not empty, and each pointer is used while its allocation lives.
            let bytes = unsafe {
                let old = WipingAllocator.alloc(layout);
                old.write_bytes(7, len);
                let new = WipingAllocator.realloc(old, layout, grown);
                let bytes = std::slice::from_raw_parts(new, kept).to_vec();
                WipingAllocator.dealloc(new, Layout::from_size_align(grown, 1).unwrap());
                bytes
            };
            assert_eq!(bytes, vec![7; kept], "{len} to {grown}");
        }
    }
}
