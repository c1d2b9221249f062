//! The state of the superblock's copies while the store is open.

use futures_channel::oneshot;

/// The state of the superblock's copies.
#[derive(Debug, Default)]
pub(crate) struct SuperblockCopies {
    /// The copy whose last write failed for lack of space; otherwise the first.
    pub(crate) suspect: usize,
    /// Whether a task is writing them, and the tasks that wait for it.
    pub(crate) is_taken: bool,
    pub(crate) waiting: Vec<oneshot::Sender<()>>,
}
