//! A TLS connection over a plain one.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;

use keyhole_node::Stream;
use rustls::{Error, InvalidMessage};

use super::limits::SEND_PLAIN;
use super::session::{Session, Take, begins_with_record};
use crate::buffer::Buffer;
use crate::net::socket::Socket;

pub(crate) struct TlsStream<P> {
    plain: P,
    /// `None` while an operation uses it, and after the first failed one.
    session: RefCell<Option<Session>>,
}

impl<P: Socket> TlsStream<P> {
    pub(super) fn new(plain: P, session: Session) -> Self {
        TlsStream { plain, session: RefCell::new(Some(session)) }
    }

    /// Performs the handshake.
    pub(super) async fn handshake(&self) -> io::Result<()> {
        let mut session = self.take()?;
        // A silent client need not be waited for while the node shuts down.
        let mut is_silent = true;
        while session.is_handshaking() {
            let result = session.read(&mut |_| 0);
            if matches!(result, Err(Error::InvalidMessage(InvalidMessage::InvalidContentType))) {
                // Plain HTTP or another protocol, whose client would not understand an alert.
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the peer does not speak TLS"));
            }
            self.flush(&mut session).await?;
            result.map_err(broken)?;
            if session.is_handshaking() && self.receive(&mut session, is_silent).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            is_silent = false;
        }
        self.plain.state().mark_new();
        session.rest();
        self.put_back(session);
        Ok(())
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.plain.peer()
    }

    pub(super) fn abort_plain(&self) {
        self.plain.abort();
    }

    /// Closes a connection that does not speak TLS.
    pub(super) async fn close_plain(&self) {
        self.plain.close().await;
    }

    fn take(&self) -> io::Result<Session> {
        self.session.borrow_mut().take().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn put_back(&self, session: Session) {
        *self.session.borrow_mut() = Some(session);
    }

    /// Receives some plaintext; returns 0 at the peer's orderly end or, if `for_request`, when no
    /// further requests are accepted.
    async fn read(&self, take: Take<'_>, for_request: bool) -> io::Result<usize> {
        let mut session = self.take()?;
        loop {
            let result = session.read(take);
            self.flush(&mut session).await?;
            let len = result.map_err(broken)?;
            if len == 0 && !session.is_over() {
                let is_idle = for_request && !session.is_in_a_record();
                match self.receive(&mut session, is_idle).await {
                    Ok(0) => {}
                    Ok(_) => continue,
                    // Keep the session: a peer that was too slow gets an error reply.
                    Err(error) => {
                        self.put_back(session);
                        return Err(error);
                    }
                }
                // Between two requests nothing can be truncated, and many clients just disconnect.
                if !is_idle {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            session.rest();
            self.put_back(session);
            return Ok(len);
        }
    }

    /// Receives records into `buf`, after the first bytes of one in `buf[received]`, and decrypts them
    /// in place. Returns the length of the plaintext, which begins at `at.start`; 0 if no record had
    /// any.
    async fn read_in_place(
        &self,
        mut session: Session,
        mut buf: Buffer,
        at: &Range<usize>,
        mut received: Range<usize>,
    ) -> (io::Result<usize>, Buffer) {
        while !begins_with_record(&buf.as_ref()[received.clone()]) {
            let (result, back) = self.plain.read_block(buf, received.end..at.end).await;
            buf = back;
            match result {
                Ok(0) => return (Err(io::ErrorKind::UnexpectedEof.into()), buf),
                Ok(len) => received.end += len,
                // Keep the session: a peer that was too slow gets an error reply.
                Err(error) => {
                    session.keep(&buf.as_ref()[received]);
                    self.put_back(session);
                    return (Err(error), buf);
                }
            }
        }
        let result = session.read_in_place(&mut buf, received, at.start).map_err(broken);
        let result = self.flush(&mut session).await.and(result);
        if result.is_ok() {
            session.rest();
            self.put_back(session);
        }
        (result, buf)
    }

    /// Appends some plaintext to `bytes`.
    async fn read_onto(&self, mut bytes: Vec<u8>, for_request: bool) -> (io::Result<usize>, Vec<u8>) {
        let mut take = |plaintext: &[u8]| {
            let len = plaintext.len().min(bytes.capacity() - bytes.len());
            bytes.extend_from_slice(&plaintext[..len]);
            len
        };
        let result = self.read(&mut take, for_request).await;
        (result, bytes)
    }

    async fn write(&self, from: &[u8]) -> io::Result<()> {
        let mut session = self.take()?;
        for piece in from.chunks(SEND_PLAIN) {
            session.encrypt(piece).map_err(broken)?;
            self.flush(&mut session).await?;
        }
        session.rest();
        self.put_back(session);
        Ok(())
    }

    /// Receives bytes from the peer into the session; returns 0 at the end of the connection and,
    /// if `is_idle`, when no further requests are accepted.
    async fn receive(&self, session: &mut Session, is_idle: bool) -> io::Result<usize> {
        let too_long = || io::Error::new(io::ErrorKind::InvalidData, "a handshake message is too long");
        let (incoming, at) = session.room().ok_or_else(too_long)?;
        let (result, incoming) = if is_idle {
            self.plain.read_request_block(incoming, at).await
        } else {
            self.plain.read_block(incoming, at).await
        };
        let len = result?;
        session.received(incoming, len);
        Ok(len)
    }

    /// Sends the queued bytes.
    async fn flush(&self, session: &mut Session) -> io::Result<()> {
        let Some(outgoing) = session.sendable() else { return Ok(()) };
        let (result, outgoing) = self.plain.write_bytes(outgoing).await;
        session.sent(outgoing);
        result
    }
}

fn broken(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<P: Socket> Stream for TlsStream<P> {
    type Buf = Buffer;

    fn slice(buf: &mut Buffer, at: Range<usize>) -> &mut [u8] {
        buf.slice_mut(at)
    }

    async fn read_block(&self, mut buf: Buffer, at: Range<usize>) -> (io::Result<usize>, Buffer) {
        let start = at.start;
        loop {
            let mut session = match self.take() {
                Ok(session) => session,
                Err(error) => return (Err(error), buf),
            };
            let Some(received) = session.begin_in_place(&mut buf, &at) else {
                self.put_back(session);
                break;
            };
            let (result, back) = self.read_in_place(session, buf, &at, received).await;
            buf = back;
            if !matches!(result, Ok(0)) {
                return (result, buf);
            }
        }
        let before = buf.receive(at.end);
        let to = buf.slice_mut(at);
        let mut filled = 0;
        let mut take = |plaintext: &[u8]| {
            let len = plaintext.len().min(to.len() - filled);
            to[filled..filled + len].copy_from_slice(&plaintext[..len]);
            filled += len;
            len
        };
        let result = self.read(&mut take, false).await;
        buf.received(before, start + filled);
        (result, buf)
    }

    async fn write_block(&self, buf: Buffer, at: Range<usize>) -> (io::Result<()>, Buffer) {
        let result = self.write(&buf.as_ref()[at]).await;
        (result, buf)
    }

    async fn read_bytes(&self, bytes: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        self.read_onto(bytes, false).await
    }

    async fn read_request(&self, bytes: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        self.read_onto(bytes, true).await
    }

    fn is_ending(&self) -> bool {
        self.plain.is_ending()
    }

    async fn write_bytes(&self, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        let result = self.write(&bytes).await;
        (result, bytes)
    }

    fn peer(&self) -> SocketAddr {
        self.plain.peer()
    }

    fn is_secure(&self) -> bool {
        true
    }

    async fn close(&self) {
        if let Ok(mut session) = self.take()
            && session.close_notify().is_ok()
        {
            // An error is harmless: the peer is gone.
            let _ = self.flush(&mut session).await;
        }
        self.plain.close().await;
    }

    fn interrupt(&self) {
        self.plain.interrupt();
    }

    fn transferred(&self) -> u64 {
        self.plain.transferred()
    }

    fn unsent(&self) -> u64 {
        self.plain.unsent()
    }

    fn abort(&self) {
        self.plain.abort();
    }
}
