//! The search for the oldest versions that can be evicted.

use std::collections::BinaryHeap;

use super::State;
use crate::limits::EXPIRE_BATCH;

/// A version that can be evicted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EvictionCandidate {
    /// Its sequence number.
    pub number: u64,
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// Plaintext bytes.
    pub size: u64,
}

/// Position of the search: the bucket, and the key to continue from.
#[derive(Debug, Default)]
pub(crate) struct EvictionSearch {
    bucket: u64,
    key: String,
}

/// The candidates with the lowest numbers found so far, the highest of them on top.
#[derive(Debug)]
pub(crate) struct Evictions {
    heap: BinaryHeap<EvictionCandidate>,
    limit: usize,
}

impl Evictions {
    pub(crate) fn new(limit: usize) -> Self {
        Evictions { heap: BinaryHeap::new(), limit }
    }

    /// Returns whether a candidate with this number would be kept.
    fn admits(&self, number: u64) -> bool {
        self.heap.len() < self.limit || self.heap.peek().is_some_and(|highest| number < highest.number)
    }

    fn add(&mut self, candidate: EvictionCandidate) {
        self.heap.push(candidate);
        if self.heap.len() > self.limit {
            self.heap.pop();
        }
    }

    /// Returns the candidates, lowest number first.
    pub(crate) fn into_sorted(self) -> Vec<EvictionCandidate> {
        self.heap.into_sorted_vec()
    }
}

impl State {
    /// Visits the next names from a position and returns the position to continue from.
    pub(crate) fn evictable(
        &self,
        from: EvictionSearch,
        through: u64,
        is_wanted: &impl Fn(&str, &str, u64) -> bool,
        found: &mut Evictions,
    ) -> Option<EvictionSearch> {
        let (bucket, home) = self.index.next_bucket(from.bucket)?;
        let first = if bucket == from.bucket { &*from.key } else { "" };
        let mut seen = 0;
        for name in home.names_from(first.as_bytes()) {
            if seen >= EXPIRE_BATCH {
                return Some(EvictionSearch { bucket, key: name.key.to_owned() });
            }
            for entry in name.oldest_first() {
                seen += 1;
                let number = entry.seq;
                let may_be = number <= through && found.admits(number) && self.index.is_evictable(home, entry);
                let is_locked = || home.lock_of(number).keeps(self.index.lock_clock_ms, false);
                if may_be && !is_locked() && is_wanted(home.name(), name.key, number) {
                    let bucket = home.name().to_owned();
                    let key = name.key.to_owned();
                    found.add(EvictionCandidate { number, bucket, key, size: entry.size });
                }
            }
        }
        Some(EvictionSearch { bucket: bucket + 1, key: String::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_with_lowest_numbers_are_kept_in_order() {
        for (limit, expected) in [(0, &[][..]), (3, &[1, 2, 3]), (9, &[1, 2, 3, 4, 7])] {
            let mut found = Evictions::new(limit);
            for number in [7, 3, 1, 4, 2] {
                if found.admits(number) {
                    let bucket = String::new();
                    found.add(EvictionCandidate { number, bucket, key: String::new(), size: 1 });
                }
            }
            let numbers: Vec<u64> = found.into_sorted().iter().map(|candidate| candidate.number).collect();
            assert_eq!(numbers, expected);
        }
    }
}
