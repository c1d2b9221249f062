//! XXH64 and XXH3, which keep up to 256 bytes of their input: wiped on drop.

use std::hash::Hasher;
use std::hint::black_box;

use twox_hash::{XxHash3_64, XxHash3_128, XxHash64};

/// More bytes than a hasher keeps, at most 256.
const WIPE_LEN: usize = 512;

/// An incremental XXH value with seed 0, in the canonical (big-endian) order.
#[derive(Clone)]
pub(super) enum XxHash {
    Xxh64(XxHash64),
    Xxh3(XxHash3_64),
    Xxh128(XxHash3_128),
}

impl XxHash {
    pub(super) fn xxh64() -> Self {
        XxHash::Xxh64(XxHash64::with_seed(0))
    }

    pub(super) fn xxh3() -> Self {
        XxHash::Xxh3(XxHash3_64::new())
    }

    pub(super) fn xxh128() -> Self {
        XxHash::Xxh128(XxHash3_128::new())
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            XxHash::Xxh64(hash) => hash.write(bytes),
            XxHash::Xxh3(hash) => hash.write(bytes),
            XxHash::Xxh128(hash) => hash.write(bytes),
        }
    }

    pub(super) fn finish(&self) -> Vec<u8> {
        match self {
            XxHash::Xxh64(hash) => hash.finish().to_be_bytes().to_vec(),
            XxHash::Xxh3(hash) => hash.finish().to_be_bytes().to_vec(),
            XxHash::Xxh128(hash) => hash.finish_128().to_be_bytes().to_vec(),
        }
    }
}

/// Overwrites the kept input, which may be plaintext of a sealed object.
impl Drop for XxHash {
    fn drop(&mut self) {
        self.update(&[0; WIPE_LEN]);
        black_box(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the reference implementation, xxHash 0.8.
    #[test]
    fn values_match_the_reference_implementation() {
        let long: Vec<u8> = (0..2048).map(|i| i as u8).collect();
        for (bytes, xxh64, xxh3, xxh128) in [
            (&b""[..], "ef46db3751d8e999", "2d06800538d394c2", "99aa06d3014798d86001c324468d497f"),
            (b"123456789", "8cb841db40e6ae83", "72dcb18b67a17dff", "33119477ede5dcd5e9716427681d5860"),
            (&long, "68534a48b7bf5f4d", "dd420471ff96bd00", "df73e0768dd183fadd420471ff96bd00"),
        ] {
            for (mut hash, expected) in [(XxHash::xxh64(), xxh64), (XxHash::xxh3(), xxh3), (XxHash::xxh128(), xxh128)] {
                bytes.chunks(100).for_each(|piece| hash.update(piece));
                assert_eq!(hex::encode(hash.finish()), expected, "{} bytes", bytes.len());
            }
        }
    }
}
