//! A connection: requests that are already serialised, and replies whose bodies are compared as
//! they arrive.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::{Error, Result};

/// Maximum length of a response head.
const HEAD_MAX: usize = 64 << 10;

/// Size of the receive buffer.
const BUFFER_LEN: usize = 256 << 10;

/// Maximum length of a body that is sent together with its head.
const JOINED_MAX: usize = 64 << 10;

/// Timeout of each operation.
const PATIENCE: Duration = Duration::from_secs(60);

/// Creates connections to one endpoint.
pub struct Connector {
    address: SocketAddr,
    authority: String,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Connector {
    /// Creates a connector for a URL; over TLS it trusts the certificates in a file.
    ///
    /// # Errors
    /// An invalid URL, an unknown host, or for `https` a file that is missing or holds no
    /// certificates.
    pub fn new(endpoint: &str, trusted: Option<&Path>) -> Result<Self> {
        let (is_tls, authority) = match endpoint.trim_end_matches('/').split_once("://") {
            Some(("http", authority)) => (false, authority),
            Some(("https", authority)) => (true, authority),
            _ => return Err(Error::of(endpoint, "invalid endpoint: expected http://HOST:PORT or https://HOST:PORT")),
        };
        let mut addresses = authority.to_socket_addrs().map_err(|error| Error::of(authority, error))?;
        let address = addresses.next().ok_or_else(|| Error::of(authority, "it has no address"))?;
        match (is_tls, trusted) {
            (false, _) => Ok(Connector::plain(address, authority)),
            (true, Some(file)) => Connector::tls(address, authority, file),
            (true, None) => Err(Error::new("missing --ca-bundle: https needs the certificates to trust")),
        }
    }

    /// Returns host and port, as in the `Host` header.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    fn plain(address: SocketAddr, authority: &str) -> Self {
        Connector { address, authority: authority.to_owned(), tls: None }
    }

    fn tls(address: SocketAddr, authority: &str, trusted: &Path) -> Result<Self> {
        let wrong = |error: &dyn fmt::Display| Error::new(format!("{}: {error}", trusted.display()));
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(trusted).map_err(|error| wrong(&error))? {
            roots.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
        }
        if roots.is_empty() {
            return Err(wrong(&"no certificate found"));
        }
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host).trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned()).map_err(|error| Error::new(format!("{host}: {error}")))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::new(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Connector { address, authority: authority.to_owned(), tls: Some((Arc::new(config), name)) })
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// The connection is refused, or the system is out of connections.
    pub fn connect(&self) -> Result<Connection> {
        let tcp = TcpStream::connect(self.address).map_err(|error| Error::new(format!("{}: {error}", self.address)))?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_write_timeout(Some(PATIENCE))?;
        let stream = match &self.tls {
            None => Stream::Plain(tcp),
            Some((config, name)) => {
                let connection = ClientConnection::new(Arc::clone(config), name.clone());
                let connection = connection.map_err(|error| Error::new(error.to_string()))?;
                Stream::Tls(Box::new(StreamOwned::new(connection, tcp)))
            }
        };
        Ok(Connection { stream, buffer: vec![0; BUFFER_LEN].into_boxed_slice(), joined: Vec::new() })
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(tcp) => tcp.read(buffer),
            Stream::Tls(tls) => tls.read(buffer),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Stream::Plain(tcp) => tcp.write_all(bytes),
            Stream::Tls(tls) => tls.write_all(bytes).and_then(|()| tls.flush()),
        }
    }
}

/// A response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Whether the connection stays open for another request.
    pub keeps: bool,
    /// The body of an error response.
    pub text: String,
}

/// A connection without a request in flight.
pub struct Connection {
    stream: Stream,
    buffer: Box<[u8]>,
    /// Head and body of a short request.
    joined: Vec<u8>,
}

impl Connection {
    /// Sends a request and reports progress of the body to `moved`.
    ///
    /// # Errors
    /// Errors of the connection.
    pub fn send(&mut self, head: &[u8], body: &[u8], mut moved: impl FnMut(usize)) -> io::Result<()> {
        if body.len() <= JOINED_MAX {
            self.joined.clear();
            self.joined.extend_from_slice(head);
            self.joined.extend_from_slice(body);
            self.stream.write_all(&self.joined)?;
            moved(body.len());
            return Ok(());
        }
        self.stream.write_all(head)?;
        for piece in body.chunks(BUFFER_LEN) {
            self.stream.write_all(piece)?;
            moved(piece.len());
        }
        Ok(())
    }

    /// Receives a response. The body of a success must equal `expected`, if given; otherwise its
    /// bytes are only counted. Reports progress of the body to `moved`.
    ///
    /// # Errors
    /// Errors of the connection, invalid HTTP, or a body of unexpected length or content.
    pub fn receive(&mut self, expected: Option<&[u8]>, len: usize, mut moved: impl FnMut(usize)) -> Result<Reply> {
        let mut filled = 0;
        let (status, keeps, body_len, head_len) = loop {
            let count = self.stream.read(&mut self.buffer[filled..])?;
            if count == 0 {
                return Err(Error::new("connection closed before a response"));
            }
            filled += count;
            let mut fields = [httparse::EMPTY_HEADER; 64];
            let mut reply = httparse::Response::new(&mut fields);
            let parsed = reply.parse(&self.buffer[..filled]);
            match parsed.map_err(|error| Error::new(format!("invalid response: {error}")))? {
                httparse::Status::Complete(head_len) => {
                    let field = |name: &str| {
                        let field = reply.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
                        field.and_then(|field| std::str::from_utf8(field.value).ok()).map(str::trim)
                    };
                    let body_len = field("content-length").and_then(|text| text.parse::<usize>().ok());
                    let keeps = !field("connection").is_some_and(|text| text.eq_ignore_ascii_case("close"));
                    let status = reply.code.unwrap_or(0);
                    let none = matches!(status, 100..=199 | 204 | 304);
                    let body_len = if none { Some(0) } else { body_len };
                    let lacking = || Error::new("unsupported response: no Content-Length");
                    break (status, keeps, body_len.ok_or_else(lacking)?, head_len);
                }
                httparse::Status::Partial if filled >= HEAD_MAX => {
                    return Err(Error::new(format!("response head longer than {HEAD_MAX} bytes")));
                }
                httparse::Status::Partial => {}
            }
        };
        let succeeds = (200..300).contains(&status);
        let mut text = Vec::new();
        let mut at = 0;
        let mut piece = head_len..filled;
        loop {
            let bytes = &self.buffer[piece];
            if at + bytes.len() > body_len {
                return Err(Error::new("response body longer than its Content-Length"));
            }
            if !succeeds {
                text.extend_from_slice(bytes);
            } else if expected.is_some_and(|expected| expected.get(at..at + bytes.len()) != Some(bytes)) {
                return Err(Error::new(format!("response body differs from byte {at} on")));
            } else {
                moved(bytes.len());
            }
            at += bytes.len();
            if at == body_len {
                break;
            }
            let count = self.stream.read(&mut self.buffer)?;
            if count == 0 {
                return Err(Error::new("connection closed within a body"));
            }
            piece = 0..count;
        }
        if succeeds && at != len {
            return Err(Error::new(format!("response body of {at} bytes: expected {len}")));
        }
        Ok(Reply { status, keeps, text: String::from_utf8_lossy(&text).into_owned() })
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn endpoints_are_parsed_or_rejected() {
        let connector = Connector::new("http://127.0.0.1:9/", None).unwrap();
        assert_eq!(connector.authority(), "127.0.0.1:9");
        for bad in ["127.0.0.1:9", "ftp://127.0.0.1:9", "https://127.0.0.1:9", "http://127.0.0.1"] {
            assert!(Connector::new(bad, None).is_err(), "{bad}");
        }
    }

    /// Receives a reply that a server sends.
    fn receive(reply: &'static [u8], expected: &[u8]) -> Result<Reply> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = thread::spawn(move || listener.accept().unwrap().0.write_all(reply).unwrap());
        let mut connection = Connector::new(&endpoint, None).unwrap().connect().unwrap();
        let reply = connection.receive(Some(expected), expected.len(), |_| {});
        server.join().unwrap();
        reply
    }

    #[test]
    fn response_bodies_are_compared_completely() {
        let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(receive(reply, b"hello").unwrap(), Reply { status: 200, keeps: true, text: String::new() });
        assert!(receive(reply, b"hallo").is_err() && receive(reply, b"hell").is_err() && receive(reply, b"").is_err());
        let refused =
            receive(b"HTTP/1.1 403 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno", b"hello").unwrap();
        assert_eq!(refused, Reply { status: 403, keeps: false, text: "no".to_owned() });
        assert!(receive(b"HTTP/1.1 200 OK\r\n", b"").is_err(), "a head without an end");
        assert!(receive(b"HTTP/1.1 200 OK\r\n\r\n", b"").is_err(), "no length");
    }
}
