//! Limits of the index: new names are refused beyond them; everything else goes on.

use super::Index;
use super::location::Location;
use crate::error::Error;
use crate::limits::{INDEX_PER_NAME, INDEX_REMEASURE, QUOTA_SHARE};

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
    bytes: u64,
    grown: u64,
    /// Number of names.
    names: u64,
}

/// Returns the bytes that an object or a part of this size counts towards a quota.
pub(crate) fn quota_charge(size: u64, record: Location) -> u64 {
    size.saturating_add(QUOTA_SHARE.max(u64::from(record.len())))
}

impl Index {
    /// Sets the limits.
    pub(crate) fn limit(&mut self, limits: IndexLimits) {
        self.limits = limits;
    }

    /// Admits a new name with a key of this length.
    ///
    /// # Errors
    /// `IndexFull`.
    pub(crate) fn admit_name(&mut self, key_len: usize) -> Result<(), Error> {
        let names = self.totals.objects + self.totals.uploads;
        if self.limits.objects.is_some_and(|max| names >= max) {
            return Err(Error::IndexFull);
        }
        let Some(max) = self.limits.bytes else { return Ok(()) };
        let growth = key_len as u64 + INDEX_PER_NAME;
        let measured = &self.measured;
        if measured.bytes + measured.grown + growth > max {
            let bodies = self.body_count();
            let has_shrunk = names + bodies + (names + bodies) / INDEX_REMEASURE < self.measured.names;
            if self.measured.grown > 0 || has_shrunk {
                self.measured = Measured { bytes: self.allocated(), grown: 0, names: names + bodies };
            }
            if self.measured.bytes + growth > max {
                return Err(Error::IndexFull);
            }
        }
        self.measured.grown += growth;
        Ok(())
    }
}
