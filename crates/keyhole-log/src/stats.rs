//! Statistics: counters since the log was opened, and the current use of the file.

use std::sync::Arc;

use crate::error::FailedWrite;
use crate::wire::segment::Kind;

/// Space usage of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Maximum length of the file in bytes.
    pub capacity: u64,
    /// Current length of the file in bytes.
    pub allocated: u64,
    /// Bytes reserved for deletions, the cleaner and checkpoints.
    pub reserved: u64,
    /// Number of buckets.
    pub buckets: u64,
    /// Number of objects: names whose current version is one.
    pub objects: u64,
    /// Number of noncurrent versions, without delete markers.
    pub noncurrent: u64,
    /// Number of delete markers.
    pub markers: u64,
    /// Plaintext bytes of noncurrent versions.
    pub noncurrent_bytes: u64,
    /// Plaintext bytes of versions that are locked now.
    pub locked_bytes: u64,
    /// Number of evicted versions, whose bytes another store has.
    pub evicted: u64,
    /// Plaintext bytes of evicted versions.
    pub evicted_bytes: u64,
    /// Number of uploads that are neither completed nor aborted.
    pub uploads: u64,
    /// Number of bodies, including those of parts.
    pub bodies: u64,
    /// Live bytes of records and blocks, including headers and footers.
    pub live: u64,
    /// Bytes written that are not live: no longer or not yet referenced.
    pub dead: u64,
    /// Limit on live bytes. In-flight writes may exceed it slightly.
    pub live_max: u64,
}

/// A snapshot of all statistics.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Space usage of the file.
    pub usage: Usage,
    /// Memory used by the index in bytes, including keys.
    pub index_bytes: u64,
    /// Bytes written since the log was opened.
    pub written: Written,
    /// Batches of records since the log was opened, by number of commits.
    pub batches: BatchHistogram,
    /// Syncs and durable writes since the log was opened.
    pub syncs: Syncs,
    /// Work of the cleaner since the log was opened.
    pub cleaner: CleanerStats,
    /// Number of segments by state.
    pub segment_counts: SegmentCounts,
    /// Every segment of the file; empty in a [`summary`](crate::Store::summary).
    pub segments: Vec<SegmentStat>,
    /// Whether ring mode is on: when the store is full, the oldest objects are dropped.
    pub ring: bool,
    /// Whether writes that add data are refused until something is deleted.
    pub full: bool,
    /// Whether a write or a sync has failed, so that no more writes are accepted.
    pub poisoned: bool,
    /// The failure that poisoned the log.
    pub failed_write: Option<FailedWrite>,
    /// The reason, if the log is read-only.
    pub read_only: Option<Arc<str>>,
    /// Latest storage time of any object, part or upload known since the log was opened, in ms
    /// since 1970; 0 if there is none.
    pub newest_ms: u64,
}

/// Numbers of syncs and durable writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Syncs {
    /// Syncs of the whole disk.
    pub syncs: u64,
    /// Batches made durable by their own write.
    pub durable_writes: u64,
}

/// Number of segments in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentCounts {
    /// Segments free to be begun that exist in the file.
    pub blank: u64,
    /// Segments being appended to.
    pub open: u64,
    /// Full or ended segments.
    pub closed: u64,
    /// Segments without live data that are not freed yet.
    pub condemned: u64,
    /// Unreadable segments.
    pub damaged: u64,
}

/// Bytes written since the log was opened, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// Bytes of bodies as passed by requests: the denominator of write amplification.
    pub appended: u64,
    /// Records of requests, including batch padding.
    pub records: u64,
    /// Blocks of requests, including footers and padding.
    pub blocks: u64,
    /// Records and blocks moved by the cleaner.
    pub moved: u64,
    /// Records of checkpoints.
    pub checkpoints: u64,
    /// Segment headers, superblocks, records of the log itself, and zeros that META
    /// segments are filled with.
    pub other: u64,
}

impl Written {
    /// Returns the total of bytes written.
    pub fn total(&self) -> u64 {
        self.records + self.blocks + self.moved + self.checkpoints + self.other
    }

    /// Returns the write amplification: bytes written per byte of bodies, including records, page
    /// padding and footers. `None` before the first byte.
    pub fn amplification(&self) -> Option<f64> {
        (self.appended > 0).then(|| self.total() as f64 / self.appended as f64)
    }
}

/// Number of batches by number of commits: up to 1, 2, 4, ... 256, and more.
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

/// Work of the cleaner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CleanerStats {
    /// Segments whose live records or blocks were moved.
    pub segments_cleaned: u64,
    /// Segments that became blank.
    pub segments_freed: u64,
    /// Segments whose space was discarded.
    pub segments_discarded: u64,
    /// Bytes of live records and blocks moved.
    pub bytes_moved: u64,
    /// Completed checkpoints.
    pub checkpoints: u64,
    /// Segments with unreadable data, which are not cleaned again until the log is reopened.
    pub segments_set_aside: u64,
    /// Damaged objects and uploads found by the cleaner.
    pub damaged: u64,
}

/// The contents of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentKind {
    /// Records.
    Meta,
    /// Blocks of bodies.
    Body,
    /// None or unknown.
    Blank,
}

/// The state of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentState {
    /// Free to be begun.
    Blank,
    /// Being appended to.
    Open,
    /// Full or ended.
    Closed,
    /// Without live data; freed after the next checkpoints.
    Condemned,
    /// Unreadable, and left alone.
    Damaged,
}

/// Statistics of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentStat {
    /// Number of the segment in the file.
    pub number: u32,
    /// Contents of the segment.
    pub kind: SegmentKind,
    /// State of the segment.
    pub state: SegmentState,
    /// Generation of the current or last use.
    pub generation: u64,
    /// Bytes written, including the header.
    pub written: u64,
    /// Live bytes.
    pub live: u64,
}

/// Counters kept up to date under the lock.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) written: Written,
    pub(crate) batches: BatchHistogram,
    pub(crate) syncs: Syncs,
    pub(crate) cleaner: CleanerStats,
}

impl SegmentKind {
    pub(crate) fn of(kind: Kind) -> Self {
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
    fn batch_histogram_counts_by_power_of_two() {
        let mut histogram = BatchHistogram::default();
        for commits in [0, 1, 2, 3, 4, 5, 256, 257, 512, 513, 100_000] {
            histogram.count(commits);
        }
        assert_eq!(histogram.0, [1, 1, 2, 1, 0, 0, 0, 0, 1, 4]);
    }

    #[test]
    fn write_amplification_counts_padding_and_footers() {
        assert_eq!(Written { records: 8192, ..Written::default() }.amplification(), None);
        // A single object of 4 KiB takes two pages of records.
        let small = Written { appended: 4096, records: 8192, ..Written::default() };
        assert_eq!(small.amplification(), Some(2.0));
        let all = Written { appended: 80, records: 10, blocks: 90, moved: 80, checkpoints: 10, other: 10 };
        assert_eq!(all.amplification(), Some(2.5));
    }
}
