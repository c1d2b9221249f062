//! A compact ordered map: large leaves, filled nearly to capacity.
//!
//! The standard library's map leaves a third to a half of its slots empty, which dominates an index
//! of millions of entries. Here an entry costs its own size plus a tenth, and an insertion moves up
//! to [`LEAF_MAX`] entries. A lookup is two binary searches, of the first keys of the leaves and of one
//! leaf.

use std::borrow::Borrow;
use std::cell::Cell;
use std::cmp::Ordering;

use crate::limits::LEAF_MAX;

/// Growth step of a leaf, and so its spare capacity unless entries are removed.
const LEAF_STEP: usize = LEAF_MAX.div_ceil(16);

/// A leaf with fewer entries is merged with a neighbour if both fit into one.
const LEAF_MIN: usize = LEAF_MAX / 4;

/// An ordered map.
#[derive(Debug)]
pub(crate) struct SortedMap<K, V> {
    /// The leaves. None of them is empty.
    leaves: Vec<Vec<(K, V)>>,
    /// The first key of each leaf, so that the search for a leaf reads one array.
    firsts: Vec<K>,
    len: usize,
    /// The leaf found last: sequential access finds it again without a search.
    last: Cell<usize>,
}

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        SortedMap { leaves: Vec::new(), firsts: Vec::new(), len: 0, last: Cell::new(0) }
    }
}

/// Position of an entry or of an insertion. Invalidated by changes of the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    leaf: usize,
    at: usize,
}

impl<K: Ord + Clone, V> SortedMap<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns the bytes allocated by the map, without those owned by keys and values.
    pub(crate) fn allocated(&self) -> usize {
        let leaves: usize = self.leaves.iter().map(|leaf| leaf.capacity() * size_of::<(K, V)>()).sum();
        leaves + self.leaves.capacity() * size_of::<Vec<(K, V)>>() + self.firsts.capacity() * size_of::<K>()
    }

    /// Returns the position of this key (`Ok`), or where it would be inserted (`Err`).
    pub(crate) fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<Place, Place>
    where
        K: Borrow<Q>,
    {
        self.find_by(|k| k.borrow().cmp(key))
    }

    /// Returns the position of the key that compares as equal, or where it would be inserted.
    /// `compare` compares a key with the one looked for.
    pub(crate) fn find_by(&self, compare: impl Fn(&K) -> Ordering) -> Result<Place, Place> {
        let begins = |first: &K| compare(first) != Ordering::Greater;
        let again = self.last.get()..self.last.get() + 2;
        let near =
            |leaf: usize| self.firsts.get(leaf).is_some_and(begins) && !self.firsts.get(leaf + 1).is_some_and(begins);
        let leaf = match again.into_iter().find(|&leaf| near(leaf)) {
            Some(leaf) => leaf,
            // New keys are often the last, while older ones are looked up in between.
            None if self.firsts.last().is_some_and(begins) => self.firsts.len() - 1,
            None => self.firsts.partition_point(begins).saturating_sub(1),
        };
        self.last.set(leaf);
        let Some(entries) = self.leaves.get(leaf) else { return Err(Place { leaf: 0, at: 0 }) };
        match entries.binary_search_by(|(k, _)| compare(k)) {
            Ok(at) => Ok(Place { leaf, at }),
            Err(at) => Err(Place { leaf, at }),
        }
    }

    pub(crate) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.find(key).ok().map(|Place { leaf, at }| &self.leaves[leaf][at].1)
    }

    pub(crate) fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.find(key).ok().map(|Place { leaf, at }| &mut self.leaves[leaf][at].1)
    }

    pub(crate) fn at(&self, Place { leaf, at }: Place) -> &V {
        &self.leaves[leaf][at].1
    }

    pub(crate) fn at_mut(&mut self, Place { leaf, at }: Place) -> &mut V {
        &mut self.leaves[leaf][at].1
    }

    pub(crate) fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).is_ok()
    }

    /// Inserts an entry and returns the previous value.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        // Sequential insertion is the common case during recovery.
        if let Some(last) = self.leaves.last().and_then(|leaf| leaf.last())
            && key.cmp(&last.0) == Ordering::Greater
        {
            let leaf = self.leaves.len() - 1;
            let at = self.leaves[leaf].len();
            self.insert_at(Place { leaf, at }, key, value);
            return None;
        }
        match self.find(&key) {
            Ok(Place { leaf, at }) => Some(std::mem::replace(&mut self.leaves[leaf][at].1, value)),
            Err(place) => {
                self.insert_at(place, key, value);
                None
            }
        }
    }

    /// Inserts an entry at the position returned by [`find`](Self::find).
    pub(crate) fn insert_at(&mut self, Place { leaf, at }: Place, key: K, value: V) {
        self.len += 1;
        let Some(entries) = self.leaves.get_mut(leaf) else {
            self.firsts.push(key.clone());
            self.leaves.push(vec![(key, value)]);
            return;
        };
        if at == 0 {
            self.firsts[leaf] = key.clone();
        }
        if entries.len() < LEAF_MAX {
            if entries.len() == entries.capacity() {
                entries.reserve_exact(LEAF_STEP);
            }
            entries.insert(at, (key, value));
            return;
        }
        // At the end the full leaf stays full, so sequential insertion fills every leaf.
        let split = if at == LEAF_MAX { LEAF_MAX } else { LEAF_MAX / 2 };
        let mut right = Vec::with_capacity(LEAF_MAX - split + LEAF_STEP);
        right.extend(entries.drain(split..));
        if at < split {
            entries.insert(at, (key, value));
        } else {
            right.insert(at - split, (key, value));
        }
        entries.shrink_to(entries.len() + LEAF_STEP);
        self.firsts.insert(leaf + 1, right[0].0.clone());
        self.leaves.insert(leaf + 1, right);
    }

    pub(crate) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.find(key).ok().map(|place| self.remove_at(place))
    }

    pub(crate) fn remove_at(&mut self, Place { leaf, at }: Place) -> V {
        let entries = &mut self.leaves[leaf];
        let (_, value) = entries.remove(at);
        self.len -= 1;
        if entries.is_empty() {
            self.leaves.remove(leaf);
            self.firsts.remove(leaf);
            if self.leaves.capacity() > 4 * self.leaves.len().max(LEAF_MIN) {
                self.leaves.shrink_to(2 * self.leaves.len());
                self.firsts.shrink_to(2 * self.firsts.len());
            }
            return value;
        }
        if at == 0 {
            self.firsts[leaf] = entries[0].0.clone();
        }
        if entries.capacity() > entries.len() + 2 * LEAF_STEP {
            entries.shrink_to(entries.len() + LEAF_STEP);
        }
        if entries.len() < LEAF_MIN {
            self.join(leaf);
        }
        value
    }

    /// Merges a leaf with the next one, or else the previous one, if they fit into one.
    fn join(&mut self, leaf: usize) {
        for left in [Some(leaf), leaf.checked_sub(1)].into_iter().flatten() {
            let fits = self.leaves.get(left + 1).is_some_and(|right| right.len() + self.leaves[left].len() <= LEAF_MAX);
            if fits {
                let right = self.leaves.remove(left + 1);
                self.firsts.remove(left + 1);
                self.leaves[left].reserve_exact(right.len());
                self.leaves[left].extend(right);
                return;
            }
        }
    }

    /// Returns the value of the last key.
    pub(crate) fn last(&self) -> Option<&V> {
        self.leaves.last().and_then(|leaf| leaf.last()).map(|(_, value)| value)
    }

    /// Returns the value of the last key below `key`.
    pub(crate) fn before(&self, key: &K) -> Option<&V> {
        let Place { leaf, at } = self.find(key).unwrap_or_else(|place| place);
        let entry = match at.checked_sub(1) {
            Some(at) => self.leaves[leaf].get(at),
            None => self.leaves.get(leaf.checked_sub(1)?)?.last(),
        };
        entry.map(|(_, value)| value)
    }

    /// Iterates over the entries with keys at or above `key`.
    pub(crate) fn from<'a, Q: Ord + ?Sized>(
        &'a self,
        key: &Q,
    ) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V, Q>
    where
        K: Borrow<Q>,
    {
        self.iter_at(self.find(key).unwrap_or_else(|place| place))
    }

    /// Iterates over the entries from a position on.
    pub(crate) fn iter_at(&self, Place { leaf, at }: Place) -> impl Iterator<Item = (&K, &V)> {
        let first = self.leaves.get(leaf).map_or(&[][..], |entries| &entries[at..]);
        let rest = self.leaves.get(leaf + 1..).unwrap_or_default();
        first.iter().chain(rest.iter().flatten()).map(|(key, value)| (key, value))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.leaves.iter().flatten().map(|(key, value)| (key, value))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    impl<K: Ord + Clone, V> SortedMap<K, V> {
        fn check(&self) {
            assert!(self.leaves.iter().map(|leaf| &leaf[0].0).eq(&self.firsts));
            assert!(self.leaves.iter().all(|leaf| !leaf.is_empty() && leaf.len() <= LEAF_MAX));
            assert_eq!(self.leaves.iter().map(Vec::len).sum::<usize>(), self.len);
            assert!(self.leaves.iter().flatten().is_sorted_by(|a, b| a.0 < b.0));
        }
    }

    /// Compares random operations, over few and over many keys, with the standard map.
    #[test]
    fn sorted_map_behaves_as_the_standard_map() {
        let mut generator = fastrand::Rng::with_seed(1);
        let mut random = |n: u64| generator.u64(..n);
        for keys in [10, 1000, 100_000] {
            let mut map = SortedMap::default();
            let mut model = BTreeMap::new();
            for step in 0..40_000u64 {
                // The map grows, shrinks, and grows again.
                let key = random(keys);
                if random(10) < if step / 10_000 % 2 == 0 { 7 } else { 2 } {
                    assert_eq!(map.insert(key, step), model.insert(key, step));
                } else {
                    assert_eq!(map.remove(&key), model.remove(&key));
                }
                let probe = random(keys);
                assert_eq!(map.get(&probe), model.get(&probe));
                assert_eq!(map.from(&probe).next(), model.range(probe..).next());
                assert_eq!(map.before(&probe), model.range(..probe).next_back().map(|(_, value)| value));
                assert_eq!(map.last(), model.last_key_value().map(|(_, value)| value));
                if step % 1000 == 0 {
                    map.check();
                    assert!(map.iter().eq(model.iter()) && map.len() == model.len());
                    assert!(map.from(&probe).eq(model.range(probe..)));
                }
            }
        }
    }

    #[test]
    fn sequential_insertion_leaves_little_slack() {
        let mut map = SortedMap::default();
        for key in 0..100_000u64 {
            map.insert(key, key);
        }
        map.check();
        assert!(map.allocated() < 100_000 * 16 * 103 / 100, "{}", map.allocated());
        for key in 0..100_000u64 {
            if key % 5 != 0 {
                map.remove(&key);
            }
        }
        map.check();
        assert!(map.allocated() < 20_000 * 16 * 13 / 10, "{}", map.allocated());
    }

    #[test]
    fn empty_map_has_no_entries() {
        let mut map = SortedMap::<u8, ()>::default();
        assert!(map.len() == 0 && map.get(&1).is_none() && map.remove(&1).is_none() && map.from(&0).next().is_none());
    }
}
