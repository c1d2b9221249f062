//! The surroundings of a shipper in the node.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use keyhole_log::{BucketInfo, BucketSettings, Removals, VersionInfo};
use keyhole_node::Services;
use keyhole_node::transfer::Description;
use keyhole_remote::{Env, Phase, Progress, Report};
use tokio::sync::{mpsc, oneshot};

use super::config::RemoteConfig;
use super::feed::Feed;
use super::progress_file::ProgressFile;
use super::reports::Reports;
use crate::env::System;
use crate::transfer::entry::{BucketEntry, ObjectEntry};
use crate::transfer::manifest::Line;
use crate::transfer::versions::{MarkerEntry, Version};

/// A request to a worker, which can write to the store, and where the result goes.
pub(crate) enum StoreRequest {
    /// Make all acknowledged writes durable.
    Flush(oneshot::Sender<Result<(), String>>),
    /// Evict a version; the result tells whether it could be.
    Evict { bucket: String, key: String, number: u64, done: oneshot::Sender<Result<bool, String>> },
}

/// The surroundings of the shipper of one remote.
pub(super) struct Surroundings {
    pub(super) config: RemoteConfig,
    pub(super) feed: Rc<Feed>,
    pub(super) progress: ProgressFile,
    pub(super) reports: Arc<Reports>,
    /// The failure that was logged last, until the remote accepts objects again.
    pub(super) failure: RefCell<Option<String>>,
    /// The worker that writes to the store.
    pub(super) worker: mpsc::Sender<StoreRequest>,
    /// Whether writes are durable when they are acknowledged.
    pub(super) is_durable: bool,
}

impl Surroundings {
    /// Sends a request to the worker, and waits for its result.
    async fn ask<T>(&self, request: StoreRequest, result: oneshot::Receiver<Result<T, String>>) -> Result<T, String> {
        let ended = || "the node is shutting down".to_owned();
        self.worker.send(request).await.map_err(|_| ended())?;
        result.await.map_err(|_| ended())?
    }
}

impl Env for Surroundings {
    fn now_ms(&self) -> u64 {
        System.now_ms()
    }

    async fn sleep(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    fn random(&self) -> u64 {
        u64::from_le_bytes(System.random_array())
    }

    fn closed_for_ms(&self) -> u64 {
        self.config.window.map_or(0, |window| window.closed_ms(System.now_ms()))
    }

    fn has_bucket(&self, bucket: &str) -> bool {
        self.config.has_bucket(bucket)
    }

    fn has_key(&self, bucket: &str, key: &str) -> bool {
        self.config.has_key(bucket, key)
    }

    fn take_removals(&self) -> Removals {
        self.feed.take(&self.config.name)
    }

    async fn flush(&self) -> Result<(), String> {
        if self.is_durable {
            return Ok(());
        }
        let (done, result) = oneshot::channel();
        self.ask(StoreRequest::Flush(done), result).await
    }

    async fn evict(&self, bucket: &str, key: &str, number: u64) -> Result<bool, String> {
        let (done, result) = oneshot::channel();
        let request = StoreRequest::Evict { bucket: bucket.to_owned(), key: key.to_owned(), number, done };
        self.ask(request, result).await
    }

    async fn save(&self, progress: &Progress) -> Result<(), String> {
        let file = self.progress.clone();
        let progress = progress.clone();
        let written = tokio::task::spawn_blocking(move || file.write(&progress)).await;
        let written = written.map_err(|error| error.to_string())?;
        written.map_err(|error| {
            tracing::warn!(remote = self.config.name, %error, "cannot save the progress of a remote");
            error.to_string()
        })
    }

    fn report(&self, report: &Report) {
        self.reports.set(&self.config.name, report);
        let remote = &self.config.name;
        let mut failure = self.failure.borrow_mut();
        match &report.phase {
            Phase::Failing { why, .. } if failure.as_ref() != Some(why) => {
                tracing::warn!(remote, error = why, "a remote does not accept objects");
                *failure = Some(why.clone());
            }
            Phase::Shipping | Phase::Idle if failure.take().is_some() => {
                tracing::info!(remote, "a remote accepts objects again");
            }
            _ => {}
        }
    }

    fn describe(&self, description: &Description, head: &[u8], file_len: u64) -> Result<Vec<u8>, String> {
        let entry = ObjectEntry::new(description, head, file_len).map_err(|error| error.to_string())?;
        Ok(Line::Object(Box::new(entry)).encode())
    }

    fn describe_marker(&self, bucket: &str, marker: &VersionInfo) -> Vec<u8> {
        let VersionInfo { key, version, time_ms, .. } = marker;
        let entry = MarkerEntry {
            bucket: bucket.to_owned(),
            key: key.clone(),
            version: Version(*version),
            modified_ms: *time_ms,
        };
        Line::Marker(entry).encode()
    }

    fn describe_bucket(&self, bucket: &BucketInfo, settings: &BucketSettings) -> Vec<u8> {
        Line::Bucket(BucketEntry::new(bucket.name.clone(), bucket.time_ms, settings)).encode()
    }
}
