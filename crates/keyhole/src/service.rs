//! What the service manager is told, in systemd's protocol (`sd_notify(3)`): that the node starts, serves, reads its files
//! anew, ends. Where there is none, nothing is told and nothing is done.
//!
//! - [`starting`] while the store is recovered: the time that a start may take is extended for as long as there is progress;
//! - [`ready`] once every worker accepts connections;
//! - [`reloading`] around what SIGHUP asks for;
//! - [`stopping`] when no further request is taken;
//! - the watchdog is [`crate::watchdog`]'s.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use bytesize::ByteSize;
use sd_notify::NotifyState;

/// How often the manager hears of a recovery.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// For how long a recovery may read nothing before the manager's patience ends.
const QUIET_MAX: Duration = Duration::from_secs(60);

/// What an end takes besides the grace, at most: the log's last writes, and a checkpoint.
const END_MAX: Duration = Duration::from_secs(30);

/// Whether a service manager waits to be told, or the output is kept in its journal: then nobody sits at a terminal.
pub(crate) fn is_managed() -> bool {
    ["NOTIFY_SOCKET", "JOURNAL_STREAM"].iter().any(|name| std::env::var_os(name).is_some())
}

/// Tells it; that it cannot be told is no reason to stop.
pub(crate) fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

/// The node serves.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// No further request is taken; those in flight may have so much time.
pub(crate) fn stopping(grace: Duration) {
    let status = format!("shutting down: up to {} s for requests in flight", grace.as_secs());
    tell(&[NotifyState::Stopping, NotifyState::Status(&status), extend(grace + END_MAX)]);
}

/// Does what SIGHUP asks for, with the manager knowing that it goes on. `status` is what it was told when the node was ready.
pub(crate) fn reloading(status: &str, reload: impl FnOnce()) {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now, NotifyState::Status("reloading files")]),
        Err(error) => tracing::warn!(%error, "cannot read the monotonic clock"),
    }
    reload();
    ready(status);
}

/// Told every second, for as long as it lives, how far a recovery is.
pub(crate) struct Starting {
    /// Dropped to end it.
    _end: Sender<()>,
}

/// Tells how far the recovery is. `read` are the bytes that it has read: while they grow the manager waits, however long it takes.
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
        // Without it the time to start is what the manager has set.
        if let Err(error) = thread::Builder::new().name("starting".to_owned()).spawn(tell_regularly) {
            tracing::warn!(%error, "cannot start a thread");
        }
    }
    Starting { _end: end }
}

fn extend<'a>(by: Duration) -> NotifyState<'a> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(by.as_micros()).unwrap_or(u32::MAX))
}
