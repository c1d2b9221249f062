//! Eviction: the store gives up bytes that the remote has.

use std::collections::HashSet;

use keyhole_log::{Change, Changed, Disk, EvictionCandidate, VersionInfo};

use crate::env::Env;
use crate::failure::{Failure, ItemFailure};
use crate::fields::ObjectFields;
use crate::limits::EVICT_BATCH;
use crate::sabotage::{self, Sabotage};
use crate::service::Service;
use crate::shipper::{Eviction, Shipper};

impl<D: Disk, S: Service, E: Env> Shipper<D, S, E> {
    /// Evicts the oldest versions that the remote has confirmed, if the store is full enough.
    pub(crate) async fn evict(&self) -> Result<(), Failure> {
        let Some(Eviction { above_percent, down_to_percent }) = self.options.evicts else { return Ok(()) };
        let usage = self.log.store().usage();
        let percent = usage.capacity / 100;
        if usage.live <= percent * above_percent {
            return Ok(());
        }
        let mut excess = usage.live - percent * down_to_percent;
        let exceptions: HashSet<(String, String)> = self.exception_names();
        let through = if sabotage::is(Sabotage::EvictUnconfirmed) { u64::MAX } else { self.confirmed() };
        let is_wanted = |bucket: &str, key: &str, _: u64| {
            let is_exception = !exceptions.is_empty() && exceptions.contains(&(bucket.to_owned(), key.to_owned()));
            self.env.has_key(bucket, key) && !is_exception
        };
        for candidate in self.log.eviction_candidates(EVICT_BATCH, through, is_wanted).await {
            if excess == 0 || self.env.closed_for_ms() > 0 {
                break;
            }
            if self.evict_one(&candidate).await? {
                excess = excess.saturating_sub(candidate.size);
                self.report.borrow_mut().evicted += 1;
            }
        }
        Ok(())
    }

    /// Evicts a version, after a last look at the remote. Returns whether it is evicted.
    async fn evict_one(&self, candidate: &EvictionCandidate) -> Result<bool, Failure> {
        let EvictionCandidate { number, bucket, key, size } = candidate;
        let found = self.log.version_numbered(bucket, key, *number).unwrap_or_default();
        let Some(info) = found else { return Ok(false) };
        if !sabotage::is(Sabotage::EvictUnconfirmed) && !self.is_in_remote(bucket, &info, *size).await? {
            // It was deleted there: ship it again.
            let change = Change { number: *number, bucket: bucket.clone(), what: Changed::Version(info) };
            return match self.ship(&change, self.probe_through).await {
                Err(ItemFailure::Whole(failure)) => Err(failure),
                Ok(_) | Err(ItemFailure::Exception(_)) => Ok(false),
            };
        }
        self.env.evict(bucket, key, *number).await.map_err(Failure::Store)
    }

    async fn is_in_remote(&self, bucket: &str, info: &VersionInfo, size: u64) -> Result<bool, Failure> {
        let name = self.names.stored_version(bucket, &info.key, info.version);
        let Some(head) = self.service.head(&name).await? else { return Ok(false) };
        let fields = ObjectFields::decode(&head.fields);
        let is_it = fields.is_some_and(|fields| fields.is_object(self.store(), info.seq));
        Ok(head.len > size && is_it)
    }
}
