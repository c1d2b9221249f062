//! Objects and parts to store, and stored objects. They hold bodies or pin them.

use crate::body::NewBody;
use crate::log::Body;
use crate::pin::ObjectPin;
use crate::types::{Condition, Etag, Part, UploadRef};
use crate::version::{Lock, Marker, VersionId, Versioning};

/// The source of an object's bytes.
#[derive(Debug)]
pub enum Content {
    /// A newly written body and its salt (zero for a plain one).
    New(NewBody, [u8; 24]),
    /// The parts of another object, shared rather than copied, with their part checksums.
    Shared(Object),
}

/// An object to store.
#[derive(Debug)]
pub struct PutObject {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// The object's bytes.
    pub content: Content,
    /// Object head, opaque to the log. At most [`HEAD_MAX`](crate::limits::HEAD_MAX) bytes.
    pub head: Vec<u8>,
    /// Tags, opaque to the log. At most [`OBJECT_TAGS_MAX`](crate::limits::OBJECT_TAGS_MAX) bytes.
    pub tags: Vec<u8>,
    /// Whether the object head is sealed. Stored, but not used by the log.
    pub sealed: bool,
    /// The ETag.
    pub etag: Etag,
    /// Plaintext bytes.
    pub size: u64,
    /// Time of storage, in ms since 1970.
    pub time_ms: u64,
    /// Precondition on the name.
    pub condition: Condition,
}

/// A stored object. Holding it pins its bodies: they stay readable after a delete or overwrite.
#[derive(Debug, Clone)]
pub struct Object {
    /// Plaintext bytes.
    pub size: u64,
    /// Time of storage, in ms since 1970.
    pub time_ms: u64,
    /// The ETag.
    pub etag: Etag,
    /// Whether the object head is sealed.
    pub sealed: bool,
    /// Whether the object head must list the parts. Stored, but not used by the log.
    pub bound: bool,
    /// Object head, opaque to the log.
    pub head: Vec<u8>,
    /// Tags, opaque to the log.
    pub tags: Vec<u8>,
    /// Part checksums, opaque to the log.
    pub part_checksums: Vec<u8>,
    /// The bodies in order. An object that was not uploaded in parts has one, with number 0.
    pub parts: Vec<Part>,
    /// Id of the upload that was completed to this object. `None` for other objects, and for copies.
    pub completed: Option<[u8; 16]>,
    /// Sequence number of the write that stored the object. Tells versions of a name apart.
    pub seq: u64,
    /// Id of the version.
    pub version: VersionId,
    /// Versioning state of its bucket when it was looked up.
    pub versioning: Versioning,
    /// Its retention and legal hold when it was looked up.
    pub lock: Lock,
    /// Whether its bytes were evicted when it was looked up. Another store has them, and they cannot be
    /// read or shared here.
    pub is_evicted: bool,
    pub(crate) pin: ObjectPin,
}

impl Object {
    /// Returns a pin of the bodies, for those who read them without the object.
    pub fn pin(&self) -> ObjectPin {
        self.pin.clone()
    }
}

/// The result of looking up a version.
// An object is as large as its fields, and is moved once.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone)]
pub enum FoundVersion {
    /// The name has no version, or none of this id.
    Absent,
    /// A delete marker.
    Marker(Marker),
    /// An object, with its only body if one read returned both.
    Object(Object, Option<Body>),
    /// The object's record is longer than the limit.
    Long {
        /// Length of the record, and of the record of its tags.
        len: usize,
        /// Plaintext bytes of the object.
        size: u64,
    },
}

impl FoundVersion {
    /// Returns the object, if it is one.
    pub fn into_object(self) -> Option<(Object, Option<Body>)> {
        match self {
            FoundVersion::Object(object, body) => Some((object, body)),
            FoundVersion::Absent | FoundVersion::Marker(_) | FoundVersion::Long { .. } => None,
        }
    }
}

/// A part to store. It becomes the current attempt at its number.
#[derive(Debug)]
pub struct PutPart {
    /// The upload.
    pub upload: UploadRef,
    /// Part number, 1 to [`PARTS_MAX`](crate::limits::PARTS_MAX).
    pub number: u16,
    /// The part's bytes.
    pub content: NewBody,
    /// Opaque to the log; zero for a plain part.
    pub salt: [u8; 24],
    /// ETag of the part.
    pub etag: [u8; 16],
    /// Plaintext bytes.
    pub size: u64,
    /// Time of storage, in ms since 1970.
    pub time_ms: u64,
    /// Part checksum, opaque to the log. At most
    /// [`PART_CHECKSUM_MAX`](crate::limits::PART_CHECKSUM_MAX) bytes.
    pub checksums: Vec<u8>,
}
