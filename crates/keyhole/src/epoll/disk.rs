//! Disk access by plain calls on the runtime's blocking threads.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use keyhole_log::limits::BUFFER_LEN;
use keyhole_log::{Disk, Extent};
use tokio::task::spawn_blocking;

use crate::buffer::{Buffer, Pools};
use crate::medium::Medium;

/// One thread's handle of the object file or device.
pub(crate) struct PlainDisk {
    medium: Arc<Medium>,
    /// The handle for direct writes, if they are possible.
    direct: Option<Arc<File>>,
    pools: Pools,
    /// Counter of the bytes read, if requested.
    read: Option<Arc<AtomicU64>>,
}

impl PlainDisk {
    pub(crate) fn new(medium: Medium, pools: Pools) -> Self {
        let direct = medium.direct().map(Arc::new);
        PlainDisk { medium: Arc::new(medium), direct, pools, read: None }
    }

    /// Returns this handle with a counter of the bytes that it reads.
    pub(crate) fn counting(mut self, read: Arc<AtomicU64>) -> Self {
        self.read = Some(read);
        self
    }

    /// Runs a call that may block. If the future is dropped, the call still runs to its end.
    async fn call<T: Send + 'static>(&self, call: impl FnOnce(&Medium) -> T + Send + 'static) -> T {
        let medium = self.medium.clone();
        spawn_blocking(move || call(&medium)).await.expect("a file call that neither panics nor is cancelled")
    }
}

impl Disk for PlainDisk {
    type Buf = Buffer;

    fn buffer(&self) -> Buffer {
        self.pools.take(BUFFER_LEN)
    }

    fn buffer_with_len(&self, len: usize) -> Buffer {
        self.pools.take(len)
    }

    fn slice(buf: &mut Buffer, at: Range<usize>) -> &mut [u8] {
        buf.slice_mut(at)
    }

    fn mark_ciphertext(buf: &mut Buffer) {
        buf.mark_ciphertext();
    }

    async fn read(&self, offset: u64, mut buf: Buffer, at: Range<usize>) -> (io::Result<()>, Buffer) {
        let len = at.len() as u64;
        let (result, buf) =
            self.call(move |medium| (medium.as_file().read_exact_at(buf.slice_mut(at), offset), buf)).await;
        if let Some(read) = &self.read {
            read.fetch_add(len, Ordering::Relaxed);
        }
        (result, buf)
    }

    async fn write(&self, offset: u64, buf: Buffer, at: Range<usize>) -> (io::Result<()>, Buffer) {
        let direct = self.direct.clone();
        self.call(move |medium| (medium.write(direct.as_deref(), &buf.as_ref()[at], offset), buf)).await
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

    async fn extents(&self) -> io::Result<Option<Vec<Extent>>> {
        self.call(Medium::extents).await
    }

    fn first_write_is_slow(&self) -> bool {
        self.medium.device_len().is_none()
    }

    async fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.call(move |medium| medium.discard(offset, len)).await
    }
}
