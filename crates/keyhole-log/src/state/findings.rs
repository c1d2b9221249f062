//! Damage found while the store is open.

use std::collections::BTreeMap;

use super::State;
use crate::error::Damage;
use crate::index::{Location, ObjectEntry};
use crate::limits::FINDINGS_MAX;
use crate::types::{BodyId, UploadIdentity};

/// Objects examined per lock acquisition.
const OBJECTS_AT_A_TIME: usize = 4096;

/// The unreadable parts of a segment.
#[derive(Debug, Default)]
pub(crate) struct UnreadData {
    /// Damage of the first unreadable record.
    pub(crate) record: Option<Damage>,
    /// Damage of each unreadable body.
    pub(crate) bodies: BTreeMap<BodyId, Damage>,
}

impl UnreadData {
    pub(crate) fn is_empty(&self) -> bool {
        self.record.is_none() && self.bodies.is_empty()
    }
}

/// Position of the search for objects: the bucket, and the key to continue from.
#[derive(Debug, Default)]
pub(crate) struct SearchPosition {
    bucket: u64,
    key: String,
}

impl State {
    /// Records damage found while the log is open. Beyond [`FINDINGS_MAX`] it is only counted.
    pub(crate) fn add_finding(&mut self, damage: Damage) {
        self.counters.cleaner.damaged += 1;
        if self.maintenance.findings.len() < FINDINGS_MAX {
            self.maintenance.findings.push(damage);
        }
    }

    /// Returns the damage of those of the next objects, and of a bucket's uploads, that have data
    /// in this segment, and the position to continue from.
    pub(crate) fn left_in(
        &self,
        segment: u32,
        from: &SearchPosition,
        unread: &UnreadData,
    ) -> (Vec<Damage>, Option<SearchPosition>) {
        let mut found = Vec::new();
        let Some((id, home)) = self.index.next_bucket(from.bucket) else { return (found, None) };
        let first = if id == from.bucket { &*from.key } else { "" };
        let mut seen = 0;
        for name in home.names_from(first.as_bytes()) {
            if seen >= OBJECTS_AT_A_TIME {
                return (found, Some(SearchPosition { bucket: id, key: name.key.to_owned() }));
            }
            for entry in name.oldest_first() {
                seen += 1;
                let damage = self.damage_of(segment, entry, unread);
                found.extend(damage.map(|damage| damage.of(Some(home.name()), Some(name.key))));
            }
        }
        for (seq, upload) in home.uploads_from(0) {
            let bodies = upload
                .attempts(UploadIdentity { bucket: id, upload: seq })
                .filter_map(|(_, part)| self.damage_of_body(segment, part.part.body, unread));
            let damage = self.damage_at(segment, upload.at).into_iter().chain(bodies).next();
            found.extend(damage.map(|damage| damage.of(Some(home.name()), Some(upload.key()))));
        }
        (found, Some(SearchPosition { bucket: id + 1, key: String::new() }))
    }

    fn damage_of(&self, segment: u32, entry: &ObjectEntry, unread: &UnreadData) -> Option<Damage> {
        let bodies = entry.bodies.as_slice().iter().filter_map(|&body| self.damage_of_body(segment, body, unread));
        self.damage_at(segment, entry.at).into_iter().chain(bodies).next()
    }

    fn damage_of_body(&self, segment: u32, id: BodyId, unread: &UnreadData) -> Option<Damage> {
        let body = self.index.body_entry(id)?;
        let here = body.shares.as_slice().iter().any(|share| share.segment == segment);
        let damage = unread.bodies.get(&id).filter(|_| here).cloned();
        damage.or_else(|| self.damage_at(segment, body.at))
    }

    fn damage_at(&self, segment: u32, at: Location) -> Option<Damage> {
        let here = at.is_in_file() && self.segments.number(at.offset()) == Some(segment);
        here.then(|| Damage::new("a record that cannot be read", at.offset()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn findings_over_the_limit_are_only_counted() {
        let mut state = State::empty();
        for (added, kept) in [(FINDINGS_MAX - 1, FINDINGS_MAX - 1), (1, FINDINGS_MAX), (1, FINDINGS_MAX)] {
            (0..added).for_each(|at| state.add_finding(Damage::new("a record", at as u64)));
            assert_eq!(state.maintenance.findings.len(), kept);
        }
        assert_eq!(state.counters.cleaner.damaged, FINDINGS_MAX as u64 + 1);
    }
}
