//! The data directory: its lock, and the object file in it.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use keyhole_log::limits::{SEGMENT_LEN, SEGMENT_LEN_MIN, SEGMENTS_START};
use keyhole_log::{Format, OpenOptions as LogOptions, Shared, Sync};
use keyhole_node::Env;

use crate::buffer::Pool;
use crate::env::System;
use crate::epoll::PlainDisk;

/// The object file's name.
const FILE: &str = "objects.keyhole";

/// Of the free space, what a new object file may take by default, in hundredths.
const CAPACITY_PERCENT: u64 = 80;

/// Segments that a store should have at least: they are made smaller where the capacity is small, down to the format's
/// least length.
const SEGMENTS_WANTED: u64 = 64;

/// How long to wait for another process to let go of the data. One that was killed holds on until the kernel has ended
/// the I/O that it had in flight, and none of that may land after the data was recovered.
pub(crate) const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// An open store.
pub(crate) struct Store {
    pub(crate) shared: Arc<Shared>,
    /// The object file. All threads work on clones of this one description, so its lock lasts as long as the last I/O.
    pub(crate) file: File,
    /// Holds the lock of the directory.
    _directory: File,
}

/// What [`open`] needs to know.
pub(crate) struct StoreOptions {
    pub(crate) capacity: Option<u64>,
    pub(crate) sync: Sync,
    pub(crate) workers: usize,
    /// How long to wait for the lock.
    pub(crate) patience: Duration,
}

/// Makes the directory and the object file where they are missing, locks them, and recovers what is in them.
pub(crate) fn open(data: &Path, options: &StoreOptions) -> Result<Store, String> {
    let at = |what: &str, error: io::Error| format!("cannot {what} {}: {error}", data.display());
    DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(|error| at("make the data directory", error))?;
    let directory = File::open(data).map_err(|error| at("open the data directory", error))?;
    lock(&directory, data, options.patience)?;
    let path = data.join(FILE);
    let open_file = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
    let (file, created) = match open_file(&path) {
        Ok(file) => (file, false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (create(data, &path, &directory, options)?, true),
        Err(error) => return Err(format!("cannot open {}: {error}", path.display())),
    };
    lock(&file, data, options.patience)?;
    let disk = disk(&file)?;
    // What was given for a new file is in it already.
    let capacity = options.capacity.filter(|_| !created);
    let log_options = LogOptions { sync: options.sync, workers: options.workers, capacity };
    let (shared, recovery) =
        block_on(keyhole_log::open(&disk, log_options))?.map_err(|error| format!("{}: {error}", path.display()))?;
    if recovery.mended {
        tracing::warn!("a damaged copy of the superblock was written anew");
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
    Ok(Store { shared, file, _directory: directory })
}

/// Takes the lock that one process has.
fn lock(file: &File, data: &Path, patience: Duration) -> Result<(), String> {
    let deadline = Instant::now() + patience;
    loop {
        match file.try_lock() {
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
fn create(data: &Path, path: &Path, directory: &File, options: &StoreOptions) -> Result<File, String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot create {}: {error}", path.display());
    let capacity = match options.capacity {
        Some(capacity) => capacity,
        None => free_space(data).map_err(|error| failed(&error))? / 100 * CAPACITY_PERCENT,
    };
    let new = data.join(format!("{FILE}.new"));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .map_err(|error| failed(&error))?;
    let format = Format {
        store_id: System.random_array(),
        capacity,
        segment_len: segment_len(capacity, options.workers),
        created_ms: System.now_ms(),
    };
    block_on(keyhole_log::create(&disk(&file)?, &format))?.map_err(|error| failed(&error))?;
    fs::rename(&new, path).map_err(|error| failed(&error))?;
    directory.sync_all().map_err(|error| failed(&error))?;
    tracing::info!(capacity, segment_len = format.segment_len, "created {}", path.display());
    Ok(file)
}

/// The segments of a store of this capacity: the usual length, or less where there would be few of them.
fn segment_len(capacity: u64, workers: usize) -> u64 {
    let wanted = SEGMENTS_WANTED.max(4 * workers as u64);
    let fitting = capacity.saturating_sub(SEGMENTS_START) / wanted;
    let power = if fitting == 0 { 0 } else { 1 << fitting.ilog2() };
    power.clamp(SEGMENT_LEN_MIN, SEGMENT_LEN)
}

fn free_space(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: a zeroed statvfs is a valid out-parameter, and the path is terminated.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    if unsafe { libc::statvfs(path.as_ptr(), &mut stat) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn disk(file: &File) -> Result<PlainDisk, String> {
    let file = file.try_clone().map_err(|error| format!("cannot share descriptor {}: {error}", file.as_raw_fd()))?;
    Ok(PlainDisk::new(file, Pool::default()))
}

/// Runs what is done once, before there are workers.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| error.to_string())?;
    Ok(runtime.block_on(future))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: StoreOptions =
        StoreOptions { capacity: Some(64 << 20), sync: Sync::Always, workers: 1, patience: Duration::ZERO };

    #[test]
    fn segments_shrink_with_the_capacity() {
        assert_eq!(segment_len(1 << 40, 2), SEGMENT_LEN);
        assert_eq!(segment_len(1 << 30, 2), 8 << 20);
        assert_eq!(segment_len(32 << 20, 2), SEGMENT_LEN_MIN);
        assert_eq!(segment_len(0, 2), SEGMENT_LEN_MIN);
    }

    #[test]
    fn a_store_is_made_reopened_and_locked() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join("deep/er");
        let store = open(&path, &OPTIONS).unwrap();
        let error = open(&path, &OPTIONS).err().unwrap();
        assert!(error.contains("in use by another"), "{error}");
        drop(store);
        open(&path, &OPTIONS).unwrap();
    }

    #[test]
    fn a_foreign_file_is_left_alone() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join(FILE);
        fs::write(&path, b"my diary").unwrap();
        let error = open(data.path(), &OPTIONS).err().unwrap();
        assert!(error.contains(FILE), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"my diary");
    }
}
