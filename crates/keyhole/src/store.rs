//! The store: its locks, and its object file or device.

mod device;
mod marker;
mod place;
mod signature;
mod watch;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::{Duration, Instant};

use keyhole_log::limits::{SEGMENT_LEN, SEGMENT_LEN_MIN, SEGMENTS_START};
use keyhole_log::{Durability, Format, OpenOptions as LogOptions, Store};
use keyhole_node::Services;

use crate::buffer::Pools;
use crate::env::System;
use crate::epoll::PlainDisk;
use crate::medium::{self, Medium};
use crate::memory::Budget;

pub(crate) use place::Place;
pub(crate) use watch::Presence;

/// Default capacity of a new object file, in percent of the free space.
const CAPACITY_PERCENT: u64 = 80;

/// Minimum count of segments: with a small capacity, segments are shortened down to the format's
/// minimum.
const SEGMENTS_WANTED: u64 = 128;

/// The reason of a node that was started read-only.
pub(crate) const ASKED_READ_ONLY: &str = "the node was started with --read-only";

/// The reason of a command that only reads the store.
pub(crate) const ONLY_LOOKS: &str = "this command only reads";

/// Timeout for another process to release the store. A killed process keeps its lock until the
/// kernel has completed its I/O, which must not land after recovery.
pub(crate) const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// An open store.
pub(crate) struct OpenedStore {
    pub(crate) shared: Arc<Store>,
    /// All threads use clones of this open file description, so its lock outlasts the last I/O.
    pub(crate) medium: Medium,
    /// Count of durable items that recovery found unreadable.
    pub(crate) damaged: usize,
    /// Checks whether the object file is still in place.
    pub(crate) presence: Presence,
    /// The locked directories.
    _locks: Vec<File>,
}

/// A store that this process has locked but not opened.
pub(crate) struct Held {
    pub(crate) medium: Medium,
    created: bool,
    /// The reason if it can only be read.
    read_only: Option<String>,
    locks: Vec<File>,
}

/// The action if there is no store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Make {
    /// Fail.
    Never,
    /// Create a data directory and an object file.
    File,
    /// Format the device, whatever it contains.
    Format,
}

/// The options of [`open`].
#[derive(Clone, Debug)]
pub(crate) struct StoreOptions {
    pub(crate) make: Make,
    /// The reason to open it for reading only, if any. A medium that is not writable is always
    /// opened for reading.
    pub(crate) read_only: Option<&'static str>,
    pub(crate) capacity: Option<u64>,
    pub(crate) durability: Durability,
    /// Whether a full store deletes its oldest objects.
    pub(crate) ring: bool,
    pub(crate) workers: usize,
    /// Timeout of the lock.
    pub(crate) patience: Duration,
    /// The memory budget that limits the index, if there is one.
    pub(crate) budget: Option<Budget>,
    /// Counts the bytes that recovery reads.
    pub(crate) read: Arc<AtomicU64>,
}

impl Default for StoreOptions {
    /// The options of a command that uses a store without a node.
    fn default() -> Self {
        StoreOptions {
            make: Make::Never,
            read_only: None,
            capacity: None,
            durability: Durability::Always,
            ring: false,
            workers: 1,
            patience: LOCK_PATIENCE,
            budget: None,
            read: Arc::default(),
        }
    }
}

/// Creates the store if it is missing and the options allow it, locks it, and recovers its content.
pub(crate) fn open(place: &Place, options: &StoreOptions) -> Result<OpenedStore, String> {
    let held = hold(place, options)?;
    let path = place.medium();
    let disk = plain_disk(&held.medium)?.counting(options.read.clone());
    let log_options = LogOptions {
        durability: options.durability,
        workers: options.workers,
        // A new file already has the given capacity.
        capacity: options.capacity.filter(|_| !held.created),
        ring: options.ring,
        rebuild: false,
        read_only: held.read_only.as_deref().map(Arc::from),
    };
    // Before loading: a node that is killed for lack of memory has logged the reason.
    let warned = match options.budget {
        Some(budget) => {
            let estimated = block_on(keyhole_log::estimate_index(&disk))?.unwrap_or_default().unwrap_or_default();
            budget.index_warning(estimated)
        }
        None => None,
    };
    if let Some(warning) = &warned {
        tracing::warn!("{warning}");
    }
    let (shared, recovery) =
        block_on(keyhole_log::open(&disk, log_options))?.map_err(|error| format!("{}: {error}", path.display()))?;
    release_memory();
    let exact = options.budget.and_then(|budget| budget.index_warning(shared.stats().index_bytes));
    if let Some(warning) = exact.filter(|_| warned.is_none()) {
        tracing::warn!("{warning}");
    }
    if let Some(reason) = recovery.read_only.as_deref().filter(|reason| *reason != ONLY_LOOKS) {
        let way_out = match reason == ASKED_READ_ONLY {
            true => "start it without --read-only to write",
            false => "repair the medium and restart, or export the store and import it into another one",
        };
        tracing::warn!(reason, "{} is read-only: writes are refused; {way_out}", path.display());
    }
    if recovery.mended {
        tracing::warn!("rewrote a damaged copy of the superblock");
    }
    if let Some(version) = recovery.upgraded_from {
        tracing::info!(version, "upgraded the store to the current format; older releases refuse it");
    }
    for damage in &recovery.damaged {
        tracing::error!("damaged: {damage}");
    }
    tracing::info!(
        records = recovery.records,
        objects = recovery.objects,
        uploads = recovery.uploads,
        cut_segments = recovery.cut,
        damaged = recovery.damaged.len(),
        "opened {}",
        path.display()
    );
    let presence =
        Presence::of(&path, &held.medium).map_err(|error| format!("cannot inspect {}: {error}", path.display()))?;
    Ok(OpenedStore { shared, medium: held.medium, damaged: recovery.damaged.len(), presence, _locks: held.locks })
}

/// Returns the memory freed by recovery to the system. Fragmentation would otherwise retain it.
fn release_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Locks a store, and creates it if it is missing and the options allow it. Reads only its
/// identity, which must match the marker.
pub(crate) fn hold(place: &Place, options: &StoreOptions) -> Result<Held, String> {
    if options.make == Make::Format && !place.is_device {
        return Err(format!(
            "--format requires a block device, and {} is not one; without --format a missing data directory is created",
            place.data.display()
        ));
    }
    let held = if place.is_device { hold_device(place, options) } else { hold_file(place, options) }?;
    marker::check(place, &held, options)?;
    Ok(held)
}

fn hold_device(place: &Place, options: &StoreOptions) -> Result<Held, String> {
    if options.read_only.is_some() && options.make == Make::Format {
        return Err("--format writes to the device: leave out --format or --read-only".to_owned());
    }
    // The device first: a refusal then leaves no new directory behind.
    let device::Opened { medium, read_only } = device::open(&place.data, options)?;
    let created = options.make == Make::Format;
    // A command on an existing store needs no state directory: the exclusive device is its lock.
    let has_state = match read_only {
        Some(_) => place.state.exists(),
        None => options.make != Make::Never || place.state.exists(),
    };
    let locks = match has_state {
        true => vec![own_directory("state", &place.state, options, read_only.is_some())?],
        false => Vec::new(),
    };
    Ok(Held { medium, created, read_only, locks })
}

fn hold_file(place: &Place, options: &StoreOptions) -> Result<Held, String> {
    let path = place.medium();
    let is_there = match fs::exists(&path) {
        // Creating the directory reports the obstacle.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory && options.make != Make::Never => false,
        is_there => is_there.map_err(|error| format!("cannot read directory {}: {error}", place.data.display()))?,
    };
    if !is_there {
        // Before anything is created.
        marker::refuse_missing(place)?;
        if options.make == Make::Never || options.read_only.is_some() {
            let data = place.data.display();
            return Err(format!("no store in {data}; `keyhole serve --data {data}` creates one"));
        }
    }
    let opened = open_file(&path, options.read_only)?;
    let is_read_only = opened.as_ref().is_some_and(|(_, read_only)| read_only.is_some());
    let mut locks = vec![own_directory("data", &place.data, options, is_read_only)?];
    if place.state != place.data {
        locks.push(own_directory("state", &place.state, options, is_read_only)?);
    }
    let opened = match opened {
        Some(opened) => Some(opened),
        // Another process may have created it meanwhile, and ended.
        None => open_file(&path, options.read_only)?,
    };
    let Some((file, read_only)) = opened else {
        let medium = create(&place.data, &path, &locks[0], options)?;
        lock(medium.as_file(), &place.data, options.patience, false)?;
        return Ok(Held { medium, created: true, read_only: None, locks });
    };
    lock(&file, &place.data, options.patience, read_only.is_some())?;
    let medium = Medium::file(file);
    let medium = if read_only.is_some() { medium.reading() } else { medium };
    Ok(Held { medium, created: false, read_only, locks })
}

/// Opens the object file if it exists. If it is not writable, or should not be written, opens it
/// for reading and returns the reason.
fn open_file(path: &Path, read_only: Option<&str>) -> Result<Option<(File, Option<String>)>, String> {
    let for_reading = |why: &str| File::open(path).map(|file| (file, Some(why.to_owned())));
    let opened = match (read_only, OpenOptions::new().read(true).write(read_only.is_none()).open(path)) {
        (why, Ok(file)) => Ok((file, why.map(str::to_owned))),
        (_, Err(error)) => match error.raw_os_error() {
            Some(libc::EROFS) => for_reading("its file system is mounted read-only"),
            Some(libc::EPERM) => for_reading("its file has the immutable attribute"),
            _ => Err(error),
        },
    };
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(format!("cannot open {}: {error}", path.display())),
    }
}

/// Creates a directory if it is missing, and locks it.
fn own_directory(name: &str, path: &Path, options: &StoreOptions, is_read_only: bool) -> Result<File, String> {
    let at = |verb: &str, error: io::Error| format!("cannot {verb} the {name} directory {}: {error}", path.display());
    if !is_read_only {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| at("create", error))?;
    }
    let directory = File::open(path).map_err(|error| at("open", error))?;
    lock(&directory, path, options.patience, is_read_only)?;
    Ok(directory)
}

/// Takes the exclusive lock, or with `shared` one that other readers can hold too.
fn lock(file: &File, data: &Path, patience: Duration, shared: bool) -> Result<(), String> {
    let deadline = Instant::now() + patience;
    loop {
        match if shared { file.try_lock_shared() } else { file.try_lock() } {
            Ok(()) => return Ok(()),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(LOCK_RETRY),
            Err(fs::TryLockError::WouldBlock) => {
                return Err(format!(
                    "the data in {} is in use by another keyhole process; stop it, or give another --data",
                    data.display()
                ));
            }
            Err(fs::TryLockError::Error(error)) => return Err(format!("cannot lock {}: {error}", data.display())),
        }
    }
}

/// Creates the object file under a temporary name, and renames it once it is complete and durable.
fn create(data: &Path, path: &Path, directory: &File, options: &StoreOptions) -> Result<Medium, String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot create {}: {error}", path.display());
    let capacity = match options.capacity {
        Some(capacity) => capacity,
        None => free_space(data).map_err(|error| failed(&error))? / 100 * CAPACITY_PERCENT,
    };
    let new = path.with_extension("keyhole.new");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .map_err(|error| failed(&error))?;
    let format = new_format(capacity, options.workers);
    let medium = Medium::file(file);
    medium.write_in_place();
    block_on(keyhole_log::create(&plain_disk(&medium)?, &format))?.map_err(|error| failed(&error))?;
    fs::rename(&new, path).map_err(|error| failed(&error))?;
    directory.sync_all().map_err(|error| failed(&error))?;
    tracing::info!(capacity, segment_len = format.segment_len, "created {}", path.display());
    Ok(medium)
}

/// Returns the format of a new store.
fn new_format(capacity: u64, workers: usize) -> Format {
    Format {
        store_id: System.random_array(),
        capacity,
        segment_len: segment_len(capacity, workers),
        created_ms: System.now_ms(),
    }
}

/// Returns the segment length for a capacity: the default, or less if there would be few segments.
fn segment_len(capacity: u64, workers: usize) -> u64 {
    let wanted = SEGMENTS_WANTED.max(4 * workers as u64);
    let fitting = capacity.saturating_sub(SEGMENTS_START) / wanted;
    let power = if fitting == 0 { 0 } else { 1 << fitting.ilog2() };
    power.clamp(SEGMENT_LEN_MIN, SEGMENT_LEN)
}

fn free_space(path: &Path) -> io::Result<u64> {
    Ok(medium::available(&rustix::fs::statvfs(path)?))
}

/// Returns the disk for work outside the workers.
pub(crate) fn plain_disk(medium: &Medium) -> Result<PlainDisk, String> {
    let medium = medium.try_clone().map_err(|error| format!("cannot duplicate a descriptor: {error}"))?;
    Ok(PlainDisk::new(medium, Pools::default()))
}

/// Runs a future to completion before there are workers.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| error.to_string())?;
    Ok(runtime.block_on(future))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> StoreOptions {
        let (make, capacity, patience) = (Make::File, Some(64 << 20), Duration::ZERO);
        StoreOptions { make, capacity, patience, ..StoreOptions::default() }
    }

    fn open_at(path: &Path, options: &StoreOptions) -> Result<OpenedStore, String> {
        open(&Place::find(path, None).unwrap(), options)
    }

    #[test]
    fn segments_shrink_with_the_capacity() {
        assert_eq!(segment_len(1 << 40, 2), SEGMENT_LEN);
        assert_eq!(segment_len(1 << 30, 2), 4 << 20);
        assert_eq!(segment_len(32 << 20, 2), SEGMENT_LEN_MIN);
        assert_eq!(segment_len(0, 2), SEGMENT_LEN_MIN);
    }

    #[test]
    fn a_store_is_made_reopened_and_locked() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join("deep/er");
        let store = open_at(&path, &options()).unwrap();
        let error = open_at(&path, &options()).err().unwrap();
        assert!(error.contains("in use by another"), "{error}");
        drop(store);
        open_at(&path, &options()).unwrap();
    }

    #[test]
    fn a_foreign_file_is_left_alone() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join("objects.keyhole");
        fs::write(&path, b"my diary").unwrap();
        let error = open_at(data.path(), &options()).err().unwrap();
        assert!(error.contains("objects.keyhole"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"my diary");
    }

    #[test]
    fn what_is_missing_is_made_only_where_that_was_asked_for() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join("absent");
        let error = open_at(&path, &StoreOptions { make: Make::Never, ..options() }).err().unwrap();
        assert!(error.contains("no store") && error.contains("keyhole serve"), "{error}");
        let error = open_at(&path, &StoreOptions { make: Make::Format, ..options() }).err().unwrap();
        assert!(error.contains("block device"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn the_state_may_be_elsewhere_and_is_locked_too() {
        let directory = tempfile::tempdir().unwrap();
        let at = |data: &str, state: &str| {
            Place::find(&directory.path().join(data), Some(&directory.path().join(state))).unwrap()
        };
        let store = open(&at("a", "state"), &options()).unwrap();
        drop(open(&at("b", "another"), &options()).unwrap());
        let error = open(&at("b", "state"), &options()).err().unwrap();
        assert!(error.contains("state") && error.contains("in use by another"), "{error}");
        drop(store);
        // The state names the store that it belongs to.
        let error = open(&at("b", "state"), &options()).err().unwrap();
        assert!(error.contains("state/store.toml"), "{error}");
        fs::remove_file(directory.path().join("state/store.toml")).unwrap();
        open(&at("b", "state"), &options()).unwrap();
    }
}
