//! What the node reads again while it runs: on SIGHUP, and when it finds that it has changed.

use std::time::{Duration, Instant};

use crate::process::{Signal, Signals};
use crate::service;

/// How often it is looked whether something has changed.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Something that was read from files, and can be read again. Whatever is wrong with them is said in the log, and what was read
/// before stays in use.
pub(crate) trait Reload: Send {
    /// Reads it again, whether or not it has changed: SIGHUP asks for it.
    fn reload(&mut self);

    /// Looks whether it has changed, every [`LOOK_EVERY`], and reads it again if so.
    fn look(&mut self) {}
}

/// All there is to read again, in this order.
pub(crate) type Reloads = Vec<Box<dyn Reload>>;

/// Waits for a signal to end; its name. Until then everything is read again when that is due. `status` is what the service manager
/// was told when the node was ready.
pub(crate) fn until_end(signals: &Signals, reloads: &mut Reloads, status: &str) -> &'static str {
    let mut next_look = Instant::now() + LOOK_EVERY;
    loop {
        match signals.wait(next_look.saturating_duration_since(Instant::now())) {
            Some(Signal::End(name)) => return name,
            Some(Signal::Reload) => {
                tracing::info!("SIGHUP: reloading files");
                service::reloading(status, || reloads.iter_mut().for_each(|it| it.reload()));
            }
            None => {
                reloads.iter_mut().for_each(|it| it.look());
                next_look = Instant::now() + LOOK_EVERY;
            }
        }
    }
}
