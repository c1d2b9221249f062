//! A reader of the medium written from FORMAT.md alone, independent of the engine.
//!
//! It verifies the checksums of superblocks, since power may have failed while one was written, but
//! not those of records, since it runs before damage is done. Stale records are told apart by their
//! place, their generation and the predecessor's checksum, which each record repeats.

use std::collections::BTreeMap;
use std::ops::Range;

use keyhole_log::limits::{BLOCK_DATA, BUFFER_LEN, FOOTER_LEN, PAGE, SEGMENTS_START, SUPERBLOCK_AT};

use super::pages::Pages;

/// Length of a record's header.
pub(super) const HEADER: usize = 80;

/// Flag of the last record of a batch.
const LAST: u8 = 2;

/// Uses of a segment that are distinguished here.
const BLANK: u8 = 0;
const OPEN_META: u8 = 1;
const OPEN_BODY: u8 = 2;

pub(super) fn u16_at(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..at + 2).map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]).into())
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
}

pub(super) fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// A record and its location.
#[derive(Debug, Clone)]
pub(super) struct Record {
    at: u64,
    bytes: Vec<u8>,
}

impl Record {
    /// Reads the record at `at`, if its header names that place.
    fn read(pages: &Pages, at: u64) -> Option<Self> {
        let header = pages.bytes(at, HEADER);
        let len = u32_at(&header, 8) as usize;
        let here = header.starts_with(b"khR1") && u64_at(&header, 40) == at && (HEADER..=BUFFER_LEN).contains(&len);
        here.then(|| Record { at, bytes: pages.bytes(at, len) })
    }

    pub(super) fn range(&self) -> Range<u64> {
        self.at..self.at + self.bytes.len() as u64
    }

    pub(super) fn kind(&self) -> u8 {
        self.bytes[12]
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.bytes[HEADER..]
    }

    fn generation(&self) -> u64 {
        u64_at(&self.bytes, 32)
    }

    fn seq(&self) -> u64 {
        u64_at(&self.bytes, 48)
    }

    /// Returns its checksum and that of its predecessor.
    fn crcs(&self) -> (u32, u32) {
        (u32_at(&self.bytes, 4), u32_at(&self.bytes, 64))
    }

    /// Returns the offset of the next record.
    fn next(&self) -> u64 {
        let end = self.range().end.next_multiple_of(8);
        if self.bytes[13] & LAST != 0 { end.next_multiple_of(PAGE as u64) } else { end }
    }

    /// Returns the first eight bytes of a body's prefix: the body number of the workload.
    pub(super) fn content(&self) -> u64 {
        u64_at(self.payload(), 32)
    }

    /// Returns the ranges of the blocks of a body record.
    pub(super) fn blocks(&self) -> Vec<Range<u64>> {
        let payload = self.payload();
        if self.kind() != 3 || payload.get(16) != Some(&2) {
            return Vec::new();
        }
        let mut start = 0;
        let mut blocks = Vec::new();
        let runs = payload.get(32 + usize::from(payload[17])..).unwrap_or_default();
        for run in runs.chunks_exact(20) {
            let mut at = u64_at(run, 0);
            let end = start + u64::from(u32_at(run, 16));
            while start < end {
                // A block ends at each multiple of the maximum block length within the body, and at
                // the end of a run.
                let data = (end - start).min(BLOCK_DATA as u64 - start % BLOCK_DATA as u64);
                let len = data.next_multiple_of(PAGE as u64) + FOOTER_LEN as u64;
                blocks.push(at..at + len);
                start += data;
                at += len;
            }
        }
        blocks
    }
}

/// A segment entry of a checkpoint.
#[derive(Debug, Clone, Copy)]
struct Segment {
    used: u8,
    generation: u64,
    written: u32,
    prev: u32,
}

/// A checkpoint.
#[derive(Debug)]
pub(super) struct Checkpoint {
    until: u64,
    records: Vec<Record>,
    segments: BTreeMap<u32, Segment>,
    /// Offsets of the records it refers to, which are read on demand.
    referred: Vec<u64>,
}

impl Checkpoint {
    fn read(pages: &Pages, raw: u64) -> Option<Self> {
        let end = Record::read(pages, raw >> 17 << 3).filter(|record| record.kind() == 12)?;
        let payload = end.payload();
        let chunks = (0..u32_at(payload, 24) as usize).map(|i| u64_at(payload, 32 + 8 * i) >> 17 << 3);
        let records: Vec<Record> = chunks.map(|at| Record::read(pages, at)).collect::<Option<_>>()?;
        let until = u64_at(payload, 0);
        let mut checkpoint = Checkpoint { until, records, segments: BTreeMap::new(), referred: Vec::new() };
        let chunks: Vec<Vec<u8>> = checkpoint.records.iter().map(|chunk| chunk.payload()[16..].to_vec()).collect();
        for items in &chunks {
            let mut at = 0;
            while at < items.len() {
                at += checkpoint.item(&items[at..]);
            }
        }
        checkpoint.records.push(end);
        Some(checkpoint)
    }

    /// Adds an item and returns its length.
    fn item(&mut self, item: &[u8]) -> usize {
        let string = |at| 2 + u16_at(item, at);
        match item[0] {
            2 => 57 + string(57), // The item describes the bucket completely.
            3 => {
                self.referred.push(u64_at(item, 1) >> 17 << 3);
                let bodies = 49 + string(49);
                bodies + 2 + 8 * u16_at(item, bodies)
            }
            4 => {
                self.referred.push(u64_at(item, 9) >> 17 << 3);
                45 + string(45)
            }
            5 => {
                self.referred.push(u64_at(item, 9) >> 17 << 3);
                33 + 58
            }
            6 => {
                self.referred.push(u64_at(item, 9) >> 17 << 3);
                19 + 8 * u16_at(item, 17)
            }
            7 => {
                let generation = u64_at(item, 6);
                let written = u32_at(item, 14);
                let prev = u32_at(item, 18);
                self.segments.insert(u32_at(item, 1), Segment { used: item[5], generation, written, prev });
                22
            }
            8 | 10 | 11 => 9 + string(9),
            12 | 13 => 13 + u32_at(item, 9) as usize,
            14 => 17,
            15 => {
                self.referred.push(u64_at(item, 1) >> 17 << 3);
                25 + string(25)
            }
            16 => 25,
            17 => {
                self.referred.push(u64_at(item, 9) >> 17 << 3);
                43
            }
            18 => {
                self.referred.push(u64_at(item, 9) >> 17 << 3);
                25
            }
            20 => {
                self.referred.push(u64_at(item, 9) >> 17 << 3);
                25 + string(25)
            }
            1 | 9 | 19 => 9,
            other => panic!("an item {other} of a checkpoint"),
        }
    }

    /// Returns whether a segment was full or blank and still has the generation in its header.
    pub(super) fn is_at_rest(&self, number: u32, generation: u64) -> bool {
        let is_open = |used| used == OPEN_META || used == OPEN_BODY;
        self.segments.get(&number).is_some_and(|known| !is_open(known.used) && known.generation == generation)
    }

    /// Returns the records of the checkpoint.
    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.iter()
    }

    /// Returns whether any of these ranges overlaps the checkpoint.
    pub(super) fn is_hit(&self, ranges: &[Range<u64>]) -> bool {
        self.records.iter().any(|record| ranges.iter().any(|range| overlap(range, &record.range())))
    }
}

/// Returns whether the checksum of a superblock is right. It is not if power failed while the page
/// was written.
fn verifies(superblock: &[u8]) -> bool {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&superblock[..12]);
    crc.update(&superblock[16..]);
    crc.finalize() == u32_at(superblock, 12)
}

/// Returns the locations of the checkpoints in the superblock, the newest first; 0 means none.
pub(super) fn pointers(pages: &Pages) -> [u64; 2] {
    let copies = SUPERBLOCK_AT.map(|at| pages.bytes(at, PAGE)).into_iter().filter(|copy| verifies(copy));
    let newest = copies.max_by_key(|copy| u64_at(copy, 32)).expect("one is always valid");
    [u64_at(&newest, 64), u64_at(&newest, 72)]
}

/// Reads the checkpoints that the superblock points to, the newest first.
pub(super) fn checkpoints(pages: &Pages) -> Vec<Checkpoint> {
    let pointers = pointers(pages);
    let there = pointers.iter().filter(|pointer| **pointer != 0);
    there.map(|pointer| Checkpoint::read(pages, *pointer).expect("a checkpoint")).collect()
}

/// Panics if a record or block that either checkpoint refers to is missing, since an opening may
/// begin with either, or if a checkpoint claims to cover itself.
pub(super) fn check_checkpoints(pages: &Pages) {
    for checkpoint in checkpoints(pages) {
        let until = checkpoint.until;
        assert!(checkpoint.records.iter().all(|own| own.seq() >= until), "the checkpoint up to {until} covers itself");
        for at in checkpoint.referred.iter().filter(|at| **at != 0) {
            let Some(record) = Record::read(pages, *at) else {
                panic!("the checkpoint up to {until} refers to {at}, where no record is");
            };
            for block in record.blocks() {
                let footer = pages.bytes(block.end - PAGE as u64, PAGE);
                assert!(footer.starts_with(b"khB1"), "no footer ends the block {block:?} of the record at {at}");
            }
        }
    }
}

/// The records that an opening from a checkpoint, or without one, depends on.
#[derive(Debug)]
pub(super) struct View {
    /// Records that are read on demand.
    pub(super) referred: Vec<Record>,
    /// Records that are replayed at opening.
    pub(super) replayed: Vec<Record>,
}

impl View {
    pub(super) fn of(pages: &Pages, checkpoint: Option<&Checkpoint>, segment_len: u64) -> Self {
        let mut view = View { referred: Vec::new(), replayed: Vec::new() };
        let referred = checkpoint.iter().flat_map(|checkpoint| &checkpoint.referred);
        view.referred.extend(referred.filter_map(|at| Record::read(pages, *at)));
        let count = pages.len.saturating_sub(SEGMENTS_START) / segment_len;
        for number in 0..count {
            let start = SEGMENTS_START + number * segment_len;
            let header = pages.bytes(start, PAGE);
            let known = checkpoint.and_then(|checkpoint| checkpoint.segments.get(&(number as u32)));
            let known = known.filter(|known| known.written > 0 || known.used == BLANK);
            let is_header = header.starts_with(b"keyhseg\n") && u64_at(&header, 40) == number;
            let generation = if is_header { u64_at(&header, 32) } else { 0 };
            let until = checkpoint.map_or(0, |checkpoint| checkpoint.until);
            match known {
                Some(known) if generation < until && known.used == OPEN_META => {
                    let at = start + u64::from(known.written);
                    view.walk(pages, at..start + segment_len, known.prev, known.generation);
                }
                Some(_) if generation < until => {}
                _ if is_header && u32_at(&header, 8) == 1 => {
                    let from = start + PAGE as u64..start + segment_len;
                    view.walk(pages, from, u32_at(&header, 12), generation);
                }
                _ => {}
            }
        }
        view
    }

    fn walk(&mut self, pages: &Pages, range: Range<u64>, prev: u32, generation: u64) {
        let mut at = range.start;
        let mut ahead = prev;
        while at < range.end
            && let Some(record) = Record::read(pages, at)
            && record.generation() == generation
        {
            let (crc, prev) = record.crcs();
            if prev != ahead {
                return;
            }
            at = record.next();
            ahead = crc;
            self.replayed.push(record);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a superblock with an epoch and the location of its newest checkpoint.
    fn superblock(epoch: u64, newest: u64) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        page[32..40].copy_from_slice(&epoch.to_le_bytes());
        page[64..72].copy_from_slice(&newest.to_le_bytes());
        let crc = crc32fast::hash(&[&page[..12], &page[16..]].concat());
        page[12..16].copy_from_slice(&crc.to_le_bytes());
        page
    }

    #[test]
    fn torn_copy_of_superblock_has_no_checkpoints() {
        let old = superblock(4, 40);
        let new = superblock(5, 50);
        let mut torn = old;
        // The epoch was written; the checkpoints and the checksum were not.
        torn[32..40].copy_from_slice(&new[32..40]);
        for (copies, newest) in [([old, new], 50), ([new, old], 50), ([torn, old], 40), ([old, torn], 40)] {
            let mut file = vec![0; SEGMENTS_START as usize];
            for (at, copy) in SUPERBLOCK_AT.into_iter().zip(copies) {
                file[at as usize..at as usize + PAGE].copy_from_slice(&copy);
            }
            let mut pages = Pages::default();
            pages.replace(&file);
            assert_eq!(pointers(&pages), [newest, 0]);
        }
    }
}
