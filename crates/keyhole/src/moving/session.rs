//! What goes over a connection on which objects move: frames, in both directions.
//!
//! A frame is a byte that says what it is, the length of the rest in 4 bytes, big-endian, and the rest. Messages are JSON. The bytes
//! of an object's file come in frames of data, up to an end, which says what became of them.
//!
//! - **Giving**: the node sends each bucket, and then each object in it, as it is described in an export. For each object the other
//!   side says whether it wants the bytes, which come then, and only then; meanwhile, what was described stays readable.
//! - **Taking**: the other side offers a bucket or an object; the node says whether it wants it. The bytes come then, and their end
//!   says whether they were what they should be. Only then is the object made to appear. What became of it is said later, while others are
//!   on their way already, so that they share syncs.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use keyhole_log::{Disk, Log};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::entry::{Bucket, Entry};
use super::manifest::LINE_MAX;
use super::{give, take};
use crate::control::{DamageReply, Scope};

/// Connections on which objects move, at a time: each holds up to six blocks.
pub(crate) const MOVES_MAX: usize = 2;

/// How long the other side may be silent, or not take what is sent: at its other end there may be a pipe to another machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

/// Objects that are on their way to the disk at a time, so that they share syncs: of the shortest, each with its body in memory,
/// that is 4 MiB.
pub(crate) const STORING_MAX: usize = 64;

/// Bytes in one frame of data, at most: a block's, in a sealed object file with the tags.
pub(crate) const DATA_MAX: usize = keyhole_log::limits::BUFFER_LEN;

/// The longest message.
pub(crate) const MESSAGE_MAX: usize = LINE_MAX;

/// Bytes ahead of a frame's own.
pub(crate) const FRAME_HEAD: usize = 5;

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A message, in JSON.
    Message = 1,
    /// Bytes of a file.
    Data = 2,
    /// The end of the bytes of a file; a message.
    End = 3,
}

/// Where a frame begins.
pub(crate) fn frame_head(kind: Kind, len: usize) -> [u8; FRAME_HEAD] {
    let mut head = [kind as u8; FRAME_HEAD];
    head[1..].copy_from_slice(&(len as u32).to_be_bytes());
    head
}

/// What a frame is, and the length of the rest of it.
///
/// # Errors
/// `InvalidData` for what is no frame, or is too long.
pub(crate) fn parse_frame_head(head: [u8; FRAME_HEAD]) -> io::Result<(Kind, usize)> {
    let [kind, len @ ..] = head;
    let len = u32::from_be_bytes(len) as usize;
    let kind = [Kind::Message, Kind::Data, Kind::End].into_iter().find(|it| *it as u8 == kind);
    let max = |kind| if kind == Kind::Data { DATA_MAX } else { MESSAGE_MAX };
    match kind {
        Some(kind) if len <= max(kind) => Ok((kind, len)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "no frame of this protocol")),
    }
}

/// What the node says when it gives.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(tag = "gives", rename_all = "kebab-case")]
pub(crate) enum Given {
    /// First of all: from which store it comes.
    Store {
        id: String,
    },
    Bucket(Bucket),
    Object(Box<Entry>),
    /// An object cannot be described, as its record is damaged.
    Damaged(DamageReply),
    /// That is all.
    End {
        uploads: u64,
    },
    /// Nothing more comes.
    Failed {
        message: String,
    },
}

/// Whether an object that was described is wanted.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    Send,
    Skip,
}

/// What became of the bytes of a file.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FileEnd {
    /// They are whole.
    Whole,
    /// They are not.
    Failed { what: String },
}

/// What to do where there is something else already.
#[derive(Serialize, Deserialize, clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Existing {
    /// Leave it, and say so; the command fails in the end.
    Fail,
    /// Leave it.
    Skip,
    /// Put the export's in its place.
    Replace,
}

/// What is offered to the node.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(tag = "offers", rename_all = "kebab-case")]
pub(crate) enum Offer {
    /// A bucket. Its quota is set when all of it is there: `is_last`.
    Bucket { bucket: Bucket, is_last: bool, existing: Existing },
    /// An object; `number` is what it is called by later.
    Object { entry: Box<Entry>, number: u64, existing: Existing },
    /// That was all.
    End {},
}

/// What the node says when it takes.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(tag = "takes", rename_all = "kebab-case")]
pub(crate) enum Taken {
    /// About the last offer: send the bytes, or, of a bucket, it is there now.
    Wanted {},
    /// About the last offer: it is there already.
    Equal {},
    /// About the last offer: there is something else, which stays.
    Other {},
    /// About the last offer: it cannot be taken.
    Refused { message: String },
    /// An object is there now, and durable.
    Stored { number: u64 },
    /// An object whose bytes were sent is not.
    NotStored { number: u64, message: String },
    /// All that was offered has become something.
    End {},
}

/// Which way objects move over a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// The node gives what is in scope.
    Give(Scope),
    /// The node takes.
    Take,
}

/// Serves one connection.
pub(crate) async fn serve<D: Disk>(log: &Log<D>, way: &Way, stream: UnixStream) -> io::Result<()> {
    let peer = Peer { stream };
    match way {
        Way::Give(scope) => give::give(log, scope, &peer).await,
        Way::Take => take::take(log, &peer).await,
    }
}

/// One of a bounded number, until it is dropped.
pub(crate) struct Place(Rc<Cell<usize>>);

impl Place {
    /// Takes one, if there is one.
    pub(crate) fn take(taken: &Rc<Cell<usize>>) -> Option<Self> {
        (taken.get() < MOVES_MAX).then(|| {
            taken.set(taken.get() + 1);
            Place(taken.clone())
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// The other end of a connection, as the node has it.
pub(crate) struct Peer {
    stream: UnixStream,
}

impl Peer {
    /// Sends a message.
    pub(crate) async fn send(&self, message: &impl Serialize) -> io::Result<()> {
        self.send_as(Kind::Message, message).await
    }

    /// Ends the bytes of a file.
    pub(crate) async fn end(&self, end: &FileEnd) -> io::Result<()> {
        self.send_as(Kind::End, end).await
    }

    async fn send_as(&self, kind: Kind, message: &impl Serialize) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        self.write(&[&frame_head(kind, bytes.len())[..], &bytes].concat()).await
    }

    /// Sends bytes of a file.
    pub(crate) async fn data(&self, bytes: &[u8]) -> io::Result<()> {
        self.write(&frame_head(Kind::Data, bytes.len())).await?;
        self.write(bytes).await
    }

    /// Waits until there is something to read, or the other end is gone.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        timeout(PATIENCE, self.stream.readable()).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    /// The next frame, which is a message.
    pub(crate) async fn message<T: DeserializeOwned>(&self) -> io::Result<T> {
        match self.head().await? {
            (Kind::Message, len) => self.rest(len).await,
            _ => Err(out_of_turn()),
        }
    }

    /// Where the next frame begins.
    pub(crate) async fn head(&self) -> io::Result<(Kind, usize)> {
        let mut head = [0; FRAME_HEAD];
        self.read(&mut head).await?;
        parse_frame_head(head)
    }

    /// The rest of a frame that is a message.
    pub(crate) async fn rest<T: DeserializeOwned>(&self, len: usize) -> io::Result<T> {
        let mut bytes = vec![0; len];
        self.read(&mut bytes).await?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Exactly as many bytes as `to` takes.
    pub(crate) async fn read(&self, to: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < to.len() {
            self.readable().await?;
            match self.stream.try_read(&mut to[filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => filled += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            timeout(PATIENCE, self.stream.writable()).await.map_err(|_| io::ErrorKind::TimedOut)??;
            match self.stream.try_write(bytes) {
                Ok(len) => bytes = &bytes[len..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A frame that does not belong where it stands.
pub(crate) fn out_of_turn() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a frame out of turn")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_bounds() {
        for (kind, max) in [(Kind::Message, MESSAGE_MAX), (Kind::Data, DATA_MAX), (Kind::End, MESSAGE_MAX)] {
            assert_eq!(parse_frame_head(frame_head(kind, max)).unwrap(), (kind, max));
            assert!(parse_frame_head(frame_head(kind, max + 1)).is_err());
        }
        for kind in [0, 4, b'{'] {
            assert!(parse_frame_head([kind, 0, 0, 0, 0]).is_err());
        }
    }

    #[test]
    fn places_are_bounded() {
        let taken = Rc::new(Cell::new(0));
        let places: Vec<_> = std::iter::from_fn(|| Place::take(&taken)).collect();
        assert_eq!(places.len(), MOVES_MAX);
        drop(places);
        assert!(Place::take(&taken).is_some());
    }
}
