//! A block device as medium: opened exclusively, identified, and formatted on the operator's
//! request.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::Instant;

use keyhole_log::Format;
use keyhole_log::limits::{PAGE, SEGMENTS_START, SUPERBLOCK_AT};

use super::create::new_format;
use super::error::StoreError;
use super::lock::{LOCK_RETRY, lock};
use super::options::{Make, StoreOptions};
use super::plain::{block_on, plain_disk};
use super::signature::{LOOKED_AT, Signature};
use crate::error::FileError;
use crate::medium::Medium;

/// Bytes at the end of a device that formatting overwrites: the backup partition table of GPT and
/// RAID superblocks are there.
const END_WIPED: u64 = 1 << 20;

/// An exclusively opened device.
pub(super) struct Opened {
    pub(super) medium: Medium,
    /// The reason if it can only be read.
    pub(super) read_only: Option<String>,
}

/// Opens a device exclusively; formats it if requested.
pub(super) fn open(path: &Path, options: &StoreOptions) -> Result<Opened, StoreError> {
    let read_only = match options.read_only {
        Some(why) => Some(why.to_owned()),
        None => is_read_only(path).then(|| "the device is read-only".to_owned()),
    };
    let medium = open_medium(path, options, read_only.is_none())?;
    Ok(match read_only {
        Some(_) => Opened { medium: medium.reading(), read_only },
        None => Opened { medium, read_only },
    })
}

/// Returns whether a device has the read-only flag. If that is unknown, the first write decides.
fn is_read_only(path: &Path) -> bool {
    let Ok(metadata) = fs::metadata(path) else { return false };
    let rdev = metadata.rdev();
    let flag = format!("/sys/dev/block/{}:{}/ro", libc::major(rdev), libc::minor(rdev));
    fs::read_to_string(flag).is_ok_and(|flag| flag.trim() == "1")
}

fn open_medium(path: &Path, options: &StoreOptions, write: bool) -> Result<Medium, StoreError> {
    let file = open_alone(path, options, write)?;
    lock(&file, path, options.patience, !write)?;
    let failed = |error| FileError::new("cannot read", path, error);
    let signature = Signature::of(&file).map_err(failed)?;
    let medium = Medium::device(file).map_err(failed)?;
    let len = medium.len().map_err(failed)?;
    if let Some(capacity) = options.capacity.filter(|capacity| *capacity > len) {
        return Err(StoreError::CapacityTooLarge { capacity, len, path: path.to_owned() });
    }
    match (signature, options.make) {
        (Signature::Keyhole, Make::Format) => Err(StoreError::AlreadyFormatted(path.to_owned())),
        (Signature::Keyhole, _) => Ok(medium),
        (_, Make::Format) if !write => Err(StoreError::ReadOnlyDevice(path.to_owned())),
        (found, Make::Format) => {
            format(&medium, path, len, options)?;
            tracing::info!(over = found.describe(), "formatted {}", path.display());
            Ok(medium)
        }
        (found, _) => Err(StoreError::NotFormatted { path: path.to_owned(), found: found.describe() }),
    }
}

/// Opens a device exclusively. O_EXCL is the lock of a device, and also excludes mounts; readers
/// share it.
fn open_alone(path: &Path, options: &StoreOptions, write: bool) -> Result<File, StoreError> {
    let deadline = Instant::now() + options.patience;
    loop {
        match OpenOptions::new().read(true).write(write).custom_flags(if write { libc::O_EXCL } else { 0 }).open(path) {
            Ok(file) => return Ok(file),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                if Instant::now() < deadline {
                    thread::sleep(LOCK_RETRY);
                    continue;
                }
                return Err(StoreError::DeviceInUse(path.to_owned()));
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(StoreError::DevicePermission { path: path.to_owned(), error });
            }
            Err(error) => return Err(FileError::new("cannot open", path, error).into()),
        }
    }
}

/// Creates a store, and erases the signatures of other formats.
fn format(medium: &Medium, path: &Path, len: u64, options: &StoreOptions) -> Result<(), StoreError> {
    let format: Format = new_format(options.capacity.unwrap_or(len), options.workers);
    // First of all, since it refuses impossible formats before data is lost.
    block_on(keyhole_log::create(&plain_disk(medium)?, &format))?
        .map_err(|error| StoreError::Format { path: path.to_owned(), error })?;
    wipe(medium, len).map_err(|error| FileError::new("cannot format", path, error))?;
    tracing::info!(capacity = format.capacity, segment_len = format.segment_len, "created {}", path.display());
    Ok(())
}

/// Overwrites signatures at the beginning, between the superblocks and at the end; discards the
/// rest if possible.
fn wipe(medium: &Medium, len: u64) -> io::Result<()> {
    if let Err(error) = medium.discard(SEGMENTS_START, len - SEGMENTS_START) {
        tracing::debug!(%error, "the device is not discarded");
    }
    let zeros = vec![0; LOOKED_AT];
    let after = |copy: usize| SUPERBLOCK_AT[copy] + PAGE as u64;
    let end = len.saturating_sub(END_WIPED).max(SEGMENTS_START);
    for range in [after(0)..SUPERBLOCK_AT[1], after(1)..SEGMENTS_START, end..len] {
        medium.as_file().write_all_at(&zeros[..(range.end - range.start) as usize], range.start)?;
    }
    medium.as_file().sync_all()
}

const _: () = {
    assert!(LOOKED_AT as u64 >= SEGMENTS_START && LOOKED_AT as u64 >= END_WIPED);
    assert!(SUPERBLOCK_AT[0] == 0 && SUPERBLOCK_AT[0] < SUPERBLOCK_AT[1] && SUPERBLOCK_AT[1] < SEGMENTS_START);
};
