//! `keyhole clock`: accepts the wall clock for object lock.

use keyhole_s3::time::iso8601;

use super::Result;
use super::operate::{ask, print, unexpected};
use crate::cli::ClockCommand;
use crate::control::{Reply, Request};

pub(crate) fn run(command: &ClockCommand) -> Result<()> {
    let ClockCommand::Accept(target) = command;
    let Reply::Clock { lock_ms } = ask(target, Request::ClockAccept {}, |_| {})? else { return Err(unexpected()) };
    print(&match lock_ms {
        Some(lock_ms) => format!("the lock clock is at {}\n", iso8601(lock_ms)),
        None => "no bucket has object lock: there is no lock clock\n".to_owned(),
    });
    Ok(())
}
