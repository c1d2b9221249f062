//! The contents of one META segment, as a scan finds them.

use super::base::Base;
use crate::error::{Damage, UNREADABLE};
use crate::index::Location;
use crate::limits::REPLAY_SPAN;
use crate::types::{BodyId, Part};
use crate::wire::payload::RecordPayload;
use crate::wire::record::{self, Claim, MOVED, Record};

/// Contiguous batches whose records all count. Recovery keeps spans instead of records, which it
/// rereads for replay, so it needs little memory however many records there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Offset of the first batch.
    pub(super) start: u64,
    /// End of the last record.
    pub(super) end: u64,
    /// Checksum of the record before the first batch; 0 after damage, where it is unknown.
    pub(super) prev: u32,
}

/// A moved record that the checkpoint does not cover. Its number is out of order in its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MovedRecord {
    pub(super) seq: u64,
    /// Orders the records of one body: the highest was written last. 0 for other records.
    pub(super) relocation: u64,
    pub(super) at: Location,
}

/// A damaged record: its location, and the bucket (by identity) and key it may have been about.
#[derive(Debug, Clone)]
pub(super) struct Suspect {
    pub(super) damage: Damage,
    pub(super) name: Option<(u64, String)>,
    /// Sequence number of the record, if it stored an object.
    pub(super) stored: Option<u64>,
}

/// Contents of one META segment.
#[derive(Debug, Clone)]
pub(super) struct Scan {
    pub(super) number: u32,
    pub(super) generation: u64,
    pub(super) start: u64,
    pub(super) end: u64,
    /// Locations of the records that count, in order.
    pub(super) spans: Vec<Span>,
    /// Whether the next batch directly follows the last span.
    pub(super) contiguous: bool,
    pub(super) moved: Vec<MovedRecord>,
    /// Identities of the buckets and uploads created by its records, and the
    /// offsets of these records.
    pub(super) created: Vec<(u64, u64)>,
    /// Bodies of copies and completed uploads: referenced by its records without
    /// directly preceding them.
    pub(super) shared: Vec<u64>,
    /// Sequence number of the first record that was not moved.
    pub(super) first: Option<u64>,
    /// Offset of the next batch.
    pub(super) at: u64,
    /// Checksum of the record before it, or of the segment's header.
    pub(super) prev: u32,
    /// The segment is proven durable below this offset.
    pub(super) proven: u64,
    /// Whether nothing can follow: the segment was ended or is full.
    pub(super) closed: bool,
    /// Whether the last record proves that everything before it was durable.
    pub(super) marked: bool,
    /// Whether a tail follows that was cut.
    pub(super) tail: bool,
    /// Whether only zeros follow.
    pub(super) blank: bool,
    /// Whether part of it is damaged. `lost`: and nothing was found after the
    /// damage, so its end is unknown.
    pub(super) damaged: bool,
    pub(super) lost: bool,
    /// The first unreadable page after its end, if nothing proves that it was ever written.
    pub(super) unreadable: Option<u64>,
    /// Whether sectors after its end are unreadable, so that nothing more is appended.
    pub(super) spoiled: bool,
    pub(super) suspects: Vec<Suspect>,
    pub(super) watermark: u64,
    /// Durable hints about other segments: the segment, its durable offset, and the sequence
    /// number of the record.
    pub(super) hints: Vec<(u32, u32, u64)>,
    /// Sequence number claimed by an unreadable record at the end.
    pub(super) claim: Option<u64>,
    /// Sequence number of the last record that was not moved. Those of later ones are higher.
    pub(super) last: u64,
    pub(super) highest: u64,
}

/// Proof from elsewhere, known when a segment is read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Proof {
    /// The segment was durable below this offset.
    pub(super) proven: u64,
    /// Records with numbers up to this were durable.
    pub(super) watermark: u64,
}

/// The position from which a segment is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScanStart {
    /// Generation of the segment, if known.
    pub(super) generation: Option<u64>,
    /// Offset in the file, and the checksum of the record before it, if known.
    pub(super) at: u64,
    pub(super) prev: Option<u32>,
    /// Records with lower generations are leftovers of earlier uses.
    pub(super) floor: u64,
}

/// A reader's position in a segment.
pub(super) struct ScanCursor {
    pub(super) at: u64,
    /// Generation of the segment, if known.
    pub(super) generation: Option<u64>,
    /// Checksum of the previous record; `None` after damage, when it is unknown.
    pub(super) prev: Option<u32>,
    /// Lower generations belong to earlier uses.
    pub(super) floor: u64,
}

/// A batch, possibly read only in part.
#[derive(Default)]
pub(super) struct Batch {
    /// Sequence numbers of the first and the last of its records that were not moved.
    pub(super) first: Option<u64>,
    pub(super) last: Option<u64>,
    /// The highest body identity or relocation number.
    pub(super) highest: u64,
    pub(super) moved: Vec<MovedRecord>,
    pub(super) created: Vec<(u64, u64)>,
    pub(super) shared: Vec<u64>,
    /// The body whose record was read last.
    pub(super) body: Option<BodyId>,
    /// Offset of the next batch. `None`: this one is incomplete.
    pub(super) next: Option<u64>,
    /// Offset of the batch.
    pub(super) start: u64,
    /// Offset where reading stopped, and the claim of the header there.
    pub(super) stopped: u64,
    pub(super) claim: Option<Claim>,
    pub(super) ended: bool,
    pub(super) marked: bool,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.stopped == self.start
    }

    /// Collects the facts that are needed of a record before it is reread.
    pub(super) fn note(&mut self, record: &Record<'_>, payload: &RecordPayload<'_>, base: &Base) {
        let record::Header { seq, offset, flags, .. } = record.header;
        let mut relocation = 0;
        match payload {
            RecordPayload::Body(body) => {
                relocation = body.relocation;
                self.body = Some(body.id);
                self.highest = self.highest.max(body.id.0).max(relocation);
            }
            RecordPayload::BucketCreate { .. } | RecordPayload::UploadCreate(_) => self.created.push((seq, offset)),
            // A moved record that the checkpoint covers refers to nothing new.
            _ if flags & MOVED != 0 && base.covers(seq) => {}
            RecordPayload::ObjectPut(put) => self.refer(&put.parts),
            RecordPayload::PartPut(put) => self.refer(std::slice::from_ref(&put.part)),
            _ => {}
        }
        if flags & MOVED == 0 {
            self.first = self.first.or(Some(seq));
            self.last = Some(seq);
        } else if !base.covers(seq) {
            self.moved.push(MovedRecord { seq, relocation, at: Location::new(offset, record.len) });
        }
    }

    fn refer(&mut self, parts: &[Part]) {
        match parts {
            [part] if Some(part.body) == self.body => {}
            _ => self.shared.extend(parts.iter().map(|part| part.body.0)),
        }
    }
}

impl Scan {
    pub(super) fn new(number: u32, start: u64, end: u64, from: ScanStart, watermark: u64) -> Self {
        let generation = from.generation.unwrap_or(0);
        let prev = from.prev.unwrap_or(0);
        Scan {
            number,
            generation,
            start,
            end,
            spans: Vec::new(),
            contiguous: false,
            moved: Vec::new(),
            created: Vec::new(),
            shared: Vec::new(),
            first: None,
            at: from.at,
            prev,
            proven: 0,
            closed: false,
            marked: false,
            tail: false,
            blank: false,
            damaged: false,
            lost: false,
            unreadable: None,
            spoiled: false,
            suspects: Vec::new(),
            watermark,
            hints: Vec::new(),
            claim: None,
            last: 0,
            highest: generation,
        }
    }

    /// Handles unreadable sectors after the end of the segment, where nothing proves that anything
    /// was written. If the next batch would start in them, a batch may have been lost, acknowledged
    /// or not, and the segment takes no more writes. Otherwise nothing is lost, but new records
    /// could be, so the segment is ended.
    pub(super) fn settle_unreadable(&mut self) {
        let Some(page) = self.unreadable else { return };
        let lost = page <= self.at;
        let damage = if lost || self.tail {
            Damage::new(UNREADABLE, page)
        } else {
            Damage::mendable("unreadable sectors without data", page)
        };
        self.damaged = self.damaged || lost;
        self.lost = self.lost || lost;
        self.spoiled = true;
        self.suspects.push(Suspect { damage, name: None, stored: None });
    }

    /// Takes the generation from the first record, if the segment header could not be read.
    pub(super) fn take_generation(&mut self, cursor: &mut ScanCursor, batch: &Batch) {
        if cursor.generation.is_none() && batch.next.is_some() {
            cursor.generation = Some(self.generation);
        }
    }

    /// Adds the proofs in the records of a whole batch.
    pub(super) fn believe(&mut self, facts: &[(record::Header, u32)]) {
        for (header, crc) in facts {
            self.generation = header.generation;
            self.prev = *crc;
            self.watermark = self.watermark.max(header.watermark);
            self.highest = self.highest.max(header.seq).max(header.watermark);
            if header.flags & MOVED == 0 {
                self.last = self.last.max(header.seq);
            }
            self.proven = self.proven.max(self.start + u64::from(header.durable));
            let record::DurableHint { segment, until } = header.hint;
            if until > 0 && self.hints.last().is_none_or(|&(last, at, _)| (last, at) != (segment, until)) {
                self.hints.push((segment, until, header.seq));
            }
        }
    }

    /// Accepts the records of a batch, as far as it could be read.
    pub(super) fn keep(&mut self, mut batch: Batch, cursor: &ScanCursor) {
        self.first = self.first.or(batch.first);
        self.moved.append(&mut batch.moved);
        self.created.append(&mut batch.created);
        self.shared.append(&mut batch.shared);
        let goes_on = std::mem::replace(&mut self.contiguous, batch.next.is_some());
        match self.spans.last_mut().filter(|span| goes_on && batch.stopped - span.start <= REPLAY_SPAN) {
            _ if batch.is_empty() => {}
            Some(span) => span.end = batch.stopped,
            None => {
                self.spans.push(Span { start: batch.start, end: batch.stopped, prev: cursor.prev.unwrap_or(0) });
            }
        }
    }

    pub(super) fn accept(&mut self, batch: Batch, next: u64, cursor: &mut ScanCursor) {
        self.highest = self.highest.max(batch.highest);
        self.at = next;
        self.closed = batch.ended;
        self.marked = batch.marked;
        self.keep(batch, cursor);
        cursor.at = next;
        cursor.prev = Some(self.prev);
    }

    /// Drops everything from a batch on. `prev` is the checksum of the record before it.
    pub(super) fn cut_at(&mut self, cut: u64, prev: u32) {
        self.at = cut;
        self.prev = prev;
        self.spans.retain(|span| span.start < cut);
        if let Some(last) = self.spans.last_mut() {
            last.end = last.end.min(cut);
        }
        self.moved.retain(|record| record.at.offset() < cut);
        self.created.retain(|&(_, offset)| offset < cut);
        self.closed = false;
        self.marked = false;
        self.tail = true;
        self.blank = false;
    }
}
