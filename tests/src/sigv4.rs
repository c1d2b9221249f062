//! Client-side Signature Version 4 in the header (AWS, "Authenticating Requests: Using the
//! Authorization Header"). It is independent of the node's implementation, so that the two verify
//! each other.

use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

/// Characters to encode: all but RFC 3986's unreserved ones.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Encodes a path segment, or a name or value of a query.
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// Encodes a path, except its slashes.
pub fn encode_path(path: &str) -> String {
    path.split('/').map(encode).collect::<Vec<_>>().join("/")
}

/// A credential and its region.
#[derive(Clone, Debug)]
pub struct Signer {
    /// The access key.
    pub access_key: String,
    /// The secret access key.
    pub secret_key: String,
    /// The region of the credential scope.
    pub region: String,
}

/// Formats a time in milliseconds since 1970 as `YYYYMMDD'T'HHMMSS'Z'`.
pub fn amz_date(now_ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(now_ms).expect("a time");
    time.strftime("%Y%m%dT%H%M%SZ").to_string()
}

fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

/// Returns the SHA-256 of bytes in hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

impl Signer {
    /// Returns the access key and the credential scope.
    pub fn credential(&self, date: &str) -> String {
        format!("{}/{}/{}/s3/aws4_request", self.access_key, &date[..8], self.region)
    }

    /// Returns the signature in hex. `headers` are the signed headers with lower-case names, `path`
    /// is encoded, `query` is the canonical query, and `date` is the value of `x-amz-date` or
    /// `X-Amz-Date`.
    pub fn signature(
        &self,
        method: &str,
        path: &str,
        query: &str,
        headers: &[(String, String)],
        payload: &str,
        date: &str,
    ) -> String {
        let mut headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&name[..], value.trim())).collect();
        headers.sort_unstable();
        let signed = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let canonical: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let request = format!("{method}\n{path}\n{query}\n{canonical}\n{signed}\n{payload}");
        let scope = format!("{}/{}/s3/aws4_request", &date[..8], self.region);
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256_hex(request.as_bytes()));
        hex::encode(hmac(&self.signing_key(date), text.as_bytes()))
    }

    /// Returns the signature of a form's base64 policy, in hex.
    pub fn policy_signature(&self, policy: &str, date: &str) -> String {
        hex::encode(hmac(&self.signing_key(date), policy.as_bytes()))
    }

    fn signing_key(&self, date: &str) -> Vec<u8> {
        [&date[..8], &self.region, "s3", "aws4_request"]
            .iter()
            .fold(format!("AWS4{}", self.secret_key).into_bytes(), |key, part| hmac(&key, part.as_bytes()))
    }
}

/// Formats the names of headers as in a signature.
pub fn signed_headers(headers: &[(String, String)]) -> String {
    let mut names: Vec<&str> = headers.iter().map(|(name, _)| &name[..]).collect();
    names.sort_unstable();
    names.join(";")
}
