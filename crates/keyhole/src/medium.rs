//! The medium of the objects, a file or a block device, and its calls other than reads and writes.
//!
//! A file grows with `fallocate` as segments are begun, and returns space as holes. A device has a
//! fixed length and returns space with `BLKDISCARD`. Writes bypass the page cache (`O_DIRECT`) if the
//! file system allows it: written data is rarely read soon, and the copy and the write-back would
//! dominate the cost. Reads use the page cache or bypass it ([`ReadPath`]).

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fiemap::{Fiemap, FiemapExtentFlags, FiemapFlags};
use keyhole_log::limits::PAGE;
use keyhole_log::{Access, Extent};

use crate::read_path::ReadPath;

/// An open file or device. Clones share the open file description: its lock lasts until the last
/// one is dropped.
pub(crate) struct Medium {
    file: File,
    /// Length of a device, which does not change while the node runs; `None` for a file.
    device_len: Option<u64>,
    /// The file system reports extents, so space is requested only for holes.
    knows_extents: Arc<AtomicBool>,
    /// Opened for reading only.
    is_read_only: bool,
    read_path: Arc<ReadPath>,
}

impl Medium {
    /// Wraps a regular file.
    pub(crate) fn file(file: File) -> Self {
        Medium::new(file, None)
    }

    /// Wraps a block device and determines its length.
    pub(crate) fn device(file: File) -> io::Result<Self> {
        // The end of a device is its length, as BLKGETSIZE64 reports it. Only whole pages are used.
        let len = (&file).seek(SeekFrom::End(0))?;
        let device_len = Some(len - len % PAGE as u64);
        Ok(Medium::new(file, device_len))
    }

    fn new(file: File, device_len: Option<u64>) -> Self {
        let read_path = ReadPath::new();
        Medium { file, device_len, knows_extents: Arc::default(), is_read_only: false, read_path }
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let Medium { device_len, is_read_only, .. } = *self;
        let knows_extents = Arc::clone(&self.knows_extents);
        let read_path = Arc::clone(&self.read_path);
        Ok(Medium { file: self.file.try_clone()?, device_len, knows_extents, is_read_only, read_path })
    }

    /// Marks the medium as opened for reading only.
    pub(crate) fn reading(self) -> Self {
        Medium { is_read_only: true, ..self }
    }

    pub(crate) fn into_file(self) -> File {
        self.file
    }

    pub(crate) fn as_file(&self) -> &File {
        &self.file
    }

    /// Returns the choice of the way that the store is read, which clones share.
    pub(crate) fn read_path(&self) -> &Arc<ReadPath> {
        &self.read_path
    }

    /// Opens a separate file description for direct reads and writes; `None` if they are not
    /// possible.
    ///
    /// The kernel keeps both ways coherent: it drops the cached pages of a direct write before the
    /// write completes, and writes dirty pages back before a direct read.
    pub(crate) fn direct(&self) -> Option<File> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let mut options = OpenOptions::new();
        options.read(true).write(!self.is_read_only).custom_flags(libc::O_DIRECT);
        let opened = options.open(path);
        opened.inspect_err(|error| tracing::info!(%error, "no direct I/O: using the page cache")).ok()
    }

    /// Writes with `direct` if that is given and accepted; otherwise through the cache.
    pub(crate) fn write(&self, direct: Option<&File>, from: &[u8], offset: u64) -> io::Result<()> {
        match direct.map(|direct| direct.write_all_at(from, offset)) {
            None => self.file.write_all_at(from, offset),
            Some(Err(error)) if error.raw_os_error() == Some(libc::EINVAL) => self.file.write_all_at(from, offset),
            Some(result) => result,
        }
    }

    /// Reads with `direct` if that is given and accepted; otherwise through the cache. Returns how it
    /// was read.
    pub(crate) fn read(&self, direct: Option<&File>, to: &mut [u8], offset: u64) -> (io::Result<()>, Access) {
        match direct.map(|direct| direct.read_exact_at(to, offset)) {
            Some(Err(error)) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Some(result) => return (result, Access::Direct),
            None => {}
        }
        (self.file.read_exact_at(to, offset), Access::Cached)
    }

    /// Reads from the page cache without blocking; returns the count of leading bytes that were
    /// cached.
    pub(crate) fn read_cached(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        let part = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() };
        let offset = offset.try_into().unwrap_or(i64::MAX);
        // SAFETY: the one part is writable memory that is borrowed exclusively; the descriptor is
        // open as long as `self`.
        let len = unsafe { libc::preadv2(self.file.as_raw_fd(), &part, 1, offset, libc::RWF_NOWAIT) };
        usize::try_from(len).map_err(|_| io::Error::last_os_error())
    }

    /// Returns the length of a device; `None` for a file, which grows.
    pub(crate) fn device_len(&self) -> Option<u64> {
        self.device_len
    }

    pub(crate) fn len(&self) -> io::Result<u64> {
        match self.device_len {
            Some(len) => Ok(len),
            None => Ok(self.file.metadata()?.len()),
        }
    }

    /// Extends a file to `offset + len` with its space allocated: with fallocate, or by writing
    /// zeros if the file system does not support it. A device has its space.
    ///
    /// # Errors
    /// `StorageFull` if the file system is full; no space is taken then.
    pub(crate) fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        if let Some(device) = self.device_len {
            let fits = offset.checked_add(len).is_some_and(|end| end <= device);
            return if fits { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) };
        }
        if self.knows_extents.load(Ordering::Relaxed) && self.free_space()? < len {
            // fallocate would take the remaining space from all users of the file system before it
            // failed.
            return Err(io::ErrorKind::StorageFull.into());
        }
        match self.fallocate(0, offset, len) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => self.write_zeros(offset, len),
            Err(error) if is_full(&error) => {
                // Release the space taken before the failure. The range contains no data.
                let _ = self.discard(offset, len);
                Err(error)
            }
            result => result,
        }
    }

    fn free_space(&self) -> io::Result<u64> {
        Ok(available(&rustix::fs::fstatvfs(&self.file)?))
    }

    /// Allocates a range by writing to it, and makes that durable.
    fn write_zeros(&self, offset: u64, len: u64) -> io::Result<()> {
        let before = self.file.metadata()?.len();
        let zeros = vec![0; ZEROS];
        let mut at = offset;
        let mut result = Ok(());
        while result.is_ok() && at < offset + len {
            let step = (offset + len - at).min(ZEROS as u64);
            result = self.file.write_all_at(&zeros[..step as usize], at);
            at += step;
        }
        let result = result.and_then(|()| self.file.sync_data());
        if result.is_err() && before < offset + len {
            // Undo the extension of the file.
            self.file.set_len(before.max(offset))?;
        }
        result
    }

    /// Returns the allocated ranges; `None` if the file system does not report them.
    pub(crate) fn extents(&self) -> io::Result<Option<Vec<Extent>>> {
        let len = self.len()?;
        if self.device_len.is_some() {
            return Ok(Some(vec![Extent { offset: 0, len, written: true }]));
        }
        match self.mapped() {
            Ok(extents) => {
                self.knows_extents.store(true, Ordering::Relaxed);
                Ok(Some(extents))
            }
            Err(error) => {
                tracing::debug!(%error, "the file system does not report extents");
                self.data(len)
            }
        }
    }

    /// Returns the extents that FIEMAP reports. Shared and compressed extents are left out, because
    /// a write to them needs new space.
    fn mapped(&self) -> io::Result<Vec<Extent>> {
        let unfit = FiemapExtentFlags::SHARED | FiemapExtentFlags::ENCODED | FiemapExtentFlags::DELALLOC;
        let mut extents = Vec::new();
        for found in Fiemap::with_flags(&self.file, FiemapFlags::SYNC) {
            let found = found?;
            if !found.fe_flags.intersects(unfit) {
                let written = !found.fe_flags.contains(FiemapExtentFlags::UNWRITTEN);
                push_extent(&mut extents, Extent { offset: found.fe_logical, len: found.fe_length, written });
            }
        }
        Ok(extents)
    }

    /// Returns the ranges with data, if the whole file is allocated.
    fn data(&self, len: u64) -> io::Result<Option<Vec<Extent>>> {
        if self.file.metadata()?.blocks().saturating_mul(512) < len {
            return Ok(None);
        }
        let mut extents = Vec::new();
        let mut at = 0;
        while at < len {
            let Ok(offset) = rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(at)) else { break };
            let Ok(end) = rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Hole(offset)) else { break };
            extents.push(Extent { offset, len: end.saturating_sub(offset), written: true });
            at = end.max(at + 1);
        }
        Ok(Some(extents))
    }

    /// Disables copy-on-write on file systems where an overwrite would otherwise need new space
    /// (btrfs). Call it while the file is empty; other file systems have no such flag.
    pub(crate) fn write_in_place(&self) {
        use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
        let set = ioctl_getflags(&self.file).and_then(|flags| ioctl_setflags(&self.file, flags | IFlags::NOCOW));
        if let Err(error) = set {
            tracing::debug!(%error, "cannot set the no-copy-on-write attribute");
        }
    }

    /// Returns the space of a range, which has undefined content afterwards.
    ///
    /// # Errors
    /// `Unsupported` if the medium cannot return space.
    pub(crate) fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let result = match self.device_len {
            Some(_) => self.discard_on_device(offset, len),
            None => self.fallocate(PUNCH_HOLE, offset, len),
        };
        result.map_err(unsupported)
    }

    fn fallocate(&self, mode: i32, offset: u64, len: u64) -> io::Result<()> {
        let start = offset.try_into().unwrap_or(i64::MAX);
        let count = len.try_into().unwrap_or(i64::MAX);
        // SAFETY: the call takes only numbers, and the descriptor is open as long as `self`.
        check(unsafe { libc::fallocate(self.file.as_raw_fd(), mode, start, count) })
    }

    fn discard_on_device(&self, offset: u64, len: u64) -> io::Result<()> {
        let range = [offset, len];
        // SAFETY: BLKDISCARD reads two 64-bit numbers from the pointer, which outlives the call.
        check(unsafe { libc::ioctl(self.file.as_raw_fd(), BLKDISCARD, range.as_ptr()) })
    }
}

/// Returns the bytes that unprivileged users may still allocate.
pub(crate) fn available(stat: &rustix::fs::StatVfs) -> u64 {
    stat.f_bavail.saturating_mul(stat.f_frsize)
}

/// Bytes written at a time to allocate with zeros.
const ZEROS: usize = 1 << 20;

/// Appends an extent, or extends the last one.
fn push_extent(extents: &mut Vec<Extent>, extent: Extent) {
    match extents.last_mut() {
        Some(last) if last.offset + last.len == extent.offset && last.written == extent.written => {
            last.len += extent.len;
        }
        _ => extents.push(extent),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Mode of `fallocate` that makes a hole and keeps the file's length.
pub(crate) const PUNCH_HOLE: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;

/// From `<linux/fs.h>`.
const BLKDISCARD: libc::Ioctl = libc::_IO(0x12, 119);

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Maps the errors of missing support to `Unsupported`, and returns others unchanged.
pub(crate) fn unsupported(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY) => io::ErrorKind::Unsupported.into(),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_grows_and_returns_space() {
        let medium = Medium::file(tempfile::tempfile().unwrap());
        medium.allocate(0, 1 << 20).unwrap();
        assert_eq!(medium.len().unwrap(), 1 << 20);
        medium.as_file().write_all_at(&vec![7; 1 << 20], 0).unwrap();
        let blocks = || medium.as_file().metadata().unwrap().blocks();
        let before = blocks();
        match medium.discard(0, 512 << 10) {
            Ok(()) => assert!(blocks() < before),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::Unsupported),
        }
        assert_eq!(medium.len().unwrap(), 1 << 20, "the length stays");
    }

    #[test]
    fn direct_writes_are_visible_to_cached_reads() {
        let medium = Medium::file(tempfile::tempfile().unwrap());
        medium.allocate(0, 1 << 20).unwrap();
        let Some(direct) = medium.direct() else { return };
        let pool = crate::buffer::Pool::default();
        let mut page = [0; PAGE];
        for round in 1..=3 {
            let mut block = pool.take();
            block.slice_mut(0..2 * PAGE).fill(round);
            direct.write_all_at(&block.as_ref()[..2 * PAGE], PAGE as u64).unwrap();
            medium.as_file().read_exact_at(&mut page, 2 * PAGE as u64).unwrap();
            assert_eq!(page, [round; PAGE]);
        }
        medium.as_file().read_exact_at(&mut page, 0).unwrap();
        assert_eq!(page, [0; PAGE]);
    }

    #[test]
    fn refused_direct_read_uses_page_cache() {
        let medium = Medium::file(tempfile::tempfile().unwrap());
        medium.as_file().write_all_at(&[7; 4 * PAGE], 0).unwrap();
        let pool = crate::buffer::Pool::default();
        let mut block = pool.take();
        assert_eq!(medium.read(None, block.slice_mut(0..PAGE), 0).1, Access::Cached);
        let direct = medium.direct();
        // Neither the memory nor the length is aligned.
        let (result, access) = medium.read(direct.as_ref(), block.slice_mut(1..1001), 0);
        result.unwrap();
        assert_eq!(block.as_ref()[1..1001], [7; 1000]);
        // Some file systems accept it.
        assert!(access == Access::Cached || direct.is_some());
        let (result, _) = medium.read(direct.as_ref(), block.slice_mut(0..PAGE), 4 * PAGE as u64);
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn extents_distinguish_holes_and_unwritten_space() {
        let medium = Medium::file(tempfile::tempfile().unwrap());
        medium.allocate(0, 3 << 20).unwrap();
        medium.as_file().write_all_at(&vec![7; 1 << 20], 0).unwrap();
        if medium.discard(1 << 20, 1 << 20).is_err() {
            return;
        }
        let Some(extents) = medium.extents().unwrap() else { return };
        let written: u64 = extents.iter().filter(|extent| extent.written).map(|extent| extent.len).sum();
        let all: u64 = extents.iter().map(|extent| extent.len).sum();
        assert_eq!((written, all), (1 << 20, 2 << 20), "{extents:?}");
        assert_eq!(extents.first().map(|extent| extent.offset), Some(0));
    }

    #[test]
    fn adjacent_extents_are_merged() {
        let mut extents = Vec::new();
        let extent = |offset, len, written| Extent { offset, len, written };
        for (offset, written) in [(0, true), (10, true), (20, false), (30, false), (50, false)] {
            push_extent(&mut extents, extent(offset, 10, written));
        }
        assert_eq!(extents, [extent(0, 20, true), extent(20, 20, false), extent(50, 10, false)]);
    }

    #[test]
    fn zeros_allocate_without_fallocate() {
        let medium = Medium::file(tempfile::tempfile().unwrap());
        medium.write_zeros(0, 3 << 20).unwrap();
        let metadata = medium.as_file().metadata().unwrap();
        assert_eq!(metadata.len(), 3 << 20);
        assert!(metadata.blocks() * 512 >= 3 << 20, "{} blocks", metadata.blocks());
    }

    #[test]
    fn device_has_fixed_length() {
        let device_len = Some(1 << 20);
        let medium = Medium { device_len, ..Medium::file(tempfile::tempfile().unwrap()) };
        assert_eq!(medium.len().unwrap(), 1 << 20);
        medium.allocate(0, 1 << 20).unwrap();
        assert_eq!(medium.allocate(4096, 1 << 20).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(medium.allocate(u64::MAX, 2).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(medium.discard(0, 4096).unwrap_err().kind(), io::ErrorKind::Unsupported, "it is a file in truth");
    }
}
