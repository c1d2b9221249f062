//! Measures a reading of 4 KiB: instructions and stack. One line each: what, and the number.
#![no_std]
#![no_main]

use core::hint::black_box;

use keyhole_app::Package;
use keyhole_checks::{
    BUCKET, Free, KEY, READING_LEN, SEALED_MAX, open_sample, sample, seal_message, seal_package, stack,
};
use keyhole_core::aead::{Engine, Portable};
use keyhole_virt::instructions;
use riscv_rt::entry;
use semihosting::{eprintln, println, process};

/// The program.
#[entry]
fn main() -> ! {
    measure("portable", &Portable);
    measure("free-ctr", &Free);

    let mut buffer = [0; SEALED_MAX];
    let package = sampled(&mut buffer);
    // SAFETY: the board has 128 KiB of stack and no interrupt.
    let (sealed, sealing) = unsafe { stack::peak(|| seal_package(&Portable, package).map(<[u8]>::len)) };
    let Ok(len) = sealed else { fail() };
    // The file is at the end of what was used: its first bytes may be free.
    let start = buffer.windows(8).position(|window| window == b"KEYHOLE1").unwrap_or(0);
    let file = &mut buffer[start..start + len];
    // SAFETY: the same.
    let (opened, opening) = unsafe { stack::peak(|| open_sample(&Portable, file)) };
    if opened != Ok(READING_LEN) {
        fail();
    }
    println!("sealing-stack {sealing}");
    println!("opening-stack {opening}");
    println!("around-the-reading {}", SEALED_MAX - READING_LEN);
    process::exit(0)
}

fn sampled(buffer: &mut [u8; SEALED_MAX]) -> Package<'_> {
    let Ok(mut package) = Package::new(buffer, BUCKET, KEY) else { fail() };
    sample(&mut package.room()[..READING_LEN]);
    package
}

fn measure<E: Engine>(name: &str, engine: &E) {
    let mut chunk = [0x5a; READING_LEN];
    let (message, of_message) = counted(|| seal_message(engine, black_box(&mut chunk)));
    black_box(message);
    let mut buffer = [0; SEALED_MAX];
    let package = sampled(&mut buffer);
    let (sealed, of_file) = counted(|| seal_package(engine, package).map(<[u8]>::len));
    if sealed.is_err() {
        fail();
    }
    println!("{name}-message-instructions {of_message}");
    println!("{name}-file-instructions {of_file}");
}

/// What a function returns, and the instructions that it takes.
fn counted<R>(function: impl FnOnce() -> R) -> (R, u32) {
    let before = instructions();
    let result = function();
    (result, instructions().wrapping_sub(before))
}

fn fail() -> ! {
    eprintln!("what is measured does not work");
    process::exit(1)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    keyhole_virt::panicked(info)
}
