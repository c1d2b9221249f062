//! Errors of the command's end of the control socket.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::PATIENCE;

/// The reason why a node does not answer.
#[derive(Error, Debug)]
pub(crate) enum ControlError {
    #[error("cannot reach the node at {}: {source}; run as the node's user, or as root", socket.display())]
    Permission { socket: PathBuf, source: io::Error },
    #[error("cannot reach the node at {}: {source}", socket.display())]
    Unreachable { socket: PathBuf, source: io::Error },
    #[error("the node ended before it answered; see its log")]
    Ended,
    #[error("no answer from the node for {} s; see its log", PATIENCE.as_secs())]
    Timeout,
    #[error("invalid answer from the node: {0}")]
    Invalid(io::Error),
}
