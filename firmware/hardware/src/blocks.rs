//! Counter mode on peripherals that encrypt single blocks.

use keyhole_core::aead::{BLOCK_LEN, xor_key_stream_by_block};
use keyhole_core::limits::KEY_LEN;

use crate::shared::CounterMode;

/// A peripheral that encrypts blocks with AES-256 (ECB mode).
pub trait Blocks {
    /// Loads a key.
    fn load(&mut self, key: &[u8; KEY_LEN]);

    /// Encrypts a block in place with the loaded key.
    fn encrypt(&mut self, block: &mut [u8; BLOCK_LEN]);

    /// Wipes the key from the peripheral.
    fn forget(&mut self);
}

/// Counter mode on a block cipher peripheral.
pub struct ByBlock<P>(pub P);

impl<P: Blocks> CounterMode for ByBlock<P> {
    fn xor_key_stream(&mut self, key: &[u8; KEY_LEN], counter: &[u8; BLOCK_LEN], data: &mut [u8]) {
        self.0.load(key);
        xor_key_stream_by_block(counter, data, |block| self.0.encrypt(block));
        self.0.forget();
    }
}
