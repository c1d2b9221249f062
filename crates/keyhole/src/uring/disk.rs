//! Disk access through the ring.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;

use io_uring::{cqueue, opcode, squeue, types};
use keyhole_log::limits::{BUFFER_LEN, PAGE};
use keyhole_log::{Access, Disk, Extent};
use tokio::task::spawn_blocking;
use tokio_uring::{OneshotOutputTransform, UnsubmittedOneshot};

use crate::buffer::{Buffer, Pools};
use crate::medium::{self, Medium};
use crate::read_path::{ReadMeter, SMALL_READ_MAX};
use crate::skip_sync::skips_syncs;

/// Longest read that is first tried in the page cache without the ring: a round trip through the
/// ring takes longer than the copy. Bytes that are not there begin to be read into the cache.
const READ_AT_ONCE_MAX: usize = 128 * 1024;

/// One thread's handle of the object file or device.
pub(crate) struct UringDisk {
    ring: tokio_uring::fs::File,
    /// The handle for reads and writes through the page cache.
    cached: Rc<File>,
    /// The handle for direct reads and writes, if they are possible.
    direct: Option<Rc<File>>,
    /// Direct I/O was refused because the device or the file system requires another alignment.
    refused: Cell<bool>,
    /// The same open file, for calls that are not operations of the ring.
    medium: Arc<Medium>,
    pools: Pools,
    meter: ReadMeter,
}

impl UringDisk {
    pub(crate) fn new(medium: Medium, pools: Pools) -> io::Result<Self> {
        let ring = tokio_uring::fs::File::from_std(medium.as_file().try_clone()?);
        let cached = Rc::new(medium.as_file().try_clone()?);
        let direct = medium.direct().map(Rc::new);
        let meter = ReadMeter::new(medium.read_path().clone());
        Ok(UringDisk { ring, cached, direct, refused: Cell::new(false), medium: Arc::new(medium), pools, meter })
    }

    /// Runs a call that the ring has no operation for on a blocking thread.
    async fn call<T: Send + 'static>(&self, call: impl FnOnce(&Medium) -> T + Send + 'static) -> T {
        let medium = self.medium.clone();
        spawn_blocking(move || call(&medium)).await.expect("a call that neither panics nor is cancelled")
    }

    /// Writes everything: directly as far as the kernel accepts it, the rest through the page
    /// cache. Returns whether all of it was direct.
    async fn write_all(&self, offset: u64, buf: Buffer, at: Range<usize>, flags: i32) -> (io::Result<bool>, Buffer) {
        let (result, mut buf) = self.write_direct(offset, buf, &at, flags).await;
        let mut len = match result {
            Ok(len) if len == at.len() => return (Ok(true), buf),
            Ok(len) => len,
            Err(error) => return (Err(error), buf),
        };
        while len < at.len() {
            let rest = at.start + len..at.end;
            let (result, back) = write_once(&self.cached, offset + len as u64, buf, &rest, 0).await;
            buf = back;
            match result {
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buf),
                Ok(count) => len += count,
                Err(error) => return (Err(error), buf),
            }
        }
        (Ok(false), buf)
    }

    /// Writes directly as far as the kernel accepts it; returns the count of bytes.
    async fn write_direct(
        &self,
        offset: u64,
        buf: Buffer,
        at: &Range<usize>,
        flags: i32,
    ) -> (io::Result<usize>, Buffer) {
        let Some(file) = self.direct() else { return (Ok(0), buf) };
        let (result, buf) = write_once(file, offset, buf, at, flags).await;
        (self.unless_refused(result), buf)
    }

    /// Reads directly as far as the kernel accepts it and the file reaches; returns the count of
    /// bytes.
    async fn read_as_direct(&self, offset: u64, mut buf: Buffer, at: &Range<usize>) -> (io::Result<usize>, Buffer) {
        buf.receive(at.end);
        let mut len = 0;
        // The rest of a page at the end of a file, which is not aligned, is left to the page cache.
        while len < at.len() && len.is_multiple_of(PAGE) {
            let Some(file) = self.direct() else { break };
            let (result, back) = read_once(file, offset + len as u64, buf, at.start + len..at.end).await;
            buf = back;
            match self.unless_refused(result) {
                Ok(0) => break,
                Ok(count) => len += count,
                Err(error) => return (Err(error), buf),
            }
        }
        (Ok(len), buf)
    }

    /// Returns the handle for direct I/O, unless that was refused.
    fn direct(&self) -> Option<&Rc<File>> {
        self.direct.as_ref().filter(|_| !self.refused.get())
    }

    /// Records a refusal of direct I/O, which has moved no bytes.
    fn unless_refused(&self, result: io::Result<usize>) -> io::Result<usize> {
        match result {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                tracing::info!("no direct I/O: using the page cache");
                self.refused.set(true);
                Ok(0)
            }
            result => result,
        }
    }
}

/// The resources of an operation in flight: they keep the file open and the buffer in place.
struct InFlight {
    _file: Rc<File>,
    buf: Buffer,
}

/// Returns the buffer with the count of bytes moved.
struct Moved;

impl OneshotOutputTransform for Moved {
    type Output = (io::Result<usize>, Buffer);
    type StoredData = InFlight;

    fn transform_oneshot_output(self, data: InFlight, cqe: cqueue::Entry) -> Self::Output {
        let result = usize::try_from(cqe.result()).map_err(|_| io::Error::from_raw_os_error(-cqe.result()));
        (result, data.buf)
    }
}

/// Attempts at a transfer that the kernel answers with `EAGAIN`.
const ATTEMPTS: usize = 8;

/// Submits a transfer of the buffer until the kernel has made some of it, or has failed.
///
/// The first attempt is started without waiting, and the kernel waits on its own where it has to. Linux 6.1
/// sometimes answers `EAGAIN` in place of that, for reads through the page cache over the device mapper for
/// one. A thread of the kernel makes the later attempts, and waits.
async fn transfer(
    file: &Rc<File>,
    mut buf: Buffer,
    entry: impl Fn(types::Fd, &mut Buffer) -> squeue::Entry,
) -> (io::Result<usize>, Buffer) {
    let mut busy = 0;
    loop {
        let flags = if busy == 0 { squeue::Flags::empty() } else { squeue::Flags::ASYNC };
        let entry = entry(types::Fd(file.as_raw_fd()), &mut buf).flags(flags);
        let data = InFlight { _file: Rc::clone(file), buf };
        let (result, back) = UnsubmittedOneshot::new(data, Moved, entry).submit().await;
        buf = back;
        match result.as_ref().map_err(io::Error::kind) {
            Err(io::ErrorKind::Interrupted) => {}
            Err(io::ErrorKind::WouldBlock) if busy + 1 < ATTEMPTS => busy += 1,
            _ => return (result, buf),
        }
    }
}

/// Writes once with flags, which tokio-uring does not support.
pub(super) async fn write_once(
    file: &Rc<File>,
    offset: u64,
    buf: Buffer,
    at: &Range<usize>,
    flags: i32,
) -> (io::Result<usize>, Buffer) {
    transfer(file, buf, |fd, buf| {
        let from = &buf.as_ref()[at.clone()];
        let len = u32::try_from(from.len()).expect("a write within a buffer");
        opcode::Write::new(fd, from.as_ptr(), len).offset(offset).rw_flags(flags).build()
    })
    .await
}

/// Reads once into `at` of the buffer.
async fn read_once(file: &Rc<File>, offset: u64, buf: Buffer, at: Range<usize>) -> (io::Result<usize>, Buffer) {
    transfer(file, buf, |fd, buf| {
        let to = buf.slice_mut(at.clone());
        let len = u32::try_from(to.len()).expect("a read within a buffer");
        opcode::Read::new(fd, to.as_mut_ptr(), len).offset(offset).build()
    })
    .await
}

impl Disk for UringDisk {
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

    async fn read(&self, offset: u64, mut buf: Buffer, at: Range<usize>) -> (io::Result<()>, Buffer) {
        if at.is_empty() {
            return (Ok(()), buf);
        }
        self.meter.count(Access::Cached, at.len());
        buf.receive(at.end);
        let mut len = 0;
        while len < at.len() {
            let rest = at.start + len..at.end;
            let (result, back) = read_once(&self.cached, offset + len as u64, buf, rest).await;
            buf = back;
            match result {
                Ok(0) => return (Err(io::ErrorKind::UnexpectedEof.into()), buf),
                Ok(count) => len += count,
                Err(error) => return (Err(error), buf),
            }
        }
        (Ok(()), buf)
    }

    async fn read_short(&self, offset: u64, mut buf: Buffer, at: Range<usize>) -> (io::Result<()>, Buffer) {
        let range = offset..offset + at.len() as u64;
        if at.len() > SMALL_READ_MAX && self.choose_access(offset, range) == Access::Direct {
            return self.read_direct(offset, buf, at).await;
        }
        if at.len() <= READ_AT_ONCE_MAX {
            match self.medium.read_cached(buf.slice_mut(at.clone()), offset) {
                Ok(len) if len == at.len() => {
                    self.meter.count(Access::Cached, len);
                    return (Ok(()), buf);
                }
                // Leave the rest to the ring: it waits for uncached data and reports errors.
                Ok(_) | Err(_) => {}
            }
        }
        self.read(offset, buf, at).await
    }

    async fn read_direct(&self, offset: u64, buf: Buffer, at: Range<usize>) -> (io::Result<()>, Buffer) {
        let (result, buf) = self.read_as_direct(offset, buf, &at).await;
        match result {
            Ok(0) => self.read(offset, buf, at).await,
            Ok(len) => {
                self.meter.count(Access::Direct, len);
                self.read(offset + len as u64, buf, at.start + len..at.end).await
            }
            Err(error) => (Err(error), buf),
        }
    }

    fn choose_access(&self, block: u64, range: Range<u64>) -> Access {
        match self.direct() {
            Some(_) => self.medium.read_path().choose(self.medium.as_file(), block, range),
            None => Access::Cached,
        }
    }

    async fn write(&self, offset: u64, buf: Buffer, at: Range<usize>) -> (io::Result<()>, Buffer) {
        let (result, buf) = self.write_all(offset, buf, at, 0).await;
        (result.map(|_| ()), buf)
    }

    async fn write_durable(&self, offset: u64, buf: Buffer, at: Range<usize>) -> (io::Result<()>, Buffer) {
        if skips_syncs() {
            return self.write(offset, buf, at).await;
        }
        let (result, buf) = self.write_all(offset, buf, at, libc::RWF_DSYNC).await;
        match result {
            Ok(true) => (Ok(()), buf),
            // Writes through the cache do not carry the flag.
            Ok(false) => (self.ring.sync_data().await, buf),
            Err(error) => (Err(error), buf),
        }
    }

    async fn sync(&self) -> io::Result<()> {
        if skips_syncs() {
            return Ok(());
        }
        self.ring.sync_data().await
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
        if self.medium.device_len().is_none() {
            return self.ring.fallocate(offset, len, medium::PUNCH_HOLE).await.map_err(medium::unsupported);
        }
        self.call(move |medium| medium.discard(offset, len)).await
    }
}
