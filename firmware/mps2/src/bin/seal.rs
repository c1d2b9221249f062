//! Seals the common reading and writes it to `mps2.sealed` in the working directory of QEMU.
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
