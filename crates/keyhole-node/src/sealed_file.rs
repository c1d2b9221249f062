//! Conversion between sealed object files and bodies in the log, without a key.
//!
//! An incoming file is checked as far as possible without a key: structure, order, lengths. A file
//! interleaves chunks and tags, the log stores them separately; the conversion is exact in both
//! directions.

use std::ops::Range;

use keyhole_core::chunked;
use keyhole_core::file::{BodyEntry, Decoded, ENTRY_LEN, FileError, Layout, Preface};
use keyhole_core::limits::{CHUNK_LEN, PREFIX_LEN, SALT_LEN, TAG_LEN};
use keyhole_log::limits::{BLOCK_DATA, CHUNK_TAGS_MAX, CHUNKS_MAX, buffer_len};
use keyhole_log::{Body, ChunkTags, Disk, Log, Object, ObjectPin, Part};
use keyhole_s3::{Error, ErrorCode};

use crate::bodies::check_etag;
use crate::body_memory::BodyMemory;
use crate::evicted::{EvictedError, EvictedObject, EvictedObjects};
use crate::evicted_file::EvictedFile;
use crate::failure::{Failure, Result, damaged};
use crate::ingest::Stored;
use crate::limits::STRIDE;
use crate::message::{SEALED_CHUNK, detach_tags};
use crate::part_checksums::part_checksums;
use crate::source::{BodySource, Piece, PieceSource, Whole};

/// Length of the part of a message that fills one block.
const SEALED_BLOCK: usize = CHUNKS_MAX * SEALED_CHUNK;

// A block's part of a message, the message's prefix and the tag of the empty final chunk fit into
// one buffer.
const _: () = assert!(PREFIX_LEN + SEALED_BLOCK + TAG_LEN <= keyhole_log::limits::BUFFER_LEN);

/// The beginning of a file, up to the part checksums.
pub(crate) struct Front {
    pub(crate) sealed_head: Vec<u8>,
    pub(crate) entries: Vec<BodyEntry>,
    pub(crate) infos_len: u64,
    /// Plaintext bytes of all bodies.
    pub(crate) size: u64,
}

/// The beginning of a file up to its list of bodies, and their number.
pub(crate) struct FrontStart {
    bytes: Vec<u8>,
    pub(crate) bodies: usize,
}

impl Front {
    /// Returns whether the object is from a single PUT, not from a multipart upload.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.entries[..], [BodyEntry { part_number: 0, .. }])
    }

    /// Receives the beginning of a file of `file_len` bytes and checks everything that does not
    /// need a key.
    pub(crate) async fn receive<D: Disk>(
        log: &Log<D>,
        source: &mut impl BodySource<D::Buf>,
        file_len: u64,
        bucket: &str,
        key: &str,
    ) -> Result<Front> {
        FrontStart::receive(log, source, bucket, key).await?.receive_entries(log, source, file_len).await
    }
}

impl FrontStart {
    /// Receives the beginning of a file up to its list of bodies, and checks its names.
    pub(crate) async fn receive<D: Disk>(
        log: &Log<D>,
        source: &mut impl BodySource<D::Buf>,
        bucket: &str,
        key: &str,
    ) -> Result<FrontStart> {
        let mut bytes = Vec::new();
        let preface = loop {
            match Preface::decode(&bytes).map_err(malformed)? {
                Decoded::Needs(needed) => {
                    let more = needed - bytes.len();
                    receive(log, source, more, &mut bytes).await?;
                }
                Decoded::Whole(preface, _) => break preface,
            }
        };
        if (preface.bucket, preface.key) != (bucket, key) {
            let message = "The sealed object is sealed for another bucket or key. Put it where its names say.";
            return Err(Error::new(ErrorCode::InvalidRequest).with_message(message).into());
        }
        let bodies = preface.bodies as usize;
        Ok(FrontStart { bytes, bodies })
    }

    /// Receives the list of bodies of a file of `file_len` bytes and checks everything that does not
    /// need a key.
    pub(crate) async fn receive_entries<D: Disk>(
        self,
        log: &Log<D>,
        source: &mut impl BodySource<D::Buf>,
        file_len: u64,
    ) -> Result<Front> {
        let Decoded::Whole(preface, _) = Preface::decode(&self.bytes).map_err(malformed)? else {
            return Err(malformed(FileError::Length).into());
        };
        let mut table = Vec::new();
        receive(log, source, preface.bodies as usize * ENTRY_LEN, &mut table).await?;
        let (entries, _) = table.as_chunks::<ENTRY_LEN>();
        let entries: Vec<BodyEntry> = entries.iter().map(BodyEntry::decode).collect();
        let mut layout = Layout::new(preface.bodies);
        entries.iter().try_for_each(|entry| layout.push(entry)).map_err(malformed)?;
        let totals = layout.finish().map_err(malformed)?;
        if totals.file_len(&preface) != file_len {
            return Err(malformed(FileError::Length).into());
        }
        let (infos_len, size) = (totals.infos_len, totals.plaintext_len);
        Ok(Front { sealed_head: preface.sealed_head.to_vec(), entries, infos_len, size })
    }
}

/// Receives exactly `len` bytes, at most one block.
pub(crate) async fn receive<D: Disk>(
    log: &Log<D>,
    source: &mut impl BodySource<D::Buf>,
    len: usize,
    into: &mut Vec<u8>,
) -> Result<()> {
    let (filled, buf) = source.fill(log.disk().buffer_with_len(len), 0..len).await;
    if filled? < len {
        return Err(malformed(FileError::Length).into());
    }
    into.extend_from_slice(&buf.as_ref()[..len]);
    Ok(())
}

/// Receives and discards `len` bytes.
pub(crate) async fn skip<D: Disk>(log: &Log<D>, source: &mut impl BodySource<D::Buf>, mut len: u64) -> Result<()> {
    while len > 0 {
        let most = len.min(BLOCK_DATA as u64) as usize;
        let (filled, _) = source.fill(log.disk().buffer_with_len(most), 0..most).await;
        match filled? {
            0 => return Err(malformed(FileError::Length).into()),
            filled => len -= filled as u64,
        }
    }
    Ok(())
}

/// Receives a body's message into blocks, separating the tags from the ciphertext. Reserves `memory`
/// for each block, if there is a limit.
pub(crate) async fn receive_message<D: Disk>(
    log: &Log<D>,
    source: &mut impl BodySource<D::Buf>,
    mut memory: Option<&mut BodyMemory<'_>>,
    message_len: u64,
) -> Result<Stored> {
    let mut prefix = Vec::with_capacity(PREFIX_LEN);
    receive(log, source, PREFIX_LEN, &mut prefix).await?;
    let mut salt = [0; SALT_LEN];
    salt.copy_from_slice(&prefix[..SALT_LEN]);
    let mut left = message_len - PREFIX_LEN as u64;
    let mut writer = log.body_writer();
    let (mut tags, mut size) = (Vec::with_capacity(CHUNK_TAGS_MAX), 0);
    loop {
        let is_last = left <= (SEALED_BLOCK + TAG_LEN) as u64;
        let len = if is_last { left as usize } else { SEALED_BLOCK };
        if let Some(memory) = &mut memory {
            memory.reserve(source, &mut writer, len.min(BLOCK_DATA)).await?;
        }
        // The tags of a full block take the place of its footer.
        let buf = log.disk().buffer_with_len(buffer_len(len.min(BLOCK_DATA)));
        let (filled, mut buf) = source.fill(buf, 0..len).await;
        if filled? < len {
            return Err(malformed(FileError::Length).into());
        }
        tags.clear();
        let data_len = detach_tags(D::slice(&mut buf, 0..len), &mut tags);
        D::mark_ciphertext(&mut buf);
        size += data_len as u64;
        if is_last {
            let content = writer.finish(Some((buf, data_len, &tags)), &prefix).await?;
            return Ok(Stored { content, salt, size });
        }
        left -= len as u64;
        writer.push(buf, &tags).await?;
    }
}

pub(crate) fn malformed(error: FileError) -> Error {
    Error::new(ErrorCode::InvalidRequest).with_message(format!("The sealed object file is malformed: {error}."))
}

/// Error reading stored bytes.
#[derive(Clone, Debug)]
pub enum ReadError {
    /// An error of the log.
    Log(keyhole_log::Error),
    /// The stored bytes are inconsistent.
    Damaged(String),
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReadError::Log(error) => error.fmt(f),
            ReadError::Damaged(what) => write!(f, "damaged: {what}"),
        }
    }
}

impl std::error::Error for ReadError {}

impl From<keyhole_log::Error> for ReadError {
    fn from(error: keyhole_log::Error) -> Self {
        ReadError::Log(error)
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Log(error) => error.into(),
            ReadError::Damaged(what) => damaged(&what),
        }
    }
}

pub(crate) fn is_damaged(what: &str) -> ReadError {
    ReadError::Damaged(what.to_owned())
}

/// Inserts the tags of `chunks` into a block of `data_len` bytes. The message's chunks then begin
/// at [`PREFIX_LEN`].
fn attach_tags(
    block: &mut [u8],
    data_len: usize,
    chunks: Range<usize>,
    tags: &ChunkTags,
) -> std::result::Result<(), ReadError> {
    // Backwards, so that no chunk is overwritten before it is moved.
    for chunk in chunks.rev() {
        let tag = tags.get(chunk).ok_or_else(|| is_damaged("a sealed block lacks a tag"))?;
        let from = (chunk * CHUNK_LEN).min(data_len)..((chunk + 1) * CHUNK_LEN).min(data_len);
        let (to, len) = (PREFIX_LEN + chunk * SEALED_CHUNK, from.len());
        block.copy_within(from, to);
        block[to + len..][..TAG_LEN].copy_from_slice(tag);
    }
    Ok(())
}

/// Returns the file of an evicted object in a remote, for reading up to this offset of its plaintext.
///
/// # Errors
/// `SlowDown` if the node has no remote; `Damaged`.
pub(crate) fn evicted_file<'n, D: Disk>(
    objects: Option<&'n dyn EvictedObjects>,
    log: &'n Log<D>,
    (bucket, key): (&str, &str),
    object: &Object,
    plaintext_end: u64,
) -> Result<Box<EvictedFile<'n>>> {
    let Some(objects) = objects else {
        return Err(EvictedError::Unavailable("the node has no remote".to_owned()).into());
    };
    // The remote has the file with all part checksums.
    let file = SealedFile::new(log, bucket, key, object, true)?;
    let mut wanted_end = file.len;
    let mut start = 0;
    for (part, message) in &file.bodies {
        let end = start + part.size;
        if plaintext_end <= end {
            let within = plaintext_end - start;
            let until = PREFIX_LEN as u64 + within.div_ceil(CHUNK_LEN as u64) * SEALED_CHUNK as u64;
            let is_whole = within == part.size;
            wanted_end = if is_whole { message.end } else { (message.start + until).min(message.end) };
            break;
        }
        start = end;
    }
    let named = EvictedObject {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        version: object.version,
        number: object.seq,
        file_len: file.len,
    };
    let messages = file.bodies.iter().map(|(_, at)| at.clone()).collect();
    let numbers = object.parts.iter().map(|part| part.number).collect();
    let is_stored = {
        let EvictedObject { bucket, key, number, .. } = named.clone();
        move || log.version_numbered(&bucket, &key, number).is_ok_and(|found| found.is_some())
    };
    Ok(Box::new(EvictedFile::new(objects, named, messages, numbers, wanted_end, Box::new(is_stored))))
}

/// Reads a stored object as its sealed object file.
pub(crate) struct SealedFile<'l, D: Disk> {
    log: &'l Log<D>,
    /// The bytes before the messages.
    front: Vec<u8>,
    /// The bodies and the ranges of the file that their messages take.
    bodies: Vec<(Part, Range<u64>)>,
    /// The open body and the range of its message.
    current: Option<(Range<u64>, Body)>,
    /// Length of the whole file.
    pub(crate) len: u64,
    /// The range of the file that is still to be sent.
    pub(crate) wanted: Range<u64>,
    /// The remote's file, if the object is evicted.
    evicted: Option<Box<EvictedFile<'l>>>,
    /// The bodies are read while others delete or replace the object.
    _pin: ObjectPin,
}

impl<'l, D: Disk> SealedFile<'l, D> {
    /// Prepares the file of a sealed object; `with_part_checksums` includes the sealed part checksums.
    pub(crate) fn new(
        log: &'l Log<D>,
        bucket: &str,
        key: &str,
        object: &Object,
        with_part_checksums: bool,
    ) -> std::result::Result<Self, ReadError> {
        check_etag(object).map_err(ReadError::Damaged)?;
        let impossible = |error: FileError| ReadError::Damaged(format!("a sealed object makes no file: {error}"));
        let preface = Preface { bucket, key, sealed_head: &object.head, bodies: object.parts.len() as u32 };
        let mut front = vec![0; preface.encoded_len()];
        preface.encode(&mut front).map_err(impossible)?;
        let mut layout = Layout::new(preface.bodies);
        let mut bodies = Vec::with_capacity(object.parts.len());
        let kept = if with_part_checksums { &object.part_checksums[..] } else { &[] };
        let mut kept_infos = part_checksums(kept);
        for part in &object.parts {
            let message_len = chunked::message_len(part.size).ok_or_else(|| impossible(FileError::BodyLength))?;
            let info_len = kept_infos.next().map_or(0, <[u8]>::len) as u32;
            let entry = BodyEntry { part_number: part.number.into(), message_len, info_len };
            layout.push(&entry).map_err(impossible)?;
            front.extend_from_slice(&entry.encode());
            bodies.push((part.clone(), 0..message_len));
        }
        part_checksums(kept).take(object.parts.len()).for_each(|info| front.extend_from_slice(info));
        let mut end = front.len() as u64;
        for (_, at) in &mut bodies {
            *at = end..end + at.end;
            end = at.end;
        }
        Ok(SealedFile {
            log,
            front,
            bodies,
            current: None,
            len: end,
            wanted: 0..end,
            evicted: None,
            _pin: object.pin(),
        })
    }

    /// Reads the bodies from the file of the evicted object.
    pub(crate) fn with_evicted(mut self, evicted: Option<Box<EvictedFile<'l>>>) -> Self {
        self.evicted = evicted;
        self
    }

    /// Opens the file of an evicted object, so that a failure is known before the response begins.
    pub(crate) async fn begin(&mut self) -> Result<()> {
        let offset = self.wanted.start.max(self.front.len() as u64);
        let index = self.bodies.partition_point(|(_, at)| at.end <= offset);
        match (self.bodies.get(index), &mut self.evicted) {
            (Some((_, message)), Some(evicted)) if offset < self.wanted.end => {
                evicted.message_bytes(index, offset - message.start, &mut []).await
            }
            _ => Ok(()),
        }
    }

    /// Returns whether the next piece comes from a remote.
    pub(crate) fn is_evicted(&self) -> bool {
        self.evicted.is_some() && self.wanted.start >= self.front.len() as u64 && !self.wanted.is_empty()
    }

    /// Reads the next piece of an evicted object.
    pub(crate) async fn evicted_piece(&mut self, mut buf: D::Buf) -> Result<Piece<D::Buf>> {
        let Range { start, end } = self.wanted;
        let index = self.bodies.partition_point(|(_, at)| at.end <= start);
        let Some(((_, message), evicted)) = self.bodies.get(index).zip(self.evicted.as_mut()) else {
            return Err(damaged("a sealed object has fewer bytes than it says"));
        };
        let len = (end.min(message.end) - start).min(STRIDE as u64) as usize;
        evicted.message_bytes(index, start - message.start, D::slice(&mut buf, 0..len)).await?;
        self.wanted.start += len as u64;
        Ok(Piece { buf, at: 0..len })
    }

    /// Opens the body whose message covers `offset` of the file.
    async fn open(&mut self, offset: u64) -> std::result::Result<(Range<u64>, Body), ReadError> {
        if let Some((at, body)) = self.current.take()
            && at.contains(&offset)
        {
            return Ok((at, body));
        }
        let index = self.bodies.partition_point(|(_, at)| at.end <= offset);
        let (part, at) =
            self.bodies.get(index).ok_or_else(|| is_damaged("a sealed object has fewer bytes than it says"))?;
        let body = self.log.body(part).await?;
        if body.len != part.size || body.prefix.len() != PREFIX_LEN || body.prefix[..SALT_LEN] != part.salt {
            return Err(is_damaged("a body is not the one that its object names"));
        }
        Ok((at.clone(), body))
    }

    /// Reads the next piece into `buf`, a buffer for a whole block. Returns `None` at the end.
    pub(crate) async fn piece(&mut self, mut buf: D::Buf) -> std::result::Result<Option<Piece<D::Buf>>, ReadError> {
        let Range { start, end } = self.wanted;
        if start >= end {
            return Ok(None);
        }
        if start < self.front.len() as u64 {
            let from = start as usize..end.min(self.front.len() as u64) as usize;
            let at = 0..from.len();
            D::slice(&mut buf, at.clone()).copy_from_slice(&self.front[from]);
            self.wanted.start += at.len() as u64;
            return Ok(Some(Piece { buf, at }));
        }
        let (message, body) = self.open(start).await?;
        let from = start - message.start;
        let index = (from.saturating_sub(PREFIX_LEN as u64) / SEALED_BLOCK as u64).min(body.blocks() - 1);
        // Offsets in the message: the first chunk of this block, and the end of the wanted bytes in
        // it.
        let chunks_at = PREFIX_LEN as u64 + index * SEALED_BLOCK as u64;
        let block_end = match index == body.blocks() - 1 {
            true => message.end - message.start,
            false => chunks_at + SEALED_BLOCK as u64,
        };
        let until = block_end.min(end - message.start);
        let first = from.saturating_sub(chunks_at) as usize / SEALED_CHUNK;
        let chunks = first..(until.saturating_sub(chunks_at) as usize).div_ceil(SEALED_CHUNK).max(first);
        let (tags, mut buf) = self.log.read_block(&body, index, chunks.clone(), buf).await;
        let place = PREFIX_LEN + (until.saturating_sub(chunks_at) as usize).div_ceil(SEALED_CHUNK) * SEALED_CHUNK;
        let bytes = D::slice(&mut buf, 0..place.min(keyhole_log::limits::BUFFER_LEN));
        attach_tags(bytes, body.block_len(index), chunks, &tags?)?;
        if index == 0 {
            bytes[..PREFIX_LEN].copy_from_slice(&body.prefix);
        }
        // Only the first block is preceded by the prefix.
        let shift = |offset: u64| (offset + PREFIX_LEN as u64 - chunks_at) as usize;
        let at = shift(from)..shift(until);
        self.wanted.start = message.start + until;
        self.current = Some((message, body));
        Ok(Some(Piece { buf, at }))
    }
}

impl<D: Disk> PieceSource<D::Buf> for SealedFile<'_, D> {
    type Span = Whole<D::Buf>;

    fn remaining(&self) -> u64 {
        self.wanted.end - self.wanted.start
    }

    fn piece_len(&self) -> usize {
        keyhole_log::limits::BUFFER_LEN
    }

    async fn read(&mut self, buf: D::Buf, _: usize) -> Result<Option<Whole<D::Buf>>> {
        if self.is_evicted() {
            return Ok(Some(Whole::new(self.evicted_piece(buf).await?)));
        }
        Ok(self.piece(buf).await?.map(Whole::new))
    }
}
