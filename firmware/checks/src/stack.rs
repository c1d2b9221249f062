//! How much stack a function uses: what lies below the stack pointer is painted first, and what is no longer painted
//! afterwards has been used. For a board without interrupts and with one stack, as the programs here have.

use core::arch::asm;

const PAINT: u32 = 0x5a17_c0de;

/// Bytes that are painted: more than any function here takes, less than any board here has.
const DEPTH: usize = 40 * 1024;

#[inline(always)]
fn stack_pointer() -> usize {
    let pointer: usize;
    // SAFETY: reads a register, and nothing else.
    unsafe {
        #[cfg(target_arch = "arm")]
        asm!("mov {}, sp", out(reg) pointer, options(nomem, nostack, preserves_flags));
        #[cfg(target_arch = "riscv32")]
        asm!("mv {}, sp", out(reg) pointer, options(nomem, nostack, preserves_flags));
    }
    pointer
}

/// Runs a function; what it returned, and the bytes of stack that it used at most, all it calls included.
///
/// # Safety
/// 40 KiB below the stack pointer belong to the stack, and no interrupt uses them meanwhile.
#[inline(never)]
pub unsafe fn peak<R>(function: impl FnOnce() -> R) -> (R, usize) {
    let top = stack_pointer() & !3;
    let bottom = top - DEPTH;
    for address in (bottom..top).step_by(4) {
        // SAFETY: the caller promises that this is unused stack, and nothing is called between here and there.
        unsafe { (address as *mut u32).write_volatile(PAINT) };
    }
    let result = function();
    // SAFETY: the same.
    let is_painted = |address: &usize| unsafe { (*address as *const u32).read_volatile() } == PAINT;
    let untouched = (bottom..top).step_by(4).take_while(is_painted).count() * 4;
    (result, DEPTH - untouched)
}
