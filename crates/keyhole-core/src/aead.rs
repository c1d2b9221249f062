//! The seam to AES-256-GCM (NIST SP 800-38D), one call for each chunk: in place, with the tag apart.
//!
//! An [`Engine`] makes an [`Aead`] for each derived key. A peripheral is exclusive, hence `&mut self`. All engines give
//! the same bytes.
//!
//! # An engine for a device
//! [`Aead`] has one method that must be written: AES-256 in counter mode, which a CTR peripheral does by itself. GHASH and
//! all the rest come with the trait, in software. A peripheral that only encrypts blocks takes
//! [`xor_key_stream_by_block`] to it. One that does all of GCM replaces `seal` and `open` besides.
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

/// Bytes of a block of AES.
pub const BLOCK_LEN: usize = 16;

/// A way to do AES-256-GCM.
pub trait Engine {
    /// What it makes for a key.
    type Aead: Aead;

    /// Takes a key into use. What is made wipes its key schedule when dropped.
    fn aead(&self, key: &[u8; KEY_LEN]) -> Self::Aead;
}

/// AES-256-GCM under one key, without additional data.
pub trait Aead {
    /// XORs `data` with the key stream that begins at `counter`: AES in counter mode (SP 800-38A §6.5). The last four bytes
    /// count, big-endian; they do not come to their end within a chunk.
    fn xor_key_stream(&mut self, counter: &[u8; BLOCK_LEN], data: &mut [u8]);

    /// Encrypts `data` in place; the tag.
    fn seal(&mut self, nonce: &[u8; NONCE_LEN], data: &mut [u8]) -> [u8; TAG_LEN] {
        let mut pieces = Pieces::new(self, nonce);
        pieces.encrypt(self, data);
        pieces.tag()
    }

    /// Compares the tag in constant time, then decrypts `data` in place.
    ///
    /// # Errors
    /// [`NotAuthentic`] where the tag is another one; `data` has been wiped then, so that nobody takes it for plaintext.
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

/// [`Aead::xor_key_stream`] on what only encrypts blocks (AES in ECB mode), in place.
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

/// Where the state of a chunk that is encrypted piece by piece is kept: 16-byte blocks that are cut across pieces, the
/// hash so far, and what masks the tag.
#[derive(ZeroizeOnDrop)]
pub(crate) struct Pieces {
    /// Of the next block.
    counter: [u8; BLOCK_LEN],
    mask: [u8; BLOCK_LEN],
    #[zeroize(skip)] // It wipes itself.
    ghash: GHash,
    /// Key stream, and ciphertext so far, of the block that `len` is in the middle of.
    key_stream: [u8; BLOCK_LEN],
    partial: [u8; BLOCK_LEN],
    len: u64,
}

impl Pieces {
    /// Of a chunk without a byte so far (SP 800-38D §7.1, steps 1 to 3).
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

    /// Encrypts bytes of one block, which begin at `offset` in it.
    fn encrypt_within_block(&mut self, offset: usize, bytes: &mut [u8]) {
        let end = offset + bytes.len();
        xor(bytes, &self.key_stream[offset..end]);
        self.partial[offset..end].copy_from_slice(bytes);
        if end == BLOCK_LEN {
            self.ghash.update_padded(&self.partial);
        }
    }

    /// The tag of all that was encrypted.
    pub(crate) fn tag(mut self) -> [u8; TAG_LEN] {
        let offset = (self.len % BLOCK_LEN as u64) as usize;
        self.ghash.update_padded(&self.partial[..offset]);
        self.computed_tag()
    }

    /// SP 800-38D §7.1, steps 4 to 6.
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

/// Counts on by so many blocks.
fn advance(counter: &mut [u8; BLOCK_LEN], blocks: usize) {
    let [.., a, b, c, d] = counter;
    let next = u32::from_be_bytes([*a, *b, *c, *d]).wrapping_add(blocks as u32);
    [*a, *b, *c, *d] = next.to_be_bytes();
}

/// XORs the first bytes of `mask` to `bytes`.
fn xor(bytes: &mut [u8], mask: &[u8]) {
    for (byte, mask) in bytes.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}
