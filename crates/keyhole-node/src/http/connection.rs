//! A connection and its input buffer; receives request heads.

use std::io;

use keyhole_s3::http::{self, RequestHead};
use keyhole_s3::{Error, ErrorCode};
use zeroize::Zeroize;

use crate::failure::{Failure, Result};
use crate::limits::INBOX_LEN;
use crate::platform::Stream;

/// A connection and its input buffer.
pub(crate) struct Connection<S> {
    pub(crate) stream: S,
    /// Received bytes that are not parsed yet. The capacity is [`INBOX_LEN`] and never grows.
    /// Consumed bytes are wiped, because heads carry customer keys.
    pub(super) inbox: Vec<u8>,
    /// The current request's body is not completely received, so the next bytes are not a request.
    pub(super) body_pending: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) continue_pending: bool,
    /// Received body bytes of the current request.
    pub(super) received: u64,
}

impl<S: Stream> Connection<S> {
    pub(crate) fn new(stream: S) -> Self {
        let inbox = Vec::with_capacity(INBOX_LEN);
        Connection { stream, inbox, body_pending: false, continue_pending: false, received: 0 }
    }

    /// Receives the next request head. Returns `None` if the peer closed the connection between two
    /// requests.
    pub(crate) async fn request_head(&mut self) -> Result<Option<RequestHead>> {
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
                if self.inbox.is_empty() {
                    return Ok(None);
                }
                return Err(Failure::Connection(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Maps a receive error. A timeout in the middle of a request gets a `RequestTimeout` response;
    /// an idle connection is closed without one.
    pub(super) fn too_slow(&mut self, error: io::Error) -> Failure {
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
    pub(super) async fn receive(&mut self) -> io::Result<usize> {
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
    pub(super) fn consume(&mut self, len: usize) {
        let rest = self.inbox.len() - len;
        self.inbox.copy_within(len.., 0);
        self.inbox[rest..].zeroize();
        self.inbox.truncate(rest);
    }

    /// Consumes and counts `len` bytes of a body.
    pub(super) fn consume_body(&mut self, len: usize) {
        self.received += len as u64;
        self.consume(len);
    }
}
