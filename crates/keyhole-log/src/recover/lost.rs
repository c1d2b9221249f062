//! Names of the objects whose records or blocks are lost.

use super::base::Base;
use super::replay::Newest;
use super::scan::Scanned;
use super::segment::Suspect;
use crate::error::Damage;
use crate::index::Index;
use crate::limits::{PAGE, SEGMENTS_START};
use crate::wire::superblock::Superblock;

/// Reports the objects of the checkpoint whose bytes are lost because the file was truncated.
pub(super) fn name_past_the_end(index: &Index, superblock: &Superblock, store: &Scanned, damaged: &mut Vec<Damage>) {
    let is_past = |offset: u64| offset > store.file_len;
    for (bucket, key, entry) in index.objects() {
        let record = entry.at.offset() + u64::from(entry.at.len());
        let block = entry.bodies.as_slice().iter().find_map(|id| {
            if store.bad_bodies.contains_key(id) {
                return None; // Already reported.
            }
            let shares = index.body_entry(*id)?.shares.as_slice().iter();
            // Their offsets within the segment are only in the body's record. The segment must at
            // least have room for them before the end of the file.
            let mut starts = shares.map(|share| {
                let start = SEGMENTS_START + u64::from(share.segment) * superblock.segment_len;
                (start, start + (u64::from(share.pages) + 1) * PAGE as u64)
            });
            starts.find(|&(_, end)| is_past(end)).map(|(start, _)| start)
        });
        let what = match (is_past(record), block) {
            (true, _) => Damage::new("an object with its record past the end of the file", entry.at.offset()),
            (false, Some(start)) => Damage::new("an object with a block past the end of the file", start),
            (false, None) => continue,
        };
        damaged.push(what.of(Some(bucket), Some(key)));
    }
}

/// Keeps the names of objects whose durable records cannot be read, so that they stay listed as
/// damaged until overwritten or deleted. An older object of the name is kept instead, since the
/// damage may be in the record's name.
pub(super) fn keep_lost(index: &mut Index, suspects: &[Suspect], newest: &Newest, base: &Base) {
    for Suspect { name, stored, .. } in suspects {
        let Some((name, seq)) = name.as_ref().zip(*stored) else { continue };
        let is_newest = newest.get(name).is_none_or(|newest| *newest < seq);
        if !base.covers(seq) && is_newest {
            index.add_lost(name.0, &name.1, seq);
        }
    }
}

/// Attributes damaged records to objects, as far as their names can still be read.
pub(super) fn name_suspects(index: &Index, suspects: Vec<Suspect>, damaged: &mut Vec<Damage>) {
    for Suspect { damage, name, .. } in suspects {
        damaged.push(match name {
            Some((bucket, key)) => damage.of(index.bucket_by_id(bucket).map(|bucket| bucket.name()), Some(&key)),
            None => damage,
        });
    }
}
