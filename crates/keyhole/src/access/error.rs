//! Errors of access keys and grants.

use std::path::PathBuf;

use thiserror::Error;

use super::limits::{ACCESS_KEY_MAX, ACCESS_KEY_MIN, SECRET_KEY_MAX, SECRET_KEY_MIN};
use crate::error::FileError;

/// The reason why access keys cannot be loaded or changed.
#[derive(Error, Debug)]
pub(crate) enum AccessError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}: {source}", path.display())]
    InFile { path: PathBuf, source: Box<AccessError> },

    // Caused by the environment.
    #[error(
        "no access keys in {}, and none are created for a read-only store: set KEYHOLE_ACCESS_KEY and \
         KEYHOLE_SECRET_KEY, or --state DIR with the keys in it",
        .0.display()
    )]
    NoKeys(PathBuf),
    #[error("invalid credential in the environment: {0}")]
    InvalidEnvironment(KeyPairError),
    #[error("partial credential: set both KEYHOLE_ACCESS_KEY and KEYHOLE_SECRET_KEY, or neither")]
    PartialEnvironment,

    // Caused by the file.
    #[error("access key file {} is longer than {max} bytes", path.display())]
    FileTooLong { path: PathBuf, max: u64 },
    #[error(
        "invalid access key file{place}: expected [[key]] with access_key, secret_key, grants, and optionally note, \
         created, expires"
    )]
    InvalidFile { place: String },
    #[error("too many access keys ({count}): the limit is {max}")]
    TooManyKeys { count: usize, max: usize },
    #[error("access key {id:?}: {source}")]
    InvalidKey { id: String, source: KeyPairError },
    #[error("access key {id} has {count} grants: the limit is {max}")]
    TooManyGrants { id: String, count: usize, max: usize },
    #[error("duplicate access key {0}")]
    Duplicate(String),
}

/// The reason why an access key or its secret is invalid.
#[derive(Error, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum KeyPairError {
    #[error(
        "invalid access key: expected {} to {} visible ASCII characters without / , =",
        ACCESS_KEY_MIN,
        ACCESS_KEY_MAX
    )]
    AccessKey,
    #[error("invalid secret key: expected {} to {} bytes", SECRET_KEY_MIN, SECRET_KEY_MAX)]
    SecretKey,
}

/// The reason why a grant cannot be parsed.
#[derive(Error, Clone, PartialEq, Eq, Debug)]
pub(crate) enum GrantError {
    #[error("invalid grant {0:?}: {form}", form = GRANT_FORM)]
    Form(String),
    #[error("{0}: {form}", form = GRANT_FORM)]
    Bucket(PatternError),
    #[error("{0}")]
    Right(String),
}

const GRANT_FORM: &str = "expected BUCKET[/PREFIX]:RIGHT[,RIGHT...], such as photos/2026/:read,list or *:admin";

/// The reason why a text is no bucket name or prefix of names.
#[derive(Error, Clone, PartialEq, Eq, Debug)]
#[error("invalid bucket {0:?}: expected a bucket name, or the start of names followed by *")]
pub(crate) struct PatternError(pub(super) String);
