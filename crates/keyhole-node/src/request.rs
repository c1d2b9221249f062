//! Connections and requests: receives heads and bodies, sends responses.

use std::io;
use std::ops::Range;

use keyhole_s3::body::{BodyDecoder, Digests, Step};
use keyhole_s3::http::{self, RequestHead, Response};
use keyhole_s3::{Error, ErrorCode};
use zeroize::Zeroize;

use crate::failure::{Failure, Result};
use crate::io::Stream;
use crate::limits::{COALESCE_MAX, INBOX_LEN, WARM_LEN, XML_BODY_MAX};
use crate::observe::Account;

/// A connection and its input buffer.
pub(crate) struct Connection<S> {
    pub(crate) stream: S,
    /// Received bytes that are not parsed yet. The capacity is [`INBOX_LEN`] and never grows.
    /// Consumed bytes are wiped, because heads carry customer keys.
    inbox: Vec<u8>,
    /// The current request's body is not completely received, so the next bytes are not a request.
    body_pending: bool,
    /// The client waits for `100 Continue` before it sends the body.
    continue_pending: bool,
    /// Received body bytes of the current request.
    received: u64,
}

impl<S: Stream> Connection<S> {
    pub(crate) fn new(stream: S) -> Self {
        let inbox = Vec::with_capacity(INBOX_LEN);
        Connection { stream, inbox, body_pending: false, continue_pending: false, received: 0 }
    }

    /// Receives the next request head. Returns `None` if the peer closed the connection between two
    /// requests.
    pub(crate) async fn head(&mut self) -> Result<Option<RequestHead>> {
        loop {
            if let Some((head, consumed)) = http::parse_head(&self.inbox)? {
                self.consume(consumed);
                self.body_pending = head.is_chunked || head.content_length.is_some_and(|len| len > 0);
                self.continue_pending = head.expects_continue && self.body_pending;
                return Ok(Some(head));
            }
            if self.inbox.len() == INBOX_LEN {
                return Err(Failure::Reply(Error::new(ErrorCode::RequestHeaderSectionTooLarge)));
            }
            if self.receive_head().await.map_err(|error| self.too_slow(error))? == 0 {
                return match self.inbox.is_empty() {
                    true => Ok(None),
                    false => Err(Failure::Connection(io::ErrorKind::UnexpectedEof.into())),
                };
            }
        }
    }

    /// Maps a receive error. A timeout in the middle of a request gets a `RequestTimeout` response;
    /// an idle connection is closed without one.
    fn too_slow(&mut self, error: io::Error) -> Failure {
        let has_begun = self.body_pending || !self.inbox.is_empty();
        if has_begun && error.kind() == io::ErrorKind::TimedOut {
            // Prevents further input from being parsed as a request.
            self.body_pending = true;
            return ErrorCode::RequestTimeout.into();
        }
        error.into()
    }

    /// Returns whether another request can follow on this connection.
    pub(crate) fn is_clean(&self) -> bool {
        !self.body_pending && !self.stream.is_ending()
    }

    /// Takes the count of received body bytes and resets it.
    pub(crate) fn take_received(&mut self) -> u64 {
        std::mem::take(&mut self.received)
    }

    /// Receives some bytes into the inbox.
    async fn receive(&mut self) -> io::Result<usize> {
        let inbox = std::mem::take(&mut self.inbox);
        let (result, inbox) = self.stream.read_bytes(inbox).await;
        self.inbox = inbox;
        result
    }

    /// Receives bytes of a head. The first bytes of a request are refused while the node shuts
    /// down.
    async fn receive_head(&mut self) -> io::Result<usize> {
        if !self.inbox.is_empty() {
            return self.receive().await;
        }
        let inbox = std::mem::take(&mut self.inbox);
        let (result, inbox) = self.stream.read_request(inbox).await;
        self.inbox = inbox;
        result
    }

    /// Consumes `len` bytes from the front of the inbox and wipes the freed space.
    fn consume(&mut self, len: usize) {
        let rest = self.inbox.len() - len;
        self.inbox.copy_within(len.., 0);
        self.inbox[rest..].zeroize();
        self.inbox.truncate(rest);
    }

    /// Consumes and counts `len` bytes of a body.
    fn consume_payload(&mut self, len: usize) {
        self.received += len as u64;
        self.consume(len);
    }

    /// Sends a complete response, in a single write if it is small.
    pub(crate) async fn reply(
        &mut self,
        response: Response,
        context: &ReplyContext<'_>,
        account: &Account,
    ) -> io::Result<()> {
        let bodyless = matches!(response.status, 204 | 304);
        let length = (!bodyless).then(|| response.content_length.unwrap_or(response.body.len() as u64));
        let mut bytes = response.head_bytes(length, context.request_id, context.now_ms, context.keep_alive);
        if context.is_head || bodyless {
            return self.stream.write_bytes(bytes).await.0;
        }
        let len = response.body.len();
        if len <= COALESCE_MAX {
            bytes.extend_from_slice(&response.body);
            self.stream.write_bytes(bytes).await.0?;
        } else {
            self.stream.write_bytes(bytes).await.0?;
            self.stream.write_bytes(response.body).await.0?;
        }
        account.add_sent(len);
        Ok(())
    }
}

/// The parts of a request that its response depends on.
pub(crate) struct ReplyContext<'a> {
    pub(crate) request_id: &'a str,
    pub(crate) now_ms: u64,
    pub(crate) keep_alive: bool,
    pub(crate) is_head: bool,
}

/// The source of a body: a client, or a stored object that is copied.
#[allow(async_fn_in_trait)]
pub(crate) trait Payload<B> {
    /// Returns the number of remaining bytes; if unknown, non-zero until the end is reached.
    fn remaining(&self) -> u64;

    /// Returns the maximum number of remaining bytes.
    fn bound(&self) -> u64 {
        self.remaining()
    }

    /// Fills `buf[at]`, completely unless the payload ends. Returns the number of bytes filled.
    async fn fill(&mut self, buf: B, at: Range<usize>) -> (Result<usize>, B);
}

/// The body of the current request.
pub(crate) struct Receiver<'c, S> {
    connection: &'c mut Connection<S>,
    decoder: BodyDecoder,
}

impl<'c, S: Stream> Receiver<'c, S> {
    pub(crate) fn new(connection: &'c mut Connection<S>, decoder: BodyDecoder) -> Self {
        Receiver { connection, decoder }
    }

    /// Returns the payload length of the whole body.
    pub(crate) fn len(&self) -> u64 {
        self.decoder.payload_len()
    }

    /// Receives the end of the body's framing and verifies all declared digests.
    pub(crate) async fn finish(mut self) -> Result<Digests> {
        loop {
            match self.decoder.step(&self.connection.inbox)? {
                Step::Skip(len) => self.connection.consume(len),
                Step::Need => self.receive().await?,
                Step::Done => break,
                Step::Payload => return Err(ErrorCode::InternalError.into()),
            }
        }
        self.connection.body_pending = false;
        Ok(self.decoder.finish()?)
    }

    /// Receives and verifies a small body (an XML document).
    pub(crate) async fn read_document(mut self) -> Result<Vec<u8>> {
        if self.len() > XML_BODY_MAX {
            return Err(ErrorCode::EntityTooLarge.into());
        }
        let mut document = Vec::new();
        loop {
            match self.decoder.step(&self.connection.inbox)? {
                Step::Skip(len) => self.connection.consume(len),
                Step::Need => self.receive().await?,
                Step::Payload => {
                    if self.connection.inbox.is_empty() {
                        self.receive().await?;
                    }
                    let len = self.decoder.direct().min(self.connection.inbox.len() as u64) as usize;
                    document.extend_from_slice(&self.connection.inbox[..len]);
                    self.decoder.payload(&self.connection.inbox[..len]);
                    self.connection.consume_payload(len);
                }
                Step::Done => break,
            }
        }
        self.finish().await?;
        Ok(document)
    }

    /// Returns the unframed body bytes in the inbox that are not consumed yet.
    pub(crate) fn buffered(&self) -> &[u8] {
        let len = usize::try_from(self.decoder.direct()).unwrap_or(usize::MAX);
        &self.connection.inbox[..self.connection.inbox.len().min(len)]
    }

    /// Consumes `len` of the [`buffered`](Self::buffered) bytes.
    pub(crate) fn take(&mut self, len: usize) {
        self.decoder.payload(&self.connection.inbox[..len]);
        self.connection.consume_payload(len);
    }

    /// Receives more bytes than are [`buffered`](Self::buffered).
    ///
    /// # Errors
    /// `IncompleteBody` at the end of the body.
    pub(crate) async fn receive_more(&mut self) -> Result<()> {
        match self.decoder.direct() > self.buffered().len() as u64 {
            true => self.receive().await,
            false => Err(ErrorCode::IncompleteBody.into()),
        }
    }

    /// Receives into the inbox; the end of the connection is an incomplete body.
    async fn receive(&mut self) -> Result<()> {
        self.invite().await?;
        match self.connection.receive().await.map_err(|error| self.connection.too_slow(error))? {
            0 => Err(ErrorCode::IncompleteBody.into()),
            _ => Ok(()),
        }
    }

    /// Sends `100 Continue` if the client waits for it.
    async fn invite(&mut self) -> Result<()> {
        if std::mem::take(&mut self.connection.continue_pending) {
            self.connection.stream.write_bytes(http::CONTINUE.to_vec()).await.0?;
        }
        Ok(())
    }

    /// Receives unframed bytes directly into the block.
    async fn receive_block(&mut self, buf: S::Buf, at: Range<usize>) -> (Result<usize>, S::Buf) {
        if let Err(failure) = self.invite().await {
            return (Err(failure), buf);
        }
        let start = at.start;
        let (result, buf) = self.connection.stream.read_block(buf, at).await;
        match result {
            Ok(0) => (Err(ErrorCode::IncompleteBody.into()), buf),
            Ok(len) => {
                self.decoder.payload(&buf.as_ref()[start..start + len]);
                self.connection.received += len as u64;
                (Ok(len), buf)
            }
            Err(error) => (Err(self.connection.too_slow(error)), buf),
        }
    }

    /// Waits for the beginning of a body of `content_length` bytes, framing included.
    pub(crate) async fn warm(&mut self, content_length: u64) -> Result<()> {
        while (self.connection.inbox.len() as u64) < content_length.min(WARM_LEN) {
            self.receive().await?;
        }
        Ok(())
    }

    /// Moves payload that arrived with the framing from the inbox to `to`. Returns the number of
    /// bytes moved.
    fn take_buffered(&mut self, to: &mut [u8]) -> usize {
        let inbox = &self.connection.inbox;
        let len = to.len().min(inbox.len()).min(usize::try_from(self.decoder.direct()).unwrap_or(usize::MAX));
        to[..len].copy_from_slice(&inbox[..len]);
        self.decoder.payload(&inbox[..len]);
        self.connection.consume_payload(len);
        len
    }
}

impl<S: Stream> Payload<S::Buf> for Receiver<'_, S> {
    fn remaining(&self) -> u64 {
        self.decoder.remaining()
    }

    async fn fill(&mut self, mut buf: S::Buf, at: Range<usize>) -> (Result<usize>, S::Buf) {
        let Range { start, end: limit } = at;
        let mut filled = start;
        while filled < limit && self.decoder.remaining() > 0 {
            let step = match self.decoder.step(&self.connection.inbox) {
                Ok(step) => step,
                Err(error) => return (Err(error.into()), buf),
            };
            match step {
                Step::Skip(len) => self.connection.consume(len),
                Step::Need => {
                    if let Err(failure) = self.receive().await {
                        return (Err(failure), buf);
                    }
                }
                Step::Payload if self.connection.inbox.is_empty() => {
                    let direct = usize::try_from(self.decoder.direct()).unwrap_or(usize::MAX);
                    let at = filled..limit.min(filled.saturating_add(direct));
                    let (result, back) = self.receive_block(buf, at).await;
                    buf = back;
                    match result {
                        Ok(len) => filled += len,
                        Err(failure) => return (Err(failure), buf),
                    }
                }
                Step::Payload => {
                    let end = limit.min(filled.saturating_add(self.connection.inbox.len()));
                    filled += self.take_buffered(S::slice(&mut buf, filled..end));
                }
                Step::Done => break,
            }
        }
        (Ok(filled - start), buf)
    }
}
