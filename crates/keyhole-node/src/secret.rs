//! Zeroizing byte buffers.

use std::ops::{Deref, DerefMut};

use zeroize::Zeroize;

/// Bytes of fixed length, wiped on drop in one pass: `Zeroizing<Vec<u8>>` wipes byte by byte, which
/// takes longer than decrypting the same length.
pub(crate) struct Secret(Box<[u8]>);

impl Secret {
    /// Returns `len` zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        Secret(vec![0; len].into_boxed_slice())
    }

    /// Returns a copy of `bytes`.
    pub(crate) fn copy(bytes: &[u8]) -> Self {
        Secret(bytes.into())
    }
}

impl Deref for Secret {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Secret {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
