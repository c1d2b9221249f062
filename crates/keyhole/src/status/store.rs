//! The figures of the store: the only place that reads the log's statistics.

use keyhole_log::{BucketUsage, CleanerStats, Stats, Written};
use serde::{Deserialize, Serialize};

use crate::read_path::ReadCounts;

/// Figures of the store. All lengths are in bytes; counters start with the node.
#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Debug)]
pub(crate) struct StoreFigures {
    pub(crate) capacity: u64,
    pub(crate) allocated: u64,
    pub(crate) live: u64,
    pub(crate) dead: u64,
    pub(crate) buckets: u64,
    pub(crate) objects: u64,
    /// Noncurrent versions, delete markers, and plaintext bytes of noncurrent and of locked versions.
    #[serde(default)]
    pub(crate) noncurrent: u64,
    #[serde(default)]
    pub(crate) markers: u64,
    #[serde(default)]
    pub(crate) noncurrent_bytes: u64,
    #[serde(default)]
    pub(crate) locked_bytes: u64,
    /// Versions whose bytes only a remote has, and their plaintext bytes.
    #[serde(default)]
    pub(crate) evicted: u64,
    #[serde(default)]
    pub(crate) evicted_bytes: u64,
    pub(crate) uploads: u64,
    pub(crate) bodies: u64,
    pub(crate) index: u64,
    pub(crate) written: WrittenFigures,
    /// Batches with up to 1, 2, 4, ..., 512 commits.
    pub(crate) batches: Vec<u64>,
    pub(crate) cleaner: CleanerFigures,
}

/// Bytes written, by kind.
#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Debug)]
pub(crate) struct WrittenFigures {
    /// Bytes that requests had to write.
    pub(crate) appended: u64,
    pub(crate) records: u64,
    pub(crate) blocks: u64,
    pub(crate) moved: u64,
    pub(crate) checkpoints: u64,
    pub(crate) other: u64,
    pub(crate) total: u64,
    /// Bytes written per byte appended; `None` before the first.
    pub(crate) amplification: Option<f64>,
}

/// Counters of the cleaner.
#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct CleanerFigures {
    pub(crate) segments_cleaned: u64,
    pub(crate) segments_freed: u64,
    pub(crate) bytes_moved: u64,
    pub(crate) checkpoints: u64,
}

impl From<&Stats> for StoreFigures {
    fn from(stats: &Stats) -> Self {
        let Stats { usage, index_bytes, written, batches, cleaner, .. } = stats;
        StoreFigures {
            capacity: usage.capacity,
            allocated: usage.allocated,
            live: usage.live,
            dead: usage.dead,
            buckets: usage.buckets,
            objects: usage.objects,
            noncurrent: usage.noncurrent,
            markers: usage.markers,
            noncurrent_bytes: usage.noncurrent_bytes,
            locked_bytes: usage.locked_bytes,
            evicted: usage.evicted,
            evicted_bytes: usage.evicted_bytes,
            uploads: usage.uploads,
            bodies: usage.bodies,
            index: *index_bytes,
            written: written.into(),
            batches: batches.0.to_vec(),
            cleaner: cleaner.into(),
        }
    }
}

impl From<&Written> for WrittenFigures {
    fn from(written: &Written) -> Self {
        WrittenFigures {
            appended: written.appended,
            records: written.records,
            blocks: written.blocks,
            moved: written.moved,
            checkpoints: written.checkpoints,
            other: written.other,
            total: written.total(),
            amplification: written.amplification(),
        }
    }
}

impl From<&CleanerStats> for CleanerFigures {
    fn from(cleaner: &CleanerStats) -> Self {
        CleanerFigures {
            segments_cleaned: cleaner.segments_cleaned,
            segments_freed: cleaner.segments_freed,
            bytes_moved: cleaner.bytes_moved,
            checkpoints: cleaner.checkpoints,
        }
    }
}

/// The store of a running node.
#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Debug)]
pub(crate) struct StoreStatus {
    #[serde(flatten)]
    pub(crate) figures: StoreFigures,
    pub(crate) reserved: u64,
    /// Limit of the live bytes.
    pub(crate) live_max: u64,
    pub(crate) syncs: u64,
    /// Batches whose write was durable without a sync.
    pub(crate) durable_writes: u64,
    pub(crate) segments_discarded: u64,
    /// Reads of the medium, through the page cache and past it.
    #[serde(default)]
    pub(crate) reads: ReadCounts,
    /// By state.
    pub(crate) segments: SegmentsStatus,
    /// Whether a full store deletes its oldest objects.
    pub(crate) ring: bool,
    pub(crate) full: bool,
    pub(crate) poisoned: bool,
    /// The write that failed: operation, place and error.
    #[serde(default)]
    pub(crate) failed_write: Option<String>,
    /// The reason if the store is read-only.
    #[serde(default)]
    pub(crate) read_only: Option<String>,
}

#[derive(Serialize, Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct SegmentsStatus {
    pub(crate) blank: u64,
    pub(crate) open: u64,
    pub(crate) closed: u64,
    pub(crate) condemned: u64,
    pub(crate) damaged: u64,
}

#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct BucketStatus {
    pub(crate) bucket: String,
    pub(crate) objects: u64,
    /// Noncurrent versions, and delete markers.
    #[serde(default)]
    pub(crate) noncurrent: u64,
    #[serde(default)]
    pub(crate) markers: u64,
    pub(crate) uploads: u64,
    /// Plaintext bytes of the versions of its objects and of its uploads' parts.
    pub(crate) bytes: u64,
    /// Bytes that count towards the quota: `bytes` and records.
    #[serde(default)]
    pub(crate) charged: u64,
    pub(crate) quota: Option<u64>,
}

impl From<BucketUsage> for BucketStatus {
    fn from(usage: BucketUsage) -> Self {
        let BucketUsage { name, objects, noncurrent, markers, uploads, bytes, charged, quota, .. } = usage;
        BucketStatus { bucket: name, objects, noncurrent, markers, uploads, bytes, charged, quota }
    }
}

impl From<&Stats> for StoreStatus {
    fn from(stats: &Stats) -> Self {
        let counts = stats.segment_counts;
        StoreStatus {
            figures: StoreFigures::from(stats),
            reserved: stats.usage.reserved,
            live_max: stats.usage.live_max,
            syncs: stats.syncs.syncs,
            durable_writes: stats.syncs.durable_writes,
            segments_discarded: stats.cleaner.segments_discarded,
            reads: ReadCounts::default(),
            segments: SegmentsStatus {
                blank: counts.blank,
                open: counts.open,
                closed: counts.closed,
                condemned: counts.condemned,
                damaged: counts.damaged,
            },
            ring: stats.ring,
            full: stats.full,
            poisoned: stats.poisoned,
            failed_write: stats.failed_write.as_ref().map(ToString::to_string),
            read_only: stats.read_only.as_deref().map(str::to_owned),
        }
    }
}
