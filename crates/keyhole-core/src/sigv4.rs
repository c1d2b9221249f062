//! AWS Signature Version 4 without an allocator: signs a request, or creates a presigned URL.
//!
//! Hashing and output are incremental, so no buffers are needed. Implements AWS, "Authenticating
//! Requests: Using the Authorization Header" and "Using Query Parameters". Unlike other AWS
//! services, S3 neither normalises paths nor encodes them twice.
//!
//! ```
//! use keyhole_core::sigv4::{PayloadHash, RequestToSign, Signer};
//!
//! let signer = Signer { access_key: "AKID", secret_key: "secret", region: "us-east-1" };
//! let date = "20260102T030405Z";
//! let headers = [
//!     ("host", "node:9000"),
//!     ("x-amz-content-sha256", PayloadHash::Unsigned.header_value()),
//!     ("x-amz-date", date),
//!     ("x-keyhole-sealed", "1"),
//! ];
//! let payload = PayloadHash::Unsigned;
//! let request = RequestToSign {
//!     method: "PUT",
//!     bucket: Some("edge"),
//!     key: "reading",
//!     query: &[],
//!     headers: &headers,
//!     payload,
//! };
//! println!("Authorization: {}", signer.authorize(&request, date)?);
//! # Ok::<(), keyhole_core::sigv4::SigV4Error>(())
//! ```

use core::cmp::Ordering;
use core::fmt::{self, Write as _};

use hmac::{Hmac, KeyInit, Mac};
use sha2::digest::Update;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Maximum lifetime of a presigned URL: one week, in seconds.
pub const EXPIRES_MAX_S: u32 = 7 * 24 * 3600;

/// A credential and its region. The caller wipes the secret key.
#[derive(Clone, Copy)]
pub struct Signer<'a> {
    /// Access key id, the public half of the credential.
    pub access_key: &'a str,
    /// Secret access key.
    pub secret_key: &'a str,
    /// Region that the node expects.
    pub region: &'a str,
}

/// Omits the secret key.
impl fmt::Debug for Signer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("access_key", &self.access_key)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// Payload hash of a request (`x-amz-content-sha256`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PayloadHash<'a> {
    /// `UNSIGNED-PAYLOAD`: suitable for sealed objects, which authenticate themselves.
    Unsigned,
    /// SHA-256 of the body, in lower-case hex.
    Sha256(&'a str),
}

impl<'a> PayloadHash<'a> {
    /// Returns the value of `x-amz-content-sha256`.
    pub const fn header_value(self) -> &'a str {
        match self {
            PayloadHash::Unsigned => "UNSIGNED-PAYLOAD",
            PayloadHash::Sha256(hex) => hex,
        }
    }
}

/// A request to be signed.
#[derive(Clone, Copy, Debug)]
pub struct RequestToSign<'a> {
    /// HTTP method, such as `PUT` or `GET`.
    pub method: &'a str,
    /// Bucket, if it is in the path; `None` if it is in the host name.
    pub bucket: Option<&'a str>,
    /// Object key, not percent-encoded. May be empty.
    pub key: &'a str,
    /// Names and values of the query, not percent-encoded, in byte order of the names as they are
    /// after encoding: characters that are encoded come before all others.
    pub query: &'a [(&'a str, &'a str)],
    /// Every signed header, including `host`: lower-case names in byte order, and values without
    /// leading, trailing or repeated spaces. The node rejects requests with unsigned `x-amz-` or
    /// `x-keyhole-` headers.
    pub headers: &'a [(&'a str, &'a str)],
    /// Payload hash. Presigned URLs require [`PayloadHash::Unsigned`].
    pub payload: PayloadHash<'a>,
}

/// Error signing a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SigV4Error {
    /// The date is not in the form `YYYYMMDDTHHMMSSZ`.
    Date,
    /// `host` is missing, headers or query are not in byte order, a header name is not lower case,
    /// or a header value contains surplus spaces or control characters.
    Headers,
    /// The lifetime of a presigned URL is not 1 to [`EXPIRES_MAX_S`] seconds, or its payload is
    /// signed.
    Presigned,
}

impl fmt::Display for SigV4Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SigV4Error::Date => "the date must be YYYYMMDDTHHMMSSZ",
            SigV4Error::Headers => {
                "headers need a host, lower-case names in byte order, and values without surplus spaces"
            }
            SigV4Error::Presigned => "a presigned URL is valid for one second to one week, with an unsigned payload",
        })
    }
}

impl core::error::Error for SigV4Error {}

impl RequestToSign<'_> {
    /// Returns the request path `/bucket/key`, percent-encoded.
    pub fn path(&self) -> impl fmt::Display {
        Path { bucket: self.bucket, key: self.key }
    }

    fn check(&self) -> Result<(), SigV4Error> {
        let is_name = |name: &str| {
            let token = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
            !name.is_empty() && name.bytes().all(token)
        };
        let is_value =
            |value: &str| value.trim_ascii() == value && !value.contains("  ") && !value.contains(char::is_control);
        let ascend = self.headers.windows(2).all(|pair| pair[0].0 < pair[1].0)
            && self.query.windows(2).all(|pair| encoded_order(pair[0].0, pair[1].0).is_lt());
        let has_host = self.headers.iter().any(|(name, _)| *name == "host");
        let is_valid = ascend && has_host && self.headers.iter().all(|(name, value)| is_name(name) && is_value(value));
        if is_valid { Ok(()) } else { Err(SigV4Error::Headers) }
    }
}

impl<'a> Signer<'a> {
    /// Signs a request and returns the value of its `Authorization` header.
    ///
    /// The headers must include `x-amz-date`, with the value `date`, and `x-amz-content-sha256`.
    ///
    /// # Errors
    /// [`SigV4Error::Date`], [`SigV4Error::Headers`].
    pub fn authorize<'r>(&self, request: &'r RequestToSign<'r>, date: &'r str) -> Result<Authorization<'r>, SigV4Error>
    where
        'a: 'r,
    {
        request.check()?;
        let scope = Scope::new(self, date)?;
        let has = |wanted: (&str, &str)| request.headers.contains(&wanted);
        if !has(("x-amz-date", date)) || !has(("x-amz-content-sha256", request.payload.header_value())) {
            return Err(SigV4Error::Headers);
        }
        let signature = scope.sign(self.secret_key, request, None);
        Ok(Authorization { scope, headers: SignedHeaders(request.headers), signature })
    }

    /// Signs a URL and returns its path and query.
    ///
    /// The URL permits its holder to send this one request, with these headers, for `expires_s`
    /// seconds.
    ///
    /// # Errors
    /// [`SigV4Error`].
    pub fn presign<'r>(
        &self,
        request: &'r RequestToSign<'r>,
        date: &'r str,
        expires_s: u32,
    ) -> Result<PresignedUrl<'r>, SigV4Error>
    where
        'a: 'r,
    {
        request.check()?;
        let scope = Scope::new(self, date)?;
        if !(1..=EXPIRES_MAX_S).contains(&expires_s) || request.payload != PayloadHash::Unsigned {
            return Err(SigV4Error::Presigned);
        }
        let signature = scope.sign(self.secret_key, request, Some(expires_s));
        Ok(PresignedUrl { scope, request, expires_s, signature })
    }
}

/// Credential scope of a signature.
#[derive(Clone, Copy)]
struct Scope<'a> {
    access_key: &'a str,
    date: &'a str,
    day: &'a str,
    region: &'a str,
}

impl<'a> Scope<'a> {
    fn new(signer: &Signer<'a>, date: &'a str) -> Result<Self, SigV4Error> {
        let is_date = date.len() == 16
            && date.bytes().enumerate().all(|(i, byte)| match i {
                8 => byte == b'T',
                15 => byte == b'Z',
                _ => byte.is_ascii_digit(),
            });
        if !is_date {
            return Err(SigV4Error::Date);
        }
        Ok(Scope { access_key: signer.access_key, date, day: &date[..8], region: signer.region })
    }

    /// Returns the binary signature for the header, or for a presigned URL if `expires_s` is set.
    fn sign(&self, secret_key: &str, request: &RequestToSign<'_>, expires_s: Option<u32>) -> [u8; 32] {
        let mut hash = TextDigest(Sha256::new());
        hash.put(format_args!("{}\n{}\n", request.method, request.path()));
        match expires_s {
            Some(expires_s) => hash.put(format_args!("{}\n", PresignedQuery { scope: self, request, expires_s })),
            None => hash.put(format_args!("{}\n", PlainQuery(request.query))),
        }
        for (name, value) in request.headers {
            hash.put(format_args!("{name}:{value}\n"));
        }
        hash.put(format_args!("\n{}\n{}", SignedHeaders(request.headers), request.payload.header_value()));
        let canonical = hash.0.finalize();

        // HMAC pads the first key to a block, or hashes a longer one (RFC 2104 §2). The key is text
        // of any length, so do the same here without an allocation.
        let mut first = Zeroizing::new([0; 64]);
        match first.get_mut(..4 + secret_key.len()) {
            Some(place) => {
                place[..4].copy_from_slice(b"AWS4");
                place[4..].copy_from_slice(secret_key.as_bytes());
            }
            None => {
                let mut digest = Sha256::new().chain_update(b"AWS4").chain_update(secret_key).finalize();
                first[..32].copy_from_slice(&digest);
                digest.as_mut_slice().zeroize();
            }
        }
        let mut key = Zeroizing::new(finish(hmac(&first[..]).chain_update(self.day)));
        for step in [self.region, "s3", "aws4_request"] {
            *key = finish(hmac(&key[..]).chain_update(step));
        }
        let mut mac = TextDigest(hmac(&key[..]));
        let Scope { date, day, region, .. } = self;
        mac.put(format_args!("{ALGORITHM}\n{date}\n{day}/{region}/s3/aws4_request\n{}", Hex(&canonical)));
        finish(mac.0)
    }
}

/// A hash as the target of formatted text.
struct TextDigest<D>(D);

impl<D: Update> TextDigest<D> {
    fn put(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a hash cannot fail.
        let _ = fmt::Write::write_fmt(self, text);
    }
}

impl<D: Update> fmt::Write for TextDigest<D> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

fn hmac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn finish(mac: Hmac<Sha256>) -> [u8; 32] {
    mac.finalize().into_bytes().into()
}

/// Formats `access key/day/region/s3/aws4_request`.
impl fmt::Display for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/s3/aws4_request", self.access_key, self.day, self.region)
    }
}

/// Value of an `Authorization` header.
pub struct Authorization<'r> {
    scope: Scope<'r>,
    headers: SignedHeaders<'r>,
    signature: [u8; 32],
}

impl fmt::Display for Authorization<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Authorization { scope, headers, signature } = self;
        write!(f, "{ALGORITHM} Credential={scope},SignedHeaders={headers},Signature={}", Hex(signature))
    }
}

/// Path and query of a presigned URL. The text is secret until it expires; only `Display` exposes
/// it.
pub struct PresignedUrl<'r> {
    scope: Scope<'r>,
    request: &'r RequestToSign<'r>,
    expires_s: u32,
    signature: [u8; 32],
}

impl fmt::Display for PresignedUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PresignedUrl { scope, request, expires_s, signature } = self;
        let query = PresignedQuery { scope, request, expires_s: *expires_s };
        write!(f, "{}?{query}&X-Amz-Signature={}", request.path(), Hex(signature))
    }
}

struct Path<'a> {
    bucket: Option<&'a str>,
    key: &'a str,
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(bucket) = self.bucket {
            write!(f, "/{}", Encoded(bucket, ""))?;
        }
        write!(f, "/{}", Encoded(self.key, "/"))
    }
}

/// Query of a presigned URL without the signature, in byte order of the names.
struct PresignedQuery<'a> {
    scope: &'a Scope<'a>,
    request: &'a RequestToSign<'a>,
    expires_s: u32,
}

impl fmt::Display for PresignedQuery<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders"];
        let mut own = self.request.query.iter().peekable();
        let mut separator = "";
        for (i, name) in names.into_iter().enumerate() {
            while let Some((own_name, value)) = own.next_if(|(own_name, _)| encoded_order(own_name, name).is_lt()) {
                write!(f, "{separator}{}={}", Encoded(own_name, ""), Encoded(value, ""))?;
                separator = "&";
            }
            write!(f, "{separator}{name}=")?;
            separator = "&";
            match i {
                0 => f.write_str(ALGORITHM)?,
                1 => {
                    let Scope { access_key, day, region, .. } = self.scope;
                    write!(f, "{}%2F{day}%2F{}%2Fs3%2Faws4_request", Encoded(access_key, ""), Encoded(region, ""))?;
                }
                2 => f.write_str(self.scope.date)?,
                3 => write!(f, "{}", self.expires_s)?,
                _ => SignedHeaders(self.request.headers).write(f, "%3B")?,
            }
        }
        own.try_for_each(|(name, value)| write!(f, "&{}={}", Encoded(name, ""), Encoded(value, "")))
    }
}

struct PlainQuery<'a>(&'a [(&'a str, &'a str)]);

impl fmt::Display for PlainQuery<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(i, (name, value))| {
            write!(f, "{}{}={}", if i > 0 { "&" } else { "" }, Encoded(name, ""), Encoded(value, ""))
        })
    }
}

#[derive(Clone, Copy)]
struct SignedHeaders<'a>(&'a [(&'a str, &'a str)]);

impl SignedHeaders<'_> {
    fn write(&self, f: &mut fmt::Formatter<'_>, separator: &str) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(i, (name, _))| {
            f.write_str(if i > 0 { separator } else { "" })?;
            f.write_str(name)
        })
    }
}

impl fmt::Display for SignedHeaders<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, ";")
    }
}

/// Returns whether this is an unreserved character (RFC 3986 section 2.3).
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Compares two names as they are after percent-encoding. `%` sorts before all unreserved
/// characters, and two encoded bytes sort as the bytes themselves.
fn encoded_order(a: &str, b: &str) -> Ordering {
    let order = |byte: u8| (is_unreserved(byte), byte);
    a.bytes().map(order).cmp(b.bytes().map(order))
}

/// Percent-encodes all bytes except RFC 3986's unreserved characters and those of the second
/// string.
struct Encoded<'a>(&'a str, &'a str);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stays = |byte: u8| is_unreserved(byte) || self.1.as_bytes().contains(&byte);
        self.0.bytes().try_for_each(
            |byte| {
                if stays(byte) { f.write_char(char::from(byte)) } else { write!(f, "%{byte:02X}") }
            },
        )
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const DATE: &str = "20130524T000000Z";
    const HOST: (&str, &str) = ("host", "examplebucket.s3.amazonaws.com");
    const EXAMPLE: Signer<'static> = Signer {
        access_key: "AKIAIOSFODNN7EXAMPLE",
        secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        region: "us-east-1",
    };

    fn get<'a>(key: &'a str, query: &'a [(&'a str, &'a str)], headers: &'a [(&'a str, &'a str)]) -> RequestToSign<'a> {
        RequestToSign { method: "GET", bucket: None, key, query, headers, payload: PayloadHash::Sha256(EMPTY) }
    }

    fn check(request: &RequestToSign<'_>, signature: &str) {
        let authorization = EXAMPLE.authorize(request, DATE).unwrap().to_string();
        assert!(authorization.ends_with(&["Signature=", signature].concat()), "{authorization}");
    }

    /// Examples of AWS, "Signature Calculations for the Authorization Header".
    #[test]
    fn published_requests_get_their_signatures() {
        let content = ("x-amz-content-sha256", EMPTY);
        let date = ("x-amz-date", DATE);
        let with_range = [HOST, ("range", "bytes=0-9"), content, date];
        let range = get("test.txt", &[], &with_range);
        check(&range, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
        assert_eq!(
            EXAMPLE.authorize(&range, DATE).unwrap().to_string(),
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
            SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,\
            Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        let body = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
        let put_headers = [
            ("date", "Fri, 24 May 2013 00:00:00 GMT"),
            HOST,
            ("x-amz-content-sha256", body),
            date,
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ];
        let put = RequestToSign {
            method: "PUT",
            payload: PayloadHash::Sha256(body),
            ..get("test$file.text", &[], &put_headers)
        };
        check(&put, "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
        let plain = [HOST, content, date];
        check(
            &get("", &[("lifecycle", "")], &plain),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        );
        let list = [("max-keys", "2"), ("prefix", "J")];
        check(&get("", &list, &plain), "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
    }

    /// Example of AWS, "Authenticating Requests: Using Query Parameters".
    #[test]
    fn published_url_gets_its_signature() {
        let headers = [HOST];
        let request = RequestToSign { payload: PayloadHash::Unsigned, ..get("test.txt", &[], &headers) };
        assert_eq!(
            EXAMPLE.presign(&request, DATE, 86400).unwrap().to_string(),
            "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256\
            &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z\
            &X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
            &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
        );
    }

    #[test]
    fn presigned_query_is_in_byte_order() {
        let headers = [HOST, ("x-keyhole-sealed", "1")];
        let query = [("A", "1"), ("X-Amz-Dated", "ü"), ("partNumber", "1")];
        let request = RequestToSign { payload: PayloadHash::Unsigned, ..get("a b/c", &query, &headers) };
        let url = EXAMPLE.presign(&request, DATE, 1).unwrap().to_string();
        assert!(url.starts_with("/a%20b/c?A=1&X-Amz-Algorithm="), "{url}");
        assert!(url.contains("&X-Amz-Date=20130524T000000Z&X-Amz-Dated=%C3%BC&X-Amz-Expires=1&"), "{url}");
        assert!(url.contains("X-Amz-SignedHeaders=host%3Bx-keyhole-sealed&partNumber=1&X-Amz-Signature="), "{url}");
    }

    /// AWS, "Create a signed AWS API request": the sorting occurs after encoding.
    #[test]
    fn query_is_sorted_by_encoded_names() {
        let names = ["!", "+", "`", "ü", "-", ".", "0", "A", "X-Amz-A", "_", "_`", "_a", "a", "~"];
        assert!(names.map(|name| Encoded(name, "").to_string()).is_sorted());
        let query = names.map(|name| (name, ""));
        let headers = [HOST];
        let request = RequestToSign { payload: PayloadHash::Unsigned, ..get("a", &query, &headers) };
        let url = EXAMPLE.presign(&request, DATE, 1).unwrap().to_string();
        let (_, signed) = url.split_once('?').unwrap();
        let (signed, _) = signed.split_once("&X-Amz-Signature=").unwrap();
        assert!(signed.split('&').map(|pair| pair.split_once('=').unwrap().0).is_sorted(), "{signed}");
        let swapped = [("a", ""), ("`", "")];
        let request = RequestToSign { query: &swapped, ..request };
        assert_eq!(EXAMPLE.presign(&request, DATE, 1).err(), Some(SigV4Error::Headers));
    }

    #[test]
    fn secret_keys_of_any_length_are_accepted() {
        let headers = [HOST, ("x-amz-content-sha256", EMPTY), ("x-amz-date", DATE)];
        let request = get("a", &[], &headers);
        let long = "s".repeat(100);
        let mut seen = std::vec::Vec::new();
        for len in [0, 1, 59, 60, 61, 100] {
            let signer = Signer { secret_key: &long[..len], ..EXAMPLE };
            // Derives the first key by HMAC itself, for comparison.
            let first = ["AWS4", &long[..len]].concat();
            let mut key = finish(hmac(first.as_bytes()).chain_update("20130524"));
            for step in ["us-east-1", "s3", "aws4_request"] {
                key = finish(hmac(&key).chain_update(step));
            }
            let mut canonical = TextDigest(Sha256::new());
            canonical
                .put(format_args!("GET\n/a\n\nhost:{}\nx-amz-content-sha256:{EMPTY}\nx-amz-date:{DATE}\n\n", HOST.1));
            canonical.put(format_args!("host;x-amz-content-sha256;x-amz-date\n{EMPTY}"));
            let mut text = TextDigest(hmac(&key));
            text.put(format_args!(
                "{ALGORITHM}\n{DATE}\n20130524/us-east-1/s3/aws4_request\n{}",
                Hex(&canonical.0.finalize())
            ));
            let expected = finish(text.0);
            assert_eq!(signer.authorize(&request, DATE).unwrap().signature, expected, "{len}");
            assert!(!seen.contains(&expected));
            seen.push(expected);
        }
    }

    #[test]
    fn invalid_requests_are_not_signed() {
        let content = ("x-amz-content-sha256", EMPTY);
        let date = ("x-amz-date", DATE);
        for headers in [
            &[content, date][..],
            &[HOST, date],
            &[HOST, content],
            &[HOST, content, ("x-amz-date", "20130525T000000Z")],
            &[content, HOST, date],
            &[HOST, HOST, content, date],
            &[("Host", "a"), HOST, content, date],
            &[("a", "two  spaces"), HOST, content, date],
            &[("a", " b"), HOST, content, date],
            &[("a", "b\n"), HOST, content, date],
            &[("", "b"), HOST, content, date],
        ] {
            assert_eq!(
                EXAMPLE.authorize(&get("a", &[], headers), DATE).err(),
                Some(SigV4Error::Headers),
                "{headers:?}"
            );
        }
        let headers = [HOST, content, date];
        for date in ["", "20130524", "2013-05-24T00:00", "20130524T000000z", "20130524T0000000Z", "2013052ü000000Z"] {
            assert_eq!(EXAMPLE.authorize(&get("a", &[], &headers), date).err(), Some(SigV4Error::Date), "{date}");
        }
        let unsigned = RequestToSign { payload: PayloadHash::Unsigned, ..get("a", &[], &headers) };
        for (request, expires_s) in [(unsigned, 0), (unsigned, EXPIRES_MAX_S + 1), (get("a", &[], &headers), 1)] {
            assert_eq!(EXAMPLE.presign(&request, DATE, expires_s).err(), Some(SigV4Error::Presigned));
        }
    }
}
