//! Runs the suite of engines and the vectors on the target. Exits with 0 where all is right, with 1 where not.
#![no_std]
#![no_main]

use keyhole_checks::board;
use riscv_rt::entry;

/// The program.
#[entry]
fn main() -> ! {
    board::selftest("RISC-V")
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    board::panicked(info)
}
