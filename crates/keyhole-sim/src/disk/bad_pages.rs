//! Permanently bad places, and the read-only state of a medium.

use std::collections::BTreeSet;
use std::ops::Range;

use keyhole_log::limits::PAGE;

/// `EIO`.
pub(super) const EIO: i32 = 5;

/// `EROFS`.
pub(super) const EROFS: i32 = 30;

/// Bad places by page number. They outlive processes and power failures.
#[derive(Debug, Clone, Default)]
pub(super) struct BadPages {
    unreadable: BTreeSet<u64>,
    pub(super) unwritable: Vec<Range<u64>>,
    /// Number of further reads that fail, and their error number.
    pub(super) failing_reads: (u64, i32),
    /// The offset of a page that returns garbage from its second read on, and whether it was read.
    pub(super) fading: Option<(u64, bool)>,
    /// The event from which the medium is read-only.
    pub(super) read_only_at: Option<u64>,
}

fn pages(offset: u64, len: u64) -> Range<u64> {
    offset / PAGE as u64..(offset + len).div_ceil(PAGE as u64)
}

impl BadPages {
    pub(super) fn add_unreadable(&mut self, offset: u64) {
        self.unreadable.insert(offset / PAGE as u64);
    }

    /// Forgets all bad places and ends the read-only state.
    pub(super) fn clear(&mut self) {
        *self = BadPages::default();
    }

    pub(super) fn end_wear(&mut self) {
        self.unwritable.clear();
    }

    /// Begins a read. Returns the number of its error, if it fails.
    pub(super) fn read(&mut self, offset: u64, len: u64) -> Option<i32> {
        let (failing, errno) = &mut self.failing_reads;
        if *failing > 0 {
            *failing -= 1;
            return Some(*errno);
        }
        self.is_unreadable(offset, len).then_some(EIO)
    }

    /// Replaces the fading page in bytes that were read at an offset.
    pub(super) fn fade(&mut self, offset: u64, bytes: &mut [u8]) {
        let Some((page, was_read)) = &mut self.fading else { return };
        let within = page.checked_sub(offset).and_then(|at| bytes.get_mut(at as usize..)?.get_mut(..PAGE));
        if let Some(bytes) = within
            && std::mem::replace(was_read, true)
        {
            bytes.fill(0x3c);
        }
    }

    pub(super) fn is_unreadable(&self, offset: u64, len: u64) -> bool {
        self.unreadable.range(pages(offset, len)).next().is_some()
    }

    pub(super) fn is_unwritable(&self, offset: u64, len: u64) -> bool {
        self.unwritable.iter().any(|bad| bad.start < offset + len && offset < bad.end)
    }

    /// Records a write. `heals`: the medium has remapped the bad places.
    pub(super) fn written(&mut self, heals: bool, offset: u64, len: u64) {
        if heals {
            let written = pages(offset, len);
            self.unreadable.retain(|page| !written.contains(page));
        }
    }

    /// Returns the offsets of the unreadable pages.
    pub(super) fn unreadable(&self) -> Vec<u64> {
        self.unreadable.iter().map(|page| page * PAGE as u64).collect()
    }
}
