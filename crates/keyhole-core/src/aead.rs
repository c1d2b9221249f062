//! Interface to AES-256-GCM (NIST SP 800-38D): one call per chunk, in place, with a detached tag.
//!
//! An [`Engine`] creates an [`Aead`] for each derived key. Methods take `&mut self` because a
//! hardware peripheral is exclusive. All engines produce the same bytes.
//!
//! # Engines for devices
//! [`Aead`] has one required method: AES-256 in counter mode, which a CTR peripheral does by
//! itself. The provided methods add GHASH in software. Peripherals that only encrypt single blocks
//! implement it with [`xor_key_stream_by_block`]; peripherals with full GCM also override `seal`
//! and `open`.
//!
//! ```
//! use keyhole_core::aead::{Aead, xor_key_stream_by_block};
//! # struct Peripheral;
//! # impl Peripheral { fn encrypt(&mut self, _block: &mut [u8; 16]) {} }
//!
//! struct Device(Peripheral);
//!
//! impl Aead for Device {
//!     fn xor_key_stream(&mut self, counter: &[u8; 16], data: &mut [u8]) {
//!         xor_key_stream_by_block(counter, data, |block| self.0.encrypt(block));
//!     }
//! }
//! ```

use ghash::GHash;
use ghash::universal_hash::UniversalHash;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::NotAuthentic;
use crate::limits::{KEY_LEN, NONCE_LEN, TAG_LEN};

#[cfg(feature = "portable")]
mod portable;
#[cfg(feature = "portable")]
pub use portable::{Portable, PortableAead};

/// Length of an AES block, in bytes.
pub const BLOCK_LEN: usize = 16;

/// An implementation of AES-256-GCM.
pub trait Engine {
    /// The cipher for one key.
    type Aead: Aead;

    /// Creates the cipher for a key. The cipher wipes its key schedule when dropped.
    fn aead(&self, key: &[u8; KEY_LEN]) -> Self::Aead;
}

/// AES-256-GCM under one key, without additional data.
pub trait Aead {
    /// XORs `data` with the key stream that starts at `counter`: AES in counter mode (SP 800-38A
    /// §6.5).
    ///
    /// The last four bytes of `counter` are a big-endian block counter, which does not wrap within
    /// a chunk.
    fn xor_key_stream(&mut self, counter: &[u8; BLOCK_LEN], data: &mut [u8]);

    /// Encrypts `data` in place and returns its tag.
    fn seal(&mut self, nonce: &[u8; NONCE_LEN], data: &mut [u8]) -> [u8; TAG_LEN] {
        let mut pieces = Pieces::new(self, nonce);
        pieces.encrypt(self, data);
        pieces.tag()
    }

    /// Compares the tag in constant time, then decrypts `data` in place.
    ///
    /// # Errors
    /// [`NotAuthentic`] if the tag differs. `data` is then wiped, so that it cannot be used as
    /// plaintext.
    fn open(&mut self, nonce: &[u8; NONCE_LEN], data: &mut [u8], tag: &[u8; TAG_LEN]) -> Result<(), NotAuthentic> {
        let mut pieces = Pieces::new(self, nonce);
        pieces.ghash.update_padded(data);
        pieces.len = data.len() as u64;
        if !bool::from(pieces.computed_tag().ct_eq(tag)) {
            data.zeroize();
            return Err(NotAuthentic);
        }
        self.xor_key_stream(&pieces.counter, data);
        Ok(())
    }
}

/// Implements [`Aead::xor_key_stream`] with a function that encrypts one block in place (AES-ECB).
pub fn xor_key_stream_by_block(
    counter: &[u8; BLOCK_LEN],
    data: &mut [u8],
    mut encrypt: impl FnMut(&mut [u8; BLOCK_LEN]),
) {
    let mut counter = *counter;
    let mut key_stream = [0; BLOCK_LEN];
    for block in data.chunks_mut(BLOCK_LEN) {
        key_stream = counter;
        encrypt(&mut key_stream);
        xor(block, &key_stream);
        advance(&mut counter, 1);
    }
    key_stream.zeroize();
}

/// State of a chunk that is encrypted piece by piece: the hash so far, the tag mask, and the block
/// that a boundary between pieces cuts.
#[derive(ZeroizeOnDrop)]
pub(crate) struct Pieces {
    /// Counter of the next block.
    counter: [u8; BLOCK_LEN],
    mask: [u8; BLOCK_LEN],
    #[zeroize(skip)] // Wipes itself on drop.
    ghash: GHash,
    /// Key stream and ciphertext so far of the incomplete block at `len`.
    key_stream: [u8; BLOCK_LEN],
    partial: [u8; BLOCK_LEN],
    len: u64,
}

impl Pieces {
    /// Starts an empty chunk (SP 800-38D §7.1, steps 1 to 3).
    pub(crate) fn new<A: Aead + ?Sized>(aead: &mut A, nonce: &[u8; NONCE_LEN]) -> Self {
        let mut hash_key = [0; BLOCK_LEN];
        aead.xor_key_stream(&[0; BLOCK_LEN], &mut hash_key);
        let mut key = ghash::Key::from(hash_key);
        let ghash = GHash::new(&key);
        key.zeroize();
        hash_key.zeroize();
        let mut counter = [0; BLOCK_LEN];
        counter[..NONCE_LEN].copy_from_slice(nonce);
        counter[BLOCK_LEN - 1] = 1;
        let mut mask = [0; BLOCK_LEN];
        aead.xor_key_stream(&counter, &mut mask);
        advance(&mut counter, 1);
        Pieces { counter, mask, ghash, key_stream: [0; BLOCK_LEN], partial: [0; BLOCK_LEN], len: 0 }
    }

    /// Encrypts the next piece in place.
    pub(crate) fn encrypt<A: Aead + ?Sized>(&mut self, aead: &mut A, piece: &mut [u8]) {
        let offset = (self.len % BLOCK_LEN as u64) as usize;
        self.len += piece.len() as u64;
        let (begun, rest) = match offset {
            0 => (&mut [][..], piece),
            _ => piece.split_at_mut((BLOCK_LEN - offset).min(piece.len())),
        };
        if !begun.is_empty() {
            self.encrypt_within_block(offset, begun);
        }
        let (blocks, tail) = rest.split_at_mut(rest.len() / BLOCK_LEN * BLOCK_LEN);
        if !blocks.is_empty() {
            aead.xor_key_stream(&self.counter, blocks);
            advance(&mut self.counter, blocks.len() / BLOCK_LEN);
            self.ghash.update_padded(blocks);
        }
        if !tail.is_empty() {
            self.key_stream = [0; BLOCK_LEN];
            aead.xor_key_stream(&self.counter, &mut self.key_stream);
            advance(&mut self.counter, 1);
            self.encrypt_within_block(0, tail);
        }
    }

    /// Encrypts bytes that lie within one block, starting at `offset` in it.
    fn encrypt_within_block(&mut self, offset: usize, bytes: &mut [u8]) {
        let end = offset + bytes.len();
        xor(bytes, &self.key_stream[offset..end]);
        self.partial[offset..end].copy_from_slice(bytes);
        if end == BLOCK_LEN {
            self.ghash.update_padded(&self.partial);
        }
    }

    /// Returns the tag of everything encrypted.
    pub(crate) fn tag(mut self) -> [u8; TAG_LEN] {
        let offset = (self.len % BLOCK_LEN as u64) as usize;
        self.ghash.update_padded(&self.partial[..offset]);
        self.computed_tag()
    }

    /// Computes the tag (SP 800-38D §7.1, steps 4 to 6).
    fn computed_tag(&self) -> [u8; TAG_LEN] {
        let mut lengths = [0; BLOCK_LEN];
        lengths[8..].copy_from_slice(&(self.len * 8).to_be_bytes());
        let mut ghash = self.ghash.clone();
        ghash.update_padded(&lengths);
        let mut tag = self.mask;
        xor(&mut tag, &ghash.finalize());
        tag
    }
}

/// Advances the counter by `blocks`.
fn advance(counter: &mut [u8; BLOCK_LEN], blocks: usize) {
    let [.., a, b, c, d] = counter;
    let next = u32::from_be_bytes([*a, *b, *c, *d]).wrapping_add(blocks as u32);
    [*a, *b, *c, *d] = next.to_be_bytes();
}

/// XORs `bytes` with the first bytes of `mask`.
fn xor(bytes: &mut [u8], mask: &[u8]) {
    for (byte, mask) in bytes.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}
