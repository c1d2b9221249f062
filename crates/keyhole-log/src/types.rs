//! What goes into the log and what comes out of it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::body::NewBody;
use crate::shared::Pin;

/// Names a body: one upload's, or one part's, immutable bytes. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BodyId(pub(crate) u64);

/// ETag of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Etag {
    /// The digest.
    pub digest: [u8; 16],
    /// Number of parts; 0 for an object that was not uploaded in parts.
    pub parts: u16,
}

/// Lower-case hex, and `-n` for an object of n parts; no quotes.
impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let text = self.digest.map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        f.write_str(std::str::from_utf8(text.as_flattened()).map_err(|_| fmt::Error)?)?;
        if self.parts > 0 {
            write!(f, "-{}", self.parts)?;
        }
        Ok(())
    }
}

/// The text is not an ETag of this store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseEtagError;

impl fmt::Display for ParseEtagError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an ETag: 32 hex digits, and -n for n parts")
    }
}

impl std::error::Error for ParseEtagError {}

impl FromStr for Etag {
    type Err = ParseEtagError;

    fn from_str(text: &str) -> Result<Self, ParseEtagError> {
        let (hex, parts) = match text.split_once('-') {
            Some((hex, parts)) => {
                let plain = !parts.is_empty() && !parts.starts_with('0') && parts.bytes().all(|b| b.is_ascii_digit());
                (hex, if plain { parts.parse().map_err(|_| ParseEtagError)? } else { return Err(ParseEtagError) })
            }
            None => (text, 0),
        };
        if hex.len() != 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ParseEtagError);
        }
        let mut digest = [0; 16];
        for (byte, digits) in digest.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| ParseEtagError)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| ParseEtagError)?;
        }
        Ok(Etag { digest, parts })
    }
}

/// One body of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Part number; 0 for an object that was not uploaded in parts.
    pub number: u16,
    /// The bytes.
    pub body: BodyId,
    /// Plaintext bytes.
    pub size: u64,
    /// Opaque to the log; zero for a plain body.
    pub salt: [u8; 24],
    /// ETag of the part.
    pub etag: [u8; 16],
}

/// What must hold for a name when a write of it is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    None,
    /// There is no object (If-None-Match: *).
    IfAbsent,
    /// The object has this ETag (If-Match).
    IfMatch(Etag),
    /// The object is the one with this sequence number ([`Object::seq`]), and no write of the name is on its way; else it is a
    /// [`Conflict`](crate::Error::Conflict). Copies have the ETag of their source, and never its sequence number.
    IfSame(u64),
}

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketInfo {
    /// Its name.
    pub name: String,
    /// When it was created, in ms since 1970.
    pub time_ms: u64,
}

/// What a bucket holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketUsage {
    /// Its name.
    pub name: String,
    /// Objects.
    pub objects: u64,
    /// Uploads that are neither completed nor aborted.
    pub uploads: u64,
    /// Plaintext bytes of its objects and of the parts of its uploads.
    pub bytes: u64,
    /// Plaintext bytes that they may have together. `None`: no bound.
    pub quota: Option<u64>,
}

/// What a bucket is set to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BucketSettings {
    /// Plaintext bytes that its objects and the parts of its uploads may have together. `None`: no bound.
    pub quota: Option<u64>,
    /// How long an object lives, in ms since it was stored. `None`: for ever.
    pub expire_ms: Option<u64>,
    /// Opaque to the log, at most [`POLICY_MAX`](crate::limits::POLICY_MAX) bytes.
    pub policy: Vec<u8>,
    /// The same, at most [`LIFECYCLE_MAX`](crate::limits::LIFECYCLE_MAX) bytes.
    pub lifecycle: Arc<[u8]>,
}

/// Where an object's bytes come from.
#[derive(Debug)]
pub enum Content {
    /// A body just written, and its salt (zero for a plain one).
    New(NewBody, [u8; 24]),
    /// The parts of another object, which are shared, not copied; what is kept of them goes along.
    Shared(Object),
}

/// An object to be stored.
#[derive(Debug)]
pub struct PutObject {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// The bytes.
    pub content: Content,
    /// Opaque description, at most [`HEAD_MAX`](crate::limits::HEAD_MAX) bytes.
    pub head: Vec<u8>,
    /// Opaque labels, at most [`LABELS_MAX`](crate::limits::LABELS_MAX) bytes.
    pub labels: Vec<u8>,
    /// Whether the head is sealed (the log only remembers it).
    pub sealed: bool,
    /// The ETag.
    pub etag: Etag,
    /// Plaintext bytes.
    pub size: u64,
    /// When it was stored, in ms since 1970.
    pub time_ms: u64,
    /// What must hold.
    pub condition: Condition,
}

/// A stored object. As long as it is held, its bodies stay readable, whatever happens to its name.
#[derive(Debug, Clone)]
pub struct Object {
    /// Plaintext bytes.
    pub size: u64,
    /// When it was stored, in ms since 1970.
    pub time_ms: u64,
    /// The ETag.
    pub etag: Etag,
    /// Whether the head is sealed.
    pub sealed: bool,
    /// Whether the head must list the parts (the log only remembers it).
    pub bound: bool,
    /// Opaque description.
    pub head: Vec<u8>,
    /// Opaque labels.
    pub labels: Vec<u8>,
    /// What is kept of its parts besides, opaque.
    pub infos: Vec<u8>,
    /// The bodies in order; one with number 0 for an object that was not uploaded in parts.
    pub parts: Vec<Part>,
    /// Sequence number of the write that stored it: tells two versions of a name apart.
    pub seq: u64,
    pub(crate) pin: Pin,
}

/// Which objects to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListObjects {
    /// Only keys that begin with this.
    pub prefix: String,
    /// Keys that contain this after the prefix are rolled up into one common prefix that ends with it.
    pub delimiter: Option<String>,
    /// Only what comes after this key, or after this common prefix and everything under it.
    pub after: Option<String>,
    /// Entries at most, objects and common prefixes together; bounded by [`LIST_MAX`](crate::limits::LIST_MAX).
    pub limit: usize,
}

/// One page of a listing, in the binary order of UTF-8.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Objects and common prefixes.
    pub entries: Vec<Listed>,
    /// Whether there is more after the last entry.
    pub truncated: bool,
}

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// An object.
    Object {
        /// Its key.
        key: String,
        /// Plaintext bytes.
        size: u64,
        /// When it was stored, in ms since 1970.
        time_ms: u64,
        /// The ETag.
        etag: Etag,
        /// Whether its head is sealed.
        sealed: bool,
    },
    /// A common prefix, delimiter included.
    Prefix(String),
}

/// An upload to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateUpload {
    /// The bucket.
    pub bucket: String,
    /// The key of the object to be.
    pub key: String,
    /// Random identity, never used before.
    pub id: [u8; 16],
    /// Opaque description of the object to be.
    pub head: Vec<u8>,
    /// Opaque labels of the object to be, at most [`LABELS_MAX`](crate::limits::LABELS_MAX) bytes.
    pub labels: Vec<u8>,
    /// Whether the head is sealed.
    pub sealed: bool,
    /// When it was created, in ms since 1970.
    pub time_ms: u64,
    /// Checksum algorithm and type, opaque to the log.
    pub declared: Option<(u8, u8)>,
}

/// An upload that exists, or did when this was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadRef {
    /// The bucket.
    pub bucket: String,
    /// The key of the object to be.
    pub key: String,
    /// The identity given at creation.
    pub id: [u8; 16],
    /// Whether its head is sealed.
    pub sealed: bool,
    /// When it was created, in ms since 1970.
    pub time_ms: u64,
    /// Checksum algorithm and type, opaque to the log.
    pub declared: Option<(u8, u8)>,
    /// Sequence number of its creation.
    pub(crate) seq: u64,
}

/// What an upload was created with for the object to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadHead {
    /// Opaque description.
    pub head: Vec<u8>,
    /// Opaque labels.
    pub labels: Vec<u8>,
}

/// A part to be stored. It replaces an earlier attempt at its number.
#[derive(Debug)]
pub struct PutPart {
    /// The upload.
    pub upload: UploadRef,
    /// 1 to [`PARTS_MAX`](crate::limits::PARTS_MAX).
    pub number: u16,
    /// The bytes.
    pub content: NewBody,
    /// Opaque to the log; zero for a plain part.
    pub salt: [u8; 24],
    /// ETag of the part.
    pub etag: [u8; 16],
    /// Plaintext bytes.
    pub size: u64,
    /// When it was stored, in ms since 1970.
    pub time_ms: u64,
    /// Opaque, at most [`INFO_MAX`](crate::limits::INFO_MAX) bytes.
    pub info: Vec<u8>,
}

/// The current attempt at a part of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartInfo {
    /// Part number.
    pub number: u16,
    /// Plaintext bytes.
    pub size: u64,
    /// ETag of the part.
    pub etag: [u8; 16],
    /// When it was stored, in ms since 1970.
    pub time_ms: u64,
    /// What an object made of it holds.
    pub part: Part,
    /// Identities of its bucket and its upload.
    pub(crate) of: (u64, u64),
    /// Sequence number of its record.
    pub(crate) seq: u64,
}

/// An upload to be made an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompleteUpload {
    /// The upload.
    pub upload: UploadRef,
    /// The parts in order, as [`parts`](crate::Log::parts) gave them.
    pub parts: Vec<Part>,
    /// Opaque description of the object.
    pub head: Vec<u8>,
    /// Opaque labels of the object, at most [`LABELS_MAX`](crate::limits::LABELS_MAX) bytes.
    pub labels: Vec<u8>,
    /// What is to be kept of its parts besides, opaque, at most [`INFOS_MAX`](crate::limits::INFOS_MAX) bytes.
    pub infos: Vec<u8>,
    /// Whether the head must list the parts (the log only remembers it).
    pub bound: bool,
    /// ETag of the object.
    pub etag: Etag,
    /// Plaintext bytes.
    pub size: u64,
    /// When it was completed, in ms since 1970.
    pub time_ms: u64,
    /// What must hold for the object's name.
    pub condition: Condition,
}

/// Which uploads to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListUploads {
    /// Only keys that begin with this.
    pub prefix: String,
    /// Keys that contain this after the prefix are rolled up into one common prefix that ends with it.
    pub delimiter: Option<String>,
    /// Only what comes after this upload; without an identity, after every upload of this key
    /// (or, if it is a common prefix, after everything under it).
    pub after: Option<(String, Option<[u8; 16]>)>,
    /// Entries at most, uploads and common prefixes together; bounded by [`LIST_MAX`](crate::limits::LIST_MAX).
    pub limit: usize,
}

/// One page of the uploads of a bucket, by key and then in the order of their creation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UploadListing {
    /// Uploads and common prefixes.
    pub entries: Vec<ListedUpload>,
    /// Whether there is more after the last entry.
    pub truncated: bool,
}

/// One entry of a listing of uploads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListedUpload {
    /// An upload.
    Upload(UploadRef),
    /// A common prefix, delimiter included.
    Prefix(String),
}
