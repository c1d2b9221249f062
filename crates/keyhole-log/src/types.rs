//! Input and output types of the log's operations.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::version::{BucketLock, Lock, Versioning};

/// BlockIdentity of a body: the immutable bytes of one object or part. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BodyId(pub(crate) u64);

/// ETag of an object.
///
/// ```
/// use keyhole_log::Etag;
///
/// let etag = Etag { digest: [0xab; 16], parts: 2 };
/// assert_eq!(etag.to_string(), "abababababababababababababababab-2");
/// assert_eq!("abababababababababababababababab-2".parse(), Ok(etag));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Etag {
    /// The digest.
    pub digest: [u8; 16],
    /// Number of parts; 0 for an object that was not uploaded in parts.
    pub parts: u16,
}

/// Formats as lower-case hex, with `-n` for an object of n parts. No quotes.
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
    /// BlockIdentity of the body.
    pub body: BodyId,
    /// Plaintext bytes.
    pub size: u64,
    /// Opaque to the log; zero for a plain body.
    pub salt: [u8; 24],
    /// ETag of the part.
    pub etag: [u8; 16],
}

/// The precondition of a write, evaluated under the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// No precondition.
    None,
    /// The name has no object (`If-None-Match: *`).
    IfAbsent,
    /// The name has an object, and the object has these properties (`If-Match` and its kind).
    IfMatch(Expected),
    /// The object has this sequence number ([`Object::seq`](crate::Object::seq)) and no write of
    /// the name is in flight; otherwise the write fails with
    /// [`Conflict`](crate::Error::Conflict). Unlike the ETag, the sequence number of a copy differs
    /// from that of its source.
    IfSame(u64),
}

/// The properties that [`Condition::IfMatch`] requires of an object. The default admits every
/// object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expected {
    /// The admitted ETags.
    pub etag: ExpectedEtag,
    /// The size in plaintext bytes.
    pub size: Option<u64>,
    /// The earliest and the latest time of storage, in ms since 1970.
    pub time_ms: Option<(u64, u64)>,
    /// Whether a name without an object fulfils the condition, as with a condition on the size or
    /// the time alone.
    pub or_absent: bool,
}

/// The ETags that a condition admits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ExpectedEtag {
    /// Every ETag (`*`).
    #[default]
    Any,
    /// One ETag.
    Exactly(Etag),
    /// A text that is no ETag of this store, so that no object has it.
    Unknown,
}

impl From<Etag> for Expected {
    fn from(etag: Etag) -> Self {
        Expected { etag: ExpectedEtag::Exactly(etag), ..Expected::default() }
    }
}

impl Expected {
    /// Returns whether an object with these properties fulfils the condition.
    ///
    /// ```
    /// use keyhole_log::{Etag, Expected};
    ///
    /// let etag = Etag { digest: [1; 16], parts: 0 };
    /// assert!(Expected::from(etag).admits(etag, 9, 1000));
    /// assert!(!Expected { size: Some(8), ..Expected::from(etag) }.admits(etag, 9, 1000));
    /// assert!(Expected::default().admits(etag, 9, 1000));
    /// ```
    pub fn admits(&self, etag: Etag, size: u64, time_ms: u64) -> bool {
        let is_etag = match self.etag {
            ExpectedEtag::Any => true,
            ExpectedEtag::Exactly(wanted) => wanted == etag,
            ExpectedEtag::Unknown => false,
        };
        let is_size = self.size.is_none_or(|wanted| wanted == size);
        is_etag && is_size && self.time_ms.is_none_or(|(first, last)| (first..=last).contains(&time_ms))
    }
}

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketInfo {
    /// Name of the bucket.
    pub name: String,
    /// Creation time, in ms since 1970.
    pub time_ms: u64,
}

/// Contents of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketUsage {
    /// Name of the bucket.
    pub name: String,
    /// Number of objects: names whose current version is one.
    pub objects: u64,
    /// Number of noncurrent versions, without delete markers.
    pub noncurrent: u64,
    /// Number of delete markers.
    pub markers: u64,
    /// Plaintext bytes of noncurrent versions.
    pub noncurrent_bytes: u64,
    /// Number of uploads that are neither completed nor aborted.
    pub uploads: u64,
    /// Plaintext bytes of all versions of its objects and of the parts of its uploads.
    pub bytes: u64,
    /// Bytes that count towards the quota: `bytes`, and for each object, part and upload its record,
    /// at least [`QUOTA_SHARE`](crate::limits::QUOTA_SHARE).
    pub charged: u64,
    /// Limit on `charged`. `None`: unlimited.
    pub quota: Option<u64>,
}

/// The settings of a bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BucketSettings {
    /// Limit on the plaintext bytes of its objects and of the parts of its uploads, and on their
    /// records: see [`BucketUsage::charged`]. `None`: unlimited.
    pub quota: Option<u64>,
    /// Lifetime of an object, in ms since it was stored. `None`: objects do not expire.
    pub expire_ms: Option<u64>,
    /// Bucket policy, opaque to the log. At most [`POLICY_MAX`](crate::limits::POLICY_MAX) bytes.
    pub policy: Vec<u8>,
    /// Lifecycle configuration, opaque to the log. At most
    /// [`LIFECYCLE_MAX`](crate::limits::LIFECYCLE_MAX) bytes.
    pub lifecycle: Arc<[u8]>,
    /// CORS rules, opaque to the log. At most [`CORS_MAX`](crate::limits::CORS_MAX) bytes.
    pub cors: Arc<[u8]>,
    /// Tags of the bucket, opaque to the log. At most
    /// [`BUCKET_TAGS_MAX`](crate::limits::BUCKET_TAGS_MAX) bytes.
    pub tags: Arc<[u8]>,
    /// Whether writes add versions. Once enabled, it can be suspended, but never turned off.
    pub versioning: Versioning,
    /// The object lock, which requires versioning to be enabled, and stays for good.
    pub lock: Option<BucketLock>,
}

/// Parameters of an object listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListObjects {
    /// Lists only keys with this prefix.
    pub prefix: String,
    /// Groups keys that contain this after the prefix into a common prefix ending with it.
    pub delimiter: Option<String>,
    /// Starts after this key, or after this common prefix and all keys under it.
    pub after: Option<String>,
    /// Maximum number of entries, objects and common prefixes together. Capped at
    /// [`LIST_MAX`](crate::limits::LIST_MAX).
    pub limit: usize,
}

/// One page of an object listing, in the binary order of UTF-8.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Objects and common prefixes.
    pub entries: Vec<Listed>,
    /// Whether entries follow the last one.
    pub truncated: bool,
}

/// One entry of an object listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// An object.
    Object {
        /// Key of the object.
        key: String,
        /// Plaintext bytes.
        size: u64,
        /// Time of storage, in ms since 1970.
        time_ms: u64,
        /// The ETag.
        etag: Etag,
        /// Whether its object head is sealed.
        sealed: bool,
    },
    /// A common prefix, including the delimiter.
    Prefix(String),
}

/// An upload to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateUpload {
    /// The bucket.
    pub bucket: String,
    /// Key of the future object.
    pub key: String,
    /// Random identity, never used before.
    pub id: [u8; 16],
    /// Object head, opaque to the log.
    pub head: Vec<u8>,
    /// Tags of the future object, opaque to the log. At most
    /// [`OBJECT_TAGS_MAX`](crate::limits::OBJECT_TAGS_MAX) bytes.
    pub tags: Vec<u8>,
    /// Whether the object head is sealed.
    pub sealed: bool,
    /// Creation time, in ms since 1970.
    pub time_ms: u64,
    /// Checksum algorithm and type, opaque to the log.
    pub declared: Option<(u8, u8)>,
}

/// A multipart upload that existed when it was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadRef {
    /// The bucket.
    pub bucket: String,
    /// Key of the future object.
    pub key: String,
    /// BlockIdentity given at creation.
    pub id: [u8; 16],
    /// Whether its object head is sealed.
    pub sealed: bool,
    /// Creation time, in ms since 1970.
    pub time_ms: u64,
    /// Checksum algorithm and type, opaque to the log.
    pub declared: Option<(u8, u8)>,
    /// Sequence number of its creation.
    pub(crate) seq: u64,
}

/// The object head and tags that an upload was created with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadHead {
    /// Object head, opaque to the log.
    pub head: Vec<u8>,
    /// Tags of the future object, opaque to the log.
    pub tags: Vec<u8>,
    /// The lock of the future object.
    pub lock: Lock,
}

/// Identities of an upload and its bucket within the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UploadIdentity {
    pub(crate) bucket: u64,
    pub(crate) upload: u64,
}

/// An attempt at a part of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartInfo {
    /// Part number.
    pub number: u16,
    /// Plaintext bytes.
    pub size: u64,
    /// ETag of the part.
    pub etag: [u8; 16],
    /// Time of storage, in ms since 1970.
    pub time_ms: u64,
    /// The [`Part`] that an object completed from it holds.
    pub part: Part,
    pub(crate) of: UploadIdentity,
    /// Sequence number of its record.
    pub(crate) seq: u64,
}

/// An upload to complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompleteUpload {
    /// The upload.
    pub upload: UploadRef,
    /// The parts in order, as returned by [`parts`](crate::Log::parts) or
    /// [`part_attempts`](crate::Log::part_attempts).
    pub parts: Vec<Part>,
    /// Object head, opaque to the log.
    pub head: Vec<u8>,
    /// Tags of the object, opaque to the log. At most
    /// [`OBJECT_TAGS_MAX`](crate::limits::OBJECT_TAGS_MAX) bytes.
    pub tags: Vec<u8>,
    /// Part checksums, opaque to the log. At most
    /// [`PART_CHECKSUMS_MAX`](crate::limits::PART_CHECKSUMS_MAX) bytes.
    pub part_checksums: Vec<u8>,
    /// Whether the object head must list the parts. Stored, but not used by the log.
    pub bound: bool,
    /// ETag of the object.
    pub etag: Etag,
    /// Plaintext bytes.
    pub size: u64,
    /// Completion time, in ms since 1970.
    pub time_ms: u64,
    /// Precondition on the object's name.
    pub condition: Condition,
}

/// Parameters of an upload listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListUploads {
    /// Lists only keys with this prefix.
    pub prefix: String,
    /// Groups keys that contain this after the prefix into a common prefix ending with it.
    pub delimiter: Option<String>,
    /// Starts after this upload. Without an identity, starts after every upload of this key or, for
    /// a common prefix, after everything under it.
    pub after: Option<(String, Option<[u8; 16]>)>,
    /// Maximum number of entries, uploads and common prefixes together. Capped at
    /// [`LIST_MAX`](crate::limits::LIST_MAX).
    pub limit: usize,
}

/// One page of the uploads of a bucket, ordered by key and then by creation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UploadListing {
    /// Uploads and common prefixes.
    pub entries: Vec<ListedUpload>,
    /// Whether entries follow the last one.
    pub truncated: bool,
}

/// One entry of an upload listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListedUpload {
    /// An upload.
    Upload(UploadRef),
    /// A common prefix, including the delimiter.
    Prefix(String),
}
