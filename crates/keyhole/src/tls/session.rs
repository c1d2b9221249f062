//! One TLS connection without its socket: received bytes in, plaintext out, and the other way round.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{Error, ServerConfig};
use zeroize::Zeroize;

use super::{HELD_MAX, RECORD_PLAIN, RECORD_ROOM, SEND_PLAIN};
use crate::buffer::Block;

/// What a record is longer than its plaintext, at most: header, explicit nonce, inner type and tag come to less than 40 bytes.
const RECORD_OVERHEAD: usize = 64;

/// Room besides for what TLS has to say itself: an update of keys, an alert.
const MESSAGES: usize = 512;

/// Memory for what is encrypted and sent at a time.
const OUTGOING_LEN: usize = SEND_PLAIN + SEND_PLAIN / RECORD_PLAIN * RECORD_OVERHEAD + MESSAGES;

/// Pieces of such memory that a worker keeps while nothing is sent: half a megabyte. What its connections send meanwhile takes turns
/// with it.
const SPARE_MAX: usize = 8;

/// Memory for what is sent, of one worker. A connection has some while it sends, and none while it is idle.
#[derive(Clone, Default)]
pub(super) struct Spare(Rc<RefCell<Vec<Vec<u8>>>>);

impl Spare {
    fn take(&self) -> Vec<u8> {
        self.0.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(OUTGOING_LEN))
    }

    fn give_back(&self, memory: Vec<u8>) {
        let mut kept = self.0.borrow_mut();
        // What has grown, for some long message, is not kept.
        if memory.capacity() == OUTGOING_LEN && kept.len() < SPARE_MAX {
            kept.push(memory);
        }
    }
}

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
    /// Where `outgoing` comes from, and goes when nothing is sent.
    spare: Spare,
    /// The peer has said that it sends nothing more.
    is_over: bool,
}

impl Session {
    /// One that awaits a client. `incoming` is for what it sends, `spare` for what is sent to it.
    pub(super) fn new(config: Arc<ServerConfig>, incoming: Block, spare: Spare) -> Result<Self, Error> {
        Ok(Session {
            connection: UnbufferedServerConnection::new(config)?,
            incoming: Some(incoming),
            filled: RECORD_ROOM..RECORD_ROOM,
            held: Vec::new(),
            held_from: 0,
            outgoing: Vec::new(),
            sendable: 0,
            spare,
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

    /// Encrypts up to [`SEND_PLAIN`] bytes.
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
        let memory = std::mem::take(&mut self.outgoing);
        if memory.capacity() > 0 {
            self.spare.give_back(memory);
        }
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
                append((&mut self.outgoing, &self.spare), &mut self.sendable, MESSAGES, |to| match data.encode(to) {
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
                append((&mut self.outgoing, &self.spare), &mut self.sendable, len + MESSAGES, |to| {
                    match encrypt(&mut traffic, to) {
                        Err(EncryptError::InsufficientSize(short)) => Err(Some(short.required_size)),
                        other => other.map_err(|_| None),
                    }
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
            let encoded = append((&mut self.outgoing, &self.spare), &mut self.sendable, MESSAGES, |to| {
                data.encode(to).map_err(|_| None)
            });
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
    (outgoing, spare): (&mut Vec<u8>, &Spare),
    sendable: &mut usize,
    len: usize,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> Result<(), Error> {
    let mut room = len;
    if outgoing.capacity() == 0 {
        *outgoing = spare.take();
    }
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use rustls::crypto::aws_lc_rs;
    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConfig, ClientConnection, InvalidMessage, RootCertStore, SupportedProtocolVersion};

    use super::*;
    use crate::buffer::Pool;
    use crate::tls::RECEIVE_LEN;

    const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

    /// A session and a client that trusts it.
    struct Pair {
        session: Session,
        client: ClientConnection,
        /// The most bytes that arrive at once.
        piece: usize,
        /// On their way to the session.
        sent: Vec<u8>,
    }

    impl Pair {
        fn new(version: &'static SupportedProtocolVersion, piece: usize) -> Self {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
            let chain = vec![made.cert.der().clone()];
            let certified = rustls::sign::CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).unwrap();
            let certificates = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
            let config = Arc::new(crate::tls::source::config(certificates, None).unwrap());
            let session = Session::new(config, Pool::of(RECEIVE_LEN).take(), Spare::default()).unwrap();
            let mut roots = RootCertStore::empty();
            roots.add(made.cert.der().clone()).unwrap();
            let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let name = "localhost".try_into().unwrap();
            let client = ClientConnection::new(Arc::new(config), name).unwrap();
            Pair { session, client, piece, sent: Vec::new() }
        }

        /// After the handshake.
        fn ready(version: &'static SupportedProtocolVersion, piece: usize) -> Self {
            let mut pair = Pair::new(version, piece);
            while pair.session.is_handshaking() || pair.client.is_handshaking() {
                pair.upstream(usize::MAX);
                pair.downstream();
            }
            assert_eq!(pair.client.protocol_version(), Some(version.version));
            pair
        }

        /// Lets all that the client has sent arrive, taking up to so many bytes of plaintext at a time.
        fn upstream(&mut self, most: usize) -> Vec<u8> {
            while self.client.wants_write() {
                self.client.write_tls(&mut self.sent).unwrap();
            }
            let mut plaintext = Vec::new();
            loop {
                while read(&mut self.session, most, &mut plaintext) > 0 {}
                if !self.arrive() {
                    return plaintext;
                }
            }
        }

        /// Lets a piece of what was sent arrive, as far as there is room for it.
        fn arrive(&mut self) -> bool {
            let (mut block, at) = self.session.room().unwrap();
            let len = self.piece.min(self.sent.len()).min(at.len());
            block.part(at.start..at.start + len).copy_from_slice(&self.sent[..len]);
            self.sent.drain(..len);
            self.session.received(block, len);
            len > 0
        }

        /// Lets all that the session has to send arrive.
        fn downstream(&mut self) -> Vec<u8> {
            let mut plaintext = Vec::new();
            if let Some(bytes) = self.session.sendable() {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    self.client.read_tls(&mut rest).unwrap();
                    self.client.process_new_packets().unwrap();
                    // There may be nothing yet.
                    let _ = self.client.reader().read_to_end(&mut plaintext);
                }
                self.session.sent(bytes);
            }
            plaintext
        }

        fn send(&mut self, mut plaintext: &[u8]) {
            while !plaintext.is_empty() {
                let len = self.client.writer().write(plaintext).unwrap();
                plaintext = &plaintext[len..];
                while self.client.wants_write() {
                    self.client.write_tls(&mut self.sent).unwrap();
                }
            }
        }
    }

    fn read(session: &mut Session, most: usize, to: &mut Vec<u8>) -> usize {
        let mut left = most;
        let mut take = |plaintext: &[u8]| {
            let len = plaintext.len().min(left);
            to.extend_from_slice(&plaintext[..len]);
            left -= len;
            len
        };
        session.read(&mut take).unwrap()
    }

    fn random(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        fastrand::Rng::with_seed(len as u64).fill(&mut bytes);
        bytes
    }

    #[test]
    fn bytes_come_through_both_ways_in_whatever_pieces() {
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
    fn what_is_received_while_something_is_sent_is_held() {
        for version in VERSIONS {
            let mut pair = Pair::ready(version, usize::MAX);
            let bytes = random(RECEIVE_LEN - RECORD_ROOM - 2000);
            pair.send(&bytes);
            pair.arrive();
            let mut got = Vec::new();
            read(&mut pair.session, 10, &mut got);
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
    fn an_end_is_one_only_when_the_peer_says_so() {
        for version in VERSIONS {
            let mut pair = Pair::ready(version, usize::MAX);
            pair.send(b"the last words");
            pair.client.send_close_notify();
            assert_eq!(pair.upstream(5), b"the last words");
            assert!(pair.session.is_over());
            // The other way is still open.
            pair.session.encrypt(b"an answer").unwrap();
            pair.session.close_notify().unwrap();
            let bytes = pair.session.sendable().unwrap();
            pair.client.read_tls(&mut &bytes[..]).unwrap();
            assert!(pair.client.process_new_packets().unwrap().peer_has_closed());

            let mut pair = Pair::ready(version, 10);
            pair.send(b"cut off");
            pair.arrive();
            assert_eq!(read(&mut pair.session, 100, &mut Vec::new()), 0);
            assert!(pair.session.is_in_a_record() && !pair.session.is_over());
        }
    }

    #[test]
    fn plaintext_is_wiped_when_it_is_taken() {
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
    fn changed_bytes_and_other_protocols_are_errors() {
        for version in VERSIONS {
            let mut pair = Pair::ready(version, usize::MAX);
            pair.send(b"bytes");
            *pair.sent.last_mut().unwrap() ^= 1;
            pair.arrive();
            assert_eq!(pair.session.read(&mut |_| 0), Err(Error::DecryptError));
            let alert = pair.session.sendable().unwrap();
            pair.client.read_tls(&mut &alert[..]).unwrap();
            let told = pair.client.process_new_packets().unwrap_err();
            assert_eq!(told, Error::AlertReceived(rustls::AlertDescription::BadRecordMac));
        }
        let mut pair = Pair::new(&TLS13, usize::MAX);
        pair.sent = b"GET / HTTP/1.1\r\n\r\n".to_vec();
        pair.arrive();
        let result = pair.session.read(&mut |_| 0);
        assert_eq!(result, Err(Error::InvalidMessage(InvalidMessage::InvalidContentType)));
    }

    /// Many replies, large and small, are sent out of one piece of memory, which an idle connection does not have.
    #[test]
    fn memory_for_what_is_sent_is_used_again() {
        let mut pair = Pair::ready(&TLS13, usize::MAX);
        pair.session.rest();
        let spare = pair.session.spare.clone();
        let addresses = || spare.0.borrow().iter().map(|memory| memory.as_ptr()).collect::<Vec<_>>();
        let kept = addresses();
        assert_eq!(kept.len(), 1);
        for len in [1, 1000, SEND_PLAIN, 5, SEND_PLAIN] {
            let bytes = random(len);
            pair.session.encrypt(&bytes).unwrap();
            assert!(addresses().is_empty());
            assert!(pair.downstream() == bytes);
            pair.session.rest();
            assert_eq!((addresses(), pair.session.outgoing.capacity()), (kept.clone(), 0), "{len}");
        }
        // What others have sent meanwhile is kept up to a bound, and what has grown is not.
        let more: Vec<Vec<u8>> = (0..SPARE_MAX + 2).map(|_| spare.take()).collect();
        spare.give_back(Vec::with_capacity(2 * OUTGOING_LEN));
        assert!(addresses().is_empty());
        more.into_iter().for_each(|memory| spare.give_back(memory));
        assert_eq!(addresses().len(), SPARE_MAX);
    }

    /// The server answers a client's update of keys with its own.
    #[test]
    fn keys_are_updated() {
        let mut pair = Pair::ready(&TLS13, usize::MAX);
        for round in 0..3 {
            pair.client.refresh_traffic_keys().unwrap();
            pair.send(b"under new keys");
            assert_eq!(pair.upstream(usize::MAX), b"under new keys", "{round}");
            pair.session.encrypt(b"here too").unwrap();
            assert_eq!(pair.downstream(), b"here too", "{round}");
        }
    }
}
