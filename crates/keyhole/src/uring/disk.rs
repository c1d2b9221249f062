//! The object file through the ring.

use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use keyhole_log::Disk;
use tokio_uring::buf::BoundedBuf;
use tokio_uring::fs::File;

use crate::buffer::{Block, Pool};

/// One thread's handle of the object file.
pub(crate) struct UringDisk {
    ring: File,
    /// The same description, for what is not an operation of the ring.
    plain: std::fs::File,
    pool: Pool,
}

impl UringDisk {
    pub(crate) fn new(file: std::fs::File, pool: Pool) -> Self {
        let plain = file.try_clone().expect("a descriptor for the object file");
        UringDisk { ring: File::from_std(file), plain, pool }
    }
}

impl Disk for UringDisk {
    type Buf = Block;

    fn buffer(&self) -> Block {
        self.pool.take()
    }

    async fn read(&self, offset: u64, buf: Block, at: Range<usize>) -> (io::Result<()>, Block) {
        if at.is_empty() {
            return (Ok(()), buf);
        }
        let (result, slice) = self.ring.read_exact_at(buf.slice(at), offset).await;
        (result, slice.into_inner())
    }

    async fn write(&self, offset: u64, buf: Block, at: Range<usize>) -> (io::Result<()>, Block) {
        if at.is_empty() {
            return (Ok(()), buf);
        }
        let (result, slice) = self.ring.write_all_at(buf.slice(at), offset).await;
        (result, slice.into_inner())
    }

    async fn sync(&self) -> io::Result<()> {
        if cfg!(feature = "skip-sync") {
            return Ok(());
        }
        self.ring.sync_data().await
    }

    async fn len(&self) -> io::Result<u64> {
        Ok(self.plain.metadata()?.len())
    }

    async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        match self.ring.fallocate(offset, len, 0).await {
            Err(error) => allocate_without(&self.plain, offset, len, error),
            Ok(()) => Ok(()),
        }
    }
}

/// Where the file system has no fallocate, the file is at least made long enough; other errors stay what they are.
pub(crate) fn allocate_without(file: &std::fs::File, offset: u64, len: u64, error: io::Error) -> io::Result<()> {
    if error.raw_os_error() != Some(libc::EOPNOTSUPP) {
        return Err(error);
    }
    tracing::debug!(fd = file.as_raw_fd(), "the file system has no fallocate");
    let end = offset + len;
    if file.metadata()?.len() < end { file.set_len(end) } else { Ok(()) }
}
