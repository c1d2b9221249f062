//! Seals the reading that all boards seal, and writes the file as `mps2.sealed` where QEMU runs.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use keyhole_checks::{SEALED_MAX, seal_sample};
use keyhole_core::aead::Portable;
use semihosting::{eprintln, fs, process};

#[entry]
fn main() -> ! {
    let mut buffer = [0; SEALED_MAX];
    match seal_sample(&Portable, &mut buffer) {
        Ok(file) => match fs::write(c"mps2.sealed", file) {
            Ok(()) => process::exit(0),
            Err(error) => eprintln!("mps2.sealed: {error}"),
        },
        Err(error) => eprintln!("{error}"),
    }
    process::exit(1)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    keyhole_mps2::panicked(info)
}
