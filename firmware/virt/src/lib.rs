//! What the programs for RISC-V share: the count of instructions.
#![no_std]

use core::arch::asm;

use keyhole_checks::board::Count;

/// Counts the instructions that are retired (`minstret`), modulo 2^32.
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
    // SAFETY: reads a counter that the privileged architecture has; nothing else.
    unsafe { asm!("csrr {}, minstret", out(reg) count, options(nomem, nostack)) };
    count
}
