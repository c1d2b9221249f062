//! Digests and message authentication codes for the S3 library.

use std::thread;

use aws_lc_rs::{digest, hmac};
use object_store::client::{CryptoProvider, DigestAlgorithm, DigestContext, HmacContext, Signer, SigningAlgorithm};
use object_store::{Error, Result};

/// Bytes that are hashed at a time.
const STEP_LEN: usize = 64 << 10;

/// Hashes uploads in short steps. The library hashes a whole part at once, which takes milliseconds: the
/// workers must not wait for that on a machine whose processors are all busy.
#[derive(Debug)]
pub(super) struct Crypto;

impl CryptoProvider for Crypto {
    fn digest(&self, algorithm: DigestAlgorithm) -> Result<Box<dyn DigestContext>> {
        match algorithm {
            DigestAlgorithm::Sha256 => Ok(Box::new(Sha256(digest::Context::new(&digest::SHA256), Vec::new()))),
            other => Err(unsupported(format!("{other:?}"))),
        }
    }

    fn hmac(&self, algorithm: DigestAlgorithm, secret: &[u8]) -> Result<Box<dyn HmacContext>> {
        match algorithm {
            DigestAlgorithm::Sha256 => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
                Ok(Box::new(HmacSha256(hmac::Context::with_key(&key), Vec::new())))
            }
            other => Err(unsupported(format!("{other:?}"))),
        }
    }

    fn sign(&self, algorithm: SigningAlgorithm, _: &[u8]) -> Result<Box<dyn Signer>> {
        Err(unsupported(format!("{algorithm:?}")))
    }
}

fn unsupported(algorithm: String) -> Error {
    Error::NotSupported { source: format!("the algorithm {algorithm}").into() }
}

/// A digest, and its value at the end.
struct Sha256(digest::Context, Vec<u8>);

impl DigestContext for Sha256 {
    fn update(&mut self, data: &[u8]) {
        for step in data.chunks(STEP_LEN) {
            self.0.update(step);
            if step.len() == STEP_LEN {
                thread::yield_now();
            }
        }
    }

    fn finish(&mut self) -> Result<&[u8]> {
        self.1 = self.0.clone().finish().as_ref().to_vec();
        Ok(&self.1)
    }
}

/// A message authentication code, and its value at the end.
struct HmacSha256(hmac::Context, Vec<u8>);

impl HmacContext for HmacSha256 {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn finish(&mut self) -> Result<&[u8]> {
        self.1 = self.0.clone().sign().as_ref().to_vec();
        Ok(&self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_in_steps_is_that_of_the_whole() {
        for len in [0, 1, STEP_LEN - 1, STEP_LEN, STEP_LEN + 1, 3 * STEP_LEN + 5] {
            let data: Vec<u8> = (0..len).map(|index| index as u8).collect();
            let mut digest = Crypto.digest(DigestAlgorithm::Sha256).unwrap();
            let (first, second) = data.split_at(len / 3);
            digest.update(first);
            digest.update(second);
            assert_eq!(digest.finish().unwrap(), digest::digest(&digest::SHA256, &data).as_ref(), "{len}");
        }
    }

    /// RFC 4231, section 4.3.
    #[test]
    fn message_authentication_code_is_that_of_the_standard() {
        let mut code = Crypto.hmac(DigestAlgorithm::Sha256, b"Jefe").unwrap();
        code.update(b"what do ya want ");
        code.update(b"for nothing?");
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex::encode(code.finish().unwrap()), expected);
    }
}
