//! The body of a request.

use std::ops::Range;
use std::rc::Rc;

use keyhole_s3::ErrorCode;
use keyhole_s3::body::{BodyDecoder, Digests, Step};
use keyhole_s3::http;

use super::Connection;
use crate::failure::{Failure, Result, too_slow};
use crate::limits::WARM_LEN;
use crate::link::Link;
use crate::platform::Stream;
use crate::source::BodySource;

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
    pub(crate) async fn read_document(self) -> Result<Vec<u8>> {
        // The decoder has checked the length.
        let mut document = Vec::with_capacity(usize::try_from(self.len()).unwrap_or_default());
        self.read_all(|piece| document.extend_from_slice(piece)).await?;
        Ok(document)
    }

    /// Receives, verifies and discards the body.
    pub(crate) async fn discard(self) -> Result<()> {
        self.read_all(|_| {}).await
    }

    /// Receives and verifies the body through the inbox.
    async fn read_all(mut self, mut take: impl FnMut(&[u8])) -> Result<()> {
        loop {
            match self.decoder.step(&self.connection.inbox)? {
                Step::Skip(len) => self.connection.consume(len),
                Step::Need => self.receive().await?,
                Step::Payload => {
                    if self.connection.inbox.is_empty() {
                        self.receive().await?;
                    }
                    let len = self.decoder.direct().min(self.connection.inbox.len() as u64) as usize;
                    take(&self.connection.inbox[..len]);
                    self.decoder.payload(&self.connection.inbox[..len]);
                    self.connection.consume_body(len);
                }
                Step::Done => break,
            }
        }
        self.finish().await?;
        Ok(())
    }

    /// Returns the unframed body bytes in the inbox that are not consumed yet.
    pub(crate) fn buffered(&self) -> &[u8] {
        let len = usize::try_from(self.decoder.direct()).unwrap_or(usize::MAX);
        &self.connection.inbox[..self.connection.inbox.len().min(len)]
    }

    /// Consumes `len` of the [`buffered`](Self::buffered) bytes.
    pub(crate) fn take(&mut self, len: usize) {
        self.decoder.payload(&self.connection.inbox[..len]);
        self.connection.consume_body(len);
    }

    /// Receives more bytes than are [`buffered`](Self::buffered).
    ///
    /// # Errors
    /// `IncompleteBody` at the end of the body.
    pub(crate) async fn receive_more(&mut self) -> Result<()> {
        if self.decoder.direct() > self.buffered().len() as u64 {
            self.receive().await
        } else {
            Err(ErrorCode::IncompleteBody.into())
        }
    }

    /// Receives into the inbox; the end of the connection is an incomplete body.
    async fn receive(&mut self) -> Result<()> {
        self.invite().await?;
        match self.connection.receive().await.map_err(|error| self.connection.too_slow(error))? {
            0 => Err(self.cut_short()),
            _ => Ok(()),
        }
    }

    /// Returns the failure of a body that ends early.
    fn cut_short(&self) -> Failure {
        if self.connection.link.is_interrupted() { too_slow() } else { ErrorCode::IncompleteBody.into() }
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
        let Connection { stream, link, .. } = &*self.connection;
        let (result, buf) = link.waiting(stream.read_block(buf, at)).await;
        match result {
            Ok(0) => (Err(self.cut_short()), buf),
            Ok(len) => {
                self.decoder.payload(&buf.as_ref()[start..start + len]);
                self.connection.received += len as u64;
                (Ok(len), buf)
            }
            Err(error) => (Err(self.connection.too_slow(error)), buf),
        }
    }

    /// Returns the connection's peer.
    pub(crate) fn link(&self) -> Rc<Link> {
        self.connection.link.clone()
    }

    /// Moves payload that arrived with the framing from the inbox to `to`. Returns the number of
    /// bytes moved.
    fn take_buffered(&mut self, to: &mut [u8]) -> usize {
        let inbox = &self.connection.inbox;
        let len = to.len().min(inbox.len()).min(usize::try_from(self.decoder.direct()).unwrap_or(usize::MAX));
        to[..len].copy_from_slice(&inbox[..len]);
        self.decoder.payload(&inbox[..len]);
        self.connection.consume_body(len);
        len
    }
}

impl<S: Stream> BodySource<S::Buf> for Receiver<'_, S> {
    fn remaining(&self) -> u64 {
        self.decoder.remaining()
    }

    fn leave_md5(&mut self) -> bool {
        self.decoder.digester().leave_md5()
    }

    fn set_md5(&mut self, md5: [u8; 16]) {
        self.decoder.digester().set_md5(md5);
    }

    async fn warm(&mut self) -> Result<()> {
        while (self.connection.inbox.len() as u64) < self.decoder.remaining().min(WARM_LEN) {
            self.receive().await?;
        }
        Ok(())
    }

    async fn fill(&mut self, buf: S::Buf, at: Range<usize>) -> (Result<usize>, S::Buf) {
        let len = at.len();
        self.fill_some(buf, at, len).await
    }

    async fn fill_some(&mut self, mut buf: S::Buf, at: Range<usize>, least: usize) -> (Result<usize>, S::Buf) {
        let start = at.start;
        let limit = at.end;
        let enough = limit.min(start.saturating_add(least));
        let mut filled = start;
        while filled < enough && self.decoder.remaining() > 0 {
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
