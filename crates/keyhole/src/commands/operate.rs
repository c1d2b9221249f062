//! Operator requests to a store with or without a node; `keyhole compact` and `keyhole scrub`.

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};
use keyhole_log::Log;
use keyhole_node::PolicyDefaults;
use tokio::task::LocalSet;

use super::{CommandError, Result};
use crate::background::{self, Finished};
use crate::cli::Target;
use crate::cli::store::ScrubOptions;
use crate::control::{self, DamageReply, Replies, Reply, Request};
use crate::platform::AnyDisk;
use crate::store::{self, OpenedStore, StoreLocation, StoreOptions};

/// Sends a request to the node, or executes it without one; returns the final reply. Passes earlier
/// replies to `on_reply`.
pub(super) fn ask(target: &Target, request: Request, mut on_reply: impl FnMut(Reply)) -> Result<Reply> {
    let location = StoreLocation::find(&target.data, target.state.as_deref())?;
    let reply = match control::ask(&location.socket(), &request, &mut on_reply)? {
        Some(reply) => reply,
        None => alone(&location, request, &mut on_reply)?,
    };
    match reply {
        Reply::Failed { message } => Err(CommandError::Other(message)),
        reply => Ok(reply),
    }
}

/// Returns the failure for a reply that does not match the request.
pub(super) fn unexpected() -> CommandError {
    CommandError::Other("unexpected answer from the node: is it of the same version?".to_owned())
}

/// A receiver of replies without a connection.
struct Callback<'a>(&'a mut dyn FnMut(Reply));

impl Replies for Callback<'_> {
    async fn send(&mut self, reply: Reply) -> io::Result<()> {
        (self.0)(reply);
        Ok(())
    }
}

/// Opens the store as a node with one worker would, and executes the request.
fn alone(location: &StoreLocation, request: Request, on_reply: &mut dyn FnMut(Reply)) -> Result<Reply> {
    let read_only = request.only_looks().then_some(store::ONLY_LOOKS);
    let store = store::open(location, &StoreOptions { read_only, ..StoreOptions::default() })?;
    if store.damaged > 0 {
        let damaged = store.damaged;
        let data = location.data.display();
        eprintln!("keyhole: opening the store found damage in {damaged} places; see `keyhole check {data}`");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|error| CommandError::io("cannot start the async runtime", error))?;
    LocalSet::new().block_on(&runtime, answer(&store, request, on_reply))
}

async fn answer(store: &OpenedStore, request: Request, on_reply: &mut dyn FnMut(Reply)) -> Result<Reply> {
    let disk = store::plain_disk(&store.medium)?;
    let defaults = PolicyDefaults::default();
    let mut replies = Callback(on_reply);
    let work = async |log: &Log<AnyDisk>| control::answer(log, None, &defaults, request, &mut replies).await;
    let Finished { result, is_checkpointed } = background::with_log(store.store.clone(), disk, work).await;
    if !is_checkpointed {
        eprintln!("keyhole: the last checkpoint was not written; the next start takes longer");
    }
    result.map_err(|error| CommandError::io("cannot answer", error))
}

/// Returns a progress display, hidden if there is no terminal.
fn spinner(what: &'static str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {msg}").expect("a valid template");
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.set_message(what);
    bar
}

/// Runs `keyhole compact`.
pub(crate) fn compact(target: &Target) -> Result<()> {
    let bar = spinner("cleaning");
    let reply = ask(target, Request::Compact {}, |reply| {
        if let Reply::Progress { bytes } = reply {
            bar.set_message(format!("cleaning: {} moved", size(bytes)));
            bar.tick();
        }
    });
    bar.finish_and_clear();
    let Reply::Compacted { segments_freed, bytes_moved } = reply? else { return Err(unexpected()) };
    print(&format!("{segments_freed} segments freed, {} moved\n", size(bytes_moved)));
    Ok(())
}

/// Runs `keyhole scrub`.
pub(crate) fn scrub(options: &ScrubOptions) -> Result<()> {
    let bar = spinner("verifying");
    let reply = ask(&options.target, Request::Scrub { rate_bytes_per_s: options.rate }, |reply| match reply {
        Reply::Progress { bytes } => {
            bar.set_message(format!("verifying: {}", size(bytes)));
            bar.tick();
        }
        Reply::Damage(damage) => bar.suspend(|| print(&format!("damaged: {}\n", describe(&damage)))),
        _ => {}
    });
    bar.finish_and_clear();
    let Reply::Scrubbed { bytes, damaged } = reply? else { return Err(unexpected()) };
    print(&format!("{} verified, {damaged} damaged\n", size(bytes)));
    match damaged {
        0 => Ok(()),
        _ => Err(CommandError::Damaged(format!(
            "damaged objects: restore them from a backup or delete them; with the node stopped, `keyhole check {}` \
             lists the damage",
            options.target.data.display()
        ))),
    }
}

/// Describes a damaged item in one line, beginning with its owner.
pub(super) fn describe(damage: &DamageReply) -> String {
    let DamageReply { what, offset, bucket, key, version } = damage;
    let version = version.iter().map(|version| format!(" (version {version})")).collect::<String>();
    match (bucket, key) {
        (Some(bucket), Some(key)) => format!("{bucket}/{}{version}: {what}, at {offset}", key.escape_debug()),
        (Some(bucket), None) => format!("bucket {bucket}: {what}, at {offset}"),
        (None, Some(key)) => format!("key {}: {what}, at {offset}", key.escape_debug()),
        (None, None) => format!("{what}, at {offset}"),
    }
}

/// Writes to standard output. Ignores errors, since the reader may have closed the pipe (`| head`).
pub(super) fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

pub(super) use crate::status::format::size;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_description_begins_with_owner() {
        let damage = |bucket: Option<&str>, key: Option<&str>| {
            let bucket = bucket.map(str::to_owned);
            let key = key.map(str::to_owned);
            describe(&DamageReply { what: "a block".to_owned(), offset: 7, bucket, key, version: None })
        };
        assert_eq!(damage(Some("b"), Some("a\nb")), "b/a\\nb: a block, at 7");
        assert_eq!(damage(Some("b"), None), "bucket b: a block, at 7");
        assert_eq!(damage(None, Some("k")), "key k: a block, at 7");
        assert_eq!(damage(None, None), "a block, at 7");
        let (bucket, key) = (Some("b".to_owned()), Some("k".to_owned()));
        let version = Some("null".to_owned());
        let damage = DamageReply { what: "a block".to_owned(), offset: 7, bucket, key, version };
        assert_eq!(describe(&damage), "b/k (version null): a block, at 7");
    }
}
