//! Errors of the configuration's sources.

use std::path::PathBuf;

use thiserror::Error;

use crate::error::FileError;

/// The reason why the sources cannot be combined. The message names the source.
#[derive(Error, Debug)]
pub(crate) enum ConfigError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("configuration file {} is longer than {max} bytes", path.display())]
    FileTooLong { path: PathBuf, max: u64 },
    #[error("{}: {source}", path.display())]
    Syntax { path: PathBuf, source: Box<toml::de::Error> },
    #[error("{}: {key:?} is accepted on the command line only", path.display())]
    CommandLineOnly { path: PathBuf, key: String },
    #[error("{}: unknown key {key:?}; did you mean {nearest:?}?", path.display())]
    Misspelt { path: PathBuf, key: String, nearest: String },
    #[error(
        "{}: unknown key {key:?}; the keys are the options of `keyhole serve --help`, without --",
        path.display()
    )]
    UnknownKey { path: PathBuf, key: String },
    #[error("{}: {key}: {why}", path.display())]
    FileValue { path: PathBuf, key: String, why: ValueError },
    #[error("{variable}: {why}")]
    EnvironmentValue { variable: String, why: ValueError },
}

/// The reason why a value has the wrong type.
#[derive(Error, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ValueError {
    #[error("expected one value, not a list")]
    List,
    #[error("expected a string, an integer or a boolean")]
    Type,
    #[error("expected true or false")]
    Flag,
}
