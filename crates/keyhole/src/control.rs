//! The control socket, which connects the operator's commands with a running node.
//!
//! It is a Unix socket in the state directory, private to its owner. A client sends one line of
//! JSON, a [`Request`], and receives lines of JSON, [`Reply`]s, the last of which is final. Line
//! lengths, connections and the client's time are limited. Without a node, the commands run the
//! same [`answer()`] themselves.

mod answer;
mod client;
mod error;
mod protocol;
mod server;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use answer::{CHANGE_AGAIN, CHANGE_PATIENCE, Replies, answer};
pub(crate) use client::{Answered, ask, begin, is_served};
pub(crate) use error::ControlError;
pub(crate) use protocol::{
    Allowed, Anonymous, BucketChange, BucketReply, CorsRuleReply, DamageReply, Reply, Request, Scope, Segment, SseC,
    TagReply,
};
pub(crate) use server::{Control, Running, serve};

/// Timeout of the node's silence: long operations send progress every second.
const PATIENCE: Duration = Duration::from_secs(60);

/// Limit of a request in bytes, line feed included: a bucket's name, a few numbers and the maximum
/// of pinned key IDs, or a key prefix of 1,024 control characters, which take six bytes each.
const REQUEST_MAX: usize = 8 << 10;

/// Limit of a reply in bytes: a line of [`SEGMENTS_PER_LINE`] segments takes about 30 KiB, the
/// largest status about 100 KiB.
const REPLY_MAX: usize = 256 << 10;

/// Segments per line.
const SEGMENTS_PER_LINE: usize = 256;

/// Limit of a socket's name in the kernel, including the terminating zero.
const NAME_MAX: usize = 108;

/// A path that is short enough for a socket's name.
struct SocketName {
    path: PathBuf,
    /// The directory whose descriptor a long path goes through, which must stay open.
    _directory: Option<File>,
}

/// Returns the name of the socket at this path.
fn short(path: &Path) -> io::Result<SocketName> {
    if path.as_os_str().len() < NAME_MAX {
        return Ok(SocketName { path: path.to_owned(), _directory: None });
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = File::open(directory)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    Ok(SocketName { path, _directory: Some(directory) })
}
