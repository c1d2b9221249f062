//! HTTPS: certificates, handshakes and encrypted connections.
//!
//! TLS is rustls with AWS-LC, used without sockets ([`session`]): received bytes go in, bytes to
//! send come out. It therefore runs over io_uring and epoll connections alike ([`stream`]), with
//! their buffers and timeouts.
//!
//! # Invariants
//! - An operation in flight owns its buffer, and is always awaited.
//! - The memory of a connection is bounded ([`RECEIVE_LEN`], [`HELD_MAX`], [`SEND_PLAIN`]), and so
//!   is the duration of its handshake.
//! - Buffers of this crate that held plaintext are wiped as it is consumed. Buffers that receive
//!   plaintext are excluded from core dumps.
//! - Only `close_notify` marks the orderly end of a connection by the peer; without it, the end is
//!   accepted only between requests. The node sends `close_notify` only at an orderly end.

pub(crate) mod certificate;
mod files;
mod material;
mod names;
mod session;
mod source;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::sync::watch;

use crate::buffer::Pool;
use crate::worker::{Socket, in_time, timed_out};
use session::{Session, Spare};
pub(crate) use source::{Files, Source};
pub(crate) use stream::TlsStream;

/// Timeout of a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Maximum length of a record on the wire: a header of 5 bytes, 16 KiB, and up to 2 KiB of
/// overhead; rounded up to whole pages.
const RECORD_ROOM: usize = 20 * 1024;

/// Length of a connection's receive buffer: the rest of a record that has begun, and four whole
/// records. A handshake message has to fit.
const RECEIVE_LEN: usize = RECORD_ROOM + 68 * 1024;

/// Limit of decrypted plaintext that a connection holds: the rest of one record, and everything
/// else that was received.
const HELD_MAX: usize = RECEIVE_LEN + RECORD_PLAIN;

/// Maximum plaintext of one record.
const RECORD_PLAIN: usize = 16 * 1024;

/// Plaintext that is encrypted and sent at a time: four records.
const SEND_PLAIN: usize = 4 * RECORD_PLAIN;

/// Limit of resumable sessions of clients without tickets, for all workers together; the oldest are
/// dropped. (The client stores the state of a ticket.)
const SESSIONS_MAX: usize = 256;

/// Limit of certificate and key pairs.
const PAIRS_MAX: usize = 64;

/// Limit of a certificate chain in bytes. A longer file is not a chain but a bundle of authorities.
const CHAIN_MAX: usize = 32 * 1024;

/// Limit of the authorities' names in a certificate request, in bytes. With more, the request has
/// no names, and the client has to select its certificate itself.
const HINTS_MAX: usize = 16 * 1024;

/// The only supported protocol.
const ALPN: &[u8] = b"http/1.1";

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
        Acceptor { configs, pool: Pool::of(RECEIVE_LEN), spare: Spare::default() }
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
        let (result, was_in_time) = in_time(HANDSHAKE, stream.shake_hands(), || stream.end_at_once()).await;
        match timed_out(result, was_in_time) {
            Ok(()) => Some(stream),
            Err(error) => {
                tracing::debug!(peer = %stream.address(), %error, "TLS handshake failed");
                stream.end_without_a_word().await;
                None
            }
        }
    }
}
