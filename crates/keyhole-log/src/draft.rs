//! Records to write.

use crate::index::Effect;

/// A record to write.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) seq: u64,
    pub(crate) kind: u8,
    pub(crate) payload: Vec<u8>,
    pub(crate) effect: Effect,
}

impl Draft {
    pub(crate) fn moved(&self) -> bool {
        matches!(self.effect, Effect::Moved(_))
    }

    /// Returns whether the record names blocks, which must be durable when it is acknowledged.
    pub(crate) fn has_blocks(&self) -> bool {
        match &self.effect {
            Effect::Body { runs, .. } => !runs.is_empty(),
            // The cleaner wrote the blocks it refers to.
            Effect::Moved(_) => true,
            _ => false,
        }
    }
}
