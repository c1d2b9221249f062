//! Segments set aside: part of them cannot be read, so they can never be emptied.
//!
//! The readable part of such a segment has been moved. It is not cleaned again while the log is
//! open, since each attempt would reread the bad sectors and move blocks without a gain. What is
//! left in it is reported once.

use super::Maintenance;
use crate::disk::Disk;
use crate::error::Damage;
use crate::state::{SearchPosition, UnreadData};
use crate::yielding::yield_once;

impl<D: Disk> Maintenance<D> {
    /// Sets a segment aside, and reports the objects and uploads left in it.
    pub(super) async fn put_aside(&mut self, number: u32, unread: UnreadData) {
        self.damaged.insert(number);
        let mut place = Some(SearchPosition::default());
        let mut named = 0;
        while let Some(from) = place {
            let (found, next) = self.store.lock().left_in(number, &from, &unread);
            named += found.len();
            self.find(found);
            place = next;
            yield_once().await;
        }
        if named == 0 {
            // The record of a bucket, or a body that only a reader holds.
            self.find(unread.record.or(unread.bodies.into_values().next()));
        }
        self.store.lock().counters.cleaner.segments_set_aside += 1;
    }

    fn find(&self, damages: impl IntoIterator<Item = Damage>) {
        let mut state = self.store.lock();
        damages.into_iter().for_each(|damage| state.add_finding(damage));
    }
}
