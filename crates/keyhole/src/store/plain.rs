//! Disk access before and without workers.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::buffer::Pools;
use crate::epoll::PlainDisk;
use crate::error::SystemError;
use crate::medium::Medium;
use crate::platform::AnyDisk;

/// Returns the disk for work outside the workers.
pub(crate) fn plain_disk(medium: &Medium) -> Result<AnyDisk, SystemError> {
    open(medium).map(AnyDisk::Plain)
}

/// As [`plain_disk`], with reads in short steps: for work that the requests of clients must not wait for.
pub(crate) fn stepping_disk(medium: &Medium) -> Result<AnyDisk, SystemError> {
    Ok(AnyDisk::Plain(open(medium)?.in_steps()))
}

/// As [`plain_disk`], with a counter of the bytes that it reads.
pub(super) fn counting_disk(medium: &Medium, read: Arc<AtomicU64>) -> Result<AnyDisk, SystemError> {
    Ok(AnyDisk::Plain(open(medium)?.counting(read)))
}

fn open(medium: &Medium) -> Result<PlainDisk, SystemError> {
    let medium = medium.try_clone().map_err(|error| SystemError::new("cannot duplicate a descriptor", error))?;
    Ok(PlainDisk::new(medium, Pools::default()))
}

/// Runs a future to completion before there are workers.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> Result<T, SystemError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| SystemError::new("cannot start the async runtime", error))?;
    Ok(runtime.block_on(future))
}
