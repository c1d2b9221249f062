//! Objects whose bytes are in a remote, and no longer in the log.
//!
//! Such an object keeps its record: head, tags and list of parts. The remote has its sealed object
//! file, and is not trusted: the salt of each body is compared with that in the record, and each chunk
//! is authenticated with the key of the object, as if it came from the disk.

use std::ops::Range;
use std::pin::Pin;

use keyhole_log::VersionId;
use keyhole_s3::{Error, ErrorCode};

use crate::failure::{Failure, not_authentic};
use crate::limits::RETRY_AFTER_S;

/// A future of a source of evicted objects.
pub type EvictedFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, EvictedError>> + 'a>>;

/// An object whose sealed object file is in a remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvictedObject {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// The version id; `Null` for an object without one.
    pub version: VersionId,
    /// Sequence number of the version.
    pub number: u64,
    /// Length of the sealed object file in bytes.
    pub file_len: u64,
}

/// The error of a source of evicted objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvictedError {
    /// The remote cannot be reached, or the node does not ship to it any more.
    Unavailable(String),
    /// The remote has another file than the one that was shipped, or none.
    Altered(String),
}

/// Reads the files of evicted objects. Shared by all workers.
pub trait EvictedObjects: Send + Sync {
    /// Begins to read a range of a file. The remote's metadata must name the version.
    fn open(&self, object: EvictedObject, range: Range<u64>) -> EvictedFuture<'static, Box<dyn EvictedBytes>>;

    /// Returns whether objects are evicted when the store is full, so that a refused write can succeed
    /// later.
    fn makes_room(&self) -> bool {
        false
    }
}

/// The bytes of a range of a file.
pub trait EvictedBytes {
    /// Returns the next bytes, or `None` at the end of the range.
    fn next(&mut self) -> EvictedFuture<'_, Option<Vec<u8>>>;
}

impl From<EvictedError> for Failure {
    fn from(error: EvictedError) -> Self {
        match error {
            EvictedError::Unavailable(why) => {
                tracing::debug!(why, "an evicted object cannot be read");
                let message =
                    "The bytes of the object are in a remote that cannot be reached. Repeat the request later.";
                let error = Error::new(ErrorCode::SlowDown).with_message(message);
                Failure::Reply(error.with_header("Retry-After", RETRY_AFTER_S.to_string()))
            }
            EvictedError::Altered(what) => not_authentic(&what),
        }
    }
}
