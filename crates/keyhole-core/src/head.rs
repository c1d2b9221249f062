//! The object head: data key, metadata and checksums as a deterministic CBOR map (see
//! [`format`](crate::format), part 2), sealed under the customer key and bound to bucket and key
//! name.

mod error;
mod kind;

use core::fmt;
use core::ops::Range;

use zeroize::Zeroize;

use crate::CustomerKey;
use crate::aead::Engine;
use crate::cbor::{Reader, Writer};
use crate::chunked::{open_single, seal_single};
use crate::limits::{BUCKET_MAX, DIGESTS_LEN, HEAD_MAX, KEY_LEN, OBJECT_KEY_MAX, PREFIX_LEN, SALT_LEN};

pub use error::{HeadError, OpenError};
pub use kind::{HeadId, HeadKind, open_head_of, open_stored_head, seal_head_of};

const VERSION: u64 = 1;

/// Keys of the map.
mod key {
    pub(super) const VERSION: u64 = 0;
    pub(super) const DATA_KEY: u64 = 1;
    pub(super) const PLAINTEXT_LENGTH: u64 = 2;
    pub(super) const FIRST_FIELD: u64 = 3;
    pub(super) const LAST_FIELD: u64 = 8;
    pub(super) const USER_METADATA: u64 = 9;
    pub(super) const CHECKSUMS: u64 = 10;
    pub(super) const MANIFEST: u64 = 11;
    pub(super) const DECLARED: u64 = 12;
}

/// Checksum algorithms of S3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ChecksumAlgorithm {
    /// CRC-32 (ISO HDLC), 4 bytes.
    Crc32 = 1,
    /// CRC-32C (Castagnoli), 4 bytes.
    Crc32c = 2,
    /// CRC-64/NVME, 8 bytes.
    Crc64Nvme = 3,
    /// SHA-1, 20 bytes.
    Sha1 = 4,
    /// SHA-256, 32 bytes.
    Sha256 = 5,
    /// The MD5 of `Content-MD5`, 16 bytes.
    ContentMd5 = 6,
    /// SHA-512, 64 bytes.
    Sha512 = 7,
    /// The MD5 that is a checksum of its own, 16 bytes.
    Md5 = 8,
    /// XXH64, 8 bytes.
    XxHash64 = 9,
    /// XXH3 of 64 bits, 8 bytes.
    XxHash3 = 10,
    /// XXH3 of 128 bits, 16 bytes.
    XxHash128 = 11,
}

impl ChecksumAlgorithm {
    /// All algorithms, in numeric order.
    pub const ALL: [ChecksumAlgorithm; 11] = [
        Self::Crc32,
        Self::Crc32c,
        Self::Crc64Nvme,
        Self::Sha1,
        Self::Sha256,
        Self::ContentMd5,
        Self::Sha512,
        Self::Md5,
        Self::XxHash64,
        Self::XxHash3,
        Self::XxHash128,
    ];

    /// Returns the length of the digest in bytes.
    pub const fn digest_len(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme | Self::XxHash64 | Self::XxHash3 => 8,
            Self::ContentMd5 | Self::Md5 | Self::XxHash128 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// Returns the place of the digest among the digests of all algorithms.
    const fn place(self) -> Range<usize> {
        let mut start = 0;
        let mut i = 0;
        while i < self as usize - 1 {
            start += Self::ALL[i].digest_len();
            i += 1;
        }
        start..start + self.digest_len()
    }

    const fn bit(self) -> u16 {
        1 << (self as u8 - 1)
    }

    fn from_number(number: u64) -> Result<Self, HeadError> {
        Self::ALL.into_iter().find(|algorithm| *algorithm as u64 == number).ok_or(HeadError::Unknown)
    }
}

/// Input of the checksum of a multipart object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ChecksumType {
    /// The object's bytes.
    FullObject = 0,
    /// The parts' checksums.
    Composite = 1,
}

/// A set of checksums: at most one digest per algorithm.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Checksums {
    /// One bit for each algorithm with a digest.
    present: u16,
    /// The digests of all algorithms in numeric order; zero where there is none.
    digests: [u8; DIGESTS_LEN],
}

const _: () = assert!(ChecksumAlgorithm::ALL[ChecksumAlgorithm::ALL.len() - 1].place().end == DIGESTS_LEN);

impl Default for Checksums {
    fn default() -> Self {
        Checksums { present: 0, digests: [0; DIGESTS_LEN] }
    }
}

impl Checksums {
    /// Adds or replaces a digest.
    ///
    /// # Errors
    /// [`HeadError::Length`] if `digest` does not have the algorithm's digest length.
    pub fn set(&mut self, algorithm: ChecksumAlgorithm, digest: &[u8]) -> Result<(), HeadError> {
        if digest.len() != algorithm.digest_len() {
            return Err(HeadError::Length);
        }
        self.digests[algorithm.place()].copy_from_slice(digest);
        self.present |= algorithm.bit();
        Ok(())
    }

    /// Returns the digest of an algorithm.
    pub fn get(&self, algorithm: ChecksumAlgorithm) -> Option<&[u8]> {
        (self.present & algorithm.bit() != 0).then(|| &self.digests[algorithm.place()])
    }

    /// Iterates over the digests, in numeric order of the algorithms.
    pub fn iter(&self) -> impl Iterator<Item = (ChecksumAlgorithm, &[u8])> {
        ChecksumAlgorithm::ALL.into_iter().filter_map(|algorithm| Some((algorithm, self.get(algorithm)?)))
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.present == 0
    }
}

impl fmt::Debug for Checksums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Response headers that are stored with an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Field {
    /// `Content-Type`
    ContentType = 3,
    /// `Cache-Control`
    CacheControl = 4,
    /// `Content-Disposition`
    ContentDisposition = 5,
    /// `Content-Encoding`
    ContentEncoding = 6,
    /// `Content-Language`
    ContentLanguage = 7,
    /// `Expires`
    Expires = 8,
}

impl Field {
    /// All fields, in numeric order: `ALL[i]` corresponds to `fields[i]` of a [`Head`].
    pub const ALL: [Field; 6] = [
        Self::ContentType,
        Self::CacheControl,
        Self::ContentDisposition,
        Self::ContentEncoding,
        Self::ContentLanguage,
        Self::Expires,
    ];

    /// Returns the header name in lower case.
    pub const fn header_name(self) -> &'static str {
        match self {
            Self::ContentType => "content-type",
            Self::CacheControl => "cache-control",
            Self::ContentDisposition => "content-disposition",
            Self::ContentEncoding => "content-encoding",
            Self::ContentLanguage => "content-language",
            Self::Expires => "expires",
        }
    }
}

/// User metadata: values by name, without the prefix `x-amz-meta-`.
#[derive(Clone, Copy)]
pub struct UserMetadata<'a>(Entries<'a>);

#[derive(Clone, Copy)]
enum Entries<'a> {
    List(&'a [(&'a str, &'a [u8])]),
    /// Validated encoding, after the array header.
    Encoded(&'a [u8]),
}

impl<'a> UserMetadata<'a> {
    /// Creates metadata to be encoded. Names must be lower-case tokens in ascending byte order.
    pub const fn new(list: &'a [(&'a str, &'a [u8])]) -> Self {
        UserMetadata(Entries::List(list))
    }

    /// Iterates over names and values, in byte order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let (list, encoded): (&[_], &[u8]) = match self.0 {
            Entries::List(list) => (list, &[]),
            Entries::Encoded(encoded) => (&[], encoded),
        };
        let mut reader = Reader::new(encoded);
        let decoded = core::iter::from_fn(move || match reader.rest() {
            [] => None,
            _ => metadata_entry(&mut reader).ok(),
        });
        list.iter().copied().chain(decoded)
    }

    /// Returns whether the metadata is empty.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl Default for UserMetadata<'_> {
    fn default() -> Self {
        UserMetadata::new(&[])
    }
}

/// An object head. Borrows from the values to be encoded or from the decoded bytes.
///
/// ```
/// use keyhole_core::CustomerKey;
/// use keyhole_core::aead::Portable;
/// use keyhole_core::head::{Head, open_head, seal_head};
///
/// let customer_key = CustomerKey::new([1; 32]);
/// let head = Head { data_key: Some(&[2; 32]), plaintext_length: Some(16), ..Head::default() };
/// let mut sealed = [0; 256];
/// // A salt must be fresh and random.
/// let len = seal_head(&Portable, &customer_key, &[3; 24], "edge", "reading", &head, &mut sealed)?;
/// let opened = open_head(&Portable, &customer_key, "edge", "reading", &mut sealed[..len])?;
/// assert_eq!(opened.plaintext_length, Some(16));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Default)]
pub struct Head<'a> {
    /// Data key: present in every sealed head, absent in unsealed ones.
    pub data_key: Option<&'a [u8; KEY_LEN]>,
    /// Plaintext length in bytes of an object that was not uploaded in parts.
    pub plaintext_length: Option<u64>,
    /// Stored response headers, in the order of [`Field::ALL`].
    pub fields: [Option<&'a [u8]>; 6],
    /// User metadata.
    pub user_metadata: UserMetadata<'a>,
    /// Checksums of the whole plaintext.
    pub checksums: Checksums,
    /// Manifest that binds a multipart object to its parts.
    pub manifest: Option<[u8; 32]>,
    /// Checksum algorithm and type declared when the multipart upload was created.
    pub declared: Option<(ChecksumAlgorithm, ChecksumType)>,
}

impl<'a> Head<'a> {
    /// Encodes the map and returns the length written to `out`.
    ///
    /// # Errors
    /// [`HeadError::TooLong`], and [`HeadError::Text`] or [`HeadError::Order`] for values that the
    /// format does not allow.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, HeadError> {
        let room = out.len().min(HEAD_MAX);
        let mut w = Writer::new(&mut out[..room]);
        let metadata_len = self.user_metadata.iter().count();
        let checksums_len = self.checksums.iter().count();
        let entries = 1
            + usize::from(self.data_key.is_some())
            + usize::from(self.plaintext_length.is_some())
            + self.fields.iter().flatten().count()
            + usize::from(metadata_len > 0)
            + usize::from(checksums_len > 0)
            + usize::from(self.manifest.is_some())
            + usize::from(self.declared.is_some());
        w.map(entries)?;
        w.unsigned(key::VERSION)?;
        w.unsigned(VERSION)?;
        if let Some(data_key) = self.data_key {
            w.unsigned(key::DATA_KEY)?;
            w.bytes(data_key)?;
        }
        if let Some(len) = self.plaintext_length {
            w.unsigned(key::PLAINTEXT_LENGTH)?;
            w.unsigned(len)?;
        }
        for (field, value) in Field::ALL.into_iter().zip(self.fields) {
            if let Some(value) = value {
                w.unsigned(field as u64)?;
                w.bytes(checked_value(value)?)?;
            }
        }
        if metadata_len > 0 {
            w.unsigned(key::USER_METADATA)?;
            self.encode_metadata(&mut w, metadata_len)?;
        }
        if checksums_len > 0 {
            w.unsigned(key::CHECKSUMS)?;
            w.map(checksums_len)?;
            for (algorithm, digest) in self.checksums.iter() {
                w.unsigned(algorithm as u64)?;
                w.bytes(digest)?;
            }
        }
        if let Some(manifest) = &self.manifest {
            w.unsigned(key::MANIFEST)?;
            w.bytes(manifest)?;
        }
        if let Some((algorithm, kind)) = self.declared {
            w.unsigned(key::DECLARED)?;
            w.array(2)?;
            w.unsigned(algorithm as u64)?;
            w.unsigned(kind as u64)?;
        }
        Ok(w.len())
    }

    fn encode_metadata(&self, w: &mut Writer<'_>, len: usize) -> Result<(), HeadError> {
        w.array(len)?;
        let mut last = None;
        for (name, value) in self.user_metadata.iter() {
            check_order(&mut last, checked_name(name)?)?;
            w.array(2)?;
            w.text(name)?;
            w.bytes(checked_value(value)?)?;
        }
        Ok(())
    }

    /// Decodes a map. Rejects everything except the deterministic encoding.
    ///
    /// # Errors
    /// [`HeadError`] describes the first violation.
    pub fn decode(bytes: &'a [u8]) -> Result<Head<'a>, HeadError> {
        if bytes.len() > HEAD_MAX {
            return Err(HeadError::TooLong);
        }
        let mut r = Reader::new(bytes);
        let entries = r.map()?;
        let mut head = Head::default();
        // Keys ascend, so the version comes first if it is present.
        if entries == 0 || r.unsigned()? != key::VERSION || r.unsigned()? != VERSION {
            return Err(HeadError::Version);
        }
        let mut last = Some(key::VERSION);
        for _ in 1..entries {
            let key = r.unsigned()?;
            check_order(&mut last, key)?;
            head.decode_entry(key, &mut r)?;
        }
        if r.rest().is_empty() { Ok(head) } else { Err(HeadError::Trailing) }
    }

    fn decode_entry(&mut self, key: u64, r: &mut Reader<'a>) -> Result<(), HeadError> {
        match key {
            key::DATA_KEY => self.data_key = Some(r.array_of_bytes()?),
            key::PLAINTEXT_LENGTH => self.plaintext_length = Some(r.unsigned()?),
            key::FIRST_FIELD..=key::LAST_FIELD => {
                self.fields[(key - key::FIRST_FIELD) as usize] = Some(checked_value(r.bytes()?)?);
            }
            key::USER_METADATA => self.user_metadata = decode_metadata(r)?,
            key::CHECKSUMS => self.checksums = decode_checksums(r)?,
            key::MANIFEST => self.manifest = Some(*r.array_of_bytes()?),
            key::DECLARED => {
                if r.array()? != 2 {
                    return Err(HeadError::Length);
                }
                let algorithm = ChecksumAlgorithm::from_number(r.unsigned()?)?;
                let kind = match r.unsigned()? {
                    0 => ChecksumType::FullObject,
                    1 => ChecksumType::Composite,
                    _ => return Err(HeadError::Unknown),
                };
                self.declared = Some((algorithm, kind));
            }
            _ => return Err(HeadError::Unknown),
        }
        Ok(())
    }

    /// Returns whether the map contains only checksums, like a part info.
    pub(crate) fn is_checksums_only(&self) -> bool {
        self.data_key.is_none()
            && self.plaintext_length.is_none()
            && self.fields.iter().all(Option::is_none)
            && self.user_metadata.is_empty()
            && self.manifest.is_none()
            && self.declared.is_none()
    }
}

/// Redacts the data key and prints only the numbers of fields and metadata entries.
impl fmt::Debug for Head<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head")
            .field("data_key", &self.data_key.map(|_| "(redacted)"))
            .field("plaintext_length", &self.plaintext_length)
            .field("fields", &self.fields.iter().flatten().count())
            .field("user_metadata", &self.user_metadata.iter().count())
            .field("checksums", &self.checksums)
            .field("manifest", &self.manifest)
            .field("declared", &self.declared)
            .finish()
    }
}

/// Seals an object head under the customer key, bound to the bucket and key name, and returns the
/// length written to `out`.
///
/// [`SEALED_HEAD_MAX`](crate::limits::SEALED_HEAD_MAX) bytes always suffice. The salt must be fresh
/// and random.
///
/// # Errors
/// [`HeadError`] if the object head cannot be encoded or lacks the data key. Anything written to
/// `out` is then wiped, because it may include the data key.
pub fn seal_head<E: Engine>(
    engine: &E,
    customer_key: &CustomerKey,
    salt: &[u8; SALT_LEN],
    bucket: &str,
    key: &str,
    head: &Head<'_>,
    out: &mut [u8],
) -> Result<usize, HeadError> {
    let id = HeadId { kind: HeadKind::Object, bucket, key };
    seal_head_of(engine, customer_key, salt, &id, head, out)
}

/// Encodes and seals a map. Wipes `out` on errors.
pub(crate) fn seal_map<E: Engine>(
    engine: &E,
    input_key: &[u8; KEY_LEN],
    salt: &[u8; SALT_LEN],
    context: &[&[u8]],
    map: &Head<'_>,
    out: &mut [u8],
) -> Result<usize, HeadError> {
    let place = out.get_mut(PREFIX_LEN..).ok_or(HeadError::TooLong);
    let sealed = place
        .and_then(|place| map.encode(place))
        .and_then(|len| seal_single(engine, input_key, salt, context, len, out).ok_or(HeadError::TooLong));
    if sealed.is_err() {
        out.zeroize();
    }
    sealed
}

/// Opens a sealed head in place. On return `sealed` holds the data key: the caller must wipe it.
///
/// # Errors
/// [`OpenError::NotAuthentic`] for another key or other names, before anything is decrypted;
/// [`OpenError::Malformed`] for an invalid object head. `sealed` is wiped on every error.
pub fn open_head<'a, E: Engine>(
    engine: &E,
    customer_key: &CustomerKey,
    bucket: &str,
    key: &str,
    sealed: &'a mut [u8],
) -> Result<Head<'a>, OpenError> {
    open_head_of(engine, customer_key, &HeadId { kind: HeadKind::Object, bucket, key }, sealed)
}

/// Opens a map sealed by [`seal_map`] in one of these contexts, if it passes `check`, and returns
/// the index of the context. Wipes `sealed` on errors.
pub(crate) fn open_map<'a, E: Engine>(
    engine: &E,
    input_key: &[u8; KEY_LEN],
    contexts: &[&[&[u8]]],
    sealed: &'a mut [u8],
    check: impl Fn(usize, &Head<'_>) -> Result<(), HeadError>,
) -> Result<(usize, Head<'a>), OpenError> {
    let (index, range) = match open_single(engine, input_key, contexts, sealed) {
        Ok(opened) => opened,
        Err(error) => {
            sealed.zeroize();
            return Err(error.into());
        }
    };
    // Decode twice: once to check, once to return. The returned borrow prevents wiping `sealed`.
    if let Err(error) = Head::decode(&sealed[range.clone()]).and_then(|head| check(index, &head)) {
        sealed.zeroize();
        return Err(error.into());
    }
    Ok((index, Head::decode(&sealed[range])?))
}

fn name_lengths(bucket: &str, key: &str) -> Result<[[u8; 2]; 2], HeadError> {
    if bucket.len() > BUCKET_MAX || key.len() > OBJECT_KEY_MAX {
        return Err(HeadError::Name);
    }
    Ok([(bucket.len() as u16).to_be_bytes(), (key.len() as u16).to_be_bytes()])
}

fn decode_metadata<'a>(r: &mut Reader<'a>) -> Result<UserMetadata<'a>, HeadError> {
    let entries = r.array()?;
    if entries == 0 {
        return Err(HeadError::NotDeterministic);
    }
    let start = r.rest();
    let mut last = None;
    for _ in 0..entries {
        let (name, value) = metadata_entry(r)?;
        check_order(&mut last, checked_name(name)?)?;
        checked_value(value)?;
    }
    Ok(UserMetadata(Entries::Encoded(&start[..start.len() - r.rest().len()])))
}

fn metadata_entry<'a>(r: &mut Reader<'a>) -> Result<(&'a str, &'a [u8]), HeadError> {
    if r.array()? != 2 {
        return Err(HeadError::Length);
    }
    Ok((r.text()?, r.bytes()?))
}

fn decode_checksums(r: &mut Reader<'_>) -> Result<Checksums, HeadError> {
    let entries = r.map()?;
    if entries == 0 {
        return Err(HeadError::NotDeterministic);
    }
    let mut checksums = Checksums::default();
    let mut last = None;
    for _ in 0..entries {
        let number = r.unsigned()?;
        check_order(&mut last, number)?;
        checksums.set(ChecksumAlgorithm::from_number(number)?, r.bytes()?)?;
    }
    Ok(checksums)
}

fn check_order<T: PartialOrd + Copy>(last: &mut Option<T>, this: T) -> Result<(), HeadError> {
    match last.replace(this) {
        Some(last) if last >= this => Err(HeadError::Order),
        _ => Ok(()),
    }
}

/// Rejects control characters except TAB: values become response headers (RFC 9110 §5.5).
fn checked_value(value: &[u8]) -> Result<&[u8], HeadError> {
    let is_control = |byte: &u8| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f;
    if value.iter().any(is_control) { Err(HeadError::Text) } else { Ok(value) }
}

/// Rejects names that are not lower-case tokens: names become part of header names (RFC 9110
/// §5.6.2).
fn checked_name(name: &str) -> Result<&str, HeadError> {
    let is_token = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !name.is_empty() && name.bytes().all(is_token) { Ok(name) } else { Err(HeadError::Text) }
}
