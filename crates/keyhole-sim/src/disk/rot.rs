//! Bad places that appear while a store is in use, limited to those whose effect on names is known.
//!
//! Other damage is done at the end of a life ([`damage`](super::damage)). Here the life continues,
//! so the affected data are named exactly, by the numbers of bodies and versions, which are never
//! reused.

use std::collections::BTreeSet;
use std::ops::Range;

use keyhole_log::limits::{PAGE, SEGMENTS_START, SUPERBLOCK_AT};

use super::layout::{self, Checkpoint, HEADER, Record, View, overlap, u64_at};
use super::pages::Pages;
use crate::random::Random;

/// The unreadable pages and the data they affect.
#[derive(Debug, Clone, Default)]
pub struct Rot {
    /// Offsets of the pages.
    pub pages: Vec<u64>,
    /// Bodies, by the number at their beginning.
    pub contents: BTreeSet<u64>,
    /// Versions of objects, by the number in their ETag.
    pub versions: BTreeSet<u64>,
}

const KIND_BODY: u8 = 3;
const KIND_OBJECT: u8 = 4;
const KIND_CHUNK: u8 = 11;
const KIND_CHECKPOINT: u8 = 12;

fn page(at: u64) -> Range<u64> {
    let start = at / PAGE as u64 * PAGE as u64;
    start..start + PAGE as u64
}

/// Returns a random page offset in a range.
fn within(range: &Range<u64>, random: &mut Random) -> u64 {
    range.start + random.below(range.end - range.start)
}

/// Chooses a page on which no name depends, or only bodies and objects older than the newest
/// checkpoint.
pub(super) fn rot(pages: &Pages, random: &mut Random, segment_len: u64) -> Option<Rot> {
    let checkpoints = layout::checkpoints(pages);
    let newest = checkpoints.first()?;
    let view = View::of(pages, Some(newest), segment_len);
    let hit = match random.below(10) {
        0 => page(*random.pick(&SUPERBLOCK_AT)),
        1..=2 => {
            let count = pages.len.saturating_sub(SEGMENTS_START) / segment_len;
            let segment = (count > 0).then(|| random.below(count))?;
            let start = SEGMENTS_START + segment * segment_len;
            newest.is_at_rest(segment as u32, u64_at(&pages.bytes(start, PAGE), 32)).then(|| page(start))?
        }
        3..=5 => {
            let objects: Vec<&Record> = view.referred.iter().filter(|record| record.kind() == KIND_OBJECT).collect();
            page(within(&(!objects.is_empty()).then(|| random.pick(&objects).range())?, random))
        }
        _ => {
            let blocks: Vec<Range<u64>> = view.referred.iter().flat_map(Record::blocks).collect();
            page(within((!blocks.is_empty()).then(|| random.pick(&blocks))?, random))
        }
    };
    of_page(&checkpoints, &view, hit)
}

/// Returns what depends on a page; `None` if a life could not continue without it.
fn of_page(checkpoints: &[Checkpoint], view: &View, hit: Range<u64>) -> Option<Rot> {
    let is_hit = |range: &Range<u64>| overlap(range, &hit);
    let replayed = view.replayed.iter().any(|record| is_hit(&record.range()));
    if replayed || checkpoints.iter().any(|checkpoint| checkpoint.is_hit(std::slice::from_ref(&hit))) {
        return None;
    }
    let mut rot = Rot { pages: vec![hit.start], ..Rot::default() };
    for record in view.referred.iter().filter(|record| is_hit(&record.range())) {
        match record.kind() {
            KIND_BODY => rot.contents.insert(record.content()),
            KIND_OBJECT => rot.versions.insert(u64_at(record.payload(), 32)),
            _ => return None,
        };
    }
    // Newer records may share blocks with the older ones.
    for record in view.referred.iter().chain(&view.replayed) {
        if record.blocks().iter().any(is_hit) {
            rot.contents.insert(record.content());
        }
    }
    Some(rot)
}

/// Chooses a written page or its successor, with a preference for ends of data where writing
/// continues.
pub(super) fn wear(pages: &mut Pages, random: &mut Random) -> Option<u64> {
    let mut written: Vec<u64> = pages.written().into_iter().filter(|at| *at >= SEGMENTS_START).collect();
    if random.chance(70) {
        let next = |at: u64| at + PAGE as u64;
        written.retain(|at| pages.page(next(*at)).is_none());
        written.iter_mut().for_each(|at| *at = next(*at));
    }
    let at = (!written.is_empty()).then(|| *random.pick(&written))?;
    (at < pages.len).then_some(at)
}

impl Rot {
    /// Adds what another bad place affects.
    pub fn add(&mut self, other: Rot) {
        self.pages.extend(other.pages);
        self.contents.extend(other.contents);
        self.versions.extend(other.versions);
    }
}

/// Flips a bit in the payload of one record of the newest checkpoint, if there is an older one.
/// Returns the location of the checkpoint's end.
pub(super) fn spoil_checkpoint(pages: &mut Pages, random: &mut Random) -> Option<u64> {
    let checkpoints = layout::checkpoints(pages);
    let [newest, _] = &checkpoints[..] else { return None };
    let records: Vec<&Record> = newest.records().collect();
    let record = random.pick(&records);
    assert!(matches!(record.kind(), KIND_CHUNK | KIND_CHECKPOINT), "a record of a checkpoint");
    let range = record.range();
    let at = within(&(range.start + HEADER as u64..range.end), random);
    let bit = random.below(8);
    pages.change(page(at).start, |bytes| bytes[(at % PAGE as u64) as usize] ^= 1 << bit);
    Some(layout::pointers(pages)[0])
}
