//! A view into a segment that moves forward as it is read.

use crate::disk::Disk;
use crate::error::Error;
use crate::limits::{BUFFER_LEN, PAGE};
use crate::wire::{align_down, align_up};

/// Bytes of a segment, read as they are asked for. What is past the end of the file is zero.
pub(crate) struct Window<'a, D: Disk> {
    disk: &'a D,
    file_len: u64,
    /// Where in the file the segment ends.
    end: u64,
    /// Where in the file `bytes` begin: a multiple of the page.
    base: u64,
    bytes: Vec<u8>,
    buf: Option<D::Buf>,
    /// Bytes that are read at a time: whole pages, no more than a buffer has.
    step: usize,
}

impl<'a, D: Disk> Window<'a, D> {
    pub(crate) fn new(disk: &'a D, file_len: u64, end: u64) -> Self {
        Window::of(disk, file_len, end, BUFFER_LEN)
    }

    /// One that reads `step` bytes at a time, and takes little more memory than that.
    pub(crate) fn of(disk: &'a D, file_len: u64, end: u64, step: usize) -> Self {
        Window { disk, file_len, end, base: end, bytes: Vec::new(), buf: None, step }
    }

    /// The bytes from `offset` on: `len` of them, or as many as there are in the segment.
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

    /// Reads one step more.
    async fn load(&mut self) -> Result<(), Error> {
        let from = self.base + self.bytes.len() as u64;
        let len = (self.end - from).min(self.step as u64) as usize;
        let there = align_up(self.file_len.saturating_sub(from).min(len as u64), PAGE as u64) as usize;
        let there = if from + there as u64 > self.file_len { there.saturating_sub(PAGE) } else { there };
        if there > 0 {
            let buf = self.buf.take().unwrap_or_else(|| self.disk.buffer_of(self.step));
            let (result, buf) = self.disk.read(from, buf, 0..there).await;
            result?;
            self.bytes.extend_from_slice(&buf.as_ref()[..there]);
            self.buf = Some(buf);
        }
        self.bytes.resize(self.bytes.len() + len - there, 0);
        Ok(())
    }
}
