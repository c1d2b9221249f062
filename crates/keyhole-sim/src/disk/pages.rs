//! Content of a medium by page. A page that was never written takes no memory.

use std::sync::Arc;

use keyhole_log::limits::PAGE;

/// The usual write unit of devices.
pub(super) const SECTOR: usize = 512;

pub(super) type Page = [u8; PAGE];

/// Bytes of a file. Copies share pages.
#[derive(Debug, Clone, Default)]
pub(super) struct Pages {
    /// Length in bytes, a multiple of the page size.
    pub(super) len: u64,
    pages: Vec<Option<Arc<Page>>>,
}

/// Returns the number of the page that contains an offset.
fn number(offset: u64) -> usize {
    (offset / PAGE as u64) as usize
}

/// Copies bytes into pages.
pub(super) fn cut(bytes: &[u8]) -> Vec<Arc<Page>> {
    let page = |bytes: &[u8]| Arc::new(Page::try_from(bytes).expect("writes are whole pages"));
    bytes.chunks(PAGE).map(page).collect()
}

impl Pages {
    /// Extends it to `len`; new pages read as `fill`, or as zeros if `fill` is empty.
    pub(super) fn grow(&mut self, len: u64, fill: &[Arc<Page>]) {
        if len <= self.len {
            return;
        }
        self.len = len;
        let old = self.pages.len();
        self.pages.resize(number(len), None);
        if !fill.is_empty() {
            for (i, page) in self.pages.iter_mut().enumerate().skip(old) {
                *page = Some(Arc::clone(&fill[i % fill.len()]));
            }
        }
    }

    /// Replaces everything. Pages that stay the same are kept; pages of zeros take no memory.
    pub(super) fn replace(&mut self, bytes: &[u8]) {
        self.len = bytes.len() as u64;
        self.pages.resize(bytes.len().div_ceil(PAGE), None);
        for (page, bytes) in self.pages.iter_mut().zip(bytes.chunks(PAGE)) {
            let is_same = page.as_ref().is_some_and(|page| page[..bytes.len()] == *bytes);
            if bytes.iter().all(|byte| *byte == 0) {
                *page = None;
            } else if !is_same {
                let mut new = [0; PAGE];
                new[..bytes.len()].copy_from_slice(bytes);
                *page = Some(Arc::new(new));
            }
        }
    }

    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) {
        for (i, bytes) in bytes.chunks_mut(PAGE).enumerate() {
            match self.pages.get(number(offset) + i).and_then(Option::as_ref) {
                Some(page) => bytes.copy_from_slice(&page[..bytes.len()]),
                None => bytes.fill(0),
            }
        }
    }

    /// Returns `len` bytes from `offset` on.
    pub(super) fn bytes(&self, offset: u64, len: usize) -> Vec<u8> {
        let ahead = (offset % PAGE as u64) as usize;
        let mut bytes = vec![0; ahead + len];
        self.read(offset - ahead as u64, &mut bytes);
        bytes.split_off(ahead)
    }

    /// Stores pages; those past the end are lost.
    pub(super) fn put(&mut self, offset: u64, pages: &[Arc<Page>]) {
        for (old, new) in self.pages.iter_mut().skip(number(offset)).zip(pages) {
            *old = Some(Arc::clone(new));
        }
    }

    /// Stores the chosen units of pages. A unit has 8 to [`PAGE`] bytes and is a power of two.
    pub(super) fn put_torn(&mut self, offset: u64, pages: &[Arc<Page>], unit: usize, mut chosen: impl FnMut() -> bool) {
        for (old, new) in self.pages.iter_mut().skip(number(offset)).zip(pages) {
            let picks: Vec<bool> = (0..PAGE / unit).map(|_| chosen()).collect();
            if picks.iter().all(|pick| *pick) {
                *old = Some(Arc::clone(new));
            } else if picks.contains(&true) {
                let merged = Arc::make_mut(old.get_or_insert_with(|| Arc::new([0; PAGE])));
                for (i, _) in picks.iter().enumerate().filter(|(_, pick)| **pick) {
                    merged[i * unit..(i + 1) * unit].copy_from_slice(&new[i * unit..(i + 1) * unit]);
                }
            }
        }
    }

    /// Replaces one page.
    pub(super) fn set(&mut self, offset: u64, page: Option<Arc<Page>>) {
        if let Some(slot) = self.pages.get_mut(number(offset)) {
            *slot = page;
        }
    }

    /// Changes a page.
    pub(super) fn change(&mut self, offset: u64, change: impl FnOnce(&mut Page)) {
        if let Some(slot) = self.pages.get_mut(number(offset)) {
            change(Arc::make_mut(slot.get_or_insert_with(|| Arc::new([0; PAGE]))));
        }
    }

    pub(super) fn page(&self, offset: u64) -> Option<&Arc<Page>> {
        self.pages.get(number(offset))?.as_ref()
    }

    /// Returns the offsets of the pages that have been written.
    pub(super) fn written(&self) -> Vec<u64> {
        let there = self.pages.iter().enumerate().filter(|(_, page)| page.is_some());
        there.map(|(i, _)| (i * PAGE) as u64).collect()
    }
}
