//! The log of the device-mapper target `log-writes` (Linux,
//! `Documentation/admin-guide/device-mapper/log-writes.rst`).
//!
//! The target logs a write when a flush or the write's own FUA has made it durable. So the log up to an entry
//! is what a power failure after that entry leaves at least, and the entries since the last flush are writes
//! of which any may be lost.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// `WRITE_LOG_MAGIC`.
const MAGIC: u64 = 0x006a_7366_7773_6872;

/// `LOG_FLUSH_FLAG`.
const FLUSH: u64 = 1;
/// `LOG_FUA_FLAG`.
const FUA: u64 = 2;
/// `LOG_DISCARD_FLAG`.
const DISCARD: u64 = 4;
/// `LOG_MARK_FLAG`.
const MARK: u64 = 8;

/// Bytes of the header of an entry. A mark follows it.
const ENTRY_LEN: usize = 32;

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Position and length on the device, in bytes.
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) kind: Kind,
    /// Whether the device was flushed before this entry, or the entry was written with FUA.
    pub(crate) is_barrier: bool,
}

/// The kind of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Data, at this position of the log.
    Write {
        data: u64,
    },
    Discard,
    /// A text that a program added.
    Mark(String),
}

/// A log on a device.
pub(crate) struct WriteLog {
    device: File,
    sector_len: u64,
    pub(crate) entries: Vec<Entry>,
}

impl WriteLog {
    /// Reads the entries of a log whose target was removed.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let device = File::open(path)?;
        let mut superblock = [0; 28];
        device.read_exact_at(&mut superblock, 0)?;
        let word = |at: usize| u64::from_le_bytes(superblock[at..at + 8].try_into().expect("8 bytes"));
        if (word(0), word(8)) != (MAGIC, 1) {
            return Err(io::Error::other("the device has no log of writes, version 1"));
        }
        let sector_len = u64::from(u32::from_le_bytes(superblock[24..28].try_into().expect("4 bytes")));
        let count = word(16);
        let mut log = WriteLog { device, sector_len, entries: Vec::new() };
        let mut at = sector_len;
        for _ in 0..count {
            at = log.read_entry(at)?;
        }
        Ok(log)
    }

    /// Reads the entry at a position and returns the position of the next.
    fn read_entry(&mut self, at: u64) -> io::Result<u64> {
        let mut sector = vec![0; usize::try_from(self.sector_len).expect("a short sector")];
        self.device.read_exact_at(&mut sector, at)?;
        let word = |n: usize| u64::from_le_bytes(sector[8 * n..8 * n + 8].try_into().expect("8 bytes"));
        let (offset, len, flags) = (word(0) * self.sector_len, word(1) * self.sector_len, word(2));
        let data = at + self.sector_len;
        let kind = if flags & MARK != 0 {
            let len = usize::try_from(word(3)).expect("a short mark");
            Kind::Mark(String::from_utf8_lossy(&sector[ENTRY_LEN..ENTRY_LEN + len]).into_owned())
        } else if flags & DISCARD != 0 {
            Kind::Discard
        } else {
            Kind::Write { data }
        };
        let next = if matches!(kind, Kind::Write { .. }) { data + len } else { data };
        self.entries.push(Entry { offset, len, kind, is_barrier: flags & (FLUSH | FUA) != 0 });
        Ok(next)
    }

    /// Returns the data of a write.
    pub(crate) fn data(&self, entry: &Entry) -> io::Result<Vec<u8>> {
        let Kind::Write { data } = entry.kind else { return Ok(Vec::new()) };
        let mut bytes = vec![0; usize::try_from(entry.len).expect("a short write")];
        self.device.read_exact_at(&mut bytes, data)?;
        Ok(bytes)
    }
}
