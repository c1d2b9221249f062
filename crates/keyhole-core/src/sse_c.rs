//! SSE-C request headers: algorithm, key and the key's MD5, for an object and for a copy source.
//!
//! A request with any of the three headers, or with a similar name, asks for encryption. All three
//! are then required, so that a missing, repeated or misspelt header never stores an object in
//! plaintext.

use base64ct::{Base64, Encoding};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::CustomerKey;
use crate::limits::KEY_LEN;

/// The only supported algorithm.
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

/// Prefix of the SSE-C header names for an object.
const OBJECT_PREFIX: &str = "x-amz-server-side-encryption-customer";
/// Prefix of the SSE-C header names for a copy source.
const COPY_SOURCE_PREFIX: &str = "x-amz-copy-source-server-side-encryption-customer";

/// The object whose key the SSE-C headers carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SseCTarget {
    /// The object that the request names.
    Object,
    /// The source object of a copy.
    CopySource,
}

impl SseCTarget {
    /// Returns the prefix of the header names, in lower case.
    pub const fn prefix(self) -> &'static str {
        match self {
            SseCTarget::Object => OBJECT_PREFIX,
            SseCTarget::CopySource => COPY_SOURCE_PREFIX,
        }
    }
}

/// Error in SSE-C headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SseCError {
    /// The key is missing.
    MissingKey,
    /// The MD5 of the key is missing.
    MissingKeyMd5,
    /// The algorithm is missing.
    MissingAlgorithm,
    /// The algorithm is not [`ALGORITHM`].
    Algorithm,
    /// The key is not the base64 encoding of 32 bytes.
    Key,
    /// The MD5 does not match the key.
    KeyMd5,
    /// On a read: the key is not the base64 encoding of 32 bytes, so it cannot be the object's key.
    WrongKey,
    /// A header is repeated.
    Duplicate,
    /// A header name has the SSE-C prefix but is not one of the three.
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

/// The three SSE-C headers of one target, as received.
///
/// ```
/// use keyhole_core::CustomerKey;
/// use keyhole_core::sse_c::{Headers, SseCHeaders, SseCTarget};
///
/// let sent = Headers::new(&CustomerKey::new([7; 32]));
/// let headers = sent.iter(SseCTarget::Object).map(|(name, value)| (name, value.as_bytes()));
/// let received = SseCHeaders::from_headers(SseCTarget::Object, headers.into_iter())?;
/// assert_eq!(received.for_write()?, Some(CustomerKey::new([7; 32])));
/// # Ok::<(), keyhole_core::sse_c::SseCError>(())
/// ```
#[derive(Clone, Copy, Default)]
pub struct SseCHeaders<'a> {
    /// Algorithm name.
    pub algorithm: Option<&'a [u8]>,
    /// Key in base64.
    pub key: Option<&'a [u8]>,
    /// MD5 of the key in base64.
    pub key_md5: Option<&'a [u8]>,
}

impl<'a> SseCHeaders<'a> {
    /// Finds the headers of `target` among the headers of a request. Names are case-insensitive.
    ///
    /// # Errors
    /// [`SseCError::Duplicate`] and [`SseCError::UnknownHeader`].
    pub fn from_headers(
        target: SseCTarget,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<SseCHeaders<'a>, SseCError> {
        let mut parsed = SseCHeaders::default();
        for (name, value) in headers {
            let Some(rest) = strip_prefix_ignore_case(name, target.prefix()) else { continue };
            let place = match rest {
                _ if rest.eq_ignore_ascii_case(b"-algorithm") => &mut parsed.algorithm,
                _ if rest.eq_ignore_ascii_case(b"-key") => &mut parsed.key,
                _ if rest.eq_ignore_ascii_case(b"-key-md5") => &mut parsed.key_md5,
                _ => return Err(SseCError::UnknownHeader),
            };
            if place.replace(value).is_some() {
                return Err(SseCError::Duplicate);
            }
        }
        Ok(parsed)
    }

    /// Returns whether all three headers are absent: the request does not use SSE-C.
    pub fn is_absent(&self) -> bool {
        self.algorithm.is_none() && self.key.is_none() && self.key_md5.is_none()
    }

    /// Returns the key for a write, or `None` if the request does not use SSE-C.
    ///
    /// Checks in the order of S3: missing key, MD5 or algorithm, then the values of algorithm, key
    /// and MD5.
    ///
    /// # Errors
    /// Every [`SseCError`] except `WrongKey`, `Duplicate` and `UnknownHeader`.
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
        // The sender knows its own key, so constant time is not required here; it costs nothing.
        if !is_md5 || !bool::from(sent.ct_eq(&key.md5())) {
            return Err(SseCError::KeyMd5);
        }
        Ok(Some(key))
    }

    /// Returns the key for a read. Like [`for_write`](Self::for_write), but reports a malformed key
    /// as the wrong key.
    ///
    /// # Errors
    /// As for [`for_write`](Self::for_write), with [`SseCError::WrongKey`] instead of
    /// [`SseCError::Key`].
    pub fn for_read(&self) -> Result<Option<CustomerKey>, SseCError> {
        self.for_write().map_err(|error| if error == SseCError::Key { SseCError::WrongKey } else { error })
    }
}

/// Prints which headers are present, without their values.
impl core::fmt::Debug for SseCHeaders<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SseCHeaders")
            .field("algorithm", &self.algorithm.is_some())
            .field("key", &self.key.is_some())
            .field("key_md5", &self.key_md5.is_some())
            .finish()
    }
}

/// Returns the base64 of the key's MD5, as the headers of requests and responses carry it.
pub fn key_md5_base64(key: &CustomerKey) -> heapless::String<KEY_MD5_BASE64_LEN> {
    let mut text = [0; KEY_MD5_BASE64_LEN];
    encode(&key.md5(), &mut text);
    // Base64 is ASCII, and the string has exactly its capacity.
    heapless::String::from_utf8(heapless::Vec::from_array(text)).unwrap_or_default()
}

/// The three SSE-C headers of a customer key, for clients. Wiped when dropped.
///
/// ```
/// use keyhole_core::CustomerKey;
/// use keyhole_core::sse_c::{Headers, SseCTarget};
///
/// let headers = Headers::new(&CustomerKey::new(*b"0123456789abcdef0123456789abcdef"));
/// for (name, value) in headers.iter(SseCTarget::Object) {
///     // Write `name: value` and CR LF.
///     # assert!(name.starts_with("x-amz-server-side-encryption-customer-") && !value.is_empty());
/// }
/// ```
pub struct Headers {
    key: Zeroizing<[u8; KEY_BASE64_LEN]>,
    key_md5: [u8; KEY_MD5_BASE64_LEN],
}

/// Length of a key, and of its MD5, in base64.
const KEY_BASE64_LEN: usize = KEY_LEN.div_ceil(3) * 4;
const KEY_MD5_BASE64_LEN: usize = 16usize.div_ceil(3) * 4;

impl Headers {
    /// Encodes the headers of a key.
    pub fn new(key: &CustomerKey) -> Self {
        let mut headers = Headers { key: Zeroizing::new([0; KEY_BASE64_LEN]), key_md5: [0; KEY_MD5_BASE64_LEN] };
        encode(key.expose(), &mut *headers.key);
        encode(&key.md5(), &mut headers.key_md5);
        headers
    }

    /// Returns the lower-case names and the values of the headers for `target`.
    pub fn iter(&self, target: SseCTarget) -> [(&'static str, &str); 3] {
        let text = |bytes| core::str::from_utf8(bytes).unwrap_or_default();
        let [algorithm, key, key_md5] = match target {
            SseCTarget::Object => [ALGORITHM_HEADER, KEY_HEADER, KEY_MD5_HEADER],
            SseCTarget::CopySource => {
                [COPY_SOURCE_ALGORITHM_HEADER, COPY_SOURCE_KEY_HEADER, COPY_SOURCE_KEY_MD5_HEADER]
            }
        };
        [(algorithm, ALGORITHM), (key, text(&*self.key)), (key_md5, text(&self.key_md5))]
    }
}

/// Prints the type name without the values.
impl core::fmt::Debug for Headers {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Headers(redacted)")
    }
}

/// Encodes base64 into a buffer of exactly the encoded length.
fn encode(bytes: &[u8], out: &mut [u8]) {
    let len = out.len();
    let encoded = Base64::encode(bytes, out).map(str::len);
    debug_assert_eq!(encoded, Ok(len));
}

fn decode_key(text: &[u8]) -> Option<CustomerKey> {
    // One byte more than a key, so that a longer input is detected.
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

    fn received<'a>(algorithm: &'a str, key: &'a str, md5: &'a str) -> SseCHeaders<'a> {
        let some = |text: &'a str| (text != "-").then_some(text.as_bytes());
        SseCHeaders { algorithm: some(algorithm), key: some(key), key_md5: some(md5) }
    }

    #[test]
    fn key_md5_is_encoded_in_base64() {
        let key = CustomerKey::new(*b"0123456789abcdef0123456789abcdef");
        assert_eq!(key_md5_base64(&key).as_str(), MD5);
    }

    #[test]
    fn header_errors_follow_the_order_of_s3() {
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
            let parsed = received(algorithm, key, md5);
            assert_eq!(parsed.for_write().map(|key| key.is_some()), expected, "{algorithm} {key} {md5}");
            let on_read = if expected == Err(E::Key) { Err(E::WrongKey) } else { expected };
            assert_eq!(parsed.for_read().map(|key| key.is_some()), on_read, "{algorithm} {key} {md5}");
        }
    }

    #[test]
    fn headers_are_found_by_target_or_rejected() {
        let check = |target, names: &[&'static str], expected: Result<(bool, bool, bool), SseCError>| {
            let headers: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, &b"x"[..])).collect();
            let found = SseCHeaders::from_headers(target, headers.into_iter());
            let found = found.map(|t| (t.algorithm.is_some(), t.key.is_some(), t.key_md5.is_some()));
            assert_eq!(found, expected, "{names:?}");
        };
        check(SseCTarget::Object, &["host", "x-amz-date", "x-amz-server-side-encryption"], Ok((false, false, false)));
        check(SseCTarget::Object, &[ALGORITHM_HEADER, KEY_HEADER, KEY_MD5_HEADER], Ok((true, true, true)));
        check(SseCTarget::Object, &["X-Amz-Server-Side-Encryption-Customer-Key"], Ok((false, true, false)));
        check(
            SseCTarget::Object,
            &[KEY_HEADER, "X-Amz-Server-Side-Encryption-Customer-Key"],
            Err(SseCError::Duplicate),
        );
        check(SseCTarget::Object, &["x-amz-server-side-encryption-customer-keys"], Err(SseCError::UnknownHeader));
        check(SseCTarget::Object, &["x-amz-server-side-encryption-customer"], Err(SseCError::UnknownHeader));
        let copy = "x-amz-copy-source-server-side-encryption-customer-key";
        check(SseCTarget::Object, &[copy], Ok((false, false, false)));
        check(SseCTarget::CopySource, &[copy, KEY_HEADER], Ok((false, true, false)));
        check(
            SseCTarget::CopySource,
            &["x-amz-copy-source-server-side-encryption-customer-key-MD4"],
            Err(SseCError::UnknownHeader),
        );
    }

    #[test]
    fn encoded_headers_parse_to_the_same_key() {
        let key = CustomerKey::new(*b"0123456789abcdef0123456789abcdef");
        let headers = Headers::new(&key);
        for target in [SseCTarget::Object, SseCTarget::CopySource] {
            let sent = headers.iter(target);
            assert!(sent.iter().all(|(name, _)| name.starts_with(target.prefix())));
            let parsed =
                SseCHeaders::from_headers(target, sent.iter().map(|(name, value)| (*name, value.as_bytes()))).unwrap();
            assert_eq!(parsed.for_write(), Ok(Some(CustomerKey::new(*key.expose()))));
        }
        assert_eq!(headers.iter(SseCTarget::Object)[1].1, KEY);
        assert_eq!(headers.iter(SseCTarget::Object)[2].1, MD5);
        assert_eq!(std::format!("{headers:?}"), "Headers(redacted)");
    }

    #[test]
    fn debug_shows_no_header_value() {
        let text = std::format!("{:?}", received("AES256", KEY, MD5));
        assert!(!text.contains(KEY) && !text.contains(MD5), "{text}");
    }
}
