//! Statistics of the state.

use std::sync::Arc;

use super::State;
use crate::limits::PAGE;
use crate::segments::Use;
use crate::stats::{SegmentCounts, SegmentKind, SegmentStat, SegmentState, Stats, Usage};

impl State {
    /// Returns the space usage; the locked bytes are added up in batches, without the lock in between.
    pub(crate) fn usage(&self, locked_bytes: u64) -> Usage {
        let totals = self.index.totals;
        let live = self.index.live.total();
        let in_use = self.segments.table.iter().filter(|segment| segment.in_use());
        let used: u64 = in_use.map(|segment| u64::from(segment.written).saturating_sub(PAGE as u64)).sum();
        Usage {
            capacity: self.segments.capacity,
            allocated: self.segments.allocated(),
            reserved: self.segments.reserve.total() * self.segments.len,
            buckets: self.index.bucket_count(),
            objects: totals.objects,
            noncurrent: totals.noncurrent,
            markers: totals.markers,
            noncurrent_bytes: self.index.noncurrent_bytes(),
            locked_bytes,
            evicted: totals.evicted,
            evicted_bytes: totals.evicted_bytes,
            uploads: totals.uploads,
            bodies: self.index.body_count(),
            live,
            dead: used.saturating_sub(live),
            live_max: self.segments.live_max(),
        }
    }

    pub(crate) fn segment_stats(&self) -> Vec<SegmentStat> {
        let segments = self.segments.table.iter().zip(0u32..).map(|(segment, number)| {
            let (kind, state) = match segment.used {
                Use::Blank => (SegmentKind::Blank, SegmentState::Blank),
                Use::Open(kind) => (SegmentKind::of(kind), SegmentState::Open),
                Use::Closed(kind) => (SegmentKind::of(kind), SegmentState::Closed),
                Use::Condemned(_) => (SegmentKind::Blank, SegmentState::Condemned),
                Use::Damaged => (SegmentKind::Blank, SegmentState::Damaged),
            };
            let generation = segment.generation;
            let written = u64::from(segment.written);
            SegmentStat { number, kind, state, generation, written, live: self.index.live.of(number) }
        });
        segments.collect()
    }

    pub(crate) fn summary(&self, locked_bytes: u64, poisoned: bool, read_only: Option<Arc<str>>) -> Stats {
        let mut counts = SegmentCounts::default();
        for segment in &self.segments.table {
            *match segment.used {
                Use::Blank => &mut counts.blank,
                Use::Open(_) => &mut counts.open,
                Use::Closed(_) => &mut counts.closed,
                Use::Condemned(_) => &mut counts.condemned,
                Use::Damaged => &mut counts.damaged,
            } += 1;
        }
        Stats {
            usage: self.usage(locked_bytes),
            index_bytes: self.index.allocated(),
            written: self.counters.written,
            batches: self.counters.batches,
            syncs: self.counters.syncs,
            cleaner: self.counters.cleaner,
            segment_counts: counts,
            segments: Vec::new(),
            ring: self.maintenance.ring,
            full: self.refuses(),
            poisoned,
            failed_write: self.failed_write.clone(),
            read_only,
            newest_ms: self.index.newest_ms,
        }
    }
}
