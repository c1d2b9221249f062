//! Seals a reading, signs its upload, and uploads it. For size measurement only.
#![no_std]
#![no_main]

use core::hint::black_box;

use cortex_m_rt::entry;
use keyhole_app::Package;
use keyhole_app::upload::{Authorization, Upload, answer};
use keyhole_checks::SEALED_MAX;
use keyhole_core::CustomerKey;
use keyhole_core::aead::Portable;
use keyhole_core::sigv4::Signer;
use keyhole_mps2::Uart;

#[entry]
fn main() -> ! {
    let mut buffer = [0; SEALED_MAX];
    let random = |bytes: &mut [u8]| bytes.fill(black_box(1));
    let mut package = match Package::new(black_box(&mut buffer), black_box("edge"), black_box("reading")) {
        Ok(package) => package,
        Err(_) => loop {},
    };
    package.room().fill(black_box(1));
    let customer_key = CustomerKey::new(black_box([1; 32]));
    let sealed = package.seal(&Portable, &customer_key, random, black_box(4096));
    // SAFETY: the only user of the UART, on its board.
    let mut uart = unsafe { Uart::new() };
    let signer = Signer { access_key: black_box("k"), secret_key: black_box("s"), region: black_box("r") };
    let authorization = Authorization::Signer { signer, date: black_box("20260102T030405Z") };
    let upload =
        Upload { host: black_box("node"), bucket: black_box("edge"), key: black_box("reading"), authorization };
    black_box(sealed.is_ok_and(|file| upload.send(&mut uart, file).is_ok()));
    let mut buffer = [0; 512];
    black_box(answer(&mut uart, &mut buffer).is_ok_and(|answer| answer.status == 200));
    loop {
        cortex_m::asm::wfi();
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        cortex_m::asm::wfi();
    }
}
