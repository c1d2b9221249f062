//! The rules of SSE-C over HTTP: which requests need a customer key, and the errors for wrong ones,
//! in the order in which S3 checks them.

use keyhole_core::CustomerKey;
use keyhole_core::sse_c::{self, KEY_HEADER, KEY_MD5_HEADER, SseCError, SseCHeaders, SseCTarget};

use crate::http::RequestHead;
use crate::{Error, ErrorCode};

/// The header that requests encryption with server-managed keys.
const MANAGED_HEADER: &str = "x-amz-server-side-encryption";
/// All headers of encryption with managed keys ("Specifying server-side encryption with AWS KMS" in
/// the S3 guide).
const MANAGED: [&str; 4] = [
    MANAGED_HEADER,
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-context",
    "x-amz-server-side-encryption-bucket-key-enabled",
];

/// Prefixes of all encryption headers, known or not.
const PREFIXES: [&str; 2] = [MANAGED_HEADER, "x-amz-copy-source-server-side-encryption"];
const SSE_C_HEADERS: [&str; 6] = [
    sse_c::ALGORITHM_HEADER,
    KEY_HEADER,
    KEY_MD5_HEADER,
    sse_c::COPY_SOURCE_ALGORITHM_HEADER,
    sse_c::COPY_SOURCE_KEY_HEADER,
    sse_c::COPY_SOURCE_KEY_MD5_HEADER,
];
/// Edit distance up to which an unknown header counts as a misspelt SSE-C header.
const TYPOS_MAX: usize = 3;

/// The SSE-C headers of a request: those of the object, and those of the source of a copy.
///
/// Errors of the headers are reported by the method that needs them, because S3 checks other things
/// first.
#[derive(Debug)]
pub struct RequestSseC<'h> {
    head: &'h RequestHead,
    is_secure: bool,
    object: Result<SseCHeaders<'h>, SseCError>,
    copy_source: Result<SseCHeaders<'h>, SseCError>,
}

impl<'h> RequestSseC<'h> {
    /// Parses the headers. `is_secure`: the connection admits customer keys.
    pub fn parse(head: &'h RequestHead, is_secure: bool) -> Self {
        // A misspelt header of either target is an error: ignoring it would store the object in
        // plaintext.
        let is_misspelt = head.headers.iter().any(|(name, _)| is_misspelt(name));
        let parse = |target| {
            let headers = SseCHeaders::from_headers(target, head.headers.iter())?;
            if is_misspelt { Err(SseCError::UnknownHeader) } else { Ok(headers) }
        };
        let object = parse(SseCTarget::Object);
        let copy_source = parse(SseCTarget::CopySource);
        RequestSseC { head, is_secure, object, copy_source }
    }

    /// Returns whether the request has any SSE-C header of this target, valid or not.
    pub fn has_headers(&self, target: SseCTarget) -> bool {
        self.parsed(target).map_or(true, |headers| !headers.is_absent())
    }

    /// Returns the key to write with, or `None` if the request has no SSE-C headers.
    ///
    /// # Errors
    /// An insecure connection, managed keys, both kinds at once, a missing header, or an invalid
    /// algorithm, key or MD5.
    pub fn write_key(&self) -> Result<Option<Box<CustomerKey>>, Error> {
        let headers = self.headers(SseCTarget::Object)?;
        if let Some(value) = managed(self.head) {
            if headers.is_absent() {
                let message =
                    "Server-side encryption with managed keys is not supported. Use customer-provided keys (SSE-C).";
                return Err(Error::new(ErrorCode::NotImplemented).with_message(message));
            }
            let message = "Server Side Encryption with Customer provided key is incompatible with the encryption method specified";
            return Err(argument(message).with_echo("ArgumentValue", value));
        }
        headers.for_write().map(boxed).map_err(|error| described(error, &headers))
    }

    /// Rejects a copy-source key without a copy source on a plaintext write. It may be the key to
    /// write with, sent under the wrong header names.
    ///
    /// # Errors
    /// `InvalidRequest`, and the errors of [`read_headers`](Self::read_headers).
    pub fn refuse_stray_copy_source_key(&self) -> Result<(), Error> {
        let is_copy = self.head.headers.get("x-amz-copy-source").is_some();
        if is_copy || self.read_headers(SseCTarget::CopySource)?.is_absent() {
            return Ok(());
        }
        Err(Error::new(ErrorCode::InvalidRequest).with_message(
            "The request has the customer-provided key of a copy's source, and no source and no key to write with. The \
            headers of the latter are x-amz-server-side-encryption-customer-algorithm, -key and -key-MD5.",
        ))
    }

    /// Returns the SSE-C headers of a target on a read.
    ///
    /// # Errors
    /// An insecure connection, and repeated or misspelt headers.
    pub fn read_headers(&self, target: SseCTarget) -> Result<ReadKeyHeaders<'h>, Error> {
        Ok(ReadKeyHeaders(self.headers(target)?))
    }

    fn parsed(&self, target: SseCTarget) -> Result<SseCHeaders<'h>, SseCError> {
        match target {
            SseCTarget::Object => self.object,
            SseCTarget::CopySource => self.copy_source,
        }
    }

    fn headers(&self, target: SseCTarget) -> Result<SseCHeaders<'h>, Error> {
        if self.has_headers(target) && !self.is_secure {
            return Err(Error::new(ErrorCode::InvalidRequest).with_message(
                "Requests specifying Server Side Encryption with Customer provided keys must be made over a secure \
                connection.",
            ));
        }
        self.parsed(target).map_err(|error| described(error, &SseCHeaders::default()))
    }
}

/// The SSE-C headers of a read. Only the connection has been checked; other errors are reported
/// after the object is found.
pub struct ReadKeyHeaders<'h>(SseCHeaders<'h>);

impl ReadKeyHeaders<'_> {
    /// Returns whether the request has none of the headers.
    pub fn is_absent(&self) -> bool {
        self.0.is_absent()
    }

    /// Returns the key to read the object with: required for a sealed object, rejected for others.
    ///
    /// # Errors
    /// A missing or unexpected key, then invalid headers.
    pub fn key_for(&self, sealed: bool) -> Result<Option<Box<CustomerKey>>, Error> {
        match (sealed, self.0.is_absent()) {
            (true, true) => Err(Error::new(ErrorCode::InvalidRequest).with_message(
                "The object was stored using a form of Server Side Encryption. \
                The correct parameters must be provided to retrieve the object.",
            )),
            (false, false) => Err(Error::new(ErrorCode::InvalidRequest)
                .with_message("The encryption parameters are not applicable to this object.")),
            _ => self.0.for_read().map(boxed).map_err(|error| described(error, &self.0)),
        }
    }
}

/// Boxes a key, so that its owners move a pointer and leave no copies behind.
fn boxed(key: Option<CustomerKey>) -> Option<Box<CustomerKey>> {
    key.map(Box::new)
}

/// Returns the error for a key that does not open the object.
pub fn wrong_key() -> Error {
    Error::new(ErrorCode::AccessDenied).with_message(
        "Requests specifying Server Side Encryption with Customer provided keys must provide the correct secret key.",
    )
}

/// Returns the error for a part with a key to an upload without one, or the reverse.
pub fn part_mismatch() -> Error {
    Error::new(ErrorCode::InvalidRequest).with_message(
        "The multipart upload initiate requested encryption. \
        Subsequent part requests must include the appropriate encryption parameters.",
    )
}

/// Returns the error for a part under another key than its upload.
pub fn part_key() -> Error {
    Error::new(ErrorCode::InvalidRequest)
        .with_message("The provided encryption parameters did not match the ones used originally.")
}

/// Returns the error for a missing key.
pub fn key_required() -> Error {
    argument(
        "Requests specifying Server Side Encryption with Customer provided keys must provide an appropriate secret key.",
    )
}

/// Returns the SSE-C response headers: the algorithm and the MD5 of the key.
pub fn response_headers(key: &CustomerKey) -> [(&'static str, String); 2] {
    [
        (sse_c::ALGORITHM_HEADER, sse_c::ALGORITHM.to_owned()),
        (KEY_MD5_HEADER, sse_c::key_md5_base64(key).as_str().to_owned()),
    ]
}

fn argument(message: &'static str) -> Error {
    Error::new(ErrorCode::InvalidArgument).with_message(message).with_field("ArgumentName", MANAGED_HEADER)
}

fn managed(head: &RequestHead) -> Option<String> {
    let value = MANAGED.into_iter().find_map(|name| head.headers.get(name));
    value.map(|value| String::from_utf8_lossy(value).into_owned())
}

/// Returns whether a lower-case name is that of an SSE-C header.
pub(crate) fn is_customer_key_header(name: &str) -> bool {
    SSE_C_HEADERS.contains(&name)
}

/// Rejects a lower-case header name that looks like an SSE-C header and is none: the object would be
/// stored in plaintext.
///
/// # Errors
/// `InvalidArgument`.
pub(crate) fn refuse_misspelt(name: &str) -> Result<(), Error> {
    if is_misspelt(name) { Err(described(SseCError::UnknownHeader, &SseCHeaders::default())) } else { Ok(()) }
}

/// Returns whether a lower-case header name is probably a misspelt SSE-C header.
fn is_misspelt(name: &str) -> bool {
    if !may_be_misspelt(name) {
        return false;
    }
    if MANAGED.contains(&name) || SSE_C_HEADERS.contains(&name) || name.starts_with("x-amz-meta-") {
        return false;
    }
    let squeezed = squeeze(name);
    if has_words_of_key(&squeezed) {
        return true;
    }
    let is_close = |other: &&str| {
        // Most names differ too much in length to compare.
        name.len().abs_diff(other.len()) <= TYPOS_MAX && strsim::osa_distance(name, other) <= TYPOS_MAX
    };
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || SSE_C_HEADERS.iter().any(is_close)
}

/// Returns whether a name has all letters of one of the words that every misspelt name has, or is
/// about as long as an SSE-C header. Most names are neither, and are not compared further.
fn may_be_misspelt(name: &str) -> bool {
    const WORDS: [u64; 4] = [letters(b"key"), letters(b"algorithm"), letters(b"md5"), letters(b"encrypt")];
    let found = letters(name.as_bytes());
    name.len() >= KEY_HEADER.len() - TYPOS_MAX || WORDS.iter().any(|word| found & word == *word)
}

/// Returns the set of the characters in a name, as bits: letters below the others.
const fn letters(name: &[u8]) -> u64 {
    let mut found = 0;
    let mut i = 0;
    while i < name.len() {
        let byte = name[i];
        found |= 1 << if byte >= b'A' { byte & 31 } else { 32 | byte & 31 };
        i += 1;
    }
    found
}

/// Removes everything but letters and digits, so that `_`, `.` and missing hyphens do not matter.
fn squeeze(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// Returns whether a squeezed name has the words of a customer key header, of S3 or of a similar
/// service, in any order and with others between them.
fn has_words_of_key(name: &str) -> bool {
    let has = |word: &str| name.contains(word);
    let has_any = |words: &[&str]| words.iter().any(|word| has(word));
    let starts = ["ssec", "xssec", "amzssec", "xamzssec"];
    let is_part = has_any(&["key", "algorithm", "md5"]);
    is_part && has("customer") && has_any(&["encrypt", "sse", "amz"])
        || is_part && starts.iter().any(|start| name.starts_with(start))
        || has("serverside") && has("encrypt")
        || has_any(&["encryptionkey", "encryptionalgorithm"])
}

fn described(error: SseCError, headers: &SseCHeaders<'_>) -> Error {
    match error {
        SseCError::MissingKey => key_required(),
        SseCError::MissingKeyMd5 => argument(
            "Requests specifying Server Side Encryption with Customer provided keys must provide \
            the client calculated MD5 of the secret key.",
        ),
        SseCError::MissingAlgorithm => argument(
            "Requests specifying Server Side Encryption with Customer provided keys must provide \
            a valid encryption algorithm.",
        ),
        SseCError::Algorithm => Error::new(ErrorCode::InvalidEncryptionAlgorithmError)
            .with_field("ArgumentName", MANAGED_HEADER)
            .with_echo("ArgumentValue", String::from_utf8_lossy(headers.algorithm.unwrap_or_default())),
        SseCError::Key => argument("The secret key was invalid for the specified algorithm."),
        SseCError::KeyMd5 => argument("The calculated MD5 hash of the key did not match the hash that was provided."),
        SseCError::WrongKey => wrong_key(),
        SseCError::Duplicate => argument("A customer-provided key header is given twice. Send each once."),
        _ => argument(
            "Unknown customer-provided key header. \
            The headers are x-amz-server-side-encryption-customer-algorithm, -key and -key-MD5.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::head;

    const ALGORITHM: &str = "\nx-amz-server-side-encryption-customer-algorithm: AES256";
    const KEY: &str = "\nx-amz-server-side-encryption-customer-key: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    const MD5: &str = "\nx-amz-server-side-encryption-customer-key-MD5: hRasmdxgYDKV3nvbahU1MA==";
    const KMS: &str = "\nx-amz-server-side-encryption: aws:kms";

    fn write(headers: &str, secure: bool) -> Result<bool, (ErrorCode, String)> {
        RequestSseC::parse(&head(&format!("PUT /b/k HTTP/1.1{headers}")), secure)
            .write_key()
            .map(|key| key.is_some())
            .map_err(|error| (error.code, error.message.into_owned()))
    }

    #[test]
    fn write_headers_are_checked_in_the_order_of_s3() {
        let check = |headers: &[&str], secure, expected: Result<bool, (ErrorCode, &str)>| {
            let got = write(&headers.concat(), secure);
            match (got, expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{headers:?}"),
                (Err((code, message)), Err((expected, words))) => {
                    assert!(code == expected && message.contains(words), "{headers:?}: {code:?} {message}");
                }
                (got, _) => panic!("{headers:?}: {got:?}"),
            }
        };
        use ErrorCode as C;
        check(&[], true, Ok(false));
        check(&[], false, Ok(false));
        check(&[ALGORITHM, KEY, MD5], true, Ok(true));
        check(&[ALGORITHM, KEY, MD5, KMS], false, Err((C::InvalidRequest, "secure connection")));
        check(&[MD5], false, Err((C::InvalidRequest, "secure connection")));
        check(&[KMS], true, Err((C::NotImplemented, "managed keys")));
        check(&["\nx-amz-server-side-encryption: AES256"], true, Err((C::NotImplemented, "managed keys")));
        check(&[ALGORITHM, KMS], true, Err((C::InvalidArgument, "incompatible")));
        check(&[ALGORITHM, MD5], true, Err((C::InvalidArgument, "appropriate secret key")));
        check(&[ALGORITHM, KEY], true, Err((C::InvalidArgument, "calculated MD5 of the secret key")));
        check(&[KEY, MD5], true, Err((C::InvalidArgument, "valid encryption algorithm")));
        check(
            &[&ALGORITHM.replace("256", "512"), KEY, MD5],
            true,
            Err((C::InvalidEncryptionAlgorithmError, "AES256.")),
        );
        check(
            &[ALGORITHM, &KEY.replace("MDE", "MD"), MD5],
            true,
            Err((C::InvalidArgument, "invalid for the specified")),
        );
        check(&[ALGORITHM, KEY, &MD5.replace("hR", "hS")], true, Err((C::InvalidArgument, "did not match the hash")));
        check(&["\nx-amz-server-side-encryption-customer-kye: a"], true, Err((C::InvalidArgument, "Unknown")));
        check(&["\nx-amz-sever-side-encryption-customer-key: a"], true, Err((C::InvalidArgument, "Unknown")));
        check(&["\nx-amz-server-side-encryption-aws-kms-key-id: a"], true, Err((C::NotImplemented, "managed keys")));
    }

    #[test]
    fn read_headers_are_checked_in_the_order_of_s3() {
        let read = |headers: &str, sealed, secure| {
            let head = head(&format!("GET /b/k HTTP/1.1{headers}"));
            RequestSseC::parse(&head, secure)
                .read_headers(SseCTarget::Object)
                .and_then(|headers| headers.key_for(sealed).map(|key| key.is_some()))
                .map_err(|error| (error.code, error.message.into_owned()))
        };
        let all = [ALGORITHM, KEY, MD5].concat();
        assert_eq!(read("", false, false), Ok(false));
        assert_eq!(read(&all, true, true), Ok(true));
        let code = |result: Result<bool, (ErrorCode, String)>| result.unwrap_err().0;
        assert_eq!(code(read(&all, true, false)), ErrorCode::InvalidRequest);
        assert!(read("", true, true).unwrap_err().1.contains("correct parameters"));
        assert!(read(MD5, false, true).unwrap_err().1.contains("not applicable"));
        assert_eq!(code(read(MD5, true, true)), ErrorCode::InvalidArgument);
        let short = [ALGORITHM, "\nx-amz-server-side-encryption-customer-key: MDEy", MD5].concat();
        assert_eq!(code(read(&short, true, true)), ErrorCode::AccessDenied);
    }

    #[test]
    fn misspelt_header_names_are_detected() {
        for name in SSE_C_HEADERS.into_iter().chain(MANAGED) {
            assert!(!is_misspelt(name), "{name}");
        }
        // The most typos accepted in a name without its distinctive words, and one more.
        let typed = |typos: &str| KEY_HEADER.replace("customer", "custmer").replace("server", typos);
        for (typos, is) in [("servr", true), ("servxy", true), ("serxyz", false), ("", false)] {
            assert_eq!(is_misspelt(&typed(typos)), is, "{typos}");
        }
        // The shortest name that is compared for its length alone, and one that is not.
        let shortest = KEY_HEADER.len() - TYPOS_MAX;
        assert!(may_be_misspelt(&"a".repeat(shortest)) && !may_be_misspelt(&"a".repeat(shortest - 1)));
        assert!(
            !["host", "user-agent", "authorization", "x-amz-date", "x-amz-content-sha256"]
                .into_iter()
                .any(may_be_misspelt)
        );
        for name in [
            "x-amz-sse-customer-key",
            "x-amz-ssec-key",
            "sse-c-key",
            "ssecustomerkeymd5",
            "x_amz_server_side_encryption_customer_key",
            "x-amz-server_side-encryption-customer-algorithm",
            "amz-server-side-encryption-customer-key",
            "server-side-encryption-customer-key",
            "x-amz-customer-key",
            "x-amz-encryption-customer-key-md5",
            "x-amzn-server-side-encryption-customer-key",
            "x-goog-encryption-key",
            "x-ms-encryption-algorithm",
        ] {
            assert!(is_misspelt(name), "{name}");
        }
        for name in ["x-customer-id", "x-access-secret-key", "authorization", "access-control-request-headers"] {
            assert!(!is_misspelt(name), "{name}");
        }
        assert!(is_misspelt("x-amz-copy-source-server-side-encryption-customer-md5"));
        assert!(!is_misspelt("x-amz-meta-server-side-encryption-customer-algorithm"), "metadata names are free");
        assert!(!is_misspelt("x-amz-copy-source-if-unmodified-since"));
    }

    #[test]
    fn argument_errors_name_the_header() {
        let text = format!("PUT /b/k HTTP/1.1{ALGORITHM}{MD5}");
        let error = RequestSseC::parse(&head(&text), true).write_key().unwrap_err();
        assert_eq!(error.fields, [("ArgumentName", "x-amz-server-side-encryption".to_owned())]);
    }
}
