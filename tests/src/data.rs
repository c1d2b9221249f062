//! Keys and bytes for tests.

use std::path::Path;

use base64ct::{Base64, Encoding};
use md5::{Digest, Md5};

/// A customer key on the client side.
pub struct CustomerKey(pub [u8; 32]);

impl CustomerKey {
    /// Creates a random key.
    pub fn random() -> Self {
        let mut key = [0; 32];
        getrandom::fill(&mut key).expect("randomness");
        CustomerKey(key)
    }

    /// Returns the header value for the key.
    pub fn base64(&self) -> String {
        base64(&self.0)
    }

    /// Returns the header value for the key's MD5.
    pub fn md5_base64(&self) -> String {
        base64(&md5(&self.0))
    }

    /// Returns the three SSE-C headers of an object.
    pub fn headers(&self) -> [(String, String); 3] {
        self.named("x-amz-server-side-encryption-customer-")
    }

    /// Returns the three SSE-C headers of a copy source.
    pub fn copy_source_headers(&self) -> [(String, String); 3] {
        self.named("x-amz-copy-source-server-side-encryption-customer-")
    }

    fn named(&self, prefix: &str) -> [(String, String); 3] {
        [
            (format!("{prefix}algorithm"), "AES256".to_owned()),
            (format!("{prefix}key"), self.base64()),
            (format!("{prefix}key-md5"), self.md5_base64()),
        ]
    }
}

/// Returns `len` bytes that are reproducible from a seed.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// Returns a new seed.
pub fn fresh_seed() -> u64 {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).expect("randomness");
    u64::from_le_bytes(seed)
}

/// Returns all files below a directory with their contents.
pub fn files_below(path: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if path.is_file() {
            let bytes = std::fs::read(&path).expect("a file");
            files.push((path, bytes));
        }
    }
    files
}

/// Returns the encodings of a secret to search for: raw, hex in either case, and base64 at the
/// three alignments within a larger encoded text (without the characters that depend on
/// neighbouring bytes).
pub fn encodings(secret: &[u8]) -> Vec<(String, Vec<u8>)> {
    let hex = hex::encode(secret);
    let mut encodings = vec![
        ("raw".to_owned(), secret.to_vec()),
        ("hex".to_owned(), hex.clone().into_bytes()),
        ("HEX".to_owned(), hex.to_uppercase().into_bytes()),
    ];
    for before in 0..3 {
        let padded = [vec![0; before], secret.to_vec()].concat();
        let text = Base64::encode_string(&padded);
        let first = (before * 8).div_ceil(6);
        let last = padded.len() * 8 / 6;
        encodings.push((format!("base64 at {before}"), text.as_bytes()[first..last].to_vec()));
    }
    encodings
}

/// Changes the version of an object file, as if a later program had written it (FORMAT.md of the
/// log, "Superblock").
pub fn set_superblock_version(path: &Path, version: u32) {
    const PAGE: usize = 4096;
    const COPIES_AT: [usize; 2] = [0, 512 << 10];
    let mut bytes = std::fs::read(path).expect("an object file");
    for start in COPIES_AT {
        let page = &mut bytes[start..start + PAGE];
        page[8..12].copy_from_slice(&version.to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&page[..12]);
        crc.update(&page[16..]);
        page[12..16].copy_from_slice(&crc.finalize().to_le_bytes());
    }
    std::fs::write(path, bytes).expect("an object file");
}

/// Returns whether `needle` occurs in `haystack`.
pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let Some((&first, rest)) = needle.split_first() else { return true };
    let mut at = 0;
    while let Some(found) = haystack[at..].iter().position(|byte| *byte == first) {
        at += found + 1;
        if haystack[at..].starts_with(rest) {
            return true;
        }
    }
    false
}

/// Encodes bytes as base64.
pub fn base64(bytes: &[u8]) -> String {
    Base64::encode_string(bytes)
}

/// Returns the MD5 of bytes.
pub fn md5(bytes: &[u8]) -> [u8; 16] {
    Md5::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_in_each_encoding_is_found() {
        let secret = b"\x00a secret of some length\xff\xfe";
        for lead in [&b""[..], b"x", b"xy", b"xyz"] {
            let text = Base64::encode_string(&[lead, secret, b"and more"].concat());
            let found = encodings(secret).iter().filter(|(_, bytes)| contains(text.as_bytes(), bytes)).count();
            assert_eq!(found, 1, "after {} bytes", lead.len());
        }
        assert!(contains(&[b"..", &secret[..], b".."].concat(), secret));
        assert!(!contains(b"nothing here", secret));
    }
}
