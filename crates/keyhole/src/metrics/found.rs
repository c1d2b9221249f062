//! Objects that reads have found to be unreadable: each is counted once, however often clients
//! retry.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use keyhole_node::FaultKind;

/// Limit of objects that are remembered. Beyond it each finding counts as another object.
const OBJECTS_MAX: usize = 4096;

/// The unreadable objects found by reads since the start.
#[derive(Default)]
pub(super) struct FoundObjects {
    state: Mutex<Found>,
    hashes: RandomState,
}

#[derive(Default)]
struct Found {
    /// Hashes of kind, bucket and key.
    objects: HashSet<u64>,
    counts: FoundCounts,
}

/// Counts of unreadable objects.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct FoundCounts {
    /// Objects whose stored bytes are damaged.
    pub(crate) damaged: u64,
    /// Objects whose stored bytes do not authenticate.
    pub(crate) not_authentic: u64,
}

impl FoundObjects {
    /// Counts an object, unless a read has found it before.
    pub(super) fn add(&self, kind: FaultKind, bucket: &str, key: &str) {
        let is_damage = match kind {
            FaultKind::Damage => true,
            FaultKind::NotAuthentic => false,
            FaultKind::Internal => return,
        };
        let hash = self.hashes.hash_one((is_damage, bucket, key));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new =
            if state.objects.len() < OBJECTS_MAX { state.objects.insert(hash) } else { !state.objects.contains(&hash) };
        if is_new {
            let Found { counts, .. } = &mut *state;
            let count = if is_damage { &mut counts.damaged } else { &mut counts.not_authentic };
            *count += 1;
        }
    }

    pub(super) fn counts(&self) -> FoundCounts {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_is_counted_once_for_each_kind() {
        let found = FoundObjects::default();
        for _ in 0..3 {
            found.add(FaultKind::Damage, "b", "k");
            found.add(FaultKind::Damage, "b", "other");
            found.add(FaultKind::NotAuthentic, "b", "k");
            found.add(FaultKind::Internal, "b", "k");
        }
        assert_eq!(found.counts(), FoundCounts { damaged: 2, not_authentic: 1 });
    }

    #[test]
    fn findings_over_the_limit_are_counted_again() {
        let found = FoundObjects::default();
        (0..OBJECTS_MAX).for_each(|index| found.add(FaultKind::Damage, "b", &index.to_string()));
        found.add(FaultKind::Damage, "b", "0");
        assert_eq!(found.counts().damaged, OBJECTS_MAX as u64);
        (0..2).for_each(|_| found.add(FaultKind::Damage, "b", "one more"));
        assert_eq!(found.counts().damaged, OBJECTS_MAX as u64 + 2);
    }
}
