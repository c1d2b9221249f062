//! The storage interface of the log.

use std::io;
use std::ops::Range;

use crate::limits::READ_ATTEMPTS;

/// A range of the file whose space is allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Offset of the first byte.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// Whether the range has been written since it was allocated. Overwriting such a range changes
    /// no file system metadata.
    pub written: bool,
}

/// How the bytes of a body are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Access {
    /// Through the page cache, which then holds them.
    #[default]
    Cached,
    /// Past the page cache.
    Direct,
}

/// One file or block device, as one thread sees it.
///
/// Operations take ownership of a buffer and return it. A dropped future may still take effect on
/// the storage; the log never drops a future that writes. Offsets and lengths of reads and writes
/// are multiples of [`PAGE`](crate::limits::PAGE).
// Each worker polls its own disk on its own thread, so these futures need not be `Send`.
#[allow(async_fn_in_trait)]
// `is_empty` is not needed: a store is never empty.
#[allow(clippy::len_without_is_empty)]
pub trait Disk: 'static {
    /// A buffer of exactly [`BUFFER_LEN`](crate::limits::BUFFER_LEN) initialised bytes, aligned to
    /// a page. Dropping it wipes it and returns it to its pool.
    type Buf: AsRef<[u8]> + AsMut<[u8]> + 'static;

    /// Returns a buffer without waiting. Callers bound the number of buffers they hold.
    fn buffer(&self) -> Self::Buf;

    /// Returns a buffer of at least `len` bytes without waiting. It may be shorter than
    /// [`BUFFER_LEN`](crate::limits::BUFFER_LEN).
    fn buffer_with_len(&self, len: usize) -> Self::Buf {
        let _ = len;
        self.buffer()
    }

    /// Borrows part of a buffer for writing. A disk can use this to track how much of
    /// a buffer it has to wipe.
    fn slice(buf: &mut Self::Buf, at: Range<usize>) -> &mut [u8] {
        &mut buf.as_mut()[at]
    }

    /// Marks the contents of a buffer as ciphertext or otherwise not secret, so
    /// that it need not be wiped.
    fn mark_ciphertext(buf: &mut Self::Buf) {
        let _ = buf;
    }

    /// Wipes part of a buffer that is still in use. A disk can use this to wipe less when the buffer
    /// is dropped.
    fn wipe(buf: &mut Self::Buf, at: Range<usize>) {
        Self::slice(buf, at).fill(0);
    }

    /// Reads exactly `at.len()` bytes at `offset` into `buf[at]`. Fails with `UnexpectedEof` past
    /// the end of the file.
    async fn read(&self, offset: u64, buf: Self::Buf, at: Range<usize>) -> (io::Result<()>, Self::Buf);

    /// Reads like [`read`](Self::read), for short ranges that are likely to be cached: the disk may
    /// try the page cache synchronously where that is cheaper than a queued read.
    async fn read_short(&self, offset: u64, buf: Self::Buf, at: Range<usize>) -> (io::Result<()>, Self::Buf) {
        self.read(offset, buf, at).await
    }

    /// Reads like [`read`](Self::read), but past the page cache if the disk can: for bytes that are
    /// not expected to be read again soon. Reads of either kind see every completed write.
    async fn read_direct(&self, offset: u64, buf: Self::Buf, at: Range<usize>) -> (io::Result<()>, Self::Buf) {
        self.read(offset, buf, at).await
    }

    /// Chooses how a request reads `range` of the file, and counts the access. `block` is the
    /// offset of the block that the range is in.
    fn choose_access(&self, block: u64, range: Range<u64>) -> Access {
        let _ = (block, range);
        Access::Cached
    }

    /// Writes all of `buf[at]` at `offset`.
    async fn write(&self, offset: u64, buf: Self::Buf, at: Range<usize>) -> (io::Result<()>, Self::Buf);

    /// Writes all of `buf[at]` at `offset` and makes it durable, together with the file length and
    /// allocation it needs (`O_DSYNC`). Implies nothing about other writes.
    async fn write_durable(&self, offset: u64, buf: Self::Buf, at: Range<usize>) -> (io::Result<()>, Self::Buf) {
        let (result, buf) = self.write(offset, buf, at).await;
        match result {
            Ok(()) => (self.sync().await, buf),
            failed => (failed, buf),
        }
    }

    /// Makes durable every write, of any thread, that had completed when this was called
    /// (`fdatasync`).
    async fn sync(&self) -> io::Result<()>;

    /// Returns the length of the file or device in bytes.
    async fn len(&self) -> io::Result<u64>;

    /// Releases the space of a range: a hole in a file, discard on a device. The range reads as
    /// arbitrary bytes afterwards. Fails with `Unsupported` where this is not possible.
    async fn discard(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Extends the file to `offset + len` at least and allocates the range (`fallocate`). Fails
    /// with `StorageFull` if there is no space. The log does not call this for space that it knows
    /// to be allocated.
    async fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Returns the allocated ranges of the file, in order and without overlap. `None`: unknown.
    async fn extents(&self) -> io::Result<Option<Vec<Extent>>> {
        Ok(None)
    }

    /// Returns whether the first write into allocated space costs more than later ones, because it
    /// changes file system metadata.
    fn first_write_is_slow(&self) -> bool {
        true
    }
}

/// Returns whether `extents` cover all of `range`, and the number of bytes from its
/// start that are also written.
pub(crate) fn coverage(extents: &[Extent], range: Range<u64>) -> (bool, u64) {
    let first = extents.partition_point(|extent| extent.offset + extent.len <= range.start);
    let mut allocated = range.start;
    let mut written = range.start;
    for extent in extents.iter().skip(first) {
        if extent.offset > allocated || allocated >= range.end {
            break;
        }
        let end = extent.offset.saturating_add(extent.len);
        if extent.written && written == allocated {
            written = end.min(range.end);
        }
        allocated = end;
    }
    (allocated >= range.end, written - range.start)
}

/// Returns whether an allocation or a write failed for lack of space, which is not a disk failure.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// Linux error numbers for an unreadable range of the medium: EIO, ENODATA, EBADMSG,
/// EILSEQ, ETIMEDOUT, EUCLEAN, EREMOTEIO. The values are the same on every supported
/// architecture; MIPS and SPARC differ.
const UNREADABLE: [i32; 7] = [5, 61, 74, 84, 110, 117, 121];

/// Returns whether a failed read means that the medium cannot return these bytes, which is damage
/// like a wrong checksum. Any other error (EBADF, EINVAL, ENOMEM, EINTR, a missing device) is a
/// fault of the caller or the system and says nothing about the bytes. This is the only place that
/// makes this decision.
pub(crate) fn is_unreadable(error: &io::Error) -> bool {
    match error.raw_os_error() {
        Some(number) => UNREADABLE.contains(&number),
        None => matches!(
            error.kind(),
            io::ErrorKind::Other | io::ErrorKind::InvalidData | io::ErrorKind::TimedOut | io::ErrorKind::UnexpectedEof
        ),
    }
}

/// Reads like [`Disk::read`], with up to [`READ_ATTEMPTS`] attempts while the medium cannot
/// return the bytes: a transient error must not be taken for damage. A read past the end of
/// the file is not retried.
pub(crate) async fn read_again<D: Disk>(
    disk: &D,
    offset: u64,
    buf: D::Buf,
    at: Range<usize>,
) -> (io::Result<()>, D::Buf) {
    read_again_by(disk, Access::Cached, offset, buf, at).await
}

/// Reads like [`Disk::read`] or [`Disk::read_direct`], with the retries of [`read_again`].
pub(crate) async fn read_again_by<D: Disk>(
    disk: &D,
    access: Access,
    offset: u64,
    buf: D::Buf,
    at: Range<usize>,
) -> (io::Result<()>, D::Buf) {
    let first = read_by(disk, access, offset, buf, at.clone()).await;
    repeat(disk, access, offset, at, first).await
}

/// Reads once, by the given access.
pub(crate) async fn read_by<D: Disk>(
    disk: &D,
    access: Access,
    offset: u64,
    buf: D::Buf,
    at: Range<usize>,
) -> (io::Result<()>, D::Buf) {
    match access {
        Access::Cached => disk.read(offset, buf, at).await,
        Access::Direct => disk.read_direct(offset, buf, at).await,
    }
}

/// Reads like [`Disk::read_short`], with the retries of [`read_again`].
pub(crate) async fn read_short_again<D: Disk>(
    disk: &D,
    offset: u64,
    buf: D::Buf,
    at: Range<usize>,
) -> (io::Result<()>, D::Buf) {
    let first = disk.read_short(offset, buf, at.clone()).await;
    repeat(disk, Access::Cached, offset, at, first).await
}

/// Reads like [`read_short_again`], or past the page cache.
pub(crate) async fn read_record_again<D: Disk>(
    disk: &D,
    access: Access,
    offset: u64,
    buf: D::Buf,
    at: Range<usize>,
) -> (io::Result<()>, D::Buf) {
    match access {
        Access::Cached => read_short_again(disk, offset, buf, at).await,
        Access::Direct => read_again_by(disk, access, offset, buf, at).await,
    }
}

async fn repeat<D: Disk>(
    disk: &D,
    access: Access,
    offset: u64,
    at: Range<usize>,
    first: (io::Result<()>, D::Buf),
) -> (io::Result<()>, D::Buf) {
    let (mut result, mut buf) = first;
    for _ in 1..READ_ATTEMPTS {
        match &result {
            Err(error) if is_unreadable(error) && error.kind() != io::ErrorKind::UnexpectedEof => {}
            _ => break,
        }
        (result, buf) = read_by(disk, access, offset, buf, at.clone()).await;
    }
    (result, buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_error_of_medium_is_damage_and_others_are_not() {
        for number in UNREADABLE {
            assert!(is_unreadable(&io::Error::from_raw_os_error(number)), "{number}");
        }
        for number in [4, 6, 9, 11, 12, 19, 22, 28] {
            assert!(!is_unreadable(&io::Error::from_raw_os_error(number)), "{number}");
        }
        assert!(is_unreadable(&io::Error::other("a simulated error")));
        assert!(is_unreadable(&io::ErrorKind::UnexpectedEof.into()));
        for kind in [io::ErrorKind::Interrupted, io::ErrorKind::OutOfMemory, io::ErrorKind::InvalidInput] {
            assert!(!is_unreadable(&kind.into()), "{kind}");
        }
    }

    #[test]
    fn coverage_ends_at_holes_and_at_unwritten_space() {
        let extent = |offset, len, written| Extent { offset, len, written };
        let extents = [extent(0, 10, true), extent(10, 10, false), extent(30, 5, true), extent(35, 5, true)];
        assert_eq!(coverage(&extents, 0..10), (true, 10));
        assert_eq!(coverage(&extents, 0..20), (true, 10));
        assert_eq!(coverage(&extents, 5..21), (false, 5));
        assert_eq!(coverage(&extents, 12..20), (true, 0));
        assert_eq!(coverage(&extents, 20..30), (false, 0));
        assert_eq!(coverage(&extents, 31..40), (true, 9));
        assert_eq!(coverage(&extents, 31..41), (false, 9));
        assert_eq!(coverage(&[], 0..1), (false, 0));
    }
}
