//! Seals the reading that all boards seal, and writes the file as `virt.sealed` where QEMU runs.
#![no_std]
#![no_main]

use keyhole_checks::board;
use riscv_rt::entry;

/// The program.
#[entry]
fn main() -> ! {
    board::seal(c"virt.sealed")
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    board::panicked(info)
}
