//! A leaf of the map: entries in the order of their keys.

use super::separators::{common_len, first_bytes};
use crate::limits::LEAF_MAX;

/// Growth step of a leaf, and so its spare capacity unless entries are removed.
const LEAF_STEP: usize = LEAF_MAX.div_ceil(16);

/// A leaf. Keys, fingerprints and values are in separate arrays: a search reads the fingerprints, and
/// one key to confirm the match.
#[derive(Debug)]
pub(super) struct Leaf<V> {
    /// Length of a common prefix of all keys.
    common: usize,
    /// Of each key the 8 bytes behind the common prefix, padded with zeros, as a number.
    fingerprints: Vec<u64>,
    /// The keys, concatenated.
    text: String,
    /// The end of each key in `text`.
    ends: Vec<u32>,
    values: Vec<V>,
}

/// Returns the fingerprint of the bytes after the common prefix. Different keys can have equal ones.
fn fingerprint(rest: &[u8]) -> u64 {
    u64::from_be_bytes(first_bytes(rest))
}

/// Makes room for one element more.
fn grow<T>(vec: &mut Vec<T>) {
    if vec.len() == vec.capacity() {
        vec.reserve_exact(LEAF_STEP);
    }
}

impl<V> Leaf<V> {
    /// Creates an empty leaf. It must get an entry before it is searched.
    fn new() -> Self {
        Leaf { common: 0, fingerprints: Vec::new(), text: String::new(), ends: Vec::new(), values: Vec::new() }
    }

    /// Creates a leaf of one entry.
    pub(super) fn of(key: &str, value: V) -> Self {
        let mut leaf = Leaf::new();
        leaf.insert(0, key, value);
        leaf
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    fn start(&self, at: usize) -> usize {
        at.checked_sub(1).map_or(0, |before| self.ends[before] as usize)
    }

    pub(super) fn key(&self, at: usize) -> &str {
        &self.text[self.start(at)..self.ends[at] as usize]
    }

    pub(super) fn first(&self) -> &str {
        self.key(0)
    }

    pub(super) fn last(&self) -> &str {
        self.key(self.len() - 1)
    }

    pub(super) fn value(&self, at: usize) -> &V {
        &self.values[at]
    }

    pub(super) fn value_mut(&mut self, at: usize) -> &mut V {
        &mut self.values[at]
    }

    /// Returns the position of a key (`Ok`), or where it would be inserted (`Err`).
    pub(super) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        if let Some(rest) = key.get(self.common..) {
            let fingerprint = fingerprint(rest);
            let start = self.fingerprints.partition_point(|&other| other < fingerprint);
            // Usually it is this one. Its key then has the common prefix, too.
            if self.fingerprints.get(start) == Some(&fingerprint) && self.key(start).as_bytes() == key {
                return Ok(start);
            }
            let prefix = &self.first().as_bytes()[..self.common];
            if key.starts_with(prefix) {
                return self.find_equal(key, start, fingerprint);
            }
        }
        // The key lacks the common prefix, so all keys are on one side of it.
        Err(if key < self.first().as_bytes() { 0 } else { self.len() })
    }

    /// Searches the keys with this fingerprint, which begin at `start`.
    fn find_equal(&self, key: &[u8], start: usize, fingerprint: u64) -> Result<usize, usize> {
        let mut low = start;
        let mut high = start + self.fingerprints[start..].partition_point(|&other| other == fingerprint);
        while low < high {
            let middle = low.midpoint(high);
            match self.key(middle).as_bytes().cmp(key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    pub(super) fn insert(&mut self, at: usize, key: &str, value: V) {
        let common = if self.values.is_empty() { key.len() } else { common_len(self.prefix(), key.as_bytes()) };
        if self.text.len() + key.len() > self.text.capacity() {
            let others = self.text.len() / self.len().max(1) * (LEAF_STEP - 1);
            self.text.reserve_exact(key.len() + others);
        }
        let start = self.start(at);
        self.text.insert_str(start, key);
        for end in &mut self.ends[at..] {
            *end += key.len() as u32;
        }
        grow(&mut self.ends);
        self.ends.insert(at, (start + key.len()) as u32);
        grow(&mut self.values);
        self.values.insert(at, value);
        grow(&mut self.fingerprints);
        if common == self.common {
            self.fingerprints.insert(at, fingerprint(&key.as_bytes()[common..]));
        } else {
            self.fingerprints.push(0);
            self.set_common(common);
        }
    }

    /// Returns the common prefix.
    fn prefix(&self) -> &[u8] {
        &self.text.as_bytes()[..self.common]
    }

    /// Sets the length of the common prefix, and all fingerprints.
    fn set_common(&mut self, common: usize) {
        self.common = common;
        let mut start = 0;
        for (target, &end) in self.fingerprints.iter_mut().zip(&self.ends) {
            *target = fingerprint(&self.text.as_bytes()[start + common..end as usize]);
            start = end as usize;
        }
    }

    /// Finds the longest common prefix after entries have been taken away or added.
    fn renew_common(&mut self) {
        self.set_common(common_len(self.first().as_bytes(), self.last().as_bytes()));
    }

    pub(super) fn remove(&mut self, at: usize) -> V {
        let start = self.start(at);
        let end = self.ends[at] as usize;
        self.text.replace_range(start..end, "");
        self.ends.remove(at);
        for later in &mut self.ends[at..] {
            *later -= (end - start) as u32;
        }
        self.fingerprints.remove(at);
        let value = self.values.remove(at);
        if self.values.capacity() > self.values.len() + 2 * LEAF_STEP {
            self.shrink(LEAF_STEP);
        }
        value
    }

    /// Gives back memory beyond that for `spare` entries more.
    pub(super) fn shrink(&mut self, spare: usize) {
        self.fingerprints.shrink_to(self.fingerprints.len() + spare);
        self.ends.shrink_to(self.ends.len() + spare);
        self.values.shrink_to(self.values.len() + spare);
        self.text.shrink_to(self.text.len() + self.text.len() / self.len().max(1) * spare);
    }

    /// Moves the entries from `at` on, at least one and not all, to a new leaf.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        let mut right = Leaf::new();
        let start = self.start(at);
        let len = self.len() - at;
        right.text.reserve_exact((self.text.len() - start) / len * (len + LEAF_STEP));
        right.text.push_str(&self.text[start..]);
        right.ends.reserve_exact(len + LEAF_STEP);
        right.ends.extend(self.ends[at..].iter().map(|&end| end - start as u32));
        right.values.reserve_exact(len + LEAF_STEP);
        right.values.extend(self.values.drain(at..));
        right.fingerprints.reserve_exact(len + LEAF_STEP);
        right.fingerprints.resize(len, 0);
        right.renew_common();
        self.text.truncate(start);
        self.ends.truncate(at);
        self.fingerprints.truncate(at);
        self.shrink(LEAF_STEP);
        self.renew_common();
        right
    }

    /// Appends the entries of the next leaf.
    pub(super) fn append(&mut self, right: Self) {
        let start = self.text.len() as u32;
        self.text.reserve_exact(right.text.len());
        self.text.push_str(&right.text);
        self.ends.reserve_exact(right.len());
        self.ends.extend(right.ends.iter().map(|&end| end + start));
        self.values.reserve_exact(right.len());
        self.values.extend(right.values);
        self.fingerprints.reserve_exact(right.fingerprints.len());
        self.fingerprints.resize(self.values.len(), 0);
        self.renew_common();
    }

    /// Iterates over the entries from a position on.
    pub(super) fn iter_at(&self, at: usize) -> impl Iterator<Item = (&str, &V)> {
        let mut start = self.start(at);
        self.ends[at..].iter().zip(&self.values[at..]).map(move |(&end, value)| {
            let key = &self.text[start..end as usize];
            start = end as usize;
            (key, value)
        })
    }

    /// Returns the bytes allocated, with the keys and the leaf itself.
    pub(super) fn allocated(&self) -> usize {
        size_of::<Self>()
            + self.fingerprints.capacity() * size_of::<u64>()
            + self.text.capacity()
            + self.ends.capacity() * size_of::<u32>()
            + self.values.capacity() * size_of::<V>()
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        assert!(!self.values.is_empty() && self.len() <= LEAF_MAX);
        assert!(self.fingerprints.len() == self.len() && self.ends.len() == self.len());
        assert_eq!(self.ends.last().map(|&end| end as usize), Some(self.text.len()));
        let keys = || (0..self.len()).map(|at| self.key(at));
        assert!(keys().is_sorted_by(|a, b| a < b));
        assert!(keys().all(|key| key.as_bytes().starts_with(self.prefix())));
        assert!(
            keys().zip(&self.fingerprints).all(|(key, &found)| found == fingerprint(&key.as_bytes()[self.common..]))
        );
    }
}
