//! Locking of a store, and its creation if it is missing.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

use super::create::create;
use super::error::StoreError;
use super::location::StoreLocation;
use super::lock::{lock, own_directory};
use super::options::{Make, StoreOptions};
use super::{device, marker};
use crate::error::FileError;
use crate::medium::Medium;
use crate::regular;

/// A store that this process has locked but not opened.
pub(crate) struct LockedStore {
    pub(crate) medium: Medium,
    pub(super) created: bool,
    /// The reason if it can only be read.
    pub(super) read_only: Option<String>,
    pub(super) locks: Vec<File>,
}

/// Locks a store, and creates it if it is missing and the options allow it. Reads only its
/// identity, which must match the marker.
pub(crate) fn hold(location: &StoreLocation, options: &StoreOptions) -> Result<LockedStore, StoreError> {
    if options.make == Make::Format && !location.is_device {
        return Err(StoreError::FormatOfFile(location.data.clone()));
    }
    let held = if location.is_device { hold_device(location, options) } else { hold_file(location, options) }?;
    marker::check(location, &held.medium, held.read_only.is_some(), options)?;
    Ok(held)
}

fn hold_device(location: &StoreLocation, options: &StoreOptions) -> Result<LockedStore, StoreError> {
    if options.read_only.is_some() && options.make == Make::Format {
        return Err(StoreError::FormatReadOnly);
    }
    // The device first: a refusal then leaves no new directory behind.
    let device::Opened { medium, read_only } = device::open(&location.data, options)?;
    let created = options.make == Make::Format;
    // A command on an existing store needs no state directory: the exclusive device is its lock.
    let has_state = match read_only {
        Some(_) => location.state.exists(),
        None => options.make != Make::Never || location.state.exists(),
    };
    let mut locks = Vec::new();
    if has_state {
        locks.push(own_directory("state", &location.state, options, read_only.is_some())?);
    }
    Ok(LockedStore { medium, created, read_only, locks })
}

fn hold_file(location: &StoreLocation, options: &StoreOptions) -> Result<LockedStore, StoreError> {
    let path = location.medium();
    let is_there = match fs::exists(&path) {
        // Creating the directory reports the obstacle.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory && options.make != Make::Never => false,
        is_there => is_there.map_err(|error| FileError::new("cannot read directory", &location.data, error))?,
    };
    if !is_there {
        // Before anything is created.
        marker::refuse_missing(location)?;
        if options.make == Make::Never || options.read_only.is_some() {
            return Err(StoreError::Missing(location.data.clone()));
        }
    }
    let opened = open_file(&path, options.read_only)?;
    let is_read_only = opened.as_ref().is_some_and(|opened| opened.read_only.is_some());
    let mut locks = vec![own_directory("data", &location.data, options, is_read_only)?];
    if location.state != location.data {
        locks.push(own_directory("state", &location.state, options, is_read_only)?);
    }
    let opened = match opened {
        Some(opened) => Some(opened),
        // Another process may have created it meanwhile, and ended.
        None => open_file(&path, options.read_only)?,
    };
    let Some(OpenedFile { file, read_only }) = opened else {
        let medium = create(&location.data, &path, &locks[0], options)?;
        lock(medium.as_file(), &location.data, options.patience, false)?;
        return Ok(LockedStore { medium, created: true, read_only: None, locks });
    };
    lock(&file, &location.data, options.patience, read_only.is_some())?;
    let medium = Medium::file(file);
    let medium = if read_only.is_some() { medium.reading() } else { medium };
    Ok(LockedStore { medium, created: false, read_only, locks })
}

/// An opened object file.
struct OpenedFile {
    file: File,
    /// The reason if it can only be read.
    read_only: Option<String>,
}

/// Opens the object file if it exists. If it is not writable, or should not be written, opens it
/// for reading.
fn open_file(path: &Path, read_only: Option<&str>) -> Result<Option<OpenedFile>, StoreError> {
    let for_reading = |why: &str| regular::open(path).map(|file| OpenedFile { file, read_only: Some(why.to_owned()) });
    let opened = match regular::open_with(OpenOptions::new().read(true).write(read_only.is_none()), path) {
        Ok(file) => Ok(OpenedFile { file, read_only: read_only.map(str::to_owned) }),
        Err(error) => match error.raw_os_error() {
            Some(libc::EROFS) => for_reading("its file system is mounted read-only"),
            Some(libc::EPERM) => for_reading("its file has the immutable attribute"),
            _ => Err(error),
        },
    };
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(FileError::new("cannot open", path, error).into()),
    }
}
