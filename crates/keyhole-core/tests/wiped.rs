//! Memory after a secret was dropped.

use std::mem::MaybeUninit;

use keyhole_core::aead::{Engine, Portable};
use keyhole_core::chunked::{Opener, Sealer};
use keyhole_core::sse_c::Headers;
use keyhole_core::{CustomerKey, DataKey};

const KEY: [u8; 32] = *b"a key with bytes easy to see....";

/// What is left where `value` was.
fn after_drop<T>(value: T) -> Vec<u8> {
    let mut place = MaybeUninit::new(value);
    // SAFETY: it is initialised, and dropped here alone.
    unsafe { place.assume_init_drop() };
    let bytes = place.as_ptr().cast::<u8>();
    // SAFETY: the memory is that of `place`, which is alive, and each byte is read as what it may be: anything. The reads
    // are volatile, so that the compiler cannot reason about a value that is gone.
    (0..size_of::<T>()).map(|i| unsafe { bytes.add(i).read_volatile() }).collect()
}

fn traces(memory: &[u8], secret: &[u8]) -> usize {
    let windows = secret.windows(8);
    windows.filter(|window| memory.windows(8).any(|bytes| bytes == *window)).count()
}

#[test]
fn the_test_sees_what_is_not_wiped() {
    struct Careless([u8; 32]);
    impl Drop for Careless {
        fn drop(&mut self) {
            std::hint::black_box(&self.0);
        }
    }
    assert!(traces(&after_drop(Careless(KEY)), &KEY) > 0);
}

#[test]
fn keys() {
    assert_eq!(after_drop(CustomerKey::new(KEY)), [0; 32]);
    assert_eq!(after_drop(DataKey::new(KEY)), [0; 32]);
}

#[test]
fn headers_of_a_key() {
    let headers = Headers::new(&CustomerKey::new(KEY));
    let text = headers.iter(keyhole_core::sse_c::Role::Object)[1].1.to_owned();
    assert_eq!(traces(&after_drop(headers), text.as_bytes()), 0);
}

/// The first round keys of AES-256 are the key.
#[test]
fn ciphers() {
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

/// What the message key is: the first block of HKDF-Expand, as the format says it.
fn derived_key() -> [u8; 32] {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha512>::new_from_slice(&KEY).unwrap();
    mac.update(b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0");
    mac.update(&[1; 24]);
    mac.update(b"context\x01");
    mac.finalize().into_bytes()[..32].try_into().unwrap()
}
