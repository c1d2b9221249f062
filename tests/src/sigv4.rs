//! Signature Version 4 in the header, as a client makes it (AWS, "Authenticating Requests: Using the Authorization
//! Header"). Written apart from the node's, so that the two check each other.

use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

/// What is not encoded: RFC 3986's unreserved characters.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A text as one segment of a path, or as a name or value of a query.
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// A path whose slashes stay.
pub fn encode_path(path: &str) -> String {
    path.split('/').map(encode).collect::<Vec<_>>().join("/")
}

/// The access key, its secret, and the region to sign for.
#[derive(Clone, Debug)]
pub struct Signer {
    /// The access key.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// The region of the scope.
    pub region: String,
}

/// `YYYYMMDD'T'HHMMSS'Z'` of a time in milliseconds since 1970.
pub fn amz_date(now_ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(now_ms).expect("a time");
    time.strftime("%Y%m%dT%H%M%SZ").to_string()
}

fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

/// The SHA-256 of bytes, in hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

impl Signer {
    /// The access key and what it signs for.
    pub fn credential(&self, date: &str) -> String {
        format!("{}/{}/{}/s3/aws4_request", self.access_key, &date[..8], self.region)
    }

    /// The signature, in hex. `headers` are all that is signed, lower-case names; `path` is encoded, `query` is the canonical query;
    /// `date` is what `x-amz-date` or `X-Amz-Date` says.
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
        let key = [&date[..8], &self.region, "s3", "aws4_request"]
            .iter()
            .fold(format!("AWS4{}", self.secret_key).into_bytes(), |key, part| hmac(&key, part.as_bytes()));
        hex::encode(hmac(&key, text.as_bytes()))
    }
}

/// The names of headers as a signature lists them.
pub fn signed_headers(headers: &[(String, String)]) -> String {
    let mut names: Vec<&str> = headers.iter().map(|(name, _)| &name[..]).collect();
    names.sort_unstable();
    names.join(";")
}
