//! The request headers of SSE-C: algorithm, key and the key's MD5, for an object and for the source of a copy.
//!
//! Whoever sends one of the three, or something that looks like one of them, wants encryption; so each is required then,
//! and nothing is stored in the clear because a header was missing, doubled or misspelt.

use base64ct::{Base64, Encoding};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::CustomerKey;
use crate::limits::KEY_LEN;

/// The one algorithm there is.
pub const ALGORITHM: &str = "AES256";

/// `x-amz-server-side-encryption-customer-algorithm`
pub const ALGORITHM_HEADER: &str = "x-amz-server-side-encryption-customer-algorithm";
/// `x-amz-server-side-encryption-customer-key`
pub const KEY_HEADER: &str = "x-amz-server-side-encryption-customer-key";
/// `x-amz-server-side-encryption-customer-key-md5`
pub const KEY_MD5_HEADER: &str = "x-amz-server-side-encryption-customer-key-md5";

/// `x-amz-copy-source-server-side-encryption-customer-algorithm`
pub const COPY_SOURCE_ALGORITHM_HEADER: &str = "x-amz-copy-source-server-side-encryption-customer-algorithm";
/// `x-amz-copy-source-server-side-encryption-customer-key`
pub const COPY_SOURCE_KEY_HEADER: &str = "x-amz-copy-source-server-side-encryption-customer-key";
/// `x-amz-copy-source-server-side-encryption-customer-key-md5`
pub const COPY_SOURCE_KEY_MD5_HEADER: &str = "x-amz-copy-source-server-side-encryption-customer-key-md5";

/// What the names of the headers of a trio begin with, for an object.
const OBJECT_PREFIX: &str = "x-amz-server-side-encryption-customer";
/// The same for the source of a copy.
const COPY_SOURCE_PREFIX: &str = "x-amz-copy-source-server-side-encryption-customer";

/// Whose key a trio carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The object that the request names.
    Object,
    /// The object that is copied from.
    CopySource,
}

impl Role {
    /// What the names of this role's headers begin with, in lower case.
    pub const fn prefix(self) -> &'static str {
        match self {
            Role::Object => OBJECT_PREFIX,
            Role::CopySource => COPY_SOURCE_PREFIX,
        }
    }
}

/// What can be wrong with a trio.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SseCError {
    /// There is no key.
    MissingKey,
    /// There is no MD5 of the key.
    MissingKeyMd5,
    /// There is no algorithm.
    MissingAlgorithm,
    /// The algorithm is not [`ALGORITHM`].
    Algorithm,
    /// The key is not the base64 of 32 bytes.
    Key,
    /// The MD5 is not the key's.
    KeyMd5,
    /// On a read: the key is not the base64 of 32 bytes, so it is not the object's.
    WrongKey,
    /// A header is there twice.
    Duplicate,
    /// A header's name begins as those of the trio do, and is none of them.
    UnknownHeader,
}

impl core::fmt::Display for SseCError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            SseCError::MissingKey => "the customer key is missing",
            SseCError::MissingKeyMd5 => "the MD5 of the customer key is missing",
            SseCError::MissingAlgorithm => "the algorithm is missing",
            SseCError::Algorithm => "the algorithm is not AES256",
            SseCError::Key => "the customer key is not base64 of 32 bytes",
            SseCError::KeyMd5 => "the MD5 does not match the customer key",
            SseCError::WrongKey => "the customer key does not match the object",
            SseCError::Duplicate => "duplicate customer key header",
            SseCError::UnknownHeader => "unknown customer key header",
        })
    }
}

impl core::error::Error for SseCError {}

/// The three headers of one role, as they came.
#[derive(Clone, Copy, Default)]
pub struct Triple<'a> {
    /// The algorithm's name.
    pub algorithm: Option<&'a [u8]>,
    /// The key, in base64.
    pub key: Option<&'a [u8]>,
    /// The MD5 of the key, in base64.
    pub key_md5: Option<&'a [u8]>,
}

impl<'a> Triple<'a> {
    /// Finds the headers of `role` among all headers of a request, whatever the case of their names.
    ///
    /// # Errors
    /// [`SseCError::Duplicate`] and [`SseCError::UnknownHeader`].
    pub fn from_headers(
        role: Role,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Triple<'a>, SseCError> {
        let mut triple = Triple::default();
        for (name, value) in headers {
            let Some(rest) = strip_prefix_ignore_case(name, role.prefix()) else { continue };
            let place = match rest {
                _ if rest.eq_ignore_ascii_case(b"-algorithm") => &mut triple.algorithm,
                _ if rest.eq_ignore_ascii_case(b"-key") => &mut triple.key,
                _ if rest.eq_ignore_ascii_case(b"-key-md5") => &mut triple.key_md5,
                _ => return Err(SseCError::UnknownHeader),
            };
            if place.replace(value).is_some() {
                return Err(SseCError::Duplicate);
            }
        }
        Ok(triple)
    }

    /// Whether none of the three is there: no SSE-C request.
    pub fn is_absent(&self) -> bool {
        self.algorithm.is_none() && self.key.is_none() && self.key_md5.is_none()
    }

    /// The key to write with; `None` where the request is no SSE-C request. The errors come in the order in which S3 looks
    /// for them: what is missing (key, MD5, algorithm), the algorithm, the key, the MD5.
    ///
    /// # Errors
    /// Every [`SseCError`] but `WrongKey`, `Duplicate` and `UnknownHeader`.
    pub fn for_write(&self) -> Result<Option<CustomerKey>, SseCError> {
        if self.is_absent() {
            return Ok(None);
        }
        let key = self.key.ok_or(SseCError::MissingKey)?;
        let key_md5 = self.key_md5.ok_or(SseCError::MissingKeyMd5)?;
        let algorithm = self.algorithm.ok_or(SseCError::MissingAlgorithm)?;
        if algorithm != ALGORITHM.as_bytes() {
            return Err(SseCError::Algorithm);
        }
        let key = decode_key(key).ok_or(SseCError::Key)?;
        let mut sent = [0; 16];
        let is_md5 = Base64::decode(key_md5, &mut sent).is_ok_and(|bytes| bytes.len() == 16);
        // In constant time, although an MD5 is no secret to who sent the key: the habit costs nothing.
        if !is_md5 || !bool::from(sent.ct_eq(&key.md5())) {
            return Err(SseCError::KeyMd5);
        }
        Ok(Some(key))
    }

    /// The key to read with. As [`for_write`](Self::for_write), but what is no key at all cannot be the object's.
    ///
    /// # Errors
    /// Those of [`for_write`](Self::for_write) with [`SseCError::WrongKey`] in the place of [`SseCError::Key`].
    pub fn for_read(&self) -> Result<Option<CustomerKey>, SseCError> {
        self.for_write().map_err(|error| if error == SseCError::Key { SseCError::WrongKey } else { error })
    }
}

/// Says which of the three are there, and of none what it is.
impl core::fmt::Debug for Triple<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Triple")
            .field("algorithm", &self.algorithm.is_some())
            .field("key", &self.key.is_some())
            .field("key_md5", &self.key_md5.is_some())
            .finish()
    }
}

/// The MD5 of a key as its header has it, for requests and replies.
pub fn key_md5_base64(key: &CustomerKey) -> heapless::String<KEY_MD5_BASE64_LEN> {
    let mut text = [0; KEY_MD5_BASE64_LEN];
    encode(&key.md5(), &mut text);
    // Base64 is ASCII, and as long as the string has room.
    heapless::String::from_utf8(heapless::Vec::from_array(text)).unwrap_or_default()
}

/// The three headers of a customer key, for who sends requests. Wiped when dropped.
///
/// ```
/// use keyhole_core::CustomerKey;
/// use keyhole_core::sse_c::{Headers, Role};
///
/// let headers = Headers::new(&CustomerKey::new(*b"0123456789abcdef0123456789abcdef"));
/// for (name, value) in headers.iter(Role::Object) {
///     // Write `name: value` and CR LF.
///     # assert!(name.starts_with("x-amz-server-side-encryption-customer-") && !value.is_empty());
/// }
/// ```
pub struct Headers {
    key: Zeroizing<[u8; KEY_BASE64_LEN]>,
    key_md5: [u8; KEY_MD5_BASE64_LEN],
}

/// Characters of a key in base64, and of its MD5.
const KEY_BASE64_LEN: usize = KEY_LEN.div_ceil(3) * 4;
const KEY_MD5_BASE64_LEN: usize = 16usize.div_ceil(3) * 4;

impl Headers {
    /// The headers of this key.
    pub fn new(key: &CustomerKey) -> Self {
        let mut headers = Headers { key: Zeroizing::new([0; KEY_BASE64_LEN]), key_md5: [0; KEY_MD5_BASE64_LEN] };
        encode(key.expose(), &mut *headers.key);
        encode(&key.md5(), &mut headers.key_md5);
        headers
    }

    /// Names, in lower case, and values, as a request for `role` carries them.
    pub fn iter(&self, role: Role) -> [(&'static str, &str); 3] {
        let text = |bytes| core::str::from_utf8(bytes).unwrap_or_default();
        let [algorithm, key, key_md5] = match role {
            Role::Object => [ALGORITHM_HEADER, KEY_HEADER, KEY_MD5_HEADER],
            Role::CopySource => [COPY_SOURCE_ALGORITHM_HEADER, COPY_SOURCE_KEY_HEADER, COPY_SOURCE_KEY_MD5_HEADER],
        };
        [(algorithm, ALGORITHM), (key, text(&*self.key)), (key_md5, text(&self.key_md5))]
    }
}

/// Shows that there are headers, not what is in them.
impl core::fmt::Debug for Headers {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Headers(redacted)")
    }
}

/// Base64 into a buffer of just the right length.
fn encode(bytes: &[u8], out: &mut [u8]) {
    let len = out.len();
    let encoded = Base64::encode(bytes, out).map(str::len);
    debug_assert_eq!(encoded, Ok(len));
}

fn decode_key(text: &[u8]) -> Option<CustomerKey> {
    // One byte more than a key, so that a longer one is told from a key.
    let mut bytes = Zeroizing::new([0; KEY_LEN + 1]);
    let decoded = Base64::decode(text, &mut *bytes).ok()?;
    Some(CustomerKey::new(decoded.try_into().ok()?))
}

fn strip_prefix_ignore_case<'n>(name: &'n str, prefix: &str) -> Option<&'n [u8]> {
    let (start, rest) = name.as_bytes().split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix.as_bytes()).then_some(rest)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    const MD5: &str = "hRasmdxgYDKV3nvbahU1MA==";

    fn triple<'a>(algorithm: &'a str, key: &'a str, md5: &'a str) -> Triple<'a> {
        let some = |text: &'a str| (text != "-").then_some(text.as_bytes());
        Triple { algorithm: some(algorithm), key: some(key), key_md5: some(md5) }
    }

    #[test]
    fn the_md5_is_the_keys() {
        let key = CustomerKey::new(*b"0123456789abcdef0123456789abcdef");
        assert_eq!(key_md5_base64(&key).as_str(), MD5);
    }

    #[test]
    fn one_error_for_each_row() {
        use SseCError as E;
        let short = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZQ==";
        let long = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWZn";
        let twice = "TURFeU16UTFOamM0T1dGaVkyUmxaakF4TWpNME5UWTNPRGxoWW1Oa1pXWT0=";
        let cases = [
            ("-", "-", "-", Ok(false)),
            ("AES256", KEY, MD5, Ok(true)),
            ("AES256", "-", MD5, Err(E::MissingKey)),
            ("-", "-", MD5, Err(E::MissingKey)),
            ("AES256", "-", "-", Err(E::MissingKey)),
            ("AES256", KEY, "-", Err(E::MissingKeyMd5)),
            ("-", KEY, "-", Err(E::MissingKeyMd5)),
            ("-", KEY, MD5, Err(E::MissingAlgorithm)),
            ("aes256", KEY, MD5, Err(E::Algorithm)),
            ("AES128", "nonsense", MD5, Err(E::Algorithm)),
            ("", KEY, MD5, Err(E::Algorithm)),
            ("AES256", "", MD5, Err(E::Key)),
            ("AES256", "no base64!", MD5, Err(E::Key)),
            ("AES256", short, MD5, Err(E::Key)),
            ("AES256", long, MD5, Err(E::Key)),
            ("AES256", twice, MD5, Err(E::Key)),
            ("AES256", KEY, "", Err(E::KeyMd5)),
            ("AES256", KEY, "AAAA", Err(E::KeyMd5)),
            ("AES256", KEY, "hRasmdxgYDKV3nvbahU1MQ==", Err(E::KeyMd5)),
        ];
        for (algorithm, key, md5, expected) in cases {
            let triple = triple(algorithm, key, md5);
            assert_eq!(triple.for_write().map(|key| key.is_some()), expected, "{algorithm} {key} {md5}");
            let on_read = if expected == Err(E::Key) { Err(E::WrongKey) } else { expected };
            assert_eq!(triple.for_read().map(|key| key.is_some()), on_read, "{algorithm} {key} {md5}");
        }
    }

    #[test]
    fn headers_are_found_by_role_and_never_ignored() {
        let check = |role, names: &[&'static str], expected: Result<(bool, bool, bool), SseCError>| {
            let headers: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, &b"x"[..])).collect();
            let found = Triple::from_headers(role, headers.into_iter());
            let found = found.map(|t| (t.algorithm.is_some(), t.key.is_some(), t.key_md5.is_some()));
            assert_eq!(found, expected, "{names:?}");
        };
        check(Role::Object, &["host", "x-amz-date", "x-amz-server-side-encryption"], Ok((false, false, false)));
        check(Role::Object, &[ALGORITHM_HEADER, KEY_HEADER, KEY_MD5_HEADER], Ok((true, true, true)));
        check(Role::Object, &["X-Amz-Server-Side-Encryption-Customer-Key"], Ok((false, true, false)));
        check(Role::Object, &[KEY_HEADER, "X-Amz-Server-Side-Encryption-Customer-Key"], Err(SseCError::Duplicate));
        check(Role::Object, &["x-amz-server-side-encryption-customer-keys"], Err(SseCError::UnknownHeader));
        check(Role::Object, &["x-amz-server-side-encryption-customer"], Err(SseCError::UnknownHeader));
        let copy = "x-amz-copy-source-server-side-encryption-customer-key";
        check(Role::Object, &[copy], Ok((false, false, false)));
        check(Role::CopySource, &[copy, KEY_HEADER], Ok((false, true, false)));
        check(
            Role::CopySource,
            &["x-amz-copy-source-server-side-encryption-customer-key-MD4"],
            Err(SseCError::UnknownHeader),
        );
    }

    #[test]
    fn what_is_sent_is_what_is_read() {
        let key = CustomerKey::new(*b"0123456789abcdef0123456789abcdef");
        let headers = Headers::new(&key);
        for role in [Role::Object, Role::CopySource] {
            let sent = headers.iter(role);
            assert!(sent.iter().all(|(name, _)| name.starts_with(role.prefix())));
            let triple =
                Triple::from_headers(role, sent.iter().map(|(name, value)| (*name, value.as_bytes()))).unwrap();
            assert_eq!(triple.for_write(), Ok(Some(CustomerKey::new(*key.expose()))));
        }
        assert_eq!(headers.iter(Role::Object)[1].1, KEY);
        assert_eq!(headers.iter(Role::Object)[2].1, MD5);
        assert_eq!(std::format!("{headers:?}"), "Headers(redacted)");
    }

    #[test]
    fn debug_shows_no_header_value() {
        let text = std::format!("{:?}", triple("AES256", KEY, MD5));
        assert!(!text.contains(KEY) && !text.contains(MD5), "{text}");
    }
}
