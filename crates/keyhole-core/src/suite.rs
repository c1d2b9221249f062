//! Conformance tests for AES-256-GCM engines: published vectors, lengths around every boundary,
//! encryption in pieces of various lengths, and output equal to all other engines.
//!
//! Requires neither `std` nor an allocator, so that a device can test its own engine.

use core::fmt;

use sha2::{Digest, Sha512};

use crate::aead::{Aead, Engine, Pieces};
use crate::limits::{CHUNK_LEN, KEY_LEN, NONCE_LEN, TAG_LEN};

/// Length of scratch memory for the whole suite, in bytes.
pub const SCRATCH_LEN: usize = CHUNK_LEN;

/// Minimum length of scratch memory, in bytes. Devices with less than [`SCRATCH_LEN`] skip longer
/// inputs.
pub const SCRATCH_LEN_MIN: usize = 1024;

/// A failed check of an engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Name of the check.
    pub check: &'static str,
    /// Length of the data in bytes.
    pub len: usize,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at {} bytes)", self.check, self.len)
    }
}

impl core::error::Error for Failure {}

/// A test case of "The Galois/Counter Mode of Operation (GCM)", McGrew and Viega, appendix B.
struct Published {
    key: [u8; KEY_LEN],
    nonce: [u8; NONCE_LEN],
    plaintext: &'static [u8],
    ciphertext: &'static [u8],
    tag: [u8; TAG_LEN],
}

const KEY_15: [u8; KEY_LEN] = [
    0xfe, 0xff, 0xe9, 0x92, 0x86, 0x65, 0x73, 0x1c, 0x6d, 0x6a, 0x8f, 0x94, 0x67, 0x30, 0x83, 0x08, 0xfe, 0xff, 0xe9,
    0x92, 0x86, 0x65, 0x73, 0x1c, 0x6d, 0x6a, 0x8f, 0x94, 0x67, 0x30, 0x83, 0x08,
];

/// Test cases 13, 14 and 15: AES-256 without additional data.
const PUBLISHED: [Published; 3] = [
    Published {
        key: [0; KEY_LEN],
        nonce: [0; NONCE_LEN],
        plaintext: &[],
        ciphertext: &[],
        tag: [0x53, 0x0f, 0x8a, 0xfb, 0xc7, 0x45, 0x36, 0xb9, 0xa9, 0x63, 0xb4, 0xf1, 0xc4, 0xcb, 0x73, 0x8b],
    },
    Published {
        key: [0; KEY_LEN],
        nonce: [0; NONCE_LEN],
        plaintext: &[0; 16],
        ciphertext: &[0xce, 0xa7, 0x40, 0x3d, 0x4d, 0x60, 0x6b, 0x6e, 0x07, 0x4e, 0xc5, 0xd3, 0xba, 0xf3, 0x9d, 0x18],
        tag: [0xd0, 0xd1, 0xc8, 0xa7, 0x99, 0x99, 0x6b, 0xf0, 0x26, 0x5b, 0x98, 0xb5, 0xd4, 0x8a, 0xb9, 0x19],
    },
    Published {
        key: KEY_15,
        nonce: [0xca, 0xfe, 0xba, 0xbe, 0xfa, 0xce, 0xdb, 0xad, 0xde, 0xca, 0xf8, 0x88],
        plaintext: &[
            0xd9, 0x31, 0x32, 0x25, 0xf8, 0x84, 0x06, 0xe5, 0xa5, 0x59, 0x09, 0xc5, 0xaf, 0xf5, 0x26, 0x9a, 0x86, 0xa7,
            0xa9, 0x53, 0x15, 0x34, 0xf7, 0xda, 0x2e, 0x4c, 0x30, 0x3d, 0x8a, 0x31, 0x8a, 0x72, 0x1c, 0x3c, 0x0c, 0x95,
            0x95, 0x68, 0x09, 0x53, 0x2f, 0xcf, 0x0e, 0x24, 0x49, 0xa6, 0xb5, 0x25, 0xb1, 0x6a, 0xed, 0xf5, 0xaa, 0x0d,
            0xe6, 0x57, 0xba, 0x63, 0x7b, 0x39, 0x1a, 0xaf, 0xd2, 0x55,
        ],
        ciphertext: &[
            0x52, 0x2d, 0xc1, 0xf0, 0x99, 0x56, 0x7d, 0x07, 0xf4, 0x7f, 0x37, 0xa3, 0x2a, 0x84, 0x42, 0x7d, 0x64, 0x3a,
            0x8c, 0xdc, 0xbf, 0xe5, 0xc0, 0xc9, 0x75, 0x98, 0xa2, 0xbd, 0x25, 0x55, 0xd1, 0xaa, 0x8c, 0xb0, 0x8e, 0x48,
            0x59, 0x0d, 0xbb, 0x3d, 0xa7, 0xb0, 0x8b, 0x10, 0x56, 0x82, 0x88, 0x38, 0xc5, 0xf6, 0x1e, 0x63, 0x93, 0xba,
            0x7a, 0x0a, 0xbc, 0xc9, 0xf6, 0x62, 0x89, 0x80, 0x15, 0xad,
        ],
        tag: [0xb0, 0x94, 0xda, 0xc5, 0xd9, 0x34, 0x71, 0xbd, 0xec, 0x1a, 0x50, 0x22, 0x70, 0xe3, 0xcc, 0x6c],
    },
];

/// Lengths around block, batch and chunk boundaries.
const LENS: [usize; 28] = [
    0, 1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1000, 1024, 2049, 4095,
    8192, 16_383, 16_384,
];

/// SHA-512, truncated to 16 bytes, of the ciphertexts and tags of [`LENS`]: up to
/// [`SCRATCH_LEN_MIN`], and all of them. Generated with an independent implementation (Python's
/// `cryptography`).
const DIGEST_MIN: [u8; 16] =
    [0xcb, 0x96, 0xd5, 0x0c, 0xe8, 0x0c, 0xeb, 0xed, 0x77, 0xa2, 0x37, 0x2c, 0xe3, 0x50, 0xef, 0xcd];
const DIGEST_ALL: [u8; 16] =
    [0x7f, 0x05, 0x7c, 0x63, 0xf1, 0x36, 0x3e, 0x07, 0x4c, 0xd9, 0xbd, 0x86, 0xd5, 0x46, 0x0c, 0x1f];

/// Runs the suite. Skips inputs that do not fit `scratch`.
///
/// # Errors
/// [`Failure`] for the first failed check, or if `scratch` is shorter than [`SCRATCH_LEN_MIN`].
pub fn run<E: Engine>(engine: &E, scratch: &mut [u8]) -> Result<(), Failure> {
    if scratch.len() < SCRATCH_LEN_MIN {
        return Err(Failure { check: "the scratch space is too short", len: scratch.len() });
    }
    for case in &PUBLISHED {
        published(engine, case, scratch)?;
    }
    let mut digest = Sha512::new();
    let mut aead = engine.aead(&core::array::from_fn(|i| (i * 7) as u8));
    for len in LENS {
        let Some(data) = scratch.get_mut(..len) else { break };
        lengths(&mut aead, data, &mut digest)?;
        if len == SCRATCH_LEN_MIN {
            expect(digest.clone().finalize()[..16] == DIGEST_MIN, "other bytes than other engines", len)?;
        }
    }
    if scratch.len() < SCRATCH_LEN {
        return Ok(());
    }
    expect(digest.finalize()[..16] == DIGEST_ALL, "other bytes than other engines", SCRATCH_LEN)
}

fn expect(holds: bool, check: &'static str, len: usize) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure { check, len }) }
}

fn published<E: Engine>(engine: &E, case: &Published, scratch: &mut [u8]) -> Result<(), Failure> {
    let len = case.plaintext.len();
    let mut aead = engine.aead(&case.key);
    let data = &mut scratch[..len];
    data.copy_from_slice(case.plaintext);
    let tag = aead.seal(&case.nonce, data);
    expect(data == case.ciphertext && tag == case.tag, "ciphertext or tag of a published vector differs", len)?;
    let opened = aead.open(&case.nonce, data, &case.tag);
    expect(opened.is_ok() && data == case.plaintext, "a published vector does not open", len)
}

fn fill(data: &mut [u8]) {
    let len = data.len();
    for (i, byte) in data.iter_mut().enumerate() {
        *byte = (i * 31 + len) as u8;
    }
}

fn is_filled(data: &[u8]) -> bool {
    data.iter().enumerate().all(|(i, byte)| *byte == (i * 31 + data.len()) as u8)
}

/// Tests one length: seal, seal in pieces, open, and reject each kind of damage.
fn lengths<A: Aead>(aead: &mut A, data: &mut [u8], digest: &mut Sha512) -> Result<(), Failure> {
    let len = data.len();
    let mut nonce = [0x5a; NONCE_LEN];
    nonce[..8].copy_from_slice(&(len as u64).to_be_bytes());
    fill(data);
    let tag = aead.seal(&nonce, data);
    digest.update(&*data);
    digest.update(tag);
    let opened = aead.open(&nonce, data, &tag);
    expect(opened.is_ok() && is_filled(data), "a sealed message does not open", len)?;

    // Encrypt pieces of various lengths, then open the whole.
    let mut pieces = Pieces::new(aead, &nonce);
    let mut rest = &mut *data;
    let mut step = 0;
    while !rest.is_empty() {
        let (piece, left) = rest.split_at_mut(step.min(rest.len()));
        pieces.encrypt(aead, piece);
        rest = left;
        step = (step * 5 + 3) % 131;
    }
    expect(pieces.tag() == tag, "the tag of a message sealed in pieces differs", len)?;
    let opened = aead.open(&nonce, data, &tag);
    expect(opened.is_ok() && is_filled(data), "a message sealed in pieces does not open", len)?;

    for damage in 0..4 {
        let mut other_tag = tag;
        let mut other_nonce = nonce;
        let sealed_tag = aead.seal(&nonce, data);
        expect(sealed_tag == tag, "the tag of a message sealed again differs", len)?;
        match damage {
            0 => other_tag[0] ^= 1,
            1 => other_tag[TAG_LEN - 1] ^= 0x80,
            2 => other_nonce[NONCE_LEN - 1] ^= 1,
            _ => match data.last_mut() {
                Some(last) => *last ^= 0x80,
                None => other_tag[7] ^= 0x10,
            },
        }
        let refused = aead.open(&other_nonce, data, &other_tag).is_err();
        expect(refused, "a damaged message opens", len)?;
        expect(data.iter().all(|byte| *byte == 0), "a refused message is not wiped", len)?;
        fill(data);
    }
    Ok(())
}
