//! Limits of TLS connections and of their configuration.

use std::time::Duration;

/// Timeout of a handshake.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);

/// Maximum length of a record on the wire: a header of 5 bytes, 16 KiB, and up to 2 KiB of
/// overhead; rounded up to whole pages.
pub(super) const RECORD_ROOM: usize = 20 * 1024;

/// Length of a connection's receive buffer: the rest of a record that has begun, and four whole
/// records. A handshake message has to fit.
pub(super) const RECEIVE_LEN: usize = RECORD_ROOM + 68 * 1024;

/// Limit of decrypted plaintext that a connection holds: the rest of one record, and everything
/// else that was received.
pub(super) const HELD_MAX: usize = RECEIVE_LEN + RECORD_PLAIN;

/// Maximum plaintext of one record.
pub(super) const RECORD_PLAIN: usize = 16 * 1024;

/// Limit of a peer's key updates without application data in between.
pub(super) const KEY_UPDATES_MAX: usize = 32;

/// Plaintext that is encrypted and sent at a time: four records.
pub(super) const SEND_PLAIN: usize = 4 * RECORD_PLAIN;

/// Limit of resumable sessions of clients without tickets, for all workers together; the oldest are
/// dropped. (The client stores the state of a ticket.)
pub(super) const SESSIONS_MAX: usize = 256;

/// Limit of certificate and key pairs.
pub(super) const PAIRS_MAX: usize = 64;

/// Limit of a certificate chain in bytes. A longer file is not a chain but a bundle of authorities.
pub(super) const CHAIN_MAX: usize = 32 * 1024;

/// Limit of the authorities' names in a certificate request, in bytes. With more, the request has
/// no names, and the client has to select its certificate itself.
pub(super) const HINTS_MAX: usize = 16 * 1024;

/// The only supported protocol.
pub(super) const ALPN: &[u8] = b"http/1.1";
