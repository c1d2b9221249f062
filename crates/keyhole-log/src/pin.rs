//! Pins: keep bodies readable and segments from being freed while held.

use std::fmt;
use std::sync::Arc;

use crate::index::Bodies;
use crate::state::State;
use crate::store::Store;
use crate::types::BodyId;

/// Keeps the bodies of an object readable while held, even after a delete or overwrite.
#[derive(Clone)]
pub struct ObjectPin {
    held: Arc<Held>,
}

struct Held {
    store: Arc<Store>,
    bodies: Bodies,
}

impl ObjectPin {
    /// Pins `bodies`. `state` must be the locked state of `store`.
    pub(crate) fn new(store: &Arc<Store>, state: &mut State, bodies: Bodies) -> Self {
        state.index.pin(bodies.as_slice());
        ObjectPin { held: Arc::new(Held { store: Arc::clone(store), bodies }) }
    }

    /// Returns the pinned bodies.
    pub(crate) fn bodies(&self) -> &[BodyId] {
        self.held.bodies.as_slice()
    }
}

impl fmt::Debug for ObjectPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ObjectPin")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.store.lock().index.unpin(self.bodies.as_slice());
    }
}

/// Keeps a segment from being freed while held. Must not be dropped while the state is locked.
pub(crate) struct SegmentPin {
    store: Arc<Store>,
    number: u32,
}

impl SegmentPin {
    /// Pins segment `number`. `state` must be the locked state of `store`.
    pub(crate) fn new(store: &Arc<Store>, state: &mut State, number: u32) -> Self {
        state.pin_segment(number);
        SegmentPin { store: Arc::clone(store), number }
    }

    /// Returns the number of the segment.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

impl fmt::Debug for SegmentPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentPin({})", self.number)
    }
}

impl Drop for SegmentPin {
    fn drop(&mut self) {
        self.store.lock().unpin_segment(self.number);
    }
}
