//! Fallback where io_uring is refused (most containers): files by plain calls on blocking threads,
//! connections by epoll.

mod disk;
mod net;

use std::io;

use tokio::task::LocalSet;

use crate::buffer::Pools;
use crate::worker::{self, Setup};

pub(crate) use disk::PlainDisk;
use net::EpollListener;

/// Runs a worker and calls `done` when it has finished.
pub(crate) fn run(setup: Setup, done: impl FnOnce()) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let disk = PlainDisk::new(setup.medium.try_clone()?, Pools::new(setup.config.share));
    LocalSet::new().block_on(&runtime, worker::run(setup, disk, EpollListener::new))?;
    done();
    Ok(())
}
