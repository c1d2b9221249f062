//! Creation and crash recovery of an object file.
//!
//! Recovery reads META segments, never the data. Records proven durable are facts: if one cannot be
//! read, it is *damage* and is reported. The rest is an unacknowledged tail, which is kept whole or
//! *cut*. The proof is in the records: each states how much was durable when it was written.
//! `FORMAT.md` specifies the procedure.

mod again;
mod base;
mod capacity;
mod estimate;
mod lost;
mod rebuild;
mod replay;
mod resume;
mod scan;
mod segment;
mod segment_reader;
mod superblock;
mod tails;
mod window;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

pub use estimate::estimate_index;
pub(crate) use rebuild::is_rebuilt;
pub(crate) use window::Window;

use crate::disk::{Disk, is_full};
use crate::error::{Damage, Error};
use crate::index::{Index, IndexLimits};
use crate::limits::{
    CHECKPOINTS_KEPT, NUMBER_JUMP, NUMBER_NONCE_STEP, PAGE, SEGMENTS_START, SUPERBLOCK_AT, WORKERS_MAX,
};
use crate::numbers::Numbers;
use crate::open::Slot;
use crate::segments::Segments;
use crate::state::{MaintenanceState, State};
use crate::store::{Durability, Store};
use crate::wire::superblock::{Superblock, VERSION_PLAIN};
use capacity::{check_capacity, check_capacity_min, check_segment_len, take_space};
use lost::{keep_lost, name_past_the_end, name_suspects};
use scan::Scanned;

/// Parameters of a new object file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    /// Random identity, unique to this file.
    pub store_id: [u8; 16],
    /// Maximum length of the file in bytes.
    pub capacity: u64,
    /// Segment length: a power of two between
    /// [`SEGMENT_LEN_MIN`](crate::limits::SEGMENT_LEN_MIN) and
    /// [`SEGMENT_LEN_MAX`](crate::limits::SEGMENT_LEN_MAX);
    /// [`SEGMENT_LEN`](crate::limits::SEGMENT_LEN) unless the medium is small.
    pub segment_len: u64,
    /// Current time, in ms since 1970.
    pub created_ms: u64,
}

/// Options for opening an object file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenOptions {
    /// The point at which a write is acknowledged.
    pub durability: Durability,
    /// Maximum number of workers, 1 to [`WORKERS_MAX`]. A small capacity may allow fewer: see
    /// [`Store::workers`].
    pub workers: usize,
    /// New capacity in bytes, stored in the superblock. `None`: keep the current one.
    pub capacity: Option<u64>,
    /// Ring mode: drop the oldest objects when there is no other way to make room.
    pub ring: bool,
    /// Limits of the index, beyond which new names are refused.
    pub index_limits: IndexLimits,
    /// A random number, which differs at each opening: the numbers of two openings that find the same
    /// records then differ. Only tests that need the same numbers each time use 0.
    pub nonce: u32,
    /// Whether to recover without a checkpoint if none can be read: everything in the file is
    /// replayed, and objects deleted long ago may reappear. If both superblocks are lost, they are
    /// rebuilt as well. Used by `keyhole check --repair`.
    pub rebuild: bool,
    /// Opens the log read-only, for this reason. Nothing is written, during recovery or later, and
    /// every write is refused with the reason. Tails are cut in memory only.
    pub read_only: Option<Arc<str>>,
}

impl Default for OpenOptions {
    /// Durable writes of one worker, with the current capacity, and a nonce of 0.
    fn default() -> Self {
        OpenOptions {
            durability: Durability::Always,
            workers: 1,
            capacity: None,
            ring: false,
            index_limits: IndexLimits::default(),
            nonce: 0,
            rebuild: false,
            read_only: None,
        }
    }
}

/// Result of a recovery.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Valid records read.
    pub records: u64,
    /// Number of objects.
    pub objects: u64,
    /// Number of uploads that are neither completed nor aborted.
    pub uploads: u64,
    /// Segments from which an unacknowledged tail was cut.
    pub cut: u64,
    /// Whether a bad superblock copy was rewritten.
    pub mended: bool,
    /// The previous format version, if opening has upgraded the file.
    pub upgraded_from: Option<u32>,
    /// The reason if the log is read-only: by request, or because a write during recovery failed.
    pub read_only: Option<Arc<str>>,
    /// Data that was durable and cannot be read.
    pub damaged: Vec<Damage>,
}

/// Creates an object file. Destroys the contents of the file; the caller has
/// checked that this is permitted.
///
/// # Errors
/// `Capacity`, `Full`, `Io`.
pub async fn create<D: Disk>(disk: &D, format: &Format) -> Result<(), Error> {
    check_segment_len(format.segment_len)?;
    check_capacity(format.capacity, format.segment_len)?;
    check_capacity_min(format.capacity, format.segment_len)?;
    disk.allocate(0, SEGMENTS_START).await.map_err(full_or_io)?;
    // Where allocation guarantees nothing, writing zeros secures the space of the superblocks.
    let mut zeros = disk.buffer();
    let start = 0..SEGMENTS_START as usize;
    D::slice(&mut zeros, start.clone()).fill(0);
    disk.write(0, zeros, start).await.0.map_err(full_or_io)?;
    let Format { store_id: store, capacity, segment_len, created_ms } = *format;
    let checkpoints = [0; 2];
    let version = VERSION_PLAIN;
    let epoch = 1;
    let superblock = Superblock { version, store, epoch, segment_len, capacity, created_ms, checkpoints };
    superblock::write_both(disk, &superblock, 0).await
}

/// The identity of an object file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// Random identity, assigned at creation.
    pub store_id: [u8; 16],
    /// Creation time, in ms since 1970.
    pub created_ms: u64,
}

/// Reads the identity of an object file, without recovering it.
///
/// # Errors
/// `Foreign`, `UnsupportedVersion`; `Damaged` if both superblocks are; `Io`.
pub async fn identity<D: Disk>(disk: &D) -> Result<Identity, Error> {
    let (Superblock { store: store_id, created_ms, .. }, _) = superblock::read(disk).await?;
    Ok(Identity { store_id, created_ms })
}

/// Reported for a superblock copy that cannot be rewritten while the other is valid.
const UNWRITABLE_COPY: &str = "a copy of the superblock, which cannot be rewritten";

/// The recovered state of an object file, before anything is written.
pub(crate) struct Recovered {
    pub(crate) superblock: Superblock,
    /// The superblock copy that is bad or outdated.
    bad_copy: Option<usize>,
    /// Whether both copies were lost, so that this superblock is in memory only.
    is_rebuilt: bool,
    pub(crate) index: Index,
    store: Scanned,
    pub(crate) recovery: Recovery,
    /// Locations of the replayed records, if requested, and of damaged checkpoint records.
    replayed: Vec<(u64, u32)>,
    /// Whether anything has changed since the checkpoint, the last write of an orderly shutdown.
    is_changed: bool,
}

impl Recovered {
    /// Returns the ranges of the file that recovery reads, except the superblocks: segment headers
    /// and replayed records.
    pub(crate) fn extents(&self) -> Vec<Range<u64>> {
        let len = self.superblock.segment_len;
        let in_use = self.store.table.iter().zip(0u64..).filter(|(segment, _)| segment.in_use());
        let headers = in_use.map(|(_, number)| SEGMENTS_START + number * len);
        let headers = headers.map(|start| start..start + PAGE as u64);
        headers.chain(self.replayed.iter().map(|&(at, len)| at..at + u64::from(len))).collect()
    }

    /// Returns the ranges of cut tails.
    pub(crate) fn tails(&self) -> Vec<Range<u64>> {
        self.store.scans.iter().filter(|scan| scan.tail).map(|scan| scan.at..scan.end).collect()
    }

    /// Returns the segment that contains an offset, and its end offset.
    pub(crate) fn segment(&self, offset: u64) -> (u32, u64) {
        let number = offset.saturating_sub(SEGMENTS_START) / self.superblock.segment_len;
        (number as u32, SEGMENTS_START + (number + 1) * self.superblock.segment_len)
    }

    pub(crate) fn generation(&self, number: u32) -> Option<u64> {
        self.store.table.get(number as usize).filter(|segment| segment.in_use()).map(|segment| segment.generation)
    }
}

/// Options for reading the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecoverOptions {
    /// If no checkpoint can be read, replay all records as if none had ever existed; objects
    /// deleted long ago may reappear. If both superblock copies are lost, rebuild them in memory.
    pub(crate) rebuild: bool,
    /// Whether [`Recovered::extents`] will be called, which takes memory per record.
    pub(crate) extents: bool,
}

/// Recovers the state of the file without writing.
pub(crate) async fn recover<D: Disk>(disk: &D, options: RecoverOptions) -> Result<Recovered, Error> {
    let mut damaged = Vec::new();
    let (superblock, bad_copy) = match superblock::copies(disk).await? {
        superblock::Copies::Usable(superblock, bad_copy) => (superblock, bad_copy),
        superblock::Copies::Lost(error) if options.rebuild => {
            let (rebuilt, damage) = rebuild::superblock(disk).await?.ok_or(error)?;
            damaged.push(damage);
            (rebuilt, None)
        }
        superblock::Copies::Lost(error) => return Err(error),
    };
    let is_rebuilt = !damaged.is_empty();
    check_segment_len(superblock.segment_len)
        .map_err(|_| Damage::error("a superblock with an impossible segment length", 0))?;
    let headers = scan::headers(disk, &superblock).await?;
    let mut base = base::load(disk, &superblock, &headers, options.rebuild, &mut damaged).await?;
    let mut store = scan::scan(disk, &superblock, &headers, &base).await?;
    tails::cut(disk, &superblock, &mut store, &base).await?;
    let mut replayed = replay::replay(disk, &superblock, &mut base, &mut store, options.extents).await?;
    let mut index = replayed.index;
    damaged.append(&mut store.damage);
    damaged.append(&mut replayed.damaged);
    if store.file_len < SEGMENTS_START + store.table.len() as u64 * superblock.segment_len {
        name_past_the_end(&index, &superblock, &store, &mut damaged);
    }
    // Damage of a checkpoint is not reported a second time among the records.
    store.suspects.retain(|suspect| base.bad.iter().all(|bad| bad.offset() != suspect.damage.offset));
    keep_lost(&mut index, &store.suspects, &replayed.newest, &base);
    name_suspects(&index, std::mem::take(&mut store.suspects), &mut damaged);
    let recovery = Recovery {
        records: replayed.records,
        objects: index.totals.objects,
        uploads: index.totals.uploads,
        cut: store.scans.iter().filter(|scan| scan.tail).count() as u64,
        mended: bad_copy.is_some(),
        upgraded_from: Some(superblock.version).filter(|version| *version < VERSION_PLAIN),
        read_only: None,
        damaged,
    };
    let bad = base.bad.iter().map(|at| (at.offset(), at.len()));
    let is_changed = replayed.is_changed;
    let replayed = replayed.extents.into_iter().chain(bad).collect();
    Ok(Recovered { superblock, bad_copy, is_rebuilt, index, store, recovery, replayed, is_changed })
}

/// Opens an object file: recovers its state, cuts unacknowledged tails, and prepares for writing.
/// If it cannot be written, it is opened read-only, as with [`OpenOptions::read_only`];
/// [`Recovery::read_only`] holds the reason.
///
/// # Errors
/// `Foreign`, `UnsupportedVersion`; `Capacity` for zero or too many workers, or for a new capacity
/// that is too small or less than the space in use; `Damaged` if both superblocks or both
/// checkpoints are; `Io` of reads. Other damage is not an error; it is returned in
/// [`Recovery::damaged`].
pub async fn open<D: Disk>(disk: &D, options: OpenOptions) -> Result<(Arc<Store>, Recovery), Error> {
    if options.workers == 0 || options.workers > WORKERS_MAX {
        return Err(Error::Capacity(format!("invalid worker count {}: expected 1 to {WORKERS_MAX}", options.workers)));
    }
    let mut recovered = recover(disk, RecoverOptions { rebuild: options.rebuild, extents: false }).await?;
    let len = recovered.superblock.segment_len;
    let capacity = recovered.superblock.capacity;
    let workers = options.workers.min(Segments::workers_max(len, options.capacity.unwrap_or(capacity)));
    let options = OpenOptions { workers, ..options };
    let mut read_only = options.read_only.clone();
    let resumed = match read_only {
        Some(_) => None,
        None => match go_on(disk, &options, &mut recovered).await {
            Ok(resumed) => Some(resumed),
            Err(Error::ReadOnly(why)) => {
                read_only = Some(why);
                None
            }
            Err(Error::Full) => {
                read_only = Some("no space on the file system to open the store: free some".into());
                None
            }
            Err(Error::Io(error)) => {
                read_only = Some(format!("a write of the opening failed: {error}").into());
                None
            }
            Err(error) => return Err(error),
        },
    };
    let Recovered { superblock, index, store: found, mut recovery, .. } = recovered;
    recovery.mended &= read_only.is_none();
    recovery.upgraded_from = recovery.upgraded_from.filter(|_| read_only.is_none());
    recovery.read_only = read_only.clone();
    let resumed = resumed.unwrap_or_else(|| resume::Resumed::reading(&found, options.workers + 1));
    let mut state = state(index, superblock, found, resumed, &options, &recovery);
    state.index.limit(options.index_limits);
    if read_only.is_none() {
        // If the query of extents fails, space is allocated again as if they were unknown.
        let extents = disk.extents().await.unwrap_or(None);
        let fills = options.durability == Durability::Always && disk.first_write_is_slow();
        state.segments.set_space(extents.as_deref(), fills);
    }
    Ok((Arc::new(Store::new(state.superblock.store, options.durability, read_only, state)), recovery))
}

/// Makes the cuts final and prepares for writing: step 11 of opening in `FORMAT.md`.
async fn go_on<D: Disk>(disk: &D, options: &OpenOptions, recovered: &mut Recovered) -> Result<resume::Resumed, Error> {
    let Recovered { superblock, bad_copy, is_rebuilt, store: found, recovery, is_changed, .. } = recovered;
    let capacity = options.capacity.unwrap_or(superblock.capacity);
    check_capacity(capacity, superblock.segment_len)?;
    // A file that an earlier release shrank must stay accessible, so the current
    // capacity is not checked.
    if capacity != superblock.capacity {
        check_capacity_min(capacity, superblock.segment_len)?;
    }
    let in_use = SEGMENTS_START + found.table.len() as u64 * superblock.segment_len;
    if capacity < in_use && options.capacity.is_some() {
        return Err(Error::Capacity(format!("invalid capacity of {capacity} bytes: {in_use} bytes are in use")));
    }
    take_space(disk, superblock, capacity, in_use, found.file_len).await?;
    let jump = NUMBER_JUMP + u64::from(options.nonce) * NUMBER_NONCE_STEP;
    let first = found.highest.checked_add(jump);
    let first = first.ok_or_else(|| Damage::error("a store with exhausted sequence numbers", 0))?;
    let writers = options.workers + 1;
    let sound = recovery.damaged.is_empty();
    let mut resumed = resume::resume(disk, superblock, found, writers, first, sound, *is_changed).await?;
    recovery.damaged.append(&mut resumed.unmended);
    let is_older = superblock.version < VERSION_PLAIN;
    if is_older || options.capacity.is_some_and(|capacity| capacity != superblock.capacity) {
        // Records unknown to older versions may be written from here on, so older versions must
        // refuse the file.
        let version = superblock.version.max(VERSION_PLAIN);
        let changed = Superblock { version, capacity, epoch: superblock.epoch + 1, ..superblock.clone() };
        superblock::write_both(disk, &changed, bad_copy.unwrap_or(0)).await?;
        *superblock = changed;
    } else if *is_rebuilt {
        if let Some(copy) = superblock::write_rebuilt(disk, superblock).await? {
            recovery.damaged.push(Damage::mendable(UNWRITABLE_COPY, SUPERBLOCK_AT[copy]));
        }
    } else if let Some(copy) = *bad_copy
        && let Err(error) = superblock::write(disk, superblock, copy).await
    {
        // Reading works with the other copy, but a checkpoint would have to overwrite it.
        let Error::Io(error) = error else { return Err(error) };
        recovery.damaged.push(Damage::mendable(UNWRITABLE_COPY, SUPERBLOCK_AT[copy]));
        return Err(Error::ReadOnly(format!("copy {copy} of the superblock cannot be written: {error}").into()));
    } else if bad_copy.is_none() && resumed.bound.is_some() {
        // Tests whether anything can be written: coming checkpoints write this copy.
        superblock::write(disk, superblock, 1).await?;
    }
    Ok(resumed)
}

/// Builds the state that the workers share.
fn state(
    index: Index,
    superblock: Superblock,
    found: Scanned,
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
    let is_settled = resumed.bound.is_none();
    let maintenance = MaintenanceState {
        slot,
        unsettled: if is_settled { 0 } else { CHECKPOINTS_KEPT },
        checkpoint_len,
        ring: options.ring,
        // Only zero or nonzero matters: after a replay, the checkpoint at
        // shutdown spares the next one.
        since_checkpoint: if is_settled { recovery.records } else { recovery.records.max(1) },
        ..MaintenanceState::default()
    };
    let mut numbers = Numbers::new(resumed.next_number);
    numbers.set_bound(resumed.bound);
    let counters = Default::default();
    State {
        index,
        numbers,
        segments,
        ends,
        slots,
        superblock,
        superblock_copies: Default::default(),
        counters,
        maintenance,
        failed_write: None,
        torn: Vec::new(),
    }
}

fn full_or_io(error: std::io::Error) -> Error {
    if is_full(&error) { Error::Full } else { error.into() }
}
