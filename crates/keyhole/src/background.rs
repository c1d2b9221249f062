//! Background tasks of the first worker: cleaning and checkpoints, expiry, and the operator's
//! requests.

use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use keyhole_log::{Disk, Error, Expired, Log, Store};
use keyhole_node::{Host, Pass, Services, clock_behind, expire};
use keyhole_s3::time::iso8601;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking, spawn_local};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::audit::{Audit, AuditEvent};
use crate::control::{self, Running};
use crate::env::System;
use crate::remote::StoreRequest;
use crate::status::Monitor;

/// Interval of expiry passes.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);

/// Interval at which a full file system may be asked for space again.
const EXPECT_SPACE_EVERY: Duration = Duration::from_secs(1);
/// Interval at which the lock clock is advanced.
const LOCK_CLOCK_EVERY: Duration = Duration::from_secs(10);
/// Interval of checks that the object file is in place and that no write has failed.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Interval at which damage found by the cleaner is logged.
const FINDINGS_EVERY: Duration = Duration::from_secs(5);

/// Timeout of the last checkpoint and of the other workers' remaining work before it. Without the
/// checkpoint nothing is lost: the next start reads more.
const LAST_CHECKPOINT: Duration = Duration::from_secs(20);

/// The additional duties of the first worker.
pub(crate) struct Duties {
    /// The control socket, if there is one.
    pub(crate) control: Option<UnixListener>,
    /// The node's state that control commands query and change.
    pub(crate) running: Arc<Running>,
    /// Requests of the remotes.
    pub(crate) requests: mpsc::Receiver<StoreRequest>,
}

/// The background tasks.
pub(crate) struct Background {
    /// Tasks that use the log, which is closed only after they have ended.
    users: Vec<JoinHandle<()>>,
    /// Tasks that end once the log is no longer in use.
    keepers: Vec<JoinHandle<()>>,
}

impl Background {
    /// Starts cleaning and checkpoints.
    pub(crate) fn start<D: Disk>(store: Arc<Store>, disk: Rc<D>) -> Self {
        let (maintenance, writer) = keyhole_log::maintenance(store, disk);
        Background { users: Vec::new(), keepers: vec![spawn_local(maintenance.run()), spawn_local(writer.run())] }
    }

    /// Starts the tasks that use the log: expiry, and the control socket if there is one.
    pub(crate) fn with_log<D: Disk>(&mut self, log: &Log<D>, duties: Duties) {
        let Duties { control, running, requests } = duties;
        self.users.push(spawn_local(log_findings(log.store().clone())));
        if log.store().read_only().is_none() {
            self.users.push(spawn_local(expire_regularly(log.clone(), running.monitor.clone(), running.audit.clone())));
            self.users.push(spawn_local(expect_space(log.store().clone())));
            self.users.push(spawn_local(advance_lock_clock(log.clone(), running.clone())));
        }
        self.users.push(spawn_local(serve_remotes(log.clone(), requests)));
        self.users.push(spawn_local(look_regularly(log.store().clone(), running.monitor.clone())));
        self.users.extend(control.map(|listener| spawn_local(control::serve(listener, log.clone(), running))));
    }

    /// Ends the tasks that use the log.
    pub(crate) async fn release(&mut self) {
        for task in self.users.drain(..) {
            task.abort();
            let _ = task.await;
        }
    }

    /// Waits for the remaining tasks, which end when every worker has dropped its log. Returns
    /// whether they ended in time.
    pub(crate) async fn end(mut self) -> bool {
        self.release().await;
        let all = async {
            for task in self.keepers.drain(..) {
                let _ = task.await;
            }
        };
        timeout(LAST_CHECKPOINT, all).await.is_ok()
    }
}

/// The result of [`with_log`].
pub(crate) struct Finished<T> {
    pub(crate) result: T,
    /// Whether the last checkpoint was written.
    pub(crate) is_checkpointed: bool,
}

/// Runs `work` on an open store without a node: with one worker, cleaning and checkpoints.
pub(crate) async fn with_log<D: Disk, T>(
    store: Arc<Store>,
    disk: D,
    work: impl AsyncFnOnce(&Log<D>) -> T,
) -> Finished<T> {
    let disk = Rc::new(disk);
    let (log, writer) = keyhole_log::worker(store.clone(), disk.clone());
    let writer = spawn_local(writer.run());
    let background = Background::start(store, disk);
    let result = work(&log).await;
    drop(log);
    let _ = writer.await;
    Finished { result, is_checkpointed: background.end().await }
}

/// Writes for the remotes, whose thread can only read.
async fn serve_remotes<D: Disk>(log: Log<D>, mut requests: mpsc::Receiver<StoreRequest>) {
    while let Some(request) = requests.recv().await {
        // The remote may have been stopped meanwhile.
        match request {
            StoreRequest::Flush(done) => drop(done.send(log.flush().await.map_err(|error| error.to_string()))),
            StoreRequest::Evict { bucket, key, number, done } => {
                let evicted = match log.evict(&bucket, &key, number, System.now_ms()).await {
                    // It is being read or written: later.
                    Err(Error::Conflict | Error::NoSuchBucket) => Ok(false),
                    evicted => evicted.map_err(|error| error.to_string()),
                };
                let _ = done.send(evicted);
            }
        }
    }
}

/// Tells the log, which has no clock, when to expect free space again.
async fn expect_space(store: Arc<Store>) {
    let mut ticks = interval(EXPECT_SPACE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        store.expect_space();
    }
}

/// Advances the lock clock, and logs once each leap of the wall clock that it does not follow.
async fn advance_lock_clock<D: Disk>(log: Log<D>, running: Arc<Running>) {
    let mut ticks = interval(LOCK_CLOCK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_refused = false;
    loop {
        ticks.tick().await;
        let figures = match running.lock_clock.advance(&log).await {
            Ok(figures) => figures,
            Err(error) => {
                tracing::debug!(%error, "cannot make the lock clock durable");
                continue;
            }
        };
        if let Some(refused_ms) = figures.refused_ms
            && !was_refused
        {
            tracing::warn!(
                ahead_s = refused_ms / 1000,
                "the wall clock leapt ahead: retention of object lock does not follow it. Set the clock; if it is \
                 right, run `keyhole clock accept`"
            );
        }
        was_refused = figures.refused_ms.is_some();
        running.monitor.set_lock_clock(figures);
    }
}

/// Logs and reports once each an object file that is gone from its path, and a failed write.
async fn look_regularly(store: Arc<Store>, monitor: Arc<Monitor>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_absent = false;
    let mut has_failed = false;
    loop {
        ticks.tick().await;
        if let Some(failed) = store.failed_write()
            && !std::mem::replace(&mut has_failed, true)
        {
            tracing::error!("{failed}: the store refuses writes until the node is restarted; reads continue");
        }
        let Some(presence) = monitor.presence() else { continue };
        // The path may be on a disk that does not respond.
        let Ok(absence) = spawn_blocking(move || presence.absence()).await else { continue };
        match (&absence, was_absent) {
            (Some(why), false) => tracing::error!(
                "{why}: writes are lost when the node ends. Export the store, or mount its disk or restore the file, \
                 and restart"
            ),
            (None, true) => tracing::info!("the object file is back at its path"),
            _ => {}
        }
        was_absent = absence.is_some();
        monitor.set_absence(absence);
    }
}

/// Logs each object that the cleaner could not move, once.
async fn log_findings(store: Arc<Store>) {
    let mut ticks = interval(FINDINGS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for damage in store.take_findings() {
            tracing::error!("damaged: {damage}; its segment is excluded from cleaning");
        }
    }
}

async fn expire_regularly<D: Disk>(log: Log<D>, monitor: Arc<Monitor>, audit: Option<Arc<Audit>>) {
    let gone = |operation, expired: &Expired<'_>| {
        let Expired { bucket, key, sealed } = *expired;
        if let Some(audit) = audit.as_ref().filter(|_| sealed) {
            audit.note_event(&AuditEvent { operation, bucket: Some(bucket), key: Some(key), is_ok: true });
        }
    };
    let mut ticks = interval(EXPIRE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_behind = false;
    let mut was_behind = false;
    loop {
        ticks.tick().await;
        let behind = clock_behind(&log, &Host::new(System)).await;
        if let Some((stored_ms, bucket)) = &behind
            && !std::mem::replace(&mut was_behind, true)
        {
            tracing::warn!(stored = iso8601(*stored_ms), bucket, "the clock is behind a stored timestamp");
        }
        was_behind = behind.is_some();
        monitor.set_clock_behind(behind);
        match expire(&log, &Host::new(System), gone).await {
            Ok(Pass::Behind { stored_ms, bucket }) => {
                // Once only, because the state may last.
                if !std::mem::replace(&mut is_behind, true) {
                    let stored = iso8601(stored_ms);
                    tracing::warn!(
                        stored,
                        bucket,
                        "the clock is behind a stored timestamp: expiry is suspended. Set the clock; if it is right, \
                         delete the objects stored while it was ahead"
                    );
                }
            }
            Ok(Pass::Done { objects, noncurrent, markers, uploads }) => {
                is_behind = false;
                if objects + noncurrent + markers + uploads > 0 {
                    tracing::info!(objects, uploads, noncurrent, markers, "deleted expired objects and uploads");
                }
            }
            Err(error) => tracing::warn!(%error, "cannot delete expired objects and uploads"),
        }
    }
}
