//! The memory budget of the node.
//!
//! A fixed part is set [aside](ASIDE) for the process. Half of the rest is for the buffers of
//! requests, and an eighth for connections, whose number it limits. The remainder is for the index,
//! which grows with the number of objects: when that is full, new objects are refused.

mod available;

use bytesize::ByteSize;
use keyhole_log::limits::{BUFFER_LEN, PAGE};
use keyhole_node::Share;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::net::CONNECTIONS_MAX;
pub(crate) use available::available;

/// Bytes for the program, its threads with rings and stacks, and the metrics.
const ASIDE: u64 = 16 << 20;

/// Buffers of each worker in addition to those of requests: batches of the log in flight, the
/// cleaner and checkpoints.
pub(crate) const LOG_BUFFERS: usize = 4;

/// Bytes of a connection: its input buffer, its task, and what its request holds except what is
/// admitted. HTTPS takes four times as much, and as many places.
const CONNECTION: u64 = 32 * 1024;

/// Minimum of connections per worker.
const CONNECTIONS_MIN: u64 = 32;

/// The memory budget and its parts. All lengths are in bytes.
#[derive(Serialize, Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Budget {
    /// The total, except the index where it exceeds its part.
    pub(crate) memory: u64,
    /// Buffers of bodies in flight, for all workers.
    pub(crate) buffers: u64,
    pub(crate) workers: usize,
    /// Of each worker.
    pub(crate) blocks: usize,
    pub(crate) pages: usize,
    pub(crate) connections: usize,
}

/// The reason why there is no budget.
#[derive(Error, Debug)]
pub(crate) enum BudgetError {
    #[error("--memory is too small: expected at least {}", show(*least))]
    TooSmall { least: u64 },
}

impl Budget {
    /// Returns the budget of a process with `asked` bytes, or by default with the available memory,
    /// for as many of the threads as the memory allows; logs a warning if that is fewer.
    pub(crate) fn find(asked: Option<u64>, threads: usize) -> Result<Self, BudgetError> {
        let memory = asked.unwrap_or_else(available);
        let budget = match (Budget::of(memory, threads), asked) {
            (Some(budget), _) => budget,
            (None, Some(_)) => {
                return Err(BudgetError::TooSmall { least: least() });
            }
            (None, None) => {
                tracing::warn!(
                    "available memory is {}, but the node needs {}: the system may kill it when memory runs out",
                    show(memory),
                    show(least())
                );
                Budget { memory, ..Budget::of(least(), threads).expect("the least is enough") }
            }
        };
        if budget.workers < threads {
            tracing::warn!("memory of {} is enough for {} of {threads} threads", show(memory), budget.workers);
        }
        tracing::info!("{}", budget.describe());
        Ok(budget)
    }

    /// Returns `None` if the memory is too small for one worker.
    fn of(memory: u64, threads: usize) -> Option<Self> {
        let rest = memory.saturating_sub(ASIDE);
        let workers = usize::try_from(rest / 2 / len(Share::MIN)).unwrap_or(usize::MAX).min(threads);
        if workers == 0 {
            return None;
        }
        let share = share(rest / 2 / workers as u64);
        let connections = (rest / 8 / CONNECTION / workers as u64).clamp(CONNECTIONS_MIN, CONNECTIONS_MAX as u64);
        Some(Budget {
            memory,
            buffers: workers as u64 * len(share),
            workers,
            blocks: share.blocks,
            pages: share.pages,
            connections: connections as usize,
        })
    }

    /// Returns the share that the requests of each worker may hold.
    pub(crate) fn share(&self) -> Share {
        Share { blocks: self.blocks, pages: self.pages }
    }

    /// Returns the part of the memory that the index may take.
    pub(crate) fn index(&self) -> u64 {
        let connections = (self.workers * self.connections) as u64 * CONNECTION;
        self.memory.saturating_sub(ASIDE + self.buffers + connections)
    }

    /// Returns a warning for the operator if an index of `index` bytes exceeds its part of the
    /// memory.
    pub(crate) fn index_warning(&self, index: u64) -> Option<String> {
        let room = self.index();
        let needed = (self.memory - room + index).next_multiple_of(1 << 20);
        (index > room).then(|| {
            format!(
                "the index takes {}, but a memory budget of {} leaves {} for it, and new objects are refused: \
                 set --memory to {} or more, or delete objects",
                show(index),
                show(self.memory),
                show(room),
                show(needed)
            )
        })
    }

    fn describe(&self) -> String {
        let Budget { memory, buffers, workers, blocks, pages, connections } = self;
        format!(
            "memory {}, of which {} for buffers; workers {workers}, each with {blocks} blocks, {pages} pages, \
             {connections} connections",
            show(*memory),
            show(*buffers)
        )
    }
}

/// Returns the largest share that fits into `bytes`: blocks first, because three of four bytes are
/// in long bodies.
fn share(bytes: u64) -> Share {
    let pages_of = |bytes: u64| (bytes / PAGE as u64).try_into().unwrap_or(usize::MAX);
    let left = bytes - len(Share { blocks: 0, ..Share::MIN });
    let blocks = usize::try_from(left / BUFFER_LEN as u64).unwrap_or(usize::MAX).min(Share::MAX.blocks);
    let pages: usize = pages_of(bytes - len(Share { blocks, pages: 0 }));
    Share { blocks, pages: pages.min(Share::MAX.pages) }
}

/// Returns the bytes that a worker's buffers take with this share.
fn len(share: Share) -> u64 {
    ((share.blocks + LOG_BUFFERS) * BUFFER_LEN + share.pages * PAGE) as u64
}

/// Returns the minimum for one worker, in whole MiB.
fn least() -> u64 {
    (ASIDE + 2 * len(Share::MIN)).next_multiple_of(1 << 20)
}

fn show(bytes: u64) -> impl std::fmt::Display {
    ByteSize::b(bytes).display().iec()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn budget_is_divided() {
        // (memory in MiB, threads) -> (workers, blocks, pages, connections)
        for ((memory, threads), expected) in [
            ((40, 4), (1, 7, 245, 96)),
            ((64, 1), (1, 16, 1004, 192)),
            ((64, 2), (2, 7, 245, 96)),
            ((64, 64), (2, 7, 245, 96)),
            ((96, 2), (2, 15, 237, 160)),
            ((128, 4), (4, 9, 243, 112)),
            ((256, 2), (2, 16, 1024, 480)),
            ((1 << 20, 64), (64, 16, 1024, 1024)),
        ] {
            let budget = Budget::of(memory * MIB, threads).unwrap();
            let Budget { workers, blocks, pages, connections, .. } = budget;
            assert_eq!((workers, blocks, pages, connections), expected, "{memory} MiB, {threads} threads");
        }
    }

    #[test]
    fn buffers_fit_half_of_budget() {
        for memory in (least() / MIB..2000).map(|mib| mib * MIB + 4321) {
            for threads in [1, 2, 3, 16, 256] {
                let budget = Budget::of(memory, threads).unwrap();
                assert!(budget.buffers <= (memory - ASIDE) / 2, "{budget:?}");
                assert!((1..=threads).contains(&budget.workers), "{budget:?}");
                assert!((Share::MIN.blocks..=Share::MAX.blocks).contains(&budget.blocks), "{budget:?}");
                assert!((Share::MIN.pages..=Share::MAX.pages).contains(&budget.pages), "{budget:?}");
            }
        }
    }

    #[test]
    fn oversized_index_causes_warning() {
        let budget = Budget::of(64 * MIB, 2).unwrap();
        let room = budget.index();
        assert!(room >= 16 * MIB, "room for 100,000 objects of about 140 bytes: {room}");
        assert_eq!(budget.index_warning(room), None);
        let warning = budget.index_warning(room + 1).unwrap();
        assert!(warning.contains("set --memory to 65.0 MiB or more"), "{warning}");
    }

    #[test]
    fn minimum_budget_is_sufficient() {
        assert!(Budget::of(least(), 2).is_some());
        assert!(Budget::of(least() - MIB, 2).is_none() && Budget::of(0, 1).is_none());
        assert!(Budget::find(Some(least()), 2).is_ok());
        let refused = Budget::find(Some(least() - MIB), 2).unwrap_err().to_string();
        assert!(refused.contains("expected at least 40.0 MiB"), "{refused}");
    }
}
