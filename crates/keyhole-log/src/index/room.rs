//! Limits of the index and its measured size.

use super::location::Location;
use crate::limits::QUOTA_SHARE;

/// Limits of the index. `None`: unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IndexLimits {
    /// Bytes of memory.
    pub bytes: Option<u64>,
    /// Number of objects and uploads.
    pub objects: Option<u64>,
}

/// The size of the index when it was last measured, and its growth since.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) bytes: u64,
    pub(super) grown: u64,
    /// Number of names.
    pub(super) names: u64,
}

/// Returns the bytes that an object or a part of this size counts towards a quota.
pub(crate) fn quota_charge(size: u64, record: Location) -> u64 {
    size.saturating_add(QUOTA_SHARE.max(u64::from(record.len())))
}
