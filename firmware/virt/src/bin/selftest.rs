//! Runs the suite of engines and the vectors on the target. Exits with 0 where all is right, with 1 where not.
#![no_std]
#![no_main]

use keyhole_core::aead::Portable;
use riscv_rt::entry;
use semihosting::{eprintln, println, process};

/// The program.
#[entry]
fn main() -> ! {
    let mut scratch = [0; keyhole_checks::SCRATCH_LEN];
    match keyhole_checks::run(&Portable, &mut scratch) {
        Ok(()) => {
            println!("RISC-V: the suite and the vectors hold");
            process::exit(0)
        }
        Err(failure) => {
            eprintln!("RISC-V: {failure}");
            process::exit(1)
        }
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    keyhole_virt::panicked(info)
}
