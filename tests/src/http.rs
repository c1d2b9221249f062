//! A client for single HTTP/1.1 requests that sends the bytes of a test unchanged.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use socket2::{Domain, Socket, Type};

use crate::sigv4::{self, Signer, encode, encode_path};

/// Timeout of a reply.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A request builder.
#[derive(Clone)]
pub struct Request {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    payload: Option<String>,
    /// The date in ms since 1970; `None`: the system's.
    date_ms: Option<i64>,
    skew_ms: i64,
}

/// A response.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers, with lower-case names.
    pub headers: Vec<(String, String)>,
    /// The body as far as received.
    pub body: Vec<u8>,
    /// Whether the body has the announced length.
    pub is_complete: bool,
}

impl Request {
    /// Creates a request for an unencoded path such as `/bucket/key`.
    pub fn new(method: &str, path: &str) -> Self {
        Request {
            method: method.to_owned(),
            path: encode_path(path),
            query: Vec::new(),
            headers: Vec::new(),
            body: Vec::new(),
            payload: None,
            date_ms: None,
            skew_ms: 0,
        }
    }

    /// Returns whether the request has a header.
    pub fn has_header(&self, name: &str) -> bool {
        self.headers.iter().any(|(existing, _)| existing == name)
    }

    /// Returns whether the request has a query parameter.
    pub fn has_query(&self, name: &str) -> bool {
        self.query.iter().any(|(existing, _)| *existing == encode(name))
    }

    /// Replaces the path.
    pub fn with_path(mut self, path: &str) -> Self {
        self.path = encode_path(path);
        self
    }

    /// Adds a query parameter; an empty value omits the `=`.
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push((encode(name), encode(value)));
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into().to_lowercase(), value.into()));
        self
    }

    /// Adds several headers.
    pub fn headers<N: Into<String>, V: Into<String>>(mut self, headers: impl IntoIterator<Item = (N, V)>) -> Self {
        for (name, value) in headers {
            self = self.header(name, value);
        }
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Overrides `x-amz-content-sha256`.
    pub fn payload(mut self, payload: &str) -> Self {
        self.payload = Some(payload.to_owned());
        self
    }

    /// Sets the date, in ms since 1970.
    pub fn dated(mut self, date_ms: i64) -> Self {
        self.date_ms = Some(date_ms);
        self
    }

    /// Shifts the date by this much.
    pub fn skewed(mut self, skew_ms: i64) -> Self {
        self.skew_ms = skew_ms;
        self
    }

    /// Sends the request signed.
    pub fn send(&self, to: SocketAddr, signer: &Signer) -> Response {
        self.clone().signed(to, signer).send_unsigned(to)
    }

    /// Adds the headers of a signature, for the length of the current body.
    pub fn signed(self, to: SocketAddr, signer: &Signer) -> Self {
        let len = self.body.len() as u64;
        self.signed_for(to, signer, len)
    }

    /// Returns the date of the signature.
    fn date(&self) -> String {
        let date_ms = self.date_ms.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis();
            i64::try_from(now).expect("a time")
        });
        sigv4::amz_date(date_ms + self.skew_ms)
    }

    /// Turns the request into a presigned URL that is valid for `expires` seconds; the current
    /// headers are signed.
    pub fn presigned(mut self, to: SocketAddr, signer: &Signer, expires: u64) -> Self {
        let date = self.date();
        self.headers.push(("host".to_owned(), to.to_string()));
        for (name, value) in [
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", &signer.credential(&date)),
            ("X-Amz-Date", &date),
            ("X-Amz-Expires", &expires.to_string()),
            ("X-Amz-SignedHeaders", &sigv4::signed_headers(&self.headers)),
        ] {
            self = self.query(name, value);
        }
        let query = self.canonical_query();
        let payload = self.payload.clone().unwrap_or_else(|| "UNSIGNED-PAYLOAD".to_owned());
        let signature = signer.signature(&self.method, &self.path, &query, &self.headers, &payload, &date);
        self.query("X-Amz-Signature", &signature)
    }

    fn signed_for(mut self, to: SocketAddr, signer: &Signer, len: u64) -> Self {
        let date = self.date();
        let payload = self.payload.clone().unwrap_or_else(|| sigv4::sha256_hex(&self.body));
        let mut add = |name: &str, value: String| {
            if self.headers.iter().all(|(existing, _)| existing != name) {
                self.headers.push((name.to_owned(), value));
            }
        };
        add("host", to.to_string());
        add("x-amz-date", date.clone());
        add("x-amz-content-sha256", payload.clone());
        add("content-length", len.to_string());
        let query = self.canonical_query();
        let credential = signer.credential(&date);
        let signed = sigv4::signed_headers(&self.headers);
        let signature = signer.signature(&self.method, &self.path, &query, &self.headers, &payload, &date);
        let value = format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={signed}, Signature={signature}");
        self.headers.push(("authorization".to_owned(), value));
        self
    }

    /// Sends a generated body, unsigned, in a signed request.
    pub fn send_stream(mut self, to: SocketAddr, signer: &Signer, len: u64, mut body: impl Read) -> Response {
        self.payload = Some("UNSIGNED-PAYLOAD".to_owned());
        let request = self.signed_for(to, signer, len);
        let mut tcp = connect(to);
        tcp.write_all(request.head(to).as_bytes()).expect("a connection");
        let sent = io::copy(&mut body, &mut tcp).expect("the node accepts the body");
        assert_eq!(sent, len, "the body has the announced length");
        read_reply(&mut tcp, &request.method, |_| {}).expect("a reply")
    }

    /// Sends the request signed, and passes the response body to `sink` as it arrives.
    pub fn receive_stream(self, to: SocketAddr, signer: &Signer, sink: impl FnMut(&[u8])) -> Response {
        let request = self.signed(to, signer);
        let mut tcp = connect(to);
        tcp.write_all(request.head(to).as_bytes()).expect("a connection");
        read_reply(&mut tcp, &request.method, sink).expect("a reply")
    }

    /// Sends the request unchanged.
    pub fn send_unsigned(&self, to: SocketAddr) -> Response {
        self.try_send_unsigned(to).expect("a reply")
    }

    /// Sends the request unchanged over a connection that may break.
    pub fn try_send_unsigned(&self, to: SocketAddr) -> io::Result<Response> {
        self.try_send_within(to, TIMEOUT)
    }

    /// Sends the request unchanged, with this timeout.
    pub fn try_send_within(&self, to: SocketAddr, timeout: Duration) -> io::Result<Response> {
        let mut tcp = TcpStream::connect(to)?;
        tcp.set_read_timeout(Some(timeout))?;
        self.exchange(&mut tcp, &self.head(to))
    }

    /// Sends this request head and the body over an existing connection and returns the response.
    pub fn exchange(&self, connection: &mut (impl Read + Write), head: &str) -> io::Result<Response> {
        connection.write_all(head.as_bytes())?;
        // A node that rejects the request head may stop reading and still answer.
        let sending = connection.write_all(&self.body).and_then(|()| connection.flush());
        let mut body = Vec::new();
        let reply = read_reply(connection, &self.method, |bytes| body.extend_from_slice(bytes));
        match (reply, sending) {
            (Ok(response), _) => Ok(Response { body, ..response }),
            (Err(error), Ok(())) => Err(error),
            (Err(_), Err(error)) => Err(error),
        }
    }

    /// Returns the method.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Returns the whole request, head and body.
    pub fn to_bytes(&self, to: SocketAddr) -> Vec<u8> {
        [self.head(to).as_bytes(), &self.body].concat()
    }

    /// Returns path and query as in the request line.
    pub fn target(&self) -> String {
        let query = self.canonical_query();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{}{mark}{query}", self.path)
    }

    /// Returns the request head, for tests that modify it.
    pub fn head(&self, to: SocketAddr) -> String {
        self.lines(to) + "connection: close\r\n\r\n"
    }

    /// Returns the request head for a connection with further requests.
    pub fn keep_alive_head(&self, to: SocketAddr) -> String {
        self.lines(to) + "\r\n"
    }

    fn lines(&self, to: SocketAddr) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target());
        let has = |name: &str| self.headers.iter().any(|(existing, _)| existing == name);
        if !has("host") {
            head += &format!("host: {to}\r\n");
        }
        if !has("content-length") && !has("transfer-encoding") {
            head += &format!("content-length: {}\r\n", self.body.len());
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head
    }

    fn canonical_query(&self) -> String {
        let mut query = self.query.clone();
        query.sort_unstable();
        query.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
    }
}

/// Creates a request for an object in the bucket of
/// [`Node::with_bucket`](crate::Node::with_bucket).
pub fn object(method: &str, key: &str) -> Request {
    Request::new(method, &format!("/bucket/{key}"))
}

/// Returns a non-loopback address of this machine, if it has one.
pub fn outer_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Sends no packet: this yields the source address for the documentation network (RFC 5737).
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

/// Connects from this address of the machine.
pub fn connect_from(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect(&to.into())?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    Ok(socket.into())
}

fn connect(to: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(to).expect("the node listens");
    tcp.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    tcp
}

/// Reads some bytes. A process that is stopped and continued has its reads interrupted.
fn read_some(connection: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        match connection.read(buf) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Sends raw bytes and reads the response as to a request without a body.
pub fn exchange(to: SocketAddr, bytes: &[u8]) -> Response {
    let mut tcp = connect(to);
    tcp.write_all(bytes).expect("a connection");
    let mut body = Vec::new();
    let reply = read_reply(&mut tcp, "GET", |bytes| body.extend_from_slice(bytes)).expect("a reply");
    Response { body, ..reply }
}

/// Reads one response, skipping interim ones, and passes its body to `sink`.
pub fn read_reply(tcp: &mut impl Read, method: &str, mut sink: impl FnMut(&[u8])) -> io::Result<Response> {
    let mut received = Vec::new();
    let mut buf = vec![0; 256 * 1024];
    let (status, headers, mut rest) = loop {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut reply = httparse::Response::new(&mut fields);
        match reply.parse(&received).map_err(io::Error::other)? {
            httparse::Status::Complete(len) => {
                let status = reply.code.expect("a parsed reply has a status");
                if status == 100 {
                    received.drain(..len);
                    continue;
                }
                let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                let headers: Vec<(String, String)> =
                    reply.headers.iter().map(|field| (field.name.to_lowercase(), text(field.value))).collect();
                break (status, headers, received.split_off(len));
            }
            httparse::Status::Partial => {
                let len = read_some(tcp, &mut buf)?;
                if len == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                received.extend_from_slice(&buf[..len]);
            }
        }
    };
    let announced = headers.iter().find(|(name, _)| name == "content-length").map(|(_, value)| value.parse::<u64>());
    let announced = announced.transpose().map_err(io::Error::other)?;
    let has_body = method != "HEAD" && status != 204 && status != 304;
    let expected = if has_body { announced } else { Some(0) };
    let mut taken = 0;
    let mut take = |bytes: &[u8]| {
        taken += bytes.len() as u64;
        sink(bytes);
        taken
    };
    let mut so_far = take(&rest);
    rest.clear();
    while expected.is_none_or(|expected| so_far < expected) {
        match read_some(tcp, &mut buf) {
            Ok(0) => break,
            Ok(len) => so_far = take(&buf[..len]),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) => return Err(error),
        }
    }
    Ok(Response { status, headers, body: Vec::new(), is_complete: expected.is_none_or(|expected| so_far == expected) })
}

/// Returns the text of the first element of this name.
pub fn element(text: &str, name: &str) -> Option<String> {
    let start = text.find(&format!("<{name}>"))? + name.len() + 2;
    let len = text[start..].find(&format!("</{name}>"))?;
    Some(text[start..start + len].replace("&quot;", "\"").replace("&apos;", "'").replace("&amp;", "&"))
}

impl Response {
    /// Returns the value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(existing, _)| existing == name).map(|(_, value)| &value[..])
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the text of the first element of this name in the body.
    pub fn element(&self, name: &str) -> Option<String> {
        element(&self.text(), name)
    }

    /// Returns the response if it has this status; otherwise panics with its content.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}
