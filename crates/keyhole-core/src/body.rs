//! How the bytes of an object, or of a part of one, are bound to it (see [`format`](crate::format), part 3).

use md5::{Digest, Md5};
use sha2::Sha512;

use crate::DataKey;
use crate::aead::Engine;
use crate::chunked::{open_single, seal_single};
use crate::head::{Checksums, Head, HeadError, OpenError};
use crate::limits::{DIGEST_MAX, PREFIX_LEN, SALT_LEN, TAG_LEN};

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

/// Seals the checksums of a part under the data key, bound to the part's number and body; bytes written to `out`, for
/// which [`PART_INFO_MAX`] is always enough. The salt must be fresh and random.
///
/// # Errors
/// [`HeadError::TooLong`] where `out` is too short.
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
    let len = map.encode(out.get_mut(PREFIX_LEN..).ok_or(HeadError::TooLong)?)?;
    let context = labelled(PART_LABEL, part_number);
    seal_single(engine, data_key.expose(), salt, &[&context, body_salt], len, out).ok_or(HeadError::TooLong)
}

/// Opens what [`seal_part_info`] made, in place.
///
/// # Errors
/// [`OpenError`]; what holds anything but checksums is malformed.
pub fn open_part_info<E: Engine>(
    engine: &E,
    data_key: &DataKey,
    part_number: u32,
    body_salt: &[u8; SALT_LEN],
    sealed: &mut [u8],
) -> Result<Checksums, OpenError> {
    let context = labelled(PART_LABEL, part_number);
    let map = open_single(engine, data_key.expose(), &[&context, body_salt], sealed)?;
    let head = Head::decode(map)?;
    match head.is_checksums_only() {
        true => Ok(head.checksums),
        false => Err(OpenError::Malformed(HeadError::Unknown)),
    }
}
