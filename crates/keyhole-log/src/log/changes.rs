//! Derivation of changes from the index.

use super::Log;
use crate::changes::Changes;
use crate::disk::Disk;
use crate::state::{ChangeCollector, ChangeCursor};
use crate::store::Durability;
use crate::yielding::yield_once;

impl<D: Disk> Log<D> {
    /// Returns the changes with a number above `after` and up to [`Store::settled`](crate::Store::settled):
    /// the `limit` with the lowest numbers, and the totals of all. They are derived from the index in one
    /// pass over it, so versions and buckets that are gone are not among them.
    ///
    /// Includes the versions for whose bucket and key `concerns` holds, and the buckets for whose name
    /// `concerns_bucket` holds. Both run under the lock, for at most
    /// [`CHANGES_BATCH`](crate::limits::CHANGES_BATCH) versions per lock acquisition. Requests may change
    /// the index during the pass: a change in the range is found unless it is removed, or superseded by
    /// one with a number above the range; a found one may be gone when the pass ends.
    pub async fn changes(
        &self,
        after: u64,
        limit: usize,
        concerns: impl Fn(&str, &str) -> bool,
        concerns_bucket: impl Fn(&str) -> bool,
    ) -> Changes {
        let store = self.store();
        let ids = self.version_ids();
        // Before the pass: records up to this number are in the index already, so none can appear behind
        // the cursor.
        let settled = store.settled();
        let mut found = ChangeCollector::new(after, settled, limit);
        let mut next = (after < settled).then(ChangeCursor::default);
        while let Some(cursor) = next {
            next = store.lock().changes(cursor, ids, &mut found, &concerns, &concerns_bucket);
            if next.is_some() {
                yield_once().await;
            }
        }
        let stable_at = match store.durability {
            Durability::Always => settled,
            Durability::Deferred => store.stable_at(),
        };
        Changes { stable_at, ..found.finish() }
    }
}
