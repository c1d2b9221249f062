//! The limits of the S3 surface.

/// Maximum bytes of a request head: a percent-encoded key of 1,024 bytes (3 KiB), 2 KiB of
/// metadata, and ample room for other headers. The limit of S3 too.
pub const HEAD_MAX: usize = 16 * 1024;

/// Maximum header fields of a request.
pub const HEADERS_MAX: usize = 128;

/// Maximum characters of a header's name that an error repeats.
pub const NAME_ECHO_MAX: usize = 64;

/// Maximum parameters of a query. A presigned GET has six of the signature, six that override
/// response headers, and a few of its own; clients add some that they alone know.
pub const QUERY_PARAMETERS_MAX: usize = 64;

/// Maximum names in the `SignedHeaders` of a signature: each header field of a request once.
pub const SIGNED_HEADERS_MAX: usize = HEADERS_MAX;

/// Maximum bytes of an object key.
pub const KEY_MAX: usize = keyhole_core::limits::OBJECT_KEY_MAX;

/// Maximum total bytes of the names and values of an object's user metadata.
pub const USER_METADATA_MAX: usize = 2 * 1024;

/// Maximum tags of an object.
pub const TAGS_MAX: usize = 10;

/// Maximum tags of a bucket.
pub const BUCKET_TAGS_MAX: usize = 50;

/// Maximum characters of a tag's key.
pub const TAG_KEY_MAX: usize = 128;

/// Maximum characters of a tag's value.
pub const TAG_VALUE_MAX: usize = 256;

/// Maximum rules of a bucket's lifecycle.
pub const RULES_MAX: usize = 1000;

/// Maximum characters of a rule's id.
pub const RULE_ID_MAX: usize = 255;

/// Maximum bytes of a rule's prefix: a prefix longer than a key matches nothing.
pub const RULE_PREFIX_MAX: usize = KEY_MAX;

/// Maximum days in a rule.
pub const RULE_DAYS_MAX: u32 = i32::MAX as u32;

/// Maximum versions that a rule can keep (`NewerNoncurrentVersions`).
pub const RULE_VERSIONS_MAX: u32 = 100;

/// Maximum days of a default retention: about 100 years, as on S3.
pub const RETENTION_DAYS_MAX: u32 = 36_500;

/// Maximum years of a default retention, as on S3.
pub const RETENTION_YEARS_MAX: u32 = 100;

/// Maximum bytes of a CORSConfiguration.
pub const CORS_DOCUMENT_MAX: usize = 64 * 1024;

/// Maximum CORS rules of a bucket.
pub const CORS_RULES_MAX: usize = 100;

/// Maximum characters of a CORS rule's id.
pub const CORS_RULE_ID_MAX: usize = 255;

/// Maximum headers that a preflight request can ask for: as many as a request can have.
pub const CORS_REQUEST_HEADERS_MAX: usize = HEADERS_MAX;

/// Maximum buckets of one page of ListBuckets.
pub const BUCKETS_PAGE_MAX: usize = 10_000;

/// Maximum entries of one page of a listing.
pub const PAGE_MAX: usize = 1000;

/// Maximum keys of one DeleteObjects.
pub const DELETE_MAX: usize = 1000;

/// Characters of a version id, unless it is `null`.
pub const VERSION_ID_LEN: usize = 32;

/// The highest part number.
pub const PART_NUMBER_MAX: u16 = keyhole_core::limits::PART_NUMBER_MAX as u16;

/// Maximum difference of a client's clock in milliseconds: 15 minutes.
pub const CLOCK_SKEW_MAX_MS: u64 = 15 * 60 * 1000;

/// Maximum validity of a presigned URL in seconds: a week.
pub const PRESIGNED_MAX_S: u64 = 7 * 24 * 60 * 60;

/// Maximum bytes of a chunk header in `aws-chunked` framing: 16 digits of size, 81 bytes of
/// signature, and a margin.
pub const CHUNK_LINE_MAX: usize = 256;

/// Maximum bytes of the trailer of an `aws-chunked` body: a checksum, a signature, and a margin.
pub const TRAILER_MAX: usize = 4 * 1024;

/// Maximum bytes of a form's fields before the file, framing included: 20 KB as on S3. After the
/// file, as many again.
pub const FORM_FIELDS_MAX: usize = 20 * 1024;

/// Maximum bytes of a form's boundary (RFC 2046 §5.1.1).
pub const BOUNDARY_MAX: usize = 70;

/// Maximum depth of elements in an XML document; `Delete/Object/Key` has 3.
pub const XML_DEPTH_MAX: usize = 8;

/// Maximum elements of a `Delete` document: [`DELETE_MAX`] objects with a key, a version and three
/// conditions each, and a few around them. Comments and processing instructions count as elements.
pub const XML_DELETE_ELEMENTS_MAX: usize = 8 * DELETE_MAX;

/// Maximum elements of a `CompleteMultipartUpload` document: each part with its number, its ETag and
/// a few checksums.
pub const XML_COMPLETE_ELEMENTS_MAX: usize = 8 * PART_NUMBER_MAX as usize;

/// Maximum elements of a `LifecycleConfiguration` document: each rule with a filter of two sizes, a
/// prefix and ten tags, and its actions.
pub const XML_LIFECYCLE_ELEMENTS_MAX: usize = 64 * RULES_MAX;

/// Maximum elements of a `CORSConfiguration` document: each rule with many origins and headers.
pub const XML_CORS_ELEMENTS_MAX: usize = 64 * CORS_RULES_MAX;

/// Maximum elements of any other document: the `Tagging` of a bucket has 152.
pub const XML_ELEMENTS_MAX: usize = 1024;

/// Maximum bytes of a client's value that an error shows whole: fewer than a key has in any encoding.
pub const ECHO_MAX: usize = 31;

/// Characters that an error shows of a longer value.
pub const ECHO_SHOWN: usize = 8;

/// Maximum bytes of a message, or of one element, of an error: enough for a bucket's name and a
/// header's.
pub const ERROR_TEXT_MAX: usize = 512;

const _: () = assert!(ECHO_MAX < keyhole_core::limits::KEY_LEN);

/// Maximum signing keys cached per worker, one for each credential and day.
pub const SIGNING_KEYS_MAX: usize = 16;
