//! The seam to AES-256-GCM (NIST SP 800-38D), one call for each chunk: in place, with the tag apart.
//!
//! An [`Engine`] makes an [`Aead`] for each derived key. A peripheral is exclusive, hence `&mut self`. All engines give
//! the same bytes.

use crate::NotAuthentic;
use crate::limits::{KEY_LEN, NONCE_LEN, TAG_LEN};

#[cfg(feature = "portable")]
mod portable;
#[cfg(feature = "portable")]
pub use portable::{Portable, PortableAead};

/// AES-256-GCM under one key, without additional data.
pub trait Aead {
    /// Encrypts `data` in place; the tag.
    fn seal(&mut self, nonce: &[u8; NONCE_LEN], data: &mut [u8]) -> [u8; TAG_LEN];

    /// Compares the tag in constant time, then decrypts `data` in place.
    ///
    /// # Errors
    /// [`NotAuthentic`] where the tag is another one; `data` has been wiped then, so that nobody takes it for plaintext.
    fn open(&mut self, nonce: &[u8; NONCE_LEN], data: &mut [u8], tag: &[u8; TAG_LEN]) -> Result<(), NotAuthentic>;
}

/// A way to do AES-256-GCM.
pub trait Engine {
    /// What it makes for a key.
    type Aead: Aead;

    /// Takes a key into use. What is made wipes its key schedule when dropped.
    fn aead(&self, key: &[u8; KEY_LEN]) -> Self::Aead;
}
