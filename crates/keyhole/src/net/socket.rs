//! Plain connections of the operating system.

use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::time::Duration;

use keyhole_node::Stream;
use keyhole_s3::wipe::wipe;
use socket2::SockRef;

use super::timeouts::ConnectionState;
use crate::buffer::Buffer;

/// Limits in time and bytes for draining a peer that still sends after its reply.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

const LINGER_BYTES: usize = 64 << 20;

/// Bytes that are discarded at a time.
const DISCARD_LEN: usize = 1 << 20;

/// A plain connection of the operating system, without TLS.
#[allow(async_fn_in_trait)]
pub(crate) trait Socket: Stream<Buf = Buffer> {
    /// Returns the connection's timeout state.
    fn state(&self) -> &ConnectionState;

    /// Returns whether the peer has sent bytes that were not received yet.
    fn has_pending_bytes(&self) -> bool;

    /// Reads the beginning of a request as `read_block` does; also returns `Ok(0)` if the node
    /// accepts no further requests.
    async fn read_request_block(&self, buf: Buffer, at: Range<usize>) -> (io::Result<usize>, Buffer) {
        if !self.state().begin_request(|| self.has_pending_bytes()) {
            return (Ok(0), buf);
        }
        let (result, buf) = self.read_block(buf, at).await;
        (self.state().request_begun(result), buf)
    }

    /// As [`read_request_block`](Self::read_request_block), but appends to `bytes`.
    async fn read_request_bytes(&self, bytes: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        if !self.state().begin_request(|| self.has_pending_bytes()) {
            return (Ok(0), bytes);
        }
        let before = bytes.len();
        let (result, bytes) = self.read_bytes(bytes).await;
        unread(self.state().request_begun(result), bytes, before)
    }
}

/// Returns whether the peer has sent bytes that were not received yet.
pub(crate) fn has_pending_bytes(socket: &SockRef<'_>) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    matches!(socket.recv_with_flags(&mut byte, libc::MSG_PEEK | libc::MSG_DONTWAIT), Ok(len) if len > 0)
}

/// Discards what a peer still sends, until it ends, or until `LINGER_BYTES` are reached. `receive`
/// waits for one byte.
pub(crate) async fn discard_rest(socket: &impl AsRawFd, mut receive: impl AsyncFnMut() -> io::Result<usize>) {
    let mut left = LINGER_BYTES;
    while left > 0 && matches!(receive().await, Ok(1)) {
        left = left.saturating_sub(1 + discard_pending_bytes(socket).unwrap_or(0));
    }
}

/// Discards the bytes that have arrived, at most `DISCARD_LEN`, and returns their count. They are
/// not copied into memory, because the body of a refused request may be plaintext of an object that
/// was to be encrypted.
fn discard_pending_bytes(socket: &impl AsRawFd) -> io::Result<usize> {
    // SAFETY: with `MSG_TRUNC`, a TCP socket copies nothing, so the pointer is not used.
    let len = unsafe {
        libc::recv(socket.as_raw_fd(), std::ptr::null_mut(), DISCARD_LEN, libc::MSG_TRUNC | libc::MSG_DONTWAIT)
    };
    usize::try_from(len).map_err(|_| io::Error::last_os_error())
}

/// Returns the bytes of the send queue that the peer has not acknowledged.
pub(crate) fn unsent(socket: &impl AsRawFd) -> u64 {
    let mut queued: libc::c_int = 0;
    // SAFETY: the descriptor is open, and the call writes one integer.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &mut queued) };
    if result == 0 { u64::try_from(queued).unwrap_or_default() } else { 0 }
}

/// Wipes and removes the bytes from `before` on if they do not count as received: they may contain
/// a customer key.
fn unread(result: io::Result<usize>, mut bytes: Vec<u8>, before: usize) -> (io::Result<usize>, Vec<u8>) {
    if matches!(result, Ok(0)) {
        wipe(&mut bytes[before..]);
        bytes.truncate(before);
    }
    (result, bytes)
}
