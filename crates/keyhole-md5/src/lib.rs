//! MD5 of several messages at once.
//!
//! Each step of MD5 needs the result of the step before, so a processor that computes one digest waits
//! for latencies most of the time. [`update_all`] advances several digests side by side: two or three
//! in alternating instructions, more in the lanes of AVX2 or AVX-512. On processors other than x86-64,
//! the crate `md-5` computes one after another.
//!
//! MD5 does not resist collisions. Use it where a protocol demands it, such as the ETag of S3.
//!
//! ```
//! use keyhole_md5::{Md5, update_all};
//!
//! let mut first = Md5::new();
//! let mut second = Md5::new();
//! update_all(&mut [(&mut first, b"message "), (&mut second, b"a")]);
//! first.update(b"digest");
//! assert_eq!(first.finish()[..4], [0xf9, 0x6b, 0x69, 0x7d]);
//! assert_eq!(second.finish()[..4], [0x0c, 0xc1, 0x75, 0xb9]);
//! ```
//!
//! # Invariants
//! - The digest of a message depends neither on how it is cut into updates nor on the other messages.
//! - An [`Md5`] wipes its state and the bytes that it holds on drop. Copies that the compiler keeps in
//!   registers or on the stack are out of reach.
//! - `unsafe` is confined to calls of functions for detected processor features, to loads and stores of
//!   vectors from and to arrays of their size, and to an empty assembly statement that orders additions.

// Processors without kernels need only the types.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
mod kernel;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, unused_imports, unused_macros))]
mod steps;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod words;
#[cfg(target_arch = "x86_64")]
mod x86;

use md5::block_api::compress;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::kernel::{Kernel, Lane};
use crate::steps::{BLOCK_LEN, Block};

/// Compiles and runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The state of an empty message (RFC 1321, section 3.3).
const INITIAL: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// The length of a digest in bytes.
pub const DIGEST_LEN: usize = 16;

/// An incremental MD5 digest.
///
/// ```
/// let mut md5 = keyhole_md5::Md5::new();
/// md5.update(b"ab");
/// md5.update(b"c");
/// assert_eq!(md5.finish()[..4], [0x90, 0x01, 0x50, 0x98]);
/// ```
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Md5 {
    state: [u32; 4],
    /// Length of the message in bytes.
    len: u64,
    /// The incomplete last block, `len % 64` bytes.
    rest: Block,
}

impl Default for Md5 {
    fn default() -> Self {
        Md5::new()
    }
}

impl Md5 {
    /// Creates the digest of an empty message.
    pub const fn new() -> Self {
        Md5 { state: INITIAL, len: 0, rest: [0; BLOCK_LEN] }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let blocks = self.take_ends(bytes);
        match kernels().first() {
            Some(kernel) if !blocks.is_empty() => kernel.advance(&mut [Lane { state: &mut self.state, blocks }]),
            _ => compress(&mut self.state, blocks),
        }
    }

    /// Returns the digest.
    pub fn finish(mut self) -> [u8; DIGEST_LEN] {
        let bits = self.len.wrapping_mul(8);
        let filled = self.filled();
        self.rest[filled] = 0x80;
        self.rest[filled + 1..].fill(0);
        if filled >= BLOCK_LEN - 8 {
            compress(&mut self.state, &[self.rest]);
            self.rest.fill(0);
        }
        self.rest[BLOCK_LEN - 8..].copy_from_slice(&bits.to_le_bytes());
        compress(&mut self.state, &[self.rest]);
        let mut digest = [0; DIGEST_LEN];
        let (words, _) = digest.as_chunks_mut::<4>();
        words.iter_mut().zip(self.state).for_each(|(bytes, word)| *bytes = word.to_le_bytes());
        digest
    }

    /// Returns the length of the incomplete last block.
    fn filled(&self) -> usize {
        (self.len % BLOCK_LEN as u64) as usize
    }

    /// Adds the bytes that complete the last block, keeps those behind the last whole block, and
    /// returns the blocks between, which the state does not contain yet.
    fn take_ends<'b>(&mut self, mut bytes: &'b [u8]) -> &'b [Block] {
        let filled = self.filled();
        self.len = self.len.wrapping_add(bytes.len() as u64);
        if filled > 0 {
            let (head, tail) = bytes.split_at(bytes.len().min(BLOCK_LEN - filled));
            self.rest[filled..filled + head.len()].copy_from_slice(head);
            if filled + head.len() < BLOCK_LEN {
                return &[];
            }
            compress(&mut self.state, &[self.rest]);
            bytes = tail;
        }
        let (blocks, rest) = bytes.as_chunks();
        self.rest[..rest.len()].copy_from_slice(rest);
        blocks
    }
}

/// Adds to each digest its bytes, like [`Md5::update`], as many at once as the processor can.
pub fn update_all(jobs: &mut [(&mut Md5, &[u8])]) {
    update_with(kernels(), jobs);
}

/// Returns the kernels that pay on this processor, those with fewer lanes first.
fn kernels() -> &'static [Kernel] {
    available().last().unwrap_or(&[])
}

/// Returns each set of kernels that this processor can run, the best last.
fn available() -> impl Iterator<Item = &'static [Kernel]> {
    #[cfg(target_arch = "x86_64")]
    return x86::available();
    #[cfg(not(target_arch = "x86_64"))]
    std::iter::empty()
}

fn update_with(kernels: &[Kernel], jobs: &mut [(&mut Md5, &[u8])]) {
    let mut lanes = Vec::with_capacity(jobs.len());
    for (md5, bytes) in jobs {
        let blocks = md5.take_ends(bytes);
        lanes.push(Lane { state: &mut md5.state, blocks });
    }
    loop {
        lanes.retain(|lane| !lane.blocks.is_empty());
        let kernel = kernels.iter().find(|kernel| kernel.lanes() >= lanes.len()).or(kernels.last());
        let Some(kernel) = kernel.filter(|_| !lanes.is_empty()) else { break };
        // The longest first: few messages that are left over in the end are slow.
        lanes.sort_by_key(|lane| std::cmp::Reverse(lane.blocks.len()));
        kernel.advance(&mut lanes);
    }
    for lane in lanes {
        compress(lane.state, lane.blocks);
    }
}
