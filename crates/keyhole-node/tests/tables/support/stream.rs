//! The node's end of a connection in memory.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::task::{Poll, Waker};

use keyhole_node::Stream;
use keyhole_sim::disk::Buffer;

/// The bytes in flight between a client and the node.
pub(crate) struct Pipe {
    pub(crate) to_node: RefCell<VecDeque<u8>>,
    pub(crate) from_node: RefCell<VecDeque<u8>>,
    /// The node waits while the client has so many bytes to receive.
    pub(crate) room: Cell<usize>,
    /// The client sends nothing more.
    pub(crate) is_shut: Cell<bool>,
    /// How the node ended the connection.
    pub(crate) end: Cell<Option<End>>,
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
    is_secure: bool,
}

/// How the node ended a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Closed,
    Aborted,
}

impl Pipe {
    pub(crate) fn new(is_secure: bool) -> Self {
        Pipe {
            to_node: RefCell::default(),
            from_node: RefCell::default(),
            room: Cell::new(usize::MAX),
            is_shut: Cell::new(false),
            end: Cell::new(None),
            reader: RefCell::default(),
            writer: RefCell::default(),
            is_secure,
        }
    }

    /// Wakes the node, which waits for bytes.
    pub(crate) fn wake(&self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Wakes the node, which waits until the client has received bytes.
    pub(crate) fn wake_writer(&self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    /// Waits for room and adds bytes for the client.
    async fn send(&self, bytes: &[u8]) {
        poll_fn(|context| {
            if self.from_node.borrow().len() >= self.room.get() {
                *self.writer.borrow_mut() = Some(context.waker().clone());
                return Poll::Pending;
            }
            self.from_node.borrow_mut().extend(bytes);
            Poll::Ready(())
        })
        .await;
    }

    /// Waits for bytes and moves them to `to`. Returns 0 at the end.
    async fn receive(&self, to: &mut [u8]) -> usize {
        poll_fn(|context| {
            let mut from = self.to_node.borrow_mut();
            if from.is_empty() && !self.is_shut.get() {
                *self.reader.borrow_mut() = Some(context.waker().clone());
                return Poll::Pending;
            }
            let len = to.len().min(from.len());
            to[..len].iter_mut().zip(from.drain(..len)).for_each(|(to, byte)| *to = byte);
            Poll::Ready(len)
        })
        .await
    }
}

/// The node's end of a [`Pipe`].
pub(crate) struct MemoryStream(Rc<Pipe>);

impl MemoryStream {
    pub(crate) fn new(pipe: Rc<Pipe>) -> Self {
        MemoryStream(pipe)
    }
}

impl Stream for MemoryStream {
    type Buf = Buffer;

    async fn read_block(&self, mut buf: Buffer, at: Range<usize>) -> (io::Result<usize>, Buffer) {
        let len = self.0.receive(&mut buf.as_mut()[at]).await;
        (Ok(len), buf)
    }

    async fn write_block(&self, buf: Buffer, at: Range<usize>) -> (io::Result<()>, Buffer) {
        self.0.send(&buf.as_ref()[at]).await;
        (Ok(()), buf)
    }

    async fn read_bytes(&self, mut bytes: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        let filled = bytes.len();
        bytes.resize(bytes.capacity(), 0);
        let len = self.0.receive(&mut bytes[filled..]).await;
        bytes.truncate(filled + len);
        (Ok(len), bytes)
    }

    async fn write_bytes(&self, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        self.0.send(&bytes).await;
        (Ok(()), bytes)
    }

    fn peer(&self) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 4711))
    }

    fn is_secure(&self) -> bool {
        self.0.is_secure
    }

    async fn close(&self) {
        self.0.end.set(Some(End::Closed));
    }

    fn interrupt(&self) {
        self.0.is_shut.set(true);
        self.0.wake();
    }

    fn abort(&self) {
        self.0.end.set(Some(End::Aborted));
    }
}
