//! Fallback where io_uring is refused (most containers): files by plain calls on blocking threads,
//! connections by epoll.

mod disk;
mod net;

use std::io;

use tokio::task::LocalSet;

pub(crate) use disk::PlainDisk;
pub(crate) use net::{EpollListener, EpollStream};

/// Runs a future on a poller of its own.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(LocalSet::new().block_on(&runtime, work))
}
