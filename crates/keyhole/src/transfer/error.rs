//! Errors of transfers.

use std::io;

use thiserror::Error;

use super::protocol::PATIENCE;
use crate::control::ControlError;
use crate::error::SystemError;
use crate::store::StoreError;

/// The reason why a transfer cannot begin, or has ended early.
#[derive(Error, Debug)]
pub(crate) enum TransferError {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    System(#[from] SystemError),

    // Reported by the node.
    #[error("{0}")]
    Refused(String),
    #[error("unexpected answer from the node: is it of the same version?")]
    UnexpectedReply,

    // Caused by the connection.
    #[error("the node ended before the transfer was complete; see its log, and run the command again")]
    Ended,
    #[error("no answer from the node for {} s; see its log", PATIENCE.as_secs())]
    Timeout,
    #[error("the connection to the store: {0}")]
    Connection(io::Error),
    #[error("the store thread panicked")]
    StorePanicked,
}

impl TransferError {
    /// Returns the error for a connection that fails.
    pub(crate) fn lost(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                TransferError::Ended
            }
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => TransferError::Timeout,
            _ => TransferError::Connection(error),
        }
    }
}
