//! The store: its locks, and the object file or device that it is in.

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
use keyhole_log::{Format, OpenOptions as LogOptions, Shared, Sync};
use keyhole_node::Env;

use crate::buffer::Pools;
use crate::env::System;
use crate::epoll::PlainDisk;
use crate::medium::{self, Medium};
use crate::memory::Budget;

pub(crate) use place::Place;
pub(crate) use watch::Presence;

/// Of the free space, what a new object file may take by default, in hundredths.
const CAPACITY_PERCENT: u64 = 80;

/// Segments that a store should have at least: they are made smaller where the capacity is small, down to the format's
/// least length.
const SEGMENTS_WANTED: u64 = 128;

/// Why a node is read-only whose operator wants it so.
pub(crate) const ASKED_READ_ONLY: &str = "the node was started with --read-only";

/// Why a command writes nothing that only looks at a store.
pub(crate) const ONLY_LOOKS: &str = "this command only reads";

/// How long to wait for another process to let go of the data. One that was killed holds on until the kernel has ended
/// the I/O that it had in flight, and none of that may land after the data was recovered.
pub(crate) const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// An open store.
pub(crate) struct Store {
    pub(crate) shared: Arc<Shared>,
    /// All threads work on clones of this one description, so its lock lasts as long as the last I/O.
    pub(crate) medium: Medium,
    /// What had been durable and cannot be read: how much of that recovery has found.
    pub(crate) damaged: usize,
    /// Tells whether the object file is still where it was opened.
    pub(crate) presence: Presence,
    /// Hold the locks of directories.
    _locks: Vec<File>,
}

/// A store that this process alone has, and that is not open yet.
pub(crate) struct Held {
    pub(crate) medium: Medium,
    created: bool,
    /// Why it can only be read, if that is so.
    read_only: Option<String>,
    locks: Vec<File>,
}

/// What to do where there is no store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Make {
    /// Say so.
    Never,
    /// Make a data directory and an object file.
    File,
    /// Make one on the device, whatever is on it.
    Format,
}

/// What [`open`] needs to know.
#[derive(Clone, Debug)]
pub(crate) struct StoreOptions {
    pub(crate) make: Make,
    /// Why nothing is to be written, if that is so. A medium that takes no writes is opened for reading in any case.
    pub(crate) read_only: Option<&'static str>,
    pub(crate) capacity: Option<u64>,
    pub(crate) sync: Sync,
    /// Whether the oldest objects go when the store is full.
    pub(crate) ring: bool,
    pub(crate) workers: usize,
    /// How long to wait for the lock.
    pub(crate) patience: Duration,
    /// What is left for the index, if that is bounded.
    pub(crate) budget: Option<Budget>,
    /// Counts the bytes that recovery reads.
    pub(crate) read: Arc<AtomicU64>,
}

impl Default for StoreOptions {
    /// For a command that works on a store by itself.
    fn default() -> Self {
        StoreOptions {
            make: Make::Never,
            read_only: None,
            capacity: None,
            sync: Sync::Always,
            ring: false,
            workers: 1,
            patience: LOCK_PATIENCE,
            budget: None,
            read: Arc::default(),
        }
    }
}

/// Makes the store where it is missing, as far as the options have it, locks it, and recovers what is in it.
pub(crate) fn open(place: &Place, options: &StoreOptions) -> Result<Store, String> {
    let held = hold(place, options)?;
    let path = place.medium();
    let disk = plain_disk(&held.medium)?.counting(options.read.clone());
    let log_options = LogOptions {
        sync: options.sync,
        workers: options.workers,
        // What was given for a new file is in it already.
        capacity: options.capacity.filter(|_| !held.created),
        ring: options.ring,
        rebuild: false,
        read_only: held.read_only.as_deref().map(Arc::from),
    };
    // Ahead of loading it: a node that is killed for it has said why.
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
    Ok(Store { shared, medium: held.medium, damaged: recovery.damaged.len(), presence, _locks: held.locks })
}

/// Gives back to the system what recovery has freed: what was replayed lies between what stays, and would be kept for ever.
fn release_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the allocator may be asked for this at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Locks a store and makes it where it is missing, as far as the options have it. Of what is in it the identity alone is looked
/// at, which the marker must name.
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
    // First the device: what is refused leaves no directory behind.
    let device::Opened { medium, read_only } = device::open(&place.data, options)?;
    let created = options.make == Make::Format;
    // Who only works on what is there needs no state: the device is this process's alone.
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
        // Whoever makes the directory says what stands in the way.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory && options.make != Make::Never => false,
        is_there => is_there.map_err(|error| format!("cannot read directory {}: {error}", place.data.display()))?,
    };
    if !is_there {
        // Before anything is made.
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
        // Another process may have made it meanwhile, and ended.
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

/// Opens the object file if it is there; where it takes no writes, or is to have none, for reading alone: then with the reason.
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

/// Makes a directory where it is missing, and locks it.
fn own_directory(name: &str, path: &Path, options: &StoreOptions, is_read_only: bool) -> Result<File, String> {
    let at = |verb: &str, error: io::Error| format!("cannot {verb} the {name} directory {}: {error}", path.display());
    if !is_read_only {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| at("create", error))?;
    }
    let directory = File::open(path).map_err(|error| at("open", error))?;
    lock(&directory, path, options.patience, is_read_only)?;
    Ok(directory)
}

/// Takes the lock that one process has; or `shared`, with others that only read.
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

/// Makes the object file under another name, and gives it its own when it is whole and durable.
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

/// What a new store is made with.
fn new_format(capacity: u64, workers: usize) -> Format {
    Format {
        store_id: System.random_array(),
        capacity,
        segment_len: segment_len(capacity, workers),
        created_ms: System.now_ms(),
    }
}

/// The segments of a store of this capacity: the usual length, or less where there would be few of them.
fn segment_len(capacity: u64, workers: usize) -> u64 {
    let wanted = SEGMENTS_WANTED.max(4 * workers as u64);
    let fitting = capacity.saturating_sub(SEGMENTS_START) / wanted;
    let power = if fitting == 0 { 0 } else { 1 << fitting.ilog2() };
    power.clamp(SEGMENT_LEN_MIN, SEGMENT_LEN)
}

fn free_space(path: &Path) -> io::Result<u64> {
    Ok(medium::available(&rustix::fs::statvfs(path)?))
}

/// The medium for what is done outside the workers.
pub(crate) fn plain_disk(medium: &Medium) -> Result<PlainDisk, String> {
    let medium = medium.try_clone().map_err(|error| format!("cannot duplicate a descriptor: {error}"))?;
    Ok(PlainDisk::new(medium, Pools::default()))
}

/// Runs what is done once, before there are workers.
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

    fn open_at(path: &Path, options: &StoreOptions) -> Result<Store, String> {
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
