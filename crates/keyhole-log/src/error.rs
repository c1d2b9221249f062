//! Errors and damage reports.

use std::fmt;
use std::io;
use std::sync::Arc;

/// An error of the log. Variants are grouped by cause: the request, the operator, the disk.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    // Caused by the request or by the state it met.
    /// The bucket does not exist.
    NoSuchBucket,
    /// The bucket holds objects, or a write into it is in flight.
    BucketNotEmpty,
    /// `IfMatch` on a name that has no object.
    NoSuchKey,
    /// The upload does not exist, or has been completed or aborted in the meantime.
    NoSuchUpload,
    /// A named part is not the current attempt at its number.
    PartChanged,
    /// The version does not exist.
    NoSuchVersion,
    /// The version is a delete marker.
    IsMarker,
    /// The version is locked, by a retention or a legal hold.
    Locked,
    /// The bucket has no object lock, so none of its versions can have a lock.
    NotLockable,
    /// The retention would end at once: its time is not after the lock clock.
    InvalidRetention,
    /// The versioning state or the object lock cannot be changed in this way. Holds the reason.
    InvalidBucketState(&'static str),
    /// The bytes of the object are evicted: another store has them.
    Evicted,
    /// The name already has a version of this id.
    VersionExists,
    /// The precondition does not hold.
    ConditionFailed,
    /// The outcome depends on another write that is still in flight. The request can be retried.
    Conflict,
    /// The write would exceed the bucket's quota.
    QuotaExceeded,
    /// The index has no room for a new name: its limit of memory or of objects is reached.
    IndexFull,
    /// A value is longer than its limit in [`limits`](crate::limits). Holds the name of the value.
    TooLarge(&'static str),
    // Caused by the configuration or by the file.
    /// The file is not an object file. Holds its apparent type.
    Foreign(&'static str),
    /// The file has an unsupported format version.
    UnsupportedVersion {
        /// Version of the file.
        found: u32,
        /// Version that this program reads and writes.
        supported: u32,
    },
    /// Capacity, segment length and number of workers do not fit together.
    Capacity(String),
    // Caused by the disk.
    /// The object file has reached its capacity, or the file system is full.
    Full,
    /// The file system has no space to finish a write, nor to revoke it. The write
    /// takes effect only if the process or the machine crashes before space is freed.
    /// The request can be retried.
    InDoubt,
    /// The disk failed.
    Io(Arc<io::Error>),
    /// An earlier write or sync failed. The log accepts no more writes until it
    /// is reopened; reads go on.
    Poisoned,
    /// The log is open read-only. Holds the reason. Reads go on.
    ReadOnly(Arc<str>),
    /// The [`Writer`](crate::Writer) of this worker has ended.
    Closed,
    /// The data read does not verify.
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
            Error::NoSuchVersion => f.write_str("no such version"),
            Error::IsMarker => f.write_str("the version is a delete marker"),
            Error::Locked => f.write_str("the version is locked"),
            Error::NotLockable => f.write_str("the bucket has no object lock"),
            Error::InvalidRetention => f.write_str("the retention ends in the past of the lock clock"),
            Error::InvalidBucketState(why) => f.write_str(why),
            Error::Evicted => f.write_str("the bytes of the object are not in this store"),
            Error::VersionExists => f.write_str("the object already has a version of this id"),
            Error::ConditionFailed => f.write_str("the condition does not hold"),
            Error::Conflict => {
                f.write_str("another write of the same key, or change of the same bucket, is in progress")
            }
            Error::QuotaExceeded => f.write_str("the quota of the bucket is exceeded"),
            Error::IndexFull => f.write_str("the index is full: delete objects, or raise its limits"),
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

/// The first failed write, sync, allocation or discard, which poisoned the log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedWrite {
    /// The operation that failed: "a write", "a sync".
    pub what: &'static str,
    /// Offset in the file, if known.
    pub offset: Option<u64>,
    /// The error text of the disk.
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

/// Data on disk that does not verify although it was durable.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The kind of data and its defect.
    pub what: &'static str,
    /// Offset in the file.
    pub offset: u64,
    /// The bucket it belongs to, if known.
    pub bucket: Option<String>,
    /// The key of the object, if known.
    pub key: Option<String>,
    /// Whether the contents are known from elsewhere, so that the data can be rewritten.
    pub repairable: bool,
}

/// Description of a range that the medium cannot return.
pub(crate) const UNREADABLE: &str = "unreadable sectors";

/// Description of a lost object: only its name is known.
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
