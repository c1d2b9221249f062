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
use crate::source::{Piece, PieceSource, Span};

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

    /// Sends a response with the body from `source`, whose memory is `admitted`. Reads one span
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
        let mut head = Some(head);
        let mut next = read(source, disk, admitted).await?;
        loop {
            let (mut span, memory) = match next.take() {
                Some(read) if read.0.len() as u64 <= left && (left == 0 || read.0.len() > 0) => read,
                // An empty part of an object with other parts has no span.
                None if left == 0 => return Ok(self.write(head.unwrap_or_default()).await?),
                _ => return Err(wrong_length(head.is_some())),
            };
            left -= span.len() as u64;
            let mut first = None;
            if let Some(head) = head.take() {
                first = self.send_head(head, &mut span, account).await?;
            }
            let sending = self.send_span(first, &mut span, account);
            if left == 0 {
                return sending.await;
            }
            let (sent, ahead) = future::join(sending, read_ahead(source, disk, admitted, &memory)).await;
            sent?;
            next = match ahead.map_err(|failure| aborted(failure, account))? {
                Ahead::Read(read) => read,
                Ahead::NoMemory => read(source, disk, admitted).await.map_err(|failure| aborted(failure, account))?,
            };
        }
    }

    /// Verifies the first step of a body and sends the head, together with the step if that is
    /// short. Otherwise returns the step.
    async fn send_head(
        &self,
        mut head: Vec<u8>,
        span: &mut impl Span<S::Buf>,
        account: &Account,
    ) -> Result<Option<Piece<S::Buf>>> {
        let Some(piece) = span.verify().await? else { return Err(wrong_length(true)) };
        let len = piece.at.len();
        if len > COALESCE_MAX {
            self.write(head).await?;
            return Ok(Some(piece));
        }
        head.extend_from_slice(&piece.buf.as_ref()[piece.at.clone()]);
        self.write(head).await?;
        account.add_sent(len);
        span.put_back(piece.buf, piece.at);
        Ok(None)
    }

    /// Verifies and sends a span in steps, of which the `first` may be verified already.
    async fn send_span(
        &self,
        first: Option<Piece<S::Buf>>,
        span: &mut impl Span<S::Buf>,
        account: &Account,
    ) -> Result<()> {
        let mut next = first;
        loop {
            let piece = match next.take() {
                Some(piece) => piece,
                None => match span.verify().await.map_err(|failure| aborted(failure, account))? {
                    Some(piece) => piece,
                    None => return Ok(()),
                },
            };
            let at = piece.at.clone();
            let (sent, buf) = self.link.waiting(self.stream.write_block(piece.buf, piece.at)).await;
            sent?;
            account.add_sent(at.len());
            span.put_back(buf, at);
        }
    }
}

/// The memory of a span: that of the request, another piece, or a block.
struct SpanMemory<'a> {
    len: usize,
    /// `None`: that of the request.
    beside: Option<Admitted<'a>>,
}

impl<'a> SpanMemory<'a> {
    /// Returns a block if the span can use one and there is plenty, and otherwise the memory of the
    /// request, which no span is in. `len_max`: the longest buffer that the span can use.
    fn new(len_max: usize, piece_len: usize, admitted: &Admitted<'a>) -> Self {
        let block = if len_max > piece_len { admitted.block() } else { None };
        match block {
            Some(block) => SpanMemory { len: len_max, beside: Some(block) },
            None => SpanMemory { len: piece_len, beside: None },
        }
    }

    /// Returns memory for the span after the one that is in this, if there is any.
    fn ahead(&self, len_max: usize, piece_len: usize, admitted: &Admitted<'a>) -> Option<Self> {
        let mut memory = SpanMemory::new(len_max, piece_len, admitted);
        if memory.beside.is_none() && self.beside.is_none() {
            memory.beside = Some(admitted.another()?);
        }
        Some(memory)
    }
}

/// A span and its memory; `None` at the end.
type ReadSpan<'a, S> = Option<(S, SpanMemory<'a>)>;

/// The result of an attempt to read a span while another is sent.
enum Ahead<'a, S> {
    Read(ReadSpan<'a, S>),
    NoMemory,
}

/// Returns the failure for a source that has another length than it announced.
fn wrong_length(is_first: bool) -> Failure {
    let what = "the stored bytes of an object have another length than the object";
    if is_first { damaged(what) } else { Failure::Connection(io::Error::other(what)) }
}

/// Reads the next span while no other is in memory.
async fn read<'a, D: Disk, T: PieceSource<D::Buf>>(
    source: &mut T,
    disk: &D,
    admitted: &Admitted<'a>,
) -> Result<ReadSpan<'a, T::Span>> {
    let memory = SpanMemory::new(source.prepare().await?, source.piece_len(), admitted);
    read_into(source, disk, memory).await
}

/// Reads the next span while the one in `current` is sent, if there is memory for it.
async fn read_ahead<'a, D: Disk, T: PieceSource<D::Buf>>(
    source: &mut T,
    disk: &D,
    admitted: &Admitted<'a>,
    current: &SpanMemory<'a>,
) -> Result<Ahead<'a, T::Span>> {
    let len_max = source.prepare().await?;
    match current.ahead(len_max, source.piece_len(), admitted) {
        Some(memory) => Ok(Ahead::Read(read_into(source, disk, memory).await?)),
        None => Ok(Ahead::NoMemory),
    }
}

async fn read_into<'a, D: Disk, T: PieceSource<D::Buf>>(
    source: &mut T,
    disk: &D,
    memory: SpanMemory<'a>,
) -> Result<ReadSpan<'a, T::Span>> {
    let span = source.read(disk.buffer_with_len(memory.len), memory.len).await?;
    Ok(span.map(|span| (span, memory)))
}

/// Converts a failure after the response head has been sent: it aborts the connection. Records a
/// fault in the account.
fn aborted(failure: Failure, account: &Account) -> Failure {
    match failure {
        Failure::Reply(error) => Failure::Connection(io::Error::other(error.to_string())),
        Failure::Fault(error, cause) => {
            let gone = io::Error::other(cause.to_string());
            account.set_fault(error.code, cause);
            Failure::Connection(gone)
        }
        gone @ Failure::Connection(_) => gone,
    }
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
    use crate::source::Whole;

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
        type Span = Whole<Buffer>;

        fn remaining(&self) -> u64 {
            self.announced
        }

        fn piece_len(&self) -> usize {
            1 << 20
        }

        async fn read(&mut self, buf: Buffer, _: usize) -> Result<Option<Whole<Buffer>>> {
            Ok(self.lens.pop_front().map(|len| Whole::new(Piece { buf, at: 0..len })))
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
