//! Chunked encryption: C2SP `chunked-encryption` v1, instance Cobblestone-256 (see
//! [`format`](crate::format), part 1).
//!
//! A message is `salt || commitment || chunk_0 || tag_0 || chunk_1 || tag_1 ...`. This module
//! returns tags separately from chunks, so that callers can choose where to store them.

use core::ops::Range;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha512;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::NotAuthentic;
use crate::aead::{Aead, Engine, Pieces};
use crate::limits::{CHUNK_LEN, CHUNKS_MAX, COMMITMENT_LEN, KEY_LEN, NONCE_LEN, PREFIX_LEN, SALT_LEN, TAG_LEN};

/// The instance name with its terminating zero byte.
const LABEL: &[u8] = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0";

/// Length of a full chunk with its tag, in bytes.
const SEALED_CHUNK_LEN: u64 = (CHUNK_LEN + TAG_LEN) as u64;

/// Returns the number of chunks, and so of tags, for a plaintext of `plaintext_len` bytes. The last
/// chunk is always shorter than a full one and may be empty.
pub const fn tag_count(plaintext_len: u64) -> u64 {
    plaintext_len / CHUNK_LEN as u64 + 1
}

/// Returns the length of the message for a plaintext of `plaintext_len` bytes, or `None` if it
/// would exceed [`CHUNKS_MAX`] chunks.
pub const fn message_len(plaintext_len: u64) -> Option<u64> {
    if tag_count(plaintext_len) > CHUNKS_MAX {
        return None;
    }
    Some(PREFIX_LEN as u64 + plaintext_len + tag_count(plaintext_len) * TAG_LEN as u64)
}

/// Returns the plaintext length for a message of `message_len` bytes, or `None` if no message has
/// that length.
pub const fn plaintext_len(message_len: u64) -> Option<u64> {
    let Some(chunks) = message_len.checked_sub(PREFIX_LEN as u64) else { return None };
    // The last chunk has a tag, and is shorter than a full one.
    if chunks % SEALED_CHUNK_LEN < TAG_LEN as u64 || chunks / SEALED_CHUNK_LEN >= CHUNKS_MAX {
        return None;
    }
    Some(chunks - TAG_LEN as u64 * (chunks / SEALED_CHUNK_LEN + 1))
}

/// Keys derived for one message (steps 1 and 2 of the format).
struct Derived {
    key: Zeroizing<[u8; KEY_LEN]>,
    base_nonce: [u8; NONCE_LEN],
    commitment: [u8; COMMITMENT_LEN],
}

/// Derives 76 bytes with HKDF-Expand-SHA-512 (RFC 5869 §2.3). Feeds HMAC piece by piece, so that
/// `info` needs no buffer.
fn derive(input_key: &[u8; KEY_LEN], salt: &[u8; SALT_LEN], context: &[&[u8]]) -> Derived {
    let hmac = Hmac::<Sha512>::new_from_slice(input_key).expect("HMAC takes keys of any length");
    let block = |previous: &[u8], counter: u8| {
        let mut mac = hmac.clone();
        mac.update(previous);
        mac.update(LABEL);
        mac.update(salt);
        context.iter().for_each(|piece| mac.update(piece));
        mac.update(&[counter]);
        mac.finalize().into_bytes()
    };
    let mut t1 = block(&[], 1);
    let mut t2 = block(&t1, 2);
    let mut okm = Zeroizing::new([0; 2 * 64]);
    okm[..64].copy_from_slice(&t1);
    okm[64..].copy_from_slice(&t2);
    t1.as_mut_slice().zeroize();
    t2.as_mut_slice().zeroize();
    let mut derived =
        Derived { key: Zeroizing::new([0; KEY_LEN]), base_nonce: [0; NONCE_LEN], commitment: [0; COMMITMENT_LEN] };
    derived.key.copy_from_slice(&okm[..32]);
    derived.base_nonce.copy_from_slice(&okm[32..44]);
    derived.commitment.copy_from_slice(&okm[44..76]);
    derived
}

/// Returns the nonce of a chunk: the base nonce XOR the chunk index.
fn nonce(base: &[u8; NONCE_LEN], index: u64) -> [u8; NONCE_LEN] {
    let mut nonce = *base;
    for (byte, index) in nonce[4..].iter_mut().zip(index.to_be_bytes()) {
        *byte ^= index;
    }
    nonce
}

/// Seals one message, chunk by chunk.
///
/// ```
/// use keyhole_core::aead::Portable;
/// use keyhole_core::chunked::{Opener, Sealer};
///
/// // A salt must be fresh and random.
/// let mut sealer = Sealer::new(&Portable, &[1; 32], &[2; 24], &[b"context"]);
/// let mut chunk = *b"temperature 21.5";
/// let tag = sealer.seal_next(&mut chunk);
/// assert!(sealer.is_finished(), "a short chunk ends the message");
///
/// let mut opener = Opener::new(&Portable, &[1; 32], &sealer.prefix(), &[b"context"])?;
/// opener.open_at(0, &mut chunk, &tag)?;
/// assert_eq!(&chunk, b"temperature 21.5");
/// # Ok::<(), keyhole_core::NotAuthentic>(())
/// ```
pub struct Sealer<A> {
    aead: A,
    base_nonce: [u8; NONCE_LEN],
    prefix: [u8; PREFIX_LEN],
    next: u64,
    finished: bool,
}

impl<A: Aead> Sealer<A> {
    /// Starts a message. The salt must be fresh and random; the context is the concatenation of its
    /// pieces.
    pub fn new<E: Engine<Aead = A>>(
        engine: &E,
        input_key: &[u8; KEY_LEN],
        salt: &[u8; SALT_LEN],
        context: &[&[u8]],
    ) -> Self {
        let derived = derive(input_key, salt, context);
        let mut prefix = [0; PREFIX_LEN];
        prefix[..SALT_LEN].copy_from_slice(salt);
        prefix[SALT_LEN..].copy_from_slice(&derived.commitment);
        Sealer { aead: engine.aead(&derived.key), base_nonce: derived.base_nonce, prefix, next: 0, finished: false }
    }

    /// Returns the prefix of the message: salt and commitment.
    pub fn prefix(&self) -> [u8; PREFIX_LEN] {
        self.prefix
    }

    /// Encrypts the next chunk in place and returns its tag.
    ///
    /// A message consists of chunks of exactly [`CHUNK_LEN`] bytes, followed by one shorter chunk,
    /// possibly empty, which ends it.
    ///
    /// # Panics
    /// If the chunk is longer than [`CHUNK_LEN`] or the message has ended. Both are bugs in the
    /// caller; no input causes them.
    pub fn seal_next(&mut self, chunk: &mut [u8]) -> [u8; TAG_LEN] {
        assert!(chunk.len() <= CHUNK_LEN, "a chunk has at most {CHUNK_LEN} bytes");
        assert!(!self.finished && self.next < CHUNKS_MAX, "the message has ended");
        let tag = self.aead.seal(&nonce(&self.base_nonce, self.next), chunk);
        self.next += 1;
        self.finished = chunk.len() < CHUNK_LEN;
        tag
    }

    /// Starts the next chunk, to be encrypted piece by piece, for callers that cannot buffer a full
    /// chunk.
    ///
    /// A chunk that is started and not finished ends the message: it cannot be opened or extended.
    ///
    /// # Panics
    /// If the message has ended, like [`seal_next`](Self::seal_next).
    pub fn begin_next(&mut self) -> ChunkSealer<'_, A> {
        assert!(!self.finished && self.next < CHUNKS_MAX, "the message has ended");
        let pieces = Pieces::new(&mut self.aead, &nonce(&self.base_nonce, self.next));
        self.next += 1;
        self.finished = true;
        ChunkSealer { sealer: self, pieces, len: 0 }
    }

    /// Returns whether the last chunk has been sealed.
    pub fn is_finished(&self) -> bool {
        self.finished
    }
}

/// An unfinished chunk: see [`Sealer::begin_next`].
pub struct ChunkSealer<'s, A> {
    sealer: &'s mut Sealer<A>,
    pieces: Pieces,
    len: usize,
}

impl<A: Aead> ChunkSealer<'_, A> {
    /// Encrypts the next piece in place. Pieces have any length.
    ///
    /// # Panics
    /// If the chunk becomes longer than [`CHUNK_LEN`].
    pub fn seal(&mut self, piece: &mut [u8]) {
        self.len += piece.len();
        assert!(self.len <= CHUNK_LEN, "a chunk has at most {CHUNK_LEN} bytes");
        self.pieces.encrypt(&mut self.sealer.aead, piece);
    }

    /// Finishes the chunk and returns its tag. A chunk shorter than [`CHUNK_LEN`] ends the message.
    pub fn finish(self) -> [u8; TAG_LEN] {
        self.sealer.finished = self.len < CHUNK_LEN;
        self.pieces.tag()
    }
}

/// Opens the chunks of one message, in any order. See [`Sealer`] for an example.
pub struct Opener<A> {
    aead: A,
    base_nonce: [u8; NONCE_LEN],
}

impl<A: Aead> Opener<A> {
    /// Starts opening the message that begins with `prefix`.
    ///
    /// # Errors
    /// [`NotAuthentic`] if the commitment does not match the key, salt and context.
    pub fn new<E: Engine<Aead = A>>(
        engine: &E,
        input_key: &[u8; KEY_LEN],
        prefix: &[u8; PREFIX_LEN],
        context: &[&[u8]],
    ) -> Result<Self, NotAuthentic> {
        let mut salt = [0; SALT_LEN];
        salt.copy_from_slice(&prefix[..SALT_LEN]);
        let derived = derive(input_key, &salt, context);
        if !bool::from(derived.commitment.ct_eq(&prefix[SALT_LEN..])) {
            return Err(NotAuthentic);
        }
        Ok(Opener { aead: engine.aead(&derived.key), base_nonce: derived.base_nonce })
    }

    /// Verifies and decrypts chunk `index` in place. A chunk shorter than [`CHUNK_LEN`] is the last
    /// one of the message.
    ///
    /// # Errors
    /// [`NotAuthentic`] if authentication fails. The chunk is then wiped.
    pub fn open_at(&mut self, index: u64, chunk: &mut [u8], tag: &[u8; TAG_LEN]) -> Result<(), NotAuthentic> {
        if chunk.len() > CHUNK_LEN || index >= CHUNKS_MAX {
            chunk.zeroize();
            return Err(NotAuthentic);
        }
        self.aead.open(&nonce(&self.base_nonce, index), chunk, tag)
    }
}

/// Seals a message of one chunk and returns its length.
///
/// On entry `out[PREFIX_LEN..PREFIX_LEN + plaintext_len]` holds the plaintext; on return `out`
/// holds the message. Returns `None` if `out` is too short or the plaintext does not fit one chunk.
pub(crate) fn seal_single<E: Engine>(
    engine: &E,
    input_key: &[u8; KEY_LEN],
    salt: &[u8; SALT_LEN],
    context: &[&[u8]],
    plaintext_len: usize,
    out: &mut [u8],
) -> Option<usize> {
    if plaintext_len >= CHUNK_LEN {
        return None;
    }
    let (prefix, rest) = out.split_at_mut_checked(PREFIX_LEN)?;
    let (chunk, rest) = rest.split_at_mut_checked(plaintext_len)?;
    let tag = rest.get_mut(..TAG_LEN)?;
    let mut sealer = Sealer::new(engine, input_key, salt, context);
    prefix.copy_from_slice(&sealer.prefix());
    tag.copy_from_slice(&sealer.seal_next(chunk));
    Some(PREFIX_LEN + plaintext_len + TAG_LEN)
}

/// Opens a message of one chunk in place, in the first of these contexts that it was sealed in.
/// Returns the index of the context and the range of the plaintext.
pub(crate) fn open_single<E: Engine>(
    engine: &E,
    input_key: &[u8; KEY_LEN],
    contexts: &[&[&[u8]]],
    message: &mut [u8],
) -> Result<(usize, Range<usize>), NotAuthentic> {
    let (prefix, rest) = message.split_first_chunk_mut::<PREFIX_LEN>().ok_or(NotAuthentic)?;
    let (chunk, tag) = rest.split_last_chunk_mut::<TAG_LEN>().ok_or(NotAuthentic)?;
    if chunk.len() >= CHUNK_LEN {
        return Err(NotAuthentic);
    }
    // The commitment decides which context it is, before anything is decrypted.
    let opener = |context: &&[&[u8]]| Opener::new(engine, input_key, prefix, context).ok();
    let found = contexts.iter().enumerate().find_map(|(i, context)| Some((i, opener(context)?)));
    let (index, mut opener) = found.ok_or(NotAuthentic)?;
    opener.open_at(0, chunk, tag)?;
    Ok((index, PREFIX_LEN..PREFIX_LEN + chunk.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_lengths_convert_both_ways() {
        let chunk = CHUNK_LEN as u64;
        let sealed = SEALED_CHUNK_LEN;
        for plaintext in [0, 1, 15, 16, chunk - 1, chunk, chunk + 1, 5 * chunk, 5 << 40] {
            let message = message_len(plaintext).unwrap();
            assert_eq!(plaintext_len(message), Some(plaintext));
        }
        assert_eq!(message_len(0), Some(72));
        assert_eq!(message_len(chunk), Some(72 + chunk + 16));
        for invalid in [0, 55, 56, 71, 56 + sealed, 56 + sealed + 15, 56 + 2 * sealed] {
            assert_eq!(plaintext_len(invalid), None, "{invalid}");
        }
        assert_eq!(tag_count((CHUNKS_MAX - 1) * chunk), CHUNKS_MAX);
        assert!(message_len((CHUNKS_MAX - 1) * chunk + chunk - 1).is_some());
        assert_eq!(message_len(CHUNKS_MAX * chunk), None);
        assert_eq!(message_len(u64::MAX), None);
        assert_eq!(plaintext_len(u64::MAX), None);
    }
}
