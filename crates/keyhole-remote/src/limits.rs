//! Limits of a remote.

/// Longest name of a remote object in bytes, prefix included (Amazon S3, "Creating object key names").
pub const NAME_MAX: usize = 1024;

/// Longest component of a name in bytes. Services that keep objects as files have this limit.
pub const COMPONENT_MAX: usize = 255;

/// Longest prefix of a remote in bytes: leaves room for the name of a bucket and for a digest.
pub const PREFIX_MAX: usize = 512;

/// Longest description that is stored in the metadata of its object, in bytes of base64. User metadata
/// has at most 2 KiB in all (Amazon S3, "Working with object metadata"). A longer one is an object of
/// its own.
pub const ENTRY_FIELD_MAX: usize = 1200;

/// Changes that one pass over the index finds. A change takes about 200 bytes and its key.
pub const ROUND_CHANGES: usize = 4096;

/// Removals that wait to be shipped. If there are more, the remote is compared with the store.
pub const REMOVALS_MAX: usize = 16384;

/// Requests in flight.
pub const IN_FLIGHT_MAX: usize = 16;

/// Memory of the objects in flight, in bytes. One object may exceed it alone.
pub const IN_FLIGHT_MEMORY: u64 = 12 << 20;

/// Objects that a remote does not accept. With one more, shipping stops until an operator acts.
pub const EXCEPTIONS_MAX: usize = 100;

/// Versions that one search for evictions finds.
pub const EVICT_BATCH: usize = 256;

/// Time after a comparison at which the remote is compared again, in ms. Some services show a change to
/// other requests only after a while.
pub const COMPARE_AGAIN_MS: u64 = 60_000;

/// First wait after a failure, in ms. It doubles up to [`BACKOFF_MAX_MS`].
pub const BACKOFF_MIN_MS: u64 = 1_000;

/// Longest wait after a failure, in ms.
pub const BACKOFF_MAX_MS: u64 = 300_000;

/// Interval at which a remote looks whether writes are durable, in ms.
pub const SETTLE_POLL_MS: u64 = 5;

/// Interval at which an idle remote looks for changes, in ms.
pub const IDLE_POLL_MS: u64 = 1_000;

/// Shortest time between two passes over the index, as a multiple of the time that a pass takes: a
/// stream of small writes must not keep the index locked.
pub const PASS_PAUSE_FACTOR: u64 = 20;

/// Confirmed changes after which the progress is saved. The others are compared again after a crash.
pub const SAVE_EVERY: usize = 256;

/// Time after which an object that the remote did not accept is tried again for the first time, in ms. A
/// service may have shown an earlier state.
pub const RETRY_NEW_EXCEPTION_MS: u64 = 60_000;

/// Interval at which objects that the remote did not accept are tried again after that, in ms.
pub const RETRY_EXCEPTIONS_MS: u64 = 3_600_000;

/// Longest description of an object or a bucket in bytes.
pub const DESCRIPTION_MAX: usize = 4 << 20;

/// Objects that are fetched before the consumer of a remote's contents asks for them.
pub const FETCH_AHEAD_MAX: usize = 16;

/// Length up to which such an object is fetched as a whole, in bytes.
pub const FETCH_AHEAD_LEN_MAX: u64 = 512 << 10;
