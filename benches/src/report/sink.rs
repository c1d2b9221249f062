//! An S3 service that keeps the metadata of objects and discards their bytes: it stands for a service on
//! another machine, whose processors and disk are its own.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::{Error, Result};

/// Longest head of a request in bytes.
const HEAD_MAX: usize = 32 << 10;

/// Headers of a request.
const HEADERS_MAX: usize = 64;

/// Size of the receive buffer in bytes.
const BUFFER_LEN: usize = 128 << 10;

const LISTING: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult \
                       xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><IsTruncated>false</IsTruncated>\
                       <KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys></ListBucketResult>";

/// The nice value of the threads: they take processors that the clients and the node leave free.
const NICENESS: i32 = 19;

/// Response headers of the objects, by path.
type Objects = Arc<Mutex<HashMap<String, String>>>;

/// Starts a service on the loopback interface. It ends with the process.
///
/// # Errors
/// The address cannot be bound.
pub(super) fn start() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| Error::of("cannot listen", error))?;
    let address = listener.local_addr()?;
    let objects = Objects::default();
    thread::spawn(move || {
        // Threads inherit it. Without it, the figures are those of a busier machine.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        for stream in listener.incoming().flatten() {
            let objects = Arc::clone(&objects);
            // The client repeats the request on another connection after an error.
            thread::spawn(move || drop(serve(&stream, &objects)));
        }
    });
    Ok(address)
}

fn serve(stream: &TcpStream, objects: &Objects) -> Result<()> {
    let mut input = BufReader::with_capacity(BUFFER_LEN, stream);
    while let Some(request) = Request::receive(&mut input)? {
        if request.expects_continue {
            (&*stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut left = request.body_len;
        while left > 0 {
            let arrived = input.fill_buf()?.len();
            if arrived == 0 {
                return Ok(());
            }
            let used = left.min(arrived as u64);
            input.consume(used as usize);
            left -= used;
        }
        (&*stream).write_all(request.answer(objects).as_bytes())?;
    }
    Ok(())
}

struct Request {
    method: String,
    path: String,
    has_query: bool,
    body_len: u64,
    expects_continue: bool,
    /// User metadata, as response headers.
    metadata: String,
}

impl Request {
    /// Receives the head of a request. `None`: the connection was closed.
    fn receive(input: &mut BufReader<&TcpStream>) -> Result<Option<Self>> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let line = input.by_ref().take(HEAD_MAX as u64).read_until(b'\n', &mut head)?;
            if line == 0 {
                return Ok(None);
            }
            if head.len() > HEAD_MAX {
                return Err(Error::new("the head of a request is too long"));
            }
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        parsed.parse(&head).map_err(|error| Error::of("a request", error))?;
        let target = parsed.path.unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request = Request {
            method: parsed.method.unwrap_or_default().to_owned(),
            path: path.to_owned(),
            has_query: !query.is_empty(),
            body_len: 0,
            expects_continue: false,
            metadata: String::new(),
        };
        for header in parsed.headers.iter() {
            let (name, value) = (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value));
            match &name[..] {
                "content-length" => {
                    request.body_len = value.parse().map_err(|error| Error::of("Content-Length", error))?;
                }
                "expect" => request.expects_continue = true,
                _ if name.starts_with("x-amz-meta-") => drop(write!(request.metadata, "{name}: {value}\r\n")),
                _ => {}
            }
        }
        Ok(Some(request))
    }

    fn answer(self, objects: &Objects) -> String {
        let mut objects = objects.lock().unwrap_or_else(PoisonError::into_inner);
        let dates = "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nETag: \"0\"\r\n";
        match &self.method[..] {
            "PUT" => {
                let Request { path, metadata, body_len, .. } = self;
                objects.insert(path, format!("{metadata}{dates}Content-Length: {body_len}\r\n"));
                "HTTP/1.1 200 OK\r\nETag: \"0\"\r\nContent-Length: 0\r\n\r\n".to_owned()
            }
            "HEAD" => match objects.get(&self.path) {
                Some(headers) => format!("HTTP/1.1 200 OK\r\n{headers}\r\n"),
                None => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
            },
            "GET" if self.has_query => {
                let len = LISTING.len();
                format!("HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: {len}\r\n\r\n{LISTING}")
            }
            "DELETE" => {
                objects.remove(&self.path);
                "HTTP/1.1 204 No Content\r\n\r\n".to_owned()
            }
            _ => "HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\n\r\n".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(stream: &mut TcpStream, request: &str) -> String {
        stream.write_all(request.as_bytes()).unwrap();
        let mut reply = vec![0; 4096];
        let len = stream.read(&mut reply).unwrap();
        String::from_utf8_lossy(&reply[..len]).into_owned()
    }

    #[test]
    fn stored_object_keeps_its_metadata_until_it_is_deleted() {
        let mut stream = TcpStream::connect(start().unwrap()).unwrap();
        let head = "HEAD /b/k HTTP/1.1\r\n\r\n";
        assert!(exchange(&mut stream, head).starts_with("HTTP/1.1 404"));
        let put = "PUT /b/k HTTP/1.1\r\nContent-Length: 3\r\nx-amz-meta-A: b\r\n\r\nabc";
        assert!(exchange(&mut stream, put).starts_with("HTTP/1.1 200"));
        let found = exchange(&mut stream, head);
        assert!(found.contains("x-amz-meta-a: b\r\n") && found.contains("Content-Length: 3\r\n"), "{found}");
        assert!(exchange(&mut stream, "GET /b?list-type=2 HTTP/1.1\r\n\r\n").ends_with(LISTING));
        assert!(exchange(&mut stream, "DELETE /b/k HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 204"));
        assert!(exchange(&mut stream, head).starts_with("HTTP/1.1 404"));
    }
}
