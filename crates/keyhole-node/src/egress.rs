//! Reads stored objects: from blocks in the log to verified plaintext, piece by piece.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use keyhole_core::aead::Engine;
use keyhole_core::chunked::Opener;
use keyhole_core::limits::{CHUNK_LEN, PREFIX_LEN, SALT_LEN, TAG_LEN};
use keyhole_core::{DataKey, body};
use keyhole_log::limits::{BLOCK_DATA, BUFFER_LEN};
use keyhole_log::{Access, Body, ChunkTags, Disk, Log, Object, ObjectPin, OpenBlock, Part};
use keyhole_s3::body::{Digester, Digests};

use crate::evicted_file::{CHUNKS_AT_ONCE, EvictedFile};
use crate::failure::{Result, damaged};
use crate::limits::{SEND_MAX, STRIDE};
use crate::node::Node;
use crate::platform::{Buf, Platform};
use crate::source::{BodySource, Piece, PieceSource, Span, Whole};

/// Reads a range of an object as verified plaintext.
pub(crate) struct Reader<'n, P: Platform> {
    node: &'n Node<P>,
    data_key: Option<Box<DataKey>>,
    /// The parts in the range, last first, each with its wanted bytes.
    parts: Vec<(Part, Range<u64>)>,
    current: Option<Current<P>>,
    /// The remote's file, if the object is evicted, and its open body.
    evicted: Option<Box<EvictedFile<'n>>>,
    current_evicted: Option<CurrentEvicted<P>>,
    /// The first body, if it has been read already.
    first: Option<Body>,
    remaining: u64,
    /// The parts that follow are read while others delete or replace the object.
    _pin: ObjectPin,
}

/// The open body of the reader.
struct Current<P: Platform> {
    open: Rc<OpenBody<P>>,
    block: Option<CurrentBlock>,
    /// The bytes of the body that are still wanted.
    wanted: Range<u64>,
}

/// The open body of an evicted object.
struct CurrentEvicted<P: Platform> {
    /// Index among the parts of the object.
    index: usize,
    len: u64,
    opener: Opener<<P::Engine as Engine>::Aead>,
    /// The bytes of the body that are still wanted.
    wanted: Range<u64>,
}

/// The open block of a body.
struct CurrentBlock {
    opened: OpenBlock,
    index: u64,
    /// Offset in the body of its first byte.
    start: u64,
    /// Offset in the body of the end of its wanted bytes.
    end: u64,
    access: Access,
}

/// A body, and the key to open its chunks with. Its spans share it.
struct OpenBody<P: Platform> {
    body: Body,
    opener: Option<RefCell<Opener<<P::Engine as Engine>::Aead>>>,
}

impl<'n, P: Platform> Reader<'n, P> {
    /// Creates a reader for `range` of an object; a sealed object needs its data key.
    pub(crate) fn new(node: &'n Node<P>, object: &Object, data_key: Option<Box<DataKey>>, range: Range<u64>) -> Self {
        Self::of_parts(node, object, &object.parts, data_key, range)
    }

    /// Creates a reader for `range` of these parts of an object.
    pub(crate) fn of_parts(
        node: &'n Node<P>,
        object: &Object,
        parts: &[Part],
        data_key: Option<Box<DataKey>>,
        range: Range<u64>,
    ) -> Self {
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
        let remaining = range.end - range.start;
        Reader {
            node,
            data_key,
            parts: touched,
            current: None,
            evicted: None,
            current_evicted: None,
            first: None,
            remaining,
            _pin: object.pin(),
        }
    }

    /// Reads the bodies of an evicted object from the remote's file.
    pub(crate) fn with_evicted(mut self, evicted: Option<Box<EvictedFile<'n>>>) -> Self {
        self.evicted = evicted;
        self
    }

    /// Opens the file of an evicted object, so that a failure is known before the response begins.
    pub(crate) async fn begin(&mut self) -> Result<()> {
        if self.evicted.is_some() && self.current_evicted.is_none() {
            self.current_evicted = self.open_evicted().await?;
        }
        Ok(())
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

    /// Reads and verifies the next piece of at most [`STRIDE`] bytes. Returns `None` at the end.
    pub(crate) async fn next(&mut self, buf: Buf<P>) -> Result<Option<Piece<Buf<P>>>> {
        match self.read(buf, STRIDE).await? {
            Some(mut span) => span.verify().await,
            None => Ok(None),
        }
    }

    /// Takes the open body with the block of its next wanted byte, or opens them. Returns `None` at
    /// the end.
    async fn take_current(&mut self) -> Result<Option<Current<P>>> {
        let mut current = match self.current.take() {
            Some(current) => current,
            None => match self.parts.pop() {
                Some((part, wanted)) => self.open(&part, wanted).await?,
                None => return Ok(None),
            },
        };
        let index = current.wanted.start / BLOCK_DATA as u64;
        if current.block.as_ref().is_none_or(|block| block.index != index) {
            let body = &current.open.body;
            let mut opened = self.node.log.open_block(body, index)?;
            let start = index * BLOCK_DATA as u64;
            let end = (start + body.block_len(index) as u64).min(current.wanted.end);
            let first = (current.wanted.start - start) as usize / CHUNK_LEN;
            let last = ((end - start) as usize).div_ceil(CHUNK_LEN);
            let access = self.node.log.choose_access(&mut opened, &(first..last));
            current.block = Some(CurrentBlock { opened, index, start, end, access });
        }
        Ok(Some(current))
    }

    async fn span(&mut self, buf: Buf<P>, len_max: usize) -> Result<Option<BodySpan<'n, P>>> {
        let Some(mut current) = self.take_current().await? else { return Ok(None) };
        let Some(block) = &mut current.block else { return Ok(None) };
        let log = &self.node.log;
        let body = &current.open.body;
        let is_sealed = current.open.opener.is_some();
        let Range { start, end } = current.wanted;
        let first = (start - block.start) as usize / CHUNK_LEN;
        let len_max = span_max(block.access).min(len_max);
        let span_end = block.end.min(block.start + (first * CHUNK_LEN + len_max) as u64);
        let at = (start - block.start) as usize..(span_end - block.start) as usize;
        // If a body ends with a full chunk, an empty final chunk follows; its tag authenticates the
        // end.
        let chunks = first..match span_end == body.len && is_sealed {
            true => at.end / CHUNK_LEN + 1,
            false => at.end.div_ceil(CHUNK_LEN),
        };
        // Tags make the checksums redundant.
        let (tags, buf) = log.read_piece(body, &mut block.opened, chunks.clone(), !is_sealed, buf).await;
        let tags = tags?;
        let len = (at.end - at.start) as u64;
        self.remaining =
            self.remaining.checked_sub(len).ok_or_else(|| damaged("an object has more bytes than it says"))?;
        let front = first * CHUNK_LEN;
        let span = BodySpan {
            log,
            open: Rc::clone(&current.open),
            index: block.index,
            tags,
            buf: Some(buf),
            front,
            chunks,
            at: at.start - front..at.end - front,
            is_verified: false,
        };
        current.wanted.start = span_end;
        if span_end < end {
            self.current = Some(current);
        }
        Ok(Some(span))
    }

    /// Opens the next body of an evicted object. Returns `None` at the end.
    async fn open_evicted(&mut self) -> Result<Option<CurrentEvicted<P>>> {
        let Some(evicted) = &mut self.evicted else { return Ok(None) };
        let Some((part, wanted)) = self.parts.pop() else { return Ok(None) };
        let Some(data_key) = &self.data_key else { return Err(damaged("an evicted object is not sealed")) };
        let index = evicted.index_of(&part)?;
        let prefix = evicted.prefix(index, &part, wanted.start / CHUNK_LEN as u64).await?;
        let context = body::context(u32::from(part.number));
        let opener = Opener::new(&self.node.engine, data_key.expose(), &prefix, &[&context])?;
        Ok(Some(CurrentEvicted { index, len: part.size, opener, wanted }))
    }

    /// Reads and verifies the next chunks of an evicted object.
    async fn evicted_span(&mut self, mut buf: Buf<P>) -> Result<Option<Whole<Buf<P>>>> {
        self.begin().await?;
        let Some(mut current) = self.current_evicted.take() else { return Ok(None) };
        let Some(evicted) = &mut self.evicted else { return Ok(None) };
        let chunk_len = CHUNK_LEN as u64;
        let Range { start, end } = current.wanted;
        let first = start / chunk_len;
        let span_end = end.min((first + CHUNKS_AT_ONCE as u64) * chunk_len);
        // If a body ends with a full chunk, an empty final chunk follows.
        let chunks = first..match span_end == current.len {
            true => span_end / chunk_len + 1,
            false => span_end.div_ceil(chunk_len),
        };
        let data = <P::Disk>::slice(&mut buf, 0..STRIDE);
        let (len, tags) = evicted.chunks(current.index, chunks.clone(), data).await?;
        if len as u64 != current.len.min(chunks.end * chunk_len) - first * chunk_len {
            return Err(damaged("a body is not as long as its object says"));
        }
        for ((chunk, tag), data) in chunks.zip(&tags).zip(padded_chunks(&mut data[..len])) {
            current.opener.open_at(chunk, data, tag)?;
        }
        let at = (start - first * chunk_len) as usize..(span_end - first * chunk_len) as usize;
        self.remaining = self
            .remaining
            .checked_sub(at.len() as u64)
            .ok_or_else(|| damaged("an object has more bytes than it says"))?;
        current.wanted.start = span_end;
        if span_end < end {
            self.current_evicted = Some(current);
        }
        Ok(Some(Whole::new(Piece { buf, at })))
    }

    async fn open(&mut self, part: &Part, wanted: Range<u64>) -> Result<Current<P>> {
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
                Some(RefCell::new(Opener::new(&self.node.engine, data_key.expose(), prefix, &[&context])?))
            }
        };
        Ok(Current { open: Rc::new(OpenBody { body, opener }), block: None, wanted })
    }
}

impl<'n, P: Platform> PieceSource<Buf<P>> for Reader<'n, P> {
    type Span = ObjectSpan<'n, P>;

    fn remaining(&self) -> u64 {
        self.remaining
    }

    fn piece_len(&self) -> usize {
        STRIDE
    }

    async fn prepare(&mut self) -> Result<usize> {
        if self.evicted.is_some() {
            return Ok(STRIDE);
        }
        self.current = self.take_current().await?;
        let Some(current) = &self.current else { return Ok(STRIDE) };
        let is_long = current
            .block
            .as_ref()
            .is_some_and(|block| span_max(block.access) > STRIDE && block.end - current.wanted.start > STRIDE as u64);
        Ok(if is_long { BUFFER_LEN } else { STRIDE })
    }

    async fn read(&mut self, buf: Buf<P>, len: usize) -> Result<Option<ObjectSpan<'n, P>>> {
        if self.evicted.is_some() {
            return Ok(self.evicted_span(buf).await?.map(ObjectSpan::Evicted));
        }
        Ok(self.span(buf, len).await?.map(ObjectSpan::Stored))
    }
}

/// Iterates over the chunks of some data, and then over empty ones.
fn padded_chunks(data: &mut [u8]) -> impl Iterator<Item = &mut [u8]> {
    data.chunks_mut(CHUNK_LEN).chain(std::iter::repeat_with(|| &mut [][..]))
}

/// A span of an object in the log, or of one in a remote.
pub(crate) enum ObjectSpan<'n, P: Platform> {
    Stored(BodySpan<'n, P>),
    /// Verified already.
    Evicted(Whole<Buf<P>>),
}

impl<P: Platform> Span<Buf<P>> for ObjectSpan<'_, P> {
    fn len(&self) -> usize {
        match self {
            ObjectSpan::Stored(span) => span.len(),
            ObjectSpan::Evicted(span) => span.len(),
        }
    }

    async fn verify(&mut self) -> Result<Option<Piece<Buf<P>>>> {
        match self {
            ObjectSpan::Stored(span) => span.verify().await,
            ObjectSpan::Evicted(span) => span.verify().await,
        }
    }

    fn put_back(&mut self, buf: Buf<P>, sent: Range<usize>) {
        match self {
            ObjectSpan::Stored(span) => span.put_back(buf, sent),
            ObjectSpan::Evicted(span) => span.put_back(buf, sent),
        }
    }
}

/// Chunks of a block that were read at once.
pub(crate) struct BodySpan<'n, P: Platform> {
    log: &'n Log<P::Disk>,
    open: Rc<OpenBody<P>>,
    /// Index of the block.
    index: u64,
    tags: ChunkTags,
    buf: Option<Buf<P>>,
    /// Offset in the block of the first byte in the buffer.
    front: usize,
    /// The chunks of the block that are not verified yet.
    chunks: Range<usize>,
    /// The wanted bytes in the buffer that are not verified yet.
    at: Range<usize>,
    /// Whether a step has been verified: an empty body has one without bytes.
    is_verified: bool,
}

impl<P: Platform> BodySpan<'_, P> {
    /// Takes the next chunks to verify, and their range in the buffer.
    fn take_step(&mut self) -> (Range<usize>, Range<usize>) {
        let chunks = self.chunks.clone();
        let data_end = (self.front + self.at.end).div_ceil(CHUNK_LEN);
        // The last step includes the tag of the empty chunk.
        let step_end = chunks.start + SEND_MAX / CHUNK_LEN;
        let step = chunks.start..if step_end < data_end { step_end } else { chunks.end };
        self.chunks.start = step.end;
        let block_len = self.open.body.block_len(self.index);
        let end = block_len.min(step.end * CHUNK_LEN).max(self.front);
        let start = (step.start * CHUNK_LEN).min(end);
        (step, start - self.front..end - self.front)
    }
}

impl<P: Platform> Span<Buf<P>> for BodySpan<'_, P> {
    fn len(&self) -> usize {
        self.at.len()
    }

    async fn verify(&mut self) -> Result<Option<Piece<Buf<P>>>> {
        if self.is_verified && self.at.is_empty() {
            return Ok(None);
        }
        let Some(mut buf) = self.buf.take() else { return Ok(None) };
        self.is_verified = true;
        let rest = self.chunks.clone();
        let (step, place) = self.take_step();
        if let Some(opener) = &self.open.opener {
            let data = <P::Disk>::slice(&mut buf, place.clone());
            let opened = open_chunks(&mut opener.borrow_mut(), self.index, step, data, &self.tags);
            if let Err(failure) = opened {
                // The checksums tell a damaged medium from a modified object.
                let mut block = self.log.open_block(&self.open.body, self.index)?;
                self.log.read_piece(&self.open.body, &mut block, rest, true, buf).await.0?;
                return Err(failure);
            }
        }
        let at = self.at.start..self.at.end.min(place.end);
        self.at.start = at.end;
        Ok(Some(Piece { buf, at }))
    }

    fn put_back(&mut self, mut buf: Buf<P>, sent: Range<usize>) {
        if !self.at.is_empty() {
            // While it is in the core's cache.
            <P::Disk>::wipe(&mut buf, sent.start / CHUNK_LEN * CHUNK_LEN..sent.end);
            self.buf = Some(buf);
        }
    }
}

/// Returns how many bytes are read at once.
fn span_max(access: Access) -> usize {
    match access {
        // A copy from the page cache is opened while it is in the core's cache.
        Access::Cached => STRIDE,
        Access::Direct => BLOCK_DATA,
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

    fn leave_md5(&mut self) -> bool {
        self.digester.leave_md5()
    }

    fn set_md5(&mut self, md5: [u8; 16]) {
        self.digester.set_md5(md5);
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
