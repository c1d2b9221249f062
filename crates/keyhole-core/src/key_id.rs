//! Key ids identify a customer key, for pinning and audit, without revealing it.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha512;

use crate::CustomerKey;

/// Returns the id of a customer key in a bucket, shown to users as 32 hex digits.
///
/// The id is `HKDF-Expand-SHA-512(key, "keyhole.key-id.v1" || bucket)[0..16]`. It is never stored
/// with an object. Ids of one key in two buckets cannot be linked.
pub fn key_id(key: &CustomerKey, bucket: &str) -> [u8; 16] {
    // One block of HKDF-Expand (RFC 5869 §2.3) yields the 16 bytes.
    let mut mac = Hmac::<Sha512>::new_from_slice(key.expose()).expect("HMAC takes keys of any length");
    mac.update(b"keyhole.key-id.v1");
    mac.update(bucket.as_bytes());
    mac.update(&[1]);
    let block = mac.finalize().into_bytes();
    let mut id = [0; 16];
    id.copy_from_slice(&block[..16]);
    id
}
