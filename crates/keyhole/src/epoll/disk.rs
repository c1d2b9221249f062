//! Disk access by plain calls on the runtime's blocking threads.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use keyhole_log::limits::BUFFER_LEN;
use keyhole_log::{Access, Disk, Extent};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use crate::buffer::{Buffer, Pools};
use crate::medium::Medium;
use crate::read_path::{ReadMeter, SMALL_READ_MAX};
use crate::skip_sync::skips_syncs;

/// Bytes of a read of a handle that reads in steps.
const STEP_LEN: usize = 128 << 10;

/// One thread's handle of the object file or device.
pub(crate) struct PlainDisk {
    medium: Arc<Medium>,
    /// The handle for direct reads and writes, if they are possible.
    direct: Option<Arc<File>>,
    pools: Pools,
    meter: ReadMeter,
    /// Counter of the bytes read, if requested.
    read: Option<Arc<AtomicU64>>,
    /// Held during a read, if reads are made in steps.
    stepping: Option<Mutex<()>>,
}

impl PlainDisk {
    pub(crate) fn new(medium: Medium, pools: Pools) -> Self {
        let direct = medium.direct().map(Arc::new);
        let meter = ReadMeter::new(medium.read_path().clone());
        PlainDisk { medium: Arc::new(medium), direct, pools, meter, read: None, stepping: None }
    }

    /// Returns this handle with a counter of the bytes that it reads.
    pub(crate) fn counting(mut self, read: Arc<AtomicU64>) -> Self {
        self.read = Some(read);
        self
    }

    /// Returns this handle with reads in short steps, one after the other. The writes and syncs of other
    /// handles wait behind long reads.
    pub(crate) fn in_steps(mut self) -> Self {
        self.stepping = Some(Mutex::default());
        self
    }

    /// Reads with `direct` if that is given and accepted.
    async fn read_by(
        &self,
        direct: Option<Arc<File>>,
        offset: u64,
        mut buf: Buffer,
        at: Range<usize>,
    ) -> (io::Result<()>, Buffer) {
        let len = at.len();
        let (_turn, step) = match &self.stepping {
            Some(stepping) => (Some(stepping.lock().await), STEP_LEN),
            None => (None, usize::MAX),
        };
        let call =
            move |medium: &Medium| (read_in_steps(medium, direct.as_deref(), buf.slice_mut(at), offset, step), buf);
        let ((result, access), buf) = self.call(call).await;
        self.meter.count(access, len);
        if let Some(read) = &self.read {
            read.fetch_add(len as u64, Ordering::Relaxed);
        }
        (result, buf)
    }

    /// Runs a call that may block. If the future is dropped, the call still runs to its end.
    async fn call<T: Send + 'static>(&self, call: impl FnOnce(&Medium) -> T + Send + 'static) -> T {
        let medium = self.medium.clone();
        spawn_blocking(move || call(&medium)).await.expect("a file call that neither panics nor is cancelled")
    }
}

/// Reads in steps of at most this length. Returns how the last one was made.
fn read_in_steps(
    medium: &Medium,
    direct: Option<&File>,
    buf: &mut [u8],
    mut offset: u64,
    step: usize,
) -> (io::Result<()>, Access) {
    let mut done = (Ok(()), Access::Cached);
    for part in buf.chunks_mut(step) {
        done = medium.read(direct, part, offset);
        if done.0.is_err() {
            break;
        }
        offset += part.len() as u64;
    }
    done
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

    fn wipe(buf: &mut Buffer, at: Range<usize>) {
        buf.wipe(at);
    }

    async fn read(&self, offset: u64, buf: Buffer, at: Range<usize>) -> (io::Result<()>, Buffer) {
        self.read_by(None, offset, buf, at).await
    }

    async fn read_direct(&self, offset: u64, buf: Buffer, at: Range<usize>) -> (io::Result<()>, Buffer) {
        self.read_by(self.direct.clone(), offset, buf, at).await
    }

    async fn read_short(&self, offset: u64, buf: Buffer, at: Range<usize>) -> (io::Result<()>, Buffer) {
        let range = offset..offset + at.len() as u64;
        if at.len() > SMALL_READ_MAX && self.choose_access(offset, range) == Access::Direct {
            return self.read_direct(offset, buf, at).await;
        }
        self.read(offset, buf, at).await
    }

    fn choose_access(&self, block: u64, range: Range<u64>) -> Access {
        if self.direct.is_none() {
            return Access::Cached;
        }
        self.medium.read_path().choose(self.medium.as_file(), block, range)
    }

    async fn write(&self, offset: u64, buf: Buffer, at: Range<usize>) -> (io::Result<()>, Buffer) {
        let direct = self.direct.clone();
        self.call(move |medium| (medium.write(direct.as_deref(), &buf.as_ref()[at], offset), buf)).await
    }

    async fn sync(&self) -> io::Result<()> {
        if skips_syncs() {
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn read_in_steps_returns_the_same_bytes() {
        let file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..3 * STEP_LEN + 4096).map(|index| (index / 4096) as u8).collect();
        file.write_all_at(&bytes, 0).unwrap();
        let disk = PlainDisk::new(Medium::file(file), Pools::default()).in_steps();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for (offset, len) in [(0, 4096), (4096, STEP_LEN), (0, STEP_LEN + 4096), (4096, 3 * STEP_LEN)] {
                for is_direct in [false, true] {
                    let buf = disk.buffer();
                    let read = if is_direct {
                        disk.read_direct(offset, buf, 0..len).await
                    } else {
                        disk.read(offset, buf, 0..len).await
                    };
                    read.0.unwrap();
                    assert!(read.1.as_ref()[..len] == bytes[offset as usize..][..len], "{len} bytes at {offset}");
                }
            }
            let (beyond, _) = disk.read(bytes.len() as u64 - 4096, disk.buffer(), 0..2 * STEP_LEN).await;
            assert!(beyond.is_err());
        });
    }
}
