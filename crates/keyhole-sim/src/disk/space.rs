//! File system space: how allocations take it, and when neighbours use up the rest.
//!
//! Kinds of file systems are data ([`FileSystem`]). All of them assign space to each page of the
//! file separately. A neighbour, which follows from the seed, fills the file system and frees it
//! again. Its steps are completed disk operations other than failed allocations: an engine that
//! only repeats a failed allocation waits indefinitely.

use std::ops::Range;

use keyhole_log::Extent;
use keyhole_log::limits::PAGE;

use super::faults::{Faults, FileSystem};
use crate::random::Random;

/// Percentage of writes that fail on a full copy-on-write file system.
const COPIES_FAIL: u64 = 60;

/// Pages that the neighbour leaves free: none, less than a segment, or a few segments.
const LEFT: [u64; 5] = [0, 0, 100, 600, 1500];

/// Steps after which an engine that asks again learns that there is space.
const LEARNS_WITHIN: u64 = 10;

/// Probability per 10,000 that a neighbour that is not greedy takes the space freed in a full file
/// system, at each step.
const GRABS: u64 = 100;

/// Space of one file in its file system, in pages from the beginning of the file.
#[derive(Debug, Clone, Default)]
pub(super) struct Space {
    /// Pages that have space, in the running system and after a power failure.
    current: Vec<bool>,
    durable: Vec<bool>,
    /// Pages that were written since they got their space.
    written: Vec<bool>,
    /// Pages of the file system, if they are limited other than by the neighbour.
    pub(super) size: Option<u64>,
    /// Free pages in the file system; `None`: more than the file can use.
    free: Option<u64>,
    /// Steps until the neighbour fills or frees the file system.
    left: u64,
    /// Whether an operation has failed since the neighbour last filled the file system.
    felt: bool,
    /// Steps of the neighbour so far, and the step at which `felt` ended.
    steps: u64,
    felt_until: u64,
}

fn pages(offset: u64, len: u64) -> Range<usize> {
    (offset / PAGE as u64) as usize..((offset + len) / PAGE as u64) as usize
}

fn mark(map: &mut Vec<bool>, range: Range<usize>, to: bool) -> u64 {
    if map.len() < range.end {
        map.resize(range.end, false);
    }
    let mut changed = 0;
    for has in &mut map[range] {
        changed += u64::from(*has != to);
        *has = to;
    }
    changed
}

impl Space {
    /// Returns the number of pages in a range without space.
    fn missing(&self, range: Range<usize>) -> u64 {
        let known = range.start.min(self.current.len())..range.end.min(self.current.len());
        let there = self.current[known].iter().filter(|has| **has).count();
        (range.len() - there) as u64
    }

    fn has(&self, faults: &Faults, pages: u64) -> bool {
        let is_limited = faults.neighbour > 0 || self.size.is_some();
        !is_limited || self.free.is_none_or(|free| free >= pages)
    }

    /// Lets others take all free space.
    pub(super) fn fill(&mut self) {
        self.free = Some(0);
    }

    /// Frees the space of others.
    pub(super) fn release(&mut self) {
        let taken = self.current.iter().filter(|has| **has).count() as u64;
        self.free = self.size.map(|size| size.saturating_sub(taken));
    }

    /// Gives space to all pages of a file that was written completely.
    pub(super) fn set_written(&mut self, len: u64) {
        self.current = vec![true; len.div_ceil(PAGE as u64) as usize];
        self.durable.clone_from(&self.current);
        self.written.clone_from(&self.current);
        self.release();
    }

    /// Records a completed write. Returns whether a part of it was the first since the allocation.
    pub(super) fn written(&mut self, offset: u64, len: u64) -> bool {
        mark(&mut self.written, pages(offset, len), true) > 0
    }

    /// Returns the pages with space in a file of this length, in order.
    pub(super) fn extents(&self, len: u64) -> Vec<Extent> {
        let has_space = self.current.iter().zip(0..pages(0, len).end).filter(|(has, _)| **has);
        let extent = |page: usize| Extent {
            offset: (page * PAGE) as u64,
            len: PAGE as u64,
            written: self.written.get(page).is_some_and(|written| *written),
        };
        has_space.map(|(_, page)| extent(page)).collect()
    }

    fn take(&mut self, range: Range<usize>) {
        let taken = mark(&mut self.current, range, true);
        self.free = self.free.map(|free| free.saturating_sub(taken));
    }

    fn give(&mut self, pages: u64) {
        self.free = self.free.map(|free| free + pages);
    }

    /// Performs one step of the neighbour.
    pub(super) fn step(&mut self, faults: &Faults, random: &mut Random) {
        if faults.neighbour == 0 {
            return;
        }
        self.steps += 1;
        if self.felt {
            self.felt_until = self.steps;
        }
        if self.left > 0 {
            self.left -= 1;
            if self.free.is_some() && (faults.greedy || random.rarely(GRABS)) {
                self.free = Some(0);
            }
            return;
        }
        self.left = random.below(faults.neighbour);
        self.free = match self.free {
            None => Some(*random.pick(&LEFT)),
            Some(_) => None,
        };
        self.felt = false;
    }

    /// Returns the number of steps of the neighbour so far.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// Returns whether, just before this step or later, an operation had failed for lack of space
    /// while the file system was still full.
    pub(super) fn is_short_since(&self, step: u64) -> bool {
        self.felt || self.felt_until + LEARNS_WITHIN > step
    }

    /// Allocates a range. On lack of space, `Err` holds the number of bytes that fit.
    pub(super) fn allocate(&mut self, faults: &Faults, offset: u64, len: u64) -> Result<(), u64> {
        let range = pages(offset, len);
        let needed = match faults.file_system {
            FileSystem::NoExtents => return Ok(()),
            FileSystem::Xfs => range.len() as u64,
            FileSystem::Ext4 | FileSystem::Btrfs => self.missing(range.clone()),
        };
        if self.has(faults, needed) {
            self.take(range);
            return Ok(());
        }
        self.felt = true;
        if faults.file_system == FileSystem::Xfs || !faults.half_grown {
            return Err(0);
        }
        // The file system may have taken part of the range before it notices.
        let fits = |end: &usize| self.has(faults, self.missing(range.start..*end));
        let end = (range.start..=range.end).rev().find(fits).unwrap_or(range.start);
        self.take(range.start..end);
        Err(((end - range.start) * PAGE) as u64)
    }

    /// Writes a range. Returns false if there is no space for it.
    pub(super) fn write(&mut self, faults: &Faults, random: &mut Random, offset: u64, len: u64) -> bool {
        let range = pages(offset, len);
        let is_promised = matches!(faults.file_system, FileSystem::Ext4 | FileSystem::Xfs);
        assert!(!is_promised || !faults.extents || self.missing(range.clone()) == 0, "a write into a hole at {offset}");
        let fits = match faults.file_system {
            FileSystem::Btrfs => self.has(faults, range.len() as u64) || !random.chance(COPIES_FAIL),
            _ => self.has(faults, self.missing(range.clone())),
        };
        if fits {
            self.take(range);
        }
        self.felt |= !fits;
        fits
    }

    /// Returns the space of a range, where the file system can do that.
    pub(super) fn discard(&mut self, faults: &Faults, offset: u64, len: u64) {
        if !faults.holes || faults.file_system == FileSystem::NoExtents {
            return;
        }
        let freed = mark(&mut self.current, pages(offset, len), false);
        mark(&mut self.durable, pages(offset, len), false);
        mark(&mut self.written, pages(offset, len), false);
        self.give(freed);
    }

    /// Makes the space of an allocation or write durable, where the file system takes it
    /// immediately.
    pub(super) fn harden(&mut self, offset: u64, len: u64) {
        mark(&mut self.durable, pages(offset, len), true);
    }

    /// Makes an allocation durable.
    pub(super) fn harden_allocation(&mut self, faults: &Faults, offset: u64, end: u64) {
        if faults.file_system != FileSystem::NoExtents {
            self.harden(offset, end - offset);
        }
    }

    /// Applies a power failure that leaves the file with this length.
    pub(super) fn fail_power(&mut self, len: u64) {
        self.durable.truncate(pages(0, len).end);
        let lost = self.current.iter().enumerate().filter(|(i, has)| **has && !self.durable.get(*i).unwrap_or(&false));
        let lost = lost.count() as u64;
        self.current.clone_from(&self.durable);
        self.written.truncate(self.current.len());
        self.written.iter_mut().zip(&self.current).for_each(|(written, has)| *written &= *has);
        self.give(lost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn faults(file_system: FileSystem) -> Faults {
        Faults { file_system, neighbour: 100, holes: true, ..Faults::none() }
    }

    /// Returns a file of 2 MiB with allocated space in a full file system.
    fn full(faults: &Faults) -> Space {
        let mut space = Space::default();
        assert_eq!(space.allocate(faults, 0, 2 * MIB), Ok(()));
        space.free = Some(0);
        space
    }

    #[test]
    fn full_file_systems_answer_allocations_by_their_kind() {
        let kinds = [
            (FileSystem::Ext4, true, false),
            (FileSystem::Xfs, false, false),
            (FileSystem::Btrfs, true, false),
            (FileSystem::NoExtents, true, true),
        ];
        for (kind, again, growth) in kinds {
            let faults = faults(kind);
            let mut space = full(&faults);
            assert_eq!(space.allocate(&faults, 0, MIB).is_ok(), again, "{kind:?}: an allocated range");
            assert_eq!(space.allocate(&faults, 2 * MIB, MIB).is_ok(), growth, "{kind:?}: one more MiB");
            space.discard(&faults, 0, MIB);
            let mut free = space.free;
            if kind != FileSystem::NoExtents {
                assert_eq!(free, Some(256), "{kind:?}: a hole gives its space back");
                free = Some(255);
            }
            space.free = free;
            assert_eq!(space.allocate(&faults, 0, MIB).is_ok(), growth, "{kind:?}: a hole in a full file system");
        }
    }

    #[test]
    fn full_file_systems_answer_writes_by_their_kind() {
        let kinds = [
            (FileSystem::Ext4, 0, 100),
            (FileSystem::Xfs, 0, 100),
            (FileSystem::Btrfs, 60, 60),
            (FileSystem::NoExtents, 100, 100),
        ];
        for (kind, allocated, hole) in kinds {
            let faults = faults(kind);
            let mut random = Random::new(1);
            let mut failed = |at: u64| {
                let mut space = full(&faults);
                (0..1000).filter(|_| !space.write(&faults, &mut random, at, MIB)).count() / 10
            };
            assert!(failed(0).abs_diff(allocated) < 5, "{kind:?}: writes where space was allocated");
            assert!(failed(2 * MIB).abs_diff(hole) < 5, "{kind:?}: writes into a hole");
        }
    }

    #[test]
    fn power_failure_loses_allocations_that_were_not_synced() {
        let faults = faults(FileSystem::Ext4);
        let mut space = full(&faults);
        space.harden_allocation(&faults, 0, MIB);
        space.fail_power(2 * MIB);
        assert_eq!((space.free, space.missing(pages(0, 2 * MIB))), (Some(256), 256));
    }
}
