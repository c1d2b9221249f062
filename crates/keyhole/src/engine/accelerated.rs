//! AES-256-GCM in hand-written assembly that interleaves AES and GHASH. All engines produce the
//! same bytes; the fastest one depends on the machine:
//!
//! - AWS-LC with 512-bit vectors (VAES with AVX-512), on ARM, and without vector AES;
//! - ring with 256-bit vectors only (VAES with AVX2, as on Zen 3 and Alder Lake), which AWS-LC does
//!   not use for GCM: 1.8 times as fast there.

use std::hint::black_box;
use std::mem::MaybeUninit;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use keyhole_core::NotAuthentic;
use keyhole_core::aead::{Aead, BLOCK_LEN, Engine};
use keyhole_core::limits::{KEY_LEN, NONCE_LEN, TAG_LEN};
use zeroize::{Zeroize, Zeroizing};

/// The fastest AES-256-GCM on this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accelerated;

impl Engine for Accelerated {
    type Aead = AcceleratedAead;

    fn aead(&self, key: &[u8; KEY_LEN]) -> AcceleratedAead {
        let gcm = if has_vectors_of_256_bits_alone() { Gcm::Ring(RingKey::new(key)) } else { Gcm::AwsLc(aws_lc(key)) };
        AcceleratedAead { gcm, key: Zeroizing::new(*key) }
    }
}

/// Returns whether the machine has VAES and VPCLMULQDQ, but not AVX-512.
fn has_vectors_of_256_bits_alone() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let has_vaes = is_x86_feature_detected!("vaes") && is_x86_feature_detected!("vpclmulqdq");
        has_vaes && is_x86_feature_detected!("avx2") && !is_x86_feature_detected!("avx512f")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

fn aws_lc(key: &[u8; KEY_LEN]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("32 bytes are a key of AES-256"))
}

/// AES-256-GCM under one key.
pub(crate) struct AcceleratedAead {
    gcm: Gcm,
    /// The raw key for counter mode alone, which is rarely used.
    key: Zeroizing<[u8; KEY_LEN]>,
}

enum Gcm {
    /// AWS-LC wipes the memory of its keys when it frees them.
    AwsLc(LessSafeKey),
    Ring(RingKey),
}

/// A key of ring, which does not wipe its keys.
struct RingKey(Box<MaybeUninit<ring::aead::LessSafeKey>>);

/// Bytes of stack wiped after a key was made: more than making one takes.
const STACK_WIPED: usize = 4096;

impl RingKey {
    fn new(key: &[u8; KEY_LEN]) -> Self {
        let made = RingKey::make(key);
        wipe_stack();
        made
    }

    #[inline(never)]
    fn make(key: &[u8; KEY_LEN]) -> Self {
        let unbound = ring::aead::UnboundKey::new(&ring::aead::AES_256_GCM, key);
        let unbound = unbound.expect("32 bytes are a key of AES-256");
        let mut place = Box::new(MaybeUninit::uninit());
        place.write(ring::aead::LessSafeKey::new(unbound));
        RingKey(place)
    }

    fn get(&self) -> &ring::aead::LessSafeKey {
        // SAFETY: `make` has initialised it, and only `drop` clears it.
        unsafe { self.0.assume_init_ref() }
    }
}

/// Overwrites what the last call has left on the stack.
#[inline(never)]
fn wipe_stack() {
    black_box(&mut [0_u8; STACK_WIPED]);
}

/// Overwrites the memory of a key with zeros.
fn wipe(key: &mut MaybeUninit<ring::aead::LessSafeKey>) {
    // The type has no destructor to skip.
    const { assert!(!std::mem::needs_drop::<ring::aead::LessSafeKey>()) };
    *key = MaybeUninit::zeroed();
    // Prevents the compiler from removing the store as dead.
    black_box(key);
}

impl Drop for RingKey {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl Aead for AcceleratedAead {
    fn xor_key_stream(&mut self, counter: &[u8; BLOCK_LEN], data: &mut [u8]) {
        // This counter has 128 bits, GCM's has 32. They agree because a chunk has 1,024 blocks and
        // the counter starts low.
        let key = UnboundCipherKey::new(&AES_256, &*self.key).and_then(EncryptingKey::ctr);
        let context = EncryptionContext::Iv128(counter.into());
        let done = key.and_then(|key| key.less_safe_encrypt(data, context));
        done.expect("AES-256 in counter mode takes any length");
    }

    fn seal(&mut self, nonce: &[u8; NONCE_LEN], data: &mut [u8]) -> [u8; TAG_LEN] {
        const LIMIT: &str = "a chunk is within GCM's limit";
        match &self.gcm {
            Gcm::AwsLc(key) => {
                let nonce = Nonce::assume_unique_for_key(*nonce);
                let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), data).expect(LIMIT);
                tag.as_ref().try_into().expect("GCM's tag has 16 bytes")
            }
            Gcm::Ring(key) => {
                let nonce = ring::aead::Nonce::assume_unique_for_key(*nonce);
                let tag = key.get().seal_in_place_separate_tag(nonce, ring::aead::Aad::empty(), data).expect(LIMIT);
                tag.as_ref().try_into().expect("GCM's tag has 16 bytes")
            }
        }
    }

    fn open(&mut self, nonce: &[u8; NONCE_LEN], data: &mut [u8], tag: &[u8; TAG_LEN]) -> Result<(), NotAuthentic> {
        let is_authentic = match &self.gcm {
            Gcm::AwsLc(key) => {
                let nonce = Nonce::assume_unique_for_key(*nonce);
                key.open_in_place_separate_tag(nonce, Aad::empty(), tag, data).is_ok()
            }
            Gcm::Ring(key) => {
                let nonce = ring::aead::Nonce::assume_unique_for_key(*nonce);
                let tag = ring::aead::Tag::from(*tag);
                key.get().open_in_place_separate_tag(nonce, ring::aead::Aad::empty(), tag, data, 0..).is_ok()
            }
        };
        if !is_authentic {
            data.zeroize();
            return Err(NotAuthentic);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[allow(unused_imports)] // The benchmarks include this module without its tests.
    use super::*;

    #[test]
    fn both_libraries_produce_equal_bytes() {
        let aeads = |key: &[u8; KEY_LEN]| {
            [Gcm::AwsLc(aws_lc(key)), Gcm::Ring(RingKey::new(key))]
                .map(|gcm| AcceleratedAead { gcm, key: Zeroizing::new(*key) })
        };
        let key = [3; KEY_LEN];
        let nonce = [5; NONCE_LEN];
        for len in [0, 1, 15, 16, 17, 255, 4096, 16384] {
            let [ours, theirs] = aeads(&key).map(|mut aead| {
                let mut data: Vec<u8> = (0..len).map(|i| i as u8).collect();
                let tag = aead.seal(&nonce, &mut data);
                (data, tag)
            });
            assert_eq!(ours, theirs, "{len}");
            for mut aead in aeads(&key) {
                let (mut data, tag) = ours.clone();
                aead.open(&nonce, &mut data, &tag).unwrap();
                assert!(data.iter().enumerate().all(|(i, byte)| *byte == i as u8));
                let mut wrong = tag;
                wrong[15] ^= 1;
                assert_eq!(aead.open(&nonce, &mut ours.0.clone(), &wrong), Err(NotAuthentic));
            }
        }
    }

    #[test]
    fn dropped_key_is_wiped() {
        let mut key = RingKey::new(&[0xa7; KEY_LEN]);
        wipe(&mut key.0);
        // SAFETY: the range is the key's own size, and all of it was written.
        let bytes =
            unsafe { std::slice::from_raw_parts(key.0.as_ptr().cast::<u8>(), size_of::<ring::aead::LessSafeKey>()) };
        assert!(bytes.iter().all(|byte| *byte == 0));
    }
}
