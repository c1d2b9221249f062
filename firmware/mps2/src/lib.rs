//! Common parts of the programs for the Cortex-M4: the UART of the board and its instruction
//! counter.
#![no_std]

use core::convert::Infallible;

use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use embedded_io::{ErrorType, Read, Write};
use keyhole_checks::board::Count;

/// UART 0 of the board: a CMSDK APB UART (Arm DDI 0479C, chapter 4.3).
pub struct Uart(());

mod register {
    pub(super) const DATA: *mut u32 = 0x4000_4000 as *mut u32;
    pub(super) const STATE: *mut u32 = 0x4000_4004 as *mut u32;
    pub(super) const CTRL: *mut u32 = 0x4000_4008 as *mut u32;
    pub(super) const BAUDDIV: *mut u32 = 0x4000_4010 as *mut u32;
}

/// `STATE`: the transmit buffer is full.
const TX_FULL: u32 = 1;
/// `STATE`: the receive buffer is full.
const RX_FULL: u32 = 2;
/// `CTRL`: transmit and receive.
const ENABLE: u32 = 3;
/// Clock cycles of a bit, at least 16.
const DIVIDER: u32 = 16;

impl Uart {
    /// Initialises the UART.
    ///
    /// # Safety
    /// Nothing else may use UART 0, and the board must be mps2-an386 or have the UART at the same
    /// address.
    pub unsafe fn new() -> Self {
        // SAFETY: the caller guarantees exclusive use of the UART's registers.
        unsafe {
            register::BAUDDIV.write_volatile(DIVIDER);
            register::CTRL.write_volatile(ENABLE);
        }
        Uart(())
    }

    fn state(&self) -> u32 {
        // SAFETY: a `Uart` proves the guarantee of `new`; reading the state has no side effect.
        unsafe { register::STATE.read_volatile() }
    }
}

impl ErrorType for Uart {
    type Error = Infallible;
}

impl Write for Uart {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        for byte in bytes {
            while self.state() & TX_FULL != 0 {}
            // SAFETY: as for the state, and `&mut self` is the only user.
            unsafe { register::DATA.write_volatile(u32::from(*byte)) };
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        while self.state() & TX_FULL != 0 {}
        Ok(())
    }
}

/// Blocks until one byte is received: a UART cannot detect that the peer is gone.
impl Read for Uart {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, Infallible> {
        let Some(first) = out.first_mut() else { return Ok(0) };
        while self.state() & RX_FULL == 0 {}
        // SAFETY: as for the state, and `&mut self` is the only user.
        *first = unsafe { register::DATA.read_volatile() } as u8;
        Ok(1)
    }
}

/// An instruction counter for QEMU with `-icount shift=0`, where an instruction takes a nanosecond
/// and SysTick counts the board's 25 MHz.
pub struct Instructions(SYST);

/// Instructions per tick.
const PER_TICK: u32 = 40;

/// SysTick has 24 bits.
const TICKS_MAX: u32 = 0xff_ffff;

impl Instructions {
    /// Starts the counter.
    pub fn new(mut syst: SYST) -> Self {
        syst.set_clock_source(SystClkSource::Core);
        syst.set_reload(TICKS_MAX);
        syst.clear_current();
        syst.enable_counter();
        Instructions(syst)
    }
}

/// Rounds up to 40 instructions, and counts up to 600 million.
impl Count for Instructions {
    fn of<R>(&mut self, function: impl FnOnce() -> R) -> (R, u32) {
        self.0.clear_current();
        let before = SYST::get_current();
        let result = function();
        let ticks = before.wrapping_sub(SYST::get_current()) & TICKS_MAX;
        (result, ticks * PER_TICK)
    }
}
