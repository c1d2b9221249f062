//! Admission of new names: they are refused beyond the limits of the index; everything else goes on.

use super::Index;
use super::room::{IndexLimits, Measured};
use crate::error::Error;
use crate::limits::{INDEX_PER_NAME, INDEX_REMEASURE};

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
        let totals = &self.totals;
        let names = totals.objects + totals.noncurrent + totals.markers + totals.uploads;
        if self.limits.objects.is_some_and(|max| names >= max) {
            return Err(Error::IndexFull);
        }
        let Some(max) = self.limits.bytes else { return Ok(()) };
        let growth = key_len as u64 + INDEX_PER_NAME;
        let measured = &self.measured;
        // After recovery the index has never been measured.
        if measured.bytes == 0 || measured.bytes + measured.grown + growth > max {
            let bodies = self.body_count();
            let has_shrunk = names + bodies + (names + bodies) / INDEX_REMEASURE < self.measured.names;
            if self.measured.bytes == 0 || self.measured.grown > 0 || has_shrunk {
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
