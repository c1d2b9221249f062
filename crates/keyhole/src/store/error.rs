//! Errors of opening a store.

use std::io;
use std::path::PathBuf;

use jiff::Timestamp;
use thiserror::Error;

use crate::error::{FileError, SystemError};

/// The reason why a store cannot be located, locked, created or opened.
#[derive(Error, Debug)]
pub(crate) enum StoreError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    System(#[from] SystemError),

    // Caused by the options.
    #[error("{} has no name: give --state DIR", .0.display())]
    Nameless(PathBuf),
    #[error(
        "cannot use {}: {source}; give a block device or an existing directory, since none is created below /dev",
        path.display()
    )]
    UnknownDevice { path: PathBuf, source: io::Error },
    #[error("no store in {data}; `keyhole serve --data {data}` creates one", data = .0.display())]
    Missing(PathBuf),
    #[error(
        "--format requires a block device, and {} is not one; without --format a missing data directory is created",
        .0.display()
    )]
    FormatOfFile(PathBuf),
    #[error("--format writes to the device: leave out --format or --read-only")]
    FormatReadOnly,
    #[error("--capacity {capacity} exceeds the {len} bytes of {}; leave it out to use all of them", path.display())]
    CapacityTooLarge { capacity: u64, len: u64, path: PathBuf },

    // Caused by other processes.
    #[error("the data in {} is in use by another keyhole process; stop it, or give another --data", .0.display())]
    InUse(PathBuf),
    #[error(
        "{} is in use: mounted, part of another device, or open in another keyhole process; unmount it or stop the \
         process, or give another --data",
        .0.display()
    )]
    DeviceInUse(PathBuf),

    // Caused by the medium.
    #[error("{}: {error}", path.display())]
    Log { path: PathBuf, error: keyhole_log::Error },
    #[error("cannot create {}: {error}", path.display())]
    Create { path: PathBuf, error: keyhole_log::Error },
    #[error("cannot format {}: {error}", path.display())]
    Format { path: PathBuf, error: keyhole_log::Error },
    #[error("cannot format {}: the device is read-only", .0.display())]
    ReadOnlyDevice(PathBuf),
    #[error(
        "cannot open {}: {error}; run as root, or as a user who may use the device (often the group disk)",
        path.display()
    )]
    DevicePermission { path: PathBuf, error: io::Error },
    #[error(
        "{path} has a Keyhole store already: start without --format to serve it; to make a new one, erase it first (dd \
         if=/dev/zero of={path} bs=1M count=1)",
        path = .0.display()
    )]
    AlreadyFormatted(PathBuf),
    #[error(
        "{path} has no Keyhole store: it has {found}. Give another --data, or start once with `keyhole serve --data \
         {path} --format`, which erases the device",
        path = path.display()
    )]
    NotFormatted { path: PathBuf, found: &'static str },

    // Caused by the marker.
    #[error("cannot read {}: {why}; remove it to have it recreated", path.display())]
    InvalidMarker { path: PathBuf, why: String },
    #[error(
        "{} is missing: {marker} names store {store}, created {created}; mount the disk that has it, or restore the \
         file; to start with an empty store, remove {marker}",
        object.display(),
        marker = marker.display()
    )]
    ObjectFileMissing { object: PathBuf, marker: PathBuf, store: String, created: Timestamp },
    #[error(transparent)]
    OtherStore(Box<StoreMismatch>),
}

/// An object file that is not the one that a marker names.
#[derive(Error, Debug)]
#[error(
    "{} is store {is}, created {created}, but {marker} names store {expected}, created {then}: mount the right disk, \
     or restore the right file; to use this one, remove {marker}",
    object.display(),
    marker = marker.display()
)]
pub(crate) struct StoreMismatch {
    pub(super) object: PathBuf,
    pub(super) is: String,
    pub(super) created: Timestamp,
    pub(super) marker: PathBuf,
    pub(super) expected: String,
    pub(super) then: Timestamp,
}
