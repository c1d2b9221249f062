//! Wiping of byte buffers.

use std::hint::black_box;

/// Overwrites bytes with zeros, also if they are freed next. `zeroize` writes byte by byte, which
/// takes longer than decrypting the same length.
pub fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    black_box(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wiped_bytes_are_zero() {
        let mut bytes = *b"a key and more";
        wipe(&mut bytes[..5]);
        assert_eq!(&bytes, b"\0\0\0\0\0 and more");
    }
}
