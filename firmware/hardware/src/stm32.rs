//! STM32's CRYP, AES and SAES through embassy-stm32, in blocking mode. Compiled, never run.
//!
//! # Panics
//! Where AES or SAES report an error. It is none that input can cause, and to go on would send plaintext for ciphertext.

#[cfg(any(feature = "stm32-cryp", feature = "stm32-aes"))]
use core::cell::RefCell;

use keyhole_core::aead::BLOCK_LEN;
#[cfg(any(feature = "stm32-cryp", feature = "stm32-aes"))]
use keyhole_core::aead::{Aead, Engine};
use keyhole_core::limits::KEY_LEN;
use zeroize::Zeroizing;

/// Bytes that go to the peripheral at once: the drivers want output apart from input.
#[cfg(any(feature = "stm32-cryp", feature = "stm32-aes"))]
const STEP: usize = 16 * BLOCK_LEN;

/// Takes data through a peripheral in whole blocks, the last one padded with zeros: counter mode gives a block's bytes
/// whatever follows them.
#[cfg(any(feature = "stm32-cryp", feature = "stm32-aes"))]
fn in_steps(data: &mut [u8], mut peripheral: impl FnMut(&[u8], &mut [u8], bool)) {
    let (mut input, mut output) = (Zeroizing::new([0; STEP]), Zeroizing::new([0; STEP]));
    let steps = data.len().div_ceil(STEP);
    for (i, piece) in data.chunks_mut(STEP).enumerate() {
        let len = piece.len().next_multiple_of(BLOCK_LEN);
        input[..piece.len()].copy_from_slice(piece);
        input[piece.len()..len].fill(0);
        peripheral(&input[..len], &mut output[..len], i + 1 == steps);
        piece.copy_from_slice(&output[..piece.len()]);
    }
}

/// CRYP: counter mode.
#[cfg(feature = "stm32-cryp")]
pub mod cryp {
    use embassy_stm32::cryp::{AesCtr, Cryp, Direction, Instance};
    use embassy_stm32::mode::Blocking;

    use super::*;

    /// Shares the peripheral; a reference to this is the engine.
    pub struct Peripheral<'d, T: Instance>(RefCell<Cryp<'d, T, Blocking>>);

    impl<'d, T: Instance> Peripheral<'d, T> {
        /// Takes the driver.
        pub fn new(driver: Cryp<'d, T, Blocking>) -> Self {
            Peripheral(RefCell::new(driver))
        }
    }

    impl<'p, 'd, T: Instance> Engine for &'p Peripheral<'d, T> {
        type Aead = CrypAead<'p, 'd, T>;

        fn aead(&self, key: &[u8; KEY_LEN]) -> CrypAead<'p, 'd, T> {
            CrypAead { peripheral: self, key: Zeroizing::new(*key) }
        }
    }

    /// AES-256-GCM under one key.
    pub struct CrypAead<'p, 'd, T: Instance> {
        peripheral: &'p Peripheral<'d, T>,
        key: Zeroizing<[u8; KEY_LEN]>,
    }

    impl<T: Instance> Aead for CrypAead<'_, '_, T> {
        fn xor_key_stream(&mut self, counter: &[u8; BLOCK_LEN], data: &mut [u8]) {
            let driver = self.peripheral.0.borrow_mut();
            let cipher = AesCtr::new(&*self.key, counter);
            let mut context = driver.start_blocking(&cipher, Direction::Encrypt);
            in_steps(data, |input, output, last| driver.payload_blocking(&mut context, input, output, last));
            // Another key takes the place of this one.
            let nothing = AesCtr::new(&[0; KEY_LEN], &[0; BLOCK_LEN]);
            driver.start_blocking(&nothing, Direction::Encrypt);
        }
    }
}

/// AES: counter mode.
#[cfg(feature = "stm32-aes")]
pub mod aes {
    use embassy_stm32::aes::{Aes, AesCtr, Direction, Instance};
    use embassy_stm32::mode::Blocking;

    use super::*;

    /// Shares the peripheral; a reference to this is the engine.
    pub struct Peripheral<'d, T: Instance>(RefCell<Aes<'d, T, Blocking>>);

    impl<'d, T: Instance> Peripheral<'d, T> {
        /// Takes the driver.
        pub fn new(driver: Aes<'d, T, Blocking>) -> Self {
            Peripheral(RefCell::new(driver))
        }
    }

    impl<'p, 'd, T: Instance> Engine for &'p Peripheral<'d, T> {
        type Aead = AesAead<'p, 'd, T>;

        fn aead(&self, key: &[u8; KEY_LEN]) -> AesAead<'p, 'd, T> {
            AesAead { peripheral: self, key: Zeroizing::new(*key) }
        }
    }

    /// AES-256-GCM under one key.
    pub struct AesAead<'p, 'd, T: Instance> {
        peripheral: &'p Peripheral<'d, T>,
        key: Zeroizing<[u8; KEY_LEN]>,
    }

    impl<T: Instance> Aead for AesAead<'_, '_, T> {
        fn xor_key_stream(&mut self, counter: &[u8; BLOCK_LEN], data: &mut [u8]) {
            let mut driver = self.peripheral.0.borrow_mut();
            let cipher = AesCtr::new(&*self.key, counter);
            let mut context = driver.start(&cipher, Direction::Encrypt);
            in_steps(data, |input, output, last| {
                driver.payload_blocking(&mut context, input, output, last).expect("the AES peripheral failed");
            });
            driver.finish_blocking(context).expect("the AES peripheral failed");
            // Another key takes the place of this one.
            let nothing = AesCtr::new(&[0; KEY_LEN], &[0; BLOCK_LEN]);
            let context = driver.start(&nothing, Direction::Encrypt);
            driver.finish_blocking(context).expect("the AES peripheral failed");
        }
    }
}

/// SAES: block by block. embassy-stm32 0.6 writes the words of SAES's counter in another order than those of AES, which
/// nobody here can try out; blocks have no counter.
#[cfg(feature = "stm32-saes")]
pub mod saes {
    use embassy_stm32::aes::{AesEcb, Direction};
    use embassy_stm32::mode::Blocking;
    use embassy_stm32::saes::{Instance, Saes};
    use zeroize::Zeroize;

    use super::*;
    use crate::blocks::Blocks;

    /// The peripheral, for a [`BlockPeripheral`](crate::blocks::BlockPeripheral).
    pub struct Accelerator<'d, T: Instance> {
        driver: Saes<'d, T, Blocking>,
        key: Zeroizing<[u8; KEY_LEN]>,
    }

    impl<'d, T: Instance> Accelerator<'d, T> {
        /// Takes the driver.
        pub fn new(driver: Saes<'d, T, Blocking>) -> Self {
            Accelerator { driver, key: Zeroizing::new([0; KEY_LEN]) }
        }
    }

    impl<T: Instance> Blocks for Accelerator<'_, T> {
        fn load(&mut self, key: &[u8; KEY_LEN]) {
            *self.key = *key;
        }

        fn encrypt(&mut self, block: &mut [u8; BLOCK_LEN]) {
            let cipher = AesEcb::new(&*self.key);
            let mut context = self.driver.start(&cipher, Direction::Encrypt);
            let input = Zeroizing::new(*block);
            self.driver.payload_blocking(&mut context, &*input, block, true).expect("the SAES peripheral failed");
            self.driver.finish_blocking(context).expect("the SAES peripheral failed");
        }

        fn forget(&mut self) {
            self.key.zeroize();
            self.encrypt(&mut [0; BLOCK_LEN]);
        }
    }
}
