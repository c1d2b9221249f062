//! The AES accelerator of the ESP32-C6 through esp-hal, block by block. Compiled, never run.
//!
//! esp-hal writes and wipes the key for every block; [`registers`](crate::registers) does both once
//! per call.

use esp_hal::aes::Aes;
use keyhole_core::aead::BLOCK_LEN;
use keyhole_core::limits::KEY_LEN;
use zeroize::{Zeroize, Zeroizing};

use crate::blocks::Blocks;

/// The accelerator.
pub struct Accelerator<'d> {
    aes: Aes<'d>,
    key: Zeroizing<[u8; KEY_LEN]>,
}

impl<'d> Accelerator<'d> {
    /// Wraps the driver.
    pub fn new(aes: Aes<'d>) -> Self {
        Accelerator { aes, key: Zeroizing::new([0; KEY_LEN]) }
    }
}

impl Blocks for Accelerator<'_> {
    fn load(&mut self, key: &[u8; KEY_LEN]) {
        *self.key = *key;
    }

    fn encrypt(&mut self, block: &mut [u8; BLOCK_LEN]) {
        self.aes.encrypt(block, *self.key);
    }

    fn forget(&mut self) {
        self.key.zeroize();
        // If the driver leaves a key in the registers, the zero key replaces it.
        self.aes.encrypt(&mut [0; BLOCK_LEN], *self.key);
    }
}
