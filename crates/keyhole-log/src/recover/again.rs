//! The second reading of records, for replay.
//!
//! The first reading decides which records count and keeps their locations, not their contents. A
//! record that verified then and does not now (an error of the medium, bit rot, a misdirected
//! write) is damage like any other.

use super::segment::Span;
use super::window::Window;
use crate::disk::Disk;
use crate::error::{Damage, Error};
use crate::index::{Effect, Location};
use crate::limits::{PAGE, REPLAY_READ};
use crate::types::BodyId;
use crate::wire::payload::RecordPayload;
use crate::wire::record::{self, ALIGN, FIRST, HEADER_LEN, LAST, MOVED};
use crate::wire::{StoreId, align_up};

/// A record that verified again.
#[derive(Debug, Clone)]
pub(super) struct Reread {
    pub(super) seq: u64,
    pub(super) at: Location,
    /// Length of header and payload.
    pub(super) len: u32,
    /// Whether the cleaner moved it, so that its number does not give its age.
    pub(super) moved: bool,
    pub(super) batch: BatchStart,
    pub(super) effect: Effect,
}

/// A result of the second reading.
#[derive(Debug, Clone)]
pub(super) enum Again {
    Record(Reread),
    Damaged(Damage),
}

/// The start of a batch, and the checksum of the record before it; 0 if unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BatchStart {
    pub(super) at: u64,
    pub(super) prev: u32,
}

/// Reads the records of some spans of one segment, in order.
pub(super) struct Rereader<'a, D: Disk> {
    window: Window<'a, D>,
    store: &'a StoreId,
    spans: &'a [Span],
    /// Offset of the next record, in the first of the spans.
    at: u64,
    batch: BatchStart,
}

impl<'a, D: Disk> Rereader<'a, D> {
    /// Creates a reader. `end` is the end of the segment.
    pub(super) fn new(disk: &'a D, store: &'a StoreId, file_len: u64, end: u64, spans: &'a [Span]) -> Self {
        let window = Window::of(disk, file_len, end, REPLAY_READ);
        let mut reader = Rereader { window, store, spans, at: 0, batch: BatchStart::default() };
        reader.enter();
        reader
    }

    fn enter(&mut self) {
        if let Some(span) = self.spans.first() {
            self.at = span.start;
            self.batch = BatchStart { at: span.start, prev: span.prev };
        }
    }

    /// Returns the next record, or the damage that replaces some. `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Again>, Error> {
        while let Some(span) = self.spans.first() {
            if self.at >= span.end {
                self.spans = &self.spans[1..];
                self.enter();
                continue;
            }
            let damage = Damage::new("a record that does not verify", self.at);
            if let Some(record) = self.read(true).await? {
                return Ok(Some(Again::Record(record)));
            }
            self.search(span.end).await?;
            return Ok(Some(Again::Damaged(damage)));
        }
        Ok(None)
    }

    /// Reads to the end of a batch for the object that has this body. Returns its bucket (by
    /// identity) and key.
    pub(super) async fn name_of(&mut self, id: BodyId, batch: BatchStart) -> Result<Option<(u64, String)>, Error> {
        while let Some(Again::Record(record)) = self.next().await? {
            if record.batch != batch {
                break;
            }
            if let Effect::Put(put) = &record.effect
                && put.bodies.as_slice().contains(&id)
            {
                return Ok(Some((put.bucket, put.key.0.to_string())));
            }
        }
        Ok(None)
    }

    /// Returns the record at the current offset if it verifies, and moves past it if `taken`.
    async fn read(&mut self, taken: bool) -> Result<Option<Reread>, Error> {
        let at = self.at;
        let bytes = self.window.bytes(at, HEADER_LEN).await?;
        if bytes.len() < HEADER_LEN || !record::has_magic(bytes) {
            return Ok(None);
        }
        let Some(claim) = record::claim(bytes, self.store, at) else { return Ok(None) };
        let bytes = self.window.bytes(at, claim.len as usize).await?;
        let Some(record) = record::verify(bytes, self.store, at) else { return Ok(None) };
        let Some(payload) = RecordPayload::parse(record.header.kind, record.payload) else { return Ok(None) };
        let found = Reread {
            seq: record.header.seq,
            at: Location::new(at, record.len),
            len: record.len,
            moved: record.header.flags & MOVED != 0,
            batch: self.batch,
            effect: if taken { Effect::of(&payload) } else { Effect::Nothing },
        };
        let flags = record.header.flags;
        let prev = record.crc;
        if !taken {
            if flags & FIRST != 0 {
                self.batch = BatchStart { at, prev: record.header.prev };
            }
            return Ok(Some(found));
        }
        self.at = align_up(at + u64::from(record.len), ALIGN);
        if flags & LAST != 0 {
            self.at = align_up(self.at, PAGE as u64);
            self.batch = BatchStart { at: self.at, prev };
        }
        Ok(Some(found))
    }

    /// Moves to the next record that verifies, or to the end of the span.
    async fn search(&mut self, end: u64) -> Result<(), Error> {
        loop {
            self.at += ALIGN;
            if self.at >= end || self.read(false).await?.is_some() {
                return Ok(());
            }
        }
    }
}
