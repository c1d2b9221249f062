//! A TLS connection without a socket: received bytes in, plaintext out, and in reverse.

use std::ops::Range;
use std::sync::Arc;

use keyhole_s3::wipe::wipe;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{Error, ServerConfig};
use zeroize::Zeroize;

use super::limits::{HELD_MAX, RECORD_PLAIN, RECORD_ROOM};
use super::outgoing::{MESSAGES, Outgoing, RECORD_OVERHEAD, Spare};
use super::records::{HEADER_LEN, Received, Records};

/// Alignment of a long receive.
const RECEIVE_ALIGN: usize = 64;
use crate::buffer::Buffer;

/// Consumes plaintext of a record from its beginning; returns the count of bytes.
pub(super) type Take<'t> = &'t mut dyn FnMut(&[u8]) -> usize;

/// The protocol of the records.
enum Layer {
    /// rustls, which performs the handshake, and all of TLS 1.2. Boxed because it is large and most
    /// connections leave it behind.
    Rustls(Box<UnbufferedServerConnection>),
    /// The node's own record layer, for TLS 1.3 after the handshake.
    Records(Box<Records>),
    /// The handover has failed.
    Broken,
}

pub(super) struct Session {
    layer: Layer,
    /// `None` while it receives.
    incoming: Option<Buffer>,
    /// The range of `incoming` that was received and not processed.
    filled: Range<usize>,
    /// Bytes of `filled` that rustls may look at during the handshake: it gets one record at a time, so
    /// that nothing of what follows the handshake is processed before the handover.
    shown: usize,
    /// Plaintext not consumed yet, from `held_from` on; bytes before it are wiped.
    held: Vec<u8>,
    held_from: usize,
    outgoing: Outgoing,
    /// The peer has sent `close_notify`.
    is_over: bool,
}

impl Session {
    /// Starts a session that awaits a client. `incoming` is the receive buffer, `spare` the pool of
    /// send buffers.
    pub(super) fn new(config: Arc<ServerConfig>, incoming: Buffer, spare: Spare) -> Result<Self, Error> {
        Ok(Session {
            layer: Layer::Rustls(Box::new(UnbufferedServerConnection::new(config)?)),
            incoming: Some(incoming),
            filled: RECORD_ROOM..RECORD_ROOM,
            shown: 0,
            held: Vec::new(),
            held_from: 0,
            outgoing: Outgoing::new(spare),
            is_over: false,
        })
    }

    pub(super) fn is_handshaking(&self) -> bool {
        matches!(&self.layer, Layer::Rustls(connection) if connection.is_handshaking())
    }

    /// Returns whether the peer has ended its side with `close_notify`.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Returns whether part of a record or message was received.
    pub(super) fn is_in_a_record(&self) -> bool {
        !self.filled.is_empty()
    }

    /// Returns the buffer and range to receive into; pass it to [`received`](Self::received).
    /// `None` if a message exceeds the buffer. The range is page-aligned unless the pending data
    /// exceeds a record.
    pub(super) fn room(&mut self) -> Option<(Buffer, Range<usize>)> {
        let mut incoming = self.incoming.take().expect("no receive is in flight");
        let end = incoming.as_ref().len();
        let len = self.filled.len();
        let to = RECORD_ROOM.saturating_sub(len);
        if self.filled.start != to {
            incoming.slice_mut(0..self.filled.end.max(to + len)).copy_within(self.filled.clone(), to);
            self.filled = to..to + len;
        }
        (self.filled.end < end).then_some((incoming, self.filled.end..end))
    }

    /// Returns the buffer of [`room`](Self::room) with `len` bytes received.
    pub(super) fn received(&mut self, incoming: Buffer, len: usize) {
        self.incoming = Some(incoming);
        self.filled.end += len;
    }

    /// Processes received bytes. Passes plaintext to `take` until `take` refuses some, and holds
    /// the rest; returns the count of bytes taken. Afterwards, even on an error,
    /// [`sendable`](Self::sendable) has the bytes to send.
    pub(super) fn read(&mut self, take: Take<'_>) -> Result<usize, Error> {
        let mut taken = self.take_held(take);
        while self.held.is_empty() && self.step(take, &mut taken)? {}
        self.answer_update()?;
        Ok(taken)
    }

    /// Moves what was received of a record to `buf[at]`, where the rest of it and further records can be
    /// received. Returns the range of the received bytes, to be extended by what arrives, and passed to
    /// [`read_in_place`](Self::read_in_place). `None` if plaintext or a whole record is there already,
    /// or if the records are those of rustls.
    pub(super) fn begin_in_place(&mut self, buf: &mut Buffer, at: &Range<usize>) -> Option<Range<usize>> {
        if !matches!(self.layer, Layer::Records(_)) || self.is_over {
            return None;
        }
        let incoming = self.incoming.as_mut()?;
        let received = &incoming.as_ref()[self.filled.clone()];
        if !self.held.is_empty() || begins_with_record(received) {
            return None;
        }
        // The rest is received at an aligned place, which costs the kernel less.
        let end = (at.start + received.len()).next_multiple_of(RECEIVE_ALIGN);
        if at.end < end + RECORD_ROOM {
            return None;
        }
        let start = end - received.len();
        buf.slice_mut(start..end).copy_from_slice(received);
        self.filled = RECORD_ROOM..RECORD_ROOM;
        Some(start..end)
    }

    /// Decrypts the records of `buf[received]` in place, moves their plaintext to `to`, which is not after
    /// them, and keeps the beginning of an incomplete record. Returns the length of the plaintext.
    /// Afterwards, even on an error, [`sendable`](Self::sendable) has the bytes to send, and
    /// `buf` has no other plaintext than that.
    pub(super) fn read_in_place(
        &mut self,
        buf: &mut Buffer,
        received: Range<usize>,
        to: usize,
    ) -> Result<usize, Error> {
        let Layer::Records(records) = &mut self.layer else { return Err(Error::HandshakeNotComplete) };
        let bytes = buf.slice_mut(to..received.end);
        let mut from = received.start - to;
        let mut len = 0;
        let result = loop {
            match records.open(&mut bytes[from..]) {
                Ok(Received::Incomplete) => break Ok(()),
                Ok(Received::Record { len: record_len, plaintext }) => {
                    let count = plaintext.len();
                    bytes.copy_within(from + plaintext.start..from + plaintext.end, len);
                    len += count;
                    from += record_len;
                }
                Ok(Received::Closed { len: record_len }) => {
                    self.is_over = true;
                    from += record_len;
                    break Ok(());
                }
                Err(error) => break Err(error),
            }
        };
        // Where the last records were decrypted.
        bytes[len..from].fill(0);
        match result {
            Ok(()) if self.is_over => {}
            Ok(()) => self.keep(&bytes[from..]),
            Err(error) => {
                self.queue_alert(&error);
                return Err(error);
            }
        }
        self.answer_update()?;
        Ok(len)
    }

    /// Keeps received bytes for the next [`read`](Self::read): the beginning of a record.
    pub(super) fn keep(&mut self, received: &[u8]) {
        let incoming = self.incoming.as_mut().expect("no receive is in flight");
        let at = RECORD_ROOM - received.len()..RECORD_ROOM;
        incoming.slice_mut(at.clone()).copy_from_slice(received);
        self.filled = at;
    }

    /// Encrypts up to [`SEND_PLAIN`](super::limits::SEND_PLAIN) bytes.
    pub(super) fn encrypt(&mut self, plaintext: &[u8]) -> Result<(), Error> {
        if let Layer::Records(records) = &mut self.layer {
            let len = records.sealed_len(plaintext.len());
            return append_records(&mut self.outgoing, len, |to| records.seal(plaintext, to));
        }
        let len = plaintext.len() + plaintext.len().div_ceil(RECORD_PLAIN) * RECORD_OVERHEAD;
        self.write(len, |traffic, to| traffic.encrypt(plaintext, to))
    }

    /// Queues a `close_notify`.
    pub(super) fn close_notify(&mut self) -> Result<(), Error> {
        if let Layer::Records(records) = &mut self.layer {
            return append_records(&mut self.outgoing, MESSAGES, |to| records.seal_close_notify(to));
        }
        self.write(RECORD_OVERHEAD, |traffic, to| traffic.queue_close_notify(to))
    }

    /// Takes the bytes to send, which count as sent from then on; return the buffer to
    /// [`sent`](Self::sent).
    pub(super) fn sendable(&mut self) -> Option<Vec<u8>> {
        self.outgoing.take()
    }

    /// Returns the send buffer for reuse.
    pub(super) fn sent(&mut self, outgoing: Vec<u8>) {
        self.outgoing.put_back(outgoing);
    }

    /// Returns the send buffer to the pool: an idle connection keeps none.
    pub(super) fn rest(&mut self) {
        self.outgoing.rest();
    }

    fn take_held(&mut self, take: Take<'_>) -> usize {
        if self.held.is_empty() {
            return 0;
        }
        let len = take(&self.held[self.held_from..]);
        wipe(&mut self.held[self.held_from..self.held_from + len]);
        self.held_from += len;
        if self.held_from == self.held.len() {
            self.held = Vec::new();
            self.held_from = 0;
        }
        len
    }

    /// Processes a record, or advances the handshake; returns whether more may follow.
    fn step(&mut self, take: Take<'_>, taken: &mut usize) -> Result<bool, Error> {
        match &mut self.layer {
            Layer::Rustls(_) => self.step_rustls(take, taken),
            Layer::Records(_) => self.step_records(take, taken),
            Layer::Broken => Err(Error::HandshakeNotComplete),
        }
    }

    /// Processes the next record.
    fn step_records(&mut self, take: Take<'_>, taken: &mut usize) -> Result<bool, Error> {
        let Layer::Records(records) = &mut self.layer else { return Ok(false) };
        if self.is_over {
            return Ok(false);
        }
        let incoming = self.incoming.as_mut().expect("no receive is in flight").slice_mut(self.filled.clone());
        match records.open(incoming) {
            Ok(Received::Incomplete) => Ok(false),
            Ok(Received::Record { len, plaintext }) => {
                let plaintext = &incoming[plaintext];
                let count = take(plaintext);
                *taken += count;
                hold(&mut self.held, &plaintext[count..]);
                self.discard(len);
                Ok(true)
            }
            Ok(Received::Closed { len }) => {
                self.is_over = true;
                self.discard(len);
                Ok(true)
            }
            Err(error) => {
                self.queue_alert(&error);
                Err(error)
            }
        }
    }

    /// Advances rustls by one step; returns whether more may follow.
    fn step_rustls(&mut self, take: Take<'_>, taken: &mut usize) -> Result<bool, Error> {
        let Layer::Rustls(connection) = &mut self.layer else { return Ok(false) };
        let incoming = self.incoming.as_mut().expect("no receive is in flight").slice_mut(self.filled.clone());
        if !connection.is_handshaking() {
            self.shown = incoming.len();
        }
        let UnbufferedStatus { mut discard, state, .. } = connection.process_tls_records(&mut incoming[..self.shown]);
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
            Ok(ConnectionState::EncodeTlsData(mut data)) => self
                .outgoing
                .append(MESSAGES, |to| match data.encode(to) {
                    Err(EncodeError::InsufficientSize(short)) => Err(Some(short.required_size)),
                    other => other.map_err(|_| None),
                })
                .map(|()| true),
            // The bytes are sent before anything is awaited.
            Ok(ConnectionState::TransmitTlsData(transmit)) => {
                transmit.done();
                Ok(true)
            }
            Ok(ConnectionState::PeerClosed) => {
                self.is_over = true;
                Ok(true)
            }
            Ok(ConnectionState::BlockedHandshake) => {
                let shown = self.shown;
                self.shown = next_record_end(incoming, shown);
                Ok(self.shown > shown)
            }
            Ok(ConnectionState::WriteTraffic(_) | ConnectionState::Closed) => Ok(false),
            // Early data is not offered.
            Ok(_) => Err(Error::General("an unknown state".to_owned())),
            Err(error) => Err(error),
        };
        let is_ready = result.is_ok() && Records::can_serve(connection);
        self.discard(discard);
        if result.is_err() {
            self.encode_alerts();
        }
        if is_ready {
            self.take_over()?;
            return Ok(true);
        }
        result
    }

    /// Hands the connection from rustls to the node's own record layer.
    fn take_over(&mut self) -> Result<(), Error> {
        if let Layer::Rustls(connection) = std::mem::replace(&mut self.layer, Layer::Broken) {
            self.layer = Layer::Records(Box::new(Records::take_over(*connection)?));
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn records(&mut self) -> Option<&mut Records> {
        match &mut self.layer {
            Layer::Records(records) => Some(records),
            _ => None,
        }
    }

    /// Appends the answer to a key update that the peer has requested.
    fn answer_update(&mut self) -> Result<(), Error> {
        match &mut self.layer {
            Layer::Records(records) if records.is_update_requested() => {
                append_records(&mut self.outgoing, MESSAGES, |to| records.answer_update(to))
            }
            _ => Ok(()),
        }
    }

    /// Queues the alert for the peer after an error of the record layer.
    fn queue_alert(&mut self, error: &Error) {
        if let Layer::Records(records) = &mut self.layer {
            // The connection is closed whether the peer learns why or not.
            let _ = append_records(&mut self.outgoing, MESSAGES, |to| records.seal_alert(error, to));
        }
    }

    /// Appends to the send buffer what rustls encodes: `len` bytes or slightly more.
    fn write(
        &mut self,
        len: usize,
        mut encrypt: impl FnMut(
            &mut WriteTraffic<'_, rustls::server::ServerConnectionData>,
            &mut [u8],
        ) -> Result<usize, EncryptError>,
    ) -> Result<(), Error> {
        // Process received records first: one may be a key update.
        while self.step(&mut |_| 0, &mut 0)? {}
        let Layer::Rustls(connection) = &mut self.layer else { return Err(Error::HandshakeNotComplete) };
        let incoming = self.incoming.as_mut().expect("no receive is in flight");
        let status = connection.process_tls_records(incoming.slice_mut(self.filled.clone()));
        let discard = status.discard;
        let result = match status.state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                self.outgoing.append(len + MESSAGES, |to| match encrypt(&mut traffic, to) {
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

    /// Removes the first `len` received bytes and wipes them, because they were decrypted in place.
    fn discard(&mut self, len: usize) {
        let start = self.filled.start;
        // The memory stays reachable through the pool, so the compiler cannot remove this store.
        self.incoming.as_mut().expect("no receive is in flight").slice_mut(start..start + len).fill(0);
        self.filled.start += len;
        self.shown = self.shown.saturating_sub(len);
    }

    /// Queues the alert for the peer after an error of rustls.
    fn encode_alerts(&mut self) {
        let Layer::Rustls(connection) = &mut self.layer else { return };
        while connection.wants_write() {
            let incoming = self.incoming.as_mut().expect("no receive is in flight");
            let status = connection.process_tls_records(incoming.slice_mut(self.filled.clone()));
            let Ok(ConnectionState::EncodeTlsData(mut data)) = status.state else { return };
            let encoded = self.outgoing.append(MESSAGES, |to| data.encode(to).map_err(|_| None));
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

/// Returns the length of the record that begins the bytes, if its header is there.
fn record_len(bytes: &[u8]) -> Option<usize> {
    let &[_, _, _, high, low, ..] = bytes else { return None };
    Some(HEADER_LEN + usize::from(u16::from_be_bytes([high, low])))
}

/// Returns whether the bytes begin with a whole record.
pub(super) fn begins_with_record(bytes: &[u8]) -> bool {
    record_len(bytes).is_some_and(|len| len <= bytes.len())
}

/// Returns the end of the first record that ends after `start`, as far as it was received.
fn next_record_end(received: &[u8], start: usize) -> usize {
    let mut end = 0;
    while end <= start {
        match record_len(&received[end..]) {
            Some(len) if len < received.len() - end => end += len,
            _ => return received.len(),
        }
    }
    end
}

/// Appends to the send buffer what the record layer encrypts: at most `len` bytes.
fn append_records(
    outgoing: &mut Outgoing,
    len: usize,
    mut seal: impl FnMut(&mut [u8]) -> Result<usize, Error>,
) -> Result<(), Error> {
    let mut failed = None;
    let result = outgoing.append(len, |to| seal(to).map_err(|error| failed = Some(error)).map_err(|()| None));
    failed.map_or(result, Err)
}

/// Appends held plaintext. The memory never moves, so no copy is left behind.
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

#[cfg(test)]
pub(super) mod tests {
    use std::io::{Read, Write};

    use rustls::crypto::aws_lc_rs;
    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConfig, ClientConnection, InvalidMessage, RootCertStore, SupportedProtocolVersion};

    use super::*;
    use crate::buffer::Pool;
    use crate::net::tls::limits::{RECEIVE_LEN, SEND_PLAIN};
    use crate::net::tls::outgoing::{OUTGOING_LEN, SPARE_MAX};

    const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

    /// A session and a client that trusts its certificate.
    pub(in super::super) struct Pair {
        session: Session,
        /// `None` once it was taken.
        client: Option<ClientConnection>,
        /// Maximum bytes that arrive at once.
        piece: usize,
        /// Bytes on their way to the session.
        pub(in super::super) sent: Vec<u8>,
    }

    impl Pair {
        fn new(version: &'static SupportedProtocolVersion, piece: usize) -> Self {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
            let chain = vec![made.cert.der().clone()];
            let certified = rustls::sign::CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).unwrap();
            let certificates = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
            let config = Arc::new(crate::net::tls::source::config(certificates, None).unwrap());
            let session = Session::new(config, Pool::with_len(RECEIVE_LEN).take(), Spare::default()).unwrap();
            let mut roots = RootCertStore::empty();
            roots.add(made.cert.der().clone()).unwrap();
            let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            config.enable_secret_extraction = true;
            let name = "localhost".try_into().unwrap();
            let client = ClientConnection::new(Arc::new(config), name).unwrap();
            Pair { session, client: Some(client), piece, sent: Vec::new() }
        }

        /// Returns a pair after the handshake.
        pub(in super::super) fn ready(version: &'static SupportedProtocolVersion, piece: usize) -> Self {
            let mut pair = Pair::new(version, piece);
            while pair.session.is_handshaking() || pair.client().is_handshaking() {
                pair.upstream(usize::MAX);
                pair.downstream();
            }
            assert_eq!(pair.client().protocol_version(), Some(version.version));
            pair
        }

        pub(in super::super) fn session(&mut self) -> &mut Session {
            &mut self.session
        }

        pub(in super::super) fn client(&mut self) -> &mut ClientConnection {
            self.client.as_mut().unwrap()
        }

        /// Takes the client.
        pub(in super::super) fn split(mut self) -> (Self, ClientConnection) {
            let client = self.client.take().unwrap();
            (self, client)
        }

        /// Delivers everything that the client has sent, and reads up to `most` bytes of plaintext
        /// at a time.
        pub(in super::super) fn upstream(&mut self, most: usize) -> Vec<u8> {
            self.leave();
            let mut plaintext = Vec::new();
            loop {
                while read(&mut self.session, most, &mut plaintext).unwrap() > 0 {}
                if !self.arrive() {
                    return plaintext;
                }
            }
        }

        /// Delivers a piece of the sent bytes, as far as there is room.
        pub(in super::super) fn arrive(&mut self) -> bool {
            let (mut block, at) = self.session.room().unwrap();
            let len = self.piece.min(self.sent.len()).min(at.len());
            block.slice_mut(at.start..at.start + len).copy_from_slice(&self.sent[..len]);
            self.sent.drain(..len);
            self.session.received(block, len);
            len > 0
        }

        /// Delivers everything that the session has to send.
        pub(in super::super) fn downstream(&mut self) -> Vec<u8> {
            let mut plaintext = Vec::new();
            if let Some(bytes) = self.session.sendable() {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    self.client().read_tls(&mut rest).unwrap();
                    self.client().process_new_packets().unwrap();
                    // The buffer may still be empty.
                    let _ = self.client().reader().read_to_end(&mut plaintext);
                }
                self.session.sent(bytes);
            }
            plaintext
        }

        pub(in super::super) fn send(&mut self, mut plaintext: &[u8]) {
            while !plaintext.is_empty() {
                let len = self.client().writer().write(plaintext).unwrap();
                plaintext = &plaintext[len..];
                self.leave();
            }
            self.leave();
        }

        /// Sends what the client has encrypted.
        fn leave(&mut self) {
            while let Some(client) = self.client.as_mut().filter(|client| client.wants_write()) {
                client.write_tls(&mut self.sent).unwrap();
            }
        }
    }

    pub(in super::super) fn read(session: &mut Session, most: usize, to: &mut Vec<u8>) -> Result<usize, Error> {
        let mut left = most;
        let mut take = |plaintext: &[u8]| {
            let len = plaintext.len().min(left);
            to.extend_from_slice(&plaintext[..len]);
            left -= len;
            len
        };
        session.read(&mut take)
    }

    fn random(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        fastrand::Rng::with_seed(len as u64).fill(&mut bytes);
        bytes
    }

    #[test]
    fn bytes_pass_both_ways_in_any_pieces() {
        for version in VERSIONS {
            for (piece, most) in
                [(1, usize::MAX), (7, 1), (5000, 1000), (16_384, 16_384), (usize::MAX, 333), (usize::MAX, 1 << 20)]
            {
                let mut pair = Pair::ready(version, piece);
                for len in [0, 1, 16_383, 16_384, 16_385, SEND_PLAIN - 1, SEND_PLAIN] {
                    let bytes = random(len);
                    pair.send(&bytes);
                    assert!(pair.upstream(most) == bytes, "{len} in pieces of {piece}, {most} taken");
                    pair.session.encrypt(&bytes).unwrap();
                    assert!(pair.downstream() == bytes, "{len}");
                }
                assert!(!pair.session.is_over() && !pair.session.is_in_a_record());
            }
        }
    }

    #[test]
    fn plaintext_received_while_sending_is_held() {
        for version in VERSIONS {
            let mut pair = Pair::ready(version, usize::MAX);
            let bytes = random(RECEIVE_LEN - RECORD_ROOM - 2000);
            pair.send(&bytes);
            pair.arrive();
            let mut got = Vec::new();
            read(&mut pair.session, 10, &mut got).unwrap();
            pair.session.encrypt(b"a reply").unwrap();
            pair.session.encrypt(b", and more").unwrap();
            assert!(pair.session.held.len() <= HELD_MAX);
            assert_eq!(pair.downstream(), b"a reply, and more");
            got.extend(pair.upstream(3000));
            assert!(got == bytes);
            assert_eq!(pair.session.held.capacity(), 0);
        }
    }

    #[test]
    fn close_notify_alone_ends_session() {
        for version in VERSIONS {
            let mut pair = Pair::ready(version, usize::MAX);
            pair.send(b"the last words");
            pair.client().send_close_notify();
            assert_eq!(pair.upstream(5), b"the last words");
            assert!(pair.session.is_over());
            // The other direction is still open.
            pair.session.encrypt(b"an answer").unwrap();
            pair.session.close_notify().unwrap();
            let bytes = pair.session.sendable().unwrap();
            pair.client().read_tls(&mut &bytes[..]).unwrap();
            assert!(pair.client().process_new_packets().unwrap().peer_has_closed());

            let mut pair = Pair::ready(version, 10);
            pair.send(b"cut off");
            pair.arrive();
            assert_eq!(read(&mut pair.session, 100, &mut Vec::new()), Ok(0));
            assert!(pair.session.is_in_a_record() && !pair.session.is_over());
        }
    }

    #[test]
    fn consumed_plaintext_is_wiped() {
        const SECRET: &[u8] = b"a customer key";
        for version in VERSIONS {
            let mut pair = Pair::ready(version, usize::MAX);
            pair.send(&SECRET.repeat(3000));
            assert_eq!(pair.upstream(100), SECRET.repeat(3000));
            let block = pair.session.incoming.as_ref().unwrap();
            assert!(!block.as_ref().windows(SECRET.len()).any(|window| window == SECRET));
        }
    }

    #[test]
    fn altered_bytes_and_other_protocols_are_errors() {
        for version in VERSIONS {
            let mut pair = Pair::ready(version, usize::MAX);
            pair.send(b"bytes");
            *pair.sent.last_mut().unwrap() ^= 1;
            pair.arrive();
            assert_eq!(pair.session.read(&mut |_| 0), Err(Error::DecryptError));
            let alert = pair.session.sendable().unwrap();
            pair.client().read_tls(&mut &alert[..]).unwrap();
            let alert = pair.client().process_new_packets().unwrap_err();
            assert_eq!(alert, Error::AlertReceived(rustls::AlertDescription::BadRecordMac));
        }
        let mut pair = Pair::new(&TLS13, usize::MAX);
        pair.sent = b"GET / HTTP/1.1\r\n\r\n".to_vec();
        pair.arrive();
        let result = pair.session.read(&mut |_| 0);
        assert_eq!(result, Err(Error::InvalidMessage(InvalidMessage::InvalidContentType)));
    }

    /// Large and small replies share one send buffer, which an idle connection does not hold.
    #[test]
    fn send_buffers_are_reused() {
        let mut pair = Pair::ready(&TLS13, usize::MAX);
        pair.session.rest();
        let spare = pair.session.outgoing.spare.clone();
        let addresses = || spare.0.borrow().iter().map(|memory| memory.as_ptr()).collect::<Vec<_>>();
        let kept = addresses();
        assert_eq!(kept.len(), 1);
        for len in [1, 1000, SEND_PLAIN, 5, SEND_PLAIN] {
            let bytes = random(len);
            pair.session.encrypt(&bytes).unwrap();
            assert!(addresses().is_empty());
            assert!(pair.downstream() == bytes);
            pair.session.rest();
            assert_eq!((addresses(), pair.session.outgoing.bytes.capacity()), (kept.clone(), 0), "{len}");
        }
        // Buffers returned by others are kept up to the limit; a grown one is not.
        let more: Vec<Vec<u8>> = (0..SPARE_MAX + 2).map(|_| spare.take()).collect();
        spare.give_back(Vec::with_capacity(2 * OUTGOING_LEN));
        assert!(addresses().is_empty());
        more.into_iter().for_each(|memory| spare.give_back(memory));
        assert_eq!(addresses().len(), SPARE_MAX);
    }

    /// The server answers a client's key update with its own.
    #[test]
    fn keys_are_updated() {
        let mut pair = Pair::ready(&TLS13, usize::MAX);
        for round in 0..100 {
            pair.client().refresh_traffic_keys().unwrap();
            pair.send(b"under new keys");
            assert_eq!(pair.upstream(usize::MAX), b"under new keys", "{round}");
            pair.session.encrypt(b"here too").unwrap();
            assert_eq!(pair.downstream(), b"here too", "{round}");
        }
    }

    /// Records are decrypted where they were received, in any pieces, as they are through the receive
    /// buffer.
    #[test]
    fn bytes_are_received_in_place_in_any_pieces() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let pool = Pool::with_len(1 << 20);
        for round in 0..60 {
            let mut pair = Pair::ready(&TLS13, usize::MAX);
            let mut bytes = vec![0; random.usize(..1 << 20)];
            random.fill(&mut bytes);
            for piece in bytes.chunks(random.usize(1..40_000)) {
                pair.send(piece);
                if random.u8(..) < 20 {
                    pair.client().refresh_traffic_keys().unwrap();
                }
            }
            let mut got = Vec::new();
            while got.len() < bytes.len() {
                if random.bool() {
                    pair.piece = random.usize(1..70_000);
                    pair.arrive();
                    while read(&mut pair.session, random.usize(1..50_000), &mut got).unwrap() > 0 {}
                }
                let start = random.usize(..5000);
                let at = start..start + random.usize(RECORD_ROOM..1_000_000);
                let mut buf = pool.take();
                let Some(mut received) = pair.session.begin_in_place(&mut buf, &at) else { continue };
                while !begins_with_record(&buf.as_ref()[received.clone()]) && !pair.sent.is_empty() {
                    let room = at.end - received.end;
                    let len = random.usize(1..=room).min(pair.sent.len());
                    buf.slice_mut(received.end..received.end + len).copy_from_slice(&pair.sent[..len]);
                    pair.sent.drain(..len);
                    received.end += len;
                }
                if random.u8(..) < 10 {
                    // The receive has failed.
                    let begun = begins_with_record(&buf.as_ref()[received.clone()]);
                    if !begun {
                        pair.session.keep(&buf.as_ref()[received]);
                        continue;
                    }
                }
                let end = received.end;
                let len = pair.session.read_in_place(&mut buf, received, at.start).unwrap();
                got.extend_from_slice(&buf.as_ref()[at.start..at.start + len]);
                let rest = &buf.as_ref()[at.start + len..end];
                let is_left = |plaintext: &[u8]| rest.windows(16).any(|window| window == plaintext);
                assert!(!got.rchunks(16).take(64).filter(|it| it.len() == 16).any(is_left), "round {round}");
            }
            assert!(got == bytes, "round {round}");
        }
    }
}
