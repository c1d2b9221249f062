//! Runs the engine suite and the test vectors on the target. Exits with 0 on success, otherwise
//! with 1.
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
