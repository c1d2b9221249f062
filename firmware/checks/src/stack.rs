//! Measures the stack usage of a function: the memory below the stack pointer is painted
//! beforehand, and the paint that is gone afterwards gives the usage. For boards with one stack and
//! without interrupts, like the programs here.

use core::arch::asm;

const PAINT: u32 = 0x5a17_c0de;

/// Bytes to paint: more than any function here uses, less than the stack of any board here.
const DEPTH: usize = 40 * 1024;

#[inline(always)]
fn stack_pointer() -> usize {
    let pointer: usize;
    // SAFETY: only reads a register.
    unsafe {
        #[cfg(target_arch = "arm")]
        asm!("mov {}, sp", out(reg) pointer, options(nomem, nostack, preserves_flags));
        #[cfg(target_arch = "riscv32")]
        asm!("mv {}, sp", out(reg) pointer, options(nomem, nostack, preserves_flags));
    }
    pointer
}

/// Runs a function and returns its result and its maximum stack usage in bytes, callees included.
///
/// # Safety
/// The 40 KiB below the stack pointer must belong to the stack, and interrupts must not use them
/// meanwhile.
#[inline(never)]
pub unsafe fn peak<R>(function: impl FnOnce() -> R) -> (R, usize) {
    let top = stack_pointer() & !3;
    let bottom = top - DEPTH;
    for address in (bottom..top).step_by(4) {
        // SAFETY: the caller guarantees that this is unused stack, and there is no call in between.
        unsafe { (address as *mut u32).write_volatile(PAINT) };
    }
    let result = function();
    // SAFETY: as above.
    let is_painted = |address: &usize| unsafe { (*address as *const u32).read_volatile() } == PAINT;
    let untouched = (bottom..top).step_by(4).take_while(is_painted).count() * 4;
    (result, DEPTH - untouched)
}
