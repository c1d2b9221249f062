//! The protocol of a transfer: frames in both directions.
//!
//! A frame is a type byte, the length of the payload in 4 bytes, big-endian, and the payload.
//! Messages are JSON. The bytes of an object's file are sent in data frames, followed by an end
//! frame with the outcome.
//!
//! - **Export**: the node sends each bucket, followed by its objects, as an export describes them.
//!   For each object the other side answers whether it wants the bytes, and the node sends them
//!   only then; meanwhile the described version stays readable.
//! - **Import**: the other side offers a bucket or an object, and the node answers whether it wants
//!   it. Then the bytes follow, and their end states whether they are valid. Only then does the
//!   object appear. Its outcome is reported later, while other objects are in flight, so that they
//!   share syncs.

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
use super::{receiver, sender};
use crate::control::{DamageReply, Scope};

/// Limit of concurrent transfers: each holds up to six buffers.
pub(crate) const MOVES_MAX: usize = 2;

/// Timeout for the other side to send or receive: its own peer may be a pipe to another machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

/// Limit of objects that are being committed at a time, so that they share syncs. The shortest ones
/// have their bodies in memory: 4 MiB.
pub(crate) const STORING_MAX: usize = 64;

/// Limit of a data frame in bytes: a buffer's length, including the tags of a sealed object file.
pub(crate) const DATA_MAX: usize = keyhole_log::limits::BUFFER_LEN;

/// Limit of a message in bytes.
pub(crate) const MESSAGE_MAX: usize = LINE_MAX;

/// Length of a frame's header.
pub(crate) const FRAME_HEAD: usize = 5;

/// The type of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A JSON message.
    Message = 1,
    /// Bytes of a file.
    Data = 2,
    /// The end of a file's bytes, a message.
    End = 3,
}

/// Returns the header of a frame.
pub(crate) fn frame_head(kind: Kind, len: usize) -> [u8; FRAME_HEAD] {
    let mut head = [kind as u8; FRAME_HEAD];
    head[1..].copy_from_slice(&(len as u32).to_be_bytes());
    head
}

/// Parses a frame header into the type and the length of the payload.
///
/// # Errors
/// `InvalidData` if the type is unknown or the frame is too long.
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

/// A message of the node during an export.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(tag = "gives", rename_all = "kebab-case")]
pub(crate) enum Given {
    /// The first message: the store's identity.
    Store {
        id: String,
    },
    Bucket(Bucket),
    Object(Box<Entry>),
    /// An object whose record is damaged and cannot be described.
    Damaged(DamageReply),
    /// The end of the export.
    End {
        uploads: u64,
    },
    /// The export is aborted.
    Failed {
        message: String,
    },
}

/// The answer to a described object.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    Send,
    Skip,
}

/// The outcome of a file's bytes.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FileEnd {
    /// The bytes are complete.
    Whole,
    /// The bytes are invalid.
    Failed { what: String },
}

/// The action if a different object or other settings already exist.
#[derive(Serialize, Deserialize, clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Existing {
    /// Keep it and report it; the command fails at the end.
    Fail,
    /// Keep it.
    Skip,
    /// Replace it with the export's.
    Replace,
}

/// An offer to the node during an import.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(tag = "offers", rename_all = "kebab-case")]
pub(crate) enum Offer {
    /// A bucket. Its quota is set once all its objects exist (`is_last`).
    Bucket { bucket: Bucket, is_last: bool, existing: Existing },
    /// An object, with the `number` that later messages refer to.
    Object { entry: Box<Entry>, number: u64, existing: Existing },
    /// The end of the import.
    End {},
}

/// A message of the node during an import.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(tag = "takes", rename_all = "kebab-case")]
pub(crate) enum Taken {
    /// Reply to an offer: send the bytes, or the bucket exists now.
    Wanted {},
    /// Reply to an offer: it already exists.
    Equal {},
    /// Reply to an offer: something else exists and stays.
    Other {},
    /// Reply to an offer: it cannot be imported.
    Refused { message: String },
    /// An object was stored durably.
    Stored { number: u64 },
    /// An object whose bytes were sent was not stored.
    NotStored { number: u64, message: String },
    /// All offers are completed.
    End {},
}

/// The direction of a transfer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// The node sends the objects in scope.
    Give(Scope),
    /// The node receives objects.
    Take,
}

/// Serves one connection.
pub(crate) async fn serve<D: Disk>(log: &Log<D>, way: &Way, stream: UnixStream) -> io::Result<()> {
    let peer = Peer { stream };
    match way {
        Way::Give(scope) => sender::send(log, scope, &peer).await,
        Way::Take => receiver::receive(log, &peer).await,
    }
}

/// A permit for one of a limited number of transfers, held until drop.
pub(crate) struct Place(Rc<Cell<usize>>);

impl Place {
    /// Acquires a permit, if one is free.
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

/// The node's view of the other end of the connection.
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

    /// Waits until bytes are available or the peer is gone.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        timeout(PATIENCE, self.stream.readable()).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    /// Receives the next frame, which must be a message.
    pub(crate) async fn message<T: DeserializeOwned>(&self) -> io::Result<T> {
        match self.head().await? {
            (Kind::Message, len) => self.rest(len).await,
            _ => Err(out_of_turn()),
        }
    }

    /// Receives the header of the next frame.
    pub(crate) async fn head(&self) -> io::Result<(Kind, usize)> {
        let mut head = [0; FRAME_HEAD];
        self.read(&mut head).await?;
        parse_frame_head(head)
    }

    /// Receives the payload of a message.
    pub(crate) async fn rest<T: DeserializeOwned>(&self, len: usize) -> io::Result<T> {
        let mut bytes = vec![0; len];
        self.read(&mut bytes).await?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Fills `to` completely.
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

/// Returns the error for an unexpected frame.
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
