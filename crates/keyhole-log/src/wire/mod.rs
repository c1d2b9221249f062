//! On-disk layouts, one module each: a private `field` module of offsets, a plain
//! struct, `emit` and a verifying `parse`. No data leaves this module before its
//! checksum and identity are verified.

pub(crate) mod block;
pub(crate) mod checkpoint;
#[cfg(test)]
mod examples;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod lock;
mod part;
pub(crate) mod payload;
pub(crate) mod record;
pub(crate) mod segment;
pub(crate) mod superblock;

use std::ops::Range;

/// BlockIdentity of a store, covered by the checksum of everything it writes.
pub(crate) type StoreId = [u8; 16];

/// Rounds up to a multiple of `unit`, a power of two.
pub(crate) const fn align_up(n: u64, unit: u64) -> u64 {
    (n + unit - 1) & !(unit - 1)
}

/// Rounds down to a multiple of `unit`, a power of two.
pub(crate) const fn align_down(n: u64, unit: u64) -> u64 {
    n & !(unit - 1)
}

/// Rounds a length within a buffer up to whole pages.
pub(crate) const fn pages(len: usize) -> usize {
    len.next_multiple_of(crate::limits::PAGE)
}

/// Computes the CRC-32 (IEEE) of the concatenated pieces.
pub(crate) fn crc(pieces: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for piece in pieces {
        hasher.update(piece);
    }
    hasher.finalize()
}

/// Returns the bytes of a fixed field. The caller has checked the length of
/// `bytes` against the layout.
fn array<const N: usize>(bytes: &[u8], at: Range<usize>) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at]);
    out
}

fn u16_at(bytes: &[u8], at: Range<usize>) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

fn u32_at(bytes: &[u8], at: Range<usize>) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

fn u64_at(bytes: &[u8], at: Range<usize>) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

fn put(bytes: &mut [u8], at: Range<usize>, value: &[u8]) {
    bytes[at].copy_from_slice(value);
}

/// Returns whether all bytes are zero. Compares whole pages for speed.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(crate::limits::PAGE).all(|chunk| *chunk == [0; crate::limits::PAGE][..chunk.len()])
}

/// Parses a payload front to back. Reads return `None` if it is too short.
pub(crate) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn str(&mut self, len: usize) -> Option<&'a str> {
        std::str::from_utf8(self.bytes(len)?).ok()
    }

    /// Checks that no bytes are left.
    fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}
