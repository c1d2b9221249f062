//! Errors, and reports of damage.

use std::fmt;
use std::io;
use std::sync::Arc;

/// Why the log refused or failed. Variants are grouped by who is at fault.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    // The request, or the state it met.
    /// There is no bucket of this name.
    NoSuchBucket,
    /// The bucket holds objects, or one is being stored into it.
    BucketNotEmpty,
    /// `IfMatch` on a name that has no object.
    NoSuchKey,
    /// There is no such upload, or it was completed or aborted meanwhile.
    NoSuchUpload,
    /// A part that was named is not the current attempt at its number.
    PartChanged,
    /// The condition does not hold.
    ConditionFailed,
    /// Whether the request may go on depends on another one that is still being written; it can be repeated.
    Conflict,
    /// The bucket's quota has no room for it.
    QuotaExceeded,
    /// Something is longer than its limit in [`limits`](crate::limits): the name of what it is.
    TooLarge(&'static str),
    // The operator.
    /// The file is not an object file: what it seems to be.
    Foreign(&'static str),
    /// The file was written in another version of the format.
    UnsupportedVersion {
        /// The version that the file has.
        found: u32,
        /// The version that this program reads and writes.
        supported: u32,
    },
    /// The capacity, the segment length or the number of workers do not go together.
    Capacity(String),
    // The disk.
    /// The object file has reached its capacity, or the file system is full.
    Full,
    /// The file system has no space to finish a write, and none to take it back. The write takes effect only if the process or the
    /// power fails before there is space; otherwise it never does. It can be repeated.
    InDoubt,
    /// The disk failed.
    Io(Arc<io::Error>),
    /// A write or a sync has failed before: nothing more is written until the log is opened again. Reads go on.
    Poisoned,
    /// The log is open for reading alone, for this reason. Reads go on.
    ReadOnly(Arc<str>),
    /// The writer of this worker has ended.
    Closed,
    /// What was read does not verify.
    Damaged(Box<Damage>),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoSuchBucket => f.write_str("no such bucket"),
            Error::BucketNotEmpty => f.write_str("the bucket is not empty"),
            Error::NoSuchKey => f.write_str("no such object"),
            Error::NoSuchUpload => f.write_str("no such upload"),
            Error::PartChanged => f.write_str("a part differs from the one named"),
            Error::ConditionFailed => f.write_str("the condition does not hold"),
            Error::Conflict => {
                f.write_str("another write of the same key, or change of the same bucket, is in progress")
            }
            Error::QuotaExceeded => f.write_str("the quota of the bucket is exceeded"),
            Error::TooLarge(what) => write!(f, "{what}: over its limit"),
            Error::Foreign(what) => write!(f, "not an object file: {what}"),
            Error::UnsupportedVersion { found, supported } => {
                write!(f, "unsupported object file version {found}, this program reads version {supported}: ")?;
                if found > supported {
                    f.write_str("use the newer release that wrote it")
                } else {
                    f.write_str("export the objects with the older release that wrote it and import them with this one")
                }
            }
            Error::Capacity(why) => f.write_str(why),
            Error::Full => f.write_str("the object file is full"),
            Error::InDoubt => f.write_str(
                "the file system is full, and the outcome of this write is in doubt: free some space, then send it again",
            ),
            Error::Io(error) => write!(f, "disk: {error}"),
            Error::Poisoned => f.write_str("an earlier write failed: nothing is written until the log is reopened"),
            Error::ReadOnly(why) => write!(f, "the store is read-only: {why}"),
            Error::Closed => f.write_str("the log is closed"),
            Error::Damaged(damage) => write!(f, "damaged: {damage}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io(error) => Some(error.as_ref()),
            _ => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Io(Arc::new(error))
    }
}

/// The first write, sync, allocation or discard that failed: it has poisoned the log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedWrite {
    /// What failed: "a write", "a sync".
    pub what: &'static str,
    /// Where in the file, where that is known.
    pub offset: Option<u64>,
    /// What the disk said.
    pub error: String,
}

impl FailedWrite {
    pub(crate) fn new(what: &'static str, offset: Option<u64>, error: &io::Error) -> Self {
        FailedWrite { what, offset, error: error.to_string() }
    }
}

impl fmt::Display for FailedWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)?;
        if let Some(offset) = self.offset {
            write!(f, " at offset {offset}")?;
        }
        write!(f, " failed: {}", self.error)
    }
}

/// Something on the disk that does not verify although it had been durable.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// What it is and what is wrong with it.
    pub what: &'static str,
    /// Where it is in the file.
    pub offset: u64,
    /// The bucket that it belongs to, where known.
    pub bucket: Option<String>,
    /// The object's key, where known.
    pub key: Option<String>,
    /// What it said is known from elsewhere: it can be written anew.
    pub repairable: bool,
}

/// What is said of a range that the medium cannot give.
pub(crate) const UNREADABLE: &str = "unreadable sectors";

/// What is said of an object of which only the name is known.
pub(crate) const LOST_OBJECT: &str = "an object whose record is lost";

impl Damage {
    pub(crate) fn new(what: &'static str, offset: u64) -> Self {
        Damage { what, offset, bucket: None, key: None, repairable: false }
    }

    pub(crate) fn mendable(what: &'static str, offset: u64) -> Self {
        Damage { repairable: true, ..Damage::new(what, offset) }
    }

    pub(crate) fn error(what: &'static str, offset: u64) -> Error {
        Error::Damaged(Box::new(Damage::new(what, offset)))
    }

    pub(crate) fn of(mut self, bucket: Option<&str>, key: Option<&str>) -> Self {
        self.bucket = bucket.map(str::to_owned);
        self.key = key.map(str::to_owned);
        self
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {}", self.what, self.offset)?;
        if let Some(bucket) = &self.bucket {
            write!(f, ", bucket {bucket:?}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ", key {key:?}")?;
        }
        Ok(())
    }
}
