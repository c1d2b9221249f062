//! A connection and its input buffer; receives request heads.

use std::io;
use std::rc::Rc;

use keyhole_s3::ErrorCode;
use keyhole_s3::http::{self, RequestHead};
use keyhole_s3::limits::HEAD_MAX;
use keyhole_s3::wipe::wipe;
use memchr::memchr_iter;

use crate::failure::{Failure, Result};
use crate::host::Host;
use crate::limits::{INBOX_LEN, INBOX_START};
use crate::link::Link;
use crate::platform::Stream;

/// A connection and its input buffer.
pub(crate) struct Connection<S> {
    pub(crate) stream: Rc<S>,
    /// The peer, for admission.
    pub(crate) link: Rc<Link>,
    /// Received bytes that are not parsed yet. The capacity grows to [`INBOX_LEN`] at most. Consumed
    /// bytes are wiped, because heads carry customer keys.
    pub(super) inbox: Vec<u8>,
    /// The current request's body is not completely received, so the next bytes are not a request.
    pub(super) body_pending: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) continue_pending: bool,
    /// Received body bytes of the current request.
    pub(super) received: u64,
}

impl<S: Stream> Connection<S> {
    pub(crate) fn new(stream: S, host: Host) -> Self {
        let stream = Rc::new(stream);
        let link = Link::new(&stream, host);
        let inbox = Vec::with_capacity(INBOX_START);
        Connection { stream, link, inbox, body_pending: false, continue_pending: false, received: 0 }
    }

    /// Receives the next request head. Returns `None` if the peer closed the connection between two
    /// requests.
    pub(crate) async fn request_head(&mut self) -> Result<Option<RequestHead>> {
        // A head that comes in small pieces is not parsed for each of them.
        let mut progress = HeadProgress::default();
        loop {
            if progress.may_be_whole(&self.inbox)
                && let Some((head, consumed)) = http::parse_head(&self.inbox)?
            {
                self.consume(consumed);
                self.body_pending = head.is_chunked || head.content_length.is_some_and(|len| len > 0);
                self.continue_pending = head.expects_continue && self.body_pending;
                return Ok(Some(head));
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
        self.make_room();
        let inbox = std::mem::take(&mut self.inbox);
        let (result, inbox) = self.link.waiting(self.stream.read_bytes(inbox)).await;
        self.inbox = inbox;
        result
    }

    /// Grows the inbox if it is full.
    fn make_room(&mut self) {
        if self.inbox.len() < self.inbox.capacity() {
            return;
        }
        let mut grown = Vec::with_capacity(INBOX_LEN);
        grown.extend_from_slice(&self.inbox);
        // Heads carry customer keys.
        wipe(&mut self.inbox);
        self.inbox = grown;
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

    /// Wipes the inbox of a connection that serves no further request: a malformed head or the rest
    /// of a refused body may be a key or plaintext, and closing takes its time.
    pub(crate) fn discard_inbox(&mut self) {
        wipe(&mut self.inbox);
        self.inbox.clear();
    }

    /// Consumes `len` bytes from the front of the inbox and wipes the freed space.
    pub(super) fn consume(&mut self, len: usize) {
        let rest = self.inbox.len() - len;
        self.inbox.copy_within(len.., 0);
        wipe(&mut self.inbox[rest..]);
        self.inbox.truncate(rest);
    }

    /// Consumes and counts `len` bytes of a body.
    pub(super) fn consume_body(&mut self, len: usize) {
        self.received += len as u64;
        self.consume(len);
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        wipe(&mut self.inbox);
    }
}

/// How much of a head has been looked at.
#[derive(Default)]
struct HeadProgress {
    /// Bytes searched for the end of the head.
    searched: usize,
    /// Bytes parsed.
    parsed: usize,
}

impl HeadProgress {
    /// Returns whether the inbox may hold a whole head, or has grown so much since it was last
    /// parsed that an error is worth looking for.
    fn may_be_whole(&mut self, inbox: &[u8]) -> bool {
        let new = &inbox[self.searched.saturating_sub(2).min(inbox.len())..];
        self.searched = inbox.len();
        let ends = memchr_iter(b'\n', new).any(|at| matches!(new[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]));
        if !ends && inbox.len() < (2 * self.parsed).min(HEAD_MAX) {
            return false;
        }
        self.parsed = inbox.len();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_is_parsed_when_its_end_arrives() {
        for head in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"GET / HTTP/1.1\nHost: a\n\n"] {
            for cut in 0..head.len() {
                let mut progress = HeadProgress::default();
                progress.may_be_whole(&head[..cut]);
                assert!(progress.may_be_whole(head), "{cut}");
            }
        }
    }

    #[test]
    fn head_that_comes_byte_by_byte_is_parsed_a_few_times() {
        let long = vec![b'a'; HEAD_MAX];
        let mut progress = HeadProgress::default();
        let parses = (1..=HEAD_MAX).filter(|len| progress.may_be_whole(&long[..*len])).count();
        assert!(parses <= 16, "{parses} parses");
        assert_eq!(progress.parsed, HEAD_MAX, "a head that is too long is refused");
    }
}
