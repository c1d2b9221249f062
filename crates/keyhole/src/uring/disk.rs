//! The object file or device through the ring.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use keyhole_log::Disk;
use tokio::task::spawn_blocking;
use tokio_uring::buf::BoundedBuf;
use tokio_uring::fs::File;

use crate::buffer::{Block, Pool};
use crate::medium::{self, Medium};

/// One thread's handle of the object file or device.
pub(crate) struct UringDisk {
    ring: File,
    /// The same description, for what is not an operation of the ring.
    medium: Arc<Medium>,
    pool: Pool,
}

impl UringDisk {
    pub(crate) fn new(medium: Medium, pool: Pool) -> io::Result<Self> {
        let ring = File::from_std(medium.as_file().try_clone()?);
        Ok(UringDisk { ring, medium: Arc::new(medium), pool })
    }
}

impl Disk for UringDisk {
    type Buf = Block;

    fn buffer(&self) -> Block {
        self.pool.take()
    }

    fn part(buf: &mut Block, at: Range<usize>) -> &mut [u8] {
        buf.part(at)
    }

    async fn read(&self, offset: u64, mut buf: Block, at: Range<usize>) -> (io::Result<()>, Block) {
        if at.is_empty() {
            return (Ok(()), buf);
        }
        buf.receive(at.end);
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
        self.medium.len()
    }

    async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.medium.device_len().is_some() {
            return self.medium.allocate_on_device(offset, len);
        }
        match self.ring.fallocate(offset, len, 0).await {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => self.medium.allocate_without(offset, len),
            result => result,
        }
    }

    async fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.medium.device_len().is_none() {
            return self.ring.fallocate(offset, len, medium::PUNCH_HOLE).await.map_err(medium::unsupported);
        }
        // The ring has no operation for it.
        let medium = self.medium.clone();
        spawn_blocking(move || medium.discard(offset, len)).await.expect("a call that neither panics nor is cancelled")
    }
}
