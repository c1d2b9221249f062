//! The I/O of the workers: one disk, listener and socket type over the ring and over plain calls, so
//! that the log and the node are compiled once.
//!
//! Each call is dispatched by a predictable branch. Its future is that of the implementation, not an
//! `async` function around it, which would hold the buffer a second time.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;

use futures_util::future::Either;
use keyhole_log::{Access, Disk, Extent};
use keyhole_node::Stream;

use crate::buffer::{Buffer, Pools};
use crate::epoll::{EpollListener, EpollStream, PlainDisk};
use crate::medium::Medium;
use crate::net::{Accept, ConnectionState, Connections, Listener, Socket};
use crate::uring::{UringDisk, UringListener, UringStream};

/// The I/O interface of the kernel that a node uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Interface {
    /// io_uring for disk and sockets.
    Uring,
    /// Plain calls for the disk, epoll for sockets.
    Epoll,
}

/// Makes a call on either variant, and returns the call's result.
macro_rules! dispatch {
    ($on:expr, $inner:ident => $call:expr) => {
        match $on {
            Self::Uring($inner) => $call,
            Self::Plain($inner) => $call,
        }
    };
}

/// Makes an asynchronous call on either variant, and returns the call's future.
macro_rules! dispatch_future {
    ($on:expr, $inner:ident => $call:expr) => {
        match $on {
            Self::Uring($inner) => Either::Left($call),
            Self::Plain($inner) => Either::Right($call),
        }
    };
}

/// A disk by either interface.
pub(crate) enum AnyDisk {
    Uring(UringDisk),
    Plain(PlainDisk),
}

impl AnyDisk {
    /// Opens one thread's handle of the object file or device.
    pub(crate) fn new(interface: Interface, medium: Medium, pools: Pools) -> io::Result<Self> {
        match interface {
            Interface::Uring => UringDisk::new(medium, pools).map(AnyDisk::Uring),
            Interface::Epoll => Ok(AnyDisk::Plain(PlainDisk::new(medium, pools))),
        }
    }
}

impl Disk for AnyDisk {
    type Buf = Buffer;

    fn buffer(&self) -> Buffer {
        dispatch!(self, disk => disk.buffer())
    }

    fn buffer_with_len(&self, len: usize) -> Buffer {
        dispatch!(self, disk => disk.buffer_with_len(len))
    }

    fn slice(buf: &mut Buffer, at: Range<usize>) -> &mut [u8] {
        buf.slice_mut(at)
    }

    fn mark_ciphertext(buf: &mut Buffer) {
        buf.mark_ciphertext();
    }

    fn wipe(buf: &mut Buffer, at: Range<usize>) {
        buf.wipe(at);
    }

    fn read(&self, offset: u64, buf: Buffer, at: Range<usize>) -> impl Future<Output = (io::Result<()>, Buffer)> {
        dispatch_future!(self, disk => disk.read(offset, buf, at))
    }

    fn read_short(&self, offset: u64, buf: Buffer, at: Range<usize>) -> impl Future<Output = (io::Result<()>, Buffer)> {
        dispatch_future!(self, disk => disk.read_short(offset, buf, at))
    }

    fn read_direct(
        &self,
        offset: u64,
        buf: Buffer,
        at: Range<usize>,
    ) -> impl Future<Output = (io::Result<()>, Buffer)> {
        dispatch_future!(self, disk => disk.read_direct(offset, buf, at))
    }

    fn choose_access(&self, block: u64, range: Range<u64>) -> Access {
        dispatch!(self, disk => disk.choose_access(block, range))
    }

    fn write(&self, offset: u64, buf: Buffer, at: Range<usize>) -> impl Future<Output = (io::Result<()>, Buffer)> {
        dispatch_future!(self, disk => disk.write(offset, buf, at))
    }

    fn write_durable(
        &self,
        offset: u64,
        buf: Buffer,
        at: Range<usize>,
    ) -> impl Future<Output = (io::Result<()>, Buffer)> {
        dispatch_future!(self, disk => disk.write_durable(offset, buf, at))
    }

    fn sync(&self) -> impl Future<Output = io::Result<()>> {
        dispatch_future!(self, disk => disk.sync())
    }

    fn len(&self) -> impl Future<Output = io::Result<u64>> {
        dispatch_future!(self, disk => disk.len())
    }

    fn discard(&self, offset: u64, len: u64) -> impl Future<Output = io::Result<()>> {
        dispatch_future!(self, disk => disk.discard(offset, len))
    }

    fn allocate(&self, offset: u64, len: u64) -> impl Future<Output = io::Result<()>> {
        dispatch_future!(self, disk => disk.allocate(offset, len))
    }

    fn extents(&self) -> impl Future<Output = io::Result<Option<Vec<Extent>>>> {
        dispatch_future!(self, disk => disk.extents())
    }

    fn first_write_is_slow(&self) -> bool {
        dispatch!(self, disk => disk.first_write_is_slow())
    }
}

/// A listener by either interface.
pub(crate) enum AnyListener {
    Uring(UringListener),
    Plain(EpollListener),
}

impl AnyListener {
    /// Makes an acceptor of a listening socket.
    pub(crate) fn new(interface: Interface, listener: Listener) -> io::Result<Self> {
        match interface {
            Interface::Uring => UringListener::new(listener).map(AnyListener::Uring),
            Interface::Epoll => EpollListener::new(listener).map(AnyListener::Plain),
        }
    }
}

impl Accept for AnyListener {
    type Stream = AnySocket;

    async fn accept(&self, connections: &Rc<Connections>) -> io::Result<AnySocket> {
        match self {
            AnyListener::Uring(listener) => listener.accept(connections).await.map(AnySocket::Uring),
            AnyListener::Plain(listener) => listener.accept(connections).await.map(AnySocket::Plain),
        }
    }

    fn close(self) {
        dispatch!(self, listener => listener.close());
    }
}

/// A client's socket by either interface.
pub(crate) enum AnySocket {
    Uring(UringStream),
    Plain(EpollStream),
}

impl Socket for AnySocket {
    fn state(&self) -> &ConnectionState {
        dispatch!(self, socket => socket.state())
    }

    fn has_pending_bytes(&self) -> bool {
        dispatch!(self, socket => socket.has_pending_bytes())
    }
}

impl Stream for AnySocket {
    type Buf = Buffer;

    fn slice(buf: &mut Buffer, at: Range<usize>) -> &mut [u8] {
        buf.slice_mut(at)
    }

    fn read_block(&self, buf: Buffer, at: Range<usize>) -> impl Future<Output = (io::Result<usize>, Buffer)> {
        dispatch_future!(self, socket => socket.read_block(buf, at))
    }

    fn write_block(&self, buf: Buffer, at: Range<usize>) -> impl Future<Output = (io::Result<()>, Buffer)> {
        dispatch_future!(self, socket => socket.write_block(buf, at))
    }

    fn read_bytes(&self, bytes: Vec<u8>) -> impl Future<Output = (io::Result<usize>, Vec<u8>)> {
        dispatch_future!(self, socket => socket.read_bytes(bytes))
    }

    fn read_request(&self, bytes: Vec<u8>) -> impl Future<Output = (io::Result<usize>, Vec<u8>)> {
        dispatch_future!(self, socket => socket.read_request(bytes))
    }

    fn is_ending(&self) -> bool {
        dispatch!(self, socket => socket.is_ending())
    }

    fn write_bytes(&self, bytes: Vec<u8>) -> impl Future<Output = (io::Result<()>, Vec<u8>)> {
        dispatch_future!(self, socket => socket.write_bytes(bytes))
    }

    fn peer(&self) -> SocketAddr {
        dispatch!(self, socket => socket.peer())
    }

    fn is_secure(&self) -> bool {
        dispatch!(self, socket => socket.is_secure())
    }

    fn close(&self) -> impl Future<Output = ()> {
        dispatch_future!(self, socket => socket.close())
    }

    fn interrupt(&self) {
        dispatch!(self, socket => socket.interrupt());
    }

    fn transferred(&self) -> u64 {
        dispatch!(self, socket => socket.transferred())
    }

    fn unsent(&self) -> u64 {
        dispatch!(self, socket => socket.unsent())
    }

    fn abort(&self) {
        dispatch!(self, socket => socket.abort());
    }
}
