//! A locator of the structures in an object file (FORMAT.md of the log), to damage them
//! selectively.
//!
//! Structures are found by their magic numbers and their own fields. Checksums are not verified.

pub mod tamper;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

/// The name of the object file in a data directory.
pub const FILE: &str = "objects.keyhole";

/// Alignment of all writes.
pub const PAGE: u64 = 4096;

/// Offsets of the two copies of the superblock.
pub const SUPERBLOCKS: [u64; 2] = [0, 512 << 10];

/// The offset of the first segment.
pub const SEGMENTS_START: u64 = 1 << 20;

const RECORD_HEADER: u64 = 80;
const LAST_OF_BATCH: u8 = 2;

/// Encoding of a body inside its record.
const INLINE: u8 = 0;

/// Kinds of records.
mod kind {
    pub(super) const BODY: u8 = 3;
    pub(super) const OBJECT: u8 = 4;
    pub(super) const END: u8 = 9;
    pub(super) const CHECKPOINT_ITEMS: u8 = 11;
    pub(super) const CHECKPOINT_END: u8 = 12;
}

/// The kind of a segment, by its content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentKind {
    /// Records.
    Records,
    /// Blocks of bodies.
    Blocks,
}

/// A segment with a header.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The segment number.
    pub number: u64,
    /// The offset of its header.
    pub start: u64,
    /// The kind of its content.
    pub kind: SegmentKind,
    /// Whether it contains an end record.
    pub is_ended: bool,
    generation: u64,
}

/// A record.
#[derive(Clone, Debug)]
pub struct Record {
    /// Range of header and payload.
    pub bytes: Range<u64>,
    /// The segment number.
    pub segment: u64,
    /// The sequence number.
    pub sequence: u64,
    generation: u64,
    kind: u8,
    payload: Vec<u8>,
}

/// A block of a body.
#[derive(Clone, Debug)]
pub struct Block {
    /// Range of data and padding.
    pub data: Range<u64>,
    /// Range of the footer.
    pub footer: Range<u64>,
    /// The body's identity.
    pub body: u64,
    generation: u64,
}

/// The location of an object.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its record.
    pub record: Record,
    /// The records of its bodies; those of short bodies contain the data.
    pub bodies: Vec<Record>,
    /// The blocks of its bodies.
    pub blocks: Vec<Block>,
}

/// The structures of an object file.
pub struct Layout {
    bytes: Vec<u8>,
    segment_len: u64,
    /// Segments with a header, in file order.
    pub segments: Vec<Segment>,
    records: Vec<Record>,
    blocks: Vec<Block>,
}

impl Layout {
    /// Returns the length of a segment.
    pub fn segment_len(&self) -> u64 {
        self.segment_len
    }

    /// Parses an object file.
    pub fn read(path: &Path) -> Self {
        Layout::of(std::fs::read(path).expect("an object file"))
    }

    /// Parses the bytes of an object file.
    pub fn of(bytes: Vec<u8>) -> Self {
        let mut layout =
            Layout { bytes, segment_len: 0, segments: Vec::new(), records: Vec::new(), blocks: Vec::new() };
        assert_eq!(layout.slice(0, 8), b"keyhlog\n", "the magic of an object file");
        layout.segment_len = layout.u64(40);
        layout.find_segments();
        layout
    }

    fn slice(&self, at: u64, len: u64) -> &[u8] {
        let start = (at as usize).min(self.bytes.len());
        &self.bytes[start..((at + len) as usize).min(self.bytes.len())]
    }

    fn u64(&self, at: u64) -> u64 {
        self.slice(at, 8).try_into().map_or(0, u64::from_le_bytes)
    }

    fn u32(&self, at: u64) -> u64 {
        self.slice(at, 4).try_into().map_or(0, |bytes| u32::from_le_bytes(bytes).into())
    }

    /// Returns the length of the file in bytes.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Returns whether the file is empty.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn find_segments(&mut self) {
        let count = (self.len() - SEGMENTS_START).div_ceil(self.segment_len);
        for number in 0..count {
            let start = SEGMENTS_START + number * self.segment_len;
            if self.slice(start, 8) != b"keyhseg\n" {
                continue;
            }
            let kind = if self.u32(start + 8) == 1 { SegmentKind::Records } else { SegmentKind::Blocks };
            let generation = self.u64(start + 32);
            let mut segment = Segment { number, start, kind, is_ended: false, generation };
            match kind {
                SegmentKind::Records => self.find_records(&mut segment),
                SegmentKind::Blocks => self.find_blocks(&segment),
            }
            self.segments.push(segment);
        }
    }

    fn find_records(&mut self, segment: &mut Segment) {
        let end = segment.start + self.segment_len;
        let mut at = segment.start + PAGE;
        while at + RECORD_HEADER <= end {
            let is_record = self.slice(at, 4) == b"khR1"
                && self.u64(at + 32) == segment.generation
                && self.u64(at + 40) == at
                && self.u32(at + 8) >= RECORD_HEADER;
            if !is_record {
                at = (at + 1).next_multiple_of(PAGE);
                continue;
            }
            let len = self.u32(at + 8);
            let kind = self.slice(at + 12, 1)[0];
            let flags = self.slice(at + 13, 1)[0];
            let payload = self.slice(at + RECORD_HEADER, len - RECORD_HEADER).to_vec();
            let sequence = self.u64(at + 48);
            let bytes = at..at + len;
            let generation = segment.generation;
            self.records.push(Record { bytes, segment: segment.number, sequence, generation, kind, payload });
            segment.is_ended |= kind == kind::END;
            at = (at + len).next_multiple_of(if flags & LAST_OF_BATCH == 0 { 8 } else { PAGE });
        }
    }

    fn find_blocks(&mut self, segment: &Segment) {
        let end = segment.start + self.segment_len;
        for at in (segment.start + PAGE..end).step_by(PAGE as usize) {
            let is_footer = self.slice(at, 4) == b"khB1" && self.u64(at + 24) == segment.generation;
            let start = self.u64(at + 32);
            if is_footer && (segment.start + PAGE..at).contains(&start) {
                let body = self.u64(at + 40);
                let footer = at..at + PAGE;
                self.blocks.push(Block { data: start..at, footer, body, generation: segment.generation });
            }
        }
    }

    /// Returns the objects by key, each as of its newest record. Of several copies by the cleaner,
    /// the one in the most recently opened segment counts.
    pub fn objects(&self) -> BTreeMap<String, Object> {
        let mut newest: BTreeMap<String, &Record> = BTreeMap::new();
        for record in self.records.iter().filter(|record| record.kind == kind::OBJECT) {
            let current = newest.entry(record.key()).or_insert(record);
            if (record.sequence, record.generation) >= (current.sequence, current.generation) {
                *current = record;
            }
        }
        newest.into_iter().map(|(key, record)| (key, self.object(record))).collect()
    }

    fn object(&self, record: &Record) -> Object {
        let ids = record.bodies();
        let mut newest: BTreeMap<u64, &Record> = BTreeMap::new();
        for body in self.records.iter().filter(|record| record.kind == kind::BODY) {
            let id = field(&body.payload, 0, 8);
            if ids.contains(&id) {
                let current = newest.entry(id).or_insert(body);
                if body.relocation_order() >= current.relocation_order() {
                    *current = body;
                }
            }
        }
        // A segment of one generation holds one copy of a body's blocks.
        let is_current =
            |block: &&Block| newest.get(&block.body).is_some_and(|body| body.generations().contains(&block.generation));
        let blocks = self.blocks.iter().filter(is_current).cloned().collect();
        Object { record: record.clone(), bodies: newest.into_values().cloned().collect(), blocks }
    }

    /// Returns the end record of the newest checkpoint (0) or of the previous one (1).
    pub fn checkpoint(&self, age: u64) -> Option<Record> {
        let at = (self.u64(64 + 8 * age) >> 17) * 8;
        let is_wanted = |record: &&Record| record.kind == kind::CHECKPOINT_END && record.bytes.start == at;
        self.records.iter().find(is_wanted).cloned()
    }

    /// Returns the first item record of the newest checkpoint.
    pub fn checkpoint_items(&self) -> Option<Record> {
        let until = field(&self.checkpoint(0)?.payload, 0, 8);
        let is_wanted =
            |record: &&Record| record.kind == kind::CHECKPOINT_ITEMS && field(&record.payload, 0, 8) == until;
        self.records.iter().find(is_wanted).cloned()
    }

    /// Returns whether the newest checkpoint covers this record.
    pub fn is_in_checkpoint(&self, record: &Record) -> bool {
        self.checkpoint(0).is_some_and(|end| record.sequence < field(&end.payload, 0, 8))
    }

    /// Returns a few pages of each structure: superblock copies, segment headers, and the first,
    /// middle and last page of each record, of the data of each block, and of its footer.
    pub fn pages_of_structures(&self) -> BTreeSet<u64> {
        let headers = self.segments.iter().map(|segment| segment.start..segment.start + PAGE);
        let superblocks = SUPERBLOCKS.into_iter().map(page_of);
        let records = self.records.iter().map(|record| record.bytes.clone());
        let blocks = self.blocks.iter().flat_map(|block| [block.data.clone(), block.footer.clone()]);
        let structures = superblocks.chain(headers).chain(records).chain(blocks);
        let offsets = structures.flat_map(|bytes| [bytes.start, (bytes.start + bytes.end) / 2, bytes.end - 1]);
        offsets.map(|at| page_of(at).start).collect()
    }

    /// Returns the pages of the file that are not zero.
    pub fn written_pages(&self) -> Vec<u64> {
        let pages = self.bytes.chunks(PAGE as usize).zip(0..);
        pages.filter(|(bytes, _)| bytes.iter().any(|byte| *byte != 0)).map(|(_, page)| page * PAGE).collect()
    }
}

impl Segment {
    /// Returns the generation, which counts the segments opened so far.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

impl Record {
    /// Returns the key in an object's record.
    fn key(&self) -> String {
        let len = field(&self.payload, 52, 2) as usize;
        String::from_utf8_lossy(&self.payload[60..60 + len]).into_owned()
    }

    /// Returns the bodies in an object's record.
    fn bodies(&self) -> Vec<u64> {
        let [key, count, head] = [(52, 2), (54, 2), (56, 4)].map(|(at, len)| field(&self.payload, at, len) as usize);
        (0..count).map(|n| field(&self.payload, 60 + key + head + 58 * n + 2, 8)).collect()
    }

    /// Returns the sort key of the records of one body: the last one locates its blocks.
    fn relocation_order(&self) -> (u64, u64) {
        (field(&self.payload, 24, 8), self.generation)
    }

    /// Returns the generations of the segments that hold the blocks of a body's record.
    fn generations(&self) -> Vec<u64> {
        let encoding = self.payload[16];
        let prefix = usize::from(self.payload[17]);
        let count = field(&self.payload, 20, 4);
        if encoding == INLINE {
            return Vec::new();
        }
        (0..count as usize).map(|n| field(&self.payload, 32 + prefix + 20 * n + 8, 8)).collect()
    }
}

/// Reads a little-endian integer of a payload.
fn field(payload: &[u8], at: usize, len: usize) -> u64 {
    payload[at..at + len].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Returns the page that contains an offset.
pub fn page_of(at: u64) -> Range<u64> {
    let start = at / PAGE * PAGE;
    start..start + PAGE
}
