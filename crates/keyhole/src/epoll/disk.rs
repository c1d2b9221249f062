//! The object file or device by plain calls, on the runtime's blocking threads.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use keyhole_log::Disk;
use tokio::task::spawn_blocking;

use crate::buffer::{Block, Pool};
use crate::medium::Medium;

/// One thread's handle of the object file or device.
pub(crate) struct PlainDisk {
    medium: Arc<Medium>,
    pool: Pool,
}

impl PlainDisk {
    pub(crate) fn new(medium: Medium, pool: Pool) -> Self {
        PlainDisk { medium: Arc::new(medium), pool }
    }

    /// Runs a call where it may block. A future that is dropped leaves the call to run to its end.
    async fn call<T: Send + 'static>(&self, call: impl FnOnce(&Medium) -> T + Send + 'static) -> T {
        let medium = self.medium.clone();
        spawn_blocking(move || call(&medium)).await.expect("a file call that neither panics nor is cancelled")
    }
}

impl Disk for PlainDisk {
    type Buf = Block;

    fn buffer(&self) -> Block {
        self.pool.take()
    }

    fn part(buf: &mut Block, at: Range<usize>) -> &mut [u8] {
        buf.part(at)
    }

    async fn read(&self, offset: u64, mut buf: Block, at: Range<usize>) -> (io::Result<()>, Block) {
        self.call(move |medium| (medium.as_file().read_exact_at(buf.part(at), offset), buf)).await
    }

    async fn write(&self, offset: u64, buf: Block, at: Range<usize>) -> (io::Result<()>, Block) {
        self.call(move |medium| (medium.as_file().write_all_at(&buf.as_ref()[at], offset), buf)).await
    }

    async fn sync(&self) -> io::Result<()> {
        if cfg!(feature = "skip-sync") {
            return Ok(());
        }
        self.call(|medium| medium.as_file().sync_data()).await
    }

    async fn len(&self) -> io::Result<u64> {
        self.medium.len()
    }

    async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.call(move |medium| medium.allocate(offset, len)).await
    }

    async fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.call(move |medium| medium.discard(offset, len)).await
    }
}
