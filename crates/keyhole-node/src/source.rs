//! The two kinds of body that the node handles piece by piece: one that it stores, and one that it
//! sends.

use std::ops::Range;

use crate::failure::Result;

/// A body to store: received from a client, or read from a stored object that is copied.
#[allow(async_fn_in_trait)]
pub(crate) trait BodySource<B> {
    /// Returns the number of remaining bytes; if unknown, non-zero until the end is reached.
    fn remaining(&self) -> u64;

    /// Returns the maximum number of remaining bytes.
    fn bound(&self) -> u64 {
        self.remaining()
    }

    /// Leaves the MD5 of the body to the caller, who passes it to [`set_md5`](Self::set_md5). Returns
    /// whether it is wanted.
    fn leave_md5(&mut self) -> bool {
        false
    }

    /// Sets the MD5 of the whole body.
    fn set_md5(&mut self, _md5: [u8; 16]) {}

    /// Waits for the beginning of the remaining bytes, so that a slow source gets no memory before it
    /// has something to fill it with.
    async fn warm(&mut self) -> Result<()> {
        Ok(())
    }

    /// Fills `buf[at]`, completely unless the body ends. Returns the number of bytes filled.
    async fn fill(&mut self, buf: B, at: Range<usize>) -> (Result<usize>, B);

    /// Fills `buf[at]` with as many bytes as have arrived, at least `least` unless the range or the
    /// body is shorter. Returns the number of bytes filled.
    async fn fill_some(&mut self, buf: B, at: Range<usize>, least: usize) -> (Result<usize>, B) {
        let end = at.end.min(at.start + least);
        self.fill(buf, at.start..end).await
    }
}

/// A verified piece of a body to send: `buf[at]`.
pub(crate) struct Piece<B> {
    pub(crate) buf: B,
    pub(crate) at: Range<usize>,
}

/// A body to send.
#[allow(async_fn_in_trait)]
pub(crate) trait PieceSource<B> {
    /// Bytes that were read at once.
    type Span: Span<B>;

    /// Returns the number of bytes that have not been read.
    fn remaining(&self) -> u64;

    /// Returns the length of the buffer that the next span needs at least.
    fn piece_len(&self) -> usize;

    /// Finds the next span. Returns the length of the longest buffer that it can use.
    async fn prepare(&mut self) -> Result<usize> {
        Ok(self.piece_len())
    }

    /// Reads the next span into the first `len` bytes of `buf`: `piece_len`, or up to what `prepare`
    /// returned. Returns `None` at the end.
    async fn read(&mut self, buf: B, len: usize) -> Result<Option<Self::Span>>;
}

/// Bytes that were read at once, and are verified and sent in steps that fit the core's cache.
#[allow(async_fn_in_trait)]
pub(crate) trait Span<B> {
    /// Returns the number of bytes to send.
    fn len(&self) -> usize;

    /// Verifies the next step. Returns `None` at the end.
    async fn verify(&mut self) -> Result<Option<Piece<B>>>;

    /// Takes back the buffer of a step that has been sent, which contains plaintext.
    fn put_back(&mut self, buf: B, sent: Range<usize>);
}

/// A span of one step, which is verified already.
pub(crate) struct Whole<B>(Option<Piece<B>>);

impl<B> Whole<B> {
    pub(crate) fn new(piece: Piece<B>) -> Self {
        Whole(Some(piece))
    }
}

impl<B> Span<B> for Whole<B> {
    fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |piece| piece.at.len())
    }

    async fn verify(&mut self) -> Result<Option<Piece<B>>> {
        Ok(self.0.take())
    }

    fn put_back(&mut self, _: B, _: Range<usize>) {}
}
