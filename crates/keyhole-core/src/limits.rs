//! Every size and bound of the format, by name.

/// Bytes of a customer key and of a data key: AES-256.
pub const KEY_LEN: usize = 32;

/// Plaintext bytes of every chunk but the last, which is shorter.
pub const CHUNK_LEN: usize = 16 * 1024;

/// Bytes of a chunk's tag: AES-GCM's full tag.
pub const TAG_LEN: usize = 16;

/// Bytes of a chunk's nonce.
pub const NONCE_LEN: usize = 12;

/// Bytes of a message's salt.
pub const SALT_LEN: usize = 24;

/// Bytes of a message's key commitment.
pub const COMMITMENT_LEN: usize = 32;

/// Bytes before a message's first chunk: salt and commitment.
pub const PREFIX_LEN: usize = SALT_LEN + COMMITMENT_LEN;

/// Chunks of one message, at most.
pub const CHUNKS_MAX: u64 = 1 << 38;

/// Bytes of an encoded head, at most: one chunk, and the last chunk of a message is shorter than [`CHUNK_LEN`].
pub const HEAD_MAX: usize = CHUNK_LEN - 1;

/// Bytes of a sealed head, at most.
pub const SEALED_HEAD_MAX: usize = PREFIX_LEN + HEAD_MAX + TAG_LEN;

/// The highest part number; the lowest is 1, and 0 stands for a body that is no part.
pub const PART_NUMBER_MAX: u32 = 10_000;

/// Bytes of the part infos and messages of one sealed object file together, at most: with what stands before them, every
/// place in a file is a number that files of all systems can have.
pub const FILE_CONTENT_MAX: u64 = 1 << 62;

/// Bytes of an object's key (its name), at most.
pub const OBJECT_KEY_MAX: usize = 1024;

/// Bytes of a bucket's name, at most.
pub const BUCKET_MAX: usize = 63;

/// Bytes of one digest, at most: SHA-256's.
pub const DIGEST_MAX: usize = 32;
