//! The control socket: how the operator's commands reach a running node.
//!
//! A Unix socket beside the data, for its owner alone. A client sends one line of JSON, a [`Request`], and receives lines of
//! JSON, [`Reply`]s, of which the last is final. Everything is bounded: the length of lines, the number of connections, and the
//! time that a client may take. Where no node runs, the commands do the same by themselves, through the same [`answer()`].

mod answer;
mod client;
mod protocol;
mod server;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

pub(crate) use answer::{CHANGE_AGAIN, CHANGE_PATIENCE, Replies, answer};
pub(crate) use client::{ask, begin, is_served};
pub(crate) use protocol::{
    Allowed, Anonymous, BucketChange, BucketReply, CleanerReply, DamageReply, Reply, Request, Scope, Segment, SseC,
    StatReply, WrittenReply,
};
pub(crate) use server::{Control, Running, serve};

/// The longest request, line feed included: a bucket's name, a few numbers, and as many ids of keys as there can be; or a prefix of
/// keys with 1,024 control characters, which have six bytes each.
const REQUEST_MAX: usize = 8 << 10;

/// The longest reply: a line of [`SEGMENTS_PER_LINE`] segments has some 30 KiB, a status with all that there may be in it some
/// 100 KiB.
const REPLY_MAX: usize = 256 << 10;

/// Segments in one line.
const SEGMENTS_PER_LINE: usize = 256;

/// Bytes that a socket's name may have in the kernel, and the zero that ends it.
const NAME_MAX: usize = 108;

/// A path that is short enough to be a socket's name, and what keeps it valid: a long one goes through the descriptor of its
/// directory.
fn short(path: &Path) -> io::Result<(PathBuf, Option<File>)> {
    if path.as_os_str().len() < NAME_MAX {
        return Ok((path.to_owned(), None));
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = File::open(directory)?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name), Some(directory)))
}
