//! The commits of one write.

use std::collections::VecDeque;

use futures_channel::oneshot;

use super::job::Commit;
use crate::error::Error;
use crate::limits::batch_max;
use crate::wire::pages;

/// The commits of one write.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) commits: Vec<Commit>,
    pub(super) flushes: Vec<oneshot::Sender<Result<(), Error>>>,
}

impl Batch {
    /// Takes as many commits as fit into `room`, or, if the first does not, as many
    /// as fit into a new segment.
    pub(super) fn take(queue: &mut VecDeque<Commit>, room: usize, segment_len: u64) -> Self {
        let first = queue.front().map_or(0, Commit::space);
        let most = batch_max(segment_len);
        let limit = if pages(first) <= room { room.min(most) } else { most };
        let mut batch = Batch::default();
        let mut space = 0;
        while let Some(commit) = queue.pop_front() {
            space += commit.space();
            if pages(space) > limit {
                queue.push_front(commit);
                break;
            }
            batch.commits.push(commit);
        }
        batch
    }

    pub(super) fn space(&self) -> usize {
        pages(self.commits.iter().map(Commit::space).sum())
    }
}
