//! Clients' connections: listeners, sockets with timeouts, and TLS over them.

pub(crate) mod activation;
mod connection;
mod error;
mod listener;
mod socket;
mod timeouts;
pub(crate) mod tls;

pub(crate) use connection::Connection;
pub(crate) use error::ListenError;
pub(crate) use listener::{Accept, Listener, SharedListener, listen};
pub(crate) use socket::{LINGER, Socket, discard_rest, has_pending_bytes, unsent};
pub(crate) use timeouts::{CONNECTIONS_MAX, ConnectionState, Connections, Supervised, in_time};
