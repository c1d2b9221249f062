//! `keyhole check`: verifies a file that nobody has open, byte by byte of what is of use, and mends what can be mended.
//!
//! No key is needed. What is of use is what the index refers to, and what the next opening would read: every byte of the file
//! is either that, or free.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::join4;

use crate::body::blocks;
use crate::disk::Disk;
use crate::error::{Damage, Error, UNREADABLE};
use crate::index::{Index, Location};
use crate::limits::{CHUNKS_MAX, PAGE, SUPERBLOCK_AT};
use crate::log::{read_verified, worker};
use crate::recover::{OpenOptions, RecoverOptions, Recovered, Window, is_rebuilt, open, recover};
use crate::shared::Sync;
use crate::types::BodyId;
use crate::wire::block::stored_len;
use crate::wire::payload::{Bytes, Payload, Run};
use crate::wire::record;

/// How to check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// Mend what can be mended. Without it nothing is written.
    pub repair: bool,
}

/// What can be done about damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// What it says is known from elsewhere: it can be written anew.
    Repairable,
    /// It cannot.
    Lost,
}

/// Something damaged, and what can be done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is, and whose.
    pub damage: Damage,
    /// What can be done.
    pub verdict: Verdict,
}

/// What a check has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// What does not verify, before anything was mended.
    pub findings: Vec<Finding>,
    /// Ranges of the file that nothing is in that is of use.
    pub free: Vec<Range<u64>>,
    /// Ranges of the file behind the ends of segments in which records stand that were not acknowledged: the next opening cuts
    /// them.
    pub tails: Vec<Range<u64>>,
    /// Buckets.
    pub buckets: u64,
    /// Objects.
    pub objects: u64,
    /// Uploads that are neither completed nor aborted.
    pub uploads: u64,
    /// Bodies, those of parts included.
    pub bodies: u64,
    /// Records that were verified.
    pub records: u64,
    /// Blocks that were verified.
    pub blocks: u64,
    /// Bytes that were verified.
    pub verified: u64,
    /// Findings that were mended.
    pub repaired: u64,
}

/// Verifies everything in a file that nobody has open.
///
/// # Errors
/// As [`open`](crate::open()) where there is nothing to be verified: the file is none of ours, of another version, or both
/// superblocks are damaged and no header of a segment is there to rebuild them from. `Io`. With `repair` also those of every write.
pub async fn check<D: Disk>(disk: Rc<D>, options: CheckOptions) -> Result<Report, Error> {
    let mut report = survey(disk.as_ref()).await?;
    if options.repair && !report.findings.is_empty() {
        let is_rebuilt = report.findings.iter().any(|finding| is_rebuilt(&finding.damage));
        match mend(disk.clone()).await {
            // The superblocks have been written; the capacity they say has no room for checkpoints, and the operator can set another.
            Err(Error::Full) if is_rebuilt => {}
            mended => mended?,
        }
        let after = survey(disk.as_ref()).await?;
        report.repaired = (report.findings.len() as u64).saturating_sub(after.findings.len() as u64);
        (report.free, report.tails) = (after.free, after.tails);
    }
    Ok(report)
}

/// Opening writes anew what is known from elsewhere; two checkpoints take the place of those that there are.
async fn mend<D: Disk>(disk: Rc<D>) -> Result<(), Error> {
    let options =
        OpenOptions { sync: Sync::Always, workers: 1, capacity: None, ring: false, rebuild: true, read_only: None };
    let (shared, _) = open(disk.as_ref(), options).await?;
    let (log, writer) = worker(Arc::clone(&shared), Rc::clone(&disk));
    let (maintenance, its_writer) = crate::maintenance(shared, disk);
    let checkpoints = async move {
        let first = log.checkpoint().await;
        let second = log.checkpoint().await;
        drop(log);
        first.and(second)
    };
    let (result, ..) = join4(checkpoints, writer.run(), maintenance.run(), its_writer.run()).await;
    result
}

/// What the index refers to at a place in the file.
enum Thing<'a> {
    Bucket(&'a str),
    Object(&'a str, &'a str),
    Upload(&'a str, &'a str),
    Body(BodyId),
    Checkpoint,
}

/// A record that is to be verified, and the sequence number that it must have, if known.
struct Wanted<'a> {
    at: Location,
    seq: Option<u64>,
    thing: Thing<'a>,
}

struct Survey<'a, D> {
    disk: &'a D,
    recovered: &'a Recovered,
    report: Report,
    /// What is of use, in no order.
    used: Vec<Range<u64>>,
    /// Who refers to each body, once that was asked for.
    owners: Option<BTreeMap<BodyId, (&'a str, &'a str)>>,
}

async fn survey<D: Disk>(disk: &D) -> Result<Report, Error> {
    let mut recovered = recover(disk, RecoverOptions { rebuild: true, extents: true }).await?;
    let mut findings: Vec<Damage> = std::mem::take(&mut recovered.recovery.damaged);
    if recovered.recovery.mended {
        findings.push(Damage::mendable("a copy of the superblock", 0));
    }
    let (report, used) = (Report::default(), recovered.extents());
    let mut survey = Survey { disk, recovered: &recovered, report, used, owners: None };
    survey.used.extend(SUPERBLOCK_AT.map(|at| at..at + PAGE as u64));
    let index = &recovered.index;
    survey.report.buckets = index.bucket_count();
    survey.report.objects = index.totals.objects;
    survey.report.uploads = index.totals.uploads;
    survey.report.bodies = index.body_count();
    for damage in findings {
        survey.note(damage);
    }
    survey.records().await?;
    let Survey { mut report, mut used, .. } = survey;
    report.tails = recovered.tails();
    let len = disk.len().await?;
    used.sort_by_key(|range| range.start);
    let mut end = 0;
    for range in used.into_iter().chain(std::iter::once(len..len)) {
        if range.start > end {
            report.free.push(end..range.start);
        }
        end = end.max(range.end);
    }
    Ok(report)
}

impl<'a, D: Disk> Survey<'a, D> {
    fn note(&mut self, damage: Damage) {
        let verdict = if damage.repairable { Verdict::Repairable } else { Verdict::Lost };
        let finding = Finding { damage, verdict };
        // The same may have been seen at the opening, and again.
        if !self.report.findings.contains(&finding) {
            self.report.findings.push(finding);
        }
    }

    /// Verifies every record that is referred to, and the blocks of every body.
    async fn records(&mut self) -> Result<(), Error> {
        let index = &self.recovered.index;
        let mut wanted = wanted(index);
        wanted.sort_by_key(|wanted| wanted.at.raw());
        let disk = self.disk;
        let len = disk.len().await?;
        let mut window: Option<(u32, Window<'_, D>)> = None;
        for wanted in wanted {
            if wanted.at == Location::LOST {
                continue; // Reported by the opening.
            }
            let (number, end) = self.recovered.segment(wanted.at.offset());
            let window = match &mut window {
                Some((current, window)) if *current == number => window,
                other => &mut other.insert((number, Window::new(disk, len, end))).1,
            };
            let bytes = window.bytes(wanted.at.offset(), wanted.at.len() as usize).await?;
            let generation = self.recovered.generation(number);
            let found = record::verify(bytes, &self.recovered.superblock.store, wanted.at.offset())
                .filter(|record| Location::new(wanted.at.offset(), record.len) == wanted.at)
                .filter(|record| Some(record.header.generation) == generation)
                .filter(|record| wanted.seq.is_none_or(|seq| record.header.seq == seq));
            let Some(found) = found else {
                self.used.push(wanted.at.offset()..wanted.at.offset() + u64::from(wanted.at.len()));
                let until = wanted.at.offset() + u64::from(wanted.at.len());
                let what = match window.unreadable(wanted.at.offset()..until) {
                    Some(_) => UNREADABLE,
                    None => "a record that does not verify",
                };
                self.note_of(&wanted.thing, Damage::new(what, wanted.at.offset()));
                continue;
            };
            self.report.records += 1;
            self.report.verified += u64::from(found.len);
            self.used.push(wanted.at.offset()..wanted.at.offset() + u64::from(found.len));
            let body = match (&wanted.thing, Payload::parse(found.header.kind, found.payload)) {
                (Thing::Body(id), Some(Payload::Body(body))) if body.id == *id => match body.bytes {
                    Bytes::Blocks(runs) => Some((*id, runs)),
                    Bytes::Inline { .. } => None,
                },
                (Thing::Body(_), _) | (_, None) => {
                    let damage = Damage::new("a record that is not the one it should be", wanted.at.offset());
                    self.note_of(&wanted.thing, damage);
                    continue;
                }
                _ => None,
            };
            if let Some((id, runs)) = body {
                self.blocks(id, &runs).await?;
            }
        }
        Ok(())
    }

    async fn blocks(&mut self, body: BodyId, runs: &[Run]) -> Result<(), Error> {
        let mut buf = self.disk.buffer();
        for id in blocks(body, runs) {
            let store = &self.recovered.superblock.store;
            let (result, back) = read_verified(self.disk, store, &id, &(0..CHUNKS_MAX), buf).await;
            buf = back;
            let stored = stored_len(id.data_len as usize) as u64;
            self.used.push(id.offset..id.offset + stored);
            match result {
                Ok(_) => {
                    self.report.blocks += 1;
                    self.report.verified += stored;
                }
                Err(Error::Damaged(damage)) => self.note_of(&Thing::Body(body), *damage),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Notes damage under the name that it belongs to.
    fn note_of(&mut self, thing: &Thing<'_>, damage: Damage) {
        let damage = match thing {
            Thing::Bucket(bucket) => damage.of(Some(bucket), None),
            Thing::Object(bucket, key) | Thing::Upload(bucket, key) => damage.of(Some(bucket), Some(key)),
            Thing::Body(id) => match self.owner(*id) {
                Some((bucket, key)) => damage.of(Some(bucket), Some(key)),
                None => damage,
            },
            Thing::Checkpoint => Damage::mendable("a checkpoint", damage.offset),
        };
        self.note(damage);
    }

    /// One of those who refer to a body.
    fn owner(&mut self, id: BodyId) -> Option<(&'a str, &'a str)> {
        let index = &self.recovered.index;
        let owners = self.owners.get_or_insert_with(|| {
            let objects = index.objects().flat_map(|(bucket, key, entry)| {
                entry.bodies.as_slice().iter().map(move |&body| (body, (bucket, key)))
            });
            objects.chain(index.parts().map(|(bucket, key, _, part)| (part.part.body, (bucket, key)))).collect()
        });
        owners.get(&id).copied()
    }
}

/// Everything that the index refers to.
fn wanted(index: &Index) -> Vec<Wanted<'_>> {
    let mut wanted = Vec::new();
    for (seq, bucket, at, settings) in index.bucket_records() {
        wanted.push(Wanted { at, seq: Some(seq), thing: Thing::Bucket(bucket) });
        if let Some((seq, at)) = settings {
            wanted.push(Wanted { at, seq: Some(seq), thing: Thing::Bucket(bucket) });
        }
    }
    for (bucket, key, entry) in index.objects() {
        wanted.push(Wanted { at: entry.at, seq: Some(entry.seq), thing: Thing::Object(bucket, key) });
    }
    for (bucket, seq, upload) in index.uploads() {
        wanted.push(Wanted { at: upload.at, seq: Some(seq), thing: Thing::Upload(bucket, upload.key()) });
    }
    for (bucket, key, at, part) in index.parts() {
        wanted.push(Wanted { at, seq: Some(part.seq), thing: Thing::Upload(bucket, key) });
    }
    for (id, body) in index.bodies_from(BodyId(0)) {
        wanted.push(Wanted { at: body.at, seq: None, thing: Thing::Body(id) });
    }
    let checkpoints = index.checkpoints.iter().flat_map(|checkpoint| &checkpoint.records);
    wanted.extend(checkpoints.map(|&at| Wanted { at, seq: None, thing: Thing::Checkpoint }));
    wanted
}
