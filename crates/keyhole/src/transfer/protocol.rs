//! The protocol of a transfer: frames in both directions.
//!
//! A frame is a type byte, the length of the payload in 4 bytes, big-endian, and the payload.
//! Messages are JSON. The bytes of an object's file are sent in data frames, followed by an end
//! frame with the outcome.
//!
//! - **Export**: the node sends each bucket, followed by its objects, or by its versions and delete
//!   markers, as an export describes them.
//!   For each object the other side answers whether it wants the bytes, and the node sends them
//!   only then; meanwhile the described version stays readable.
//! - **Import**: the other side offers a bucket, an object or a delete marker, and the node answers
//!   whether it wants it. Then the bytes follow, and their end states whether they are valid. Only then does the
//!   object appear. Its outcome is reported later, while other objects are in flight, so that they
//!   share syncs.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::entry::{BucketEntry, ObjectEntry};
use super::manifest::{LINE_MAX, VERSION_PLAIN};
use super::settings::SettingsChoice;
use super::versions::MarkerEntry;
use crate::control::{DamageReply, Scope};

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
pub(crate) enum FrameKind {
    /// A JSON message.
    Message = 1,
    /// Bytes of a file.
    Data = 2,
    /// The end of a file's bytes, a message.
    End = 3,
}

/// Returns the header of a frame.
pub(crate) fn frame_head(kind: FrameKind, len: usize) -> [u8; FRAME_HEAD] {
    let mut head = [kind as u8; FRAME_HEAD];
    head[1..].copy_from_slice(&(len as u32).to_be_bytes());
    head
}

/// Parses a frame header into the type and the length of the payload.
///
/// # Errors
/// `InvalidData` if the type is unknown or the frame is too long.
pub(crate) fn parse_frame_head(head: [u8; FRAME_HEAD]) -> io::Result<(FrameKind, usize)> {
    let [kind, len @ ..] = head;
    let len = u32::from_be_bytes(len) as usize;
    let kind = [FrameKind::Message, FrameKind::Data, FrameKind::End].into_iter().find(|it| *it as u8 == kind);
    let max = |kind| if kind == FrameKind::Data { DATA_MAX } else { MESSAGE_MAX };
    match kind {
        Some(kind) if len <= max(kind) => Ok((kind, len)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "no frame of this protocol")),
    }
}

/// A message of the node during an export.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(tag = "gives", rename_all = "kebab-case")]
pub(crate) enum ExportMessage {
    /// The first message: the store's identity, and the version of the export.
    Store {
        id: String,
        #[serde(default = "version_plain")]
        version: u32,
    },
    Bucket(BucketEntry),
    Object(Box<ObjectEntry>),
    Marker(MarkerEntry),
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

fn version_plain() -> u32 {
    VERSION_PLAIN
}

/// The answer to a described object.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ExportAnswer {
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
pub(crate) enum ImportOffer {
    /// A bucket. Its quota is set once all its objects exist (`is_last`).
    Bucket {
        bucket: BucketEntry,
        is_last: bool,
        existing: Existing,
        #[serde(default)]
        settings: SettingsChoice,
    },
    /// An object, with the `number` that later messages refer to.
    Object { entry: Box<ObjectEntry>, number: u64, existing: Existing },
    /// A delete marker, with a `number` like that of an object. If it is wanted, no bytes follow.
    Marker { entry: MarkerEntry, number: u64, existing: Existing },
    /// The end of the import.
    End {},
}

/// A message of the node during an import.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(tag = "takes", rename_all = "kebab-case")]
pub(crate) enum ImportOutcome {
    /// Reply to an offer: send the bytes, or the bucket exists now.
    Wanted {},
    /// Reply to an offer: it already exists.
    Equal {},
    /// Reply to an offer: the bucket exists, without the settings that need consent.
    Narrowed {},
    /// Reply to an offer: something else exists and stays.
    Other {},
    /// Reply to an offer: the store has newer versions of the name, which stay.
    Behind {},
    /// Reply to an offer: the bucket exists and lacks the versioning or the object lock that the
    /// export's objects need.
    Unversioned {},
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
pub(crate) enum Direction {
    /// The node sends the objects in scope.
    Export(Scope),
    /// The node receives objects.
    Import,
}

/// Returns the error for an unexpected frame.
pub(crate) fn out_of_turn() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a frame out of turn")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_length_is_bounded() {
        for (kind, max) in
            [(FrameKind::Message, MESSAGE_MAX), (FrameKind::Data, DATA_MAX), (FrameKind::End, MESSAGE_MAX)]
        {
            assert_eq!(parse_frame_head(frame_head(kind, max)).unwrap(), (kind, max));
            assert!(parse_frame_head(frame_head(kind, max + 1)).is_err());
        }
        for kind in [0, 4, b'{'] {
            assert!(parse_frame_head([kind, 0, 0, 0, 0]).is_err());
        }
    }
}
