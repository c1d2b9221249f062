//! STM32's CRYP, AES and SAES through embassy-stm32, in blocking mode. Compiled, never run. A
//! driver of CRYP or AES can be wrapped directly in a [`Peripheral`](crate::shared::Peripheral).
//!
//! # Panics
//! If AES or SAES report an error. Input cannot cause that, and continuing would send plaintext as
//! ciphertext.

use keyhole_core::aead::BLOCK_LEN;
use keyhole_core::limits::KEY_LEN;
use zeroize::Zeroizing;

#[cfg(any(feature = "stm32-cryp", feature = "stm32-aes"))]
use crate::shared::CounterMode;

/// Bytes per operation of the peripheral: the drivers need separate input and output buffers.
#[cfg(any(feature = "stm32-cryp", feature = "stm32-aes"))]
const STEP: usize = 16 * BLOCK_LEN;

/// Processes data in whole blocks, the last one padded with zeros: in counter mode the output does
/// not depend on later bytes.
#[cfg(any(feature = "stm32-cryp", feature = "stm32-aes"))]
fn in_steps(data: &mut [u8], mut peripheral: impl FnMut(&[u8], &mut [u8], bool)) {
    let mut input = Zeroizing::new([0; STEP]);
    let mut output = Zeroizing::new([0; STEP]);
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
mod cryp {
    use embassy_stm32::cryp::{AesCtr, Cryp, Direction, Instance};
    use embassy_stm32::mode::Blocking;

    use super::*;

    impl<T: Instance> CounterMode for Cryp<'_, T, Blocking> {
        fn xor_key_stream(&mut self, key: &[u8; KEY_LEN], counter: &[u8; BLOCK_LEN], data: &mut [u8]) {
            let cipher = AesCtr::new(key, counter);
            let mut context = self.start_blocking(&cipher, Direction::Encrypt);
            in_steps(data, |input, output, last| self.payload_blocking(&mut context, input, output, last));
            // Replace the key in the peripheral.
            let nothing = AesCtr::new(&[0; KEY_LEN], &[0; BLOCK_LEN]);
            self.start_blocking(&nothing, Direction::Encrypt);
        }
    }
}

/// AES: counter mode.
#[cfg(feature = "stm32-aes")]
mod aes {
    use embassy_stm32::aes::{Aes, AesCtr, Direction, Instance};
    use embassy_stm32::mode::Blocking;

    use super::*;

    impl<T: Instance> CounterMode for Aes<'_, T, Blocking> {
        fn xor_key_stream(&mut self, key: &[u8; KEY_LEN], counter: &[u8; BLOCK_LEN], data: &mut [u8]) {
            let cipher = AesCtr::new(key, counter);
            let mut context = self.start(&cipher, Direction::Encrypt);
            in_steps(data, |input, output, last| {
                self.payload_blocking(&mut context, input, output, last).expect("the AES peripheral failed");
            });
            self.finish_blocking(context).expect("the AES peripheral failed");
            // Replace the key in the peripheral.
            let nothing = AesCtr::new(&[0; KEY_LEN], &[0; BLOCK_LEN]);
            let context = self.start(&nothing, Direction::Encrypt);
            self.finish_blocking(context).expect("the AES peripheral failed");
        }
    }
}

/// SAES: block by block. embassy-stm32 0.6 writes the words of SAES's counter in another order than
/// those of AES, which could not be tested; blocks need no counter.
#[cfg(feature = "stm32-saes")]
pub mod saes {
    use embassy_stm32::aes::{AesEcb, Direction};
    use embassy_stm32::mode::Blocking;
    use embassy_stm32::saes::{Instance, Saes};
    use zeroize::Zeroize;

    use super::*;
    use crate::blocks::Blocks;

    /// A SAES peripheral, for [`ByBlock`](crate::blocks::ByBlock).
    pub struct Accelerator<'d, T: Instance> {
        driver: Saes<'d, T, Blocking>,
        key: Zeroizing<[u8; KEY_LEN]>,
    }

    impl<'d, T: Instance> Accelerator<'d, T> {
        /// Wraps the driver.
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
