//! Bytes that nobody is to find in memory later.

use std::ops::{Deref, DerefMut};

use zeroize::Zeroize;

/// Bytes that are wiped when they are dropped, all at once: `Zeroizing<Vec<u8>>` goes one by one, which takes longer than it
/// takes to decrypt as many. They do not grow.
pub(crate) struct Secret(Box<[u8]>);

impl Secret {
    /// So many zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        Secret(vec![0; len].into_boxed_slice())
    }

    /// A copy.
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
