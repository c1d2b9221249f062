//! Counts: what the log has written since it was opened, and what is where.

use std::sync::Arc;

use crate::error::FailedWrite;
use crate::segments::Use;
use crate::shared::{State, Usage};
use crate::wire::segment::Kind;

/// Everything that is counted, as of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// How much of the file is used, and by what.
    pub usage: Usage,
    /// Bytes of memory that the index takes, keys included.
    pub index_bytes: u64,
    /// Bytes written since the log was opened.
    pub written: Written,
    /// Batches of records since the log was opened, by how many commits shared one.
    pub batches: BatchHistogram,
    /// What was made durable since the log was opened.
    pub syncs: Syncs,
    /// What the cleaner has done since the log was opened.
    pub cleaner: CleanerStats,
    /// Segments by state.
    pub segment_counts: SegmentCounts,
    /// Every segment of the file; none in a [`summary`](crate::Shared::summary).
    pub segments: Vec<SegmentStat>,
    /// When full, the oldest objects go.
    pub ring: bool,
    /// What is new is refused until something is deleted.
    pub full: bool,
    /// A write or a sync has failed, and nothing more is written.
    pub poisoned: bool,
    /// The one that failed.
    pub failed_write: Option<FailedWrite>,
    /// Why the log is open for reading alone, if it is.
    pub read_only: Option<Arc<str>>,
    /// The newest time at which an object, a part or an upload was stored, in ms since 1970, of those known since the log was
    /// opened; 0: there is none.
    pub newest_ms: u64,
}

/// What was made durable, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Syncs {
    /// Syncs of the whole disk.
    pub syncs: u64,
    /// Batches whose write made them durable by itself.
    pub durable_writes: u64,
}

/// How many segments are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentCounts {
    /// Those that can be begun, and whose place in the file is there.
    pub blank: u64,
    /// Those that are being appended to.
    pub open: u64,
    /// Those that nothing more is appended to.
    pub closed: u64,
    /// Those in which nothing is of use, before they are freed.
    pub condemned: u64,
    /// Those that could not be read.
    pub damaged: u64,
}

/// Bytes written since the log was opened, by what they were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// Bytes of bodies, as requests gave them: what write amplification is measured against.
    pub appended: u64,
    /// Records of requests, with the batches' padding.
    pub records: u64,
    /// Blocks of requests, footers and padding included.
    pub blocks: u64,
    /// Records and blocks that the cleaner has written again.
    pub moved: u64,
    /// Records of checkpoints.
    pub checkpoints: u64,
    /// Headers of segments, superblocks, records of the log's own, zeros that segments for records are filled with.
    pub other: u64,
}

impl Written {
    /// All bytes written.
    pub fn total(&self) -> u64 {
        self.records + self.blocks + self.moved + self.checkpoints + self.other
    }

    /// Bytes written for each byte of bodies: records, their padding to the page, and footers of blocks count as written. `None`
    /// before the first byte.
    pub fn amplification(&self) -> Option<f64> {
        (self.appended > 0).then(|| self.total() as f64 / self.appended as f64)
    }
}

/// How many batches had so many commits: up to 1, 2, 4, ... 256, and more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchHistogram(pub [u64; 10]);

impl BatchHistogram {
    pub(crate) fn count(&mut self, commits: usize) {
        if commits > 0 {
            let class = commits.next_power_of_two().trailing_zeros() as usize;
            self.0[class.min(self.0.len() - 1)] += 1;
        }
    }
}

/// What the cleaner has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CleanerStats {
    /// Segments whose live records or blocks were moved.
    pub segments_cleaned: u64,
    /// Segments that became blank.
    pub segments_freed: u64,
    /// Segments whose space was given back.
    pub segments_discarded: u64,
    /// Bytes of live records and blocks that were moved.
    pub bytes_moved: u64,
    /// Checkpoints that were completed.
    pub checkpoints: u64,
    /// Segments that are not cleaned again before the next opening, as something in them cannot be read.
    pub segments_set_aside: u64,
    /// Objects and uploads that the cleaner has found damaged.
    pub damaged: u64,
}

/// What a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentKind {
    /// Records.
    Meta,
    /// Blocks of bodies.
    Body,
    /// Nothing, or not known.
    Blank,
}

/// What is done with a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentState {
    /// It can be begun.
    Blank,
    /// It is being appended to.
    Open,
    /// Nothing more is appended.
    Closed,
    /// Nothing in it is of use; it is freed after the next checkpoints.
    Condemned,
    /// It could not be read, and is left alone.
    Damaged,
}

/// One segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentStat {
    /// Its number in the file.
    pub number: u32,
    /// What it holds.
    pub kind: SegmentKind,
    /// What is done with it.
    pub state: SegmentState,
    /// Of its present or last use.
    pub generation: u64,
    /// Bytes written, header included.
    pub written: u64,
    /// Bytes of them that are referred to.
    pub live: u64,
}

/// Counts kept up to date under the lock.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) written: Written,
    pub(crate) batches: BatchHistogram,
    pub(crate) syncs: Syncs,
    pub(crate) cleaner: CleanerStats,
}

impl State {
    pub(crate) fn segment_stats(&self) -> Vec<SegmentStat> {
        let segments = self.segments.table.iter().zip(0u32..).map(|(segment, number)| {
            let (kind, state) = match segment.used {
                Use::Blank => (SegmentKind::Blank, SegmentState::Blank),
                Use::Open(kind) => (SegmentKind::of(kind), SegmentState::Open),
                Use::Closed(kind) => (SegmentKind::of(kind), SegmentState::Closed),
                Use::Condemned(_) => (SegmentKind::Blank, SegmentState::Condemned),
                Use::Damaged => (SegmentKind::Blank, SegmentState::Damaged),
            };
            let (generation, written) = (segment.generation, u64::from(segment.written));
            SegmentStat { number, kind, state, generation, written, live: self.index.live.of(number) }
        });
        segments.collect()
    }

    pub(crate) fn summary(&self, poisoned: bool, read_only: Option<Arc<str>>) -> Stats {
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
            usage: self.usage(),
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

impl SegmentKind {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Meta => SegmentKind::Meta,
            Kind::Body => SegmentKind::Body,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_batches() {
        let mut histogram = BatchHistogram::default();
        for commits in [0, 1, 2, 3, 4, 5, 256, 257, 512, 513, 100_000] {
            histogram.count(commits);
        }
        assert_eq!(histogram.0, [1, 1, 2, 1, 0, 0, 0, 0, 1, 4]);
    }

    #[test]
    fn amplification_counts_padding_and_footers() {
        assert_eq!(Written { records: 8192, ..Written::default() }.amplification(), None);
        // An object of 4 KiB alone takes two pages of records.
        let small = Written { appended: 4096, records: 8192, ..Written::default() };
        assert_eq!(small.amplification(), Some(2.0));
        let all = Written { appended: 80, records: 10, blocks: 90, moved: 80, checkpoints: 10, other: 10 };
        assert_eq!(all.amplification(), Some(2.5));
    }
}
