//! Zeroizing byte buffers, and the stack.

use std::hint::black_box;
use std::ops::{Deref, DerefMut};

use keyhole_s3::wipe::wipe;

/// Bytes of stack that a request uses at most below the frame of the connection. Frames of a build
/// without optimisation have no slots in common.
const STACK_WIPED: usize = if cfg!(debug_assertions) { 512 * 1024 } else { 128 * 1024 };

/// Wipes the stack below the caller. Moves and calls leave copies of keys there, in places that no
/// destructor knows.
#[inline(never)]
pub fn wipe_stack() {
    black_box(&mut [0_u8; STACK_WIPED]);
}

/// Bytes of fixed length, wiped on drop in one pass.
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
        wipe(&mut self.0);
    }
}
