//! Errors of a node at its start.

use std::io;

use keyhole_core::suite;
use keyhole_node::limits::TRUSTED_PROXIES_MAX;
use thiserror::Error;

use crate::access::AccessError;
use crate::audit::AuditError;
use crate::error::SystemError;
use crate::memory::BudgetError;
use crate::net::ListenError;
use crate::net::tls::TlsError;
use crate::remote::RemoteError;
use crate::store::StoreError;

/// The reason why a node cannot serve.
#[derive(Error, Debug)]
pub(crate) enum ServeError {
    #[error(transparent)]
    System(#[from] SystemError),
    #[error(transparent)]
    Budget(#[from] BudgetError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Audit(#[from] AuditError),

    #[error("the system refuses io_uring ({0}); allow it, or use --io epoll")]
    NoUring(io::Error),
    #[error("the engine failed its self-test: {0}; try another --engine")]
    SelfTest(suite::Failure),
    #[error("the portable engine failed its self-test: {0}")]
    PortableSelfTest(suite::Failure),
    #[error("more than {} --trusted-proxy options: use networks instead of addresses", TRUSTED_PROXIES_MAX)]
    TooManyProxies,
    #[error("cannot run a worker: {0}")]
    Worker(io::Error),
    #[error("a worker panicked; see the log")]
    WorkerPanicked,
}
