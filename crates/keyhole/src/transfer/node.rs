//! The node's end of a transfer, and the limit of their number.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use keyhole_log::{Disk, Log};
use keyhole_node::EvictedObjects;
use tokio::net::UnixStream;

use super::peer::Peer;
use super::protocol::Direction;
use super::{receiver, sender};
use crate::metrics::Metrics;

/// Limit of concurrent transfers: each holds up to six buffers.
pub(crate) const TRANSFERS_MAX: usize = 2;

/// A permit for one of a limited number of transfers, held until drop.
pub(crate) struct TransferPermit(Rc<Cell<usize>>);

impl TransferPermit {
    /// Acquires a permit, if one is free.
    pub(crate) fn take(taken: &Rc<Cell<usize>>) -> Option<Self> {
        (taken.get() < TRANSFERS_MAX).then(|| {
            taken.set(taken.get() + 1);
            TransferPermit(taken.clone())
        })
    }
}

impl Drop for TransferPermit {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Serves one connection. Counts damaged objects in the metrics of a running node, and reads evicted
/// objects from `evicted`.
pub(crate) async fn serve<D: Disk>(
    log: &Log<D>,
    direction: &Direction,
    stream: UnixStream,
    metrics: Option<&Metrics>,
    evicted: Option<&dyn EvictedObjects>,
) -> io::Result<()> {
    let peer = Peer::new(stream);
    match direction {
        Direction::Export(scope) => sender::send(log, scope, &peer, (metrics, evicted)).await,
        Direction::Import => receiver::receive(log, &peer).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concurrent_transfers_are_bounded() {
        let taken = Rc::new(Cell::new(0));
        let places: Vec<_> = std::iter::from_fn(|| TransferPermit::take(&taken)).collect();
        assert_eq!(places.len(), TRANSFERS_MAX);
        drop(places);
        assert!(TransferPermit::take(&taken).is_some());
    }
}
