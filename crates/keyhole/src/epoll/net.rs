//! Connections by epoll.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::ops::Range;
use std::rc::{Rc, Weak};

use keyhole_node::Stream;
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::buffer::Buffer;
use crate::net::{
    Accept, ConnectionState, Connections, LINGER, Listener, SharedListener, Socket, Supervised, discard_rest,
    has_pending_bytes, in_time, unsent,
};

pub(crate) struct EpollListener(SharedListener);

impl EpollListener {
    pub(crate) fn new(listener: Listener) -> io::Result<Self> {
        SharedListener::new(listener.socket).map(EpollListener)
    }
}

impl Accept for EpollListener {
    type Stream = EpollStream;

    async fn accept(&self, connections: &Rc<Connections>) -> io::Result<EpollStream> {
        let (tcp, peer) = self.0.accept().await?;
        tcp.set_nodelay(true)?;
        let inner = Rc::new(EpollConnection { tcp, peer, state: connections.open() });
        let weak: Weak<dyn Supervised> = Rc::downgrade(&inner) as Weak<dyn Supervised>;
        connections.register(weak);
        Ok(EpollStream(inner))
    }

    /// The last owner of the socket closes it.
    fn close(self) {}
}

pub(crate) struct EpollStream(Rc<EpollConnection>);

struct EpollConnection {
    tcp: TcpStream,
    peer: SocketAddr,
    state: ConnectionState,
}

impl Supervised for EpollConnection {
    fn state(&self) -> &ConnectionState {
        &self.state
    }

    fn shut_down(&self, how: Shutdown) {
        let _ = SockRef::from(&self.tcp).shutdown(how);
    }

    fn unsent(&self) -> u64 {
        unsent(&self.tcp)
    }
}

impl EpollConnection {
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
        self.state.timed_read(reading).await.0
    }

    /// Sends everything; the timeout applies to each piece that the kernel accepts.
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
            match self.state.timed(writing).await.0? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                len => from = &from[len..],
            }
        }
        Ok(())
    }
}

impl Socket for EpollStream {
    fn state(&self) -> &ConnectionState {
        &self.0.state
    }

    fn has_pending_bytes(&self) -> bool {
        has_pending_bytes(&SockRef::from(&self.0.tcp))
    }
}

impl Stream for EpollStream {
    type Buf = Buffer;

    fn slice(buf: &mut Buffer, at: Range<usize>) -> &mut [u8] {
        buf.slice_mut(at)
    }

    async fn read_block(&self, mut buf: Buffer, at: Range<usize>) -> (io::Result<usize>, Buffer) {
        let start = at.start;
        let before = buf.receive(at.end);
        let result = self.0.read(buf.slice_mut(at)).await;
        if let Ok(len) = result {
            buf.received(before, start + len);
        }
        (result, buf)
    }

    async fn write_block(&self, buf: Buffer, at: Range<usize>) -> (io::Result<()>, Buffer) {
        let result = self.0.write(&buf.as_ref()[at]).await;
        (result, buf)
    }

    async fn read_bytes(&self, mut bytes: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        let len = bytes.len();
        let capacity = bytes.capacity();
        bytes.resize(capacity, 0);
        let result = self.0.read(&mut bytes[len..]).await;
        bytes.truncate(len + result.as_ref().map_or(0, |len| *len));
        (result, bytes)
    }

    async fn read_request(&self, bytes: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        self.read_request_bytes(bytes).await
    }

    fn is_ending(&self) -> bool {
        self.0.state.is_draining()
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
        let discarding = discard_rest(&self.0.tcp, async || self.0.read(&mut [0]).await);
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
