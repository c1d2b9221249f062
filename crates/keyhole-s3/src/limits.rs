//! Every bound of the S3 surface, by name.

/// Bytes of a request's head, at most: a key of 1,024 bytes percent-encoded (3 KiB), 2 KiB of metadata, and the other
/// headers several times over. Also what S3 allows.
pub const HEAD_MAX: usize = 16 * 1024;

/// Header fields of a request, at most.
pub const HEADERS_MAX: usize = 128;

/// Bytes of an object's key, at most.
pub const KEY_MAX: usize = keyhole_core::limits::OBJECT_KEY_MAX;

/// Bytes of the names and values of an object's user metadata together, at most.
pub const USER_METADATA_MAX: usize = 2 * 1024;

/// Tags of an object, at most.
pub const TAGS_MAX: usize = 10;

/// Characters of a tag's key, at most.
pub const TAG_KEY_MAX: usize = 128;

/// Characters of a tag's value, at most.
pub const TAG_VALUE_MAX: usize = 256;

/// Rules of a bucket's lifecycle, at most.
pub const RULES_MAX: usize = 1000;

/// Characters of a rule's id, at most.
pub const RULE_ID_MAX: usize = 255;

/// Bytes of a rule's prefix, at most: longer than a key none is of use.
pub const RULE_PREFIX_MAX: usize = KEY_MAX;

/// Days that a rule may say, at most.
pub const RULE_DAYS_MAX: u32 = i32::MAX as u32;

/// Entries of one page of a list, at most.
pub const PAGE_MAX: usize = 1000;

/// Keys of one DeleteObjects, at most.
pub const DELETE_MAX: usize = 1000;

/// The highest part number.
pub const PART_NUMBER_MAX: u16 = keyhole_core::limits::PART_NUMBER_MAX as u16;

/// Milliseconds that a client's clock may be off: 15 minutes.
pub const CLOCK_SKEW_MAX_MS: u64 = 15 * 60 * 1000;

/// Seconds that a presigned URL may be good for: a week.
pub const PRESIGNED_MAX_S: u64 = 7 * 24 * 60 * 60;

/// Bytes of a chunk's header line in `aws-chunked` framing, at most: 16 digits of size and 81 of signature, and room.
pub const CHUNK_LINE_MAX: usize = 256;

/// Bytes of the trailer of an `aws-chunked` body, at most: a checksum and a signature, and room.
pub const TRAILER_MAX: usize = 4 * 1024;

/// Bytes of the fields of a form ahead of the file, with what frames them, at most: 20 KB as on S3. As many may follow it.
pub const FORM_FIELDS_MAX: usize = 20 * 1024;

/// Bytes of a form's boundary, at most (RFC 2046 §5.1.1).
pub const BOUNDARY_MAX: usize = 70;

/// Depth of elements in an XML document, at most: `Delete/Object/Key` has 3.
pub const XML_DEPTH_MAX: usize = 8;

/// Signing keys that a worker keeps: of so many credentials, or days.
pub const SIGNING_KEYS_MAX: usize = 16;
