//! The scan of META segments.
//!
//! A segment is read batch by batch, each record chained to the previous one by its checksum, up to
//! the first mismatch: zeros, a torn batch, or stale bytes of a batch that was cut earlier. If a
//! later record, in this or another segment, proves that there were durable records beyond it, the
//! mismatch is damage: the scan searches for the next record that verifies and continues there.
//! Otherwise the segment ends at the mismatch.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::base::{Base, Headers};
use super::window::Window;
use crate::disk::{Disk, is_unreadable, read_again};
use crate::error::{Damage, Error, UNREADABLE};
use crate::geometry::{run_bytes, with_starts};
use crate::index::Location;
use crate::limits::{HEADERS_IN_FLIGHT, PAGE, REPLAY_SPAN, SCAN_READ, SEGMENTS_START};
use crate::segments::{Segment, Use};
use crate::types::{BodyId, Part};
use crate::wire::checkpoint::SegmentUse;
use crate::wire::payload::{RecordPayload, Run, kind};
use crate::wire::record::{self, Claim, FIRST, HEADER_LEN, LAST, MOVED, Record};
use crate::wire::segment::{Header, Kind};
use crate::wire::superblock::Superblock;
use crate::wire::{align_up, is_zero};

/// Segments after the last one in use that are searched for records although they have no header
/// and no record at their start.
const HEADLESS_SEARCHED: u32 = 2;

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
    contiguous: bool,
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
    unreadable: Option<u64>,
    /// Whether sectors after its end are unreadable, so that nothing more is appended.
    pub(super) spoiled: bool,
    suspects: Vec<Suspect>,
    watermark: u64,
    /// Durable hints about other segments: the segment, its durable offset, and the sequence
    /// number of the record.
    hints: Vec<(u32, u32, u64)>,
    /// Sequence number claimed by an unreadable record at the end.
    claim: Option<u64>,
    /// Sequence number of the last record that was not moved. Those of later ones are higher.
    pub(super) last: u64,
    highest: u64,
}

/// Proof from elsewhere, known when a segment is read.
#[derive(Debug, Clone, Copy, Default)]
struct Proof {
    /// The segment was durable below this offset.
    proven: u64,
    /// Records with numbers up to this were durable.
    watermark: u64,
}

/// Result of the scan of the whole file.
pub(super) struct Scanned {
    pub(super) scans: Vec<Scan>,
    /// State of each segment, without blank ones at the end.
    pub(super) table: Vec<Segment>,
    /// The highest watermark: every record up to it was durable.
    pub(super) watermark: u64,
    /// The highest number seen anywhere.
    pub(super) highest: u64,
    pub(super) damage: Vec<Damage>,
    pub(super) suspects: Vec<Suspect>,
    /// Bodies with missing blocks.
    pub(super) bad_bodies: BTreeMap<BodyId, Damage>,
    /// Headers to rewrite: their contents are known.
    pub(super) mend: Vec<Header>,
    /// Segments that were begun and have records but no header: nothing in them was acknowledged.
    pub(super) leftovers: Vec<u32>,
    /// Condemned segments without a header. Unless something was begun there since, the older
    /// checkpoint may still refer to them.
    condemned: Vec<(u32, Segment)>,
    pub(super) file_len: u64,
    segment_len: u64,
    /// The position from which each segment was read.
    froms: BTreeMap<u32, From>,
}

/// Reads the headers of all segments, many at a time: one by one this takes
/// minutes on a large hard disk.
pub(super) async fn headers<D: Disk>(disk: &D, superblock: &Superblock) -> Result<Headers, Error> {
    let file_len = disk.len().await?;
    let count =
        file_len.saturating_sub(SEGMENTS_START).div_ceil(superblock.segment_len).min(crate::limits::SEGMENTS_MAX);
    let reader = SegmentReader { disk, superblock, file_len };
    let reads = stream::iter((0..count as u32).map(|number| reader.header(number)));
    reads.buffered(HEADERS_IN_FLIGHT).try_collect().await
}

/// The treatment of a segment.
enum Plan {
    /// Nothing in it needs replay.
    Known(Segment),
    /// A META segment, to be read from an offset in the file on.
    Read(From),
    /// No valid header: it may be blank, or have been begun since the checkpoint.
    Headless,
}

/// The position from which a segment is read.
#[derive(Debug, Clone, Copy)]
struct From {
    /// Generation of the segment, if known.
    generation: Option<u64>,
    /// Offset in the file, and the checksum of the record before it, if known.
    at: u64,
    prev: Option<u32>,
    /// Records with lower generations are leftovers of earlier uses.
    floor: u64,
}

/// Reads the META segments written since the checkpoint; without one, all of them.
pub(super) async fn scan<D: Disk>(
    disk: &D,
    superblock: &Superblock,
    headers: &Headers,
    base: &Base,
) -> Result<Scanned, Error> {
    let file_len = disk.len().await?;
    let reader = SegmentReader { disk, superblock, file_len };
    let mut store = Scanned {
        scans: Vec::new(),
        table: Vec::new(),
        watermark: base.watermark,
        highest: base.until,
        damage: Vec::new(),
        suspects: Vec::new(),
        bad_bodies: BTreeMap::new(),
        mend: Vec::new(),
        leftovers: Vec::new(),
        condemned: Vec::new(),
        file_len,
        segment_len: superblock.segment_len,
        froms: BTreeMap::new(),
    };
    let known = base.segments.keys().next_back().map_or(0, |&last| last as usize + 1);
    let mut headless = Vec::new();
    for number in 0..headers.len().max(known) as u32 {
        let header = headers.get(number as usize).cloned().flatten();
        let segment = match store.plan(number, header, base) {
            Plan::Known(segment) => segment,
            Plan::Read(from) => {
                let durable = reader.start(number) + u64::from(base.durable(number));
                let proof = Proof { proven: durable, watermark: 0 };
                let scan = reader.segment(number, from, proof, base).await?;
                let generation = scan.generation;
                store.scans.push(scan);
                store.froms.insert(number, from);
                Segment { used: Use::Open(Kind::Meta), generation, ..Segment::BLANK }
            }
            Plan::Headless => {
                headless.push(number);
                Segment { generation: base.stale(number), ..Segment::BLANK }
            }
        };
        store.table.push(segment);
    }
    store.scan_headless(&reader, &headless, base).await?;
    store.scan_again(&reader, base).await?;
    store.summarise();
    Ok(store)
}

impl Scanned {
    /// Classifies a segment by its header and its checkpoint item.
    fn plan(&mut self, number: u32, header: Option<(Header, u32)>, base: &Base) -> Plan {
        let start = SEGMENTS_START + u64::from(number) * self.segment_len;
        let fresh = |header: &Header, crc| match header.kind {
            Kind::Meta => Plan::Read(From {
                generation: Some(header.generation),
                at: start + PAGE as u64,
                prev: Some(crc),
                floor: header.generation,
            }),
            Kind::Body => {
                let used = Use::Open(Kind::Body);
                Plan::Known(Segment { used, generation: header.generation, allocated: true, ..Segment::BLANK })
            }
        };
        let item = base.known(number);
        // A segment that was just being begun at the checkpoint has that
        // generation, or still an old header.
        let begun_since = |header: &Header| {
            header.generation >= base.until || (item.is_none() && header.generation > base.stale(number))
        };
        if let Some((header, crc)) = &header
            && begun_since(header)
        {
            return fresh(header, *crc);
        }
        let Some(item) = item else { return Plan::Headless };
        let same = header.as_ref().is_some_and(|(header, _)| header.generation == item.generation);
        let (used, kind) = match item.use_ {
            // Its bytes are leftovers, or it has been begun since and lost its header.
            SegmentUse::Blank => {
                let allocated = header.is_some();
                let blank = Segment { generation: item.generation, allocated, ..Segment::BLANK };
                return if allocated { Plan::Known(blank) } else { Plan::Headless };
            }
            // It may have been freed, discarded and even begun since, with another header or none.
            SegmentUse::Condemned if !same => {
                if header.is_none() {
                    let (generation, written, prev) = (item.generation, item.written, item.prev);
                    let used = Use::Closed(Kind::Meta);
                    let segment = Segment { used, generation, written, prev, allocated: true, ..Segment::BLANK };
                    self.condemned.push((number, segment));
                }
                return Plan::Headless;
            }
            SegmentUse::Condemned => {
                let kind = header.map_or(Kind::Meta, |(header, _)| header.kind);
                (Use::Closed(kind), None)
            }
            SegmentUse::Damaged => (Use::Damaged, None),
            SegmentUse::OpenMeta => (Use::Open(Kind::Meta), Some(Kind::Meta)),
            SegmentUse::OpenBody => (Use::Open(Kind::Body), Some(Kind::Body)),
            SegmentUse::ClosedMeta => (Use::Closed(Kind::Meta), Some(Kind::Meta)),
            SegmentUse::ClosedBody => (Use::Closed(Kind::Body), Some(Kind::Body)),
        };
        let generation = item.generation;
        if let Some(kind) = kind.filter(|_| !same) {
            self.damage.push(Damage::mendable("the header of a segment", start));
            self.mend.push(Header { kind, generation, number });
        }
        if used == Use::Open(Kind::Meta) {
            let at = start + u64::from(item.written);
            return Plan::Read(From { generation: Some(generation), at, prev: Some(item.prev), floor: generation });
        }
        let (written, prev) = (item.written, item.prev);
        Plan::Known(Segment { used, generation, written, prev, allocated: true, ..Segment::BLANK })
    }

    /// Classifies segments without a readable header: blank, unless there is evidence of use.
    async fn scan_headless<D: Disk>(
        &mut self,
        reader: &SegmentReader<'_, D>,
        numbers: &[u32],
        base: &Base,
    ) -> Result<(), Error> {
        let watermark = self.scans.iter().map(|scan| scan.watermark).max().unwrap_or(0);
        let last = self.table.iter().rposition(|segment| segment.used != Use::Blank).unwrap_or(0) as u32;
        for &number in numbers {
            let start = reader.start(number);
            // A segment begun since has a later generation, or the one it was being begun with.
            let floor = if base.exists { base.stale(number) + 1 } else { 0 };
            let from = From { generation: None, at: start + PAGE as u64, prev: None, floor };
            let is_hinted = self
                .scans
                .iter()
                .any(|other| other.hints.iter().any(|&(segment, _, seq)| segment == number && seq >= base.until));
            // Segments are begun in order, so most beyond the last one in use are blank; with a
            // checkpoint the rest are known to be. They are searched only on evidence.
            let beyond = base.exists || number > last + HEADLESS_SEARCHED;
            if beyond && !is_hinted && !reader.begins(from).await? {
                continue;
            }
            let scan = reader.segment(number, from, Proof::default(), base).await?;
            let empty = scan.spans.is_empty();
            let first = scan.first.unwrap_or(u64::MAX);
            // The header was written before the first batch and made durable with it.
            if !is_hinted && scan.proven <= scan.start && first > watermark {
                if !empty {
                    self.leftovers.push(number);
                }
                continue;
            }
            let what = "the header of a segment of records";
            self.damage.push(if empty { Damage::new(what, scan.start) } else { Damage::mendable(what, scan.start) });
            let used = if empty { Use::Damaged } else { Use::Open(Kind::Meta) };
            self.table[number as usize] =
                Segment { used, generation: scan.generation, allocated: true, ..Segment::BLANK };
            if !empty {
                self.mend.push(Header { kind: Kind::Meta, generation: scan.generation, number });
            }
            self.froms.insert(number, from);
            self.scans.push(Scan { damaged: true, lost: empty, ..scan });
        }
        Ok(())
    }

    /// Rereads segments that others prove to be longer than they appeared.
    /// The result may prove more.
    async fn scan_again<D: Disk>(&mut self, reader: &SegmentReader<'_, D>, base: &Base) -> Result<(), Error> {
        loop {
            let watermark = self.scans.iter().map(|scan| scan.watermark).max().unwrap_or(0);
            let mut again = None;
            for (i, scan) in self.scans.iter().enumerate().filter(|(_, scan)| !scan.closed && !scan.lost) {
                let proven = self.proven_elsewhere(scan);
                let claimed = scan.claim.is_some_and(|seq| seq <= watermark);
                if proven > scan.at || claimed {
                    again = Some((i, Proof { proven, watermark }));
                    break;
                }
            }
            let Some((i, proof)) = again else { return Ok(()) };
            let (number, damaged) = (self.scans[i].number, self.scans[i].damaged);
            let from = self.froms[&number];
            let scan = reader.segment(number, from, proof, base).await?;
            // A rescan without progress leaves the end unknown.
            let lost = scan.lost || scan.at <= self.scans[i].at;
            self.scans[i] = Scan { damaged: scan.damaged || damaged, lost, ..scan };
        }
    }

    /// Returns the offset below which other segments' records prove this one durable. A durable
    /// hint older than the segment's generation is about an earlier use.
    fn proven_elsewhere(&self, scan: &Scan) -> u64 {
        let hints = self.scans.iter().flat_map(|other| &other.hints);
        let about = hints.filter(|&&(segment, _, seq)| segment == scan.number && seq > scan.generation);
        about.map(|&(_, until, _)| scan.start + u64::from(until)).max().unwrap_or(0)
    }

    /// Combines the results of all segments.
    fn summarise(&mut self) {
        for i in 0..self.scans.len() {
            self.scans[i].proven = self.scans[i].proven.max(self.proven_elsewhere(&self.scans[i]));
        }
        for scan in &mut self.scans {
            scan.settle_unreadable();
            self.watermark = self.watermark.max(scan.watermark);
            self.highest = self.highest.max(scan.highest);
            self.suspects.append(&mut scan.suspects);
        }
        for segment in &self.table {
            self.highest = self.highest.max(segment.generation);
        }
        // Allocated but unused space may be missing: the file length is only durable with the
        // writes that need it.
        let segments = self.table.iter().zip(0u64..).filter(|(segment, _)| segment.in_use());
        let known = segments.map(|(s, number)| SEGMENTS_START + number * self.segment_len + u64::from(s.written));
        let in_use = self.table.iter().rposition(Segment::in_use).map_or(0, |last| last as u64 + 1);
        let end = known.chain(self.scans.iter().map(|scan| scan.proven)).max().unwrap_or(0);
        // But a used file has lost its end, and every record with it.
        let nothing_left = !self.scans.is_empty() && self.scans.iter().all(|scan| scan.spans.is_empty());
        let allocated = SEGMENTS_START + in_use * self.segment_len;
        if end > self.file_len || (nothing_left && self.watermark == 0 && allocated > self.file_len) {
            self.damage.push(Damage::new("the missing end of the file", self.file_len));
        }
        let missing = self.scans.iter().flat_map(|scan| &scan.hints).map(|&(segment, ..)| segment);
        let missing = missing.filter(|&segment| segment as usize >= self.table.len()).max();
        if let Some(number) = missing {
            let offset = SEGMENTS_START + u64::from(number) * self.segment_len;
            self.damage.push(Damage::new("a segment of records past the end of the file", offset));
        }
    }

    /// Starts collecting the ends of named blocks, for each BODY segment that may be resumed.
    pub(super) fn begin_bodies(&mut self, base: &Base) {
        for (segment, number) in self.table.iter_mut().zip(0u32..) {
            if segment.used == Use::Open(Kind::Body) {
                let item = base.segments.get(&number).filter(|item| item.generation == segment.generation);
                segment.written = item.map_or(0, |item| item.written).max(PAGE as u32);
            }
        }
    }

    /// Records the location of a body's blocks. A segment with blocks named by a record is in use,
    /// even if its header cannot be read. `proven`: the record was durable.
    pub(super) fn body(&mut self, id: BodyId, runs: &[Run], proven: bool) {
        for (first, run) in with_starts(runs) {
            let bytes = run_bytes(first, run);
            let number = (run.offset.saturating_sub(SEGMENTS_START) / self.segment_len) as u32;
            let start = SEGMENTS_START + u64::from(number) * self.segment_len;
            if run.offset + bytes > self.file_len {
                let damage = Damage::new("an object with a block past the end of the file", run.offset);
                self.bad_bodies.insert(id, damage);
            } else {
                self.claim_segment(number, run.generation, proven);
            }
            let Some(segment) = self.table.get_mut(number as usize) else { continue };
            if segment.used == Use::Open(Kind::Body) && segment.generation == run.generation {
                segment.written = segment.written.max((run.offset + bytes - start) as u32);
            }
        }
    }

    /// Returns whether the segment of a run is known to be in an earlier use than the run's.
    pub(super) fn has_older_header(&self, run: &Run) -> bool {
        let number = run.offset.saturating_sub(SEGMENTS_START) / self.segment_len;
        let segment = self.table.get(number as usize);
        segment.is_some_and(|segment| segment.used != Use::Blank && segment.generation < run.generation)
    }

    fn claim_segment(&mut self, number: u32, generation: u64, proven: bool) {
        let Some(segment) = self.table.get_mut(number as usize) else { return };
        // Blocks of an earlier use are gone for good.
        if segment.used != Use::Blank || generation <= segment.generation {
            return;
        }
        let (used, written) = (Use::Open(Kind::Body), PAGE as u32);
        *segment = Segment { used, generation, written, allocated: true, ..Segment::BLANK };
        self.mend.push(Header { kind: Kind::Body, generation, number });
        // An unacknowledged body may be complete except for this header, which is no damage.
        if proven {
            let start = SEGMENTS_START + u64::from(number) * self.segment_len;
            self.damage.push(Damage::mendable("the header of a segment of blocks", start));
        }
    }

    /// Restores condemned segments that nothing was begun in, and drops never-used blank segments at
    /// the end, once all records have been applied.
    pub(super) fn trim(&mut self) {
        for (number, segment) in std::mem::take(&mut self.condemned) {
            let current = &mut self.table[number as usize];
            if current.used == Use::Blank {
                *current = segment;
            }
        }
        while self.table.last().is_some_and(|last| last.used == Use::Blank && last.generation == 0) {
            self.table.pop();
        }
    }
}

/// A batch, possibly read only in part.
#[derive(Default)]
struct Batch {
    /// Sequence numbers of the first and the last of its records that were not moved.
    first: Option<u64>,
    last: Option<u64>,
    /// The highest body identity or relocation number.
    highest: u64,
    moved: Vec<MovedRecord>,
    created: Vec<(u64, u64)>,
    shared: Vec<u64>,
    /// The body whose record was read last.
    body: Option<BodyId>,
    /// Offset of the next batch. `None`: this one is incomplete.
    next: Option<u64>,
    /// Offset of the batch.
    start: u64,
    /// Offset where reading stopped, and the claim of the header there.
    stopped: u64,
    claim: Option<Claim>,
    ended: bool,
    marked: bool,
}

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

struct SegmentReader<'a, D> {
    disk: &'a D,
    superblock: &'a Superblock,
    file_len: u64,
}

/// A reader's position in a segment.
struct ScanCursor {
    at: u64,
    /// Generation of the segment, if known.
    generation: Option<u64>,
    /// Checksum of the previous record; `None` after damage, when it is unknown.
    prev: Option<u32>,
    /// Lower generations belong to earlier uses.
    floor: u64,
}

impl<D: Disk> SegmentReader<'_, D> {
    fn start(&self, number: u32) -> u64 {
        SEGMENTS_START + u64::from(number) * self.superblock.segment_len
    }

    async fn header(&self, number: u32) -> Result<Option<(Header, u32)>, Error> {
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
    async fn begins(&self, from: From) -> Result<bool, Error> {
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
    async fn segment(&self, number: u32, from: From, proof: Proof, base: &Base) -> Result<Scan, Error> {
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
        let (mut prev, mut generation) = (cursor.prev, cursor.generation);
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
            (prev, generation) = (Some(record.crc), Some(record.header.generation));
            batch.note(&record, &payload, base);
            facts.push((record.header.clone(), record.crc));
            batch.stopped = align_up(at + u64::from(record.len), record::ALIGN);
            if record.header.flags & LAST != 0 {
                (batch.ended, batch.marked) =
                    (record.header.kind == kind::SEGMENT_END, record.header.kind == kind::MARK);
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
        let (mut name, mut stored) = (None, None);
        if let Some(claim) = batch.claim {
            let bytes = window.bytes(batch.stopped, claim.len as usize).await?;
            let payload = record::suspect(bytes).and_then(|(kind, payload)| RecordPayload::parse(kind, payload));
            stored = matches!(payload, Some(RecordPayload::ObjectPut(_))).then_some(claim.seq);
            name = payload.as_ref().and_then(|payload| match payload {
                RecordPayload::ObjectPut(put) => Some((put.bucket, put.key.to_owned())),
                RecordPayload::Tombstone { bucket, key, .. } => Some((*bucket, (*key).to_owned())),
                RecordPayload::UploadCreate(create) => Some((create.bucket, create.key.to_owned())),
                _ => None,
            });
        }
        scan.damaged = true;
        scan.suspects.push(Suspect { damage, name, stored });
        Ok(())
    }
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.stopped == self.start
    }

    /// Collects what must be known of a record before it is reread.
    fn note(&mut self, record: &Record<'_>, payload: &RecordPayload<'_>, base: &Base) {
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
    fn new(number: u32, start: u64, end: u64, from: From, watermark: u64) -> Self {
        let (generation, prev) = (from.generation.unwrap_or(0), from.prev.unwrap_or(0));
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
    fn settle_unreadable(&mut self) {
        let Some(page) = self.unreadable else { return };
        let lost = page <= self.at;
        let damage = if lost || self.tail {
            Damage::new(UNREADABLE, page)
        } else {
            Damage::mendable("unreadable sectors without data", page)
        };
        (self.damaged, self.lost) = (self.damaged || lost, self.lost || lost);
        self.spoiled = true;
        self.suspects.push(Suspect { damage, name: None, stored: None });
    }

    /// Takes the generation from the first record, if the segment header could not be read.
    fn take_generation(&mut self, cursor: &mut ScanCursor, batch: &Batch) {
        if cursor.generation.is_none() && batch.next.is_some() {
            cursor.generation = Some(self.generation);
        }
    }

    /// Adds the proofs in the records of a whole batch.
    fn believe(&mut self, facts: &[(record::Header, u32)]) {
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
    fn keep(&mut self, mut batch: Batch, cursor: &ScanCursor) {
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

    fn accept(&mut self, batch: Batch, next: u64, cursor: &mut ScanCursor) {
        self.highest = self.highest.max(batch.highest);
        (self.at, self.closed, self.marked) = (next, batch.ended, batch.marked);
        self.keep(batch, cursor);
        (cursor.at, cursor.prev) = (next, Some(self.prev));
    }

    /// Drops everything from a batch on. `prev` is the checksum of the record before it.
    pub(super) fn cut_at(&mut self, cut: u64, prev: u32) {
        (self.at, self.prev) = (cut, prev);
        self.spans.retain(|span| span.start < cut);
        if let Some(last) = self.spans.last_mut() {
            last.end = last.end.min(cut);
        }
        self.moved.retain(|record| record.at.offset() < cut);
        self.created.retain(|&(_, offset)| offset < cut);
        (self.closed, self.marked, self.tail, self.blank) = (false, false, true, false);
    }
}
