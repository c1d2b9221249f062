//! Seals the reading that all boards seal, and writes the file as `virt.sealed` where QEMU runs.
#![no_std]
#![no_main]

use keyhole_checks::{SEALED_MAX, seal_sample};
use keyhole_core::aead::Portable;
use riscv_rt::entry;
use semihosting::{eprintln, fs, process};

/// The program.
#[entry]
fn main() -> ! {
    let mut buffer = [0; SEALED_MAX];
    match seal_sample(&Portable, &mut buffer) {
        Ok(file) => match fs::write(c"virt.sealed", file) {
            Ok(()) => process::exit(0),
            Err(error) => eprintln!("virt.sealed: {error}"),
        },
        Err(error) => eprintln!("{error}"),
    }
    process::exit(1)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    keyhole_virt::panicked(info)
}
