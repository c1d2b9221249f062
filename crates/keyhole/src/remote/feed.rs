//! Distribution of the versions that are removed from the store to the remotes.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use keyhole_log::{Removals, Removed, Store};
use keyhole_remote::limits::REMOVALS_MAX;

/// The removals that each remote has not taken yet.
pub(super) struct Feed {
    store: Arc<Store>,
    queues: RefCell<BTreeMap<String, Queue>>,
}

struct Queue {
    waiting: VecDeque<Removed>,
    is_complete: bool,
}

impl Feed {
    pub(super) fn new(store: Arc<Store>) -> Rc<Self> {
        Rc::new(Feed { store, queues: RefCell::default() })
    }

    /// Begins to collect the removals for a remote. What was removed before is unknown.
    pub(super) fn add(&self, remote: &str) {
        let mut queues = self.queues.borrow_mut();
        if queues.is_empty() {
            self.store.track_removals(REMOVALS_MAX);
        }
        queues.insert(remote.to_owned(), Queue { waiting: VecDeque::new(), is_complete: false });
    }

    pub(super) fn remove(&self, remote: &str) {
        let mut queues = self.queues.borrow_mut();
        queues.remove(remote);
        if queues.is_empty() {
            self.store.track_removals(0);
        }
    }

    /// Returns the removals since the last call for this remote.
    pub(super) fn take(&self, remote: &str) -> Removals {
        let new = self.store.take_removals();
        let mut queues = self.queues.borrow_mut();
        for queue in queues.values_mut() {
            if !new.is_complete || queue.waiting.len() + new.removed.len() > REMOVALS_MAX {
                queue.waiting.clear();
                queue.is_complete = false;
            } else {
                queue.waiting.extend(new.removed.iter().cloned());
            }
        }
        match queues.get_mut(remote) {
            Some(queue) => Removals {
                removed: queue.waiting.drain(..).collect(),
                is_complete: std::mem::replace(&mut queue.is_complete, true),
            },
            None => Removals { removed: Vec::new(), is_complete: false },
        }
    }
}
