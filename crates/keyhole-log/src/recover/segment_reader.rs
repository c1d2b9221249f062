//! Reading of one META segment: batch by batch, and the search after an unreadable range.

use super::base::Base;
use super::segment::{Batch, Proof, Scan, ScanCursor, ScanStart, Suspect};
use super::window::Window;
use crate::disk::{Disk, is_unreadable, read_again};
use crate::error::{Damage, Error, UNREADABLE};
use crate::limits::{PAGE, SCAN_READ, SEGMENTS_START};
use crate::wire::payload::{RecordPayload, kind};
use crate::wire::record::{self, FIRST, HEADER_LEN, LAST, MOVED};
use crate::wire::segment::Header;
use crate::wire::superblock::Superblock;
use crate::wire::{align_up, is_zero};

/// Result of a search after an unreadable range.
#[derive(Default)]
struct Hunt {
    /// The first record found, and whether it begins a batch.
    first: Option<(u64, bool)>,
    /// The offset below which the records found prove the segment durable.
    proven: u64,
    /// Whether there are nonzero bytes.
    written: bool,
}

/// Reads META segments.
pub(super) struct SegmentReader<'a, D> {
    pub(super) disk: &'a D,
    pub(super) superblock: &'a Superblock,
    pub(super) file_len: u64,
}

impl<D: Disk> SegmentReader<'_, D> {
    pub(super) fn start(&self, number: u32) -> u64 {
        SEGMENTS_START + u64::from(number) * self.superblock.segment_len
    }

    pub(super) async fn header(&self, number: u32) -> Result<Option<(Header, u32)>, Error> {
        let offset = self.start(number);
        if offset + PAGE as u64 > self.file_len {
            return Ok(None);
        }
        let (result, buf) = read_again(self.disk, offset, self.disk.buffer_with_len(PAGE), 0..PAGE).await;
        match result {
            Ok(()) => {}
            // Treated as a header that does not verify: its contents are known from elsewhere or
            // from its records.
            Err(error) if is_unreadable(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        Ok(Header::parse(&buf.as_ref()[..PAGE], &self.superblock.store, number))
    }

    /// Returns whether the first record's place holds a record of this segment or is unreadable.
    pub(super) async fn begins(&self, from: ScanStart) -> Result<bool, Error> {
        if from.at + PAGE as u64 > self.file_len {
            return Ok(false);
        }
        let (result, buf) = read_again(self.disk, from.at, self.disk.buffer(), 0..PAGE).await;
        match result {
            Ok(()) => {}
            // There may be a record; the following bytes will tell.
            Err(error) if is_unreadable(&error) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
        let claim = record::claim(&buf.as_ref()[..PAGE], &self.superblock.store, from.at);
        Ok(claim.is_some_and(|claim| claim.generation >= from.floor))
    }

    /// Scans a META segment. Its watermarks are at or above the floor of the checkpoint.
    pub(super) async fn segment(&self, number: u32, from: ScanStart, proof: Proof, base: &Base) -> Result<Scan, Error> {
        let start = self.start(number);
        let end = start + self.superblock.segment_len;
        let mut window = Window::of(self.disk, self.file_len, end, SCAN_READ);
        let mut scan = Scan::new(number, start, end, from, base.floor);
        scan.proven = proof.proven;
        let mut cursor = ScanCursor { at: scan.at, generation: from.generation, prev: from.prev, floor: from.floor };
        loop {
            if cursor.at >= end {
                scan.closed = true;
                return Ok(scan);
            }
            let batch = self.batch(&mut window, &mut scan, &cursor, base).await?;
            scan.take_generation(&mut cursor, &batch);
            if let Some(next) = batch.next {
                scan.accept(batch, next, &mut cursor);
                if scan.closed {
                    return Ok(scan);
                }
                continue;
            }
            // Also for a segment without a header that may never have been used: its first batch
            // may be lost too.
            let hunt = self.hunt(&mut window, &scan, &cursor, batch.stopped).await?;
            let proven = hunt.proven.max(proof.proven);
            // The number of a moved record proves nothing about its position.
            let ahead = batch.last.unwrap_or(scan.last);
            // Nor does a number that the checkpoint covers: a torn header may hold the old one.
            let claim = batch.claim.filter(|claim| !claim.moved && claim.seq > ahead && !base.covers(claim.seq));
            let claimed = claim.is_some_and(|claim| claim.seq <= proof.watermark.max(scan.watermark));
            if proven <= cursor.at && !claimed {
                scan.claim = claim.map(|claim| claim.seq);
                scan.tail = batch.claim.is_some() || !batch.is_empty() || hunt.first.is_some();
                scan.blank = !scan.tail && !hunt.written;
                scan.unreadable = window.unreadable(cursor.at..end);
                return Ok(scan);
            }
            self.suspect(&mut window, &mut scan, &batch).await?;
            scan.keep(batch, &cursor);
            match hunt.first {
                Some((at, first)) if first || at < proven => cursor = ScanCursor { at, prev: None, ..cursor },
                _ => {
                    scan.lost = true;
                    return Ok(scan);
                }
            }
        }
    }

    /// Reads one batch. Its records hold by themselves; the caller decides whether they count.
    async fn batch(
        &self,
        window: &mut Window<'_, D>,
        scan: &mut Scan,
        cursor: &ScanCursor,
        base: &Base,
    ) -> Result<Batch, Error> {
        let mut batch = Batch { start: cursor.at, stopped: cursor.at, ..Batch::default() };
        let mut prev = cursor.prev;
        let mut generation = cursor.generation;
        let mut facts = Vec::new();
        loop {
            let at = batch.stopped;
            let bytes = window.bytes(at, HEADER_LEN).await?;
            let claim = (bytes.len() == HEADER_LEN).then(|| record::claim(bytes, &self.superblock.store, at)).flatten();
            let Some(claim) = claim else { return Ok(batch) };
            let bytes = window.bytes(at, claim.len as usize).await?;
            // A record that does not verify but is chained to the previous one, so it is not stale.
            let next_in_chain = prev == Some(claim.prev) && generation == Some(claim.generation);
            let Some(record) = record::verify(bytes, &self.superblock.store, at) else {
                batch.claim = Some(claim).filter(|claim| claim.whole && next_in_chain);
                return Ok(batch);
            };
            let begins = record.header.flags & FIRST != 0;
            let chained = generation.is_none_or(|generation| generation == record.header.generation)
                && record.header.generation >= cursor.floor
                && prev.is_none_or(|prev| prev == record.header.prev)
                && record.header.watermark >= scan.watermark
                && (cursor.prev.is_none() || begins == (at == cursor.at));
            // Stale: from a cut batch, or from an earlier use of the segment.
            if !chained {
                return Ok(batch);
            }
            let Some(payload) = RecordPayload::parse(record.header.kind, record.payload) else {
                batch.claim = Some(claim);
                return Ok(batch);
            };
            prev = Some(record.crc);
            generation = Some(record.header.generation);
            batch.note(&record, &payload, base);
            facts.push((record.header.clone(), record.crc));
            batch.stopped = align_up(at + u64::from(record.len), record::ALIGN);
            if record.header.flags & LAST != 0 {
                batch.ended = record.header.kind == kind::SEGMENT_END;
                batch.marked = record.header.kind == kind::MARK;
                batch.next = Some(align_up(batch.stopped, PAGE as u64));
                scan.believe(&facts);
                return Ok(batch);
            }
        }
    }

    /// Searches for records of this segment after an unreadable range. Stale
    /// ones have lower watermarks.
    async fn hunt(
        &self,
        window: &mut Window<'_, D>,
        scan: &Scan,
        cursor: &ScanCursor,
        after: u64,
    ) -> Result<Hunt, Error> {
        let mut at = align_up(after + 1, record::ALIGN);
        let written = !is_zero(window.bytes(after, (at - after) as usize).await?);
        let mut hunt = Hunt { written, ..Hunt::default() };
        while at < scan.end {
            let page_end = align_up(at + 1, PAGE as u64);
            let bytes = window.bytes(at, (page_end - at) as usize).await?;
            // Most bytes after the end are zero, and comparing whole pages is many times faster.
            let zero = is_zero(bytes);
            hunt.written |= !zero;
            let step = if zero { None } else { bytes.chunks(record::ALIGN as usize).position(record::has_magic) };
            let Some(step) = step else {
                at = page_end;
                continue;
            };
            at += step as u64 * record::ALIGN;
            let bytes = window.bytes(at, HEADER_LEN).await?;
            let claim = (bytes.len() == HEADER_LEN).then(|| record::claim(bytes, &self.superblock.store, at)).flatten();
            let mut next = at + record::ALIGN;
            if let Some(claim) = claim {
                let bytes = window.bytes(at, claim.len as usize).await?;
                let live = record::verify(bytes, &self.superblock.store, at).filter(|record| {
                    record.header.watermark >= scan.watermark
                        && (record.header.seq > scan.last || record.header.flags & MOVED != 0)
                        && record.header.generation >= cursor.floor
                        && cursor.generation.is_none_or(|generation| generation == record.header.generation)
                });
                if let Some(record) = live {
                    hunt.first.get_or_insert((at, record.header.flags & FIRST != 0));
                    hunt.proven = hunt.proven.max(scan.start + u64::from(record.header.durable));
                    next = align_up(at + u64::from(record.len), record::ALIGN);
                }
            }
            at = next;
        }
        Ok(hunt)
    }

    /// Records a damaged record, and its bucket and key as far as they can be read.
    async fn suspect(&self, window: &mut Window<'_, D>, scan: &mut Scan, batch: &Batch) -> Result<(), Error> {
        let until = batch.stopped + batch.claim.as_ref().map_or(1, |claim| u64::from(claim.len));
        let damage = match window.unreadable(batch.stopped..until) {
            Some(page) => Damage::new(UNREADABLE, page.max(batch.stopped)),
            None => Damage::new("a record that does not verify", batch.stopped),
        };
        let mut name = None;
        let mut stored = None;
        if let Some(claim) = batch.claim {
            let bytes = window.bytes(batch.stopped, claim.len as usize).await?;
            let payload = record::suspect(bytes).and_then(|(kind, payload)| RecordPayload::parse(kind, payload));
            stored = matches!(payload, Some(RecordPayload::ObjectPut(_))).then_some(claim.seq);
            name = payload.as_ref().and_then(|payload| match payload {
                RecordPayload::ObjectPut(put) => Some((put.bucket, put.key.to_owned())),
                RecordPayload::Tombstone { bucket, key, .. } => Some((*bucket, (*key).to_owned())),
                RecordPayload::MarkerPut(marker) => Some((marker.bucket, marker.key.to_owned())),
                RecordPayload::VersionDelete { of, .. }
                | RecordPayload::VersionLock { of, .. }
                | RecordPayload::VersionTags { of, .. }
                | RecordPayload::VersionEvicted { of, .. } => Some((of.bucket, of.key.to_owned())),
                RecordPayload::UploadCreate(create) => Some((create.bucket, create.key.to_owned())),
                _ => None,
            });
        }
        scan.damaged = true;
        scan.suspects.push(Suspect { damage, name, stored });
        Ok(())
    }
}
