//! Making an object file, and opening one, after whatever happened to it.
//!
//! Recovery reads the segments of records, never the data. Its rule: what is proven to have been durable is a fact, and if it
//! cannot be read it is *damage*, which is reported; what is not proven is an unacknowledged tail, which is whole or is *cut*.
//! Proof is in the records: each says how far everything was durable when it was written. See `FORMAT.md` for the procedure.

mod resume;
mod scan;
mod superblock;
mod tails;
mod window;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::disk::{Disk, is_full};
use crate::error::{Damage, Error};
use crate::index::{Effect, Index};
use crate::limits::{NUMBER_JUMP, SEGMENT_LEN_MAX, SEGMENT_LEN_MIN, SEGMENTS_MAX, SEGMENTS_START, WORKERS_MAX};
use crate::numbers::Numbers;
use crate::segments::Segments;
use crate::shared::{Shared, State, Sync};
use crate::types::BodyId;
use crate::wire::superblock::Superblock;

use scan::{Found, Scan};

/// What a new object file is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    /// Random identity. No two files may have the same.
    pub store_id: [u8; 16],
    /// Bytes that the file may have at most.
    pub capacity: u64,
    /// Length of a segment: a power of two between [`SEGMENT_LEN_MIN`] and [`SEGMENT_LEN_MAX`];
    /// [`SEGMENT_LEN`](crate::limits::SEGMENT_LEN) unless the medium is small.
    pub segment_len: u64,
    /// Now, in ms since 1970.
    pub created_ms: u64,
}

/// How to open an object file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenOptions {
    /// When a write is acknowledged.
    pub sync: Sync,
    /// Workers that there will be, 1 to [`WORKERS_MAX`].
    pub workers: usize,
    /// Another bound for the length of the file, kept from now on.
    pub capacity: Option<u64>,
    /// Drop the oldest objects when full.
    pub ring: bool,
}

/// What was found when the file was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Records that were read and hold.
    pub records: u64,
    /// Objects that there are.
    pub objects: u64,
    /// Uploads that are neither completed nor aborted.
    pub uploads: u64,
    /// Segments from which an unacknowledged tail was cut.
    pub cut: u64,
    /// A superblock copy was bad and has been written anew.
    pub mended: bool,
    /// What had been durable and cannot be read.
    pub damaged: Vec<Damage>,
}

/// Makes an object file. What was in the file is lost; the caller has seen to it that it may be.
///
/// # Errors
/// `Capacity`, `Full`, `Io`.
pub async fn create<D: Disk>(disk: &D, format: &Format) -> Result<(), Error> {
    check_segment_len(format.segment_len)?;
    check_capacity(format.capacity, format.segment_len, 1)?;
    disk.allocate(0, SEGMENTS_START).await.map_err(full_or_io)?;
    let Format { store_id: store, capacity, segment_len, created_ms } = *format;
    superblock::write_both(disk, &Superblock { store, epoch: 1, segment_len, capacity, created_ms }, 0).await
}

/// Opens an object file: reads what is there, cuts unacknowledged tails, and prepares to go on.
///
/// # Errors
/// `Foreign`, `UnsupportedVersion`; `Capacity` if workers and capacity do not go together, or the capacity is less than
/// what is in use; `Damaged` if both superblocks are; `Io`. Other damage is no error: it is in [`Recovery::damaged`].
pub async fn open<D: Disk>(disk: &D, options: OpenOptions) -> Result<(Arc<Shared>, Recovery), Error> {
    if options.workers == 0 || options.workers > WORKERS_MAX {
        return Err(Error::Capacity(format!("{} workers: between 1 and {WORKERS_MAX} are possible", options.workers)));
    }
    let (mut superblock, bad_copy) = superblock::read(disk).await?;
    check_segment_len(superblock.segment_len)
        .map_err(|_| Damage::error("a superblock with an impossible segment length", 0))?;
    let capacity = options.capacity.unwrap_or(superblock.capacity);
    check_capacity(capacity, superblock.segment_len, options.workers)?;

    let mut found = scan::scan(disk, &superblock).await?;
    let records = tails::cut(disk, &superblock, &mut found).await?;
    found.claim_segments_of_bodies(&records);
    let in_use = SEGMENTS_START + found.table.len() as u64 * superblock.segment_len;
    if capacity < in_use && options.capacity.is_some() {
        return Err(Error::Capacity(format!("the capacity cannot be {capacity} bytes: {in_use} are in use")));
    }
    let mut recovery =
        Recovery { mended: bad_copy.is_some(), damaged: std::mem::take(&mut found.damage), ..Recovery::default() };
    recovery.records = records.len() as u64;
    let index = replay(&records, &found.bad_bodies, &mut recovery.damaged);
    name_suspects(&index, std::mem::take(&mut found.suspects), &mut recovery.damaged);
    (recovery.objects, recovery.uploads) = (index.totals.objects, index.totals.uploads);
    recovery.cut = found.scans.iter().filter(|scan| scan.tail).count() as u64;

    if found.file_len < in_use {
        // It was cut short. What was in it is reported; what is written from now on needs the space.
        disk.allocate(found.file_len, in_use - found.file_len).await.map_err(full_or_io)?;
    }
    let first = found.highest.checked_add(NUMBER_JUMP);
    let first = first.ok_or_else(|| Damage::error("a store whose numbers are used up", 0))?;
    let ends = found.body_ends(&records, &superblock);
    let resumed =
        resume::resume(disk, &superblock, &found, &ends, options.workers, first, recovery.damaged.is_empty()).await?;
    if options.capacity.is_some_and(|capacity| capacity != superblock.capacity) {
        (superblock.capacity, superblock.epoch) = (capacity, superblock.epoch + 1);
        superblock::write_both(disk, &superblock, bad_copy.unwrap_or(0)).await?;
    } else if let Some(copy) = bad_copy {
        superblock::write(disk, &superblock, copy).await?;
    }

    let used = used(&found.scans, &ends, &superblock);
    let mut segments = Segments::new(superblock.segment_len, capacity, found.table, options.workers as u64);
    segments.without_meta -= resumed.slots.iter().filter(|slot| slot.meta.is_some()).count() as u64;
    let state = State {
        index,
        numbers: Numbers::new(resumed.next_number),
        segments,
        ends: resumed.slots.iter().map(crate::shared::Slot::end).collect(),
        slots: resumed.slots.into_iter(),
        used,
    };
    Ok((Arc::new(Shared::new(superblock.store, options.sync, state)), recovery))
}

/// Reads everything, and changes nothing. A stub of the check of another branch.
pub(crate) async fn survey<D: Disk>(disk: &D) -> Result<crate::Report, Error> {
    let (superblock, _) = superblock::read(disk).await?;
    let mut found = scan::scan(disk, &superblock).await?;
    let records = tails::cut(disk, &superblock, &mut found).await?;
    found.claim_segments_of_bodies(&records);
    let mut damaged = std::mem::take(&mut found.damage);
    let index = replay(&records, &found.bad_bodies, &mut damaged);
    name_suspects(&index, std::mem::take(&mut found.suspects), &mut damaged);
    let mut report =
        crate::Report { records: records.len() as u64, buckets: index.bucket_count(), ..Default::default() };
    (report.objects, report.uploads) = (index.totals.objects, index.totals.uploads);
    report.bodies = index.body_count();
    for (bucket, key, entry) in index.objects() {
        for id in entry.bodies.as_slice() {
            let body = records.iter().find(|record| matches!(&record.effect, Effect::Body { id: of, .. } if of == id));
            let Some((len, runs)) = body.and_then(|body| body.blocks.as_ref()) else { continue };
            report.verified += len;
            report.blocks += crate::body::block_count(*len);
            if !tails::whole(disk, &superblock, *id, *len, runs).await? {
                let at = runs.first().map_or(0, |run| run.offset);
                damaged.push(Damage::new("a block that does not verify", at).of(Some(bucket), Some(key)));
            }
        }
    }
    let finding = |damage| crate::Finding { damage, verdict: crate::Verdict::Lost };
    report.findings = damaged.into_iter().map(finding).collect();
    Ok(report)
}

fn full_or_io(error: std::io::Error) -> Error {
    if is_full(&error) { Error::Full } else { error.into() }
}

fn check_segment_len(len: u64) -> Result<(), Error> {
    if len.is_power_of_two() && (SEGMENT_LEN_MIN..=SEGMENT_LEN_MAX).contains(&len) {
        return Ok(());
    }
    Err(Error::Capacity(format!(
        "segments of {len} bytes: a power of two between {SEGMENT_LEN_MIN} and {SEGMENT_LEN_MAX} is possible"
    )))
}

/// Each worker needs a segment for records and one for blocks.
fn check_capacity(capacity: u64, segment_len: u64, workers: usize) -> Result<(), Error> {
    let (most, needed) = (Segments::most(segment_len, capacity), 2 * workers as u64);
    if most < needed {
        let least = SEGMENTS_START + needed * segment_len;
        return Err(Error::Capacity(format!(
            "a capacity of {capacity} bytes is too little for {workers} workers and segments of {segment_len} bytes: \
             at least {least} are needed"
        )));
    }
    if most > SEGMENTS_MAX {
        return Err(Error::Capacity(format!(
            "a capacity of {capacity} bytes has more than {SEGMENTS_MAX} segments of {segment_len} bytes: use longer ones"
        )));
    }
    Ok(())
}

/// Builds the index from records in the order of their sequence numbers.
fn replay(records: &[Found], bad_bodies: &BTreeMap<BodyId, Damage>, damaged: &mut Vec<Damage>) -> Index {
    let mut index = Index::replay();
    for record in records {
        if index.apply(record.seq, record.at, &record.effect).is_ok() {
            continue;
        }
        let (what, key) = match &record.effect {
            Effect::Put(put) => ("an object in a bucket whose record is lost", Some(&*put.key.0)),
            Effect::CreateUpload { key, .. } => ("an upload in a bucket whose record is lost", Some(&*key.0)),
            _ => ("a part of an upload whose record is lost", None),
        };
        damaged.push(Damage::new(what, record.at.offset).of(None, key));
    }
    index.replayed();
    for (bucket, key, entry) in index.objects() {
        for id in entry.bodies.as_slice() {
            let lost = || Damage::new("an object whose body's record is lost", entry.at.offset);
            let bad = bad_bodies.get(id).cloned().or_else(|| index.is_lost(*id).then(lost));
            damaged.extend(bad.map(|damage| damage.of(Some(bucket), Some(key))));
        }
    }
    index
}

/// Says of damaged records which object they may have been about, as far as it can still be read.
fn name_suspects(index: &Index, suspects: Vec<scan::Suspect>, damaged: &mut Vec<Damage>) {
    for scan::Suspect { damage, name } in suspects {
        damaged.push(match name {
            Some((bucket, key)) => damage.of(index.bucket_by_id(bucket).map(|bucket| bucket.name()), Some(&key)),
            None => damage,
        });
    }
}

fn used(scans: &[Scan], body_ends: &BTreeMap<u32, u64>, superblock: &Superblock) -> u64 {
    let start = |number: u32| SEGMENTS_START + u64::from(number) * superblock.segment_len + crate::limits::PAGE as u64;
    let meta: u64 = scans.iter().map(|scan| scan.at.saturating_sub(start(scan.number))).sum();
    let body: u64 = body_ends.iter().map(|(&number, &end)| end.saturating_sub(start(number))).sum();
    meta + body
}
