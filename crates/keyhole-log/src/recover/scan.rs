//! Reading the segments of records.
//!
//! A segment is read batch by batch, each record chained to the one ahead by its checksum, until something does not fit: zeros,
//! a torn batch, or the stale bytes of a batch that was cut before. If a later record, here or in another worker's segment,
//! proves that there had been something durable, it is damage: then the next record that verifies is searched for, and reading
//! goes on from there. If nothing proves it, this is where the segment ends.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::base::{Base, Headers};
use super::window::Window;
use crate::body::{run_bytes, with_starts};
use crate::disk::{Disk, is_unreadable, read_again};
use crate::error::{Damage, Error, UNREADABLE};
use crate::index::Location;
use crate::limits::{HEADERS_IN_FLIGHT, PAGE, REPLAY_SPAN, SCAN_READ, SEGMENTS_START};
use crate::segments::{Segment, Use};
use crate::types::{BodyId, Part};
use crate::wire::checkpoint::SegmentUse;
use crate::wire::payload::{Payload, Run, kind};
use crate::wire::record::{self, Claim, FIRST, HEADER_LEN, LAST, MOVED, Record};
use crate::wire::segment::{Header, Kind};
use crate::wire::superblock::Superblock;
use crate::wire::{align_up, is_zero};

/// Segments behind the last one in use that are searched for records although their headers and their beginnings are none.
const HEADLESS_SEARCHED: u32 = 2;

/// Batches that stand one behind the other, all of whose records count. Recovery keeps these in place of the records, which it
/// reads again when they take effect: a start takes little memory, however many records there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Where the first batch begins.
    pub(super) start: u64,
    /// Where the last record ends.
    pub(super) end: u64,
    /// Checksum of the record ahead of the first batch; 0 after damage, where it is not known.
    pub(super) prev: u32,
}

/// A record that the cleaner has written again, and that the checkpoint does not cover. Its number is out of the order of its
/// segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MovedRecord {
    pub(super) seq: u64,
    /// Tells records of one body apart: the highest was written last. 0 for other records.
    pub(super) placed: u64,
    pub(super) at: Location,
}

/// A damaged record: where, and which bucket (by identity) and key it may have been about.
#[derive(Debug, Clone)]
pub(super) struct Suspect {
    pub(super) damage: Damage,
    pub(super) name: Option<(u64, String)>,
    /// Sequence number of the record, if it was one that stored an object.
    pub(super) stored: Option<u64>,
}

/// What one segment of records holds.
#[derive(Debug, Clone)]
pub(super) struct Scan {
    pub(super) number: u32,
    pub(super) generation: u64,
    pub(super) start: u64,
    pub(super) end: u64,
    /// Where the records are that count, in order.
    pub(super) spans: Vec<Span>,
    /// Whether the next batch stands right behind the last span.
    contiguous: bool,
    pub(super) moved: Vec<MovedRecord>,
    /// Identities of the buckets and uploads that records in it create, and the offsets of these records.
    pub(super) created: Vec<(u64, u64)>,
    /// Bodies that records in it refer to and that do not stand right ahead of these: of copies and of completed uploads.
    pub(super) shared: Vec<u64>,
    /// Sequence number of the first record that is in its first place.
    pub(super) first: Option<u64>,
    /// Where the next batch goes.
    pub(super) at: u64,
    /// Checksum of the record ahead of it, or of the segment's header.
    pub(super) prev: u32,
    /// Everything of this segment below this offset was durable.
    pub(super) proven: u64,
    /// Nothing can follow: it was ended, or is full.
    pub(super) closed: bool,
    /// The last record proves that everything ahead of it was durable.
    pub(super) marked: bool,
    /// Something follows that was cut: not proven to have been durable.
    pub(super) tail: bool,
    /// Nothing but zeros follows.
    pub(super) blank: bool,
    /// Something in it was damaged. `lost`: and nothing was found after it, so that its end is not known.
    pub(super) damaged: bool,
    pub(super) lost: bool,
    /// The first page behind its end that cannot be read, where nothing proves that it had been written.
    unreadable: Option<u64>,
    /// Sectors behind its end cannot be read: nothing more is appended to it.
    pub(super) spoiled: bool,
    suspects: Vec<Suspect>,
    watermark: u64,
    /// What other segments' records say was durable of others: the segment, its offset, and the sequence number of who says so.
    witness: Vec<(u32, u32, u64)>,
    /// Sequence number that an unreadable record at the end claims to have.
    claim: Option<u64>,
    /// Sequence number of the last record that is in its first place: those of later ones are higher.
    pub(super) last: u64,
    highest: u64,
}

/// What is known from elsewhere when a segment is read.
#[derive(Debug, Clone, Copy, Default)]
struct Hints {
    /// This was durable.
    proven: u64,
    /// So were records up to this sequence number.
    watermark: u64,
}

/// Everything that was found in the file.
pub(super) struct Store {
    pub(super) scans: Vec<Scan>,
    /// What each segment is used for; blank ones at the end left out.
    pub(super) table: Vec<Segment>,
    /// The highest watermark: every record up to it was durable.
    pub(super) watermark: u64,
    /// The highest number seen anywhere.
    pub(super) highest: u64,
    pub(super) damage: Vec<Damage>,
    pub(super) suspects: Vec<Suspect>,
    /// Bodies whose blocks cannot all be there.
    pub(super) bad_bodies: BTreeMap<BodyId, Damage>,
    /// Headers that are to be written anew: everything in them is known.
    pub(super) mend: Vec<Header>,
    /// Segments that were begun, but of which only records are there, and no header: nothing in them was acknowledged.
    pub(super) leftovers: Vec<u32>,
    pub(super) file_len: u64,
    segment_len: u64,
    /// Where the reading of each segment began.
    froms: BTreeMap<u32, From>,
}

/// Reads the headers of all segments, many at a time: one by one they take minutes on a large hard disk.
pub(super) async fn headers<D: Disk>(disk: &D, superblock: &Superblock) -> Result<Headers, Error> {
    let file_len = disk.len().await?;
    let count =
        file_len.saturating_sub(SEGMENTS_START).div_ceil(superblock.segment_len).min(crate::limits::SEGMENTS_MAX);
    let reader = Reader { disk, superblock, file_len };
    let reads = stream::iter((0..count as u32).map(|number| reader.header(number)));
    reads.buffered(HEADERS_IN_FLIGHT).try_collect().await
}

/// What is to be done about a segment.
enum Plan {
    /// Nothing of it is to be replayed.
    Known(Segment),
    /// A segment for records, to be read from an offset in the file on.
    Read(From),
    /// It has no header, and may be blank, or have been begun since the checkpoint.
    Headless,
}

/// Where reading begins.
#[derive(Debug, Clone, Copy)]
struct From {
    /// Of the segment, if known.
    generation: Option<u64>,
    /// Where in the file, and the checksum of what is ahead, if known.
    at: u64,
    prev: Option<u32>,
    /// Records of generations below this are left from earlier uses.
    floor: u64,
}

/// Reads those segments for records that have been written to since the checkpoint; without one, all.
pub(super) async fn scan<D: Disk>(
    disk: &D,
    superblock: &Superblock,
    headers: &Headers,
    base: &Base,
) -> Result<Store, Error> {
    let file_len = disk.len().await?;
    let reader = Reader { disk, superblock, file_len };
    let mut store = Store {
        scans: Vec::new(),
        table: Vec::new(),
        watermark: base.watermark,
        highest: base.until,
        damage: Vec::new(),
        suspects: Vec::new(),
        bad_bodies: BTreeMap::new(),
        mend: Vec::new(),
        leftovers: Vec::new(),
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
                let hints = Hints { proven: durable, watermark: 0 };
                let scan = reader.segment(number, from, hints, base).await?;
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

impl Store {
    /// Decides what a segment is by its header and by what the checkpoint says.
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
        // What was just being begun when the checkpoint was written has that generation, or still an old header.
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
            // What is there is left from an earlier use, or has been begun since and lost its header.
            SegmentUse::Blank => {
                let allocated = header.is_some();
                let blank = Segment { generation: item.generation, allocated, ..Segment::BLANK };
                return if allocated { Plan::Known(blank) } else { Plan::Headless };
            }
            // It may have been freed, discarded and even begun since: then its header is another one, or none.
            SegmentUse::Condemned if !same => return Plan::Headless,
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

    /// Segments without a readable header are blank, unless something says that they are not.
    async fn scan_headless<D: Disk>(
        &mut self,
        reader: &Reader<'_, D>,
        numbers: &[u32],
        base: &Base,
    ) -> Result<(), Error> {
        let watermark = self.scans.iter().map(|scan| scan.watermark).max().unwrap_or(0);
        let last = self.table.iter().rposition(|segment| segment.used != Use::Blank).unwrap_or(0) as u32;
        for &number in numbers {
            let start = reader.start(number);
            // What has been begun since has a generation from then on, or the one that it was being begun with.
            let floor = if base.exists { base.stale(number) + 1 } else { 0 };
            let from = From { generation: None, at: start + PAGE as u64, prev: None, floor };
            let witnessed = self
                .scans
                .iter()
                .any(|other| other.witness.iter().any(|&(segment, _, seq)| segment == number && seq >= base.until));
            // Segments are begun in order, so of those behind the last one that is in use most are blank, and with a checkpoint
            // the others are known to be: they are not searched without a reason.
            let beyond = base.exists || number > last + HEADLESS_SEARCHED;
            if beyond && !witnessed && !reader.begins(from).await? {
                continue;
            }
            let scan = reader.segment(number, from, Hints::default(), base).await?;
            let empty = scan.spans.is_empty();
            let first = scan.first.unwrap_or(u64::MAX);
            // The header was written ahead of the first batch, and made durable with it.
            if !witnessed && scan.proven <= scan.start && first > watermark {
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

    /// Reads again what other segments prove to go on further than it seemed. What is found then may prove more.
    async fn scan_again<D: Disk>(&mut self, reader: &Reader<'_, D>, base: &Base) -> Result<(), Error> {
        loop {
            let watermark = self.scans.iter().map(|scan| scan.watermark).max().unwrap_or(0);
            let mut again = None;
            for (i, scan) in self.scans.iter().enumerate().filter(|(_, scan)| !scan.closed && !scan.lost) {
                let proven = self.proven_elsewhere(scan);
                let claimed = scan.claim.is_some_and(|seq| seq <= watermark);
                if proven > scan.at || claimed {
                    again = Some((i, Hints { proven, watermark }));
                    break;
                }
            }
            let Some((i, hints)) = again else { return Ok(()) };
            let (number, damaged) = (self.scans[i].number, self.scans[i].damaged);
            let from = self.froms[&number];
            let scan = reader.segment(number, from, hints, base).await?;
            // Whatever it has found now, this is as far as it goes.
            let lost = scan.lost || scan.at <= self.scans[i].at;
            self.scans[i] = Scan { damaged: scan.damaged || damaged, lost, ..scan };
        }
    }

    /// How far other segments' records say that this one was durable. A witness older than the segment's present use is about
    /// an earlier one.
    fn proven_elsewhere(&self, scan: &Scan) -> u64 {
        let witnesses = self.scans.iter().flat_map(|other| &other.witness);
        let about = witnesses.filter(|&&(segment, _, seq)| segment == scan.number && seq > scan.generation);
        about.map(|&(_, until, _)| scan.start + u64::from(until)).max().unwrap_or(0)
    }

    /// Draws together what the segments say, once they have all been read.
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
        // What is merely allocated may be missing: the length of the file comes and goes with the writes that need it.
        let segments = self.table.iter().zip(0u64..).filter(|(segment, _)| segment.in_use());
        let known = segments.map(|(s, number)| SEGMENTS_START + number * self.segment_len + u64::from(s.written));
        let in_use = self.table.iter().rposition(Segment::in_use).map_or(0, |last| last as u64 + 1);
        let end = known.chain(self.scans.iter().map(|scan| scan.proven)).max().unwrap_or(0);
        // But a file that was used, has lost its end, and with it every record there was.
        let nothing_left = !self.scans.is_empty() && self.scans.iter().all(|scan| scan.spans.is_empty());
        let allocated = SEGMENTS_START + in_use * self.segment_len;
        if end > self.file_len || (nothing_left && self.watermark == 0 && allocated > self.file_len) {
            self.damage.push(Damage::new("the end of the file, which is missing", self.file_len));
        }
        let missing = self.scans.iter().flat_map(|scan| &scan.witness).map(|&(segment, ..)| segment);
        let missing = missing.filter(|&segment| segment as usize >= self.table.len()).max();
        if let Some(number) = missing {
            let offset = SEGMENTS_START + u64::from(number) * self.segment_len;
            self.damage.push(Damage::new("a segment of records past the end of the file", offset));
        }
    }

    /// Begins to collect where the blocks end that records name, in each segment of blocks that may be gone on with.
    pub(super) fn begin_bodies(&mut self, base: &Base) {
        for (segment, number) in self.table.iter_mut().zip(0u32..) {
            if segment.used == Use::Open(Kind::Body) {
                let item = base.segments.get(&number).filter(|item| item.generation == segment.generation);
                segment.written = item.map_or(0, |item| item.written).max(PAGE as u32);
            }
        }
    }

    /// Takes in where the blocks of a body are. A segment that a record says has blocks is in use, even if its header cannot be
    /// read. `proven`: the record was durable.
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

    /// Whether the segment that blocks are in is known to be in an earlier use than theirs.
    pub(super) fn has_older_header(&self, run: &Run) -> bool {
        let number = run.offset.saturating_sub(SEGMENTS_START) / self.segment_len;
        let segment = self.table.get(number as usize);
        segment.is_some_and(|segment| segment.used != Use::Blank && segment.generation < run.generation)
    }

    fn claim_segment(&mut self, number: u32, generation: u64, proven: bool) {
        let Some(segment) = self.table.get_mut(number as usize) else { return };
        // One of an earlier use has gone for good.
        if segment.used != Use::Blank || generation <= segment.generation {
            return;
        }
        let (used, written) = (Use::Open(Kind::Body), PAGE as u32);
        *segment = Segment { used, generation, written, allocated: true, ..Segment::BLANK };
        self.mend.push(Header { kind: Kind::Body, generation, number });
        // Of a body that was not acknowledged everything may be there but this.
        if proven {
            let start = SEGMENTS_START + u64::from(number) * self.segment_len;
            self.damage.push(Damage::mendable("the header of a segment of blocks", start));
        }
    }

    /// Forgets blank segments at the end that were never used, once all records have been taken in.
    pub(super) fn trim(&mut self) {
        while self.table.last().is_some_and(|last| last.used == Use::Blank && last.generation == 0) {
            self.table.pop();
        }
    }
}

/// A batch, or how far it could be read.
#[derive(Default)]
struct Batch {
    /// Sequence numbers of the first and the last of its records that are in their first place.
    first: Option<u64>,
    last: Option<u64>,
    /// The highest identity or place of a body.
    highest: u64,
    moved: Vec<MovedRecord>,
    created: Vec<(u64, u64)>,
    shared: Vec<u64>,
    /// The body whose record was read last.
    body: Option<BodyId>,
    /// Where the next batch begins; `None`: it is not whole.
    next: Option<u64>,
    /// Where it begins.
    start: u64,
    /// Where reading stopped, and what is claimed there.
    stopped: u64,
    claim: Option<Claim>,
    ended: bool,
    marked: bool,
}

/// What the search behind an unreadable place has found.
#[derive(Default)]
struct Hunt {
    /// The first record, and whether it begins a batch.
    first: Option<(u64, bool)>,
    /// How far the records found prove that everything was durable.
    proven: u64,
    /// Whether there is anything but zeros.
    written: bool,
}

struct Reader<'a, D> {
    disk: &'a D,
    superblock: &'a Superblock,
    file_len: u64,
}

/// Where in a segment the reader is.
struct Cursor {
    at: u64,
    /// Generation of the segment, if known.
    generation: Option<u64>,
    /// Checksum of what is ahead; `None` after damage, when it is not known.
    prev: Option<u32>,
    /// Lower generations are of earlier uses.
    floor: u64,
}

impl<D: Disk> Reader<'_, D> {
    fn start(&self, number: u32) -> u64 {
        SEGMENTS_START + u64::from(number) * self.superblock.segment_len
    }

    async fn header(&self, number: u32) -> Result<Option<(Header, u32)>, Error> {
        let offset = self.start(number);
        if offset + PAGE as u64 > self.file_len {
            return Ok(None);
        }
        let (result, buf) = read_again(self.disk, offset, self.disk.buffer_of(PAGE), 0..PAGE).await;
        match result {
            Ok(()) => {}
            // As one that does not verify: what is in the segment is known from elsewhere, or from its records.
            Err(error) if is_unreadable(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        Ok(Header::parse(&buf.as_ref()[..PAGE], &self.superblock.store, number))
    }

    /// Whether a record of this segment stands where the first one would, or that cannot be read.
    async fn begins(&self, from: From) -> Result<bool, Error> {
        if from.at + PAGE as u64 > self.file_len {
            return Ok(false);
        }
        let (result, buf) = read_again(self.disk, from.at, self.disk.buffer(), 0..PAGE).await;
        match result {
            Ok(()) => {}
            // There may be one: what follows will tell.
            Err(error) if is_unreadable(&error) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
        let claim = record::claim(&buf.as_ref()[..PAGE], &self.superblock.store, from.at);
        Ok(claim.is_some_and(|claim| claim.generation >= from.floor))
    }

    /// Reads a segment of records. The watermarks in it are not below the floor of the checkpoint.
    async fn segment(&self, number: u32, from: From, hints: Hints, base: &Base) -> Result<Scan, Error> {
        let start = self.start(number);
        let end = start + self.superblock.segment_len;
        let mut window = Window::of(self.disk, self.file_len, end, SCAN_READ);
        let mut scan = Scan::new(number, start, end, from, base.floor);
        scan.proven = hints.proven;
        let mut cursor = Cursor { at: scan.at, generation: from.generation, prev: from.prev, floor: from.floor };
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
            // Also of a segment that has no header, and may never have been used: its first batch may be lost as well.
            let hunt = self.hunt(&mut window, &scan, &cursor, batch.stopped).await?;
            let proven = hunt.proven.max(hints.proven);
            // A number says nothing of a record that has been written again.
            let ahead = batch.last.unwrap_or(scan.last);
            // Nor does a number that the checkpoint covers: in a header that was torn it may be what was there before.
            let claim = batch.claim.filter(|claim| !claim.moved && claim.seq > ahead && !base.covers(claim.seq));
            let claimed = claim.is_some_and(|claim| claim.seq <= hints.watermark.max(scan.watermark));
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
                Some((at, first)) if first || at < proven => cursor = Cursor { at, prev: None, ..cursor },
                _ => {
                    scan.lost = true;
                    return Ok(scan);
                }
            }
        }
    }

    /// Reads one batch. What is read of it holds by itself; it is the caller who knows whether it counts.
    async fn batch(
        &self,
        window: &mut Window<'_, D>,
        scan: &mut Scan,
        cursor: &Cursor,
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
            // A record that does not verify, but is chained to the one ahead: it is no stale one.
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
            // Stale: of a batch that was cut, or of an earlier use of the segment.
            if !chained {
                return Ok(batch);
            }
            let Some(payload) = Payload::parse(record.header.kind, record.payload) else {
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

    /// Searches for records of this segment behind a place that cannot be read. Stale ones have lower watermarks.
    async fn hunt(&self, window: &mut Window<'_, D>, scan: &Scan, cursor: &Cursor, after: u64) -> Result<Hunt, Error> {
        let mut at = align_up(after + 1, record::ALIGN);
        let written = !is_zero(window.bytes(after, (at - after) as usize).await?);
        let mut hunt = Hunt { written, ..Hunt::default() };
        while at < scan.end {
            let page_end = align_up(at + 1, PAGE as u64);
            let bytes = window.bytes(at, (page_end - at) as usize).await?;
            // Most of what is behind the end is zero; comparing whole pages is many times as fast.
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

    /// Notes a damaged record, and what can still be read of what it was about.
    async fn suspect(&self, window: &mut Window<'_, D>, scan: &mut Scan, batch: &Batch) -> Result<(), Error> {
        let until = batch.stopped + batch.claim.as_ref().map_or(1, |claim| u64::from(claim.len));
        let damage = match window.unreadable(batch.stopped..until) {
            Some(page) => Damage::new(UNREADABLE, page.max(batch.stopped)),
            None => Damage::new("a record that does not verify", batch.stopped),
        };
        let (mut name, mut stored) = (None, None);
        if let Some(claim) = batch.claim {
            let bytes = window.bytes(batch.stopped, claim.len as usize).await?;
            let payload = record::suspect(bytes).and_then(|(kind, payload)| Payload::parse(kind, payload));
            stored = matches!(payload, Some(Payload::ObjectPut(_))).then_some(claim.seq);
            name = payload.as_ref().and_then(|payload| match payload {
                Payload::ObjectPut(put) => Some((put.bucket, put.key.to_owned())),
                Payload::Tombstone { bucket, key, .. } => Some((*bucket, (*key).to_owned())),
                Payload::UploadCreate(create) => Some((create.bucket, create.key.to_owned())),
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

    /// Notes what has to be known of a record before it is read again.
    fn note(&mut self, record: &Record<'_>, payload: &Payload<'_>, base: &Base) {
        let record::Header { seq, offset, flags, .. } = record.header;
        let mut placed = 0;
        match payload {
            Payload::Body(body) => {
                placed = body.placed;
                self.body = Some(body.id);
                self.highest = self.highest.max(body.id.0).max(placed);
            }
            Payload::BucketCreate { .. } | Payload::UploadCreate(_) => self.created.push((seq, offset)),
            // A moved record that the checkpoint covers refers to nothing new.
            _ if flags & MOVED != 0 && base.covers(seq) => {}
            Payload::ObjectPut(put) => self.refer(&put.parts),
            Payload::PartPut(put) => self.refer(std::slice::from_ref(&put.part)),
            _ => {}
        }
        if flags & MOVED == 0 {
            self.first = self.first.or(Some(seq));
            self.last = Some(seq);
        } else if !base.covers(seq) {
            self.moved.push(MovedRecord { seq, placed, at: Location::new(offset, record.len) });
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
            witness: Vec::new(),
            claim: None,
            last: 0,
            highest: generation,
        }
    }

    /// Decides about sectors behind the end of the segment that cannot be read, though nothing proves that anything was there. If
    /// the next batch would begin in them, a batch may have been there, acknowledged or not: nothing is written to this segment any
    /// more. Otherwise nothing is lost, but what would be appended might be: the segment is ended.
    fn settle_unreadable(&mut self) {
        let Some(page) = self.unreadable else { return };
        let lost = page <= self.at;
        let damage = if lost || self.tail {
            Damage::new(UNREADABLE, page)
        } else {
            Damage::mendable("unreadable sectors with nothing in them", page)
        };
        (self.damaged, self.lost) = (self.damaged || lost, self.lost || lost);
        self.spoiled = true;
        self.suspects.push(Suspect { damage, name: None, stored: None });
    }

    /// Of a segment whose header could not be read, the first record tells the generation.
    fn take_generation(&mut self, cursor: &mut Cursor, batch: &Batch) {
        if cursor.generation.is_none() && batch.next.is_some() {
            cursor.generation = Some(self.generation);
        }
    }

    /// Takes in what the records of a whole batch say.
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
            let record::Durable { segment, until } = header.witness;
            if until > 0 && self.witness.last().is_none_or(|&(last, at, _)| (last, at) != (segment, until)) {
                self.witness.push((segment, until, header.seq));
            }
        }
    }

    /// The records of a batch count, as far as it could be read.
    fn keep(&mut self, mut batch: Batch, cursor: &Cursor) {
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

    fn accept(&mut self, batch: Batch, next: u64, cursor: &mut Cursor) {
        self.highest = self.highest.max(batch.highest);
        (self.at, self.closed, self.marked) = (next, batch.ended, batch.marked);
        self.keep(batch, cursor);
        (cursor.at, cursor.prev) = (next, Some(self.prev));
    }

    /// Leaves out what stands from a batch on. `prev`: the checksum ahead of it.
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
