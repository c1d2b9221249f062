//! An engine on whatever encrypts single blocks.

use core::cell::RefCell;

use keyhole_core::aead::{Aead, BLOCK_LEN, Engine, xor_key_stream_by_block};
use keyhole_core::limits::KEY_LEN;
use zeroize::Zeroizing;

/// A peripheral that encrypts blocks with AES-256 (ECB mode).
pub trait Blocks {
    /// Takes a key into use.
    fn load(&mut self, key: &[u8; KEY_LEN]);

    /// Encrypts a block in place, under the key that was loaded last.
    fn encrypt(&mut self, block: &mut [u8; BLOCK_LEN]);

    /// Wipes the key from the peripheral.
    fn forget(&mut self);
}

/// Shares a peripheral that encrypts blocks; a reference to this is the engine.
pub struct BlockPeripheral<P>(RefCell<P>);

impl<P: Blocks> BlockPeripheral<P> {
    /// Takes the peripheral.
    pub fn new(peripheral: P) -> Self {
        BlockPeripheral(RefCell::new(peripheral))
    }
}

impl<'p, P: Blocks> Engine for &'p BlockPeripheral<P> {
    type Aead = BlockAead<'p, P>;

    fn aead(&self, key: &[u8; KEY_LEN]) -> BlockAead<'p, P> {
        BlockAead { peripheral: self, key: Zeroizing::new(*key) }
    }
}

/// AES-256-GCM under one key, on a peripheral that encrypts blocks.
pub struct BlockAead<'p, P> {
    peripheral: &'p BlockPeripheral<P>,
    key: Zeroizing<[u8; KEY_LEN]>,
}

impl<P: Blocks> Aead for BlockAead<'_, P> {
    fn xor_key_stream(&mut self, counter: &[u8; BLOCK_LEN], data: &mut [u8]) {
        let mut peripheral = self.peripheral.0.borrow_mut();
        peripheral.load(&self.key);
        xor_key_stream_by_block(counter, data, |block| peripheral.encrypt(block));
        peripheral.forget();
    }
}
