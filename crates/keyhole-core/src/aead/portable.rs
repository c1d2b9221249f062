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
use crate::aead::{Aead, Engine};
use crate::limits::{KEY_LEN, NONCE_LEN, TAG_LEN};

/// Bytes that are encrypted and then hashed while they are in the first-level cache; a multiple of GHASH's block.
const SLICE_LEN: usize = 4096;

const _: () = assert!(SLICE_LEN.is_multiple_of(16));

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

/// AES-256-GCM in software under one key.
pub struct PortableAead {
    aes: Aes256,
    ghash: GHash,
}

impl PortableAead {
    /// The key stream for the data and the mask of the tag (SP 800-38D §7.1).
    fn start(&self, nonce: &[u8; NONCE_LEN]) -> (StreamCipherCoreWrapper<CtrCore<&Aes256, Ctr32BE>>, aes::Block) {
        let mut counter = aes::Block::default();
        counter[..NONCE_LEN].copy_from_slice(nonce);
        counter[15] = 1;
        let mut mask = counter;
        self.aes.encrypt_block(&mut mask);
        counter[15] = 2;
        (StreamCipherCoreWrapper::from_core(CtrCore::inner_iv_init(&self.aes, &counter)), mask)
    }

    fn tag(ghash: GHash, mask: &aes::Block, len: usize) -> [u8; TAG_LEN] {
        let mut lengths = ghash::Block::default();
        lengths[8..].copy_from_slice(&(len as u64 * 8).to_be_bytes());
        let mut ghash = ghash;
        ghash.update(&[lengths]);
        let hash = ghash.finalize();
        core::array::from_fn(|i| hash[i] ^ mask[i])
    }
}

impl Aead for PortableAead {
    fn seal(&mut self, nonce: &[u8; NONCE_LEN], data: &mut [u8]) -> [u8; TAG_LEN] {
        let (mut stream, mask) = self.start(nonce);
        let mut ghash = self.ghash.clone();
        for slice in data.chunks_mut(SLICE_LEN) {
            stream.apply_keystream(slice);
            ghash.update_padded(slice);
        }
        Self::tag(ghash, &mask, data.len())
    }

    fn open(&mut self, nonce: &[u8; NONCE_LEN], data: &mut [u8], tag: &[u8; TAG_LEN]) -> Result<(), NotAuthentic> {
        let (mut stream, mask) = self.start(nonce);
        let mut ghash = self.ghash.clone();
        ghash.update_padded(data);
        if !bool::from(Self::tag(ghash, &mask, data.len()).ct_eq(tag)) {
            data.zeroize();
            return Err(NotAuthentic);
        }
        stream.apply_keystream(data);
        Ok(())
    }
}
