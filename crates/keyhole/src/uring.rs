//! tokio-uring, behind two small modules: the disk and the network. Nobody maintains it, so it is named nowhere else, and
//! its traps are dealt with here:
//!
//! - an operation in flight is never dropped: a connection that is quiet for too long is shut down, and the operation
//!   awaited ([`worker::Open::timed`]);
//! - a runtime is never dropped while operations are in flight: a worker that is done waits for the process to exit;
//! - buffers are our own, fully initialised, and what was received is always sliced to its length.

mod bare;
mod disk;
mod net;

use std::io;

use tokio_uring::Runtime;

use crate::buffer::Pools;
use crate::worker::{self, Setup};

pub(crate) use bare::{BareFile, Fixed};
pub(crate) use disk::UringDisk;
use net::UringListener;

/// Entries of a ring: every connection has at most one operation in flight, the log's writer a few.
const ENTRIES: u32 = 1024;

fn runtime() -> io::Result<Runtime> {
    let build = |cooperative: bool| {
        let mut ring = tokio_uring::uring_builder();
        if cooperative {
            // Completions are run when the thread enters the kernel anyway, not by an interrupt of its work: a quarter less
            // CPU for small requests. Kernels before 5.19 do not know it.
            ring.setup_coop_taskrun();
        }
        Runtime::new(tokio_uring::builder().entries(ENTRIES).uring_builder(&ring))
    };
    build(true).or_else(|_| build(false))
}

/// Whether the system lets us use io_uring; why not.
pub(crate) fn probe() -> io::Result<()> {
    runtime()?.block_on(tokio_uring::no_op())
}

/// Runs a worker on a ring of its own; returns nothing before the worker is done. `done` is called then, and the thread
/// waits for the end of the process, since its runtime may still have an accept in flight.
pub(crate) fn run(setup: Setup, done: impl FnOnce()) -> io::Result<()> {
    let runtime = runtime()?;
    let medium = setup.medium.try_clone()?;
    runtime.block_on(async move {
        let disk = UringDisk::new(medium, Pools::new(setup.config.share))?;
        worker::run(setup, disk, UringListener::new).await?;
        done();
        std::future::pending().await
    })
}

/// Runs what measures on a ring of its own. All its operations have ended when it does.
pub(crate) fn measure<T>(work: impl Future<Output = T>) -> io::Result<T> {
    Ok(runtime()?.block_on(work))
}
