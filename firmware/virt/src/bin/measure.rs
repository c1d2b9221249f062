//! Measures instructions and stack for a reading of 4 KiB. Prints one line each: a name and the
//! number.
#![no_std]
#![no_main]

use keyhole_checks::board;
use keyhole_virt::Instructions;
use riscv_rt::entry;

/// The program.
#[entry]
fn main() -> ! {
    // SAFETY: the board has 128 KiB of stack, and no interrupts are enabled.
    unsafe { board::measure(&mut Instructions) }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    board::panicked(info)
}
