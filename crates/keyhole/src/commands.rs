//! All commands except `serve`: customer keys, sealed object files, chunked messages, benchmarks;
//! the operation of a store; export and import; certificates.

pub(crate) mod access;
pub(crate) mod bench;
pub(crate) mod bench_disk;
pub(crate) mod bucket;
pub(crate) mod check;
pub(crate) mod chunked;
pub(crate) mod clock;
pub(crate) mod config;
pub(crate) mod export;
pub(crate) mod generate;
pub(crate) mod import;
pub(crate) mod key;
pub(crate) mod operate;
pub(crate) mod remote;
pub(crate) mod sealed;
pub(crate) mod stat;
pub(crate) mod status;
mod stream;
pub(crate) mod tls;
mod transfer;
pub(crate) mod verify;

use std::process::ExitCode;
use std::{fmt, io};

use thiserror::Error;

use crate::access::AccessError;
use crate::control::ControlError;
use crate::error::{FileError, SystemError};
use crate::net::tls::CertificateError;
use crate::remote::RemoteError;
use crate::serve::ServeError;
use crate::store::StoreError;
use crate::transfer::TransferError;

/// The failure of a command. Its text goes to standard error.
#[derive(Error, Debug)]
pub(crate) enum CommandError {
    /// Wrong usage: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Input that does not authenticate or is malformed: exit code 3.
    #[error("{0}")]
    Malformed(String),
    /// Damage that remains in the store: exit code 4.
    #[error("{0}")]
    Damaged(String),
    // Other failures, such as of files, disks or the network: exit code 1.
    #[error("{0}")]
    Other(String),
    #[error("{action}: {source}")]
    Io { action: String, source: io::Error },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    System(#[from] SystemError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl CommandError {
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            CommandError::Usage(_) => 2,
            CommandError::Malformed(_) => 3,
            CommandError::Damaged(_) => 4,
            _ => 1,
        })
    }

    /// Returns the failure of a file or stream.
    fn io(action: impl fmt::Display, source: io::Error) -> Self {
        CommandError::Io { action: action.to_string(), source }
    }
}

/// The result of a command.
pub(crate) type Result<T> = std::result::Result<T, CommandError>;
