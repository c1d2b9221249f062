//! Power failures: the replay of a log of writes onto a copy of the device.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use fastrand::Rng;

use crate::log_writes::{Entry, Kind, WriteLog};

/// A copy of the device, as a power failure at some entry of the log leaves it.
pub(crate) struct Replay {
    log: WriteLog,
    copy: File,
    /// Number of entries that the copy has.
    applied: usize,
    marks: HashSet<u64>,
    /// Bytes that the device writes whole or not at all.
    atomic_len: usize,
}

/// A moment of power failure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Index of a flush, of a write with FUA, or of the last of successive marks.
    pub(crate) barrier: usize,
    /// Index of the first entry behind the moment before.
    pub(crate) first: usize,
}

impl Replay {
    /// Opens a log and the copy, which has the contents that the device had before.
    pub(crate) fn new(log: WriteLog, copy: &Path, atomic_len: usize) -> io::Result<Self> {
        let copy = OpenOptions::new().write(true).open(copy)?;
        Ok(Replay { log, copy, applied: 0, marks: HashSet::new(), atomic_len })
    }

    /// Returns the moments of the whole log.
    pub(crate) fn moments(&self) -> Vec<Moment> {
        let entries = &self.log.entries;
        let is_mark = |at: usize| entries.get(at).is_some_and(|entry| matches!(entry.kind, Kind::Mark(_)));
        let barriers = (0..entries.len()).filter(|&at| entries[at].is_barrier || (is_mark(at) && !is_mark(at + 1)));
        let mut first = 0;
        barriers.map(|barrier| Moment { barrier, first: std::mem::replace(&mut first, barrier + 1) }).collect()
    }

    /// Returns whether writes of a moment may be lost.
    pub(crate) fn has_unflushed(&self, moment: Moment) -> bool {
        self.log.entries[moment.first..moment.barrier].iter().any(|entry| matches!(entry.kind, Kind::Write { .. }))
    }

    /// Applies everything up to the end of a range of entries to the copy.
    pub(crate) fn advance(&mut self, end: usize) -> io::Result<()> {
        for at in self.applied..end {
            let entry = &self.log.entries[at];
            let bytes = self.log.data(entry)?;
            self.copy.write_all_at(&bytes, entry.offset)?;
            self.note(at);
        }
        self.applied = self.applied.max(end);
        // The snapshot reads the device, not the page cache.
        self.copy.sync_all()
    }

    /// Notes a mark without applying anything: an operation was acknowledged before the barrier that follows.
    pub(crate) fn note_marks(&mut self, moment: Moment) {
        (moment.first..=moment.barrier).for_each(|at| self.note(at));
    }

    fn note(&mut self, at: usize) {
        if let Kind::Mark(text) = &self.log.entries[at].kind
            && let Ok(number) = text.parse()
        {
            self.marks.insert(number);
        }
    }

    /// Returns whether the log has this mark up to here.
    pub(crate) fn is_marked(&self, mark: u64) -> bool {
        self.marks.contains(&mark)
    }

    /// Applies a random subset of the unflushed writes of a moment to a device: each survives, is lost, or
    /// survives in some of its atomic units.
    pub(crate) fn apply_some(&self, moment: Moment, device: &Path, random: &mut Rng) -> io::Result<()> {
        let device = OpenOptions::new().write(true).open(device)?;
        for entry in &self.log.entries[moment.first..moment.barrier] {
            let bytes = self.log.data(entry)?;
            match random.u8(..3) {
                0 => {}
                1 => device.write_all_at(&bytes, entry.offset)?,
                _ => self.apply_units(entry, &bytes, &device, random)?,
            }
        }
        device.sync_all()
    }

    fn apply_units(&self, entry: &Entry, bytes: &[u8], device: &File, random: &mut Rng) -> io::Result<()> {
        for (unit, at) in bytes.chunks(self.atomic_len).zip((entry.offset..).step_by(self.atomic_len)) {
            if random.bool() {
                device.write_all_at(unit, at)?;
            }
        }
        Ok(())
    }
}
