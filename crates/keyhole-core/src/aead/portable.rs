//! AES-256-GCM on the `aes`, `ctr` and `ghash` crates, which use what instructions the machine has.

use aes::Aes256;
use aes::cipher::{BlockCipherEncrypt, InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper};
use ctr::CtrCore;
use ctr::flavors::Ctr32BE;
use ghash::GHash;
use ghash::universal_hash::UniversalHash;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::NotAuthentic;
use crate::aead::{Aead, BLOCK_LEN, Engine};
use crate::limits::{KEY_LEN, NONCE_LEN, TAG_LEN};

/// The engine that runs everywhere.
#[derive(Clone, Copy, Default, Debug)]
pub struct Portable;

impl Engine for Portable {
    type Aead = PortableAead;

    fn aead(&self, key: &[u8; KEY_LEN]) -> PortableAead {
        let aes = Aes256::new(key.into());
        let mut hash_key = aes::Block::default();
        aes.encrypt_block(&mut hash_key);
        let ghash = GHash::new(&hash_key);
        hash_key.zeroize();
        PortableAead { aes, ghash }
    }
}

/// AES-256-GCM in software under one key. It keeps the tables of GHASH from chunk to chunk.
pub struct PortableAead {
    aes: Aes256,
    ghash: GHash,
}

impl PortableAead {
    /// The block that masks the tag, and the counter of the data (SP 800-38D §7.1).
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
        let mut lengths = ghash::Block::default();
        lengths[8..].copy_from_slice(&(data.len() as u64 * 8).to_be_bytes());
        ghash.update(&[lengths]);
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
        // A chunk fits the first-level cache: one pass after the other is as fast as any smaller steps.
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
