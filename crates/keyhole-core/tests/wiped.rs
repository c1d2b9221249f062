//! Tests that secrets are wiped from memory when dropped.

use std::mem::MaybeUninit;

use keyhole_core::aead::{Engine, Portable};
use keyhole_core::body::{open_part_info, seal_part_info};
use keyhole_core::chunked::{Opener, Sealer};
use keyhole_core::head::{ChecksumAlgorithm, Checksums, Head, HeadError, OpenError, open_head, seal_head};
use keyhole_core::limits::{PREFIX_LEN, TAG_LEN};
use keyhole_core::sse_c::Headers;
use keyhole_core::{CustomerKey, DataKey};

const KEY: [u8; 32] = *b"a key with bytes easy to see....";

/// Drops `value` and returns the bytes left in its memory.
fn after_drop<T>(value: T) -> Vec<u8> {
    let mut place = MaybeUninit::new(value);
    // SAFETY: `place` is initialised and is dropped only here.
    unsafe { place.assume_init_drop() };
    let bytes = place.as_ptr().cast::<u8>();
    // SAFETY: the memory belongs to `place`, which is alive; `MaybeUninit` bytes may hold anything.
    // The reads are volatile, so that the compiler cannot assume that the dropped value is unused.
    (0..size_of::<T>()).map(|i| unsafe { bytes.add(i).read_volatile() }).collect()
}

fn traces(memory: &[u8], secret: &[u8]) -> usize {
    let windows = secret.windows(8);
    windows.filter(|window| memory.windows(8).any(|bytes| bytes == *window)).count()
}

#[test]
fn unwiped_memory_is_detected() {
    struct Careless([u8; 32]);
    impl Drop for Careless {
        fn drop(&mut self) {
            std::hint::black_box(&self.0);
        }
    }
    assert!(traces(&after_drop(Careless(KEY)), &KEY) > 0);
}

#[test]
fn keys_are_wiped() {
    assert_eq!(after_drop(CustomerKey::new(KEY)), [0; 32]);
    assert_eq!(after_drop(DataKey::new(KEY)), [0; 32]);
}

#[test]
fn key_headers_are_wiped() {
    let headers = Headers::new(&CustomerKey::new(KEY));
    let text = headers.iter(keyhole_core::sse_c::SseCTarget::Object)[1].1.to_owned();
    assert_eq!(traces(&after_drop(headers), text.as_bytes()), 0);
}

/// The first round keys of AES-256 are the key itself, so an unwiped key schedule contains the key.
#[test]
fn ciphers_are_wiped() {
    assert_eq!(traces(&after_drop(Portable.aead(&KEY)), &KEY), 0);
    let derived = derived_key();
    let sealer = Sealer::new(&Portable, &KEY, &[1; 24], &[b"context"]);
    let prefix = sealer.prefix();
    let left = after_drop(sealer);
    assert_eq!((traces(&left, &KEY), traces(&left, &derived)), (0, 0));
    let Ok(opener) = Opener::new(&Portable, &KEY, &prefix, &[b"context"]) else { panic!("its own commitment") };
    let left = after_drop(opener);
    assert_eq!((traces(&left, &KEY), traces(&left, &derived)), (0, 0));
}

/// Returns the message key: the first block of HKDF-Expand, truncated to 32 bytes.
fn derived_key() -> [u8; 32] {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha512>::new_from_slice(&KEY).unwrap();
    mac.update(b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0");
    mac.update(&[1; 24]);
    mac.update(b"context\x01");
    mac.finalize().into_bytes()[..32].try_into().unwrap()
}

/// Hashes that process keys.
#[test]
fn hash_states_are_wiped() {
    use hmac::{Hmac, KeyInit, Mac};
    use md5::{Digest, Md5};
    assert_eq!(traces(&after_drop(Md5::new().chain_update(KEY)), &KEY), 0);
    assert_eq!(traces(&after_drop(sha2::Sha512::new().chain_update(KEY)), &KEY), 0);
    // A keyed HMAC state is equivalent to the key.
    let mac = Hmac::<sha2::Sha512>::new_from_slice(&KEY).unwrap().chain_update(KEY);
    let state = memory(&mac);
    assert!(traces(&state, &KEY) > 0 && state.iter().filter(|byte| **byte != 0).count() > 128, "there is a state");
    let left = after_drop(mac);
    let remains = state.windows(8).filter(|window| **window != [0; 8] && left.windows(8).any(|left| left == *window));
    assert_eq!(remains.count(), 0);
}

fn memory<T>(value: &T) -> Vec<u8> {
    let bytes = std::ptr::from_ref(value).cast::<u8>();
    // SAFETY: as in `after_drop`; the value is alive.
    (0..size_of::<T>()).map(|i| unsafe { bytes.add(i).read_volatile() }).collect()
}

/// The data key is written to the output before the head is sealed, so every error must wipe it.
#[test]
fn failed_head_sealing_wipes_the_output() {
    let customer_key = CustomerKey::new([1; 32]);
    let good = Head { data_key: Some(&KEY), plaintext_length: Some(5), ..Head::default() };
    let seal = |head: &Head<'_>, len: usize| {
        let mut out = vec![0; len];
        let sealed = seal_head(&Portable, &customer_key, &[2; 24], "bucket", "key", head, &mut out);
        if sealed.is_err() {
            assert!(out.iter().all(|byte| *byte == 0), "{sealed:?} with room for {len}");
        }
        sealed
    };
    let len = seal(&good, 1000).unwrap();
    assert_eq!(seal(&good, len), Ok(len));
    (0..len).for_each(|short| assert_eq!(seal(&good, short), Err(HeadError::TooLong), "{short}"));
    let control = Head { fields: [Some(b"a\nb"), None, None, None, None, None], ..good };
    assert_eq!(seal(&control, 1000), Err(HeadError::Text));
    let long = vec![b'a'; 20_000];
    let long = Head { fields: [Some(&long), None, None, None, None, None], ..good };
    assert_eq!(seal(&long, 30_000), Err(HeadError::TooLong));
}

#[test]
fn failed_part_info_sealing_and_opening_wipe_the_buffer() {
    let data_key = DataKey::new(KEY);
    let mut checksums = Checksums::default();
    checksums.set(ChecksumAlgorithm::Sha256, &[0xee; 32]).unwrap();
    let seal = |out: &mut [u8]| seal_part_info(&Portable, &data_key, &[2; 24], 1, &[3; 24], &checksums, out);
    let mut out = [0; 300];
    let len = seal(&mut out).unwrap();
    for short in 0..len {
        let mut out = vec![0xaa; short];
        assert_eq!((seal(&mut out), out), (Err(HeadError::TooLong), vec![0; short]));
    }
    let open = |number, sealed: &mut [u8]| open_part_info(&Portable, &data_key, number, &[3; 24], sealed);
    assert_eq!(open(1, &mut { out }[..len]), Ok(checksums));
    assert_eq!(open(2, &mut out[..len]), Err(OpenError::NotAuthentic));
    assert!(out[..len].iter().all(|byte| *byte == 0));
}

/// Invalid heads that authenticate were already decrypted, so the error must wipe them.
#[test]
fn failed_head_opening_wipes_the_buffer() {
    let mut encoded = [0; 100];
    let head = Head { data_key: Some(&KEY), ..Head::default() };
    let len = head.encode(&mut encoded).unwrap();
    for (plaintext, expected) in [
        (&encoded[..len], Ok(())),
        (&encoded[..len + 1], Err(OpenError::Malformed(HeadError::Trailing))),
        (&b"\xa1\0\x01"[..], Err(OpenError::Malformed(HeadError::DataKey))),
    ] {
        let context: [&[u8]; 2] = [b"keyhole.head.v1\0\x06bucket", b"\0\x03key"];
        let mut sealer = Sealer::new(&Portable, &KEY, &[1; 24], &context);
        let mut chunk = plaintext.to_vec();
        let tag = sealer.seal_next(&mut chunk);
        let mut sealed = [&sealer.prefix()[..], &chunk, &tag].concat();
        assert_eq!(sealed.len(), PREFIX_LEN + plaintext.len() + TAG_LEN);
        let opened = open_head(&Portable, &CustomerKey::new(KEY), "bucket", "key", &mut sealed).map(|_| ());
        assert_eq!((opened, sealed.iter().all(|byte| *byte == 0)), (expected, expected.is_err()));
    }
}
