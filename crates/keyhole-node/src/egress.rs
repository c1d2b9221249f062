//! Reads stored objects: from blocks in the log to verified plaintext, piece by piece.

use std::ops::Range;

use keyhole_core::aead::Engine;
use keyhole_core::chunked::Opener;
use keyhole_core::limits::{CHUNK_LEN, PREFIX_LEN, SALT_LEN, TAG_LEN};
use keyhole_core::{DataKey, body};
use keyhole_log::limits::BLOCK_DATA;
use keyhole_log::{Body, ChunkTags, Disk, OpenBlock, Part};
use keyhole_s3::body::{Digester, Digests};

use crate::failure::{Result, damaged};
use crate::limits::STRIDE;
use crate::node::Node;
use crate::platform::{Buf, Platform};
use crate::source::{BodySource, Piece, PieceSource};

/// Reads a range of an object as verified plaintext.
pub(crate) struct Reader<'n, P: Platform> {
    node: &'n Node<P>,
    data_key: Option<Box<DataKey>>,
    /// The parts in the range, last first, each with its wanted bytes.
    parts: Vec<(Part, Range<u64>)>,
    current: Option<Box<Current<<P::Engine as Engine>::Aead>>>,
    /// The first body, if it has been read already.
    first: Option<Body>,
    remaining: u64,
}

/// The open body.
struct Current<A> {
    body: Body,
    /// The open block.
    block: Option<OpenBlock>,
    opener: Option<Opener<A>>,
    /// The bytes of the body that are still wanted.
    wanted: Range<u64>,
}

impl<'n, P: Platform> Reader<'n, P> {
    /// Creates a reader for `range` of the object with the bodies `parts`; a sealed object needs
    /// its data key.
    pub(crate) fn new(node: &'n Node<P>, parts: &[Part], data_key: Option<Box<DataKey>>, range: Range<u64>) -> Self {
        let mut touched = Vec::with_capacity(parts.len());
        let mut start = 0;
        for part in parts {
            let end = start + part.size;
            let wanted = range.start.max(start)..range.end.min(end);
            // The single body of an empty object is read too: its empty chunk must be
            // authenticated.
            if wanted.start < wanted.end || parts.len() == 1 {
                touched.push((part.clone(), wanted.start - start..wanted.end.max(wanted.start) - start));
            }
            start = end;
        }
        touched.reverse();
        Reader { node, data_key, parts: touched, current: None, first: None, remaining: range.end - range.start }
    }

    /// Sets the only body of the object, if it has been read already.
    pub(crate) fn with_body(mut self, body: Option<Body>) -> Self {
        self.first = body;
        self
    }

    /// Ends the read and returns the data key.
    pub(crate) fn into_data_key(self) -> Option<Box<DataKey>> {
        self.data_key
    }

    async fn piece(&mut self, buf: Buf<P>) -> Result<Option<Piece<Buf<P>>>> {
        let mut current = match self.current.take() {
            Some(current) => current,
            None => match self.parts.pop() {
                Some((part, wanted)) => self.open(&part, wanted).await?,
                None => return Ok(None),
            },
        };
        let start = current.wanted.start;
        let end = current.wanted.end;
        let index = start / BLOCK_DATA as u64;
        let block_start = index * BLOCK_DATA as u64;
        let block_end = (block_start + current.body.block_len(index) as u64).min(end);
        let first = (start - block_start) as usize / CHUNK_LEN;
        let piece_end = block_end.min(block_start + (first * CHUNK_LEN + STRIDE) as u64);
        let at = (start - block_start) as usize..(piece_end - block_start) as usize;
        let reaches_end = piece_end == current.body.len;
        // If a body ends with a full chunk, an empty final chunk follows; its tag authenticates the
        // end.
        let chunks = first..match (reaches_end, &current.opener) {
            (true, Some(_)) => at.end / CHUNK_LEN + 1,
            _ => at.end.div_ceil(CHUNK_LEN),
        };
        let block = match &mut current.block {
            Some(block) if block.index() == index => block,
            block => block.insert(self.node.log.open_block(&current.body, index)?),
        };
        // Tags make the checksums redundant.
        let log = &self.node.log;
        let checked = current.opener.is_none();
        let (tags, mut buf) = log.read_piece(&current.body, block, chunks.clone(), checked, buf).await;
        let tags = tags?;
        let front = first * CHUNK_LEN;
        if let Some(opener) = &mut current.opener {
            let len = current.body.block_len(index).min(chunks.end * CHUNK_LEN).saturating_sub(front);
            if let Err(failure) = open_chunks(opener, index, chunks.clone(), <P::Disk>::slice(&mut buf, 0..len), &tags)
            {
                // The checksums tell a damaged medium from a modified object.
                log.read_piece(&current.body, block, chunks, true, buf).await.0?;
                return Err(failure);
            }
        }
        let len = (at.end - at.start) as u64;
        self.remaining =
            self.remaining.checked_sub(len).ok_or_else(|| damaged("an object has more bytes than it says"))?;
        current.wanted.start = piece_end;
        if current.wanted.start < end {
            self.current = Some(current);
        }
        Ok(Some(Piece { buf, at: at.start - front..at.end - front }))
    }

    async fn open(&mut self, part: &Part, wanted: Range<u64>) -> Result<Box<Current<<P::Engine as Engine>::Aead>>> {
        let body = match self.first.take() {
            Some(body) => body,
            None => self.node.log.body(part).await?,
        };
        // The log compares the lengths of bodies that it looks up, but not one that it has handed out before.
        if body.len != part.size {
            return Err(damaged("a body is not as long as its object says"));
        }
        let opener = match &self.data_key {
            None => None,
            Some(data_key) => {
                let prefix: &[u8; PREFIX_LEN] =
                    body.prefix.as_slice().try_into().map_err(|_| damaged("a sealed body has no salt"))?;
                if prefix[..SALT_LEN] != part.salt {
                    return Err(damaged("a sealed body is not the one that its object names"));
                }
                let context = body::context(u32::from(part.number));
                Some(Opener::new(&self.node.engine, data_key.expose(), prefix, &[&context])?)
            }
        };
        Ok(Box::new(Current { body, block: None, opener, wanted }))
    }
}

impl<P: Platform> PieceSource<Buf<P>> for Reader<'_, P> {
    fn remaining(&self) -> u64 {
        self.remaining
    }

    fn piece_len(&self) -> usize {
        STRIDE
    }

    async fn next(&mut self, buf: Buf<P>) -> Result<Option<Piece<Buf<P>>>> {
        self.piece(buf).await
    }
}

/// Verifies and decrypts chunks of a block in place; `data` begins with the first of them.
fn open_chunks<A: keyhole_core::aead::Aead>(
    opener: &mut Opener<A>,
    index: u64,
    chunks: Range<usize>,
    data: &mut [u8],
    tags: &ChunkTags,
) -> Result<()> {
    let first = index * (BLOCK_DATA / CHUNK_LEN) as u64;
    for (place, chunk) in chunks.enumerate() {
        let tag: &[u8; TAG_LEN] = tags.get(chunk).ok_or_else(|| damaged("a sealed block lacks a tag"))?;
        let start = (place * CHUNK_LEN).min(data.len());
        let end = (start + CHUNK_LEN).min(data.len());
        opener.open_at(first + chunk as u64, &mut data[start..end], tag)?;
    }
    Ok(())
}

/// The body of a stored object as the body of a new one.
pub(crate) struct CopiedBody<'n, P: Platform> {
    reader: Reader<'n, P>,
    /// The current piece.
    piece: Option<Piece<Buf<P>>>,
    /// Bytes not yet consumed.
    remaining: u64,
    /// Computes digests of all consumed bytes.
    digester: Digester,
}

impl<'n, P: Platform> CopiedBody<'n, P> {
    pub(crate) fn new(reader: Reader<'n, P>, digester: Digester) -> Self {
        let remaining = reader.remaining;
        CopiedBody { reader, piece: None, remaining, digester }
    }

    /// Returns the digests of the consumed bytes.
    pub(crate) fn finish(self) -> Result<Digests> {
        Ok(self.digester.finish()?)
    }
}

impl<P: Platform> BodySource<Buf<P>> for CopiedBody<'_, P> {
    fn remaining(&self) -> u64 {
        self.remaining
    }

    async fn fill(&mut self, mut buf: Buf<P>, at: Range<usize>) -> (Result<usize>, Buf<P>) {
        let start = at.start;
        let limit = at.end;
        let mut filled = start;
        // Read the empty piece of an empty object too, since reading authenticates it.
        while filled < limit {
            let piece = match self.piece.take() {
                Some(piece) => piece,
                None => {
                    match self.reader.next(self.reader.node.log.disk().buffer_with_len(self.reader.piece_len())).await {
                        Ok(Some(piece)) => piece,
                        Ok(None) if self.remaining == 0 => break,
                        Ok(None) => return (Err(damaged("an object has fewer bytes than it says")), buf),
                        Err(failure) => return (Err(failure), buf),
                    }
                }
            };
            let len = piece.at.len().min(limit - filled);
            let from = &piece.buf.as_ref()[piece.at.start..piece.at.start + len];
            <P::Disk>::slice(&mut buf, filled..filled + len).copy_from_slice(from);
            self.digester.update(from);
            filled += len;
            let Some(remaining) = self.remaining.checked_sub(len as u64) else {
                return (Err(damaged("an object has more bytes than it says")), buf);
            };
            self.remaining = remaining;
            if len < piece.at.len() {
                self.piece = Some(Piece { at: piece.at.start + len..piece.at.end, buf: piece.buf });
            }
        }
        (Ok(filled - start), buf)
    }
}
