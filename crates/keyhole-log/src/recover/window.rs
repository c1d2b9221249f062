//! A forward-moving read window over a segment.
//!
//! A page that the medium cannot return is filled with bytes that never verify and are not
//! zero, so that it counts as damage like a page with a wrong checksum. The window records
//! the offsets of such pages.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::disk::{Access, Disk, is_unreadable, read_again_by, read_by};
use crate::error::Error;
use crate::limits::{BUFFER_LEN, PAGE, REREAD_PAGES_MAX};
use crate::wire::{align_down, align_up};

/// Filler of an unreadable page. Neither a magic nor UTF-8 contains this byte.
const FILLER: u8 = 0xff;

/// Bytes of a segment, read on demand. Bytes past the end of the file read as zero.
pub(crate) struct Window<'a, D: Disk> {
    disk: &'a D,
    file_len: u64,
    /// Offset in the file where the segment ends.
    end: u64,
    /// Offset in the file of the start of `bytes`: a multiple of the page.
    base: u64,
    bytes: Vec<u8>,
    buf: Option<D::Buf>,
    /// Offsets in the file of unreadable pages.
    unreadable: BTreeSet<u64>,
    /// Bytes per read: whole pages, at most a buffer.
    step: usize,
    access: Access,
}

impl<'a, D: Disk> Window<'a, D> {
    pub(crate) fn new(disk: &'a D, file_len: u64, end: u64) -> Self {
        Window::of(disk, file_len, end, BUFFER_LEN)
    }

    /// Creates a window that reads `step` bytes at a time and takes little more memory than that.
    pub(crate) fn of(disk: &'a D, file_len: u64, end: u64, step: usize) -> Self {
        Window {
            disk,
            file_len,
            end,
            base: end,
            bytes: Vec::new(),
            buf: None,
            unreadable: BTreeSet::new(),
            step,
            access: Access::Cached,
        }
    }

    /// Returns the window with reads past the page cache: for passes that must not fill it.
    pub(crate) fn direct(self) -> Self {
        Window { access: Access::Direct, ..self }
    }

    /// Returns `len` bytes from `offset` on, or fewer at the end of the segment.
    pub(crate) async fn bytes(&mut self, offset: u64, len: usize) -> Result<&[u8], Error> {
        let until = offset.saturating_add(len as u64).min(self.end);
        if offset < self.base || offset > self.base + self.bytes.len() as u64 {
            self.base = align_down(offset, PAGE as u64);
            self.bytes.clear();
        }
        if until > self.base + self.bytes.len() as u64 {
            let passed = (align_down(offset, PAGE as u64) - self.base) as usize;
            self.bytes.drain(..passed);
            self.base += passed as u64;
        }
        while until > self.base + self.bytes.len() as u64 {
            self.load().await?;
        }
        let at = (offset - self.base) as usize;
        Ok(&self.bytes[at..at + until.saturating_sub(offset) as usize])
    }

    /// Reads one more step.
    async fn load(&mut self) -> Result<(), Error> {
        let from = self.base + self.bytes.len() as u64;
        let len = (self.end - from).min(self.step as u64) as usize;
        let there = align_up(self.file_len.saturating_sub(from).min(len as u64), PAGE as u64) as usize;
        let there = if from + there as u64 > self.file_len { there.saturating_sub(PAGE) } else { there };
        if there > 0 {
            let buf = self.buf.take().unwrap_or_else(|| self.disk.buffer_with_len(self.step));
            let (result, buf) = read_by(self.disk, self.access, from, buf, 0..there).await;
            let buf = match result {
                Ok(()) => buf,
                Err(error) if is_unreadable(&error) => self.read_pages(from, buf, there).await?,
                Err(error) => return Err(error.into()),
            };
            self.bytes.extend_from_slice(&buf.as_ref()[..there]);
            self.buf = Some(buf);
        }
        self.bytes.resize(self.bytes.len() + len - there, 0);
        Ok(())
    }

    /// Reads the first `len` bytes of a buffer page by page, after a read of all of them failed.
    async fn read_pages(&mut self, from: u64, mut buf: D::Buf, len: usize) -> Result<D::Buf, Error> {
        for at in (0..len).step_by(PAGE) {
            let offset = from + at as u64;
            let place = at..at + PAGE;
            let read = if self.unreadable.len() < REREAD_PAGES_MAX {
                read_again_by(self.disk, self.access, offset, buf, place.clone()).await
            } else {
                read_by(self.disk, self.access, offset, buf, place.clone()).await
            };
            buf = read.1;
            match read.0 {
                Ok(()) => {}
                Err(error) if is_unreadable(&error) => {
                    D::slice(&mut buf, place).fill(FILLER);
                    self.unreadable.insert(offset);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(buf)
    }

    /// Returns the offset of the first unreadable page in a range, as far as it has been read.
    pub(crate) fn unreadable(&self, range: Range<u64>) -> Option<u64> {
        self.unreadable.range(align_down(range.start, PAGE as u64)..range.end).next().copied()
    }
}
