//! Seals the reading that all boards seal, and writes the file as `mps2.sealed` where QEMU runs.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use keyhole_checks::board;

#[entry]
fn main() -> ! {
    board::seal(c"mps2.sealed")
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    board::panicked(info)
}
