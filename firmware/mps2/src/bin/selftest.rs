//! Runs the suite of engines and the vectors on the target. Exits with 0 where all is right, with 1 where not.
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
