//! Connections by epoll.

use std::cell::Cell;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::ops::Range;
use std::rc::{Rc, Weak};

use keyhole_node::Stream;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

use crate::activation::Listener;
use crate::buffer::Block;
use crate::worker::{Accept, Connections, Idle, LINGER, LINGER_BYTES, Open, Socket, has_come, in_time, unread};

/// A listener that accepts by the poller. Nothing of it goes on once it is dropped.
///
/// Where several workers share a socket each new connection wakes all of them that wait, and one gets it: a call that fails for
/// each of the others, once in a connection and not once in a request.
pub(crate) struct SharedListener(TcpListener);

impl SharedListener {
    pub(crate) fn new(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener).map(SharedListener)
    }

    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.accept().await
    }
}

pub(super) struct EpollListener(SharedListener);

impl EpollListener {
    pub(super) fn new(listener: Listener) -> io::Result<Self> {
        SharedListener::new(listener.socket).map(EpollListener)
    }
}

impl Accept for EpollListener {
    type Stream = EpollStream;

    async fn accept(&self, connections: &Rc<Connections>) -> io::Result<EpollStream> {
        let (tcp, peer) = self.0.accept().await?;
        tcp.set_nodelay(true)?;
        let inner = Rc::new(Inner { tcp, peer, open: connections.open(), is_reading: Cell::new(false) });
        let weak: Weak<dyn Idle> = Rc::downgrade(&inner) as Weak<dyn Idle>;
        connections.register(weak);
        Ok(EpollStream(inner))
    }

    /// The last of those who have the socket closes it.
    fn close(self) {}
}

pub(crate) struct EpollStream(Rc<Inner>);

struct Inner {
    tcp: TcpStream,
    peer: SocketAddr,
    open: Open,
    /// What is under way is to receive.
    is_reading: Cell<bool>,
}

impl Idle for Inner {
    fn stop_if_idle(&self) {
        if self.open.refuse_if_idle() {
            self.shut_down(Shutdown::Read);
        }
    }

    fn stop_if_late(&self) {
        if !self.open.is_late() {
            return;
        }
        // Who has begun a request is told; who does not take the reply cannot be.
        match self.is_reading.get() && !self.open.is_idle() {
            true => self.shut_down(Shutdown::Read),
            false => self.shut_down(Shutdown::Both),
        }
    }

    fn cut_off(&self) {
        self.shut_down(Shutdown::Both);
    }
}

impl Inner {
    async fn read(&self, to: &mut [u8]) -> io::Result<usize> {
        let reading = async {
            loop {
                if let Err(error) = self.tcp.readable().await {
                    return (Err(error), ());
                }
                match self.tcp.try_read(to) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return (result, ()),
                }
            }
        };
        self.is_reading.set(true);
        let result = self.open.timed(reading).await.0;
        self.is_reading.set(false);
        result
    }

    /// The peer owes a request; whether one is wanted.
    fn begin_request(&self) -> bool {
        self.open.begin_request(|| has_come(&SockRef::from(&self.tcp)))
    }

    /// Sends all; the time counts for each piece that the kernel takes.
    async fn write(&self, mut from: &[u8]) -> io::Result<()> {
        while !from.is_empty() {
            let writing = async {
                loop {
                    if let Err(error) = self.tcp.writable().await {
                        return (Err(error), ());
                    }
                    match self.tcp.try_write(from) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        result => return (result, ()),
                    }
                }
            };
            match self.open.timed(writing).await.0? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                len => from = &from[len..],
            }
        }
        Ok(())
    }

    fn shut_down(&self, how: Shutdown) {
        let _ = SockRef::from(&self.tcp).shutdown(how);
    }
}

impl Socket for EpollStream {
    async fn read_request_block(&self, buf: Block, at: Range<usize>) -> (io::Result<usize>, Block) {
        if !self.0.begin_request() {
            return (Ok(0), buf);
        }
        let (result, buf) = self.read_block(buf, at).await;
        (self.0.open.request_begun(result), buf)
    }

    fn still_owes_the_first(&self) {
        self.0.open.still_owes_the_first();
    }
}

impl Stream for EpollStream {
    type Buf = Block;

    fn part(buf: &mut Block, at: Range<usize>) -> &mut [u8] {
        buf.part(at)
    }

    async fn read_block(&self, mut buf: Block, at: Range<usize>) -> (io::Result<usize>, Block) {
        let (start, before) = (at.start, buf.receive(at.end));
        let result = self.0.read(buf.part(at)).await;
        if let Ok(len) = result {
            buf.received(before, start + len);
        }
        (result, buf)
    }

    async fn write_block(&self, buf: Block, at: Range<usize>) -> (io::Result<()>, Block) {
        let result = self.0.write(&buf.as_ref()[at]).await;
        (result, buf)
    }

    async fn read_bytes(&self, mut bytes: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        let (len, capacity) = (bytes.len(), bytes.capacity());
        bytes.resize(capacity, 0);
        let result = self.0.read(&mut bytes[len..]).await;
        bytes.truncate(len + result.as_ref().map_or(0, |len| *len));
        (result, bytes)
    }

    async fn read_request(&self, bytes: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        if !self.0.begin_request() {
            return (Ok(0), bytes);
        }
        let before = bytes.len();
        let (result, bytes) = self.read_bytes(bytes).await;
        unread(self.0.open.request_begun(result), bytes, before)
    }

    fn is_ending(&self) -> bool {
        self.0.open.is_draining()
    }

    async fn write_bytes(&self, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        let result = self.0.write(&bytes).await;
        (result, bytes)
    }

    fn peer(&self) -> SocketAddr {
        self.0.peer
    }

    fn is_secure(&self) -> bool {
        self.0.peer.ip().to_canonical().is_loopback()
    }

    async fn close(&self) {
        self.0.shut_down(Shutdown::Write);
        let discarding = async {
            let (mut buf, mut left) = (vec![0; 64 * 1024], LINGER_BYTES);
            while left > 0 {
                match self.0.read(&mut buf).await {
                    Ok(len) if len > 0 => left = left.saturating_sub(len),
                    _ => return,
                }
            }
        };
        in_time(LINGER, discarding, || self.0.shut_down(Shutdown::Both)).await;
    }

    fn abort(&self) {
        self.0.shut_down(Shutdown::Both);
    }
}
