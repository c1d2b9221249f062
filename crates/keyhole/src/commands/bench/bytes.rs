//! The data buffer of the benchmarks; the criterion benches include it as well.

use std::ops::{Deref, DerefMut, Range};

const PAGE: usize = 4096;

/// Page-aligned bytes, like the node's buffers. Unaligned, all figures would be lower by varying
/// amounts.
pub(crate) struct AlignedBytes {
    bytes: Vec<u8>,
    at: Range<usize>,
}

impl AlignedBytes {
    /// Returns a buffer of `size` bytes with value 1.
    pub(crate) fn new(size: usize) -> Self {
        let bytes = vec![1; size + PAGE];
        let start = bytes.as_ptr().align_offset(PAGE);
        AlignedBytes { bytes, at: start..start + size }
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.at.clone()]
    }
}

impl DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.at.clone()]
    }
}
