//! The node's environment: connections, the clock and random bytes.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Instant;

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

    /// Returns a range of a buffer for writing, like [`Disk::part`](keyhole_log::Disk::part).
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

    /// Aborts the connection, so that the peer cannot mistake a truncated response for a complete
    /// one.
    fn abort(&self);
}

/// The clock and the source of random bytes.
pub trait Env: 'static {
    /// Returns the milliseconds since 1970-01-01T00:00:00Z.
    fn now_ms(&self) -> u64;

    /// Returns the time of a monotonic clock, for measuring durations.
    fn instant(&self) -> Instant;

    /// Fills `bytes` from the system's cryptographic generator.
    fn random(&self, bytes: &mut [u8]);

    /// Returns `N` random bytes.
    fn random_array<const N: usize>(&self) -> [u8; N]
    where
        Self: Sized,
    {
        let mut bytes = [0; N];
        self.random(&mut bytes);
        bytes
    }
}
