//! A connection that fails when it makes no progress.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// A connection, plain or with TLS.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// A connection that fails if it neither sends nor receives for a time. The length of a transfer is
/// not limited, since links may be slow.
pub(super) struct TimedStream {
    socket: Box<dyn Socket>,
    timeout: Duration,
    timer: Pin<Box<Sleep>>,
    /// Whether the timer has been set since the last progress.
    is_armed: bool,
}

impl TimedStream {
    pub(super) fn new(socket: Box<dyn Socket>, timeout: Duration) -> Self {
        TimedStream { socket, timeout, timer: Box::pin(sleep(timeout)), is_armed: false }
    }

    /// Passes on a result, or the failure after a timeout.
    fn timed<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.is_armed = false;
            return result;
        }
        if !self.is_armed {
            self.timer.as_mut().reset(Instant::now() + self.timeout);
            self.is_armed = true;
        }
        ready!(self.timer.as_mut().poll(cx));
        let seconds = self.timeout.as_secs();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, format!("no progress for {seconds} s"))))
    }
}

impl AsyncRead for TimedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.socket).poll_read(cx, buffer);
        self.timed(cx, result)
    }
}

impl AsyncWrite for TimedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.timed(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        self.timed(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A flush of an empty buffer is always ready, without progress.
        match Pin::new(&mut self.socket).poll_flush(cx) {
            Poll::Pending => self.timed(cx, Poll::Pending),
            ready => ready,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.socket).poll_shutdown(cx);
        self.timed(cx, result)
    }
}

impl Connection for TimedStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    const TIMEOUT: Duration = Duration::from_millis(200);

    #[test]
    fn silent_peer_times_out() {
        runtime().block_on(async {
            let (near, mut far) = duplex(16);
            let mut stream = TimedStream::new(Box::new(near), TIMEOUT);
            assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);

            let error = stream.write_all(&[0; 17]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "the peer does not read");
            far.read_exact(&mut [0; 16]).await.unwrap();
        });
    }

    #[test]
    fn slow_peer_does_not_time_out() {
        runtime().block_on(async {
            let (near, mut far) = duplex(1);
            let mut stream = TimedStream::new(Box::new(near), TIMEOUT);
            let feed = async {
                for byte in 0..8 {
                    sleep(TIMEOUT / 4).await;
                    far.write_u8(byte).await.unwrap();
                }
            };
            let mut bytes = [0; 8];
            let (read, ()) = tokio::join!(stream.read_exact(&mut bytes), feed);
            assert_eq!(read.unwrap(), 8);
            assert_eq!(bytes, [0, 1, 2, 3, 4, 5, 6, 7]);
        });
    }
}
