//! The limits of the node.

use keyhole_log::limits::BUFFER_LEN;

/// Blocks that one request may hold while it receives a long body: one being filled, and those
/// being written (`keyhole_log::limits::BLOCKS_IN_FLIGHT`).
pub const BLOCKS_PER_UPLOAD: usize = 1 + keyhole_log::limits::BLOCKS_IN_FLIGHT;

/// Bytes that are received or read, encrypted or decrypted, and checksummed in one pass: few enough
/// to stay in the core's cache. A multiple of the chunk length.
pub const STRIDE: usize = 8 * keyhole_log::limits::CHUNK_LEN;

/// Blocks that one request may hold while it sends a sealed object file: one being sent, one being
/// read ahead.
pub const BLOCKS_PER_DOWNLOAD: usize = 2;

/// Blocks that one request may hold while it copies a body: the sum of the two above.
pub const BLOCKS_PER_COPY: usize = BLOCKS_PER_UPLOAD + BLOCKS_PER_DOWNLOAD;

/// The most blocks that all requests of one worker may hold: about 16 MiB, as a buffer has 1 MiB +
/// 4 KiB. More does not help: three bodies received concurrently keep a disk busy.
pub const BLOCKS_PER_WORKER: usize = 16;

/// Minimum of the blocks per worker: a copy, the largest request, must be admissible.
pub const BLOCKS_MIN: usize = BLOCKS_PER_COPY;

/// Pages of 4 KiB that the short bodies of all requests of one worker may take: 4 MiB. A short body
/// fits in its record (`keyhole_log::limits::INLINE_MAX`); it takes its pages and one more for its
/// metadata.
pub const PAGES_PER_WORKER: usize = 1024;

/// Minimum of the pages per worker: 512 KiB, for seven of the longest short bodies or 64 tiny ones.
pub const PAGES_MIN: usize = 128;

/// Requests of one worker that may wait for memory; further requests get 503 `SlowDown`.
pub const WAITERS_PER_WORKER: usize = 1024;

/// Seconds that a request may wait for memory before it gets 503 `SlowDown`. Shorter than the read
/// timeouts of clients (AWS SDK for Python: 60 s, for Java: 30 s). A client that times out retries
/// as well, but treats the node as down, and its request still occupies the queue.
pub const WAIT_MAX_S: u64 = 25;

/// Bytes read from a connection before parsing: room for a whole request head. The framing of a
/// body passes through the same buffer.
pub const INBOX_LEN: usize = 64 * 1024;

/// Bytes of a body that must have arrived before it is admitted while memory is scarce, so that
/// slow clients hold no blocks.
pub const WARM_LEN: u64 = 32 * 1024;

/// Unbound multipart objects per worker whose parts' ends need not be authenticated again: 8 KiB.
pub const CHECKED_ENDS_MAX: usize = 256;

/// The longest response body that is sent in one write with its head.
pub const COALESCE_MAX: usize = 16 * 1024;

/// The longest XML request body: room for 10,000 completed parts of about 300 bytes, or for 1,000
/// keys of 1,024 bytes written as six-byte entities throughout.
pub const XML_BODY_MAX: u64 = 8 * 1024 * 1024;

/// The longest body of one PUT or one part: 5 GiB, as on AWS.
pub const PUT_MAX: u64 = 5 << 30;

/// The longest POST form: a file of [`PUT_MAX`] and the fields before and after it.
pub const FORM_MAX: u64 = PUT_MAX + 2 * keyhole_s3::limits::FORM_FIELDS_MAX as u64;

/// The longest object: 5 TiB, as on AWS.
pub const OBJECT_MAX: u64 = 5 << 40;

/// The longest source of a CopyObject: 5 GiB, as on AWS.
pub const COPY_MAX: u64 = 5 << 30;

/// The shortest part other than the last: 5 MiB, as on AWS.
pub const PART_MIN: u64 = 5 << 20;

/// Attempts at the completion of an upload while parts that were sent again replace those that it
/// names.
pub const COMPLETE_TRIES: usize = 4;

/// Customer keys that a bucket's policy may pin.
pub const PINS_MAX: usize = 64;

/// Networks of trusted proxies; each peer address is compared with all of them.
pub const TRUSTED_PROXIES_MAX: usize = 64;

/// Hops of `X-Forwarded-For` that are followed, starting from the nearest.
pub const FORWARDS_MAX: usize = 16;

/// Attempts to replace the tags of an object that is being overwritten concurrently.
pub const TAGGING_ATTEMPTS: u32 = 4;

/// Milliseconds that the clock may be behind the newest stored time before expiration stops. An
/// administrator's clock adjustments are smaller.
pub const CLOCK_STEP_MAX_MS: u64 = 60 * 1000;

/// Seconds in the `Retry-After` of a 503 response.
pub const RETRY_AFTER_S: u32 = 1;

const _: () = assert!(keyhole_log::limits::BLOCK_DATA.is_multiple_of(STRIDE));
const _: () = assert!(BLOCKS_PER_COPY <= BLOCKS_MIN && BLOCKS_MIN <= BLOCKS_PER_WORKER);
const _: () = assert!(keyhole_log::limits::INLINE_MAX / keyhole_log::limits::PAGE < PAGES_MIN);
const _: () = assert!(PAGES_MIN <= PAGES_PER_WORKER);
const _: () = assert!(BUFFER_LEN > INBOX_LEN && INBOX_LEN as u64 > WARM_LEN);
