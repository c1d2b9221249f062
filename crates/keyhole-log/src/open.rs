//! Open segments, and how far each writer's META segment is written and durable.

use crate::limits::PAGE;
use crate::wire::record::DurableHint;

/// Written and durable offsets within a writer's last META segment, which may have been ended since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WriterEnd {
    pub(crate) segment: u32,
    pub(crate) written: u32,
    pub(crate) durable: u32,
    /// Watermark of the batch that is not yet applied; `u64::MAX` if there is none.
    pub(crate) in_flight: u64,
    /// The segment that the writer ended last. The next batch has the durable hint for it.
    pub(crate) ended: Option<DurableHint>,
}

impl WriterEnd {
    /// The value for a writer without a META segment.
    pub(crate) const NONE: WriterEnd =
        WriterEnd { segment: u32::MAX, written: 0, durable: 0, in_flight: u64::MAX, ended: None };

    /// Forgets a segment that can be freed and used again: no durable hint may name it any more.
    pub(crate) fn forget(&mut self, segment: u32) {
        if self.segment == segment {
            *self = WriterEnd { in_flight: self.in_flight, ended: self.ended, ..WriterEnd::NONE };
        }
        self.ended.take_if(|ended| ended.segment == segment);
    }

    /// Returns the durable offset if this is `segment`, else 0.
    pub(crate) fn durable_in(&self, segment: u32) -> u32 {
        if self.segment == segment { self.durable } else { 0 }
    }
}

/// Open segments that recovery found for a worker.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) worker: usize,
    pub(crate) meta: Option<OpenMeta>,
    pub(crate) body: Option<OpenBody>,
}

impl Slot {
    pub(crate) fn end(&self) -> WriterEnd {
        match &self.meta {
            Some(meta) => {
                let durable = (meta.at - meta.start) as u32;
                WriterEnd { segment: meta.number, written: durable, durable, ..WriterEnd::NONE }
            }
            None => WriterEnd::NONE,
        }
    }
}

/// An open META segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenMeta {
    pub(crate) number: u32,
    pub(crate) generation: u64,
    /// Offsets in the file where the segment starts and ends.
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Offset of the next batch.
    pub(crate) at: u64,
    /// Checksum of the last record, or of the segment's header.
    pub(crate) prev: u32,
    /// Whether it was taken from the reserve for deletions.
    pub(crate) reserve: bool,
}

impl OpenMeta {
    /// Returns whether the segment was ended early because a batch could not be written whole.
    pub(crate) fn is_sealed(&self) -> bool {
        self.at == self.end
    }

    /// Returns the bytes left for batches. One page is kept for the record that ends the segment.
    pub(crate) fn room(&self) -> usize {
        usize::try_from(self.end - self.at).unwrap_or(usize::MAX).saturating_sub(PAGE)
    }
}

/// An open BODY segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenBody {
    pub(crate) number: u32,
    pub(crate) generation: u64,
    /// Offset of the next block.
    pub(crate) at: u64,
    /// Offset in the file where the segment ends.
    pub(crate) end: u64,
}
