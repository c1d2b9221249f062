//! The transition from recovery to writing: selects the open segments and makes the cuts final.
//!
//! Accepted records may still be in a cache, so they are synced before any record claims that they
//! are durable. Then each cut segment gets a record at the cut. Otherwise the next recovery, which
//! sees higher watermarks, would take the cut batch for a durable one.
//!
//! If such a record, a header or a cleared page cannot be written, the segment is closed, or left
//! alone, in memory. The bytes after its end remain on the medium and must not come to look proven.
//! So no record gets a watermark above the recovered one until two checkpoints have been completed;
//! recovery from either no longer reads the segment.

use super::scan::Scanned;
use super::segment::Scan;
use crate::disk::{Disk, is_full};
use crate::error::{Damage, Error};
use crate::limits::{BLOCKS_IN_FLIGHT, BUFFER_LEN, PAGE, SEGMENTS_START};
use crate::open::{OpenBody, OpenMeta, Slot};
use crate::segments::{Segment, Segments, Use};
use crate::wire::payload::kind;
use crate::wire::record::{self, DurableHint, FIRST, LAST};
use crate::wire::segment::Kind;
use crate::wire::superblock::Superblock;

/// A BODY segment is resumed if it has room for at least one block of one page.
const BODY_ROOM_MIN: u64 = 2 * PAGE as u64;

/// The initial state of the workers.
pub(super) struct Resumed {
    /// One per worker.
    pub(super) slots: Vec<Slot>,
    pub(super) next_number: u64,
    /// Headers that could not be rewritten.
    pub(super) unmended: Vec<Damage>,
    /// Upper bound of watermarks, if a write that makes the cuts final has failed.
    pub(super) bound: Option<u64>,
}

impl Resumed {
    /// Returns the state of a read-only log: no open segments, and numbers that are never used.
    pub(super) fn reading(store: &Scanned, workers: usize) -> Self {
        let slots = (0..workers).map(|worker| Slot { worker, ..Slot::default() }).collect();
        Resumed { slots, next_number: store.highest.saturating_add(1), unmended: Vec::new(), bound: None }
    }
}

/// Syncs, makes the cuts final, and assigns the open segments. `next` is the first number to
/// allocate. Unless the store is `sound`, that is without damage, no BODY segment is resumed,
/// because a lost record may name blocks in it. `doubtful`: the last run did not shut down in
/// order, so a BODY segment may have an unwritable range.
pub(super) async fn resume<D: Disk>(
    disk: &D,
    superblock: &Superblock,
    store: &mut Scanned,
    workers: usize,
    next: u64,
    sound: bool,
    doubtful: bool,
) -> Result<Resumed, Error> {
    disk.sync().await?;
    let scans = std::mem::take(&mut store.scans);
    let mut open: Vec<&Scan> = scans.iter().filter(|scan| !scan.closed && !scan.lost && scan.at < scan.end).collect();
    // Sorts by room left, then by number.
    open.sort_by_key(|scan| (scan.damaged || scan.spoiled, scan.at - scan.start, scan.number));
    let watermark = store.watermark;
    let unmended = Vec::new();
    // An ended segment takes no mark that would prove its last records.
    let unproven =
        scans.iter().filter(|scan| scan.closed && !scan.lost && scan.last > watermark && scan.proven < scan.at);
    let unproven =
        unproven.map(|scan| DurableHint { segment: scan.number, until: (scan.at - scan.start) as u32 }).collect();
    let mut settler = Settler { disk, superblock, watermark, next, unproven, dirty: false, failed: false, unmended };
    settler.mend(store).await?;
    // Must precede the records that prove it.
    if std::mem::take(&mut settler.dirty) {
        disk.sync().await?;
    }
    let metas = settler.metas(store, &open, workers).await?;
    store.close_ended(&scans);
    let mut bodies = Vec::new();
    for body in if sound { open_bodies(superblock, store) } else { Vec::new() } {
        // An unwritable range of this segment may have ended the last run.
        if bodies.len() < workers && (!doubtful || settler.takes_blocks(&body).await?) {
            bodies.push(body);
        }
    }
    if settler.dirty {
        disk.sync().await?;
    }
    for (segment, number) in store.table.iter_mut().zip(0..) {
        if segment.used == Use::Open(Kind::Body) && bodies.iter().all(|body| body.number != number) {
            segment.used = Use::Closed(Kind::Body);
        }
    }
    let mut metas = metas.into_iter();
    let mut bodies = bodies.into_iter();
    // The maintenance, which is last, gets the first one. If no segment is blank, its checkpoints
    // free those that the workers need.
    let mut maintenance = metas.next();
    let mut meta = |worker| if worker + 1 == workers { maintenance.take() } else { metas.next() };
    let slots = (0..workers).map(|worker| Slot { worker, meta: meta(worker), body: bodies.next() }).collect();
    let bound = settler.failed.then_some(settler.watermark);
    Ok(Resumed { slots, next_number: settler.next, unmended: settler.unmended, bound })
}

impl Scanned {
    /// Closes the META segments that were ended, are full, or have an unknown end.
    fn close_ended(&mut self, scans: &[Scan]) {
        for scan in scans.iter().filter(|scan| scan.closed || scan.lost || scan.at >= scan.end) {
            let segment = &mut self.table[scan.number as usize];
            if segment.used == Use::Open(Kind::Meta) {
                let written = if scan.lost { scan.end } else { scan.at } - scan.start;
                segment.used = Use::Closed(Kind::Meta);
                segment.written = written as u32;
                segment.prev = scan.prev;
            }
        }
    }

    /// Records the written length of a META segment, and whether it stays open.
    fn settle(&mut self, meta: &OpenMeta, goes_on: bool) {
        let segment = &mut self.table[meta.number as usize];
        let written = (meta.at - meta.start) as u32;
        segment.written = written;
        segment.settled = written;
        segment.prev = meta.prev;
        if !goes_on {
            segment.used = Use::Closed(Kind::Meta);
        }
    }
}

/// Returns the BODY segments with room, sorted by room left.
fn open_bodies(superblock: &Superblock, store: &Scanned) -> Vec<OpenBody> {
    let len = superblock.segment_len;
    let open = store.table.iter().zip(0u32..).filter(|(segment, _)| segment.used == Use::Open(Kind::Body));
    let mut bodies: Vec<OpenBody> = open
        .map(|(segment, number)| {
            let start = SEGMENTS_START + u64::from(number) * len;
            let generation = segment.generation;
            let at = start + u64::from(segment.written);
            OpenBody { number, generation, at, end: start + len }
        })
        .filter(|body| body.at + BODY_ROOM_MIN <= body.end)
        .collect();
    bodies.sort_by_key(|body| (std::cmp::Reverse(body.end - body.at), body.at));
    bodies
}

struct Settler<'a, D> {
    disk: &'a D,
    superblock: &'a Superblock,
    /// The recovered watermark. Higher ones could make a cut elsewhere look
    /// proven before it is final.
    watermark: u64,
    next: u64,
    /// META segments whose records up to their end are not proven durable.
    unproven: Vec<DurableHint>,
    /// Whether anything has been written.
    dirty: bool,
    /// Whether a write has failed.
    failed: bool,
    /// Headers that could not be rewritten.
    unmended: Vec<Damage>,
}

impl<D: Disk> Settler<'_, D> {
    /// Ends the open segments that are not resumed, and marks the others where their last records
    /// are not proven. Returns those to resume, at most one for each of `workers`.
    async fn metas(&mut self, store: &mut Scanned, open: &[&Scan], workers: usize) -> Result<Vec<OpenMeta>, Error> {
        let has_blank = self.has_blank(store);
        let mut metas = Vec::new();
        for scan in open {
            let mut meta = OpenMeta {
                number: scan.number,
                generation: scan.generation,
                start: scan.start,
                end: scan.end,
                at: scan.at,
                prev: scan.prev,
                reserve: false,
            };
            // Without a blank segment, checkpoints may follow damage: nothing else frees segments.
            let is_last_resort = !has_blank && metas.is_empty();
            let sound = !scan.spoiled && (!scan.damaged || is_last_resort);
            let mut goes_on = metas.len() < workers && sound && scan.end - scan.at > PAGE as u64;
            if !goes_on {
                self.append(&mut meta, kind::SEGMENT_END).await?;
            } else if !scan.marked || !scan.blank || !self.unproven.is_empty() {
                // If its end cannot be written, nothing after it can either.
                goes_on = self.append(&mut meta, kind::MARK).await?;
            }
            store.settle(&meta, goes_on);
            if goes_on {
                metas.push(meta);
            }
        }
        Ok(metas)
    }

    /// Returns whether a segment can be begun.
    fn has_blank(&self, store: &Scanned) -> bool {
        let most = Segments::most(self.superblock.segment_len, self.superblock.capacity);
        (store.table.len() as u64) < most || store.table.iter().any(|segment| segment.used == Use::Blank)
    }

    /// Rewrites headers, and clears segments that were begun but have no header. A segment for
    /// which this fails is not resumed.
    async fn mend(&mut self, store: &mut Scanned) -> Result<(), Error> {
        let superblock = self.superblock;
        let start = |number: u32| SEGMENTS_START + u64::from(number) * superblock.segment_len;
        for header in &store.mend {
            let emit = |page: &mut [u8]| {
                header.emit(&superblock.store, page);
            };
            if self.page(start(header.number), emit).await? {
                continue;
            }
            // The rest of the segment is known without its header, also at the next recovery.
            let what = "the header of a segment, which cannot be rewritten";
            self.unmended.push(Damage::mendable(what, start(header.number)));
            let segment = &mut store.table[header.number as usize];
            if segment.used == Use::Open(Kind::Body) {
                segment.used = Use::Closed(Kind::Body);
            }
        }
        for &number in &store.leftovers {
            if !self.page(start(number) + PAGE as u64, |page| page.fill(0)).await? {
                // A generation above that of its records makes a checkpoint invalidate them.
                let generation = self.next;
                self.next += 1;
                let len = store.table.len().max(number as usize + 1);
                store.table.resize(len, Segment::BLANK);
                store.table[number as usize] = Segment { used: Use::Damaged, generation, ..Segment::BLANK };
            }
        }
        Ok(())
    }

    /// Returns whether a segment can take the next blocks of a body. Overwrites as much of its
    /// unused space as one body may have in flight.
    async fn takes_blocks(&mut self, body: &OpenBody) -> Result<bool, Error> {
        let end = body.end.min(body.at + (BLOCKS_IN_FLIGHT * BUFFER_LEN) as u64);
        let mut at = body.at;
        let mut buf = self.disk.buffer();
        D::slice(&mut buf, 0..BUFFER_LEN).fill(0);
        self.dirty = true;
        while at < end {
            let len = ((end - at) as usize).min(BUFFER_LEN);
            let (result, back) = self.disk.write(at, buf, 0..len).await;
            if let Err(error) = result {
                return match error {
                    error if is_full(&error) => Err(Error::Full),
                    error if is_of_a_place(&error) => Ok(false),
                    error => Err(error.into()),
                };
            }
            buf = back;
            at += len as u64;
        }
        Ok(true)
    }

    /// Appends a record of the log itself as one batch. It states that its segment is
    /// durable up to here, and has the durable hint for another that takes no more records.
    /// Returns whether the write succeeded.
    async fn append(&mut self, meta: &mut OpenMeta, kind: u8) -> Result<bool, Error> {
        let superblock = self.superblock;
        let header = record::Header {
            kind,
            flags: FIRST | LAST,
            generation: meta.generation,
            offset: meta.at,
            seq: self.next,
            watermark: self.watermark,
            prev: meta.prev,
            durable: (meta.at - meta.start) as u32,
            hint: self.unproven.last().copied().unwrap_or_default(),
        };
        self.next += 1;
        let at = meta.at;
        let mut prev = meta.prev;
        if !self.page(at, |page| prev = header.emit(&superblock.store, &[], page)).await? {
            return Ok(false);
        }
        self.unproven.pop();
        meta.at = at + PAGE as u64;
        meta.prev = prev;
        Ok(true)
    }

    /// Writes one page, zero except for what `emit` writes. Returns whether the write succeeded.
    async fn page(&mut self, at: u64, emit: impl FnOnce(&mut [u8])) -> Result<bool, Error> {
        let mut buf = self.disk.buffer();
        let page = D::slice(&mut buf, 0..PAGE);
        page.fill(0);
        emit(page);
        self.dirty = true;
        let (result, _) = self.disk.write(at, buf, 0..PAGE).await;
        match result {
            Ok(()) => Ok(true),
            Err(error) if is_full(&error) => Err(Error::Full),
            Err(error) if is_of_a_place(&error) => {
                self.failed = true;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns whether a failed write may concern one range rather than the whole medium.
fn is_of_a_place(error: &std::io::Error) -> bool {
    !matches!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied)
}
