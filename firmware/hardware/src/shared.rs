//! Adapter from a peripheral to an engine.

use core::cell::RefCell;

use keyhole_core::aead::{Aead, BLOCK_LEN, Engine};
use keyhole_core::limits::KEY_LEN;
use zeroize::Zeroizing;

/// A peripheral or driver that does AES-256 in counter mode and leaves no key behind if that is
/// possible.
pub trait CounterMode {
    /// Encrypts or decrypts in place, like [`Aead::xor_key_stream`].
    fn xor_key_stream(&mut self, key: &[u8; KEY_LEN], counter: &[u8; BLOCK_LEN], data: &mut [u8]);
}

/// A shared peripheral; a reference to it is the engine.
pub struct Peripheral<P>(RefCell<P>);

impl<P: CounterMode> Peripheral<P> {
    /// Wraps the peripheral.
    pub fn new(peripheral: P) -> Self {
        Peripheral(RefCell::new(peripheral))
    }
}

impl<'p, P: CounterMode> Engine for &'p Peripheral<P> {
    type Aead = Keyed<'p, P>;

    fn aead(&self, key: &[u8; KEY_LEN]) -> Keyed<'p, P> {
        Keyed { peripheral: &self.0, key: Zeroizing::new(*key) }
    }
}

/// AES-256-GCM with one key, on a peripheral.
pub struct Keyed<'p, P> {
    peripheral: &'p RefCell<P>,
    key: Zeroizing<[u8; KEY_LEN]>,
}

impl<P: CounterMode> Aead for Keyed<'_, P> {
    fn xor_key_stream(&mut self, counter: &[u8; BLOCK_LEN], data: &mut [u8]) {
        self.peripheral.borrow_mut().xor_key_stream(&self.key, counter, data);
    }
}
