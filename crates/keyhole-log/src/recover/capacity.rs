//! Limits on the capacity of a file, and its extension to whole segments.

use crate::disk::{Disk, is_full};
use crate::error::Error;
use crate::limits::{CAPACITY_MAX, SEGMENT_LEN_MAX, SEGMENT_LEN_MIN, SEGMENTS_MAX, SEGMENTS_START, capacity_min};
use crate::segments::Segments;
use crate::wire::superblock::Superblock;

pub(super) fn check_segment_len(len: u64) -> Result<(), Error> {
    if len.is_power_of_two() && (SEGMENT_LEN_MIN..=SEGMENT_LEN_MAX).contains(&len) {
        return Ok(());
    }
    Err(Error::Capacity(format!(
        "invalid segment length {len}: expected a power of two from {SEGMENT_LEN_MIN} to {SEGMENT_LEN_MAX}"
    )))
}

/// Checks that the capacity holds a META and a BODY segment.
pub(super) fn check_capacity(capacity: u64, segment_len: u64) -> Result<(), Error> {
    let most = Segments::most(segment_len, capacity);
    if capacity > CAPACITY_MAX {
        return Err(Error::Capacity(format!("a capacity of {capacity} bytes exceeds the maximum of {CAPACITY_MAX}")));
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

/// Checks that one worker can delete everything and fill the file again.
pub(super) fn check_capacity_min(capacity: u64, segment_len: u64) -> Result<(), Error> {
    if capacity < capacity_min(segment_len, 1) { Err(too_little(capacity, segment_len)) } else { Ok(()) }
}

fn too_little(capacity: u64, segment_len: u64) -> Error {
    let least = capacity_min(segment_len, 1);
    Error::Capacity(format!(
        "a capacity of {capacity} bytes is too little for segments of {segment_len} bytes: at least {least} are needed"
    ))
}

/// Extends the file to the end of its last segment.
pub(super) async fn take_space<D: Disk>(
    disk: &D,
    superblock: &Superblock,
    capacity: u64,
    in_use: u64,
    file_len: u64,
) -> Result<(), Error> {
    if file_len < in_use {
        // The file was truncated. The loss is reported; new writes need the space.
        let grown = disk.allocate(file_len, in_use - file_len).await;
        return grown.map_err(|error| {
            if !is_full(&error) {
                return error.into();
            }
            let why = "and there is no space to extend it";
            Error::ReadOnly(format!("the medium has {file_len} bytes, the store needs {in_use}, {why}").into())
        });
    }
    let segments = (file_len - SEGMENTS_START).div_ceil(superblock.segment_len);
    let whole = SEGMENTS_START + segments * superblock.segment_len;
    // A crash interrupted the allocation of the last segment. Used as it is, the segment would look
    // truncated after another crash. Without space it stays as it is.
    if whole > file_len && whole <= capacity {
        let grown = disk.allocate(file_len, whole - file_len).await;
        grown.or_else(|error| if is_full(&error) { Ok(()) } else { Err(error) })?;
    }
    Ok(())
}
