//! Damage at rest: bits that rot, writes that went elsewhere. And what it affects.

use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;

use keyhole_log::limits::{PAGE, SEGMENTS_START};

use super::layout::{self, Checkpoint, Record, View, overlap, u16_at, u64_at};
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
    /// The newest checkpoint cannot be read.
    pub checkpoint: bool,
    /// Perhaps none can be read.
    pub rebuild: bool,
    /// The file was opened without any: what was deleted may come back.
    pub rebuilt: bool,
    /// What was done, to be printed.
    pub what: Vec<String>,
}

fn text(bytes: &[u8], at: usize, len: usize) -> String {
    String::from_utf8_lossy(bytes.get(at..at + len).unwrap_or_default()).into_owned()
}

impl Affected {
    /// Notes a record that is not read as long as nobody asks for it.
    fn referred(&mut self, record: &Record) {
        let payload = record.payload();
        match record.kind() {
            3 => {
                self.contents.insert(record.content());
            }
            4 => {
                self.keys.insert(text(payload, 60, u16_at(payload, 52)));
            }
            _ => self.uploads = true,
        }
    }

    /// Notes a record that is read when the file is opened.
    fn replayed(&mut self, record: &Record) {
        let payload = record.payload();
        match record.kind() {
            1 => {
                self.buckets.insert(text(payload, 10, u16_at(payload, 8)));
            }
            2 => self.everything = true,
            3 => {
                self.contents.insert(record.content());
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

    /// What depends on these ranges when the file is opened by this view.
    fn note(&mut self, view: &View, ranges: &[Range<u64>]) {
        let hit = |range: &Range<u64>| ranges.iter().any(|other| overlap(range, other));
        for record in &view.referred {
            if hit(&record.range()) {
                self.referred(record);
            }
        }
        for record in &view.replayed {
            if hit(&record.range()) {
                self.replayed(record);
            }
        }
        for body in view.referred.iter().chain(&view.replayed) {
            if body.blocks().iter().any(hit) {
                self.contents.insert(body.content());
            }
        }
    }
}

/// Media of 100 that are damaged in each checkpoint.
const ALL_CHECKPOINTS: u64 = 12;

/// Damages one or two places. Both are in one segment only if they are in checkpoints: otherwise the one might take the proof
/// away that the other was there.
pub(super) fn damage(pages: &mut Pages, random: &mut Random, segment_len: u64) -> Affected {
    let (before, checkpoints) = (pages.clone(), layout::checkpoints(pages));
    let view = View::of(&before, checkpoints.first(), segment_len);
    let (mut affected, mut segments, mut ranges) = (Affected::default(), BTreeSet::new(), Vec::new());
    let written = pages.written();
    if random.chance(ALL_CHECKPOINTS) {
        for checkpoint in &checkpoints {
            let records: Vec<&Record> = checkpoint.records().collect();
            let at = random.pick(&records).range().start / PAGE as u64 * PAGE as u64;
            ranges.extend(damage_page(pages, random, at, &written, &mut affected));
        }
    }
    for _ in 0..1 + random.below(2) {
        let (what, any) = (random.below(10), *random.pick(&written));
        let in_checkpoints: Vec<&Record> = checkpoints.iter().flat_map(Checkpoint::records).collect();
        let records: Vec<&Record> = view.referred.iter().chain(&view.replayed).collect();
        let mut page_of = |records: &[&Record]| {
            let range = random.pick(records).range();
            (range.start + random.below(range.end - range.start)) / PAGE as u64 * PAGE as u64
        };
        // Both superblocks count as one place.
        let place = |at: u64| at.checked_sub(SEGMENTS_START).map_or(0, |at| 1 + at / segment_len);
        let (at, alone) = match what {
            0..=2 if !in_checkpoints.is_empty() => (page_of(&in_checkpoints), true),
            3..=4 if !records.is_empty() => (page_of(&records), false),
            _ => (any, false),
        };
        if (segments.insert(place(at)) || alone)
            && let Some(changed) = damage_page(pages, random, at, &written, &mut affected)
        {
            ranges.push(changed);
        }
    }
    let sound = checkpoints.iter().position(|checkpoint| !checkpoint.is_hit(&ranges));
    affected.checkpoint = sound != Some(0) && !checkpoints.is_empty();
    affected.rebuild = sound.is_none() && !checkpoints.is_empty();
    match sound {
        Some(0) => affected.note(&view, &ranges),
        other => affected.note(&View::of(&before, other.map(|i| &checkpoints[i]), segment_len), &ranges),
    }
    affected
}

/// Damages a page; what has changed of it.
fn damage_page(
    pages: &mut Pages,
    random: &mut Random,
    at: u64,
    written: &[u64],
    affected: &mut Affected,
) -> Option<Range<u64>> {
    let what = random.below(5);
    let other = pages.page(*random.pick(written)).map(Rc::clone);
    let (bit, sector) = (random.below(8 * PAGE as u64) as usize, random.below((PAGE / SECTOR) as u64) as usize);
    let noise = random.number() as u8;
    let before = pages.page(at).map(Rc::clone)?;
    pages.change(at, |page: &mut Page| match what {
        0 | 1 => page[bit / 8] ^= 1 << (bit % 8),
        2 => page[sector * SECTOR..(sector + 1) * SECTOR].fill(0),
        3 => page[sector * SECTOR..(sector + 1) * SECTOR].fill(noise),
        // A write to elsewhere has come here.
        _ => *page = other.map_or([0; PAGE], |other| *other),
    });
    let after = pages.page(at)?;
    let differs = |i: &usize| before[*i] != after[*i];
    let (first, last) = ((0..PAGE).find(differs)?, (0..PAGE).rev().find(differs)?);
    affected.what.push(format!("kind {what} at {at}, bytes {first} to {last}"));
    Some(at + first as u64..at + last as u64 + 1)
}
