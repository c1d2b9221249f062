//! The cost of the network alone: a server that reads requests and sends replies of one length. It
//! stores, compares, encrypts and writes nothing.

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{self, Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;

use super::bytes::AlignedBytes;
use crate::{Error, Result};

/// The argument that starts a process as this server.
pub const COMMAND: &str = "bare-server";

/// Number of server threads, equal to the number of nginx processes.
pub(super) const THREADS: usize = 2;

/// Size of the receive buffer.
const BUFFER_LEN: usize = 256 << 10;

/// Maximum length of a request head.
const HEAD_MAX: usize = 16 << 10;

/// Alignment of bodies in memory.
const PAGE: usize = 4096;

/// Prefix of the line printed once it listens.
const READY: &str = "listening on ";

/// The response to a request with a body.
const TAKEN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// A bare server in a process of its own, so that its CPU time is separate. It ends with its parent
/// process.
pub(super) struct Bare {
    child: Child,
    address: SocketAddr,
}

impl Bare {
    /// Starts a server whose replies to GET have this many bytes.
    pub(super) fn start(reply_len: usize) -> Result<Self> {
        let failed = |error: io::Error| Error::of("cannot start the bare server", error);
        let mut child = Command::new(env::current_exe().map_err(failed)?)
            .args([COMMAND, &reply_len.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let out = child.stdout.take().ok_or_else(|| Error::new("bare server without output"))?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).map_err(failed)?;
        let address = line.trim().strip_prefix(READY).and_then(|address| address.parse().ok());
        match address {
            Some(address) => Ok(Bare { child, address }),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                Err(Error::new("bare server did not start: see its output above"))
            }
        }
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection and the state of its current request.
struct BareConnection {
    stream: TcpStream,
    request: Incoming,
}

/// A request that is being received.
#[derive(Default)]
struct Incoming {
    /// The head received so far.
    head: Vec<u8>,
    /// Bytes of the body still to be received.
    body_left: usize,
}

/// The kind of a complete request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// A request without a body, answered with one.
    Get,
    /// A request with a body.
    Put,
}

impl Incoming {
    /// Consumes received bytes of one request and returns its kind if it is complete. Clients wait
    /// for the answer before the next request.
    fn feed(&mut self, bytes: &[u8]) -> Result<Option<End>> {
        if self.body_left > 0 {
            return self.body(bytes.len());
        }
        let earlier = self.head.len();
        let whole = if earlier > 0 {
            self.head.extend_from_slice(bytes);
            &self.head
        } else {
            bytes
        };
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(whole).map_err(|error| Error::of("no request", error))? {
            httparse::Status::Complete(len) => {
                let field = request.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
                let text = field.and_then(|field| std::str::from_utf8(field.value).ok());
                let body: usize = text.and_then(|text| text.parse().ok()).unwrap_or(0);
                let received = whole.len() - len;
                self.head.clear();
                if body == 0 {
                    return Ok(Some(End::Get));
                }
                self.body_left = body;
                self.body(received)
            }
            httparse::Status::Partial if whole.len() > HEAD_MAX => Err(Error::new("a head that does not end")),
            httparse::Status::Partial => {
                if earlier == 0 {
                    self.head.extend_from_slice(bytes);
                }
                Ok(None)
            }
        }
    }

    fn body(&mut self, received: usize) -> Result<Option<End>> {
        self.body_left = self.body_left.checked_sub(received).ok_or_else(|| Error::new("a body that is too long"))?;
        Ok((self.body_left == 0).then_some(End::Put))
    }
}

/// The epoll instance of one thread and its connections, by number.
struct Waiting {
    epoll: OwnedFd,
    connections: Mutex<Vec<Option<BareConnection>>>,
}

/// Serves until standard input ends.
///
/// # Errors
/// Errors of the system.
pub fn serve(reply_len: usize) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {reply_len}\r\n\r\n");
    let mut reply = AlignedBytes::new(PAGE + reply_len);
    let begin = PAGE - head.len();
    reply[begin..PAGE].copy_from_slice(head.as_bytes());
    let waiting = (0..THREADS).map(|_| {
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(io::Error::from)?;
        Ok(Waiting { epoll, connections: Mutex::default() })
    });
    let waiting: Vec<Waiting> = waiting.collect::<Result<_>>()?;
    println!("{READY}{}", listener.local_addr()?);
    thread::scope(|scope| {
        for one in &waiting {
            let reply = &reply[begin..];
            scope.spawn(move || end_on_error(one.work(reply)));
        }
        scope.spawn(|| end_on_error(accept(&listener, &waiting)));
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        process::exit(0)
    })
}

/// Exits on an error, since the server is useless without one of its threads.
fn end_on_error(result: Result<()>) {
    if let Err(error) = result {
        eprintln!("the bare server: {error}");
        process::exit(1);
    }
}

/// Assigns connections to the threads in turn.
fn accept(listener: &TcpListener, waiting: &[Waiting]) -> Result<()> {
    for one in waiting.iter().cycle() {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut connections = one.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let number = EventData::new_u64(connections.len() as u64);
        epoll::add(&one.epoll, &stream, number, EventFlags::IN).map_err(io::Error::from)?;
        connections.push(Some(BareConnection { stream, request: Incoming::default() }));
    }
    Ok(())
}

impl Waiting {
    fn work(&self, reply: &[u8]) -> Result<()> {
        let mut buffer = AlignedBytes::new(BUFFER_LEN);
        let mut events = Vec::with_capacity(64);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
            let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
            for event in &events {
                let number = event.data.u64() as usize;
                let Some(connection) = connections.get_mut(number) else { continue };
                let keeps = match connection {
                    Some(connection) => connection.go_on(&mut buffer, reply).unwrap_or(false),
                    None => true,
                };
                if !keeps {
                    // Closing it removes it from the epoll instance.
                    *connection = None;
                }
            }
        }
    }
}

impl BareConnection {
    /// Receives the available bytes and answers a complete request; returns whether the connection
    /// stays open.
    fn go_on(&mut self, buffer: &mut [u8], reply: &[u8]) -> Result<bool> {
        let count = self.stream.read(buffer)?;
        if count == 0 {
            return Ok(false);
        }
        match self.request.feed(&buffer[..count])? {
            Some(End::Get) => self.stream.write_all(reply)?,
            Some(End::Put) => self.stream.write_all(TAKEN)?,
            None => {}
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the kind of a request that is split at every position.
    fn check(request: &[u8], expected: End) {
        for cut in 1..request.len() {
            let mut incoming = Incoming::default();
            assert_eq!(incoming.feed(&request[..cut]).unwrap(), None, "{cut}");
            assert_eq!(incoming.feed(&request[cut..]).unwrap(), Some(expected), "{cut}");
            assert_eq!(incoming.feed(request).unwrap(), Some(expected), "the next one, after {cut}");
        }
    }

    #[test]
    fn request_end_is_found_for_every_split() {
        check(b"GET /a HTTP/1.1\r\nhost: b\r\ncontent-length: 0\r\n\r\n", End::Get);
        check(b"PUT /a HTTP/1.1\r\nhost: b\r\nContent-Length: 5\r\n\r\nhello", End::Put);
    }

    #[test]
    fn malformed_request_closes_the_connection() {
        assert!(Incoming::default().feed(b"\0\r\n\r\n").is_err());
        assert!(Incoming::default().feed(b"PUT / HTTP/1.1\r\ncontent-length: 1\r\n\r\nab").is_err());
        let mut endless = Incoming::default();
        assert!((0..HEAD_MAX).any(|_| endless.feed(b"GET /aaaaaaaaaaaaa").is_err()));
    }
}
