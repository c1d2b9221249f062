//! Measures instructions (with `-icount shift=0`) and stack for a reading of 4 KiB. Prints one line
//! each: a name and the number.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use keyhole_checks::board;
use keyhole_mps2::Instructions;
use semihosting::process;

#[entry]
fn main() -> ! {
    let Some(peripherals) = cortex_m::Peripherals::take() else { process::exit(1) };
    // SAFETY: the board has 128 KiB of stack, and no interrupts are enabled.
    unsafe { board::measure(&mut Instructions::new(peripherals.SYST)) }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    board::panicked(info)
}
