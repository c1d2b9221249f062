//! The object file by plain calls, on the runtime's blocking threads.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use keyhole_log::Disk;
use tokio::task::spawn_blocking;

use crate::buffer::{Block, Pool};

/// One thread's handle of the object file.
pub(crate) struct PlainDisk {
    file: Arc<File>,
    pool: Pool,
}

impl PlainDisk {
    pub(crate) fn new(file: File, pool: Pool) -> Self {
        PlainDisk { file: Arc::new(file), pool }
    }

    /// Runs a call where it may block. A future that is dropped leaves the call to run to its end.
    async fn call<T: Send + 'static>(&self, call: impl FnOnce(&File) -> T + Send + 'static) -> T {
        let file = self.file.clone();
        spawn_blocking(move || call(&file)).await.expect("a file call that neither panics nor is cancelled")
    }
}

impl Disk for PlainDisk {
    type Buf = Block;

    fn buffer(&self) -> Block {
        self.pool.take()
    }

    async fn read(&self, offset: u64, mut buf: Block, at: Range<usize>) -> (io::Result<()>, Block) {
        self.call(move |file| (file.read_exact_at(&mut buf.as_mut()[at], offset), buf)).await
    }

    async fn write(&self, offset: u64, buf: Block, at: Range<usize>) -> (io::Result<()>, Block) {
        self.call(move |file| (file.write_all_at(&buf.as_ref()[at], offset), buf)).await
    }

    async fn sync(&self) -> io::Result<()> {
        if cfg!(feature = "skip-sync") {
            return Ok(());
        }
        self.call(|file| file.sync_data()).await
    }

    async fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.call(move |file| {
            let (start, count) = (offset.try_into().unwrap_or(i64::MAX), len.try_into().unwrap_or(i64::MAX));
            // SAFETY: the call takes numbers alone, and the descriptor is open as long as `file` is.
            match unsafe { libc::fallocate(file.as_raw_fd(), 0, start, count) } {
                0 => Ok(()),
                _ => crate::uring::allocate_without(file, offset, len, io::Error::last_os_error()),
            }
        })
        .await
    }
}
