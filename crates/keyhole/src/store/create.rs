//! Creation of an object file.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use keyhole_log::Format;
use keyhole_log::limits::{SEGMENT_LEN, SEGMENT_LEN_MIN, SEGMENTS_START};
use keyhole_node::Services;

use super::error::StoreError;
use super::options::StoreOptions;
use super::plain::{block_on, plain_disk};
use crate::env::System;
use crate::error::FileError;
use crate::medium::{self, Medium};

/// Default capacity of a new object file, in percent of the free space.
const CAPACITY_PERCENT: u64 = 80;

/// Minimum count of segments: with a small capacity, segments are shortened down to the format's
/// minimum.
const SEGMENTS_WANTED: u64 = 128;

/// Creates the object file under a temporary name, and renames it once it is complete and durable.
pub(super) fn create(data: &Path, path: &Path, directory: &File, options: &StoreOptions) -> Result<Medium, StoreError> {
    let failed = |error| FileError::new("cannot create", path, error);
    let capacity = match options.capacity {
        Some(capacity) => capacity,
        None => free_space(data).map_err(failed)? / 100 * CAPACITY_PERCENT,
    };
    let new = path.with_extension("keyhole.new");
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(failed)?;
    let format = new_format(capacity, options.workers);
    let medium = Medium::file(file);
    medium.write_in_place();
    block_on(keyhole_log::create(&plain_disk(&medium)?, &format))?
        .map_err(|error| StoreError::Create { path: path.to_owned(), error })?;
    fs::rename(&new, path).map_err(failed)?;
    directory.sync_all().map_err(failed)?;
    tracing::info!(capacity, segment_len = format.segment_len, "created {}", path.display());
    Ok(medium)
}

/// Returns the format of a new store.
pub(super) fn new_format(capacity: u64, workers: usize) -> Format {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_len_shrinks_with_capacity() {
        assert_eq!(segment_len(1 << 40, 2), SEGMENT_LEN);
        assert_eq!(segment_len(1 << 30, 2), 4 << 20);
        assert_eq!(segment_len(32 << 20, 2), SEGMENT_LEN_MIN);
        assert_eq!(segment_len(0, 2), SEGMENT_LEN_MIN);
    }
}
