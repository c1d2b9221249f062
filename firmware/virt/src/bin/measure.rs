//! Measures a reading of 4 KiB: instructions and stack. One line each: what, and the number.
#![no_std]
#![no_main]

use keyhole_checks::board;
use keyhole_virt::Instructions;
use riscv_rt::entry;

/// The program.
#[entry]
fn main() -> ! {
    // SAFETY: the board has 128 KiB of stack and no interrupt.
    unsafe { board::measure(&mut Instructions) }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    board::panicked(info)
}
