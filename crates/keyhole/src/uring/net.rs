//! Connections through the ring.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::{Rc, Weak};

use keyhole_node::Stream;
use socket2::SockRef;
use tokio_uring::buf::{BoundedBuf, BoundedBufMut, IoBuf};
use tokio_uring::net::{TcpListener, TcpStream};

use crate::buffer::Buffer;
use crate::net::{
    Accept, ConnectionState, Connections, LINGER, Listener, SharedListener, Socket, Supervised, discard_rest,
    has_pending_bytes, in_time, unsent,
};

pub(crate) enum UringListener {
    /// Of this process alone. An accept may be in flight when it is closed, so it is shut down.
    Own(TcpListener, std::net::TcpListener),
    /// Shared with another process. An accept in flight on the ring could take a connection that
    /// the other process is to serve, so it accepts through epoll.
    Shared(SharedListener),
}

impl UringListener {
    pub(crate) fn new(listener: Listener) -> io::Result<Self> {
        if listener.is_shared {
            return SharedListener::new(listener.socket).map(UringListener::Shared);
        }
        let same = listener.socket.try_clone()?;
        Ok(UringListener::Own(TcpListener::from_std(listener.socket), same))
    }

    async fn accept_tcp(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match self {
            UringListener::Own(listener, same) => match accept_waiting(same)? {
                Some((tcp, peer)) => Ok((TcpStream::from_std(tcp), peer)),
                None => listener.accept().await,
            },
            UringListener::Shared(listener) => {
                let (tcp, peer) = listener.accept().await?;
                let tcp = tcp.into_std()?;
                // The ring fails an operation on a non-blocking socket instead of waiting.
                tcp.set_nonblocking(false)?;
                Ok((TcpStream::from_std(tcp), peer))
            }
        }
    }
}

/// Accepts a connection if one waits. An accept on the ring takes a turn of the loop, and a flood of
/// connections brings more than one a turn.
fn accept_waiting(listener: &std::net::TcpListener) -> io::Result<Option<(std::net::TcpStream, SocketAddr)>> {
    let mut event = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one event is passed, and the call does not keep the pointer.
    let ready = unsafe { libc::poll(&raw mut event, 1, 0) };
    if ready < 1 || event.revents != libc::POLLIN {
        return Ok(None);
    }
    // Only this thread accepts from this socket, so the connection is still there.
    listener.accept().map(Some)
}

impl Accept for UringListener {
    type Stream = UringStream;

    async fn accept(&self, connections: &Rc<Connections>) -> io::Result<UringStream> {
        let (tcp, peer) = self.accept_tcp().await?;
        tcp.set_nodelay(true)?;
        let inner = Rc::new(UringConnection { tcp, peer, state: connections.open() });
        let weak: Weak<dyn Supervised> = Rc::downgrade(&inner) as Weak<dyn Supervised>;
        connections.register(weak);
        Ok(UringStream(inner))
    }

    fn close(self) {
        if let UringListener::Own(_, socket) = self {
            let _ = SockRef::from(&socket).shutdown(Shutdown::Both);
        }
    }
}

pub(crate) struct UringStream(Rc<UringConnection>);

struct UringConnection {
    tcp: TcpStream,
    peer: SocketAddr,
    state: ConnectionState,
}

impl Supervised for UringConnection {
    fn state(&self) -> &ConnectionState {
        &self.state
    }

    fn shut_down(&self, how: Shutdown) {
        let _ = self.tcp.shutdown(how);
    }

    fn unsent(&self) -> u64 {
        unsent(&self.tcp)
    }
}

impl UringConnection {
    async fn read<B: BoundedBufMut>(&self, buf: B) -> (io::Result<usize>, B) {
        self.state.timed_read(self.tcp.read(buf)).await
    }

    /// Sends everything; the timeout applies to each piece that the kernel accepts.
    async fn write<B: BoundedBuf<Buf = B> + IoBuf>(&self, mut buf: B, at: Range<usize>) -> (io::Result<()>, B) {
        let mut start = at.start;
        while start < at.end {
            let writing = self.tcp.write(BoundedBuf::slice(buf, start..at.end)).submit();
            let (result, slice) = self.state.timed(writing).await;
            buf = slice.into_inner();
            match result {
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buf),
                Ok(len) => start += len,
                Err(error) => return (Err(error), buf),
            }
        }
        (Ok(()), buf)
    }
}

impl Socket for UringStream {
    fn state(&self) -> &ConnectionState {
        &self.0.state
    }

    fn has_pending_bytes(&self) -> bool {
        // SAFETY: the stream owns the descriptor and outlives the borrow.
        let tcp = unsafe { BorrowedFd::borrow_raw(self.0.tcp.as_raw_fd()) };
        has_pending_bytes(&SockRef::from(&tcp))
    }
}

impl Stream for UringStream {
    type Buf = Buffer;

    fn slice(buf: &mut Buffer, at: Range<usize>) -> &mut [u8] {
        buf.slice_mut(at)
    }

    async fn read_block(&self, mut buf: Buffer, at: Range<usize>) -> (io::Result<usize>, Buffer) {
        let start = at.start;
        let before = buf.receive(at.end);
        let (result, slice) = self.0.read(BoundedBuf::slice(buf, at)).await;
        let mut buf = slice.into_inner();
        if let Ok(len) = result {
            buf.received(before, start + len);
        }
        (result, buf)
    }

    async fn write_block(&self, buf: Buffer, at: Range<usize>) -> (io::Result<()>, Buffer) {
        self.0.write(buf, at).await
    }

    async fn read_bytes(&self, bytes: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        let range = bytes.len()..bytes.capacity();
        let (result, slice) = self.0.read(bytes.slice(range)).await;
        (result, slice.into_inner())
    }

    async fn read_request(&self, bytes: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        self.read_request_bytes(bytes).await
    }

    fn is_ending(&self) -> bool {
        self.0.state.is_draining()
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
        // Timed, so that the place can be taken by another connection.
        let receive = async || self.0.read(Vec::with_capacity(1)).await.0;
        let discarding = discard_rest(&self.0.tcp, receive);
        in_time(LINGER, discarding, || self.0.cut_off()).await;
    }

    fn interrupt(&self) {
        self.0.interrupt();
    }

    fn transferred(&self) -> u64 {
        self.0.state.transferred()
    }

    fn unsent(&self) -> u64 {
        self.0.unsent()
    }

    fn abort(&self) {
        self.0.cut_off();
    }
}
