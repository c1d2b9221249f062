//! An estimate of the memory that the index of a store takes.

use std::cell::RefCell;

use super::base::{CheckpointReader, Headers};
use super::superblock;
use crate::disk::Disk;
use crate::error::Error;
use crate::index::Location;
use crate::limits::INDEX_OF_CHECKPOINT;

/// Estimates the index memory of a store in bytes, from the length of its newest checkpoint. `None`
/// if no checkpoint can be read. Records written since then are not counted.
///
/// # Errors
/// Those of [`open`](crate::open()), except damage.
pub async fn estimate_index<D: Disk>(disk: &D) -> Result<Option<u64>, Error> {
    let (superblock, _) = superblock::read(disk).await?;
    let at = Location::from_raw(superblock.checkpoints[0]);
    if at == Location::LOST {
        return Ok(None);
    }
    let reader = CheckpointReader { disk, superblock: &superblock, headers: &Headers::new(), bad: RefCell::default() };
    match reader.end(at).await {
        Ok((end, _)) => {
            let items: u64 = end.item_records.iter().map(|&record| u64::from(Location::from_raw(record).len())).sum();
            let (index, checkpoint) = INDEX_OF_CHECKPOINT;
            Ok(Some(items / checkpoint * index))
        }
        Err(Error::Damaged(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
