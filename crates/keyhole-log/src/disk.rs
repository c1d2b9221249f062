//! How the log reaches storage.

use std::io;
use std::ops::Range;

use crate::limits::READ_ATTEMPTS;

/// A range of the file whose space is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub len: u64,
    /// It has been written since its space was taken, so that writing over it changes no metadata of the file system.
    pub written: bool,
}

/// One file or block device, as one thread sees it. Buffers are owned: they go into an operation and come back from it.
///
/// A future of this trait that is dropped may still take effect on the storage; the log never drops one that writes.
/// Offsets and lengths of writes are multiples of [`PAGE`](crate::limits::PAGE), those of reads as well.
// Every worker polls its own disk on its own thread: nobody needs these futures to be Send.
#[allow(async_fn_in_trait)]
// Whether it is empty is nobody's question.
#[allow(clippy::len_without_is_empty)]
pub trait Disk: 'static {
    /// Exactly [`BUFFER_LEN`](crate::limits::BUFFER_LEN) bytes, aligned to a page, initialised. Dropping it gives it back to
    /// where it came from, wiped of what it held.
    type Buf: AsRef<[u8]> + AsMut<[u8]> + 'static;

    /// A buffer, at once: callers bound how many they hold.
    fn buffer(&self) -> Self::Buf;

    /// A buffer of at least `len` bytes, at once; it may be shorter than others.
    fn buffer_of(&self, len: usize) -> Self::Buf {
        let _ = len;
        self.buffer()
    }

    /// A part of a buffer, to write to. A disk can then tell how much of a buffer it has to wipe.
    fn part(buf: &mut Self::Buf, at: Range<usize>) -> &mut [u8] {
        &mut buf.as_mut()[at]
    }

    /// All that is in a buffer is ciphertext, or is not to be kept secret: it need not be wiped.
    fn enciphered(buf: &mut Self::Buf) {
        let _ = buf;
    }

    /// Reads exactly `at.len()` bytes from `offset` into `buf[at]`; `UnexpectedEof` past the end.
    async fn read(&self, offset: u64, buf: Self::Buf, at: Range<usize>) -> (io::Result<()>, Self::Buf);

    /// [`read`](Self::read) of something short that is likely to be in memory: the disk may look there at once, where that takes less
    /// than to ask for it.
    async fn read_short(&self, offset: u64, buf: Self::Buf, at: Range<usize>) -> (io::Result<()>, Self::Buf) {
        self.read(offset, buf, at).await
    }

    /// Writes all of `buf[at]` to `offset`.
    async fn write(&self, offset: u64, buf: Self::Buf, at: Range<usize>) -> (io::Result<()>, Self::Buf);

    /// Writes all of `buf[at]` to `offset`, and makes it durable, with the length and the space of the file that it needs. That
    /// says nothing of any other write (O_DSYNC).
    async fn write_durable(&self, offset: u64, buf: Self::Buf, at: Range<usize>) -> (io::Result<()>, Self::Buf) {
        let (result, buf) = self.write(offset, buf, at).await;
        match result {
            Ok(()) => (self.sync().await, buf),
            failed => (failed, buf),
        }
    }

    /// Makes every write durable that had completed, on any thread, when this was called (fdatasync).
    async fn sync(&self) -> io::Result<()>;

    /// Length of the file or device.
    async fn len(&self) -> io::Result<u64>;

    /// Gives the space of a range back (a hole in a file, discard of a device). Afterwards it reads as anything. `Unsupported`
    /// where this cannot be done.
    async fn discard(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Makes the file reach `offset + len`, with the space taken (fallocate). `StorageFull` when there is none. The log does not
    /// ask for space that it knows to be there.
    async fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;

    /// The ranges of the file whose space is there, in order, without overlap; `None`: unknown.
    async fn extents(&self) -> io::Result<Option<Vec<Extent>>> {
        Ok(None)
    }

    /// Whether the first write into allocated space costs more than those that follow, as it changes metadata of the file system.
    fn first_write_is_slow(&self) -> bool {
        true
    }
}

/// How much of a range has its space there, from the beginning of `extents`: all of it or not, and how many bytes from its beginning
/// have been written as well.
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

/// Whether an allocation or a write failed for want of space, which is no failure of the disk.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// Numbers of errors with which Linux reports that a range of a medium cannot be read: EIO, ENODATA, EBADMSG, EILSEQ, ETIMEDOUT,
/// EUCLEAN, EREMOTEIO. They are the same on every architecture that Keyhole is built for, apart from MIPS and SPARC.
const UNREADABLE: [i32; 7] = [5, 61, 74, 84, 110, 117, 121];

/// Whether a failed read means that the medium cannot give these bytes: damage of this range, as a wrong checksum is. Every other
/// error is the caller's or the system's fault (EBADF, EINVAL, ENOMEM, EINTR, a device that has gone) and says nothing about the
/// bytes. This is the only place that decides it.
pub(crate) fn is_unreadable(error: &io::Error) -> bool {
    match error.raw_os_error() {
        Some(number) => UNREADABLE.contains(&number),
        None => matches!(
            error.kind(),
            io::ErrorKind::Other | io::ErrorKind::InvalidData | io::ErrorKind::TimedOut | io::ErrorKind::UnexpectedEof
        ),
    }
}

/// Reads like [`Disk::read`], and reads again while the medium cannot give the bytes, [`READ_ATTEMPTS`] times in all: an error that
/// passes must not be taken for damage. A read past the end of the file is not repeated.
pub(crate) async fn read_again<D: Disk>(
    disk: &D,
    offset: u64,
    buf: D::Buf,
    at: Range<usize>,
) -> (io::Result<()>, D::Buf) {
    let first = disk.read(offset, buf, at.clone()).await;
    repeat(disk, offset, at, first).await
}

/// Reads like [`Disk::read_short`], and reads again as [`read_again`] does.
pub(crate) async fn read_short_again<D: Disk>(
    disk: &D,
    offset: u64,
    buf: D::Buf,
    at: Range<usize>,
) -> (io::Result<()>, D::Buf) {
    let first = disk.read_short(offset, buf, at.clone()).await;
    repeat(disk, offset, at, first).await
}

async fn repeat<D: Disk>(
    disk: &D,
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
        (result, buf) = disk.read(offset, buf, at.clone()).await;
    }
    (result, buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_errors_of_the_medium_are_damage_and_others_are_not() {
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
