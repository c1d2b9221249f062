//! Going on after recovery: which segments are appended to, and what makes the cuts final.
//!
//! What recovery has accepted may still be in a cache: it is synced before anything says that it is durable. Then every segment
//! that was cut gets a record at the cut, so that the next recovery, which knows of higher watermarks, does not take the cut
//! batch for one that had been durable.

use super::scan::{Scan, Store};
use crate::disk::Disk;
use crate::error::Error;
use crate::limits::{PAGE, SEGMENTS_START};
use crate::segments::Use;
use crate::shared::{OpenBody, OpenMeta, Slot};
use crate::wire::payload::kind;
use crate::wire::record::{self, Durable, FIRST, LAST};
use crate::wire::segment::Kind;
use crate::wire::superblock::Superblock;

/// A segment for blocks is gone on with if it has room for at least one block of one page.
const BODY_ROOM_MIN: u64 = 2 * PAGE as u64;

/// What the workers begin with.
pub(super) struct Resumed {
    /// One for each worker.
    pub(super) slots: Vec<Slot>,
    pub(super) next_number: u64,
}

/// Syncs, settles the cuts, and deals the open segments out. `next`: the first number to give out. `sound`: nothing is damaged;
/// otherwise no segment of blocks is appended to, because a lost record may name blocks in it.
pub(super) async fn resume<D: Disk>(
    disk: &D,
    superblock: &Superblock,
    store: &mut Store,
    workers: usize,
    next: u64,
    sound: bool,
) -> Result<Resumed, Error> {
    disk.sync().await?;
    let scans = std::mem::take(&mut store.scans);
    let mut open: Vec<&Scan> = scans.iter().filter(|scan| !scan.closed && !scan.lost && scan.at < scan.end).collect();
    // Those with most room first; of those with as much, the first.
    open.sort_by_key(|scan| (scan.damaged, scan.at - scan.start, scan.number));
    let mut settler = Settler { disk, superblock, watermark: store.watermark, next, dirty: false };
    for header in &store.mend {
        let start = SEGMENTS_START + u64::from(header.number) * superblock.segment_len;
        let emit = |page: &mut [u8]| {
            header.emit(&superblock.store, page);
        };
        settler.page(start, emit).await?;
    }
    for &number in &store.leftovers {
        let first = SEGMENTS_START + u64::from(number) * superblock.segment_len + PAGE as u64;
        settler.page(first, |page| page.fill(0)).await?;
    }
    // Ahead of what proves that all of it had been there.
    if std::mem::take(&mut settler.dirty) {
        disk.sync().await?;
    }
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
        let goes_on = metas.len() < workers && !scan.damaged && scan.end - scan.at > PAGE as u64;
        if !goes_on {
            settler.append(&mut meta, kind::SEGMENT_END).await?;
        } else if !scan.marked || !scan.blank {
            settler.append(&mut meta, kind::MARK).await?;
        }
        let segment = &mut store.table[meta.number as usize];
        let written = (meta.at - meta.start) as u32;
        (segment.written, segment.settled, segment.prev) = (written, written, meta.prev);
        if goes_on {
            metas.push(meta);
        } else {
            segment.used = Use::Closed(Kind::Meta);
        }
    }
    for scan in scans.iter().filter(|scan| scan.closed || scan.lost || scan.at >= scan.end) {
        let segment = &mut store.table[scan.number as usize];
        if segment.used == Use::Open(Kind::Meta) {
            let written = if scan.lost { scan.end } else { scan.at } - scan.start;
            (segment.used, segment.written, segment.prev) = (Use::Closed(Kind::Meta), written as u32, scan.prev);
        }
    }
    if settler.dirty {
        disk.sync().await?;
    }
    let mut bodies = if sound { open_bodies(superblock, store) } else { Vec::new() };
    bodies.truncate(workers);
    for (segment, number) in store.table.iter_mut().zip(0..) {
        if segment.used == Use::Open(Kind::Body) && bodies.iter().all(|body| body.number != number) {
            segment.used = Use::Closed(Kind::Body);
        }
    }
    let (mut metas, mut bodies) = (metas.into_iter(), bodies.into_iter());
    // The maintenance, which is the last, gets one first. Where no segment is blank its checkpoints free those that the workers need.
    let mut maintenance = metas.next();
    let mut meta = |worker| if worker + 1 == workers { maintenance.take() } else { metas.next() };
    let slots = (0..workers).map(|worker| Slot { worker, meta: meta(worker), body: bodies.next() }).collect();
    Ok(Resumed { slots, next_number: settler.next })
}

/// Segments of blocks that have room, those with most room first.
fn open_bodies(superblock: &Superblock, store: &Store) -> Vec<OpenBody> {
    let len = superblock.segment_len;
    let open = store.table.iter().zip(0u32..).filter(|(segment, _)| segment.used == Use::Open(Kind::Body));
    let mut bodies: Vec<OpenBody> = open
        .map(|(segment, number)| {
            let start = SEGMENTS_START + u64::from(number) * len;
            let (generation, at) = (segment.generation, start + u64::from(segment.written));
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
    /// No higher than recovery found: a cut elsewhere may not be final yet, and what it cuts must not seem proven.
    watermark: u64,
    next: u64,
    /// Whether anything has been written.
    dirty: bool,
}

impl<D: Disk> Settler<'_, D> {
    /// Writes a record of the log's own, in a batch by itself. It says that its segment is durable up to here, as it now is.
    async fn append(&mut self, meta: &mut OpenMeta, kind: u8) -> Result<(), Error> {
        let header = record::Header {
            kind,
            flags: FIRST | LAST,
            generation: meta.generation,
            offset: meta.at,
            seq: self.next,
            watermark: self.watermark,
            prev: meta.prev,
            durable: (meta.at - meta.start) as u32,
            witness: Durable::default(),
        };
        self.next += 1;
        let at = meta.at;
        self.page(at, |page| meta.prev = header.emit(&self.superblock.store, &[], page)).await?;
        meta.at += PAGE as u64;
        Ok(())
    }

    /// Writes one page, zero but for what is put into it.
    async fn page(&mut self, at: u64, emit: impl FnOnce(&mut [u8])) -> Result<(), Error> {
        let mut buf = self.disk.buffer();
        let page = D::part(&mut buf, 0..PAGE);
        page.fill(0);
        emit(page);
        self.dirty = true;
        let (result, _) = self.disk.write(at, buf, 0..PAGE).await;
        Ok(result?)
    }
}
