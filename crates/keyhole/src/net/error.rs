//! Errors of listening sockets.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

/// The reason why the node cannot listen.
#[derive(Error, Debug)]
pub(crate) enum ListenError {
    #[error("{address} is in use by another process; stop it, or give another {option}")]
    InUse { address: SocketAddr, option: String },
    #[error("cannot listen on {address}: {source}")]
    Bind { address: SocketAddr, source: io::Error },

    // Caused by the service manager.
    #[error("invalid LISTEN_FDS or LISTEN_FDNAMES from the service manager: {0}")]
    InvalidEnvironment(io::Error),
    #[error(
        "unknown socket {name:?} from the service manager, expected one of {known}: set FileDescriptorName= in its unit"
    )]
    UnknownSocket { name: String, known: String },
    #[error("two sockets named {0} from the service manager: pass one; [::]:PORT also accepts IPv4")]
    DuplicateSocket(String),
    #[error("socket {name} from the service manager {why}")]
    UnusableSocket { name: String, why: &'static str },
    #[error("cannot share the socket {name}: {source}")]
    Share { name: String, source: io::Error },
    #[error("unused socket {name} from the service manager: the node is not configured for it; set {option}")]
    Unused { name: String, option: &'static str },
}
