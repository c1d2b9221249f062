//! The record layer of TLS 1.3 after the handshake (RFC 8446, sections 4.6.3, 5 and 6).
//!
//! rustls performs the handshake and then hands over the keys
//! (`UnbufferedServerConnection::dangerous_into_kernel_connection`); it still derives new ones when
//! they are updated. Records are encrypted from the buffer of a body into the send buffer, and
//! decrypted where they were received, which saves a copy and an allocation for each record.
//!
//! # Invariants
//! - No two records are encrypted with the same key and number. Keys are updated before the limit of
//!   their cipher suite.
//! - Plaintext is handed out only once its record is authentic.
//! - After an error, nothing is decrypted any more.

use std::ops::Range;

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, Error, HandshakeType, PeerMisbehaved, ProtocolVersion,
};

use super::limits::{KEY_UPDATES_MAX, RECORD_PLAIN};

/// Length of a record's header: type, version, and length (RFC 8446, section 5.1).
pub(super) const HEADER_LEN: usize = 5;

/// Length of the encrypted content type.
const TYPE_LEN: usize = 1;

/// Length of the tag of all cipher suites.
const TAG_LEN: usize = 16;

/// Bytes that a record adds to its plaintext.
pub(super) const RECORD_ADDED: usize = HEADER_LEN + TYPE_LEN + TAG_LEN;

/// The longest ciphertext of a record (RFC 8446, section 5.2).
const CIPHERTEXT_MAX: usize = RECORD_PLAIN + 256;

/// Length of a nonce (RFC 8446, section 5.3).
const NONCE_LEN: usize = 12;

/// Records left before the limit of a key at which it is updated: one for the update itself.
const UPDATE_RESERVE: u64 = 1;

/// Levels of alerts (RFC 8446, section 6).
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// Length of a KeyUpdate message: type, length, and whether an answer is requested.
const KEY_UPDATE_LEN: usize = 5;

/// A KeyUpdate message without its last byte (RFC 8446, section 4.6.3).
const KEY_UPDATE: [u8; KEY_UPDATE_LEN - 1] = [24, 0, 0, 1];

/// Whether the peer is to update its keys as well.
const UPDATE_NOT_REQUESTED: u8 = 0;
const UPDATE_REQUESTED: u8 = 1;

/// The keys of one direction.
struct Keys {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    /// Number of the next record.
    number: u64,
}

impl Keys {
    fn new(number: u64, secrets: &ConnectionTrafficSecrets) -> Result<Self, Error> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&aead::AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&aead::AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&aead::CHACHA20_POLY1305, key, iv),
            _ => return Err(Error::General("a cipher suite without a record layer".to_owned())),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| wrong_length())?;
        let iv = iv.as_ref().try_into().map_err(|_| wrong_length())?;
        Ok(Keys { key: LessSafeKey::new(key), iv, number })
    }

    /// Returns the nonce of the next record, and counts the record.
    fn next_nonce(&mut self) -> Result<Nonce, Error> {
        let number = self.number;
        self.number = number.checked_add(1).ok_or(Error::EncryptError)?;
        let mut nonce = self.iv;
        for (byte, number) in nonce[NONCE_LEN - 8..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= number;
        }
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

fn wrong_length() -> Error {
    Error::General("a key of the wrong length".to_owned())
}

/// The first record of received bytes.
#[derive(PartialEq, Debug)]
pub(super) enum Received {
    /// It is incomplete.
    Incomplete,
    /// It was complete and is this long.
    Record {
        /// Its length on the wire.
        len: usize,
        /// Its plaintext for the application, in the received bytes.
        plaintext: Range<usize>,
    },
    /// The peer has sent `close_notify` in a record of this length; nothing after it counts.
    Closed {
        /// Its length on the wire.
        len: usize,
    },
}

/// The record layer of one connection.
pub(super) struct Records {
    sending: Keys,
    receiving: Keys,
    /// Number of records after which the sending key is updated.
    limit: u64,
    /// Derives new keys.
    secrets: KernelConnection<ServerConnectionData>,
    /// The received part of a KeyUpdate message.
    message: Vec<u8>,
    /// Key updates of the peer since its last application data.
    updates: usize,
    /// The peer has requested a key update.
    is_update_requested: bool,
    /// The error that has ended receiving.
    failed: Option<Error>,
}

impl Records {
    /// Returns whether this record layer can serve the connection: its handshake has ended with TLS
    /// 1.3.
    pub(super) fn can_serve(connection: &UnbufferedServerConnection) -> bool {
        !connection.is_handshaking()
            && !connection.wants_write()
            && connection.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// Takes a connection over that [can be served](Self::can_serve).
    pub(super) fn take_over(connection: UnbufferedServerConnection) -> Result<Self, Error> {
        let (keys, secrets) = connection.dangerous_into_kernel_connection()?;
        let suite = secrets.negotiated_cipher_suite().tls13();
        let limit = suite.ok_or(Error::HandshakeNotComplete)?.common.confidentiality_limit;
        Ok(Records {
            sending: Keys::new(keys.tx.0, &keys.tx.1)?,
            receiving: Keys::new(keys.rx.0, &keys.rx.1)?,
            limit: limit.saturating_sub(UPDATE_RESERVE),
            secrets,
            message: Vec::new(),
            updates: 0,
            is_update_requested: false,
            failed: None,
        })
    }

    /// Decrypts the first record of `bytes` in place.
    ///
    /// # Errors
    /// A record that is not authentic or not allowed; the connection is to be closed, with an
    /// [alert](Self::seal_alert).
    pub(super) fn open(&mut self, bytes: &mut [u8]) -> Result<Received, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.open_first(bytes);
        self.failed = result.as_ref().err().cloned();
        result
    }

    fn open_first(&mut self, bytes: &mut [u8]) -> Result<Received, Error> {
        let Some((header, rest)) = bytes.split_first_chunk_mut::<HEADER_LEN>() else {
            return Ok(Received::Incomplete);
        };
        let outer = ContentType::from(header[0]);
        if outer != ContentType::ApplicationData {
            return Err(unexpected(outer));
        }
        let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if len > CIPHERTEXT_MAX {
            return Err(Error::PeerSentOversizedRecord);
        }
        let Some(ciphertext) = rest.get_mut(..len) else { return Ok(Received::Incomplete) };
        let nonce = self.receiving.next_nonce()?;
        let opened = self.receiving.key.open_in_place(nonce, Aad::from(*header), ciphertext);
        let inner = opened.map_err(|_| Error::DecryptError)?;
        // Zeros after the content type are padding (RFC 8446, section 5.4).
        let end = inner.iter().rposition(|byte| *byte != 0).ok_or(PeerMisbehaved::IllegalTlsInnerPlaintext)?;
        let content = ContentType::from(inner[end]);
        if end > RECORD_PLAIN {
            return Err(Error::PeerSentOversizedRecord);
        }
        if content != ContentType::Handshake && !self.message.is_empty() {
            return Err(PeerMisbehaved::MessageInterleavedWithHandshakeMessage.into());
        }
        let len = HEADER_LEN + len;
        let mut plaintext = HEADER_LEN..HEADER_LEN;
        match content {
            ContentType::ApplicationData => {
                self.updates = 0;
                plaintext.end += end;
            }
            ContentType::Alert => {
                if is_close_notify(&inner[..end])? {
                    return Ok(Received::Closed { len });
                }
            }
            ContentType::Handshake => {
                self.message.extend_from_slice(&inner[..end]);
                self.handle_message(end)?;
            }
            other => return Err(unexpected(other)),
        }
        Ok(Received::Record { len, plaintext })
    }

    /// Handles the handshake message of which `len` bytes were received: the only one that is
    /// allowed is a KeyUpdate, alone at the end of a record.
    fn handle_message(&mut self, len: usize) -> Result<(), Error> {
        let given = self.message.len().min(KEY_UPDATE.len());
        if len == 0 || self.message[..given] != KEY_UPDATE[..given] {
            let got_type = HandshakeType::from(self.message.first().copied().unwrap_or_default());
            return Err(Error::InappropriateHandshakeMessage {
                expect_types: vec![HandshakeType::KeyUpdate],
                got_type,
            });
        }
        let request = match self.message[..] {
            [_, _, _, _, request] => request,
            [_, _, _, _, _, ..] => return Err(PeerMisbehaved::KeyEpochWithPendingFragment.into()),
            _ => return Ok(()),
        };
        self.message.clear();
        self.updates += 1;
        if self.updates > KEY_UPDATES_MAX {
            return Err(PeerMisbehaved::TooManyKeyUpdateRequests.into());
        }
        match request {
            UPDATE_NOT_REQUESTED => {}
            UPDATE_REQUESTED => self.is_update_requested = true,
            _ => return Err(rustls::InvalidMessage::InvalidKeyUpdate.into()),
        }
        let (number, secrets) = self.secrets.update_rx_secret()?;
        self.receiving = Keys::new(number, &secrets)?;
        Ok(())
    }

    /// Returns the length of the records that [`seal`](Self::seal) makes of `len` bytes.
    pub(super) fn sealed_len(&self, len: usize) -> usize {
        // A key update may precede each record.
        len + len.div_ceil(RECORD_PLAIN) * (RECORD_ADDED + RECORD_ADDED + KEY_UPDATE_LEN)
    }

    /// Encrypts application data into `to`, which has [`sealed_len`](Self::sealed_len) bytes at
    /// least. Returns the length of the records.
    pub(super) fn seal(&mut self, plaintext: &[u8], to: &mut [u8]) -> Result<usize, Error> {
        let mut len = 0;
        for piece in plaintext.chunks(RECORD_PLAIN) {
            if self.sending.number >= self.limit {
                len += self.update_sending(&mut to[len..])?;
            }
            len += self.seal_record(ContentType::ApplicationData, piece, &mut to[len..])?;
        }
        Ok(len)
    }

    /// Updates the sending key as the peer has requested. Returns the length of the record for the
    /// peer, `RECORD_ADDED + KEY_UPDATE_LEN`.
    pub(super) fn answer_update(&mut self, to: &mut [u8]) -> Result<usize, Error> {
        self.is_update_requested = false;
        self.update_sending(to)
    }

    /// Returns whether the peer waits for an [answer](Self::answer_update) to its key update.
    pub(super) fn is_update_requested(&self) -> bool {
        self.is_update_requested
    }

    /// Encrypts a `close_notify`.
    pub(super) fn seal_close_notify(&mut self, to: &mut [u8]) -> Result<usize, Error> {
        self.seal_record(ContentType::Alert, &[WARNING, AlertDescription::CloseNotify.into()], to)
    }

    /// Encrypts the alert that tells the peer of an error; an alert of the peer has no answer.
    pub(super) fn seal_alert(&mut self, error: &Error, to: &mut [u8]) -> Result<usize, Error> {
        let description = match error {
            Error::AlertReceived(_) => return Ok(0),
            Error::DecryptError => AlertDescription::BadRecordMac,
            Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
            Error::InvalidMessage(_) => AlertDescription::IllegalParameter,
            Error::General(_) | Error::EncryptError => AlertDescription::InternalError,
            _ => AlertDescription::UnexpectedMessage,
        };
        self.seal_record(ContentType::Alert, &[FATAL, description.into()], to)
    }

    fn update_sending(&mut self, to: &mut [u8]) -> Result<usize, Error> {
        let [kind, high, middle, low] = KEY_UPDATE;
        let len = self.seal_record(ContentType::Handshake, &[kind, high, middle, low, UPDATE_NOT_REQUESTED], to)?;
        let (number, secrets) = self.secrets.update_tx_secret()?;
        self.sending = Keys::new(number, &secrets)?;
        Ok(len)
    }

    /// Encrypts one record into the beginning of `to`; returns its length.
    fn seal_record(&mut self, content: ContentType, plaintext: &[u8], to: &mut [u8]) -> Result<usize, Error> {
        let ciphertext_len = plaintext.len() + TYPE_LEN + TAG_LEN;
        let len = u16::try_from(ciphertext_len).map_err(|_| Error::EncryptError)?.to_be_bytes();
        let header = [ContentType::ApplicationData.into(), 3, 3, len[0], len[1]];
        let record = to.get_mut(..HEADER_LEN + ciphertext_len).ok_or(Error::EncryptError)?;
        let (head, ciphertext) = record.split_at_mut(HEADER_LEN);
        head.copy_from_slice(&header);
        let (body, end) = ciphertext.split_at_mut(plaintext.len());
        let nonce = self.sending.next_nonce()?;
        let key = &self.sending.key;
        key.seal_out_of_place_scatter(nonce, Aad::from(header), plaintext, body, &[content.into()], end)
            .map_err(|_| Error::EncryptError)?;
        Ok(HEADER_LEN + ciphertext_len)
    }
}

fn unexpected(got_type: ContentType) -> Error {
    Error::InappropriateMessage { expect_types: vec![ContentType::ApplicationData], got_type }
}

/// Returns whether an alert is `close_notify`; a cancellation announces one and is ignored.
fn is_close_notify(alert: &[u8]) -> Result<bool, Error> {
    let &[_, description] = alert else { return Err(rustls::InvalidMessage::InvalidContentType.into()) };
    match AlertDescription::from(description) {
        AlertDescription::CloseNotify => Ok(true),
        AlertDescription::UserCanceled => Ok(false),
        other => Err(Error::AlertReceived(other)),
    }
}

#[cfg(test)]
mod tests {
    use rustls::version::{TLS12, TLS13};

    use super::super::session::tests::{Pair, read};
    use super::*;

    const APPLICATION_DATA: u8 = 23;
    const ALERT: u8 = 21;
    const HANDSHAKE: u8 = 22;
    const CHANGE_CIPHER_SPEC: u8 = 20;

    /// The client's side of a connection, which can send what no client would.
    struct Forger {
        pair: Pair,
        sending: Keys,
        receiving: Keys,
    }

    impl Forger {
        fn new() -> Self {
            let (pair, client) = Pair::ready(&TLS13, usize::MAX).split();
            #[allow(deprecated, reason = "the client updates no keys")]
            let secrets = client.dangerous_extract_secrets().unwrap();
            let [sending, receiving] = [secrets.tx, secrets.rx].map(|(number, keys)| Keys::new(number, &keys).unwrap());
            Forger { pair, sending, receiving }
        }

        /// Returns an authentic record with this content, type, and padding.
        fn record(&mut self, content: &[u8], content_type: u8, padding: usize) -> Vec<u8> {
            let mut inner = [content, &[content_type][..], &vec![0; padding]].concat();
            let len = u16::try_from(inner.len() + TAG_LEN).unwrap().to_be_bytes();
            let header = [APPLICATION_DATA, 3, 3, len[0], len[1]];
            let nonce = self.sending.next_nonce().unwrap();
            self.sending.key.seal_in_place_append_tag(nonce, Aad::from(header), &mut inner).unwrap();
            [&header[..], &inner].concat()
        }

        /// Delivers bytes; returns the plaintext that the session has read of them.
        fn deliver(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
            self.pair.sent.extend(bytes);
            let mut plaintext = Vec::new();
            while self.pair.arrive() {}
            read(self.pair.session(), usize::MAX, &mut plaintext).map(|_| plaintext)
        }

        /// Returns the level and description of the alert that the session sends.
        fn alert(&mut self) -> Option<[u8; 2]> {
            let mut record = self.pair.session().sendable()?;
            let (header, ciphertext) = record.split_first_chunk_mut::<HEADER_LEN>().unwrap();
            let nonce = self.receiving.next_nonce().unwrap();
            let inner = self.receiving.key.open_in_place(nonce, Aad::from(*header), ciphertext).unwrap();
            match *inner {
                [level, description, ALERT] => Some([level, description]),
                _ => panic!("not an alert: {inner:?}"),
            }
        }
    }

    /// What a forger sends, the error of the session, and the description of its alert.
    type Refused = (fn(&mut Forger) -> Vec<u8>, Error, Option<AlertDescription>);

    fn message(got_type: u8) -> Error {
        let expect_types = vec![HandshakeType::KeyUpdate];
        Error::InappropriateHandshakeMessage { expect_types, got_type: got_type.into() }
    }

    #[test]
    fn forbidden_records_are_refused_with_alerts() {
        use AlertDescription::{BadRecordMac, IllegalParameter, RecordOverflow, UnexpectedMessage};
        let misbehaved = Error::PeerMisbehaved;
        let table: &[Refused] = &[
            (|_| vec![ALERT, 3, 3, 0, 2, 2, 40], unexpected(ContentType::Alert), Some(UnexpectedMessage)),
            (
                |_| vec![CHANGE_CIPHER_SPEC, 3, 3, 0, 1, 1],
                unexpected(ContentType::ChangeCipherSpec),
                Some(UnexpectedMessage),
            ),
            (
                |forger| forger.record(&[1], CHANGE_CIPHER_SPEC, 0),
                unexpected(ContentType::ChangeCipherSpec),
                Some(UnexpectedMessage),
            ),
            (|_| vec![APPLICATION_DATA, 3, 3, 0x41, 1], Error::PeerSentOversizedRecord, Some(RecordOverflow)),
            (
                |forger| forger.record(&[1; RECORD_PLAIN + 1], APPLICATION_DATA, 0),
                Error::PeerSentOversizedRecord,
                Some(RecordOverflow),
            ),
            (|_| vec![APPLICATION_DATA, 3, 3, 0, 0], Error::DecryptError, Some(BadRecordMac)),
            (|_| [&[APPLICATION_DATA, 3, 3, 0, 17][..], &[7; 17]].concat(), Error::DecryptError, Some(BadRecordMac)),
            (
                |forger| forger.record(&[], 0, 5),
                misbehaved(PeerMisbehaved::IllegalTlsInnerPlaintext),
                Some(UnexpectedMessage),
            ),
            (|forger| forger.record(&[1, 0, 0, 0], HANDSHAKE, 0), message(1), Some(UnexpectedMessage)),
            (|forger| forger.record(&[], HANDSHAKE, 0), message(0), Some(UnexpectedMessage)),
            (
                |forger| forger.record(&[24, 0, 0, 1, 0, 24], HANDSHAKE, 0),
                misbehaved(PeerMisbehaved::KeyEpochWithPendingFragment),
                Some(UnexpectedMessage),
            ),
            (
                |forger| forger.record(&[24, 0, 0, 1, 2], HANDSHAKE, 0),
                rustls::InvalidMessage::InvalidKeyUpdate.into(),
                Some(IllegalParameter),
            ),
            (
                |forger| [forger.record(&[24, 0], HANDSHAKE, 0), forger.record(b"x", APPLICATION_DATA, 0)].concat(),
                misbehaved(PeerMisbehaved::MessageInterleavedWithHandshakeMessage),
                Some(UnexpectedMessage),
            ),
            (
                |forger| forger.record(&[2], ALERT, 0),
                rustls::InvalidMessage::InvalidContentType.into(),
                Some(IllegalParameter),
            ),
            (|forger| forger.record(&[2, 40], ALERT, 0), Error::AlertReceived(40.into()), None),
        ];
        for (index, (send, error, alert)) in table.iter().enumerate() {
            let mut forger = Forger::new();
            let good = forger.record(b"good", APPLICATION_DATA, 0);
            assert_eq!(forger.deliver(good).unwrap(), b"good");
            let bad = send(&mut forger);
            assert_eq!(forger.deliver(bad), Err(error.clone()), "{index}");
            assert_eq!(forger.alert(), alert.map(|alert| [FATAL, alert.into()]), "{index}");
            let late = forger.record(b"late", APPLICATION_DATA, 0);
            assert_eq!(forger.deliver(late), Err(error.clone()), "{index}: nothing is read after an error");
        }
    }

    #[test]
    fn padding_longest_records_and_cancellations_are_accepted() {
        let mut forger = Forger::new();
        let longest = [1; RECORD_PLAIN];
        let records = [
            forger.record(b"a", APPLICATION_DATA, 0),
            forger.record(b"", APPLICATION_DATA, 3),
            forger.record(b"b\0", APPLICATION_DATA, 255),
            forger.record(&[1, AlertDescription::UserCanceled.into()], ALERT, 1),
            forger.record(&longest, APPLICATION_DATA, 239),
        ];
        assert_eq!(forger.deliver(records.concat()).unwrap(), [&b"ab\0"[..], &longest].concat());
    }

    #[test]
    fn key_update_may_arrive_in_two_records() {
        let mut forger = Forger::new();
        let update = [forger.record(&[24, 0, 0], HANDSHAKE, 0), forger.record(&[1, 0], HANDSHAKE, 0)].concat();
        assert_eq!(forger.deliver(update).unwrap(), b"");
        let old = forger.record(b"under the old key", APPLICATION_DATA, 0);
        assert_eq!(forger.deliver(old), Err(Error::DecryptError));
    }

    #[test]
    fn key_updates_without_data_are_bounded() {
        let mut pair = Pair::ready(&TLS13, usize::MAX);
        for _ in 0..3 {
            for _ in 0..KEY_UPDATES_MAX {
                pair.client().refresh_traffic_keys().unwrap();
                assert_eq!(pair.upstream(usize::MAX), b"");
                // The client would refuse as many answers.
                assert!(pair.session().sendable().is_some());
            }
            pair.send(b"data");
            assert_eq!(pair.upstream(usize::MAX), b"data");
        }
        for _ in 0..=KEY_UPDATES_MAX {
            pair.client().refresh_traffic_keys().unwrap();
            pair.send(b"");
        }
        while pair.arrive() {}
        let result = pair.session().read(&mut |_| 0);
        assert_eq!(result, Err(PeerMisbehaved::TooManyKeyUpdateRequests.into()));
    }

    /// A key encrypts no more records than its cipher suite allows, the key update included.
    #[test]
    fn sending_key_is_updated_before_its_limit() {
        let mut pair = Pair::ready(&TLS13, usize::MAX);
        let records = pair.session().records().unwrap();
        assert!(records.limit < 1 << 24, "AES-GCM");
        records.limit = records.sending.number + 3;
        for round in 0..10 {
            let bytes = vec![round; 3 * RECORD_PLAIN];
            pair.session().encrypt(&bytes).unwrap();
            assert_eq!(pair.downstream(), bytes);
            let records = pair.session().records().unwrap();
            assert!(records.sending.number <= records.limit);
        }
    }

    #[test]
    fn only_tls_1_3_is_taken_over() {
        assert!(Pair::ready(&TLS13, 7).session().records().is_some());
        assert!(Pair::ready(&TLS12, 7).session().records().is_none());
    }
}
