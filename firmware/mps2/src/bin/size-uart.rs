//! Seals a reading and sends it over the UART. For size measurement only.
#![no_std]
#![no_main]

use core::hint::black_box;

use cortex_m_rt::entry;
use embedded_io::Write;
use keyhole_app::Package;
use keyhole_checks::SEALED_MAX;
use keyhole_core::CustomerKey;
use keyhole_core::aead::Portable;
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
    black_box(sealed.is_ok_and(|file| uart.write_all(file).is_ok()));
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
