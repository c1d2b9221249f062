//! The destination of an export, and the files that it gets.

use aws_lc_rs::digest;

use crate::commands::transfer::Pace;
use crate::commands::{CommandError, Result};
use crate::transfer::Channel;
use crate::transfer::channel::Piece;
use crate::transfer::entry::{BucketEntry, ObjectEntry, Sha256, finish};
use crate::transfer::manifest::End;
use crate::transfer::protocol::FileEnd;

/// The destination of an export.
pub(super) trait Sink {
    /// Begins an export from this store. Called first.
    fn begin(&mut self, store: &str) -> Result<()>;
    fn bucket(&mut self, bucket: &BucketEntry) -> Result<()>;
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
    pub(super) channel: &'b mut Channel,
    pub(super) pace: &'b mut Pace,
    pub(super) buf: &'b mut Vec<u8>,
    pub(super) hash: digest::Context,
    pub(super) left: u64,
    /// The outcome of the bytes, once known.
    pub(super) failed: Option<Option<String>>,
}

impl FileBytes<'_> {
    /// Receives the next bytes into [`buf`](Self::buf); returns `false` at the end.
    pub(super) fn advance(&mut self) -> Result<bool> {
        if self.failed.is_some() {
            return Ok(false);
        }
        match self.channel.piece(self.buf).map_err(|error| CommandError::Other(Channel::lost(&error)))? {
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
    pub(super) fn digest(&self) -> std::result::Result<Sha256, String> {
        match &self.failed {
            Some(None) => Ok(Sha256(finish(self.hash.clone()))),
            Some(Some(what)) => Err(what.clone()),
            None => Err("the object was not read to its end".to_owned()),
        }
    }
}
