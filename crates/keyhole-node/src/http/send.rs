//! Sends responses.

use std::io;

use futures_util::future;
use keyhole_log::Disk;
use keyhole_s3::http::{Persistence, Response};

use super::Connection;
use crate::failure::{Failure, Result};
use crate::limits::COALESCE_MAX;
use crate::observe::Account;
use crate::platform::Stream;
use crate::source::{Piece, PieceSource};

/// The properties of a request and its connection that its response depends on.
pub(crate) struct ReplyContext<'a> {
    pub(crate) request_id: &'a str,
    /// The path of the request.
    pub(crate) resource: &'a str,
    pub(crate) now_ms: u64,
    /// Whether the connection stays open after the response.
    pub(crate) persistence: Persistence,
    pub(crate) is_head: bool,
    /// CORS headers, which the response has whatever its outcome.
    pub(crate) cors: Vec<(&'static str, String)>,
}

impl ReplyContext<'_> {
    /// Adds the CORS headers.
    pub(crate) fn with_cors(&self, response: Response) -> Response {
        self.cors.iter().fold(response, |response, (name, value)| response.header(name, value))
    }
}

impl<S: Stream> Connection<S> {
    /// Sends a complete response, in a single write if it is small.
    pub(crate) async fn send_whole(
        &self,
        response: Response,
        context: &ReplyContext<'_>,
        account: &Account,
    ) -> io::Result<()> {
        let bodyless = matches!(response.status, 204 | 304);
        let length = (!bodyless).then(|| response.content_length.unwrap_or(response.body.len() as u64));
        let mut bytes = response.head_bytes(length, context.request_id, context.now_ms, context.persistence);
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

    /// Sends a response with the body from `source`, reading one piece ahead. An error before the
    /// first byte becomes an error response; after that, the connection has to be aborted.
    pub(crate) async fn send_source<D: Disk<Buf = S::Buf>>(
        &self,
        response: &Response,
        source: &mut impl PieceSource<S::Buf>,
        disk: &D,
        context: &ReplyContext<'_>,
        account: &Account,
    ) -> Result<()> {
        let length = Some(source.remaining());
        let head = response.head_bytes(length, context.request_id, context.now_ms, context.persistence);
        let mut next = source.next(disk.buffer_with_len(source.piece_len())).await?;
        let mut head = Some(head);
        while let Some(piece) = next.take() {
            if let Some(mut head) = head.take() {
                if piece.at.len() <= COALESCE_MAX {
                    head.extend_from_slice(&piece.buf.as_ref()[piece.at.clone()]);
                    self.stream.write_bytes(head).await.0?;
                    account.add_sent(piece.at.len());
                    next = read_on(source, disk, account).await?;
                    continue;
                }
                self.stream.write_bytes(head).await.0?;
            }
            let len = piece.at.len();
            let sending = self.stream.write_block(piece.buf, piece.at);
            if source.remaining() == 0 {
                sending.await.0?;
            } else {
                let ((sent, _), read) = future::join(sending, read_on(source, disk, account)).await;
                sent?;
                next = read?;
            }
            account.add_sent(len);
        }
        Ok(())
    }
}

/// Reads the next piece after the response head has been sent: every failure now aborts the
/// connection. Records a fault in the account.
async fn read_on<D: Disk>(
    source: &mut impl PieceSource<D::Buf>,
    disk: &D,
    account: &Account,
) -> Result<Option<Piece<D::Buf>>> {
    if source.remaining() == 0 {
        return Ok(None);
    }
    source.next(disk.buffer_with_len(source.piece_len())).await.map_err(|failure| match failure {
        Failure::Reply(error) => Failure::Connection(io::Error::other(error.to_string())),
        Failure::Fault(error, cause) => {
            let gone = io::Error::other(cause.to_string());
            account.set_fault(error.code, cause);
            Failure::Connection(gone)
        }
        gone @ Failure::Connection(_) => gone,
    })
}
