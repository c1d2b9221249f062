//! Signature Version 4: in the `Authorization` header (AWS, "Authenticating Requests: Using the
//! Authorization Header"), in presigned URLs ("Using Query Parameters"), and for form policies
//! ("Browser-Based Uploads Using POST").
//!
//! Unlike other AWS services, S3 neither normalises paths nor encodes them twice.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, percent_encode};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::http::{Headers, RequestHead, has_run_of_spaces, is_list, is_own};
use crate::limits::{CLOCK_SKEW_MAX_MS, HEADERS_MAX, PRESIGNED_MAX_S, SIGNED_HEADERS_MAX, SIGNING_KEYS_MAX};
use crate::query::{ENCODED, Query};
use crate::time::{iso8601, parse_amz_date};
use crate::{Error, ErrorCode};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const TERMINATOR: &str = "aws4_request";

/// Characters encoded in canonical paths, which keep their slashes.
pub(crate) const ENCODED_IN_PATH: AsciiSet = ENCODED.remove(b'/');

/// A secret access key; wiped on drop, never printed.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SecretKey(String);

impl SecretKey {
    /// Wraps a secret.
    pub fn new(secret: String) -> Self {
        SecretKey(secret)
    }

    /// Returns the secret, for signing or for the operator's own file.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Redacts the secret.
impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(redacted)")
    }
}

/// Lookup of secret access keys.
pub trait Credentials {
    /// Returns the secret of an access key, if the key exists.
    fn secret(&self, access_key: &str) -> Option<&SecretKey>;
}

/// The signer of a request, and how its body is signed.
#[derive(Debug)]
pub struct Identity {
    /// The access key.
    pub access_key: String,
    /// How the body is signed: input for the [`BodyDecoder`](crate::body::BodyDecoder).
    pub body: BodySignature,
}

/// How a body is framed and signed, from `x-amz-content-sha256`.
#[derive(Clone, Debug)]
pub struct BodySignature(pub(crate) BodySignatureKind);

#[derive(Clone, Debug)]
pub(crate) enum BodySignatureKind {
    /// The SHA-256 of the body.
    Signed(Box<[u8; 32]>),
    /// `UNSIGNED-PAYLOAD`
    Unsigned,
    /// `STREAMING-...`: chunks, optionally signed, optionally with a trailer.
    Streaming { signer: Option<ChunkSigner>, trailer: bool },
}

/// Computes the chained signatures of a body's chunks.
#[derive(Clone)]
pub(crate) struct ChunkSigner {
    key: Zeroizing<[u8; 32]>,
    date: String,
    scope: String,
    previous: String,
}

impl fmt::Debug for ChunkSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkSigner(redacted)")
    }
}

impl ChunkSigner {
    /// Verifies the signature of a chunk with this SHA-256. The next chunk is signed over it.
    pub(crate) fn verify_chunk(&mut self, chunk: [u8; 32], signature: &str) -> Result<(), Error> {
        let lines = [&hex::encode(Sha256::digest(b""))[..], &hex::encode(chunk)];
        self.verify("AWS4-HMAC-SHA256-PAYLOAD", &lines, signature)
    }

    /// Verifies the signature of a trailer with this SHA-256.
    pub(crate) fn verify_trailer(&mut self, trailer: [u8; 32], signature: &str) -> Result<(), Error> {
        self.verify("AWS4-HMAC-SHA256-TRAILER", &[&hex::encode(trailer)], signature)
    }

    fn verify(&mut self, kind: &str, lines: &[&str], signature: &str) -> Result<(), Error> {
        let text = [&[kind, &self.date, &self.scope, &self.previous], lines].concat().join("\n");
        self.previous = hex::encode(hmac(&*self.key, &[text.as_bytes()]));
        if equal(&self.previous, signature) { Ok(()) } else { Err(Error::new(ErrorCode::SignatureDoesNotMatch)) }
    }
}

/// The parts of an `Authorization` header, or the parameters of a presigned URL.
struct Authorization<'h> {
    access_key: &'h str,
    /// `date/region/service/aws4_request`
    scope: &'h str,
    date: &'h str,
    region: &'h str,
    service: &'h str,
    signed_headers: &'h str,
    signature: &'h str,
    is_presigned: bool,
}

/// Verifies the signature of a request. `examples/verify_request.rs` shows its use.
///
/// # Errors
/// `AccessDenied` without a signature or if a header is not covered by it,
/// `AuthorizationHeaderMalformed` (also for another region), `InvalidAccessKeyId`,
/// `RequestTimeTooSkewed`, `SignatureDoesNotMatch`. No error echoes the signed text, which contains
/// customer keys.
pub fn authenticate(
    head: &RequestHead,
    credentials: &dyn Credentials,
    signing_keys: &SigningKeys,
    region: &str,
    now_ms: u64,
) -> Result<Identity, Error> {
    let presigned = Presigned::of(&head.query)?;
    let (authorization, date) = match (head.headers.text("authorization"), &presigned) {
        (None, None) if head.query.has("AWSAccessKeyId") => return Err(unsupported_mechanism()),
        (None, None) => return Err(Error::new(ErrorCode::AccessDenied)),
        (Some(header), None) => {
            let authorization = parse(header)?;
            check_scope(&authorization, region)?;
            let date = check_date(head, &authorization, now_ms)?;
            (authorization, date)
        }
        (None, Some(presigned)) => {
            let authorization = presigned.authorization()?;
            check_scope(&authorization, region)?;
            presigned.check_time(&authorization, now_ms)?;
            (authorization, presigned.date)
        }
        (Some(header), Some(_)) => {
            let scheme = header.split(' ').next().unwrap_or_default();
            return Err(multiple_mechanisms().with_echo("ArgumentValue", scheme));
        }
    };
    let secret =
        credentials.secret(authorization.access_key).ok_or_else(|| Error::new(ErrorCode::InvalidAccessKeyId))?;
    check_coverage(&head.headers, &authorization)?;
    let content = match (head.headers.get("x-amz-content-sha256"), &presigned) {
        (Some(content), _) => std::str::from_utf8(content).unwrap_or_default(),
        // The payload of a presigned URL is unknown when it is signed.
        (None, Some(_)) => "UNSIGNED-PAYLOAD",
        (None, None) => {
            let message = "Missing required header for this request: x-amz-content-sha256";
            return Err(Error::new(ErrorCode::InvalidRequest).with_message(message));
        }
    };

    let canonical = Hex::of(&canonical_request(head, &authorization, content));
    let key = signing_keys.of(secret, &authorization);
    let text = [ALGORITHM, "\n", date, "\n", authorization.scope, "\n", canonical.text()];
    let signature = Hex::of(&key.sign(text.iter().map(|piece| piece.as_bytes())));
    if !equal(signature.text(), authorization.signature) {
        return Err(Error::new(ErrorCode::SignatureDoesNotMatch));
    }
    let signer = || ChunkSigner {
        key: key.bytes.clone(),
        date: date.to_owned(),
        scope: authorization.scope.to_owned(),
        previous: signature.text().to_owned(),
    };
    let body = BodySignature(body_signature(content, signer)?);
    Ok(Identity { access_key: authorization.access_key.to_owned(), body })
}

/// Returns whether a request head has a signature, valid or not.
pub fn is_signed(head: &RequestHead) -> bool {
    head.headers.get("authorization").is_some() || !matches!(Presigned::of(&head.query), Ok(None))
}

/// Returns the error for a request that is signed in two ways.
pub fn multiple_mechanisms() -> Error {
    Error::new(ErrorCode::InvalidArgument)
        .with_message(
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, the Authorization header or the \
            policy of a form should be specified",
        )
        .with_field("ArgumentName", "Authorization")
}

/// Returns the signature kind of a form's body, which no header signs.
pub fn unsigned_body() -> BodySignature {
    BodySignature(BodySignatureKind::Unsigned)
}

/// Verifies the signature of a form's policy (AWS, "Authenticating Requests in Browser-Based
/// Uploads Using POST"). The policy itself has the expiration.
///
/// # Errors
/// `AccessDenied` for a form without a policy; `InvalidArgument` for a missing or malformed field,
/// or another region; `InvalidAccessKeyId`, `SignatureDoesNotMatch`.
pub fn authenticate_form(fields: &Headers, credentials: &dyn Credentials, region: &str) -> Result<String, Error> {
    const NAMES: [&str; 5] = ["policy", "x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature"];
    let found = NAMES.map(|name| fields.text(name));
    if found.iter().all(Option::is_none) {
        return Err(Error::new(ErrorCode::AccessDenied));
    }
    if let Some(at) = found.iter().position(Option::is_none) {
        let message = format!(
            "Bucket POST must contain a field named '{}'.  If it is specified, please check the order of the fields.",
            NAMES[at]
        );
        return Err(Error::invalid_argument(NAMES[at], "", message));
    }
    let [policy, algorithm, credential, date, signature] = found.map(Option::unwrap_or_default);
    if algorithm != ALGORITHM {
        let message = "X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\"";
        return Err(Error::invalid_argument("x-amz-algorithm", algorithm, message));
    }
    let wrong = |what: &str| Error::invalid_argument("x-amz-credential", credential, what.to_owned());
    let authorization = scoped(credential, "", signature)
        .ok_or_else(|| wrong("the Credential is malformed; expecting \"KEY/YYYYMMDD/REGION/s3/aws4_request\"."))?;
    if authorization.region != region {
        let what = format!("the region '{}' is wrong; expecting '{region}'", authorization.region);
        return Err(wrong(&what).with_field("Region", region));
    }
    if authorization.service != "s3" {
        return Err(wrong("the service must be \"s3\"."));
    }
    let is_of_day = parse_amz_date(date).is_some() && authorization.date.len() == 8;
    if !is_of_day || !date.starts_with(authorization.date) {
        let message =
            "x-amz-date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\", of the day in the Credential.";
        return Err(Error::invalid_argument("x-amz-date", date, message));
    }
    let secret =
        credentials.secret(authorization.access_key).ok_or_else(|| Error::new(ErrorCode::InvalidAccessKeyId))?;
    let ours = hex::encode(hmac(&*signing_key(secret, &authorization), &[policy.as_bytes()]));
    if !equal(&ours, signature) {
        return Err(Error::new(ErrorCode::SignatureDoesNotMatch));
    }
    Ok(authorization.access_key.to_owned())
}

fn body_signature(content: &str, signer: impl FnOnce() -> ChunkSigner) -> Result<BodySignatureKind, Error> {
    Ok(match content {
        "UNSIGNED-PAYLOAD" => BodySignatureKind::Unsigned,
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" => BodySignatureKind::Streaming { signer: Some(signer()), trailer: false },
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" => {
            BodySignatureKind::Streaming { signer: Some(signer()), trailer: true }
        }
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER" => BodySignatureKind::Streaming { signer: None, trailer: true },
        _ => {
            // Boxed, as a misplaced key would leave copies wherever it is moved.
            let mut hash = Box::new([0; 32]);
            hex::decode_to_slice(content, &mut *hash).map_err(|_| {
                let message = "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, a STREAMING value that S3 defines, or a valid sha256 value.";
                Error::invalid_argument("x-amz-content-sha256", content, message)
            })?;
            BodySignatureKind::Signed(hash)
        }
    })
}

fn malformed(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorCode::AuthorizationHeaderMalformed).with_message(message)
}

fn unsupported_mechanism() -> Error {
    Error::new(ErrorCode::InvalidRequest)
        .with_message("The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.")
}

fn parse(header: &str) -> Result<Authorization<'_>, Error> {
    let rest =
        header.strip_prefix(ALGORITHM).and_then(|rest| rest.strip_prefix(' ')).ok_or_else(unsupported_mechanism)?;
    let mut credential = None;
    let mut signed_headers = None;
    let mut signature = None;
    for pair in rest.split(',') {
        let (name, value) =
            pair.trim().split_once('=').ok_or_else(|| malformed("The authorization header is malformed."))?;
        let place = match name {
            "Credential" => &mut credential,
            "SignedHeaders" => &mut signed_headers,
            "Signature" => &mut signature,
            _ => return Err(malformed("The authorization header has an unknown component.")),
        };
        if place.replace(value).is_some() {
            return Err(malformed("The authorization header has a component twice."));
        }
    }
    let (Some(credential), Some(signed_headers), Some(signature)) = (credential, signed_headers, signature) else {
        return Err(malformed("The authorization header needs Credential, SignedHeaders and Signature."));
    };
    scoped(credential, signed_headers, signature)
        .ok_or_else(|| malformed("The Credential is malformed; expecting \"KEY/YYYYMMDD/REGION/s3/aws4_request\"."))
}

/// Parses a credential with its scope.
fn scoped<'h>(credential: &'h str, signed_headers: &'h str, signature: &'h str) -> Option<Authorization<'h>> {
    let (access_key, scope) = credential.split_once('/')?;
    let mut parts = scope.split('/');
    let (Some(date), Some(region), Some(service), Some(TERMINATOR), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    Some(Authorization { access_key, scope, date, region, service, signed_headers, signature, is_presigned: false })
}

impl<'h> Authorization<'h> {
    /// Iterates over the names of the signed headers.
    fn signed_names(&self) -> impl Iterator<Item = &'h str> + use<'h> {
        let mut rest = Some(self.signed_headers);
        std::iter::from_fn(move || {
            let names = rest?;
            // A plain loop: names are too short for the search that `split` does.
            let end = names.bytes().position(|byte| byte == b';');
            rest = end.map(|end| &names[end + 1..]);
            Some(&names[..end.unwrap_or(names.len())])
        })
    }

    /// Formats an error for the place that the authorization comes from.
    fn wrong(&self, what: impl fmt::Display) -> Error {
        if self.is_presigned {
            query_error(format!("Error parsing the X-Amz-Credential parameter; {what}"))
        } else {
            malformed(format!("The authorization header is malformed; {what}"))
        }
    }
}

fn check_scope(authorization: &Authorization<'_>, region: &str) -> Result<(), Error> {
    if authorization.region != region {
        let what = format!("the region '{}' is wrong; expecting '{region}'", authorization.region);
        return Err(authorization.wrong(what).with_field("Region", region));
    }
    if authorization.service != "s3" {
        return Err(authorization.wrong("the service must be \"s3\"."));
    }
    Ok(())
}

fn query_error(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorCode::AuthorizationQueryParametersError).with_message(message)
}

/// The parameter that cannot be signed: the signature itself.
const SIGNATURE_PARAMETER: &str = "X-Amz-Signature";

/// The parameters of a presigned URL.
struct Presigned<'q> {
    credential: &'q str,
    date: &'q str,
    expires: &'q str,
    signed_headers: &'q str,
    signature: &'q str,
}

impl<'q> Presigned<'q> {
    /// Parses the parameters of a query. Returns `None` if it is not signed.
    fn of(query: &'q Query) -> Result<Option<Self>, Error> {
        const NAMES: [&str; 6] = [
            "X-Amz-Algorithm",
            "X-Amz-Credential",
            "X-Amz-Date",
            "X-Amz-Expires",
            "X-Amz-SignedHeaders",
            SIGNATURE_PARAMETER,
        ];
        let found = NAMES.map(|name| query.get(name));
        if found.iter().all(Option::is_none) {
            return Ok(None);
        }
        let [Some(algorithm), Some(credential), Some(date), Some(expires), Some(signed_headers), Some(signature)] =
            found
        else {
            return Err(query_error(
                "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.",
            ));
        };
        if algorithm != ALGORITHM {
            return Err(query_error("X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\""));
        }
        Ok(Some(Presigned { credential, date, expires, signed_headers, signature }))
    }

    fn authorization(&self) -> Result<Authorization<'q>, Error> {
        let authorization = scoped(self.credential, self.signed_headers, self.signature);
        let authorization = authorization.ok_or_else(|| {
            query_error("Error parsing the X-Amz-Credential parameter; the Credential is mal-formed; expecting \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\".")
        })?;
        Ok(Authorization { is_presigned: true, ..authorization })
    }

    /// Checks that the URL is valid now: from its date, with tolerance for clock skew, until it
    /// expires.
    fn check_time(&self, authorization: &Authorization<'_>, now_ms: u64) -> Result<(), Error> {
        let date = parse_amz_date(self.date);
        let date_ms =
            date.ok_or_else(|| query_error("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\""))?;
        if !self.date.starts_with(authorization.date) || authorization.date.len() != 8 {
            return Err(authorization.wrong("the date of the Credential is not that of X-Amz-Date."));
        }
        let expires = self.expires.parse::<u64>().map_err(|_| query_error("X-Amz-Expires should be a number"))?;
        if expires > PRESIGNED_MAX_S {
            return Err(query_error(
                "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than 604800 seconds",
            ));
        }
        let denied = |message: &'static str| Error::new(ErrorCode::AccessDenied).with_message(message);
        if date_ms > now_ms + CLOCK_SKEW_MAX_MS {
            return Err(denied("Request is not yet valid").with_field("ServerTime", iso8601(now_ms)));
        }
        let until_ms = date_ms + expires * 1000;
        if now_ms > until_ms {
            return Err(denied("Request has expired")
                .with_field("X-Amz-Expires", self.expires)
                .with_field("Expires", iso8601(until_ms))
                .with_field("ServerTime", iso8601(now_ms)));
        }
        Ok(())
    }
}

/// Returns the signed date, after checking it against the scope's date and the node's clock.
fn check_date<'h>(head: &'h RequestHead, authorization: &Authorization<'_>, now_ms: u64) -> Result<&'h str, Error> {
    let denied =
        || Error::new(ErrorCode::AccessDenied).with_message("AWS authentication requires a valid x-amz-date header.");
    let date = head.headers.text("x-amz-date").ok_or_else(denied)?;
    let date_ms = parse_amz_date(date).ok_or_else(denied)?;
    if !date.starts_with(authorization.date) || authorization.date.len() != 8 {
        return Err(malformed("The date of the Credential is not that of x-amz-date."));
    }
    if date_ms.abs_diff(now_ms) > CLOCK_SKEW_MAX_MS {
        return Err(Error::new(ErrorCode::RequestTimeTooSkewed)
            .with_field("RequestTime", date)
            .with_field("ServerTime", iso8601(now_ms))
            .with_field("MaxAllowedSkewMilliseconds", CLOCK_SKEW_MAX_MS.to_string()));
    }
    Ok(date)
}

/// Checks that the signature covers the host and all `x-amz-` and `x-keyhole-` headers (others could
/// have been added in transit), and that each signed name is one header of the request: an absent
/// header has the canonical form of an empty one, and a list that of one header with commas.
fn check_coverage(headers: &Headers, authorization: &Authorization<'_>) -> Result<(), Error> {
    // Each name is looked up among all headers.
    let count = authorization.signed_names().count();
    if count > SIGNED_HEADERS_MAX {
        let what = format!("SignedHeaders has {count} names; sign at most {SIGNED_HEADERS_MAX} headers.");
        return Err(if authorization.is_presigned { query_error(what) } else { malformed(what) });
    }
    if !authorization.signed_names().any(|signed| signed == "host") {
        return Err(if authorization.is_presigned {
            query_error("The host header must be among the X-Amz-SignedHeaders.")
        } else {
            malformed("The host header must be among the SignedHeaders.")
        });
    }
    let mut is_signed = [false; HEADERS_MAX];
    for signed in authorization.signed_names() {
        let mut found = headers.positions(signed).peekable();
        if found.peek().is_none() {
            return Err(Error::new(ErrorCode::AccessDenied)
                .with_message("There were headers in SignedHeaders which are not present in the request")
                .with_field("HeadersNotPresent", signed));
        }
        for (count, i) in found.enumerate() {
            if count > 0 && !is_list(signed) {
                return Err(Error::new(ErrorCode::InvalidRequest)
                    .with_message("A signed header is given twice. Send it once.")
                    .with_field("Header", signed));
            }
            if std::mem::replace(&mut is_signed[i], true) {
                return Err(authorization.wrong("a header is named twice in SignedHeaders."));
            }
        }
    }
    let mut unsigned = headers.iter().zip(is_signed).filter(|(_, is_signed)| !is_signed).map(|((name, _), _)| name);
    match unsigned.find(|name| is_own(name)) {
        None => Ok(()),
        Some(name) => Err(Error::new(ErrorCode::AccessDenied)
            .with_message("There were headers present in the request which were not signed")
            .with_field("HeadersNotSigned", name)),
    }
}

/// Computes the SHA-256 of the canonical request incrementally, so that no copy of its customer
/// keys is made.
fn canonical_request(head: &RequestHead, authorization: &Authorization<'_>, content: &str) -> [u8; 32] {
    let mut out = Sha256::new();
    out.update(&head.method);
    out.update(b"\n");
    percent_encode(head.decoded_path().as_bytes(), &ENCODED_IN_PATH).for_each(|piece| out.update(piece));
    out.update(b"\n");
    let without = authorization.is_presigned.then_some(SIGNATURE_PARAMETER);
    head.query.put_canonical(without, |piece| out.update(piece));
    out.update(b"\n");
    for name in authorization.signed_names() {
        out.update(name);
        out.update(b":");
        for (i, value) in head.headers.all(name).enumerate() {
            if i > 0 {
                out.update(b",");
            }
            update_trimmed(&mut out, value);
        }
        out.update(b"\n");
    }
    out.update(b"\n");
    out.update(authorization.signed_headers);
    out.update(b"\n");
    out.update(content);
    out.finalize().into()
}

/// Hashes a header's value, trimmed and with runs of spaces collapsed.
fn update_trimmed(out: &mut Sha256, value: &[u8]) {
    let mut rest = value.trim_ascii();
    if !has_run_of_spaces(rest) {
        return out.update(rest);
    }
    while let Some(at) = rest.windows(2).position(|pair| pair == b"  ") {
        out.update(&rest[..at]);
        rest = &rest[at + 1..];
    }
    out.update(rest);
}

/// A cache of recent signing keys. Each is valid for a day and as expensive as the rest of a
/// verification.
#[derive(Default)]
pub struct SigningKeys(RefCell<Vec<(KeyOf, Rc<SigningKey>)>>);

/// The inputs of a signing key.
struct KeyOf {
    secret: Zeroizing<String>,
    date: String,
    region: String,
}

/// A signing key, and an HMAC-SHA256 keyed with it.
struct SigningKey {
    bytes: Zeroizing<[u8; 32]>,
    mac: Hmac<Sha256>,
}

impl SigningKeys {
    /// Returns the signing key for an authorization with this secret.
    fn of(&self, secret: &SecretKey, authorization: &Authorization<'_>) -> Rc<SigningKey> {
        let mut keys = self.0.borrow_mut();
        let is_wanted = |(of, _): &(KeyOf, Rc<SigningKey>)| {
            of.date == authorization.date && of.region == authorization.region && equal(&of.secret, secret.expose())
        };
        if let Some((_, key)) = keys.iter().find(|entry| is_wanted(entry)) {
            return Rc::clone(key);
        }
        let key = Rc::new(SigningKey::new(signing_key(secret, authorization)));
        if keys.len() == SIGNING_KEYS_MAX {
            keys.remove(0);
        }
        let of = KeyOf {
            secret: Zeroizing::new(secret.expose().to_owned()),
            date: authorization.date.to_owned(),
            region: authorization.region.to_owned(),
        };
        keys.push((of, Rc::clone(&key)));
        key
    }
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKeys(redacted)")
    }
}

impl SigningKey {
    fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        let mac = Hmac::new_from_slice(&*bytes).expect("HMAC takes keys of any length");
        SigningKey { bytes, mac }
    }

    fn sign<'t>(&self, pieces: impl Iterator<Item = &'t [u8]>) -> [u8; 32] {
        let mut mac = self.mac.clone();
        pieces.for_each(|piece| mac.update(piece));
        mac.finalize().into_bytes().into()
    }
}

/// Thirty-two bytes in lower-case hexadecimal.
struct Hex([u8; 64]);

impl Hex {
    fn of(bytes: &[u8; 32]) -> Self {
        let mut hex = Hex([0; 64]);
        hex::encode_to_slice(bytes, &mut hex.0).expect("two digits for each byte");
        hex
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.0).expect("digits are text")
    }
}

fn signing_key(secret: &SecretKey, authorization: &Authorization<'_>) -> Zeroizing<[u8; 32]> {
    let start = Zeroizing::new([b"AWS4", secret.expose().as_bytes()].concat());
    let mut key = Zeroizing::new(hmac(&start, &[authorization.date.as_bytes()]));
    for part in [authorization.region, authorization.service, TERMINATOR] {
        key = Zeroizing::new(hmac(&*key, &[part.as_bytes()]));
    }
    key
}

fn hmac(key: &[u8], pieces: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    pieces.iter().for_each(|piece| mac.update(piece));
    mac.finalize().into_bytes().into()
}

fn equal(ours: &str, theirs: &str) -> bool {
    ours.as_bytes().ct_eq(theirs.as_bytes()).into()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::http::tests::head;

    pub(crate) struct Example(SecretKey);

    impl Default for Example {
        fn default() -> Self {
            Example(SecretKey::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned()))
        }
    }

    impl Credentials for Example {
        fn secret(&self, access_key: &str) -> Option<&SecretKey> {
            (access_key == "AKIAIOSFODNN7EXAMPLE").then_some(&self.0)
        }
    }

    /// 2013-05-24T00:00:00Z, the time of AWS's examples.
    pub(crate) const NOW_MS: u64 = 1_369_353_600_000;

    fn check(text: &str) -> Result<Identity, ErrorCode> {
        authenticate(&head(text), &Example::default(), &SigningKeys::default(), "us-east-1", NOW_MS)
            .map_err(|error| error.code)
    }

    const SCOPE: &str = "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request";
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn get_object() -> String {
        format!(
            "GET /test.txt HTTP/1.1\nHost: examplebucket.s3.amazonaws.com\nRange: bytes=0-9\nx-amz-content-sha256: {EMPTY}\n\
            x-amz-date: 20130524T000000Z\nAuthorization: AWS4-HMAC-SHA256 {SCOPE},SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,\
            Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        )
    }

    /// The examples of AWS's page "Signature Calculations for the Authorization Header".
    #[test]
    fn published_signatures_are_accepted() {
        check(&get_object()).unwrap();
        check(&format!(
            "PUT /test%24file.text HTTP/1.1\nHost: examplebucket.s3.amazonaws.com\nDate: Fri, 24 May 2013 00:00:00 GMT\n\
            x-amz-date: 20130524T000000Z\nx-amz-storage-class: REDUCED_REDUNDANCY\n\
            x-amz-content-sha256: 44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072\n\
            Authorization: AWS4-HMAC-SHA256 {SCOPE},SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class,\
            Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
        ))
        .unwrap();
        check(&format!(
            "GET /?lifecycle HTTP/1.1\nHost: examplebucket.s3.amazonaws.com\nx-amz-date: 20130524T000000Z\n\
            x-amz-content-sha256: {EMPTY}\nAuthorization: AWS4-HMAC-SHA256 {SCOPE},SignedHeaders=host;x-amz-content-sha256;x-amz-date,\
            Signature=fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
        ))
        .unwrap();
        check(&format!(
            "GET /?max-keys=2&prefix=J HTTP/1.1\nHost: examplebucket.s3.amazonaws.com\nx-amz-date: 20130524T000000Z\n\
            x-amz-content-sha256: {EMPTY}\nAuthorization: AWS4-HMAC-SHA256 {SCOPE}, SignedHeaders=host;x-amz-content-sha256;x-amz-date, \
            Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        ))
        .unwrap();
    }

    #[test]
    fn number_of_signed_headers_is_limited() {
        // The names are looked up only within the limit.
        let with = |count: usize| {
            let names = format!("host;x-amz-content-sha256;x-amz-date{}", ";a".repeat(count - 3));
            let head = get_object();
            let at = head.find("SignedHeaders=").unwrap();
            check(&format!("{}SignedHeaders={names},Signature={}", &head[..at], "0".repeat(64)))
        };
        let outcomes = [SIGNED_HEADERS_MAX, SIGNED_HEADERS_MAX + 1].map(|count| with(count).unwrap_err());
        assert_eq!(outcomes, [ErrorCode::AccessDenied, ErrorCode::AuthorizationHeaderMalformed]);
    }

    const PRESIGNED: &str = "GET /test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256\
        &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z\
        &X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
        &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404 HTTP/1.1\n\
        Host: examplebucket.s3.amazonaws.com";

    /// The example of AWS's page "Authenticating Requests: Using Query Parameters", and
    /// modifications of it.
    #[test]
    fn presigned_url_is_accepted_unless_modified() {
        check(PRESIGNED).unwrap();
        use ErrorCode as C;
        for (from, to, code) in [
            ("/test.txt", "/test.txu", C::SignatureDoesNotMatch),
            ("GET", "PUT", C::SignatureDoesNotMatch),
            ("604d404", "604d405", C::SignatureDoesNotMatch),
            ("86400", "86401", C::SignatureDoesNotMatch),
            ("&X-Amz-Date", "&response-content-type=a&X-Amz-Date", C::SignatureDoesNotMatch),
            ("Host: ", "Authorization: AWS4-HMAC-SHA256 a\nHost: ", C::InvalidArgument),
            ("Host: ", "x-amz-meta-a: b\nHost: ", C::AccessDenied),
            ("Host: ", "x-keyhole-sealed: 1\nHost: ", C::AccessDenied),
            ("=host", "=range", C::AuthorizationQueryParametersError),
            ("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1", C::AuthorizationQueryParametersError),
            ("us-east-1", "eu-west-1", C::AuthorizationQueryParametersError),
            ("2Fs3%", "2Fec2%", C::AuthorizationQueryParametersError),
            ("%2F20130524", "%2F20130525", C::AuthorizationQueryParametersError),
            ("aws4_request", "aws5_request", C::AuthorizationQueryParametersError),
            ("86400", "a", C::AuthorizationQueryParametersError),
            ("86400", "-1", C::AuthorizationQueryParametersError),
            ("86400", "604801", C::AuthorizationQueryParametersError),
            ("&X-Amz-Expires=86400", "", C::AuthorizationQueryParametersError),
            ("X-Amz-Date=2013", "X-Amz-Date=013", C::AuthorizationQueryParametersError),
            ("AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLF", C::InvalidAccessKeyId),
        ] {
            assert!(PRESIGNED.contains(from));
            assert_eq!(check(&PRESIGNED.replacen(from, to, 1)).unwrap_err(), code, "{from} -> {to}");
        }
    }

    #[test]
    fn other_signature_versions_are_rejected() {
        let header = get_object().replacen("AWS4-HMAC-SHA256 ", "AWS ", 1);
        let query = "GET /a?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Signature=vjbyPxybdZaNmGa%2ByT272YEAiv4%3D&Expires=1369353600 \
            HTTP/1.1\nHost: examplebucket.s3.amazonaws.com";
        for text in [&header, query] {
            let error = authenticate(&head(text), &Example::default(), &SigningKeys::default(), "us-east-1", NOW_MS)
                .map(|_| ())
                .unwrap_err();
            assert!(
                error.code == ErrorCode::InvalidRequest && error.message.contains("use AWS4-HMAC-SHA256"),
                "{error}"
            );
        }
    }

    #[test]
    fn presigned_urls_expire() {
        let at = |now_ms| {
            authenticate(&head(PRESIGNED), &Example::default(), &SigningKeys::default(), "us-east-1", now_ms)
                .map(|_| ())
        };
        for now_ms in [NOW_MS - CLOCK_SKEW_MAX_MS, NOW_MS + 86_400_000] {
            at(now_ms).unwrap();
        }
        for (now_ms, words) in [(NOW_MS - CLOCK_SKEW_MAX_MS - 1, "not yet valid"), (NOW_MS + 86_400_001, "has expired")]
        {
            let error = at(now_ms).unwrap_err();
            assert!(error.code == ErrorCode::AccessDenied && error.message.contains(words), "{error}");
        }
    }

    #[test]
    fn changed_byte_breaks_the_signature() {
        let good = get_object();
        for (from, to) in [
            ("GET /", "PUT /"),
            ("test.txt", "test.txu"),
            ("test.txt HTTP", "test.txt?a HTTP"),
            ("examplebucket", "examplebuckes"),
            ("bytes=0-9", "bytes=0-8"),
            ("000000Z", "000001Z"),
            ("sha256: e3", "sha256: e4"),
            ("bdb41", "bdb42"),
        ] {
            assert_eq!(check(&good.replacen(from, to, 1)).unwrap_err(), ErrorCode::SignatureDoesNotMatch, "{from}");
        }
    }

    #[test]
    fn rejections_have_distinct_codes() {
        let good = get_object();
        let case = |from: &str, to: &str, code| {
            assert!(good.contains(from));
            assert_eq!(check(&good.replacen(from, to, 1)).unwrap_err(), code, "{from} -> {to}");
        };
        case("Authorization: ", "X: ", ErrorCode::AccessDenied);
        case("AWS4-HMAC-SHA256", "AWS", ErrorCode::InvalidRequest);
        case("AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLF", ErrorCode::InvalidAccessKeyId);
        case("us-east-1", "eu-west-1", ErrorCode::AuthorizationHeaderMalformed);
        case("/s3/", "/ec2/", ErrorCode::AuthorizationHeaderMalformed);
        case("aws4_request", "aws5_request", ErrorCode::AuthorizationHeaderMalformed);
        case("Signature=", "Sig=", ErrorCode::AuthorizationHeaderMalformed);
        case("SignedHeaders=host;", "SignedHeaders=", ErrorCode::AuthorizationHeaderMalformed);
        case("/20130524/", "/20130525/", ErrorCode::AuthorizationHeaderMalformed);
        case("x-amz-date: ", "y-amz-date: ", ErrorCode::AccessDenied);
        case("Range:", "x-amz-meta-a: b\nRange:", ErrorCode::AccessDenied);
        case("Range:", "x-keyhole-sealed: 1\nRange:", ErrorCode::AccessDenied);
        case("x-amz-content-sha256: ", "y: ", ErrorCode::AccessDenied);
        case("Range: ", "y: ", ErrorCode::AccessDenied);
        case("SignedHeaders=host;", "SignedHeaders=host;host;", ErrorCode::AuthorizationHeaderMalformed);
        case("SignedHeaders=host;", "SignedHeaders=host;;", ErrorCode::AccessDenied);
        case("SignedHeaders=host;range", "SignedHeaders=host;Range", ErrorCode::AccessDenied);
    }

    #[test]
    fn signing_keys_are_cached_up_to_a_limit() {
        let keys = SigningKeys::default();
        let of = |secret: &str, date: &str| {
            let credential = format!("access/{date}/us-east-1/s3/aws4_request");
            keys.of(&SecretKey::new(secret.to_owned()), &scoped(&credential, "", "").unwrap())
        };
        let first = of("secret", "20261126");
        assert!(Rc::ptr_eq(&first, &of("secret", "20261126")), "it is kept");
        for (secret, date) in [("another", "20261126"), ("secret", "20261127")] {
            assert_ne!(of(secret, date).bytes, first.bytes, "it is of this secret and this day");
        }
        // Fill the cache: it has three keys already.
        (3..SIGNING_KEYS_MAX).for_each(|i| drop(of(&i.to_string(), "20261126")));
        assert!(Rc::ptr_eq(&first, &of("secret", "20261126")));
        of("one more", "20261126");
        assert_eq!(keys.0.borrow().len(), SIGNING_KEYS_MAX);
        let again = of("secret", "20261126");
        assert!(!Rc::ptr_eq(&first, &again) && first.bytes == again.bytes, "the oldest was made anew");
    }

    #[test]
    fn clock_skew_is_accepted_up_to_fifteen_minutes() {
        let at = |now_ms| {
            authenticate(&head(&get_object()), &Example::default(), &SigningKeys::default(), "us-east-1", now_ms)
                .map(|_| ())
        };
        for now_ms in [NOW_MS - CLOCK_SKEW_MAX_MS, NOW_MS + CLOCK_SKEW_MAX_MS] {
            at(now_ms).unwrap();
        }
        for now_ms in [NOW_MS - CLOCK_SKEW_MAX_MS - 1, NOW_MS + CLOCK_SKEW_MAX_MS + 1] {
            assert_eq!(at(now_ms).unwrap_err().code, ErrorCode::RequestTimeTooSkewed);
        }
    }

    #[test]
    fn wrong_region_error_names_the_expected_region() {
        let error = authenticate(&head(&get_object()), &Example::default(), &SigningKeys::default(), "eu-1", NOW_MS)
            .unwrap_err();
        assert!(error.message.contains("expecting 'eu-1'") && error.fields == [("Region", "eu-1".to_owned())]);
    }
}
