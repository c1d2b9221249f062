//! Binds the bytes of an object or part to its object head (see [`format`](crate::format), part 3).

use core::fmt;

use md5::{Digest, Md5};
use sha2::Sha512;

use crate::DataKey;
use crate::aead::Engine;
use crate::chunked::plaintext_len;
use crate::head::{ChecksumAlgorithm, Checksums, Head, HeadError, OpenError, open_map, seal_map};
use crate::limits::{DIGESTS_LEN, PART_NUMBER_MAX, PREFIX_LEN, SALT_LEN, TAG_LEN};

const BODY_LABEL: &[u8; 15] = b"keyhole.body.v1";
const PART_LABEL: &[u8; 15] = b"keyhole.part.v1";

/// Maximum length of a sealed part info, in bytes: prefix and tag of the message, a map of two
/// entries, and a digest of each algorithm, with one byte for its key and two for its length.
pub const PART_INFO_MAX: usize = PREFIX_LEN + 8 + 3 * ChecksumAlgorithm::ALL.len() + DIGESTS_LEN + TAG_LEN;

/// Returns the context of a body's message. `part_number` is 0 for an object without parts.
pub const fn context(part_number: u32) -> [u8; 19] {
    labelled(BODY_LABEL, part_number)
}

const fn labelled(label: &[u8; 15], part_number: u32) -> [u8; 19] {
    let mut context = [0; 19];
    context.split_at_mut(15).0.copy_from_slice(label);
    context.split_at_mut(15).1.copy_from_slice(&part_number.to_be_bytes());
    context
}

/// Returns the ETag of a body: the first 16 bytes of its salt. It is random, and known before the
/// body is received.
pub fn etag(salt: &[u8; SALT_LEN]) -> [u8; 16] {
    let mut etag = [0; 16];
    etag.copy_from_slice(&salt[..16]);
    etag
}

/// ETag of a multipart object: the MD5 of the parts' ETags, as in S3.
#[derive(Clone, Default)]
pub struct MultipartEtag(Md5);

impl MultipartEtag {
    /// Creates the ETag of no parts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the ETag of the next part.
    pub fn update(&mut self, etag: &[u8; 16]) {
        self.0.update(etag);
    }

    /// Returns the digest. The ETag's text is the digest in hex, a hyphen, and the number of parts.
    pub fn finish(self) -> [u8; 16] {
        self.0.finalize().into()
    }
}

/// Manifest of a multipart object. Binds the object head to exactly these bodies in this order.
#[derive(Clone, Default)]
pub struct Manifest(Sha512);

impl Manifest {
    /// Creates the manifest of no parts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next part: its number, and the length and salt of its body's message.
    pub fn update(&mut self, part_number: u32, message_len: u64, salt: &[u8; SALT_LEN]) {
        self.0.update(part_number.to_be_bytes());
        self.0.update(message_len.to_be_bytes());
        self.0.update(salt);
    }

    /// Returns the manifest.
    pub fn finish(self) -> [u8; 32] {
        let digest = self.0.finalize();
        let mut manifest = [0; 32];
        manifest.copy_from_slice(&digest[..32]);
        manifest
    }
}

/// ETag of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Etag {
    /// The first 16 bytes of the body's salt, or the digest of the parts' ETags.
    pub digest: [u8; 16],
    /// Number of parts; 0 for an object that was not uploaded in parts.
    pub parts: u32,
}

/// Formats the digest as lower-case hex, followed by `-n` for `n` parts; without quotes.
impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        if self.parts > 0 { write!(f, "-{}", self.parts) } else { Ok(()) }
    }
}

/// Bodies of an object, collected in order, to be checked against its object head.
///
/// ```
/// use keyhole_core::body::{Binding, Bodies};
/// use keyhole_core::chunked::message_len;
/// use keyhole_core::head::Head;
///
/// let mut bodies = Bodies::new();
/// bodies.push(0, message_len(16).unwrap(), &[3; 24])?;
/// let head = Head { plaintext_length: Some(16), ..Head::default() };
/// assert_eq!(bodies.check(&head)?, Binding::Bound);
/// # Ok::<(), keyhole_core::body::BindingError>(())
/// ```
#[derive(Clone, Default)]
pub struct Bodies {
    count: u32,
    /// Plaintext length and ETag, if the object is one body without part number.
    whole: Option<(u64, [u8; 16])>,
    manifest: Manifest,
    etag: MultipartEtag,
}

/// How strictly an object head binds the object's bodies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Binding {
    /// The object head was sealed for exactly these bodies.
    Bound,
    /// The upload was completed without the key: each part authenticates, but the selection of
    /// parts does not. Compare the ETag with one that the client has kept.
    Unbound,
}

/// Mismatch between an object head and the object's bodies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BindingError {
    /// The number of bodies is 0 or above [`PART_NUMBER_MAX`], or a body's length is not a message
    /// length.
    Bodies,
    /// The plaintext length differs from the length in the object head.
    Length,
    /// The object head describes a multipart object and the bodies do not, or vice versa.
    Parts,
    /// A part is missing, duplicated or out of order, or is another attempt than the one in the
    /// manifest.
    Manifest,
    /// The object head declares checksums but lacks the manifest, which completion with the key
    /// adds.
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
    /// Creates an empty collection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next body: its part number (0 for the body of an object without parts), and the
    /// length and salt of its message.
    ///
    /// # Errors
    /// [`BindingError::Bodies`] for an impossible length or too many bodies,
    /// [`BindingError::Parts`] if a body with part number 0 is not the only one.
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

    /// Returns the ETag of the object.
    pub fn etag(&self) -> Etag {
        match self.whole {
            Some((_, digest)) => Etag { digest, parts: 0 },
            None => Etag { digest: self.etag.clone().finish(), parts: self.count },
        }
    }

    /// Returns the manifest, if the object has parts.
    pub fn manifest(&self) -> Option<[u8; 32]> {
        self.whole.is_none().then(|| self.manifest.clone().finish())
    }

    /// Checks the bodies against the opened object head. Call this before relying on the length of
    /// a part.
    ///
    /// # Errors
    /// [`BindingError`] describes the mismatch.
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

/// Checks the only body of an object without parts against the opened object head. Equivalent to
/// [`Bodies`] with one body, but skips the hashes of parts.
///
/// # Errors
/// [`BindingError`] describes the mismatch.
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

/// Seals the checksums of a part under the data key, bound to the part's number and body, and
/// returns the length written to `out`.
///
/// [`PART_INFO_MAX`] bytes always suffice. The salt must be fresh and random.
///
/// # Errors
/// [`HeadError::TooLong`] if `out` is too short. `out` is then wiped.
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

/// Opens a part info in place and returns its checksums.
///
/// # Errors
/// [`OpenError::NotAuthentic`] if authentication fails, [`OpenError::Malformed`] if the map
/// contains anything except checksums. `sealed` is then wiped.
pub fn open_part_info<E: Engine>(
    engine: &E,
    data_key: &DataKey,
    part_number: u32,
    body_salt: &[u8; SALT_LEN],
    sealed: &mut [u8],
) -> Result<Checksums, OpenError> {
    let context = labelled(PART_LABEL, part_number);
    let (_, head) = open_map(engine, data_key.expose(), &[&[&context, body_salt]], sealed, |_, head| {
        if head.is_checksums_only() { Ok(()) } else { Err(HeadError::Unknown) }
    })?;
    Ok(head.checksums)
}
