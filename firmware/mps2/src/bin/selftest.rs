//! Runs the suite of engines and the vectors on the target. Exits with 0 where all is right, with 1 where not.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use keyhole_core::aead::Portable;
use semihosting::{eprintln, println, process};

#[entry]
fn main() -> ! {
    let mut scratch = [0; keyhole_checks::SCRATCH_LEN];
    match keyhole_checks::run(&Portable, &mut scratch) {
        Ok(()) => {
            println!("Cortex-M4: the suite and the vectors hold");
            process::exit(0)
        }
        Err(failure) => {
            eprintln!("Cortex-M4: {failure}");
            process::exit(1)
        }
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    keyhole_mps2::panicked(info)
}
