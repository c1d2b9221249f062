//! Deciding about the tails: records that nothing proves to have been durable.
//!
//! Such a record was perhaps never acknowledged, and what it refers to may not be there: the device may have written the record
//! and lost the blocks, which no sync had separated. So the blocks of its bodies are verified, and what it names must exist. If
//! not, its batch was not acknowledged, for the sync that would have made it so did not complete: the segment is cut at the
//! beginning of the batch.

use std::collections::{BTreeMap, BTreeSet};

use super::base::Base;
use super::scan::{Found, Scan, Store, Suspect};
use crate::body::block_len;
use crate::disk::Disk;
use crate::error::{Damage, Error, UNREADABLE};
use crate::index::{Effect, Index, Location};
use crate::limits::{BUFFER_LEN, CHUNKS_MAX};
use crate::log::read_verified;
use crate::types::BodyId;
use crate::wire::block::Identity;
use crate::wire::payload::Run;
use crate::wire::superblock::Superblock;

/// Where segments are cut.
type Cuts = BTreeMap<u32, u64>;

/// Cuts the segments where they have to be; the result is every record that holds, in the order of the sequence numbers.
pub(super) async fn cut<D: Disk>(
    disk: &D,
    superblock: &Superblock,
    store: &mut Store,
    base: &Base,
) -> Result<Vec<Found>, Error> {
    let (mut cuts, mut unreadable) = (Cuts::new(), Vec::new());
    for scan in &store.scans {
        for record in &scan.records {
            if proven(store, scan, record) {
                continue;
            }
            let Some((id, len, runs)) = record.blocks() else { continue };
            if let Some(damage) = unsound(disk, superblock, id, len, runs).await? {
                // A torn write is no news, but a sector that cannot be read is.
                if damage.what == UNREADABLE {
                    unreadable.push((id, damage));
                }
                cuts.insert(scan.number, record.batch);
                break; // What follows in this segment goes with it.
            }
        }
    }
    let damaged = !store.damage.is_empty() || store.scans.iter().any(|scan| scan.damaged);
    let order = order(store);
    while !damaged && let Some((segment, batch)) = first_orphan(store, &order, &cuts, base) {
        let cut = cuts.entry(segment).or_insert(batch);
        *cut = batch.min(*cut);
    }
    let suspects =
        unreadable.into_iter().map(|(id, damage)| Suspect { damage, name: name_of(store, id), stored: None });
    let suspects: Vec<Suspect> = suspects.collect();
    store.suspects.extend(suspects);
    for scan in &mut store.scans {
        if let Some(&cut) = cuts.get(&scan.number) {
            scan.cut_at(cut);
        }
        let (watermark, until) = (store.watermark, scan.proven);
        for record in &mut scan.records {
            record.proven = (record.seq <= watermark && !record.moved) || record.at.offset() < until;
        }
    }
    let mut records: Vec<Found> = store.scans.iter_mut().flat_map(|scan| std::mem::take(&mut scan.records)).collect();
    records.sort_by_key(|record| (record.seq, record.placed()));
    Ok(records)
}

fn proven(store: &Store, scan: &Scan, record: &Found) -> bool {
    (record.seq <= store.watermark && !record.moved) || record.at.offset() < scan.proven
}

/// The bucket (by identity) and the key of the object that a record names with this body.
fn name_of(store: &Store, id: BodyId) -> Option<(u64, String)> {
    store.scans.iter().flat_map(|scan| &scan.records).find_map(|record| match &record.effect {
        Effect::Put(put) if put.bodies.as_slice().contains(&id) => Some((put.bucket, put.key.0.to_string())),
        _ => None,
    })
}

/// What is wrong with the first block of a body that does not verify.
async fn unsound<D: Disk>(
    disk: &D,
    superblock: &Superblock,
    body: BodyId,
    len: u64,
    runs: &[Run],
) -> Result<Option<Damage>, Error> {
    let mut buf = disk.buffer();
    let mut index = 0;
    for run in runs {
        for i in 0..run.blocks {
            let id = Identity {
                generation: run.generation,
                offset: run.offset + u64::from(i) * BUFFER_LEN as u64,
                body: body.0,
                index,
                data_len: block_len(len, index.into()) as u32,
            };
            let (result, back) = read_verified(disk, &superblock.store, &id, &(0..CHUNKS_MAX), buf).await;
            buf = back;
            match result {
                Ok(_) => {}
                Err(Error::Damaged(damage)) => return Ok(Some(*damage)),
                Err(error) => return Err(error),
            }
            index += 1;
        }
    }
    Ok(None)
}

/// Positions of all records, in the order of the sequence numbers.
fn order(store: &Store) -> Vec<(usize, usize)> {
    let scans = store.scans.iter().enumerate();
    let mut order: Vec<_> = scans.flat_map(|(s, scan)| (0..scan.records.len()).map(move |r| (s, r))).collect();
    order.sort_by_key(|&(s, r)| store.scans[s].records[r].seq);
    order
}

/// The first record that is not proven and refers to something that is not there: its segment and its batch.
fn first_orphan(store: &Store, order: &[(usize, usize)], cuts: &Cuts, base: &Base) -> Option<(u32, u64)> {
    let mut world = World { until: base.until, index: Some(&base.index), ..World::default() };
    for &(s, r) in order {
        let (scan, record) = (&store.scans[s], &store.scans[s].records[r]);
        if cuts.get(&scan.number).is_some_and(|&cut| record.at.offset() >= cut) {
            continue;
        }
        // What the cleaner has written again builds on nothing new: if it is out of date it has no effect.
        if !world.admits(record) && !record.moved && !proven(store, scan, record) {
            return Some((scan.number, record.batch));
        }
    }
    None
}

/// What exists at a point of the replay.
#[derive(Default)]
struct World<'a> {
    /// Buckets and uploads of lower numbers were there when the checkpoint was begun, or had gone.
    until: u64,
    /// What the checkpoint knows. Bodies are not told by `until`: they have their numbers long before they have records.
    index: Option<&'a Index>,
    buckets: BTreeSet<u64>,
    bodies: BTreeSet<u64>,
    uploads: BTreeSet<u64>,
}

impl World<'_> {
    /// Whether what a record refers to exists; if so, what it makes exists from now on.
    fn admits(&mut self, record: &Found) -> bool {
        let until = self.until;
        let there = |set: &BTreeSet<u64>, id: &u64| *id < until || set.contains(id);
        let known = |id| self.index.is_some_and(|index| index.body(id).is_some_and(|at| at != Location::LOST));
        let has_body = |bodies: &BTreeSet<u64>, id: BodyId| bodies.contains(&id.0) || known(id);
        match &record.effect {
            Effect::CreateBucket { .. } => {
                self.buckets.insert(record.seq);
                true
            }
            Effect::Body { id, .. } => {
                self.bodies.insert(id.0);
                true
            }
            Effect::Put(put) => {
                there(&self.buckets, &put.bucket)
                    && put.bodies.as_slice().iter().all(|&body| has_body(&self.bodies, body))
            }
            Effect::CreateUpload { bucket, .. } => {
                self.uploads.insert(record.seq);
                there(&self.buckets, bucket)
            }
            Effect::PutPart { upload, part, .. } => there(&self.uploads, upload) && has_body(&self.bodies, part.body),
            Effect::SetBucket { bucket, .. } => there(&self.buckets, bucket),
            // These take away, or say nothing: if what they take away is not there, all the better.
            Effect::DeleteBucket { .. }
            | Effect::Delete { .. }
            | Effect::AbortUpload { .. }
            | Effect::Moved(_)
            | Effect::Checkpoint
            | Effect::Nothing => true,
        }
    }
}

impl Scan {
    fn cut_at(&mut self, cut: u64) {
        if let Some(first) = self.records.iter().find(|record| record.at.offset() >= cut) {
            (self.at, self.prev) = (first.batch, first.batch_prev);
        }
        self.records.retain(|record| record.at.offset() < cut);
        (self.closed, self.marked, self.tail, self.blank) = (false, false, true, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_not_admitted() {
        use crate::index::{Bodies, Put};
        use crate::types::Etag;
        let at = Location::LOST;
        let record =
            |seq, effect| Found { seq, at, len: 0, proven: false, batch: 0, batch_prev: 0, effect, moved: false };
        let etag = Etag { digest: [0; 16], parts: 0 };
        let put = |bucket, body| {
            let bodies = Bodies::One(BodyId(body));
            let (key, upload) = ("k".into(), None);
            Effect::Put(Put { bucket, key, size: 0, time_ms: 0, etag, sealed: false, bodies, upload })
        };
        let mut world = World::default();
        assert!(!world.admits(&record(9, put(1, 2))));
        assert!(world.admits(&record(1, Effect::CreateBucket { name: "b".into(), time_ms: 0 })));
        assert!(!world.admits(&record(9, put(1, 2))));
        assert!(world.admits(&record(3, Effect::Body { id: BodyId(2), placed: 0, len: 0, runs: Vec::new() })));
        assert!(world.admits(&record(9, put(1, 2))));
        assert!(world.admits(&record(10, Effect::DeleteBucket { bucket: 77 })));

        // The checkpoint covers the bucket; the body's number was given out before the checkpoint, its record came later.
        let index = Index::replay(crate::limits::SEGMENT_LEN);
        let mut world = World { until: 5, index: Some(&index), ..World::default() };
        assert!(!world.admits(&record(9, put(1, 2))));
        assert!(world.admits(&record(8, Effect::Body { id: BodyId(2), placed: 0, len: 0, runs: Vec::new() })));
        assert!(world.admits(&record(9, put(1, 2))));
    }
}
