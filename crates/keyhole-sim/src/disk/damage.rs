//! Damage at rest: bits that rot, writes that went elsewhere. And what it affects, by FORMAT.md alone: the engine is not asked.

use std::collections::BTreeSet;
use std::rc::Rc;

use keyhole_log::limits::{PAGE, SEGMENTS_START};

use super::pages::{Page, Pages, SECTOR};
use crate::random::Random;

/// What may not be as it was. Everything else must be.
#[derive(Debug, Clone, Default)]
pub struct Affected {
    /// Names of buckets.
    pub buckets: BTreeSet<String>,
    /// Keys, in whatever bucket.
    pub keys: BTreeSet<String>,
    /// First eight bytes of bodies: the workload's bodies say there who they are.
    pub contents: BTreeSet<u64>,
    /// Uploads, any of them.
    pub uploads: bool,
    /// Buckets, any of them.
    pub everything: bool,
    /// What was done, to be printed.
    pub what: Vec<String>,
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..at + 2).map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]).into())
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..at + 4).map_or(0, |bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
}

fn text(bytes: &[u8], at: usize, len: usize) -> String {
    String::from_utf8_lossy(bytes.get(at..at + len).unwrap_or_default()).into_owned()
}

/// Length of a record's header.
const HEADER: usize = 80;

impl Affected {
    /// What a page of a segment is about, before it is damaged.
    fn page(&mut self, pages: &Pages, at: u64, segment_len: u64) {
        let start = at - (at - SEGMENTS_START) % segment_len;
        if at == start {
            return; // Everything that the header says is said elsewhere as well.
        }
        let mut segment = vec![0; segment_len as usize];
        pages.read(start, &mut segment);
        let page = (at - start) as usize;
        match u32_at(&segment, 8) {
            1 => self.records(&segment, page),
            // A page of data says whose it is; padding and footer come after one that does.
            2 => self.contents.extend([u64_at(&segment, page), u64_at(&segment, page - PAGE)]),
            _ => {}
        }
    }

    /// Walks through a segment of records, and notes those that are on a page.
    fn records(&mut self, segment: &[u8], page: usize) {
        let mut at = PAGE;
        while segment.get(at..at + 4) == Some(b"khR1") {
            let len = u32_at(segment, at + 8);
            if at < page + PAGE && page < at + len {
                self.record(&segment[at..(at + len).min(segment.len())]);
            }
            at = (at + len).next_multiple_of(8);
            let last = segment.get(at - (len.next_multiple_of(8)) + 13).is_some_and(|flags| flags & 2 != 0);
            at = if last { at.next_multiple_of(PAGE) } else { at };
        }
    }

    fn record(&mut self, record: &[u8]) {
        let payload = &record[HEADER.min(record.len())..];
        match record[12] {
            1 => {
                self.buckets.insert(text(payload, 10, u16_at(payload, 8)));
            }
            2 => self.everything = true,
            3 => {
                self.contents.insert(u64_at(payload, 32));
            }
            4 => {
                self.keys.insert(text(payload, 60, u16_at(payload, 52)));
                self.uploads |= u64_at(payload, 8) != 0;
            }
            5 => {
                self.keys.insert(text(payload, 18, u16_at(payload, 16)));
            }
            6..=8 => self.uploads = true,
            _ => {}
        }
    }
}

/// Damages one or two places, in different segments.
pub(super) fn damage(pages: &mut Pages, random: &mut Random, segment_len: u64) -> Affected {
    let mut affected = Affected::default();
    let mut segments = BTreeSet::new();
    for _ in 0..1 + random.below(2) {
        let written = pages.written();
        let at = *random.pick(&written);
        // Both superblocks count as one place.
        let segment = at.checked_sub(SEGMENTS_START).map_or(0, |at| 1 + at / segment_len);
        if !segments.insert(segment) {
            continue;
        }
        if segment > 0 {
            affected.page(pages, at, segment_len);
        }
        let what = random.below(5);
        let other = pages.page(*random.pick(&written)).map(Rc::clone);
        let (bit, sector) = (random.below(8 * PAGE as u64) as usize, random.below((PAGE / SECTOR) as u64) as usize);
        let noise = random.number() as u8;
        pages.change(at, |page: &mut Page| match what {
            0 | 1 => page[bit / 8] ^= 1 << (bit % 8),
            2 => page[sector * SECTOR..(sector + 1) * SECTOR].fill(0),
            3 => page[sector * SECTOR..(sector + 1) * SECTOR].fill(noise),
            // A write to elsewhere has come here.
            _ => *page = other.map_or([0; PAGE], |other| *other),
        });
        affected.what.push(format!("kind {what} at {at}"));
    }
    affected
}
