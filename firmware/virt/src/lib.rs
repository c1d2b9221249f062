//! Common parts of the programs for RISC-V: the instruction counter.
#![no_std]

use core::arch::asm;

use keyhole_checks::board::Count;

/// A counter of retired instructions (`minstret`), modulo 2^32.
pub struct Instructions;

impl Count for Instructions {
    fn of<R>(&mut self, function: impl FnOnce() -> R) -> (R, u32) {
        let before = retired();
        let result = function();
        (result, retired().wrapping_sub(before))
    }
}

fn retired() -> u32 {
    let count: u32;
    // SAFETY: only reads a counter of the privileged architecture.
    unsafe { asm!("csrr {}, minstret", out(reg) count, options(nomem, nostack)) };
    count
}
