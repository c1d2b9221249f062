//! Reading of records and blocks from the disk. Checksum and identity are verified on every read.

use std::ops::Range;
use std::sync::Arc;

use crate::disk::{Access, Disk, is_unreadable, read_again_by, read_record_again};
use crate::error::{Damage, Error, UNREADABLE};
use crate::index::Location;
use crate::limits::{BLOCK_DATA, CHUNK_LEN, FOOTER_LEN, PAGE};
use crate::pin::SegmentPin;
use crate::sabotage::{self, Sabotage};
use crate::state::State;
use crate::store::Store;
use crate::wire::block::{BlockIdentity, Footer};
use crate::wire::{StoreId, align_down, align_up, record};

/// Maximum gap before a footer that is read along with it, instead of a separate read.
const GAP_MAX: usize = 4 * CHUNK_LEN;

/// A located record, about to be read. It pins its segment.
pub(crate) struct Located {
    pub(crate) at: Location,
    pub(crate) generation: Option<u64>,
    _pin: Option<SegmentPin>,
}

impl Located {
    /// Pins the segment of `at`. `state` must be the locked state of `store`.
    pub(crate) fn new(store: &Arc<Store>, state: &mut State, at: Location) -> Self {
        let number = state.segments.number(at.offset());
        let pin = number.map(|number| SegmentPin::new(store, state, number));
        Located { at, generation: state.segments.generation(at.offset()), _pin: pin }
    }
}

/// Reads one record and extracts a value from it. `generation` is that of its segment; `None`: the
/// segment is not in use, so no record in it is valid.
pub(crate) async fn read_record<D: Disk, T>(
    disk: &D,
    access: Access,
    store: &StoreId,
    at: Location,
    generation: Option<u64>,
    take: impl FnOnce(record::Record<'_>) -> T,
) -> Result<T, Error> {
    read_record_if(disk, access, store, at, |record| is_of(record, generation), take).await
}

/// Returns whether a record belongs to the current generation of its segment.
fn is_of(record: &record::Record<'_>, generation: Option<u64>) -> bool {
    Some(record.header.generation) == generation || sabotage::is(Sabotage::IgnoreGeneration)
}

/// Parses the record at the front of `bytes`, and verifies that it is the one expected at `at`.
pub(crate) fn find_record<'a>(
    bytes: &'a [u8],
    store: &StoreId,
    at: Location,
    generation: Option<u64>,
) -> Option<record::Record<'a>> {
    let record = record::verify(bytes, store, at.offset())?;
    (Location::new(at.offset(), record.len) == at && is_of(&record, generation)).then_some(record)
}

/// Reads one record like [`read_record`], from any generation that `wanted` accepts.
pub(crate) async fn read_record_if<D: Disk, T>(
    disk: &D,
    access: Access,
    store: &StoreId,
    at: Location,
    wanted: impl Fn(&record::Record<'_>) -> bool,
    take: impl FnOnce(record::Record<'_>) -> T,
) -> Result<T, Error> {
    let start = align_down(at.offset(), PAGE as u64);
    let len = (align_up(at.offset() + u64::from(at.len()), PAGE as u64) - start) as usize;
    let (result, buf) = read_record_again(disk, access, start, disk.buffer_with_len(len), 0..len).await;
    result.map_err(|error| read_error(error, at.offset()))?;
    let bytes = &buf.as_ref()[(at.offset() - start) as usize..len];
    let record = record::verify(bytes, store, at.offset())
        .filter(|record| Location::new(at.offset(), record.len) == at)
        .filter(wanted)
        .ok_or_else(|| Damage::error("a record that does not verify", at.offset()))?;
    Ok(take(record))
}

/// Reads chunks of a block past the page cache to their offsets in the buffer, and verifies them:
/// for maintenance and other passes over many blocks, which must not evict what requests read.
pub(crate) async fn read_verified<D: Disk>(
    disk: &D,
    store: &StoreId,
    id: &BlockIdentity,
    chunks: &Range<usize>,
    buf: D::Buf,
) -> (Result<Footer, Error>, D::Buf) {
    read_verified_at(disk, store, id, chunks, buf, 0).await
}

/// Reads chunks like [`read_verified`], with the first chunk at offset `at` of the buffer.
/// Overwrites up to a page after the chunks.
pub(crate) async fn read_verified_at<D: Disk>(
    disk: &D,
    store: &StoreId,
    id: &BlockIdentity,
    chunks: &Range<usize>,
    buf: D::Buf,
    at: usize,
) -> (Result<Footer, Error>, D::Buf) {
    let padded = id.padded();
    let span = match Footer::span(id.data_len as usize, chunks) {
        span if span.is_empty() => padded..padded,
        span => span,
    };
    let mut together = padded - span.end <= GAP_MAX;
    let mut buf = buf;
    let footer_at = loop {
        let until = if together { padded + FOOTER_LEN } else { span.end };
        let first = at + span.start..at + until;
        let (mut result, back) = read_again_by(disk, Access::Direct, id.offset + span.start as u64, buf, first).await;
        buf = back;
        let footer_at = if together { at + padded } else { BLOCK_DATA };
        if result.is_ok() && !together {
            let footer = footer_at..footer_at + FOOTER_LEN;
            (result, buf) = read_again_by(disk, Access::Direct, id.offset + padded as u64, buf, footer).await;
        }
        match result {
            Ok(()) => break footer_at,
            // Bytes between the chunks and the footer need not be readable.
            Err(error) if together && span.end < padded && !span.is_empty() && is_unreadable(&error) => {
                together = false;
            }
            Err(error) => return (Err(read_error(error, id.offset)), buf),
        }
    };
    let footer = Footer::parse(&buf.as_ref()[footer_at..][..FOOTER_LEN], id, store);
    let verdict = match footer {
        None => Err(Damage::error("a block whose footer does not verify", id.offset)),
        Some(footer) if footer.verify(chunks, &buf.as_ref()[at..]) => Ok(footer),
        Some(_) => Err(Damage::error("a block that does not verify", id.offset)),
    };
    (verdict, buf)
}

/// Converts a failed read to damage. A range past the end of the file existed once: the file has
/// been truncated.
pub(crate) fn read_error(error: std::io::Error, offset: u64) -> Error {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Damage::error("data past the end of the file", offset),
        _ if is_unreadable(&error) => Damage::error(UNREADABLE, offset),
        _ => error.into(),
    }
}
