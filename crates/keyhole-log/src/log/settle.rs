//! Waiting for changes of a `null` version that are in flight, before another version replaces it.

use super::Log;
use super::versions::NewVersion;
use crate::disk::Disk;
use crate::locks::MutexGuard;
use crate::state::State;
use crate::version::{VersionId, Versioning};

impl<D: Disk> Log<D> {
    /// Locks the state for a new version of a name, or for its delete marker. If the version would
    /// replace a `null` version whose deletion, or a change of whose lock or tags, is in flight, waits
    /// for the end of that change.
    ///
    /// Does not wait while the outcome of writes is in doubt, because that can last until disk space is
    /// freed. The request then gets a conflict.
    pub(super) async fn lock_settled(&self, bucket: &str, key: &str, new: &NewVersion) -> MutexGuard<'_, State> {
        loop {
            let settled = {
                let store = self.store();
                let mut state = store.lock();
                let is_busy = state.index.has_claims()
                    && state.index.bucket(bucket).is_some_and(|(_, home)| {
                        let is_null = match new.import {
                            Some(id) => id == VersionId::Null,
                            None => home.versioning().0 != Versioning::Enabled,
                        };
                        is_null && home.is_null_claimed(key)
                    });
                if !is_busy || store.has_writes_in_doubt() || store.check_poison().is_err() {
                    return state;
                }
                state.index.await_claim()
            };
            let _ = settled.await;
        }
    }
}
