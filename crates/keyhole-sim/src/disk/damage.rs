//! Damage at rest, such as bit rot and misdirected writes, and the names it affects.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use keyhole_log::limits::{PAGE, SEGMENTS_START};

use super::layout::{self, Checkpoint, Record, View, overlap, u16_at, u64_at};
use super::pages::{Page, Pages, SECTOR};
use crate::random::Random;

/// The names and bodies that damage may affect. Everything else must be intact.
#[derive(Debug, Clone, Default)]
pub struct Affected {
    /// Names of buckets.
    pub buckets: BTreeSet<String>,
    /// Keys, in any bucket.
    pub keys: BTreeSet<String>,
    /// Keys, in any bucket, whose evictions may be undone.
    pub evictions: BTreeSet<String>,
    /// First eight bytes of bodies: the body number of the workload.
    pub contents: BTreeSet<u64>,
    /// Whether any upload may be affected.
    pub uploads: bool,
    /// Whether any bucket may be affected.
    pub everything: bool,
    /// Whether the newest checkpoint is unreadable.
    pub checkpoint: bool,
    /// Whether both checkpoints may be unreadable.
    pub rebuild: bool,
    /// Whether the file was opened without a checkpoint: deleted objects may reappear.
    pub rebuilt: bool,
    /// Descriptions of the damage, to be printed.
    pub what: Vec<String>,
}

fn text(bytes: &[u8], at: usize, len: usize) -> String {
    String::from_utf8_lossy(bytes.get(at..at + len).unwrap_or_default()).into_owned()
}

impl Affected {
    /// Notes a record that is read on demand only.
    fn referred(&mut self, record: &Record) {
        let payload = record.payload();
        match record.kind() {
            3 => {
                self.contents.insert(record.content());
            }
            4 => {
                self.keys.insert(text(payload, 60, u16_at(payload, 52)));
            }
            // Markers, locks, tags and evictions of versions.
            19 | 21 | 22 | 24 => {}
            _ => self.uploads = true,
        }
    }

    /// Notes a record that is replayed at opening.
    fn replayed(&mut self, record: &Record) {
        let payload = record.payload();
        match record.kind() {
            // Creation of a bucket, without tags or with.
            1 | 17 => {
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
            24 => {
                self.evictions.insert(text(payload, 26, u16_at(payload, 24)));
            }
            _ => {}
        }
    }

    /// Notes everything that depends on these ranges when the file is opened with this view.
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

/// Percentage of lives whose every checkpoint is damaged.
const ALL_CHECKPOINTS: u64 = 12;

/// Damages one or two places. They share a segment only in checkpoints: elsewhere one could destroy
/// the evidence of the other.
pub(super) fn damage(pages: &mut Pages, random: &mut Random, segment_len: u64) -> Affected {
    let before = pages.clone();
    let checkpoints = layout::checkpoints(pages);
    let view = View::of(&before, checkpoints.first(), segment_len);
    let mut affected = Affected::default();
    let mut segments = BTreeSet::new();
    let mut ranges = Vec::new();
    let written = pages.written();
    if random.chance(ALL_CHECKPOINTS) {
        for checkpoint in &checkpoints {
            let records: Vec<&Record> = checkpoint.records().collect();
            let at = random.pick(&records).range().start / PAGE as u64 * PAGE as u64;
            ranges.extend(damage_page(pages, random, at, &written, &mut affected));
        }
    }
    for _ in 0..1 + random.below(2) {
        let what = random.below(10);
        let any = *random.pick(&written);
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

/// Damages a page and returns the range that changed.
fn damage_page(
    pages: &mut Pages,
    random: &mut Random,
    at: u64,
    written: &[u64],
    affected: &mut Affected,
) -> Option<Range<u64>> {
    let what = random.below(5);
    let other = pages.page(*random.pick(written)).map(Arc::clone);
    let bit = random.below(8 * PAGE as u64) as usize;
    let sector = random.below((PAGE / SECTOR) as u64) as usize;
    let noise = random.number() as u8;
    let before = pages.page(at).map(Arc::clone)?;
    pages.change(at, |page: &mut Page| match what {
        0 | 1 => page[bit / 8] ^= 1 << (bit % 8),
        2 => page[sector * SECTOR..(sector + 1) * SECTOR].fill(0),
        3 => page[sector * SECTOR..(sector + 1) * SECTOR].fill(noise),
        // A misdirected write.
        _ => *page = other.map_or([0; PAGE], |other| *other),
    });
    let after = pages.page(at)?;
    let differs = |i: &usize| before[*i] != after[*i];
    let first = (0..PAGE).find(differs)?;
    let last = (0..PAGE).rev().find(differs)?;
    affected.what.push(format!("kind {what} at {at}, bytes {first} to {last}"));
    Some(at + first as u64..at + last as u64 + 1)
}
