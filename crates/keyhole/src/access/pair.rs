//! Access keys and their secrets: their form, and their generation.

use zeroize::Zeroizing;

use super::error::KeyPairError;
use super::limits::{ACCESS_KEY_MAX, ACCESS_KEY_MIN, SECRET_KEY_MAX, SECRET_KEY_MIN};
use crate::env::random;

/// Lengths of generated access keys and secrets, as at AWS.
const ACCESS_KEY_LEN: usize = 20;

const SECRET_KEY_LEN: usize = 40;

/// Validates the form of an access key and its secret.
pub(crate) fn check(id: &str, secret: &str) -> Result<(), KeyPairError> {
    let valid = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b',' | b'=');
    if !(ACCESS_KEY_MIN..=ACCESS_KEY_MAX).contains(&id.len()) || !id.bytes().all(valid) {
        return Err(KeyPairError::AccessKey);
    }
    if (SECRET_KEY_MIN..=SECRET_KEY_MAX).contains(&secret.len()) { Ok(()) } else { Err(KeyPairError::SecretKey) }
}

/// Generates an access key and a secret.
pub(crate) fn new_pair() -> (String, Zeroizing<String>) {
    let id = characters(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", ACCESS_KEY_LEN);
    let secret = characters(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-", SECRET_KEY_LEN);
    (id, secret.into())
}

/// Generates `len` random characters of an alphabet whose length divides 256, so that all are
/// equally likely.
fn characters(alphabet: &[u8], len: usize) -> String {
    assert!(256 % alphabet.len() == 0, "an alphabet of {} characters is uneven", alphabet.len());
    let mut bytes = Zeroizing::new(vec![0; len]);
    random(&mut bytes);
    bytes.iter().map(|byte| char::from(alphabet[usize::from(*byte) % alphabet.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_and_secret_lengths_are_bounded() {
        let try_one = |id: &str, secret: &str| check(id, secret).is_ok();
        let long = "a".repeat(ACCESS_KEY_MAX);
        let longer = "a".repeat(ACCESS_KEY_MAX + 1);
        assert!(try_one("abc", "12345678") && try_one(&long, &"s".repeat(SECRET_KEY_MAX)));
        assert!(!try_one("ab", "12345678") && !try_one("abc", "1234567") && !try_one("a/c", "12345678"));
        assert!(!try_one(&longer, "12345678") && !try_one("abc", &"s".repeat(SECRET_KEY_MAX + 1)));
    }

    #[test]
    fn new_pairs_are_random() {
        let ((id, secret), other) = (new_pair(), new_pair());
        assert_eq!((id.len(), secret.len()), (ACCESS_KEY_LEN, SECRET_KEY_LEN));
        assert!(check(&id, &secret).is_ok() && id != other.0 && secret != other.1);
    }
}
