//! HTTPS: certificates, handshakes and encrypted connections.
//!
//! TLS is rustls with AWS-LC, used without sockets ([`session`]): received bytes go in, bytes to
//! send come out. It therefore runs over io_uring and epoll connections alike ([`stream`]), with
//! their buffers and timeouts. After a handshake of TLS 1.3, the node encrypts and decrypts the records
//! itself ([`records`]), without copies; TLS 1.2 stays with rustls.
//!
//! # Invariants
//! - An operation in flight owns its buffer, and is always awaited.
//! - The memory of a connection is bounded ([`limits`]), and so
//!   is the duration of its handshake.
//! - Buffers of this crate that held plaintext are wiped as it is consumed. Buffers that receive
//!   plaintext are excluded from core dumps.
//! - Only `close_notify` marks the orderly end of a connection by the peer; without it, the end is
//!   accepted only between requests. The node sends `close_notify` only at an orderly end.

mod acceptor;
pub(crate) mod certificate;
mod error;
mod files;
mod limits;
mod material;
mod names;
mod outgoing;
mod records;
mod session;
mod source;
mod stream;

pub(crate) use acceptor::Acceptor;
pub(crate) use error::{CertificateError, TlsError};
pub(crate) use source::{Files, TlsSource};
pub(crate) use stream::TlsStream;
