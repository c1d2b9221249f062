//! Locks of files and directories.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::error::StoreError;
use super::options::StoreOptions;
use crate::error::FileError;

pub(super) const LOCK_RETRY: Duration = Duration::from_millis(20);

/// Creates a directory if it is missing, and locks it.
pub(super) fn own_directory(
    name: &str,
    path: &Path,
    options: &StoreOptions,
    is_read_only: bool,
) -> Result<File, StoreError> {
    let at = |verb: &str, error| FileError::new(format!("cannot {verb} the {name} directory"), path, error);
    if !is_read_only {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| at("create", error))?;
    }
    // Only a directory: another file could be a FIFO, which waits.
    let directory = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path);
    let directory = directory.map_err(|error| at("open", error))?;
    lock(&directory, path, options.patience, is_read_only)?;
    Ok(directory)
}

/// Takes the exclusive lock, or with `shared` one that other readers can hold too.
pub(super) fn lock(file: &File, data: &Path, patience: Duration, shared: bool) -> Result<(), StoreError> {
    let deadline = Instant::now() + patience;
    loop {
        match if shared { file.try_lock_shared() } else { file.try_lock() } {
            Ok(()) => return Ok(()),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(LOCK_RETRY),
            Err(fs::TryLockError::WouldBlock) => return Err(StoreError::InUse(data.to_owned())),
            Err(fs::TryLockError::Error(error)) => return Err(FileError::new("cannot lock", data, error).into()),
        }
    }
}
