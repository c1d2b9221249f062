//! Eviction: the bytes of versions that another store has are removed from this one.

use super::versions::check_unclaimed;
use super::{CommitRequest, Log, draft};
use crate::disk::Disk;
use crate::error::Error;
use crate::state::{EvictionCandidate, EvictionSearch, Evictions};
use crate::store::Durability;
use crate::wire::payload::{NamedVersion, RecordPayload};
use crate::yielding::yield_once;

impl<D: Disk> Log<D> {
    /// Evicts the version with this sequence number: removes its bodies and keeps everything else. The
    /// caller makes sure that another store has the bytes. Works in a full store. Under
    /// [`Durability::Deferred`], makes everything durable first that was acknowledged before.
    ///
    /// Returns `false` if the version does not exist, is a delete marker, is not sealed, is evicted
    /// already, or if none of its bodies has blocks, or one is damaged or shared with another object or
    /// an upload.
    ///
    /// # Errors
    /// `NoSuchBucket`; `Conflict` while a deletion or another change of the version is in flight, while
    /// an [`Object`](crate::Object) holds its bodies, or while a copy of it is in flight; those of every
    /// write.
    pub async fn evict(&self, bucket: &str, key: &str, number: u64, time_ms: u64) -> Result<bool, Error> {
        let store = self.store();
        let (of, seq) = {
            let mut state = store.lock();
            store.check_poison()?;
            let (bucket, home) = state.index.writable(bucket)?;
            let Some(entry) = home.version(key, number) else { return Ok(false) };
            if !state.index.is_evictable(home, entry) {
                return Ok(false);
            }
            check_unclaimed(home, key, entry)?;
            let bodies = entry.bodies.as_slice();
            // A reader that pins them later, before this takes effect, finds them evicted.
            if state.index.is_pinned(bodies) {
                return Err(Error::Conflict);
            }
            let Some(&first) = bodies.first() else { return Ok(false) };
            let seq = state.numbers.record();
            state.index.reserve_eviction(bucket, number, first, seq);
            (NamedVersion { bucket, version: number, key }, seq)
        };
        let record = draft(seq, &RecordPayload::VersionEvicted { of, time_ms });
        // Another object that shared the bodies may be gone by a record that is not durable yet. If power
        // failure undid that record alone, the object would return without its bytes.
        let syncs_before = store.durability == Durability::Deferred;
        self.write(CommitRequest { syncs_before, ..CommitRequest::deletion(record) }).await?;
        Ok(true)
    }

    /// Returns the versions that [`evict`](Self::evict) would accept, with sequence numbers up to
    /// `through`, lowest number first, at most `limit`. Versions that are locked now, and those for which
    /// `is_wanted` (bucket, key, sequence number) returns `false`, are left out.
    ///
    /// Examines all versions, [`EXPIRE_BATCH`](crate::limits::EXPIRE_BATCH) per lock acquisition, and
    /// keeps at most `limit` of them in memory. `is_wanted` runs under the lock.
    pub async fn eviction_candidates(
        &self,
        limit: usize,
        through: u64,
        is_wanted: impl Fn(&str, &str, u64) -> bool,
    ) -> Vec<EvictionCandidate> {
        let mut found = Evictions::new(limit);
        let mut from = Some(EvictionSearch::default());
        while let Some(position) = from {
            from = self.store().lock().evictable(position, through, &is_wanted, &mut found);
            yield_once().await;
        }
        found.into_sorted()
    }
}
