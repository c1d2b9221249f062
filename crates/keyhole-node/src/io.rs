//! What the node asks of the world: connections, the clock, random bytes.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Instant;

/// One accepted connection.
///
/// Buffers are owned, as completion-based I/O wants them: every call takes a buffer and gives it back. The
/// implementation keeps the time: where the peer is quiet for too long it shuts the connection down and the operation
/// fails with [`io::ErrorKind::TimedOut`].
#[allow(async_fn_in_trait)]
pub trait Stream: 'static {
    /// The buffer that blocks live in: the disk's own, so that a body is received into what is written.
    type Buf: AsRef<[u8]> + AsMut<[u8]> + 'static;

    /// A part of a buffer, to write to, as [`Disk::part`](keyhole_log::Disk::part).
    fn part(buf: &mut Self::Buf, at: Range<usize>) -> &mut [u8] {
        &mut buf.as_mut()[at]
    }

    /// Receives some bytes into `buf[at]`; `Ok(0)` is the peer's orderly end.
    async fn read_block(&self, buf: Self::Buf, at: Range<usize>) -> (io::Result<usize>, Self::Buf);

    /// Sends all of `buf[at]`.
    async fn write_block(&self, buf: Self::Buf, at: Range<usize>) -> (io::Result<()>, Self::Buf);

    /// Receives some bytes, appended to `bytes` within its spare capacity (which must not be nil).
    async fn read_bytes(&self, bytes: Vec<u8>) -> (io::Result<usize>, Vec<u8>);

    /// As [`read_bytes`](Self::read_bytes), for the first bytes of a request: `Ok(0)` as well where none is wanted any more.
    async fn read_request(&self, bytes: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        self.read_bytes(bytes).await
    }

    /// Whether the node is ending, so that the reply at hand is the last.
    fn is_ending(&self) -> bool {
        false
    }

    /// Sends all of `bytes`.
    async fn write_bytes(&self, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>);

    /// The address of the other end.
    fn peer(&self) -> SocketAddr;

    /// Whether a customer key may come this way: over TLS, or from this very machine. (What a trusted proxy says comes on top.)
    fn is_secure(&self) -> bool;

    /// Ends the connection in good order: says that nothing more is sent, discards what the peer still sends for a
    /// bounded time, then closes. (Closed at once, a reply that comes before the end of the request would be lost.)
    async fn close(&self);

    /// Ends the connection at once, so that the peer cannot take what it has for a whole reply.
    fn abort(&self);
}

/// The clock and the source of random bytes.
pub trait Env: 'static {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    fn now_ms(&self) -> u64;

    /// A clock that only goes forward, to measure with.
    fn instant(&self) -> Instant;

    /// Fills `bytes` from the system's cryptographic generator.
    fn random(&self, bytes: &mut [u8]);

    /// `N` random bytes.
    fn random_array<const N: usize>(&self) -> [u8; N]
    where
        Self: Sized,
    {
        let mut bytes = [0; N];
        self.random(&mut bytes);
        bytes
    }
}
