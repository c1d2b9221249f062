//! AES-256-GCM with the `aes`, `ctr` and `polyval` crates, which use the CPU's instructions.
//!
//! GHASH is POLYVAL of byte-reversed blocks (RFC 8452, appendix A). The `ghash` crate reverses each
//! block just before hashing it, and the CPU waits for the bytes to come back from memory.
//! Reversing blocks in batches saves about a tenth of the time.

use aes::Aes256;
use aes::cipher::{BlockCipherEncrypt, InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper};
use ctr::CtrCore;
use ctr::flavors::Ctr32BE;
use polyval::Polyval;
use polyval::hazmat::FieldElement;
use polyval::universal_hash::UniversalHash;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::NotAuthentic;
use crate::aead::{Aead, BLOCK_LEN, Engine};
use crate::limits::{KEY_LEN, NONCE_LEN, TAG_LEN};

/// The engine that runs on every target.
#[derive(Clone, Copy, Default, Debug)]
pub struct Portable;

impl Engine for Portable {
    type Aead = PortableAead;

    fn aead(&self, key: &[u8; KEY_LEN]) -> PortableAead {
        let aes = Aes256::new(key.into());
        let mut hash_key = aes::Block::default();
        aes.encrypt_block(&mut hash_key);
        let ghash = Ghash::new(&hash_key);
        hash_key.zeroize();
        PortableAead { aes, ghash }
    }
}

/// AES-256-GCM in software under one key. Reuses the GHASH tables for all chunks.
pub struct PortableAead {
    aes: Aes256,
    ghash: Ghash,
}

impl PortableAead {
    /// Returns the block that masks the tag, and the initial counter of the data (SP 800-38D §7.1).
    fn start(&self, nonce: &[u8; NONCE_LEN]) -> (aes::Block, [u8; BLOCK_LEN]) {
        let mut counter = [0; BLOCK_LEN];
        counter[..NONCE_LEN].copy_from_slice(nonce);
        counter[BLOCK_LEN - 1] = 1;
        let mut mask = aes::Block::from(counter);
        self.aes.encrypt_block(&mut mask);
        counter[BLOCK_LEN - 1] = 2;
        (mask, counter)
    }

    fn tag(&self, data: &[u8], mask: &aes::Block) -> [u8; TAG_LEN] {
        let mut ghash = self.ghash.clone();
        ghash.update_padded(data);
        let mut lengths = [0; BLOCK_LEN];
        lengths[8..].copy_from_slice(&(data.len() as u64 * 8).to_be_bytes());
        ghash.update_padded(&lengths);
        let hash = ghash.finalize();
        core::array::from_fn(|i| hash[i] ^ mask[i])
    }
}

impl Aead for PortableAead {
    fn xor_key_stream(&mut self, counter: &[u8; BLOCK_LEN], data: &mut [u8]) {
        let core = CtrCore::<_, Ctr32BE>::inner_iv_init(&self.aes, counter.into());
        StreamCipherCoreWrapper::from_core(core).apply_keystream(data);
    }

    fn seal(&mut self, nonce: &[u8; NONCE_LEN], data: &mut [u8]) -> [u8; TAG_LEN] {
        let (mask, counter) = self.start(nonce);
        // A chunk fits the L1 cache: two separate passes are as fast as interleaved smaller steps.
        self.xor_key_stream(&counter, data);
        self.tag(data, &mask)
    }

    fn open(&mut self, nonce: &[u8; NONCE_LEN], data: &mut [u8], tag: &[u8; TAG_LEN]) -> Result<(), NotAuthentic> {
        let (mask, counter) = self.start(nonce);
        if !bool::from(self.tag(data, &mask).ct_eq(tag)) {
            data.zeroize();
            return Err(NotAuthentic);
        }
        self.xor_key_stream(&counter, data);
        Ok(())
    }
}

/// Blocks reversed per batch.
const BATCH: usize = 32;

/// GHASH (SP 800-38D §6.4).
#[derive(Clone)]
struct Ghash(Polyval);

impl Ghash {
    fn new(hash_key: &aes::Block) -> Self {
        let mut key: polyval::Key = FieldElement::from(hash_key.0).reverse().mulx().into();
        let polyval = Polyval::new(&key);
        key.zeroize();
        Ghash(polyval)
    }

    /// Hashes `data`, padded with zeros to a whole block.
    fn update_padded(&mut self, data: &[u8]) {
        let (blocks, tail) = polyval::Block::slice_as_chunks(data);
        let mut reversed = [polyval::Block::default(); BATCH];
        for batch in blocks.chunks(BATCH) {
            for (reversed, block) in reversed.iter_mut().zip(batch) {
                reversed.0 = u128::from_be_bytes(block.0).to_le_bytes();
            }
            self.0.update(&reversed[..batch.len()]);
        }
        if !tail.is_empty() {
            let mut last = polyval::Block::default();
            for (to, from) in last.iter_mut().rev().zip(tail) {
                *to = *from;
            }
            self.0.update(&[last]);
        }
    }

    fn finalize(self) -> [u8; BLOCK_LEN] {
        let mut hash = self.0.finalize().0;
        hash.reverse();
        hash
    }
}
