//! How the bytes of an object, or of a part of one, are bound to it (see [`format`](crate::format), part 3).

use core::fmt;

use md5::{Digest, Md5};
use sha2::Sha512;

use crate::DataKey;
use crate::aead::Engine;
use crate::chunked::plaintext_len;
use crate::head::{Checksums, Head, HeadError, OpenError, open_map, seal_map};
use crate::limits::{DIGEST_MAX, PART_NUMBER_MAX, PREFIX_LEN, SALT_LEN, TAG_LEN};

const BODY_LABEL: &[u8; 15] = b"keyhole.body.v1";
const PART_LABEL: &[u8; 15] = b"keyhole.part.v1";

/// Bytes of a sealed part info, at most: the message's prefix and tag, a map of two entries, and six digests with a byte
/// of key and two of length each.
pub const PART_INFO_MAX: usize = PREFIX_LEN + 8 + 6 * (3 + DIGEST_MAX) + TAG_LEN;

/// The context of a body's message: part 0 for an object that was not uploaded in parts.
pub const fn context(part_number: u32) -> [u8; 19] {
    labelled(BODY_LABEL, part_number)
}

const fn labelled(label: &[u8; 15], part_number: u32) -> [u8; 19] {
    let mut context = [0; 19];
    context.split_at_mut(15).0.copy_from_slice(label);
    context.split_at_mut(15).1.copy_from_slice(&part_number.to_be_bytes());
    context
}

/// The ETag of a body: the first 16 bytes of its salt, so it is random, and known before the body is.
pub fn etag(salt: &[u8; SALT_LEN]) -> [u8; 16] {
    let mut etag = [0; 16];
    etag.copy_from_slice(&salt[..16]);
    etag
}

/// The ETag of an object in parts: the MD5 of the parts' ETags, as S3 has it.
#[derive(Clone, Default)]
pub struct MultipartEtag(Md5);

impl MultipartEtag {
    /// Of no part yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next part's ETag.
    pub fn update(&mut self, etag: &[u8; 16]) {
        self.0.update(etag);
    }

    /// The digest; the text is this in hex, a hyphen, and the number of parts.
    pub fn finish(self) -> [u8; 16] {
        self.0.finalize().into()
    }
}

/// The manifest of an object in parts: what binds its head to exactly these bodies in this order.
#[derive(Clone, Default)]
pub struct Manifest(Sha512);

impl Manifest {
    /// Of no part yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next part: its number, the length of its body's message, and that message's salt.
    pub fn update(&mut self, part_number: u32, message_len: u64, salt: &[u8; SALT_LEN]) {
        self.0.update(part_number.to_be_bytes());
        self.0.update(message_len.to_be_bytes());
        self.0.update(salt);
    }

    /// The manifest.
    pub fn finish(self) -> [u8; 32] {
        let digest = self.0.finalize();
        let mut manifest = [0; 32];
        manifest.copy_from_slice(&digest[..32]);
        manifest
    }
}

/// The ETag of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Etag {
    /// The first half of the body's salt, or the digest of the parts' ETags.
    pub digest: [u8; 16],
    /// How many parts; 0 for an object that was not uploaded in parts.
    pub parts: u32,
}

/// Lower-case hex, and `-n` for an object in n parts; without quotes.
impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        if self.parts > 0 { write!(f, "-{}", self.parts) } else { Ok(()) }
    }
}

/// The bodies of an object, gathered in order, to be held against its head.
#[derive(Clone, Default)]
pub struct Bodies {
    count: u32,
    /// Length of the plaintext and ETag, where the first body is no part.
    whole: Option<(u64, [u8; 16])>,
    manifest: Manifest,
    etag: MultipartEtag,
}

/// How firmly a head binds the bodies of its object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Binding {
    /// The head was sealed with exactly these bodies in view.
    Bound,
    /// The upload was completed without the key: each part authenticates, their choice does not. The ETag that a client
    /// has kept tells.
    Unbound,
}

/// Why a head and bodies do not belong together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BindingError {
    /// There is no body, or there are more than part numbers, or the length of one is that of no message.
    Bodies,
    /// The plaintext is not as long as the head says.
    Length,
    /// The head is that of an object in parts and the object is not, or the other way round.
    Parts,
    /// A part is missing, doubled, out of place, or another attempt than the head speaks of.
    Manifest,
    /// The head declares checksums and lacks the manifest that completion with the key adds.
    Incomplete,
}

impl fmt::Display for BindingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BindingError::Bodies => "a missing body, an extra body, or an invalid body length",
            BindingError::Length => "the object length differs from the one in its head",
            BindingError::Parts => "the head and the bodies disagree on whether there are parts",
            BindingError::Manifest => "the parts differ from those that the head lists",
            BindingError::Incomplete => "the head declares checksums but lists no parts",
        })
    }
}

impl core::error::Error for BindingError {}

impl Bodies {
    /// None so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next body: its part number (0 for the only body of an object that has no parts), the length of its message,
    /// and that message's salt.
    ///
    /// # Errors
    /// [`BindingError::Bodies`] for an impossible length or a body too many, [`BindingError::Parts`] for a number 0 that is not alone.
    pub fn push(&mut self, part_number: u32, message_len: u64, salt: &[u8; SALT_LEN]) -> Result<(), BindingError> {
        let len = plaintext_len(message_len).ok_or(BindingError::Bodies)?;
        if self.count >= PART_NUMBER_MAX {
            return Err(BindingError::Bodies);
        }
        if self.whole.is_some() || (part_number == 0 && self.count > 0) {
            return Err(BindingError::Parts);
        }
        if part_number == 0 {
            self.whole = Some((len, etag(salt)));
        }
        self.count += 1;
        self.manifest.update(part_number, message_len, salt);
        self.etag.update(&etag(salt));
        Ok(())
    }

    /// The ETag of the object.
    pub fn etag(&self) -> Etag {
        match self.whole {
            Some((_, digest)) => Etag { digest, parts: 0 },
            None => Etag { digest: self.etag.clone().finish(), parts: self.count },
        }
    }

    /// The manifest of the object, if it is in parts.
    pub fn manifest(&self) -> Option<[u8; 32]> {
        self.whole.is_none().then(|| self.manifest.clone().finish())
    }

    /// Holds them against the opened head of their object. To be done before a part's length is used for anything.
    ///
    /// # Errors
    /// [`BindingError`] says what is wrong.
    pub fn check(&self, head: &Head<'_>) -> Result<Binding, BindingError> {
        if self.count == 0 {
            return Err(BindingError::Bodies);
        }
        match (self.whole, head.plaintext_length) {
            (Some((len, _)), _) => check_whole_plaintext(len, head).map(|()| Binding::Bound),
            (None, Some(_)) => Err(BindingError::Parts),
            (None, None) => match head.manifest {
                Some(manifest) if Some(manifest) == self.manifest() => Ok(Binding::Bound),
                Some(_) => Err(BindingError::Manifest),
                None if head.declared.is_some() => Err(BindingError::Incomplete),
                None => Ok(Binding::Unbound),
            },
        }
    }
}

/// Holds the only body of an object that has no parts against the opened head: [`Bodies`] for who reads nothing else, without
/// the hashes of parts.
///
/// # Errors
/// [`BindingError`] says what is wrong.
pub fn check_whole(message_len: u64, head: &Head<'_>) -> Result<(), BindingError> {
    let len = plaintext_len(message_len).ok_or(BindingError::Bodies)?;
    check_whole_plaintext(len, head)
}

fn check_whole_plaintext(len: u64, head: &Head<'_>) -> Result<(), BindingError> {
    match head.plaintext_length {
        _ if head.manifest.is_some() || head.declared.is_some() => Err(BindingError::Parts),
        Some(said) if said != len => Err(BindingError::Length),
        Some(_) => Ok(()),
        None => Err(BindingError::Parts),
    }
}

/// Seals the checksums of a part under the data key, bound to the part's number and body; bytes written to `out`, for
/// which [`PART_INFO_MAX`] is always enough. The salt must be fresh and random.
///
/// # Errors
/// [`HeadError::TooLong`] where `out` is too short; it has been wiped then.
pub fn seal_part_info<E: Engine>(
    engine: &E,
    data_key: &DataKey,
    salt: &[u8; SALT_LEN],
    part_number: u32,
    body_salt: &[u8; SALT_LEN],
    checksums: &Checksums,
    out: &mut [u8],
) -> Result<usize, HeadError> {
    let map = Head { checksums: *checksums, ..Head::default() };
    let context = labelled(PART_LABEL, part_number);
    seal_map(engine, data_key.expose(), salt, &[&context, body_salt], &map, out)
}

/// Opens what [`seal_part_info`] made, in place.
///
/// # Errors
/// [`OpenError`]; what holds anything but checksums is malformed. `sealed` has been wiped then.
pub fn open_part_info<E: Engine>(
    engine: &E,
    data_key: &DataKey,
    part_number: u32,
    body_salt: &[u8; SALT_LEN],
    sealed: &mut [u8],
) -> Result<Checksums, OpenError> {
    let context = labelled(PART_LABEL, part_number);
    let head =
        open_map(engine, data_key.expose(), &[&context, body_salt], sealed, |head| match head.is_checksums_only() {
            true => Ok(()),
            false => Err(HeadError::Unknown),
        })?;
    Ok(head.checksums)
}
