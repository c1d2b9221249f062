//! Errors of the descriptions in an export.

use keyhole_core::head::HeadError;
use thiserror::Error;

/// The reason why the description of a bucket or an object is invalid.
#[derive(Error, Clone, PartialEq, Eq, Debug)]
pub(crate) enum EntryError {
    #[error("{0} is not base64")]
    Base64(&'static str),
    #[error("the policy or the lifecycle rules of a bucket are damaged, or of a later version")]
    Settings,
    #[error("a time after the year 9999")]
    Time,
    #[error("invalid version id {0:?}: expected 32 lower-case hex digits, or null")]
    Version(String),
    #[error("the key is empty or too long, or the bucket name is invalid")]
    Name,
    #[error("a retention needs a mode and an end")]
    Retention,
    #[error("a lock with neither a retention nor a legal hold")]
    EmptyLock,
    #[error("a default retention needs a mode, and 1 to 36500 days or 1 to 100 years")]
    DefaultRetention,
    #[error("object lock requires versioning to be enabled")]
    ObjectLock,
    #[error("only a version has a retention or a legal hold")]
    LockWithoutVersion,
    #[error("a version in a bucket without versioning")]
    NotVersioned,
    #[error("an object without a version id in a bucket with versioning")]
    VersionMissing,
    #[error("a retention or a legal hold in a bucket without object lock")]
    NotLockable,
    #[error("a key out of order: those of a bucket with versioning ascend, and the versions of a key are consecutive")]
    Order,
    #[error("the key has a version of this id already")]
    Duplicate,
    #[error("not a SHA-256 in lower-case hex")]
    Sha256,
    #[error("{0:?} is not the place of an object's file")]
    FileName(String),
    #[error("its file has the name of another kind")]
    FileKind,
    #[error("its file is not as long as it is")]
    FileLength,
    #[error("invalid ETag")]
    Etag,
    #[error("its tags: {0}")]
    Tags(String),
    #[error("expected a description for plaintext objects, and none for sealed objects")]
    Plain,
    #[error("its head: {0}")]
    Head(HeadError),
    #[error("unknown stored header {0:?}")]
    UnknownHeader(String),
    #[error("invalid description of a part: {0}")]
    Part(HeadError),
    #[error("invalid ETag of a part")]
    PartEtag,
    #[error("unknown checksum algorithm {0:?}")]
    UnknownAlgorithm(String),
    #[error("unknown checksum type {0:?}")]
    UnknownChecksumType(String),
    #[error("a checksum: {0}")]
    Checksum(HeadError),
    #[error("{0}")]
    Description(String),
}

/// The reason why a line of the manifest is invalid.
#[derive(Error, Debug)]
pub(crate) enum LineError {
    #[error("it is damaged")]
    Damaged,
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("unsupported export version {found}: this program reads versions 1 to {expected}")]
    Version { found: u32, expected: u32 },
    #[error("it has content of version {found} in an export of version {expected}")]
    NewerContent { found: u32, expected: u32 },
}
