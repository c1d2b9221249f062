//! Errors of remotes.

use std::path::PathBuf;

use thiserror::Error;

use super::limits::{
    BUCKET_MAX, BUCKET_MIN, CREDENTIAL_MAX, KEY_PREFIX_MAX, NAME_MAX, PREFIX_MAX, REGION_MAX, SOURCES_MAX, URL_MAX,
};
use crate::error::FileError;

/// The reason why remotes cannot be loaded, changed or used.
#[derive(Error, Debug)]
pub(crate) enum RemoteError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("remotes file {} is longer than {max} bytes: remove remotes or source patterns", path.display())]
    FileTooLong { path: PathBuf, max: u64 },
    #[error("invalid remotes file {}: {source}; correct it, or remove it and add the remotes again", path.display())]
    InvalidFile { path: PathBuf, source: serde_json::Error },
    #[error("remotes file {}: {source}", path.display())]
    InFile { path: PathBuf, source: Box<RemoteError> },

    // Caused by the set of remotes.
    #[error("too many remotes ({count}): the limit is {max}")]
    TooMany { count: usize, max: usize },
    #[error("duplicate remote `{0}`: choose another name, or remove the existing one first")]
    Duplicate(String),
    #[error("remotes `{one}` and `{other}` share names in bucket `{bucket}`: give one of them another --prefix")]
    Overlap { one: String, other: String, bucket: String },

    // Caused by a remote.
    #[error("remote `{name}`: {source}")]
    Invalid { name: String, source: ConfigError },
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error("no certificate in {}: expected certificates of authorities in PEM", .0.display())]
    NoAuthority(PathBuf),
    #[error("invalid certificate in {}: {reason}", path.display())]
    InvalidAuthority { path: PathBuf, reason: String },
    #[error("no certificates of authorities on this system: install ca-certificates, or give --ca FILE")]
    NoSystemAuthorities,
    #[error("cannot set up the client: {0}")]
    Setup(String),
}

/// The reason why a setting of a remote is invalid.
#[derive(Error, Clone, PartialEq, Eq, Debug)]
pub(crate) enum ConfigError {
    #[error("invalid name `{0}`: expected 1 to {NAME_MAX} lower-case letters, digits and hyphens")]
    Name(String),
    #[error("invalid URL `{0}`: expected https://HOST[:PORT] with up to {URL_MAX} characters, without path and user")]
    Url(String),
    #[error("URL `{0}` is not encrypted: use https://, or --insecure-http if the network is trusted")]
    InsecureUrl(String),
    #[error("invalid bucket `{0}`: expected {BUCKET_MIN} to {BUCKET_MAX} lower-case letters, digits, hyphens and dots")]
    Bucket(String),
    #[error(
        "invalid prefix `{0}`: expected names with / in between, up to {PREFIX_MAX} bytes, none of them empty, . or .., \
         without control characters"
    )]
    Prefix(String),
    #[error("invalid region `{0}`: expected 1 to {REGION_MAX} letters, digits, hyphens and underscores")]
    Region(String),
    #[error("no source: give --source PATTERN, such as photos, photos/2026/* or *")]
    NoSource,
    #[error("too many source patterns ({0}): the limit is {SOURCES_MAX}; end patterns in * to match more")]
    TooManySources(usize),
    #[error(
        "invalid source `{0}`: expected BUCKET or BUCKET/PREFIX, with * at the end only, and a prefix of up to \
         {KEY_PREFIX_MAX} bytes without control characters, such as photos, photos*, photos/2026/* or *"
    )]
    Source(String),
    #[error("invalid rate 0: set it above 0, or leave --rate out")]
    Rate,
    #[error("invalid window `{0}`: expected two different times in UTC, such as 22:00-06:00")]
    Window(String),
    #[error("path {} is relative: expected an absolute path", .0.display())]
    RelativePath(PathBuf),
}

/// The reason why credentials cannot be loaded.
#[derive(Error, Debug)]
pub(crate) enum CredentialsError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("credentials file {} is open to other users (mode {mode:03o}): run chmod 600 on it", path.display())]
    Mode { path: PathBuf, mode: u32 },
    #[error("credentials file {} is longer than {max} bytes", path.display())]
    TooLong { path: PathBuf, max: u64 },
    #[error("credentials file {}, line {line}: {reason}", path.display())]
    Line { path: PathBuf, line: usize, reason: &'static str },
    #[error("no profile [{profile}] in {}: add it, or set AWS_PROFILE", path.display())]
    NoProfile { path: PathBuf, profile: String },
    #[error("profile [{profile}] in {} lacks {field}", path.display())]
    NoField { path: PathBuf, profile: String, field: &'static str },
    #[error("invalid {field} in {origin}: expected 1 to {CREDENTIAL_MAX} visible ASCII characters")]
    Invalid { origin: String, field: &'static str },
    #[error("partial credential: set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or neither")]
    Partial,
    #[error(
        "no credentials: give --credentials FILE, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or create \
         ~/.aws/credentials"
    )]
    None,
}
