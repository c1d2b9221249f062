//! What the objects are kept in: a file or a block device, and the calls of it that are not reads and writes.
//!
//! A file grows as segments are begun, by `fallocate`, and gives space back as holes. A device has the length that it has, and
//! gives space back with `BLKDISCARD`. Both are read through the page cache, and written past it where the file system lets us
//! (`O_DIRECT`): what is written is seldom read soon, and the copy and the write-back would cost more than all else.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fiemap::{Fiemap, FiemapExtentFlags, FiemapFlags};
use keyhole_log::Extent;
use keyhole_log::limits::PAGE;

/// An open file or device. Clones are of the same description: its lock lasts as long as the last of them.
pub(crate) struct Medium {
    file: File,
    /// Of a device: its length. It does not change while the node runs.
    device_len: Option<u64>,
    /// The file system has said which extents are there, so that space is asked for only where it is not.
    knows_extents: Arc<AtomicBool>,
    /// It was opened for reading alone.
    is_read_only: bool,
}

impl Medium {
    /// A regular file.
    pub(crate) fn file(file: File) -> Self {
        Medium { file, device_len: None, knows_extents: Arc::default(), is_read_only: false }
    }

    /// A block device, whose length is found out.
    pub(crate) fn device(file: File) -> io::Result<Self> {
        // The end of a device is its length, as BLKGETSIZE64 says it. Only whole pages of it are used.
        let len = (&file).seek(SeekFrom::End(0))?;
        let device_len = Some(len - len % PAGE as u64);
        Ok(Medium { file, device_len, knows_extents: Arc::default(), is_read_only: false })
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let Medium { device_len, is_read_only, .. } = *self;
        let knows_extents = Arc::clone(&self.knows_extents);
        Ok(Medium { file: self.file.try_clone()?, device_len, knows_extents, is_read_only })
    }

    /// The same, where it was opened for reading alone.
    pub(crate) fn reading(self) -> Self {
        Medium { is_read_only: true, ..self }
    }

    pub(crate) fn into_file(self) -> File {
        self.file
    }

    pub(crate) fn as_file(&self) -> &File {
        &self.file
    }

    /// A description of its own to write past the page cache with; `None` where that is not possible.
    ///
    /// The kernel keeps both ways coherent: pages of the cache that a write has gone past are dropped before it completes.
    pub(crate) fn direct(&self) -> Option<File> {
        if self.is_read_only {
            return None;
        }
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let opened = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path);
        opened.inspect_err(|error| tracing::info!(%error, "no direct I/O: writing through the page cache")).ok()
    }

    /// Writes past the page cache with `direct`, where it is there and takes it; otherwise through the cache.
    pub(crate) fn write(&self, direct: Option<&File>, from: &[u8], offset: u64) -> io::Result<()> {
        match direct.map(|direct| direct.write_all_at(from, offset)) {
            None => self.file.write_all_at(from, offset),
            Some(Err(error)) if error.raw_os_error() == Some(libc::EINVAL) => self.file.write_all_at(from, offset),
            Some(result) => result,
        }
    }

    /// Reads what of it is in the page cache, without waiting for anything; the count of bytes from the beginning that were.
    pub(crate) fn read_cached(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        let part = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() };
        let offset = offset.try_into().unwrap_or(i64::MAX);
        // SAFETY: the one part is memory that we may write to, and nobody else has; the descriptor is open as long as `self`.
        let len = unsafe { libc::preadv2(self.file.as_raw_fd(), &part, 1, offset, libc::RWF_NOWAIT) };
        usize::try_from(len).map_err(|_| io::Error::last_os_error())
    }

    /// The length of a device; `None` for a file, which grows.
    pub(crate) fn device_len(&self) -> Option<u64> {
        self.device_len
    }

    pub(crate) fn len(&self) -> io::Result<u64> {
        match self.device_len {
            Some(len) => Ok(len),
            None => Ok(self.file.metadata()?.len()),
        }
    }

    /// Makes a file reach `offset + len`, with the space taken: by fallocate, or where the file system has none by writing zeros. A
    /// device has its space. Where the file system is full nothing is taken.
    pub(crate) fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        if let Some(device) = self.device_len {
            let fits = offset.checked_add(len).is_some_and(|end| end <= device);
            return if fits { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) };
        }
        if self.knows_extents.load(Ordering::Relaxed) && self.free_space()? < len {
            // It would take what is left, from all who use the file system, before it failed.
            return Err(io::ErrorKind::StorageFull.into());
        }
        match self.fallocate(0, offset, len) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => self.write_zeros(offset, len),
            Err(error) if is_full(&error) => {
                // What it has taken before it failed. There is nothing of use in the range.
                let _ = self.discard(offset, len);
                Err(error)
            }
            result => result,
        }
    }

    fn free_space(&self) -> io::Result<u64> {
        Ok(available(&rustix::fs::fstatvfs(&self.file)?))
    }

    /// Takes the space of a range by writing to it, and makes that durable.
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
            // As it was, as far as the file was made longer.
            self.file.set_len(before.max(offset))?;
        }
        result
    }

    /// The ranges whose space is there; `None` where the file system does not say.
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

    /// As FIEMAP says. Space that is shared with another file, or compressed, does not take what is written.
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

    /// As far as there is data, where all of a file has its space.
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

    /// Lets what is written later go where it was written before, on a file system that would otherwise write it elsewhere, and
    /// need space for it (btrfs). To be called while the file is empty; other file systems have no such thing.
    pub(crate) fn write_in_place(&self) {
        use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
        let set = ioctl_getflags(&self.file).and_then(|flags| ioctl_setflags(&self.file, flags | IFlags::NOCOW));
        if let Err(error) = set {
            tracing::debug!(%error, "cannot set the no-copy-on-write attribute");
        }
    }

    /// Gives the space of a range back; the range reads as anything afterwards. `Unsupported` where there is no such thing.
    pub(crate) fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let result = match self.device_len {
            Some(_) => self.discard_on_device(offset, len),
            None => self.fallocate(PUNCH_HOLE, offset, len),
        };
        result.map_err(unsupported)
    }

    fn fallocate(&self, mode: i32, offset: u64, len: u64) -> io::Result<()> {
        let (start, count) = (offset.try_into().unwrap_or(i64::MAX), len.try_into().unwrap_or(i64::MAX));
        // SAFETY: the call takes numbers alone, and the descriptor is open as long as `self`.
        check(unsafe { libc::fallocate(self.file.as_raw_fd(), mode, start, count) })
    }

    fn discard_on_device(&self, offset: u64, len: u64) -> io::Result<()> {
        let range = [offset, len];
        // SAFETY: BLKDISCARD reads two 64-bit numbers from the pointer, which outlives the call.
        check(unsafe { libc::ioctl(self.file.as_raw_fd(), BLKDISCARD, range.as_ptr()) })
    }
}

/// Bytes of a file system that its users may still take.
pub(crate) fn available(stat: &rustix::fs::StatVfs) -> u64 {
    stat.f_bavail.saturating_mul(stat.f_frsize)
}

/// Bytes that are written at a time where zeros take space.
const ZEROS: usize = 1 << 20;

/// Adds an extent to those ahead of it, or makes the last one longer.
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

/// What makes a hole in a file and leaves its length alone.
pub(crate) const PUNCH_HOLE: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;

/// From <linux/fs.h>.
const BLKDISCARD: libc::Ioctl = libc::_IO(0x12, 119);

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The same error, or `Unsupported` where it says in another way that there is no such thing.
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
    fn a_file_grows_and_gives_space_back() {
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
    fn what_was_written_past_the_cache_is_read_through_it() {
        let medium = Medium::file(tempfile::tempfile().unwrap());
        medium.allocate(0, 1 << 20).unwrap();
        let Some(direct) = medium.direct() else { return };
        let pool = crate::buffer::Pool::default();
        let mut page = [0; PAGE];
        for round in 1..=3 {
            let mut block = pool.take();
            block.part(0..2 * PAGE).fill(round);
            direct.write_all_at(&block.as_ref()[..2 * PAGE], PAGE as u64).unwrap();
            medium.as_file().read_exact_at(&mut page, 2 * PAGE as u64).unwrap();
            assert_eq!(page, [round; PAGE]);
        }
        medium.as_file().read_exact_at(&mut page, 0).unwrap();
        assert_eq!(page, [0; PAGE]);
    }

    #[test]
    fn extents_tell_holes_and_unwritten_space_apart() {
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
    fn neighbouring_extents_are_one() {
        let mut extents = Vec::new();
        let extent = |offset, len, written| Extent { offset, len, written };
        for (offset, written) in [(0, true), (10, true), (20, false), (30, false), (50, false)] {
            push_extent(&mut extents, extent(offset, 10, written));
        }
        assert_eq!(extents, [extent(0, 20, true), extent(20, 20, false), extent(50, 10, false)]);
    }

    #[test]
    fn zeros_take_space_where_fallocate_does_not() {
        let medium = Medium::file(tempfile::tempfile().unwrap());
        medium.write_zeros(0, 3 << 20).unwrap();
        let metadata = medium.as_file().metadata().unwrap();
        assert_eq!(metadata.len(), 3 << 20);
        assert!(metadata.blocks() * 512 >= 3 << 20, "{} blocks", metadata.blocks());
    }

    #[test]
    fn a_device_has_the_length_that_it_has() {
        let device_len = Some(1 << 20);
        let medium = Medium { device_len, ..Medium::file(tempfile::tempfile().unwrap()) };
        assert_eq!(medium.len().unwrap(), 1 << 20);
        medium.allocate(0, 1 << 20).unwrap();
        assert_eq!(medium.allocate(4096, 1 << 20).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(medium.allocate(u64::MAX, 2).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(medium.discard(0, 4096).unwrap_err().kind(), io::ErrorKind::Unsupported, "it is a file in truth");
    }
}
