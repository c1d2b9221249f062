//! The medium: the durable state, the state that reads see, and the unsynced changes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use keyhole_log::limits::PAGE;

use super::bad_pages::BadPages;
use super::faults::{Faults, Lie};
use super::pages::{Page, Pages, SECTOR};
use super::space::Space;
use crate::random::Random;

/// Progress of a change of the medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Submitted: it may be present in part.
    InFlight,
    /// Visible to reads, and covered by the next sync.
    Completed,
    /// The write failed: its effect is unknown, and no sync covers it.
    Failed,
    /// A sync that covered it failed: every other sync that covers it fails too.
    Unsynced,
}

/// A change that is not durable yet.
#[derive(Debug, Clone)]
pub(super) enum ChangeKind {
    Write {
        offset: u64,
        pages: Vec<Arc<Page>>,
    },
    /// An allocation.
    Grow {
        from: u64,
        end: u64,
    },
}

#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) kind: ChangeKind,
    pub(super) phase: Phase,
}

/// When the machine stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fuse {
    /// Never.
    Never,
    /// At this event number of the disk.
    Event(u64),
    /// At the first change beyond this number of changes.
    Change(u64),
}

/// Counters of past events, used to judge answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskCounters {
    /// Events: beginnings, completions and answers of disk operations.
    pub events: u64,
    /// Reads.
    pub reads: u64,
    /// The direct ones among them.
    pub reads_direct: u64,
    /// Writes, syncs, allocations and discards that were begun or refused.
    pub changes: u64,
    /// Syncs and durable writes.
    pub syncs: u64,
    /// Allocations.
    pub allocations: u64,
    /// Writes into space that was not written since its allocation.
    pub first_writes: u64,
    /// Failed reads, transient and permanent.
    pub reads_failed: u64,
    /// Failed writes, syncs and allocations since the machine started.
    pub failed: u64,
    /// Event number at which the first of them was answered.
    pub failed_at: Option<u64>,
    /// Operations that were chosen to fail.
    pub chosen_failures: u64,
    /// Allocations and writes that failed for lack of space.
    pub full: u64,
    /// The writes among them.
    pub writes_full: u64,
    /// Steps of the neighbour in the file system.
    pub neighbour: u64,
}

/// The state of the medium, which outlives processes.
#[derive(Clone)]
pub(super) struct MediumState {
    pub(super) durable: Pages,
    pub(super) current: Pages,
    pub(super) changes: BTreeMap<u64, Change>,
    next: u64,
    pub(super) random: Random,
    pub(super) faults: Faults,
    /// Operations that fail, as numbers that count from the next one.
    pub(super) failure: Option<Range<u64>>,
    /// Content of space that was never written.
    pub(super) garbage: Vec<Arc<Page>>,
    pub(super) fuse: Fuse,
    pub(super) dead: bool,
    pub(super) counters: DiskCounters,
    /// Space in the file system.
    pub(super) space: Space,
    /// Permanently bad places.
    pub(super) bad_pages: BadPages,
    /// End locations of the damaged checkpoints.
    pub(super) spoiled: BTreeSet<u64>,
    /// Syncs in flight.
    pub(super) syncing: u64,
    /// Operations begun by clients.
    pub(super) operations: u64,
}

impl MediumState {
    pub(super) fn new(mut random: Random, faults: Faults) -> Self {
        let mut garbage = Vec::new();
        if faults.dirty {
            let mut page = Box::new([0; PAGE]);
            page.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&random.number().to_le_bytes()));
            garbage = vec![Arc::new(*page), Arc::new([0; PAGE]), Arc::new([0xff; PAGE])];
        }
        MediumState {
            durable: Pages::default(),
            current: Pages::default(),
            changes: BTreeMap::new(),
            next: 0,
            random,
            faults,
            failure: None,
            garbage,
            fuse: Fuse::Never,
            dead: false,
            counters: DiskCounters::default(),
            space: Space::default(),
            bad_pages: BadPages::default(),
            spoiled: BTreeSet::new(),
            syncing: 0,
            operations: 0,
        }
    }

    /// Counts the beginning or end of an operation; returns true if the machine stops here.
    pub(super) fn event(&mut self) -> bool {
        self.counters.events += 1;
        if matches!(self.fuse, Fuse::Event(at) if self.counters.events >= at) {
            self.dead = true;
        }
        self.dead
    }

    /// Counts an operation towards the chosen failure; returns true if the operation fails.
    pub(super) fn is_chosen_to_fail(&mut self) -> bool {
        let Some(failure) = &mut self.failure else { return false };
        let is_chosen = failure.start == 0 && failure.end > 0;
        failure.start = failure.start.saturating_sub(1);
        failure.end = failure.end.saturating_sub(1);
        self.counters.chosen_failures += u64::from(is_chosen);
        is_chosen
    }

    /// Counts a change. The machine may stop at its next event.
    pub(super) fn begin_change(&mut self) {
        self.counters.changes += 1;
        self.dead |= matches!(self.fuse, Fuse::Change(at) if self.counters.changes > at);
    }

    /// Counts a completed operation.
    pub(super) fn step(&mut self) {
        self.space.step(&self.faults, &mut self.random);
        self.counters.neighbour = self.space.steps();
    }

    /// Returns whether the medium is read-only.
    pub(super) fn is_read_only(&self) -> bool {
        self.bad_pages.read_only_at.is_some_and(|at| self.counters.events >= at)
    }

    /// Returns whether there is space for a write.
    pub(super) fn has_space(&mut self, offset: u64, len: u64) -> bool {
        let fits = self.space.write(&self.faults, &mut self.random, offset, len);
        self.counters.full += u64::from(!fits);
        self.counters.writes_full += u64::from(!fits);
        fits
    }

    /// Records that these bytes were written.
    pub(super) fn written(&mut self, offset: u64, len: u64) {
        self.bad_pages.written(self.faults.heals, offset, len);
        self.counters.first_writes += u64::from(self.space.written(offset, len));
    }

    pub(super) fn duration(&mut self) -> u64 {
        let most = self.faults.slowness;
        let time = self.random.below(most + 1);
        if self.random.rarely(100) { time * 50 } else { time }
    }

    pub(super) fn submit(&mut self, kind: ChangeKind) -> u64 {
        self.next += 1;
        if let ChangeKind::Write { offset, pages } = &kind {
            let end = offset + (pages.len() * PAGE) as u64;
            assert!(end <= self.current.len, "a write into space that was not allocated, at {offset}");
        }
        self.changes.insert(self.next, Change { kind, phase: Phase::InFlight });
        self.next
    }

    /// Begins an allocation. Returns its number, if it changes anything, and whether space ran out.
    pub(super) fn submit_allocation(&mut self, offset: u64, len: u64) -> (Option<u64>, bool) {
        let result = self.space.allocate(&self.faults, offset, len);
        let taken = result.err().unwrap_or(len);
        let id = (taken > 0).then(|| self.submit(ChangeKind::Grow { from: offset, end: offset + taken }));
        (id, result.is_err())
    }

    /// Makes a change visible to reads and subject to the next sync.
    pub(super) fn complete(&mut self, id: u64) {
        let Some(change) = self.changes.get_mut(&id) else { return };
        change.phase = Phase::Completed;
        match &change.kind {
            ChangeKind::Write { offset, pages } => self.current.put(*offset, pages),
            ChangeKind::Grow { end, .. } => self.current.grow(*end, &self.garbage),
        }
    }

    /// Restores the old content of unwritable places in a write.
    pub(super) fn keep_unwritable(&mut self, id: u64) {
        let Some(Change { kind: ChangeKind::Write { offset, pages }, .. }) = self.changes.get_mut(&id) else { return };
        for (i, page) in pages.iter_mut().enumerate() {
            let at = *offset + (i * PAGE) as u64;
            if self.bad_pages.is_unwritable(at, PAGE as u64) {
                *page = self.current.page(at).map_or_else(|| Arc::new([0; PAGE]), Arc::clone);
            }
        }
    }

    /// Fails a write: its range has arbitrary content.
    pub(super) fn fail(&mut self, id: u64) {
        let Some(change) = self.changes.get_mut(&id) else { return };
        change.phase = Phase::Failed;
        if let ChangeKind::Write { offset, pages } = &change.kind {
            let random = &mut self.random;
            self.current.put_torn(*offset, pages, SECTOR, || random.chance(50));
        }
    }

    /// Completes any part of a write, which then is cached like any other change.
    pub(super) fn complete_in_part(&mut self, id: u64) {
        self.fail(id);
        let Some(Change { kind: ChangeKind::Write { offset, pages }, phase }) = self.changes.get_mut(&id) else {
            return;
        };
        for (i, page) in pages.iter_mut().enumerate() {
            let there = self.current.page(*offset + (i * PAGE) as u64);
            *page = there.map_or_else(|| Arc::new([0; PAGE]), Arc::clone);
        }
        *phase = Phase::Completed;
    }

    /// Returns the changes covered by a sync that begins now.
    pub(super) fn covered(&self) -> Vec<u64> {
        let covered = |change: &&Change| matches!(change.phase, Phase::Completed | Phase::Unsynced);
        self.changes.iter().filter(|(_, change)| covered(change)).map(|(&id, _)| id).collect()
    }

    /// Returns whether a sync must fail because a change it covers was lost.
    fn is_lost(&self, covered: &[u64]) -> bool {
        covered.iter().any(|id| self.changes.get(id).is_some_and(|change| change.phase == Phase::Unsynced))
    }

    pub(super) fn lose(&mut self, covered: &[u64]) {
        for id in covered {
            if let Some(change) = self.changes.get_mut(id) {
                change.phase = Phase::Unsynced;
            }
        }
    }

    fn harden(&mut self, covered: &[u64]) {
        let has_failed = self.changes.values().any(|change| change.phase == Phase::Failed);
        for id in covered {
            // An earlier failed write must not overwrite durable content.
            if has_failed {
                self.supersede(*id);
            }
            match self.changes.remove(id).map(|change| change.kind) {
                Some(ChangeKind::Write { offset, pages }) => {
                    self.durable.put(offset, &pages);
                    self.space.harden(offset, (pages.len() * PAGE) as u64);
                }
                Some(ChangeKind::Grow { from, end }) => {
                    self.durable.grow(end, &self.garbage);
                    self.space.harden_allocation(&self.faults, from, end);
                }
                None => {}
            }
        }
    }

    /// Completes a write, or pretends to.
    pub(super) fn write_done(&mut self, id: u64) {
        if self.faults.lie == Some(Lie::Write) && self.random.rarely(100) {
            self.fail(id);
        } else {
            self.complete(id);
        }
    }

    /// Completes a write that makes itself and the file length durable.
    pub(super) fn durable_write_done(&mut self, id: u64) {
        self.write_done(id);
        let is_there = self.changes.get(&id).is_some_and(|change| change.phase == Phase::Completed);
        if !is_there || self.faults.lie == Some(Lie::Sync) {
            return;
        }
        let grown =
            |change: &Change| change.phase == Phase::Completed && matches!(change.kind, ChangeKind::Grow { .. });
        let mut covered: Vec<u64> =
            self.changes.iter().filter(|(_, change)| grown(change)).map(|(&id, _)| id).collect();
        covered.push(id);
        self.supersede(id);
        self.harden(&covered);
    }

    /// Stops earlier changes from overwriting the range of this write.
    fn supersede(&mut self, id: u64) {
        let Some(Change { kind: ChangeKind::Write { offset: new_at, pages: new }, .. }) =
            self.changes.get(&id).cloned()
        else {
            return;
        };
        for Change { kind, .. } in self.changes.range_mut(..id).map(|(_, change)| change) {
            let ChangeKind::Write { offset, pages } = kind else { continue };
            for (i, page) in pages.iter_mut().enumerate() {
                let at = *offset + (i * PAGE) as u64;
                let covering = at.checked_sub(new_at).and_then(|behind| new.get(behind as usize / PAGE));
                if let Some(now) = covering {
                    *page = Arc::clone(now);
                }
            }
        }
    }

    /// Completes a sync. Returns false if it fails and loses what it covered.
    pub(super) fn sync_done(&mut self, covered: &[u64], fault: bool) -> bool {
        self.syncing -= 1;
        if fault || self.is_lost(covered) {
            self.lose(covered);
            return false;
        }
        match self.faults.lie {
            Some(Lie::Sync) => {}
            Some(Lie::PartOfSync) => self.harden(&covered[..covered.len().div_ceil(2)]),
            _ => self.harden(covered),
        }
        true
    }

    /// Discards a range: it reads as anything from now on.
    pub(super) fn discard(&mut self, offset: u64, len: u64) {
        let end = offset + len;
        let is_unsynced = |change: &Change| match &change.kind {
            ChangeKind::Write { offset: at, pages } => *at < end && offset < at + (pages.len() * PAGE) as u64,
            ChangeKind::Grow { .. } => false,
        };
        // In lives, a write without space may have left a part of a segment that is then discarded.
        if self.faults.extents {
            assert!(end <= self.current.len, "a discard of space that was not allocated, at {offset}");
            assert!(!self.changes.values().any(is_unsynced), "a discard of what was just written, at {offset}");
        }
        self.space.discard(&self.faults, offset, len);
        let zero = Arc::new([0; PAGE]);
        for at in (offset..offset + len).step_by(PAGE) {
            for pages in [&mut self.durable, &mut self.current] {
                match self.random.below(4) {
                    0 => pages.set(at, None),
                    1 => pages.set(at, Some(self.garbage.first().map_or_else(|| Arc::clone(&zero), Arc::clone))),
                    _ => {}
                }
            }
        }
    }

    /// Inverts bits of a byte.
    pub(super) fn flip(&mut self, at: u64, mask: u8) {
        for pages in [&mut self.durable, &mut self.current] {
            pages.change(at, |page| page[at as usize % PAGE] ^= mask);
        }
    }

    /// Replaces the content by that of a file that was written completely and synced.
    pub(super) fn set_content(&mut self, content: &[u8]) {
        self.changes.clear();
        self.durable.replace(content);
        self.current = self.durable.clone();
        self.space.set_written(content.len() as u64);
    }

    /// Changes the content of the medium while nothing is open or cached.
    pub(super) fn at_rest<T>(&mut self, change: impl FnOnce(&mut Pages, &mut Random) -> T) -> T {
        assert!(self.changes.is_empty(), "power has to fail first");
        let result = change(&mut self.durable, &mut self.random);
        self.current = self.durable.clone();
        result
    }
}
