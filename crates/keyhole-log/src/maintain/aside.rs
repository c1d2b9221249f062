//! Segments set aside: part of them cannot be read, so they can never be emptied.
//!
//! The readable part of such a segment has been moved. It is not cleaned again while the log is
//! open, since each attempt would reread the bad sectors and move blocks without a gain. What is
//! left in it is reported once.

use std::collections::BTreeMap;

use super::Maintenance;
use crate::disk::Disk;
use crate::error::Damage;
use crate::index::{Location, ObjectEntry};
use crate::limits::FINDINGS_MAX;
use crate::store::State;
use crate::types::BodyId;
use crate::writer::others_first;

/// Objects examined per lock acquisition.
const OBJECTS_AT_A_TIME: usize = 4096;

/// The unreadable parts of a segment.
#[derive(Debug, Default)]
pub(super) struct Unread {
    /// Damage of the first unreadable record.
    pub(super) record: Option<Damage>,
    /// Damage of each unreadable body.
    pub(super) bodies: BTreeMap<BodyId, Damage>,
}

impl Unread {
    pub(super) fn is_empty(&self) -> bool {
        self.record.is_none() && self.bodies.is_empty()
    }
}

/// Position of the search for objects: the bucket, and the key to continue from.
#[derive(Debug, Default)]
struct SearchPosition {
    bucket: u64,
    key: String,
}

impl<D: Disk> Maintenance<D> {
    /// Sets a segment aside, and reports the objects and uploads left in it.
    pub(super) async fn put_aside(&mut self, number: u32, unread: Unread) {
        self.damaged.insert(number);
        let (mut place, mut named) = (Some(SearchPosition::default()), 0);
        while let Some(from) = place {
            let (found, next) = self.store.lock().left_in(number, &from, &unread);
            named += found.len();
            self.find(found);
            place = next;
            others_first().await;
        }
        if named == 0 {
            // The record of a bucket, or a body that only a reader holds.
            self.find(unread.record.or(unread.bodies.into_values().next()));
        }
        self.store.lock().counters.cleaner.segments_set_aside += 1;
    }

    fn find(&self, damages: impl IntoIterator<Item = Damage>) {
        let mut state = self.store.lock();
        damages.into_iter().for_each(|damage| state.find(damage));
    }
}

impl State {
    /// Records damage found while the log is open. Beyond [`FINDINGS_MAX`] it is only counted.
    fn find(&mut self, damage: Damage) {
        self.counters.cleaner.damaged += 1;
        if self.maintenance.findings.len() < FINDINGS_MAX {
            self.maintenance.findings.push(damage);
        }
    }

    /// Returns the damage of those of the next objects, and of a bucket's uploads, that have data
    /// in this segment, and the position to continue from.
    fn left_in(&self, segment: u32, from: &SearchPosition, unread: &Unread) -> (Vec<Damage>, Option<SearchPosition>) {
        let mut found = Vec::new();
        let Some((id, home)) = self.index.next_bucket(from.bucket) else { return (found, None) };
        let first = if id == from.bucket { &*from.key } else { "" };
        for (seen, (key, entry)) in home.objects_from(first).enumerate() {
            if seen == OBJECTS_AT_A_TIME {
                return (found, Some(SearchPosition { bucket: id, key: key.to_owned() }));
            }
            let damage = self.damage_of(segment, entry, unread);
            found.extend(damage.map(|damage| damage.of(Some(home.name()), Some(key))));
        }
        for (seq, upload) in home.uploads_from(0) {
            let bodies =
                upload.parts((id, seq), 0).filter_map(|part| self.damage_of_body(segment, part.part.body, unread));
            let damage = self.damage_at(segment, upload.at).into_iter().chain(bodies).next();
            found.extend(damage.map(|damage| damage.of(Some(home.name()), Some(upload.key()))));
        }
        (found, Some(SearchPosition { bucket: id + 1, key: String::new() }))
    }

    fn damage_of(&self, segment: u32, entry: &ObjectEntry, unread: &Unread) -> Option<Damage> {
        let bodies = entry.bodies.as_slice().iter().filter_map(|&body| self.damage_of_body(segment, body, unread));
        self.damage_at(segment, entry.at).into_iter().chain(bodies).next()
    }

    fn damage_of_body(&self, segment: u32, id: BodyId, unread: &Unread) -> Option<Damage> {
        let body = self.index.body_entry(id)?;
        let here = body.shares.as_slice().iter().any(|share| share.segment == segment);
        let damage = unread.bodies.get(&id).filter(|_| here).cloned();
        damage.or_else(|| self.damage_at(segment, body.at))
    }

    fn damage_at(&self, segment: u32, at: Location) -> Option<Damage> {
        let here = at != Location::LOST && self.segments.number(at.offset()) == Some(segment);
        here.then(|| Damage::new("a record that cannot be read", at.offset()))
    }
}
