//! Every bound of the node, by name.

use keyhole_log::limits::BUFFER_LEN;

/// Blocks that one request may hold while it receives a long body: one being filled, and those whose writes are under way
/// (`keyhole_log::limits::BLOCKS_IN_FLIGHT`).
pub const BLOCKS_PER_UPLOAD: usize = 1 + keyhole_log::limits::BLOCKS_IN_FLIGHT;

/// So much of a block is received or read, encrypted or decrypted, and checksummed at a time: it stays in the processor's own cache
/// meanwhile. Whole chunks.
pub const STRIDE: usize = 8 * keyhole_log::limits::CHUNK_LEN;

/// Blocks that one request may hold while it sends a sealed object file: one being sent, one being read ahead.
pub const BLOCKS_PER_DOWNLOAD: usize = 2;

/// Blocks that one request may hold while it copies a body: the sum of the two above.
pub const BLOCKS_PER_COPY: usize = BLOCKS_PER_UPLOAD + BLOCKS_PER_DOWNLOAD;

/// Blocks that all requests of one worker may hold together where there is memory enough: with buffers of 1 MiB + 4 KiB some 16 MiB a
/// worker. More would be of no use: three uploads at once keep a disk busy.
pub const BLOCKS_PER_WORKER: usize = 16;

/// The least that it may be: a copy is admitted, which takes the most of all requests.
pub const BLOCKS_MIN: usize = BLOCKS_PER_COPY;

/// Pages of 4 KiB that the short bodies of all requests of one worker may take together: 4 MiB. A short body is one that its
/// record holds (`keyhole_log::limits::INLINE_MAX`); it takes its pages, and one more for what describes it.
pub const PAGES_PER_WORKER: usize = 1024;

/// The least that it may be: 512 KiB, seven of the longest short bodies, or 64 tiny ones.
pub const PAGES_MIN: usize = 128;

/// Requests that may wait for memory on one worker; beyond it the answer is 503 `SlowDown`.
pub const WAITERS_PER_WORKER: usize = 1024;

/// Seconds that a request may wait for memory; then the answer is 503 `SlowDown`. Clients wait as well: those of AWS for Python a
/// minute, those for Java half a minute. One that gives up repeats its request as one does that is told to slow down, but takes the
/// node to be gone, and its place in the line is kept meanwhile for nobody.
pub const WAIT_MAX_S: u64 = 25;

/// Bytes that are read from a connection ahead of being understood: a whole request head fits, and the framing of a
/// body passes through it.
pub const INBOX_LEN: usize = 64 * 1024;

/// Where memory is scarce, so many bytes of a body have to be here before it is admitted: who sends a byte a second holds none.
pub const WARM_LEN: u64 = 32 * 1024;

/// A reply's body of up to this many bytes leaves in one write with its head.
pub const COALESCE_MAX: usize = 16 * 1024;

/// The longest XML request body: 10,000 completed parts of some 300 bytes, or 1,000 keys of 1,024 bytes in which every
/// byte is written as a six-byte entity, fit.
pub const XML_BODY_MAX: u64 = 8 * 1024 * 1024;

/// The longest body of one PUT or one part: 5 GiB, as on AWS.
pub const PUT_MAX: u64 = 5 << 30;

/// The longest form: a file as long as a PUT may be, and the fields before and behind it.
pub const FORM_MAX: u64 = PUT_MAX + 2 * keyhole_s3::limits::FORM_FIELDS_MAX as u64;

/// The longest object: 5 TiB, as on AWS.
pub const OBJECT_MAX: u64 = 5 << 40;

/// The longest source of a CopyObject: 5 GiB, as on AWS.
pub const COPY_MAX: u64 = 5 << 30;

/// The shortest part that is not the last: 5 MiB, as on AWS.
pub const PART_MIN: u64 = 5 << 20;

/// Customer keys that a bucket's policy may pin.
pub const PINS_MAX: usize = 64;

/// Networks of trusted proxies: the address that a request comes from is compared with each.
pub const TRUSTED_PROXIES_MAX: usize = 64;

/// Hops of `X-Forwarded-For` that are followed, from the nearest on.
pub const FORWARDS_MAX: usize = 16;

/// How often new tags are tried to be given to an object that is being overwritten meanwhile.
pub const TAGGING_ATTEMPTS: u32 = 4;

/// Milliseconds that the clock may be behind what was stored for things to expire: who sets it sets it back by less.
pub const CLOCK_STEP_MAX_MS: u64 = 60 * 1000;

/// Seconds that a client told to slow down is asked to wait.
pub const RETRY_AFTER_S: u32 = 1;

const _: () = assert!(keyhole_log::limits::BLOCK_DATA.is_multiple_of(STRIDE));
const _: () = assert!(BLOCKS_PER_COPY <= BLOCKS_MIN && BLOCKS_MIN <= BLOCKS_PER_WORKER);
const _: () = assert!(keyhole_log::limits::INLINE_MAX / keyhole_log::limits::PAGE < PAGES_MIN);
const _: () = assert!(PAGES_MIN <= PAGES_PER_WORKER);
const _: () = assert!(BUFFER_LEN > INBOX_LEN && INBOX_LEN as u64 > WARM_LEN);
