//! Reading records and blocks. Everything is verified again on every read: checksum and identity.

use std::ops::Range;
use std::sync::Arc;

use super::Log;
use crate::body::{block_count, block_len};
use crate::disk::{Disk, is_unreadable, read_again, read_short_again};
use crate::error::{Damage, Error, UNREADABLE};
use crate::index::Location;
use crate::limits::{BLOCK_DATA, BUFFER_LEN, CHUNK_LEN, FOOTER_LEN, PAGE, TAGS_MAX};
use crate::sabotage::{self, Sabotage};
use crate::shared::{SegmentPin, Shared, State};
use crate::types::{BodyId, Part};
use crate::wire::StoreId;
use crate::wire::block::{Footer, Identity};
use crate::wire::payload::{Bytes, Payload, Run};
use crate::wire::{align_down, align_up, record};

/// Granules ahead of a footer that are read along with it, rather than the footer by itself.
const GAP_MAX: usize = 4 * CHUNK_LEN;

/// A body that can be read. It stays readable for as long as an [`Object`](crate::Object) that has it is held.
#[derive(Debug, Clone)]
pub struct Body {
    /// Opaque bytes given when it was written.
    pub prefix: Vec<u8>,
    /// Its bytes.
    pub len: u64,
    id: BodyId,
    bytes: Stored,
    /// Keep its blocks where they are.
    #[allow(dead_code)]
    pins: Arc<[SegmentPin]>,
}

#[derive(Debug, Clone)]
enum Stored {
    Inline { tags: Vec<[u8; 16]>, data: Vec<u8> },
    Blocks(Vec<Run>),
}

impl Body {
    /// The body of this identity, if that is what its record has.
    fn of(seq: u64, payload: Payload<'_>, id: BodyId) -> Option<Self> {
        let Payload::Body(body) = payload else { return None };
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

    /// Its blocks; an empty body has one, which is empty.
    pub fn blocks(&self) -> u64 {
        block_count(self.len)
    }

    /// Bytes in block `index`; 0 past the end.
    pub fn block_len(&self, index: u64) -> usize {
        block_len(self.len, index)
    }

    /// Where block `index` is.
    fn locate(&self, runs: &[Run], index: u64) -> Option<Identity> {
        let mut first = 0;
        for run in runs {
            let next = first + u64::from(run.blocks);
            if index < next {
                return Some(Identity {
                    generation: run.generation,
                    offset: run.offset + (index - first) * BUFFER_LEN as u64,
                    body: self.id.0,
                    index: u32::try_from(index).ok()?,
                    data_len: self.block_len(index) as u32,
                });
            }
            first = next;
        }
        None
    }
}

/// Tags of the chunks that were read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags {
    first: usize,
    tags: Vec<[u8; 16]>,
}

impl Tags {
    fn of(all: &[[u8; 16]], chunks: &Range<usize>) -> Self {
        let tags = all.get(chunks.start..chunks.end.min(all.len())).unwrap_or_default();
        Tags { first: chunks.start, tags: tags.to_vec() }
    }

    /// The tag of a chunk of the block, if the chunk is among those read and has one.
    pub fn get(&self, chunk: usize) -> Option<&[u8; 16]> {
        self.tags.get(chunk.checked_sub(self.first)?)
    }
}

/// A block that is read in several pieces: its footer is read once.
#[derive(Debug, Clone)]
pub struct OpenBlock {
    index: u64,
    stored: Option<(Identity, Option<Footer>)>,
}

impl OpenBlock {
    /// Which block of its body it is.
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
    /// If the block is not one of the body.
    pub fn open_block(&self, body: &Body, index: u64) -> Result<OpenBlock, Error> {
        assert!(index < body.blocks(), "a block of the body");
        let stored = match &body.bytes {
            Stored::Inline { .. } => None,
            Stored::Blocks(runs) => {
                let id = body.locate(runs, index).ok_or_else(|| Damage::error("a body that lacks a block", 0))?;
                Some((id, None))
            }
        };
        Ok(OpenBlock { index, stored })
    }

    /// Reads chunks of an open block of this body. The bytes of the first of them are at the front of the buffer that comes back,
    /// those of the others behind; the rest of the buffer is not to be looked at. Their checksums are compared where it is
    /// `checked`: who has something stronger to tell by need not. Otherwise as [`read_block`](Self::read_block).
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    ///
    /// # Panics
    /// If the range runs backwards, or the buffer is shorter than the chunks, and one page if they do not end the block.
    pub async fn read_piece(
        &self,
        body: &Body,
        block: &mut OpenBlock,
        chunks: Range<usize>,
        checked: bool,
        mut buf: D::Buf,
    ) -> (Result<Tags, Error>, D::Buf) {
        assert!(chunks.start <= chunks.end, "chunks of a block");
        let chunks = chunks.start.min(TAGS_MAX)..chunks.end.min(TAGS_MAX);
        let Some((id, known)) = &mut block.stored else {
            let Stored::Inline { tags, data } = &body.bytes else { unreachable!("a block of this body") };
            let span = (chunks.start * CHUNK_LEN).min(data.len())..(chunks.end * CHUNK_LEN).min(data.len());
            D::part(&mut buf, 0..span.len()).copy_from_slice(&data[span]);
            return (Ok(Tags::of(tags, &chunks)), buf);
        };
        let (disk, store) = (self.disk().as_ref(), &self.shared().store);
        let (padded, span) = (id.padded(), Footer::span(id.data_len as usize, &chunks));
        // The footer comes along where it follows closely.
        let mut with_footer = known.is_none() && padded + FOOTER_LEN - span.start <= buf.as_ref().len();
        loop {
            if known.is_none() && !with_footer {
                let page = disk.buffer_of(FOOTER_LEN);
                let page = read_short_again(disk, id.offset + padded as u64, page, 0..FOOTER_LEN).await;
                *known = match (page.0, page.1) {
                    (Ok(()), page) => Footer::parse(&page.as_ref()[..FOOTER_LEN], id, store),
                    (Err(error), _) => return (Err(read_error(error, id.offset)), buf),
                };
            }
            let until = if with_footer { padded + FOOTER_LEN } else { span.end };
            let at = 0..until - span.start;
            let (result, back) = read_again(disk, id.offset + span.start as u64, buf, at.clone()).await;
            buf = back;
            match result {
                Ok(()) if with_footer => {
                    *known = Footer::parse(&buf.as_ref()[padded - span.start..at.end], id, store);
                    break;
                }
                Ok(()) => break,
                // What lies between the chunks and the footer need not be readable.
                Err(error) if with_footer && span.end < padded && is_unreadable(&error) => with_footer = false,
                Err(error) => return (Err(read_error(error, id.offset)), buf),
            }
        }
        let verdict = match known {
            None => Err(Damage::error("a block whose footer does not verify", id.offset)),
            Some(footer) if !checked || footer.verify_piece(chunks.start, &buf.as_ref()[..span.len()]) => {
                Ok(Tags::of(footer.tags(), &chunks))
            }
            Some(_) => Err(Damage::error("a block that does not verify", id.offset)),
        };
        (verdict, buf)
    }

    /// A body of an object or of an upload, by its record.
    ///
    /// # Errors
    /// `PartChanged` if nothing refers to it any more; `Damaged`, `Io`.
    pub async fn body(&self, part: &Part) -> Result<Body, Error> {
        loop {
            let located = {
                let mut state = self.shared().lock();
                let at = state.index.body(part.body).ok_or(Error::PartChanged)?;
                if at == Location::LOST {
                    return Err(Damage::error("a body whose record is lost", 0));
                }
                Located::new(self.shared(), &mut state, at)
            };
            let at = located.at;
            let body = self.verified(located, |seq, payload| Body::of(seq, payload, part.body)).await?;
            if let Some(body) = self.pinned(body, at) {
                return Ok(body);
            }
        }
    }

    /// A body whose record was read at `at`, with its blocks pinned; `None`: they have been moved meanwhile, so what was read says
    /// where they were.
    fn pinned(&self, mut body: Body, at: Location) -> Option<Body> {
        let Stored::Blocks(runs) = &body.bytes else { return Some(body) };
        let mut state = self.shared().lock();
        if state.index.body(body.id) != Some(at) {
            return None;
        }
        let mut numbers: Vec<u32> = runs.iter().filter_map(|run| state.segments.number(run.offset)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let pins = numbers.into_iter().map(|number| SegmentPin::new(self.shared(), &mut state, number));
        body.pins = pins.collect();
        Some(body)
    }

    /// Reads the record of an object, and that of its only body, which stands ahead of it. The body is `None` if it has to be looked
    /// for: [`body`](Self::body) says what is wrong.
    pub(super) async fn record_with_body<T>(
        &self,
        located: Located,
        seq: u64,
        ahead: (BodyId, Location),
        take: impl FnOnce(Payload<'_>) -> Option<T>,
    ) -> Result<(T, Option<Body>), Error> {
        let (disk, store, at, (id, body_at)) = (self.disk().as_ref(), &self.shared().store, located.at, ahead);
        let start = align_down(body_at.offset(), PAGE as u64);
        let len = (align_up(at.offset() + u64::from(at.len()), PAGE as u64) - start) as usize;
        let (result, buf) = read_short_again(disk, start, disk.buffer_of(len), 0..len).await;
        result.map_err(|error| read_error(error, at.offset()))?;
        let bytes = &buf.as_ref()[..len];
        let found = |at: Location| {
            let record = find_record(&bytes[(at.offset() - start) as usize..], store, at, located.generation)?;
            Some((record.header.seq, Payload::parse(record.header.kind, record.payload)?))
        };
        let object = found(at).filter(|(found, _)| *found == seq).and_then(|(_, payload)| take(payload));
        let object = object.ok_or_else(|| Damage::error("a record that is not the one it should be", at.offset()))?;
        let body = found(body_at).and_then(|(seq, payload)| Body::of(seq, payload, id));
        Ok((object, body.and_then(|body| self.pinned(body, body_at))))
    }

    /// Reads chunks of a block. The bytes of chunk c are at `c * CHUNK_LEN` of the buffer that comes back; the rest of the
    /// buffer is not to be looked at. After an error there is nothing to be looked at. The empty chunk that ends a body of
    /// whole chunks has no bytes, but a tag: it may be in the range.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    ///
    /// # Panics
    /// If the block is not one of the body, or the range runs backwards.
    pub async fn read_block(
        &self,
        body: &Body,
        index: u64,
        chunks: Range<usize>,
        mut buf: D::Buf,
    ) -> (Result<Tags, Error>, D::Buf) {
        assert!(index < body.blocks() && chunks.start <= chunks.end, "chunks of a block of the body");
        let chunks = chunks.start.min(TAGS_MAX)..chunks.end.min(TAGS_MAX);
        match &body.bytes {
            Stored::Inline { tags, data } => {
                let span = (chunks.start * CHUNK_LEN).min(data.len())..(chunks.end * CHUNK_LEN).min(data.len());
                D::part(&mut buf, span.clone()).copy_from_slice(&data[span]);
                (Ok(Tags::of(tags, &chunks)), buf)
            }
            Stored::Blocks(runs) => match body.locate(runs, index) {
                Some(id) => self.read_chunks(&id, chunks, buf).await,
                None => (Err(Damage::error("a body that lacks a block", 0)), buf),
            },
        }
    }

    async fn read_chunks(&self, id: &Identity, chunks: Range<usize>, buf: D::Buf) -> (Result<Tags, Error>, D::Buf) {
        let (result, buf) = read_verified(self.disk().as_ref(), &self.shared().store, id, &chunks, buf).await;
        (result.map(|footer| Tags::of(footer.tags(), &chunks)), buf)
    }

    /// Reads the record of this sequence number and takes what is wanted out of it.
    pub(super) async fn record<T>(
        &self,
        located: Located,
        seq: u64,
        take: impl FnOnce(Payload<'_>) -> Option<T>,
    ) -> Result<T, Error> {
        self.verified(located, |found, payload| if found == seq { take(payload) } else { None }).await
    }

    async fn verified<T>(
        &self,
        located: Located,
        take: impl FnOnce(u64, Payload<'_>) -> Option<T>,
    ) -> Result<T, Error> {
        let (at, generation) = (located.at, located.generation);
        let disk = self.disk().as_ref();
        let result = read_record(disk, &self.shared().store, at, generation, |record| {
            Payload::parse(record.header.kind, record.payload).and_then(|payload| take(record.header.seq, payload))
        });
        result.await?.ok_or_else(|| Damage::error("a record that is not the one it should be", at.offset()))
    }
}

/// A record that is going to be read: its segment is not freed meanwhile.
pub(crate) struct Located {
    pub(crate) at: Location,
    pub(crate) generation: Option<u64>,
    _pin: Option<SegmentPin>,
}

impl Located {
    /// `state` is the locked state of `shared`.
    pub(crate) fn new(shared: &Arc<Shared>, state: &mut State, at: Location) -> Self {
        let number = state.segments.number(at.offset());
        let pin = number.map(|number| SegmentPin::new(shared, state, number));
        Located { at, generation: state.segments.generation(at.offset()), _pin: pin }
    }
}

/// Reads one record and takes what is wanted out of it. `generation`: of its segment; `None`: it is not in use, and nothing in
/// it is good.
pub(crate) async fn read_record<D: Disk, T>(
    disk: &D,
    store: &StoreId,
    at: Location,
    generation: Option<u64>,
    take: impl FnOnce(record::Record<'_>) -> T,
) -> Result<T, Error> {
    read_record_if(disk, store, at, |record| is_of(record, generation), take).await
}

/// Whether a record is of its segment's present use.
fn is_of(record: &record::Record<'_>, generation: Option<u64>) -> bool {
    Some(record.header.generation) == generation || sabotage::is(Sabotage::IgnoreGeneration)
}

/// The record at the front of `bytes`, if it is the one that is to be at `at`.
fn find_record<'a>(
    bytes: &'a [u8],
    store: &StoreId,
    at: Location,
    generation: Option<u64>,
) -> Option<record::Record<'a>> {
    let record = record::verify(bytes, store, at.offset())?;
    (Location::new(at.offset(), record.len) == at && is_of(&record, generation)).then_some(record)
}

/// The same, of any generation that is `wanted`.
pub(crate) async fn read_record_if<D: Disk, T>(
    disk: &D,
    store: &StoreId,
    at: Location,
    wanted: impl Fn(&record::Record<'_>) -> bool,
    take: impl FnOnce(record::Record<'_>) -> T,
) -> Result<T, Error> {
    let start = align_down(at.offset(), PAGE as u64);
    let len = (align_up(at.offset() + u64::from(at.len()), PAGE as u64) - start) as usize;
    let (result, buf) = read_short_again(disk, start, disk.buffer_of(len), 0..len).await;
    result.map_err(|error| read_error(error, at.offset()))?;
    let bytes = &buf.as_ref()[(at.offset() - start) as usize..len];
    let record = record::verify(bytes, store, at.offset())
        .filter(|record| Location::new(at.offset(), record.len) == at)
        .filter(wanted)
        .ok_or_else(|| Damage::error("a record that does not verify", at.offset()))?;
    Ok(take(record))
}

/// Reads chunks of a block to their places in the buffer, and verifies them.
pub(crate) async fn read_verified<D: Disk>(
    disk: &D,
    store: &StoreId,
    id: &Identity,
    chunks: &Range<usize>,
    buf: D::Buf,
) -> (Result<Footer, Error>, D::Buf) {
    let padded = id.padded();
    let span = match Footer::span(id.data_len as usize, chunks) {
        span if span.is_empty() => padded..padded,
        span => span,
    };
    let (mut together, mut buf) = (padded - span.end <= GAP_MAX, buf);
    let footer_at = loop {
        let first = if together { span.start..padded + FOOTER_LEN } else { span.clone() };
        let (mut result, back) = read_again(disk, id.offset + first.start as u64, buf, first).await;
        buf = back;
        let footer_at = if together { padded } else { BLOCK_DATA };
        if result.is_ok() && !together {
            (result, buf) = read_again(disk, id.offset + padded as u64, buf, footer_at..footer_at + FOOTER_LEN).await;
        }
        match result {
            Ok(()) => break footer_at,
            // What lies between the chunks and the footer need not be readable.
            Err(error) if together && span.end < padded && !span.is_empty() && is_unreadable(&error) => {
                together = false;
            }
            Err(error) => return (Err(read_error(error, id.offset)), buf),
        }
    };
    let footer = Footer::parse(&buf.as_ref()[footer_at..][..FOOTER_LEN], id, store);
    let verdict = match footer {
        None => Err(Damage::error("a block whose footer does not verify", id.offset)),
        Some(footer) if footer.verify(chunks, buf.as_ref()) => Ok(footer),
        Some(_) => Err(Damage::error("a block that does not verify", id.offset)),
    };
    (verdict, buf)
}

/// Says that what cannot be read is damaged. What lies past the end of the file was there once: the file has been cut short.
fn read_error(error: std::io::Error, offset: u64) -> Error {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Damage::error("something past the end of the file", offset),
        _ if is_unreadable(&error) => Damage::error(UNREADABLE, offset),
        _ => error.into(),
    }
}
