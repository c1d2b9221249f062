//! Notifications to the service manager (`sd_notify(3)`). Without a service manager, nothing is
//! sent.
//!
//! - [`starting`] during recovery: extends the start timeout as long as there is progress;
//! - [`ready`] once every worker accepts connections;
//! - [`reloading`] around a reload on SIGHUP;
//! - [`stopping`] when no further requests are accepted;
//! - [`crate::watchdog`] sends the watchdog's notifications.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use bytesize::ByteSize;
use sd_notify::NotifyState;

/// Interval of notifications during a recovery.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Start timeout without progress of the recovery.
const QUIET_MAX: Duration = Duration::from_secs(60);

/// Upper bound of a shutdown after the grace period: the log's last writes and a checkpoint.
const END_MAX: Duration = Duration::from_secs(30);

/// Returns whether a service manager expects notifications or collects the output in its journal,
/// so that no user is at a terminal.
pub(crate) fn is_managed() -> bool {
    ["NOTIFY_SOCKET", "JOURNAL_STREAM"].iter().any(|name| std::env::var_os(name).is_some())
}

/// Sends notifications; logs failures and continues.
pub(crate) fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

/// Reports that the node serves.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Reports the shutdown; requests in flight have the grace period to complete.
pub(crate) fn stopping(grace: Duration) {
    let status = format!("shutting down: up to {} s for requests in flight", grace.as_secs());
    tell(&[NotifyState::Stopping, NotifyState::Status(&status), extend(grace + END_MAX)]);
}

/// Runs a reload between the notifications that belong to it. `status` is the status text to
/// restore.
pub(crate) fn reloading(status: &str, reload: impl FnOnce()) {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now, NotifyState::Status("reloading files")]),
        Err(error) => tracing::warn!(%error, "cannot read the monotonic clock"),
    }
    reload();
    ready(status);
}

/// Reports the progress of a recovery every second while it lives.
pub(crate) struct Starting {
    /// Dropped to end the thread.
    _end: Sender<()>,
}

/// Starts to report the progress of the recovery. As long as `read`, the bytes read, grows, the
/// manager waits without limit.
pub(crate) fn starting(read: Arc<AtomicU64>) -> Starting {
    let (end, ended) = mpsc::channel();
    if std::env::var_os("NOTIFY_SOCKET").is_some() {
        let tell_regularly = move || {
            let mut before = None;
            while ended.recv_timeout(TELL_EVERY) == Err(RecvTimeoutError::Timeout) {
                let now = read.load(Ordering::Relaxed);
                if before.replace(now) != Some(now) {
                    let status = format!("recovering the store: {} read", ByteSize::b(now).display().iec());
                    tell(&[NotifyState::Status(&status), extend(QUIET_MAX)]);
                }
            }
        };
        // Without the thread, the manager's own start timeout applies.
        if let Err(error) = thread::Builder::new().name("starting".to_owned()).spawn(tell_regularly) {
            tracing::warn!(%error, "cannot start a thread");
        }
    }
    Starting { _end: end }
}

fn extend<'a>(by: Duration) -> NotifyState<'a> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(by.as_micros()).unwrap_or(u32::MAX))
}
