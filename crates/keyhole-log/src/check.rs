//! Offline verification and repair of a file (`keyhole check`).
//!
//! Verifies every live byte: what the index refers to, and what the next recovery would read. Every
//! other byte of the file is free. No key is needed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::join4;

use crate::disk::Disk;
use crate::error::{Damage, Error, UNREADABLE};
use crate::geometry::blocks;
use crate::index::{Index, Location, ObjectEntry};
use crate::limits::{CHUNKS_MAX, PAGE, SUPERBLOCK_AT};
use crate::log::worker;
use crate::read::read_verified;
use crate::recover::{OpenOptions, RecoverOptions, Recovered, Window, is_rebuilt, open, recover};
use crate::types::BodyId;
use crate::wire::block::stored_len;
use crate::wire::payload::{Bytes, ObjectPut, RecordPayload, Run};
use crate::wire::record;

/// Options of a check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// Repair what can be repaired. Otherwise nothing is written.
    pub repair: bool,
    /// As [`OpenOptions::nonce`], of the repair.
    pub nonce: u32,
}

/// Whether damage can be repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The contents are known from elsewhere and can be rewritten.
    Repairable,
    /// The contents are lost.
    Lost,
}

/// Damage, and whether it can be repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The damaged data and its owner.
    pub damage: Damage,
    /// Whether it can be repaired.
    pub verdict: Verdict,
}

/// Result of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Damage found, before any repair.
    pub findings: Vec<Finding>,
    /// Ranges of the file without live data.
    pub free: Vec<Range<u64>>,
    /// Tails: ranges after the ends of segments with records that were not acknowledged. The next
    /// recovery cuts them.
    pub tails: Vec<Range<u64>>,
    /// Number of buckets.
    pub buckets: u64,
    /// Number of objects.
    pub objects: u64,
    /// Number of uploads that are neither completed nor aborted.
    pub uploads: u64,
    /// Number of bodies, including those of parts.
    pub bodies: u64,
    /// Number of evicted versions.
    pub evicted: u64,
    /// Records verified.
    pub records: u64,
    /// Blocks verified.
    pub blocks: u64,
    /// Bytes verified.
    pub verified: u64,
    /// Findings repaired.
    pub repaired: u64,
}

/// Verifies everything in a file. The file must not be open elsewhere.
///
/// # Errors
/// Those of [`open`](crate::open()) if nothing can be verified: the file is foreign, has another
/// version, or both superblocks are damaged and no segment header is left to rebuild them from.
/// `Io`. With `repair` also those of every write.
pub async fn check<D: Disk>(disk: Rc<D>, options: CheckOptions) -> Result<CheckReport, Error> {
    let mut report = survey(disk.as_ref()).await?;
    if options.repair && !report.findings.is_empty() {
        let is_rebuilt = report.findings.iter().any(|finding| is_rebuilt(&finding.damage));
        match mend(disk.clone(), options.nonce).await {
            // The superblocks have been rewritten. Their capacity leaves no room for checkpoints;
            // the operator can set another.
            Err(Error::Full) if is_rebuilt => {}
            mended => mended?,
        }
        let after = survey(disk.as_ref()).await?;
        report.repaired = (report.findings.len() as u64).saturating_sub(after.findings.len() as u64);
        report.free = after.free;
        report.tails = after.tails;
    }
    Ok(report)
}

/// Recovery rewrites what is known from elsewhere; two new checkpoints replace the existing ones.
async fn mend<D: Disk>(disk: Rc<D>, nonce: u32) -> Result<(), Error> {
    let options = OpenOptions { rebuild: true, nonce, ..OpenOptions::default() };
    let (store, _) = open(disk.as_ref(), options).await?;
    let (log, writer) = worker(Arc::clone(&store), Rc::clone(&disk));
    let (maintenance, its_writer) = crate::maintenance(store, disk);
    let checkpoints = async move {
        let first = log.checkpoint().await;
        let second = log.checkpoint().await;
        drop(log);
        first.and(second)
    };
    let (result, ..) = join4(checkpoints, writer.run(), maintenance.run(), its_writer.run()).await;
    result
}

/// An item of the index at a location in the file.
enum Thing<'a> {
    Bucket(&'a str),
    Object(&'a str, &'a str, &'a ObjectEntry),
    Marker(&'a str, &'a str),
    Upload(&'a str, &'a str),
    Body(BodyId),
    /// The eviction of a version of a bucket.
    Eviction(&'a str, u64),
    Checkpoint,
}

/// A record to verify, and its expected sequence number, if known.
struct Wanted<'a> {
    at: Location,
    seq: Option<u64>,
    thing: Thing<'a>,
}

struct Survey<'a, D> {
    disk: &'a D,
    recovered: &'a Recovered,
    report: CheckReport,
    /// Live ranges, unordered.
    used: Vec<Range<u64>>,
    /// An owner of each body, once computed.
    owners: Option<BTreeMap<BodyId, (&'a str, &'a str)>>,
    /// The lengths of bodies according to their records.
    lengths: BTreeMap<BodyId, u64>,
    /// The lengths of bodies according to the objects that have them, with the objects' records.
    expected: Vec<(BodyId, u64, u64)>,
}

async fn survey<D: Disk>(disk: &D) -> Result<CheckReport, Error> {
    let mut recovered = recover(disk, RecoverOptions { rebuild: true, extents: true }).await?;
    let mut findings: Vec<Damage> = std::mem::take(&mut recovered.recovery.damaged);
    if recovered.recovery.mended {
        findings.push(Damage::mendable("a copy of the superblock", 0));
    }
    let report = CheckReport::default();
    let used = recovered.extents();
    let mut survey = Survey {
        disk,
        recovered: &recovered,
        report,
        used,
        owners: None,
        lengths: BTreeMap::new(),
        expected: Vec::new(),
    };
    survey.used.extend(SUPERBLOCK_AT.map(|at| at..at + PAGE as u64));
    let index = &recovered.index;
    survey.report.buckets = index.bucket_count();
    survey.report.objects = index.totals.objects;
    survey.report.uploads = index.totals.uploads;
    survey.report.bodies = index.body_count();
    survey.report.evicted = index.totals.evicted;
    for damage in findings {
        survey.note(damage);
    }
    survey.records().await?;
    survey.compare_lengths();
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
        // Recovery may already have reported the same damage.
        if !self.report.findings.contains(&finding) {
            self.report.findings.push(finding);
        }
    }

    /// Verifies every referenced record, and the blocks of every body.
    async fn records(&mut self) -> Result<(), Error> {
        let index = &self.recovered.index;
        let mut wanted = wanted(index);
        wanted.sort_by_key(|wanted| wanted.at.raw());
        let disk = self.disk;
        let len = disk.len().await?;
        let mut window: Option<(u32, Window<'_, D>)> = None;
        for wanted in wanted {
            // Recovery has reported a lost one. An evicted body has none.
            if !wanted.at.is_in_file() {
                continue;
            }
            let (number, end) = self.recovered.segment(wanted.at.offset());
            let window = match &mut window {
                Some((current, window)) if *current == number => window,
                other => &mut other.insert((number, Window::new(disk, len, end).direct())).1,
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
            let body = match (&wanted.thing, RecordPayload::parse(found.header.kind, found.payload)) {
                (Thing::Body(id), Some(RecordPayload::Body(body))) if body.id == *id => {
                    self.lengths.insert(*id, body.len);
                    match body.bytes {
                        Bytes::Blocks(runs) => Some((*id, runs)),
                        Bytes::Inline { .. } => None,
                    }
                }
                (Thing::Object(.., entry), Some(RecordPayload::ObjectPut(put))) => {
                    self.object(&wanted, entry, &put);
                    None
                }
                (Thing::Eviction(_, version), Some(RecordPayload::VersionEvicted { of, .. }))
                    if of.version == *version =>
                {
                    None
                }
                (Thing::Body(_) | Thing::Eviction(..), _) | (_, None) => {
                    let damage = Damage::new("a record with unexpected contents", wanted.at.offset());
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

    /// Verifies that the record of an object contradicts neither itself nor the index, and notes the
    /// lengths of its bodies.
    fn object(&mut self, wanted: &Wanted<'_>, entry: &ObjectEntry, put: &ObjectPut<'_>) {
        let other = (!entry.is_of(put)).then_some("an object that differs from the index");
        if let Some(what) = put.contradiction().or(other) {
            self.note_of(&wanted.thing, Damage::new(what, wanted.at.offset()));
        }
        self.expected.extend(put.parts.iter().map(|part| (part.body, part.size, wanted.at.offset())));
    }

    /// Verifies that bodies are as long as the objects that have them say. Bodies without a valid
    /// record have been reported.
    fn compare_lengths(&mut self) {
        for (body, size, record) in std::mem::take(&mut self.expected) {
            if self.lengths.get(&body).is_some_and(|len| *len != size) {
                self.note_of(&Thing::Body(body), Damage::new("a body that is not as long as its part", record));
            }
        }
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

    /// Adds a finding under the name of its owner.
    fn note_of(&mut self, thing: &Thing<'_>, damage: Damage) {
        let damage = match thing {
            Thing::Bucket(bucket) | Thing::Eviction(bucket, _) => damage.of(Some(bucket), None),
            Thing::Object(bucket, key, _) | Thing::Marker(bucket, key) | Thing::Upload(bucket, key) => {
                damage.of(Some(bucket), Some(key))
            }
            Thing::Body(id) => match self.owner(*id) {
                Some((bucket, key)) => damage.of(Some(bucket), Some(key)),
                None => damage,
            },
            Thing::Checkpoint => Damage::mendable("a checkpoint", damage.offset),
        };
        self.note(damage);
    }

    /// Returns one of the owners of a body.
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

/// Collects every record that the index refers to.
fn wanted(index: &Index) -> Vec<Wanted<'_>> {
    let mut wanted = Vec::new();
    for (seq, bucket, at, settings) in index.bucket_records() {
        wanted.push(Wanted { at, seq: Some(seq), thing: Thing::Bucket(bucket) });
        if let Some((seq, at)) = settings {
            wanted.push(Wanted { at, seq: Some(seq), thing: Thing::Bucket(bucket) });
        }
    }
    for (bucket, key, entry) in index.versions() {
        let thing = if entry.is_marker() { Thing::Marker(bucket, key) } else { Thing::Object(bucket, key, entry) };
        wanted.push(Wanted { at: entry.at, seq: Some(entry.seq), thing });
    }
    for (bucket, seq, at) in index.attribute_records() {
        wanted.push(Wanted { at, seq: Some(seq), thing: Thing::Bucket(bucket) });
    }
    for (bucket, version, entry) in index.evictions() {
        wanted.push(Wanted { at: entry.at, seq: Some(entry.seq), thing: Thing::Eviction(bucket, version) });
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
