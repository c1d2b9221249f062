//! Handshakes.

use std::sync::Arc;

use rustls::ServerConfig;
use tokio::sync::watch;

use super::limits::{HANDSHAKE, RECEIVE_LEN};
use super::outgoing::Spare;
use super::session::Session;
use super::stream::TlsStream;
use crate::buffer::Pool;
use crate::net::socket::Socket;
use crate::net::timeouts::{in_time, timed_out};

/// Performs TLS handshakes for one worker.
#[derive(Clone)]
pub(crate) struct Acceptor {
    configs: watch::Receiver<Arc<ServerConfig>>,
    pool: Pool,
    spare: Spare,
}

impl Acceptor {
    /// Returns an acceptor that uses the current value of `configs` for each handshake.
    pub(crate) fn new(configs: watch::Receiver<Arc<ServerConfig>>) -> Self {
        Acceptor { configs, pool: Pool::with_len(RECEIVE_LEN), spare: Spare::default() }
    }

    /// Performs the handshake. Closes the connection and returns `None` if it fails.
    pub(crate) async fn accept<P: Socket>(&self, plain: P) -> Option<TlsStream<P>> {
        let config = self.configs.borrow().clone();
        let session = match Session::new(config, self.pool.take(), self.spare.clone()) {
            Ok(session) => session,
            Err(error) => {
                tracing::error!(%error, "cannot start a TLS session");
                plain.abort();
                return None;
            }
        };
        let stream = TlsStream::new(plain, session);
        let (result, was_in_time) = in_time(HANDSHAKE, stream.handshake(), || stream.abort_plain()).await;
        match timed_out(result, was_in_time) {
            Ok(()) => Some(stream),
            Err(error) => {
                tracing::debug!(peer = %stream.address(), %error, "TLS handshake failed");
                stream.close_plain().await;
                None
            }
        }
    }
}
