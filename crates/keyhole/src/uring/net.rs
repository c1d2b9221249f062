//! Connections through the ring.

use std::cell::Cell;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::ops::Range;
use std::rc::{Rc, Weak};

use keyhole_node::Stream;
use tokio_uring::buf::{BoundedBuf, BoundedBufMut, IoBuf};
use tokio_uring::net::{TcpListener, TcpStream};

use crate::buffer::Block;
use crate::worker::{Accept, Connections, Idle, LINGER, LINGER_BYTES, Open, Socket, in_time};

pub(super) struct UringListener(TcpListener);

impl UringListener {
    pub(super) fn new(listener: std::net::TcpListener) -> Self {
        UringListener(TcpListener::from_std(listener))
    }
}

impl Accept for UringListener {
    type Stream = UringStream;

    async fn accept(&self, connections: &Rc<Connections>) -> io::Result<UringStream> {
        let (tcp, peer) = self.0.accept().await?;
        tcp.set_nodelay(true)?;
        let inner = Rc::new(Inner { tcp, peer, is_idle: Cell::new(true), open: connections.open() });
        let weak: Weak<dyn Idle> = Rc::downgrade(&inner) as Weak<dyn Idle>;
        connections.register(weak);
        Ok(UringStream(inner))
    }
}

pub(crate) struct UringStream(Rc<Inner>);

struct Inner {
    tcp: TcpStream,
    peer: SocketAddr,
    /// Nothing has been received since the last reply was sent: the peer owes a request.
    is_idle: Cell<bool>,
    open: Open,
}

impl Idle for Inner {
    fn stop_if_idle(&self) {
        if self.is_idle.get() {
            let _ = self.tcp.shutdown(Shutdown::Read);
        }
    }

    fn stop_if_late(&self) {
        if self.open.is_late() {
            self.shut_down();
        }
    }
}

impl Inner {
    async fn read<B: BoundedBufMut>(&self, buf: B) -> (io::Result<usize>, B) {
        let (result, buf) = self.open.timed(self.tcp.read(buf)).await;
        if matches!(result, Ok(len) if len > 0) {
            self.is_idle.set(false);
        }
        (result, buf)
    }

    /// Sends all; the time counts for each piece that the kernel takes.
    async fn write<B: BoundedBuf<Buf = B> + IoBuf>(&self, mut buf: B, at: Range<usize>) -> (io::Result<()>, B) {
        let mut start = at.start;
        while start < at.end {
            let writing = self.tcp.write(BoundedBuf::slice(buf, start..at.end)).submit();
            let (result, slice) = self.open.timed(writing).await;
            buf = slice.into_inner();
            match result {
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buf),
                Ok(len) => start += len,
                Err(error) => return (Err(error), buf),
            }
        }
        self.is_idle.set(true);
        (Ok(()), buf)
    }

    fn shut_down(&self) {
        let _ = self.tcp.shutdown(Shutdown::Both);
    }
}

impl Socket for UringStream {
    fn is_draining(&self) -> bool {
        self.0.open.is_draining()
    }
}

impl Stream for UringStream {
    type Buf = Block;

    fn part(buf: &mut Block, at: Range<usize>) -> &mut [u8] {
        buf.part(at)
    }

    async fn read_block(&self, mut buf: Block, at: Range<usize>) -> (io::Result<usize>, Block) {
        let (start, before) = (at.start, buf.receive(at.end));
        let (result, slice) = self.0.read(BoundedBuf::slice(buf, at)).await;
        let mut buf = slice.into_inner();
        if let Ok(len) = result {
            buf.received(before, start + len);
        }
        (result, buf)
    }

    async fn write_block(&self, buf: Block, at: Range<usize>) -> (io::Result<()>, Block) {
        self.0.write(buf, at).await
    }

    async fn read_bytes(&self, bytes: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        if self.0.is_idle.get() && self.is_draining() {
            return (Ok(0), bytes);
        }
        let range = bytes.len()..bytes.capacity();
        let (result, slice) = self.0.read(bytes.slice(range)).await;
        (result, slice.into_inner())
    }

    async fn write_bytes(&self, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        let len = bytes.len();
        self.0.write(bytes, 0..len).await
    }

    fn peer(&self) -> SocketAddr {
        self.0.peer
    }

    fn is_secure(&self) -> bool {
        self.0.peer.ip().to_canonical().is_loopback()
    }

    async fn close(&self) {
        if self.0.tcp.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let discarding = async {
            let (mut buf, mut left) = (Vec::with_capacity(64 * 1024), LINGER_BYTES);
            while left > 0 {
                buf.clear();
                let (result, back) = self.0.tcp.read(buf).await;
                buf = back;
                match result {
                    Ok(len) if len > 0 => left = left.saturating_sub(len),
                    _ => return,
                }
            }
        };
        in_time(LINGER, discarding, || self.0.shut_down()).await;
    }

    fn abort(&self) {
        self.0.shut_down();
    }
}
