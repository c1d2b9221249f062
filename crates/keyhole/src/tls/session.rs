//! One TLS connection without its socket: received bytes in, plaintext out, and the other way round.

use std::ops::Range;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{Error, ServerConfig};
use zeroize::Zeroize;

use super::{HELD_MAX, RECORD_PLAIN, RECORD_ROOM};
use crate::buffer::Block;

/// What a record is longer than its plaintext, at most: header, explicit nonce, inner type and tag come to less than 40 bytes.
const RECORD_OVERHEAD: usize = 64;

/// Room besides for what TLS has to say itself: an update of keys, an alert.
const MESSAGES: usize = 512;

/// Takes some of a record's plaintext, from its beginning; how much.
pub(super) type Take<'t> = &'t mut dyn FnMut(&[u8]) -> usize;

pub(super) struct Session {
    connection: UnbufferedServerConnection,
    /// `None` while it is received into.
    incoming: Option<Block>,
    /// What of `incoming` was received and is not processed.
    filled: Range<usize>,
    /// Plaintext that nobody has taken yet, from `held_from` on; what is before it is wiped.
    held: Vec<u8>,
    held_from: usize,
    /// Its first `sendable` bytes are to be sent before anything is awaited.
    outgoing: Vec<u8>,
    sendable: usize,
    /// The peer has said that it sends nothing more.
    is_over: bool,
}

impl Session {
    /// One that awaits a client. `incoming` is for what it sends.
    pub(super) fn new(config: Arc<ServerConfig>, incoming: Block) -> Result<Self, Error> {
        Ok(Session {
            connection: UnbufferedServerConnection::new(config)?,
            incoming: Some(incoming),
            filled: RECORD_ROOM..RECORD_ROOM,
            held: Vec::new(),
            held_from: 0,
            outgoing: Vec::new(),
            sendable: 0,
            is_over: false,
        })
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether the peer has ended its side in good order.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether part of a record, or of a message, was received.
    pub(super) fn is_in_a_record(&self) -> bool {
        !self.filled.is_empty()
    }

    /// Where to receive, for [`received`](Self::received) to give back; `None` where a message is longer than the room for it.
    /// The place is aligned to a page, unless what has begun is longer than a record.
    pub(super) fn room(&mut self) -> Option<(Block, Range<usize>)> {
        let mut incoming = self.incoming.take().expect("one receives at a time");
        let end = incoming.as_ref().len();
        let len = self.filled.len();
        let to = RECORD_ROOM.saturating_sub(len);
        if self.filled.start != to {
            incoming.part(0..self.filled.end.max(to + len)).copy_within(self.filled.clone(), to);
            self.filled = to..to + len;
        }
        (self.filled.end < end).then_some((incoming, self.filled.end..end))
    }

    /// So many bytes were received where [`room`](Self::room) said.
    pub(super) fn received(&mut self, incoming: Block, len: usize) {
        self.incoming = Some(incoming);
        self.filled.end += len;
    }

    /// Works on what was received. Plaintext goes to `take` until it takes no more, and is held from then on; the count of bytes
    /// that it took. What there is to send is in [`sendable`](Self::sendable) afterwards, after an error as well.
    pub(super) fn read(&mut self, take: Take<'_>) -> Result<usize, Error> {
        let mut taken = self.take_held(take);
        while self.held.is_empty() && self.step(take, &mut taken)? {}
        Ok(taken)
    }

    /// Encrypts up to [`SEND_PLAIN`](super::SEND_PLAIN) bytes.
    pub(super) fn encrypt(&mut self, plaintext: &[u8]) -> Result<(), Error> {
        let len = plaintext.len() + plaintext.len().div_ceil(RECORD_PLAIN) * RECORD_OVERHEAD;
        self.write(len, |traffic, to| traffic.encrypt(plaintext, to))
    }

    /// Says that nothing more is sent.
    pub(super) fn close_notify(&mut self) -> Result<(), Error> {
        self.write(RECORD_OVERHEAD, |traffic, to| traffic.queue_close_notify(to))
    }

    /// What there is to send, which counts as sent from now on; for [`sent`](Self::sent) to give back.
    pub(super) fn sendable(&mut self) -> Option<Vec<u8>> {
        if self.sendable == 0 {
            return None;
        }
        self.outgoing.truncate(std::mem::take(&mut self.sendable));
        Some(std::mem::take(&mut self.outgoing))
    }

    /// The memory of what was sent, to be used again. There was only ciphertext in it.
    pub(super) fn sent(&mut self, outgoing: Vec<u8>) {
        self.outgoing = outgoing;
    }

    /// Nothing is sent for now: an idle connection keeps no memory for it.
    pub(super) fn rest(&mut self) {
        self.outgoing = Vec::new();
    }

    fn take_held(&mut self, take: Take<'_>) -> usize {
        if self.held.is_empty() {
            return 0;
        }
        let len = take(&self.held[self.held_from..]);
        self.held[self.held_from..self.held_from + len].zeroize();
        self.held_from += len;
        if self.held_from == self.held.len() {
            self.held = Vec::new();
            self.held_from = 0;
        }
        len
    }

    /// Lets rustls do one thing; whether there may be more to do.
    fn step(&mut self, take: Take<'_>, taken: &mut usize) -> Result<bool, Error> {
        let incoming = self.incoming.as_mut().expect("nobody receives");
        let UnbufferedStatus { mut discard, state, .. } =
            self.connection.process_tls_records(incoming.part(self.filled.clone()));
        let result = match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
                match traffic.next_record() {
                    None => break Ok(true),
                    Some(Err(error)) => break Err(error),
                    Some(Ok(record)) => {
                        discard += record.discard;
                        let len = if self.held.is_empty() { take(record.payload) } else { 0 };
                        *taken += len;
                        hold(&mut self.held, &record.payload[len..]);
                    }
                }
            },
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                append(&mut self.outgoing, &mut self.sendable, MESSAGES, |to| match data.encode(to) {
                    Err(EncodeError::InsufficientSize(short)) => Err(Some(short.required_size)),
                    other => other.map_err(|_| None),
                })
                .map(|()| true)
            }
            // It is sent before anything is awaited.
            Ok(ConnectionState::TransmitTlsData(transmit)) => {
                transmit.done();
                Ok(true)
            }
            Ok(ConnectionState::PeerClosed) => {
                self.is_over = true;
                Ok(true)
            }
            Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) | ConnectionState::Closed) => {
                Ok(false)
            }
            // There is no early data: it is not offered.
            Ok(_) => Err(Error::General("an unknown state".to_owned())),
            Err(error) => Err(error),
        };
        self.discard(discard);
        if result.is_err() {
            self.encode_alerts();
        }
        result
    }

    /// Lets rustls append to what is to be sent: `len` bytes or a little more.
    fn write(
        &mut self,
        len: usize,
        mut encrypt: impl FnMut(
            &mut WriteTraffic<'_, rustls::server::ServerConnectionData>,
            &mut [u8],
        ) -> Result<usize, EncryptError>,
    ) -> Result<(), Error> {
        // What was received meanwhile comes first: it may be an update of keys.
        while self.step(&mut |_| 0, &mut 0)? {}
        let incoming = self.incoming.as_mut().expect("nobody receives");
        let status = self.connection.process_tls_records(incoming.part(self.filled.clone()));
        let discard = status.discard;
        let result = match status.state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                append(&mut self.outgoing, &mut self.sendable, len + MESSAGES, |to| match encrypt(&mut traffic, to) {
                    Err(EncryptError::InsufficientSize(short)) => Err(Some(short.required_size)),
                    other => other.map_err(|_| None),
                })
            }
            Ok(_) => Err(Error::HandshakeNotComplete),
            Err(error) => Err(error),
        };
        self.discard(discard);
        result
    }

    /// Takes `len` bytes off the front of what was received, and wipes them: they were decrypted in place.
    fn discard(&mut self, len: usize) {
        let start = self.filled.start;
        // The memory stays reachable through the pool, so this is no dead store.
        self.incoming.as_mut().expect("nobody receives").part(start..start + len).fill(0);
        self.filled.start += len;
    }

    /// After an error: what the peer is told of it.
    fn encode_alerts(&mut self) {
        while self.connection.wants_write() {
            let incoming = self.incoming.as_mut().expect("nobody receives");
            let status = self.connection.process_tls_records(incoming.part(self.filled.clone()));
            let Ok(ConnectionState::EncodeTlsData(mut data)) = status.state else { return };
            let encoded =
                append(&mut self.outgoing, &mut self.sendable, MESSAGES, |to| data.encode(to).map_err(|_| None));
            if encoded.is_err() {
                return;
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.held.zeroize();
    }
}

/// Appends plaintext to what is held, whose memory never moves: nothing is left behind.
fn hold(held: &mut Vec<u8>, plaintext: &[u8]) {
    if plaintext.is_empty() {
        return;
    }
    if held.capacity() == 0 {
        held.reserve_exact(HELD_MAX);
    }
    assert!(held.len() + plaintext.len() <= held.capacity(), "no more is held than was received");
    held.extend_from_slice(plaintext);
}

/// Has `encode` write behind what is to be sent, with `len` bytes of room; or with more, where it says (`Err(Some(_))`) how much.
fn append(
    outgoing: &mut Vec<u8>,
    sendable: &mut usize,
    len: usize,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> Result<(), Error> {
    let mut room = len;
    for _ in 0..2 {
        if outgoing.len() < *sendable + room {
            outgoing.resize(*sendable + room, 0);
        }
        match encode(&mut outgoing[*sendable..]) {
            Ok(len) => {
                *sendable += len;
                return Ok(());
            }
            Err(Some(needed)) => room = needed,
            Err(None) => break,
        }
    }
    Err(Error::EncryptError)
}
