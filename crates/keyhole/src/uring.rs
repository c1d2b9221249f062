//! tokio-uring, behind two small modules: disk and network. It is unmaintained, so no other module
//! names it, and its pitfalls are handled here:
//!
//! - An operation in flight is never dropped: a connection that is silent for too long is shut
//!   down, and the operation is awaited ([`timed`](crate::net::ConnectionState::timed)).
//! - A runtime is never dropped with operations in flight: a worker that has finished waits for the
//!   process to exit.
//! - Buffers are our own and fully initialised, and received data is always sliced to its length.

mod bare;
mod disk;
mod net;

use std::io;

use tokio_uring::Runtime;

pub(crate) use bare::{BareFile, Fixed};
pub(crate) use disk::UringDisk;
pub(crate) use net::{UringListener, UringStream};

/// Entries of a ring: each connection has at most one operation in flight, the log's writer a few.
const ENTRIES: u32 = 1024;

fn runtime() -> io::Result<Runtime> {
    let build = |cooperative: bool| {
        let mut ring = tokio_uring::uring_builder();
        if cooperative {
            // Completions run when the thread enters the kernel anyway, instead of interrupting it:
            // a quarter less CPU for small requests. Kernels before 5.19 do not support this.
            ring.setup_coop_taskrun();
        }
        Runtime::new(tokio_uring::builder().entries(ENTRIES).uring_builder(&ring))
    };
    build(true).or_else(|_| build(false))
}

/// Checks whether the system allows io_uring.
pub(crate) fn probe() -> io::Result<()> {
    runtime()?.block_on(tokio_uring::no_op())
}

/// Runs a future on a ring of its own. All its operations must have ended when it returns.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> io::Result<T> {
    Ok(runtime()?.block_on(work))
}
