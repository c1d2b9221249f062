//! Reloading of files while the node runs: on SIGHUP and when they have changed.

use std::time::{Duration, Instant};

use crate::process::{Signal, Signals};
use crate::service;

/// Interval of polling for changes.
pub(crate) const POLL_EVERY: Duration = Duration::from_secs(2);

/// Data that was loaded from files and can be reloaded. Errors are logged, and the previous data
/// stays in use.
pub(crate) trait Reload: Send {
    /// Reloads the files unconditionally, on SIGHUP.
    fn reload(&mut self);

    /// Reloads the files if they have changed; called every [`POLL_EVERY`].
    fn reload_if_changed(&mut self) {}
}

/// Everything that can be reloaded, in order.
pub(crate) type Reloads = Vec<Box<dyn Reload>>;

/// Waits for a signal to shut down and returns its name; reloads files when due until then.
/// `status` is the service manager's status text of the running node.
pub(crate) fn until_end(signals: &Signals, reloads: &mut Reloads, status: &str) -> &'static str {
    let mut next_poll = Instant::now() + POLL_EVERY;
    loop {
        match signals.wait(next_poll.saturating_duration_since(Instant::now())) {
            Some(Signal::End(name)) => return name,
            Some(Signal::Reload) => {
                tracing::info!("SIGHUP: reloading files");
                service::reloading(status, || reloads.iter_mut().for_each(|it| it.reload()));
            }
            None => {
                reloads.iter_mut().for_each(|it| it.reload_if_changed());
                next_poll = Instant::now() + POLL_EVERY;
            }
        }
    }
}
