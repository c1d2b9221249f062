//! Seals the common reading and writes it to `virt.sealed` in the working directory of QEMU.
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
