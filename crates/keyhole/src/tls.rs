//! HTTPS: certificates, the handshake, and connections that encrypt.
//!
//! TLS is rustls's, with AWS-LC, and knows nothing of sockets ([`session`]): received bytes go in, bytes to send come out. So it runs
//! over a connection of the ring as over one of epoll ([`stream`]), with their buffers and their time-outs.
//!
//! # Invariants
//! - An operation in flight owns its buffer, and is awaited.
//! - What a connection holds is bounded ([`RECEIVE_LEN`], [`HELD_MAX`], [`SEND_PLAIN`]), and so is the time of its handshake.
//! - Our buffers that held plaintext are wiped as it is taken, and left out of core dumps where it is received.
//! - The end of a connection is the peer's only with `close_notify`; without it only where nothing was under way. We say
//!   `close_notify` where we end in good order, and nowhere else.

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

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Room for one record as it comes: a header of 5 bytes, 16 KiB, and up to 2 KiB of overhead; whole pages.
const RECORD_ROOM: usize = 20 * 1024;

/// Bytes that a connection receives into: what is left of a record that has begun, and four whole ones. A message of the handshake
/// has to fit.
const RECEIVE_LEN: usize = RECORD_ROOM + 68 * 1024;

/// Plaintext that a connection may hold until it is asked for: what is left of one record, and all that was received besides.
const HELD_MAX: usize = RECEIVE_LEN + RECORD_PLAIN;

/// The most plaintext in one record.
const RECORD_PLAIN: usize = 16 * 1024;

/// Bytes that are encrypted, and sent, at a time: four records.
const SEND_PLAIN: usize = 4 * RECORD_PLAIN;

/// Sessions that clients without tickets may resume, of all workers together; the oldest are forgotten. (What is in a ticket the
/// client keeps.)
const SESSIONS_MAX: usize = 256;

/// Certificates of the node, each with its key.
const PAIRS_MAX: usize = 64;

/// Bytes of a certificate with those that it was signed by. What has more is no chain, but a bundle of authorities.
const CHAIN_MAX: usize = 32 * 1024;

/// Bytes of the names of authorities that are told to clients who are asked for a certificate; if there were more, none is told, and
/// the client has to know by itself.
const HINTS_MAX: usize = 16 * 1024;

/// The only protocol spoken here.
const ALPN: &[u8] = b"http/1.1";

/// Makes connections TLS connections, for one worker.
#[derive(Clone)]
pub(crate) struct Acceptor {
    configs: watch::Receiver<Arc<ServerConfig>>,
    pool: Pool,
    spare: Spare,
}

impl Acceptor {
    /// With what there is to say to clients, at any time.
    pub(crate) fn new(configs: watch::Receiver<Arc<ServerConfig>>) -> Self {
        Acceptor { configs, pool: Pool::of(RECEIVE_LEN), spare: Spare::default() }
    }

    /// Shakes hands. Where nothing comes of it the connection has been ended.
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
