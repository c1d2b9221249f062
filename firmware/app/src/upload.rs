//! The upload of a sealed object file: one HTTP/1.1 request and its response.

use core::fmt;

use embedded_io::{Read, Write};
use keyhole_core::sigv4::{PayloadHash, RequestToSign, SigV4Error, Signer};

/// Maximum length of a response head in bytes.
pub const ANSWER_MAX: usize = 2048;

/// Maximum number of response headers.
const HEADERS_MAX: usize = 32;

/// How the upload is authorised.
pub enum Authorization<'a> {
    /// By a credential of the device: Signature Version 4 in the `Authorization` header, over
    /// everything but the body, which its seal authenticates.
    Signer {
        /// The credential and the node's region.
        signer: Signer<'a>,
        /// The current time, as `YYYYMMDDTHHMMSSZ`.
        date: &'a str,
    },
    /// By a presigned URL from a third party: its path and query, from the `/` on. Its signed
    /// headers must include `x-keyhole-sealed`.
    Presigned(&'a str),
}

/// A `PUT` of a sealed object file.
pub struct Upload<'a> {
    /// The node's name for the `Host` header, with the port unless it is the default.
    pub host: &'a str,
    /// The bucket that the file is sealed for.
    pub bucket: &'a str,
    /// The key name that the file is sealed for.
    pub key: &'a str,
    /// How the upload is authorised.
    pub authorization: Authorization<'a>,
}

/// Error of an upload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum UploadError<E> {
    /// The connection failed.
    Connection(E),
    /// The connection was closed before a complete response.
    Closed,
    /// The response is not HTTP, or its head exceeds [`ANSWER_MAX`] bytes.
    Answer,
    /// The request cannot be signed.
    Signature(SigV4Error),
    /// Invalid presigned URL or host: a URL begins with `/`, and both must not contain spaces or
    /// control characters.
    Url,
}

impl<E: fmt::Debug> fmt::Display for UploadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UploadError::Connection(error) => write!(f, "the connection failed: {error:?}"),
            UploadError::Closed => f.write_str("the connection ended before the answer"),
            UploadError::Answer => f.write_str("the answer is no HTTP, or too long"),
            UploadError::Signature(error) => write!(f, "the request cannot be signed: {error}"),
            UploadError::Url => f.write_str("give a host, and of a presigned URL what begins with the path's slash"),
        }
    }
}

impl<E: fmt::Debug> core::error::Error for UploadError<E> {}

impl Upload<'_> {
    /// Sends the request with the file as its body.
    ///
    /// # Errors
    /// [`UploadError::Connection`], [`UploadError::Signature`], [`UploadError::Url`].
    pub fn send<W: Write>(&self, to: &mut W, file: &[u8]) -> Result<(), UploadError<W::Error>> {
        let is_text = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_text(self.host) {
            return Err(UploadError::Url);
        }
        let mut to = Head { to, error: None };
        let written = match &self.authorization {
            Authorization::Presigned(target) => {
                if !is_text(target) || !target.starts_with('/') {
                    return Err(UploadError::Url);
                }
                self.put_start(&mut to, format_args!("{target}"))
            }
            Authorization::Signer { signer, date } => {
                let request = RequestToSign {
                    method: "PUT",
                    bucket: Some(self.bucket),
                    key: self.key,
                    query: &[],
                    headers: &[
                        ("host", self.host),
                        ("x-amz-content-sha256", PayloadHash::Unsigned.header_value()),
                        ("x-amz-date", date),
                        ("x-keyhole-sealed", "1"),
                    ],
                    payload: PayloadHash::Unsigned,
                };
                let authorization = signer.authorize(&request, date).map_err(UploadError::Signature)?;
                self.put_start(&mut to, format_args!("{}", request.path())).and_then(|()| {
                    to.put(format_args!(
                        "x-amz-content-sha256: {}\r\nx-amz-date: {date}\r\nAuthorization: {authorization}\r\n",
                        PayloadHash::Unsigned.header_value()
                    ))
                })
            }
        };
        let written = written.and_then(|()| to.put(format_args!("Content-Length: {}\r\n\r\n", file.len())));
        match (written, to.error) {
            (Ok(()), _) => {}
            (Err(_), Some(error)) => return Err(UploadError::Connection(error)),
            // Formatting fails only if the writer does.
            (Err(_), None) => return Err(UploadError::Closed),
        }
        to.to.write_all(file).and_then(|()| to.to.flush()).map_err(UploadError::Connection)
    }

    fn put_start<W: Write>(&self, to: &mut Head<'_, W>, target: fmt::Arguments<'_>) -> fmt::Result {
        to.put(format_args!(
            "PUT {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nx-keyhole-sealed: 1\r\n",
            self.host
        ))
    }
}

/// A writer of the request head that keeps the connection's error.
struct Head<'w, W: Write> {
    to: &'w mut W,
    error: Option<W::Error>,
}

impl<W: Write> Head<'_, W> {
    fn put(&mut self, text: fmt::Arguments<'_>) -> fmt::Result {
        fmt::Write::write_fmt(self, text)
    }
}

impl<W: Write> fmt::Write for Head<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.to.write_all(text.as_bytes()).map_err(|error| {
            self.error = Some(error);
            fmt::Error
        })
    }
}

/// A response: the status, and the part of the body that fits into the buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer<'a> {
    /// The status code: 200 once the object is stored durably.
    pub status: u16,
    /// The body: XML in case of an error.
    pub body: &'a [u8],
}

/// Reads the response into `buffer`. Truncates a body that does not fit, and skips `100 Continue`.
///
/// # Errors
/// [`UploadError::Connection`], [`UploadError::Closed`], [`UploadError::Answer`].
pub fn answer<'a, R: Read>(from: &mut R, buffer: &'a mut [u8]) -> Result<Answer<'a>, UploadError<R::Error>> {
    let mut len = 0;
    let (status, start, body_len) = loop {
        if let Some((status, start, body_len)) = head(&buffer[..len]).ok_or(UploadError::Answer)? {
            if status / 100 != 1 {
                break (status, start, body_len);
            }
            buffer.copy_within(start..len, 0);
            len -= start;
            continue;
        }
        if len == buffer.len().min(ANSWER_MAX) {
            return Err(UploadError::Answer);
        }
        match from.read(&mut buffer[len..]).map_err(UploadError::Connection)? {
            0 => return Err(UploadError::Closed),
            read => len += read,
        }
    };
    let end = start.saturating_add(body_len).min(buffer.len());
    while len < end {
        match from.read(&mut buffer[len..end]).map_err(UploadError::Connection)? {
            0 => break,
            read => len += read,
        }
    }
    Ok(Answer { status, body: &buffer[start..len.min(end)] })
}

/// Parses a response head: status, start and length of the body; the inner `None` if it is
/// incomplete, the outer if it is invalid.
fn head(bytes: &[u8]) -> Option<Option<(u16, usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(start) = response.parse(bytes).ok()? else { return Some(None) };
    let mut body_len = 0;
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            body_len = core::str::from_utf8(header.value).ok()?.trim().parse().ok()?;
        }
    }
    Some(Some((response.code?, start, body_len)))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{string::String, vec::Vec};

    use super::*;

    fn sent(authorization: Authorization<'_>) -> String {
        let upload = Upload { host: "node.local:9000", bucket: "edge", key: "room 1/t", authorization };
        let mut sent = [0; 1024];
        let mut room = &mut sent[..];
        upload.send(&mut room, b"sealed").unwrap();
        let left = room.len();
        String::from_utf8(sent[..1024 - left].to_vec()).unwrap()
    }

    #[test]
    fn device_signs_its_request() {
        let signer = Signer { access_key: "AKID", secret_key: "secret", region: "us-east-1" };
        let text = sent(Authorization::Signer { signer, date: "20260102T030405Z" });
        assert!(text.starts_with("PUT /edge/room%201/t HTTP/1.1\r\nHost: node.local:9000\r\n"), "{text}");
        assert!(text.contains("\r\nAuthorization: AWS4-HMAC-SHA256 Credential=AKID/20260102/us-east-1/s3/aws4_request,SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-keyhole-sealed,Signature="), "{text}");
        assert!(text.ends_with("\r\nContent-Length: 6\r\n\r\nsealed"), "{text}");
    }

    #[test]
    fn presigned_url_is_used() {
        let text = sent(Authorization::Presigned("/edge/room%201/t?X-Amz-Signature=00"));
        let expected = "PUT /edge/room%201/t?X-Amz-Signature=00 HTTP/1.1\r\nHost: node.local:9000\r\n\
            Connection: close\r\nx-keyhole-sealed: 1\r\nContent-Length: 6\r\n\r\nsealed";
        assert_eq!(text, expected);
    }

    #[test]
    fn settings_with_line_ends_are_rejected() {
        for (host, target) in [("a\r\nx: y", "/a"), ("a", "/a HTTP/1.1\r\nx: y"), ("a", "http://a/"), ("", "/a")] {
            let upload = Upload { host, bucket: "edge", key: "a", authorization: Authorization::Presigned(target) };
            let mut out = [0; 256];
            assert_eq!(upload.send(&mut &mut out[..], b"").err(), Some(UploadError::Url));
        }
    }

    /// A reader that returns one byte at a time.
    struct Slow<'a>(&'a [u8]);

    impl embedded_io::ErrorType for Slow<'_> {
        type Error = core::convert::Infallible;
    }

    impl Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> Result<usize, Self::Error> {
            let len = 1.min(self.0.len());
            out[..len].copy_from_slice(&self.0[..len]);
            self.0 = &self.0[len..];
            Ok(len)
        }
    }

    fn check(text: &str, expected: Result<(u16, &str), UploadError<core::convert::Infallible>>) {
        let mut buffer = [0; 128];
        let answer = answer(&mut Slow(text.as_bytes()), &mut buffer);
        let expected = expected.map(|(status, body)| Answer { status, body: body.as_bytes() });
        assert_eq!(answer, expected, "{text}");
    }

    #[test]
    fn response_status_is_parsed() {
        check("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Ok((200, "")));
        check("HTTP/1.1 403 Forbidden\r\ncontent-length: 3\r\n\r\n<a>rest", Ok((403, "<a>")));
        check("HTTP/1.1 403 Forbidden\r\ncontent-length: 9\r\n\r\n<a>", Ok((403, "<a>")));
        check("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Ok((200, "")));
        check("", Err(UploadError::Closed));
        check("HTTP/1.1 200", Err(UploadError::Closed));
        check("SSH-2.0\r\n\r\n", Err(UploadError::Answer));
        let long: Vec<u8> = b"HTTP/1.1 200 OK\r\na: ".iter().copied().chain([b'a'; 200]).collect();
        check(core::str::from_utf8(&long).unwrap(), Err(UploadError::Answer));
        check("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", Err(UploadError::Answer));
    }
}
