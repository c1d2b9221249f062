//! Programs common to all boards, apart from their entry points and instruction counters. They exit
//! by semihosting.

use core::ffi::CStr;
use core::hint::black_box;
use core::panic::PanicInfo;

use keyhole_app::Package;
use keyhole_core::aead::{Engine, Portable};
use semihosting::{eprintln, fs, println, process};

use crate::{
    BUCKET, Free, KEY, READING_LEN, SCRATCH_LEN, SEALED_MAX, open_sample, sample, seal_message, seal_package,
    seal_sample, stack,
};

/// Runs the engine suite and the test vectors. Exits with 0 on success, otherwise with 1.
pub fn selftest(board: &str) -> ! {
    match crate::run(&Portable, &mut [0; SCRATCH_LEN]) {
        Ok(()) => {
            println!("{board}: the suite and the vectors hold");
            process::exit(0)
        }
        Err(failure) => {
            eprintln!("{board}: {failure}");
            process::exit(1)
        }
    }
}

/// Seals the common reading and writes the file to the working directory of QEMU.
pub fn seal(path: &CStr) -> ! {
    match seal_sample(&Portable, &mut [0; SEALED_MAX]) {
        Ok(file) => match fs::write(path, file) {
            Ok(()) => process::exit(0),
            Err(error) => eprintln!("the sealed file: {error}"),
        },
        Err(error) => eprintln!("{error}"),
    }
    process::exit(1)
}

/// An instruction counter.
pub trait Count {
    /// Runs a function and returns its result and instruction count.
    fn of<R>(&mut self, function: impl FnOnce() -> R) -> (R, u32);
}

/// Measures instructions and stack for a reading of 4 KiB. Prints one line each: a name and the
/// number.
///
/// # Safety
/// Like [`stack::peak`].
pub unsafe fn measure(instructions: &mut impl Count) -> ! {
    count("portable", &Portable, instructions);
    count("free-ctr", &Free, instructions);

    let mut buffer = [0; SEALED_MAX];
    let package = sampled(&mut buffer);
    // SAFETY: guaranteed by the caller.
    let (sealed, sealing) = unsafe { stack::peak(|| seal_package(&Portable, package).map(<[u8]>::len)) };
    let Ok(len) = sealed else { fail() };
    // The file is at the end of the used buffer: unused space may precede it.
    let start = buffer.windows(8).position(|window| window == b"KEYHOLE1").unwrap_or(0);
    let file = &mut buffer[start..start + len];
    // SAFETY: as above.
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

fn count<E: Engine>(name: &str, engine: &E, instructions: &mut impl Count) {
    let mut chunk = [0x5a; READING_LEN];
    let (message, of_message) = instructions.of(|| seal_message(engine, black_box(&mut chunk)));
    black_box(message);
    let mut buffer = [0; SEALED_MAX];
    let package = sampled(&mut buffer);
    let (sealed, of_file) = instructions.of(|| seal_package(engine, package).map(<[u8]>::len));
    if sealed.is_err() {
        fail();
    }
    println!("{name}-message-instructions {of_message}");
    println!("{name}-file-instructions {of_file}");
}

fn fail() -> ! {
    eprintln!("what is measured does not work");
    process::exit(1)
}

/// Reports a panic and exits.
pub fn panicked(info: &PanicInfo<'_>) -> ! {
    eprintln!("{info}");
    process::exit(101)
}
