//! All commands except `serve`: customer keys, sealed object files, chunked messages, benchmarks;
//! the operation of a store; export and import; certificates.

pub(crate) mod access;
pub(crate) mod bench;
pub(crate) mod bench_disk;
pub(crate) mod bucket;
pub(crate) mod check;
pub(crate) mod chunked;
pub(crate) mod config;
pub(crate) mod export;
pub(crate) mod generate;
pub(crate) mod import;
pub(crate) mod key;
pub(crate) mod operate;
mod plot;
pub(crate) mod sealed;
pub(crate) mod stat;
pub(crate) mod status;
mod stream;
pub(crate) mod tls;
mod transfer;
pub(crate) mod verify;

use std::fmt;
use std::process::ExitCode;

/// The failure of a command. Its text goes to standard error.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Wrong usage: exit code 2.
    Usage(String),
    /// Input that does not authenticate or is malformed: exit code 3.
    Malformed(String),
    /// Damage that remains in the store: exit code 4.
    Damaged(String),
    /// Other failures, such as of files, disks or the network: exit code 1.
    Other(String),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Usage(_) => 2,
            Failure::Malformed(_) => 3,
            Failure::Damaged(_) => 4,
            Failure::Other(_) => 1,
        })
    }

    /// Returns the failure of a file or stream.
    fn io(what: impl fmt::Display, error: std::io::Error) -> Self {
        Failure::Other(format!("{what}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text) | Failure::Malformed(text) | Failure::Damaged(text) | Failure::Other(text) => {
                f.write_str(text)
            }
        }
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Failure::Other(text)
    }
}

/// The result of a command.
pub(crate) type Result<T> = std::result::Result<T, Failure>;
