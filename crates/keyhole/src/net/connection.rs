//! A connection with or without TLS: one type, so that the code that serves it is compiled once.
//! Each future is that of the variant, not an `async` function around it: it holds its buffer once.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;

use futures_util::future::Either;
use keyhole_node::Stream;

use super::socket::Socket;
use super::tls::TlsStream;
use crate::buffer::Buffer;

// There is one for each connection, in its task's own memory: a box would add an allocation.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Connection<P> {
    Plain(P),
    Tls(TlsStream<P>),
}

impl<P: Socket> Stream for Connection<P> {
    type Buf = Buffer;

    fn slice(buf: &mut Buffer, at: Range<usize>) -> &mut [u8] {
        buf.slice_mut(at)
    }

    fn read_block(&self, buf: Buffer, at: Range<usize>) -> impl Future<Output = (io::Result<usize>, Buffer)> {
        match self {
            Connection::Plain(stream) => Either::Left(stream.read_block(buf, at)),
            Connection::Tls(stream) => Either::Right(stream.read_block(buf, at)),
        }
    }

    fn write_block(&self, buf: Buffer, at: Range<usize>) -> impl Future<Output = (io::Result<()>, Buffer)> {
        match self {
            Connection::Plain(stream) => Either::Left(stream.write_block(buf, at)),
            Connection::Tls(stream) => Either::Right(stream.write_block(buf, at)),
        }
    }

    fn read_bytes(&self, bytes: Vec<u8>) -> impl Future<Output = (io::Result<usize>, Vec<u8>)> {
        match self {
            Connection::Plain(stream) => Either::Left(stream.read_bytes(bytes)),
            Connection::Tls(stream) => Either::Right(stream.read_bytes(bytes)),
        }
    }

    fn read_request(&self, bytes: Vec<u8>) -> impl Future<Output = (io::Result<usize>, Vec<u8>)> {
        match self {
            Connection::Plain(stream) => Either::Left(stream.read_request(bytes)),
            Connection::Tls(stream) => Either::Right(stream.read_request(bytes)),
        }
    }

    fn is_ending(&self) -> bool {
        match self {
            Connection::Plain(stream) => stream.is_ending(),
            Connection::Tls(stream) => stream.is_ending(),
        }
    }

    fn write_bytes(&self, bytes: Vec<u8>) -> impl Future<Output = (io::Result<()>, Vec<u8>)> {
        match self {
            Connection::Plain(stream) => Either::Left(stream.write_bytes(bytes)),
            Connection::Tls(stream) => Either::Right(stream.write_bytes(bytes)),
        }
    }

    fn peer(&self) -> SocketAddr {
        match self {
            Connection::Plain(stream) => stream.peer(),
            Connection::Tls(stream) => stream.peer(),
        }
    }

    fn is_secure(&self) -> bool {
        match self {
            Connection::Plain(stream) => stream.is_secure(),
            Connection::Tls(stream) => stream.is_secure(),
        }
    }

    fn close(&self) -> impl Future<Output = ()> {
        match self {
            Connection::Plain(stream) => Either::Left(stream.close()),
            Connection::Tls(stream) => Either::Right(stream.close()),
        }
    }

    fn interrupt(&self) {
        match self {
            Connection::Plain(stream) => stream.interrupt(),
            Connection::Tls(stream) => stream.interrupt(),
        }
    }

    fn transferred(&self) -> u64 {
        match self {
            Connection::Plain(stream) => stream.transferred(),
            Connection::Tls(stream) => stream.transferred(),
        }
    }

    fn unsent(&self) -> u64 {
        match self {
            Connection::Plain(stream) => stream.unsent(),
            Connection::Tls(stream) => stream.unsent(),
        }
    }

    fn abort(&self) {
        match self {
            Connection::Plain(stream) => stream.abort(),
            Connection::Tls(stream) => stream.abort(),
        }
    }
}
