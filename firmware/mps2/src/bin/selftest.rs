//! Runs the engine suite and the test vectors on the target. Exits with 0 on success, otherwise
//! with 1.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use keyhole_checks::board;

#[entry]
fn main() -> ! {
    board::selftest("Cortex-M4")
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    board::panicked(info)
}
