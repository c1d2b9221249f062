//! Sends responses.

use std::io;

use futures_util::future;
use keyhole_log::Disk;
use keyhole_s3::http::{Persistence, Response};

use super::Connection;
use crate::admission::Admitted;
use crate::failure::{Failure, Result, damaged};
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
            return self.write(bytes).await;
        }
        let len = response.body.len();
        if len <= COALESCE_MAX {
            bytes.extend_from_slice(&response.body);
            self.write(bytes).await?;
        } else {
            self.write(bytes).await?;
            self.write(response.body).await?;
        }
        account.add_sent(len);
        Ok(())
    }

    async fn write(&self, bytes: Vec<u8>) -> io::Result<()> {
        self.link.waiting(self.stream.write_bytes(bytes)).await.0
    }

    /// Sends a response with the body from `source`, whose memory is `admitted`. Reads one piece
    /// ahead while there is memory for it. An error before the first byte becomes an error response;
    /// after that, the connection has to be aborted. So does a source that ends early; bytes beyond
    /// the announced length are never sent.
    pub(crate) async fn send_source<D: Disk<Buf = S::Buf>>(
        &self,
        response: &Response,
        source: &mut impl PieceSource<S::Buf>,
        admitted: &Admitted<'_>,
        disk: &D,
        context: &ReplyContext<'_>,
        account: &Account,
    ) -> Result<()> {
        let mut left = source.remaining();
        let head = response.head_bytes(Some(left), context.request_id, context.now_ms, context.persistence);
        let mut next = source.next(disk.buffer_with_len(source.piece_len())).await?;
        let mut head = Some(head);
        loop {
            let is_first = head.is_some();
            let piece = match next.take() {
                Some(piece) if piece.at.len() as u64 <= left && (left == 0 || !piece.at.is_empty()) => piece,
                // An empty part of an object with other parts has no piece.
                None if left == 0 => return Ok(self.write(head.unwrap_or_default()).await?),
                _ => return Err(wrong_length(is_first)),
            };
            left -= piece.at.len() as u64;
            if let Some(mut head) = head.take() {
                if piece.at.len() <= COALESCE_MAX {
                    head.extend_from_slice(&piece.buf.as_ref()[piece.at.clone()]);
                    self.write(head).await?;
                    account.add_sent(piece.at.len());
                    if left == 0 {
                        return Ok(());
                    }
                    next = read_on(source, disk, account).await?;
                    continue;
                }
                self.write(head).await?;
            }
            let len = piece.at.len();
            let sending = self.link.waiting(self.stream.write_block(piece.buf, piece.at));
            if left == 0 {
                sending.await.0?;
                account.add_sent(len);
                return Ok(());
            }
            if let Some(_ahead) = admitted.another() {
                let ((sent, _), read) = future::join(sending, read_on(source, disk, account)).await;
                sent?;
                next = read?;
            } else {
                sending.await.0?;
                next = read_on(source, disk, account).await?;
            }
            account.add_sent(len);
        }
    }
}

/// Returns the failure for a source that has another length than it announced.
fn wrong_length(is_first: bool) -> Failure {
    let what = "the stored bytes of an object have another length than the object";
    if is_first { damaged(what) } else { Failure::Connection(io::Error::other(what)) }
}

/// Reads the next piece after the response head has been sent: every failure now aborts the
/// connection. Records a fault in the account.
async fn read_on<D: Disk>(
    source: &mut impl PieceSource<D::Buf>,
    disk: &D,
    account: &Account,
) -> Result<Option<Piece<D::Buf>>> {
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::net::SocketAddr;
    use std::ops::Range;
    use std::pin::Pin;
    use std::rc::Rc;
    use std::time::{Duration, Instant};

    use futures_util::FutureExt;
    use keyhole_sim::disk::{Buffer, Faults, Medium, SimDisk};
    use keyhole_sim::executor::Clock;
    use keyhole_sim::random::Random;

    use super::*;
    use crate::admission::{Admission, Share};
    use crate::host::{Host, Services};
    use crate::observe::{Exchange, Observer};

    /// Collects the sent bytes.
    #[derive(Default)]
    struct Sent(RefCell<Vec<u8>>);

    impl Stream for Sent {
        type Buf = Buffer;

        async fn read_block(&self, buf: Buffer, _: Range<usize>) -> (io::Result<usize>, Buffer) {
            (Ok(0), buf)
        }

        async fn write_block(&self, buf: Buffer, at: Range<usize>) -> (io::Result<()>, Buffer) {
            self.0.borrow_mut().extend(&buf.as_ref()[at]);
            (Ok(()), buf)
        }

        async fn read_bytes(&self, bytes: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
            (Ok(0), bytes)
        }

        async fn write_bytes(&self, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
            self.0.borrow_mut().extend(&bytes);
            (Ok(()), bytes)
        }

        fn peer(&self) -> SocketAddr {
            SocketAddr::from(([192, 0, 2, 1], 4711))
        }

        fn is_secure(&self) -> bool {
            true
        }

        async fn close(&self) {}

        fn abort(&self) {}
    }

    /// A source that announces a length and has pieces of other lengths.
    struct Pieces {
        announced: u64,
        lens: VecDeque<usize>,
    }

    impl PieceSource<Buffer> for Pieces {
        fn remaining(&self) -> u64 {
            self.announced
        }

        fn piece_len(&self) -> usize {
            1 << 20
        }

        async fn next(&mut self, buf: Buffer) -> Result<Option<Piece<Buffer>>> {
            Ok(self.lens.pop_front().map(|len| Piece { buf, at: 0..len }))
        }
    }

    struct Stopped;

    impl Services for Stopped {
        fn now_ms(&self) -> u64 {
            0
        }

        fn instant(&self) -> Instant {
            Instant::now()
        }

        fn sleep(&self, _time: Duration) -> Pin<Box<dyn Future<Output = ()>>> {
            Box::pin(std::future::pending())
        }

        fn random(&self, _bytes: &mut [u8]) {
            unreachable!("sending uses no random bytes")
        }
    }

    struct Unobserved;

    impl Observer for Unobserved {
        fn finished(&self, _: &Exchange<'_>) {}
    }

    /// Sends pieces and returns whether that succeeded, whether the connection is to be aborted, and
    /// the number of body bytes that were sent; `None` without a response head.
    fn send(announced: u64, lens: &[usize]) -> (bool, bool, Option<usize>) {
        let clock = Rc::new(Clock::default());
        let disk = SimDisk::new(&Medium::new(Random::new(1), Faults::none()), &clock);
        let connection = Connection::new(Sent::default(), Host::new(Stopped));
        let persistence = Persistence::Implied;
        let context =
            ReplyContext { request_id: "id", resource: "/", now_ms: 0, persistence, is_head: false, cors: Vec::new() };
        let account = Account::new(&Unobserved, true, connection.link.clone());
        let admission = Admission::new(Share::MIN);
        let reading = admission.read(announced, 1 << 20, &connection.link);
        let Some(Ok(admitted)) = reading.now_or_never() else { panic!("there is room") };
        let mut source = Pieces { announced, lens: lens.iter().copied().collect() };
        let response = Response::new(200);
        let sending = connection.send_source(&response, &mut source, &admitted, &disk, &context, &account);
        let result = sending.now_or_never().expect("nothing waits");
        let sent = connection.stream.0.borrow();
        let head = sent.windows(4).position(|end| end == b"\r\n\r\n").map(|end| end + 4);
        (result.is_ok(), matches!(result, Err(Failure::Connection(_))), head.map(|head| sent.len() - head))
    }

    #[test]
    fn source_of_another_length_is_never_a_whole_response() {
        const LONG: usize = COALESCE_MAX + 1;
        let whole = |len| (true, false, Some(len));
        let aborted = |len| (false, true, Some(len));
        let refused = (false, false, None);
        assert_eq!(send(10, &[10]), whole(10));
        assert_eq!(send(LONG as u64 + 10, &[LONG, 10]), whole(LONG + 10));
        assert_eq!(send(0, &[0]), whole(0));
        assert_eq!(send(0, &[]), whole(0), "an empty part");
        // Too short: before the head is sent, an error response is possible.
        assert_eq!(send(10, &[]), refused);
        assert_eq!(send(10, &[0]), refused);
        assert_eq!(send(11, &[10]), aborted(10));
        assert_eq!(send(LONG as u64 + 1, &[LONG]), aborted(LONG));
        assert_eq!(send(LONG as u64 + 1, &[LONG, 0, 1]), aborted(LONG));
        // Too long: nothing is sent beyond the announced length.
        assert_eq!(send(9, &[10]), refused);
        assert_eq!(send(LONG as u64 - 1, &[LONG]), refused);
        assert_eq!(send(15, &[10, 10]), aborted(10));
        assert_eq!(send(LONG as u64 + 5, &[LONG, 10]), aborted(LONG));
        assert_eq!(send(10, &[10, 10]), whole(10), "what follows is not read");
    }
}
