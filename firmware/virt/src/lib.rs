//! What the programs for RISC-V share: the count of instructions, and how they end.
#![no_std]

use core::arch::asm;
use core::panic::PanicInfo;

/// Instructions retired since the start, modulo 2^32 (`minstret`).
pub fn instructions() -> u32 {
    let count: u32;
    // SAFETY: reads a counter that the privileged architecture has; nothing else.
    unsafe { asm!("csrr {}, minstret", out(reg) count, options(nomem, nostack)) };
    count
}

/// Ends a program for which something went wrong that cannot.
pub fn panicked(info: &PanicInfo<'_>) -> ! {
    semihosting::eprintln!("{info}");
    semihosting::process::exit(101)
}
