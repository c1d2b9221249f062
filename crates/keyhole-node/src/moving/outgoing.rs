//! A stored object as the bytes of a file.

use std::ops::Range;

use keyhole_log::limits::CHUNKS_MAX;
use keyhole_log::{Body, Disk, Log, Object, Part};

use super::ReadError;
use crate::download::Piece;
use crate::sealed_file::{SealedFile, is_damaged};

/// Gives the bytes of an object's file, verified, a block at a time: a sealed object's sealed object file, or a plaintext object's
/// own bytes.
pub struct Outgoing<'l, D: Disk> {
    log: &'l Log<D>,
    bytes: Bytes<'l, D>,
    len: u64,
}

enum Bytes<'l, D: Disk> {
    Sealed(SealedFile<'l, D>),
    /// The bodies that are still to come, last first; and the one at hand, with its next block.
    Plain(Vec<Part>, Option<(Body, u64)>),
}

impl<'l, D: Disk> Outgoing<'l, D> {
    /// Of this object. As long as it is held its bytes stay readable.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn new(log: &'l Log<D>, bucket: &str, key: &str, object: &Object) -> Result<Self, ReadError> {
        let (bytes, len) = match object.sealed {
            true => {
                let file = SealedFile::new(log, bucket, key, object, true)?;
                let len = file.len;
                (Bytes::Sealed(file), len)
            }
            false => (Bytes::Plain(object.parts.iter().rev().cloned().collect(), None), object.size),
        };
        Ok(Outgoing { log, bytes, len })
    }

    /// Bytes of the whole file.
    pub fn file_len(&self) -> u64 {
        self.len
    }

    /// The next bytes of it, and where they are in the buffer; `None` at the end.
    ///
    /// # Errors
    /// [`ReadError`]: nothing more comes.
    pub async fn next(&mut self) -> Result<Option<(D::Buf, Range<usize>)>, ReadError> {
        let (left, body) = match &mut self.bytes {
            Bytes::Sealed(file) => {
                let piece = file.piece(self.log.disk().buffer()).await?;
                return Ok(piece.map(|Piece { buf, at }| (buf, at)));
            }
            Bytes::Plain(left, body) => (left, body),
        };
        loop {
            let Some((open, index)) = body.take() else {
                let Some(part) = left.pop() else { return Ok(None) };
                let open = self.log.body(&part).await?;
                if open.len != part.size {
                    return Err(is_damaged("a body is not as long as its object says"));
                }
                *body = Some((open, 0));
                continue;
            };
            let len = open.block_len(index);
            if index == open.blocks() || len == 0 {
                continue;
            }
            let (tags, buf) = self.log.read_block(&open, index, 0..CHUNKS_MAX, self.log.disk().buffer()).await;
            tags?;
            *body = Some((open, index + 1));
            return Ok(Some((buf, 0..len)));
        }
    }
}
