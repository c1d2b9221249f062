//! The surroundings of a shipper: time, randomness, its saved progress, and the format of descriptions.

use keyhole_log::{BucketInfo, BucketSettings, Removals, VersionInfo};
use keyhole_node::transfer::Description;

use crate::progress::{Progress, Report};

/// The surroundings of a [`Shipper`](crate::Shipper).
#[allow(async_fn_in_trait)]
pub trait Env {
    /// Returns the time in ms since 1970.
    fn now_ms(&self) -> u64;

    /// Waits.
    async fn sleep(&self, ms: u64);

    /// Returns a random number, for jitter.
    fn random(&self) -> u64;

    /// Returns how long shipping must wait for its window of time; 0 in it.
    fn closed_for_ms(&self) -> u64;

    /// Returns whether a bucket belongs to the remote, at least partly.
    fn has_bucket(&self, bucket: &str) -> bool;

    /// Returns whether a key belongs to the remote.
    fn has_key(&self, bucket: &str, key: &str) -> bool;

    /// Returns the versions that were removed from the store since the last call.
    fn take_removals(&self) -> Removals;

    /// Makes all acknowledged writes durable, where they are not.
    ///
    /// # Errors
    /// The reason.
    async fn flush(&self) -> Result<(), String>;

    /// Evicts the version with this sequence number from the store. Returns `false` if it cannot be
    /// evicted now.
    ///
    /// # Errors
    /// The reason.
    async fn evict(&self, bucket: &str, key: &str, number: u64) -> Result<bool, String>;

    /// Makes the progress durable.
    ///
    /// # Errors
    /// The reason. Shipping goes on; after a restart, more is compared again.
    async fn save(&self, progress: &Progress) -> Result<(), String>;

    /// Shows a snapshot to the operator.
    fn report(&self, report: &Report);

    /// Encodes the description of an object with this object head and a file of `file_len` bytes.
    ///
    /// # Errors
    /// The object is damaged.
    fn describe(&self, description: &Description, head: &[u8], file_len: u64) -> Result<Vec<u8>, String>;

    /// Encodes the description of a delete marker.
    fn describe_marker(&self, bucket: &str, marker: &VersionInfo) -> Vec<u8>;

    /// Encodes the description of a bucket.
    fn describe_bucket(&self, bucket: &BucketInfo, settings: &BucketSettings) -> Vec<u8>;
}
