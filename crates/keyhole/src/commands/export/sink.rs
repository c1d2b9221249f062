//! The destination of an export, and the files that it gets.

use aws_lc_rs::digest;
use thiserror::Error;

use crate::commands::transfer::Pace;
use crate::commands::{CommandError, Result};
use crate::transfer::channel::Piece;
use crate::transfer::entry::{BucketEntry, ObjectEntry, Sha256, finish};
use crate::transfer::manifest::End;
use crate::transfer::protocol::FileEnd;
use crate::transfer::versions::MarkerEntry;
use crate::transfer::{Channel, TransferError};

/// The destination of an export.
pub(super) trait Sink {
    /// Begins an export of this version from this store. Called first.
    fn begin(&mut self, store: &str, version: u32) -> Result<()>;
    fn bucket(&mut self, bucket: &BucketEntry) -> Result<()>;
    fn marker(&mut self, marker: &MarkerEntry) -> Result<()>;
    /// Returns whether the file of this object already exists.
    fn has(&mut self, entry: &ObjectEntry) -> Result<bool>;
    /// Writes an object, reading `bytes` to their end. Returns the error of the bytes, if any; the
    /// object is then left out.
    fn object(&mut self, entry: ObjectEntry, bytes: &mut FileBytes<'_>) -> Result<Option<String>>;
    /// Completes the export.
    fn end(&mut self, end: &End) -> Result<()>;
}

/// The bytes of a file, as they arrive.
pub(super) struct FileBytes<'b> {
    channel: &'b mut Channel,
    pace: &'b mut Pace,
    pub(super) buf: &'b mut Vec<u8>,
    hash: digest::Context,
    left: u64,
    /// The outcome of the bytes, once known.
    failed: Option<Option<String>>,
}

/// The reason why the bytes of a file are invalid, as the store or an export reports it.
#[derive(Error, Clone, PartialEq, Eq, Debug)]
#[error("{0}")]
pub(super) struct FileFailure(pub(super) String);

impl<'b> FileBytes<'b> {
    pub(super) fn new(channel: &'b mut Channel, pace: &'b mut Pace, buf: &'b mut Vec<u8>, len: u64) -> Self {
        let hash = digest::Context::new(&digest::SHA256);
        FileBytes { channel, pace, buf, hash, left: len, failed: None }
    }

    /// Receives the next bytes into [`buf`](Self::buf); returns `false` at the end.
    pub(super) fn advance(&mut self) -> Result<bool> {
        if self.failed.is_some() {
            return Ok(false);
        }
        match self.channel.piece(self.buf).map_err(TransferError::lost)? {
            Piece::Data(len) => {
                let too_long = || CommandError::Other("the store sent more than the object has".to_owned());
                self.left = self.left.checked_sub(len as u64).ok_or_else(too_long)?;
                self.hash.update(self.buf);
                self.pace.add(len);
                Ok(true)
            }
            Piece::End(end) => {
                self.failed = Some(match end {
                    FileEnd::Failed { what } => Some(what),
                    FileEnd::Whole if self.left > 0 => Some("the store sent less than the object has".to_owned()),
                    FileEnd::Whole => None,
                });
                Ok(false)
            }
        }
    }

    /// Returns the digest of the complete bytes, or their error.
    pub(super) fn digest(&self) -> std::result::Result<Sha256, FileFailure> {
        match &self.failed {
            Some(None) => Ok(Sha256(finish(self.hash.clone()))),
            Some(Some(what)) => Err(FileFailure(what.clone())),
            None => Err(FileFailure("the object was not read to its end".to_owned())),
        }
    }
}
