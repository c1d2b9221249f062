//! The state of one segment, and the purposes that segments are allocated for.

use crate::wire::segment::Kind;

/// The state of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Free to be begun.
    Blank,
    /// Being appended to.
    Open(Kind),
    /// Full or ended.
    Closed(Kind),
    /// Without live data. Holds the number of checkpoints begun when this was found.
    Condemned(u64),
    /// Partly unreadable during recovery, and left alone.
    Damaged,
}

/// An entry of the segment table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) used: Use,
    /// Generation of the current or last use.
    pub(crate) generation: u64,
    /// Generation of the previous use, while the segment is being begun; 0 for a segment that is
    /// new at the end of the file.
    pub(crate) before: u64,
    /// Bytes written, including the header; 0 if unknown.
    pub(crate) written: u32,
    /// META only: bytes whose records are applied to the index, and the checksum of the last such
    /// record, or of the header.
    pub(crate) settled: u32,
    pub(crate) prev: u32,
    /// In-flight reads and writes, and blocks that no record names yet. A
    /// pinned segment is not freed.
    pub(crate) pins: u32,
    /// Whether the file system has allocated its space and not discarded it. Persists across uses
    /// of the segment.
    pub(crate) allocated: bool,
    /// Bytes from its start that have been written since it was allocated, by any use.
    pub(crate) filled: u32,
    /// Whether the maintenance began it.
    pub(crate) cleaner: bool,
}

impl Segment {
    pub(crate) const BLANK: Segment = Segment {
        used: Use::Blank,
        generation: 0,
        before: 0,
        written: 0,
        settled: 0,
        prev: 0,
        pins: 0,
        allocated: false,
        filled: 0,
        cleaner: false,
    };

    /// Returns whether its bytes belong to its generation.
    pub(crate) fn in_use(&self) -> bool {
        self.used != Use::Blank && self.used != Use::Damaged
    }
}

/// The purpose that a segment is allocated for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Blocks of bodies.
    Body,
    /// Records of any kind. `first`: the worker has no META segment yet.
    Meta { first: bool },
    /// Records that delete, which may use the reserve for deletions.
    Deletions,
    /// Data moved by the cleaner, and checkpoints, which may use the cleaner's reserve.
    Clean(Kind),
}

impl Purpose {
    /// Returns whether the purpose adds live bytes. A worker's first META segment
    /// serves any kind of record.
    pub(crate) fn grows(self) -> bool {
        matches!(self, Purpose::Body | Purpose::Meta { first: false })
    }
}

/// Whether segments without allocated space may be begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Growth {
    /// The file system has granted every request.
    Open,
    /// The last request failed for lack of space. `refused` counts requests refused since; `due`: a
    /// probe is allowed regardless of that count.
    Blocked { refused: u32, due: bool },
    /// A probe is in flight.
    Asking,
}
