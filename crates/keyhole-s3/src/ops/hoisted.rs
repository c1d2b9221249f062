//! Headers in the query. Presigners of the AWS SDKs move the headers of a request into its query,
//! where the signature covers them; S3 applies them as headers.

use super::allowed::{echo, is_telemetry};
use crate::http::{Headers, RequestHead, is_token};
use crate::{Error, ErrorCode, sse};

/// The parameters of a signature, which are not headers.
const SIGNING: [&str; 6] =
    ["X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature"];

/// Parameters that the AWS SDK for JavaScript adds to every presigned URL. The body is unknown when
/// a URL is signed, so its checksum is that of an empty one.
const SDK_DEFAULTS: [(&str, &str); 3] = [
    ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
    ("x-amz-checksum-crc32", "AAAAAA=="),
    ("x-amz-sdk-checksum-algorithm", "CRC32"),
];

/// Parameters that would change the framing or the signature, which are read from headers alone.
const HEADERS_ONLY: [&str; 4] = ["x-amz-content-sha256", "x-amz-date", "x-amz-decoded-content-length", "x-amz-trailer"];

/// Headers without the prefix `x-amz-` that presigners move into the query of an upload.
const STANDARD: [&str; 7] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-md5",
    "content-type",
    "expires",
];

/// Returns the request with the headers of its query as headers, or `None` if it has none there.
/// The signature must have been verified before.
///
/// # Errors
/// `InvalidRequest` for a customer key in the query, and for a header that is given twice;
/// `NotImplemented` for headers that cannot be in a query.
pub fn hoist(head: &RequestHead) -> Result<Option<Box<RequestHead>>, Error> {
    if head.query.is_empty() {
        return Ok(None);
    }
    let query = &head.query;
    let is_presigned_upload = query.has("X-Amz-Signature") && matches!(&head.method[..], "PUT" | "POST");
    let mut found: Vec<(String, &str)> = Vec::new();
    for (parameter, value) in query.pairs() {
        let name = parameter.to_ascii_lowercase();
        let value = value.trim_ascii();
        let is_header = name.starts_with("x-amz-") || name.starts_with("x-keyhole-");
        refuse_key(&name)?;
        if SIGNING.contains(&parameter) || SDK_DEFAULTS.contains(&(&name, value)) || is_telemetry(&name) {
            continue;
        }
        if HEADERS_ONLY.contains(&&name[..]) {
            let message = format!("The parameter {name} implies functionality that is not implemented. Send a header.");
            return Err(Error::new(ErrorCode::NotImplemented).with_message(message));
        }
        let is_standard = is_presigned_upload && STANDARD.contains(&&name[..]);
        if !is_header && !is_standard {
            continue;
        }
        // Clients send a Content-Type of their own.
        let sent = head.headers.get(&name);
        if !is_header && sent == Some(value.as_bytes()) {
            continue;
        }
        if !is_token(&name) {
            let message = "A header in the query has a character that no header name has (RFC 9110, token).";
            return Err(Error::new(ErrorCode::InvalidRequest).with_message(message));
        }
        if sent.is_some() || found.iter().any(|(other, _)| *other == name) {
            let message = "A header is given twice, in the query and outside of it. Send it once.";
            return Err(Error::new(ErrorCode::InvalidRequest).with_message(message).with_field("Header", echo(&name)));
        }
        found.push((name, value));
    }
    Ok((!found.is_empty()).then(|| Box::new(with_headers(head, &found))))
}

/// Rejects customer keys in the query, however they are spelt.
fn refuse_key(name: &str) -> Result<(), Error> {
    if !sse::is_customer_key_header(name) && sse::refuse_misspelt(name).is_ok() {
        return Ok(());
    }
    Err(Error::new(ErrorCode::InvalidRequest).with_message(
        "Customer keys come in headers, never in the query, which is logged on its way. Sign the headers instead.",
    ))
}

fn with_headers(head: &RequestHead, found: &[(String, &str)]) -> RequestHead {
    let mut headers = Headers::default();
    head.headers.iter().for_each(|(name, value)| headers.push(name, value));
    found.iter().for_each(|(name, value)| headers.push(name, value.as_bytes()));
    RequestHead {
        method: head.method.clone(),
        path: head.path.clone(),
        decoded_path: head.decoded_path.clone(),
        query: head.query.clone(),
        headers,
        ..*head
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::head;

    fn hoisted(line: &str, wanted: &str) -> Result<Option<String>, ErrorCode> {
        let head = head(&format!("{line} HTTP/1.1\nHost: h\nx-amz-acl: private\nContent-Type: text/plain"));
        let hoisted = hoist(&head).map_err(|error| error.code)?;
        Ok(hoisted.and_then(|head| head.headers.text(wanted).map(str::to_owned)))
    }

    #[test]
    fn headers_in_the_query_become_headers() {
        for (query, name, expected) in [
            ("x-amz-meta-who=me", "x-amz-meta-who", Some("me")),
            ("X-Amz-Meta-Who=%20a%20b%20", "x-amz-meta-who", Some("a b")),
            ("x%2Damz-tagging=a%3D1", "x-amz-tagging", Some("a=1")),
            ("X-Amz-Storage-Class=STANDARD", "x-amz-storage-class", Some("STANDARD")),
            ("x-amz-checksum-crc32=AAAAAQ%3D%3D", "x-amz-checksum-crc32", Some("AAAAAQ==")),
            ("x-amz-checksum-crc32=AAAAAA%3D%3D", "x-amz-checksum-crc32", None),
            ("x-amz-checksum-mode=ENABLED", "x-amz-checksum-mode", Some("ENABLED")),
            ("x-amz-sdk-checksum-algorithm=CRC32", "x-amz-sdk-checksum-algorithm", None),
            ("x-amz-sdk-checksum-algorithm=SHA1", "x-amz-sdk-checksum-algorithm", Some("SHA1")),
            ("x-keyhole-sealed=1", "x-keyhole-sealed", Some("1")),
            ("X-Amz-User-Agent=aws-sdk-js", "x-amz-user-agent", None),
            ("X-Amz-Content-Sha256=UNSIGNED-PAYLOAD", "x-amz-content-sha256", None),
            ("X-Amz-Date=1", "x-amz-date", None),
            ("Cache-Control=no-store", "cache-control", None),
            ("X-Amz-Signature=s&Cache-Control=no-store", "cache-control", Some("no-store")),
            ("X-Amz-Signature=s&Content-Type=text/plain", "cache-control", None),
            ("x-user=me&metadata=true", "x-user", None),
        ] {
            assert_eq!(hoisted(&format!("PUT /b/k?{query}"), name), Ok(expected.map(str::to_owned)), "{query}");
        }
        assert_eq!(hoisted("GET /b/k?X-Amz-Signature=s&expires=1", "expires"), Ok(None));
    }

    #[test]
    fn ambiguous_and_secret_parameters_are_rejected() {
        use ErrorCode as C;
        for (query, code) in [
            ("x-amz-acl=private", C::InvalidRequest),
            ("x-amz-meta-a=1&X-Amz-Meta-A=1", C::InvalidRequest),
            ("X-Amz-Signature=s&Content-Type=text/html", C::InvalidRequest),
            ("x-amz-server-side-encryption-customer-key=a", C::InvalidRequest),
            ("X-AMZ-SERVER-SIDE-ENCRYPTION-CUSTOMER-KEY-MD5=a", C::InvalidRequest),
            ("x-amz-copy-source-server-side-encryption-customer-key=a", C::InvalidRequest),
            ("x-amz-sse-customer-key=a", C::InvalidRequest),
            ("x-amz-meta-a%20b=1", C::InvalidRequest),
            ("x-amz-meta-a%0d%0ab:=1", C::InvalidRequest),
            ("x-amz-meta-%C3%A9=1", C::InvalidRequest),
            ("X-Amz-Content-Sha256=0", C::NotImplemented),
            ("x-amz-date=20260101T000000Z", C::NotImplemented),
            ("x-amz-decoded-content-length=1", C::NotImplemented),
            ("x-amz-trailer=x-amz-checksum-crc32", C::NotImplemented),
        ] {
            assert_eq!(hoisted(&format!("PUT /b/k?{query}"), "-"), Err(code), "{query}");
        }
    }
}
