//! Reads stored objects: from blocks in the log to verified plaintext, piece by piece.

use std::ops::Range;

use futures_util::future;
use keyhole_core::aead::Engine;
use keyhole_core::chunked::Opener;
use keyhole_core::limits::{CHUNK_LEN, PREFIX_LEN, SALT_LEN, TAG_LEN};
use keyhole_core::{DataKey, body};
use keyhole_log::limits::BLOCK_DATA;
use keyhole_log::{Body, ChunkTags, Disk, OpenBlock, Part};
use keyhole_s3::body::{Digester, Digests};

use crate::failure::{Failure, Result, damaged};
use crate::io::{Env, Stream};
use crate::limits::STRIDE;
use crate::node::Node;
use crate::observe::Account;
use crate::request::Payload;

/// Reads a range of an object as verified plaintext.
pub(crate) struct Reader<'n, D: Disk, E: Engine, V> {
    node: &'n Node<D, E, V>,
    data_key: Option<DataKey>,
    /// The parts in the range, last first, each with its wanted bytes.
    parts: Vec<(Part, Range<u64>)>,
    current: Option<Current<E::Aead>>,
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

/// A verified piece of an object: `buf[at]`.
pub(crate) struct Piece<B> {
    pub(crate) buf: B,
    pub(crate) at: Range<usize>,
}

/// The source of a response body.
#[allow(async_fn_in_trait)]
pub(crate) trait Source<B> {
    /// Returns the number of remaining bytes.
    fn remaining(&self) -> u64;

    /// Returns the length of the buffer needed for the next piece.
    fn piece_len(&self) -> usize;

    /// Reads the next piece into `buf`. Returns `None` at the end.
    async fn next(&mut self, buf: B) -> Result<Option<Piece<B>>>;
}

impl<'n, D: Disk, E: Engine, V: Env> Reader<'n, D, E, V> {
    /// Creates a reader for `range` of the object with the bodies `parts`; a sealed object needs
    /// its data key.
    pub(crate) fn new(node: &'n Node<D, E, V>, parts: &[Part], data_key: Option<DataKey>, range: Range<u64>) -> Self {
        let mut touched = Vec::new();
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

    async fn piece(&mut self, buf: D::Buf) -> Result<Option<Piece<D::Buf>>> {
        let mut current = match self.current.take() {
            Some(current) => current,
            None => match self.parts.pop() {
                Some((part, wanted)) => self.open(&part, wanted).await?,
                None => return Ok(None),
            },
        };
        let (start, end) = (current.wanted.start, current.wanted.end);
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
        // ChunkTags make the checksums redundant.
        let (log, checked) = (&self.node.log, current.opener.is_none());
        let (tags, mut buf) = log.read_piece(&current.body, block, chunks.clone(), checked, buf).await;
        let tags = tags?;
        let front = first * CHUNK_LEN;
        if let Some(opener) = &mut current.opener {
            let len = current.body.block_len(index).min(chunks.end * CHUNK_LEN).saturating_sub(front);
            if let Err(failure) = open_chunks(opener, index, chunks.clone(), D::slice(&mut buf, 0..len), &tags) {
                // The checksums tell a damaged medium from a modified object.
                log.read_piece(&current.body, block, chunks, true, buf).await.0?;
                return Err(failure);
            }
        }
        self.remaining -= (at.end - at.start) as u64;
        current.wanted.start = piece_end;
        if current.wanted.start < end {
            self.current = Some(current);
        }
        Ok(Some(Piece { buf, at: at.start - front..at.end - front }))
    }

    async fn open(&mut self, part: &Part, wanted: Range<u64>) -> Result<Current<E::Aead>> {
        let body = match self.first.take() {
            Some(body) => body,
            None => self.node.log.body(part).await?,
        };
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
        Ok(Current { body, block: None, opener, wanted })
    }
}

impl<D: Disk, E: Engine, V: Env> Source<D::Buf> for Reader<'_, D, E, V> {
    fn remaining(&self) -> u64 {
        self.remaining
    }

    fn piece_len(&self) -> usize {
        STRIDE
    }

    async fn next(&mut self, buf: D::Buf) -> Result<Option<Piece<D::Buf>>> {
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

impl<D: Disk, E: Engine, V: Env> Node<D, E, V> {
    /// Sends a response head and body, reading one piece ahead. An error before the first byte
    /// becomes an error response; after that, the connection has to be aborted.
    pub(crate) async fn send<S: Stream<Buf = D::Buf>>(
        &self,
        stream: &S,
        head: Vec<u8>,
        source: &mut impl Source<D::Buf>,
        account: &Account,
    ) -> Result<()> {
        let mut next = source.next(self.log.disk().buffer_with_len(source.piece_len())).await?;
        let mut head = Some(head);
        while let Some(piece) = next.take() {
            if let Some(mut head) = head.take() {
                if piece.at.len() <= crate::limits::COALESCE_MAX {
                    head.extend_from_slice(&piece.buf.as_ref()[piece.at.clone()]);
                    stream.write_bytes(head).await.0?;
                    account.add_sent(piece.at.len());
                    next = self.read_on(source).await?;
                    continue;
                }
                stream.write_bytes(head).await.0?;
            }
            let len = piece.at.len();
            let sending = stream.write_block(piece.buf, piece.at);
            if source.remaining() == 0 {
                sending.await.0?;
            } else {
                let ((sent, _), read) = future::join(sending, self.read_on(source)).await;
                sent?;
                next = read?;
            }
            account.add_sent(len);
        }
        Ok(())
    }

    /// Reads the next piece after the response head has been sent: every failure now aborts the
    /// connection.
    async fn read_on(&self, source: &mut impl Source<D::Buf>) -> Result<Option<Piece<D::Buf>>> {
        if source.remaining() == 0 {
            return Ok(None);
        }
        source.next(self.log.disk().buffer_with_len(source.piece_len())).await.map_err(|failure| match failure {
            Failure::Reply(error) => Failure::Connection(std::io::Error::other(error.to_string())),
            Failure::Fault(_, cause) => Failure::Connection(std::io::Error::other(cause)),
            gone @ Failure::Connection(_) => gone,
        })
    }
}

/// The body of a stored object as the payload of a new one.
pub(crate) struct Copied<'n, D: Disk, E: Engine, V> {
    reader: Reader<'n, D, E, V>,
    /// The current piece.
    piece: Option<Piece<D::Buf>>,
    /// Bytes not yet consumed.
    remaining: u64,
    /// Computes digests of all consumed bytes.
    digester: Digester,
}

impl<'n, D: Disk, E: Engine, V: Env> Copied<'n, D, E, V> {
    pub(crate) fn new(reader: Reader<'n, D, E, V>, digester: Digester) -> Self {
        let remaining = reader.remaining;
        Copied { reader, piece: None, remaining, digester }
    }

    /// Returns the digests of the consumed bytes.
    pub(crate) fn finish(self) -> Result<Digests> {
        Ok(self.digester.finish()?)
    }
}

impl<D: Disk, E: Engine, V: Env> Payload<D::Buf> for Copied<'_, D, E, V> {
    fn remaining(&self) -> u64 {
        self.remaining
    }

    async fn fill(&mut self, mut buf: D::Buf, at: Range<usize>) -> (Result<usize>, D::Buf) {
        let Range { start, end: limit } = at;
        let mut filled = start;
        // Read the empty piece of an empty object too, since reading authenticates it.
        while filled < limit {
            let piece = match self.piece.take() {
                Some(piece) => piece,
                None => {
                    match self.reader.next(self.reader.node.log.disk().buffer_with_len(self.reader.piece_len())).await {
                        Ok(Some(piece)) => piece,
                        Ok(None) => break,
                        Err(failure) => return (Err(failure), buf),
                    }
                }
            };
            let len = piece.at.len().min(limit - filled);
            let from = &piece.buf.as_ref()[piece.at.start..piece.at.start + len];
            D::slice(&mut buf, filled..filled + len).copy_from_slice(from);
            self.digester.update(from);
            filled += len;
            self.remaining -= len as u64;
            if len < piece.at.len() {
                self.piece = Some(Piece { at: piece.at.start + len..piece.at.end, buf: piece.buf });
            }
        }
        (Ok(filled - start), buf)
    }
}
