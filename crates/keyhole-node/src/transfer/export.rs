//! Export of stored objects.

use std::ops::Range;

use keyhole_log::limits::CHUNKS_MAX;
use keyhole_log::{Body, Disk, Log, Object, ObjectPin, Part};

use super::ReadError;
use crate::evicted::EvictedObjects;
use crate::failure::Failure;
use crate::sealed_file::{SealedFile, evicted_file, is_damaged};
use crate::source::Piece;

/// Reads the verified bytes of an object's file, block by block: the sealed object file of a sealed
/// object, the plain bytes of any other.
pub struct Export<'l, D: Disk> {
    log: &'l Log<D>,
    bytes: Bytes<'l, D>,
    len: u64,
    _pin: ObjectPin,
}

enum Bytes<'l, D: Disk> {
    Sealed(SealedFile<'l, D>),
    /// The remaining bodies, last first; and the open body with the index of its next block.
    Plain(Vec<Part>, Option<(Body, u64)>),
}

impl<'l, D: Disk> Export<'l, D> {
    /// Prepares the export of `object`, whose bytes stay readable as long as this is held.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn new(log: &'l Log<D>, bucket: &str, key: &str, object: &Object) -> Result<Self, ReadError> {
        Export::with_evicted(log, bucket, key, object, None)
    }

    /// Prepares an export like [`new`](Self::new), which reads an evicted object from `evicted`. Without
    /// it, the bytes of an evicted object are missing.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn with_evicted(
        log: &'l Log<D>,
        bucket: &str,
        key: &str,
        object: &Object,
        evicted: Option<&'l dyn EvictedObjects>,
    ) -> Result<Self, ReadError> {
        let (bytes, len) = match object.sealed {
            true => {
                let file = SealedFile::new(log, bucket, key, object, true)?;
                let evicted = evicted
                    .filter(|_| object.is_evicted)
                    .map(|objects| evicted_file(Some(objects), log, (bucket, key), object, object.size))
                    .transpose()
                    .map_err(unreadable)?;
                let file = file.with_evicted(evicted);
                let len = file.len;
                (Bytes::Sealed(file), len)
            }
            false => (Bytes::Plain(object.parts.iter().rev().cloned().collect(), None), object.size),
        };
        Ok(Export { log, bytes, len, _pin: object.pin() })
    }

    /// Returns the length of the file.
    pub fn file_len(&self) -> u64 {
        self.len
    }

    /// Reads the next bytes. Returns a buffer and their range in it, or `None` at the end.
    ///
    /// # Errors
    /// [`ReadError`]; the export cannot be continued.
    pub async fn next(&mut self) -> Result<Option<(D::Buf, Range<usize>)>, ReadError> {
        let (left, body) = match &mut self.bytes {
            Bytes::Sealed(file) if file.is_evicted() => {
                let piece = file.evicted_piece(self.log.disk().buffer()).await.map_err(unreadable)?;
                return Ok(Some((piece.buf, piece.at)));
            }
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

/// Describes why an evicted object cannot be read.
fn unreadable(failure: Failure) -> ReadError {
    let what = match failure {
        Failure::Reply(error) => error.message.to_string(),
        Failure::Fault(_, cause) => cause.to_string(),
        Failure::Connection(error) => error.to_string(),
    };
    is_damaged(&what)
}
