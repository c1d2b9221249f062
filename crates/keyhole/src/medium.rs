//! What the objects are kept in: a file or a block device, and the calls of it that are not reads and writes.
//!
//! A file grows as segments are begun, by `fallocate`, and gives space back as holes. A device has the length that it has, and
//! gives space back with `BLKDISCARD`. Both are read through the page cache, and written past it where the file system lets us
//! (`O_DIRECT`): what is written is seldom read soon, and the copy and the write-back would cost more than all else.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use keyhole_log::limits::PAGE;

/// An open file or device. Clones are of the same description: its lock lasts as long as the last of them.
pub(crate) struct Medium {
    file: File,
    /// Of a device: its length. It does not change while the node runs.
    device_len: Option<u64>,
    /// It was opened for reading alone.
    is_read_only: bool,
}

impl Medium {
    /// A regular file.
    pub(crate) fn file(file: File) -> Self {
        Medium { file, device_len: None, is_read_only: false }
    }

    /// A block device, whose length is found out.
    pub(crate) fn device(file: File) -> io::Result<Self> {
        // The end of a device is its length, as BLKGETSIZE64 says it. Only whole pages of it are used.
        let len = (&file).seek(SeekFrom::End(0))?;
        Ok(Medium { file, device_len: Some(len - len % PAGE as u64), is_read_only: false })
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let Medium { device_len, is_read_only, .. } = *self;
        Ok(Medium { file: self.file.try_clone()?, device_len, is_read_only })
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
        opened.inspect_err(|error| tracing::info!(%error, "the object file is written through the page cache")).ok()
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

    /// Makes a file reach `offset + len`, with the space taken. Where the file system has no fallocate the file is at least made
    /// long enough. A device has its space.
    pub(crate) fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.device_len.is_some() {
            return self.allocate_on_device(offset, len);
        }
        match self.fallocate(0, offset, len) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => self.allocate_without(offset, len),
            result => result,
        }
    }

    /// [`allocate`](Self::allocate) of a device: a check.
    pub(crate) fn allocate_on_device(&self, offset: u64, len: u64) -> io::Result<()> {
        let fits = offset.checked_add(len).is_some_and(|end| self.device_len.is_none_or(|device| end <= device));
        if fits { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    /// [`allocate`](Self::allocate) where the file system has no fallocate.
    pub(crate) fn allocate_without(&self, offset: u64, len: u64) -> io::Result<()> {
        tracing::debug!(fd = self.file.as_raw_fd(), "the file system has no fallocate");
        let end = offset + len;
        if self.file.metadata()?.len() < end { self.file.set_len(end) } else { Ok(()) }
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
    use std::os::unix::fs::MetadataExt;

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
    fn a_device_has_the_length_that_it_has() {
        let medium = Medium { file: tempfile::tempfile().unwrap(), device_len: Some(1 << 20), is_read_only: false };
        assert_eq!(medium.len().unwrap(), 1 << 20);
        medium.allocate(0, 1 << 20).unwrap();
        assert_eq!(medium.allocate(4096, 1 << 20).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(medium.allocate(u64::MAX, 2).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(medium.discard(0, 4096).unwrap_err().kind(), io::ErrorKind::Unsupported, "it is a file in truth");
    }
}
