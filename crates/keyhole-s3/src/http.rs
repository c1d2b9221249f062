//! HTTP/1.1 request heads and responses (RFC 9112).

use std::borrow::Cow;
use std::fmt;
use std::mem::MaybeUninit;
use std::ops::Range;

use crate::limits::{HEAD_MAX, HEADERS_MAX, QUERY_PARAMETERS_MAX};
use crate::query::{self, Query};
use crate::time::http_date;
use crate::wipe::wipe;
use crate::{Error, ErrorCode};

/// The interim response that asks the client for the body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The header fields of a request, or the fields of a form, in order. Wiped on drop, because they
/// may contain customer keys.
///
/// ```
/// let bytes = b"GET / HTTP/1.1\r\nHost: node\r\nX-A: 1\r\nX-A: 2\r\n\r\n";
/// let (head, _) = keyhole_s3::http::parse_head(bytes)?.expect("a complete head");
/// assert_eq!(head.headers.text("host"), Some("node"));
/// assert_eq!(head.headers.all("x-a").count(), 2);
/// # Ok::<(), keyhole_s3::Error>(())
/// ```
#[derive(Default)]
pub struct Headers {
    /// All names, concatenated.
    names: String,
    /// All values, concatenated.
    values: Vec<u8>,
    /// End offsets of each field's name and value.
    ends: Vec<(usize, usize)>,
}

impl Headers {
    /// Returns the value of the first field with this lower-case name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// Like [`get`](Self::get), if the value is UTF-8.
    pub fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// Iterates over the values of all fields with this lower-case name.
    pub fn all<'h>(&'h self, name: &str) -> impl Iterator<Item = &'h [u8]> {
        self.ranges()
            .filter(move |(at, _)| at.len() == name.len() && self.names.as_bytes()[at.clone()] == *name.as_bytes())
            .map(|(_, at)| &self.values[at])
    }

    /// Iterates over the positions of all fields with this lower-case name.
    pub(crate) fn positions(&self, name: &str) -> impl Iterator<Item = usize> {
        let names = self.ranges().map(|(at, _)| at).enumerate();
        names
            .filter(move |(_, at)| at.len() == name.len() && self.names.as_bytes()[at.clone()] == *name.as_bytes())
            .map(|(i, _)| i)
    }

    /// Iterates over the ranges of each field's name and value.
    fn ranges(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let mut start = (0, 0);
        self.ends.iter().map(move |end| {
            let field = (start.0..end.0, start.1..end.1);
            start = *end;
            field
        })
    }

    /// Reserves room for `fields` fields with names and values of these total lengths.
    fn with_capacity(fields: usize, names: usize, values: usize) -> Self {
        Headers {
            names: String::with_capacity(names),
            values: Vec::with_capacity(values),
            ends: Vec::with_capacity(fields),
        }
    }

    /// Adds a field; the name is converted to lower case.
    pub(crate) fn push(&mut self, name: &str, value: &[u8]) {
        let start = self.names.len();
        self.names.push_str(name);
        self.names[start..].make_ascii_lowercase();
        if self.values.capacity() - self.values.len() < value.len() {
            // Reallocate by hand: `Vec` would free the old buffer without wiping it.
            let mut grown = Vec::with_capacity(2 * (self.values.len() + value.len()));
            grown.extend_from_slice(&self.values);
            wipe(&mut self.values);
            self.values = grown;
        }
        self.values.extend_from_slice(value);
        self.ends.push((self.names.len(), self.values.len()));
    }

    /// Iterates over all fields: lower-case names, and values without surrounding white space.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.ranges().map(|(name, value)| (&self.names[name], &self.values[value]))
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        wipe(&mut self.values);
    }
}

/// Shows the names only.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

/// A request without its body.
#[derive(Debug)]
pub struct RequestHead {
    /// The method, as sent.
    pub method: String,
    /// The path of the target, percent-encoded as sent; starts with `/`.
    pub path: String,
    /// The decoded path, if it differs from `path`.
    pub(crate) decoded_path: Option<String>,
    /// The query of the target.
    pub query: Query,
    /// The header fields.
    pub headers: Headers,
    /// Whether the client speaks HTTP/1.0.
    pub is_http_1_0: bool,
    /// Whether the client allows the connection to stay open.
    pub keep_alive: bool,
    /// Whether the client waits for [`CONTINUE`].
    pub expects_continue: bool,
    /// `Content-Length`.
    pub content_length: Option<u64>,
    /// Whether the body has `Transfer-Encoding: chunked`, and no `Content-Length`.
    pub is_chunked: bool,
}

impl RequestHead {
    /// Returns the decoded path, from which both the signature's canonical form and the bucket and
    /// key are made.
    pub fn decoded_path(&self) -> &str {
        self.decoded_path.as_deref().unwrap_or(&self.path)
    }
}

/// Headers that the node reads as one value, besides all `x-amz-` and `x-keyhole-` headers but
/// lists. If one is repeated, readers differ on which counts, so the request is refused.
const SINGLE: [&str; 23] = [
    "access-control-request-headers",
    "access-control-request-method",
    "authorization",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "expect",
    "expires",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "origin",
    "range",
    "x-forwarded-host",
];

/// Returns whether repeated fields of this name are one list with commas, for the signature and for
/// the operation.
pub(crate) fn is_list(name: &str) -> bool {
    name.starts_with("x-amz-meta-") || name == "x-amz-object-attributes"
}

/// Returns whether a header belongs to S3 or to this node, and must be signed.
pub(crate) fn is_own(name: &str) -> bool {
    name.starts_with("x-amz-") || name.starts_with("x-keyhole-")
}

/// Returns whether all characters of a text are those of a token (RFC 9110 §5.6.2), as in the names
/// of headers.
pub(crate) fn is_token(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Parses a request head at the front of `bytes`. Returns it with its length, or `None` if more
/// bytes are needed.
///
/// # Errors
/// - [`ErrorCode::RequestHeaderSectionTooLarge`] beyond [`HEAD_MAX`] or [`HEADERS_MAX`];
/// - [`ErrorCode::NotImplemented`] for a `Transfer-Encoding` other than `chunked`;
/// - [`ErrorCode::InvalidURI`] for a target without a path, with an invalid escape, or with more than
///   [`QUERY_PARAMETERS_MAX`] parameters;
/// - the errors of [`Query::parse`];
/// - [`ErrorCode::InvalidRequest`] for anything else that is not an HTTP/1 request, for a repeated
///   header that has one value, for a length that is not a single number, for `Transfer-Encoding`
///   together with `Content-Length`, and for lines that end without CR (request smuggling).
pub fn parse_head(bytes: &[u8]) -> Result<Option<(RequestHead, usize)>, Error> {
    let mut fields = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let window = &bytes[..bytes.len().min(HEAD_MAX)];
    let len = match request.parse_with_uninit_headers(window, &mut fields) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(Error::new(ErrorCode::RequestHeaderSectionTooLarge));
        }
        Err(error) => {
            return Err(invalid(format!("Invalid HTTP/1.1 request: {error}.")));
        }
    };
    let sum = |len: fn(&httparse::Header<'_>) -> usize| request.headers.iter().map(len).sum();
    let mut headers =
        Headers::with_capacity(request.headers.len(), sum(|field| field.name.len()), sum(|field| field.value.len()));
    request.headers.iter().for_each(|field| headers.push(field.name, field.value));
    refuse_bare_line_ends(&window[..len])?;
    refuse_ambiguous(&headers)?;
    let (path, query) = split_target(request.path.unwrap_or_default(), &headers)?;
    let decoded_path = query::decode_path(path)?;
    let query = Query::parse(query)?;
    let path = path.to_owned();
    let content_length = content_length(&headers)?;
    let is_chunked = is_chunked(&headers)?;
    if is_chunked && (content_length.is_some() || request.version != Some(1)) {
        return Err(invalid("Transfer-Encoding requires HTTP/1.1 and excludes Content-Length."));
    }
    if request.version == Some(1) && headers.get("host").is_none() {
        return Err(invalid("An HTTP/1.1 request must have a Host header."));
    }
    let has_token = |name, token: &str| {
        headers
            .all(name)
            .filter_map(|value| std::str::from_utf8(value).ok())
            .any(|value| value.split(',').any(|item| item.trim().eq_ignore_ascii_case(token)))
    };
    let is_http_1_0 = request.version != Some(1);
    let keep_alive =
        if is_http_1_0 { has_token("connection", "keep-alive") } else { !has_token("connection", "close") };
    // HTTP/1.0 has no interim responses (RFC 9110 §10.1.1).
    let expects_continue = !is_http_1_0 && has_token("expect", "100-continue");
    let method = request.method.unwrap_or_default().to_owned();
    let head = RequestHead {
        method,
        path,
        decoded_path,
        query,
        headers,
        is_http_1_0,
        keep_alive,
        expects_continue,
        content_length,
        is_chunked,
    };
    Ok(Some((head, len)))
}

impl RequestHead {
    /// Returns the persistence to announce in a response after which the connection can stay open.
    pub fn persistence(&self) -> Persistence {
        match (self.keep_alive, self.is_http_1_0) {
            (false, _) => Persistence::Close,
            (true, false) => Persistence::Implied,
            (true, true) => Persistence::KeepAlive,
        }
    }
}

/// The persistence of a connection after a response (RFC 9112 §9.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Persistence {
    /// The connection closes.
    Close,
    /// The connection stays open, as HTTP/1.1 implies.
    Implied,
    /// The connection stays open, which an HTTP/1.0 client has to be told.
    KeepAlive,
}

/// Returns the error for a transfer encoding that S3 does not support.
pub(crate) fn unsupported_transfer_encoding() -> Error {
    let message =
        "A header you provided implies functionality that is not implemented: Transfer-Encoding. Send Content-Length.";
    Error::new(ErrorCode::NotImplemented).with_message(message)
}

fn is_chunked(headers: &Headers) -> Result<bool, Error> {
    let mut values = headers.all("transfer-encoding");
    match (values.next(), values.next()) {
        (None, _) => Ok(false),
        (Some(value), None) if value.eq_ignore_ascii_case(b"chunked") => Ok(true),
        _ => Err(unsupported_transfer_encoding()),
    }
}

fn invalid(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorCode::InvalidRequest).with_message(message)
}

/// Rejects an LF without CR, which some proxies do not read as the end of a line.
fn refuse_bare_line_ends(head: &[u8]) -> Result<(), Error> {
    let is_bare = |at: usize| at == 0 || head[at - 1] != b'\r';
    if memchr::memchr_iter(b'\n', head).any(is_bare) {
        return Err(invalid("Each line of a request head must end with CR LF."));
    }
    Ok(())
}

/// Rejects repeated headers that have one value. Also rejects runs of spaces in the middle of S3's
/// own headers: the signature has one space for them, so they could be changed on the way.
fn refuse_ambiguous(headers: &Headers) -> Result<(), Error> {
    for (i, (name, value)) in headers.iter().enumerate() {
        let is_own = is_own(name) && !is_list(name);
        if !is_own && !SINGLE.contains(&name) {
            continue;
        }
        if headers.iter().take(i).any(|(other, _)| other == name) {
            return Err(invalid("A header that has one value is given twice. Send it once.").with_field("Header", name));
        }
        if is_own && has_run_of_spaces(value) {
            let message = "A header has two spaces in a row. Send one, or encode them as %20.";
            return Err(invalid(message).with_field("Header", name));
        }
    }
    Ok(())
}

/// Returns whether a value has two spaces in a row.
pub(crate) fn has_run_of_spaces(value: &[u8]) -> bool {
    let pairs = value.iter().zip(value.iter().skip(1));
    // Without an early exit, so that the comparison is vectorised.
    pairs.fold(false, |found, (a, b)| found | ((*a == b' ') & (*b == b' ')))
}

/// Splits the path from the query of a target in origin form or absolute form (RFC 9112 §3.2). An
/// absolute form must name the same host as the header, which is signed.
fn split_target<'t>(target: &'t str, headers: &Headers) -> Result<(&'t str, &'t str), Error> {
    let target = match target.strip_prefix("http://").or_else(|| target.strip_prefix("https://")) {
        Some(rest) => {
            let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            if headers.get("host").is_some_and(|host| !host.eq_ignore_ascii_case(authority.as_bytes())) {
                return Err(invalid("The host in the request line is not that of the Host header."));
            }
            if target.starts_with('/') { target } else { return Ok(("/", target.strip_prefix('?').unwrap_or(target))) }
        }
        None => target,
    };
    if !target.starts_with('/') {
        return Err(Error::new(ErrorCode::InvalidURI));
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    check_parameters(query)?;
    Ok((path, query))
}

/// Checks the number of parameters before any of them is decoded.
fn check_parameters(query: &str) -> Result<(), Error> {
    // An empty pair is no parameter, but takes time as well.
    let count = if query.is_empty() { 0 } else { 1 + query.bytes().filter(|byte| *byte == b'&').count() };
    if count <= QUERY_PARAMETERS_MAX {
        return Ok(());
    }
    let message = format!("The query has {count} parameters; send at most {QUERY_PARAMETERS_MAX}.");
    Err(Error::new(ErrorCode::InvalidURI).with_message(message))
}

fn content_length(headers: &Headers) -> Result<Option<u64>, Error> {
    let mut values = headers.all("content-length");
    let Some(value) = values.next() else { return Ok(None) };
    // Digits only: a sign or white space is skipped by some parsers and not by others, which allows
    // request smuggling.
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(value).ok().filter(|_| is_number).and_then(|text| text.parse().ok());
    match (number, values.next()) {
        (Some(number), None) => Ok(Some(number)),
        _ => Err(invalid("Content-Length must be one number.")),
    }
}

/// A response, or the response head if the body is sent separately.
///
/// ```
/// use keyhole_s3::http::{Persistence, Response};
///
/// let response = Response::new(204).header("ETag", "\"1\"");
/// let head = response.head_bytes(None, "request-1", 0, Persistence::Implied);
/// assert!(head.starts_with(b"HTTP/1.1 204 No Content\r\n"));
/// ```
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The encoded header fields, without those that [`head_bytes`](Self::head_bytes) adds.
    fields: Vec<u8>,
    /// The body.
    pub body: Vec<u8>,
    /// The length to announce if it is not the length of `body`, as in responses to HEAD.
    pub content_length: Option<u64>,
}

impl Response {
    /// Creates a response without a body.
    pub fn new(status: u16) -> Self {
        Response { status, fields: Vec::new(), body: Vec::new(), content_length: None }
    }

    /// Creates a response with an XML document.
    pub fn xml(status: u16, document: String) -> Self {
        let mut response = Response::new(status).header("Content-Type", "application/xml");
        response.body = document.into_bytes();
        response
    }

    /// Adds a header field.
    ///
    /// # Panics
    /// If the value contains a control character other than TAB. Values from clients must be
    /// validated before.
    pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) -> Self {
        let name = name.as_ref();
        let value = value.as_ref();
        assert!(name.bytes().all(|b| b > b' ' && b < 0x7f && b != b':'), "invalid header name: {name:?}");
        assert!(value.iter().all(|b| (*b >= b' ' || *b == b'\t') && *b != 0x7f), "control character in {name}");
        if self.fields.capacity() == 0 {
            self.fields.reserve(FIELDS_USUAL);
        }
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            self.fields.extend_from_slice(part);
        }
        self
    }

    /// Sets the length to announce.
    pub fn content_length(mut self, len: u64) -> Self {
        self.content_length = Some(len);
        self
    }

    /// Encodes the response head. `content_length` is `None` if the status excludes a body.
    pub fn head_bytes(
        &self,
        content_length: Option<u64>,
        request_id: &str,
        now_ms: u64,
        persistence: Persistence,
    ) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_USUAL + self.fields.len());
        let mut line = |parts: &[&[u8]]| {
            parts.iter().for_each(|part| out.extend_from_slice(part));
            out.extend_from_slice(b"\r\n");
        };
        line(&[b"HTTP/1.1 ", itoa::Buffer::new().format(self.status).as_bytes(), b" ", reason(self.status).as_bytes()]);
        line(&[b"Server: keyhole"]);
        line(&[b"Date: ", http_date(now_ms).as_bytes()]);
        line(&[b"x-amz-request-id: ", request_id.as_bytes()]);
        if let Some(len) = content_length {
            line(&[b"Content-Length: ", itoa::Buffer::new().format(len).as_bytes()]);
        }
        match persistence {
            Persistence::Close => line(&[b"Connection: close"]),
            Persistence::Implied => {}
            Persistence::KeepAlive => line(&[b"Connection: keep-alive"]),
        }
        out.extend_from_slice(&self.fields);
        out.extend_from_slice(b"\r\n");
        out
    }
}

/// Length of the header fields of most responses.
const FIELDS_USUAL: usize = 512;

/// Length of the rest of a response head, and of a short body after it.
const HEAD_USUAL: usize = 256;

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        206 => "Partial Content",
        303 => "See Other",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        411 => "Length Required",
        412 => "Precondition Failed",
        416 => "Range Not Satisfiable",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        507 => "Insufficient Storage",
        _ => "",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Parses a complete request head.
    pub(crate) fn head(text: &str) -> RequestHead {
        let host = if text.to_ascii_lowercase().contains("\nhost:") { "" } else { "\r\nHost: h" };
        let text = text.replace('\n', "\r\n") + host + "\r\n\r\n";
        parse_head(text.as_bytes()).expect("a valid head").expect("a whole head").0
    }

    #[test]
    fn request_head_is_parsed_for_every_split() {
        let text = b"PUT /b/k%20y?x=1&y HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\nExpect: 100-Continue\r\nX-A: a\r\nx-a: b\r\n\r\nbody";
        let end = text.len() - 4;
        for cut in 0..end {
            assert!(parse_head(&text[..cut]).unwrap().is_none(), "{cut}");
        }
        let (head, len) = parse_head(text).unwrap().unwrap();
        assert_eq!(
            (len, head.method.as_str(), head.path.as_str(), head.decoded_path()),
            (end, "PUT", "/b/k%20y", "/b/k y")
        );
        assert_eq!((head.content_length, head.expects_continue, head.keep_alive), (Some(12), true, true));
        assert_eq!(head.query.pairs().collect::<Vec<_>>(), [("x", "1"), ("y", "")]);
        assert_eq!(head.headers.all("x-a").collect::<Vec<_>>(), [b"a", b"b"]);
        assert!(!format!("{head:?}").contains("12\""));
    }

    #[test]
    fn keep_alive_follows_version_and_header() {
        for (version, connection, expected) in
            [("1.1", "x", true), ("1.1", "Close", false), ("1.0", "x", false), ("1.0", "TE, Keep-Alive", true)]
        {
            let head = head(&format!("GET / HTTP/{version}\nConnection: {connection}"));
            assert_eq!(head.keep_alive, expected, "{version} {connection}");
        }
    }

    #[test]
    fn http_1_0_has_its_own_rules() {
        let get = |version: &str, fields: &str| head(&format!("GET / HTTP/{version}{fields}"));
        let host = |version: &str, field: &str| {
            parse_head(format!("GET / HTTP/{version}\r\n{field}\r\n").as_bytes())
                .map(|_| ())
                .map_err(|error| error.code)
        };
        assert_eq!((host("1.0", ""), host("1.1", "Host: h\r\n"), host("1.1", "Host:\r\n")), (Ok(()), Ok(()), Ok(())));
        assert_eq!(host("1.1", ""), Err(ErrorCode::InvalidRequest));
        for (version, connection, expected) in [
            ("1.1", "close", Persistence::Close),
            ("1.1", "keep-alive", Persistence::Implied),
            ("1.0", "x", Persistence::Close),
            ("1.0", "keep-alive", Persistence::KeepAlive),
        ] {
            let head = get(version, &format!("\nConnection: {connection}"));
            assert_eq!(head.persistence(), expected, "{version} {connection}");
        }
        let expects = |version: &str| get(version, "\nExpect: 100-continue").expects_continue;
        assert!(expects("1.1") && !expects("1.0"));
        let bytes = |persistence| String::from_utf8(Response::new(200).head_bytes(None, "r", 0, persistence)).unwrap();
        assert!(bytes(Persistence::KeepAlive).contains("\r\nConnection: keep-alive\r\n"));
        assert!(!bytes(Persistence::Implied).contains("Connection"));
    }

    #[test]
    fn malformed_request_heads_are_rejected() {
        let check = |text: &str, code| {
            let text = text.replace('\n', "\r\n") + "\r\n\r\n";
            assert_eq!(parse_head(text.as_bytes()).unwrap_err().code, code, "{text}");
        };
        check("GET / HTTP/1.1\nContent-Length: 1\nContent-Length: 1", ErrorCode::InvalidRequest);
        check("GET / HTTP/1.1\nContent-Length: +1", ErrorCode::InvalidRequest);
        check("GET / HTTP/1.1\nContent-Length: 1,1", ErrorCode::InvalidRequest);
        check("GET / HTTP/1.1\nContent-Length: 18446744073709551616", ErrorCode::InvalidRequest);
        check("GET / HTTP/1.1\nContent-Length:", ErrorCode::InvalidRequest);
        check("PUT / HTTP/1.1\nTransfer-Encoding: gzip, chunked", ErrorCode::NotImplemented);
        check("PUT / HTTP/1.1\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked", ErrorCode::NotImplemented);
        check("PUT / HTTP/1.1\nTransfer-Encoding:", ErrorCode::NotImplemented);
        check("PUT / HTTP/1.1\nTransfer-Encoding: chunked\nContent-Length: 0", ErrorCode::InvalidRequest);
        check("PUT / HTTP/1.0\nTransfer-Encoding: chunked", ErrorCode::InvalidRequest);
        check("GET / HTTP/1.1", ErrorCode::InvalidRequest);
        assert!(parse_head(b"GET / HTTP/1.0\r\n\r\n").unwrap().is_some());
        assert!(head("PUT / HTTP/1.1\nTransfer-Encoding: Chunked").is_chunked);
        check("GET / HTTP/1.1\nHost: a\nHost: a", ErrorCode::InvalidRequest);
        check("GET x HTTP/1.1", ErrorCode::InvalidURI);
        check("GET / HTTP/2.0", ErrorCode::InvalidRequest);
        check("\u{1}GET / HTTP/1.1", ErrorCode::InvalidRequest);
        let fields = |n| "GET / HTTP/1.1\nHost: h".to_owned() + &"\nA: b".repeat(n - 1);
        assert_eq!(head(&fields(HEADERS_MAX)).headers.iter().count(), HEADERS_MAX);
        check(&fields(HEADERS_MAX + 1), ErrorCode::RequestHeaderSectionTooLarge);
        let query = |n: usize| {
            let pairs: Vec<_> = (0..n).map(|i| format!("a{i}")).collect();
            format!("GET /?{} HTTP/1.1", pairs.join("&"))
        };
        assert_eq!(head(&query(QUERY_PARAMETERS_MAX)).query.names().count(), QUERY_PARAMETERS_MAX);
        check(&query(QUERY_PARAMETERS_MAX + 1), ErrorCode::InvalidURI);
        // Empty parameters count, and those behind a second question mark.
        check(&format!("GET /?{} HTTP/1.1", "&".repeat(QUERY_PARAMETERS_MAX)), ErrorCode::InvalidURI);
        check(&format!("GET http://h/?a?{} HTTP/1.1", "&b".repeat(QUERY_PARAMETERS_MAX)), ErrorCode::InvalidURI);
    }

    #[test]
    fn repeated_headers_are_rejected_unless_they_are_lists() {
        let check = |field: &str, expected: Option<ErrorCode>| {
            let host = if field.starts_with("Host") { "" } else { "Host: h\r\n" };
            let name = field.split(':').next().unwrap().to_ascii_uppercase();
            let text = format!("PUT /b/k HTTP/1.1\r\n{host}{field}\r\nA: b\r\n{name}: 2\r\n\r\n");
            let result = parse_head(text.as_bytes());
            assert_eq!(result.map(drop).map_err(|error| error.code).err(), expected, "{field}");
        };
        let names =
            ["x-amz-date", "x-amz-acl", "x-amz-server-side-encryption-customer-key", "x-keyhole-sealed", "x-amz-new"];
        for name in SINGLE.iter().chain(&names) {
            check(&format!("{name}: 2"), Some(ErrorCode::InvalidRequest));
        }
        for name in ["x-amz-meta-a", "x-amz-object-attributes", "x-forwarded-for", "via", "accept", "x-a"] {
            check(&format!("{name}: 2"), None);
        }
    }

    #[test]
    fn ambiguous_heads_are_rejected() {
        let check = |text: &str, expected: Option<ErrorCode>| {
            assert_eq!(parse_head(text.as_bytes()).map(drop).map_err(|error| error.code).err(), expected, "{text:?}");
        };
        let bad = Some(ErrorCode::InvalidRequest);
        check("GET / HTTP/1.1\r\nHost: h\r\n\r\n", None);
        for text in [
            "GET / HTTP/1.1\nHost: h\n\n",
            "GET / HTTP/1.1\r\nHost: h\nX: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n\n",
            // Folded lines, a space before the colon, and a CR or NUL in a value.
            "GET / HTTP/1.1\r\nHost: h\r\nX: 1\r\n 2\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nX : 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nX: 1\r2\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nX: 1\x002\r\n\r\n",
            // Runs of spaces, which the signature does not see.
            "PUT /b/k HTTP/1.1\r\nHost: h\r\nx-amz-copy-source: /b/a  b\r\n\r\n",
            // Another host than the signed one.
            "GET http://i/b/k HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET http://h:80/b/k HTTP/1.1\r\nHost: h\r\n\r\n",
        ] {
            check(text, bad);
        }
        check("PUT /b/k HTTP/1.1\r\nHost: h\r\nx-amz-meta-a: a  b\r\n\r\n", None);
        for (target, path, query) in [
            ("http://H/b/k?acl", "/b/k", "acl"),
            ("https://h", "/", ""),
            ("http://h?acl", "/", "acl"),
            ("http://h?prefix=/a", "/", "prefix"),
        ] {
            let (head, _) =
                parse_head(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).unwrap().unwrap();
            assert_eq!((&head.path[..], head.query.names().next().unwrap_or_default()), (path, query), "{target}");
        }
        for target in ["/b/%zz", "/b/%ff", "/b?a=%", "*", "http:/b"] {
            check(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"), Some(ErrorCode::InvalidURI));
        }
    }

    #[test]
    fn request_head_is_limited() {
        let text = |len: usize| {
            let start = "GET / HTTP/1.1\r\nHost: h\r\nA: ";
            format!("{start}{}\r\n\r\n", "b".repeat(len - start.len() - 4))
        };
        assert!(parse_head(text(HEAD_MAX).as_bytes()).unwrap().is_some());
        let error = parse_head(text(HEAD_MAX + 1).as_bytes()).unwrap_err();
        assert_eq!(error.code, ErrorCode::RequestHeaderSectionTooLarge);
    }

    #[test]
    #[should_panic(expected = "control character")]
    fn response_header_with_line_end_panics() {
        let _ = Response::new(200).header("a", "b\r\nc: d");
    }
}
