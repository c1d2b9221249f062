//! Stubs: what the engine of another branch offers. They are replaced at the merge.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use futures_channel::mpsc;

use crate::disk::Disk;
use crate::error::{Damage, Error};
use crate::limits::CHUNKS_MAX;
use crate::log::Log;
use crate::shared::{Shared, Slot, Usage};
use crate::types::{ListObjects, Listed};
use crate::writer::{Job, Writer};

/// Cleaner and checkpoints.
pub struct Maintenance<D: Disk> {
    queue: mpsc::UnboundedSender<Job<D>>,
}

/// The extra writer.
pub fn maintenance<D: Disk>(shared: Arc<Shared>, disk: Rc<D>) -> (Maintenance<D>, Writer<D>) {
    let (queue, jobs) = mpsc::unbounded();
    (Maintenance { queue }, Writer::new(shared, disk, Slot::default(), jobs))
}

impl<D: Disk> Maintenance<D> {
    /// Ends when every log has been dropped.
    pub async fn run(self) {
        drop(self.queue);
    }
}

/// What the cleaner did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Segments that can be begun again.
    pub segments_freed: u64,
    /// Bytes that were live in them.
    pub bytes_moved: u64,
}

/// Where a scrub is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScrubCursor {
    bucket: String,
    key: Option<String>,
}

/// What one step of a scrub has verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScrubStep {
    /// Where to go on.
    pub next: Option<ScrubCursor>,
    /// Bytes that were read.
    pub bytes: u64,
    /// What does not verify.
    pub findings: Vec<Damage>,
}

/// What a bucket may hold, and how long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BucketSettings {
    /// Bytes that its objects may have.
    pub quota: Option<u64>,
    /// Milliseconds after which they are deleted.
    pub expire_ms: Option<u64>,
}

/// Figures of the store.
#[derive(Debug, Clone)]
pub struct Stats {
    /// What is used.
    pub usage: Usage,
    /// Bytes of memory of the index.
    pub index_bytes: u64,
    /// What was written since the start.
    pub written: Written,
    /// Batches by size.
    pub batches: BatchHistogram,
    /// What the cleaner did.
    pub cleaner: CleanerStats,
    /// Every segment.
    pub segments: Vec<SegmentStat>,
}

/// Bytes written since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes first appended.
    pub appended: u64,
    /// In records.
    pub records: u64,
    /// In blocks.
    pub blocks: u64,
    /// By the cleaner.
    pub moved: u64,
    /// In checkpoints.
    pub checkpoints: u64,
    /// In headers and the like.
    pub other: u64,
}

impl Written {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.records + self.blocks + self.moved + self.checkpoints + self.other
    }

    /// Bytes written for each byte appended.
    pub fn amplification(&self) -> Option<f64> {
        (self.appended > 0).then(|| self.total() as f64 / self.appended as f64)
    }
}

/// Batches with up to 1, 2, 4, ..., 512 commits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchHistogram(pub [u64; 10]);

/// What the cleaner did since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CleanerStats {
    /// Segments that were read.
    pub segments_cleaned: u64,
    /// Segments that can be begun again.
    pub segments_freed: u64,
    /// Bytes that were live in them.
    pub bytes_moved: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
}

/// What a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentKind {
    /// Records.
    Meta,
    /// Blocks.
    Body,
    /// Nothing.
    Blank,
}

/// What is done with a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentState {
    /// It can be begun.
    Blank,
    /// It is appended to.
    Open,
    /// It is full.
    Closed,
    /// It is given back with the next checkpoint.
    Condemned,
    /// It cannot be read.
    Damaged,
}

/// One segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentStat {
    /// Its number.
    pub number: u32,
    /// What it holds.
    pub kind: SegmentKind,
    /// What is done with it.
    pub state: SegmentState,
    /// Its generation.
    pub generation: u64,
    /// Bytes written.
    pub written: u64,
    /// Bytes of them that are live.
    pub live: u64,
}

/// How to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckOptions {
    /// Mend what can be mended.
    pub repair: bool,
    /// Workers that will open it.
    pub workers: usize,
}

/// What a check has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What does not verify.
    pub findings: Vec<Finding>,
    /// Space that can be written.
    pub free: Vec<Range<u64>>,
    /// Unacknowledged tails.
    pub tails: Vec<Range<u64>>,
    /// Buckets.
    pub buckets: u64,
    /// Objects.
    pub objects: u64,
    /// Uploads.
    pub uploads: u64,
    /// Bodies.
    pub bodies: u64,
    /// Records.
    pub records: u64,
    /// Blocks.
    pub blocks: u64,
    /// Bytes verified.
    pub verified: u64,
    /// Findings that were mended.
    pub repaired: u64,
}

/// One damage, and what can be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub damage: Damage,
    /// What can be done.
    pub verdict: Verdict,
}

/// What can be done about damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It can be mended.
    Repairable,
    /// It cannot.
    Lost,
}

/// Reads everything.
pub async fn check<D: Disk>(disk: &D, options: CheckOptions) -> Result<Report, Error> {
    if options.repair {
        let open =
            crate::OpenOptions { sync: crate::Sync::Always, workers: options.workers, capacity: None, ring: false };
        crate::open(disk, open).await?;
    }
    crate::recover::survey(disk).await
}

static SETTINGS: Mutex<BTreeMap<([u8; 16], String), BucketSettings>> = Mutex::new(BTreeMap::new());

impl<D: Disk> Log<D> {
    /// Runs the cleaner to its end.
    pub async fn compact(&self) -> Result<Compacted, Error> {
        Ok(Compacted::default())
    }

    /// Writes a checkpoint.
    pub async fn checkpoint(&self) -> Result<(), Error> {
        self.flush().await
    }

    /// Verifies the next object.
    pub async fn scrub(&self, cursor: ScrubCursor) -> Result<ScrubStep, Error> {
        let Some((bucket, key, size)) = self.object_after(cursor) else { return Ok(ScrubStep::default()) };
        let mut step = ScrubStep { bytes: size, ..ScrubStep::default() };
        if let Err(error) = self.verify(&bucket, &key).await {
            match error {
                Error::Damaged(damage) => step.findings.push(damage.of(Some(&bucket), Some(&key))),
                other => return Err(other),
            }
        }
        step.next = Some(ScrubCursor { bucket, key: Some(key) });
        Ok(step)
    }

    fn object_after(&self, cursor: ScrubCursor) -> Option<(String, String, u64)> {
        let mut after = cursor.key;
        for bucket in self.buckets().into_iter().filter(|bucket| bucket.name >= cursor.bucket) {
            let after = after.take().filter(|_| bucket.name == cursor.bucket);
            let list = ListObjects { after, limit: 1, ..ListObjects::default() };
            let listing = self.list_objects(&bucket.name, &list).ok()?;
            if let Some(Listed::Object { key, size, .. }) = listing.entries.into_iter().next() {
                return Some((bucket.name, key, size));
            }
        }
        None
    }

    async fn verify(&self, bucket: &str, key: &str) -> Result<(), Error> {
        let Some(object) = self.object(bucket, key).await? else { return Ok(()) };
        for part in &object.parts {
            let body = self.body(part).await?;
            for index in 0..body.blocks() {
                self.read_block(&body, index, 0..CHUNKS_MAX, self.disk().buffer()).await.0?;
            }
        }
        Ok(())
    }

    /// Changes what a bucket may hold.
    pub async fn set_bucket(&self, bucket: &str, settings: BucketSettings, _time_ms: u64) -> Result<(), Error> {
        self.bucket(bucket).ok_or(Error::NoSuchBucket)?;
        let key = (self.shared().store, bucket.to_owned());
        SETTINGS.lock().unwrap_or_else(PoisonError::into_inner).insert(key, settings);
        Ok(())
    }

    /// What a bucket may hold.
    pub fn bucket_settings(&self, bucket: &str) -> Option<BucketSettings> {
        self.bucket(bucket)?;
        let settings = SETTINGS.lock().unwrap_or_else(PoisonError::into_inner);
        Some(settings.get(&(self.shared().store, bucket.to_owned())).cloned().unwrap_or_default())
    }

    /// Deletes what has expired.
    pub async fn expire(&self, _now_ms: u64) -> Result<u64, Error> {
        Ok(0)
    }
}

impl Shared {
    /// Figures of the store.
    pub fn stats(&self) -> Stats {
        let usage = self.usage();
        let segments = self.lock().segments.stats();
        let (written, batches, cleaner) = Default::default();
        Stats { usage, index_bytes: 0, written, batches, cleaner, segments }
    }
}
