//! Where what is measured has its data; the criterion benches take it from here, too.

use std::ops::{Deref, DerefMut, Range};

const PAGE: usize = 4096;

/// Bytes that begin at a page, as the node's blocks do: off it all figures would be lower, each by another amount.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    at: Range<usize>,
}

impl Buffer {
    /// Of so many bytes, all of them 1.
    pub(crate) fn new(size: usize) -> Self {
        let bytes = vec![1; size + PAGE];
        let start = bytes.as_ptr().align_offset(PAGE);
        Buffer { bytes, at: start..start + size }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.at.clone()]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.at.clone()]
    }
}
