//! The platform of a node: its disk, its AES engine and its connections.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;

use keyhole_core::aead::Engine;
use keyhole_log::Disk;

/// The types that a node is built on.
pub trait Platform: Sized + 'static {
    /// The disk of the object file.
    type Disk: Disk;
    /// The AES engine.
    type Engine: Engine;
    /// The connections of clients.
    type Stream: Stream<Buf = <Self::Disk as Disk>::Buf>;
}

/// The buffers of a platform, for disk and connections alike.
pub(crate) type Buf<P> = <<P as Platform>::Disk as Disk>::Buf;

/// An accepted connection.
///
/// Buffers are owned, for completion-based I/O: each call takes a buffer and returns it. The
/// implementation enforces the timeouts: it shuts an idle connection down, and the pending
/// operation fails with [`io::ErrorKind::TimedOut`].
#[allow(async_fn_in_trait)]
pub trait Stream: 'static {
    /// The buffer of a block: the disk's own type, so that a body is received into the buffer that
    /// is written.
    type Buf: AsRef<[u8]> + AsMut<[u8]> + 'static;

    /// Returns a range of a buffer for writing, like [`Disk::slice`].
    fn slice(buf: &mut Self::Buf, at: Range<usize>) -> &mut [u8] {
        &mut buf.as_mut()[at]
    }

    /// Receives at least one byte into `buf[at]`; `Ok(0)` at the end of the stream.
    async fn read_block(&self, buf: Self::Buf, at: Range<usize>) -> (io::Result<usize>, Self::Buf);

    /// Sends all of `buf[at]`.
    async fn write_block(&self, buf: Self::Buf, at: Range<usize>) -> (io::Result<()>, Self::Buf);

    /// Receives at least one byte and appends it within the spare capacity of `bytes`, which must
    /// not be zero.
    async fn read_bytes(&self, bytes: Vec<u8>) -> (io::Result<usize>, Vec<u8>);

    /// Receives the first bytes of a request, like [`read_bytes`](Self::read_bytes). Also returns
    /// `Ok(0)` when no further request is accepted.
    async fn read_request(&self, bytes: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        self.read_bytes(bytes).await
    }

    /// Returns whether the node is shutting down, so that the current response is the last.
    fn is_ending(&self) -> bool {
        false
    }

    /// Sends all of `bytes`.
    async fn write_bytes(&self, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>);

    /// Returns the address of the peer.
    fn peer(&self) -> SocketAddr;

    /// Returns whether the connection itself admits customer keys: over TLS or from this machine.
    /// The headers of a trusted proxy are checked separately.
    fn is_secure(&self) -> bool;

    /// Closes the connection in order: shuts down sending, discards what the peer still sends for a
    /// bounded time, then closes. An immediate close could lose a response that was sent before the
    /// end of the request.
    async fn close(&self);

    /// Ends the pending operation: a receive returns `Ok(0)`, so that the request can still be
    /// answered; a send fails.
    fn interrupt(&self) {
        self.abort();
    }

    /// Returns the bytes received and sent since the connection was opened, those included that the
    /// system has accepted for sending.
    fn transferred(&self) -> u64 {
        0
    }

    /// Returns the accepted bytes that the peer has not received yet.
    fn unsent(&self) -> u64 {
        0
    }

    /// Aborts the connection, so that the peer cannot mistake a truncated response for a complete
    /// one.
    fn abort(&self);
}
