//! Making an object file, and opening one, after whatever happened to it.
//!
//! Recovery reads the segments of records, never the data. Its rule: what is proven to have been durable is a fact, and if it
//! cannot be read it is *damage*, which is reported; what is not proven is an unacknowledged tail, which is whole or is *cut*.
//! Proof is in the records: each says how far everything was durable when it was written. See `FORMAT.md` for the procedure.

mod base;
mod resume;
mod scan;
mod superblock;
mod tails;
mod window;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use crate::disk::{Disk, is_full};
use crate::error::{Damage, Error};
use crate::index::{Effect, Index};
use crate::limits::{
    CAPACITY_MAX, NUMBER_JUMP, PAGE, SEGMENT_LEN_MAX, SEGMENT_LEN_MIN, SEGMENTS_MAX, SEGMENTS_START, WORKERS_MAX,
    capacity_min,
};
use crate::numbers::Numbers;
use crate::segments::Segments;
use crate::shared::{MaintenanceState, Shared, Slot, State, Sync};
use crate::types::BodyId;
use crate::wire::superblock::{Superblock, VERSION};

use base::Base;
use scan::{Found, Store};
pub(crate) use window::Window;

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
    /// Workers that there will be at most, 1 to [`WORKERS_MAX`]: a small capacity may have room for less of them, which
    /// [`Shared::workers`] tells.
    pub workers: usize,
    /// Another bound for the length of the file, kept from now on.
    pub capacity: Option<u64>,
    /// Whether the oldest objects are dropped when there is no other way to make room.
    pub ring: bool,
    /// Whether to go on without any checkpoint, if none can be read: everything in the file is replayed, and objects that were
    /// deleted long ago may come back. `keyhole check --repair` does it.
    pub rebuild: bool,
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
    /// The version of the format that the file had, if opening it has made it one of the present version.
    pub upgraded_from: Option<u32>,
    /// What had been durable and cannot be read.
    pub damaged: Vec<Damage>,
}

/// Makes an object file. What was in the file is lost; the caller has seen to it that it may be.
///
/// # Errors
/// `Capacity`, `Full`, `Io`.
pub async fn create<D: Disk>(disk: &D, format: &Format) -> Result<(), Error> {
    check_segment_len(format.segment_len)?;
    check_capacity(format.capacity, format.segment_len)?;
    check_capacity_min(format.capacity, format.segment_len)?;
    disk.allocate(0, SEGMENTS_START).await.map_err(full_or_io)?;
    let Format { store_id: store, capacity, segment_len, created_ms } = *format;
    let checkpoints = [0; 2];
    let (version, epoch) = (VERSION, 1);
    let superblock = Superblock { version, store, epoch, segment_len, capacity, created_ms, checkpoints };
    superblock::write_both(disk, &superblock, 0).await
}

/// What is in an object file, before anything is written.
pub(crate) struct Recovered {
    pub(crate) superblock: Superblock,
    /// The copy of the superblock that is bad or old.
    bad_copy: Option<usize>,
    pub(crate) index: Index,
    store: Store,
    pub(crate) recovery: Recovery,
    /// Where the records are that were replayed, and those of a checkpoint that do not verify.
    replayed: Vec<(u64, u32)>,
}

impl Recovered {
    /// Ranges of the file that opening it looks at, but for the superblocks: headers of segments, and the records that were
    /// replayed.
    pub(crate) fn extents(&self) -> Vec<Range<u64>> {
        let len = self.superblock.segment_len;
        let in_use = self.store.table.iter().zip(0u64..).filter(|(segment, _)| segment.in_use());
        let headers = in_use.map(|(_, number)| SEGMENTS_START + number * len);
        let headers = headers.map(|start| start..start + PAGE as u64);
        headers.chain(self.replayed.iter().map(|&(at, len)| at..at + u64::from(len))).collect()
    }

    /// Ranges in which records were cut.
    pub(crate) fn tails(&self) -> Vec<Range<u64>> {
        self.store.scans.iter().filter(|scan| scan.tail).map(|scan| scan.at..scan.end).collect()
    }

    /// The segment that an offset is in, and where it ends.
    pub(crate) fn segment(&self, offset: u64) -> (u32, u64) {
        let number = offset.saturating_sub(SEGMENTS_START) / self.superblock.segment_len;
        (number as u32, SEGMENTS_START + (number + 1) * self.superblock.segment_len)
    }

    pub(crate) fn generation(&self, number: u32) -> Option<u64> {
        self.store.table.get(number as usize).filter(|segment| segment.in_use()).map(|segment| segment.generation)
    }
}

/// Reads what is there, and writes nothing. `rebuild`: where no checkpoint can be read, all records are replayed, as if there
/// had never been one; objects that were deleted long ago may come back.
pub(crate) async fn recover<D: Disk>(disk: &D, rebuild: bool) -> Result<Recovered, Error> {
    let (superblock, bad_copy) = superblock::read(disk).await?;
    check_segment_len(superblock.segment_len)
        .map_err(|_| Damage::error("a superblock with an impossible segment length", 0))?;
    let headers = scan::headers(disk, &superblock).await?;
    let mut damaged = Vec::new();
    let mut base = base::load(disk, &superblock, &headers, rebuild, &mut damaged).await?;
    let mut store = scan::scan(disk, &superblock, &headers, &base).await?;
    let records = tails::cut(disk, &superblock, &mut store, &base).await?;
    store.claim_segments_of_bodies(&records);
    store.body_ends(&records, &base);
    damaged.append(&mut store.damage);
    let index = replay(&mut base, &records, &store.bad_bodies, &mut damaged);
    // A checkpoint that was found damaged is not found once more among the records.
    store.suspects.retain(|suspect| base.bad.iter().all(|bad| bad.offset() != suspect.damage.offset));
    name_suspects(&index, std::mem::take(&mut store.suspects), &mut damaged);
    let recovery = Recovery {
        records: records.len() as u64,
        objects: index.totals.objects,
        uploads: index.totals.uploads,
        cut: store.scans.iter().filter(|scan| scan.tail).count() as u64,
        mended: bad_copy.is_some(),
        upgraded_from: Some(superblock.version).filter(|version| *version != VERSION),
        damaged,
    };
    let records = records.iter().map(|record| (record.at.offset(), record.len));
    let replayed = records.chain(base.bad.iter().map(|at| (at.offset(), at.len()))).collect();
    Ok(Recovered { superblock, bad_copy, index, store, recovery, replayed })
}

/// Opens an object file: reads what is there, cuts unacknowledged tails, and prepares to go on.
///
/// # Errors
/// `Foreign`, `UnsupportedVersion`; `Capacity` for no workers or too many, or if a new capacity is too little, or less than what
/// is in use; `Damaged` if both superblocks are, or both checkpoints; `Io`. Other damage is no error: it is in
/// [`Recovery::damaged`].
pub async fn open<D: Disk>(disk: &D, options: OpenOptions) -> Result<(Arc<Shared>, Recovery), Error> {
    if options.workers == 0 || options.workers > WORKERS_MAX {
        return Err(Error::Capacity(format!("{} workers: between 1 and {WORKERS_MAX} are possible", options.workers)));
    }
    let recovered = recover(disk, options.rebuild).await?;
    let Recovered { mut superblock, bad_copy, index, store: mut found, recovery, .. } = recovered;
    let capacity = options.capacity.unwrap_or(superblock.capacity);
    check_capacity(capacity, superblock.segment_len)?;
    // What is in a file that was made smaller, by an earlier release, is not to be kept from its owner.
    if capacity != superblock.capacity {
        check_capacity_min(capacity, superblock.segment_len)?;
    }
    let workers = options.workers.min(Segments::workers_max(superblock.segment_len, capacity));
    let in_use = SEGMENTS_START + found.table.len() as u64 * superblock.segment_len;
    if capacity < in_use && options.capacity.is_some() {
        return Err(Error::Capacity(format!("the capacity cannot be {capacity} bytes: {in_use} are in use")));
    }
    if found.file_len < in_use {
        // It was cut short. What was in it is reported; what is written from now on needs the space.
        disk.allocate(found.file_len, in_use - found.file_len).await.map_err(full_or_io)?;
    } else {
        let segments = (found.file_len - SEGMENTS_START).div_ceil(superblock.segment_len);
        let whole = SEGMENTS_START + segments * superblock.segment_len;
        // The last one was half allocated when the power went. If it is used like that and the power goes once more, it looks as
        // if the file had been cut short. Where there is no space it stays as it is.
        if whole > found.file_len && whole <= capacity {
            let grown = disk.allocate(found.file_len, whole - found.file_len).await;
            grown.or_else(|error| if is_full(&error) { Ok(()) } else { Err(error) })?;
        }
    }
    let first = found.highest.checked_add(NUMBER_JUMP);
    let first = first.ok_or_else(|| Damage::error("a store whose numbers are used up", 0))?;
    let (writers, sound) = (workers + 1, recovery.damaged.is_empty());
    let resumed = resume::resume(disk, &superblock, &mut found, writers, first, sound).await?;
    let is_older = superblock.version != VERSION;
    if is_older || options.capacity.is_some_and(|capacity| capacity != superblock.capacity) {
        // From here on records may be written that an older version does not know: it has to refuse the file.
        (superblock.version, superblock.capacity, superblock.epoch) = (VERSION, capacity, superblock.epoch + 1);
        superblock::write_both(disk, &superblock, bad_copy.unwrap_or(0)).await?;
    } else if let Some(copy) = bad_copy {
        superblock::write(disk, &superblock, copy).await?;
    }
    let options = OpenOptions { workers, ..options };
    let state = state(index, superblock, found, resumed, &options, &recovery);
    Ok((Arc::new(Shared::new(state.superblock.store, options.sync, state)), recovery))
}

/// Puts together what the workers share.
fn state(
    index: Index,
    superblock: Superblock,
    found: Store,
    resumed: resume::Resumed,
    options: &OpenOptions,
    recovery: &Recovery,
) -> State {
    let checkpoint_len =
        index.checkpoints.first().map_or(0, |newest| newest.records.iter().map(|at| u64::from(at.len())).sum());
    let mut segments = Segments::new(superblock.segment_len, superblock.capacity, found.table, options.workers as u64);
    segments.set_checkpoint_len(checkpoint_len);
    let mut slots: VecDeque<Slot> = resumed.slots.into();
    let ends = slots.iter().map(Slot::end).collect();
    let slot = slots.pop_back();
    segments.without_meta -= slots.iter().filter(|slot| slot.meta.is_some()).count() as u64;
    let maintenance = MaintenanceState {
        slot,
        checkpoint_len,
        ring: options.ring,
        // Only whether there are any: what was replayed need not be replayed again if there is a checkpoint at the end.
        since_checkpoint: recovery.records,
        ..MaintenanceState::default()
    };
    let (numbers, counters) = (Numbers::new(resumed.next_number), Default::default());
    State { index, numbers, segments, ends, slots, superblock, counters, maintenance }
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

/// A file needs a segment for records and one for blocks.
fn check_capacity(capacity: u64, segment_len: u64) -> Result<(), Error> {
    let most = Segments::most(segment_len, capacity);
    if capacity > CAPACITY_MAX {
        return Err(Error::Capacity(format!(
            "a capacity of {capacity} bytes is more than a file can have: {CAPACITY_MAX} are possible"
        )));
    }
    if most < 2 {
        return Err(too_little(capacity, segment_len));
    }
    if most > SEGMENTS_MAX {
        return Err(Error::Capacity(format!(
            "a capacity of {capacity} bytes has more than {SEGMENTS_MAX} segments of {segment_len} bytes: use longer ones"
        )));
    }
    Ok(())
}

/// One worker must be able to delete everything, and then to fill the file once more.
fn check_capacity_min(capacity: u64, segment_len: u64) -> Result<(), Error> {
    if capacity < capacity_min(segment_len, 1) { Err(too_little(capacity, segment_len)) } else { Ok(()) }
}

fn too_little(capacity: u64, segment_len: u64) -> Error {
    let least = capacity_min(segment_len, 1);
    Error::Capacity(format!(
        "a capacity of {capacity} bytes is too little for segments of {segment_len} bytes: at least {least} are needed"
    ))
}

/// Builds the index from the checkpoint, and from records in the order of their sequence numbers.
fn replay(
    base: &mut Base,
    records: &[Found],
    bad_bodies: &BTreeMap<BodyId, Damage>,
    damaged: &mut Vec<Damage>,
) -> Index {
    let mut index = std::mem::take(&mut base.index);
    for record in records {
        if base.covers(record.seq) {
            // Written again since, or out of date.
            index.relocate(record.seq, record.at, &record.effect);
            continue;
        }
        if index.apply(record.seq, record.at, &record.effect).is_ok() {
            continue;
        }
        let (of, what, key) = match &record.effect {
            Effect::Put(put) => (put.bucket, "an object in a bucket whose record is lost", Some(&*put.key.0)),
            Effect::CreateUpload { bucket, key, .. } => {
                (*bucket, "an upload in a bucket whose record is lost", Some(&*key.0))
            }
            Effect::SetBucket { bucket, .. } => (*bucket, "the settings of a bucket whose record is lost", None),
            Effect::PutPart { bucket, upload, .. } => {
                let of = if index.bucket_by_id(*bucket).is_some() { upload } else { bucket };
                (*of, "a part of an upload whose record is lost", None)
            }
            _ => (u64::MAX, "a record that makes no sense", None),
        };
        // What was there before the checkpoint, and is not in it, had gone when it was written.
        if of >= base.until {
            damaged.push(Damage::new(what, record.at.offset()).of(None, key));
        }
    }
    index.replayed();
    for (bucket, key, entry) in index.objects() {
        for id in entry.bodies.as_slice() {
            let lost = || Damage::new("an object whose body's record is lost", entry.at.offset());
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
