//! Sizes and limits of the format.

/// Length of customer keys and data keys (AES-256), in bytes.
pub const KEY_LEN: usize = 32;

/// Plaintext length of every chunk except the last one, which is shorter, in bytes.
pub const CHUNK_LEN: usize = 16 * 1024;

/// Length of a chunk's tag (the full AES-GCM tag), in bytes.
pub const TAG_LEN: usize = 16;

/// Length of a chunk's nonce, in bytes.
pub const NONCE_LEN: usize = 12;

/// Length of a message's salt, in bytes.
pub const SALT_LEN: usize = 24;

/// Length of a message's key commitment, in bytes.
pub const COMMITMENT_LEN: usize = 32;

/// Length of the salt and commitment before a message's first chunk, in bytes.
pub const PREFIX_LEN: usize = SALT_LEN + COMMITMENT_LEN;

/// Maximum number of chunks in a message.
pub const CHUNKS_MAX: u64 = 1 << 38;

/// Maximum length of an encoded object head: one chunk, and a last chunk is shorter than
/// [`CHUNK_LEN`].
pub const HEAD_MAX: usize = CHUNK_LEN - 1;

/// Maximum length of a sealed object head, in bytes.
pub const SEALED_HEAD_MAX: usize = PREFIX_LEN + HEAD_MAX + TAG_LEN;

/// Highest part number. The lowest is 1; 0 denotes the body of an object without parts.
pub const PART_NUMBER_MAX: u32 = 10_000;

/// Maximum total length of the part infos and messages in a sealed object file, in bytes. Leaves
/// room for the fields before them, so that every offset fits the signed 64-bit offsets of file
/// systems.
pub const FILE_CONTENT_MAX: u64 = 1 << 62;

/// Maximum length of an object key (the object's name), in bytes.
pub const OBJECT_KEY_MAX: usize = 1024;

/// Maximum length of a bucket name, in bytes.
pub const BUCKET_MAX: usize = 63;

/// Total length of one digest of each checksum algorithm, in bytes.
pub const DIGESTS_LEN: usize = 4 + 4 + 8 + 20 + 32 + 16 + 64 + 16 + 8 + 8 + 16;
