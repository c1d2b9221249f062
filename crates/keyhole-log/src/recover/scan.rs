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
use super::segment::{Proof, Scan, ScanStart, Suspect};
use super::segment_reader::SegmentReader;
use crate::disk::Disk;
use crate::error::{Damage, Error};
use crate::geometry::{run_bytes, with_starts};
use crate::limits::{HEADERS_IN_FLIGHT, PAGE, SEGMENTS_START};
use crate::segments::{Segment, Use};
use crate::types::BodyId;
use crate::wire::checkpoint::SegmentUse;
use crate::wire::payload::Run;
use crate::wire::segment::{Header, Kind};
use crate::wire::superblock::Superblock;

/// Segments after the last one in use that are searched for records although they have no header
/// and no record at their start.
const HEADLESS_SEARCHED: u32 = 2;

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
    froms: BTreeMap<u32, ScanStart>,
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
    Read(ScanStart),
    /// No valid header: it may be blank, or have been begun since the checkpoint.
    Headless,
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
            Kind::Meta => Plan::Read(ScanStart {
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
        let use_ = match item.use_ {
            // The newer checkpoint freed it. Condemned again, it would be missing until two more
            // checkpoints, for which there may be no other segment.
            SegmentUse::Condemned if base.is_previous => SegmentUse::Blank,
            use_ => use_,
        };
        let (used, kind) = match use_ {
            // Its bytes are leftovers, or it has been begun since and lost its header.
            SegmentUse::Blank => {
                let allocated = header.is_some();
                let blank = Segment { generation: item.generation, allocated, ..Segment::BLANK };
                return if allocated { Plan::Known(blank) } else { Plan::Headless };
            }
            // It may have been freed, discarded and even begun since, with another header or none.
            SegmentUse::Condemned if !same => {
                if header.is_none() {
                    let generation = item.generation;
                    let written = item.written;
                    let prev = item.prev;
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
            return Plan::Read(ScanStart {
                generation: Some(generation),
                at,
                prev: Some(item.prev),
                floor: generation,
            });
        }
        let written = item.written;
        let prev = item.prev;
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
            let floor = base.fresh(number);
            let from = ScanStart { generation: None, at: start + PAGE as u64, prev: None, floor };
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
            let number = self.scans[i].number;
            let damaged = self.scans[i].damaged;
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
        // But a used file has lost its end, and every record with it. The place of a segment's first
        // record is then missing, or the record is cut: where it is there and blank, none was lost.
        let is_cut = |scan: &Scan| scan.claim.is_some() || scan.at + PAGE as u64 > self.file_len;
        let nothing_left = self.scans.iter().all(|scan| scan.spans.is_empty()) && self.scans.iter().any(is_cut);
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
        let used = Use::Open(Kind::Body);
        let written = PAGE as u32;
        *segment = Segment { used, generation, written, allocated: true, ..Segment::BLANK };
        self.mend.push(Header { kind: Kind::Body, generation, number });
        // An unacknowledged body may be complete except for this header; that is not damage.
        if proven {
            let start = SEGMENTS_START + u64::from(number) * self.segment_len;
            self.damage.push(Damage::mendable("the header of a segment of blocks", start));
        }
    }

    /// Restores condemned segments that nothing was begun in, and drops never-used blank segments
    /// at the end, once all records have been applied.
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
