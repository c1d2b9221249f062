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
    /// Returns the number of remaining bytes.
    fn remaining(&self) -> u64;

    /// Returns the length of the buffer needed for the next piece.
    fn piece_len(&self) -> usize;

    /// Reads the next piece into `buf`. Returns `None` at the end.
    async fn next(&mut self, buf: B) -> Result<Option<Piece<B>>>;
}
