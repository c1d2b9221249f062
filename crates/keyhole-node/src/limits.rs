//! The limits of the node.

use keyhole_log::limits::{BUFFER_LEN, PAGE};

/// Pages of a block with its footer.
pub const BLOCK_PAGES: usize = BUFFER_LEN / PAGE;

/// Blocks that one request holds at most while it receives a long body: one being filled, and those
/// being written (`keyhole_log::limits::BLOCKS_IN_FLIGHT`).
pub const BLOCKS_PER_UPLOAD: usize = 1 + keyhole_log::limits::BLOCKS_IN_FLIGHT;

/// Bytes that are received or read, encrypted or decrypted, and checksummed in one pass: few enough
/// to stay in the core's cache. A multiple of the chunk length.
pub const STRIDE: usize = 8 * keyhole_log::limits::CHUNK_LEN;

/// The most bytes of a body that are received at once. Each receive costs a wake-up, so it takes all
/// that has arrived, as long as that stays in the core's second-level cache until it is encrypted.
pub const RECEIVE_MAX: usize = 4 * STRIDE;

/// Bytes of a block read past the page cache that are decrypted and sent at once. Each send costs a
/// wake-up of the peer, and the block was not in the core's cache before.
pub const SEND_MAX: usize = 4 * STRIDE;

/// The length from which the MD5 of a body is computed together with others. The turns cost more than
/// the lanes save if bodies are shorter.
pub const MD5_LANES_MIN: u64 = 2 * keyhole_log::limits::CHUNK_LEN as u64;

/// Bytes of each body that are hashed at a turn for the ETag. A body that arrives meanwhile waits for
/// one slice of the others, and a turn costs a poll of the event loop.
pub const MD5_SLICE: usize = 4 * keyhole_log::limits::CHUNK_LEN;

/// Slices of a lone body for which a worker still takes turns after it had several bodies at once, since
/// clients pause between two bodies. A lone upload pays at most so many turns in vain.
pub const MD5_EXPECTANT_SLICES: usize = 32;

/// `1 / READ_RESERVE` of the memory for long bodies is left free by reads of whole blocks: slow
/// readers that hold blocks leave it to uploads, and to reads in pieces of [`STRIDE`] bytes.
pub const READ_RESERVE: usize = 2;

/// Pages of a piece of the source that is held beside each block of a copy.
pub const COPY_PAGES: usize = STRIDE / PAGE;

/// Pages that are reserved before a page of a listing is made: 1,000 keys of 1,000 bytes. The
/// reservation is corrected once the page exists.
pub const LISTING_PAGES: usize = BLOCK_PAGES;

/// The longest record of an object that is read without memory of its own: it has about 60 parts,
/// which take 16 KiB in all. The memory of a connection covers it.
pub const RECORD_FREE: usize = 4 * 1024;

/// The most blocks that all requests of one worker may hold: about 16 MiB, as a buffer has 1 MiB +
/// 4 KiB. More does not help: three bodies received concurrently keep a disk busy.
pub const BLOCKS_PER_WORKER: usize = 16;

/// Minimum of the blocks per worker: an upload at full speed, a block that is left to reads, and one
/// for another upload.
pub const BLOCKS_MIN: usize = BLOCKS_PER_UPLOAD + 2;

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

/// Interval in milliseconds at which a waiting request looks for others that are too slow.
pub const RELIEF_STEP_MS: u64 = 50;

/// Seconds after which a waiting request precedes all others of its pool.
pub const RIGHT_OF_WAY_S: u64 = 5;

/// Every so many grants, memory goes to the request that has waited longest.
pub const OLDEST_EVERY: u64 = 4;

/// Minimum rate in bytes per second of the requests that hold memory, as soon as another waits for
/// it. Doubles each [`RELIEF_STEP_MS`] up to one of the next two limits.
pub const RATE_CONTESTED: u64 = 4 * 1024;

/// The highest minimum rate for a client that holds no more than its fair share: a slow mobile
/// uplink keeps it. A block takes a minute at this rate.
pub const RATE_FAIR_MAX: u64 = 16 * 1024;

/// The highest minimum rate for a client that holds more than its fair share while others wait.
pub const RATE_OVER_SHARE_MAX: u64 = 256 * 1024;

/// Milliseconds that a peer may be behind the minimum rate: the round trips of a slow network.
pub const PATIENCE_MS: u64 = 500;

/// Milliseconds that the peer of a client with more than its fair share may be behind.
pub const PATIENCE_OVER_SHARE_MS: u64 = 100;

/// Bytes read from a connection before parsing, at most: room for a whole request head. The framing
/// of a body passes through the same buffer, and so do forms, documents and unwanted bodies.
pub const INBOX_LEN: usize = keyhole_s3::limits::HEAD_MAX + INBOX_START;

/// Bytes of a new connection's buffer: most heads fit.
pub const INBOX_START: usize = 4 * 1024;

/// Bytes of a body or block that must have arrived before it gets memory that is scarce, so that
/// slow clients hold none.
pub const WARM_LEN: u64 = 12 * 1024;

/// Unbound multipart objects per worker whose parts' ends need not be authenticated again: 8 KiB.
pub const CHECKED_ENDS_MAX: usize = 256;

/// The longest response body that is sent in one write with its head.
pub const COALESCE_MAX: usize = 16 * 1024;

/// The longest body that is received and discarded, because the operation has none.
pub const UNWANTED_BODY_MAX: u64 = 1 << 20;

/// The longest CompleteMultipartUpload document: 10,000 parts of about 300 bytes.
pub const COMPLETE_DOCUMENT_MAX: u64 = 3 << 20;

/// The longest DeleteObjects document: 1,000 keys of 1,024 bytes, a third of them written as
/// entities, and their conditions.
pub const DELETE_DOCUMENT_MAX: u64 = 3 << 20;

/// The longest lifecycle document: 1,000 rules of about 500 bytes.
pub const LIFECYCLE_DOCUMENT_MAX: u64 = 512 * 1024;

/// The longest document of any other operation: ten tags whose characters are all entities are half
/// as long.
pub const DOCUMENT_MAX: u64 = 64 * 1024;

/// The shortest element of a part in a CompleteMultipartUpload document, in bytes.
pub const COMPLETED_PART_MIN: usize = 46;

/// Bytes of memory that a part takes that a completion names: its number, ETag and checksum.
pub const COMPLETED_PART_LEN: usize = 160;

/// Bytes of memory that a part takes at most while an upload is completed: what names it, the chosen
/// attempt, its checksums, and its share of the object's record.
pub const COMPLETION_PART_LEN: usize = 560;

/// The shortest element of an object in a DeleteObjects document, in bytes.
pub const DELETED_OBJECT_MIN: usize = 29;

/// Bytes of memory that the deletion of one of several objects takes, beside its name: its task, its
/// record, and its outcome.
pub const DELETION_LEN: usize = 3 * 1024;

/// Bytes of memory that a part of an uploaded sealed object file takes at most: its entry in the
/// file's list, the stored part, and its share of the object's record.
pub const SEALED_PART_LEN: usize = 240;

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

/// The longest leap of the wall clock that the lock clock follows by default: a day, for a node that
/// was off overnight.
pub const LOCK_CLOCK_LEAP_MS: u64 = 24 * 60 * 60 * 1000;

/// Seconds in the `Retry-After` of a 503 response.
pub const RETRY_AFTER_S: u32 = 1;

const _: () = assert!(keyhole_log::limits::BLOCK_DATA.is_multiple_of(STRIDE));
const _: () = assert!(keyhole_log::limits::BLOCK_DATA.is_multiple_of(SEND_MAX));
const _: () = assert!(BLOCKS_MIN <= BLOCKS_PER_WORKER);
// The longest document and the values parsed from it fit beside the block that is left to reads.
const _: () = assert!(2 * COMPLETE_DOCUMENT_MAX as usize <= (BLOCKS_MIN - 1) * BUFFER_LEN);
const _: () = assert!(COMPLETION_PART_LEN * keyhole_log::limits::PARTS_MAX <= (BLOCKS_MIN - 1) * BUFFER_LEN);
const _: () = assert!(SEALED_PART_LEN * keyhole_log::limits::PARTS_MAX <= (BLOCKS_MIN - 2) * BUFFER_LEN);
const _: () = assert!(DELETE_DOCUMENT_MAX <= COMPLETE_DOCUMENT_MAX);
const _: () = assert!(keyhole_log::limits::INLINE_MAX / PAGE < PAGES_MIN);
const _: () = assert!(PAGES_MIN <= PAGES_PER_WORKER);
const _: () = assert!(INBOX_LEN > keyhole_s3::limits::HEAD_MAX && INBOX_LEN as u64 > WARM_LEN);
