//! Permanently bad places, and the read-only state of a medium.

use std::collections::BTreeSet;
use std::ops::Range;

use keyhole_log::limits::PAGE;

/// `EIO`.
pub(super) const EIO: i32 = 5;

/// `EROFS`.
pub(super) const EROFS: i32 = 30;

/// Bad places by page number. They outlive processes and power failures.
#[derive(Debug, Default)]
pub(super) struct BadPages {
    unreadable: BTreeSet<u64>,
    unwritable: BTreeSet<u64>,
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

    pub(super) fn add_unwritable(&mut self, offset: u64) {
        self.unwritable.insert(offset / PAGE as u64);
    }

    /// Forgets all bad places and ends the read-only state.
    pub(super) fn clear(&mut self) {
        *self = BadPages::default();
    }

    pub(super) fn end_wear(&mut self) {
        self.unwritable.clear();
    }

    pub(super) fn is_unreadable(&self, offset: u64, len: u64) -> bool {
        self.unreadable.range(pages(offset, len)).next().is_some()
    }

    pub(super) fn is_unwritable(&self, offset: u64, len: u64) -> bool {
        self.unwritable.range(pages(offset, len)).next().is_some()
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
