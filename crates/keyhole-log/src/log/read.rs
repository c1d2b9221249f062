//! Reading of objects' records and of bodies.

use std::ops::Range;
use std::sync::Arc;

use super::Log;
use crate::disk::{Access, Disk, is_unreadable, read_again_by, read_record_again};
use crate::error::{Damage, Error};
use crate::geometry::{block_count, block_len, run_blocks, with_starts};
use crate::index::Location;
use crate::limits::{BLOCK_DATA, CHUNK_LEN, CHUNK_TAGS_MAX, FOOTER_LEN, PAGE};
use crate::pin::SegmentPin;
use crate::read::{Located, find_record, read_error, read_record, read_verified_at};
use crate::types::{BodyId, Part};
use crate::wire::block::{BlockIdentity, Footer};
use crate::wire::payload::{Bytes, RecordPayload, Run};
use crate::wire::{align_down, align_up};

/// Maximum gap before a footer that is read along with a shorter range than the gap.
const FOOTER_GAP_MAX: usize = 8 * CHUNK_LEN;

/// Returns the maximum gap before a footer that is read along with a range of `len` bytes. A second
/// direct read costs as much as a long gap; from the page cache, the gap is copied in vain.
fn footer_gap_max(access: Access, len: usize) -> usize {
    match access {
        Access::Cached => FOOTER_GAP_MAX,
        Access::Direct => FOOTER_GAP_MAX.max(len),
    }
}

/// A readable body. It stays readable as long as an [`Object`](crate::Object) that has it is held.
#[derive(Debug, Clone)]
pub struct Body {
    /// Opaque bytes stored with the body.
    pub prefix: Vec<u8>,
    /// Length of the body in bytes.
    pub len: u64,
    id: BodyId,
    bytes: Stored,
    /// Pins the segments of its blocks.
    #[allow(dead_code)]
    pins: Arc<[SegmentPin]>,
}

#[derive(Debug, Clone)]
enum Stored {
    Inline { tags: Vec<[u8; 16]>, data: Vec<u8> },
    Blocks(Vec<Run>),
}

impl Body {
    /// Builds the body of this identity from its record.
    fn of(seq: u64, payload: RecordPayload<'_>, id: BodyId) -> Option<Self> {
        let RecordPayload::Body(body) = payload else { return None };
        (body.id == id && seq > id.0).then(|| Body {
            prefix: body.prefix.to_vec(),
            len: body.len,
            id,
            bytes: match body.bytes {
                Bytes::Inline { tags, data } => Stored::Inline { tags: tags.to_vec(), data: data.to_vec() },
                Bytes::Blocks(runs) => Stored::Blocks(runs),
            },
            pins: Arc::default(),
        })
    }

    /// Returns the number of blocks of [`BLOCK_DATA`] bytes. An empty body has one empty block. On
    /// disk a block may be in several pieces.
    pub fn blocks(&self) -> u64 {
        block_count(self.len)
    }

    /// Returns the length of block `index` in bytes; 0 past the end.
    pub fn block_len(&self, index: u64) -> usize {
        block_len(self.len, index)
    }

    /// Returns the pieces of block `index` on disk, in order.
    fn locate(&self, runs: &[Run], index: u64) -> Result<Vec<Piece>, Error> {
        let from = index * BLOCK_DATA as u64;
        let len = self.block_len(index);
        let until = from + len as u64;
        let mut pieces = Vec::with_capacity(1);
        let mut at = 0;
        for (start, run) in with_starts(runs) {
            if start >= until {
                break;
            }
            if start + u64::from(run.len) <= from {
                continue;
            }
            for id in run_blocks(self.id, start, run, from).take_while(|id| u64::from(id.index) == index) {
                pieces.push(Piece { id, first: at / CHUNK_LEN, access: Access::default(), footer: None });
                at += id.data_len as usize;
            }
        }
        if at == len { Ok(pieces) } else { Err(Damage::error("a body that lacks a block", 0)) }
    }
}

/// A contiguous piece of a block on disk, with its own footer.
#[derive(Debug, Clone)]
struct Piece {
    id: BlockIdentity,
    /// Index of its first chunk within the block.
    first: usize,
    access: Access,
    /// The footer, once it has been read.
    footer: Option<Footer>,
}

impl Piece {
    /// Returns which of the `wanted` chunks of the block are in this piece, relative to its first
    /// chunk. `last`: the piece ends its block and has the tag of the trailing empty chunk.
    fn chunks(&self, wanted: &Range<usize>, last: bool) -> Range<usize> {
        let end = if last { usize::MAX } else { self.id.data_len as usize / CHUNK_LEN };
        let from = |chunk: usize| chunk.saturating_sub(self.first).min(end);
        from(wanted.start)..from(wanted.end)
    }
}

/// The tags of the chunks read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChunkTags {
    first: usize,
    tags: Vec<[u8; 16]>,
}

impl ChunkTags {
    fn of(all: &[[u8; 16]], chunks: &Range<usize>) -> Self {
        let tags = all.get(chunks.start..chunks.end.min(all.len())).unwrap_or_default();
        ChunkTags { first: chunks.start, tags: tags.to_vec() }
    }

    /// Appends the tags of the next piece.
    fn extend(&mut self, all: &[[u8; 16]], chunks: &Range<usize>) {
        self.tags.extend_from_slice(all.get(chunks.start..chunks.end.min(all.len())).unwrap_or_default());
    }

    /// Returns the tag of a chunk of the block, if the chunk was read and has one.
    pub fn get(&self, chunk: usize) -> Option<&[u8; 16]> {
        self.tags.get(chunk.checked_sub(self.first)?)
    }
}

/// A block that is read in several steps. Its footers are read once.
#[derive(Debug, Clone)]
pub struct OpenBlock {
    index: u64,
    stored: Option<Vec<Piece>>,
}

impl OpenBlock {
    /// Returns the index of the block in its body.
    pub fn index(&self) -> u64 {
        self.index
    }
}

impl<D: Disk> Log<D> {
    /// Opens a block of a body, to be read in pieces.
    ///
    /// # Errors
    /// `Damaged`.
    ///
    /// # Panics
    /// Panics if the body has no such block.
    pub fn open_block(&self, body: &Body, index: u64) -> Result<OpenBlock, Error> {
        assert!(index < body.blocks(), "the block index is within the body");
        let stored = match &body.bytes {
            Stored::Inline { .. } => None,
            Stored::Blocks(runs) => Some(body.locate(runs, index)?),
        };
        Ok(OpenBlock { index, stored })
    }

    /// Lets the disk choose how `chunks` of an open block are read from now on. Returns `Direct` if
    /// some of them are read past the page cache, where one long read costs less than several.
    pub fn choose_access(&self, block: &mut OpenBlock, chunks: &Range<usize>) -> Access {
        let mut chosen = Access::Cached;
        let pieces = block.stored.iter_mut().flatten();
        for piece in pieces {
            let here = piece.chunks(chunks, false);
            if here.is_empty() {
                continue;
            }
            let Range { start, end } = Footer::span(piece.id.data_len as usize, &here);
            let offset = piece.id.offset;
            piece.access = self.disk().choose_access(offset, offset + start as u64..offset + end as u64);
            if piece.access == Access::Direct {
                chosen = Access::Direct;
            }
        }
        chosen
    }

    /// Reads chunks of an open block of this body. Their bytes are at the front of the returned
    /// buffer; the rest of the buffer is unspecified. Checksums are verified if `checked` is set;
    /// callers that authenticate the chunks can skip this. Otherwise like
    /// [`read_block`](Self::read_block).
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    ///
    /// # Panics
    /// Panics if the range is reversed, or if the buffer is shorter than the chunks, plus one page
    /// where they do not end the block.
    pub async fn read_piece(
        &self,
        body: &Body,
        block: &mut OpenBlock,
        chunks: Range<usize>,
        checked: bool,
        mut buf: D::Buf,
    ) -> (Result<ChunkTags, Error>, D::Buf) {
        assert!(chunks.start <= chunks.end, "the chunk range is in order");
        let chunks = chunks.start.min(CHUNK_TAGS_MAX)..chunks.end.min(CHUNK_TAGS_MAX);
        let Some(pieces) = &mut block.stored else {
            let Stored::Inline { tags, data } = &body.bytes else { unreachable!("an inline body has inline blocks") };
            let span = (chunks.start * CHUNK_LEN).min(data.len())..(chunks.end * CHUNK_LEN).min(data.len());
            D::slice(&mut buf, 0..span.len()).copy_from_slice(&data[span]);
            return (Ok(ChunkTags::of(tags, &chunks)), buf);
        };
        let count = pieces.len();
        let mut tags = ChunkTags { first: chunks.start, tags: Vec::new() };
        for (piece, i) in pieces.iter_mut().zip(1..) {
            let here = piece.chunks(&chunks, i == count);
            if here.is_empty() && !chunks.is_empty() {
                continue;
            }
            let at = (piece.first + here.start - chunks.start) * CHUNK_LEN;
            let (result, back) = self.read_chunks_of(piece, &here, checked, buf, at).await;
            buf = back;
            match result {
                Ok(()) => tags.extend(piece.footer.as_ref().map_or(&[], Footer::tags), &here),
                Err(error) => return (Err(error), buf),
            }
        }
        (Ok(tags), buf)
    }

    /// Reads chunks of a piece of a block to offset `to` of the buffer, and the
    /// footer if it is not known yet.
    async fn read_chunks_of(
        &self,
        piece: &mut Piece,
        chunks: &Range<usize>,
        checked: bool,
        mut buf: D::Buf,
        to: usize,
    ) -> (Result<(), Error>, D::Buf) {
        let Piece { id, footer: known, access, .. } = piece;
        let access = *access;
        let disk = self.disk().as_ref();
        let store = &self.store().id;
        let padded = id.padded();
        let span = Footer::span(id.data_len as usize, chunks);
        // A footer that follows closely is read along with the chunks.
        let mut with_footer = known.is_none()
            && to + padded + FOOTER_LEN - span.start <= buf.as_ref().len()
            && padded - span.end <= footer_gap_max(access, span.len());
        loop {
            if known.is_none() && !with_footer {
                let page = disk.buffer_with_len(FOOTER_LEN);
                let footer_at = id.offset + padded as u64;
                let page = read_record_again(disk, access, footer_at, page, 0..FOOTER_LEN).await;
                *known = match (page.0, page.1) {
                    (Ok(()), page) => Footer::parse(&page.as_ref()[..FOOTER_LEN], id, store),
                    (Err(error), _) => return (Err(read_error(error, id.offset)), buf),
                };
            }
            let until = if with_footer { padded + FOOTER_LEN } else { span.end };
            let at = to..to + until - span.start;
            let (result, back) = read_again_by(disk, access, id.offset + span.start as u64, buf, at.clone()).await;
            buf = back;
            match result {
                Ok(()) if with_footer => {
                    *known = Footer::parse(&buf.as_ref()[to + padded - span.start..at.end], id, store);
                    break;
                }
                Ok(()) => break,
                // Bytes between the chunks and the footer need not be readable.
                Err(error) if with_footer && span.end < padded && is_unreadable(&error) => with_footer = false,
                Err(error) => return (Err(read_error(error, id.offset)), buf),
            }
        }
        let verdict = match known {
            None => Err(Damage::error("a block whose footer does not verify", id.offset)),
            Some(footer) if !checked || footer.verify_piece(chunks.start, &buf.as_ref()[to..to + span.len()]) => Ok(()),
            Some(_) => Err(Damage::error("a block that does not verify", id.offset)),
        };
        (verdict, buf)
    }

    /// Returns a body of an object or of an upload, from its record.
    ///
    /// # Errors
    /// `PartChanged` if nothing refers to the body any more; `Evicted`; `Damaged`, `Io`.
    pub async fn body(&self, part: &Part) -> Result<Body, Error> {
        loop {
            let located = {
                let mut state = self.store().lock();
                let at = state.index.body(part.body).ok_or(Error::PartChanged)?;
                if at == Location::EVICTED {
                    return Err(Error::Evicted);
                }
                if at == Location::LOST {
                    return Err(Damage::error("a body whose record is lost", 0));
                }
                Located::new(self.store(), &mut state, at)
            };
            let at = located.at;
            let body = self.verified(located, |seq, payload| Body::of(seq, payload, part.body)).await?;
            if body.len != part.size {
                return Err(Damage::error("a body that is not as long as its part", at.offset()));
            }
            if let Some(body) = self.pinned(body, at) {
                return Ok(body);
            }
        }
    }

    /// Pins the blocks of a body whose record was read at `at`. `None`: the blocks have been moved
    /// since, so the record is stale.
    fn pinned(&self, mut body: Body, at: Location) -> Option<Body> {
        let Stored::Blocks(runs) = &body.bytes else { return Some(body) };
        let mut state = self.store().lock();
        if state.index.body(body.id) != Some(at) {
            return None;
        }
        let mut numbers: Vec<u32> = runs.iter().filter_map(|run| state.segments.number(run.offset)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let pins = numbers.into_iter().map(|number| SegmentPin::new(self.store(), &mut state, number));
        body.pins = pins.collect();
        Some(body)
    }

    /// Reads the record of an object together with the preceding record of its only body. The body
    /// is `None` if it has to be looked up; [`body`](Self::body) then reports the error.
    pub(super) async fn record_with_body<T>(
        &self,
        located: Located,
        seq: u64,
        id: BodyId,
        body_at: Location,
        take: impl FnOnce(RecordPayload<'_>) -> Option<T>,
    ) -> Result<(T, Option<Body>), Error> {
        let disk = self.disk().as_ref();
        let store = &self.store().id;
        let at = located.at;
        let start = align_down(body_at.offset(), PAGE as u64);
        let len = (align_up(at.offset() + u64::from(at.len()), PAGE as u64) - start) as usize;
        let (result, buf) = read_record_again(disk, self.records, start, disk.buffer_with_len(len), 0..len).await;
        result.map_err(|error| read_error(error, at.offset()))?;
        let bytes = &buf.as_ref()[..len];
        let found = |at: Location| {
            let record = find_record(&bytes[(at.offset() - start) as usize..], store, at, located.generation)?;
            Some((record.header.seq, RecordPayload::parse(record.header.kind, record.payload)?))
        };
        let object = found(at).filter(|(found, _)| *found == seq).and_then(|(_, payload)| take(payload));
        let object = object.ok_or_else(|| Damage::error("a record with unexpected contents", at.offset()))?;
        let body = found(body_at).and_then(|(seq, payload)| Body::of(seq, payload, id));
        Ok((object, body.and_then(|body| self.pinned(body, body_at))))
    }

    /// Reads chunks of a block. Chunk c is at `c * CHUNK_LEN` of the returned buffer; the rest of
    /// the buffer is unspecified, and all of it after an error. The empty chunk that ends a body of
    /// whole chunks has a tag but no bytes, and may be in the range.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    ///
    /// # Panics
    /// Panics if the body has no such block, or if the range is reversed.
    pub async fn read_block(
        &self,
        body: &Body,
        index: u64,
        chunks: Range<usize>,
        mut buf: D::Buf,
    ) -> (Result<ChunkTags, Error>, D::Buf) {
        assert!(
            index < body.blocks() && chunks.start <= chunks.end,
            "the block index is within the body and the chunk range is in order"
        );
        let chunks = chunks.start.min(CHUNK_TAGS_MAX)..chunks.end.min(CHUNK_TAGS_MAX);
        match &body.bytes {
            Stored::Inline { tags, data } => {
                let span = (chunks.start * CHUNK_LEN).min(data.len())..(chunks.end * CHUNK_LEN).min(data.len());
                D::slice(&mut buf, span.clone()).copy_from_slice(&data[span]);
                (Ok(ChunkTags::of(tags, &chunks)), buf)
            }
            Stored::Blocks(runs) => match body.locate(runs, index) {
                Ok(pieces) => self.read_chunks(&pieces, chunks, buf).await,
                Err(error) => (Err(error), buf),
            },
        }
    }

    async fn read_chunks(
        &self,
        pieces: &[Piece],
        chunks: Range<usize>,
        mut buf: D::Buf,
    ) -> (Result<ChunkTags, Error>, D::Buf) {
        let disk = self.disk().as_ref();
        let store = &self.store().id;
        let mut tags = ChunkTags { first: chunks.start, tags: Vec::new() };
        for (piece, i) in pieces.iter().zip(1..) {
            let here = piece.chunks(&chunks, i == pieces.len());
            if here.is_empty() && !chunks.is_empty() {
                continue;
            }
            let (result, back) = read_verified_at(disk, store, &piece.id, &here, buf, piece.first * CHUNK_LEN).await;
            buf = back;
            match result {
                Ok(footer) => tags.extend(footer.tags(), &here),
                Err(error) => return (Err(error), buf),
            }
        }
        (Ok(tags), buf)
    }

    /// Reads the record with this sequence number and extracts a value from it.
    pub(super) async fn record<T>(
        &self,
        located: Located,
        seq: u64,
        take: impl FnOnce(RecordPayload<'_>) -> Option<T>,
    ) -> Result<T, Error> {
        self.verified(located, |found, payload| if found == seq { take(payload) } else { None }).await
    }

    async fn verified<T>(
        &self,
        located: Located,
        take: impl FnOnce(u64, RecordPayload<'_>) -> Option<T>,
    ) -> Result<T, Error> {
        let at = located.at;
        let generation = located.generation;
        let disk = self.disk().as_ref();
        let result = read_record(disk, self.records, &self.store().id, at, generation, |record| {
            RecordPayload::parse(record.header.kind, record.payload)
                .and_then(|payload| take(record.header.seq, payload))
        });
        result.await?.ok_or_else(|| Damage::error("a record with unexpected contents", at.offset()))
    }
}
