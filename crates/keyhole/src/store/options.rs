//! The options of opening a store.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use keyhole_log::Durability;

use crate::memory::Budget;

/// The reason of a node that was started read-only.
pub(crate) const ASKED_READ_ONLY: &str = "the node was started with --read-only";

/// The reason of a command that only reads the store.
pub(crate) const ONLY_LOOKS: &str = "this command only reads";

/// Timeout for another process to release the store. A killed process keeps its lock until the
/// kernel has completed its I/O, which must not land after recovery.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// The action if there is no store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Make {
    /// Fail.
    Never,
    /// Create a data directory and an object file.
    File,
    /// Format the device, whatever it contains.
    Format,
}

/// The options of [`open`](fn@super::open).
#[derive(Clone, Debug)]
pub(crate) struct StoreOptions {
    pub(crate) make: Make,
    /// The reason to open it for reading only, if any. A medium that is not writable is always
    /// opened for reading.
    pub(crate) read_only: Option<&'static str>,
    pub(crate) capacity: Option<u64>,
    pub(crate) durability: Durability,
    /// Whether a full store deletes its oldest objects.
    pub(crate) ring: bool,
    pub(crate) workers: usize,
    /// Timeout of the lock.
    pub(crate) patience: Duration,
    /// The memory budget that limits the index, if there is one.
    pub(crate) budget: Option<Budget>,
    /// Limit of the number of objects and uploads.
    pub(crate) max_objects: Option<u64>,
    /// Counts the bytes that recovery reads.
    pub(crate) read: Arc<AtomicU64>,
}

impl Default for StoreOptions {
    /// The options of a command that uses a store without a node.
    fn default() -> Self {
        StoreOptions {
            make: Make::Never,
            read_only: None,
            capacity: None,
            durability: Durability::Always,
            ring: false,
            workers: 1,
            patience: LOCK_PATIENCE,
            budget: None,
            max_objects: None,
            read: Arc::default(),
        }
    }
}
